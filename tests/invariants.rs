//! Promises with a number, in virtual time, counted at the issuer and the API.
//!
//! `I6` is the number that the promise has in the comments below. Herds (I1, I2, I4, I5, I7, I8) are in
//! `herd.rs`, refusals and dead credentials (I3, I9, I10) in `revocation.rs`, and I39 is also in `leftovers.rs`.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod flows;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use flows::*;
use serde_json::json;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceExt;
use tower::timeout::Timeout;
use tower::timeout::error::Elapsed;
use tower_token::Clock;
use tower_token::testkit::{Api, Fault, Issuer};

const HOUR: Duration = Duration::from_secs(3600);

// ===== An issuer that fails =====

/// I6, I11. An hour of 503 while the token is good, which is its whole advisory window.
#[tokio::test(start_paused = true)]
async fn a_renewal_window_of_failures_fails_no_request_and_is_asked_about_once_a_minute() {
    let issuer = Issuer::new();
    issuer.lifetime(2 * HOUR);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let began = Instant::now();
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    issuer.fault_always(Some(Fault::Status(503)));
    let mut asked = Vec::new();
    // The last minute is the mandatory window.
    for minute in 60..119 {
        sleep_until(began + minute * MINUTE).await;
        let before = issuer.counts().token_requests;
        let samples = traffic(&client, "/api", 250 * MILLISECOND, MINUTE).await;
        assert_eq!(answered(&samples, 200), samples.len());
        asked.push(issuer.counts().token_requests - before);
    }
    println!("503, while the token is good: {asked:?}");
    assert!((2..=6).contains(&asked[0]), "{asked:?}");
    assert!(asked[1..].iter().all(|asked| *asked <= 1), "{asked:?}");
    sleep_until(began + 119 * MINUTE).await;
    for sample in traffic(&client, "/api", 250 * MILLISECOND, MINUTE).await {
        let error = ours(&sample.outcome);
        assert!(error.is_transient() && error.to_string().contains("login.example.com answered 503"));
    }
    assert_eq!(api.counts().expired_seen, 0);
}

// ===== Those who wait =====

/// I30. Each wait ends at the caller's own deadline, and the exchange at its own.
#[tokio::test(start_paused = true)]
async fn each_caller_on_a_hung_issuer_leaves_at_its_own_deadline_and_one_exchange_serves_all() {
    let issuer = Issuer::new();
    issuer.fault(Fault::Hang);
    let api = Api::new(&issuer);
    let tokens = tokens(client_credentials(&issuer));
    let client = client(&tokens, &api);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for deadline in [50 * MILLISECOND, SECOND, 10 * SECOND].repeat(100) {
        let impatient = Timeout::new(client.clone(), deadline);
        callers.spawn(async move {
            let error = impatient.oneshot(get("/api", "impatient")).await.unwrap_err();
            assert!(error.is::<Elapsed>(), "{error}");
            assert_eq!(began.elapsed(), deadline);
        });
    }
    let patient = call(&client, "/api").await;
    assert!(ours(&patient).is_transient(), "{patient:?}");
    assert_eq!(began.elapsed(), EXCHANGE);
    assert_eq!(callers.join_all().await.len(), 300);
    assert_eq!((issuer.counts().token_requests, tokens.status().waiting), (1, 0));
    assert_eq!(api.counts().requests, 0);
}

/// The timeout of an exchange, a little before that of its fetch, so that it can say what it waited for.
const EXCHANGE: Duration = Duration::from_millis(29_700);

/// I30. Those who left did not end the exchange for those who stayed.
#[tokio::test(start_paused = true)]
async fn an_exchange_that_outlasts_three_deadlines_serves_whoever_stayed() {
    let issuer = Issuer::new();
    issuer.latency(20 * SECOND);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let began = Instant::now();
    let deadlines = [50 * MILLISECOND, SECOND, 10 * SECOND, 21 * SECOND];
    let callers: JoinSet<_> = deadlines
        .map(|deadline| {
            let client = Timeout::new(client.clone(), deadline);
            async move { (client.oneshot(get("/api", deadline.as_millis())).await, began.elapsed()) }
        })
        .into_iter()
        .collect();
    let mut ended = callers.join_all().await;
    ended.sort_by_key(|(_, at)| *at);
    let at: Vec<_> = ended.iter().map(|(_, at)| *at).collect();
    assert_eq!(at, [50 * MILLISECOND, SECOND, 10 * SECOND, 20 * SECOND]);
    assert_eq!(
        ended.iter().map(|(outcome, _)| status(outcome)).collect::<Vec<_>>(),
        [None, None, None, Some(200)]
    );
    assert_eq!(
        (issuer.counts().token_requests, issuer.counts().presented_twice),
        (1, 0)
    );
}

/// I31. The default cap is 65,536.
#[test]
fn of_a_hundred_thousand_callers_on_a_hung_issuer_the_excess_fails_at_once_and_all_memory_comes_back() {
    const CALLERS: usize = 100_000;
    const SEATS: usize = 65_536;
    let runtime = paused();
    let issuer = Issuer::new();
    let (tokens, client) = runtime.block_on(async {
        issuer.fault_always(Some(Fault::Hang));
        let tokens = tokens(client_credentials(&issuer));
        let client = client(&tokens, &Api::new(&issuer));
        // What only the first outage allocates.
        call(&client, "/api").await.unwrap_err();
        sleep(MINUTE).await;
        (tokens, client)
    });

    let mut seated = 0;
    let whole = measure(|| {
        let mut calls: Vec<_> = (0..CALLERS)
            .map(|id| Box::pin(client.clone().oneshot(get("/api", id))))
            .collect();
        let _inside = runtime.enter();
        let mut excess = calls.split_off(SEATS);
        // Before time moves, and with nobody there to be woken.
        let began = measure(|| assert!(polled_once(&mut calls).is_empty()));
        let errors = polled_once(&mut excess);
        assert_eq!((errors.len(), excess.len()), (CALLERS - SEATS, 0));
        assert!(errors.iter().all(|outcome| ours(outcome).is_overloaded()));
        assert_eq!((tokens.status().waiting, calls.len()), (SEATS, SEATS));
        seated = began.bytes_current;
        runtime.block_on(async {
            for call in calls {
                assert!(ours(&call.await).is_transient());
            }
            sleep(MINUTE).await;
        });
    });
    let each = seated / i64::try_from(SEATS).unwrap();
    println!(
        "{each} bytes for each of {SEATS} who wait, {} left over",
        whole.bytes_current
    );
    assert!((1..=1024).contains(&each), "{each}");
    assert_eq!(whole.bytes_current, 0);
    assert_eq!(issuer.counts().token_requests, 2, "one for all of them");
}

/// Takes out those that are over.
fn polled_once<F: Future>(calls: &mut Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut context = Context::from_waker(Waker::noop());
    let mut over = Vec::new();
    calls.retain_mut(|call| match call.as_mut().poll(&mut context) {
        Poll::Ready(outcome) => {
            over.push(outcome);
            false
        }
        Poll::Pending => true,
    });
    over
}

fn paused() -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// I39. The handle belongs to no runtime.
#[test]
fn a_runtime_that_ends_with_an_exchange_in_the_air_resolves_every_waiter_and_the_next_one_goes_on() {
    let issuer = Issuer::new();
    issuer.latency(10 * SECOND);
    let api = Api::new(&issuer);
    let ending = paused();
    let (tokens, client) = ending.block_on(async {
        let tokens = tokens(client_credentials(&issuer));
        (tokens.clone(), client(&tokens, &api))
    });
    let other = paused();
    // They wait in another runtime than the exchange runs in.
    let waiters: Vec<_> = ending.block_on(async {
        let starter = tokio::spawn(tokens.get());
        settle().await;
        drop(starter);
        assert!(tokens.status().fetching);
        (0..100)
            .map(|id| other.spawn(client.clone().oneshot(get("/api", id))))
            .collect()
    });
    other.block_on(settle());
    assert_eq!(tokens.status().waiting, 101);
    drop(ending);
    assert_eq!((tokens.status().waiting, tokens.status().fetching), (0, false));
    other.block_on(async {
        for waiter in waiters {
            let error = ours(&waiter.await.unwrap());
            assert!(
                error.is_transient() && error.to_string().contains("its runtime ended"),
                "{error}"
            );
        }
        sleep(MINUTE).await;
        assert_eq!(status(&call(&client, "/api").await), Some(200));
    });
    let counts = issuer.counts();
    assert_eq!((counts.token_requests, counts.granted, counts.max_in_flight), (2, 1, 1));
    assert_eq!(api.counts().authorized, 1);
}

// ===== A hostile issuer =====

/// I37. Whatever it answers is a failure with a class, over in time, and read no further than it may be.
#[tokio::test(start_paused = true)]
async fn a_hostile_issuer_is_read_for_a_mebibyte_and_for_the_fetch_timeout_at_most() {
    const MIB: u64 = 1 << 20;
    let json = |body: String| Fault::answer(200, "application/json", body);
    let beside = |field: &str| json(format!(r#"{{"access_token":"test-a","token_type":"Bearer",{field}}}"#));
    let deep = format!("\"scope\":{}1{}", "[".repeat(40), "]".repeat(40));
    let long = format!("\"expires_in\":{}", "9".repeat(1_000));
    let now = Duration::ZERO;
    // What it answers, how many bytes of it are read, and how long that takes.
    let table = [
        // The frame that is one too many is seen, and not kept.
        ("64 MiB", Fault::Huge(64 << 20), MIB + FRAME, now),
        ("a byte a second", Fault::Drip(SECOND), 30, EXCHANGE),
        ("arrays in arrays", json("[".repeat(1_000_000)), MIB, now),
        ("objects in objects", json("{\"a\":".repeat(200_000)), MIB, now),
        ("an array 40 deep", beside(&deep), MIB, now),
        ("NaN", beside("\"expires_in\":NaN"), MIB, now),
        ("-Infinity", beside("\"expires_in\":-Infinity"), MIB, now),
        ("1e999", beside("\"expires_in\":1e999"), MIB, now),
        ("a thousand digits", beside(&long), MIB, now),
        (
            "a negative life",
            beside("\"expires_in\":-9223372036854775808"),
            MIB,
            now,
        ),
        ("zeros", json("\u{0}".repeat(1_000)), MIB, now),
    ];
    for (name, answer, read, within) in table {
        let issuer = Issuer::new();
        issuer.fault(answer);
        let api = Api::new(&issuer);
        let client = client(&tokens(client_credentials(&issuer)), &api);
        let began = Instant::now();
        let outcome = call(&client, "/api").await;
        assert!(ours(&outcome).is_transient(), "{name}: {outcome:?}");
        assert_eq!(began.elapsed(), within, "{name}");
        let counts = issuer.counts();
        assert!(counts.answer_bytes <= read, "{name}: {} bytes", counts.answer_bytes);
        assert_eq!((counts.token_requests, counts.in_flight), (1, 0), "{name}");
        assert_eq!(api.counts().requests, 0, "{name}");
        sleep(MINUTE).await;
        assert_eq!(status(&call(&client, "/api").await), Some(200), "after {name}");
    }
}

/// As much as the testkit sends of a huge body at a time.
const FRAME: u64 = 8 << 10;

/// I37. Ten years, the end of time, and more than fits.
#[tokio::test(start_paused = true)]
async fn a_life_of_more_than_a_year_counts_as_a_year() {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    for says in [json!(315_360_000), json!(u64::MAX), json!(1e308), json!("315360000")] {
        let issuer = Issuer::new();
        issuer.lifetime(20 * YEAR).expires_in(Some(says.clone()));
        let api = Api::new(&issuer);
        let tokens = tokens(refresh_grant(&issuer));
        let client = client(&tokens, &api);
        assert_eq!(status(&call(&client, "/api").await), Some(200), "{says}");
        assert_eq!(tokens.status().expires_in, Some(YEAR), "{says}");
        sleep(YEAR).await;
        assert_eq!(status(&call(&client, "/api").await), Some(200), "{says}");
        assert_eq!(issuer.counts().token_requests, 2, "{says}");
    }
}

// ===== Clocks =====

#[derive(Clone, Copy, Debug)]
enum Accident {
    Nothing,
    /// NTP, or somebody with a watch: the wall clock alone.
    Step(i64),
    /// The machine slept: the wall clock went on, tokens died, and the monotonic clock stood still.
    Suspend(i64),
}

/// Exchanges in an hour of traffic with tokens of ten minutes, if this happens `at` so far into them.
async fn exchanges_with(accident: Accident, at: Duration) -> u64 {
    let issuer = Issuer::new();
    issuer.lifetime(10 * MINUTE).latency(2 * SECOND);
    let api = Api::new(&issuer);
    let clock = Clock::of_tokio();
    let tokens = builder(refresh_grant(&issuer)).clock(clock.clone()).build().unwrap();
    let client = client(&tokens, &api);
    let happens = async {
        sleep(at).await;
        match accident {
            Accident::Nothing => {}
            Accident::Step(seconds) => clock.step(seconds),
            Accident::Suspend(seconds) => {
                clock.step(seconds);
                issuer.revoke_access();
            }
        }
    };
    let (samples, ()) = tokio::join!(traffic(&client, "/api", SECOND, HOUR), happens);
    assert_eq!(answered(&samples, 200), samples.len(), "{accident:?} at {at:?}");
    let api = api.counts();
    assert_eq!((api.expired_seen, api.refused), (0, 0), "{accident:?} at {at:?}");
    assert_eq!((issuer.counts().presented_twice, issuer.counts().max_in_flight), (0, 1));
    issuer.counts().token_requests
}

/// I38. In the middle of a life, while an early renewal is in the air, and just after it landed.
#[tokio::test(start_paused = true)]
async fn a_step_of_the_clock_or_a_suspend_costs_one_exchange_more_and_sends_no_dead_token() {
    let usual = exchanges_with(Accident::Nothing, MINUTE).await;
    // Between two requests, which come at whole seconds. The first token is renewed from 302 s on.
    for at in [180_500, 303_500, 310_500].map(Duration::from_millis) {
        for accident in [Accident::Step(3600), Accident::Step(-3600), Accident::Suspend(3600)] {
            let exchanges = exchanges_with(accident, at).await;
            println!("{accident:?} at {at:?}: {exchanges}, usually {usual}");
            assert!(
                exchanges <= usual + 1,
                "{accident:?} at {at:?}: {exchanges}, usually {usual}"
            );
        }
    }
}
