//! What happened, as a picture: a row for each process, a column for each slot of time.

use std::fmt;
use std::time::Duration;

use crate::facts::{Fact, Moment, Time};

/// Columns.
const WIDTH: usize = 100;

pub(crate) struct Timeline {
    from: Time,
    slot: Duration,
    rows: Vec<[Mark; WIDTH]>,
    exchanges: [usize; WIDTH],
}

/// The later one covers the earlier one where both happened in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Absent,
    Paused,
    Running,
    Adopted,
    Renewed,
    RequestFailed,
    Undurable,
    Killed,
}

impl Mark {
    const ALL: [Self; 8] = [
        Self::Running,
        Self::Renewed,
        Self::Adopted,
        Self::Undurable,
        Self::RequestFailed,
        Self::Killed,
        Self::Paused,
        Self::Absent,
    ];

    fn of(fact: &Fact) -> Option<Self> {
        match fact {
            Fact::Started | Fact::Resumed | Fact::Answered(_) => Some(Self::Running),
            Fact::Adopted => Some(Self::Adopted),
            Fact::Renewed => Some(Self::Renewed),
            Fact::Undurable => Some(Self::Undurable),
            Fact::Failed(_) => Some(Self::RequestFailed),
            Fact::Killed => Some(Self::Killed),
            _ => None,
        }
    }

    fn symbol(self) -> char {
        match self {
            Self::Absent => ' ',
            Self::Paused => '=',
            Self::Running => '.',
            Self::Adopted => 'a',
            Self::Renewed => 'R',
            Self::RequestFailed => 'f',
            Self::Undurable => 'u',
            Self::Killed => 'X',
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Absent => "not there",
            Self::Paused => "paused",
            Self::Running => "runs",
            Self::Adopted => "adopted the token of another",
            Self::Renewed => "renewed the token for all",
            Self::RequestFailed => "a request failed",
            Self::Undurable => "its token is not in the store",
            Self::Killed => "killed",
        }
    }
}

impl Timeline {
    /// `moments` and `minted` in the order of time.
    pub(crate) fn of(members: usize, moments: &[Moment], minted: &[Time]) -> Option<Self> {
        let (from, to) = (moments.first()?.at, moments.last()?.at);
        let slot = (to.since(from) / WIDTH as u32).max(Duration::from_millis(1));
        let mut timeline = Self {
            from,
            slot,
            rows: vec![[Mark::Absent; WIDTH]; members],
            exchanges: [0; WIDTH],
        };
        for member in 0..members {
            timeline.draw(member, moments);
        }
        for at in minted {
            timeline.exchanges[timeline.column(*at)] += 1;
        }
        Some(timeline)
    }

    fn draw(&mut self, member: usize, moments: &[Moment]) {
        // Between two moments it is as it was after the first.
        let (mut state, mut column) = (Mark::Absent, 0);
        for moment in moments.iter().filter(|moment| moment.member == member) {
            let now = self.column(moment.at);
            for passed in &mut self.rows[member][column..=now] {
                *passed = (*passed).max(state);
            }
            column = now;
            state = match moment.fact {
                Fact::Started | Fact::Resumed => Mark::Running,
                Fact::Paused => Mark::Paused,
                Fact::Killed | Fact::Ended => Mark::Absent,
                _ => state,
            };
            if let Some(mark) = Mark::of(&moment.fact) {
                let cell = &mut self.rows[member][now];
                *cell = (*cell).max(mark);
            }
        }
    }

    fn column(&self, at: Time) -> usize {
        let column = at.since(self.from).as_nanos() / self.slot.as_nanos();
        usize::try_from(column).unwrap_or(usize::MAX).min(WIDTH - 1)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.slot * WIDTH as u32;
        let ruler: String = (0..5)
            .map(|fifth| format!("{:<20}", format!("|{:.1} s", (all / 5 * fifth).as_secs_f64())))
            .collect();
        writeln!(f, "            {ruler}")?;
        let exchanges = self.exchanges.map(|count| match count {
            0 => ' ',
            1..=9 => char::from_digit(count as u32, 10).unwrap_or('+'),
            _ => '+',
        });
        writeln!(f, "  exchanges {}", exchanges.iter().collect::<String>())?;
        for (member, row) in self.rows.iter().enumerate() {
            let row: String = row.iter().map(|mark| mark.symbol()).collect();
            writeln!(f, "  {member:>9} {row}")?;
        }
        let legend: Vec<_> = Mark::ALL
            .iter()
            .map(|mark| format!("`{}` {}", mark.symbol(), mark.meaning()))
            .collect();
        writeln!(f, "  {}\n  {}", legend[..4].join(", "), legend[4..].join(", "))
    }
}
