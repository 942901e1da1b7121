//! What befalls the members of a fleet: one is killed, one is paused.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;
use tower_token::BoxError;

use crate::crew::Crew;
use crate::orders::Orders;

/// Kills one each time, and starts it again a moment later. Ends only with an error.
pub(crate) async fn kills(crew: Crew, orders: Orders, every: Duration, mut random: Rng) -> Result<(), BoxError> {
    loop {
        sleep(every).await;
        let Some(victim) = random.choice(crew.serving()) else {
            continue;
        };
        crew.kill(victim).await;
        sleep(Duration::from_millis(random.u64(100..500))).await;
        crew.start(victim, &orders)?;
    }
}

/// Pauses one each time, for so long.
pub(crate) async fn pauses(crew: Crew, every: Duration, lasts: (Duration, Duration), mut random: Rng) {
    loop {
        sleep(every).await;
        let Some(victim) = random.choice(crew.serving()) else {
            continue;
        };
        if crew.pause(victim) {
            sleep(between(lasts, &mut random)).await;
            crew.resume(victim);
        }
    }
}

pub(crate) fn between((least, most): (Duration, Duration), random: &mut Rng) -> Duration {
    least + (most - least).mul_f64(random.f64())
}
