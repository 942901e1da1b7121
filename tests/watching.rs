//! What observers are told when things go an unusual way, and what it costs.

#![cfg(feature = "testkit")]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use tokio::runtime::{Builder, Handle};
use tokio::time::sleep;
use tower::Layer;
use tower_token::*;

use support::{Api, HOUR, SECOND, get, minted, origins, settle};

/// Keeps every event, and wants to know of the token's life at a pace.
#[derive(Clone, Default)]
struct Watcher {
    told: Arc<Mutex<Vec<Event>>>,
    pace: Option<Duration>,
}

impl Watcher {
    fn at(pace: Duration) -> Self {
        Self {
            pace: Some(pace),
            ..Self::default()
        }
    }

    fn count(&self, of: impl Fn(&Event) -> bool) -> usize {
        self.told.lock().unwrap().iter().filter(|event| of(event)).count()
    }

    fn lives(&self) -> usize {
        self.count(|event| matches!(event, Event::Alive { .. }))
    }

    fn skips(&self) -> Vec<Skipped> {
        let told = self.told.lock().unwrap();
        let skips = told.iter().filter_map(|event| match event {
            Event::Skipped { reason, .. } => Some(*reason),
            _ => None,
        });
        skips.collect()
    }
}

impl Observe for Watcher {
    fn observe(&self, event: &Event) {
        self.told.lock().unwrap().push(event.clone());
    }

    fn pace(&self) -> Option<Duration> {
        self.pace
    }
}

/// Takes a second for a token of an hour, as long as `answer` lets it; was configured with one.
struct Configured<A>(A);

impl<A: Fn(Cause) -> Result<(), FetchError> + Send + Sync + 'static> TokenProvider for Configured<A> {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        sleep(SECOND).await;
        (self.0)(context.cause()).map(|()| minted(2))
    }

    fn initial(&self, _: SystemTime) -> Option<Token> {
        Some(minted(1))
    }
}

// ===== Alive =====

#[tokio::test(start_paused = true)]
async fn a_pace_that_never_comes_hides_no_end_from_the_monotonic_clock() {
    let clock = Clock::of_tokio();
    let tokens = Tokens::builder(Configured(|_| Ok(())))
        .observe(Watcher::at(Duration::MAX))
        .clock(clock.clone())
        .build()
        .unwrap();
    settle().await;
    clock.step(-7200);
    sleep(HOUR).await;
    assert_eq!(tokens.status().state, State::Expired);
}

#[test]
fn a_life_is_told_once_at_each_pace_where_the_token_before_was_configured_outside_of_a_runtime() {
    let watcher = Watcher::at(10 * SECOND);
    let tokens = Tokens::builder(Configured(|_| Ok(()))).observe(watcher.clone()).build();
    let tokens = tokens.unwrap();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        tokens.refresh().await.unwrap();
        sleep(11 * SECOND).await;
        assert_eq!(watcher.lives(), 1);
    });
}

#[test]
fn a_life_is_told_also_where_the_runtime_that_fetched_the_token_has_ended() {
    let watcher = Watcher::at(10 * SECOND);
    let tokens = Tokens::builder(Configured(|_| Ok(()))).observe(watcher.clone()).build();
    let tokens = tokens.unwrap();
    let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime().unwrap().block_on(tokens.refresh()).unwrap();
    runtime().unwrap().block_on(async {
        tokens.get().await.unwrap();
        sleep(11 * SECOND).await;
        assert_eq!((watcher.lives(), Handle::current().metrics().num_alive_tasks()), (1, 1));
        sleep(2 * HOUR).await;
        assert_eq!(tokens.status().state, State::Expired);
    });
}

#[tokio::test(start_paused = true)]
async fn after_a_sign_out_nothing_watches_a_life() {
    let watcher = Watcher::at(10 * SECOND);
    let tokens = Tokens::builder(Configured(|_| Ok(()))).observe(watcher.clone()).build();
    let tokens = tokens.unwrap();
    sleep(11 * SECOND).await;
    assert_eq!((watcher.lives(), Handle::current().metrics().num_alive_tasks()), (1, 1));
    tokens.sign_out();
    sleep(HOUR).await;
    // The last word is that it is over.
    assert_eq!((watcher.lives(), Handle::current().metrics().num_alive_tasks()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn lives_are_told_to_those_who_want_to_know() {
    let (wants, does_not) = (Watcher::at(10 * SECOND), Watcher::default());
    let tokens = Tokens::builder(Configured(|_| Ok(())));
    let tokens = tokens.observe(wants.clone()).observe(does_not.clone()).build().unwrap();
    sleep(11 * SECOND).await;
    assert_eq!((wants.lives(), does_not.lives()), (1, 0));
    drop(tokens);
}

// ===== Skipped =====

#[tokio::test(start_paused = true)]
async fn what_a_shutdown_keeps_from_beginning_is_no_backoff() {
    let watcher = Watcher::default();
    let tokens = Tokens::builder(Configured(|_| Err(FetchError::transient("down"))))
        .observe(watcher.clone())
        .clock(Clock::of_tokio())
        .build()
        .unwrap();
    sleep(50 * 60 * SECOND).await;
    tokens.current().unwrap();
    sleep(2 * SECOND).await;
    tokens.shutdown().await;
    let before = watcher.skips().len();
    for _ in 0..100 {
        tokens.current().unwrap();
    }
    assert_eq!(watcher.skips()[before..], []);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_seat_is_told_of() {
    let watcher = Watcher::default();
    let tokens = Tokens::builder(provider_fn(|_| async { std::future::pending().await }))
        .observe(watcher.clone())
        .policy(RefreshPolicy::default().max_waiters(1))
        .build()
        .unwrap();
    let sits = tokio::spawn(tokens.get());
    settle().await;
    assert!(tokens.get().await.unwrap_err().is_overloaded());
    assert_eq!(watcher.skips(), [Skipped::Overloaded]);
    sits.abort();
}

// ===== The breaker =====

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opened_is_told_to_be_closed_when_the_server_accepts_again() {
    let watcher = Watcher::default();
    let (closed, opened) = (
        |event: &Event| matches!(event, Event::BreakerClosed { .. }),
        |event: &Event| matches!(event, Event::BreakerOpened { .. }),
    );
    let tokens = Tokens::builder(Configured(|_| Ok(()))).observe(watcher.clone()).build();
    let tokens = tokens.unwrap();
    let api = Api::answering(|nth, _| {
        if nth <= 6 {
            support::refusal()
        } else {
            support::page("welcome")
        }
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    for _ in 0..4 {
        let response = support::send(&client, get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!((watcher.count(opened), watcher.count(closed)), (1, 0));
    for _ in 0..10 {
        sleep(20 * SECOND).await;
        let _ = support::send(&client, get()).await.unwrap();
    }
    assert!(!tokens.status().breaker_open);
    assert_eq!((watcher.count(opened), watcher.count(closed)), (1, 1));
}

// ===== Refusals that are handed on =====

/// The token that answers the refusal is itself refused before the request that waits is awake, and no other comes.
#[tokio::test(start_paused = true)]
async fn a_refusal_says_why_also_where_the_newer_token_was_lost_at_once() {
    let itself: Arc<OnceLock<Tokens>> = Arc::default();
    let theirs = itself.clone();
    let refuses = move |event: &Event| {
        if let Event::Renewed {
            cause: Cause::Refused, ..
        } = event
        {
            let tokens = theirs.get().unwrap();
            tokens.invalidate(&tokens.current().unwrap());
        }
    };
    let fetched = std::sync::atomic::AtomicUsize::new(0);
    let once = move |_| match fetched.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err(FetchError::transient("down")),
    };
    let tokens = Tokens::builder(Configured(once)).observe(refuses).build().unwrap();
    let _ = itself.set(tokens.clone());
    // Always ready: a replay that has to wait for its service gives the refusal up.
    let api = tower::service_fn(async |_: http::Request<String>| Ok::<_, BoxError>(support::refusal()));
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    let response = support::send(&client, get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let why = response
        .extensions()
        .get::<Error>()
        .expect("why there is no newer token");
    assert!(why.is_transient());
}

// ===== The status =====

#[tokio::test(start_paused = true)]
async fn the_status_says_how_long_nothing_begins_also_after_a_suspend_and_no_longer() {
    let clock = Clock::of_tokio();
    let tokens = Tokens::builder(provider_fn(|_| async { Err(FetchError::terminal("over")) }));
    let tokens = tokens.clock(clock.clone()).build().unwrap();
    let waits = || tokens.status().next_fetch_in;
    assert_eq!(waits(), None);
    assert!(tokens.get().await.is_err());
    sleep(60 * SECOND).await;
    assert_eq!(waits(), Some(9 * 60 * SECOND));
    clock.step(60);
    assert_eq!(waits(), Some(8 * 60 * SECOND));
    clock.step(3600);
    assert_eq!(waits(), None);
}

#[tokio::test(start_paused = true)]
async fn the_status_names_the_token_in_place_its_end_and_what_was_asked_for() {
    let clock = Clock::of_tokio();
    let tokens = Tokens::builder(provider_fn(|_| async {
        sleep(SECOND).await;
        Ok(Token::bearer("test-a").expires_in(HOUR))
    }));
    let tokens = tokens.clock(clock.clone()).build().unwrap();
    let is_empty = |status: Status, state| {
        assert_eq!((status.state, status.generation, status.token), (state, None, None));
        assert_eq!((status.expires_at, status.expires_in), (None, None));
    };
    is_empty(tokens.status(), State::None);
    let getting = tokio::spawn(tokens.get());
    settle().await;
    let (asked, aloft) = (clock.now(), tokens.status());
    assert_eq!((aloft.fetching, aloft.waiting, aloft.fetches), (true, 1, 1));
    let token = getting.await.unwrap().unwrap();
    let status = tokens.status();
    assert_eq!(
        (status.state, status.generation, status.token),
        (State::Fresh, token.generation(), Some(token.fingerprint()))
    );
    // A life is counted from the asking.
    assert_eq!(
        (status.expires_at, status.expires_in),
        (Some(asked + HOUR), Some(HOUR - SECOND))
    );
    assert_eq!((status.fetching, status.waiting), (false, 0));
    assert_eq!((status.fetches, status.exchanges, status.failures), (1, 1, 0));
    for (later, state) in [(46, State::Stale), (13, State::Expired), (2, State::Expired)] {
        sleep(later * 60 * SECOND).await;
        assert_eq!(tokens.status().state, state);
    }
    assert_eq!(tokens.status().expires_in, Some(Duration::ZERO));
    tokens.sign_out();
    is_empty(tokens.status(), State::SignedOut);
    tokens.shutdown().await;
    is_empty(tokens.status(), State::ShutDown);
}
