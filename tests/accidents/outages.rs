//! Outages: issuers that are down, slow or broken for a while (T44 to T48).

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::sleep;
use tower::{ServiceExt, service_fn};
use tower_token::testkit::{Api, Fault, Issuer};
use tower_token::*;

use crate::flows::*;

/// While the issuer was down a gateway went on to send the token that had expired: envoyproxy/envoy#44674.
#[tokio::test(start_paused = true)]
async fn t44_an_expired_token_is_not_sent_while_the_issuer_is_down() {
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let client = client(&tokens(refresh_grant(&issuer)), &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    issuer.fault_always(Some(Fault::Status(503)));
    // The last quarter of a life of a minute is left out, so that none dies on its way.
    let alive = traffic(&client, "/api", 100 * MILLISECOND, 45 * SECOND).await;
    assert_eq!(answered(&alive, 200), alive.len());
    sleep(100 * MILLISECOND).await;
    let sent = api.counts().requests;
    let dead = traffic(&client, "/api", 100 * MILLISECOND, 5 * MINUTE).await;
    assert!(dead.iter().all(|sample| ours(&sample.outcome).is_transient()));
    assert_eq!(api.counts().requests, sent, "with a dead token, or without one");
    issuer.fault_always(None);
    sleep(30 * SECOND).await;
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    assert_eq!(api.counts().expired_seen, 0);
}

/// The same where somebody asked for it: for as long as they said, and no longer (envoyproxy/envoy#44753).
#[tokio::test(start_paused = true)]
async fn t44_static_stability_is_asked_for_and_ends() {
    let issuer = Issuer::new();
    // The API is more lenient than the issuer says.
    issuer.lifetime(HOUR).expires_in(Some(60.into()));
    let api = Api::new(&issuer);
    let tokens = builder(refresh_grant(&issuer))
        .policy(policy().static_stability(10 * MINUTE))
        .build()
        .unwrap();
    let client = client(&tokens, &api);
    assert_eq!(status(&call(&client, "/api").await), Some(200));
    issuer.fault_always(Some(Fault::Status(503)));
    let lenient = traffic(&client, "/api", SECOND, 11 * MINUTE).await;
    assert_eq!(answered(&lenient, 200), lenient.len());
    sleep(SECOND).await;
    let sent = api.counts().requests;
    let over = traffic(&client, "/api", SECOND, 10 * MINUTE).await;
    assert!(over.iter().all(|sample| ours(&sample.outcome).is_transient()));
    assert_eq!(api.counts().requests, sent);
}

/// An early renewal failed, and its error took the place of a token that was good for minutes more:
/// ydb-platform/ydb-rs-sdk#638, serverpod/serverpod#5541.
#[tokio::test(start_paused = true)]
async fn t45_a_failed_early_renewal_fails_no_request_and_a_later_one_clears_it() {
    for fault in [
        Fault::Status(503),
        Fault::Status(500),
        Fault::DropBefore,
        Fault::oauth_error(400, "invalid_grant"),
        Fault::oauth_error(401, "invalid_client"),
    ] {
        let issuer = Issuer::new();
        issuer.lifetime(HOUR);
        let api = Api::new(&issuer);
        let tokens = tokens(refresh_grant(&issuer));
        let client = client(&tokens, &api);
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        sleep(44 * MINUTE).await;
        issuer.fault_always(Some(fault.clone()));
        let during = traffic(&client, "/api", SECOND, 5 * MINUTE).await;
        assert_eq!(answered(&during, 200), during.len(), "{fault:?}");
        assert!(during.iter().all(|sample| sample.took.is_zero()), "{fault:?}");
        assert!(
            issuer.counts().faulted >= 1 && tokens.status().failures >= 1,
            "{fault:?}"
        );
        issuer.fault_always(None);
        // A verdict is probed ten minutes later.
        let after = traffic(&client, "/api", SECOND, HOUR).await;
        assert_eq!(answered(&after, 200), after.len(), "{fault:?}");
        assert_eq!(
            (tokens.status().failures, tokens.status().last_error.is_none()),
            (0, true)
        );
        assert_eq!((api.counts().expired_seen, issuer.counts().presented_twice), (0, 0));
    }
}

/// A fleet that had been deployed at once renewed at once, for ever: mozilla/fxa-oauth-server#370.
#[tokio::test(start_paused = true)]
async fn t46_a_thousand_equal_tokens_are_renewed_throughout_the_jitter_window() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let member = || {
        // Kept alive, so that each renewal begins when it is due, and not when somebody asks.
        let policy = RefreshPolicy::default().keep_alive(true);
        builder(client_credentials(&issuer)).policy(policy).build().unwrap()
    };
    let fleet: Vec<_> = (0..1_000).map(|_| member()).collect();
    sleep(46 * MINUTE).await;
    let renewed: Vec<_> = issuer.timeline()[1_000..].iter().map(|issued| issued.at).collect();
    assert_eq!(renewed.len(), fleet.len(), "each of them once");
    // 15 minutes before its end, and up to a tenth of its life earlier.
    let of_minute = |minute: u32| {
        let from = minute * MINUTE;
        renewed.iter().filter(|at| (from..from + MINUTE).contains(*at)).count()
    };
    let spread: Vec<_> = (39..45).map(of_minute).collect();
    assert_eq!(spread.iter().sum::<usize>(), fleet.len(), "{spread:?}");
    // 167 on the average, give or take six times the deviation.
    assert!(spread.iter().all(|renewals| (95..240).contains(renewals)), "{spread:?}");
    let rush = renewed
        .iter()
        .map(|at| renewed.iter().filter(|other| other.abs_diff(*at) < SECOND).count());
    assert!(rush.max() <= Some(30));
}

/// Jitter that is drawn at each look makes the earliest of many draws count: googleapis/google-cloud-swift#834.
#[tokio::test(start_paused = true)]
async fn t46_the_jitter_of_a_token_is_drawn_once() {
    let issuer = Issuer::new();
    issuer.lifetime(HOUR);
    let drawn = |tokens: &Tokens| tokens.status().state == State::Stale;
    let mut stale = Vec::new();
    for _ in 0..50 {
        let tokens = builder(client_credentials(&issuer))
            .policy(RefreshPolicy::default())
            .build()
            .unwrap();
        tokens.get().await.unwrap();
        stale.push((tokens, Vec::new()));
    }
    sleep(39 * MINUTE - SECOND).await;
    for _ in 0..=6 * 60 + 2 {
        for (tokens, looks) in &mut stale {
            looks.push(drawn(tokens));
        }
        sleep(SECOND).await;
    }
    for (_, looks) in &stale {
        assert!(!looks[0] && looks[looks.len() - 1]);
        assert!(looks.is_sorted(), "stale, and fresh again");
    }
    assert_eq!(issuer.counts().token_requests, 50, "to look costs nothing");
}

/// The issuer, behind a client that fails with this at first.
fn behind(issuer: &Issuer, failure: impl Fn() -> io::Error + Clone + Send + Sync + 'static) -> TokenClient {
    let (issuer, failed) = (issuer.clone(), Arc::new(Mutex::new(false)));
    TokenClient::new(service_fn(move |request: Request<Full<Bytes>>| {
        let first = !std::mem::replace(&mut *failed.lock().unwrap(), true);
        let (issuer, failure) = (issuer.clone(), failure.clone());
        async move {
            if first {
                return Err(failure());
            }
            issuer.service().oneshot(request).await
        }
    }))
}

/// Two minutes of calls in the middle of which nothing but `trouble` happens: nobody has to sign in again.
async fn is_survived(trouble: &str, issuer: Issuer, through: Option<TokenClient>) {
    let api = Api::new(&issuer);
    let grant = refresh_grant(&issuer);
    let tokens = tokens(match through {
        Some(through) => grant.client(through),
        None => grant,
    });
    let samples = traffic(&client(&tokens, &api), "/api", SECOND, 2 * MINUTE).await;
    for sample in samples.iter().filter(|sample| sample.outcome.is_err()) {
        let error = ours(&sample.outcome);
        assert!(
            error.is_transient() && !error.is_reauth_required(),
            "{trouble}: {error}"
        );
    }
    assert_eq!(status(&samples[samples.len() - 1].outcome), Some(200), "{trouble}");
    assert!(issuer.counts().granted >= 2, "{trouble}: {:?}", issuer.counts());
    assert_eq!(
        (issuer.counts().presented_twice, issuer.counts().refused),
        (0, 0),
        "{trouble}"
    );
}

/// One failure that was nobody's verdict deleted the refresh token: owncloud/client#8892,
/// Mentra-Community/MentraOS#4031, internxt#645.
#[tokio::test(start_paused = true)]
async fn t47_no_transient_failure_ends_a_refresh_token() {
    let html = "<html>blocked by the firewall</html>";
    for fault in [
        Fault::DropBefore,
        Fault::Hang,
        Fault::DelayAfter(20 * SECOND),
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(404),
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::Status(504),
        Fault::RetryAfter {
            status: 429,
            seconds: 5,
        },
        Fault::answer(200, "text/html", html),
        Fault::answer(200, "application/json", "{}"),
        Fault::answer(403, "text/html", html),
        Fault::oauth_error(503, "invalid_grant"),
        Fault::Redirect("https://login.example.com/maintenance".into()),
    ] {
        let issuer = Issuer::new();
        issuer.fault(fault.clone());
        is_survived(&format!("{fault:?}"), issuer, None).await;
    }
    for failure in [
        || io::ErrorKind::ConnectionRefused.into(),
        || io::ErrorKind::NetworkUnreachable.into(),
        || io::Error::other("failed to lookup address information: Temporary failure in name resolution"),
    ] {
        let issuer = Issuer::new();
        let client = behind(&issuer, failure);
        is_survived(&failure().to_string(), issuer, Some(client)).await;
    }
}

/// An answer that was no token took the place of one, or ended the client, and was logged: envoyproxy/envoy#42009.
#[tokio::test(start_paused = true)]
async fn t48_a_200_without_a_token_is_retried_and_the_old_token_stays() {
    let garbage = [
        "",
        "\u{0}\u{1}test-canary",
        "<html>test-canary</html>",
        "{\"test-canary\":1}",
        "[\"test-canary\"]",
    ];
    for body in garbage {
        let (issuer, arrivals) = (Issuer::new(), Arrivals::default());
        issuer.lifetime(24 * HOUR);
        let api = Api::new(&issuer);
        let told = Arc::new(Mutex::new(String::new()));
        let log = told.clone();
        let tokens = builder(client_credentials(&issuer).client(arrivals.at(&issuer)))
            .observe(move |event: &Event| writeln!(log.lock().unwrap(), "{event:?}").unwrap())
            .build()
            .unwrap();
        let client = client(&tokens, &api);
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        issuer.fault_always(Some(Fault::answer(200, "application/json", body)));
        sleep(23 * HOUR + SECOND).await;
        let samples = traffic(&client, "/api", 250 * MILLISECOND, 10 * MINUTE).await;
        assert_eq!(answered(&samples, 200), samples.len(), "{body}: the old one is good");
        for (nth, gap) in arrivals.gaps()[1..].iter().enumerate() {
            let least = SECOND * [1, 2, 4, 8, 16].get(nth).copied().unwrap_or(60);
            assert!(*gap >= least, "{body}: {:?}", arrivals.gaps());
        }
        let error = tokens.status().last_error.unwrap();
        assert!(
            error.is_transient() && error.to_string().contains("malformed"),
            "{error}"
        );
        let told = told.lock().unwrap().clone();
        assert!(told.contains("FetchFailed") && !told.contains("canary"), "{told}");
        assert!(!format!("{error} {error:?}").contains("canary"));
        issuer.fault_always(None);
        sleep(3 * MINUTE).await;
        call(&client, "/api").await.unwrap();
        settle().await;
        assert_eq!((issuer.counts().granted, tokens.status().failures), (2, 0), "{body}");
    }
}
