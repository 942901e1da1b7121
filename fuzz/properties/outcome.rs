//! How a fetch may end: in a token that can be sent and dies within a year, or in an error that has a class
//! and quotes nothing but a code.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::timeout;
use tower_token::{Class, Clock, Error, Event, Observe, RefreshPolicy, Token, TokenProvider, Tokens};

/// What stands in answers and documents, and in nothing that is printed.
pub(crate) const CANARY: &str = "canary";

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sun, 06 Nov 1994 08:48:37 GMT, so that the dates in a corpus stay where they are.
const NOW: u64 = 784_111_717;

/// Time passes at once where everything waits for it.
pub(crate) fn in_paused_time<F: Future>(work: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(work)
}

/// The wall clock so many seconds from [`NOW`].
pub(crate) fn clock(ahead: i64) -> Clock {
    let clock = Clock::of_tokio();
    let real = clock.now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    clock.step(NOW.cast_signed() - real.cast_signed() + ahead);
    clock
}

/// Tokens, and what was printed about them.
pub(crate) struct Fetching {
    pub(crate) tokens: Tokens,
    clock: Clock,
    told: Arc<Mutex<String>>,
    secrets: &'static [&'static str],
}

impl Fetching {
    /// An error is one of the configuration.
    pub(crate) fn of(provider: impl TokenProvider, policy: RefreshPolicy, clock: Clock) -> Result<Self, Error> {
        let told = Arc::new(Mutex::new(String::new()));
        let tokens = Tokens::builder(provider)
            .policy(policy)
            .clock(clock.clone())
            .observe(Told(told.clone()))
            .build()?;
        Ok(Self {
            tokens,
            clock,
            told,
            secrets: &[],
        })
    }

    /// With these its requests are made. Not even a code may hold the beginning of one.
    pub(crate) fn with(self, secrets: &'static [&'static str]) -> Self {
        Self { secrets, ..self }
    }

    /// Fetches, and once more where that brought a token, so that it is also renewed.
    pub(crate) async fn end_well(&self) {
        if self.ends_well(self.tokens.get()).await.is_ok() {
            let _ = self.ends_well(self.tokens.refresh()).await;
        }
    }

    pub(crate) async fn ends_well(&self, fetch: impl Future<Output = Result<Token, Error>>) -> Result<Token, Error> {
        let outcome = timeout(HOUR, fetch).await.expect("ends");
        let status = self.tokens.status();
        let mut printed = format!("{:?} {status:?} {outcome:?}", self.tokens);
        let code = outcome.as_ref().err().and_then(code);
        match &outcome {
            Ok(token) => self.is_sound(token),
            Err(error) => {
                _ = write!(printed, " {error}");
                is_classed(error);
            }
        }
        printed += &std::mem::take(&mut *self.told.lock().unwrap());
        let secret = self.secrets.iter().find(|secret| printed.contains(&secret[..8]));
        assert_eq!(secret, None, "{printed}");
        quotes_nothing(printed, code.as_deref());
        outcome
    }

    fn is_sound(&self, token: &Token) {
        assert!(!token.secret().is_empty() && token.secret().bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(token.kind(), "Bearer");
        assert!(self.tokens.current_header().expect("can be sent").is_sensitive());
        let life = token.expiry_time().expect("is known").duration_since(self.clock.now());
        assert!(life.expect("is alive") <= A_YEAR);
    }

    /// A token is over when its life is, whether or not anybody asks.
    pub(crate) async fn dies(&self, token: &Token) {
        let dies = token.expiry_time().expect("is known");
        let life = dies.duration_since(self.clock.now()).unwrap_or_default();
        tokio::time::sleep(life + Duration::from_millis(2)).await;
        let status = self.tokens.status();
        assert!(!matches!(
            status.state,
            tower_token::State::Fresh | tower_token::State::Stale
        ));
        assert_eq!(status.expires_in, Some(Duration::ZERO));
    }
}

fn is_classed(error: &Error) {
    assert!(error.class().is_some(), "{error}");
    if let Some(Class::Throttled { retry_after }) = error.class() {
        assert!(retry_after.is_none_or(|wait| wait <= HOUR), "{error:?}");
    }
}

/// The issuer's own code, which stands in brackets behind the message.
fn code(error: &Error) -> Option<String> {
    let text = error.to_string();
    let (_, code) = text.strip_suffix(')')?.rsplit_once('(')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    (code.len() <= 64 && code.bytes().all(plain)).then(|| code.to_owned())
}

fn quotes_nothing(printed: String, code: Option<&str>) {
    let printed = match code {
        Some(code) => printed
            .replace(&format!("({code})"), "")
            .replace(&format!("\"{code}\""), ""),
        None => printed,
    };
    assert!(!printed.contains(CANARY), "{printed}");
}

/// Of a client, and of its user.
pub(crate) const SECRETS: [&str; 2] = ["test-7c0ffee9-client", "test-55aa55aa-refresh"];

struct Told(Arc<Mutex<String>>);

impl Observe for Told {
    fn observe(&self, event: &Event) {
        _ = write!(self.0.lock().unwrap(), "{event:?}");
    }
}
