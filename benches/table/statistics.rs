//! What is made of the times of many rounds.

#![allow(dead_code)] // Each benchmark uses its own part.

/// The value in the middle; the upper one of two.
///
/// # Panics
///
/// If there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    middle(&sorted(values))
}

/// The least of them: what it takes when nothing else is in the way.
pub(crate) fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}

/// The median of the ratios within each round: what slows a whole round down is in both of them.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
}

/// How much more `threads` get done than one, where each of them does what the one does: 2 is twice as much.
pub(crate) fn scaling(threads: usize, alone: f64, together: f64) -> f64 {
    threads as f64 * alone / together
}

/// A median, and between which two values the true one lies with at least 95 % certainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Between {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Between {
    /// By the order of the values alone, so that nothing is assumed of how they are spread.
    ///
    /// # Panics
    ///
    /// If there are fewer than six: no two of so few values are certain enough.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values = sorted(values);
        let outside = outside(values.len()).expect("six values or more");
        Self {
            low: values[outside],
            median: middle(&values),
            high: values[values.len() - 1 - outside],
        }
    }

    /// For a table: the median first.
    pub(crate) fn cells(self) -> [f64; 3] {
        [self.median, self.low, self.high]
    }

    /// Whether 0 may be the true value.
    pub(crate) fn holds_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }
}

/// How many of so many values can be left out on either side. The true median has each value below it with
/// one half, so that the number of those below is binomial; 2.5 % may be lost on a side.
pub(crate) fn outside(values: usize) -> Option<usize> {
    let mut chance = 0.5_f64.powi(values as i32);
    let mut below = 0.0;
    let mut left_out = 0_usize;
    loop {
        below += chance;
        if below > 0.025 {
            return left_out.checked_sub(1);
        }
        chance *= (values - left_out) as f64 / (left_out + 1) as f64;
        left_out += 1;
    }
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
