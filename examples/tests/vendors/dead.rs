//! A pair that is dead, and what follows.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use crate::program::Sidecar;
use crate::rig::*;
use crate::vendors::{Double, Vendor};

const LONG: Duration = Duration::from_secs(600);

/// The first refusal is the vendor's own; from then on there is no token, and nobody is asked.
async fn ends_at_once<V: Vendor>(double: &Double<V>, sidecar: &Sidecar, class: &str, asked: u64) {
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    let before = double.counts().token_requests();
    double.kill_all();
    let (status, _) = sidecar.get("/business").await;
    assert!([StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN].contains(&status));
    for _ in 0..50 {
        assert_eq!(refused(sidecar).await, (StatusCode::BAD_GATEWAY, class.to_owned()));
    }
    let counts = double.counts();
    assert_eq!(counts.token_requests() - before, asked, "{counts:?}");
    assert_eq!(counts.expired_presented, 1, "{counts:?}");
    assert_eq!(sidecar.status("it").await["state"], "terminal");
}

/// Another is acquired, once, and the caller notices nothing.
async fn is_acquired_once<V: Vendor>(double: &Double<V>, sidecar: &Sidecar) {
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    let before = double.counts().acquisitions;
    double.kill_all();
    for _ in 0..20 {
        assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    }
    let counts = double.counts();
    assert_eq!(counts.acquisitions - before, 1, "{counts:?}");
}

#[tokio::test]
async fn a_dead_imm_pair_is_terminal_at_once_until_another_is_installed() {
    let imm = imm(LONG).await;
    let sidecar = imm_token(&imm).behind(&imm);
    ends_at_once(&imm, &sidecar, "terminal", 1).await;
    let pair = imm.issue();
    let credential = json!({ "access_token": pair.access, "refresh_token": pair.renew });
    let (installed, _) = sidecar
        .admin("POST", "/tokens/it/install", &credential.to_string())
        .await;
    assert_eq!(installed, StatusCode::NO_CONTENT);
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_dead_imm_pair_is_generated_anew_once() {
    let imm = imm(LONG).await;
    let sidecar = imm_token(&imm)
        .with("generate", json!({ "source_uri": "oss://b/o" }))
        .behind(&imm);
    is_acquired_once(&imm, &sidecar).await;
}

#[tokio::test]
async fn a_dead_login_needs_a_person_at_once() {
    let ecd = ecd(LONG).await;
    let sidecar = ecd_token(&ecd, "10m")
        .with("login_token", ecd.issue().access)
        .behind(&ecd);
    ends_at_once(&ecd, &sidecar, "needs_interaction", 1).await;
    let credential = json!({ "login_token": ecd.issue().access });
    sidecar
        .admin("POST", "/tokens/it/install", &credential.to_string())
        .await;
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_dead_login_with_a_dead_keep_alive_token_needs_a_person_at_once() {
    let ecd = ecd(LONG).await;
    let first = ecd.issue();
    let token = ecd_token(&ecd, "10m")
        .with("login_token", first.access)
        .with("keep_alive_token", first.renew);
    ends_at_once(&ecd, &token.behind(&ecd), "needs_interaction", 1).await;
}

#[tokio::test]
async fn a_revoked_login_is_had_again_by_its_keep_alive_token_once() {
    let ecd = ecd(LONG).await;
    let first = ecd.issue();
    let token = ecd_token(&ecd, "10m")
        .with("login_token", first.access)
        .with("keep_alive_token", first.renew);
    let sidecar = token.behind(&ecd);
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    ecd.revoke();
    for _ in 0..20 {
        assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    }
    assert_eq!(ecd.counts().token_requests(), 1);
}

#[tokio::test]
async fn a_dead_library_token_is_generated_anew_once_or_terminal_without_a_secret() {
    let smh = smh(LONG).await;
    let sidecar = smh_token(&smh).with("library_secret", smh_secret()).behind(&smh);
    is_acquired_once(&smh, &sidecar).await;
    let other = smh_token(&smh).with("access_token", smh.issue().access).behind(&smh);
    let before = smh.counts().expired_presented;
    assert_eq!(other.get("/business").await.0, StatusCode::OK);
    smh.kill_all();
    assert_eq!(other.get("/business").await.0, StatusCode::FORBIDDEN);
    for _ in 0..50 {
        assert_eq!(refused(&other).await, (StatusCode::BAD_GATEWAY, "terminal".into()));
    }
    assert_eq!(smh.counts().expired_presented - before, 1);
}

#[tokio::test]
async fn a_dead_oneaccess_grant_is_terminal_at_once() {
    let huawei = huawei(LONG).await;
    let token = huawei_token(&huawei, "huawei.oneaccess").with("refresh_token", huawei.issue().renew);
    ends_at_once(&huawei, &token.behind(&huawei), "terminal", 1).await;
}

#[tokio::test]
async fn a_403_that_is_not_about_the_token_is_the_callers_and_costs_nothing() {
    let smh = smh(LONG).await;
    let sidecar = smh_token(&smh).with("library_secret", smh_secret()).behind(&smh);
    assert_eq!(sidecar.get("/business").await.0, StatusCode::OK);
    let before = smh.counts().token_requests();
    for _ in 0..10 {
        let (status, body) = sidecar.get("/business/forbidden").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(body.contains("NoPermission"), "{body}");
    }
    assert_eq!(smh.counts().token_requests(), before);
}
