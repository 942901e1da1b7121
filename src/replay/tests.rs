//! One body, its first attempt and its replay, poll by poll.

#[cfg(feature = "shuttle")]
mod model;
mod races;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio_test::{assert_pending, task};

use super::{Buffered, Recording, Replay, ReplayBody};
use crate::error::{BoxError, Error};

/// What a body does when it is polled.
enum Act {
    Data(Bytes),
    Trailers(HeaderMap),
    Fail,
    Wait,
    Panic,
    Call(Box<dyn FnMut() + Send>),
}

#[derive(Default)]
struct Script {
    acts: VecDeque<Act>,
    length: Option<u64>,
    is_over: bool,
}

fn script(acts: impl IntoIterator<Item = Act>) -> Script {
    Script {
        acts: acts.into_iter().collect(),
        ..Script::default()
    }
}

fn text(text: &'static str) -> Act {
    Act::Data(Bytes::from_static(text.as_bytes()))
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        assert!(!self.is_over, "polled after its end");
        loop {
            return Poll::Ready(match self.acts.pop_front() {
                Some(Act::Data(data)) => {
                    self.length = self.length.map(|length| length - data.len() as u64);
                    Some(Ok(Frame::data(data)))
                }
                Some(Act::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
                Some(Act::Fail) => Some(Err("failed")),
                Some(Act::Wait) => return Poll::Pending,
                Some(Act::Panic) => panic!("the body panics"),
                Some(Act::Call(mut call)) => {
                    call();
                    continue;
                }
                None => {
                    self.is_over = true;
                    None
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.acts.is_empty() && self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

type Attempt = ReplayBody<Script>;

fn first(body: Script, limit: usize) -> (Attempt, Recording<Script>) {
    let (first, recording) = Buffered::unboxed().limit(limit).prepare(body);
    (first, recording.unwrap())
}

/// One poll without a task.
fn poll(body: &mut Attempt) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
}

/// The data of the next frame.
fn next(body: &mut Attempt) -> String {
    match poll(body) {
        Poll::Ready(Some(Ok(frame))) => String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// All that comes without waiting: data, then trailers.
fn all(body: &mut Attempt) -> (String, Option<HeaderMap>) {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Poll::Ready(Some(frame)) = poll(body) {
        match frame.unwrap().into_data() {
            Ok(bytes) => data.extend_from_slice(&bytes),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    (String::from_utf8(data).unwrap(), trailers)
}

fn is_end(body: &mut Attempt) -> bool {
    matches!(poll(body), Poll::Ready(None))
}

/// The error that ends an upload which the replay took over.
fn is_taken_over(body: &mut Attempt) -> bool {
    let Poll::Ready(Some(Err(error))) = poll(body) else {
        return false;
    };
    Error::find(&*error).is_some_and(|error| error.to_string().contains("the replay sends the rest"))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))])
}

#[test]
fn a_body_that_was_sent_whole_is_replayed_with_its_trailers() {
    let (mut sent, saved) = first(script([text("ab"), text("c"), Act::Trailers(trailers())]), 3);
    assert_eq!(all(&mut sent), ("abc".into(), Some(trailers())));
    assert!(saved.hold());
    let mut replay = saved.into_replay().unwrap();
    assert_eq!(all(&mut replay), ("abc".into(), Some(trailers())));
    assert!(is_end(&mut sent), "a complete upload is not broken off");
}

#[test]
fn a_body_that_was_never_polled_is_replayed_from_its_start() {
    let (sent, saved) = first(script([text("ab"), text("c")]), 1);
    drop(sent);
    let mut replay = saved.into_replay().unwrap();
    assert_eq!(
        all(&mut replay).0,
        "abc",
        "none of it was recorded, and none of it twice"
    );
}

#[test]
fn linkerd2_proxy_3216_an_upload_that_is_still_running_is_taken_over() {
    let (sent, saved) = first(script([text("ab"), Act::Wait, text("c"), text("d")]), 3);
    let mut sent = task::spawn(sent);
    assert_eq!(sent.enter(|_, mut body| next(&mut body)), "ab");
    assert_pending!(sent.enter(|cx, body| body.poll_frame(cx)));
    assert!(saved.hold());
    assert!(!sent.is_woken());
    let mut replay = saved.into_replay().unwrap();
    assert!(sent.is_woken(), "its task would wait for ever");
    assert!(sent.enter(|_, mut body| is_taken_over(&mut body)));
    assert!(!sent.is_end_stream());
    assert_eq!(
        all(&mut replay).0,
        "abcd",
        "more than the limit: only what was sent is on the tape"
    );
    assert!(is_end(&mut replay));
}

#[test]
fn linkerd2_15649_a_replay_begins_with_the_first_frame_once() {
    let (mut sent, saved) = first(script([text("ab"), text("c")]), 3);
    assert_eq!(next(&mut sent), "ab");
    let mut replay = saved.into_replay().unwrap();
    assert_eq!((next(&mut replay), next(&mut replay)), ("ab".into(), "c".into()));
    assert!(is_end(&mut replay));
}

#[test]
fn an_upload_that_is_held_goes_on_if_there_is_no_newer_token() {
    let (sent, saved) = first(script([text("ab"), text("c")]), 3);
    let mut sent = task::spawn(sent);
    assert_eq!(sent.enter(|_, mut body| next(&mut body)), "ab");
    assert!(saved.hold());
    assert_pending!(sent.enter(|cx, body| body.poll_frame(cx)));
    drop(saved);
    assert!(sent.is_woken());
    assert_eq!(sent.enter(|_, mut body| all(&mut body)).0, "c");
}

/// Data that count themselves for as long as anybody has a handle on them.
fn counted(alive: &Arc<AtomicUsize>, len: usize) -> Act {
    struct Counted(Vec<u8>, Arc<AtomicUsize>);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::SeqCst);
        }
    }
    alive.fetch_add(1, Ordering::SeqCst);
    Act::Data(Bytes::from_owner(Counted(vec![b'x'; len], alive.clone())))
}

#[test]
fn more_than_the_limit_is_sent_once_and_its_memory_given_back() {
    let alive = Arc::new(AtomicUsize::new(0));
    let frames = [1000, 1000, 1].map(|len| counted(&alive, len));
    let (mut sent, saved) = first(script(frames), 2000);
    for kept in [3, 3, 0] {
        assert!(matches!(poll(&mut sent), Poll::Ready(Some(Ok(_)))));
        assert_eq!(alive.load(Ordering::SeqCst), kept);
    }
    assert!(!saved.hold(), "so that the refusal goes to the caller at once");
    assert!(saved.into_replay().is_none());
    assert!(is_end(&mut sent));
}

#[test]
fn nothing_is_recorded_for_a_request_that_was_accepted() {
    let alive = Arc::new(AtomicUsize::new(0));
    let frames = [1000, 1000].map(|len| counted(&alive, len));
    let (mut sent, saved) = first(script(frames), 2000);
    assert!(matches!(poll(&mut sent), Poll::Ready(Some(Ok(_)))));
    drop(saved);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    assert!(matches!(poll(&mut sent), Poll::Ready(Some(Ok(_)))));
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert!(is_end(&mut sent));
}

#[test]
fn a_body_that_failed_is_not_replayed() {
    let (mut sent, saved) = first(script([text("ab"), Act::Fail]), 3);
    assert_eq!(next(&mut sent), "ab");
    assert!(matches!(poll(&mut sent), Poll::Ready(Some(Err(error))) if error.to_string() == "failed"));
    assert!(!saved.hold());
    assert!(saved.into_replay().is_none());
}

#[test]
fn what_fails_after_the_takeover_fails_in_the_replay() {
    let (mut sent, saved) = first(script([text("ab"), Act::Fail]), 3);
    assert_eq!(next(&mut sent), "ab");
    let mut replay = saved.into_replay().unwrap();
    assert_eq!(next(&mut replay), "ab");
    assert!(matches!(poll(&mut replay), Poll::Ready(Some(Err(error))) if error.to_string() == "failed"));
    assert!(is_taken_over(&mut sent));
}

/// Calls back while it is polled, as a refusal does that comes on another thread at that moment: no lock
/// is held over the body's own code, and what this poll brings belongs to the replay.
fn refused_while_polled(acts: impl IntoIterator<Item = Act>, refused: impl FnMut() + Send + 'static) -> Script {
    script([text("ab"), Act::Call(Box::new(refused))].into_iter().chain(acts))
}

type Slot<T> = Arc<Mutex<Option<T>>>;

#[test]
fn a_frame_that_is_polled_during_the_takeover_belongs_to_the_replay() {
    let slot: Slot<Recording<Script>> = Slot::default();
    let replay: Slot<task::Spawn<Attempt>> = Slot::default();
    let (from, to) = (slot.clone(), replay.clone());
    let body = refused_while_polled([text("c"), text("d")], move || {
        let saved = from.lock().unwrap().take().unwrap();
        let mut replay = task::spawn(saved.into_replay().unwrap());
        assert_eq!(replay.enter(|_, mut body| next(&mut body)), "ab");
        assert!(!replay.is_end_stream());
        assert_pending!(replay.enter(|cx, body| body.poll_frame(cx)), "the body is being polled");
        *to.lock().unwrap() = Some(replay);
    });
    let (mut sent, saved) = first(body, 2);
    *slot.lock().unwrap() = Some(saved);
    assert_eq!(next(&mut sent), "ab");
    assert!(is_taken_over(&mut sent));
    let mut replay = replay.lock().unwrap().take().unwrap();
    assert!(replay.is_woken());
    assert_eq!(replay.enter(|_, mut body| all(&mut body)).0, "cd");
    assert!(is_taken_over(&mut sent));
}

#[test]
fn a_frame_that_is_polled_while_the_upload_is_held_is_not_lost() {
    for goes_on in [true, false] {
        let slot: Slot<Recording<Script>> = Slot::default();
        let holding = slot.clone();
        let body = refused_while_polled([text("c"), text("d")], move || {
            assert!(holding.lock().unwrap().as_ref().unwrap().hold());
        });
        let (sent, saved) = first(body, 9);
        *slot.lock().unwrap() = Some(saved);
        let mut sent = task::spawn(sent);
        assert_eq!(sent.enter(|_, mut body| next(&mut body)), "ab");
        assert_pending!(sent.enter(|cx, body| body.poll_frame(cx)));
        let saved = slot.lock().unwrap().take().unwrap();
        if goes_on {
            drop(saved);
            assert!(sent.is_woken());
            assert_eq!(sent.enter(|_, mut body| all(&mut body)).0, "cd");
        } else {
            assert_eq!(all(&mut saved.into_replay().unwrap()).0, "abcd");
            assert!(sent.enter(|_, mut body| is_taken_over(&mut body)));
        }
    }
}

#[test]
fn a_body_that_panics_strands_nobody() {
    let slot: Slot<Recording<Script>> = Slot::default();
    let replay: Slot<task::Spawn<Attempt>> = Slot::default();
    let (from, to) = (slot.clone(), replay.clone());
    let body = refused_while_polled([Act::Panic], move || {
        let saved = from.lock().unwrap().take().unwrap();
        let mut replay = task::spawn(saved.into_replay().unwrap());
        assert_eq!(replay.enter(|_, mut body| next(&mut body)), "ab");
        assert_pending!(replay.enter(|cx, body| body.poll_frame(cx)));
        *to.lock().unwrap() = Some(replay);
    });
    let (mut sent, saved) = first(body, 2);
    *slot.lock().unwrap() = Some(saved);
    assert_eq!(next(&mut sent), "ab");
    catch_unwind(AssertUnwindSafe(|| poll(&mut sent))).unwrap_err();
    let mut replay = replay.lock().unwrap().take().unwrap();
    assert!(replay.is_woken());
    let lost = replay.enter(|_, mut body| poll(&mut body));
    assert!(matches!(lost, Poll::Ready(Some(Err(error))) if error.to_string().contains("panicked")));
}

#[test]
fn a_body_that_panicked_is_not_replayed() {
    let (mut sent, saved) = first(script([text("ab"), Act::Panic]), 9);
    assert_eq!(next(&mut sent), "ab");
    catch_unwind(AssertUnwindSafe(|| poll(&mut sent))).unwrap_err();
    assert!(!saved.hold());
    assert!(saved.into_replay().is_none());
}

#[test]
fn a_replay_is_framed_like_the_first_attempt() {
    for length in [Some(3), None] {
        let body = Script {
            length,
            ..script([text("ab"), text("c")])
        };
        let (mut sent, saved) = first(body, 3);
        assert_eq!(sent.size_hint().exact(), length);
        assert_eq!(next(&mut sent), "ab");
        assert_eq!(sent.size_hint().exact(), length.map(|length| length - 2));
        let mut replay = saved.into_replay().unwrap();
        assert_eq!(replay.size_hint().exact(), length);
        assert_eq!((next(&mut replay), replay.is_end_stream()), ("ab".into(), false));
        assert_eq!(replay.size_hint().exact(), length.map(|length| length - 2));
        assert_eq!(next(&mut replay), "c");
        assert_eq!(replay.is_end_stream(), length.is_some());
    }
}

#[test]
fn a_body_that_is_shorter_than_it_said_ends_like_any_other() {
    let body = Script {
        length: Some(9),
        ..script([text("ab")])
    };
    let (mut sent, saved) = first(body, 9);
    assert_eq!(all(&mut sent).0, "ab");
    let mut replay = saved.into_replay().unwrap();
    assert_eq!((all(&mut replay).0, replay.size_hint().exact()), ("ab".into(), Some(0)));
}

#[test]
fn an_empty_body_is_not_wrapped_and_replayed_as_an_empty_one() {
    let wrapped = Buffered::via(|_: ReplayBody<Script>| script([text("wrapped")]));
    let empty = Script {
        length: Some(0),
        ..Script::default()
    };
    let (sent, saved) = wrapped.prepare(empty);
    assert!(sent.is_end_stream());
    let replay = saved.unwrap().into_replay().unwrap();
    assert!(replay.is_end_stream());
    assert_eq!(replay.size_hint().exact(), Some(0));
}

#[test]
fn a_body_that_tells_its_end_is_complete_without_another_poll() {
    let body = Script {
        length: Some(2),
        ..script([text("ab")])
    };
    let (mut sent, saved) = first(body, 2);
    assert_eq!(next(&mut sent), "ab");
    assert!(sent.is_end_stream());
    let replay = saved.into_replay().unwrap();
    assert!(sent.is_end_stream());
    assert!(is_end(&mut sent));
    drop(replay);
}

#[test]
fn data_of_any_kind_become_bytes() {
    let body = http_body_util::Full::new(VecDeque::from(*b"abc"));
    let (mut sent, saved) = Buffered::unboxed().prepare(body);
    let data = |body: &mut ReplayBody<_>| match Pin::new(body)
        .poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
    {
        Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
        _ => None,
    };
    assert_eq!(data(&mut sent).as_deref(), Some(&b"abc"[..]));
    let mut replay = saved.unwrap().into_replay().unwrap();
    assert_eq!(data(&mut replay).as_deref(), Some(&b"abc"[..]));
}

#[test]
fn data_that_panic_are_not_replayed() {
    struct Torn;
    impl bytes::Buf for Torn {
        fn remaining(&self) -> usize {
            1
        }
        fn chunk(&self) -> &[u8] {
            panic!("the data panic")
        }
        fn advance(&mut self, _: usize) {}
    }
    let (mut sent, saved) = Buffered::unboxed().prepare(http_body_util::Full::new(Torn));
    let saved = saved.unwrap();
    let mut poll = || Pin::new(&mut sent).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
    catch_unwind(AssertUnwindSafe(&mut poll)).unwrap_err();
    assert!(!saved.hold());
    assert!(matches!(poll(), Poll::Ready(Some(Err(_)))));
    assert!(matches!(poll(), Poll::Ready(None)));
}

#[test]
fn the_wrapper_goes_to_other_threads_if_the_body_does() {
    fn assert_send<T: Send + Unpin>() {}
    fn assert_sync<T: Send + Sync>() {}
    type Unsync = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;
    assert_send::<ReplayBody<Unsync>>();
    assert_send::<Recording<Unsync>>();
    assert_sync::<ReplayBody<http_body_util::Full<Bytes>>>();
    assert_sync::<Recording<http_body_util::Full<Bytes>>>();
}

/// A body that owns what watches its request, as an upload does that cancels it when it is dropped.
struct Owner(Slot<Recording<Owner>>, u8);

impl Body for Owner {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.1 == 0 {
            return Poll::Ready(None);
        }
        self.1 -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn no_body_is_dropped_under_the_lock() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let slot: Slot<Recording<Owner>> = Slot::default();
        let (mut sent, saved) = Buffered::unboxed().prepare(Owner(slot.clone(), 1));
        *slot.lock().unwrap() = saved;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(_)) = Pin::new(&mut sent).poll_frame(&mut cx) {}
        done.send(()).unwrap();
    });
    assert!(
        ended.recv_timeout(std::time::Duration::from_secs(5)).is_ok(),
        "deadlock: dropped in `put_back` while the passage is locked"
    );
}

#[test]
fn a_body_that_fails_while_it_is_held_is_not_replayed() {
    let slot: Slot<Recording<Script>> = Slot::default();
    let holding = slot.clone();
    let body = refused_while_polled([Act::Fail], move || {
        assert!(holding.lock().unwrap().as_ref().unwrap().hold());
    });
    let (mut sent, saved) = first(body, 9);
    *slot.lock().unwrap() = Some(saved);
    assert_eq!(next(&mut sent), "ab");
    assert!(poll(&mut sent).is_pending());
    let saved = slot.lock().unwrap().take().unwrap();
    assert!(
        saved.into_replay().is_none(),
        "the refusal is given up for a replay that must fail"
    );
}

#[test]
fn a_body_that_panicked_does_not_end_as_if_it_were_complete() {
    let (mut sent, _saved) = first(script([text("ab"), Act::Panic]), 9);
    assert_eq!(next(&mut sent), "ab");
    catch_unwind(AssertUnwindSafe(|| poll(&mut sent))).unwrap_err();
    assert!(!is_end(&mut sent));
}

#[test]
fn what_auto_keeps_is_not_printed() {
    let (_, kept) = super::Auto.prepare(http_body_util::Full::new(Bytes::from_static(b"password=hunter2")));
    let printed = format!("{:?}", kept.unwrap());
    assert!(!printed.contains("hunter2"), "{printed}");
}
