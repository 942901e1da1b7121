//! Many at once, over expiries and a revocation.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::program::{Login, Sidecar, get, http1, http2};
use crate::upstream::Upstream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_callers_notice_neither_expiries_nor_a_revocation() {
    let login = Login::new().await;
    login.issuer.lifetime(Duration::from_secs(1));
    let upstream = Upstream::of(&login.issuer).await;
    let mut user = login.user();
    // The window is clamped to a quarter of the life; no early renewal, so that each expiry is one.
    user["policy"] = json!({ "refresh_before": "250ms", "require_before": "250ms", "jitter": 0.0 });
    let sidecar = Sidecar::start(&json!({
        "tokens": { "user": user },
        "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "user" }],
    }));
    let end = Instant::now() + Duration::from_millis(750 * 5 + 500);
    let mut callers = JoinSet::new();
    for index in 0..200 {
        let client = if index % 2 == 0 { http1() } else { http2() };
        let url = sidecar.url("/x");
        callers.spawn(async move {
            let mut failures = 0;
            while Instant::now() < end {
                let status = client.request(get(&url)).await.map(|answer| answer.status());
                failures += usize::from(!status.is_ok_and(|status| status == StatusCode::OK));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            failures
        });
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    login.issuer.revoke_access();
    let failures: usize = callers.join_all().await.into_iter().sum();
    assert_eq!(failures, 0);
    let counts = login.issuer.counts();
    // One for each of at least 5 expiries, one at first, one for the revocation, and none beside.
    assert!((6..=8).contains(&counts.token_requests), "{counts:?}");
    assert_eq!((counts.presented_twice, counts.max_in_flight_per_grant), (0, 1));
    assert!(sidecar.status("user").await["replays"].as_u64().unwrap() > 0);
}
