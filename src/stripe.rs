//! What threads share without writing to the same cache lines: [`Striped`] copies, and [`Handle`]s.
//!
//! A reference count that two cores write to halves what two threads can do, so what the hot path
//! clones (the token's header value, the handle in the response future, the service itself) is counted in
//! [`LANES`] places that share nothing. A thread always takes the same lane.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// More lanes than this would only cost memory.
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

    /// Does something to each copy.
    pub(crate) fn each(&self, act: impl Fn(&T)) {
        self.lanes.iter().for_each(|lane| act(&lane.0));
    }
}

/// A handle on a value, to be cloned by any number of threads: a clone counts in the lane of the thread that
/// makes it.
///
/// The value ends with the last handle. That takes no sum over the lanes, because what is counted is
/// owned in two steps: handles own the [`Anchor`] of a lane, and anchors own the value.
pub(crate) struct Handle<T> {
    anchor: Arc<Anchor<T>>,
    /// The anchors of other lanes whose threads cloned this very handle. Here so that they outlive those clones: a
    /// handle that is cloned for each request would otherwise make and drop an anchor each time.
    elsewhere: OnceLock<Box<Anchors<T>>>,
    /// It was settled where another thread is, once.
    is_astray: bool,
}

type Anchors<T> = [OnceLock<Arc<Anchor<T>>>; LANES];

/// Keeps the value. Its own reference count is written to by the threads of one lane.
#[repr(align(128))]
pub(crate) struct Anchor<T> {
    lane: usize,
    root: Arc<Root<T>>,
}

struct Root<T> {
    value: T,
    /// One for each lane that handles are in.
    anchors: [Mutex<Weak<Anchor<T>>>; LANES],
}

impl<T> Handle<T> {
    pub(crate) fn new(value: T) -> Self {
        let root = Arc::new(Root {
            value,
            anchors: std::array::from_fn(|_| Mutex::default()),
        });
        Self::from(Root::anchor(&root, lane()))
    }

    /// This thread's anchor.
    #[inline]
    pub(crate) fn here(&self) -> &Arc<Anchor<T>> {
        let lane = lane();
        if self.anchor.lane == lane {
            &self.anchor
        } else {
            self.elsewhere(lane)
        }
    }

    /// The handle's anchor: this thread's, from the second time on that it is asked for here. One that is cloned for
    /// each request, and used and dropped by another thread, stays where it was cloned: it would make and drop an
    /// anchor here.
    #[inline]
    pub(crate) fn settle(&mut self) -> &Arc<Anchor<T>> {
        let lane = lane();
        if self.anchor.lane != lane {
            self.stray_in(lane);
        }
        &self.anchor
    }

    /// The handle's anchor as it is, for who has settled it.
    pub(crate) fn anchor(&self) -> &Arc<Anchor<T>> {
        &self.anchor
    }

    fn elsewhere(&self, lane: usize) -> &Arc<Anchor<T>> {
        let elsewhere = self.elsewhere.get_or_init(Box::default);
        elsewhere[lane % LANES].get_or_init(|| Root::anchor(&self.anchor.root, lane))
    }

    #[cold]
    fn stray_in(&mut self, lane: usize) {
        if self.is_astray {
            self.anchor = Root::anchor(&self.anchor.root, lane);
        }
        self.is_astray = !self.is_astray;
    }
}

#[cfg(test)]
impl<T> Handle<T> {
    /// What each lane counts, and at the end what all share.
    pub(crate) fn counts(&self) -> Vec<usize> {
        let root = &self.anchor.root;
        let lanes = root.anchors.iter().map(|anchor| anchor.lock().unwrap().strong_count());
        lanes.chain([Arc::strong_count(root)]).collect()
    }

    pub(crate) fn lane(&self) -> usize {
        self.anchor.lane
    }
}

impl<T> From<Arc<Anchor<T>>> for Handle<T> {
    #[inline]
    fn from(anchor: Arc<Anchor<T>>) -> Self {
        Self {
            anchor,
            elsewhere: OnceLock::new(),
            is_astray: false,
        }
    }
}

impl<T> Clone for Handle<T> {
    #[inline]
    fn clone(&self) -> Self {
        self.here().clone().into()
    }
}

impl<T> Deref for Handle<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.anchor
    }
}

impl<T> Deref for Anchor<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.root.value
    }
}

impl<T> Root<T> {
    /// The anchor of a lane: the one that is there, or a new one.
    fn anchor(root: &Arc<Self>, lane: usize) -> Arc<Anchor<T>> {
        // Nothing panics while it is held.
        let mut anchor = root.anchors[lane % LANES]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        anchor.upgrade().unwrap_or_else(|| {
            let root = root.clone();
            let new = Arc::new(Anchor { lane, root });
            *anchor = Arc::downgrade(&new);
            new
        })
    }
}

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[inline]
fn lane() -> usize {
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

    /// In a thread of its own, which has another lane.
    fn elsewhere<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        in_lane((lane() + 1) % LANES, act)
    }

    /// In a thread of its own. Others of this process draw lanes as well.
    fn in_lane<T: Send>(lane: usize, act: impl FnOnce() -> T + Send) -> T {
        let act = || {
            LANE.set(lane);
            act()
        };
        std::thread::scope(|scope| scope.spawn(act).join().unwrap())
    }

    fn address<T>(value: &T) -> usize {
        std::ptr::from_ref(value) as usize
    }

    #[test]
    fn two_threads_take_two_lanes() {
        let striped = Striped::new(|| 0_u8);
        let (mine, theirs) = (address(striped.here()), elsewhere(|| address(striped.here())));
        assert_eq!(mine, address(striped.here()));
        assert_ne!(mine, theirs);
    }

    #[test]
    fn clones_count_where_they_are_made() {
        let handle = Handle::new("value");
        let anchor_of = |handle: &Handle<&str>| address(&**handle.here());
        let mine = anchor_of(&handle);
        assert_eq!(anchor_of(&handle.clone()), mine);
        let count = Arc::strong_count(handle.here());
        let (theirs, again) = elsewhere(|| {
            let clones = [handle.clone(), handle.clone()];
            // Neither of them is counted here.
            assert_eq!(Arc::strong_count(&handle.anchor), count);
            assert_eq!(*clones[0], "value");
            (anchor_of(&clones[0]), anchor_of(&clones[1]))
        });
        assert_ne!(mine, theirs);
        assert_eq!(theirs, again);
    }

    #[test]
    fn a_handle_keeps_the_anchors_that_its_clones_needed() {
        let handle = Handle::new(());
        let (first, second) = elsewhere(|| {
            let first = Arc::downgrade(handle.clone().here());
            (first.clone(), first.upgrade().map(|anchor| address(&*anchor)))
        });
        assert_eq!(first.upgrade().map(|anchor| address(&*anchor)), second);
        drop(handle);
        assert_eq!(first.strong_count(), 0);
    }

    #[test]
    fn a_handle_that_moved_to_another_thread_settles_there_when_it_is_used_again() {
        let mut handle = Handle::new(());
        let stays = handle.clone();
        let before = address(&**handle.here());
        let (once, twice) = elsewhere(|| (address(&**handle.settle()), address(&**handle.settle())));
        assert_eq!(once, before);
        assert_ne!(twice, before);
        assert_eq!(address(&*handle.anchor), twice);
        assert_eq!(address(&**stays.here()), before);
        let back = [(); 2].map(|()| address(&**handle.settle()));
        assert_eq!(back, [twice, before]);
    }

    #[test]
    fn a_thread_with_a_handle_of_its_own_writes_to_no_count_of_another_lane() {
        let handle = Handle::new(());
        for lane in 0..LANES {
            in_lane(lane, || {
                let own = handle.clone();
                let before = handle.counts();
                let held = [
                    own.here().clone(),
                    own.clone().here().clone(),
                    handle.clone().here().clone(),
                ];
                let mut during = handle.counts();
                assert_eq!(during[lane], before[lane] + held.len());
                during[lane] = before[lane];
                assert_eq!(during, before);
            });
        }
    }

    #[test]
    fn the_value_ends_with_the_last_handle_wherever_that_is() {
        struct Told<'a>(&'a AtomicUsize);
        impl Drop for Told<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let ended = AtomicUsize::new(0);
        let handle = Handle::new(Told(&ended));
        let clones: Vec<_> = (0..LANES).map(|lane| in_lane(lane, || handle.clone())).collect();
        let anchor = elsewhere(|| clones[0].here().clone());
        drop(handle);
        let last = clones.into_iter().next_back();
        elsewhere(|| drop(last));
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        drop(anchor);
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }
}
