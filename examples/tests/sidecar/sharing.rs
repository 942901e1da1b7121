//! Sidecars that share a store, and one that is started again: one client to an issuer that takes no refresh token twice.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::StatusCode;
use hyper_util::client::legacy::Error;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tower_token::testkit::Fault;

use crate::left_out::left_out;
use crate::program::{Login, Sidecar, get, http1, until};
use crate::upstream::Upstream;

/// Where tokens are kept.
trait Place {
    fn store(&self) -> Value;
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("token.json")
    }
}

impl Place for Folder {
    fn store(&self) -> Value {
        json!({ "file": { "path": self.file() } })
    }
}

/// A token that is kept there, the issuer behind it, and the API.
struct Rig {
    login: Login,
    document: Value,
}

impl Rig {
    async fn new(place: &impl Place, policy: Value) -> Self {
        let login = Login::new().await;
        let upstream = Upstream::of(&login.issuer).await;
        let mut user = login.user();
        user["store"] = place.store();
        user["policy"] = policy;
        user["expose"] = true.into();
        let document = json!({
            "tokens": { "user": user },
            "routes": [{ "prefix": "/", "upstream": upstream.url(), "token": "user" }],
        });
        Self { login, document }
    }

    fn sidecar(&self) -> Sidecar {
        Sidecar::start(&self.document)
    }

    /// A request that somebody waits for.
    fn request(&self, sidecar: &Sidecar) -> JoinHandle<Result<StatusCode, Error>> {
        let request = get(&sidecar.url("/x"));
        tokio::spawn(async { Ok(http1().request(request).await?.status()) })
    }

    fn granted(&self) -> u64 {
        self.login.issuer.counts().granted
    }

    fn never_twice(&self) {
        let counts = self.login.issuer.counts();
        assert_eq!((counts.presented_twice, counts.reuse), (0, 0), "{counts:?}");
        assert_eq!(counts.max_in_flight_per_grant, 1);
    }
}

async fn ok(sidecar: &Sidecar) {
    let (status, body) = sidecar.get("/x").await;
    assert_eq!(status, StatusCode::OK, "{body} {}", sidecar.said());
}

async fn three_are_one_client(place: &impl Place) {
    // Each lives for 2 s, and is renewed 1.8 s after it was asked for.
    let policy = json!({ "refresh_before": "200ms", "require_before": "100ms", "jitter": 0.0 });
    let rig = Rig::new(place, policy).await;
    rig.login.issuer.lifetime(Duration::from_secs(2));
    let from = Instant::now();
    let sidecars = [rig.sidecar(), rig.sidecar(), rig.sidecar()];
    while rig.granted() < 1 + EXPIRIES {
        for sidecar in &sidecars {
            ok(sidecar).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // However slow the machine is: there was no time for more of them.
    let granted = rig.granted();
    let most = 1 + from.elapsed().as_millis() / 1800;
    assert!(u128::from(granted) <= most, "{granted} of {most}");
    rig.never_twice();
    until("all have the last", async || {
        let mut all = Vec::new();
        for sidecar in &sidecars {
            all.push(sidecar.admin("GET", "/tokens/user/current", "").await.1);
        }
        let token = |body: &str| serde_json::from_str::<Value>(body).unwrap()["token"].clone();
        all.iter().all(|body| token(body) == token(&all[0]))
    })
    .await;
}

const EXPIRIES: u64 = 5;

async fn a_restart_costs_nothing(place: &impl Place) {
    let rig = Rig::new(place, Value::Null).await;
    let (mut first, other) = (rig.sidecar(), rig.sidecar());
    ok(&first).await;
    ok(&other).await;
    for signal in ["-TERM", "-KILL"] {
        first.signal(signal);
        first.ended().await;
        first = rig.sidecar();
        ok(&first).await;
        assert_eq!(first.status("user").await["fetches"], 0);
    }
    let metrics = first.admin("GET", "/metrics", "").await.1;
    assert!(
        metrics.contains("tower_token_adopted_total{token=\"user\"} 1\n"),
        "{metrics}"
    );
    assert_eq!(rig.granted(), 1);
    // What was rotated is what it goes on with.
    let (status, _) = first.admin("POST", "/tokens/user/refresh", "").await;
    assert_eq!((status, rig.granted()), (StatusCode::OK, 2));
    rig.never_twice();
}

async fn what_is_on_its_way_is_not_lost(place: &impl Place) {
    let rig = Rig::new(place, Value::Null).await;
    let seed = rig.document["tokens"]["user"]["provider"]["refresh_token"].clone();
    rig.login.issuer.fault(Fault::DelayAfter(Duration::from_secs(1)));
    let mut sidecar = rig.sidecar();
    let waiting = rig.request(&sidecar);
    until("the issuer has spent it", async || rig.granted() == 1).await;
    // Who waited for it is gone, so that nobody but the fetch itself holds the program up.
    waiting.abort();
    sidecar.signal("-TERM");
    let (status, _) = sidecar.ended().await;
    assert!(status.success(), "{}", sidecar.said());
    assert!(!rig.login.issuer.is_redeemable(seed.as_str().unwrap()));

    let next = rig.sidecar();
    ok(&next).await;
    assert_eq!(rig.granted(), 1);
    let (status, _) = next.admin("POST", "/tokens/user/refresh", "").await;
    assert_eq!((status, rig.granted()), (StatusCode::OK, 2));
    rig.never_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_sidecars_over_one_file_are_one_client() {
    three_are_one_client(&Folder::new()).await;
}

#[tokio::test]
async fn a_sidecar_that_is_started_again_goes_on_with_the_file() {
    a_restart_costs_nothing(&Folder::new()).await;
}

#[tokio::test]
async fn a_sidecar_that_ends_in_an_exchange_leaves_the_rotated_token_in_the_file() {
    let folder = Folder::new();
    what_is_on_its_way_is_not_lost(&folder).await;
    let kept: Value = serde_json::from_slice(&std::fs::read(folder.file()).unwrap()).unwrap();
    assert_eq!(kept["record"]["generation"], 2, "{kept}");
}

/// What the issuer sent is lost then. That it was asked for is written down, and the provider's policy decides.
#[tokio::test]
async fn a_sidecar_that_is_killed_in_an_exchange_is_followed_by_one_that_knows_of_it() {
    for (replay, presented) in [("once", 2), ("never", 1)] {
        let folder = Folder::new();
        let mut rig = Rig::new(&folder, Value::Null).await;
        rig.document["tokens"]["user"]["provider"]["replay"] = replay.into();
        rig.login.issuer.fault(Fault::DelayAfter(Duration::from_secs(1)));
        let mut sidecar = rig.sidecar();
        let waiting = rig.request(&sidecar);
        until("the issuer has spent it", async || rig.granted() == 1).await;
        sidecar.signal("-KILL");
        sidecar.ended().await;
        assert!(waiting.await.unwrap().is_err());
        let next = rig.sidecar();
        for _ in 0..3 {
            let (status, body) = next.get("/x").await;
            assert!(
                status.is_server_error() && body.contains("\"reauth_required\":true"),
                "{status} {body}"
            );
        }
        assert_eq!(rig.login.requests(), presented, "{replay}");
    }
}

/// What cannot be saved is used all the same, and the status says what that means.
#[tokio::test]
async fn a_sidecar_whose_file_cannot_be_written_says_that_its_token_is_undurable() {
    let folder = Folder::new();
    let rig = Rig::new(&folder, Value::Null).await;
    rig.login.issuer.latency(Duration::from_millis(500));
    let sidecar = rig.sidecar();
    let waiting = rig.request(&sidecar);
    until("the exchange begins", async || rig.login.requests() == 1).await;
    // Not by its mode, which binds no root: something else is in its place.
    let aside = folder.0.path().join("aside");
    std::fs::rename(folder.file(), &aside).unwrap();
    std::fs::create_dir(folder.file()).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), StatusCode::OK);
    let status = sidecar.status("user").await;
    assert_eq!(status["undurable"], true, "{status}");
    assert!(status["store_error"].is_string(), "{status}");
    let metrics = sidecar.admin("GET", "/metrics", "").await.1;
    assert!(metrics.contains("tower_token_undurable{token=\"user\"} 1"), "{metrics}");
    for words in [
        "user: the store fails: ",
        "user: what the issuer sent is not in the store",
    ] {
        assert!(sidecar.said().contains(words), "{}", sidecar.said());
    }
    ok(&sidecar).await;
    assert_eq!(rig.granted(), 1);

    std::fs::remove_dir(folder.file()).unwrap();
    std::fs::rename(&aside, folder.file()).unwrap();
    until("it is saved", async || {
        sidecar.status("user").await["undurable"] == false
    })
    .await;
    let next = rig.sidecar();
    ok(&next).await;
    assert_eq!(rig.granted(), 1);
}

// ===== over Redis =====

/// Programs of the test's own.
struct Redis {
    port: u16,
    server: Option<Child>,
}

impl Redis {
    /// A place where there is none yet. `None`: none is installed.
    fn nowhere() -> Option<Self> {
        if std::env::var_os("TOWER_TOKEN_REDIS").is_none() {
            left_out("redis-server is not installed, `tests/run` does that");
            return None;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Some(Self { port, server: None })
    }

    async fn running() -> Option<Self> {
        let mut redis = Self::nowhere()?;
        redis.start().await;
        Some(redis)
    }

    async fn start(&mut self) {
        let program = std::env::var_os("TOWER_TOKEN_REDIS").unwrap();
        let mut server = Command::new(program);
        server.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        server.args(["--save", "", "--appendonly", "no", "--requirepass", PASSWORD]);
        self.server = Some(
            server
                .stdout(Stdio::null())
                .current_dir(Path::new("/"))
                .spawn()
                .unwrap(),
        );
        until("redis-server listens", async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        })
        .await;
    }
}

impl Place for Redis {
    fn store(&self) -> Value {
        json!({ "redis": { "url": format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port), "key": "tt:oa", "lease": "45s" } })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

const PASSWORD: &str = "test-canary-pw";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_sidecars_over_one_redis_are_one_client() {
    let Some(redis) = Redis::running().await else { return };
    three_are_one_client(&redis).await;
}

#[tokio::test]
async fn a_sidecar_that_is_started_again_goes_on_with_what_redis_has() {
    let Some(redis) = Redis::running().await else { return };
    a_restart_costs_nothing(&redis).await;
}

#[tokio::test]
async fn a_sidecar_that_ends_in_an_exchange_leaves_the_rotated_token_in_redis() {
    let Some(redis) = Redis::running().await else { return };
    what_is_on_its_way_is_not_lost(&redis).await;
}

#[tokio::test]
async fn a_sidecar_starts_without_its_redis_and_works_when_that_is_there() {
    let Some(mut redis) = Redis::nowhere() else { return };
    let rig = Rig::new(&redis, Value::Null).await;
    let sidecar = rig.sidecar();
    until("it says so", async || {
        sidecar.said().contains("user: the store fails: ")
    })
    .await;
    let (status, body) = sidecar.get("/x").await;
    assert!(
        status.is_server_error() && body.contains("token_unavailable"),
        "{status} {body}"
    );
    // Nothing is spent that nobody could be told of.
    assert_eq!(rig.login.requests(), 0);
    redis.start().await;
    let from = Instant::now();
    until("it works", async || sidecar.get("/x").await.0 == StatusCode::OK).await;
    let took = from.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(rig.granted(), 1);
    assert!(!sidecar.said().contains(PASSWORD), "{}", sidecar.said());
    assert!(!sidecar.admin("GET", "/status", "").await.1.contains(PASSWORD));
    rig.never_twice();
}
