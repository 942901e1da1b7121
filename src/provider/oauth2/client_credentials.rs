//! The client credentials grant: [`ClientCredentialsGrant`].

use std::fmt;

use super::ClientAuth;
use super::endpoint::{TokenEndpoint, endpoint_methods, step_up};
use crate::error::{Faults, FetchError};
use crate::provider::{FetchContext, IfLost, TokenProvider};
use crate::token::{Secret, Token};

/// Asks for a token in the program's own name (RFC 6749 §4.4).
///
/// Asking again does no harm, so a lost answer is asked for again by the backoff table
/// ([`IfLost::Idempotent`]). A refresh token in the answer is not used (RFC 6749 §4.4.3).
///
/// ```
/// use tower_token::oauth2::ClientCredentialsGrant;
///
/// let grant = ClientCredentialsGrant::new("https://login.example.com/token", "my-service")
///     .client_secret("test-secret")
///     .resource("https://api.example.com");
/// ```
#[derive(Clone)]
pub struct ClientCredentialsGrant {
    endpoint: TokenEndpoint,
    if_lost: IfLost,
}

impl ClientCredentialsGrant {
    /// Asks the token endpoint at `token_url`, as the client `client_id`.
    ///
    /// `token_url` is https, or http on a loopback address; what is wrong with it or with another
    /// field is said when [`Tokens`](crate::Tokens) are made from the grant.
    pub fn new(token_url: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            endpoint: TokenEndpoint::new(token_url.into(), client_id.into()),
            if_lost: IfLost::Idempotent,
        }
    }

    /// What may be done when a request was sent and the answer was lost. Default: [`IfLost::Idempotent`].
    #[must_use]
    pub fn if_lost(mut self, policy: IfLost) -> Self {
        self.if_lost = policy;
        self
    }

    endpoint_methods!();
}

impl TokenProvider for ClientCredentialsGrant {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        if let Some(error) = step_up(&context) {
            return Err(error);
        }
        let scope = self
            .endpoint
            .scope
            .split_ascii_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let grant = [("grant_type", "client_credentials")];
        let answer = self.endpoint.exchange(&context, &grant, &scope).await?;
        Ok(answer.into_token(&scope))
    }

    fn if_lost(&self) -> IfLost {
        self.if_lost
    }

    fn owner(&self) -> String {
        self.endpoint.owner("oauth2.client_credentials")
    }

    fn check(&self, faults: &mut Faults) {
        self.endpoint.check(faults);
    }
}

impl fmt::Debug for ClientCredentialsGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentialsGrant")
            .field("endpoint", &self.endpoint)
            .field("if_lost", &self.if_lost)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::challenge::Challenge;
    use crate::error::Class;
    use crate::oauth2::endpoint::tests::{FakeIssuer, URL};
    use crate::provider::Cause;
    use crate::provider::exchange::tests::context;
    use crate::token::{Expiry, Warning};

    const GRANTED: &str = r#"{"access_token":"test-a","token_type":"bearer","expires_in":60}"#;

    fn grant(issuer: &FakeIssuer) -> ClientCredentialsGrant {
        ClientCredentialsGrant::new(URL, "my-app")
            .client_secret("test-secret")
            .client(issuer.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn the_request_is_as_rfc_6749_has_it() {
        let issuer = FakeIssuer::answering(GRANTED);
        let grant = grant(&issuer)
            .scope(" read  write ")
            .audience("api")
            .extra("tenant", "test tenant");
        let token = grant.resource("https://a.example.com").fetch(context()).await.unwrap();
        assert_eq!((token.secret(), token.kind()), ("test-a", "Bearer"));
        assert_eq!(token.expiry(), Expiry::In(Duration::from_secs(60)));
        assert_eq!(token.renewal_credential(), None);

        let sent = issuer.last();
        assert_eq!(
            (sent.head.method.as_str(), sent.head.uri.to_string().as_str()),
            ("POST", URL)
        );
        assert_eq!(sent.head.headers["accept"], "application/json");
        assert_eq!(sent.head.headers["content-type"], "application/x-www-form-urlencoded");
        assert!(sent.head.headers["authorization"].is_sensitive());
        assert_eq!(
            sent.form,
            [
                ("grant_type", "client_credentials"),
                ("scope", "read write"),
                ("resource", "https://a.example.com"),
                ("audience", "api"),
                ("tenant", "test tenant"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn post_and_none_put_the_id_into_the_body() {
        let issuer = FakeIssuer::answering(GRANTED);
        grant(&issuer)
            .client_auth(ClientAuth::Post)
            .fetch(context())
            .await
            .unwrap();
        let sent = issuer.last();
        assert_eq!(
            (sent.field("client_id"), sent.field("client_secret")),
            (Some("my-app"), Some("test-secret"))
        );
        assert!(!sent.head.headers.contains_key("authorization"));

        ClientCredentialsGrant::new(URL, "my-app")
            .client(issuer.clone())
            .fetch(context())
            .await
            .unwrap();
        let sent = issuer.last();
        assert_eq!(
            (sent.field("client_id"), sent.field("client_secret")),
            (Some("my-app"), None)
        );
        assert!(!sent.head.headers.contains_key("authorization"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_up_needs_a_person_and_costs_no_request() {
        let issuer = FakeIssuer::answering(GRANTED);
        for code in ["insufficient_user_authentication", "insufficient_claims"] {
            let mut context = context();
            context.cause = Cause::Refused;
            context.challenge = Challenge::parse(format!("Bearer error=\"{code}\"").as_bytes()).pop();
            let error = grant(&issuer).fetch(context).await.unwrap_err();
            assert_eq!(
                (error.class(), error.issuer_code()),
                (Class::NeedsInteraction, Some(code))
            );
        }
        assert_eq!(issuer.count(), 0);

        let mut context = context();
        context.cause = Cause::Refused;
        context.challenge = Challenge::parse(b"Bearer error=\"invalid_token\"").pop();
        assert!(grant(&issuer).fetch(context).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_issuer_left_out_is_told() {
        let issuer = FakeIssuer::answering(r#"{"access_token":"test-a","scope":"read","refresh_in":1800}"#);
        let token = grant(&issuer).scope("read write").fetch(context()).await.unwrap();
        assert_eq!(token.warnings(), [Warning::TypeAssumed, Warning::ScopeNarrowed]);
        assert_eq!((token.expiry(), token.granted_scope()), (Expiry::Unknown, Some("read")));
        assert_eq!(token.refresh_hint(), Some(Duration::from_secs(1800)));
    }

    #[tokio::test(start_paused = true)]
    async fn asking_again_does_no_harm() {
        assert_eq!(
            TokenProvider::if_lost(&grant(&FakeIssuer::default())),
            IfLost::Idempotent
        );
    }

    #[tokio::test]
    async fn a_fault_that_was_not_checked_is_an_error_of_the_fetch() {
        let error = ClientCredentialsGrant::new("login.example.com", "a")
            .client(FakeIssuer::default())
            .fetch(context())
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert!(error.to_string().contains("token_url"), "{error}");
    }
}
