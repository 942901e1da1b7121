//! Where a rule is tried: a place of its own, handles on it, and what is saved there.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::store::{Intent, Standing};
use crate::{Lease, Record, Saved, Secret, StoreError, Token, TokenStore};

/// What one process has of a store.
pub(super) type Handle = Arc<dyn TokenStore>;

pub(super) type Opener = Arc<dyn Fn(String) -> Opening + Send + Sync>;

pub(super) type Spoiler = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

type Opening = Pin<Box<dyn Future<Output = Handle> + Send>>;

/// What was seen where the rule wants something else.
#[derive(Debug)]
pub(super) struct Wrong(pub(super) String);

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        Self(format!("it answered an error: {error}"))
    }
}

/// The verdict if `wanted` does not hold.
pub(super) fn ensure(wanted: bool, otherwise: impl FnOnce() -> String) -> Result<(), Wrong> {
    if wanted { Ok(()) } else { Err(Wrong(otherwise())) }
}

/// A place where nothing was ever kept.
pub(super) struct Scene {
    open: Opener,
    place: String,
    /// Of a lease whose end is waited for.
    pub(super) term: Duration,
    /// How late what must happen may be.
    pub(super) deadline: Duration,
}

impl Scene {
    pub(super) fn new(open: Opener, term: Duration, deadline: Duration) -> Self {
        let place = format!("store-suite-{:016x}", fastrand::u64(..));
        Self {
            open,
            place,
            term,
            deadline,
        }
    }

    pub(super) async fn spoil(&self, spoiler: &Spoiler) {
        spoiler(self.place.clone()).await;
    }

    pub(super) async fn handle(&self) -> Handle {
        (self.open)(self.place.clone()).await
    }

    pub(super) async fn two(&self) -> (Handle, Handle) {
        (self.handle().await, self.handle().await)
    }

    pub(super) async fn some(&self, number: usize) -> Vec<Handle> {
        let mut handles = Vec::with_capacity(number);
        while handles.len() < number {
            handles.push(self.handle().await);
        }
        handles
    }

    /// The lease of `first`, and the one that `second` got when that had ended; `None` if it does not end.
    pub(super) async fn succeeded(&self, first: &Handle, second: &Handle) -> Result<Option<(Lease, Lease)>, Wrong> {
        let lease = taken(first, self.term).await?;
        if lease.is_lasting() {
            first.release(&lease).await?;
            return Ok(None);
        }
        Ok(Some((lease, self.taken_later(second, self.term).await?)))
    }

    /// The lease that is in force for `term` at most, as soon as it is given to `store`.
    pub(super) async fn taken_later(&self, store: &Handle, term: Duration) -> Result<Lease, Wrong> {
        let latest = Instant::now() + term + self.deadline;
        loop {
            if let Some(lease) = store.lease(AGES).await? {
                return Ok(lease);
            }
            ensure(Instant::now() < latest, || {
                format!(
                    "a lease for {term:?} was still in force {:?} after its end",
                    self.deadline
                )
            })?;
            sleep(self.term / 20).await;
        }
    }
}

/// The lease, which nobody has.
pub(super) async fn taken(store: &Handle, term: Duration) -> Result<Lease, Wrong> {
    let lease = store.lease(term).await?;
    lease.ok_or_else(|| Wrong("the lease was not given, though nobody had it".into()))
}

/// A lease that was given and released, so that it is its holder's no more.
pub(super) async fn released(store: &Handle) -> Result<Lease, Wrong> {
    let lease = taken(store, AGES).await?;
    store.release(&lease).await?;
    Ok(lease)
}

/// That somebody has the lease.
pub(super) async fn ensure_leased(store: &Handle, after: &str) -> Result<(), Wrong> {
    let lease = store.lease(AGES).await?;
    ensure(lease.is_none(), || {
        format!("{after}, the lease was given while somebody else had it")
    })
}

pub(super) async fn kept(store: &Handle, record: &Record, expected: u64, lease: &Lease) -> Result<(), Wrong> {
    let saved = store.save(record, expected, lease).await?;
    ensure(saved == Saved::Kept, || {
        let generation = record.generation();
        format!("a save of generation {generation} that expected {expected} rightly was `Overtaken`")
    })
}

/// A save that must be overtaken and leave `there`, if anything.
pub(super) async fn overtaken(
    store: &Handle,
    expected: u64,
    lease: &Lease,
    there: Option<&Record>,
) -> Result<(), Wrong> {
    let intruder = specimen(there.map_or(0, Record::generation) + 1, "an intruder");
    let saved = store.save(&intruder, expected, lease).await?;
    let generation = there.map_or_else(
        || "nothing".into(),
        |there| format!("generation {}", there.generation()),
    );
    ensure(saved == Saved::Overtaken, || {
        format!(
            "a save under lease {} that expected {expected} replaced {generation}",
            lease.fence()
        )
    })?;
    ensure_loaded(store, there).await
}

pub(super) async fn ensure_loaded(store: &Handle, wanted: Option<&Record>) -> Result<(), Wrong> {
    let loaded = store.load().await?;
    match difference(loaded.as_ref(), wanted) {
        None => Ok(()),
        Some(difference) => Err(Wrong(difference)),
    }
}

/// What is loaded if it is not what is wanted. Its fields are named and not quoted.
pub(super) fn difference(loaded: Option<&Record>, wanted: Option<&Record>) -> Option<String> {
    let (loaded, wanted) = match (loaded, wanted) {
        (None, None) => return None,
        (None, Some(wanted)) => return Some(format!("nothing was loaded, not generation {}", wanted.generation())),
        (Some(loaded), None) => return Some(format!("generation {} was loaded, not nothing", loaded.generation())),
        (Some(loaded), Some(wanted)) => (loaded, wanted),
    };
    if loaded.generation() != wanted.generation() {
        let (loaded, wanted) = (loaded.generation(), wanted.generation());
        return Some(format!("generation {loaded} was loaded, not {wanted}"));
    }
    let (loaded, wanted) = (loaded.to_json(), wanted.to_json());
    let differs = |name: &&str| loaded.get(name) != wanted.get(name);
    let field = FIELDS.into_iter().find(differs)?;
    Some(format!(
        "`{field}` of generation {} was not loaded as it was saved",
        wanted["generation"]
    ))
}

/// A record with a few fields, told from others of its generation by its mark.
pub(super) fn specimen(generation: u64, mark: &str) -> Record {
    Record {
        generation,
        owner: "the suite of the testkit".into(),
        salt: "5a17".into(),
        seeds: Vec::new(),
        standing: Standing::Renewed,
        token: None,
        credential: Some(Secret::new(json!({ "refresh_token": format!("test-{mark}") }))),
        intent: None,
    }
}

/// Every field there is.
pub(super) fn with_all_fields(generation: u64) -> Record {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let token = Token::bearer("test-token")
        .token_type("MAC")
        .issued_at(now)
        .expires_at(now + Duration::from_secs(60))
        .renew_by(now + Duration::from_secs(90))
        .refresh_in(Duration::from_millis(20_001))
        .scope("read write");
    Record {
        seeds: vec!["the newest".into(), "the oldest".into()],
        standing: Standing::Installed,
        token: Some(token),
        intent: Some(intent(2)),
        ..specimen(generation, "of all fields")
    }
}

/// None that it could do without.
pub(super) fn with_no_field(generation: u64) -> Record {
    Record {
        owner: String::new(),
        salt: String::new(),
        standing: Standing::SignedOut,
        credential: None,
        ..specimen(generation, "")
    }
}

/// Texts of all scripts, quotes, controls.
pub(super) fn of_many_scripts(generation: u64) -> Record {
    let text = "test-ключ-密钥-🔑-\u{0}\r\n\t\"'\\%_-\u{2028}";
    Record {
        owner: text.into(),
        credential: Some(Secret::new(json!({ text: [text, null, 1.5, { "": u64::MAX }] }))),
        ..specimen(generation, "")
    }
}

/// A credential of 64 KiB.
pub(super) fn of_some_size(generation: u64) -> Record {
    let credential = "test-64-KiB ".chars().cycle().take(64 * 1024).collect();
    Record {
        credential: Some(Secret::new(Value::String(credential))),
        ..specimen(generation, "")
    }
}

pub(super) fn intent(times: u32) -> Intent {
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_321);
    Intent {
        of: "the hash of a credential".into(),
        since,
        last: since + Duration::from_millis(1001),
        times,
        refused: false,
    }
}

const FIELDS: [&str; 8] = [
    "generation",
    "owner",
    "salt",
    "seeds",
    "standing",
    "token",
    "credential",
    "intent",
];

/// Of a lease that is to last as long as a rule does.
pub(super) const AGES: Duration = Duration::from_secs(3600);
