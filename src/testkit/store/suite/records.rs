//! Rules of what is loaded and saved by one after the other.

use super::scene::{
    AGES, Handle, Scene, Spoiler, Wrong, ensure, ensure_loaded, intent, kept, of_many_scripts, of_some_size, overtaken,
    specimen, taken, with_all_fields, with_no_field,
};
use crate::{Record, Saved};

pub(super) async fn nothing_is_none(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    ensure_loaded(&here, None).await?;
    // A lease is no record.
    let lease = taken(&here, AGES).await?;
    ensure_loaded(&there, None).await?;
    here.release(&lease).await?;
    ensure_loaded(&there, None).await
}

pub(super) async fn what_is_saved_is_loaded(scene: Scene) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let lease = taken(&here, AGES).await?;
    let records = [
        with_all_fields(1),
        with_no_field(2),
        of_many_scripts(3),
        of_some_size(4),
        // Shorter than what it replaces.
        specimen(5, "short"),
    ];
    for record in &records {
        kept(&here, record, record.generation() - 1, &lease).await?;
        for handle in [&here, &there, &scene.handle().await] {
            ensure_loaded(handle, Some(record)).await?;
        }
    }
    here.release(&lease).await?;
    ensure_loaded(&there, records.last()).await
}

pub(super) async fn only_the_expected_is_replaced(scene: Scene) -> Result<(), Wrong> {
    let store = scene.handle().await;
    let lease = taken(&store, AGES).await?;
    overtaken(&store, 1, &lease, None).await?;
    kept(&store, &specimen(1, "first"), 0, &lease).await?;
    let second = specimen(2, "second");
    kept(&store, &second, 1, &lease).await?;
    for expected in [0, 1, 3, 7] {
        overtaken(&store, expected, &lease, Some(&second)).await?;
    }
    kept(&store, &specimen(3, "third"), 2, &lease).await
}

pub(super) async fn zero_is_nothing(scene: Scene) -> Result<(), Wrong> {
    let store = scene.handle().await;
    let lease = taken(&store, AGES).await?;
    let zeroth = specimen(0, "zeroth");
    kept(&store, &zeroth, 0, &lease).await?;
    ensure_loaded(&store, Some(&zeroth)).await?;
    let first = specimen(1, "first");
    kept(&store, &first, 0, &lease).await?;
    overtaken(&store, 0, &lease, Some(&first)).await
}

pub(super) async fn the_generation_may_stay(scene: Scene) -> Result<(), Wrong> {
    let store = scene.handle().await;
    let lease = taken(&store, AGES).await?;
    let first = specimen(1, "first");
    kept(&store, &first, 0, &lease).await?;
    for times in 1..=2 {
        let noted = Record {
            intent: Some(intent(times)),
            ..first.clone()
        };
        kept(&store, &noted, 1, &lease).await?;
        ensure_loaded(&store, Some(&noted)).await?;
    }
    kept(&store, &first, 1, &lease).await?;
    ensure_loaded(&store, Some(&first)).await
}

pub(super) async fn what_is_spoiled_is_neither_used_nor_replaced(scene: Scene, spoiler: Spoiler) -> Result<(), Wrong> {
    let (here, there) = scene.two().await;
    let lease = taken(&here, AGES).await?;
    kept(&here, &specimen(1, "first"), 0, &lease).await?;
    scene.spoil(&spoiler).await;
    unusable(&there).await?;
    // As somebody would who takes it for nothing. An error will do as well.
    let saved = here.save(&specimen(1, "a blank"), 0, &lease).await;
    ensure(!matches!(saved, Ok(Saved::Kept)), || {
        "it was replaced by a save that expected nothing".into()
    })?;
    unusable(&here).await
}

async fn unusable(store: &Handle) -> Result<(), Wrong> {
    let loaded = store.load().await;
    ensure(loaded.is_err_and(|error| error.is_unusable()), || {
        "a load of it was no `StoreError::unusable`".into()
    })
}
