//! What the vendors' own clients sent, sent by our strategies: the same method, path and parameters.
//!
//! The captures (`tests/vendors/data/captures`) were taken of the official clients. Signatures, nonces and
//! times differ by nature; `src/provider/endpoint/acs3.rs` tests the signatures of the same captures.
#![cfg(feature = "config")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_token::alibaba::{Weboffice, WuyingLogin};
use tower_token::huawei::{OneAccess, Tenant};
use tower_token::tencent::SmhLibrary;
use tower_token::{Fixed, Origins, TokenClient, TokenLayer, TokenProvider, Tokens};

macro_rules! capture {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("vendors/data/captures/", $name, ".json"))).unwrap()
    };
}

/// A request as far as it has to agree.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    method: String,
    /// As it was sent, not decoded.
    path: String,
    query: BTreeMap<String, String>,
    form: BTreeMap<String, String>,
    /// What an Alibaba gateway goes by.
    operation: BTreeMap<String, String>,
}

fn pairs(encoded: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(encoded.as_bytes())
        // New on every attempt.
        .filter(|(name, _)| !["Timestamp", "SignatureNonce"].contains(&&**name))
        .map(|(name, value)| match &*value {
            // One of the vendor's clients writes Python's words; the documentation has JSON's.
            "True" => (name.into_owned(), "true".to_owned()),
            _ => (name.into_owned(), value.into_owned()),
        })
        .collect()
}

const OPERATION: [&str; 4] = [
    "x-acs-action",
    "x-acs-version",
    "x-acs-security-token",
    "x-acs-content-sha256",
];

fn captured(capture: &Value) -> Shape {
    let request = &capture["request"];
    let text = |field: &str| request[field].as_str().unwrap();
    let header = |name: &&str| {
        let value = request["headers"].get(*name)?.as_str()?;
        Some(((*name).to_owned(), value.to_owned()))
    };
    Shape {
        method: text("method").into(),
        path: text("path").into(),
        query: pairs(text("query")),
        form: pairs(text("body_utf8")),
        operation: OPERATION.iter().filter_map(header).collect(),
    }
}

#[derive(Clone, Default)]
struct Recorder {
    sent: Arc<Mutex<Vec<Shape>>>,
}

impl Recorder {
    fn client(&self) -> TokenClient {
        let sent = self.sent.clone();
        TokenClient::new(service_fn(move |request: Request<Full<Bytes>>| {
            let sent = sent.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let header = |name: &&str| {
                    let value = head.headers.get(*name)?.to_str().ok()?;
                    Some(((*name).to_owned(), value.to_owned()))
                };
                sent.lock().unwrap().push(Shape {
                    method: head.method.to_string(),
                    path: head.uri.path().into(),
                    query: pairs(head.uri.query().unwrap_or_default()),
                    form: pairs(std::str::from_utf8(&body).unwrap()),
                    operation: OPERATION.iter().filter_map(header).collect(),
                });
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
            }
        }))
    }

    /// What a renewal sends first.
    async fn of(&self, provider: impl TokenProvider) -> Shape {
        self.of_renewal(provider, None).await
    }

    async fn of_renewal(&self, provider: impl TokenProvider, credential: Option<Value>) -> Shape {
        let mut builder = Tokens::builder(provider);
        if let Some(credential) = credential {
            builder = builder.credential(credential);
        }
        let tokens = builder.build().unwrap();
        let _ = tokens.refresh().await;
        self.sent.lock().unwrap().swap_remove(0)
    }
}

fn imm(capture: &Value) -> Weboffice {
    let request = &capture["call"]["request"];
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    let mut weboffice = Weboffice::new("http://127.0.0.1:9", text("ProjectName"))
        .access_key("testAccessKeyId", "testAccessKeySecret")
        .generate(request["SourceURI"].as_str().unwrap_or("oss://unused/unused"));
    if let Some(token) = capture["security_token"].as_str() {
        weboffice = weboffice.security_token(token);
    }
    // The parameter as it went over the wire: one JSON text.
    if let Some(config) = captured(capture).query.get("CredentialConfig") {
        weboffice = weboffice.credential_config(config.as_str());
    }
    weboffice
}

/// The pair that a capture renews. Installed, because one of them has a pair that no header could hold.
fn pair(capture: &Value) -> Option<Value> {
    let request = &capture["call"]["request"];
    let access_token = request.get("AccessToken")?;
    Some(json!({ "access_token": access_token, "refresh_token": request["RefreshToken"] }))
}

#[tokio::test]
async fn imm_requests_are_those_of_the_vendors_client() {
    for capture in [
        capture!("imm_refresh_basic"),
        capture!("imm_refresh_credconfig"),
        capture!("imm_refresh_pct_nonascii"),
        capture!("imm_refresh_sts"),
        capture!("imm_generate_basic"),
    ] {
        let recorder = Recorder::default();
        let weboffice = imm(&capture).client(recorder.client());
        let sent = recorder.of_renewal(weboffice, pair(&capture)).await;
        assert_eq!(sent, captured(&capture), "{}", capture["name"]);
    }
}

#[tokio::test]
async fn a_credential_config_that_is_an_object_goes_as_one_compact_json_text() {
    let capture = capture!("imm_refresh_credconfig");
    let expected = captured(&capture);
    let object: Value = serde_json::from_str(&expected.query["CredentialConfig"]).unwrap();
    let recorder = Recorder::default();
    let weboffice = imm(&capture).credential_config(object.clone());
    let sent = recorder
        .of_renewal(weboffice.client(recorder.client()), pair(&capture))
        .await;
    let text = &sent.query["CredentialConfig"];
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), object);
    assert_eq!(*text, object.to_string(), "compact");
    assert!(text.contains("角色"), "not escaped: {text}");
}

fn ecd(capture: &Value) -> WuyingLogin {
    let request = &capture["call"]["request"];
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_owned();
    let login = WuyingLogin::new(text("RegionId"), text("ClientId"), "alice")
        .endpoint("http://127.0.0.1:9/")
        .office_site_id(text("OfficeSiteId"))
        .session_id(text("SessionId"));
    match request["KeepAliveToken"].as_str() {
        Some(token) => login.keep_alive_token(token),
        None => login.login_token(text("LoginToken")),
    }
}

#[tokio::test]
async fn ecd_requests_are_those_of_the_vendors_client() {
    for capture in [
        capture!("ecd_refresh_basic"),
        capture!("ecd_refresh_with_session"),
        capture!("ecd_getlogin_keepalive"),
    ] {
        let recorder = Recorder::default();
        let sent = recorder.of(ecd(&capture).client(recorder.client())).await;
        assert_eq!(sent, captured(&capture), "{}", capture["name"]);
    }
}

#[tokio::test]
async fn smh_requests_are_those_of_the_vendors_client() {
    let capture = capture!("smh_js_create_token");
    let call = &capture["call"];
    let text = |field: &str| call[field].as_str().unwrap();
    let recorder = Recorder::default();
    let library = SmhLibrary::new("http://127.0.0.1:9", text("libraryId"))
        .library_secret(text("librarySecret"))
        .space_id([text("spaceId")])
        .user_id(text("userId"))
        .grant([text("grant")])
        .period(std::time::Duration::from_secs(call["period"].as_u64().unwrap()))
        .parameter("client_id", text("clientId"))
        .parameter("session_id", text("sessionId"));
    let sent = recorder.of(library.client(recorder.client())).await;
    assert_eq!(sent, captured(&capture));

    for capture in [capture!("smh_js_renew_token"), capture!("smh_js_err_403_invalid")] {
        let expected = captured(&capture);
        let (_, rest) = expected.path.split_once("/token/").unwrap();
        let (library, token) = rest.split_once('/').unwrap();
        let recorder = Recorder::default();
        let library = SmhLibrary::new("http://127.0.0.1:9", library).access_token(token);
        let sent = recorder.of(library.client(recorder.client())).await;
        assert_eq!(sent, expected, "{}", capture["name"]);
    }
}

#[tokio::test]
async fn huawei_requests_are_those_of_the_standard_clients() {
    for capture in [
        capture!("huawei_authlib_refresh_client_secret_post"),
        capture!("huawei_requestsoauthlib_refresh"),
    ] {
        let expected = captured(&capture);
        let recorder = Recorder::default();
        let grant = OneAccess::new("http://127.0.0.1:9", expected.form["client_id"].as_str())
            .client_secret(capture["call"]["client_secret"].as_str().unwrap())
            .refresh_token(expected.form["refresh_token"].as_str());
        let sent = recorder.of(grant.client(recorder.client())).await;
        assert_eq!(sent, expected, "{}", capture["name"]);
    }
    let capture = capture!("huawei_authlib_client_credentials");
    let expected = captured(&capture);
    let recorder = Recorder::default();
    let grant = Tenant::new("http://127.0.0.1:9", expected.form["client_id"].as_str())
        .client_secret(capture["call"]["client_secret"].as_str().unwrap());
    let sent = recorder.of(grant.client(recorder.client())).await;
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn business_requests_carry_the_token_as_the_vendors_client_has_it() {
    let inner = || {
        service_fn(|request: Request<String>| async move { Ok::<_, Infallible>(Response::new(request.uri().clone())) })
    };
    let capture = capture!("smh_js_biz_list");
    let expected = captured(&capture);
    let tokens = Tokens::new(Fixed::new(expected.query["access_token"].as_str())).unwrap();
    let origins = || Origins::only("http://127.0.0.1:9").unwrap();
    let api = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, origins()).inject(SmhLibrary::in_query()))
        .service(inner());
    let url = format!("http://127.0.0.1:9{}?by-marker=1", expected.path);
    let sent = api
        .oneshot(Request::get(url).body(String::new()).unwrap())
        .await
        .unwrap()
        .into_body();
    assert_eq!(
        (sent.path(), pairs(sent.query().unwrap())),
        (&*expected.path, expected.query)
    );

    let capture = capture!("huawei_authlib_userinfo_client_secret_post");
    let expected = capture["request"]["headers"]["Authorization"].as_str().unwrap();
    let tokens = Tokens::new(Fixed::new(expected.strip_prefix("Bearer ").unwrap())).unwrap();
    let api = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, origins()))
        .service_fn(|request: Request<String>| async move {
            Ok::<_, Infallible>(Response::new(request.headers()["authorization"].clone()))
        });
    let request = Request::get("http://127.0.0.1:9/api/v1/oauth2/userinfo")
        .body(String::new())
        .unwrap();
    assert_eq!(api.oneshot(request).await.unwrap().into_body(), expected);
}

#[test]
fn every_capture_is_used() {
    let here = include_str!("captures.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vendors/data/captures")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".json");
        assert!(here.contains(&json!(name).to_string()), "{name}");
    }
}
