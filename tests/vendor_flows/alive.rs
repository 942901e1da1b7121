//! Tokens that die unless they are renewed are alive after three of their lives without a request.

use tokio::time::sleep;
use tower_token::KeepAlive;

use super::rig::{self, Rig, SECOND, rig, with};
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{Huawei, HuaweiOptions};
use super::vendors::tencent::{Renewing, Smh, SmhOptions};
use super::vendors::{Double, Vendor};

/// How long a token lives here, at the vendor and in the document alike.
const LIFE: u32 = 6;

/// Nobody asks for three lives; then one business request goes out with the token in place.
async fn idle<V: Vendor>(what: &str, double: &Double<V>, rig: &Rig, acquisitions: u64) {
    assert_eq!(rig.tokens.status().keep_alive, KeepAlive::Running, "{what}");
    sleep(3 * LIFE * SECOND).await;
    // What is sent while a renewal is in the air may meet a vendor that has ended the old token already.
    rig.tokens.changed().await;
    let idle = double.counts();
    assert_eq!(
        (idle.business_ok, idle.acquisitions),
        (0, acquisitions),
        "{what}: {idle:?}"
    );
    assert_eq!((idle.refused, idle.presented_twice), (0, 0), "{what}: {idle:?}");
    // Not before half of a life is used, and not so late that it dies.
    assert!((3..=8).contains(&idle.renewals), "{what}: {idle:?}");
    assert_eq!(double.now_serving().len(), 1, "{what}: nothing is alive");
    assert_eq!(rig.says().await, "200", "{what}");
    let counts = double.counts();
    assert_eq!(
        (counts.acquisitions, counts.business_refused),
        (acquisitions, 0),
        "{what}"
    );
    assert_eq!(counts.max_in_flight, 1, "{what}");
}

async fn a_login() {
    let options = EcdOptions {
        login_lifetime: LIFE * SECOND,
        ..EcdOptions::default()
    };
    let double = Ecd::start(options).await;
    let live = double.issue();
    let document = with(with(rig::ecd(&double), rig::login(&live)), rig::lifetime("6s"));
    idle("a login", &double, &rig(&double, document), 0).await;
}

async fn a_first_login() {
    let options = EcdOptions {
        login_lifetime: LIFE * SECOND,
        ..EcdOptions::default()
    };
    let double = Ecd::start(options).await;
    let live = double.issue();
    double.revoke();
    let document = with(with(rig::ecd(&double), rig::keep_alive(&live)), rig::lifetime("6s"));
    idle("a first login", &double, &rig(&double, document), 1).await;
}

fn smh_options(renewing: Renewing) -> SmhOptions {
    SmhOptions {
        lifetime: Some(LIFE * SECOND),
        renewing,
        ..SmhOptions::default()
    }
}

async fn a_library_token() {
    let double = Smh::start(smh_options(Renewing::Changes)).await;
    let live = double.issue();
    let document = with(with(rig::smh(&double), rig::access(&live)), rig::period("6s"));
    idle("a library token", &double, &rig(&double, document), 0).await;
}

async fn a_first_library_token(renewing: Renewing) {
    let double = Smh::start(smh_options(renewing)).await;
    let document = with(rig::smh(&double), rig::library_secret());
    idle("a first library token", &double, &rig(&double, document), 1).await;
}

#[tokio::test]
async fn an_idle_token_of_ecd_or_smh_is_alive_after_three_of_its_lives() {
    tokio::join!(
        a_login(),
        a_first_login(),
        a_library_token(),
        a_first_library_token(Renewing::Changes),
        a_first_library_token(Renewing::Keeps),
        an_idle_pair(),
        an_idle_tenant(),
        without_keep_alive(),
    );
}

/// What an idle pair of IMM dies of is its refresh token.
async fn an_idle_pair() {
    let options = ImmOptions {
        access_lifetime: SECOND,
        refresh_lifetime: LIFE * SECOND,
        ..ImmOptions::default()
    };
    let double = Imm::start(options).await;
    let rig = rig(&double, with(rig::imm(&double), rig::generate()));
    sleep(3 * LIFE * SECOND).await;
    // What is sent while a renewal is in the air may meet a vendor that has ended the old token already.
    rig.tokens.changed().await;
    let idle = double.counts();
    assert_eq!(
        (idle.acquisitions, idle.refused, idle.business_ok),
        (1, 0, 0),
        "{idle:?}"
    );
    assert_eq!(rig.says().await, "200");
    assert_eq!(double.counts().acquisitions, 1, "{:?}", double.counts());
}

/// Nobody keeps alive what can be asked for at any time.
async fn an_idle_tenant() {
    let options = HuaweiOptions {
        tenant_lifetime: SECOND,
        ..HuaweiOptions::default()
    };
    let double = Huawei::start(options).await;
    let rig = rig(&double, rig::tenant(&double));
    assert_eq!(rig.tokens.status().keep_alive, KeepAlive::Off);
    assert_eq!(rig.says().await, "200");
    sleep(3 * SECOND).await;
    assert_eq!(double.counts().token_requests(), 1);
    assert_eq!(rig.burst(50).await, (50, None));
    assert_eq!(
        (double.counts().token_requests(), double.counts().expired_presented),
        (2, 0)
    );
}

async fn without_keep_alive() {
    let double = Smh::start(smh_options(Renewing::Changes)).await;
    let document = with(rig::smh(&double), rig::library_secret());
    let off = rig::policy(serde_json::json!({ "keep_alive": false }));
    let rig = rig(&double, with(document, off));
    assert_eq!(rig.says().await, "200");
    sleep(2 * LIFE * SECOND).await;
    assert_eq!(double.counts().token_requests(), 1);
    // Too late to be renewed: generated, and nobody asks in vain.
    assert_eq!(rig.burst(50).await, (50, None));
    let counts = double.counts();
    assert_eq!(
        (counts.of("Generate"), counts.token_requests(), counts.refused),
        (2, 2, 0)
    );
    assert_eq!(counts.expired_presented, 0);
}
