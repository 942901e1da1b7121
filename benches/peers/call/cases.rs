//! What is called, in the order of the table.

use std::sync::LazyLock;

use tokio::runtime::Runtime;
use tower_token_peers::issuer::{Issuer, Manner};
use tower_token_peers::peer::*;
use tower_token_peers::{Lane, Peer, peer};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The case that does the same without a token; itself if it is such a one.
    pub(crate) bare: &'static str,
    /// Two lanes, or one for what cannot be called by two threads.
    pub(crate) open: fn() -> Vec<Lane>,
}

impl Case {
    /// Which of [`CASES`] it is.
    pub(crate) fn place(&self) -> usize {
        place(self.name)
    }
}

pub(crate) fn named(name: &str) -> &'static Case {
    &CASES[place(name)]
}

fn place(name: &str) -> usize {
    CASES
        .iter()
        .position(|case| case.name == name)
        .expect("the name of a case")
}

pub(crate) const STATIC: &str = "tower-http AddAuthorization";
pub(crate) const NEVER: &str = "tower-token, Never";
pub(crate) const AUTO: &str = "tower-token, Auto";
const BARE: &str = "bare call";
const BARE_AZURE: &str = "bare call of azure_core";
const BARE_OCTOCRAB: &str = "bare call of octocrab";

pub(crate) const CASES: &[Case] = &[
    case(BARE, BARE, || floor::bare().into()),
    case(STATIC, BARE, || RUNTIME.block_on(floor::added(issuer())).into()),
    case("floor with one origin and a clock", BARE, || {
        RUNTIME.block_on(floor::guarded(issuer())).into()
    }),
    case(NEVER, BARE, || RUNTIME.block_on(ours::never(issuer())).into()),
    case(AUTO, BARE, || RUNTIME.block_on(ours::auto(issuer())).into()),
    case("aliri_tokens TokenWatcher", BARE, || {
        peer(RUNTIME.block_on(aliri::open(issuer()))).into()
    }),
    case("object_store TokenCache", BARE, || warm(object_store::open(issuer()))),
    case("azure_core bearer policy", BARE_AZURE, || {
        azure::lanes(azure::open(issuer())).into()
    }),
    case("kube-client AuthLayer, token file", BARE, || {
        RUNTIME.block_on(kube::token_file(issuer())).into()
    }),
    case("kube-client AuthLayer, exec", BARE, || {
        RUNTIME.block_on(kube::exec(issuer())).into()
    }),
    case("gcloud-auth ReuseTokenSource", BARE, || {
        peer(RUNTIME.block_on(gcloud_auth::open(issuer()))).into()
    }),
    case("yup-oauth2 Authenticator", BARE, || {
        warm(RUNTIME.block_on(yup_oauth2::open(issuer())))
    }),
    case("gcp_auth CustomServiceAccount", BARE, || {
        warm(RUNTIME.block_on(gcp_auth::open(issuer())))
    }),
    case("aws-smithy-runtime LazyCache", BARE, || warm(aws::open(issuer()))),
    case("google-cloud-auth headers()", BARE, || {
        warm(RUNTIME.block_on(google_cloud_auth::open(issuer())))
    }),
    case("octocrab app installation", BARE_OCTOCRAB, || {
        let client = {
            let _inside = RUNTIME.enter();
            octocrab::open(issuer())
        };
        vec![octocrab::lane_of(&RUNTIME, client)]
    }),
    case("reqsign Signer (google)", BARE, || warm(reqsign::open(issuer()))),
    case(BARE_AZURE, BARE_AZURE, || azure::lanes(azure::bare()).into()),
    case(BARE_OCTOCRAB, BARE_OCTOCRAB, || {
        let client = {
            let _inside = RUNTIME.enter();
            octocrab::bare(issuer())
        };
        vec![octocrab::lane_of(&RUNTIME, client)]
    }),
];

const fn case(name: &'static str, bare: &'static str, open: fn() -> Vec<Lane>) -> Case {
    Case { name, bare, open }
}

/// What fetches and waits, before anything is measured; driven only then, and by octocrab's calls.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
});

fn issuer() -> Issuer {
    Issuer::new(Manner::AT_ONCE)
}

/// A peer that fetches with its first call. All of them are called within a runtime, because one wants it.
fn warm<P: Peer>(cold: P) -> Vec<Lane> {
    RUNTIME
        .block_on(cold.authorize(&mut tower_token_peers::request()))
        .unwrap();
    let _inside = RUNTIME.enter();
    let lanes = peer(cold).map(|mut lane| -> Lane {
        Box::new(move |calls| {
            let _inside = RUNTIME.enter();
            lane(calls);
        })
    });
    lanes.into()
}
