//! The command line: flags with a value each, and spans of time as people write them.

use std::collections::HashMap;
use std::time::Duration;

use tower_token::BoxError;

/// `--flag value`, in any order.
pub(crate) struct Flags(HashMap<String, String>);

impl Flags {
    pub(crate) fn of(arguments: &[String]) -> Result<Self, BoxError> {
        let pairs = arguments.chunks(2).map(|pair| match pair {
            [flag, value] if flag.starts_with("--") => Ok((flag[2..].to_owned(), value.clone())),
            [odd, ..] => Err(format!("{odd:?} is no flag with a value").into()),
            [] => unreachable!("chunks are never empty"),
        });
        pairs.collect::<Result<_, BoxError>>().map(Self)
    }

    pub(crate) fn take(&mut self, flag: &str) -> Option<String> {
        self.0.remove(flag)
    }

    /// The value of a flag, or what stands in for it.
    pub(crate) fn value<T>(&mut self, flag: &str, default: T) -> Result<T, BoxError>
    where
        T: std::str::FromStr<Err: Into<BoxError>>,
    {
        self.take(flag).map_or(Ok(default), |value| {
            value.parse().map_err(|error: T::Err| wrong(flag, &value, error.into()))
        })
    }

    pub(crate) fn span(&mut self, flag: &str, default: Option<Duration>) -> Result<Option<Duration>, BoxError> {
        self.take(flag).map_or(Ok(default), |value| match value.as_str() {
            "never" => Ok(None),
            value => duration(value).map(Some).map_err(|error| wrong(flag, value, error)),
        })
    }

    /// Nothing is left over.
    pub(crate) fn end(self) -> Result<(), BoxError> {
        match self.0.keys().next() {
            Some(flag) => Err(format!("there is no --{flag} here").into()),
            None => Ok(()),
        }
    }
}

fn wrong(flag: &str, value: &str, error: BoxError) -> BoxError {
    format!("--{flag} {value}: {error}").into()
}

/// `2s`, `250ms`, `1.5s`, `10m`.
pub(crate) fn duration(text: &str) -> Result<Duration, BoxError> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let split = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, seconds) = split.ok_or("write a time like 250ms, 2s or 10m")?;
    Ok(Duration::try_from_secs_f64(number.parse::<f64>()? * seconds)?)
}

/// `3s..30s`, or `3s` for no choice.
pub(crate) fn spans(text: &str) -> Result<(Duration, Duration), BoxError> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let (least, most) = (duration(least)?, duration(most)?);
    if least > most {
        return Err("the shorter one comes first".into());
    }
    Ok((least, most))
}
