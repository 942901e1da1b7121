//! Decisions at their edges: the very instant, the step between two phases, and what is in the air meanwhile.

use super::accidents::{PLACE, challenge};
use super::desk::{Outlook, Upkeep};
use super::told::Told;
use super::*;
use crate::clock::A_YEAR;
use crate::event::Skipped;
use serde_json::json;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

fn refuse(tokens: &Tokens, token: &Token, challenge: Challenge) -> Refusal {
    tokens.engine().refuse(token.generation().unwrap(), PLACE, challenge)
}

/// The first fetch brings a token of this life; what comes then is up to `later`.
fn first_of(
    life: Duration,
    later: impl Fn(usize) -> Result<Token, FetchError> + Send + Sync + 'static,
) -> impl Fn(usize) -> (Duration, Result<Token, FetchError>) + Send + Sync + 'static {
    move |nth| (SECOND, if nth == 1 { minted(nth, life) } else { later(nth) })
}

fn down(_: usize) -> Result<Token, FetchError> {
    Err(FetchError::transient("down"))
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_alive_is_due_at_the_instant_itself() {
    let (tokens, _) = tokens_of(first_of(HOUR, down), |b| b);
    tokens.get().await.unwrap();
    let engine = tokens.engine();
    let keep = engine.desk().current.as_ref().unwrap().plan.keep;
    let at = |wall| Outlook {
        wall,
        ..engine.outlook(true)
    };
    let early = engine.desk().keep(at(keep.before(MILLISECOND)));
    let until = Instant::now() + MILLISECOND;
    assert!(matches!(early, Upkeep::Rest(Some(rest)) if rest == until));
    // The monotonic clock is 45 minutes behind.
    assert!(matches!(engine.desk().keep(at(keep)), Upkeep::Fly(_)));
}

#[tokio::test(start_paused = true)]
async fn static_stability_ends_at_its_instant() {
    let (tokens, _) = tokens_of(first_of(HOUR, down), |b| b);
    tokens.get().await.unwrap();
    let desk = tokens.engine().desk();
    let end = desk.current.as_ref().unwrap().plan.dies.after(HOUR);
    assert!(desk.last_resort(end.before(MILLISECOND), HOUR).is_some());
    assert!(desk.last_resort(end, HOUR).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_over_by_one_clock_is_a_last_resort_only_with_static_stability() {
    for extra in [Duration::ZERO, MINUTE] {
        let policy = RefreshPolicy::default().static_stability(extra);
        let (tokens, _) = tokens_of(first_of(HOUR, down), |b| b.policy(policy));
        let token = tokens.get().await.unwrap();
        // The wall clock has an hour to go.
        tokens.engine().elapse(token.generation().unwrap());
        assert_eq!(tokens.engine().last_resort().is_some(), !extra.is_zero());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_stale_token_learns_until_when_it_is_useless_to_ask() {
    let throttled = |_| Err(FetchError::throttled(Some(10 * SECOND), "429"));
    let (tokens, issuer) = tokens_of(first_of(HOUR, throttled), |b| b);
    tokens.get().await.unwrap();
    advance(50 * MINUTE).await;
    tokens.get().await.unwrap();
    let engine = tokens.engine();
    let asked = || {
        let mut desk = engine.desk();
        let (departure, until) = desk.renew(engine.outlook(true));
        assert!(departure.is_none());
        until.unwrap() - Instant::now()
    };
    assert_eq!(asked(), SECOND / 10, "one is in the air");
    sleep(SECOND).await;
    settle().await;
    assert_eq!((asked(), issuer.fetches()), (10 * SECOND, 2));
    // Not an instant later than that.
    advance(10 * SECOND - MILLISECOND).await;
    tokens.get().await.unwrap();
    settle().await;
    assert_eq!(issuer.fetches(), 2);
    advance(MILLISECOND).await;
    tokens.get().await.unwrap();
    settle().await;
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_new_credential_helps_is_not_asked_for_again() {
    let lost = |_| Err(FetchError::transient("reset").lost());
    let (tokens, _) = tokens_if_lost(first_of(HOUR, lost), IfLost::NeverReplay, |b| b);
    tokens.get().await.unwrap();
    advance(50 * MINUTE).await;
    tokens.get().await.unwrap();
    sleep(2 * SECOND).await;
    let engine = tokens.engine();
    let (departure, until) = engine.desk().renew(engine.outlook(true));
    assert!(departure.is_none() && until.unwrap() > Instant::now() + 5 * A_YEAR);
}

#[tokio::test(start_paused = true)]
async fn calls_in_a_backoff_are_told_of_once_and_not_each() {
    let told = Told::default();
    let (tokens, _) = tokens_of(first_of(HOUR, |_| Err(FetchError::throttled(Some(HOUR), "429"))), |b| {
        told.observing(b)
    });
    tokens.get().await.unwrap();
    advance(50 * MINUTE).await;
    tokens.get().await.unwrap();
    sleep(2 * SECOND).await;
    for _ in 0..100 {
        tokens.get().await.unwrap();
    }
    let skipped = |event: &Event| matches!(event, Event::Skipped { reason, .. } if *reason == Skipped::Throttled);
    assert_eq!(told.count(skipped), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backoff_is_over_by_the_wall_clock_too() {
    let clock = Clock::of_tokio();
    let answer = |nth| match nth {
        1 => (SECOND, Err(FetchError::throttled(Some(HOUR), "429"))),
        _ => (SECOND, minted(nth, HOUR)),
    };
    let (tokens, _) = tokens_of(answer, |b| b.clock(clock.clone()));
    tokens.get().await.unwrap_err();
    tokens.get().await.unwrap_err();
    clock.step(3600);
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_is_not_renewed_after_a_shutdown() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    tokens.get().await.unwrap();
    tokens.shutdown().await;
    advance(50 * MINUTE).await;
    assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
    sleep(10 * SECOND).await;
    assert_eq!(issuer.fetches(), 1);
}

#[test]
fn what_is_fetched_for_a_token_that_was_refused_outside_of_a_runtime_says_so() {
    let runtime = runtime();
    let (tokens, issuer) = runtime.block_on(async {
        let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
        tokens.get().await.unwrap();
        (tokens, issuer)
    });
    tokens.invalidate(&tokens.current().unwrap());
    runtime.block_on(tokens.get()).unwrap();
    assert_eq!(*issuer.causes.lock().unwrap(), [Cause::Initial, Cause::Refused]);
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_does_not_wait_for_a_renewal_of_the_newer_token() {
    let (tokens, issuer) = tokens_of(|nth| (2 * SECOND, minted(nth, 60 * SECOND)), |b| b);
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    tokens.invalidate(&first);
    tokens.get().await.unwrap();
    advance(MINUTE / 2 + SECOND).await;
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
    settle().await;
    assert_eq!(issuer.fetches(), 3, "the renewal is in the air");
    assert!(matches!(refuse(&tokens, &first, Challenge::none()), Refusal::Replay));
}

/// Its token may be as dead as the one that was refused.
#[tokio::test(start_paused = true)]
async fn a_refusal_the_breaker_holds_does_not_wait_for_an_early_renewal() {
    let (tokens, issuer) = tokens_of(|nth| (2 * SECOND, minted(nth, 60 * SECOND)), |b| b);
    let first = tokens.get().await.unwrap();
    accepted(&tokens, &first);
    assert!(matches!(refuse(&tokens, &first, Challenge::none()), Refusal::Wait(_)));
    let second = tokens.get().await.unwrap();
    advance(MINUTE / 2 + SECOND).await;
    tokens.get().await.unwrap();
    settle().await;
    assert_eq!(issuer.fetches(), 3, "the renewal is in the air");
    let held = refuse(&tokens, &second, Challenge::none());
    assert!(matches!(held, Refusal::HandBack(HandedBack::Breaker, None)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stepped_up_after_a_shutdown() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    let first = tokens.get().await.unwrap();
    tokens.shutdown().await;
    let answer = refuse(&tokens, &first, challenge("insufficient_claims"));
    assert!(matches!(answer, Refusal::HandBack(HandedBack::StepUp, Some(why)) if why.demand().is_some()));
    settle().await;
    assert_eq!(issuer.fetches(), 1);
}

/// A flight that nobody starts would be waited for in vain.
#[test]
fn nothing_is_stepped_up_outside_of_a_runtime() {
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    let first = runtime().block_on(tokens.get()).unwrap();
    let answer = refuse(&tokens, &first, challenge("insufficient_claims"));
    assert!(matches!(answer, Refusal::HandBack(HandedBack::StepUp, Some(why)) if why.demand().is_some()));
    assert!(!tokens.status().fetching);
}

#[tokio::test(start_paused = true)]
async fn a_step_up_that_is_refused_is_no_setback_of_the_token_in_place() {
    let refused = |_| Err(FetchError::terminal("no"));
    let (tokens, _) = tokens_of(first_of(HOUR, refused), |b| b);
    let first = tokens.get().await.unwrap();
    let Refusal::Wait(landing) = refuse(&tokens, &first, challenge("insufficient_claims")) else {
        panic!("a step-up that asks nobody")
    };
    assert!(matches!(landing.await, Landed::Failed(_)));
    let status = tokens.status();
    assert_eq!((status.failures, status.state), (0, State::Fresh));
    assert!(status.last_error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_what_was_asked_for_before_an_install_is_no_setback() {
    let (tokens, _) = tokens_of(|_| (SECOND, Err(FetchError::terminal("over"))), |b| b);
    let _waiting = tokio::spawn(tokens.get());
    settle().await;
    tokens.install(json!({})).unwrap();
    tokens.shutdown().await;
    assert_eq!(tokens.status().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_counts_no_more_is_told_once_and_its_exchange_is_counted() {
    let told = Told::default();
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| told.observing(b));
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    tokens.install(json!({})).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().secret(), "test-2");
    assert_eq!(tokens.status().exchanges, 2);
    let refresh = tokens.clone();
    let _refreshing = tokio::spawn(async move { refresh.refresh().await });
    settle().await;
    tokens.sign_out();
    sleep(2 * SECOND).await;
    assert_eq!(told.count(|event| matches!(event, Event::Discarded { .. })), 2);
    assert!(told.waited_in_vain().is_empty());
    assert_eq!((tokens.status().exchanges, tokens.status().fetching), (3, false));
}

#[tokio::test(start_paused = true)]
async fn a_failure_answers_who_wanted_to_go_up_next_as_well() {
    let told = Told::default();
    let (tokens, issuer) = tokens_of(first_of(60 * SECOND, down), |b| told.observing(b));
    let waits = chained(&tokens).await;
    for wait in waits {
        assert!(matches!(wait.await.unwrap(), Landed::Failed(_)));
    }
    settle().await;
    assert_eq!((issuer.fetches(), told.waited_in_vain()), (2, vec![2]));
}

#[tokio::test(start_paused = true)]
async fn a_panic_answers_who_wanted_to_go_up_next_as_well() {
    let told = Told::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let provider = provider_fn(move |_| {
        let nth = calls.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            sleep(SECOND).await;
            assert_eq!(nth, 1, "test panic");
            minted(nth, 60 * SECOND)
        }
    });
    let builder = Tokens::builder(provider).policy(RefreshPolicy::default().jitter(0.0));
    let tokens = told.observing(builder).clock(Clock::of_tokio()).build().unwrap();
    for wait in chained(&tokens).await {
        assert!(matches!(wait.await.unwrap(), Landed::Failed(_)));
    }
    settle().await;
    assert_eq!((tokens.status().fetches, told.waited_in_vain()), (2, vec![2]));
}

/// An early renewal is in the air, and two callers wait for the fetch after it.
async fn chained(tokens: &Tokens) -> Vec<tokio::task::JoinHandle<Landed>> {
    let first = tokens.get().await.unwrap();
    accepted(tokens, &first);
    advance(MINUTE / 2 + SECOND).await;
    tokens.get().await.unwrap();
    settle().await;
    let waits = (0..2).map(|_| match refuse(tokens, &first, Challenge::none()) {
        Refusal::Wait(landing) => tokio::spawn(landing),
        _ => panic!("a refusal that does not wait"),
    });
    waits.collect()
}

#[tokio::test(start_paused = true)]
async fn replay_within_presents_twice_in_its_time_and_never_after_it() {
    for (latency, presentations) in [(2 * SECOND, 2), (10 * SECOND, 1), (20 * SECOND, 1)] {
        let lost = move |_| (latency, Err(FetchError::transient("reset").lost()));
        let (tokens, issuer) = tokens_if_lost(lost, IfLost::ReplayWithin(10 * SECOND), |b| b);
        tokens.get().await.unwrap_err();
        assert_eq!(issuer.fetches(), presentations, "{latency:?}");
        tokens.refresh().await.unwrap_err();
        assert_eq!(issuer.fetches(), presentations + 1, "{latency:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_presented_again_in_a_minute_is_not_over() {
    for (if_lost, state) in [
        (IfLost::ReplayOnce, State::None),
        (IfLost::NeverReplay, State::Terminal),
    ] {
        let lost = |_| (SECOND, Err(FetchError::transient("reset").lost()));
        let (tokens, _) = tokens_if_lost(lost, if_lost, |b| b);
        let error = tokens.get().await.unwrap_err();
        assert_eq!((error.class(), tokens.status().state), (Some(Class::Ambiguous), state));
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_to_give_up_before_the_engine_does() {
    let provider = provider_fn(|context: FetchContext| async move {
        assert_eq!(context.timeout(), Duration::from_millis(29_700));
        minted(1, HOUR)
    });
    Tokens::new(provider).unwrap().get().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_the_second_presentation_ends_the_doubt_about_the_first() {
    let answer = |nth| match nth {
        1 => (SECOND, Err(FetchError::transient("reset").lost())),
        _ => (SECOND, Err(FetchError::terminal("over"))),
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    let error = tokens.get().await.unwrap_err();
    assert_eq!((error.class(), issuer.fetches()), (Some(Class::Terminal), 2));
}

#[tokio::test(start_paused = true)]
async fn a_failure_to_bring_what_was_demanded_names_it() {
    let failures: [fn() -> FetchError; 2] = [
        || FetchError::needs_interaction("a second factor"),
        || FetchError::transient("down"),
    ];
    for failure in failures {
        let (tokens, _) = tokens_of(first_of(HOUR, move |_| Err(failure())), |b| b);
        let first = tokens.get().await.unwrap();
        let Refusal::Wait(landing) = refuse(&tokens, &first, challenge("insufficient_claims")) else {
            panic!("a step-up that asks nobody")
        };
        let Landed::Failed(error) = landing.await else {
            panic!("a token")
        };
        assert!(error.demand().is_some(), "{error}");
    }
}

/// An observer that wants to be told how long the token lives.
struct Paced(Told);

impl Observe for Paced {
    fn observe(&self, event: &Event) {
        self.0.0.lock().unwrap().push(event.clone());
    }

    fn pace(&self) -> Option<Duration> {
        Some(10 * MINUTE)
    }
}

/// How many minutes each was told that it lives.
fn lives(told: &Told) -> Vec<u64> {
    let life = |event: &Event| match event {
        Event::Alive { expires_in, .. } => Some(expires_in.as_secs() / 60),
        _ => None,
    };
    told.0.lock().unwrap().iter().filter_map(life).collect()
}

#[tokio::test(start_paused = true)]
async fn who_wants_to_know_is_told_how_long_the_token_in_place_lives() {
    let told = Told::default();
    let (tokens, _) = tokens_of(
        |nth| (Duration::ZERO, minted(nth, HOUR)),
        |b| b.observe(Paced(told.clone())),
    );
    tokens.get().await.unwrap();
    sleep(31 * MINUTE).await;
    assert_eq!((tokens.status().state, lives(&told)), (State::Fresh, vec![50, 40, 30]));
    // At its end for the engine, a minute before its death, and after it.
    sleep(40 * MINUTE).await;
    assert_eq!(lives(&told), [50, 40, 30, 20, 10, 1, 0]);
    tokens.get().await.unwrap();
    sleep(11 * MINUTE).await;
    assert_eq!(lives(&told)[7..], [50], "of the one in place, and of no other");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_know_is_not_told() {
    let told = Told::default();
    let (tokens, _) = tokens_of(first_of(HOUR, down), |b| told.observing(b));
    tokens.get().await.unwrap();
    sleep(2 * HOUR).await;
    assert!(lives(&told).is_empty());
}

/// Whoever waits for a token is woken a moment before it is said that it was published.
#[tokio::test(start_paused = true)]
async fn changed_asked_for_by_whoever_is_woken_brings_the_token_after_that() {
    struct Asks(Tokens, Mutex<Option<BoxFuture<'static, Token>>>);
    impl std::task::Wake for Asks {
        fn wake(self: Arc<Self>) {
            *self.1.lock().unwrap() = Some(Box::pin(self.0.changed()));
        }
    }
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    let asks = Arc::new(Asks(tokens.clone(), Mutex::default()));
    let waker = asks.clone().into();
    let mut waiting = tokens.get();
    assert!(
        Pin::new(&mut waiting)
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    sleep(2 * SECOND).await;
    let mut next = asks.1.lock().unwrap().take().expect("it was woken");
    let early = tokio::time::timeout(SECOND, next.as_mut()).await;
    assert!(early.is_err(), "{early:?} was there already");
    tokens.refresh().await.unwrap();
    assert_eq!(next.await.secret(), "test-2");
}
