//! What a member of the fleet tells of itself: a line for each thing that happened, with the time of day.
//!
//! Members and the program that watches them run on one machine, so their lines are of one clock.

use std::fmt;
use std::io::Write;
use std::ops::RangeBounds;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tower_token::BoxError;

/// The time of day in nanoseconds, as every line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) fn now() -> Self {
        Self::of(SystemTime::now())
    }

    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Zero if it is the other way round.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// One thing that happened to one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// Its layer is in place.
    Started,
    /// A request was answered with 200, after so long.
    Answered(Duration),
    /// A request ended otherwise.
    Failed(String),

    /// A fetch brought a new token.
    Renewed,
    /// Another member's token was taken over from the store.
    Adopted,
    /// What is in use is not in the store.
    Undurable,
    /// Now it is.
    Durable,
    /// The store did not do what it was asked for.
    StoreFailed(String),
    /// It does again.
    StoreRecovered,
    /// A fetch brought nothing.
    FetchFailed(String),
    /// Only a new sign-in helps.
    SessionLost,
    /// This token goes out from now on: a number that says nothing of it, the same for all members, and when its life
    /// began.
    On(u64, Time),

    /// The right to renew is this member's, by this number.
    Leased(u64),
    /// It asked whether the right still is.
    Checked,
    /// A refresh token is being sent to the issuer.
    Presents,
    /// A record of this generation is in the store, durably.
    Saved(u64),
    /// The store did not take a record.
    NotSaved,
    /// The right was given back.
    Released,

    /// By the one who watches: it was asked to leave.
    Ended,
    /// By the one who watches: kill -9.
    Killed,
    /// By the one who watches: SIGSTOP.
    Paused,
    /// By the one who watches: SIGCONT.
    Resumed,
}

impl Fact {
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Answered(_))
    }

    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    pub(crate) fn is_lease(&self) -> bool {
        matches!(self, Self::Leased(_))
    }

    pub(crate) fn is_save(&self) -> bool {
        matches!(self, Self::Saved(_))
    }

    pub(crate) fn is_trouble(&self) -> bool {
        matches!(self, Self::StoreFailed(_))
    }

    /// Says it on standard output, for whoever watches.
    pub(crate) fn tell(&self) {
        // Nobody watches any more: then nobody misses it.
        let _ = writeln!(std::io::stdout(), "{} {self}", Time::now().0);
    }

    /// A line of [`tell`](Self::tell).
    pub(crate) fn heard(line: &str) -> Result<(Time, Self), BoxError> {
        let odd = || format!("a member said {line:?}");
        let (time, said) = line.split_once(' ').ok_or_else(odd)?;
        let (word, detail) = said.split_once(' ').unwrap_or((said, ""));
        let fact = match word {
            "started" => Self::Started,
            "answered" => Self::Answered(Duration::from_micros(detail.parse()?)),
            "failed" => Self::Failed(detail.into()),
            "renewed" => Self::Renewed,
            "adopted" => Self::Adopted,
            "undurable" => Self::Undurable,
            "durable" => Self::Durable,
            "store-failed" => Self::StoreFailed(detail.into()),
            "store-recovered" => Self::StoreRecovered,
            "fetch-failed" => Self::FetchFailed(detail.into()),
            "session-lost" => Self::SessionLost,
            "on" => {
                let (token, issued) = detail.split_once(' ').ok_or_else(odd)?;
                Self::On(token.parse()?, Time(issued.parse()?))
            }
            "leased" => Self::Leased(detail.parse()?),
            "checked" => Self::Checked,
            "presents" => Self::Presents,
            "saved" => Self::Saved(detail.parse()?),
            "not-saved" => Self::NotSaved,
            "released" => Self::Released,
            _ => return Err(odd().into()),
        };
        Ok((Time(time.parse()?), fact))
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Answered(took) => write!(f, "answered {}", took.as_micros()),
            Self::Failed(how) => write!(f, "failed {}", how.replace('\n', " ")),
            Self::Renewed => f.write_str("renewed"),
            Self::Adopted => f.write_str("adopted"),
            Self::Undurable => f.write_str("undurable"),
            Self::Durable => f.write_str("durable"),
            Self::StoreFailed(why) => write!(f, "store-failed {}", why.replace('\n', " ")),
            Self::StoreRecovered => f.write_str("store-recovered"),
            Self::FetchFailed(why) => write!(f, "fetch-failed {}", why.replace('\n', " ")),
            Self::SessionLost => f.write_str("session-lost"),
            Self::On(token, issued) => write!(f, "on {token} {}", issued.0),
            Self::Leased(fence) => write!(f, "leased {fence}"),
            Self::Checked => f.write_str("checked"),
            Self::Presents => f.write_str("presents"),
            Self::Saved(generation) => write!(f, "saved {generation}"),
            Self::NotSaved => f.write_str("not-saved"),
            Self::Released => f.write_str("released"),
            Self::Ended => f.write_str("ended"),
            Self::Killed => f.write_str("killed"),
            Self::Paused => f.write_str("paused"),
            Self::Resumed => f.write_str("resumed"),
        }
    }
}

/// Who, when, what.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Time,
    pub(crate) member: usize,
    pub(crate) fact: Fact,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at.0, self.member, self.fact)
    }
}

/// What happened in a span of time.
pub(crate) struct Excerpt<'a>(pub(crate) Vec<&'a Moment>);

impl<'a> Excerpt<'a> {
    pub(crate) fn of(moments: &'a [Moment], span: impl RangeBounds<Time>) -> Self {
        Self(moments.iter().filter(|moment| span.contains(&moment.at)).collect())
    }

    pub(crate) fn count(&self, is: fn(&Fact) -> bool) -> usize {
        self.0.iter().filter(|moment| is(&moment.fact)).count()
    }

    pub(crate) fn first(&self, is: fn(&Fact) -> bool) -> Option<&'a Moment> {
        self.0.iter().copied().find(|moment| is(&moment.fact))
    }

    /// What the store said, in the words of whoever was told first.
    pub(crate) fn trouble(&self) -> Option<&'a Fact> {
        self.first(Fact::is_trouble).map(|moment| &moment.fact)
    }
}
