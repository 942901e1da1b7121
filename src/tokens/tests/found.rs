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
