//! The server's side: starts it, steers it, and asks it what it counted.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tower_token::{FetchError, RefreshPolicy, Token, Tokens, provider_fn};

use crate::left_out::left_out;

/// A test that waits longer for something has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The server, for the length of one test.
#[derive(Debug)]
pub(crate) struct Server {
    port: u64,
    control: Control,
    // Killed when it is dropped. If even this does not happen, its closed stdin ends it.
    _child: Child,
}

/// What reached the server. Each delivery is `answered`, `refused`, `denied` or `left` when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Tokens that were fetched.
    pub(crate) issued: u64,
    /// Tokens that were revoked while they were valid.
    pub(crate) revoked: u64,
    /// Calls that arrived, each as often as it was sent.
    pub(crate) deliveries: u64,
    /// ... and ended well.
    pub(crate) answered: u64,
    /// ... and ended with UNAUTHENTICATED.
    pub(crate) refused: u64,
    /// ... and ended with PERMISSION_DENIED.
    pub(crate) denied: u64,
    /// ... and were cancelled by the client.
    pub(crate) left: u64,
    /// Calls with a name, each once.
    pub(crate) calls: u64,
    /// The most deliveries of one of them.
    pub(crate) max_deliveries: u64,
    /// Deliveries by path.
    pub(crate) methods: BTreeMap<String, u64>,
    /// TCP connections.
    pub(crate) connections: u64,
}

impl Server {
    /// Starts a server of its own for the calling test, or says why there is none.
    pub(crate) async fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("TOWER_TOKEN_PYTHON") else {
            left_out("the gRPC server is not installed, `tests/run` does that");
            return None;
        };
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc/server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the gRPC server starts");
        let orders = child.stdin.take().expect("stdin is piped");
        let answers = child.stdout.take().expect("stdout is piped");
        let mut answers = BufReader::new(answers).lines();
        let ready = answer(&mut answers).await;
        Some(Self {
            port: number(&ready["port"]),
            control: Control::over(orders, answers),
            _child: child,
        })
    }

    /// A channel to it, which connects when it is first used.
    pub(crate) fn channel(&self) -> Channel {
        self.endpoint().connect_lazy()
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).expect("a URL")
    }

    /// Its tokens. They live for an hour, so that they end by revocation only, and may be revoked as
    /// often as a test likes to.
    pub(crate) fn tokens(&self) -> Tokens {
        let control = self.control.clone();
        let provider = provider_fn(move |_| {
            let control = control.clone();
            async move {
                let issued = control.order(json!({ "do": "issue" })).await;
                let token = issued["token"]
                    .as_str()
                    .ok_or_else(|| FetchError::terminal("no token"))?;
                Ok(Token::bearer(token).expires_in(Duration::from_secs(3600)))
            }
        });
        Tokens::builder(provider)
            .policy(RefreshPolicy::default().min_interval(Duration::ZERO))
            .build()
            .expect("a policy")
    }

    /// Every token dies. Answers how many there were.
    pub(crate) async fn revoke(&self) -> u64 {
        number(&self.order(json!({ "do": "revoke" })).await["revoked"])
    }

    /// Every token dies once so many more calls were found to have a valid one.
    pub(crate) async fn revoke_after(&self, calls: u64) {
        self.order(json!({ "do": "revoke", "after": calls })).await;
    }

    /// The streams of `Watch` have something to say.
    pub(crate) async fn notify(&self) {
        self.order(json!({ "do": "notify" })).await;
    }

    /// What is held goes on.
    pub(crate) async fn release(&self) {
        self.order(json!({ "do": "release" })).await;
    }

    /// The number of the token that each delivery of this call came with, in their order.
    pub(crate) async fn deliveries(&self, id: &str) -> Vec<u64> {
        numbers(&self.order(json!({ "do": "deliveries", "id": id })).await["tokens"])
    }

    /// What reached the server.
    pub(crate) async fn counts(&self) -> Counts {
        let all = self.order(json!({ "do": "counts" })).await;
        let methods = all["methods"].as_object().expect("the methods");
        Counts {
            issued: number(&all["issued"]),
            revoked: number(&all["revoked"]),
            deliveries: number(&all["deliveries"]),
            answered: number(&all["answered"]),
            refused: number(&all["refused"]),
            denied: number(&all["denied"]),
            left: number(&all["left"]),
            calls: number(&all["calls"]),
            max_deliveries: number(&all["max_deliveries"]),
            methods: methods
                .iter()
                .map(|(path, count)| (path.clone(), number(count)))
                .collect(),
            connections: number(&all["connections"]),
        }
    }

    /// Waits until the counts are like this; fails with them if that takes 20 seconds.
    pub(crate) async fn until(&self, like_this: impl Fn(&Counts) -> bool) -> Counts {
        let started = Instant::now();
        loop {
            let counts = self.counts().await;
            if like_this(&counts) {
                return counts;
            }
            assert!(started.elapsed() < PATIENCE, "the counts stay as they are: {counts:#?}");
            sleep(Duration::from_millis(1)).await;
        }
    }

    async fn order(&self, order: Value) -> Value {
        self.control.order(order).await
    }
}

/// The server's stdin and stdout. A task holds them, so that a caller that leaves takes no answer along.
#[derive(Debug, Clone)]
struct Control {
    orders: mpsc::UnboundedSender<(Value, oneshot::Sender<Value>)>,
}

impl Control {
    fn over(mut stdin: ChildStdin, mut answers: Lines<BufReader<ChildStdout>>) -> Self {
        let (orders, mut given) = mpsc::unbounded_channel::<(Value, oneshot::Sender<Value>)>();
        tokio::spawn(async move {
            while let Some((order, reply)) = given.recv().await {
                stdin
                    .write_all(format!("{order}\n").as_bytes())
                    .await
                    .expect("the server listens");
                let answer = answer(&mut answers).await;
                assert!(answer.get("error").is_none(), "{answer}");
                let _ = reply.send(answer);
            }
        });
        Self { orders }
    }

    async fn order(&self, order: Value) -> Value {
        let (reply, answer) = oneshot::channel();
        let _ = self.orders.send((order, reply));
        answer.await.expect("the server obeys")
    }
}

async fn answer(answers: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = answers.next_line().await.expect("the server lives");
    serde_json::from_str(&line.expect("a line")).expect("JSON")
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[track_caller]
fn numbers(values: &Value) -> Vec<u64> {
    values.as_array().expect("a list").iter().map(number).collect()
}
