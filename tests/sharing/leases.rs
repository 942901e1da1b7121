//! Who may renew, and for how long.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tower_token::Clock;
use tower_token::testkit::StoreCall;

use crate::scene::{Grant, LIFE, SECOND, Scene};

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_for_as_long_as_its_exchanges_take() {
    let scene = Scene::new();
    let grant = || Grant {
        exchanges: 3,
        ..scene.grant()
    };
    let holder = scene.process_with(grant(), |builder| builder);
    let other = scene.process_with(grant(), |builder| builder);
    scene.issuer.takes(80 * SECOND);
    let (one, two) = (holder.asks(), other.asks());
    assert_eq!(one.await.unwrap().unwrap().secret(), "test-access-1");
    // It gave up in between, as it has to, and finds what came of it.
    let _ = two.await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(other.secret().await, "test-access-1");
    assert_eq!((scene.issuer.counted(), scene.issuer.most_in_the_air()), ((1, 0), 1));
    assert!(scene.store.renewals() >= 4);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_is_abandoned_before_a_lease_that_cannot_be_renewed_ends() {
    let scene = Scene::new();
    let grant = || Grant {
        exchanges: 3,
        ..scene.grant()
    };
    let holder = scene.process_with(grant(), |builder| builder);
    let other = scene.process_with(grant(), |builder| builder);
    holder.store.on(StoreCall::Renew).hang();
    holder.store.on(StoreCall::Release).hang();
    // Had it not been abandoned, it would arrive when the other one has its turn.
    scene.issuer.arrives_after(50 * SECOND);
    let began = Instant::now();
    let (one, two) = (holder.asks(), other.asks());
    assert!(one.await.unwrap().is_err());
    let took = began.elapsed();
    assert!(took >= 40 * SECOND && took < 45 * SECOND, "{took:?}");
    scene.issuer.arrives_after(Duration::ZERO);
    two.await.unwrap().unwrap();
    sleep(LIFE / 2).await;
    let presented = scene.issuer.presented();
    assert!(
        presented.len() == 1 && presented[0].1 - began >= 45 * SECOND,
        "{presented:?}"
    );
    assert_eq!((scene.issuer.most_in_the_air(), scene.issuer.presented_again()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_was_overtaken_gives_back_no_lease_but_its_own() {
    let scene = Scene::new();
    let (holder, heir) = (scene.process(), scene.process());
    scene.issuer.grants_grace();
    scene.issuer.takes(5 * SECOND);
    let one = holder.asks();
    sleep(SECOND).await;
    scene.store.expire_lease();
    let two = heir.asks();
    let mut leased = 0;
    while !two.is_finished() {
        sleep(SECOND / 20).await;
        leased += usize::from(scene.store.is_leased());
    }
    one.await.unwrap().unwrap();
    assert_eq!(two.await.unwrap().unwrap().secret(), holder.secret().await);
    assert!(leased >= 75, "leased for {leased} twentieths of a second");
    assert!(scene.never_went_back());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_an_hour_off_costs_an_exchange_and_no_dead_token_is_sent() {
    for step in [3_600, -3_600] {
        let scene = Scene::new();
        let clock = Clock::of_tokio();
        let fleet = [
            scene.process(),
            scene.process_with(scene.grant(), |builder| builder.clock(clock.clone())),
        ];
        for process in &fleet {
            process.secret().await;
        }
        clock.step(step);
        let before = scene.issuer.exchanges();
        for _ in 0..1_200 {
            for process in &fleet {
                let sent = process.secret().await;
                assert!(scene.issuer.is_alive(&sent), "stepped by {step}");
            }
            sleep(SECOND / 2).await;
        }
        // Ten minutes are five lives, and each is renewed ahead of time: by the one that is ahead at once.
        let exchanges = scene.issuer.exchanges() - before;
        assert!(exchanges <= 22, "stepped by {step}: {exchanges}");
        assert_eq!(scene.issuer.presented_again(), 0);
    }
}
