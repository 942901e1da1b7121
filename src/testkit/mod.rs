//! An OAuth 2.0 issuer and an API that count what reaches them, and fail on demand.
//!
//! To test a service that needs tokens, one needs an issuer that is strict where real ones are
//! strict, that loses an answer at the very moment it hurts, and an API that knows which token it
//! was sent. The [`Issuer`] rotates refresh tokens, takes each of them once and ends a family that
//! is presented a used one. The [`Api`] accepts its tokens while they live. A [`Fault`] is what
//! goes wrong in between.
//!
//! **Counts are the judge.** [`Issuer::counts`] and [`Api::counts`] tell what arrived, never what a
//! client believes it sent. A test states how often a token may be asked for, and compares.
//!
//! The guide has a page on [testing a service](crate::guide::test_your_service) with them.
//!
//! # In virtual time
//!
//! Both are tower services and read tokio's clock only: an hour passes at once under
//! `start_paused = true`, and expiry is exact.
//!
//! ```
//! use std::time::Duration;
//!
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_token::testkit::{Api, Fault, Issuer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let issuer = Issuer::new();
//! issuer.lifetime(Duration::from_secs(5)).latency(Duration::from_millis(200));
//! let api = Api::new(&issuer);
//!
//! // What your client does: a user signed in once, and it refreshes.
//! let refresh = |token: &str| {
//!     let form = format!(
//!         "grant_type=refresh_token&refresh_token={token}&client_id={}&client_secret={}",
//!         issuer.client_id(),
//!         issuer.client_secret(),
//!     );
//!     let request = Request::post("https://login.example.com/token")
//!         .header("content-type", "application/x-www-form-urlencoded")
//!         .body(form);
//!     issuer.service().oneshot(request.expect("a valid request"))
//! };
//! let first = issuer.sign_in();
//! let answer = refresh(&first).await?.into_body().bytes().await?;
//! let answer: serde_json::Value = serde_json::from_slice(&answer)?;
//! let token = answer["access_token"].as_str().ok_or("no token")?;
//!
//! let call = || {
//!     let request = Request::get("https://api.example.com/api/me")
//!         .header("authorization", format!("Bearer {token}"))
//!         .body(String::new());
//!     api.service().oneshot(request.expect("a valid request"))
//! };
//! assert_eq!(call().await?.status(), StatusCode::OK);
//! tokio::time::advance(Duration::from_secs(5)).await;
//! assert_eq!(call().await?.status(), StatusCode::UNAUTHORIZED);
//! assert_eq!(api.counts().expired_seen, 1);
//!
//! // The answer is lost, the token is used up: trying again ends the family.
//! let second = answer["refresh_token"].as_str().ok_or("no refresh token")?;
//! issuer.fault(Fault::DropAfter);
//! assert!(refresh(second).await.is_err());
//! assert_eq!(refresh(second).await?.status(), StatusCode::BAD_REQUEST);
//! assert_eq!((issuer.counts().presented_twice, issuer.counts().reuse), (1, 1));
//! # Ok(())
//! # }
//! ```
//!
//! Timers of tokio have steps of a millisecond: a delay ends at the next whole one.
//!
//! # On a port
//!
//! [`Issuer::serve`] and [`Api::serve`] put the same two on loopback ports, for clients that
//! bring their own sockets. Real sockets do not follow a paused clock.
//!
//! ```
//! # use tower_token::testkit::{Api, Issuer};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let issuer = Issuer::new();
//! let login = issuer.serve().await?;
//! let api = Api::new(&issuer).serve().await?;
//! println!("tokens from {}/token for {}/api", login.url(), api.url());
//! # Ok(())
//! # }
//! ```
//!
//! # A store that fails
//!
//! [`MemoryStore`] keeps a token as a file or a database does, for several [`Tokens`](crate::Tokens) in one process, and
//! hangs, fails, forgets and goes back in time when a test says so. [`StoreSuite`] tells which rules a store of your own
//! breaks.
//!
//! # What it is not
//!
//! An issuer for anything but tests: it speaks no TLS, its tokens are words and a random number,
//! and it remembers all of them for as long as it lives.

mod answer;
mod api;
mod body;
mod credentials;
mod exchange;
mod fault;
mod future;
mod issuer;
mod ledger;
mod resource;
mod server;
mod store;
mod visit;

pub use self::api::{Api, ApiCounts};
pub use self::body::Body;
pub use self::exchange::IssuerService;
pub use self::fault::Fault;
pub use self::future::ResponseFuture;
pub use self::issuer::{Grant, Issued, Issuer, IssuerCounts, Presented};
pub use self::ledger::Standing;
pub use self::resource::ApiService;
pub use self::server::Server;
pub use self::store::{BrokenRules, Calls, MemoryStore, Snapshot, StoreCall, StoreSuite};
