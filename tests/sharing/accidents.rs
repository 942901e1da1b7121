//! Accidents that really happened to those who kept a refresh token, or shared one: the rows T21, T24, T25, T27 and T30 to
//! T36 of the README's table.

use tokio::time::{Instant, sleep};
use tower_token::{Clock, IfLost, RefreshPolicy, StoreError, StorePolicy, TokensBuilder};

use super::scene::{Fault, Grant, LIFE, MINUTE, SECOND, Scene};

/// golang/oauth2#84
#[tokio::test(start_paused = true)]
async fn t21_a_restart_presents_the_rotated_refresh_token_and_not_the_configured_one() {
    let scene = Scene::new();
    for renewals in 1..=5 {
        let process = scene.process();
        process.tokens.refresh().await.unwrap();
        // Killed right after: what it brought was kept before it was there.
        process.kill();
        assert_eq!(scene.issuer.counted(), (renewals, 0));
    }
}

/// kurrent-io/kcap-cli#946
#[tokio::test(start_paused = true)]
async fn t24_within_the_issuers_window_a_lost_answer_is_asked_for_once_more_and_after_it_never() {
    for (window, took, exchanges) in [(30, 10, 3), (30, 20, 3), (10, 20, 2)] {
        let scene = Scene::new();
        scene.issuer.grants_grace();
        let grant = Grant {
            if_lost: IfLost::ReplayWithin(window * SECOND),
            ..scene.grant()
        };
        let process = scene.process_with(grant, |b| b);
        process.secret().await;
        scene.issuer.takes(took * SECOND);
        scene.issuer.next(&[Fault::LostAfter]);
        let renewed = process.tokens.refresh().await;
        assert_eq!(renewed.is_ok(), exchanges == 3, "{window} {took}");
        assert_eq!(scene.issuer.exchanges(), exchanges, "{window} {took}");
    }
}

/// Meridiona/meridian#897
#[tokio::test(start_paused = true)]
async fn t25_a_suspend_in_mid_exchange_counts_in_the_window_and_nothing_is_presented_after_it() {
    let scene = Scene::new();
    let clock = Clock::of_tokio();
    let grant = Grant {
        if_lost: IfLost::ReplayWithin(30 * SECOND),
        ..scene.grant()
    };
    let process = scene.process_with(grant, |builder| builder.clock(clock.clone()));
    process.secret().await;
    scene.issuer.takes(5 * SECOND);
    scene.issuer.next(&[Fault::LostAfter]);
    let renewing = process.refreshes();
    sleep(SECOND).await;
    clock.step(28 * 60);
    assert!(renewing.await.unwrap().unwrap_err().is_reauth_required());
    assert_eq!(scene.issuer.counted(), (2, 0));
    // Nor after a restart.
    process.kill();
    let grant = Grant {
        if_lost: IfLost::ReplayWithin(30 * SECOND),
        ..scene.grant()
    };
    sleep(LIFE).await;
    let restarted = scene.process_with(grant, |builder| builder.clock(clock));
    assert!(restarted.tokens.get().await.unwrap_err().is_reauth_required());
    assert_eq!(scene.issuer.counted(), (2, 0));
}

/// gogcli#373
#[tokio::test(start_paused = true)]
async fn t27_after_a_failed_save_the_save_is_tried_again_and_the_credential_is_not_spent_meanwhile() {
    let scene = Scene::new();
    let process = scene.process();
    process.secret().await;
    scene.issuer.takes(SECOND);
    let renewing = process.refreshes();
    while scene.issuer.exchanges() == 1 {
        sleep(SECOND / 100).await;
    }
    process.store.full();
    assert_eq!(renewing.await.unwrap().unwrap().secret(), "test-access-2");
    assert!(process.tokens.status().undurable);
    for _ in 0..60 {
        assert!(process.tokens.get().await.is_ok());
        sleep(SECOND).await;
    }
    assert_eq!((process.told.count("Undurable"), scene.issuer.exchanges()), (1, 2));
    process.store.heal();
    sleep(2 * SECOND).await;
    assert!(!process.tokens.status().undurable);
    process.kill();
    assert_eq!(scene.process().secret().await, "test-access-2");
}

/// DuendeArchive/Support#1286
#[tokio::test(start_paused = true)]
async fn t30_whoever_waited_for_the_lease_reads_again_and_makes_no_token_call() {
    let scene = Scene::new();
    let (one, other) = (scene.process(), scene.process());
    scene.issuer.takes(5 * SECOND);
    let (first, second) = (one.asks(), other.asks());
    assert_eq!(first.await.unwrap().unwrap().secret(), "test-access-1");
    assert_eq!(second.await.unwrap().unwrap().secret(), "test-access-1");
    assert_eq!(scene.issuer.counted(), (1, 0));
    let adopted = one.told.count("Adopted") + other.told.count("Adopted");
    assert_eq!(adopted, 1);
}

/// hermes-agent#94846
#[tokio::test(start_paused = true)]
async fn t31_the_verdict_on_a_stale_copy_wipes_nothing_and_what_the_winner_has_is_adopted() {
    let scene = Scene::new();
    let alone = StorePolicy::default().alone(true);
    let loser = scene.process_with(scene.grant(), |builder| builder.store_policy(alone));
    let winner = scene.process();
    loser.secret().await;
    loser.store.fail(StoreError::unavailable("gone"));
    winner.secret().await;
    assert_eq!(winner.tokens.refresh().await.unwrap().secret(), "test-access-2");
    scene.issuer.grants_grace();
    // With what it has it would be one behind; with the issuer's grace gone it is refused.
    winner.tokens.refresh().await.unwrap();
    scene.issuer.takes(3 * SECOND);
    let renewing = loser.refreshes();
    sleep(SECOND).await;
    loser.store.heal();
    let adopted = renewing.await.unwrap().unwrap();
    assert_eq!(adopted.secret(), winner.secret().await);
    assert_eq!(
        scene.store.record().unwrap().token().unwrap().secret(),
        adopted.secret()
    );
    assert!(!loser.tokens.status().undurable);
    // What began is told to be over.
    assert_eq!((loser.told.count("FetchBegan"), loser.told.count("Discarded")), (2, 1));
}

/// oauth2-proxy#3456
#[tokio::test(start_paused = true)]
async fn t32_a_lease_lasts_as_long_as_the_exchange_under_it_however_long_that_takes() {
    let scene = Scene::new();
    let slow = |builder: TokensBuilder| {
        let policy = RefreshPolicy::default().fetch_timeout(MINUTE).jitter(0.0);
        builder
            .policy(policy)
            .store_policy(StorePolicy::default().lease(MINUTE + 5 * SECOND))
    };
    let (one, other) = (
        scene.process_with(scene.grant(), slow),
        scene.process_with(scene.grant(), slow),
    );
    // Both presentations of a lost answer, each as long as it may be: longer than the term.
    scene.issuer.takes(50 * SECOND);
    scene.issuer.grants_grace();
    scene.issuer.next(&[Fault::LostAfter]);
    let (first, second) = (one.asks(), other.asks());
    let tokens = [first.await.unwrap().unwrap(), second.await.unwrap().unwrap()];
    assert_eq!(tokens[0].secret(), tokens[1].secret());
    // The lost one and its second presentation, and nobody else's.
    assert_eq!(scene.issuer.counted(), (2, 1));
}

/// neon#233
#[tokio::test(start_paused = true)]
async fn t33_who_lost_its_lease_does_not_give_back_that_of_another() {
    let scene = Scene::new();
    scene.issuer.grants_grace();
    let (stopped, heir, third) = (scene.process(), scene.process(), scene.process());
    stopped.secret().await;
    scene.issuer.takes(SECOND);
    let renewing = stopped.refreshes();
    sleep(SECOND / 2).await;
    stopped.stall();
    sleep(MINUTE).await;
    scene.issuer.takes(20 * SECOND);
    let inherited = heir.refreshes();
    sleep(SECOND).await;
    stopped.resume();
    let _ = renewing.await.unwrap();
    assert!(scene.store.is_leased(), "the heir's");
    let before = scene.issuer.exchanges();
    let waiting = third.refreshes();
    sleep(10 * SECOND).await;
    assert_eq!(scene.issuer.exchanges(), before, "somebody went past the heir");
    inherited.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert!(scene.never_went_back());
}

/// mcp-remote#351
#[tokio::test(start_paused = true)]
async fn t35_five_that_wake_from_two_days_of_sleep_are_one_exchange_and_four_adoptions() {
    let scene = Scene::new();
    let fleet: Vec<_> = (0..5).map(|_| scene.process()).collect();
    for process in &fleet {
        process.secret().await;
    }
    let adopted_before: usize = fleet.iter().map(|process| process.told.count("Adopted")).sum();
    scene.clock.step(2 * 24 * 3600);
    scene.issuer.takes(SECOND);
    let waking: Vec<_> = fleet.iter().map(|process| process.asks()).collect();
    for woken in waking {
        assert_eq!(woken.await.unwrap().unwrap().secret(), "test-access-2");
    }
    let adopted: usize = fleet.iter().map(|process| process.told.count("Adopted")).sum();
    assert_eq!((scene.issuer.counted(), adopted - adopted_before), ((2, 0), 4));
}

/// neon#233
#[tokio::test(start_paused = true)]
async fn t36_with_the_lock_down_what_may_be_asked_for_at_any_time_is_and_what_is_spent_by_it_is_not() {
    for (if_lost, goes_on) in [(IfLost::Idempotent, true), (IfLost::ReplayOnce, false)] {
        let scene = Scene::new();
        let grant = Grant {
            if_lost,
            ..scene.grant()
        };
        let process = scene.process_with(grant, |b| b);
        process.secret().await;
        process.store.fail(StoreError::unavailable("the lock is down"));
        sleep(LIFE).await;
        let renewed = process.tokens.get().await;
        assert_eq!(renewed.is_ok(), goes_on);
        assert_eq!(scene.issuer.exchanges(), 1 + usize::from(goes_on));
        assert_eq!(process.told.count("StoreFailed"), 1);
        assert_eq!(process.tokens.status().undurable, goes_on);
    }
}

/// Two that may ask at any time, one of which cannot save what it brought, and keeps the lease while it tries.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_held_for_longer_than_one_lasts_keeps_nobody_who_may_ask_at_any_time() {
    let scene = Scene::new();
    // One renewal behind is as good.
    scene.issuer.grants_grace();
    let process = || {
        let grant = Grant {
            if_lost: IfLost::Idempotent,
            ..scene.grant()
        };
        scene.process_with(grant, |b| b)
    };
    let (one, other) = (process(), process());
    assert_eq!(one.secret().await, "test-access-1");
    assert_eq!(other.secret().await, "test-access-1");
    one.store.full();
    one.tokens.refresh().await.unwrap();
    sleep(LIFE).await;
    let began = Instant::now();
    other.tokens.get().await.unwrap();
    assert!(began.elapsed() <= 46 * SECOND, "{:?}", began.elapsed());
    // Once one is taken for its holder, the next is as soon as the store can be had.
    one.store.heal();
    sleep(LIFE).await;
    assert!(one.tokens.get().await.is_ok() && other.tokens.get().await.is_ok());
}
