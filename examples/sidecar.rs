//! A reverse proxy beside your program that puts tokens on its requests, whatever language it is written in.
//!
//! ```text
//! CLIENT_SECRET=... ACCESS_KEY_SECRET=... \
//!   cargo run --release --all-features --example sidecar -- examples/sidecar.json
//! ```
//!
//! When it is ready it prints `listening on 127.0.0.1:PORT, admin on 127.0.0.1:PORT`. Your program then sends
//! plain requests to the first port. They go to the upstream of the first route whose prefix matches, with
//! the route's token on them: renewed ahead of time, once for all callers, and a refused request is sent again.
//!
//! # The file
//!
//! | field | what | default |
//! |---|---|---|
//! | `listen`, `admin` | addresses, on loopback | a free port of 127.0.0.1 |
//! | `allow_remote` | whether they may be others | `false` |
//! | `refuse_pages` | whether the proxy answers 403 to what a web page of another site may have sent: by its `Origin`, or its `Host` is a name other than `localhost` | `false` |
//! | `tokens` | by name, each a [`TokenConfig`](tower_token::config::TokenConfig) | |
//! | `routes[].prefix` | what a path begins with; `/imm` has `/imm` and `/imm/x`, not `/immense` | |
//! | `routes[].upstream` | what is put in the place of the prefix: https, or http on loopback | |
//! | `routes[].token` | the name of a token | |
//! | `routes[].protocol` | `http1`, or `h2c` (HTTP/2 with prior knowledge; over TLS where the URL says https) | `http1` |
//! | `routes[].keep_prefix` | whether the prefix stays | `false` |
//! | `routes[].replay_limit` | how many bytes of a body are kept to be sent again | 65536 |
//!
//! A token with a `store` outlives the sidecar: `"store": {"file": {"path": "token.json"}}`, or `"store": {"redis":
//! {"url": {"env": "REDIS_URL"}, "key": "my-app:token"}}`. All sidecars that share one are one client to the issuer: one
//! renews, the others adopt what it brought; and one that is started again goes on with what is there. It also starts
//! when the store cannot be reached, says so on stderr, and answers as without a token until it can.
//!
//! Relative paths begin at the file. A wrong file ends the program with status 2, and the path of each wrong
//! field on stderr; a port that is taken with status 1.
//!
//! # Requests
//!
//! HTTP/1.1 and HTTP/2 with prior knowledge, both ways, streaming, with trailers (an HTTP/1.1 peer has to ask for
//! them: `TE: trailers`, and names them in `Trailer`). What follows the prefix passes byte for byte. A caller
//! that leaves cancels its request; the fetch it waited for goes on. Upgrades and `CONNECT` are not served.
//! A caller's own header of the name that the token goes by is kept, and its request passes without the token.
//! Where a refusal is a code in a body, upstream is asked for bodies that are not compressed.
//!
//! Every program of this machine gets requests with your tokens on them, whoever runs it; and so does every web page
//! that a browser on it has open, which can send to a port of loopback, and read the answers once it had its own name
//! point there. Where somebody browses, say `"refuse_pages": true`.
//!
//! Without a token the answer is a JSON object that says why (`token_unavailable`: 502, or 503 with `Retry-After`),
//! to a gRPC caller status 14. Without upstream it is 502 (`upstream_unavailable`), without a route 404.
//!
//! # Admin
//!
//! | | |
//! |---|---|
//! | `GET /status` | JSON; `ready` is true from the first line printed until the end begins |
//! | `GET /metrics` | Prometheus |
//! | `GET /events` | what happens, a JSON object a line; a reader that is too slow loses lines and is told how many |
//! | `POST /tokens/{name}/refresh` | fetches now, and waits: `{"generation":n}` |
//! | `POST /tokens/{name}/invalidate` | the current token is no good |
//! | `POST /tokens/{name}/install` | a new credential, as in `{"refresh_token":"..."}` |
//! | `GET /tokens/{name}/current` | `{"token","timeout_ms"}`, where the file says `"expose": true` |
//!
//! `ready` says that requests are taken, and not that there are tokens: the first fetch is lazy, so that a
//! probe which waited for one would wait for ever. Ask `state` for that. `failures` counts those in a row. `undurable` is
//! true while what is in force would be lost with this process; `store_error` says why the store does not work.
//! Whoever reaches the admin port can replace credentials: mind that before `allow_remote`.
//!
//! # The end
//!
//! SIGTERM and SIGINT: new requests are answered 503 (`/status` too, with `ready` false). A fetch in the air
//! lands, whoever waits gets what it brought, and what runs may end. The exit status is 0, within the longest
//! `fetch_timeout` and a second; what still runs then is cut off. With a store it is up to its `patience` and 5 s more,
//! if the store does not take at once what the fetch brought. So that has to be shorter than whatever grace your
//! supervisor gives.

#[path = "sidecar/admin.rs"]
mod admin;
#[path = "sidecar/answer.rs"]
mod answer;
#[path = "sidecar/body.rs"]
mod body;
#[path = "sidecar/file.rs"]
mod file;
#[path = "sidecar/headers.rs"]
mod headers;
#[path = "sidecar/ledger.rs"]
mod ledger;
#[path = "sidecar/metrics.rs"]
mod metrics;
#[path = "sidecar/pages.rs"]
mod pages;
#[path = "sidecar/proxy.rs"]
mod proxy;
#[path = "sidecar/routes.rs"]
mod routes;
#[path = "sidecar/server.rs"]
mod server;
#[path = "sidecar/setup.rs"]
mod setup;
#[path = "sidecar/upstream.rs"]
mod upstream;

use std::convert::Infallible;
use std::env;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tower_token::Tokens;

use crate::admin::Admin;
use crate::file::{Document, Faults};
use crate::ledger::Events;
use crate::proxy::Proxy;
use crate::server::{Gate, Life, serve};
use crate::setup::Checked;

/// What is left of the promised second when the program begins to leave.
const LEAVE: Duration = Duration::from_millis(700);

/// How long connections have for their last bytes, once nothing runs any more: callers who read slowly, and
/// readers of events, who may have stopped reading.
const FLUSH: [Duration; 2] = [Duration::from_secs(5), Duration::from_millis(300)];

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [path] = &*arguments else {
        say("usage: sidecar FILE.json");
        return ExitCode::from(2);
    };
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(error);
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(Path::new(path)));
    // A lookup of a name that hangs keeps nobody here.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::File(faults)) => {
            say(faults);
            ExitCode::from(2)
        }
        Err(Failure::System(error)) => {
            say(error);
            ExitCode::FAILURE
        }
    }
}

enum Failure {
    /// The file is wrong.
    File(Faults),
    /// The file is right, and the operating system has no such port to give.
    System(String),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::File(faults)
    }
}

async fn run(path: &Path) -> Result<(), Failure> {
    let (document, base) = Document::load(path)?;
    let checked = Checked::new(&document, &base)?;
    let landing = checked.landing;
    // Before anything is fetched: a one-time credential is not spent by a program that cannot listen.
    let (proxy_at, proxy_port) = bind("listen", checked.listen).await?;
    let (admin_at, admin_port) = bind("admin", checked.admin).await?;
    let mut signals = Signals::new().map_err(|error| Failure::System(error.to_string()))?;
    let sidecar = Sidecar::start(checked, proxy_port, admin_port)?;
    announce(&format!("listening on {proxy_at}, admin on {admin_at}"));
    signals.next().await;
    say("ending");
    let deadline = Instant::now() + landing + LEAVE;
    // What is not at its end by then is cut off.
    let _ = timeout_at(deadline, sidecar.end()).await;
    Ok(())
}

async fn bind(path: &str, address: SocketAddr) -> Result<(SocketAddr, TcpListener), Failure> {
    let failed = |error: io::Error| Failure::System(format!("{path}: {address} cannot be listened on: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// The program while it runs, with what is needed to end it.
struct Sidecar {
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    /// Ends when nothing runs any more that went through a gate.
    running: mpsc::Receiver<Infallible>,
    closing: watch::Sender<bool>,
    /// Ends with the last connection of the proxy.
    open: mpsc::Receiver<Infallible>,
    /// The same of the admin port.
    admin_open: mpsc::Receiver<Infallible>,
}

impl Sidecar {
    fn start(checked: Checked, proxy_port: TcpListener, admin_port: TcpListener) -> Result<Self, Faults> {
        let events = Events::new();
        let refuse_pages = checked.refuse_pages;
        let (tokens, lanes) = checked.build(&events)?;
        let (begun, running) = mpsc::channel(1);
        let (opened, open) = mpsc::channel(1);
        let (admin_opened, admin_open) = mpsc::channel(1);
        let (closing, is_closing) = watch::channel(false);
        let proxy = Arc::new(Proxy {
            lanes,
            gate: Gate::new(begun.clone()),
            refuse_pages,
        });
        let admin = Arc::new(Admin {
            tokens,
            events,
            gate: Gate::new(begun),
        });
        let life = |open| Life {
            closing: is_closing.clone(),
            open,
        };
        let (to_proxy, to_admin) = (proxy.clone(), admin.clone());
        tokio::spawn(serve(proxy_port, life(opened), move |request| {
            let proxy = to_proxy.clone();
            async move { proxy.answer(request).await }
        }));
        tokio::spawn(serve(admin_port, life(admin_opened), move |request| {
            let admin = to_admin.clone();
            async move { admin.answer(request).await }
        }));
        Ok(Self {
            proxy,
            admin,
            running,
            closing,
            open,
            admin_open,
        })
    }

    /// No new requests; fetches land; what runs ends; connections close.
    async fn end(mut self) {
        self.proxy.gate.close();
        self.admin.gate.close();
        let mut landing = JoinSet::new();
        for kept in self.admin.tokens.values() {
            landing.spawn(landed(kept.tokens.clone()));
        }
        landing.join_all().await;
        // Not earlier: whoever reads them sees how the last fetch ended.
        self.admin.events.end();
        // Nobody sends anything: what is waited for is that all senders are gone.
        let _ = self.running.recv().await;
        self.closing.send_replace(true);
        // What a caller has still to read is flushed. A peer that neither reads nor answers holds nobody up for long.
        let [callers, readers] = FLUSH;
        let _ = tokio::join!(
            timeout(callers, self.open.recv()),
            timeout(readers, self.admin_open.recv())
        );
    }
}

async fn landed(tokens: Tokens) {
    tokens.shutdown().await;
}

/// The two that ask a program to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        // An error says that there will be none.
        let _ = tokio::signal::ctrl_c().await;
    }
}

// Neither panics if nobody reads.

fn announce(line: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn say(message: impl Display) {
    for line in message.to_string().lines() {
        let _ = writeln!(io::stderr(), "sidecar: {line}");
    }
}
