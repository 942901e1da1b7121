//! Storms: routes that refuse, verdicts that are not heard, lives that are short (T37 to T43). Outages have a
//! file of their own.

mod outages;

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{ServiceExt, service_fn};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::*;

use crate::flows::*;

/// An issuer of long-lived tokens, its API, and when it is asked.
fn noted() -> (Issuer, Api, Arrivals, Tokens) {
    let issuer = Issuer::new();
    issuer.lifetime(24 * HOUR);
    let arrivals = Arrivals::default();
    let tokens = tokens(refresh_grant(&issuer).client(arrivals.at(&issuer)));
    (issuer.clone(), Api::new(&issuer), arrivals, tokens)
}

/// A wrong audience made every request fetch a token: bucketeer-io/bucketeer#2455, kubernetes/kubectl#1492.
#[tokio::test(start_paused = true)]
async fn t37_a_server_that_refuses_every_token_costs_one_fetch_a_minute() {
    let (_, api, arrivals, tokens) = noted();
    let samples = traffic(&client(&tokens, &api), "/liar", 50 * MILLISECOND, 10 * MINUTE).await;
    let requests = samples.len() as u64;
    for sample in samples {
        let response = sample.outcome.unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.headers()[WWW_AUTHENTICATE].as_bytes().starts_with(b"Bearer"));
        assert_eq!(response.into_body().bytes().await.unwrap(), "refused\n");
    }
    // The second token is refused as well: from there on, one a minute.
    let gaps = arrivals.gaps();
    assert_eq!(gaps[0], Duration::ZERO);
    assert!(gaps[1..].iter().all(|gap| *gap >= MINUTE), "{gaps:?}");
    assert_eq!(arrivals.count(), 1 + 10);
    assert_eq!(api.counts().max_deliveries, 2);
    assert!(api.counts().requests <= requests + 10, "{:?}", api.counts());
}

/// The same, and somebody who corrected the audience did not want to wait for the minute to end.
#[tokio::test(start_paused = true)]
async fn t37_an_explicit_refresh_passes_the_breaker_and_leaves_it_as_it_is() {
    let (_, api, arrivals, tokens) = noted();
    let client = client(&tokens, &api);
    traffic(&client, "/liar", SECOND, 10 * SECOND).await;
    assert_eq!(arrivals.count(), 2);
    let began = Instant::now();
    tokens.refresh().await.unwrap();
    assert_eq!((arrivals.count(), began.elapsed()), (3, Duration::ZERO));
    let refused = traffic(&client, "/liar", SECOND, 45 * SECOND).await;
    assert_eq!((arrivals.count(), answered(&refused, 401)), (3, 45));
    assert_eq!(status(&call(&client, "/api").await), Some(200));
}

/// A dead refresh token was presented 660,000 times in two hours: concourse/concourse#3586.
#[tokio::test(start_paused = true)]
async fn t38_a_dead_refresh_token_is_probed_after_ten_minutes_and_doubly_late_up_to_an_hour() {
    let (issuer, api, arrivals, tokens) = noted();
    issuer.lifetime(MINUTE);
    let client = client(&tokens, &api);
    for round in 0..2 {
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        issuer.revoke_all();
        sleep(MINUTE).await;
        let (asked, sent) = (arrivals.count(), api.counts().requests);
        let samples = traffic(&client, "/api", 2 * SECOND, 5 * HOUR).await;
        for sample in &samples {
            assert!(ours(&sample.outcome).is_reauth_required());
            assert_eq!(sample.took, Duration::ZERO);
        }
        // Each probe waits for a request, and they come every other second.
        let waits: Vec<_> = arrivals.gaps()[asked..].iter().map(Duration::as_secs).collect();
        assert_eq!(waits, [10, 20, 40, 60, 60, 60].map(|minutes| 60 * minutes), "{round}");
        assert_eq!(api.counts().requests, sent, "nothing goes out without a token");
        let before = (arrivals.count(), Instant::now());
        tokens.install(json!({ "refresh_token": issuer.sign_in() })).unwrap();
        assert_eq!(status(&call(&client, "/api").await), Some(200), "at once");
        assert_eq!((arrivals.count(), Instant::now()), (before.0 + 1, before.1));
    }
}

/// A client that the issuer did not know asked for hours: oidc-client#1265.
#[tokio::test(start_paused = true)]
async fn t38_every_verdict_is_remembered() {
    for code in [
        "invalid_grant",
        "invalid_client",
        "invalid_scope",
        "interaction_required",
    ] {
        let (issuer, api, arrivals, tokens) = noted();
        issuer.fault_always(Some(Fault::oauth_error(400, code)));
        let client = client(&tokens, &api);
        let samples = traffic(&client, "/api", SECOND, 10 * MINUTE).await;
        assert!(samples.iter().all(|sample| !ours(&sample.outcome).is_transient()));
        assert_eq!(arrivals.count(), 1, "{code}: within ten minutes");
        sleep(SECOND).await;
        assert!(call(&client, "/api").await.is_err());
        assert_eq!(arrivals.count(), 2, "{code}: then one probe");
    }
}

/// Throttles the first token request with these headers; until `wait` is over nobody asks again.
async fn is_obeyed(code: u16, headers: &'static [(&'static str, &'static str)], clock: Clock, wait: Duration) {
    let issuer = Issuer::new();
    issuer.fault(Fault::Status(code));
    let arrivals = Arrivals::default();
    let noted = arrivals.clone();
    let throttling = issuer
        .service()
        .map_request(move |request: Request<Full<Bytes>>| {
            noted.note();
            request
        })
        .map_response(move |mut response| {
            for (name, value) in headers {
                let name = HeaderName::from_static(name);
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        });
    let grant = refresh_grant(&issuer).client(throttling);
    let client = client(&builder(grant).clock(clock).build().unwrap(), &Api::new(&issuer));
    let began = Instant::now();
    for percent in 0..100 {
        sleep_until(began + wait * percent / 100).await;
        let error = ours(&call(&client, "/api").await);
        assert!(error.is_throttled() && error.is_transient(), "{headers:?}: {error}");
        let told = error.retry_after().unwrap();
        let left = wait - began.elapsed();
        assert!(
            told.abs_diff(left) <= MILLISECOND,
            "{headers:?}: {told:?}, not {left:?}"
        );
    }
    assert_eq!(arrivals.count(), 1, "{headers:?}");
    sleep_until(began + wait).await;
    assert_eq!(status(&call(&client, "/api").await), Some(200), "{headers:?}");
    assert_eq!(arrivals.count(), 2, "{headers:?}");
}

/// A 429 was answered with retries that made 40 requests of 9: LangAlpha#379, LangAlpha#387.
#[tokio::test(start_paused = true)]
async fn t39_retry_after_is_obeyed_as_seconds_and_as_a_date_for_an_hour_at_most() {
    // The issuer's own clock, where it tells it: ours is decades ahead.
    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    for code in [429, 503] {
        for (headers, seconds) in [
            (&[("retry-after", "7")][..], 7),
            (&[("retry-after", "86400")], 3600),
            (&[("retry-after", "99999999999999999999999")], 3600),
            (&[DATE, ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], 30),
            (&[DATE, ("retry-after", "Sunday, 06-Nov-94 08:50:07 GMT")], 30),
            (&[DATE, ("retry-after", "Mon, 07 Nov 1994 08:49:37 GMT")], 3600),
        ] {
            is_obeyed(code, headers, Clock::of_tokio(), seconds * SECOND).await;
        }
        // Without it, ours.
        let clock = Clock::of_tokio();
        let age = |clock: &Clock| clock.now().duration_since(UNIX_EPOCH).unwrap();
        clock.step(784_111_777 - i64::try_from(age(&clock).as_secs()).unwrap());
        let wait = Duration::from_secs(784_111_807) - age(&clock);
        assert!(wait <= 30 * SECOND && wait > 29 * SECOND);
        is_obeyed(code, &[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], clock, wait).await;
    }
}

/// The backoff was computed, and not waited for: hashicorp/vault#26844.
#[tokio::test(start_paused = true)]
async fn t40_the_gaps_between_attempts_are_those_of_the_table() {
    let (issuer, api, arrivals, tokens) = noted();
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    issuer.fault_always(Some(Fault::Status(503)));
    // The token is stale for an hour less a minute, so that attempts are nobody's need but the schedule's.
    sleep(23 * HOUR + SECOND).await;
    let between_calls = 200 * MILLISECOND;
    let samples = traffic(&client, "/api", between_calls, 58 * MINUTE).await;
    assert_eq!(answered(&samples, 200), samples.len());
    let gaps = &arrivals.gaps()[1..];
    let doubled = [1, 2, 4, 8, 16, 60, 64].into_iter().chain(std::iter::repeat(120));
    for (nth, (gap, least)) in gaps.iter().zip(doubled).enumerate() {
        let least = SECOND * least;
        assert!(*gap >= least, "{nth}: {gaps:?}");
        assert!(*gap <= least.mul_f64(1.2) + between_calls, "{nth}: {gaps:?}");
    }
    let last = &gaps[7..];
    let (shortest, longest) = (last.iter().min().unwrap(), last.iter().max().unwrap());
    assert!(
        last.len() >= 20 && *longest - *shortest > 2 * SECOND,
        "jitter: {last:?}"
    );
}

/// After 58 failures the doubled delay overflowed: the AWS SDK for Java.
#[tokio::test(start_paused = true)]
async fn t41_ten_thousand_failures_stay_within_the_longest_backoff() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR).fault_always(Some(Fault::Status(503)));
    let arrivals = Arrivals::default();
    // Kept alive, so that each attempt begins when it is due, and not when somebody asks.
    let tokens = builder(refresh_grant(&issuer).client(arrivals.at(&issuer)))
        .policy(policy().keep_alive(true))
        .build()
        .unwrap();
    while arrivals.count() < 10_000 {
        sleep(HOUR).await;
    }
    for (nth, gap) in arrivals.gaps().iter().enumerate().skip(5) {
        let least = if nth < 7 { MINUTE } else { 2 * MINUTE };
        assert!(*gap >= least && *gap <= 145 * SECOND, "{nth}: {gap:?}");
    }
    assert!(tokens.status().failures >= 9_999);
    issuer.fault_always(None);
    sleep(145 * SECOND).await;
    assert_eq!((issuer.counts().granted, tokens.status().failures), (1, 0));
}

/// Lives shorter than the refresh window were renewed by every request: openai/openai-node#2490,
/// koala73/worldmonitor#5932.
#[tokio::test(start_paused = true)]
async fn t42_half_of_every_life_is_used_however_short_it_is() {
    let as_it_is = RefreshPolicy::default;
    let wide = || RefreshPolicy::default().refresh_before(HOUR).require_before(HOUR);
    for life in [SECOND, 10 * SECOND, MINUTE, 5 * MINUTE] {
        for policy in [as_it_is(), wide(), wide().jitter(0.5)] {
            let issuer = Issuer::new();
            issuer.lifetime(life).latency(life / 50);
            let api = Api::new(&issuer);
            let tokens = builder(refresh_grant(&issuer)).policy(policy).build().unwrap();
            let samples = traffic(&client(&tokens, &api), "/api", life / 50, 30 * life).await;
            assert_eq!(answered(&samples, 200), samples.len(), "{life:?}");
            assert_eq!(api.counts().expired_seen, 0, "{life:?}");
            let minted: Vec<_> = issuer.timeline().iter().map(|issued| issued.at).collect();
            let used: Vec<_> = minted.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(used.iter().all(|used| *used >= life / 2), "{life:?}: {used:?}");
            assert!(issuer.counts().token_requests <= 1 + 2 * 30, "{:?}", issuer.counts());
        }
    }
}

/// A client of an issuer that hands its token out again, until less than a second of its `life` is left.
fn metadata_server(issuer: &Issuer, arrivals: &Arrivals, life: Duration) -> TokenClient {
    let (issuer, arrivals) = (issuer.clone(), arrivals.clone());
    let kept = Arc::new(Mutex::new(None::<(Instant, Value)>));
    TokenClient::new(service_fn(move |request: Request<Full<Bytes>>| {
        arrivals.note();
        let (issuer, kept) = (issuer.clone(), kept.clone());
        async move {
            let held = kept.lock().unwrap().clone();
            let (since, mut answer) = match held.filter(|(since, _)| since.elapsed() + SECOND < life) {
                Some(held) => held,
                None => {
                    let answer = issuer.service().oneshot(request).await?.into_body().bytes().await?;
                    let minted = (Instant::now(), serde_json::from_slice(&answer)?);
                    kept.lock().unwrap().insert(minted).clone()
                }
            };
            answer["expires_in"] = (life - since.elapsed()).as_secs().into();
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::from(answer.to_string())))
        }
    }))
}

/// The metadata server handed out its cached token until its end, and was asked in a loop:
/// googleapis/google-auth-library-java#749, GoogleCloudPlatform/esp-v2#137, apache/arrow-rs#6638.
#[tokio::test(start_paused = true)]
async fn t43_a_token_that_comes_again_is_not_asked_for_in_a_loop_and_served_until_its_end() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let api = Api::new(&issuer);
    let arrivals = Arrivals::default();
    let grant = client_credentials(&issuer).client(metadata_server(&issuer, &arrivals, HOUR));
    let client = client(&tokens(grant), &api);
    let samples = traffic(&client, "/api", 500 * MILLISECOND, 2 * HOUR).await;
    assert_eq!(answered(&samples, 200), samples.len());
    assert_eq!((api.counts().refused, api.counts().expired_seen), (0, 0));
    assert!(samples.iter().all(|sample| sample.took <= SECOND));
    assert!(
        issuer.counts().granted <= 3,
        "each was used to its end: {:?}",
        issuer.counts()
    );
    let gaps = arrivals.gaps();
    println!("the same token again: {gaps:?}");
    assert!(gaps.len() <= 3 * 12, "{gaps:?}");
    // Of what was left of its life, half is used before it is asked for again.
    let minted: Vec<_> = issuer.timeline().iter().map(|issued| issued.at).collect();
    let mut asked_at = Duration::ZERO;
    for gap in &gaps {
        let in_place = minted.iter().rfind(|minted| **minted <= asked_at).unwrap();
        let left = (HOUR + *in_place - asked_at).as_secs();
        assert!(*gap >= SECOND * left as u32 / 2, "{gap:?}, of {left} s");
        asked_at += *gap;
    }
}

/// The same with a token that is dead: what is cached is handed out again, refused again, and so on.
#[tokio::test(start_paused = true)]
async fn t43_a_refused_token_that_comes_again_is_asked_for_once_a_minute() {
    let issuer = Issuer::new();
    issuer.lifetime(24 * HOUR);
    let api = Api::new(&issuer);
    let arrivals = Arrivals::default();
    let grant = client_credentials(&issuer).client(metadata_server(&issuer, &arrivals, 24 * HOUR));
    let client = client(&tokens(grant), &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    issuer.revoke_access();
    let samples = traffic(&client, "/api", 50 * MILLISECOND, 10 * MINUTE).await;
    assert_eq!(answered(&samples, 401), samples.len(), "the server's own answers");
    let gaps = arrivals.gaps();
    assert!(arrivals.count() <= 1 + 1 + 10, "{gaps:?}");
    assert_eq!(api.counts().max_deliveries, 2);
}
