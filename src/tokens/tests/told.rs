//! What is told of refusals, of the breaker and of clocks, and what a handle says of itself.

use super::accidents::challenge;
use super::*;
use crate::event::Skipped;
use crate::token::Warning;

const MINUTE: Duration = Duration::from_secs(60);
const HERE: Place = Place {
    origin: 1,
    route: Some(7),
};
const ELSEWHERE: Place = Place {
    origin: 1,
    route: Some(8),
};

/// What was told, and a builder that writes it down.
#[derive(Clone, Default)]
pub(super) struct Told(pub(super) Arc<Mutex<Vec<Event>>>);

impl Told {
    pub(super) fn observing(&self, builder: TokensBuilder) -> TokensBuilder {
        let log = self.0.clone();
        builder.observe(move |event: &Event| log.lock().unwrap().push(event.clone()))
    }

    pub(super) fn count(&self, of: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| of(event)).count()
    }

    /// How many waited for each fetch that failed.
    pub(super) fn waited_in_vain(&self) -> Vec<usize> {
        let waited = |event: &Event| match event {
            Event::FetchFailed { waited, .. } => Some(*waited),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(waited).collect()
    }

    /// What was told of refusals since it was last asked.
    fn of_refusals(&self) -> Vec<&'static str> {
        let word = |event: Event| match event {
            Event::Refused { .. } => Some("refused"),
            Event::BreakerOpened { .. } => Some("opened"),
            Event::BreakerHeld { .. } => Some("held"),
            Event::BreakerClosed { .. } => Some("closed"),
            Event::Skipped {
                cause: Cause::Refused,
                reason: Skipped::Verdict,
            } => Some("skipped for a verdict"),
            _ => None,
        };
        self.0.lock().unwrap().drain(..).filter_map(word).collect()
    }
}

fn number(token: &Token) -> Generation {
    token.generation().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_breaker_says_when_it_opens_when_it_holds_and_when_it_closes() {
    let told = Told::default();
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| told.observing(b));
    let first = tokens.get().await.unwrap();
    tokens.invalidate(&first);
    assert_eq!(told.of_refusals(), ["refused"]);
    // Nobody has accepted this one.
    let second = tokens.get().await.unwrap();
    for said in [&["opened", "held"][..], &["held"]] {
        tokens.invalidate(&second);
        assert_eq!(told.of_refusals(), said);
    }
    assert!(tokens.status().breaker_open);
    advance(MINUTE).await;
    tokens.invalidate(&second);
    assert_eq!(told.of_refusals(), ["closed", "refused"]);
    tokens.get().await.unwrap();
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_a_verdict_stands_against_is_told_as_skipped() {
    let told = Told::default();
    let answer = |nth| match nth {
        1 => (SECOND, minted(nth, HOUR)),
        _ => (SECOND, Err(FetchError::terminal("over"))),
    };
    let (tokens, _) = tokens_of(answer, |b| told.observing(b));
    let first = tokens.get().await.unwrap();
    tokens.invalidate(&first);
    tokens.get().await.unwrap_err();
    told.of_refusals();
    tokens.invalidate(&first);
    assert_eq!(told.of_refusals(), ["skipped for a verdict"]);
}

/// The route refuses what is accepted elsewhere, and then it does not.
#[tokio::test(start_paused = true)]
async fn a_route_that_refused_two_tokens_of_one_request_is_held_until_it_accepts() {
    let told = Told::default();
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| told.observing(b));
    let engine = tokens.engine();
    let first = number(&tokens.get().await.unwrap());
    engine.accept(first, || ELSEWHERE);
    let refusal = engine.refuse(first, HERE, Challenge::none());
    assert!(matches!(refusal, Refusal::Wait(_)));
    let second = number(&tokens.get().await.unwrap());
    engine.refuse_again((first, second), HERE);
    engine.accept(second, || ELSEWHERE);
    let refusal = engine.refuse(second, HERE, Challenge::none());
    assert!(matches!(refusal, Refusal::HandBack(HandedBack::Breaker, None)));
    assert_eq!(told.of_refusals(), ["refused", "opened", "held"]);
    engine.accept(second, || HERE);
    assert_eq!(told.of_refusals(), ["closed"]);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_asked_once_a_token_for_more_than_a_newer_one_and_its_answer_is_kept() {
    let answer = |nth| match nth {
        2 => (SECOND, Err(FetchError::needs_interaction("a second factor"))),
        _ => (SECOND, minted(nth, HOUR)),
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    let refuse = |token: &Token| {
        let place = Place { origin: 1, route: None };
        tokens
            .engine()
            .refuse(number(token), place, challenge("insufficient_claims"))
    };
    let first = tokens.get().await.unwrap();
    let Refusal::Wait(landing) = refuse(&first) else {
        panic!("a step-up that asks nobody")
    };
    assert!(matches!(landing.await, Landed::Failed(_)));
    let Refusal::HandBack(HandedBack::StepUp, Some(answer)) = refuse(&first) else {
        panic!("a step-up that asks twice, or has forgotten")
    };
    assert!(answer.demand().is_some());
    // A newer token is another question, once somebody took it.
    let third = tokens.refresh().await.unwrap();
    assert!(matches!(
        refuse(&third),
        Refusal::HandBack(HandedBack::Breaker, Some(_))
    ));
    tokens.engine().accept(number(&third), || ELSEWHERE);
    assert!(matches!(refuse(&third), Refusal::Wait(_)));
    settle().await;
    assert_eq!(issuer.fetches(), 4);
}

#[tokio::test(start_paused = true)]
async fn how_far_the_issuers_clock_is_off_is_told_and_warned_of_if_it_is_much() {
    for (ahead, warned) in [(7, 0), (40, 1)] {
        let told = Told::default();
        let clock = Clock::of_tokio();
        let wall = clock.clone();
        let answer = move |nth| {
            let date = wall.now() + ahead * SECOND;
            (Duration::ZERO, Ok(minted(nth, HOUR).unwrap().dated(date)))
        };
        let (tokens, _) = tokens_of(answer, |b| told.observing(b).clock(clock));
        tokens.get().await.unwrap();
        assert_eq!(tokens.status().skew, Some(i64::from(ahead)));
        let skewed = |event: &Event| matches!(event, Event::Warned { warning, .. } if *warning == Warning::ClockSkewed);
        assert_eq!(told.count(skewed), warned);
    }
}

#[tokio::test(start_paused = true)]
async fn the_current_token_is_a_header_that_is_not_printed() {
    let (tokens, _) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    assert!(tokens.current_header().is_none());
    tokens.get().await.unwrap();
    let header = tokens.current_header().unwrap();
    assert!(header == "Bearer test-1" && header.is_sensitive());
}
