//! What reads or prints the answers on their way: decompression and traces.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower::{BoxError, Service, ServiceBuilder};
use tower_http::compression::predicate::SizeAbove;
use tower_http::compression::{CompressionBody, CompressionLayer};
use tower_http::decompression::DecompressionLayer;
use tower_http::trace::{DefaultMakeSpan, DefaultOnResponse, HttpMakeClassifier, TraceLayer};
use tower_token::{BodyCode, Query, TokenLayer};

use crate::printed::Capture;
use crate::support::{Api, Page, bearer, get, issuer, origins, page, send};

// ===== Decompression =====

/// The API with bodies that can be read, gzipped for whoever accepts that.
pub(crate) fn gzipping(
    api: &Api,
) -> impl Service<Request<String>, Response = Response<CompressionBody<Full<Bytes>>>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ use<> {
    let read = |response: Response<Page>| response.map(|page| Full::from(page.to_string()));
    ServiceBuilder::new()
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(0)))
        .map_response(read)
        .service(api.clone())
}

pub(crate) async fn text(body: impl Body<Data = Bytes, Error = BoxError>) -> String {
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_api_of_these_tests_gzips() {
    let mut accepting = get();
    accepting.headers_mut().insert(ACCEPT_ENCODING, "gzip".parse().unwrap());
    let answer = send(&gzipping(&Api::refusing([])), accepting).await.unwrap();
    assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(bytes[..2], [0x1f, 0x8b]);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_a_replay_arrives_decoded_from_above_and_from_below() {
    let decode = DecompressionLayer::new();
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .layer(decode.clone())
        .layer(layer)
        .service(gzipping(&api));
    assert_eq!(text(send(&client, get()).await.unwrap().into_body()).await, "welcome");
    assert_eq!(api.tokens(), ["test-1", "test-2"]);

    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new().layer(layer).layer(decode).service(gzipping(&api));
    assert_eq!(text(send(&client, get()).await.unwrap().into_body()).await, "welcome");
    assert_eq!(api.tokens(), ["test-1", "test-2"]);
    let accepted = |request: &Request<String>| request.headers()[ACCEPT_ENCODING] == "gzip";
    assert_eq!(api.each(accepted), [true, true], "both answers were gzipped");
}

#[tokio::test(start_paused = true)]
async fn a_code_in_a_body_is_seen_if_the_layer_below_decodes_it() {
    let expired = r#"{"code":"InvalidAccessToken"}"#;
    let refusing = move || {
        Api::answering(move |_, head| match bearer(head) {
            Some("test-1") => {
                let mut response = page(expired);
                *response.status_mut() = StatusCode::FORBIDDEN;
                response
            }
            _ => page("welcome"),
        })
    };
    let code = BodyCode::new(StatusCode::FORBIDDEN, "/code", ["InvalidAccessToken"]).unwrap();
    let decode = DecompressionLayer::new();

    let ((tokens, issuer_below), api) = (issuer(), refusing());
    let layer = TokenLayer::new(&tokens, origins()).classify(code.clone());
    let client = ServiceBuilder::new()
        .layer(layer)
        .layer(decode.clone())
        .service(gzipping(&api));
    assert_eq!(text(send(&client, get()).await.unwrap().into_body()).await, "welcome");
    assert_eq!((api.deliveries(), issuer_below.fetches()), (2, 2));

    // Above: the layer reads gzip, finds no code in it, and the caller gets the refusal.
    let ((tokens, issuer_above), api) = (issuer(), refusing());
    let layer = TokenLayer::new(&tokens, origins()).classify(code);
    let client = ServiceBuilder::new().layer(decode).layer(layer).service(gzipping(&api));
    assert_eq!(text(send(&client, get()).await.unwrap().into_body()).await, expired);
    assert_eq!((api.deliveries(), issuer_above.fetches()), (1, 1));
}

// ===== Trace =====

/// Prints whatever it gets to see.
pub(crate) fn trace() -> TraceLayer<HttpMakeClassifier> {
    TraceLayer::new_for_http()
        .make_span_with(DefaultMakeSpan::new().include_headers(true))
        .on_response(DefaultOnResponse::new().include_headers(true))
}

/// How many requests were traced, and what was printed.
pub(crate) fn traced(log: &Capture) -> (usize, String) {
    let log = log.text();
    let secrets = ["test-1", "test-2"];
    assert!(!secrets.iter().any(|secret| log.contains(secret)), "{log}");
    (log.matches("started processing request").count(), log)
}

#[tokio::test(start_paused = true)]
async fn a_trace_above_sees_one_request_and_no_token() {
    let log = Capture::begin();
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .layer(trace())
        .layer(layer)
        .service(gzipping(&api));
    assert_eq!(text(send(&client, get()).await.unwrap().into_body()).await, "welcome");
    assert_eq!(api.deliveries(), 2);
    let (requests, log) = traced(&log);
    assert_eq!(requests, 1);
    assert!(log.contains("status=200") && !log.contains("authorization"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn a_trace_below_sees_each_attempt_and_that_its_token_is_not_to_be_seen() {
    let log = Capture::begin();
    let ((tokens, _), api) = (issuer(), Api::refusing(["test-1"]));
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .layer(layer)
        .layer(trace())
        .service(gzipping(&api));
    assert_eq!(text(send(&client, get()).await.unwrap().into_body()).await, "welcome");
    assert_eq!(api.deliveries(), 2);
    let (requests, log) = traced(&log);
    assert_eq!(requests, 2);
    assert!(
        log.contains("status=401") && log.contains(r#""authorization": Sensitive"#),
        "{log}"
    );
}

/// A URL cannot be marked sensitive: who has the token in its query traces above, or leaves the query out.
#[tokio::test(start_paused = true)]
async fn a_trace_below_prints_a_token_that_is_in_the_url() {
    let log = Capture::begin();
    let ((tokens, _), api) = (issuer(), Api::refusing([]));
    let layer = TokenLayer::new(&tokens, origins()).inject(Query::new("t"));
    let client = ServiceBuilder::new()
        .layer(trace())
        .layer(layer.clone())
        .service(gzipping(&api));
    send(&client, get()).await.unwrap();
    traced(&log);
    let client = ServiceBuilder::new()
        .layer(layer)
        .layer(trace())
        .service(gzipping(&api));
    send(&client, get()).await.unwrap();
    assert!(log.text().contains("/me?t=test-1"));
}
