//! The process that renews is stopped in the middle of it, and goes on when others have long taken over.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{interval, sleep, timeout};
use tower_token::testkit::Fault;
use tower_token::{BoxError, TokenStore};

use crate::accidents::between;
use crate::command_line::{Flags, duration, spans};
use crate::facts::{Fact, Moment};
use crate::place::Place;
use crate::redis_server::RedisServer;
use crate::stage::{Plan, Stage};
use crate::target::{Target, span};

#[derive(Clone)]
struct Scheme {
    rounds: usize,
    processes: usize,
    pause: (Duration, Duration),
    lease: Duration,
    seed: u64,
    url: String,
}

pub(super) async fn pauses(flags: &mut Flags) -> Result<Vec<Target>, BoxError> {
    let rounds: usize = flags.value("rounds", 50)?;
    let fleets: usize = flags.value("fleets", 5)?;
    let server = RedisServer::start().await?;
    let scheme = Scheme {
        rounds: rounds.div_ceil(fleets),
        processes: flags.value("processes", 4)?,
        pause: spans(&flags.value("pause", String::from("3s..30s"))?)?,
        lease: duration(&flags.value("lease", String::from("45s"))?)?,
        seed: flags.value("seed", fastrand::u64(..))?,
        url: server.url(),
    };
    println!("seed {}", scheme.seed);
    let fleets: Vec<_> = (0..fleets)
        .map(|fleet| tokio::spawn(one_fleet(scheme.clone(), fleet)))
        .collect();
    let mut all = Outcome::default();
    for fleet in fleets {
        all.add(fleet.await??);
    }
    let what = format!(
        "the holder stopped for {}..{}, lease {}",
        span(scheme.pause.0),
        span(scheme.pause.1),
        span(scheme.lease)
    );
    println!("{}", all.told);
    Ok(vec![
        Target::new(
            format!("{what}: rounds"),
            format!(">= {rounds}"),
            all.rounds,
            all.rounds >= rounds,
        ),
        Target::stated(
            format!("{what}: stopped before, during, after the exchange"),
            format!("{:?}", all.phases),
        ),
        Target::exactly(format!("{what}: the stored generation went back"), 0, all.went_back),
        Target::stated(format!("{what}: looks at the store"), all.looks),
        Target::exactly(format!("{what}: presented twice"), 0, all.presented_twice),
        Target::stated(format!("{what}: sessions ended by it"), all.reuse),
    ])
}

#[derive(Default)]
struct Outcome {
    rounds: usize,
    /// Before the refresh token was sent, until the new one was saved, and after that.
    phases: [usize; 3],
    looks: usize,
    went_back: usize,
    presented_twice: u64,
    reuse: u64,
    told: String,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.rounds += other.rounds;
        for (all, one) in self.phases.iter_mut().zip(other.phases) {
            *all += one;
        }
        self.looks += other.looks;
        self.went_back += other.went_back;
        self.presented_twice += other.presented_twice;
        self.reuse += other.reuse;
        self.told += &other.told;
    }
}

async fn one_fleet(scheme: Scheme, fleet: usize) -> Result<Outcome, BoxError> {
    let mut random = Rng::with_seed(scheme.seed.wrapping_add(fleet as u64));
    let plan = Plan {
        processes: scheme.processes,
        lease: scheme.lease,
        ..Plan::at(Place::Redis {
            key: format!("tt:fleet:{fleet}"),
            url: scheme.url.clone(),
        })
    };
    let mut stage = Stage::set(plan).await?;
    // Each exchange takes up to 200 ms, before the issuer acts or after it.
    for _ in 0..5_000 {
        let delay = Duration::from_millis(random.u64(0..200));
        let before = random.bool();
        stage.issuer.fault(if before {
            Fault::DelayBefore(delay)
        } else {
            Fault::DelayAfter(delay)
        });
    }
    let looks = Arc::new(Looks::default());
    let reader = tokio::spawn(looks.clone().look(stage.plan.place.open()?));
    stage.start()?;
    let mut outcome = Outcome::default();
    // A round in which the pause came too late is played again.
    while outcome.rounds < scheme.rounds {
        if let Some(phase) = round(&stage, &scheme, &mut random).await? {
            outcome.rounds += 1;
            outcome.phases[phase] += 1;
        }
        if stage.issuer.counts().reuse > outcome.reuse {
            outcome.reuse = stage.issuer.counts().reuse;
            stage.sign_in_again().await?;
        }
    }
    let (moments, account) = stage.close().await?;
    reader.abort();
    outcome.looks = looks.looks.load(Ordering::Relaxed);
    outcome.went_back = looks.went_back.load(Ordering::Relaxed);
    outcome.presented_twice = account.issuer.presented_twice;
    outcome.told = second_presentations(fleet, &stage, &moments);
    Ok(outcome)
}

/// In which phase the holder was stopped; `None` if it was through already.
async fn round(stage: &Stage, scheme: &Scheme, random: &mut Rng) -> Result<Option<usize>, BoxError> {
    let chronicle = &stage.crew.chronicle;
    // A third each: between its look at the lease and the sending, anywhere, and about when it saves what it got.
    let (of, within) = match random.u8(0..3) {
        0 => (Fact::is_lease as fn(&Fact) -> bool, 8),
        1 => (Fact::is_lease as fn(&Fact) -> bool, 250),
        _ => (Fact::is_save as fn(&Fact) -> bool, 4),
    };
    let holder = timeout(STUCK, chronicle.next(move |moment| of(&moment.fact))).await;
    let holder = holder.map_err(|_| "nobody takes the lease any more")?.member;
    sleep(Duration::from_micros(random.u64(0..1_000 * within))).await;
    if !stage.crew.pause(holder) {
        return Ok(None);
    }
    // What it told before it stopped has arrived by then.
    sleep(Duration::from_millis(50)).await;
    let moments = chronicle.all();
    let mut last = moments.iter().rev().filter(|moment| moment.member == holder);
    let phase = last.find_map(|moment| match moment.fact {
        Fact::Released => Some(None),
        Fact::Leased(_) => Some(Some(0)),
        Fact::Presents => Some(Some(1)),
        // The intent is saved before the token is sent.
        Fact::Saved(_) => Some(Some(2 * usize::from(has_presented(&moments, holder)))),
        _ => None,
    });
    if let Some(Some(phase)) = phase {
        sleep(between(scheme.pause, random)).await;
        let saved = chronicle.next(|moment| matches!(moment.fact, Fact::Saved(_) | Fact::SessionLost));
        stage.crew.resume(holder);
        timeout(STUCK, saved)
            .await
            .map_err(|_| "the fleet does not come on after a pause")?;
        return Ok(Some(phase));
    }
    stage.crew.resume(holder);
    Ok(None)
}

/// Longer than any lease and any exchange here.
const STUCK: Duration = Duration::from_secs(120);

/// Since it took the lease.
fn has_presented(moments: &[Moment], member: usize) -> bool {
    let mut last = moments.iter().rev().filter(|moment| moment.member == member);
    last.find_map(|moment| match moment.fact {
        Fact::Presents => Some(true),
        Fact::Leased(_) => Some(false),
        _ => None,
    })
    .unwrap_or(false)
}

#[derive(Default)]
struct Looks {
    looks: AtomicUsize,
    went_back: AtomicUsize,
}

impl Looks {
    /// Every 5 ms.
    async fn look(self: Arc<Self>, store: Arc<dyn TokenStore>) {
        let (mut ticks, mut newest) = (interval(Duration::from_millis(5)), 0);
        loop {
            ticks.tick().await;
            // A look that fails saw nothing.
            let Ok(record) = store.load().await else { continue };
            let generation = record.map_or(0, |record| record.generation());
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.went_back
                .fetch_add(usize::from(generation < newest), Ordering::Relaxed);
            newest = newest.max(generation);
        }
    }
}

/// For each: who it was, how long after the first, and how long after its last look at the lease the token arrived.
fn second_presentations(fleet: usize, stage: &Stage, moments: &[Moment]) -> String {
    let presentations = stage.issuer.presentations();
    let mut told = String::new();
    for again in presentations.iter().filter(|presented| presented.times > 1) {
        let mut earlier = presentations.iter().rev();
        let earlier = earlier.find(|one| one.token == again.token && one.times < again.times);
        let after = earlier.map_or(Duration::ZERO, |one| again.at - one.at);
        let arrived = stage.time_of(again.at);
        let before = moments.iter().rev().filter(|moment| moment.at <= arrived);
        let Some(sent) = before.clone().find(|moment| moment.fact == Fact::Presents) else {
            continue;
        };
        let looked = before
            .filter(|moment| moment.member == sent.member && moment.at <= sent.at)
            .find(|moment| matches!(moment.fact, Fact::Leased(_) | Fact::Checked | Fact::Saved(_)));
        let window = looked.map_or(Duration::ZERO, |looked| arrived.since(looked.at));
        let _ = writeln!(
            told,
            "fleet {fleet}: refresh token {} presented again by member {}, {} after the last time; \
             {} after it last looked at the lease it reached the issuer",
            again.token,
            sent.member,
            span(after),
            span(window),
        );
    }
    told
}
