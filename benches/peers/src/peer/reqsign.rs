//! reqsign-core's `Signer` with reqsign-google's `RequestSigner`.

use http::Request;
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, ProvideCredential, Signer};
use reqsign_google::{Credential, RequestSigner, Token};

use crate::issuer::{DAY, Issuer};
use crate::{Body, BoxError, Peer};

#[derive(Debug)]
struct Provider(Issuer);

impl ProvideCredential for Provider {
    type Credential = Credential;

    async fn provide_credential(&self, _: &Context) -> reqsign_core::Result<Option<Credential>> {
        let token = self.0.issue().await;
        let access_token = token.map_err(|refused| reqsign_core::Error::unexpected(refused.to_string()))?;
        Ok(Some(Credential::with_token(Token {
            access_token,
            expires_at: Some(Timestamp::now() + DAY),
        })))
    }
}

#[derive(Clone)]
pub struct Reqsign(Signer<Credential>);

pub fn open(issuer: Issuer) -> Reqsign {
    Reqsign(Signer::new(
        Context::new(),
        Provider(issuer),
        RequestSigner::new("storage"),
    ))
}

impl Peer for Reqsign {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let (mut parts, body) = std::mem::take(request).into_parts();
        let signed = self.0.sign(&mut parts, None).await;
        *request = Request::from_parts(parts, body);
        Ok(signed?)
    }
}
