//! Rules of a caller that leaves in the middle of a call.

use std::future::poll_fn;
use std::task::Poll;

use super::scene::{AGES, Handle, Scene, Wrong, difference, ensure, specimen, taken};
use crate::{Lease, Record, Saved, StoreError, StoreFuture};

pub(super) async fn a_dropped_save_is_whole(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let lease = taken(&here, AGES).await?;
    let mut cut = Cut::default();
    for polls in 0..CUTS {
        let expected = cut.look(&there).await?;
        let next = cut.next(expected);
        polled(here.save(&next, expected, &lease), polls).await.transpose()?;
        cut.look(&there).await?;
    }
    cut.whole(&here, &there, &lease).await
}

/// A lease that nobody knows of is in nobody's way for longer than its term.
pub(super) async fn a_dropped_lease_ends(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    for polls in 0..CUTS {
        let given = polled(here.lease(scene.term), polls).await;
        let done = given.is_some();
        let lease = match given.transpose()?.flatten() {
            Some(lease) => here.release(&lease).await.map(|()| None)?,
            None => Some(scene.taken_later(&there, scene.term).await?),
        };
        if let Some(lease) = lease {
            there.release(&lease).await?;
        }
        if done {
            break;
        }
    }
    Ok(())
}

/// What it came to within that many steps, after which it is dropped.
async fn polled<T>(mut call: StoreFuture<'_, T>, polls: u32) -> Option<Result<T, StoreError>> {
    let mut polled = 0;
    poll_fn(|cx| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        call.as_mut().poll(cx).map(Some)
    })
    .await
}

/// What was tried to save, and how far what is kept has come.
#[derive(Default)]
struct Cut {
    tried: Vec<Record>,
    latest: u64,
}

impl Cut {
    fn next(&mut self, expected: u64) -> Record {
        let next = specimen(expected + 1, &format!("attempt {}", self.tried.len()));
        self.tried.push(next.clone());
        next
    }

    /// What is kept is one of those that were tried, as it was, and not older than the last.
    async fn look(&mut self, store: &Handle) -> Result<u64, Wrong> {
        let Some(loaded) = store.load().await? else {
            ensure(self.latest == 0, || "nothing was loaded any more".into())?;
            return Ok(0);
        };
        let generation = loaded.generation();
        ensure(generation >= self.latest, || {
            format!("generation {generation} was loaded after {}", self.latest)
        })?;
        let mut of_its_generation = self.tried.iter().filter(|tried| tried.generation() == generation);
        let known = of_its_generation.any(|tried| difference(Some(&loaded), Some(tried)).is_none());
        ensure(known, || "what was loaded is nothing that was saved".into())?;
        self.latest = generation;
        Ok(generation)
    }

    /// A save that is waited for is kept. What was dropped before may be done late, so it may be overtaken, but not
    /// more often than something was dropped.
    async fn whole(mut self, here: &Handle, there: &Handle, lease: &Lease) -> Result<(), Wrong> {
        for _ in 0..=CUTS {
            let expected = self.look(there).await?;
            let next = self.next(expected);
            if here.save(&next, expected, lease).await? == Saved::Kept {
                return ensure(self.look(there).await? == expected + 1, || {
                    "a save after it was kept, and not loaded".into()
                });
            }
        }
        Err(Wrong(
            "no save was kept any more, each was `Overtaken` and nobody had saved".into(),
        ))
    }
}

/// A call is dropped after none, one, two and so on of its steps.
const CUTS: u32 = 40;
