//! The tokens of one double: what lives, what was exchanged, what is dead.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

/// A token that is live now, and what renews it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// The access token, or the login token.
    pub(crate) access: String,
    /// When it dies, by the server's clock.
    pub(crate) access_ends: SystemTime,
    /// The refresh token, or the keep-alive token; `None` where there is none, or it is dead.
    pub(crate) renew: Option<String>,
    /// When that dies, by the server's clock.
    pub(crate) renew_ends: Option<SystemTime>,
}

/// Access tokens, and what renews them. Those of one login are of one family.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) access: Shelf,
    pub(crate) renew: Shelf,
    families: u64,
    /// One moment on both clocks: an end that is told twice is told alike.
    began: (Instant, SystemTime),
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            access: Shelf::default(),
            renew: Shelf::default(),
            families: 0,
            began: (Instant::now(), SystemTime::now()),
        }
    }
}

impl Tokens {
    /// A new login.
    pub(crate) fn family(&mut self) -> u64 {
        self.families += 1;
        self.families
    }

    /// When a token dies, by the real clock.
    pub(crate) fn ends(&self, token: &Token) -> SystemTime {
        let (at, time) = self.began;
        time + token.ends.saturating_duration_since(at)
    }

    /// What is live, newest first; `of` makes the server's time of the real one.
    pub(crate) fn live(&self, of: impl Fn(SystemTime) -> SystemTime) -> Vec<Live> {
        let live = |(name, access): (&String, &Token)| {
            let renew = self.renew.current(access.family);
            Live {
                access: name.clone(),
                access_ends: of(self.ends(access)),
                renew: renew.map(|(name, _)| name.clone()),
                renew_ends: renew.map(|(_, token)| of(self.ends(token))),
            }
        };
        let mut all: Vec<_> = self
            .access
            .tokens
            .iter()
            .filter(|(_, token)| token.is_current())
            .collect();
        all.sort_by_key(|(_, token)| std::cmp::Reverse(token.minted));
        all.into_iter().map(live).collect()
    }
}

/// Every token of one kind that was ever handed out.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    tokens: HashMap<String, Token>,
}

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) family: u64,
    /// How long it lives from now on, whenever it is renewed in place.
    pub(crate) lives: Duration,
    /// It was exchanged for the next one.
    pub(crate) spent: bool,
    ends: Instant,
    /// Counted up: the newest is the greatest.
    minted: u64,
}

impl Token {
    pub(crate) fn is_alive(&self) -> bool {
        Instant::now() < self.ends
    }

    pub(crate) fn is_current(&self) -> bool {
        self.is_alive() && !self.spent
    }
}

impl Shelf {
    /// A value that no other token has. Its last characters have to be encoded in a query, in a
    /// form and in a path, and are legal in a header (RFC 6750 §2.1).
    pub(crate) fn mint(&mut self, kind: &str, family: u64, lives: Duration) -> String {
        let minted = self.tokens.len() as u64 + 1;
        let value = format!("test-{kind}-{minted}-{:016x}~+/=", fastrand::u64(..));
        let token = Token {
            family,
            lives,
            spent: false,
            ends: Instant::now() + lives,
            minted,
        };
        self.tokens.insert(value.clone(), token);
        value
    }

    pub(crate) fn get(&self, value: &str) -> Option<&Token> {
        self.tokens.get(value)
    }

    /// The newest that this login can use, and that is neither exchanged nor dead.
    pub(crate) fn current(&self, family: u64) -> Option<(&String, &Token)> {
        let ours = self.tokens.iter().filter(|(_, token)| token.family == family);
        ours.filter(|(_, token)| token.is_current())
            .max_by_key(|(_, token)| token.minted)
    }

    /// The newest that this login was given, dead or not.
    pub(crate) fn newest(&self, family: u64) -> Option<&str> {
        let ours = self.tokens.iter().filter(|(_, token)| token.family == family);
        ours.max_by_key(|(_, token)| token.minted)
            .map(|(value, _)| value.as_str())
    }

    /// Marks it as exchanged, and lets it live no longer than `grace`.
    pub(crate) fn spend(&mut self, value: &str, grace: Duration) {
        if let Some(token) = self.tokens.get_mut(value) {
            token.spent = true;
            token.ends = token.ends.min(Instant::now() + grace);
        }
    }

    /// Lets it live its whole life from now on.
    pub(crate) fn extend(&mut self, value: &str) {
        if let Some(token) = self.tokens.get_mut(value) {
            token.ends = Instant::now() + token.lives;
        }
    }

    /// Ends every life.
    pub(crate) fn kill(&mut self) {
        let now = Instant::now();
        for token in self.tokens.values_mut() {
            token.ends = token.ends.min(now);
        }
    }
}
