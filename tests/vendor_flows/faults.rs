//! What every fault of a vendor comes to, on a renewal and on an acquisition: what is said to the caller, how
//! often the vendor was asked, and what the next call does.

use std::pin::Pin;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::rig::{self, MILLISECOND, Rig, SECOND, join_all, rig, with};
use super::vendors::alibaba::{Ecd, EcdOptions, EcdVendor, Imm, ImmOptions, ImmVendor};
use super::vendors::huawei::{Huawei, HuaweiOptions, HuaweiVendor};
use super::vendors::tencent::{Smh, SmhOptions, SmhVendor};
use super::vendors::{Double, Fault, Vendor};

/// What a fault is about; the columns of the tables.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Throttled400,
    Throttled429,
    NoPermission,
    Dead,
    /// The answer is lost, and nothing was done.
    Lost,
    /// The answer is lost, and a token that is exchanged is spent.
    Done,
    /// It may work later, and nothing was done for certain.
    Later,
}

fn all() -> Vec<(Kind, Fault)> {
    let mut faults = vec![
        (
            Kind::Throttled400,
            Fault::Throttle400 {
                retry_after: 90_500 * MILLISECOND,
            },
        ),
        (
            Kind::Throttled429,
            Fault::Throttle429 {
                retry_after: 90 * SECOND,
            },
        ),
        (Kind::NoPermission, Fault::NoPermission403),
        (Kind::Dead, Fault::Token403),
    ];
    let lost = [
        Fault::EmptyToken200,
        Fault::MissingToken200,
        Fault::Status(200),
        Fault::Html200,
        Fault::Html502,
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(504),
        Fault::ResetBefore,
        Fault::Huge,
        Fault::Drip,
    ];
    let done = [Fault::LostAnswer, Fault::CutOff, Fault::Delay(3 * SECOND)];
    let later = [
        Fault::Redirect307,
        Fault::Unavailable503,
        Fault::Status(503),
        Fault::Status(302),
    ];
    faults.extend(lost.map(|fault| (Kind::Lost, fault)));
    faults.extend(done.map(|fault| (Kind::Done, fault)));
    faults.extend(later.map(|fault| (Kind::Later, fault)));
    faults
}

/// What is expected, in the order of [`Kind`].
type Row = [&'static str; 7];

fn expected(row: &Row, kind: Kind) -> &'static str {
    row[kind as usize]
}

/// A rig over a double of its own, which has this document.
type Making<'a, V> = Pin<Box<dyn Future<Output = (Double<V>, Value)> + 'a>>;

/// Each fault meets a double of its own, all at the same time; every row that is not as expected is named.
async fn table<V: Vendor>(
    row: Row,
    make: impl Fn() -> Making<'static, V>,
    drive: impl AsyncFn(&Double<V>, &Rig, &Fault) -> String,
) {
    let one = async |(kind, fault): (Kind, Fault)| {
        let (double, document) = make().await;
        let hurry = if is_slow(&fault) { "1500ms" } else { "30s" };
        let hurry = rig::policy(json!({ "fetch_timeout": hurry, "keep_alive": false }));
        let rig = rig(&double, with(document, hurry));
        let found = drive(&double, &rig, &fault).await;
        let counts = double.counts();
        let sound = (counts.redirect_hits, counts.nonce_reused, counts.signature_failures);
        assert_eq!((sound, counts.max_in_flight), ((0, 0, 0), 1), "{fault:?}");
        (found != expected(&row, kind)).then(|| format!("{fault:?}: {found:?} for {:?}", expected(&row, kind)))
    };
    // Setting up so many clients takes its time, which must not count for those with a short timeout.
    let (slow, quick): (Vec<_>, Vec<_>) = all().into_iter().partition(|(_, fault)| is_slow(fault));
    let mut wrong = join_all(quick.into_iter().map(&one)).await;
    wrong.extend(join_all(slow.into_iter().map(&one)).await);
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Only a timeout ends it.
fn is_slow(fault: &Fault) -> bool {
    matches!(fault, Fault::Drip | Fault::Delay(_))
}

/// How often the vendor is asked for what is said.
async fn asked<V: Vendor>(double: &Double<V>, what: impl Future<Output = String>) -> String {
    let before = double.counts().token_requests();
    let said = what.await;
    format!("{said} x{}", double.counts().token_requests() - before)
}

/// Where the vendor says no time, it is a second, and a request within it is told so.
async fn next<V: Vendor>(double: &Double<V>, rig: &Rig) -> String {
    let next = asked(double, rig.says()).await;
    if next != "throttled soon x0" {
        return next;
    }
    sleep(1_300 * MILLISECOND).await;
    asked(double, rig.says()).await
}

/// A token is in place and good. A renewal meets the fault, however often it asks; the token in place serves on;
/// the next renewal meets no fault.
async fn renewal<V: Vendor>(double: &Double<V>, rig: &Rig, fault: &Fault) -> String {
    assert_eq!(rig.says().await, "200");
    let generation = rig.generation();
    for _ in 0..4 {
        double.fault(fault.clone());
    }
    let met = asked(double, rig.refreshed()).await;
    assert_eq!(
        rig.generation(),
        generation,
        "{fault:?}: a failure replaced a valid token"
    );
    double.no_more_faults();
    let business = asked(double, rig.says()).await;
    assert_eq!(business, "200 x0", "{fault:?}: a valid token does not serve on");
    format!("{met}, {}", asked(double, rig.refreshed()).await)
}

/// There is no token. A business request meets the fault; the next meets none.
async fn acquisition<V: Vendor>(double: &Double<V>, rig: &Rig, fault: &Fault) -> String {
    for _ in 0..4 {
        double.fault(fault.clone());
    }
    let met = asked(double, rig.says()).await;
    double.no_more_faults();
    format!("{met}, {}", next(double, rig).await)
}

/// The token in place was revoked. The refused request gets its own refusal; the next meets no fault.
async fn refused<V: Vendor>(double: &Double<V>, rig: &Rig, fault: &Fault) -> String {
    assert_eq!(rig.says().await, "200");
    double.revoke();
    for _ in 0..4 {
        double.fault(fault.clone());
    }
    let met = asked(double, rig.says()).await;
    double.no_more_faults();
    format!("{met}, {}", next(double, rig).await)
}

// ===== Renewals =====

/// The old token serves on for a while wherever a renewal replaces it: here it is about the renewal.
const GRACE: std::time::Duration = std::time::Duration::from_secs(60);

async fn an_imm() -> Imm {
    let options = ImmOptions {
        old_access_grace: GRACE,
        ..ImmOptions::default()
    };
    Imm::start(options).await
}

async fn an_ecd() -> Ecd {
    let options = EcdOptions {
        old_login_grace: GRACE,
        ..EcdOptions::default()
    };
    Ecd::start(options).await
}

async fn an_smh() -> Smh {
    let options = SmhOptions {
        old_access_grace: GRACE,
        ..SmhOptions::default()
    };
    Smh::start(options).await
}

async fn a_huawei() -> Huawei {
    let options = HuaweiOptions {
        old_access_grace: GRACE,
        ..HuaweiOptions::default()
    };
    Huawei::start(options).await
}

fn imm_with_a_pair() -> Making<'static, ImmVendor> {
    Box::pin(async {
        let double = an_imm().await;
        let document = with(rig::imm(&double), rig::pair(&double.issue()));
        (double, document)
    })
}

fn imm_with_both() -> Making<'static, ImmVendor> {
    Box::pin(async {
        let (double, document) = imm_with_a_pair().await;
        (double, with(document, rig::generate()))
    })
}

fn ecd_with_a_login() -> Making<'static, EcdVendor> {
    Box::pin(async {
        let double = an_ecd().await;
        let document = with(rig::ecd(&double), rig::login(&double.issue()));
        (double, document)
    })
}

fn ecd_with_both() -> Making<'static, EcdVendor> {
    Box::pin(async {
        let (double, document) = ecd_with_a_login().await;
        let live = double.now_serving().remove(0);
        (double, with(document, rig::keep_alive(&live)))
    })
}

fn smh_with_a_token() -> Making<'static, SmhVendor> {
    Box::pin(async {
        let double = an_smh().await;
        let document = with(rig::smh(&double), rig::access(&double.issue()));
        (double, document)
    })
}

fn smh_with_both() -> Making<'static, SmhVendor> {
    Box::pin(async {
        let (double, document) = smh_with_a_token().await;
        (double, with(document, rig::library_secret()))
    })
}

fn one_access_with_a_refresh_token() -> Making<'static, HuaweiVendor> {
    Box::pin(async {
        let double = a_huawei().await;
        let document = with(rig::one_access(&double), rig::refresh(&double.issue()));
        (double, document)
    })
}

#[tokio::test]
async fn a_renewal_that_rotates_is_presented_twice_if_its_answer_is_lost_and_else_once() {
    let imm = [
        "throttled 90 x1, renewed x1",
        "throttled 90 x1, renewed x1",
        "config x1, renewed x1",
        "terminal x1, renewed x1",
        "ambiguous x2, renewed x1",
        "ambiguous x2, terminal x1",
        "transient x1, renewed x1",
    ];
    let ecd = [
        "throttled 90 x1, renewed x1",
        "throttled 90 x1, renewed x1",
        "config x1, renewed x1",
        "needs interaction x1, renewed x1",
        "ambiguous x2, renewed x1",
        "ambiguous x2, needs interaction x1",
        "transient x1, renewed x1",
    ];
    let one_access = [
        "transient x1, renewed x1",
        "throttled 90 x1, renewed x1",
        "terminal x1, renewed x1",
        "terminal x1, renewed x1",
        "ambiguous x2, renewed x1",
        "ambiguous x2, terminal x1",
        "transient x1, renewed x1",
    ];
    tokio::join!(
        table(imm, imm_with_a_pair, renewal),
        table(ecd, ecd_with_a_login, renewal),
        table(one_access, one_access_with_a_refresh_token, renewal),
    );
}

/// Where it is dead, it is acquired anew in the same fetch.
#[tokio::test]
async fn a_renewal_falls_back_to_an_acquisition_on_a_verdict_and_on_nothing_else() {
    let imm = [
        "throttled 90 x1, renewed x1",
        "throttled 90 x1, renewed x1",
        "config x1, renewed x1",
        "terminal x2, renewed x1",
        "ambiguous x2, renewed x1",
        "ambiguous x2, renewed x2",
        "transient x1, renewed x1",
    ];
    let ecd = [
        "throttled 90 x1, renewed x1",
        "throttled 90 x1, renewed x1",
        "config x1, renewed x1",
        "needs interaction x2, renewed x1",
        "ambiguous x2, renewed x1",
        "ambiguous x2, renewed x2",
        "transient x1, renewed x1",
    ];
    tokio::join!(table(imm, imm_with_both, renewal), table(ecd, ecd_with_both, renewal),);
}

#[tokio::test]
async fn a_renewal_of_a_token_with_itself_is_asked_for_once_whatever_becomes_of_it() {
    let without = [
        "throttled soon x1, renewed x1",
        "throttled 90 x1, renewed x1",
        "config x1, renewed x1",
        "terminal x1, renewed x1",
        "transient x1, renewed x1",
        "transient x1, terminal x1",
        "transient x1, renewed x1",
    ];
    let secret = [
        "throttled soon x1, renewed x1",
        "throttled 90 x1, renewed x1",
        "config x1, renewed x1",
        "terminal x2, renewed x1",
        "transient x1, renewed x1",
        "transient x1, renewed x2",
        "transient x1, renewed x1",
    ];
    tokio::join!(
        table(without, smh_with_a_token, renewal),
        table(secret, smh_with_both, renewal),
    );
}

// ===== Refusals =====

#[tokio::test]
async fn a_refused_request_gets_its_own_refusal_where_the_renewal_fails_and_later_ones_the_error() {
    let imm = [
        "401 x1, throttled 90 x0",
        "401 x1, throttled 90 x0",
        "401 x1, config x0",
        "401 x1, terminal x0",
        "401 x2, ambiguous x0",
        "401 x2, ambiguous x0",
        "401 x1, 200 x1",
    ];
    let one_access = [
        "401 x1, 200 x1",
        "401 x1, throttled 90 x0",
        "401 x1, terminal x0",
        "401 x1, terminal x0",
        "401 x2, ambiguous x0",
        "401 x2, ambiguous x0",
        "401 x1, 200 x1",
    ];
    // Dead as soon as it is refused: generated at once.
    let smh = [
        "403 x1, 200 x1",
        "403 x1, throttled 90 x0",
        "403 x1, config x0",
        "403 x1, terminal x0",
        "403 x1, 200 x1",
        "403 x1, 200 x1",
        "403 x1, 200 x1",
    ];
    tokio::join!(
        table(imm, imm_with_a_pair, refused),
        table(one_access, one_access_with_a_refresh_token, refused),
        table(smh, smh_with_both, refused),
    );
}

// ===== Acquisitions =====

/// Acquiring spends nothing, so that no answer is lost for good; only a code of OneAccess is good for one use.
#[tokio::test]
async fn an_acquisition_is_asked_for_once_and_again_with_the_next_request() {
    let imm = [
        "throttled 90 x1, throttled 90 x0",
        "throttled 90 x1, throttled 90 x0",
        "config x1, config x0",
        "terminal x1, terminal x0",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
    ];
    let ecd = [
        "throttled 90 x1, throttled 90 x0",
        "throttled 90 x1, throttled 90 x0",
        "config x1, config x0",
        "needs interaction x1, needs interaction x0",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
    ];
    let smh = [
        "throttled soon x1, 200 x1",
        "throttled 90 x1, throttled 90 x0",
        "config x1, config x0",
        "terminal x1, terminal x0",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
    ];
    let tenant = [
        // "System busy" comes with a code that is not documented, and 400.
        "terminal x1, terminal x0",
        "throttled 90 x1, throttled 90 x0",
        "terminal x1, terminal x0",
        "terminal x1, terminal x0",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
        "transient x1, 200 x1",
    ];
    let code = [
        "transient x1, 200 x1",
        "throttled 90 x1, throttled 90 x0",
        "terminal x1, terminal x0",
        "terminal x1, terminal x0",
        "ambiguous x2, ambiguous x0",
        "ambiguous x2, ambiguous x0",
        "transient x1, 200 x1",
    ];
    tokio::join!(
        table(
            imm,
            || Box::pin(async {
                let double = an_imm().await;
                let document = with(rig::imm(&double), rig::generate());
                (double, document)
            }),
            acquisition
        ),
        table(
            ecd,
            || Box::pin(async {
                let double = an_ecd().await;
                let document = with(rig::ecd(&double), rig::keep_alive(&double.issue()));
                (double, document)
            }),
            acquisition
        ),
        table(
            smh,
            || Box::pin(async {
                let double = an_smh().await;
                let document = with(rig::smh(&double), rig::library_secret());
                (double, document)
            }),
            acquisition
        ),
        table(
            tenant,
            || Box::pin(async {
                let double = a_huawei().await;
                let document = rig::tenant(&double);
                (double, document)
            }),
            acquisition
        ),
        table(
            code,
            || Box::pin(async {
                let double = a_huawei().await;
                let document = with(rig::one_access(&double), rig::code(&double));
                (double, document)
            }),
            acquisition
        ),
    );
}
