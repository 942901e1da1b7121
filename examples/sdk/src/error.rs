//! What can go wrong: [`Error`].

use std::error::Error as StdError;
use std::fmt;

use http::{StatusCode, response};
use tower::BoxError;

/// Why a call failed.
///
/// What caused it is its [`source`](StdError::source), whatever library it comes from.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no token to call Acme with. [`is_reauth_required`](Self::is_reauth_required) tells whether there
    /// will be one without a person's doing.
    Token(BoxError),
    /// The client could not deliver the request, or got no answer.
    Client(BoxError),
    /// Acme answered with this status.
    Status(StatusCode),
    /// Acme's answer could not be read.
    Answer(BoxError),
    /// What was asked for cannot be: an address that a token may not go to, an order that is no JSON.
    Config(BoxError),
}

impl Error {
    /// Somebody has to sign in again: there is no point in calling again before that.
    pub fn is_reauth_required(&self) -> bool {
        tower_token::Error::find(self).is_some_and(|error| error.is_reauth_required() || error.is_signed_out())
    }

    /// The service below failed: the layer, or the client that the user brought.
    pub(crate) fn not_sent(error: BoxError) -> Self {
        match tower_token::Error::find(&*error) {
            Some(_) => Self::Token(error),
            None => Self::Client(error),
        }
    }

    /// Acme said no. Where the layer could not renew what was refused, it put the reason beside Acme's own answer.
    pub(crate) fn answered(head: &response::Parts) -> Self {
        match head.extensions.get::<tower_token::Error>() {
            Some(error) => Self::Token(error.clone().into()),
            None => Self::Status(head.status),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("no token for Acme"),
            Self::Client(_) => f.write_str("Acme could not be reached"),
            Self::Status(status) => write!(f, "Acme answered {status}"),
            Self::Answer(_) => f.write_str("Acme's answer could not be read"),
            Self::Config(_) => f.write_str("not a call to Acme"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Token(cause) | Self::Client(cause) | Self::Answer(cause) | Self::Config(cause) => Some(&**cause),
            Self::Status(_) => None,
        }
    }
}
