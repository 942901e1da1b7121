//! Where a document has its token kept.

use std::path::Path;

use serde_json::{Value, json};

use super::samples::*;

/// 32 bytes.
const KEY: &str = "dGVzdC1jYW5hcnktdGVzdC1jYW5hcnktdGVzdC1jYW4=";

/// A document with that store.
fn with(store: Value) -> String {
    let mut token = token("cc");
    set(&mut token, "/store", store);
    document("cc", token).to_string()
}

fn fault(store: Value) -> String {
    let error = built(&with(store), Path::new("")).expect_err("a fault");
    let text = error.to_string();
    assert!(
        !text.contains("canary") && !format!("{error:?}").contains("canary"),
        "{text}"
    );
    text
}

#[test]
fn a_token_is_kept_in_a_file_beside_the_document() {
    let folder = tempfile::tempdir().unwrap();
    for store in [
        json!({ "file": { "path": "p" } }),
        json!({ "file": { "path": folder.path().join("p") } }),
        json!({ "file": { "path": "p", "lease": "15s", "patience": "10s", "alone": true } }),
        json!({ "file": { "path": "p", "lease": null, "patience": null, "alone": null, "encryption_key": null } }),
    ] {
        for (_, builder) in built(&with(store.clone()), folder.path()).unwrap() {
            builder.build().unwrap_or_else(|error| panic!("{store}: {error}"));
        }
    }
}

/// With the token that was configured: nothing is fetched.
#[tokio::test]
async fn what_is_kept_lies_beside_the_document_and_is_sealed_where_there_is_a_key() {
    for (key, is_readable) in [(Value::Null, true), (json!(KEY), false)] {
        if !is_readable && cfg!(not(feature = "encryption")) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut token = token("smh");
        set(
            &mut token,
            "/store",
            json!({ "file": { "path": "p", "encryption_key": key } }),
        );
        for (_, builder) in built(&document("smh", token).to_string(), folder.path()).unwrap() {
            let tokens = builder.build().unwrap();
            assert_eq!(tokens.get().await.unwrap().secret(), CANARY);
            tokens.shutdown().await;
        }
        let kept = std::fs::read_to_string(folder.path().join("p")).unwrap();
        assert_eq!(kept.contains(CANARY), is_readable, "{kept}");
    }
}

/// The longest lease, which is more than any exchange takes.
#[test]
fn a_lease_is_at_most_a_year() {
    let document = with(json!({ "file": { "path": "p", "lease": "90000h" } }));
    // More than a year counts as a year wherever a document has a duration.
    let folder = tempfile::tempdir().unwrap();
    assert!(built(&document, folder.path()).is_ok());
}

#[cfg(feature = "redis")]
#[test]
fn a_token_is_kept_in_redis() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), "rediss://:test-canary@127.0.0.1/1\n").unwrap();
    for store in [
        json!({ "redis": { "url": "redis://:pw@127.0.0.1:6379/0", "key": "tt:oa", "lease": "45s" } }),
        json!({ "redis": { "url": { "file": "url" }, "key": "k", "lease": "15s", "patience": "10ms", "alone": true } }),
        json!({ "redis": { "url": "redis://h", "key": "k", "ca_certificate": null, "patience": "10s" } }),
    ] {
        for (_, builder) in built(&with(store.clone()), folder.path()).unwrap() {
            assert!(!format!("{builder:?}").contains("canary"));
            builder.build().unwrap_or_else(|error| panic!("{store}: {error}"));
        }
    }
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_that_cannot_be_is_named_with_its_path_and_not_quoted() {
    for (redis, field) in [
        (
            json!({ "url": "http://test-canary@127.0.0.1/", "key": "k" }),
            "url: has to begin with redis://",
        ),
        (
            json!({ "url": { "env": "TOWER_TOKEN_UNSET" }, "key": "k" }),
            "url: the environment variable",
        ),
        (json!({ "url": "redis://h", "key": "test-canary {k}" }), "key: "),
        (
            json!({ "url": "redis://h", "key": "k", "lease": "14s" }),
            "lease: 14s has to be from 15s",
        ),
        (
            json!({ "url": "redis://h", "key": "k", "patience": "9ms" }),
            "patience: 9ms",
        ),
        (
            json!({ "url": "rediss://h", "key": "k", "client_certificate": "Cargo.toml" }),
            "client_key: is missing",
        ),
        (
            json!({ "url": "rediss://h", "key": "k", "client_key": "test-canary" }),
            "client_certificate: is missing",
        ),
        (
            json!({ "url": "rediss://h", "key": "k", "client_certificate": "Cargo.toml", "client_key": "test-canary" }),
            "client_certificate: ",
        ),
        (
            json!({ "url": "rediss://h", "key": "k", "client_certificate": "Cargo.toml",
                    "client_key": { "env": "TOWER_TOKEN_UNSET" } }),
            "client_key: the environment variable TOWER_TOKEN_UNSET is not set",
        ),
        (
            json!({ "url": "rediss://h", "key": "k", "ca_certificate": "nowhere" }),
            "ca_certificate: the file cannot be read",
        ),
        (
            json!({ "url": "rediss://h", "key": "k", "ca_certificate": "Cargo.toml" }),
            "ca_certificate: holds no certificate",
        ),
    ] {
        let said = fault(json!({ "redis": redis }));
        let expected = format!("invalid configuration: tokens.cc.store.redis.{field}");
        assert!(said.starts_with(&expected), "{said}");
    }
}

#[cfg(not(feature = "redis"))]
#[test]
fn redis_without_its_feature_is_named() {
    let redis = json!({ "url": "redis://:test-canary@127.0.0.1:6379/0", "key": "tt:oa", "lease": "45s" });
    let said = fault(json!({ "redis": redis }));
    assert_eq!(
        said,
        "invalid configuration: tokens.cc.store.redis.url: needs the feature `redis` of tower-token; build with it, or \
         keep the token in a file"
    );
    // What else is wrong is named too.
    let said = fault(json!({ "redis": { "url": { "env": "TOWER_TOKEN_UNSET" }, "key": "k", "lease": "1s" } }));
    assert!(
        said.contains("store.redis.url") && said.contains("store.redis.lease"),
        "{said}"
    );
}

#[cfg(feature = "encryption")]
#[test]
fn a_key_that_is_none_is_named_and_not_quoted() {
    for (key, advice) in [
        (json!("test-canary"), "is not in base64: draw one with `openssl rand`"),
        (
            json!("dGVzdC1jYW5hcnk="),
            "has 11 bytes, and 32 are needed: draw one with `openssl rand`",
        ),
        (
            json!({ "env": "TOWER_TOKEN_UNSET" }),
            "the environment variable TOWER_TOKEN_UNSET is not set; set it, or name another",
        ),
    ] {
        let said = fault(json!({ "file": { "path": "p", "encryption_key": key } }));
        assert_eq!(
            said,
            format!("invalid configuration: tokens.cc.store.file.encryption_key: {advice}")
        );
    }
    assert!(
        built(
            &with(json!({ "file": { "path": "p", "encryption_key": KEY } })),
            Path::new("")
        )
        .is_ok()
    );
}

#[cfg(not(feature = "encryption"))]
#[test]
fn encryption_without_its_feature_is_named() {
    for (name, mut store) in [
        ("file", json!({ "path": "p" })),
        ("redis", json!({ "url": "redis://127.0.0.1:6379", "key": "k" })),
    ] {
        store["encryption_key"] = json!(KEY);
        let said = fault(json!({ name: store }));
        let expected = format!(
            "tokens.cc.store.{name}.encryption_key: needs the feature `encryption` of tower-token; build with it, or leave \
             it out"
        );
        assert!(said.contains(&expected), "{said}");
    }
}
