//! Whatever stands in a document: it is read or refused, and never quoted.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::samples::*;

/// Names that mean something somewhere, so that the middle of a document is reached.
const FIELDS: [&str; 24] = [
    "env",
    "file",
    "type",
    "name",
    "scheme",
    "header",
    "query",
    "cookie",
    "status",
    "code",
    "in",
    "grpc",
    "within",
    "seconds",
    "lifetime",
    "at",
    "acs3",
    "access_key_id",
    "access_key_secret",
    "path",
    "url",
    "key",
    "token",
    "x",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(CANARY_NUMBER)),
        Just(json!(CANARY)),
        prop::sample::select(vec![
            "bearer",
            "none",
            "once",
            "15m",
            "/code",
            "https://a.example",
            "{x}",
            "{",
            "",
            "["
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(|text| Value::from(format!("{CANARY}{text}"))),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(FIELDS.to_vec()), inner), 0..6).prop_map(|fields| {
                Value::Object(
                    fields
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect::<Map<_, _>>(),
                )
            }),
        ]
    })
}

/// Every place in a document, its fields' fields and its lists' items included.
fn places(at: &str, value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, value)| (at.to_string(), value))
            .collect(),
        _ => Vec::new(),
    };
    let below = inner
        .iter()
        .flat_map(|(name, value)| places(&format!("{at}/{name}"), value));
    std::iter::once(at.to_owned()).chain(below).collect()
}

fn read_or_refused(document: &str) -> Result<(), TestCaseError> {
    if let Err(error) = built(document, Path::new("/no-such-directory")) {
        prop_assert!(error.is_config());
        for text in [error.to_string(), format!("{error:?}")] {
            prop_assert!(
                !text.contains("canary") && !text.contains("4711081547"),
                "{document}: {text}"
            );
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_in_any_field_is_read_or_refused(
        name in prop::sample::select(NAMES.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..3),
    ) {
        let mut token = token(name);
        for (place, value) in changes {
            let places = places("", &token);
            set(&mut token, &places[place.index(places.len())], value);
        }
        read_or_refused(&document(name, token).to_string())?;
    }

    #[test]
    fn any_field_under_any_name_is_read_or_refused(
        name in prop::sample::select(NAMES.to_vec()),
        place in any::<prop::sample::Index>(),
        field in prop::sample::select(FIELDS.to_vec()),
        value in any_json(),
    ) {
        let mut token = token(name);
        let objects: Vec<_> = places("", &token)
            .into_iter()
            .filter(|at| token.pointer(at).is_some_and(Value::is_object))
            .collect();
        set(&mut token, &format!("{}/{field}", objects[place.index(objects.len())]), value);
        read_or_refused(&document(name, token).to_string())?;
    }

    /// Cut off, or with bytes in it that do not belong there.
    #[test]
    fn any_damage_to_the_text_is_read_or_refused(
        name in prop::sample::select(NAMES.to_vec()),
        at in any::<prop::sample::Index>(),
        damage in prop::sample::select(vec!["", "\"", "{", "]", ",", "null", "\\u0000", "\\ud800", "1e999", "\u{1f}", "`"]),
        cut in any::<bool>(),
    ) {
        let text = document(name, token(name)).to_string();
        let at = at.index(text.len());
        let rest = if cut { "" } else { &text[at..] };
        let document = format!("{}{damage}{rest}", &text[..at]);
        // A name of a field may be cut into, and is named; a value never is.
        if let Err(error) = built(&document, Path::new("/no-such-directory")) {
            prop_assert!(!error.to_string().contains("canary"), "{document}: {error}");
        }
    }
}
