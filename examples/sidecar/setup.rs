//! From a file that was read to parts that work: [`Checked`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tower_token::TokensBuilder;
use tower_token::config::{Injection, Refusal, Source, Store, TokenConfig};

use crate::admin::Kept;
use crate::file::{Document, Faults};
use crate::ledger::{self, Counts, Events};
use crate::routes::Route;
use crate::upstream::{Lane, Tls};

/// All that can be said of a file before anything is begun: secrets are read, nothing listens, nothing is fetched.
pub(crate) struct Checked {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) refuse_pages: bool,
    /// The longest that a fetch takes to its end, with what it brought in its store.
    pub(crate) landing: Duration,
    tokens: Vec<Token>,
    routes: Vec<Route>,
    tls: Tls,
}

struct Token {
    name: String,
    builder: TokensBuilder,
    injection: Injection,
    refusal: Refusal,
    expose: bool,
}

/// Tokens by name, routes with their clients.
pub(crate) type Built = (BTreeMap<String, Kept>, Vec<Lane>);

impl Checked {
    /// # Errors
    ///
    /// Every fault of the file, with its path.
    pub(crate) fn new(document: &Document, base: &Path) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let listen = address("listen", &document.listen, document.allow_remote, &mut faults);
        let admin = address("admin", &document.admin, document.allow_remote, &mut faults);
        let mut tokens = Vec::new();
        for (name, config) in &document.tokens {
            match token(name, config, base) {
                Ok(token) => tokens.push(token),
                Err(error) => faults.found(&error),
            }
        }
        places(&document.tokens, &mut faults);
        let mut routes = Vec::new();
        for (index, config) in document.routes.iter().enumerate() {
            let at = format!("routes[{index}]");
            routes.extend(Route::check(&at, config, &document.tokens, &mut faults));
        }
        let tls = tls(&routes, &mut faults);
        let landings = document.tokens.values().map(landing);
        match (listen, admin, tls) {
            (Some(listen), Some(admin), Some(tls)) if faults.is_empty() => Ok(Self {
                listen,
                admin,
                refuse_pages: document.refuse_pages,
                landing: landings.max().unwrap_or_default(),
                tokens,
                routes,
                tls,
            }),
            _ => Err(faults),
        }
    }

    /// Within the runtime, because here begins what is kept alive.
    ///
    /// # Errors
    ///
    /// What a provider says against itself only now.
    pub(crate) fn build(self, events: &Events) -> Result<Built, Faults> {
        let mut faults = Faults::default();
        let (mut kept, mut ways) = (BTreeMap::new(), BTreeMap::new());
        for token in self.tokens {
            let counts = Arc::new(Counts::default());
            let observer = ledger::observer(&token.name, counts.clone(), events);
            match token.builder.observe(observer).build() {
                Ok(tokens) => {
                    ways.insert(token.name.clone(), (tokens.clone(), token.injection, token.refusal));
                    let expose = token.expose;
                    kept.insert(token.name, Kept { tokens, counts, expose });
                }
                Err(error) => faults.add(&format!("tokens.{}", token.name), error),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        // In the order of the file, because the first match has the request. Every route names a token: checked.
        let lane = |route: Route| {
            let (tokens, injection, refusal) = ways.get(&route.token)?;
            Some(Lane::new(
                route,
                tokens,
                injection.clone(),
                refusal.clone(),
                self.tls.clone(),
            ))
        };
        Ok((kept, self.routes.into_iter().filter_map(lane).collect()))
    }
}

fn token(name: &str, config: &TokenConfig, base: &Path) -> Result<Token, tower_token::Error> {
    let at = format!("tokens.{name}");
    Ok(Token {
        name: name.to_owned(),
        builder: config.builder(&at, base)?,
        injection: config.injection(&at)?,
        refusal: config.refusal(&at)?,
        expose: config.expose,
    })
}

/// How long [`Tokens::shutdown`](tower_token::Tokens::shutdown) takes at most.
fn landing(config: &TokenConfig) -> Duration {
    let saved = config.store.as_ref().map(|store| store.patience() + LAST_SAVE);
    config.fetch_timeout().saturating_add(saved.unwrap_or_default())
}

const LAST_SAVE: Duration = Duration::from_secs(5);

/// A store keeps one token: with a second one in its place, requests of the one would go out with the other.
fn places(tokens: &BTreeMap<String, TokenConfig>, faults: &mut Faults) {
    let mut taken = BTreeMap::new();
    for (name, config) in tokens {
        let Some(store) = &config.store else { continue };
        if let Some(other) = taken.insert(place(store), name) {
            let advice = format!("is the place of tokens.{other}, and there is room for one; write another");
            faults.add(&format!("tokens.{name}.store"), advice);
        }
    }
}

/// By what the document calls it. Nothing of it is printed.
fn place(store: &Store) -> (&'static str, PathBuf, String) {
    match store {
        // Without the dots in it.
        Store::File(file) => (
            "file",
            Path::new(".").join(&file.path).components().collect(),
            String::new(),
        ),
        Store::Redis(redis) => match &redis.url {
            Source::Literal(url) => ("redis", PathBuf::from(url.expose()), redis.key.clone()),
            Source::Env(name) => ("redis of a variable", PathBuf::from(name), redis.key.clone()),
            Source::File(path) => ("redis of a file", path.clone(), redis.key.clone()),
            _ => ("redis of something else", PathBuf::new(), redis.key.clone()),
        },
        _ => ("something else", PathBuf::new(), String::new()),
    }
}

fn address(path: &str, written: &str, allow_remote: bool, faults: &mut Faults) -> Option<SocketAddr> {
    let Ok(address) = written.parse::<SocketAddr>() else {
        faults.add(
            path,
            "is no address with a port; write it as in 127.0.0.1:8080, with port 0 for any",
        );
        return None;
    };
    if !allow_remote && !address.ip().to_canonical().is_loopback() {
        let advice = "is beyond loopback, where everyone gets requests with your tokens on them; \
                      write an address of 127.0.0.1, or \"allow_remote\": true";
        faults.add(path, advice);
        return None;
    }
    Some(address)
}

fn tls(routes: &[Route], faults: &mut Faults) -> Option<Tls> {
    let secured = routes.iter().position(Route::is_https);
    let tls = match secured {
        Some(_) => Tls::of_the_system(),
        None => Tls::unused(),
    };
    let at = format!("routes[{}].upstream", secured.unwrap_or_default());
    tls.map_err(|error| faults.add(&at, format!("TLS could not be set up on this machine: {error}")))
        .ok()
}
