//! Eight processes share one session over a file or a Redis, and some are killed and paused meanwhile.
//!
//! ```text
//! cargo run --release --example fleet                              watch them, over a file
//! cargo run --release --features redis --example fleet -- --store redis
//! cargo run --release --example fleet -- show NAME                 one promise, and whether it was kept
//! ```
//!
//! Nothing leaves the machine. The issuer and the API come from the testkit and listen on loopback in this process. The
//! issuer is a strict one: each refresh token is good for one use, and a second use ends the session for all. Tokens live
//! for two seconds, so one is due each second, and every process notices it at the same moment. All of them call the API
//! 20 times a second through a `TokenLayer`.
//!
//! The processes are this program again ([`member`]: the part that you would write). They share nothing but the store.
//! One of them renews, the others adopt what it got. Who is killed goes on with the stored token when it is started
//! again.
//!
//! At the end there is a picture of what happened, a row for each process, and a table. Exchanges and second
//! presentations are as the issuer counted them, not the processes. The exit status is 1 if there was an exchange too
//! many or a refresh token was presented twice.

#[path = "fleet/accidents.rs"]
mod accidents;
#[path = "fleet/account.rs"]
mod account;
#[path = "fleet/chronicle.rs"]
mod chronicle;
#[path = "fleet/command_line.rs"]
mod command_line;
#[path = "fleet/crew.rs"]
mod crew;
#[path = "fleet/facts.rs"]
mod facts;
#[path = "fleet/member.rs"]
mod member;
#[path = "fleet/orders.rs"]
mod orders;
#[path = "fleet/place.rs"]
mod place;
#[path = "fleet/proxy.rs"]
mod proxy;
#[path = "fleet/redis_server.rs"]
mod redis_server;
#[path = "fleet/show/mod.rs"]
mod show;
#[path = "fleet/stage.rs"]
mod stage;
#[path = "fleet/target.rs"]
mod target;
#[path = "fleet/timeline.rs"]
mod timeline;
#[path = "fleet/watched.rs"]
mod watched;

use std::process::ExitCode;
use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tokio::time::sleep;
use tower_token::BoxError;

use command_line::{Flags, spans};
use orders::{MEMBER, Orders};
use place::Place;
use redis_server::RedisServer;
use stage::{Plan, Stage};
use timeline::Timeline;

const USAGE: &str = "\
usage: fleet [--store file|redis] [--redis-url redis://HOST:PORT/DB]   default: a file; a Redis of our own
             [--processes 8] [--rate 20] [--life 2s] [--lease 8s]
             [--kill-every 5s|never] [--pause-every 7s|never] [--pause 1s..3s] [--seed NUMBER]
             [--expiries 20] [--for 60s]                               whichever is over first
             [--chronicle FILE]                                        every line that was told
       fleet show NAME [--FLAG VALUE]...";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--help") {
        println!("{USAGE}\n       NAME: {}", show::NAMES);
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fleet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<bool, BoxError> {
    let mut runtime = match arguments.first() {
        // There are many of them.
        Some(first) if first == MEMBER => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()?.block_on(async {
        match arguments {
            [first, rest @ ..] if first == MEMBER => member::serve(Orders::read(rest)?).await.map(|()| true),
            [show, name, rest @ ..] if show == "show" => show::show(name, Flags::of(rest)?).await,
            _ => watch(Flags::of(arguments)?).await,
        }
    })
}

/// Whether there was no exchange too many, and no refresh token presented twice.
async fn watch(mut flags: Flags) -> Result<bool, BoxError> {
    let expiries: u64 = flags.value("expiries", 20)?;
    let limit = flags.span("for", None)?;
    let kill_every = flags.span("kill-every", Some(Duration::from_secs(5)))?;
    let pause_every = flags.span("pause-every", Some(Duration::from_secs(7)))?;
    let pause = spans(&flags.value("pause", String::from("1s..3s"))?)?;
    let seed: u64 = flags.value("seed", fastrand::u64(..))?;
    let folder = TempDir::new()?;
    let (place, _redis) = place(&mut flags, &folder).await?;
    let default = Plan::at(place);
    let plan = Plan {
        processes: flags.value("processes", default.processes)?,
        rate: flags.value("rate", default.rate)?,
        life: flags.span("life", None)?.unwrap_or(default.life),
        lease: flags.span("lease", None)?.unwrap_or(Duration::from_secs(8)),
        ..default
    };
    let chronicle = flags.take("chronicle");
    flags.end()?;
    println!("{} processes, seed {seed}", plan.processes);

    let stage = Stage::set(plan).await?;
    // So that there is something to see.
    stage.issuer.latency(Duration::from_millis(20));
    stage.start()?;
    let mut random = Rng::with_seed(seed);
    let (kills, pauses) = (random.fork(), random.fork());
    let accidents = async {
        let kill = async {
            match kill_every {
                Some(every) => accidents::kills(stage.crew.clone(), stage.orders.clone(), every, kills).await,
                None => std::future::pending().await,
            }
        };
        let pause = async {
            match pause_every {
                Some(every) => accidents::pauses(stage.crew.clone(), every, pause, pauses).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = kill => error,
            () = pause => Ok(()),
        }
    };
    tokio::select! {
        reached = stage.until_granted(expiries) => reached?,
        () = sleep(limit.unwrap_or(Duration::MAX)) => {}
        error = accidents => error?,
    }
    let minted = stage.minted();
    let (moments, account) = stage.close().await?;
    if let Some(path) = chronicle {
        let lines: Vec<_> = moments.iter().map(ToString::to_string).collect();
        std::fs::write(path, lines.join("\n"))?;
    }
    if let Some(timeline) = Timeline::of(stage.crew.size(), &moments, &minted) {
        println!("\n{timeline}");
    }
    println!("{account}");
    Ok(account.issuer.token_requests == account.expected && account.issuer.presented_twice == 0)
}

/// Where the token is kept, and the Redis that we started for it.
async fn place(flags: &mut Flags, folder: &TempDir) -> Result<(Place, Option<RedisServer>), BoxError> {
    let given = flags.take("redis-url");
    let redis = |url| Place::Redis {
        // Not what another run left there.
        key: format!("tt:fleet:{:08x}", fastrand::u32(..)),
        url,
    };
    match (flags.value("store", String::from("file"))?.as_str(), given) {
        ("file", None) => Ok((Place::File(folder.path().join("token.json")), None)),
        ("redis", Some(url)) => Ok((redis(url), None)),
        ("redis", None) => {
            let server = RedisServer::start().await?;
            Ok((redis(server.url()), Some(server)))
        }
        (other, _) => Err(format!("--store {other}: it is file or redis, and a URL is for redis").into()),
    }
}
