//! Every store is held to the same rules, and each rule is broken once, to see that the suite names it.

#![cfg(feature = "testkit")]
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "stores/broken.rs"]
mod broken;

use std::collections::HashMap;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tower_token::testkit::{BrokenRules, MemoryStore, StoreSuite};
use tower_token::{Envelope, FileStore, TokenStore};

use broken::{BrokenStore, How};

/// What is kept in memory at each place.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<String, MemoryStore>>>);

impl Places {
    fn open(&self, place: String) -> MemoryStore {
        self.0.lock().unwrap().entry(place).or_default().participant()
    }
}

/// The suite for stores over those in memory.
fn suite<S: TokenStore>(store: impl Fn(MemoryStore) -> S + Send + Sync + 'static) -> StoreSuite {
    let places = Places::default();
    let spoiled = places.clone();
    let suite = StoreSuite::new(move |place| ready(store(places.open(place))));
    suite.spoiled_by(move |place| {
        spoiled.open(place).put_bytes("{");
        ready(())
    })
}

fn broken_in(how: How) -> StoreSuite {
    suite(move |memory| BrokenStore::new(memory, how))
}

async fn named(suite: StoreSuite) -> Vec<String> {
    let broken = suite.run().await.err();
    broken.iter().flat_map(BrokenRules::rules).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_every_rule() {
    suite(|memory| memory).run().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_breaks_no_rule() {
    let slow = |memory: MemoryStore| {
        memory.delay(Duration::from_millis(3));
        memory
    };
    suite(slow).run().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_leases_have_no_end_keeps_every_rule() {
    broken_in(How::LeasesLast).run().await.unwrap();
}

/// Leases that do not end, so that nothing is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_keeps_every_rule_on_many_threads() {
    tokio::spawn(broken_in(How::LeasesLast).run()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_keeps_every_rule() {
    files(Envelope::plain()).await.unwrap();
}

#[cfg(feature = "encryption")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_does_a_file_that_is_encrypted() {
    let key = tower_token::EncryptionKey::new([7; 32]);
    files(Envelope::sealed(key)).await.unwrap();
}

/// The suite over files in a folder, a file a place.
async fn files(envelope: Envelope) -> Result<(), BrokenRules> {
    let folder = tempfile::tempdir().unwrap();
    let (path, spoiled) = (folder.path().to_owned(), folder.path().to_owned());
    let suite = StoreSuite::new(move |place| ready(FileStore::new(path.join(place)).envelope(envelope.clone())));
    let suite = suite.spoiled_by(move |place| {
        std::fs::write(spoiled.join(place), "{").unwrap();
        ready(())
    });
    suite.run().await
}

#[tokio::test(start_paused = true)]
async fn every_rule_is_named_when_it_is_broken() {
    for (how, rule) in broken::HOW {
        let rules = named(broken_in(how)).await;
        assert!(rules.iter().any(|named| named == rule), "{how:?}: {rules:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_rule_is_without_a_store_that_breaks_it() {
    // One of which nothing works breaks them all.
    let all = named(broken_in(How::Fails)).await;
    for rule in &all {
        assert!(broken::HOW.iter().any(|(_, of)| of == rule), "{rule}");
    }
    for (how, rule) in broken::HOW {
        assert!(all.iter().any(|of| of == rule), "{how:?}: {rule}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_tells_of_nothing_is_a_store_as_well() {
    broken_in(How::WatchIsDeaf).watches(false).run().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_named_and_not_waited_for_without_end() {
    let begun = Instant::now();
    let rules = named(broken_in(How::Hangs)).await;
    assert_eq!(rules, named(broken_in(How::Fails)).await);
    assert!(begun.elapsed() <= Duration::from_secs(60) * u32::try_from(rules.len()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_is_printed_without_a_secret() {
    let broken = broken_in(How::LoadsTheLastButOne).run().await.unwrap_err();
    let printed = format!("{broken}");
    assert_eq!(printed, format!("{broken:?}"));
    assert!(
        printed.contains("\n- what is saved is what is loaded, whole, by every handle: "),
        "{printed}"
    );
    assert!(!printed.contains("test-"), "{printed}");
}
