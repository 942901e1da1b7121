//! Rules of who may renew, for how long, and whose save counts.

use tokio::time::{Instant, sleep};

use super::scene::{
    AGES, Handle, Scene, Wrong, ensure, ensure_leased, ensure_loaded, kept, overtaken, released, specimen, taken,
};
use crate::Lease;

pub(super) async fn one_at_a_time(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    for (holder, other) in [(&here, &there), (&there, &here)] {
        let lease = taken(holder, AGES).await?;
        ensure_leased(other, "to another handle").await?;
        ensure_leased(holder, "to the same handle").await?;
        ensure_leased(&scene.handle().await, "to a new handle").await?;
        holder.release(&lease).await?;
    }
    taken(&here, AGES).await.map(drop)
}

pub(super) async fn numbers_grow(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let mut numbers = vec![released(&here).await?.fence(), released(&there).await?.fence()];

    let lease = taken(&here, AGES).await?;
    kept(&here, &specimen(1, "first"), 0, &lease).await?;
    here.release(&lease).await?;
    numbers.push(lease.fence());
    // One that saves nothing, and one after a restart.
    numbers.push(released(&here).await?.fence());
    numbers.push(released(&scene.handle().await).await?.fence());
    if let Some((first, second)) = scene.succeeded(&here, &there).await? {
        numbers.extend([first.fence(), second.fence()]);
    }
    ensure(numbers.is_sorted_by(|earlier, later| earlier < later), || {
        format!("leases had the numbers {numbers:?}, one after the other")
    })
}

pub(super) async fn a_term_ends(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    // Before the one was given, and after the other was: so far apart at least they have to be.
    let before = Instant::now();
    if scene.succeeded(&here, &there).await?.is_none() {
        return Ok(());
    }
    let (term, lasted) = (scene.term, before.elapsed());
    ensure(lasted >= term - term / 10, || {
        format!("a lease for {term:?} was given to another one after {lasted:?}")
    })
}

pub(super) async fn renewed_from_now_on(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let Some(lease) = renewed(&scene, &here).await? else {
        return Ok(());
    };
    sleep(2 * scene.term).await;
    ensure_leased(&there, "when its first term was over, but not the new one").await?;

    let before = Instant::now();
    ensure(here.renew(&lease, scene.term).await?, not_renewed)?;
    scene.taken_later(&there, scene.term).await?;
    let (term, lasted) = (scene.term, before.elapsed());
    ensure(lasted >= term - term / 10, || {
        format!("a lease renewed for {term:?} was given to another one after {lasted:?}")
    })
}

/// A lease for a short term that was renewed for a long one in time; `None` if it has no term.
async fn renewed(scene: &Scene, store: &Handle) -> Result<Option<Lease>, Wrong> {
    let mut term = scene.term;
    loop {
        let before = Instant::now();
        let lease = taken(store, term).await?;
        if store.renew(&lease, AGES).await? {
            return Ok((!lease.is_lasting()).then_some(lease));
        }
        // Somebody slow is not somebody wrong.
        ensure(before.elapsed() >= term, not_renewed)?;
        term *= 2;
    }
}

fn not_renewed() -> String {
    "its holder was told that it is not its holder's".into()
}

pub(super) async fn only_the_holder_renews(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let first = released(&here).await?;
    ensure(!here.renew(&first, AGES).await?, || {
        "it was, though it had been released".into()
    })?;
    let second = taken(&there, AGES).await?;
    not_any_more(&here, &first, "had been released and given to another").await?;
    there.release(&second).await?;
    if let Some((ended, _)) = scene.succeeded(&here, &there).await? {
        not_any_more(&here, &ended, "had ended and been given to another").await?;
    }
    Ok(())
}

async fn not_any_more(former: &Handle, lease: &Lease, why: &str) -> Result<(), Wrong> {
    ensure(!former.renew(lease, AGES).await?, || format!("it was, though it {why}"))
}

pub(super) async fn only_the_holder_releases(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let first = released(&here).await?;
    let second = taken(&there, AGES).await?;
    here.release(&first).await?;
    still_held(&here, &there, &second).await?;
    there.release(&second).await?;

    if let Some((ended, third)) = scene.succeeded(&here, &there).await? {
        here.release(&ended).await?;
        still_held(&here, &there, &third).await?;
    }
    Ok(())
}

async fn still_held(former: &Handle, holder: &Handle, lease: &Lease) -> Result<(), Wrong> {
    ensure_leased(former, "after its former holder had released it once more").await?;
    ensure(holder.renew(lease, AGES).await?, || {
        "a former holder's release took it from the next".into()
    })
}

pub(super) async fn a_later_save_fences(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let first = released(&here).await?;
    let second = taken(&there, AGES).await?;
    let record = specimen(1, "of the later lease");
    kept(&there, &record, 0, &second).await?;
    overtaken(&here, 1, &first, Some(&record)).await?;
    // Nor when nobody has the lease.
    there.release(&second).await?;
    overtaken(&here, 1, &first, Some(&record)).await?;

    let Some((ended, third)) = scene.succeeded(&here, &there).await? else {
        return Ok(());
    };
    // A note counts as a save.
    kept(&there, &record, 1, &third).await?;
    overtaken(&here, 1, &ended, Some(&record)).await?;
    kept(&there, &specimen(2, "of the last lease"), 1, &third).await
}

pub(super) async fn a_late_save_is_kept(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let Some((ended, _)) = scene.succeeded(&here, &there).await? else {
        return Ok(());
    };
    // What was renewed under it must not be lost.
    let late = specimen(1, "late");
    kept(&here, &late, 0, &ended).await?;
    ensure_loaded(&there, Some(&late)).await
}
