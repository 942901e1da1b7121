//! What a challenge says, and what is done about it (T55).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token::testkit::Issuer;
use tower_token::*;

use crate::flows::*;

/// What is done about an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// A new token, and the request once more.
    Replay,
    /// The caller's business.
    HandOn,
    /// The provider is asked whether it can bring more than a new token.
    StepUp,
}
use Then::*;

/// A provider, and how often it is asked with a challenge.
struct Asked<P>(P, Arc<AtomicU64>);

impl<P: TokenProvider> TokenProvider for Asked<P> {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        self.1
            .fetch_add(u64::from(context.challenge().is_some()), Ordering::Relaxed);
        self.0.fetch(context).await
    }
}

const OWN_WORDS: &str = "the server's own words";

/// A server that answers every request but the first with this. What it does to the second: what is
/// counted tells, at the server and at the issuer.
async fn then(code: u16, fields: &[&[u8]]) -> Then {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let with_challenge = Arc::new(AtomicU64::new(0));
    let tokens = tokens(Asked(refresh_grant(&issuer), with_challenge.clone()));
    let fields: Vec<_> = fields
        .iter()
        .map(|field| HeaderValue::from_bytes(field).unwrap())
        .collect();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (tell, arrived) = (fields.clone(), sent.clone());
    let client =
        TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(service_fn(move |request: Request<String>| {
            let mut arrived = arrived.lock().unwrap();
            arrived.push(request.headers()["authorization"].clone());
            let mut response = Response::new(OWN_WORDS.to_owned());
            if arrived.len() > 1 {
                *response.status_mut() = code.try_into().unwrap();
                for field in &tell {
                    response.headers_mut().append(WWW_AUTHENTICATE, field.clone());
                }
            }
            std::future::ready(Ok::<_, BoxError>(response))
        }));
    let ask = || client.clone().oneshot(get("/api", 1));
    assert_eq!(ask().await.unwrap().status(), 200);
    let answer = ask().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.body().as_str()), (code, OWN_WORDS));
    assert!(answer.headers().get_all(WWW_AUTHENTICATE).iter().eq(&fields));
    let sent = sent.lock().unwrap().clone();
    let counted = (
        sent.len() - 1,
        issuer.counts().token_requests - 1,
        with_challenge.load(Ordering::Relaxed),
    );
    match counted {
        (2, 1, 1) => {
            assert_ne!(sent[1], sent[2], "the replay has a token of its own");
            Replay
        }
        (1, 0, 0) => HandOn,
        (1, 0, 1) => {
            // A grant has nothing to bring, and is not asked again for this token.
            assert_eq!(ask().await.unwrap().status().as_u16(), code);
            assert_eq!(
                (issuer.counts().token_requests, with_challenge.load(Ordering::Relaxed)),
                (1, 1)
            );
            StepUp
        }
        counted => panic!("{counted:?} deliveries, token requests, fetches with a challenge"),
    }
}

/// Clients renewed for want of a scope, and did not for want of a token; their codes were read, and not the status:
/// modelcontextprotocol/python-sdk#3012.
#[tokio::test(start_paused = true)]
async fn t55_every_code_under_401_and_403_has_its_reaction() {
    let code = |code: &str| vec![format!("Bearer realm=\"test\", error=\"{code}\"").into_bytes()];
    for (fields, reaction) in [
        (code("invalid_token"), Replay),
        (code("insufficient_scope"), HandOn),
        (code("insufficient_claims"), StepUp),
        (code("insufficient_user_authentication"), StepUp),
        (code("use_dpop_nonce"), HandOn),
        (code("invalid_request"), HandOn),
        (vec![b"Bearer realm=\"test\"".to_vec()], Replay),
        (vec![], Replay),
        (vec![b"Basic realm=\"test\"".to_vec()], HandOn),
    ] {
        let fields: Vec<_> = fields.iter().map(Vec::as_slice).collect();
        let shown: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field)).collect();
        assert_eq!(then(401, &fields).await, reaction, "401 {shown:?}");
        assert_eq!(then(403, &fields).await, HandOn, "403 {shown:?}");
    }
}

/// Challenges were misread: Bearer not the first, commas within quotes, values without quotes, two fields, two Bearers:
/// AzureAD/microsoft-authentication-library-for-objc#1042, Azure/azure-sdk-for-js#31501.
#[tokio::test(start_paused = true)]
async fn t55_a_challenge_is_read_wherever_and_however_it_is_written() {
    const RFC_9110: &[u8] = br#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#;
    let corpus: &[(&[&[u8]], Then)] = &[
        // RFC 9110 §11.6.1: nothing for us, and with a Bearer before, behind and beside it.
        (&[RFC_9110], HandOn),
        (&[RFC_9110, b"Bearer error=\"invalid_token\""], Replay),
        (&[b"Bearer", RFC_9110], Replay),
        (
            &[br#"Newauth realm="apps", type=1, title="Login to \"apps\"", Bearer error="invalid_token""#],
            Replay,
        ),
        // Bearer is not the first.
        (&[br#"Basic realm="a", Bearer error="invalid_token""#], Replay),
        (&[br#"Negotiate YIIabc==, Bearer error="insufficient_scope""#], HandOn),
        (&[br#"DPoP algs="ES256", Bearer error="invalid_token""#], Replay),
        // Commas and challenges within quotes are text.
        (
            &[br#"Basic realm="a, b, Bearer error=invalid_request", Bearer error="invalid_token""#],
            Replay,
        ),
        (&[br#"Basic realm="x, Bearer error=\"invalid_token\"""#], HandOn),
        (&[br#"Bearer scope="a, b", error="insufficient_scope""#], HandOn),
        (
            &[br#"Bearer error_description="it said error=\"invalid_request\", and more", error="invalid_token""#],
            Replay,
        ),
        // Without quotes, in any case, with any space.
        (&[b"Bearer error=invalid_token"], Replay),
        (&[b"bearer ERROR=insufficient_scope,realm=x"], HandOn),
        (&[b"BEARER   error\t=  \"invalid_request\""], HandOn),
        (&[b",, Bearer realm=\"a\" ,, error=\"insufficient_claims\",,"], StepUp),
        // Two fields, and a challenge that is spread over them.
        (&[b"Basic realm=\"a\"", b"Bearer error=\"invalid_token\""], Replay),
        (&[b"Bearer realm=\"a\"", b"error=\"insufficient_scope\""], HandOn),
        // Of two Bearers, the first with an error decides.
        (&[br#"Bearer realm="a", Bearer error="insufficient_scope""#], HandOn),
        (
            &[br#"Bearer error="invalid_token", Bearer error="insufficient_scope""#],
            Replay,
        ),
        (
            &[br#"Bearer error="insufficient_scope", Bearer error="invalid_token""#],
            HandOn,
        ),
        (
            &[
                b"Bearer realm=\"a\"",
                b"Bearer error=\"insufficient_claims\", claims=\"e30=\"",
            ],
            StepUp,
        ),
        // A code that nobody registered is about the token all the same.
        (&[b"Bearer error=\"expired_token\""], Replay),
        // An empty list is as good as none.
        (&[b""], Replay),
        (&[b",,,"], Replay),
        // Garbage is no Bearer challenge, and hides none in another field.
        (&[b",,, \"\""], HandOn),
        (&[b"=\"\"=,\"Bearer\""], HandOn),
        (&[b"\xff\xfe Bearer"], HandOn),
        (&[b"Basic realm=\"never closed, Bearer error=invalid_token"], HandOn),
        (
            &[b"Basic realm=\"never closed", b"Bearer error=\"invalid_token\""],
            Replay,
        ),
        (&[b"Bearer realm=\"\xff\", error=\"insufficient_scope\""], HandOn),
        (&[b"<html>, Bearer error=\"invalid_token\""], Replay),
    ];
    for (fields, reaction) in corpus {
        let shown: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field)).collect();
        assert_eq!(then(401, fields).await, *reaction, "{shown:?}");
    }
}

/// The claims of a challenge were dropped on the way to the one who could have brought them: Azure's Continuous
/// Access Evaluation, Azure #46129.
#[tokio::test(start_paused = true)]
async fn t55_a_provider_that_can_step_up_gets_the_challenge_once_and_its_token_is_used() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let told = asked.clone();
    let tokens = tokens(provider_fn(move |context| {
        let claims = context.challenge().and_then(|challenge| challenge.param("claims"));
        let token = if claims.is_some() { "test-strong" } else { "test-weak" };
        told.lock().unwrap().push((context.cause(), claims.map(str::to_owned)));
        async move { Ok(Token::bearer(token).expires_in(HOUR)) }
    }));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let arrived = sent.clone();
    let client =
        TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(service_fn(move |request: Request<String>| {
            let token = request.headers()["authorization"].to_str().unwrap().to_owned();
            let mut response = Response::builder();
            if token == "Bearer test-weak" {
                let challenge = "Bearer error=\"insufficient_claims\", claims=\"eyJ0ZXN0Ijp7fX0=\"";
                response = response.status(401).header(WWW_AUTHENTICATE, challenge);
            }
            arrived.lock().unwrap().push(token);
            std::future::ready(response.body(String::new()))
        }));
    for _ in 0..3 {
        assert_eq!(client.clone().oneshot(get("/api", 1)).await.unwrap().status(), 200);
    }
    let strong = "Bearer test-strong";
    assert_eq!(*sent.lock().unwrap(), ["Bearer test-weak", strong, strong, strong]);
    let claims = Some("eyJ0ZXN0Ijp7fX0=".to_owned());
    assert_eq!(
        *asked.lock().unwrap(),
        [(Cause::Initial, None), (Cause::Refused, claims)]
    );
}
