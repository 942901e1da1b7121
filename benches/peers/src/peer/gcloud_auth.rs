//! gcloud-auth: `ReuseTokenSource`, which hands out `Bearer ...` as a string.
//!
//! It fetches once when it is built.

use std::sync::Arc;

use ::gcloud_auth::credentials::CredentialsFile;
use ::gcloud_auth::project::Config;
use ::gcloud_auth::token::DefaultTokenSourceProvider;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use token_source::{TokenSource, TokenSourceProvider as _};

use crate::issuer::Issuer;
use crate::{Body, BoxError, Peer};

#[derive(Clone)]
pub struct GcloudAuth(Arc<dyn TokenSource>);

pub async fn open(issuer: Issuer) -> GcloudAuth {
    let document = serde_json::json!({
        "type": "authorized_user",
        "client_id": "test-client",
        "client_secret": "test-secret",
        "refresh_token": "test-refresh-token",
        "token_uri": issuer.serve().await,
    });
    let credentials = CredentialsFile::new_from_str(&document.to_string()).await.unwrap();
    let provider = DefaultTokenSourceProvider::new_with_credentials(Config::default(), Box::new(credentials)).await;
    GcloudAuth(provider.unwrap().token_source())
}

impl Peer for GcloudAuth {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let mut value = HeaderValue::try_from(self.0.token().await?)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}
