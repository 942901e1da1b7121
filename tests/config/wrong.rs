//! What is wrong with a document is said with the path of the field and what would be right, and quotes nothing.

use std::path::Path;

use serde_json::Value;
use tower_token::Error;

use super::samples::*;

/// Each document is a sample with some fields replaced: `token /pointer = JSON`, several joined by `&`; below it
/// stands everything that has to be said. `CANARY` is a secret, `NUMBER` one without quotation marks.
const CASES: &str = include_str!("wrong.txt");

struct Case {
    name: &'static str,
    replaced: Vec<(&'static str, Value)>,
    said: Vec<String>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(said) = line.strip_prefix("    ") {
            cases
                .last_mut()
                .expect("a document stands first")
                .said
                .push(said.into());
            continue;
        }
        let (name, replaced) = line.split_once(' ').expect("a token's name");
        let replaced = replaced.split(" & ").map(|one| {
            let (pointer, json) = one.split_once(" = ").expect("a pointer and JSON");
            let json = json
                .replace("CANARY", CANARY)
                .replace("NUMBER", &CANARY_NUMBER.to_string());
            let pointer = if pointer == "/" { "" } else { pointer };
            (pointer, serde_json::from_str(&json).expect(line))
        });
        cases.push(Case {
            name,
            replaced: replaced.collect(),
            said: Vec::new(),
        });
    }
    cases
}

fn refused(document: &str) -> Error {
    let error = built(document, Path::new("/no-such-directory")).expect_err(document);
    assert!(error.is_config(), "{error}");
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("canary") && !text.contains("4711"), "{document}: {text}");
    }
    error
}

#[test]
fn every_fault_is_named_with_its_path_and_what_would_be_right() {
    let cases = cases();
    assert!(cases.len() >= 200, "{}", cases.len());
    for Case { name, replaced, said } in cases {
        let mut token = token(name);
        for (pointer, value) in replaced {
            set(&mut token, pointer, value);
        }
        let document = document(name, token).to_string();
        let expected: Vec<_> = said.iter().map(|said| format!("tokens.{name}{said}")).collect();
        let error = refused(&document).to_string();
        assert_eq!(
            error,
            format!("invalid configuration: {}", expected.join("; ")),
            "{document}"
        );
    }
}

/// What no value of a field can show: the text of a document itself.
#[test]
fn a_text_that_is_no_such_document_is_refused() {
    for (document, said) in [
        ("", "document: is no JSON at line 1, column 0"),
        ("test-canary", "document: is no JSON at line 1, column 2"),
        (
            r#"{"tokens":{"oa":"test-canary"#,
            "document: is no JSON at line 1, column",
        ),
        (
            "{\"tokens\":\n{\"oa\":test-canary}}",
            "document: is no JSON at line 2, column 8",
        ),
        (
            r#"{"tokens":{}} "test-canary""#,
            "document: something stands behind its end",
        ),
        (r#"{"tokens":{"oa":{"expose":1e999}}}"#, "document: is no JSON"),
        ("[]", "document: is a list; write an object"),
        (r#"["test-canary"]"#, "document: is a list; write an object"),
        ("4711081547110815", "document: is a number; write an object"),
        (r#""test-canary""#, "document: is a text; write an object"),
        ("null", "document: is null; write an object"),
        ("{}", "tokens: is missing"),
        (r#"{"tokens":null}"#, "tokens: is missing"),
        (r#"{"tokens":["test-canary"]}"#, "tokens: is a list; write an object"),
        (
            r#"{"tokens":{},"token":"test-canary"}"#,
            "token: is unknown; known here: tokens",
        ),
        (r#"{"tokens":{},"tokens":{"x":"test-canary"}}"#, "tokens: stands twice"),
        (
            r#"{"tokens":{"oa":{"provider":{"type":"test-canary","type":"test-canary"}}}}"#,
            "tokens.oa.provider.type: stands twice; leave one of them out",
        ),
        (
            r#"{"tokens":{"oa":{"provider":{"extra":{"a":"test-canary","a":null}}}}}"#,
            "tokens.oa.provider.extra.a: stands twice; leave one of them out",
        ),
        (
            r#"{"tokens":{"oa":{"refuse":["bearer",{"grpc":true,"grpc":4711}]}}}"#,
            "tokens.oa.refuse[1].grpc: stands twice; leave one of them out",
        ),
    ] {
        let error = refused(document).to_string();
        assert!(
            error.starts_with(&format!("invalid configuration: {said}")),
            "{document}: {error}"
        );
    }
    let deep = format!(r#"{{"tokens":{}"test-canary"{}}}"#, "[".repeat(500), "]".repeat(500));
    assert!(refused(&deep).to_string().contains("document: is no JSON"));
}

/// A list with as many items as an object has fields, in their order, is still no object.
#[test]
fn a_list_is_no_object_anywhere() {
    let mut lists = 0;
    for name in NAMES {
        for at in objects("", &token(name)) {
            // Parameters that go out as they are may be lists, and of these there may be any number.
            if at.contains("/generate/") || at.ends_with("/credential_config") || at.contains("/json") {
                continue;
            }
            let mut wrong = token(name);
            let object = wrong.pointer(&at).expect("found before");
            let items: Vec<Value> = object.as_object().expect("an object").values().cloned().collect();
            set(&mut wrong, &at, items.into());
            let error = refused(&document(name, wrong).to_string()).to_string();
            let path = at.replace('/', ".").replace(".refuse.1", ".refuse[1]");
            let path = path
                .replace(".refuse.0", ".refuse[0]")
                .replace(".refuse.3", ".refuse[3]");
            assert!(error.contains(&format!("tokens.{name}{path}: is ")), "{at}: {error}");
            lists += 1;
        }
    }
    assert!(lists > 60, "{lists}");
}

fn objects(at: &str, value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, value)| (at.to_string(), value))
            .collect(),
        _ => return Vec::new(),
    };
    let own = value.is_object().then(|| at.to_owned());
    let inner = inner
        .iter()
        .flat_map(|(name, value)| objects(&format!("{at}/{name}"), value));
    own.into_iter().chain(inner).collect()
}
