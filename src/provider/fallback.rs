//! Whether a token is renewed or acquired anew: [`Fallback`].

use serde::Deserialize;

/// When a token is acquired from nothing although there is one to renew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fallback {
    /// When it is dead: the issuer will not renew it any more ([`Class::Terminal`](crate::Class::Terminal)), or it
    /// could only have been renewed alive. The default.
    #[default]
    Dead,
    /// Never: what acquires is good for one use, such as an authorization code.
    Never,
}

/// What there is to go by.
pub(super) struct Situation {
    /// Everything that a renewal sends is there; `None`: the API has no renewal.
    pub(super) renewable: Option<bool>,
    /// The same of an acquisition.
    pub(super) acquirable: Option<bool>,
    /// A token was had before, so that whatever is good for one use is used up.
    pub(super) had_one: bool,
    /// It can only be renewed alive, and is not: its time is over, or a server refused it.
    pub(super) too_late: bool,
}

/// What is sent first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    Renew,
    Acquire,
    /// Nothing can be.
    Stuck,
}

impl Fallback {
    pub(super) fn way(self, situation: &Situation) -> Way {
        let acquire = situation.acquirable == Some(true) && self.may_acquire(situation.had_one);
        match situation.renewable {
            Some(true) if !(situation.too_late && acquire) => Way::Renew,
            _ if acquire => Way::Acquire,
            _ => Way::Stuck,
        }
    }

    /// Whether an acquisition may follow where there was a token before.
    pub(super) fn may_acquire(self, had_one: bool) -> bool {
        !had_one || self == Self::Dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_situation_has_its_way() {
        let way = |fallback: Fallback, renewable, acquirable, had_one, too_late| {
            fallback.way(&Situation {
                renewable,
                acquirable,
                had_one,
                too_late,
            })
        };
        let (yes, no) = (Some(true), Some(false));
        for (renewable, acquirable, had_one, too_late, dead, never) in [
            (no, yes, false, false, Way::Acquire, Way::Acquire),
            (None, yes, false, false, Way::Acquire, Way::Acquire),
            (None, yes, true, false, Way::Acquire, Way::Stuck),
            (yes, yes, false, false, Way::Renew, Way::Renew),
            (yes, yes, true, false, Way::Renew, Way::Renew),
            (yes, yes, true, true, Way::Acquire, Way::Renew),
            (yes, None, true, true, Way::Renew, Way::Renew),
            (yes, no, true, true, Way::Renew, Way::Renew),
            (no, yes, true, false, Way::Acquire, Way::Stuck),
            (no, no, true, false, Way::Stuck, Way::Stuck),
            (no, None, false, false, Way::Stuck, Way::Stuck),
        ] {
            assert_eq!(way(Fallback::Dead, renewable, acquirable, had_one, too_late), dead);
            assert_eq!(way(Fallback::Never, renewable, acquirable, had_one, too_late), never);
        }
    }
}
