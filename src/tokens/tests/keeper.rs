//! Renewal without traffic: what it keeps alive, what it costs the issuer, and what ends it.

use super::*;
use serde_json::json;
use tokio::runtime::Handle;

const MINUTE: Duration = Duration::from_secs(60);

fn kept(builder: TokensBuilder) -> TokensBuilder {
    builder.policy(RefreshPolicy::default().jitter(0.0).keep_alive(true))
}

fn minting() -> (Tokens, Arc<Issuer>) {
    tokens_of(|nth| (SECOND, minted(nth, HOUR)), kept)
}

fn causes(issuer: &Issuer) -> Vec<Cause> {
    issuer.causes.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn an_idle_token_is_alive_after_ten_of_its_lives_at_one_fetch_each() {
    let (tokens, issuer) = minting();
    sleep(2 * SECOND).await;
    let began = Instant::now();
    while began.elapsed() < 10 * HOUR {
        let state = tokens.status().state;
        assert!(
            matches!(state, State::Fresh | State::Stale),
            "{state:?} at {:?}",
            began.elapsed()
        );
        sleep(7 * SECOND).await;
    }
    // One every 45 minutes.
    let causes = causes(&issuer);
    assert_eq!(causes.len(), 14);
    assert_eq!(causes[0], Cause::Initial);
    assert!(causes[1..].iter().all(|cause| *cause == Cause::KeepAlive), "{causes:?}");
}

#[tokio::test(start_paused = true)]
async fn without_being_asked_for_nothing_is_kept_alive() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    tokens.spawn();
    sleep(10 * HOUR).await;
    assert_eq!(issuer.fetches(), 0);
    tokens.get().await.unwrap();
    sleep(10 * HOUR).await;
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(tokens.status().keep_alive, KeepAlive::Off);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_asks_for_it_and_the_policy_has_the_last_word() {
    struct Mortal;
    impl TokenProvider for Mortal {
        async fn fetch(&self, _: FetchContext) -> Result<Token, FetchError> {
            minted(1, HOUR)
        }
        fn keeps_alive(&self) -> bool {
            true
        }
    }
    let tokens = Tokens::new(Mortal).unwrap();
    assert_eq!(tokens.status().keep_alive, KeepAlive::Running);
    settle().await;
    assert!(tokens.status().generation.is_some());
    let off = RefreshPolicy::default().keep_alive(false);
    let tokens = Tokens::builder(Mortal).policy(off).build().unwrap();
    settle().await;
    assert_eq!(
        (tokens.status().keep_alive, tokens.status().fetches),
        (KeepAlive::Off, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn traffic_and_the_keeper_make_one_fetch_a_life() {
    let (tokens, issuer) = minting();
    let began = Instant::now();
    while began.elapsed() < 10 * HOUR {
        for _ in 0..3 {
            tokens.get().await.unwrap();
        }
        sleep(SECOND / 2).await;
    }
    assert_eq!(issuer.fetches(), 14);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_outlives_its_death_is_renewed_by_its_deadline_only() {
    let clock = Clock::of_tokio();
    let wall = clock.clone();
    let (tokens, issuer) = tokens_of(
        move |nth| (SECOND, Ok(minted(nth, HOUR).unwrap().renew_by(wall.now() + 24 * HOUR))),
        |b| kept(b).clock(clock),
    );
    sleep(22 * HOUR).await;
    assert_eq!((issuer.fetches(), tokens.status().state), (1, State::Expired));
    sleep(HOUR + MINUTE).await;
    assert_eq!(issuer.fetches(), 2);
    // Nor does its death keep anybody from a token.
    sleep(2 * HOUR).await;
    tokens.get().await.unwrap();
    assert_eq!(causes(&issuer), [Cause::Initial, Cause::KeepAlive, Cause::Expiring]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_issuer_is_asked_by_the_backoff_table() {
    let (_tokens, issuer) = tokens_if_lost(
        |_| (Duration::ZERO, Err(FetchError::transient("down"))),
        IfLost::Idempotent,
        kept,
    );
    sleep(100 * SECOND).await;
    // At 0, 1, 3, 7, 15, 31 and after at least a minute more, each up to a fifth later.
    assert!((6..=7).contains(&issuer.fetches()), "{}", issuer.fetches());
    sleep(HOUR).await;
    assert!((25..=40).contains(&issuer.fetches()), "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_of_an_idle_token_is_repeated_before_it_dies() {
    let answer = |nth| match nth {
        2..=5 => (SECOND, Err(FetchError::transient("down"))),
        _ => (SECOND, minted(nth, HOUR)),
    };
    let (tokens, issuer) = tokens_of(answer, kept);
    sleep(46 * MINUTE).await;
    assert_eq!(issuer.fetches(), 6);
    assert_eq!(tokens.status().generation.unwrap().get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_not_hammered() {
    let (tokens, issuer) = tokens_of(|_| (Duration::ZERO, Err(FetchError::terminal("over"))), kept);
    sleep(24 * HOUR).await;
    // At 0, 10, 30, 70 minutes, and every hour from there on.
    assert_eq!(issuer.fetches(), 26);
    assert_eq!(tokens.status().keep_alive, KeepAlive::Running);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_may_be_spent_is_presented_by_its_policy_only() {
    let lost = |_| (Duration::ZERO, Err(FetchError::transient("reset").lost()));
    let (_never, issuer) = tokens_if_lost(lost, IfLost::NeverReplay, kept);
    sleep(24 * HOUR).await;
    assert_eq!(issuer.fetches(), 1);
    let (_once, issuer) = tokens_if_lost(lost, IfLost::ReplayOnce, kept);
    sleep(HOUR).await;
    assert!((60..=62).contains(&issuer.fetches()), "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_over_and_a_hint_of_nothing_make_no_storm() {
    let clock = Clock::of_tokio();
    let over = clock.now();
    for hint in [false, true] {
        let (_tokens, issuer) = tokens_of(
            move |nth| {
                let token = minted(nth, HOUR).unwrap();
                let token = if hint {
                    token.refresh_in(Duration::ZERO)
                } else {
                    token.renew_by(over)
                };
                (SECOND, Ok(token))
            },
            |b| kept(b).clock(clock.clone()),
        );
        sleep(HOUR).await;
        assert!((59..=61).contains(&issuer.fetches()), "{}", issuer.fetches());
    }
}

/// The same instant again and again: the closer it comes the shorter the halves.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_no_renewal_moves_makes_no_storm() {
    let clock = Clock::of_tokio();
    let deadline = clock.now() + HOUR;
    let (_tokens, issuer) = tokens_of(
        move |nth| (SECOND / 10, Ok(minted(nth, 2 * HOUR).unwrap().renew_by(deadline))),
        |b| kept(b).clock(clock),
    );
    sleep(HOUR).await;
    assert!(issuer.fetches() <= 30, "{}", issuer.fetches());
}

#[tokio::test(start_paused = true)]
async fn an_installed_credential_is_used_at_once() {
    let (tokens, issuer) = tokens_of(
        |nth| {
            let answer = match nth {
                1 => Err(FetchError::terminal("over")),
                _ => minted(nth, HOUR),
            };
            (SECOND, answer)
        },
        kept,
    );
    sleep(MINUTE).await;
    tokens.install(json!({ "rt": "test-new" })).unwrap();
    sleep(2 * SECOND).await;
    assert_eq!((issuer.fetches(), tokens.status().state), (2, State::Fresh));
    tokens.install(json!({ "rt": "test-newer" })).unwrap();
    sleep(2 * SECOND).await;
    assert_eq!((issuer.fetches(), tokens.status().state), (3, State::Fresh));
}

/// What the keeper does by itself must not look like a new token to those who wait for one.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_change_sees_new_tokens_only() {
    let answer = |nth| match nth {
        2..=4 => (SECOND, Err(FetchError::transient("down"))),
        _ => (SECOND, minted(nth, HOUR)),
    };
    let (tokens, _) = tokens_of(answer, kept);
    sleep(2 * SECOND).await;
    assert_eq!(tokens.changed().await.secret(), "test-5");
}

#[tokio::test(start_paused = true)]
async fn signed_out_nothing_is_fetched_until_something_is_installed() {
    let (tokens, issuer) = minting();
    sleep(MINUTE).await;
    tokens.sign_out();
    sleep(24 * HOUR).await;
    assert_eq!(issuer.fetches(), 1);
    tokens.install(json!({ "rt": "test-new" })).unwrap();
    sleep(2 * SECOND).await;
    assert_eq!((issuer.fetches(), tokens.status().state), (2, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_it_for_good() {
    let (tokens, issuer) = minting();
    sleep(MINUTE).await;
    tokens.shutdown().await;
    assert_eq!(tokens.status().keep_alive, KeepAlive::Off);
    settle().await;
    assert!(
        !tokens.engine().keeping.load(Ordering::SeqCst),
        "at once, not at its next look"
    );
    tokens.spawn();
    tokens.get().await.unwrap();
    sleep(24 * HOUR).await;
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_it() {
    let (tokens, issuer) = minting();
    let engine = Arc::downgrade(tokens.engine());
    sleep(MINUTE).await;
    let clone = tokens.clone();
    drop(tokens);
    settle().await;
    assert_eq!(clone.status().keep_alive, KeepAlive::Running);
    drop(clone);
    assert_eq!(engine.strong_count(), 0);
    settle().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_ends_it_while_a_fetch_is_in_the_air() {
    let (tokens, issuer) = tokens_of(|nth| (10 * SECOND, minted(nth, HOUR)), kept);
    let engine = Arc::downgrade(tokens.engine());
    settle().await;
    drop(tokens);
    sleep(11 * SECOND).await;
    assert_eq!((issuer.fetches(), engine.strong_count()), (1, 0));
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[test]
fn built_without_a_runtime_it_starts_with_spawn_or_with_the_first_call() {
    let starts: [fn(&Tokens); 4] = [
        Tokens::spawn,
        |tokens| drop(tokens.current()),
        |tokens| drop(tokio_test::task::spawn(tokens.refresh()).poll()),
        |tokens| drop(tokio_test::task::spawn(tokens.get()).poll()),
    ];
    for start in starts {
        let (tokens, issuer) = minting();
        tokens.spawn();
        assert!(tokens.current().is_none());
        assert_eq!(tokens.status().keep_alive, KeepAlive::NoRuntime);
        runtime().block_on(async {
            start(&tokens);
            assert_eq!(tokens.status().keep_alive, KeepAlive::Running);
            for _ in 0..100 {
                tokens.spawn();
            }
            sleep(10 * HOUR).await;
            assert_eq!(issuer.fetches(), 14);
        });
        assert_eq!(tokens.status().keep_alive, KeepAlive::NoRuntime);
    }
}

#[test]
fn it_is_started_again_where_the_next_call_is_made_when_its_runtime_has_ended() {
    let first = runtime();
    let (tokens, issuer) = first.block_on(async { minting() });
    first.block_on(async { sleep(HOUR).await });
    assert_eq!(issuer.fetches(), 2);
    drop(first);
    assert_eq!(tokens.status().keep_alive, KeepAlive::NoRuntime);
    runtime().block_on(async {
        assert!(tokens.current().is_some());
        assert_eq!(tokens.status().keep_alive, KeepAlive::Running);
        // This runtime's paused clock begins an hour behind.
        sleep(4 * HOUR).await;
        assert!(issuer.fetches() >= 5, "{}", issuer.fetches());
    });
}

/// A runtime that ends drops tasks that it never polled.
#[test]
fn a_runtime_that_ends_before_it_is_polled_leaves_nothing_behind() {
    let never_driven = runtime();
    let tokens = {
        let _guard = never_driven.enter();
        minting().0
    };
    assert_eq!(tokens.status().keep_alive, KeepAlive::Running);
    drop(never_driven);
    assert_eq!(tokens.status().keep_alive, KeepAlive::NoRuntime);
    runtime().block_on(async {
        tokens.get().await.unwrap();
        assert_eq!(tokens.status().keep_alive, KeepAlive::Running);
    });
}

#[tokio::test(start_paused = true)]
async fn a_suspend_of_hours_is_seen_within_a_minute() {
    let clock = Clock::of_tokio();
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, 24 * HOUR)), |b| kept(b).clock(clock.clone()));
    sleep(10 * SECOND).await;
    clock.step(23 * 3600 + 1800);
    sleep(62 * SECOND).await;
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(tokens.status().state, State::Fresh);
}

#[tokio::test(start_paused = true)]
async fn a_backward_step_of_the_wall_clock_postpones_nothing() {
    let clock = Clock::of_tokio();
    let (_tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| kept(b).clock(clock.clone()));
    sleep(10 * SECOND).await;
    clock.step(-7 * 24 * 3600);
    sleep(45 * MINUTE).await;
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn a_token_refused_where_nothing_could_be_fetched_is_replaced() {
    let runtime = runtime();
    let (tokens, issuer) = runtime.block_on(async {
        let (tokens, issuer) = minting();
        tokens.get().await.unwrap();
        (tokens, issuer)
    });
    tokens.invalidate(&tokens.current().unwrap());
    assert_eq!(tokens.status().state, State::Expired);
    runtime.block_on(async { sleep(2 * SECOND).await });
    assert_eq!((issuer.fetches(), tokens.status().state), (2, State::Fresh));
    assert_eq!(causes(&issuer), [Cause::Initial, Cause::Refused]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_whose_fetch_failed_is_replaced_by_the_backoff_table() {
    let answer = |nth| match nth {
        2..=4 => (SECOND, Err(FetchError::transient("down"))),
        _ => (SECOND, minted(nth, HOUR)),
    };
    let (tokens, issuer) = tokens_of(answer, kept);
    let first = tokens.get().await.unwrap();
    tokens.invalidate(&first);
    sleep(20 * SECOND).await;
    assert_eq!((issuer.fetches(), tokens.status().state), (5, State::Fresh));
}

#[tokio::test(start_paused = true)]
async fn a_configured_token_is_kept_alive_from_where_it_is_in_its_life() {
    struct Configured;
    impl TokenProvider for Configured {
        async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
            assert_eq!(context.cause(), Cause::KeepAlive);
            minted(2, HOUR)
        }
        fn initial(&self, now: SystemTime) -> Option<Token> {
            Some(Token::bearer("test-1").expires_at(now + 10 * MINUTE))
        }
    }
    let builder = Tokens::builder(Configured).clock(Clock::of_tokio());
    let tokens = kept(builder).build().unwrap();
    sleep(4 * MINUTE).await;
    assert_eq!(tokens.status().fetches, 0);
    sleep(2 * MINUTE).await;
    assert_eq!(tokens.status().fetches, 1);
    assert_eq!(tokens.current().unwrap().secret(), "test-2");
}

#[tokio::test(start_paused = true)]
async fn it_takes_no_seat_from_those_who_wait() {
    let policy = RefreshPolicy::default().keep_alive(true).max_waiters(1);
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b.policy(policy));
    settle().await;
    assert!(tokens.status().fetching);
    tokens.get().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panicking_provider_does_not_end_it() {
    let answer = |nth| match nth {
        1 => panic!("test panic"),
        _ => (SECOND, minted(nth, HOUR)),
    };
    let (tokens, _) = tokens_of(answer, kept);
    sleep(5 * SECOND).await;
    assert_eq!(tokens.status().state, State::Fresh);
}
