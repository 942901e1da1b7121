//! A fetch that ends without a word, and callers that do not wait for its end.

use super::*;

/// What is left of a flight that ended without a word: nothing. The next caller flies again.
fn flies_again(rig: &Rig, fetches: std::ops::RangeInclusive<usize>) {
    assert!(rig.tokens.engine().desk().in_air().is_none(), "the air is not free");
    let token = block_on(rig.tokens.refresh()).unwrap();
    assert_eq!(token.secret(), format!("test-first-{}", rig.issuer.fetches()));
    rig.made(fetches);
}

#[test]
fn a_panic_of_the_provider_strands_nobody_and_the_next_caller_flies() {
    check(|| {
        let rig = Rig::new(|nth| if nth == 1 { Answer::Panic } else { Answer::Token });
        for token in rig.together(3, |rig| rig.get()) {
            assert!(token.is_err_and(|error| error.is_transient()));
        }
        flies_again(&rig, 2..=2);
    });
}

#[test]
fn an_aborted_task_strands_nobody_and_the_next_caller_flies() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        let waiter = rig.spawn(|rig| rig.get());
        let Admission::Wait(landing) = rig.tokens.engine().request() else {
            panic!("an explicit request always flies");
        };
        modelled::abort_tasks();
        // Before it had landed, or too late.
        assert!(matches!(block_on(landing), Landed::Failed(_) | Landed::Published));
        drop(waiter.join().unwrap());
        flies_again(&rig, 1..=3);
    });
}

/// Two wait, one on the flight in the air, one on the one after it.
#[test]
fn an_aborted_task_takes_the_flight_after_it_along() {
    check(|| {
        let (rig, first) = Rig::warm(|nth| if nth == 2 { Answer::Silence } else { Answer::Token });
        rig.clock.step(50 * MINUTE);
        assert!(rig.tokens.current().is_some(), "a renewal is in the air");
        while rig.issuer.fetches() < 2 {
            thread::yield_now();
        }
        let aborting = rig.spawn(|_| modelled::abort_tasks());
        rig.together(2, move |rig| match rig.refuse(&first) {
            Refusal::Wait(landing) => drop(block_on(landing)),
            Refusal::Replay => panic!("nothing newer is in place"),
            Refusal::HandBack(..) => {}
        });
        aborting.join().unwrap();
        flies_again(&rig, 3..=4);
    });
}

#[test]
fn an_aborted_keeper_is_started_by_the_next_caller() {
    check(|| {
        let rig = Rig::with(|_| Answer::Token, |builder| builder.policy(policy().keep_alive(true)));
        let getting = rig.spawn(|rig| drop(rig.get()));
        modelled::abort_tasks();
        getting.join().unwrap();
        rig.tokens.spawn();
        assert_eq!(rig.tokens.status().keep_alive, KeepAlive::Running);
        let _ = rig.get();
        rig.made(0..=2);
    });
}

#[test]
fn a_waiter_that_leaves_takes_nothing_with_it() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        let leaver = shuttle::future::spawn(rig.tokens.get());
        let waiter = rig.spawn(|rig| rig.get());
        leaver.abort();
        drop(block_on(leaver));
        assert_eq!(waiter.join().unwrap().unwrap().secret(), "test-first-1");
        rig.made(1..=1);
    });
}

#[test]
fn a_fetch_that_every_caller_has_left_lands_all_the_same() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        let changed = rig.tokens.changed();
        rig.together(2, |rig| {
            assert!(
                rig.tokens
                    .current()
                    .is_none_or(|token| token.secret() == "test-first-1")
            );
        });
        assert_eq!(block_on(changed).secret(), "test-first-1");
        rig.made(1..=1);
    });
}
