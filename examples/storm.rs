//! Eight accidents that took real services down, one after the other, in half a minute.
//!
//! ```text
//! cargo run --release --example storm               watch it
//! cargo run --release --example storm -- --json     the same as one line of JSON
//! ```
//!
//! Nothing leaves the machine. The issuer and the API come from the testkit, listen on loopback and
//! fail on demand. `T05` names the test that shows the same in virtual time.
//!
//! A line says what goes wrong, what the callers see, and how often the issuer was asked for a token.
//! If a promise is broken its line says which one, and the exit status is 1. Promises are judged by what
//! the issuer and the API counted and by what the callers got, never by what the layer says of itself.
//! At the end there are three figures in real time, which promise nothing.

#[path = "storm/callers.rs"]
mod callers;
#[path = "storm/crowds.rs"]
mod crowds;
#[path = "storm/figures.rs"]
mod figures;
#[path = "storm/outages.rs"]
mod outages;
#[path = "storm/outcome.rs"]
mod outcome;
#[path = "storm/stage.rs"]
mod stage;
#[path = "storm/verdicts.rs"]
mod verdicts;
#[path = "storm/waiters.rs"]
mod waiters;
#[path = "storm/words.rs"]
mod words;

use std::pin::Pin;
use std::process::ExitCode;

use tower_token::BoxError;

use figures::Figures;
use outcome::Outcome;

const USAGE: &str = "usage: cargo run --release --example storm [-- --json]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let json = match &arguments[..] {
        [] => false,
        [one] if one == "--json" => true,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(json).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

type Accident = Pin<Box<dyn Future<Output = Result<Outcome, BoxError>>>>;

/// Whether every promise was kept.
async fn run(json: bool) -> Result<bool, BoxError> {
    let accidents: [Accident; 8] = [
        Box::pin(crowds::herd_at_expiry()),
        Box::pin(crowds::late_refusals()),
        Box::pin(crowds::callers_that_leave()),
        Box::pin(outages::lost_answer()),
        Box::pin(verdicts::refusing_route()),
        Box::pin(verdicts::dead_credential()),
        Box::pin(outages::throttled()),
        Box::pin(outages::issuer_down()),
    ];
    let mut outcomes = Vec::new();
    if !json {
        println!("{}", Outcome::heading());
    }
    for accident in accidents {
        let outcome = accident.await?;
        if !json {
            println!("{outcome}");
        }
        outcomes.push(outcome);
    }
    let figures = Figures::measured().await?;
    let good = outcomes.iter().all(Outcome::is_good);
    if json {
        let accidents: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        println!(
            r#"{{"kept":{good},"accidents":[{}],"figures":{}}}"#,
            accidents.join(","),
            figures.json()
        );
    } else {
        print!("\n{figures}");
    }
    Ok(good)
}
