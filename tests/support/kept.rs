//! Records to keep, and a process that saves one after the other.

// Each test file uses its own part of it.
#![allow(dead_code)]

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use tower_token::{Envelope, FileStore, Record, Saved, TokenStore};

/// Longer than anything here takes.
pub(crate) const TERM: Duration = Duration::from_secs(600);

pub(crate) fn record(generation: u64) -> Record {
    Envelope::plain().read(sheet(1, generation).as_bytes()).unwrap()
}

/// What is in a file of this schema. Its secrets have the generation in them.
pub(crate) fn sheet(schema: u32, generation: u64) -> String {
    let record = json!({
        "generation": generation,
        "owner": "test owner",
        "salt": "5a17",
        "seeds": ["seed"],
        "standing": "renewed",
        "token": {
            "secret": format!("test-access-{generation}"),
            "type": "Bearer",
            "issued_at_ms": 1_700_000_000_000_u64,
            "expires_at_ms": 1_700_000_060_000_u64,
        },
        "credential": { "refresh_token": format!("test-refresh-{generation}-{}", "padded".repeat(200)) },
    });
    let record = record.to_string();
    let sum: String = Sha256::digest(&record)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(r#"{{"tower_token_record":{schema},"sum":"{sum}","record":{record}}}"#)
}

/// Saves as many generations on top of what is kept, and says each when it is durable.
pub(crate) async fn save_on(path: &Path, number: u64) {
    let store = FileStore::new(path);
    let lease = store.lease(TERM).await.unwrap().expect("the lease is free");
    let kept = store.load().await.unwrap().map_or(0, |record| record.generation());
    for generation in kept + 1..=kept + number {
        let saved = store.save(&record(generation), generation - 1, &lease).await;
        assert_eq!(saved.unwrap(), Saved::Kept);
        println!("{KEPT}{generation}");
    }
    store.release(&lease).await.unwrap();
}

/// In front of what [`save_on`] says.
pub(crate) const KEPT: &str = "kept: ";
