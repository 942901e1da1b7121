//! Who mints a token, as a document says it: [`Provider`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::{Map, Value};

use super::{Injection, Refusal};
use crate::document::{self, Source, Span};
use crate::error::Faults;
use crate::provider::endpoint::{Keys, rfc3339};
use crate::provider::{IfLost, TokenProvider, alibaba, endpoint, huawei, oauth2, tencent};
use crate::tokens::{Tokens, TokensBuilder};

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

/// How the client tells the issuer who it is; see [`oauth2::ClientAuth`](crate::oauth2::ClientAuth).
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientAuth {
    /// In the `Authorization` header.
    Basic,
    /// In the body.
    Post,
    /// Not at all: a public client.
    None,
}

impl From<ClientAuth> for oauth2::ClientAuth {
    fn from(auth: ClientAuth) -> Self {
        match auth {
            ClientAuth::Basic => Self::Basic,
            ClientAuth::Post => Self::Post,
            ClientAuth::None => Self::None,
        }
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

fields! {
    /// `oauth2.refresh_token`: trades a refresh token for the next token.
    RefreshToken {
        /// The issuer's token endpoint. Required.
        token_url: String,
        /// Required.
        client_id: String,
        /// Default: none, a public client.
        client_secret: Option<Source>,
        /// Default: `basic` with a secret, else `none`.
        client_auth: Option<ClientAuth>,
        /// The first one. Required.
        refresh_token: Option<Source>,
        /// Separated by spaces.
        scope: Option<String>,
        /// RFC 8707.
        resource: List,
        /// Where an issuer asks for that instead.
        audience: Option<String>,
        /// More parameters, as an issuer's manual has them.
        extra: BTreeMap<String, Source>,
        /// What may be done when an answer was lost. Default: `once`.
        replay: Option<IfLost>,
    }
}

fields! {
    /// `oauth2.client_credentials`: a token in the program's own name.
    ClientCredentials {
        /// The issuer's token endpoint. Required.
        token_url: String,
        /// Required.
        client_id: String,
        /// Default: none, a public client.
        client_secret: Option<Source>,
        /// Default: `basic` with a secret, else `none`.
        client_auth: Option<ClientAuth>,
        /// Separated by spaces.
        scope: Option<String>,
        /// RFC 8707.
        resource: List,
        /// Where an issuer asks for that instead.
        audience: Option<String>,
        /// More parameters, as an issuer's manual has them.
        extra: BTreeMap<String, Source>,
        /// What may be done when an answer was lost. Default: `idempotent`.
        replay: Option<IfLost>,
    }
}

/// What both grants take alike.
macro_rules! common {
    ($grant:ident, $config:ident, $reader:ident) => {{
        let mut grant = oauth2::$grant::new($config.token_url.as_str(), $config.client_id.as_str());
        if let Some(secret) = $reader.secret("client_secret", &$config.client_secret) {
            grant = grant.client_secret(secret);
        }
        if let Some(auth) = $config.client_auth {
            grant = grant.client_auth(auth.into());
        }
        if let Some(scope) = &$config.scope {
            grant = grant.scope(scope.as_str());
        }
        for resource in &$config.resource.0 {
            grant = grant.resource(resource.as_str());
        }
        if let Some(audience) = &$config.audience {
            grant = grant.audience(audience.as_str());
        }
        for (name, value) in &$config.extra {
            match value.secret($reader.base) {
                Ok(value) => grant = grant.extra(name.as_str(), value.expose().as_str()),
                Err(advice) => $reader.faults.add(format!("extra.{name}"), advice),
            }
        }
        if let Some(replay) = $config.replay {
            grant = grant.if_lost(replay);
        }
        grant
    }};
}

impl RefreshToken {
    fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let mut grant = common!(RefreshTokenGrant, self, reader);
        match reader.secret("refresh_token", &self.refresh_token) {
            Some(token) => grant = grant.refresh_token(token),
            None if self.refresh_token.is_none() => {
                let advice = "is missing; write the first one, a text, {\"env\": \"NAME\"} or {\"file\": \"path\"}";
                reader.faults.add("refresh_token", advice);
            }
            None => {}
        }
        reader.checked(grant)
    }
}

impl ClientCredentials {
    fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let grant = common!(ClientCredentialsGrant, self, reader);
        reader.checked(grant)
    }
}

fields! {
    /// `alibaba.weboffice`: the pair behind an IMM document. It may lack the pair where `generate` is there.
    Weboffice {
        /// `https://imm.{region}.aliyuncs.com`. Required.
        endpoint: String,
        /// Required.
        project_name: String,
        /// Required.
        access_key_id: Option<Source>,
        /// Required.
        access_key_secret: Option<Source>,
        /// Of temporary keys (STS).
        security_token: Option<Source>,
        /// An object, or a text that is sent as it stands.
        credential_config: Option<Value>,
        /// The pair to begin with.
        access_token: Option<Source>,
        /// The pair to begin with.
        refresh_token: Option<Source>,
        /// When the access token dies, as RFC 3339. Default: 30 minutes after the start.
        expires_at: Option<String>,
        /// What to generate a pair for when there is none, or a dead one.
        generate: Option<Generate>,
        /// What may be done when an answer was lost. Default: `once`.
        replay: Option<IfLost>,
    }
}

/// What `GenerateWebofficeToken` is called with: `source_uri`, and more parameters under their API names.
#[derive(Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[non_exhaustive]
pub struct Generate {
    /// `oss://{bucket}/{object}`.
    #[serde(default)]
    pub source_uri: String,
    /// `Permission`, `User`, `Watermark`: an object goes as one JSON text.
    #[serde(flatten)]
    pub parameters: BTreeMap<String, Value>,
}

impl fmt::Debug for Generate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `Password` is among them.
        let names: Vec<&String> = self.parameters.keys().collect();
        f.debug_struct("Generate")
            .field("source_uri", &self.source_uri)
            .field("parameters", &names)
            .finish()
    }
}

impl Weboffice {
    fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let mut weboffice = alibaba::Weboffice::new(self.endpoint.as_str(), self.project_name.as_str()).access_key(
            reader.secret("access_key_id", &self.access_key_id).unwrap_or_default(),
            reader
                .secret("access_key_secret", &self.access_key_secret)
                .unwrap_or_default(),
        );
        if let Some(token) = reader.secret("security_token", &self.security_token) {
            weboffice = weboffice.security_token(token);
        }
        match &self.credential_config {
            Some(config @ (Value::Object(_) | Value::String(_))) => {
                weboffice = weboffice.credential_config(config.clone());
            }
            Some(_) => reader.faults.add(
                "credential_config",
                "is neither an object nor a text; write one of them",
            ),
            None => {}
        }
        weboffice = weboffice.tokens(
            reader.secret("access_token", &self.access_token).unwrap_or_default(),
            reader.secret("refresh_token", &self.refresh_token).unwrap_or_default(),
        );
        if let Some(text) = &self.expires_at {
            match rfc3339(text) {
                Some(at) => weboffice = weboffice.expires_at(at),
                None => reader
                    .faults
                    .add("expires_at", "is no RFC 3339 time; write it as in 2026-11-21T10:17:45Z"),
            }
        }
        if let Some(generate) = &self.generate {
            if generate.source_uri.is_empty() {
                reader.faults.add(
                    "generate.source_uri",
                    "is missing; write the document, oss://bucket/object",
                );
            }
            weboffice = weboffice.generate(generate.source_uri.as_str());
            for (name, value) in &generate.parameters {
                if ["ProjectName", "SourceURI", "CredentialConfig"].contains(&name.as_str()) {
                    let advice =
                        "has a field of its own: project_name, generate.source_uri, credential_config; write that";
                    reader.faults.add(format!("generate.{name}"), advice);
                }
                weboffice = weboffice.generate_parameter(name.as_str(), value.clone());
            }
        }
        if let Some(replay) = self.replay {
            weboffice = weboffice.if_lost(replay);
        }
        reader.checked(weboffice)
    }
}

fields! {
    /// `alibaba.login`: the login token of a WUYING user. It may lack the token where `keep_alive_token` is there.
    WuyingLogin {
        /// Default: `https://ecd.{region_id}.aliyuncs.com`.
        endpoint: Option<String>,
        /// Required.
        region_id: String,
        /// The one that signed in. Required.
        client_id: String,
        /// Required.
        end_user_id: String,
        /// `cn-shanghai+dir-1`.
        office_site_id: Option<String>,
        /// What `GetLoginToken` returned.
        session_id: Option<Source>,
        /// The token to begin with.
        login_token: Option<Source>,
        /// How long one lives. Default: `15m`.
        lifetime: Option<Span>,
        /// Signs in again without a password.
        keep_alive_token: Option<Source>,
        /// Keys to sign requests with. Default: they are anonymous.
        sign: Option<Keys>,
        /// What may be done when an answer was lost. Default: `once`.
        replay: Option<IfLost>,
    }
}

impl WuyingLogin {
    fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let mut login = alibaba::WuyingLogin::new(
            self.region_id.as_str(),
            self.client_id.as_str(),
            self.end_user_id.as_str(),
        );
        if let Some(url) = &self.endpoint {
            login = login.endpoint(url.as_str());
        }
        if let Some(id) = &self.office_site_id {
            login = login.office_site_id(id.as_str());
        }
        if let Some(id) = reader.secret("session_id", &self.session_id) {
            login = login.session_id(id);
        }
        if let Some(token) = reader.secret("login_token", &self.login_token) {
            login = login.login_token(token);
        }
        if let Some(Span(life)) = self.lifetime {
            login = login.lifetime(life);
        }
        if let Some(token) = reader.secret("keep_alive_token", &self.keep_alive_token) {
            login = login.keep_alive_token(token);
        }
        if let Some(keys) = &self.sign {
            login = login.signed(keys.read("sign", reader.base, &mut reader.faults));
        }
        if let Some(replay) = self.replay {
            login = login.if_lost(replay);
        }
        reader.checked(login)
    }
}

fields! {
    /// `tencent.smh`: the token of a Smart Media Hosting library.
    Smh {
        /// The library's own domain. Required.
        endpoint: String,
        /// Required.
        library_id: String,
        /// What tokens are generated with. Required, unless there is an `access_token`.
        library_secret: Option<Source>,
        /// The token to begin with.
        access_token: Option<Source>,
        /// How long tokens shall live; what is answered counts. Default: the service's, `24h`.
        period: Option<Span>,
        /// One or several.
        space_id: List,
        /// On whose behalf.
        user_id: Option<String>,
        /// One or several: `admin`, `upload_file`.
        grant: List,
        /// As the API has it.
        client_id: Option<String>,
        /// As the API has it.
        session_id: Option<String>,
        /// What may be done when an answer was lost. Default: `idempotent`.
        replay: Option<IfLost>,
    }
}

impl Smh {
    fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let mut library = tencent::SmhLibrary::new(self.endpoint.as_str(), self.library_id.as_str());
        if let Some(secret) = reader.secret("library_secret", &self.library_secret) {
            library = library.library_secret(secret);
        }
        if let Some(token) = reader.secret("access_token", &self.access_token) {
            library = library.access_token(token);
        }
        if let Some(Span(period)) = self.period {
            library = library.period(period);
        }
        library = library.space_id(&self.space_id.0).grant(&self.grant.0);
        if let Some(id) = &self.user_id {
            library = library.user_id(id.as_str());
        }
        for (name, value) in [("client_id", &self.client_id), ("session_id", &self.session_id)] {
            if let Some(value) = value {
                library = library.parameter(name, value.as_str());
            }
        }
        if let Some(replay) = self.replay {
            library = library.if_lost(replay);
        }
        reader.checked(library)
    }
}

fields! {
    /// `huawei.oneaccess`: the token of a person who signed in at OneAccess.
    Huawei {
        /// The instance's own domain. Required.
        endpoint: String,
        /// Required.
        client_id: String,
        /// Required.
        client_secret: Option<Source>,
        /// The first one. Required, unless there is a `code`.
        refresh_token: Option<Source>,
        /// An authorization code, exchanged where there is no refresh token.
        code: Option<Source>,
        /// What the code was asked for with.
        redirect_uri: Option<String>,
        /// What may be done when an answer was lost. Default: `once`.
        replay: Option<IfLost>,
    }
}

impl Huawei {
    fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let mut grant = huawei::OneAccess::new(self.endpoint.as_str(), self.client_id.as_str());
        if let Some(secret) = reader.secret("client_secret", &self.client_secret) {
            grant = grant.client_secret(secret);
        }
        if let Some(token) = reader.secret("refresh_token", &self.refresh_token) {
            grant = grant.refresh_token(token);
        }
        if let Some(code) = reader.secret("code", &self.code) {
            grant = grant.code(code);
        }
        if self.refresh_token.is_none() && self.code.is_none() {
            let advice = "is missing, and so is code; write one of them, as OneAccess issued it";
            reader.faults.add("refresh_token", advice);
        }
        if let Some(uri) = &self.redirect_uri {
            grant = grant.redirect_uri(uri.as_str());
        }
        if let Some(replay) = self.replay {
            grant = grant.if_lost(replay);
        }
        reader.checked(grant)
    }
}

fields! {
    /// `huawei.tenant`: the token of a OneAccess application itself.
    HuaweiTenant {
        /// The instance's own domain. Required.
        endpoint: String,
        /// Required.
        client_id: String,
        /// Required.
        client_secret: Option<Source>,
        /// What may be done when an answer was lost. Default: `idempotent`.
        replay: Option<IfLost>,
    }
}

impl HuaweiTenant {
    fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let mut grant = huawei::Tenant::new(self.endpoint.as_str(), self.client_id.as_str());
        if let Some(secret) = reader.secret("client_secret", &self.client_secret) {
            grant = grant.client_secret(secret);
        }
        if let Some(replay) = self.replay {
            grant = grant.if_lost(replay);
        }
        reader.checked(grant)
    }
}
