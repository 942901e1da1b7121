//! Three figures in real time. They are printed and promise nothing: they depend on the machine.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tower_token::{BoxError, Event, RefreshPolicy};

use crate::callers::Call;
use crate::stage::Stage;
use crate::waiters::{self, CALLERS, Waiters};
use crate::words::{grouped, micros, millis};

pub(crate) struct Figures {
    renewal: Renewal,
    dead: Dead,
    waiters: Waiters,
}

impl Figures {
    pub(crate) async fn measured() -> Result<Self, BoxError> {
        Ok(Self {
            renewal: renewal().await?,
            dead: dead().await?,
            waiters: spawn_blocking(waiters::measured).await??,
        })
    }

    pub(crate) fn json(&self) -> String {
        format!(
            "{{{},{},{}}}",
            self.renewal.json(),
            self.dead.json(),
            self.waiters.json()
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "in real time, on this machine")?;
        writeln!(f, "     {:<48}  {}", "a call while the token is renewed", self.renewal)?;
        writeln!(
            f,
            "     {:<48}  {}",
            "a failure while the credential is dead", self.dead
        )?;
        let hung = format!("{} callers while the issuer hangs", grouped(CALLERS));
        writeln!(f, "     {hung:<48}  {}", self.waiters)
    }
}

/// What this share of them did not exceed.
fn quantile(mut durations: Vec<Duration>, share: f64) -> Duration {
    durations.sort_unstable();
    let rank = (durations.len() as f64 * share).ceil() as usize;
    durations.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

// ===== Calls during a renewal =====

struct Renewal {
    during: Duration,
    otherwise: Duration,
    renewals: usize,
}

/// Renewed every half a second, which takes the issuer 100 ms, under 64 callers.
async fn renewal() -> Result<Renewal, BoxError> {
    let renewals = Arc::new(Mutex::new(Vec::<(Instant, Instant)>::new()));
    let told = renewals.clone();
    let stage = Stage::with(RefreshPolicy::default(), move |event: &Event| {
        if let Event::Renewed { took, .. } = event {
            let landed = Instant::now();
            told.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((landed - *took, landed));
        }
    })
    .await?;
    stage
        .issuer
        .lifetime(Duration::from_secs(1))
        .latency(Duration::from_millis(100));
    stage.api.latency(Duration::from_millis(5));
    stage.call("/api").await;
    let calls = stage.crowd(64, "/api", Duration::from_secs(4)).leave().await;
    let renewals = std::mem::take(&mut *renewals.lock().unwrap_or_else(PoisonError::into_inner));
    let in_the_air = |call: &Call| {
        renewals
            .iter()
            .any(|(began, landed)| call.began < *landed && *began < call.began + call.took)
    };
    let (during, otherwise): (Vec<_>, Vec<_>) = calls.0.into_iter().partition(in_the_air);
    let p99 = |calls: Vec<Call>| quantile(calls.iter().map(|call| call.took).collect(), 0.99);
    Ok(Renewal {
        during: p99(during),
        otherwise: p99(otherwise),
        renewals: renewals.len(),
    })
}

impl Renewal {
    fn json(&self) -> String {
        format!(
            r#""p99_during_renewal_us":{},"p99_otherwise_us":{}"#,
            self.during.as_micros(),
            self.otherwise.as_micros()
        )
    }
}

impl fmt::Display for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p99 {}, otherwise {} ({} renewals of 100 ms each; the API takes 5 ms)",
            millis(self.during),
            millis(self.otherwise),
            self.renewals
        )
    }
}

// ===== Calls while the credential is dead =====

struct Dead {
    median: Duration,
    p99: Duration,
}

async fn dead() -> Result<Dead, BoxError> {
    let stage = Stage::new().await?;
    stage.issuer.revoke_all();
    stage.call("/api").await;
    let mut took = Vec::new();
    for _ in 0..20_000 {
        took.push(stage.call("/api").await.took);
    }
    Ok(Dead {
        median: quantile(took.clone(), 0.5),
        p99: quantile(took, 0.99),
    })
}

impl Dead {
    fn json(&self) -> String {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        format!(
            r#""dead_median_us":{:.1},"dead_p99_us":{:.1}"#,
            micros(self.median),
            micros(self.p99)
        )
    }
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {}, p99 {}", micros(self.median), micros(self.p99))
    }
}
