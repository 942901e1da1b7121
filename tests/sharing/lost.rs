//! Answers that were lost, and verdicts that were not meant.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_token::testkit::StoreCall;
use tower_token::{IfLost, StoreError, StorePolicy};

use crate::scene::{Fault, Grant, LIFE, MINUTE, Process, SECOND, Scene, credential, family};

fn with(scene: &Scene, if_lost: IfLost) -> Process {
    let grant = Grant {
        if_lost,
        ..scene.grant()
    };
    scene.process_with(grant, |builder| builder)
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_presents_what_may_be_spent_twice_and_then_once_a_minute() {
    let scene = Scene::new();
    scene.issuer.next(&[Fault::LostBefore; 50]);
    for minute in 0..5 {
        let before = scene.issuer.exchanges();
        for _ in 0..20 {
            let process = scene.process();
            let asked = tokio::time::timeout(3 * SECOND, process.tokens.get()).await;
            let error = asked.unwrap().unwrap_err();
            assert!(error.is_reauth_required(), "{error}");
            process.kill();
            sleep(3 * SECOND).await;
        }
        let most = if minute == 0 { 2 } else { 1 };
        assert!(scene.issuer.exchanges() - before <= most, "in minute {minute}");
    }
    // An outage is never final.
    assert!(scene.issuer.exchanges() >= 5);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_in_mid_exchange_presents_twice_and_then_once_a_minute() {
    let scene = Scene::new();
    scene.issuer.arrives_after(MINUTE);
    let began = Instant::now();
    let mut last: Option<Instant> = None;
    let mut exchanges = 0;
    while began.elapsed() < 10 * MINUTE {
        let process = scene.process();
        let _caller = process.asks();
        sleep(3 * SECOND).await;
        process.kill();
        if scene.issuer.exchanges() > exchanges {
            exchanges = scene.issuer.exchanges();
            if exchanges > 2 {
                assert!(last.is_some_and(|last| last.elapsed() >= MINUTE - 3 * SECOND));
            }
            last = Some(Instant::now());
        }
    }
    assert!((3..=12).contains(&exchanges), "{exchanges}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_presents_what_may_be_spent_once_a_minute_in_all() {
    let scene = Scene::new();
    let fleet: Vec<_> = (0..5).map(|_| scene.process()).collect();
    scene.issuer.next(&[Fault::LostBefore; 50]);
    for minute in 0..5 {
        let before = scene.issuer.exchanges();
        for _ in 0..60 {
            for process in &fleet {
                let _caller = process.asks();
            }
            sleep(SECOND).await;
        }
        let most = if minute == 0 { 2 } else { 1 };
        assert!(scene.issuer.exchanges() - before <= most, "in minute {minute}");
    }
    assert!(scene.issuer.exchanges() >= 5);
}

#[tokio::test(start_paused = true)]
async fn within_its_time_what_may_be_spent_is_presented_once_more_and_not_after_it() {
    for (limit, again) in [(300, 1), (30, 0)] {
        let scene = Scene::new();
        let if_lost = IfLost::ReplayWithin(Duration::from_secs(limit));
        let victim = with(&scene, if_lost);
        scene.issuer.takes(MINUTE);
        let _caller = victim.asks();
        sleep(SECOND).await;
        victim.kill();
        scene.issuer.takes(Duration::ZERO);
        for _ in 0..10 {
            let heir = with(&scene, if_lost);
            assert!(heir.tokens.get().await.unwrap_err().is_reauth_required());
            sleep(10 * SECOND).await;
        }
        assert_eq!(scene.issuer.presented_again(), again);
    }
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_a_stale_copy_is_none_in_500_rounds() {
    let scene = Scene::new();
    scene.issuer.is_lenient();
    let one = scene.process();
    let policy = StorePolicy::default().alone(true);
    let stale = scene.process_with(scene.grant(), |builder| builder.store_policy(policy));
    one.secret().await;
    stale.secret().await;
    scene.issuer.arrives_after(SECOND);
    for round in 0..500 {
        stale.store.fail(StoreError::unavailable("gone"));
        one.tokens.refresh().await.unwrap();
        let renewing = stale.refreshes();
        sleep(SECOND / 2).await;
        stale.store.on(StoreCall::Load).heal();
        let renewed = renewing.await.unwrap();
        assert!(renewed.is_ok(), "round {round}: {renewed:?}");
        stale.store.heal();
        assert_eq!(stale.secret().await, one.secret().await);
    }
    assert_eq!(scene.issuer.presented_again(), 500);
    assert!(scene.never_went_back());
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_answer_was_lost_is_known_again_and_overtakes_nothing() {
    let scene = Scene::new();
    let (one, other) = (scene.process(), scene.process());
    one.secret().await;
    other.secret().await;
    for nth in 2..12 {
        let lost = StoreError::unavailable("the answer was lost");
        scene.issuer.arrives_after(SECOND);
        let renewing = one.refreshes();
        sleep(SECOND / 2).await;
        one.store.on(StoreCall::Save).fail_after(lost);
        assert_eq!(renewing.await.unwrap().unwrap().secret(), format!("test-access-{nth}"));
        sleep(SECOND).await;
        one.store.heal();
        sleep(2 * SECOND).await;
        let kept = scene.store.record().unwrap();
        assert_eq!(
            (kept.generation(), kept.token().unwrap().secret()),
            (nth, &*format!("test-access-{nth}"))
        );
        assert!(!one.tokens.status().undurable);
        assert_eq!(other.secret().await, one.secret().await);
    }
    assert_eq!(scene.issuer.counted(), (11, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_nothing_does_not_make_a_lost_one_forgotten() {
    let scene = Scene::new();
    let victim = scene.process();
    scene.issuer.takes(MINUTE);
    let _caller = victim.asks();
    sleep(SECOND).await;
    victim.kill();
    scene.issuer.takes(Duration::ZERO);
    sleep(MINUTE).await;
    scene.issuer.next(&[Fault::Unavailable]);
    for _ in 0..10 {
        let heir = scene.process();
        assert!(heir.tokens.get().await.is_err());
        sleep(3 * SECOND).await;
    }
    assert_eq!((scene.issuer.exchanges(), scene.issuer.presented_again()), (2, 0));
    sleep(MINUTE).await;
    assert!(scene.process().tokens.get().await.unwrap_err().is_reauth_required());
    assert_eq!(scene.issuer.presented_again(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_is_heard_once_by_the_fleet_and_by_all_who_are_started_after_it() {
    let scene = Scene::new();
    let fleet = [scene.process(), scene.process(), scene.process()];
    for process in &fleet {
        process.secret().await;
    }
    scene.issuer.revokes();
    sleep(LIFE).await;
    for _ in 0..9 {
        for process in fleet.iter().chain([&scene.process()]) {
            assert!(process.tokens.get().await.unwrap_err().is_reauth_required());
        }
        sleep(MINUTE).await;
    }
    assert_eq!(scene.issuer.exchanges(), 2);
    // Whoever wants to know asks.
    assert!(scene.process().tokens.refresh().await.is_err());
    assert_eq!(scene.issuer.exchanges(), 3);
    fleet[0].tokens.install(credential(family(1))).unwrap();
    sleep(2 * SECOND).await;
    for process in fleet.iter().chain([&scene.process()]) {
        assert_eq!(process.secret().await, "test-access-10001");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_installed_is_saved_once_although_the_answer_was_lost() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    process
        .store
        .on(StoreCall::Save)
        .fail_after(StoreError::unavailable("the answer was lost"));
    process.tokens.install(credential(family(1))).unwrap();
    sleep(5 * SECOND).await;
    process.store.heal();
    sleep(2 * SECOND).await;
    assert_eq!(scene.store.record().unwrap().generation(), 2);
    assert!(!process.tokens.status().undurable);
    assert_eq!(process.secret().await, "test-access-10001");
}
