//! Where the fields of an answer are.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use super::template::{ACCESS_TOKEN, REFRESH_TOKEN};
use crate::clock::A_YEAR;
use crate::document::Span;
use crate::provider::reading::{is_printable, seconds};

/// A JSON pointer. Source: RFC 6901.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(String);

impl Pointer {
    pub(super) fn of<'a>(&self, body: &'a Value) -> Option<&'a Value> {
        body.pointer(&self.0).filter(|value| !value.is_null())
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(pointer) if pointer.starts_with('/') => Ok(Self(pointer)),
            _ => Err(D::Error::custom(
                "is no JSON pointer; write a text that begins with /, as in /access_token",
            )),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Pointer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pointer".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "description": "A JSON pointer (RFC 6901)", "type": "string", "pattern": "^/" })
    }
}

/// Where a token, its life and what renews it stand.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields)]
pub(in crate::provider) struct Fields {
    /// The token itself, a text that is not empty.
    token: Pointer,
    /// An answer without one keeps the last.
    refresh_token: Option<Pointer>,
    /// Default: not said, then `assumed_life` of the policy (5 minutes).
    pub(super) expires: Option<Expires>,
    /// When what renews the token dies; the token is then kept alive.
    pub(super) refresh_expires: Option<Expires>,
    /// What later requests need: each becomes a placeholder of that name. An answer without one keeps the last.
    #[serde(default)]
    pub(super) keep: BTreeMap<String, Pointer>,
}

/// When something dies, as the answer says it.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(in crate::provider) enum Expires {
    /// So many seconds from now: a number, or a text of digits.
    Seconds(Pointer),
    /// So many milliseconds from now.
    Millis(Pointer),
    /// At an instant: RFC 3339 with 0 to 9 digits of a second and any offset, or seconds since 1970.
    At(Pointer),
    /// Not said: so long from the moment of sending.
    Lifetime(Span),
}

/// When something dies, by whichever clock said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// So long after the request was sent.
    After(Duration),
    /// At that time of the issuer's clock.
    At(SystemTime),
}

/// What an answer holds.
pub(super) struct Issued {
    pub(super) token: String,
    pub(super) dies: Option<Death>,
    pub(super) refresh_dies: Option<Death>,
}

impl Fields {
    pub(super) fn rotates(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// The token, or what is wrong with the answer.
    pub(super) fn issued(&self, body: &Value) -> Result<Issued, &'static str> {
        let token = match self.token.of(body) {
            Some(Value::String(token)) if token.is_empty() => Err("the token is empty"),
            Some(Value::String(token)) if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.clone()),
            Some(Value::String(_)) => Err("the token holds what is not visible ASCII"),
            Some(_) => Err("the token is not a text"),
            None => Err("it holds no token"),
        };
        let death = |expires: &Option<Expires>| match expires {
            Some(expires) => expires.death(body),
            None => Ok(None),
        };
        Ok(Issued {
            token: token?,
            dies: death(&self.expires)?,
            refresh_dies: death(&self.refresh_expires)?,
        })
    }

    /// Whether a token is said to live for no time.
    pub(super) fn is_dead_on_arrival(&self) -> bool {
        matches!(self.expires, Some(Expires::Lifetime(Span(life))) if life.is_zero())
    }

    /// Whether there is a token at all.
    pub(super) fn has_token(&self, body: &Value) -> bool {
        self.token.of(body).is_some_and(|token| token.as_str() != Some(""))
    }

    /// What the next renewal needs, over what the last one left. Something of a wrong type is an error,
    /// but what else there is in the answer is kept nevertheless.
    pub(super) fn kept(
        &self,
        body: &Value,
        last: &Map<String, Value>,
    ) -> (Map<String, Value>, Result<(), &'static str>) {
        let is_token = |name: &str| [ACCESS_TOKEN, REFRESH_TOKEN].contains(&name);
        let mut kept = last.clone();
        let mut sound = Ok(());
        let named = self.keep.iter().map(|(name, pointer)| (name.as_str(), pointer));
        let refresh_token = self.refresh_token.iter().map(|pointer| (REFRESH_TOKEN, pointer));
        let token = [(ACCESS_TOKEN, &self.token)];
        for (name, pointer) in named.chain(refresh_token).chain(token) {
            match pointer.of(body) {
                None => {}
                Some(Value::String(text)) if text.is_empty() => {}
                Some(Value::String(text)) if is_printable(text) || !is_token(name) => {
                    _ = kept.insert(name.to_owned(), text.as_str().into())
                }
                Some(_) if is_token(name) => sound = Err("what renews the token is not printable text"),
                Some(Value::Number(number)) => _ = kept.insert(name.to_owned(), number.to_string().into()),
                // Nothing that a request could use; the last one stays.
                Some(_) => {}
            }
        }
        (kept, sound)
    }
}

impl Expires {
    fn death(&self, body: &Value) -> Result<Option<Death>, &'static str> {
        match self {
            Self::Seconds(pointer) => seconds(pointer.of(body))
                .map(|life| life.map(Death::After))
                .map_err(|()| "the lifetime is not a number of seconds"),
            Self::Millis(pointer) => millis(pointer.of(body)).map(|life| life.map(Death::After)),
            Self::At(pointer) => instant(pointer.of(body)).map(|at| at.map(Death::At)),
            Self::Lifetime(Span(life)) => Ok(Some(Death::After(*life))),
        }
    }
}

/// A thousandth of what [`seconds`] reads; zero and nothing are unknown.
fn millis(value: Option<&Value>) -> Result<Option<Duration>, &'static str> {
    const WRONG: &str = "the lifetime is not a number of milliseconds";
    let millis = match value {
        None => return Ok(None),
        Some(Value::Number(number)) => number
            .as_u64()
            .or(number.as_f64().filter(|ms| *ms >= 0.0).map(|ms| ms as u64)),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Some(_) => None,
    };
    let millis = millis.ok_or(WRONG)?;
    Ok(Some(Duration::from_millis(millis).min(A_YEAR)).filter(|life| !life.is_zero()))
}

/// RFC 3339, or seconds since 1970 (milliseconds, if they are too many for a date before the year 5138).
fn instant(value: Option<&Value>) -> Result<Option<SystemTime>, &'static str> {
    const WRONG: &str = "the time of expiry is neither RFC 3339 nor seconds since 1970";
    let since_epoch = |number: f64| {
        let seconds = if number > 1e11 { number / 1000.0 } else { number };
        let since = Duration::try_from_secs_f64(seconds).map_err(|_| WRONG)?;
        UNIX_EPOCH.checked_add(since).map(Some).ok_or(WRONG)
    };
    match value {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            since_epoch(text.parse().map_err(|_| WRONG)?)
        }
        Some(Value::String(text)) => rfc3339(text).map(Some).ok_or(WRONG),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(None),
        Some(Value::Number(number)) => since_epoch(number.as_f64().ok_or(WRONG)?),
        Some(_) => Err(WRONG),
    }
}

/// Source: RFC 3339 §5.6. An offset has to be there; without one nobody knows the instant.
pub(crate) fn rfc3339(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(expires: Value) -> Fields {
        serde_json::from_value(
            json!({ "token": "/t", "refresh_token": "/r", "expires": expires, "keep": { "s": "/s" } }),
        )
        .unwrap()
    }

    fn dies(expires: Value, answer: Value) -> Result<Option<Death>, &'static str> {
        let mut answer = answer;
        answer["t"] = "test-t".into();
        fields(expires).issued(&answer).map(|issued| issued.dies)
    }

    #[test]
    fn lifetimes_are_read_in_every_form() {
        let after = |ms| Ok(Some(Death::After(Duration::from_millis(ms))));
        let seconds = || json!({ "seconds": "/e" });
        for (expires, answer, expected) in [
            (seconds(), json!({ "e": 7200 }), after(7_200_000)),
            (seconds(), json!({ "e": "7200" }), after(7_200_000)),
            (seconds(), json!({ "e": 0 }), Ok(None)),
            (seconds(), json!({ "e": null }), Ok(None)),
            (seconds(), json!({}), Ok(None)),
            (seconds(), json!({ "e": u64::MAX }), Ok(Some(Death::After(A_YEAR)))),
            (json!({ "millis": "/e" }), json!({ "e": 1500 }), after(1500)),
            (json!({ "millis": "/e" }), json!({ "e": "1500" }), after(1500)),
            (json!({ "lifetime": "15m" }), json!({}), after(900_000)),
        ] {
            assert_eq!(dies(expires.clone(), answer.clone()), expected, "{expires} {answer}");
        }
        for wrong in [json!(-1), json!("soon"), json!([]), json!({}), json!(true)] {
            assert!(dies(seconds(), json!({ "e": wrong })).is_err());
            assert!(dies(json!({ "millis": "/e" }), json!({ "e": wrong })).is_err());
            assert!(dies(json!({ "at": "/e" }), json!({ "e": wrong })).is_err());
        }
    }

    #[test]
    fn instants_are_read_with_any_fraction_and_offset() {
        let at = |text: Value| dies(json!({ "at": "/e" }), json!({ "e": text }));
        let expected = |nanos: u64| Ok(Some(Death::At(UNIX_EPOCH + Duration::from_nanos(nanos))));
        let second = 1_630_415_248_000_000_000;
        assert_eq!(at("2021-08-31T13:07:28Z".into()), expected(second));
        assert_eq!(at("2021-08-31T13:07:28.95Z".into()), expected(second + 950_000_000));
        assert_eq!(
            at("2021-08-31T13:07:28.950065359Z".into()),
            expected(second + 950_065_359)
        );
        assert_eq!(at("2021-08-31T21:07:28.9+08:00".into()), expected(second + 900_000_000));
        assert_eq!(at("2021-08-31T08:37:28-04:30".into()), expected(second));
        assert_eq!(at(1_630_415_248_u64.into()), expected(second));
        assert_eq!(at("1630415248".into()), expected(second));
        assert_eq!(at(1_630_415_248_000_u64.into()), expected(second));
        assert_eq!(at("".into()), Ok(None));
        for wrong in [
            "2021-08-31T13:07:28",
            "2021-08-31",
            "yesterday",
            "99999999999999999999999999",
        ] {
            assert!(at(wrong.into()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_a_text_that_is_not_empty() {
        for wrong in [
            json!({}),
            json!({ "t": null }),
            json!({ "t": "" }),
            json!({ "t": 7 }),
            json!({ "t": "a b" }),
        ] {
            assert!(fields(json!({ "lifetime": "1m" })).issued(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_answer_leaves_out_is_kept() {
        let fields = fields(json!({ "lifetime": "1m" }));
        let last = json!({ "access_token": "test-1", "refresh_token": "test-r1", "s": "test-s1" });
        let last = last.as_object().unwrap();
        let kept = |answer: Value| {
            let (kept, sound) = fields.kept(&answer, last);
            (Value::Object(kept), sound.is_ok())
        };
        assert_eq!(
            kept(json!({ "t": "test-2", "r": "", "s": 7 })),
            (
                json!({ "access_token": "test-2", "refresh_token": "test-r1", "s": "7" }),
                true
            )
        );
        assert_eq!(
            kept(json!({ "t": 2, "r": "test-r2" })),
            (
                json!({ "access_token": "test-1", "refresh_token": "test-r2", "s": "test-s1" }),
                false
            )
        );
    }
}
