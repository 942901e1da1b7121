//! The JSON Schema of a token's configuration says what `config::read` takes, so that an editor can help.

#![cfg(all(feature = "schema", feature = "client"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

// This file has its own use for a part of them.
#[allow(dead_code)]
#[path = "config/samples.rs"]
mod samples;

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};
use tower_token::config::{self, TokenConfig};

use samples::*;

fn schema() -> Value {
    let schema = serde_json::to_string(&schemars::schema_for!(TokenConfig)).unwrap();
    serde_json::from_str(&schema).unwrap()
}

/// Why a value is none of this schema, of what is used here of JSON Schema 2020-12; a word that this does not
/// know is an error of its own.
fn fault(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Value::Object(words) = schema else {
        return if schema == &json!(true) {
            Ok(())
        } else {
            Err(format!("{at} cannot be there"))
        };
    };
    for (word, said) in words {
        let right = match word.as_str() {
            "$ref" => {
                let place = said.as_str().unwrap().trim_start_matches('#');
                fault(root, root.pointer(place).expect("a reference to nothing"), value, at)?;
                true
            }
            "type" => match said {
                Value::Array(types) => types.iter().any(|kind| is_of(value, kind)),
                kind => is_of(value, kind),
            },
            "anyOf" => {
                let ways = said.as_array().unwrap().iter();
                ways.clone().any(|way| fault(root, way, value, at).is_ok())
            }
            "oneOf" => {
                let ways = said.as_array().unwrap().iter();
                ways.filter(|way| fault(root, way, value, at).is_ok()).count() == 1
            }
            "const" => value == said,
            "enum" => said.as_array().unwrap().contains(value),
            "pattern" if said == "^/" => value.as_str().is_none_or(|text| text.starts_with('/')),
            "minLength" => value
                .as_str()
                .is_none_or(|text| text.len() as u64 >= said.as_u64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|items| items.len() as u64 >= said.as_u64().unwrap()),
            "minimum" => value.as_f64().is_none_or(|number| number >= said.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= said.as_f64().unwrap()),
            "required" => value.as_object().is_none_or(|fields| {
                let names = said.as_array().unwrap().iter();
                names.clone().all(|name| fields.contains_key(name.as_str().unwrap()))
            }),
            "properties" => {
                for (name, schema) in said.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        fault(root, schema, value, &format!("{at}/{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)) {
                    fault(root, said, value, &format!("{at}/{name}"))?;
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    fault(root, said, value, &format!("{at}/{index}"))?;
                }
                true
            }
            "description" | "default" | "examples" | "format" | "title" | "$schema" | "$defs" => true,
            other => panic!("the schema says {other}, which nobody checks"),
        };
        if !right {
            return Err(format!("{at} is against {word} {said}"));
        }
    }
    Ok(())
}

fn is_of(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("no type is called {other}"),
    }
}

fn allowed(document: &Value) -> Result<(), String> {
    static SCHEMA: LazyLock<Value> = LazyLock::new(schema);
    fault(&SCHEMA, &SCHEMA, document, "")
}

#[test]
fn every_type_of_provider_is_named() {
    let schema = schema();
    assert_eq!(schema["title"], "TokenConfig");
    let ways = schema["$defs"]["Provider"]["oneOf"].as_array().unwrap();
    let named: Vec<_> = ways
        .iter()
        .map(|way| way["properties"]["type"]["const"].as_str().unwrap())
        .collect();
    for name in NAMES {
        let kind = token(name)["provider"]["type"].clone();
        assert!(named.contains(&kind.as_str().unwrap()), "{kind}");
    }
    assert_eq!(named.len(), NAMES.len());
}

#[test]
fn every_field_has_its_description() {
    fn fields(at: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, value) in schema.as_object().into_iter().flatten() {
            if name == "properties" {
                let lacking = value
                    .as_object()
                    .unwrap()
                    .iter()
                    .filter(|(_, field)| field.get("description").is_none());
                found.extend(lacking.map(|(field, _)| format!("{at}/{field}")));
            }
            fields(&format!("{at}/{name}"), value, found);
        }
        for (index, value) in schema.as_array().into_iter().flatten().enumerate() {
            fields(&format!("{at}/{index}"), value, found);
        }
    }
    let mut lacking = Vec::new();
    fields("", &schema(), &mut lacking);
    // The name of a variant says it, and so does a type's tag.
    lacking.retain(|at| !at.contains("oneOf") && !at.contains("Secret"));
    assert!(lacking.is_empty(), "{lacking:#?}");
}

#[test]
fn every_document_that_is_right_is_allowed() {
    for name in NAMES {
        allowed(&token(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}

/// Every field once as null, and once as something else.
#[test]
fn what_is_read_is_allowed() {
    let mut read = 0;
    for name in NAMES {
        let sample = token(name);
        for at in places("", &sample).into_iter().skip(1) {
            for value in [
                json!(null),
                json!(true),
                json!(7),
                json!("15m"),
                json!("/x"),
                json!(["x"]),
                json!([]),
                json!({}),
                json!("once"),
                json!({ "within": "1s" }),
                json!({ "env": "CARGO_MANIFEST_DIR" }),
                json!({ "file": "Cargo.toml" }),
                json!("bearer"),
            ] {
                let mut changed = sample.clone();
                set(&mut changed, &at, value.clone());
                let config = config::read::<TokenConfig>(&changed.to_string());
                if config.and_then(|config| config.builder("", Path::new(""))).is_err() {
                    continue;
                }
                read += 1;
                allowed(&changed).unwrap_or_else(|fault| panic!("{name}{at} = {value} is read: {fault}"));
            }
        }
    }
    assert!(read > 300, "{read}");
}

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

/// The samples have no store, because one of a file needs a folder.
#[test]
fn a_store_is_one_of_two_with_its_own_fields() {
    let every = |own: Value| {
        let mut store = json!({ "encryption_key": { "env": "K" }, "also_opens": ["k", { "file": "older" }],
                                "adopts_plain": true, "lease": "45s", "patience": "2s", "alone": false });
        let own = own.as_object().unwrap().clone();
        store.as_object_mut().unwrap().extend(own);
        store
    };
    let redis = json!({ "url": "redis://:pw@127.0.0.1:6379/0", "key": "tt:oa", "lease": "45s" });
    for store in [
        json!(null),
        json!({ "file": { "path": "p" } }),
        json!({ "file": every(json!({ "path": "p" })) }),
        json!({ "file": { "path": "p", "lease": null, "patience": null, "alone": null, "encryption_key": null,
                          "also_opens": null, "adopts_plain": null } }),
        json!({ "redis": redis }),
        json!({ "redis": every(json!({ "url": { "env": "REDIS_URL" }, "key": "k", "ca_certificate": "ca.pem",
                                       "client_certificate": "ours.pem", "client_key": { "file": "ours.key" } })) }),
        json!({ "redis": { "url": { "file": "url" }, "key": "k", "ca_certificate": null } }),
    ] {
        let mut sample = token("cc");
        set(&mut sample, "/store", store.clone());
        allowed(&sample).unwrap_or_else(|fault| panic!("{store}: {fault}"));
        config::read::<TokenConfig>(&sample.to_string()).unwrap_or_else(|error| panic!("{store}: {error}"));
    }
    for store in [
        json!({}),
        json!("file"),
        json!({ "file": { "path": "p" }, "redis": redis }),
        json!({ "file": { "path": null } }),
        json!({ "file": { "path": "p", "key": "k" } }),
        json!({ "redis": { "url": "redis://127.0.0.1" } }),
        json!({ "redis": { "url": "redis://127.0.0.1", "key": "k", "path": "p" } }),
    ] {
        let mut sample = token("cc");
        set(&mut sample, "/store", store.clone());
        assert!(allowed(&sample).is_err(), "{store}");
        assert!(config::read::<TokenConfig>(&sample.to_string()).is_err(), "{store}");
    }
}

#[test]
fn what_is_unknown_or_of_another_type_is_not_allowed() {
    for (name, pointer, value) in [
        ("imm", "/provider/project_name", json!(7)),
        ("imm", "/provider/secret", json!("x")),
        ("imm", "/provider/type", json!("alibaba.office")),
        ("imm", "/provider/access_key_secret", json!({ "vault": "x" })),
        ("ecd", "/provider/sign", json!({ "access_key_id": "AK" })),
        ("oa", "/provider/client_auth", json!("both")),
        ("oa", "/provider/replay", json!({ "within": 30 })),
        ("ep", "/provider/answer/token", json!("access_token")),
        ("ep", "/provider/errors/classes/fatal", json!([1])),
        ("ep", "/provider/acquire/method", json!("get")),
        ("cc", "/inject", json!({ "body": {} })),
        ("cc", "/refuse", json!([])),
        ("cc", "/policy/max_waiters", json!(-1)),
        ("cc", "/policy", json!(["60s"])),
        ("cc", "/origins", json!("https://api.example.com")),
        ("cc", "/other", json!(1)),
        ("cc", "/provider", json!(null)),
    ] {
        let mut changed = token(name);
        set(&mut changed, pointer, value.clone());
        assert!(allowed(&changed).is_err(), "{name}{pointer} = {value}");
    }
}

#[test]
fn every_example_is_allowed_and_built() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/vendors");
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.display();
        allowed(&serde_json::from_str(&text).unwrap()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let config: TokenConfig = config::read(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Its secrets are in the environment of whoever uses it: nothing else may be wrong with it.
        if let Err(error) = config.builder("", Path::new("")) {
            let others = error.to_string().replace("invalid configuration: ", "");
            for one in others.split("; set it, or name another").filter(|one| !one.is_empty()) {
                assert!(one.ends_with("is not set"), "{name}: {one}");
            }
        }
        examples += 1;
    }
    assert_eq!(examples, 9);
}

/// The README's documents too: those that stand alone, and those in its snippets are read by these.
#[test]
fn every_document_of_the_readme_is_allowed_and_read() {
    let readme = include_str!("../README.md");
    let blocks = readme
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0);
    let mut documents = 0;
    for block in blocks {
        allowed(&serde_json::from_str(block).unwrap()).unwrap_or_else(|fault| panic!("{block}: {fault}"));
        config::read::<TokenConfig>(block).unwrap_or_else(|error| panic!("{block}: {error}"));
        documents += 1;
    }
    assert!(documents >= 5, "{documents}");
}
