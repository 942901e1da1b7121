//! Bodies as they come, trailers, and callers that leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use serde_json::json;
use tokio::sync::mpsc;
use tower_token::BoxError;

use crate::program::{Body, Login, PATIENCE, Plain, Sidecar, full, get, http1, http2, until};
use crate::upstream::{Upstream, serve, status};

fn channel() -> (Sender<Bytes, BoxError>, Body) {
    let (sender, body) = Channel::new(1);
    (sender, body.boxed_unsync())
}

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it hangs")
}

/// One that sends a request's body back as it comes, with its trailers.
async fn echo() -> String {
    let at = serve(|request| {
        Box::pin(async move {
            let te = request.headers().get("te").cloned();
            let content_type = request.headers().get("content-type").cloned();
            let mut response = Response::new(request.into_body().map_err(BoxError::from).boxed_unsync());
            response.headers_mut().insert("trailer", "x-sum".parse().unwrap());
            for (name, value) in [("x-te", te), ("content-type", content_type)] {
                if let Some(value) = value {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        })
    })
    .await;
    format!("http://{at}/")
}

async fn echoing(protocol: &str) -> (Login, Sidecar) {
    let login = Login::new().await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [{ "prefix": "/pkg.Service/", "upstream": echo().await, "token": "app", "protocol": protocol, "keep_prefix": true }],
    }));
    (login, sidecar)
}

/// Each message is answered before the next is sent; the trailers come in the end.
async fn converse(client: Plain, sidecar: &Sidecar) {
    let (mut sender, body) = channel();
    let request = Request::post(sidecar.url("/pkg.Service/Chat"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .body(body)
        .unwrap();
    sender.send_data(Bytes::from_static(b"0")).await.unwrap();
    let response = patiently(client.request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-te"], "trailers");
    let mut answers = response.into_body();
    for message in ["0", "one", "two", "three"] {
        if message != "0" {
            sender.send_data(Bytes::from(message)).await.unwrap();
        }
        let answer = patiently(answers.frame()).await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(answer, message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "4".parse().unwrap());
    sender.send_trailers(trailers.clone()).await.unwrap();
    drop(sender);
    let last = patiently(answers.frame()).await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap(), trailers);
    assert!(patiently(answers.frame()).await.is_none());
}

#[tokio::test]
async fn messages_and_trailers_pass_in_all_four_ways() {
    for protocol in ["http1", "h2c"] {
        let (_login, sidecar) = echoing(protocol).await;
        converse(http2(), &sidecar).await;
        converse(http1(), &sidecar).await;
    }
}

#[tokio::test]
async fn much_passes_and_no_more_is_taken_than_is_read() {
    let (_login, sidecar) = echoing("http1").await;
    let (mut sender, body) = channel();
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    tokio::spawn(async move {
        while counted.load(Ordering::Relaxed) < 64 << 20 && sender.send_data(vec![1; 64 << 10].into()).await.is_ok() {
            counted.fetch_add(64 << 10, Ordering::Relaxed);
        }
    });
    let request = Request::post(sidecar.url("/pkg.Service/x")).body(body).unwrap();
    let response = patiently(http2().request(request)).await.unwrap();
    // Nobody reads: it comes to a halt with what fits between.
    let mut before = u64::MAX;
    until("it comes to a halt", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = sent.load(Ordering::Relaxed);
        std::mem::replace(&mut before, now) == now
    })
    .await;
    assert!(before < 40 << 20, "{before}");
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(frame) = patiently(body.frame()).await {
        read += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(read, 64 << 20);
}

/// An upload, or the other way round, without an end.
fn endless() -> Body {
    let (mut sender, body) = channel();
    tokio::spawn(async move { while sender.send_data(vec![1; 64 << 10].into()).await.is_ok() {} });
    body
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_no_other() {
    let login = Login::new().await;
    let at = serve(|request| {
        Box::pin(async move {
            match request.uri().path() {
                "/download" => Response::new(endless()),
                "/upload" => std::future::pending().await,
                _ => match request.into_body().collect().await {
                    Ok(_) => status(StatusCode::OK),
                    Err(_) => status(StatusCode::BAD_REQUEST),
                },
            }
        })
    })
    .await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [
            { "prefix": "/one/", "upstream": format!("http://{at}/"), "token": "app" },
            { "prefix": "/two/", "upstream": format!("http://{at}/"), "token": "app", "protocol": "h2c" },
        ],
    }));
    // Downloads share the connection to upstream, uploads the one from the caller.
    let (mut unread, client) = (Vec::new(), http2());
    for _ in 0..16 {
        unread.push(
            patiently(http1().request(get(&sidecar.url("/two/download"))))
                .await
                .unwrap(),
        );
        let upload = Request::post(sidecar.url("/one/upload")).body(endless()).unwrap();
        tokio::spawn(client.request(upload));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for path in ["/one/x", "/two/x"] {
        let request = Request::post(sidecar.url(path)).body(full(vec![1; 2 << 20])).unwrap();
        assert_eq!(
            patiently(client.request(request)).await.unwrap().status(),
            StatusCode::OK
        );
        let answer = patiently(http1().request(get(&sidecar.url(path)))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

/// Tells when it is dropped.
struct Left(mpsc::UnboundedSender<()>);

impl Drop for Left {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_caller_that_leaves_takes_its_request_with_it() {
    for (protocol, client) in [
        ("http1", http1()),
        ("http1", http2()),
        ("h2c", http2()),
        ("h2c", http1()),
    ] {
        let login = Login::new().await;
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let (left, mut leavings) = mpsc::unbounded_channel();
        let at = serve(move |_request| {
            let (arrived, left) = (arrived.clone(), Left(left.clone()));
            Box::pin(async move {
                let _left = left;
                arrived.send(()).unwrap();
                std::future::pending().await
            })
        })
        .await;
        let sidecar = Sidecar::start(&json!({
            "tokens": { "app": login.app() },
            "routes": [{ "prefix": "/", "upstream": format!("http://{at}/"), "token": "app", "protocol": protocol }],
        }));
        let calling = tokio::spawn(client.request(get(&sidecar.url("/x"))));
        patiently(arrivals.recv()).await.unwrap();
        calling.abort();
        patiently(leavings.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_leaves_while_the_answer_comes_ends_it_upstream() {
    let login = Login::new().await;
    let (left, mut leavings) = mpsc::unbounded_channel();
    let at = serve(move |_request| {
        let left = left.clone();
        Box::pin(async move {
            let (mut sender, body) = channel();
            tokio::spawn(async move {
                while sender.send_data(Bytes::from_static(b"tick")).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                left.send(()).unwrap();
            });
            Response::new(body)
        })
    })
    .await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [{ "prefix": "/", "upstream": format!("http://{at}/"), "token": "app" }],
    }));
    let mut body = http1().request(get(&sidecar.url("/x"))).await.unwrap().into_body();
    assert_eq!(
        patiently(body.frame()).await.unwrap().unwrap().into_data().unwrap(),
        "tick"
    );
    drop(body);
    patiently(leavings.recv()).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_take_the_fetch() {
    let login = Login::new().await;
    login.issuer.latency(Duration::from_millis(300));
    let upstream = Upstream::new(|_| status(StatusCode::OK)).await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "app" }],
    }));
    let calling = tokio::spawn(http1().request(get(&sidecar.url("/x"))));
    until("the fetch begins", async || login.requests() == 1).await;
    calling.abort();
    until("it lands", async || sidecar.status("app").await["state"] == "fresh").await;
    assert_eq!(login.requests(), 1);
    assert!(upstream.take().is_empty());
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_here_too() {
    let login = Login::new().await;
    let at = serve(|_request| {
        Box::pin(async move {
            let (mut sender, body) = channel();
            tokio::spawn(async move {
                sender.send_data(Bytes::from_static(b"half")).await.unwrap();
                sender.abort("test".into());
            });
            Response::new(body)
        })
    })
    .await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [{ "prefix": "/", "upstream": format!("http://{at}/"), "token": "app" }],
    }));
    for client in [http1(), http2()] {
        let response = client.request(get(&sidecar.url("/x"))).await;
        // As it comes: the head may have been lost with it.
        if let Ok(response) = response {
            assert!(patiently(response.into_body().collect()).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_refusal_that_breaks_off_reaches_the_caller_as_far_as_it_came() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 100\r\n\r\n{\"code\":\"X\",";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let login = Login::new().await;
    let mut app = login.app();
    app["refuse"] = json!({ "status": [403], "code": "/code", "in": ["Dead"] });
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": app },
        "routes": [{ "prefix": "/", "upstream": format!("http://{upstream}"), "token": "app" }],
    }));
    let answer = sidecar
        .raw("GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.ends_with(r#"{"code":"X","#),
        "{answer:?}"
    );
}
