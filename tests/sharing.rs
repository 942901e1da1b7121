//! Processes that share a store are one client of the issuer, whatever becomes of each of them.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used)]

#[path = "sharing/accidents.rs"]
mod accidents;
#[path = "sharing/changes.rs"]
mod changes;
#[path = "sharing/departures.rs"]
mod departures;
#[path = "sharing/fleets.rs"]
mod fleets;
#[path = "sharing/history.rs"]
mod history;
#[path = "sharing/leases.rs"]
mod leases;
#[path = "sharing/lost.rs"]
mod lost;
#[path = "sharing/outages.rs"]
mod outages;
#[path = "sharing/repairs.rs"]
mod repairs;
#[path = "sharing/scene.rs"]
mod scene;
#[path = "sharing/stages.rs"]
mod stages;

use std::time::Duration;

use scene::{Fault, Grant, LIFE, MINUTE, Process, SECOND, Scene, credential};
use tokio::time::{Instant, sleep};
use tower_token::testkit::StoreCall;
use tower_token::{IfLost, State, StoreError, StorePolicy};

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_the_token_that_is_kept() {
    let scene = Scene::new();
    let first = scene.process();
    assert_eq!(first.secret().await, "test-access-1");
    first.tokens.shutdown().await;

    let second = scene.process();
    assert_eq!(second.secret().await, "test-access-1");
    assert_eq!(scene.issuer.exchanges(), 1);
    assert_eq!(second.told.count("Adopted"), 1);
    let kept = |process: &Process| process.tokens.current().unwrap().renewal_credential().cloned();
    assert!(kept(&first).is_some());
    assert_eq!(kept(&second), kept(&first), "it is the same token");

    sleep(LIFE).await;
    assert_eq!(second.secret().await, "test-access-2");
    assert_eq!((scene.issuer.exchanges(), scene.issuer.presented_again()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn eight_processes_make_one_exchange_an_expiry_and_present_nothing_twice() {
    let scene = Scene::new();
    scene.issuer.takes(SECOND / 5);
    let fleet: Vec<_> = (0..8).map(|_| scene.process()).collect();
    for nth in 1..=20 {
        for process in &fleet {
            let _ = process.tokens.current();
        }
        for process in &fleet {
            assert_eq!(process.secret().await, format!("test-access-{nth}"));
        }
        assert_eq!(scene.issuer.exchanges(), nth);
        sleep(LIFE).await;
    }
    assert_eq!(scene.issuer.presented_again(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_another_renewed_is_adopted_without_a_call_and_before_the_old_one_ends() {
    let scene = Scene::new();
    let (one, other) = (scene.process(), scene.process());
    assert_eq!(one.secret().await, other.secret().await);
    let changed = other.tokens.changed();
    one.tokens.refresh().await.unwrap();
    let began = Instant::now();
    assert_eq!(changed.await.secret(), "test-access-2");
    assert!(began.elapsed() < SECOND / 4, "{:?}", began.elapsed());
    assert_eq!(scene.issuer.exchanges(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_before_it_goes_out() {
    let scene = Scene::new();
    let process = scene.process();
    process.store.on(StoreCall::Save).delay(SECOND / 2);
    let waiting = tokio::spawn(process.tokens.get());
    while scene.issuer.exchanges() == 0 {
        sleep(SECOND / 100).await;
    }
    assert!(process.tokens.current().is_none(), "published before it was durable");
    waiting.await.unwrap().unwrap();
    let kept = scene.store.record().unwrap();
    assert_eq!(kept.token().unwrap().secret(), "test-access-1");
    assert!(!process.tokens.status().undurable);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_at_the_save_delays_a_token_by_two_seconds_and_is_told_of() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    sleep(LIFE).await;
    scene.issuer.takes(SECOND);
    let renewing = tokio::spawn(process.tokens.get());
    while scene.issuer.exchanges() == 1 {
        sleep(SECOND / 100).await;
    }
    process.store.hang();
    let began = Instant::now();
    assert_eq!(renewing.await.unwrap().unwrap().secret(), "test-access-2");
    let took = began.elapsed();
    assert!(took > 2 * SECOND && took <= SECOND * 31 / 10, "{took:?}");
    assert!(process.tokens.status().undurable);
    assert_eq!(process.told.count("Undurable"), 1);

    sleep(MINUTE).await;
    process.store.heal();
    sleep(2 * SECOND).await;
    assert!(!process.tokens.status().undurable);
    assert_eq!(process.told.count("Durable"), 1);
    assert_eq!(scene.store.record().unwrap().token().unwrap().secret(), "test-access-2");
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_credential_of_one_use_is_not_spent_and_a_live_token_goes_out() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    process.store.fail(StoreError::unavailable("gone"));
    let dies = Instant::now() + LIFE;
    while Instant::now() + MINUTE < dies {
        assert!(process.tokens.get().await.is_ok());
        sleep(SECOND).await;
    }
    sleep(2 * MINUTE).await;
    let error = process.tokens.get().await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("gone"), "{error}");
    assert_eq!(scene.issuer.exchanges(), 1);
    assert_eq!(process.told.count("StoreFailed"), 1);

    process.store.heal();
    let began = Instant::now();
    while process.tokens.get().await.is_err() {
        sleep(SECOND / 10).await;
    }
    assert!(began.elapsed() <= 2 * SECOND, "{:?}", began.elapsed());
    assert_eq!(scene.issuer.presented_again(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_it_is_wanted_it_is_renewed_alone_and_saved_when_the_store_is_back() {
    let scene = Scene::new();
    let policy = StorePolicy::default().alone(true);
    let process = scene.process_with(scene.grant(), |builder| builder.store_policy(policy));
    process.secret().await;
    process.store.hang();
    sleep(LIFE).await;
    assert_eq!(process.secret().await, "test-access-2");
    assert!(process.tokens.status().undurable);
    sleep(LIFE).await;
    assert_eq!(process.secret().await, "test-access-3");
    process.store.heal();
    sleep(2 * SECOND).await;
    assert!(!process.tokens.status().undurable);
    assert_eq!(scene.store.record().unwrap().token().unwrap().secret(), "test-access-3");
    assert_eq!(scene.issuer.presented_again(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_emptied_is_given_back_what_was_in_it_and_nothing_is_presented_twice() {
    let scene = Scene::new();
    let fleet = [scene.process(), scene.process(), scene.process()];
    for process in &fleet {
        process.secret().await;
    }
    fleet[0].tokens.refresh().await.unwrap();
    scene.store.lose();
    for process in &fleet {
        process.tokens.refresh().await.unwrap();
    }
    sleep(5 * SECOND).await;
    let generations: Vec<_> = scene
        .store
        .history()
        .iter()
        .map(|(generation, _)| *generation)
        .collect();
    assert!(scene.store.record().unwrap().generation() >= 3, "{generations:?}");
    assert_eq!(scene.issuer.presented_again(), 0);
    let newest = fleet[0].secret().await;
    for process in &fleet {
        assert_eq!(process.secret().await, newest);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_is_everybodys_and_so_is_what_is_installed_after_it() {
    let scene = Scene::new();
    let (one, other) = (scene.process(), scene.process());
    one.secret().await;
    other.secret().await;
    one.tokens.sign_out();
    sleep(2 * SECOND).await;
    assert_eq!(other.tokens.status().state, State::SignedOut);
    assert_eq!(
        scene.process().tokens.get().await.unwrap_err().to_string(),
        one.tokens.get().await.unwrap_err().to_string()
    );

    other.tokens.install(credential(1)).unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(one.secret().await, "test-access-2");
    assert_eq!(other.secret().await, "test-access-2");
    assert_eq!((scene.issuer.exchanges(), scene.issuer.presented_again()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_stands_above_what_is_kept_and_an_older_one_does_not() {
    let scene = Scene::new();
    scene.process().secret().await;
    // The operator has signed in anew.
    let issuer = std::sync::Arc::new(scene::Issuer::default());
    let renewed = |seed| Grant {
        issuer: issuer.clone(),
        seed,
        ..scene.grant()
    };
    let fresh = scene.process_with(renewed(0), |b| b);
    // The same seed: the store wins.
    assert_eq!(fresh.secret().await, "test-access-1");
    assert_eq!(issuer.exchanges(), 0);

    let scene = Scene::new();
    let old = scene.process();
    assert_eq!(old.secret().await, "test-access-1");
    let reseeded = scene.process_with(
        Grant {
            seed: 1,
            ..scene.grant()
        },
        |b| b,
    );
    assert_eq!(reseeded.secret().await, "test-access-2");
    assert_eq!(scene.issuer.exchanges(), 2);
    sleep(2 * SECOND).await;
    assert_eq!(old.secret().await, "test-access-2");
    // Restarted with the old configuration, it does not go back to it.
    assert_eq!(scene.process().secret().await, "test-access-2");
    assert_eq!((scene.issuer.exchanges(), scene.issuer.presented_again()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_once_more_and_then_a_verdict_stands_until_something_changes() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    scene.issuer.next(&[Fault::LostAfter]);
    let error = process.tokens.refresh().await.unwrap_err();
    assert!(error.is_reauth_required(), "{error}");
    assert_eq!((scene.issuer.exchanges(), scene.issuer.presented_again()), (3, 1));
    assert!(scene.issuer.is_revoked());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_within_the_issuers_grace_costs_nothing() {
    let scene = Scene::new();
    scene.issuer.grants_grace();
    let process = scene.process();
    process.secret().await;
    scene.issuer.next(&[Fault::LostAfter]);
    assert_eq!(process.tokens.refresh().await.unwrap().secret(), "test-access-2");
    assert_eq!(scene.store.record().unwrap().token().unwrap().secret(), "test-access-2");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_another_is_refused_by_name_and_left_alone() {
    let scene = Scene::new();
    scene.process().secret().await;
    let before = scene.store.bytes();
    let stranger = scene.process_with(
        Grant {
            owner: "somebody else",
            ..scene.grant()
        },
        |b| b,
    );
    let error = stranger.tokens.get().await.unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("the issuer, a client"),
        "{error}"
    );
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.store.bytes(), before);
    assert_eq!(scene.issuer.exchanges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_still_has_the_token_for_who_starts() {
    let scene = Scene::new();
    scene.process().secret().await;
    let late = scene.process();
    late.store
        .full()
        .on(StoreCall::Lease)
        .fail(StoreError::unavailable("read-only"));
    assert_eq!(late.secret().await, "test-access-1");
    assert_eq!(scene.issuer.exchanges(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_intent_whose_note_timed_out_and_that_was_never_presented_is_no_loss() {
    let scene = Scene::new();
    let careful = || Grant {
        if_lost: IfLost::NeverReplay,
        ..scene.grant()
    };
    let process = scene.process_with(careful(), |b| b);
    process.secret().await;
    let lost = || StoreError::unavailable("timeout");
    process.store.on(StoreCall::Save).delay(SECOND / 10).fail_after(lost());
    let tokens = process.tokens.clone();
    let renewing = tokio::spawn(async move { tokens.refresh().await });
    sleep(SECOND / 20).await;
    // Nor can it be told whether it is there.
    process.store.on(StoreCall::Load).fail(lost());
    let error = renewing.await.unwrap().unwrap_err();
    assert!(error.is_transient(), "{error}");
    process.store.heal();
    sleep(LIFE).await;
    assert_eq!(process.secret().await, "test-access-2");

    // The same where it was noted, and the issuer could not be reached.
    scene.issuer.next(&[Fault::Unavailable]);
    assert!(process.tokens.refresh().await.unwrap_err().is_transient());
    sleep(LIFE).await;
    assert_eq!(scene.process_with(careful(), |b| b).secret().await, "test-access-3");
    assert_eq!(scene.issuer.presented_again(), 0);
}
