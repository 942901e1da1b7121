//! What one token can be waited for with: ours, and eight others as they are used for it.
//!
//! Each of the others is as simple as it can be: one token, never renewed, no failure, no limit, nobody told.
//! The token of those with a leader lies in a `OnceLock`, which is read first, and again once registered.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use event_listener::Event;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{Notify, OnceCell, Semaphore, broadcast, watch};
use tower_token::{RefreshPolicy, Token, Tokens, provider_fn};

/// One way to wait for the token of one fetch.
pub(crate) trait Primitive: Clone + Send + 'static {
    const NAME: &'static str;

    /// Called in a runtime; starts whoever fetches for all, if there is one.
    fn new(fetch: Fetch) -> Self;

    fn get(&self) -> impl Future<Output = Token> + Send + 'static;
}

/// A fetch that takes until its gate is opened, and counts.
#[derive(Clone)]
pub(crate) struct Fetch {
    gate: Arc<Semaphore>,
    begun: Arc<AtomicUsize>,
}

impl Fetch {
    pub(crate) fn new() -> Self {
        Self {
            gate: Arc::new(Semaphore::new(0)),
            begun: Arc::default(),
        }
    }

    pub(crate) fn open(&self) {
        self.gate.close();
    }

    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    async fn run(self) -> Token {
        self.begun.fetch_add(1, Ordering::Relaxed);
        // It has no permits: this ends when it is closed.
        let _ = self.gate.acquire().await;
        Token::bearer("test-token").expires_in(Duration::from_secs(3600))
    }
}

// ===== ours =====

#[derive(Clone)]
pub(crate) struct Ours(Tokens);

impl Primitive for Ours {
    const NAME: &'static str = "Tokens::get";

    fn new(fetch: Fetch) -> Self {
        let provider = provider_fn(move |_| fetch.clone().run().map(Ok));
        let policy = RefreshPolicy::default().max_waiters(1 << 20);
        Self(Tokens::builder(provider).policy(policy).build().unwrap())
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        self.0.get().map(Result::unwrap)
    }
}

// ===== without a leader: the first caller fetches =====

#[derive(Clone)]
pub(crate) struct DoubleChecked(Arc<(tokio::sync::Mutex<Option<Token>>, Fetch)>);

impl Primitive for DoubleChecked {
    const NAME: &'static str = "tokio Mutex, double check";

    fn new(fetch: Fetch) -> Self {
        Self(Arc::new((tokio::sync::Mutex::default(), fetch)))
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        let shared = self.0.clone();
        async move {
            let mut slot = shared.0.lock().await;
            if slot.is_none() {
                *slot = Some(shared.1.clone().run().await);
            }
            slot.clone().unwrap()
        }
    }
}

#[derive(Clone)]
pub(crate) struct Cell(Arc<(OnceCell<Token>, Fetch)>);

impl Primitive for Cell {
    const NAME: &'static str = "tokio OnceCell";

    fn new(fetch: Fetch) -> Self {
        Self(Arc::new((OnceCell::new(), fetch)))
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        let shared = self.0.clone();
        async move { shared.0.get_or_init(|| shared.1.clone().run()).await.clone() }
    }
}

// ===== with a leader =====

/// A token to come, and who is told of it.
#[derive(Default)]
struct Awaited<W> {
    token: OnceLock<Token>,
    waiting: W,
}

impl<W: Default + Send + Sync + 'static> Awaited<W> {
    fn led(fetch: Fetch, wake: impl FnOnce(&W) + Send + 'static) -> Arc<Self> {
        let awaited = Arc::new(Self::default());
        let leader = awaited.clone();
        tokio::spawn(async move {
            let _ = leader.token.set(fetch.run().await);
            wake(&leader.waiting);
        });
        awaited
    }

    fn token(&self) -> Option<Token> {
        self.token.get().cloned()
    }
}

#[derive(Clone)]
pub(crate) struct Notified(Arc<Awaited<Notify>>);

impl Primitive for Notified {
    const NAME: &'static str = "tokio Notify + leader";

    fn new(fetch: Fetch) -> Self {
        Self(Awaited::led(fetch, Notify::notify_waiters))
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        let awaited = self.0.clone();
        async move {
            loop {
                // `notify_waiters` reaches whoever has made one, polled or not.
                let told = awaited.waiting.notified();
                if let Some(token) = awaited.token() {
                    return token;
                }
                told.await;
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct Listening(Arc<Awaited<Event>>);

impl Primitive for Listening {
    const NAME: &'static str = "event-listener + leader";

    fn new(fetch: Fetch) -> Self {
        Self(Awaited::led(fetch, |event: &Event| _ = event.notify(usize::MAX)))
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        let awaited = self.0.clone();
        async move {
            loop {
                if let Some(token) = awaited.token() {
                    return token;
                }
                event_listener::listener!(awaited.waiting => told);
                if let Some(token) = awaited.token() {
                    return token;
                }
                told.await;
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct Listed(Arc<Awaited<Mutex<Vec<Waker>>>>);

impl Primitive for Listed {
    const NAME: &'static str = "list of wakers + leader";

    fn new(fetch: Fetch) -> Self {
        Self(Awaited::led(fetch, |wakers: &Mutex<Vec<Waker>>| {
            let wakers = std::mem::take(&mut *wakers.lock().unwrap());
            wakers.into_iter().for_each(Waker::wake);
        }))
    }

    /// Grows with each poll and forgets nobody who left: the least there is.
    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        let awaited = self.0.clone();
        poll_fn(move |cx| {
            if let Some(token) = awaited.token() {
                return Poll::Ready(token);
            }
            let mut wakers = awaited.waiting.lock().unwrap();
            match awaited.token() {
                Some(token) => Poll::Ready(token),
                None => {
                    wakers.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
    }
}

#[derive(Clone)]
pub(crate) struct Watched(watch::Receiver<Option<Token>>);

impl Primitive for Watched {
    const NAME: &'static str = "tokio watch + leader";

    fn new(fetch: Fetch) -> Self {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move { sender.send_replace(Some(fetch.run().await)) });
        Self(receiver)
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        let mut receiver = self.0.clone();
        async move { receiver.wait_for(Option::is_some).await.unwrap().clone().unwrap() }
    }
}

#[derive(Clone)]
pub(crate) struct Broadcast(Arc<(OnceLock<Token>, broadcast::WeakSender<Token>)>);

impl Primitive for Broadcast {
    const NAME: &'static str = "tokio broadcast + leader";

    fn new(fetch: Fetch) -> Self {
        let (sender, _) = broadcast::channel(1);
        let shared = Arc::new((OnceLock::new(), sender.downgrade()));
        let leader = shared.clone();
        tokio::spawn(async move {
            let token = fetch.run().await;
            let _ = leader.0.set(token.clone());
            // Nobody may be there.
            let _ = sender.send(token);
        });
        Self(shared)
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        let shared = self.0.clone();
        async move {
            let told = shared.1.upgrade().map(|sender| sender.subscribe());
            match (shared.0.get(), told) {
                (Some(token), _) => token.clone(),
                (None, told) => told.unwrap().recv().await.unwrap(),
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct SharedFuture(Shared<BoxFuture<'static, Token>>);

impl Primitive for SharedFuture {
    const NAME: &'static str = "futures Shared + leader";

    fn new(fetch: Fetch) -> Self {
        let shared = fetch.run().boxed().shared();
        tokio::spawn(shared.clone());
        Self(shared)
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        self.0.clone()
    }
}

// ===== nothing =====

/// A task that is parked and never woken: what waiting itself costs.
#[derive(Clone)]
pub(crate) struct Parked;

impl Primitive for Parked {
    const NAME: &'static str = "a parked task";

    fn new(_: Fetch) -> Self {
        Self
    }

    fn get(&self) -> impl Future<Output = Token> + Send + 'static {
        std::future::pending()
    }
}
