//! Alibaba Cloud: the tokens of IMM web office, and the login tokens of ECD.
//!
//! Both answer errors with `{"RequestId","HostId","Code","Message","Recommend"}`. The codes for a
//! dead token are not published; `InvalidRefreshToken` and the like follow the documented pattern
//! `Invalid{Param}`, with 400.

mod ecd;
mod imm;

use serde_json::json;

pub(crate) use self::ecd::{Ecd, EcdOptions, EcdVendor};
pub(crate) use self::imm::{Imm, ImmOptions, ImmVendor};
use super::acs3::Refusal;
use super::tokens::Shelf;
use super::wire::Form;
use super::{Answer, Asked, Desk, Fault, request_id};

fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({
        "RequestId": request_id(),
        "HostId": "127.0.0.1",
        "Code": code,
        "Message": message,
        "Recommend": format!("https://next.api.example.com/troubleshoot?q={code}"),
    });
    Answer::json(status, &body)
}

fn missing(parameter: &str) -> Answer {
    let message = format!("{parameter} is mandatory for this action.");
    error(400, &format!("Missing{parameter}"), &message)
}

fn invalid(parameter: &str) -> Answer {
    error(
        400,
        &format!("Invalid{parameter}"),
        &format!("{parameter} is not valid."),
    )
}

impl From<Refusal> for Answer {
    fn from(Refusal(status, code, message): Refusal) -> Self {
        error(status, code, &message)
    }
}

/// What both products say alike; `dead` is the parameter of the token.
fn words(fault: &Fault, dead: &str) -> Option<Answer> {
    Some(match fault {
        Fault::Throttle400 { retry_after } => {
            error(400, "Throttling.User", "Request was denied due to user flow control.")
                .with("x-acs-retry-after", retry_after.as_millis())
        }
        Fault::Throttle429 { retry_after } => error(429, "Throttling", "Request was denied due to request throttling.")
            .with("retry-after", retry_after.as_secs()),
        Fault::NoPermission403 => no_permission(),
        Fault::Token403 => error(403, &format!("Invalid{dead}"), &format!("{dead} is not valid.")),
        Fault::Unavailable503 => error(
            503,
            "ServiceUnavailable",
            "The request has failed due to a temporary failure.",
        ),
        _ => return None,
    })
}

fn no_permission() -> Answer {
    let body = json!({
        "RequestId": request_id(),
        "HostId": "127.0.0.1",
        "Code": "NoPermission",
        "Message": "You are not authorized to perform this operation.",
        "AccessDeniedDetail": {"AuthAction": "test:Operation"},
    });
    Answer::json(403, &body)
}

/// The parameters, from the query and, if it is one, from a form body. None stands twice.
fn parameters(asked: &Asked, known: &[&str], required: &[&str], desk: &Desk) -> Result<Form, Answer> {
    let form = asked.query().and(asked.form());
    if form.repeated().is_some() {
        return Err(error(400, "InvalidArgument", "A parameter is given more than once."));
    }
    desk.count(|counts| counts.unknown_parameters += form.unknown(known));
    match required.iter().find(|name| form.get(name).is_none()) {
        Some(name) => Err(missing(name)),
        None => Ok(form),
    }
}

/// Both are RPC APIs: one path, one method.
fn is_rpc(asked: &Asked) -> Result<(), Answer> {
    match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/") => Ok(()),
        ("POST", _) => Err(error(404, "InvalidAction.NotFound", "Specified api is not found.")),
        _ => Err(error(
            405,
            "UnsupportedHTTPMethod",
            "This HTTP method is not supported.",
        )),
    }
}

/// A credential that is exchanged for the next one: its login, if it is good.
fn exchangeable(shelf: &Shelf, value: &str, name: &str, desk: &Desk) -> Result<u64, Answer> {
    match shelf.get(value) {
        Some(token) if token.is_current() => Ok(token.family),
        known => {
            let twice = known.is_some_and(|token| token.spent);
            desk.count(|counts| counts.presented_twice += u64::from(twice));
            Err(invalid(name))
        }
    }
}
