//! The token endpoint: one exchange, with what goes wrong on the way.

use std::convert::Infallible;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::Instant;
use tower_service::Service;

use super::answer::{Answer, Granted, insert, pause, reset, status, status_code, with_length};
use super::body::{Body, collect};
use super::credentials::{Client, Form, Refusal, authenticate};
use super::fault::Fault;
use super::future::ResponseFuture;
use super::issuer::{Grant, Issued, Issuer, State};
use super::ledger::Minted;
use super::visit::{Holder, Visit};

/// More than any token request has; the rest is not read.
const FORM_LIMIT: usize = 64 * 1024;

/// An [`Issuer`] as a tower service.
///
/// It is always ready and takes requests with any body. An error is what the client would see
/// of the connection: [`io::ErrorKind::ConnectionReset`] if a fault dropped it.
#[derive(Clone, Debug)]
pub struct IssuerService {
    issuer: Issuer,
}

impl IssuerService {
    pub(super) fn new(issuer: Issuer) -> Self {
        Self { issuer }
    }
}

impl<B> Service<Request<B>> for IssuerService
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
        ResponseFuture::new(respond(self.issuer.clone(), request))
    }
}

async fn respond<B: http_body::Body>(issuer: Issuer, request: Request<B>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    if head.uri.path() != "/token" || head.method != Method::POST {
        issuer.state().counts.other_requests += 1;
        return Ok(misdirected(head.uri.path()));
    }
    let mut visit = Visit::begin(&issuer);
    let (fault, latency) = meet_fault(&issuer);
    let form = match collect(body, FORM_LIMIT).await {
        Ok(body) => Form::parse(&head.headers, &body),
        Err(_) => Err(Refusal::new("invalid_request", "the body cannot be read")),
    };
    if let Some(holder) = form.as_ref().ok().and_then(|form| holder(&issuer, &head.headers, form)) {
        visit.concerns(holder);
    }
    pause(latency).await;
    let fault = match fault {
        Some(fault) => before(fault).await,
        None => Before::Act(None),
    };
    match fault {
        Before::Lost => Err(reset()),
        Before::Instead(answer) => Ok(answer.map(|body| body.answering(visit))),
        Before::Act(after) => {
            let outcome = form.and_then(|form| exchange(&issuer, &head.headers, &form));
            let answer = Answer::new(&issuer, outcome);
            answer.arrive(after, visit).await
        }
    }
}

fn misdirected(path: &str) -> Response<Body> {
    if path == "/token" {
        let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    status(StatusCode::NOT_FOUND)
}

fn meet_fault(issuer: &Issuer) -> (Option<Fault>, Duration) {
    let mut state = issuer.state();
    let fault = state.rules.next_fault();
    state.counts.faulted += u64::from(fault.is_some());
    (fault, state.rules.latency)
}

/// Whose tokens are asked for, as far as a well-meant request says so.
fn holder(issuer: &Issuer, headers: &HeaderMap, form: &Form) -> Option<Holder> {
    let state = issuer.state();
    if let Some(refresh) = form.get("refresh_token") {
        return state.ledger.line_of(refresh).map(Holder::Family);
    }
    let client = authenticate(&state.clients, headers, form).ok()?;
    Some(Holder::Client(client.id.clone()))
}

// ===== Before the issuer acts =====

enum Before {
    Lost,
    Instead(Response<Body>),
    /// The issuer acts, then this happens to its answer.
    Act(Option<Fault>),
}

async fn before(fault: Fault) -> Before {
    match fault {
        Fault::DropBefore => Before::Lost,
        Fault::DelayBefore(delay) => {
            pause(delay).await;
            Before::Act(None)
        }
        Fault::Hang => match std::future::pending::<Infallible>().await {},
        Fault::Status(code) => Before::Instead(status(status_code(code))),
        Fault::RetryAfter { status: code, seconds } => {
            let mut response = status(status_code(code));
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            Before::Instead(response)
        }
        Fault::Redirect(location) => {
            let mut response = status(StatusCode::TEMPORARY_REDIRECT);
            insert(response.headers_mut(), header::LOCATION, &location);
            Before::Instead(response)
        }
        Fault::Answer {
            status: code,
            content_type,
            body,
        } => {
            let mut response = with_length(status_code(code), body);
            insert(response.headers_mut(), header::CONTENT_TYPE, &content_type);
            Before::Instead(response)
        }
        after => Before::Act(Some(after)),
    }
}

// ===== The exchange =====

/// Acts on a token request: this is where it commits.
fn exchange(issuer: &Issuer, headers: &HeaderMap, form: &Form) -> Result<Granted, Refusal> {
    let mut state = issuer.state();
    let state = &mut *state;
    let client = authenticate(&state.clients, headers, form)?.clone();
    let now = Instant::now();
    let (grant, minted) = match form.get("grant_type") {
        Some("refresh_token") => (Grant::RefreshToken, redeem(state, &client, form, now)?),
        Some("client_credentials") => (Grant::ClientCredentials, grant_own(state, &client, now)?),
        Some(_) => {
            return Err(Refusal::new("unsupported_grant_type", "not a grant of this issuer"));
        }
        None => return Err(Refusal::new("invalid_request", "grant_type is missing")),
    };
    let expires_after = state.rules.terms().lifetime;
    let rotated = minted.refresh.is_some();
    state.timeline.push(Issued {
        at: issuer.age(now),
        grant,
        expires_after,
        rotated,
    });
    Ok(Granted {
        minted,
        scope: form.get("scope").map(str::to_owned),
    })
}

fn redeem(state: &mut State, client: &Client, form: &Form, now: Instant) -> Result<Minted, Refusal> {
    const MISSING: Refusal = Refusal::new("invalid_request", "refresh_token is missing");
    const REFUSED: Refusal = Refusal::new("invalid_grant", "the refresh token is unknown, used up or revoked");
    let presented = form.get("refresh_token").ok_or(MISSING)?;
    let terms = state.rules.terms();
    state.ledger.redeem(presented, &client.id, terms, now).ok_or(REFUSED)
}

fn grant_own(state: &mut State, client: &Client, now: Instant) -> Result<Minted, Refusal> {
    if client.is_public() {
        return Err(Refusal::new(
            "unauthorized_client",
            "a public client has no tokens of its own",
        ));
    }
    let terms = state.rules.terms();
    Ok(state.ledger.grant(&client.id, terms, now))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(super) mod tests {
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    pub(crate) async fn post(issuer: &Issuer, form: String) -> io::Result<Response<Body>> {
        let request = Request::post("https://issuer.example/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .unwrap();
        issuer.service().oneshot(request).await
    }

    pub(crate) async fn refresh(issuer: &Issuer, token: &str) -> io::Result<Response<Body>> {
        let client = "client_id=test-client&client_secret=test-secret";
        post(
            issuer,
            format!("grant_type=refresh_token&refresh_token={token}&{client}"),
        )
        .await
    }

    pub(crate) async fn json_of(response: Response<Body>) -> Value {
        serde_json::from_slice(&response.into_body().bytes().await.unwrap()).unwrap()
    }

    pub(crate) async fn token_of(response: Response<Body>) -> String {
        json_of(response).await["access_token"].as_str().unwrap().to_owned()
    }

    async fn own(issuer: &Issuer) -> io::Result<Response<Body>> {
        let client = "client_id=test-client&client_secret=test-secret";
        post(issuer, format!("grant_type=client_credentials&scope=a+b&{client}")).await
    }

    async fn error_of(issuer: &Issuer, form: &str) -> (u16, Value) {
        let response = post(issuer, form.to_owned()).await.unwrap();
        (response.status().as_u16(), json_of(response).await["error"].clone())
    }

    #[tokio::test]
    async fn a_refresh_answers_as_the_rfc_says() {
        let issuer = Issuer::new();
        let response = refresh(&issuer, &issuer.sign_in()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["content-type"], "application/json");
        let answer = json_of(response).await;
        assert_eq!(
            (&answer["token_type"], &answer["expires_in"]),
            (&"Bearer".into(), &60.into())
        );
        assert!(answer["access_token"].as_str().unwrap().contains("test"));
        assert!(issuer.is_redeemable(answer["refresh_token"].as_str().unwrap()));
        let counts = issuer.counts();
        assert_eq!((counts.token_requests, counts.granted, counts.max_in_flight), (1, 1, 1));
        assert_eq!(counts.in_flight, 0);
    }

    #[tokio::test]
    async fn a_client_gets_tokens_of_its_own_without_a_refresh_token() {
        let issuer = Issuer::new();
        let answer = json_of(own(&issuer).await.unwrap()).await;
        assert_eq!(answer["scope"], "a b");
        assert!(answer.get("refresh_token").is_none());
        assert_eq!(issuer.timeline()[0].grant, Grant::ClientCredentials);
    }

    #[tokio::test]
    async fn errors_have_the_names_of_the_rfc() {
        let issuer = Issuer::new();
        issuer.public_client("app");
        let unknown = "grant_type=refresh_token&client_id=app&refresh_token=x";
        assert_eq!(error_of(&issuer, unknown).await, (400, "invalid_grant".into()));
        let own = "grant_type=client_credentials&client_id=app";
        assert_eq!(error_of(&issuer, own).await, (400, "unauthorized_client".into()));
        let odd = "grant_type=password&client_id=app";
        assert_eq!(error_of(&issuer, odd).await, (400, "unsupported_grant_type".into()));
        assert_eq!(
            error_of(&issuer, "client_id=app").await,
            (400, "invalid_request".into())
        );
        let bare = "grant_type=refresh_token&client_id=app";
        assert_eq!(error_of(&issuer, bare).await, (400, "invalid_request".into()));
        assert_eq!(
            error_of(&issuer, "client_id=nobody").await,
            (401, "invalid_client".into())
        );
        assert_eq!(issuer.counts().refused, 6);
    }

    #[tokio::test]
    async fn a_client_refused_over_basic_is_told_to_use_basic() {
        let request = Request::post("/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", "Basic dGVzdDp0ZXN0")
            .body(String::from("grant_type=client_credentials"))
            .unwrap();
        let response = Issuer::new().service().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.headers()["www-authenticate"].as_bytes().starts_with(b"Basic "));
    }

    #[tokio::test]
    async fn only_a_post_to_token_is_a_token_request() {
        let issuer = Issuer::new();
        issuer.fault(Fault::DropBefore);
        for (method, path, status) in [("GET", "/token", 405), ("POST", "/tokens", 404)] {
            let request = Request::builder().method(method).uri(path).body(String::new()).unwrap();
            assert_eq!(issuer.service().oneshot(request).await.unwrap().status(), status);
        }
        let counts = issuer.counts();
        assert_eq!(
            (counts.other_requests, counts.token_requests, counts.faulted),
            (2, 0, 0)
        );
    }

    #[tokio::test]
    async fn too_long_a_form_is_refused() {
        let form = format!("client_id={}", "x".repeat(FORM_LIMIT));
        assert_eq!(error_of(&Issuer::new(), &form).await, (400, "invalid_request".into()));
    }

    #[tokio::test]
    async fn a_lost_request_leaves_the_token_as_it_was() {
        let issuer = Issuer::new();
        let first = issuer.sign_in();
        let answer = Fault::answer(200, "text/html", "<html>");
        let faults = [
            Fault::Status(503),
            Fault::RetryAfter {
                status: 429,
                seconds: 7,
            },
            Fault::Redirect("/elsewhere".into()),
            Fault::oauth_error(400, "invalid_grant"),
            answer,
        ];
        for fault in faults {
            issuer.fault(fault);
        }
        issuer.fault(Fault::DropBefore);
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(refresh(&issuer, &first).await.unwrap());
        }
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status().as_u16()).collect();
        assert_eq!(statuses, [503, 429, 307, 400, 200]);
        assert_eq!(answers[1].headers()["retry-after"], "7");
        assert_eq!(answers[2].headers()["location"], "/elsewhere");
        assert_eq!(answers[4].headers()["content-type"], "text/html");
        let error = refresh(&issuer, &first).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        drop(answers);
        assert_eq!(refresh(&issuer, &first).await.unwrap().status(), 200);
        let counts = issuer.counts();
        assert_eq!((counts.token_requests, counts.faulted, counts.granted), (7, 6, 1));
        assert_eq!((counts.presented_twice, counts.refused, counts.in_flight), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_before_postpones_the_commit() {
        let issuer = Issuer::new();
        issuer
            .latency(Duration::from_secs(1))
            .fault(Fault::DelayBefore(Duration::from_secs(5)));
        refresh(&issuer, &issuer.sign_in()).await.unwrap();
        assert_eq!(issuer.timeline()[0].at, Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_on_a_hanging_issuer_is_no_longer_in_flight() {
        let issuer = Issuer::new();
        issuer.fault(Fault::Hang);
        let first = issuer.sign_in();
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, refresh(&issuer, &first)).await.is_err());
        assert_eq!(issuer.counts().in_flight, 0);
        assert!(issuer.is_redeemable(&first));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_once_are_counted_together_and_by_grant() {
        let issuer = Issuer::new();
        issuer.latency(Duration::from_millis(200));
        let (one, other) = (issuer.sign_in(), issuer.sign_in());
        let (a, b, c, d) = tokio::join!(
            refresh(&issuer, &one),
            refresh(&issuer, &one),
            refresh(&issuer, &other),
            own(&issuer),
        );
        let mut statuses = [a, b, c, d].map(|response| response.unwrap().status().as_u16());
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 200, 400]);
        let counts = issuer.counts();
        assert_eq!((counts.max_in_flight, counts.max_in_flight_per_grant), (4, 2));
        assert_eq!((counts.presented_twice, counts.reuse, counts.in_flight), (1, 1, 0));
    }

    #[tokio::test]
    async fn one_of_many_presentations_at_once_wins() {
        let issuer = Issuer::new();
        let first = issuer.sign_in();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (issuer, first) = (issuer.clone(), first.clone());
                tokio::spawn(async move { refresh(&issuer, &first).await.unwrap().status() })
            })
            .collect();
        let mut granted = 0;
        for task in tasks {
            granted += u64::from(task.await.unwrap() == 200);
        }
        let counts = issuer.counts();
        assert_eq!((granted, counts.granted), (1, 1));
        assert_eq!((counts.presented_twice, counts.reuse), (63, 1));
    }
}
