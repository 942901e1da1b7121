//! Other credentials: signed in anew, configured anew, damaged.

use serde_json::json;
use tokio::time::{Instant, sleep};
use tower_token::{State, StoreError, Token};

use crate::scene::{Awaits, Grant, LIFE, MINUTE, Process, SECOND, Scene, credential, family};

fn configured(scene: &Scene, seed: u64) -> Process {
    let grant = Grant { seed, ..scene.grant() };
    scene.process_with(grant, |builder| builder)
}

#[tokio::test(start_paused = true)]
async fn a_rolling_deploy_of_a_new_seed_ends_on_it_in_any_order() {
    for order in 0..20 {
        let scene = Scene::new();
        let mut dice = fastrand::Rng::with_seed(order);
        let mut fleet: Vec<_> = (0..4).map(|_| configured(&scene, 0)).collect();
        for process in &fleet {
            process.secret().await;
        }
        // Old ones restart with what they had, and new ones come, in any order.
        let mut steps = [false, false, false, false, true, true, true, true];
        dice.shuffle(&mut steps);
        let mut is_renewed = false;
        for is_new in steps {
            is_renewed |= is_new;
            let process = configured(&scene, if is_new { family(1) } else { 0 });
            let secret = process.secret().await;
            assert_eq!(
                secret.len() == "test-access-10001".len(),
                is_renewed,
                "order {order}: {secret}"
            );
            fleet.push(process);
            fleet.swap_remove(dice.usize(..4));
            sleep(SECOND).await;
        }
        let newest = fleet[0].secret().await;
        for process in &fleet {
            assert_eq!(process.secret().await, newest, "order {order}");
        }
        assert_eq!(scene.issuer.counted(), (2, 0), "order {order}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_of_the_builder_is_a_seed() {
    let scene = Scene::new();
    let with = |number| scene.process_with(scene.grant(), |builder| builder.credential(credential(number)));
    assert_eq!(with(family(1)).secret().await, "test-access-10001");
    assert_eq!(with(family(1)).secret().await, "test-access-10001");
    assert_eq!(with(family(2)).secret().await, "test-access-20001");
    // Overtaken.
    assert_eq!(with(family(1)).secret().await, "test-access-20001");
    assert_eq!(scene.issuer.counted(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_configured_token_is_used_where_nothing_is_kept_and_nowhere_else() {
    let scene = Scene::new();
    let initial = || {
        let token = Token::bearer("test-configured").expires_in(LIFE);
        let grant = Grant {
            initial: Some(token.credential(credential(0))),
            ..scene.grant()
        };
        scene.process_with(grant, |builder| builder)
    };
    let first = initial();
    assert_eq!(first.secret().await, "test-configured");
    assert_eq!(scene.issuer.exchanges(), 0);
    assert_eq!(
        scene.store.record().unwrap().token().unwrap().secret(),
        "test-configured"
    );
    first.tokens.refresh().await.unwrap();
    assert_eq!(initial().secret().await, "test-access-1");
    sleep(LIFE).await;
    assert_eq!(initial().secret().await, "test-access-2");
    assert_eq!(scene.issuer.counted(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_installed_while_the_store_was_down_is_saved_when_it_is_back() {
    let scene = Scene::new();
    let (one, other) = (scene.process(), scene.process());
    one.secret().await;
    other.secret().await;
    one.store.fail(StoreError::unavailable("gone"));
    one.tokens.install(credential(family(1))).unwrap();
    assert!(one.tokens.status().undurable);
    sleep(MINUTE / 2).await;
    assert!(one.tokens.get().await.unwrap_err().is_transient());
    one.store.heal();
    sleep(2 * SECOND).await;
    assert!(!one.tokens.status().undurable);
    // A restart, and one that never went.
    for process in [&scene.process(), &one, &other] {
        assert_eq!(process.secret().await, "test-access-10001");
    }
    assert_eq!(scene.issuer.counted(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_is_in_the_store_when_a_shutdown_is_over() {
    for _ in 0..2 {
        let scene = Scene::new();
        let process = scene.process();
        process.secret().await;
        scene.in_slow_motion(&process);
        process.tokens.sign_out();
        process.tokens.shutdown().await;
        process.kill();
        let next = scene.process();
        assert!(next.tokens.get().await.unwrap_err().to_string().contains("signed out"));
        assert_eq!(next.tokens.status().state, State::SignedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_bounded_whatever_the_store_does() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        let process = scene.process();
        scene.in_slow_motion(&process);
        let caller = process.asks();
        stage.reached().await;
        process.store.hang();
        let began = Instant::now();
        process.tokens.shutdown().await;
        assert!(began.elapsed() <= 10 * SECOND, "{stage:?}: {:?}", began.elapsed());
        let _ = caller.await.unwrap();
    }
}

/// One that is kept, as a stranger, an accident or an older program would have left it.
fn damaged(whole: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let edited = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut sheet = serde_json::from_slice(whole).unwrap();
        edit(&mut sheet);
        sheet.to_string().into_bytes()
    };
    let mut flipped = whole.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    vec![
        ("torn", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("flipped", flipped),
        ("foreign", b"{\"access_token\":\"test-foreign\"}".to_vec()),
        (
            "another schema",
            edited(&|sheet| sheet["tower_token_record"] = json!(0)),
        ),
        ("edited", edited(&|sheet| sheet["record"]["generation"] = json!(77))),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_is_refused_by_name_before_and_after_the_start_and_never_overwritten() {
    let scene = Scene::new();
    scene.process().secret().await;
    for (what, bytes) in damaged(&scene.store.bytes().unwrap()) {
        let scene = Scene::new();
        let running = scene.process();
        let before = running.secret().await;
        let whole = scene.store.bytes().unwrap();
        scene.store.put_bytes(bytes.clone());
        let starting = scene.process();
        let error = starting.tokens.get().await.unwrap_err();
        assert!(
            error.is_config() && error.to_string().contains("what is kept"),
            "{what}: {error}"
        );
        assert!(!error.to_string().contains("test-"), "{what}: {error}");
        for _ in 0..60 {
            assert_eq!(running.secret().await, before, "{what}");
            sleep(SECOND).await;
        }
        assert!(
            running
                .tokens
                .status()
                .store_error
                .is_some_and(|error| error.is_unusable()),
            "{what}"
        );
        assert_eq!(scene.store.bytes().unwrap(), bytes, "{what}");
        assert_eq!(scene.issuer.exchanges(), 1, "{what}");
        scene.store.put_bytes(whole);
        sleep(2 * SECOND).await;
        assert_eq!(starting.secret().await, running.secret().await, "{what}");
        assert_eq!(scene.issuer.presented_again(), 0, "{what}");
    }
}
