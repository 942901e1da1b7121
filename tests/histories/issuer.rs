//! The provider of a history: answers as scripted, and writes down when it was asked and how that ended.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::sleep;
use tower_token::{Class, FetchContext, FetchError, IfLost, Token, TokenProvider};

use super::record::{Answered, Happened, Life, Minted, Record};
use super::script::{Answer, What};

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Issuer {
    record: Record,
    if_lost: IfLost,
    rotates: bool,
    state: Arc<Mutex<State>>,
}

struct State {
    habit: Answer,
    script: VecDeque<Answer>,
    /// So many tokens were minted.
    minted: usize,
    /// With the end of its life by the wall clock.
    newest: Option<(String, Duration)>,
    revoked: HashSet<String>,
}

impl Issuer {
    pub(crate) fn new(record: &Record, if_lost: IfLost, rotates: bool, habit: Answer) -> Self {
        let state = State {
            habit,
            script: VecDeque::new(),
            minted: 0,
            newest: None,
            revoked: HashSet::new(),
        };
        Self {
            record: record.clone(),
            if_lost,
            rotates,
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(crate) fn script(&self, answers: &[Answer]) {
        self.state().script.extend(answers.iter().cloned());
    }

    /// From now on it mints good tokens at once.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.script.clear();
        state.habit = Answer {
            what: What::Mint(Duration::from_secs(3600)),
            after: Duration::ZERO,
        };
    }

    pub(crate) fn revoke(&self) {
        let mut state = self.state();
        let newest = state.newest.as_ref().map(|(secret, _)| secret.clone());
        state.revoked.extend(newest);
    }

    pub(crate) fn accepts(&self, secret: &str) -> bool {
        !self.state().revoked.contains(secret)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What is answered now, as it is written down.
    fn answer(&self, what: What) -> Answered {
        let mut state = self.state();
        let now = self.record.now().wall;
        state.minted += 1;
        let mut secret = format!("test-{}", state.minted);
        let credential = self.rotates.then(|| format!("test-r{}", state.minted));
        let life = match what {
            What::Mint(life) => Life::For(life),
            What::NoExpiry => Life::Unsaid,
            What::DeadOnArrival => Life::Until(now - Duration::from_secs(1)),
            What::Empty => {
                secret.clear();
                Life::Unsaid
            }
            What::Repeat => match &state.newest {
                Some((newest, until)) if *until > now => {
                    secret = newest.clone();
                    Life::Until(*until)
                }
                _ => Life::For(Duration::from_secs(600)),
            },
            What::Transient => return Answered::Failed(Class::Transient),
            What::Terminal => return Answered::Failed(Class::Terminal),
            What::NeedsInteraction => return Answered::Failed(Class::NeedsInteraction),
            What::Throttled(wait) => {
                let retry_after = wait.map(Duration::from_secs);
                return Answered::Failed(Class::Throttled { retry_after });
            }
            What::Lost => return Answered::Lost,
            What::Panic => return Answered::Panicked,
            What::Never => return Answered::CutOff,
        };
        let until = match life {
            Life::For(life) => now + life,
            Life::Until(until) => until,
            Life::Unsaid => now + Duration::from_secs(300),
        };
        if !secret.is_empty() {
            state.newest = Some((secret.clone(), until));
        }
        Answered::Token(Minted { secret, life }, credential)
    }
}

impl TokenProvider for Issuer {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        let presented = context.credential().and_then(Value::as_str).map(str::to_owned);
        self.record.write(Happened::Began(presented));
        let mut exchange = Exchange {
            record: &self.record,
            ends: Answered::CutOff,
        };
        let Answer { what, after } = {
            let mut state = self.state();
            state.script.pop_front().unwrap_or_else(|| state.habit.clone())
        };
        if !after.is_zero() {
            sleep(after).await;
        }
        exchange.ends = self.answer(what);
        match &exchange.ends {
            Answered::Token(minted, credential) => Ok(token(minted, credential.as_deref())),
            Answered::Failed(class) => Err(FetchError::new(*class, "as scripted")),
            Answered::Lost => Err(FetchError::transient("as scripted").lost()),
            // Without the hook, which would print each of them.
            Answered::Panicked => std::panic::resume_unwind(Box::new("as scripted")),
            Answered::CutOff => std::future::pending().await,
        }
    }

    fn if_lost(&self) -> IfLost {
        self.if_lost
    }
}

fn token(minted: &Minted, credential: Option<&str>) -> Token {
    let token = Token::bearer(minted.secret.as_str());
    let token = match minted.life {
        Life::For(life) => token.expires_in(life),
        Life::Until(until) => token.expires_at(UNIX_EPOCH + until),
        Life::Unsaid => token,
    };
    match credential {
        Some(credential) => token.credential(Value::from(credential)),
        None => token,
    }
}

/// Its drop is the end of the exchange, however that comes.
struct Exchange<'a> {
    record: &'a Record,
    ends: Answered,
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.record.write(Happened::Ended(self.ends.clone()));
    }
}
