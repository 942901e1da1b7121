//! google-cloud-auth: `headers()`, a map of headers built for every call from what a task fetched.

use ::google_cloud_auth::credentials::user_account::Builder;
use ::google_cloud_auth::credentials::{CacheableResource, Credentials};
use http::{Extensions, Request};

use crate::issuer::Issuer;
use crate::{Body, BoxError, Peer};

#[derive(Clone)]
pub struct GoogleCloudAuth(Credentials);

pub async fn open(issuer: Issuer) -> GoogleCloudAuth {
    let document = serde_json::json!({
        "type": "authorized_user",
        "client_id": "test-client",
        "client_secret": "test-secret",
        "refresh_token": "test-refresh-token",
    });
    GoogleCloudAuth(
        Builder::new(document)
            .with_token_uri(issuer.serve().await)
            .build()
            .unwrap(),
    )
}

impl Peer for GoogleCloudAuth {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        match self.0.headers(Extensions::new()).await? {
            CacheableResource::New { data, .. } => request.headers_mut().extend(data),
            CacheableResource::NotModified => unreachable!("no tag was given"),
        }
        Ok(())
    }
}
