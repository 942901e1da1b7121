//! Rotation: refresh tokens that are given out once (T22, T23, T26, T28, T29).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::flows::*;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::WWW_AUTHENTICATE};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_test::assert_pending;
use tokio_test::task::spawn;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, Body, Fault, Issuer};
use tower_token::{Class, Error, IfLost, Origins, State, TokenClient, TokenLayer, Tokens};

/// An answer without a refresh token erased the one that was kept
/// (modelcontextprotocol/python-sdk#2270, Kong/insomnia#1492, spring-projects/spring-security#6503).
#[tokio::test(start_paused = true)]
async fn t22_an_answer_without_a_refresh_token_keeps_the_old_one() {
    let issuer = Issuer::new();
    issuer.rotate(false);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    // Three refreshes after the first without the field, then with nothing in it.
    let answers = [None, None, None, None, Some(json!("")), Some(json!(null))];
    for (before, nothing) in answers.into_iter().enumerate() {
        if let Some(nothing) = nothing {
            issuer.fault(Fault::rewrite(json!({ "refresh_token": nothing })));
        }
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        assert_eq!(issuer.counts().granted, 1 + before as u64);
        sleep(MINUTE).await;
    }
    // From here on it rotates, and the one that was kept is still the one to present.
    issuer.rotate(true);
    for _ in 0..3 {
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        sleep(MINUTE).await;
    }
    let counts = issuer.counts();
    assert_eq!((counts.granted, counts.refused, counts.presented_twice), (9, 0, 0));
}

/// Minutes of calls, one each second, after these faults met the renewal of an expired token.
async fn calls_after(faults: &[Fault], if_lost: IfLost, minutes: u32) -> (Issuer, Vec<Sample>) {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer).if_lost(if_lost)), &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    sleep(MINUTE).await;
    for fault in faults {
        issuer.fault(fault.clone());
    }
    let samples = traffic(&client, "/api", SECOND, minutes * MINUTE).await;
    assert_eq!(api.counts().requests, 1, "an expired token is not sent");
    (issuer, samples)
}

/// The issuer has acted, and nobody learns of it.
fn lost() -> [Fault; 3] {
    [Fault::DropAfter, Fault::DelayAfter(MINUTE), Fault::StatusAfter(502)]
}

/// A refresh token was sent again after a timeout, and 21,605 people were signed out
/// (stablyai/orca#18719).
#[tokio::test(start_paused = true)]
async fn t23_a_lost_answer_is_no_reason_to_present_a_refresh_token_again() {
    for fault in lost() {
        let (issuer, samples) = calls_after(std::slice::from_ref(&fault), IfLost::NeverReplay, 60).await;
        for sample in &samples {
            let error = ours(&sample.outcome);
            assert_eq!(error.class(), Some(Class::Ambiguous), "{fault:?}: {error}");
            assert!(error.is_reauth_required());
        }
        let counts = issuer.counts();
        assert_eq!(
            (counts.token_requests, counts.presented_twice, counts.reuse),
            (1 + 1, 0, 0)
        );
    }
}

/// The same by default: once more, because the issuer may not have acted, and never in a loop.
#[tokio::test(start_paused = true)]
async fn t23_by_default_a_lost_answer_is_asked_for_once_more_and_then_for_a_person() {
    let is_for_a_person = |samples: &[Sample], class| {
        let mut errors = samples.iter().map(|sample| ours(&sample.outcome));
        errors.all(|error| error.is_reauth_required() && error.class() == Some(class))
    };
    for fault in lost() {
        let (issuer, samples) = calls_after(std::slice::from_ref(&fault), IfLost::ReplayOnce, 9).await;
        assert!(is_for_a_person(&samples, Class::Terminal), "{fault:?}");
        let counts = issuer.counts();
        assert_eq!((counts.token_requests, counts.presented_twice), (1 + 2, 1), "{fault:?}");
    }
    // The issuer's verdict stands; it is asked about after 10 and after 30 minutes.
    let (issuer, samples) = calls_after(&[Fault::DropAfter], IfLost::ReplayOnce, 60).await;
    assert!(is_for_a_person(&samples, Class::Terminal));
    assert_eq!((issuer.counts().token_requests, issuer.counts().reuse), (1 + 2 + 2, 1));
    // Where the verdict is lost as well, it is asked for a minute later.
    let (issuer, samples) = calls_after(&[Fault::DropAfter, Fault::DropAfter], IfLost::ReplayOnce, 1).await;
    assert!(is_for_a_person(&samples, Class::Ambiguous));
    assert_eq!(issuer.counts().token_requests, 1 + 2);
}

/// A refresh asked for the scope that a 403 had named, was refused, and asked again
/// (modelcontextprotocol/typescript-sdk#2255).
#[tokio::test(start_paused = true)]
async fn t28_a_refresh_asks_for_no_more_than_was_granted_and_a_403_asks_for_nothing() {
    /// What the API refuses with names a scope that was never granted, as its 403s do.
    fn wants_more(mut response: Response<Body>) -> Response<Body> {
        if response.status() == 401 {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\", scope=\"read write admin\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
    for (configured, asked_for) in [("read write", ["read+write", "read", "read", "read"]), ("", ["-"; 4])] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let recorded = {
            let (issuer, asked) = (issuer.clone(), asked.clone());
            service_fn(move |request: Request<Full<Bytes>>| {
                let (issuer, asked) = (issuer.clone(), asked.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let form = body.collect().await.unwrap().to_bytes();
                    let mut fields = std::str::from_utf8(&form).unwrap().split('&');
                    let scope = fields.find_map(|field| field.strip_prefix("scope="));
                    asked.lock().unwrap().push(scope.unwrap_or("-").to_owned());
                    issuer
                        .service()
                        .oneshot(Request::from_parts(head, Full::new(form)))
                        .await
                }
            })
        };
        let tokens = tokens(
            refresh_grant(&issuer)
                .scope(configured)
                .client(TokenClient::new(recorded)),
        );
        let client = ServiceBuilder::new()
            .layer(TokenLayer::new(&tokens, Origins::only(API).unwrap()))
            .map_response(wants_more)
            .service(api.service());
        let call = |path: &str, id: u64| client.clone().oneshot(get(path, id));
        // Less than what was asked for.
        issuer.fault(Fault::rewrite(json!({ "scope": "read" })));
        for expiry in 1..=3 {
            assert_eq!(status(&call("/api", expiry).await), Some(200));
            for id in 0..100 {
                assert_eq!(status(&call("/forbidden", 1_000 * expiry + id).await), Some(403));
            }
            assert_eq!(issuer.counts().token_requests, expiry, "no fetch for a 403");
            sleep(MINUTE).await;
        }
        assert_eq!(api.counts().max_deliveries, 1);
        assert_eq!(status(&call("/api", 4).await), Some(200));
        issuer.revoke_access();
        assert_eq!(status(&call("/api", 5).await), Some(200));
        assert_eq!(api.deliveries("5"), 2);
        let asked = asked.lock().unwrap();
        assert_eq!(asked[..4], asked_for);
        assert_eq!(asked[4..], asked_for[3..]);
    }
}

/// A refresh in the air brought back a session that had been signed out (logto-io/kotlin#253).
#[tokio::test(start_paused = true)]
async fn t29_what_a_refresh_brings_after_a_sign_out_is_thrown_away() {
    // Without a token, with a good one that is renewed ahead of time, and with an expired one.
    for age in [None, Some(31 * SECOND), Some(MINUTE)] {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let tokens = tokens(refresh_grant(&issuer));
        let client = client(&tokens, &api);
        if let Some(age) = age {
            assert_eq!(status(&call(&client, "/api").await), Some(200));
            sleep(age).await;
        }
        issuer.fault(Fault::DelayAfter(10 * SECOND));
        let waiting = tokio::spawn(client.clone().oneshot(get("/api", "waiting")));
        settle().await;
        let renewals = 1 + u64::from(age.is_some());
        assert_eq!((issuer.counts().granted, issuer.counts().in_flight), (renewals, 1));
        tokens.sign_out();
        let mut published = spawn(tokens.changed());
        let began = Instant::now();
        let outcome = waiting.await.unwrap();
        match age == Some(31 * SECOND) {
            true => assert_eq!(status(&outcome), Some(200), "it was sent before"),
            false => assert!(ours(&outcome).is_signed_out()),
        }
        assert_eq!(began.elapsed().as_secs(), 0, "nobody waits for what is thrown away");
        let sent = api.counts().requests;
        for _ in 0..30 {
            sleep(SECOND).await;
            assert!(ours(&call(&client, "/api").await).is_signed_out());
            assert!(tokens.current().is_none());
        }
        assert_pending!(published.poll());
        assert_eq!(tokens.status().state, State::SignedOut);
        assert_eq!(
            (issuer.counts().token_requests, issuer.counts().in_flight),
            (renewals, 0)
        );
        assert_eq!(api.counts().requests, sent);
        // The next session is another one, and nothing of the last one is presented in it.
        let next = issuer.sign_in();
        tokens.install(json!({ "refresh_token": next })).unwrap();
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        assert!(!issuer.is_redeemable(&next));
        assert_eq!(
            (issuer.counts().token_requests, issuer.counts().presented_twice),
            (renewals + 1, 0)
        );
    }
}

/// The same of what was to follow the one in the air.
#[tokio::test(start_paused = true)]
async fn t29_nor_does_a_chained_fetch_bring_a_session_back() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    sleep(31 * SECOND).await;
    // An early renewal that began before the refusal, so that another one is to follow it.
    issuer.fault(Fault::DelayAfter(10 * SECOND));
    assert_eq!(status(&call(&client, "/api").await), Some(200), "stale, and good");
    settle().await;
    issuer.revoke_access();
    let refused = tokio::spawn(client.clone().oneshot(get("/api", "refused")));
    settle().await;
    assert_eq!((issuer.counts().granted, issuer.counts().in_flight), (2, 1));
    tokens.sign_out();
    let began = Instant::now();
    let refusal = refused.await.unwrap().unwrap();
    assert_eq!((refusal.status().as_u16(), began.elapsed().as_secs()), (401, 0));
    assert!(refusal.extensions().get::<Error>().unwrap().is_signed_out());
    sleep(MINUTE).await;
    assert!(tokens.current().is_none());
    assert_eq!(
        (issuer.counts().token_requests, tokens.status().state),
        (2, State::SignedOut)
    );
    // And in the next session nothing is left of it.
    let next = issuer.sign_in();
    tokens.install(json!({ "refresh_token": next })).unwrap();
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    assert_eq!(
        (issuer.counts().token_requests, issuer.counts().presented_twice),
        (3, 0)
    );
}

/// A client below sent the refresh token again by itself (golang/oauth2's probing, authproxy#276). Those that we know do
/// not, also over a connection that was good for the request before; one that does is not ours to see.
#[tokio::test]
async fn t26_no_client_below_sends_a_token_request_again() {
    let pooled = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let clients = [
        ("hyper-util", TokenClient::new::<_, Full<Bytes>, _>(pooled.build_http())),
        #[cfg(feature = "client")]
        ("client", TokenClient::https()),
        #[cfg(feature = "reqwest")]
        (
            "reqwest",
            TokenClient::new::<_, reqwest::Body, _>(tower_token::reqwest::Http::new(
                reqwest::Client::builder().no_proxy().build().unwrap(),
            )),
        ),
    ];
    for (name, client) in clients {
        let (address, mut received) = hanging_up().await;
        let grant = RefreshTokenGrant::new(format!("http://{address}/token"), "test-client")
            .client_secret("test-secret")
            .refresh_token("test-refresh")
            .if_lost(IfLost::NeverReplay)
            .client(client);
        let tokens = Tokens::builder(grant).build().unwrap();
        // The first is answered, so that there is a connection to go on with.
        tokens.get().await.unwrap();
        tokens.refresh().await.unwrap_err();
        // Whatever the client did, it did before it answered.
        received.close();
        let mut presented = Vec::new();
        while let Some(request) = received.recv().await {
            presented.push(request.contains("test-refresh"));
        }
        assert_eq!(presented, [true, true], "{name}");
    }
}

/// A server that answers the first request it reads and closes the connection after every other; what it read.
async fn hanging_up() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut answer = Some(r#"{"access_token":"test-access","token_type":"Bearer","expires_in":3600}"#);
        while let Ok((mut connection, _)) = listener.accept().await {
            while let Some(request) = whole_request(&mut connection).await {
                if told.send(request).is_err() {
                    return;
                }
                let Some(body) = answer.take() else { break };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
                let answer = format!("{head}: {}\r\n\r\n{body}", body.len());
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    (address, received)
}

/// `None`: the connection was closed.
async fn whole_request(connection: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
