//! gcp_auth: `CustomServiceAccount`, a map of tokens by their scopes.

use std::sync::Arc;

use ::gcp_auth::{CustomServiceAccount, TokenProvider};
use http::Request;
use http::header::AUTHORIZATION;

use crate::issuer::Issuer;
use crate::{Body, BoxError, Peer, bearer};

const SCOPES: &[&str] = &["https://www.googleapis.com/auth/cloud-platform"];

#[derive(Clone)]
pub struct GcpAuth(Arc<dyn TokenProvider>);

pub async fn open(issuer: Issuer) -> GcpAuth {
    let document = serde_json::json!({
        "type": "service_account",
        "project_id": "test-project",
        "private_key": crate::key::pem(),
        "client_email": "test@example.com",
        "token_uri": issuer.serve().await,
    });
    GcpAuth(Arc::new(
        CustomServiceAccount::from_json(&document.to_string()).unwrap(),
    ))
}

impl Peer for GcpAuth {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let token = self.0.token(SCOPES).await?;
        let mut value = bearer(token.as_str())?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}
