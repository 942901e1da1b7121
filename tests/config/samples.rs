//! Documents that are right, each with a secret in it, and how to make them wrong.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tower_token::config::{self, TokenConfig};
use tower_token::{Error, TokensBuilder};

/// A document as a program may have it: tokens by name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) tokens: BTreeMap<String, TokenConfig>,
}

/// What no message may hold; the number is for places that take none.
pub(crate) const CANARY: &str = "test-canary";
pub(crate) const CANARY_NUMBER: u64 = 4_711_081_547_110_815;

/// Reads the document and builds every token of it, secrets included; the first fault ends it.
pub(crate) fn built(document: &str, base: &Path) -> Result<BTreeMap<String, TokensBuilder>, Error> {
    let file: File = config::read(document)?;
    file.tokens
        .into_iter()
        .map(|(name, token)| {
            let at = format!("tokens.{name}");
            let builder = token.builder(&at, base)?;
            // Asked for by programs that route by themselves, so that it is no part of the builder.
            if !token.origins.is_empty() {
                token.origins(&at)?;
            }
            Ok((name, builder))
        })
        .collect()
}

/// One token of each type.
pub(crate) fn token(name: &str) -> Value {
    let issuer = "http://127.0.0.1:9100/token";
    let vendor = "http://127.0.0.1:9000";
    let provider = match name {
        "imm" => json!({
            "type": "alibaba.weboffice", "endpoint": vendor, "project_name": "test-project",
            "access_key_id": "AK", "access_key_secret": CANARY, "security_token": CANARY,
            "credential_config": { "ServiceRole": "r" }, "access_token": CANARY, "refresh_token": CANARY,
            "expires_at": "2026-11-21T10:17:45Z", "generate": { "source_uri": "oss://b/o", "PreviewPages": 3 },
        }),
        "ecd" => json!({
            "type": "alibaba.login", "endpoint": vendor, "region_id": "cn-hangzhou", "client_id": "c",
            "end_user_id": "alice", "office_site_id": "cn-shanghai+dir-1", "session_id": CANARY,
            "login_token": CANARY, "lifetime": "15m", "keep_alive_token": CANARY,
            "sign": { "access_key_id": "AK", "access_key_secret": CANARY },
        }),
        "smh" => json!({
            "type": "tencent.smh", "endpoint": vendor, "library_id": "l", "library_secret": CANARY,
            "access_token": CANARY, "period": "24h", "space_id": ["a", "b"], "user_id": "u", "grant": "admin",
        }),
        "hw" => json!({
            "type": "huawei.oneaccess", "endpoint": vendor, "client_id": "c", "client_secret": CANARY,
            "refresh_token": CANARY, "code": CANARY, "redirect_uri": "https://app.example.com/back",
        }),
        "hwapp" => json!({ "type": "huawei.tenant", "endpoint": vendor, "client_id": "c", "client_secret": CANARY }),
        "oa" => json!({
            "type": "oauth2.refresh_token", "token_url": issuer, "client_id": "c", "client_secret": CANARY,
            "client_auth": "basic", "refresh_token": CANARY, "scope": "read", "replay": "once",
            "resource": "https://api.example.com", "audience": "a", "extra": { "tenant": CANARY },
        }),
        "cc" => json!({
            "type": "oauth2.client_credentials", "token_url": issuer, "client_id": "c", "client_secret": CANARY,
            "client_auth": "post", "replay": { "within": "30s" },
        }),
        "ep" => json!({
            "type": "endpoint",
            "acquire": { "method": "GET", "url": "https://api.example.com/token", "query": { "secret": "{secret}" },
                         "headers": { "x-app": "{app}" } },
            "renew": { "url": "https://api.example.com/token/{access_token}", "json": { "r": ["{refresh_token}"] } },
            "vars": { "secret": CANARY, "app": "a" },
            "sign": { "acs3": { "access_key_id": "AK", "access_key_secret": CANARY } },
            "answer": { "token": "/access_token", "refresh_token": "/refresh_token",
                        "expires": { "seconds": "/expires_in" }, "keep": { "session": "/session" } },
            "errors": { "code": "/code", "ok": [0], "classes": { "throttled": [45009, "429"] } },
            "renew_before_death": true, "fallback": "dead", "replay": "never",
        }),
        other => unreachable!("no sample is called {other}"),
    };
    json!({
        "provider": provider,
        "inject": { "header": { "name": "x-token", "scheme": "Token" } },
        "refuse": [{ "status": [401] }, { "status": [403], "code": "/code", "in": ["X", 7] }, "bearer", { "grpc": true }],
        "policy": { "refresh_before": "60s", "require_before": "2s", "fetch_timeout": "10s", "min_interval": "1s",
                    "jitter": 0.1, "keep_alive": false, "assumed_life": "5m", "max_waiters": 100,
                    "static_stability": "1h" },
        "origins": ["https://api.example.com", "http://127.0.0.1:9000"],
        "expose": true,
    })
}

pub(crate) const NAMES: [&str; 8] = ["imm", "ecd", "smh", "hw", "hwapp", "oa", "cc", "ep"];

/// A document with this one token.
pub(crate) fn document(name: &str, token: Value) -> Value {
    json!({ "tokens": { name: token } })
}

/// Puts a value at a JSON pointer, and makes the objects on the way.
pub(crate) fn set(document: &mut Value, pointer: &str, value: Value) {
    let mut place = document;
    for part in pointer.split('/').skip(1) {
        place = match place {
            Value::Array(items) => &mut items[part.parse::<usize>().expect("an index")],
            object => {
                if !object.is_object() {
                    *object = json!({});
                }
                &mut object[part]
            }
        };
    }
    *place = value;
}
