//! Sign-out, another credential, shutdown: what was begun before them counts no more, or is the last.

use super::*;

#[test]
fn a_sign_out_lets_nothing_out_that_was_fetched_before_it() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        let before = rig.spawn(|rig| rig.get());
        let leaver = rig.spawn(|rig| {
            rig.tokens.sign_out();
            assert!(rig.tokens.current().is_none());
            assert!(rig.get().is_err_and(|error| error.is_signed_out()));
            rig.is_coherent();
        });
        // Before, or never.
        match before.join().unwrap() {
            Ok(token) => assert_eq!(token.secret(), "test-first-1"),
            Err(error) => assert!(error.is_signed_out(), "{error}"),
        }
        leaver.join().unwrap();
        assert!(rig.tokens.current().is_none());
        rig.made(0..=1);
    });
}

#[test]
fn a_sign_out_ended_by_another_credential_hands_out_only_what_came_of_that() {
    check(|| {
        let (rig, first) = Rig::warm(|_| Answer::Token);
        let refusing = rig.spawn(move |rig| match rig.refuse(&first) {
            Refusal::Wait(landing) => drop(block_on(landing)),
            Refusal::Replay | Refusal::HandBack(..) => {}
        });
        let getting = rig.spawn(|rig| rig.get());
        rig.tokens.sign_out();
        rig.tokens.install(json!("second")).unwrap();
        assert!(rig.get().unwrap().secret().starts_with("test-second-"));
        refusing.join().unwrap();
        if let Err(error) = getting.join().unwrap() {
            assert!(error.is_signed_out(), "{error}");
        }
        assert!(rig.get().unwrap().secret().starts_with("test-second-"));
        rig.made(2..=3);
    });
}

#[test]
fn an_installed_credential_is_what_every_later_caller_gets_a_token_of() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        let before = rig.spawn(|rig| rig.get());
        let installing = rig.spawn(|rig| {
            rig.tokens.install(json!("second")).unwrap();
            assert!(rig.get().unwrap().secret().starts_with("test-second-"));
        });
        let refreshing = block_on(rig.tokens.refresh());
        assert!(refreshing.is_ok());
        assert!(before.join().unwrap().is_ok());
        installing.join().unwrap();
        rig.made(1..=3);
    });
}

#[test]
fn a_shutdown_waits_for_what_is_in_the_air_and_begins_nothing_more() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        let getting = rig.spawn(|rig| rig.get());
        let refreshing = rig.spawn(|rig| block_on(rig.tokens.refresh()));
        block_on(rig.tokens.shutdown());
        assert!(rig.tokens.engine().desk().in_air().is_none());
        let fetches = rig.issuer.fetches();
        for got in [getting.join().unwrap(), refreshing.join().unwrap()] {
            match got {
                Ok(token) => assert_eq!(token.secret(), "test-first-1"),
                Err(error) => assert!(error.is_shut_down(), "{error}"),
            }
        }
        assert_eq!(rig.issuer.fetches(), fetches, "begun after the shutdown");
        rig.made(0..=1);
    });
}

#[test]
fn a_shutdown_ends_although_somebody_signs_out() {
    check(|| {
        let rig = Rig::new(|_| Answer::Token);
        let getting = rig.spawn(|rig| rig.get());
        let leaver = rig.spawn(|rig| rig.tokens.sign_out());
        block_on(rig.tokens.shutdown());
        leaver.join().unwrap();
        let _ = getting.join().unwrap();
        assert!(rig.get().is_err());
        rig.made(0..=1);
    });
}

#[test]
fn a_sign_out_of_a_token_that_elapses_leaves_nothing_to_go_out() {
    exhaust(|| {
        let (rig, token) = Rig::configured();
        let generation = token.generation().unwrap();
        let elapsing = rig.spawn(move |rig| rig.tokens.engine().elapse(generation));
        rig.tokens.sign_out();
        assert!(rig.tokens.engine().in_place(rig.tokens.engine().now()).is_none());
        elapsing.join().unwrap();
        rig.made(0..=0);
    });
}

#[test]
fn a_sign_out_takes_the_token_from_the_next_call() {
    exhaust(|| {
        let (rig, _) = Rig::configured();
        let caller = rig.spawn(|rig| rig.tokens.engine().in_place(rig.tokens.engine().now()).is_some());
        rig.tokens.sign_out();
        assert!(rig.tokens.engine().in_place(rig.tokens.engine().now()).is_none());
        caller.join().unwrap();
        rig.made(0..=0);
    });
}

/// What somebody else has saved is there to be read. Nobody gets the lease.
#[cfg(feature = "store")]
struct Shared;

#[cfg(feature = "store")]
impl crate::TokenStore for Shared {
    fn load(&self) -> crate::StoreFuture<'_, Option<crate::Record>> {
        let now = SystemTime::now();
        let token = Token::bearer("test-shared").issued_at(now).expires_at(now + HOUR);
        let record = crate::Record {
            generation: 1,
            owner: String::new(),
            salt: String::new(),
            seeds: Vec::new(),
            standing: crate::store::Standing::Renewed,
            token: Some(token),
            credential: None,
            intent: None,
        };
        Box::pin(async { Ok(Some(record)) })
    }

    fn save<'a>(&'a self, _: &'a crate::Record, _: u64, _: &'a crate::Lease) -> crate::StoreFuture<'a, crate::Saved> {
        Box::pin(std::future::pending())
    }

    fn lease(&self, _: Duration) -> crate::StoreFuture<'_, Option<crate::Lease>> {
        Box::pin(std::future::pending())
    }

    fn renew<'a>(&'a self, _: &'a crate::Lease, _: Duration) -> crate::StoreFuture<'a, bool> {
        Box::pin(std::future::pending())
    }

    fn release<'a>(&'a self, _: &'a crate::Lease) -> crate::StoreFuture<'a, ()> {
        Box::pin(std::future::pending())
    }
}

#[cfg(feature = "store")]
#[test]
fn a_sign_out_is_not_undone_by_what_was_found_in_the_store_a_moment_before() {
    check(|| {
        let rig = Rig::with(|_| Answer::Token, |builder| builder.store(Shared));
        let looking = rig.spawn(|rig| {
            let engine = rig.tokens.engine();
            block_on(engine.kept.as_ref().unwrap().look(engine));
        });
        rig.tokens.sign_out();
        looking.join().unwrap();
        assert!(rig.tokens.current().is_none(), "adopted after the sign-out");
        assert!(rig.get().is_err_and(|error| error.is_signed_out()));
    });
}
