//! A server that wants more than a newer token: a stronger sign-in (RFC 9470), more claims (Continuous Access Evaluation).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use tower::Layer;
use tower_token::*;

use support::{Api, Page, at_once, get, origins, send};

const STRONGER: &str = r#"Bearer error="insufficient_user_authentication", acr_values="urn:example:gold", max_age="5""#;
const CLAIMS: &str = r#"Bearer realm="", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#;

fn demanding(challenge: &'static str) -> Response<Page> {
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header("www-authenticate", challenge)
        .body("sign in again".into())
        .unwrap()
}

fn why(response: &Response<Page>) -> &Error {
    response
        .extensions()
        .get::<Error>()
        .expect("why there is no newer token")
}

/// A provider that can bring `gold` when it is shown what for, and what it was asked.
fn stepping_up() -> (Tokens, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let tokens = Tokens::new(provider_fn(move |context: FetchContext| {
        let demand = context
            .challenge()
            .and_then(|challenge| challenge.param("acr_values").map(str::to_owned));
        counted.fetch_add(usize::from(demand.is_some()), Ordering::SeqCst);
        async move {
            let secret = if demand.as_deref() == Some("urn:example:gold") {
                "test-gold"
            } else {
                "test-plain"
            };
            Ok(Token::bearer(secret).expires_in(support::HOUR))
        }
    }));
    (tokens.unwrap(), asked)
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_shown_what_is_demanded_and_the_request_is_replayed_with_what_it_brings() {
    let (tokens, asked) = stepping_up();
    let api = Api::answering(|_, head| match support::bearer(head) {
        Some("test-gold") => support::page("welcome"),
        _ => demanding(STRONGER),
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    assert_eq!(send(&client, get()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// The provider says that it cannot; every caller, also those who come later, gets the server's own answer and
/// what is needed, and the token goes on being good for the rest.
#[tokio::test(start_paused = true)]
async fn what_no_provider_can_bring_is_told_to_each_caller_and_asked_for_once() {
    for (challenge, param, value) in [
        (STRONGER, "acr_values", "urn:example:gold"),
        (STRONGER, "max_age", "5"),
        (CLAIMS, "claims", "eyJhY2Nlc3NfdG9rZW4iOnt9fQ=="),
    ] {
        let fetches = Arc::new(AtomicUsize::new(0));
        let counted = fetches.clone();
        let tokens = Tokens::new(provider_fn(move |context: FetchContext| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match context.challenge() {
                    None => Ok(support::minted(1)),
                    Some(_) => Err(FetchError::needs_interaction("a person has to sign in again")),
                }
            }
        }))
        .unwrap();
        let api = Api::answering(move |_, head| match head.uri.path() {
            "/me" => demanding(challenge),
            _ => support::page("welcome"),
        });
        let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
        for _ in 0..3 {
            let refusal = send(&client, get()).await.unwrap();
            assert_eq!(
                (refusal.status(), &**refusal.body()),
                (StatusCode::UNAUTHORIZED, "sign in again")
            );
            assert!(why(&refusal).is_reauth_required());
            assert_eq!(why(&refusal).demand().unwrap().param(param), Some(value));
            assert!(!format!("{:?} {}", why(&refusal), why(&refusal)).contains(value));
        }
        assert_eq!((fetches.load(Ordering::SeqCst), api.deliveries()), (2, 3));
        assert_eq!(tokens.status().state, State::Fresh);
    }
}

/// A provider that does not look at the challenge brings a new token each time, and the server demands more of each.
#[tokio::test(start_paused = true)]
async fn a_provider_that_never_brings_what_is_demanded_costs_one_fetch_a_minute() {
    for path_of_others in [None, Some("/others")] {
        let (tokens, issuer) = support::issuer();
        let api = Api::answering(|_, head| match head.uri.path() {
            "/me" => demanding(STRONGER),
            _ => support::page("welcome"),
        });
        let client = TokenLayer::new(&tokens, origins()).layer(api.clone());
        for _ in 0..600 {
            if let Some(path) = path_of_others {
                let other = http::Request::get(format!("https://api.example.com{path}")).body(String::new());
                assert_eq!(send(&client, other.unwrap()).await.unwrap().status(), StatusCode::OK);
            }
            let refusal = send(&client, get()).await.unwrap();
            assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
            assert!(why(&refusal).is_reauth_required());
            assert_eq!(why(&refusal).demand().unwrap().param("max_age"), Some("5"));
            tokio::time::sleep(support::SECOND).await;
        }
        // Ten minutes, and what the fetches took: the first token, five strikes, and one a minute.
        assert!(
            issuer.fetches() <= 1 + 5 + 11,
            "{path_of_others:?}: {}",
            issuer.fetches()
        );
    }
}

/// The issuer is down for a moment, or the provider panics, which is no answer to what is demanded.
#[tokio::test(start_paused = true)]
async fn a_demand_that_failed_in_passing_is_asked_for_again_a_minute_later() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let provider = provider_fn(move |context: FetchContext| {
        let demanded = context.challenge().is_some();
        let nth = counted.fetch_add(usize::from(demanded), Ordering::SeqCst);
        async move {
            match (demanded, nth) {
                (false, _) => Ok(support::minted(1)),
                (true, 0) => Err(FetchError::transient("down")),
                (true, 1) => Err(FetchError::throttled(Some(90 * support::SECOND), "patience")),
                (true, 2) => panic!("a provider's own fault"),
                (true, _) => Ok(support::minted(2)),
            }
        }
    });
    let tokens = Tokens::new(provider.if_lost(IfLost::Idempotent)).unwrap();
    let api = Api::answering(|_, head| match support::bearer(head) {
        Some("test-2") => support::page("welcome"),
        _ => demanding(STRONGER),
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    let mut asked_at = Vec::new();
    for second in 0..300 {
        let before = asked.load(Ordering::SeqCst);
        let answer = send(&client, get()).await.unwrap();
        if asked.load(Ordering::SeqCst) > before {
            asked_at.push(second);
        }
        if answer.status() == StatusCode::OK {
            break;
        }
        assert!(why(&answer).is_transient(), "{second}: {:?}", why(&answer));
        // Of the panic itself nobody knows more.
        assert!(why(&answer).demand().is_some() || second == 150, "{second}");
        tokio::time::sleep(support::SECOND).await;
    }
    assert_eq!(asked_at, [0, 60, 150, 210]);
    assert_eq!(tokens.status().state, State::Fresh);
}

/// A renewal is in the air, and no second fetch beside it: the demand is told all the same.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_asked_for_is_told_to_the_caller() {
    let tokens = Tokens::new(provider_fn(|_| async {
        tokio::time::sleep(support::SECOND).await;
        Ok(support::minted(1))
    }));
    let tokens = tokens.unwrap();
    tokens.get().await.unwrap();
    let client = TokenLayer::new(&tokens, origins()).layer(Api::answering(|_, _| demanding(STRONGER)));
    let renewal = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.refresh().await }
    });
    support::settle().await;
    let refusal = send(&client, get()).await.unwrap();
    assert_eq!(why(&refusal).demand().unwrap().param("max_age"), Some("5"));
    assert!(why(&refusal).is_transient());
    renewal.await.unwrap().unwrap();
}

/// A refusal that is handed on for want of a newer token says why, and the server's answer is otherwise its own.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_handed_on_says_why_there_is_no_newer_token() {
    let (tokens, _) = support::issuer_that(|nth| match nth {
        1 => Ok(()),
        _ => Err(FetchError::terminal("the session is over")),
    });
    let client = TokenLayer::new(&tokens, origins()).layer(Api::refusing(["test-1"]));
    let refusal = send(&client, get()).await.unwrap();
    assert_eq!(
        (refusal.status(), &**refusal.body()),
        (StatusCode::UNAUTHORIZED, "the token is over")
    );
    assert!(why(&refusal).is_reauth_required() && why(&refusal).demand().is_none());
    // Signed out while the request was on its way.
    let (tokens, _) = at_once();
    let theirs = tokens.clone();
    let api = Api::answering(move |_, _| {
        theirs.sign_out();
        support::refusal()
    });
    let client = TokenLayer::new(&tokens, origins()).layer(api);
    assert!(why(&send(&client, get()).await.unwrap()).is_signed_out());
    // Nothing was refused: nothing to say.
    let (tokens, _) = at_once();
    let client = TokenLayer::new(&tokens, origins()).layer(Api::refusing([]));
    assert!(
        send(&client, get())
            .await
            .unwrap()
            .extensions()
            .get::<Error>()
            .is_none()
    );
}
