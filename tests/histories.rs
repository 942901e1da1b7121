//! Random histories of one handle, each judged by a model that knows the design and not the engine.
//!
//! A [history](script) is carried out in virtual time ([drive]) against an [issuer] that does what it is
//! told. All that happens is [written down](record), and the [model] reads it: what may happen next, and what not.

#![cfg(feature = "testkit")]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "histories/drive.rs"]
mod drive;
#[path = "histories/held.rs"]
mod held;
#[path = "histories/issuer.rs"]
mod issuer;
#[path = "histories/model.rs"]
mod model;
#[path = "histories/record.rs"]
mod record;
#[path = "histories/script.rs"]
mod script;
#[path = "histories/setback.rs"]
mod setback;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed};

/// Three thousand histories, the same in every run; `PROPTEST_CASES` asks for so many others.
fn config() -> ProptestConfig {
    let others = std::env::var_os("PROPTEST_CASES").is_some();
    let default = ProptestConfig::default();
    ProptestConfig {
        failure_persistence: None,
        // The default one takes longer to invent a history than the engine does to live through it.
        rng_algorithm: RngAlgorithm::XorShift,
        rng_seed: if others { default.rng_seed } else { RngSeed::Fixed(6749) },
        cases: if others { default.cases } else { 3_000 },
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_engine_does_what_the_design_says(history in script::histories()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let record = runtime.block_on(drive::run(&history));
        let judged = model::judge(&record, history.if_lost);
        prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
    }
}
