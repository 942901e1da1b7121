//! Requests that are sent again, and those that are not.

use http::{Request, StatusCode};
use serde_json::json;

use crate::program::{Login, Sidecar, full, get, http1, http2, text};
use crate::upstream::{Upstream, status};

#[tokio::test]
async fn what_fits_the_limit_is_sent_again_and_one_byte_more_is_not() {
    let login = Login::new().await;
    let upstream = Upstream::of(&login.issuer).await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [
            { "prefix": "/default/", "upstream": upstream.url(), "token": "app" },
            { "prefix": "/h2c/", "upstream": upstream.url(), "token": "app", "protocol": "h2c", "replay_limit": 65536 },
            { "prefix": "/none/", "upstream": upstream.url(), "token": "app", "replay_limit": 0 },
        ],
    }));
    let post = |path: &str, size: usize| {
        let body = (0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>();
        Request::post(sidecar.url(path)).body(full(body)).unwrap()
    };
    assert_eq!(sidecar.get("/default/x").await.0, StatusCode::OK);
    for (client, path, size, expected) in [
        (http1(), "/default/x", 65_536, StatusCode::OK),
        (http1(), "/default/x", 65_537, StatusCode::UNAUTHORIZED),
        (http2(), "/h2c/x", 65_536, StatusCode::OK),
        (http2(), "/h2c/x", 65_537, StatusCode::UNAUTHORIZED),
        (http1(), "/none/x", 0, StatusCode::OK),
        (http1(), "/none/x", 1, StatusCode::UNAUTHORIZED),
    ] {
        login.issuer.revoke_access();
        let before = login.requests();
        upstream.take();
        let answer = client.request(post(path, size)).await.unwrap();
        assert_eq!(answer.status(), expected, "{path} {size}");
        let seen = upstream.take();
        assert_eq!(
            seen.len(),
            if expected == StatusCode::OK { 2 } else { 1 },
            "{path} {size}"
        );
        assert!(seen.iter().all(|seen| seen.body.len() == size), "{path} {size}");
        // The next one has a new token, whatever became of this one.
        assert_eq!(client.request(post(path, size)).await.unwrap().status(), StatusCode::OK);
        assert_eq!(login.requests(), before + 1, "{path} {size}");
    }
    assert_eq!(sidecar.status("app").await["replays"], 3);
}

#[tokio::test]
async fn a_call_that_grpc_refuses_is_made_again() {
    let login = Login::new().await;
    let issuer = login.issuer.clone();
    let upstream = Upstream::new(move |seen| {
        let token = seen
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let code = if token.is_some_and(|token| issuer.is_alive(token)) {
            "0"
        } else {
            "16"
        };
        let mut answer = status(StatusCode::OK);
        answer
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        answer.headers_mut().insert("grpc-status", code.parse().unwrap());
        answer
    })
    .await;
    let mut user = login.user();
    user["refuse"] = json!([{ "grpc": true }, { "status": [401] }]);
    let sidecar = Sidecar::start(&json!({
        "tokens": { "user": user },
        "routes": [{ "prefix": "/pkg.Service/", "upstream": upstream.url(), "token": "user", "protocol": "h2c", "keep_prefix": true }],
    }));
    for _ in 0..3 {
        let call = Request::post(sidecar.url("/pkg.Service/Call"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(full(&b"\0\0\0\0\x04test"[..]))
            .unwrap();
        let answer = http2().request(call).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "0");
        login.issuer.revoke_access();
    }
    let seen = upstream.take();
    assert_eq!(seen.len(), 5);
    assert!(
        seen.iter()
            .all(|seen| seen.body.ends_with(b"test") && seen.target == "/pkg.Service/Call")
    );
    assert_eq!((login.requests(), login.issuer.counts().presented_twice), (3, 0));
}

#[tokio::test]
async fn a_refusal_in_a_body_is_read_and_another_is_passed_on() {
    let login = Login::new().await;
    let issuer = login.issuer.clone();
    let upstream = Upstream::new(move |seen| {
        let token = seen.target.split_once("key=").map(|(_, token)| token);
        let code = match token.is_some_and(|token| issuer.is_alive(token)) {
            true => "NoPermission",
            false => "InvalidAccessToken",
        };
        let mut answer = status(StatusCode::FORBIDDEN);
        *answer.body_mut() = full(format!("{{\"code\":\"{code}\"}}"));
        answer
    })
    .await;
    let mut app = login.app();
    app["inject"] = json!({ "query": { "name": "key" } });
    app["refuse"] = json!({ "status": [403], "code": "/code", "in": ["InvalidAccessToken"] });
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": app },
        "routes": [{ "prefix": "/api/", "upstream": upstream.url(), "token": "app" }],
    }));
    for _ in 0..2 {
        let mut request = get(&sidecar.url("/api/a%2Fb?x=1&key=mine"));
        request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        let (status, body) = text(http1().request(request).await.unwrap()).await;
        assert_eq!((status, &*body), (StatusCode::FORBIDDEN, "{\"code\":\"NoPermission\"}"));
        login.issuer.revoke_access();
    }
    let seen = upstream.take();
    assert_eq!((seen.len(), login.requests()), (3, 2));
    for seen in seen {
        assert!(seen.target.starts_with("/a%2Fb?x=1&key=") && !seen.target.contains("mine"));
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
    }
}
