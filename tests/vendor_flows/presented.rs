//! How a token is used: both meanings of a 403, and a configured token that is used until it is refused or over.

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower_token::State;

use super::rig::{self, Rig, SECOND, rig, with};
use super::vendors::alibaba::{Ecd, EcdOptions, Imm, ImmOptions};
use super::vendors::huawei::{Huawei, HuaweiOptions};
use super::vendors::tencent::{Smh, SmhOptions};
use super::vendors::{Double, Vendor};

/// Forbidden is the answer of the API, whoever asks: handed on as it came, and nothing is fetched.
async fn forbidden<V: Vendor>(double: &Double<V>, rig: &Rig, words: &str) {
    assert_eq!(rig.says().await, "200");
    let before = double.counts();
    for _ in 0..20 {
        let (status, body) = rig.call("/business/forbidden").await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, 403);
        assert!(body.to_string().contains(words), "{body}");
    }
    let counts = double.counts();
    assert_eq!(counts.token_requests(), before.token_requests());
    assert_eq!(
        (counts.business_ok - before.business_ok, counts.business_refused),
        (20, 0)
    );
    assert_eq!(rig.tokens.status().state, State::Fresh);
    // The other meaning: the token is renewed, and the request is sent again.
    double.revoke();
    assert_eq!(rig.says().await, "200");
    let after = double.counts();
    assert_eq!(after.token_requests() - counts.token_requests(), 1, "{after:?}");
    assert_eq!((after.business_refused, after.expired_presented), (1, 1));
}

#[tokio::test]
async fn a_403_for_want_of_permission_is_handed_on_and_one_for_a_dead_token_is_not() {
    let inject = [
        json!({}),
        json!({ "inject": "bearer" }),
        json!({ "inject": { "query": { "name": "access_token" } } }),
    ];
    for inject in inject {
        let double = Smh::start(SmhOptions::default()).await;
        let document = with(with(rig::smh(&double), rig::library_secret()), inject);
        forbidden(&double, &rig(&double, document), "NoPermission").await;
    }
    let double = Ecd::start(EcdOptions::default()).await;
    let live = double.issue();
    let document = with(with(rig::ecd(&double), rig::login(&live)), rig::keep_alive(&live));
    forbidden(&double, &rig(&double, document), "NoPermission").await;
    let double = Imm::start(ImmOptions::default()).await;
    let document = with(rig::imm(&double), rig::pair(&double.issue()));
    forbidden(&double, &rig(&double, document), "NoPermission").await;
    let double = Huawei::start(HuaweiOptions::default()).await;
    let document = with(rig::one_access(&double), rig::refresh(&double.issue()));
    forbidden(&double, &rig(&double, document), "access_denied").await;
    let double = Huawei::start(HuaweiOptions::default()).await;
    forbidden(&double, &rig(&double, rig::tenant(&double)), "access_denied").await;
}

#[tokio::test]
async fn a_refusal_that_nothing_answers_is_handed_on_byte_for_byte() {
    let double = Smh::start(SmhOptions::default()).await;
    let rig = rig(&double, with(rig::smh(&double), rig::access(&double.issue())));
    assert_eq!(rig.says().await, "200");
    double.kill_all();
    let (status, body) = rig.business().await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (status, &body["code"], &body["status"]),
        (403, &json!("InvalidAccessToken"), &json!(403))
    );
}

#[tokio::test]
async fn every_way_of_one_vendors_api_takes_the_token() {
    let double = Huawei::start(HuaweiOptions::default()).await;
    let rig = rig(&double, with(rig::one_access(&double), rig::refresh(&double.issue())));
    // The user's own data are asked for with GET.
    let request = http::Request::get(format!("{}/api/v1/oauth2/userinfo", double.url()));
    let request = request.body(http_body_util::Full::default()).unwrap();
    let response = rig.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    // A query that is there stays as it is.
    let double = Smh::start(SmhOptions::default()).await;
    let query = json!({ "inject": { "query": { "name": "access_token" } } });
    let document = with(with(rig::smh(&double), rig::library_secret()), query);
    let rig = super::rig::rig(&double, document);
    let outcome = rig.call("/business/a%2Fb?x=%2F+y&access_token=test-old&z").await;
    assert_eq!(rig::says(&outcome), "200");
}

/// Nothing is fetched while it lives; then one fetch, whether it is refused or over.
async fn configured<V: Vendor>(what: &str, double: &Double<V>, document: Value, over: bool, asked: u64) {
    let off = rig::policy(json!({ "keep_alive": false }));
    let rig = rig(double, with(document, off));
    assert_eq!(rig.tokens.status().state, State::Fresh, "{what}");
    assert_eq!(rig.burst(100).await, (100, None), "{what}");
    assert_eq!(double.counts().token_requests(), 0, "{what}");
    if over {
        // It is over by its own time, and not sent any more.
        sleep(SECOND + SECOND / 5).await;
        double.revoke();
    } else {
        double.revoke();
    }
    assert_eq!(rig.burst(100).await, (100, None), "{what}");
    let counts = double.counts();
    assert_eq!(counts.token_requests(), asked, "{what}: {counts:?}");
    assert_eq!(counts.expired_presented == 0, over, "{what}: {counts:?}");
    assert_eq!((counts.max_in_flight, counts.presented_twice), (1, 0), "{what}");
}

#[tokio::test]
async fn a_configured_token_is_used_without_a_fetch_until_it_is_refused_or_over() {
    for over in [false, true] {
        let double = Imm::start(ImmOptions::default()).await;
        let live = double.issue();
        let mut document = with(rig::imm(&double), rig::pair(&live));
        if over {
            // 1.2 s from now, in a zone of its own.
            let dies = std::time::SystemTime::now() + SECOND + SECOND / 5 + 8 * 3_600 * SECOND;
            let text = super::vendors::wire::rfc3339_nanoseconds(dies).replace('Z', "+08:00");
            document = with(document, json!({ "provider": { "expires_at": text } }));
        }
        configured("a pair", &double, document, over, 1).await;

        let double = Ecd::start(EcdOptions::default()).await;
        let live = double.issue();
        let document = with(with(rig::ecd(&double), rig::login(&live)), rig::keep_alive(&live));
        let life = rig::lifetime(if over { "1s" } else { "8h" });
        configured("a login", &double, with(document, life), over, 1).await;

        let double = Smh::start(SmhOptions::default()).await;
        let live = double.issue();
        let document = with(with(rig::smh(&double), rig::access(&live)), rig::library_secret());
        let life = rig::period(if over { "1s" } else { "24h" });
        configured("a library token", &double, with(document, life), over, 1).await;
    }
}

#[tokio::test]
async fn a_configured_pair_that_is_over_already_is_renewed_before_the_first_request() {
    let double = Imm::start(ImmOptions::default()).await;
    let live = double.issue();
    double.revoke();
    let over = json!({ "provider": { "expires_at": "2021-08-31T13:07:28.950065359Z" } });
    let rig = rig(&double, with(with(rig::imm(&double), rig::pair(&live)), over));
    assert_eq!(rig.burst(100).await, (100, None));
    let counts = double.counts();
    assert_eq!((counts.token_requests(), counts.renewals), (1, 1), "{counts:?}");
    assert_eq!(counts.business_refused, 0);
}

#[tokio::test]
async fn the_address_of_a_generated_document_outlives_renewals() {
    let double = Imm::start(ImmOptions::default()).await;
    let document = with(with(rig::imm(&double), rig::generate()), rig::credential_config());
    let rig = rig(&double, document);
    assert_eq!(rig.says().await, "200");
    for _ in 0..2 {
        assert_eq!(rig.refreshed().await, "renewed");
        let token = rig.tokens.get().await.unwrap();
        let kept = token.renewal_credential().unwrap();
        let url = kept["weboffice_url"].as_str().unwrap();
        assert!(url.starts_with("https://office.example.com/"), "{url}");
        assert_eq!(kept["refresh_token"].as_str(), double.now_serving()[0].renew.as_deref());
    }
    assert_eq!(
        (double.counts().acquisitions, double.counts().unknown_parameters),
        (1, 0)
    );
}

#[tokio::test]
async fn what_a_document_says_beyond_the_token_arrives_as_it_is() {
    let double = Smh::start(SmhOptions::default()).await;
    let fields = json!({ "provider": {
        "space_id": ["test space/1", "test2"], "grant": "upload_file", "user_id": "test+user&=é",
        "client_id": "test-client", "session_id": null, "period": "25m"
    } });
    let rig = rig(&double, with(with(rig::smh(&double), rig::library_secret()), fields));
    assert_eq!(rig.says().await, "200");
    let query = double.vendor().last_query();
    let sent = |name: &str| query.get(name).map(str::to_owned);
    assert_eq!(sent("space_id").as_deref(), Some("test space/1,test2"));
    assert_eq!(sent("grant").as_deref(), Some("upload_file"));
    assert_eq!(sent("user_id").as_deref(), Some("test+user&=é"));
    assert_eq!(
        (sent("client_id").as_deref(), query.raw("session_id")),
        (Some("test-client"), None)
    );
    assert_eq!(sent("period").as_deref(), Some("1500"));
    assert_eq!(double.counts().unknown_parameters, 0);
    let life = rig.tokens.status().expires_in.unwrap();
    // The clock of lives is a coarse one.
    assert!(life <= 1_501 * SECOND && life > 1_470 * SECOND, "{life:?}");
}
