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
use crate::provider::exchange::Hidden;
use crate::token::Secret;

const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// The keys that a request is signed with.
#[derive(Clone)]
pub(crate) struct Acs3 {
    pub(in crate::provider) access_key_id: Secret<String>,
    pub(in crate::provider) access_key_secret: Secret<String>,
    /// Of temporary keys (STS).
    pub(in crate::provider) security_token: Option<Secret<String>>,
}

impl Acs3 {
    /// Adds date, nonce, hash and signature to a request whose URL is final but for its query's order.
    pub(super) fn sign(
        &self,
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
        if let Some(token) = &self.security_token {
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
        let authorization = Zeroizing::new(format!(
            "{ALGORITHM} Credential={},SignedHeaders={},Signature={}",
            self.access_key_id.expose(),
            canonical.signed_headers,
            signature(&string_to_sign(&canonical.request), self.access_key_secret.expose()),
        ));
        let mut authorization = HeaderValue::from_str(&authorization)?;
        authorization.set_sensitive(true);
        head.headers.insert(AUTHORIZATION, authorization);
        Ok(())
    }

    pub(super) fn hide(&self, hidden: &mut Hidden) {
        hidden.add(self.access_key_secret.expose());
        hidden.add(self.security_token.as_ref().map_or("", |token| token.expose()));
    }
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
fn canonical_query(query: &str) -> String {
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

fn with_query(uri: &http::Uri, query: &str) -> http::Result<http::Uri> {
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
    headers.sort_by(|(one, _), (other, _)| one.cmp(other));
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
