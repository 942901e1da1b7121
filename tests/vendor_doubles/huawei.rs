//! The user's and the tenant's tokens of OneAccess.

use std::time::Duration;

use super::client::{Call, Heard, is};
use super::vendors::huawei::{ExpiresIn, Huawei, HuaweiOptions, Refresh};

const USER: &str = "/api/v1/oauth2/token";
const TENANT: &str = "/api/v2/tenant/token";
const REDIRECT: &str = "https://app.example.com/back?a=1&b=2";
const CLIENT: [(&str, &str); 2] = [("client_id", "test-client"), ("client_secret", "test secret+/=&~*")];

async fn huawei() -> Huawei {
    Huawei::start(HuaweiOptions::default()).await
}

async fn refreshing(refresh: Refresh) -> Huawei {
    let options = HuaweiOptions {
        refresh,
        ..HuaweiOptions::default()
    };
    Huawei::start(options).await
}

fn ask(path: &str, pairs: &[(&str, &str)]) -> Call {
    Call::new("POST", path).form(&[&CLIENT[..], pairs].concat())
}

fn refresh(token: &str) -> Call {
    ask(USER, &[("grant_type", "refresh_token"), ("refresh_token", token)])
}

fn redeem(code: &str, uri: &str) -> Call {
    let grant = ("grant_type", "authorization_code");
    ask(USER, &[grant, ("code", code), ("redirect_uri", uri)])
}

fn tenant() -> Call {
    ask(TENANT, &[("grant_type", "client_credentials")])
}

fn business(token: &str) -> Call {
    Call::new("DELETE", "/business").header("authorization", &format!("Bearer {token}"))
}

async fn sent(huawei: &Huawei, call: Call) -> (u16, String) {
    call.send(&huawei.url()).await.refusal()
}

fn names(heard: &Heard) -> Vec<String> {
    heard.json().as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn a_code_is_good_once_and_for_its_redirect_uri() {
    let huawei = huawei().await;
    let code = huawei.vendor().authorize(REDIRECT);
    let elsewhere = redeem(&code, "https://evil.example.com");
    assert_eq!(sent(&huawei, elsewhere).await, is(400, "invalid_grant"));
    let heard = redeem(&code, REDIRECT).send(&huawei.url()).await;
    assert_eq!((heard.status, heard.text("token_type")), (200, "Bearer".into()));
    assert_eq!(heard.json()["expires_in"].as_u64(), Some(7_200));
    assert_eq!(heard.text("access_token"), huawei.now_serving()[0].access);
    assert_eq!(Some(heard.text("refresh_token")), huawei.now_serving()[0].renew);
    let again = redeem(&code, REDIRECT).send(&huawei.url()).await;
    assert_eq!(again.refusal(), is(400, "invalid_client"));
    assert_eq!(again.text("error_description"), "Invalid authorization code");
    assert_eq!(
        sent(&huawei, redeem("test-stranger", REDIRECT)).await,
        is(400, "invalid_client")
    );
    let counts = huawei.counts();
    assert_eq!((counts.acquisitions, counts.presented_twice), (1, 1));
    assert_eq!(counts.of("authorization_code"), 4);
    // Where the redirect_uri is left out it is not compared.
    let code = huawei.vendor().authorize(REDIRECT);
    let call = ask(USER, &[("grant_type", "authorization_code"), ("code", &code)]);
    assert_eq!(call.send(&huawei.url()).await.status, 200);
}

#[tokio::test]
async fn a_refresh_token_rotates_is_repeated_is_left_out_or_is_off() {
    for kind in [Refresh::Rotates, Refresh::Repeats, Refresh::LeftOut] {
        let huawei = refreshing(kind).await;
        let first = huawei.issue();
        let token = first.renew.unwrap();
        let heard = refresh(&token).send(&huawei.url()).await;
        assert_eq!(heard.status, 200);
        assert_ne!(heard.text("access_token"), first.access);
        let next = heard.text("refresh_token");
        match kind {
            Refresh::Rotates => assert!(!next.is_empty() && next != token),
            Refresh::Repeats => assert_eq!(next, token),
            _ => assert!(!names(&heard).contains(&"refresh_token".into())),
        }
        let rotates = kind == Refresh::Rotates;
        let again = refresh(&token).send(&huawei.url()).await;
        assert_eq!(again.status == 200, !rotates);
        assert_eq!(huawei.counts().presented_twice, u64::from(rotates));
        assert_eq!(huawei.now_serving().len(), 1);
    }
    let huawei = refreshing(Refresh::Off).await;
    let code = huawei.vendor().authorize(REDIRECT);
    let heard = redeem(&code, REDIRECT).send(&huawei.url()).await;
    assert!(!names(&heard).contains(&"refresh_token".into()));
    assert_eq!(huawei.now_serving()[0].renew, None);
}

#[tokio::test]
async fn a_refused_refresh_is_invalid_grant() {
    let huawei = Huawei::start(HuaweiOptions {
        refresh_lifetime: Duration::ZERO,
        ..HuaweiOptions::default()
    });
    let huawei = huawei.await;
    let heard = redeem(&huawei.vendor().authorize(REDIRECT), REDIRECT)
        .send(&huawei.url())
        .await;
    for token in [heard.text("refresh_token"), "test-stranger".into()] {
        let refused = refresh(&token).send(&huawei.url()).await;
        assert_eq!(refused.refusal(), is(400, "invalid_grant"));
        assert_eq!(refused.text("error_description"), "Invalid refresh token");
    }
    assert_eq!(
        (huawei.counts().presented_twice, huawei.counts().of("refresh_token")),
        (0, 2)
    );
    let huawei = refreshing(Refresh::Repeats).await;
    let token = huawei.issue().renew.unwrap();
    huawei.revoke();
    assert_eq!(refresh(&token).send(&huawei.url()).await.status, 200);
    huawei.kill_all();
    assert_eq!(sent(&huawei, refresh(&token)).await, is(400, "invalid_grant"));
}

#[tokio::test]
async fn the_lifetime_is_a_number_or_a_text() {
    let huawei = Huawei::start(HuaweiOptions {
        expires_in: ExpiresIn::Text,
        access_lifetime: Duration::from_millis(2_900),
        ..HuaweiOptions::default()
    });
    let huawei = huawei.await;
    let token = huawei.issue().renew.unwrap();
    assert_eq!(refresh(&token).send(&huawei.url()).await.text("expires_in"), "2");
    assert_eq!(tenant().send(&huawei.url()).await.text("expires_in"), "1800");
}

#[tokio::test]
async fn a_new_tenant_token_does_not_end_an_older_one() {
    let huawei = huawei().await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let heard = tenant().send(&huawei.url()).await;
        assert_eq!((heard.status, heard.json()["expires_in"].as_u64()), (200, Some(1_800)));
        let members = ["access_token", "expires_in", "id_token", "scope", "token_type"];
        assert_eq!(names(&heard), members);
        tokens.push(heard.text("access_token"));
    }
    for token in &tokens {
        assert_eq!(business(token).send(&huawei.url()).await.status, 200);
    }
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(
        (huawei.counts().acquisitions, huawei.counts().of("client_credentials")),
        (2, 2)
    );
}

#[tokio::test]
async fn credentials_stand_in_the_form_and_nowhere_else() {
    let huawei = huawei().await;
    let token = huawei.issue().renew.unwrap();
    let basic = refresh(&token).header("authorization", "Basic dGVzdDp0ZXN0");
    assert_eq!(sent(&huawei, basic).await, is(400, "invalid_client"));
    let mut in_the_query = refresh(&token);
    in_the_query.query = std::mem::take(&mut in_the_query.body);
    assert_eq!(sent(&huawei, in_the_query).await, is(400, "invalid_request"));
    let json = refresh(&token).header("content-type", "application/json");
    assert_eq!(sent(&huawei, json).await, is(400, "invalid_request"));
    let grant = ("grant_type", "refresh_token");
    let wrong = [CLIENT[0], ("client_secret", "test"), grant, ("refresh_token", &token)];
    let heard = Call::new("POST", USER).form(&wrong).send(&huawei.url()).await;
    assert_eq!(heard.refusal(), is(400, "invalid_client"));
    assert_eq!(heard.text("error_description"), "Bad client credentials");
    for left_out in 0..4 {
        let mut pairs = [&CLIENT[..], &[grant, ("refresh_token", &token)]].concat();
        pairs.remove(left_out);
        let call = Call::new("POST", USER).form(&pairs);
        assert_eq!(sent(&huawei, call).await, is(400, "invalid_request"));
    }
    let twice = ask(USER, &[grant, grant, ("refresh_token", &token)]);
    assert_eq!(sent(&huawei, twice).await, is(400, "invalid_request"));
    let password = ask(USER, &[("grant_type", "password")]);
    assert_eq!(sent(&huawei, password).await, is(400, "unsupported_grant_type"));
    assert_eq!(huawei.counts().renewals, 0);
    assert_eq!(refresh(&token).send(&huawei.url()).await.status, 200);
}

#[tokio::test]
async fn the_tenant_api_has_its_own_form_of_errors() {
    let huawei = huawei().await;
    let refused = [
        ask(TENANT, &[("grant_type", "refresh_token")]),
        ask(TENANT, &[]),
        tenant().header("authorization", "Basic dGVzdDp0ZXN0"),
        Call::new("POST", TENANT).form(&[("grant_type", "client_credentials")]),
    ];
    for call in refused {
        let heard = call.send(&huawei.url()).await;
        assert_eq!(
            (heard.status, names(&heard)),
            (400, vec!["error_code".into(), "error_msg".into()])
        );
        assert!(heard.text("error_code").starts_with("APP."));
    }
    let crossed = ask(USER, &[("grant_type", "client_credentials")]);
    assert_eq!(sent(&huawei, crossed).await, is(400, "unsupported_grant_type"));
    assert_eq!(Call::new("GET", USER).send(&huawei.url()).await.status, 404);
    assert_eq!((huawei.counts().acquisitions, huawei.counts().refused), (0, 6));
}

#[tokio::test]
async fn business_takes_a_bearer_and_challenges_without_it() {
    let huawei = huawei().await;
    let first = huawei.issue();
    assert_eq!(business(&first.access).send(&huawei.url()).await.status, 200);
    let mut call = business(&first.access);
    call.path = "/business/forbidden".into();
    assert_eq!(call.send(&huawei.url()).await.status, 403);
    let userinfo = Call::new("GET", "/api/v1/oauth2/userinfo");
    for call in [Call::new("GET", "/business"), business("test-stranger"), userinfo] {
        let heard = call.send(&huawei.url()).await;
        assert_eq!(heard.refusal(), is(401, "unauthorized"));
        assert_eq!(heard.header("www-authenticate"), "Bearer");
    }
    // Replaced by a refresh.
    let heard = refresh(&first.renew.unwrap()).send(&huawei.url()).await;
    assert_eq!(business(&first.access).send(&huawei.url()).await.status, 401);
    assert_eq!(
        business(&heard.text("access_token")).send(&huawei.url()).await.status,
        200
    );
    let counts = huawei.counts();
    assert_eq!(
        (counts.business_ok, counts.business_refused, counts.expired_presented),
        (3, 4, 1)
    );
}
