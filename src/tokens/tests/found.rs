//! What random histories (`tests/histories.rs`) found, each told by itself.

use super::*;

/// Begins a renewal in the advisory window, which is in the air when `first` is refused: another one follows.
async fn refused_while_renewed(tokens: &Tokens) -> Token {
    let first = tokens.get().await.unwrap();
    advance(31 * SECOND).await;
    tokens.get().await.unwrap();
    settle().await;
    tokens.invalidate(&first);
    first
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_chained_fetch_that_fails_gets_the_token_that_came_before_it() {
    let answer = |nth| match nth {
        3 => (SECOND, Err(FetchError::transient("down"))),
        _ => (SECOND, minted(nth, 60 * SECOND)),
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    refused_while_renewed(&tokens).await;
    let waits = tokio::spawn(tokens.get());
    sleep(3 * SECOND).await;
    assert_eq!(issuer.fetches(), 3);
    assert_eq!(waits.await.unwrap().unwrap().secret(), "test-2");
}

#[tokio::test(start_paused = true)]
async fn to_invalidate_an_old_token_costs_no_fetch_although_the_new_one_is_over() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, 60 * SECOND)), |b| b);
    let first = refused_while_renewed(&tokens).await;
    advance(HOUR).await;
    let before = issuer.fetches();
    tokens.invalidate(&first);
    settle().await;
    assert_eq!(issuer.fetches(), before);
}

/// It lives for a minute, whatever the wall clock says: as told it would live for a day.
#[tokio::test(start_paused = true)]
async fn a_clock_set_back_while_a_token_is_on_its_way_does_not_lengthen_its_life() {
    let clock = Clock::of_tokio();
    let (tokens, issuer) = tokens_of(|nth| (2 * SECOND, minted(nth, 60 * SECOND)), |b| b.clock(clock.clone()));
    let waits = tokio::spawn(tokens.get());
    sleep(SECOND).await;
    clock.step(-86_400);
    assert_eq!(waits.await.unwrap().unwrap().secret(), "test-1");
    // To the end of what the issuer said, but for the mandatory window of 15 s.
    sleep(42 * SECOND).await;
    assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
    sleep(2 * SECOND).await;
    assert_eq!(tokens.get().await.unwrap().secret(), "test-2");
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_fenced_off_and_panics_fails_nobody_who_asked_after_the_install() {
    let provider = provider_fn(|context: FetchContext| async move {
        let installed = context.credential().is_some();
        sleep(2 * SECOND).await;
        assert!(installed, "test panic");
        minted(2, HOUR)
    });
    let tokens = Tokens::new(provider).unwrap();
    let before = tokio::spawn(tokens.get());
    sleep(SECOND).await;
    tokens.install(serde_json::json!("test-installed")).unwrap();
    let after = tokio::spawn(tokens.get());
    assert_eq!(before.await.unwrap().unwrap().secret(), "test-2");
    assert_eq!(after.await.unwrap().unwrap().secret(), "test-2");
}

/// Fails as `first` says, then in passing on an explicit `refresh()`, and is asked for a minute.
async fn asked_for_a_minute_after(first: FetchError) -> (Tokens, usize) {
    let answer = move |nth| match nth {
        1 => (Duration::ZERO, Err(first.clone())),
        _ => (Duration::ZERO, Err(FetchError::transient("down"))),
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    assert!(tokens.get().await.is_err());
    assert!(tokens.refresh().await.unwrap_err().is_transient());
    for _ in 0..60 {
        sleep(SECOND).await;
        assert!(tokens.get().await.is_err());
    }
    (tokens, issuer.fetches())
}

#[tokio::test(start_paused = true)]
async fn an_explicit_fetch_that_fails_in_passing_does_not_shorten_retry_after() {
    let throttled = FetchError::throttled(Some(600 * SECOND), "slow down");
    let (tokens, fetches) = asked_for_a_minute_after(throttled).await;
    assert_eq!(fetches, 2);
    assert_eq!(tokens.get().await.unwrap_err().retry_after(), Some(540 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_explicit_fetch_that_fails_in_passing_does_not_end_a_verdict() {
    let (tokens, fetches) = asked_for_a_minute_after(FetchError::terminal("over")).await;
    assert_eq!(fetches, 2);
    assert_eq!(tokens.status().state, State::Terminal);
    assert!(tokens.get().await.unwrap_err().is_reauth_required());
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_while_a_token_is_on_its_way_does_not_raise_the_dead() {
    let clock = Clock::of_tokio();
    let (tokens, _) = tokens_of(
        |nth| (20 * SECOND, minted(nth, 10 * SECOND)),
        |b| b.clock(clock.clone()),
    );
    let waits = tokio::spawn(tokens.get());
    sleep(SECOND).await;
    clock.step(-86_400);
    assert!(waits.await.unwrap().unwrap_err().is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_by_the_monotonic_clock_also_while_the_chained_fetch_is_in_the_air() {
    let clock = Clock::of_tokio();
    let answer = |nth| match nth {
        3 => (25 * SECOND, minted(nth, HOUR)),
        _ => (SECOND, minted(nth, 8 * SECOND)),
    };
    let (tokens, issuer) = tokens_of(answer, |b| b.clock(clock.clone()));
    let first = tokens.get().await.unwrap();
    let renewal = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.refresh().await }
    });
    settle().await;
    tokens.invalidate(&first);
    assert_eq!(renewal.await.unwrap().unwrap().secret(), "test-2");
    clock.step(-86_400);
    sleep(9 * SECOND).await;
    assert_eq!(issuer.fetches(), 3);
    assert_eq!(tokens.get().await.unwrap().secret(), "test-3");
}
