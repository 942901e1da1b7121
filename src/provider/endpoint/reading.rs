//! What an answer comes to: a token, or an error in its class.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::answer::Death;
use super::errors::Meaning;
use super::template::{ACCESS_TOKEN, REFRESH_TOKEN};
use super::{Endpoint, shifted};
use crate::clock::{A_YEAR, seconds_between, skew};
use crate::error::FetchError;
use crate::provider::exchange::{Answer, Hidden};
use crate::provider::reading::{date, json, retry_after};
use crate::token::{Secret, Token};

/// An answer, as one endpoint has it.
pub(super) struct Reading<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) answer: &'a Answer,
    pub(super) host: &'a str,
    pub(super) hidden: &'a Hidden<'a>,
    pub(super) sent_at: SystemTime,
    /// When the answer had been read.
    pub(super) now: SystemTime,
}

impl Reading<'_> {
    pub(super) fn token(&self, last: &Map<String, Value>) -> Result<Token, (FetchError, Option<i64>)> {
        let (status, errors) = (self.answer.status, &self.endpoint.errors);
        let body = self.body();
        let fields = &self.endpoint.answer;
        let read = body.as_ref().ok().map(Secret::expose);
        let code = read.and_then(|body| errors.code(body));
        if !status.is_success() || code.is_some() {
            return Err(self.refusal(code.as_deref(), errors.meaning(status, code.as_deref()), body.is_ok()));
        }
        let stage = read.filter(|body| !fields.has_token(body));
        if let Some(stage) = stage.and_then(|body| errors.unfinished(body)) {
            // One that is in no list is a person's to find out.
            let meaning = errors.listed(status, Some(&stage)).unwrap_or(Meaning::NeedsInteraction);
            return Err(self.refusal(Some(&stage), meaning, true));
        }
        let malformed = |flaw| FetchError::transient(format!("malformed answer from {}: {flaw}", self.host)).lost();
        let body = body.map_err(|flaw| (malformed(flaw), None))?;
        let body = body.expose();
        let (kept, sound) = self.endpoint.answer.kept(body, last);
        // Whatever else is wrong with the answer, what it renews with has replaced what was presented.
        let renews_with_itself = || {
            let renew = self.endpoint.renew.as_ref();
            renew.is_some_and(|call| call.needed().contains(&ACCESS_TOKEN))
        };
        let rotated = kept.get(REFRESH_TOKEN) != last.get(REFRESH_TOKEN)
            || (kept.get(ACCESS_TOKEN) != last.get(ACCESS_TOKEN) && renews_with_itself());
        let salvaged = |flaw| match rotated {
            true => (malformed(flaw).new_credential(Value::Object(kept.clone())), None),
            false => (malformed(flaw), None),
        };
        sound.map_err(salvaged)?;
        let issued = self.endpoint.answer.issued(body).map_err(salvaged)?;
        let at = |death| match death {
            Death::After(life) => self.sent_at.checked_add(life).unwrap_or(self.sent_at),
            Death::At(instant) => shifted(instant, -self.skew()),
        };
        let mut token = Token::bearer(issued.token)
            .issued_at(self.sent_at)
            .credential(Value::Object(kept));
        if let Some(date) = date(&self.answer.headers) {
            token = token.dated(date);
        }
        if let Some(death) = issued.dies {
            token = match death {
                Death::After(life) => token.expires_in(life),
                Death::At(_) => token.expires_at(at(death)),
            };
            if self.endpoint.renew_before_death {
                token = token.renew_by(at(death));
            }
        }
        if let Some(death) = issued.refresh_dies {
            token = token.renew_by(at(death));
        }
        Ok(token)
    }

    /// An error in its class, and by how much our clock is wrong if it is about that.
    fn refusal(&self, code: Option<&str>, meaning: Meaning, is_json: bool) -> (FetchError, Option<i64>) {
        let status = self.answer.status;
        let said = format!("{} answered {}", self.host, status.as_u16());
        if status.is_redirection() {
            let error = format!("{said}, a redirect, which is not followed: the URL has to be the final address");
            return (FetchError::transient(error), None);
        }
        let wait = self.retry_after();
        let patient = |class: FetchError| match wait {
            Some(wait) if status == http::StatusCode::SERVICE_UNAVAILABLE => {
                FetchError::throttled(Some(wait), said.clone())
            }
            _ => class,
        };
        let error = match meaning {
            Meaning::Throttled => FetchError::throttled(wait, said.clone()),
            Meaning::Terminal if code.is_none() && !is_json && !self.is_empty() => {
                FetchError::transient(format!("{said} without JSON: a gateway, or not the token endpoint"))
            }
            Meaning::Terminal => FetchError::terminal(said.clone()),
            Meaning::NeedsInteraction => FetchError::needs_interaction(said.clone()),
            Meaning::Config => FetchError::config(said.clone()),
            Meaning::Ambiguous | Meaning::Lost => FetchError::transient(said.clone()).lost(),
            // However an API words it.
            Meaning::Transient if status == http::StatusCode::TOO_MANY_REQUESTS => {
                FetchError::throttled(wait, said.clone())
            }
            Meaning::Transient => patient(FetchError::transient(said.clone())),
            Meaning::Clock => {
                let error = FetchError::config(format!("{said}: the clocks are too far apart"));
                return (
                    self.coded(error, code),
                    date(&self.answer.headers).map(|date| seconds_between(self.now, date)),
                );
            }
        };
        (self.coded(error, code), None)
    }

    fn body(&self) -> Result<Secret<Value>, &'static str> {
        let body = self.answer.body.as_ref().map_err(|broken| broken.reason())?;
        json(body).map(Secret::new)
    }

    fn is_empty(&self) -> bool {
        self.answer.body.as_ref().is_ok_and(|body| body.trim_ascii().is_empty())
    }

    fn coded(&self, error: FetchError, code: Option<&str>) -> FetchError {
        match code {
            Some(code) if !self.hidden.is_in(code) => error.code(code),
            _ => error,
        }
    }

    /// `Retry-After` in seconds, `x-acs-retry-after` in milliseconds (Alibaba Cloud).
    fn retry_after(&self) -> Option<Duration> {
        let headers = &self.answer.headers;
        let millis = || headers.get("x-acs-retry-after")?.to_str().ok()?.trim().parse().ok();
        retry_after(headers, self.now).or_else(|| millis().map(Duration::from_millis))
    }

    /// Seconds that the issuer's clock is ahead of ours, as far as its `Date` says so. More than a year is no clock.
    fn skew(&self) -> i64 {
        let told = date(&self.answer.headers).map(|date| skew(date, self.sent_at, self.now));
        told.filter(|seconds| seconds.unsigned_abs() <= A_YEAR.as_secs())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use http::header::{DATE, HeaderMap};
    use zeroize::Zeroizing;

    use super::*;

    /// By how much the issuer's clock is said to be ahead, for a `Date` so many seconds after the sending.
    fn skew(date: i64, took: u64) -> i64 {
        let endpoint =
            Endpoint::from_json(r#"{ "acquire": { "url": "https://a.example/" }, "answer": { "token": "/t" } }"#);
        let sent_at = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut headers = HeaderMap::new();
        headers.insert(DATE, httpdate::fmt_http_date(shifted(sent_at, date)).parse().unwrap());
        let answer = Answer {
            status: http::StatusCode::OK,
            headers,
            body: Ok(Zeroizing::default()),
        };
        Reading {
            endpoint: &endpoint.unwrap(),
            answer: &answer,
            host: "a.example",
            hidden: &Hidden::of(|_| ()),
            sent_at,
            now: sent_at + Duration::from_secs(took),
        }
        .skew()
    }

    #[test]
    fn a_slow_answer_is_no_skew_and_a_skew_never_lengthens_a_life() {
        for (date, took) in [(0, 0), (5, 0), (-5, 0), (0, 30), (30, 30), (-5, 30), (35, 30)] {
            assert_eq!(skew(date, took), 0, "{date} {took}");
        }
        // Dated at the sending at the latest, so that what the answer took is not added to the life.
        assert_eq!(skew(3600, 0), 3600);
        assert_eq!(skew(3600, 30), 3600);
        assert_eq!(skew(-3600, 30), -3600);
        // 1970, or a date that somebody made up: a life that is told as an instant would be as much longer.
        let year = 365 * 24 * 3600;
        for date in [-1_700_000_000, -year - 60, year + 60] {
            assert_eq!(skew(date, 0), 0, "{date}");
        }
    }
}
