//! How a request is written, and how it is signed.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, InvalidHeaderValue};
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;
use zeroize::Zeroizing;

use super::sign::Signer;
use super::template::{ALWAYS_NEEDED, BUILT_IN, Missing, Template, Values};
use crate::error::{Faults, FetchError};
use crate::percent;
use crate::provider::oauth2;

/// One request of an endpoint. Every placeholder is encoded for the place where it stands.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transform = crate::document::schema::nullable))]
#[serde(deny_unknown_fields)]
pub(in crate::provider) struct Call {
    /// Default: POST.
    #[serde(default)]
    method: Verb,
    /// https, or http on loopback. Placeholders may stand in its path and query.
    pub(super) url: Template,
    /// Parameters that are appended to the URL's own.
    #[serde(default)]
    pub(super) query: BTreeMap<String, Template>,
    /// Beside `accept: application/json`, which one of that name replaces.
    #[serde(default)]
    headers: BTreeMap<String, Template>,
    /// The body as `application/x-www-form-urlencoded`.
    form: Option<BTreeMap<String, Template>>,
    /// The body as JSON, with placeholders in its texts.
    #[cfg_attr(feature = "schema", schemars(with = "Option<Value>"))]
    json: Option<Shape>,
    /// Placeholders without which the request cannot be made, beside `access_token` and `refresh_token`.
    #[serde(default)]
    pub(super) needs: Vec<String>,
}

#[derive(Clone, Debug)]
struct Verb(Method);

impl Default for Verb {
    fn default() -> Self {
        Self(Method::POST)
    }
}

impl<'de> Deserialize<'de> for Verb {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let found = known.into_iter().find(|method| method.as_str() == name);
        found
            .map(Self)
            .ok_or_else(|| D::Error::custom("is no method; write GET, POST, PUT, PATCH or DELETE"))
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Verb {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": ["GET", "POST", "PUT", "PATCH", "DELETE"] })
    }
}

impl Call {
    /// Makes the request; the URL's host was checked before.
    pub(super) fn request(
        &self,
        values: &Values<'_>,
        sign: Option<&Signer>,
    ) -> Result<http::Request<Bytes>, FetchError> {
        let mut url = self.url.filled(values, percent::encoded).map_err(missing)?;
        for (name, value) in &self.query {
            if let Some(value) = value.parameter(values).map_err(missing)? {
                let separator = if url.contains('?') { '&' } else { '?' };
                url.push(separator);
                url.push_str(&percent::encoded(name));
                url.push('=');
                url.push_str(&Zeroizing::new(percent::encoded(&value)));
            }
        }
        let uri: Uri = url
            .parse()
            .map_err(|_| FetchError::config("the URL with its values filled in is none"))?;
        if uri.path().split('/').any(|segment| segment == "." || segment == "..") {
            return Err(FetchError::config(
                "a value that stands in the path of the URL is . or ..",
            ));
        }
        let (body, content_type) = self.body(values)?;
        let mut request = http::Request::builder().method(&self.method.0).uri(uri);
        // The document's own come in the place of these.
        let is_ours = |name: HeaderName| !self.headers.keys().any(|own| own.eq_ignore_ascii_case(name.as_str()));
        if is_ours(ACCEPT) {
            request = request.header(ACCEPT, "application/json");
        }
        match content_type {
            Some(content_type) if is_ours(CONTENT_TYPE) => request = request.header(CONTENT_TYPE, content_type),
            // Clients leave it out, and some servers wait for a body then. Source: RFC 9110 §8.6.
            None if expects_body(&self.method.0) && is_ours(CONTENT_LENGTH) => {
                request = request.header(CONTENT_LENGTH, 0);
            }
            _ => {}
        }
        for (name, value) in &self.headers {
            let Some(value) = value.parameter(values).map_err(missing)? else {
                continue;
            };
            let value = sensitive(&value)
                .map_err(|_| FetchError::config(format!("the value of the header {name} holds a control character")))?;
            request = request.header(name, value);
        }
        let unfit = |_| FetchError::config("the request with its values filled in is none");
        let request = request.body(body).map_err(unfit)?;
        let Some(sign) = sign else {
            return Ok(request);
        };
        let (mut head, body) = request.into_parts();
        sign.sign(&mut head, &body, values.timestamp, values.nonce)
            .map_err(|_| {
                FetchError::config(
                    "the request cannot be signed: a key does not fit into a header, or the query into a URL",
                )
            })?;
        Ok(http::Request::from_parts(head, body))
    }

    /// Whether every value without which it cannot be made is there.
    pub(super) fn is_possible(&self, values: &Values<'_>) -> bool {
        self.needed().into_iter().all(|name| values.get(name).is_some())
    }

    /// The values without which it cannot be made.
    pub(super) fn needed(&self) -> Vec<&str> {
        let always = self.names().filter(|name| ALWAYS_NEEDED.contains(name));
        let mut needed: Vec<_> = always.chain(self.needs.iter().map(String::as_str)).collect();
        needed.sort_unstable();
        needed.dedup();
        needed
    }

    fn body(&self, values: &Values<'_>) -> Result<(Bytes, Option<&'static str>), FetchError> {
        if let Some(fields) = &self.form {
            let mut form = Serializer::new(String::with_capacity(BODY_ROOM));
            for (name, value) in fields {
                if let Some(value) = value.parameter(values).map_err(missing)? {
                    form.append_pair(name, &value);
                }
            }
            let form = Bytes::from_owner(Zeroizing::new(form.finish().into_bytes()));
            return Ok((form, Some("application/x-www-form-urlencoded")));
        }
        let Some(json) = &self.json else {
            return Ok((Bytes::new(), None));
        };
        let mut filled = json.filled(values).map_err(missing)?.unwrap_or(Value::Null);
        let text = filled.to_string().into_bytes();
        crate::token::Wipe::wipe(&mut filled);
        Ok((Bytes::from_owner(Zeroizing::new(text)), Some("application/json")))
    }

    /// Every placeholder in it.
    fn names(&self) -> impl Iterator<Item = &str> {
        let mut templates = vec![&self.url];
        templates.extend(self.query.values().chain(self.headers.values()));
        templates.extend(self.form.iter().flat_map(BTreeMap::values));
        if let Some(json) = &self.json {
            json.templates(&mut templates);
        }
        templates.into_iter().flat_map(Template::names)
    }

    /// Its parameters that no placeholder fills, by name.
    pub(super) fn literals(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.query.iter().chain(self.form.iter().flatten());
        let json = match &self.json {
            Some(Shape::Object(fields)) => Some(fields),
            _ => None,
        };
        let json = json.into_iter().flatten().filter_map(|(name, shape)| match shape {
            Shape::Text(template) => Some((name, template)),
            _ => None,
        });
        fields
            .chain(json)
            .filter_map(|(name, text)| Some((name.as_str(), text.plain()?)))
    }

    /// Names everything that cannot be right. `known` are the placeholders that may have a value.
    pub(super) fn check(&self, at: &str, known: &dyn Fn(&str) -> bool, faults: &mut Faults) {
        let mut unknown: Vec<&str> = self
            .names()
            .chain(self.needs.iter().map(String::as_str))
            .filter(|name| !(known(name) || BUILT_IN.contains(name) || ALWAYS_NEEDED.contains(name)))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        for name in unknown {
            faults.add(
                at.to_owned(),
                format!("{{{name}}} is neither in vars nor in answer.keep; add it to one of them"),
            );
        }
        let start = self.url.start();
        let host_end = start.find("://").and_then(|at| start[at + 3..].find(['/', '?']));
        if self.url.names().next().is_some() && host_end.is_none() {
            faults.add(
                format!("{at}.url"),
                "write scheme and host without placeholders, https://api.example.com/{tenant}/token",
            );
        } else if let Err(advice) = oauth2::uri(start) {
            faults.add(format!("{at}.url"), advice);
        }
        if self.form.is_some() && self.json.is_some() {
            faults.add(
                format!("{at}.json"),
                "form and json are both there; leave one of them out",
            );
        }
        for name in self.headers.keys() {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                faults.add(
                    format!("{at}.headers"),
                    "holds a name that is none; write letters, digits and -",
                );
            }
        }
    }

    /// Where it goes, for messages.
    pub(super) fn host(&self) -> String {
        let uri: Option<Uri> = self.url.start().parse().ok();
        uri.and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
    }
}

fn expects_body(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

fn missing(Missing(name): Missing) -> FetchError {
    FetchError::config(format!("there is no value for {{{name}}}"))
}

fn sensitive(value: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// JSON with placeholders in its texts.
#[derive(Clone)]
enum Shape {
    Text(Template),
    List(Vec<Shape>),
    Object(BTreeMap<String, Shape>),
    Other(Value),
}

impl Shape {
    fn parse(json: Value) -> Result<Self, &'static str> {
        Ok(match json {
            Value::String(text) => Self::Text(Template::parse(&text)?),
            Value::Array(items) => Self::List(items.into_iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let parsed = fields.into_iter().map(|(name, value)| Ok((name, Self::parse(value)?)));
                Self::Object(parsed.collect::<Result<_, &'static str>>()?)
            }
            other => Self::Other(other),
        })
    }

    /// `None` where it is nothing but a placeholder without a value.
    fn filled(&self, values: &Values<'_>) -> Result<Option<Value>, Missing> {
        Ok(Some(match self {
            Self::Text(template) => match template.parameter(values)? {
                Some(text) => Value::String(text.to_string()),
                None => return Ok(None),
            },
            Self::List(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| item.filled(values)).collect();
                Value::Array(items?.into_iter().flatten().collect())
            }
            Self::Object(fields) => {
                let mut filled = serde_json::Map::new();
                for (name, field) in fields {
                    if let Some(value) = field.filled(values)? {
                        filled.insert(name.clone(), value);
                    }
                }
                Value::Object(filled)
            }
            Self::Other(value) => value.clone(),
        }))
    }

    fn templates<'a>(&'a self, found: &mut Vec<&'a Template>) {
        match self {
            Self::Text(template) => found.push(template),
            Self::List(items) => items.iter().for_each(|item| item.templates(found)),
            Self::Object(fields) => fields.values().for_each(|field| field.templates(found)),
            Self::Other(_) => {}
        }
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut templates = Vec::new();
        self.templates(&mut templates);
        f.debug_list().entries(templates).finish()
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

const BODY_ROOM: usize = 4096;
