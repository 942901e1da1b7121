//! A token that a fleet shares: [`RedisStore`].

mod address;
mod line;
mod news;
mod refusal;
mod scripts;
mod trust;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue, Value, from_redis_value};
use zeroize::Zeroizing;

use self::address::Address;
use self::line::Line;
use self::scripts::{LEASE, RELEASE, RENEW, SAVE};
use self::trust::Trust;
use super::{Envelope, Lease, Record, Saved, StoreError, StoreFuture, TokenStore};
use crate::error::Faults;
use crate::token::Secret;

/// A record on a Redis server (6 or later, or one that speaks its protocol, such as Valkey), for a fleet that is one
/// client to its issuer.
///
/// ```
/// use tower_token::RedisStore;
///
/// let store = RedisStore::new("rediss://tower-token:password@cache.example.com:6379/0", "tt:my-app");
/// ```
///
/// One key is one token. One connection is kept, made by the first call and made anew after it broke or kept a call
/// waiting for longer than its [`timeout`](Self::timeout); a call is never repeated, because a save that was not
/// answered may have been made. What others save is published and heard at once over the same connection.
///
/// # What it keeps, and for how long
///
/// `{key}:record`, a hash without an end; `{key}:lease`, which ends with its term; `{key}:fence`, a counter; and the
/// channel `{key}:news`, which carries generations only. The braces are part of the names: they keep the keys in one
/// slot of a cluster. Of a cluster, the URL has to name the node that has the slot; with replicas, the primary: on a
/// replica a save is refused by name, but it is read what may be old.
///
/// A record is as durable as the server is told to make it. With `appendonly yes` and `appendfsync everysec` up to a
/// second of saves is lost with the machine, and a failover loses what the replica had not yet; whoever still knows
/// the newer token puts it back.
///
/// # The user that suffices
///
/// ```text
/// ACL SETUSER tower-token on >password resetkeys ~{tt:my-app}:* resetchannels &{tt:my-app}:* -@all
///     +eval +evalsha +hgetall +hmget +hset +exists +get +set +del +incr +pexpire +publish +subscribe
/// ```
///
/// on one line; for another database than 0 also `+select`. Channels (`&`) can be given since version 6.2.
pub struct RedisStore {
    address: Result<Address, &'static str>,
    key: String,
    envelope: Envelope,
    timeout: Duration,
    trust: Trust,
    names: Names,
    line: OnceLock<Arc<Line>>,
    /// Owners by whose names a lease was asked for, the last ones, that may have got it without our hearing of it. No
    /// [`Lease`] has such a name.
    lost: Mutex<VecDeque<String>>,
}

impl RedisStore {
    /// At `url`, `redis://user:password@host:port/database`, or `rediss://` for TLS; all but the host may be missing.
    /// Under `key`, which no other token may have: at most 200 bytes, without spaces, braces and what has a meaning in an
    /// ACL (`*?[]\`).
    ///
    /// Nothing is connected yet. [`TokensBuilder::build`](crate::TokensBuilder::build) names a `url` and a `key` that
    /// cannot work, and quotes neither.
    pub fn new(url: impl Into<Secret<String>>, key: impl Into<String>) -> Self {
        let key = key.into();
        Self {
            address: Address::parse(url.into().expose()),
            names: Names::of(&key),
            key,
            envelope: Envelope::plain(),
            timeout: Duration::from_secs(1),
            trust: Trust::default(),
            line: OnceLock::new(),
            lost: Mutex::default(),
        }
    }

    /// How a record is written. Default: [`Envelope::plain`], readable for whoever can read the server's memory, its files
    /// and its backups.
    #[must_use]
    pub fn envelope(mut self, envelope: Envelope) -> Self {
        self.envelope = envelope;
        self
    }

    /// How long each call may take, connecting included. Keep it below
    /// [`StorePolicy::patience`](crate::StorePolicy::patience), so that what went wrong is named.
    ///
    /// Default: 1 s. From 10 ms to a minute.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The certificates in PEM of the authorities that are trusted for `rediss://`. Default: those of the operating
    /// system, which are not trusted any longer then.
    #[must_use]
    pub fn ca_certificate(mut self, pem: impl Into<String>) -> Self {
        self.trust.roots = Some(pem.into());
        self
    }

    /// Our own certificate with its chain, and its private key, both in PEM, for a server that asks for one
    /// (`tls-auth-clients`). Default: none.
    #[must_use]
    pub fn client_certificate(mut self, chain: impl Into<String>, key: impl Into<Secret<String>>) -> Self {
        self.trust.ours = Some((chain.into(), key.into()));
        self
    }

    fn line(&self) -> Result<&Arc<Line>, StoreError> {
        let address = self.address.as_ref();
        let address = address.map_err(|advice| StoreError::unavailable(format!("`url` {advice}")))?;
        Ok(self.line.get_or_init(|| {
            let line = Line::new(address.clone(), self.trust.clone(), self.timeout, &self.names.channel);
            Arc::new(line)
        }))
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        let line = self.line()?;
        let looked = line.news.look();
        let answer = line
            .call()
            .await?
            .ask(redis::cmd("HGETALL").arg(&self.names.record))
            .await;
        looked();
        let foreign = || StoreError::unusable("what is kept is no record: the hash is not as this library writes it");
        let kept: HashMap<String, Vec<u8>> = from_redis_value(answer?).map_err(|_| foreign())?;
        if kept.is_empty() {
            return Ok(None);
        }
        let record = self.envelope.read(kept.get("body").ok_or_else(foreign)?)?;
        // Somebody put the one in the place of the other.
        let fits = kept.get("generation").map(Vec::as_slice) == Some(record.generation().to_string().as_bytes());
        if fits { Ok(Some(record)) } else { Err(foreign()) }
    }

    async fn save(&self, record: &Record, expected: u64, lease: &Lease) -> Result<Saved, StoreError> {
        let body = Zeroizing::new(self.envelope.write(record)?);
        let [expected, generation, fence] =
            [expected, record.generation(), lease.fence()].map(|number| number.to_string());
        let with = [&expected, &generation, &fence, &self.names.channel].map(|text| text.as_bytes());
        let with = [&with[..], &[body.as_slice()]].concat();
        let call = self.line()?.call().await?;
        let answer = call.run(&SAVE, &[&self.names.record], &with).await?;
        Ok(if read(answer)? { Saved::Kept } else { Saved::Overtaken })
    }

    async fn lease(&self, term: Duration) -> Result<Option<Lease>, StoreError> {
        let call = self.line()?.call().await?;
        // An id, and no secret: nobody but who may write there can say it.
        let owner = format!("{:032x}", fastrand::u128(..));
        let lost: Vec<String> = self.lost().iter().cloned().collect();
        let asked = Asked {
            store: self,
            owner: &owner,
            answered: false,
        };
        let term = millis(term);
        let mut with = vec![owner.as_bytes(), term.as_bytes()];
        with.extend(lost.iter().map(|owner| owner.as_bytes()));
        let keys = [&self.names.lease, &self.names.fence, &self.names.record].map(String::as_str);
        let answer = call.run(&LEASE, &keys, &with).await?;
        asked.end();
        let fence: Option<u64> = read(answer)?;
        Ok(fence.map(|fence| Lease::new(fence).owned_by(owner)))
    }

    async fn renew(&self, lease: &Lease, term: Duration) -> Result<bool, StoreError> {
        let term = millis(term);
        let with = [lease.owner().as_bytes(), term.as_bytes()];
        let call = self.line()?.call().await?;
        read(call.run(&RENEW, &[&self.names.lease], &with).await?)
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let with = [lease.owner().as_bytes()];
        let call = self.line()?.call().await?;
        call.run(&RELEASE, &[&self.names.lease], &with).await?;
        Ok(())
    }

    async fn watch(&self, seen: u64) -> Result<(), StoreError> {
        let line = self.line()?;
        let listen = || {
            let mut generation = redis::cmd("HMGET");
            generation.arg(&self.names.record).arg("generation");
            let listener = tokio::spawn(news::listen(line.clone(), generation));
            line.news.heard_by(listener.abort_handle());
        };
        line.news.other_than(seen, listen).await
    }

    fn lost(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenStore for RedisStore {
    fn load(&self) -> StoreFuture<'_, Option<Record>> {
        Box::pin(self.load())
    }

    fn save<'a>(&'a self, record: &'a Record, expected: u64, lease: &'a Lease) -> StoreFuture<'a, Saved> {
        Box::pin(self.save(record, expected, lease))
    }

    fn lease(&self, term: Duration) -> StoreFuture<'_, Option<Lease>> {
        Box::pin(self.lease(term))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, term: Duration) -> StoreFuture<'a, bool> {
        Box::pin(self.renew(lease, term))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, ()> {
        Box::pin(self.release(lease))
    }

    fn watch(&self, seen: u64) -> StoreFuture<'_, ()> {
        Box::pin(self.watch(seen))
    }

    fn check(&self, faults: &mut Faults) {
        if let Err(advice) = &self.address {
            faults.add("store.url", *advice);
        }
        if let Some(advice) = address::flaw(&self.key) {
            faults.add("store.key", advice);
        }
        if !TIMEOUTS.contains(&self.timeout) {
            faults.add(
                "store.timeout",
                format!("{:?} has to be from 10 ms to a minute", self.timeout),
            );
        }
        if let Some(Err(advice)) = self.trust.roots.as_deref().map(trust::roots) {
            faults.add("store.ca_certificate", advice);
        }
        if let Some(Err(advice)) = self.trust.ours.as_ref().map(|(chain, key)| trust::ours(chain, key)) {
            faults.add("store.client_certificate", advice);
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.as_ref().ok();
        f.debug_struct("RedisStore")
            .field("host", &address.map(|address| &address.host))
            .field("port", &address.map(|address| address.port))
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        if let Some(line) = self.line.get() {
            line.news.end();
        }
    }
}

fn read<T: FromRedisValue>(answer: Value) -> Result<T, StoreError> {
    from_redis_value(answer)
        .map_err(|_| StoreError::unavailable("a script was answered with something of another type"))
}

/// Milliseconds, at least one.
fn millis(term: Duration) -> String {
    term.as_millis().max(1).to_string()
}

const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

struct Names {
    record: String,
    lease: String,
    fence: String,
    channel: String,
}

impl Names {
    fn of(key: &str) -> Self {
        let named = |what: &str| format!("{{{key}}}:{what}");
        Self {
            record: named("record"),
            lease: named("lease"),
            fence: named("fence"),
            channel: named("news"),
        }
    }
}

// ===== impl Asked =====

/// A lease that is asked for. A server that hangs does later what it was asked for, when nobody waits for it any more:
/// such a lease would stop the fleet for its term, so whoever asked takes it for free the next time.
struct Asked<'a> {
    store: &'a RedisStore,
    owner: &'a str,
    answered: bool,
}

impl Asked<'_> {
    fn end(mut self) {
        self.answered = true;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let mut lost = self.store.lost();
            lost.push_back(self.owner.into());
            if lost.len() > LOST {
                lost.pop_front();
            }
        }
    }
}

/// How many names are remembered. To a server that hangs no more than one or two go: it does not greet us any more.
const LOST: usize = 16;
