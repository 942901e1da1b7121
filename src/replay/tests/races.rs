//! The first attempt on one thread, its refusal on another. Miri runs these under many schedules:
//! `cargo +nightly miri test --lib -- replay:: tape::`.

use super::*;

/// One letter a frame; two of five take two polls.
const SENT: &str = "abcdefghijklmnopqrstuvwxyz";

/// Sends `SENT` on a thread of its own: what was seen of it, and whether it ended well.
fn sending(limit: usize) -> (std::thread::JoinHandle<(String, bool)>, Recording<Script>) {
    let acts = (0..SENT.len()).map(|at| match at % 5 {
        1 | 3 => vec![Act::Wait, text(&SENT[at..=at])],
        _ => vec![text(&SENT[at..=at])],
    });
    let (mut sent, saved) = first(script(acts.flatten()), limit);
    (std::thread::spawn(move || drained(&mut sent)), saved)
}

fn drained(body: &mut Attempt) -> (String, bool) {
    let mut seen = String::new();
    loop {
        match poll(body) {
            Poll::Ready(Some(Ok(frame))) => seen += std::str::from_utf8(frame.data_ref().unwrap()).unwrap(),
            Poll::Ready(Some(Err(_))) => return (seen, false),
            Poll::Ready(None) => return (seen, true),
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

fn rounds() -> usize {
    if cfg!(miri) { 5 } else { 500 }
}

/// Comes at another time in each round.
fn a_while(round: usize) {
    for _ in 0..round % 50 {
        std::thread::yield_now();
    }
}

#[test]
fn whenever_another_thread_takes_over_the_replay_is_whole() {
    for round in 0..rounds() {
        let (sending, saved) = sending(SENT.len());
        a_while(round);
        assert!(saved.hold());
        let (replayed, whole) = drained(&mut saved.into_replay().unwrap());
        assert_eq!((replayed.as_str(), whole), (SENT, true));
        let (seen, whole) = sending.join().unwrap();
        assert!(SENT.starts_with(&seen) && (!whole || seen == SENT), "{seen}");
    }
}

#[test]
fn whenever_another_thread_lets_it_go_on_the_upload_is_whole() {
    for round in 0..rounds() {
        for is_held in [true, false] {
            let (sending, saved) = sending(SENT.len());
            a_while(round);
            assert!(!is_held || saved.hold());
            drop(saved);
            assert_eq!(sending.join().unwrap(), (SENT.into(), true), "round {round}, {is_held}");
        }
    }
}

/// The limit is passed while the refusal comes: there is a replay of all of it, or none.
#[test]
fn whenever_the_limit_is_passed_there_is_a_whole_replay_or_none() {
    for round in 0..rounds() {
        let (sending, saved) = sending(SENT.len() / 2);
        a_while(round % 20);
        let whole = (SENT.to_owned(), true);
        let is_held = saved.hold();
        match saved.into_replay() {
            Some(mut replay) => {
                assert!(is_held);
                assert_eq!(drained(&mut replay), whole);
                assert!(SENT.starts_with(&sending.join().unwrap().0));
            }
            None => {
                assert!(!is_held);
                assert_eq!(sending.join().unwrap(), whole);
            }
        }
    }
}
