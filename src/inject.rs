//! How a token is presented: [`Inject`], with [`Authorization`] as the default.
//!
//! Presentation belongs to the layer, not to the token: one token may go out as a header through one
//! client and as a query parameter through another. What can be computed once is computed once per
//! token and layer ([`Inject::ready`]); a call only [puts](Inject::put) it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, Entry, IntoHeaderName, MaxSizeReached};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};

use crate::error::Error;
use crate::percent;
use crate::stripe::Striped;
use crate::token::{Secret, Token, is_all};

/// Puts a token on a request.
///
/// [`inject_fn`] is the closure form.
pub trait Inject: Send + Sync + 'static {
    /// What is made of a token once, to be put on many requests. Mark header values sensitive.
    type Ready: Send + Sync + 'static;

    /// Makes it, once per token and layer; again on each call while it fails. Must not send requests through the
    /// same layer: they would wait for it.
    ///
    /// # Errors
    ///
    /// If the token cannot be presented like this. The request then fails with it and is not sent.
    fn ready(&self, token: &Token) -> Result<Self::Ready, Error>;

    /// Puts it on a request. Runs on every call, so do not lock, and do not allocate where it can be
    /// helped ([`Authorization`] and [`Header`] do neither; [`Query`] and [`Cookie`] build a new value).
    ///
    /// Must replace what an earlier attempt put there.
    fn put(&self, ready: &Self::Ready, head: &mut request::Parts);

    /// Whether the caller put one of his own there. Then the request goes out as it is, and a refusal
    /// of it is not ours to answer. Default: `false`.
    fn is_present(&self, head: &request::Parts) -> bool {
        let _ = head;
        false
    }

    /// For what is a header and nothing else: puts it there unless the caller has one of his own, in one go, which
    /// spares most calls taking the request apart. `Some(true)`: it is there; `Some(false)`: the caller's is.
    ///
    /// Must do what [`is_present`](Self::is_present) and [`put`](Self::put) would: those are asked whenever the
    /// token is not known to be fresh. Default: `None`, and they are asked always.
    fn offer(&self, ready: &Self::Ready, headers: &mut HeaderMap) -> Option<bool> {
        let _ = (ready, headers);
        None
    }
}

/// `Authorization: Bearer <token>`, the default. Source: RFC 6750 §2.1, RFC 9110 §11.6.2.
///
/// The scheme is the token's own type unless [`scheme`](Self::scheme) says otherwise. A caller's own
/// `Authorization` is left alone unless told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Authorization {
    scheme: Option<String>,
    overwrite: bool,
}

impl Authorization {
    /// The [token's own type](Token::kind) as the scheme: `Bearer`, for almost all.
    pub fn new() -> Self {
        Self::default()
    }

    /// This scheme instead: `Token`, `JWT`, `GenieKey`. A server challenges with its own, so say it to the classifier too:
    /// [`Unauthorized::scheme`](crate::Unauthorized::scheme). Otherwise a 401 with such a challenge is handed on.
    #[must_use]
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = Some(scheme.into());
        self
    }

    /// Replaces an `Authorization` that the caller put there. Default: it is left alone.
    #[must_use]
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }
}

/// What [`Authorization`] and [`Header`] make of a token: its header value, one for each lane of threads that asks.
///
/// Each has a count of its own, so that clones on two cores write to nothing that they share. What is only read they
/// do share: the secret is in memory once.
#[derive(Debug)]
pub struct ReadyHeader {
    text: Arc<Secret<String>>,
    lanes: Striped<OnceLock<HeaderValue>>,
}

impl ReadyHeader {
    #[inline]
    fn value(&self) -> HeaderValue {
        self.lanes.here().get_or_init(|| self.lane()).clone()
    }

    #[cold]
    fn lane(&self) -> HeaderValue {
        let lane = Bytes::from_owner(Lane(self.text.clone()));
        // Checked when it was made.
        let mut value = HeaderValue::from_maybe_shared(lane).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// A map that is full goes without, and the server refuses it.
#[inline]
fn put_header(name: impl IntoHeaderName, ready: &ReadyHeader, head: &mut request::Parts) {
    let _ = head.headers.try_insert(name, ready.value());
}

/// One look is enough: that the caller has such a header shows when ours stands behind it, and can be taken away.
/// A map that is full (24,576 names) takes no token.
#[inline]
fn is_alone(appended: Result<bool, MaxSizeReached>, name: &HeaderName, headers: &mut HeaderMap) -> bool {
    match appended {
        Ok(false) => true,
        Ok(true) => withdraw(name, headers),
        Err(_) => false,
    }
}

/// Takes the last header of this name away; the others stay where they are.
#[cold]
fn withdraw(name: &HeaderName, headers: &mut HeaderMap) -> bool {
    if let Entry::Occupied(mut entry) = headers.entry(name) {
        let mut theirs: Vec<_> = entry.iter().cloned().collect();
        theirs.pop();
        let mut theirs = theirs.into_iter();
        if let Some(first) = theirs.next() {
            entry.insert(first);
        }
        theirs.for_each(|value| entry.append(value));
    }
    false
}

impl Inject for Authorization {
    type Ready = ReadyHeader;

    fn ready(&self, token: &Token) -> Result<ReadyHeader, Error> {
        let scheme = self.scheme.as_deref().unwrap_or(token.kind());
        if scheme.is_empty() || !scheme.bytes().all(is_token_byte) {
            return Err(Error::config(
                "authorization.scheme",
                "is no RFC 9110 token; write letters, digits and -, as in Bearer",
            ));
        }
        ready_header(&[scheme, " ", token.secret()])
    }

    #[inline]
    fn put(&self, ready: &ReadyHeader, head: &mut request::Parts) {
        put_header(AUTHORIZATION, ready, head);
    }

    #[inline]
    fn is_present(&self, head: &request::Parts) -> bool {
        !self.overwrite && head.headers.contains_key(AUTHORIZATION)
    }

    #[inline]
    fn offer(&self, ready: &ReadyHeader, headers: &mut HeaderMap) -> Option<bool> {
        if self.overwrite {
            return Some(headers.try_insert(AUTHORIZATION, ready.value()).is_ok());
        }
        let appended = headers.try_append(AUTHORIZATION, ready.value());
        Some(is_alone(appended, &AUTHORIZATION, headers))
    }
}

/// A header of any name: `x-api-key: <token>`, optionally with something before the token.
#[derive(Clone, Debug)]
pub struct Header {
    name: HeaderName,
    prefix: String,
    overwrite: bool,
}

impl Header {
    /// The header `name`, with the token alone as its value.
    pub fn new(name: HeaderName) -> Self {
        Self {
            name,
            prefix: String::new(),
            overwrite: false,
        }
    }

    /// Stands before the token, its space included: `"Token "`. Default: nothing.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Replaces what the caller put there. Default: it is left alone.
    #[must_use]
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }
}

impl Inject for Header {
    type Ready = ReadyHeader;

    fn ready(&self, token: &Token) -> Result<ReadyHeader, Error> {
        ready_header(&[&self.prefix, token.secret()])
    }

    #[inline]
    fn put(&self, ready: &ReadyHeader, head: &mut request::Parts) {
        put_header(&self.name, ready, head);
    }

    #[inline]
    fn is_present(&self, head: &request::Parts) -> bool {
        !self.overwrite && head.headers.contains_key(&self.name)
    }

    #[inline]
    fn offer(&self, ready: &ReadyHeader, headers: &mut HeaderMap) -> Option<bool> {
        if self.overwrite {
            return Some(headers.try_insert(&self.name, ready.value()).is_ok());
        }
        let appended = headers.try_append(&self.name, ready.value());
        Some(is_alone(appended, &self.name, headers))
    }
}

/// A query parameter: `?access_token=<token>`, percent-encoded. Replaces every parameter of that name.
///
/// URLs end up in logs, and in the `Referer` of a client that follows redirects itself (reqwest); use it only where the
/// API knows nothing else. Source: RFC 6750 §2.3.
#[derive(Clone, Debug)]
pub struct Query {
    name: String,
}

impl Query {
    /// The parameter `name`, unencoded. An empty one, and a token that is too long for a URL, are errors
    /// of each request.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// What [`Query`] makes of a token: `name=token`, encoded.
pub struct ReadyQuery {
    name: String,
    pair: crate::token::Secret<String>,
}

impl fmt::Debug for ReadyQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyQuery")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Inject for Query {
    type Ready = ReadyQuery;

    fn ready(&self, token: &Token) -> Result<ReadyQuery, Error> {
        if self.name.is_empty() {
            return Err(Error::config("query.name", "is empty; write the name of the parameter"));
        }
        let name = percent::encoded(&self.name);
        let pair = format!("{name}={}", percent::encoded(token.secret())).into();
        // Checked here, so that `put` has nothing left to refuse.
        let fits = |ready: &ReadyQuery| with_pair("/", "", ready).is_some();
        let ready = ReadyQuery {
            name: self.name.clone(),
            pair,
        };
        if fits(&ready) {
            Ok(ready)
        } else {
            Err(Error::config(
                "query.token",
                "is too long for a URL; present it as a header",
            ))
        }
    }

    fn put(&self, ready: &ReadyQuery, head: &mut request::Parts) {
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or(""));
        // A URL that becomes too long by it (64 KiB) goes without, and the server refuses it.
        let Some(path_and_query) = with_pair(path, query, ready) else {
            return;
        };
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.path_and_query = Some(path_and_query);
        // Scheme, authority and path come from a URI, so they make one again.
        head.uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// The path and query with the pair at the end, and no other parameter of that name.
fn with_pair(path: &str, query: &str, ready: &ReadyQuery) -> Option<PathAndQuery> {
    let others = query
        .split('&')
        // What is not ours stays as it was written, empty pairs too.
        .filter(|pair| !query.is_empty() && !decodes_to(pair.split('=').next().unwrap_or(""), &ready.name));
    let mut written = format!("{path}?");
    for pair in others {
        written.push_str(pair);
        written.push('&');
    }
    written.push_str(ready.pair.expose());
    PathAndQuery::from_maybe_shared(Bytes::from(written)).ok()
}

/// Whether an encoded parameter name says `name`, however it is encoded.
fn decodes_to(encoded: &str, name: &str) -> bool {
    let mut rest = encoded.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        (rest, _) = match (*first, tail) {
            (b'%', [high, low, tail @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                let byte = digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0);
                (tail, decoded.push(byte))
            }
            (b'+', tail) => (tail, decoded.push(b' ')),
            (byte, tail) => (tail, decoded.push(byte)),
        };
    }
    decoded == name.as_bytes()
}

/// A cookie: `Cookie: <name>=<token>`, beside the caller's others. Replaces one of that name. Source: RFC 6265 §4.2.
#[derive(Clone, Debug)]
pub struct Cookie {
    name: String,
}

impl Cookie {
    /// The cookie `name`. One that is no token of RFC 9110 §5.6.2, and a secret with a character that no cookie may
    /// hold, are errors of each request.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl Inject for Cookie {
    type Ready = ReadyHeader;

    fn ready(&self, token: &Token) -> Result<ReadyHeader, Error> {
        if self.name.is_empty() || !self.name.bytes().all(is_token_byte) {
            return Err(Error::config(
                "cookie.name",
                "is no cookie name; write an RFC 9110 token",
            ));
        }
        if token.secret().bytes().any(|byte| b"\",;\\".contains(&byte)) {
            return Err(Error::config(
                "cookie.token",
                "holds a character that no cookie may (RFC 6265 4.1.1); present it as a header",
            ));
        }
        ready_header(&[&self.name, "=", token.secret()])
    }

    fn put(&self, ready: &ReadyHeader, head: &mut request::Parts) {
        let Ok(Entry::Occupied(mut theirs)) = head.headers.try_entry(COOKIE) else {
            put_header(COOKIE, ready, head);
            return;
        };
        let mut joined = Vec::new();
        for pair in theirs
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        {
            let pair = pair.trim_ascii();
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair);
            if !pair.is_empty() && name != self.name.as_bytes() {
                joined.extend_from_slice(pair);
                joined.extend_from_slice(b"; ");
            }
        }
        joined.extend_from_slice(ready.text.expose().as_bytes());
        // Made of pieces of header values, so it is one.
        if let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
            value.set_sensitive(true);
            theirs.insert(value);
        }
    }
}

/// An injector from two closures: one that makes the value once per token, one that puts it on requests.
///
/// ```
/// use http::HeaderValue;
/// use tower_token::inject_fn;
///
/// let inject = inject_fn(
///     |token| Ok(HeaderValue::try_from(token.secret().to_owned()).unwrap_or(HeaderValue::from_static(""))),
///     |value: &HeaderValue, head| {
///         head.headers.insert("x-session", value.clone());
///     },
/// );
/// # let _ = inject;
/// ```
pub fn inject_fn<M, P, T>(ready: M, put: P) -> InjectFn<M, P>
where
    M: Fn(&Token) -> Result<T, Error> + Send + Sync + 'static,
    P: Fn(&T, &mut request::Parts) + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    InjectFn { ready, put }
}

/// An [`Inject`] that is two closures. Made by [`inject_fn`].
#[derive(Clone)]
pub struct InjectFn<M, P> {
    ready: M,
    put: P,
}

impl<M, P> fmt::Debug for InjectFn<M, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InjectFn").finish_non_exhaustive()
    }
}

impl<M, P, T> Inject for InjectFn<M, P>
where
    M: Fn(&Token) -> Result<T, Error> + Send + Sync + 'static,
    P: Fn(&T, &mut request::Parts) + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    type Ready = T;

    fn ready(&self, token: &Token) -> Result<T, Error> {
        (self.ready)(token)
    }

    fn put(&self, ready: &T, head: &mut request::Parts) {
        (self.put)(ready, head);
    }
}

fn ready_header(pieces: &[&str]) -> Result<ReadyHeader, Error> {
    let whole = Secret::new(pieces.concat());
    // As `HeaderValue` has it, which would make a copy that nobody wipes.
    let fits = |byte| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if !is_all(whole.expose(), fits) {
        return Err(Error::config(
            "token",
            "does not fit into a header: it holds a control character or is not ASCII",
        ));
    }
    Ok(ReadyHeader {
        text: Arc::new(whole),
        lanes: Striped::new(OnceLock::new),
    })
}

/// The bytes, as one lane has them; its alignment keeps the reference count that `Bytes` puts beside it alone.
#[repr(align(128))]
struct Lane(Arc<Secret<String>>);

impl AsRef<[u8]> for Lane {
    fn as_ref(&self) -> &[u8] {
        self.0.expose().as_bytes()
    }
}

/// RFC 9110 §5.6.2: what a token (in the grammar's sense) is made of.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put<I: Inject>(inject: &I, secret: &str, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let ready = inject.ready(&Token::bearer(secret)).unwrap();
        inject.put(&ready, &mut head);
        head
    }

    /// What the headers are after an offer, in order, and whether it was taken.
    fn offer<I: Inject>(inject: &I, headers: &[(&str, &str)]) -> (Vec<String>, bool) {
        let ready = inject.ready(&Token::bearer("test-a")).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let taken = inject.offer(&ready, &mut map).unwrap();
        let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        (map.iter().map(line).collect(), taken)
    }

    #[test]
    fn an_offer_leaves_what_the_caller_has_as_it_is() {
        let theirs = [
            ("a", "1"),
            ("authorization", "Basic x"),
            ("b", "2"),
            ("authorization", "Basic y"),
            ("x-api-key", "k"),
        ];
        let before = [
            "a: 1",
            "authorization: Basic x",
            "authorization: Basic y",
            "b: 2",
            "x-api-key: k",
        ];
        let (after, taken) = offer(&Authorization::new(), &theirs);
        assert_eq!((&after[..], taken), (&before.map(String::from)[..], false));
        let (after, taken) = offer(&Header::new(HeaderName::from_static("x-api-key")), &theirs);
        assert_eq!((&after[..], taken), (&before.map(String::from)[..], false));
        let (after, taken) = offer(&Authorization::new().overwrite(), &theirs);
        assert!(taken && after.contains(&"authorization: Bearer test-a".into()) && after.len() == 4);
    }

    #[test]
    fn an_offer_is_taken_where_there_is_room() {
        let taken = (vec!["a: 1".to_owned(), "authorization: Bearer test-a".to_owned()], true);
        assert_eq!(offer(&Authorization::new(), &[("a", "1")]), taken);
        let key = Header::new(HeaderName::from_static("x-api-key")).prefix("Key ");
        assert_eq!(offer(&key, &[]), (vec!["x-api-key: Key test-a".to_owned()], true));
    }

    #[test]
    fn a_lane_has_its_value_from_when_a_thread_asks_and_the_secret_is_in_memory_once() {
        let ready = Authorization::new().ready(&Token::bearer("test-a")).unwrap();
        let made = || Arc::strong_count(&ready.text) - 1;
        assert_eq!(made(), 0);
        let mine = [ready.value(), ready.value()];
        assert_eq!(made(), 1);
        let theirs = std::thread::scope(|scope| scope.spawn(|| ready.value()).join().unwrap());
        assert!(made() <= 2);
        assert_eq!(
            (&mine[0], mine[0].as_bytes().as_ptr()),
            (&theirs, theirs.as_bytes().as_ptr())
        );
        assert!(mine[1].is_sensitive() && theirs.is_sensitive());
    }

    #[test]
    fn headers_that_are_full_take_no_token_and_nothing_panics() {
        fn is_left_alone<I: Inject>(inject: &I) {
            let ready = inject.ready(&Token::bearer("test-a")).unwrap();
            let (mut head, ()) = http::Request::new(()).into_parts();
            for name in 0.. {
                let name = HeaderName::try_from(format!("x-{name}")).unwrap();
                if head.headers.try_insert(name, HeaderValue::from_static("1")).is_err() {
                    break;
                }
            }
            let before = head.headers.clone();
            assert_ne!(inject.offer(&ready, &mut head.headers), Some(true));
            inject.put(&ready, &mut head);
            assert_eq!(head.headers, before);
        }
        is_left_alone(&Authorization::new());
        is_left_alone(&Authorization::new().overwrite());
        is_left_alone(&Header::new(HeaderName::from_static("x-api-key")));
        is_left_alone(&Cookie::new("sid"));
    }

    #[test]
    fn authorization_is_sensitive_and_of_any_scheme() {
        let head = put(&Authorization::new(), "test-a", "/", &[]);
        assert_eq!(head.headers[AUTHORIZATION], "Bearer test-a");
        assert!(head.headers[AUTHORIZATION].is_sensitive());
        let head = put(&Authorization::new().scheme("GenieKey"), "test-a", "/", &[]);
        assert_eq!(head.headers[AUTHORIZATION], "GenieKey test-a");
        let error = Authorization::new()
            .scheme("a b")
            .ready(&Token::bearer("test-a"))
            .unwrap_err();
        assert!(error.is_config());
    }

    #[test]
    fn a_callers_own_header_is_seen() {
        let (head, ()) = http::Request::get("/")
            .header("authorization", "Basic x")
            .body(())
            .unwrap()
            .into_parts();
        assert!(Authorization::new().is_present(&head));
        assert!(!Authorization::new().overwrite().is_present(&head));
        assert!(!Header::new(HeaderName::from_static("x-key")).is_present(&head));
    }

    #[test]
    fn a_query_parameter_is_encoded_and_replaces_its_name() {
        let uri = |uri, secret| put(&Query::new("access_token"), secret, uri, &[]).uri.to_string();
        assert_eq!(
            uri("https://a.example/x", "test-a"),
            "https://a.example/x?access_token=test-a"
        );
        assert_eq!(
            uri(
                "https://a.example/x?q=1&access%5Ftoken=old&access_token=old2&z",
                "t/+=&\u{20ac}"
            ),
            "https://a.example/x?q=1&z&access_token=t%2F%2B%3D%26%E2%82%AC"
        );
        assert_eq!(uri("/x?", "test-a"), "/x?access_token=test-a");
        assert_eq!(
            uri("/x?a&&b=%2f+", "test-a"),
            "/x?a&&b=%2f+&access_token=test-a",
            "as written"
        );
    }

    #[test]
    fn a_query_put_twice_stands_once() {
        let inject = Query::new("t");
        let mut head = put(&inject, "test-a", "https://a.example/x?q=1", &[]);
        inject.put(&inject.ready(&Token::bearer("test-b")).unwrap(), &mut head);
        assert_eq!(head.uri, "https://a.example/x?q=1&t=test-b");
    }

    #[test]
    fn a_cookie_stands_beside_the_others() {
        let head = put(
            &Cookie::new("sid"),
            "test-a",
            "/",
            &[("cookie", "a=1; sid=old"), ("cookie", "b=2")],
        );
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; sid=test-a"]);
        assert!(cookies[0].is_sensitive());
        assert!(Cookie::new("sid").ready(&Token::bearer("a;b")).is_err());
    }

    #[test]
    fn a_token_that_fits_no_header_is_an_error() {
        for secret in ["test\n", "test-\u{e9}", "test\0"] {
            assert!(
                Authorization::new().ready(&Token::bearer(secret)).is_err(),
                "{secret:?}"
            );
        }
    }
}
