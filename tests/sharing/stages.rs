//! Whatever befalls a process, at every stage of its fetch.

use tokio::time::{Instant, sleep};
use tower_token::{IfLost, State};

use crate::scene::{Awaits, Grant, LIFE, MINUTE, SECOND, Scene, credential, family};

#[tokio::test(start_paused = true)]
async fn callers_that_leave_neither_stop_nor_repeat_an_exchange_and_the_lease_is_given_back() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        let process = scene.process();
        scene.in_slow_motion(&process);
        let callers = [process.asks(), process.asks(), process.asks()];
        stage.reached().await;
        for caller in callers {
            caller.abort();
        }
        sleep(3 * SECOND).await;
        assert_eq!(scene.issuer.counted(), (1, 0), "{stage:?}");
        assert!(!scene.store.is_leased(), "{stage:?}");
        assert_eq!(scene.process().secret().await, "test-access-1", "{stage:?}");
        assert_eq!(process.secret().await, "test-access-1", "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_while_another_holds_the_lease_leave_nothing_behind() {
    let scene = Scene::new();
    let holder = scene.process();
    scene.issuer.takes(5 * SECOND);
    let first = holder.asks();
    sleep(SECOND).await;
    let other = scene.process();
    let callers = [other.asks(), other.asks()];
    sleep(SECOND).await;
    for caller in callers {
        caller.abort();
    }
    first.await.unwrap().unwrap();
    sleep(SECOND).await;
    assert_eq!(other.tokens.current().unwrap().secret(), "test-access-1");
    assert!(!scene.store.is_leased());
    assert_eq!(scene.issuer.counted(), (1, 0));
}

/// What the next process does after one was killed there: how long it waited, and what it was told.
async fn killed(scene: &Scene, stage: Awaits, if_lost: IfLost) -> (crate::scene::Process, bool) {
    let grant = || Grant {
        if_lost,
        ..scene.grant()
    };
    let victim = scene.process_with(grant(), |builder| builder);
    scene.in_slow_motion(&victim);
    let caller = victim.asks();
    stage.reached().await;
    caller.abort();
    victim.kill();
    let heir = scene.process_with(grant(), |builder| builder);
    let began = Instant::now();
    let inherited = heir.tokens.get().await;
    let took = began.elapsed();
    // It waits for the end of a lease, and not for much more.
    let most = match stage {
        Awaits::Lease | Awaits::Nothing => SECOND,
        _ => 46 * SECOND,
    };
    assert!(took <= most, "{stage:?}: {took:?}");
    if let Err(error) = &inherited {
        assert!(error.is_reauth_required(), "{stage:?}: {error}");
    }
    (heir, inherited.is_ok())
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_what_may_be_spent_is_presented_once_more_and_what_is_kept_is_adopted() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        let (heir, inherited) = killed(&scene, stage, IfLost::ReplayOnce).await;
        // A strict issuer signs out whoever was killed between its answer and the disk, and nobody else.
        assert_eq!(inherited, !stage.is_between(), "{stage:?}");
        let again = usize::from(stage.is_between());
        assert_eq!(scene.issuer.presented_again(), again, "{stage:?}");
        assert!(scene.issuer.presented().len() <= 1 + again, "{stage:?}");
        assert!(scene.never_went_back());
        if inherited {
            sleep(LIFE).await;
            assert_eq!(heir.secret().await, "test-access-2", "{stage:?}");
            assert_eq!(scene.issuer.presented_again(), 0, "{stage:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_an_issuer_with_grace_loses_nobody() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        scene.issuer.grants_grace();
        let (heir, inherited) = killed(&scene, stage, IfLost::ReplayOnce).await;
        assert!(inherited, "{stage:?}");
        assert_eq!(heir.secret().await, "test-access-1", "{stage:?}");
        sleep(LIFE).await;
        assert_eq!(heir.secret().await, "test-access-2", "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_what_is_never_replayed_is_presented_only_by_who_asks_for_it() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        let (heir, inherited) = killed(&scene, stage, IfLost::NeverReplay).await;
        let noted = stage == Awaits::Issuer || stage.is_between();
        assert_eq!(inherited, !noted, "{stage:?}");
        assert_eq!(scene.issuer.presented_again(), 0, "{stage:?}");
        if noted {
            sleep(10 * MINUTE).await;
            assert!(heir.tokens.get().await.unwrap_err().is_reauth_required());
            assert_eq!(scene.issuer.presented_again(), 0, "{stage:?}");
            assert_eq!(heir.tokens.refresh().await.is_ok(), !stage.is_between(), "{stage:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_at_any_stage_leaves_what_the_issuer_answered_and_no_lease() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        let process = scene.process();
        scene.in_slow_motion(&process);
        let caller = process.asks();
        stage.reached().await;
        let began = Instant::now();
        process.tokens.shutdown().await;
        assert!(began.elapsed() <= 2 * SECOND, "{stage:?}: {:?}", began.elapsed());
        let _ = caller.await.unwrap();
        assert!(!scene.store.is_leased(), "{stage:?}");
        let exchanges = scene.issuer.exchanges();
        let kept = scene.store.record().and_then(|record| record.token().cloned());
        assert_eq!(kept.is_some(), exchanges == 1, "{stage:?}");
        drop(process);
        assert_eq!(scene.process().secret().await, "test-access-1", "{stage:?}");
        assert_eq!(scene.issuer.counted(), (1, 0), "{stage:?}");
    }
}

/// Who does it, to whose fetch.
const WHOSE: [bool; 2] = [false, true];

#[tokio::test(start_paused = true)]
async fn a_sign_out_at_any_stage_of_a_fetch_is_never_undone_by_it() {
    for stage in Awaits::ALL {
        for own in WHOSE {
            let scene = Scene::new();
            let (one, other) = (scene.process(), scene.process());
            scene.in_slow_motion(&one);
            let caller = one.asks();
            stage.reached().await;
            let who = if own { &one } else { &other };
            who.tokens.sign_out();
            sleep(5 * SECOND).await;
            let _ = caller.await.unwrap();
            for process in [&one, &other, &scene.process()] {
                let error = process.tokens.get().await.unwrap_err();
                assert!(
                    error.to_string().contains("signed out"),
                    "{stage:?}, own: {own}: {error}"
                );
                assert_eq!(process.tokens.status().state, State::SignedOut);
            }
            let kept = scene.store.record().unwrap();
            assert!(kept.token().is_none() && !scene.store.is_leased(), "{stage:?}");
            assert!(scene.issuer.exchanges() <= 1 && scene.issuer.presented_again() == 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_installed_at_any_stage_of_a_fetch_stands_above_what_it_brings() {
    for stage in Awaits::ALL {
        for own in WHOSE {
            let scene = Scene::new();
            let (one, other) = (scene.process(), scene.process());
            scene.in_slow_motion(&one);
            let caller = one.asks();
            stage.reached().await;
            let who = if own { &one } else { &other };
            who.tokens.install(credential(family(1))).unwrap();
            sleep(5 * SECOND).await;
            let _ = caller.await.unwrap();
            for process in [&one, &other, &scene.process()] {
                assert_eq!(process.secret().await, "test-access-10001", "{stage:?}, own: {own}");
            }
            assert!(scene.issuer.exchanges() <= 2 && scene.issuer.presented_again() == 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_emptied_or_put_back_at_any_stage_ends_on_the_newest_token() {
    for stage in Awaits::ALL {
        for emptied in [true, false] {
            let scene = Scene::new();
            let fleet = [scene.process(), scene.process(), scene.process()];
            for process in &fleet {
                process.secret().await;
            }
            let backup = scene.store.snapshot();
            fleet[1].tokens.refresh().await.unwrap();
            sleep(2 * SECOND).await;
            scene.in_slow_motion(&fleet[0]);
            let renewing = fleet[0].refreshes();
            stage.reached().await;
            match emptied {
                true => scene.store.lose(),
                false => scene.store.restore(&backup),
            };
            let renewed = renewing.await.unwrap();
            assert!(renewed.is_ok(), "{stage:?}, emptied: {emptied}: {renewed:?}");
            sleep(5 * SECOND).await;
            let newest = format!("test-access-{}", scene.issuer.exchanges());
            for process in fleet.iter().chain([&scene.process()]) {
                assert_eq!(process.secret().await, newest, "{stage:?}, emptied: {emptied}");
            }
            assert_eq!(scene.issuer.presented_again(), 0, "{stage:?}, emptied: {emptied}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_at_any_stage_is_left_alone_until_it_is_repaired() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        let (process, other) = (scene.process(), scene.process());
        process.secret().await;
        scene.in_slow_motion(&process);
        let renewing = process.refreshes();
        stage.reached().await;
        let whole = scene.store.bytes().unwrap();
        let torn = &whole[..whole.len() / 2];
        scene.store.put_bytes(torn);
        let _ = renewing.await.unwrap();
        for _ in 0..20 {
            assert!(process.tokens.get().await.is_ok(), "{stage:?}");
            assert!(other.tokens.get().await.is_ok(), "{stage:?}");
            sleep(SECOND).await;
        }
        assert_eq!(scene.store.bytes().unwrap(), torn, "{stage:?}");
        let exchanges = scene.issuer.exchanges();
        assert!(exchanges <= 2, "{stage:?}");

        scene.store.put_bytes(whole);
        sleep(2 * SECOND).await;
        assert!(!process.tokens.status().undurable, "{stage:?}");
        let newest = format!("test-access-{exchanges}");
        for process in [&process, &other, &scene.process()] {
            assert_eq!(process.secret().await, newest, "{stage:?}");
        }
        assert_eq!(scene.issuer.presented_again(), 0, "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_stopped_past_its_lease_adopts_what_its_heir_saved() {
    for stage in Awaits::ALL {
        let scene = Scene::new();
        scene.issuer.grants_grace();
        let (holder, heir) = (scene.process(), scene.process());
        holder.secret().await;
        heir.secret().await;
        scene.in_slow_motion(&holder);
        let renewing = holder.refreshes();
        stage.reached().await;
        holder.stall();
        sleep(46 * SECOND).await;
        heir.tokens.refresh().await.unwrap();
        sleep(20 * SECOND).await;
        holder.resume();
        let _ = renewing.await.unwrap();
        sleep(3 * SECOND).await;
        assert!(scene.never_went_back(), "{stage:?}: {:?}", scene.store.history());
        assert_eq!(holder.secret().await, heir.secret().await, "{stage:?}");
        let kept = scene.store.record().unwrap().token().unwrap().secret().to_owned();
        assert_eq!(holder.secret().await, kept, "{stage:?}");
        assert!(
            scene.issuer.presented_again() <= usize::from(stage.is_between()),
            "{stage:?}"
        );
    }
}
