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
        json!({ "file": { "path": "p", "lease": null, "patience": null, "alone": null, "encryption_key": null,
                          "also_opens": null, "adopts_plain": null } }),
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

/// By changes of the document alone, each process one step further. The refresh token is good for one use: who cannot
/// read what the last one left has lost the session.
#[cfg(all(feature = "encryption", feature = "testkit"))]
#[tokio::test]
async fn encryption_begins_changes_its_key_and_ends_and_the_session_stays() {
    use tower_token::testkit::Issuer;

    const OTHER: &str = "b3RoZXItdGVzdC1rZXktb3RoZXItdGVzdC1rZXktb3Q=";
    let issuer = Issuer::new();
    let server = issuer.serve().await.unwrap();
    let provider = json!({
        "type": "oauth2.refresh_token", "token_url": format!("{}/token", server.url()),
        "client_id": issuer.client_id(), "client_secret": issuer.client_secret(), "refresh_token": issuer.sign_in(),
    });
    let folder = tempfile::tempdir().unwrap();
    let renewed = async |file: Value| {
        let document = json!({ "tokens": { "user": { "provider": provider, "store": { "file": file } } } });
        let (_, builder) = built(&document.to_string(), folder.path())
            .unwrap()
            .pop_first()
            .unwrap();
        let tokens = builder.build().unwrap();
        let token = tokens.refresh().await.map(|token| token.secret().to_owned());
        tokens.shutdown().await;
        token
    };
    let is_sealed = || {
        !std::fs::read_to_string(folder.path().join("p"))
            .unwrap()
            .contains("\"secret\"")
    };

    let steps = [
        (json!({ "path": "p" }), false),
        (
            json!({ "path": "p", "encryption_key": KEY, "adopts_plain": true }),
            true,
        ),
        (
            json!({ "path": "p", "encryption_key": KEY, "adopts_plain": false }),
            true,
        ),
        (
            json!({ "path": "p", "encryption_key": OTHER, "also_opens": [KEY] }),
            true,
        ),
        (json!({ "path": "p", "encryption_key": OTHER }), true),
        (json!({ "path": "p", "also_opens": [KEY, OTHER] }), false),
    ];
    for (file, sealed) in steps {
        let token = renewed(file.clone()).await;
        assert!(token.is_ok(), "{file}: {token:?}");
        assert_eq!(is_sealed(), sealed, "{file}");
    }
    // Without those fields there is no way from one to the other.
    let refused = renewed(json!({ "path": "p", "encryption_key": KEY }))
        .await
        .unwrap_err();
    assert!(refused.is_config(), "{refused}");
    assert_eq!((issuer.counts().granted, issuer.counts().presented_twice), (6, 0));
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
        let said = fault(json!({ "file": { "path": "p", "encryption_key": KEY, "also_opens": [KEY, key] } }));
        assert_eq!(
            said,
            format!("invalid configuration: tokens.cc.store.file.also_opens[1]: {advice}")
        );
    }
    let said = fault(json!({ "file": { "path": "p", "also_opens": [KEY], "adopts_plain": true } }));
    assert!(
        said.contains("store.file.adopts_plain: says nothing without a key"),
        "{said}"
    );
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
        store["also_opens"] = json!([KEY]);
        store["adopts_plain"] = json!(true);
        let said = fault(json!({ name: store }));
        for field in ["encryption_key", "also_opens", "adopts_plain"] {
            let expected = format!(
                "tokens.cc.store.{name}.{field}: needs the feature `encryption` of tower-token; build with it, or leave it \
                 out"
            );
            assert!(said.contains(&expected), "{said}");
        }
    }
}
