//! What an issuer answered: a token, or an error in its class.
//!
//! Any bytes end in one of the two. A verdict that ends a credential needs the issuer's own word
//! (RFC 6749 §5.2); whatever a gateway, a firewall or a broken proxy puts in between is transient.
//! Prose (`error_description`) is never quoted, because issuers have echoed tokens in it.

use std::mem;
use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use crate::error::FetchError;
use crate::provider::exchange::{Answer, Hidden};
use crate::provider::reading::{
    NOT_AN_OBJECT, TWICE, date, is_printable, json, may_have_committed, retry_after, seconds,
};
use crate::token::{Secret, is_visible};

/// What was granted (RFC 6749 §5.1).
pub(super) struct Issued {
    pub(super) access_token: Secret<String>,
    /// `None` where the issuer named no lifetime, or zero.
    pub(super) life: Option<Duration>,
    pub(super) refresh_in: Option<Duration>,
    pub(super) refresh_token: Option<Secret<String>>,
    pub(super) scope: Option<String>,
    pub(super) type_assumed: bool,
    /// The time of day by the issuer's clock.
    pub(super) date: Option<SystemTime>,
}

/// Reads an answer of `host` that came at about `now`.
pub(super) fn read(answer: &Answer, host: &str, hidden: &Hidden<'_>, now: SystemTime) -> Result<Issued, FetchError> {
    let reading = Reading {
        answer,
        host,
        hidden,
        now,
    };
    if answer.status.is_success() {
        reading.success()
    } else {
        Err(reading.refusal())
    }
}

struct Reading<'a> {
    answer: &'a Answer,
    host: &'a str,
    hidden: &'a Hidden<'a>,
    now: SystemTime,
}

impl Reading<'_> {
    fn success(&self) -> Result<Issued, FetchError> {
        let mut fields = self.fields().map_err(|flaw| self.malformed(flaw))?;
        match fields.expose_mut() {
            Value::Object(fields) => {
                if let Some(code) = error_code(fields).map_err(|flaw| self.malformed(flaw))? {
                    return Err(self.verdict(code));
                }
                self.issued(fields)
            }
            _ => Err(self.malformed(NOT_AN_OBJECT)),
        }
    }

    fn issued(&self, fields: &mut Map<String, Value>) -> Result<Issued, FetchError> {
        let refresh_token = text(fields, "refresh_token")
            .ok()
            .filter(|token| is_printable(token.unwrap_or_default()))
            .ok_or_else(|| self.malformed("refresh_token is not a string of printable ASCII"))?;
        // Whatever else is wrong with the answer, the refresh token in it has replaced the one presented.
        let salvaged = |error: FetchError| match refresh_token {
            Some(rotated) => error.new_credential(json!({ "refresh_token": rotated })),
            None => error,
        };
        let malformed = |flaw| salvaged(self.malformed(flaw));
        text(fields, "access_token")
            .ok()
            .flatten()
            .filter(|token| is_visible(token))
            .ok_or_else(|| malformed("access_token is not a string of visible ASCII"))?;
        let life =
            seconds(fields.get("expires_in")).map_err(|()| malformed("expires_in is not a number of seconds"))?;
        let token_type = text(fields, "token_type").map_err(|()| malformed("token_type is not a string"))?;
        if token_type.is_some_and(|name| !name.eq_ignore_ascii_case("bearer")) {
            return Err(salvaged(FetchError::config(format!(
                "{} issues tokens of a type other than Bearer, which cannot be presented",
                self.host
            ))));
        }
        let type_assumed = token_type.is_none();
        Ok(Issued {
            life,
            // A hint only: one that cannot be read is none.
            refresh_in: seconds(fields.get("refresh_in")).ok().flatten(),
            scope: scope(fields.get("scope")),
            type_assumed,
            refresh_token: taken(fields, "refresh_token"),
            // Seen above.
            access_token: taken(fields, "access_token").unwrap_or_else(|| Secret::from("")),
            date: date(&self.answer.headers),
        })
    }

    fn refusal(&self) -> FetchError {
        let status = self.answer.status;
        let code = self.oauth_code();
        let code = code.as_deref();
        let asks = code.is_some_and(asks_for_patience) && !status.is_server_error();
        if status == StatusCode::TOO_MANY_REQUESTS || asks {
            return self.coded(
                FetchError::throttled(retry_after(&self.answer.headers, self.now), self.said(status)),
                code,
            );
        }
        if status.is_server_error() {
            let error = match retry_after(&self.answer.headers, self.now) {
                Some(wait) if status == StatusCode::SERVICE_UNAVAILABLE => {
                    FetchError::throttled(Some(wait), self.said(status))
                }
                // A server that fails gives no verdict, whatever it says (`invalid_grant` behind a 503).
                _ => FetchError::transient(self.said(status)),
            };
            let error = self.coded(error, code);
            return if may_have_committed(status) {
                error.lost()
            } else {
                error
            };
        }
        if let Some(code) = code.filter(|_| status.is_client_error()) {
            return self.verdict(code);
        }
        if status.is_redirection() {
            return FetchError::transient(format!(
                "{}, a redirect, which is not followed: token_url has to be the final address",
                self.said(status)
            ));
        }
        // Some issuers refuse a dead refresh token with a bare 400 (glewlwyd).
        if status == StatusCode::BAD_REQUEST && self.is_empty() {
            return FetchError::terminal(format!("{} without a body", self.said(status)));
        }
        FetchError::transient(format!(
            "{} without an OAuth error: a gateway, or not the token endpoint",
            self.said(status)
        ))
    }

    /// The issuer's own word (RFC 6749 §5.2; OpenID Connect Core §3.1.2.6; RFC 8628 §3.5; RFC 8707 §2; RFC 9470).
    fn verdict(&self, code: &str) -> FetchError {
        let host = self.host;
        let error = match code {
            "invalid_grant" | "expired_token" | "bad_refresh_token" => {
                FetchError::terminal(format!("{host} does not accept the grant any more"))
            }
            "invalid_client" | "incorrect_client_credentials" => FetchError::config(format!(
                "{host} does not accept the client: client_id, client_secret or client_auth is wrong"
            )),
            "unauthorized_client" | "unsupported_grant_type" => {
                FetchError::config(format!("{host} does not allow this grant to the client"))
            }
            "invalid_scope" => FetchError::config(format!("{host} does not know or grant the scope")),
            "invalid_target" => FetchError::config(format!("{host} does not accept the resource or audience")),
            "invalid_request" => FetchError::config(format!(
                "{host} misses a parameter, or was sent one that it does not take"
            )),
            "use_dpop_nonce" | "invalid_dpop_proof" => {
                FetchError::config(format!("{host} asks for DPoP, which is not supported"))
            }
            "access_denied"
            | "interaction_required"
            | "login_required"
            | "consent_required"
            | "account_selection_required"
            | "mfa_required"
            | "insufficient_user_authentication"
            | "unmet_authentication_requirements" => {
                FetchError::needs_interaction(format!("{host} wants a person to sign in or to consent"))
            }
            _ if asks_for_patience(code) => FetchError::throttled(
                retry_after(&self.answer.headers, self.now),
                self.said(self.answer.status),
            ),
            _ => FetchError::transient(format!("{host} answered with an OAuth error")),
        };
        self.coded(error, Some(code))
    }

    fn malformed(&self, flaw: &'static str) -> FetchError {
        FetchError::transient(format!("malformed answer from {}: {flaw}", self.host)).lost()
    }

    fn said(&self, status: StatusCode) -> String {
        format!("{} answered {}", self.host, status.as_u16())
    }

    fn coded(&self, error: FetchError, code: Option<&str>) -> FetchError {
        match code {
            Some(code) if !self.hidden.is_in(code) => error.code(code),
            _ => error,
        }
    }

    fn oauth_code(&self) -> Option<String> {
        let fields = self.fields().ok()?;
        let code = error_code(fields.expose().as_object()?).ok()??;
        Some(code.to_owned())
    }

    fn is_empty(&self) -> bool {
        self.answer.body.as_ref().is_ok_and(|body| body.trim_ascii().is_empty())
    }

    /// The top-level fields, as JSON or as a form.
    fn fields(&self) -> Result<Secret<Value>, &'static str> {
        let body = self.answer.body.as_ref().map_err(|broken| broken.reason())?;
        if body.trim_ascii().is_empty() {
            return Err("it is empty");
        }
        if is_form(&self.answer.headers) {
            return form(body).map(Secret::new);
        }
        json(body).map(Secret::new)
    }
}

fn asks_for_patience(code: &str) -> bool {
    matches!(code, "temporarily_unavailable" | "slow_down")
}

fn error_code(fields: &Map<String, Value>) -> Result<Option<&str>, &'static str> {
    text(fields, "error").map_err(|()| "error is not a string")
}

/// A field of text; missing, `null` and `""` are all none.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ()> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(()),
    }
}

/// A field of text, moved out of the answer.
fn taken(fields: &mut Map<String, Value>, name: &str) -> Option<Secret<String>> {
    match fields.get_mut(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(Secret::new(mem::take(text))),
        _ => None,
    }
}

/// Text (RFC 6749 §3.3), or a list, as some issuers have it.
fn scope(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => items
            .iter()
            .map(Value::as_str)
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(" ")),
        _ => None,
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let named = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn form(body: &[u8]) -> Result<Value, &'static str> {
    let mut fields = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        if fields
            .insert(name.into_owned(), Value::String(value.into_owned()))
            .is_some()
        {
            return Err(TWICE);
        }
    }
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use http::header::{DATE, RETRY_AFTER};
    use zeroize::Zeroizing;

    use super::*;
    use crate::error::Class;
    use crate::provider::exchange::Broken;

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
    /// An IMF-fixdate of the next minute after it: Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: u64 = 784_111_777 - 60;

    fn answer(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]),
            body: Ok(Zeroizing::new(body.into())),
        }
    }

    fn reading(answer: &Answer) -> Result<Issued, FetchError> {
        let hidden = Hidden::of(|needles| needles.add("test-canary-secret"));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let result = read(answer, "login.example.com", &hidden, now);
        if let Err(error) = &result {
            let printed = format!("{error} {error:?}");
            assert!(!printed.contains("canary") && !printed.contains("prose"), "{printed}");
        }
        result
    }

    /// The class, and whether the answer counts as lost.
    fn refused(answer: &Answer) -> (Class, bool) {
        let error = reading(answer)
            .err()
            .unwrap_or_else(|| panic!("{answer:?} was accepted"));
        (error.class(), error.is_lost())
    }

    /// The rest of the table is in `tests/parsing.rs`, whose bodies are all whole.
    #[test]
    fn an_answer_that_broke_off_is_lost_if_it_was_to_grant_and_else_as_its_status_says() {
        for broken in [Broken::TooLong, Broken::CutOff, Broken::TimedOut] {
            let answer = |status| Answer {
                body: Err(broken),
                ..answer(status, JSON, "")
            };
            assert_eq!(refused(&answer(200)), (Class::Transient, true));
            assert_eq!(refused(&answer(400)), (Class::Transient, false));
        }
    }

    #[test]
    fn a_hint_that_cannot_be_read_is_none() {
        let hint = |value: &str| {
            let body = format!(r#"{{"access_token":"test-a","refresh_in":{value}}}"#);
            let issued = reading(&answer(200, JSON, body)).unwrap_or_else(|error| panic!("{error}"));
            issued.refresh_in.map(|hint| hint.as_secs())
        };
        assert_eq!((hint("\"1800\""), hint("\"soon\"")), (Some(1800), None));
    }

    #[test]
    fn retry_after_is_obeyed_for_an_hour_at_most() {
        let wait = |status: u16, value: &str| {
            let mut answer = answer(status, JSON, "");
            answer.headers.insert(RETRY_AFTER, value.parse().unwrap());
            match refused(&answer).0 {
                Class::Throttled { retry_after } => retry_after.map(|wait| wait.as_secs()),
                class => panic!("{class}"),
            }
        };
        assert_eq!(wait(429, "7"), Some(7));
        assert_eq!(wait(503, "7"), Some(7));
        assert_eq!(wait(429, "86400"), Some(3600));
        assert_eq!(wait(429, "99999999999999999999999"), Some(3600));
        assert_eq!(wait(429, "Sun, 06 Nov 1994 08:49:37 GMT"), Some(60));
        assert_eq!(wait(503, "Sun, 06 Nov 1994 08:40:00 GMT"), Some(0));
        assert_eq!(wait(503, "Mon, 07 Nov 1994 08:49:37 GMT"), Some(3600));
        assert_eq!(wait(429, "-1"), None);
        assert_eq!(wait(429, "soon"), None);
    }

    #[test]
    fn a_retry_after_date_is_measured_by_the_issuers_own_clock() {
        let mut answer = answer(429, JSON, "");
        answer
            .headers
            .insert(RETRY_AFTER, "Sun, 06 Nov 1994 12:00:30 GMT".parse().unwrap());
        answer
            .headers
            .insert(DATE, "Sun, 06 Nov 1994 12:00:00 GMT".parse().unwrap());
        let retry_after = Some(Duration::from_secs(30));
        assert_eq!(refused(&answer).0, Class::Throttled { retry_after });
    }

    #[test]
    fn a_cut_off_503_with_retry_after_still_throttles() {
        let mut answer = answer(503, JSON, "");
        answer.headers.insert(RETRY_AFTER, "7".parse().unwrap());
        answer.body = Err(Broken::CutOff);
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(refused(&answer), (Class::Throttled { retry_after }, false));
    }

    #[test]
    fn an_error_code_is_told_unless_it_holds_a_secret() {
        let code = |code: &str| {
            let body = format!(r#"{{"error":"{code}"}}"#);
            reading(&answer(400, JSON, body))
                .err()
                .unwrap()
                .issuer_code()
                .map(str::to_owned)
        };
        assert_eq!(code("invalid_grant").as_deref(), Some("invalid_grant"));
        assert_eq!(code("something_new").as_deref(), Some("something_new"));
        assert_eq!(code("bad-test-canary-secret-x"), None);
        assert_eq!(code("test-canary-secret"), None);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let corpus: [&[u8]; 6] = [
            br#"{"access_token":"test-a","expires_in":3600,"refresh_token":"test-r","scope":"a b"}"#,
            br#"{"error":"invalid_grant"}"#,
            b"access_token=a&expires_in=%zz",
            b"{\"\\ud800\":1}",
            b"\"\\",
            b"{\"a\":{\"b\":[[[",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..20_000 {
            let mut body = corpus[round % corpus.len()].to_vec();
            for _ in 0..random.usize(0..6) {
                let at = random.usize(0..body.len());
                body[at] = random.u8(..);
            }
            body.truncate(random.usize(0..=body.len()));
            let status = [200, 400, 401, 429, 500, 503][random.usize(0..6)];
            let content_type = if random.bool() { JSON } else { FORM };
            let _ = read(
                &answer(status, content_type, body),
                "login.example.com",
                &Hidden::of(|_| ()),
                SystemTime::UNIX_EPOCH,
            );
        }
    }
}
