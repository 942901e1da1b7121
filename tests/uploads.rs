//! Uploads of every size through the layer, each with its token revoked at some byte. The server reads
//! as it likes, answers when it likes, and judges the replay by count and by SHA-256.
//!
//! `tests/full` sends five thousand of up to 8 MiB.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod streams;
mod support;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_token::{Buffered, FetchError, HandedBack, Origins, Replay, ReplayBody, TokenLayer, Unboxed};

use streams::script::{AsTold, Beat, End, MIB, Pace, Reader, Script, Seen, content, cut};
use streams::upload::{Boxed, Tally, Wire, in_process, on_threads, tokens};
use streams::wire::{Server, bearer, client, over_sockets};
use support::{HOUR, SECOND, issuer, issuer_that, origins, settle};

// ===== Thousands =====

/// Every way to end was taken often enough to say something about it, and no task has panicked that
/// nobody waits for.
fn assert_all_ends_were_seen(tally: Tally, uploads: usize) {
    println!("{tally:?}");
    assert_eq!(tally.accepted + tally.replayed + tally.handed_back, uploads);
    assert!(tally.accepted * 20 >= uploads, "{tally:?}");
    assert!(tally.replayed * 2 >= uploads, "{tally:?}");
    assert!(tally.handed_back * 20 >= uploads, "{tally:?}");
    assert!(tally.taken_over * 10 >= uploads, "{tally:?}");
    assert_eq!(panics(), 0);
}

/// How many tasks of clients and servers have panicked since this was first asked, other than as told.
fn panics() -> usize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() == Some(&streams::script::PANIC) {
                return;
            }
            // The threads of the tests have other names, and what panics there is seen anyway.
            let worker = std::thread::current().name() == Some("tokio-rt-worker");
            PANICS.fetch_add(usize::from(worker), Ordering::SeqCst);
            print(info);
        }));
    });
    PANICS.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn every_replay_of_five_hundred_uploads_is_the_original_to_the_byte() {
    panics();
    let tally = in_process(0..500, 2 * MIB).await;
    assert_all_ends_were_seen(tally, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn so_is_every_replay_if_the_answer_and_the_upload_race_on_four_threads() {
    panics();
    let tally = on_threads(0..500, MIB / 4).await;
    assert_all_ends_were_seen(tally, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_every_replay_over_http_1() {
    panics();
    let tally = over_sockets(Wire::Http1, 0..300, MIB).await;
    assert_all_ends_were_seen(tally, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_is_every_replay_over_http_2() {
    panics();
    let tally = over_sockets(Wire::Http2, 0..300, MIB).await;
    assert_all_ends_were_seen(tally, 300);
}

// ===== One =====

/// What the server of one upload knows.
#[derive(Clone, Default)]
struct Log {
    tokens: Arc<Mutex<Vec<String>>>,
    /// Those who read a body that was answered early.
    reading: Arc<Mutex<Vec<JoinHandle<Seen>>>>,
}

impl Log {
    fn tokens(&self) -> Vec<String> {
        self.tokens.lock().unwrap().clone()
    }

    /// Reads on in a task of its own.
    fn read_on<B: Body<Data = Bytes> + Send + Unpin + 'static>(&self, mut reader: Reader<B>) {
        let task = tokio::spawn(async move { reader.read_to_end().await });
        self.reading.lock().unwrap().push(task);
    }

    /// What the first of them has read in the end.
    async fn read_in_the_end(&self) -> Seen {
        let task = self.reading.lock().unwrap().remove(0);
        timeout(24 * HOUR, task).await.expect("the upload hangs").unwrap()
    }
}

type Served = Pin<Box<dyn Future<Output = Result<Response<Script>, BoxError>> + Send>>;

/// Refuses `test-1` once it has read so many frames, and goes on reading. Reads all else to the end first.
fn refuses_early(
    frames: usize,
) -> (
    impl Service<Request<Boxed>, Response = Response<Script>, Error = BoxError, Future = Served> + Clone,
    Log,
) {
    let log = Log::default();
    let logged = log.clone();
    let service = service_fn(move |request: Request<Boxed>| -> Served {
        let log = logged.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let token = bearer(&head.headers);
            log.tokens.lock().unwrap().push(token.clone());
            let mut reader = Reader::new(body, Pace::Steady);
            if token != "test-1" {
                let seen = reader.read_to_end().await;
                log.reading.lock().unwrap().push(tokio::spawn(async { seen }));
                return Ok(Response::new(page("welcome")));
            }
            reader.frames(frames).await;
            log.read_on(reader);
            let mut refusal = Response::new(page("the token is over"));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            Ok(refusal)
        })
    });
    (service, log)
}

/// An issuer that is down from the second fetch on.
fn only_one(nth: usize) -> Result<(), FetchError> {
    if nth == 1 {
        Ok(())
    } else {
        Err(FetchError::transient("down"))
    }
}

/// Comes in pieces, with a pause before each.
fn page(text: &'static str) -> Script {
    let pieces = text.as_bytes().chunks(3).map(Bytes::from_static);
    Script::new(pieces.flat_map(|piece| [Beat::Yield, Beat::Sleep(SECOND), Beat::Data(piece)]))
}

fn put(body: Script) -> Request<Boxed> {
    Request::put("https://api.example.com/me")
        .body(Boxed::new(body))
        .unwrap()
}

/// 100 frames of a KiB, one each second.
fn slowly() -> (Script, Bytes) {
    let content = content(&mut fastrand::Rng::with_seed(9), 100 << 10);
    let frames = (0..100).map(|nth| content.slice(nth << 10..(nth + 1) << 10));
    let beats = frames.flat_map(|frame| [Beat::Data(frame), Beat::Sleep(SECOND)]);
    (Script::new(beats), content.clone())
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_paused_while_the_token_is_renewed_and_then_taken_over() {
    let (tokens, _) = tokens(10 * SECOND);
    let (server, log) = refuses_early(10);
    let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
    let (body, content) = slowly();
    let progress = body.progress();
    let answer = tokio::spawn(client.oneshot(put(body)));
    // 10 s for the first token, and 9 for nine pauses.
    sleep(19 * SECOND + SECOND / 2).await;
    assert_eq!((progress.bytes(), log.tokens().len()), (10 << 10, 1));
    sleep(9 * SECOND).await;
    assert!(progress.bytes() <= 11 << 10, "{}", progress.bytes());
    assert_eq!(answer.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(log.tokens(), ["test-1", "test-2"]);
    let first = log.read_in_the_end().await;
    assert_eq!((first.bytes, first.end), (10 << 10, Some(End::Failed)));
    assert_eq!(log.read_in_the_end().await, Seen::whole(&content, None));
}

#[tokio::test(start_paused = true)]
async fn without_a_newer_token_the_upload_goes_on_and_the_refusal_is_whole() {
    let (tokens, issuer) = issuer_that(only_one);
    let (server, log) = refuses_early(10);
    let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
    let (body, content) = slowly();
    let answer = client.oneshot(put(body)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "the token is over"
    );
    assert_eq!(log.read_in_the_end().await, Seen::whole(&content, None));
    assert_eq!(log.tokens(), ["test-1"]);
    assert_eq!(issuer.handed_back(), [HandedBack::NotRenewed]);
}

#[tokio::test(start_paused = true)]
async fn whenever_the_caller_leaves_nothing_hangs() {
    let mut ends = std::collections::BTreeMap::new();
    for leaves in 0..150 {
        let (tokens, _) = tokens(5 * SECOND);
        let (server, log) = refuses_early(10);
        let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
        let (body, content) = slowly();
        let progress = body.progress();
        let answer = timeout(leaves * SECOND + SECOND / 2, client.oneshot(put(body))).await;
        let deliveries = log.tokens().len();
        let readers = log.reading.lock().unwrap().len();
        for _ in 0..readers {
            let seen = log.read_in_the_end().await;
            assert!(seen.begins(&content));
            if seen.end == Some(End::Whole) {
                assert_eq!(seen, Seen::whole(&content, None), "{leaves}");
            }
        }
        settle().await;
        assert_eq!(log.tokens().len(), deliveries, "{leaves}");
        // One that was never sent is dropped with the call; `timeout` has dropped that.
        assert!(progress.is_dropped(), "{leaves}");
        *ends.entry((deliveries, answer.is_ok())).or_insert(0) += 1;
    }
    // Before the first attempt, in it or in the renewal, in the replay, and after all.
    println!("{ends:?}");
    assert!(
        [(0, false), (1, false), (2, false), (2, true)]
            .iter()
            .all(|end| ends[end] >= 5),
        "{ends:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn one_revocation_under_a_hundred_uploads_is_one_fetch_and_one_replay_each() {
    let (tokens, issuer) = issuer();
    let (server, log) = refuses_early(10);
    let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
    let uploads: Vec<_> = (0..100)
        .map(|_| tokio::spawn(client.clone().oneshot(put(slowly().0))))
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(issuer.fetches(), 2);
    let tokens = log.tokens();
    assert_eq!(tokens.iter().filter(|token| *token == "test-1").count(), 100);
    assert_eq!(tokens.len(), 200);
    let whole = Seen::whole(&slowly().1, None);
    let mut wholes = 0;
    for _ in 0..200 {
        wholes += usize::from(log.read_in_the_end().await == whole);
    }
    assert_eq!(wholes, 100);
}

/// A server may look at the head alone, and the client may send nothing at all meanwhile.
#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_polled_is_replayed_whole() {
    let (tokens, _) = issuer();
    let (server, log) = refuses_early(0);
    let client = TokenLayer::new(&tokens, origins())
        .replay(Buffered::via(Boxed::new).limit(0))
        .layer(server);
    let (body, content) = slowly();
    assert_eq!(client.oneshot(put(body)).await.unwrap().status(), StatusCode::OK);
    log.reading.lock().unwrap().remove(0);
    assert_eq!(log.read_in_the_end().await, Seen::whole(&content, None));
}

/// How a body says that it is empty decides how HTTP/1.1 frames it. What has a replay is framed like its
/// original: an empty one of unknown length with `transfer-encoding`, not with a `content-length` of 0.
#[tokio::test(start_paused = true)]
async fn an_upload_that_turns_out_to_be_empty_is_replayed_with_its_length_unknown() {
    let (tokens, _) = issuer();
    let hints = Arc::new(Mutex::new(Vec::new()));
    let told = hints.clone();
    let server = service_fn(move |request: Request<Boxed>| {
        let told = told.clone();
        async move {
            let (head, body) = request.into_parts();
            told.lock()
                .unwrap()
                .push((body.size_hint().exact(), body.is_end_stream()));
            body.collect().await?;
            let mut answer = Response::new(page("welcome"));
            if bearer(&head.headers) == "test-1" {
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
            }
            Ok::<_, BoxError>(answer)
        }
    });
    let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
    client.oneshot(put(Script::new([Beat::Yield]))).await.unwrap();
    assert_eq!(*hints.lock().unwrap(), [(None, false), (None, false)]);
}

// ===== Polls that are under way =====

/// Two frames of three bytes, and then a poll that takes as long as somebody wants it to.
struct Midway {
    polls: usize,
    /// Told in the third poll, which then waits.
    entered: Option<oneshot::Sender<()>>,
    goes_on: std::sync::mpsc::Receiver<()>,
    with: Beat,
}

impl Body for Midway {
    type Data = Bytes;
    type Error = AsTold;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AsTold>>> {
        self.polls += 1;
        match self.polls {
            1 | 2 => return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"abc"))))),
            3 => {
                self.entered.take().unwrap().send(()).unwrap();
                self.goes_on.recv().unwrap();
            }
            _ => return Poll::Ready(None),
        }
        match &self.with {
            Beat::Data(data) => Poll::Ready(Some(Ok(Frame::data(data.clone())))),
            Beat::Trailers(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers.clone())))),
            Beat::Fail => Poll::Ready(Some(Err(AsTold))),
            Beat::Panic => std::panic::panic_any(streams::script::PANIC),
            _ => Poll::Ready(None),
        }
    }
}

/// The replay has come to the end of its tape while the first attempt is still in the middle of a poll. What
/// comes of that is the replay's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_poll_brings_that_is_under_way_during_the_takeover_goes_to_the_replay() {
    panics();
    let trailers = streams::script::trailers(&mut fastrand::Rng::with_seed(1));
    let abc = Bytes::from_static(b"abc");
    let failed = Seen {
        end: Some(End::Failed),
        ..Seen::whole(b"abcabc", None)
    };
    for (with, expected, first_ends) in [
        (Beat::Data(abc), Seen::whole(b"abcabcabc", None), Some(End::Failed)),
        (
            Beat::Trailers(trailers.clone()),
            Seen::whole(b"abcabc", Some(&trailers)),
            Some(End::Failed),
        ),
        // Its last poll was the last of all.
        (Beat::Yield, Seen::whole(b"abcabc", None), Some(End::Whole)),
        (Beat::Fail, failed.clone(), Some(End::Failed)),
        (Beat::Panic, failed, None),
    ] {
        let (entered, is_entered) = oneshot::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let is_entered = Arc::new(Mutex::new(Some(is_entered)));
        let log = Log::default();
        let logged = log.clone();
        let server = service_fn(move |request: Request<Boxed>| {
            let (log, go_on) = (logged.clone(), go_on.clone());
            let is_entered = is_entered.lock().unwrap().take();
            async move {
                let mut reader = Reader::new(request.into_body(), Pace::Steady);
                let mut answer = Response::new(page("welcome"));
                if let Some(is_entered) = is_entered {
                    log.read_on(reader);
                    is_entered.await.unwrap();
                    *answer.status_mut() = StatusCode::UNAUTHORIZED;
                    return Ok::<_, BoxError>(answer);
                }
                // The tape is one frame, because these are small. Then there is nothing as yet.
                reader.read_to(6).await;
                let waits = std::future::poll_fn(|cx| Poll::Ready(pin!(reader.frames(1)).poll(cx).is_pending()));
                assert!(waits.await);
                go_on.send(()).unwrap();
                log.read_on(reader);
                Ok(answer)
            }
        });
        let (tokens, _) = tokens(Duration::ZERO);
        let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
        let body = Midway {
            polls: 0,
            entered: Some(entered),
            goes_on,
            with: with.clone(),
        };
        let request = Request::put("https://api.example.com/me")
            .body(Boxed::new(body))
            .unwrap();
        let answer = timeout(Duration::from_secs(60), client.oneshot(request))
            .await
            .expect("hangs");
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
        let (first, second) = {
            let mut reading = log.reading.lock().unwrap();
            (reading.remove(0), reading.remove(0))
        };
        let second = timeout(Duration::from_secs(60), second).await.expect("hangs").unwrap();
        assert_eq!(second, expected, "{with:?}");
        match (first.await, first_ends) {
            (Ok(seen), end) => assert_eq!((seen.bytes, seen.end), (6, end), "{with:?}"),
            (Err(panicked), end) => assert!(panicked.is_panic() && end.is_none(), "{with:?}"),
        }
    }
    assert_eq!(panics(), 0);
}

// ===== Bodies that fail =====

#[tokio::test(start_paused = true)]
async fn an_upload_that_failed_before_the_refusal_is_not_replayed() {
    let (tokens, issuer) = issuer();
    let (server, log) = refuses_early(10);
    let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
    let body = Script::new([Beat::Data(Bytes::from_static(b"abc")), Beat::Fail]);
    assert_eq!(
        client.oneshot(put(body)).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(log.tokens(), ["test-1"]);
    assert_eq!(issuer.handed_back(), [HandedBack::NotKept]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_fails_after_the_refusal_fails_in_the_replay() {
    let (tokens, _) = issuer();
    let (server, log) = refuses_early(1);
    let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
    let abc = Beat::Data(Bytes::from_static(b"abc"));
    let body = Script::new([abc.clone(), Beat::Sleep(SECOND / 2), abc, Beat::Fail]);
    client.oneshot(put(body)).await.unwrap();
    let (first, second) = (log.read_in_the_end().await, log.read_in_the_end().await);
    assert_eq!((first.bytes, first.end), (3, Some(End::Failed)));
    assert_eq!((second.bytes, second.end), (6, Some(End::Failed)));
}

/// Refuses `test-1` once the task that reads the body is gone, accepts all else.
async fn answer_after_the_reader(request: Request<Boxed>, frames: usize) -> Result<Response<Script>, BoxError> {
    let (head, body) = request.into_parts();
    let mut reader = Reader::new(body, Pace::Steady);
    let refused = bearer(&head.headers) == "test-1";
    let frames = if refused { frames } else { usize::MAX };
    let read = tokio::spawn(async move { reader.frames(frames).await }).await;
    let mut answer = Response::new(page("welcome"));
    if refused {
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
    } else if read.is_err() {
        *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Ok(answer)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_strands_nobody() {
    panics();
    for (frames, status) in [(1, 500), (2, 401), (usize::MAX, 401)] {
        let (tokens, _) = issuer();
        let server = service_fn(move |request| answer_after_the_reader(request, frames));
        let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
        let body = Script::new([Beat::Data(Bytes::from_static(b"abc")), Beat::Panic]);
        let progress = body.progress();
        let answer = timeout(HOUR, client.oneshot(put(body))).await.expect("stranded");
        assert_eq!(answer.unwrap().status().as_u16(), status, "{frames}");
        assert!(progress.is_dropped());
    }
    assert_eq!(panics(), 0);
}

/// Whoever catches the panic and goes on must not take what is there for all of it.
#[test]
fn a_body_that_panicked_does_not_end_well() {
    panics();
    let body = Script::new([Beat::Data(Bytes::from_static(b"abc")), Beat::Panic]);
    let (mut first, _saved) = Replay::prepare(&Buffered::unboxed(), body);
    let mut cx = Context::from_waker(Waker::noop());
    let mut poll = || Pin::new(&mut first).poll_frame(&mut cx);
    assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
    std::panic::catch_unwind(AssertUnwindSafe(&mut poll)).unwrap_err();
    let afterwards = poll();
    assert!(!matches!(afterwards, Poll::Ready(None)), "{afterwards:?}");
}

/// A task that lives by its wakers alone, as those of `futures`' thread pool do.
struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

/// The waker of the caller may be the last that holds the call, once somebody else polls the body. Whoever
/// drops it then, and the call with it, must not hold the lock that the call wants.
#[test]
fn a_waker_that_holds_the_call_is_let_go_without_a_lock() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let _in_runtime = runtime.enter();
        let (tokens, _) = tokens(Duration::ZERO);
        runtime.block_on(tokens.get()).unwrap();
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let taken = bodies.clone();
        // Polls the body once, and leaves it to somebody else.
        let server = service_fn(move |request: Request<Boxed>| {
            let taken = taken.clone();
            async move {
                let mut body = request.into_body();
                std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx).is_pending())).await;
                taken.lock().unwrap().push(body);
                std::future::pending::<Result<Response<Script>, Infallible>>().await
            }
        });
        let client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
        let call = client.oneshot(put(Script::new([Beat::Gate])));
        let call = async move { drop(call.await) };
        let task = Arc::new(Task {
            future: Mutex::new(Some(Box::pin(call))),
        });
        let waker = Waker::from(task.clone());
        let mut call = task.future.lock().unwrap().take().unwrap();
        assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        *task.future.lock().unwrap() = Some(call);
        drop((task, waker));
        let mut body = bodies.lock().unwrap().pop().unwrap();
        let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop()));
        done.send(polled.is_pending()).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(20)), Ok(true), "a deadlock");
}

// ===== What is kept, and for how long =====

/// How many bytes of frames are alive.
#[derive(Clone, Default)]
struct Alive(Arc<AtomicUsize>);

struct Counted {
    bytes: Vec<u8>,
    alive: Alive,
}

impl Alive {
    fn frame(&self, bytes: &[u8]) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::SeqCst);
        let alive = self.clone();
        let bytes = bytes.to_vec();
        Bytes::from_owner(Counted { bytes, alive })
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.0.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

/// Frames of a KiB that are made as they are polled, and counted while somebody has them.
struct Stream {
    frames: usize,
    alive: Alive,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.frames == 0 {
            return Poll::Ready(None);
        }
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.alive.frame(&[7; 1024])))))
    }
}

/// Sends `frames` frames to a server that looks at what is alive after each of them; it answers with
/// `status` after `answers_at` of them. No newer token is to be had. The call's future is kept, as it is if
/// somebody pins it and goes on.
async fn alive_after_each(frames: usize, answers_at: usize, status: StatusCode) -> Vec<usize> {
    let (tokens, _) = issuer_that(only_one);
    let alive = Alive::default();
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let looking = alive.clone();
    let server = service_fn(move |request: Request<Boxed>| {
        let (looking, tell) = (looking.clone(), tell.clone());
        async move {
            let mut body = request.into_body();
            let mut seen = Vec::new();
            for _ in 0..answers_at {
                drop(body.frame().await);
                seen.push(looking.bytes());
            }
            let tell = tell.lock().unwrap().take().unwrap();
            tokio::spawn(async move {
                settle().await;
                while let Some(frame) = body.frame().await {
                    drop(frame);
                    seen.push(looking.bytes());
                }
                tell.send(seen).ok();
            });
            let mut answer = Response::new(page("answer"));
            *answer.status_mut() = status;
            Ok::<_, BoxError>(answer)
        }
    });
    let mut client = TokenLayer::new(&tokens, origins()).replay_via(Boxed::new).layer(server);
    let stream = Stream {
        frames,
        alive: alive.clone(),
    };
    let request = Request::put("https://api.example.com/me")
        .body(Boxed::new(stream))
        .unwrap();
    let mut call = Box::pin(client.ready().await.unwrap().call(request));
    let _answer = call.as_mut().await.unwrap();
    told.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_nothing_is_kept() {
    let alive = alive_after_each(1024, 1024, StatusCode::UNAUTHORIZED).await;
    assert_eq!(alive[..64], (1..=64).map(|frames| frames << 10).collect::<Vec<_>>());
    assert_eq!(alive[64..], [0; 960]);
}

/// As it is with a stream in both directions, which may go on for days.
#[tokio::test(start_paused = true)]
async fn once_it_is_accepted_nothing_is_kept() {
    let alive = alive_after_each(1024, 10, StatusCode::OK).await;
    assert_eq!(alive[9], 10 << 10);
    assert_eq!(alive[10..], [0; 1014]);
}

#[tokio::test(start_paused = true)]
async fn once_the_refusal_was_handed_back_nothing_is_kept() {
    let alive = alive_after_each(1024, 10, StatusCode::UNAUTHORIZED).await;
    assert_eq!(alive[9], 10 << 10);
    assert_eq!(alive[10..], [0; 1014]);
}

// ===== Types =====

#[test]
fn the_body_is_as_send_and_as_sync_as_what_it_wraps() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<ReplayBody<Boxed>>();
    send::<ReplayBody<Script>>();
    sync::<ReplayBody<Script>>();
    // And so is what keeps it.
    send::<<Unboxed as Replay<Boxed>>::Saved>();
    sync::<<Unboxed as Replay<Script>>::Saved>();
}

/// A proxy has hyper's body, which is neither `Clone` nor made of another: the client takes what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_replays_what_it_streams() {
    panics();
    for wire in [Wire::Http1, Wire::Http2] {
        let sizes: [u64; 6] = [0, 1, 1000, 65_536, 65_537, 300_000];
        let revoked = Arc::new(AtomicUsize::new(1));
        let whole = Arc::new(Mutex::new(Vec::new()));
        let (current, seen_whole) = (revoked.clone(), whole.clone());
        // Refuses the tokens up to the one that is revoked, before it has read anything.
        let upstream = Server::answering(move |request| {
            let (revoked, whole) = (current.clone(), seen_whole.clone());
            async move {
                let (head, body) = request.into_parts();
                let nth: usize = bearer(&head.headers)[5..].parse().unwrap();
                let mut reader = Reader::new(body, Pace::Steady).believing(true);
                let mut answer = Response::new(Script::of([Bytes::from_static(b"answer")]));
                if nth <= revoked.load(Ordering::SeqCst) {
                    *answer.status_mut() = StatusCode::UNAUTHORIZED;
                    tokio::spawn(async move { reader.read_to_end().await });
                } else {
                    let seen = reader.read_to_end().await;
                    whole.lock().unwrap().push(seen);
                }
                answer
            }
        })
        .await;
        let (tokens, _) = tokens(Duration::from_millis(1));
        let through = TokenLayer::new(&tokens, Origins::only(&upstream.origin).unwrap())
            .replay(Buffered::unboxed().limit(MIB as usize))
            .layer(client(wire));
        let to = upstream.origin.clone();
        let proxy = Server::answering(move |mut request: Request<hyper::body::Incoming>| {
            let (through, to) = (through.clone(), to.clone());
            async move {
                *request.uri_mut() = format!("{to}{}", request.uri().path()).parse().unwrap();
                *request.version_mut() = http::Version::default();
                request.headers_mut().remove("host");
                let answer = through.oneshot(request).await.unwrap();
                let (head, body) = answer.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let mut answer = Response::new(Script::of([body]));
                *answer.status_mut() = head.status;
                answer
            }
        })
        .await;
        let client = client::<Script>(wire);
        for len in sizes {
            let mut random = fastrand::Rng::with_seed(len);
            let content = content(&mut random, len);
            let body = Script::of(cut(&mut random, content.clone(), 20));
            let request = Request::put(format!("{}/{len}", proxy.origin)).body(body).unwrap();
            let answer = timeout(Duration::from_secs(60), client.request(request))
                .await
                .expect("hangs")
                .unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{len} over {wire:?}");
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "answer");
            let seen = whole.lock().unwrap().pop();
            assert_eq!(seen, Some(Seen::whole(&content, None)), "{len} over {wire:?}");
            revoked.fetch_add(1, Ordering::SeqCst);
        }
    }
    assert_eq!(panics(), 0);
}
