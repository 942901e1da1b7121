//! A real `redis-server` of the calling test's own, on a free port of the loopback, with nothing on disk.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tower_token::RedisStore;

use super::left_out::left_out;

pub(crate) struct Redis {
    server: Running,
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
        // Somebody else may take a port that was free.
        for port in (0..10).map(|_| free_port()) {
            if let Some(server) = Running::start(port, &arguments, folder.path()) {
                return Some(Self {
                    server,
                    port,
                    arguments,
                    folder,
                });
            }
        }
        panic!("redis-server ends at once with {arguments:?}");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn store(&self, key: &str) -> RedisStore {
        store_at(self.url(), key)
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

    /// Publishes until somebody hears it.
    pub(crate) async fn until_heard(&self, channel: &str, message: &str) {
        let began = Instant::now();
        while self.admin::<u64>(&["PUBLISH", channel, message]) == 0 {
            assert!(began.elapsed() < PATIENCE, "nobody listens to {channel}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many connections there are, the administrator's among them.
    pub(crate) fn clients(&self) -> usize {
        self.admin::<String>(&["CLIENT", "LIST"]).lines().count()
    }

    /// Until the administrator's is the only connection.
    pub(crate) async fn until_alone(&self) {
        let began = Instant::now();
        while self.clients() > 1 {
            assert!(began.elapsed() < PATIENCE, "somebody stays connected");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.server.end();
    }

    /// On the same port, empty.
    pub(crate) fn start_again(&mut self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(server) = Running::start(self.port, &self.arguments, self.folder.path()) {
                self.server = server;
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
        // The shell's own: not every system has it as a program.
        let line = format!("kill {signal} {}", self.server.0.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success());
    }
}

/// As patient as a busy machine needs it.
pub(crate) fn store_at(url: String, key: &str) -> RedisStore {
    RedisStore::new(url, key).timeout(PATIENCE)
}

pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

struct Running(Child);

impl Running {
    /// `None` if it ends at once.
    fn start(port: u16, arguments: &[String], folder: &Path) -> Option<Self> {
        let program = std::env::var_os("TOWER_TOKEN_REDIS").unwrap();
        let started = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let mut server = Self(started.unwrap());
        let began = Instant::now();
        while server.0.try_wait().unwrap().is_none() {
            if server.answers(port) {
                return Some(server);
            }
            assert!(began.elapsed() < PATIENCE, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// It, and not another one that has its port.
    fn answers(&self, port: u16) -> bool {
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let info = client
            .get_connection()
            .and_then(|mut connection| redis::cmd("INFO").arg("server").query::<String>(&mut connection));
        info.is_ok_and(|info| info.contains(&format!("process_id:{}\r", self.0.id())))
    }

    /// kill -9, which ends one that is stopped as well.
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A term that does not end within a test.
pub(crate) const AGES: Duration = Duration::from_secs(3600);
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
