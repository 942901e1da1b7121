//! Whoever signs out or shuts down does it in the middle of something else.

use std::sync::{Arc, OnceLock};

use tokio::time::{Instant, sleep};
use tower_token::testkit::StoreCall;
use tower_token::{Event, FetchError, Token, Tokens, provider_fn};

use crate::scene::{LIFE, SECOND, Scene, credential};

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
