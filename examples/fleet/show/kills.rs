//! kill -9 at any instant of a process that renews all the time, over a file.

use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tower_token::BoxError;

use super::full_disk::serial;
use crate::account::quantile;
use crate::command_line::Flags;
use crate::facts::{Fact, Moment, Time};
use crate::orders::Orders;
use crate::place::Place;
use crate::stage::{Plan, Stage};
use crate::target::{Target, span};

pub(super) async fn kills(flags: &mut Flags) -> Result<Vec<Target>, BoxError> {
    let rounds: usize = flags.value("rounds", 300)?;
    let seed = flags.value("seed", fastrand::u64(..))?;
    println!("seed {seed}");
    let strict = one("a strict issuer", Duration::ZERO, rounds, Rng::with_seed(seed));
    let graceful = one(
        "an issuer with 10 s of grace",
        Duration::from_secs(10),
        rounds,
        Rng::with_seed(!seed),
    );
    let (strict, graceful) = tokio::try_join!(strict, graceful)?;
    Ok(strict.into_iter().chain(graceful).collect())
}

#[derive(Default)]
struct Tally {
    /// The file could not be read, or was empty after something was in it.
    unreadable: usize,
    /// It held neither what was saved last nor what came after that.
    neither: usize,
    /// The newest token of the issuer was not in it.
    lost: usize,
    /// And the next process said so.
    reported: usize,
    /// And the next process went on all the same.
    recovered: usize,
    /// It had been begun with twice by then, so that nobody presents it again before a minute is over.
    begun_twice: usize,
    /// When somebody signed in last, as a number of moments.
    signed_in: usize,
    /// Of the refresh token that was lost, by the process that was killed and by the next one; the most.
    presented: u64,
    /// And by one more after that.
    presented_then: u64,
}

async fn one(what: &str, grace: Duration, rounds: usize, mut random: Rng) -> Result<Vec<Target>, BoxError> {
    let folder = TempDir::new()?;
    let mut stage = Stage::set(Plan {
        processes: 1,
        refresh_every: Some(Duration::from_millis(100)),
        ..Plan::at(Place::File(folder.path().join("token.json")))
    })
    .await?;
    stage.issuer.grace(grace);
    let mut tally = Tally::default();
    for _ in 0..rounds {
        round(&mut stage, &mut tally, &mut random).await?;
    }
    let (moments, account) = stage.close().await?;
    let windows = windows(&stage.minted(), &moments);
    let what = format!("{rounds} kills, {what}");
    let share = 100.0 * tally.lost as f64 / rounds as f64;
    Ok(vec![
        Target::exactly(format!("{what}: the file did not parse"), 0, tally.unreadable),
        Target::exactly(
            format!("{what}: it held neither the old nor the new, or less than was saved"),
            0,
            tally.neither,
        ),
        Target::stated(
            format!("{what}: died between commit and durable"),
            format!("{} ({share:.1} %)", tally.lost),
        ),
        if grace.is_zero() {
            Target::exactly(
                format!("{what}: of these told as ReauthRequired after the restart"),
                tally.lost,
                tally.reported,
            )
        } else {
            Target::exactly(
                format!(
                    "{what}: of these went on after the restart, without {} that two processes had died over",
                    tally.begun_twice
                ),
                tally.lost - tally.begun_twice,
                tally.recovered,
            )
        },
        Target::new(
            format!("{what}: presentations of a lost refresh token, with those of the next process"),
            "<= 2",
            tally.presented,
            tally.presented <= 2,
        ),
        Target::stated(
            format!("{what}: the same with those of one more, nobody having signed in"),
            tally.presented_then,
        ),
        Target::stated(format!("{what}: presented twice"), account.issuer.presented_twice),
        Target::stated(
            format!(
                "{what}: from the commit until durable, p50 and p99 of {}",
                windows.len()
            ),
            format!("{}, {}", span(quantile(&windows, 0.5)), span(quantile(&windows, 0.99))),
        ),
    ])
}

async fn round(stage: &mut Stage, tally: &mut Tally, random: &mut Rng) -> Result<(), BoxError> {
    let chronicle = stage.crew.chronicle.clone();
    let before = stage.issuer.timeline().len() as u64;
    let started = chronicle.next(|moment| moment.fact == Fact::Started);
    stage.crew.start(0, &stage.orders)?;
    timeout(STUCK, started)
        .await
        .map_err(|_| "the process does not start")?;
    sleep(Duration::from_micros(random.u64(0..400_000))).await;
    stage.crew.kill(0).await;

    // What it sent last may still be on its way.
    sleep(Duration::from_millis(20)).await;
    while stage.issuer.counts().in_flight > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let told = saved_last(&chronicle.all());
    let minted = stage.issuer.timeline().len() as u64;
    let record = match stage.kept().await {
        Ok(Some(record)) => record,
        Ok(None) if told == 0 && minted == before => return Ok(()),
        Ok(None) if told == 0 => return restart_after_a_loss(stage, tally).await,
        _ => {
            tally.unreadable += 1;
            return Ok(());
        }
    };
    tally.neither += usize::from(record.generation() != told && record.generation() != told + 1);
    if minted == before || record.token().map_or(0, |token| serial(token.secret())) == minted {
        return Ok(());
    }
    restart_after_a_loss(stage, tally).await
}

/// The refresh token that is kept was spent. The next process finds that out when it needs a new token, and says it or
/// goes on.
async fn restart_after_a_loss(stage: &mut Stage, tally: &mut Tally) -> Result<(), BoxError> {
    tally.lost += 1;
    let chronicle = stage.crew.chronicle.clone();
    let is_begun_twice = begun(&chronicle.all(), tally.signed_in) >= 2;
    let verdict = chronicle.next(|moment| matches!(moment.fact, Fact::SessionLost | Fact::Renewed));
    let unasked = Orders {
        refresh_every: None,
        ..stage.orders.clone()
    };
    stage.crew.start(0, &unasked)?;
    let verdict = timeout(STUCK, verdict).await;
    let verdict = verdict.map_err(|_| "a loss is neither told nor made good")?;
    // Whatever follows is not in a loop.
    sleep(Duration::from_secs(1)).await;
    stage.crew.kill(0).await;
    tally.presented = tally.presented.max(most_presented(stage));
    if verdict.fact == Fact::Renewed {
        tally.recovered += 1;
        return Ok(());
    }
    tally.reported += 1;
    tally.begun_twice += usize::from(is_begun_twice);
    stage.crew.start(0, &unasked)?;
    sleep(Duration::from_secs(3)).await;
    stage.crew.kill(0).await;
    tally.presented_then = tally.presented_then.max(most_presented(stage));
    stage.orders.seed = stage.issuer.sign_in();
    tally.signed_in = stage.crew.chronicle.all().len();
    Ok(())
}

/// How often it was noted that what is kept now is about to be presented, since somebody signed in.
fn begun(moments: &[Moment], signed_in: usize) -> usize {
    let kept = Fact::Saved(saved_last(moments));
    let saves = |moments: &[Moment]| moments.iter().filter(|moment| moment.fact == kept).count();
    let (before, since) = moments.split_at(signed_in);
    // The first of all put it there, but where nothing is kept.
    saves(since) - usize::from(kept != Fact::Saved(0) && saves(before) == 0)
}

/// Of the refresh token that was presented last.
fn most_presented(stage: &Stage) -> u64 {
    stage
        .issuer
        .presentations()
        .last()
        .map_or(0, |presented| presented.times)
}

const STUCK: Duration = Duration::from_secs(20);

fn saved_last(moments: &[Moment]) -> u64 {
    let saved = moments.iter().filter_map(|moment| match moment.fact {
        Fact::Saved(generation) => Some(generation),
        _ => None,
    });
    saved.max().unwrap_or(0)
}

/// From each commit until what came of it was saved by the process that asked for it; sorted.
fn windows(minted: &[Time], moments: &[Moment]) -> Vec<Duration> {
    let (mut windows, mut last, mut asked) = (Vec::new(), 0, None);
    for moment in moments {
        match moment.fact {
            Fact::Presents => asked = Some(moment.at),
            Fact::Killed => asked = None,
            // The next generation, and not a note on this one.
            Fact::Saved(generation) if generation > last => {
                last = generation;
                let before = minted.partition_point(|at| *at <= moment.at);
                let commit = before.checked_sub(1).map(|nth| minted[nth]);
                let commit = commit.filter(|commit| asked.take().is_some_and(|asked| asked <= *commit));
                windows.extend(commit.map(|commit| moment.at.since(commit)));
            }
            _ => {}
        }
    }
    windows.sort_unstable();
    windows
}
