//! The sidecar's file: [`Document`].
//!
//! What a token is made of is the library's ([`TokenConfig`]); the rest stands here. Reading it is strict: an
//! unknown field, a wrong type or a missing secret is an error that names its path in the document.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tower_token::config::{self, TokenConfig};

/// Where to listen, which tokens there are, and where requests go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// Where the proxy listens. Default: a free port of 127.0.0.1.
    #[serde(default = "free_port")]
    pub(crate) listen: String,
    /// Where whoever runs it looks. Default: a free port of 127.0.0.1.
    #[serde(default = "free_port")]
    pub(crate) admin: String,
    /// Whether either may be an address that other machines reach.
    #[serde(default)]
    pub(crate) allow_remote: bool,
    /// Whether the proxy refuses what a web page of another site may have sent.
    #[serde(default)]
    pub(crate) refuse_pages: bool,
    /// By name.
    pub(crate) tokens: BTreeMap<String, TokenConfig>,
    /// The first whose prefix matches has the request.
    #[serde(default)]
    pub(crate) routes: Vec<RouteConfig>,
}

/// One member of `routes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteConfig {
    /// What the path of a request begins with.
    pub(crate) prefix: String,
    /// What is put in the place of the prefix.
    pub(crate) upstream: String,
    /// The name of the token that is put on.
    pub(crate) token: String,
    /// What upstream speaks.
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// Whether the prefix stays.
    #[serde(default)]
    pub(crate) keep_prefix: bool,
    /// How much of a body is kept in case that its token is refused.
    #[serde(default = "replay_limit")]
    pub(crate) replay_limit: u64,
}

/// What upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, known beforehand; over TLS where the URL says https.
    H2c,
}

impl Document {
    /// Reads the file, and the directory that relative paths in it begin at.
    pub(crate) fn load(path: &Path) -> Result<(Self, PathBuf), Faults> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Faults::one(format!("{}: cannot be read: {error}", path.display())))?;
        let document = config::read(&text).map_err(|error| Faults::one(error.to_string()))?;
        Ok((document, path.parent().unwrap_or(Path::new("")).to_owned()))
    }
}

/// What is wrong with a file, a line each. No value of the file is quoted: it may be a secret in a wrong place.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<String>);

impl Faults {
    pub(crate) fn one(message: String) -> Self {
        Self(vec![message])
    }

    /// The field at that path is wrong; `advice` is what would be right.
    pub(crate) fn add(&mut self, path: &str, advice: impl fmt::Display) {
        self.0.push(format!("invalid configuration: {path}: {advice}"));
    }

    /// What the library found.
    pub(crate) fn found(&mut self, error: &tower_token::Error) {
        self.0.push(error.to_string());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

fn free_port() -> String {
    "127.0.0.1:0".into()
}

fn replay_limit() -> u64 {
    64 * 1024
}
