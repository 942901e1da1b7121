//! Many callers, one token: at an expiry, after a revocation, and callers that leave in the middle.

use std::time::Duration;

use tokio::time::sleep;
use tower_token::testkit::Fault;
use tower_token::{BoxError, Event, RefreshPolicy};

use crate::outcome::Outcome;
use crate::stage::Stage;
use crate::words::{grouped, millis};

const HERD: usize = 1_000;

/// 1,000 callers find no token, and again 1,000 find an expired one.
pub(crate) async fn herd_at_expiry() -> Result<Outcome, BoxError> {
    // The herd has half of it before an early renewal would be due.
    const LIFE: Duration = Duration::from_secs(5);
    let stage = Stage::new().await?;
    stage.issuer.lifetime(LIFE).latency(Duration::from_millis(200));
    let cold = stage.herd(HERD, "/api").await;
    sleep(LIFE).await;
    // The second herd may take as long as the machine makes it.
    stage.issuer.lifetime(Duration::from_secs(3600));
    let expired = stage.herd(HERD, "/api").await;
    let (answered, slowest) = (
        cold.answered() + expired.answered(),
        cold.slowest().max(expired.slowest()),
    );
    let (issuer, api) = (stage.issuer.counts(), stage.api.counts());
    let saw = format!(
        "{} of {} answered, the slowest in {}",
        grouped(answered),
        grouped(2 * HERD),
        millis(slowest)
    );
    Ok(Outcome::of("T01", "1,000 callers at once, cold and at an expiry")
        .callers_saw(saw)
        .token_requests(issuer.token_requests, 2)
        .promise("one exchange at a time", issuer.max_in_flight == 1)
        .promise("everybody is answered", answered == 2 * HERD)
        .promise("no expired token is sent", api.expired_seen == 0))
}

/// A token is revoked under 1,000 requests, and their refusals trickle in after the new token did.
pub(crate) async fn late_refusals() -> Result<Outcome, BoxError> {
    let stage = Stage::new().await?;
    stage.issuer.lifetime(Duration::from_secs(3600));
    let warm_up = stage.call("/api").await;
    stage.issuer.revoke_access();
    // All have gone out with the old token before the first is refused.
    stage.api.latency(Duration::from_millis(100));
    stage.api.refusal_spread(Duration::from_millis(500));
    let calls = stage.herd(HERD, "/api").await;
    let api = stage.api.counts();
    let saw = format!(
        "{} of {} answered, {} of them sent again",
        grouped(calls.answered()),
        grouped(HERD),
        grouped(stage.api.delivered_more_than(1)),
    );
    Ok(Outcome::of("T05", "a token is revoked, its 401s come late")
        .callers_saw(saw)
        .token_requests(stage.issuer.counts().token_requests, 2)
        .promise(
            "everybody is answered",
            warm_up.was_answered() && calls.answered() == HERD,
        )
        .promise("no request is sent three times", api.max_deliveries <= 2))
}

/// 8 callers wait for a rotation and leave in the middle of it, at a later millisecond in each round.
pub(crate) async fn callers_that_leave() -> Result<Outcome, BoxError> {
    const ROUNDS: u64 = 40;
    // So that a revocation may follow the last one at once.
    let policy = RefreshPolicy::default().min_interval(Duration::ZERO);
    let stage = Stage::with(policy, |_: &Event| {}).await?;
    // The issuer rotates in the middle of the exchange.
    stage.issuer.latency(Duration::from_millis(20));
    stage.issuer.lifetime(Duration::from_secs(3600));
    stage
        .issuer
        .fault_always(Some(Fault::DelayAfter(Duration::from_millis(20))));
    let mut served = usize::from(stage.call("/api").await.was_answered());
    for round in 0..ROUNDS {
        stage.issuer.revoke_access();
        let crowd = stage.crowd(8, "/api", Duration::from_secs(1));
        sleep(Duration::from_millis(round)).await;
        drop(crowd);
        served += usize::from(stage.call("/api").await.was_answered());
    }
    let issuer = stage.issuer.counts();
    let saw = format!(
        "{} left; the next one was answered in {} of {ROUNDS} rounds",
        8 * ROUNDS,
        served - 1
    );
    Ok(Outcome::of("T12", "callers leave while a refresh token rotates")
        .callers_saw(saw)
        .token_requests(issuer.token_requests, 1 + ROUNDS)
        .promise("no refresh token is lost", served as u64 == 1 + ROUNDS)
        .promise("no refresh token is presented twice", issuer.presented_twice == 0))
}
