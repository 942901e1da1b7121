//! What two accidents at a time did.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_token::testkit::StoreCall;
use tower_token::{Clock, IfLost, State, StoreError};

use crate::scene::{Awaits, Fault, Grant, LIFE, MINUTE, SECOND, Scene, credential, family};

#[tokio::test(start_paused = true)]
async fn a_sign_out_is_not_missed_by_who_was_putting_back_what_the_store_had_lost() {
    let scene = Scene::new();
    let (late, other) = (scene.process(), scene.process());
    late.secret().await;
    other.secret().await;
    late.store.on(StoreCall::Lease).hang();
    scene.store.lose();
    sleep(3 * SECOND).await;
    other.tokens.sign_out();
    sleep(SECOND).await;
    late.store.heal();
    sleep(3 * SECOND).await;
    assert_eq!(late.tokens.status().state, State::SignedOut);
}

#[tokio::test(start_paused = true)]
async fn what_was_done_last_is_saved_once_however_slowly_a_lease_is_given_back() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    process.store.on(StoreCall::Release).delay(SECOND * 6 / 10);
    process.tokens.sign_out();
    sleep(SECOND * 3 / 10).await;
    let before = scene.store.history().len();
    // The lease of the one is still on its way back, and that of the other on its way here.
    process.store.on(StoreCall::Lease).delay(SECOND * 3 / 2);
    process.tokens.install(credential(family(1))).unwrap();
    sleep(20 * SECOND).await;
    assert_eq!(scene.store.history().len(), before + 1, "{:?}", scene.store.history());
    assert_eq!(process.secret().await, "test-access-10001");
}

#[test]
fn a_sign_out_where_no_task_can_be_started_is_saved_by_the_shutdown() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (scene, process) = runtime.block_on(async {
        let scene = Scene::new();
        let process = scene.process();
        process.secret().await;
        (scene, process)
    });
    process.tokens.sign_out();
    runtime.block_on(process.tokens.shutdown());
    assert!(scene.store.record().unwrap().token().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_clock_in_mid_exchange_lets_nobody_in_before_the_save() {
    for step in [3_600, -3_600] {
        let scene = Scene::new();
        let clock = Clock::of_tokio();
        let holder = scene.process_with(scene.grant(), |builder| builder.clock(clock.clone()));
        let other = scene.process();
        scene.issuer.takes(SECOND);
        let (one, two) = (
            holder.asks(),
            tokio::spawn({
                let other = other.tokens.clone();
                async move {
                    sleep(SECOND / 2).await;
                    other.get().await
                }
            }),
        );
        sleep(SECOND / 2).await;
        clock.step(step);
        let _ = one.await.unwrap();
        assert!(two.await.unwrap().is_ok(), "stepped by {step}");
        assert_eq!(scene.issuer.presented_again(), 0, "stepped by {step}");
        sleep(5 * SECOND).await;
        let newest = holder.secret().await;
        sleep(2 * SECOND).await;
        assert_eq!(other.secret().await, newest, "stepped by {step}");
        assert!(scene.issuer.exchanges() <= 3, "stepped by {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ours_is_looked_at_once_a_second() {
    let scene = Scene::new();
    scene.process().secret().await;
    let grant = Grant {
        owner: "somebody else",
        ..scene.grant()
    };
    let stranger = scene.process_with(grant, |builder| builder);
    assert!(stranger.tokens.get().await.unwrap_err().is_config());
    let before = scene.store.loads();
    sleep(MINUTE).await;
    let loads = scene.store.loads() - before;
    // There are two of them.
    assert!(loads <= 130, "{loads} loads in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_release_was_lost_is_given_back_as_soon_as_the_store_is_back() {
    let scene = Scene::new();
    let (one, other) = (scene.process(), scene.process());
    one.store.on(StoreCall::Release).hang();
    one.secret().await;
    sleep(5 * SECOND).await;
    assert!(scene.store.is_leased());
    one.store.heal();
    let began = Instant::now();
    other.tokens.refresh().await.unwrap();
    assert!(began.elapsed() <= 2 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_known_although_the_store_did_not_take_the_word_of_it() {
    let scene = Scene::new();
    let grant = Grant {
        if_lost: IfLost::NeverReplay,
        ..scene.grant()
    };
    let process = scene.process_with(grant, |builder| builder);
    scene.issuer.next(&[Fault::Unavailable]);
    scene.issuer.arrives_after(SECOND);
    let caller = process.asks();
    sleep(SECOND / 2).await;
    process.store.full();
    assert!(caller.await.unwrap().is_err());
    process.store.heal();
    sleep(3 * SECOND).await;
    // It was not taken, and so it is not spent.
    assert_eq!(process.secret().await, "test-access-1");
    assert_eq!(scene.issuer.presented_again(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_saved_by_a_clock_that_is_ahead_is_not_sent_when_it_is_over() {
    let scene = Scene::new();
    let ahead = Clock::of_tokio();
    ahead.step(3_600);
    let one = scene.process();
    let other = scene.process_with(scene.grant(), |builder| builder.clock(ahead));
    other.secret().await;
    let dies = Instant::now() + LIFE;
    let adopted = one.secret().await;
    sleep(LIFE).await;
    assert!(Instant::now() >= dies);
    assert_ne!(one.secret().await, adopted);
}

#[tokio::test(start_paused = true)]
async fn a_window_that_began_in_the_future_is_not_open() {
    let scene = Scene::new();
    let clock = Clock::of_tokio();
    let grant = || Grant {
        if_lost: IfLost::ReplayWithin(Duration::from_secs(300)),
        ..scene.grant()
    };
    let victim = scene.process_with(grant(), |builder| builder.clock(clock.clone()));
    scene.in_slow_motion(&victim);
    let _caller = victim.asks();
    Awaits::Answer.reached().await;
    victim.kill();
    sleep(10 * MINUTE).await;
    clock.step(-3_600);
    let heir = scene.process_with(grant(), |builder| builder.clock(clock));
    assert!(heir.tokens.get().await.unwrap_err().is_reauth_required());
    assert_eq!(scene.issuer.presented_again(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_presentation_in_the_future_does_not_hold_up_the_fleet_for_longer_than_a_minute() {
    let scene = Scene::new();
    let clock = Clock::of_tokio();
    let victim = scene.process_with(scene.grant(), |builder| builder.clock(clock.clone()));
    scene.issuer.next(&[Fault::LostBefore, Fault::LostBefore]);
    assert!(victim.tokens.get().await.is_err());
    victim.kill();
    clock.step(-3_600);
    let heir = scene.process_with(scene.grant(), |builder| builder.clock(clock));
    sleep(2 * MINUTE).await;
    assert!(heir.tokens.get().await.unwrap_err().is_reauth_required());
    sleep(MINUTE + 2 * SECOND).await;
    assert_eq!(heir.secret().await, "test-access-1");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_leaves_the_lease_behind_before_the_request_goes_out_keeps_it_back() {
    for stage in [Awaits::Lease, Awaits::Load, Awaits::Intent] {
        let scene = Scene::new();
        let clock = Clock::of_tokio();
        let process = scene.process_with(scene.grant(), |builder| builder.clock(clock.clone()));
        scene.in_slow_motion(&process);
        let caller = process.asks();
        stage.reached().await;
        // Suspended, as the clock has it that sees that.
        clock.step(60);
        assert!(caller.await.unwrap().is_err(), "{stage:?}");
        assert_eq!(scene.issuer.exchanges(), 0, "{stage:?}");
        sleep(2 * SECOND).await;
        assert_eq!(process.secret().await, "test-access-1", "{stage:?}");
        assert_eq!(scene.issuer.counted(), (1, 0), "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_a_lost_store_settles_a_shutdown_ends_and_what_is_put_back_is_adopted() {
    for is_shut_down in [true, false] {
        let scene = Scene::new();
        scene.issuer.grants_grace();
        let (one, other) = (scene.process(), scene.process());
        one.secret().await;
        other.secret().await;
        scene.issuer.arrives_after(20 * SECOND);
        let renewing = one.refreshes();
        // The other one has seen what is being presented.
        sleep(5 * SECOND).await;
        scene.store.lose();
        sleep(2 * SECOND).await;
        let waiting = other.refreshes();
        sleep(SECOND).await;
        let began = Instant::now();
        if is_shut_down {
            other.tokens.shutdown().await;
            assert!(began.elapsed() <= 6 * SECOND, "{:?}", began.elapsed());
            assert!(waiting.await.unwrap().is_err());
        } else {
            assert_eq!(waiting.await.unwrap().unwrap().secret(), "test-access-2");
            assert!(began.elapsed() <= 15 * SECOND, "{:?}", began.elapsed());
        }
        assert_eq!(renewing.await.unwrap().unwrap().secret(), "test-access-2");
        assert_eq!(scene.issuer.counted(), (2, 0));
    }
}

/// It was said to do again what it does not.
#[tokio::test(start_paused = true)]
async fn a_store_that_can_be_read_again_is_not_said_to_take_what_it_does_not() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    process.store.on(StoreCall::Save).fail(StoreError::unavailable("full"));
    process.tokens.install(credential(family(1))).unwrap();
    for _ in 0..3 {
        sleep(2 * SECOND).await;
        process.store.on(StoreCall::Load).fail(StoreError::unavailable("gone"));
        sleep(2 * SECOND).await;
        process.store.on(StoreCall::Load).heal();
        assert!(process.tokens.status().store_error.is_some());
    }
    let told = |name: &str| process.told.count(name);
    assert_eq!((told("StoreFailed"), told("StoreRecovered")), (1, 0));
    process.store.heal();
    sleep(2 * SECOND).await;
    assert_eq!((told("StoreFailed"), told("StoreRecovered")), (1, 1));
    assert!(process.tokens.status().store_error.is_none());
}

/// Every install was followed by the word that something is durable again.
#[tokio::test(start_paused = true)]
async fn what_was_installed_or_signed_out_is_not_told_to_be_durable_again() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    process.tokens.install(credential(family(1))).unwrap();
    sleep(SECOND).await;
    process.tokens.sign_out();
    sleep(SECOND).await;
    assert!(!process.tokens.status().undurable);
    let told = |name: &str| process.told.count(name);
    assert_eq!((told("Undurable"), told("Durable")), (0, 0));
}

/// A chain had it twice.
#[tokio::test(start_paused = true)]
async fn what_a_store_says_is_said_once_and_what_it_comes_from_after_it() {
    let scene = Scene::new();
    let process = scene.process();
    let gone = StoreError::unavailable("the cupboard is locked").caused_by("the key is lost");
    process.store.fail(gone);
    let error = process.tokens.get().await.unwrap_err();
    let links = std::iter::successors(Some(&error as &dyn std::error::Error), |link| link.source());
    let chain: Vec<String> = links.map(ToString::to_string).collect();
    let said = |text: &str| chain.iter().filter(|link| link.contains(text)).count();
    assert_eq!(
        (said("the cupboard is locked"), said("the key is lost")),
        (1, 1),
        "{chain:#?}"
    );
}
