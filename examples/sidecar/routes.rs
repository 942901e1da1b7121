//! Where a request goes: [`Route`].

use std::collections::BTreeMap;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use tower_token::Origins;
use tower_token::config::TokenConfig;

use crate::file::{Faults, Protocol, RouteConfig};

/// A route that was checked.
#[derive(Debug)]
pub(crate) struct Route {
    /// Ends in no slash: what follows it does begin with one, or is nothing.
    prefix: String,
    /// Whether it has to be followed by a slash.
    is_folder: bool,
    keep_prefix: bool,
    scheme: Scheme,
    authority: Authority,
    /// The path of upstream as it was written.
    base: String,
    pub(crate) origins: Origins,
    pub(crate) protocol: Protocol,
    pub(crate) token: String,
    pub(crate) replay_limit: usize,
}

/// More is no tape, but a store of uploads in memory.
const MOST_REPLAYED: u64 = 64 * 1024 * 1024;

impl Route {
    /// Every fault is named with its path below `at`; `None` if there is one.
    pub(crate) fn check(
        at: &str,
        config: &RouteConfig,
        tokens: &BTreeMap<String, TokenConfig>,
        faults: &mut Faults,
    ) -> Option<Self> {
        if !tokens.contains_key(&config.token) {
            let names: Vec<&str> = tokens.keys().map(String::as_str).collect();
            let advice = format!(
                "is the name of no token; write one of those in `tokens`: {}",
                names.join(", ")
            );
            faults.add(&format!("{at}.token"), advice);
        }
        if !is_prefix(&config.prefix) {
            faults.add(
                &format!("{at}.prefix"),
                "is no path; write one that begins with a slash, as in /imm/",
            );
        }
        if config.replay_limit > MOST_REPLAYED {
            let advice = format!("is too large; write {MOST_REPLAYED} bytes at most");
            faults.add(&format!("{at}.replay_limit"), advice);
        }
        let path = format!("{at}.upstream");
        let (uri, origins) = match upstream(&config.upstream) {
            Ok(upstream) => upstream,
            Err(advice) => {
                faults.add(&path, advice);
                return None;
            }
        };
        let allowed = tokens.get(&config.token).map_or(&[][..], |token| &token.origins);
        if !allowed.is_empty() && !allowed.iter().any(|origin| is_same_origin(origin, &uri)) {
            let advice = format!(
                "is none of the origins of its token; list it in tokens.{}.origins",
                config.token
            );
            faults.add(&path, advice);
        }
        let parts = uri.into_parts();
        Some(Self {
            prefix: config.prefix.strip_suffix('/').unwrap_or(&config.prefix).to_owned(),
            is_folder: config.prefix.ends_with('/'),
            keep_prefix: config.keep_prefix,
            scheme: parts.scheme?,
            authority: parts.authority?,
            base: parts.path_and_query.map_or("/".into(), |path| path.path().to_owned()),
            origins,
            protocol: config.protocol,
            token: config.token.clone(),
            replay_limit: usize::try_from(config.replay_limit).ok()?,
        })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Whether requests for that path go here. A prefix ends where a segment does: `/imm` has `/imm/x`, and
    /// not `/immense`.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&self.prefix) {
            Some("") => !self.is_folder,
            Some(rest) => rest.starts_with('/'),
            None => false,
        }
    }

    /// Where upstream has what was asked for. What follows the prefix stays as it was written, byte for byte.
    ///
    /// # Errors
    ///
    /// If that is longer than a URL may be.
    pub(crate) fn target(&self, asked: &Uri) -> Result<Uri, http::Error> {
        let path = asked.path();
        let rest = if self.keep_prefix {
            path
        } else {
            path.strip_prefix(&self.prefix).unwrap_or(path)
        };
        let mut target = match rest {
            "" => self.base.clone(),
            _ => [self.base.strip_suffix('/').unwrap_or(&self.base), rest].concat(),
        };
        if let Some(query) = asked.query() {
            target.push('?');
            target.push_str(query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(target)?)
            .build()
    }
}

fn is_prefix(prefix: &str) -> bool {
    let path = prefix.parse::<PathAndQuery>();
    prefix.starts_with('/') && path.is_ok_and(|path| path.as_str() == prefix && path.query().is_none())
}

/// The URL, and its origin as the only one where the token may go; or what would be right.
fn upstream(written: &str) -> Result<(Uri, Origins), String> {
    const RIGHT: &str = "write it as in https://api.example.com/base/";
    let uri: Uri = written.parse().map_err(|_| format!("is no URL; {RIGHT}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(format!("names no scheme or no host; {RIGHT}"));
    };
    if uri.query().is_some() || written.contains('#') {
        return Err(format!("has a query or a fragment; {RIGHT}"));
    }
    match Origins::only(&format!("{scheme}://{authority}")) {
        Ok(origins) => Ok((uri, origins)),
        Err(error) => {
            // `invalid configuration: origins: is plain http, ...`: the path is ours to say.
            let message = error.to_string();
            let advice = message.split_once("origins: ").map_or(&*message, |(_, advice)| advice);
            Err(advice.to_owned())
        }
    }
}

fn is_same_origin(origin: &str, uri: &Uri) -> bool {
    let key = |uri: &Uri| {
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let host = uri.host().map(str::to_ascii_lowercase);
        (uri.scheme().cloned(), host, uri.port_u16().unwrap_or(default))
    };
    origin.parse().is_ok_and(|origin| key(&origin) == key(uri))
}
