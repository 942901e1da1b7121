//! Whoever signs out or shuts down does it in the middle of something else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, timeout};
use tower_token::testkit::{MemoryStore, StoreCall};
use tower_token::{
    Clock, Event, FetchError, IfLost, Lease, Record, Saved, StoreError, StoreFuture, StorePolicy, Token, TokenStore,
    Tokens, provider_fn,
};

use crate::scene::{Grant, LIFE, MINUTE, SECOND, Scene, credential, family};

#[tokio::test(start_paused = true)]
async fn a_sign_out_is_not_undone_by_a_failure_that_brought_a_credential() {
    let scene = Scene::new();
    let process = || {
        let provider = provider_fn(|_| async {
            let locked = FetchError::terminal("the account is locked");
            Err::<Token, _>(locked.new_credential(credential(1)))
        });
        let store = scene.store.participant();
        let builder = Tokens::builder(provider).clock(scene.clock.clone());
        (builder.store(store.clone()).build().unwrap(), store)
    };
    let (tokens, store) = process();
    store.on(StoreCall::Load).delay(SECOND);
    let _caller = tokio::spawn(tokens.get());
    // It reads before the exchange, and again before it believes the verdict.
    sleep(SECOND * 3 / 2).await;
    tokens.sign_out();
    sleep(5 * SECOND).await;

    let (heir, _) = process();
    let error = heir.get().await.unwrap_err();
    assert!(error.is_signed_out(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_is_not_undone_by_what_is_put_back_where_it_was_lost() {
    let scene = Scene::new();
    let ours: Arc<OnceLock<Tokens>> = Arc::default();
    let leaving = ours.clone();
    let process = scene.process_with(scene.grant(), |builder| {
        builder.observe(move |event: &Event| {
            if let (Event::StoreRestored { .. }, Some(tokens)) = (event, leaving.get()) {
                tokens.sign_out();
            }
        })
    });
    process.secret().await;
    let _ = ours.set(process.tokens.clone());
    scene.store.lose();
    sleep(5 * SECOND).await;
    assert_eq!(process.told.count("StoreRestored"), 1);

    let error = scene.process().tokens.get().await.unwrap_err();
    assert!(error.is_signed_out(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_until_what_a_store_lost_is_put_back() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    sleep(LIFE).await;
    scene.store.lose();
    let caller = process.asks();
    sleep(SECOND / 2).await;
    let began = Instant::now();
    process.tokens.shutdown().await;
    assert!(began.elapsed() < SECOND / 4, "{:?}", began.elapsed());
    assert!(caller.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_credential_is_not_presented_when_its_lease_ended_while_that_was_noted() {
    let scene = Scene::new();
    // As long as an exchange may take: no longer is allowed.
    let patience = SECOND * 30;
    let process = scene.process_with(scene.grant(), |builder| {
        builder.store_policy(StorePolicy::default().patience(patience))
    });
    process.store.on(StoreCall::Renew).fail(StoreError::unavailable("gone"));
    process.store.on(StoreCall::Load).delay(patience - SECOND);
    process.store.on(StoreCall::Save).delay(patience - SECOND);
    let error = process.asks().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("lease ended"), "{error}");
    assert_eq!(scene.issuer.exchanges(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_takes_the_place_of_something_undurable_is_undurable_until_it_is_saved() {
    let store = MemoryStore::new();
    let durable = Arc::new(AtomicUsize::new(0));
    let (told, fetches) = (durable.clone(), AtomicUsize::new(0));
    let provider = provider_fn(move |_| {
        let nth = fetches.fetch_add(1, Ordering::SeqCst);
        std::future::ready(match nth {
            0 => Ok(Token::bearer("test-access").expires_in(LIFE).credential(credential(1))),
            _ => Err(FetchError::transient("503").new_credential(credential(2))),
        })
    });
    let tokens = Tokens::builder(provider)
        .clock(Clock::of_tokio())
        .store(store.clone())
        .store_policy(StorePolicy::default().alone(true))
        .observe(move |event: &Event| {
            told.fetch_add(usize::from(matches!(event, Event::Durable)), Ordering::SeqCst);
        })
        .build()
        .unwrap();
    store.fail(StoreError::unavailable("gone"));
    assert!(tokens.get().await.is_ok() && tokens.status().undurable);
    sleep(LIFE).await;
    assert!(tokens.get().await.is_err() && tokens.status().undurable);

    store.heal();
    sleep(5 * SECOND).await;
    assert_eq!((tokens.status().undurable, durable.load(Ordering::SeqCst)), (false, 1));
}

/// In virtual time, as all of these tests.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn a_runtime_that_ends_while_a_lease_is_given_back_strands_nobody() {
    let (first, second) = (runtime(), runtime());
    let (_scene, process) = first.block_on(async {
        let scene = Scene::new();
        let process = scene.process();
        let token = process.tokens.get().await.unwrap();
        scene.issuer.takes(SECOND);
        process.store.on(StoreCall::Release).hang();
        let tokens = process.tokens.clone();
        tokio::spawn(async move { tokens.refresh().await });
        sleep(SECOND / 2).await;
        // What is in the air was asked for before, so another one goes up after it.
        process.tokens.invalidate(&token);
        sleep(SECOND).await;
        (scene, process)
    });
    drop(first);
    process.store.heal();
    let answered = second.block_on(async { timeout(5 * MINUTE, process.tokens.refresh()).await });
    assert!(answered.is_ok(), "waits for a flight that nobody flies");
}

/// The answer was there: what it brought renews, and nothing that was presented is lost.
#[test]
fn a_runtime_that_ends_while_a_token_is_saved_leaves_no_lost_answer_behind() {
    let (first, second) = (runtime(), runtime());
    let (scene, process) = first.block_on(async {
        let scene = Scene::new();
        let grant = Grant {
            if_lost: IfLost::NeverReplay,
            ..scene.grant()
        };
        let process = scene.process_with(grant, |b| b);
        process.secret().await;
        scene.issuer.takes(SECOND);
        let refreshing = process.refreshes();
        sleep(SECOND / 2).await;
        process.store.on(StoreCall::Save).hang();
        sleep(SECOND).await;
        assert_eq!((scene.issuer.exchanges(), refreshing.is_finished()), (2, false));
        (scene, process)
    });
    drop(first);
    process.store.heal();
    second.block_on(async {
        sleep(LIFE).await;
        assert_eq!(process.secret().await, "test-access-3");
    });
    assert_eq!((scene.issuer.exchanges(), scene.issuer.presented_again()), (3, 0));
}

/// What it read, it says later, while somebody saves something newer.
struct Late {
    store: MemoryStore,
    millis: Arc<AtomicUsize>,
}

impl TokenStore for Late {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        let by = SECOND * self.millis.load(Ordering::SeqCst) as u32 / 1000;
        Box::pin(async move {
            let read = self.store.load().await;
            sleep(by).await;
            read
        })
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        self.store.save(record, expected, lease)
    }

    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>> {
        self.store.lease(term)
    }

    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool> {
        self.store.renew(lease, term)
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        self.store.release(lease)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_installed_while_somebody_looks_is_not_taken_for_a_loss() {
    let scene = Scene::new();
    let [millis, restored] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let (store, told) = (scene.store.clone(), restored.clone());
    let late = Late {
        store,
        millis: millis.clone(),
    };
    let builder = Tokens::builder(scene.grant()).clock(scene.clock.clone()).store(late);
    let tokens = builder.observe(move |event: &Event| {
        told.fetch_add(
            usize::from(matches!(event, Event::StoreRestored { .. })),
            Ordering::SeqCst,
        );
    });
    let tokens = tokens.build().unwrap();
    tokens.get().await.unwrap();

    millis.store(900, Ordering::SeqCst);
    let looks = scene.store.loads();
    while scene.store.loads() == looks {
        sleep(SECOND / 100).await;
    }
    millis.store(0, Ordering::SeqCst);
    tokens.install(credential(family(1))).unwrap();
    sleep(3 * SECOND).await;
    assert_eq!(restored.load(Ordering::SeqCst), 0);
    assert_eq!(scene.store.record().unwrap().generation(), 2);
}
