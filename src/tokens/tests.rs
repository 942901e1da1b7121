//! The engine alone, in virtual time, with providers that count.

mod accidents;
mod edges;
mod exchanges;
mod found;
mod initial;
mod keeper;
mod told;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::error::{Class, FetchError};
use crate::event::{Event, HandedBack};
use crate::provider::{BoxFuture, Cause, FetchContext, IfLost, provider_fn};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A provider that counts and takes its answers, and how long each takes, from a closure over the count.
struct Issuer {
    fetches: AtomicUsize,
    causes: Mutex<Vec<Cause>>,
}

fn tokens_of(
    answer: impl Fn(usize) -> (Duration, Result<Token, FetchError>) + Send + Sync + 'static,
    set: impl FnOnce(TokensBuilder) -> TokensBuilder,
) -> (Tokens, Arc<Issuer>) {
    tokens_if_lost(answer, IfLost::ReplayOnce, set)
}

fn tokens_if_lost(
    answer: impl Fn(usize) -> (Duration, Result<Token, FetchError>) + Send + Sync + 'static,
    if_lost: IfLost,
    set: impl FnOnce(TokensBuilder) -> TokensBuilder,
) -> (Tokens, Arc<Issuer>) {
    let issuer = Arc::new(Issuer {
        fetches: AtomicUsize::new(0),
        causes: Mutex::new(Vec::new()),
    });
    let counted = issuer.clone();
    let answer = Arc::new(answer);
    let provider = provider_fn(move |context: FetchContext| {
        let (counted, answer) = (counted.clone(), answer.clone());
        async move {
            let nth = counted.fetches.fetch_add(1, Ordering::SeqCst) + 1;
            counted.causes.lock().unwrap().push(context.cause());
            let (latency, result) = answer(nth);
            sleep(latency).await;
            result
        }
    })
    .if_lost(if_lost);
    let builder = Tokens::builder(provider)
        .clock(Clock::of_tokio())
        .policy(RefreshPolicy::default().jitter(0.0));
    (set(builder).build().unwrap(), issuer)
}

impl Issuer {
    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

fn minted(nth: usize, life: Duration) -> Result<Token, FetchError> {
    Ok(Token::bearer(format!("test-{nth}")).expires_in(life))
}

fn accepted(tokens: &Tokens, token: &Token) {
    let place = || Place { origin: 1, route: None };
    tokens.engine().accept(token.generation().unwrap(), place);
}

/// One that nobody is inside of yet.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_cold_callers_cost_one_fetch() {
    let (tokens, issuer) = tokens_of(|nth| (200 * SECOND / 1000, minted(nth, HOUR)), |b| b);
    let callers: Vec<_> = (0..10_000).map(|_| tokio::spawn(tokens.get())).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().secret(), "test-1");
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_resolves_every_waiter_at_once() {
    let (tokens, issuer) = tokens_of(|_| (SECOND, Err(FetchError::transient("down"))), |b| b);
    let began = Instant::now();
    let callers: Vec<_> = (0..10_000).map(|_| tokio::spawn(tokens.get())).collect();
    for caller in callers {
        assert!(caller.await.unwrap().unwrap_err().is_transient());
    }
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_outlives_every_caller() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    for _ in 0..5 {
        let caller = tokio::spawn(tokens.get());
        settle().await;
        caller.abort();
    }
    assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_goes_out_while_one_fetch_runs() {
    let (tokens, issuer) = tokens_of(|nth| (2 * SECOND, minted(nth, 60 * SECOND)), |b| b);
    tokens.get().await.unwrap();
    advance(31 * SECOND).await;
    for _ in 0..100 {
        let before = Instant::now();
        assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    sleep(3 * SECOND).await;
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(*issuer.causes.lock().unwrap(), [Cause::Initial, Cause::Expiring]);
}

/// Two callers see the same stale token; the second comes to the lock when the renewal of the first has landed.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_finds_a_fresh_token_in_place_costs_no_fetch() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    tokens.get().await.unwrap();
    let engine = tokens.engine();
    engine.renew_in_background(engine.now());
    settle().await;
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_not_handed_out_by_either_clock() {
    for step in [7200, -7200] {
        let clock = Clock::of_tokio();
        let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b.clock(clock.clone()));
        tokens.get().await.unwrap();
        clock.step(step);
        if step < 0 {
            // The wall clock says that the token has hours to live; the timer knows better.
            sleep(HOUR).await;
        }
        assert_eq!(tokens.get().await.unwrap().secret(), "test-2", "{step}");
        assert_eq!(issuer.fetches(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_never_displaces_a_token_that_is_still_good() {
    let answer = |nth| {
        (
            SECOND,
            if nth == 1 {
                minted(nth, HOUR)
            } else {
                Err(FetchError::transient("down"))
            },
        )
    };
    let (tokens, _) = tokens_of(answer, |b| b);
    tokens.get().await.unwrap();
    let born = Instant::now();
    while born.elapsed() < HOUR - 70 * SECOND {
        assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
        sleep(SECOND).await;
    }
    sleep(20 * SECOND).await;
    assert!(tokens.get().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn late_refusals_of_an_old_token_cost_no_fetch() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    tokens.invalidate(&first);
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
    for _ in 0..1_000 {
        tokens.invalidate(&first);
        assert_eq!(tokens.current().unwrap().secret(), "test-2");
    }
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_others_invalidates_nothing() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    let (others, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    tokens.get().await.unwrap();
    tokens.invalidate(&others.get().await.unwrap());
    tokens.invalidate(&Token::bearer("test-1"));
    assert_eq!(tokens.current().unwrap().secret(), "test-1");
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_with_an_early_renewal_in_the_air_costs_one_chained_fetch() {
    let (tokens, issuer) = tokens_of(|nth| (2 * SECOND, minted(nth, 60 * SECOND)), |b| b);
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    advance(31 * SECOND).await;
    tokens.get().await.unwrap();
    settle().await;
    assert_eq!(issuer.fetches(), 2, "the early renewal is in the air");
    let place = Place { origin: 1, route: None };
    let refuse = || {
        tokens
            .engine()
            .refuse(first.generation().unwrap(), place, Challenge::none())
    };
    let waits: Vec<_> = (0..500)
        .map(|_| match refuse() {
            Refusal::Wait(landing) => tokio::spawn(landing),
            _ => panic!("a refusal that does not wait"),
        })
        .collect();
    sleep(3 * SECOND).await;
    // Published in between, but begun before the mark: who comes late still waits for the chained one.
    assert_eq!(tokens.current().unwrap().secret(), "test-2");
    let Refusal::Wait(late) = refuse() else {
        panic!("a late refusal that does not wait")
    };
    late.await;
    for wait in waits {
        assert!(matches!(wait.await.unwrap(), Landed::Published));
    }
    assert_eq!(tokens.current().unwrap().secret(), "test-3");
    assert!(matches!(refuse(), Refusal::Replay));
    assert_eq!(issuer.fetches(), 3);
}

/// The early renewal brought a token that died on its way: nobody has accepted it, so the breaker would
/// let its refusal cost no fetch. The chained one is on its way and costs nothing.
#[tokio::test(start_paused = true)]
async fn a_refusal_the_breaker_holds_joins_the_chained_fetch() {
    let (tokens, issuer) = tokens_of(|nth| (2 * SECOND, minted(nth, 60 * SECOND)), |b| b);
    let place = Place { origin: 1, route: None };
    let refuse = |token: &Token| {
        tokens
            .engine()
            .refuse(token.generation().unwrap(), place, Challenge::none())
    };
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    advance(31 * SECOND).await;
    tokens.get().await.unwrap();
    settle().await;
    // Revoked while the early renewal is in the air.
    assert!(matches!(refuse(&first), Refusal::Wait(_)));
    sleep(3 * SECOND).await;
    let second = tokens.current().unwrap();
    assert_eq!(
        (second.secret(), issuer.fetches()),
        ("test-2", 3),
        "the chained one is in the air"
    );
    let Refusal::Wait(landing) = refuse(&second) else {
        panic!("a refusal that does not wait for what is in the air")
    };
    assert!(matches!(landing.await, Landed::Published));
    assert_eq!(tokens.current().unwrap().secret(), "test-3");
    assert_eq!(issuer.fetches(), 3);
    // Nothing is in the air now: the breaker holds.
    let third = tokens.current().unwrap();
    assert!(matches!(refuse(&third), Refusal::HandBack(HandedBack::Breaker, None)));
    settle().await;
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_provider_strands_nobody() {
    let (tokens, issuer) = tokens_of(
        |nth| match nth {
            1 => panic!("test panic"),
            _ => (SECOND, minted(nth, HOUR)),
        },
        |b| b,
    );
    let callers: Vec<_> = (0..100).map(|_| tokio::spawn(tokens.get())).collect();
    for caller in callers {
        assert!(caller.await.unwrap().is_err());
    }
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn a_runtime_that_ends_in_the_middle_strands_nobody() {
    let (tokens, issuer) = {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (tokens, issuer) = runtime
            .block_on(async { tokens_of(|nth| (if nth == 1 { HOUR } else { SECOND }, minted(nth, HOUR)), |b| b) });
        runtime.block_on(async {
            let waiting = tokens.get();
            tokio::select! {
                biased;
                _ = waiting => panic!("an answer"),
                () = tokio::task::yield_now() => {}
            }
        });
        (tokens, issuer)
    };
    assert!(!tokens.status().fetching);
    assert_eq!(
        runtime().block_on(tokens.get()).unwrap().secret(),
        format!("test-{}", issuer.fetches())
    );
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_ends_at_its_timeout() {
    let (tokens, issuer) = tokens_if_lost(|nth| (100 * HOUR, minted(nth, HOUR)), IfLost::NeverReplay, |b| b);
    let began = Instant::now();
    let error = tokens.get().await.unwrap_err();
    assert_eq!(error.class(), Some(Class::Ambiguous));
    assert!(error.to_string().contains("client of its own"), "{error}");
    assert_eq!((began.elapsed(), issuer.fetches()), (30 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_credential_is_presented_once_a_minute_so_that_no_outage_is_final() {
    let answer = |nth| {
        (
            SECOND,
            if nth < 6 {
                Err(FetchError::transient("reset").lost())
            } else {
                minted(nth, HOUR)
            },
        )
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    let began = Instant::now();
    while tokens.get().await.is_err() {
        sleep(SECOND).await;
    }
    assert_eq!(issuer.fetches(), 6);
    let minutes = began.elapsed().as_secs() / 60;
    assert!((4..=5).contains(&minutes), "{minutes}");
}

#[tokio::test(start_paused = true)]
async fn a_terminal_verdict_is_remembered_until_something_is_installed() {
    let answer = |nth| {
        (
            SECOND,
            if nth == 1 {
                Err(FetchError::terminal("over"))
            } else {
                minted(nth, HOUR)
            },
        )
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    for _ in 0..1_000 {
        assert!(tokens.get().await.unwrap_err().is_reauth_required());
    }
    assert_eq!((issuer.fetches(), tokens.status().state), (1, State::Terminal));
    tokens
        .install(serde_json::json!({ "refresh_token": "test-new" }))
        .unwrap();
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
}

#[tokio::test(start_paused = true)]
async fn installing_in_mid_flight_keeps_one_fetch_in_the_air_and_discards_its_answer() {
    let (tokens, issuer) = tokens_of(|nth| (10 * SECOND, minted(nth, HOUR)), |b| b);
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    tokens.install(serde_json::json!({})).unwrap();
    let refresh = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.refresh().await }
    });
    settle().await;
    assert_eq!(issuer.fetches(), 1, "the second waits for the first to land");
    assert_eq!(waiting.await.unwrap().unwrap().secret(), "test-2");
    assert_eq!(refresh.await.unwrap().unwrap().secret(), "test-2");
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_what_is_in_the_air_and_begins_nothing_more() {
    let (tokens, issuer) = tokens_of(|nth| (10 * SECOND, minted(nth, 60 * SECOND)), |b| b);
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    let began = Instant::now();
    tokens.shutdown().await;
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(waiting.await.unwrap().unwrap().secret(), "test-1");
    sleep(60 * SECOND).await;
    assert!(tokens.get().await.unwrap_err().is_shut_down());
    tokens.install(serde_json::json!({})).unwrap();
    assert!(tokens.get().await.unwrap_err().is_shut_down());
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_after_a_sign_out_in_mid_flight_ends() {
    let (tokens, _) = tokens_of(|nth| (10 * SECOND, minted(nth, HOUR)), |b| b);
    let _waiting = tokio::spawn(tokens.get());
    settle().await;
    tokens.sign_out();
    tokens.shutdown().await;
    assert!(!tokens.status().fetching);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_the_timer_but_a_fetch_in_the_air_lands() {
    let landed = Arc::new(AtomicUsize::new(0));
    let seen = landed.clone();
    let (tokens, _) = tokens_of(
        |nth| (SECOND, minted(nth, HOUR)),
        move |b| {
            b.observe(move |event: &Event| {
                if let Event::Renewed { .. } = event {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            })
        },
    );
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    waiting.abort();
    drop(tokens);
    sleep(2 * SECOND).await;
    assert_eq!(landed.load(Ordering::SeqCst), 1);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_bounded_and_the_excess_fails_at_once() {
    let policy = RefreshPolicy::default().max_waiters(10);
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b.policy(policy));
    let callers: Vec<_> = (0..25).map(|_| tokio::spawn(tokens.get())).collect();
    let mut overloaded = 0;
    for caller in callers {
        overloaded += usize::from(caller.await.unwrap().is_err_and(|error| error.is_overloaded()));
    }
    assert_eq!(overloaded, 15);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_arrives_dead_empty_or_broken_is_not_adopted() {
    let long_ago = std::time::UNIX_EPOCH + SECOND;
    for (token, word) in [
        (Token::bearer(""), "empty"),
        (Token::bearer("test\n"), "0x0a"),
        (Token::bearer("test-a").expires_at(long_ago), "expired when it arrived"),
        (
            Token::bearer("test-a").expires_in(Duration::ZERO),
            "expired when it arrived",
        ),
    ] {
        let (tokens, _) = tokens_of(move |_| (SECOND, Ok(token.clone())), |b| b);
        let error = tokens.get().await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_that_is_not_given_is_assumed_and_told() {
    let told = Arc::new(AtomicUsize::new(0));
    let seen = told.clone();
    let (tokens, _) = tokens_of(
        |_| (SECOND, Ok(Token::bearer("test-a"))),
        move |b| {
            b.observe(move |event: &Event| {
                if let Event::Warned { .. } = event {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            })
        },
    );
    tokens.get().await.unwrap();
    assert_eq!(tokens.status().expires_in, Some(300 * SECOND));
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn lives_shorter_than_the_windows_make_no_storm() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND / 100, minted(nth, 2 * SECOND)), |b| b);
    let began = Instant::now();
    while began.elapsed() < 60 * SECOND {
        tokens.get().await.unwrap();
        sleep(SECOND / 500).await;
    }
    assert!(issuer.fetches() <= 60, "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_failing_issuer_is_asked_six_times_in_the_first_minute() {
    let (tokens, issuer) = tokens_if_lost(
        |_| (Duration::ZERO, Err(FetchError::transient("503"))),
        IfLost::Idempotent,
        |b| b,
    );
    let began = Instant::now();
    while began.elapsed() < 60 * SECOND {
        assert!(tokens.get().await.is_err());
        sleep(SECOND / 10).await;
    }
    assert!((5..=6).contains(&issuer.fetches()), "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_background_renewal_that_fails_is_not_repeated_by_every_call() {
    let answer = |nth| {
        (
            SECOND,
            if nth == 1 {
                minted(nth, HOUR)
            } else {
                Err(FetchError::transient("down"))
            },
        )
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    tokens.get().await.unwrap();
    advance(46 * 60 * SECOND).await;
    let began = Instant::now();
    while began.elapsed() < 60 * SECOND {
        tokens.get().await.unwrap();
        sleep(SECOND / 50).await;
    }
    assert!((6..=7).contains(&issuer.fetches()), "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_goes_out_only_if_static_stability_says_so_and_not_for_ever() {
    let answer = |nth| {
        (
            SECOND,
            if nth == 1 {
                minted(nth, 60 * SECOND)
            } else {
                Err(FetchError::transient("down"))
            },
        )
    };
    let policy = RefreshPolicy::default().jitter(0.0).static_stability(HOUR);
    let (tokens, _) = tokens_of(answer, |b| b.policy(policy));
    tokens.get().await.unwrap();
    advance(120 * SECOND).await;
    assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
    sleep(HOUR).await;
    assert!(tokens.get().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn changed_brings_the_next_token() {
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    tokens.get().await.unwrap();
    let watcher = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.changed().await }
    });
    settle().await;
    tokens.refresh().await.unwrap();
    assert_eq!(watcher.await.unwrap().secret(), "test-2");
}

#[test]
fn without_a_runtime_a_fetch_is_an_error_and_not_a_panic() {
    let tokens = Tokens::new(provider_fn(|_| async { Ok(Token::bearer("test-a")) })).unwrap();
    assert!(tokens.current().is_none());
    let error = tokio_test::task::spawn(tokens.get()).poll();
    assert!(matches!(error, Poll::Ready(Err(error)) if error.to_string().contains("runtime")));
}

#[test]
fn a_waiting_caller_is_ninety_six_bytes_at_most() {
    assert!(size_of::<Get>() <= 96, "{}", size_of::<Get>());
}

#[test]
fn every_wrong_field_of_a_policy_is_named() {
    let policy = RefreshPolicy::default()
        .jitter(f64::NAN)
        .fetch_timeout(Duration::ZERO)
        .max_waiters(0);
    let error = Tokens::builder(provider_fn(|_| async { Ok(Token::bearer("test-a")) }))
        .policy(policy)
        .build()
        .unwrap_err();
    let text = error.to_string();
    for field in ["policy.jitter", "policy.fetch_timeout", "policy.max_waiters"] {
        assert!(text.contains(field), "{text}");
    }
}
