//! How a request is written: what stands for a placeholder, and what is left out.

use serde_json::{Value, json};
use tower_token::Class;

use super::double::*;

/// Everything that means something somewhere: in a path, a query, a form, JSON, a template.
const ODD: &str = "a/b+c&d=e%f#g h\u{e9}\"i{j}k?l;m,n'o\\p";
const ENCODED: &str = "a%2Fb%2Bc%26d%3De%25f%23g%20h%C3%A9%22i%7Bj%7Dk%3Fl%3Bm%2Cn%27o%5Cp";

/// Grants every request.
fn generous() -> Double {
    let mut issued = 0;
    Double::new(move |_| {
        issued += 1;
        let body = json!({ "t": format!("test-{issued}"), "r": format!("test-r+/{issued}"), "e": 3600,
                           "s": issued, "once": if issued == 1 { json!("kept/1") } else { Value::Null } });
        answer(200, body)
    })
}

fn document(acquire: Value, renew: Value) -> Value {
    json!({
        "acquire": acquire, "renew": renew,
        "vars": { "odd": ODD, "id": "1", "empty": "" },
        "answer": { "token": "/t", "refresh_token": "/r", "expires": { "seconds": "/e" },
                    "keep": { "session": "/s", "once": "/once", "absent": "/absent" } },
    })
}

#[tokio::test(start_paused = true)]
async fn every_placeholder_is_encoded_for_its_place() {
    let double = generous();
    let acquire = json!({
        "url": "https://api.example.com/x/{odd}/{{y}}?v=1&a={odd}",
        "query": { "q": "{odd}", "two": "{id}-{odd}", "b&c": "{id}", "n": 7, "t": true },
        "headers": { "x-id": "id {id}", "X-Quoted": "\"{id}\"", "accept": "application/vnd.test+json" },
        "form": { "f": "{odd}", "g": "{{{id}}}", "n": 7 },
    });
    double.tokens(&document(acquire, json!(null))).get().await.unwrap();
    let seen = &double.seen()[0];
    assert_eq!(
        seen.uri.to_string(),
        format!(
            "https://api.example.com/x/{ENCODED}/{{y}}?v=1&a={ENCODED}&b%26c=1&n=7&q={ENCODED}&t=true&two=1-{ENCODED}"
        )
    );
    assert_eq!(seen.parameter("q").as_deref(), Some(ODD));
    assert_eq!((seen.header("x-id"), seen.header("x-quoted")), ("id 1", "\"1\""));
    assert_eq!(seen.header("accept"), "application/vnd.test+json");
    assert_eq!(seen.header("content-type"), "application/x-www-form-urlencoded");
    let form: Vec<_> = form_urlencoded::parse(seen.body.as_bytes()).into_owned().collect();
    let expected = [("f", ODD), ("g", "{1}"), ("n", "7")];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert!(
        seen.body.contains("+h%C3%A9") && !seen.body.contains(' '),
        "{}",
        seen.body
    );
}

#[tokio::test(start_paused = true)]
async fn json_is_filled_in_its_texts_and_left_alone_elsewhere() {
    let double = generous();
    let acquire = json!({
        "url": "https://api.example.com/x", "method": "PUT",
        "json": { "a": "{odd}", "list": ["{id}", "{session}", 7, null, { "deep": "{odd}!" }], "left": "{session}",
                  "n": 1.5, "t": false, "brace": "{{id}}", "{odd}": "a name is no placeholder" },
    });
    double.tokens(&document(acquire, json!(null))).get().await.unwrap();
    let seen = &double.seen()[0];
    assert_eq!(seen.method, "PUT");
    assert_eq!(
        seen.json(),
        json!({ "a": ODD, "list": ["1", 7, null, { "deep": format!("{ODD}!") }], "n": 1.5, "t": false,
                "brace": "{id}", "{odd}": "a name is no placeholder" })
    );
}

#[tokio::test(start_paused = true)]
async fn a_parameter_without_a_value_is_left_out() {
    let double = generous();
    let acquire = json!({
        "url": "https://api.example.com/x",
        "query": { "q": "{session}", "e": "{empty}", "i": "{id}" },
        "headers": { "x-session": "{session}" },
        "form": { "s": "{session}", "i": "{id}" },
    });
    double.tokens(&document(acquire, json!(null))).get().await.unwrap();
    let seen = &double.seen()[0];
    // One that is configured as an empty text has a value, and that is empty.
    assert_eq!(seen.uri.query(), Some("e=&i=1"));
    assert_eq!(seen.body, "i=1");
    assert!(!seen.headers.contains_key("x-session"));
    assert_eq!(seen.header("accept"), "application/json");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_says_so() {
    for (method, length) in [("GET", ""), ("POST", "0"), ("DELETE", "")] {
        let double = generous();
        let acquire = json!({ "url": "https://api.example.com", "method": method });
        double.tokens(&document(acquire, json!(null))).get().await.unwrap();
        let seen = &double.seen()[0];
        assert_eq!((seen.method.as_str(), seen.header("content-length")), (method, length));
        assert!(seen.body.is_empty() && !seen.headers.contains_key("content-type"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_is_carried_on_until_an_answer_replaces_it() {
    let double = generous();
    let renew = json!({
        "url": "https://api.example.com/renew/{access_token}",
        "query": { "r": "{refresh_token}", "s": "{session}", "o": "{once}", "a": "{absent}" },
    });
    let tokens = double.tokens(&document(json!({ "url": "https://api.example.com/new" }), renew));
    tokens.get().await.unwrap();
    for nth in 1..4 {
        tokens.refresh().await.unwrap();
        let seen = double.seen().pop().unwrap();
        assert_eq!(
            seen.uri.path_and_query().unwrap().as_str(),
            format!("/renew/test-{nth}?o=kept%2F1&r=test-r%2B%2F{nth}&s={nth}")
        );
    }
    assert_eq!(double.count("/new"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_nonce_and_a_timestamp_are_new_on_each_attempt() {
    let double = generous();
    let acquire = json!({ "url": "https://api.example.com/x", "query": { "n": "{nonce}", "t": "{timestamp}" } });
    let mut document = document(acquire, json!(null));
    document["replay"] = json!("once");
    let tokens = double.tokens(&document);
    double.fault(Fault::Lost);
    let _ = tokens.get().await;
    for _ in 0..5 {
        tokio::time::sleep(90 * MINUTE).await;
        tokens.get().await.unwrap();
    }
    let seen = double.seen();
    let mut nonces: Vec<_> = seen.iter().map(|seen| seen.parameter("n").unwrap()).collect();
    assert!(
        nonces
            .iter()
            .all(|nonce| nonce.len() == 32 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit()))
    );
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), seen.len());
    assert!(seen.len() > 5);
    for one in seen {
        let at: jiff::Timestamp = one.parameter("t").unwrap().parse().unwrap();
        let apart = at.as_second() - jiff::Timestamp::try_from(one.time).unwrap().as_second();
        assert!(apart.abs() <= 1, "{apart}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_fits_no_place_is_an_error_and_nothing_is_sent() {
    for (pointer, template, value, said) in [
        (
            "/headers/x-a",
            "{odd}",
            "test\nx-evil: 1",
            "x-a holds a control character",
        ),
        ("/url", "https://api.example.com/{odd}/token", "..", "is . or .."),
        ("/url", "https://api.example.com/{odd}/token", ".", "is . or .."),
    ] {
        let double = generous();
        let mut document = document(
            json!({ "url": "https://api.example.com/x", "headers": {} }),
            json!(null),
        );
        *document["acquire"]
            .pointer_mut(pointer.rsplit_once('/').unwrap().0)
            .unwrap() = match pointer {
            "/url" => json!({ "url": template }),
            _ => json!({ "x-a": template }),
        };
        document["vars"]["odd"] = json!(value);
        let error = double.tokens(&document).get().await.unwrap_err();
        assert_eq!(error.class(), Some(Class::Config));
        assert!(
            error.to_string().contains(said) && !error.to_string().contains("evil"),
            "{error}"
        );
        assert!(double.seen().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_request_needs_is_not_left_out() {
    let double = generous();
    let acquire = json!({ "url": "https://api.example.com/x", "query": { "s": "{session}" }, "needs": ["session"] });
    let tokens = double.tokens(&document(acquire, json!(null)));
    let error = tokens.get().await.unwrap_err();
    assert_eq!(error.class(), Some(Class::Config));
    assert!(
        error.to_string().contains("install one") && double.seen().is_empty(),
        "{error}"
    );
    tokens.install(json!({ "session": "test-s" })).unwrap();
    tokens.get().await.unwrap();
    assert_eq!(double.seen()[0].uri.query(), Some("s=test-s"));
}
