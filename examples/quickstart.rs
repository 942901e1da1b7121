//! 64 callers share one token that lives for two seconds, for eight seconds.
//!
//! ```text
//! cargo run --release --example quickstart               watch it
//! cargo run --release --example quickstart -- --json     and end with one line of numbers
//! ```
//!
//! Nothing leaves the machine. The issuer and the API come from the testkit and listen on loopback.
//! The issuer is a strict one: each refresh token is good for one use, and a second use would end
//! the session. It takes 50 ms to answer, so that callers have something to wait for. Once, in the
//! middle, it revokes the token that everybody is using.
//!
//! What you would write in a program of your own are the four statements in [`run`] that have a
//! comment; all else drives them and looks at what happens. The numbers at the end were counted by
//! the issuer, the API and the callers, not by the layer.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, ApiCounts, Issued, Issuer, IssuerCounts};
use tower_token::{BoxError, Cause, Event, Origins, State, Status, TokenLayer, TokenService, Tokens};

const RUN: Duration = Duration::from_secs(8);
const CALLERS: usize = 64;
/// What a caller does between two calls.
const THINKS: Duration = Duration::from_millis(10);
const API_TAKES: Duration = Duration::from_millis(5);
const ISSUER_TAKES: Duration = Duration::from_millis(50);
const TOKEN_LIVES: Duration = Duration::from_secs(2);

const USAGE: &str = "usage: cargo run --release --example quickstart [-- --json]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let json = match &arguments[..] {
        [] => false,
        [one] if one == "--json" => true,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let report = match run(RUN, Live::on_stdout()).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("quickstart: {error}");
            return ExitCode::FAILURE;
        }
    };
    print!("{report}");
    if json {
        println!("{}", report.json());
    }
    if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs for this long; every caller's last call is answered.
async fn run(length: Duration, live: Live) -> Result<Report, BoxError> {
    let (begun, issuer) = (Instant::now(), Issuer::new());
    issuer.lifetime(TOKEN_LIVES).latency(ISSUER_TAKES);
    let issuer_at = issuer.serve().await?;

    let api = Api::new(&issuer);
    api.latency(API_TAKES);
    let api_at = api.serve().await?;

    let (tell, told) = mpsc::channel();

    // A plain HTTP client, as you have one already.
    let http = Client::builder(TokioExecutor::new()).build_http();

    // How a new token is obtained: somebody signed in once, and left us a refresh token.
    let grant = RefreshTokenGrant::new(format!("{}/token", issuer_at.url()), issuer.client_id())
        .client_secret(issuer.client_secret())
        .refresh_token(issuer.sign_in())
        .client(http.clone());

    // The one current token, for every client that shares it. Nothing is fetched yet.
    let tokens = Tokens::builder(grant)
        .observe(move |event: &Event| drop(tell.send(event.clone())))
        .build()?;

    // The client, with the token on each request to this API, and on none to anybody else.
    let client = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(api_at.url())?))
        .service(http);

    let end = begun + length;
    let failures = Failures::default();
    let mut callers = JoinSet::new();
    for name in 0..CALLERS {
        let url = format!("{}/api/orders", api_at.url());
        callers.spawn(keep_calling(client.clone(), url, name, end, failures.clone()));
    }
    let revocation = tokio::spawn(revoke_once(issuer.clone(), tokens.clone(), begun, length));

    while Instant::now() < end {
        sleep(live.interval()).await;
        live.show(&Moment {
            at: begun.elapsed(),
            api: api.counts(),
            issuer: issuer.counts(),
            failed: failures.count(),
            token: tokens.status(),
        })?;
    }
    live.end()?;

    let mut latencies: Vec<Duration> = callers.join_all().await.into_iter().flatten().collect();
    latencies.sort_unstable();
    Ok(Report {
        requests: api.delivered_more_than(0),
        replayed: api.delivered_more_than(1),
        api: api.counts(),
        issuer: issuer.counts(),
        minted: issuer.timeline(),
        revoked: revocation.await?,
        renewals: told.try_iter().filter_map(|event| Renewal::of(&event)).collect(),
        failures,
        latencies,
    })
}

// ===== the callers, and what befalls them =====

type ApiClient = TokenService<Client<HttpConnector, Full<Bytes>>>;

/// Calls until the end, and returns how long each call took.
async fn keep_calling(
    mut client: ApiClient,
    url: String,
    name: usize,
    end: Instant,
    failures: Failures,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        // The API tells by this id what was sent twice.
        let id = format!("{name}-{}", latencies.len());
        let called = Instant::now();
        match call(&mut client, &url, id).await {
            Ok(StatusCode::OK) => {}
            Ok(status) => failures.add(status),
            Err(error) => failures.add(error),
        }
        latencies.push(called.elapsed());
        sleep(THINKS).await;
    }
    latencies
}

/// One call. There is no token in sight: that is the layer's business.
async fn call(client: &mut ApiClient, url: &str, id: String) -> Result<StatusCode, BoxError> {
    let request = Request::get(url).header("x-request-id", id).body(Full::default())?;
    let response = client.ready().await?.call(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// Revokes the token in the middle of the run and of its own life; says when.
async fn revoke_once(issuer: Issuer, tokens: Tokens, begun: Instant, length: Duration) -> Option<Duration> {
    sleep(length / 2).await;
    timeout_at(begun + length, tokens.changed()).await.ok()?;
    sleep(TOKEN_LIVES / 4).await;
    issuer.revoke_access();
    Some(begun.elapsed())
}

/// What callers saw that was not a 200.
#[derive(Clone, Default)]
struct Failures {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Failures {
    fn add(&self, failure: impl fmt::Display) {
        self.with(|seen| seen.push(failure.to_string()));
    }

    fn count(&self) -> usize {
        self.with(|seen| seen.len())
    }

    fn first(&self) -> Option<String> {
        self.with(|seen| seen.first().cloned())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<String>) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// ===== while it runs =====

/// What is shown on the way.
enum Live {
    /// One line that is written over again and again, for a terminal.
    Rewritten,
    /// A line each second, for a file or a pipe.
    Lines,
    #[cfg(test)]
    Nothing,
}

impl Live {
    fn on_stdout() -> Self {
        if io::stdout().is_terminal() {
            Self::Rewritten
        } else {
            Self::Lines
        }
    }

    fn interval(&self) -> Duration {
        match self {
            Self::Rewritten => Duration::from_millis(100),
            _ => Duration::from_secs(1),
        }
    }

    fn show(&self, moment: &Moment) -> io::Result<()> {
        let mut out = io::stdout();
        match self {
            Self::Rewritten => write!(out, "\r{moment}")?,
            Self::Lines => writeln!(out, "{moment}")?,
            #[cfg(test)]
            Self::Nothing => {}
        }
        out.flush()
    }

    fn end(&self) -> io::Result<()> {
        match self {
            Self::Rewritten => writeln!(io::stdout()),
            _ => Ok(()),
        }
    }
}

struct Moment {
    at: Duration,
    api: ApiCounts,
    issuer: IssuerCounts,
    failed: usize,
    token: Status,
}

/// Always of the same width, so that a line covers the one it is written over.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.token.expires_in.unwrap_or_default().min(TOKEN_LIVES);
        let state = match self.token.state {
            State::Fresh => "fresh",
            State::Stale => "stale",
            _ => "none",
        };
        write!(
            f,
            "{:>7}   answered {:>7}   failed {:>3}   fetched {:>2}   token {:<10} {state:<5}",
            seconds(self.at),
            grouped(self.api.authorized),
            self.failed,
            self.issuer.token_requests,
            "#".repeat((left.as_millis() * 10).div_ceil(TOKEN_LIVES.as_millis()) as usize),
        )
    }
}

// ===== afterwards =====

struct Report {
    requests: usize,
    replayed: usize,
    api: ApiCounts,
    issuer: IssuerCounts,
    /// The issuer's own account: the n-th is token n, as long as no answer was lost.
    minted: Vec<Issued>,
    revoked: Option<Duration>,
    renewals: Vec<Renewal>,
    failures: Failures,
    /// Sorted.
    latencies: Vec<Duration>,
}

/// Why a token was fetched and who waited for it, which only the layer knows.
struct Renewal {
    token: u64,
    cause: Cause,
    took: Duration,
    waited: usize,
}

impl Renewal {
    fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Renewed {
                generation,
                cause,
                took,
                waited,
                ..
            } => Some(Self {
                token: generation.get(),
                cause: *cause,
                took: *took,
                waited: *waited,
            }),
            _ => None,
        }
    }

    fn why(&self) -> String {
        let last = self.token - 1;
        match self.cause {
            Cause::Initial => "there was none".into(),
            Cause::Expiring => format!("token {last} was expiring"),
            Cause::Refused => format!("the API refused token {last}"),
            other => format!("{other:?}"),
        }
    }
}

impl Report {
    fn is_good(&self) -> bool {
        self.failures.count() == 0 && self.issuer.presented_twice == 0 && self.api.expired_seen == 0
    }

    fn json(&self) -> String {
        format!(
            r#"{{"requests":{},"failed":{},"token_requests":{},"presented_twice":{},"replayed":{},"expired_sent":{},"p50_us":{},"p99_us":{}}}"#,
            self.requests,
            self.failures.count(),
            self.issuer.token_requests,
            self.issuer.presented_twice,
            self.replayed,
            self.api.expired_seen,
            self.latency(0.50).as_micros(),
            self.latency(0.99).as_micros(),
        )
    }

    /// What this share of the calls did not exceed.
    fn latency(&self, share: f64) -> Duration {
        let rank = (self.latencies.len() as f64 * share).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// One row for each token, and one for the revocation.
    fn timeline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  minted   token   why                             took   callers waiting"
        )?;
        let mut revoked = self.revoked;
        for (token, minted) in (1..).zip(&self.minted) {
            if let Some(at) = revoked.take_if(|at| *at < minted.at) {
                writeln!(f, "{:>8}       -   the issuer revoked token {}", seconds(at), token - 1)?;
            }
            write!(f, "{:>8}   {token:>5}   ", seconds(minted.at))?;
            match self.renewals.iter().find(|renewal| renewal.token == token) {
                Some(renewal) => writeln!(
                    f,
                    "{:<28}   {:>5}   {:>15}",
                    renewal.why(),
                    format!("{} ms", renewal.took.as_millis()),
                    renewal.waited
                )?,
                None => writeln!(f, "and never received")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        self.timeline(f)?;
        writeln!(f)?;
        let mut row = |what, count: u64, remark: &str| writeln!(f, "  {what:<17}{:>9}   {remark}", grouped(count));
        row("requests", self.requests as u64, &format!("of {CALLERS} callers"))?;
        row("failed", self.failures.count() as u64, "as the callers saw it")?;
        row("replayed", self.replayed as u64, "refused once, sent again")?;
        let most = self.issuer.max_in_flight;
        row(
            "token requests",
            self.issuer.token_requests,
            &format!("at most {most} at a time"),
        )?;
        row(
            "presented twice",
            self.issuer.presented_twice,
            "of the refresh tokens, each good for one use",
        )?;
        row("expired sent", self.api.expired_seen, "of the access tokens")?;
        writeln!(
            f,
            "  {:<17}{:>9}   p50, of which the API takes {}; p99 {}; slowest {}",
            "latency",
            millis(self.latency(0.50)),
            millis(API_TAKES),
            millis(self.latency(0.99)),
            millis(self.latency(1.0)),
        )?;
        match self.failures.first() {
            Some(failure) => writeln!(f, "\n  the first failure: {failure}"),
            None => Ok(()),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// With commas between the thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_short_run_is_a_good_one() -> Result<(), BoxError> {
        let report = run(RUN / 2, Live::Nothing).await?;
        assert!(report.is_good() && report.revoked.is_some(), "{report}");
        assert!(report.issuer.token_requests <= 7, "{report}");
        assert_eq!(report.issuer.max_in_flight, 1, "{report}");
        Ok(())
    }
}
