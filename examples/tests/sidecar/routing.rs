//! Where requests go, and what of them arrives.

use http::{Request, StatusCode, Version};
use serde_json::json;
use tokio::net::TcpListener;

use crate::program::{Login, Sidecar, full, get, http1, http2, text};
use crate::upstream::{Upstream, status};

async fn rig() -> (Login, Upstream, Sidecar) {
    let login = Login::new().await;
    let upstream = Upstream::of(&login.issuer).await;
    let url = upstream.url();
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [
            { "prefix": "/imm/", "upstream": format!("{url}base/"), "token": "app" },
            { "prefix": "/bare", "upstream": format!("{url}base"), "token": "app" },
            { "prefix": "/kept/", "upstream": url, "token": "app", "keep_prefix": true },
            { "prefix": "/two/", "upstream": url, "token": "app", "protocol": "h2c" },
            { "prefix": "/imm/never/", "upstream": "http://127.0.0.1:1/", "token": "app" },
        ],
    }));
    (login, upstream, sidecar)
}

#[tokio::test]
async fn what_follows_the_prefix_passes_byte_for_byte() {
    let (_login, upstream, sidecar) = rig().await;
    for (asked, arrives) in [
        ("/imm/", "/base/"),
        ("/imm/a%2Fb?x", "/base/a%2Fb?x"),
        ("/imm/a%2fb/%7Euser/~", "/base/a%2fb/%7Euser/~"),
        ("/imm//x//y", "/base//x//y"),
        ("/imm/x?", "/base/x?"),
        ("/imm/x??a=/?&&b=%20+", "/base/x??a=/?&&b=%20+"),
        ("/imm/../x/./y", "/base/../x/./y"),
        ("/imm/;a=1,b@:!$&'()*", "/base/;a=1,b@:!$&'()*"),
        ("/imm/never/x", "/base/never/x"),
        ("/bare", "/base"),
        ("/bare?q", "/base?q"),
        ("/bare/", "/base/"),
        ("/bare/x", "/base/x"),
        ("/kept/a%2Fb?x=%00", "/kept/a%2Fb?x=%00"),
        ("/two/a%2Fb//?x", "/a%2Fb//?x"),
    ] {
        let answer = sidecar.raw(format!("GET {asked} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        assert!(answer.await.starts_with("HTTP/1.1 200"), "{asked}");
        assert_eq!(upstream.last().target, arrives, "{asked}");
    }
    upstream.take();
    for asked in ["/", "/im", "/imm", "/IMM/x", "/bareness", "//imm/x", "/%69mm/x", "*"] {
        let answer = sidecar.raw(format!(
            "OPTIONS {asked} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ));
        assert!(answer.await.starts_with("HTTP/1.1 404"), "{asked}");
    }
    assert!(upstream.take().is_empty());
}

#[tokio::test]
async fn nothing_but_the_upstreams_is_contacted() {
    let (_login, upstream, sidecar) = rig().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let close = "connection: close\r\n\r\n";
    // The absolute form is answered by its path.
    let absolute = format!("GET http://127.0.0.1:{port}/imm/x HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{close}");
    assert!(sidecar.raw(absolute).await.starts_with("HTTP/1.1 200"));
    assert_eq!(upstream.last().target, "/base/x");
    assert_eq!(upstream.last().header("host"), Some(&*upstream.at.to_string()));
    let connect = format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{close}");
    assert!(sidecar.raw(connect).await.starts_with("HTTP/1.1 405"));
    let trace = format!("TRACE /imm/x HTTP/1.1\r\nhost: x\r\n{close}");
    assert!(sidecar.raw(trace).await.starts_with("HTTP/1.1 405"));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(100), elsewhere.accept()).await;
    assert!(waited.is_err(), "somebody was contacted");
}

#[tokio::test]
async fn what_belongs_to_a_connection_ends_here() {
    let login = Login::new().await;
    let upstream = Upstream::new(|_| {
        let mut response = status(StatusCode::OK);
        for (name, value) in [
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
            ("x-end", "1"),
        ] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response
    })
    .await;
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": login.app() },
        "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "app" }],
    }));
    let answer = sidecar
        .raw(
            "GET /x HTTP/1.1\r\nhost: x\r\nconnection: close, x-mine, upgrade\r\nx-mine: 1\r\nx-yours: 1\r\nkeep-alive: 5\r\n\
             proxy-authorization: Basic dGVzdA==\r\nproxy-connection: close\r\nte: gzip, trailers\r\nupgrade: websocket\r\n\
             cookie: a=1\r\ncookie: b=2\r\n\r\n",
        )
        .await
        .to_ascii_lowercase();
    let seen = upstream.last();
    for name in [
        "x-mine",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "upgrade",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-yours"), Some("1"));
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    assert!(
        answer.starts_with("http/1.1 200") && answer.contains("x-end: 1"),
        "{answer}"
    );
    for name in ["x-hop: 1", "keep-alive: timeout", "proxy-authenticate", "upgrade: "] {
        assert!(!answer.contains(name), "{name} in {answer}");
    }
}

#[tokio::test]
async fn both_versions_go_to_both() {
    let (_login, upstream, sidecar) = rig().await;
    for (client, path, version) in [
        (http1(), "/imm/x", Version::HTTP_11),
        (http2(), "/imm/x", Version::HTTP_11),
        (http1(), "/two/x", Version::HTTP_2),
        (http2(), "/two/x", Version::HTTP_2),
    ] {
        let sent = vec![7_u8; 100_000];
        let request = Request::post(sidecar.url(path)).body(full(sent.clone())).unwrap();
        assert_eq!(client.request(request).await.unwrap().status(), StatusCode::OK);
        let seen = upstream.last();
        assert_eq!((seen.version, seen.body.len()), (version, sent.len()));
        assert_eq!(seen.header("content-length"), Some("100000"));
        assert_eq!(seen.method, "POST");
    }
    // A GET may have a body, and its length need not be known.
    let chunked = "GET /imm/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntest\r\n0\r\n\r\n";
    assert!(sidecar.raw(chunked).await.starts_with("HTTP/1.1 200"));
    assert_eq!(upstream.last().body, "test");
    let waits =
        "POST /imm/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\ntest";
    let answer = sidecar.raw(waits).await;
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    let old = sidecar.raw("GET /imm/x HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
    assert_eq!(upstream.last().version, Version::HTTP_11);
    let head = Request::head(sidecar.url("/imm/x")).body(full("")).unwrap();
    assert_eq!(http1().request(head).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_callers_own_header_passes_and_its_refusal_costs_no_fetch() {
    let (login, upstream, sidecar) = rig().await;
    let mut request = get(&sidecar.url("/imm/x"));
    let own = "Basic dGVzdDp0ZXN0".parse().unwrap();
    request.headers_mut().insert("authorization", own);
    assert_eq!(
        http1().request(request).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(upstream.take().len(), 1);
    assert_eq!(login.requests(), 0);
    assert_eq!(sidecar.get("/imm/x").await.0, StatusCode::OK);
    assert_eq!(login.requests(), 1);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_told_without_its_url() {
    let login = Login::new().await;
    // Taken, and nobody answers.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut app = login.app();
    app["inject"] = json!({ "query": { "name": "token" } });
    let sidecar = Sidecar::start(&json!({
        "tokens": { "app": app },
        "routes": [{ "prefix": "/", "upstream": format!("http://{closed}/"), "token": "app" }],
    }));
    let (status, body) = sidecar.get("/x").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(
        body.contains("upstream_unavailable") && !body.contains("http"),
        "{body}"
    );
    let mut request = get(&sidecar.url("/x"));
    let grpc = "application/grpc+proto".parse().unwrap();
    request.headers_mut().insert("content-type", grpc);
    let answer = http2().request(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(text(answer).await, (StatusCode::OK, String::new()));
}

/// A page sends to a port of loopback if it is let, and says where it is from; one whose name points there says its name.
#[tokio::test]
async fn web_pages_of_other_sites_are_refused_where_the_file_says_so() {
    let login = Login::new().await;
    let upstream = Upstream::new(|_| status(StatusCode::OK)).await;
    for refuse in [false, true] {
        let sidecar = Sidecar::start(&json!({
            "refuse_pages": refuse,
            "tokens": { "app": login.app() },
            "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "app" }],
        }));
        let own = sidecar.proxy.clone();
        for (host, origin, is_foreign) in [
            (&*own, "", false),
            ("localhost:8080", "", false),
            ("[::1]:8080", "http://localhost:3000", false),
            ("LOCALHOST", "http://127.0.0.1:3000", false),
            ("evil.example:8080", "", true),
            ("evil.example", "http://evil.example", true),
            (&*own, "https://evil.example", true),
            (&*own, "https://localhost.evil.example", true),
            (&*own, "null", true),
        ] {
            let origin_line = match origin {
                "" => String::new(),
                origin => format!("origin: {origin}\r\n"),
            };
            let request = format!(
                "POST /x HTTP/1.1\r\nhost: {host}\r\n{origin_line}content-length: 0\r\nconnection: close\r\n\r\n"
            );
            let answer = sidecar.raw(request).await;
            let expected = if refuse && is_foreign {
                "HTTP/1.1 403"
            } else {
                "HTTP/1.1 200"
            };
            assert!(answer.starts_with(expected), "{refuse} {host} {origin}: {answer}");
            let reached = usize::from(expected.ends_with("200"));
            assert_eq!(upstream.take().len(), reached, "{host} {origin}");
        }
    }
}
