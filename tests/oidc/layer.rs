//! Real requests through the layer, real exchanges, and what the server counted of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt};
use tower_token::oauth2::{ClientAuth, ClientCredentialsGrant, RefreshTokenGrant};
use tower_token::{Origins, RefreshPolicy, TokenLayer, TokenProvider, TokenService, Tokens};

use crate::contrast::lost_grants;
use crate::issuer::{Counts, Delay, Http, Oidc, PATIENCE, http};

// ---- one exchange ---------------------------------------------------------------------------------

#[tokio::test]
async fn client_credentials_with_basic_auth_that_needs_encoding() {
    let Some(oidc) = Oidc::start() else { return };
    let grant = ClientCredentialsGrant::new(oidc.token_url(), "cc:odd id").client_secret("p@ss:w/rd+ %25&=~");
    fifty_calls_cost_one_exchange(&oidc, grant).await;
}

#[tokio::test]
async fn client_credentials_with_post_auth() {
    let Some(oidc) = Oidc::start() else { return };
    let grant = ClientCredentialsGrant::new(oidc.token_url(), "cc-post")
        .client_secret("post-secret")
        .client_auth(ClientAuth::Post);
    fifty_calls_cost_one_exchange(&oidc, grant).await;
}

#[tokio::test]
async fn a_refresh_token_of_a_public_client() {
    let Some(oidc) = Oidc::start() else { return };
    let seed = oidc.sign_in("public").await;
    let grant = RefreshTokenGrant::new(oidc.token_url(), "public").refresh_token(seed);
    fifty_calls_cost_one_exchange(&oidc, grant).await;
}

#[tokio::test]
async fn a_wrong_secret_is_a_fault_of_configuration_and_is_presented_once() {
    let Some(oidc) = Oidc::start() else { return };
    let grant = ClientCredentialsGrant::new(oidc.token_url(), "cc-post").client_secret("not-the-secret");
    let tokens = Tokens::new(grant).unwrap();
    for _ in 0..10 {
        let error = tokens.get().await.unwrap_err();
        assert!(error.is_config(), "{error}");
    }
    let counts = oidc.counts().await;
    assert_eq!((counts.token_requests, counts.invalid_client), (1, 1), "{counts:#?}");
}

async fn fifty_calls_cost_one_exchange(oidc: &Oidc, grant: impl TokenProvider) {
    let api = Api::of(oidc, &Tokens::new(grant).unwrap());
    let mut calls: JoinSet<_> = (0..50).map(|_| api.clone().call()).collect();
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    let counts = oidc.counts().await;
    assert_eq!(
        (counts.token_requests, counts.granted, counts.invalid_client),
        (1, 1, 0),
        "{counts:#?}"
    );
    assert_eq!((counts.resource.requests, counts.resource.ok), (50, 50), "{counts:#?}");
}

// ---- many -----------------------------------------------------------------------------------------

/// Every second generation comes because the one before it was revoked under the callers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_generations_rotate_under_fifty_callers() {
    const ROTATIONS: u64 = 20;
    const CALLERS: u64 = 50;
    let Some(oidc) = Oidc::start() else { return };
    oidc.delay(Delay {
        token_before: 2,
        token_after: 2,
        ..Delay::default()
    })
    .await;
    let tokens = refreshing(&oidc).await;
    let callers = Callers::start(CALLERS, &Api::of(&oidc, &tokens));
    callers.go_on().await;
    for generation in 2..=1 + ROTATIONS {
        if generation % 2 == 0 {
            oidc.revoke_access().await;
        } else {
            tokens.refresh().await.unwrap();
        }
        callers.go_on().await;
        assert_eq!(status(&tokens), (Some(generation), generation, 0));
    }
    let (calls, others) = callers.stop().await;

    let counts = oidc.counts().await;
    assert!(others.is_empty(), "{others:?} {counts:#?}");
    assert_eq!(
        (counts.token_requests, counts.granted),
        (1 + ROTATIONS, 1 + ROTATIONS),
        "{counts:#?}"
    );
    assert_unharmed(&counts);
    assert_eq!(counts.resource.ok, calls, "{counts:#?}");
    // Each caller has one request at a time, and there were ten revocations.
    assert!((1..=10 * CALLERS).contains(&counts.resource.refused), "{counts:#?}");
    assert_eq!(
        (counts.resource.no_token, counts.resource.expired_seen),
        (0, 0),
        "{counts:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_in_mid_flight_costs_one_exchange() {
    const CALLS: u64 = 50;
    let Some(oidc) = Oidc::start() else { return };
    let api = Api::of(&oidc, &refreshing(&oidc).await);
    assert_eq!(api.clone().call().await, StatusCode::OK);

    oidc.delay(Delay {
        resource: 1_000,
        ..Delay::default()
    })
    .await;
    let mut calls: JoinSet<_> = (0..CALLS).map(|_| api.clone().call()).collect();
    oidc.until(|counts| counts.resource.requests == 1 + CALLS).await;
    assert_eq!(oidc.revoke_access().await, 1);
    oidc.delay(Delay::default()).await;
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }

    let counts = oidc.counts().await;
    assert_eq!((counts.token_requests, counts.granted), (2, 2), "{counts:#?}");
    assert_eq!(
        (counts.resource.refused, counts.resource.ok),
        (CALLS, 1 + CALLS),
        "{counts:#?}"
    );
    assert_unharmed(&counts);
}

/// The revocation also kills the token that is on its way: what it brings is as dead as the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_while_a_renewal_is_in_the_air_costs_one_more() {
    let Some(oidc) = Oidc::start() else { return };
    let tokens = refreshing(&oidc).await;
    let api = Api::of(&oidc, &tokens);
    let callers = Callers::start(50, &api);
    callers.go_on().await;

    oidc.delay(Delay {
        token_after: 500,
        ..Delay::default()
    })
    .await;
    let renewal = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.refresh().await.is_ok() }
    });
    oidc.until(|counts| counts.granted == 2).await;
    assert_eq!(oidc.revoke_access().await, 2);
    assert!(renewal.await.unwrap());
    // Who comes now is sent out with it, and then waits for the next like all the others.
    assert_eq!(api.call().await, StatusCode::OK, "{:#?}", oidc.counts().await);
    oidc.until(|counts| counts.granted == 3 && counts.in_flight == 0).await;
    callers.go_on().await;
    let (_, others) = callers.stop().await;

    let counts = oidc.counts().await;
    assert!(others.is_empty(), "{others:?} {counts:#?}");
    assert_eq!((counts.token_requests, counts.granted), (3, 3), "{counts:#?}");
    assert_unharmed(&counts);
}

// ---- cancelled ------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancelled_rounds_lose_nothing() {
    let Some(oidc) = Oidc::start() else { return };
    let tokens = refreshing(&oidc).await;
    cancelled(&oidc, &tokens, 1_000).await;
}

/// What is in the file at the end is what the issuer takes. A thousand in full.
#[cfg(feature = "store")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_rounds_lose_nothing_that_is_kept_in_a_file() {
    let rounds = if std::env::var_os("TOWER_TOKEN_FULL").is_some() {
        1_000
    } else {
        200
    };
    let Some(oidc) = Oidc::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let grant = grant(&oidc).await;
    let opened = || {
        let store = tower_token::FileStore::new(folder.path().join("token.json"));
        Tokens::builder(grant.clone()).store(store).build().unwrap()
    };
    let tokens = opened();
    let granted = cancelled(&oidc, &tokens, rounds).await;
    tokens.shutdown().await;
    drop(tokens);
    opened().refresh().await.expect("what is kept lives");
    let counts = oidc.counts().await;
    assert_eq!(counts.granted, granted + 1, "{counts:#?}");
    assert_unharmed(&counts);
}

/// In a round an exchange begins, all callers take their seats, and at some instant all are gone. Rounds
/// in which one of them got a token meanwhile are played too, but not counted. How many exchanges there were.
///
/// They take turns: callers of `refresh` while the token in place is good, then requests that were
/// refused or found no token. So no policy has to be bent: after a refusal there is a pause, but
/// `refresh` does not wait for its end.
async fn cancelled(oidc: &Oidc, tokens: &Tokens, rounds: u64) -> u64 {
    const SEATS: usize = 4;
    let api = Api::of(oidc, tokens);
    assert_eq!(api.clone().call().await, StatusCode::OK);
    oidc.delay(Delay {
        token_before: 3,
        token_after: 3,
        ..Delay::default()
    })
    .await;

    let mut random = fastrand::Rng::with_seed(1);
    let (mut cancelled, mut other) = (0, 0);
    while cancelled < rounds {
        let refused = (cancelled + other) % 2 == 1;
        if refused {
            // Accepted once, so that its refusal is believed.
            assert_eq!(api.clone().call().await, StatusCode::OK);
            oidc.revoke_access().await;
        }
        let (_, before, _) = status(tokens);
        let mut callers = JoinSet::new();
        for _ in 0..SEATS {
            let (tokens, api) = (tokens.clone(), api.clone());
            if refused {
                callers.spawn(async move { _ = api.call().await });
            } else {
                callers.spawn(async move { _ = tokens.refresh().await });
            }
        }
        let mut all_left = true;
        while all_left && tokens.status().waiting < SEATS {
            // On a slow machine the first may have a token before the last sits down.
            all_left = callers.try_join_next().is_none();
            tokio::task::yield_now().await;
        }
        if refused {
            // These find no token at all.
            let (get, api) = (tokens.get(), api.clone());
            callers.spawn(async move { _ = get.await });
            callers.spawn(async move { _ = api.call().await });
        }
        sleep(Duration::from_micros(random.u64(0..5_000))).await;
        callers.abort_all();
        while let Some(ended) = callers.join_next().await {
            all_left &= ended.is_err_and(|error| error.is_cancelled());
        }

        // The exchange goes on without them.
        let left = Instant::now();
        while tokens.status().fetching {
            assert!(left.elapsed() < PATIENCE, "{:#?}", oidc.counts().await);
            sleep(Duration::from_micros(100)).await;
        }
        let (generation, fetches, failures) = status(tokens);
        assert_eq!((generation, failures), (Some(fetches), 0), "{:#?}", oidc.counts().await);
        if all_left {
            cancelled += 1;
            assert_eq!(fetches, before + 1, "{:#?}", oidc.counts().await);
        } else {
            other += 1;
            assert!(other < 4 * rounds, "too slow to cancel: {:#?}", oidc.counts().await);
        }
    }

    tokens.refresh().await.expect("the grant lives");
    assert_eq!(api.call().await, StatusCode::OK);
    let (_, fetches, _) = status(tokens);
    let counts = oidc.counts().await;
    println!("{cancelled} rounds cancelled, {other} not; {counts:?}");
    assert_eq!(
        (counts.token_requests, counts.granted),
        (fetches, fetches),
        "{counts:#?}"
    );
    assert!(fetches > rounds, "{counts:#?}");
    assert_unharmed(&counts);
    fetches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rounds_of_the_once_cell_lose_nothing_here() {
    const ROUNDS: u64 = 50;
    let Some(oidc) = Oidc::start() else { return };
    let url = oidc.token_url();
    let lost = lost_grants(&oidc, ROUNDS, |seed| {
        let grant = RefreshTokenGrant::new(&*url, "rt-client").client_secret("rt-secret");
        let tokens = Tokens::new(grant.refresh_token(seed)).unwrap();
        async move || tokens.get().await.is_ok()
    })
    .await;
    let counts = oidc.counts().await;
    assert_eq!((lost, counts.token_requests), (0, ROUNDS), "{counts:#?}");
    assert_unharmed(&counts);
}

// ---- in real time ---------------------------------------------------------------------------------

// This server promises up to a second too much: a token's end is `floor(now) + ttl`, `expires_in` is the
// ttl. So a token must not go out in what we believe to be its last second. A quarter of a life is
// the longest mandatory window there is, hence lives of four seconds.
const LIFE: u64 = 4;

fn wary() -> RefreshPolicy {
    RefreshPolicy::default().require_before(Duration::from_secs(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_callers_never_send_an_expired_token() {
    let Some(oidc) = Oidc::start() else { return };
    oidc.access_ttl(LIFE).await;
    let tokens = Tokens::builder(grant(&oidc).await).policy(wary()).build().unwrap();
    let callers = Callers::start(4, &Api::of(&oidc, &tokens));
    oidc.until(|counts| counts.granted == 4).await;
    let (calls, others) = callers.stop().await;

    let counts = oidc.counts().await;
    assert!(others.is_empty(), "{others:?} {counts:#?}");
    assert_eq!((counts.resource.ok, counts.resource.refused), (calls, 0), "{counts:#?}");
    assert_unharmed(&counts);
}

/// Nobody called while it was stale, so nothing was fetched, and now it is dead a second too early.
#[tokio::test]
async fn a_caller_that_was_idle_does_not_send_an_expired_token() {
    let Some(oidc) = Oidc::start() else { return };
    oidc.access_ttl(LIFE).await;
    let tokens = Tokens::builder(grant(&oidc).await).policy(wary()).build().unwrap();
    let api = Api::of(&oidc, &tokens);
    // Issued late in a second of the server's clock: it dies 3.1 to 3.2 seconds from then.
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_millis();
    sleep(Duration::from_millis((1_850 - u64::from(second)) % 1_000)).await;
    tokens.refresh().await.unwrap();
    sleep(Duration::from_millis(3_400)).await;
    assert_eq!(api.call().await, StatusCode::OK);

    let counts = oidc.counts().await;
    assert_eq!((counts.token_requests, counts.granted), (2, 2), "{counts:#?}");
    assert_eq!((counts.resource.ok, counts.resource.refused), (1, 0), "{counts:#?}");
    assert_unharmed(&counts);
}

// ---- what the tests are made of -------------------------------------------------------------------

async fn grant(oidc: &Oidc) -> RefreshTokenGrant {
    RefreshTokenGrant::new(oidc.token_url(), "rt-client")
        .client_secret("rt-secret")
        .refresh_token(oidc.sign_in("rt-client").await)
}

async fn refreshing(oidc: &Oidc) -> Tokens {
    Tokens::new(grant(oidc).await).unwrap()
}

/// Generation, fetches, failures in a row.
fn status(tokens: &Tokens) -> (Option<u64>, u64, u32) {
    let status = tokens.status();
    (
        status.generation.map(|generation| generation.get()),
        status.fetches,
        status.failures,
    )
}

/// Nothing that may never happen has happened.
#[track_caller]
fn assert_unharmed(counts: &Counts) {
    assert_eq!(
        (counts.presented_twice, counts.invalid_grant, counts.grants_revoked),
        (0, 0, 0),
        "{counts:#?}"
    );
    assert_eq!((counts.max_in_flight, counts.in_flight), (1, 0), "{counts:#?}");
}

/// The resource, as a user calls it: a plain client under the layer.
#[derive(Clone)]
struct Api {
    service: TokenService<Http>,
    url: String,
}

impl Api {
    fn of(oidc: &Oidc, tokens: &Tokens) -> Self {
        let layer = TokenLayer::new(tokens, Origins::only(oidc.url()).unwrap());
        Self {
            service: layer.layer(http()),
            url: oidc.resource_url(),
        }
    }

    async fn call(self) -> StatusCode {
        let request = Request::get(self.url).body(Full::<Bytes>::default()).unwrap();
        let response = self.service.oneshot(request).await.expect("an answer");
        let status = response.status();
        // Read, so that the connection is used again.
        response.into_body().collect().await.expect("a whole answer");
        status
    }
}

/// They call, each as soon as its last call is over, until they are stopped.
struct Callers {
    tasks: JoinSet<Vec<StatusCode>>,
    calls: Arc<[AtomicU64]>,
    stop: Arc<AtomicBool>,
}

impl Callers {
    fn start(count: u64, api: &Api) -> Self {
        let calls: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for index in 0..calls.len() {
            let (api, calls, stop) = (api.clone(), calls.clone(), stop.clone());
            tasks.spawn(async move {
                let mut others = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let status = api.clone().call().await;
                    if status != StatusCode::OK {
                        others.push(status);
                    }
                    calls[index].fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(1)).await;
                }
                others
            });
        }
        Self { tasks, calls, stop }
    }

    /// Waits until each has ended a call that it began after this was called, and so has nothing in
    /// the air from before.
    async fn go_on(&self) {
        let before: Vec<u64> = self.calls.iter().map(|calls| calls.load(Ordering::Relaxed)).collect();
        let gone_on = async {
            for (calls, before) in self.calls.iter().zip(before) {
                while calls.load(Ordering::Relaxed) < before + 2 {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        };
        timeout(PATIENCE, gone_on).await.expect("a caller hangs");
    }

    /// How many calls there were, and every status that was not 200.
    async fn stop(self) -> (u64, Vec<StatusCode>) {
        self.stop.store(true, Ordering::Relaxed);
        let others = self.tasks.join_all().await.concat();
        (
            self.calls.iter().map(|calls| calls.load(Ordering::Relaxed)).sum(),
            others,
        )
    }
}
