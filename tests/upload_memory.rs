//! What a recorded upload costs in memory: no more than its limit and 64 KiB, at its peak.
//!
//! `allocation-counter` replaces the global allocator of this test binary and counts for each thread on
//! its own. The frames own their memory, each in an allocation of its own.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use tokio::runtime::Runtime;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_token::{Buffered, Never, Origins, Token, TokenLayer, Tokens, provider_fn};

type Upload = UnsyncBoxBody<Bytes, BoxError>;

const KIB: usize = 1 << 10;
const LIMIT: usize = 64 * KIB;
const MORE: usize = 64 * KIB;

/// Frames of these lengths by turns, made as they are polled, up to so many bytes.
#[derive(Clone)]
struct Frames {
    lengths: &'static [usize],
    turn: usize,
    left: usize,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let len = self.lengths[self.turn % self.lengths.len()].min(self.left);
        self.turn += 1;
        self.left -= len;
        Poll::Ready(Some(Ok(Frame::data(vec![7; len].into()))))
    }
}

/// What a server does with the upload.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    Accepts,
    /// Refuses `test-1` once it has read so many bytes, and accepts all else.
    Refuses(usize),
    RefusesAll,
}

/// The peak of the whole exchange: bytes asked for, and 16 for each allocation, because an allocator
/// needs room for itself.
fn peak(runtime: &Runtime, frames: &Frames, server: Server, layer: Option<usize>) -> (u64, StatusCode, usize) {
    let tokens = tokens(runtime);
    let origins = Origins::only("https://api.example.com").unwrap();
    let upstream = service_fn(move |request: Request<Upload>| async move {
        let (head, mut body) = request.into_parts();
        let refused = match server {
            Server::Accepts => false,
            Server::Refuses(_) => head.headers["authorization"] == "Bearer test-1",
            Server::RefusesAll => true,
        };
        let stops_at = match server {
            Server::Refuses(bytes) if refused => bytes,
            _ => usize::MAX,
        };
        let mut read = 0;
        while read < stops_at {
            match body.frame().await {
                Some(frame) => read += frame?.data_ref().map_or(0, Bytes::len),
                None => break,
            }
        }
        let mut answer = Response::new(Empty::<Bytes>::new());
        answer.extensions_mut().insert(read);
        if refused {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, BoxError>(answer)
    });
    let layer_of = TokenLayer::new(&tokens, origins);
    let request = Request::put("https://api.example.com/")
        .body(Upload::new(frames.clone()))
        .unwrap();
    let mut ended = None;
    let info = allocation_counter::measure(|| {
        let answer = match layer {
            Some(limit) => {
                let client = layer_of.replay(Buffered::via(Upload::new).limit(limit)).layer(upstream);
                runtime.block_on(client.oneshot(request))
            }
            None => runtime.block_on(layer_of.replay(Never).layer(upstream).oneshot(request)),
        };
        let answer = answer.unwrap();
        ended = Some((answer.status(), *answer.extensions().get::<usize>().unwrap()));
    });
    let (status, read) = ended.unwrap();
    (info.bytes_max + 16 * info.count_max, status, read)
}

/// `test-1` is there, `test-2` comes at once.
fn tokens(runtime: &Runtime) -> Tokens {
    let nth = std::sync::atomic::AtomicUsize::new(1);
    let tokens = Tokens::new(provider_fn(move |_| {
        let nth = nth.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { Ok(Token::bearer(format!("test-{nth}")).expires_in(Duration::from_secs(3600))) }
    }));
    let tokens = tokens.unwrap();
    runtime.block_on(tokens.get()).unwrap();
    tokens
}

const SHAPES: [&[usize]; 12] = [
    &[1],
    &[2, 1],
    &[16],
    &[255],
    &[256],
    // Each of the small ones stands alone between two that are not.
    &[1, 256],
    &[1, 256, 1, 300],
    &[255, 256],
    &[1000],
    &[4 * KIB],
    &[16 * KIB],
    &[64 * KIB],
];

#[test]
fn an_upload_that_is_recorded_takes_its_limit_and_64_kib_at_most() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut worst = 0;
    for lengths in SHAPES {
        for (len, server, status, read) in [
            // As much as can be kept, refused at the end, and replayed.
            (LIMIT, Server::Refuses(LIMIT), 200, LIMIT),
            // Refused while half of it was not sent: the rest does not go through the tape.
            (2 * LIMIT, Server::Refuses(LIMIT - KIB), 200, 2 * LIMIT),
            (4 * LIMIT, Server::Refuses(LIMIT / 2), 200, 4 * LIMIT),
            // Both attempts refused.
            (LIMIT, Server::RefusesAll, 401, LIMIT),
            // More than can be kept.
            (LIMIT + 1, Server::RefusesAll, 401, LIMIT + 1),
            (4 * LIMIT, Server::Refuses(usize::MAX), 401, 4 * LIMIT),
            (4 * LIMIT, Server::Accepts, 200, 4 * LIMIT),
        ] {
            let frames = Frames {
                lengths,
                turn: 0,
                left: len,
            };
            let (bare, ..) = peak(&runtime, &frames, server, None);
            let (recorded, ended, got) = peak(&runtime, &frames, server, Some(LIMIT));
            assert_eq!((ended.as_u16(), got), (status, read), "{lengths:?} {len} {server:?}");
            let more = recorded.saturating_sub(bare);
            worst = worst.max(more);
            assert!(
                more <= (LIMIT + MORE) as u64,
                "{more} for {lengths:?}, {len}, {server:?}"
            );
        }
    }
    println!("at worst {worst} bytes more than without recording");
}

/// What the small frames cost beside their bytes is what grows with the limit.
#[test]
fn so_does_one_with_another_limit() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    for limit in [0, 1, 1000, 32 * KIB] {
        for lengths in SHAPES {
            let frames = Frames {
                lengths,
                turn: 0,
                left: limit,
            };
            let (bare, ..) = peak(&runtime, &frames, Server::RefusesAll, None);
            let (recorded, ..) = peak(&runtime, &frames, Server::RefusesAll, Some(limit));
            let more = recorded.saturating_sub(bare);
            assert!(more <= (limit + MORE) as u64, "{more} for {lengths:?}, {limit}");
        }
    }
}
