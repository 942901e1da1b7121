//! The same shapes under the scheduler of `shuttle`, which decides at each *point* who goes on.
//!
//! Within a [`run`] of the model there is a point before every lock, after every unlock and before every
//! atomic operation, and spawned tasks are `shuttle`'s. Outside of a run all this is what it wraps, so that
//! every other unit test runs as it does without the feature.
//!
//! What the model does not see:
//! - Orderings. Everything is sequentially consistent here; `Acquire` and `Release` are for the reader to check.
//! - The inside of `arc-swap`: its operations are one step each, and its own orderings are trusted.
//! - The inside of tokio's `watch`, `Notify` and timers. No point lies within a call to one of these, because
//!   nothing modelled is touched while they hold a lock of their own: `send_if_modified` compares numbers
//!   there, and what they do to wakers (clone, wake, drop) is bookkeeping of `shuttle`'s and no point. So
//!   they are never contended. What lies around such a call is seen, because there is a point after an unlock
//!   too: whoever looks under the lock and registers afterwards can be overtaken in between.
//! - Time. The runtime is paused and nobody drives it: time stands still and no timer fires. A scenario
//!   steps the wall clock, or says itself that a token's time is over.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{LazyLock, LockResult, PoisonError, TryLockError};
use std::task::{Poll, Waker};

use shuttle::future::{AbortHandle, block_on};
use tokio::runtime::{Runtime, TryCurrentError};

pub(crate) use std::sync::atomic::Ordering;

thread_local! {
    /// All threads of a model are coroutines on the one that runs it.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    /// What the engine has spawned under the schedule that is tried.
    static SPAWNED: RefCell<Vec<AbortHandle>> = const { RefCell::new(Vec::new()) };
}

/// Entered by every model, for [`Handle::try_current`] and for timers. It never ends: that would wake what a
/// failed model has left behind.
static PAUSED: LazyLock<Runtime> = LazyLock::new(|| {
    let mut paused = tokio::runtime::Builder::new_current_thread();
    paused.enable_time().start_paused(true).build().unwrap()
});

/// Whatever `model` does is modelled.
pub(crate) fn run<T>(model: impl FnOnce() -> T) -> T {
    struct Running;
    impl Drop for Running {
        fn drop(&mut self) {
            RUNNING.set(false);
        }
    }
    let _entered = PAUSED.enter();
    let _running = Running;
    RUNNING.set(true);
    model()
}

/// Another schedule begins, with no tasks.
pub(crate) fn forget_tasks() {
    SPAWNED.take();
}

/// Ends the tasks that the engine has spawned so far, as a runtime does that shuts down, and sees them gone.
pub(crate) fn abort_tasks() {
    let tasks = SPAWNED.take();
    tasks.iter().for_each(AbortHandle::abort);
    while !tasks.iter().all(AbortHandle::is_finished) {
        shuttle::thread::yield_now();
    }
}

/// The panic that a scenario asks for, past the panic hook. Every other one fails the model.
pub(crate) fn panic_as_told() -> ! {
    resume_unwind(Box::new(AsTold))
}

struct AsTold;

/// Somebody else may go on here.
fn point() {
    if RUNNING.get() {
        // Nobody else sees this one: all that counts is that `shuttle` is asked.
        const { shuttle::sync::atomic::AtomicBool::new(false) }.load(Ordering::SeqCst);
    }
}

/// Each operation is one step, after a point.
#[derive(Debug, Default)]
pub(crate) struct Step<T>(T);

pub(crate) type AtomicBool = Step<std::sync::atomic::AtomicBool>;
pub(crate) type AtomicU64 = Step<std::sync::atomic::AtomicU64>;
pub(crate) type ArcSwapOption<T> = Step<arc_swap::ArcSwapOption<T>>;
pub(crate) type OnceLock<T> = Step<std::sync::OnceLock<T>>;

impl<T> Step<T> {
    pub(crate) fn new<V>(value: V) -> Self
    where
        T: From<V>,
    {
        Self(T::from(value))
    }
}

impl<T> ArcSwapOption<T> {
    pub(crate) fn empty() -> Self {
        Self(arc_swap::ArcSwapOption::empty())
    }
}

impl<T> Deref for Step<T> {
    type Target = T;

    fn deref(&self) -> &T {
        point();
        &self.0
    }
}

/// Whoever finds it locked is left to `shuttle`, and never waits for the lock itself.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    inner: std::sync::Mutex<T>,
    waiting: std::sync::Mutex<Vec<Waker>>,
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// There until it is dropped.
    inner: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            inner: std::sync::Mutex::new(value),
            waiting: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        if !RUNNING.get() {
            return self.guarded(self.inner.lock());
        }
        point();
        block_on(poll_fn(|cx| match self.inner.try_lock() {
            Err(TryLockError::WouldBlock) => {
                self.waiting().push(cx.waker().clone());
                Poll::Pending
            }
            Err(TryLockError::Poisoned(poisoned)) => Poll::Ready(self.guarded(Err(poisoned))),
            Ok(inner) => Poll::Ready(self.guarded(Ok(inner))),
        }))
    }

    fn guarded<'a>(&'a self, inner: LockResult<std::sync::MutexGuard<'a, T>>) -> LockResult<MutexGuard<'a, T>> {
        let guard = |inner| MutexGuard {
            mutex: self,
            inner: Some(inner),
        };
        match inner {
            Ok(inner) => Ok(guard(inner)),
            Err(poisoned) => Err(PoisonError::new(guard(poisoned.into_inner()))),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.inner = None;
        if RUNNING.get() {
            let waiting = std::mem::take(&mut *self.mutex.waiting());
            waiting.into_iter().for_each(Waker::wake);
            point();
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("there until it is dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("there until it is dropped")
    }
}

/// The runtime that this is called in; within a run, `shuttle`.
#[derive(Clone, Debug)]
pub(crate) struct Handle(tokio::runtime::Handle);

impl Handle {
    pub(crate) fn try_current() -> Result<Self, TryCurrentError> {
        tokio::runtime::Handle::try_current().map(Self)
    }

    pub(crate) fn current() -> Self {
        Self(tokio::runtime::Handle::current())
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if !RUNNING.get() {
            self.0.spawn(task);
            return;
        }
        let mut task = Box::pin(task);
        let caught = poll_fn(move |cx| {
            // As in tokio, such a panic ends the task and nobody else.
            catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))).unwrap_or_else(|panic| {
                if panic.is::<AsTold>() {
                    Poll::Ready(())
                } else {
                    resume_unwind(panic)
                }
            })
        });
        let task = shuttle::future::spawn(caught).abort_handle();
        SPAWNED.with_borrow_mut(|spawned| spawned.push(task));
    }
}
