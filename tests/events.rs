//! What observers are told: each event once, in order, with words that stay as they are.

#![cfg(all(feature = "tracing", feature = "metrics"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::Duration;

use http::StatusCode;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::{sleep, timeout};
use tower::Layer;
use tower_token::*;

use support::{Api, HOUR, SECOND, get, minted, origins, settle};

/// Tokens of an hour that take a second each, or what `answer` says of the `n`th fetch.
fn observed(
    observer: impl Observe,
    answer: impl Fn(usize) -> Result<(), FetchError> + Send + Sync + 'static,
) -> TokensBuilder {
    // A callsite that one thread registers while another sets its subscriber may be taken for one that nobody
    // listens to. With a subscriber for everybody there is none such.
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap());
    let fetches = std::sync::atomic::AtomicUsize::new(0);
    let provider = provider_fn(move |_| {
        let nth = fetches.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let answered = answer(nth).map(|()| minted(nth));
        tracing::info!(target: "provider", "called");
        async move {
            sleep(SECOND).await;
            tracing::info!(target: "provider", "asking");
            answered
        }
    });
    Tokens::builder(provider).observe(observer).clock(Clock::of_tokio())
}

/// The names of events, with their reasons.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observe for Told {
    fn observe(&self, event: &Event) {
        let told = match event {
            Event::FetchBegan { cause, .. } => format!("began {cause}"),
            Event::Renewed {
                generation,
                cause,
                took,
                waited,
                ..
            } => format!("renewed {generation} {cause} in {}s for {waited}", took.as_secs()),
            Event::FetchFailed {
                cause, class, waited, ..
            } => {
                format!("failed {cause} {} for {waited}", class.map_or("-", Class::as_str))
            }
            Event::Skipped { cause, reason, .. } => format!("skipped {cause} {reason}"),
            Event::Waited { took, ended, .. } => format!("waited {}ms {ended}", took.as_millis()),
            Event::Refused { generation, .. } => format!("refused {generation}"),
            Event::Replayed {
                refused, generation, ..
            } => format!("replayed {refused} {generation}"),
            Event::HandedBack { generation, reason, .. } => format!("handed back {generation} {reason}"),
            Event::BreakerOpened { generation, .. } => format!("opened {generation}"),
            Event::BreakerHeld { generation, .. } => format!("held {generation}"),
            Event::BreakerClosed { generation, .. } => format!("closed {generation}"),
            Event::Discarded { cause, .. } => format!("discarded {cause}"),
            Event::Warned {
                generation, warning, ..
            } => format!("warned {generation} {warning}"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(told);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_through_its_life_is_told_from_beginning_to_end() {
    let told = Told::default();
    let tokens = observed(told.clone(), |_| Ok(())).build().unwrap();
    let client = TokenLayer::new(&tokens, origins()).layer(Api::refusing(["test-1"]));
    assert_eq!(support::send(&client, get()).await.unwrap().status(), StatusCode::OK);
    let story = [
        "began initial",
        "renewed 1 initial in 1s for 1",
        "waited 1000ms renewed",
        "refused 1",
        "began refused",
        "renewed 2 refused in 1s for 1",
        "waited 1000ms renewed",
        "replayed 1 2",
    ];
    assert_eq!(told.take(), story);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_is_told_of_with_the_time_it_waited() {
    let told = Told::default();
    let tokens = observed(told.clone(), |_| Ok(())).build().unwrap();
    assert!(timeout(Duration::from_millis(300), tokens.get()).await.is_err());
    assert_eq!(told.take(), ["began initial", "waited 300ms left"]);
    sleep(SECOND).await;
    assert_eq!(told.take(), ["renewed 1 initial in 1s for 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_does_not_begin_is_told_with_its_reason() {
    let told = Told::default();
    let tokens = observed(told.clone(), |nth| match nth {
        1 | 2 => Err(FetchError::transient("down")),
        3 => Err(FetchError::throttled(Some(9 * SECOND), "patience")),
        _ => Err(FetchError::terminal("over")),
    });
    let tokens = tokens.build().unwrap();
    assert!(tokens.get().await.is_err());
    for (reason, wait) in [("backoff", 3), ("throttled", 9), ("verdict", 1)] {
        // The first failure is so near its end that callers wait for it.
        sleep(2 * SECOND).await;
        assert!(tokens.get().await.is_err());
        told.take();
        assert!(tokens.get().await.is_err());
        assert_eq!(told.take(), [format!("skipped initial {reason}")]);
        sleep(wait * SECOND).await;
    }
    tokens.sign_out();
    assert!(tokens.get().await.is_err());
    assert_eq!(told.take(), ["SignedOut", "skipped initial signed_out"]);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_panics_is_told_as_one_that_failed() {
    let told = Told::default();
    let tokens = Tokens::builder(provider_fn(|_| async {
        sleep(SECOND).await;
        panic!("a provider's own fault")
    }));
    let tokens = tokens.observe(told.clone()).build().unwrap();
    assert!(tokens.get().await.is_err());
    settle().await;
    let mut story = told.take();
    story.sort();
    assert_eq!(
        story,
        ["began initial", "failed initial - for 1", "waited 1000ms failed"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_breaker_is_told_when_it_opens_holds_and_closes() {
    let told = Told::default();
    let tokens = observed(told.clone(), |_| Ok(())).build().unwrap();
    let client = TokenLayer::new(&tokens, origins()).layer(Api::answering(|_, _| support::refusal()));
    let refused = async || assert_eq!(support::send(&client, get()).await.unwrap().status(), 401);
    let of_breaker = |told: &Told| {
        let words = ["opened", "held", "closed"];
        told.take()
            .into_iter()
            .filter(|event| words.contains(&event.split(' ').next().unwrap()))
            .collect::<Vec<_>>()
    };
    refused().await;
    assert!(of_breaker(&told).is_empty() && !tokens.status().breaker_open);
    refused().await;
    assert_eq!(of_breaker(&told), ["opened 2", "held 2"]);
    refused().await;
    assert_eq!(of_breaker(&told), ["held 2"]);
    assert!(tokens.status().breaker_open);
    sleep(60 * SECOND).await;
    assert!(!tokens.status().breaker_open);
    refused().await;
    assert_eq!(of_breaker(&told), ["closed 2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_before_a_shutdown_and_an_install_is_complete() {
    let told = Told::default();
    let tokens = observed(told.clone(), |_| Ok(())).build().unwrap();
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    tokens.install(serde_json::json!({})).unwrap();
    waiting.await.unwrap().unwrap();
    tokens.shutdown().await;
    let story = [
        "began initial",
        "waited 0ms superseded",
        "Installed",
        "discarded initial",
        "began initial",
        "renewed 1 initial in 1s for 1",
        "waited 2000ms renewed",
        "ShutDown",
    ];
    let mut heard = told.take();
    // The caller's own task says when it wakes.
    heard[1..3].sort_by_key(|event| event.starts_with("Installed"));
    assert_eq!(heard, story);
}

// ===== tracing =====

/// Lines of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged_to(log: &Log) -> tracing::subscriber::DefaultGuard {
    let to = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || to.clone())
        .without_time()
        .with_ansi(false)
        .finish();
    tracing::subscriber::set_default(subscriber)
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_an_answer_is_aborted_as_in_the_metrics() {
    let log = Log::default();
    let _logged = logged_to(&log);
    let tokens = Tokens::builder(provider_fn(|_| async { panic!("a provider's own fault") }));
    let tokens = tokens.observe(Traced::new()).build().unwrap();
    assert!(tokens.get().await.is_err());
    settle().await;
    let failed = "fetch failed tokens=\"\" cause=initial class=\"aborted\"";
    assert!(
        log.lines().iter().any(|line| line.contains(failed)),
        "{:?}",
        log.lines()
    );
}

#[tokio::test(start_paused = true)]
async fn a_log_has_stable_words_and_what_a_provider_logs_stands_in_the_span_of_its_fetch() {
    let log = Log::default();
    let _logged = logged_to(&log);
    let tokens = observed(Traced::named("imm"), |_| Ok(())).build().unwrap();
    let client = TokenLayer::new(&tokens, origins()).layer(Api::refusing(["test-1"]));
    support::send(&client, get()).await.unwrap();
    let [first, second] = ["test-1", "test-2"].map(|secret| Token::bearer(secret).fingerprint());
    let expected = [
        "DEBUG tower_token: fetch began tokens=\"imm\" cause=initial".to_owned(),
        "INFO fetch{tokens=\"imm\" cause=initial}: provider: called".into(),
        "INFO fetch{tokens=\"imm\" cause=initial}: provider: asking".into(),
        format!(
            "INFO tower_token: renewed tokens=\"imm\" generation=1 token={first} cause=initial took_ms=1000 \
             expires_in_s=3599 waited=1"
        ),
        "DEBUG tower_token: waited tokens=\"imm\" took_ms=1000 ended=renewed".into(),
        format!("INFO tower_token: refused tokens=\"imm\" generation=1 token={first}"),
        "DEBUG tower_token: fetch began tokens=\"imm\" cause=refused".into(),
        "INFO fetch{tokens=\"imm\" cause=refused}: provider: called".into(),
        "INFO fetch{tokens=\"imm\" cause=refused}: provider: asking".into(),
        format!(
            "INFO tower_token: renewed tokens=\"imm\" generation=2 token={second} cause=refused took_ms=1000 \
             expires_in_s=3599 waited=1"
        ),
        "DEBUG tower_token: waited tokens=\"imm\" took_ms=1000 ended=renewed".into(),
        "DEBUG tower_token: replayed tokens=\"imm\" refused=1 generation=2".into(),
    ];
    assert_eq!(log.lines(), expected);
    assert!(first != second && !log.lines().concat().contains("test-"));
}

// ===== metrics =====

/// What was recorded, as `name{label=value,...}`.
fn recorded(snapshotter: &Snapshotter) -> Vec<(String, DebugValue)> {
    let snapshot = snapshotter.snapshot().into_vec();
    let mut values: Vec<_> = snapshot
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key
                .key()
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            (format!("{}{{{}}}", key.key().name(), labels.join(",")), value)
        })
        .collect();
    values.sort_by(|one, other| one.0.cmp(&other.0));
    values
}

fn value<'a>(values: &'a [(String, DebugValue)], name: &str) -> &'a DebugValue {
    let found = values.iter().find(|(recorded, _)| recorded == name);
    &found.unwrap_or_else(|| panic!("{name} is not among {values:?}")).1
}

fn seconds(value: &DebugValue) -> Vec<f64> {
    match value {
        DebugValue::Histogram(samples) => samples.iter().map(|sample| sample.into_inner()).collect(),
        DebugValue::Gauge(seconds) => vec![seconds.into_inner()],
        DebugValue::Counter(_) => panic!("a counter"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut paused = tokio::runtime::Builder::new_current_thread();
    paused.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn fetches_and_waits_are_counted_and_timed_and_the_gauge_runs_down() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        runtime().block_on(async {
            let tokens = observed(Metered::named("imm"), |_| Ok(())).build().unwrap();
            let client = TokenLayer::new(&tokens, origins()).layer(Api::refusing(["test-1"]));
            support::send(&client, get()).await.unwrap();
            let values = recorded(&snapshotter);
            for (name, count) in [
                ("tower_token_fetches_total{tokens=imm,cause=initial,outcome=renewed}", 1),
                ("tower_token_fetches_total{tokens=imm,cause=refused,outcome=renewed}", 1),
                ("tower_token_refusals_total{tokens=imm}", 1),
                ("tower_token_replays_total{tokens=imm}", 1),
            ] {
                assert_eq!(*value(&values, name), DebugValue::Counter(count), "{name}");
            }
            let of = |name: &str| seconds(value(&values, name));
            assert_eq!(of("tower_token_fetch_seconds{tokens=imm,outcome=renewed}"), [1.0, 1.0]);
            assert_eq!(of("tower_token_wait_seconds{tokens=imm,ended=renewed}"), [1.0, 1.0]);
            assert_eq!(of("tower_token_seconds_to_expiry{tokens=imm}"), [3599.0]);
            // Without traffic, also past its death.
            for expected in [(60, 3539.0), (3500, 39.0), (100, 0.0)] {
                sleep(SECOND * expected.0).await;
                let left = seconds(value(
                    &recorded(&snapshotter),
                    "tower_token_seconds_to_expiry{tokens=imm}",
                ));
                assert!((left[0] - expected.1).abs() <= 15.0, "{left:?}, not {}", expected.1);
            }
            tokens.sign_out();
        });
    });
}

/// Signed out between the landing and its being told, a token was alive in the gauge for as long as the program ran.
#[test]
fn a_token_that_is_signed_out_while_it_is_told_does_not_stay_in_the_gauge() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        runtime().block_on(async {
            let itself: Arc<OnceLock<Tokens>> = Arc::default();
            let theirs = itself.clone();
            let leaves = move |event: &Event| {
                if let Event::Renewed { .. } = event {
                    theirs.get().unwrap().sign_out();
                }
            };
            let tokens = observed(leaves, |_| Ok(())).observe(Metered::new()).build().unwrap();
            itself.set(tokens.clone()).unwrap();
            assert!(tokens.get().await.is_err());
            sleep(60 * SECOND).await;
            let values = recorded(&snapshotter);
            assert_eq!(seconds(value(&values, "tower_token_seconds_to_expiry{tokens=}")), [0.0]);
        });
    });
}

/// The task that tells them ends with the last handle.
#[tokio::test(start_paused = true)]
async fn an_observer_with_a_pace_keeps_no_task_alive() {
    let tokens = observed(Metered::new(), |_| Ok(())).build().unwrap();
    tokens.get().await.unwrap();
    sleep(2 * HOUR).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks(), 1);
    drop(tokens);
    settle().await;
    assert_eq!(tasks(), 0);
}
