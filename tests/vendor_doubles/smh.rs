//! The library tokens of Smart Media Hosting.

use std::time::{Duration, SystemTime};

use super::client::{Call, is};
use super::vendors::tencent::{Renewing, Smh, SmhOptions};
use super::vendors::wire::encode;

async fn smh() -> Smh {
    Smh::start(SmhOptions::default()).await
}

fn generate(more: &[(&str, &str)]) -> Call {
    let options = SmhOptions::default();
    let secret = [
        ("library_id", &*options.library_id),
        ("library_secret", &*options.library_secret),
    ];
    Call::new("GET", "/api/v1/token").query(&[&secret[..], more].concat())
}

fn renew(library: &str, token: &str) -> Call {
    Call::new("POST", &format!("/api/v1/token/{library}/{}", encode(token)))
}

fn business(token: &str) -> Call {
    Call::new("GET", "/business/list").query(&[("access_token", token)])
}

async fn sent(smh: &Smh, call: Call) -> (u16, String) {
    call.send(&smh.url()).await.refusal()
}

#[tokio::test]
async fn the_secret_buys_a_token_for_its_period() {
    let smh = smh().await;
    let periods = [
        ("1", 1_200),
        ("1200", 1_200),
        ("5000", 5_000),
        ("0", 86_400),
        ("-5", 86_400),
        ("day", 86_400),
    ];
    for (period, lives) in periods {
        let heard = generate(&[("period", period), ("user_id", "test user")])
            .send(&smh.url())
            .await;
        assert_eq!(
            (heard.status, heard.json()["expiresIn"].as_u64()),
            (200, Some(lives)),
            "{period}"
        );
        assert_eq!(heard.text("accessToken"), smh.now_serving()[0].access);
        // The period is applied again.
        let heard = renew("smh0test", &heard.text("accessToken")).send(&smh.url()).await;
        assert_eq!((heard.status, heard.json()["expiresIn"].as_u64()), (200, Some(lives)));
    }
    assert_eq!(smh.vendor().last_query().get("user_id"), Some("test user"));
    let heard = generate(&[("space", "1")]).send(&smh.url()).await;
    assert_eq!(heard.json()["expiresIn"].as_u64(), Some(86_400));
    let counts = smh.counts();
    assert_eq!(
        (counts.acquisitions, counts.renewals, counts.unknown_parameters),
        (7, 6, 1)
    );
    assert_eq!((counts.of("Generate"), counts.of("Renew")), (7, 6));
}

#[tokio::test]
async fn a_lifetime_may_be_set_that_no_period_can_ask_for() {
    let smh = Smh::start(SmhOptions {
        lifetime: Some(Duration::from_millis(2_500)),
        ..SmhOptions::default()
    });
    let smh = smh.await;
    let heard = generate(&[("period", "5000")]).send(&smh.url()).await;
    assert_eq!(heard.json()["expiresIn"].as_u64(), Some(2));
    let left = smh.now_serving()[0]
        .access_ends
        .duration_since(SystemTime::now())
        .unwrap();
    assert!(left < Duration::from_millis(2_500));
}

#[tokio::test]
async fn a_wrong_secret_is_told_from_a_missing_one() {
    let smh = smh().await;
    let cases = [
        (vec![], 400, "EmptyLibraryIdOrSecret"),
        (vec![("library_secret", "test")], 400, "EmptyLibraryId"),
        (
            vec![("library_id", "smh0test"), ("library_secret", "")],
            400,
            "EmptyLibrarySecret",
        ),
        (
            vec![("library_id", "smh0test"), ("library_secret", "test")],
            404,
            "WrongLibraryIdOrSecret",
        ),
    ];
    for (query, status, code) in cases {
        let heard = Call::new("GET", "/api/v1/token").query(&query).send(&smh.url()).await;
        assert_eq!(heard.refusal(), is(status, code));
        assert_eq!(heard.json()["status"].as_u64(), Some(u64::from(status)));
        assert!(!heard.text("message").is_empty() && !heard.text("requestId").is_empty());
    }
    let mut twice = generate(&[]);
    twice.query.push_str("&library_id=smh0test");
    assert_eq!(sent(&smh, twice).await, is(400, "InvalidArgument"));
    let posted = Call::new("POST", "/api/v1/token");
    assert_eq!(sent(&smh, posted).await, is(404, "RouteNotFound"));
    assert_eq!((smh.counts().acquisitions, smh.counts().refused), (0, 6));
}

#[tokio::test]
async fn a_renewed_token_changes_or_keeps_its_value() {
    for renewing in [Renewing::Changes, Renewing::Keeps] {
        let smh = Smh::start(SmhOptions {
            renewing,
            ..SmhOptions::default()
        });
        let smh = smh.await;
        let first = smh.issue();
        let heard = renew("smh0test", &first.access).send(&smh.url()).await;
        let changed = heard.text("accessToken") != first.access;
        assert_eq!((heard.status, changed), (200, renewing == Renewing::Changes));
        assert_eq!(smh.now_serving().len(), 1);
        assert_eq!(smh.now_serving()[0].access, heard.text("accessToken"));
        let again = renew("smh0test", &first.access).send(&smh.url()).await;
        assert_eq!(again.status == 200, !changed);
        assert_eq!(smh.counts().presented_twice, u64::from(changed));
    }
}

#[tokio::test]
async fn only_a_live_token_of_the_library_is_renewed() {
    let smh = smh().await;
    let token = smh.issue().access;
    assert_eq!(
        sent(&smh, renew("another", &token)).await,
        is(403, "AccessTokenNotMatchLibrary")
    );
    assert_eq!(
        sent(&smh, renew("smh0test", "test")).await,
        is(403, "InvalidAccessToken")
    );
    assert_eq!(sent(&smh, renew("smh0test", "")).await, is(400, "EmptyAccessToken"));
    // A slash that is not encoded is another path.
    let mut bare = renew("smh0test", &token);
    bare.path = bare.path.replace("%2F", "/");
    assert_eq!(sent(&smh, bare).await, is(404, "RouteNotFound"));
    let with_query = renew("smh0test", &token).query(&[("period", "5000")]);
    assert_eq!(sent(&smh, with_query).await, is(400, "InvalidArgument"));
    let with_body = renew("smh0test", &token).text("{}");
    assert_eq!(sent(&smh, with_body).await, is(400, "InvalidArgument"));
    smh.revoke();
    assert_eq!(
        sent(&smh, renew("smh0test", &token)).await,
        is(403, "InvalidAccessToken")
    );
    assert_eq!((smh.counts().renewals, smh.counts().presented_twice), (0, 0));
}

#[tokio::test]
async fn business_is_refused_with_403_and_so_is_what_is_forbidden() {
    let smh = smh().await;
    let token = smh.issue().access;
    assert_eq!(business(&token).send(&smh.url()).await.status, 200);
    let bearer = Call::new("POST", "/business").header("authorization", &format!("Bearer {token}"));
    let heard = bearer.text("a body").send(&smh.url()).await;
    assert_eq!((heard.status, heard.body.as_ref()), (200, b"a body".as_slice()));
    let mut forbidden = business(&token);
    forbidden.path = "/business/forbidden".into();
    assert_eq!(sent(&smh, forbidden.clone()).await, is(403, "NoPermission"));
    smh.kill_all();
    assert_eq!(sent(&smh, business(&token)).await, is(403, "InvalidAccessToken"));
    assert_eq!(sent(&smh, forbidden).await, is(403, "InvalidAccessToken"));
    assert_eq!(
        sent(&smh, Call::new("GET", "/business")).await,
        is(403, "InvalidAccessToken")
    );
    let counts = smh.counts();
    assert_eq!(
        (counts.business_ok, counts.business_refused, counts.expired_presented),
        (3, 3, 2)
    );
}

#[tokio::test]
async fn every_use_lets_a_token_live_its_period_again() {
    for sliding in [true, false] {
        let smh = Smh::start(SmhOptions {
            sliding,
            ..SmhOptions::default()
        });
        let smh = smh.await;
        let first = smh.issue();
        // Any time that passes will do, since the end is reckoned from it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(business(&first.access).send(&smh.url()).await.status, 200);
        let later = smh.now_serving()[0].access_ends.duration_since(first.access_ends);
        assert_eq!(later.unwrap_or_default() > Duration::from_millis(10), sliding);
    }
}
