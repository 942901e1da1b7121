//! What a shared store promises, shown: each in a run of its own that prints a line for each target, what it is, what it
//! should be, what was seen, and whether that will do.
//!
//! | name | what | takes | shortened |
//! |---|---|---|---|
//! | `expiries` | 8 processes, one file; then the same, one killed every 5 s | 4 min | `--expiries 5 --kill-every 1s` |
//! | `redis` | 16 processes, one Redis | 1 min | `--expiries 5` |
//! | `pauses` | the process that renews is stopped in the middle of it | 5 min | `--rounds 2 --pause 1s..2s` |
//! | `outages` | Redis dark, full, closed to us, killed, emptied | 3 min | `--outage 3s` |
//! | `full-disk` | a full file system; needs root | 3 min | `--outage 3s` |
//! | `kills` | kill -9 at any instant, over a file | 5 min | `--rounds 10` |
//! | `durability` | the order of system calls, under `strace` | 1 min | `--renewals 20`, `--life 2s` |

mod durability;
mod expiries;
mod full_disk;
mod kills;
mod outages;
mod pauses;

use tower_token::BoxError;

use crate::command_line::Flags;
use crate::target::Target;

pub(crate) const NAMES: &str = "expiries, redis, pauses, outages, full-disk, kills, durability";

/// Whether all was as it should be.
pub(crate) async fn show(name: &str, mut flags: Flags) -> Result<bool, BoxError> {
    let targets = match name {
        "expiries" => expiries::over_a_file(&mut flags).await,
        "redis" => expiries::over_redis(&mut flags).await,
        "pauses" => pauses::pauses(&mut flags).await,
        "outages" => outages::outages(&mut flags).await,
        "full-disk" => full_disk::full_disk(&mut flags).await,
        "kills" => kills::kills(&mut flags).await,
        "durability" => durability::durability(&mut flags).await,
        _ => Err(format!("there is no {name:?} to show, but {NAMES}").into()),
    };
    let targets = targets?;
    for target in &targets {
        println!("{target}");
    }
    Ok(targets.iter().all(Target::is_met))
}
