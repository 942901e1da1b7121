//! Plumbing: where a token and a token request may go (T56).
//!
//! Where it went elsewhere: golang/oauth2#805, buildkite/cli#830, requests/requests-oauthlib#536,
//! evcc-io/evcc#33339, prometheus/common#357, mulesoft/mule#6250, axios#120, medplum/medplum#10559.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_token::testkit::{Api, ApiService, Fault, Issuer};
use tower_token::*;

use crate::flows::*;

/// The API at [`API`], and everything that is not the API.
struct World {
    issuer: Issuer,
    api: Api,
    elsewhere: Api,
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::new();
        let (api, elsewhere) = (Api::new(&issuer), Api::new(&issuer));
        Self { issuer, api, elsewhere }
    }

    /// Who is at this address.
    fn at(&self) -> impl Fn(&Uri) -> ApiService + Clone + Send + use<> {
        let (api, elsewhere) = (self.api.clone(), self.elsewhere.clone());
        move |uri| match (uri.scheme_str(), uri.authority().map(|authority| authority.as_str())) {
            (Some("https"), Some("api.example.com")) => api.service(),
            _ => elsewhere.service(),
        }
    }

    fn layer(&self) -> TokenLayer {
        TokenLayer::new(&tokens(refresh_grant(&self.issuer)), Origins::only(API).unwrap())
    }
}

/// The token went along to whomever a redirect or a presigned URL named: golang/oauth2#805, buildkite/cli#830.
#[tokio::test(start_paused = true)]
async fn t56a_no_redirect_takes_the_token_to_another_host_above_or_below_the_layer() {
    for to in [
        "https://storage.example/file",
        "http://api.example.com/file",
        "https://api.example.com:8443/file",
    ] {
        for above in [true, false] {
            let world = World::new();
            let at = world.at();
            let inner = service_fn(move |request: Request<String>| at(request.uri()).oneshot(request));
            let request = get(&format!("/redirect?status=302&to={to}"), 1);
            let follow = FollowRedirectLayer::new();
            let outcome = if above {
                let client = ServiceBuilder::new().layer(follow).layer(world.layer());
                client.service(inner).oneshot(request).await
            } else {
                let client = ServiceBuilder::new().layer(world.layer()).layer(follow);
                client.service(inner).oneshot(request).await
            };
            assert_eq!(status(&outcome), Some(404), "{to}: it was followed");
            let (first, second) = (world.api.counts(), world.elsewhere.counts());
            assert_eq!((first.requests, first.with_authorization), (1, 1), "{to}, {above}");
            assert_eq!((second.requests, second.with_authorization), (1, 0), "{to}, {above}");
        }
    }
}

/// It was sent over plain http, for everybody on the way to read.
#[tokio::test(start_paused = true)]
async fn t56b_a_token_does_not_go_over_plain_http() {
    for origin in [
        "http://api.example.com",
        "http://api.example.com:80",
        "http://192.0.2.7",
    ] {
        let error = Origins::only(origin).unwrap_err();
        assert!(error.is_config() && error.to_string().contains("https"), "{error}");
    }
    let world = World::new();
    let at = world.at();
    let client = world.layer().layer(service_fn(move |request: Request<String>| {
        at(request.uri()).oneshot(request)
    }));
    let plain = Request::get("http://api.example.com/api").body(String::new()).unwrap();
    assert_eq!(
        status(&client.oneshot(plain).await),
        Some(401),
        "as it was written, without the token"
    );
    let counts = world.elsewhere.counts();
    assert_eq!((counts.requests, counts.with_authorization), (1, 0));
    assert_eq!(world.issuer.counts().token_requests, 0);
}

/// Tokens stood in debug logs and in what objects print of themselves: googleapis/google-auth-library-java.
#[cfg(feature = "tracing")]
#[tokio::test(start_paused = true)]
async fn t56c_the_log_of_everything_holds_no_token_and_no_secret() {
    let printed = printed::Capture::begin();
    let issuer = Issuer::new();
    let api = Api::new(&issuer);
    let seed = issuer.sign_in();
    let grant = refresh_grant(&issuer).refresh_token(seed.clone());
    let mut shown = format!("{grant:?}");
    let tokens = builder(grant).observe(Traced::new()).build().unwrap();
    let layer = TokenLayer::new(&tokens, Origins::only(API).unwrap());
    let client = layer.clone().layer(api.service());
    // They begin alike; their ends tell them apart.
    let mut secrets = vec![seed, issuer.client_secret().to_owned()];
    for round in 0..6 {
        match round {
            2 => _ = issuer.revoke_access(),
            3 => _ = issuer.fault(Fault::DropBefore).fault(Fault::Status(500)),
            4 => _ = issuer.revoke_all(),
            _ => {}
        }
        let outcome = call(&client, "/api").await;
        let token = tokens.get().await;
        shown += &format!("{outcome:?} {token:?} {tokens:?} {layer:?} {:?}", tokens.status());
        if let Ok(token) = token {
            secrets.push(token.secret().to_owned());
            let kept = token.renewal_credential().unwrap();
            secrets.push(kept["refresh_token"].as_str().unwrap().to_owned());
        }
        tokio::time::sleep(MINUTE).await;
    }
    let log = printed.text();
    assert!(
        log.contains("renewed") && log.contains("fetch failed"),
        "the log is heard: {log}"
    );
    assert!(secrets.len() >= 2 + 2 * 3, "{}", secrets.len());
    for secret in secrets {
        assert!(!log.contains(&secret) && !shown.contains(&secret), "{log}{shown}");
    }
}

/// The token request took another way than the client that was given, or followed a redirect with its credentials:
/// mulesoft/mule#6250.
#[tokio::test(start_paused = true)]
async fn t56d_a_token_request_goes_through_the_client_given_and_nowhere_else() {
    let world = World::new();
    let arrivals = Arrivals::default();
    let grant = refresh_grant(&world.issuer).client(arrivals.at(&world.issuer));
    let client = client(&tokens(grant), &world.api);
    for to in [
        "https://elsewhere.example/token",
        "/token",
        "https://login.example.com/token/",
    ] {
        world.issuer.fault(Fault::Redirect(to.into()));
    }
    for redirected in 1..=3 {
        let error = ours(&call(&client, "/api").await);
        assert!(
            error.is_transient() && error.to_string().contains("redirect"),
            "{error}"
        );
        assert_eq!(arrivals.count(), redirected, "it was not followed");
        tokio::time::sleep(5 * SECOND).await;
    }
    for _ in 0..10 {
        assert_eq!(status(&call(&client, "/api").await), Some(200));
        tokio::time::sleep(MINUTE).await;
    }
    let counts = world.issuer.counts();
    assert_eq!(
        (counts.token_requests, counts.other_requests),
        (arrivals.count() as u64, 0)
    );
    assert_eq!(
        (world.api.counts().requests, world.elsewhere.counts().requests),
        (10, 0)
    );
}

/// The token was asked for through the client that waited for it, for ever: axios#120, medplum/medplum#10559.
#[tokio::test(start_paused = true)]
async fn t56e_a_token_request_through_its_own_layer_is_an_error_at_once() {
    let world = World::new();
    let slot = Arc::new(OnceLock::<Client>::new());
    let own = slot.clone();
    let through_itself = service_fn(move |request: Request<Full<Bytes>>| own.get().unwrap().clone().oneshot(request));
    let grant = refresh_grant(&world.issuer).client(through_itself);
    let client = slot.get_or_init(|| client(&tokens(grant), &world.api)).clone();
    let began = Instant::now();
    let error = ours(&call(&client, "/api").await);
    assert_eq!(began.elapsed().as_secs(), 0);
    assert!(
        error.is_config() && error.to_string().contains("through the layer"),
        "{error}"
    );
    let cause = std::error::Error::source(&error).unwrap();
    assert!(Error::find(cause).unwrap().is_recursion());
    assert!(cause.to_string().contains("a client of its own"), "{cause}");
    assert_eq!(
        (world.api.counts().requests, world.issuer.counts().token_requests),
        (0, 0)
    );
}

/// An `Authorization` that the caller had put there was replaced, which kubernetes/client-go takes care not to do.
#[tokio::test(start_paused = true)]
async fn t56f_a_callers_own_authorization_is_kept_unless_told_otherwise() {
    let own = |id: &str| {
        let mut request = get("/api", id);
        request
            .headers_mut()
            .insert("authorization", "Bearer test-of-the-caller".parse().unwrap());
        request
    };
    let world = World::new();
    let client = world.layer().layer(world.api.service());
    let outcome = client.oneshot(own("kept")).await;
    assert_eq!(
        (status(&outcome), world.api.deliveries("kept")),
        (Some(401), 1),
        "its 401 is theirs"
    );
    assert_eq!(
        (world.api.counts().unknown_seen, world.issuer.counts().token_requests),
        (1, 0)
    );
    let told = world
        .layer()
        .inject(Authorization::new().overwrite())
        .layer(world.api.service());
    let outcome = told.oneshot(own("replaced")).await;
    assert_eq!((status(&outcome), world.api.deliveries("replaced")), (Some(200), 1));
    assert_eq!(
        (world.api.counts().unknown_seen, world.issuer.counts().token_requests),
        (1, 1)
    );
}
