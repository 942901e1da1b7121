//! Two APIs that say 200 to everything: WeChat's `access_token`, Feishu's `tenant_access_token`.

use serde_json::json;
use tower_token::Class;

use super::double::*;

// ===== WeChat =====

const SECRETS: &[(&str, &str)] = &[
    ("WECHAT_APP_SECRET", "test-secret+/="),
    ("FEISHU_APP_SECRET", "test-secret\"é"),
];

/// Strict, as "Get Access Token" and "Global Return Codes" have it: the token lives for 7200 s, and the
/// last one for five minutes more when another is issued.
///
/// Source: developers.weixin.qq.com, getAccessToken; Weixin Store "common error codes".
fn wechat() -> Double {
    let (mut issued, mut current) = (0, None);
    Double::new(move |seen| {
        if seen.uri.path() != "/cgi-bin/token" {
            let presented = seen.parameter("access_token");
            return match &current {
                Some((token, _)) if presented.as_ref() != Some(token) => answer(200, json!({ "errcode": 40001 })),
                Some((_, dies)) if seen.at >= *dies => answer(200, json!({ "errcode": 42001 })),
                Some(_) => answer(200, json!({ "errcode": 0, "total": 1 })),
                None => answer(200, json!({ "errcode": 41001 })),
            };
        }
        let query: Vec<_> = seen.query();
        let expected = [
            ("appid", "wx0123456789abcdef"),
            ("grant_type", "client_credential"),
            ("secret", "test-secret+/="),
        ];
        assert_eq!((seen.method.as_str(), seen.body.as_str()), ("GET", ""));
        assert_eq!(seen.uri.host(), Some("api.weixin.qq.com"));
        assert_eq!(query, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        issued += 1;
        let token = format!("test-wx-{issued}");
        current = Some((token.clone(), seen.at + 7200 * SECOND));
        answer(200, json!({ "access_token": token, "expires_in": 7200 }))
    })
}

#[tokio::test(start_paused = true)]
async fn wechat_is_asked_once_for_each_token_and_no_request_fails() {
    let (example, double) = (Example::read("wechat", SECRETS), wechat());
    let tokens = example.tokens(&double);
    for _ in 0..60 {
        let (_, body) = example
            .call(&tokens, &double, "https://api.weixin.qq.com/cgi-bin/user/get?next=1")
            .await;
        assert_eq!(body, r#"{"errcode":0,"total":1}"#);
        tokio::time::sleep(10 * MINUTE).await;
    }
    // Ten hours, with a token each hour: renewed an hour before its end.
    let asked = double.count("/cgi-bin/token");
    assert!((9..=11).contains(&asked), "{asked}");
    assert_eq!(double.count("/cgi-bin/user"), 60);
}

#[tokio::test(start_paused = true)]
async fn wechat_that_refuses_with_a_code_in_a_200_costs_one_renewal() {
    let (example, double) = (Example::read("wechat", SECRETS), wechat());
    let tokens = example.tokens(&double);
    let uri = "https://api.weixin.qq.com/cgi-bin/user/get";
    example.call(&tokens, &double, uri).await;
    for code in [40001, 40014, 42001] {
        let asked = double.count("/cgi-bin/token");
        double.fault(Fault::Answer(answer(
            200,
            json!({ "errcode": code, "errmsg": "invalid credential" }),
        )));
        let (_, body) = example.call(&tokens, &double, uri).await;
        assert_eq!(body, r#"{"errcode":0,"total":1}"#, "{code}");
        assert_eq!(double.count("/cgi-bin/token"), asked + 1, "{code}");
        tokio::time::sleep(MINUTE).await;
    }
    double.fault(Fault::Answer(answer(
        200,
        json!({ "errcode": 48001, "errmsg": "api unauthorized" }),
    )));
    let asked = double.count("/cgi-bin/token");
    let (_, body) = example.call(&tokens, &double, uri).await;
    assert!(body.contains("48001") && double.count("/cgi-bin/token") == asked);
}

#[tokio::test(start_paused = true)]
async fn each_error_of_wechat_has_its_class() {
    let example = Example::read("wechat", SECRETS);
    let throttled = Class::Throttled { retry_after: None };
    for (code, class) in [
        (-1, Class::Transient),
        (45009, throttled),
        (45011, throttled),
        (40001, Class::Config),
        (40002, Class::Config),
        (40013, Class::Config),
        (40125, Class::Config),
        (40164, Class::Config),
        (41002, Class::Config),
        (89503, Class::NeedsInteraction),
        (89501, Class::NeedsInteraction),
        (89506, Class::Config),
        (99999, Class::Transient),
    ] {
        let body = json!({ "errcode": code, "errmsg": "test-secret+/=" });
        assert_eq!(example.class(answer(200, body)).await, class, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn wechat_that_answers_nonsense_or_not_at_all_is_asked_again() {
    let example = Example::read("wechat", SECRETS);
    for fault in [
        Fault::Lost,
        Fault::Unsent,
        Fault::Answer(answer(200, "")),
        Fault::Answer(answer(200, "<html>")),
        Fault::Answer(answer(200, r#"{"access_token":""}"#)),
        Fault::Answer(answer(200, r#"{"access_token":7,"expires_in":7200}"#)),
        Fault::Answer(answer(200, r#"{"expires_in":7200}"#)),
        Fault::Answer(answer(200, r#"{"access_token":"test","expires_in":"soon"}"#)),
        Fault::Answer(answer(200, r#"{"access_token":"test-a","access_token":"test-b"}"#)),
        Fault::Answer(answer(200, r#"{"access_token":"test"#)),
        Fault::Answer(answer(502, "<html>")),
        Fault::Answer(with(answer(302, ""), "location", "https://evil.example/")),
    ] {
        let double = wechat();
        let tokens = example.tokens(&double);
        double.fault(fault);
        if let Err(error) = tokens.get().await {
            assert!(error.is_transient(), "{error}");
            assert!(!error.to_string().contains("test-"), "{error}");
        }
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(tokens.get().await.unwrap().kind(), "Bearer");
        assert_eq!(double.seen().len(), 2);
    }
}

// ===== Feishu =====

/// The same token while more than half an hour of it is left, then another beside it.
///
/// Source: open.feishu.cn, "Get tenant_access_token of a custom app".
fn feishu() -> Double {
    let mut live = Vec::new();
    Double::new(move |seen| {
        if !seen.uri.path().starts_with("/open-apis/auth") {
            let good = live
                .iter()
                .any(|(token, dies)| seen.header("authorization") == format!("Bearer {token}") && seen.at < *dies);
            return match good {
                true => answer(200, json!({ "code": 0 })),
                false => answer(
                    400,
                    json!({ "code": 99991663, "msg": "Invalid access token for authorization" }),
                ),
            };
        }
        assert_eq!(seen.method, "POST");
        assert_eq!(
            seen.uri.to_string(),
            "https://open.feishu.cn/open-apis/auth/v3/tenant_access_token/internal"
        );
        let body = seen.json();
        assert_eq!(
            body,
            json!({ "app_id": "cli_0123456789abcdef", "app_secret": "test-secret\"é" })
        );
        if live.last().is_none_or(|(_, dies)| *dies <= seen.at + 30 * MINUTE) {
            live.push((format!("t-test-{}", live.len()), seen.at + 120 * MINUTE));
        }
        let (token, dies) = live.last().unwrap();
        let expire = (*dies - seen.at).as_secs();
        answer(
            200,
            json!({ "code": 0, "msg": "ok", "tenant_access_token": token, "expire": expire }),
        )
    })
}

#[tokio::test(start_paused = true)]
async fn feishu_is_asked_when_it_gives_another_token_and_no_request_fails() {
    let (example, double) = (Example::read("feishu", SECRETS), feishu());
    let tokens = example.tokens(&double);
    for _ in 0..100 {
        let (status, _) = example
            .call(&tokens, &double, "https://open.feishu.cn/open-apis/im/v1/chats")
            .await;
        assert_eq!(status, 200);
        tokio::time::sleep(6 * MINUTE).await;
    }
    // Ten hours, with 100 minutes of each token.
    let asked = double.count("/open-apis/auth");
    assert!((6..=7).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn feishu_that_refuses_a_token_costs_one_renewal() {
    let (example, double) = (Example::read("feishu", SECRETS), feishu());
    let tokens = example.tokens(&double);
    let uri = "https://open.feishu.cn/open-apis/im/v1/chats";
    example.call(&tokens, &double, uri).await;
    double.fault(Fault::Answer(answer(400, json!({ "code": 99991663 }))));
    assert_eq!(example.call(&tokens, &double, uri).await.0, 200);
    assert_eq!((double.count("/open-apis/auth"), double.count("/open-apis/im")), (2, 3));
    // A code of something else is handed on.
    double.fault(Fault::Answer(answer(400, json!({ "code": 99991672 }))));
    assert_eq!(example.call(&tokens, &double, uri).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn each_error_of_feishu_has_its_class() {
    let example = Example::read("feishu", SECRETS);
    for (status, code, class) in [
        (200, 10003, Class::Config),
        (200, 10014, Class::Config),
        (400, 10014, Class::Config),
        (400, 99991401, Class::Config),
        (400, 99991400, Class::Throttled { retry_after: None }),
        (200, 99991400, Class::Throttled { retry_after: None }),
        (200, 55555, Class::Transient),
        (400, 55555, Class::Terminal),
    ] {
        let class_of = example.class(answer(status, json!({ "code": code, "msg": "x" }))).await;
        assert_eq!(class_of, class, "{status} {code}");
    }
    let limited = with(answer(429, json!({ "code": 99991400 })), "retry-after", 7);
    let throttled = Class::Throttled {
        retry_after: Some(7 * SECOND),
    };
    assert_eq!(example.class(limited).await, throttled);
    for malformed in [
        json!({ "code": 0, "msg": "ok" }),
        json!({ "code": 0, "tenant_access_token": null }),
        json!([]),
    ] {
        assert_eq!(example.class(answer(200, malformed)).await, Class::Transient);
    }
}
