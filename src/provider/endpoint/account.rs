//! Whose tokens an [`Endpoint`] brings, and what it begins from.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::template::{ACCESS_TOKEN, ALWAYS_NEEDED};
use super::{Call, Endpoint, Fallback};
use crate::provider::owner::{Owner, is_account};
use crate::token::Secret;

/// As a document says it.
pub(super) fn owner_named(owner: &str) -> String {
    Owner::named("endpoint", owner).into_line()
}

impl Endpoint {
    /// Of a document that somebody wrote: its addresses, and what is named like an account in `vars` or in a request.
    pub(super) fn owner_by_names(&self) -> String {
        let calls = || [&self.acquire, &self.renew].into_iter().flatten();
        let mut named = BTreeSet::new();
        for (name, value) in &self.vars {
            // What an answer replaces is no account.
            if is_account(name) && !self.answer.keep.contains_key(name) {
                let shown = match self.secrets.contains(name) {
                    true => digest(name, value.expose()),
                    false => value.expose().clone(),
                };
                named.insert((name.clone(), shown));
            }
        }
        for (name, text) in calls().flat_map(Call::literals) {
            if is_account(name) {
                named.insert((name.to_owned(), text.to_owned()));
            }
        }
        let urls: Vec<String> = calls().map(|call| call.url.written()).collect();
        let mut owner = Owner::of("endpoint", urls.first().map_or("", String::as_str));
        if let Some(other) = urls.get(1).filter(|other| **other != urls[0]) {
            owner = owner.and("renew", other.split('?').next().unwrap_or_default());
        }
        for (name, value) in named {
            owner = owner.and(&name, &value);
        }
        owner.into_line()
    }

    /// Of a vendor's strategy: its kind, its address, and those of its values that say whose tokens they are.
    #[cfg(any(feature = "alibaba", feature = "tencent", feature = "huawei"))]
    pub(in crate::provider) fn owner_of(&self, kind: &str, url: &str, names: &[&str]) -> String {
        let owner = names.iter().fold(Owner::of(kind, url), |owner, name| {
            let value = self.vars.get(*name).map_or("", |value| value.expose());
            owner.and(name.strip_prefix("acquire.").unwrap_or(name), value)
        });
        owner.into_line()
    }

    /// What was configured and is replaced by what an answer brings, or used up by the first: in the form that
    /// [`install`](crate::Tokens::install) takes.
    pub(in crate::provider) fn configured_seed(&self) -> Option<Secret<Value>> {
        let once = self.acquire.as_ref().filter(|_| self.fallback == Fallback::Never);
        let used_up = once.iter().flat_map(|call| call.needs.iter().map(String::as_str));
        let replaced = self.answer.keep.keys().map(String::as_str);
        let begins: BTreeSet<&str> = used_up.chain(replaced).chain(ALWAYS_NEEDED).collect();
        let mut seed = Map::new();
        for name in begins {
            let var = || Some(Value::from(self.vars.get(name)?.expose().as_str()));
            let shown = if name == ACCESS_TOKEN { self.token_alias } else { name };
            if let Some(value) = self.seed.get(name).cloned().or_else(var) {
                seed.insert(shown.to_owned(), value);
            }
        }
        (!seed.is_empty()).then(|| Secret::new(Value::Object(seed)))
    }
}

/// Tells two values apart and gives none away: 32 bits of it.
fn digest(name: &str, value: &str) -> String {
    let sum = Sha256::new()
        .chain_update(name)
        .chain_update([0])
        .chain_update(value)
        .finalize();
    sum.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}
