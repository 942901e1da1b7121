//! Concurrency: herds, late refusals, and who wakes when (T01 to T10).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crate::flows::*;
use http::{HeaderValue, Request, request};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_test::task::spawn;
use tokio_test::{assert_pending, assert_ready};
use tower::limit::ConcurrencyLimitLayer;
use tower::timeout::{Timeout, error::Elapsed};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::{Error, Inject, Origins, Token, TokenLayer, Tokens};

/// 100 requests at expiry were 100 token calls, and the issuer's firewall blocked the client
/// (spring-projects/spring-security#17167).
#[tokio::test(start_paused = true)]
async fn t01_a_hundred_requests_at_expiry_are_one_token_call_a_hundred_times_over() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    for round in 1..=100 {
        let mut callers = JoinSet::new();
        for caller in 0..100_u32 {
            let client = client.clone();
            // All at the same moment, or one after the other for as long as the token call takes.
            let late = MILLISECOND * (round as u32 % 3) * caller;
            callers.spawn(async move {
                sleep(late).await;
                call(&client, "/api").await
            });
        }
        assert!(all_ok(&callers.join_all().await), "round {round}");
        assert_eq!(issuer.counts().token_requests, round);
        assert_eq!(api.counts().authorized, 100 * round);
        sleep(MINUTE).await;
    }
    let counts = api.counts();
    assert_eq!(
        (counts.without_token, counts.expired_seen, counts.stale_seen),
        (0, 0, 0),
        "all of them carry the new token"
    );
    assert_eq!((counts.refused, issuer.counts().max_in_flight), (0, 1));
}

/// A waiter woke before the new token was stored, and used none, or the old one
/// (googleapis/google-auth-library-java#692).
#[tokio::test(start_paused = true)]
async fn t02_whoever_is_woken_finds_the_new_token_in_place() {
    /// Looks at the very moment at which it is woken, before any waiter runs.
    struct Looks {
        tokens: Tokens,
        seen: Mutex<Vec<String>>,
    }
    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let token = self.tokens.current();
            let seen = token.map_or("none".into(), |token| token.secret().to_owned());
            self.seen.lock().unwrap().push(seen);
        }
    }
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND);
    let tokens = tokens(refresh_grant(&issuer));
    // Without a token, expired, and refused.
    for round in 1..=3 {
        let looks = Arc::new(Looks {
            tokens: tokens.clone(),
            seen: Mutex::default(),
        });
        let waker = Waker::from(looks.clone());
        let mut waiters: Vec<_> = (0..100).map(|_| Box::pin(tokens.get())).collect();
        for waiter in &mut waiters {
            assert_pending!(waiter.as_mut().poll(&mut Context::from_waker(&waker)));
        }
        sleep(SECOND).await;
        let newest = tokens.current().unwrap();
        let seen = std::mem::take(&mut *looks.seen.lock().unwrap());
        assert_eq!(seen, vec![newest.secret(); 100], "round {round}");
        assert_eq!(issuer.counts().granted, round);
        match round {
            1 => sleep(MINUTE).await,
            _ => tokens.invalidate(&newest),
        }
    }
}

/// Half of a credential was of the old one and half of the new one, where it was swapped between two
/// reads (boto/botocore#1065).
#[tokio::test(start_paused = true)]
async fn t03_a_swap_while_a_header_is_built_mixes_no_two_tokens() {
    /// Puts three parts of a token on a request, and has the token replaced after it has read the first.
    struct InParts {
        tokens: Tokens,
        issuer: Issuer,
        swapped: AtomicBool,
    }
    impl Inject for InParts {
        type Ready = [HeaderValue; 3];
        fn ready(&self, token: &Token) -> Result<Self::Ready, Error> {
            let value = |text: String| HeaderValue::try_from(text).unwrap();
            let secret = token.secret().to_owned();
            if !self.swapped.swap(true, Ordering::SeqCst) {
                self.issuer.revoke_access();
                let swap = || runtime().block_on(self.tokens.refresh()).unwrap();
                std::thread::scope(|elsewhere| _ = elsewhere.spawn(swap).join().unwrap());
            }
            let (kind, generation) = (token.kind(), token.generation().unwrap().get());
            Ok([
                value(format!("{kind} {secret}")),
                value(kind.to_owned()),
                value(generation.to_string()),
            ])
        }
        fn put(&self, ready: &Self::Ready, head: &mut request::Parts) {
            for (name, value) in ["authorization", "x-kind", "x-generation"].into_iter().zip(ready) {
                head.headers.insert(name, value.clone());
            }
        }
    }
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let sent: Arc<Mutex<Vec<String>>> = Arc::default();
    let inner = {
        let (api, sent) = (api.clone(), sent.clone());
        service_fn(move |request: Request<String>| {
            let of = |name| request.headers()[name].to_str().unwrap();
            // The issuer numbers its tokens, so the secret says which one it is.
            let secret = of("authorization").rsplit_once('-').unwrap().0;
            let parts = format!("{secret} {} {}", of("x-kind"), of("x-generation"));
            sent.lock().unwrap().push(parts);
            api.service().oneshot(request)
        })
    };
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .inject(InParts {
            tokens: tokens.clone(),
            issuer: issuer.clone(),
            swapped: AtomicBool::default(),
        })
        .layer(inner);
    for id in 1..=2 {
        assert_eq!(status(&client.clone().oneshot(get("/api", id)).await), Some(200));
    }
    let (old, new) = ("Bearer test-access-1 Bearer 1", "Bearer test-access-2 Bearer 2");
    assert_eq!(*sent.lock().unwrap(), [old, new, new]);
    // The refusal named the generation that the header was of: the new one is not renewed for it.
    assert_eq!((issuer.counts().token_requests, api.counts().revoked_seen), (2, 1));
}

/// Late 401s of the old token threw the new one away, so that ten clients were ten refreshes
/// (Azure/azure-sdk-for-cpp#6151).
#[tokio::test(start_paused = true)]
async fn t05_late_401s_of_the_old_token_cost_no_fetch() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let clients: Vec<_> = (0..10).map(|_| client(&tokens, &api)).collect();
    for client in &clients {
        assert_eq!(status(&call(client, "/api").await), Some(200));
    }
    issuer.revoke_access();
    api.latency(10 * SECOND).refusal_spread(5 * SECOND);
    let mut late = JoinSet::new();
    for (id, client) in clients.iter().enumerate() {
        late.spawn(client.clone().oneshot(get("/api", format!("late {id}"))));
    }
    settle().await;
    api.latency(Duration::ZERO).refusal_spread(Duration::ZERO);
    assert_eq!(status(&call(&clients[0], "/api").await), Some(200));
    assert_eq!(
        issuer.counts().token_requests,
        2,
        "the first refusal brings the new token"
    );
    assert!(all_ok(&late.join_all().await));
    assert!((0..10).all(|id| api.deliveries(&format!("late {id}")) == 2));
    assert_eq!(issuer.counts().token_requests, 2);
    assert_eq!(status(&call(&clients[9], "/api").await), Some(200));
    assert_eq!((issuer.counts().token_requests, api.counts().refused), (2, 11));
}

/// Of two parallel 401s only one was sent again (Flyrell/axios-auth-refresh#56).
#[tokio::test(start_paused = true)]
async fn t06_each_of_several_parallel_401s_is_replayed_once() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(HOUR);
    let api = Api::new(&issuer);
    let client = accepted(&issuer, &api).await;
    issuer.revoke_access();
    // The exchange takes from 10 to 210 ms: refused before it, during it, just at its end, and while
    // others are replayed, until 510 ms.
    let after = [10, 10, 100, 100, 210, 210, 211, 400, 509];
    let mut under_way = JoinSet::new();
    for (id, latency) in after.into_iter().enumerate() {
        api.latency(latency * MILLISECOND);
        under_way.spawn(client.clone().oneshot(get("/api", id)));
        settle().await;
    }
    api.latency(300 * MILLISECOND);
    assert!(all_ok(&under_way.join_all().await));
    for (id, latency) in after.into_iter().enumerate() {
        assert_eq!(api.deliveries(&id.to_string()), 2, "refused after {latency} ms");
    }
    assert_eq!((issuer.counts().token_requests, api.authorized_more_than(1)), (2, 0));
}

/// Waiters on a failing issuer took turns, each for a timeout of its own, and piled up
/// (aws/aws-sdk-go#3127).
#[tokio::test(start_paused = true)]
async fn t07_one_failure_answers_all_who_wait_within_one_timeout_and_they_are_not_many() {
    const LIMIT: Duration = Duration::from_secs(5);
    let issuer = Issuer::new();
    issuer.fault_always(Some(Fault::Hang));
    let api = Api::new(&issuer);
    let tokens = builder(client_credentials(&issuer))
        .policy(policy().fetch_timeout(LIMIT).max_waiters(200))
        .build()
        .unwrap();
    let client = client(&tokens, &api);
    let began = Instant::now();
    let herd = at_once(&client, "/api", 1_000).await;
    assert_eq!(tokens.status().waiting, 200, "waiters are bounded");
    let errors: Vec<_> = herd.join_all().await.iter().map(ours).collect();
    assert!(began.elapsed() <= LIMIT, "{:?}", began.elapsed());
    let turned_away = errors.iter().filter(|error| error.is_overloaded()).count();
    assert_eq!((errors.len(), turned_away), (1_000, 800));
    assert_eq!(issuer.counts().token_requests, 1);

    // An outage of ten minutes: one end of waiting for each exchange, whoever waits for it.
    let samples = traffic(&client, "/api", 10 * MILLISECOND, 10 * MINUTE).await;
    let waited = samples.iter().filter(|sample| !sample.took.is_zero());
    // Who comes when a pause of the backoff is almost over waits for its end as well: 1.2 s at most.
    assert!(waited.clone().all(|sample| sample.took <= LIMIT + 1200 * MILLISECOND));
    let mut ends: Vec<_> = waited.map(|sample| sample.sent + sample.took).collect();
    ends.sort();
    ends.dedup();
    let counts = issuer.counts();
    assert_eq!(ends.len() as u64, counts.token_requests - 1);
    assert_eq!((counts.max_in_flight, tokens.status().waiting), (1, 0));
}

/// Waiting for the lock ended after 5 s, and then everybody refreshed alone
/// (aws/aws-sdk-java-v2#5690).
#[tokio::test(start_paused = true)]
async fn t08_an_issuer_that_takes_twenty_seconds_is_asked_once_while_callers_give_up() {
    let issuer = Issuer::new();
    issuer.latency(20 * SECOND).lifetime(HOUR);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let patient = at_once(&client, "/api", 10).await;
    let impatient = Timeout::new(client, 5 * SECOND);
    let mut callers = JoinSet::new();
    for at in 0..200 {
        let call = impatient.clone().oneshot(get("/api", format!("impatient {at}")));
        callers.spawn(async move {
            sleep(at * 100 * MILLISECOND).await;
            let began = Instant::now();
            (at, call.await, began.elapsed())
        });
    }
    for (at, outcome, took) in callers.join_all().await {
        match outcome {
            // Those who came in the last 5 s get the token.
            Ok(response) => assert!(at >= 150 && response.status() == 200, "{at}"),
            Err(error) => assert!(
                at <= 150 && error.is::<Elapsed>() && took == 5 * SECOND,
                "{at}: {error}"
            ),
        }
    }
    assert!(all_ok(&patient.join_all().await));
    let counts = issuer.counts();
    assert_eq!((counts.token_requests, counts.max_in_flight), (1, 1));
}

/// A waiter that was done cleaned up after itself, and with that removed a newer flight, so that two
/// were in the air (Duende.AccessTokenManagement, axios).
#[tokio::test(start_paused = true)]
async fn t09_a_waiter_of_an_old_flight_leaves_a_newer_one_alone() {
    let issuer = Issuer::new();
    issuer.latency(SECOND);
    let tokens = tokens(refresh_grant(&issuer));
    for round in 1..=100 {
        let mut old: Vec<_> = (0..10).map(|_| spawn(tokens.get())).collect();
        old.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
        if round % 2 == 0 {
            issuer.fault(Fault::Status(503));
        }
        sleep(2 * SECOND).await;
        // That one has landed, well or badly, and its waiters do not know it yet.
        let refresh = || {
            let tokens = tokens.clone();
            async move { tokens.refresh().await }
        };
        let mut newer = JoinSet::new();
        newer.spawn(refresh());
        settle().await;
        old.truncate(5);
        old.iter_mut().for_each(|waiter| _ = assert_ready!(waiter.poll()));
        drop(old);
        for _ in 0..10 {
            newer.spawn(refresh());
        }
        settle().await;
        assert_eq!(
            (issuer.counts().token_requests, issuer.counts().in_flight),
            (2 * round, 1)
        );
        assert_eq!(tokens.status().waiting, 11);
        assert!(newer.join_all().await.iter().all(Result::is_ok));
        sleep(MINUTE).await;
    }
    assert_eq!(
        (issuer.counts().token_requests, issuer.counts().max_in_flight),
        (200, 1)
    );
}

/// What had been queued was sent after the wait without another look
/// (urql-graphql/urql#3017, NangoHQ/nango#2494).
#[tokio::test(start_paused = true)]
async fn t10_a_request_that_waited_looks_again_before_it_is_sent() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND);
    let api = Api::new(&issuer);
    api.latency(2 * MINUTE);
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(
            &tokens(refresh_grant(&issuer)),
            Origins::only(API).unwrap(),
        ))
        .layer(ConcurrencyLimitLayer::new(1))
        .service(api.service());
    // Both wait for the first token; the one that is sent first holds the permit beyond its end.
    let both = [1, 2].map(|id| tokio::spawn(client.clone().oneshot(get("/api", id))));
    for one in both {
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((issuer.counts().token_requests, api.counts().requests), (2, 2));
    assert_eq!((api.counts().expired_seen, api.counts().stale_seen), (0, 0));
}

/// The same, where what was waited for is over when it comes: nobody waits again and again.
#[tokio::test(start_paused = true)]
async fn t10_a_token_that_is_over_when_it_lands_is_neither_sent_nor_asked_for_in_a_loop() {
    let issuer = Issuer::new();
    issuer
        .lifetime(5 * SECOND)
        .fault_always(Some(Fault::DelayAfter(6 * SECOND)));
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    let samples = traffic(&client, "/api", 100 * MILLISECOND, MINUTE).await;
    assert!(samples.iter().all(|sample| ours(&sample.outcome).is_transient()));
    assert_eq!(api.counts().requests, 0);
    let counts = issuer.counts();
    assert!(counts.token_requests <= 6, "{counts:?}");
    assert_eq!((counts.max_in_flight, counts.presented_twice), (1, 0));
}
