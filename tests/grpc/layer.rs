//! Each shape of call through the layer, each form of a refusal, and what the server counted of both.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, ServiceBuilder};
use tower_token::{Auto, Buffered, Grpc, TokenLayer, TokenService, Tokens};

use crate::client::{EchoClient, request};
use crate::server::{PATIENCE, Server};

type Api = TokenService<Channel, Buffered<Body>, Grpc>;
type Echo = EchoClient<Api>;

// ---- unary ----------------------------------------------------------------------------------------

/// In each of twenty rounds the token dies under the callers after half of the calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unary_calls_across_twenty_revocations_all_succeed() {
    const ROUNDS: u64 = 20;
    const CALLS: u64 = 50;
    const CALLERS: u64 = 20;
    let Some(server) = Server::start().await else { return };
    let echo = echo(&server, &server.tokens());
    for round in 0..ROUNDS {
        server.revoke_after(CALLS / 2).await;
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let mut echo = echo.clone();
            callers.spawn(async move {
                for call in (caller..CALLS).step_by(CALLERS as usize) {
                    let name = format!("{round} {call}");
                    let answer = echo.unary(request(Bytes::from(name.clone()), &name, "start")).await;
                    assert_eq!(answer.unwrap().into_inner(), name);
                }
            });
        }
        callers.join_all().await;
    }

    let counts = server.counts().await;
    assert_eq!(
        (counts.calls, counts.answered, counts.max_deliveries),
        (ROUNDS * CALLS, ROUNDS * CALLS, 2),
        "{counts:#?}"
    );
    assert_eq!((counts.issued, counts.revoked), (1 + ROUNDS, ROUNDS), "{counts:#?}");
    assert!((ROUNDS..=ROUNDS * CALLERS).contains(&counts.refused), "{counts:#?}");
    assert_eq!(counts.connections, 1, "{counts:#?}");
}

/// tonic-health's, as its generator wrote it.
#[tokio::test]
async fn a_ready_made_client_is_answered_by_a_server_that_revokes_its_tokens() {
    let Some(server) = Server::start().await else { return };
    let mut health = HealthClient::new(api(&server, &server.tokens()));
    for _ in 0..20 {
        for _ in 0..5 {
            let answer = health.check(HealthCheckRequest::default()).await.unwrap();
            assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        }
        server.revoke().await;
    }
    let watch = request(HealthCheckRequest::default(), "watch", "each");
    let mut watch = health.watch(watch).await.unwrap().into_inner();
    for _ in 0..3 {
        let news = watch.message().await.unwrap().expect("news");
        assert_eq!(news.status(), ServingStatus::Serving);
        server.notify().await;
    }
    drop(watch);

    let counts = server.until(|counts| counts.left == 1).await;
    assert_eq!(
        (counts.issued, counts.refused, counts.answered),
        (21, 20, 100),
        "{counts:#?}"
    );
    assert_eq!(server.deliveries("watch").await, [20, 21]);
}

// ---- client streams -------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stream_is_answered_whenever_it_is_refused() {
    let Some(server) = Server::start().await else { return };
    let mut echo = roomy(&server);
    for (number, when) in (1..).zip(["start", "headers", "read:1", "read:20", "read:all"]) {
        accepted(&server, &mut echo, number).await;
        server.revoke().await;
        let answer = echo
            .client_stream(request(tokio_stream::iter(upload()), when, when))
            .await;
        assert_eq!(answer.unwrap().into_inner(), receipt(), "{when}");
        assert_eq!(server.deliveries(when).await, [number, number + 1], "{when}");
    }
    let counts = server.counts().await;
    assert_eq!(
        (counts.issued, counts.refused, counts.connections),
        (6, 5, 1),
        "{counts:#?}"
    );
}

/// The caller has not sent everything when the refusal comes: the replay is what was sent before, and
/// then what the caller sends from there on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stream_that_is_refused_half_way_goes_on_in_its_replay() {
    let Some(server) = Server::start().await.map(Arc::new) else {
        return;
    };
    let mut echo = roomy(&server);
    for (number, when) in (1..).zip(["start", "headers", "read:1", "read:32"]) {
        accepted(&server, &mut echo, number).await;
        server.revoke().await;
        let (messages, sent) = mpsc::channel(1);
        let caller = tokio::spawn({
            let server = server.clone();
            async move {
                for (at, message) in upload().into_iter().enumerate() {
                    if at == MESSAGES / 2 {
                        server.until(|counts| counts.refused == number).await;
                    }
                    messages.send(message).await.expect("somebody to send");
                }
            }
        });
        let answer = echo.client_stream(request(ReceiverStream::new(sent), when, when)).await;
        assert_eq!(answer.unwrap().into_inner(), receipt(), "{when}");
        assert_eq!(server.deliveries(when).await, [number, number + 1], "{when}");
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stream_over_the_limit_that_is_refused_at_its_end_is_the_callers() {
    let Some(server) = Server::start().await else { return };
    let mut echo = echo(&server, &server.tokens());
    accepted(&server, &mut echo, 1).await;
    server.revoke().await;
    let answer = echo
        .client_stream(request(tokio_stream::iter(upload()), "upload", "read:all"))
        .await;
    assert_refusal(&answer.unwrap_err());
    assert_eq!(server.deliveries("upload").await, [1]);
    accepted(&server, &mut echo, 2).await;
}

// ---- server streams -------------------------------------------------------------------------------

#[tokio::test]
async fn a_server_stream_that_is_refused_before_any_message_is_replayed() {
    let Some(server) = Server::start().await else { return };
    let mut echo = patient(&server);
    for (number, when) in (1..).zip(["start", "headers", "read:1", "read:all"]) {
        accepted(&server, &mut echo, number).await;
        server.revoke().await;
        let answer = echo.server_stream(download(when, when)).await.unwrap();
        let (messages, end) = rest(answer.into_inner()).await;
        assert_eq!(messages, ["page"; 5], "{when}");
        assert!(end.is_none(), "{when}: {end:?}");
        assert_eq!(server.deliveries(when).await, [number, number + 1], "{when}");
    }
}

#[tokio::test]
async fn a_server_stream_that_is_refused_after_a_message_is_the_callers() {
    let Some(server) = Server::start().await else { return };
    let mut echo = patient(&server);
    for (number, (when, before)) in (1..).zip([("sent:1", 1), ("sent:3", 3), ("sent:5", 5)]) {
        accepted(&server, &mut echo, number).await;
        server.revoke().await;
        let answer = echo.server_stream(download(when, when)).await.unwrap();
        let (messages, end) = rest(answer.into_inner()).await;
        assert_eq!(messages, vec!["page"; before], "{when}");
        assert_refusal(&end.unwrap());
        assert_eq!(server.deliveries(when).await, [number], "{when}");
    }
    accepted(&server, &mut echo, 4).await;
}

#[tokio::test]
async fn a_refusal_that_comes_after_the_patience_is_the_callers() {
    let Some(server) = Server::start().await else { return };
    let layer = grpc(&server.tokens(), Duration::from_millis(1)).replay_via(Body::new);
    let mut echo = EchoClient::new(layer.layer(server.channel()));
    accepted(&server, &mut echo, 1).await;
    server.revoke().await;
    let answer = timeout(PATIENCE, echo.server_stream(download("late", "held"))).await;
    // The caller has the head, and only now the server says what it thinks of the token.
    let answer = answer.expect("the head is handed on").unwrap();
    server.release().await;
    let (messages, end) = rest(answer.into_inner()).await;
    assert!(messages.is_empty(), "{messages:?}");
    assert_refusal(&end.unwrap());
    assert_eq!(server.deliveries("late").await, [1]);
    accepted(&server, &mut echo, 2).await;
}

// ---- both ways ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_caller_that_awaits_the_head_before_its_first_message_is_not_held_up() {
    let Some(server) = Server::start().await else { return };
    let mut echo = echo(&server, &server.tokens());
    talk(&mut echo, "talk", "each").await;
    assert_eq!(server.deliveries("talk").await, [1]);
}

#[tokio::test]
async fn and_if_it_is_refused_it_is_replayed() {
    let Some(server) = Server::start().await else { return };
    // Of the replay, which is accepted, the head comes when the patience is at its end: no message will.
    let layer = grpc(&server.tokens(), Duration::from_secs(1)).replay_via(Body::new);
    let mut echo = EchoClient::new(layer.layer(server.channel()));
    for (number, when) in (1..).zip(["start", "headers"]) {
        accepted(&server, &mut echo, number).await;
        server.revoke().await;
        talk(&mut echo, when, when).await;
        assert_eq!(server.deliveries(when).await, [number, number + 1], "{when}");
    }
}

#[tokio::test]
async fn what_was_said_both_ways_before_the_refusal_is_said_again() {
    let Some(server) = Server::start().await else { return };
    let mut echo = patient(&server);
    for (number, when) in (1..).zip(["start", "headers", "read:1"]) {
        accepted(&server, &mut echo, number).await;
        server.revoke().await;
        let said = ["one", "two", "three"].map(Bytes::from);
        let answer = echo.bidi(request(tokio_stream::iter(said.clone()), when, when)).await;
        let (heard, end) = rest(answer.unwrap().into_inner()).await;
        assert_eq!(heard, said, "{when}");
        assert!(end.is_none(), "{when}: {end:?}");
        assert_eq!(server.deliveries(when).await, [number, number + 1], "{when}");
    }
}

#[tokio::test]
async fn a_token_that_dies_in_mid_stream_is_the_callers() {
    let Some(server) = Server::start().await else { return };
    let mut echo = echo(&server, &server.tokens());
    let (say, said) = mpsc::channel(1);
    say.send(Bytes::from("alive")).await.unwrap();
    let answer = echo.bidi(request(ReceiverStream::new(said), "talk", "each")).await;
    let mut heard = answer.unwrap().into_inner();
    assert_eq!(heard.message().await.unwrap().unwrap(), "alive");

    server.revoke().await;
    say.send(Bytes::from("still there?")).await.unwrap();
    assert_refusal(&heard.message().await.unwrap_err());
    assert_eq!(server.deliveries("talk").await, [1]);
    accepted(&server, &mut echo, 2).await;
}

/// None of these streams ends with a status 0, but each has brought a message before its token dies.
/// After five such ends within a minute the server is taken for one that refuses whatever it is sent.
#[tokio::test]
async fn streams_that_live_as_long_as_their_token_have_a_new_one_each() {
    let Some(server) = Server::start().await else { return };
    let mut health = HealthClient::new(api(&server, &server.tokens()));
    for number in 1..=5 {
        let name = number.to_string();
        let watch = health
            .watch(request(HealthCheckRequest::default(), &name, "each"))
            .await;
        let mut watch = watch.unwrap().into_inner();
        watch.message().await.unwrap().expect("news");
        server.revoke().await;
        server.notify().await;
        assert_refusal(&watch.message().await.unwrap_err());
        assert_eq!(server.deliveries(&name).await, [number]);
    }
}

/// The same, where the head was handed on before there was a message.
#[tokio::test]
async fn streams_that_are_silent_at_first_have_a_new_token_each_as_well() {
    let Some(server) = Server::start().await else { return };
    let mut echo = echo(&server, &server.tokens());
    for number in 1..=5 {
        let name = number.to_string();
        let (say, said) = mpsc::channel(1);
        let answer = echo.bidi(request(ReceiverStream::new(said), &name, "each")).await;
        let mut heard = answer.unwrap().into_inner();
        say.send(Bytes::from("alive")).await.unwrap();
        assert_eq!(heard.message().await.unwrap().unwrap(), "alive");
        server.revoke().await;
        say.send(Bytes::from("still there?")).await.unwrap();
        assert_refusal(&heard.message().await.unwrap_err());
        assert_eq!(server.deliveries(&name).await, [number]);
    }
}

#[tokio::test]
async fn twenty_streams_that_die_of_one_revocation_cost_one_fetch() {
    let Some(server) = Server::start().await else { return };
    let health = HealthClient::new(api(&server, &server.tokens()));
    for number in 1..=4 {
        let mut watching = Vec::new();
        for stream in 0..20 {
            let name = format!("{number} {stream}");
            let watch = request(HealthCheckRequest::default(), &name, "each");
            let mut watch = health.clone().watch(watch).await.unwrap().into_inner();
            watch.message().await.unwrap().expect("news");
            watching.push(watch);
            assert_eq!(server.deliveries(&name).await, [number]);
        }
        server.revoke().await;
        server.notify().await;
        for mut watch in watching {
            assert_refusal(&watch.message().await.unwrap_err());
        }
    }
    let counts = server.counts().await;
    assert_eq!((counts.refused, counts.max_deliveries), (80, 1), "{counts:#?}");
}

// ---- what a new token would not help ----------------------------------------------------------------

#[tokio::test]
async fn a_permission_denied_costs_no_fetch_and_no_second_delivery() {
    let Some(server) = Server::start().await else { return };
    let mut echo = patient(&server);
    for round in 0..10 {
        for when in ["start", "headers", "read:1", "read:all", "sent:1"] {
            let name = |shape: &str| format!("{shape} {when} {round}");
            let one = Bytes::from("page");
            let unary = echo.unary(denied(request(one.clone(), &name("unary"), when))).await;
            assert_eq!(unary.unwrap_err().code(), Code::PermissionDenied, "{when}");
            let many = tokio_stream::iter(upload());
            let upload = echo.client_stream(denied(request(many, &name("upload"), when))).await;
            assert_eq!(upload.unwrap_err().code(), Code::PermissionDenied, "{when}");
            let download = echo.server_stream(denied(download(&name("download"), when))).await;
            assert_eq!(end(download).await.code(), Code::PermissionDenied, "{when}");
            let talk = tokio_stream::iter([one.clone(), one]);
            let talk = echo.bidi(denied(request(talk, &name("talk"), when))).await;
            assert_eq!(end(talk).await.code(), Code::PermissionDenied, "{when}");
        }
    }
    let counts = server.counts().await;
    assert_eq!(
        (counts.calls, counts.denied, counts.max_deliveries),
        (200, 200, 1),
        "{counts:#?}"
    );
    assert_eq!((counts.issued, counts.refused), (1, 0), "{counts:#?}");
}

// ---- the connection -------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_refusals_of_every_kind_are_answered_over_one_connection() {
    let Some(server) = Server::start().await else { return };
    let mut echo = roomy(&server);
    accepted(&server, &mut echo, 1).await;
    for _ in 0..30 {
        for when in ["start", "headers", "read:1"] {
            server.revoke().await;
            let unary = echo.unary(request(Bytes::from("page"), "unary", when)).await;
            assert_eq!(unary.unwrap().into_inner(), "page");
            server.revoke().await;
            let upload = echo
                .client_stream(request(tokio_stream::iter(upload()), "upload", when))
                .await;
            assert_eq!(upload.unwrap().into_inner(), receipt());
            server.revoke().await;
            let download = echo.server_stream(download("download", when)).await.unwrap();
            assert_eq!(rest(download.into_inner()).await.0.len(), 5);
            server.revoke().await;
            let talk = echo
                .bidi(request(tokio_stream::iter(["a".into(), "b".into()]), "talk", when))
                .await;
            assert_eq!(rest(talk.unwrap().into_inner()).await.0, ["a", "b"]);
        }
    }
    let counts = server.counts().await;
    assert_eq!(
        (counts.refused, counts.answered, counts.issued),
        (360, 361, 361),
        "{counts:#?}"
    );
    assert_eq!(counts.connections, 1, "{counts:#?}");
}

// ---- what the tests are made of -------------------------------------------------------------------

/// As a user writes it.
fn api(server: &Server, tokens: &Tokens) -> Api {
    ServiceBuilder::new()
        .layer(TokenLayer::grpc(tokens).replay_via(Body::new))
        .service(server.channel())
}

fn echo(server: &Server, tokens: &Tokens) -> Echo {
    EchoClient::new(api(server, tokens))
}

fn grpc(tokens: &Tokens, patience: Duration) -> TokenLayer<Auto, Grpc> {
    TokenLayer::grpc(tokens).classify(Grpc::new().patience(patience))
}

/// Waits for a refusal in the trailers until it is there, so that a slow machine changes nothing.
fn patient(server: &Server) -> Echo {
    let layer = grpc(&server.tokens(), PATIENCE).replay_via(Body::new);
    EchoClient::new(layer.layer(server.channel()))
}

/// The same, and keeps all of an upload.
fn roomy(server: &Server) -> Echo {
    let layer = grpc(&server.tokens(), PATIENCE).replay(Buffered::via(Body::new).limit(2 << 20));
    EchoClient::new(layer.layer(server.channel()))
}

/// One more call, which the token of this number is good for.
async fn accepted(server: &Server, echo: &mut Echo, number: u64) {
    let name = format!("accepted with {number}");
    echo.unary(request(Bytes::new(), &name, "start")).await.unwrap();
    assert_eq!(server.deliveries(&name).await, [number]);
}

const MESSAGES: usize = 64;

/// 1 MiB, each message other than the next.
fn upload() -> Vec<Bytes> {
    (0..MESSAGES as u8).map(|at| Bytes::from(vec![at; 16 << 10])).collect()
}

/// What the server says of [`upload`]. The digest was computed elsewhere.
fn receipt() -> &'static str {
    r#"{"sha256": "eceffbf96a8863b044c73f9ac7de400f7ac577b672e5ef18e4c9b9a75c578bd3", "length": 1048576}"#
}

/// Five times "page".
fn download(name: &str, when: &'static str) -> Request<Bytes> {
    let mut request = request(Bytes::from("page"), name, when);
    request.metadata_mut().insert("x-messages", "5".parse().unwrap());
    request
}

fn denied<T>(mut request: Request<T>) -> Request<T> {
    request.metadata_mut().insert("x-deny", "yes".parse().unwrap());
    request
}

/// Says something each time that it has heard the last, and nothing before there is a head.
async fn talk(echo: &mut Echo, name: &str, when: &'static str) {
    let (say, said) = mpsc::channel(1);
    let talk = timeout(PATIENCE, echo.bidi(request(ReceiverStream::new(said), name, when)));
    let mut heard = talk.await.expect("a head").unwrap().into_inner();
    for word in ["one", "two", "three"] {
        say.send(Bytes::from(word)).await.unwrap();
        assert_eq!(heard.message().await.unwrap().unwrap(), word);
    }
    drop(say);
    assert!(heard.message().await.unwrap().is_none());
}

/// The messages that are still to come, and the status after them if it is no OK.
async fn rest(mut stream: Streaming<Bytes>) -> (Vec<Bytes>, Option<Status>) {
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => messages.push(message),
            Err(status) => return (messages, Some(status)),
        }
    }
    (messages, None)
}

/// The status that a stream ends with, in its head or after its messages.
async fn end(answer: Result<tonic::Response<Streaming<Bytes>>, Status>) -> Status {
    match answer {
        Ok(answer) => rest(answer.into_inner()).await.1.expect("no OK"),
        Err(status) => status,
    }
}

/// It is the server's own, word for word.
#[track_caller]
fn assert_refusal(status: &Status) {
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "the token is not valid")
    );
}
