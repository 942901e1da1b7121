//! What the vendors published and what their own clients send: nothing of it may be refused for its form.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::client::{Call, Heard, headers, is};
use super::vendors::acs3::{self, AccessKey, Authorization};
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{Huawei, HuaweiOptions};
use super::vendors::tencent::{Smh, SmhOptions};
use super::vendors::wire::{http_date, parse_seconds, rfc3339_nanoseconds, rfc3339_seconds};

fn data(path: &str) -> String {
    format!("{}/tests/vendors/data/{path}", env!("CARGO_MANIFEST_DIR"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Every capture whose name begins so.
fn captures(prefix: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for entry in fs::read_dir(data("captures")).unwrap() {
        let capture: Value = serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        if text(&capture, "name").starts_with(prefix) {
            all.push(capture);
        }
    }
    assert!(!all.is_empty(), "{prefix}: nothing was captured");
    all
}

/// The captured request, as it was but for what the client writes by itself.
fn call(capture: &Value) -> Call {
    let request = &capture["request"];
    let mut call = Call::new(text(request, "method"), text(request, "path")).text(text(request, "body_utf8"));
    call.query = text(request, "query").into();
    for (name, value) in request["headers"].as_object().unwrap() {
        let name = name.to_lowercase();
        if !["content-length", "connection"].contains(&name.as_str()) {
            call = call.header(&name, value.as_str().unwrap());
        }
    }
    call
}

/// A server whose clock shows when the capture was made.
fn offset(capture: &Value) -> i64 {
    let then = parse_seconds(text(capture, "captured_at")).unwrap();
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    seconds(then) - seconds(SystemTime::now())
}

fn key(capture: &Value) -> AccessKey {
    AccessKey {
        id: text(capture, "access_key_id").into(),
        secret: text(capture, "access_key_secret").into(),
        security_token: capture["security_token"].as_str().map(String::from),
    }
}

#[test]
fn every_published_signature_is_reproduced() {
    let vectors: Value = serde_json::from_slice(&fs::read(data("acs3.json")).unwrap()).unwrap();
    let mut checked = 0;
    for vector in vectors.as_array().unwrap() {
        if text(vector, "alg") != acs3::ALGORITHM {
            continue;
        }
        let pairs = vector["headers"].as_array().unwrap().iter();
        let pairs: Vec<(String, String)> = pairs
            .map(|pair| (pair[0].as_str().unwrap().into(), pair[1].as_str().unwrap().into()))
            .collect();
        let mut signed: Vec<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
        signed.sort_unstable();
        let (query, body) = (text(vector, "query_wire"), text(vector, "body_utf8").as_bytes());
        let method = text(vector, "method");
        let canonical = acs3::canonical_request(method, "/", query, &headers(&pairs), &signed, body).unwrap();
        let name = text(vector, "name");
        assert_eq!(canonical, text(vector, "canonical_request"), "{name}");
        let to_sign = acs3::string_to_sign(&canonical);
        assert_eq!(to_sign, text(vector, "string_to_sign"), "{name}");
        let signature = acs3::signature(text(vector, "access_key_secret"), &to_sign);
        assert_eq!(signature, text(vector, "signature"), "{name}");
        checked += 1;
    }
    assert_eq!(checked, 9);
}

#[test]
fn a_header_of_two_values_is_signed_sorted_and_an_authorization_has_one_spelling() {
    let pairs = [("x-acs-b", " two "), ("x-acs-b", "one"), ("x-acs-a", "3")].map(|(n, v)| (n.into(), v.into()));
    let signed = ["x-acs-a", "x-acs-b"].map(String::from);
    let canonical = acs3::canonical_request("GET", "/", "b=&a=+&a-b=*&A", &headers(&pairs), &signed, b"").unwrap();
    let lines: Vec<&str> = canonical.lines().collect();
    assert_eq!(lines[2..6], ["A=&a=%20&a-b=%2A&b=", "x-acs-a:3", "x-acs-b:one,two", ""]);
    let hash = "0".repeat(64);
    let good = format!("ACS3-HMAC-SHA256 Credential=id,SignedHeaders=a;b,Signature={hash}");
    assert!(Authorization::parse(&good).is_some());
    let others = [
        good.replace(",S", ", S"),
        good.replace("a;b", "b;a"),
        good.replace("a;b", "a;B"),
        good.replace("a;b", "a;a"),
        good.replace("a;b", ""),
        good.replace("=id", "="),
        good.replace("SHA256", "SM3"),
        good.replacen('0', "", 1),
        good.replacen('0', "A", 1),
        good.replace("Credential=id,", ""),
    ];
    for other in others {
        assert_eq!(Authorization::parse(&other), None, "{other}");
    }
}

#[test]
fn dates_are_written_and_read_in_one_spelling() {
    let time = UNIX_EPOCH + Duration::new(1_630_415_248, 950_065_359);
    assert_eq!(rfc3339_nanoseconds(time), "2021-08-31T13:07:28.950065359Z");
    assert_eq!(rfc3339_seconds(time), "2021-08-31T13:07:28Z");
    assert_eq!(http_date(time), "Tue, 31 Aug 2021 13:07:28 GMT");
    for text in [
        "1970-01-01T00:00:00Z",
        "2024-02-29T23:59:59Z",
        "2100-03-01T00:00:00Z",
        "2026-11-20T10:17:45Z",
    ] {
        assert_eq!(rfc3339_seconds(parse_seconds(text).unwrap()), text);
    }
    let others = [
        "",
        "2023-02-29T00:00:00Z",
        "2026-11-20 10:17:45Z",
        "2026-11-20T10:17:45.0Z",
        "2026-11-20T24:00:00Z",
    ];
    for other in others {
        assert_eq!(parse_seconds(other), None, "{other}");
    }
}

async fn sent_to_imm(capture: &Value) -> Heard {
    let imm = Imm::start(ImmOptions {
        key: key(capture),
        project: text(&capture["call"]["request"], "ProjectName").into(),
        clock_offset_secs: offset(capture),
        ..ImmOptions::default()
    });
    let imm = imm.await;
    let heard = call(capture).send(&imm.url()).await;
    let counts = imm.counts();
    let wrong = [
        counts.signature_failures,
        counts.clock_refusals,
        counts.nonce_reused,
        counts.unknown_parameters,
    ];
    assert_eq!(wrong, [0; 4], "{heard:?}");
    heard
}

#[tokio::test]
async fn the_client_of_imm_is_understood() {
    for capture in captures("imm_") {
        let heard = sent_to_imm(&capture).await;
        if text(&capture, "operation") == "GenerateWebofficeToken" {
            assert_eq!(heard.status, 200, "{heard:?}");
        } else {
            assert_eq!(heard.refusal(), is(400, "InvalidRefreshToken"));
        }
    }
}

/// The signature of a capture holds for that request only.
#[tokio::test]
async fn a_capture_that_is_changed_in_one_place_is_refused() {
    let capture = captures("imm_refresh_basic").remove(0);
    let imm = Imm::start(ImmOptions {
        clock_offset_secs: offset(&capture),
        ..ImmOptions::default()
    });
    let imm = imm.await;
    let original = call(&capture);
    let signed = original.headers.iter().filter(|(name, _)| {
        let signs = name.starts_with("x-acs-") || ["host", "accept", "user-agent"].contains(&name.as_str());
        signs && name != "x-acs-content-sha256"
    });
    let mut changed: Vec<Call> = signed
        .map(|(name, value)| original.clone().header(name, &format!("{value}0")))
        .collect();
    assert_eq!(changed.len(), 8);
    changed.push(original.clone().text("0"));
    for (from, to) in [
        ("000&P", "001&P"),
        ("AccessToken", "accessToken"),
        ("000&P", "000&&P"),
        ("test-", "test%2D"),
    ] {
        let mut call = original.clone();
        call.query = call.query.replacen(from, to, 1);
        assert_ne!(call.query, original.query);
        changed.push(call);
    }
    let same_meaning = changed.split_off(changed.len() - 2);
    for call in changed {
        let heard = call.send(&imm.url()).await;
        assert_eq!(heard.refusal(), is(400, "SignatureDoesNotMatch"), "{call:?}");
    }
    // The wire may spell a query in its own way: it is decoded, and encoded again.
    for call in same_meaning {
        assert_ne!(call.send(&imm.url()).await.text("Code"), "SignatureDoesNotMatch");
    }
}

#[tokio::test]
async fn the_client_of_ecd_is_understood() {
    for capture in captures("ecd_") {
        let sent = &capture["call"]["request"];
        let ecd = Ecd::start(EcdOptions {
            region_id: text(sent, "RegionId").into(),
            client_id: text(sent, "ClientId").into(),
            end_user_id: "alice".into(),
            office_site_id: text(sent, "OfficeSiteId").into(),
            clock_offset_secs: offset(&capture),
            ..EcdOptions::default()
        });
        let ecd = ecd.await;
        let heard = call(&capture).send(&ecd.url()).await;
        let dead = match text(&capture, "operation") {
            "GetLoginToken" => "InvalidKeepAliveToken",
            _ => "InvalidLoginToken",
        };
        assert_eq!(heard.refusal(), is(400, dead));
        assert_eq!(ecd.counts().unknown_parameters, 0);
    }
}

#[tokio::test]
async fn the_client_of_smh_is_understood() {
    let create = captures("smh_js_create_token").remove(0);
    let smh = Smh::start(SmhOptions {
        library_id: text(&create["call"], "libraryId").into(),
        library_secret: text(&create["call"], "librarySecret").into(),
        ..SmhOptions::default()
    });
    let smh = smh.await;
    for capture in captures("smh_") {
        let heard = call(&capture).send(&smh.url()).await;
        match text(&capture, "operation") {
            "createToken" => assert_eq!((heard.status, &heard.json()["expiresIn"]), (200, &1200.into())),
            "renewToken" => assert_eq!(heard.refusal(), is(403, "InvalidAccessToken")),
            _ => assert_eq!(heard.refusal(), is(404, "RouteNotFound")),
        }
    }
    assert_eq!(smh.vendor().last_query().get("user_id"), Some("u 1"));
    assert_eq!(smh.counts().unknown_parameters, 0);
}

#[tokio::test]
async fn the_clients_of_huawei_are_understood() {
    for capture in captures("huawei_") {
        let huawei = Huawei::start(HuaweiOptions {
            client_id: text(&capture["call"], "client_id").into(),
            client_secret: text(&capture["call"], "client_secret").into(),
            ..HuaweiOptions::default()
        });
        let huawei = huawei.await;
        let heard = call(&capture).send(&huawei.url()).await;
        match text(&capture, "operation") {
            "ShowAuthToken" => assert_eq!(heard.status, 200),
            "RenewOAuthToken" => assert_eq!(heard.refusal(), is(400, "invalid_grant")),
            _ => assert_eq!(heard.refusal(), is(401, "unauthorized")),
        }
        assert_eq!(huawei.counts().unknown_parameters, 0);
    }
}
