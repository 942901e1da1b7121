//! Faults come as they are named, one for each token request, at every vendor.

use std::io;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{Call, Rpc, is};
use super::ecd;
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{Huawei, HuaweiOptions};
use super::vendors::tencent::{Smh, SmhOptions};
use super::vendors::{Double, Fault, Vendor};

const SECOND: Duration = Duration::from_secs(1);

/// Renews what the double serves now.
fn imm_call(imm: &Imm) -> Call {
    let live = imm.now_serving().remove(0);
    let refresh = live.renew.unwrap();
    let query = [
        ("AccessToken", &*live.access),
        ("ProjectName", "test-project"),
        ("RefreshToken", &*refresh),
    ];
    Rpc::new(&imm.url(), "RefreshWebofficeToken", "2020-09-30", &query).sign()
}

fn smh_call(_: &Smh) -> Call {
    let options = SmhOptions::default();
    let query = [
        ("library_id", &*options.library_id),
        ("library_secret", &*options.library_secret),
    ];
    Call::new("GET", "/api/v1/token").query(&query)
}

fn huawei_call(_: &Huawei) -> Call {
    let options = HuaweiOptions::default();
    Call::new("POST", "/api/v2/tenant/token").form(&[
        ("grant_type", "client_credentials"),
        ("client_id", &options.client_id),
        ("client_secret", &options.client_secret),
    ])
}

/// Every fault that ends in an answer: its status. None of them may change a token.
async fn answers<V: Vendor>(double: &Double<V>, call: impl Fn(&Double<V>) -> Call) -> Vec<(u16, String)> {
    double.issue();
    let before = double.now_serving();
    let after = |retry_after| (Fault::Throttle400 { retry_after }, Fault::Throttle429 { retry_after });
    let (throttle400, throttle429) = after(2 * SECOND);
    double.fault(throttle400).fault(throttle429);
    double.fault(Fault::NoPermission403).fault(Fault::Token403);
    double
        .fault(Fault::Unavailable503)
        .fault(Fault::EmptyToken200)
        .fault(Fault::MissingToken200);
    double
        .fault(Fault::Html502)
        .fault(Fault::Html200)
        .fault(Fault::Redirect307);
    let mut refusals = Vec::new();
    for nth in 0..10 {
        let heard = call(double).send(&double.url()).await;
        match nth {
            1 => assert_eq!(heard.header("retry-after"), "2"),
            5 | 6 => {
                let names = ["AccessToken", "LoginToken", "accessToken", "access_token"];
                let tokens = names.map(|name| heard.json().get(name).cloned());
                let empty = tokens.iter().flatten().filter(|token| **token == "").count();
                assert_eq!((empty, tokens.iter().flatten().count()), (6 - nth, 6 - nth));
            }
            7.. => assert_eq!(heard.header("content-type"), "text/html"),
            _ => {}
        }
        if nth == 9 {
            assert!(heard.header("location").starts_with("http://127.0.0.1:"));
            assert!(!heard.header("location").starts_with(&double.url()));
        }
        let refusal = if nth < 7 { heard.refusal() } else { is(heard.status, "") };
        refusals.push(refusal);
    }
    assert_eq!(
        (double.now_serving().len(), &double.now_serving()[0].access),
        (1, &before[0].access)
    );
    let counts = double.counts();
    assert_eq!(
        (counts.token_requests(), counts.refused, counts.redirect_hits),
        (10, 0, 0)
    );
    assert_eq!((counts.renewals, counts.acquisitions, double.faults_left()), (0, 0, 0));
    refusals
}

fn at_last() -> Vec<(u16, String)> {
    let statuses = [200, 200, 502, 200, 307];
    statuses.into_iter().map(|status| is(status, "")).collect()
}

#[tokio::test]
async fn each_vendor_says_a_fault_in_its_own_words() {
    let imm = Imm::start(ImmOptions::default()).await;
    let refusals = answers(&imm, imm_call).await;
    let said = [
        is(400, "Throttling.User"),
        is(429, "Throttling"),
        is(403, "NoPermission"),
        is(403, "InvalidRefreshToken"),
        is(503, "ServiceUnavailable"),
    ];
    assert_eq!(refusals, [&said[..], &at_last()].concat());
    assert_eq!(imm.counts().nonce_reused, 0);

    let ecd = Ecd::start(EcdOptions::default()).await;
    let refusals = answers(&ecd, ecd::renewing).await;
    let said = said.map(|(status, code)| (status, code.replace("RefreshToken", "LoginToken")));
    assert_eq!(refusals, [&said[..], &at_last()].concat());

    let smh = Smh::start(SmhOptions::default()).await;
    let refusals = answers(&smh, smh_call).await;
    let said = [
        is(429, "RateLimitExceeded"),
        is(429, "RateLimitExceeded"),
        is(403, "NoPermission"),
        is(403, "InvalidAccessToken"),
        is(503, "ServerOverloaded"),
    ];
    assert_eq!(refusals, [&said[..], &at_last()].concat());

    let huawei = Huawei::start(HuaweiOptions::default()).await;
    let refusals = answers(&huawei, huawei_call).await;
    let statuses: Vec<u16> = refusals[..5].iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [400, 429, 403, 403, 503]);
    assert_eq!(refusals[5..], at_last());
}

#[tokio::test]
async fn a_throttled_request_is_told_when_to_come_back_in_milliseconds_and_has_spent_its_nonce() {
    let imm = Imm::start(ImmOptions::default()).await;
    imm.issue();
    let retry_after = Duration::from_millis(150);
    imm.fault(Fault::Throttle400 { retry_after });
    let call = imm_call(&imm);
    let heard = call.send(&imm.url()).await;
    assert_eq!(heard.header("x-acs-retry-after"), "150");
    assert_eq!(heard.header("retry-after"), "");
    assert_eq!(call.send(&imm.url()).await.refusal(), is(400, "SignatureNonceUsed"));
    assert_eq!(imm_call(&imm).send(&imm.url()).await.status, 200);
    assert_eq!(imm.counts().nonce_reused, 1);
}

/// The error of the socket below, if it was one.
fn socket_error(error: &dyn std::error::Error) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

#[tokio::test]
async fn a_lost_answer_is_processed_and_a_reset_is_not() {
    let imm = Imm::start(ImmOptions::default()).await;
    let first = imm.issue();
    imm.fault(Fault::ResetBefore);
    let error = imm_call(&imm).begin(&imm.url()).await.unwrap_err();
    assert_eq!(socket_error(&error), Some(io::ErrorKind::ConnectionReset), "{error:?}");
    assert_eq!(
        (imm.counts().renewals, &imm.now_serving()[0]),
        (0, &imm.now_serving()[0])
    );
    assert_eq!(imm.now_serving()[0].access, first.access);
    imm.fault(Fault::LostAnswer);
    let error = imm_call(&imm).begin(&imm.url()).await.unwrap_err();
    assert_ne!(socket_error(&error), Some(io::ErrorKind::ConnectionReset), "{error:?}");
    assert_ne!(imm.now_serving()[0].access, first.access);
    let counts = imm.counts();
    assert_eq!((counts.renewals, counts.token_requests(), counts.in_flight), (1, 2, 0));
}

#[tokio::test]
async fn a_huge_answer_is_64_mib_and_has_no_length() {
    let smh = Smh::start(SmhOptions::default()).await;
    smh.fault(Fault::Huge);
    let response = smh_call(&smh).begin(&smh.url()).await.unwrap();
    assert_eq!(response.headers().get("content-length"), None);
    let mut body = response.into_body();
    let (mut size, mut last) = (0, Default::default());
    while let Some(frame) = body.frame().await {
        last = frame.unwrap().into_data().unwrap();
        size += last.len();
    }
    assert_eq!(size, 64 * 1024 * 1024);
    assert!(last.ends_with(b"\"}"));
}

#[tokio::test]
async fn a_dripping_answer_has_a_head_at_once_and_then_nearly_nothing() {
    let smh = Smh::start(SmhOptions::default()).await;
    smh.fault(Fault::Drip);
    let began = Instant::now();
    let response = smh_call(&smh).begin(&smh.url()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(began.elapsed() < SECOND);
    let mut body = response.into_body();
    assert!(timeout(Duration::from_millis(50), body.frame()).await.is_err());
}

#[tokio::test]
async fn a_delayed_answer_was_processed_at_once_and_requests_under_way_are_counted() {
    let huawei = Huawei::start(HuaweiOptions::default()).await;
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        huawei.fault(Fault::Delay(Duration::from_millis(200)));
        let (call, url) = (huawei_call(&huawei), huawei.url());
        calls.spawn(async move { call.send(&url).await.status });
    }
    while huawei.counts().acquisitions < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!((huawei.counts().in_flight, calls.try_join_next().is_none()), (3, true));
    assert_eq!(calls.join_all().await, [200; 3]);
    assert_eq!((huawei.counts().in_flight, huawei.counts().max_in_flight), (0, 3));
    // A client that gives up.
    huawei.fault(Fault::Delay(60 * SECOND));
    let (call, url) = (huawei_call(&huawei), huawei.url());
    let waiting = tokio::spawn(async move { call.send(&url).await.status });
    while huawei.counts().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    waiting.abort();
    while huawei.counts().in_flight > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_follows_a_redirect_is_seen() {
    let smh = Smh::start(SmhOptions::default()).await;
    smh.fault(Fault::Redirect307);
    let heard = smh_call(&smh).send(&smh.url()).await;
    let location = heard.header("location");
    assert!(location.contains("/api/v1/token?library_id="), "{location}");
    assert_eq!(Call::new("GET", "").send(location).await.status, 200);
    assert_eq!((smh.counts().redirect_hits, smh.counts().token_requests()), (1, 1));
}

#[tokio::test]
async fn dropping_a_double_closes_its_port() {
    let smh = Smh::start(SmhOptions::default()).await;
    let (call, url) = (smh_call(&smh), smh.url());
    smh.fault(Fault::Delay(60 * SECOND));
    let (hanging, target) = (call.clone(), url.clone());
    let hanging = tokio::spawn(async move { hanging.begin(&target).await.is_err() });
    while smh.counts().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    drop(smh);
    assert!(hanging.await.unwrap());
    assert!(call.begin(&url).await.is_err());
}
