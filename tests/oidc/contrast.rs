//! What the tests of the layer are held against: a client without a flight of its own, and the
//! server's word that it can tell the difference.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::issuer::{Counts, Delay, Http, Oidc, http};

/// `Basic` of `rt-client` and its secret.
const RT_CLIENT: &str = "Basic cnQtY2xpZW50OnJ0LXNlY3JldA==";

#[tokio::test]
async fn the_server_counts_what_is_presented_twice() {
    let Some(oidc) = Oidc::start() else { return };
    let refresh_token = oidc.sign_in("rt-client").await;
    let http = http();
    assert!(post_refresh(&http, &oidc, &refresh_token).await.is_ok());
    let again = post_refresh(&http, &oidc, &refresh_token).await;
    assert_eq!(again, Err(StatusCode::BAD_REQUEST));
    assert_eq!(oidc.revoke_access().await, 0, "the second time ended the grant");

    let counts = oidc.counts().await;
    assert_eq!((counts.token_requests, counts.granted), (2, 1), "{counts:#?}");
    assert_eq!(
        (counts.presented_twice, counts.invalid_grant, counts.grants_revoked),
        (1, 1, 1),
        "{counts:#?}"
    );
    assert_eq!((counts.in_flight, counts.max_in_flight), (0, 1), "{counts:#?}");
    oidc.reset().await;
    assert_eq!(oidc.counts().await.token_requests, 0);
}

/// Unencoded, they are another client's: the id ends at the first colon.
#[tokio::test]
async fn the_server_refuses_an_id_and_a_secret_that_are_not_encoded() {
    let Some(oidc) = Oidc::start() else { return };
    // base64 of "cc:odd id" and its secret as they are, joined by a colon
    let raw = "Basic Y2M6b2RkIGlkOnBAc3M6dy9yZCsgJTI1Jj1+";
    let status = post_form(&http(), &oidc, raw, "grant_type=client_credentials".into())
        .await
        .unwrap_err();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let counts = oidc.counts().await;
    assert_eq!((counts.granted, counts.invalid_client), (0, 1), "{counts:#?}");
}

#[tokio::test]
async fn the_same_rounds_with_a_once_cell_lose_the_grant() {
    const ROUNDS: u64 = 50;
    let Some(oidc) = Oidc::start() else { return };
    let http = http();
    let lost = lost_grants(&oidc, ROUNDS, |refresh_token| {
        let (oidc, http) = (&oidc, &http);
        let cell = OnceCell::new();
        async move || {
            let exchange = || post_refresh(http, oidc, &refresh_token);
            cell.get_or_try_init(exchange).await.is_ok()
        }
    })
    .await;
    let counts = oidc.counts().await;
    assert_eq!(lost, ROUNDS, "{counts:#?}");
    assert_eq!(
        (counts.presented_twice, counts.grants_revoked),
        (ROUNDS, ROUNDS),
        "{counts:#?}"
    );
}

/// How many of `rounds` fresh grants do not live through this: a caller wants a token and leaves when
/// the server has committed to its answer and not sent it; then another caller wants one.
///
/// `sign_in` makes of a refresh token what a caller does, which says whether it got a token.
pub(crate) async fn lost_grants<C>(oidc: &Oidc, rounds: u64, sign_in: impl Fn(String) -> C) -> u64
where
    C: AsyncFn() -> bool,
{
    let mut lost = 0;
    for _ in 0..rounds {
        let caller = sign_in(oidc.sign_in("rt-client").await);
        // Longer than any pause of the machine; it ends when the delay is taken away.
        let slow = Delay {
            token_after: 10_000,
            ..Delay::default()
        };
        oidc.delay(slow).await;
        let granted = oidc.counts().await.granted;
        tokio::select! {
            biased;
            _ = oidc.until(|counts: &Counts| counts.granted > granted) => {}
            _ = caller() => panic!("the answer was there before the caller had left"),
        }
        oidc.delay(Delay::default()).await;
        lost += u64::from(!caller().await);
    }
    lost
}

/// The access token, or the status in place of one.
async fn post_refresh(http: &Http, oidc: &Oidc, refresh_token: &str) -> Result<String, StatusCode> {
    let form = format!("grant_type=refresh_token&refresh_token={refresh_token}");
    post_form(http, oidc, RT_CLIENT, form).await
}

async fn post_form(http: &Http, oidc: &Oidc, authorization: &str, form: String) -> Result<String, StatusCode> {
    let request = Request::post(oidc.token_url())
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", authorization)
        .body(Full::new(Bytes::from(form)))
        .unwrap();
    let response = http.request(request).await.expect("an answer");
    if response.status() != StatusCode::OK {
        return Err(response.status());
    }
    let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    Ok(answer["access_token"].as_str().expect("an access token").to_owned())
}
