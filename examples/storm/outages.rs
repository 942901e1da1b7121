//! An issuer that is away, that has had enough, or whose answer is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_token::testkit::Fault;
use tower_token::{BoxError, Error};

use crate::outcome::Outcome;
use crate::stage::Stage;
use crate::words::{grouped, seconds};

/// The issuer's port is closed from before a renewal is due until after the token's end.
pub(crate) async fn issuer_down() -> Result<Outcome, BoxError> {
    // Due for renewal after 2 s; nothing is sent in its last second. Asked for after 2 s, 3 s and 5 s to 5.6 s.
    const LIFE: Duration = Duration::from_secs(4);
    const IN_USE: Duration = Duration::from_secs(3);
    let mut stage = Stage::new().await?;
    stage.issuer.lifetime(LIFE);
    let began = Instant::now();
    let warm_up = stage.call("/api").await;
    let crowd = stage.crowd(20, "/api", Duration::from_millis(6_500));
    sleep(Duration::from_secs(1)).await;
    stage.issuer_goes_down().await;
    sleep(LIFE.saturating_sub(began.elapsed())).await;
    stage.issuer_comes_back().await?;
    let healed = Instant::now();
    let calls = crowd.leave().await;
    let (issuer, api) = (stage.issuer.counts(), stage.api.counts());

    // The layer's clock is a few milliseconds late.
    let in_use = began + IN_USE - Duration::from_millis(50);
    let early = calls.count(|call| call.began < in_use && !call.was_answered());
    let named = calls.failed(Error::is_transient);
    let answers = calls.0.iter().filter(|call| call.was_answered());
    let recovery = answers
        .map(|call| call.began + call.took)
        .filter(|at| *at > healed)
        .min();
    let saw = format!(
        "{early} failed while the token was good, {} after its end; healed in {}",
        grouped(calls.0.len() - calls.answered() - early),
        recovery.map_or("no time".into(), |at| seconds(at - healed)),
    );
    Ok(Outcome::of("T45", "the issuer is down for a whole renewal window")
        .callers_saw(saw)
        .token_requests(issuer.token_requests, 2)
        .promise("no request fails while the token is good", early == 0)
        .promise("every failure is named", named + calls.answered() == calls.0.len())
        .promise("it heals by itself", warm_up.was_answered() && recovery.is_some())
        .promise("no expired token is sent", api.expired_seen == 0)
        .promise("no refresh token is presented twice", issuer.presented_twice == 0))
}

/// `429` with `Retry-After: 2` under load.
pub(crate) async fn throttled() -> Result<Outcome, BoxError> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let stage = Stage::new().await?;
    stage.issuer.lifetime(Duration::from_secs(3600));
    stage.issuer.fault(Fault::RetryAfter {
        status: 429,
        seconds: PATIENCE.as_secs(),
    });
    let began = Instant::now();
    let calls = stage
        .crowd(100, "/api", PATIENCE + Duration::from_millis(500))
        .leave()
        .await;
    let throttled = calls.failed(Error::is_throttled);
    let waited = stage.first_minted().map(|minted| minted - began);
    let saw = format!(
        "{} were told how long to wait, then {} answered",
        grouped(throttled),
        grouped(calls.answered()),
    );
    Ok(Outcome::of("T39", "the issuer answers 429 with Retry-After: 2")
        .callers_saw(saw)
        .token_requests(stage.issuer.counts().token_requests, 2)
        .promise("nobody asks within Retry-After", waited >= Some(PATIENCE))
        .promise("every failure is named", throttled + calls.answered() == calls.0.len())
        .promise("it goes on by itself", calls.answered() > 0))
}

/// The issuer rotates, and its connection breaks before the answer is out. It is a strict one.
pub(crate) async fn lost_answer() -> Result<Outcome, BoxError> {
    let stage = Stage::new().await?;
    stage.issuer.lifetime(Duration::from_secs(3600));
    let warm_up = stage.call("/api").await;
    stage.issuer.fault(Fault::DropAfter).revoke_access();
    let calls = stage.crowd(100, "/api", Duration::from_secs(1)).leave().await;
    let asked = stage.issuer.counts();
    stage.sign_in_again()?;
    let after = stage.call("/api").await;
    let told = calls.failed(Error::is_reauth_required);
    let handed_back = calls.count(|call| call.status().is_some_and(|status| status == 401));
    let saw = format!(
        "{handed_back} got the 401, {} were told to sign in, and then answered",
        grouped(told)
    );
    Ok(Outcome::of("T23", "a rotation is committed, its answer is lost")
        .callers_saw(saw)
        .token_requests(asked.token_requests, 1 + 2)
        .promise(
            "a lost answer is asked for once more and in no loop",
            asked.presented_twice == 1,
        )
        .promise("every failure is named", told + handed_back == calls.0.len())
        .promise(
            "a sign-in is all it takes",
            warm_up.was_answered() && after.was_answered(),
        ))
}
