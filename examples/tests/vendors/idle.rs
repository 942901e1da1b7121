//! Tokens that die unless they are renewed, and nobody asks for them.

use http::StatusCode;
use tokio::time::sleep;

use crate::rig::*;

#[tokio::test]
async fn an_idle_login_is_alive_after_three_of_its_lives() {
    let ecd = ecd(LIFE).await;
    let sidecar = ecd_token(&ecd, "1s")
        .with("login_token", ecd.issue().access)
        .behind(&ecd);
    sleep(LIFE * 3 + LIFE / 2).await;
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    let counts = ecd.counts();
    assert_eq!(
        (counts.acquisitions, counts.refused, counts.business_refused),
        (0, 0, 0),
        "{counts:?}"
    );
    assert!((3..=6).contains(&counts.renewals), "{counts:?}");
}

#[tokio::test]
async fn an_idle_library_token_is_alive_after_three_of_its_lives() {
    let smh = smh(LIFE).await;
    let first = smh.issue().access;
    let sidecar = smh_token(&smh)
        .with("access_token", first)
        .with("period", "1s")
        .behind(&smh);
    sleep(LIFE * 3 + LIFE / 2).await;
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    let counts = smh.counts();
    assert_eq!(
        (counts.acquisitions, counts.refused, counts.business_refused),
        (0, 0, 0),
        "{counts:?}"
    );
    assert!((3..=6).contains(&counts.renewals), "{counts:?}");
}

#[tokio::test]
async fn a_library_token_that_was_never_there_is_generated_without_traffic_and_kept() {
    let smh = smh(LIFE).await;
    let sidecar = smh_token(&smh).with("library_secret", smh_secret()).behind(&smh);
    sleep(LIFE * 2).await;
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    let counts = smh.counts();
    assert_eq!((counts.acquisitions, counts.business_refused), (1, 0), "{counts:?}");
    assert!(counts.renewals >= 1, "{counts:?}");
}

#[tokio::test]
async fn nothing_else_is_fetched_before_somebody_asks() {
    let huawei = huawei(LIFE).await;
    let token = huawei_token(&huawei, "huawei.oneaccess").with("refresh_token", huawei.issue().renew);
    let sidecar = token.behind(&huawei);
    sleep(LIFE / 4).await;
    assert_eq!(huawei.counts().token_requests(), 0);
    assert_eq!(sidecar.status("it").await["state"], "none");
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    sleep(LIFE * 2).await;
    assert_eq!(huawei.counts().token_requests(), 1, "kept alive unasked");
}
