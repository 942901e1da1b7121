//! A record as bytes: [`Envelope`].

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

#[cfg(feature = "encryption")]
use super::sealed::{EncryptionKey, Sealed};
use super::{Record, StoreError};
use crate::token::Secret;

/// How a [`Record`] becomes bytes and bytes become a record, the same for every store.
///
/// The bytes are JSON. What does not come out as it went in is refused by name: torn, changed, of another schema, not
/// encrypted, or with another key.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Envelope {
    /// What is written is sealed with this one.
    #[cfg(feature = "encryption")]
    key: Option<EncryptionKey>,
    /// What is read may be sealed with one of these as well.
    #[cfg(feature = "encryption")]
    older: Vec<EncryptionKey>,
    #[cfg(feature = "encryption")]
    adopts_plain: bool,
}

impl Envelope {
    /// Readable for whoever can read the store. A changed bit is found, an attacker who can write there is not.
    pub fn plain() -> Self {
        Self::default()
    }

    /// Encrypted with `key`, by XChaCha20-Poly1305: who can read the store learns how long the record is and which key it
    /// is sealed with, and a byte that somebody changed is found. Not found is who puts an older record back, whole; that
    /// is up to who may write there.
    ///
    /// To begin, to change the key, to end: the guide has
    /// [the steps](crate::guide::outlive_the_process#encryption-at-rest).
    ///
    /// ```
    /// use tower_token::{EncryptionKey, Envelope, FileStore};
    ///
    /// # fn store(secret: &str) -> Result<FileStore, tower_token::Error> {
    /// let key = EncryptionKey::from_base64(secret)?;
    /// let store = FileStore::new("/var/lib/my-app/token.json").envelope(Envelope::sealed(key));
    /// # Ok(store)
    /// # }
    /// ```
    ///
    /// Source: RFC 8439 with the nonce of draft-irtf-cfrg-xchacha-03, 192 bits that are drawn for each record.
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    pub fn sealed(key: EncryptionKey) -> Self {
        Self {
            key: Some(key),
            ..Self::default()
        }
    }

    /// Reads what is sealed with `key` too, so that a key can be changed. Nothing is written with it. May be called more
    /// than once.
    ///
    /// With [`plain`](Self::plain) it ends the encryption: the next record is written readable.
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn also_opens(mut self, key: EncryptionKey) -> Self {
        self.older.push(key);
        self
    }

    /// Reads what is not encrypted too, so that a store can begin to be: the next record is written sealed. Until then
    /// whoever can write there can put a record of his own there, so leave it out again.
    ///
    /// Default: it is refused.
    #[cfg(feature = "encryption")]
    #[cfg_attr(docsrs, doc(cfg(feature = "encryption")))]
    #[must_use]
    pub fn adopts_plain(mut self) -> Self {
        self.adopts_plain = true;
        self
    }

    /// The record as bytes. They hold secrets, unless the envelope is sealed with a key.
    ///
    /// # Errors
    ///
    /// [`StoreError::unusable`] for a record that [`read`](Self::read) would refuse: what a provider keeps as its
    /// credential is nested too deeply for JSON to be read back: 120 values are not.
    pub fn write(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        let record = Secret::new(record.to_json());
        let record = Zeroizing::new(record.expose().to_string());
        parsed(&record)?;
        #[cfg(feature = "encryption")]
        if let Some(key) = &self.key {
            let sealed = Sealed::new(&record, key, SCHEMA);
            return sheet(&SealedSheet {
                tower_token_record: SCHEMA,
                sealed,
            });
        }
        sheet(&PlainSheet {
            tower_token_record: SCHEMA,
            sum: sum(&record),
            record: serde_json::from_str(&record).map_err(unwritable)?,
        })
    }

    /// What [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// [`StoreError::unusable`], which says what is wrong with them and quotes nothing.
    pub fn read(&self, bytes: &[u8]) -> Result<Record, StoreError> {
        let sheet: Sheet<'_> = serde_json::from_slice(bytes).map_err(|error| not_ours(bytes, &error))?;
        let schema = sheet.tower_token_record;
        if schema != SCHEMA {
            return Err(StoreError::unusable(format!(
                "what is kept is of schema {schema}, and this program knows {SCHEMA}",
            )));
        }
        match sheet {
            Sheet {
                record: Some(record),
                sum: Some(sum),
                sealed: None,
                ..
            } => self.read_plain(record.get(), &sum),
            Sheet {
                record: None,
                sum: None,
                sealed: Some(sealed),
                ..
            } => self.open(sealed.get()),
            _ => Err(StoreError::unusable(FOREIGN)),
        }
    }

    fn read_plain(&self, record: &str, noted: &str) -> Result<Record, StoreError> {
        #[cfg(feature = "encryption")]
        if self.key.is_some() && !self.adopts_plain {
            return Err(StoreError::unusable(
                "what is kept is not encrypted, and only what is encrypted is believed here",
            ));
        }
        if noted != sum(record) {
            return Err(StoreError::unusable(
                "what is kept was changed or damaged since it was written: its sum does not fit",
            ));
        }
        parsed(record)
    }

    #[cfg(feature = "encryption")]
    fn open(&self, sealed: &str) -> Result<Record, StoreError> {
        let keys: Vec<_> = self.key.iter().chain(&self.older).collect();
        if keys.is_empty() {
            return Err(StoreError::unusable(NO_KEY));
        }
        let sealed: Sealed = serde_json::from_str(sealed).map_err(|_| StoreError::unusable(FOREIGN))?;
        parsed(&sealed.open(&keys, SCHEMA)?)
    }

    #[cfg(not(feature = "encryption"))]
    #[allow(clippy::unused_self, reason = "with the feature it has keys")]
    fn open(&self, _: &str) -> Result<Record, StoreError> {
        Err(StoreError::unusable(NO_KEY))
    }
}

fn parsed(record: &str) -> Result<Record, StoreError> {
    let record = serde_json::from_str(record).map(Secret::new);
    let record = record.map_err(|_| StoreError::unusable("what is kept is no record: it is nested too deeply"))?;
    Record::from_json(record.expose())
}

fn not_ours(bytes: &[u8], error: &serde_json::Error) -> StoreError {
    StoreError::unusable(if bytes.is_empty() {
        "what is kept is empty: a write was torn".into()
    } else if error.is_eof() {
        format!("what is kept is torn: it ends after {} bytes", bytes.len())
    } else if serde_json::from_slice::<IgnoredAny>(bytes).is_err() {
        "what is kept is no JSON: it was damaged, or something else wrote it".into()
    } else {
        FOREIGN.into()
    })
}

fn sheet(sheet: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(sheet).map_err(unwritable)
}

fn unwritable(error: serde_json::Error) -> StoreError {
    StoreError::unusable("the record has no form that JSON can have").caused_by(error)
}

#[derive(Serialize)]
struct PlainSheet<'a> {
    tower_token_record: u32,
    sum: String,
    record: &'a RawValue,
}

#[cfg(feature = "encryption")]
#[derive(Serialize)]
struct SealedSheet {
    tower_token_record: u32,
    sealed: Sealed,
}

/// What is read: one or the other, or of a schema that has neither.
#[derive(Deserialize)]
struct Sheet<'a> {
    tower_token_record: u32,
    sum: Option<String>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    #[serde(borrow)]
    sealed: Option<&'a RawValue>,
}

fn sum(record: &str) -> String {
    hex(&Sha256::digest(record))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const FOREIGN: &str = "what is kept is JSON, but no token of this library";

const NO_KEY: &str = "what is kept is encrypted, and no key was given";

/// The form of what is written. One number more for each that an older program would misread.
const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::record::tests::record;

    fn with_a_credential_of(depth: usize) -> Record {
        let nested = (0..depth).fold(json!("test-credential"), |inner, _| Value::Array(vec![inner]));
        Record {
            credential: Some(Secret::new(nested)),
            ..record()
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let deep = with_a_credential_of(120);
        let bytes = Envelope::plain().write(&deep).unwrap();
        assert_eq!(Envelope::plain().read(&bytes).unwrap().to_json(), deep.to_json());
        for depth in [127, 128, 500] {
            let refused = Envelope::plain().write(&with_a_credential_of(depth)).unwrap_err();
            assert!(refused.is_unusable(), "{refused}");
            assert!(refused.to_string().contains("nested too deeply"), "{refused}");
        }
    }
}
