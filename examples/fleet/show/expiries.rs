//! One exchange for each expiry, however many processes there are; also if some of them are killed.

use std::time::Duration;

use fastrand::Rng;
use tempfile::TempDir;
use tower_token::BoxError;

use crate::accidents;
use crate::account::Account;
use crate::command_line::Flags;
use crate::place::Place;
use crate::redis_server::RedisServer;
use crate::stage::{Plan, Stage};
use crate::target::{Target, span};

pub(super) async fn over_a_file(flags: &mut Flags) -> Result<Vec<Target>, BoxError> {
    let expiries = flags.value("expiries", 100)?;
    let every = flags
        .span("kill-every", Some(Duration::from_secs(5)))?
        .unwrap_or(Duration::MAX);
    let seed = flags.value("seed", fastrand::u64(..))?;
    let folder = TempDir::new()?;

    let quiet = Stage::set(Plan::at(Place::File(folder.path().join("quiet.json")))).await?;
    quiet.start()?;
    quiet.until_granted(expiries).await?;
    let (_, quiet) = quiet.close().await?;

    let deadly = Stage::set(Plan::at(Place::File(folder.path().join("deadly.json")))).await?;
    deadly.start()?;
    tokio::select! {
        reached = deadly.until_granted(expiries) => reached?,
        killed = accidents::kills(deadly.crew.clone(), deadly.orders.clone(), every, Rng::with_seed(seed)) => killed?,
    }
    let (_, deadly) = deadly.close().await?;
    println!(
        "without kills\n{quiet}\none killed every {}, seed {seed}\n{deadly}",
        span(every)
    );

    let mut targets = exchanges("8 processes, one file", expiries, &quiet);
    let killed = format!("8 processes, one file, one killed every {}", span(every));
    targets.push(Target::at_most(
        format!("{killed}: longest stall"),
        Duration::from_secs(2),
        deadly.stall,
    ));
    targets.push(Target::stated(
        format!("{killed}: exchanges, expected"),
        format!("{}, {}", deadly.issuer.token_requests, deadly.expected),
    ));
    targets.push(Target::exactly(
        format!("{killed}: presented twice"),
        0,
        deadly.issuer.presented_twice,
    ));
    targets.push(Target::exactly(
        format!("{killed}: failed requests"),
        0,
        deadly.failures(),
    ));
    Ok(targets)
}

pub(super) async fn over_redis(flags: &mut Flags) -> Result<Vec<Target>, BoxError> {
    let expiries = flags.value("expiries", 60)?;
    let processes = flags.value("processes", 16)?;
    let server = RedisServer::start().await?;
    let stage = Stage::set(Plan {
        processes,
        ..Plan::at(Place::Redis {
            key: "tt:fleet".into(),
            url: server.url(),
        })
    });
    let stage = stage.await?;
    stage.start()?;
    stage.until_granted(expiries).await?;
    let (_, account) = stage.close().await?;
    println!("{account}");
    let what = format!("{processes} processes, one Redis");
    let mut targets = exchanges(&what, expiries, &account);
    let slowest = account.lag(1.0);
    targets.push(Target::at_most(
        format!("{what}: every process on the new token"),
        Duration::from_millis(250),
        slowest,
    ));
    targets.push(Target::exactly(format!("{what}: tokens skipped"), 0, account.skipped));
    Ok(targets)
}

fn exchanges(what: &str, expiries: u64, account: &Account) -> Vec<Target> {
    let issuer = &account.issuer;
    vec![
        Target::exactly(
            format!("{what}, {expiries} expiries: exchanges"),
            account.expected,
            issuer.token_requests,
        ),
        Target::exactly(format!("{what}: expiries seen"), expiries, account.expected),
        Target::exactly(format!("{what}: presented twice"), 0, issuer.presented_twice),
        Target::exactly(format!("{what}: reuse detected"), 0, issuer.reuse),
        Target::exactly(format!("{what}: failed requests"), 0, account.failures()),
    ]
}
