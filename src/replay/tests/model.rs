//! The same under every schedule there is, or a thousand of them: `shuttle` decides at each lock of the passage
//! which thread goes on. Nobody polls twice for nothing here, so a wake-up that is lost is a deadlock.

use std::future::poll_fn;

use shuttle::future::block_on;
use shuttle::thread;

use super::*;
use crate::tokens::model::{check, exhaust};

/// Drains a body: what was seen of it, and whether it ended well.
fn drain(mut body: Attempt) -> (String, bool) {
    let mut seen = String::new();
    loop {
        match block_on(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))) {
            Some(Ok(frame)) => seen += std::str::from_utf8(frame.data_ref().unwrap()).unwrap(),
            Some(Err(_)) => return (seen, false),
            None => return (seen, true),
        }
    }
}

/// A body of these frames is sent on one thread, while `decides` has what is kept of it on another.
fn while_sending<T: Send + 'static>(
    frames: &'static [&'static str],
    limit: usize,
    decides: impl FnOnce(Recording<Script>) -> T,
) -> ((String, bool), T) {
    let (sent, saved) = first(script(frames.iter().map(|frame| text(frame))), limit);
    let sending = thread::spawn(move || drain(sent));
    let decided = decides(saved);
    (sending.join().unwrap(), decided)
}

/// It is refused: what the replay sends, if there is one.
fn refused(saved: Recording<Script>) -> Option<(String, bool)> {
    let is_held = saved.hold();
    let replay = saved.into_replay();
    assert_eq!(
        replay.is_some(),
        is_held,
        "held for nothing, or replayed without being held"
    );
    replay.map(drain)
}

fn taken_over(frames: &'static [&'static str]) {
    let ((seen, is_whole), replayed) = while_sending(frames, 9, refused);
    let content = frames.concat();
    assert_eq!(replayed, Some((content.clone(), true)));
    assert!(content.starts_with(&seen) && (!is_whole || seen == content), "{seen}");
}

fn let_go(frames: &'static [&'static str]) {
    let (sent, ()) = while_sending(frames, 9, |saved| {
        assert!(saved.hold());
        drop(saved);
    });
    assert_eq!(sent, (frames.concat(), true));
}

fn accepted(frames: &'static [&'static str]) {
    let (sent, ()) = while_sending(frames, 9, drop);
    assert_eq!(sent, (frames.concat(), true));
}

fn beyond_the_limit(frames: &'static [&'static str]) {
    let content = frames.concat();
    let ((seen, is_whole), replayed) = while_sending(frames, content.len() - 1, refused);
    match replayed {
        Some(replayed) => assert_eq!(replayed, (content.clone(), true)),
        None => assert_eq!((seen.as_str(), is_whole), (content.as_str(), true)),
    }
    assert!(content.starts_with(&seen));
}

#[test]
fn a_frame_is_replayed_whole_whenever_the_upload_is_taken_over() {
    exhaust(|| taken_over(&["a"]));
    check(|| taken_over(&["a", "b", "c"]));
}

#[test]
fn a_frame_is_sent_whole_whenever_the_upload_is_let_go() {
    exhaust(|| let_go(&["a"]));
    check(|| let_go(&["a", "b", "c"]));
}

#[test]
fn a_frame_is_sent_whole_whenever_the_request_is_accepted() {
    exhaust(|| accepted(&["a"]));
    check(|| accepted(&["a", "b", "c"]));
}

#[test]
fn a_frame_is_replayed_or_sent_whole_whenever_it_passes_the_limit() {
    exhaust(|| beyond_the_limit(&["a"]));
    check(|| beyond_the_limit(&["a", "b", "c"]));
}
