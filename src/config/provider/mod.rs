//! Who mints a token, as a document says it: [`Provider`].

mod grants;
mod vendors;

use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use super::{Injection, Refusal};
use crate::document::{self, Source};
use crate::error::Faults;
use crate::provider::{TokenProvider, alibaba, endpoint, tencent};
use crate::tokens::{Tokens, TokensBuilder};

pub use self::grants::{ClientAuth, ClientCredentials, RefreshToken};
pub use self::vendors::{Generate, Huawei, HuaweiTenant, Smh, Weboffice, WuyingLogin};

/// Who mints a token: an object whose `type` says which fields it has.
///
/// | `type` | fields | strategy |
/// |---|---|---|
/// | `oauth2.refresh_token` | [`RefreshToken`] | [`RefreshTokenGrant`](crate::oauth2::RefreshTokenGrant) |
/// | `oauth2.client_credentials` | [`ClientCredentials`] | [`ClientCredentialsGrant`](crate::oauth2::ClientCredentialsGrant) |
/// | `alibaba.weboffice` | [`Weboffice`] | [`alibaba::Weboffice`](crate::alibaba::Weboffice) |
/// | `alibaba.login` | [`WuyingLogin`] | [`alibaba::WuyingLogin`](crate::alibaba::WuyingLogin) |
/// | `tencent.smh` | [`Smh`] | [`tencent::SmhLibrary`](crate::tencent::SmhLibrary) |
/// | `huawei.oneaccess` | [`Huawei`] | [`huawei::OneAccess`](crate::huawei::OneAccess) |
/// | `huawei.tenant` | [`HuaweiTenant`] | [`huawei::Tenant`](crate::huawei::Tenant) |
/// | `endpoint` | [`endpoint::Document`](crate::endpoint::Document) | [`Endpoint`](crate::Endpoint) |
#[derive(Clone, Debug)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(tag = "type"))]
#[non_exhaustive]
pub enum Provider {
    /// `oauth2.refresh_token`
    #[cfg_attr(feature = "schema", schemars(rename = "oauth2.refresh_token"))]
    RefreshToken(RefreshToken),
    /// `oauth2.client_credentials`
    #[cfg_attr(feature = "schema", schemars(rename = "oauth2.client_credentials"))]
    ClientCredentials(ClientCredentials),
    /// `alibaba.weboffice`
    #[cfg_attr(feature = "schema", schemars(rename = "alibaba.weboffice"))]
    Weboffice(Weboffice),
    /// `alibaba.login`
    #[cfg_attr(feature = "schema", schemars(rename = "alibaba.login"))]
    WuyingLogin(WuyingLogin),
    /// `tencent.smh`
    #[cfg_attr(feature = "schema", schemars(rename = "tencent.smh"))]
    Smh(Smh),
    /// `huawei.oneaccess`
    #[cfg_attr(feature = "schema", schemars(rename = "huawei.oneaccess"))]
    Huawei(Huawei),
    /// `huawei.tenant`
    #[cfg_attr(feature = "schema", schemars(rename = "huawei.tenant"))]
    HuaweiTenant(HuaweiTenant),
    /// `endpoint`
    #[cfg_attr(feature = "schema", schemars(rename = "endpoint"))]
    Endpoint(Box<endpoint::Document>),
}

const TYPES: &str = "write oauth2.refresh_token, oauth2.client_credentials, alibaba.weboffice, alibaba.login, \
                     tencent.smh, huawei.oneaccess, huawei.tenant or endpoint";

// By hand, because a derived one forgets the path of what is wrong below a `type`.
impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let kind = fields.remove("type");
        let fields = Value::Object(fields);
        match kind.as_ref().and_then(Value::as_str) {
            Some("oauth2.refresh_token") => document::within(fields).map(Self::RefreshToken),
            Some("oauth2.client_credentials") => document::within(fields).map(Self::ClientCredentials),
            Some("alibaba.weboffice") => document::within(fields).map(Self::Weboffice),
            Some("alibaba.login") => document::within(fields).map(Self::WuyingLogin),
            Some("tencent.smh") => document::within(fields).map(Self::Smh),
            Some("huawei.oneaccess") => document::within(fields).map(Self::Huawei),
            Some("huawei.tenant") => document::within(fields).map(Self::HuaweiTenant),
            Some("endpoint") => document::within(fields).map(|document| Self::Endpoint(Box::new(document))),
            _ if kind.is_some() => Err(D::Error::custom(document::at("type", &format!("is unknown; {TYPES}")))),
            _ => Err(D::Error::custom(document::at("type", &format!("is missing; {TYPES}")))),
        }
    }
}

impl Provider {
    /// The strategy, with everything that is wrong about it named below `at`.
    pub(super) fn builder(&self, at: &str, base: &Path, faults: &mut Faults) -> TokensBuilder {
        let mut reader = Reader {
            base,
            faults: Faults::default(),
        };
        let builder = match self {
            Self::RefreshToken(config) => config.strategy(&mut reader),
            Self::ClientCredentials(config) => config.strategy(&mut reader),
            Self::Weboffice(config) => config.strategy(&mut reader),
            Self::WuyingLogin(config) => config.strategy(&mut reader),
            Self::Smh(config) => config.strategy(&mut reader),
            Self::Huawei(config) => config.strategy(&mut reader),
            Self::HuaweiTenant(config) => config.strategy(&mut reader),
            Self::Endpoint(document) => {
                let endpoint = document.clone().resolved(base, &mut reader.faults);
                reader.checked(endpoint)
            }
        };
        faults.absorb(at, reader.faults);
        builder
    }

    pub(super) fn injection(&self) -> Injection {
        match self {
            Self::WuyingLogin(_) => Injection::query(alibaba::WuyingLogin::in_query()),
            _ => Injection::bearer(),
        }
    }

    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::WuyingLogin(_) => Refusal::codes(alibaba::WuyingLogin::refused()),
            Self::Smh(_) => Refusal::codes(tencent::SmhLibrary::refused()),
            _ => Refusal::bearer(),
        }
    }
}

/// Reads the secrets of one provider, and gathers what is wrong.
struct Reader<'a> {
    base: &'a Path,
    faults: Faults,
}

impl Reader<'_> {
    /// The secret; nothing where there is none. One that cannot be read is a fault, and something stands in for
    /// it, so that nothing else says that it is missing.
    fn secret(&mut self, field: &'static str, source: &Option<Source>) -> Option<String> {
        match source.as_ref()?.secret(self.base) {
            Ok(secret) => Some(secret.expose().clone()),
            Err(advice) => {
                self.faults.add(field, advice);
                Some("unread".into())
            }
        }
    }

    fn checked(&mut self, provider: impl TokenProvider) -> TokensBuilder {
        let mut found = Faults::default();
        provider.check(&mut found);
        self.faults.merge(found);
        Tokens::builder(provider)
    }
}

/// One text, or a list of them.
#[derive(Clone, Debug, Default)]
pub struct List(pub Vec<String>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("is no list of texts; write a text, or several in a list");
        match Value::deserialize(deserializer)? {
            Value::String(one) => Ok(Self(vec![one])),
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(wrong()),
                })
                .collect::<Result<_, _>>()
                .map(Self),
            _ => Err(wrong()),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for List {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "List".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

/// Defines the fields of a provider: an object that knows no others, each of which may be left out, because
/// the strategy itself says what it cannot do without.
macro_rules! fields {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
        #[serde(deny_unknown_fields, default)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }
    };
}
use fields;
