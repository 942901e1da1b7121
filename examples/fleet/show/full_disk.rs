//! The file system is full for a minute.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tower_token::BoxError;

use crate::command_line::Flags;
use crate::facts::{Excerpt, Fact, Time};
use crate::place::Place;
use crate::stage::{Plan, Stage};
use crate::target::{Target, span};

pub(super) async fn full_disk(flags: &mut Flags) -> Result<Vec<Target>, BoxError> {
    let lasts = flags.span("outage", Some(Duration::from_secs(60)))?.unwrap_or_default();
    let disk = match SmallDisk::mount().await {
        Ok(disk) => disk,
        Err(error) => {
            println!("LEFT OUT: a small file system cannot be mounted ({error}); run this as root");
            return Ok(Vec::new());
        }
    };
    let other = SmallDisk::mount().await?;
    // One process that may renew alone does so from memory; a fleet that may not lives on what it has.
    let alone = Case {
        what: "one process that renews alone",
        processes: 1,
        life: Duration::from_secs(20),
        fills_at: Duration::from_secs(5),
        alone: true,
    };
    let fleet = Case {
        what: "4 processes that do not",
        processes: 4,
        life: lasts.mul_f64(10.0 / 3.0),
        fills_at: lasts.mul_f64(1.4),
        alone: false,
    };
    let (alone, fleet) = tokio::try_join!(alone.run(&disk, lasts), fleet.run(&other, lasts))?;
    Ok(alone.into_iter().chain(fleet).collect())
}

struct Case {
    what: &'static str,
    processes: usize,
    life: Duration,
    fills_at: Duration,
    alone: bool,
}

/// All processes together.
const REQUESTS_A_SECOND: f64 = 200.0;

impl Case {
    async fn run(self, disk: &SmallDisk, lasts: Duration) -> Result<Vec<Target>, BoxError> {
        let path = disk.folder.path().join("token.json");
        let stage = Stage::set(Plan {
            processes: self.processes,
            life: self.life,
            rate: REQUESTS_A_SECOND / self.processes as f64,
            alone: self.alone,
            ..Plan::at(Place::File(path.clone()))
        });
        let stage = stage.await?;
        stage.start()?;
        stage.more_than_granted(0).await;
        sleep(self.fills_at).await;

        let (before, began) = (std::fs::read(&path)?, Time::now());
        let filler = disk.fill()?;
        let (ends, mut changed) = (Instant::now() + lasts, 0);
        while Instant::now() < ends {
            changed += usize::from(std::fs::read(&path)? != before);
            sleep(Duration::from_millis(50)).await;
        }
        std::fs::remove_file(filler)?;
        let healed = Time::now();
        let granted = stage.issuer.counts().granted;
        sleep(Duration::from_secs(6)).await;
        let kept = stage
            .kept()
            .await?
            .and_then(|record| Some(serial(record.token()?.secret())));

        let (moments, account) = stage.close().await?;
        let what = format!("a full 64 KiB tmpfs for {}, {}", span(lasts), self.what);
        let (during, after) = (Excerpt::of(&moments, began..healed), Excerpt::of(&moments, healed..));
        let saved = after.first(Fact::is_save).map(|moment| moment.at.since(healed));
        let undurable = during.count(|fact| *fact == Fact::Undurable);
        let renewed = during.count(|fact| *fact == Fact::Renewed);
        println!("{what}: {:?}", during.trouble());
        for how in &account.failed {
            println!("{what}: a request failed: {how:?}");
        }
        let late = saved.unwrap_or(Duration::MAX);
        Ok(vec![
            Target::exactly(
                format!("{what}: failed requests, of {}", account.answered),
                0,
                account.failures(),
            ),
            Target::exactly(format!("{what}: looks at which the file was another"), 0, changed),
            Target::new(
                format!("{what}: persisted after space came back"),
                "<= 5.00 s",
                saved.map_or("never".into(), span),
                late <= Duration::from_secs(5),
            ),
            Target::stated(
                format!("{what}: renewed, told as undurable meanwhile"),
                format!("{renewed}, {undurable}"),
            ),
            Target::stated(
                format!("{what}: the token in the file, minted in all then"),
                format!("{kept:?}, {granted}"),
            ),
            Target::exactly(format!("{what}: presented twice"), 0, account.issuer.presented_twice),
        ])
    }
}

/// The testkit numbers its access tokens.
pub(super) fn serial(secret: &str) -> u64 {
    let number = secret
        .strip_prefix("test-access-")
        .and_then(|rest| rest.split('-').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A file system in memory, of 64 KiB.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    async fn mount() -> Result<Self, BoxError> {
        let folder = TempDir::new()?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder.path())
            .output()
            .await?;
        if !mount.status.success() {
            return Err(String::from_utf8_lossy(&mount.stderr).trim().to_owned().into());
        }
        Ok(Self { folder })
    }

    /// To the last byte; what it is full of.
    fn fill(&self) -> Result<PathBuf, BoxError> {
        let path = self.folder.path().join("filler");
        let mut file = File::create(&path)?;
        loop {
            match file.write(&[b'x'; 512]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(path),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.folder.path());
    }
}

fn unmount(folder: &Path) {
    // It is in memory and private to this program's folder: what stays behind is said, and harms nothing.
    match std::process::Command::new("umount").arg(folder).status() {
        Ok(status) if status.success() => {}
        _ => eprintln!("{} is still mounted", folder.display()),
    }
}
