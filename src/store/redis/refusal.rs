//! What a server says when it does not do what it was asked for.
//!
//! Of that only the code is passed on: what follows it may quote the arguments of a command, which are secrets.

use redis::{ErrorKind, RedisError};

use super::scripts::FOREIGN;
use crate::store::StoreError;

/// Whether the server answered, if only to refuse: then it knows us, and nothing else than what it says is wrong.
pub(super) fn is_answer(error: &RedisError) -> bool {
    error.code().is_some()
}

/// Whether the same connection can do no better next time: it leads to a server that was demoted, or to none.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    !is_answer(error) || matches!(code(error), "READONLY" | "MASTERDOWN" | "NOAUTH")
}

/// What `at`, a host and a port, said to us.
pub(super) fn of(error: &RedisError, at: &str) -> StoreError {
    if !is_answer(error) {
        return broken(error, at);
    }
    let code = code(error);
    let advice = advice(error, code);
    let said = format!("the server at {at} refused: {code}{advice}");
    match code {
        "WRONGTYPE" | FOREIGN => StoreError::unusable(said),
        _ => StoreError::unavailable(said),
    }
}

/// The code. Of a script that was broken off the server may say ERR, and the code somewhere behind (before version 7) or
/// in other words.
fn code(error: &RedisError) -> &str {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    let mut words = detail.split([' ', '-']);
    match code {
        "ERR" if NO_PERMISSION.iter().any(|said| detail.contains(said)) => "NOPERM",
        "ERR" => words.find_map(known).unwrap_or("ERR"),
        // Nobody knows what else a stranger puts there.
        _ if code.len() <= 20 && code.bytes().all(|letter| letter.is_ascii_uppercase()) => code,
        _ => "an error without a code",
    }
}

fn known(word: &str) -> Option<&'static str> {
    CODES.into_iter().find(|code| *code == word)
}

fn advice(error: &RedisError, code: &str) -> &'static str {
    let said = |text: &str| error.detail().is_some_and(|detail| detail.contains(text));
    match code {
        "NOPERM" => ", the user may not do this; the documentation of `RedisStore` has the line for its ACL",
        "NOAUTH" => ", it asks for a password and the URL has none",
        "WRONGPASS" => ", the name or the password is wrong",
        "NOPROTO" => TOO_OLD,
        "LOADING" => ", it is still loading its data",
        "READONLY" => ", it is a replica",
        "MASTERDOWN" => ", it is a replica without its primary",
        "OOM" => ", its memory is full",
        "MISCONF" => ", it cannot write its data to its disk",
        "NOREPLICAS" => ", too few of its replicas follow",
        "CLUSTERDOWN" => ", the cluster is down",
        "MOVED" | "ASK" => ", this key is another node's of the cluster; the URL has to name that one",
        "WRONGTYPE" => ", something else than this library's is kept under our key",
        FOREIGN => ", what is kept under our key is not of this library",
        "BUSY" => ", a script has been running for too long",
        "ERR" if said("DB index is out of range") => ", it has no database of this number",
        "ERR" if said("max number of clients") => ", it has too many clients",
        "ERR" if said("unknown command") && said("HELLO") => TOO_OLD,
        "ERR" if said("unknown command") => ", it does not know this command",
        _ => "",
    }
}

const TOO_OLD: &str = ", it does not speak the third version of its protocol, as Redis does from version 6 on";

/// Version 7 of a script, and the client where it chose a database.
const NO_PERMISSION: [&str; 2] = ["The user executing the script can't", "has no permissions"];

const CODES: [&str; 10] = [
    "NOPERM",
    "OOM",
    "READONLY",
    "MISCONF",
    "WRONGTYPE",
    "NOREPLICAS",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "MOVED",
    "BUSY",
];

fn broken(error: &RedisError, at: &str) -> StoreError {
    let what = match error.kind() {
        ErrorKind::RESP3NotSupported => return StoreError::unavailable(format!("the server at {at} refused{TOO_OLD}")),
        ErrorKind::Io => "the connection broke",
        ErrorKind::Parse => "what answers does not speak the protocol of Redis",
        ErrorKind::AuthenticationFailed => "it refused the name or the password",
        _ => "the connection could not be used",
    };
    StoreError::unavailable(format!("{what}: {at}"))
}
