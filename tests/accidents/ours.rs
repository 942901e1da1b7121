//! Accidents that happened to this crate before it was released.

use std::time::Duration;

use crate::flows::*;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};
use tower_token::testkit::{Api, Body, Fault, Issuer};
use tower_token::*;

/// Every call asked again.
#[tokio::test(start_paused = true)]
async fn retry_after_zero_is_no_storm() {
    for code in [429, 503] {
        let issuer = Issuer::new();
        issuer.fault_always(Some(Fault::RetryAfter {
            status: code,
            seconds: 0,
        }));
        let api = Api::new(&issuer);
        let client = client(&tokens(refresh_grant(&issuer)), &api);
        traffic(&client, "/api", 10 * MILLISECOND, MINUTE).await;
        assert!(issuer.counts().token_requests <= 60, "{:?}", issuer.counts());
    }
}

/// Every call with a stale token asked again.
#[tokio::test(start_paused = true)]
async fn retry_after_zero_is_no_storm_in_the_background() {
    let issuer = Issuer::new();
    issuer.lifetime(10 * MINUTE);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    call(&client, "/api").await.unwrap();
    issuer.fault_always(Some(Fault::RetryAfter {
        status: 429,
        seconds: 0,
    }));
    sleep(6 * MINUTE).await;
    traffic(&client, "/api", 10 * MILLISECOND, MINUTE).await;
    assert!(issuer.counts().token_requests <= 60, "{:?}", issuer.counts());
}

/// Every path of a resource refuses (`/items/1`, `/items/2`, ...), while /api accepts.
#[tokio::test(start_paused = true)]
async fn many_routes_that_refuse_are_no_storm() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(60 * MINUTE);
    let api = Api::new(&issuer);
    api.latency(10 * MILLISECOND);
    let tokens = tokens(refresh_grant(&issuer));
    let inner = {
        let api = api.clone();
        service_fn(move |mut request: Request<String>| {
            if request.uri().path().starts_with("/items") {
                *request.uri_mut() = "https://api.example.com/liar".parse().unwrap();
            }
            api.service().oneshot(request)
        })
    };
    let client = TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(inner);
    let ask = |path: String| client.clone().oneshot(get(&path, &path));
    ask("/api".into()).await.unwrap();
    let began = Instant::now();
    let mut good = tokio::task::JoinSet::new();
    let mut n = 0;
    while began.elapsed() < 10 * MINUTE {
        sleep(50 * MILLISECOND).await;
        n += 1;
        let liar = client.clone().oneshot(get(&format!("/items/{n}"), n));
        tokio::spawn(liar);
        let call = client.clone().oneshot(get("/api", format!("good {n}")));
        good.spawn(async move {
            let sent = Instant::now();
            let outcome: Result<Response<Body>, BoxError> = call.await;
            (sent.elapsed(), outcome.is_ok_and(|response| response.status() == 200))
        });
    }
    let done = good.join_all().await;
    assert!(done.iter().all(|(_, answered)| *answered));
    let waited = done.iter().filter(|(took, _)| *took > 10 * MILLISECOND).count();
    let longest = done.iter().map(|(took, _)| *took).max();
    println!(
        "many routes: {} exchanges, {waited} of {} waited, {longest:?} at most",
        issuer.counts().token_requests,
        done.len()
    );
    // One cold, five strikes, then one a minute.
    assert!(issuer.counts().token_requests <= 1 + 5 + 10, "{:?}", issuer.counts());
}

/// Requests that are not kept have no route for the breaker to hold.
#[tokio::test(start_paused = true)]
async fn unkept_requests_to_a_route_that_refuses_are_no_storm() {
    let issuer = Issuer::new();
    issuer.latency(200 * MILLISECOND).lifetime(60 * MINUTE);
    let api = Api::new(&issuer);
    api.latency(10 * MILLISECOND);
    let tokens = tokens(refresh_grant(&issuer));
    let never = TokenLayer::new(&tokens, Origins::only(API).unwrap())
        .replay(Never)
        .layer(api.service());
    let kept = client(&tokens, &api);
    call(&kept, "/api").await.unwrap();
    let refused = async {
        let began = Instant::now();
        while began.elapsed() < 10 * MINUTE {
            sleep(50 * MILLISECOND).await;
            tokio::spawn(never.clone().oneshot(get("/liar", 1)));
        }
    };
    let (good, ()) = tokio::join!(traffic(&kept, "/api", 50 * MILLISECOND, 10 * MINUTE), refused);
    assert!(good.iter().all(|sample| status(&sample.outcome) == Some(200)));
    let waited = good.iter().filter(|sample| sample.took > 10 * MILLISECOND).count();
    let longest = good.iter().map(|sample| sample.took).max();
    println!(
        "unkept: {} exchanges, {waited} of {} waited, {longest:?} at most",
        issuer.counts().token_requests,
        good.len()
    );
    // One cold, five strikes, then one a minute.
    assert!(issuer.counts().token_requests <= 1 + 5 + 10, "{:?}", issuer.counts());
}

/// An answer that took longer than the life of its access token still holds a refresh token.
#[tokio::test(start_paused = true)]
async fn a_token_dead_on_arrival_does_not_take_its_refresh_token_with_it() {
    let issuer = Issuer::new();
    issuer.lifetime(5 * SECOND);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    call(&client, "/api").await.unwrap();
    sleep(10 * SECOND).await;
    issuer.fault(Fault::DelayAfter(6 * SECOND));
    assert!(ours(&call(&client, "/api").await).is_transient());
    sleep(10 * SECOND).await;
    let outcome = call(&client, "/api").await;
    assert_eq!(issuer.counts().reuse, 0, "the spent one was presented again");
    assert_eq!(status(&outcome), Some(200));
}

/// The machine sleeps while the answer is on its way.
#[tokio::test(start_paused = true)]
async fn a_suspend_during_the_exchange_loses_no_refresh_token() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let clock = Clock::of_tokio();
    let tokens = builder(refresh_grant(&issuer)).clock(clock.clone()).build().unwrap();
    let client = client(&tokens, &api);
    issuer.fault(Fault::DelayAfter(SECOND));
    let _first = tokio::spawn(client.clone().oneshot(get("/api", 1)));
    settle().await;
    clock.step(3600);
    sleep(10 * SECOND).await;
    let outcome = call(&client, "/api").await;
    assert_eq!(issuer.counts().reuse, 0);
    assert_eq!(status(&outcome), Some(200));
}

/// A runtime that ends with the exchange in the air.
#[test]
fn never_replay_holds_after_a_runtime_ended_mid_exchange() {
    let issuer_runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = issuer_runtime();
    let (issuer, tokens) = {
        let _in = first.enter();
        let issuer = Issuer::new();
        let grant = refresh_grant(&issuer).if_lost(IfLost::NeverReplay);
        let tokens = Tokens::builder(grant)
            .policy(policy().min_interval(Duration::ZERO))
            .build()
            .unwrap();
        (issuer, tokens)
    };
    issuer.fault(Fault::DelayAfter(Duration::from_secs(3600)));
    first.block_on(async {
        let get = tokio::spawn(tokens.get());
        while issuer.counts().granted == 0 {
            tokio::task::yield_now().await;
        }
        get.abort();
    });
    drop(first);
    let error = issuer_runtime().block_on(tokens.get()).unwrap_err();
    assert!(error.is_reauth_required(), "{error}");
    assert_eq!(issuer.counts().presented_twice, 0);
}

/// In place of a credential in a shape that the grant does not know, the spent seed was presented.
#[tokio::test(start_paused = true)]
async fn a_credential_without_a_refresh_token_does_not_bring_the_spent_seed_back() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    call(&client, "/api").await.unwrap();
    // Refused, and the grant that works is left alone.
    let refused = tokens.install(json!({ "refreshToken": issuer.sign_in() }));
    assert!(refused.unwrap_err().is_config());
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    assert_eq!(issuer.counts().presented_twice, 0);
}

/// It overflowed an instant within a drop.
#[tokio::test(start_paused = true)]
async fn an_endless_min_interval_does_not_abort_the_process() {
    let tokens = Tokens::builder(provider_fn(|_| async { panic!("the provider's own") }))
        .clock(Clock::of_tokio())
        .policy(policy().min_interval(Duration::MAX))
        .build()
        .unwrap();
    assert!(tokens.get().await.is_err());
}

/// The Basic pair is form-encoded first, and its base64 was looked for without that.
#[tokio::test(start_paused = true)]
async fn an_error_that_quotes_the_basic_header_is_not_shown() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let echo = service_fn(|request: Request<Full<Bytes>>| async move {
        let header = request.headers()["authorization"].to_str().unwrap().to_owned();
        Err::<Response<Full<Bytes>>, BoxError>(format!("proxy refused {header}").into())
    });
    for id in ["my-app", "cc:odd id", "https://my.app/x"] {
        let grant = oauth2::ClientCredentialsGrant::new(TOKEN_URL, id)
            .client_secret("test-canary-s3cr3t")
            .client(TokenClient::new(echo));
        let error = ours(&call(&client(&tokens(grant), &api), "/api").await).to_string();
        assert!(!error.contains("Basic"), "{id}: {error}");
    }
}

/// An access token in the issuer's `error` code.
#[tokio::test(start_paused = true)]
async fn an_error_code_that_is_an_access_token_is_not_shown() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = client(&tokens, &api);
    call(&client, "/api").await.unwrap();
    let access = tokens.get().await.unwrap().secret().to_owned();
    sleep(MINUTE).await;
    issuer.fault_always(Some(Fault::oauth_error(400, &access)));
    let error = ours(&call(&client, "/api").await).to_string();
    assert!(!error.contains(&access), "{error}");
}

/// `any_https` with the default port written once and left out once.
#[tokio::test(start_paused = true)]
async fn any_https_knows_that_443_is_the_default_port() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let tokens = tokens(refresh_grant(&issuer));
    let client = TokenLayer::new(&tokens, Origins::any_https()).layer(api.service());
    for (uri, host) in [
        ("https://api.example.com:443/api", "api.example.com"),
        ("https://api.example.com/api", "api.example.com:443"),
    ] {
        let request = Request::get(uri).header("host", host).body(String::new()).unwrap();
        client.clone().oneshot(request).await.unwrap();
    }
    assert_eq!((api.counts().authorized, api.counts().without_token), (2, 0));
}

/// After a 503 to the second presentation the third was due after a second.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_followed_by_a_503_is_still_ambiguous() {
    let issuer = Issuer::new();
    issuer.grace(5 * MINUTE);
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    for _ in 0..4 {
        issuer.fault(Fault::DropAfter).fault(Fault::Status(503));
    }
    traffic(&client, "/api", SECOND, MINUTE - SECOND).await;
    assert_eq!(
        issuer.counts().token_requests,
        2,
        "two presentations, then one a minute"
    );
}

/// A server that puts the token where its error code belongs.
#[tokio::test(start_paused = true)]
async fn a_challenge_whose_error_is_the_token_does_not_print_it() {
    for challenge in [
        "Bearer error=\"test-canary-access-c0ffee\"",
        "Bearer error=test-canary-access-c0ffee",
    ] {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let noted = seen.clone();
        let tokens = tokens(provider_fn(move |context| {
            noted.lock().unwrap().push_str(&format!("{context:?}"));
            async { Ok(Token::bearer("test-canary-access-c0ffee")) }
        }));
        let inner = service_fn(move |_: Request<String>| {
            let response = Response::builder().status(401).header("www-authenticate", challenge);
            std::future::ready(response.body(String::new()))
        });
        let client = TokenLayer::new(&tokens, Origins::only(API).unwrap()).layer(inner);
        let _ = client.oneshot(get("/api", 1)).await.unwrap();
        let seen = seen.lock().unwrap();
        assert!(!seen.contains("canary"), "{seen}");
    }
}
