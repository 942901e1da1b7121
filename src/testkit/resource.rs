//! The routes of the API, and where a request carries its token.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use tower_service::Service;

use super::answer::{insert, pause, with_length};
use super::api::{Api, Arrival};
use super::body::{Body, collect};

use super::future::ResponseFuture;
use super::ledger::Standing;

/// An [`Api`] as a tower service.
///
/// It is always ready and takes requests with any body, whose URI may be a path or absolute.
/// The one error is [`io::ErrorKind::BrokenPipe`], for a request whose body fails.
#[derive(Clone, Debug)]
pub struct ApiService {
    api: Api,
}

impl ApiService {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }
}

impl<B> Service<Request<B>> for ApiService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        ResponseFuture::new(respond(self.api.clone(), request))
    }
}

async fn respond<B: http_body::Body>(api: Api, request: Request<B>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let arrival = Arrival::of(&head);
    let standing = api.arrive(&arrival);
    let echoes = head.uri.path() == "/echo";
    let early = query(&head, "early").is_some_and(|value| value == "1");
    let sent = if early && !echoes {
        Bytes::new()
    } else {
        collect(body, usize::MAX).await.map_err(|_| broken())?
    };
    let (wait, response) = match route(&head, standing) {
        Route::Authorized if echoes => (api.authorize(&arrival), echo(&head, sent)),
        Route::Authorized => (api.authorize(&arrival), text(StatusCode::OK, "authorized\n")),
        Route::Refused(status, challenge) => (api.refuse(), refusal(status, challenge)),
        Route::Redirected => (api.pass(), redirect(&head)),
        Route::Missing => (api.pass(), text(StatusCode::NOT_FOUND, "no such route\n")),
    };
    pause(wait).await;
    Ok(response)
}

enum Route {
    Authorized,
    Refused(StatusCode, Option<&'static str>),
    Redirected,
    Missing,
}

const INVALID_TOKEN: Option<&str> = Some("Bearer realm=\"testkit\", error=\"invalid_token\"");
const INSUFFICIENT_SCOPE: Option<&str> = Some("Bearer realm=\"testkit\", error=\"insufficient_scope\", scope=\"more\"");
const BASIC: Option<&str> = Some("Basic realm=\"testkit\"");

fn route(head: &Parts, standing: Option<Standing>) -> Route {
    let path = head.uri.path();
    match path {
        "/api" | "/echo" => judge(standing),
        _ if path.starts_with("/api/") => judge(standing),
        "/liar" => Route::Refused(StatusCode::UNAUTHORIZED, INVALID_TOKEN),
        "/bare401" => Route::Refused(StatusCode::UNAUTHORIZED, None),
        "/basic401" => Route::Refused(StatusCode::UNAUTHORIZED, BASIC),
        "/forbidden" => Route::Refused(StatusCode::FORBIDDEN, INSUFFICIENT_SCOPE),
        "/redirect" => Route::Redirected,
        _ => Route::Missing,
    }
}

fn judge(standing: Option<Standing>) -> Route {
    match standing {
        Some(Standing::Alive) => Route::Authorized,
        _ => Route::Refused(StatusCode::UNAUTHORIZED, INVALID_TOKEN),
    }
}

fn echo(head: &Parts, sent: Bytes) -> Response<Body> {
    let mut response = with_length(StatusCode::OK, sent);
    if let Some(content_type) = head.headers.get(header::CONTENT_TYPE) {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type.clone());
    }
    response
}

fn refusal(status: StatusCode, challenge: Option<&'static str>) -> Response<Body> {
    let mut response = text(status, "refused\n");
    if let Some(challenge) = challenge {
        let challenge = HeaderValue::from_static(challenge);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn redirect(head: &Parts) -> Response<Body> {
    let status = query(head, "status")
        .and_then(|status| status.parse().ok())
        .filter(|status| (301..=308).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = text(status.unwrap_or(StatusCode::FOUND), "elsewhere\n");
    let to = query(head, "to").unwrap_or_else(|| "/api".to_owned());
    insert(response.headers_mut(), header::LOCATION, &to);
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = with_length(status, Bytes::from_static(body.as_bytes()));
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the request's body failed")
}

// ===== Where a request carries its token =====

impl Arrival {
    fn of(head: &Parts) -> Self {
        let headers = &head.headers;
        let in_query = query(head, "access_token");
        let with_authorization = in_query.is_some()
            || headers.contains_key(header::AUTHORIZATION)
            || headers.contains_key(header::COOKIE)
            || headers.contains_key("x-test-token");
        let token = bearer(headers)
            .or(in_query)
            .or_else(|| text_of(headers, "x-test-token").map(str::to_owned))
            .or_else(|| cookie(headers));
        let request_id = headers.get("x-request-id");
        let request_id = request_id.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        Self {
            request_id,
            token,
            with_authorization,
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = text_of(headers, "authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// Looks through all `Cookie` headers: HTTP/2 may send one for each pair.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim() == "access_token")?;
    Some(value.trim().to_owned())
}

fn text_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn query(head: &Parts, name: &str) -> Option<String> {
    let query = head.uri.query()?;
    let (_, value) = form_urlencoded::parse(query.as_bytes()).find(|(field, _)| field == name)?;
    Some(value.into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};
    use tower::ServiceExt as _;

    use super::super::exchange::tests::{json_of, refresh, token_of};
    use super::super::fault::Fault;
    use super::super::issuer::Issuer;
    use super::*;

    const MOMENT: Duration = Duration::from_nanos(1);

    async fn mint(issuer: &Issuer) -> String {
        token_of(refresh(issuer, &issuer.sign_in()).await.unwrap()).await
    }

    async fn get(api: &Api, uri: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get(uri).body(String::new()).unwrap();
        for (name, value) in headers {
            let name: header::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        api.service().oneshot(request).await.unwrap()
    }

    async fn with_bearer(api: &Api, uri: &str, token: &str) -> Response<Body> {
        get(api, uri, &[("authorization", &format!("Bearer {token}"))]).await
    }

    fn challenge(response: &Response<Body>) -> Option<&str> {
        text_of(response.headers(), "www-authenticate")
    }

    #[tokio::test]
    async fn a_live_token_opens_the_api_in_any_of_four_places() {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let token = mint(&issuer).await;
        assert_eq!(with_bearer(&api, "/api", &token).await.status(), 200);
        assert_eq!(
            with_bearer(&api, "https://api.example/api/a/b?c", &token)
                .await
                .status(),
            200
        );
        let in_query = format!("/api?a=b&access_token={token}");
        assert_eq!(get(&api, &in_query, &[]).await.status(), 200);
        assert_eq!(get(&api, "/api", &[("x-test-token", &token)]).await.status(), 200);
        let pair = format!("b=2; access_token={token}");
        assert_eq!(
            get(&api, "/api", &[("cookie", "a=1"), ("cookie", &pair)])
                .await
                .status(),
            200
        );
        let counts = api.counts();
        assert_eq!(
            (counts.requests, counts.authorized, counts.with_authorization),
            (5, 5, 5)
        );
        assert_eq!((counts.refused, counts.without_token), (0, 0));
    }

    #[tokio::test]
    async fn what_is_no_token_is_still_an_authorization() {
        let api = Api::new(&Issuer::new());
        for headers in [
            [("authorization", "Basic dDp0")],
            [("cookie", "a=b")],
            [("authorization", "x")],
        ] {
            assert_eq!(get(&api, "/api", &headers).await.status(), 401);
        }
        assert_eq!(get(&api, "/api", &[]).await.status(), 401);
        let counts = api.counts();
        assert_eq!(
            (counts.with_authorization, counts.without_token, counts.refused),
            (3, 4, 4)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_alive_until_the_very_end_of_its_life() {
        let issuer = Issuer::new();
        issuer.lifetime(Duration::from_millis(1500));
        let api = Api::new(&issuer);
        let token = mint(&issuer).await;
        advance(Duration::from_millis(1500) - MOMENT).await;
        assert_eq!(with_bearer(&api, "/api", &token).await.status(), 200);
        advance(MOMENT).await;
        assert_eq!(with_bearer(&api, "/api", &token).await.status(), 401);
        assert_eq!((api.counts().expired_seen, api.counts().authorized), (1, 1));
        assert_eq!(issuer.standing(&token), Standing::Expired);
    }

    #[tokio::test]
    async fn revoked_and_unknown_tokens_are_told_apart() {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let refresh_token = issuer.sign_in();
        let answer = json_of(refresh(&issuer, &refresh_token).await.unwrap()).await;
        let token = answer["access_token"].as_str().unwrap();
        issuer.revoke_access();
        let refused = with_bearer(&api, "/api", token).await;
        assert!(challenge(&refused).unwrap().contains("error=\"invalid_token\""));
        with_bearer(&api, "/api", "test-made-up").await;
        assert_eq!((api.counts().revoked_seen, api.counts().unknown_seen), (1, 1));
        let next = answer["refresh_token"].as_str().unwrap();
        let next = token_of(refresh(&issuer, next).await.unwrap()).await;
        assert_eq!(with_bearer(&api, "/api", &next).await.status(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_stale_once_its_successor_was_read_to_the_end() {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let first = json_of(refresh(&issuer, &issuer.sign_in()).await.unwrap()).await;
        let old = first["access_token"].as_str().unwrap();
        let unread = refresh(&issuer, first["refresh_token"].as_str().unwrap())
            .await
            .unwrap();
        advance(MOMENT).await;
        with_bearer(&api, "/api", old).await;
        let new = token_of(unread).await;
        with_bearer(&api, "/api", old).await;
        assert_eq!(api.counts().stale_seen, 0);
        advance(MOMENT).await;
        assert_eq!(with_bearer(&api, "/api", old).await.status(), 200);
        with_bearer(&api, "/api", &new).await;
        assert_eq!(api.counts().stale_seen, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_lost_on_the_way_makes_none_stale() {
        let issuer = Issuer::new();
        issuer.grace(Duration::from_secs(10));
        let api = Api::new(&issuer);
        let first = json_of(refresh(&issuer, &issuer.sign_in()).await.unwrap()).await;
        let next = first["refresh_token"].as_str().unwrap();
        issuer
            .fault(Fault::DropAfter)
            .fault(Fault::Truncate)
            .fault(Fault::Garbage)
            .fault(Fault::without(["access_token"]));
        refresh(&issuer, next).await.unwrap_err();
        refresh(&issuer, next)
            .await
            .unwrap()
            .into_body()
            .bytes()
            .await
            .unwrap_err();
        refresh(&issuer, next).await.unwrap().into_body().bytes().await.unwrap();
        json_of(refresh(&issuer, next).await.unwrap()).await;
        advance(MOMENT).await;
        with_bearer(&api, "/api", first["access_token"].as_str().unwrap()).await;
        assert_eq!((api.counts().stale_seen, api.counts().authorized), (0, 1));
        assert_eq!((issuer.counts().presented_twice, issuer.counts().reuse), (3, 0));
    }

    #[tokio::test]
    async fn each_route_refuses_in_its_own_way() {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let token = mint(&issuer).await;
        let liar = with_bearer(&api, "/liar", &token).await;
        assert!(challenge(&liar).unwrap().contains("invalid_token"));
        assert_eq!(challenge(&with_bearer(&api, "/bare401", &token).await), None);
        let basic = with_bearer(&api, "/basic401", &token).await;
        assert!(challenge(&basic).unwrap().starts_with("Basic"));
        let forbidden = with_bearer(&api, "/forbidden", &token).await;
        assert_eq!(forbidden.status(), 403);
        assert!(challenge(&forbidden).unwrap().contains("insufficient_scope"));
        assert_eq!(with_bearer(&api, "/apis", &token).await.status(), 404);
        assert_eq!((api.counts().refused, api.counts().authorized), (4, 0));
    }

    #[tokio::test]
    async fn redirects_go_where_they_are_told() {
        let api = Api::new(&Issuer::new());
        let told = get(&api, "/redirect?status=308&to=https%3A%2F%2Fsink.example%2Fapi", &[]).await;
        assert_eq!(
            (told.status().as_u16(), &told.headers()["location"]),
            (308, &"https://sink.example/api".parse().unwrap())
        );
        for odd in ["/redirect", "/redirect?status=200", "/redirect?status=x&to=%0A"] {
            assert_eq!(get(&api, odd, &[]).await.status(), 302);
        }
        assert_eq!(api.counts().requests, 4);
    }

    #[tokio::test]
    async fn an_echo_is_what_was_sent() {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let token = mint(&issuer).await;
        let request = Request::post("/echo?early=1")
            .header("authorization", format!("bearer {token}"))
            .body(String::from("back"))
            .unwrap();
        let response = api.service().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-length"], "4");
        assert_eq!(response.into_body().bytes().await.unwrap(), "back");
    }

    #[tokio::test]
    async fn deliveries_are_counted_by_request_id() {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let bearer = format!("Bearer {}", mint(&issuer).await);
        for (id, headers) in [("a", 1), ("a", 1), ("a", 2), ("b", 2), ("b", 2)] {
            let headers = &[("x-request-id", id), ("authorization", &bearer)][..headers];
            get(&api, "/api", headers).await;
        }
        assert_eq!(
            (api.deliveries("a"), api.deliveries("b"), api.deliveries("c")),
            (3, 2, 0)
        );
        assert_eq!((api.delivered_more_than(1), api.delivered_more_than(2)), (2, 1));
        assert_eq!((api.authorized_more_than(0), api.authorized_more_than(1)), (2, 1));
        assert_eq!(api.counts().max_deliveries, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_take_the_latency_and_refusals_their_share_of_the_spread() {
        let issuer = Issuer::new();
        let api = Api::new(&issuer);
        let (latency, spread) = (Duration::from_secs(1), Duration::from_secs(3));
        api.latency(latency).refusal_spread(spread);
        let token = mint(&issuer).await;
        let begun = Instant::now();
        with_bearer(&api, "/api", &token).await;
        assert_eq!(begun.elapsed(), latency);
        let mut waits = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            get(&api, "/api", &[]).await;
            waits.push(begun.elapsed());
        }
        assert_eq!(waits[0], latency);
        assert!(waits.iter().all(|wait| (latency..=latency + spread).contains(wait)));
        assert!(waits.iter().any(|wait| *wait > latency + spread * 3 / 4), "{waits:?}");
    }

    /// A request body that never comes, or fails.
    struct Odd(Option<&'static str>);

    impl http_body::Body for Odd {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, &'static str>>> {
            self.0.map_or(Poll::Pending, |error| Poll::Ready(Some(Err(error))))
        }
    }

    #[tokio::test]
    async fn an_early_answer_does_not_wait_for_the_body() {
        let api = Api::new(&Issuer::new());
        let request = Request::post("/api?early=1").body(Odd(None)).unwrap();
        assert_eq!(api.service().oneshot(request).await.unwrap().status(), 401);
    }

    #[tokio::test]
    async fn a_request_whose_body_fails_has_arrived_and_fails() {
        let api = Api::new(&Issuer::new());
        let request = Request::post("/api").body(Odd(Some("gone"))).unwrap();
        let error = api.service().oneshot(request).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(api.counts().requests, 1);
    }
}
