//! Where a token outlives the process, as a document says it: [`Store`].

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::below;
use crate::document::{Source, Span};
#[cfg(feature = "encryption")]
use crate::error::Error;
use crate::error::Faults;
use crate::lifetime::RefreshPolicy;
#[cfg(feature = "encryption")]
use crate::store::EncryptionKey;
#[cfg(feature = "redis")]
use crate::store::RedisStore;
use crate::store::{Envelope, FileStore, StorePolicy, TokenStore};
use crate::tokens::TokensBuilder;

/// Where a token outlives the process, and is shared with others: one of `{"file": {"path": "token.json"}}` and
/// `{"redis": {"url": {"env": "REDIS_URL"}, "key": "my-app:token"}}`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Store {
    /// In a file, for the processes of one machine. See [`FileStore`](crate::FileStore).
    File(StoredInFile),
    /// In Redis, for a fleet; feature `redis`. See `RedisStore`.
    Redis(StoredInRedis),
}

/// Defines a store's own fields, and those that every store has.
macro_rules! fields {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
            /// What is kept is sealed with: 32 bytes in base64, the same for all who share it; feature `encryption`.
            /// Default: none, it is readable.
            pub encryption_key: Option<Source>,
            /// Keys that a record may be sealed with as well, while the key is changed; nothing is written with them.
            /// Without `encryption_key` they end the encryption. Default: none.
            pub also_opens: Option<Vec<Source>>,
            /// Whether a record that is not encrypted is read too, while the encryption begins: the next one is sealed.
            /// Default: no.
            pub adopts_plain: Option<bool>,
            /// For how long the right to renew is taken: at least 5 s longer than `policy.fetch_timeout`. So long the
            /// others wait for a process that died. Default: the fetch timeout and 15 s.
            pub lease: Option<Span>,
            /// How long each call of the store may take, and how long a new token waits to be durable. Default: `2s`.
            pub patience: Option<Span>,
            /// Whether a credential that is good for one use may be spent while the store cannot be asked. Default: no.
            pub alone: Option<bool>,
        }

        impl $name {
            fn policy(&self) -> StorePolicy {
                let mut policy = StorePolicy::default().alone(self.alone.unwrap_or(false));
                if let Some(Span(term)) = self.lease {
                    policy = policy.lease(term);
                }
                if let Some(Span(patience)) = self.patience {
                    policy = policy.patience(patience);
                }
                policy
            }

            fn envelope(&self, base: &Path, faults: &mut Faults) -> Envelope {
                let sealing = Sealing {
                    key: self.encryption_key.as_ref(),
                    also: self.also_opens.as_deref().unwrap_or_default(),
                    adopts_plain: self.adopts_plain.unwrap_or(false),
                };
                sealing.envelope(base, faults)
            }
        }
    };
}

fields! {
    /// A token in a file.
    StoredInFile {
        /// Where it lies, relative to the document. Its folder has to exist.
        path: String,
    }
}

fields! {
    /// A token in Redis.
    StoredInRedis {
        /// The server, with user, password and number of the database if it has them: `redis://127.0.0.1:6379/0`,
        /// `rediss://` over TLS.
        url: Source,
        /// What its keys begin with, other than that of every other token.
        key: String,
        /// The certificates that a server is trusted by (PEM), relative to the document. Default: those of the system.
        ca_certificate: Option<String>,
        /// Our own certificate with its chain (PEM), relative to the document, for a server that asks for one. Default:
        /// none.
        client_certificate: Option<String>,
        /// The private key that goes with it (PEM).
        client_key: Option<Source>,
    }
}

impl Store {
    /// How long each of its calls may take.
    pub fn patience(&self) -> Duration {
        let policy = match self {
            Self::File(file) => file.policy(),
            Self::Redis(redis) => redis.policy(),
        };
        policy.patience
    }

    /// Puts it into `builder`, with everything that is wrong about it named below `at`.
    pub(super) fn keep(
        &self,
        builder: TokensBuilder,
        refresh: &RefreshPolicy,
        at: &str,
        base: &Path,
        faults: &mut Faults,
    ) -> TokensBuilder {
        let mut found = Faults::default();
        let (name, policy, builder) = match self {
            Self::File(file) => ("file", file.policy(), file.keep(builder, base, &mut found)),
            Self::Redis(redis) => ("redis", redis.policy(), redis.keep(builder, base, &mut found)),
        };
        policy.check(refresh, &mut found);
        // A builder has one store, and calls it that.
        faults.absorb(&below(at, name), found.without("store."));
        builder.store_policy(policy)
    }
}

impl StoredInFile {
    fn keep(&self, builder: TokensBuilder, base: &Path, faults: &mut Faults) -> TokensBuilder {
        let envelope = self.envelope(base, faults);
        if self.path.is_empty() {
            faults.add(
                "path",
                "is empty; write the file that the token is kept in, as in token.json",
            );
            return builder;
        }
        let store = FileStore::new(base.join(&self.path)).envelope(envelope);
        store.check(faults);
        builder.store(store)
    }
}

impl StoredInRedis {
    #[cfg(feature = "redis")]
    fn keep(&self, builder: TokensBuilder, base: &Path, faults: &mut Faults) -> TokensBuilder {
        let envelope = self.envelope(base, faults);
        // Sooner than the patience ends, so that what went wrong is named.
        let timeout = (self.policy().patience / 2).clamp(SHORTEST, LONGEST);
        let mut read = |field: &'static str, source: Option<&Source>| {
            let read = source.map(|source| source.secret(base)).transpose();
            read.unwrap_or_else(|advice| {
                faults.add(field, advice);
                None
            })
        };
        let file = |path: &Option<String>| path.as_ref().map(|path| Source::File(path.into()));
        let url = read("url", Some(&self.url));
        let ca = read("ca_certificate", file(&self.ca_certificate).as_ref());
        let chain = read("client_certificate", file(&self.client_certificate).as_ref());
        let key = read("client_key", self.client_key.as_ref());
        match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => faults.add("client_key", "is missing; write where the certificate's private key is"),
            (None, Some(_)) => faults.add(
                "client_certificate",
                "is missing; a private key says nothing without it",
            ),
            _ => {}
        }
        let Some(url) = url else { return builder };
        let mut store = RedisStore::new(url, self.key.as_str())
            .envelope(envelope)
            .timeout(timeout);
        if let Some(pem) = ca {
            store = store.ca_certificate(pem.expose().as_str());
        }
        if let (Some(chain), Some(key)) = (chain, key) {
            store = store.client_certificate(chain.expose().as_str(), key);
        }
        store.check(faults);
        builder.store(store)
    }

    #[cfg(not(feature = "redis"))]
    fn keep(&self, builder: TokensBuilder, base: &Path, faults: &mut Faults) -> TokensBuilder {
        let _ = self.envelope(base, faults);
        faults.add(
            "url",
            "needs the feature `redis` of tower-token; build with it, or keep the token in a file",
        );
        builder
    }
}

/// How a record is written, and what else is read: sealed where there is a key.
struct Sealing<'a> {
    key: Option<&'a Source>,
    also: &'a [Source],
    adopts_plain: bool,
}

impl Sealing<'_> {
    #[cfg(feature = "encryption")]
    fn envelope(self, base: &Path, faults: &mut Faults) -> Envelope {
        let mut read = |at: &str, source: &Source| {
            let text = source.secret(base).map_err(|advice| Error::config("", advice));
            let key = text.and_then(|text| EncryptionKey::from_base64(text.expose()));
            key.map_err(|wrong| faults.rename(at, &wrong)).ok()
        };
        let key = self.key.and_then(|key| read("encryption_key", key));
        let mut envelope = key.map_or_else(Envelope::plain, Envelope::sealed);
        for (nth, key) in self.also.iter().enumerate() {
            if let Some(key) = read(&format!("also_opens[{nth}]"), key) {
                envelope = envelope.also_opens(key);
            }
        }
        match self.adopts_plain {
            true if self.key.is_none() => faults.add(
                "adopts_plain",
                "says nothing without a key: what is not encrypted is read as it is; add `encryption_key`, or leave it out",
            ),
            true => envelope = envelope.adopts_plain(),
            false => {}
        }
        envelope
    }

    #[cfg(not(feature = "encryption"))]
    fn envelope(self, _: &Path, faults: &mut Faults) -> Envelope {
        let fields = [
            ("encryption_key", self.key.is_some()),
            ("also_opens", !self.also.is_empty()),
            ("adopts_plain", self.adopts_plain),
        ];
        for (field, _) in fields.into_iter().filter(|(_, is_there)| *is_there) {
            faults.add(
                field,
                "needs the feature `encryption` of tower-token; build with it, or leave it out",
            );
        }
        Envelope::plain()
    }
}

/// What a Redis store takes for a timeout.
#[cfg(feature = "redis")]
const SHORTEST: Duration = Duration::from_millis(10);
#[cfg(feature = "redis")]
const LONGEST: Duration = Duration::from_secs(60);
