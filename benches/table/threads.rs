//! The same work by one thread and by two.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Does so many calls.
pub(crate) type Work = Box<dyn FnMut(u64) + Send>;

/// Work for two threads on something that they share.
pub(crate) struct Pair([Work; 2]);

/// Nanoseconds of a call of one thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) alone: f64,
    /// While the other one does as many.
    pub(crate) together: f64,
}

impl Pair {
    pub(crate) fn of(work: impl Fn() -> Work) -> Self {
        Self([work(), work()])
    }

    pub(crate) fn round(&mut self, calls: u64) -> Round {
        let nanos = |works: &mut [Work]| wall(works, calls).as_nanos() as f64 / calls as f64;
        Round {
            alone: nanos(&mut self.0[..1]),
            together: nanos(&mut self.0),
        }
    }
}

/// From the first thread's start to the last one's end.
fn wall(works: &mut [Work], calls: u64) -> Duration {
    let missing = &AtomicUsize::new(works.len());
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let threads: Vec<_> = works
            .iter_mut()
            .map(|work| scope.spawn(move || span(work, calls, missing)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = spans.iter().map(|(began, _)| *began).min().unwrap();
    let last = spans.iter().map(|(_, ended)| *ended).max().unwrap();
    last - first
}

/// When this thread began, together with those that were `missing`, and when it was done.
fn span(work: &mut Work, calls: u64, missing: &AtomicUsize) -> (Instant, Instant) {
    // What a core has to fetch that does this for the first time is not measured.
    work(calls / 20);
    missing.fetch_sub(1, Ordering::AcqRel);
    while missing.load(Ordering::Acquire) > 0 {
        spin_loop();
    }
    let began = Instant::now();
    work(calls);
    (began, Instant::now())
}
