//! Partitions, stalled links and crashes between a client, the issuer of its tokens and the API.
//!
//! Three hosts over `turmoil`'s TCP, in simulated time: the client goes through the layer, the testkit's
//! issuer and API are served on the other two. Each host has a clock of its own, all of one rate.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "partitions/net.rs"]
mod net;
#[path = "partitions/scene.rs"]
mod scene;

use std::time::Duration;

use scene::{At, Kind, Outcome, Scene, Trouble};
use tower_token::IfLost;
use tower_token::testkit::Fault;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What may be in the air when all is well again.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(30);

#[test]
fn no_partition_is_final_for_a_refresh_token() {
    for seed in 0..6 {
        // One presentation a minute, where answers were lost.
        let outcome = is_well_again(seed, IfLost::ReplayOnce, MINUTE);
        assert_presented_as_allowed(&outcome);
    }
}

#[test]
fn no_partition_is_final_where_asking_again_does_no_harm() {
    for seed in 6..12 {
        // A probe every 30 s.
        is_well_again(seed, IfLost::Idempotent, MINUTE / 2);
    }
}

/// When all troubles are over and a `pause` has gone by, so has the harm.
fn is_well_again(seed: u64, if_lost: IfLost, pause: Duration) -> Outcome {
    let troubles = troubles(seed);
    let over = troubles.iter().map(Trouble::ends).max().unwrap();
    let scene = Scene::new(seed, if_lost, over + 4 * MINUTE);
    // Who loses an answer may present the same refresh token again.
    scene.issuer.lifetime(MINUTE).grace(HOUR).latency(SECOND / 5);
    let outcome = scene.run(&troubles);
    let after = outcome.sent(over + LONGEST_EXCHANGE + pause + SECOND..Duration::MAX);
    assert!(after.len() > 100, "seed {seed}: {troubles:?}");
    let failed = after.iter().find(|sample| sample.status != Some(200));
    assert!(failed.is_none(), "seed {seed}: {failed:?} after {troubles:?}");
    assert_eq!(outcome.api.counts().expired_seen, 0, "seed {seed}: {troubles:?}");
    assert_eq!(outcome.issuer.counts().reuse, 0, "seed {seed}: {troubles:?}");
    outcome
}

/// Some minutes of them, one after the other, with a pause between two.
fn troubles(seed: u64) -> Vec<Trouble> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut from = SECOND * random.u32(20..90);
    let mut trouble = || {
        let at = random.choice([At::Issuer, At::Issuer, At::Api]).unwrap();
        let kind = random
            .choice([Kind::Partition, Kind::Stall, Kind::Crash, Kind::Deaf])
            .unwrap();
        let lasts = match (at, kind) {
            // What waits in a stalled link arrives when it is released, and is not to be too old by then.
            (At::Api, Kind::Stall) => random.u32(1..10),
            _ => random.u32(1..150),
        };
        let trouble = Trouble {
            at,
            kind,
            from,
            lasts: SECOND * lasts,
        };
        from = trouble.ends() + SECOND * random.u32(1..60);
        trouble
    };
    (0..3).map(|_| trouble()).collect()
}

/// A refresh token arrives once, once more, and then once a minute.
fn assert_presented_as_allowed(outcome: &Outcome) {
    for times in outcome.presented.lock().unwrap().values() {
        let gaps = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]);
        // The network takes its time, more or less of it.
        assert!(gaps.min().is_none_or(|least| least > 58 * SECOND), "{times:?}");
    }
}

#[test]
fn while_the_token_lives_the_issuer_may_be_gone() {
    for seed in 0..2 {
        for kind in [Kind::Partition, Kind::Stall, Kind::Crash, Kind::Deaf] {
            let scene = Scene::new(seed, IfLost::ReplayOnce, 9 * MINUTE);
            scene.issuer.lifetime(6 * MINUTE).grace(HOUR);
            // The advisory window begins in the middle of it, and the mandatory one a minute after it.
            let outcome = scene.run(&[Trouble {
                at: At::Issuer,
                kind,
                from: MINUTE,
                lasts: 3 * MINUTE,
            }]);
            let samples = outcome.sent(2 * SECOND..5 * MINUTE);
            assert!(
                samples.iter().all(|sample| sample.status == Some(200)),
                "{seed} {kind:?}"
            );
            let slowest = samples.iter().map(|sample| sample.took).max().unwrap();
            assert!(slowest < 2 * SECOND, "{seed} {kind:?}: {slowest:?}");
            assert!(
                outcome
                    .sent(Duration::ZERO..HOUR)
                    .iter()
                    .all(|sample| sample.status == Some(200))
            );
            assert_eq!(outcome.api.counts().expired_seen, 0);
        }
    }
}

#[test]
fn a_partition_from_the_api_costs_no_fetch() {
    for seed in 0..2 {
        for kind in [Kind::Partition, Kind::Stall, Kind::Crash, Kind::Deaf] {
            let scene = Scene::new(seed, IfLost::ReplayOnce, 4 * MINUTE);
            scene.issuer.lifetime(HOUR);
            let trouble = Trouble {
                at: At::Api,
                kind,
                from: MINUTE,
                lasts: 2 * MINUTE,
            };
            let outcome = scene.run(&[trouble]);
            let failed = outcome
                .sent(MINUTE..3 * MINUTE)
                .iter()
                .filter(|sample| sample.status.is_none())
                .count();
            assert!(failed > 100, "{seed} {kind:?}: only {failed} failed");
            let after = outcome.sent(trouble.ends() + SECOND..HOUR);
            assert!(after.iter().all(|sample| sample.status == Some(200)), "{seed} {kind:?}");
            assert_eq!(outcome.issuer.counts().token_requests, 1, "{seed} {kind:?}");
            assert_eq!(outcome.api.counts().refused, 0, "{seed} {kind:?}");
        }
    }
}

/// The issuer has rotated, and its answer gets lost: what the link drops, or what the crash cuts off.
fn cut_off(seed: u64, if_lost: IfLost, kind: Kind) -> Outcome {
    let scene = Scene::new(seed, if_lost, 3 * MINUTE);
    scene
        .issuer
        .lifetime(HOUR)
        .grace(HOUR)
        .fault(Fault::DelayAfter(10 * SECOND));
    scene.run(&[Trouble {
        at: At::Issuer,
        kind,
        from: 5 * SECOND,
        lasts: 15 * SECOND,
    }])
}

#[test]
fn an_answer_that_was_cut_off_is_asked_for_once_more_within_the_flight() {
    for seed in 0..2 {
        let outcome = cut_off(seed, IfLost::ReplayOnce, Kind::Partition);
        assert!(
            outcome
                .sent(Duration::ZERO..HOUR)
                .iter()
                .all(|sample| sample.status == Some(200))
        );
        let counts = outcome.issuer.counts();
        assert_eq!((counts.token_requests, counts.presented_twice, counts.reuse), (2, 1, 0));
    }
}

#[test]
fn a_crash_in_the_middle_of_an_exchange_is_not_final() {
    for seed in 0..2 {
        let outcome = cut_off(seed, IfLost::ReplayOnce, Kind::Crash);
        let after = outcome.sent(20 * SECOND + MINUTE + SECOND..HOUR);
        assert!(after.len() > 60 && after.iter().all(|sample| sample.status == Some(200)));
        let counts = outcome.issuer.counts();
        assert_eq!((counts.token_requests, counts.presented_twice, counts.reuse), (2, 1, 0));
    }
}

#[test]
fn an_answer_that_was_cut_off_is_never_asked_for_again_where_the_policy_says_so() {
    for seed in 0..2 {
        for kind in [Kind::Partition, Kind::Crash] {
            let outcome = cut_off(seed, IfLost::NeverReplay, kind);
            assert!(
                outcome
                    .sent(Duration::ZERO..HOUR)
                    .iter()
                    .all(|sample| sample.status.is_none())
            );
            let counts = outcome.issuer.counts();
            assert_eq!((counts.token_requests, counts.presented_twice), (1, 0));
            assert_eq!(outcome.api.counts().requests, 0);
        }
    }
}
