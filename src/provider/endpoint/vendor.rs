//! What the strategies of a vendor make of their documents.

use std::time::Duration;

use serde_json::Value;

use super::answer::{Expires, Fields};
use super::template::{ACCESS_TOKEN, Template};
use super::{AccessKey, Endpoint, NO_CLIENT, Span};
use crate::error::Faults;
use crate::provider::oauth2;
use crate::token::{Secret, Token};

/// The methods that every strategy has, on its field `endpoint`.
macro_rules! vendor_methods {
    () => {
        /// What may be done when a request was sent and its answer was lost. Default:
        /// [`IfLost::ReplayOnce`] where the token is replaced, else [`IfLost::Idempotent`].
        #[must_use]
        pub fn if_lost(mut self, policy: IfLost) -> Self {
            self.endpoint = self.endpoint.if_lost(policy);
            self
        }

        /// What sends the token request: any `Clone` service of `http::Request`s, or a
        /// [`TokenClient`](crate::TokenClient).
        ///
        /// Default: with feature `client` one like `client::https` that keeps no connection open, else none. It
        /// must not go through the layer that waits for this token, nor follow redirects, nor send a request
        /// again on its own.
        #[must_use]
        pub fn client<Via>(mut self, client: impl $crate::oauth2::IntoTokenClient<Via>) -> Self {
            self.endpoint = self.endpoint.client(client);
            self
        }
    };
}
pub(in crate::provider) use vendor_methods;

/// What every strategy leaves to its field `endpoint`: all of a provider but its own token and its own faults.
macro_rules! as_endpoint {
    () => {
        async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
            self.endpoint.fetch(context).await
        }

        fn if_lost(&self) -> IfLost {
            TokenProvider::if_lost(&self.endpoint)
        }

        fn exchanges(&self) -> u32 {
            self.endpoint.exchanges()
        }

        fn keeps_alive(&self) -> bool {
            self.endpoint.keeps_alive()
        }

        fn seed(&self) -> Option<$crate::token::Secret<serde_json::Value>> {
            self.endpoint.configured_seed()
        }

        fn check_credential(&self, credential: &serde_json::Value, faults: &mut Faults) {
            self.endpoint.check_credential(credential, faults);
        }
    };
}
pub(in crate::provider) use as_endpoint;

#[cfg_attr(not(feature = "config"), allow(dead_code, reason = "each vendor needs a part of it"))]
impl Endpoint {
    /// A document that ships with this crate, for the API at `base`.
    #[allow(clippy::expect_used, reason = "the document is a constant that a test reads")]
    pub(in crate::provider) fn vendor(document: &str, base: &str) -> Self {
        let mut endpoint = Self::from_json(document).expect("a document of this crate is right");
        endpoint.rebase(document, base);
        endpoint
    }

    /// The same document for the API at another place.
    #[allow(clippy::expect_used, reason = "the document is a constant that a test reads")]
    pub(in crate::provider) fn rebase(&mut self, document: &str, base: &str) {
        let own = Self::from_json(document).expect("a document of this crate is right");
        let base = base.trim_end_matches('/');
        for (call, own) in [(&mut self.acquire, own.acquire), (&mut self.renew, own.renew)] {
            if let (Some(call), Some(own)) = (call, own) {
                call.url = own.url.prefixed(base);
            }
        }
    }

    /// The value of a placeholder; one that is empty counts as none.
    pub(in crate::provider) fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.vars.remove(name);
        } else {
            self.vars.insert(name.to_owned(), value.into());
        }
    }

    /// The same for one that is a secret, however short it is.
    pub(in crate::provider) fn set_secret(&mut self, name: &str, value: &str) {
        self.set(name, value);
        self.secrets.insert(name.to_owned());
    }

    /// What the first renewal begins with; one that is empty counts as none.
    pub(in crate::provider) fn begin_with(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.seed.remove(name);
        } else {
            self.seed.insert(name.to_owned(), value.into());
        }
    }

    pub(in crate::provider) fn has_var(&self, name: &str) -> bool {
        self.vars.contains_key(name)
    }

    pub(in crate::provider) fn has_seed(&self, name: &str) -> bool {
        self.seed.contains_key(name)
    }

    /// The key that it signs with; an empty one before there is any.
    pub(in crate::provider) fn key(&self) -> AccessKey {
        self.sign
            .as_ref()
            .map_or_else(AccessKey::empty, |sign| sign.key.clone())
    }

    /// The token that it was seeded with, with the credential that an answer would have left.
    pub(in crate::provider) fn seeded(&self) -> Option<Token> {
        let token = self.seed.get(ACCESS_TOKEN)?.as_str()?;
        Some(Token::bearer(token).credential(Value::Object(self.seed.clone())))
    }

    /// One more query parameter of the request that acquires; it may be a secret, such as a document's password.
    pub(in crate::provider) fn acquire_parameter(&mut self, name: String, value: &Value) {
        if let Some(call) = &mut self.acquire {
            // No placeholder of a document has a dot in its name.
            let var = format!("acquire.{name}");
            call.query.insert(name, Template::value(var.clone()));
            self.vars.insert(var, Self::text(value).as_str().into());
        }
    }

    /// Leaves these query parameters out of both requests.
    pub(in crate::provider) fn drop_parameters(&mut self, names: &[&str]) {
        for call in [&mut self.acquire, &mut self.renew].into_iter().flatten() {
            call.query.retain(|name, _| !names.contains(&name.as_str()));
        }
    }

    /// A parameter's value: a text as it stands, everything else as compact JSON.
    pub(in crate::provider) fn text(value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// What all strategies check: where they ask, and with which client.
    pub(in crate::provider) fn check_vendor(&self, url: &str, faults: &mut Faults) {
        if url.is_empty() {
            faults.add(
                "endpoint",
                "is missing; write the address of the API, as in https://api.example.com",
            );
        } else if let Err(advice) = oauth2::uri(url) {
            faults.add(
                "endpoint",
                advice.replace("https://login.example.com/token", "https://api.example.com"),
            );
        } else if url.contains('?') {
            faults.add("endpoint", "holds a query; write scheme, host and port only");
        }
        for name in &self.secrets {
            let value = self.vars.get(name).map(Secret::expose);
            if value.is_some_and(|value| value.contains(char::is_control)) {
                faults.add(
                    name.clone(),
                    "holds a control character, such as a newline at its end; trim it",
                );
            }
        }
        for (name, value) in &self.seed {
            let name = if name == ACCESS_TOKEN { self.token_alias } else { name };
            if value
                .as_str()
                .is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_graphic()))
            {
                faults.add(
                    name.to_owned(),
                    "holds what is not visible ASCII, such as a space or a newline; trim it",
                );
            }
        }
        if self.client.get().is_none() && cfg!(not(feature = "client")) {
            faults.add("client", NO_CLIENT);
        }
    }

    /// Names what is wrong with the access key; `at` stands before the names of its fields.
    pub(in crate::provider) fn check_sign(&self, at: &str, faults: &mut Faults) {
        match &self.sign {
            Some(sign) => sign.check(at, faults),
            None => faults.add(
                format!("{at}access_key_id"),
                "is missing; write the id of the access key",
            ),
        }
    }
}

#[cfg_attr(not(feature = "config"), allow(dead_code, reason = "each vendor needs a part of it"))]
impl AccessKey {
    pub(in crate::provider) fn empty() -> Self {
        Self {
            access_key_id: Secret::from(""),
            access_key_secret: Secret::from(""),
            security_token: None,
        }
    }
}

#[cfg_attr(not(feature = "config"), allow(dead_code, reason = "each vendor needs a part of it"))]
impl Fields {
    /// Not said by the answer: so long.
    pub(in crate::provider) fn lives(&mut self, life: Duration) {
        self.expires = Some(Expires::Lifetime(Span(life)));
    }
}
