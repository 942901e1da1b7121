//! OAuth 2.0 grants (RFC 6749) as token providers.
//!
//! [`RefreshTokenGrant`] acts for a person who signed in once; [`ClientCredentialsGrant`] for the
//! program itself. Both post a form to the issuer's token endpoint and differ in nothing but what
//! they present there.
//!
//! What an issuer answers ends in a token or in a classed error:
//!
//! | answer | [class](crate::Class) |
//! |---|---|
//! | `invalid_grant`; a 400 without a body | `Terminal` |
//! | `invalid_client`, `unauthorized_client`, `invalid_scope`, `invalid_target`, …; a token that is not `Bearer` | `Config` |
//! | `interaction_required`, `login_required`, `consent_required`, `access_denied`, … | `NeedsInteraction` |
//! | 429; a 503 with `Retry-After`; `temporarily_unavailable`, `slow_down` with a 4xx | `Throttled` |
//! | all else: no connection, a timeout, a redirect, 5xx, 401 or 403 without an OAuth error, a malformed answer | `Transient` |
//!
//! A server that fails gives no verdict, whatever it says, and a 500, 502, 504, 520 or 524 may have spent the refresh
//! token: it counts as a lost answer ([`IfLost`](crate::IfLost)), as a timeout and a malformed answer do.
//!
//! The request body is wiped when the client drops it, the answer after it was read. What the HTTP
//! client and TLS copy cannot be.

mod answer;
mod client_credentials;
mod endpoint;
mod refresh_token;

pub use super::exchange::IntoTokenClient;
pub use client_credentials::ClientCredentialsGrant;
pub use endpoint::ClientAuth;
pub use refresh_token::RefreshTokenGrant;

#[cfg(feature = "endpoint")]
pub(in crate::provider) use endpoint::uri;
