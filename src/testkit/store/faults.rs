//! What can go wrong with the calls of a [`MemoryStore`](super::MemoryStore), as one of its participants sees it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::StoreError;

/// One kind of call of a [`TokenStore`](crate::TokenStore).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreCall {
    /// [`load`](crate::TokenStore::load).
    Load,
    /// [`save`](crate::TokenStore::save).
    Save,
    /// [`lease`](crate::TokenStore::lease).
    Lease,
    /// [`renew`](crate::TokenStore::renew).
    Renew,
    /// [`release`](crate::TokenStore::release).
    Release,
    /// [`watch`](crate::TokenStore::watch).
    Watch,
}

impl StoreCall {
    pub(super) const KINDS: usize = 6;

    const ALL: [Self; Self::KINDS] = [
        Self::Load,
        Self::Save,
        Self::Lease,
        Self::Renew,
        Self::Release,
        Self::Watch,
    ];
}

/// Some kinds of calls, or all: what goes wrong with them from now on. From
/// [`MemoryStore::on`](super::MemoryStore::on) and [`MemoryStore::on_all`](super::MemoryStore::on_all).
///
/// The last fault that was set counts; a delay comes on top of it.
#[derive(Clone, Copy, Debug)]
pub struct Calls<'a> {
    of: Option<StoreCall>,
    faults: &'a Faults,
}

impl Calls<'_> {
    /// They do nothing and answer this.
    pub fn fail(self, error: StoreError) -> Self {
        self.set(|mood| mood.fault = Some(Fault::Fail(error.clone())))
    }

    /// They do what they are asked for, the answer is lost, and the caller sees this.
    pub fn fail_after(self, error: StoreError) -> Self {
        self.set(|mood| mood.fault = Some(Fault::FailAfter(error.clone())))
    }

    /// They are pending, and do what they are asked for when they are [healed](Self::heal).
    pub fn hang(self) -> Self {
        self.set(|mood| mood.fault = Some(Fault::Hang))
    }

    /// They do what they do so much later. Default: at once.
    pub fn delay(self, by: Duration) -> Self {
        self.set(|mood| mood.delay = by)
    }

    /// Nothing is wrong with them any more.
    pub fn heal(self) -> Self {
        self.set(|mood| *mood = Mood::default())
    }

    fn set(self, change: impl Fn(&mut Mood)) -> Self {
        let of = |call: &StoreCall| self.of.is_none_or(|of| of == *call);
        self.faults.moods.send_modify(|moods| {
            for call in StoreCall::ALL.into_iter().filter(of) {
                change(&mut moods[call as usize]);
            }
        });
        self
    }
}

/// What is wrong for one participant.
#[derive(Debug, Default)]
pub(super) struct Faults {
    moods: watch::Sender<Moods>,
}

type Moods = [Mood; StoreCall::KINDS];

#[derive(Clone, Debug, Default)]
pub(super) struct Mood {
    delay: Duration,
    fault: Option<Fault>,
}

#[derive(Clone, Debug)]
enum Fault {
    Fail(StoreError),
    FailAfter(StoreError),
    Hang,
}

impl Faults {
    pub(super) fn on(&self, of: Option<StoreCall>) -> Calls<'_> {
        Calls { of, faults: self }
    }

    /// Resolves when a call gets through, with what its caller sees instead of the answer.
    pub(super) async fn pass(&self, call: StoreCall) -> Result<Option<StoreError>, StoreError> {
        let mut moods = self.changes();
        let delay = moods.borrow()[call as usize].delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        loop {
            let fault = moods.borrow_and_update()[call as usize].fault.clone();
            match fault {
                None => return Ok(None),
                Some(Fault::Fail(error)) => return Err(error),
                Some(Fault::FailAfter(error)) => return Ok(Some(error)),
                // The sender is ours, so there is always a next change to wait for.
                Some(Fault::Hang) => _ = moods.changed().await,
            }
        }
    }

    /// From now on: whatever is set on any call.
    pub(super) fn changes(&self) -> watch::Receiver<Moods> {
        self.moods.subscribe()
    }
}
