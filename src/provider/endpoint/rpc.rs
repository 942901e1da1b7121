//! Alibaba Cloud's older signature of RPC requests, version 1: HMAC-SHA1 over the query and the form.
//!
//! For gateways that know nothing else; [`acs3`](super::acs3) is what the vendor recommends.
//!
//! Source: Alibaba Cloud, "RPC mechanism: request signature".

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::request;
use sha1::Sha1;
use zeroize::Zeroizing;

use super::acs3::{AccessKey, canonical_query, with_query};
use crate::percent;

/// Adds key, date, nonce and signature to the query of a request whose operation stands there already.
pub(super) fn sign(
    key: &AccessKey,
    head: &mut request::Parts,
    body: &[u8],
    timestamp: &str,
    nonce: &str,
) -> http::Result<()> {
    let query = head.uri.query().unwrap_or_default();
    let mut pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let own = [
        ("AccessKeyId", key.access_key_id.expose().as_str()),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureVersion", "1.0"),
        ("SignatureNonce", nonce),
        ("Timestamp", timestamp),
    ];
    let security_token = key
        .security_token
        .as_ref()
        .map(|token| ("SecurityToken", token.expose().as_str()));
    for (name, value) in own.into_iter().chain(security_token) {
        pairs.retain(|(known, _)| known != name);
        pairs.push((name.to_owned(), value.to_owned()));
    }
    let query = Zeroizing::new(joined(&pairs));
    let with_form = Zeroizing::new([query.as_str(), std::str::from_utf8(body).unwrap_or_default()].join("&"));
    let text = string_to_sign(head.method.as_str(), &canonical_query(&with_form));
    let signature = signature(&text, key.access_key_secret.expose());
    let query = format!("{}&Signature={}", *query, percent::encoded(&signature));
    head.uri = with_query(&head.uri, &query)?;
    Ok(())
}

fn joined(pairs: &[(String, String)]) -> String {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", percent::encoded(name), percent::encoded(value)))
        .collect();
    pairs.join("&")
}

fn string_to_sign(method: &str, canonical_query: &str) -> String {
    format!("{method}&%2F&{}", percent::encoded(canonical_query))
}

fn signature(string_to_sign: &str, secret: &str) -> String {
    let key = Zeroizing::new(format!("{secret}&"));
    // HMAC takes keys of any length (RFC 2104 §2), so this has no other branch.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    mac.update(string_to_sign.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::acs3::tests::vectors;
    use super::*;

    #[test]
    fn every_vector_is_reproduced() {
        let mut seen = 0;
        for vector in vectors("HMAC-SHA1") {
            let text = |field: &str| vector[field].as_str().unwrap();
            let params = vector["params"].as_object().unwrap();
            let pairs: Vec<(String, String)> = params
                .iter()
                .filter(|(name, _)| *name != "Signature")
                .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
                .collect();
            let canonical = canonical_query(&joined(&pairs));
            let to_sign = string_to_sign(text("method"), &canonical);
            assert_eq!(to_sign, text("string_to_sign"), "{}", text("name"));
            assert_eq!(signature(&to_sign, text("access_key_secret")), text("signature"));
            seen += 1;
        }
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_request_is_signed_as_the_documentation_has_it() {
        let key = AccessKey {
            access_key_id: "testid".into(),
            access_key_secret: "testsecret".into(),
            security_token: None,
        };
        let url = "https://ecs.aliyuncs.com/?Action=DescribeRegions&Format=XML&Version=2014-05-26";
        let (mut head, ()) = http::Request::get(url).body(()).unwrap().into_parts();
        let nonce = "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf";
        sign(&key, &mut head, b"", "2016-02-23T12:46:24Z", nonce).unwrap();
        let query = head.uri.query().unwrap();
        assert!(
            query.ends_with("&Signature=OLeaidS1JvxuMvnyHOwuJ%2BuX5qY%3D"),
            "{query}"
        );
    }
}
