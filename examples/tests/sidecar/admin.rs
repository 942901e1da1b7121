//! The admin port.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::program::{Login, PATIENCE, Sidecar, full, get, http1, http2, text, until};
use crate::upstream::Upstream;

async fn rig() -> (Login, Upstream, Sidecar) {
    let login = Login::new().await;
    let upstream = Upstream::of(&login.issuer).await;
    let mut shown = login.app();
    shown["expose"] = true.into();
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app(), "a b/c": shown },
        "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "app" }],
    }));
    (login, upstream, sidecar)
}

#[tokio::test]
async fn it_is_ready_before_anything_was_fetched() {
    let (login, _upstream, sidecar) = rig().await;
    let expected = json!({
        "state": "none", "generation": 0, "expires_in_ms": null, "fetches": 0, "failures": 0, "last_error": null, "replays": 0,
        "undurable": false, "store_error": null,
    });
    assert_eq!(sidecar.status("app").await, expected);
    assert_eq!(
        sidecar.admin("POST", "/tokens/app/invalidate", "").await.0,
        StatusCode::NO_CONTENT
    );
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(login.requests(), 0);
    let answer = http2().request(get(&format!("http://{}/status", sidecar.admin))).await;
    assert_eq!(answer.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_token_is_refreshed_invalidated_and_shown() {
    let (login, _upstream, sidecar) = rig().await;
    let first = sidecar.admin("POST", "/tokens/app/refresh", "").await;
    assert_eq!(first, (StatusCode::OK, "{\"generation\":1}\n".into()));
    let second = sidecar.admin("POST", "/tokens/app/refresh", "").await;
    assert_eq!(second, (StatusCode::OK, "{\"generation\":2}\n".into()));
    let status = sidecar.status("app").await;
    assert_eq!(
        (&status["state"], &status["generation"], &status["fetches"]),
        (&json!("fresh"), &json!(2), &json!(2))
    );
    assert!(
        (50_000..=60_000).contains(&status["expires_in_ms"].as_u64().unwrap()),
        "{status}"
    );

    assert_eq!(
        sidecar.admin("POST", "/tokens/app/invalidate", "").await.0,
        StatusCode::NO_CONTENT
    );
    until("it is renewed", async || sidecar.status("app").await["generation"] == 3).await;
    assert_eq!(login.requests(), 3);

    let (status, body) = sidecar.admin("GET", "/tokens/a%20b%2Fc/current", "").await;
    assert_eq!(status, StatusCode::OK);
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert!(login.issuer.is_alive(shown["token"].as_str().unwrap()));
    assert!(
        (50_000..=60_000).contains(&shown["timeout_ms"].as_u64().unwrap()),
        "{shown}"
    );
    assert_eq!(shown.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_done_is_told_by_its_status() {
    let (login, _upstream, sidecar) = rig().await;
    let large = format!("{{\"refresh_token\":\"{}\"}}", "x".repeat(70_000));
    for (method, path, body, expected) in [
        ("GET", "/tokens/app/current", "", 403),
        ("GET", "/tokens/nobody/current", "", 404),
        ("POST", "/tokens/nobody/refresh", "", 404),
        ("POST", "/tokens/%ff/refresh", "", 404),
        ("POST", "/tokens/%2/refresh", "", 404),
        ("POST", "/tokens/app/renew", "", 404),
        ("GET", "/tokens/app", "", 404),
        ("GET", "/", "", 404),
        ("POST", "/status", "", 405),
        ("DELETE", "/metrics", "", 405),
        ("POST", "/events", "", 405),
        ("GET", "/tokens/app/refresh", "", 405),
        ("GET", "/tokens/app/invalidate", "", 405),
        ("PUT", "/tokens/app/install", "{}", 405),
        ("POST", "/tokens/a%20b%2Fc/current", "", 405),
        ("POST", "/tokens/app/install", "", 400),
        ("POST", "/tokens/app/install", "{\"refresh_token\":\"test-canary", 400),
        ("POST", "/tokens/app/install", "\"test-canary\"", 400),
        ("POST", "/tokens/app/install", &large, 413),
    ] {
        let (status, answer) = sidecar.admin(method, path, body).await;
        assert_eq!(status.as_u16(), expected, "{method} {path}: {answer}");
        assert!(!answer.contains("canary"), "{answer}");
        assert!(serde_json::from_str::<Value>(&answer).unwrap()["error"].is_string());
    }
    let page = Request::post(format!("http://{}/tokens/app/install", sidecar.admin))
        .header("origin", "https://evil.example")
        .body(full("{}"))
        .unwrap();
    assert_eq!(http1().request(page).await.unwrap().status(), StatusCode::FORBIDDEN);
    let rebound = Request::get(format!("http://{}/tokens/a%20b%2Fc/current", sidecar.admin))
        .header("host", "evil.example")
        .body(full(""))
        .unwrap();
    assert_eq!(http1().request(rebound).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(login.requests(), 0);
}

#[tokio::test]
async fn metrics_are_prometheus() {
    let (_login, _upstream, sidecar) = rig().await;
    assert_eq!(sidecar.get("/x").await.0, StatusCode::OK);
    let answer = http1()
        .request(get(&format!("http://{}/metrics", sidecar.admin)))
        .await
        .unwrap();
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    let (_, text) = text(answer).await;
    for line in [
        "# TYPE tower_token_fetches_total counter",
        "tower_token_fetches_total{token=\"app\"} 1",
        "tower_token_failures_total{token=\"app\"} 0",
        "tower_token_generation{token=\"app\"} 1",
        "tower_token_state{token=\"app\",state=\"fresh\"} 1",
        "tower_token_state{token=\"a b/c\",state=\"none\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("expires_in_seconds{token=\"a b/c\"}"));
    for line in text.lines() {
        let named = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "))
            .unwrap_or(line);
        assert!(named.starts_with("tower_token_"), "{line}");
    }
}

/// The next line but for those of callers who waited: they are woken first, and say so whenever they wake.
async fn line(body: &mut Incoming) -> Value {
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("it hangs");
        let line: Bytes = frame.unwrap().unwrap().into_data().unwrap();
        assert!(line.ends_with(b"\n"));
        let event: Value = serde_json::from_slice(&line).unwrap();
        if event["event"] != "waited" {
            return event;
        }
    }
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let (login, _upstream, sidecar) = rig().await;
    let answer = http1()
        .request(get(&format!("http://{}/events", sidecar.admin)))
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let mut events = answer.into_body();
    assert_eq!(sidecar.get("/x").await.0, StatusCode::OK);
    login.issuer.revoke_access();
    assert_eq!(sidecar.get("/x").await.0, StatusCode::OK);
    let mut told = Vec::new();
    while told.len() < 6 {
        let event = line(&mut events).await;
        assert_eq!(event["token"], "app");
        let at = event["at"].as_str().unwrap();
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        told.push(event["event"].as_str().unwrap().to_owned());
    }
    // Whoever waits is woken before it is told: the replay may be faster than the news.
    told[4..].sort();
    let expected = [
        "fetch_began",
        "renewed",
        "refused",
        "fetch_began",
        "renewed",
        "replayed",
    ];
    assert_eq!(told, expected);
    login.issuer.revoke_all();
    login
        .issuer
        .fault(tower_token::testkit::Fault::oauth_error(400, "invalid_client"));
    assert_eq!(
        sidecar.admin("POST", "/tokens/app/refresh", "").await.0,
        StatusCode::BAD_GATEWAY
    );
    assert_eq!(line(&mut events).await["event"], "fetch_began");
    let failed = line(&mut events).await;
    assert_eq!(
        (&failed["event"], &failed["class"]),
        (&json!("fetch_failed"), &json!("config"))
    );
}

#[tokio::test]
async fn a_reader_that_is_too_slow_loses_lines_and_is_told_how_many() {
    let login = Login::new().await;
    let upstream = Upstream::of(&login.issuer).await;
    // Long lines, so that few of them fill what lies between.
    let name = "a".repeat(4096);
    let sidecar = Sidecar::start(&json!({
        "tokens": { name.as_str(): login.app() },
        "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": name }],
    }));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut reader = socket.connect(sidecar.admin.parse().unwrap()).await.unwrap();
    reader
        .write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    // Its head is there, so it listens.
    reader.readable().await.unwrap();
    let client = http2();
    let mut callers = JoinSet::new();
    for _ in 0..2500 {
        let mut request = get(&sidecar.url("/x"));
        request
            .headers_mut()
            .insert("authorization", "Basic dGVzdA==".parse().unwrap());
        callers.spawn(client.request(request));
    }
    let answers = callers.join_all().await;
    assert!(answers.iter().all(|answer| {
        answer
            .as_ref()
            .is_ok_and(|answer| answer.status() == StatusCode::UNAUTHORIZED)
    }));
    let mut read = Vec::new();
    let lagged = loop {
        let more = tokio::time::timeout(PATIENCE, reader.read_buf(&mut read))
            .await
            .expect("it hangs");
        assert!(more.unwrap() > 0);
        let text = String::from_utf8_lossy(&read);
        let told = text
            .lines()
            .find(|line| line.contains("lagged") && line.ends_with('}'))
            .map(str::to_owned);
        if let Some(told) = told {
            break told;
        }
    };
    let lagged: Value = serde_json::from_str(&lagged).unwrap();
    assert!(lagged["missed"].as_u64().unwrap() > 0);
}
