//! Every cell of what an issuer may answer to a token request, and how it ends: through both grants, with a
//! token or with an error of a class. No error shows the answer.
//!
//! Who met them: qwen#5355, bluebutton#512, delta-sharing#628, LibreChat#15321, ruby-oauth#284, huskarl#198, and
//! golang/oauth2's own `TestExpiresInUpperBound`.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::service_fn;
use tower_token::oauth2::{ClientCredentialsGrant, RefreshTokenGrant};
use tower_token::{BoxError, Class, Clock, Error, Event, Token, TokenClient, TokenProvider, Tokens, Warning};

const TOKEN_URL: &str = "https://login.example.com/token";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const A_YEAR: u64 = 365 * 24 * 3600;
const ACCESS: &str = "test-canary-access";

/// How an answer ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    /// A Bearer token that lives for so many seconds, with these warnings.
    Token(u64, &'static [Warning]),
    /// Nothing can be made of it. It may have held a refresh token, so it counts as lost.
    Malformed,
    /// The issuer may have acted before it failed.
    Lost,
    Transient,
    Throttled,
    Terminal,
    NeedsInteraction,
    Config,
}
use Ends::*;

const WHOLE: Ends = Token(60, &[]);

// ===== An issuer that answers always the same =====

#[derive(Clone)]
struct Answer {
    status: u16,
    content_type: &'static str,
    body: Bytes,
}

fn answer(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    Answer {
        status,
        content_type,
        body: body.into(),
    }
}

/// 200, with these fields besides an access token.
fn granted(fields: &str) -> Answer {
    answer(200, JSON, format!(r#"{{"access_token":"{ACCESS}",{fields}}}"#))
}

/// An error as RFC 6749 §5.2 has it, with prose that nobody should quote.
fn oauth(status: u16, code: &str) -> Answer {
    let body = format!(r#"{{"error":"{code}","error_description":"test-canary-prose"}}"#);
    answer(status, JSON, body)
}

type Form = HashMap<String, String>;

/// What was asked of it, oldest first.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<Form>>>);

impl Asked {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// A field of the last request.
    fn last(&self, field: &str) -> Option<String> {
        self.0.lock().unwrap().last()?.get(field).cloned()
    }

    fn answering(&self, answer: Answer) -> TokenClient {
        let asked = self.clone();
        TokenClient::new(service_fn(move |request: Request<Full<Bytes>>| {
            let (asked, answer) = (asked.clone(), answer.clone());
            async move {
                let body = request.into_body().collect().await?.to_bytes();
                asked.0.lock().unwrap().push(form_of(&body));
                let response = Response::builder().status(answer.status);
                let response = response.header("content-type", answer.content_type);
                Ok::<_, BoxError>(response.body(Full::new(answer.body))?)
            }
        }))
    }
}

/// Enough for what the grants of these tests write: no value of theirs has to be encoded but for spaces.
fn form_of(body: &[u8]) -> Form {
    let pairs = std::str::from_utf8(body).unwrap().split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.replace('+', " ")))
        .collect()
}

// ===== What comes of it =====

/// One grant and what it was told.
struct Scene {
    tokens: Tokens,
    asked: Asked,
    warnings: Arc<Mutex<Vec<Warning>>>,
}

impl Scene {
    fn of<P: TokenProvider>(answer: &Answer, grant: impl FnOnce(TokenClient) -> P) -> Self {
        let (asked, warnings) = (Asked::default(), Arc::new(Mutex::new(Vec::new())));
        let told = warnings.clone();
        let tokens = Tokens::builder(grant(asked.answering(answer.clone())))
            .clock(Clock::of_tokio())
            .observe(move |event: &Event| {
                if let Event::Warned { warning, .. } = event {
                    told.lock().unwrap().push(*warning);
                }
            })
            .build()
            .unwrap();
        Self {
            tokens,
            asked,
            warnings,
        }
    }

    fn refreshing(answer: &Answer) -> Self {
        Self::of(answer, |client| {
            let grant = RefreshTokenGrant::new(TOKEN_URL, "my-app").client(client);
            grant.refresh_token("test-first").scope("read write")
        })
    }

    fn client_credentials(answer: &Answer) -> Self {
        Self::of(answer, |client| {
            let grant = ClientCredentialsGrant::new(TOKEN_URL, "my-app").client(client);
            grant.client_secret("test-secret").scope("read write")
        })
    }

    /// Asks for a first token. `twice`: the grant presents what may be spent once more.
    async fn ends(&self, ends: Ends, twice: bool, shown: &str) {
        let outcome = self.tokens.get().await;
        let asked = self.asked.count();
        match (outcome, ends) {
            (Ok(token), Token(life, warnings)) => {
                assert_eq!(self.life(), life, "{shown}");
                assert_eq!(*self.warnings.lock().unwrap(), warnings, "{shown}");
                assert_eq!((token.secret(), token.kind()), (ACCESS, "Bearer"), "{shown}");
                assert_eq!(asked, 1, "{shown}");
            }
            (Err(error), Malformed | Lost) => {
                assert_eq!(
                    error.to_string().contains("malformed"),
                    ends == Malformed,
                    "{shown}: {error}"
                );
                let lost = if twice {
                    (Class::Ambiguous, 2)
                } else {
                    (Class::Transient, 1)
                };
                assert_eq!((error.class().unwrap(), asked), lost, "{shown}");
            }
            (Err(error), ends) => assert_eq!((class(&error), asked), (Some(ends), 1), "{shown}: {error}"),
            (Ok(_), ends) => panic!("a token, not {ends:?}: {shown}"),
        }
    }

    /// Seconds.
    fn life(&self) -> u64 {
        self.tokens.status().expires_in.unwrap().as_secs()
    }

    async fn next(&self) -> Token {
        self.tokens.refresh().await.unwrap()
    }
}

fn class(error: &Error) -> Option<Ends> {
    Some(match error.class()? {
        Class::Transient => Transient,
        Class::Throttled { .. } => Throttled,
        Class::Terminal => Terminal,
        Class::NeedsInteraction => NeedsInteraction,
        Class::Config => Config,
        _ => return None,
    })
}

/// Gives `answer` to both grants.
async fn ends(answer: Answer, ends: Ends) {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    let shown: String = format!("{} {body}", answer.status).chars().take(100).collect();
    for (scene, twice) in [
        (Scene::refreshing(&answer), true),
        (Scene::client_credentials(&answer), false),
    ] {
        scene.ends(ends, twice, &shown).await;
        let Some(error) = scene.tokens.status().last_error else {
            continue;
        };
        let printed = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!printed.contains("canary"), "{printed}");
        assert!(body.trim().len() < 8 || !printed.contains(&body), "{printed}");
    }
}

// ===== The table =====

#[tokio::test(start_paused = true)]
async fn every_lifetime_ends_as_its_row_says() {
    const ASSUMED: Ends = Token(300, &[Warning::LifetimeAssumed]);
    ends(granted(r#""token_type":"Bearer""#), ASSUMED).await;
    for (value, outcome) in [
        ("null", ASSUMED),
        ("0", ASSUMED),
        (r#""0""#, ASSUMED),
        (r#""""#, ASSUMED),
        ("0.4", ASSUMED),
        ("3600", Token(3600, &[])),
        (r#""3600""#, Token(3600, &[])),
        ("3599.5", Token(3599, &[])),
        (r#""3599.5""#, Token(3599, &[])),
        ("3.6e3", Token(3600, &[])),
        ("1e308", Token(A_YEAR, &[])),
        ("18446744073709551615", Token(A_YEAR, &[])),
        (r#""99999999999999999999999""#, Token(A_YEAR, &[])),
        ("31536001", Token(A_YEAR, &[])),
        ("-1", Malformed),
        ("-0.5", Malformed),
        (r#""-1""#, Malformed),
        (r#""3600abc""#, Malformed),
        (r#""3.6e3""#, Malformed),
        (r#""+1""#, Malformed),
        (r#"" 1""#, Malformed),
        (r#""1.""#, Malformed),
        (r#"".5""#, Malformed),
        (r#""inf""#, Malformed),
        ("true", Malformed),
        ("[1]", Malformed),
        ("{}", Malformed),
        ("1e999", Malformed),
        ("NaN", Malformed),
    ] {
        ends(
            granted(&format!(r#""token_type":"Bearer","expires_in":{value}"#)),
            outcome,
        )
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_token_type_ends_as_its_row_says() {
    const ASSUMED: Ends = Token(60, &[Warning::TypeAssumed]);
    ends(granted(r#""expires_in":60"#), ASSUMED).await;
    for (value, outcome) in [
        ("null", ASSUMED),
        (r#""""#, ASSUMED),
        (r#""Bearer""#, WHOLE),
        (r#""bearer""#, WHOLE),
        (r#""BEARER""#, WHOLE),
        (r#""DPoP""#, Config),
        (r#""mac""#, Config),
        (r#""N_A""#, Config),
        ("1", Malformed),
    ] {
        ends(granted(&format!(r#""expires_in":60,"token_type":{value}"#)), outcome).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_body_ends_as_its_row_says() {
    let json = format!(r#"{{"access_token":"{ACCESS}","token_type":"Bearer","expires_in":60}}"#);
    let form = format!("access_token={ACCESS}&expires_in=60&token_type=bearer");
    let padded = |len: usize| format!("{json}{}", " ".repeat(len - json.len()));
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        granted(&format!(r#""token_type":"Bearer","expires_in":60,"x":{open}{close}"#))
    };
    let quoted = format!(r#""token_type":"Bearer","expires_in":60,"x":"{}""#, "[{".repeat(100));
    for (answer, outcome) in [
        // In the encoding that its type names.
        (answer(200, JSON, json.clone()), WHOLE),
        (answer(200, "text/plain", json.clone()), WHOLE),
        (answer(201, JSON, json.clone()), WHOLE),
        (answer(200, FORM, form.clone()), WHOLE),
        (answer(200, FORM, form.replace('-', "%2D")), WHOLE),
        (answer(200, JSON, form.clone()), Malformed),
        (answer(200, "text/plain", form), Malformed),
        (answer(200, FORM, json.clone()), Malformed),
        (
            answer(200, FORM, format!("access_token={ACCESS}&access_token=test-b")),
            Malformed,
        ),
        // The issuer's own error, whatever the status.
        (oauth(200, "invalid_grant"), Terminal),
        (oauth(200, "bad_refresh_token"), Terminal),
        (oauth(200, "invalid_client"), Config),
        (oauth(200, "temporarily_unavailable"), Throttled),
        (
            answer(200, JSON, r#"{"access_token":"test-canary","error":{"code":400}}"#),
            Malformed,
        ),
        // Too long by one byte, too deep by one bracket.
        (answer(200, JSON, padded(1 << 20)), WHOLE),
        (answer(200, JSON, padded((1 << 20) + 1)), Malformed),
        (nested(32), WHOLE),
        (granted(&quoted), WHOLE),
        (nested(33), Malformed),
        (nested(100_000), Malformed),
        // No object, no token, or more than one.
        (answer(200, JSON, ""), Malformed),
        (answer(204, JSON, ""), Malformed),
        (answer(200, JSON, "  \n"), Malformed),
        (
            answer(200, "text/html", "<!doctype html><p>test-canary-prose"),
            Malformed,
        ),
        (answer(200, JSON, "null"), Malformed),
        (answer(200, JSON, "[]"), Malformed),
        (answer(200, JSON, "{"), Malformed),
        (answer(200, JSON, &b"\xff\xfe{}"[..]), Malformed),
        (answer(200, JSON, format!("{json} trailing")), Malformed),
        (granted(r#""access_token":"test-b""#), Malformed),
        (granted(r#""expires_in":1,"expires_in":1"#), Malformed),
        (answer(200, JSON, r#"{"token_type":"bearer"}"#), Malformed),
        (answer(200, JSON, r#"{"access_token":""}"#), Malformed),
        (answer(200, JSON, r#"{"access_token":null}"#), Malformed),
        (answer(200, JSON, r#"{"access_token":7}"#), Malformed),
        (answer(200, JSON, r#"{"access_token":"test canary"}"#), Malformed),
        (answer(200, JSON, r#"{"access_token":"test-canary\n"}"#), Malformed),
        (answer(200, JSON, r#"{"access_token":"test-canaryé"}"#), Malformed),
        (granted(r#""refresh_token":7"#), Malformed),
        (granted(r#""refresh_token":"test-\u0000""#), Malformed),
    ] {
        ends(answer, outcome).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_error_ends_in_the_class_of_its_row() {
    for (status, code, outcome) in [
        // The issuer's verdict.
        (400, "invalid_grant", Terminal),
        (401, "invalid_grant", Terminal),
        (403, "invalid_grant", Terminal),
        (400, "invalid_client", Config),
        (401, "invalid_client", Config),
        (400, "unauthorized_client", Config),
        (400, "unsupported_grant_type", Config),
        (400, "invalid_request", Config),
        (400, "invalid_scope", Config),
        (400, "invalid_target", Config),
        (400, "use_dpop_nonce", Config),
        (400, "interaction_required", NeedsInteraction),
        (400, "login_required", NeedsInteraction),
        (400, "consent_required", NeedsInteraction),
        (403, "access_denied", NeedsInteraction),
        // Patience.
        (400, "temporarily_unavailable", Throttled),
        (400, "slow_down", Throttled),
        (429, "invalid_grant", Throttled),
        // No verdict: unknown to us, or said by a server that fails.
        (400, "server_error", Transient),
        (400, "something_new", Transient),
        (503, "invalid_grant", Transient),
        (503, "temporarily_unavailable", Transient),
        (302, "invalid_grant", Transient),
        // Nor that, and it may have acted before it failed.
        (500, "invalid_grant", Lost),
        (502, "invalid_grant", Lost),
        (500, "invalid_client", Lost),
        (500, "server_error", Lost),
        (504, "server_error", Lost),
    ] {
        ends(oauth(status, code), outcome).await;
    }
    const HTML: &str = "<html>test-canary-prose";
    for (status, body, outcome) in [
        // Some issuers refuse a dead refresh token with this.
        (400, "", Terminal),
        (400, " \r\n", Terminal),
        (400, HTML, Transient),
        (400, "{}", Transient),
        (400, r#"{"error":{"code":400}}"#, Transient),
        (400, r#"{"error":"invalid_grant","error":"invalid_client"}"#, Transient),
        // A gateway, a firewall, another page.
        (401, "", Transient),
        (401, HTML, Transient),
        (403, "", Transient),
        (403, HTML, Transient),
        (404, HTML, Transient),
        (408, "", Transient),
        (301, "", Transient),
        (307, "", Transient),
        (429, "", Throttled),
        (501, HTML, Transient),
        (503, HTML, Transient),
        (500, HTML, Lost),
        (502, "", Lost),
        (504, "", Lost),
    ] {
        ends(answer(status, JSON, body), outcome).await;
    }
    ends(answer(400, FORM, "error=invalid_grant"), Terminal).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_missing_keeps_the_old_one() {
    // What the next request presents.
    for (value, next) in [
        ("", "test-first"),
        (r#","refresh_token":"""#, "test-first"),
        (r#","refresh_token":null"#, "test-first"),
        (r#","refresh_token":"test-second""#, "test-second"),
    ] {
        let answer = granted(&format!(r#""token_type":"Bearer","expires_in":60{value}"#));
        ends(answer.clone(), WHOLE).await;
        let scene = Scene::refreshing(&answer);
        scene.next().await;
        assert_eq!(scene.asked.last("refresh_token").as_deref(), Some("test-first"));
        for _ in 0..3 {
            scene.next().await;
            assert_eq!(scene.asked.last("refresh_token").as_deref(), Some(next), "{value}");
        }
        // Its holder is the program itself: one is of no use to it (RFC 6749 §4.4.3).
        let scene = Scene::client_credentials(&answer);
        scene.next().await;
        scene.next().await;
        assert_eq!(scene.asked.last("refresh_token"), None);
        assert_eq!(scene.asked.last("grant_type").as_deref(), Some("client_credentials"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_narrower_scope_is_kept_and_told_and_never_widened() {
    // Asked for: `read write`. Granted, as told, and what a refresh asks for then.
    const NARROWED: Ends = Token(60, &[Warning::ScopeNarrowed]);
    for (value, granted_scope, asked, outcome) in [
        ("", "read write", Some("read write"), WHOLE),
        (r#","scope":null"#, "read write", Some("read write"), WHOLE),
        (r#","scope":"write read""#, "write read", Some("read write"), WHOLE),
        (r#","scope":["read","write"]"#, "read write", Some("read write"), WHOLE),
        (
            r#","scope":"read write mail""#,
            "read write mail",
            Some("read write"),
            WHOLE,
        ),
        (r#","scope":"read""#, "read", Some("read"), NARROWED),
        (r#","scope":"read mail""#, "read mail", Some("read"), NARROWED),
        (r#","scope":["read"]"#, "read", Some("read"), NARROWED),
        (r#","scope":"mail""#, "mail", None, NARROWED),
    ] {
        let answer = granted(&format!(r#""token_type":"Bearer","expires_in":60{value}"#));
        ends(answer.clone(), outcome).await;
        let scene = Scene::refreshing(&answer);
        assert_eq!(scene.next().await.granted_scope(), Some(granted_scope), "{value}");
        assert_eq!(scene.asked.last("scope").as_deref(), Some("read write"), "{value}");
        for _ in 0..3 {
            assert_eq!(scene.next().await.granted_scope(), Some(granted_scope), "{value}");
            assert_eq!(
                scene.asked.last("scope").as_deref(),
                asked,
                "{value}: never more than was granted"
            );
        }
        // A client's own grant is a new one each time.
        let scene = Scene::client_credentials(&answer);
        scene.next().await;
        scene.next().await;
        assert_eq!(scene.asked.last("scope").as_deref(), Some("read write"), "{value}");
    }
}
