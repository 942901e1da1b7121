//! Documents that are right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tower_token::{Classify, Verdict};

use super::samples::*;

/// The tokens of the sidecar's sample file, with a variable that a test has.
const SAMPLE: &str = r#"{ "tokens": {
    "imm": { "provider": { "type": "alibaba.weboffice", "endpoint": "http://127.0.0.1:9000",
                           "project_name": "test-project", "access_key_id": "AK",
                           "access_key_secret": { "env": "CARGO_MANIFEST_DIR" }, "security_token": null,
                           "credential_config": null, "access_token": "a", "refresh_token": "r", "expires_at": null,
                           "generate": { "source_uri": "oss://b/o" } },
             "inject": { "header": { "name": "x-weboffice-token" } }, "refuse": { "status": [401] } },
    "ecd": { "provider": { "type": "alibaba.login", "endpoint": "http://127.0.0.1:9000", "region_id": "cn-hangzhou",
                           "client_id": "c", "end_user_id": "alice", "office_site_id": "cn-shanghai+dir-1",
                           "session_id": "s", "login_token": "t", "lifetime": "15m", "keep_alive_token": null,
                           "sign": null } },
    "smh": { "provider": { "type": "tencent.smh", "endpoint": "http://127.0.0.1:9000", "library_id": "l",
                           "library_secret": { "file": "s" }, "access_token": null, "period": "24h",
                           "space_id": null, "user_id": null, "grant": null } },
    "hw": { "provider": { "type": "huawei.oneaccess", "endpoint": "http://127.0.0.1:9000", "client_id": "c",
                          "client_secret": "s", "refresh_token": "r", "code": null, "redirect_uri": null } },
    "hwapp": { "provider": { "type": "huawei.tenant", "endpoint": "http://127.0.0.1:9000", "client_id": "c",
                             "client_secret": "s" } },
    "oa": { "provider": { "type": "oauth2.refresh_token", "token_url": "http://127.0.0.1:9100/token",
                          "client_id": "c", "client_secret": "s", "client_auth": "basic", "refresh_token": "r",
                          "scope": null, "replay": "once" },
            "policy": { "refresh_before": "60s", "require_before": "2s", "fetch_timeout": "10s",
                        "min_interval": "1s", "jitter": 0.1, "keep_alive": false } },
    "cc": { "provider": { "type": "oauth2.client_credentials", "token_url": "http://127.0.0.1:9100/token",
                          "client_id": "c", "client_secret": "s", "client_auth": "post" } }
} }"#;

/// A directory with the file `s` in it, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tower-token-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("s"), "test-library-secret\n").unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is a directory of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_token_of_the_sample_file_is_built() {
    let folder = Folder::new("sample");
    let built = built(SAMPLE, &folder.0).unwrap();
    assert_eq!(built.len(), 7);
    for (name, builder) in built {
        let tokens = builder.build().unwrap_or_else(|error| panic!("{name}: {error}"));
        // A token that was configured is there; of a pair to be generated, or of a grant, there is none yet.
        let configured = ["imm", "ecd"].contains(&name.as_str());
        assert_eq!(tokens.current().is_some(), configured, "{name}");
    }
}

#[test]
fn every_field_of_every_provider_may_be_written() {
    for name in NAMES {
        for (_, builder) in built(&document(name, token(name)).to_string(), Path::new("")).unwrap() {
            builder.build().unwrap();
        }
    }
}

/// Each field of each object once, whether it may be left out or not.
#[test]
fn a_null_is_as_good_as_leaving_the_field_out() {
    let outcome = |document: &Value| match built(&document.to_string(), Path::new("")) {
        Ok(_) => "built".to_owned(),
        Err(error) => error.to_string(),
    };
    let mut fields = 0;
    for name in NAMES {
        let sample = token(name);
        for at in pointers("", &sample) {
            let (object, field) = at.rsplit_once('/').unwrap();
            let (mut null, mut left_out) = (sample.clone(), sample.clone());
            set(&mut null, &at, Value::Null);
            left_out
                .pointer_mut(object)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(field);
            let (null, left_out) = (document(name, null), document(name, left_out));
            assert_eq!(outcome(&null), outcome(&left_out), "{name}{at}");
            fields += 1;
        }
    }
    assert!(fields > 150, "{fields}");
}

/// Every field of an object that stands in no list.
fn pointers(at: &str, value: &Value) -> Vec<String> {
    let Some(fields) = value.as_object() else {
        return Vec::new();
    };
    let below = |(name, value): (&String, &Value)| {
        let own = format!("{at}/{name}");
        let inner = pointers(&own, value);
        std::iter::once(own).chain(inner).collect::<Vec<_>>()
    };
    fields.iter().flat_map(below).collect()
}

#[test]
fn what_may_be_left_out_may() {
    let imm = ["access_token", "refresh_token"];
    for (name, left_out) in [
        ("imm", &imm[..]),
        ("imm", &["generate"]),
        ("imm", &["security_token", "credential_config", "expires_at"]),
        (
            "ecd",
            &["login_token", "session_id", "office_site_id", "lifetime", "sign"],
        ),
        ("ecd", &["keep_alive_token"]),
        ("ecd", &["endpoint"]),
        ("smh", &["library_secret"]),
        ("smh", &["access_token", "period", "space_id", "user_id", "grant"]),
        ("hw", &["code", "redirect_uri"]),
        ("hw", &["refresh_token"]),
        (
            "oa",
            &["client_auth", "scope", "resource", "audience", "extra", "replay"],
        ),
        ("oa", &["client_auth", "client_secret"]),
        ("cc", &["client_auth", "replay"]),
        ("ep", &["acquire"]),
        ("ep", &["renew"]),
        ("ep", &["sign", "errors", "renew_before_death", "fallback", "replay"]),
    ] {
        let mut token = token(name);
        for field in left_out {
            set(&mut token, &format!("/provider/{field}"), Value::Null);
        }
        for field in ["inject", "refuse", "policy", "origins", "expose"] {
            set(&mut token, &format!("/{field}"), Value::Null);
        }
        let document = document(name, token).to_string();
        assert!(built(&document, Path::new("")).is_ok(), "{name} {left_out:?}");
    }
}

#[test]
fn what_may_be_written_in_several_ways_may() {
    for (name, pointer, json) in [
        ("imm", "/provider/credential_config", json!("{\"ServiceRole\":\"r\"}")),
        (
            "imm",
            "/provider/expires_at",
            json!("2026-11-21T18:17:45.950065359+08:00"),
        ),
        ("imm", "/provider/generate/User", json!({ "Id": "1" })),
        ("smh", "/provider/space_id", json!("a")),
        ("smh", "/provider/grant", json!(["admin", "upload_file"])),
        ("oa", "/provider/replay", json!("never")),
        ("oa", "/provider/replay", json!("idempotent")),
        ("oa", "/provider/replay", json!({ "within": "500ms" })),
        ("ep", "/provider/sign", json!("none")),
        (
            "ep",
            "/provider/sign",
            json!({ "rpc": { "access_key_id": "AK", "access_key_secret": "test" } }),
        ),
        ("ep", "/provider/errors/code", json!(["/a", "/b/0"])),
        ("ep", "/provider/acquire/query/n", json!(7)),
        ("ep", "/provider/acquire/query/b", json!(true)),
        ("ep", "/provider/answer/expires", json!({ "lifetime": "15m" })),
        ("ep", "/provider/answer/refresh_expires", json!({ "at": "/until" })),
        ("cc", "/inject", json!("bearer")),
        ("cc", "/refuse", json!("bearer")),
        ("cc", "/refuse", json!(["bearer"])),
        ("cc", "/policy/jitter", json!(0)),
        ("cc", "/policy/refresh_before", json!("1h 30m")),
        ("cc", "/origins", json!([])),
    ] {
        let mut token = token(name);
        set(&mut token, pointer, json.clone());
        let document = document(name, token).to_string();
        if let Err(error) = built(&document, Path::new("")) {
            panic!("{pointer} = {json}: {error}");
        }
    }
}

/// Relative to the document, not to where the program runs; one newline at the end is an editor's.
#[test]
fn a_secret_is_read_from_a_file_or_from_the_environment() {
    let folder = Folder::new("secrets");
    for source in [
        json!({ "file": "s" }),
        json!({ "file": folder.0.join("s") }),
        json!({ "env": "CARGO_MANIFEST_DIR" }),
    ] {
        let mut token = token("smh");
        set(&mut token, "/provider/access_token", source.clone());
        let document = document("smh", token).to_string();
        for (_, builder) in built(&document, &folder.0).unwrap() {
            let tokens = builder.build().unwrap();
            let expected = match source["env"].as_str() {
                Some(name) => std::env::var(name).unwrap(),
                None => "test-library-secret".into(),
            };
            assert_eq!(tokens.current().unwrap().secret(), expected);
        }
    }
}

#[test]
fn the_parts_of_a_document_are_there_to_be_asked() {
    let file: File = tower_token::config::read(&document("oa", token("oa")).to_string()).unwrap();
    let token = &file.tokens["oa"];
    assert_eq!(token.fetch_timeout(), Duration::from_secs(10));
    assert!(token.expose && token.origins("tokens.oa").is_ok());
}

/// A server challenges with the scheme that it wants.
#[test]
fn a_401_is_read_in_the_scheme_that_the_token_goes_out_with() {
    let refuses = |inject: &Value, refuse: &Value, challenge: &str| {
        let mut token = token("cc");
        set(&mut token, "/inject", inject.clone());
        set(&mut token, "/refuse", refuse.clone());
        let file: File = tower_token::config::read(&document("cc", token).to_string()).unwrap();
        let refusal = file.tokens["cc"].refusal("").unwrap();
        let answer = http::Response::builder()
            .status(401)
            .header("www-authenticate", challenge);
        let (head, ()) = answer.body(()).unwrap().into_parts();
        matches!(
            Classify::<http_body_util::Empty<bytes::Bytes>>::head(&refusal, &head),
            Verdict::Refuse(_)
        )
    };
    let token = json!({ "header": { "name": "Authorization", "scheme": "Token" } });
    let elsewhere = json!({ "header": { "name": "x-key", "scheme": "Token" } });
    let none = Value::Null;
    for (inject, refuse, challenge, expected) in [
        (&token, &none, "Token", true),
        (&token, &json!("bearer"), "token realm=\"x\"", true),
        (&token, &none, "Token error=\"insufficient_scope\"", false),
        (&token, &none, "Bearer error=\"invalid_token\"", true),
        (&token, &none, "Basic realm=\"x\"", false),
        (&token, &json!({ "status": [403] }), "Token", false),
        (&elsewhere, &none, "Token", false),
        (&none, &none, "Token", false),
    ] {
        assert_eq!(
            refuses(inject, refuse, challenge),
            expected,
            "{inject} {refuse} {challenge}"
        );
    }
}

#[test]
fn no_secret_of_a_document_is_printed() {
    for name in NAMES {
        let text = document(name, token(name)).to_string();
        let file: File = tower_token::config::read(&text).unwrap();
        assert!(!format!("{file:?}").contains("canary"), "{file:?}");
        let builder = file.tokens[name].builder("", Path::new("")).unwrap();
        assert!(!format!("{builder:?}").contains("canary"), "{builder:?}");
        let tokens = builder.build().unwrap();
        assert!(!format!("{tokens:?}").contains("canary"), "{tokens:?}");
    }
}
