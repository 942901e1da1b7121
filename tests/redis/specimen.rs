//! Records to keep.

use serde_json::json;
use sha2::{Digest, Sha256};
use tower_token::{Envelope, Record};

/// A record of this generation whose secret ends with `mark`.
pub(crate) fn record(generation: u64, mark: &str) -> Record {
    Envelope::plain().read(&bytes(generation, mark)).unwrap()
}

/// The same, as it is written.
pub(crate) fn bytes(generation: u64, mark: &str) -> Vec<u8> {
    let record = json!({
        "generation": generation,
        "owner": "a test",
        "salt": "5a17",
        "seeds": [],
        "standing": "renewed",
        "credential": { "refresh_token": format!("test-canary-{mark}") },
    });
    let record = record.to_string();
    let sum: String = Sha256::digest(&record)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(r#"{{"tower_token_record":1,"sum":"{sum}","record":{record}}}"#).into_bytes()
}

/// What makes it differ from others of its generation.
pub(crate) fn text(record: &Record) -> String {
    String::from_utf8(Envelope::plain().write(record).unwrap()).unwrap()
}
