//! What went wrong once: each test carries its accident in its name.

use serde_json::json;
use tower_token::{Class, TokenClient, Tokens, alibaba, huawei, tencent};

use super::double::*;

/// The token's own credential, as a restart hands it back, is refused by `check_credential`.
#[tokio::test(start_paused = true)]
async fn a_restart_takes_the_credential_that_a_token_came_with() {
    let double = Double::new(|_| answer(200, json!({ "t": "test-t", "e": 3600 })));
    let endpoint = || {
        let document = json!({
            "acquire": { "url": "https://api.example.com/acquire", "form": { "secret": "{secret}" } },
            "renew": { "url": "https://api.example.com/renew", "form": { "refresh_token": "{refresh_token}" } },
            "vars": { "secret": "test-secret" },
            "answer": { "token": "/t", "refresh_token": "/r", "expires": { "seconds": "/e" } },
        });
        tower_token::Endpoint::from_json(&document.to_string())
            .unwrap()
            .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
                double.service(),
            ))
    };
    let tokens = Tokens::builder(endpoint()).clock(double.clock.clone()).build().unwrap();
    let token = tokens.get().await.unwrap();
    let kept = token.renewal_credential().unwrap().clone();
    let again = Tokens::builder(endpoint())
        .clock(double.clock.clone())
        .credential(kept)
        .build();
    assert!(again.is_ok(), "{}", again.err().unwrap());
}

/// The same where OneAccess issues no refresh tokens, its default: a state of the token, no wrong configuration.
#[tokio::test(start_paused = true)]
async fn a_restart_takes_the_credential_of_a_token_without_refresh_token() {
    let double = Double::new(|_| answer(200, json!({ "access_token": "test-t", "expires_in": 3600 })));
    let grant = || {
        huawei::OneAccess::new("https://acme.example.com", "c")
            .client_secret("test-secret")
            .code("test-code")
            .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
                double.service(),
            ))
    };
    let tokens = Tokens::builder(grant()).clock(double.clock.clone()).build().unwrap();
    let token = tokens.get().await.unwrap();
    let kept = token.renewal_credential().unwrap().clone();
    let again = Tokens::builder(grant())
        .clock(double.clock.clone())
        .credential(kept)
        .build();
    assert!(again.is_ok(), "{}", again.err().unwrap());
}

/// What renews itself is replaced by the answer as well, but only a `refresh_token` is salvaged.
#[tokio::test(start_paused = true)]
async fn a_self_renewing_token_is_not_lost_with_a_malformed_answer() {
    let double = Double::new(|seen| match seen.uri.path() {
        "/api/v1/token/l/test-old" => answer(200, json!({ "accessToken": "test-new", "expiresIn": "soon" })),
        "/api/v1/token/l/test-new" => answer(200, json!({ "accessToken": "test-newer", "expiresIn": 7200 })),
        path => panic!("{path}"),
    });
    let library = tencent::SmhLibrary::new("https://smh0.api.tencentsmh.cn", "l")
        .access_token("test-old")
        .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
            double.service(),
        ));
    let tokens = Tokens::builder(library).clock(double.clock.clone()).build().unwrap();
    let _ = tokens.refresh().await;
    let _ = tokens.refresh().await;
    let paths: Vec<String> = double.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(paths, ["/api/v1/token/l/test-old", "/api/v1/token/l/test-new"]);
}

/// Lost, then told that it is dead: that is the verdict. What acquiring then says counts.
#[tokio::test(start_paused = true)]
async fn a_verdict_on_the_second_presentation_ends_the_ambiguity() {
    let double = Double::new(|seen| match seen.uri.path() {
        "/renew" => answer(400, json!({ "code": "Dead" })),
        _ => with(answer(429, ""), "retry-after", 7),
    });
    let tokens = double.tokens(&json!({
        "renew": { "url": "https://api.example.com/renew", "form": { "refresh_token": "{refresh_token}" } },
        "acquire": { "url": "https://api.example.com/acquire" },
        "answer": { "token": "/t", "refresh_token": "/r" },
        "errors": { "code": "/code", "classes": { "terminal": ["Dead"] } },
    }));
    tokens.install(json!({ "refresh_token": "test-r1" })).unwrap();
    double.fault(Fault::Lost);
    let error = tokens.get().await.unwrap_err();
    assert_eq!((double.count("/renew"), double.count("/acquire")), (2, 1));
    assert!(!error.is_reauth_required(), "{error}");
    assert_eq!(
        error.class(),
        Some(Class::Throttled {
            retry_after: Some(7 * SECOND)
        })
    );
}

/// VENDORS 3.2: more is needed where `LoginToken` is empty and `NextStage` is not.
#[tokio::test(start_paused = true)]
async fn a_login_token_beside_a_next_stage_is_a_token() {
    let double = Double::new(|_| answer(200, json!({ "LoginToken": "test-new", "NextStage": "KeepAliveVerify" })));
    let login = alibaba::WuyingLogin::new("cn-hangzhou", "c", "alice")
        .login_token("test-old")
        .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
            double.service(),
        ));
    let tokens = Tokens::builder(login).clock(double.clock.clone()).build().unwrap();
    let token = tokens.refresh().await;
    assert_eq!(token.unwrap().secret(), "test-new");
}

/// VENDORS 3.2: such an answer is terminal for a program. There are more stages than are written down.
#[tokio::test(start_paused = true)]
async fn a_next_stage_that_nobody_knows_wants_a_person_and_is_not_asked_for_again() {
    let double = Double::new(|_| answer(200, json!({ "LoginToken": "", "NextStage": "FaceVerify" })));
    let login = alibaba::WuyingLogin::new("cn-hangzhou", "c", "alice")
        .login_token("test-old")
        .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
            double.service(),
        ));
    let tokens = Tokens::builder(login).clock(double.clock.clone()).build().unwrap();
    let error = tokens.refresh().await.unwrap_err();
    assert_eq!(error.class(), Some(Class::NeedsInteraction), "{error}");
    assert!(error.is_reauth_required());
    let asked = double.seen().len();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(double.seen().len(), asked);
}

/// URLs are written with `percent::encoded`, and `Hidden` knows the form's encoding only: `*`, space, `~` differ.
#[tokio::test(start_paused = true)]
async fn a_clients_error_does_not_quote_a_secret_as_the_url_has_it() {
    for secret in ["ab*defghijkl", "ab defghijkl", "~b+defghijkl"] {
        let service = tower::service_fn(
            |request: http::Request<http_body_util::Full<bytes::Bytes>>| async move {
                Err::<http::Response<http_body_util::Full<bytes::Bytes>>, tower::BoxError>(
                    format!("error sending request for url ({})", request.uri()).into(),
                )
            },
        );
        let document = json!({
            "acquire": { "url": "https://api.example.com/t", "query": { "s": "{secret}" } },
            "vars": { "secret": secret },
            "answer": { "token": "/t" },
        });
        let endpoint = tower_token::Endpoint::from_json(&document.to_string())
            .unwrap()
            .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(service));
        let error = Tokens::new(endpoint).unwrap().get().await.unwrap_err().to_string();
        assert!(!error.contains("defghijkl"), "{error}");
    }
}

/// `now + life` in `initial` overflows.
#[test]
fn a_configured_token_with_an_endless_life_is_no_panic() {
    for provider in [
        json!({ "type": "alibaba.login", "region_id": "cn-hangzhou", "client_id": "c", "end_user_id": "alice",
                "login_token": "test-token", "lifetime": "2562047788015215h" }),
        json!({ "type": "tencent.smh", "endpoint": "http://127.0.0.1:9", "library_id": "l",
                "access_token": "test-token", "period": "2562047788015215h" }),
    ] {
        let config: tower_token::config::TokenConfig =
            tower_token::config::read(&json!({ "provider": provider }).to_string()).unwrap();
        let built = config
            .builder("", std::path::Path::new(""))
            .and_then(|builder| builder.build());
        let _ = built;
    }
}

/// Any rule of the list counts, also where another one is about gRPC.
#[test]
fn a_status_is_a_refusal_beside_the_rule_for_grpc() {
    use tower_token::{Classify, Verdict};
    let config: tower_token::config::TokenConfig = tower_token::config::read(
        &json!({
            "provider": { "type": "huawei.tenant", "endpoint": "http://127.0.0.1:9", "client_id": "c", "client_secret": "s" },
            "refuse": [{ "grpc": true }, { "status": [403] }]
        })
        .to_string(),
    )
    .unwrap();
    let refusal = config.refusal("").unwrap();
    let head = http::Response::builder()
        .status(403)
        .header("content-type", "application/grpc");
    let (head, ()) = head.body(()).unwrap().into_parts();
    let verdict = Classify::<http_body_util::Full<bytes::Bytes>>::head(&refusal, &head);
    assert!(matches!(verdict, Verdict::Refuse(_)));
}

/// A header of that name in the document replaces our own, as it does for `accept`.
#[tokio::test(start_paused = true)]
async fn a_documents_own_content_type_is_sent_once() {
    let double = Double::new(|_| answer(200, json!({ "t": "test-t" })));
    let tokens = double.tokens(&json!({
        "acquire": { "url": "https://api.example.com/t", "json": { "a": 1 },
                     "headers": { "content-type": "application/vnd.api+json" } },
        "answer": { "token": "/t" },
    }));
    tokens.get().await.unwrap();
    let seen = double.seen();
    let types: Vec<_> = seen[0].headers.get_all("content-type").iter().collect();
    assert_eq!(types, ["application/vnd.api+json"]);
}

/// A variable that is set to nothing is a missing secret, which the document's path should name.
#[test]
fn an_empty_secret_in_vars_is_named() {
    let empty = std::env::temp_dir().join(format!("tower-token-empty-{}", std::process::id()));
    std::fs::write(&empty, "\n").unwrap();
    let double = Double::new(|_| unreachable!());
    let built = double.built(&json!({
        "acquire": { "url": "https://api.example.com/t", "form": { "secret": "{secret}" } },
        "vars": { "secret": { "file": empty } },
        "answer": { "token": "/t" },
    }));
    std::fs::remove_file(&empty).unwrap();
    assert!(built.is_err_and(|error| error.to_string().contains("vars.secret")));
}

/// Every token would be dead on arrival.
#[test]
fn a_lifetime_of_nothing_is_named() {
    let double = Double::new(|_| unreachable!());
    let built = double.built(&json!({
        "acquire": { "url": "https://api.example.com/t" },
        "answer": { "token": "/t", "expires": { "lifetime": "0s" } },
    }));
    assert!(built.is_err());
}

/// The module's table: nothing and zero in the answer are no expiry.
#[tokio::test(start_paused = true)]
async fn an_expiry_of_zero_is_none_in_every_form() {
    for form in ["seconds", "millis", "at"] {
        let double = Double::new(|_| answer(200, json!({ "t": "test-t", "e": 0 })));
        let tokens = double.tokens(&json!({
            "acquire": { "url": "https://api.example.com/t" },
            "answer": { "token": "/t", "expires": { form: "/e" } },
        }));
        let token = tokens.get().await;
        assert!(token.is_ok(), "{form}: {}", token.err().unwrap());
    }
}

/// `oauth2` hides a secret of any length; here one below eight bytes is printed as the issuer's code.
#[tokio::test(start_paused = true)]
async fn a_short_secret_that_a_vendor_echoes_is_not_told() {
    let double = Double::new(|_| answer(400, json!({ "error": "s3cr3t7" })));
    let grant = huawei::Tenant::new("https://acme.example.com", "c")
        .client_secret("s3cr3t7")
        .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
            double.service(),
        ));
    let tokens = Tokens::builder(grant).clock(double.clock.clone()).build().unwrap();
    let error = tokens.get().await.unwrap_err().to_string();
    assert!(!error.contains("s3cr3t7"), "{error}");
}

/// The first pointer says that all is well, the second that it is not.
#[tokio::test(start_paused = true)]
async fn an_ok_code_at_one_pointer_hides_no_error_at_the_next() {
    let double = Double::new(|_| answer(400, json!({ "status": "ok", "code": "Slow" })));
    let tokens = double.tokens(&json!({
        "acquire": { "url": "https://api.example.com/t" },
        "answer": { "token": "/t" },
        "errors": { "code": ["/status", "/code"], "ok": ["ok"], "classes": { "throttled": ["Slow"] } },
    }));
    let class = tokens.get().await.unwrap_err().class();
    assert!(matches!(class, Some(Class::Throttled { .. })), "{class:?}");
}

/// `answer.keep` of an optional field that is no printable ASCII fails the renewal for good.
#[tokio::test(start_paused = true)]
async fn a_document_url_that_is_not_ascii_is_no_malformed_answer() {
    let double = Double::new(|seen| {
        answer(
            200,
            json!({
                "AccessToken": "test-a", "RefreshToken": "test-r", "WebofficeURL": "https://office.example.com/报告.docx",
                "AccessTokenExpiredTime": jiff_in(seen.time, 1800), "RefreshTokenExpiredTime": jiff_in(seen.time, 86400),
            }),
        )
    });
    let weboffice = alibaba::Weboffice::new("https://imm.example.com", "p")
        .access_key("test-id", "test-secret")
        .generate("oss://b/o")
        .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
            double.service(),
        ));
    let tokens = Tokens::builder(weboffice).clock(double.clock.clone()).build().unwrap();
    let token = tokens.get().await;
    assert!(token.is_ok(), "{}", token.err().unwrap());
}

fn jiff_in(now: std::time::SystemTime, seconds: u64) -> String {
    jiff::Timestamp::try_from(now + std::time::Duration::from_secs(seconds))
        .unwrap()
        .to_string()
}

/// Its answer would be thrown away, and what it acquires may end what was installed: IMM's new pair ends the last one.
#[tokio::test(start_paused = true)]
async fn a_flight_that_was_fenced_off_acquires_nothing() {
    let handle = std::sync::Arc::new(std::sync::OnceLock::<Tokens>::new());
    let installs = handle.clone();
    let double = Double::new(move |seen| {
        if seen.body.contains("test-old") {
            installs
                .get()
                .unwrap()
                .install(json!({ "refresh_token": "test-new" }))
                .unwrap();
            return answer(400, json!({ "code": "Dead" }));
        }
        answer(200, json!({ "t": "test-t", "r": "test-r2" }))
    });
    let tokens = double.tokens(&json!({
        "renew": { "url": "https://api.example.com/renew", "form": { "refresh_token": "{refresh_token}" } },
        "acquire": { "url": "https://api.example.com/acquire" },
        "answer": { "token": "/t", "refresh_token": "/r" },
        "errors": { "code": "/code", "classes": { "terminal": ["Dead"] } },
    }));
    assert!(handle.set(tokens.clone()).is_ok());
    tokens.install(json!({ "refresh_token": "test-old" })).unwrap();
    tokens.get().await.unwrap();
    assert_eq!((double.count("/renew"), double.count("/acquire")), (2, 0));
}

/// `Weboffice` takes the two in any order; here the one that comes first is dropped without a word.
#[tokio::test(start_paused = true)]
async fn a_security_token_is_kept_in_whichever_order_it_comes() {
    let double = Double::new(|_| answer(200, json!({ "LoginToken": "test-new" })));
    let login = alibaba::WuyingLogin::new("cn-hangzhou", "c", "alice")
        .login_token("test-old")
        .security_token("test-sts")
        .access_key("test-id", "test-secret")
        .client(TokenClient::new::<_, http_body_util::Full<bytes::Bytes>, _>(
            double.service(),
        ));
    let tokens = Tokens::builder(login).clock(double.clock.clone()).build().unwrap();
    tokens.refresh().await.unwrap();
    assert_eq!(double.seen()[0].header("x-acs-security-token"), "test-sts");
}

/// ECD's session is a secret of the document; SMH's is a text that `Debug` prints.
#[test]
fn a_session_in_a_document_is_not_printed() {
    let config: tower_token::config::TokenConfig = tower_token::config::read(
        &json!({ "provider": { "type": "tencent.smh", "endpoint": "https://smh0.api.tencentsmh.cn", "library_id": "l",
                               "library_secret": "test-secret", "session_id": "test-canary-session" } })
        .to_string(),
    )
    .unwrap();
    assert!(!format!("{config:?}").contains("canary"));
}

/// What replaced the lost credential came with a token that could not be used; it ends the ambiguity all the same.
#[tokio::test(start_paused = true)]
async fn a_token_dead_on_arrival_still_brings_what_replaces_a_lost_credential() {
    let mut asked = 0;
    let double = Double::new(move |seen| {
        asked += 1;
        let life = if asked == 2 { -60 } else { 3600 };
        let at = jiff::Timestamp::try_from(seen.time).unwrap() + jiff::SignedDuration::from_secs(life);
        answer(
            200,
            json!({ "t": "test-t", "r": format!("test-r{}", asked + 1), "e": at.to_string() }),
        )
    });
    let tokens = double.tokens(&json!({
        "renew": { "url": "https://api.example.com/renew", "form": { "refresh_token": "{refresh_token}" } },
        "answer": { "token": "/t", "refresh_token": "/r", "expires": { "at": "/e" } },
        "replay": "never",
    }));
    tokens.install(json!({ "refresh_token": "test-r1" })).unwrap();
    double.fault(Fault::Lost);
    assert_eq!(tokens.get().await.unwrap_err().class(), Some(Class::Ambiguous));
    // Dead on arrival, with a new refresh token.
    assert_eq!(tokens.refresh().await.unwrap_err().class(), Some(Class::Transient));
    tokio::time::sleep(5 * MINUTE).await;
    let token = tokens.get().await;
    assert!(token.is_ok(), "{}", token.err().unwrap());
    assert!(double.seen()[2].body.contains("test-r3"), "{}", double.seen()[2].body);
}
