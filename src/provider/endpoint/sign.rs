//! How a request is signed: not at all, or as one of [`acs3`](super::acs3) and [`rpc`](super::rpc) has it.

use std::path::Path;

use http::request;
use serde::Deserialize;

use super::acs3::{self, AccessKey};
use super::rpc;
use crate::document::Source;
use crate::error::Faults;
use crate::provider::exchange::Needles;
use crate::token::Secret;

/// How a document says it.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(super) enum Sign {
    #[default]
    None,
    /// ACS3-HMAC-SHA256.
    Acs3(Keys),
    /// HMAC-SHA1, for older gateways.
    Rpc(Keys),
}

/// An access key of Alibaba Cloud, which requests are signed with.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Keys {
    /// Its id.
    pub access_key_id: Source,
    /// Its secret.
    pub access_key_secret: Source,
    /// The security token of temporary keys (STS). Default: none, the key is permanent.
    pub security_token: Option<Source>,
}

impl Keys {
    /// The key itself; `at` is where it stands in the document.
    pub(crate) fn read(&self, at: &str, base: &Path, faults: &mut Faults) -> AccessKey {
        let mut read = |field: &str, source: &Source| {
            source.secret(base).unwrap_or_else(|advice| {
                faults.add(format!("{at}.{field}"), advice);
                Secret::from("")
            })
        };
        AccessKey {
            access_key_id: read("access_key_id", &self.access_key_id),
            access_key_secret: read("access_key_secret", &self.access_key_secret),
            security_token: self.security_token.as_ref().map(|token| read("security_token", token)),
        }
    }
}

/// What signs requests.
#[derive(Clone)]
pub(in crate::provider) struct Signer {
    pub(in crate::provider) key: AccessKey,
    version: Version,
}

#[derive(Clone, Copy)]
enum Version {
    Acs3,
    Rpc,
}

impl Signer {
    pub(in crate::provider) fn acs3(key: AccessKey) -> Self {
        Self {
            key,
            version: Version::Acs3,
        }
    }

    pub(super) fn read(sign: &Sign, base: &Path, faults: &mut Faults) -> Option<Self> {
        match sign {
            Sign::None => None,
            Sign::Acs3(keys) => Some(Self::acs3(keys.read("sign.acs3", base, faults))),
            Sign::Rpc(keys) => Some(Self {
                key: keys.read("sign.rpc", base, faults),
                version: Version::Rpc,
            }),
        }
    }

    pub(super) fn sign(
        &self,
        head: &mut request::Parts,
        body: &[u8],
        timestamp: &str,
        nonce: &str,
    ) -> http::Result<()> {
        match self.version {
            Version::Acs3 => acs3::sign(&self.key, head, body, timestamp, nonce),
            Version::Rpc => rpc::sign(&self.key, head, body, timestamp, nonce),
        }
    }

    /// Names what is wrong with the key; `at` stands before the names of its fields.
    pub(super) fn check(&self, at: &str, faults: &mut Faults) {
        let keys = [
            ("access_key_id", Some(&self.key.access_key_id)),
            ("access_key_secret", Some(&self.key.access_key_secret)),
            ("security_token", self.key.security_token.as_ref()),
        ];
        for (name, key) in keys {
            let Some(key) = key.map(Secret::expose) else {
                continue;
            };
            let advice = if key.is_empty() && name == "security_token" {
                "is empty; leave it out with permanent keys"
            } else if key.is_empty() {
                "is missing; write what the access key was issued with"
            } else if key.contains(|c: char| c.is_control() || c == ' ') {
                "holds a space or a control character, such as a newline; trim it"
            } else {
                continue;
            };
            faults.add(format!("{at}{name}"), advice);
        }
    }

    /// Where a document has the key.
    pub(super) fn path(&self) -> &'static str {
        match self.version {
            Version::Acs3 => "sign.acs3.",
            Version::Rpc => "sign.rpc.",
        }
    }

    pub(super) fn hide(&self, needles: &mut Needles) {
        needles.add(self.key.access_key_secret.expose());
        needles.add(self.key.security_token.as_ref().map_or("", |token| token.expose()));
    }
}
