//! The first call with a token takes the long way, and later ones the short: both decide the same, and leave
//! whatever is the caller's as it was.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderName, HeaderValue, Request, Response, request};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_token::{
    Authorization, Cookie, Error, Event, Header, Inject, NoToken, Observe, Origins, Query, Token, TokenLayer, Tokens,
    provider_fn,
};

/// What became of a request: the error, or what the inner service got; and what was told of it.
#[derive(Debug, PartialEq)]
struct Fate {
    sent: Result<Vec<String>, String>,
    told: Vec<String>,
}

type Told = Arc<Mutex<Vec<String>>>;

struct Log(Told);

impl Observe for Log {
    fn observe(&self, event: &Event) {
        if let Event::WithoutToken { reason, .. } = event {
            self.0.lock().unwrap().push(format!("{reason:?}"));
        }
    }
}

/// Tokens with one in place, so that whatever goes the long way goes it for the layer's sake.
async fn tokens() -> (Tokens, Told) {
    let told = Told::default();
    let provider = provider_fn(|_| async { Ok(Token::bearer("test-a").expires_in(Duration::from_secs(3600))) });
    let tokens = Tokens::builder(provider).observe(Log(told.clone())).build().unwrap();
    tokens.get().await.unwrap();
    (tokens, told)
}

fn mirror()
-> impl Service<Request<String>, Response = Response<Request<String>>, Error = Infallible, Future = Mirrored> + Clone {
    service_fn(|request| ready(Ok(Response::new(request))))
}

type Mirrored = Ready<Result<Response<Request<String>>, Infallible>>;

fn printed(head: &request::Parts) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        let mark = if value.is_sensitive() { " (sensitive)" } else { "" };
        format!("{name}: {}{mark}", value.to_str().unwrap())
    };
    let first = format!("{} {} {:?}", head.method, head.uri, head.version);
    [first].into_iter().chain(head.headers.iter().map(line)).collect()
}

async fn fate<I: Inject + Clone>(
    (tokens, told): &(Tokens, Told),
    inject: I,
    origins: &Origins,
    request: Request<String>,
    warm: Option<&str>,
) -> Fate {
    let mut client = TokenLayer::new(tokens, origins.clone()).inject(inject).layer(mirror());
    if let Some(url) = warm {
        let answer = client
            .ready()
            .await
            .unwrap()
            .call(Request::get(url).body(String::new()).unwrap());
        let request = answer.await.unwrap().into_body().into_parts().0;
        assert!(printed(&request).concat().contains("test-a"));
    }
    told.lock().unwrap().clear();
    let answer = client.ready().await.unwrap().call(request).await;
    let sent = answer.map(|answer| printed(&answer.into_body().into_parts().0));
    let sent = sent.map_err(|error| error.to_string());
    let told = told.lock().unwrap().clone();
    Fate { sent, told }
}

/// Only what it must have, and a header of its own.
#[derive(Clone)]
struct Plain;

impl Inject for Plain {
    type Ready = HeaderValue;

    fn ready(&self, token: &Token) -> Result<HeaderValue, Error> {
        Ok(HeaderValue::try_from(token.secret().to_owned()).unwrap())
    }

    fn put(&self, ready: &HeaderValue, head: &mut request::Parts) {
        head.headers.insert("x-plain", ready.clone());
    }
}

/// The same, and it sees what the caller has there.
#[derive(Clone)]
struct Seeing;

impl Inject for Seeing {
    type Ready = HeaderValue;

    fn ready(&self, token: &Token) -> Result<HeaderValue, Error> {
        Plain.ready(token)
    }

    fn put(&self, ready: &HeaderValue, head: &mut request::Parts) {
        Plain.put(ready, head);
    }

    fn is_present(&self, head: &request::Parts) -> bool {
        head.uri.path() == "/own" || head.headers.contains_key("x-plain")
    }
}

const URLS: &[&str] = &[
    "https://api.example.com/a?b",
    "https://api.example.com",
    "https://api.example.com/own",
    "https://API.Example.COM/a",
    "HTTPS://api.example.com/a",
    "https://api.example.com:443/a",
    "https://api.example.com:0443/a",
    "https://api.example.com:8443/a",
    "https://api.example.com./a",
    "http://api.example.com/a",
    "https://user@api.example.com/a",
    "https://user:pass@files.example.com:8443/a",
    "https://files.example.com:8443/a",
    "https://files.example.com/a",
    "https://[::1]/a",
    "http://localhost/a",
    "http://localhost:80/a",
    "http://LOCALHOST/a",
    "https://evil.com/a",
    "https://api.example.com.evil.com/a",
    "/a?b",
    "*",
    "api.example.com:443",
];

const HOSTS: &[&[&str]] = &[
    &[],
    &["api.example.com"],
    &["API.example.com:443"],
    &["files.example.com:8443"],
    &["evil.com"],
    &["api.example.com", "evil.com"],
    &[""],
];

/// What the caller brings.
const OWN: &[&[(&str, &str)]] = &[
    &[("a", "1"), ("b", "2")],
    &[("a", "1"), ("authorization", "Basic x"), ("b", "2")],
    &[
        ("authorization", "Basic x"),
        ("a", "1"),
        ("authorization", "Basic y"),
        ("b", "2"),
        ("authorization", "Bearer z"),
    ],
    &[
        ("x-plain", "mine"),
        ("x-key", "mine"),
        ("cookie", "t=mine; u=2"),
        ("cookie", "t=again"),
    ],
];

/// With a URL that is let pass.
fn origins() -> Vec<(&'static str, &'static str, Origins)> {
    let (api, files) = ("https://api.example.com", "https://files.example.com:8443");
    let only = Origins::only(api).unwrap();
    vec![
        ("only", "https://api.example.com/", only.clone()),
        ("several", "https://files.example.com:8443/", only.and(files).unwrap()),
        (
            "files first",
            "https://files.example.com:8443/",
            Origins::only(files).unwrap().and(api).unwrap(),
        ),
        (
            "loopback",
            "http://localhost/",
            Origins::only("http://localhost").unwrap(),
        ),
        ("any https", "https://any.example/", Origins::any_https()),
        (
            "any https and one",
            "https://any.example/",
            Origins::any_https().and(api).unwrap(),
        ),
        ("peer", "/", Origins::connected_peer()),
        ("peer and one", "/", Origins::connected_peer().and(api).unwrap()),
    ]
}

fn request(url: &str, hosts: &[&str], own: &[(&str, &str)], opted_out: bool) -> Request<String> {
    let mut request = Request::post(url);
    for (nth, (name, value)) in own.iter().enumerate() {
        let mut value = HeaderValue::try_from(*value).unwrap();
        value.set_sensitive(nth % 2 == 1);
        request = request.header(*name, value);
    }
    for host in hosts {
        request = request.header(HOST, *host);
    }
    if opted_out {
        request = request.extension(NoToken);
    }
    request.body(String::from("body")).unwrap()
}

/// `Host` headers, the caller's own, and whether he wants no token.
type Head = (&'static [&'static str], &'static [(&'static str, &'static str)], bool);

fn heads() -> Vec<Head> {
    let with_hosts = HOSTS.iter().map(|hosts| (*hosts, OWN[0], false));
    let with_own = OWN.iter().map(|own| (HOSTS[0], *own, false));
    let without = OWN.iter().map(|own| (HOSTS[0], *own, true));
    with_hosts.chain(with_own).chain(without).collect()
}

/// Both ways, for each request that can be made of these.
async fn first_and_later<I: Inject + Clone>(inject: I) {
    let tokens = tokens().await;
    for (listed, warm, origins) in origins() {
        for url in URLS {
            for (hosts, own, opted_out) in heads() {
                let request = || request(url, hosts, own, opted_out);
                let first = fate(&tokens, inject.clone(), &origins, request(), None).await;
                let later = fate(&tokens, inject.clone(), &origins, request(), Some(warm)).await;
                assert_eq!(first, later, "{listed} {url} {hosts:?} {own:?} {opted_out}");
                if !first.told.is_empty() {
                    let bare = printed(&request().into_parts().0);
                    assert_eq!(first.sent, Ok(bare), "goes as it came");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_authorization_header_is_decided_on_alike() {
    first_and_later(Authorization::new()).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_overwrites_is_decided_on_alike() {
    first_and_later(Authorization::new().overwrite()).await;
    first_and_later(Header::new(HeaderName::from_static("x-key"))).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_header_is_decided_on_alike() {
    first_and_later(Query::new("t")).await;
    first_and_later(Cookie::new("t")).await;
}

#[tokio::test(start_paused = true)]
async fn a_presentation_with_nothing_but_what_it_must_have_is_decided_on_alike() {
    first_and_later(Plain).await;
    first_and_later(Seeing).await;
}
