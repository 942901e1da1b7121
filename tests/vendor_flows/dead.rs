//! A token that nothing renews any more: acquired anew once, or given up at once, until another is installed.

use serde_json::{Value, json};

use super::rig::{self, Rig, SECOND, rig, with};
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{Huawei, HuaweiOptions, Refresh};
use super::vendors::tencent::{Smh, SmhOptions};
use super::vendors::{Double, Vendor};

/// Dead at the vendor only: the first request is refused. Two hundred find it out at once, and cost one
/// acquisition between them.
async fn falls_back<V: Vendor>(double: &Double<V>, rig: &Rig, renewing: u64, operation: &str) {
    assert_eq!(rig.says().await, "200");
    let before = double.counts();
    double.kill_all();
    assert_eq!(rig.burst(200).await, (200, None), "{operation}");
    assert_eq!(rig.burst(50).await, (50, None), "{operation}");
    let counts = double.counts();
    let acquired = counts.of(operation) - before.of(operation);
    assert_eq!(acquired, 1, "{operation}: {counts:?}");
    let asked = counts.token_requests() - before.token_requests();
    assert_eq!((asked, counts.max_in_flight), (renewing + 1, 1), "{operation}");
}

#[tokio::test]
async fn a_dead_token_is_acquired_anew_once() {
    let imm = Imm::start(ImmOptions::default()).await;
    let document = with(with(rig::imm(&imm), rig::pair(&imm.issue())), rig::generate());
    falls_back(&imm, &rig(&imm, document), 1, "GenerateWebofficeToken").await;

    let smh = Smh::start(SmhOptions::default()).await;
    let document = with(with(rig::smh(&smh), rig::access(&smh.issue())), rig::library_secret());
    // A refused token can only be renewed alive, so that nobody tries.
    falls_back(&smh, &rig(&smh, document), 0, "Generate").await;

    let huawei = Huawei::start(HuaweiOptions::default()).await;
    falls_back(&huawei, &rig(&huawei, rig::tenant(&huawei)), 0, "client_credentials").await;

    let ecd = Ecd::start(EcdOptions::default()).await;
    let live = ecd.issue();
    let document = with(with(rig::ecd(&ecd), rig::login(&live)), rig::keep_alive(&live));
    let rig = rig(&ecd, document);
    assert_eq!(rig.says().await, "200");
    ecd.revoke();
    assert_eq!(rig.burst(200).await, (200, None));
    let counts = ecd.counts();
    assert_eq!((counts.of("GetLoginToken"), counts.token_requests()), (1, 1));
    // With the keep-alive token dead as well, a person has to act.
    ecd.kill_all();
    given_up(&ecd, &rig, "400", "needs interaction", 1).await;
}

/// The refused request gets its own refusal, all later ones the class; `asked` requests find it out.
async fn given_up<V: Vendor>(double: &Double<V>, rig: &Rig, refusal: &str, class: &str, asked: u64) {
    let before = double.counts();
    assert_eq!(rig.says().await, refusal);
    let found = double.counts();
    assert_eq!(
        found.token_requests() - before.token_requests(),
        asked,
        "{class}: {found:?}"
    );
    for _ in 0..50 {
        assert_eq!(rig.says().await, class);
    }
    assert_eq!(rig.burst(50).await, (0, Some(class.into())));
    let counts = double.counts();
    assert_eq!(
        counts.token_requests(),
        found.token_requests(),
        "a loop at the vendor: {counts:?}"
    );
    assert_eq!(
        counts.business_refused,
        before.business_refused + 1,
        "a refused token was sent again"
    );
    let error = rig.tokens.get().await.unwrap_err();
    assert!(error.is_reauth_required() && !error.is_transient(), "{error}");
}

async fn installed<V: Vendor>(double: &Double<V>, rig: &Rig, credential: Value) {
    let before = double.counts();
    rig.tokens.install(credential).unwrap();
    assert_eq!(rig.burst(50).await, (50, None));
    let counts = double.counts();
    let asked = counts.token_requests() - before.token_requests();
    // At most the one renewal that makes a token of what was installed.
    assert!(asked <= 1, "{counts:?}");
    assert_eq!(counts.refused, before.refused);
}

#[tokio::test]
async fn a_dead_pair_without_an_acquisition_is_terminal_at_once_until_another_is_installed() {
    let double = Imm::start(ImmOptions::default()).await;
    let rig = rig(&double, with(rig::imm(&double), rig::pair(&double.issue())));
    assert_eq!(rig.says().await, "200");
    double.kill_all();
    given_up(&double, &rig, "401", "terminal", 1).await;
    let live = double.issue();
    let pair = json!({ "access_token": live.access, "refresh_token": live.renew });
    installed(&double, &rig, pair).await;
}

#[tokio::test]
async fn a_dead_login_without_a_keep_alive_token_needs_a_person_at_once_until_another_is_installed() {
    let double = Ecd::start(EcdOptions::default()).await;
    let rig = rig(&double, with(rig::ecd(&double), rig::login(&double.issue())));
    assert_eq!(rig.says().await, "200");
    double.kill_all();
    given_up(&double, &rig, "400", "needs interaction", 1).await;
    let live = double.issue();
    let login = json!({ "login_token": live.access, "session_id": "test-session-2" });
    installed(&double, &rig, login).await;
    // A keep-alive token is as good: it is a login that can be made anew.
    let live = double.issue();
    double.revoke();
    installed(&double, &rig, json!({ "keep_alive_token": live.renew })).await;
    assert_eq!(double.counts().of("GetLoginToken"), 1);
    // And it is kept for the next time.
    double.revoke();
    assert_eq!(rig.says().await, "200");
    assert_eq!(double.counts().of("GetLoginToken"), 2);
}

#[tokio::test]
async fn a_login_that_wants_another_stage_needs_a_person() {
    let options = EcdOptions {
        next_stage: Some("MFAVerify".into()),
        ..EcdOptions::default()
    };
    let double = Ecd::start(options).await;
    let live = double.issue();
    let document = with(with(rig::ecd(&double), rig::login(&live)), rig::keep_alive(&live));
    let rig = rig(&double, document);
    assert_eq!(rig.says().await, "200");
    double.revoke();
    given_up(&double, &rig, "400", "needs interaction", 1).await;
    assert_eq!(double.counts().acquisitions, 0);
}

#[tokio::test]
async fn a_dead_library_token_without_the_secret_is_terminal_at_once_until_another_is_installed() {
    let double = Smh::start(SmhOptions::default()).await;
    let rig = rig(&double, with(rig::smh(&double), rig::access(&double.issue())));
    assert_eq!(rig.says().await, "200");
    double.kill_all();
    given_up(&double, &rig, "403", "terminal", 1).await;
    let live = double.issue();
    installed(&double, &rig, json!({ "access_token": live.access })).await;
}

#[tokio::test]
async fn a_dead_refresh_token_of_one_access_is_terminal_at_once_until_another_is_installed() {
    let double = Huawei::start(HuaweiOptions::default()).await;
    let document = with(rig::one_access(&double), rig::refresh(&double.issue()));
    // A code beside it was never used, but is good for one use and no way back.
    let rig = rig(&double, with(document, rig::code(&double)));
    assert_eq!(rig.says().await, "200");
    double.kill_all();
    given_up(&double, &rig, "401", "terminal", 1).await;
    let live = double.issue();
    installed(&double, &rig, json!({ "refresh_token": live.renew })).await;
    assert_eq!(double.counts().of("authorization_code"), 0);
}

#[tokio::test]
async fn a_token_of_one_access_without_a_refresh_token_ends_with_its_life_and_its_code_is_not_sent_again() {
    let options = HuaweiOptions {
        refresh: Refresh::Off,
        access_lifetime: SECOND,
        ..HuaweiOptions::default()
    };
    let double = Huawei::start(options).await;
    let rig = rig(&double, with(rig::one_access(&double), rig::code(&double)));
    assert_eq!(rig.says().await, "200");
    let expired = async || rig.says().await != "200";
    for _ in 0..100 {
        if expired().await {
            break;
        }
        tokio::time::sleep(20 * rig::MILLISECOND).await;
    }
    for _ in 0..50 {
        assert_eq!(rig.says().await, "terminal");
    }
    let counts = double.counts();
    assert_eq!((counts.token_requests(), counts.presented_twice), (1, 0), "{counts:?}");
    assert_eq!(counts.expired_presented, 0);
}
