//! HashiCorp Vault: login by AppRole, renewal of a token with itself.

use std::collections::HashMap;
use std::time::Duration;

use http::Response;
use serde_json::json;
use tower_token::Class;

use super::double::*;

const SECRETS: &[(&str, &str)] = &[("VAULT_ROLE_ID", "test-role"), ("VAULT_SECRET_ID", "test-secret-id")];
const LOGIN: &str = "/v1/auth/approle/login";
const RENEW: &str = "/v1/auth/token/renew-self";
const SECRET: &str = "https://vault.example.com:8200/v1/secret/data/x";

fn errors(status: u16, text: &str) -> Response<String> {
    answer(status, json!({ "errors": [text] }))
}

const INVALID: &str = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n";

/// Tokens live for an hour, and for three at most, however often they are renewed.
///
/// Source: developer.hashicorp.com, "AppRole auth method (API)", "Token auth method (API)", "HTTP status codes".
fn vault() -> Double {
    let mut live: HashMap<String, (Duration, Duration)> = HashMap::new();
    Double::new(move |seen| {
        assert_eq!(seen.uri.authority().unwrap(), "vault.example.com:8200");
        let presented = seen.header("x-vault-token").to_owned();
        let auth = |token: &str, life: Duration| {
            let auth = json!({ "client_token": token, "lease_duration": life.as_secs(), "renewable": true });
            answer(
                200,
                json!({ "request_id": "x", "lease_duration": 0, "data": null, "auth": auth }),
            )
        };
        let alive = live.get(&presented).is_some_and(|(dies, _)| seen.at < *dies);
        match seen.uri.path() {
            LOGIN => {
                assert!(presented.is_empty());
                let body = seen.json();
                if body != json!({ "role_id": "test-role", "secret_id": "test-secret-id" }) {
                    return errors(400, "invalid role or secret ID");
                }
                let token = format!("hvs.test-{}", live.len());
                live.insert(token.clone(), (seen.at + 60 * MINUTE, seen.at + 180 * MINUTE));
                auth(&token, 60 * MINUTE)
            }
            RENEW if alive => {
                assert_eq!(seen.json(), json!({}));
                let (dies, most) = live.get_mut(&presented).unwrap();
                *dies = (seen.at + 60 * MINUTE).min(*most);
                auth(&presented, *dies - seen.at)
            }
            _ if alive => answer(200, json!({ "data": { "k": "v" } })),
            _ => errors(403, INVALID),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn vault_renews_its_token_without_traffic_and_is_logged_into_when_it_cannot() {
    let (example, double) = (Example::read("vault", SECRETS), vault());
    let tokens = example.tokens(&double);
    for hour in 0..12 {
        let (status, body) = example.call(&tokens, &double, SECRET).await;
        assert_eq!(
            (status, body.as_str()),
            (200, r#"{"data":{"k":"v"}}"#),
            "in hour {hour}"
        );
        // Longer than a token lives: an idle one is kept alive.
        tokio::time::sleep(61 * MINUTE).await;
    }
    let logins = double.count(LOGIN);
    assert!(
        (4..=6).contains(&logins),
        "{logins} logins in twelve hours, of three hours each"
    );
    assert!(double.count(RENEW) > 2 * logins);
    // The same token all the while: what is renewed is its life.
    let renewed: Vec<_> = double
        .seen()
        .into_iter()
        .filter(|seen| seen.uri.path() == RENEW)
        .collect();
    assert!(
        renewed
            .iter()
            .all(|seen| seen.header("x-vault-token").starts_with("hvs.test-"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_vault_token_that_is_revoked_is_replaced_by_a_login() {
    let (example, double) = (Example::read("vault", SECRETS), vault());
    let tokens = example.tokens(&double);
    example.call(&tokens, &double, SECRET).await;
    double.fault(Fault::Answer(errors(403, INVALID)));
    assert_eq!(example.call(&tokens, &double, SECRET).await.0, 200);
    assert_eq!(
        (double.count(LOGIN), double.count(RENEW)),
        (2, 0),
        "a refused one cannot be renewed"
    );
    // No permission is no reason to log in.
    double.fault(Fault::Answer(errors(
        403,
        "1 error occurred:\n\t* permission denied\n\n",
    )));
    assert_eq!(example.call(&tokens, &double, SECRET).await.0, 403);
    assert_eq!(double.count(LOGIN), 2);
}

#[tokio::test(start_paused = true)]
async fn a_vault_token_that_will_not_be_renewed_is_replaced_within_the_same_flight() {
    let (example, double) = (Example::read("vault", SECRETS), vault());
    let tokens = example.tokens(&double);
    let first = tokens.get().await.unwrap();
    double.fault(Fault::Answer(errors(403, "permission denied")));
    let second = tokens.refresh().await.unwrap();
    assert_ne!(first.secret(), second.secret());
    assert_eq!((double.count(LOGIN), double.count(RENEW)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn each_error_of_vault_has_its_class() {
    let example = Example::read("vault", SECRETS);
    for (status, text, class) in [
        (400, "invalid role or secret ID", Class::Config),
        (400, "missing role_id", Class::Config),
        (400, "something else", Class::Terminal),
        (403, "permission denied", Class::Terminal),
        (404, "no handler for route \"auth/approle/login\"", Class::Config),
        (405, "unsupported operation", Class::Config),
        (412, "required index state not present", Class::Transient),
        (
            429,
            "request path \"auth/approle/login\": rate limit quota exceeded",
            Class::Throttled { retry_after: None },
        ),
        (473, "performance standby", Class::Transient),
        (500, "internal error", Class::Transient),
        (502, "third party", Class::Transient),
        (503, "Vault is sealed", Class::Transient),
    ] {
        assert_eq!(example.class(errors(status, text)).await, class, "{status} {text}");
    }
    let limited = with(errors(429, "rate limit quota exceeded"), "retry-after", 3);
    assert_eq!(
        example.class(limited).await,
        Class::Throttled {
            retry_after: Some(3 * SECOND)
        }
    );
    for malformed in [
        "",
        "{}",
        r#"{"auth":null}"#,
        r#"{"auth":{"client_token":""}}"#,
        r#"{"auth":["hvs.test"]}"#,
    ] {
        assert_eq!(
            example.class(answer(200, malformed)).await,
            Class::Transient,
            "{malformed}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_vault_costs_nothing_while_the_token_lives() {
    let (example, double) = (Example::read("vault", SECRETS), vault());
    let tokens = example.tokens(&double);
    let first = tokens.get().await.unwrap();
    for fault in [Fault::Lost, Fault::Unsent, Fault::Answer(answer(200, "{\"auth\""))] {
        double.fault(fault);
        assert!(tokens.refresh().await.unwrap_err().is_transient());
        assert_eq!(example.call(&tokens, &double, SECRET).await.0, 200);
        tokio::time::sleep(MINUTE).await;
    }
    assert_eq!(tokens.get().await.unwrap().secret(), first.secret());
    assert_eq!(double.count(LOGIN), 1);
}
