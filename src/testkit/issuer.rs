//! The issuer: what a test holds of it, sets on it and reads from it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Number, Value};
use tokio::time::Instant;

use super::credentials::Client;
use super::exchange::IssuerService;
use super::fault::Fault;
use super::ledger::{Ledger, Sighting, Standing, Terms};
use super::server::Server;
use super::visit::Holder;

const CLIENT_ID: &str = "test-client";
const CLIENT_SECRET: &str = "test-secret";

/// An OAuth 2.0 issuer with strict rotation, scripted faults and a count of what reached it.
///
/// A clone is another handle on the same issuer. Every setting can be changed at any time and
/// holds for what happens from then on. See the [module docs](super) for an example.
///
/// Its one route is `POST /token`, with the grants `refresh_token` and `client_credentials`.
/// Clients authenticate with HTTP Basic (both parts form-encoded, RFC 6749 §2.3.1), with
/// `client_id` and `client_secret` in the form, or, if public, with `client_id` alone.
#[derive(Clone)]
pub struct Issuer {
    shared: Arc<Shared>,
}

impl Issuer {
    /// An issuer with one client, rotation on and no grace, minting tokens that live 60 s.
    #[must_use]
    pub fn new() -> Self {
        let client = Client::confidential(CLIENT_ID, CLIENT_SECRET);
        let state = State {
            rules: Rules::default(),
            clients: vec![client],
            ledger: Ledger::default(),
            timeline: Vec::new(),
            counts: IssuerCounts::default(),
            in_flight: HashMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                born: Instant::now(),
                state: Mutex::new(state),
            }),
        }
    }

    /// The id of the client every issuer knows: `test-client`.
    pub fn client_id(&self) -> &str {
        CLIENT_ID
    }

    /// The secret of the client every issuer knows: `test-secret`.
    pub fn client_secret(&self) -> &str {
        CLIENT_SECRET
    }

    /// Registers one more client, or gives a known one another secret.
    ///
    /// Any characters will do: it is the client's task to form-encode both before base64.
    pub fn client(&self, id: impl Into<String>, secret: impl Into<String>) -> &Self {
        self.register(Client::confidential(id, secret))
    }

    /// Registers a client without a secret. It may refresh, but not ask for tokens of its own.
    pub fn public_client(&self, id: impl Into<String>) -> &Self {
        self.register(Client::public(id))
    }

    /// The life of access tokens minted from now on. Default: 60 s.
    ///
    /// A token is alive while `now < minted + lifetime`, to the nanosecond of tokio's clock;
    /// [`expires_in`](Self::expires_in) is what the answer says about it.
    pub fn lifetime(&self, lifetime: Duration) -> &Self {
        self.set(|rules| rules.lifetime = lifetime)
    }

    /// What answers say as `expires_in`, true or not; `None` leaves the field out.
    ///
    /// Default: the lifetime in seconds, with a fraction if it is not a whole number.
    /// [`expires_in_default`](Self::expires_in_default) returns to that.
    pub fn expires_in(&self, value: Option<Value>) -> &Self {
        self.set(|rules| rules.expires_in = value.map_or(ExpiresIn::LeftOut, ExpiresIn::Says))
    }

    /// Answers say the lifetime as `expires_in` again.
    pub fn expires_in_default(&self) -> &Self {
        self.set(|rules| rules.expires_in = ExpiresIn::Lifetime)
    }

    /// Whether a refresh replaces the refresh token. Default: yes.
    ///
    /// While off, answers carry no `refresh_token` and the one presented is not used up.
    pub fn rotate(&self, rotate: bool) -> &Self {
        self.set(|rules| rules.rotate = rotate)
    }

    /// For how long after its rotation the previous refresh token is still good. Default: zero.
    ///
    /// Within it, presenting the previous token again mints one more pair. A token is the
    /// previous one until a successor of it is presented; grace never reaches back further.
    pub fn grace(&self, grace: Duration) -> &Self {
        self.set(|rules| rules.grace = grace)
    }

    /// How long the issuer takes before it acts on a token request. Default: zero.
    ///
    /// Faults come on top, so that a failing issuer can be a slow one too.
    pub fn latency(&self, latency: Duration) -> &Self {
        self.set(|rules| rules.latency = latency)
    }

    /// Queues a fault for one token request; the queue is first in, first out, by arrival.
    pub fn fault(&self, fault: Fault) -> &Self {
        self.set(|rules| rules.queue.push_back(fault))
    }

    /// The fault of every token request that finds no queued one; `None` ends it.
    pub fn fault_always(&self, fault: Option<Fault>) -> &Self {
        self.set(|rules| rules.always = fault)
    }

    /// Begins a family, as a user who signs in does, and returns its first refresh token.
    ///
    /// The family belongs to the client that redeems it first.
    pub fn sign_in(&self) -> String {
        self.state().ledger.begin_family()
    }

    /// Every access token alive now dies at once; refresh tokens live on.
    pub fn revoke_access(&self) -> &Self {
        self.state().ledger.revoke_access();
        self
    }

    /// Every family and every access token dies at once.
    ///
    /// [`sign_in`](Self::sign_in) begins new families, and clients may still ask for their own.
    pub fn revoke_all(&self) -> &Self {
        self.state().ledger.revoke_all();
        self
    }

    /// Whether an access token opens the API now.
    pub fn is_alive(&self, access_token: &str) -> bool {
        self.standing(access_token) == Standing::Alive
    }

    /// What the issuer knows about an access token now.
    pub fn standing(&self, access_token: &str) -> Standing {
        self.sighting(access_token, Instant::now()).standing
    }

    /// Whether a refresh token could be redeemed now. Asking is no presentation.
    pub fn is_redeemable(&self, refresh_token: &str) -> bool {
        let state = self.state();
        state
            .ledger
            .is_redeemable(refresh_token, state.rules.grace, Instant::now())
    }

    /// What reached the issuer so far.
    pub fn counts(&self) -> IssuerCounts {
        let state = self.state();
        IssuerCounts {
            presented_twice: state.ledger.presented_twice,
            reuse: state.ledger.reuse,
            ..state.counts
        }
    }

    /// Every access token minted so far, oldest first.
    pub fn timeline(&self) -> Vec<Issued> {
        self.state().timeline.clone()
    }

    /// Every presentation of a refresh token so far, oldest first, whatever came of it.
    ///
    /// What this issuer never minted is left out.
    pub fn presentations(&self) -> Vec<Presented> {
        let state = self.state();
        let presented = state.ledger.presented.iter().map(|sight| Presented {
            at: self.age(sight.at),
            token: sight.token,
            times: sight.times,
        });
        presented.collect()
    }

    /// The issuer as a tower service, for requests with any body.
    pub fn service(&self) -> IssuerService {
        IssuerService::new(self.clone())
    }

    /// Serves the issuer on a free port of `127.0.0.1`, over HTTP/1.1 and HTTP/2.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no port to give.
    pub async fn serve(&self) -> io::Result<Server> {
        self.serve_at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Serves the issuer at an address, such as that of a server that was [stopped](Server::stop).
    ///
    /// # Errors
    ///
    /// The operating system's, if the address is taken or is not this machine's.
    pub async fn serve_at(&self, addr: SocketAddr) -> io::Result<Server> {
        Server::start(addr, self.service()).await
    }

    /// Nothing may wait or drop a [`Visit`](super::visit::Visit) while it holds this lock.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn age(&self, now: Instant) -> Duration {
        now.duration_since(self.shared.born)
    }

    pub(super) fn sighting(&self, access_token: &str, arrived: Instant) -> Sighting {
        self.state().ledger.sighting(access_token, arrived)
    }

    fn set(&self, change: impl FnOnce(&mut Rules)) -> &Self {
        change(&mut self.state().rules);
        self
    }

    fn register(&self, client: Client) -> &Self {
        let mut state = self.state();
        state.clients.retain(|known| known.id != client.id);
        state.clients.push(client);
        drop(state);
        self
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// What reached an [`Issuer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuerCounts {
    /// `POST /token`, whatever became of it.
    pub token_requests: u64,
    /// Token requests that minted an access token, whether or not the answer arrived.
    pub granted: u64,
    /// Token requests that were answered with an OAuth error of the issuer's own.
    pub refused: u64,
    /// Token requests that met a fault.
    pub faulted: u64,
    /// Requests for anything but `POST /token`.
    pub other_requests: u64,
    /// How often a refresh token that was used up already was presented, whatever the outcome.
    pub presented_twice: u64,
    /// Presentations of a used token, beyond the grace, that killed its family.
    pub reuse: u64,
    /// Token requests under way, until the last byte of the answer is read.
    pub in_flight: u64,
    /// The most token requests that were ever under way at once.
    pub max_in_flight: u64,
    /// The same for one family of refresh tokens, or one client's own tokens.
    pub max_in_flight_per_grant: u64,
    /// Bytes of answers to token requests that were taken from the issuer. A server takes more
    /// than the client reads: what fits the buffers between them.
    pub answer_bytes: u64,
}

/// One access token as it was minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Issued {
    /// When, since the issuer was made.
    pub at: Duration,
    /// What it was minted for.
    pub grant: Grant,
    /// Its life.
    pub expires_after: Duration,
    /// Whether a new refresh token came with it.
    pub rotated: bool,
}

/// One presentation of a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presented {
    /// When the issuer acted on it, since the issuer was made.
    pub at: Duration,
    /// Which one: they are numbered as they are minted, from 1.
    pub token: u64,
    /// How often that one was presented by now: 1 is the first time.
    pub times: u64,
}

/// The grant types of an [`Issuer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Grant {
    /// `refresh_token`, RFC 6749 §6.
    RefreshToken,
    /// `client_credentials`, RFC 6749 §4.4.
    ClientCredentials,
}

// ===== What is behind the lock =====

struct Shared {
    born: Instant,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) rules: Rules,
    pub(super) clients: Vec<Client>,
    pub(super) ledger: Ledger,
    pub(super) timeline: Vec<Issued>,
    /// Without `presented_twice` and `reuse`, which the ledger counts.
    pub(super) counts: IssuerCounts,
    pub(super) in_flight: HashMap<Holder, u64>,
}

pub(super) struct Rules {
    lifetime: Duration,
    expires_in: ExpiresIn,
    rotate: bool,
    grace: Duration,
    pub(super) latency: Duration,
    queue: VecDeque<Fault>,
    always: Option<Fault>,
}

enum ExpiresIn {
    Lifetime,
    LeftOut,
    Says(Value),
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(60),
            expires_in: ExpiresIn::Lifetime,
            rotate: true,
            grace: Duration::ZERO,
            latency: Duration::ZERO,
            queue: VecDeque::new(),
            always: None,
        }
    }
}

impl Rules {
    pub(super) fn terms(&self) -> Terms {
        Terms {
            lifetime: self.lifetime,
            rotate: self.rotate,
            grace: self.grace,
        }
    }

    pub(super) fn next_fault(&mut self) -> Option<Fault> {
        self.queue.pop_front().or_else(|| self.always.clone())
    }

    pub(super) fn says_expires_in(&self) -> Option<Value> {
        match &self.expires_in {
            ExpiresIn::LeftOut => None,
            ExpiresIn::Says(value) => Some(value.clone()),
            ExpiresIn::Lifetime if self.lifetime.subsec_nanos() == 0 => Some(self.lifetime.as_secs().into()),
            ExpiresIn::Lifetime => Number::from_f64(self.lifetime.as_secs_f64()).map(Value::Number),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expires_in_tells_the_lifetime_unless_told_otherwise() {
        let issuer = Issuer::new();
        let says = || issuer.state().rules.says_expires_in();
        assert_eq!(says(), Some(json!(60)));
        issuer.lifetime(Duration::from_millis(1500));
        assert_eq!(says(), Some(json!(1.5)));
        issuer.expires_in(Some(json!("soon")));
        assert_eq!(says(), Some(json!("soon")));
        issuer.expires_in(None);
        assert_eq!(says(), None);
        issuer.expires_in_default();
        assert_eq!(says(), Some(json!(1.5)));
    }

    #[test]
    fn queued_faults_come_first_and_in_order() {
        let issuer = Issuer::new();
        issuer
            .fault_always(Some(Fault::Hang))
            .fault(Fault::Status(500))
            .fault(Fault::Garbage);
        let next = || issuer.state().rules.next_fault();
        assert_eq!(next(), Some(Fault::Status(500)));
        assert_eq!(next(), Some(Fault::Garbage));
        assert_eq!(next(), Some(Fault::Hang));
        assert_eq!(next(), Some(Fault::Hang));
        issuer.fault_always(None);
        assert_eq!(next(), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let issuer = Issuer::new();
        issuer.client("odd", "canary");
        let shown = format!("{issuer:?} {:?}", issuer.service());
        assert!(!shown.contains("canary") && !shown.contains(CLIENT_SECRET), "{shown}");
    }

    #[test]
    fn the_handle_goes_wherever_it_is_needed() {
        fn assert_shared<T: Clone + Send + Sync + Unpin + 'static>() {}
        assert_shared::<Issuer>();
        assert_shared::<IssuerService>();
    }
}
