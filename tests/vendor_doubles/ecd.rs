//! `RefreshLoginToken` and `GetLoginToken`.

use std::time::{Duration, SystemTime};

use super::client::{Call, Rpc, form, is, nonce};
use super::vendors::acs3::AccessKey;
use super::vendors::alibaba::{Ecd, EcdOptions};
use super::vendors::wire::rfc3339_seconds;

const REFRESH: &str = "RefreshLoginToken";
const GET: &str = "GetLoginToken";
const VERSION: &str = "2020-10-02";

type Pairs = Vec<(&'static str, String)>;

async fn ecd() -> Ecd {
    Ecd::start(EcdOptions::default()).await
}

/// The parameters of a login, which every operation has.
fn login() -> Pairs {
    let options = EcdOptions::default();
    vec![
        ("RegionId", options.region_id),
        ("ClientId", options.client_id),
        ("OfficeSiteId", options.office_site_id),
    ]
}

fn refreshing(token: &str) -> Pairs {
    let user = ("EndUserId", EcdOptions::default().end_user_id);
    [login(), vec![user, ("LoginToken", token.into())]].concat()
}

fn keeping_alive(token: &str) -> Pairs {
    let stage = ("CurrentStage", "KeepAliveVerify".into());
    [
        login(),
        vec![stage, ("KeepAlive", "true".into()), ("KeepAliveToken", token.into())],
    ]
    .concat()
}

fn query(pairs: &Pairs) -> String {
    form(
        &pairs
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect::<Vec<_>>(),
    )
}

fn rpc(action: &str) -> Pairs {
    vec![
        ("Action", action.into()),
        ("Format", "json".into()),
        ("Version", VERSION.into()),
        ("Timestamp", rfc3339_seconds(SystemTime::now())),
        ("SignatureNonce", nonce()),
    ]
}

/// As the captures have it.
fn anonymous(action: &str, pairs: Pairs) -> Call {
    let mut call = Call::new("POST", "/")
        .header("x-acs-action", action)
        .header("x-acs-version", VERSION);
    call.query = query(&[rpc(action), pairs].concat());
    call
}

/// Renews what the double serves now.
pub(crate) fn renewing(ecd: &Ecd) -> Call {
    anonymous(REFRESH, refreshing(&ecd.now_serving()[0].access))
}

async fn sent(ecd: &Ecd, call: Call) -> (u16, String) {
    call.send(&ecd.url()).await.refusal()
}

#[tokio::test]
async fn a_login_token_renews_itself_once_and_only_while_it_lives() {
    let ecd = ecd().await;
    let first = ecd.issue().access;
    let heard = anonymous(REFRESH, refreshing(&first)).send(&ecd.url()).await;
    let second = heard.text("LoginToken");
    assert_eq!(ecd.now_serving()[0].access, second);
    let members: Vec<String> = heard.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        (heard.status, members),
        (200, vec!["LoginToken".into(), "RequestId".into()])
    );
    let again = sent(&ecd, anonymous(REFRESH, refreshing(&first))).await;
    assert_eq!(again, is(400, "InvalidLoginToken"));
    assert_eq!(ecd.counts().presented_twice, 1);
    ecd.revoke();
    let late = sent(&ecd, anonymous(REFRESH, refreshing(&second))).await;
    assert_eq!(late, is(400, "InvalidLoginToken"));
    let counts = ecd.counts();
    assert_eq!((counts.renewals, counts.of(REFRESH), counts.presented_twice), (1, 3, 1));
}

#[tokio::test]
async fn each_parameter_of_a_refresh_is_checked() {
    let ecd = ecd().await;
    let token = ecd.issue().access;
    for (at, (name, _)) in refreshing(&token).into_iter().enumerate() {
        let mut pairs = refreshing(&token);
        pairs.remove(at);
        let refused = sent(&ecd, anonymous(REFRESH, pairs)).await;
        assert_eq!(refused, is(400, &format!("Missing{name}")));
        let mut pairs = refreshing(&token);
        pairs[at].1 = "test-other".into();
        let refused = sent(&ecd, anonymous(REFRESH, pairs)).await;
        assert_eq!(refused, is(400, &format!("Invalid{name}")));
    }
    // A plus sign that is not encoded is a space.
    let mut call = anonymous(REFRESH, refreshing(&token));
    call.query = call.query.replace("hangzhou%2Bdir", "hangzhou+dir");
    assert_eq!(sent(&ecd, call).await, is(400, "InvalidOfficeSiteId"));
    let session = |id: &str| [refreshing(&token), vec![("SessionId", id.into())]].concat();
    let refused = sent(&ecd, anonymous(REFRESH, session("test-other"))).await;
    assert_eq!(refused, is(400, "InvalidSessionId"));
    assert_eq!(ecd.counts().renewals, 0);
    let call = anonymous(REFRESH, session("test-session-1"));
    assert_eq!(call.send(&ecd.url()).await.status, 200);
}

#[tokio::test]
async fn the_form_of_an_anonymous_request_is_checked() {
    let ecd = ecd().await;
    let token = ecd.issue().access;
    let with = |name: &str, value: Option<&str>| {
        let mut pairs = rpc(REFRESH);
        pairs.retain(|(known, _)| *known != name || value.is_some());
        for (_, own) in pairs.iter_mut().filter(|(known, _)| *known == name) {
            *own = value.unwrap_or_default().into();
        }
        let mut call = anonymous(REFRESH, Vec::new());
        call.query = query(&[pairs, refreshing(&token)].concat());
        call
    };
    for name in ["Action", "Format", "Version", "Timestamp", "SignatureNonce"] {
        let refused = sent(&ecd, with(name, None)).await;
        assert_eq!(refused, is(400, &format!("Missing{name}")));
    }
    let upper = "A".repeat(32);
    let old = rfc3339_seconds(SystemTime::now() - Duration::from_secs(910));
    let cases = [
        ("Action", GET, "InvalidAction"),
        ("Version", "2020-10-01", "InvalidVersion"),
        ("Format", "XML", "InvalidFormat"),
        ("SignatureNonce", "abc", "InvalidSignatureNonce"),
        ("SignatureNonce", &upper, "InvalidSignatureNonce"),
        ("Timestamp", "now", "InvalidTimeStamp.Format"),
        ("Timestamp", &old, "InvalidTimeStamp.Expired"),
    ];
    for (name, value, code) in cases {
        assert_eq!(sent(&ecd, with(name, Some(value))).await, is(400, code));
    }
    let good = || anonymous(REFRESH, refreshing(&token));
    let keyed = good().header("authorization", "ACS3-HMAC-SHA256 Credential=test");
    assert_eq!(sent(&ecd, keyed).await, is(404, "InvalidAccessKeyId.NotFound"));
    let mut call = good();
    call.headers.remove(0);
    assert_eq!(sent(&ecd, call).await, is(400, "InvalidAction"));
    let mut call = good();
    call.method = "GET".into();
    assert_eq!(sent(&ecd, call).await, is(405, "UnsupportedHTTPMethod"));
    let other = anonymous("GetConnectionTicket", refreshing(&token));
    assert_eq!(sent(&ecd, other).await, is(404, "InvalidAction.NotFound"));
    let counts = ecd.counts();
    assert_eq!((counts.renewals, counts.clock_refusals, counts.nonce_reused), (0, 2, 0));
    let call = good();
    assert_eq!(call.send(&ecd.url()).await.status, 200);
    assert_eq!(sent(&ecd, call).await, is(400, "SignatureNonceUsed"));
    assert_eq!(ecd.counts().nonce_reused, 1);
}

#[tokio::test]
async fn a_keep_alive_token_logs_in_again() {
    for rotates in [false, true] {
        let ecd = Ecd::start(EcdOptions {
            keep_alive_rotates: rotates,
            ..EcdOptions::default()
        });
        let ecd = ecd.await;
        let keep_alive = ecd.issue().renew.unwrap();
        ecd.revoke();
        let mut pairs = keeping_alive(&keep_alive);
        pairs.iter_mut().find(|(name, _)| *name == "KeepAlive").unwrap().1 = "True".into();
        let heard = anonymous(GET, pairs).send(&ecd.url()).await;
        assert_eq!(heard.status, 200);
        assert_eq!(heard.text("LoginToken"), ecd.now_serving()[0].access);
        let said = ["EndUserId", "NextStage", "SessionId"].map(|name| heard.text(name));
        assert_eq!(said, ["test-alice", "", "test-session-1"]);
        assert_eq!(heard.text("KeepAliveToken").is_empty(), !rotates);
        let again = anonymous(GET, keeping_alive(&keep_alive)).send(&ecd.url()).await;
        assert_eq!(again.status == 200, !rotates);
        assert_eq!(ecd.counts().presented_twice, u64::from(rotates));
        let refused = sent(&ecd, anonymous(GET, keeping_alive("test-stranger"))).await;
        assert_eq!(refused, is(400, "InvalidKeepAliveToken"));
        ecd.kill_all();
        let refused = sent(&ecd, anonymous(GET, keeping_alive(&keep_alive))).await;
        assert_eq!(refused, is(400, "InvalidKeepAliveToken"));
    }
    let ecd = ecd().await;
    let keep_alive = ecd.issue().renew.unwrap();
    for (name, code) in [
        ("CurrentStage", "ADPassword"),
        ("KeepAlive", "false"),
        ("ClientId", "another"),
    ] {
        let mut pairs = keeping_alive(&keep_alive);
        pairs.iter_mut().find(|(known, _)| *known == name).unwrap().1 = code.into();
        assert_eq!(
            sent(&ecd, anonymous(GET, pairs)).await,
            is(400, &format!("Invalid{name}"))
        );
    }
    assert_eq!((ecd.counts().of(GET), ecd.counts().acquisitions), (3, 0));
}

#[tokio::test]
async fn a_login_may_need_a_person() {
    let ecd = Ecd::start(EcdOptions {
        next_stage: Some("MFAVerify".into()),
        ..EcdOptions::default()
    });
    let ecd = ecd.await;
    let keep_alive = ecd.issue().renew.unwrap();
    let heard = anonymous(GET, keeping_alive(&keep_alive)).send(&ecd.url()).await;
    assert_eq!((heard.status, heard.text("NextStage")), (200, "MFAVerify".into()));
    assert_eq!(
        (heard.text("LoginToken"), ecd.counts().acquisitions),
        (String::new(), 0)
    );
}

#[tokio::test]
async fn a_signed_request_needs_no_rpc_parameters_and_an_anonymous_one_is_no_longer_enough() {
    let ecd = Ecd::start(EcdOptions {
        signed: Some(AccessKey::default()),
        ..EcdOptions::default()
    });
    let ecd = ecd.await;
    let token = ecd.issue().access;
    let refused = sent(&ecd, anonymous(REFRESH, refreshing(&token))).await;
    assert_eq!(refused, is(400, "IncompleteSignature"));
    let mut rpc = Rpc::new(&ecd.url(), REFRESH, VERSION, &[]);
    rpc.call.query = query(&refreshing(&token));
    let mut call = rpc.sign();
    assert_eq!(call.send(&ecd.url()).await.status, 200);
    assert_eq!(sent(&ecd, call.clone()).await, is(400, "SignatureNonceUsed"));
    call.query.push_str("&SessionId=test");
    assert_eq!(sent(&ecd, call).await, is(400, "SignatureDoesNotMatch"));
    assert_eq!((ecd.counts().renewals, ecd.counts().signature_failures), (1, 2));
}

#[tokio::test]
async fn business_takes_the_login_token_from_the_query() {
    let ecd = ecd().await;
    let token = ecd.issue().access;
    let business = |token: &str| {
        Call::new("POST", "/business")
            .query(&[("LoginToken", token)])
            .text("a body")
    };
    let heard = business(&token).send(&ecd.url()).await;
    assert_eq!((heard.status, heard.body.as_ref()), (200, b"a body".as_slice()));
    // In the header of another vendor.
    let call = business("").header("authorization", &format!("Bearer {token}"));
    assert_eq!(sent(&ecd, call).await, is(400, "InvalidLoginToken"));
    ecd.revoke();
    assert_eq!(sent(&ecd, business(&token)).await, is(400, "InvalidLoginToken"));
    let counts = ecd.counts();
    assert_eq!(
        (counts.business_ok, counts.business_refused, counts.expired_presented),
        (1, 2, 1)
    );
}

#[tokio::test]
async fn a_replaced_login_token_in_its_grace_serves_business_and_renews_nothing() {
    let ecd = Ecd::start(EcdOptions {
        old_login_grace: Duration::from_secs(60),
        ..EcdOptions::default()
    });
    let ecd = ecd.await;
    let old = ecd.issue().access;
    assert_eq!(renewing(&ecd).send(&ecd.url()).await.status, 200);
    let business = Call::new("GET", "/business").query(&[("LoginToken", &old)]);
    assert_eq!(business.send(&ecd.url()).await.status, 200);
    let again = sent(&ecd, anonymous(REFRESH, refreshing(&old))).await;
    assert_eq!(again, is(400, "InvalidLoginToken"));
    assert_eq!((ecd.counts().presented_twice, ecd.counts().expired_presented), (1, 0));
}
