//! A fleet, and what it works with: an issuer and an API in this process, a store outside of it.

use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};
use tower_token::testkit::{Api, Issuer, Server};
use tower_token::{BoxError, Record};

use crate::account::Account;
use crate::crew::Crew;
use crate::facts::{Moment, Time};
use crate::orders::Orders;
use crate::place::Place;

/// What is to be set up.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) processes: usize,
    /// Of an access token.
    pub(crate) life: Duration,
    /// Requests in a second, of each process.
    pub(crate) rate: f64,
    pub(crate) place: Place,
    pub(crate) lease: Duration,
    pub(crate) alone: bool,
    pub(crate) refresh_every: Option<Duration>,
}

impl Plan {
    pub(crate) fn at(place: Place) -> Self {
        Self {
            processes: 8,
            life: Duration::from_secs(2),
            rate: 20.0,
            place,
            lease: Duration::from_secs(45),
            alone: false,
            refresh_every: None,
        }
    }
}

pub(crate) struct Stage {
    pub(crate) issuer: Issuer,
    pub(crate) crew: Crew,
    pub(crate) orders: Orders,
    pub(crate) plan: Plan,
    /// When the issuer's own clock began.
    born: Time,
    _servers: [Server; 2],
}

impl Stage {
    /// Nobody is started yet.
    pub(crate) async fn set(plan: Plan) -> Result<Self, BoxError> {
        let (born, issuer) = (Time::now(), Issuer::new());
        issuer.lifetime(plan.life);
        let api = Api::new(&issuer);
        let servers = [issuer.serve().await?, api.serve().await?];
        let orders = Orders {
            issuer: servers[0].url().into(),
            api: servers[1].url().into(),
            seed: issuer.sign_in(),
            place: plan.place.clone(),
            rate: plan.rate,
            lease: plan.lease,
            alone: plan.alone,
            refresh_every: plan.refresh_every,
        };
        Ok(Self {
            crew: Crew::of(plan.processes),
            issuer,
            orders,
            plan,
            born,
            _servers: servers,
        })
    }

    pub(crate) fn start(&self) -> Result<(), BoxError> {
        self.crew.start_all(&self.orders)
    }

    /// Waits until the issuer has granted so many tokens and the fleet had time to take the last one over.
    pub(crate) async fn until_granted(&self, tokens: u64) -> Result<(), BoxError> {
        // A fleet that does not come on is no reason to wait forever.
        let limit = self.plan.life * u32::try_from(tokens)? + Duration::from_secs(60);
        let granted = timeout(limit, self.more_than_granted(tokens.saturating_sub(1))).await;
        sleep(self.plan.life / 5).await;
        let counts = self.issuer.counts();
        granted.map_err(|_| format!("{} of {tokens} tokens within {limit:?}", counts.granted).into())
    }

    pub(crate) async fn more_than_granted(&self, tokens: u64) {
        while self.issuer.counts().granted <= tokens {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// A user signs in once more, and everybody is started with that.
    pub(crate) async fn sign_in_again(&mut self) -> Result<(), BoxError> {
        for member in 0..self.crew.size() {
            self.crew.kill(member).await;
        }
        self.orders.seed = self.issuer.sign_in();
        self.start()
    }

    /// When the issuer minted its tokens.
    pub(crate) fn minted(&self) -> Vec<Time> {
        let minted = self.issuer.timeline();
        minted.iter().map(|issued| self.born.plus(issued.at)).collect()
    }

    /// By the clock that members tell the time by.
    pub(crate) fn time_of(&self, at: Duration) -> Time {
        self.born.plus(at)
    }

    /// What is in the store now.
    pub(crate) async fn kept(&self) -> Result<Option<Record>, BoxError> {
        Ok(self.plan.place.open()?.load().await?)
    }

    /// Ends the fleet. What happened, in the order of time, and what it came to.
    pub(crate) async fn close(&self) -> Result<(Vec<Moment>, Account), BoxError> {
        let stuck = self.crew.dismiss().await;
        if !stuck.is_empty() {
            return Err(format!("members {stuck:?} did not leave").into());
        }
        let moments = self.crew.chronicle.all();
        // Long enough to hold up whoever else is served by this thread.
        let account = block_in_place(|| Account::of(self, &moments));
        Ok((moments, account))
    }
}
