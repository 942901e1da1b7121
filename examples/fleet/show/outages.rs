//! The store is not to be had for a minute, in five ways, and the token lives: nobody's request fails, and the fleet is
//! back within two seconds.

use std::fmt;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_token::BoxError;

use crate::command_line::Flags;
use crate::facts::{Excerpt, Fact, Time};
use crate::place::Place;
use crate::proxy::Proxy;
use crate::redis_server::RedisServer;
use crate::stage::{Plan, Stage};
use crate::target::{Target, span};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outage {
    /// Nothing comes through, no connection ends.
    Dark,
    /// `OOM command not allowed`.
    Full,
    /// `NOPERM`: the user lost its keys.
    Denied,
    /// kill -9; it comes back with what it had.
    Killed,
    /// kill -9; it comes back with nothing.
    Emptied,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dark => "blackholed",
            Self::Full => "out of memory",
            Self::Denied => "wrong ACL",
            Self::Killed => "killed and restarted",
            Self::Emptied => "killed and restarted empty",
        })
    }
}

pub(super) async fn outages(flags: &mut Flags) -> Result<Vec<Target>, BoxError> {
    let lasts = flags.span("outage", Some(Duration::from_secs(60)))?.unwrap_or_default();
    let all = [
        Outage::Dark,
        Outage::Full,
        Outage::Denied,
        Outage::Killed,
        Outage::Emptied,
    ];
    // Side by side, each with a Redis of its own.
    let running: Vec<_> = all.iter().map(|outage| tokio::spawn(one(*outage, lasts))).collect();
    let mut targets = Vec::new();
    for one in running {
        targets.extend(one.await??);
    }
    Ok(targets)
}

impl Outage {
    /// The user that the fleet is, as it stands in a URL.
    async fn user(self, server: &RedisServer) -> Result<&'static str, BoxError> {
        match self {
            // What it may do is not written down: after a restart it would be unknown.
            Self::Denied => {
                let may = ["on", ">test-password", "+@all"].into_iter().chain(ITS_KEYS);
                server.order(ACL.into_iter().chain(may)).await?;
                Ok("fleet:test-password@")
            }
            _ => Ok(""),
        }
    }

    async fn begins(self, server: &mut RedisServer, proxy: &Proxy) -> Result<(), BoxError> {
        match self {
            Self::Dark => proxy.dark(true),
            Self::Full => server.order(["CONFIG", "SET", "maxmemory", "1"]).await?,
            Self::Denied => {
                server
                    .order(ACL.into_iter().chain(["resetkeys", "resetchannels"]))
                    .await?
            }
            Self::Killed | Self::Emptied => server.die().await?,
        }
        Ok(())
    }

    async fn ends(self, server: &mut RedisServer, proxy: &Proxy) -> Result<(), BoxError> {
        match self {
            Self::Dark => proxy.dark(false),
            Self::Full => server.order(["CONFIG", "SET", "maxmemory", "0"]).await?,
            Self::Denied => server.order(ACL.into_iter().chain(ITS_KEYS)).await?,
            Self::Killed => server.come_back().await?,
            Self::Emptied => server.come_back_empty().await?,
        }
        Ok(())
    }
}

const ACL: [&str; 3] = ["ACL", "SETUSER", "fleet"];
const ITS_KEYS: [&str; 2] = ["~{tt:fleet}:*", "&{tt:fleet}:*"];

async fn one(outage: Outage, lasts: Duration) -> Result<Vec<Target>, BoxError> {
    let mut server = RedisServer::start().await?;
    let proxy = Proxy::to(server.port).await?;
    let user = outage.user(&server).await?;
    let stage = Stage::set(Plan {
        processes: 4,
        life: lasts.mul_f64(LIFE),
        ..Plan::at(Place::Redis {
            key: "tt:fleet".into(),
            url: format!("redis://{user}{}/0", proxy.addr),
        })
    });
    let stage = stage.await?;
    stage.start()?;
    stage.more_than_granted(0).await;
    sleep(lasts.mul_f64(LIFE * BEGINS)).await;

    let began = Time::now();
    outage.begins(&mut server, &proxy).await?;
    sleep(lasts).await;
    let granted = stage.issuer.counts().granted;
    outage.ends(&mut server, &proxy).await?;
    let healed = Time::now();
    // If it does not, that is what the lines say.
    let _ = timeout(Duration::from_secs(60), stage.more_than_granted(granted)).await;
    sleep(Duration::from_secs(2)).await;
    let (moments, account) = stage.close().await?;

    let what = format!("Redis {outage} for {}", span(lasts));
    let (during, after) = (Excerpt::of(&moments, began..healed), Excerpt::of(&moments, healed..));
    println!("{what}: {:?}", during.trouble());
    for how in &account.failed {
        println!("{what}: a request failed: {how:?}");
    }
    let failed = during.count(Fact::is_failure);
    let troubles = during.count(Fact::is_trouble);
    let saved = after.first(Fact::is_save).map(|moment| moment.at.since(healed));
    let renewed = on_new_tokens(&after, stage.crew.size()).map(|at| at.since(healed));
    Ok(vec![
        Target::exactly(
            format!("{what}: failed requests, of {}", during.count(Fact::is_answer)),
            0,
            failed,
        ),
        Target::exactly(
            format!("{what}: failed requests before and after"),
            0,
            account.failures() - failed,
        ),
        Target::new(format!("{what}: members that said so"), ">= 1", troubles, troubles > 0),
        within(format!("{what}: saved again after healing"), saved),
        match outage {
            // Whoever knows something newer gets 2 s to put it back before anything is spent.
            Outage::Emptied => Target::stated(
                format!("{what}: all on a new token after"),
                renewed.map_or("never".into(), span),
            ),
            _ => within(format!("{what}: all on a new token after"), renewed),
        },
        Target::exactly(format!("{what}: presented twice"), 0, account.issuer.presented_twice),
        Target::exactly(
            format!("{what}: exchanges"),
            account.expected,
            account.issuer.token_requests,
        ),
    ])
}

/// When the last of all members was on a token that it did not have before.
fn on_new_tokens(after: &Excerpt<'_>, members: usize) -> Option<Time> {
    let first = |member| {
        let mut own = after.0.iter().filter(|moment| moment.member == member);
        own.find(|moment| matches!(moment.fact, Fact::On(..)))
            .map(|moment| moment.at)
    };
    let all: Option<Vec<Time>> = (0..members).map(first).collect();
    all?.into_iter().max()
}

fn within(what: String, seen: Option<Duration>) -> Target {
    match seen {
        Some(seen) => Target::at_most(what, Duration::from_secs(2), seen),
        None => Target::new(what, "<= 2.00 s", "never", false),
    }
}

/// A life in outages. It comes due at half of it and is waited for from three quarters on: an outage that begins a little
/// before the one ends a little before the other.
const LIFE: f64 = 10.0 / 3.0;
const BEGINS: f64 = 0.42;
