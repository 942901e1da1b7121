//! Strict doubles of the vendors' token APIs, over HTTP on loopback.
//!
//! They are written from the vendors' documents and from requests of the vendors' own clients,
//! and check what comes in without any code of the crate: a client that only agrees with itself
//! fails here. What a vendor does not document is an option, and its default is the strict one.
//!
//! Each double counts; it keeps no request. The clock of lifetimes is the real one: sockets do
//! not follow a paused clock.

// Each test file uses its own part of this.
#![allow(dead_code, unused_imports, clippy::expect_used, clippy::unwrap_used)]

pub(crate) mod acs3;
pub(crate) mod alibaba;
pub(crate) mod huawei;
mod server;
pub(crate) mod tencent;
mod tokens;
pub(crate) mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;

use self::server::Server;
pub(crate) use self::tokens::{Live, Tokens};
use self::wire::Form;

// ===== Faults =====

/// What happens to a token request instead of its answer. Queued with [`Double::fault`]: each one
/// takes one request, whichever operation it is.
///
/// A fault is *unprocessed* unless it says otherwise: no token changes. The signature and the
/// nonce of the attempt are checked and counted all the same, since the attempt was sent.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// 400 `Throttling.User`, with `x-acs-retry-after` in milliseconds. Tencent says it with
    /// 429 `RateLimitExceeded` and no hint, Huawei with 400 and "System busy".
    Throttle400 { retry_after: Duration },
    /// 429 in the vendor's words, with `Retry-After` in whole seconds.
    Throttle429 { retry_after: Duration },
    /// 403: the caller may not, and no token would help.
    NoPermission403,
    /// 403: the token that was presented is dead. It is not: only this answer says so.
    Token403,
    /// 200 with every token an empty string.
    EmptyToken200,
    /// 200 without any token.
    MissingToken200,
    /// 502 from a proxy, in HTML.
    Html502,
    /// 200 from a captive portal, in HTML.
    Html200,
    /// **Processed**, then the connection is closed without a byte.
    LostAnswer,
    /// The connection is reset without a byte.
    ResetBefore,
    /// 307 to another listener, with path and query. Who follows it is counted in
    /// [`Counts::redirect_hits`].
    Redirect307,
    /// 200 with 64 MiB of JSON, streamed without a length.
    Huge,
    /// 200, then a byte a second, for ever.
    Drip,
    /// 503 in the vendor's words.
    Unavailable503,
    /// This status with a JSON body that means nothing.
    Status(u16),
    /// This status with an error in every vendor's shape, whose code and message are all that was sent: the
    /// target, the headers and the body.
    Echo(u16),
    /// **Processed**, then half of the answer, and the connection is closed.
    CutOff,
    /// **Processed** at once, answered so much later: a client that gives up before has lost an answer.
    Delay(Duration),
}

// ===== Counts =====

/// What a double saw since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Token requests by operation, whatever became of them. What no vendor has is `Unknown`.
    pub(crate) requests: BTreeMap<&'static str, u64>,
    /// Pairs or tokens that were replaced or extended. A renewal whose answer was lost counts.
    pub(crate) renewals: u64,
    /// First tokens that were handed out. An acquisition whose answer was lost counts.
    pub(crate) acquisitions: u64,
    /// Token requests that were refused, for whatever reason; faults are not among them.
    pub(crate) refused: u64,
    /// A refresh token, login token, keep-alive token or code that was presented after it had been
    /// exchanged for the next one.
    pub(crate) presented_twice: u64,
    /// Attempts with the nonce of an earlier attempt.
    pub(crate) nonce_reused: u64,
    /// Signatures that were missing, incomplete, of another key or wrong.
    pub(crate) signature_failures: u64,
    /// Attempts whose time was malformed or too far from the server's.
    pub(crate) clock_refusals: u64,
    /// Parameters that the operation does not have. They are ignored.
    pub(crate) unknown_parameters: u64,
    /// Business requests with a live token, forbidden ones among them.
    pub(crate) business_ok: u64,
    /// Business requests whose token was refused, or that had none.
    pub(crate) business_refused: u64,
    /// Those of the refused whose token was once a live one of this double.
    pub(crate) expired_presented: u64,
    /// Token requests under way, from the head of the request to the head of the answer.
    pub(crate) in_flight: u64,
    /// The most of them at a time.
    pub(crate) max_in_flight: u64,
    /// Requests that followed a [`Fault::Redirect307`].
    pub(crate) redirect_hits: u64,
}

impl Counts {
    /// Token requests of one operation.
    pub(crate) fn of(&self, operation: &str) -> u64 {
        self.requests.get(operation).copied().unwrap_or_default()
    }

    /// Token requests of every operation.
    pub(crate) fn token_requests(&self) -> u64 {
        self.requests.values().sum()
    }
}

// ===== A double =====

/// A vendor on a port, until it is dropped: [`alibaba::Imm`], [`alibaba::Ecd`], [`tencent::Smh`],
/// [`huawei::Huawei`].
pub(crate) struct Double<V: Vendor> {
    room: Arc<Room<V>>,
    server: Server,
}

impl<V: Vendor> Double<V> {
    pub(crate) async fn start(options: V::Options) -> Self {
        let vendor = V::new(options);
        let desk = Desk {
            clock_offset_secs: vendor.clock_offset_secs(),
            ..Desk::default()
        };
        let room = Arc::new(Room { vendor, desk });
        let server = Server::start(room.clone()).await;
        Self { room, server }
    }

    /// The origin, like `http://127.0.0.1:1234`, without a slash at its end.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.room.desk.counts.lock().unwrap().clone()
    }

    /// Queues a fault for the next token request that has none.
    pub(crate) fn fault(&self, fault: Fault) -> &Self {
        self.room.desk.faults.lock().unwrap().push_back(fault);
        self
    }

    /// Faults that no request has met.
    pub(crate) fn faults_left(&self) -> usize {
        self.room.desk.faults.lock().unwrap().len()
    }

    /// Forgets the faults that no request has met.
    pub(crate) fn no_more_faults(&self) {
        self.room.desk.faults.lock().unwrap().clear();
    }

    /// Kills every live access token. What renews them stays good, where that is another token.
    pub(crate) fn revoke(&self) {
        self.tokens().access.kill();
    }

    /// Kills every access token and everything that renews: only a first acquisition helps.
    pub(crate) fn kill_all(&self) {
        let mut tokens = self.tokens();
        tokens.access.kill();
        tokens.renew.kill();
    }

    /// What is live, newest first.
    pub(crate) fn now_serving(&self) -> Vec<Live> {
        self.tokens().live(|time| self.room.desk.time(time))
    }

    /// Hands out first tokens without a request, as if an earlier process had got them. Not counted.
    pub(crate) fn issue(&self) -> Live {
        self.room.vendor.issue();
        self.now_serving().swap_remove(0)
    }

    /// What this vendor alone has.
    pub(crate) fn vendor(&self) -> &V {
        &self.room.vendor
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, Tokens> {
        self.room.vendor.tokens().lock().unwrap()
    }
}

/// What tells one vendor from the others.
pub(crate) trait Vendor: Send + Sync + 'static {
    type Options: Default;

    fn new(options: Self::Options) -> Self;

    fn tokens(&self) -> &Mutex<Tokens>;

    /// The server's clock minus the real one.
    fn clock_offset_secs(&self) -> i64 {
        0
    }

    /// The name that a token request is counted by.
    fn operation(&self, asked: &Asked) -> &'static str;

    /// What holds for every attempt, those that meet a fault among them.
    fn authenticate(&self, _asked: &Asked, _desk: &Desk) -> Result<(), Answer> {
        Ok(())
    }

    fn process(&self, asked: &Asked, desk: &Desk) -> Result<Answer, Answer>;

    /// The same in the vendor's words, for those faults that are answers in JSON.
    fn words(&self, asked: &Asked, fault: &Fault) -> Answer;

    /// A business request of the vendor's own, beside `/business`.
    fn is_business(&self, _asked: &Asked) -> bool {
        false
    }

    /// The token of a business request.
    fn presented(&self, asked: &Asked) -> Option<String>;

    /// The answer to a business request whose token is refused.
    fn unauthorized(&self) -> Answer;

    /// The answer to a business request that no token would help.
    fn forbidden(&self) -> Answer;

    /// A business request was accepted.
    fn used(&self, _tokens: &mut Tokens, _token: &str) {}

    fn issue(&self);
}

/// A vendor, and what is written down there.
pub(crate) struct Room<V> {
    vendor: V,
    desk: Desk,
}

/// What every double has.
#[derive(Default)]
pub(crate) struct Desk {
    counts: Mutex<Counts>,
    faults: Mutex<VecDeque<Fault>>,
    clock_offset_secs: i64,
}

impl Desk {
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap());
    }

    /// The server's own clock.
    pub(crate) fn now(&self) -> SystemTime {
        self.time(SystemTime::now())
    }

    /// The server's time of a real one.
    pub(crate) fn time(&self, real: SystemTime) -> SystemTime {
        let offset = Duration::from_secs(self.clock_offset_secs.unsigned_abs());
        if self.clock_offset_secs < 0 {
            real - offset
        } else {
            real + offset
        }
    }
}

// ===== Messages =====

/// A request, read whole.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// As on the wire.
    pub(crate) path: String,
    /// As on the wire, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    /// The first value of a header, trimmed. `None` also if it is not UTF-8.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.headers.get(name)?.as_bytes())
            .ok()
            .map(str::trim)
    }

    pub(crate) fn query(&self) -> Form {
        Form::parse(&self.query)
    }

    /// The body, if it says that it is a form.
    pub(crate) fn form(&self) -> Form {
        let kind = self.header("content-type").unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Form::parse(&String::from_utf8_lossy(&self.body))
        } else {
            Form::default()
        }
    }

    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }

    /// What follows `/business` or `/api/business`.
    fn business(&self) -> Option<&str> {
        let path = self.path.strip_prefix("/api").unwrap_or(&self.path);
        let rest = path.strip_prefix("/business")?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

/// An answer of a few bytes.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        let kind = ("content-type", "application/json;charset=utf-8".into());
        Self {
            status,
            headers: vec![kind],
            body: Bytes::from(value.to_string()),
        }
    }

    fn html(status: u16) -> Self {
        Self {
            status,
            headers: vec![("content-type", "text/html".into())],
            body: Bytes::from_static(b"<html><body><h1>Not what you asked for</h1></body></html>"),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// `1CBAFFAB-B697-4049-A9B1-67E1FC5F0000`: five groups of upper hex.
pub(crate) fn request_id() -> String {
    let (high, low) = (fastrand::u64(..), fastrand::u64(..));
    let [one, two, three] = [high >> 32, high >> 16 & 0xffff, high & 0xffff];
    format!(
        "{one:08X}-{two:04X}-{three:04X}-{:04X}-{:012X}",
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}
