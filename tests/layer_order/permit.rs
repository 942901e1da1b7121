//! What lets only some through: concurrency limits, buffers, load-shed.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::{BoxError, ServiceBuilder};
use tower_token::{NoToken, TokenLayer};

use crate::support::{Api, Page, SECOND, bearer, get, held, issuer, origins, page, refusal, send};
use crate::{Client, Composed, stack};

// ===== Concurrency limits and buffers =====

/// A hundred at once, all of them answered with 200: how many were refused in between, and how long it took.
async fn hundred(limits: impl FnOnce(TokenLayer, Api) -> Client) -> (usize, Duration) {
    let (tokens, issuer) = issuer();
    let api = Api::taking(SECOND, |_, head| match bearer(head) {
        Some("test-1") => refusal(),
        _ => page("welcome"),
    });
    let client = limits(TokenLayer::new(&tokens, origins()), api.clone());
    let began = Instant::now();
    let calls: JoinSet<_> = (0..100).map(|_| held(client.clone(), get())).collect();
    for answer in calls.join_all().await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(issuer.fetches(), 2);
    (api.deliveries() - 100, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn under_a_limit_above_or_below_only_those_are_refused_that_were_under_way() {
    let (refused, _) = hundred(|layer, api| stack(true, ConcurrencyLimitLayer::new(3), layer, api)).await;
    assert_eq!(refused, 3);
    // All wait for the first token together, and take the one that is current when they get a permit.
    let (refused, _) = hundred(|layer, api| stack(false, ConcurrencyLimitLayer::new(3), layer, api)).await;
    assert_eq!(refused, 3);
}

#[tokio::test(start_paused = true)]
async fn in_buffers_of_one_nobody_waits_for_another() {
    let (refused, took) =
        hundred(|layer, api| Client::new(ServiceBuilder::new().buffer(1).layer(layer).buffer(1).service(api))).await;
    // A token, an answer, a token, an answer.
    assert_eq!((refused, took), (100, 4 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_token_holds_a_permit_above_and_none_below() {
    for (above, sent) in [(true, ["test-1", "-"]), (false, ["-", "test-1"])] {
        let ((tokens, _), api) = (issuer(), Api::refusing([]));
        let layer = TokenLayer::new(&tokens, origins());
        let mut without = get();
        without.extensions_mut().insert(NoToken);
        let client = stack(above, ConcurrencyLimitLayer::new(1), layer, api.clone());
        let answers = tokio::join!(send(&client, get()), send(&client, without));
        assert!(answers.0.is_ok() && answers.1.is_ok());
        assert_eq!(api.tokens(), sent, "above: {above}");
    }
}

// ===== Load-shed =====

/// One at a time, each for a second. Unlike [`Api`] it is ready at the first poll, which is all that `load_shed` waits for.
fn one_at_a_time() -> (Api, impl Composed) {
    let api = Api::taking(SECOND, |_, _| page("welcome"));
    let client = ServiceBuilder::new()
        .concurrency_limit(1)
        .buffer(8)
        .service(api.clone());
    (api, client)
}

fn is_shed(outcome: &Result<Response<Page>, BoxError>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.is::<tower::load_shed::error::Overloaded>())
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_permit_is_shed_above_and_below() {
    for above in [true, false] {
        let ((tokens, _), (api, one)) = (issuer(), one_at_a_time());
        tokens.get().await.unwrap();
        let client = stack(above, LoadShedLayer::new(), TokenLayer::new(&tokens, origins()), one);
        let first = tokio::spawn(held(client.clone(), get()));
        sleep(SECOND / 2).await;
        assert!(is_shed(&send(&client, get()).await), "above: {above}");
        assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
        assert_eq!(api.deliveries(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_token_is_admitted_above_and_shed_below_when_it_lands() {
    for (above, answered) in [(true, 10), (false, 1)] {
        let ((tokens, issuer), (api, one)) = (issuer(), one_at_a_time());
        let client = stack(above, LoadShedLayer::new(), TokenLayer::new(&tokens, origins()), one);
        let calls: JoinSet<_> = (0..10).map(|_| held(client.clone(), get())).collect();
        let (shed, answers): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(is_shed);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!((answers.len(), shed.len()), (answered, 10 - answered), "above: {above}");
        assert_eq!((api.deliveries(), issuer.fetches()), (answered, 1));
    }
}
