//! object_store: `TokenCache`, which is private, inside the credential provider of its Azure store.
//!
//! The provider is reached through the store's public `credentials()`, and its token requests go to an
//! `HttpService` that never leaves the process. The header is built as `azure/credential.rs` does it.

use ::object_store::ClientOptions;
use ::object_store::azure::{AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder};
use ::object_store::client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService};
use http::header::AUTHORIZATION;
use http::{Request, Response};

use crate::issuer::Issuer;
use crate::{Body, BoxError, Peer, bearer};

#[derive(Clone, Debug)]
struct Endpoint(Issuer);

#[async_trait::async_trait]
impl HttpService for Endpoint {
    async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (status, document) = self.0.document().await;
        Ok(Response::builder().status(status).body(document.into()).unwrap())
    }
}

impl HttpConnector for Endpoint {
    fn connect(&self, _: &ClientOptions) -> ::object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[derive(Clone)]
pub struct ObjectStore(AzureCredentialProvider);

pub fn open(issuer: Issuer) -> ObjectStore {
    let store = MicrosoftAzureBuilder::new()
        .with_account("test")
        .with_container_name("test")
        .with_client_id("test-client")
        .with_client_secret("test-secret")
        .with_tenant_id("test-tenant")
        .with_http_connector(Endpoint(issuer))
        .build()
        .unwrap();
    ObjectStore(store.credentials().clone())
}

impl Peer for ObjectStore {
    async fn authorize(&self, request: &mut Request<Body>) -> Result<(), BoxError> {
        let credential = self.0.get_credential().await?;
        let AzureCredential::BearerToken(token) = &*credential else {
            unreachable!("it was given a client secret")
        };
        request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
        Ok(())
    }
}
