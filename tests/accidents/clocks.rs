//! Clocks: machines that sleep, issuers whose clock is off, wall clocks that are set (T49 to T51).

use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, ApiCounts, Fault, Issuer};
use tower_token::*;

use crate::flows::*;

/// An issuer whose tokens live so long, its API, and a client with a clock of its own.
fn by_the(clock: &Clock, life: Duration, policy: RefreshPolicy) -> (Issuer, Api, Client) {
    let issuer = Issuer::new();
    issuer.lifetime(life);
    let api = Api::new(&issuer);
    let builder = builder(refresh_grant(&issuer)).clock(clock.clone()).policy(policy);
    let client = client(&builder.build().unwrap(), &api);
    (issuer, api, client)
}

/// Timers stood still while a laptop slept, and its first request took a token that had died meanwhile:
/// taskcluster/taskcluster#5269, opentdf#1854, ltratt/pizauth#48.
#[tokio::test(start_paused = true)]
async fn t49_after_a_suspend_the_first_requests_renew_before_they_are_sent() {
    for policy in [policy(), policy().keep_alive(true)] {
        let clock = Clock::of_tokio();
        let (issuer, api, client) = by_the(&clock, HOUR, policy);
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        // Two hours for everybody but the monotonic clock, by which the API of these tests lives.
        clock.step(2 * 3600);
        issuer.revoke_access();
        let mut woken = JoinSet::new();
        for id in 0..100 {
            woken.spawn(client.clone().oneshot(get("/api", id)));
        }
        assert!(
            woken
                .join_all()
                .await
                .iter()
                .all(|outcome| status(outcome) == Some(200))
        );
        assert_eq!(issuer.counts().token_requests, 2);
        let counts = api.counts();
        assert_eq!(
            (counts.requests, counts.revoked_seen, counts.max_deliveries),
            (101, 0, 1)
        );
        // Nothing of it is left over.
        let samples = traffic(&client, "/api", 2 * SECOND, 3 * HOUR).await;
        assert_eq!(answered(&samples, 200), samples.len());
        assert_eq!((api.counts().expired_seen, issuer.counts().token_requests), (0, 2 + 3));
    }
}

/// It slept with a renewal in the air, which was waited for until the program was restarted:
/// router-for-me/CLIProxyAPI#5584.
#[tokio::test(start_paused = true)]
async fn t49_a_suspend_with_a_renewal_in_the_air_blocks_nothing() {
    let clock = Clock::of_tokio();
    let (issuer, api, client) = by_the(&clock, HOUR, policy());
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    sleep(46 * MINUTE).await;
    // The connection did not survive the night.
    issuer.fault(Fault::Hang);
    assert_eq!(status(&call(&client, "/api").await), Some(200), "stale, and good");
    settle().await;
    assert_eq!(issuer.counts().in_flight, 1);
    clock.step(2 * 3600);
    issuer.revoke_access();
    let began = Instant::now();
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    assert!(
        began.elapsed() <= 30 * SECOND,
        "one fetch timeout: {:?}",
        began.elapsed()
    );
    assert_eq!((api.counts().revoked_seen, issuer.counts().token_requests), (0, 3));
}

/// With a clock 50 s fast a token of 60 s was never a token, with a slow one an expired token was for ever:
/// koala73/worldmonitor#5932, workos/authkit-nextjs#470.
#[tokio::test(start_paused = true)]
async fn t50_a_clock_that_is_off_changes_nothing_where_lives_are_durations() {
    let mut asked = Vec::new();
    for off in [0, 50, -50, 7 * 3600, -7 * 3600] {
        let clock = Clock::of_tokio();
        clock.step(off);
        let (issuer, api, client) = by_the(&clock, MINUTE, policy());
        let samples = traffic(&client, "/api", 500 * MILLISECOND, 10 * MINUTE).await;
        assert_eq!(answered(&samples, 200), samples.len(), "{off}");
        assert_eq!(api.counts().refused, 0, "{off}");
        asked.push(issuer.counts().token_requests);
    }
    assert!(asked.iter().all(|of_one| *of_one == asked[0]), "{asked:?}");
}

/// A grant whose tokens say when they end, by a clock of the issuer's own.
struct UntilThen {
    grant: RefreshTokenGrant,
    end: fn(SystemTime) -> SystemTime,
}

impl TokenProvider for UntilThen {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        let asked = context.now();
        Ok(self.grant.fetch(context).await?.expires_at((self.end)(asked)))
    }
}

/// Ten minutes of calls with tokens of a minute; how often they were asked for, and what the API saw.
async fn until_then(end: fn(SystemTime) -> SystemTime, gap: Duration) -> (u64, ApiCounts) {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let grant = refresh_grant(&issuer);
    let samples = traffic(
        &client(&tokens(UntilThen { grant, end }), &api),
        "/api",
        gap,
        10 * MINUTE,
    )
    .await;
    assert_eq!(answered(&samples, 200), samples.len());
    assert_eq!(issuer.counts().presented_twice, 0);
    assert!(api.counts().max_deliveries <= 2);
    (issuer.counts().token_requests, api.counts())
}

/// The same for tokens that name the instant of their end.
#[tokio::test(start_paused = true)]
async fn t50_an_end_by_a_clock_that_is_off_by_50_seconds_fails_no_request() {
    // Ten seconds seem to be left of a minute: half of them are used.
    let (asked, seen) = until_then(|asked| asked + 10 * SECOND, 500 * MILLISECOND).await;
    assert!((60..=120).contains(&asked) && seen.refused == 0, "{asked}, {seen:?}");
    // 110 s seem to be left of a minute. Those who ask often renew in time ...
    let (asked, seen) = until_then(|asked| asked + 110 * SECOND, 500 * MILLISECOND).await;
    assert!(asked <= 11 && seen.refused == 0, "{asked}, {seen:?}");
    // ... and the refusal tells those who do not: at a fetch and a replay each time.
    let (asked, seen) = until_then(|asked| asked + 110 * SECOND, 35 * SECOND).await;
    assert!(
        seen.refused > 0 && seen.refused < asked && asked <= 11,
        "{asked}, {seen:?}"
    );
}

/// Calls for half an hour, what happens to `clock` then, calls for three hours more; how often a token was asked for.
async fn across(then: impl AsyncFnOnce(&Clock, &Client)) -> u64 {
    let clock = Clock::of_tokio();
    let (issuer, api, client) = by_the(&clock, HOUR, policy());
    let before = traffic(&client, "/api", 2 * SECOND, 30 * MINUTE).await;
    then(&clock, &client).await;
    let after = traffic(&client, "/api", 2 * SECOND, 3 * HOUR).await;
    for samples in [before, after] {
        assert_eq!(answered(&samples, 200), samples.len());
    }
    // The API's clock is the monotonic one.
    assert_eq!((api.counts().expired_seen, api.counts().refused), (0, 0));
    issuer.counts().token_requests
}

/// NTP set the clock, and tokens lived for ever or were renewed without end: nymtech/nym-vpn-client#6150, taOS#2801.
#[tokio::test(start_paused = true)]
async fn t51_a_step_of_a_day_costs_one_fetch_at_most_and_lengthens_no_life() {
    const DAY: i64 = 24 * 3600;
    let undisturbed = across(async |_, _| {}).await;
    let forward = across(async |clock, _| clock.step(DAY)).await;
    let backward = across(async |clock, _| clock.step(-DAY)).await;
    let there_and_back = across(async |clock, client| {
        clock.step(DAY);
        assert_eq!(status(&call(client, "/api").await), Some(200));
        sleep(10 * SECOND).await;
        clock.step(-DAY);
    });
    let there_and_back = there_and_back.await;
    println!("{undisturbed} undisturbed, {forward} forward, {backward} backward, {there_and_back} there and back");
    assert!(forward <= undisturbed + 1 && backward <= undisturbed + 1 && there_and_back <= undisturbed + 2);
}

/// What was put off by the time of day is not put off for a day more.
#[tokio::test(start_paused = true)]
async fn t51_a_step_back_during_an_outage_ends_no_renewals() {
    let clock = Clock::of_tokio();
    let (issuer, api, client) = by_the(&clock, HOUR, policy());
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    sleep(45 * MINUTE).await;
    issuer.fault_always(Some(Fault::Status(503)));
    let during = traffic(&client, "/api", SECOND, 5 * MINUTE).await;
    clock.step(-24 * 3600);
    issuer.fault_always(None);
    let after = traffic(&client, "/api", 2 * SECOND, 3 * HOUR).await;
    for samples in [during, after] {
        assert_eq!(answered(&samples, 200), samples.len());
    }
    assert_eq!(api.counts().expired_seen, 0);
    assert!(issuer.counts().granted <= 1 + 5, "{:?}", issuer.counts());
}

/// The network goes with the lid: the last renewal before the sleep fails, and what its backoff still had to wait
/// was waited for again after the wake, by a clock that had stood still (up to an hour after a 429).
#[tokio::test(start_paused = true)]
async fn t49_a_backoff_is_over_when_the_machine_wakes() {
    for fault in [
        Fault::RetryAfter {
            status: 429,
            seconds: 3000,
        },
        Fault::oauth_error(400, "invalid_grant"),
    ] {
        let issuer = Issuer::new();
        let clock = Clock::of_tokio();
        let tokens = builder(refresh_grant(&issuer)).clock(clock.clone()).build().unwrap();
        issuer.fault(fault);
        assert!(tokens.get().await.is_err());
        assert!(tokens.get().await.is_err());
        assert_eq!(issuer.counts().token_requests, 1);
        clock.step(2 * 3600);
        assert!(tokens.get().await.is_ok());
        assert_eq!(issuer.counts().token_requests, 2);
    }
}
