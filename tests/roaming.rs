//! Services that are cloned for each request, called on other threads, and dropped on others again, while the token
//! is renewed, signed out, installed and expires: what was decided before a call began holds for it.

#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::any::Any;
use std::convert::Infallible;
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, request};
use serde_json::json;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_token::{
    Clock, Error, Inject, Never, Origins, RefreshPolicy, Token, TokenLayer, TokenProvider, Tokens, provider_fn,
};

const API: &str = "https://api.example.com";
const LIFE: Duration = Duration::from_secs(3600);
const WORKERS: usize = 6;

/// Mints `test-1`, `test-2`, ... at once.
fn minting() -> impl TokenProvider {
    let minted = AtomicU64::new(0);
    provider_fn(move |_| {
        let nth = minted.fetch_add(1, Ordering::SeqCst) + 1;
        ready(Ok(Token::bearer(format!("test-{nth}")).expires_in(LIFE)))
    })
}

type Client = BoxCloneSyncService<Request<String>, Response<u64>, BoxError>;

fn request() -> Request<String> {
    Request::get(API).body(String::new()).unwrap()
}

/// The number of the token that a request carries.
fn number(request: &Request<String>) -> u64 {
    let value = request.headers()[AUTHORIZATION].to_str().unwrap();
    value.strip_prefix("Bearer test-").unwrap().parse().unwrap()
}

/// Calls with clones of its own, with clones of clones that others made, and hands clones to the next to call or drop.
struct Worker {
    own: Client,
    from: Receiver<Client>,
    to: Sender<Client>,
    /// The newest token that nobody may send any more.
    over: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
}

impl Worker {
    /// How many calls carried a token.
    async fn run(mut self) -> u64 {
        let mut sent = 0;
        while !self.done.load(Ordering::SeqCst) {
            let clone = self.own.clone();
            sent += Self::call(&mut self.own, &self.over).await;
            sent += Self::call(&mut clone.clone(), &self.over).await;
            let _ = self.to.send(clone);
            if let Ok(mut moved) = self.from.try_recv() {
                let mut clone = moved.clone();
                sent += Self::call(&mut moved, &self.over).await;
                sent += Self::call(&mut clone, &self.over).await;
                let _ = self.to.send(moved);
            }
        }
        sent
    }

    async fn call(client: &mut Client, over: &AtomicU64) -> u64 {
        let over = over.load(Ordering::SeqCst);
        match client.ready().await.unwrap().call_with_token().await {
            Ok(number) => {
                assert!(number > over, "test-{number} was sent, and test-{over} was over before");
                1
            }
            Err(error) => {
                let error = error.downcast::<Error>().unwrap();
                assert!(error.is_signed_out(), "{error}");
                0
            }
        }
    }
}

trait CallWithToken {
    async fn call_with_token(&mut self) -> Result<u64, BoxError>;
}

impl CallWithToken for Client {
    async fn call_with_token(&mut self) -> Result<u64, BoxError> {
        Ok(tower::Service::call(self, request()).await?.into_body())
    }
}

#[test]
fn no_token_is_sent_after_it_was_decided_that_it_is_over() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let clock = Clock::of_tokio();
    let tokens = Tokens::builder(minting()).clock(clock.clone()).build().unwrap();
    let api = service_fn(|request| ready(Ok::<_, Infallible>(Response::new(number(&request)))));
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .replay(Never)
        .layer(api);
    let client = Client::new(client);
    let (over, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let started = Barrier::new(WORKERS + 1);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..WORKERS).map(|_| channel()).unzip();
    std::thread::scope(|scope| {
        let workers: Vec<_> = receivers
            .into_iter()
            .enumerate()
            .map(|(nth, from)| {
                let (own, to) = (client.clone(), senders[(nth + 1) % WORKERS].clone());
                let worker = Worker {
                    own,
                    from,
                    to,
                    over: over.clone(),
                    done: done.clone(),
                };
                let (runtime, started) = (&runtime, &started);
                scope.spawn(move || {
                    started.wait();
                    runtime.block_on(worker.run())
                })
            })
            .collect();
        started.wait();
        runtime.block_on(async {
            for nth in 0..400 {
                let last = tokens.get().await.unwrap();
                let last: u64 = last.secret().strip_prefix("test-").unwrap().parse().unwrap();
                match nth % 4 {
                    0 => drop(tokens.refresh().await.unwrap()),
                    1 => tokens.sign_out(),
                    2 => tokens.install(json!({})).unwrap(),
                    _ => clock.step(i64::try_from(LIFE.as_secs()).unwrap() + 1),
                }
                over.store(last, Ordering::SeqCst);
                tokio::task::yield_now().await;
                if nth % 4 == 1 {
                    tokens.install(json!({})).unwrap();
                }
            }
        });
        done.store(true, Ordering::SeqCst);
        drop(senders);
        let sent: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        assert!(sent.iter().sum::<u64>() > 400, "{sent:?}");
    });
}

/// Counts itself.
struct Counted(Arc<AtomicUsize>, HeaderValue);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Inject for Counting {
    type Ready = Counted;

    fn ready(&self, token: &Token) -> Result<Counted, Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let value = HeaderValue::try_from(format!("Bearer {}", token.secret())).unwrap();
        Ok(Counted(self.0.clone(), value))
    }

    fn put(&self, ready: &Counted, head: &mut request::Parts) {
        head.headers.insert(AUTHORIZATION, ready.1.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_made_of_an_old_token_is_given_up_with_the_first_call_that_has_a_new_one() {
    let tokens = Tokens::new(minting()).unwrap();
    let counting = Counting::default();
    let ready = || counting.0.load(Ordering::SeqCst);
    let api = service_fn(|request| std::future::ready(Ok::<_, Infallible>(Response::new(number(&request)))));
    let layer = TokenLayer::new(&tokens, Origins::only(API).unwrap()).inject(counting.clone());
    let client = layer.layer(api);
    let runtime = tokio::runtime::Handle::current();
    let call = |client| tower::util::Oneshot::new(client, request());
    call(client.clone()).await.unwrap();
    // Other lanes have copies of it, and are never heard of again.
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| drop(runtime.block_on(call(client.clone())).unwrap()));
        }
    });
    assert_eq!(ready(), 1);
    tokens.refresh().await.unwrap();
    assert_eq!(call(client.clone()).await.unwrap().into_body(), 2);
    assert_eq!(ready(), 1, "only the new one");
    // A service that was called with it remembers it until it is called again, or dropped.
    let mut own = client.clone();
    for _ in 0..2 {
        tower::Service::call(own.ready().await.unwrap(), request())
            .await
            .unwrap();
    }
    tokens.refresh().await.unwrap();
    call(client.clone()).await.unwrap();
    assert_eq!(ready(), 2);
    tower::Service::call(own.ready().await.unwrap(), request())
        .await
        .unwrap();
    assert_eq!(ready(), 1);
    drop((own, client));
    drop(layer);
    assert_eq!(ready(), 0);
}

/// Says so when it ends.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn the_engine_its_timer_and_its_keeper_end_with_the_last_handle_wherever_that_is() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let ending = Ending(ended.clone());
    let provider = provider_fn(move |_| {
        let _ = &ending;
        ready(Ok(Token::bearer("test-1").expires_in(LIFE)))
    });
    let built = {
        let _entered = runtime.enter();
        Tokens::builder(provider)
            .policy(RefreshPolicy::default().keep_alive(true))
            .build()
    };
    let tokens = built.unwrap();
    runtime.block_on(tokens.get()).unwrap();
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(service_fn(|_: Request<String>| {
        std::future::pending::<Result<Response<String>, Infallible>>()
    }));
    /// What still holds on to it.
    type Held = Box<dyn Any + Send>;
    let elsewhere = |hold: &(dyn Fn() -> Held + Sync)| std::thread::scope(|scope| scope.spawn(hold).join().unwrap());
    let mut held: Vec<Held> = Vec::new();
    for _ in 0..16 {
        held.push(elsewhere(&|| Box::new(tokens.clone())));
        held.push(elsewhere(&|| Box::new(tokens.get())));
        held.push(elsewhere(&|| Box::new(client.clone())));
        held.push(elsewhere(&|| {
            Box::new(tower::Service::call(&mut client.clone(), request()))
        }));
    }
    drop((tokens, client));
    // One kind after the other; the futures are the last.
    for kind in 0..4 {
        assert!(!ended.load(Ordering::SeqCst), "{kind}");
        let mut kinds = 0..held.len();
        held.retain(|_| kinds.next().is_some_and(|nth| nth % (4 - kind) != 0));
    }
    assert!(held.is_empty());
    let over = async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let over = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), over).await });
    assert!(over.is_ok(), "a task is left");
    assert!(ended.load(Ordering::SeqCst));
}

/// Sends a request when it is dropped.
struct Parting(Client);

#[derive(Clone, Default)]
struct Partings(Arc<Mutex<Option<Client>>>);

impl Inject for Partings {
    type Ready = Option<Parting>;

    fn ready(&self, _: &Token) -> Result<Option<Parting>, Error> {
        Ok(self.0.lock().unwrap().clone().map(Parting))
    }

    fn put(&self, _: &Option<Parting>, head: &mut request::Parts) {
        head.headers
            .insert(AUTHORIZATION, HeaderValue::from_static("Bearer test-1"));
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        assert!(self.0.clone().oneshot(request()).now_or_never().unwrap().is_ok());
    }
}

#[test]
fn what_was_made_of_an_old_token_may_send_a_request_when_it_is_dropped() {
    let (done, is_done) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let tokens = Tokens::new(minting()).unwrap();
        let partings = Partings::default();
        let layer = TokenLayer::new(&tokens, Origins::only(API).unwrap()).inject(partings.clone());
        let api = service_fn(|request| ready(Ok::<_, Infallible>(Response::new(number(&request)))));
        let client = Client::new(layer.replay(Never).layer(api));
        *partings.0.lock().unwrap() = Some(client.clone());
        runtime.block_on(client.clone().oneshot(request())).unwrap();
        *partings.0.lock().unwrap() = None;
        runtime.block_on(tokens.refresh()).unwrap();
        runtime.block_on(client.oneshot(request())).unwrap();
        done.send(()).unwrap();
    });
    let patience = Duration::from_secs(5);
    assert!(is_done.recv_timeout(patience).is_ok(), "deadlock, or a panic");
}
