//! A record that is encrypted where it is kept: [`Sealed`], with an [`EncryptionKey`].

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::StoreError;
use super::envelope::hex;
use crate::error::Error;

/// What a record is [sealed](crate::Envelope::sealed) with: 32 bytes that nobody can guess, so drawn by a machine
/// (`openssl rand -base64 32`) and no password.
///
/// Cheap to clone: all clones share one copy, which is wiped when the last is dropped. `Debug` prints nothing of it.
#[derive(Clone)]
pub struct EncryptionKey(Arc<Zeroizing<[u8; 32]>>);

impl EncryptionKey {
    /// The key itself. The caller's copy is the caller's to wipe.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(key)))
    }

    /// A key in base64, of the usual alphabet or the one for URLs, padded or not. White space around it, as at the end of
    /// a file, does not count.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`]: it is something else, or not of 32 bytes. Nothing of it is quoted.
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        let mut usual = Zeroizing::new(text.trim().as_bytes().to_vec());
        for letter in usual.iter_mut() {
            *letter = match *letter {
                b'+' => b'-',
                b'/' => b'_',
                other => other,
            };
        }
        let key = EITHER_PADDING.decode(&*usual);
        Self::read(key.ok().map(Zeroizing::new), "base64")
    }

    /// A key as 64 hexadecimal digits. White space around them does not count.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`]: it is something else, or not of 32 bytes. Nothing of it is quoted.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        let nibble = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|nibble| u8::try_from(nibble).ok())
        };
        let pair = |pair: &[u8]| match *pair {
            [high, low] => Some(nibble(high)? << 4 | nibble(low)?),
            _ => None,
        };
        let key: Option<Vec<u8>> = text.trim().as_bytes().chunks(2).map(pair).collect();
        Self::read(key.map(Zeroizing::new), "pairs of hexadecimal digits")
    }

    fn read(key: Option<Zeroizing<Vec<u8>>>, form: &str) -> Result<Self, Error> {
        let wrong = |what: String| Error::config("encryption_key", what + ": draw one with `openssl rand`");
        let key = key.ok_or_else(|| wrong(format!("is not in {form}")))?;
        let length = key.len();
        let key = <[u8; 32]>::try_from(key.as_slice());
        key.map(Self::new)
            .map_err(|_| wrong(format!("has {length} bytes, and 32 are needed")))
    }

    /// Tells keys apart, and nothing about them.
    fn name(&self) -> String {
        let digest = Sha256::new()
            .chain_update("tower-token key name\0")
            .chain_update(self.0.as_slice());
        hex(&digest.finalize()[..4])
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&**self.0).into())
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EncryptionKey").finish_non_exhaustive()
    }
}

/// A record that nobody reads without the key.
#[derive(Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The name of the key.
    key: String,
    nonce: String,
    #[serde(rename = "box")]
    contents: String,
}

impl Sealed {
    /// A record of this schema.
    pub(super) fn new(record: &str, key: &EncryptionKey, schema: u32) -> Self {
        // 192 bits: two that are drawn are never the same. Where nothing can be drawn, the runtime and every map of this
        // process have panicked at their start.
        let nonce = XNonce::generate();
        let name = key.name();
        let bound = bound(schema, &name);
        let payload = Payload {
            msg: record.as_bytes(),
            aad: bound.as_bytes(),
        };
        // Fails for more than 256 GiB.
        let contents = key.cipher().encrypt(&nonce, payload).unwrap_or_default();
        Self {
            key: name,
            nonce: STANDARD.encode(nonce),
            contents: STANDARD.encode(contents),
        }
    }

    /// The record, by whichever of the keys it was sealed with.
    pub(super) fn open(&self, keys: &[&EncryptionKey], schema: u32) -> Result<Zeroizing<String>, StoreError> {
        let key = keys.iter().find(|key| key.name() == self.key);
        let key = key.ok_or_else(|| StoreError::unusable("what is kept is encrypted with another key"))?;
        let opened = self.open_with(key, schema).map(Zeroizing::new);
        let text = opened.as_ref().and_then(|opened| str::from_utf8(opened).ok());
        let text = text.map(|text| Zeroizing::new(text.to_owned()));
        text.ok_or_else(|| StoreError::unusable("what is kept was damaged or tampered with: its seal is broken"))
    }

    fn open_with(&self, key: &EncryptionKey, schema: u32) -> Option<Vec<u8>> {
        let nonce: [u8; 24] = STANDARD.decode(&self.nonce).ok()?.try_into().ok()?;
        let contents = STANDARD.decode(&self.contents).ok()?;
        let bound = bound(schema, &self.key);
        let payload = Payload {
            msg: &contents,
            aad: bound.as_bytes(),
        };
        key.cipher().decrypt(&nonce.into(), payload).ok()
    }
}

/// What the seal vouches for besides what is in it.
fn bound(schema: u32, key: &str) -> String {
    format!("tower-token record of schema {schema}, sealed with {key}")
}

const EITHER_PADDING: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::tests::record;
    use crate::{Envelope, Record};

    fn key(of: u8) -> EncryptionKey {
        EncryptionKey::new([of; 32])
    }

    fn refused(read: Result<Record, StoreError>) -> String {
        let error = read.unwrap_err();
        assert!(error.is_unusable(), "{error}");
        error.to_string()
    }

    #[test]
    fn what_is_sealed_is_what_is_opened() {
        let envelope = Envelope::sealed(key(1));
        let read = envelope.read(&envelope.write(&record()).unwrap()).unwrap();
        assert_eq!(read.to_json(), record().to_json());
    }

    #[test]
    fn nothing_of_a_record_is_in_the_bytes_and_no_two_are_alike() {
        let envelope = Envelope::sealed(key(1));
        let plain = String::from_utf8(Envelope::plain().write(&record()).unwrap()).unwrap();
        let bytes = envelope.write(&record()).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        for word in ["test-secret", "test-credential", "an owner", "5a17", "generation"] {
            assert!(plain.contains(word) && !text.contains(word), "{word}");
            assert!(!text.contains(STANDARD.encode(word).trim_end_matches('=')), "{word}");
        }
        let sealed = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["sealed"].clone();
        let (one, other) = (sealed(&bytes), sealed(&envelope.write(&record()).unwrap()));
        assert_eq!(one["key"], other["key"]);
        assert!(one["nonce"] != other["nonce"] && one["box"] != other["box"]);
    }

    #[test]
    fn who_has_no_key_or_another_is_told_so() {
        let bytes = Envelope::sealed(key(1)).write(&record()).unwrap();
        assert_eq!(
            refused(Envelope::plain().read(&bytes)),
            "what is kept is encrypted, and no key was given"
        );
        assert_eq!(
            refused(Envelope::sealed(key(2)).read(&bytes)),
            "what is kept is encrypted with another key"
        );
    }

    #[test]
    fn what_is_not_encrypted_is_not_believed_unless_that_is_wanted() {
        let plain = Envelope::plain().write(&record()).unwrap();
        let sealed = Envelope::sealed(key(1));
        assert!(refused(sealed.read(&plain)).starts_with("what is kept is not encrypted"));
        // Nor one that is both.
        let mut both: serde_json::Value = serde_json::from_slice(&sealed.write(&record()).unwrap()).unwrap();
        let whole: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        both["record"] = whole["record"].clone();
        both["sum"] = whole["sum"].clone();
        assert!(refused(sealed.read(&serde_json::to_vec(&both).unwrap())).contains("no token of this library"));
        let adopting = sealed.adopts_plain();
        let adopted = adopting.read(&plain).unwrap();
        assert!(
            Envelope::sealed(key(1))
                .read(&adopting.write(&adopted).unwrap())
                .is_ok()
        );
    }

    #[test]
    fn a_key_can_be_changed_without_losing_what_is_kept() {
        let old = Envelope::sealed(key(1)).write(&record()).unwrap();
        let changing = Envelope::sealed(key(3)).also_opens(key(2)).also_opens(key(1));
        let kept = changing.read(&old).unwrap();
        let new = changing.write(&kept).unwrap();
        assert!(Envelope::sealed(key(3)).read(&new).is_ok());
        assert!(refused(Envelope::sealed(key(1)).read(&new)).contains("another key"));
        // And given up.
        let ending = Envelope::plain().also_opens(key(3));
        let plain = ending.write(&ending.read(&new).unwrap()).unwrap();
        assert!(Envelope::plain().read(&plain).is_ok());
    }

    #[test]
    fn a_change_of_any_byte_is_refused() {
        let envelope = Envelope::sealed(key(1));
        let bytes = envelope.write(&record()).unwrap();
        let broken = br#""box":""#;
        let begins = bytes.windows(broken.len()).position(|found| found == broken).unwrap() + broken.len();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let told = refused(envelope.read(&changed));
                if at >= begins && changed[at].is_ascii_alphanumeric() && at < bytes.len() - 3 {
                    assert!(told.contains("damaged or tampered with"), "{at} {bit}: {told}");
                }
            }
        }
        for length in 0..bytes.len() {
            assert!(refused(envelope.read(&bytes[..length])).contains("torn"));
        }
    }

    #[test]
    fn a_seal_holds_for_one_schema_and_one_key() {
        let sealed = Sealed::new("{}", &key(1), 1);
        assert!(sealed.open(&[&key(1)], 1).is_ok());
        assert!(sealed.open(&[&key(1)], 2).is_err());
        let renamed = Sealed {
            key: key(2).name(),
            ..sealed
        };
        assert!(renamed.open(&[&key(2)], 1).is_err());
    }

    /// So that what is kept now is opened by every later version.
    #[test]
    fn a_record_that_was_sealed_long_ago_is_opened() {
        let kept = include_bytes!("sealed/first.json");
        let read = Envelope::sealed(key(7)).read(kept).unwrap();
        assert_eq!(read.to_json(), record().to_json());
    }

    #[test]
    fn a_key_is_read_in_base64_of_any_kind_or_in_hexadecimal() {
        let key = EncryptionKey::new([0xfb; 32]);
        let hexadecimal = "fb".repeat(32);
        let base64 = STANDARD.encode([0xfb; 32]);
        assert!(base64.contains('+') && base64.ends_with('='));
        for text in [
            base64.clone() + "\n",
            base64.replace('=', ""),
            base64.replace('+', "-").replace('/', "_"),
        ] {
            assert_eq!(EncryptionKey::from_base64(&text).unwrap().0, key.0, "{text}");
        }
        for text in [&hexadecimal, &format!(" {} \n", hexadecimal.to_uppercase())] {
            assert_eq!(EncryptionKey::from_hex(text).unwrap().0, key.0, "{text}");
        }
    }

    #[test]
    fn a_key_that_is_none_is_named_and_not_quoted() {
        for (read, expected) in [
            (EncryptionKey::from_base64("test password"), "is not in base64"),
            (EncryptionKey::from_base64(""), "has 0 bytes, and 32 are needed"),
            (EncryptionKey::from_base64(&STANDARD.encode([1; 31])), "has 31 bytes"),
            (EncryptionKey::from_base64(&STANDARD.encode([1; 64])), "has 64 bytes"),
            (
                EncryptionKey::from_hex("test password"),
                "is not in pairs of hexadecimal digits",
            ),
            (
                EncryptionKey::from_hex("\u{e4}\u{e4}"),
                "is not in pairs of hexadecimal digits",
            ),
            (
                EncryptionKey::from_hex(&"0".repeat(63)),
                "is not in pairs of hexadecimal digits",
            ),
            (EncryptionKey::from_hex("00"), "has 1 bytes"),
        ] {
            let error = read.unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(
                error.is_config() && told.contains("encryption_key") && told.contains(expected),
                "{told}"
            );
            assert!(!told.contains("password"), "{told}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let printed = format!("{:?}", Envelope::sealed(key(0x5a)).also_opens(key(0x5b)));
        assert!(
            !printed.contains("5a") && !printed.contains("90") && !printed.contains("91"),
            "{printed}"
        );
    }
}
