//! A fetch lands, and whoever waited finds what it was promised.

use super::*;

#[test]
fn a_landing_resolves_every_cold_caller_with_the_token_of_one_fetch() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        for token in rig.together(3, |rig| rig.get()) {
            assert_eq!(token.unwrap().secret(), "test-first-1");
        }
        rig.made(1..=1);
    });
}

#[test]
fn a_landing_is_seen_through_the_signal_only_when_its_token_is_in_the_cell() {
    check(|| {
        let (rig, first) = Rig::warm(|_| Answer::Token);
        let watcher = rig.spawn(|rig| {
            let mut newest = 0;
            for _ in 0..4 {
                let named = rig.tokens.engine().signal();
                assert!(named == 0 || named >= newest, "the signal went back");
                newest = newest.max(named);
                rig.is_coherent();
            }
        });
        rig.replay(&first);
        watcher.join().unwrap();
        rig.made(2..=2);
    });
}

#[test]
fn a_landing_without_a_token_resolves_every_waiter_and_frees_the_air() {
    check(|| {
        let rig = Rig::new(|nth| if nth == 1 { Answer::Failure } else { Answer::Token });
        for token in rig.together(3, |rig| rig.get()) {
            assert!(token.is_err_and(|error| error.is_transient()));
        }
        assert_eq!(block_on(rig.tokens.refresh()).unwrap().secret(), "test-first-2");
        rig.made(2..=2);
    });
}

/// One that takes everything, and counts.
#[cfg(feature = "store")]
#[derive(Default)]
struct Paper(AtomicUsize);

#[cfg(feature = "store")]
impl crate::TokenStore for Paper {
    fn load(&self) -> crate::StoreFuture<'_, Option<crate::Record>> {
        Box::pin(async { Ok(None) })
    }

    fn save<'a>(
        &'a self,
        record: &'a crate::Record,
        _: u64,
        _: &'a crate::Lease,
    ) -> crate::StoreFuture<'a, crate::Saved> {
        Box::pin(async {
            yield_now().await;
            self.0
                .fetch_add(usize::from(record.token().is_some()), Ordering::Relaxed);
            Ok(crate::Saved::Kept)
        })
    }

    fn lease(&self, _: Duration) -> crate::StoreFuture<'_, Option<crate::Lease>> {
        Box::pin(async { Ok(Some(crate::Lease::new(1).lasting())) })
    }

    fn renew<'a>(&'a self, _: &'a crate::Lease, _: Duration) -> crate::StoreFuture<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    fn release<'a>(&'a self, _: &'a crate::Lease) -> crate::StoreFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(feature = "store")]
#[test]
fn a_landing_is_kept_before_anyone_has_the_token() {
    check(|| {
        let kept = Arc::new(Paper::default());
        let rig = Rig::with(|_| Answer::Token, |builder| builder.store(kept.clone()));
        rig.together(2, move |rig| {
            let token = rig.tokens.current().map_or_else(|| rig.get(), Ok);
            assert_eq!(token.unwrap().secret(), "test-first-1");
            assert_eq!(kept.0.load(Ordering::Relaxed), 1, "not durable yet");
        });
        rig.made(1..=1);
    });
}

#[test]
fn a_renewal_of_a_stale_token_is_one_fetch_and_keeps_nobody_waiting() {
    check(|| {
        let (rig, _) = Rig::warm(|_| Answer::Token);
        rig.clock.step(50 * MINUTE);
        let changed = rig.tokens.changed();
        rig.together(2, |rig| {
            let token = rig.tokens.current().expect("a stale token goes out");
            let next = rig.tokens.current().expect("a stale token goes out");
            assert!(
                next.generation() >= token.generation(),
                "an older one after a newer one"
            );
        });
        assert_eq!(block_on(changed).secret(), "test-first-2");
        rig.made(2..=2);
    });
}

#[test]
fn an_expired_token_is_replaced_by_one_fetch_and_handed_to_nobody() {
    check(|| {
        let (rig, _) = Rig::warm(|_| Answer::Token);
        rig.clock.step(60 * MINUTE);
        for token in rig.together(3, |rig| rig.get()) {
            assert_eq!(token.unwrap().secret(), "test-first-2");
        }
        rig.made(2..=2);
    });
}

/// The clocks may say so late, when the next token is in place already.
#[test]
fn an_elapsed_token_is_handed_to_nobody_and_the_next_one_is_left_alone() {
    check(|| {
        let (rig, first) = Rig::warm(|_| Answer::Token);
        let generation = first.generation().unwrap();
        rig.together(2, move |rig| {
            rig.tokens.engine().elapse(generation);
            assert_eq!(rig.get().unwrap().secret(), "test-first-2");
        });
        assert_eq!(rig.tokens.current().unwrap().secret(), "test-first-2");
        rig.made(2..=2);
    });
}

#[test]
fn a_refused_token_that_elapses_as_well_costs_two_fetches_at_most() {
    check(|| {
        let (rig, first) = Rig::warm(|_| Answer::Token);
        let generation = first.generation().unwrap();
        let elapsing = rig.spawn(move |rig| rig.tokens.engine().elapse(generation));
        let getting = rig.spawn(|rig| rig.get().unwrap());
        rig.replay(&first);
        elapsing.join().unwrap();
        getting.join().unwrap();
        rig.made(2..=3);
    });
}

#[test]
fn the_keeper_and_traffic_make_one_fetch_of_a_cold_start() {
    check(|| {
        let rig = Rig::with(|_| Answer::Token, |builder| builder.policy(policy().keep_alive(true)));
        for token in rig.together(2, |rig| rig.get()) {
            assert_eq!(token.unwrap().secret(), "test-first-1");
        }
        assert_eq!(rig.tokens.status().keep_alive, KeepAlive::Running);
        rig.made(1..=1);
    });
}

#[test]
fn the_keeper_brings_the_token_of_another_credential_without_traffic() {
    check(|| {
        let rig = Rig::with(|_| Answer::Token, |builder| builder.policy(policy().keep_alive(true)));
        let installing = rig.spawn(|rig| rig.tokens.install(json!("second")).unwrap());
        let engine = rig.tokens.engine();
        loop {
            let changed = rig.tokens.changed();
            let current = engine.in_place(engine.now());
            if current.is_some_and(|current| current.token.secret().starts_with("test-second-")) {
                break;
            }
            block_on(changed);
        }
        installing.join().unwrap();
        rig.made(1..=2);
    });
}
