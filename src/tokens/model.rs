//! The engine under many schedules: `shuttle` decides at every lock and atomic operation which thread goes
//! on, so that what happens once a year on eight cores happens here in a second.
//!
//! A scenario is two or three threads over the real engine and an [`Issuer`] that counts. [`check`] tries
//! it under the random scheduler and under PCT, [`exhaust`] under every schedule there is. What is modelled and
//! what is not: [`sync::modelled`](crate::sync::modelled). That the model can fail is shown by the planted
//! bugs in `tests/full/planted`.
//!
//! The schedules are the same in every run; `SHUTTLE_RANDOM_SEED` gives others, and
//! `TOWER_TOKEN_SCHEDULES=<number>` more of them than the default, which is for every day.

mod aborts;
mod flights;
mod landings;
mod leavings;
mod refusals;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use shuttle::future::{block_on, yield_now};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner, thread};

use super::*;
use crate::error::FetchError;
use crate::provider::{FetchContext, IfLost};
use crate::sync::modelled;

/// How many preemptions a bug may need that PCT is good at.
const DEPTH: usize = 3;
const SEED: u64 = 6749;
/// Far above what any scenario takes: beyond it somebody turns in a loop.
const STEPS: usize = 20_000;

const MINUTE: i64 = 60;
const HOUR: Duration = Duration::from_secs(3600);

// ===== the schedulers =====

pub(crate) fn check(scenario: fn()) {
    let schedules = schedules();
    explore("random", RandomScheduler::new_from_seed(SEED, schedules), scenario);
    explore("PCT", PctScheduler::new_from_seed(SEED, DEPTH, schedules), scenario);
}

/// How many of each scheduler.
fn schedules() -> usize {
    std::env::var("TOWER_TOKEN_SCHEDULES").map_or(1_000, |number| number.parse().expect("a number of schedules"))
}

/// Under every schedule: only for what is very small.
pub(crate) fn exhaust(scenario: fn()) {
    explore("DFS", DfsScheduler::new(None, false), scenario);
}

fn explore(scheduler: &'static str, schedules: impl Scheduler + 'static, scenario: fn()) {
    let tried = Arc::new(AtomicUsize::new(0));
    let _told = Told {
        scheduler,
        tried: tried.clone(),
    };
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    modelled::run(|| {
        Runner::new(schedules, config).run(move || {
            tried.fetch_add(1, Ordering::Relaxed);
            modelled::forget_tasks();
            scenario();
        })
    });
}

/// Says how many schedules it took.
struct Told {
    scheduler: &'static str,
    tried: Arc<AtomicUsize>,
}

impl Drop for Told {
    fn drop(&mut self) {
        let what = if std::thread::panicking() {
            "FAILED in schedule"
        } else {
            "schedules:"
        };
        let tried = self.tried.load(Ordering::Relaxed);
        eprintln!("model: {} {what} {tried}", self.scheduler);
    }
}

// ===== the issuer =====

/// A provider that counts what is in the air. Its own numbers are no part of the model.
struct Issuer {
    /// What becomes of which fetch, counted from one.
    answer: fn(usize) -> Answer,
    /// A first token that nobody fetches.
    configured: Option<Token>,
    fetches: AtomicUsize,
    aloft: AtomicUsize,
    /// The most that ever were in the air at once.
    crowd: AtomicUsize,
    /// Tokens of fetches up to this one are refused by everybody.
    revoked: AtomicUsize,
}

enum Answer {
    Token,
    Failure,
    Panic,
    /// It never comes.
    Silence,
}

struct Aloft<'a>(&'a Issuer);

impl Drop for Aloft<'_> {
    fn drop(&mut self) {
        self.0.aloft.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TokenProvider for Arc<Issuer> {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        let nth = self.fetches.fetch_add(1, Ordering::Relaxed) + 1;
        let crowd = self.aloft.fetch_add(1, Ordering::Relaxed) + 1;
        self.crowd.fetch_max(crowd, Ordering::Relaxed);
        let _aloft = Aloft(self);
        yield_now().await;
        let credential = context.credential().and_then(Value::as_str).unwrap_or("first");
        match (self.answer)(nth) {
            Answer::Token => Ok(Token::bearer(format!("test-{credential}-{nth}")).expires_in(HOUR)),
            Answer::Failure => Err(FetchError::transient("down")),
            Answer::Panic => modelled::panic_as_told(),
            Answer::Silence => std::future::pending().await,
        }
    }

    fn if_lost(&self) -> IfLost {
        IfLost::Idempotent
    }

    fn initial(&self, _: SystemTime) -> Option<Token> {
        self.configured.clone()
    }
}

impl Issuer {
    fn new(answer: fn(usize) -> Answer, configured: Option<Token>) -> Arc<Self> {
        Arc::new(Self {
            answer,
            configured,
            fetches: AtomicUsize::new(0),
            aloft: AtomicUsize::new(0),
            crowd: AtomicUsize::new(0),
            revoked: AtomicUsize::new(0),
        })
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::Relaxed)
    }

    /// What was fetched so far, and what is in the air, is good for nothing.
    fn revoke(&self) {
        self.revoked.store(self.fetches(), Ordering::Relaxed);
    }

    fn is_revoked(&self, token: &Token) -> bool {
        let nth = token.secret().rsplit('-').next().unwrap();
        nth.parse::<usize>().unwrap() <= self.revoked.load(Ordering::Relaxed)
    }
}

// ===== the rig =====

/// What every thread of a scenario has.
#[derive(Clone)]
struct Rig {
    tokens: Tokens,
    issuer: Arc<Issuer>,
    clock: Clock,
}

const HERE: Place = Place { origin: 1, route: None };

/// Nothing waits for a time to come: none comes.
fn policy() -> RefreshPolicy {
    RefreshPolicy::default().jitter(0.0).min_interval(Duration::ZERO)
}

impl Rig {
    fn new(answer: fn(usize) -> Answer) -> Self {
        Self::with(answer, |builder| builder)
    }

    fn with(answer: fn(usize) -> Answer, set: impl FnOnce(TokensBuilder) -> TokensBuilder) -> Self {
        Self::over(Issuer::new(answer, None), set)
    }

    /// With a token in place that took no fetch, so that every schedule can be tried of what happens to it.
    fn configured() -> (Self, Token) {
        let token = Token::bearer("test-configured-0").expires_in(HOUR);
        let rig = Self::over(Issuer::new(|_| Answer::Token, Some(token)), |builder| builder);
        let token = rig.tokens.current().unwrap();
        (rig, token)
    }

    fn over(issuer: Arc<Issuer>, set: impl FnOnce(TokensBuilder) -> TokensBuilder) -> Self {
        let clock = Clock::of_tokio();
        let builder = Tokens::builder(issuer.clone()).clock(clock.clone()).policy(policy());
        let tokens = set(builder).build().unwrap();
        Self { tokens, issuer, clock }
    }

    /// With a first token in place, which a server has accepted.
    fn warm(answer: fn(usize) -> Answer) -> (Self, Token) {
        let rig = Self::new(answer);
        let first = rig.get().unwrap();
        rig.tokens.engine().accept(first.generation().unwrap(), || HERE);
        (rig, first)
    }

    fn get(&self) -> Result<Token, Error> {
        block_on(self.tokens.get())
    }

    fn refuse(&self, token: &Token) -> Refusal {
        let generation = token.generation().unwrap();
        self.tokens.engine().refuse(generation, HERE, Challenge::none())
    }

    /// A request that carried `refused` comes back: it is renewed, and the token in place then is the answer.
    fn replay(&self, refused: &Token) -> Token {
        match self.refuse(refused) {
            Refusal::Replay => {}
            Refusal::Wait(landing) => assert!(matches!(block_on(landing), Landed::Published)),
            Refusal::HandBack(reason, _) => panic!("handed back: {reason:?}"),
        }
        let current = self.tokens.engine().in_place(self.tokens.engine().now());
        let token = current.expect("whoever wakes finds a token in place").token.clone();
        assert!(token.generation() > refused.generation(), "and it is a newer one");
        token
    }

    /// What the lock guards and what calls see without it say the same.
    fn is_coherent(&self) {
        let engine = self.tokens.engine();
        let desk = engine.desk();
        let usable = desk.usable(engine.now()).map(|current| current.generation);
        assert_eq!(
            engine.signal(),
            usable.map_or(0, Generation::get),
            "the signal names what may go out"
        );
        let in_place = engine.in_place(engine.now()).map(|current| current.generation);
        assert_eq!(in_place, usable, "and the cell holds it");
    }

    /// After everything: `fetches` were made, one at a time, and the air is free.
    fn made(&self, fetches: std::ops::RangeInclusive<usize>) {
        let made = self.issuer.fetches();
        assert!(fetches.contains(&made), "{made} fetches");
        assert!(self.issuer.crowd.load(Ordering::Relaxed) <= 1, "two in the air");
        self.is_coherent();
    }

    /// A thread that does this.
    fn spawn<T: Send + 'static>(&self, does: impl FnOnce(Rig) -> T + Send + 'static) -> thread::JoinHandle<T> {
        let rig = self.clone();
        thread::spawn(move || does(rig))
    }

    /// As many threads that do the same; what came of it.
    fn together<T: Send + 'static>(
        &self,
        threads: usize,
        does: impl FnOnce(Rig) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let threads: Vec<_> = (0..threads).map(|_| self.spawn(does.clone())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}
