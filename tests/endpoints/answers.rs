//! What an answer means: when a token dies, what an error is, and whether a lost answer may be asked for again.

use std::time::{Duration, SystemTime};

use http::Response;
use serde_json::{Value, json};
use tower_token::{Class, Tokens};

use super::double::*;

fn throttled(after: Duration) -> Class {
    Class::Throttled {
        retry_after: Some(after),
    }
}

/// Renews a refresh token, which an answer replaces.
fn renewing(replay: &str) -> Value {
    json!({
        "renew": { "url": "https://api.example.com/renew", "form": { "refresh_token": "{refresh_token}" } },
        "answer": { "token": "/t", "refresh_token": "/r" },
        "errors": { "code": ["/code", "/error/code"], "ok": ["OK"], "classes": {
            "throttled": ["Slow*", 4290], "transient": ["Busy", "404"], "terminal": ["Dead"],
            "needs_interaction": ["Person"], "config": ["Slow.Never", "410"], "ambiguous": ["Done?"] } },
        "replay": replay,
    })
}

/// What comes of an answer that is always the same, and how often it was asked for within one flight.
async fn outcome(replay: &str, answer: Response<String>) -> (Class, usize) {
    let double = Double::new(move |_| answer.clone());
    let tokens = double.tokens(&renewing(replay));
    tokens.install(json!({ "refresh_token": "test-r1" })).unwrap();
    let error = tokens.get().await.unwrap_err();
    assert!(!error.to_string().contains("test-"), "{error}");
    (error.class().unwrap(), double.seen().len())
}

/// The table on the module's page, each row; a lost answer is asked for once more.
#[tokio::test(start_paused = true)]
async fn every_status_has_its_class() {
    let json = |status: u16| answer(status, json!({ "message": "test-echo" }));
    let coded = |status: u16, code: &str| answer(status, json!({ "code": code }));
    let after = |answer, seconds: u64| with(answer, "retry-after", seconds);
    let millis = |answer, millis: u64| with(answer, "x-acs-retry-after", millis);
    for (answer, class, asked) in [
        (after(json(429), 7), throttled(7 * SECOND), 1),
        (millis(json(429), 7500), throttled(Duration::from_millis(7500)), 1),
        (millis(after(json(429), 7), 9000), throttled(7 * SECOND), 1),
        (after(answer(429, "<html>"), 86_400), throttled(60 * MINUTE), 1),
        (after(json(503), 7), throttled(7 * SECOND), 1),
        (after(answer(503, "<html>"), 7), throttled(7 * SECOND), 1),
        (after(coded(400, "Slow.Down"), 7), throttled(7 * SECOND), 1),
        (
            millis(coded(400, "Slow.Down"), 1500 * 3),
            throttled(Duration::from_millis(4500)),
            1,
        ),
        (after(coded(200, "Slow.Down"), 7), throttled(7 * SECOND), 1),
        (
            after(answer(403, json!({ "error": { "code": 4290 } })), 7),
            throttled(7 * SECOND),
            1,
        ),
        (json(408), Class::Transient, 1),
        (json(425), Class::Transient, 1),
        (json(503), Class::Transient, 1),
        (answer(503, ""), Class::Transient, 1),
        (
            with(answer(302, ""), "location", "https://evil.example"),
            Class::Transient,
            1,
        ),
        (with(answer(307, "{}"), "location", "/renew"), Class::Transient, 1),
        (coded(200, "Unheard.Of"), Class::Transient, 1),
        (coded(400, "Busy"), Class::Transient, 1),
        (json(404), Class::Transient, 1),
        (json(500), Class::Ambiguous, 2),
        (answer(502, "<html>"), Class::Ambiguous, 2),
        (json(504), Class::Ambiguous, 2),
        (coded(500, "Dead"), Class::Ambiguous, 2),
        (coded(400, "Done?"), Class::Ambiguous, 2),
        (answer(200, ""), Class::Ambiguous, 2),
        (answer(200, "<html>"), Class::Ambiguous, 2),
        (answer(200, "[]"), Class::Ambiguous, 2),
        (json(200), Class::Ambiguous, 2),
        (answer(204, ""), Class::Ambiguous, 2),
        (answer(200, json!({ "t": "" })), Class::Ambiguous, 2),
        (answer(200, json!({ "t": 7 })), Class::Ambiguous, 2),
        (
            answer(200, format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20))),
            Class::Ambiguous,
            2,
        ),
        (json(400), Class::Terminal, 1),
        (answer(401, ""), Class::Terminal, 1),
        (json(403), Class::Terminal, 1),
        (coded(400, "Unheard.Of"), Class::Terminal, 1),
        (coded(200, "Dead"), Class::Terminal, 1),
        (answer(400, "<html>"), Class::Transient, 1),
        (answer(403, "denied"), Class::Transient, 1),
        (json(410), Class::Config, 1),
        (coded(400, "Slow.Never"), Class::Config, 1),
        (coded(404, "Person"), Class::NeedsInteraction, 1),
    ] {
        let place = format!("{} {:.60}", answer.status(), answer.body());
        assert_eq!(outcome("once", answer).await, (class, asked), "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn replay_says_how_often_a_lost_answer_is_asked_for() {
    for (replay, class, asked) in [
        ("once", Class::Ambiguous, 2),
        ("never", Class::Ambiguous, 1),
        ("idempotent", Class::Transient, 1),
    ] {
        assert_eq!(outcome(replay, answer(502, "")).await, (class, asked), "{replay}");
    }
    // Without the field it is `once` where a refresh token is replaced, and `idempotent` elsewhere.
    for (rotates, asked) in [(true, 2), (false, 1)] {
        let mut document = renewing("once");
        document["replay"] = Value::Null;
        if !rotates {
            document["answer"]["refresh_token"] = Value::Null;
        }
        let double = Double::new(|_| answer(500, ""));
        let tokens = double.tokens(&document);
        tokens.install(json!({ "refresh_token": "test-r1" })).unwrap();
        tokens.get().await.unwrap_err();
        assert_eq!(double.seen().len(), asked, "{rotates}");
    }
}

/// What replaced the refresh token is kept, although the rest of the answer is of no use.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_of_a_malformed_answer_is_used_next() {
    let double = Double::new(|_| answer(200, json!({ "t": "test-1", "r": "test-r3" })));
    let tokens = double.tokens(&renewing("once"));
    tokens.install(json!({ "refresh_token": "test-r1" })).unwrap();
    double.fault(Fault::Answer(answer(200, json!({ "t": 7, "r": "test-r2" }))));
    assert!(tokens.get().await.unwrap_err().is_transient());
    tokio::time::sleep(2 * SECOND).await;
    tokens.get().await.unwrap();
    let presented: Vec<_> = double.seen().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(presented, ["refresh_token=test-r1", "refresh_token=test-r2"]);
}

// ===== When a token dies =====

/// How long the token lives that such an answer brings, and by when what renews it has to be used.
async fn lives(expires: Value, fields: Value, date: Option<i64>) -> Option<(Duration, Option<Duration>)> {
    let double = Double::new(move |seen| {
        let mut body = fields.clone();
        body["t"] = json!("test-1");
        for field in ["at", "until"] {
            if let Some(seconds) = body[field].as_i64() {
                body[field] = json!(
                    jiff::Timestamp::try_from(shifted(seen.time, seconds))
                        .unwrap()
                        .to_string()
                );
            }
        }
        let answer = answer(200, body);
        match date {
            Some(skew) => with(answer, "date", httpdate::fmt_http_date(shifted(seen.time, skew))),
            None => answer,
        }
    });
    let document = json!({
        "acquire": { "url": "https://api.example.com/x" },
        "answer": { "token": "/t", "expires": expires, "refresh_expires": { "at": "/until" } },
    });
    let token = double.tokens(&document).get().await.ok()?;
    let left = |at: SystemTime| at.duration_since(double.clock.now()).unwrap_or_default();
    let whole = |left: Duration| Duration::from_secs((left.as_secs_f64() + 0.5) as u64);
    Some((
        whole(left(token.expiry_time()?)),
        token.renewal_deadline().map(left).map(whole),
    ))
}

fn shifted(time: SystemTime, seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - span } else { time + span }
}

#[tokio::test(start_paused = true)]
async fn a_lifetime_is_read_in_every_form() {
    let hour = 60 * MINUTE;
    for (expires, fields, life) in [
        (json!({ "seconds": "/e" }), json!({ "e": 3600 }), hour),
        (json!({ "seconds": "/e" }), json!({ "e": "3600" }), hour),
        (json!({ "seconds": "/e" }), json!({ "e": 3600.9 }), hour),
        (json!({ "seconds": "/a/1/e" }), json!({ "a": [0, { "e": 3600 }] }), hour),
        (json!({ "millis": "/e" }), json!({ "e": 3_600_000 }), hour),
        (json!({ "millis": "/e" }), json!({ "e": "3600000" }), hour),
        (json!({ "at": "/at" }), json!({ "at": 3600 }), hour),
        (json!({ "lifetime": "1h" }), json!({ "e": 7 }), hour),
        // Not said: what the policy assumes.
        (json!({ "seconds": "/e" }), json!({}), 5 * MINUTE),
        (json!({ "seconds": "/e" }), json!({ "e": 0 }), 5 * MINUTE),
        (json!(null), json!({}), 5 * MINUTE),
    ] {
        let (lives, _) = lives(expires.clone(), fields.clone(), None).await.unwrap();
        assert_eq!(lives, life, "{expires} {fields}");
    }
    let malformed = [json!("soon"), json!(-1), json!([3600]), json!(true)];
    for wrong in malformed {
        assert_eq!(
            lives(json!({ "seconds": "/e" }), json!({ "e": wrong }), None).await,
            None,
            "{wrong}"
        );
    }
}

/// A clock that is off makes a token neither older nor younger; a few seconds are a slow answer.
#[tokio::test(start_paused = true)]
async fn an_instant_is_measured_by_the_answers_own_date() {
    let at = || json!({ "at": "/at" });
    for (skew, expires, life) in [
        (3600, 3600 + 1800, 1800),
        (-3600, -3600 + 1800, 1800),
        (4, 1800, 1800),
        (-4, 1800, 1800),
    ] {
        let fields = json!({ "at": expires, "until": expires + 86_400 });
        let (lives, renew_by) = lives(at(), fields, Some(skew)).await.unwrap();
        let near = |left: Duration, right: u64| left.as_secs().abs_diff(right) <= 1;
        assert!(
            near(lives, life) && near(renew_by.unwrap(), life + 86_400),
            "{skew}: {lives:?} {renew_by:?}"
        );
    }
    // A lifetime needs no clock.
    let (life, _) = lives(json!({ "seconds": "/e" }), json!({ "e": 1800 }), Some(86_400))
        .await
        .unwrap();
    assert_eq!(life, 30 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_is_corrected_once_and_the_request_sent_again() {
    for skew in [7200, -7200] {
        let double = Double::new(move |seen| {
            let server = shifted(seen.time, skew);
            let said: jiff::Timestamp = seen.parameter("t").unwrap().parse().unwrap();
            let apart = said.as_second() - jiff::Timestamp::try_from(server).unwrap().as_second();
            let answer = match apart.abs() <= 900 {
                true => answer(200, json!({ "t": "test-1" })),
                false => answer(400, json!({ "code": "InvalidTimeStamp.Expired" })),
            };
            with(answer, "date", httpdate::fmt_http_date(server))
        });
        let document = json!({
            "acquire": { "url": "https://api.example.com/x", "query": { "t": "{timestamp}" } },
            "answer": { "token": "/t", "expires": { "lifetime": "10m" } },
            "errors": { "code": "/code", "classes": { "clock": ["InvalidTimeStamp.Expired"] } },
        });
        let tokens = double.tokens(&document);
        tokens.get().await.unwrap();
        assert_eq!(double.seen().len(), 2);
        tokio::time::sleep(11 * MINUTE).await;
        tokens.get().await.unwrap();
        assert_eq!(double.seen().len(), 3, "what was learned is kept");
    }
    // A server that finds every time wrong is asked twice, and not in a loop.
    let double = Double::new(|seen| {
        let answer = answer(400, json!({ "code": "Clock" }));
        with(answer, "date", httpdate::fmt_http_date(shifted(seen.time, 7200)))
    });
    let document = json!({
        "acquire": { "url": "https://api.example.com/x" }, "answer": { "token": "/t" },
        "errors": { "code": "/code", "classes": { "clock": ["Clock"] } },
    });
    let error = double.tokens(&document).get().await.unwrap_err();
    assert_eq!((error.class(), double.seen().len()), (Some(Class::Config), 2));
}

// ===== Renewed or acquired =====

fn both(others: Value) -> Value {
    let mut document = json!({
        "acquire": { "url": "https://api.example.com/new" },
        "renew": { "url": "https://api.example.com/renew/{access_token}" },
        "answer": { "token": "/t", "expires": { "lifetime": "1h" } },
    });
    for (name, value) in others.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

/// Acquires always; renews unless this is what a renewal gets.
fn renewals_get(status: Option<u16>) -> Double {
    let mut issued = 0;
    Double::new(move |seen| match status {
        Some(status) if seen.uri.path().starts_with("/renew") => answer(status, json!({ "code": "no" })),
        _ => {
            issued += 1;
            answer(200, json!({ "t": format!("test-{issued}") }))
        }
    })
}

async fn asked(double: &Double, tokens: &Tokens) -> (usize, usize) {
    let _ = tokens.get().await;
    (double.count("/new"), double.count("/renew"))
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_and_acquired_anew_once_it_is_dead() {
    let double = renewals_get(None);
    let tokens = double.tokens(&both(json!({})));
    assert_eq!(asked(&double, &tokens).await, (1, 0));
    tokio::time::sleep(61 * MINUTE).await;
    assert_eq!(
        asked(&double, &tokens).await,
        (1, 1),
        "dead by its own clock it may still be renewed"
    );
    let double = renewals_get(Some(400));
    let tokens = double.tokens(&both(json!({})));
    assert_eq!(asked(&double, &tokens).await, (1, 0));
    tokio::time::sleep(61 * MINUTE).await;
    assert_eq!(asked(&double, &tokens).await, (2, 1), "within one flight");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_renewed_before_its_death_is_kept_alive_or_acquired_anew() {
    let alive = both(json!({ "renew_before_death": true }));
    let double = renewals_get(None);
    let tokens = double.tokens(&alive);
    tokens.get().await.unwrap();
    tokio::time::sleep(600 * MINUTE).await;
    assert_eq!(double.count("/new"), 1);
    assert!(
        (10..=24).contains(&double.count("/renew")),
        "{}",
        double.count("/renew")
    );
    // Refused, it cannot be renewed.
    tokens.invalidate(&tokens.current().unwrap());
    let renewed = double.count("/renew");
    assert_eq!(asked(&double, &tokens).await, (2, renewed));
    // Dead, neither.
    let double = renewals_get(Some(503));
    let tokens = double.tokens(&alive);
    tokens.get().await.unwrap();
    tokio::time::sleep(180 * MINUTE).await;
    tokens.get().await.unwrap();
    assert!(double.count("/new") >= 2 && double.count("/renew") > 1);
}

#[tokio::test(start_paused = true)]
async fn what_acquires_once_is_asked_once() {
    let double = renewals_get(Some(400));
    let tokens = double.tokens(&both(json!({ "fallback": "never" })));
    assert_eq!(asked(&double, &tokens).await, (1, 0));
    tokio::time::sleep(61 * MINUTE).await;
    assert_eq!(asked(&double, &tokens).await, (1, 1));
    let error = tokens.get().await.unwrap_err();
    assert!(error.is_reauth_required(), "{error}");
    tokio::time::sleep(9 * MINUTE).await;
    assert_eq!(asked(&double, &tokens).await, (1, 1), "remembered");
}

#[tokio::test(start_paused = true)]
async fn without_an_acquisition_a_dead_token_is_told_at_once() {
    let double = renewals_get(Some(400));
    let tokens = double.tokens(&both(json!({ "acquire": null })));
    let error = tokens.get().await.unwrap_err();
    assert_eq!((error.class(), double.seen().len()), (Some(Class::Config), 0));
    tokens.install(json!({ "access_token": "test-installed" })).unwrap();
    let error = tokens.get().await.unwrap_err();
    assert_eq!((error.class(), double.seen().len()), (Some(Class::Terminal), 1));
    assert_eq!(double.seen()[0].uri.path(), "/renew/test-installed");
}

// ===== Documents =====

/// What the module's page shows is what it reads.
#[test]
fn the_document_of_the_page_is_right() {
    let page = include_str!("../../src/provider/endpoint/mod.rs");
    let (_, rest) = page.split_once("//! ```json\n").unwrap();
    let (document, _) = rest.split_once("//! ```").unwrap();
    let document = document
        .replace("//! ", "")
        .replace(r#"{ "env": "S" }"#, r#""test-secret""#);
    let endpoint = tower_token::Endpoint::from_json(&document).unwrap();
    Tokens::new(endpoint).unwrap();
}

/// What stands alone is named without a prefix; everything else is in tests/config/wrong.txt.
#[test]
fn a_wrong_document_is_named_by_the_path_in_it() {
    for (document, said) in [
        ("{}", "answer: is missing"),
        (
            r#"{"answer":{"token":"/t"}}"#,
            "acquire: there is neither acquire nor renew",
        ),
        (
            r#"{"type":"test-canary","answer":{"token":"/t"}}"#,
            "type: is none of what can stand here; write one of endpoint",
        ),
        (
            r#"{"answer":{"token":"/t"},"acquire":{"url":"https://a.example","json":{"a":"{b}"}}}"#,
            "acquire: {b} is neither",
        ),
        (
            r#"{"answer":{"token":"/t","keep":{"access_token":"/x"}},"renew":{"url":"https://a.example/{x}"}}"#,
            "renew: {x} is neither",
        ),
        (
            r#"{"vars":{"a":{"env":"test-canary"}},"answer":{"token":"/t"}}"#,
            "vars.a: there is no environment variable",
        ),
    ] {
        let error = tower_token::Endpoint::from_json(document)
            .and_then(tower_token::Tokens::new)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("invalid configuration: {said}")),
            "{document}: {error}"
        );
        assert!(!error.contains("canary"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_renews_nothing_is_not_installed_and_changes_nothing() {
    let double = Double::new(|_| answer(200, json!({ "t": "test-1", "r": "test-r3" })));
    let tokens = double.tokens(&renewing("once"));
    tokens.install(json!({ "refresh_token": "test-r1" })).unwrap();
    let first = tokens.get().await.unwrap();
    for useless in [
        json!({}),
        json!([]),
        json!("test-r2"),
        json!({ "refreshToken": "test-r2" }),
        json!({ "refresh_token": "" }),
        json!({ "refresh_token": 5 }),
    ] {
        let error = tokens.install(useless.clone()).unwrap_err();
        assert!(error.is_config(), "{useless}");
        assert!(
            error.to_string().contains(r#"write {"refresh_token": "..."}"#),
            "{error}"
        );
        assert!(!error.to_string().contains("test-"), "{error}");
    }
    assert_eq!(tokens.get().await.unwrap().generation(), first.generation());
    assert_eq!(double.seen().len(), 1);
}

/// The one that was configured to begin from is spent by the first renewal.
#[tokio::test(start_paused = true)]
async fn nor_is_it_installed_where_a_variable_holds_what_it_lacks() {
    let double = Double::new(|_| answer(200, json!({ "t": "test-1", "r": "test-r2" })));
    let mut document = renewing("once");
    document["vars"] = json!({ "refresh_token": "test-r1" });
    let tokens = double.tokens(&document);
    tokens.get().await.unwrap();
    for useless in [json!({}), json!({ "refreshToken": "test-r9" })] {
        let error = tokens.install(useless.clone()).unwrap_err();
        assert!(error.is_config(), "{useless}");
    }
    tokens.refresh().await.unwrap();
    let presented: Vec<_> = double.seen().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(presented, ["refresh_token=test-r1", "refresh_token=test-r2"]);
}
