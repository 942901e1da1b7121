//! A Redis of our own on a free port of loopback, which dies with us.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tower_token::BoxError;

/// Names the program if it is not on the `PATH`.
const PROGRAM: &str = "TOWER_TOKEN_REDIS";

pub(crate) struct RedisServer {
    pub(crate) port: u16,
    process: Child,
    folder: TempDir,
}

impl RedisServer {
    /// It writes everything down, so that it knows it again after a kill.
    pub(crate) async fn start() -> Result<Self, BoxError> {
        // Free now; whoever is quicker makes the server fail, which is said.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = folder()?;
        let process = run(port, &folder).await?;
        Ok(Self { port, process, folder })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Runs a command there.
    pub(crate) async fn order<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Result<(), BoxError> {
        let port = self.port.to_string();
        let client = Command::new("redis-cli")
            .args(["-p", &port])
            .args(words)
            .output()
            .await?;
        let answer = String::from_utf8_lossy(&client.stdout);
        match answer.trim() {
            "OK" => Ok(()),
            other => Err(format!("redis-cli: {other}").into()),
        }
    }

    /// kill -9.
    pub(crate) async fn die(&mut self) -> Result<(), BoxError> {
        Ok(self.process.kill().await?)
    }

    /// At the same port, with what it wrote down.
    pub(crate) async fn come_back(&mut self) -> Result<(), BoxError> {
        self.process = run(self.port, &self.folder).await?;
        Ok(())
    }

    /// At the same port, and empty.
    pub(crate) async fn come_back_empty(&mut self) -> Result<(), BoxError> {
        self.folder = folder()?;
        self.come_back().await
    }
}

/// In memory, where there is such a place: a disk that is busy with something else stalls a Redis, and whoever waits
/// for it.
fn folder() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        TempDir::new_in(memory)
    } else {
        TempDir::new()
    }
}

async fn run(port: u16, folder: &TempDir) -> Result<Child, BoxError> {
    let program = std::env::var(PROGRAM).unwrap_or_else(|_| "redis-server".into());
    let mut process = Command::new(&program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        // A kill leaves what was written; the disk need not be waited for.
        .args(["--save", "", "--appendonly", "yes", "--appendfsync", "no"])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("`{program}` cannot be started ({error}); {PROGRAM} names another"))?;
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        if let Some(status) = process.try_wait()? {
            return Err(format!("`{program}` left with {status}").into());
        }
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(format!("`{program}` does not listen").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(process)
}
