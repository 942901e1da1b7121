//! The answer to a token request, and its way back.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value};

use super::body::Body;
use super::credentials::Refusal;
use super::fault::Fault;
use super::issuer::Issuer;
use super::ledger::{Birth, Minted};
use super::visit::Visit;

/// What a token request was granted.
pub(super) struct Granted {
    pub(super) minted: Minted,
    /// As it was asked for.
    pub(super) scope: Option<String>,
}

/// The issuer's own answer, before a fault has its way with it.
pub(super) struct Answer {
    status: StatusCode,
    challenge: bool,
    fields: Map<String, Value>,
    minted: Option<(String, Birth)>,
}

impl Answer {
    pub(super) fn new(issuer: &Issuer, outcome: Result<Granted, Refusal>) -> Self {
        let mut state = issuer.state();
        match outcome {
            Ok(granted) => {
                state.counts.granted += 1;
                let expires_in = state.rules.says_expires_in();
                Self::granted(granted, expires_in)
            }
            Err(refusal) => {
                state.counts.refused += 1;
                let (status, challenge) = (refusal.status, refusal.challenge);
                Self {
                    status,
                    challenge,
                    fields: refusal.fields(),
                    minted: None,
                }
            }
        }
    }

    fn granted(Granted { minted, scope }: Granted, expires_in: Option<Value>) -> Self {
        let access = Value::from(minted.access.as_str());
        let fields = [
            ("access_token", Some(access)),
            ("token_type", Some("Bearer".into())),
            ("expires_in", expires_in),
            ("refresh_token", minted.refresh.map(Value::from)),
            ("scope", scope.map(Value::from)),
        ];
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        let minted = Some((minted.access, minted.birth));
        Self {
            status: StatusCode::OK,
            challenge: false,
            fields,
            minted,
        }
    }

    /// What of the answer reaches the client.
    pub(super) async fn arrive(mut self, fault: Option<Fault>, mut visit: Visit) -> io::Result<Response<Body>> {
        match &fault {
            Some(Fault::DropAfter) => return Err(reset()),
            Some(Fault::DelayAfter(delay)) => pause(*delay).await,
            Some(Fault::StatusAfter(code)) => {
                return Ok(status(status_code(*code)).map(|body| body.answering(visit)));
            }
            Some(Fault::Rewrite(fields)) => self.fields.extend(fields.clone()),
            Some(Fault::Without(names)) => self.fields.retain(|name, _| !names.contains(name)),
            _ => {}
        }
        let readable = !matches!(fault, Some(Fault::Garbage | Fault::Truncate));
        if let Some(birth) = self.birth_in_answer().filter(|_| readable) {
            visit.bears(birth);
        }
        let response = self.into_response(fault);
        Ok(response.map(|body| body.answering(visit)))
    }

    /// The minted token, unless a fault took it out of the answer.
    fn birth_in_answer(&self) -> Option<Birth> {
        let (access, birth) = self.minted.as_ref()?;
        let answered = self.fields.get("access_token").and_then(Value::as_str);
        (answered == Some(access)).then_some(*birth)
    }

    fn into_response(self, fault: Option<Fault>) -> Response<Body> {
        let (code, challenge) = (self.status, self.challenge);
        let json = Bytes::from(Value::Object(self.fields).to_string());
        let len = json.len();
        let mut response = match fault {
            Some(Fault::Garbage) => with_length(StatusCode::OK, Bytes::from_static(GARBAGE)),
            Some(Fault::Truncate) => {
                with_length(code, json.clone()).map(|_| Body::truncated(json.slice(..len / 2), len))
            }
            Some(Fault::Drip(every)) => with_length(code, json.clone()).map(|_| Body::drip(json, every)),
            Some(Fault::Huge(len)) => status(code).map(|_| Body::huge(json, len)),
            _ => with_length(code, json),
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        if challenge {
            let basic = HeaderValue::from_static("Basic realm=\"testkit\"");
            headers.insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

const GARBAGE: &[u8] = b"\xff\xfe<html>{\"access_token\": \x00";

pub(super) async fn pause(wait: Duration) {
    // A timer of zero length would still let others run first.
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

pub(super) fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by the testkit")
}

pub(super) fn status_code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

/// The length is a header in virtual time too, where nobody else would add it.
pub(super) fn with_length(code: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = status(code);
    response.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
    *response.body_mut() = body.into();
    response
}

pub(super) fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = value.parse() {
        headers.insert(name, value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::super::exchange::tests::{json_of, refresh, token_of};
    use super::*;

    #[tokio::test]
    async fn a_dropped_answer_has_used_up_the_token() {
        let issuer = Issuer::new();
        let first = issuer.sign_in();
        issuer.fault(Fault::DropAfter);
        let error = refresh(&issuer, &first).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(!issuer.is_redeemable(&first));
        let again = refresh(&issuer, &first).await.unwrap();
        assert_eq!(json_of(again).await["error"], "invalid_grant");
        let counts = issuer.counts();
        assert_eq!((counts.granted, counts.refused), (1, 1));
        assert_eq!((counts.presented_twice, counts.reuse), (1, 1));
    }

    #[tokio::test]
    async fn a_proxy_that_fails_after_the_commit_has_used_up_the_token() {
        let issuer = Issuer::new();
        let first = issuer.sign_in();
        issuer.fault(Fault::StatusAfter(502));
        assert_eq!(refresh(&issuer, &first).await.unwrap().status(), 502);
        assert!(!issuer.is_redeemable(&first));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_was_committed_when_the_request_came() {
        let issuer = Issuer::new();
        issuer.fault(Fault::DelayAfter(Duration::from_secs(5)));
        let response = refresh(&issuer, &issuer.sign_in()).await.unwrap();
        assert_eq!(issuer.timeline()[0].at, Duration::ZERO);
        assert_eq!(issuer.age(tokio::time::Instant::now()), Duration::from_secs(5));
        assert!(issuer.is_alive(&token_of(response).await));
    }

    #[tokio::test]
    async fn rewriting_adds_replaces_and_keeps_null() {
        let issuer = Issuer::new();
        issuer.fault(Fault::rewrite(
            json!({ "expires_in": null, "token_type": "mac", "x": [1] }),
        ));
        let answer = json_of(refresh(&issuer, &issuer.sign_in()).await.unwrap()).await;
        assert_eq!(answer["expires_in"], Value::Null);
        assert!(answer.as_object().unwrap().contains_key("expires_in"));
        assert_eq!((&answer["token_type"], &answer["x"]), (&json!("mac"), &json!([1])));
        assert!(answer["access_token"].is_string());
    }

    #[tokio::test]
    async fn fields_can_be_left_out() {
        let issuer = Issuer::new();
        issuer.fault(Fault::without(["refresh_token", "expires_in"]));
        let answer = json_of(refresh(&issuer, &issuer.sign_in()).await.unwrap()).await;
        assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
    }

    #[tokio::test]
    async fn garbage_is_neither_json_nor_text() {
        let issuer = Issuer::new();
        issuer.fault(Fault::Garbage);
        let response = refresh(&issuer, &issuer.sign_in()).await.unwrap();
        assert_eq!(response.status(), 200);
        let bytes = response.into_body().bytes().await.unwrap();
        assert!(serde_json::from_slice::<Value>(&bytes).is_err());
        assert!(std::str::from_utf8(&bytes).is_err());
    }

    #[tokio::test]
    async fn a_truncated_answer_ends_early() {
        let issuer = Issuer::new();
        issuer.fault(Fault::Truncate);
        let response = refresh(&issuer, &issuer.sign_in()).await.unwrap();
        let promised: u64 = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let error = response.into_body().bytes().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(issuer.counts().answer_bytes, promised / 2);
        assert_eq!(issuer.counts().in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_answer_is_in_flight_to_its_last_byte() {
        let issuer = Issuer::new();
        issuer.fault(Fault::Drip(Duration::from_secs(1)));
        let response = refresh(&issuer, &issuer.sign_in()).await.unwrap();
        assert_eq!(issuer.counts().in_flight, 1);
        let bytes = response.into_body().bytes().await.unwrap();
        assert_eq!(issuer.age(tokio::time::Instant::now()).as_secs(), bytes.len() as u64);
        assert_eq!(issuer.counts().in_flight, 0);
    }

    #[tokio::test]
    async fn a_huge_answer_hides_its_size_and_who_stops_reading_is_seen_to() {
        use http_body_util::BodyExt as _;
        let issuer = Issuer::new();
        issuer.fault_always(Some(Fault::Huge(64 << 20)));
        let response = refresh(&issuer, &issuer.sign_in()).await.unwrap();
        assert!(!response.headers().contains_key("content-length"));
        let mut body = response.into_body();
        let mut read = 0;
        while read < 1 << 20 {
            read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        drop(body);
        assert_eq!(issuer.counts().answer_bytes, read as u64);
        assert_eq!(issuer.counts().in_flight, 0);
        let whole = refresh(&issuer, &issuer.sign_in())
            .await
            .unwrap()
            .into_body()
            .bytes()
            .await;
        assert_eq!(whole.unwrap().len(), 64 << 20);
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_left_out() {
        let mut headers = HeaderMap::new();
        insert(&mut headers, header::LOCATION, "a\nb");
        assert!(headers.is_empty());
        assert_eq!(status_code(42), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(status_code(418), StatusCode::IM_A_TEAPOT);
    }
}
