//! The token endpoint, and how this client speaks to it: what all grants share.

use std::fmt;
use std::mem;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use zeroize::Zeroizing;

use super::answer::{self, Issued};
use crate::error::{Faults, FetchError};
use crate::provider::exchange::{Hidden, Needles, TokenClient};
use crate::provider::owner::{Owner, is_account};
use crate::provider::{Cause, FetchContext};
use crate::token::{Secret, Token, Warning};

/// How the client tells the issuer who it is (RFC 6749 §2.3.1, §3.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// Id and secret in the `Authorization` header, each form-encoded first (`client_secret_basic`).
    Basic,
    /// Id and secret in the body (`client_secret_post`), for issuers that know no better.
    Post,
    /// The id alone, in the body: a public client, which has no secret.
    None,
}

/// The methods that every grant has, on its field `endpoint`.
macro_rules! endpoint_methods {
    () => {
        /// The client's secret. Default: none, a public client.
        #[must_use]
        pub fn client_secret(mut self, secret: impl Into<String>) -> Self {
            self.endpoint.client_secret = Some(Secret::new(secret.into()));
            self
        }

        /// How id and secret are sent. Default: [`ClientAuth::Basic`] with a secret, else [`ClientAuth::None`].
        #[must_use]
        pub fn client_auth(mut self, auth: ClientAuth) -> Self {
            self.endpoint.client_auth = Some(auth);
            self
        }

        /// What the token shall be good for, separated by spaces. Default: what the issuer grants unasked.
        ///
        /// Source: RFC 6749 §3.3.
        #[must_use]
        pub fn scope(mut self, scope: impl Into<String>) -> Self {
            self.endpoint.scope = scope.into();
            self
        }

        /// One more API that the token shall be good for: an absolute URI without a fragment. Default: none.
        ///
        /// Source: RFC 8707 §2.
        #[must_use]
        pub fn resource(mut self, resource: impl Into<String>) -> Self {
            self.endpoint.resources.push(resource.into());
            self
        }

        /// The `audience` that some issuers ask for where RFC 8707 has [`resource`](Self::resource). Default: none.
        #[must_use]
        pub fn audience(mut self, audience: impl Into<String>) -> Self {
            self.endpoint.audience = Some(audience.into());
            self
        }

        /// One more parameter of the request, as an issuer's manual has it. Default: none. A value of eight bytes or
        /// more is treated as a secret.
        #[must_use]
        pub fn extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self.endpoint
                .extras
                .push((name.into(), Secret::new(value.into())));
            self
        }

        /// What sends the token request: any `Clone` service of `http::Request`s, or a
        /// [`TokenClient`](crate::TokenClient).
        ///
        /// Default: with feature `client` one like `client::https` that
        /// keeps no connection open, else none. It must not go through the layer that waits for this token,
        /// nor follow redirects, nor send a request again on its own.
        #[must_use]
        pub fn client<Via>(mut self, client: impl $crate::provider::exchange::IntoTokenClient<Via>) -> Self {
            self.endpoint.client = std::sync::OnceLock::from(client.into_token_client());
            self
        }
    };
}
pub(super) use endpoint_methods;

#[derive(Clone)]
pub(super) struct TokenEndpoint {
    /// Or what is wrong with it.
    url: Result<Uri, &'static str>,
    pub(super) client_id: String,
    pub(super) client_secret: Option<Secret<String>>,
    pub(super) client_auth: Option<ClientAuth>,
    pub(super) scope: String,
    pub(super) resources: Vec<String>,
    pub(super) audience: Option<String>,
    pub(super) extras: Vec<(String, Secret<String>)>,
    /// Filled by the first exchange where no client was given and feature `client` has one.
    pub(super) client: OnceLock<TokenClient>,
}

impl TokenEndpoint {
    pub(super) fn new(url: String, client_id: String) -> Self {
        Self {
            url: uri(&url),
            client_id,
            client_secret: None,
            client_auth: None,
            scope: String::new(),
            resources: Vec::new(),
            audience: None,
            extras: Vec::new(),
            client: OnceLock::new(),
        }
    }

    /// Presents `grant` and brings the token, its life counted from the moment of sending.
    ///
    /// `scope` is what is asked for; empty asks for nothing in particular.
    pub(super) async fn exchange(
        &self,
        context: &FetchContext,
        grant: &[(&str, &str)],
        scope: &str,
    ) -> Result<Granted, FetchError> {
        let url = self
            .url
            .as_ref()
            .map_err(|advice| FetchError::config(format!("token_url: {advice}")))?;
        let host = url.host().unwrap_or_default();
        let hidden = Hidden::of(|needles| {
            self.hide(grant, needles);
            needles.add(context.previous().map_or("", Token::secret));
        });
        let request = self
            .request(url.clone(), grant, scope)
            .map_err(|_| FetchError::config("client_id, client_secret: together too long for a header"))?;
        let client = self
            .client()
            .ok_or_else(|| FetchError::config(format!("client: {NO_CLIENT}")))?;
        let sent_at = context.now();
        let answer = client.send(request, context, &hidden).await?;
        let issued = answer::read(&answer, host, &hidden, context.now())?;
        Ok(Granted { issued, sent_at })
    }

    /// Whose tokens it brings. What is asked for is part of it: a token that may do less serves nobody who asks for more.
    pub(super) fn owner(&self, kind: &str) -> String {
        let url = self.url.as_ref().map(Uri::to_string).unwrap_or_default();
        let extras = self.extras.iter().filter(|(name, _)| is_account(name));
        let owner = Owner::of(kind, &url)
            .and("client_id", &self.client_id)
            .and_words("scope", self.scope.split_ascii_whitespace())
            .and_words("resource", self.resources.iter().map(String::as_str))
            .and("audience", self.audience.as_deref().unwrap_or_default());
        let owner = extras.fold(owner, |owner, (name, value)| owner.and(name, value.expose()));
        owner.into_line()
    }

    /// Names every wrong field.
    pub(super) fn check(&self, faults: &mut Faults) {
        if let Err(advice) = self.url {
            faults.add("token_url", advice);
        }
        if self.client_id.is_empty() {
            faults.add("client_id", "it is empty; write the id that the issuer registered");
        } else if self.client_id.contains(char::is_control) {
            faults.add("client_id", CONTROL);
        }
        match &self.client_secret {
            Some(secret) if secret.expose().is_empty() => {
                faults.add("client_secret", "it is empty; leave the call out for a public client");
            }
            Some(secret) if secret.expose().contains(char::is_control) => faults.add("client_secret", CONTROL),
            _ => {}
        }
        match (self.client_auth, &self.client_secret) {
            (Some(ClientAuth::Basic | ClientAuth::Post), None) => {
                faults.add(
                    "client_secret",
                    "is missing; client_auth Basic and Post send one, and a public client has None",
                );
            }
            (Some(ClientAuth::None), Some(_)) => {
                faults.add(
                    "client_auth",
                    "None sends no client_secret, but there is one; leave one of them out",
                );
            }
            _ => {}
        }
        if self.scope.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
            faults.add(
                "scope",
                "it holds a control character, a quote or a backslash (RFC 6749 §3.3)",
            );
        }
        for resource in &self.resources {
            let absolute = resource.split_once(':').is_some_and(|(scheme, rest)| {
                let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
                !scheme.is_empty() && !rest.is_empty() && scheme.bytes().all(letters)
            });
            if !absolute || resource.contains(['#', ' ']) {
                faults.add("resource", "write an absolute URI without a fragment (RFC 8707 §2)");
            }
        }
        for (index, (name, _)) in self.extras.iter().enumerate() {
            if name.is_empty() {
                faults.add("extra", "the name of a parameter is empty");
            } else if OWN_PARAMETERS.contains(&name.as_str()) {
                faults.add(
                    "extra",
                    format!("{name} is written by the grant itself; use its own method"),
                );
            } else if self.extras[..index].iter().any(|(earlier, _)| earlier == name) {
                faults.add("extra", "a parameter stands in it twice (RFC 6749 §3.2)");
            }
        }
        if self.client.get().is_none() && cfg!(not(feature = "client")) {
            faults.add("client", NO_CLIENT);
        }
    }

    fn client(&self) -> Option<&TokenClient> {
        #[cfg(feature = "client")]
        return Some(self.client.get_or_init(TokenClient::https));
        #[cfg(not(feature = "client"))]
        return self.client.get();
    }

    fn auth(&self) -> ClientAuth {
        match (self.client_auth, &self.client_secret) {
            (Some(auth), _) => auth,
            (None, Some(_)) => ClientAuth::Basic,
            (None, None) => ClientAuth::None,
        }
    }

    fn request(&self, url: Uri, grant: &[(&str, &str)], scope: &str) -> http::Result<http::Request<Bytes>> {
        let secret = self.client_secret.as_ref().map_or("", |secret| secret.expose());
        let mut request = http::Request::post(url)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut pairs = grant.to_vec();
        match self.auth() {
            ClientAuth::Basic => request = request.header(AUTHORIZATION, basic(&self.client_id, secret)?),
            ClientAuth::Post => pairs.extend([("client_id", &*self.client_id), ("client_secret", secret)]),
            ClientAuth::None => pairs.push(("client_id", &self.client_id)),
        }
        if !scope.is_empty() {
            pairs.push(("scope", scope));
        }
        pairs.extend(self.resources.iter().map(|resource| ("resource", &**resource)));
        pairs.extend(self.audience.iter().map(|audience| ("audience", &**audience)));
        pairs.extend(self.extras.iter().map(|(name, value)| (&**name, &**value.expose())));
        request.body(Bytes::from_owner(form(&pairs)))
    }

    /// What must not be printed.
    fn hide(&self, grant: &[(&str, &str)], needles: &mut Needles) {
        let secret = self.client_secret.as_ref().map_or("", |secret| secret.expose());
        needles.add(secret);
        if !secret.is_empty() {
            let pair = Zeroizing::new(format!("{}:{secret}", self.client_id));
            needles.add_base64(&pair);
            // As it goes over the wire (RFC 6749 §2.3.1).
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            needles.add_base64(&Zeroizing::new(format!(
                "{}:{}",
                encoded(&self.client_id),
                encoded(secret)
            )));
        }
        for (_, value) in grant.iter().filter(|(name, _)| *name != "grant_type") {
            needles.add(value);
        }
        // Short ones (`none`, `1`) are no secrets, and words that any message may hold.
        for (_, value) in self.extras.iter().filter(|(_, value)| value.expose().len() >= 8) {
            needles.add(value.expose());
        }
        needles.add(self.url.as_ref().ok().and_then(Uri::query).unwrap_or_default());
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.as_ref().ok().and_then(Uri::host);
        f.debug_struct("TokenEndpoint")
            .field("host", &host)
            .field("client_id", &self.client_id)
            .field("client_auth", &self.auth())
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// What an exchange brought.
pub(super) struct Granted {
    pub(super) issued: Issued,
    sent_at: SystemTime,
}

impl Granted {
    /// The token, where `asked` was the scope in force for the request (empty: none known).
    pub(super) fn into_token(self, asked: &str) -> Token {
        let mut issued = self.issued;
        let secret = mem::take(issued.access_token.expose_mut());
        let mut token = Token::bearer(secret).issued_at(self.sent_at);
        if let Some(life) = issued.life {
            token = token.expires_in(life);
        }
        if let Some(after) = issued.refresh_in {
            token = token.refresh_in(after);
        }
        if let Some(date) = issued.date {
            token = token.dated(date);
        }
        if issued.type_assumed {
            token = token.warning(Warning::TypeAssumed);
        }
        match issued.scope {
            Some(granted) => {
                let narrowed = asked.split_ascii_whitespace().any(|one| !holds(&granted, one));
                token = if narrowed {
                    token.warning(Warning::ScopeNarrowed)
                } else {
                    token
                };
                token.scope(granted)
            }
            // RFC 6749 §5.1: left out where it is what was asked for.
            None if !asked.is_empty() => token.scope(asked),
            None => token,
        }
    }
}

/// Whether the server asks for what no client can do on its own: a stronger sign-in (RFC 9470), more claims.
pub(super) fn step_up(context: &FetchContext) -> Option<FetchError> {
    let code = context
        .challenge()
        .filter(|_| context.cause() == Cause::Refused)?
        .error()?;
    matches!(code, "insufficient_user_authentication" | "insufficient_claims").then(|| {
        FetchError::needs_interaction("the server asks for a stronger sign-in, which this grant cannot bring")
            .code(code)
    })
}

/// Whether a scope holds `one`.
pub(super) fn holds(scope: &str, one: &str) -> bool {
    scope.split_ascii_whitespace().any(|held| held == one)
}

/// The body of a token request, in a buffer that never grows: that would leave copies that nobody wipes.
fn form(pairs: &[(&str, &str)]) -> Zeroizing<Vec<u8>> {
    // At worst three bytes for one, between `&` and `=`.
    let room = pairs
        .iter()
        .map(|(name, value)| 3 * (name.len() + value.len()) + 2)
        .sum();
    let mut form = Serializer::new(String::with_capacity(room));
    form.extend_pairs(pairs);
    Zeroizing::new(form.finish().into_bytes())
}

/// Source: RFC 6749 §2.3.1 and appendix B: form-encoded first, then Basic. Issuers refuse odd characters sent raw.
fn basic(id: &str, secret: &str) -> http::Result<HeaderValue> {
    let mut pair = Zeroizing::new(String::with_capacity(3 * (id.len() + secret.len()) + 1));
    pair.extend(byte_serialize(id.as_bytes()));
    pair.push(':');
    pair.extend(byte_serialize(secret.as_bytes()));
    // Room for all of it, as in `form`.
    let mut header = Zeroizing::new(String::with_capacity(BASIC.len() + pair.len().div_ceil(3) * 4));
    header.push_str(BASIC);
    STANDARD.encode_string(&*pair, &mut header);
    let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(header))?;
    header.set_sensitive(true);
    Ok(header)
}

/// The URL of a token endpoint, or what is wrong with it. The advice never quotes it.
pub(in crate::provider) fn uri(url: &str) -> Result<Uri, &'static str> {
    if url.contains('#') {
        return Err("it holds a fragment; leave out what follows the # (RFC 6749 §3.2)");
    }
    let uri: Uri = url.parse().map_err(|_| FULL_URL)?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(FULL_URL);
    };
    if authority.as_str().contains('@') {
        return Err("it holds a user name or password; use client_id and client_secret");
    }
    if authority.host().is_empty() {
        return Err(FULL_URL);
    }
    if *scheme == Scheme::HTTPS || (*scheme == Scheme::HTTP && is_loopback(authority.host())) {
        return Ok(uri);
    }
    Err("it has to begin with https://; plain http would show the credentials to everybody on the way")
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

const BASIC: &str = "Basic ";
const FULL_URL: &str = "write a full URL, https://login.example.com/token";
const CONTROL: &str = "it holds a control character, such as the newline at the end of a file; trim it";
const NO_CLIENT: &str = "none is given; call .client(service) with an HTTPS client, or enable feature `client`";
const OWN_PARAMETERS: [&str; 7] = [
    "grant_type",
    "refresh_token",
    "client_id",
    "client_secret",
    "scope",
    "resource",
    "audience",
];

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    use http_body_util::Full;
    use tower_service::Service;

    use super::*;
    use crate::oauth2::{ClientCredentialsGrant, RefreshTokenGrant};
    use crate::provider::TokenProvider;

    pub(in crate::provider::oauth2) const URL: &str = "https://login.example.com/token";

    /// What an issuer was sent.
    #[derive(Clone, Debug)]
    pub(in crate::provider::oauth2) struct Sent {
        pub(in crate::provider::oauth2) head: Arc<http::request::Parts>,
        pub(in crate::provider::oauth2) form: Vec<(String, String)>,
    }

    impl Sent {
        pub(in crate::provider::oauth2) fn field(&self, name: &str) -> Option<&str> {
            let mut found = self.form.iter().filter(|(field, _)| field == name);
            let value = found.next().map(|(_, value)| value.as_str());
            assert!(found.next().is_none(), "{name} was sent twice");
            value
        }
    }

    /// An issuer in this process that answers every request with one JSON text, and remembers them.
    #[derive(Clone, Default)]
    pub(in crate::provider::oauth2) struct FakeIssuer {
        pub(in crate::provider::oauth2) answer: Arc<Mutex<String>>,
        pub(in crate::provider::oauth2) sent: Arc<Mutex<Vec<Sent>>>,
    }

    impl FakeIssuer {
        pub(in crate::provider::oauth2) fn answering(answer: &str) -> Self {
            let issuer = Self::default();
            issuer.answers(answer);
            issuer
        }

        pub(in crate::provider::oauth2) fn answers(&self, answer: &str) {
            *self.answer.lock().unwrap() = answer.into();
        }

        pub(in crate::provider::oauth2) fn last(&self) -> Sent {
            self.sent.lock().unwrap().last().cloned().unwrap()
        }

        pub(in crate::provider::oauth2) fn count(&self) -> usize {
            self.sent.lock().unwrap().len()
        }
    }

    impl Service<http::Request<Bytes>> for FakeIssuer {
        type Response = http::Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Bytes>) -> Self::Future {
            let (head, body) = request.into_parts();
            let form = form_urlencoded::parse(&body).into_owned().collect();
            self.sent.lock().unwrap().push(Sent {
                head: Arc::new(head),
                form,
            });
            let answer = Bytes::from(self.answer.lock().unwrap().clone());
            std::future::ready(Ok(http::Response::new(Full::new(answer))))
        }
    }

    pub(in crate::provider::oauth2) fn faults(provider: &impl TokenProvider) -> String {
        let mut faults = Faults::default();
        provider.check(&mut faults);
        faults.to_string()
    }

    fn grant() -> ClientCredentialsGrant {
        ClientCredentialsGrant::new(URL, "my-app").client(FakeIssuer::default())
    }

    #[test]
    fn a_form_never_outgrows_its_room() {
        let secret = "\u{e9}&".repeat(3000);
        let form = form(&[("refresh_token", &secret), ("scope", "")]);
        assert_eq!(form.len(), "refresh_token=".len() + 3 * secret.len() + "&scope=".len());
        assert_eq!(
            form.capacity(),
            3 * ("refresh_token".len() + secret.len() + "scope".len()) + 4
        );
    }

    #[test]
    fn basic_form_encodes_id_and_secret_first() {
        let header = basic("cc:odd id", "p@ss:w/rd+ %25&=~").unwrap();
        // base64("cc%3Aodd+id:p%40ss%3Aw%2Frd%2B+%2525%26%3D%7E")
        assert_eq!(
            header.to_str().unwrap(),
            "Basic Y2MlM0FvZGQraWQ6cCU0MHNzJTNBdyUyRnJkJTJCKyUyNTI1JTI2JTNEJTdF"
        );
        assert!(header.is_sensitive());
    }

    #[test]
    fn a_right_configuration_has_no_faults() {
        assert_eq!(faults(&grant()), "");
        let full = grant()
            .client_secret("test-secret")
            .client_auth(ClientAuth::Post)
            .scope("read write")
            .resource("https://api.example.com")
            .resource("urn:example:api")
            .audience("api")
            .extra("tenant", "test-tenant");
        assert_eq!(faults(&full), "");
        for url in [
            "http://localhost:8080/token",
            "http://127.0.0.1/token",
            "http://[::1]:9/token",
            "HTTPS://LOGIN.EXAMPLE.COM/token?tenant=1",
        ] {
            let grant = RefreshTokenGrant::new(url, "my-app").client(FakeIssuer::default());
            assert_eq!(faults(&grant), "", "{url}");
        }
    }

    #[test]
    fn every_wrong_url_is_named_and_not_quoted() {
        for (url, advice) in [
            ("", "write a full URL"),
            ("login.example.com", "write a full URL"),
            ("/token", "write a full URL"),
            ("https:///token", "write a full URL"),
            ("https://login example.com/", "write a full URL"),
            (
                "http://login.example.com/token?key=canary",
                "has to begin with https://",
            ),
            ("http://127.0.0.1.example.com/", "has to begin with https://"),
            ("ftp://login.example.com/token", "has to begin with https://"),
            ("https://user:canary@login.example.com/token", "user name or password"),
            ("https://login.example.com/token#canary", "fragment"),
        ] {
            let grant = ClientCredentialsGrant::new(url, "my-app").client(FakeIssuer::default());
            let found = faults(&grant);
            assert!(
                found.starts_with("token_url: ") && found.contains(advice),
                "{url}: {found}"
            );
            assert!(
                !found.contains("canary") && !format!("{grant:?}").contains("canary"),
                "{found}"
            );
        }
    }

    #[test]
    fn every_other_wrong_field_is_named() {
        let secret = || grant().client_secret("test-secret");
        for (grant, field) in [
            (
                ClientCredentialsGrant::new(URL, "").client(FakeIssuer::default()),
                "client_id: it is empty",
            ),
            (
                ClientCredentialsGrant::new(URL, "a\n").client(FakeIssuer::default()),
                "client_id: it holds a control",
            ),
            (grant().client_secret(""), "client_secret: it is empty"),
            (
                grant().client_secret("test-secret\n"),
                "client_secret: it holds a control",
            ),
            (grant().client_auth(ClientAuth::Basic), "client_secret: is missing"),
            (grant().client_auth(ClientAuth::Post), "client_secret: is missing"),
            (secret().client_auth(ClientAuth::None), "client_auth: None sends no"),
            (grant().scope("a\"b"), "scope: "),
            (grant().resource("api"), "resource: "),
            (grant().resource("https://api.example.com/#x"), "resource: "),
            (grant().extra("", "x"), "extra: the name"),
            (grant().extra("grant_type", "x"), "extra: grant_type is written"),
            (grant().extra("refresh_token", "x"), "extra: refresh_token is written"),
            (grant().extra("client_id", "x"), "extra: client_id is written"),
            (grant().extra("client_secret", "x"), "extra: client_secret is written"),
            (grant().extra("scope", "x"), "extra: scope is written"),
            (grant().extra("resource", "x"), "extra: resource is written"),
            (grant().extra("audience", "x"), "extra: audience is written"),
            (
                grant().extra("a", "x").extra("a", "y"),
                "extra: a parameter stands in it twice",
            ),
        ] {
            let found = faults(&grant);
            assert!(
                found.starts_with(field) && !found.contains("; extra"),
                "{field}: {found}"
            );
        }
        let all = faults(
            &ClientCredentialsGrant::new("", "")
                .client_secret("")
                .client(FakeIssuer::default()),
        );
        for field in ["token_url", "client_id", "client_secret"] {
            assert!(all.contains(field), "{all}");
        }
    }

    #[test]
    fn without_a_client_the_fault_says_how_to_get_one() {
        let found = faults(&ClientCredentialsGrant::new(URL, "my-app"));
        if cfg!(feature = "client") {
            assert_eq!(found, "");
        } else {
            assert!(
                found.contains(".client(service)") && found.contains("feature `client`"),
                "{found}"
            );
        }
    }

    #[test]
    fn a_token_client_and_a_service_are_both_clients() {
        let shared = TokenClient::new(FakeIssuer::default());
        assert_eq!(
            faults(&ClientCredentialsGrant::new(URL, "a").client(shared.clone())),
            ""
        );
        assert_eq!(faults(&ClientCredentialsGrant::new(URL, "b").client(shared)), "");
        #[cfg(feature = "client")]
        assert_eq!(
            faults(&ClientCredentialsGrant::new(URL, "c").client(crate::client::https())),
            ""
        );
    }
}
