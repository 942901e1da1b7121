//! azure_core: `BearerTokenAuthorizationPolicy`, in the SDK's own request type.
//!
//! The policy is called as its pipeline calls it, with a transport behind it that answers at once. Its
//! bare call is that transport alone.

use std::sync::Arc;

use azure_core::Bytes;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::http::headers::{AUTHORIZATION, Headers};
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{AsyncRawResponse, Context, Method, Request, StatusCode, Url};
use azure_core::time::{Duration, OffsetDateTime};

use crate::issuer::Issuer;
use crate::{Call, Lanes, call_of, lane, spin_on};

#[derive(Debug)]
struct Credential(Issuer);

#[async_trait::async_trait]
impl TokenCredential for Credential {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let token = self.0.issue().await;
        let token =
            token.map_err(|refused| azure_core::Error::new(azure_core::error::ErrorKind::Credential, refused))?;
        Ok(AccessToken::new(token, OffsetDateTime::now_utc() + Duration::days(1)))
    }
}

#[derive(Debug)]
struct Transport;

#[async_trait::async_trait]
impl Policy for Transport {
    async fn send(&self, _: &Context, _: &mut Request, _: &[Arc<dyn Policy>]) -> PolicyResult {
        Ok(AsyncRawResponse::from_bytes(
            StatusCode::Ok,
            Headers::new(),
            Bytes::new(),
        ))
    }
}

/// The policies in their order, the transport last.
#[derive(Clone)]
pub struct Azure(Arc<[Arc<dyn Policy>]>);

pub fn bare() -> Azure {
    Azure(Arc::new([Arc::new(Transport)]))
}

pub fn open(issuer: Issuer) -> Azure {
    let policy =
        BearerTokenAuthorizationPolicy::new(Arc::new(Credential(issuer)), ["https://api.example.com/.default"]);
    Azure(Arc::new([Arc::new(policy), Arc::new(Transport)]))
}

impl Azure {
    async fn send(&self, request: &mut Request) -> azure_core::Result<()> {
        let response = self.0[0].send(&Context::default(), request, &self.0[1..]).await?;
        std::hint::black_box(response);
        Ok(())
    }
}

fn request() -> Request {
    let url = Url::parse("https://api.example.com/v1/things/17?page=3").unwrap();
    let mut request = Request::new(url, Method::Get);
    for (name, value) in crate::request().headers() {
        request.insert_header(name.as_str().to_owned(), value.to_str().unwrap().to_owned());
    }
    request
}

pub fn lanes(azure: Azure) -> Lanes {
    [0, 1].map(|_| {
        let azure = azure.clone();
        let mut request = request();
        lane(move |calls| {
            for _ in 0..calls {
                request.headers_mut().remove(AUTHORIZATION);
                spin_on(azure.send(&mut request)).unwrap();
            }
        })
    })
}

pub fn call(azure: Azure) -> Call {
    call_of(move || {
        let azure = azure.clone();
        async move { Ok(azure.send(&mut request()).await?) }
    })
}
