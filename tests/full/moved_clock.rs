//! A program whose wall clock is stepped under it, and one that is stopped for longer than a token lives.
//!
//! The program is this test binary, started once more with `libfaketime` in front of the C library: what it
//! reads as the time of day follows a file, its monotonic clock stays true. The issuer and the API live here,
//! in true time, and do the counting.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep};
use tower::{ServiceBuilder, ServiceExt};
use tower_token::oauth2::RefreshTokenGrant;
use tower_token::testkit::{Api, Issuer, Server};
use tower_token::{Origins, TokenClient, TokenLayer, Tokens};

use crate::duration;
use crate::left_out::left_out;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

// ===== What is shown =====

/// A forward step ends the token in place by the wall clock; a backward one ends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_wall_clock_costs_one_exchange_at_most() {
    let Some(library) = libfaketime() else { return };
    let ends = Instant::now() + duration() / 4;
    loop {
        let mut program = Program::start(&library, Duration::from_secs(3600)).await;
        program.calls(5).await;
        assert_eq!(program.exchanges(), 1);
        for (to, expected) in [
            (HOUR, 1),
            (0, 0),
            (DAY, 1),
            (0, 0),
            (-HOUR, 0),
            (0, 0),
            (-DAY, 0),
            (0, 0),
        ] {
            let before = program.exchanges();
            program.step(to).await;
            program.calls(5).await;
            assert_eq!(program.exchanges() - before, expected, "a step to {to:+} s");
        }
        program.end().await;
        if Instant::now() > ends {
            break;
        }
    }
}

/// By the wall clock a token of four seconds has an hour, or a day, left. It is used until it is really over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_expired_token_goes_out_after_a_step_back() {
    let Some(library) = libfaketime() else { return };
    let ends = Instant::now() + duration() / 2;
    loop {
        tokio::join!(stepped_back_by(HOUR, &library), stepped_back_by(DAY, &library));
        if Instant::now() > ends {
            break;
        }
    }
}

async fn stepped_back_by(seconds: i64, library: &Path) {
    let mut program = Program::start(library, LIFE).await;
    program.calls(1).await;
    program.step(-seconds).await;
    let (before, began) = (program.exchanges(), Instant::now());
    // Longer than the life of the token that was there at the step.
    program.calls(45).await;
    let cost = program.exchanges() - before;
    assert!(cost <= renewals(began.elapsed()) + 1, "{cost} exchanges");
    program.end().await;
}

/// As a suspended laptop: with the wall clock an hour on when it wakes, or with only the time that passed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_was_stopped_for_longer_than_a_life_sends_no_expired_token() {
    let Some(library) = libfaketime() else { return };
    let mut program = Program::start(&library, LIFE).await;
    let ends = Instant::now() + duration() / 2;
    for asleep in [0, HOUR, DAY].into_iter().cycle() {
        program.calls(5).await;
        program.signal("STOP").await;
        sleep(LIFE + Duration::from_millis(500)).await;
        program.set_clock(asleep);
        program.signal("CONT").await;
        let (before, began) = (program.exchanges(), Instant::now());
        program.calls(5).await;
        let cost = program.exchanges() - before;
        assert!(cost <= renewals(began.elapsed()) + 1, "{cost} exchanges");
        if Instant::now() > ends {
            break;
        }
    }
    program.end().await;
}

/// A quarter of it is the mandatory window, which has to be longer than a request takes on a busy machine.
const LIFE: Duration = Duration::from_secs(4);

/// How many renewals so much time is good for: half of each life is used.
fn renewals(elapsed: Duration) -> u64 {
    elapsed.as_secs().div_ceil(LIFE.as_secs() / 2)
}

// ===== The program, seen from here =====

struct Program {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    clock: PathBuf,
    issuer: Issuer,
    api: Api,
    _servers: [Server; 2],
}

impl Program {
    /// With tokens of so long a life.
    async fn start(library: &Path, life: Duration) -> Self {
        let issuer = Issuer::new();
        issuer.lifetime(life);
        let api = Api::new(&issuer);
        let servers = [issuer.serve().await.unwrap(), api.serve().await.unwrap()];
        let clock = clock_file();
        move_clock(&clock, 0);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "moved_clock::the_program", "--nocapture"])
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("PROGRAM_ISSUER", servers[0].url())
            .env("PROGRAM_API", servers[1].url())
            .env("PROGRAM_CLIENT", issuer.client_id())
            .env("PROGRAM_SECRET", issuer.client_secret())
            .env("PROGRAM_REFRESH", issuer.sign_in())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            commands,
            answers: BufReader::new(answers).lines(),
            clock,
            issuer,
            api,
            _servers: servers,
        }
    }

    async fn asked(&mut self, command: &str) -> String {
        let line = format!("{command}\n");
        self.commands.write_all(line.as_bytes()).await.unwrap();
        loop {
            let line = self.answers.next_line().await.unwrap().expect("the program ended");
            // The test runner writes its own lines between them, and in front of the first.
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.to_owned();
            }
        }
    }

    /// So many requests, a tenth of a second apart; all are answered.
    async fn calls(&mut self, number: u32) {
        let answered = self.asked(&format!("calls {number}")).await;
        assert_eq!(answered, format!("{number} answered"));
    }

    /// Steps its clock, and makes sure that it is seen.
    async fn step(&mut self, to: i64) {
        self.set_clock(to);
        let told: i64 = self.asked("time").await.parse().unwrap();
        let off = told - seconds_since_1970();
        assert!(
            (off - to).abs() < HOUR / 2,
            "libfaketime moved the clock by {off:+} s, not {to:+} s"
        );
    }

    fn set_clock(&self, to: i64) {
        move_clock(&self.clock, to);
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().await.unwrap();
        assert!(sent.success());
    }

    fn exchanges(&self) -> u64 {
        self.issuer.counts().token_requests
    }

    async fn end(mut self) {
        drop(self.commands);
        assert!(self.child.wait().await.unwrap().success());
        let (at_issuer, at_api) = (self.issuer.counts(), self.api.counts());
        println!("{at_issuer:?}; {at_api:?}");
        assert_eq!((at_issuer.presented_twice, at_issuer.max_in_flight), (0, 1));
        assert_eq!((at_api.expired_seen, at_api.refused), (0, 0));
        std::fs::remove_file(self.clock).unwrap();
    }
}

/// The build for programs with several threads, wherever the distribution has it; says so if it is nowhere.
fn libfaketime() -> Option<PathBuf> {
    let below = |folder: &str| std::fs::read_dir(folder).into_iter().flatten();
    let folders = below("/usr/lib").chain(below("/usr/local/lib"));
    let found = folders
        .filter_map(|entry| Some(entry.ok()?.path()))
        .chain(["/usr/lib".into(), "/usr/lib64".into(), "/usr/local/lib".into()])
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists());
    if found.is_none() {
        left_out("libfaketime is not installed (`apt-get install libfaketime`)");
    }
    found
}

fn clock_file() -> PathBuf {
    let name = format!("tower-token-clock-{}-{:x}", std::process::id(), fastrand::u64(..));
    std::env::temp_dir().join(name)
}

/// Whole at once: the program may look at any time.
fn move_clock(file: &Path, to: i64) {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{to:+}\n")).unwrap();
    std::fs::rename(next, file).unwrap();
}

fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs().cast_signed()
}

/// In front of what the program answers.
const MARK: &str = "program: ";

// ===== The program itself =====

/// No test: what the tests above start, with its clock in their hands. It does as it is told on its input.
#[tokio::test]
async fn the_program() {
    let Ok(issuer) = std::env::var("PROGRAM_ISSUER") else {
        return;
    };
    let given = |name: &str| std::env::var(name).unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let grant = RefreshTokenGrant::new(format!("{issuer}/token"), given("PROGRAM_CLIENT"))
        .client_secret(given("PROGRAM_SECRET"))
        .refresh_token(given("PROGRAM_REFRESH"))
        .client(TokenClient::new(client));
    let tokens = Tokens::new(grant).unwrap();
    let api = given("PROGRAM_API");
    let service = ServiceBuilder::new()
        .layer(TokenLayer::new(&tokens, Origins::only(&api).unwrap()))
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await.unwrap() {
        let answer = match command.split_once(' ') {
            Some(("calls", number)) => {
                let mut answered = 0;
                for _ in 0..number.parse().unwrap() {
                    let request = http::Request::get(format!("{api}/api")).body(Empty::new()).unwrap();
                    let response = service.clone().oneshot(request).await;
                    answered += u32::from(response.is_ok_and(|response| response.status() == 200));
                    sleep(Duration::from_millis(100)).await;
                }
                format!("{answered} answered")
            }
            _ => seconds_since_1970().to_string(),
        };
        println!("{MARK}{answer}");
    }
}
