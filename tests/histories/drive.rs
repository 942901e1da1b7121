//! Carries a history out on a handle, in virtual time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_token::{Clock, CloneBody, Error, Origins, Token, TokenLayer, Tokens};

use super::issuer::Issuer;
use super::record::{At, Caller, Happened, Record, Why, Wish};
use super::script::{Act, History};

/// What happened, to the end: the issuer healed, and a token had.
pub(crate) async fn run(history: &History) -> Vec<(At, Happened)> {
    let mut world = World::new(history);
    for act in &history.acts {
        world.act(act).await;
    }
    world.end().await;
    world.record.read()
}

struct World {
    record: Record,
    clock: Clock,
    issuer: Issuer,
    tokens: Tokens,
    origins: Origins,
    callers: Vec<JoinHandle<()>>,
    /// Every token that was handed out, oldest first, each once.
    seen: Arc<Mutex<Vec<Token>>>,
    installed: usize,
}

impl World {
    fn new(history: &History) -> Self {
        let clock = Clock::of_tokio();
        let record = Record::new(&clock);
        let issuer = Issuer::new(&record, history.if_lost, history.rotates, history.habit.clone());
        let tokens = Tokens::builder(issuer.clone()).clock(clock.clone()).build().unwrap();
        Self {
            record,
            clock,
            issuer,
            tokens,
            origins: Origins::only(API).unwrap(),
            callers: Vec::new(),
            seen: Arc::default(),
            installed: 0,
        }
    }

    async fn act(&mut self, act: &Act) {
        match act {
            Act::Wait(time) => self.wait(*time).await,
            Act::Yield => tokio::task::yield_now().await,
            Act::Step(seconds) => {
                self.clock.step(*seconds);
                self.record.write(Happened::Stepped(*seconds));
            }
            Act::Get => self.ask(Wish::Token),
            Act::Refresh => self.ask(Wish::Refresh),
            Act::Call => self.call(),
            Act::Leave(nth) => self.leave(*nth),
            Act::Refuse(back) => self.refuse(*back),
            Act::Install => self.install(),
            Act::SignOut => {
                self.record.write(Happened::SignedOut);
                self.tokens.sign_out();
            }
            Act::Script(answers) => self.issuer.script(answers),
            Act::Revoke => self.issuer.revoke(),
        }
    }

    async fn wait(&self, time: Duration) {
        // Until here every task does what it can do, but for what is woken at the very end.
        sleep(time).await;
        self.record.write(Happened::Settled(Box::new(self.tokens.status())));
    }

    fn ask(&mut self, wish: Wish) {
        let (caller, record, tokens, seen) = (
            self.callers.len(),
            self.record.clone(),
            self.tokens.clone(),
            self.seen.clone(),
        );
        self.callers.push(tokio::spawn(async move {
            record.write(Happened::Asked(caller, wish));
            let answer = match wish {
                Wish::Refresh => tokens.refresh().await,
                Wish::Token | Wish::Request => tokens.get().await,
            };
            match answer {
                Ok(token) => {
                    let generation = token.generation().unwrap().get();
                    record.write(Happened::Handed(caller, token.secret().to_owned(), generation));
                    let mut seen = seen.lock().unwrap();
                    if seen.last().and_then(Token::generation) != token.generation() {
                        seen.push(token);
                    }
                }
                Err(error) => record.write(Happened::Failed(caller, Why::from(&error))),
            }
        }));
    }

    fn call(&mut self) {
        let caller = self.callers.len();
        let (record, issuer) = (self.record.clone(), self.issuer.clone());
        let api = service_fn(move |request: Request<()>| {
            let header = request.headers().get("authorization").unwrap();
            let secret = header.to_str().unwrap().strip_prefix("Bearer ").unwrap();
            let accepted = issuer.accepts(secret);
            record.write(Happened::Delivered(caller, secret.to_owned(), accepted));
            async move { Ok::<_, Infallible>(answer(accepted)) }
        });
        let client = TokenLayer::new(&self.tokens, self.origins.clone())
            .replay(CloneBody)
            .layer(api);
        let record = self.record.clone();
        self.callers.push(tokio::spawn(async move {
            record.write(Happened::Asked(caller, Wish::Request));
            let request = Request::get(API).body(()).unwrap();
            record.write(match client.oneshot(request).await {
                Ok(_) => Happened::Served(caller),
                Err(error) => Happened::Failed(caller, why(error)),
            });
        }));
    }

    fn leave(&mut self, nth: Caller) {
        let waiting: Vec<_> = (0..self.callers.len())
            .filter(|caller| !self.callers[*caller].is_finished())
            .collect();
        if let Some(caller) = waiting.get(nth) {
            self.callers[*caller].abort();
            self.record.write(Happened::Left(*caller));
        }
    }

    fn refuse(&self, back: usize) {
        let token = self.seen.lock().unwrap().iter().rev().nth(back).cloned();
        if let Some(token) = token {
            self.record.write(Happened::Refused(token.generation().unwrap().get()));
            self.tokens.invalidate(&token);
        }
    }

    fn install(&mut self) {
        self.installed += 1;
        let credential = format!("test-installed-{}", self.installed);
        self.record.write(Happened::Installed(credential.clone()));
        self.tokens.install(Value::from(credential)).unwrap();
    }

    /// The issuer is well again. What is asked for now, and once every pause that may be asked for is over,
    /// and after an install, the model judges like all that came before.
    async fn end(&mut self) {
        self.issuer.heal();
        for time in [LONGEST_FLIGHT, SECOND, LONGEST_PAUSE] {
            self.wait(time).await;
            self.ask(Wish::Token);
        }
        self.wait(SECOND).await;
        self.install();
        self.ask(Wish::Token);
        self.wait(SECOND).await;
        self.record.write(Happened::Over);
    }
}

fn answer(accepted: bool) -> Response<()> {
    let status = if accepted {
        StatusCode::OK
    } else {
        StatusCode::UNAUTHORIZED
    };
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    answer
}

fn why(error: BoxError) -> Why {
    Why::from(Error::find(&*error).expect("an error of this crate"))
}

const SECOND: Duration = Duration::from_secs(1);
/// Two exchanges that are never answered, and the pause before them.
const LONGEST_FLIGHT: Duration = Duration::from_secs(62);
/// That any failure leaves but a verdict, or [`What::Throttled`](super::script::What::Throttled).
const LONGEST_PAUSE: Duration = Duration::from_secs(201);
const API: &str = "https://api.example.com/";
