//! What a run came to. Exchanges and second presentations are the issuer's own count; from the members comes what only
//! they can know: what their requests ended with, and when they were on which token.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use tower_token::testkit::IssuerCounts;

use crate::facts::{Fact, Moment, Time};
use crate::stage::Stage;
use crate::target::span;

pub(crate) struct Account {
    pub(crate) issuer: IssuerCounts,
    /// Tokens that came due, and the first.
    pub(crate) expected: u64,
    pub(crate) answered: usize,
    /// By what the callers saw.
    pub(crate) failed: BTreeMap<String, usize>,
    /// From the issuer's commit until a process that lived and ran was on the new token; sorted.
    pub(crate) lags: Vec<Duration>,
    /// How often such a process skipped a token.
    pub(crate) skipped: usize,
    /// The longest time that a process lived, ran, and got no request through.
    pub(crate) stall: Duration,
    pub(crate) undurable: usize,
    pub(crate) sessions_lost: usize,
}

impl Account {
    /// `moments` in the order of time.
    pub(crate) fn of(stage: &Stage, moments: &[Moment]) -> Self {
        let minted = stage.minted();
        let spans: Vec<_> = (0..stage.crew.size())
            .flat_map(|member| spans(moments, member))
            .collect();
        let count = |fact: &Fact| moments.iter().filter(|moment| moment.fact == *fact).count();
        let mut failed = BTreeMap::new();
        // What still waited when its member was asked to leave is no failure.
        let told: Vec<_> = spans.iter().flat_map(|span| span.told(moments)).collect();
        for moment in &told {
            if let Fact::Failed(how) = &moment.fact {
                *failed.entry(how.clone()).or_default() += 1;
            }
        }
        let (lags, skipped) = lags(&minted, moments, &spans);
        Self {
            issuer: stage.issuer.counts(),
            expected: expected(&minted, moments, stage.plan.life),
            answered: told.iter().filter(|moment| moment.fact.is_answer()).count(),
            failed,
            lags,
            skipped,
            stall: spans.iter().map(|span| span.stall(moments)).max().unwrap_or_default(),
            undurable: count(&Fact::Undurable),
            sessions_lost: count(&Fact::SessionLost),
        }
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    /// What this share of the lags did not exceed.
    pub(crate) fn lag(&self, share: f64) -> Duration {
        quantile(&self.lags, share)
    }
}

/// Of what is sorted.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
}

/// One for the first token, and one for each that had come into its window when the next was asked for. At least half of
/// what was left of a life when its token was asked for is always used, so an exchange before that is one too many: it
/// follows the other at once. A tenth of a life is left to clocks with steps on a machine that stalls.
fn expected(minted: &[Time], moments: &[Moment], life: Duration) -> u64 {
    let begun = begun(minted, moments);
    let mut issued = minted.to_vec();
    let nth = ordinals(minted, moments);
    for moment in moments {
        if let Fact::On(token, at) = moment.fact
            && let Some(issued) = nth.get(&token).and_then(|nth| issued.get_mut(*nth))
        {
            *issued = at;
        }
    }
    let is_due = |((asked, _), issued, next): &(&(Time, Time), &Time, &(Time, Time))| {
        let left = issued.plus(life).since(*asked);
        next.1.plus(life / 10) >= asked.plus(left / 2)
    };
    let tokens = begun.iter().zip(&issued).zip(begun.iter().skip(1));
    let due = tokens.map(|((last, issued), next)| (last, issued, next)).filter(is_due);
    u64::from(!minted.is_empty()) + due.count() as u64
}

/// When the lease for each exchange was taken, and when its refresh token was sent.
fn begun(minted: &[Time], moments: &[Moment]) -> Vec<(Time, Time)> {
    let one = |minted: &Time| {
        let mut before = moments.iter().rev().skip_while(|moment| moment.at > *minted);
        let sent = before.find(|moment| moment.fact == Fact::Presents)?;
        let leased = before.find(|moment| moment.member == sent.member && moment.fact.is_lease())?;
        Some((leased.at, sent.at))
    };
    minted.iter().map(|at| one(at).unwrap_or((*at, *at))).collect()
}

// ===== when a member lives and runs =====

#[derive(Clone, Copy)]
struct Span {
    member: usize,
    from: Time,
    to: Time,
    /// Where each begins and ends in the chronicle.
    range: (usize, usize),
}

fn spans(moments: &[Moment], member: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut open: Option<(usize, Time)> = None;
    for (nth, moment) in moments.iter().enumerate().filter(|(_, moment)| moment.member == member) {
        match moment.fact {
            Fact::Started | Fact::Resumed => open = Some((nth, moment.at)),
            Fact::Killed | Fact::Paused | Fact::Ended => spans.extend(open.take().map(|(first, from)| Span {
                member,
                from,
                to: moment.at,
                range: (first, nth),
            })),
            _ => {}
        }
    }
    spans
}

impl Span {
    fn told<'a>(&self, moments: &'a [Moment]) -> impl Iterator<Item = &'a Moment> + use<'a> {
        let member = self.member;
        moments[self.range.0..self.range.1]
            .iter()
            .filter(move |moment| moment.member == member)
    }

    fn stall(&self, moments: &[Moment]) -> Duration {
        let answered = self.told(moments).filter(|moment| moment.fact.is_answer());
        let (mut last, mut longest) = (self.from, Duration::ZERO);
        for at in answered.map(|moment| moment.at).chain([self.to]) {
            longest = longest.max(at.since(last));
            last = at;
        }
        longest
    }
}

// ===== how late each was =====

/// Sorted; and how many had no time to be.
fn lags(minted: &[Time], moments: &[Moment], spans: &[Span]) -> (Vec<Duration>, usize) {
    let nth = ordinals(minted, moments);
    let (mut lags, mut skipped) = (Vec::new(), 0);
    for span in spans {
        let on = |moment: &Moment| match moment.fact {
            Fact::On(token, _) => nth.get(&token).map(|nth| (*nth, moment.at)),
            _ => None,
        };
        let on: Vec<(usize, Time)> = span.told(moments).filter_map(on).collect();
        for (token, at) in minted
            .iter()
            .enumerate()
            .filter(|(_, at)| (span.from..span.to).contains(at))
        {
            match on.iter().find(|(on, _)| *on >= token) {
                Some((later, since)) => {
                    skipped += usize::from(*later > token);
                    lags.push(since.since(*at));
                }
                // It was stopped before it could be on it, unless it had the time that the issuer gave it.
                None => skipped += usize::from(minted.get(token + 1).is_some_and(|next| *next < span.to)),
            }
        }
    }
    lags.sort_unstable();
    (lags, skipped)
}

/// Which exchange brought which token: the last one before it was first seen.
fn ordinals(minted: &[Time], moments: &[Moment]) -> HashMap<u64, usize> {
    let mut ordinals = HashMap::new();
    for moment in moments {
        if let Fact::On(token, _) = moment.fact {
            let before = minted.partition_point(|at| *at <= moment.at);
            ordinals.entry(token).or_insert(before.max(1) - 1);
        }
    }
    ordinals
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |what: &str, value: String, remark: &str| writeln!(f, "  {what:<22}{value:>10}   {remark}");
        let issuer = &self.issuer;
        row("exchanges", issuer.token_requests.to_string(), "as the issuer counted")?;
        row(
            "expected",
            self.expected.to_string(),
            "the first, and one for each token that came due",
        )?;
        row(
            "presented twice",
            issuer.presented_twice.to_string(),
            "refresh tokens, as the issuer counted",
        )?;
        row("reuse detected", issuer.reuse.to_string(), "which ends the session")?;
        row("requests answered", self.answered.to_string(), "")?;
        row("requests failed", self.failures().to_string(), "")?;
        for (how, times) in &self.failed {
            row("", times.to_string(), how)?;
        }
        row(
            "sessions lost",
            self.sessions_lost.to_string(),
            "as the processes told it",
        )?;
        row(
            "told as undurable",
            self.undurable.to_string(),
            "used before the store had it",
        )?;
        let remark = format!(
            "median; min {}, p99 {}, max {}; {} skipped a token",
            span(self.lag(0.0)),
            span(self.lag(0.99)),
            span(self.lag(1.0)),
            self.skipped
        );
        row("on the new token after", span(self.lag(0.5)), &remark)?;
        row("longest stall", span(self.stall), "of a process that lived and ran")
    }
}
