//! Where the token of a fleet is kept.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tower_token::{BoxError, FileStore, TokenStore};

#[derive(Clone, Debug)]
pub(crate) enum Place {
    File(PathBuf),
    /// Under a key of a Redis at a URL.
    Redis {
        key: String,
        url: String,
    },
}

impl Place {
    pub(crate) fn open(&self) -> Result<Arc<dyn TokenStore>, BoxError> {
        match self {
            Self::File(path) => Ok(Arc::new(FileStore::new(path))),
            #[cfg(feature = "redis")]
            Self::Redis { key, url } => Ok(Arc::new(tower_token::RedisStore::new(url.as_str(), key))),
            #[cfg(not(feature = "redis"))]
            Self::Redis { .. } => Err("Redis is a feature of its own: --features redis".into()),
        }
    }
}

/// `file:PATH` or `redis:KEY@URL`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Redis { key, url } => write!(f, "redis:{key}@{url}"),
        }
    }
}

impl FromStr for Place {
    type Err = BoxError;

    fn from_str(text: &str) -> Result<Self, BoxError> {
        match text.split_once(':') {
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(("redis", rest)) => {
                let (key, url) = rest.split_once('@').ok_or("redis:KEY@URL")?;
                Ok(Self::Redis {
                    key: key.into(),
                    url: url.into(),
                })
            }
            _ => Err(format!("{text:?} is neither file:PATH nor redis:KEY@URL").into()),
        }
    }
}
