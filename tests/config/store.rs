//! Where a document has its token kept.

use std::path::Path;

use serde_json::{Value, json};

use super::samples::*;

fn fault(store: Value) -> String {
    let mut token = token("cc");
    set(&mut token, "/store", store);
    let error = built(&document("cc", token).to_string(), Path::new("")).expect_err("a fault");
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
        let mut token = token("cc");
        set(&mut token, "/store", store.clone());
        for (_, builder) in built(&document("cc", token).to_string(), folder.path()).unwrap() {
            builder.build().unwrap_or_else(|error| panic!("{store}: {error}"));
        }
    }
}

/// The longest lease, which is more than any exchange takes.
#[test]
fn a_lease_is_at_most_a_year() {
    let mut token = token("cc");
    set(
        &mut token,
        "/store",
        json!({ "file": { "path": "p", "lease": "90000h" } }),
    );
    // More than a year counts as a year wherever a document has a duration.
    let folder = tempfile::tempdir().unwrap();
    assert!(built(&document("cc", token).to_string(), folder.path()).is_ok());
}

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

#[test]
fn encryption_without_its_feature_is_named() {
    for (name, mut store) in [
        ("file", json!({ "path": "p" })),
        ("redis", json!({ "url": "redis://127.0.0.1:6379", "key": "k" })),
    ] {
        store["encryption_key"] = json!("dGVzdC1jYW5hcnktdGVzdC1jYW5hcnktdGVzdC1jYW4=");
        let said = fault(json!({ name: store }));
        let expected = format!(
            "tokens.cc.store.{name}.encryption_key: needs the feature `encryption` of tower-token; build with it, or leave \
             it out"
        );
        assert!(said.contains(&expected), "{said}");
    }
}
