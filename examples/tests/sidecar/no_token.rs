//! What a caller is told when there is no token.

use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower_token::testkit::Fault;

use crate::program::{Login, Sidecar, full, get, http1, http2, text};
use crate::upstream::Upstream;

async fn rig() -> (Login, Upstream, Sidecar) {
    let login = Login::new().await;
    let upstream = Upstream::of(&login.issuer).await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app(), "user": login.user() },
        "routes": [
            { "prefix": "/app/", "upstream": upstream.url(), "token": "app" },
            { "prefix": "/user/", "upstream": upstream.url(), "token": "user" },
        ],
    }));
    (login, upstream, sidecar)
}

#[tokio::test]
async fn a_dead_credential_is_told_as_json() {
    let (login, upstream, sidecar) = rig().await;
    login.issuer.revoke_all();
    for _ in 0..2 {
        let (status, body) = sidecar.get("/user/x").await;
        let mut body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(
            body["message"].take().as_str().unwrap().contains("invalid_grant"),
            "{body}"
        );
        let expected = json!({
            "error": "token_unavailable", "class": "terminal", "reauth_required": true, "token": "user", "message": null,
        });
        assert_eq!(body, expected);
    }
    assert_eq!(login.requests(), 1);
    assert!(upstream.take().is_empty());
    let status = sidecar.status("user").await;
    assert_eq!((&status["state"], &status["failures"]), (&json!("terminal"), &json!(1)));
    assert!(status["last_error"].as_str().unwrap().contains("invalid_grant"));
    assert_eq!(status["expires_in_ms"], Value::Null);

    // A new credential ends it.
    let credential = json!({ "refresh_token": login.issuer.sign_in() }).to_string();
    for useless in ["{}", r#"{"refresh_token":5}"#, r#"{"refreshToken":"test-canary"}"#] {
        let (refused, said) = sidecar.admin("POST", "/tokens/user/install", useless).await;
        assert_eq!(refused, StatusCode::BAD_REQUEST);
        assert!(said.contains("refresh_token") && !said.contains("canary"), "{said}");
    }
    let installed = sidecar.admin("POST", "/tokens/user/install", &credential).await;
    assert_eq!(installed, (StatusCode::NO_CONTENT, String::new()));
    assert_eq!(sidecar.get("/user/x").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_grpc_caller_is_told_in_trailers_alone() {
    let (login, _upstream, sidecar) = rig().await;
    login
        .issuer
        .fault_always(Some(Fault::oauth_error(400, "invalid_client")));
    for content_type in ["application/grpc", "application/grpc+proto"] {
        let request = Request::post(sidecar.url("/app/x"))
            .header("content-type", content_type)
            .body(full("test"))
            .unwrap();
        let answer = http2().request(request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert!(
            answer.headers()["grpc-message"]
                .to_str()
                .unwrap()
                .contains("invalid_client")
        );
        assert_eq!(text(answer).await, (StatusCode::OK, String::new()));
    }
}

#[tokio::test]
async fn whoever_is_throttled_is_told_for_how_long_yet() {
    let (login, _upstream, sidecar) = rig().await;
    login.issuer.fault(Fault::RetryAfter {
        status: 429,
        seconds: 3,
    });
    let mut told = Vec::new();
    for pause in [0, 1100] {
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        let answer = http1().request(get(&sidecar.url("/app/x"))).await.unwrap();
        told.push(answer.headers()["retry-after"].to_str().unwrap().to_owned());
        let (status, body) = text(answer).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            (&body["class"], &body["reauth_required"]),
            (&json!("throttled"), &json!(false))
        );
    }
    assert_eq!(told, ["3", "2"]);
    assert_eq!(login.requests(), 1);
}

#[tokio::test]
async fn an_issuer_that_fails_is_told_as_such() {
    let (login, _upstream, sidecar) = rig().await;
    login.issuer.fault_always(Some(Fault::Status(503)));
    let (status, body) = sidecar.get("/app/x").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["class"], "transient");
}

#[tokio::test]
async fn a_refused_request_whose_renewal_fails_gets_its_own_refusal() {
    let (login, upstream, sidecar) = rig().await;
    assert_eq!(sidecar.get("/user/x").await.0, StatusCode::OK);
    login.issuer.revoke_all();
    assert_eq!(sidecar.get("/user/x").await.0, StatusCode::UNAUTHORIZED);
    upstream.take();
    assert_eq!(sidecar.get("/user/x").await.0, StatusCode::BAD_GATEWAY);
    assert!(upstream.take().is_empty());
}

#[tokio::test]
async fn who_comes_when_too_many_wait_is_told_so() {
    let login = Login::new().await;
    login.issuer.fault_always(Some(Fault::Hang));
    let upstream = Upstream::of(&login.issuer).await;
    let mut app = login.app();
    app["policy"] = json!({ "max_waiters": 1 });
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": app },
        "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "app" }],
    }));
    let waiting = tokio::spawn(http1().request(get(&sidecar.url("/x"))));
    crate::program::until("it waits", async || login.requests() == 1).await;
    let (status, body) = sidecar.get("/x").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["class"], "overloaded");
    waiting.abort();
}
