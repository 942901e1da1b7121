//! What a member is told when it is started: its arguments, and a secret in its environment.

use std::collections::HashMap;
use std::time::Duration;

use tower_token::BoxError;

use crate::command_line::{Flags, duration};
use crate::place::Place;

/// The first argument of a program that is a member.
pub(crate) const MEMBER: &str = "--member";

/// Not an argument, because everybody can read those.
const SEED: &str = "FLEET_REFRESH_TOKEN";

#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) issuer: String,
    pub(crate) api: String,
    /// What somebody signed in with, once, for all members.
    pub(crate) seed: String,
    pub(crate) place: Place,
    /// Requests in a second.
    pub(crate) rate: f64,
    /// For how long the right to renew is taken. The fetch timeout is 5 s less.
    pub(crate) lease: Duration,
    /// Whether a token is renewed that cannot be kept.
    pub(crate) alone: bool,
    /// Renews so often whether or not it is due.
    pub(crate) refresh_every: Option<Duration>,
}

impl Orders {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![MEMBER.to_owned()];
        let mut add = |flag: &str, value: String| arguments.extend([format!("--{flag}"), value]);
        add("issuer", self.issuer.clone());
        add("api", self.api.clone());
        add("place", self.place.to_string());
        add("rate", self.rate.to_string());
        add("lease", format!("{}ms", self.lease.as_millis()));
        add("alone", self.alone.to_string());
        if let Some(every) = self.refresh_every {
            add("refresh-every", format!("{}ms", every.as_millis()));
        }
        arguments
    }

    pub(crate) fn environment(&self) -> HashMap<&'static str, String> {
        HashMap::from([(SEED, self.seed.clone())])
    }

    /// What follows [`MEMBER`].
    pub(crate) fn read(arguments: &[String]) -> Result<Self, BoxError> {
        let mut flags = Flags::of(arguments)?;
        let mut needed = |flag: &str| flags.take(flag).ok_or_else(|| format!("--{flag} is missing"));
        let orders = Self {
            issuer: needed("issuer")?,
            api: needed("api")?,
            seed: std::env::var(SEED)?,
            place: needed("place")?.parse()?,
            rate: needed("rate")?.parse()?,
            lease: duration(&needed("lease")?)?,
            alone: needed("alone")?.parse()?,
            refresh_every: flags.take("refresh-every").as_deref().map(duration).transpose()?,
        };
        flags.end()?;
        Ok(orders)
    }
}
