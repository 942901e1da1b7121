//! How a token is put on a request and what refuses it: by the provider's preset, and as a document says it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};
use tower_token::config::{self, TokenConfig};
use tower_token::{Origins, Token, TokenLayer, Tokens, provider_fn};

use super::samples::*;

type Requests = Arc<Mutex<Vec<(String, HeaderMap)>>>;

const API: &str = "https://api.example.com";

/// Sends one request through a layer with this configuration's presentation and refusals, and answers the
/// first with `answer`, every other with 200. Brings what was sent, and the answer's status and body.
async fn sent(
    config: &TokenConfig,
    request: Request<Full<Bytes>>,
    answer: Response<String>,
) -> (Vec<(String, HeaderMap)>, u16, Bytes) {
    let minted = Arc::new(Mutex::new(0));
    let tokens = Tokens::new(provider_fn(move |_| {
        let mut minted = minted.lock().unwrap();
        *minted += 1;
        let token = Token::bearer(format!("test-{minted}"));
        async move { Ok(token) }
    }))
    .unwrap();
    let requests = Requests::default();
    let seen = requests.clone();
    let first = Arc::new(Mutex::new(Some(answer)));
    let inner = service_fn(move |request: Request<Full<Bytes>>| {
        let mut seen = seen.lock().unwrap();
        seen.push((request.uri().to_string(), request.headers().clone()));
        let answer = first.lock().unwrap().take().unwrap_or_default();
        async move { Ok::<_, Infallible>(answer.map(|text| Full::new(Bytes::from(text)))) }
    });
    let layer = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .inject(config.injection("").unwrap())
        .classify(config.refusal("").unwrap());
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let requests = requests.lock().unwrap().clone();
    (requests, status, body)
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(format!("{API}{uri}")).body(Full::default()).unwrap()
}

/// The provider of a sample, with these of its other fields.
fn config(name: &str, others: Value) -> TokenConfig {
    let mut document = json!({ "provider": token(name)["provider"] });
    for (field, value) in others.as_object().unwrap() {
        document[field] = value.clone();
    }
    config::read(&document.to_string()).unwrap()
}

#[tokio::test]
async fn a_token_is_put_where_the_provider_has_it() {
    for name in NAMES {
        let (requests, ..) = sent(&config(name, json!({})), get("/x?a=1"), Response::default()).await;
        let [(uri, headers)] = &requests[..] else {
            panic!("{name}: {requests:?}")
        };
        if name == "ecd" {
            assert_eq!(uri, "https://api.example.com/x?a=1&LoginToken=test-1");
            assert!(!headers.contains_key("authorization"));
        } else {
            assert_eq!(uri, "https://api.example.com/x?a=1", "{name}");
            assert_eq!(headers["authorization"], "Bearer test-1", "{name}");
            assert!(headers["authorization"].is_sensitive());
        }
    }
}

#[tokio::test]
async fn a_token_is_put_where_the_document_says() {
    for (inject, uri, header, value) in [
        (json!("bearer"), "/x?q=old", "authorization", "Bearer test-1"),
        (
            json!({ "header": { "name": "X-Token" } }),
            "/x?q=old",
            "x-token",
            "test-1",
        ),
        (
            json!({ "header": { "name": "x-token", "scheme": "Token" } }),
            "/x?q=old",
            "x-token",
            "Token test-1",
        ),
        (json!({ "query": { "name": "q" } }), "/x?q=test-1", "x-none", ""),
        (
            json!({ "query": { "name": "a b" } }),
            "/x?q=old&a%20b=test-1",
            "x-none",
            "",
        ),
        (
            json!({ "cookie": { "name": "c" } }),
            "/x?q=old",
            "cookie",
            "a=1; c=test-1",
        ),
    ] {
        // The vendor's own preset gives way, whichever it is.
        for name in ["ecd", "cc"] {
            let mut request = get("/x?q=old");
            request.headers_mut().insert("cookie", "a=1; c=old".parse().unwrap());
            let (requests, ..) = sent(&config(name, json!({ "inject": inject })), request, Response::default()).await;
            let (sent_to, headers) = &requests[0];
            assert_eq!(sent_to, &format!("{API}{uri}"), "{inject}");
            let found = headers.get(header).map_or("", |value| value.to_str().unwrap());
            assert_eq!(found, value, "{inject}");
        }
    }
}

/// A caller's own header of that name is kept, and its refusal is its own.
#[tokio::test]
async fn a_header_of_the_callers_own_is_left_alone() {
    let config = config("cc", json!({ "inject": { "header": { "name": "x-token" } } }));
    let mut request = get("/x");
    request.headers_mut().insert("x-token", "mine".parse().unwrap());
    let (requests, status, _) = sent(&config, request, answer(401, "", "")).await;
    assert_eq!((requests.len(), status), (1, 401));
    assert_eq!(requests[0].1["x-token"], "mine");
}

fn answer(status: u16, header: &str, body: &str) -> Response<String> {
    let mut response = Response::builder().status(status);
    if let Some((name, value)) = header.split_once(": ") {
        response = response.header(name, value);
    }
    response.body(body.to_owned()).unwrap()
}

/// Status, a header and the body of an answer, and whether it is a refusal.
type Expected = (u16, &'static str, &'static str, bool);

/// Whether each answer is a refusal: then the request was sent again, with another token.
async fn refused(config: &TokenConfig, expected: &[Expected]) {
    for (status, header, body, is_refusal) in expected {
        let (requests, seen, read) = sent(config, get("/x"), answer(*status, header, body)).await;
        let place = format!("{config:?}: {status} {header} {body}");
        assert_eq!(requests.len(), if *is_refusal { 2 } else { 1 }, "{place}");
        assert_eq!(seen, if *is_refusal { 200 } else { *status }, "{place}");
        if !is_refusal {
            assert_eq!(read, body.as_bytes(), "{place}");
        }
    }
}

#[tokio::test]
async fn what_refuses_a_token_is_as_the_provider_has_it() {
    let bearer = [
        (401, "", "", true),
        (401, "www-authenticate: Bearer", "", true),
        (401, r#"www-authenticate: Bearer error="invalid_token""#, "", true),
        (401, r#"www-authenticate: Bearer error="invalid_request""#, "", false),
        (401, "www-authenticate: Basic realm=\"x\"", "", false),
        (403, "", r#"{"code":"NoPermission"}"#, false),
        (200, "", "", false),
        (500, "", "", false),
    ];
    for name in NAMES {
        refused(&config(name, json!({})), &bearer).await;
    }
    for name in ["imm", "hw", "hwapp", "oa", "cc", "ep"] {
        refused(
            &config(name, json!({})),
            &[(403, "", r#"{"code":"InvalidAccessToken"}"#, false)],
        )
        .await;
    }
    let smh = [
        (403, "", r#"{"code":"InvalidAccessToken","message":"x"}"#, true),
        (403, "", r#"{"code":"AccessTokenNotMatchSpace"}"#, true),
        (403, "", r#"{"code":"LibraryServiceExpired"}"#, false),
        (403, "", "<html>", false),
        (400, "", r#"{"code":"InvalidAccessToken"}"#, false),
    ];
    refused(&config("smh", json!({})), &smh).await;
    let ecd = [
        (400, "", r#"{"Code":"InvalidLoginToken.Expired"}"#, true),
        (403, "", r#"{"Code":"InvalidLoginToken"}"#, true),
        (400, "", r#"{"Code":"Throttling.User"}"#, false),
        (400, "", r#"{"Code":"InvalidParameter.OfficeSiteId"}"#, false),
    ];
    refused(&config("ecd", json!({})), &ecd).await;
}

#[tokio::test]
async fn what_refuses_a_token_is_as_the_document_says() {
    let basic = "www-authenticate: Basic realm=\"x\"";
    let grpc = "content-type: application/grpc";
    let coded = json!({ "status": [403, 200], "code": "/error/code", "in": ["X", 7] });
    let any = json!(["bearer", { "status": [419] }, { "status": [400], "code": "/c", "in": [1] },
                     { "status": [403], "code": "/d", "in": [true] }]);
    let cases: [(Value, &[Expected]); 5] = [
        // By status alone, whatever the challenge.
        (
            json!({ "status": [401, 419] }),
            &[(401, basic, "", true), (419, "", "", true), (403, "", "", false)],
        ),
        (
            coded,
            &[
                (403, "", r#"{"error":{"code":"X"}}"#, true),
                (200, "", r#"{"error":{"code":7}}"#, true),
                (200, "", r#"{"error":{"code":"Y"}}"#, false),
                (403, "", r#"{"code":"X"}"#, false),
                (401, "", "", false),
            ],
        ),
        (json!("bearer"), &[(401, "", "", true), (401, basic, "", false)]),
        (json!({ "grpc": true }), &[(401, "", "", false), (200, grpc, "", false)]),
        (
            any,
            &[
                (401, "", "", true),
                (401, basic, "", false),
                (419, "", "", true),
                (400, "", r#"{"c":1}"#, true),
                (400, "", r#"{"c":2}"#, false),
                (403, "", r#"{"d":true}"#, true),
            ],
        ),
    ];
    for (refuse, expected) in cases {
        for name in ["ecd", "cc"] {
            refused(&config(name, json!({ "refuse": refuse })), expected).await;
        }
    }
    let mut refusal = answer(200, grpc, "");
    refusal.headers_mut().insert("grpc-status", "16".parse().unwrap());
    let (requests, ..) = sent(&config("cc", json!({ "refuse": { "grpc": true } })), get("/x"), refusal).await;
    assert_eq!(requests.len(), 2);
}
