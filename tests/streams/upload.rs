//! Uploads whose token is revoked at some byte, and what has to become of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_token::{Buffered, Origins, RefreshPolicy, Token, TokenLayer, Tokens, provider_fn};

use super::script::{self, Beat, End, KIB, MIB, Pace, Progress, Reader, Script, Seen, content, cut};
use super::wire::Ending;

// ===== What is uploaded =====

/// One upload: its body, and how the server attends to it.
pub(crate) struct Upload {
    pub(crate) number: u64,
    wire: Wire,
    pub(crate) content: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) sized: bool,
    /// What the layer may keep; `None` for the default.
    pub(crate) limit: Option<usize>,
    beats: Vec<Beat>,
    /// Where the token is revoked; `None` if that is after the server looked.
    revoked_at: Option<u64>,
    attendance: [Attendance; 2],
    /// How long a renewal takes.
    renewal: Duration,
    /// Whether there is a token before the upload begins.
    prefetched: bool,
    /// When the client sends what the server did not wait for.
    gate: Gate,
}

/// Behind the bytes that the server waits for, an upload may have a gate. So it is still being sent when
/// the answer comes, however fast the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    None,
    /// Opens with the first answer.
    Answered,
    /// Opens with the second delivery, or when all is over.
    Replayed,
}

/// How a server attends to one delivery.
#[derive(Clone, Copy, Debug)]
struct Attendance {
    /// Answers once it has so many bytes; `None`: all.
    answers_at: Option<u64>,
    after: After,
    pace: Pace,
    /// Another task reads, so that the answer and the next frame race.
    races: bool,
    /// Does not poll a body that says it has ended.
    believes: bool,
}

/// What becomes of the body once the answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Drops,
    /// Keeps it, and does not go on until everything else is over. Over HTTP/1.1 only for a moment: all
    /// of the body may be on the connection, and the replay behind it.
    Holds,
    /// Reads on to the end.
    Drains,
}

/// The way an upload takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// In virtual time, so that what was sent when is known exactly.
    InProcess,
    /// In process too, but on several threads.
    Threads,
    Http1,
    Http2,
}

impl Wire {
    fn is_socket(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2)
    }

    /// Nothing takes as long but what hangs. Virtual time comes here in no time.
    fn too_long(self) -> Duration {
        Duration::from_secs(if self == Self::InProcess { 86_400 } else { 120 })
    }

    /// An HTTP/2 peer takes many small frames that nobody reads for an attack.
    fn frames(self) -> usize {
        if self == Self::Http2 { 20 } else { 1_000 }
    }
}

/// What the layer may keep unless it is told otherwise.
const DEFAULT_LIMIT: u64 = 64 * KIB;

impl Upload {
    /// The `number`th of all uploads, of so many bytes at most. The same number is the same upload.
    pub(crate) fn nth(number: u64, longest: u64, wire: Wire) -> Arc<Self> {
        let mut random = fastrand::Rng::with_seed(number);
        let random = &mut random;
        let limit = match random.u8(0..8) {
            0..4 => None,
            4..7 => Some(16 * MIB),
            _ => Some(random.u64(0..=100_000)),
        };
        let most = limit.unwrap_or(DEFAULT_LIMIT);
        let len = match number % 25 {
            0 => 0,
            1 => 1,
            2 => most.saturating_sub(1),
            3 => most,
            4 => most + 1,
            _ => (random.f64() * ((longest + 1) as f64).ln()).exp() as u64 - 1,
        };
        let len = len.min(longest);
        let content = content(random, len);
        let sized = random.bool();
        // HTTP/1.1 has no trailers beside a content-length.
        let trailers = (random.u8(0..10) == 0 && !(sized && wire == Wire::Http1)).then(|| script::trailers(random));
        let accepted = random.u8(0..10) == 0;
        let early = random.bool();
        let revoked_at = random.u64(0..=len);
        let first = Attendance {
            answers_at: early.then_some(revoked_at),
            ..Attendance::any(random, wire)
        };
        // The replay is answered early now and then as well; hyper's client may cut off the rest of it.
        let second = Attendance {
            answers_at: (random.u8(0..8) == 0 && !wire.is_socket()).then(|| random.u64(0..=len)),
            after: After::Drains,
            ..Attendance::any(random, wire)
        };
        let gate = [Gate::None, Gate::Answered, Gate::Replayed, Gate::Replayed][random.usize(0..4)];
        let gate = if early { gate } else { Gate::None };
        let gate_at = (gate != Gate::None).then_some(revoked_at);
        Arc::new(Self {
            number,
            wire,
            beats: beats(random, &content, trailers.as_ref(), wire, gate_at),
            content,
            trailers,
            sized,
            limit: limit.map(|limit| limit as usize),
            revoked_at: (!accepted).then_some(revoked_at),
            attendance: [first, second],
            renewal: match wire {
                Wire::InProcess => Duration::from_millis(random.u64(0..2_000)),
                _ => Duration::from_millis(random.u64(0..5)),
            },
            prefetched: random.bool(),
            gate,
        })
    }

    fn limit(&self) -> u64 {
        self.limit.map_or(DEFAULT_LIMIT, |limit| limit as u64)
    }

    fn body(&self, gate: watch::Receiver<bool>) -> Script {
        let body = Script::new(self.beats.clone()).gated(gate);
        if self.sized { body.sized() } else { body }
    }

    /// All of it.
    fn whole(&self) -> Seen {
        Seen::whole(&self.content, self.trailers.as_ref())
    }

    /// Whether the server refuses a delivery with this token.
    fn refuses(&self, token: &str) -> bool {
        self.revoked_at.is_some() && token == "test-1"
    }

    /// The server's answer to the `nth` delivery: something to lose in every part.
    fn answer(&self, nth: usize, refused: bool) -> Response<Script> {
        let mut random = fastrand::Rng::with_seed(self.number << 1 | nth as u64);
        let len = random.u64(0..40_000);
        let body = content(&mut random, len);
        let mut beats = Vec::new();
        for frame in cut(&mut random, body, 20) {
            beats.extend([Beat::Yield, Beat::Data(frame)]);
        }
        let mut response = Response::new(Script::new(beats));
        let headers = response.headers_mut();
        headers.insert("x-nth", nth.into());
        headers.append(header::SET_COOKIE, "a=1".parse().unwrap());
        headers.append(header::SET_COOKIE, "b=2".parse().unwrap());
        if refused {
            let challenge = "Bearer error=\"invalid_token\", realm=\"uploads\"";
            headers.insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    }
}

impl Attendance {
    fn any(random: &mut fastrand::Rng, wire: Wire) -> Self {
        let after = [After::Drops, After::Holds, After::Drains][random.usize(0..3)];
        Self {
            answers_at: None,
            // An HTTP/1.1 server that drops a body cuts the connection, maybe with its answer still on the way.
            after: if wire == Wire::Http1 && after == After::Drops {
                After::Drains
            } else {
                after
            },
            pace: Pace::any(random),
            races: random.u8(0..4) == 0,
            // hyper's server does not end a body of known length once its connection is idle again.
            believes: wire == Wire::Http1 || random.bool(),
        }
    }
}

/// The frames, with a pause here and there.
fn beats(
    random: &mut fastrand::Rng,
    content: &Bytes,
    trailers: Option<&HeaderMap>,
    wire: Wire,
    mut gate_at: Option<u64>,
) -> Vec<Beat> {
    let frames = cut(random, content.clone(), wire.frames());
    let pauses = random.bool();
    let mut beats = Vec::new();
    let longest = if wire == Wire::InProcess { 3_000 } else { 2 };
    let mut pause = |beats: &mut Vec<Beat>| match random.u8(0..24) {
        0 if pauses => beats.push(Beat::Sleep(Duration::from_millis(random.u64(0..longest)))),
        1..4 if pauses => beats.push(Beat::Yield),
        _ => {}
    };
    let mut at = 0;
    for frame in frames {
        pause(&mut beats);
        if gate_at.take_if(|gate| *gate <= at).is_some() {
            beats.push(Beat::Gate);
        }
        at += frame.len() as u64;
        beats.push(Beat::Data(frame));
    }
    pause(&mut beats);
    if gate_at.is_some() {
        beats.push(Beat::Gate);
    }
    if let Some(trailers) = trailers {
        beats.push(Beat::Trailers(trailers.clone()));
        pause(&mut beats);
    }
    beats
}

// ===== The server =====

/// What the server knows of one upload.
pub(crate) struct Case {
    pub(crate) upload: Arc<Upload>,
    deliveries: Mutex<Vec<Delivery>>,
    progress: Arc<Progress>,
    /// Tasks that have a body.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// True once bodies that were held are to be read on.
    released: watch::Sender<bool>,
    gate: watch::Sender<bool>,
    /// Of the HTTP/1.1 connections that it came over.
    endings: Mutex<Vec<Ending>>,
}

#[derive(Clone, Debug)]
struct Delivery {
    token: String,
    /// What the body said of its length, or its head did.
    length: Option<u64>,
    empty: bool,
    refused: bool,
    /// How much of the body had been taken when the answer was made.
    taken: u64,
    /// What was read of it in the end.
    read: Option<Seen>,
}

impl Case {
    /// And the body that is uploaded.
    fn new(upload: Arc<Upload>) -> (Arc<Self>, Script) {
        let gate = watch::Sender::new(false);
        let body = upload.body(gate.subscribe());
        let case = Self {
            upload,
            deliveries: Mutex::default(),
            progress: body.progress(),
            tasks: Mutex::default(),
            released: watch::Sender::new(false),
            gate,
            endings: Mutex::default(),
        };
        (Arc::new(case), body)
    }

    /// Answers as the upload's script says.
    pub(crate) async fn attend<B>(self: Arc<Self>, request: Request<B>) -> Response<Script>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let (head, body) = request.into_parts();
        if head.version == Version::HTTP_11 {
            self.endings.lock().unwrap().extend(head.extensions.get().cloned());
        }
        let token = super::wire::bearer(&head.headers);
        let refused = self.upload.refuses(&token);
        let delivery = Delivery {
            token,
            length: body.size_hint().exact(),
            empty: body.is_end_stream(),
            refused,
            taken: 0,
            read: None,
        };
        let nth = {
            let mut deliveries = self.deliveries.lock().unwrap();
            deliveries.push(delivery);
            deliveries.len()
        };
        if nth == 2 {
            self.gate.send_replace(true);
        }
        let attendance = self.upload.attendance[nth.min(2) - 1];
        let mut reader = Reader::new(body, attendance.pace).believing(attendance.believes);
        match attendance.answers_at {
            Some(bytes) => reader.read_to(bytes).await,
            None => drop(reader.read_to_end().await),
        }
        self.with(nth, |delivery| delivery.taken = self.progress.bytes());
        self.clone().afterwards(nth, attendance, reader);
        if attendance.races {
            tokio::task::yield_now().await;
            self.with(nth, |delivery| delivery.taken = self.progress.bytes());
        }
        if self.upload.gate == Gate::Answered {
            self.gate.send_replace(true);
        }
        self.upload.answer(nth, refused)
    }

    fn afterwards<B>(self: Arc<Self>, nth: usize, attendance: Attendance, mut reader: Reader<B>)
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let case = self.clone();
        let mut released = self.released.subscribe();
        let held = Duration::from_millis(if self.upload.wire == Wire::Http1 { 20 } else { u64::MAX });
        let task = async move {
            let seen = match attendance.after {
                After::Drops => reader.seen(),
                After::Holds => {
                    timeout(held, released.wait_for(|released| *released)).await.ok();
                    reader.read_to_end().await
                }
                After::Drains => reader.read_to_end().await,
            };
            case.with(nth, |delivery| delivery.read = Some(seen));
        };
        if attendance.after == After::Drops {
            // Before the answer leaves.
            now(task);
        } else {
            self.tasks.lock().unwrap().push(tokio::spawn(task));
        }
    }

    fn with(&self, nth: usize, change: impl FnOnce(&mut Delivery)) {
        change(&mut self.deliveries.lock().unwrap()[nth - 1]);
    }

    /// Waits until no body of it is read any more. All answers are there by now.
    async fn settled(&self) {
        self.gate.send_replace(true);
        self.endings.lock().unwrap().iter().for_each(Ending::begin);
        loop {
            let Some(task) = self.tasks.lock().unwrap().pop() else {
                break;
            };
            if !task.is_finished() {
                self.released.send_replace(true);
            }
            task.await.unwrap();
        }
    }
}

/// Runs what does not wait.
fn now(task: impl Future<Output = ()>) {
    let task = std::pin::pin!(task).poll(&mut Context::from_waker(Waker::noop()));
    assert!(task.is_ready());
}

/// The server in process. It is strict: being ready takes two polls, and a clone is not ready.
pub(crate) struct InProcess {
    case: Arc<Case>,
    polls: u8,
}

impl InProcess {
    pub(crate) fn new(case: &Arc<Case>) -> Self {
        Self {
            case: case.clone(),
            polls: 0,
        }
    }
}

impl Clone for InProcess {
    fn clone(&self) -> Self {
        Self::new(&self.case)
    }
}

impl<B> Service<Request<B>> for InProcess
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<Script>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Script>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.polls == 0 {
            self.polls = 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.polls = 2;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert_eq!(self.polls, 2, "called without having been polled ready");
        self.polls = 0;
        let case = self.case.clone();
        Box::pin(async move { Ok(case.attend(request).await) })
    }
}

// ===== The judge =====

/// How uploads ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) accepted: usize,
    pub(crate) replayed: usize,
    pub(crate) handed_back: usize,
    /// Replays whose first attempt had not sent all of its body.
    pub(crate) taken_over: usize,
    /// Bytes of data that the server has read.
    pub(crate) read: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.replayed += other.replayed;
        self.handed_back += other.handed_back;
        self.taken_over += other.taken_over;
        self.read += other.read;
    }
}

impl Case {
    /// What became of the upload, once it is over. Panics if it is not what had to become of it.
    fn judge(&self, answer: &Response<Seen>, fetches: usize) -> Tally {
        let upload = &*self.upload;
        let wire = upload.wire;
        let deliveries = self.deliveries.lock().unwrap();
        let what = || format!("upload {} over {wire:?}: {deliveries:#?}", upload.number);
        let mut tally = Tally::default();
        let first = &deliveries[0];
        match (first.refused, deliveries.len()) {
            (false, 1) => tally.accepted = 1,
            (true, 1) => {
                tally.handed_back = 1;
                // Nothing but its length keeps an upload from being replayed.
                let taken = if wire == Wire::InProcess {
                    first.taken
                } else {
                    self.progress.bytes()
                };
                assert!(taken > upload.limit(), "{}", what());
            }
            (true, 2) => {
                tally.replayed = 1;
                let second = &deliveries[1];
                assert_eq!(second.read, Some(upload.whole()), "{}", what());
                assert_eq!((first.token.as_str(), second.token.as_str()), ("test-1", "test-2"));
                // What turned out to be empty has a test of its own.
                if !upload.content.is_empty() {
                    assert_eq!((first.length, first.empty), (second.length, second.empty), "{}", what());
                }
                if wire == Wire::InProcess {
                    assert!(first.taken <= upload.limit(), "{}", what());
                }
                let sent = first.read.as_ref().unwrap().bytes;
                tally.taken_over = usize::from(sent < upload.content.len() as u64);
            }
            _ => panic!("{}", what()),
        }
        for (nth, delivery) in deliveries.iter().enumerate() {
            let read = delivery.read.as_ref().unwrap_or_else(|| panic!("{}", what()));
            tally.read += read.bytes;
            assert!(read.begins(&upload.content), "{}", what());
            // What was cut off must not look like a whole body.
            if read.end == Some(End::Whole) {
                assert_eq!(*read, upload.whole(), "{}", what());
            }
            // Nobody else takes the body, and the server reads on.
            let undisturbed = deliveries.len() == nth + 1 && !wire.is_socket();
            if undisturbed && upload.attendance[nth].after != After::Drops {
                assert_eq!(*read, upload.whole(), "{}", what());
            }
        }
        if upload.sized && first.length.is_some() {
            assert_eq!(first.length, Some(upload.content.len() as u64), "{}", what());
        }
        assert_eq!(fetches, if first.refused { 2 } else { 1 }, "{}", what());
        self.judge_answer(answer, deliveries.len(), deliveries[deliveries.len() - 1].refused);
        tally
    }

    /// The caller has the last answer, with all its headers and all of its body.
    fn judge_answer(&self, answer: &Response<Seen>, nth: usize, refused: bool) {
        let (expected, body) = self.upload.answer(nth, refused).into_parts();
        assert_eq!(answer.status(), expected.status);
        if !self.upload.wire.is_socket() {
            assert_eq!(*answer.headers(), expected.headers);
        }
        for name in expected.headers.keys() {
            let all = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
            assert_eq!(all(answer.headers()), all(&expected.headers));
        }
        assert_eq!(*answer.body(), body.seen_whole(), "upload {}", self.upload.number);
    }
}

/// Sends the upload through the layer to `inner`, and judges what became of it.
pub(crate) async fn send<S, ResBody>(upload: Arc<Upload>, origin: &str, inner: impl FnOnce(&Arc<Case>) -> S) -> Tally
where
    S: Service<Request<Boxed>, Response = Response<ResBody>, Error: Into<BoxError>> + Clone,
    ResBody: Body<Data = Bytes> + Unpin,
{
    let (number, wire) = (upload.number, upload.wire);
    let (case, body) = Case::new(upload.clone());
    let (tokens, fetches) = tokens(upload.renewal);
    let replay = Buffered::via(Boxed::new);
    let replay = match upload.limit {
        Some(limit) => replay.limit(limit),
        None => replay,
    };
    let layer = TokenLayer::new(&tokens, Origins::only(origin).unwrap()).replay(replay);
    let client = layer.layer(inner(&case));
    let mut request = Request::put(format!("{origin}/uploads/{number}")).header("x-upload", number);
    if upload.trailers.is_some() && wire == Wire::Http1 {
        request = request.header(header::TRAILER, script::TRAILERS);
    }
    let request = request.body(Boxed::new(body)).unwrap();
    let all = async {
        if upload.prefetched {
            tokens.get().await.unwrap();
        }
        let answer = client.oneshot(request).await;
        let (head, body) = answer
            .unwrap_or_else(|error| panic!("upload {number}: {error}"))
            .into_parts();
        let body = Reader::new(body, Pace::Steady).read_to_end().await;
        // A refusal that was handed back has renewed the token for the next request.
        tokens.get().await.unwrap();
        case.settled().await;
        Response::from_parts(head, body)
    };
    let answer = timeout(wire.too_long(), all).await.unwrap_or_else(|_| {
        panic!(
            "upload {number} hangs, {:?}: {:#?}",
            upload.attendance,
            case.deliveries.lock().unwrap()
        )
    });
    case.judge(&answer, fetches.load(Ordering::SeqCst))
}

/// The kind of body that programs have: any other in a box, neither `Sync` nor `Clone`.
///
/// A type of its own, as those of axum, tonic and reqwest are: of a future whose type spells out `BoxError`
/// rustc cannot tell that it is `Send`, once it is awaited in another (rust-lang/rust#102211).
pub(crate) struct Boxed(UnsyncBoxBody<Bytes, BoxError>);

impl Boxed {
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(UnsyncBoxBody::new(body.map_err(Into::into)))
    }
}

impl Body for Boxed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Mints `test-1`, `test-2`, ... in so much time each, and counts.
pub(crate) fn tokens(takes: Duration) -> (Tokens, Arc<AtomicUsize>) {
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    let provider = provider_fn(move |_| {
        let nth = counted.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            sleep(takes).await;
            Ok(Token::bearer(format!("test-{nth}")).expires_in(Duration::from_secs(3600)))
        }
    });
    let policy = RefreshPolicy::default().min_interval(Duration::from_millis(1));
    (Tokens::builder(provider).policy(policy).build().unwrap(), fetches)
}

/// Runs all of these uploads, some at once. The same on any machine, but for the order of events over sockets.
pub(crate) async fn send_all<F>(numbers: std::ops::Range<u64>, at_once: usize, send: impl Fn(u64) -> F) -> Tally
where
    F: Future<Output = Tally> + Send + 'static,
{
    let mut sum = Tally::default();
    let mut under_way = JoinSet::new();
    for number in numbers {
        if under_way.len() >= at_once {
            sum += under_way.join_next().await.unwrap().unwrap();
        }
        under_way.spawn(send(number));
    }
    while let Some(tally) = under_way.join_next().await {
        sum += tally.unwrap();
    }
    sum
}

/// These uploads in process, in virtual time.
pub(crate) async fn in_process(numbers: std::ops::Range<u64>, longest: u64) -> Tally {
    send_all(numbers, 16, |number| async move {
        let upload = Upload::nth(number, longest, Wire::InProcess);
        send(upload, "https://api.example.com", InProcess::new).await
    })
    .await
}

/// These uploads in process, on as many threads as the runtime has.
pub(crate) async fn on_threads(numbers: std::ops::Range<u64>, longest: u64) -> Tally {
    send_all(numbers, 16, |number| async move {
        let upload = Upload::nth(number, longest, Wire::Threads);
        send(upload, "https://api.example.com", InProcess::new).await
    })
    .await
}
