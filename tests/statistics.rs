//! The arithmetic of the benchmarks. They have no harness of their own, so it is tested here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../benches/table/statistics.rs"]
mod statistics;

use statistics::{Between, median, outside, ratio, scaling};

#[test]
fn the_median_is_the_value_in_the_middle_whatever_the_order() {
    assert_eq!(median([5.0, 1.0, 900.0]), 5.0);
    assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 3.0);
}

#[test]
fn a_round_that_was_slow_as_a_whole_does_not_move_the_ratio() {
    assert_eq!(ratio(&[12.0, 120.0, 12.0], &[10.0, 100.0, 10.0]), 1.2);
    // The ratio of the medians would be 1.
    assert_eq!(ratio(&[10.0, 20.0, 30.0], &[5.0, 20.0, 10.0]), 2.0);
}

#[test]
fn two_threads_that_take_as_long_as_one_get_twice_as_much_done() {
    assert_eq!(scaling(2, 100.0, 100.0), 2.0);
    assert_eq!(scaling(2, 100.0, 200.0), 1.0);
}

/// The table of the sign test: of 6, 20 and 21 values 0, 5 and 5 are left out on either side.
#[test]
fn the_interval_is_that_of_the_sign_test() {
    assert_eq!(
        [5, 6, 8, 9, 20, 21, 25].map(outside),
        [None, Some(0), Some(0), Some(1), Some(5), Some(5), Some(7)]
    );
    let between = Between::of((1..=20).map(f64::from));
    assert_eq!((between.low, between.median, between.high), (6.0, 11.0, 15.0));
}

#[test]
fn no_difference_is_within_an_interval_that_holds_zero() {
    let around = Between::of([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]);
    assert!(around.holds_zero());
    assert!(!Between::of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).holds_zero());
}
