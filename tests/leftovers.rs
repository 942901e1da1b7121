//! Nothing outlives its owner: handles and layers come and go, and no task, descriptor or byte of theirs stays.
//!
//! One test, in a binary of its own, because descriptors are counted for the whole process.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use http::{Request, Response};
use tokio::runtime::{self, Handle};
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_token::{Origins, RefreshPolicy, Token, TokenLayer, Tokens, provider_fn};

const API: &str = "https://api.example.com";
const SECOND: Duration = Duration::from_secs(1);

/// When the last handle is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Dropped {
    Unused,
    WithAToken,
    WithAFetchInTheAir,
}

/// A handle and a layer over it are made, used and dropped. A fetch takes a second.
async fn come_and_go(keep_alive: bool, dropped: Dropped, fetches: &Arc<AtomicUsize>) {
    let counted = fetches.clone();
    let provider = provider_fn(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async {
            sleep(SECOND).await;
            Ok(Token::bearer("test-a").expires_in(3600 * SECOND))
        }
    });
    let policy = RefreshPolicy::default().keep_alive(keep_alive);
    let tokens = Tokens::builder(provider).policy(policy).build().unwrap();
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(api());
    let call = client.oneshot(Request::get(API).body(String::new()).unwrap());
    match dropped {
        Dropped::Unused => {}
        Dropped::WithAToken => _ = call.await.unwrap(),
        Dropped::WithAFetchInTheAir => {
            let left = tokio::time::timeout(SECOND / 2, call).await;
            assert!(left.is_err() && tokens.status().fetching);
        }
    }
}

fn api() -> impl Service<Request<String>, Response = Response<String>, Error = Infallible, Future = Answer> + Clone {
    service_fn(|_| ready(Ok(Response::new(String::new()))))
}

type Answer = Ready<Result<Response<String>, Infallible>>;

/// Ten thousand of them, at once.
fn ten_thousand_come_and_go() {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let fetches = Arc::new(AtomicUsize::new(0));
        for keep_alive in [false, true] {
            for dropped in [Dropped::Unused, Dropped::WithAToken, Dropped::WithAFetchInTheAir] {
                let users: tokio::task::JoinSet<()> = (0..EACH)
                    .map(|_| {
                        let fetches = fetches.clone();
                        async move { come_and_go(keep_alive, dropped, &fetches).await }
                    })
                    .collect();
                users.join_all().await;
                // A fetch in the air lands, although nobody is left.
                sleep(2 * SECOND).await;
                let alive = Handle::current().metrics().num_alive_tasks();
                assert_eq!(alive, 0, "{dropped:?}, keep_alive {keep_alive}");
            }
        }
        // The keeper may have begun one for a handle that nobody used.
        let used = fetches.load(Ordering::SeqCst);
        assert!((4 * EACH..=5 * EACH).contains(&used), "{used}");
    });
}

const EACH: usize = 1_700;

#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[cfg(not(target_os = "linux"))]
fn descriptors() -> usize {
    0
}

/// I39.
#[test]
fn ten_thousand_handles_and_layers_leave_no_task_no_descriptor_and_no_byte() {
    // What is allocated once, by the first of all.
    ten_thousand_come_and_go();
    let before = descriptors();
    let grown = measure(ten_thousand_come_and_go);
    assert_eq!(descriptors(), before);
    assert_eq!((grown.bytes_current, grown.count_current), (0, 0));
    // A thousand bytes each, at least: they were there.
    assert!(grown.bytes_max > 1_000 * EACH as u64, "{grown:?}");
}
