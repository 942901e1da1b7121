//! What recording a body allocates: the passage, the body's box and the tape, however many frames there are.
//!
//! `allocation-counter` replaces the global allocator of this test binary and counts for each thread
//! on its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tower_token::{Buffered, Recording, Replay, ReplayBody};

const KIB: usize = 1 << 10;

/// So many frames of one `Bytes`; of a length that is told, or not.
struct Frames {
    left: usize,
    data: Bytes,
    is_told: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.data.clone()))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_told {
            SizeHint::with_exact((self.left * self.data.len()) as u64)
        } else {
            SizeHint::default()
        }
    }
}

fn frames(left: usize, len: usize, is_told: bool) -> Frames {
    // A first handle is what makes `Bytes` of a `Vec` count its handles, which allocates once.
    let data = Bytes::from(vec![b'x'; len]);
    drop(data.clone());
    Frames { left, data, is_told }
}

/// Polls to the end; where the data of each frame lie.
fn drain(mut body: ReplayBody<Frames>, mut each: impl FnMut(*const u8)) {
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut cx) {
        each(frame.unwrap().data_ref().unwrap().as_ptr());
    }
}

/// Allocations of a body that is sent and then accepted.
fn recorded(body: Frames, limit: usize) -> u64 {
    let mut body = Some(body);
    let info = allocation_counter::measure(|| {
        let (body, kept) = Buffered::unboxed().limit(limit).prepare(body.take().unwrap());
        drain(body, |_| {});
        drop::<Option<Recording<Frames>>>(kept);
    });
    info.count_total
}

/// The passage, the body's box, the tape.
const THREE: u64 = 3;

#[test]
fn the_counter_counts() {
    assert_eq!(allocation_counter::measure(|| drop(Box::new(7))).count_total, 1);
}

#[test]
fn recording_one_frame_or_64_takes_three_allocations() {
    for is_told in [true, false] {
        for (count, len) in [(1, KIB), (2, KIB), (64, 16 * KIB)] {
            let allocated = recorded(frames(count, len, is_told), count * len);
            assert_eq!(allocated, THREE, "{count} frames of {len}, told: {is_told}");
        }
    }
}

/// Room for 64 handles at first, and twice as many each time.
#[test]
fn the_tape_of_a_thousand_frames_grows_four_times() {
    assert_eq!(recorded(frames(1000, KIB, false), 1000 * KIB), THREE + 4);
}

#[test]
fn beyond_the_limit_a_frame_takes_no_allocation() {
    assert!(recorded(frames(1000, KIB, false), 100) <= THREE);
    assert_eq!(recorded(frames(1000, KIB, false), 64 * KIB), THREE);
}

#[test]
fn the_replay_sends_the_very_bytes_of_the_first_attempt() {
    let body = frames(64, 16 * KIB, false);
    let data = body.data.as_ptr();
    let (first, kept) = Buffered::unboxed().limit(64 * 16 * KIB).prepare(body);
    let mut seen = 0;
    let mut same = |at| {
        assert_eq!(at, data);
        seen += 1;
    };
    drain(first, &mut same);
    let kept: Recording<Frames> = kept.unwrap();
    drain(Buffered::unboxed().replay(kept).unwrap(), &mut same);
    assert_eq!(seen, 2 * 64);
}
