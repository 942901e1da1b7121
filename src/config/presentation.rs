//! How a token is presented and what refuses it, as a document says it.

use http::{HeaderMap, HeaderName, Response, StatusCode, request, response};
use http_body::Body;
use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::Value;

use crate::classify::{BodyCode, Classify, Grpc, Inspecting, Peeked, Report, Unauthorized, Verdict};
use crate::document;
use crate::error::Error;
use crate::inject::{Authorization, Cookie, Header, Inject as Injects, Query, ReadyHeader, ReadyQuery};
use crate::token::Token;

/// How a token is presented: `"bearer"`, `{"header": {"name": "x-token", "scheme": "Token"}}`,
/// `{"query": {"name": "access_token"}}`, `{"cookie": {"name": "session"}}`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Inject {
    /// `Authorization: Bearer <token>`.
    Bearer,
    /// A header; the scheme stands before the token.
    #[non_exhaustive]
    Header {
        /// Its name.
        name: String,
        /// What stands before the token. Default: nothing.
        scheme: Option<String>,
    },
    /// A query parameter, in the place of every other of that name.
    #[non_exhaustive]
    Query {
        /// Its name, unencoded.
        name: String,
    },
    /// A cookie, in the place of another of that name.
    #[non_exhaustive]
    Cookie {
        /// Its name.
        name: String,
    },
}

impl Inject {
    /// The scheme that `Authorization` has then, where it is not the usual one.
    pub(super) fn scheme(&self) -> Option<&str> {
        match self {
            Self::Header { name, scheme } if name.eq_ignore_ascii_case("authorization") => scheme.as_deref(),
            _ => None,
        }
    }

    pub(super) fn injection(&self, at: &str) -> Result<Injection, Error> {
        let injection = match self {
            Self::Bearer => Injection(Kind::Authorization(Authorization::new())),
            Self::Header { name, scheme } => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                    Error::config(
                        format!("{at}.header.name"),
                        "is no header name; write letters, digits and -",
                    )
                })?;
                let header = Header::new(name);
                Injection(Kind::Header(match scheme {
                    Some(scheme) => header.prefix(format!("{scheme} ")),
                    None => header,
                }))
            }
            Self::Query { name } => Injection(Kind::Query(Query::new(name.as_str()))),
            Self::Cookie { name } => Injection(Kind::Cookie(Cookie::new(name.as_str()))),
        };
        // What is wrong with a name or a scheme shows when something is presented.
        let field = match self {
            Self::Bearer => "bearer",
            Self::Header { .. } => "header.scheme",
            Self::Query { .. } => "query.name",
            Self::Cookie { .. } => "cookie.name",
        };
        injection.ready(&Token::bearer("test")).map(|_| injection).map_err(|_| {
            Error::config(
                format!("{at}.{field}"),
                "is empty or holds what cannot be sent; write a plain word",
            )
        })
    }
}

/// An [`Inject`](crate::Inject) that a document chose.
#[derive(Clone, Debug)]
pub struct Injection(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Authorization(Authorization),
    Header(Header),
    Query(Query),
    Cookie(Cookie),
}

impl Injection {
    pub(super) fn bearer() -> Self {
        Self(Kind::Authorization(Authorization::new()))
    }

    pub(super) fn query(query: Query) -> Self {
        Self(Kind::Query(query))
    }
}

/// What [`Injection`] makes of a token.
#[derive(Debug)]
pub struct ReadyInjection(Ready);

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the hot one, and there is one a token"
)]
enum Ready {
    Header(ReadyHeader),
    Query(ReadyQuery),
}

impl Injects for Injection {
    type Ready = ReadyInjection;

    fn ready(&self, token: &Token) -> Result<ReadyInjection, Error> {
        Ok(ReadyInjection(match &self.0 {
            Kind::Authorization(inject) => Ready::Header(inject.ready(token)?),
            Kind::Header(inject) => Ready::Header(inject.ready(token)?),
            Kind::Cookie(inject) => Ready::Header(inject.ready(token)?),
            Kind::Query(inject) => Ready::Query(inject.ready(token)?),
        }))
    }

    fn put(&self, ready: &ReadyInjection, head: &mut request::Parts) {
        match (&self.0, &ready.0) {
            (Kind::Authorization(inject), Ready::Header(ready)) => inject.put(ready, head),
            (Kind::Header(inject), Ready::Header(ready)) => inject.put(ready, head),
            (Kind::Cookie(inject), Ready::Header(ready)) => inject.put(ready, head),
            (Kind::Query(inject), Ready::Query(ready)) => inject.put(ready, head),
            // Made by another injection, which nobody can hand us.
            (Kind::Query(_), Ready::Header(_)) | (_, Ready::Query(_)) => {}
        }
    }

    fn is_present(&self, head: &request::Parts) -> bool {
        match &self.0 {
            Kind::Authorization(inject) => inject.is_present(head),
            Kind::Header(inject) => inject.is_present(head),
            Kind::Cookie(_) | Kind::Query(_) => false,
        }
    }

    fn offer(&self, ready: &ReadyInjection, headers: &mut HeaderMap) -> Option<bool> {
        match (&self.0, &ready.0) {
            (Kind::Authorization(inject), Ready::Header(ready)) => inject.offer(ready, headers),
            (Kind::Header(inject), Ready::Header(ready)) => inject.offer(ready, headers),
            _ => None,
        }
    }
}

/// What is a refusal: `"bearer"`, `{"status": [401]}`, `{"status": [403], "code": "/code", "in": ["X"]}`,
/// `{"grpc": true}`, or a list of these, of which any counts.
#[derive(Clone, Debug)]
pub struct Refuse {
    rules: Vec<Rule>,
    /// Whether they stand in a list, which a path has to say.
    listed: bool,
}

#[derive(Clone, Debug)]
enum Rule {
    Bearer,
    Written(Written),
}

/// A rule that is an object.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields)]
struct Written {
    /// Statuses that are refusals; with `code`, statuses whose body is looked into.
    status: Option<Vec<u16>>,
    /// Where in the JSON body the code stands.
    code: Option<String>,
    /// The codes that are refusals.
    #[serde(rename = "in")]
    codes: Option<Vec<Value>>,
    /// gRPC status 16.
    grpc: Option<bool>,
}

impl<'de> Deserialize<'de> for Refuse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            list @ Value::Array(_) => document::within(list).map(|rules| Self { rules, listed: true }),
            one => Rule::parse(one).map(|rule| Self {
                rules: vec![rule],
                listed: false,
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(Value::deserialize(deserializer)?)
    }
}

impl Rule {
    fn parse<E: serde::de::Error>(value: Value) -> Result<Self, E> {
        match value {
            Value::String(word) if word == "bearer" => Ok(Self::Bearer),
            object @ Value::Object(_) => document::within(object).map(Self::Written),
            _ => Err(E::custom(
                r#"is no rule; write "bearer", {"status": [401]}, {"status": [403], "code": "/code", "in": ["X"]} or {"grpc": true}"#,
            )),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Refuse {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Refuse".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let written = generator.subschema_for::<Written>();
        let rule = schemars::json_schema!({ "anyOf": [{ "const": "bearer" }, written] });
        schemars::json_schema!({ "anyOf": [rule, { "type": "array", "items": rule, "minItems": 1 }] })
    }
}

impl Refuse {
    pub(super) fn refusal(&self, at: &str) -> Result<Refusal, Error> {
        if self.rules.is_empty() {
            return Err(Error::config(
                at.to_owned(),
                "is an empty list; write one rule at least",
            ));
        }
        let mut refusal = Refusal::default();
        for (index, rule) in self.rules.iter().enumerate() {
            let at = match self.listed {
                true => format!("{at}[{index}]"),
                false => at.to_owned(),
            };
            match rule {
                Rule::Bearer => refusal.bearer = Some(Unauthorized::new()),
                Rule::Written(written) => written.add_to(&mut refusal, &at)?,
            }
        }
        Ok(refusal)
    }
}

impl Written {
    fn add_to(&self, refusal: &mut Refusal, at: &str) -> Result<(), Error> {
        let fault = |field: &str, advice: &'static str| Error::config(format!("{at}.{field}"), advice);
        match (&self.grpc, &self.status) {
            (Some(true), None) if self.code.is_none() && self.codes.is_none() => {
                refusal.grpc = Some(Grpc::new());
                return Ok(());
            }
            (Some(true), _) => return Err(fault("grpc", "stands with other fields; write it as a rule of its own")),
            (Some(false), None) => return Err(fault("grpc", "is false; write true, or leave the rule out")),
            _ => {}
        }
        let statuses = self.status.as_deref().unwrap_or_default();
        if statuses.is_empty() {
            return Err(fault(
                "status",
                "is missing; write the statuses that are refusals, as in [401]",
            ));
        }
        let statuses = statuses.iter().map(|status| match StatusCode::from_u16(*status) {
            Ok(status) if (300..600).contains(&status.as_u16()) || status == StatusCode::OK => Ok(status),
            _ => Err(fault(
                "status",
                "holds what is no status of a refusal; write one from 300 to 599",
            )),
        });
        let statuses: Vec<StatusCode> = statuses.collect::<Result<_, _>>()?;
        let Some(pointer) = &self.code else {
            if self.codes.is_some() {
                return Err(fault(
                    "code",
                    "is missing; write where in the body the code stands, as in /code",
                ));
            }
            if statuses.contains(&StatusCode::OK) {
                return Err(fault(
                    "status",
                    "holds 200 without a code; every answer would be a refusal",
                ));
            }
            refusal.statuses.extend(statuses);
            return Ok(());
        };
        let codes: Option<Vec<String>> = self.codes.as_deref().unwrap_or_default().iter().map(text).collect();
        let codes = codes
            .filter(|codes| !codes.is_empty() && !codes.contains(&String::new()))
            .ok_or_else(|| {
                fault(
                    "in",
                    "is no list of codes; write texts or numbers, as in [\"InvalidAccessToken\"]",
                )
            })?;
        for status in statuses {
            let added = match refusal.codes.take() {
                // Challenges are the rule `bearer`, which may not be there.
                None => BodyCode::new(status, pointer, codes.clone()).map(|codes| codes.otherwise(no_challenge())),
                Some(others) => others.or(status, pointer, codes.clone()),
            };
            refusal.codes = Some(added.map_err(|_| fault("code", "is no JSON pointer; write it as in /code"))?);
        }
        Ok(())
    }
}

/// Nothing that a challenge says, or that none is there, is a refusal.
fn no_challenge() -> Unauthorized {
    // No server can name such a scheme (RFC 9110 §5.6.2).
    Unauthorized::new().scheme("").bare(false)
}

/// A code as [`BodyCode`] compares it.
fn text(code: &Value) -> Option<String> {
    match code {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

/// A [`Classify`] that a document chose: any of several rules.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    bearer: Option<Unauthorized>,
    /// The same for the scheme that the token goes out with, if that is another.
    scheme: Option<Unauthorized>,
    statuses: Vec<StatusCode>,
    codes: Option<BodyCode>,
    grpc: Option<Grpc>,
}

impl Refusal {
    pub(super) fn bearer() -> Self {
        Self {
            bearer: Some(Unauthorized::new()),
            ..Self::default()
        }
    }

    /// Challenges of this scheme are read like those of `Bearer`, where those are.
    pub(super) fn scheme(mut self, scheme: &str) -> Self {
        self.scheme = self.bearer.clone().map(|bearer| bearer.scheme(scheme).bare(false));
        self
    }

    pub(super) fn codes(codes: BodyCode) -> Self {
        Self {
            codes: Some(codes),
            ..Self::bearer()
        }
    }

    /// The rule for gRPC, if that is what answered.
    fn grpc(&self, head: &response::Parts) -> Option<&Grpc> {
        let content_type = head.headers.get(http::header::CONTENT_TYPE);
        let is_grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        self.grpc
            .as_ref()
            .filter(|_| is_grpc || head.headers.contains_key("grpc-status"))
    }
}

impl<B: Body> Classify<B> for Refusal {
    type Body = Peeked<B>;
    type Inspecting = Inspecting<B>;

    fn head(&self, head: &response::Parts) -> Verdict {
        // Whatever refuses by its head alone, then whatever has to look further.
        if self.statuses.contains(&head.status) {
            return Verdict::Refuse(crate::challenge::Challenge::none());
        }
        for challenged in self.bearer.iter().chain(&self.scheme) {
            if let refuse @ Verdict::Refuse(_) = Classify::<B>::head(challenged, head) {
                return refuse;
            }
        }
        if let Some(grpc) = self.grpc(head) {
            return Classify::<B>::head(grpc, head);
        }
        match &self.codes {
            Some(codes) => Classify::<B>::head(codes, head),
            None => Verdict::Accept,
        }
    }

    fn pass(&self, response: Response<B>) -> Response<Peeked<B>> {
        response.map(Peeked::whole)
    }

    fn inspect(&self, head: &response::Parts, body: B, limit: usize, report: Report) -> Inspecting<B> {
        match (self.grpc(head), &self.codes) {
            (Some(grpc), _) => grpc.inspect(head, body, limit, report),
            (None, Some(codes)) => codes.inspect(head, body, limit, report),
            // Nothing else asks for it.
            (None, None) => Grpc::new().inspect(head, body, limit, report),
        }
    }
}
