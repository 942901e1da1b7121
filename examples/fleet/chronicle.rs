//! Everything that was told, by whom and when.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::facts::{Fact, Moment, Time};

#[derive(Clone)]
pub(crate) struct Chronicle {
    moments: Arc<Mutex<Vec<Moment>>>,
    live: broadcast::Sender<Moment>,
}

impl Chronicle {
    pub(crate) fn new() -> Self {
        Self {
            moments: Arc::default(),
            live: broadcast::Sender::new(4096),
        }
    }

    pub(crate) fn note(&self, at: Time, member: usize, fact: Fact) {
        let moment = Moment { at, member, fact };
        // Nobody may be listening.
        let _ = self.live.send(moment.clone());
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.push(moment);
    }

    /// Waits for the next one of this kind.
    pub(crate) fn next(&self, is: impl Fn(&Moment) -> bool) -> impl Future<Output = Moment> {
        let mut live = self.live.subscribe();
        async move {
            loop {
                match live.recv().await {
                    Ok(moment) if is(&moment) => return moment,
                    // What was missed is not waited for.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }

    /// All of it up to now, in the order of time.
    pub(crate) fn all(&self) -> Vec<Moment> {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moments = moments.clone();
        moments.sort_by_key(|moment| moment.at);
        moments
    }
}
