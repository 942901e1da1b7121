//! `RefreshWebofficeToken` and `GenerateWebofficeToken`.

use std::time::{Duration, SystemTime};

use super::client::{Call, Heard, Rpc, is};
use super::vendors::Live;
use super::vendors::acs3::{self, AccessKey};
use super::vendors::alibaba::{Imm, ImmOptions};
use super::vendors::wire::{parse_seconds, rfc3339_nanoseconds, rfc3339_seconds};

const REFRESH: &str = "RefreshWebofficeToken";
const GENERATE: &str = "GenerateWebofficeToken";
const VERSION: &str = "2020-09-30";

async fn imm() -> Imm {
    Imm::start(ImmOptions::default()).await
}

fn refresh(imm: &Imm, access: &str, refresh: &str) -> Rpc {
    let query = [
        ("AccessToken", access),
        ("ProjectName", "test-project"),
        ("RefreshToken", refresh),
    ];
    Rpc::new(&imm.url(), REFRESH, VERSION, &query)
}

fn renew(imm: &Imm, live: &Live) -> Rpc {
    refresh(imm, &live.access, live.renew.as_deref().unwrap())
}

fn generate(imm: &Imm) -> Rpc {
    let query = [("ProjectName", "test-project"), ("SourceURI", "oss://test/a b.docx")];
    Rpc::new(&imm.url(), GENERATE, VERSION, &query)
}

async fn sent(imm: &Imm, call: Call) -> (u16, String) {
    call.send(&imm.url()).await.refusal()
}

async fn business(imm: &Imm, token: &str) -> Heard {
    let call = Call::new("PUT", "/business/page").header("x-weboffice-token", token);
    call.text("a body").send(&imm.url()).await
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let imm = imm().await;
    let first = imm.issue();
    let second = renew(&imm, &first).sign().send(&imm.url()).await;
    assert_eq!(second.status, 200);
    let (access, token) = (second.text("AccessToken"), second.text("RefreshToken"));
    assert_eq!(imm.now_serving()[0].access, access);
    assert_eq!(imm.now_serving()[0].renew.as_ref(), Some(&token));
    assert_ne!((&first.access, first.renew.as_ref()), (&access, Some(&token)));
    assert_eq!(
        sent(&imm, renew(&imm, &first).sign()).await,
        is(400, "InvalidRefreshToken")
    );
    assert_eq!(imm.counts().presented_twice, 1);
    // Not the old access token with the new refresh token.
    let mixed = refresh(&imm, &first.access, &token).sign();
    assert_eq!(sent(&imm, mixed).await, is(400, "InvalidAccessToken"));
    assert_eq!(refresh(&imm, &access, &token).sign().send(&imm.url()).await.status, 200);
    let counts = imm.counts();
    assert_eq!((counts.renewals, counts.refused, counts.presented_twice), (2, 2, 1));
    assert_eq!((counts.of(REFRESH), counts.token_requests()), (4, 4));
    assert_eq!((counts.max_in_flight, counts.in_flight), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_present_a_refresh_token_at_once_one_wins() {
    let imm = imm().await;
    let live = imm.issue();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (call, url) = (renew(&imm, &live).sign(), imm.url());
        calls.spawn(async move { call.send(&url).await.status });
    }
    let statuses = calls.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    let counts = imm.counts();
    assert_eq!(
        (counts.renewals, counts.presented_twice, counts.nonce_reused),
        (1, 15, 0)
    );
}

#[tokio::test]
async fn an_expired_access_token_is_refreshed_and_an_expired_refresh_token_is_not() {
    let options = ImmOptions {
        access_lifetime: Duration::ZERO,
        ..ImmOptions::default()
    };
    let imm = Imm::start(options.clone()).await;
    let first = generate(&imm).sign().send(&imm.url()).await;
    let (access, token) = (first.text("AccessToken"), first.text("RefreshToken"));
    assert_eq!(business(&imm, &access).await.refusal(), is(401, "InvalidAccessToken"));
    assert_eq!(imm.counts().expired_presented, 1);
    assert_eq!(refresh(&imm, &access, &token).sign().send(&imm.url()).await.status, 200);

    let refresh_lifetime = Duration::ZERO;
    let imm = Imm::start(ImmOptions {
        refresh_lifetime,
        ..options
    })
    .await;
    let first = generate(&imm).sign().send(&imm.url()).await;
    let late = refresh(&imm, &first.text("AccessToken"), &first.text("RefreshToken")).sign();
    assert_eq!(sent(&imm, late).await, is(400, "InvalidRefreshToken"));
    assert_eq!(imm.counts().presented_twice, 0);
}

#[tokio::test]
async fn times_have_nine_digits_and_are_those_of_the_servers_clock() {
    let imm = Imm::start(ImmOptions {
        clock_offset_secs: 600,
        ..ImmOptions::default()
    });
    let imm = imm.await;
    let heard = generate(&imm).sign().send(&imm.url()).await;
    let live = imm.now_serving().remove(0);
    assert_eq!(
        heard.text("AccessTokenExpiredTime"),
        rfc3339_nanoseconds(live.access_ends)
    );
    assert_eq!(
        heard.text("RefreshTokenExpiredTime"),
        rfc3339_nanoseconds(live.renew_ends.unwrap())
    );
    for (name, lives) in [("AccessTokenExpiredTime", 1_800), ("RefreshTokenExpiredTime", 86_400)] {
        let time = heard.text(name);
        let (whole, fraction) = time.split_once('.').unwrap();
        assert!(fraction.len() == 10 && fraction.ends_with('Z'), "{time}");
        let ends = parse_seconds(&format!("{whole}Z")).unwrap();
        let left = ends.duration_since(SystemTime::now()).unwrap().as_secs();
        assert!((lives + 590..=lives + 600).contains(&left), "{left}");
    }
    assert!(heard.text("WebofficeURL").starts_with("https://"));
    assert_eq!((imm.counts().acquisitions, imm.counts().of(GENERATE)), (1, 1));
}

#[tokio::test]
async fn each_parameter_is_checked() {
    let imm = imm().await;
    let live = imm.issue();
    let token = live.renew.as_deref().unwrap();
    let full = [
        ("AccessToken", live.access.as_str()),
        ("ProjectName", "test-project"),
        ("RefreshToken", token),
    ];
    for left_out in ["AccessToken", "ProjectName", "RefreshToken"] {
        let mut some = full.to_vec();
        some.retain(|(name, _)| *name != left_out);
        let call = Rpc::new(&imm.url(), REFRESH, VERSION, &some).sign();
        assert_eq!(sent(&imm, call).await, is(400, &format!("Missing{left_out}")));
        some.push((left_out, ""));
        let call = Rpc::new(&imm.url(), REFRESH, VERSION, &some).sign();
        assert_eq!(sent(&imm, call).await, is(400, &format!("Missing{left_out}")));
    }
    for config in [
        "",
        "[]",
        "{} {}",
        r#"{"Policy":{}}"#,
        r#"{"Chain":{}}"#,
        r#"{"ChainPolicy":""}"#,
    ] {
        let query = [&full[..], &[("CredentialConfig", config)]].concat();
        let call = Rpc::new(&imm.url(), REFRESH, VERSION, &query).sign();
        assert_eq!(sent(&imm, call).await, is(400, "InvalidCredentialConfig"), "{config}");
    }
    let twice = [&full[..], &full[..1]].concat();
    let call = Rpc::new(&imm.url(), REFRESH, VERSION, &twice).sign();
    assert_eq!(sent(&imm, call).await, is(400, "InvalidArgument"));
    assert_eq!(imm.counts().renewals, 0);
    let config = r#"{"ServiceRole":"test","Policy":"{}","Chain":[{}]}"#;
    let query = [&full[..], &[("CredentialConfig", config), ("Stranger", "1")]].concat();
    let call = Rpc::new(&imm.url(), REFRESH, VERSION, &query).sign();
    assert_eq!(call.send(&imm.url()).await.status, 200);
    assert_eq!(imm.counts().unknown_parameters, 1);

    let project = ("ProjectName", "test-project");
    let good = ("SourceURI", "oss://test/doc");
    let cases = [
        (vec![project], "MissingSourceURI"),
        (vec![good], "MissingProjectName"),
        (vec![good, ("ProjectName", "another")], "ResourceNotFound"),
        (vec![project, ("SourceURI", "https://test/doc")], "InvalidSourceURI"),
        (vec![project, ("SourceURI", "oss://test")], "InvalidSourceURI"),
        (vec![project, good, ("Hidecmb", "yes")], "InvalidHidecmb"),
        (vec![project, good, ("Permission", "1")], "InvalidPermission"),
        (vec![project, good, ("PreviewPages", "all")], "InvalidPreviewPages"),
    ];
    for (query, code) in cases {
        let call = Rpc::new(&imm.url(), GENERATE, VERSION, &query).sign();
        assert_eq!(sent(&imm, call).await, is(400, code));
    }
}

#[tokio::test]
async fn a_signature_covers_the_query_every_header_and_the_body() {
    let imm = imm().await;
    let live = imm.issue();
    let mismatch = is(400, "SignatureDoesNotMatch");
    let mut call = renew(&imm, &live).sign();
    call.query.push_str("&CredentialConfig=%7B%7D");
    assert_eq!(sent(&imm, call).await, mismatch);
    let call = renew(&imm, &live).sign().text("x");
    assert_eq!(sent(&imm, call.clone()).await, mismatch);
    let call = call.header("x-acs-content-sha256", &acs3::sha256(b"x"));
    assert_eq!(sent(&imm, call).await, mismatch);
    let mut rpc = renew(&imm, &live);
    rpc.key.secret.push('x');
    assert_eq!(sent(&imm, rpc.sign()).await, mismatch);
    let call = renew(&imm, &live).sign().header("x-acs-date", "2026-11-20T10:17:45Z");
    assert_eq!(sent(&imm, call).await, mismatch);
    // A body that is signed, and its type is not.
    let mut rpc = renew(&imm, &live).header("content-type", "application/x-www-form-urlencoded");
    rpc.call.body = "CredentialConfig=%7B%7D".into();
    rpc = rpc.header("x-acs-content-sha256", &acs3::sha256(b"CredentialConfig=%7B%7D"));
    let incomplete = is(400, "IncompleteSignature");
    assert_eq!(sent(&imm, rpc.clone().sign_but("content-type")).await, incomplete);
    // The hash of another body, signed as it is.
    let other = renew(&imm, &live).header("x-acs-content-sha256", &acs3::sha256(b"x"));
    assert_eq!(sent(&imm, other.sign()).await, mismatch);
    assert_eq!(imm.counts().signature_failures, 7);
    assert_eq!(imm.counts().renewals, 0);
    let rpc = rpc.header("x-acs-signature-nonce", "another");
    assert_eq!(rpc.sign().send(&imm.url()).await.status, 200);
    // An unsigned type of no body is tolerated.
    let call = renew(&imm, &imm.now_serving()[0]).header("content-type", "application/octet-stream");
    assert_eq!(call.sign_but("content-type").send(&imm.url()).await.status, 200);
}

#[tokio::test]
async fn what_has_to_be_signed_is() {
    let imm = imm().await;
    let live = imm.issue();
    let incomplete = is(400, "IncompleteSignature");
    for name in [
        "host",
        "x-acs-action",
        "x-acs-version",
        "x-acs-date",
        "x-acs-signature-nonce",
        "x-acs-content-sha256",
        "x-acs-stranger",
    ] {
        let rpc = renew(&imm, &live).header("x-acs-stranger", "1");
        assert_eq!(sent(&imm, rpc.sign_but(name)).await, incomplete, "{name}");
    }
    let mut bare = renew(&imm, &live).call;
    assert_eq!(sent(&imm, bare.clone()).await, incomplete);
    bare = bare.header("authorization", "Bearer test");
    assert_eq!(sent(&imm, bare).await, incomplete);
    let mut rpc = renew(&imm, &live);
    rpc.key.id.push('x');
    assert_eq!(sent(&imm, rpc.sign()).await, is(404, "InvalidAccessKeyId.NotFound"));
    assert_eq!(imm.counts().signature_failures, 10);
}

#[tokio::test]
async fn the_security_token_belongs_to_the_key() {
    let imm = imm().await;
    let live = imm.issue();
    let mismatch = is(400, "InvalidSecurityToken.MismatchWithAccessKey");
    let with = |token: &str| renew(&imm, &live).header("x-acs-security-token", token);
    assert_eq!(sent(&imm, with("test-sts").sign()).await, mismatch);
    let sts = AccessKey {
        security_token: Some("test-sts".into()),
        ..AccessKey::default()
    };
    imm.vendor().rekey(sts);
    assert_eq!(sent(&imm, renew(&imm, &live).sign()).await, mismatch);
    assert_eq!(sent(&imm, with("test-other").sign()).await, mismatch);
    let unsigned = with("test-sts").sign_but("x-acs-security-token");
    assert_eq!(sent(&imm, unsigned).await, is(400, "IncompleteSignature"));
    assert_eq!(with("test-sts").sign().send(&imm.url()).await.status, 200);
}

#[tokio::test]
async fn a_time_outside_the_window_is_refused_and_the_answer_tells_the_servers_time() {
    for (offset, good) in [(0, true), (890, true), (-890, true), (910, false), (-910, false)] {
        let imm = Imm::start(ImmOptions {
            clock_offset_secs: offset,
            ..ImmOptions::default()
        });
        let imm = imm.await;
        let live = imm.issue();
        let heard = renew(&imm, &live).sign().send(&imm.url()).await;
        assert_eq!(heard.status == 200, good, "{offset}: {heard:?}");
        assert!(heard.header("date").ends_with(" GMT"));
        assert_eq!(heard.headers.get_all("date").iter().count(), 1);
        if !good {
            assert_eq!(heard.refusal(), is(400, "InvalidTimeStamp.Expired"));
            assert_eq!(imm.counts().clock_refusals, 1);
            let seconds = offset.unsigned_abs();
            let (now, offset_by) = (SystemTime::now(), Duration::from_secs(seconds));
            let theirs = if offset > 0 { now + offset_by } else { now - offset_by };
            let rpc = renew(&imm, &live).header("x-acs-date", &rfc3339_seconds(theirs));
            assert_eq!(rpc.sign().send(&imm.url()).await.status, 200);
        }
    }
    let imm = imm().await;
    let rpc = renew(&imm, &imm.issue()).header("x-acs-date", "2026-11-20 10:17:45");
    assert_eq!(sent(&imm, rpc.sign()).await, is(400, "InvalidTimeStamp.Format"));
}

#[tokio::test]
async fn a_nonce_is_good_once() {
    let imm = imm().await;
    let call = renew(&imm, &imm.issue()).sign();
    assert_eq!(call.send(&imm.url()).await.status, 200);
    assert_eq!(sent(&imm, call).await, is(400, "SignatureNonceUsed"));
    let counts = imm.counts();
    assert_eq!(
        (counts.nonce_reused, counts.presented_twice, counts.renewals),
        (1, 0, 1)
    );
}

#[tokio::test]
async fn there_is_one_path_one_method_and_two_actions() {
    let imm = imm().await;
    let mut rpc = generate(&imm);
    rpc.call.path = "/other".into();
    assert_eq!(sent(&imm, rpc.sign()).await, is(404, "InvalidAction.NotFound"));
    let mut rpc = generate(&imm);
    rpc.call.method = "GET".into();
    assert_eq!(sent(&imm, rpc.sign()).await, is(405, "UnsupportedHTTPMethod"));
    let rpc = generate(&imm).header("x-acs-action", "Other");
    assert_eq!(sent(&imm, rpc.sign()).await, is(404, "InvalidAction.NotFound"));
    let rpc = generate(&imm).header("x-acs-version", "2017-09-06");
    assert_eq!(sent(&imm, rpc.sign()).await, is(400, "InvalidVersion"));
    assert_eq!((imm.counts().of("Unknown"), imm.counts().acquisitions), (1, 0));
}

#[tokio::test]
async fn two_logins_do_not_touch_each_other() {
    let imm = imm().await;
    let (one, other) = (imm.issue(), imm.issue());
    assert_eq!(renew(&imm, &one).sign().send(&imm.url()).await.status, 200);
    assert_eq!(imm.now_serving().len(), 2);
    let crossed = refresh(&imm, &one.access, other.renew.as_deref().unwrap()).sign();
    assert_eq!(sent(&imm, crossed).await, is(400, "InvalidAccessToken"));
    assert_eq!(renew(&imm, &other).sign().send(&imm.url()).await.status, 200);
}

#[tokio::test]
async fn business_goes_by_the_token() {
    let imm = imm().await;
    let live = imm.issue();
    let heard = business(&imm, &live.access).await;
    assert_eq!((heard.status, heard.body.as_ref()), (200, b"a body".as_slice()));
    let forbidden = Call::new("GET", "/api/business/forbidden").header("x-weboffice-token", &live.access);
    assert_eq!(sent(&imm, forbidden).await, is(403, "NoPermission"));
    assert_eq!(business(&imm, "test-stranger").await.status, 401);
    imm.revoke();
    assert_eq!(business(&imm, &live.access).await.status, 401);
    let counts = imm.counts();
    let seen = (counts.business_ok, counts.business_refused, counts.expired_presented);
    assert_eq!((seen, counts.token_requests()), ((2, 2, 1), 0));
    // Revoked, and renewed all the same.
    assert_eq!(renew(&imm, &live).sign().send(&imm.url()).await.status, 200);
    let live = imm.now_serving().remove(0);
    assert_eq!(business(&imm, &live.access).await.status, 200);
    imm.kill_all();
    assert!(imm.now_serving().is_empty());
    assert_eq!(business(&imm, &live.access).await.status, 401);
    assert_eq!(
        sent(&imm, renew(&imm, &live).sign()).await,
        is(400, "InvalidRefreshToken")
    );
    assert_eq!(imm.counts().presented_twice, 0);
}

#[tokio::test]
async fn a_replaced_access_token_may_be_given_a_grace() {
    let imm = Imm::start(ImmOptions {
        old_access_grace: Duration::from_secs(60),
        ..ImmOptions::default()
    });
    let imm = imm.await;
    let live = imm.issue();
    assert_eq!(renew(&imm, &live).sign().send(&imm.url()).await.status, 200);
    assert_eq!(business(&imm, &live.access).await.status, 200);
    assert_eq!(imm.now_serving().len(), 1);
}
