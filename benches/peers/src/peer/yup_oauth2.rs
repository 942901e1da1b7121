//! yup-oauth2: `Authenticator`, here of an external account, the flow that needs no key.

use ::yup_oauth2::authenticator::Authenticator;
use ::yup_oauth2::external_account::ExternalAccountSecret;
use ::yup_oauth2::{CustomHyperClientBuilder, ExternalAccountAuthenticator};
use http::Request;
use http::header::AUTHORIZATION;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::issuer::Issuer;
use crate::{Body, BoxError, Peer, bearer, written};

const SCOPES: &[&str] = &["https://www.googleapis.com/auth/cloud-platform"];

#[derive(Clone)]
pub struct YupOauth2(Authenticator<HttpConnector>);

pub async fn open(issuer: Issuer) -> YupOauth2 {
    // The subject token is whatever stands in a file, so that only the token request is one.
    let document = serde_json::json!({
        "type": "external_account",
        "audience": "test-audience",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": issuer.serve().await,
        "credential_source": { "file": written("subject", "test-subject") },
    });
    let secret: ExternalAccountSecret = serde_json::from_value(document).unwrap();
    let client = CustomHyperClientBuilder::from(Client::builder(TokioExecutor::new()).build(HttpConnector::new()));
    YupOauth2(
        ExternalAccountAuthenticator::with_client(secret, client)
            .build()
            .await
            .unwrap(),
    )
}

impl Peer for YupOauth2 {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let token = self.0.token(SCOPES).await?;
        let mut value = bearer(token.token().ok_or("no token")?)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }
}
