//! What the errors of an API mean.

use http::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

use super::answer::Pointer;
use crate::document;
use crate::provider::reading::may_have_committed;

/// Where an error's code stands, and the class of each code.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields, default)]
pub(in crate::provider) struct Errors {
    /// One pointer or several; the first that holds something counts.
    code: Pointers,
    /// Where an answer without a token says what it wants first (`"NextStage": "MFAVerify"`); beside a token it means nothing.
    unfinished: Pointers,
    /// Codes that are none, for APIs that write one into every answer (`"errcode": 0`).
    ok: Vec<Code>,
    /// What each code means; a code in no list is read by the status.
    pub(super) classes: Classes,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields, default)]
pub(in crate::provider) struct Classes {
    /// Asked too often; the token in place is as good as before.
    throttled: Vec<Code>,
    /// May work later.
    transient: Vec<Code>,
    /// The token or what renews it is dead.
    pub(super) terminal: Vec<Code>,
    /// A person has to act.
    needs_interaction: Vec<Code>,
    /// The program is configured wrongly.
    config: Vec<Code>,
    /// The request may have been carried out before.
    ambiguous: Vec<Code>,
    /// Our clock is off: it is corrected by the answer's `Date`, and the request sent once more.
    clock: Vec<Code>,
}

/// What an error means for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Throttled,
    Transient,
    Terminal,
    NeedsInteraction,
    Config,
    Ambiguous,
    Clock,
    /// A server that failed after it may have done what it was asked.
    Lost,
}

impl Errors {
    /// The code in a body, if there is one that is an error.
    pub(super) fn code(&self, body: &Value) -> Option<String> {
        let mut codes = self.code.0.iter().filter_map(|pointer| text(pointer.of(body)?));
        codes.find(|code| !self.ok.iter().any(|ok| ok.matches(code)))
    }

    /// What an answer without a token wants first.
    pub(super) fn unfinished(&self, body: &Value) -> Option<String> {
        self.unfinished.0.iter().find_map(|pointer| text(pointer.of(body)?))
    }

    /// By its code; what is in no list, by its status.
    pub(super) fn meaning(&self, status: StatusCode, code: Option<&str>) -> Meaning {
        self.listed(status, code).unwrap_or_else(|| by_status(status))
    }

    /// By the lists alone.
    pub(super) fn listed(&self, status: StatusCode, code: Option<&str>) -> Option<Meaning> {
        let Classes {
            throttled,
            transient,
            terminal,
            needs_interaction,
            config,
            ambiguous,
            clock,
        } = &self.classes;
        let lists = [
            (clock, Meaning::Clock),
            (throttled, Meaning::Throttled),
            (config, Meaning::Config),
            (needs_interaction, Meaning::NeedsInteraction),
            (terminal, Meaning::Terminal),
            (ambiguous, Meaning::Ambiguous),
            (transient, Meaning::Transient),
        ];
        let named = |text: &str| {
            // The longest entry that matches is the most exact one.
            let matching = lists
                .iter()
                .flat_map(|(list, meaning)| list.iter().map(move |entry| (entry, *meaning)));
            let matching = matching.filter(|(entry, _)| entry.matches(text));
            matching
                .max_by_key(|(entry, _)| entry.exactness())
                .map(|(_, meaning)| meaning)
        };
        let listed = code.and_then(named).or_else(|| named(status.as_str()));
        // A server that fails gives no verdict, whatever it says, and what it did before that nobody knows.
        let counts = |meaning: &Meaning| matches!(meaning, Meaning::Throttled | Meaning::Ambiguous | Meaning::Clock);
        listed.filter(|meaning| !status.is_server_error() || counts(meaning))
    }
}

fn by_status(status: StatusCode) -> Meaning {
    match status.as_u16() {
        429 => Meaning::Throttled,
        _ if may_have_committed(status) => Meaning::Lost,
        408 | 425 => Meaning::Transient,
        400..=499 => Meaning::Terminal,
        // A code that nobody listed in an answer of 200 says nothing certain.
        _ => Meaning::Transient,
    }
}

/// An error code, as a text; of a number its digits. Zero, `false` and nothing are none.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) if number.as_f64() != Some(0.0) => Some(number.to_string()),
        Value::Bool(true) => Some("true".into()),
        _ => None,
    }
}

/// One code of a list: a text or a number; `Throttling.*` is every text that begins so. A status counts too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Code(String);

impl Code {
    fn matches(&self, code: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(start) => code.starts_with(start),
            None => code == self.0,
        }
    }

    fn exactness(&self) -> usize {
        match self.0.strip_suffix('*') {
            Some(start) => start.len(),
            None => usize::MAX,
        }
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(code) if !code.is_empty() => Ok(Self(code)),
            Value::Number(code) => Ok(Self(code.to_string())),
            _ => Err(D::Error::custom(
                r#"is no code; write a number or a text, which may end in *, as in "Throttling.*""#,
            )),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Pointers(Vec<Pointer>);

impl<'de> Deserialize<'de> for Pointers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            list @ Value::Array(_) => document::within(list).map(Self),
            one => document::within(one).map(|pointer| Self(vec![pointer])),
        }
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

    use super::super::answer::Pointer;
    use super::{Code, Pointers};

    impl JsonSchema for Code {
        fn schema_name() -> Cow<'static, str> {
            "Code".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "description": "An error code or a status; Throttling.* is every code that begins so",
                "type": ["string", "number"]
            })
        }
    }

    impl JsonSchema for Pointers {
        fn schema_name() -> Cow<'static, str> {
            "Pointers".into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            let one = generator.subschema_for::<Pointer>();
            json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors() -> Errors {
        serde_json::from_value(json!({
            "code": ["/errcode", "/Code"],
            "ok": [0, "ok"],
            "classes": {
                "throttled": [45009, "429", "Throttling*"],
                "terminal": [40013, "InvalidAccessToken", "4031"],
                "config": ["Invalid*", "404"],
                "clock": ["InvalidTimeStamp.Expired"],
            }
        }))
        .unwrap()
    }

    #[test]
    fn a_code_is_found_as_text_or_number_and_ok_is_none() {
        let code = |body: Value| errors().code(&body);
        assert_eq!(code(json!({ "errcode": 45009 })).as_deref(), Some("45009"));
        assert_eq!(code(json!({ "errcode": 0, "Code": "X" })).as_deref(), Some("X"));
        assert_eq!(code(json!({ "errcode": 0 })), None);
        assert_eq!(code(json!({ "errcode": "ok" })), None);
        assert_eq!(code(json!({ "errcode": "" })), None);
        assert_eq!(code(json!({ "errcode": null })), None);
        assert_eq!(code(json!([])), None);
    }

    #[test]
    fn the_most_exact_entry_decides_then_the_status() {
        let meaning = |status: u16, code: Option<&str>| errors().meaning(StatusCode::from_u16(status).unwrap(), code);
        for (status, code, expected) in [
            (200, Some("45009"), Meaning::Throttled),
            (400, Some("Throttling.User"), Meaning::Throttled),
            (400, Some("InvalidAccessToken"), Meaning::Terminal),
            (400, Some("InvalidOther"), Meaning::Config),
            (400, Some("InvalidTimeStamp.Expired"), Meaning::Clock),
            (404, None, Meaning::Config),
            (404, Some("InvalidAccessToken"), Meaning::Terminal),
            (429, Some("whatever"), Meaning::Throttled),
            (403, Some("whatever"), Meaning::Terminal),
            (403, None, Meaning::Terminal),
            (408, None, Meaning::Transient),
            (500, None, Meaning::Lost),
            (520, None, Meaning::Lost),
            (521, None, Meaning::Transient),
            (524, None, Meaning::Lost),
            (502, Some("whatever"), Meaning::Lost),
            (503, None, Meaning::Transient),
            (504, None, Meaning::Lost),
            (500, Some("InvalidAccessToken"), Meaning::Lost),
            (500, Some("Throttling.Api"), Meaning::Throttled),
            (307, None, Meaning::Transient),
            (200, Some("whatever"), Meaning::Transient),
        ] {
            assert_eq!(meaning(status, code), expected, "{status} {code:?}");
        }
    }
}
