//! A client that calls once a second, and what happens to its links meanwhile.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};
use tower::timeout::Timeout;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, Issuer};
use tower_token::{Clock, CloneBody, IfLost, Origins, TokenClient, TokenLayer, Tokens};
use turmoil::{Builder, Sim};

use super::net::{self, Birth, Body};

const CLIENT: &str = "client";
const SECOND: Duration = Duration::from_secs(1);
/// The network moves in steps of this. Finer ones take longer and show no more.
const TICK: Duration = Duration::from_millis(200);
/// That a request may take, once it has a token.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) at: At,
    pub(crate) kind: Kind,
    pub(crate) from: Duration,
    pub(crate) lasts: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Issuer,
    Api,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// All that is sent is lost.
    Partition,
    /// All that comes back is lost.
    Deaf,
    /// All that is sent arrives when it is over.
    Stall,
    /// The host is gone, with all of its connections.
    Crash,
}

impl Trouble {
    pub(crate) fn ends(&self) -> Duration {
        self.from + self.lasts
    }

    fn begin(&self, sim: &mut Sim<'_>) {
        let host = self.at.host();
        match self.kind {
            Kind::Partition => sim.partition(CLIENT, host),
            Kind::Deaf => sim.partition_oneway(host, CLIENT),
            Kind::Stall => sim.hold(CLIENT, host),
            Kind::Crash => sim.crash(host),
        }
    }

    fn end(&self, sim: &mut Sim<'_>) {
        let host = self.at.host();
        match self.kind {
            Kind::Partition => sim.repair(CLIENT, host),
            Kind::Deaf => sim.repair_oneway(host, CLIENT),
            Kind::Stall => sim.release(CLIENT, host),
            Kind::Crash => sim.bounce(host),
        }
    }
}

impl At {
    fn host(self) -> &'static str {
        match self {
            Self::Issuer => "login",
            Self::Api => "api",
        }
    }
}

pub(crate) struct Scene {
    pub(crate) issuer: Issuer,
    pub(crate) api: Api,
    seed: u64,
    if_lost: IfLost,
    lasts: Duration,
}

/// One request of the client.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) sent: Duration,
    pub(crate) took: Duration,
    /// `None`: no answer.
    pub(crate) status: Option<u16>,
}

/// When each refresh token reached the issuer.
pub(crate) type Presented = Arc<Mutex<HashMap<Bytes, Vec<Duration>>>>;

pub(crate) struct Outcome {
    pub(crate) issuer: Issuer,
    pub(crate) api: Api,
    pub(crate) presented: Presented,
    samples: Vec<Sample>,
}

impl Outcome {
    pub(crate) fn sent(&self, when: Range<Duration>) -> Vec<Sample> {
        let samples = self.samples.iter().filter(|sample| when.contains(&sample.sent));
        samples.cloned().collect()
    }
}

impl Scene {
    /// Traffic for so long.
    pub(crate) fn new(seed: u64, if_lost: IfLost, lasts: Duration) -> Self {
        let issuer = Issuer::new();
        Self {
            api: Api::new(&issuer),
            issuer,
            seed,
            if_lost,
            lasts,
        }
    }

    pub(crate) fn run(self, troubles: &[Trouble]) -> Outcome {
        // The engine's own jitter.
        fastrand::seed(self.seed);
        let mut sim = Builder::new()
            .rng_seed(self.seed)
            .tick_duration(TICK)
            .min_message_latency(TICK / 10)
            .max_message_latency(TICK)
            // For all connections that wait in a stalled link.
            .tcp_capacity(1024)
            .simulation_duration(2 * self.lasts + Duration::from_secs(600))
            .build();
        let (birth, presented, samples) = (Birth::default(), Presented::default(), Arc::default());
        self.host_issuer(&mut sim, &birth, &presented);
        self.host_api(&mut sim, &birth);
        let client = Traffic {
            grant: (
                self.issuer.client_id().to_owned(),
                self.issuer.client_secret().to_owned(),
            ),
            refresh_token: self.issuer.sign_in(),
            if_lost: self.if_lost,
            lasts: self.lasts,
            samples: Arc::clone(&samples),
        };
        sim.client(CLIENT, client.run());
        let mut turns: Vec<(Duration, &Trouble, bool)> = troubles
            .iter()
            .flat_map(|trouble| [(trouble.from, trouble, true), (trouble.ends(), trouble, false)])
            .collect();
        turns.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        while !sim.step().unwrap() {
            while let Some((_, trouble, begins)) = turns.pop_if(|(at, ..)| *at <= sim.elapsed()) {
                if begins {
                    trouble.begin(&mut sim)
                } else {
                    trouble.end(&mut sim)
                }
            }
        }
        drop(sim);
        Outcome {
            issuer: self.issuer,
            api: self.api,
            presented,
            samples: std::mem::take(&mut *samples.lock().unwrap()),
        }
    }

    fn host_issuer(&self, sim: &mut Sim<'_>, birth: &Birth, presented: &Presented) {
        let (issuer, birth, presented) = (self.issuer.clone(), birth.clone(), presented.clone());
        let began = birth.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (issuer, presented, began) = (issuer.clone(), presented.clone(), began.clone());
            async move {
                let (head, body) = request.into_parts();
                let form = body.collect().await?.to_bytes();
                let at = began.get().unwrap().elapsed();
                presented.lock().unwrap().entry(form.clone()).or_default().push(at);
                let request = Request::from_parts(head, Full::new(form));
                Ok::<_, BoxError>(issuer.service().oneshot(request).await?)
            }
        });
        sim.host(At::Issuer.host(), move || net::serve(service.clone(), birth.clone()));
    }

    fn host_api(&self, sim: &mut Sim<'_>, birth: &Birth) {
        let (service, birth) = (self.api.service(), birth.clone());
        sim.host(At::Api.host(), move || net::serve(service.clone(), birth.clone()));
    }
}

/// What runs on the client's host.
struct Traffic {
    grant: (String, String),
    refresh_token: String,
    if_lost: IfLost,
    lasts: Duration,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Traffic {
    async fn run(self) -> turmoil::Result {
        let login = service_fn(|request: Request<Body>| net::send(At::Issuer.host(), request));
        let grant = RefreshTokenGrant::new("https://login.example.com/token", &self.grant.0)
            .client_secret(self.grant.1.as_str())
            .refresh_token(self.refresh_token)
            .if_lost(self.if_lost)
            .client(TokenClient::new(login));
        let tokens = Tokens::builder(grant).clock(Clock::of_tokio()).build()?;
        let api = service_fn(|request: Request<Body>| net::send(At::Api.host(), request));
        let client = TokenLayer::new(&tokens, Origins::only("https://api.example.com")?)
            .replay(CloneBody)
            .layer(Timeout::new(api, PATIENCE));
        let began = Instant::now();
        let mut sent = Duration::ZERO;
        let mut under_way = tokio::task::JoinSet::new();
        while sent < self.lasts {
            sleep_until(began + sent).await;
            let request = Request::get("https://api.example.com/api").body(Body::default())?;
            let (call, samples) = (client.clone().oneshot(request), self.samples.clone());
            under_way.spawn(async move {
                let status = call.await.ok().map(|answer| answer.status().as_u16());
                let took = (began + sent).elapsed();
                samples.lock().unwrap().push(Sample { sent, took, status });
            });
            sent += SECOND;
        }
        under_way.join_all().await;
        Ok(())
    }
}
