//! The API: a resource server that asks the issuer and counts what it is sent.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::issuer::Issuer;
use super::ledger::{Sighting, Standing};
use super::resource::ApiService;
use super::server::Server;

/// A resource server that accepts the tokens of one [`Issuer`].
///
/// A clone is another handle on the same API. See the [module docs](super) for an example.
///
/// | route | answer |
/// |---|---|
/// | `/api`, and anything below `/api/` | 200 for a token that is alive, else 401 with `Bearer error="invalid_token"` |
/// | `/echo` | the same, and the 200 carries the request's body |
/// | `/liar` | 401 with `Bearer error="invalid_token"`, always |
/// | `/bare401` | 401 without a challenge |
/// | `/basic401` | 401 with a Basic challenge only |
/// | `/forbidden` | 403 with `Bearer error="insufficient_scope"` |
/// | `/redirect?status=…&to=…` | that redirect (301 to 308, default 302) with `to` as `Location` (default `/api`) |
/// | anything else | 404 |
///
/// A token may come as `Authorization: Bearer`, in the query parameter `access_token`, in the
/// header `x-test-token` or in the cookie `access_token`; the first in this order is looked at.
/// Whether it is alive is judged at the moment the request arrives.
///
/// Each route reads the request's body to its end first. With `early=1` in the query, the answer
/// comes without a look at the body (`/echo` needs it and ignores that).
///
/// Two APIs make two origins: one that should never be sent a token shows that it was not with
/// [`ApiCounts::with_authorization`].
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

impl Api {
    /// An API that accepts what `issuer` mints.
    #[must_use]
    pub fn new(issuer: &Issuer) -> Self {
        let shared = Shared {
            issuer: issuer.clone(),
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// How long each answer takes. Default: zero.
    pub fn latency(&self, latency: Duration) -> &Self {
        self.state().latency = latency;
        self
    }

    /// Spreads 401s and 403s over this time, on top of the latency. Default: zero.
    ///
    /// The n-th refusal waits a share of it that depends on n alone, so that any run of refusals
    /// is spread evenly, and the same in each run. Setting it begins the sequence anew.
    pub fn refusal_spread(&self, spread: Duration) -> &Self {
        let mut state = self.state();
        state.spread = spread;
        state.refusals_spread = 0;
        drop(state);
        self
    }

    /// What reached the API so far.
    pub fn counts(&self) -> ApiCounts {
        let state = self.state();
        let max_deliveries = state.by_id.values().map(|tally| tally.deliveries).max();
        ApiCounts {
            max_deliveries: max_deliveries.unwrap_or(0),
            ..state.counts
        }
    }

    /// How often a request with this `x-request-id` arrived.
    pub fn deliveries(&self, request_id: &str) -> u64 {
        self.state().by_id.get(request_id).map_or(0, |tally| tally.deliveries)
    }

    /// How many request ids arrived more than `times`.
    pub fn delivered_more_than(&self, times: u64) -> usize {
        self.state()
            .by_id
            .values()
            .filter(|tally| tally.deliveries > times)
            .count()
    }

    /// How many request ids were authorized more than `times`.
    pub fn authorized_more_than(&self, times: u64) -> usize {
        self.state()
            .by_id
            .values()
            .filter(|tally| tally.authorized > times)
            .count()
    }

    /// The API as a tower service, for requests with any body.
    pub fn service(&self) -> ApiService {
        ApiService::new(self.clone())
    }

    /// Serves the API on a free port of `127.0.0.1`, over HTTP/1.1 and HTTP/2.
    ///
    /// # Errors
    ///
    /// The operating system's, if it has no port to give.
    pub async fn serve(&self) -> io::Result<Server> {
        self.serve_at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Serves the API at an address, such as that of a server that was [stopped](Server::stop).
    ///
    /// # Errors
    ///
    /// The operating system's, if the address is taken or is not this machine's.
    pub async fn serve_at(&self, addr: SocketAddr) -> io::Result<Server> {
        Server::start(addr, self.service()).await
    }

    /// Counts an arrival and judges its token.
    pub(super) fn arrive(&self, arrival: &Arrival) -> Option<Standing> {
        let now = Instant::now();
        let token = arrival.token.as_deref();
        let sighting = token.map(|token| self.shared.issuer.sighting(token, now));
        let mut state = self.state();
        state.counts.count(sighting, arrival.with_authorization);
        if let Some(tally) = state.tally(arrival) {
            tally.deliveries += 1;
        }
        sighting.map(|sighting| sighting.standing)
    }

    /// Counts a 200 for a valid token; how long it takes.
    pub(super) fn authorize(&self, arrival: &Arrival) -> Duration {
        let mut state = self.state();
        state.counts.authorized += 1;
        if let Some(tally) = state.tally(arrival) {
            tally.authorized += 1;
        }
        state.latency
    }

    /// Counts a 401 or 403; how long it takes.
    pub(super) fn refuse(&self) -> Duration {
        let mut state = self.state();
        state.counts.refused += 1;
        let spread = state.spread.mul_f64(share(state.refusals_spread));
        state.refusals_spread = state.refusals_spread.wrapping_add(1);
        state.latency.saturating_add(spread)
    }

    /// How long an answer takes that neither authorizes nor refuses.
    pub(super) fn pass(&self) -> Duration {
        self.state().latency
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// What reached an [`Api`], on whatever route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiCounts {
    /// Requests that arrived.
    pub requests: u64,
    /// 200s for a valid token.
    pub authorized: u64,
    /// 401s and 403s.
    pub refused: u64,
    /// Requests with a token past its expiry.
    pub expired_seen: u64,
    /// Requests with a token that was revoked within its lifetime.
    pub revoked_seen: u64,
    /// Requests with a token although a newer one of its family, or of its client, had been
    /// handed out: the last byte of the answer with it had been read before the request arrived.
    ///
    /// Not every one is a mistake. A request that was on its way when the newer token came, or
    /// that met it between its own look at the current token and its arrival, is counted too.
    /// In virtual time there is no way to travel: arrivals at the very instant are not counted.
    pub stale_seen: u64,
    /// Requests with a token this issuer never minted.
    pub unknown_seen: u64,
    /// Requests without a token in any of the four places.
    pub without_token: u64,
    /// Requests with any of: an `Authorization` header, a `Cookie` header, an `x-test-token`
    /// header, a query parameter `access_token`.
    pub with_authorization: u64,
    /// The most arrivals of one `x-request-id`.
    pub max_deliveries: u64,
}

impl ApiCounts {
    fn count(&mut self, sighting: Option<Sighting>, with_authorization: bool) {
        self.requests += 1;
        self.with_authorization += u64::from(with_authorization);
        let Some(sighting) = sighting else {
            self.without_token += 1;
            return;
        };
        self.stale_seen += u64::from(sighting.stale);
        match sighting.standing {
            Standing::Alive => {}
            Standing::Expired => self.expired_seen += 1,
            Standing::Revoked => self.revoked_seen += 1,
            Standing::Unknown => self.unknown_seen += 1,
        }
    }
}

/// What counts of a request.
pub(super) struct Arrival {
    pub(super) request_id: Option<String>,
    pub(super) token: Option<String>,
    pub(super) with_authorization: bool,
}

// ===== What is behind the lock =====

struct Shared {
    issuer: Issuer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    latency: Duration,
    spread: Duration,
    /// Refusals since the spread was set.
    refusals_spread: u32,
    /// Without `max_deliveries`, which `by_id` knows.
    counts: ApiCounts,
    by_id: HashMap<String, Tally>,
}

#[derive(Default)]
struct Tally {
    deliveries: u64,
    authorized: u64,
}

impl State {
    fn tally(&mut self, arrival: &Arrival) -> Option<&mut Tally> {
        let id = arrival.request_id.as_ref()?;
        if !self.by_id.contains_key(id) {
            self.by_id.insert(id.clone(), Tally::default());
        }
        self.by_id.get_mut(id)
    }
}

/// The n-th multiple of the golden ratio without its whole part: evenly spread for any count.
fn share(n: u32) -> f64 {
    const GOLDEN: u32 = 0x9e37_79b9;
    f64::from(n.wrapping_mul(GOLDEN)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_run_of_refusals_is_spread_evenly() {
        for run in [10_u32, 100, 1_000] {
            let (from, to) = (7, 7 + run);
            let early = (from..to).filter(|n| share(*n) < 0.5).count();
            assert!(early.abs_diff(run as usize / 2) <= 2, "{early} of {run}");
            assert!((from..to).all(|n| (0.0..1.0).contains(&share(n))));
        }
    }

    #[test]
    fn the_handle_goes_wherever_it_is_needed() {
        fn assert_shared<T: Clone + Send + Sync + Unpin + 'static>() {}
        assert_shared::<Api>();
        assert_shared::<ApiService>();
    }
}
