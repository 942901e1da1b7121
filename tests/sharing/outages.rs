//! A store that is slow, that fails now and then, that hangs at one kind of call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_token::testkit::{MemoryStore, StoreCall};
use tower_token::{IfLost, Lease, Record, Saved, StoreError, StoreFuture, StorePolicy, TokenStore};

use crate::scene::{Grant, LIFE, MINUTE, Process, SECOND, Scene};

const CALLS: [StoreCall; 6] = [
    StoreCall::Load,
    StoreCall::Lease,
    StoreCall::Save,
    StoreCall::Renew,
    StoreCall::Release,
    StoreCall::Watch,
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Rotating,
    Idempotent,
    Alone,
}

fn process(scene: &Scene, kind: Kind) -> Process {
    let if_lost = match kind {
        Kind::Idempotent => IfLost::Idempotent,
        _ => IfLost::ReplayOnce,
    };
    let policy = StorePolicy::default().alone(kind == Kind::Alone);
    let grant = Grant {
        if_lost,
        ..scene.grant()
    };
    scene.process_with(grant, |builder| builder.store_policy(policy))
}

/// Of what is told of trouble, in a minute.
fn alarms(process: &Process) -> usize {
    ["StoreFailed", "StoreRecovered", "FetchFailed", "Undurable", "Skipped"]
        .iter()
        .map(|name| process.told.count(name))
        .sum()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_at_one_call_fails_no_request_while_a_token_lives() {
    for kind in [Kind::Rotating, Kind::Idempotent, Kind::Alone] {
        for call in CALLS {
            let scene = Scene::new();
            let (process, other) = (process(&scene, kind), process(&scene, kind));
            process.secret().await;
            other.secret().await;
            process.store.on(call).hang();
            // All wait from a quarter of the life on: that is when it counts as over.
            let dies = Instant::now() + LIFE * 3 / 4 - 2 * SECOND;
            while Instant::now() < dies {
                assert!(process.tokens.get().await.is_ok(), "{kind:?} {call:?}");
                assert!(other.tokens.get().await.is_ok(), "{kind:?} {call:?}");
                sleep(SECOND).await;
            }
            let alarms = alarms(&process);
            assert!(
                alarms <= 90,
                "{kind:?} {call:?}: {alarms} alarms in a minute and a half"
            );
            process.store.heal();
            sleep(2 * SECOND).await;
            let began = Instant::now();
            assert!(process.tokens.refresh().await.is_ok(), "{kind:?} {call:?}");
            assert!(
                began.elapsed() <= 2 * SECOND,
                "{kind:?} {call:?}: {:?}",
                began.elapsed()
            );
            sleep(2 * SECOND).await;
            let status = process.tokens.status();
            assert!(
                !status.undurable && status.store_error.is_none(),
                "{kind:?} {call:?}: {status:?}"
            );
            assert_eq!(process.secret().await, other.secret().await, "{kind:?} {call:?}");
            assert_eq!(scene.issuer.presented_again(), 0, "{kind:?} {call:?}");
            assert!(scene.never_went_back());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_every_call_is_slow_renews_in_time() {
    for kind in [Kind::Rotating, Kind::Idempotent] {
        let scene = Scene::new();
        let fleet = [process(&scene, kind), process(&scene, kind), process(&scene, kind)];
        for process in &fleet {
            process.store.delay(Duration::from_millis(1_900));
            process.secret().await;
        }
        sleep(10 * SECOND).await;
        // A first token is read once more before it is saved, which takes longer than it waits for that.
        let before: usize = fleet.iter().map(alarms).sum();
        for second in 0..600 {
            for process in &fleet {
                let status = || format!("{kind:?}, second {second}: {:?}", process.tokens.status());
                assert!(process.tokens.current().is_some(), "{}", status());
            }
            sleep(SECOND).await;
        }
        // One a life, which is renewed at its half.
        let exchanges = scene.issuer.exchanges();
        assert!((6..=12).contains(&exchanges), "{kind:?}: {exchanges}");
        assert_eq!(scene.issuer.presented_again(), 0);
        let alarms: usize = fleet.iter().map(alarms).sum();
        assert_eq!(alarms, before, "{kind:?}");
    }
}

/// Of its calls, so many in a hundred fail: before what they do, or a save or a load also after it.
#[derive(Clone)]
struct Flaky {
    store: MemoryStore,
    percent: u8,
    dice: Arc<Mutex<fastrand::Rng>>,
}

impl Flaky {
    fn call<'a, T: Send + 'a>(&self, call: StoreFuture<'a, T>, loses_answers: bool) -> StoreFuture<'a, T> {
        let (fails, after) = {
            let mut dice = self.dice.lock().unwrap();
            (dice.u8(..100) < self.percent, dice.bool() && loses_answers)
        };
        Box::pin(async move {
            let answer = if fails && !after { None } else { Some(call.await) };
            match answer {
                Some(answer) if !fails => answer,
                _ => Err(StoreError::unavailable("flaky")),
            }
        })
    }
}

impl TokenStore for Flaky {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        self.call(self.store.load(), true)
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        self.call(self.store.save(record, expected, lease), true)
    }

    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>> {
        self.call(self.store.lease(term), false)
    }

    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool> {
        self.call(self.store.renew(lease, term), false)
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        self.call(self.store.release(lease), false)
    }

    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        self.call(self.store.watch(seen), false)
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_of_which_each_second_call_fails_loses_nothing_and_makes_no_storm() {
    for seed in 0..8 {
        // Of the pauses too.
        fastrand::seed(seed);
        let scene = Scene::new();
        let flaky = |nth: u64| {
            let store = Flaky {
                store: scene.store.participant(),
                percent: 50,
                dice: Arc::new(Mutex::new(fastrand::Rng::with_seed(10 * seed + nth))),
            };
            scene.process_with(scene.grant(), |builder| builder.store(store))
        };
        let fleet = [flaky(0), flaky(1), flaky(2)];
        for _ in 0..300 {
            for process in &fleet {
                if let Ok(token) = process.tokens.get().await {
                    assert!(scene.issuer.is_alive(token.secret()), "seed {seed}");
                }
            }
            sleep(SECOND).await;
        }
        assert_eq!(scene.issuer.presented_again(), 0, "seed {seed}");
        assert!(!scene.issuer.is_revoked() && scene.never_went_back(), "seed {seed}");
        let exchanges = scene.issuer.exchanges();
        assert!((3..=8).contains(&exchanges), "seed {seed}: {exchanges}");
        for process in &fleet {
            let alarms = alarms(process);
            assert!(alarms <= 6 * 60, "seed {seed}: {alarms} alarms in five minutes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_process_whatever_was_wrong_with_its_store() {
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    for call in CALLS {
        let scene = Scene::new();
        let (process, other) = (scene.process(), scene.process());
        process.secret().await;
        other.secret().await;
        process.store.on(call).hang();
        let _callers = [process.asks(), other.asks()];
        let tokens = process.tokens.clone();
        let _renewing = tokio::spawn(async move { tokens.refresh().await.map(drop) });
        sleep(SECOND).await;
        process.tokens.sign_out();
        sleep(SECOND).await;
        drop((process, other));
        sleep(3 * MINUTE).await;
        assert_eq!(alive(), 0, "{call:?}");
    }
}
