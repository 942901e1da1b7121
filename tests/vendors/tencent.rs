//! Tencent Smart Media Hosting: library tokens.
//!
//! Errors are `{"status","code","message","requestId"}`.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::wire::{Form, segment};
use super::{Answer, Asked, Desk, Double, Fault, Tokens, Vendor, request_id};

/// `GET /api/v1/token` with the library secret, `POST /api/v1/token/{library}/{token}` with nothing
/// else. A token is renewed while it lives, by itself.
///
/// Business requests carry it as `access_token` in the query or as a bearer, and are refused with
/// 403 `InvalidAccessToken`.
pub(crate) type Smh = Double<SmhVendor>;

#[derive(Clone, Debug)]
pub(crate) struct SmhOptions {
    pub(crate) library_id: String,
    pub(crate) library_secret: String,
    /// `Some`: every token lives so long, whatever `period` asks for; `expiresIn` is rounded down.
    /// Default: `None`, by `period` (default 86400 s, at least 1200 s).
    pub(crate) lifetime: Option<Duration>,
    pub(crate) renewing: Renewing,
    /// How long a replaced token serves on, with [`Renewing::Changes`]. Default: not at all.
    pub(crate) old_access_grace: Duration,
    /// Every accepted business request lets the token live its whole period from then on.
    /// Default: `true`, as documented.
    pub(crate) sliding: bool,
}

/// Whether renewing changes the value is not documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewing {
    /// A new value, and the old one dies.
    Changes,
    /// The same value, which lives its whole period from then on.
    Keeps,
}

impl Default for SmhOptions {
    fn default() -> Self {
        Self {
            library_id: "smh0test".into(),
            library_secret: "test secret+/=&~*".into(),
            lifetime: None,
            renewing: Renewing::Changes,
            old_access_grace: Duration::ZERO,
            sliding: true,
        }
    }
}

pub(crate) struct SmhVendor {
    options: SmhOptions,
    last_query: Mutex<Form>,
    tokens: Mutex<Tokens>,
}

impl SmhVendor {
    /// The decoded query of the last `GET /api/v1/token` that was granted.
    pub(crate) fn last_query(&self) -> Form {
        self.last_query.lock().unwrap().clone()
    }

    fn generate(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        const KNOWN: [&str; 10] = [
            "library_id",
            "library_secret",
            "space_id",
            "user_id",
            "client_id",
            "session_id",
            "local_sync_id",
            "allow_space_tag",
            "period",
            "grant",
        ];
        let query = asked.query();
        if query.repeated().is_some() || !asked.body.is_empty() {
            return Err(malformed());
        }
        desk.count(|counts| counts.unknown_parameters += query.unknown(&KNOWN));
        let (library, secret) = match (query.get("library_id"), query.get("library_secret")) {
            (Some(library), Some(secret)) => (library, secret),
            (None, None) => return Err(error(400, "EmptyLibraryIdOrSecret")),
            (None, _) => return Err(error(400, "EmptyLibraryId")),
            (_, None) => return Err(error(400, "EmptyLibrarySecret")),
        };
        if library != self.options.library_id || secret != self.options.library_secret {
            return Err(error(404, "WrongLibraryIdOrSecret"));
        }
        desk.count(|counts| counts.acquisitions += 1);
        let mut tokens = self.tokens.lock().unwrap();
        let family = tokens.family();
        let lives = self.lives(query.get("period"));
        let token = tokens.access.mint("access", family, lives);
        *self.last_query.lock().unwrap() = query;
        Ok(granted(&token, lives))
    }

    fn renew(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        let rest = asked.path.strip_prefix(TOKEN).unwrap_or_default();
        let (library, old) = match rest.split('/').collect::<Vec<_>>()[..] {
            ["", library, token] if !library.is_empty() && !token.is_empty() => (segment(library), segment(token)),
            ["", _] | ["", _, ""] => return Err(error(400, "EmptyAccessToken")),
            _ => return Err(not_found()),
        };
        if !asked.query.is_empty() || !asked.body.is_empty() {
            return Err(malformed());
        }
        let mut tokens = self.tokens.lock().unwrap();
        let Some(known) = tokens.access.get(&old).cloned().filter(|known| known.is_current()) else {
            let twice = tokens.access.get(&old).is_some_and(|known| known.spent);
            desk.count(|counts| counts.presented_twice += u64::from(twice));
            return Err(error(403, "InvalidAccessToken"));
        };
        if library != self.options.library_id {
            return Err(error(403, "AccessTokenNotMatchLibrary"));
        }
        desk.count(|counts| counts.renewals += 1);
        let token = match self.options.renewing {
            Renewing::Keeps => {
                tokens.access.extend(&old);
                old
            }
            Renewing::Changes => {
                tokens.access.spend(&old, self.options.old_access_grace);
                tokens.access.mint("access", known.family, known.lives)
            }
        };
        Ok(granted(&token, known.lives))
    }

    /// The period of a token, which every renewal applies again.
    fn lives(&self, period: Option<&str>) -> Duration {
        let seconds = period
            .and_then(|period| period.parse().ok())
            .filter(|seconds| *seconds > 0);
        let documented = Duration::from_secs(seconds.unwrap_or(86_400).max(1_200));
        self.options.lifetime.unwrap_or(documented)
    }
}

const TOKEN: &str = "/api/v1/token";

fn granted(token: &str, lives: Duration) -> Answer {
    Answer::json(200, &json!({"accessToken": token, "expiresIn": lives.as_secs()}))
}

fn error(status: u16, code: &str) -> Answer {
    let body = json!({
        "status": status,
        "code": code,
        "message": format!("test: {code}"),
        "requestId": request_id().to_lowercase(),
    });
    Answer::json(status, &body)
}

fn not_found() -> Answer {
    error(404, "RouteNotFound")
}

/// No documented client sends this, and no code is documented for it.
fn malformed() -> Answer {
    error(400, "InvalidArgument")
}

impl Vendor for SmhVendor {
    type Options = SmhOptions;

    fn new(options: SmhOptions) -> Self {
        Self {
            options,
            last_query: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    fn tokens(&self) -> &Mutex<Tokens> {
        &self.tokens
    }

    fn operation(&self, asked: &Asked) -> &'static str {
        match asked.path.strip_prefix(TOKEN) {
            Some("") if asked.method == "GET" => "Generate",
            Some(rest) if rest.starts_with('/') && asked.method == "POST" => "Renew",
            _ => "Unknown",
        }
    }

    fn process(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer> {
        match self.operation(asked) {
            "Generate" => self.generate(asked, desk),
            "Renew" => self.renew(asked, desk),
            _ => Err(not_found()),
        }
    }

    fn words(&self, _: &Asked, fault: &Fault) -> Answer {
        match fault {
            Fault::Throttle400 { .. } => error(429, "RateLimitExceeded"),
            Fault::Throttle429 { retry_after } => {
                error(429, "RateLimitExceeded").with("retry-after", retry_after.as_secs())
            }
            Fault::NoPermission403 => error(403, "NoPermission"),
            Fault::Token403 => error(403, "InvalidAccessToken"),
            Fault::Unavailable503 => error(503, "ServerOverloaded"),
            Fault::EmptyToken200 => granted("", Duration::from_secs(86_400)),
            _ => Answer::json(200, &json!({"expiresIn": 86_400})),
        }
    }

    fn presented(&self, asked: &Asked) -> Option<String> {
        let query = asked.query();
        let token = query.get("access_token").or_else(|| asked.bearer());
        token.map(String::from)
    }

    fn unauthorized(&self) -> Answer {
        error(403, "InvalidAccessToken")
    }

    fn forbidden(&self) -> Answer {
        error(403, "NoPermission")
    }

    fn used(&self, tokens: &mut Tokens, token: &str) {
        // A replaced one in its grace is not to live on.
        let current = tokens.access.get(token).is_some_and(|known| known.is_current());
        if self.options.sliding && current {
            tokens.access.extend(token);
        }
    }

    fn issue(&self) {
        let mut tokens = self.tokens.lock().unwrap();
        let family = tokens.family();
        tokens.access.mint("access", family, self.lives(None));
    }
}
