//! A strict issuer, and processes that share a store: each is a `Tokens` of its own.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tower_token::testkit::MemoryStore;
use tower_token::{
    Clock, Event, FetchContext, FetchError, IfLost, RefreshPolicy, Secret, StorePolicy, Token, TokenProvider, Tokens,
    TokensBuilder,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const LIFE: Duration = Duration::from_secs(120);
pub(crate) const STAGE: Duration = Duration::from_millis(100);

/// What the first fetch [in slow motion](Scene::in_slow_motion) awaits, in its order; between two of them lies a [`STAGE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Awaits {
    Lease,
    Load,
    Intent,
    Issuer,
    Answer,
    /// Where nothing was kept before, it is read again.
    LoadAgain,
    Save,
    Release,
    Nothing,
}

impl Awaits {
    pub(crate) const ALL: [Self; 9] = [
        Self::Lease,
        Self::Load,
        Self::Intent,
        Self::Issuer,
        Self::Answer,
        Self::LoadAgain,
        Self::Save,
        Self::Release,
        Self::Nothing,
    ];

    /// Until a fetch that begins now awaits this.
    pub(crate) async fn reached(self) {
        sleep(STAGE * self as u32 + STAGE / 2).await;
    }

    /// The issuer has rotated, and the store does not know.
    pub(crate) fn is_between(self) -> bool {
        matches!(self, Self::Answer | Self::LoadAgain | Self::Save)
    }
}

/// Rotates at each exchange, and revokes the family when a spent refresh token is presented. It counts what reached it.
#[derive(Default)]
pub(crate) struct Issuer {
    state: Mutex<State>,
    exchanges: AtomicUsize,
    presented_again: AtomicUsize,
    in_the_air: AtomicUsize,
    most_in_the_air: AtomicUsize,
    on_its_way: AtomicU64,
    latency: AtomicU64,
}

#[derive(Default)]
struct State {
    /// By family, the number of the one that is good; those that are not in it begin with their first.
    good: HashMap<u64, u64>,
    revoked: HashSet<u64>,
    /// So many old ones are good as well.
    grace: u64,
    faults: Vec<Fault>,
    presented: Vec<(u64, Instant)>,
    issued: HashMap<u64, Instant>,
    /// It has no memory of what was spent: it says no, and revokes nothing.
    is_lenient: bool,
}

/// Each sign-in begins a family: its refresh tokens have the numbers from here on.
pub(crate) fn family(nth: u64) -> u64 {
    nth * FAMILY
}

const FAMILY: u64 = 10_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Committed, and the answer lost.
    LostAfter,
    /// The request was lost.
    LostBefore,
    Unavailable,
}

impl Issuer {
    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::SeqCst)
    }

    /// How often a refresh token was presented that had been presented before.
    pub(crate) fn presented_again(&self) -> usize {
        self.presented_again.load(Ordering::SeqCst)
    }

    pub(crate) fn takes(&self, latency: Duration) {
        self.latency.store(latency.as_millis() as u64, Ordering::SeqCst);
    }

    /// So long a request is on its way before it is committed.
    pub(crate) fn arrives_after(&self, latency: Duration) {
        self.on_its_way.store(latency.as_millis() as u64, Ordering::SeqCst);
    }

    /// What reached it, and when.
    pub(crate) fn presented(&self) -> Vec<(u64, Instant)> {
        self.state.lock().unwrap().presented.clone()
    }

    pub(crate) fn next(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    /// What was to go wrong with it does not any more.
    pub(crate) fn heals(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub(crate) fn grants_grace(&self) {
        self.state.lock().unwrap().grace = 1;
    }

    /// Says no to what was spent, and leaves the session alone.
    pub(crate) fn is_lenient(&self) {
        self.state.lock().unwrap().is_lenient = true;
    }

    /// How many exchanges there were at the same time, at most.
    pub(crate) fn most_in_the_air(&self) -> usize {
        self.most_in_the_air.load(Ordering::SeqCst)
    }

    /// Whether an access token of its own lives.
    pub(crate) fn is_alive(&self, secret: &str) -> bool {
        let number = secret.rsplit('-').next().unwrap().parse::<u64>().unwrap();
        self.state.lock().unwrap().issued[&number].elapsed() < LIFE
    }

    fn departs(&self) -> impl Drop + use<'_> {
        struct Aloft<'a>(&'a Issuer);
        impl Drop for Aloft<'_> {
            fn drop(&mut self) {
                self.0.in_the_air.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let aloft = self.in_the_air.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_the_air.fetch_max(aloft, Ordering::SeqCst);
        Aloft(self)
    }

    /// Ends the session of the first family.
    pub(crate) fn revokes(&self) {
        self.state.lock().unwrap().revoked.insert(family(0));
    }

    pub(crate) fn is_revoked(&self) -> bool {
        !self.state.lock().unwrap().revoked.is_empty()
    }

    /// Exchanges, and how many of them presented something again.
    pub(crate) fn counted(&self) -> (usize, usize) {
        (self.exchanges(), self.presented_again())
    }

    fn commit(&self, presented: u64) -> Result<u64, FetchError> {
        let mut state = self.state.lock().unwrap();
        state.presented.push((presented, Instant::now()));
        let family = presented / FAMILY * FAMILY;
        let good = *state.good.entry(family).or_insert(family);
        if presented < good {
            self.presented_again.fetch_add(1, Ordering::SeqCst);
        }
        if presented + state.grace < good && state.is_lenient {
            return Err(FetchError::terminal("the issuer does not know it").code("invalid_grant"));
        }
        if presented + state.grace < good {
            state.revoked.insert(family);
        }
        if state.revoked.contains(&family) || presented > good {
            return Err(FetchError::terminal("the issuer says no").code("invalid_grant"));
        }
        state.good.insert(family, presented + 1);
        state.issued.insert(presented + 1, Instant::now());
        Ok(presented + 1)
    }
}

/// One process's provider.
pub(crate) struct Grant {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) seed: u64,
    pub(crate) owner: &'static str,
    pub(crate) if_lost: IfLost,
    pub(crate) wire: Wire,
    /// How many exchanges one fetch may be made of.
    pub(crate) exchanges: u32,
    pub(crate) initial: Option<Token>,
}

/// A process's way to its issuer: cut off, nothing passes in either direction.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<watch::Sender<bool>>);

impl Wire {
    fn cut(&self, is_cut: bool) {
        self.0.send_replace(is_cut);
    }

    async fn passes(&self) {
        let _ = self.0.subscribe().wait_for(|is_cut| !is_cut).await;
    }
}

fn number(credential: &Value) -> u64 {
    let text = credential["refresh_token"].as_str().unwrap();
    text.rsplit('-').next().unwrap().parse().unwrap()
}

pub(crate) fn credential(number: u64) -> Value {
    json!({ "refresh_token": format!("test-refresh-{number}") })
}

impl TokenProvider for Grant {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        let presented = context.credential().map_or(self.seed, number);
        self.wire.passes().await;
        self.issuer.exchanges.fetch_add(1, Ordering::SeqCst);
        let _aloft = self.issuer.departs();
        let fault = {
            let mut state = self.issuer.state.lock().unwrap();
            (!state.faults.is_empty()).then(|| state.faults.remove(0))
        };
        let [on_its_way, latency] = [&self.issuer.on_its_way, &self.issuer.latency]
            .map(|millis| Duration::from_millis(millis.load(Ordering::SeqCst)));
        sleep(on_its_way).await;
        self.wire.passes().await;
        match fault {
            Some(Fault::LostBefore) => {
                sleep(latency).await;
                return Err(FetchError::transient("reset").lost());
            }
            Some(Fault::Unavailable) => return Err(FetchError::transient("503")),
            _ => {}
        }
        let committed = self.issuer.commit(presented);
        sleep(latency).await;
        self.wire.passes().await;
        if fault == Some(Fault::LostAfter) {
            return Err(FetchError::transient("reset").lost());
        }
        let next = committed?;
        Ok(Token::bearer(format!("test-access-{next}"))
            .expires_in(LIFE)
            .credential(credential(next)))
    }

    fn if_lost(&self) -> IfLost {
        self.if_lost
    }

    fn exchanges(&self) -> u32 {
        self.exchanges
    }

    fn initial(&self, _now: std::time::SystemTime) -> Option<Token> {
        self.initial.clone()
    }

    fn owner(&self) -> String {
        self.owner.into()
    }

    fn seed(&self) -> Option<Secret<Value>> {
        Some(Secret::new(credential(self.seed)))
    }
}

/// The issuer, the store, and one clock for all.
pub(crate) struct Scene {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) store: MemoryStore,
    pub(crate) clock: Clock,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self {
            issuer: Arc::default(),
            store: MemoryStore::new(),
            clock: Clock::of_tokio(),
        }
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant {
            issuer: self.issuer.clone(),
            seed: 0,
            owner: "the issuer, a client",
            if_lost: IfLost::ReplayOnce,
            wire: Wire::default(),
            exchanges: 1,
            initial: None,
        }
    }

    /// Every call of a store and each way to the issuer takes a tenth of a second, so that all that a fetch awaits lies
    /// one [`STAGE`] apart.
    pub(crate) fn in_slow_motion(&self, process: &Process) {
        process.store.delay(STAGE);
        self.issuer.arrives_after(STAGE);
        self.issuer.takes(STAGE);
    }

    /// The generations that were ever stored never went back.
    pub(crate) fn never_went_back(&self) -> bool {
        self.store.history().windows(2).all(|pair| pair[0].0 <= pair[1].0)
    }

    /// Another process.
    pub(crate) fn process(&self) -> Process {
        self.process_with(self.grant(), |builder| builder)
    }

    pub(crate) fn process_with(&self, grant: Grant, set: impl FnOnce(TokensBuilder) -> TokensBuilder) -> Process {
        let store = self.store.participant();
        let wire = grant.wire.clone();
        let told = Told::default();
        let log = told.clone();
        let builder = Tokens::builder(grant)
            .clock(self.clock.clone())
            .policy(RefreshPolicy::default().jitter(0.0))
            .store_policy(StorePolicy::default())
            .store(store.clone())
            .observe(move |event: &Event| log.note(event));
        let tokens = set(builder).build().unwrap();
        Process {
            tokens,
            store,
            told,
            wire,
        }
    }
}

/// One process.
pub(crate) struct Process {
    pub(crate) tokens: Tokens,
    pub(crate) store: MemoryStore,
    pub(crate) told: Told,
    wire: Wire,
}

impl Process {
    /// The world hears no more of it: what it asked for and was not done yet is never done, and its lease is not given
    /// back.
    pub(crate) fn kill(self) {
        self.stall();
    }

    /// Cut off from its store and its issuer.
    pub(crate) fn stall(&self) {
        self.wire.cut(true);
        self.store.hang();
    }

    pub(crate) fn resume(&self) {
        self.wire.cut(false);
        self.store.heal();
    }

    /// A caller that waits by itself.
    pub(crate) fn asks(&self) -> tokio::task::JoinHandle<Result<Token, tower_token::Error>> {
        tokio::spawn(self.tokens.get())
    }

    /// One that wants a new token, whatever is there.
    pub(crate) fn refreshes(&self) -> tokio::task::JoinHandle<Result<Token, tower_token::Error>> {
        let tokens = self.tokens.clone();
        tokio::spawn(async move { tokens.refresh().await })
    }

    pub(crate) async fn secret(&self) -> String {
        self.tokens.get().await.unwrap().secret().to_owned()
    }
}

/// The names of what was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn note(&self, event: &Event) {
        let name = format!("{event:?}");
        assert!(!name.contains("test-"), "a secret in {name}");
        let name = name.split([' ', '{', '(']).next().unwrap().to_owned();
        self.0.lock().unwrap().push(name);
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|told| *told == name).count()
    }
}
