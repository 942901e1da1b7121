//! What recording a request body costs: `cargo bench -p tower-token --bench body`.
//!
//! Measured is a body's whole way: made, boxed as clients that fix their body type have it, prepared for
//! its first attempt, polled to its end, dropped, and what was kept dropped as for an accepted request.
//! Frames are clones of one `Bytes`. The first case is the box alone; the second boxes twice, because a
//! recorded body that is typed back is boxed again whoever records it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod table;

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use tower_token::{BoxError, Buffered, Replay};

use table::Case;

type Boxed = UnsyncBoxBody<Bytes, BoxError>;

/// So many frames of one `Bytes`.
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

fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
        black_box(frame.ok());
    }
}

fn case(frames: usize, size: usize, send: impl Fn(Boxed) + 'static) -> Case {
    let data = Bytes::from(vec![b'x'; size]);
    Box::new(move |calls| {
        for _ in 0..calls {
            let data = data.clone();
            send(Boxed::new(black_box(Frames { left: frames, data })));
        }
    })
}

fn cases(frames: usize, size: usize) -> Vec<(&'static str, Case)> {
    let limit = frames * size;
    let recorded = move |limit: usize| {
        move |body| {
            let (body, kept) = Buffered::<Boxed>::via(Boxed::new).limit(limit).prepare(body);
            drain(body);
            drop(kept);
        }
    };
    let unboxed = move |body| {
        let (body, kept) = Buffered::unboxed().limit(limit).prepare(body);
        drain(body);
        drop::<Option<tower_token::Recording<Boxed>>>(kept);
    };
    vec![
        ("boxed", case(frames, size, drain)),
        ("boxed twice", case(frames, size, |body| drain(Boxed::new(body)))),
        ("Buffered::unboxed", case(frames, size, unboxed)),
        ("Buffered::via", case(frames, size, recorded(limit))),
        ("Buffered::via, over the limit", case(frames, size, recorded(size / 2))),
    ]
}

fn main() {
    for (name, frames, size) in [("1 KiB", 1, 1024), ("1 MiB in 16 KiB frames", 64, 16 * 1024)] {
        println!("\n{name}");
        table::run(name, 20_000 / frames as u64, "boxed twice", || cases(frames, size));
    }
}
