//! Cold: the first request of all, which waits for its token, beside the same two exchanges made by hand.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower::{Layer, Service, ServiceExt};
use tower_token::oauth2::ClientCredentialsGrant;
use tower_token::testkit::{Api, Issuer, Server};
use tower_token::{Origins, TokenLayer, Tokens};

use crate::figures::Figures;
use crate::statistics::{median, ratio};
use crate::{Body, Http, Version, elsewhere, runtime};

const ROUNDS: usize = 301;

/// An issuer that answers at once, and an API that takes its tokens.
struct Peers {
    issuer: Issuer,
    login: Server,
    api: Server,
}

impl Peers {
    async fn start() -> Self {
        let issuer = Issuer::new();
        issuer.latency(Duration::ZERO);
        let api = Api::new(&issuer);
        api.latency(Duration::ZERO);
        Self {
            login: issuer.serve().await.unwrap(),
            api: api.serve().await.unwrap(),
            issuer,
        }
    }

    fn token_url(&self) -> String {
        format!("{}/token", self.login.url())
    }

    fn first_request(&self) -> Request<Body> {
        Request::get(format!("{}/api/me", self.api.url()))
            .body(Body::default())
            .unwrap()
    }
}

/// Microseconds of both, once in each round.
#[derive(Default)]
struct Times {
    hand: Vec<f64>,
    ours: Vec<f64>,
}

pub(crate) fn run(bench: bool) {
    let rounds = if bench { ROUNDS } else { 2 };
    let peers = elsewhere(Peers::start);
    let kept = Version::Http1.client();
    let cases = [
        (
            "new connections",
            runtime().block_on(measured(&peers, rounds, || Version::Http1.client())),
        ),
        (
            "connections that stand",
            runtime().block_on(measured(&peers, rounds, || kept.clone())),
        ),
    ];
    if bench {
        written(&cases);
    }
}

async fn measured(peers: &Peers, rounds: usize, client: impl Fn() -> Http) -> Times {
    let mut times = Times::default();
    for turn in 0..rounds {
        if turn % 2 == 0 {
            times.hand.push(by_hand(peers, client()).await);
            times.ours.push(ours(peers, client()).await);
        } else {
            times.ours.push(ours(peers, client()).await);
            times.hand.push(by_hand(peers, client()).await);
        }
    }
    times
}

/// Lets the tasks of the last round end, and its connections go back to their pool.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn ours(peers: &Peers, client: Http) -> f64 {
    settle().await;
    let grant = ClientCredentialsGrant::new(peers.token_url(), peers.issuer.client_id())
        .client_secret(peers.issuer.client_secret())
        .client(client.clone());
    let tokens = Tokens::new(grant).unwrap();
    let mut service = TokenLayer::new(&tokens, Origins::only(peers.api.url()).unwrap()).layer(client);
    let request = peers.first_request();
    let began = Instant::now();
    let answer = service.ready().await.unwrap().call(request).await.unwrap();
    read(answer).await;
    micros(began)
}

async fn by_hand(peers: &Peers, client: Http) -> f64 {
    settle().await;
    let (id, secret) = (peers.issuer.client_id(), peers.issuer.client_secret());
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let asked = Request::post(peers.token_url())
        .header("authorization", basic)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("grant_type=client_credentials"))
        .unwrap();
    let mut request = peers.first_request();
    let began = Instant::now();
    let issued: serde_json::Value = serde_json::from_slice(&read(client.request(asked).await.unwrap()).await).unwrap();
    let bearer = format!("Bearer {}", issued["access_token"].as_str().unwrap());
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    read(client.request(request).await.unwrap()).await;
    micros(began)
}

async fn read(answer: Response<Incoming>) -> Vec<u8> {
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap().to_bytes().into()
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_nanos() as f64 / 1000.0
}

fn written(cases: &[(&str, Times)]) {
    println!("\n{:<32}{:>10}{:>10}{:>8}", "cold, µs", "by hand", "ours", "ratio");
    let mut rows = Vec::new();
    for (name, Times { hand, ours }) in cases {
        let cells = [
            median(hand.iter().copied()),
            median(ours.iter().copied()),
            ratio(ours, hand),
        ];
        println!("{name:<32}{:>10.1}{:>10.1}{:>7.2}x", cells[0], cells[1], cells[2]);
        rows.push(((*name).to_owned(), cells.map(Some).to_vec()));
    }
    Figures {
        name: "cold",
        about: "From the first request of all to its answer, whose token comes from an issuer that answers at once, \
                beside the same two exchanges made by hand with the same client. HTTP/1.1 on loopback, medians.",
        columns: vec!["by hand, µs", "ours, µs", "ours beside by hand"],
        rows,
    }
    .write();
}
