//! Copies of one value on cache lines of their own, one for each thread that asks.
//!
//! A reference count that two cores write to halves what two threads can do, so what the hot path
//! clones (the token's header value, the handle in the response future) is kept in [`LANES`] copies
//! that share nothing. A thread always takes the same lane.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More lanes than this would only cost memory: each holds a copy of the secret.
pub(crate) const LANES: usize = 8;

/// Alone on its cache lines (two of them: the prefetcher fetches pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// One copy a lane.
#[derive(Debug)]
pub(crate) struct Striped<T> {
    lanes: [Padded<T>; LANES],
}

impl<T> Striped<T> {
    /// Makes each copy on its own; copies must not share what they count.
    pub(crate) fn new(mut copy: impl FnMut() -> T) -> Self {
        Self {
            lanes: std::array::from_fn(|_| Padded(copy())),
        }
    }

    /// This thread's copy.
    #[inline]
    pub(crate) fn here(&self) -> &T {
        &self.lanes[lane() % LANES].0
    }
}

#[inline]
fn lane() -> usize {
    thread_local! {
        static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    LANE.with(|lane| match lane.get() {
        usize::MAX => draw(lane),
        drawn => drawn,
    })
}

#[cold]
fn draw(lane: &Cell<usize>) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let drawn = NEXT.fetch_add(1, Ordering::Relaxed) % LANES;
    lane.set(drawn);
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn two_threads_take_two_lanes() {
        let striped = Arc::new(Striped::new(|| Arc::new(())));
        let mine = Arc::as_ptr(striped.here()) as usize;
        let other = striped.clone();
        let theirs = std::thread::spawn(move || Arc::as_ptr(other.here()) as usize)
            .join()
            .unwrap();
        assert_eq!(mine, Arc::as_ptr(striped.here()) as usize);
        assert_ne!(mine, theirs);
    }
}
