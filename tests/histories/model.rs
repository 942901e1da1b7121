//! What may happen, by the design's rules and its table of defaults: a plain description, without
//! tasks, locks or timers, that reads a record and says where it was broken.

mod at_rest;

use std::collections::BTreeMap;
use std::time::Duration;

use tower_token::{Class, IfLost};

use super::held::{Held, Marked};
use super::record::{Answered, At, Caller, Happened, Minted, Why, Wish};
use super::setback::{Attempt, Setback};

/// What is wrong with this record, if anything is.
pub(crate) fn judge(record: &[(At, Happened)], if_lost: IfLost) -> Result<(), String> {
    let mut model = Model::new(if_lost);
    for (nth, (at, happened)) in record.iter().enumerate() {
        model.now = *at;
        model.step(happened).map_err(|wrong| {
            let from = nth.saturating_sub(40);
            let lines = record[from..=nth].iter().map(|(at, happened)| {
                let (mono, wall) = (
                    (at.mono - record[0].0.mono).as_secs_f64(),
                    at.wall.as_secs_f64() - record[0].0.wall.as_secs_f64(),
                );
                format!("  {mono:>12.3} {wall:>12.3}  {happened:?}\n")
            });
            format!("{wrong}\n{}", lines.collect::<String>())
        })?;
    }
    Ok(())
}

type Verdict = Result<(), String>;

/// A wait for a minimum interval, or for the end of a backoff that is near, takes no longer.
const KIND_WAIT: Duration = Duration::from_millis(1_202);
const MINUTE: Duration = Duration::from_secs(60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

struct Model {
    if_lost: IfLost,
    now: At,
    /// Raised by whatever makes an answer in the air worthless.
    fence: u32,
    signed_out: bool,
    credential: Option<String>,
    current: Option<Held>,
    /// Every generation is higher than this one, but for those of the token in place.
    generation: u64,
    air: Option<Flight>,
    /// The flight whose exchange ended just now, if a second presentation is due.
    due: Option<Flight>,
    flights: u64,
    /// When the last flight ended, and how.
    landed: Option<(Duration, Landed)>,
    /// What the failures may have left behind. More than one where the past can be read in several ways.
    setbacks: Vec<Setback>,
    /// How often the credential in force was presented in a row without an answer.
    lost: u32,
    /// No fetch before this: a minimum interval.
    floor: Duration,
    /// A flight that waits for its time is fenced off, but may stay in the air until here.
    held_up: Duration,
    /// Somebody wanted a token since the last landing, and there was none, or a stale one.
    needed: bool,
    /// The token in place was refused while a flight was in the air that may bring one as dead.
    chained: bool,
    waiting: BTreeMap<Caller, Wish>,
    deliveries: BTreeMap<Caller, u32>,
    /// Refusals that may have cost a fetch: by hand, and at the API.
    paid: [Vec<Duration>; 2],
    refusals: [Vec<Duration>; 2],
    stepped_back: bool,
    /// So many flights had begun when a stale token went out that nothing kept from being renewed.
    owed: Option<(u64, Duration)>,
    last_asked: Option<Caller>,
    last_handed: Option<Caller>,
}

#[derive(Clone, Copy, PartialEq)]
enum Landed {
    Published,
    Fenced,
    Failed,
    /// Those who waited are told of something that nobody else is told of.
    InPassing,
}

#[derive(Clone)]
struct Flight {
    at: At,
    first: At,
    fence: u32,
    second: bool,
    lost_before: u32,
    attempts: Vec<Attempt>,
}

impl Model {
    fn new(if_lost: IfLost) -> Self {
        let now = At {
            mono: Duration::ZERO,
            wall: Duration::ZERO,
        };
        Self {
            if_lost,
            now,
            fence: 0,
            signed_out: false,
            credential: None,
            current: None,
            generation: 0,
            air: None,
            due: None,
            flights: 0,
            landed: None,
            setbacks: Vec::new(),
            lost: 0,
            floor: Duration::ZERO,
            held_up: Duration::ZERO,
            needed: false,
            chained: false,
            waiting: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            paid: [Vec::new(), Vec::new()],
            refusals: [Vec::new(), Vec::new()],
            stepped_back: false,
            owed: None,
            last_asked: None,
            last_handed: None,
        }
    }

    fn step(&mut self, happened: &Happened) -> Verdict {
        if self.due.is_some() && !matches!(happened, Happened::Began(_)) {
            return wrong("the answer was lost, and the second presentation did not follow at once");
        }
        match happened {
            Happened::Began(credential) => self.began(credential.as_deref())?,
            Happened::Ended(answered) => self.ended(answered)?,
            Happened::Asked(caller, wish) => {
                self.waiting.insert(*caller, *wish);
                self.last_asked = Some(*caller);
            }
            Happened::Handed(caller, secret, generation) => self.handed(*caller, secret, *generation)?,
            Happened::Delivered(caller, secret, accepted) => self.delivered(*caller, secret, *accepted)?,
            Happened::Served(caller) | Happened::Left(caller) => _ = self.waiting.remove(caller),
            Happened::Failed(caller, why) => self.failed(*caller, *why)?,
            Happened::Refused(generation) => self.refused_by_hand(*generation),
            Happened::Installed(credential) => self.leave(Some(credential.clone())),
            Happened::SignedOut => self.leave(None),
            Happened::Stepped(seconds) => {
                self.stepped_back |= *seconds < 0;
                self.slept();
            }
            Happened::Settled(status) => self.settled(status)?,
            Happened::Over => return self.over(),
        }
        self.note_need();
        Ok(())
    }

    /// Whether anybody looks before the clock is set again is not known here: both may be.
    fn slept(&mut self) {
        let now = self.now;
        let slept: Vec<_> = self.setbacks.iter().filter_map(|setback| setback.slept(now)).collect();
        self.setbacks.extend(slept);
        if let Some(flight) = &mut self.air {
            let slept: Vec<_> = flight
                .attempts
                .iter()
                .filter_map(|attempt| attempt.slept(now))
                .collect();
            flight.attempts.extend(slept);
        }
    }

    // ===== Exchanges =====

    fn began(&mut self, credential: Option<&str>) -> Verdict {
        ensure(self.air.is_none(), "two exchanges at a time")?;
        ensure(!self.signed_out, "an exchange after the sign-out")?;
        ensure(
            credential == self.credential.as_deref(),
            format!("presents {credential:?}, in force is {:?}", self.credential),
        )?;
        self.air = Some(match self.due.take() {
            Some(first) => Flight {
                at: self.now,
                second: true,
                ..first
            },
            None => self.took_off()?,
        });
        Ok(())
    }

    fn took_off(&mut self) -> Result<Flight, String> {
        let wished = self.waiting.values().any(|wish| *wish == Wish::Refresh);
        let landed_now = self.landed.is_some_and(|(mono, _)| mono == self.now.mono);
        let chained = std::mem::take(&mut self.chained) && landed_now;
        ensure(
            wished || chained || self.needed,
            "a fetch that nobody needed: the token in place is fresh, and was not refused",
        )?;
        let in_time = wished || chained || self.now.mono >= self.floor;
        ensure(in_time, "a fetch within the minimum interval")?;
        let would_fail = !self.surely_usable();
        let attempts = Attempt::read(&self.setbacks, self.now.mono, wished, would_fail);
        ensure(
            !attempts.is_empty(),
            format!("a fetch too early after {:?}", self.setbacks),
        )?;
        self.flights += 1;
        self.needed = false;
        Ok(Flight {
            at: self.now,
            first: self.now,
            fence: self.fence,
            second: false,
            lost_before: self.lost,
            attempts,
        })
    }

    fn ended(&mut self, answered: &Answered) -> Verdict {
        let flight = self.air.take().ok_or("an exchange ended that had not begun")?;
        let took = self.now.mono - flight.at.mono;
        ensure(took <= FETCH_TIMEOUT + MILLISECOND, format!("an exchange of {took:?}"))?;
        if flight.fence != self.fence {
            // Thrown away.
            self.landed = Some((self.now.mono, Landed::Fenced));
            return Ok(());
        }
        if let Answered::Token(_, Some(credential)) = answered {
            self.credential = Some(credential.clone());
        }
        let lost = matches!(answered, Answered::Lost | Answered::CutOff);
        if lost && !flight.second && self.presents_again(&flight) {
            self.due = Some(flight);
            return Ok(());
        }
        match answered {
            Answered::Token(minted, credential) => match Held::landing(minted, flight.at, self.now) {
                Some(held) => self.published(held, minted),
                None => self.crashed(&flight, Class::Transient, false, credential.is_some()),
            },
            Answered::Failed(class) => self.crashed(&flight, *class, flight.second && is_no_verdict(*class), false),
            Answered::Lost | Answered::CutOff => self.crashed(&flight, Class::Transient, true, false),
            Answered::Panicked => self.panicked(&flight),
        }
        Ok(())
    }

    fn presents_again(&self, flight: &Flight) -> bool {
        let elapsed = (self.now.mono - flight.first.mono).max(self.now.wall.saturating_sub(flight.first.wall));
        match self.if_lost {
            IfLost::ReplayOnce => flight.lost_before == 0,
            IfLost::ReplayWithin(limit) => flight.lost_before == 0 && elapsed < limit,
            _ => false,
        }
    }

    fn published(&mut self, mut held: Held, minted: &Minted) {
        let before = self.current.take();
        held.repeated = before.as_ref().is_some_and(|before| before.secret == minted.secret);
        let refused = before.map_or(Marked::No, |before| before.refused);
        let pause = held.repeated || refused == Marked::Surely;
        self.floor = if pause {
            self.now.mono + held.min_interval
        } else {
            Duration::ZERO
        };
        self.current = Some(held);
        self.setbacks.clear();
        self.lost = 0;
        self.stepped_back = false;
        self.landed = Some((self.now.mono, Landed::Published));
        self.needed = false;
    }

    fn crashed(&mut self, flight: &Flight, class: Class, lost: bool, brought: bool) {
        if lost && self.if_lost != IfLost::Idempotent {
            self.lost += 1;
        } else if !is_no_verdict(class) || brought {
            self.lost = 0;
        }
        let gives_up = matches!(self.if_lost, IfLost::NeverReplay | IfLost::ReplayWithin(_));
        let attempts: Vec<Attempt> = flight
            .attempts
            .iter()
            .flat_map(|attempt| attempt.ended(self.now.mono))
            .collect();
        let next = attempts.iter().map(|attempt| match self.lost {
            1.. if gives_up => attempt.gave_up(self.now),
            1.. if lost => attempt.failed_ambiguously(class, self.now),
            doubt => attempt.failed(class, self.now, brought, doubt > 0),
        });
        self.setbacks = next.collect();
        self.grounded();
        let passes = |attempt: &Attempt| attempt.in_passing(class, brought).is_some();
        let transient = !lost || self.if_lost == IfLost::Idempotent;
        if transient && attempts.iter().any(passes) {
            self.landed = Some((self.now.mono, Landed::InPassing));
        }
    }

    /// A lost answer like any other; but nobody says when the second presentation follows.
    fn panicked(&mut self, flight: &Flight) {
        if self.if_lost == IfLost::ReplayOnce && self.lost == 0 {
            self.crashed(flight, Class::Transient, false, false);
            self.lost = 1;
            for setback in &mut self.setbacks {
                setback.be_patient();
            }
        } else {
            self.crashed(flight, Class::Transient, true, false);
        }
        self.landed = Some((self.now.mono, Landed::InPassing));
    }

    fn grounded(&mut self) {
        self.floor = Duration::ZERO;
        self.landed = Some((self.now.mono, Landed::Failed));
        self.chained = false;
        self.needed = false;
    }

    // ===== Callers =====

    fn handed(&mut self, caller: Caller, secret: &str, generation: u64) -> Verdict {
        self.waiting.remove(&caller);
        self.goes_out(secret)?;
        let before = self.generation;
        let current = self.current.as_mut().ok_or("a token from nowhere")?;
        match current.generation {
            Some(known) => ensure(known == generation, "one token under two numbers")?,
            None => ensure(generation > before, format!("generation {generation} after {before}"))?,
        }
        current.generation = Some(generation);
        self.generation = generation;
        self.last_handed = Some(caller);
        Ok(())
    }

    fn delivered(&mut self, caller: Caller, secret: &str, accepted: bool) -> Verdict {
        self.goes_out(secret)?;
        let deliveries = self.deliveries.entry(caller).or_default();
        *deliveries += 1;
        ensure(*deliveries <= 2, "a request delivered three times")?;
        let first = *deliveries == 1;
        let current = self.current.as_mut().ok_or("a token from nowhere")?;
        let before = current.refused;
        if accepted {
            current.accepted = true;
        } else {
            self.refused(1);
            if let Some(current) = self.current.as_mut().filter(|_| !first) {
                // The refusal of a replay goes to the caller, and may or may not count against the token.
                current.refused = current.refused.at_most_maybe(before);
            }
        }
        Ok(())
    }

    fn goes_out(&mut self, secret: &str) -> Verdict {
        ensure(!self.signed_out, "a token after the sign-out")?;
        let current = self.current.as_ref().ok_or("a token from before the install")?;
        ensure(
            current.secret == secret,
            format!("not the newest token, {}", current.secret),
        )?;
        ensure(current.refused != Marked::Surely, "a token that was refused")?;
        ensure(!current.is_over(self.now), "a token past its mandatory window")?;
        let paused = !self.setbacks.is_empty() || self.now.mono < self.floor;
        let free = self.air.is_none() && !paused && !self.stepped_back;
        if current.is_surely_stale(self.now) && free {
            self.owed.get_or_insert((self.flights, self.now.mono));
        }
        Ok(())
    }

    fn failed(&mut self, caller: Caller, why: Why) -> Verdict {
        let wish = self.waiting.remove(&caller);
        ensure(
            why.signed_out == self.signed_out,
            format!("signed out: {}, it says {why:?}", self.signed_out),
        )?;
        if self.signed_out {
            return Ok(());
        }
        // Who asked for a newer one is told that there is none.
        let needless = self.surely_usable() && wish != Some(Wish::Refresh);
        ensure(!needless, "a failure in the place of a token that lives")?;
        let landed_now = self.landed.filter(|(mono, _)| *mono == self.now.mono);
        if matches!(landed_now, Some((_, Landed::InPassing))) && why.transient {
            return Ok(());
        }
        let with_its_flight = matches!(landed_now, Some((_, Landed::Failed | Landed::InPassing)));
        let denied = self.setbacks.iter().any(|setback| setback.denies(self.now.mono));
        ensure(
            with_its_flight || denied,
            format!("no token although a fetch was possible: {:?}", self.setbacks),
        )?;
        let says_so = |setback: &Setback| setback.agrees_with(why);
        ensure(
            self.setbacks.iter().any(says_so),
            format!("it says {why:?} after {:?}", self.setbacks),
        )
    }

    // ===== Refusals =====

    fn refused_by_hand(&mut self, generation: u64) {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.generation == Some(generation))
        {
            self.refused(0);
        }
    }

    /// The token in place was refused at that place.
    fn refused(&mut self, place: usize) {
        let now = self.now.mono;
        self.refusals[place].push(now);
        let often = self.refusals[place].iter().filter(|at| now - **at < 5 * MINUTE).count() >= 5;
        let paid_lately = self.paid[place].iter().any(|at| now - *at < MINUTE);
        let Some(current) = &mut self.current else { return };
        let marked = match (current.accepted && !current.repeated, paid_lately) {
            (true, _) if !often => Marked::Surely,
            (true, false) => Marked::Surely,
            (false, false) => Marked::Surely,
            // Either it was a fault of the place, or the minute began with a refusal that cost nothing.
            (true, true) => Marked::Maybe,
            (false, true) => Marked::No,
        };
        if current.refused == Marked::Surely {
            // Its renewal may have failed.
            self.needed = true;
            return;
        }
        if marked == Marked::No {
            return;
        }
        current.refused = marked;
        self.paid[place].push(now);
        self.chained |= self.air.is_some();
        self.needed = true;
    }

    fn leave(&mut self, credential: Option<String>) {
        self.fence += 1;
        self.signed_out = credential.is_none();
        self.credential = credential;
        self.current = None;
        self.lost = 0;
        self.held_up = self.held_up.max(self.floor).max(match self.setbacks.is_empty() {
            true => Duration::ZERO,
            false => self.now.mono + KIND_WAIT,
        });
        self.setbacks.clear();
        self.floor = Duration::ZERO;
        self.chained = false;
        self.needed = false;
        self.owed = None;
        self.paid = [Vec::new(), Vec::new()];
        self.refusals = [Vec::new(), Vec::new()];
    }

    fn surely_usable(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.is_surely_usable(self.now))
    }

    fn note_need(&mut self) {
        let fresh = self
            .current
            .as_ref()
            .is_some_and(|current| current.is_surely_fresh(self.now));
        self.needed |= !self.waiting.is_empty() && !fresh;
    }
}

fn is_no_verdict(class: Class) -> bool {
    matches!(class, Class::Transient | Class::Throttled { .. })
}

fn ensure(holds: bool, wrong: impl Into<String>) -> Verdict {
    if holds { Ok(()) } else { Err(wrong.into()) }
}

fn wrong(what: &str) -> Verdict {
    Err(what.into())
}

const MILLISECOND: Duration = Duration::from_millis(1);
