//! The program under test, and a client for it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_token::BoxError;
use tower_token::testkit::{Issuer, Server};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
pub(crate) type Plain = Client<HttpConnector, Body>;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn http1() -> Plain {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) fn http2() -> Plain {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// Beside the test's own binary.
pub(crate) fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().unwrap().parent().unwrap().join("examples").join(example);
    assert!(
        binary.exists(),
        "{example} is not built: cargo build -p tower-token-examples --all-features --example {example}"
    );
    binary
}

/// A directory of its own for a file.
pub(crate) fn written(document: &str) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("tower-token-sidecar-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("sidecar.json");
    std::fs::write(&path, document).unwrap();
    path
}

/// Runs to its end.
pub(crate) fn run(example: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(built(example));
    command.args(arguments).output().unwrap()
}

pub(crate) struct Sidecar {
    child: Child,
    pub(crate) proxy: String,
    pub(crate) admin: String,
    said: Arc<Mutex<String>>,
    path: PathBuf,
}

impl Sidecar {
    pub(crate) fn start(document: &Value) -> Self {
        Self::start_in(document, &[])
    }

    pub(crate) fn start_in(document: &Value, environment: &[(&str, &str)]) -> Self {
        let path = written(&document.to_string());
        let mut child = Command::new(built("sidecar"))
            .arg(&path)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let mut errors = child.stderr.take().unwrap();
        let all = said.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 1024];
            while let Ok(read @ 1..) = errors.read(&mut chunk) {
                all.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..read]));
            }
        });
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        said.lock().unwrap().push_str(&line);
        let all = said.clone();
        std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = output.read_to_string(&mut rest);
            all.lock().unwrap().push_str(&rest);
        });
        let ports = line.trim_end().strip_prefix("listening on ");
        let (proxy, admin) = ports
            .and_then(|ports| ports.split_once(", admin on "))
            .unwrap_or_else(|| panic!("it said {line:?} and {}", said.lock().unwrap()));
        Self {
            child,
            proxy: proxy.to_owned(),
            admin: admin.to_owned(),
            said,
            path,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.proxy)
    }

    /// Everything on stdout and stderr so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        // The shell's own: a minimal system has no other.
        let kill = format!("kill {name} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status();
        assert!(sent.unwrap().success());
    }

    /// Its exit status, and how long it took from now.
    pub(crate) async fn ended(&mut self) -> (ExitStatus, Duration) {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, from.elapsed());
            }
            assert!(from.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The answer of the admin port.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.admin))
            .body(full(body.to_owned()))
            .unwrap();
        text(http1().request(request).await.unwrap()).await
    }

    /// What `/status` says of one token.
    pub(crate) async fn status(&self, token: &str) -> Value {
        let (status, body) = self.admin("GET", "/status", "").await;
        assert_eq!(status, StatusCode::OK);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ready"], true);
        body["tokens"][token].clone()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        text(http1().request(get(&self.url(path))).await.unwrap()).await
    }

    /// Sends those bytes and reads until the other side ends, or goes silent.
    pub(crate) async fn raw(&self, request: impl Into<String>) -> String {
        let mut stream = TcpStream::connect(&self.proxy).await.unwrap();
        stream.write_all(request.into().as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(2), read).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

pub(crate) fn get(url: &str) -> Request<Body> {
    Request::get(url).body(full("")).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Waits for what has to become true.
pub(crate) async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let from = Instant::now();
    while !is_true().await {
        assert!(from.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An issuer on a port, and the `tokens` of a file that ask it.
pub(crate) struct Login {
    pub(crate) issuer: Issuer,
    pub(crate) server: Server,
}

impl Login {
    pub(crate) async fn new() -> Self {
        let issuer = Issuer::new();
        let server = issuer.serve().await.unwrap();
        Self { issuer, server }
    }

    /// A token by client credentials.
    pub(crate) fn app(&self) -> Value {
        json!({ "provider": {
            "type": "oauth2.client_credentials",
            "token_url": format!("{}/token", self.server.url()),
            "client_id": self.issuer.client_id(),
            "client_secret": self.issuer.client_secret(),
            "client_auth": "post",
        } })
    }

    /// A token by a refresh token that rotates.
    pub(crate) fn user(&self) -> Value {
        json!({ "provider": {
            "type": "oauth2.refresh_token",
            "token_url": format!("{}/token", self.server.url()),
            "client_id": self.issuer.client_id(),
            "client_secret": self.issuer.client_secret(),
            "client_auth": "basic",
            "refresh_token": self.issuer.sign_in(),
            "replay": "once",
        } })
    }

    pub(crate) fn requests(&self) -> u64 {
        self.issuer.counts().token_requests
    }
}
