//! Alibaba Cloud's request signature, version 3: ACS3-HMAC-SHA256.
//!
//! Signed is the minimal set, `host`, `content-type` where there is one and every `x-acs-*`, so that a
//! proxy that rewrites a `User-Agent` breaks nothing. The query that is sent is the canonical one, byte
//! for byte: what the gateway decodes and encodes again is then the same by construction.
//!
//! Source: Alibaba Cloud, "V3 request structure and signature".

use std::borrow::Cow;
use std::fmt::Write;
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, request};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::percent;
use crate::token::Secret;

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// The key that a request is signed with.
#[derive(Clone)]
pub(crate) struct AccessKey {
    pub(in crate::provider) access_key_id: Secret<String>,
    pub(in crate::provider) access_key_secret: Secret<String>,
    /// Of temporary keys (STS).
    pub(in crate::provider) security_token: Option<Secret<String>>,
}

/// Adds date, nonce, hash and signature to a request that is final but for the order of its query.
pub(super) fn sign(
    key: &AccessKey,
    head: &mut request::Parts,
    body: &[u8],
    timestamp: &str,
    nonce: &str,
) -> http::Result<()> {
    let query = canonical_query(head.uri.query().unwrap_or_default());
    head.uri = with_query(&head.uri, &query)?;
    let hash = hex(&Sha256::digest(body));
    let mut put = |name: &'static str, value: &str| -> http::Result<()> {
        let mut value = HeaderValue::from_str(value)?;
        value.set_sensitive(name == "x-acs-security-token");
        head.headers.insert(HeaderName::from_static(name), value);
        Ok(())
    };
    put("x-acs-date", timestamp)?;
    put("x-acs-signature-nonce", nonce)?;
    put("x-acs-content-sha256", &hash)?;
    if let Some(token) = &key.security_token {
        put("x-acs-security-token", token.expose())?;
    }
    let mut signed: Vec<(&str, Cow<'_, str>)> = head
        .headers
        .keys()
        .filter(|name| **name == CONTENT_TYPE || name.as_str().starts_with("x-acs-"))
        .map(|name| (name.as_str(), values(head.headers.get_all(name).iter())))
        .collect();
    // The client writes it, from the URL: not ours to send, over HTTP/2 least of all.
    signed.push(("host", host(&head.uri)));
    let canonical = canonical_request(head.method.as_str(), head.uri.path(), &query, signed, &hash);
    let signature = signature(&string_to_sign(&canonical.request), key.access_key_secret.expose());
    let mut authorization = HeaderValue::from_str(&format!(
        "{ALGORITHM} Credential={},SignedHeaders={},Signature={signature}",
        key.access_key_id.expose(),
        canonical.signed_headers,
    ))?;
    authorization.set_sensitive(true);
    head.headers.insert(AUTHORIZATION, authorization);
    Ok(())
}

/// `2026-11-21T10:17:45Z`.
pub(super) fn timestamp(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// 32 hexadecimal digits, drawn anew each time.
pub(super) fn nonce() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Sorted by name, each half encoded by RFC 3986. What stands twice keeps its order.
pub(super) fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    pairs.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", percent::encoded(name), percent::encoded(value)))
        .collect();
    pairs.join("&")
}

/// As every client writes it: without a port that is the scheme's own.
fn host(uri: &http::Uri) -> Cow<'_, str> {
    let Some(authority) = uri.authority() else {
        return "".into();
    };
    match (uri.scheme_str(), authority.port_u16()) {
        (Some("https"), Some(443)) | (Some("http"), Some(80)) => authority.host().into(),
        _ => authority.as_str().into(),
    }
}

pub(super) fn with_query(uri: &http::Uri, query: &str) -> http::Result<http::Uri> {
    let mut parts = uri.clone().into_parts();
    let path = uri.path();
    let path_and_query = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    };
    parts.path_and_query = Some(path_and_query.try_into()?);
    Ok(http::Uri::from_parts(parts)?)
}

/// Several values of one header: each trimmed, sorted, joined.
fn values<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Cow<'a, str> {
    let mut texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).map(str::trim).collect();
    if let [only] = texts[..] {
        return only.into();
    }
    texts.sort_unstable();
    texts.join(",").into()
}

struct Canonical {
    request: Zeroizing<String>,
    signed_headers: String,
}

fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    mut headers: Vec<(&str, Cow<'_, str>)>,
    hash: &str,
) -> Canonical {
    headers.sort_by_key(|(name, _)| *name);
    let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
    let signed_headers = names.join(";");
    let mut request = Zeroizing::new(format!("{method}\n{path}\n{query}\n"));
    for (name, value) in &headers {
        // Writing to a string does not fail.
        let _ = writeln!(request, "{name}:{value}");
    }
    let _ = write!(request, "\n{signed_headers}\n{hash}");
    Canonical {
        request,
        signed_headers,
    }
}

fn string_to_sign(canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{}", hex(&Sha256::digest(canonical_request)))
}

fn signature(string_to_sign: &str, secret: &str) -> String {
    // HMAC takes keys of any length (RFC 2104 §2), so this has no other branch.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(string_to_sign.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;

    /// The vectors of one algorithm, from the vendor's documentation and its own clients.
    pub(in super::super) fn vectors(algorithm: &str) -> Vec<Value> {
        let all: Vec<Value> = serde_json::from_str(include_str!("../../../tests/vendors/data/acs3.json")).unwrap();
        all.into_iter().filter(|vector| vector["alg"] == algorithm).collect()
    }

    fn signed(vector: &Value, path: &str, query: &str) -> Canonical {
        let text = |field: &str| vector[field].as_str().unwrap();
        let headers = vector["headers"].as_array().unwrap();
        let headers = headers
            .iter()
            .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap().into()));
        let hash = hex(&Sha256::digest(text("body_utf8")));
        canonical_request(text("method"), path, &canonical_query(query), headers.collect(), &hash)
    }

    #[test]
    fn every_vector_is_reproduced_byte_for_byte() {
        let vectors = vectors(ALGORITHM);
        assert_eq!(vectors.len(), 9);
        for vector in vectors {
            let text = |field: &str| vector[field].as_str().unwrap();
            let canonical = signed(&vector, "/", text("query_wire"));
            assert_eq!(*canonical.request, text("canonical_request"), "{}", text("name"));
            let to_sign = string_to_sign(&canonical.request);
            assert_eq!(to_sign, text("string_to_sign"));
            assert_eq!(signature(&to_sign, text("access_key_secret")), text("signature"));
        }
    }

    #[test]
    fn every_capture_has_the_signature_that_we_would_give_it() {
        macro_rules! capture {
            ($name:literal) => {
                include_str!(concat!("../../../tests/vendors/data/captures/", $name, ".json"))
            };
        }
        for capture in [
            capture!("imm_generate_basic"),
            capture!("imm_refresh_basic"),
            capture!("imm_refresh_credconfig"),
            capture!("imm_refresh_pct_nonascii"),
            capture!("imm_refresh_sts"),
        ] {
            let capture: Value = serde_json::from_str(capture).unwrap();
            let request = &capture["request"];
            let authorization = request["headers"]["Authorization"].as_str().unwrap();
            let (_, rest) = authorization.split_once("SignedHeaders=").unwrap();
            let (names, expected) = rest.split_once(",Signature=").unwrap();
            let value = |name: &str| {
                let headers = request["headers"].as_object().unwrap();
                let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.unwrap().1.as_str().unwrap().into()
            };
            let headers = names.split(';').map(|name| (name, value(name))).collect();
            let query = canonical_query(request["query"].as_str().unwrap());
            let hash = hex(&Sha256::digest(request["body_utf8"].as_str().unwrap()));
            let path = request["path"].as_str().unwrap();
            let canonical = canonical_request(request["method"].as_str().unwrap(), path, &query, headers, &hash);
            let secret = capture["access_key_secret"].as_str().unwrap();
            assert_eq!(
                signature(&string_to_sign(&canonical.request), secret),
                expected,
                "{}",
                capture["name"]
            );
        }
    }

    #[test]
    fn the_query_that_is_sent_is_the_one_that_was_signed() {
        let key = AccessKey {
            access_key_id: "test-id".into(),
            access_key_secret: "test-secret".into(),
            security_token: Some("test-sts+/=".into()),
        };
        let url = "https://imm.cn-shanghai.aliyuncs.com:443/?b=2+3&a-b=%2a&a=%e4%b8%ad&B=&a=1";
        let (mut head, ()) = http::Request::post(url).body(()).unwrap().into_parts();
        sign(&key, &mut head, b"", "2026-11-21T10:17:45Z", "0123").unwrap();
        assert_eq!(head.uri.query(), Some("B=&a=%E4%B8%AD&a=1&a-b=%2A&b=2%203"));
        let authorization = head.headers[AUTHORIZATION].to_str().unwrap();
        assert!(authorization.contains("SignedHeaders=host;x-acs-content-sha256;x-acs-date;x-acs-security-token;"));
        assert!(head.headers[AUTHORIZATION].is_sensitive() && head.headers["x-acs-security-token"].is_sensitive());
        assert_eq!(host(&head.uri), "imm.cn-shanghai.aliyuncs.com");
    }

    #[test]
    fn several_values_of_a_header_are_trimmed_sorted_and_joined() {
        let text = |text: &'static str| HeaderValue::from_static(text);
        assert_eq!(values([text("b"), text(" a "), text("c")].iter()), "a,b,c");
        assert_eq!(values([text("  only ")].iter()), "only");
    }

    #[test]
    fn the_time_has_no_fraction_and_nonces_differ() {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_700_000_000_999_999_999);
        assert_eq!(timestamp(at), "2023-11-14T22:13:20Z");
        let one = nonce();
        assert!(one.len() == 32 && one.bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
        assert_ne!(one, nonce());
    }
}
