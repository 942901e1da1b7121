//! The services that are compared, each over the same [`Mirror`], and how one is called.
//!
//! A request travels: the mirror hands it back as the body of the response, so that neither it nor the
//! driver allocates, and one request with four headers serves for all calls. Before each call
//! `Authorization` is taken off, because a new request would have none; the bare case does the same and
//! finds none. The values of the headers are thus shared after the first call, and a copy of the head is
//! cheaper than that of a request that was built a moment ago: therefore requests are also built from
//! strings on each call, as clients do. The token has 900 bytes, as JWTs do. It is fresh, and no request
//! is refused.

#![allow(dead_code)] // Each benchmark uses its own part.

mod floor;
#[path = "../../tests/support/mirror.rs"]
mod mirror;
mod requests;
mod uncounted;

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tokio::runtime::Builder;
use tower::{Layer, Service};
use tower_http::auth::AddAuthorizationLayer;
use tower_token::{CloneBody, Never, Origins, Token, TokenLayer, Tokens, provider_fn};

use floor::FloorLayer;
use mirror::{Mirror, round};
pub(crate) use requests::Requests;
use uncounted::UncountedLayer;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// The inner service alone.
    Bare,
    /// A static header whose value has no reference count: less cannot be done.
    Uncounted,
    /// A static header, as most clients have it.
    Static,
    /// A token that can change and be refused, without origins and clock: what safety costs is seen beside it.
    Floor,
    /// The same with one origin, whole seconds and a look at the caller's header.
    Guarded,
    /// Ours as a user gets it, as the others below: one listed origin, the caller's own header respected.
    Never,
    /// A 401 is seen and renews the token; the body is none that can be kept.
    Detect,
    /// The head is kept, and so the request can be replayed.
    Auto,
    /// A body of 1 KiB is kept as well.
    CloneBody,
}

/// Does so many calls.
pub(crate) type Work = Box<dyn FnMut(u64) + Send>;

/// What is done with a contender, whatever its types.
pub(crate) trait Trial {
    type Outcome;

    /// `body` makes those of its requests.
    fn of<S, B>(self, service: S, body: fn() -> B) -> Self::Outcome
    where
        S: Service<Request<B>, Response = Response<Request<B>>> + Clone + Send + 'static,
        B: Send + 'static;
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare inner service",
            Self::Uncounted => "static value, not counted",
            Self::Static => "tower-http AddAuthorization",
            Self::Floor => "floor: no origins, no clock",
            Self::Guarded => "floor with one origin and a clock",
            Self::Never => "TokenLayer, Never",
            Self::Detect => "TokenLayer, body not kept",
            Self::Auto => "TokenLayer, Auto, empty body",
            Self::CloneBody => "TokenLayer, CloneBody, 1 KiB",
        }
    }

    /// Puts it through a trial; ours has these tokens.
    pub(crate) fn undergo<T: Trial>(self, trial: T, tokens: &Tokens) -> T::Outcome {
        let empty = Full::<Bytes>::default;
        let layer = || TokenLayer::new(tokens, listed());
        match self {
            Self::Bare => trial.of(Mirror, empty),
            Self::Uncounted => trial.of(UncountedLayer::bearer(secret(0)).layer(Mirror), empty),
            Self::Static => trial.of(AddAuthorizationLayer::bearer(&secret(0)).layer(Mirror), empty),
            Self::Floor => trial.of(floor::<false>().layer(Mirror), Stream::default),
            Self::Guarded => trial.of(floor::<true>().layer(Mirror), Stream::default),
            Self::Never => trial.of(layer().replay(Never).layer(Mirror), empty),
            Self::Detect => trial.of(layer().layer(Mirror), Stream::default),
            Self::Auto => trial.of(layer().layer(Mirror), empty),
            Self::CloneBody => trial.of(layer().replay(CloneBody).layer(Mirror), text),
        }
    }

    /// Calls of one service by one thread.
    pub(crate) fn calls(self, requests: Requests, tokens: &Tokens) -> Work {
        self.undergo(Calls(requests), tokens)
    }
}

struct Calls(Requests);

impl Trial for Calls {
    type Outcome = Work;

    fn of<S, B>(self, service: S, body: fn() -> B) -> Work
    where
        S: Service<Request<B>, Response = Response<Request<B>>> + Send + 'static,
        B: Send + 'static,
    {
        in_place(service, body, self.0)
    }
}

/// Calls of this service, which is not cloned for them.
pub(crate) fn in_place<S, B>(mut service: S, body: fn() -> B, requests: Requests) -> Work
where
    S: Service<Request<B>, Response = Response<Request<B>>> + Send + 'static,
    B: Send + 'static,
{
    let Some(build) = requests.build() else {
        let mut travelling = Some(mirror::request(body()));
        return Box::new(move |calls| {
            for _ in 0..calls {
                travelling = travelling.take().map(|request| call(&mut service, request));
            }
        });
    };
    Box::new(move |calls| {
        for _ in 0..calls {
            drop(call(&mut service, build(body())));
        }
    })
}

/// One whole call: polled ready, called, polled to its end, its future dropped.
///
/// Not inlined: the same layer reads 128 or 172 ns by what the compiler makes of the loop around it.
#[inline(never)]
pub(crate) fn call<S, B>(service: &mut S, request: Request<B>) -> Request<B>
where
    S: Service<Request<B>, Response = Response<Request<B>>>,
{
    black_box(round(service, black_box(request)))
}

// ===== Tokens =====

/// Tokens that are there. Every fetch brings another one, for a day.
pub(crate) fn issued() -> Tokens {
    let fetches = AtomicU64::new(0);
    let provider = provider_fn(move |_| {
        let nth = fetches.fetch_add(1, Ordering::Relaxed);
        async move { Ok(Token::bearer(secret(nth)).expires_in(Duration::from_secs(24 * 3600))) }
    });
    let tokens = Tokens::new(provider).unwrap();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(tokens.get()).unwrap();
    tokens
}

pub(crate) fn listed() -> Origins {
    Origins::only("https://api.example.com").unwrap()
}

fn floor<const GUARDED: bool>() -> FloorLayer<GUARDED> {
    FloorLayer::bearer(&secret(0), "api.example.com")
}

/// As long as a JWT.
fn secret(nth: u64) -> String {
    format!("test{nth:0>896}")
}

// ===== Bodies =====

fn text() -> Full<Bytes> {
    "x".repeat(1024).into()
}

/// Neither known to be empty nor of a type that is known: [`Auto`](tower_token::Auto) sends it once.
#[derive(Default)]
struct Stream(Full<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}
