//! Answers that have to be looked into: thousands of 403s of every size, half of which refuse the token
//! in their body. The others reach the caller to the byte, and nothing is fetched for them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod streams;
mod support;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_token::{BodyCode, FetchError, Origins, Peeked, TokenLayer, Verdict};

use streams::script::{Beat, End, KIB, MIB, Pace, Reader, Script, Seen, TRAILERS, content, cut, trailers};
use streams::upload::{Boxed, Wire, tokens};
use streams::wire::{Server, bearer, client};
use support::{HOUR, SECOND, issuer_that};

const LIMIT: usize = 16 << 10;
const CODE: &str = "InvalidAccessToken";

fn body_code() -> BodyCode {
    BodyCode::new(StatusCode::FORBIDDEN, "/error/code", [CODE, "40103"]).unwrap()
}

// ===== Answers =====

/// One answer to a request with `test-1`.
#[derive(Clone, Debug)]
struct Answer {
    beats: Vec<Beat>,
    sized: bool,
    /// Whether it says that the token was refused, where somebody looks who is allowed to.
    refused: bool,
    /// Opened when the client has the head.
    arrived: watch::Sender<bool>,
}

impl Answer {
    /// The `number`th of all answers, of so many bytes at most. The same number is the same answer.
    fn nth(number: u64, longest: u64, wire: Wire) -> Self {
        let mut random = fastrand::Rng::with_seed(number);
        let random = &mut random;
        let refused = random.bool();
        let text = if refused {
            refusal(random, longest)
        } else {
            other(random, longest)
        };
        let frames = if wire == Wire::InProcess { 50 } else { 20 };
        let mut beats = Vec::new();
        let (yields, sleeps) = (random.u8(0..4) == 0, random.u8(0..8) == 0 && wire == Wire::InProcess);
        for frame in cut(random, text, frames) {
            match random.u8(0..16) {
                0..8 if yields => beats.push(Beat::Yield),
                0 if sleeps => beats.push(Beat::Sleep(Duration::from_millis(random.u64(0..50)))),
                _ => {}
            }
            beats.push(Beat::Data(frame));
        }
        let mut sized = random.bool();
        match random.u8(0..10) {
            0 => {
                beats.push(Beat::Trailers(trailers(random)));
                sized &= wire != Wire::Http1;
            }
            // Nobody may judge what was never there: a refusal keeps its text, and the error comes last.
            // Over sockets what was there may be lost with the connection.
            1 if wire == Wire::InProcess || !refused => {
                let at = if refused {
                    beats.len()
                } else {
                    random.usize(0..=beats.len())
                };
                beats.truncate(at);
                if wire != Wire::InProcess {
                    // The connection breaks once the head is there. Of the body, much may be lost.
                    beats.push(Beat::Gate);
                }
                beats.push(Beat::Fail);
                sized = false;
            }
            // Longer than anybody waits, in the middle of what is looked at, or behind it.
            2 if wire == Wire::InProcess => {
                let at = if refused {
                    beats.len()
                } else {
                    random.usize(0..=beats.len())
                };
                beats.insert(at, Beat::Sleep(Duration::from_secs(60)));
            }
            _ => {}
        }
        Self::new(beats, sized, refused)
    }

    fn new(beats: Vec<Beat>, sized: bool, refused: bool) -> Self {
        let arrived = watch::Sender::new(false);
        Self {
            beats,
            sized,
            refused,
            arrived,
        }
    }

    fn body(&self) -> Script {
        let body = Script::new(self.beats.clone()).gated(self.arrived.subscribe());
        if self.sized { body.sized() } else { body }
    }

    fn response(&self) -> Response<Script> {
        let mut response = Response::new(self.body());
        *response.status_mut() = StatusCode::FORBIDDEN;
        let headers = response.headers_mut();
        headers.append("set-cookie", "a=1".parse().unwrap());
        headers.append("set-cookie", "b=2".parse().unwrap());
        headers.insert("content-type", "application/json".parse().unwrap());
        if self.beats.iter().any(|beat| matches!(beat, Beat::Trailers(_))) {
            headers.insert("trailer", TRAILERS.parse().unwrap());
        }
        response
    }

    /// What somebody has to see who reads all of it.
    fn whole(&self) -> Seen {
        let failed = self.beats.iter().any(|beat| matches!(beat, Beat::Fail));
        Seen {
            end: Some(if failed { End::Failed } else { End::Whole }),
            ..self.body().seen_whole()
        }
    }
}

/// Log-uniform, so that there are as many short ones as long ones.
fn any_len(random: &mut fastrand::Rng, longest: u64) -> usize {
    ((random.f64() * ((longest + 1) as f64).ln()).exp() - 1.0) as usize
}

/// Text that JSON takes between quotes, of about this length: cut out of one that is made once.
fn words(random: &mut fastrand::Rng, len: usize) -> &'static str {
    static WORDS: OnceLock<String> = OnceLock::new();
    /// All pieces take as many bytes, so that no escape is cut.
    const PIECE: usize = 20;
    const PIECES: usize = 2 * MIB as usize / PIECE;
    let words = WORDS.get_or_init(|| {
        let mut random = fastrand::Rng::with_seed(3);
        let mut words = String::new();
        for nth in 1..=PIECES {
            words.push_str(["\\\"", "\\u00e9", "é", "}]", "{[", CODE, "code", "lorem"][random.usize(0..8)]);
            while words.len() < PIECE * nth {
                words.push(' ');
            }
        }
        words
    });
    let pieces = (len / PIECE).min(PIECES);
    let from = random.usize(0..=PIECES - pieces);
    &words[PIECE * from..PIECE * (from + pieces)]
}

/// Members of an object, one of which is as long as it is told. None is named `error`.
fn members(random: &mut fastrand::Rng, len: usize) -> String {
    let words = words(random, len);
    match random.u8(0..4) {
        0 => format!(r#""message":"{words}","#),
        1 => format!(r#""a":[1,-2.5e3,true,null,{{"code":"{CODE}"}}],"b":"{words}","#),
        2 => format!(r#""detail":{{"error":{{"code":"{CODE}"}},"of":["{words}"]}},"#),
        _ => format!("\n\t\"code\" : 40103 ,\r\n \"words\":\"{words}\" , "),
    }
}

/// A refusal whose code stands somewhere before the limit, and a tail of any length.
fn refusal(random: &mut fastrand::Rng, longest: u64) -> Bytes {
    let before = if random.bool() {
        0
    } else {
        any_len(random, LIMIT as u64 - 400)
    };
    let before = if random.bool() {
        members(random, before)
    } else {
        String::new()
    };
    let code = match random.u8(0..4) {
        0 => "40103".to_owned(),
        1 => r#""Invalid\u0041ccessToken""#.to_owned(),
        _ => format!("\"{CODE}\""),
    };
    let inner = match random.u8(0..3) {
        0 => format!(r#""code":{code},"#),
        1 => format!(r#""id":"x","code" : {code} , "#),
        _ => format!("\"code\":\n{code}\n,"),
    };
    let start = format!(r#"{{{before}"error":{{{inner}"of":"token"}},"#);
    assert!(start.len() < LIMIT, "{}", start.len());
    let tail = any_len(random, longest.saturating_sub(start.len() as u64));
    format!(r#"{start}"tail":"{}"}}"#, words(random, tail)).into()
}

/// Something else that is forbidden, in one of many forms.
fn other(random: &mut fastrand::Rng, longest: u64) -> Bytes {
    let len = any_len(random, longest);
    let words = words(random, len);
    let text = match random.u8(0..12) {
        0 => return content(random, len as u64),
        1 => String::new(),
        2 => format!("<html>{words}</html>"),
        3 => format!(r#"{{"error":{{"code":"NoPermission","of":"{words}"}}}}"#),
        4 => format!(r#"{{"error":{{"code":"invalidaccesstoken"}},"tail":"{words}"}}"#),
        5 => format!(r#"{{"code":"{CODE}","error":"{words}"}}"#),
        6 => format!(r#"{{"error":[{{"code":"{CODE}"}}],"tail":"{words}"}}"#),
        7 => format!(r#"{{"error":{{"code":"{CODE}.{words}"}}}}"#),
        8 => format!(r#"{{"error":{{"code":401030}},"tail":"{words}"}}"#),
        9 => format!(r#"{{"error":{{"code":["{CODE}"]}},"tail":"{words}"}}"#),
        // It is there, but further down than anybody is told to look.
        10 if longest > 2 * LIMIT as u64 => {
            let further = " ".repeat(LIMIT - r#"{"error":{"code":"}}"#.len() - random.usize(0..CODE.len() - 1));
            format!(r#"{{"error":{{"code":{further}"{CODE}"}},"tail":"{words}"}}"#)
        }
        // Cut off inside the code, and no more comes.
        11 => format!(r#"{{"error":{{"code":"{}"#, &CODE[..random.usize(0..=CODE.len())]),
        _ => format!(r#"{{"error":{{"code":null}},"tail":"{words}"}}"#),
    };
    text.into()
}

// ===== Thousands =====

#[derive(Debug, Default)]
struct Tally {
    replayed: usize,
    handed_on: usize,
    failed: usize,
    bytes: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.replayed += other.replayed;
        self.handed_on += other.handed_on;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}

/// Sends one request through `inner`, which gives `answer` to `test-1`, and judges what the caller gets.
/// `deliveries` is what `inner` counts.
async fn inspect<S, B>(
    number: u64,
    answer: Answer,
    origin: &str,
    wire: Wire,
    inner: S,
    deliveries: Arc<AtomicUsize>,
) -> Tally
where
    S: Service<Request<String>, Response = Response<B>, Error: Into<BoxError>> + Clone,
    B: Body<Data = Bytes> + Unpin,
{
    let (tokens, fetches) = tokens(Duration::from_millis(1));
    let layer = TokenLayer::new(&tokens, Origins::only(origin).unwrap()).classify(body_code());
    let request = Request::get(format!("{origin}/{number}")).header("te", "trailers");
    let request = request.body(String::new()).unwrap();
    let answered = async {
        let response = layer.layer(inner).oneshot(request).await;
        let (head, body) = response
            .unwrap_or_else(|error| panic!("{number}: {error}, {:?}", Short(&answer)))
            .into_parts();
        let hint = body.size_hint();
        let seen = Reader::new(body, Pace::Steady).read_to_end().await;
        (head, hint, seen)
    };
    // Virtual time does not come here unless something hangs; over sockets it is patience.
    let answered = timeout(Duration::from_secs(86_400), answered).await;
    let (head, hint, seen) = answered.unwrap_or_else(|_| panic!("{number} hangs: {answer:?}"));
    let what = || {
        format!(
            "{number}: {seen:?}, {} deliveries of {:?}",
            deliveries.load(Ordering::SeqCst),
            Short(&answer)
        )
    };
    let mut tally = Tally {
        bytes: seen.bytes,
        ..Tally::default()
    };
    if answer.refused {
        tally.replayed = 1;
        assert_eq!(head.status, StatusCode::OK, "{}", what());
        assert_eq!(
            (deliveries.load(Ordering::SeqCst), fetches.load(Ordering::SeqCst)),
            (2, 2),
            "{}",
            what()
        );
        assert_eq!(seen, Seen::whole(b"welcome", None), "{}", what());
        return tally;
    }
    tally.handed_on = 1;
    assert_eq!(
        (deliveries.load(Ordering::SeqCst), fetches.load(Ordering::SeqCst)),
        (1, 1),
        "{}",
        what()
    );
    let expected = answer.response();
    assert_eq!(head.status, expected.status(), "{}", what());
    for name in expected.headers().keys() {
        let all = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
        assert_eq!(all(&head.headers), all(expected.headers()));
    }
    if answer.whole().end == Some(End::Failed) {
        tally.failed = 1;
    }
    if wire == Wire::InProcess {
        assert_eq!(seen, answer.whole(), "{}", what());
        if answer.sized {
            assert_eq!(hint.exact(), Some(seen.bytes), "{}", what());
        }
    } else if answer.whole().end == Some(End::Failed) {
        // What was still in hyper's hands when the connection broke is lost without us, too.
        assert_eq!(seen.end, Some(End::Failed), "{}", what());
        assert!(seen.bytes <= answer.whole().bytes);
    } else {
        assert_eq!(seen, answer.whole(), "{}", what());
    }
    tally
}

/// So that a failure can be read.
struct Short<'a>(&'a Answer);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let beats: Vec<String> = self
            .0
            .beats
            .iter()
            .map(|beat| match beat {
                Beat::Data(data) => format!(
                    "{} {:?}",
                    data.len(),
                    String::from_utf8_lossy(&data[..data.len().min(200)])
                ),
                other => format!("{other:?}"),
            })
            .take(10)
            .collect();
        write!(f, "refused {}, sized {}, {beats:#?}", self.0.refused, self.0.sized)
    }
}

async fn in_process(numbers: std::ops::Range<u64>, longest: u64) -> Tally {
    let mut sum = Tally::default();
    for number in numbers {
        let answer = Answer::nth(number, longest, Wire::InProcess);
        let deliveries = Arc::new(AtomicUsize::new(0));
        let inner = service_fn({
            let (answer, deliveries) = (answer.clone(), deliveries.clone());
            move |request: Request<String>| {
                deliveries.fetch_add(1, Ordering::SeqCst);
                let response = respond(request.headers(), &answer);
                async move { Ok::<_, BoxError>(response) }
            }
        });
        sum += inspect(
            number,
            answer,
            "https://api.example.com",
            Wire::InProcess,
            inner,
            deliveries,
        )
        .await;
    }
    sum
}

fn respond(head: &HeaderMap, answer: &Answer) -> Response<Script> {
    match bearer(head).as_str() {
        "test-1" => answer.response(),
        _ => Response::new(Script::of([Bytes::from_static(b"welcome")])),
    }
}

async fn over_sockets(wire: Wire, numbers: std::ops::Range<u64>, longest: u64) -> Tally {
    type Cases = Arc<Mutex<HashMap<String, (Answer, Arc<AtomicUsize>)>>>;
    let cases = Cases::default();
    let known = cases.clone();
    let server = Server::answering(move |request: Request<hyper::body::Incoming>| {
        let (answer, deliveries) = known.lock().unwrap()[request.uri().path()].clone();
        deliveries.fetch_add(1, Ordering::SeqCst);
        let response = respond(request.headers(), &answer);
        async move { response }
    })
    .await;
    let mut sum = Tally::default();
    let mut under_way = JoinSet::new();
    let client = client::<String>(wire);
    for number in numbers {
        // HTTP/1.1 with connections of its own: one that breaks must not break under another request.
        let client = if wire == Wire::Http1 {
            streams::wire::client(wire)
        } else {
            client.clone()
        };
        let origin = server.origin.clone();
        let (answer, deliveries) = (Answer::nth(number, longest, wire), Arc::new(AtomicUsize::new(0)));
        let arrived = answer.arrived.clone();
        let client = client.map_response(move |response| {
            arrived.send_replace(true);
            response
        });
        cases
            .lock()
            .unwrap()
            .insert(format!("/{number}"), (answer.clone(), deliveries.clone()));
        under_way.spawn(async move { inspect(number, answer, &origin, wire, client, deliveries).await });
        if under_way.len() >= 8 {
            sum += under_way.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(tally) = under_way.join_next().await {
        sum += tally.unwrap();
    }
    sum
}

#[tokio::test(start_paused = true)]
async fn of_ten_thousand_forbidden_answers_the_refusals_are_replayed_and_the_others_are_whole() {
    let tally = in_process(0..10_000, MIB).await;
    println!("{tally:?}");
    assert_eq!(tally.replayed + tally.handed_on, 10_000);
    assert!(
        tally.replayed > 4_500 && tally.handed_on > 4_500 && tally.failed > 300,
        "{tally:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_are_those_over_http_1() {
    let tally = over_sockets(Wire::Http1, 0..400, 256 * KIB).await;
    println!("{tally:?}");
    assert_eq!(tally.replayed + tally.handed_on, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_are_those_over_http_2() {
    let tally = over_sockets(Wire::Http2, 0..400, 256 * KIB).await;
    println!("{tally:?}");
    assert_eq!(tally.replayed + tally.handed_on, 400);
}

// ===== One =====

/// Sends a request whose first answer is 403 with this body, and the second is 200.
async fn forbidden(body: Script, classify: BodyCode) -> (Response<impl Body<Data = Bytes> + Unpin>, usize) {
    let body = Arc::new(Mutex::new(Some(body)));
    let inner = service_fn(move |_: Request<String>| {
        let mut response = Response::new(Script::of([Bytes::from_static(b"welcome")]));
        if let Some(forbidden) = body.lock().unwrap().take() {
            response = Response::new(forbidden);
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        async move { Ok::<_, BoxError>(response) }
    });
    let (tokens, fetches) = tokens(Duration::ZERO);
    tokens.get().await.unwrap();
    let origins = Origins::only("https://api.example.com").unwrap();
    let client = TokenLayer::new(&tokens, origins).classify(classify).layer(inner);
    let request = Request::get("https://api.example.com/").body(String::new()).unwrap();
    let answer = timeout(24 * HOUR, client.oneshot(request))
        .await
        .expect("hangs")
        .unwrap();
    (answer, fetches.load(Ordering::SeqCst))
}

async fn is_refusal(body: Script, classify: BodyCode) -> bool {
    let (answer, fetches) = forbidden(body, classify).await;
    assert_eq!(fetches, if answer.status() == StatusCode::OK { 2 } else { 1 });
    answer.status() == StatusCode::OK
}

fn data(text: &'static str) -> Beat {
    Beat::Data(Bytes::from_static(text.as_bytes()))
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_judged_by_what_came_until_patience_ran_out() {
    for (patience, classify) in [(5, body_code()), (2, body_code().patience(2 * SECOND))] {
        // The code was there before, and it is not.
        let came = [
            data(r#"{"error":{"code":"InvalidAccessToken","#),
            Beat::Sleep(HOUR),
            data("}}"),
        ];
        let began = Instant::now();
        assert!(is_refusal(Script::new(came), classify.clone()).await);
        assert!(began.elapsed() <= patience * SECOND, "{:?}", began.elapsed());

        let came = [
            data(r#"{"error":{"code":"Invalid"#),
            Beat::Sleep(HOUR),
            data(r#"AccessToken"}}"#),
        ];
        let began = Instant::now();
        let (answer, fetches) = forbidden(Script::new(came), classify).await;
        assert_eq!((answer.status().as_u16(), fetches), (403, 1));
        assert_eq!(began.elapsed(), patience * SECOND);
        let seen = Reader::new(answer.into_body(), Pace::Steady).read_to_end().await;
        assert_eq!(seen, Seen::whole(br#"{"error":{"code":"InvalidAccessToken"}}"#, None));
        assert_eq!(began.elapsed(), HOUR);
    }
}

/// The patience is for all of what is looked at, not for each frame of it.
#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_is_waited_for_no_longer_than_one_that_stalls() {
    let blanks = (0..1000).flat_map(|_| [Beat::Sleep(SECOND), data(" ")]);
    let began = Instant::now();
    let (answer, _) = forbidden(Script::new(blanks), body_code()).await;
    assert_eq!((answer.status().as_u16(), began.elapsed()), (403, 5 * SECOND));
    let seen = Reader::new(answer.into_body(), Pace::Steady).read_to_end().await;
    assert_eq!((seen.bytes, seen.end), (1000, Some(End::Whole)));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_says_nothing_for_ever_is_handed_on() {
    let empty = std::iter::repeat_n(Beat::Data(Bytes::new()), 10_000);
    // It panics if all of that was read.
    let body = Script::new(empty.chain([Beat::Panic]));
    let (answer, fetches) = forbidden(body, body_code()).await;
    assert_eq!((answer.status().as_u16(), fetches), (403, 1));
    // So many are read over.
    let some = std::iter::repeat_n(Bytes::new(), 1024);
    assert!(is_refusal(Script::of(some.chain([REFUSAL.into()])), body_code()).await);
}

const REFUSAL: &str = r#"{"error":{"code":"InvalidAccessToken"}}"#;

/// Whoever sends it on needs no empty frame then.
#[tokio::test(start_paused = true)]
async fn a_body_says_that_it_has_ended_whether_or_not_it_was_looked_into() {
    for text in ["", REFUSAL] {
        let body = || Full::new(Bytes::from_static(text.as_bytes()));
        let (_, inspected) = Peeked::read(body(), LIMIT, SECOND, |_, _| Verdict::Accept).await;
        for mut body in [inspected, Peeked::whole(body())] {
            assert_eq!(body.is_end_stream(), text.is_empty());
            assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
            while body.frame().await.is_some() {}
            assert!(body.is_end_stream());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_candidate_is_not_read() {
    for (status, deliveries) in [(200, 1), (404, 1), (400, 1), (500, 1), (401, 2)] {
        let (tokens, _) = tokens(Duration::ZERO);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let given = seen.clone();
        let inner = service_fn(move |_: Request<String>| {
            let body = Script::of([REFUSAL.into()]);
            given.lock().unwrap().push(body.progress());
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            async move { Ok::<_, BoxError>(response) }
        });
        let origins = Origins::only("https://api.example.com").unwrap();
        let client = TokenLayer::new(&tokens, origins).classify(body_code()).layer(inner);
        let request = Request::get("https://api.example.com/").body(String::new()).unwrap();
        let answer = client.oneshot(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        let read: Vec<u64> = seen.lock().unwrap().iter().map(|progress| progress.bytes()).collect();
        assert_eq!(read, vec![0; deliveries], "{status}");
        assert!(!answer.body().is_end_stream());
        let seen = Reader::new(answer.into_body(), Pace::Steady).read_to_end().await;
        assert_eq!(seen, Seen::whole(REFUSAL.as_bytes(), None));
    }
}

/// A server may refuse the second token as well, and the issuer may be down: then it is the refusal that
/// the caller gets, and all of it.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_looked_into_is_handed_back_whole() {
    let mut random = fastrand::Rng::with_seed(5);
    let trailers = trailers(&mut random);
    for (issuer_is_up, last) in [
        (true, Beat::Trailers(trailers.clone())),
        (false, Beat::Trailers(trailers)),
        (false, Beat::Fail),
    ] {
        let issuer = move |nth| match nth {
            1 => Ok(()),
            _ if issuer_is_up => Ok(()),
            _ => Err(FetchError::transient("down")),
        };
        let (tokens, _) = issuer_that(issuer);
        let text = refusal(&mut random, 100 * KIB);
        let frames = cut(&mut random, text, 30)
            .into_iter()
            .flat_map(|frame| [Beat::Yield, Beat::Data(frame)]);
        let answer = Answer::new(frames.chain([last]).collect(), issuer_is_up, true);
        let deliveries = Arc::new(AtomicUsize::new(0));
        let (given, count) = (answer.clone(), deliveries.clone());
        let inner = service_fn(move |_: Request<String>| {
            count.fetch_add(1, Ordering::SeqCst);
            let response = given.response();
            async move { Ok::<_, BoxError>(response) }
        });
        let origins = Origins::only("https://api.example.com").unwrap();
        let client = TokenLayer::new(&tokens, origins).classify(body_code()).layer(inner);
        let request = Request::get("https://api.example.com/").body(String::new()).unwrap();
        let (head, body) = client.oneshot(request).await.unwrap().into_parts();
        assert_eq!(deliveries.load(Ordering::SeqCst), if issuer_is_up { 2 } else { 1 });
        assert_eq!(head.headers, *answer.response().headers());
        assert_eq!(body.size_hint().exact(), issuer_is_up.then_some(answer.whole().bytes));
        assert_eq!(Reader::new(body, Pace::Steady).read_to_end().await, answer.whole());
    }
}

/// The answer is looked into while the request's body is still being sent.
#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_while_its_answer_is_looked_into_and_is_replayed_then() {
    let (tokens, _) = tokens(SECOND);
    let read = Arc::new(Mutex::new(Vec::new()));
    let seen = read.clone();
    let inner = service_fn(move |request: Request<Boxed>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let mut reader = Reader::new(body, Pace::Steady);
            let mut answer = Response::new(Script::of([Bytes::from_static(b"welcome")]));
            if bearer(&head.headers) == "test-1" {
                reader.frames(3).await;
                // Slow enough for some more frames.
                let text = REFUSAL
                    .as_bytes()
                    .chunks(13)
                    .flat_map(|piece| [Beat::Sleep(SECOND), Beat::Data(Bytes::from_static(piece))]);
                answer = Response::new(Script::new(text));
                *answer.status_mut() = StatusCode::FORBIDDEN;
                tokio::spawn(async move { reader.read_to_end().await });
            } else {
                let read = reader.read_to_end().await;
                seen.lock().unwrap().push(read);
            }
            Ok::<_, BoxError>(answer)
        }
    });
    let origins = Origins::only("https://api.example.com").unwrap();
    let layer = TokenLayer::new(&tokens, origins)
        .replay_via(Boxed::new)
        .classify(body_code());
    let mut random = fastrand::Rng::with_seed(2);
    let content = content(&mut random, 100 * KIB);
    let frames = (0..100).flat_map(|nth| {
        [
            Beat::Sleep(SECOND),
            Beat::Data(content.slice(nth << 10..(nth + 1) << 10)),
        ]
    });
    let request = Request::put("https://api.example.com/")
        .body(Boxed::new(Script::new(frames)))
        .unwrap();
    let answer = layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(*read.lock().unwrap(), [Seen::whole(&content, None)]);
}

/// A proxy streams the answer on. Over HTTP/1.1 that is chunked, because the trailers come last and the
/// length is not known: looking into it must not make it known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_with_trailers_that_was_looked_into_passes_a_proxy_whole() {
    let trailers = trailers(&mut fastrand::Rng::with_seed(1));
    let beats = vec![data(r#"{"error":{"code":"NoPermission"}}"#), Beat::Trailers(trailers)];
    let answer = Answer::new(beats, false, false);
    let given = answer.clone();
    let inner = service_fn(move |_: Request<String>| {
        let response = given.response();
        async move { Ok::<_, Infallible>(response) }
    });
    let (tokens, _) = tokens(Duration::ZERO);
    let layer = TokenLayer::new(&tokens, Origins::only("https://api.example.com").unwrap());
    let through = layer.classify(body_code()).layer(inner);
    let proxy = Server::answering(move |_| {
        let request = Request::get("https://api.example.com/").body(String::new()).unwrap();
        let answer = through.clone().oneshot(request);
        async move { answer.await.unwrap() }
    })
    .await;
    let request = Request::get(&proxy.origin)
        .header("te", "trailers")
        .body(String::new())
        .unwrap();
    let response = client::<String>(Wire::Http1).request(request).await.unwrap();
    let seen = Reader::new(response.into_body(), Pace::Steady).read_to_end().await;
    assert_eq!(seen, answer.whole());
}

// ===== Every cut =====

/// A text, and what of it says that the token was refused, to the last byte that is needed.
const TEXTS: [(&str, Option<&str>); 6] = [
    (
        r#"{"error":{"code":"InvalidAccessToken"}}"#,
        Some(r#""InvalidAccessToken""#),
    ),
    (
        r#"{"a":"\"}","error":{"b":[{},[1]],"code":"Invalid\u0041ccessToken","c":"\u00e9"},"d":1e9}"#,
        Some(r#""Invalid\u0041ccessToken""#),
    ),
    // What follows a number says where it ends.
    (r#"{"error":{"code":40103}}"#, Some("40103}")),
    ("{\"error\":{\"code\":40103 ,\"x\":2},\"y\":[[[]]]}", Some("40103 ")),
    // Those that are none.
    (
        r#"{"error":{"code":"InvalidAccessTokens"},"code":"InvalidAccessToken"}"#,
        None,
    ),
    (r#"{"error":{"code":401030},"b":{"error":{"code":40103}}}"#, None),
];

/// How much of it has to be read.
fn needed((text, says): (&str, Option<&str>)) -> usize {
    says.map_or(usize::MAX, |says| text.find(says).unwrap() + says.len())
}

#[tokio::test(start_paused = true)]
async fn wherever_the_limit_cuts_a_code_is_read_whole_or_not_at_all() {
    for (text, says) in TEXTS {
        let needed = needed((text, says));
        for limit in 0..=text.len() + 1 {
            for sized in [false, true] {
                let body = Script::of([Bytes::from_static(text.as_bytes())]);
                let body = if sized { body.sized() } else { body };
                let refused = is_refusal(body, body_code().limit(limit)).await;
                assert_eq!(refused, needed <= limit, "{:?} of {text}", text.get(..limit));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_the_body_ends_a_code_is_read_whole_or_not_at_all() {
    for (text, says) in TEXTS {
        let needed = needed((text, says));
        for len in 0..=text.len() {
            for last in [None, Some(Beat::Fail), Some(Beat::Sleep(HOUR))] {
                let beats = [Beat::Data(Bytes::from_static(&text.as_bytes()[..len]))]
                    .into_iter()
                    .chain(last.clone());
                let refused = is_refusal(Script::new(beats), body_code()).await;
                // Where the whole body ends with a number, that is all there is of it.
                let ends_there = last.is_none() && text[..len] == *"{\"error\":{\"code\":40103";
                assert_eq!(refused, needed <= len || ends_there, "{:?}, {last:?}", &text[..len]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1500)
    })]

    /// Frames, pauses, the limit: none of them decides, but what stands in the first `limit` bytes.
    #[test]
    fn however_the_text_is_cut_into_frames_it_says_the_same(
        text in 0..TEXTS.len(),
        before in 0..50_usize,
        cuts in vec((0..200_usize, any::<bool>()), 0..12),
        limit in 0..200_usize,
        last in 0..3_usize,
    ) {
        let needed = needed(TEXTS[text]);
        let text = TEXTS[text].0;
        let text = Bytes::from(format!("{:before$}{text}", ""));
        let mut cuts = cuts;
        cuts.sort();
        let mut beats = Vec::new();
        let mut from = 0;
        for (cut, pause) in cuts.into_iter().chain([(text.len(), false)]) {
            let to = cut.clamp(from, text.len());
            beats.push(Beat::Data(text.slice(from..to)));
            beats.extend(pause.then_some(Beat::Yield));
            from = to;
        }
        beats.extend([None, Some(Beat::Fail), Some(Beat::Trailers(trailers(&mut fastrand::Rng::with_seed(1))))][last].clone());
        let answer = Answer::new(beats, false, needed.saturating_add(before) <= limit);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (response, fetches) = forbidden(answer.body(), body_code().limit(limit)).await;
            prop_assert_eq!(response.status() == StatusCode::OK, answer.refused);
            prop_assert_eq!(fetches, 1 + usize::from(answer.refused));
            if !answer.refused {
                let seen = Reader::new(response.into_body(), Pace::Steady).read_to_end().await;
                prop_assert_eq!(seen, answer.whole());
            }
            Ok(())
        })?;
    }
}
