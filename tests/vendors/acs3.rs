//! Checks `ACS3-HMAC-SHA256` from what was received: the raw query, the headers and the body.
//!
//! Source: the vendor's "V3 request structure and signature" page.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::wire::{Form, encode, hex, parse_seconds};
use super::{Asked, Desk};

pub(crate) const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// How far the time of a request may be from the server's own.
pub(crate) const WINDOW: Duration = Duration::from_secs(15 * 60);

const REQUIRED: [&str; 6] = [
    "host",
    "x-acs-action",
    "x-acs-content-sha256",
    "x-acs-date",
    "x-acs-signature-nonce",
    "x-acs-version",
];

/// Who may sign.
#[derive(Clone, Debug)]
pub(crate) struct AccessKey {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// The STS token that has to come along with the key; `None`: a long-lived key, which has none.
    pub(crate) security_token: Option<String>,
}

impl Default for AccessKey {
    fn default() -> Self {
        Self {
            id: "testAccessKeyId".into(),
            secret: "testAccessKeySecret".into(),
            security_token: None,
        }
    }
}

/// Status, code and message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

/// The nonces that were seen. An attempt that a fault answers has spent its nonce, too.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<HashSet<String>>);

impl Nonces {
    /// Whether it is new.
    pub(crate) fn spend(&self, nonce: &str) -> bool {
        self.0.lock().unwrap().insert(nonce.into())
    }
}

/// The `Authorization` header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub(crate) key: String,
    pub(crate) signed: Vec<String>,
    pub(crate) signature: String,
}

impl Authorization {
    /// Exactly `ACS3-HMAC-SHA256 Credential=…,SignedHeaders=…,Signature=…`, names sorted and in lower case.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let fields = value.strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
        let [key, signed, signature] = fields.split(',').collect::<Vec<_>>().try_into().ok()?;
        let key = key.strip_prefix("Credential=").filter(|key| !key.is_empty())?;
        let signature = signature.strip_prefix("Signature=")?;
        let signed: Vec<String> = signed
            .strip_prefix("SignedHeaders=")?
            .split(';')
            .map(String::from)
            .collect();
        let sorted = signed.windows(2).all(|pair| pair[0] < pair[1]);
        let lower = |text: &str| !text.is_empty() && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let named = sorted && signed.iter().all(|name| lower(name));
        (named && signature.len() == 64 && lower(signature)).then(|| Self {
            key: key.into(),
            signed,
            signature: signature.into(),
        })
    }
}

/// `None` if a signed header was not sent.
pub(crate) fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    signed: &[String],
    body: &[u8],
) -> Option<String> {
    let mut pairs = Form::parse(query).pairs().to_vec();
    // By name alone: the sort is stable, and one name twice keeps the order of the wire.
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    let query: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    let mut lines = String::new();
    for name in signed {
        let mut values = Vec::new();
        for value in headers.get_all(name.as_str()) {
            values.push(std::str::from_utf8(value.as_bytes()).ok()?.trim());
        }
        if values.is_empty() {
            return None;
        }
        values.sort_unstable();
        lines.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let (query, signed, body) = (query.join("&"), signed.join(";"), sha256(body));
    Some(format!("{method}\n{path}\n{query}\n{lines}\n{signed}\n{body}"))
}

pub(crate) fn string_to_sign(canonical_request: &str) -> String {
    format!("{ALGORITHM}\n{}", sha256(canonical_request.as_bytes()))
}

pub(crate) fn signature(secret: &str, string_to_sign: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(string_to_sign.as_bytes());
    hex(&mac.finalize().into_bytes())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Checks one attempt, and counts what is wrong with it.
pub(crate) fn check(asked: &Asked, key: &AccessKey, nonces: &Nonces, desk: &Desk) -> Result<(), Refusal> {
    let nonce = asked.header("x-acs-signature-nonce").unwrap_or_default();
    let fresh = nonces.spend(nonce) || nonce.is_empty();
    if !fresh {
        desk.count(|counts| counts.nonce_reused += 1);
    }
    is_signed(asked, key).inspect_err(|_| desk.count(|counts| counts.signature_failures += 1))?;
    in_time(asked.header("x-acs-date").unwrap_or_default(), desk)?;
    if fresh { Ok(()) } else { Err(nonce_used()) }
}

fn is_signed(asked: &Asked, key: &AccessKey) -> Result<(), Refusal> {
    let incomplete = |what: String| Refusal(400, "IncompleteSignature", what);
    let authorization = asked.header("authorization").and_then(Authorization::parse);
    let authorization = authorization.ok_or_else(|| incomplete("no well-formed Authorization header".into()))?;
    if authorization.key != key.id {
        let message = "Specified access key is not found.".into();
        return Err(Refusal(404, "InvalidAccessKeyId.NotFound", message));
    }
    let signs = |name: &str| authorization.signed.iter().any(|signed| signed == name);
    // The rule is "host, content-type and every x-acs-*". An unsigned type of no body is tolerated:
    // one of the vendor's own clients sends it.
    let sent = asked.headers.keys().map(|name| name.as_str());
    let to_sign = sent.filter(|name| match *name {
        "content-type" => !asked.body.is_empty(),
        name => name.starts_with("x-acs-"),
    });
    if let Some(name) = REQUIRED.into_iter().chain(to_sign).find(|name| !signs(name)) {
        return Err(incomplete(format!("{name} is not signed")));
    }
    if asked.header("x-acs-security-token") != key.security_token.as_deref() {
        let message = "Specified SecurityToken does not belong to the access key.".into();
        return Err(Refusal(400, "InvalidSecurityToken.MismatchWithAccessKey", message));
    }
    let mismatch = || {
        let message = "Specified signature is not matched with our calculation.".into();
        Refusal(400, "SignatureDoesNotMatch", message)
    };
    if asked.header("x-acs-content-sha256") != Some(sha256(&asked.body).as_str()) {
        return Err(mismatch());
    }
    let canonical = canonical_request(
        asked.method.as_str(),
        &asked.path,
        &asked.query,
        &asked.headers,
        &authorization.signed,
        &asked.body,
    );
    let ours = canonical.map(|canonical| signature(&key.secret, &string_to_sign(&canonical)));
    if ours == Some(authorization.signature) {
        Ok(())
    } else {
        Err(mismatch())
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ`, no further than [`WINDOW`] from the server's clock.
pub(crate) fn in_time(date: &str, desk: &Desk) -> Result<(), Refusal> {
    let refused = match parse_seconds(date) {
        None => Refusal(
            400,
            "InvalidTimeStamp.Format",
            "Specified time stamp is malformed.".into(),
        ),
        Some(time) if apart(time, desk.now()) > WINDOW => {
            let message = "Specified time stamp or date value is expired.".into();
            Refusal(400, "InvalidTimeStamp.Expired", message)
        }
        Some(_) => return Ok(()),
    };
    desk.count(|counts| counts.clock_refusals += 1);
    Err(refused)
}

pub(crate) fn nonce_used() -> Refusal {
    let message = "Specified signature nonce was used already.".into();
    Refusal(400, "SignatureNonceUsed", message)
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}
