//! Callers that leave, a vendor that is down, keys that are wrong.

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_token::State;

use super::rig::{self, MILLISECOND, SECOND, rig, until, with};
use super::vendors::acs3::AccessKey;
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{Huawei, HuaweiOptions};
use super::vendors::tencent::{Smh, SmhOptions};
use super::vendors::{Double, Fault, Vendor};

/// Fifty wait for one slow fetch, and leave. What it brings is there for the next.
async fn all_leave<V: Vendor>(double: &Double<V>, document: Value, revoked: bool) {
    let rig = rig(double, document);
    if revoked {
        assert_eq!(rig.says().await, "200");
        double.revoke();
    }
    let before = double.counts();
    double.fault(Fault::Delay(3 * SECOND));
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let rig = rig.clone();
        callers.spawn(async move { drop(rig.business().await) });
    }
    // Not by a time limit of theirs: on a busy machine all may leave before one of them was refused.
    until(|| double.counts().in_flight == 1).await;
    sleep(300 * MILLISECOND).await;
    assert!(callers.try_join_next().is_none(), "nobody has an answer");
    callers.shutdown().await;
    assert_eq!(rig.tokens.status().waiting, 0);
    until(|| rig.tokens.status().state == State::Fresh).await;
    let refused = double.counts().business_refused;
    assert_eq!(rig.burst(50).await, (50, None));
    let counts = double.counts();
    assert_eq!(counts.token_requests() - before.token_requests(), 1, "{counts:?}");
    assert_eq!(
        (counts.presented_twice, counts.business_refused),
        (0, refused),
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_renewal_lands_although_every_caller_has_left_and_the_next_uses_it() {
    let imm = Imm::start(ImmOptions::default()).await;
    let pair = with(rig::imm(&imm), rig::pair(&imm.issue()));
    let huawei = Huawei::start(HuaweiOptions::default()).await;
    let refresh = with(rig::one_access(&huawei), rig::refresh(&huawei.issue()));
    let ecd = Ecd::start(EcdOptions::default()).await;
    let live = ecd.issue();
    let login = with(with(rig::ecd(&ecd), rig::login(&live)), rig::keep_alive(&live));
    let smh = Smh::start(SmhOptions::default()).await;
    let first = with(rig::smh(&smh), rig::library_secret());
    let lazy = rig::policy(json!({ "keep_alive": false }));
    tokio::join!(
        all_leave(&imm, pair, true),
        all_leave(&huawei, refresh, true),
        all_leave(&ecd, login, true),
        all_leave(&smh, with(first, lazy), false),
    );
}

/// The last handle leaves while a renewal is under way: it is finished or not, but not sent twice.
#[tokio::test]
async fn a_renewal_under_way_when_the_last_handle_leaves_is_presented_once() {
    let double = Imm::start(ImmOptions::default()).await;
    let rig = rig(&double, with(rig::imm(&double), rig::pair(&double.issue())));
    assert_eq!(rig.says().await, "200");
    double.fault(Fault::Delay(500 * MILLISECOND));
    let other = rig.clone();
    let refresh = tokio::spawn(async move { other.refreshed().await });
    until(|| double.counts().in_flight == 1).await;
    refresh.abort();
    let _ = refresh.await;
    drop(rig);
    until(|| double.counts().in_flight == 0).await;
    sleep(300 * MILLISECOND).await;
    let counts = double.counts();
    assert_eq!((counts.token_requests(), counts.presented_twice), (1, 0), "{counts:?}");
}

/// Down for the second half of a life: nobody notices while the token lives, and nobody storms.
async fn down<V: Vendor>(double: &Double<V>, document: Value, fault: Fault) {
    let rig = rig(double, document);
    assert_eq!(rig.says().await, "200");
    let before = double.counts().token_requests();
    for _ in 0..1_000 {
        double.fault(fault.clone());
    }
    until(|| rig.tokens.status().state == State::Stale).await;
    while rig.tokens.status().state == State::Stale {
        let (whole, other) = rig.burst(10).await;
        // Its last moments may be over by the time that the last of them goes out.
        assert!(whole == 10 || rig.tokens.status().state != State::Stale, "{other:?}");
        sleep(20 * MILLISECOND).await;
    }
    let asked = double.counts().token_requests() - before;
    // A lost answer is presented twice; then there is backoff.
    assert!((1..=3).contains(&asked), "{asked}");
    assert_eq!(double.counts().max_in_flight, 1);
}

/// Nobody asks, and the first token is not to be had: asked for again by the backoff, and no faster.
async fn down_from_the_start<V: Vendor>(double: &Double<V>, document: Value, fault: Fault) {
    for _ in 0..1_000 {
        double.fault(fault.clone());
    }
    let rig = rig(double, document);
    sleep(3 * SECOND).await;
    let counts = double.counts();
    assert!((2..=3).contains(&counts.token_requests()), "{fault:?}: {counts:?}");
    double.no_more_faults();
    // Up again: it is noticed without a request.
    until(|| rig.tokens.status().state == State::Fresh).await;
    assert_eq!(rig.burst(50).await, (50, None));
    assert_eq!((double.counts().acquisitions, double.counts().max_in_flight), (1, 1));
}

#[tokio::test]
async fn a_vendor_that_is_down_is_not_stormed_and_the_token_in_place_serves_its_whole_life() {
    let imm = Imm::start(ImmOptions {
        access_lifetime: 4 * SECOND,
        ..ImmOptions::default()
    })
    .await;
    let smh = Smh::start(SmhOptions {
        lifetime: Some(4 * SECOND),
        sliding: false,
        ..SmhOptions::default()
    })
    .await;
    let huawei = Huawei::start(HuaweiOptions {
        access_lifetime: 4 * SECOND,
        ..HuaweiOptions::default()
    })
    .await;
    let idle_smh = Smh::start(SmhOptions::default()).await;
    let idle_ecd = Ecd::start(EcdOptions::default()).await;
    let login = idle_ecd.issue();
    let hint = Fault::Throttle400 {
        retry_after: 3 * SECOND,
    };
    tokio::join!(
        down(&imm, with(rig::imm(&imm), rig::generate()), hint),
        down(&smh, with(rig::smh(&smh), rig::library_secret()), Fault::Unavailable503),
        down_from_the_start(
            &idle_smh,
            with(rig::smh(&idle_smh), rig::library_secret()),
            Fault::Html502
        ),
        down_from_the_start(
            &idle_ecd,
            with(rig::ecd(&idle_ecd), rig::keep_alive(&login)),
            Fault::Redirect307
        ),
        down(
            &huawei,
            with(rig::one_access(&huawei), rig::refresh(&huawei.issue())),
            Fault::Html502
        ),
    );
}

/// What is configured wrongly is said once, whatever could be acquired, and costs a valid token nothing.
async fn wrong<V: Vendor>(double: &Double<V>, document: Value, said: &str) {
    let rig = rig(double, with(document, rig::policy(json!({ "keep_alive": false }))));
    for _ in 0..20 {
        assert_eq!(rig.says().await, said);
    }
    let counts = double.counts();
    assert_eq!((counts.token_requests(), counts.acquisitions), (1, 0), "{counts:?}");
}

#[tokio::test]
async fn a_wrong_key_or_secret_is_said_once_and_not_asked_for_again() {
    let imm = Imm::start(ImmOptions::default()).await;
    let document = with(rig::imm(&imm), rig::generate());
    for wrong_key in [
        json!({ "access_key_id": "test-other" }),
        json!({ "access_key_secret": "test-other" }),
        json!({ "security_token": "test-other" }),
    ] {
        let double = Imm::start(ImmOptions::default()).await;
        let here = json!({ "endpoint": double.url() });
        let provider = with(json!({ "provider": here }), json!({ "provider": wrong_key }));
        wrong(&double, with(document.clone(), provider), "config").await;
    }
    let smh = Smh::start(SmhOptions::default()).await;
    let secret = json!({ "provider": { "library_secret": "test-other" } });
    wrong(&smh, with(rig::smh(&smh), secret), "config").await;
    let huawei = Huawei::start(HuaweiOptions::default()).await;
    let secret = json!({ "provider": { "client_secret": "test-other" } });
    wrong(
        &huawei,
        with(with(rig::one_access(&huawei), rig::code(&huawei)), secret.clone()),
        "config",
    )
    .await;
    let ecd = Ecd::start(EcdOptions::default()).await;
    let live = ecd.issue();
    // Anonymous is what this one wants.
    let document = with(with(rig::ecd(&ecd), rig::keep_alive(&live)), rig::signed());
    wrong(&ecd, document, "config").await;
}

#[tokio::test]
async fn a_key_that_is_changed_at_the_vendor_costs_neither_the_token_in_place_nor_an_acquisition() {
    let double = Imm::start(ImmOptions::default()).await;
    let document = with(with(rig::imm(&double), rig::pair(&double.issue())), rig::generate());
    let rig = rig(&double, document);
    assert_eq!(rig.says().await, "200");
    double.vendor().rekey(AccessKey {
        secret: "test-new".into(),
        ..AccessKey::default()
    });
    assert_eq!(rig.refreshed().await, "config");
    assert_eq!(rig.burst(50).await, (50, None));
    let counts = double.counts();
    assert_eq!(
        (counts.of("RefreshWebofficeToken"), counts.of("GenerateWebofficeToken")),
        (1, 0)
    );
    // As soon as it is right again, the same pair is renewed.
    double.vendor().rekey(AccessKey::default());
    assert_eq!(rig.refreshed().await, "renewed");
    assert_eq!((double.counts().renewals, double.counts().acquisitions), (1, 0));
}
