//! What cannot work is an error that says what to change; nothing panics, and nothing is sent.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod flows;

use std::time::Duration;

use flows::*;
use http::{HeaderName, Request};
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_token::oauth2::{ClientAuth, ClientCredentialsGrant, RefreshTokenGrant};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{
    Authorization, Cookie, Error, Fixed, Header, IfLost, Inject, Origins, Query, RefreshPolicy, Token, TokenLayer,
    TokenProvider, Tokens, provider_fn,
};

fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn refused(grant: impl TokenProvider, words: &[&str]) {
    let error = Tokens::new(grant).expect_err("wrong, and yet taken");
    assert!(error.is_config(), "{error}");
    says(&error, &["invalid configuration"]);
    says(&error, words);
}

// ===== Tokens =====

#[tokio::test(start_paused = true)]
async fn a_token_that_fits_no_header_is_named_by_its_byte_and_not_sent() {
    for (secret, words) in [
        ("test-abc\n", &["0x0a at offset 8", "trim"][..]),
        ("test\r\nx-evil: 1", &["0x0d at offset 4"]),
        ("test abc", &["0x20 at offset 4"]),
        ("test-\u{e9}", &["0xc3 at offset 5"]),
        ("test-\0", &["0x00 at offset 5"]),
        ("test-\u{7f}", &["0x7f at offset 5"]),
        ("", &["the token is empty"]),
    ] {
        refused(Fixed::new(secret), words);
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let tokens = tokens(provider_fn(move |_| async move { Ok(Token::bearer(secret)) }));
        for _ in 0..3 {
            let error = ours(&call(&client(&tokens, &api), "/api").await);
            says(&error, words);
            assert!(!error.to_string().contains("evil"), "{error}");
        }
        assert!(tokens.current().is_none() && tokens.current_header().is_none());
        assert_eq!(api.counts().requests, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuers_token_that_fits_no_header_is_not_sent() {
    for access_token in [
        json!("test\nabc"),
        json!("test-\u{e9}"),
        json!(""),
        json!(7),
        json!(null),
        json!(["a"]),
    ] {
        let issuer = Issuer::new();
        issuer.fault_always(Some(Fault::rewrite(json!({ "access_token": access_token }))));
        let api = Api::new(&issuer);
        let tokens = tokens(refresh_grant(&issuer).if_lost(IfLost::NeverReplay));
        let error = ours(&call(&client(&tokens, &api), "/api").await);
        says(
            &error,
            &[
                "malformed answer from login.example.com",
                "access_token is not a string of visible ASCII",
            ],
        );
        assert_eq!((api.counts().requests, issuer.counts().token_requests), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_type_is_not_sent() {
    let issuer = Issuer::new();
    issuer.fault_always(Some(Fault::rewrite(json!({ "token_type": "mac" }))));
    let api = Api::new(&issuer);
    let error = ours(&call(&client(&tokens(refresh_grant(&issuer)), &api), "/api").await);
    assert!(error.is_config());
    says(&error, &["a type other than Bearer"]);
    assert_eq!(api.counts().requests, 0);
}

// ===== URLs =====

#[test]
fn a_token_url_that_cannot_work_is_refused_with_what_to_write() {
    const FULL: &str = "write a full URL, https://login.example.com/token";
    for (url, words) in [
        ("", &["token_url", FULL][..]),
        ("/token", &["token_url", FULL]),
        ("login.example.com/token", &["token_url", FULL]),
        ("login.example.com", &["token_url", FULL]),
        ("https://", &["token_url", FULL]),
        ("https:///token", &["token_url", FULL]),
        ("https://:443/token", &["token_url", FULL]),
        ("https://a b/token", &["token_url", FULL]),
        ("https://b\u{fc}cher.example/token", &["token_url", FULL]),
        (
            "http://login.example.com/token",
            &["token_url", "https://", "plain http would show the credentials"],
        ),
        ("http://127.0.0.1.evil.example/token", &["token_url", "plain http"]),
        ("http://localhost.evil.example/token", &["token_url", "plain http"]),
        ("ftp://login.example.com/token", &["token_url", "https://"]),
        (
            "https://me:test-canary@login.example.com/token",
            &["token_url", "user name or password", "client_secret"],
        ),
        ("https://login.example.com/token#here", &["token_url", "fragment"]),
    ] {
        refused(
            RefreshTokenGrant::new(url, "my-app").refresh_token("test-refresh"),
            words,
        );
        refused(
            ClientCredentialsGrant::new(url, "my-app").client_secret("test-secret"),
            words,
        );
        let error = Tokens::new(RefreshTokenGrant::new(url, "my-app")).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    for url in [
        "https://login.example.com/token?tenant=1",
        "http://127.0.0.1:1/token",
        "http://[::1]:1/token",
    ] {
        Tokens::new(RefreshTokenGrant::new(url, "my-app").client(token_client(&Issuer::new()))).unwrap();
    }
}

#[test]
fn an_origin_that_cannot_work_is_refused_with_what_to_write() {
    for (origin, words) in [
        (
            "http://api.example.com",
            &["plain http, where anyone can read the token"][..],
        ),
        ("http://127.0.0.1.evil.example", &["plain http"]),
        ("api.example.com", &["no scheme or no host"]),
        ("/api", &["no scheme or no host"]),
        ("https://", &["is no URL"]),
        ("https://api.example.com/v1", &["path or a query", "whole origin"]),
        ("https://*.example.com", &["wildcard", "one origin for each host"]),
        ("https://me@api.example.com", &["names a user"]),
        ("https://b\u{fc}cher.example", &["punycode"]),
        ("https://api.example.com:0", &["port 0"]),
        ("https://api.example.com:", &["port"]),
        ("https://api.example.com:99999", &["write scheme, host and port"]),
        ("ftp://api.example.com", &["neither https nor http"]),
        ("", &["write scheme, host and port"]),
    ] {
        for error in [
            Origins::only(origin).unwrap_err(),
            Origins::connected_peer().and(origin).unwrap_err(),
        ] {
            assert!(error.is_config());
            says(
                &error,
                &["invalid configuration: origins", "as in https://api.example.com"],
            );
            says(&error, words);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_host_is_refused_under_a_list() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    for (uri, host) in [("/api", None), ("/api", Some("api.example.com")), ("*", None)] {
        let mut request = Request::options(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let outcome = client.clone().oneshot(request.body(String::new()).unwrap()).await;
        says(
            &ours(&outcome),
            &["names no host", "write a full URL", "Origins::connected_peer()"],
        );
    }
    assert_eq!((api.counts().requests, issuer.counts().token_requests), (0, 0));
}

// ===== Presentations =====

async fn unpresentable<I: Inject>(inject: I, words: &[&str]) {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(client_credentials(&issuer));
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .inject(inject)
        .layer(api.service());
    for _ in 0..3 {
        let outcome = client.clone().oneshot(get("/api", 1)).await;
        let error = ours(&outcome);
        assert!(error.is_config(), "{error}");
        says(&error, words);
    }
    assert_eq!((api.counts().requests, issuer.counts().token_requests), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_presentation_that_cannot_work_is_an_error_at_the_first_request() {
    let scheme = &["authorization.scheme", "RFC 9110 token", "as in Bearer"];
    for bad in ["", "Bear er", "Bearer:", "Bearer\n", "B\u{e9}arer", "\"Bearer\""] {
        unpresentable(Authorization::new().scheme(bad), scheme).await;
    }
    for bad in ["", "a b", "a=b", "a;b", "a\n", "\u{e9}"] {
        unpresentable(Cookie::new(bad), &["cookie.name", "RFC 9110 token"]).await;
    }
    unpresentable(Query::new(""), &["query.name", "is empty"]).await;
    let header = || Header::new(HeaderName::from_static("x-test-token"));
    for bad in ["Token\n", "T\u{e9}ken ", "\0"] {
        unpresentable(header().prefix(bad), &["does not fit into a header"]).await;
    }
    // Odd, and yet they can be written.
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(client_credentials(&issuer));
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .inject(Query::new("a b&c=\u{e9}#"))
        .layer(api.service());
    let outcome = client.oneshot(get("/api?x=1", 1)).await;
    assert_eq!(
        status(&outcome),
        Some(401),
        "sent, under a name that this API does not know"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_fits_no_cookie_or_url_is_an_error_that_names_another_way() {
    let api = Api::new(&Issuer::new());
    let of = |secret: String| {
        tokens(provider_fn(move |_| {
            std::future::ready(Ok(Token::bearer(secret.clone())))
        }))
    };
    let origins = Origins::only(API).unwrap();
    let client = TokenLayer::new(&of("test;abc".into()), origins.clone())
        .inject(Cookie::new("session"))
        .layer(api.service());
    says(
        &ours(&client.oneshot(get("/api", 1)).await),
        &["cookie.token", "present it as a header"],
    );
    let client = TokenLayer::new(&of("a".repeat(70_000)), origins)
        .inject(Query::new("access_token"))
        .layer(api.service());
    says(
        &ours(&client.oneshot(get("/api", 1)).await),
        &["query.token", "present it as a header"],
    );
    assert_eq!(api.counts().requests, 0);
}

// ===== Grants =====

#[test]
fn every_wrong_field_of_a_grant_is_named_at_once() {
    let grant = RefreshTokenGrant::new("http://login.example.com/token", "")
        .client_secret("test-canary\n")
        .refresh_token("test-canary\n")
        .scope("read\nwrite")
        .resource("no uri")
        .extra("", "x")
        .extra("scope", "x")
        .extra("twice", "x")
        .extra("twice", "y");
    let fields = [
        "token_url",
        "client_id",
        "client_secret",
        "refresh_token",
        "scope",
        "resource",
        "extra",
    ];
    refused(grant.clone(), &fields);
    refused(grant.clone(), &["trim it", "use its own method", "twice"]);
    let error = Tokens::new(grant).unwrap_err().to_string();
    assert!(!error.contains("canary"), "{error}");
}

/// As of a grant, for each of the vendors' strategies: what a file ends with is no part of a secret.
#[cfg(all(feature = "alibaba", feature = "tencent", feature = "huawei"))]
#[test]
fn a_newline_at_the_end_of_a_vendors_secret_is_named() {
    use tower_token::{alibaba, huawei, tencent};

    let one_access = || huawei::OneAccess::new("https://a.example.com", "my-app");
    refused(
        one_access().client_secret("test-canary\n"),
        &["client_secret", "trim it"],
    );
    refused(
        huawei::Tenant::new("https://a.example.com", "my-app").client_secret("test-canary\n"),
        &["client_secret", "trim it"],
    );
    refused(
        tencent::SmhLibrary::new("https://a.example.com", "l").library_secret("test-canary\r\n"),
        &["library_secret", "trim it"],
    );
    refused(
        alibaba::WuyingLogin::new("cn-hangzhou", "c", "alice").keep_alive_token("test-canary\n"),
        &["keep_alive_token", "trim it"],
    );
}

#[test]
fn an_empty_secret_is_named() {
    let url = TOKEN_URL;
    refused(
        RefreshTokenGrant::new(url, "my-app").refresh_token(""),
        &["refresh_token", "empty"],
    );
    refused(
        ClientCredentialsGrant::new(url, "my-app").client_secret(""),
        &["client_secret", "empty"],
    );
    let basic = ClientCredentialsGrant::new(url, "my-app").client_auth(ClientAuth::Basic);
    refused(basic, &["client_secret", "is missing"]);
    let none = ClientCredentialsGrant::new(url, "my-app")
        .client_secret("test-secret")
        .client_auth(ClientAuth::None);
    refused(none, &["client_auth", "leave one of them out"]);
}

#[tokio::test(start_paused = true)]
async fn a_grant_without_a_refresh_token_asks_for_one_to_be_installed() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let grant = RefreshTokenGrant::new(TOKEN_URL, issuer.client_id())
        .client_secret(issuer.client_secret())
        .client(token_client(&issuer));
    let tokens = tokens(grant);
    let client = client(&tokens, &api);
    says(
        &ours(&call(&client, "/api").await),
        &["there is no refresh token yet", "Tokens::install"],
    );
    for odd in [
        json!({ "refresh_token": "" }),
        json!({ "refresh_token": 7 }),
        json!({ "refresh_token": null }),
    ] {
        let error = tokens.install(odd).unwrap_err();
        assert!(error.is_config());
        says(&error, &["holds no refresh token", "write {"]);
    }
    assert_eq!((issuer.counts().token_requests, api.counts().requests), (0, 0));
    tokens.install(json!({ "refresh_token": issuer.sign_in() })).unwrap();
    assert_eq!(status(&call(&client, "/api").await), Some(200));
}

// ===== Policies =====

#[test]
fn a_policy_that_cannot_work_is_named_field_by_field() {
    let wrong = |policy: RefreshPolicy, words: &[&str]| {
        let error = Tokens::builder(Fixed::new("test-abc"))
            .policy(policy)
            .build()
            .unwrap_err();
        assert!(error.is_config());
        says(&error, words);
    };
    let default = RefreshPolicy::default;
    for jitter in [-0.1, 0.51, 10.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        wrong(default().jitter(jitter), &["policy.jitter", "from 0.0 to 0.5"]);
    }
    wrong(
        default().assumed_life(Duration::ZERO),
        &["policy.assumed_life", "above zero"],
    );
    wrong(
        default().fetch_timeout(Duration::ZERO),
        &["policy.fetch_timeout", "above zero"],
    );
    wrong(default().max_waiters(0), &["policy.max_waiters", "at least 1"]);
    let all = default()
        .jitter(2.0)
        .assumed_life(Duration::ZERO)
        .fetch_timeout(Duration::ZERO)
        .max_waiters(0);
    wrong(
        all,
        &[
            "policy.jitter",
            "policy.assumed_life",
            "policy.fetch_timeout",
            "policy.max_waiters",
        ],
    );
}

#[test]
fn a_wrong_grant_and_a_wrong_policy_are_named_in_one_error() {
    let error = Tokens::builder(Fixed::new(""))
        .policy(RefreshPolicy::default().max_waiters(0))
        .build()
        .unwrap_err();
    says(&error, &["fixed: the token is empty", "; policy.max_waiters"]);
}

#[tokio::test(start_paused = true)]
async fn the_longest_and_shortest_durations_panic_nowhere() {
    let longest = policy()
        .refresh_before(Duration::MAX)
        .require_before(Duration::MAX)
        .assumed_life(Duration::MAX)
        .fetch_timeout(Duration::MAX)
        .min_interval(Duration::MAX)
        .static_stability(Duration::MAX)
        .max_waiters(usize::MAX);
    let nanosecond = Duration::from_nanos(1);
    let shortest = policy()
        .refresh_before(Duration::ZERO)
        .require_before(Duration::ZERO)
        .min_interval(Duration::ZERO)
        .assumed_life(nanosecond);
    for policy in [longest, shortest] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let tokens = builder(refresh_grant(&issuer)).policy(policy).build().unwrap();
        let client = client(&tokens, &api);
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        issuer.revoke_access();
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        issuer.fault_always(Some(Fault::without(["expires_in"])));
        tokio::time::sleep(MINUTE).await;
        let _ = call(&client, "/api").await;
        issuer.fault_always(Some(Fault::DropBefore));
        tokio::time::sleep(MINUTE).await;
        let _ = call(&client, "/api").await;
        assert!(tokens.status().fetches > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn lives_of_every_length_panic_nowhere() {
    for life in [
        json!(0),
        json!(1e300),
        json!(u64::MAX),
        json!("18446744073709551616"),
        json!(0.4),
        json!(1),
        json!(""),
    ] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        issuer.expires_in(Some(life.clone()));
        let tokens = tokens(refresh_grant(&issuer));
        assert_eq!(status(&call(&client(&tokens, &api), "/api").await), Some(200), "{life}");
        let lives = tokens.status().expires_in.unwrap();
        assert!(lives <= 365 * 24 * 60 * MINUTE, "{life}: {lives:?}");
        assert_eq!(issuer.counts().presented_twice, 0);
    }
}
