//! A token of the sidecar's file, on stdout.
//!
//! ```text
//! cargo run --all-features --example print_token -- sidecar.json oa
//! cargo run --all-features --example print_token -- sidecar.json oa --exec-credential
//! cargo run --all-features --example print_token -- sidecar.json oa --credential-process
//! ```
//!
//! The token alone, or what two programs ask of a helper like this:
//!
//! | flag | what is printed | for |
//! |---|---|---|
//! | none | the token and a newline | `curl -H "Authorization: Bearer $(...)"` |
//! | `--exec-credential` | an `ExecCredential` of `client.authentication.k8s.io/v1` | kubectl, `users[].user.exec` |
//! | `--credential-process` | `AccessKeyId`, `SecretAccessKey`, `SessionToken` | AWS tools, `credential_process` |
//!
//! AWS wants a pair of keys and a session token, and no bearer token: the three are taken from the fields
//! `access_key_id`, `secret_access_key` and `session_token` of what the provider keeps (an `endpoint` puts them there by
//! `keep`). The session token may be missing.
//!
//! Each run fetches a token, unless the token has a `store`, from which it takes one that is alive. Without one, a grant
//! that rotates its refresh token is used up by the first run: give it a store, or run the sidecar with
//! `"expose": true`, and ask it.
//!
//! Exit status: 0 with a token, 1 without one, 2 for a wrong file or wrong arguments. Errors are on stderr and hold no secret.

#[allow(
    dead_code,
    reason = "the tokens of the file are needed here, and neither its ports nor its routes"
)]
#[path = "sidecar/file.rs"]
mod file;

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};
use tower_token::{Token, Tokens};

use crate::file::{Document, Faults};

const USAGE: &str = "usage: print_token FILE.json NAME [--exec-credential | --credential-process]";

#[derive(Clone, Copy)]
enum Form {
    Raw,
    ExecCredential,
    CredentialProcess,
}

enum Failure {
    /// The arguments or the file are wrong.
    Wrong(String),
    /// There is no token.
    None(String),
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Wrong(faults.to_string())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    match run(&arguments).await {
        Ok(printed) => {
            let mut stdout = io::stdout().lock();
            let written = writeln!(stdout, "{printed}").and_then(|()| stdout.flush());
            if written.is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(Failure::Wrong(message)) => {
            say(message);
            ExitCode::from(2)
        }
        Err(Failure::None(message)) => {
            say(message);
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &[OsString]) -> Result<String, Failure> {
    let wrong = || Failure::Wrong(USAGE.into());
    let (path, name, form) = match arguments {
        [path, name] => (path, name, Form::Raw),
        [path, name, flag] if flag == "--exec-credential" => (path, name, Form::ExecCredential),
        [path, name, flag] if flag == "--credential-process" => (path, name, Form::CredentialProcess),
        _ => return Err(wrong()),
    };
    let name = name.to_str().ok_or_else(wrong)?;
    let tokens = tokens(Path::new(path), name)?;
    let token = tokens.get().await;
    // What else was begun ends well before the program does.
    tokens.shutdown().await;
    written(&token.map_err(|error| Failure::None(error.to_string()))?, form)
}

fn tokens(path: &Path, name: &str) -> Result<Tokens, Failure> {
    let (document, base) = Document::load(path)?;
    let at = format!("tokens.{name}");
    let config = document
        .tokens
        .get(name)
        .ok_or_else(|| Failure::Wrong(format!("{}: there is no {at}", path.display())))?;
    let mut faults = Faults::default();
    match config.builder(&at, &base).and_then(|builder| builder.build()) {
        Ok(tokens) => Ok(tokens),
        Err(error) => {
            faults.found(&error);
            Err(faults.into())
        }
    }
}

fn written(token: &Token, form: Form) -> Result<String, Failure> {
    // Both want RFC 3339, and neither a fraction of a second.
    let expiry = token
        .expiry_time()
        .and_then(|at| Timestamp::try_from(at).ok())
        .map(|at| format!("{at:.0}"));
    match form {
        Form::Raw => Ok(token.secret().to_owned()),
        Form::ExecCredential => {
            let mut status = json!({ "token": token.secret() });
            if let Some(expiry) = expiry {
                status["expirationTimestamp"] = expiry.into();
            }
            let credential = json!({
                "apiVersion": "client.authentication.k8s.io/v1",
                "kind": "ExecCredential",
                "status": status,
            });
            Ok(credential.to_string())
        }
        Form::CredentialProcess => keys(token, expiry),
    }
}

fn keys(token: &Token, expiry: Option<String>) -> Result<String, Failure> {
    let field = |name: &str| token.renewal_credential().and_then(|kept| kept.get(name)?.as_str());
    let needed = |name: &str| {
        let missing = || {
            Failure::None(format!(
                "the provider keeps no `{name}`, and AWS tools take a pair of keys, no bearer token; \
                 an `endpoint` provider puts it there by `answer.keep`"
            ))
        };
        field(name).map(Value::from).ok_or_else(missing)
    };
    let mut keys = json!({
        "Version": 1,
        "AccessKeyId": needed("access_key_id")?,
        "SecretAccessKey": needed("secret_access_key")?,
    });
    if let Some(session) = field("session_token") {
        keys["SessionToken"] = session.into();
    }
    if let Some(expiry) = expiry {
        keys["Expiration"] = expiry.into();
    }
    Ok(keys.to_string())
}

fn say(message: impl Display) {
    for line in message.to_string().lines() {
        // Nobody may read it.
        let _ = writeln!(io::stderr(), "print_token: {line}");
    }
}
