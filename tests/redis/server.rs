//! A real `redis-server` of the calling test's own, on a free port of the loopback, with nothing on disk.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tower_token::RedisStore;

use super::left_out::left_out;

pub(crate) struct Redis {
    child: Child,
    port: u16,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Or it says why there is none.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With more of what a configuration may say, as `["--maxmemory", "2mb"]`.
    pub(crate) fn start_with(arguments: &[&str]) -> Option<Self> {
        if std::env::var_os("TOWER_TOKEN_REDIS").is_none() {
            left_out("redis-server is not installed, `tests/run` does that");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.into()).collect();
        loop {
            let port = free_port();
            if let Some(child) = run(port, &arguments, folder.path()) {
                return Some(Self {
                    child,
                    port,
                    arguments,
                    folder,
                });
            }
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn store(&self, key: &str) -> RedisStore {
        RedisStore::new(self.url(), key)
    }

    /// What the administrator says.
    pub(crate) fn admin<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        redis::cmd(command[0])
            .arg(&command[1..])
            .query(&mut connection)
            .unwrap()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// On the same port, empty.
    pub(crate) fn start_again(&mut self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(child) = run(self.port, &self.arguments, self.folder.path()) {
                self.child = child;
                return;
            }
        }
        panic!("port {} is not free again", self.port);
    }

    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // One that is stopped is killed as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// `None` if somebody else took the port meanwhile.
fn run(port: u16, arguments: &[String], folder: &Path) -> Option<Child> {
    let program = std::env::var_os("TOWER_TOKEN_REDIS").unwrap();
    let mut child = Command::new(program)
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if answers(port) {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("redis-server does not answer");
}

fn answers(port: u16) -> bool {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let connected = client.get_connection();
    connected.is_ok_and(|mut connection| redis::cmd("PING").exec(&mut connection).is_ok())
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
