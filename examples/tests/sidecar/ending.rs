//! SIGTERM.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower_token::BoxError;
use tower_token::testkit::Fault;

use crate::program::{Login, Sidecar, get, http1, http2, text, until};
use crate::upstream::{Upstream, serve};

#[tokio::test]
async fn a_fetch_in_the_air_lands_and_its_callers_are_answered() {
    let login = Login::new().await;
    login.issuer.latency(Duration::from_millis(600));
    let upstream = Upstream::of(&login.issuer).await;
    let mut user = login.user();
    user["policy"] = json!({ "fetch_timeout": "5s" });
    let mut sidecar = Sidecar::start(&json!({
        "tokens": { "user": user },
        "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "user" }],
    }));
    let events = http1()
        .request(get(&format!("http://{}/events", sidecar.admin)))
        .await
        .unwrap();
    let (kept, kept2) = (http1(), http2());
    let waiting = tokio::spawn(kept.request(get(&sidecar.url("/x"))));
    let waiting2 = tokio::spawn(kept2.request(get(&sidecar.url("/x"))));
    until("the fetch begins", async || login.requests() == 1).await;
    sidecar.signal("-TERM");
    until("it says so", async || sidecar.said().contains("ending")).await;
    // On new connections, on kept ones, and on the other port.
    for client in [http1(), http2(), kept2] {
        let answer = client.request(get(&sidecar.url("/x"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let (status, body) = sidecar.admin("GET", "/status", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("\"ready\":false"), "{body}");
    for waiting in [waiting, waiting2] {
        assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    let (status, took) = sidecar.ended().await;
    assert!(status.success() && took < Duration::from_secs(1), "{status} {took:?}");
    let (_, events) = text(events).await;
    assert!(events.contains("\"event\":\"renewed\""), "{events}");
    assert_eq!(login.requests(), 1);
}

#[tokio::test]
async fn it_ends_at_once_if_nothing_runs() {
    for signal in ["-TERM", "-INT"] {
        let login = Login::new().await;
        let mut sidecar = Sidecar::start(&json!({ "tokens": { "app": login.app() } }));
        // A kept connection and a reader of events are nothing that runs.
        let client = http1();
        let answer = client.request(get(&sidecar.url("/x"))).await.unwrap();
        assert_eq!(text(answer).await.0, StatusCode::NOT_FOUND);
        let events = client
            .request(get(&format!("http://{}/events", sidecar.admin)))
            .await
            .unwrap();
        // Nor is a request that is never sent to its end, nor a connection without one.
        let mut begun = TcpStream::connect(&sidecar.admin).await.unwrap();
        begun.write_all(b"GET /status HTT").await.unwrap();
        let _silent = TcpStream::connect(&sidecar.proxy).await.unwrap();
        sidecar.signal(signal);
        let (status, took) = sidecar.ended().await;
        assert!(
            status.success() && took < Duration::from_millis(900),
            "{status} {took:?}"
        );
        let (_, last) = text(events).await;
        assert!(last.lines().all(|line| line.contains("\"shut_down\"")), "{last}");
    }
}

#[tokio::test]
async fn what_runs_ends_and_what_does_not_end_is_cut_off() {
    let login = Login::new().await;
    let at = serve(|request| {
        Box::pin(async move {
            let (mut sender, body) = Channel::<Bytes, BoxError>::new(1);
            let is_endless = request.uri().path() == "/endless";
            tokio::spawn(async move {
                for _ in 0..10 {
                    let _ = sender.send_data(Bytes::from_static(b"tick")).await;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                if is_endless {
                    std::future::pending::<()>().await;
                }
            });
            Response::new(body.boxed_unsync())
        })
    })
    .await;
    let mut app = login.app();
    app["policy"] = json!({ "fetch_timeout": "1s" });
    for (path, shortest, longest) in [("/short", 50, 900), ("/endless", 1200, 2000)] {
        let mut sidecar = Sidecar::start(&json!({
            "tokens": { "app": app },
            "routes": [{ "prefix": "/", "upstream": format!("http://{at}/"), "token": "app" }],
        }));
        let running = http1().request(get(&sidecar.url(path))).await.unwrap();
        sidecar.signal("-TERM");
        let (status, took) = sidecar.ended().await;
        let range = Duration::from_millis(shortest)..Duration::from_millis(longest);
        assert!(status.success() && range.contains(&took), "{path}: {status} {took:?}");
        let whole = running.into_body().collect().await;
        assert_eq!(
            whole.map(|body| body.to_bytes().len()).ok(),
            (path == "/short").then_some(40)
        );
    }
}

#[tokio::test]
async fn a_fetch_that_hangs_ends_with_its_timeout() {
    let login = Login::new().await;
    login.issuer.fault_always(Some(Fault::Hang));
    let mut app = login.app();
    app["policy"] = json!({ "fetch_timeout": "1s" });
    let mut sidecar = Sidecar::start(&json!({
        "tokens": { "app": app },
        "routes": [{ "prefix": "/", "upstream": "http://127.0.0.1:1/", "token": "app" }],
    }));
    let waiting = tokio::spawn(http1().request(get(&sidecar.url("/x"))));
    until("the fetch begins", async || login.requests() == 1).await;
    sidecar.signal("-TERM");
    let (status, took) = sidecar.ended().await;
    assert!(status.success() && took < Duration::from_secs(2), "{status} {took:?}");
    let answer = waiting.await.unwrap().expect("an answer");
    assert!(matches!(answer.status().as_u16(), 502 | 503));
    assert_eq!(login.requests(), 1);
}

/// `Instant::now() + fetch_timeout` overflows.
#[tokio::test]
async fn an_endless_fetch_timeout_does_not_end_in_a_panic() {
    let login = Login::new().await;
    let mut app = login.app();
    app["policy"] = json!({ "fetch_timeout": "2562047788015215h" });
    let mut sidecar = Sidecar::start(&json!({ "tokens": { "app": app } }));
    sidecar.signal("-TERM");
    let (status, _) = sidecar.ended().await;
    assert!(status.success(), "{status}: {}", sidecar.said());
}
