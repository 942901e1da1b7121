//! Who asks: forms, client authentication and the errors of both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value};

/// A client the issuer knows.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) id: String,
    /// `None`: a public client.
    secret: Option<String>,
}

impl Client {
    pub(super) fn confidential(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: Some(secret.into()),
        }
    }

    pub(super) fn public(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: None,
        }
    }

    pub(super) fn is_public(&self) -> bool {
        self.secret.is_none()
    }
}

/// An error answer of the issuer's own. Source: RFC 6749 §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    description: &'static str,
    /// The client used Basic, so the answer has to name that scheme.
    pub(super) challenge: bool,
}

impl Refusal {
    pub(super) const fn new(error: &'static str, description: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description,
            challenge: false,
        }
    }

    const fn unknown_client(challenge: bool) -> Self {
        let refusal = Self::new("invalid_client", "unknown client, or another secret");
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge,
            ..refusal
        }
    }

    pub(super) fn fields(&self) -> Map<String, Value> {
        let fields = [("error", self.error), ("error_description", self.description)];
        fields
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.into()))
            .collect()
    }
}

/// The parameters of a token request.
pub(super) struct Form {
    fields: Vec<(String, String)>,
}

impl Form {
    pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        const NOT_A_FORM: Refusal =
            Refusal::new("invalid_request", "the body must be application/x-www-form-urlencoded");
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = content_type
            .and_then(|value| value.split(';').next())
            .ok_or(NOT_A_FORM)?;
        if !media_type
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        {
            return Err(NOT_A_FORM);
        }
        let fields: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
        // RFC 6749 §3.2; `resource` may stand there more than once (RFC 8707 §2).
        let repeated =
            |at: usize| fields[at].0 != "resource" && fields[..at].iter().any(|(name, _)| *name == fields[at].0);
        if (0..fields.len()).any(repeated) {
            return Err(Refusal::new("invalid_request", "a parameter is repeated"));
        }
        Ok(Self { fields })
    }

    /// A parameter; one without a value counts as left out. Source: RFC 6749 §3.2.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }
}

/// Finds the client that sent a request and checks that it is the one it claims to be.
pub(super) fn authenticate<'c>(clients: &'c [Client], headers: &HeaderMap, form: &Form) -> Result<&'c Client, Refusal> {
    let known = |id: &str| clients.iter().find(|client| client.id == id);
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        let client = form.get("client_id").and_then(known);
        return client
            .filter(|client| client.secret.as_deref() == form.get("client_secret"))
            .ok_or(Refusal::unknown_client(false));
    };
    if form.get("client_secret").is_some() {
        return Err(Refusal::new("invalid_request", "more than one way to authenticate"));
    }
    let (id, secret) = basic(authorization.as_bytes()).ok_or(Refusal::unknown_client(true))?;
    if form.get("client_id").is_some_and(|claimed| claimed != id) {
        return Err(Refusal::new("invalid_request", "two clients in one request"));
    }
    known(&id)
        .filter(|client| client.secret.as_ref() == Some(&secret))
        .ok_or(Refusal::unknown_client(true))
}

fn basic(authorization: &[u8]) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim_ascii()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decode(id), form_decode(secret)))
}

/// Undoes the encoding of one component. A bare `&` is none, but must not end the component.
fn form_decode(component: &str) -> String {
    let pair = format!("={}", component.replace('&', "%26"));
    let decoded = form_urlencoded::parse(pair.as_bytes()).next();
    decoded.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ODD_ID: &str = "cc:odd id";
    const ODD_SECRET: &str = "p@ss:w/rd+ %25&=~";

    fn form_headers() -> HeaderMap {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        HeaderMap::from_iter([(header::CONTENT_TYPE, form)])
    }

    fn basic_headers(id: &str, secret: &str) -> HeaderMap {
        let mut headers = form_headers();
        let value = format!("bAsIc {}", STANDARD.encode(format!("{id}:{secret}")));
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    fn encode(component: &str) -> String {
        form_urlencoded::byte_serialize(component.as_bytes()).collect()
    }

    fn ask(headers: &HeaderMap, body: &str) -> Result<String, Refusal> {
        let clients = [
            Client::confidential("test-client", "test-secret"),
            Client::confidential(ODD_ID, ODD_SECRET),
            Client::public("app"),
        ];
        let form = Form::parse(headers, body.as_bytes())?;
        authenticate(&clients, headers, &form).map(|client| client.id.clone())
    }

    #[test]
    fn basic_is_form_decoded_after_base64() {
        let encoded = basic_headers(&encode(ODD_ID), &encode(ODD_SECRET));
        assert_eq!(ask(&encoded, "").unwrap(), ODD_ID);
        let raw = ask(&basic_headers(ODD_ID, ODD_SECRET), "").unwrap_err();
        assert_eq!((raw.error, raw.challenge), ("invalid_client", true));
        assert_eq!(form_decode("a&b=c%26+d"), "a&b=c& d");
    }

    #[test]
    fn the_form_may_carry_the_secret() {
        let right = "client_id=test-client&client_secret=test-secret";
        assert_eq!(ask(&form_headers(), right).unwrap(), "test-client");
        let wrong = ask(&form_headers(), "client_id=test-client&client_secret=x").unwrap_err();
        assert_eq!((wrong.status, wrong.challenge), (StatusCode::UNAUTHORIZED, false));
    }

    #[test]
    fn only_a_public_client_needs_no_secret() {
        assert_eq!(ask(&form_headers(), "client_id=app").unwrap(), "app");
        assert_eq!(
            ask(&form_headers(), "client_id=test-client").unwrap_err().error,
            "invalid_client"
        );
        assert_eq!(ask(&form_headers(), "").unwrap_err().error, "invalid_client");
        assert_eq!(ask(&basic_headers("app", ""), "").unwrap_err().error, "invalid_client");
    }

    #[test]
    fn two_ways_to_authenticate_are_one_too_many() {
        let headers = basic_headers("test-client", "test-secret");
        assert_eq!(ask(&headers, "client_id=test-client").unwrap(), "test-client");
        assert_eq!(
            ask(&headers, "client_secret=test-secret").unwrap_err().error,
            "invalid_request"
        );
        assert_eq!(ask(&headers, "client_id=app").unwrap_err().error, "invalid_request");
    }

    #[test]
    fn what_is_no_form_is_an_invalid_request() {
        assert_eq!(
            ask(&HeaderMap::new(), "client_id=app").unwrap_err().error,
            "invalid_request"
        );
        assert_eq!(ask(&form_headers(), "a=1&a=2").unwrap_err().error, "invalid_request");
        let resources = "client_id=app&resource=https%3A%2F%2Fa.example&resource=https%3A%2F%2Fb.example";
        assert_eq!(ask(&form_headers(), resources).unwrap(), "app");
    }

    #[test]
    fn nonsense_in_the_header_is_an_unknown_client() {
        for value in ["Basic", "Basic ", "Basic !!!", "Basic dGVzdA==", "Bearer x", "é"] {
            let mut headers = form_headers();
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.insert(header::AUTHORIZATION, value);
            assert_eq!(ask(&headers, "").unwrap_err().error, "invalid_client");
        }
    }
}
