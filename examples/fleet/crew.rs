//! The processes of a fleet, as the one who started them holds them.

use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_token::BoxError;

use crate::chronicle::Chronicle;
use crate::facts::{Fact, Time};
use crate::orders::Orders;

/// A clone is another handle on the same processes.
#[derive(Clone)]
pub(crate) struct Crew {
    pub(crate) chronicle: Chronicle,
    members: Arc<[Mutex<Standing>]>,
    /// In front of each member's own command line.
    under: Vec<String>,
}

enum Standing {
    Gone,
    Serving(Running),
    Paused(Running),
}

struct Running {
    child: Child,
    listening: JoinHandle<()>,
}

impl Crew {
    /// So many members, none of whom was started yet.
    pub(crate) fn of(members: usize) -> Self {
        Self {
            chronicle: Chronicle::new(),
            members: (0..members).map(|_| Mutex::new(Standing::Gone)).collect(),
            under: Vec::new(),
        }
    }

    /// Each runs under another program, such as `strace`.
    pub(crate) fn under(mut self, command: Vec<String>) -> Self {
        self.under = command;
        self
    }

    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn start_all(&self, orders: &Orders) -> Result<(), BoxError> {
        (0..self.size()).try_for_each(|member| self.start(member, orders))
    }

    pub(crate) fn start(&self, member: usize, orders: &Orders) -> Result<(), BoxError> {
        let mut line = self.under.clone();
        line.push(std::env::current_exe()?.to_string_lossy().into_owned());
        line.extend(orders.arguments());
        let mut child = Command::new(&line[0])
            .args(&line[1..])
            .envs(orders.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("a member without an output")?;
        let chronicle = self.chronicle.clone();
        let listening = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match Fact::heard(&line) {
                    Ok((at, fact)) => chronicle.note(at, member, fact),
                    // Its last line may be cut off.
                    Err(_) => eprintln!("member {member}: {line}"),
                }
            }
        });
        *self.member(member) = Standing::Serving(Running { child, listening });
        Ok(())
    }

    /// Who is neither dead nor paused.
    pub(crate) fn serving(&self) -> Vec<usize> {
        let is_serving = |member: &usize| matches!(*self.member(*member), Standing::Serving(_));
        (0..self.size()).filter(is_serving).collect()
    }

    /// kill -9; returns when it is dead and everything that it told is in the chronicle.
    pub(crate) async fn kill(&self, member: usize) {
        let standing = std::mem::replace(&mut *self.member(member), Standing::Gone);
        if let Standing::Serving(mut running) | Standing::Paused(mut running) = standing {
            self.chronicle.note(Time::now(), member, Fact::Killed);
            let _ = running.child.start_kill();
            let _ = running.child.wait().await;
            let _ = running.listening.await;
        }
    }

    /// Whether it could be: who is dead or paused already cannot.
    pub(crate) fn pause(&self, member: usize) -> bool {
        let mut standing = self.member(member);
        match std::mem::replace(&mut *standing, Standing::Gone) {
            Standing::Serving(running) => {
                // Before it stops, and after it goes on: what it cannot do between counts as paused.
                self.chronicle.note(Time::now(), member, Fact::Paused);
                signal(&running.child, Signal::Stop);
                *standing = Standing::Paused(running);
                true
            }
            other => {
                *standing = other;
                false
            }
        }
    }

    pub(crate) fn resume(&self, member: usize) {
        let mut standing = self.member(member);
        *standing = match std::mem::replace(&mut *standing, Standing::Gone) {
            Standing::Paused(running) => {
                signal(&running.child, Signal::Continue);
                self.chronicle.note(Time::now(), member, Fact::Resumed);
                Standing::Serving(running)
            }
            other => other,
        };
    }

    /// Asks all of them to leave, and waits until they did. Who does not is killed, and named.
    pub(crate) async fn dismiss(&self) -> Vec<usize> {
        let mut stuck = Vec::new();
        let mut leaving = Vec::new();
        for member in 0..self.size() {
            self.resume(member);
            let standing = std::mem::replace(&mut *self.member(member), Standing::Gone);
            if let Standing::Serving(mut running) = standing {
                self.chronicle.note(Time::now(), member, Fact::Ended);
                drop(running.child.stdin.take());
                leaving.push((member, running));
            }
        }
        for (member, mut running) in leaving {
            if timeout(LEAVES_WITHIN, running.child.wait()).await.is_err() {
                stuck.push(member);
                let _ = running.child.kill().await;
            }
            let _ = running.listening.await;
        }
        stuck
    }

    fn member(&self, member: usize) -> MutexGuard<'_, Standing> {
        self.members[member].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As long as an exchange may take by default.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);

enum Signal {
    Stop,
    Continue,
}

#[cfg(unix)]
fn signal(child: &Child, signal: Signal) {
    use rustix::process::{Pid, Signal as Number, kill_process};

    let number = match signal {
        Signal::Stop => Number::STOP,
        Signal::Continue => Number::CONT,
    };
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    // It may have died by itself, which its chronicle shows.
    if let Some(pid) = pid {
        let _ = kill_process(pid, number);
    }
}

/// Elsewhere nobody is paused.
#[cfg(not(unix))]
fn signal(_: &Child, _: Signal) {}
