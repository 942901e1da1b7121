//! What was issued: a [`Token`], its times and the [`Secret`]s in it.
//!
//! Nothing here knows HTTP. How a token is presented is the layer's business
//! ([`Inject`](crate::Inject)), when it is renewed the policy's
//! ([`RefreshPolicy`](crate::RefreshPolicy)).

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use zeroize::Zeroize;

use crate::words::words;

/// A token as its provider issued it, and everything needed to renew it.
///
/// Cloning is cheap: all clones share one allocation. `Debug` prints no secret.
///
/// ```
/// use std::time::Duration;
/// use tower_token::Token;
///
/// let token = Token::bearer("test-abc").expires_in(Duration::from_secs(3600));
/// assert_eq!(token.secret(), "test-abc");
/// assert!(!format!("{token:?}").contains("test-abc"));
/// ```
#[derive(Clone)]
pub struct Token {
    inner: Arc<Inner>,
}

impl Token {
    /// A token of type `Bearer` (RFC 6750) whose lifetime is not known yet.
    pub fn bearer(secret: impl Into<String>) -> Self {
        Self {
            inner: Arc::new(Inner {
                secret: Secret::new(secret.into()),
                token_type: "Bearer".into(),
                issued_at: None,
                dated: None,
                expiry: Expiry::Unknown,
                refresh_in: None,
                renew_by: None,
                scope: None,
                generation: None,
                engine: 0,
                credential: None,
                warnings: Vec::new(),
            }),
        }
    }

    /// The type that stands before the secret in `Authorization`.
    ///
    /// Default: `Bearer`. Source: RFC 6749 §5.1 (`token_type`).
    #[must_use]
    pub fn token_type(self, token_type: impl Into<String>) -> Self {
        self.edit(|inner| inner.token_type = token_type.into())
    }

    /// When the issuer made it. Default: the moment its fetch began.
    #[must_use]
    pub fn issued_at(self, at: SystemTime) -> Self {
        self.edit(|inner| inner.issued_at = Some(at))
    }

    /// The time of day by the issuer's own clock when it answered: the `Date` of its answer (RFC 9110 §6.6.1).
    ///
    /// From it the difference of the two clocks is learned ([`Status::skew`](crate::Status::skew)). Lives are
    /// not corrected by it: [`expires_in`](Self::expires_in) needs no clock, and an
    /// [`expires_at`](Self::expires_at) is taken as ours.
    #[must_use]
    pub fn dated(self, date: SystemTime) -> Self {
        self.edit(|inner| inner.dated = Some(date))
    }

    /// How long it lives, counted from [`issued_at`](Self::issued_at).
    ///
    /// Default: not known, then [`RefreshPolicy::assumed_life`](crate::RefreshPolicy::assumed_life)
    /// (5 minutes) is taken and an event says so. More than a year counts as a year.
    ///
    /// Source: RFC 6749 §5.1 (`expires_in`, seconds).
    #[must_use]
    pub fn expires_in(self, life: Duration) -> Self {
        self.edit(|inner| inner.expiry = Expiry::In(life))
    }

    /// The instant of its death, for issuers that say one instead of a lifetime.
    #[must_use]
    pub fn expires_at(self, at: SystemTime) -> Self {
        self.edit(|inner| inner.expiry = Expiry::At(at))
    }

    /// The issuer's own hint when to renew, counted from issue. It stands in for the default advisory window, and
    /// where one was [set](crate::RefreshPolicy::refresh_before) the earlier counts; neither before
    /// [`RefreshPolicy::min_interval`](crate::RefreshPolicy::min_interval) nor within a minute of the mandatory window.
    #[must_use]
    pub fn refresh_in(self, after: Duration) -> Self {
        self.edit(|inner| inner.refresh_in = Some(after))
    }

    /// The instant by which it has to be renewed, for tokens that can only be renewed alive.
    ///
    /// Its renewal begins ahead of that, by the default of
    /// [`RefreshPolicy::refresh_before`](crate::RefreshPolicy::refresh_before), or half of the time there is.
    #[must_use]
    pub fn renew_by(self, at: SystemTime) -> Self {
        self.edit(|inner| inner.renew_by = Some(at))
    }

    /// What it may be used for, as the issuer granted it. Source: RFC 6749 §3.3.
    #[must_use]
    pub fn scope(self, scope: impl Into<String>) -> Self {
        self.edit(|inner| inner.scope = Some(scope.into()))
    }

    /// What its provider needs to renew it: a refresh token, a session id.
    ///
    /// The provider finds it again in [`FetchContext::credential`](crate::FetchContext::credential).
    /// Without one the credential of the previous token stays in force.
    #[must_use]
    pub fn credential(self, credential: Value) -> Self {
        self.edit(|inner| inner.credential = Some(Secret::new(credential)))
    }

    /// Something that whoever runs the program should know about this answer. It becomes an event.
    #[must_use]
    pub fn warning(self, warning: Warning) -> Self {
        self.edit(|inner| inner.warnings.push(warning))
    }

    /// The secret itself. Do not log it.
    pub fn secret(&self) -> &str {
        self.inner.secret.expose()
    }

    /// The type, as it stands before the secret in `Authorization`: `Bearer`.
    pub fn kind(&self) -> &str {
        &self.inner.token_type
    }

    /// Its name in logs and events, which tells nothing of the secret.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.secret())
    }

    /// Which token of its [`Tokens`](crate::Tokens) this is; `None` before it landed there.
    pub fn generation(&self) -> Option<Generation> {
        self.inner.generation
    }

    /// When it was issued, once it landed.
    pub fn issue_time(&self) -> Option<SystemTime> {
        self.inner.issued_at
    }

    /// When it dies, once it landed. An issuer that named no lifetime got the assumed one.
    pub fn expiry_time(&self) -> Option<SystemTime> {
        match self.inner.expiry {
            Expiry::Unknown => None,
            Expiry::In(life) => self.inner.issued_at?.checked_add(life),
            Expiry::At(at) => Some(at),
        }
    }

    /// By when it has to be renewed, where its provider said so.
    pub fn renewal_deadline(&self) -> Option<SystemTime> {
        self.inner.renew_by
    }

    /// What it may be used for, where the issuer said so.
    pub fn granted_scope(&self) -> Option<&str> {
        self.inner.scope.as_deref()
    }

    /// What its provider keeps to renew it: for that provider, and for whoever makes it durable. A token that comes
    /// from a store has what is kept there beside it.
    ///
    /// Worth more than the token itself. Do not log it.
    pub fn renewal_credential(&self) -> Option<&Value> {
        self.inner.credential.as_ref().map(Secret::expose)
    }

    /// The generation, if it is one of that engine's.
    pub(crate) fn generation_at(&self, engine: u64) -> Option<Generation> {
        self.inner.generation.filter(|_| self.inner.engine == engine)
    }

    /// What the issuer's clock said when it answered.
    pub(crate) fn date(&self) -> Option<SystemTime> {
        self.inner.dated
    }

    pub(crate) fn expiry(&self) -> Expiry {
        self.inner.expiry
    }

    pub(crate) fn refresh_hint(&self) -> Option<Duration> {
        self.inner.refresh_in
    }

    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.inner.warnings
    }

    /// The token as it lands: numbered, with both of its times known.
    pub(crate) fn landed(self, engine: u64, generation: Generation, issued: SystemTime, dies: SystemTime) -> Self {
        self.edit(|inner| {
            inner.engine = engine;
            inner.generation = Some(generation);
            inner.issued_at = Some(issued);
            inner.expiry = Expiry::At(dies);
        })
    }

    /// As a clock has it that reads `now`. If the clock that it was issued by is ahead of that one, it lives no longer from
    /// now on than it would have from its issue.
    pub(crate) fn issued_by(self, now: SystemTime) -> Self {
        let ahead = self.issue_time().and_then(|issued| issued.duration_since(now).ok());
        let Some(ahead) = ahead.filter(|ahead| !ahead.is_zero()) else {
            return self;
        };
        let sooner = |at: SystemTime| at.checked_sub(ahead).unwrap_or(now);
        self.edit(|inner| {
            inner.issued_at = Some(now);
            inner.renew_by = inner.renew_by.map(sooner);
            if let Expiry::At(dies) = inner.expiry {
                inner.expiry = Expiry::At(sooner(dies));
            }
        })
    }

    /// The first byte that no token may hold (RFC 6749 A.12: `1*VSCHAR`, here without the space), or why else it is none.
    pub(crate) fn flaw(&self) -> Option<String> {
        let secret = self.secret();
        if secret.is_empty() {
            return Some("the token is empty".into());
        }
        if is_visible(secret) {
            return None;
        }
        let at = secret.bytes().position(|byte| !byte.is_ascii_graphic())?;
        Some(format!(
            "the token holds the byte {:#04x} at offset {at}, and only visible ASCII may be sent (RFC 6749 A.12); \
             trim what the provider reads",
            secret.as_bytes()[at]
        ))
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("kind", &self.kind())
            .field("generation", &self.inner.generation)
            .field("expiry", &self.inner.expiry)
            .finish_non_exhaustive()
    }
}

/// The number of a token within its [`Tokens`](crate::Tokens): 1 for the first that landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(NonZeroU64);

impl Generation {
    /// The number itself.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    #[cfg(test)]
    pub(crate) fn nth(nth: u64) -> Self {
        Self(NonZeroU64::new(nth).unwrap())
    }

    /// The one after it. After 2^64 renewals it stays where it is.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

words! {
    /// What an issuer left out or did otherwise than asked, and what was made of it.
    Warning {
        /// No lifetime was given; the assumed one is used.
        LifetimeAssumed = "lifetime_assumed",
        /// No `token_type` was given; `Bearer` is used.
        TypeAssumed = "type_assumed",
        /// The scope granted is narrower than the one asked for.
        ScopeNarrowed = "scope_narrowed",
        /// The issuer's clock is half a minute or more away from ours ([`Status::skew`](crate::Status::skew)).
        ClockSkewed = "clock_skewed",
        /// The token is the one that it should have replaced, near its end; it is not asked for in a loop.
        Repeated = "repeated",
    }
}

/// The name of a token in logs: 32 bits of a hash that is salted anew in every process.
///
/// Enough to follow a token through the logs of one run; nothing to find it by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u32);

impl Fingerprint {
    fn of(secret: &str) -> Self {
        static SALT: OnceLock<RandomState> = OnceLock::new();
        // SipHash under a random key: who does not know the key learns nothing of what was hashed.
        Self(SALT.get_or_init(RandomState::new).hash_one(secret) as u32)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A value that `Debug` does not print and that is overwritten when dropped.
///
/// What is wiped is this copy. A [`HeaderValue`](http::HeaderValue) made from it, or a buffer of
/// the TLS library, cannot be.
#[derive(Clone)]
pub struct Secret<T: Wipe>(T);

impl<T: Wipe> Secret<T> {
    /// Keeps `value` from being printed.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// So that it can be moved on: a copy would be one more to be wiped.
    #[cfg(feature = "oauth2")]
    pub(crate) fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Wipe> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

impl<T: Wipe> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<String> for Secret<String> {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.into())
    }
}

/// Whether it is visible ASCII without a space, all of it.
pub(crate) fn is_visible(secret: &str) -> bool {
    is_all(secret, |byte| byte.is_ascii_graphic())
}

/// Whether every byte of a text is such a one. Ends with the last of them and not before, so that the compiler takes
/// many at a time: tokens are long, and almost all are good.
pub(crate) fn is_all(text: &str, fits: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & fits(byte))
}

/// What a [`Secret`] can overwrite: text and JSON. Sealed.
pub trait Wipe: sealed::Sealed {
    #[doc(hidden)]
    fn wipe(&mut self);
}

impl Wipe for String {
    fn wipe(&mut self) {
        self.zeroize();
    }
}

impl Wipe for Value {
    fn wipe(&mut self) {
        match self {
            Value::String(text) => text.zeroize(),
            Value::Array(items) => items.iter_mut().for_each(Wipe::wipe),
            Value::Object(fields) => fields.values_mut().for_each(Wipe::wipe),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for String {}
    impl Sealed for serde_json::Value {}
}

/// When a token dies, as far as its issuer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Unknown,
    In(Duration),
    At(SystemTime),
}

#[derive(Clone)]
struct Inner {
    secret: Secret<String>,
    token_type: String,
    issued_at: Option<SystemTime>,
    dated: Option<SystemTime>,
    expiry: Expiry,
    refresh_in: Option<Duration>,
    renew_by: Option<SystemTime>,
    scope: Option<String>,
    generation: Option<Generation>,
    /// Whose generation that is; zero before it landed.
    engine: u64,
    credential: Option<Secret<Value>>,
    warnings: Vec<Warning>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_no_secret() {
        let token = Token::bearer("test-canary").credential(serde_json::json!({ "refresh_token": "test-canary" }));
        assert!(!format!("{token:?} {:?}", Secret::from("test-canary")).contains("canary"));
    }

    #[test]
    fn a_token_with_a_newline_names_the_byte() {
        let flaw = Token::bearer("test-abc\n").flaw().unwrap();
        assert!(flaw.contains("0x0a at offset 8"), "{flaw}");
        assert!(Token::bearer("").flaw().unwrap().contains("empty"));
        assert!(Token::bearer("test-\u{e9}").flaw().unwrap().contains("0xc3"));
        assert_eq!(Token::bearer("test-abc").flaw(), None);
    }
}
