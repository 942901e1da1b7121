//! A body and a refusal cut at every border between frames, against a model of a dozen lines.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod streams;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::{sleep, timeout};
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_token::{Buffered, FetchError, Origins, Token, TokenLayer, Tokens, provider_fn};

use streams::script::{Beat, End, Pace, Reader, Script, Seen};
use streams::wire::bearer;

type Upload = UnsyncBoxBody<Bytes, BoxError>;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

// ===== What is tried =====

#[derive(Clone, Debug)]
struct Trial {
    /// Lengths of the frames, each with what comes before it.
    frames: Vec<(Pause, usize)>,
    last: Last,
    /// Before the end is told, or the trailers, or the error.
    pause: Pause,
    sized: bool,
    limit: usize,
    /// So many frames the first attempt reads before it is refused.
    reads: usize,
    after: After,
    token: Newer,
}

#[derive(Clone, Copy, Debug)]
enum Pause {
    None,
    Yield,
    Sleep,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    End,
    Trailers,
    Error,
}

/// What the server does with the first body once it has refused.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Drops,
    ReadsOn,
    /// Leaves it alone until all is over, and then reads on.
    Keeps,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Newer {
    /// In place before the refusal is there.
    InPlace,
    Fetched,
    NotToBeHad,
}

fn trials() -> impl Strategy<Value = Trial> {
    let pause = prop_oneof![4 => Just(Pause::None), 1 => Just(Pause::Yield), 1 => Just(Pause::Sleep)];
    // Around what is copied and what is shared, and around the limits below.
    let len = prop_oneof![Just(0_usize), 1..5_usize, 250..260_usize, 1000..1100_usize];
    let limit = prop_oneof![Just(0_usize), 1..20_usize, 500..600_usize, Just(usize::MAX)];
    let last = prop_oneof![3 => Just(Last::End), 2 => Just(Last::Trailers), 1 => Just(Last::Error)];
    let after = prop_oneof![Just(After::Drops), Just(After::ReadsOn), Just(After::Keeps)];
    let token = prop_oneof![1 => Just(Newer::InPlace), 2 => Just(Newer::Fetched), 1 => Just(Newer::NotToBeHad)];
    let body = (vec((pause.clone(), len), 0..8), last, pause, any::<bool>());
    // Often the limit is what the first attempt reads, or one byte less.
    (body, limit, 0..3_u8, 0..11_usize, after, token).prop_map(|(body, limit, near, reads, after, token)| {
        let (frames, last, pause, sized) = body;
        let read: usize = frames.iter().take(reads).map(|(_, len)| len).sum();
        let limit = match near {
            0 => limit,
            1 => read,
            _ => read.saturating_sub(1),
        };
        Trial {
            frames,
            last,
            pause,
            sized,
            limit,
            reads,
            after,
            token,
        }
    })
}

impl Trial {
    fn content(&self) -> Bytes {
        let len: usize = self.frames.iter().map(|(_, len)| len).sum();
        (0..len).map(|nth| (nth % 251) as u8).collect()
    }

    fn trailers(&self) -> Option<HeaderMap> {
        (self.last == Last::Trailers).then(|| HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]))
    }

    fn body(&self) -> Script {
        let mut content = self.content();
        let mut beats = Vec::new();
        for (pause, len) in &self.frames {
            beats.extend(pause.beat());
            beats.push(Beat::Data(content.split_to(*len)));
        }
        beats.extend(self.pause.beat());
        beats.extend(self.trailers().map(Beat::Trailers));
        beats.extend((self.last == Last::Error).then_some(Beat::Fail));
        let body = Script::new(beats);
        if self.sized { body.sized() } else { body }
    }
}

impl Pause {
    fn beat(self) -> Option<Beat> {
        match self {
            Self::None => None,
            Self::Yield => Some(Beat::Yield),
            Self::Sleep => Some(Beat::Sleep(SECOND)),
        }
    }
}

// ===== The model =====

/// What has to be seen, by whoever reads to the end.
#[derive(Debug, PartialEq)]
struct Expected {
    /// Whether there is a second attempt.
    replayed: bool,
    /// What it sees, and what the first one does if there is none.
    whole: Seen,
    /// Whether the first attempt has had all of the body before the refusal.
    had_all: bool,
}

fn model(trial: &Trial) -> Expected {
    let read: usize = trial.frames.iter().take(trial.reads).map(|(_, len)| len).sum();
    let beyond_data = trial.reads > trial.frames.len();
    let failed = trial.last == Last::Error && beyond_data;
    let end = if trial.last == Last::Error {
        End::Failed
    } else {
        End::Whole
    };
    Expected {
        replayed: read <= trial.limit && !failed && trial.token != Newer::NotToBeHad,
        whole: Seen {
            end: Some(end),
            ..Seen::whole(&trial.content(), trial.trailers().as_ref())
        },
        had_all: beyond_data,
    }
}

// ===== The trial =====

struct Outcome {
    status: StatusCode,
    answer: Seen,
    deliveries: Vec<Delivered>,
}

#[derive(Clone, Debug)]
struct Delivered {
    token: String,
    hint: (u64, Option<u64>),
    read: Option<Seen>,
}

async fn run(trial: &Trial) -> Outcome {
    let fetches = std::sync::atomic::AtomicUsize::new(0);
    let newer = trial.token;
    let tokens = Tokens::new(provider_fn(move |_| {
        let nth = fetches.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        async move {
            sleep(3 * SECOND / 2).await;
            match newer {
                Newer::NotToBeHad if nth > 1 => Err(FetchError::transient("down")),
                _ => Ok(Token::bearer(format!("test-{nth}")).expires_in(HOUR)),
            }
        }
    }))
    .unwrap();
    let deliveries: Arc<Mutex<Vec<Delivered>>> = Arc::default();
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let over = tokio::sync::watch::Sender::new(false);
    let server = {
        let (tokens, deliveries, tasks, over) = (tokens.clone(), deliveries.clone(), tasks.clone(), over.clone());
        let (reads, after) = (trial.reads, trial.after);
        service_fn(move |request: Request<Upload>| {
            let (tokens, deliveries, tasks) = (tokens.clone(), deliveries.clone(), tasks.clone());
            let mut over = over.subscribe();
            async move {
                let (head, body) = request.into_parts();
                let token = bearer(&head.headers);
                let hint = http_body::Body::size_hint(&body);
                let nth = deliveries.lock().unwrap().len();
                deliveries.lock().unwrap().push(Delivered {
                    token: token.clone(),
                    hint: (hint.lower(), hint.upper()),
                    read: None,
                });
                let mut reader = Reader::new(body, Pace::Steady);
                let accepted = token != "test-1";
                if accepted {
                    let seen = reader.read_to_end().await;
                    deliveries.lock().unwrap()[nth].read = Some(seen);
                } else {
                    reader.frames(reads).await;
                    if newer == Newer::InPlace {
                        tokens.refresh().await.unwrap();
                    }
                    if after != After::Drops {
                        let task = tokio::spawn(async move {
                            if after == After::Keeps {
                                over.wait_for(|over| *over).await.unwrap();
                            }
                            let seen = reader.read_to_end().await;
                            deliveries.lock().unwrap()[nth].read = Some(seen);
                        });
                        tasks.lock().unwrap().push(task);
                    }
                }
                Ok::<_, BoxError>(answer(accepted))
            }
        })
    };
    let origins = Origins::only("https://api.example.com").unwrap();
    let replay = Buffered::via(Upload::new).limit(trial.limit);
    let client = TokenLayer::new(&tokens, origins).replay(replay).layer(server);
    let body = http_body_util::BodyExt::map_err(trial.body(), BoxError::from);
    let request = Request::put("https://api.example.com/")
        .body(Upload::new(body))
        .unwrap();
    let (head, body) = timeout(24 * HOUR, client.oneshot(request))
        .await
        .expect("hangs")
        .unwrap()
        .into_parts();
    let answer = Reader::new(body, Pace::Steady).read_to_end().await;
    over.send_replace(true);
    let tasks = std::mem::take(&mut *tasks.lock().unwrap());
    for task in tasks {
        timeout(24 * HOUR, task).await.expect("hangs").unwrap();
    }
    Outcome {
        status: head.status,
        answer,
        deliveries: std::mem::take(&mut *deliveries.lock().unwrap()),
    }
}

fn answer(accepted: bool) -> Response<Script> {
    let (status, text) = if accepted {
        (200, "welcome")
    } else {
        (401, "the token is over")
    };
    let pieces = text
        .as_bytes()
        .chunks(3)
        .map(|piece| Beat::Data(Bytes::from_static(piece)));
    let beats = pieces.flat_map(|piece| [piece, Beat::Sleep(SECOND)]);
    Response::builder().status(status).body(Script::new(beats)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1500)
    })]

    #[test]
    fn whatever_the_body_and_the_refusal_it_is_as_the_model_says(trial in trials()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = runtime.block_on(run(&trial));
        let expected = model(&trial);
        let answered = answer(expected.replayed);
        prop_assert_eq!(outcome.status, answered.status());
        prop_assert_eq!(outcome.answer, answered.into_body().seen_whole());
        let tokens: Vec<&str> = outcome.deliveries.iter().map(|delivery| delivery.token.as_str()).collect();
        let first = &outcome.deliveries[0];
        if expected.replayed {
            prop_assert_eq!(tokens, ["test-1", "test-2"]);
            let second = &outcome.deliveries[1];
            prop_assert_eq!(second.read.as_ref(), Some(&expected.whole));
            if !trial.content().is_empty() {
                prop_assert_eq!(second.hint, first.hint);
            }
        } else {
            prop_assert_eq!(tokens, ["test-1"]);
        }
        match &first.read {
            None => prop_assert_eq!(trial.after, After::Drops),
            Some(read) if !expected.replayed => prop_assert_eq!(read, &expected.whole),
            Some(read) => {
                prop_assert!(read.begins(&trial.content()));
                // Cut off is not complete.
                if read.end == Some(End::Whole) {
                    prop_assert_eq!(read, &expected.whole);
                }
                if expected.had_all {
                    prop_assert_eq!(read, &expected.whole);
                }
            }
        }
    }
}
