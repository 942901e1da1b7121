//! What each vendor's token is, in a file: a sidecar that is started again goes on with it.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;

use crate::program::Sidecar;
use crate::rig::*;
use crate::vendors::{Double, Vendor};

const LONG: Duration = Duration::from_secs(600);

async fn goes_on<V: Vendor>(double: &Double<V>, token: Token) {
    let folder = TempDir::new().unwrap();
    let mut token = token.lazy().document;
    token["store"] = json!({ "file": { "path": folder.path().join("token.json") } });
    let file = json!({
        "tokens": { "it": token },
        "routes": [{ "prefix": "/", "upstream": double.url(), "token": "it" }],
    });
    let mut first = Sidecar::start(&file);
    assert_eq!(first.get("/business").await.0, StatusCode::OK);
    // From here on what was configured is used up, where it is good for one use.
    let (status, body) = first.admin("POST", "/tokens/it/refresh", "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    first.signal("-TERM");
    first.ended().await;

    let asked = double.counts().token_requests();
    let next = Sidecar::start(&file);
    assert_eq!(next.get("/business").await.0, StatusCode::OK, "{}", next.said());
    assert_eq!(double.counts().token_requests(), asked);
    assert_eq!(next.status("it").await["fetches"], 0);
    let (status, body) = next.admin("POST", "/tokens/it/refresh", "").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let counts = double.counts();
    assert_eq!(
        (counts.refused, counts.expired_presented, counts.business_refused),
        (0, 0, 0),
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_pair_of_imm_outlives_the_sidecar() {
    let imm = imm(LONG).await;
    goes_on(&imm, imm_token(&imm)).await;
}

#[tokio::test]
async fn a_login_outlives_the_sidecar() {
    let ecd = ecd(LONG).await;
    let token = ecd_token(&ecd, "10m").with("login_token", ecd.issue().access);
    goes_on(&ecd, token).await;
}

#[tokio::test]
async fn a_library_token_outlives_the_sidecar() {
    let smh = smh(LONG).await;
    goes_on(&smh, smh_token(&smh).with("library_secret", smh_secret())).await;
    let first = smh.issue().access;
    goes_on(&smh, smh_token(&smh).with("access_token", first)).await;
}

#[tokio::test]
async fn a_persons_token_outlives_the_sidecar() {
    let huawei = huawei(LONG).await;
    let token = huawei_token(&huawei, "huawei.oneaccess").with("refresh_token", huawei.issue().renew);
    goes_on(&huawei, token).await;
}

#[tokio::test]
async fn an_applications_token_outlives_the_sidecar() {
    let huawei = huawei(LONG).await;
    goes_on(&huawei, huawei_token(&huawei, "huawei.tenant")).await;
}
