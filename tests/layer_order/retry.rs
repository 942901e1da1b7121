//! A retry of 5xx answers.

use http::{Request, Response, StatusCode};
use tokio::time::{Sleep, sleep};
use tower::retry::{Policy, RetryLayer};
use tower::{BoxError, ServiceBuilder};
use tower_token::{Error, FetchError, TokenLayer};

use crate::stack;
use crate::support::{Api, Page, SECOND, bearer, get, held, issuer, issuer_that, origins, page, refusal, send};

/// Tries again five seconds after a 5xx, twice.
#[derive(Clone)]
pub(crate) struct ServerErrors {
    left: u8,
}

pub(crate) const SERVER_ERRORS: ServerErrors = ServerErrors { left: 2 };

impl<B> Policy<Request<String>, Response<B>, BoxError> for ServerErrors {
    type Future = Sleep;

    fn retry(&mut self, _: &mut Request<String>, outcome: &mut Result<Response<B>, BoxError>) -> Option<Sleep> {
        let failed = outcome
            .as_ref()
            .is_ok_and(|response| response.status().is_server_error());
        self.left = self.left.checked_sub(u8::from(failed))?;
        failed.then(|| sleep(5 * SECOND))
    }

    fn clone_request(&mut self, request: &Request<String>) -> Option<Request<String>> {
        Some(request.clone())
    }
}

pub(crate) fn unavailable() -> Response<Page> {
    let mut response = page("try again");
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// 503 to the first request; by the second the first token is over.
fn flaky() -> Api {
    Api::answering(|nth, head| match (nth, bearer(head)) {
        (1, _) => unavailable(),
        (_, Some("test-1")) => refusal(),
        _ => page("welcome"),
    })
}

#[tokio::test(start_paused = true)]
async fn a_retry_above_takes_the_token_that_is_current_then_and_one_below_the_old_one() {
    for (above, sent) in [
        (true, &["test-1", "test-2"][..]),
        (false, &["test-1", "test-1", "test-2"]),
    ] {
        let ((tokens, issuer), api) = (issuer(), flaky());
        let layer = TokenLayer::new(&tokens, origins());
        let retry = RetryLayer::new(SERVER_ERRORS);
        let call = tokio::spawn(held(stack(above, retry, layer, api.clone()), get()));
        // The token after 1 s and the 503 with it; the retry after 6 s.
        sleep(3 * SECOND).await;
        tokens.refresh().await.unwrap();
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(api.tokens(), sent, "above: {above}");
        assert_eq!(issuer.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_refused_has_a_replay_of_its_own() {
    let ((tokens, issuer), api) = (issuer(), flaky());
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .retry(SERVER_ERRORS)
        .layer(layer)
        .service(api.clone());
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(api.tokens(), ["test-1", "test-1", "test-2"]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_401_is_no_matter_for_the_retry() {
    let ((tokens, issuer), api) = (issuer(), Api::answering(|_, _| refusal()));
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .retry(SERVER_ERRORS)
        .layer(layer)
        .service(api.clone());
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((api.deliveries(), issuer.fetches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn nor_is_a_token_that_cannot_be_had() {
    let (tokens, issuer) = issuer_that(|_| Err(FetchError::terminal("the grant is over")));
    let api = Api::answering(|_, _| unavailable());
    let layer = TokenLayer::new(&tokens, origins());
    let client = ServiceBuilder::new()
        .retry(SERVER_ERRORS)
        .layer(layer)
        .service(api.clone());
    let error = send(&client, get()).await.unwrap_err();
    assert!(error.downcast_ref().is_some_and(Error::is_reauth_required), "{error}");
    assert_eq!((api.deliveries(), issuer.fetches()), (0, 1));
}
