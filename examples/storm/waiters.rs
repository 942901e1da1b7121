//! What it costs to wait: 100,000 callers while the issuer hangs, and there are seats for 65,536.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use tokio::runtime;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_token::testkit::Fault;
use tower_token::{BoxError, Error, Event, RefreshPolicy};

use crate::callers::request;
use crate::stage::Stage;
use crate::words::grouped;

pub(crate) const CALLERS: usize = 100_000;

pub(crate) struct Waiters {
    waiting: usize,
    overloaded: usize,
    /// Bytes of a call before it is polled, its request included.
    call: u64,
    /// Bytes that waiting adds to it.
    each: u64,
    /// Bytes that were not given back when all had failed and were gone.
    left: u64,
}

/// On a thread and a runtime of its own, because memory is counted by thread.
pub(crate) fn measured() -> Result<Waiters, BoxError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let policy = RefreshPolicy::default().fetch_timeout(Duration::from_secs(1));
    let stage = runtime.block_on(Stage::with(policy, |_: &Event| {}))?;
    stage.issuer.fault_always(Some(Fault::Hang));
    // One comes first, so that the fetch and its connection are not counted.
    let first = timeout(Duration::from_millis(100), stage.call("/api"));
    runtime.block_on(async { first.await.is_err() });
    let url = stage.url("/api");
    let call = || Ok(Box::pin(stage.client.clone().oneshot(request(&url)?)));

    let mut calls: Result<Vec<_>, BoxError> = Ok(Vec::new());
    let (mut made, mut waiting, mut begun, mut overloaded) = (0, 0, 0, 0);
    let left = bytes_of(|| {
        made = bytes_of(|| calls = (0..CALLERS).map(|_| call()).collect());
        let Ok(calls) = &mut calls else { return };
        begun = bytes_of(|| overloaded = turned_away(calls));
        waiting = stage.tokens.status().waiting;
        runtime.block_on(async {
            for call in std::mem::take(calls) {
                drop(call.await);
            }
        });
    });
    calls?;
    Ok(Waiters {
        waiting,
        overloaded,
        call: made / CALLERS as u64,
        each: begun / waiting.max(1) as u64,
        left,
    })
}

/// Bytes that this allocates and does not free.
fn bytes_of(run: impl FnOnce()) -> u64 {
    u64::try_from(measure(run).bytes_current).unwrap_or(0)
}

/// Polls each of them once, drops those that are over, and says how many of them found no seat.
fn turned_away<F, T>(calls: &mut Vec<Pin<Box<F>>>) -> usize
where
    F: Future<Output = Result<T, BoxError>>,
{
    let mut context = Context::from_waker(Waker::noop());
    let mut turned_away = 0;
    calls.retain_mut(|call| match call.as_mut().poll(&mut context) {
        Poll::Pending => true,
        Poll::Ready(outcome) => {
            let error = outcome.as_ref().err().and_then(|error| Error::find(&**error));
            turned_away += usize::from(error.is_some_and(Error::is_overloaded));
            false
        }
    });
    turned_away
}

impl Waiters {
    pub(crate) fn json(&self) -> String {
        format!(
            r#""waiting":{},"overloaded":{},"bytes_per_waiter":{},"bytes_left":{}"#,
            self.waiting, self.overloaded, self.each, self.left
        )
    }
}

impl fmt::Display for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} wait with {} bytes each, beside {} of the call; {} are turned away at once; {} bytes stay behind",
            grouped(self.waiting),
            self.each,
            self.call,
            grouped(self.overloaded),
            self.left,
        )
    }
}
