//! Classifiers and replay strategies of other people's: with nothing but what they must have, and some that contradict
//! themselves.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode, response};
use tower::{Layer, ServiceExt};
use tower_token::{Challenge, Classify, Replay, Report, TokenLayer, Verdict};

use support::{Api, Page, get, issuer, origins};

/// Only what it must have: a 401 is a refusal.
#[derive(Clone, Default)]
struct Plain {
    heads: Arc<AtomicUsize>,
}

impl Classify<Page> for Plain {
    type Body = Page;
    type Inspecting = Ready<(Verdict, Page)>;

    fn head(&self, head: &response::Parts) -> Verdict {
        self.heads.fetch_add(1, Ordering::SeqCst);
        match head.status {
            StatusCode::UNAUTHORIZED => Verdict::Refuse(Challenge::none()),
            _ => Verdict::Accept,
        }
    }

    fn pass(&self, response: Response<Page>) -> Response<Page> {
        response
    }

    fn inspect(&self, _: &response::Parts, body: Page, _: usize, _: Report) -> Self::Inspecting {
        ready((Verdict::Undecided, body))
    }
}

/// Accepts every status, and refuses every head.
#[derive(Clone, Default)]
struct Contradicting(Plain);

impl Classify<Page> for Contradicting {
    type Body = Page;
    type Inspecting = Ready<(Verdict, Page)>;

    fn accepts(&self, _: StatusCode) -> bool {
        true
    }

    fn head(&self, head: &response::Parts) -> Verdict {
        self.0.head(head);
        Verdict::Refuse(Challenge::none())
    }

    fn pass(&self, response: Response<Page>) -> Response<Page> {
        response
    }

    fn inspect(&self, head: &response::Parts, body: Page, limit: usize, report: Report) -> Self::Inspecting {
        self.0.inspect(head, body, limit, report)
    }
}

/// Only what it must have. Counts what it was asked for.
#[derive(Clone, Default)]
struct Keeping {
    prepared: Arc<AtomicUsize>,
    replayed: Arc<AtomicUsize>,
}

impl Replay<String> for Keeping {
    type Body = String;
    type Saved = String;

    fn pass(&self, request: Request<String>) -> Request<String> {
        request
    }

    fn prepare(&self, body: String) -> (String, Option<String>) {
        self.prepared.fetch_add(1, Ordering::SeqCst);
        (body.clone(), Some(body))
    }

    fn replay(&self, saved: String) -> Option<String> {
        self.replayed.fetch_add(1, Ordering::SeqCst);
        Some(saved)
    }
}

/// The same for bodies that go out as they lie; one that is empty it does not take so.
#[derive(Clone, Default)]
struct Saving {
    keeping: Keeping,
    saved: Arc<AtomicUsize>,
}

impl Replay<String> for Saving {
    type Body = String;
    type Saved = String;

    fn pass(&self, request: Request<String>) -> Request<String> {
        request
    }

    fn prepare(&self, body: String) -> (String, Option<String>) {
        self.keeping.prepare(body)
    }

    fn save(&self, body: &mut String) -> Option<String> {
        self.saved.fetch_add(1, Ordering::SeqCst);
        (!body.is_empty()).then(|| body.clone())
    }

    fn replay(&self, saved: String) -> Option<String> {
        self.keeping.replay(saved)
    }
}

#[tokio::test(start_paused = true)]
async fn with_nothing_but_what_they_must_have_the_first_call_and_later_ones_are_replayed() {
    let (tokens, issuer) = issuer();
    let (plain, keeping) = (Plain::default(), Keeping::default());
    let api = Api::answering(|nth, _| match nth {
        1 | 4 => support::refusal(),
        _ => support::page("welcome"),
    });
    let layer = TokenLayer::new(&tokens, origins())
        .classify(plain.clone())
        .replay(keeping.clone());
    let client = layer.layer(api.clone());
    for _ in 0..3 {
        let answer = client.clone().oneshot(get()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(api.tokens(), ["test-1", "test-2", "test-2", "test-2", "test-3"]);
    let counted = [&plain.heads, &keeping.prepared, &keeping.replayed].map(|count| count.load(Ordering::SeqCst));
    assert_eq!((counted, issuer.fetches()), ([5, 3, 2], 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_where_it_lies_is_replayed_like_what_was_prepared() {
    let (tokens, issuer) = issuer();
    let saving = Saving::default();
    // The first attempt of each request is refused.
    let api = Api::answering(|nth, _| match nth % 2 {
        1 => support::refusal(),
        _ => support::page("welcome"),
    });
    let client = TokenLayer::new(&tokens, origins())
        .replay(saving.clone())
        .layer(api.clone());
    // The first finds no token in place, and is not asked about as it lies.
    for body in ["first", "saved", ""] {
        let request = support::post(body.to_owned());
        let answer = client.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let keeping = &saving.keeping;
    let counted = [&saving.saved, &keeping.prepared, &keeping.replayed].map(|count| count.load(Ordering::SeqCst));
    assert_eq!((counted, issuer.fetches()), ([2, 2, 3], 4));
    let bodies = api.each(|request| request.body().clone());
    assert_eq!(bodies, ["first", "first", "saved", "saved", "", ""]);
    assert_eq!(
        api.tokens(),
        ["test-1", "test-2", "test-2", "test-3", "test-3", "test-4"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_accepted_is_not_looked_at_again() {
    let (tokens, issuer) = issuer();
    let contradicting = Contradicting::default();
    let api = Api::refusing(["test-1"]);
    let client = TokenLayer::new(&tokens, origins())
        .classify(contradicting.clone())
        .layer(api.clone());
    for _ in 0..2 {
        let answer = client.clone().oneshot(get()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!((contradicting.0.heads.load(Ordering::SeqCst), issuer.fetches()), (0, 1));
    assert_eq!(api.tokens(), ["test-1", "test-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_a_token_of_his_own_is_never_replayed() {
    let (tokens, issuer) = issuer();
    let keeping = Keeping::default();
    let api = Api::answering(|nth, _| match nth {
        1 => support::page("welcome"),
        _ => support::refusal(),
    });
    let client = TokenLayer::new(&tokens, origins())
        .replay(keeping.clone())
        .layer(api.clone());
    client.clone().oneshot(get()).await.unwrap();
    let mut own = get();
    own.headers_mut()
        .insert("authorization", "Bearer mine".parse().unwrap());
    let answer = client.oneshot(own).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        (api.tokens(), issuer.fetches()),
        (vec!["test-1".into(), "mine".into()], 1)
    );
    assert_eq!(keeping.replayed.load(Ordering::SeqCst), 0);
}
