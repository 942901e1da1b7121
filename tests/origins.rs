//! Where a token goes and where it does not. The judge is a second origin that counts what it is sent.

#![cfg(all(feature = "testkit", feature = "oauth2"))]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod flows;

use flows::*;
use http::{HeaderName, Method, Request, Response, StatusCode, Uri, header};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_token::testkit::{Api, Body, Issuer};
use tower_token::{Authorization, BoxError, Cookie, Header, Inject, NoToken, Origins, Query, TokenLayer, Tokens};

/// The API, and everything that is not the API.
#[derive(Clone, Debug)]
struct World {
    issuer: Issuer,
    api: Api,
    sink: Api,
}

impl World {
    fn new() -> Self {
        let issuer = Issuer::new();
        let (api, sink) = (Api::new(&issuer), Api::new(&issuer));
        Self { issuer, api, sink }
    }

    fn tokens(&self) -> Tokens {
        tokens(refresh_grant(&self.issuer))
    }

    /// Sends a request where its URL leads, as a client and the front end behind it do: by scheme,
    /// host, port and `Host`. Written without a look at what the crate thinks of URLs.
    async fn deliver(self, request: Request<String>) -> Result<Response<Body>, BoxError> {
        let at_api = {
            let uri = request.uri();
            let host = uri.host().unwrap_or_default().to_ascii_lowercase();
            let port = uri
                .port_u16()
                .unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            let named = request.headers().get_all(header::HOST).iter();
            let mut named = named.map(|host| host.to_str().unwrap_or_default().to_ascii_lowercase());
            // A bare path goes to the one peer there is, which is the API's front end.
            let connected = uri.authority().is_none();
            (connected || (uri.scheme_str() == Some("https") && host == "api.example.com" && port == 443))
                && named.all(|host| host == "api.example.com" || host == "api.example.com:443")
        };
        let peer = if at_api { &self.api } else { &self.sink };
        Ok(peer.service().oneshot(request).await?)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// The API gets it with the token.
    Token,
    /// Somebody gets it, without the token.
    Bare,
    /// Nobody gets it: an error.
    Error,
    /// No request can be made of it.
    NoUrl,
}

async fn fate<I: Inject + Clone>(inject: I, origins: &Origins, url: &str, hosts: &[&str]) -> Fate {
    let world = World::new();
    let tokens = world.tokens();
    let Ok(url) = Uri::try_from(url) else {
        return Fate::NoUrl;
    };
    let mut request = Request::get(url);
    for host in hosts {
        request = request.header(header::HOST, *host);
    }
    let Ok(request) = request.body(String::new()) else {
        return Fate::NoUrl;
    };
    let (issuer, api, sink) = (world.issuer.clone(), world.api.clone(), world.sink.clone());
    let client = TokenLayer::new(&tokens, origins.clone())
        .inject(inject)
        .layer(service_fn(move |request| world.clone().deliver(request)));
    let outcome = client.oneshot(request).await;
    let (api, sink) = (api.counts(), sink.counts());
    assert_eq!(sink.with_authorization, 0, "a token went elsewhere");
    match outcome {
        Err(_) => {
            assert_eq!(api.requests + sink.requests, 0, "an error, and yet it was sent");
            Fate::Error
        }
        Ok(_) if api.with_authorization > 0 => {
            assert_eq!((api.authorized, api.requests), (1, 1));
            Fate::Token
        }
        Ok(_) => {
            assert_eq!(
                (api.requests + sink.requests, issuer.counts().token_requests),
                (1, 0),
                "and nothing is fetched for it"
            );
            Fate::Bare
        }
    }
}

/// URL, `Host` headers, what becomes of it if `https://api.example.com` is listed.
const FORMS: &[(&str, &[&str], Fate)] = &[
    ("https://api.example.com/api", &[], Fate::Token),
    ("https://api.example.com/api?q=1", &[], Fate::Token),
    ("https://API.EXAMPLE.COM/api", &[], Fate::Token),
    ("HTTPS://api.example.com/api", &[], Fate::Token),
    ("https://api.example.com:443/api", &[], Fate::Token),
    ("https://api.example.com/api", &["api.example.com"], Fate::Token),
    ("https://api.example.com/api", &["API.Example.Com:443"], Fate::Token),
    ("https://api.example.com:443/api", &["api.example.com"], Fate::Token),
    // Another scheme.
    ("http://api.example.com/api", &[], Fate::Bare),
    ("http://api.example.com:443/api", &[], Fate::Bare),
    ("http://api.example.com:80/api", &[], Fate::Bare),
    ("ws://api.example.com/api", &[], Fate::Bare),
    ("wss://api.example.com/api", &[], Fate::Bare),
    ("ftp://api.example.com/api", &[], Fate::Bare),
    ("httpss://api.example.com/api", &[], Fate::Bare),
    // Another port.
    ("https://api.example.com:8443/api", &[], Fate::Bare),
    ("https://api.example.com:80/api", &[], Fate::Bare),
    ("https://api.example.com:4430/api", &[], Fate::Bare),
    // The listed port in a form that is not the usual one: refused rather than guessed at.
    ("https://api.example.com:0443/api", &[], Fate::Bare),
    ("https://api.example.com:/api", &[], Fate::Bare),
    // Another host.
    ("https://evil.example/api", &[], Fate::Bare),
    ("https://api.example.com.evil.example/api", &[], Fate::Bare),
    ("https://evil-api.example.com/api", &[], Fate::Bare),
    ("https://sub.api.example.com/api", &[], Fate::Bare),
    ("https://example.com/api", &[], Fate::Bare),
    ("https://api.example.com./api", &[], Fate::Bare),
    ("https://api.example.co/api", &[], Fate::Bare),
    ("https://xn--pi-7ba.example.com/api", &[], Fate::Bare),
    ("https://93.184.216.34/api", &[], Fate::Bare),
    ("https://[2606:2800:220:1::1]/api", &[], Fate::Bare),
    ("https://127.0.0.1/api", &[], Fate::Bare),
    ("https://localhost/api", &[], Fate::Bare),
    // The listed host where only a careless reader sees one.
    ("https://api.example.com@evil.example/api", &[], Fate::Bare),
    ("https://api.example.com:443@evil.example/api", &[], Fate::Bare),
    ("https://evil.example/https://api.example.com/api", &[], Fate::Bare),
    ("https://evil.example/?https://api.example.com", &[], Fate::Bare),
    ("https://evil.example#@api.example.com/api", &[], Fate::Bare),
    // With a user even the listed host is left out: who puts one there means other credentials.
    ("https://user@api.example.com/api", &[], Fate::Bare),
    ("https://user:password@api.example.com/api", &[], Fate::Bare),
    // `Host` names somebody else behind the same front end.
    ("https://api.example.com/api", &["evil.example"], Fate::Bare),
    ("https://api.example.com/api", &["api.example.com:8443"], Fate::Bare),
    ("https://api.example.com/api", &["api.example.com."], Fate::Bare),
    (
        "https://api.example.com/api",
        &["api.example.com", "evil.example"],
        Fate::Bare,
    ),
    (
        "https://api.example.com/api",
        &["evil.example", "api.example.com"],
        Fate::Bare,
    ),
    (
        "https://api.example.com/api",
        &["api.example.com, evil.example"],
        Fate::Bare,
    ),
    (
        "https://api.example.com/api",
        &["api.example.com@evil.example"],
        Fate::Bare,
    ),
    ("https://api.example.com/api", &["https://api.example.com"], Fate::Bare),
    ("https://api.example.com/api", &[""], Fate::Bare),
    ("https://evil.example/api", &["api.example.com"], Fate::Bare),
    // No host at all: nobody can say where it goes.
    ("/api", &[], Fate::Error),
    ("/api", &["api.example.com"], Fate::Error),
    ("/api", &["evil.example"], Fate::Error),
    ("*", &[], Fate::Error),
    ("api.example.com:443", &[], Fate::Bare),
    // No URL to the library that parses them.
    ("https://b\u{fc}cher.example/api", &[], Fate::NoUrl),
    ("https://api.example.com\u{ff0e}evil.example/api", &[], Fate::NoUrl),
    ("https://api.example.com\\.evil.example/api", &[], Fate::NoUrl),
    ("https://api.example.com\t/api", &[], Fate::NoUrl),
    ("https:api.example.com/api", &[], Fate::NoUrl),
    ("//api.example.com/api", &[], Fate::Error),
];

async fn all_forms<I: Inject + Clone>(inject: I) {
    let listed = Origins::only(API).unwrap();
    for (url, hosts, expected) in FORMS {
        let seen = fate(inject.clone(), &listed, url, hosts).await;
        assert_eq!(seen, *expected, "{url} {hosts:?}");
    }
}

fn test_header() -> Header {
    Header::new(HeaderName::from_static("x-test-token"))
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_foreign_url_goes_without_the_authorization_header() {
    assert!(FORMS.len() >= 40);
    all_forms(Authorization::new()).await;
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_foreign_url_goes_without_the_token_in_its_query() {
    all_forms(Query::new("access_token")).await;
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_foreign_url_goes_without_the_cookie() {
    all_forms(Cookie::new("access_token")).await;
}

#[tokio::test(start_paused = true)]
async fn every_form_of_a_foreign_url_goes_without_a_header_of_another_name() {
    all_forms(test_header()).await;
}

#[tokio::test(start_paused = true)]
async fn any_https_is_https_only_and_no_host_but_the_urls() {
    let any = Origins::any_https();
    for (url, hosts, expected) in [
        ("https://api.example.com/api", &[][..], Fate::Token),
        ("https://api.example.com/api", &["api.example.com"], Fate::Token),
        ("http://api.example.com/api", &[], Fate::Bare),
        ("http://127.0.0.1/api", &[], Fate::Bare),
        ("https://user@api.example.com/api", &[], Fate::Bare),
        ("https://api.example.com/api", &["evil.example"], Fate::Bare),
        ("/api", &[], Fate::Error),
    ] {
        assert_eq!(
            fate(Authorization::new(), &any, url, hosts).await,
            expected,
            "{url} {hosts:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connected_peer_gets_bare_paths_without_a_foreign_host() {
    let peer = Origins::connected_peer();
    let named = Origins::connected_peer().and(API).unwrap();
    for (url, hosts, expected) in [
        ("/api", &[][..], Fate::Token),
        ("/api", &["evil.example"], Fate::Bare),
        ("https://api.example.com/api", &[], Fate::Bare),
    ] {
        assert_eq!(
            fate(Authorization::new(), &peer, url, hosts).await,
            expected,
            "{url} {hosts:?}"
        );
    }
    for (url, hosts, expected) in [
        ("/api", &["api.example.com"][..], Fate::Token),
        ("/api", &["api.example.com", "evil.example"], Fate::Bare),
        ("https://api.example.com/api", &[], Fate::Token),
        ("https://evil.example/api", &[], Fate::Bare),
    ] {
        assert_eq!(
            fate(Authorization::new(), &named, url, hosts).await,
            expected,
            "{url} {hosts:?}"
        );
    }
}

// ===== Redirects =====

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// Follows `/redirect` above the layer.
async fn redirected<I: Inject>(inject: I, world: &World, code: u16, to: &str, method: Method) -> StatusCode {
    let delivering = world.clone();
    let mut request = Request::new(String::new());
    *request.method_mut() = method;
    *request.uri_mut() = format!("{API}/redirect?status={code}&to={to}").parse().unwrap();
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(TokenLayer::new(&world.tokens(), Origins::only(API).unwrap()).inject(inject))
        .service(service_fn(move |request| delivering.clone().deliver(request)));
    client.oneshot(request).await.unwrap().status()
}

/// Elsewhere, in each form that a `Location` can have.
const ELSEWHERE: [&str; 7] = [
    "https://sink.example/api",
    "http://sink.example/api",
    "http://api.example.com/api",
    "https://api.example.com:8443/api",
    "https://api.example.com@sink.example/api",
    "https://API.example.com./api",
    "//sink.example/api",
];

async fn no_redirect_takes_the_token_elsewhere<I: Inject + Clone>(inject: I) {
    for code in REDIRECTS {
        for to in ELSEWHERE {
            for method in [Method::GET, Method::POST] {
                let world = World::new();
                let status = redirected(inject.clone(), &world, code, to, method.clone()).await;
                assert_eq!(status, 401, "{code} to {to}: followed, and without the token");
                let sink = world.sink.counts();
                assert_eq!(
                    (sink.requests, sink.with_authorization),
                    (1, 0),
                    "{code} to {to}, {method}"
                );
                assert_eq!(world.issuer.counts().token_requests, 1, "its 401 is not ours to answer");
            }
        }
        for to in ["/api", "https://api.example.com/api", "https://API.example.com:443/api"] {
            let world = World::new();
            assert_eq!(
                redirected(inject.clone(), &world, code, to, Method::GET).await,
                200,
                "{code} to {to}"
            );
            assert_eq!(world.api.counts().authorized, 1);
            assert_eq!(world.sink.counts().requests, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_redirect_takes_the_authorization_header_elsewhere() {
    no_redirect_takes_the_token_elsewhere(Authorization::new()).await;
}

#[tokio::test(start_paused = true)]
async fn no_redirect_takes_the_token_in_the_query_elsewhere() {
    no_redirect_takes_the_token_elsewhere(Query::new("access_token")).await;
}

#[tokio::test(start_paused = true)]
async fn no_redirect_takes_the_cookie_elsewhere() {
    no_redirect_takes_the_token_elsewhere(Cookie::new("access_token")).await;
}

#[tokio::test(start_paused = true)]
async fn no_redirect_takes_a_header_of_another_name_elsewhere() {
    no_redirect_takes_the_token_elsewhere(test_header()).await;
}

// ===== Requests that want no token =====

#[tokio::test(start_paused = true)]
async fn a_request_with_no_token_goes_without_it_and_nothing_is_fetched() {
    let world = World::new();
    let client = client(&world.tokens(), &world.api);
    let mut request = get("/api", 1);
    request.extensions_mut().insert(NoToken);
    assert_eq!(status(&client.oneshot(request).await), Some(401));
    assert_eq!((world.api.counts().requests, world.api.counts().without_token), (1, 1));
    assert_eq!(world.issuer.counts().token_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn no_token_holds_across_redirects_within_an_origin() {
    let world = World::new();
    let delivering = world.clone();
    let client = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(TokenLayer::new(&world.tokens(), Origins::only(API).unwrap()))
        .service(service_fn(move |request| delivering.clone().deliver(request)));
    let mut request = get("/redirect?to=/api", 1);
    request.extensions_mut().insert(NoToken);
    assert_eq!(client.oneshot(request).await.unwrap().status(), 401);
    assert_eq!(world.api.counts().with_authorization, 0);
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_authorization_is_the_callers_business() {
    let world = World::new();
    let delivering = world.clone();
    let client = TokenLayer::new(&world.tokens(), Origins::only(API).unwrap())
        .layer(service_fn(move |request| delivering.clone().deliver(request)));
    for url in ["https://sink.example/api", "https://api.example.com/api"] {
        let request = Request::get(url)
            .header("authorization", "Bearer test-of-the-caller")
            .body(String::new())
            .unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 401, "{url}: as the server answered, once");
    }
    assert_eq!((world.sink.counts().unknown_seen, world.sink.counts().requests), (1, 1));
    assert_eq!((world.api.counts().unknown_seen, world.api.counts().requests), (1, 1));
    assert_eq!(world.issuer.counts().token_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn an_overwritten_authorization_is_overwritten_at_home_only() {
    let world = World::new();
    let delivering = world.clone();
    let client = TokenLayer::new(&world.tokens(), Origins::only(API).unwrap())
        .inject(Authorization::new().overwrite())
        .layer(service_fn(move |request| delivering.clone().deliver(request)));
    for (url, code) in [("https://sink.example/api", 401), ("https://api.example.com/api", 200)] {
        let request = Request::get(url)
            .header("authorization", "Bearer test-of-the-caller")
            .body(String::new())
            .unwrap();
        assert_eq!(client.clone().oneshot(request).await.unwrap().status(), code, "{url}");
    }
    assert_eq!(world.sink.counts().unknown_seen, 1, "the caller's own, untouched");
}

#[tokio::test(start_paused = true)]
async fn a_query_or_cookie_of_the_callers_is_replaced_at_home_and_untouched_elsewhere() {
    let world = World::new();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let inner = {
        let (world, seen) = (world.clone(), seen.clone());
        service_fn(move |request: Request<String>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let cookies = request.headers().get_all(header::COOKIE).iter();
            let cookies = cookies
                .map(|value| value.to_str().unwrap().to_owned())
                .collect::<Vec<_>>();
            seen.lock().unwrap().push((query, cookies.join("|")));
            world.clone().deliver(request)
        })
    };
    let tokens = world.tokens();
    let origins = Origins::only(API).unwrap();
    let by_query = TokenLayer::new(&tokens, origins.clone())
        .inject(Query::new("access_token"))
        .layer(inner.clone());
    let by_cookie = TokenLayer::new(&tokens, origins)
        .inject(Cookie::new("access_token"))
        .layer(inner);
    for (host, mine) in [("sink.example", false), ("api.example.com", true)] {
        let url = format!("https://{host}/api?a=1&access%5Ftoken=old&b=2&access_token=older");
        let request = Request::get(url).body(String::new()).unwrap();
        let _ = by_query.clone().oneshot(request).await.unwrap();
        let request = Request::get(format!("https://{host}/api"))
            .header("cookie", "a=1; access_token=old")
            .header("cookie", "access_token=older; b=2")
            .body(String::new())
            .unwrap();
        let _ = by_cookie.clone().oneshot(request).await.unwrap();
        let mut seen = std::mem::take(&mut *seen.lock().unwrap()).into_iter();
        let ((query, _), (_, cookies)) = (seen.next().unwrap(), seen.next().unwrap());
        if mine {
            assert!(
                query.starts_with("a=1&b=2&access_token=test-access-") && !query.contains("old"),
                "{query}"
            );
            assert!(
                cookies.starts_with("a=1; b=2; access_token=test-access-") && !cookies.contains("old"),
                "{cookies}"
            );
        } else {
            assert_eq!(query, "a=1&access%5Ftoken=old&b=2&access_token=older");
            assert_eq!(cookies, "a=1; access_token=old|access_token=older; b=2");
        }
    }
    assert_eq!(world.api.counts().authorized, 2);
}
