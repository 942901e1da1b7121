//! What the server refuses is named, and nothing of it is quoted.

use std::io::{Read, Write};
use std::net::TcpListener;

use tower_token::{Lease, RedisStore, Saved, StoreError, Token, TokenStore, Tokens, provider_fn};

use super::server::{AGES, Redis, free_port, store_at};
use super::specimen::record;

#[tokio::test]
async fn a_full_memory_is_named_and_what_is_kept_can_still_be_read() {
    let Some(redis) = Redis::start_with(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]) else {
        return;
    };
    let store = redis.store("tt");
    let lease = store.lease(AGES).await.unwrap().unwrap();
    store.save(&record(1, "a"), 0, &lease).await.unwrap();
    let filled = "redis.pcall('SELECT', 0) local i = 0 repeat i = i + 1 \
                  local said = redis.pcall('SET', 'filler' .. i, string.rep('x', 10000)) until said.err or i > 1000 return i";
    redis.admin::<()>(&["EVAL", filled, "0"]);
    // The last bytes as well.
    redis.admin::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]);
    for error in [
        store.save(&record(2, "b"), 1, &lease).await.unwrap_err(),
        redis.store("other").lease(AGES).await.unwrap_err(),
    ] {
        named(&error, "OOM, its memory is full");
    }
    assert_eq!(store.load().await.unwrap().unwrap().generation(), 1);
    redis.admin::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(store.save(&record(2, "b"), 1, &lease).await.unwrap(), Saved::Kept);
}

#[tokio::test]
async fn a_replica_is_named_and_asked_anew_when_it_is_promoted() {
    let Some(redis) = Redis::start() else { return };
    let store = redis.store("tt");
    let lease = store.lease(AGES).await.unwrap().unwrap();
    redis.admin::<()>(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    named(
        &store.save(&record(1, "a"), 0, &lease).await.unwrap_err(),
        "READONLY, it is a replica",
    );
    // The name of the server may lead to another one by now.
    redis.until_alone().await;
    redis.admin::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(store.save(&record(1, "a"), 0, &lease).await.unwrap(), Saved::Kept);
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_database_are_named() {
    let Some(redis) = Redis::start() else { return };
    let at = format!("127.0.0.1:{}", redis.port());
    let load = |url: String| async move { store_at(url, "tt").load().await.unwrap_err() };
    named(
        &load(format!("redis://{at}/99")).await,
        "ERR, it has no database of this number",
    );
    redis.admin::<()>(&["ACL", "SETUSER", "me", "on", ">test-canary", "~*", "+@all"]);
    named(&load(format!("redis://me:wrong-canary@{at}")).await, "WRONGPASS");
    redis.admin::<()>(&["CONFIG", "SET", "requirepass", "test-canary"]);
    named(&load(format!("redis://{at}")).await, "NOAUTH");
    named(&load(format!("redis://:wrong-canary@{at}")).await, "WRONGPASS");
    for login in [":test-canary", "default:test-canary", "me:test-canary"] {
        let store = store_at(format!("redis://{login}@{at}"), "tt");
        assert!(store.load().await.unwrap().is_none(), "{login}");
    }
}

/// Also what a server says that cannot be brought to it here, and one older than version 7, which says ERR for whatever
/// breaks a script off.
#[tokio::test]
async fn every_code_is_named_and_nothing_behind_it() {
    for (said, code) in [
        ("LOADING Redis is loading canary", "LOADING, it is still loading"),
        ("MISCONF Redis is canary", "MISCONF, it cannot write"),
        ("NOREPLICAS canary", "NOREPLICAS, too few"),
        ("CLUSTERDOWN Hash slot canary", "CLUSTERDOWN, the cluster"),
        ("MOVED 3999 canary:6381", "MOVED, this key is another node's"),
        ("ASK 3999 canary:6381", "ASK, this key is another node's"),
        ("BUSY Redis is busy canary", "BUSY, a script"),
        ("NOPERM User canary has no permissions", "NOPERM, the user may not"),
        (
            "ERR Error running script (call to f_1): @user_script:3: -OOM command canary",
            "OOM, its memory",
        ),
        (
            "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -NOPERM canary",
            "NOPERM, the user",
        ),
        ("ERR The user executing the script can't canary", "NOPERM, the user"),
        (
            "ERR unknown command 'EVALSHA', with args beginning with: 'canary'",
            "ERR, it does not know this command",
        ),
        (
            "ERR max number of clients reached canary",
            "ERR, it has too many clients",
        ),
        ("ERR canary", "refused: ERR"),
        ("canary!", "an error without a code"),
        (
            "CANARYCANARYCANARYCANARY of twenty letters and more",
            "an error without a code",
        ),
    ] {
        let store = store_at(refusing(said), "tt");
        for error in [
            store.load().await.unwrap_err(),
            store.save(&record(1, "a"), 0, &Lease::new(1)).await.unwrap_err(),
        ] {
            named(&error, code);
        }
    }
    let store = store_at(refusing("WRONGTYPE canary"), "tt");
    assert!(store.load().await.unwrap_err().is_unusable());
}

#[tokio::test]
async fn an_old_server_is_called_so() {
    for said in [
        "ERR unknown command `HELLO`, with args beginning with: `canary`",
        "ERR unknown command 'HELLO', with args beginning with: 'canary'",
        "NOPROTO canary",
    ] {
        let store = store_at(greeting_with(format!("-{said}\r\n"), ""), "tt");
        named(&store.load().await.unwrap_err(), "as Redis does from version 6 on");
    }
}

#[tokio::test]
async fn what_is_configured_wrongly_is_named_and_never_quoted() {
    for (store, fields) in [
        (RedisStore::new("http://:test-canary@cache", "tt"), &["url: "][..]),
        (RedisStore::new("redis://:test-canary@/0", "tt"), &["url: "]),
        (
            RedisStore::new("redis://:test-canary@cache/nine", "{tt}"),
            &["url: ", "key: "],
        ),
        (
            RedisStore::new("redis://cache", "tt").timeout(std::time::Duration::ZERO),
            &["timeout: "],
        ),
        (
            RedisStore::new("rediss://cache", "tt").ca_certificate("test-canary"),
            &["ca_certificate: "],
        ),
        (
            RedisStore::new("rediss://cache", "tt").client_certificate("test-canary", "test-canary"),
            &["client_certificate: "],
        ),
    ] {
        let shown = format!("{store:?}");
        let asked = store.load().await;
        let provider = provider_fn(|_| async { Ok(Token::bearer("test")) });
        let error = Tokens::builder(provider).store(store).build().unwrap_err();
        let said = format!("{error} {error:?} {shown} {asked:?}");
        for field in fields {
            assert!(error.to_string().contains(field), "{error}");
        }
        assert!(!said.contains("canary"), "{said}");
    }
}

/// The code is said, and nothing that could be a secret.
fn named(error: &StoreError, code: &str) {
    assert!(error.to_string().contains(code), "{error} is not {code}");
    let mut links: Vec<&dyn std::error::Error> = vec![error];
    while let Some(source) = links.last().unwrap().source() {
        links.push(source);
    }
    for link in links {
        let said = format!("{link} {link:?}");
        assert!(!said.to_lowercase().contains("canary"), "{said}");
    }
}

/// The URL of what answers everything after the greeting with this error.
fn refusing(said: &str) -> String {
    greeting_with("%1\r\n+server\r\n+redis\r\n".into(), said)
}

fn greeting_with(hello: String, said: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = format!("-{said}\r\n");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut next) = (stream.unwrap(), &hello);
            while stream.read(&mut [0; 65536]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(next.as_bytes());
                next = &answer;
            }
        }
    });
    format!("redis://127.0.0.1:{port}")
}
