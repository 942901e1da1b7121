//! Texts with placeholders: `/api/v1/token/{library_id}/{access_token}`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::token::Secret;

/// A text in which `{name}` stands for a value; `{{` and `}}` are braces.
#[derive(Clone, Default)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone)]
enum Piece {
    Text(String),
    Value(String),
}

/// A placeholder has no value; this is its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing(pub(super) String);

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const UNCLOSED: &str = "holds a { that nothing closes; write {{ for a brace itself";
        let mut pieces = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(tail) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = tail;
                continue;
            }
            if brace == "}" {
                return Err("holds a } that nothing opened; write }} for a brace itself");
            }
            let (name, tail) = rest.split_once('}').ok_or(UNCLOSED)?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err("holds a placeholder whose name is none; write letters, digits and _, as in {client_id}");
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Value(name.to_owned()));
            rest = tail;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self { pieces })
    }

    /// This text and nothing else, braces included.
    pub(super) fn literal(text: impl Into<String>) -> Self {
        Self {
            pieces: vec![Piece::Text(text.into())],
        }
    }

    /// This placeholder and nothing else.
    #[cfg(any(feature = "alibaba", feature = "tencent", feature = "huawei"))]
    pub(super) fn value(name: String) -> Self {
        Self {
            pieces: vec![Piece::Value(name)],
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Puts something before it.
    #[cfg(any(feature = "alibaba", feature = "tencent", feature = "huawei"))]
    pub(super) fn prefixed(mut self, text: &str) -> Self {
        self.pieces.insert(0, Piece::Text(text.to_owned()));
        self
    }

    /// The text with its placeholders, as a document has it.
    pub(super) fn written(&self) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(name) => format!("{{{name}}}"),
        });
        pieces.collect()
    }

    /// The text, if there is no placeholder in it.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text up to the first placeholder.
    pub(super) fn start(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The text with every value in its place, encoded for it.
    pub(super) fn filled(
        &self,
        values: &Values<'_>,
        encode: impl Fn(&str) -> String,
    ) -> Result<Zeroizing<String>, Missing> {
        let mut filled = Zeroizing::new(String::with_capacity(ROOM));
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value(name) => {
                    let value = values.get(name).ok_or_else(|| Missing(name.clone()))?;
                    filled.push_str(&Zeroizing::new(encode(value)));
                }
            }
        }
        Ok(filled)
    }

    /// The same for a parameter, which is left out if it is nothing but a placeholder without a value.
    pub(super) fn parameter(&self, values: &Values<'_>) -> Result<Option<Zeroizing<String>>, Missing> {
        match self.filled(values, str::to_owned) {
            Err(Missing(name)) if self.pieces.len() == 1 && !values.needs(&name) => Ok(None),
            filled => filled.map(Some),
        }
    }
}

/// Room for most texts at once: a buffer that grows leaves copies that nobody wipes.
const ROOM: usize = 256;

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Self::parse(&text).map_err(D::Error::custom),
            Value::Number(number) => Ok(Self::literal(number.to_string())),
            Value::Bool(value) => Ok(Self::literal(value.to_string())),
            _ => Err(D::Error::custom(
                "is no text; write one, in which {name} stands for a value",
            )),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Template {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A text in which {name} stands for a value; {{ and }} are braces",
            "type": ["string", "number", "boolean"]
        })
    }
}

/// The placeholders alone: a text may hold a secret that somebody wrote into it.
impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What placeholders stand for.
pub(super) struct Values<'a> {
    /// What the last answer left behind.
    pub(super) kept: &'a Map<String, Value>,
    pub(super) vars: &'a BTreeMap<String, Secret<String>>,
    pub(super) nonce: &'a str,
    pub(super) timestamp: &'a str,
    /// What a request cannot do without, beside [`ALWAYS_NEEDED`].
    pub(super) needs: &'a [String],
}

/// What a renewal cannot do without, wherever it stands.
pub(super) const ALWAYS_NEEDED: [&str; 2] = [ACCESS_TOKEN, REFRESH_TOKEN];
pub(super) const ACCESS_TOKEN: &str = "access_token";
pub(super) const REFRESH_TOKEN: &str = "refresh_token";
/// New on every attempt: 32 hexadecimal digits, and the time of day as `2026-11-21T10:17:45Z`.
pub(super) const BUILT_IN: [&str; 2] = ["nonce", "timestamp"];

impl Values<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        match name {
            "nonce" => Some(self.nonce),
            "timestamp" => Some(self.timestamp),
            _ => {
                let kept = self.kept.get(name).and_then(Value::as_str);
                let var = || self.vars.get(name).map(|value| value.expose().as_str());
                kept.filter(|value| !value.is_empty()).or_else(var)
            }
        }
    }

    fn needs(&self, name: &str) -> bool {
        ALWAYS_NEEDED.contains(&name) || self.needs.iter().any(|needed| needed == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str, kept: Value) -> Result<String, Missing> {
        let vars = BTreeMap::from([("v".to_owned(), Secret::from("a/b"))]);
        let values = Values {
            kept: kept.as_object().unwrap(),
            vars: &vars,
            nonce: "0123",
            timestamp: "now",
            needs: &[],
        };
        let template = Template::parse(template).unwrap();
        template
            .filled(&values, crate::percent::encoded)
            .map(|filled| filled.to_string())
    }

    #[test]
    fn placeholders_are_filled_and_encoded() {
        let kept = || json!({ "access_token": "t+/ =é", "empty": "" });
        assert_eq!(
            filled("/x/{v}/{access_token}", kept()).unwrap(),
            "/x/a%2Fb/t%2B%2F%20%3D%C3%A9"
        );
        assert_eq!(filled("{{{nonce}}} {timestamp}", kept()).unwrap(), "{0123} now");
        assert_eq!(filled("{empty}", kept()), Err(Missing("empty".into())));
        assert_eq!(filled("", kept()).unwrap(), "");
    }

    #[test]
    fn what_was_kept_comes_before_what_was_configured() {
        assert_eq!(filled("{v}", json!({ "v": "kept" })).unwrap(), "kept");
        assert_eq!(filled("{v}", json!({ "v": "" })).unwrap(), "a%2Fb");
    }

    #[test]
    fn a_text_is_not_printed() {
        let template = Template::parse("Basic test-canary {v}").unwrap();
        assert_eq!(format!("{template:?}"), r#"{"v"}"#);
    }

    #[test]
    fn a_wrong_brace_is_named() {
        for (text, word) in [
            ("{", "closes"),
            ("a}", "opened"),
            ("{a b}", "name"),
            ("{}", "name"),
            ("{a", "closes"),
        ] {
            assert!(Template::parse(text).unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn an_optional_parameter_without_a_value_is_left_out_and_a_token_never() {
        let kept = Map::new();
        let values = Values {
            kept: &kept,
            vars: &BTreeMap::new(),
            nonce: "",
            timestamp: "",
            needs: &["needed".into()],
        };
        let parameter = |text: &str| {
            Template::parse(text)
                .unwrap()
                .parameter(&values)
                .map(|one| one.is_some())
        };
        assert_eq!(parameter("{session}"), Ok(false));
        assert_eq!(parameter("a{session}"), Err(Missing("session".into())));
        assert_eq!(parameter("{access_token}"), Err(Missing("access_token".into())));
        assert_eq!(parameter("{needed}"), Err(Missing("needed".into())));
    }
}
