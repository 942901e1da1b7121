// The README is the documentation. Of two definitions of a link the first counts: here its pages lead to the modules
// that they are, and where it is read as a file to the files. A failing snippet should be named by its line of the README.
#![cfg_attr(not(doctest), doc = include_str!("guide/links.md"))]
// Its snippets need these features.
#![cfg_attr(all(feature = "config", feature = "tracing", feature = "metrics"), doc = include_str!("../README.md"))]
#![cfg_attr(
    not(all(feature = "config", feature = "tracing", feature = "metrics")),
    doc = "Keeps a current token on the outbound requests of any tower HTTP client: renewed ahead of time, once for \
           all callers, and a refused request is sent again.\n\n\
           Begin at [`TokenLayer`], [`Tokens`] and [`TokenProvider`], or with a task: [get a token], [share it], \
           [write a provider], [write a classifier], [add a client]. The whole story is the README, which is this page \
           where all features are on, and the [guide]."
)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod attempt;
mod challenge;
mod classify;
mod clock;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "endpoint")]
mod document;
mod error;
mod event;
mod future;
// For documentation only: `use tower_token::guide` compiles nowhere, so that no page is a promise of the API. clap and
// winnow have a feature for that, which their users can turn on too; arc-swap has such pages always.
#[cfg(any(doc, doctest))]
pub mod guide;
mod inject;
mod layer;
mod lifetime;
mod origin;
mod percent;
mod presentation;
mod provider;
mod replay;
#[cfg(feature = "reqwest")]
pub mod reqwest;
mod service;
// Without the feature nobody can make one.
#[cfg_attr(not(feature = "store"), allow(dead_code, unused_imports, unreachable_pub))]
mod store;
mod stripe;
mod sync;
mod tape;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(any(feature = "client", feature = "redis"))]
mod tls;
mod token;
mod tokens;
mod words;

pub use challenge::Challenge;
pub use classify::{
    BodyCode, Classify, ClassifyFn, Grpc, Inspecting, InspectingVia, Peeked, Report, StatusIn, Unauthorized, Verdict,
    Via, classify_fn,
};
pub use clock::Clock;
pub use error::{BoxError, Class, Error, Faults, FetchError};
#[cfg(feature = "metrics")]
pub use event::Metered;
#[cfg(feature = "tracing")]
pub use event::Traced;
pub use event::{Event, HandedBack, Observe, Skipped, Waited, WithoutToken};
pub use future::ResponseFuture;
pub use inject::{Authorization, Cookie, Header, Inject, InjectFn, Query, ReadyHeader, ReadyQuery, inject_fn};
pub use layer::{Prototype, TokenLayer};
pub use lifetime::{Freshness, RefreshPolicy};
pub use origin::{NoToken, Origins};
#[cfg(feature = "alibaba")]
pub use provider::alibaba;
#[cfg(feature = "client")]
pub use provider::client;
#[cfg(feature = "huawei")]
pub use provider::huawei;
#[cfg(feature = "tencent")]
pub use provider::tencent;
pub use provider::{Cause, FetchContext, Fixed, IfLost, ProviderFn, TokenProvider, provider_fn};
#[cfg(feature = "endpoint")]
pub use provider::{Endpoint, Fallback, endpoint};
#[cfg(feature = "oauth2")]
pub use provider::{TokenClient, oauth2};
pub use replay::{
    Auto, Buffered, CloneBody, Kept, Methods, Never, Recording, Replaceable, Replay, ReplayBody, TryClone, Unboxed,
};
pub use service::TokenService;
#[cfg(feature = "encryption")]
pub use store::EncryptionKey;
#[cfg(feature = "redis")]
pub use store::RedisStore;
pub use store::StoreError;
#[cfg(feature = "store")]
pub use store::{Envelope, FileStore, Lease, Record, Saved, StoreFuture, StorePolicy, TokenStore};
pub use token::{Fingerprint, Generation, Secret, Token, Warning, Wipe};
pub use tokens::{Get, KeepAlive, State, Status, Tokens, TokensBuilder};
