//! One flight and who waits for it, small enough for every schedule there is.

use super::*;
use crate::event::Observers;
use crate::provider::Cause;
use crate::tokens::flight::Flight;

fn flight(seats: usize) -> Arc<Flight> {
    Arc::new(Flight::new(Cause::Initial, 0, seats, Observers::default()))
}

#[test]
fn a_flight_that_lands_ends_the_wait_of_whoever_joins_it() {
    exhaust(|| {
        let flight = flight(2);
        let waiter = thread::spawn({
            let flight = flight.clone();
            move || assert!(matches!(block_on(flight.join()), Landed::Published))
        });
        flight.land(Landed::Published);
        waiter.join().unwrap();
    });
}

#[test]
fn a_flight_that_two_land_lands_once() {
    exhaust(|| {
        let flight = flight(2);
        let waiter = thread::spawn({
            let flight = flight.clone();
            move || block_on(flight.join())
        });
        let other = thread::spawn({
            let flight = flight.clone();
            move || flight.land(Landed::Superseded)
        });
        let waited = flight.land(Landed::Published);
        assert!(waited + other.join().unwrap() <= 1, "counted twice");
        let told = std::mem::discriminant(&waiter.join().unwrap());
        assert_eq!(
            told,
            std::mem::discriminant(&block_on(flight.join())),
            "all are told the same"
        );
    });
}

#[test]
fn a_flight_gives_the_seat_that_was_left_to_the_next() {
    exhaust(|| {
        let flight = flight(1);
        let leaver = thread::spawn({
            let flight = flight.clone();
            move || drop(tokio_test::task::spawn(flight.join()).poll())
        });
        let told = thread::spawn({
            let flight = flight.clone();
            move || block_on(flight.join())
        });
        leaver.join().unwrap();
        flight.land(Landed::Published);
        match told.join().unwrap() {
            Landed::Published => {}
            Landed::Failed(error) => assert!(error.is_overloaded(), "{error}"),
            Landed::Superseded => panic!("superseded by nobody"),
        }
        assert_eq!(flight.waiting(), 0);
    });
}
