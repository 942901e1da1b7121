//! A body that does what it is told, and a reader that says what it got.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// No body is longer.
pub(crate) const LONGEST: u64 = 8 * MIB;

// ===== What is sent =====

/// Random bytes. Bodies are slices of one pool, so that no time goes into making them.
pub(crate) fn content(random: &mut fastrand::Rng, len: u64) -> Bytes {
    static POOL: OnceLock<Bytes> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let mut bytes = vec![0; (LONGEST + MIB) as usize];
        fastrand::Rng::with_seed(1).fill(&mut bytes);
        bytes.into()
    });
    let from = random.usize(0..=pool.len() - len as usize);
    pool.slice(from..from + len as usize)
}

/// The same bytes in frames of one of many kinds: about `most` at most, because polls are what takes time.
/// If there may be many, empty ones are among them.
pub(crate) fn cut(random: &mut fastrand::Rng, mut bytes: Bytes, most: usize) -> Vec<Bytes> {
    let widest = match random.u8(0..6) {
        0 => bytes.len(),
        1 => bytes.len() / 500 + 3,
        2 => bytes.len() / 500 + 300,
        3 => 16 << 10,
        4 => 64 << 10,
        _ => 1 << 20,
    };
    let widest = widest.max(2 * bytes.len() / most).max(1);
    let same = random.bool();
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        if most > 20 && random.u8(0..16) == 0 {
            frames.push(Bytes::new());
        }
        let width = if same { widest } else { random.usize(1..=widest) };
        frames.push(bytes.split_to(width.min(bytes.len())));
    }
    frames
}

pub(crate) fn trailers(random: &mut fastrand::Rng) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for nth in 0..random.u8(1..4) {
        let value = format!("{nth} {:x}", random.u64(..));
        trailers.append(TRAILER, HeaderValue::from_str(&value).unwrap());
    }
    trailers.insert("x-size", random.u64(..).into());
    trailers
}

/// HTTP/1.1 announces trailers by name.
pub(crate) const TRAILERS: &str = "x-checksum, x-size";
const TRAILER: HeaderName = HeaderName::from_static("x-checksum");

/// What a body does at one poll, or over several.
#[derive(Clone, Debug)]
pub(crate) enum Beat {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Pending, and woken at once.
    Yield,
    /// Pending for so long.
    Sleep(Duration),
    /// Pending until the [gate](Script::gated) opens.
    Gate,
    Fail,
    Panic,
}

/// What a body says that was told to [`Beat::Panic`].
pub(crate) const PANIC: &str = "the body panics as told";

/// The error of a body that was told to [`Beat::Fail`].
#[derive(Debug)]
pub(crate) struct AsTold;

impl fmt::Display for AsTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed as told")
    }
}

impl std::error::Error for AsTold {}

/// How far a body was read, for those who do not hold it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    over: AtomicBool,
    dropped: AtomicBool,
}

impl Progress {
    /// Bytes of data that were taken from the body.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::SeqCst)
    }
}

/// A body that goes through its beats. It panics if it is polled after its end.
pub(crate) struct Script {
    beats: VecDeque<Beat>,
    /// Its length, if it tells.
    left: Option<u64>,
    pause: Option<Pause>,
    gate: Option<watch::Receiver<bool>>,
    progress: Arc<Progress>,
}

type Pause = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl Script {
    /// Of unknown length.
    pub(crate) fn new(beats: impl IntoIterator<Item = Beat>) -> Self {
        Self {
            beats: beats.into_iter().collect(),
            left: None,
            pause: None,
            gate: None,
            progress: Arc::default(),
        }
    }

    pub(crate) fn of(frames: impl IntoIterator<Item = Bytes>) -> Self {
        Self::new(frames.into_iter().map(Beat::Data))
    }

    /// Tells its length.
    pub(crate) fn sized(mut self) -> Self {
        let data = self.beats.iter().map(|beat| match beat {
            Beat::Data(data) => data.len() as u64,
            _ => 0,
        });
        self.left = Some(data.sum());
        self
    }

    /// Tells a length that it may not have.
    pub(crate) fn claiming(mut self, len: u64) -> Self {
        self.left = Some(len);
        self
    }

    /// The gate that [`Beat::Gate`] waits for: open once it is true.
    pub(crate) fn gated(mut self, gate: watch::Receiver<bool>) -> Self {
        self.gate = Some(gate);
        self
    }

    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// What a reader of all of it sees, unless it fails.
    pub(crate) fn seen_whole(&self) -> Seen {
        let mut data = Vec::new();
        let mut trailers = None;
        for beat in &self.beats {
            match beat {
                Beat::Data(frame) => data.extend_from_slice(frame),
                Beat::Trailers(last) => trailers = Some(last),
                _ => {}
            }
        }
        Seen::whole(&data, trailers)
    }

    fn over(&self) {
        self.progress.over.store(true, Ordering::SeqCst);
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("beats", &self.beats)
            .finish_non_exhaustive()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.progress.dropped.store(true, Ordering::SeqCst);
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = AsTold;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AsTold>>> {
        let this = &mut *self;
        assert!(!this.progress.over.load(Ordering::SeqCst), "polled after its end");
        if let Some(pause) = &mut this.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        match this.beats.pop_front() {
            Some(Beat::Data(data)) => {
                let len = data.len() as u64;
                this.progress.bytes.fetch_add(len, Ordering::SeqCst);
                this.left = this.left.map(|left| left.saturating_sub(len));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Beat::Trailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(Beat::Yield) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Beat::Sleep(time)) => {
                this.pause = Some(Box::pin(sleep(time)));
                self.as_mut().poll_frame(cx)
            }
            Some(Beat::Gate) => {
                let gate = this.gate.clone();
                this.pause = Some(Box::pin(async move {
                    match gate {
                        Some(mut gate) => drop(gate.wait_for(|open| *open).await),
                        None => std::future::pending().await,
                    }
                }));
                self.as_mut().poll_frame(cx)
            }
            Some(Beat::Fail) => {
                this.over();
                Poll::Ready(Some(Err(AsTold)))
            }
            Some(Beat::Panic) => {
                this.over();
                std::panic::panic_any(PANIC);
            }
            None => {
                this.over();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.beats.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

// ===== What arrives =====

/// What was read of a body.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) bytes: u64,
    pub(crate) sha: [u8; 32],
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    Failed,
}

impl Seen {
    /// All of it, as it was sent.
    pub(crate) fn whole(bytes: &[u8], trailers: Option<&HeaderMap>) -> Self {
        Self {
            bytes: bytes.len() as u64,
            sha: Sha256::digest(bytes).into(),
            trailers: trailers.cloned(),
            end: Some(End::Whole),
        }
    }

    /// Whether it is what `sent` begins with.
    pub(crate) fn begins(&self, sent: &[u8]) -> bool {
        let begin = sent.get(..self.bytes as usize);
        begin.is_some_and(|begin| <[u8; 32]>::from(Sha256::digest(begin)) == self.sha)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.sha;
        let end = self.end.map_or("going on", |end| match end {
            End::Whole => "whole",
            End::Failed => "failed",
        });
        write!(f, "{} bytes {a:02x}{b:02x}{c:02x}.. {end}", self.bytes)?;
        self.trailers.iter().try_for_each(|trailers| write!(f, " {trailers:?}"))
    }
}

/// How a reader takes its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Steady,
    /// Lets others run between frames.
    Polite,
    /// Sleeps between some frames.
    Slow,
    /// Gives up a poll that takes long, and asks again later.
    Impatient,
}

impl Pace {
    pub(crate) fn any(random: &mut fastrand::Rng) -> Self {
        [Self::Steady, Self::Polite, Self::Slow, Self::Impatient][random.usize(0..4)]
    }
}

pub(crate) struct Reader<B> {
    body: B,
    random: fastrand::Rng,
    pace: Pace,
    believes: bool,
    sha: Sha256,
    bytes: u64,
    trailers: Option<HeaderMap>,
    end: Option<End>,
}

impl<B: Body<Data = Bytes> + Unpin> Reader<B> {
    pub(crate) fn new(body: B, pace: Pace) -> Self {
        Self {
            body,
            random: fastrand::Rng::with_seed(7),
            pace,
            believes: false,
            sha: Sha256::new(),
            bytes: 0,
            trailers: None,
            end: None,
        }
    }

    /// Believes a body that says it has ended, and does not poll it again.
    pub(crate) fn believing(mut self, believes: bool) -> Self {
        self.believes = believes;
        self
    }

    /// Reads until it has so many bytes, or all there are. For none it does not even begin.
    pub(crate) async fn read_to(&mut self, bytes: u64) {
        while self.bytes < bytes && self.frame().await {}
    }

    /// Reads so many frames.
    pub(crate) async fn frames(&mut self, frames: usize) {
        for _ in 0..frames {
            if !self.frame().await {
                break;
            }
        }
    }

    pub(crate) async fn read_to_end(&mut self) -> Seen {
        while self.frame().await {}
        self.seen()
    }

    pub(crate) fn seen(&self) -> Seen {
        Seen {
            bytes: self.bytes,
            sha: self.sha.clone().finalize().into(),
            trailers: self.trailers.clone(),
            end: self.end,
        }
    }

    /// Whether there was another one.
    async fn frame(&mut self) -> bool {
        if self.believes && self.body.is_end_stream() {
            self.end.get_or_insert(End::Whole);
        }
        if self.end.is_some() {
            return false;
        }
        match self.pace {
            Pace::Steady | Pace::Impatient => {}
            Pace::Polite => tokio::task::yield_now().await,
            Pace::Slow if self.random.u8(0..16) == 0 => sleep(Duration::from_millis(self.random.u64(0..20))).await,
            Pace::Slow => {}
        }
        let frame = match self.pace {
            Pace::Impatient => {
                let mut patience = Duration::from_millis(1);
                loop {
                    if let Ok(frame) = timeout(patience, self.body.frame()).await {
                        break frame;
                    }
                    patience *= 2;
                }
            }
            _ => self.body.frame().await,
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    assert_eq!(self.trailers, None, "data after the trailers");
                    self.bytes += data.len() as u64;
                    self.sha.update(&data);
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            },
            Some(Err(_)) => self.end = Some(End::Failed),
            None => self.end = Some(End::Whole),
        }
        self.end.is_none()
    }
}
