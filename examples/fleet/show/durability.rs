//! The order of what the kernel is asked for: a token is on the disk before a request carries it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use tempfile::TempDir;
use tower_token::BoxError;

use crate::command_line::Flags;
use crate::place::Place;
use crate::stage::{Plan, Stage};
use crate::target::Target;

pub(super) async fn durability(flags: &mut Flags) -> Result<Vec<Target>, BoxError> {
    let renewals = flags.value("renewals", 200)?;
    // By default long enough that a token is always waited for as long as the store's patience lasts.
    let life = flags.span("life", Some(Duration::from_secs(20)))?;
    let folder = TempDir::new()?;
    let (trace, kept) = (folder.path().join("trace"), folder.path().join("kept"));
    std::fs::create_dir(&kept)?;
    let mut stage = Stage::set(Plan {
        processes: 1,
        rate: 50.0,
        life: life.ok_or("a token without an end is never renewed")?,
        refresh_every: Some(Duration::from_millis(200)),
        ..Plan::at(Place::File(kept.join("token.json")))
    })
    .await?;
    let trace_to = trace.to_string_lossy().into_owned();
    let calls = "trace=write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2";
    let strace = [
        "strace",
        "-f",
        "-y",
        "-s",
        "4096",
        "-e",
        calls,
        "-e",
        "signal=none",
        "-o",
        &trace_to,
    ];
    stage.crew = stage.crew.under(strace.map(str::to_owned).to_vec());
    stage
        .start()
        .map_err(|error| format!("`strace` cannot be started: {error}"))?;
    stage.until_granted(renewals + 1).await?;
    let (_, account) = stage.close().await?;

    let trace = Trace::read(File::open(trace)?, &kept.to_string_lossy())?;
    let wrong: Vec<_> = trace.tokens.iter().filter(|(_, steps)| !steps.are_in_order()).collect();
    for (token, steps) in &wrong {
        println!("token {token}: {steps:?}");
    }
    // The last ones may not have been used by any request.
    let used = trace.tokens.values().filter(|steps| steps.sent.is_some()).count();
    let right = used - wrong.len();
    Ok(vec![
        Target::new(
            "strace: fsync(file), rename, fsync(folder) before the first request with the token",
            format!("{used} of {used}, >= {renewals}"),
            format!("{right} of {used}"),
            wrong.is_empty() && used as u64 >= renewals,
        ),
        // A store that takes longer than two seconds, or than the old token may still go out, is waited for no longer.
        Target::new(
            "under strace: told as undurable",
            format!(">= {}", wrong.len()),
            account.undurable.to_string(),
            account.undurable >= wrong.len(),
        ),
        Target::exactly("under strace: failed requests", 0, account.failures()),
        Target::exactly("under strace: presented twice", 0, account.issuer.presented_twice),
    ])
}

/// The lines of the trace at which each step was first done for one token.
#[derive(Debug, Default)]
struct Steps {
    written: Option<usize>,
    synced: Option<usize>,
    renamed: Option<usize>,
    folder_synced: Option<usize>,
    sent: Option<usize>,
}

impl Steps {
    fn are_in_order(&self) -> bool {
        let Some(sent) = self.sent else { return true };
        let durable = [self.written, self.synced, self.renamed, self.folder_synced];
        let all: Option<Vec<_>> = durable.into_iter().chain([Some(sent)]).collect();
        all.is_some_and(|all| all.is_sorted())
    }
}

#[derive(Default)]
struct Trace {
    tokens: HashMap<u64, Steps>,
}

impl Trace {
    /// `folder`: where the file is.
    fn read(file: File, folder: &str) -> Result<Self, BoxError> {
        let mut trace = Self::default();
        // Which token was written to which temporary file.
        let mut holds: HashMap<String, u64> = HashMap::new();
        let mut begun: HashMap<String, String> = HashMap::new();
        let mut renamed = Vec::new();
        for (line, text) in BufReader::new(file).lines().enumerate() {
            let text = text?;
            let Some((process, text)) = text.split_once(' ') else {
                continue;
            };
            let text = text.trim_start();
            // A call that another thread's came between ends on a line of its own. What is sent counts from its
            // beginning, what is made durable from its end.
            if let Some(call) = text.strip_suffix(" <unfinished ...>") {
                trace.send(call, line, folder);
                begun.insert(process.into(), call.into());
                continue;
            }
            let resumed = text.starts_with("<... ").then(|| begun.remove(process)).flatten();
            if resumed.is_none() {
                trace.send(text, line, folder);
            }
            if !text.contains("= ") || text.contains("= -1 ") {
                continue;
            }
            let call = resumed.as_deref().unwrap_or(text);
            let Some((name, arguments)) = call.split_once('(') else {
                continue;
            };
            match name {
                "write" | "pwrite64" if arguments.contains(folder) => {
                    if let (Some(path), Some(token)) = (descriptor(arguments), token(arguments, "")) {
                        trace.tokens.entry(token).or_default().written.get_or_insert(line);
                        holds.insert(path, token);
                    }
                }
                "fsync" | "fdatasync" => {
                    let Some(path) = descriptor(arguments) else { continue };
                    if let Some(token) = holds.get(&path) {
                        trace.tokens.entry(*token).or_default().synced.get_or_insert(line);
                    } else if path == folder {
                        for token in renamed.drain(..) {
                            trace.tokens.entry(token).or_default().folder_synced.get_or_insert(line);
                        }
                    }
                }
                name if name.starts_with("rename") => {
                    let from = holds.iter().find(|(path, _)| arguments.contains(path.as_str()));
                    if let Some((path, token)) = from.map(|(path, token)| (path.clone(), *token)) {
                        trace.tokens.entry(token).or_default().renamed.get_or_insert(line);
                        renamed.push(token);
                        holds.remove(&path);
                    }
                }
                _ => {}
            }
        }
        Ok(trace)
    }

    /// A write to anything but the folder that carries a token.
    fn send(&mut self, call: &str, line: usize, folder: &str) {
        if !call.contains(folder)
            && let Some(token) = token(call, "earer ")
        {
            self.tokens.entry(token).or_default().sent.get_or_insert(line);
        }
    }
}

/// The path of `3</the/path>, …`.
fn descriptor(arguments: &str) -> Option<String> {
    let (_, rest) = arguments.split_once('<')?;
    Some(rest.split_once('>')?.0.to_owned())
}

/// The number of the access token that stands there after `prefix`.
fn token(text: &str, prefix: &str) -> Option<u64> {
    let (_, rest) = text.split_once(&format!("{prefix}test-access-"))?;
    rest.split('-').next()?.parse().ok()
}
