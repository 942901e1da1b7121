//! Who holds which token: rotation, grace, reuse and revocation.
//!
//! Everything here happens under the issuer's one lock, so a refresh token is consumed
//! atomically: of any number of requests with it, one is the first.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// What the issuer knows about an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Standing {
    /// It opens the API.
    Alive,
    /// Its lifetime is over, whether or not it was revoked before.
    Expired,
    /// It was revoked within its lifetime, alone or with its family.
    Revoked,
    /// This issuer never minted it.
    Unknown,
}

/// What a request with some access token looks like to the API.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) standing: Standing,
    /// A newer token of the same line had been handed out before the request arrived.
    pub(super) stale: bool,
}

/// A refresh token as it was presented to the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// Numbered as they are minted.
    pub(super) token: u64,
    /// How often this one was presented by now.
    pub(super) times: u64,
    pub(super) at: Instant,
}

/// The rules in force when a token is minted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) lifetime: Duration,
    pub(super) rotate: bool,
    pub(super) grace: Duration,
}

/// A line of tokens that succeed one another: a family of refresh tokens, or one client's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line(usize);

/// Tokens that were just minted.
pub(super) struct Minted {
    pub(super) access: String,
    pub(super) refresh: Option<String>,
    pub(super) birth: Birth,
}

/// Which token of which line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Birth {
    line: Line,
    serial: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    lines: Vec<Succession>,
    by_client: HashMap<String, Line>,
    refresh: HashMap<String, RefreshToken>,
    access: HashMap<String, AccessToken>,
    /// The serial of the access token minted last.
    serial: u64,
    /// Access tokens up to this serial are revoked.
    revoked: u64,
    /// Refresh tokens of this issuer as they were presented, oldest first.
    pub(super) presented: Vec<Sight>,
    pub(super) presented_twice: u64,
    pub(super) reuse: u64,
}

struct Succession {
    alive: bool,
    /// The client that redeemed the family first; nobody else may after that.
    owner: Option<String>,
    /// Serials that were handed out, each higher than the ones before, and when.
    handed_out: Vec<(u64, Instant)>,
}

struct RefreshToken {
    line: Line,
    number: u64,
    /// How often it was presented.
    times: u64,
    parent: Option<String>,
    /// When it was redeemed first.
    spent: Option<Instant>,
    /// A successor was redeemed too, so this is no longer the previous token.
    outlived: bool,
}

struct AccessToken {
    birth: Birth,
    /// `None`: its lifetime reaches past the end of the clock.
    expires: Option<Instant>,
}

impl Ledger {
    /// A new family; its first refresh token.
    pub(super) fn begin_family(&mut self) -> String {
        let line = self.begin_line();
        self.mint_refresh(line, None)
    }

    /// Redeems a refresh token. `None` is `invalid_grant`.
    pub(super) fn redeem(&mut self, presented: &str, client: &str, terms: Terms, now: Instant) -> Option<Minted> {
        let token = self.refresh.get_mut(presented)?;
        token.times += 1;
        self.presented.push(Sight {
            token: token.number,
            times: token.times,
            at: now,
        });
        let line = token.line;
        let spent = token.spent.is_some();
        let redeemable = token.is_redeemable(terms.grace, now);
        self.presented_twice += u64::from(spent);
        let family = &mut self.lines[line.0];
        if !family.alive || family.owner.as_deref().is_some_and(|owner| owner != client) {
            return None;
        }
        if !redeemable {
            family.alive = false;
            self.reuse += 1;
            return None;
        }
        family.owner.get_or_insert_with(|| client.to_owned());
        // Who presents the previous token lost the answer that replaced it, and needs another.
        let refresh = (terms.rotate || spent).then(|| self.rotate(presented, line, now));
        Some(self.mint(line, refresh, terms.lifetime, now))
    }

    /// A token for the client itself.
    pub(super) fn grant(&mut self, client: &str, terms: Terms, now: Instant) -> Minted {
        let line = self.line_of_client(client);
        self.mint(line, None, terms.lifetime, now)
    }

    /// The family of a refresh token.
    pub(super) fn line_of(&self, refresh: &str) -> Option<Line> {
        self.refresh.get(refresh).map(|token| token.line)
    }

    /// The line of a client's own tokens, begun on the first question.
    pub(super) fn line_of_client(&mut self, client: &str) -> Line {
        if let Some(line) = self.by_client.get(client) {
            return *line;
        }
        let line = self.begin_line();
        self.by_client.insert(client.to_owned(), line);
        line
    }

    /// Whether redeeming `refresh` at `now` would succeed.
    pub(super) fn is_redeemable(&self, refresh: &str, grace: Duration, now: Instant) -> bool {
        self.refresh
            .get(refresh)
            .is_some_and(|token| self.lines[token.line.0].alive && token.is_redeemable(grace, now))
    }

    /// Notes that the last byte of an answer with this token was read.
    pub(super) fn handed_out(&mut self, birth: Birth, at: Instant) {
        let handed_out = &mut self.lines[birth.line.0].handed_out;
        // A token that overtook an older one superseded it before it arrived.
        if handed_out.last().is_none_or(|(newest, _)| *newest < birth.serial) {
            handed_out.push((birth.serial, at));
        }
    }

    pub(super) fn sighting(&self, access: &str, arrived: Instant) -> Sighting {
        let Some(token) = self.access.get(access) else {
            return Sighting {
                standing: Standing::Unknown,
                stale: false,
            };
        };
        let line = &self.lines[token.birth.line.0];
        let standing = if token.expires.is_some_and(|expires| arrived >= expires) {
            Standing::Expired
        } else if token.birth.serial <= self.revoked || !line.alive {
            Standing::Revoked
        } else {
            Standing::Alive
        };
        let older = line
            .handed_out
            .partition_point(|(serial, _)| *serial <= token.birth.serial);
        let stale = line.handed_out.get(older).is_some_and(|(_, at)| *at < arrived);
        Sighting { standing, stale }
    }

    /// Every access token minted so far dies.
    pub(super) fn revoke_access(&mut self) {
        self.revoked = self.serial;
    }

    /// Every family and every access token dies; a client may still get new ones for itself.
    pub(super) fn revoke_all(&mut self) {
        self.revoke_access();
        for token in self.refresh.values() {
            self.lines[token.line.0].alive = false;
        }
    }

    fn begin_line(&mut self) -> Line {
        self.lines.push(Succession {
            alive: true,
            owner: None,
            handed_out: Vec::new(),
        });
        Line(self.lines.len() - 1)
    }

    fn rotate(&mut self, presented: &str, line: Line, now: Instant) -> String {
        let parent = self.refresh.get_mut(presented).and_then(|token| {
            token.spent.get_or_insert(now);
            token.parent.clone()
        });
        if let Some(parent) = parent.and_then(|parent| self.refresh.get_mut(&parent)) {
            parent.outlived = true;
        }
        self.mint_refresh(line, Some(presented.to_owned()))
    }

    fn mint_refresh(&mut self, line: Line, parent: Option<String>) -> String {
        let number = self.refresh.len() as u64 + 1;
        let secret = format!("test-refresh-{number}-{:016x}", fastrand::u64(..));
        let token = RefreshToken {
            line,
            number,
            times: 0,
            parent,
            spent: None,
            outlived: false,
        };
        self.refresh.insert(secret.clone(), token);
        secret
    }

    fn mint(&mut self, line: Line, refresh: Option<String>, lifetime: Duration, now: Instant) -> Minted {
        self.serial += 1;
        let birth = Birth {
            line,
            serial: self.serial,
        };
        let access = format!("test-access-{}-{:016x}", self.serial, fastrand::u64(..));
        let token = AccessToken {
            birth,
            expires: now.checked_add(lifetime),
        };
        self.access.insert(access.clone(), token);
        Minted { access, refresh, birth }
    }
}

impl RefreshToken {
    fn is_redeemable(&self, grace: Duration, now: Instant) -> bool {
        match self.spent {
            None => true,
            Some(spent) => !self.outlived && now.duration_since(spent) < grace,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const STRICT: Terms = Terms {
        lifetime: Duration::from_secs(60),
        rotate: true,
        grace: Duration::ZERO,
    };
    const GRACEFUL: Terms = Terms {
        grace: Duration::from_secs(10),
        ..STRICT
    };

    fn refresh(ledger: &mut Ledger, token: &str, terms: Terms, now: Instant) -> Option<String> {
        ledger.redeem(token, "c", terms, now).and_then(|minted| minted.refresh)
    }

    #[test]
    fn a_used_refresh_token_kills_its_family() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.begin_family();
        let minted = ledger.redeem(&first, "c", STRICT, now).unwrap();
        assert!(ledger.redeem(&first, "c", STRICT, now).is_none());
        assert_eq!((ledger.presented_twice, ledger.reuse), (1, 1));
        assert_eq!(ledger.sighting(&minted.access, now).standing, Standing::Revoked);
        assert!(refresh(&mut ledger, &minted.refresh.unwrap(), STRICT, now).is_none());
        // The family is dead already: presented, but nothing left to kill.
        assert!(ledger.redeem(&first, "c", STRICT, now).is_none());
        assert_eq!((ledger.presented_twice, ledger.reuse), (2, 1));
    }

    #[test]
    fn every_presentation_is_noted_whatever_came_of_it() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.begin_family();
        let second = refresh(&mut ledger, &first, STRICT, now).unwrap();
        assert!(refresh(&mut ledger, &first, STRICT, now + SECOND).is_none());
        assert!(refresh(&mut ledger, &second, STRICT, now + SECOND).is_none());
        assert!(refresh(&mut ledger, "another issuer's", STRICT, now).is_none());
        let seen = ledger
            .presented
            .iter()
            .map(|sight| (sight.token, sight.times, sight.at));
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [(1, 1, now), (1, 2, now + SECOND), (2, 1, now + SECOND)]
        );
    }

    #[test]
    fn another_family_survives_the_reuse() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (one, other) = (ledger.begin_family(), ledger.begin_family());
        refresh(&mut ledger, &one, STRICT, now).unwrap();
        assert!(refresh(&mut ledger, &one, STRICT, now).is_none());
        assert!(refresh(&mut ledger, &other, STRICT, now).is_some());
    }

    #[test]
    fn grace_forgives_the_previous_token_until_its_last_moment() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.begin_family();
        refresh(&mut ledger, &first, GRACEFUL, now).unwrap();
        let late = now + 10 * SECOND;
        assert!(refresh(&mut ledger, &first, GRACEFUL, late - Duration::from_nanos(1)).is_some());
        assert_eq!((ledger.presented_twice, ledger.reuse), (1, 0));
        assert!(refresh(&mut ledger, &first, GRACEFUL, late).is_none());
        assert_eq!((ledger.presented_twice, ledger.reuse), (2, 1));
    }

    #[test]
    fn grace_does_not_reach_back_two_generations() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.begin_family();
        let second = refresh(&mut ledger, &first, GRACEFUL, now).unwrap();
        refresh(&mut ledger, &second, GRACEFUL, now).unwrap();
        assert!(refresh(&mut ledger, &first, GRACEFUL, now).is_none());
        assert_eq!(ledger.reuse, 1);
    }

    #[test]
    fn both_successors_of_a_forgiven_token_are_good_once() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.begin_family();
        let second = refresh(&mut ledger, &first, GRACEFUL, now).unwrap();
        let third = refresh(&mut ledger, &first, GRACEFUL, now).unwrap();
        assert!(refresh(&mut ledger, &third, GRACEFUL, now).is_some());
        assert!(refresh(&mut ledger, &second, GRACEFUL, now).is_some());
        assert_eq!(ledger.reuse, 0);
    }

    #[test]
    fn without_rotation_a_refresh_token_is_never_used_up() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.begin_family();
        let lenient = Terms {
            rotate: false,
            ..STRICT
        };
        for _ in 0..3 {
            assert!(ledger.redeem(&first, "c", lenient, now).unwrap().refresh.is_none());
        }
        assert_eq!((ledger.presented_twice, ledger.reuse), (0, 0));
    }

    #[test]
    fn a_family_belongs_to_the_client_that_redeemed_it_first() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let first = ledger.begin_family();
        let second = refresh(&mut ledger, &first, STRICT, now).unwrap();
        assert!(ledger.redeem(&second, "thief", STRICT, now).is_none());
        assert!(ledger.is_redeemable(&second, Duration::ZERO, now));
        assert!(!ledger.is_redeemable(&first, Duration::ZERO, now));
    }

    #[test]
    fn a_token_is_stale_only_after_a_newer_one_was_handed_out() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let old = ledger.grant("c", STRICT, now);
        let new = ledger.grant("c", STRICT, now);
        assert!(!ledger.sighting(&old.access, now + SECOND).stale);
        ledger.handed_out(new.birth, now + SECOND);
        assert!(!ledger.sighting(&old.access, now + SECOND).stale);
        assert!(
            ledger
                .sighting(&old.access, now + SECOND + Duration::from_nanos(1))
                .stale
        );
        assert!(!ledger.sighting(&new.access, now + 2 * SECOND).stale);
        let other = ledger.grant("d", STRICT, now);
        ledger.handed_out(other.birth, now + SECOND);
        assert!(!ledger.sighting(&new.access, now + 2 * SECOND).stale);
    }

    #[test]
    fn revoking_everything_leaves_clients_their_own_grant() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let family = ledger.begin_family();
        let own = ledger.grant("c", STRICT, now);
        ledger.revoke_all();
        assert_eq!(ledger.sighting(&own.access, now).standing, Standing::Revoked);
        assert!(refresh(&mut ledger, &family, STRICT, now).is_none());
        let own = ledger.grant("c", STRICT, now);
        assert_eq!(ledger.sighting(&own.access, now).standing, Standing::Alive);
    }

    #[test]
    fn a_lifetime_past_the_end_of_the_clock_never_expires() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let forever = ledger.grant(
            "c",
            Terms {
                lifetime: Duration::MAX,
                ..STRICT
            },
            now,
        );
        assert_eq!(ledger.sighting(&forever.access, now).standing, Standing::Alive);
    }
}
