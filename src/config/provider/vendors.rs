//! The strategies of vendors as a document has them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::{List, Reader, fields};
use crate::document::{Source, Span};
use crate::provider::endpoint::{Keys, rfc3339};
use crate::provider::{IfLost, alibaba, huawei, tencent};
use crate::tokens::TokensBuilder;

fields! {
    /// `alibaba.weboffice`: the pair behind an IMM document. It may lack the pair where `generate` is there.
    Weboffice {
        /// Where IMM is: `https://imm.{region}.aliyuncs.com`. Required.
        endpoint: String,
        /// The name of the IMM project. Required.
        project_name: String,
        /// The id of the key that requests are signed with. Required.
        access_key_id: Option<Source>,
        /// Its secret. Required.
        access_key_secret: Option<Source>,
        /// The security token of temporary keys (STS). Default: none, the key is permanent.
        security_token: Option<Source>,
        /// `CredentialConfig` of both operations: an object, or a text that is sent as it stands. Default: none.
        credential_config: Option<Value>,
        /// The access token to begin with. Default: none, so that a pair is generated.
        access_token: Option<Source>,
        /// The refresh token that belongs to it.
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
    /// The document: `oss://{bucket}/{object}`.
    #[serde(default)]
    pub source_uri: String,
    /// More parameters: `Permission`, `User`, `Watermark`. An object goes as one JSON text.
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
    pub(super) fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
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
        /// Where ECD is. Default: `https://ecd.{region_id}.aliyuncs.com`.
        endpoint: Option<String>,
        /// The region of the desktops: `cn-hangzhou`. Required.
        region_id: String,
        /// The client that signed in. Required.
        client_id: String,
        /// The user who signed in. Required.
        end_user_id: String,
        /// The office site or directory of the session: `cn-shanghai+dir-1`. Default: not sent.
        office_site_id: Option<String>,
        /// The session, as `GetLoginToken` returned it. Default: not sent.
        session_id: Option<Source>,
        /// The login token to begin with. Default: none, so that one is had with the `keep_alive_token`.
        login_token: Option<Source>,
        /// How long a login token lives, because no answer says it. Default: `15m`.
        lifetime: Option<Span>,
        /// Signs in again without a password when the login token is dead. Default: none, so that it takes a person.
        keep_alive_token: Option<Source>,
        /// The key to sign requests with. Default: they are anonymous.
        sign: Option<Keys>,
        /// What may be done when an answer was lost. Default: `once`.
        replay: Option<IfLost>,
    }
}

impl WuyingLogin {
    pub(super) fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
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
        /// The library's own domain: `https://{..}.api.tencentsmh.cn`. Required.
        endpoint: String,
        /// The id of the library. Required.
        library_id: String,
        /// What tokens are generated with. Required, unless there is an `access_token`.
        library_secret: Option<Source>,
        /// The token to begin with. Default: none, so that the first is generated.
        access_token: Option<Source>,
        /// How long tokens shall live; what is answered counts. Default: the service's, `24h`.
        period: Option<Span>,
        /// The spaces that the token is good for: one or several. Default: not said.
        space_id: List,
        /// The user on whose behalf. Default: not said.
        user_id: Option<String>,
        /// What the token may do: `admin`, `upload_file`; one or several. Default: to read.
        grant: List,
        /// `client_id` of the request, as the API has it. Default: not sent.
        client_id: Option<String>,
        /// `session_id` of the request, as the API has it. Default: not sent.
        session_id: Option<Source>,
        /// What may be done when an answer was lost. Default: `idempotent`.
        replay: Option<IfLost>,
    }
}

impl Smh {
    pub(super) fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
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
        if let Some(id) = &self.client_id {
            library = library.parameter("client_id", id.as_str());
        }
        if let Some(id) = reader.secret("session_id", &self.session_id) {
            library = library.parameter("session_id", id);
        }
        if let Some(replay) = self.replay {
            library = library.if_lost(replay);
        }
        reader.checked(library)
    }
}

fields! {
    /// `huawei.oneaccess`: the token of a person who signed in at `OneAccess`.
    Huawei {
        /// The instance's own domain: `https://{..}.huaweioneaccess.com`. Required.
        endpoint: String,
        /// The id of the application. Required.
        client_id: String,
        /// The application's secret. Required.
        client_secret: Option<Source>,
        /// The first refresh token. Required, unless there is a `code`.
        refresh_token: Option<Source>,
        /// An authorization code, good for one use: exchanged where there is no refresh token.
        code: Option<Source>,
        /// The redirect URI that the code was asked for with. Default: not sent.
        redirect_uri: Option<String>,
        /// What may be done when an answer was lost. Default: `once`.
        replay: Option<IfLost>,
    }
}

impl Huawei {
    pub(super) fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
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
    /// `huawei.tenant`: the token of a `OneAccess` application itself.
    HuaweiTenant {
        /// The instance's own domain: `https://{..}.huaweioneaccess.com`. Required.
        endpoint: String,
        /// The id of the application. Required.
        client_id: String,
        /// The application's secret. Required.
        client_secret: Option<Source>,
        /// What may be done when an answer was lost. Default: `idempotent`.
        replay: Option<IfLost>,
    }
}

impl HuaweiTenant {
    pub(super) fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
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
