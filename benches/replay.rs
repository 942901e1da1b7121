//! What keeping a request body for a replay costs: `cargo bench -p tower-token --bench replay`.
//!
//! A body is prepared for its first attempt, polled to its end, dropped, and what was kept of it is dropped as
//! for an accepted request. Frames are clones of one `Bytes`. The first case is the bare body, whose own type the
//! client knows; clients that fix their body type have it boxed, and a recorded one that is typed back is boxed
//! again whoever records it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod table;

use std::hint::black_box;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use tower_token::{BoxError, Buffered, CloneBody, Recording, Replay};

use table::Case;
use table::figures::Figures;

type Boxed = UnsyncBoxBody<Bytes, BoxError>;

/// So many frames of one `Bytes`.
#[derive(Clone)]
struct Frames {
    left: usize,
    data: Bytes,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.data.clone()))))
    }
}

/// Frames that somebody looks at as they pass.
struct Watched<F> {
    frames: Frames,
    watch: F,
}

impl<F: FnMut(&Bytes) + Unpin> Body for Watched<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.frames).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            (self.watch)(data);
        }
        polled
    }
}

/// The least that keeps a body: a handle on each frame, in a list with room for all of them.
fn listed(frames: Frames) {
    let mut list = Vec::with_capacity(frames.left);
    let watch = |data: &Bytes| list.push(data.clone());
    drain(Watched { frames, watch });
}

/// The same for a list that somebody else may take, at any time: one lock a frame.
fn shared(frames: Frames) {
    let list = Arc::new(Mutex::new(Vec::with_capacity(frames.left)));
    let kept = list.clone();
    let watch = move |data: &Bytes| list.lock().unwrap().push(data.clone());
    drain(Watched { frames, watch });
    drop(kept);
}

fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
        black_box(frame.ok());
    }
}

/// Sends it, and is told only then that it was accepted.
fn sent<B, R: Replay<B>>(replay: &R, body: B)
where
    R::Body: Body<Data = Bytes> + Unpin,
{
    let (body, kept) = replay.prepare(body);
    drain(body);
    drop(kept);
}

/// Is told at once that it was accepted, as it is with a long upload.
fn accepted(body: Boxed) {
    let (body, kept) = Buffered::<Boxed>::via(Boxed::new).prepare(body);
    drop::<Option<Recording<Boxed>>>(kept);
    drain(body);
}

/// A body of so many frames, and what is done with it.
fn case(frames: usize, size: usize, send: impl Fn(Frames) + 'static) -> Case {
    let data = Bytes::from(vec![b'x'; size]);
    Box::new(move |calls| {
        for _ in 0..calls {
            let data = data.clone();
            send(black_box(Frames { left: frames, data }));
        }
    })
}

fn cases(frames: usize, size: usize) -> Vec<(&'static str, Case)> {
    let all = frames * size;
    let unboxed = move |limit| move |body| sent::<Frames, _>(&Buffered::unboxed().limit(limit), body);
    let via = move |limit| move |body| sent(&Buffered::<Boxed>::via(Boxed::new).limit(limit), Boxed::new(body));
    vec![
        ("bare", case(frames, size, drain)),
        ("CloneBody", case(frames, size, |body| sent(&CloneBody, body))),
        ("floor: a list of handles", case(frames, size, listed)),
        ("floor: the same behind a lock", case(frames, size, shared)),
        ("boxed", case(frames, size, |body| drain(Boxed::new(body)))),
        (
            "boxed twice",
            case(frames, size, |body| drain(Boxed::new(Boxed::new(body)))),
        ),
        ("Buffered::unboxed", case(frames, size, unboxed(all))),
        (
            "Buffered::unboxed, over the limit",
            case(frames, size, unboxed(size / 2)),
        ),
        ("Buffered::via", case(frames, size, via(all))),
        ("Buffered::via, over the limit", case(frames, size, via(size / 2))),
        (
            "Buffered::via, accepted",
            case(frames, size, |body| accepted(Boxed::new(body))),
        ),
    ]
}

/// A body that lies in memory.
fn in_memory(size: usize) -> Vec<(&'static str, Case)> {
    let full = |send: fn(Full<Bytes>)| -> Case {
        let data = Bytes::from(vec![b'x'; size]);
        Box::new(move |calls| {
            for _ in 0..calls {
                send(black_box(Full::new(data.clone())));
            }
        })
    };
    vec![
        ("bare", full(drain)),
        ("CloneBody", full(|body| sent(&CloneBody, body))),
    ]
}

/// Allocations of one call, after a first one.
fn allocations(case: &mut Case) -> f64 {
    case(1);
    allocation_counter::measure(|| case(1)).count_total as f64
}

fn main() {
    let mut rows = Vec::new();
    let mut group = |name: &str, frames: usize, cases: &dyn Fn() -> Vec<(&'static str, Case)>| {
        println!("\n{name}");
        let measured = table::run(name, 20_000 / frames as u64, "CloneBody", cases);
        for (row, (_, case)) in measured.into_iter().flatten().zip(&mut cases()) {
            let cells = [row.ns, row.net / frames as f64, row.first, allocations(case)];
            rows.push((format!("{name}: {}", row.case), cells.map(Some).to_vec()));
        }
    };
    for (name, frames, size) in [("1 KiB", 1, 1024), ("1 MiB in 16 KiB frames", 64, 16 * 1024)] {
        group(name, frames, &|| cases(frames, size));
    }
    group("1 MiB of `Full<Bytes>`", 1, &|| in_memory(1024 * 1024));
    if rows.is_empty() {
        return;
    }
    let figures = Figures {
        name: "replay",
        about: "A request body kept for a replay: prepared, polled to its end, and accepted. The ratio is to the bare \
                body, unboxed and unrecorded, in the same round.",
        columns: vec!["ns", "ns a frame over the bare body", "ratio", "allocations"],
        rows,
    };
    figures.write();
}
