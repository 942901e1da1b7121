//! How the parts of an issuer's answer are read: what OAuth endpoints and all others have in common.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::clock::A_YEAR;
use crate::token::is_all;

/// How long to wait, by `Retry-After`. At most an hour is obeyed.
///
/// Source: RFC 9110 §10.2.3.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(AN_HOUR));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    // The issuer's own clock, where it tells it: ours may be off by more than the wait.
    let wait = until.duration_since(date(headers).unwrap_or(now)).unwrap_or_default();
    Some(wait.min(AN_HOUR))
}

/// The time of day at the issuer. Source: RFC 9110 §6.6.1.
pub(super) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

/// Whether the issuer may have spent the credential before it failed, a proxy in front of it included: 520 and 524 are
/// Cloudflare's, whose connection to the issuer broke or ran out of time after the request was sent there.
pub(super) fn may_have_committed(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 504 | 520 | 524)
}

pub(super) fn is_printable(text: &str) -> bool {
    is_all(text, |byte| (b' '..=b'~').contains(&byte))
}

/// Whole seconds, rounded down, at most a year; nothing and zero are unknown.
pub(super) fn seconds(value: Option<&Value>) -> Result<Option<Duration>, ()> {
    let seconds = match value {
        None | Some(Value::Null) => 0,
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(seconds), _) => seconds,
            // Rounds down, and ends at `u64::MAX`.
            (None, Some(seconds)) if seconds >= 0.0 => seconds as u64,
            _ => return Err(()),
        },
        Some(Value::String(text)) => digits(text)?,
        Some(_) => return Err(()),
    };
    Ok(Some(Duration::from_secs(seconds).min(A_YEAR)).filter(|life| !life.is_zero()))
}

/// `3600`, `3599.5`, and nothing else that a parser of numbers might take (`+1`, `3.6e3`, `inf`).
fn digits(text: &str) -> Result<u64, ()> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() {
        return Ok(0);
    }
    if whole.is_empty() || fraction.is_empty() || !plain(whole) || !plain(fraction) {
        return Err(());
    }
    Ok(whole.parse().unwrap_or(u64::MAX))
}

pub(super) fn json(body: &[u8]) -> Result<Value, &'static str> {
    // The parser's own limit (128) keeps its stack; ours is stricter.
    if nests_deeper_than(JSON_DEPTH, body) {
        return Err("it is nested deeper than 32");
    }
    let mut parser = serde_json::Deserializer::from_slice(body);
    let fields = parser.deserialize_map(Fields).map_err(|error| {
        if error.to_string().starts_with(TWICE) {
            TWICE
        } else {
            NOT_AN_OBJECT
        }
    })?;
    parser.end().map_err(|_| NOT_AN_OBJECT)?;
    Ok(Value::Object(fields))
}

/// Counts brackets outside of strings; what is not JSON is left to the parser.
fn nests_deeper_than(limit: usize, body: &[u8]) -> bool {
    // Almost no answer has as many, in strings or not, and to count them is quick.
    let opening = body.iter().filter(|byte| matches!(byte, b'{' | b'['));
    if opening.count() <= limit {
        return false;
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

/// The top-level object, in which no name may stand twice: which of two values counts would be the parser's choice.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if fields.insert(name, value).is_some() {
                return Err(A::Error::custom(TWICE));
            }
        }
        Ok(fields)
    }
}

const JSON_DEPTH: usize = 32;
const AN_HOUR: Duration = Duration::from_secs(3600);
pub(super) const TWICE: &str = "a field stands in it twice";
pub(super) const NOT_AN_OBJECT: &str = "it is not a JSON object";
