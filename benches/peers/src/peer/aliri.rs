//! aliri_tokens: a task fetches ahead of time, and `token()` borrows what it last brought.
//!
//! It hands out a string, so its users write the two lines that make a header of it. Its watcher exists
//! only once there is a token, so there is no cold call.

use aliri_clock::DurationSecs;
use aliri_tokens::backoff::ErrorBackoffConfig;
use aliri_tokens::jitter::NullJitter;
use aliri_tokens::sources::AsyncTokenSource;
use aliri_tokens::{AccessToken, IdToken, TokenLifetimeConfig, TokenWatcher, TokenWithLifetime};
use http::Request;
use http::header::AUTHORIZATION;

use crate::issuer::{DAY, Issuer, Refused};
use crate::{Body, BoxError, Peer, bearer};

struct Source(Issuer);

#[async_trait::async_trait]
impl AsyncTokenSource for Source {
    type Error = Refused;

    async fn request_token(&mut self) -> Result<TokenWithLifetime, Refused> {
        let token = AccessToken::from(self.0.issue().await?);
        Ok(TokenLifetimeConfig::default().create_token(token, None::<IdToken>, DurationSecs(DAY.as_secs())))
    }
}

#[derive(Clone)]
pub struct Aliri(TokenWatcher);

pub async fn open(issuer: Issuer) -> Aliri {
    let backoff = ErrorBackoffConfig::default();
    Aliri(
        TokenWatcher::spawn_from_token_source(Source(issuer), NullJitter, backoff)
            .await
            .unwrap(),
    )
}

impl Peer for Aliri {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let mut value = bearer(self.0.token().access_token().as_str())?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}
