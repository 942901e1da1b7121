//! How often a credential is presented, and how often an issuer is asked, when things go wrong.

use super::*;
use serde_json::json;

type Seen = Arc<Mutex<Vec<(Duration, String)>>>;

/// Records every presentation (when, which rt), then answers.
fn presenting(
    answer: impl Fn(usize) -> (Duration, Result<Token, FetchError>) + Send + Sync + 'static,
    if_lost: IfLost,
    clock: Clock,
) -> (Tokens, Seen) {
    let seen: Seen = Arc::default();
    let log = seen.clone();
    let began = Instant::now();
    let answer = Arc::new(answer);
    let provider = provider_fn(move |context: FetchContext| {
        let rt = context
            .credential()
            .and_then(|c| c["rt"].as_str())
            .unwrap_or("seed")
            .to_owned();
        let nth = {
            let mut log = log.lock().unwrap();
            log.push((began.elapsed(), rt));
            log.len()
        };
        let answer = answer.clone();
        async move {
            let (latency, result) = answer(nth);
            sleep(latency).await;
            result
        }
    })
    .if_lost(if_lost);
    let tokens = Tokens::builder(provider)
        .clock(clock)
        .policy(RefreshPolicy::default().jitter(0.0))
        .build()
        .unwrap();
    (tokens, seen)
}
fn rts(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().iter().map(|(_, rt)| rt.clone()).collect()
}
fn within(seen: &Seen, limit: Duration) -> usize {
    seen.lock().unwrap().iter().filter(|(at, _)| *at < limit).count()
}
fn rotated(nth: usize, life: Duration) -> Result<Token, FetchError> {
    Ok(minted(nth, life)?.credential(json!({ "rt": format!("rt-{nth}") })))
}
async fn drive(tokens: &Tokens, time: Duration, step: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        let _ = tokens.get().await;
        sleep(step).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspend_during_the_exchange_loses_no_rotated_credential() {
    let clock = Clock::of_tokio();
    let stepped = clock.clone();
    let (tokens, seen) = presenting(
        move |nth| {
            if nth == 2 {
                stepped.step(7200);
            }
            (SECOND, rotated(nth, HOUR))
        },
        IfLost::ReplayOnce,
        clock,
    );
    tokens.get().await.unwrap();
    let _ = tokens.refresh().await; // suspended meanwhile
    sleep(10 * SECOND).await;
    let _ = tokens.get().await;
    let rts = rts(&seen);
    assert!(rts.iter().filter(|rt| *rt == "rt-1").count() == 1, "{rts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_credential_installed_while_a_flight_waits_is_presented_once() {
    let (tokens, seen) = presenting(
        |nth| (SECOND / 10, rotated(nth, HOUR)),
        IfLost::ReplayOnce,
        Clock::of_tokio(),
    );
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    tokens.invalidate(&first);
    let second = tokens.get().await.unwrap(); // floor set: one second
    accepted(&tokens, &second);
    tokens.invalidate(&second); // its flight waits for the floor
    settle().await;
    tokens.install(json!({ "rt": "B" })).unwrap();
    let _ = tokens.get().await;
    let rts = rts(&seen);
    assert!(rts.iter().filter(|rt| *rt == "B").count() == 1, "{rts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_credential_installed_between_two_presentations_is_presented_once() {
    let (tokens, seen) = presenting(
        |nth| match nth {
            1 => (SECOND, Err(FetchError::transient("reset").lost())),
            _ => (SECOND, rotated(nth, HOUR)),
        },
        IfLost::ReplayOnce,
        Clock::of_tokio(),
    );
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    tokens.install(json!({ "rt": "B" })).unwrap();
    let _ = waiting.await.unwrap();
    let rts = rts(&seen);
    assert!(rts.iter().filter(|rt| *rt == "B").count() == 1, "{rts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_waited_when_somebody_signed_out_presents_nothing() {
    let (tokens, seen) = presenting(
        |nth| (SECOND / 10, rotated(nth, HOUR)),
        IfLost::ReplayOnce,
        Clock::of_tokio(),
    );
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    tokens.invalidate(&first);
    let second = tokens.get().await.unwrap();
    accepted(&tokens, &second);
    tokens.invalidate(&second);
    settle().await;
    tokens.sign_out();
    sleep(5 * SECOND).await;
    let rts = rts(&seen);
    assert!(rts.iter().filter(|rt| *rt == "seed").count() == 1, "{rts:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_after_zero_is_no_storm() {
    let (tokens, seen) = presenting(
        |_| (Duration::ZERO, Err(FetchError::throttled(Some(Duration::ZERO), "429"))),
        IfLost::Idempotent,
        Clock::of_tokio(),
    );
    drive(&tokens, 60 * SECOND, SECOND / 10).await;
    assert!(within(&seen, 60 * SECOND) <= 60, "{}", within(&seen, 60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_is_asked_by_the_backoff_table() {
    let (tokens, seen) = presenting(|_| panic!("test panic"), IfLost::Idempotent, Clock::of_tokio());
    drive(&tokens, 60 * SECOND, SECOND / 10).await;
    assert!(within(&seen, 60 * SECOND) <= 6, "{}", within(&seen, 60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn panics_after_a_failure_are_no_storm() {
    let (tokens, seen) = presenting(
        |nth| match nth {
            1 => (Duration::ZERO, Err(FetchError::transient("down"))),
            _ => panic!("test panic"),
        },
        IfLost::Idempotent,
        Clock::of_tokio(),
    );
    drive(&tokens, 60 * SECOND, SECOND / 100).await;
    assert!(within(&seen, 60 * SECOND) <= 61, "{}", within(&seen, 60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn never_replay_holds_after_an_abort() {
    let (tokens, seen) = presenting(|_| panic!("test panic"), IfLost::NeverReplay, Clock::of_tokio());
    drive(&tokens, 60 * SECOND, SECOND).await;
    assert_eq!(rts(&seen).len(), 1);
}

/// Its answer was lost the first time, and is judged as that; it said when to come back all the same.
#[tokio::test(start_paused = true)]
async fn an_issuer_that_throttles_the_second_presentation_is_left_alone_for_as_long_as_it_says() {
    let throttled = |nth| match nth {
        1 => (SECOND / 10, Err(FetchError::transient("504").lost())),
        _ => (SECOND / 10, Err(FetchError::throttled(Some(600 * SECOND), "503"))),
    };
    let (tokens, seen) = presenting(throttled, IfLost::ReplayOnce, Clock::of_tokio());
    drive(&tokens, 590 * SECOND, SECOND).await;
    assert_eq!(rts(&seen).len(), 2);
    drive(&tokens, 60 * SECOND, SECOND).await;
    assert_eq!(rts(&seen).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_followed_by_a_refused_connection_is_still_lost() {
    // Odd: the answer is lost. Even: nobody listens.
    let (tokens, seen) = presenting(
        |nth| match nth % 2 {
            1 => (SECOND / 10, Err(FetchError::transient("reset").lost())),
            _ => (SECOND / 10, Err(FetchError::transient("connection refused"))),
        },
        IfLost::ReplayOnce,
        Clock::of_tokio(),
    );
    drive(&tokens, 60 * SECOND, SECOND / 10).await;
    // Presentations that may have reached the issuer: the odd ones.
    let lost = within(&seen, 60 * SECOND).div_ceil(2);
    assert!(lost <= 2, "{lost} presentations with a lost answer in the first minute");
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_does_not_forget_a_lost_answer() {
    // L L | C | L L ...
    let (tokens, seen) = presenting(
        |nth| match nth {
            3 => (SECOND / 10, Err(FetchError::transient("connection refused"))),
            _ => (SECOND / 10, Err(FetchError::transient("reset").lost())),
        },
        IfLost::ReplayOnce,
        Clock::of_tokio(),
    );
    drive(&tokens, 100 * SECOND, SECOND / 10).await;
    let n = seen
        .lock()
        .unwrap()
        .iter()
        .filter(|(at, _)| *at > 60 * SECOND && *at < 100 * SECOND)
        .count();
    assert!(n <= 2, "{n} presentations in 40 s");
}

#[tokio::test(start_paused = true)]
async fn replay_within_ends_when_its_time_is_over() {
    let (tokens, seen) = presenting(
        |_| (SECOND / 10, Err(FetchError::transient("reset").lost())),
        IfLost::ReplayWithin(10 * SECOND),
        Clock::of_tokio(),
    );
    drive(&tokens, 10 * 60 * SECOND, SECOND).await;
    let times: Vec<_> = seen.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect();
    assert!(times.iter().all(|at| *at <= 10), "{times:?}");
}

pub(super) fn challenge(error: &str) -> Challenge {
    let mut headers = http::HeaderMap::new();
    headers.insert("www-authenticate", format!("Bearer error=\"{error}\"").parse().unwrap());
    Challenge::parse_all(&headers).remove(0)
}
pub(super) const PLACE: Place = Place { origin: 1, route: None };

#[tokio::test(start_paused = true)]
async fn a_lost_step_up_is_a_presentation() {
    let (tokens, seen) = presenting(
        |nth| match nth {
            2 => (SECOND, Err(FetchError::transient("reset").lost())),
            _ => (SECOND, rotated(nth, HOUR)),
        },
        IfLost::NeverReplay,
        Clock::of_tokio(),
    );
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    let _ = tokens
        .engine()
        .refuse(first.generation().unwrap(), PLACE, challenge("insufficient_claims"));
    sleep(5 * SECOND).await;
    advance(50 * 60 * SECOND).await;
    let _ = tokens.get().await; // stale: background renewal
    sleep(5 * SECOND).await;
    let rts = rts(&seen);
    assert!(rts.iter().filter(|rt| *rt == "rt-1").count() == 1, "{rts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_up_keeps_to_never_replay() {
    let (tokens, seen) = presenting(
        |nth| match nth {
            2 => (SECOND, Err(FetchError::transient("reset").lost())),
            _ => (SECOND, rotated(nth, HOUR)),
        },
        IfLost::NeverReplay,
        Clock::of_tokio(),
    );
    let first = tokens.get().await.unwrap();
    advance(50 * 60 * SECOND).await;
    let _ = tokens.get().await; // stale: background renewal, lost
    sleep(5 * SECOND).await;
    let _ = tokens
        .engine()
        .refuse(first.generation().unwrap(), PLACE, challenge("insufficient_claims"));
    sleep(5 * SECOND).await;
    let rts = rts(&seen);
    assert!(rts.iter().filter(|rt| *rt == "rt-1").count() == 1, "{rts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_up_in_the_air_brings_nothing_back_after_a_sign_out() {
    let (tokens, issuer) = tokens_of(|nth| (10 * SECOND, minted(nth, HOUR)), |b| b);
    let first = tokens.get().await.unwrap().generation().unwrap();
    let challenge = challenge("insufficient_claims");
    let Refusal::Wait(landing) = tokens.engine().refuse(first, PLACE, challenge) else {
        panic!("nobody is asked")
    };
    settle().await;
    tokens.sign_out();
    assert!(matches!(landing.await, Landed::Superseded));
    sleep(60 * SECOND).await;
    assert!(tokens.current().is_none());
    assert_eq!((tokens.status().state, issuer.fetches()), (State::SignedOut, 2));
    tokens.install(serde_json::json!({})).unwrap();
    assert_eq!(tokens.get().await.unwrap().secret(), "test-3");
}

#[tokio::test(start_paused = true)]
async fn a_step_up_during_a_renewal_is_not_used_up() {
    let (tokens, issuer) = tokens_of(
        |nth| match nth {
            2 => (SECOND, Err(FetchError::transient("down"))),
            _ => (SECOND, minted(nth, HOUR)),
        },
        |b| b,
    );
    let first = tokens.get().await.unwrap();
    advance(50 * 60 * SECOND).await;
    let _ = tokens.get().await;
    settle().await;
    let refuse = || {
        tokens
            .engine()
            .refuse(first.generation().unwrap(), PLACE, challenge("insufficient_claims"))
    };
    let _ = refuse();
    sleep(5 * SECOND).await; // the renewal failed; the air is free
    assert_eq!(issuer.fetches(), 2);
    assert!(matches!(refuse(), Refusal::Wait(_)), "the provider was never asked");
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_zero_makes_no_storm() {
    let (tokens, issuer) = tokens_of(
        |nth| (SECOND / 10, Ok(minted(nth, HOUR).unwrap().refresh_in(Duration::ZERO))),
        |b| b,
    );
    drive(&tokens, 60 * SECOND, SECOND / 100).await;
    assert!(issuer.fetches() <= 60, "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_past_makes_no_storm() {
    let clock = Clock::of_tokio();
    let now = clock.now();
    let (tokens, issuer) = tokens_of(
        move |nth| (SECOND / 10, Ok(minted(nth, HOUR).unwrap().renew_by(now))),
        |b| b.clock(clock),
    );
    drive(&tokens, 60 * SECOND, SECOND / 100).await;
    assert!(issuer.fetches() <= 60, "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn the_second_presentation_has_a_time_of_its_own() {
    let (tokens, _) = tokens_of(
        |nth| match nth {
            1 => (100 * HOUR, minted(nth, HOUR)),
            _ => (SECOND, minted(nth, 20 * SECOND)),
        },
        |b| b,
    );
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
}

#[tokio::test(start_paused = true)]
async fn changed_subscribes_when_it_is_called() {
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    let changed = tokens.changed();
    tokens.refresh().await.unwrap();
    assert!(tokio::time::timeout(24 * HOUR, changed).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_old_flight_that_dies_does_not_taint_a_new_credential() {
    let (tokens, _) = presenting(
        |nth| match nth {
            1 => (SECOND, Err(FetchError::transient("unused"))),
            2 => (SECOND, Err(FetchError::transient("reset").lost())),
            _ => (SECOND, rotated(nth, HOUR)),
        },
        IfLost::ReplayOnce,
        Clock::of_tokio(),
    );
    let policy = RefreshPolicy::default();
    let mut desk = desk::Desk::new(&policy);
    let nobody = crate::event::Observers::default();
    let at = desk::Outlook {
        observers: &nobody,
        mono: Instant::now(),
        wall: tokens.engine().now(),
        policy: &policy,
        runtime: true,
        engine: 1,
    };
    let (_, departure) = desk.need(at);
    desk.begin(Instant::now());
    desk.leave(desk::Phase::Open, Some(json!({})));
    desk.abort(&departure.unwrap(), IfLost::ReplayOnce, at);
    assert_eq!(desk.schedule.lost(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_comes_with_a_malformed_token_replaces_the_old_one() {
    let (tokens, seen) = presenting(
        |nth| match nth {
            1 => (SECOND, rotated(nth, HOUR)),
            2 => (SECOND, Err(FetchError::transient("reset").lost())),
            3 => {
                let malformed = FetchError::transient("malformed").lost();
                (SECOND, Err(malformed.new_credential(json!({ "rt": "rt-3" }))))
            }
            _ => (SECOND, rotated(nth, HOUR)),
        },
        IfLost::ReplayOnce,
        Clock::of_tokio(),
    );
    tokens.get().await.unwrap();
    assert_eq!(tokens.refresh().await.unwrap_err().class(), Some(Class::Transient));
    tokens.refresh().await.unwrap();
    assert_eq!(rts(&seen), ["seed", "rt-1", "rt-1", "rt-3"]);
}

#[tokio::test(start_paused = true)]
async fn never_replay_holds_after_a_refresh_that_found_nobody() {
    let (tokens, seen) = presenting(
        |nth| match nth {
            1 => (SECOND, Err(FetchError::transient("reset").lost())),
            _ => (SECOND, Err(FetchError::transient("connection refused"))),
        },
        IfLost::NeverReplay,
        Clock::of_tokio(),
    );
    drive(&tokens, 10 * SECOND, SECOND).await;
    assert!(tokens.refresh().await.unwrap_err().is_reauth_required());
    drive(&tokens, 3600 * SECOND, SECOND).await;
    assert_eq!(
        rts(&seen),
        ["seed", "seed"],
        "the second is the one that was asked for by hand"
    );
}

/// SMH renewed the token that had just landed by acquiring another, as if that one had been refused.
#[tokio::test(start_paused = true)]
async fn a_chained_fetch_is_told_that_the_token_in_place_is_not_the_one_refused() {
    let asked: Arc<Mutex<Vec<(Cause, bool)>>> = Arc::default();
    let log = asked.clone();
    let provider = provider_fn(move |context| {
        let log = log.clone();
        async move {
            let minted_before = {
                let mut log = log.lock().unwrap();
                log.push((context.cause(), context.is_refused()));
                log.len()
            };
            sleep(10 * SECOND).await;
            minted(minted_before, HOUR)
        }
    });
    let tokens = Tokens::builder(provider)
        .clock(Clock::of_tokio())
        .policy(RefreshPolicy::default().jitter(0.0))
        .build()
        .unwrap();
    let first = tokens.get().await.unwrap();
    sleep(3000 * SECOND).await;
    assert!(tokens.current().is_some(), "stale, and renewed in the background");
    sleep(SECOND).await;
    tokens.invalidate(&first);
    sleep(30 * SECOND).await;
    let refused = tokens.get().await.unwrap();
    sleep(300 * SECOND).await;
    tokens.invalidate(&refused);
    tokens.get().await.unwrap();
    assert_eq!(
        *asked.lock().unwrap(),
        [
            (Cause::Initial, false),
            (Cause::Expiring, false),
            (Cause::Refused, false),
            (Cause::Refused, true)
        ]
    );
}
