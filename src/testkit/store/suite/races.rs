//! Rules of what several do at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use super::scene::{AGES, Handle, Scene, Wrong, difference, ensure, ensure_loaded, kept, released, specimen, taken};
use crate::{Saved, StoreError, StoreFuture};

pub(super) async fn one_save_is_kept(scene: Scene) -> Result<(), Wrong> {
    let handles = scene.some(RACERS).await;
    for generation in 1..=ROUNDS {
        // The last one has the lease, those before it had one.
        let mut savers = Vec::with_capacity(RACERS);
        for (racer, handle) in handles.iter().enumerate() {
            let lease = if racer + 1 < RACERS {
                released(handle).await?
            } else {
                taken(handle, AGES).await?
            };
            savers.push((
                Arc::clone(handle),
                specimen(generation, &format!("racer {racer}")),
                Arc::new(lease),
            ));
        }
        let raced = savers.iter().cloned().map(|(handle, record, lease)| async move {
            let saved = handle.save(&record, generation - 1, &lease).await?;
            Ok(saved == Saved::Kept)
        });
        let answers = race(raced).await?;
        let winners: Vec<usize> = (0..RACERS).filter(|racer| answers[*racer]).collect();
        ensure(winners.len() == 1, || {
            format!(
                "of {RACERS} at a time, {} were told that generation {generation} is theirs",
                winners.len()
            )
        })?;
        ensure_loaded(&handles[0], Some(&savers[winners[0]].1)).await?;
        let (holder, _, lease) = &savers[RACERS - 1];
        holder.release(lease).await?;
    }
    Ok(())
}

pub(super) async fn one_lease_is_given(scene: Scene) -> Result<(), Wrong> {
    let handles = scene.some(RACERS).await;
    for _ in 0..ROUNDS {
        let wanted = handles
            .iter()
            .cloned()
            .map(|handle| async move { handle.lease(AGES).await });
        let mut leases = race(wanted).await?;
        let holders: Vec<usize> = (0..RACERS).filter(|racer| leases[*racer].is_some()).collect();
        ensure(holders.len() == 1, || {
            format!(
                "of {RACERS} at a time who wanted a lease that nobody had, {} got it",
                holders.len()
            )
        })?;
        if let Some(lease) = leases[holders[0]].take() {
            handles[holders[0]].release(&lease).await?;
        }
    }
    Ok(())
}

pub(super) async fn loads_are_whole(scene: Scene) -> Result<(), Wrong> {
    let (writer, reader) = scene.two().await;
    let lease = taken(&writer, AGES).await?;
    let done = Arc::new(AtomicU64::new(0));
    let saved = Arc::clone(&done);
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        for generation in 1..=GENERATIONS {
            kept(&writer, &specimen(generation, "written"), generation - 1, &lease).await?;
            saved.store(generation, Ordering::SeqCst);
        }
        Ok(())
    });
    let (mut latest, mut loads) = (0, 0);
    while latest < GENERATIONS {
        if let Some(ended) = writing.try_join_next() {
            ended.unwrap_or_else(|_| Err(Wrong("a save panicked".into())))?;
        }
        let least = latest.max(done.load(Ordering::SeqCst));
        let loaded = reader.load().await?;
        let generation = loaded.as_ref().map_or(0, |record| record.generation());
        ensure(generation >= least, || {
            format!("generation {generation} was loaded after {least}")
        })?;
        if loaded.is_some() {
            let wanted = specimen(generation, "written");
            difference(loaded.as_ref(), Some(&wanted)).map_or(Ok(()), |difference| Err(Wrong(difference)))?;
        }
        latest = generation;
        loads += 1;
        // Others have a go, and a clock that is paused goes on only when all wait.
        if loads % 16 == 0 {
            sleep(STEP).await
        } else {
            yield_now().await
        }
    }
    Ok(())
}

pub(super) async fn a_watch_resolves(scene: Scene) -> Result<(), Wrong> {
    let (writer, watcher) = scene.two().await;
    let lease = taken(&writer, AGES).await?;
    for generation in 1..=ROUNDS {
        let seen = generation - 1;
        // One that was given up takes nothing from the next.
        drop(timeout(Duration::ZERO, watcher.watch(seen)).await);
        let store = Arc::clone(&watcher);
        let watching = tokio::spawn(async move { something_else_than(&store, seen).await });
        // Sometimes it is there before it is watched for, mostly after.
        if generation % 4 != 0 {
            yield_now().await;
        }
        kept(&writer, &specimen(generation, "watched"), seen, &lease).await?;
        let watched = timeout(scene.deadline, watching).await;
        let watched = watched.map_err(|_| {
            let deadline = scene.deadline;
            Wrong(format!(
                "{deadline:?} after generation {generation} was saved, a watch for {seen} was still pending"
            ))
        })?;
        watched.unwrap_or_else(|_| Err(StoreError::unavailable("it panicked")))?;
    }
    Ok(())
}

/// It may resolve too early.
fn something_else_than(store: &Handle, seen: u64) -> StoreFuture<'_, ()> {
    Box::pin(async move {
        loop {
            store.watch(seen).await?;
            let generation = store.load().await?.map_or(0, |record| record.generation());
            if generation != seen {
                return Ok(());
            }
            sleep(STEP).await;
        }
    })
}

/// What each comes to, in tasks that begin at one time.
async fn race<T: Send + 'static>(
    racers: impl ExactSizeIterator<Item = impl Future<Output = Result<T, StoreError>> + Send + 'static>,
) -> Result<Vec<T>, Wrong> {
    let start = Arc::new(Barrier::new(racers.len()));
    let racing: Vec<_> = racers
        .map(|racer| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                racer.await
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(racing.len());
    for racer in racing {
        let answer = racer.await.map_err(|_| Wrong("a call panicked".into()))?;
        answers.push(answer?);
    }
    Ok(answers)
}

const RACERS: usize = 8;
const ROUNDS: u64 = 10;
const GENERATIONS: u64 = 100;
const STEP: Duration = Duration::from_millis(1);
