//! What is left of it on the wire: `cargo bench -p tower-token --features oauth2,testkit --bench wire`.
//!
//! Real hyper on loopback, client and server each on a thread of their own. Under load ([`load`]) a client
//! with a static header and one with our layer take turns; cold ([`cold`]) a first request is timed beside the
//! same two exchanges made by hand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "wire/cold.rs"]
mod cold;
#[path = "table/figures.rs"]
mod figures;
#[path = "wire/load.rs"]
mod load;
#[path = "table/statistics.rs"]
mod statistics;

use std::thread;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::{Builder, Runtime};

type Body = Full<Bytes>;
type Http = Client<HttpConnector, Body>;

#[derive(Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    /// One with connections of its own.
    fn client(self) -> Http {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Client::builder(TokioExecutor::new())
            .http2_only(matches!(self, Self::Http2))
            .build(connector)
    }
}

fn main() {
    // `cargo test --benches` does everything once.
    let bench = std::env::args().any(|argument| argument == "--bench");
    load::run(bench);
    cold::run(bench);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Serves on a thread of its own until the process ends, and says what `start` says.
fn elsewhere<T: Send + 'static>(start: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let started = start().await;
            tell.send(started).expect("whoever asked waits for it");
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("the server starts")
}
