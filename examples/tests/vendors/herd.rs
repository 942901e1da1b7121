//! Two hundred callers at once, over five expiries and one revocation.
//!
//! An expiry is one exchange where a token that was replaced serves on for a moment. Where it dies at once, a request
//! that was on its way with it may be refused before its successor has landed, and then there is a second exchange:
//! whether the token in the air died as well is known to nobody.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::program::{Sidecar, get, http1};
use crate::rig::{Token, ecd_token, huawei_token, imm_token, smh_secret, smh_token};
use crate::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use crate::vendors::huawei::{Huawei, HuaweiOptions};
use crate::vendors::tencent::{Smh, SmhOptions};
use crate::vendors::{Counts, Double, Vendor};

const CALLERS: usize = 200;
/// As long as that a machine which stands still for a second lets no token die that was to be renewed.
const LIFE: Duration = Duration::from_secs(3);
const IN_SECONDS: &str = "3s";
/// A token is renewed at half of its life.
const EXPIRY: Duration = Duration::from_millis(1500);
const WINDOW: &str = "1500ms";
/// How long a replaced token serves on: longer than any request is on its way.
const GRACE: Duration = Duration::from_millis(500);

/// Two herds at a time: five of them would be a test of the machine.
static ROOM: Semaphore = Semaphore::const_new(2);

/// To be had before a double issues anything, because lives begin then.
async fn room() -> SemaphorePermit<'static> {
    ROOM.acquire().await.unwrap()
}

/// Returns what the double counted, once nobody failed.
async fn over_five_expiries_and_a_revocation<V: Vendor>(double: &Double<V>, token: Token) -> Counts {
    let sidecar = token.renewed_before_its_end_by(WINDOW).behind(double);
    let begin = Instant::now();
    // The first token, whether configured or fetched, is over once; then four more, and what the revocation brought.
    let end = begin + EXPIRY * 5 + EXPIRY / 2;
    let mut callers = JoinSet::new();
    let client = http1();
    for _ in 0..CALLERS {
        let (client, url) = (client.clone(), sidecar.url("/business"));
        callers.spawn(async move {
            let (mut calls, mut failures) = (0_u32, Vec::new());
            while Instant::now() < end {
                match client.request(get(&url)).await {
                    Ok(answer) if answer.status() == StatusCode::OK => {}
                    other => failures.push(format!("{other:?}")),
                }
                calls += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            (calls, failures)
        });
    }
    tokio::time::sleep_until((begin + EXPIRY * 2 + EXPIRY / 3).into()).await;
    double.revoke();
    let mut calls = 0;
    for (called, failures) in callers.join_all().await {
        assert_eq!(failures, Vec::<String>::new());
        // Each was there in each of five lives, however slow the machine is.
        assert!(called >= 5, "{called}");
        calls += called;
    }
    let counts = double.counts();
    assert_eq!((counts.presented_twice, counts.max_in_flight), (0, 1), "{counts:?}");
    assert_eq!((counts.nonce_reused, counts.signature_failures), (0, 0), "{counts:?}");
    assert_eq!(counts.unknown_parameters, 0, "{counts:?}");
    let fetches = exchanges(&sidecar).await;
    println!("{calls} calls, {fetches} exchanges: {counts:?}");
    assert_eq!(
        fetches,
        counts.token_requests(),
        "the sidecar counts as the vendor does"
    );
    counts
}

async fn exchanges(sidecar: &Sidecar) -> u64 {
    sidecar.status("it").await["fetches"].as_u64().unwrap()
}

/// One for each of five expiries, and one for the revocation, which also begins a new life. A slow machine
/// may be one short or one over, because lives begin when they are asked for.
fn one_for_each(count: u64) -> bool {
    (5..=7).contains(&count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imm_pairs_are_renewed_once_an_expiry() {
    let _room = room().await;
    let imm = Imm::start(ImmOptions {
        access_lifetime: LIFE,
        old_access_grace: GRACE,
        ..ImmOptions::default()
    })
    .await;
    let end = std::time::SystemTime::now() + LIFE;
    let at = jiff::Timestamp::try_from(end).unwrap().to_string();
    let counts = over_five_expiries_and_a_revocation(&imm, imm_token(&imm).with("expires_at", at)).await;
    assert!(one_for_each(counts.renewals), "{counts:?}");
    assert_eq!((counts.acquisitions, counts.refused), (0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecd_logins_are_renewed_once_an_expiry_and_had_again_after_a_revocation() {
    let _room = room().await;
    let ecd = Ecd::start(EcdOptions {
        login_lifetime: LIFE,
        old_login_grace: GRACE,
        ..EcdOptions::default()
    })
    .await;
    let first = ecd.issue();
    let token = ecd_token(&ecd, IN_SECONDS).with("login_token", first.access);
    let counts = over_five_expiries_and_a_revocation(&ecd, token.with("keep_alive_token", first.renew)).await;
    // Not renewed, because a refused login token is dead.
    assert_eq!((counts.acquisitions, counts.refused), (1, 0), "{counts:?}");
    assert!(one_for_each(counts.renewals + counts.acquisitions), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smh_tokens_are_renewed_once_an_expiry_and_generated_after_a_revocation() {
    let _room = room().await;
    let smh = Smh::start(SmhOptions {
        lifetime: Some(LIFE),
        sliding: false,
        old_access_grace: GRACE,
        ..SmhOptions::default()
    })
    .await;
    let counts = over_five_expiries_and_a_revocation(&smh, smh_token(&smh).with("library_secret", smh_secret())).await;
    assert_eq!((counts.acquisitions, counts.refused), (2, 0), "{counts:?}");
    // The first was generated.
    assert!(one_for_each(counts.renewals + 1), "{counts:?}");
}

async fn huawei(old_access_grace: Duration) -> Huawei {
    Huawei::start(HuaweiOptions {
        access_lifetime: LIFE,
        tenant_lifetime: LIFE,
        old_access_grace,
        ..HuaweiOptions::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oneaccess_tokens_are_renewed_once_an_expiry() {
    let _room = room().await;
    let huawei = huawei(GRACE).await;
    let token = huawei_token(&huawei, "huawei.oneaccess").with("refresh_token", huawei.issue().renew);
    let counts = over_five_expiries_and_a_revocation(&huawei, token).await;
    // The first fetch is a renewal too.
    assert!(one_for_each(counts.renewals - 1), "{counts:?}");
    assert_eq!((counts.acquisitions, counts.refused), (0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oneaccess_tokens_that_die_when_they_are_replaced_cost_two_renewals_an_expiry_at_most() {
    let _room = room().await;
    let huawei = huawei(Duration::ZERO).await;
    let token = huawei_token(&huawei, "huawei.oneaccess").with("refresh_token", huawei.issue().renew);
    let counts = over_five_expiries_and_a_revocation(&huawei, token).await;
    assert!((6..=1 + 2 * 6).contains(&counts.renewals), "{counts:?}");
    assert_eq!((counts.acquisitions, counts.refused), (0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenant_tokens_are_acquired_once_an_expiry() {
    let _room = room().await;
    let huawei = huawei(Duration::ZERO).await;
    let counts = over_five_expiries_and_a_revocation(&huawei, huawei_token(&huawei, "huawei.tenant")).await;
    assert!(one_for_each(counts.acquisitions - 1), "{counts:?}");
    assert_eq!(counts.refused, 0, "{counts:?}");
}
