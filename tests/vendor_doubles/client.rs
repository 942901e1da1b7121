//! A client that does as it is told, one connection for each request.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::vendors::acs3::{self, AccessKey};
use super::vendors::wire::{encode, rfc3339_seconds};

/// A request to be changed by a test before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// A member of the answer that is a string.
    pub(crate) fn text(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().into()
    }

    /// The status and the code, whatever the vendor calls it.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let names = ["Code", "code", "error", "error_code"];
        let code = names
            .into_iter()
            .map(|name| self.text(name))
            .find(|code| !code.is_empty());
        (self.status, code.unwrap_or_default())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A refusal to compare with.
pub(crate) fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.into())
}

impl Call {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(crate) fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        self.query = form(pairs);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn form(mut self, pairs: &[(&str, &str)]) -> Self {
        self.body = form(pairs);
        self.header("content-type", "application/x-www-form-urlencoded")
    }

    pub(crate) fn text(mut self, body: &str) -> Self {
        self.body = body.into();
        self
    }

    /// The head of the answer, the rest still to come.
    pub(crate) async fn begin(&self, url: &str) -> Result<Response<Incoming>, Error> {
        let mark = if self.query.is_empty() { "" } else { "?" };
        let mut request = Request::builder()
            .method(self.method.as_str())
            .uri(format!("{url}{}{mark}{}", self.path, self.query));
        for (name, value) in &self.headers {
            let name: HeaderName = name.parse().unwrap();
            request = request.header(name, HeaderValue::from_str(value).unwrap());
        }
        let request = request.body(Full::new(Bytes::from(self.body.clone()))).unwrap();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        client.request(request).await
    }

    pub(crate) async fn send(&self, url: &str) -> Heard {
        let (head, body) = self.begin(url).await.unwrap().into_parts();
        Heard {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

pub(crate) fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// An RPC call with ACS3. What a test changes after [`sign`](Self::sign) is not signed.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    pub(crate) call: Call,
    pub(crate) key: AccessKey,
}

impl Rpc {
    pub(crate) fn new(url: &str, action: &str, version: &str, query: &[(&str, &str)]) -> Self {
        let call = Call::new("POST", "/")
            .query(query)
            .header("host", url.trim_start_matches("http://"))
            .header("x-acs-action", action)
            .header("x-acs-version", version)
            .header("x-acs-date", &rfc3339_seconds(SystemTime::now()))
            .header("x-acs-signature-nonce", &nonce())
            .header("x-acs-content-sha256", &acs3::sha256(b""));
        let key = AccessKey::default();
        Self { call, key }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.call = self.call.header(name, value);
        self
    }

    pub(crate) fn sign(self) -> Call {
        self.sign_but("")
    }

    /// Signs every header but this one.
    pub(crate) fn sign_but(self, left_out: &str) -> Call {
        let mut signed: Vec<String> = self.call.headers.iter().map(|(name, _)| name.clone()).collect();
        signed.retain(|name| name != left_out);
        signed.sort_unstable();
        let headers = headers(&self.call.headers);
        let call = &self.call;
        let body = call.body.as_bytes();
        let canonical =
            acs3::canonical_request(&call.method, &call.path, &call.query, &headers, &signed, body).unwrap();
        let signature = acs3::signature(&self.key.secret, &acs3::string_to_sign(&canonical));
        let (id, signed) = (&self.key.id, signed.join(";"));
        let authorization = format!("ACS3-HMAC-SHA256 Credential={id},SignedHeaders={signed},Signature={signature}");
        self.call.header("authorization", &authorization)
    }
}

pub(crate) fn headers(pairs: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.to_lowercase().parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}
