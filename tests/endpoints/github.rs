//! A GitHub App's installation token: a JWT for a token that says when it dies.

use std::time::SystemTime;

use serde_json::json;
use tower_token::Class;

use super::double::*;

const SECRETS: &[(&str, &str)] = &[("GITHUB_APP_JWT", "eyJtest.eyJtest.test-signature")];
const API: &str = "https://api.github.com/installation/repositories";
const TOKEN: &str = "/app/installations";

fn rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // The civil date of a day: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Tokens live for an hour; a new one does not end the last.
///
/// Source: docs.github.com, "Create an installation access token for an app", "Generating an installation
/// access token", "Getting started with the REST API" (a request has a user agent).
fn github() -> Double {
    let mut live = Vec::new();
    Double::new(move |seen| {
        assert!(!seen.header("user-agent").is_empty());
        if !seen.uri.path().starts_with(TOKEN) {
            let good =
                |token: &String, dies: &_| seen.header("authorization") == format!("Bearer {token}") && seen.at < *dies;
            return match live.iter().any(|(token, dies)| good(token, dies)) {
                true => answer(200, json!({ "total_count": 1 })),
                false => answer(401, json!({ "message": "Bad credentials" })),
            };
        }
        assert_eq!(seen.method, "POST");
        assert_eq!(seen.uri.path(), "/app/installations/12345678/access_tokens");
        assert_eq!(seen.header("accept"), "application/vnd.github+json");
        assert_eq!(seen.header("x-github-api-version"), "2022-11-28");
        assert_eq!(seen.header("authorization"), "Bearer eyJtest.eyJtest.test-signature");
        assert_eq!(seen.json(), json!({ "permissions": { "contents": "read" } }));
        let token = format!("ghs_test{}", live.len());
        live.push((token.clone(), seen.at + 60 * MINUTE));
        let expires_at = rfc3339(seen.time + 60 * MINUTE);
        answer(
            201,
            json!({ "token": token, "expires_at": expires_at, "permissions": { "contents": "read" } }),
        )
    })
}

#[tokio::test(start_paused = true)]
async fn github_is_asked_once_for_each_token_and_no_request_fails() {
    let (example, double) = (Example::read("github_app", SECRETS), github());
    let tokens = example.tokens(&double);
    for _ in 0..100 {
        assert_eq!(call(&example, &tokens, &double).await, 200);
        tokio::time::sleep(6 * MINUTE).await;
    }
    // Ten hours; each token is renewed a quarter of an hour before its end.
    let asked = double.count(TOKEN);
    assert!((12..=15).contains(&asked), "{asked}");
}

/// The layer leaves other headers alone, so that the caller names itself.
async fn call(example: &Example, tokens: &tower_token::Tokens, double: &Double) -> u16 {
    use bytes::Bytes;
    use http_body_util::Full;
    use tower::{Layer, ServiceExt};
    let layer = tower_token::TokenLayer::new(tokens, example.config.origins("").unwrap())
        .inject(example.config.injection("").unwrap())
        .classify(example.config.refusal("").unwrap());
    let request = http::Request::get(API).header("user-agent", "my-app");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    layer
        .layer(double.service())
        .oneshot(request)
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_github_token_that_is_revoked_is_replaced_once() {
    let (example, double) = (Example::read("github_app", SECRETS), github());
    let tokens = example.tokens(&double);
    assert_eq!(call(&example, &tokens, &double).await, 200);
    double.fault(Fault::Answer(answer(401, json!({ "message": "Bad credentials" }))));
    assert_eq!(call(&example, &tokens, &double).await, 200);
    assert_eq!(double.count(TOKEN), 2);
    // Neither a limit nor a missing permission is a refusal.
    for message in [
        "API rate limit exceeded for installation ID 1.",
        "Resource not accessible by integration",
    ] {
        double.fault(Fault::Answer(answer(403, json!({ "message": message }))));
        assert_eq!(call(&example, &tokens, &double).await, 403);
    }
    assert_eq!(double.count(TOKEN), 2);
}

#[tokio::test(start_paused = true)]
async fn each_error_of_github_has_its_class() {
    let example = Example::read("github_app", SECRETS);
    let throttled = Class::Throttled { retry_after: None };
    for (status, message, class) in [
        (401, "Bad credentials", Class::Config),
        (
            401,
            "'Expiration time' claim ('exp') is too far in the future",
            Class::Config,
        ),
        (403, "This installation has been suspended", Class::NeedsInteraction),
        (403, "Resource not accessible by integration", Class::Terminal),
        (403, "API rate limit exceeded for user ID 1.", throttled),
        (
            429,
            "You have exceeded a secondary rate limit. Please wait a few minutes",
            throttled,
        ),
        (
            403,
            "You have exceeded a secondary rate limit. Please wait a few minutes",
            throttled,
        ),
        (404, "Not Found", Class::Config),
        (
            422,
            "The permissions requested are not granted to this installation.",
            Class::Config,
        ),
        (500, "Server Error", Class::Transient),
        (503, "Service Unavailable", Class::Transient),
    ] {
        let body = json!({ "message": message, "documentation_url": "https://docs.github.com/rest" });
        assert_eq!(example.class(answer(status, body)).await, class, "{status} {message}");
    }
    let limited = with(
        answer(403, json!({ "message": "You have exceeded a secondary rate limit." })),
        "retry-after",
        60,
    );
    assert_eq!(
        example.class(limited).await,
        Class::Throttled {
            retry_after: Some(MINUTE)
        }
    );
    for (body, name) in [
        (json!({ "token": "ghs_test" , "expires_at": "tomorrow" }), "no time"),
        (
            json!({ "token": "ghs_test", "expires_at": "2026-11-21T10:17:45" }),
            "no offset",
        ),
        (json!({ "expires_at": "2026-11-21T10:17:45Z" }), "no token"),
        (json!({ "token": ["ghs_test"] }), "a list"),
    ] {
        assert_eq!(example.class(answer(201, body)).await, Class::Transient, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_github_is_asked_for_again() {
    let (example, double) = (Example::read("github_app", SECRETS), github());
    let tokens = example.tokens(&double);
    double.fault(Fault::Lost);
    // The first error may be told; the next try is a second later.
    let _ = tokens.get().await;
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(tokens.get().await.unwrap().secret(), "ghs_test1");
}
