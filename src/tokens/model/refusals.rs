//! A server refuses a token, and several threads see it.

use super::*;

#[test]
fn a_revocation_seen_by_three_threads_costs_one_fetch() {
    check(|| {
        let (rig, first) = Rig::warm(|_| Answer::Token);
        for token in rig.together(3, move |rig| rig.replay(&first)) {
            assert_eq!(token.secret(), "test-first-2");
        }
        rig.made(2..=2);
    });
}

#[test]
fn a_revocation_with_an_early_renewal_in_the_air_costs_two_fetches_at_most() {
    check(|| {
        let (rig, first) = Rig::warm(|_| Answer::Token);
        rig.clock.step(50 * MINUTE);
        let early = rig.spawn(|rig| rig.tokens.current());
        rig.issuer.revoke();
        rig.together(2, move |rig| {
            let token = rig.replay(&first);
            assert!(!rig.issuer.is_revoked(&token), "what answers began after the refusal");
        });
        early.join().unwrap();
        rig.made(2..=3);
    });
}

#[test]
fn a_refusal_of_an_old_token_costs_nothing_while_a_newer_one_is_current() {
    check(|| {
        let (rig, first) = Rig::warm(|_| Answer::Token);
        rig.together(2, move |rig| {
            rig.replay(&first);
            assert!(matches!(rig.refuse(&first), Refusal::Replay));
        });
        rig.made(2..=2);
    });
}

#[test]
fn a_refusal_takes_the_token_from_every_later_call() {
    check(|| {
        let (rig, token) = Rig::configured();
        let other = rig.spawn({
            let token = token.clone();
            move |rig| drop(rig.refuse(&token))
        });
        drop(rig.refuse(&token));
        let later = rig.tokens.current().and_then(|later| later.generation());
        assert!(later.is_none() || later > token.generation());
        other.join().unwrap();
        assert_eq!(rig.get().unwrap().secret(), "test-first-1");
        rig.made(1..=1);
    });
}
