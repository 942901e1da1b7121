//! What comes to an engine from elsewhere than a fetch of its own: a configured token, what others have saved. And what
//! every token has to pass, wherever it comes from.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::desk::{Current, Outlook, Phase, Vetted};
use super::engine::Engine;
use super::flight::Landed;
use super::kept::Kept;
use super::timer::Timer;
use crate::clock::{A_YEAR, Skew, Wall};
use crate::error::FetchError;
use crate::event::Event;
use crate::store::{Record, Standing};
use crate::sync::{Handle, Ordering};
use crate::token::{Expiry, Generation, Token, Warning};

impl Engine {
    /// Takes in what somebody else has saved. Says whether things are different from now on, other than that the next
    /// token is fetched with something else.
    pub(super) fn take_in(self: &Arc<Self>, record: &Record) -> bool {
        let vetted = record.token.clone().map(|token| {
            let token = token.issued_by(self.clock.now());
            // As it was where it was fetched.
            let token = match &record.credential {
                Some(credential) => token.credential(credential.expose().clone()),
                None => token,
            };
            self.vet(token, self.outlook(true))
        });
        let mut stranded = Vec::new();
        let taken = {
            let mut desk = self.desk();
            // Who signed out or installed since it was looked comes after it; the saver sees to that.
            if self.kept.as_ref().is_some_and(Kept::has_draft) || !desk.is_news(record.generation) {
                return false;
            }
            let credential = record.credential.as_ref().map(|credential| credential.expose().clone());
            let reopened = desk.phase == Phase::SignedOut && record.standing != Standing::SignedOut;
            if record.standing != Standing::Renewed || reopened {
                let phase = match record.standing {
                    Standing::SignedOut => Phase::SignedOut,
                    Standing::Installed | Standing::Renewed => Phase::Open,
                };
                stranded = self.leave(&mut desk, phase, credential);
            } else if let Some(credential) = credential {
                desk.adopt(credential);
            }
            let vetted = vetted.and_then(Result::ok).map(|vetted| Vetted {
                sent: vetted.issued,
                ..vetted
            });
            let same = |vetted: &Vetted| {
                let current = desk.current.as_ref();
                current.is_some_and(|current| current.token.secret() == vetted.token.secret())
            };
            let current = vetted.filter(|vetted| !same(vetted)).map(|vetted| {
                let current = desk.place(vetted, self.outlook(true));
                self.show(Some(current.clone()));
                current
            });
            current.ok_or(record.standing != Standing::Renewed || reopened)
        };
        for flight in stranded {
            flight.land(Landed::Superseded);
        }
        self.pulse.send_replace(());
        match taken {
            Ok(current) => {
                self.announce(&current);
                self.tell(&Event::Adopted {
                    generation: current.generation,
                    token: current.token.fingerprint(),
                    expires_in: self.now().until(current.plan.dies),
                });
                self.warn_of(&current);
                // Whoever looks does it in a task.
                Handle::current().spawn(Timer::of(self, &current).run());
                true
            }
            Err(left) => {
                if left {
                    self.tell(&match record.standing {
                        Standing::SignedOut => Event::SignedOut,
                        Standing::Installed | Standing::Renewed => Event::Installed,
                    });
                }
                left
            }
        }
    }

    /// Whoever waits for the next token learns of this one.
    pub(super) fn announce(&self, current: &Current) {
        self.published.send_if_modified(|last| {
            // A waiter that is awake already may have had the next one land before this is said.
            let newer = current.generation.get() > *last;
            *last = (*last).max(current.generation.get());
            newer
        });
    }

    /// Puts a token in place that nobody fetched, if it is alive. Its credential is used in any case.
    pub(super) fn begin_with(self: &Arc<Self>, token: Token) {
        let credential = token.renewal_credential().cloned();
        let vetted = self.vet(token, self.outlook(false));
        let current = {
            let mut desk = self.desk();
            if let Some(credential) = credential {
                desk.adopt(credential);
            }
            let Ok(vetted) = vetted else { return };
            let current = desk.place(vetted, self.outlook(false));
            self.show(Some(current.clone()));
            // Without a runtime only the wall clock sees its end, until the first call within one.
            self.untimed.store(true, Ordering::Relaxed);
            current
        };
        self.published.send_replace(current.generation.get());
        self.warn_of(&current);
        self.time_what_is_in_place();
    }

    /// Starts the timer of a token that was put in place where none could be started.
    #[cold]
    pub(super) fn time_what_is_in_place(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let current = {
            // Under the lock, so that it is not the timer of a token that has one already.
            let desk = self.desk();
            desk.current
                .clone()
                .filter(|_| self.untimed.swap(false, Ordering::Relaxed))
        };
        if let Some(current) = current {
            runtime.spawn(Timer::of(self, &current).run());
        }
    }

    pub(super) fn tell_of_life(&self, current: &Current) {
        self.tell(&Event::Alive {
            generation: current.generation,
            expires_in: self.now().until(current.plan.dies),
        });
    }

    /// A sign-out may have been told before the token that it came after.
    pub(super) fn tell_of_absence(&self, generation: Generation) {
        let nothing = self.desk().current.is_none();
        if nothing {
            self.tell(&Event::Alive {
                generation,
                expires_in: Duration::ZERO,
            });
        }
    }

    pub(super) fn warn_of(&self, current: &Current) {
        let generation = current.generation;
        for &warning in current.token.warnings() {
            self.tell(&Event::Warned { generation, warning });
        }
    }

    /// Adopts nothing that is empty, unprintable or dead on arrival; knows when the rest dies.
    pub(super) fn vet(&self, token: Token, asked: Outlook<'_>) -> Result<Vetted, FetchError> {
        if let Some(flaw) = token.flaw() {
            return Err(FetchError::transient(flaw));
        }
        let now = self.now();
        let issued = token.issue_time().map_or(asked.wall, Wall::of);
        let (dies, token) = match token.expiry() {
            Expiry::In(life) => (issued.after(life), token),
            Expiry::At(at) => (Wall::of(at), token),
            Expiry::Unknown => (
                now.after(self.policy.assumed_life),
                token.warning(Warning::LifetimeAssumed),
            ),
        };
        // The wall clock may have been set back since it was asked for: then only the time that it took tells.
        let left = match token.expiry() {
            Expiry::In(life) if asked.wall <= issued => {
                let before = asked.wall.until(issued);
                life.saturating_sub(asked.mono.elapsed().saturating_sub(before))
            }
            _ => A_YEAR,
        };
        if dies <= now || left.is_zero() {
            return Err(FetchError::transient(
                "the token had expired when it arrived; compare the clocks",
            ));
        }
        let skew = token
            .date()
            .and_then(|date| Skew::learned(date, (asked.wall, asked.mono), (now, Instant::now())));
        let token = match skew {
            Some(skew) if skew.is_wide() => token.warning(Warning::ClockSkewed),
            _ => token,
        };
        let dies = dies.min(now.after(A_YEAR));
        Ok(Vetted {
            token,
            skew,
            sent: asked.wall,
            issued,
            dies,
            ends: Instant::now() + left.min(now.until(dies)),
        })
    }
}
