//! Two hundred callers at once, over five expiries and one revocation.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::program::{Sidecar, get, http1};
use crate::rig::*;
use crate::vendors::{Counts, Double, Vendor};

const CALLERS: usize = 200;
/// A token is renewed at three quarters of its life.
const EXPIRY: Duration = Duration::from_millis(750);

/// One herd at a time: five of them would be a test of the machine.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Returns what the double counted, once nobody failed.
async fn over_five_expiries_and_a_revocation<V: Vendor>(double: &Double<V>, token: Token) -> Counts {
    let _alone = ALONE.lock().await;
    let sidecar = token.behind(double);
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
                tokio::time::sleep(Duration::from_millis(250)).await;
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
    let imm = imm(LIFE).await;
    let in_a_second = std::time::SystemTime::now() + LIFE;
    let at = jiff::Timestamp::try_from(in_a_second).unwrap().to_string();
    let counts = over_five_expiries_and_a_revocation(&imm, imm_token(&imm).with("expires_at", at)).await;
    assert!(one_for_each(counts.renewals), "{counts:?}");
    assert_eq!((counts.acquisitions, counts.refused), (0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecd_logins_are_renewed_once_an_expiry_and_had_again_after_a_revocation() {
    let ecd = ecd(LIFE).await;
    let first = ecd.issue();
    let token = ecd_token(&ecd, "1s").with("login_token", first.access);
    let counts = over_five_expiries_and_a_revocation(&ecd, token.with("keep_alive_token", first.renew)).await;
    // Not renewed, because a refused login token is dead.
    assert_eq!((counts.acquisitions, counts.refused), (1, 0), "{counts:?}");
    assert!(one_for_each(counts.renewals + counts.acquisitions), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smh_tokens_are_renewed_once_an_expiry_and_generated_after_a_revocation() {
    let smh = smh(LIFE).await;
    let counts = over_five_expiries_and_a_revocation(&smh, smh_token(&smh).with("library_secret", smh_secret())).await;
    assert_eq!((counts.acquisitions, counts.refused), (2, 0), "{counts:?}");
    // The first was generated.
    assert!(one_for_each(counts.renewals + 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oneaccess_tokens_are_renewed_once_an_expiry() {
    let huawei = huawei(LIFE).await;
    let token = huawei_token(&huawei, "huawei.oneaccess").with("refresh_token", huawei.issue().renew);
    let counts = over_five_expiries_and_a_revocation(&huawei, token).await;
    // The first fetch is a renewal too.
    assert!(one_for_each(counts.renewals - 1), "{counts:?}");
    assert_eq!((counts.acquisitions, counts.refused), (0, 0), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenant_tokens_are_acquired_once_an_expiry() {
    let huawei = huawei(LIFE).await;
    let counts = over_five_expiries_and_a_revocation(&huawei, huawei_token(&huawei, "huawei.tenant")).await;
    assert!(one_for_each(counts.acquisitions - 1), "{counts:?}");
    assert_eq!(counts.refused, 0, "{counts:?}");
}
