//! Documents: JSON that somebody wrote by hand, read so that a mistake is found again.
//!
//! Every error names the path of the field in the document (`tokens.imm.provider.project_name`) and
//! what would be right. It never quotes a value, because that may be a secret in the wrong place.

mod json;
#[cfg(feature = "schema")]
pub(crate) mod schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use self::json::Json;
use crate::clock::A_YEAR;
use crate::error::Error;
use crate::token::Secret;

/// Reads a document. A `null` is as good as leaving the field out; no field may stand twice in an object.
///
/// # Errors
///
/// [`Error::is_config`]; the message names the field's path and what would be right.
#[cfg_attr(
    not(feature = "config"),
    allow(unreachable_pub, reason = "the module config hands it out")
)]
pub fn read<T: DeserializeOwned>(json: &str) -> Result<T, Error> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let Strict(value) = serde_path_to_error::deserialize(&mut parser).map_err(|error| fault(&error))?;
    parser
        .end()
        .map_err(|_| Error::config("document", "something stands behind its end; write one JSON object"))?;
    let value = Owned(value);
    serde_path_to_error::deserialize(Json(&value.0)).map_err(|error| fault(&error))
}

/// Reads a part of a document whose type shows only when it is read, and keeps the path of an error in it.
pub(crate) fn within<T: DeserializeOwned, E: de::Error>(part: Value) -> Result<T, E> {
    let part = Owned(part);
    serde_path_to_error::deserialize(Json(&part.0)).map_err(|error| {
        let (path, advice) = located(&error);
        E::custom(at(&path, &advice))
    })
}

/// The text of a custom error about the field `path` further inside.
pub(crate) fn at(path: &str, advice: &str) -> String {
    format!("{MARK}{path}{MARK}{advice}")
}

/// Wiped when it was read.
struct Owned(Value);

impl Drop for Owned {
    fn drop(&mut self) {
        crate::token::Wipe::wipe(&mut self.0);
    }
}

fn fault(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let (path, advice) = located(error);
    Error::config(if path.is_empty() { "document".into() } else { path }, advice)
}

/// The path that the error is about, and what would be right there.
fn located(error: &serde_path_to_error::Error<serde_json::Error>) -> (String, String) {
    let mut path = error.path().to_string();
    if path == "." {
        path.clear();
    }
    let mut message = error.inner().to_string();
    if error.inner().is_syntax() || error.inner().is_eof() {
        let (line, column) = (error.inner().line(), error.inner().column());
        // What the parser says quotes nothing of the document.
        return (String::new(), format!("is no JSON at line {line}, column {column}"));
    }
    // Without the position: what is read here was parsed before.
    if let Some(at) = message.rfind(" at line ") {
        message.truncate(at);
    }
    if let Some((inner, advice)) = message.strip_prefix(MARK).and_then(|rest| rest.split_once(MARK)) {
        return (joined(path, inner), advice.to_owned());
    }
    let (field, advice) = advice(&message);
    match field {
        Some(field) if path != field && !path.ends_with(&format!(".{field}")) => (joined(path, field), advice),
        _ => (path, advice),
    }
}

fn joined(mut path: String, inner: &str) -> String {
    if !path.is_empty() && !inner.is_empty() && !inner.starts_with('[') {
        path.push('.');
    }
    path + inner
}

/// serde's words, without the value that they quote. Some of them name a field further down.
fn advice(message: &str) -> (Option<&str>, String) {
    let quoted = |rest: &'static str| {
        let rest = message.strip_prefix(rest)?;
        rest.split_once('`')
    };
    if let Some((field, _)) = quoted("missing field `") {
        let advice = match field {
            "provider" => "is missing; write who mints the token, an object with a type",
            "answer" => r#"is missing; write where the fields of an answer are, as in {"token": "/access_token"}"#,
            "token" => "is missing; write a JSON pointer to the token, as in /access_token",
            "url" => "is missing; write a full URL",
            "access_key_id" | "access_key_secret" => "is missing; write what the access key was issued with",
            _ => "is missing; it cannot be left out",
        };
        return (Some(field), advice.into());
    }
    if let Some((field, rest)) = quoted("unknown field `") {
        let known = rest.strip_prefix(", expected ").unwrap_or("nothing");
        return (Some(field), format!("is unknown; known here: {}", plain(known)));
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        // The variant may itself hold anything.
        let known = rest.rsplit_once("`, expected ").map_or("nothing", |(_, known)| known);
        return (
            None,
            format!(
                "is none of what can stand here; write one of {}",
                plain(known).replace(" or ", ", ")
            ),
        );
    }
    if message.starts_with("invalid length ") {
        // The fields of an object could also stand in a list, if it had the right length.
        return (None, "is a list; write an object".into());
    }
    for kind in ["invalid type: ", "invalid value: "] {
        let Some(rest) = message.strip_prefix(kind) else {
            continue;
        };
        // The value stands between, and may itself hold anything.
        let (found, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, "something else"));
        if ["struct variant", "newtype variant"].contains(&expected) {
            return (None, "is a name alone; write an object under it".into());
        }
        let found = match found.split([' ', ',']).next().unwrap_or_default() {
            "map" => "an object",
            "sequence" => "a list",
            "string" => "a text",
            "boolean" => "true or false",
            "integer" | "floating" => "a number",
            "null" | "unit" => "null",
            _ => "something else",
        };
        let expected = match expected {
            "a sequence" => "a list",
            "a map" => "an object",
            "a boolean" => "true or false",
            "u16" | "u32" | "usize" => "a whole number, zero or more",
            "f64" => "a number",
            "unit" => "the name alone, as a text",
            other if other.starts_with("struct ") => "an object",
            other => other,
        };
        return (None, format!("is {found}; write {}", plain(expected)));
    }
    (None, message.to_owned())
}

fn plain(words: &str) -> String {
    words.trim_start_matches("one of ").replace('`', "")
}

/// Between the path and the advice of an error that happened further inside.
const MARK: char = '\u{1f}';

/// Any JSON without nulls in its objects, in which no name stands twice in an object: which of two values
/// counts would be the parser's choice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(list.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let (mut fields, mut nulls) = (Map::new(), Vec::new());
                while let Some((name, Strict(value))) = entries.next_entry::<String, Strict>()? {
                    if fields.contains_key(&name) || nulls.contains(&name) {
                        return Err(de::Error::custom(at(&name, "stands twice; leave one of them out")));
                    }
                    match value {
                        Value::Null => nulls.push(name),
                        value => _ = fields.insert(name, value),
                    }
                }
                Ok(fields.into())
            }
        }
        deserializer.deserialize_any(Any).map(Strict)
    }
}

/// A secret in a document, or where to find it: a text, `{"env": "NAME"}` or `{"file": "path"}`.
///
/// A file's trailing newline is cut. A relative path is relative to the document.
#[derive(Clone)]
#[non_exhaustive]
pub enum Source {
    /// The text itself.
    Literal(Secret<String>),
    /// The environment variable of that name.
    Env(String),
    /// The content of that file.
    File(PathBuf),
}

impl Source {
    /// The secret itself; `base` is where relative paths begin.
    ///
    /// The error is advice without a path: the caller knows where in the document it stands. It quotes neither
    /// a file's path nor a name that may be none: the secret itself is what is mistaken for one most often.
    pub(crate) fn secret(&self, base: &Path) -> Result<Secret<String>, String> {
        match self {
            Self::Literal(secret) => Ok(secret.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(secret) => Ok(secret.into()),
                Err(std::env::VarError::NotPresent) if is_plain(name) => Err(format!(
                    "the environment variable {name} is not set; set it, or name another"
                )),
                Err(std::env::VarError::NotPresent) => Err(
                    "there is no environment variable of this name; write the name of one, and not its value".into(),
                ),
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err("the environment variable holds what is no UTF-8; set it to a text".into())
                }
            },
            Self::File(path) => {
                let text = std::fs::read(base.join(path)).map(Zeroizing::new).map_err(|error| {
                    let base = if base.as_os_str().is_empty() {
                        Path::new(".")
                    } else {
                        base
                    };
                    let base = base.display();
                    format!("the file cannot be read: {error}; write its path, relative to {base} or from the root")
                })?;
                let text = text.strip_suffix(b"\n").unwrap_or(&text);
                let text = text.strip_suffix(b"\r").unwrap_or(text);
                let text =
                    std::str::from_utf8(text).map_err(|_| "the file holds what is no UTF-8; write a text into it")?;
                Ok(text.into())
            }
        }
    }
}

/// Whether a variable is called as variables are: `CLIENT_SECRET`.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    // Ids of keys are written so too, but for the underscore.
    name.bytes().all(plain) && (name.len() < 8 || name.contains('_'))
}

impl From<&str> for Source {
    fn from(secret: &str) -> Self {
        Self::Literal(secret.into())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("[secret]"),
            Self::Env(name) => write!(f, "[env {name}]"),
            Self::File(path) => write!(f, "[file {}]", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut found = Value::deserialize(deserializer)?;
        let source = match &mut found {
            Value::String(text) => Some(Self::Literal(Secret::new(std::mem::take(text)))),
            Value::Object(fields) if fields.len() == 1 => match fields.iter().next() {
                Some((key, Value::String(name))) if key == "env" && !name.is_empty() => Some(Self::Env(name.clone())),
                Some((key, Value::String(path))) if key == "file" && !path.is_empty() => Some(Self::File(path.into())),
                _ => None,
            },
            _ => None,
        };
        crate::token::Wipe::wipe(&mut found);
        source.ok_or_else(|| de::Error::custom(r#"is no secret; write a text, {"env": "NAME"} or {"file": "path"}"#))
    }
}

/// A duration in a document: `"250ms"`, `"2s"`, `"15m"`, `"24h"`, `"1h 30m"`. More than a year counts as a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || de::Error::custom(r#"is no duration; write "250ms", "2s", "15m" or "24h""#);
        let Value::String(text) = Value::deserialize(deserializer)? else {
            return Err(wrong());
        };
        let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        let span = Duration::try_from(span).map_err(|_| wrong())?;
        Ok(Self(span.min(A_YEAR)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        inner: Option<Inner>,
        list: Option<Vec<Inner>>,
        part: Option<Part>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        name: String,
        secret: Option<Source>,
        wait: Option<Span>,
        count: Option<u32>,
    }

    #[derive(Debug)]
    #[allow(dead_code)]
    struct Part(Inner);

    impl<'de> Deserialize<'de> for Part {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            within(Value::deserialize(deserializer)?).map(Self)
        }
    }

    fn error(json: &str) -> String {
        let error = read::<Outer>(json).unwrap_err().to_string();
        error.strip_prefix("invalid configuration: ").unwrap().to_owned()
    }

    #[test]
    fn an_error_names_the_path_and_what_would_be_right() {
        for (json, expected) in [
            ("", "document: is no JSON at line 1, column 0"),
            ("[", "document: is no JSON at line 1, column 1"),
            ("[]", "document: is a list; write an object"),
            (r#"["a","b","c"]"#, "document: is a list; write an object"),
            (r#"{"inner":["a",null,null,null]}"#, "inner: is a list; write an object"),
            (
                r#"{"list":[["a",null,null,null]]}"#,
                "list[0]: is a list; write an object",
            ),
            (
                "{} {}",
                "document: something stands behind its end; write one JSON object",
            ),
            (r#"{"inner":{}}"#, "inner.name: is missing; it cannot be left out"),
            (
                r#"{"inner":{"name":null}}"#,
                "inner.name: is missing; it cannot be left out",
            ),
            (r#"{"inner":{"name":7}}"#, "inner.name: is a number; write a string"),
            (
                r#"{"inner":{"name":"a","name":"b"}}"#,
                "inner.name: stands twice; leave one of them out",
            ),
            (
                r#"{"inner":{"name":"a","nmae":"b"}}"#,
                "inner.nmae: is unknown; known here: name, secret, wait, count",
            ),
            (
                r#"{"list":[{"name":"a"},{"name":[]}]}"#,
                "list[1].name: is a list; write a string",
            ),
            (
                r#"{"part":{"name":true}}"#,
                "part.name: is true or false; write a string",
            ),
            (r#"{"part":{}}"#, "part.name: is missing; it cannot be left out"),
            (
                r#"{"part":{"name":"a","wait":"soon"}}"#,
                r#"part.wait: is no duration; write "250ms", "2s", "15m" or "24h""#,
            ),
            (
                r#"{"inner":{"name":"a","count":-1}}"#,
                "inner.count: is a number; write a whole number, zero or more",
            ),
        ] {
            assert_eq!(error(json), expected, "{json}");
        }
    }

    #[test]
    fn a_value_is_never_quoted() {
        for json in [
            r#"{"inner":{"name":"a","secret":4242424242}}"#,
            r#"{"inner":{"name":"a","secret":{"env":4242424242}}}"#,
            r#"{"inner":{"name":"a","secret":{"x":"4242424242"}}}"#,
            r#"{"inner":{"name":"a","count":"4242424242"}}"#,
            r#"{"inner":{"name":"a","count":"x, expected 4242424242 y"}}"#,
            r#"{"inner":"4242424242"}"#,
            r#"{"part":{"name":"a","wait":4242424242}}"#,
        ] {
            let error = error(json);
            assert!(!error.contains("4242"), "{error}");
        }
    }

    #[test]
    fn durations_are_read_with_their_units() {
        let span = |text: &str| serde_json::from_value::<Span>(text.into()).ok().map(|span| span.0);
        assert_eq!(span("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(span("15m"), Some(Duration::from_secs(900)));
        assert_eq!(span("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(span("1h 30m"), Some(Duration::from_secs(5400)));
        for wrong in ["", "15", "-2s", "soon", "1 month"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_secret_file_loses_one_newline_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("tower-token-document-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        for (content, expected) in [
            ("test-s\n", "test-s"),
            ("test-s\r\n", "test-s"),
            (" test-s\n\n", " test-s\n"),
        ] {
            std::fs::write(base.join("secret"), content).unwrap();
            let secret = Source::File("secret".into()).secret(&base).unwrap();
            assert_eq!(secret.expose(), expected);
        }
        let missing = Source::File("nothing".into()).secret(&base).unwrap_err();
        assert!(
            missing.contains("cannot be read") && !missing.contains("nothing"),
            "{missing}"
        );
        std::fs::remove_dir_all(base).unwrap();
    }
}
