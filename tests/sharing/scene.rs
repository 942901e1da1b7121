//! A strict issuer, and processes that share a store: each is a `Tokens` of its own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use tower_token::testkit::MemoryStore;
use tower_token::{
    Clock, Event, FetchContext, FetchError, IfLost, RefreshPolicy, Secret, StorePolicy, Token, TokenProvider, Tokens,
    TokensBuilder,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const LIFE: Duration = Duration::from_secs(120);

/// Rotates at each exchange, and revokes the family when a spent refresh token is presented. It counts what reached it.
#[derive(Default)]
pub(crate) struct Issuer {
    state: Mutex<State>,
    exchanges: AtomicUsize,
    presented_again: AtomicUsize,
    latency: AtomicU64,
}

#[derive(Default)]
struct State {
    /// The number of the one that is good.
    good: u64,
    is_revoked: bool,
    /// So many old ones are good as well.
    grace: u64,
    faults: Vec<Fault>,
}

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

    pub(crate) fn next(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    pub(crate) fn grants_grace(&self) {
        self.state.lock().unwrap().grace = 1;
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.state.lock().unwrap().is_revoked
    }

    fn commit(&self, presented: u64) -> Result<u64, FetchError> {
        let mut state = self.state.lock().unwrap();
        if presented < state.good {
            self.presented_again.fetch_add(1, Ordering::SeqCst);
        }
        if presented + state.grace < state.good {
            state.is_revoked = true;
        }
        if state.is_revoked || presented > state.good {
            return Err(FetchError::terminal("the issuer says no").code("invalid_grant"));
        }
        state.good = presented + 1;
        Ok(state.good)
    }
}

/// One process's provider.
pub(crate) struct Grant {
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) seed: u64,
    pub(crate) owner: &'static str,
    pub(crate) if_lost: IfLost,
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
        self.issuer.exchanges.fetch_add(1, Ordering::SeqCst);
        let fault = {
            let mut state = self.issuer.state.lock().unwrap();
            (!state.faults.is_empty()).then(|| state.faults.remove(0))
        };
        let latency = Duration::from_millis(self.issuer.latency.load(Ordering::SeqCst));
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
        }
    }

    /// Another process.
    pub(crate) fn process(&self) -> Process {
        self.process_with(self.grant(), |builder| builder)
    }

    pub(crate) fn process_with(&self, grant: Grant, set: impl FnOnce(TokensBuilder) -> TokensBuilder) -> Process {
        let store = self.store.participant();
        let told = Told::default();
        let log = told.clone();
        let builder = Tokens::builder(grant)
            .clock(self.clock.clone())
            .policy(RefreshPolicy::default().jitter(0.0))
            .store_policy(StorePolicy::default())
            .store(store.clone())
            .observe(move |event: &Event| log.note(event));
        let tokens = set(builder).build().unwrap();
        Process { tokens, store, told }
    }
}

/// One process: killed when it is dropped with its runtime's tasks left to themselves, so tests that kill use
/// [`kill`](Process::kill).
pub(crate) struct Process {
    pub(crate) tokens: Tokens,
    pub(crate) store: MemoryStore,
    pub(crate) told: Told,
}

impl Process {
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
        let name = name.split([' ', '{', '(']).next().unwrap().to_owned();
        self.0.lock().unwrap().push(name);
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|told| *told == name).count()
    }
}
