//! A clock that is an hour off is corrected once, and nothing is worth more or less for it.

use std::time::Duration;

use serde_json::Value;
use tower_token::alibaba::PageToken;

use super::rig::{self, Rig, SECOND, rig, with};
use super::vendors::acs3::AccessKey;
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::{Double, Fault, Vendor};

const HOUR: i64 = 3_600;

/// The first fetch makes two requests, every later one makes one.
async fn corrected<V: Vendor>(double: &Double<V>, rig: &Rig) {
    let before = double.counts();
    assert_eq!(rig.refreshed().await, "renewed");
    let first = double.counts();
    assert_eq!(first.token_requests() - before.token_requests(), 2, "{first:?}");
    assert_eq!((first.clock_refusals, first.nonce_reused), (1, 0));
    for nth in 1..=3 {
        assert_eq!(rig.refreshed().await, "renewed");
        let counts = double.counts();
        assert_eq!(counts.token_requests(), first.token_requests() + nth, "{counts:?}");
    }
    assert_eq!(rig.says().await, "200");
    let counts = double.counts();
    assert_eq!((counts.clock_refusals, counts.refused), (1, 1), "{counts:?}");
    assert_eq!(
        (counts.nonce_reused, counts.signature_failures, counts.presented_twice),
        (0, 0, 0)
    );
    assert_eq!(rig.tokens.status().exchanges, counts.token_requests());
}

async fn imm(offset: i64) -> Imm {
    let options = ImmOptions {
        clock_offset_secs: offset,
        ..ImmOptions::default()
    };
    Imm::start(options).await
}

async fn ecd(offset: i64, signed: bool) -> Ecd {
    let options = EcdOptions {
        clock_offset_secs: offset,
        signed: signed.then(AccessKey::default),
        ..EcdOptions::default()
    };
    Ecd::start(options).await
}

/// Between what it says and what it may have lost since.
fn about(life: Option<Duration>, minutes: u64) -> bool {
    let full = Duration::from_secs(60 * minutes);
    life.is_some_and(|life| life <= full + 2 * SECOND && life + 30 * SECOND >= full)
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_once_for_imm_and_lives_are_what_they_are() {
    for offset in [HOUR, -HOUR] {
        let double = imm(offset).await;
        let off = rig::policy(serde_json::json!({ "keep_alive": false }));
        let rig = rig(&double, with(with(rig::imm(&double), rig::generate()), off));
        corrected(&double, &rig).await;
        let status = rig.tokens.status();
        assert!(about(status.expires_in, 30), "{offset}: {:?}", status.expires_in);
        let page = PageToken::of(&rig.tokens.get().await.unwrap());
        assert!(
            about(Some(Duration::from_millis(page.timeout_ms)), 30),
            "{offset}: {page:?}"
        );
        assert_eq!(page.token, double.now_serving()[0].access);
        assert_eq!(double.counts().acquisitions, 1);
    }
}

#[tokio::test]
async fn a_clock_that_is_off_less_than_the_window_changes_no_life_either() {
    for offset in [600, -600, 7, -7] {
        let double = imm(offset).await;
        let rig = rig(&double, with(rig::imm(&double), rig::generate()));
        assert_eq!(rig.says().await, "200");
        let status = rig.tokens.status();
        assert!(about(status.expires_in, 30), "{offset}: {:?}", status.expires_in);
        assert_eq!(double.counts().token_requests(), 1);
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_once_for_logins_anonymous_and_signed() {
    for (offset, signed) in [(HOUR, false), (-HOUR, false), (HOUR, true), (-HOUR, true)] {
        let double = ecd(offset, signed).await;
        let live = double.issue();
        let keys = if signed {
            rig::signed()
        } else {
            Value::Object(Default::default())
        };
        let rig = rig(&double, with(with(rig::ecd(&double), rig::login(&live)), keys));
        assert_eq!(rig.says().await, "200", "the configured one");
        assert_eq!(double.counts().token_requests(), 0);
        corrected(&double, &rig).await;
        assert!(about(rig.tokens.status().expires_in, 15));
    }
}

/// Three exchanges, whatever comes together: what is left then belongs to the next fetch.
#[tokio::test]
async fn a_fetch_makes_three_exchanges_at_most_in_the_worst_of_mixes() {
    for lost in [Fault::ResetBefore, Fault::Html502, Fault::LostAnswer] {
        let double = imm(HOUR).await;
        let document = with(with(rig::imm(&double), rig::pair(&double.issue())), rig::generate());
        let rig = rig(&double, document);
        assert_eq!(rig.says().await, "200");
        double.kill_all();
        // Lost; the clock is wrong; corrected, and the pair is dead. An acquisition would be the fourth.
        double.fault(lost.clone());
        assert_eq!(rig.says().await, "401", "{lost:?}");
        assert_eq!(double.counts().token_requests(), 3, "{lost:?}");
        // The verdict on the pair ended the ambiguity: the next fetch is refused once more, then generates, by
        // the right clock.
        assert_eq!(rig.says().await, "200", "{lost:?}");
        let counts = double.counts();
        assert_eq!((counts.token_requests(), counts.acquisitions), (5, 1), "{lost:?}");
        assert_eq!(rig.says().await, "200");
        assert_eq!(rig.tokens.status().exchanges, 5);
    }
}

#[tokio::test]
async fn a_wrong_clock_a_dead_token_and_an_acquisition_fit_into_one_fetch() {
    let double = imm(-HOUR).await;
    let document = with(with(rig::imm(&double), rig::pair(&double.issue())), rig::generate());
    let own = rig(&double, document);
    assert_eq!(own.says().await, "200");
    double.kill_all();
    assert_eq!(own.burst(100).await, (100, None));
    let counts = double.counts();
    assert_eq!(
        (counts.of("RefreshWebofficeToken"), counts.of("GenerateWebofficeToken")),
        (2, 1)
    );

    let double = ecd(HOUR, true).await;
    let live = double.issue();
    let document = with(with(rig::ecd(&double), rig::login(&live)), rig::signed());
    let own = rig(&double, with(document, rig::keep_alive(&live)));
    assert_eq!(own.says().await, "200");
    double.revoke();
    // Dead by our own word, so that nothing is renewed; the clock is wrong all the same.
    assert_eq!(own.burst(100).await, (100, None));
    let counts = double.counts();
    assert_eq!((counts.of("RefreshLoginToken"), counts.of("GetLoginToken")), (0, 2));
}

#[tokio::test]
async fn a_lost_answer_a_dead_token_and_an_acquisition_fit_into_one_fetch() {
    let double = imm(0).await;
    let document = with(with(rig::imm(&double), rig::pair(&double.issue())), rig::generate());
    let rig = rig(&double, document);
    assert_eq!(rig.says().await, "200");
    double.fault(Fault::LostAnswer);
    // The old pair is spent, and so is dead on its second presentation.
    assert_eq!(rig.refreshed().await, "renewed");
    let counts = double.counts();
    assert_eq!(
        (counts.of("RefreshWebofficeToken"), counts.of("GenerateWebofficeToken")),
        (2, 1)
    );
    assert_eq!(counts.presented_twice, 1, "the one presentation that rule 9 allows");
    assert_eq!(rig.says().await, "200");
}
