//! No secret is printed: not by `Debug`, `Display`, an error's sources, an event or a log at `TRACE`,
//! whatever the issuer or the API says back.

#![cfg(all(feature = "testkit", feature = "oauth2", feature = "tracing", feature = "client"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod flows;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use flows::printed::Capture;
use flows::*;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_token::oauth2::{ClientAuth, ClientCredentialsGrant, RefreshTokenGrant};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{
    Authorization, BoxError, Cookie, Event, FetchContext, FetchError, Fixed, Header, IfLost, Inject, Origins, Query,
    Secret, Token, TokenClient, TokenLayer, TokenProvider, Tokens, Traced, client as https_client,
};

// ===== What must not be seen =====

const CLIENT_SECRET: &str = "test-canary-client/secret+9f3c1d77aa";
const REFRESH: &str = "test-canary-refresh-first-5b1e88f0c2";
const ROTATED: &str = "test-canary-refresh-rotated-77d0aa41ee";
const ACCESS: &str = "test-canary-access-first-c0ffee1234ab";
const RENEWED: &str = "test-canary-access-renewed-feed5678cd";
const EXTRA: &str = "test-canary-extra~value=0a1b2c3d4e";
const URL_KEY: &str = "test-canary-url-key-99887766aa";
const ALL: [&str; 7] = [CLIENT_SECRET, REFRESH, ROTATED, ACCESS, RENEWED, EXTRA, URL_KEY];

/// The forms in which `secret` may show: as it is, its beginning, its end, in base64 at each
/// alignment, and encoded for a URL.
fn forms(secret: &str) -> Vec<(String, String)> {
    let (start, end) = (&secret[..8], &secret[secret.len() - 8..]);
    let mut forms = Vec::new();
    for part in [secret, start, end] {
        forms.push((format!("{secret} raw"), part.to_owned()));
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for before in 0..3_usize {
                let mut bytes = vec![0; before];
                bytes.extend_from_slice(part.as_bytes());
                // Without the characters that its neighbours have a share in.
                let (from, to) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
                forms.push((
                    format!("{secret} base64 {before}"),
                    engine.encode(bytes)[from..to].to_owned(),
                ));
            }
        }
        let encoded: String = form_encoded(part);
        forms.push((format!("{secret} as a URL has it"), encoded.clone()));
        forms.push((
            format!("{secret} in small letters"),
            encoded.replace("%2F", "%2f").replace("%2B", "%2b"),
        ));
    }
    forms
}

fn form_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// The lines in which any of `secrets` shows, each with the form it has there.
fn leaks<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, needle) in secrets.into_iter().flat_map(forms) {
        for (at, _) in text.match_indices(&needle) {
            let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
            found.insert(text[line..end].to_owned(), name.clone());
        }
    }
    found
}

// ===== What was printed =====

impl Capture {
    fn assert_keeps_secrets(&self) {
        self.assert_keeps(ALL);
    }

    fn assert_keeps<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) {
        let text = self.text();
        assert!(!text.is_empty());
        let found = leaks(&text, secrets);
        assert!(found.is_empty(), "{} lines: {found:#?}", found.len());
        println!("{} lines of log and notes, no secret in any", text.lines().count());
    }
}

fn note(name: &str, thing: &dyn fmt::Debug) {
    let _ = writeln!(Capture, "{name}: {thing:?} {thing:#?}");
}

fn note_error(error: &(dyn std::error::Error + 'static)) {
    let mut next = Some(error);
    while let Some(link) = next {
        note("error", &link);
        note("error", &link.to_string());
        next = link.source();
    }
}

#[test]
fn the_search_finds_each_form() {
    let pairs = ["x", "xy", "xyz"].map(|before| format!("{before}{CLIENT_SECRET}tail"));
    for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
        for pair in &pairs {
            assert!(!leaks(&engine.encode(pair), ALL).is_empty());
        }
    }
    assert!(!leaks("a test-canary- b", ALL).is_empty());
    assert!(!leaks(&form_encoded(CLIENT_SECRET), [CLIENT_SECRET]).is_empty());
    assert!(leaks("test-access, Bearer, invalid_token", ALL).is_empty());
}

// ===== An issuer and an API that say anything =====

/// What the issuer says to one token request.
#[derive(Clone)]
enum Says {
    Tokens(&'static str, &'static str),
    This(u16, &'static [(&'static str, &'static str)], String),
    /// The client of the provider fails with these words.
    Broken(String),
    /// The same, with an error within the error.
    BrokenWithin(String),
    /// The whole request is quoted in the client's error.
    Echo,
    Nothing,
}

fn json_of(status: u16, fields: Value) -> Says {
    Says::This(status, &[("content-type", "application/json")], fields.to_string())
}

async fn say(says: Says, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    let response = |status: u16, headers: &[(&str, &str)], body: String| {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        Ok(response.body(Full::from(body))?)
    };
    match says {
        Says::Tokens(access, refresh) => {
            let fields =
                json!({ "access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": 60 });
            response(200, &[("content-type", "application/json")], fields.to_string())
        }
        Says::This(status, headers, body) => response(status, headers, body),
        Says::Broken(text) => Err(text.into()),
        Says::BrokenWithin(text) => Err(io::Error::other(io::Error::other(text)).into()),
        Says::Echo => {
            let header = request
                .headers()
                .get("authorization")
                .map(|value| value.to_str().unwrap().to_owned());
            Err(format!("refused by the proxy: {} {header:?}", request.uri()).into())
        }
        Says::Nothing => std::future::pending().await,
    }
}

/// Says one after the other, and grants from then on.
fn scripted(script: impl IntoIterator<Item = Says>) -> TokenClient {
    let script: VecDeque<_> = script.into_iter().collect();
    let script = Arc::new(Mutex::new(script));
    TokenClient::new(service_fn(move |request| {
        let says = script.lock().unwrap().pop_front();
        say(says.unwrap_or(Says::Tokens(RENEWED, ROTATED)), request)
    }))
}

/// Answers each request with the first of these that is left, and 200 from then on.
fn answering(
    script: &[(u16, Option<&'static str>)],
) -> impl Service<Request<String>, Response = Response<String>, Error = BoxError, Future: Send> + Clone + Send + use<> {
    let script = Arc::new(Mutex::new(script.iter().copied().collect::<VecDeque<_>>()));
    service_fn(move |_: Request<String>| {
        let (status, challenge) = script.lock().unwrap().pop_front().unwrap_or((200, None));
        let mut response = Response::builder().status(status);
        if let Some(challenge) = challenge {
            response = response.header("www-authenticate", challenge);
        }
        std::future::ready(response.body(String::new()).map_err(BoxError::from))
    })
}

// ===== One flow, all of it written down =====

/// A provider that writes down what it is told and what it brings.
struct Noted<P>(P);

impl<P: TokenProvider> TokenProvider for Noted<P> {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        note("context", &context);
        note("challenge", &context.challenge());
        let fetched = self.0.fetch(context).await;
        note("fetched", &fetched);
        if let Err(error) = &fetched {
            note_error(error);
        }
        fetched
    }

    fn if_lost(&self) -> IfLost {
        self.0.if_lost()
    }

    fn check(&self, faults: &mut tower_token::Faults) {
        self.0.check(faults);
        note("faults", faults);
    }
}

fn grant(script: impl IntoIterator<Item = Says>) -> RefreshTokenGrant {
    RefreshTokenGrant::new(format!("{TOKEN_URL}?key={URL_KEY}"), "my-app")
        .client_secret(CLIENT_SECRET)
        .refresh_token(REFRESH)
        .extra("assertion", EXTRA)
        .client(scripted(script))
}

fn watched(grant: impl TokenProvider) -> Tokens {
    let builder = builder(Noted(grant))
        .policy(policy().fetch_timeout(5 * SECOND))
        .observe(Traced::new())
        .observe(|event: &Event| note("event", event));
    note("builder", &builder);
    builder.build().unwrap()
}

/// Calls through a few minutes of `grant` and an API that says `answers`.
async fn flow<I: Inject + fmt::Debug + Clone>(
    grant: impl TokenProvider + fmt::Debug,
    inject: I,
    answers: &[(u16, Option<&'static str>)],
) where
    I::Ready: fmt::Debug,
{
    note("grant", &grant);
    let tokens = watched(grant);
    let layer = TokenLayer::new(&tokens, Origins::only(API).unwrap()).inject(inject.clone());
    let service = layer.clone().layer(answering(answers));
    note("layer", &layer);
    note("inject", &inject);
    for _ in 0..6 {
        let future = service.clone().oneshot(get("/api", 1));
        match future.await {
            Ok(response) => note("status", &response.status()),
            Err(error) => note_error(&*error),
        }
        let got = tokens.get();
        note("get", &got);
        match got.await {
            Ok(token) => {
                note("token", &token);
                note("ready", &inject.ready(&token).map_err(|error| note_error(&error)));
                note(
                    "value",
                    &token.renewal_credential().map(|value| Secret::new(value.clone())),
                );
            }
            Err(error) => note_error(&error),
        }
        note("header", &tokens.current_header());
        note("tokens", &(&tokens, tokens.status()));
        sleep(40 * SECOND).await;
    }
    tokens.install(json!({ "refresh_token": ROTATED })).unwrap();
    note("installed", &tokens);
    tokens.shutdown().await;
}

/// What an issuer may say with secrets in it.
fn indiscretions() -> Vec<Says> {
    let mut all = Vec::new();
    for secret in ALL {
        let basic = STANDARD_NO_PAD.encode(format!("my-app:{secret}"));
        let inside = format!("the token {secret} of {basic} is {} no more", form_encoded(secret));
        for status in [200, 400, 503] {
            all.push(json_of(status, json!({ "error": secret })));
            all.push(json_of(
                status,
                json!({ "error": inside, "error_description": inside, "error_uri": inside }),
            ));
            all.push(json_of(
                status,
                json!({ "error": "invalid_grant", "error_description": inside }),
            ));
        }
        all.push(json_of(
            200,
            json!({ "access_token": format!("{secret}\n"), "refresh_token": secret }),
        ));
        all.push(json_of(200, json!({ "access_token": secret, "token_type": secret })));
        all.push(json_of(200, json!({ "access_token": secret, "expires_in": secret })));
        all.push(json_of(
            200,
            json!({ "access_token": [secret], "scope": secret, secret: secret }),
        ));
        all.push(Says::This(
            200,
            &[("content-type", "application/json")],
            format!("{{\"access_token\": \"{secret}"),
        ));
        let twice = format!("{{\"{secret}\": 1, \"{secret}\": 2, \"access_token\": \"{secret}\"}}");
        all.push(Says::This(200, &[("content-type", "application/json")], twice));
        all.push(Says::This(200, &[("content-type", "text/html")], inside.clone()));
        all.push(Says::Broken(inside.clone()));
        all.push(Says::Broken(format!("https://me:{secret}@login.example.com/token")));
        all.push(Says::BrokenWithin(inside));
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    all.push(Says::This(
        400,
        Box::leak(Box::new(form)),
        format!("error={CLIENT_SECRET}&error_description={REFRESH}"),
    ));
    all.push(Says::This(
        307,
        &[(
            "location",
            "https://elsewhere.example/?t=test-canary-refresh-first-5b1e88f0c2",
        )],
        String::new(),
    ));
    all.push(Says::This(
        401,
        &[(
            "www-authenticate",
            "Basic realm=\"test-canary-client/secret+9f3c1d77aa\"",
        )],
        String::new(),
    ));
    all.push(Says::This(
        503,
        &[("retry-after", "test-canary-access-first-c0ffee1234ab")],
        String::new(),
    ));
    all.push(Says::This(429, &[("retry-after", "7")], REFRESH.into()));
    all.push(Says::Echo);
    all.push(Says::Nothing);
    all
}

#[tokio::test(start_paused = true)]
async fn nothing_an_issuer_says_back_is_printed() {
    let capture = Capture::begin();
    for says in indiscretions() {
        // To the first request, to a renewal, and to the second presentation.
        for script in [
            vec![says.clone()],
            vec![Says::Tokens(ACCESS, ROTATED), says.clone(), says.clone()],
        ] {
            flow(grant(script.clone()), Authorization::new(), &[]).await;
            flow(
                grant(script.clone()).client_auth(ClientAuth::Post),
                Authorization::new(),
                &[],
            )
            .await;
            let own = ClientCredentialsGrant::new(TOKEN_URL, "my-app").client_secret(CLIENT_SECRET);
            flow(own.client(scripted(script)), Authorization::new(), &[]).await;
        }
    }
    capture.assert_keeps_secrets();
}

/// What a server may say of a token that it refuses.
const CHALLENGES: &[&str] = &[
    "Bearer error=\"invalid_token\", error_description=\"test-canary-access-first-c0ffee1234ab is expired\"",
    "Bearer error=\"Test-canary-access-first-c0ffee1234ab test-canary-\"",
    "Bearer test-canary-access-first-c0ffee1234ab",
    "Bearer realm=\"test-canary-access-first-c0ffee1234ab\", scope=\"test-canary-access-first-c0ffee1234ab\"",
    "test-canary-access-first-c0ffee1234ab",
    "test-canary-access-first-c0ffee1234ab error=\"invalid_token\"",
    "Bearer test-canary-access-first-c0ffee1234ab=\"x\", error=\"invalid_token\"",
    "Bearer error=\"insufficient_user_authentication\", acr_values=\"test-canary-access-first-c0ffee1234ab\"",
    "Bearer error=\"insufficient_claims\", claims=\"dGVzdC1jYW5hcnktYWNjZXNzLWZpcnN0LWMwZmZlZTEyMzRhYg\"",
    "Bearer error=\"invalid_token\"",
];

#[tokio::test(start_paused = true)]
async fn nothing_a_server_says_of_a_refused_token_is_printed() {
    let capture = Capture::begin();
    for challenge in CHALLENGES {
        for refusals in [1, 2, 5] {
            let answers = vec![(401, Some(*challenge)); refusals];
            let script = [Says::Tokens(ACCESS, ROTATED)];
            flow(grant(script.clone()), Authorization::new(), &answers).await;
            let refused = [script[0].clone(), json_of(400, json!({ "error": "invalid_grant" }))];
            flow(grant(refused), Authorization::new(), &answers).await;
        }
    }
    capture.assert_keeps_secrets();
}

#[tokio::test(start_paused = true)]
async fn no_presentation_is_printed() {
    let capture = Capture::begin();
    let script = || grant([Says::Tokens(ACCESS, ROTATED)]);
    let answers = [(200, None), (401, None)];
    flow(script(), Authorization::new().scheme("Token"), &answers).await;
    flow(
        script(),
        Header::new(HeaderName::from_static("x-test-token")).prefix("Token "),
        &answers,
    )
    .await;
    flow(script(), Cookie::new("access_token"), &answers).await;
    flow(script(), Query::new("access_token"), &answers).await;
    flow(script(), Authorization::new().scheme("no scheme"), &answers).await;
    flow(Fixed::new(ACCESS), Authorization::new(), &answers).await;
    capture.assert_keeps_secrets();
}

/// The request as inner services see it: what `Trace` prints below the layer.
#[tokio::test(start_paused = true)]
async fn inner_services_may_print_the_headers_they_get() {
    let capture = Capture::begin();
    async fn seen<I: Inject>(inject: I) {
        let tokens = watched(grant([Says::Tokens(ACCESS, ROTATED)]));
        let service = TokenLayer::new(&tokens, Origins::only(API).unwrap())
            .inject(inject)
            .layer(service_fn(move |request: Request<String>| {
                note("request", &request);
                std::future::ready(Ok::<_, BoxError>(Response::new(String::new())))
            }));
        let mut request = get("/api", 1);
        request.headers_mut().insert("cookie", "a=1".parse().unwrap());
        let future = service.oneshot(request);
        assert_eq!(future.await.unwrap().status(), StatusCode::OK);
    }
    seen(Authorization::new()).await;
    seen(Header::new(HeaderName::from_static("x-test-token"))).await;
    seen(Cookie::new("access_token")).await;
    capture.assert_keeps_secrets();
}

#[test]
fn no_public_type_prints_a_secret() {
    let capture = Capture::begin();
    let token = Token::bearer(ACCESS).credential(json!({ "refresh_token": REFRESH, "list": [ROTATED] }));
    note("token", &(&token, token.clone().scope("read").token_type("Bearer")));
    note("secret", &(Secret::from(ACCESS), Secret::new(json!({ "a": REFRESH }))));
    note("fixed", &Fixed::new(ACCESS));
    note("grant", &grant([]));
    note(
        "client",
        &(scripted([]), https_client::https(), https_client::Body::from(ACCESS)),
    );
    let wrong = RefreshTokenGrant::new(format!("https://me:{CLIENT_SECRET}@login.example.com/"), "my-app")
        .client_secret(format!("{CLIENT_SECRET}\n"))
        .refresh_token(format!("{REFRESH}\n"))
        .extra("scope", EXTRA);
    note("wrong", &wrong);
    note_error(&Tokens::new(wrong).unwrap_err());
    note_error(&Tokens::new(Fixed::new(format!("{ACCESS}\n"))).unwrap_err());
    note_error(&Origins::only(&format!("https://{ACCESS}@api.example.com")).unwrap_err());
    note_error(&Origins::only(&format!("https://api.example.com/?key={URL_KEY}")).unwrap_err());
    let tokens = Tokens::builder(grant([])).credential(json!({ "refresh_token": ROTATED }));
    note("builder", &tokens);
    note("tokens", &tokens.build().unwrap());
    note("fault", &Fault::oauth_error(400, ACCESS));
    for inject in [
        Authorization::new().ready(&token),
        Authorization::new().scheme("JWT").ready(&token),
    ] {
        note("ready", &inject);
    }
    note("ready", &Query::new("access_token").ready(&token));
    note("ready", &Cookie::new("access_token").ready(&token));
    note(
        "ready",
        &Cookie::new("access_token").ready(&Token::bearer(format!("{ACCESS};"))),
    );
    capture.assert_keeps_secrets();
}

// ===== Real sockets =====

/// A client of its own for the API, the token in its header, over loopback, with all that it logs.
async fn over_sockets<S, B, RB>(inner: S, login: &str, api: &str, issuer: &Issuer) -> Vec<String>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body + Default + 'static,
{
    let seed = issuer.sign_in();
    let grant = RefreshTokenGrant::new(format!("{login}/token"), "canary-app")
        .client_secret(CLIENT_SECRET)
        .refresh_token(seed.clone());
    let tokens = Tokens::builder(Noted(grant)).observe(Traced::new()).build().unwrap();
    let service = TokenLayer::new(&tokens, Origins::only(api).unwrap()).layer(inner);
    let mut secrets = vec![seed];
    for path in ["/api", "/api", "/liar", "/redirect"] {
        let request = Request::get(format!("{api}{path}")).body(B::default()).unwrap();
        match service.clone().oneshot(request).await {
            Ok(response) => note("status", &response.status()),
            Err(error) => note_error(&*error),
        }
        let token = tokens.get().await.unwrap();
        secrets.push(token.secret().to_owned());
        secrets.push(
            token.renewal_credential().unwrap()["refresh_token"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
        issuer.revoke_access();
    }
    secrets
}

#[tokio::test]
async fn a_real_client_logs_no_secret() {
    let capture = Capture::begin();
    let issuer = Issuer::new();
    issuer.client("canary-app", CLIENT_SECRET);
    let login = issuer.serve().await.unwrap();
    let api = Api::new(&issuer).serve().await.unwrap();
    let mut secrets = over_sockets(https_client::https(), login.url(), api.url(), &issuer).await;
    let http2: HyperClient<_, Full<Bytes>> = HyperClient::builder(TokioExecutor::new()).http2_only(true).build_http();
    secrets.extend(over_sockets(http2, login.url(), api.url(), &issuer).await);
    // TLS to a port where nobody speaks it, a port where nobody listens, and answers that break off.
    let unreachable = login.url().replace("http://", "https://");
    for (url, fault) in [
        (unreachable.as_str(), None),
        ("http://127.0.0.1:1", None),
        (login.url(), Some(Fault::DropAfter)),
        (login.url(), Some(Fault::Truncate)),
        (login.url(), Some(Fault::Garbage)),
    ] {
        if let Some(fault) = fault {
            issuer.fault(fault);
        }
        let grant = ClientCredentialsGrant::new(format!("{url}/token"), "canary-app").client_secret(CLIENT_SECRET);
        let tokens = Tokens::builder(Noted(grant)).observe(Traced::new()).build().unwrap();
        note_error(&tokens.get().await.unwrap_err());
    }
    let text = capture.text();
    assert!(
        text.contains("renewed") && text.contains("h2::"),
        "the subscriber hears all of us"
    );
    capture.assert_keeps(secrets.iter().map(String::as_str).chain(ALL));
}
