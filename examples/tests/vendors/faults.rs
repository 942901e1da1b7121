//! What a caller sees of each fault of a vendor, and how often the vendor was asked.
//!
//! The pair is dead from the start, so that the first call needs a renewal; each fault takes one request.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::program::{get, http1};
use crate::rig::*;
use crate::vendors::Fault;

const LONG: Duration = Duration::from_secs(600);

/// A fault, what the caller then sees (a status and a class), and how many requests the vendor had.
type Row = (Fault, u16, &'static str, u64);

fn throttled() -> [Fault; 2] {
    let retry_after = Duration::from_millis(1500);
    [Fault::Throttle400 { retry_after }, Fault::Throttle429 { retry_after }]
}

/// On the renewal of a pair that rotates: what may have been carried out is asked for once more.
#[tokio::test]
async fn each_fault_of_a_rotating_renewal_ends_as_the_table_says() {
    let [coded, by_status] = throttled();
    let rows: [Row; 14] = [
        (coded, 503, "throttled", 1),
        (by_status, 503, "throttled", 1),
        (Fault::NoPermission403, 502, "config", 1),
        (Fault::Token403, 502, "terminal", 1),
        (Fault::EmptyToken200, 200, "", 2),
        (Fault::MissingToken200, 200, "", 2),
        (Fault::Html200, 200, "", 2),
        (Fault::Html502, 200, "", 2),
        (Fault::ResetBefore, 200, "", 2),
        (Fault::Huge, 200, "", 2),
        (Fault::Drip, 200, "", 2),
        (Fault::Redirect307, 502, "transient", 1),
        (Fault::Unavailable503, 502, "transient", 1),
        // It was carried out: the second presentation is of a pair that is spent, and the vendor says so.
        (Fault::LostAnswer, 502, "terminal", 2),
    ];
    for (fault, status, class, asked) in rows {
        let imm = imm(LONG).await;
        imm.fault(fault.clone());
        let sidecar = dead_imm_token(&imm).behind(&imm);
        assert_eq!(
            refused(&sidecar).await,
            (StatusCode::from_u16(status).unwrap(), class.to_owned()),
            "{fault:?}"
        );
        let counts = imm.counts();
        assert_eq!(counts.token_requests(), asked, "{fault:?}");
        assert_eq!((counts.redirect_hits, counts.nonce_reused), (0, 0), "{fault:?}");
        assert_eq!(sidecar.status("it").await["fetches"], asked, "{fault:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_of_a_rotating_renewal_is_acquired_anew_within_three_exchanges() {
    let imm = imm(LONG).await;
    imm.fault(Fault::LostAnswer);
    let sidecar = dead_imm_token(&imm)
        .with("generate", json!({ "source_uri": "oss://b/o" }))
        .behind(&imm);
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    let counts = imm.counts();
    assert_eq!((counts.token_requests(), counts.acquisitions), (3, 1), "{counts:?}");
}

/// Two losses in a row: nobody knows whether the pair is spent, and it is presented once a minute from then on.
#[tokio::test]
async fn a_renewal_that_is_lost_twice_is_ambiguous_and_no_storm() {
    let imm = imm(LONG).await;
    imm.fault(Fault::Html502).fault(Fault::ResetBefore);
    let sidecar = dead_imm_token(&imm).behind(&imm);
    for _ in 0..50 {
        assert_eq!(refused(&sidecar).await, (StatusCode::BAD_GATEWAY, "ambiguous".into()));
    }
    assert_eq!(imm.counts().token_requests(), 2);
}

/// Generating does no harm twice, so that a lost answer is one more transient failure.
#[tokio::test]
async fn each_fault_of_an_acquisition_ends_as_the_table_says() {
    let [_, by_status] = throttled();
    let rows: [Row; 12] = [
        (by_status, 503, "throttled", 1),
        (Fault::NoPermission403, 502, "config", 1),
        (Fault::Token403, 502, "terminal", 1),
        (Fault::EmptyToken200, 502, "transient", 1),
        (Fault::MissingToken200, 502, "transient", 1),
        (Fault::Html200, 502, "transient", 1),
        (Fault::Html502, 502, "transient", 1),
        (Fault::LostAnswer, 502, "transient", 1),
        (Fault::Huge, 502, "transient", 1),
        (Fault::Drip, 502, "transient", 1),
        (Fault::Redirect307, 502, "transient", 1),
        (Fault::Unavailable503, 502, "transient", 1),
    ];
    for (fault, status, class, asked) in rows {
        let smh = smh(LONG).await;
        smh.fault(fault.clone());
        let sidecar = smh_token(&smh).with("library_secret", smh_secret()).lazy().behind(&smh);
        assert_eq!(
            refused(&sidecar).await,
            (StatusCode::from_u16(status).unwrap(), class.to_owned()),
            "{fault:?}"
        );
        let counts = smh.counts();
        assert_eq!((counts.token_requests(), counts.redirect_hits), (asked, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn throttling_says_when_to_come_again_and_is_obeyed() {
    let imm = imm(LONG).await;
    let [coded, _] = throttled();
    imm.fault(coded);
    let sidecar = dead_imm_token(&imm).behind(&imm);
    for _ in 0..20 {
        let response = http1().request(get(&sidecar.url("/business"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait), "{wait}");
    }
    assert_eq!(imm.counts().token_requests(), 1);
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    assert_eq!(imm.counts().token_requests(), 2);
}

/// A good token is never replaced by a failure.
#[tokio::test]
async fn a_fault_of_an_early_renewal_is_nothing_to_callers() {
    for fault in [
        Fault::Token403,
        Fault::NoPermission403,
        Fault::Html502,
        Fault::Unavailable503,
    ] {
        let smh = smh(LONG).await;
        let sidecar = smh_token(&smh)
            .with("access_token", smh.issue().access)
            .lazy()
            .behind(&smh);
        smh.fault(fault.clone());
        let (status, body) = sidecar.admin("POST", "/tokens/it/refresh", "").await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
        for _ in 0..10 {
            assert_eq!(sidecar.get("/business").await.0, StatusCode::OK, "{fault:?}");
        }
        assert_eq!(smh.counts().token_requests(), 1, "{fault:?}");
    }
}
