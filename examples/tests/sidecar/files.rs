//! Files that are wrong, and secrets that stay where they are.

use http::StatusCode;
use serde_json::{Value, json};
use tower_token::testkit::Fault;

use crate::program::{Login, Sidecar, run, written};
use crate::upstream::Upstream;

const CANARY: &str = "test-canary-7f3a";

fn right() -> Value {
    json!({
        "tokens": { "cc": { "provider": {
            "type": "oauth2.client_credentials", "token_url": "http://127.0.0.1:9/token",
            "client_id": "c", "client_secret": CANARY,
        } } },
        "routes": [{ "prefix": "/x/", "upstream": "http://127.0.0.1:9/", "token": "cc" }],
    })
}

#[test]
fn a_wrong_file_is_told_by_the_path_of_what_is_wrong() {
    for (pointer, value, path) in [
        ("/listen", json!("0.0.0.0:0"), "listen"),
        ("/listen", json!("localhost"), "listen"),
        ("/listen", json!(8080), "listen"),
        ("/admin", json!("[::]:0"), "admin"),
        ("/admin", json!("192.0.2.1:0"), "admin"),
        ("/allow_remote", json!(CANARY), "allow_remote"),
        ("/refuse_pages", json!(CANARY), "refuse_pages"),
        ("/liste", json!("127.0.0.1:0"), "liste"),
        ("/tokens", Value::Null, "tokens"),
        ("/tokens", json!([]), "tokens"),
        (
            "/tokens/cc/provider/client_secret",
            json!([CANARY]),
            "tokens.cc.provider.client_secret",
        ),
        (
            "/tokens/cc/provider/client_secret",
            json!({ "env": "NOT_SET_TEST" }),
            "tokens.cc.provider.client_secret",
        ),
        (
            "/tokens/cc/provider/client_secret",
            json!({ "file": "nowhere" }),
            "tokens.cc.provider.client_secret",
        ),
        (
            "/tokens/cc/provider/client_id",
            Value::Null,
            "tokens.cc.provider.client_id",
        ),
        (
            "/tokens/cc/provider/token_url",
            json!("http://example.com/"),
            "tokens.cc.provider.token_url",
        ),
        ("/tokens/cc/provider/type", json!("oauth3"), "tokens.cc.provider.type"),
        (
            "/tokens/cc/policy",
            json!({ "fetch_timeout": "soon" }),
            "tokens.cc.policy.fetch_timeout",
        ),
        (
            "/tokens/cc/inject",
            json!({ "header": { "name": "a b" } }),
            "tokens.cc.inject",
        ),
        ("/tokens/cc/refuse", json!({ "status": [] }), "tokens.cc.refuse"),
        (
            "/tokens/cc/store",
            json!({ "file": { "path": "no-such-folder/token.json" } }),
            "tokens.cc.store.file.path",
        ),
        (
            "/tokens/cc/store",
            json!({ "redis": { "url": format!("redis://:{CANARY}@127.0.0.1:9/0"), "key": "k", "lease": "34s" } }),
            "tokens.cc.store.redis.lease",
        ),
        ("/routes", json!({}), "routes"),
        ("/routes/0/token", json!("dd"), "routes[0].token"),
        ("/routes/0/token", Value::Null, "routes[0].token"),
        ("/routes/0/prefix", json!("x/"), "routes[0].prefix"),
        ("/routes/0/prefix", json!("/x?y"), "routes[0].prefix"),
        ("/routes/0/prefix", json!(""), "routes[0].prefix"),
        ("/routes/0/upstream", json!("http://example.com/"), "routes[0].upstream"),
        ("/routes/0/upstream", json!("127.0.0.1:9"), "routes[0].upstream"),
        ("/routes/0/upstream", json!("ftp://127.0.0.1/"), "routes[0].upstream"),
        (
            "/routes/0/upstream",
            json!(format!("https://u:{CANARY}@127.0.0.1/")),
            "routes[0].upstream",
        ),
        (
            "/routes/0/upstream",
            json!(format!("http://127.0.0.1:9/?t={CANARY}")),
            "routes[0].upstream",
        ),
        ("/routes/0/protocol", json!("http3"), "routes[0].protocol"),
        ("/routes/0/keep_prefix", json!("yes"), "routes[0].keep_prefix"),
        ("/routes/0/replay_limit", json!(1_u64 << 40), "routes[0].replay_limit"),
        ("/routes/0/replay_limit", json!(-1), "routes[0].replay_limit"),
        ("/routes/0/replay", json!(1), "routes[0].replay"),
    ] {
        let mut document = right();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[name] = value.clone();
        let file = written(&document.to_string());
        let output = run("sidecar", &[file.to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{pointer} {value}: {said}");
        assert!(output.stdout.is_empty(), "{pointer} {value}");
        assert!(
            said.contains(&format!("invalid configuration: {path}")),
            "{pointer} {value}: {said}"
        );
        assert!(
            !said.contains(CANARY) && !said.contains("panicked"),
            "{pointer} {value}: {said}"
        );
    }
}

/// Else requests of the one would go out with the token of the other.
#[test]
fn two_tokens_in_one_place_are_a_fault() {
    let redis = |url: &str, key: &str| json!({ "redis": { "url": url, "key": key } });
    let file = |path: &str| json!({ "file": { "path": path } });
    let url = format!("redis://:{CANARY}@127.0.0.1:9/0");
    for (one, other, is_right) in [
        (file("token.json"), file("./token.json"), false),
        (redis(&url, "k"), redis(&url, "k"), false),
        (file("token.json"), file("tokens.json"), true),
        (redis(&url, "k"), redis(&url, "l"), true),
        (redis(&url, "k"), redis("redis://127.0.0.1:9/1", "k"), true),
        (redis(&url, "k"), file("k"), true),
    ] {
        let mut document = right();
        document["tokens"]["dd"] = document["tokens"]["cc"].clone();
        document["tokens"]["cc"]["store"] = one.clone();
        document["tokens"]["dd"]["store"] = other.clone();
        // So that a right one ends too.
        document["listen"] = json!("nowhere");
        let output = run("sidecar", &[written(&document.to_string()).to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        let fault = "invalid configuration: tokens.dd.store: is the place of tokens.cc";
        assert_eq!(said.contains(fault), !is_right, "{one} {other}: {said}");
        assert!(
            said.contains("configuration: listen") && !said.contains(CANARY),
            "{said}"
        );
    }
}

#[test]
fn what_is_no_file_at_all_is_told_too() {
    for text in ["", "{", "[]", "null", "{\"tokens\":{},\"tokens\":{}}", "\u{feff}{}"] {
        let file = written(text);
        let output = run("sidecar", &[file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{text}");
    }
    for arguments in [&[][..], &["nowhere.json"], &["a", "b"], &["/"]] {
        let output = run("sidecar", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn nulls_are_left_out_and_secrets_come_from_elsewhere() {
    let mut document = right();
    document["listen"] = Value::Null;
    document["allow_remote"] = Value::Null;
    document["refuse_pages"] = Value::Null;
    document["routes"][0]["protocol"] = Value::Null;
    document["routes"][0]["replay_limit"] = Value::Null;
    document["tokens"]["cc"]["provider"]["client_secret"] = json!({ "env": "TEST_SECRET" });
    let sidecar = Sidecar::start_in(&document, &[("TEST_SECRET", CANARY)]);
    assert_eq!(sidecar.get("/y").await.0, StatusCode::NOT_FOUND);
}

#[test]
fn the_sample_is_read_to_what_is_not_there() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/sidecar.json");
    let output = std::process::Command::new(crate::program::built("print_token"))
        .args([sample, "nobody"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("there is no tokens.nobody"), "{said}");
}

#[tokio::test]
async fn a_secret_is_nowhere_but_where_it_belongs() {
    let login = Login::new().await;
    login.issuer.client("test-client", CANARY);
    let upstream = Upstream::of(&login.issuer).await;
    let mut app = login.app();
    app["provider"]["client_secret"] = CANARY.into();
    app["inject"] = json!({ "query": { "name": "token" } });
    let mut user = login.user();
    user["provider"]["client_secret"] = CANARY.into();
    user["provider"]["refresh_token"] = CANARY.into();
    let mut sidecar = Sidecar::start(&json!({
        "tokens": { "app": app, "user": user },
        "routes": [
            { "prefix": "/app/", "upstream": upstream.url(), "token": "app" },
            { "prefix": "/gone/", "upstream": "http://127.0.0.1:1/", "token": "app" },
            { "prefix": "/user/", "upstream": upstream.url(), "token": "user" },
        ],
    }));
    let mut answers = String::new();
    // What an issuer says of a secret is not passed on either.
    let echo = json!({ "error": "invalid_grant", "error_description": format!("{CANARY} is spent") });
    login
        .issuer
        .fault(Fault::answer(400, "application/json", echo.to_string()));
    for path in ["/user/x", "/app/x", "/gone/x"] {
        answers += &sidecar.get(path).await.1;
    }
    for (method, path, body) in [
        ("POST", "/tokens/user/install", CANARY),
        ("POST", "/tokens/user/refresh", ""),
        ("GET", "/tokens/user/current", ""),
        ("GET", "/status", ""),
        ("GET", "/metrics", ""),
    ] {
        answers += &sidecar.admin(method, path, body).await.1;
    }
    sidecar.signal("-TERM");
    assert!(sidecar.ended().await.0.success());
    answers += &sidecar.said();
    assert!(answers.contains("invalid_grant") && answers.contains("listening on"));
    let token = upstream
        .take()
        .iter()
        .find_map(|seen| Some(seen.target.split_once("token=")?.1.to_owned()));
    for secret in [CANARY, &token.expect("a token in a URL")] {
        assert!(!answers.contains(secret), "{secret} in {answers}");
    }
}
