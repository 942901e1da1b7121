//! A record as bytes: [`Envelope`].

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{Record, StoreError};

/// How a [`Record`] becomes bytes and bytes become a record, the same for every store.
///
/// The bytes are JSON. What does not come out as it went in is refused by name: torn, changed, of another schema.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Envelope {}

impl Envelope {
    /// Readable for whoever can read the store. A changed bit is found, an attacker who can write there is not.
    pub fn plain() -> Self {
        Self::default()
    }

    /// The record as bytes. They hold secrets.
    pub fn write(&self, record: &Record) -> Vec<u8> {
        let record = record.to_json().to_string();
        let sum = hex(&Sha256::digest(&record));
        let record = RawValue::from_string(record);
        let sheet = record.map(|record| Sheet {
            tower_token_record: SCHEMA,
            sum,
            record,
        });
        // A text that serde_json wrote is JSON.
        sheet.and_then(|sheet| serde_json::to_vec(&sheet)).unwrap_or_default()
    }

    /// What [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// [`StoreError::unusable`], which says what is wrong with them and quotes nothing.
    pub fn read(&self, bytes: &[u8]) -> Result<Record, StoreError> {
        let sheet: Sheet<&RawValue> = match serde_json::from_slice(bytes) {
            Ok(sheet) => sheet,
            Err(error) => return Err(not_ours(bytes, &error)),
        };
        if sheet.tower_token_record != SCHEMA {
            return Err(StoreError::unusable(format!(
                "what is kept is of schema {}, and this program knows {SCHEMA}",
                sheet.tower_token_record
            )));
        }
        let record = sheet.record.get();
        if sheet.sum != hex(&Sha256::digest(record)) {
            return Err(StoreError::unusable(
                "what is kept was changed or damaged since it was written: its sum does not fit",
            ));
        }
        let record = serde_json::from_str(record);
        let record = record.map_err(|_| StoreError::unusable("what is kept is no record: it is nested too deeply"))?;
        Record::from_json(&record)
    }
}

fn not_ours(bytes: &[u8], error: &serde_json::Error) -> StoreError {
    StoreError::unusable(if bytes.is_empty() {
        "what is kept is empty: a write was torn".into()
    } else if error.is_eof() {
        format!("what is kept is torn: it ends after {} bytes", bytes.len())
    } else if serde_json::from_slice::<IgnoredAny>(bytes).is_err() {
        "what is kept is no JSON: it was damaged, or something else wrote it".into()
    } else {
        "what is kept is JSON, but no token of this library".into()
    })
}

#[derive(Serialize, Deserialize)]
struct Sheet<R> {
    tower_token_record: u32,
    sum: String,
    record: R,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The form of what is written. One number more for each that an older program would misread.
const SCHEMA: u32 = 1;
