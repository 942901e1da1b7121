//! A hundred callers at once, and an issuer that takes 50 ms: see README.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../table/figures.rs"]
mod figures;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use figures::Figures;
use tokio::task::JoinSet;
use tower_token_peers::issuer::{Issuer, Manner};
use tower_token_peers::peer::*;
use tower_token_peers::{Call, call_of_peer};

const HERD: usize = 100;
const FETCH: Duration = Duration::from_millis(50);
/// Nobody is waited for any longer.
const CUT_OFF: Duration = Duration::from_secs(15);

struct Contestant {
    name: &'static str,
    open: fn(Issuer) -> Pin<Box<dyn Future<Output = Call>>>,
    /// Whether a refused request makes it fetch and send again.
    replays: bool,
}

const CONTESTANTS: &[Contestant] = &[
    Contestant {
        replays: true,
        ..contestant("tower-token, Auto", |issuer| Box::pin(async { ours::call(issuer) }))
    },
    contestant("google-cloud-auth headers()", |issuer| {
        Box::pin(async { call_of_peer(google_cloud_auth::open(issuer).await) })
    }),
    contestant("azure_core bearer policy", |issuer| {
        Box::pin(async { azure::call(azure::open(issuer)) })
    }),
    contestant("aws-smithy-runtime LazyCache", |issuer| {
        Box::pin(async { call_of_peer(aws::open(issuer)) })
    }),
    contestant("object_store TokenCache", |issuer| {
        Box::pin(async { call_of_peer(object_store::open(issuer)) })
    }),
    contestant("reqsign Signer (google)", |issuer| {
        Box::pin(async { call_of_peer(reqsign::open(issuer)) })
    }),
    contestant("gcloud-auth ReuseTokenSource", |issuer| {
        Box::pin(expired_gcloud_auth(issuer))
    }),
    contestant("gcp_auth CustomServiceAccount", |issuer| {
        Box::pin(async { call_of_peer(gcp_auth::open(issuer).await) })
    }),
    contestant("yup-oauth2 Authenticator", |issuer| {
        Box::pin(async { call_of_peer(yup_oauth2::open(issuer).await) })
    }),
    Contestant {
        replays: true,
        ..contestant("octocrab app installation", |issuer| {
            Box::pin(async { octocrab::call(octocrab::open(issuer)) })
        })
    },
];

const fn contestant(name: &'static str, open: fn(Issuer) -> Pin<Box<dyn Future<Output = Call>>>) -> Contestant {
    Contestant {
        name,
        open,
        replays: false,
    }
}

/// It fetches when it is built; here a token that is expired at once, so that the callers find it as if cold.
async fn expired_gcloud_auth(issuer: Issuer) -> Call {
    let manner = issuer.turn(Manner::AT_ONCE.life(Duration::from_secs(1)));
    let call = call_of_peer(gcloud_auth::open(issuer.clone()).await);
    issuer.turn(manner);
    issuer.take_fetches();
    call
}

/// What became of so many callers.
struct Outcome {
    /// Counted by the issuer.
    fetches: usize,
    /// Until the last was back; `None` if the others were given up.
    last_back: Option<Duration>,
    ended_well: usize,
    ended_badly: usize,
}

impl Contestant {
    /// Callers that find no token.
    fn cold(&self, callers: usize, manner: Manner) -> Outcome {
        self.stage(manner, async |issuer, call| rush(&issuer, &call, callers).await)
    }

    /// Callers whose token was revoked a moment ago.
    fn refused(&self) -> Option<Outcome> {
        self.replays.then(|| {
            self.stage(Manner::AT_ONCE, async |issuer, call| {
                call().await.unwrap();
                issuer.turn(Manner::AT_ONCE.takes(FETCH));
                issuer.revoke();
                issuer.take_fetches();
                rush(&issuer, &call, HERD).await
            })
        })
    }

    /// In a runtime of its own.
    fn stage(&self, manner: Manner, play: impl AsyncFnOnce(Issuer, Call) -> Outcome) -> Outcome {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(async {
            let issuer = Issuer::new(manner);
            let call = (self.open)(issuer.clone()).await;
            play(issuer, call).await
        });
        runtime.shutdown_background();
        outcome
    }
}

async fn rush(issuer: &Issuer, call: &Call, callers: usize) -> Outcome {
    let began = Instant::now();
    let mut herd = JoinSet::new();
    for _ in 0..callers {
        let call = call.clone();
        herd.spawn(async move { call().await.is_ok() });
    }
    let (mut ended_well, mut ended_badly) = (0, 0);
    let all_back = tokio::time::timeout(CUT_OFF, async {
        while let Some(ended) = herd.join_next().await {
            *(if ended.unwrap() {
                &mut ended_well
            } else {
                &mut ended_badly
            }) += 1;
        }
    });
    let last_back = all_back.await.ok().map(|()| began.elapsed());
    Outcome {
        fetches: issuer.take_fetches(),
        last_back,
        ended_well,
        ended_badly,
    }
}

const COLUMNS: [&str; 8] = [
    "issuer succeeds: fetches",
    "issuer succeeds: last caller back, ms",
    "issuer succeeds: times that of one caller",
    "issuer fails: fetches",
    "issuer fails: last caller back, ms",
    "issuer fails: times that of one caller",
    "token revoked: fetches",
    "token revoked: last caller back, ms",
];

fn main() {
    let rows = CONTESTANTS
        .iter()
        .map(|contestant| (contestant.name.to_owned(), row(contestant)));
    let figures = Figures {
        name: "herd",
        about: "100 callers at once and an issuer that takes 50 ms: how many fetches it counted, and how long until \
                the last caller was back (no number: not within 15 s), also as a multiple of what one caller alone \
                takes. First with no token in place, then with one that the API has just revoked.",
        columns: COLUMNS.to_vec(),
        rows: rows.collect(),
    };
    figures.write();
}

fn row(contestant: &Contestant) -> Vec<Option<f64>> {
    println!("\n{}", contestant.name);
    let succeeds = Manner::AT_ONCE.takes(FETCH);
    let mut cells = Vec::new();
    for (what, manner) in [
        ("the issuer succeeds", succeeds),
        ("the issuer fails", succeeds.fails()),
    ] {
        let one = contestant.cold(1, manner);
        let all = contestant.cold(HERD, manner);
        all.print(what, Some(&one));
        let times = all.millis().zip(one.millis()).map(|(all, one)| all / one);
        cells.extend([Some(all.fetches as f64), all.millis(), times]);
    }
    let refused = contestant.refused();
    if let Some(refused) = &refused {
        refused.print("their token was revoked", None);
    }
    cells.push(refused.as_ref().map(|refused| refused.fetches as f64));
    cells.push(refused.and_then(|refused| refused.millis()));
    cells
}

impl Outcome {
    fn millis(&self) -> Option<f64> {
        Some(self.last_back?.as_secs_f64() * 1e3)
    }

    fn print(&self, what: &str, one: Option<&Self>) {
        print!("  {what:<26}{self}");
        match one {
            Some(one) => println!("; one caller alone: {one}"),
            None => println!(),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            fetches,
            ended_well,
            ended_badly,
            ..
        } = self;
        write!(f, "{fetches} fetches, {ended_well} well, {ended_badly} not, ")?;
        match self.millis() {
            Some(millis) => write!(f, "the last after {millis:.1} ms"),
            None => write!(f, "the others given up after {CUT_OFF:?}"),
        }
    }
}
