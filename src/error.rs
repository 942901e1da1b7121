//! What can go wrong: [`FetchError`] from a provider, [`Error`] to a caller.
//!
//! No message holds a secret. What an issuer wrote is quoted only where it is an error code of the
//! field's own form; its prose is left out, because issuers have echoed tokens in it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::challenge::Challenge;
use crate::token::Secret;

/// A boxed error, as tower's middleware passes it on.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a request has no token, or why something was not built. Cheap to clone: all waiters share one.
///
/// The layer's service has [`BoxError`] as its error, so that the inner service's own error passes
/// through as it is; [`Error::find`] tells ours from theirs. What to do about which, the guide
/// [says](crate::guide::get_a_token#errors).
#[derive(Clone)]
pub struct Error {
    kind: Arc<Kind>,
}

impl Error {
    /// This crate's own error, if `error` or one of its sources is one.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        links(error).find_map(|error| error.downcast_ref())
    }

    /// Something that was configured cannot work; the message names each field and what would be right.
    pub fn is_config(&self) -> bool {
        matches!(*self.kind, Kind::Config(_)) || matches!(self.class(), Some(Class::Config))
    }

    /// Nobody but a person, or a new credential ([`Tokens::install`](crate::Tokens::install)), can end this.
    ///
    /// True for [`Class::Terminal`], [`Class::NeedsInteraction`] and [`Class::Ambiguous`]. Who has signed out knows it:
    /// that is [`is_signed_out`](Self::is_signed_out).
    pub fn is_reauth_required(&self) -> bool {
        matches!(
            self.class(),
            Some(Class::Terminal | Class::NeedsInteraction | Class::Ambiguous)
        )
    }

    /// A later attempt may succeed: [`Class::Transient`], [`Class::Throttled`], a fetch that was broken off, or too many
    /// waiters.
    pub fn is_transient(&self) -> bool {
        matches!(self.class(), Some(Class::Transient | Class::Throttled { .. }))
            || matches!(*self.kind, Kind::Aborted | Kind::Overloaded { .. })
    }

    /// The issuer asked for fewer requests; [`retry_after`](Self::retry_after) says when.
    pub fn is_throttled(&self) -> bool {
        matches!(self.class(), Some(Class::Throttled { .. }))
    }

    /// Too many callers wait already ([`RefreshPolicy::max_waiters`](crate::RefreshPolicy::max_waiters)).
    pub fn is_overloaded(&self) -> bool {
        matches!(*self.kind, Kind::Overloaded { .. })
    }

    /// A token request went through the layer that waits for it.
    pub fn is_recursion(&self) -> bool {
        matches!(*self.kind, Kind::Recursion)
    }

    /// The upload of a first attempt was broken off because its replay sends the rest: what a layer below
    /// sees of a [takeover](crate::Buffered), and no failure.
    pub fn is_taken_over(&self) -> bool {
        matches!(*self.kind, Kind::TakenOver)
    }

    /// [`Tokens::sign_out`](crate::Tokens::sign_out) was called, and nothing was installed since.
    pub fn is_signed_out(&self) -> bool {
        matches!(*self.kind, Kind::SignedOut)
    }

    /// [`Tokens::shutdown`](crate::Tokens::shutdown) was called.
    pub fn is_shut_down(&self) -> bool {
        matches!(*self.kind, Kind::ShutDown)
    }

    pub(crate) fn is_without_runtime(&self) -> bool {
        matches!(*self.kind, Kind::NoRuntime)
    }

    /// How long to wait before the next attempt is worth it, where the issuer asked for patience: as long as it
    /// said, or until our own backoff ends if it did not say. `None` for every other failure, whose next attempt
    /// [`Status::next_fetch_in`](crate::Status::next_fetch_in) knows.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.class() {
            Some(Class::Throttled { retry_after }) => retry_after,
            _ => None,
        }
    }

    /// What the server demanded that no newer token of the same grant would bring: its challenge, with
    /// `acr_values` and `max_age` (RFC 9470 §3), `claims` (Continuous Access Evaluation) or `scope` among its
    /// parameters. Take them to whatever signs a person in, and [install](crate::Tokens::install) what comes of it.
    pub fn demand(&self) -> Option<&Challenge> {
        match &*self.kind {
            Kind::Fetch(error) => error.challenge.as_deref(),
            _ => None,
        }
    }

    /// The class of the fetch that failed, if one did.
    pub fn class(&self) -> Option<Class> {
        match &*self.kind {
            Kind::Fetch(error) => Some(error.class()),
            _ => None,
        }
    }

    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind: Arc::new(kind) }
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// What is wrong with the configuration, if that is what this is about.
    #[cfg(feature = "config")]
    pub(crate) fn faults(&self) -> Option<&Faults> {
        match &*self.kind {
            Kind::Config(faults) => Some(faults),
            _ => None,
        }
    }

    pub(crate) fn config(field: impl Into<Cow<'static, str>>, advice: impl Into<Cow<'static, str>>) -> Self {
        let mut faults = Faults::default();
        faults.add(field, advice);
        Self::new(Kind::Config(faults))
    }
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        Self::new(Kind::Fetch(error))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&self.kind).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.kind {
            Kind::Config(faults) => write!(f, "invalid configuration: {faults}"),
            Kind::Fetch(error) => write!(f, "no token: {error}"),
            Kind::Overloaded { limit } => write!(f, "no token: {limit} callers wait for it already"),
            Kind::Recursion => f.write_str(
                "a token request went through the layer that waits for its token; give the provider a client of its own",
            ),
            Kind::SignedOut => f.write_str("no token: signed out, until a credential is installed"),
            Kind::ShutDown => f.write_str("no token: shut down"),
            Kind::NoRuntime => f.write_str("no token: a fetch can only begin inside a tokio runtime"),
            Kind::Aborted => f.write_str("no token: the fetch ended without an answer (it panicked, or its runtime ended)"),
            Kind::NoAuthority => f.write_str(
                "the request names no host, so its origin cannot be checked; write a full URL, \
                 or use Origins::connected_peer() if the client is bound to one peer",
            ),
            Kind::Unreplayable => f.write_str("the request could not be made again"),
            Kind::TakenOver => f.write_str(
                "the token was refused while the body was being sent; the replay sends the rest of it",
            ),
            Kind::BodyLost => f.write_str("the body panicked while the first attempt was polling it"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.kind {
            // The message of a fetch error stands in ours already.
            Kind::Fetch(error) => error.source(),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    Config(Faults),
    Fetch(FetchError),
    Overloaded { limit: usize },
    Recursion,
    SignedOut,
    ShutDown,
    NoRuntime,
    Aborted,
    NoAuthority,
    Unreplayable,
    TakenOver,
    BodyLost,
}

/// What is wrong with a configuration: every field, with what would be right. A provider fills it in its
/// [`check`](crate::TokenProvider::check).
#[derive(Clone, Debug, Default)]
pub struct Faults {
    found: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

impl Faults {
    /// Names a wrong field and what to write instead. Neither may hold a secret.
    pub fn add(&mut self, field: impl Into<Cow<'static, str>>, advice: impl Into<Cow<'static, str>>) {
        self.found.push((field.into(), advice.into()));
    }

    /// Adds what `others` found, below the path `at`. A field that is named already is not named twice.
    #[cfg(feature = "config")]
    pub(crate) fn absorb(&mut self, at: &str, others: Faults) {
        let path = |field| {
            if at.is_empty() {
                field
            } else {
                format!("{at}.{field}").into()
            }
        };
        let found = others
            .found
            .into_iter()
            .map(|(field, advice)| (path(field), advice))
            .collect();
        self.merge(Faults { found });
    }

    /// Adds what `others` found. A field that is named already is not named twice.
    #[cfg(feature = "config")]
    pub(crate) fn merge(&mut self, others: Faults) {
        for (field, advice) in others.found {
            if !self.found.iter().any(|(known, _)| *known == field) {
                self.add(field, advice);
            }
        }
    }

    /// The same without what the fields' paths begin with.
    #[cfg(feature = "config")]
    pub(crate) fn without(mut self, start: &str) -> Self {
        for (field, _) in &mut self.found {
            if let Some(rest) = field.strip_prefix(start) {
                *field = rest.to_owned().into();
            }
        }
        self
    }

    /// Adds what another error is about.
    #[cfg(feature = "config")]
    pub(crate) fn extend(&mut self, other: &Error) {
        let found = other.faults().map_or(&[][..], |faults| &faults.found);
        self.found.extend_from_slice(found);
    }

    /// Adds what another error is about, as if it were about the field `at`.
    #[cfg(feature = "config")]
    pub(crate) fn rename(&mut self, at: &str, other: &Error) {
        let found = other.faults().map_or(&[][..], |faults| &faults.found);
        self.found
            .extend(found.iter().map(|(_, advice)| (at.to_owned().into(), advice.clone())));
    }

    pub(crate) fn into_result(self) -> Result<(), Error> {
        if self.found.is_empty() {
            return Ok(());
        }
        Err(Error::new(Kind::Config(self)))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (field, advice)) in self.found.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {advice}")?;
        }
        Ok(())
    }
}

/// What a failed fetch means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The issuer's verdict: this credential will not work again. Probed after 10 minutes, doubling to 1 hour.
    Terminal,
    /// It may work later: network, 5xx, malformed answers. Backoff of 1 s, doubled up to 120 s.
    Transient,
    /// The issuer asked for patience, and gets it. Where it did not say how much, the backoff is that of
    /// [`Transient`](Self::Transient).
    Throttled {
        /// How long, where it said so (capped at 1 hour). To callers: until the next attempt.
        retry_after: Option<Duration>,
    },
    /// A person has to act. Probed as [`Terminal`](Self::Terminal) is.
    NeedsInteraction,
    /// The program is configured wrongly. Probed as [`Terminal`](Self::Terminal) is.
    Config,
    /// A one-time credential was presented and the answer was lost, so nobody knows whether it is spent. What follows
    /// is the provider's [`IfLost`](crate::IfLost): by default one presentation a minute.
    Ambiguous,
}

impl Class {
    /// The word for logs and metrics, which stays as it is.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Terminal => "terminal",
            Class::Transient => "transient",
            Class::Throttled { .. } => "throttled",
            Class::NeedsInteraction => "needs_interaction",
            Class::Config => "config",
            Class::Ambiguous => "ambiguous",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::NeedsInteraction => "needs interaction",
            class => class.as_str(),
        })
    }
}

/// Why a provider brought no token. What each class leads to stands at [`Class`], and in the guide's page on
/// [writing a provider](crate::guide::write_a_provider#what-to-answer).
///
/// ```
/// use tower_token::FetchError;
///
/// let error = FetchError::transient("the vault is sealed");
/// assert_eq!(error.to_string(), "transient: the vault is sealed");
/// ```
#[derive(Clone, Debug)]
pub struct FetchError {
    class: Class,
    message: Cow<'static, str>,
    code: Option<Arc<str>>,
    lost: bool,
    /// What came before it was the issuer's verdict on what was presented.
    after_verdict: bool,
    /// It is about what keeps tokens, not about the issuer.
    of_store: bool,
    credential: Option<Arc<Secret<Value>>>,
    challenge: Option<Arc<Challenge>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl FetchError {
    /// An error of that class. The message must hold no secret.
    pub fn new(class: Class, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            message: message.into(),
            code: None,
            lost: false,
            after_verdict: false,
            of_store: false,
            credential: None,
            challenge: None,
            source: None,
        }
    }

    /// The issuer says no, for good: [`Class::Terminal`].
    pub fn terminal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::Terminal, message)
    }

    /// It may work later: [`Class::Transient`]. Say [`lost`](Self::lost) too if the request may have arrived.
    pub fn transient(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::Transient, message)
    }

    /// The issuer asks for patience, for so long if it says so: [`Class::Throttled`].
    pub fn throttled(retry_after: Option<Duration>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::Throttled { retry_after }, message)
    }

    /// A person has to act: [`Class::NeedsInteraction`].
    pub fn needs_interaction(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::NeedsInteraction, message)
    }

    /// A field of the configuration is wrong, as the issuer says: [`Class::Config`].
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Class::Config, message)
    }

    /// The request may have reached the issuer and its answer did not come: the credential may be spent.
    ///
    /// What follows is the provider's [`IfLost`](crate::IfLost).
    #[must_use]
    pub fn lost(mut self) -> Self {
        self.lost = true;
        self
    }

    /// The answer brought no usable token, but it did bring a new credential: the old one may be spent,
    /// so this one is used from now on. Nothing was [lost](Self::lost).
    #[must_use]
    pub fn new_credential(mut self, credential: Value) -> Self {
        self.credential = Some(Arc::new(Secret::new(credential)));
        self.lost = false;
        self
    }

    /// The issuer's own error code (RFC 6749 §5.2). Kept only if it has a code's form:
    /// at most 64 letters, digits, `_`, `-`, `.`, `:`.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        if !code.is_empty() && code.len() <= 64 && code.bytes().all(plain) {
            self.code = Some(code.into());
        }
        self
    }

    /// What caused it. Its text reaches whoever prints the chain, so it must hold no secret.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// What a server demanded that could not be brought. The engine adds it to a [`Class::NeedsInteraction`] by itself.
    #[must_use]
    pub fn demanded(mut self, challenge: Challenge) -> Self {
        self.challenge = Some(Arc::new(challenge));
        self
    }

    /// What it means for the next fetch.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The issuer's own error code, if it gave one.
    pub fn issuer_code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether the answer was lost after the request may have arrived.
    pub fn is_lost(&self) -> bool {
        self.lost || self.class == Class::Ambiguous
    }

    /// What was presented is dead by the issuer's own word; this is why there is no other.
    #[cfg(feature = "endpoint")]
    pub(crate) fn after_verdict(mut self) -> Self {
        self.after_verdict = true;
        self
    }

    pub(crate) fn of_store(mut self) -> Self {
        self.of_store = true;
        self
    }

    pub(crate) fn is_of_store(&self) -> bool {
        self.of_store
    }

    /// Whether it leaves open what became of a credential that was presented before.
    pub(crate) fn says_nothing(&self) -> bool {
        self.credential.is_none() && !self.after_verdict
    }

    pub(crate) fn brought_credential(&self) -> Option<&Value> {
        self.credential.as_deref().map(Secret::expose)
    }

    /// Nothing that matters was presented.
    #[cfg(feature = "endpoint")]
    pub(crate) fn not_lost(mut self) -> Self {
        self.lost = false;
        self
    }

    pub(crate) fn reclassified(mut self, class: Class) -> Self {
        self.class = class;
        self
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.message)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        Ok(())
    }
}

impl StdError for FetchError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error and everything it stands for. `io::Error` leaves out the error that it wraps, so that is asked for.
pub(crate) fn links<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as _),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_found_behind_any_number_of_boxes() {
        let ours = Error::from(FetchError::terminal("over"));
        let boxed: BoxError = Box::new(std::io::Error::other(std::io::Error::other(ours)));
        assert!(Error::find(&*boxed).is_some_and(Error::is_reauth_required));
        let theirs: BoxError = "not ours".into();
        assert!(Error::find(&*theirs).is_none());
    }

    #[test]
    fn a_code_that_is_none_is_not_quoted() {
        assert_eq!(
            FetchError::terminal("x").code("invalid_grant").issuer_code(),
            Some("invalid_grant")
        );
        assert_eq!(FetchError::terminal("x").code("secret token here").issuer_code(), None);
        assert_eq!(FetchError::terminal("x").code(&"a".repeat(65)).issuer_code(), None);
    }
}
