//! The refresh token grant: [`RefreshTokenGrant`].

use std::fmt;

use serde_json::{Value, json};

use super::ClientAuth;
use super::endpoint::{TokenEndpoint, endpoint_methods, holds, step_up};
use crate::error::{Faults, FetchError};
use crate::provider::{FetchContext, IfLost, TokenProvider};
use crate::token::{Secret, Token};

/// Trades a refresh token for the next token (RFC 6749 §6).
///
/// The refresh token given here is only the seed: an issuer that rotates them answers with a new one,
/// which is kept in the token's credential and used from then on. So a program that restarts needs
/// what was persisted, not the seed. An answer without one keeps the last.
///
/// The credential is `{"refresh_token": "…", "scope": "…"}`; that is also what
/// [`Tokens::install`](crate::Tokens::install) takes, where the scope, as granted, may be left out.
///
/// ```
/// use tower_token::oauth2::RefreshTokenGrant;
///
/// let grant = RefreshTokenGrant::new("https://login.example.com/token", "my-app")
///     .client_secret("test-secret")
///     .refresh_token("test-refresh-token")
///     .scope("read write");
/// ```
#[derive(Clone)]
pub struct RefreshTokenGrant {
    endpoint: TokenEndpoint,
    seed: Option<Secret<String>>,
    if_lost: IfLost,
}

impl RefreshTokenGrant {
    /// Asks the token endpoint at `token_url`, as the client `client_id`.
    ///
    /// `token_url` is https, or http on a loopback address; what is wrong with it or with another
    /// field is said when [`Tokens`](crate::Tokens) are made from the grant.
    pub fn new(token_url: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            endpoint: TokenEndpoint::new(token_url.into(), client_id.into()),
            seed: None,
            if_lost: IfLost::ReplayOnce,
        }
    }

    /// The first refresh token. Default: none, so that one has to be [installed](crate::Tokens::install)
    /// before the first token can be fetched.
    #[must_use]
    pub fn refresh_token(mut self, seed: impl Into<String>) -> Self {
        self.seed = Some(Secret::new(seed.into()));
        self
    }

    /// What may be done when a refresh token was presented and the answer was lost.
    /// Default: [`IfLost::ReplayOnce`].
    #[must_use]
    pub fn if_lost(mut self, policy: IfLost) -> Self {
        self.if_lost = policy;
        self
    }

    endpoint_methods!();

    /// The refresh token to present: the last one, else the seed.
    fn current<'a>(&'a self, credential: Option<&'a Value>) -> Result<&'a str, FetchError> {
        match credential.and_then(|credential| credential.get("refresh_token")) {
            Some(Value::String(last)) if !last.is_empty() => Ok(last),
            // Not the seed instead: presenting one that was spent revokes the whole family at strict issuers.
            _ if credential.is_some() => Err(FetchError::config(
                "the installed credential holds no refresh token; install {\"refresh_token\": \"...\"}",
            )),
            _ => match &self.seed {
                Some(seed) if !seed.expose().is_empty() => Ok(seed.expose()),
                _ => Err(FetchError::config(
                    "there is no refresh token yet; install one (Tokens::install)",
                )),
            },
        }
    }

    /// The scope to ask for: the configured one, but never more than was granted, which an issuer
    /// has to refuse (RFC 6749 §6).
    fn asked(&self, granted: &str) -> String {
        let asked: Vec<_> = self
            .endpoint
            .scope
            .split_ascii_whitespace()
            .filter(|one| granted.is_empty() || holds(granted, one))
            .collect();
        asked.join(" ")
    }
}

impl TokenProvider for RefreshTokenGrant {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        if let Some(error) = step_up(&context) {
            return Err(error);
        }
        let credential = context.credential();
        let presented = self.current(credential)?;
        let granted = credential
            .and_then(|last| last.get("scope")?.as_str())
            .unwrap_or_default();
        let asked = self.asked(granted);
        let grant = [("grant_type", "refresh_token"), ("refresh_token", presented)];
        let mut answer = self
            .endpoint
            .exchange(&context, &grant, &asked)
            .await
            .map_err(|error| {
                match error
                    .brought_credential()
                    .and_then(|brought| brought["refresh_token"].as_str())
                {
                    Some(rotated) if !granted.is_empty() => {
                        let credential = json!({ "refresh_token": rotated, "scope": granted });
                        error.new_credential(credential)
                    }
                    _ => error,
                }
            })?;

        let rotated = answer.issued.refresh_token.take();
        let next = rotated.as_ref().map_or(presented, |rotated| rotated.expose());
        // Nothing asked for means as granted before.
        let token = answer.into_token(if asked.is_empty() { granted } else { &asked });
        let credential = match token.granted_scope() {
            Some(scope) => json!({ "refresh_token": next, "scope": scope }),
            None => json!({ "refresh_token": next }),
        };
        Ok(token.credential(credential))
    }

    fn if_lost(&self) -> IfLost {
        self.if_lost
    }

    fn owner(&self) -> String {
        self.endpoint.owner("oauth2.refresh_token")
    }

    fn seed(&self) -> Option<Secret<Value>> {
        let seed = self.seed.as_ref().map(Secret::expose).filter(|seed| !seed.is_empty())?;
        Some(Secret::new(json!({ "refresh_token": seed })))
    }

    fn check_credential(&self, credential: &Value, faults: &mut Faults) {
        let token = credential.get("refresh_token").and_then(Value::as_str);
        if !token.is_some_and(|token| !token.is_empty() && is_sendable(token)) {
            faults.add(
                "credential",
                r#"holds no refresh token; write {"refresh_token": "..."}"#,
            );
        }
    }

    fn check(&self, faults: &mut Faults) {
        self.endpoint.check(faults);
        let Some(seed) = &self.seed else {
            return;
        };
        if seed.expose().is_empty() {
            faults.add(
                "refresh_token",
                "it is empty; leave the call out if one is installed later",
            );
        } else if !is_sendable(seed.expose()) {
            faults.add(
                "refresh_token",
                "it holds a byte that is not printable ASCII, such as a newline; trim it",
            );
        }
    }
}

/// Printable ASCII. Source: RFC 6749 A.17.
fn is_sendable(token: &str) -> bool {
    token.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

impl fmt::Debug for RefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokenGrant")
            .field("endpoint", &self.endpoint)
            .field("if_lost", &self.if_lost)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::Response;
    use http_body_util::Full;
    use tower::service_fn;

    use super::*;
    use crate::error::{BoxError, Class};
    use crate::oauth2::endpoint::tests::{FakeIssuer, URL, faults};
    use crate::provider::exchange::tests::{Script, Step, context};
    use crate::token::Warning;

    const ROTATED: &str =
        r#"{"access_token":"test-a","token_type":"bearer","expires_in":60,"refresh_token":"test-second"}"#;
    const KEPT: &str = r#"{"access_token":"test-a","token_type":"bearer","expires_in":60}"#;

    fn grant(issuer: &FakeIssuer) -> RefreshTokenGrant {
        RefreshTokenGrant::new(URL, "my-app")
            .refresh_token("test-first")
            .client(issuer.clone())
    }

    fn after(credential: Value) -> FetchContext {
        let mut context = context();
        context.credential = Some(Arc::new(Secret::new(credential)));
        context
    }

    fn next(token: &Token) -> FetchContext {
        after(token.renewal_credential().unwrap().clone())
    }

    #[tokio::test(start_paused = true)]
    async fn the_seed_is_used_until_there_is_a_credential() {
        let issuer = FakeIssuer::answering(ROTATED);
        let grant = grant(&issuer);
        let token = grant.fetch(context()).await.unwrap();
        assert_eq!(issuer.last().field("grant_type"), Some("refresh_token"));
        assert_eq!(issuer.last().field("refresh_token"), Some("test-first"));
        assert_eq!(
            token.renewal_credential(),
            Some(&json!({ "refresh_token": "test-second" }))
        );

        grant.fetch(next(&token)).await.unwrap();
        assert_eq!(issuer.last().field("refresh_token"), Some("test-second"));
    }

    #[tokio::test(start_paused = true)]
    async fn t28_a_refresh_never_asks_for_more_than_was_granted() {
        let issuer = FakeIssuer::answering(&KEPT.replace('}', r#","scope":"read mail"}"#));
        let grant = grant(&issuer).scope("read write");
        let first = grant.fetch(context()).await.unwrap();
        assert_eq!(issuer.last().field("scope"), Some("read write"));
        assert_eq!(first.warnings(), [Warning::ScopeNarrowed]);
        assert_eq!(first.renewal_credential().unwrap()["scope"], "read mail");

        let second = grant.fetch(next(&first)).await.unwrap();
        assert_eq!(issuer.last().field("scope"), Some("read"));
        assert!(second.warnings().is_empty());

        issuer.answers(KEPT);
        let third = grant.fetch(next(&second)).await.unwrap();
        assert_eq!(third.renewal_credential().unwrap()["scope"], "read");

        grant
            .fetch(after(json!({ "refresh_token": "test-r", "scope": "mail" })))
            .await
            .unwrap();
        assert_eq!(issuer.last().field("scope"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_configured_scope_what_was_granted_is_carried_on() {
        let issuer = FakeIssuer::answering(KEPT);
        let token = grant(&issuer)
            .fetch(after(json!({ "refresh_token": "test-r", "scope": "a b" })))
            .await
            .unwrap();
        assert_eq!(issuer.last().field("scope"), None);
        assert_eq!(token.granted_scope(), Some("a b"));
        issuer.answers(&KEPT.replace('}', r#","scope":"a"}"#));
        let narrowed = grant(&issuer).fetch(next(&token)).await.unwrap();
        assert_eq!(narrowed.warnings(), [Warning::ScopeNarrowed]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_refresh_token_nothing_is_sent_and_the_error_says_what_to_do() {
        let issuer = FakeIssuer::answering(ROTATED);
        let seedless = RefreshTokenGrant::new(URL, "my-app").client(issuer.clone());
        assert_eq!(faults(&seedless), "");
        let error = seedless.fetch(context()).await.unwrap_err();
        assert_eq!(error.class(), Class::Config);
        assert!(error.to_string().contains("install one"), "{error}");

        for credential in [json!({ "refresh_token": "" }), json!({ "refresh_token": 7 })] {
            assert_eq!(
                grant(&issuer).fetch(after(credential)).await.unwrap_err().class(),
                Class::Config
            );
        }
        assert_eq!(issuer.count(), 0);
    }

    #[test]
    fn a_wrong_seed_is_named() {
        let grant = |seed: &str| {
            RefreshTokenGrant::new(URL, "my-app")
                .refresh_token(seed)
                .client(FakeIssuer::default())
        };
        assert!(faults(&grant("")).starts_with("refresh_token: it is empty"));
        assert!(faults(&grant("test-r\n")).starts_with("refresh_token: it holds a byte"));
    }

    #[tokio::test(start_paused = true)]
    async fn life_counts_from_the_moment_of_sending() {
        let slow = service_fn(|_: http::Request<bytes::Bytes>| async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            Ok::<_, BoxError>(Response::new(Full::new(bytes::Bytes::from_static(ROTATED.as_bytes()))))
        });
        let context = context();
        let before = context.now();
        let grant = RefreshTokenGrant::new(URL, "my-app")
            .refresh_token("test-first")
            .client(slow);
        let token = grant.fetch(context.clone()).await.unwrap();
        assert_eq!(token.issue_time(), Some(before));
        assert_eq!(context.now().duration_since(before).unwrap().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_off_answer_is_lost() {
        let cut = service_fn(|_: http::Request<bytes::Bytes>| async {
            Ok::<_, BoxError>(Response::new(Script::of([
                Step::Data(bytes::Bytes::from_static(&ROTATED.as_bytes()[..40])),
                Step::Cut,
            ])))
        });
        let grant = RefreshTokenGrant::new(URL, "my-app")
            .refresh_token("test-first")
            .client(cut);
        let error = grant.fetch(context()).await.unwrap_err();
        assert_eq!((error.class(), error.is_lost()), (Class::Transient, true));
        assert_eq!(TokenProvider::if_lost(&grant), IfLost::ReplayOnce);
        assert_eq!(
            TokenProvider::if_lost(&grant.if_lost(IfLost::NeverReplay)),
            IfLost::NeverReplay
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_secret_is_printed() {
        let canary = "canary-7/+ x";
        let forms = ["canary-7", "Y2FuYXJ5LTcv", "bXktYXBwOmNhbmFye"];
        let quiet = |printed: String| assert!(!forms.iter().any(|form| printed.contains(form)), "{printed}");
        let issuer = FakeIssuer::default();
        let grant = RefreshTokenGrant::new(format!("{URL}?key={canary}").replace(' ', "%20"), "my-app")
            .refresh_token(canary)
            .client_secret(canary)
            .extra("tenant", canary)
            .client(issuer.clone());
        quiet(format!("{grant:?} {grant:#?}"));
        for answer in [
            format!(r#"{{"error":"{canary}","error_description":"{canary}"}}"#),
            r#"{"error":"canary-7"}"#.into(),
            r#"{"error":"invalid_grant","error_description":"canary-7"}"#.into(),
            format!(r#"{{"access_token":7,"x":"{canary}"}}"#),
            canary.into(),
        ] {
            issuer.answers(&answer);
            let error = grant.fetch(context()).await.unwrap_err();
            quiet(format!("{error} {error:?} {:?}", std::error::Error::source(&error)));
        }
        issuer.answers(&format!(
            r#"{{"access_token":"canary-7","refresh_token":"{canary}","scope":"{canary}"}}"#
        ));
        quiet(format!("{:?}", grant.fetch(context()).await.unwrap()));

        let echo = service_fn(|request: http::Request<bytes::Bytes>| async move {
            let text = format!(
                "{} {:?} {:?}",
                request.uri(),
                request.body(),
                request.headers()["authorization"].to_str().unwrap()
            );
            Err::<Response<Full<bytes::Bytes>>, BoxError>(text.into())
        });
        let error = grant.client(echo).fetch(context()).await.unwrap_err();
        quiet(format!("{error} {error:?} {:?}", std::error::Error::source(&error)));
    }
}
