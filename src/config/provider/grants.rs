//! The OAuth grants as a document has them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{List, Reader, fields};
use crate::document::Source;
use crate::provider::{IfLost, oauth2};
use crate::tokens::TokensBuilder;

/// How the program tells the issuer who it is: `"basic"`, `"post"`, `"none"`. See [`oauth2::ClientAuth`](crate::oauth2::ClientAuth).
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientAuth {
    /// Id and secret in the `Authorization` header.
    Basic,
    /// Id and secret in the body.
    Post,
    /// The id alone: a public client.
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

fields! {
    /// `oauth2.refresh_token`: trades a refresh token for the next token.
    RefreshToken {
        /// The issuer's token endpoint: https, or http on loopback. Required.
        token_url: String,
        /// The program's id at the issuer. Required.
        client_id: String,
        /// The program's secret at the issuer. Default: none, a public client.
        client_secret: Option<Source>,
        /// How id and secret are sent. Default: `basic` with a secret, else `none`.
        client_auth: Option<ClientAuth>,
        /// The first refresh token. Required.
        refresh_token: Option<Source>,
        /// What the token shall be good for, separated by spaces. Default: what the issuer grants unasked.
        scope: Option<String>,
        /// The APIs that the token shall be good for, as absolute URIs (RFC 8707): one or several.
        resource: List,
        /// The `audience` that some issuers ask for where RFC 8707 has `resource`.
        audience: Option<String>,
        /// More parameters of the request, as an issuer's manual has them.
        extra: BTreeMap<String, Source>,
        /// What may be done when an answer was lost. Default: `once`.
        replay: Option<IfLost>,
    }
}

fields! {
    /// `oauth2.client_credentials`: a token in the program's own name.
    ClientCredentials {
        /// The issuer's token endpoint: https, or http on loopback. Required.
        token_url: String,
        /// The program's id at the issuer. Required.
        client_id: String,
        /// The program's secret at the issuer. Default: none, a public client.
        client_secret: Option<Source>,
        /// How id and secret are sent. Default: `basic` with a secret, else `none`.
        client_auth: Option<ClientAuth>,
        /// What the token shall be good for, separated by spaces. Default: what the issuer grants unasked.
        scope: Option<String>,
        /// The APIs that the token shall be good for, as absolute URIs (RFC 8707): one or several.
        resource: List,
        /// The `audience` that some issuers ask for where RFC 8707 has `resource`.
        audience: Option<String>,
        /// More parameters of the request, as an issuer's manual has them.
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
    pub(super) fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
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
    pub(super) fn strategy(&self, reader: &mut Reader<'_>) -> TokensBuilder {
        let grant = common!(ClientCredentialsGrant, self, reader);
        reader.checked(grant)
    }
}
