//! Many callers at once, over expiries and a revocation: nobody fails, and the vendor is asked once each time.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tower_token::State;

use super::rig::{self, MILLISECOND, Rig, SECOND, rig, says, until, with};
use super::vendors::acs3::AccessKey;
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{ExpiresIn, Huawei, HuaweiOptions, Refresh};
use super::vendors::tencent::{Renewing, Smh, SmhOptions};
use super::vendors::{Counts, Double, Fault, Vendor};

const EXPIRIES: u64 = 5;

/// What the vendor handed out, first tokens among them.
fn handed_out(counts: &Counts) -> u64 {
    counts.renewals + counts.acquisitions
}

/// A steady trickle over five expiries, with forty callers at once whenever the token has gone stale.
async fn expiries<V: Vendor>(double: &Double<V>, rig: &Rig) {
    let goal = handed_out(&double.counts()) + EXPIRIES;
    let mut calls = JoinSet::new();
    let mut tick = interval(50 * MILLISECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut met = 0;
    while handed_out(&double.counts()) < goal {
        tick.tick().await;
        let is_new = rig.tokens.status().state == State::Stale && rig.generation() > met;
        if is_new {
            met = rig.generation();
        }
        for _ in 0..if is_new { 40 } else { 2 } {
            let rig = rig.clone();
            calls.spawn(async move { says(&rig.business().await) });
        }
    }
    let others: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .filter(|said| said != "200")
        .collect();
    assert_eq!(others, <[String; 0]>::default());
}

/// Two hundred at once, then the expiries, then a revocation in the midst of two hundred more.
async fn herd<V: Vendor>(what: &str, double: &Double<V>, rig: &Rig, revocable: bool) {
    assert_eq!(rig.burst(200).await, (200, None), "{what}");
    let first = handed_out(&double.counts());
    expiries(double, rig).await;
    let counts = double.counts();
    assert_eq!(handed_out(&counts), first + EXPIRIES, "{what}: {counts:?}");
    assert_eq!(
        (counts.business_refused, counts.expired_presented),
        (0, 0),
        "{what}: {counts:?}"
    );
    if revocable {
        double.revoke();
        assert_eq!(rig.burst(200).await, (200, None), "{what}");
        let after = double.counts();
        // One more may have been due meanwhile.
        let fetched = handed_out(&after) - handed_out(&counts);
        assert!((1..=2).contains(&fetched), "{what}: {after:?}");
        assert!((1..=200).contains(&after.expired_presented), "{what}: {after:?}");
        assert_eq!(after.expired_presented, after.business_refused);
    }
    // The next renewal may be in the air.
    until(|| double.counts().in_flight == 0).await;
    let counts = double.counts();
    assert_eq!(
        counts.token_requests(),
        handed_out(&counts),
        "{what}: asked for nothing: {counts:?}"
    );
    sound(&counts);
    assert_eq!(rig.tokens.status().exchanges, counts.token_requests(), "{what}");
}

/// What holds whatever happens.
fn sound(counts: &Counts) {
    assert_eq!((counts.refused, counts.presented_twice, counts.nonce_reused), (0, 0, 0));
    assert_eq!((counts.signature_failures, counts.clock_refusals), (0, 0));
    assert_eq!((counts.unknown_parameters, counts.max_in_flight), (0, 1), "{counts:?}");
}

// ===== Alibaba Cloud: IMM =====

fn imm_options(key: AccessKey) -> ImmOptions {
    ImmOptions {
        key,
        access_lifetime: 2 * SECOND,
        old_access_grace: SECOND,
        ..ImmOptions::default()
    }
}

async fn a_generated_pair_of_imm_is_renewed_once_per_expiry() {
    let double = Imm::start(imm_options(AccessKey::default())).await;
    let rig = rig(&double, with(rig::imm(&double), rig::generate()));
    herd(
        "a generated pair of imm is renewed once per expiry",
        &double,
        &rig,
        true,
    )
    .await;
    let counts = double.counts();
    assert_eq!(counts.of("GenerateWebofficeToken"), 1);
}

async fn a_configured_pair_of_imm_is_renewed_with_temporary_keys_and_a_credential_config() {
    let key = AccessKey {
        id: "STS.testKeyId".into(),
        secret: "test+secret/of=sts".into(),
        security_token: Some("test-sts-token+/==".into()),
    };
    let double = Imm::start(imm_options(key)).await;
    let live = double.issue();
    let document = with(with(rig::imm(&double), rig::pair(&live)), rig::credential_config());
    let keys = serde_json::json!({ "provider": {
        "access_key_id": "STS.testKeyId",
        "access_key_secret": "test+secret/of=sts",
        "security_token": "test-sts-token+/==",
        "expires_at": super::vendors::wire::rfc3339_nanoseconds(live.access_ends)
    } });
    let rig = rig(&double, with(document, keys));
    herd(
        "a configured pair of imm is renewed with temporary keys and a credential config",
        &double,
        &rig,
        true,
    )
    .await;
    assert_eq!(double.counts().of("GenerateWebofficeToken"), 0);
}

// ===== Alibaba Cloud: ECD =====

/// The life is nowhere on the wire, so that the double's may be longer than the document's.
fn ecd_options(signed: Option<AccessKey>) -> EcdOptions {
    EcdOptions {
        signed,
        login_lifetime: 3 * SECOND,
        old_login_grace: SECOND,
        ..EcdOptions::default()
    }
}

async fn an_anonymous_login_is_renewed_once_per_expiry() {
    let double = Ecd::start(ecd_options(None)).await;
    let live = double.issue();
    let rig = rig(
        &double,
        with(with(rig::ecd(&double), rig::login(&live)), rig::lifetime("2s")),
    );
    herd("an anonymous login is renewed once per expiry", &double, &rig, false).await;
    assert_eq!(double.counts().of("GetLoginToken"), 0);
}

async fn an_anonymous_login_with_a_keep_alive_token_survives_a_revocation() {
    let double = Ecd::start(ecd_options(None)).await;
    let live = double.issue();
    let document = with(with(rig::ecd(&double), rig::login(&live)), rig::lifetime("2s"));
    let rig = rig(&double, with(document, rig::keep_alive(&live)));
    herd(
        "an anonymous login with a keep alive token survives a revocation",
        &double,
        &rig,
        true,
    )
    .await;
    assert_eq!(double.counts().of("GetLoginToken"), 1);
}

async fn a_signed_login_begins_with_a_keep_alive_token_that_rotates() {
    let options = EcdOptions {
        keep_alive_rotates: true,
        ..ecd_options(Some(AccessKey::default()))
    };
    let double = Ecd::start(options).await;
    let live = double.issue();
    double.revoke();
    let document = with(with(rig::ecd(&double), rig::signed()), rig::lifetime("2s"));
    let rig = rig(&double, with(document, rig::keep_alive(&live)));
    herd(
        "a signed login begins with a keep alive token that rotates",
        &double,
        &rig,
        true,
    )
    .await;
    // The first, and the one after the revocation, with the keep-alive token that the first brought.
    assert_eq!(double.counts().of("GetLoginToken"), 2);
}

// ===== Tencent SMH =====

fn smh_options(renewing: Renewing) -> SmhOptions {
    SmhOptions {
        lifetime: Some(2 * SECOND),
        renewing,
        old_access_grace: SECOND,
        ..SmhOptions::default()
    }
}

async fn a_library_token_that_changes_is_renewed_once_per_expiry() {
    let double = Smh::start(smh_options(Renewing::Changes)).await;
    let rig = rig(&double, with(rig::smh(&double), rig::library_secret()));
    herd(
        "a library token that changes is renewed once per expiry",
        &double,
        &rig,
        true,
    )
    .await;
    assert_eq!(double.counts().of("Generate"), 2, "the first, and after the revocation");
}

async fn a_library_token_that_stays_the_same_is_renewed_once_per_expiry_and_generated_after_a_revocation() {
    let double = Smh::start(smh_options(Renewing::Keeps)).await;
    let rig = rig(&double, with(rig::smh(&double), rig::library_secret()));
    herd(
        "a library token that stays the same is renewed once per expiry and generated after a revocation",
        &double,
        &rig,
        true,
    )
    .await;
    assert_eq!(double.counts().of("Generate"), 2);
}

async fn a_library_token_without_the_secret_is_renewed_once_per_expiry() {
    // Nothing brings back one that was renewed too late, so that it lives longer.
    let options = SmhOptions {
        lifetime: Some(3 * SECOND),
        ..smh_options(Renewing::Changes)
    };
    let double = Smh::start(options).await;
    let live = double.issue();
    let rig = rig(
        &double,
        with(with(rig::smh(&double), rig::access(&live)), rig::period("3s")),
    );
    herd(
        "a library token without the secret is renewed once per expiry",
        &double,
        &rig,
        false,
    )
    .await;
    assert_eq!(double.counts().of("Generate"), 0);
}

// ===== Huawei =====

fn huawei_options(refresh: Refresh, expires_in: ExpiresIn) -> HuaweiOptions {
    HuaweiOptions {
        refresh,
        expires_in,
        access_lifetime: 2 * SECOND,
        tenant_lifetime: 2 * SECOND,
        old_access_grace: SECOND,
        ..HuaweiOptions::default()
    }
}

async fn a_refresh_token_of_one_access_that_rotates_is_presented_once_each() {
    let double = Huawei::start(huawei_options(Refresh::Rotates, ExpiresIn::Number)).await;
    let live = double.issue();
    let rig = rig(&double, with(rig::one_access(&double), rig::refresh(&live)));
    herd(
        "a refresh token of one access that rotates is presented once each",
        &double,
        &rig,
        true,
    )
    .await;
    assert_eq!(double.counts().of("authorization_code"), 0);
}

async fn a_refresh_token_of_one_access_that_is_repeated_or_left_out_is_kept() {
    for (refresh, expires_in) in [
        (Refresh::Repeats, ExpiresIn::Text),
        (Refresh::LeftOut, ExpiresIn::Number),
    ] {
        let double = Huawei::start(huawei_options(refresh, expires_in)).await;
        let rig = rig(&double, with(rig::one_access(&double), rig::code(&double)));
        herd(
            "a refresh token of one access that is repeated or left out is kept",
            &double,
            &rig,
            true,
        )
        .await;
        assert_eq!(double.counts().of("authorization_code"), 1);
    }
}

async fn a_tenant_token_is_asked_for_once_per_expiry() {
    let double = Huawei::start(huawei_options(Refresh::Off, ExpiresIn::Text)).await;
    let rig = rig(&double, rig::tenant(&double));
    herd("a tenant token is asked for once per expiry", &double, &rig, true).await;
}

// ===== Without any grace =====

/// The double ends the old token the moment it makes the new one, and takes its time to hand that out: whoever
/// comes meanwhile is refused, and sent again.
async fn without_grace<V: Vendor>(what: &str, double: &Double<V>, rig: &Rig) {
    assert_eq!(rig.burst(200).await, (200, None), "{what}");
    let before = double.counts();
    for _ in 0..100 {
        double.fault(Fault::Delay(100 * MILLISECOND));
    }
    let began = Instant::now();
    expiries(double, rig).await;
    let counts = double.counts();
    sound(&counts);
    assert_eq!(counts.token_requests(), handed_out(&counts), "{what}");
    assert!(counts.business_refused > 0, "{what}: nobody came meanwhile");
    assert_eq!(counts.expired_presented, counts.business_refused, "{what}");
    // A refusal that meets a renewal in the air is answered by one more after it, which answers all others:
    // two for an expiry, of which there is one a second at most.
    let most = 2 * (began.elapsed().as_secs() + 1);
    let renewed = handed_out(&counts) - handed_out(&before);
    assert!(renewed <= most, "{what}: {renewed} of {most}, {counts:?}");
    assert_eq!(counts.acquisitions, before.acquisitions, "{what}");
}

async fn nobody_fails_where_a_renewal_ends_the_old_pair_at_once() {
    let options = ImmOptions {
        old_access_grace: Duration::ZERO,
        ..imm_options(AccessKey::default())
    };
    let double = Imm::start(options).await;
    let rig = rig(&double, with(rig::imm(&double), rig::generate()));
    without_grace("nobody fails where a renewal ends the old pair at once", &double, &rig).await;
}

async fn nobody_fails_where_a_renewal_ends_the_old_refresh_token_at_once() {
    let options = HuaweiOptions {
        old_access_grace: Duration::ZERO,
        ..huawei_options(Refresh::Rotates, ExpiresIn::Number)
    };
    let double = Huawei::start(options).await;
    let live = double.issue();
    let rig = rig(&double, with(rig::one_access(&double), rig::refresh(&live)));
    without_grace(
        "nobody fails where a renewal ends the old refresh token at once",
        &double,
        &rig,
    )
    .await;
}

async fn nobody_fails_where_a_renewal_ends_the_old_library_token_at_once() {
    let options = SmhOptions {
        lifetime: Some(4 * SECOND),
        old_access_grace: Duration::ZERO,
        ..smh_options(Renewing::Changes)
    };
    let double = Smh::start(options).await;
    let live = double.issue();
    let document = with(with(rig::smh(&double), rig::access(&live)), rig::period("2s"));
    let rig = rig(&double, document);
    without_grace("a library token without the secret", &double, &rig).await;
}

// ===== All of them =====

// Side by side, because what takes the time is the lives of the tokens.

#[tokio::test]
async fn a_token_of_alibaba_cloud_is_renewed_once_per_expiry_and_revocation_for_all_callers() {
    tokio::join!(
        a_generated_pair_of_imm_is_renewed_once_per_expiry(),
        a_configured_pair_of_imm_is_renewed_with_temporary_keys_and_a_credential_config(),
        an_anonymous_login_is_renewed_once_per_expiry(),
        an_anonymous_login_with_a_keep_alive_token_survives_a_revocation(),
        a_signed_login_begins_with_a_keep_alive_token_that_rotates(),
        nobody_fails_where_a_renewal_ends_the_old_pair_at_once()
    );
}

#[tokio::test]
async fn a_token_of_tencent_or_huawei_is_renewed_once_per_expiry_and_revocation_for_all_callers() {
    tokio::join!(
        a_library_token_that_changes_is_renewed_once_per_expiry(),
        a_library_token_that_stays_the_same_is_renewed_once_per_expiry_and_generated_after_a_revocation(),
        a_library_token_without_the_secret_is_renewed_once_per_expiry(),
        a_refresh_token_of_one_access_that_rotates_is_presented_once_each(),
        a_refresh_token_of_one_access_that_is_repeated_or_left_out_is_kept(),
        a_tenant_token_is_asked_for_once_per_expiry(),
        nobody_fails_where_a_renewal_ends_the_old_refresh_token_at_once(),
        nobody_fails_where_a_renewal_ends_the_old_library_token_at_once()
    );
}
