//! What a server says about a credential it does not take: `WWW-Authenticate`.
//!
//! The grammar is RFC 9110 §11.6.1, read for what the server meant: a parameter that breaks
//! the grammar is left out, and its challenge and every later one are kept. A comma separates
//! challenges and parameters alike, so a field is cut at the commas outside quoted-strings
//! first, and each piece then tells by its shape whether it begins a challenge.

use std::fmt;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One challenge of a `WWW-Authenticate` field: a scheme, and what came with it.
///
/// `Debug` shows the scheme, the names of the parameters and an `error` code; the other
/// values may echo a token and are shown as `…`, and so is whatever does not look like a
/// name or a code.
///
/// Source: RFC 9110 §11.3 (challenge), §11.6.1 (field); RFC 6750 §3 (`Bearer`).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Challenge {
    scheme: Box<str>,
    token68: Option<Box<str>>,
    params: Vec<(Box<str>, Box<str>)>,
}

impl Challenge {
    /// The refusal that came without a challenge; its scheme is empty.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads all `WWW-Authenticate` fields of a response, in order, as the one list that
    /// they are.
    ///
    /// Empty if there is no such field or none holds a challenge. No bytes panic, and the
    /// time is linear in their number. What breaks the grammar costs only itself:
    ///
    /// - A parameter that cannot be read (`realm=a b`) is left out of its challenge.
    /// - A list member that is neither a parameter nor begins with a scheme is skipped, with
    ///   the parameters after it up to the next scheme: it may have been their challenge.
    /// - A quoted-string without its closing quote reaches to the end of its field. The
    ///   parameter is left out, and no challenge is looked for inside it: it would be the
    ///   text of a value. The next field is read as usual.
    /// - `name=` has an empty value wherever it cannot be a token68.
    ///
    /// Of a parameter given twice the first counts. Bytes of a value that are not UTF-8 become
    /// U+FFFD. The first 32 challenges are kept, and the first 64 parameters of each.
    ///
    /// Source: RFC 9110 §5.3 (several fields), §5.6.1.2 (empty members), §11.6.1.
    pub fn parse_all(headers: &HeaderMap) -> Vec<Self> {
        let mut list = List::default();
        for field in headers.get_all(WWW_AUTHENTICATE) {
            list.read(field.as_bytes());
        }
        list.challenges
    }

    /// Reads the value of one field by the rules of [`parse_all`](Self::parse_all)
    /// (RFC 9110 §11.6.1).
    pub fn parse(field: &[u8]) -> Vec<Self> {
        let mut list = List::default();
        list.read(field);
        list.challenges
    }

    /// Whether this stands for a refusal without a challenge. No parsed challenge does.
    pub fn is_none(&self) -> bool {
        self.scheme.is_empty()
    }

    /// The scheme as the server wrote it (RFC 9110 §11.1); empty if there was no challenge.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether the scheme is `scheme`, in any case (RFC 9110 §11.1).
    pub fn is_scheme(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// What stood in place of parameters, as `YII==` in `Negotiate YII==` (RFC 9110 §11.2).
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }

    /// The value of the parameter `name`, in any case (RFC 9110 §11.2), without quotes and
    /// escapes.
    pub fn param(&self, name: &str) -> Option<&str> {
        let named = |(n, _): &(&str, &str)| n.eq_ignore_ascii_case(name);
        self.params().find(named).map(|(_, value)| value)
    }

    /// The names, as written, and values of the parameters in order, each name once
    /// (RFC 9110 §11.2).
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The `error` code, such as `invalid_token` (RFC 6750 §3.1).
    pub fn error(&self) -> Option<&str> {
        self.param("error")
    }

    /// The `scope` that is needed: names separated by spaces (RFC 6750 §3).
    pub fn scope(&self) -> Option<&str> {
        self.param("scope")
    }

    /// The `realm`: which part of the server is protected (RFC 9110 §11.5).
    pub fn realm(&self) -> Option<&str> {
        self.param("realm")
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        // A token68 is never followed by parameters: `realm=` before one was a parameter too.
        let empty = self.token68.as_deref().and_then(|t| t.strip_suffix('='));
        if let Some(name) = empty.filter(|name| name.bytes().all(is_tchar)) {
            self.params.push((name.into(), "".into()));
            self.token68 = None;
        }
        if self.params.len() == MAX_PARAMS {
            return;
        }
        let name = text(name);
        if self.param(&name).is_none()
            && let Some(value) = read_value(value)
        {
            self.params.push((name, value));
        }
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A bare token in the field reads as a scheme or as a name: only what is short and
        // plain is shown.
        let is_name = |s: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            s.len() <= 24 && s.bytes().all(plain)
        };
        // The registered codes only: a server may echo the token anywhere.
        let is_code = |s: &str| REGISTERED.contains(&s);
        let hidden: &dyn fmt::Debug = &format_args!("…");

        let mut out = f.debug_struct("Challenge");
        let scheme: &dyn fmt::Debug = if is_name(&self.scheme) { &self.scheme } else { hidden };
        out.field("scheme", scheme);
        if self.token68.is_some() {
            out.field("token68", hidden);
        }
        for (name, value) in self.params() {
            let is_code = name.eq_ignore_ascii_case("error") && is_code(value);
            let value = if is_code { &value } else { hidden };
            out.field(if is_name(name) { name } else { "…" }, value);
        }
        out.finish()
    }
}

/// The challenges read so far.
#[derive(Default)]
struct List {
    challenges: Vec<Challenge>,
    /// Whether a parameter that comes now belongs to the last challenge. Outlives a field:
    /// RFC 9110 §5.3 lets a list be spread over several, between any two members.
    open: bool,
}

impl List {
    fn read(&mut self, field: &[u8]) {
        for member in members(field) {
            self.read_member(trim(member));
        }
    }

    fn read_member(&mut self, member: &[u8]) {
        let (first, rest) = split_token(member);
        match (first, rest, trim(rest)) {
            ([], [], _) => {}
            ([], ..) => self.open = false,
            (name, _, [b'=', value @ ..]) => self.read_param(name, value),
            (scheme, [] | [b' ' | b'\t', ..], content) => {
                self.open(scheme);
                self.read_first(content);
            }
            _ => self.open = false,
        }
    }

    fn open(&mut self, scheme: &[u8]) {
        self.open = self.challenges.len() < MAX_CHALLENGES;
        if self.open {
            self.challenges.push(Challenge {
                scheme: text(scheme),
                ..Challenge::default()
            });
        }
    }

    /// Reads what shares a list member with the scheme: nothing, a token68 or a parameter.
    fn read_first(&mut self, content: &[u8]) {
        let (name, rest) = split_token(content);
        if is_token68(content) {
            if let Some(challenge) = self.current() {
                challenge.token68 = Some(text(content));
            }
        } else if let [b'=', value @ ..] = trim(rest) {
            self.read_param(name, value);
        }
    }

    fn read_param(&mut self, name: &[u8], value: &[u8]) {
        if let Some(challenge) = self.current() {
            challenge.add(name, trim(value));
        }
    }

    fn current(&mut self) -> Option<&mut Challenge> {
        self.challenges.last_mut().filter(|_| self.open)
    }
}

/// Cuts a field at the commas outside quoted-strings. Looks at each byte once.
///
/// Only a quote in the place of a value opens a quoted-string: a stray one elsewhere must not
/// swallow the challenges behind it.
fn members(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        Text,
        Equals,
        Quoted,
        Escape,
    }
    let mut at = At::Text;
    field.split(move |&byte| {
        at = match (at, byte) {
            (At::Quoted, b'\\') => At::Escape,
            (At::Quoted, b'"') => At::Text,
            (At::Quoted | At::Escape, _) => At::Quoted,
            (At::Equals, b'"') => At::Quoted,
            (At::Equals, b' ' | b'\t') | (_, b'=') => At::Equals,
            _ => At::Text,
        };
        at == At::Text && byte == b','
    })
}

/// Reads a token, which may be empty, or a quoted-string; `None` if it is neither.
fn read_value(value: &[u8]) -> Option<Box<str>> {
    let [b'"', quoted @ ..] = value else {
        return value.iter().copied().all(is_tchar).then(|| text(value));
    };
    let mut plain = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        let byte = match bytes.next()? {
            b'"' => break,
            b'\\' => bytes.next()?,
            byte => byte,
        };
        if byte.is_ascii_control() && *byte != b'\t' {
            return None;
        }
        plain.push(*byte);
    }
    bytes.as_slice().is_empty().then(|| text(&plain))
}

fn split_token(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&b| !is_tchar(b));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

/// RFC 9110 §5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §11.2: at least one character, then any number of `=`.
fn is_token68(mut bytes: &[u8]) -> bool {
    while let [rest @ .., b'='] = bytes {
        bytes = rest;
    }
    let is_char = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(b);
    !bytes.is_empty() && bytes.iter().all(is_char)
}

/// Without the spaces and tabs at both ends: OWS and BWS of RFC 9110 §5.6.3.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

const MAX_CHALLENGES: usize = 32;
const MAX_PARAMS: usize = 64;

/// RFC 6750 §3.1, RFC 9470 §3, RFC 9449 §9, and Continuous Access Evaluation.
const REGISTERED: [&str; 7] = [
    "invalid_request",
    "invalid_token",
    "insufficient_scope",
    "insufficient_user_authentication",
    "insufficient_claims",
    "use_dpop_nonce",
    "invalid_dpop_proof",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// `Bearer(realm=a;error=b) Negotiate<YII==>`: what was read, in a form that fits a table.
    fn shown(challenges: &[Challenge]) -> String {
        let one = |challenge: &Challenge| {
            let mut out = challenge.scheme().to_owned();
            if let Some(token68) = challenge.token68() {
                out += &format!("<{token68}>");
            }
            let params: Vec<_> = challenge.params().map(|(n, v)| format!("{n}={v}")).collect();
            if !params.is_empty() {
                out += &format!("({})", params.join(";"));
            }
            out
        };
        challenges.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(table: &[(impl AsRef<[u8]>, &str)]) {
        for (field, expected) in table {
            let field = field.as_ref();
            let seen = shown(&Challenge::parse(field));
            assert_eq!(seen, *expected, "field: {}", field.escape_ascii());
        }
    }

    #[test]
    fn the_examples_of_the_rfcs_are_read() {
        check(&[
            // RFC 9110 §11.6.1
            (
                r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#,
                r#"Basic(realm=simple) Newauth(realm=apps;type=1;title=Login to "apps")"#,
            ),
            // RFC 7235 §4.1
            (
                r#"Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple""#,
                r#"Newauth(realm=apps;type=1;title=Login to "apps") Basic(realm=simple)"#,
            ),
            // RFC 6750 §3
            (r#"Bearer realm="example""#, "Bearer(realm=example)"),
            (
                r#"Bearer realm="example", error="invalid_token", error_description="The access token expired""#,
                "Bearer(realm=example;error=invalid_token;error_description=The access token expired)",
            ),
            // RFC 9470 §3
            (
                r#"Bearer error="insufficient_user_authentication", error_description="A different authentication level is required", acr_values="myACR""#,
                "Bearer(error=insufficient_user_authentication;error_description=A different authentication level is required;acr_values=myACR)",
            ),
            // RFC 9449 §7.1
            (
                r#"DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof""#,
                "DPoP(error=use_dpop_nonce;error_description=Resource server requires nonce in DPoP proof)",
            ),
            // RFC 9728 §5.1
            (
                r#"Bearer resource_metadata="https://resource.example.com/.well-known/oauth-protected-resource""#,
                "Bearer(resource_metadata=https://resource.example.com/.well-known/oauth-protected-resource)",
            ),
            // RFC 7616 §3.9.1
            (
                r#"Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256, nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v""#,
                "Digest(realm=http-auth@example.org;qop=auth, auth-int;algorithm=SHA-256;nonce=7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v)",
            ),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn whatever_the_grammar_allows_is_read() {
        check(&[
            // Nothing at all, and lists of nothing.
            ("", ""),
            (" \t ", ""),
            (",", ""),
            (" , ,\t,, ", ""),
            // Schemes alone, and empty members around them.
            ("Bearer", "Bearer"),
            ("  Bearer  ", "Bearer"),
            ("Bearer, Basic", "Bearer Basic"),
            (r#"Bearer, Basic realm="x""#, "Bearer Basic(realm=x)"),
            (r#"Basic realm="x", Bearer"#, "Basic(realm=x) Bearer"),
            (",, Bearer,, ,Basic ,", "Bearer Basic"),
            (r#", Bearer error="x",, , scope="y",,"#, "Bearer(error=x;scope=y)"),
            ("Bearer ,error=x", "Bearer(error=x)"),
            // Unquoted values, and any case.
            ("Bearer error=invalid_token", "Bearer(error=invalid_token)"),
            ("Bearer error=a,scope=b,realm=c", "Bearer(error=a;scope=b;realm=c)"),
            ("bEARER ERROR=X", "bEARER(ERROR=X)"),
            ("!#$%&'*+-.^_`|~ a!=b~", "!#$%&'*+-.^_`|~(a!=b~)"),
            // Bad white space, and more than one space.
            (r#"Bearer error = "x" , scope= y,realm =z"#, "Bearer(error=x;scope=y;realm=z)"),
            ("Bearer\terror\t=\tx\t,\tscope=y", "Bearer(error=x;scope=y)"),
            ("Bearer    error=x", "Bearer(error=x)"),
            ("Bearer realm= \t\"a, b\", error=x", "Bearer(realm=a, b;error=x)"),
            // Quoted-strings.
            (r#"Bearer realm="""#, "Bearer(realm=)"),
            (r#"Bearer realm="a,b", error="c""#, "Bearer(realm=a,b;error=c)"),
            (r#"Bearer realm="x, Basic realm=y""#, "Bearer(realm=x, Basic realm=y)"),
            (r#"Bearer realm="a\"b", error=c"#, r#"Bearer(realm=a"b;error=c)"#),
            (r#"Bearer realm="a\", Basic b=\"c", error=d"#, r#"Bearer(realm=a", Basic b="c;error=d)"#),
            (r#"Bearer realm="a\\", error="b""#, r"Bearer(realm=a\;error=b)"),
            (r#"Bearer realm="\a\,\ \=""#, "Bearer(realm=a, =)"),
            (r#"Bearer realm="a=b", error="c=""#, "Bearer(realm=a=b;error=c=)"),
            ("Bearer realm=\" a\tb \"", "Bearer(realm= a\tb )"),
            (r#"Bearer realm="ünïcode", error="x""#, "Bearer(realm=ünïcode;error=x)"),
            (r#"Bearer realm="\ü\"""#, "Bearer(realm=ü\")"),
            // Token68, with a Bearer challenge behind it.
            ("Negotiate YIIabc==", "Negotiate<YIIabc==>"),
            ("Negotiate YIIabc", "Negotiate<YIIabc>"),
            ("Negotiate a-._~+/Z9=", "Negotiate<a-._~+/Z9=>"),
            ("Negotiate abc====", "Negotiate<abc====>"),
            (r#"Negotiate YIIabc==, Bearer error="invalid_token""#, "Negotiate<YIIabc==> Bearer(error=invalid_token)"),
            (r#"Negotiate YIIabc=, Bearer error="invalid_token""#, "Negotiate<YIIabc=> Bearer(error=invalid_token)"),
            (r#"Negotiate YII , NTLM, Bearer error=x"#, "Negotiate<YII> NTLM Bearer(error=x)"),
            // Several of one scheme stay apart.
            (r#"Bearer realm="a", Bearer error="x""#, "Bearer(realm=a) Bearer(error=x)"),
            // A scheme may be called like a parameter.
            ("error, realm=a, error realm=b", "error(realm=a) error(realm=b)"),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_parameter_that_cannot_be_read_costs_only_itself() {
        check(&[
            (r#"Bearer realm=a b, error="x""#, "Bearer(error=x)"),
            (r#"Bearer realm=a b, Basic realm="x""#, "Bearer Basic(realm=x)"),
            (r#"Bearer realm="a" b, error="x""#, "Bearer(error=x)"),
            (r#"Bearer realm="a"b, error="x""#, "Bearer(error=x)"),
            (r#"Bearer realm="a" error="b", scope="c""#, "Bearer(scope=c)"),
            (r#"Bearer realm="a""b", error="x""#, "Bearer(error=x)"),
            (r#"Bearer realm="a" "b, c", error="x""#, "Bearer"),
            ("Bearer realm=https://a.example/b?c=d, error=x", "Bearer(error=x)"),
            (r#"Bearer realm=a"b, error=x"#, "Bearer(error=x)"),
            (r#"Bearer error="x", realm=a"b, scope=c"#, "Bearer(error=x;scope=c)"),
            ("Bearer realm=ü, error=x", "Bearer(error=x)"),
            ("Bearer realm==, error=x", "Bearer<realm==>(error=x)"),
            ("Bearer realm=a=b, error=x", "Bearer(error=x)"),
            ("Bearer realm, error=x", "Bearer<realm>(error=x)"),
            ("Bearer a b c, error=x", "Bearer(error=x)"),
            ("Bearer @, error=x", "Bearer(error=x)"),
            ("Bearer (comment), error=x", "Bearer(error=x)"),
            ("Bearer realm=\"a\0b\", error=x", "Bearer(error=x)"),
            ("Bearer realm=\"a\\\nb\", error=x", "Bearer(error=x)"),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn an_empty_value_without_quotes_is_empty_where_it_is_no_token68() {
        check(&[
            ("Bearer error=x, realm=", "Bearer(error=x;realm=)"),
            ("Bearer error=x, realm= , scope=y", "Bearer(error=x;realm=;scope=y)"),
            ("Bearer realm =, error=x", "Bearer(realm=;error=x)"),
            ("Bearer realm=, error=x", "Bearer(realm=;error=x)"),
            ("Bearer realm=, Basic realm=x", "Bearer<realm=> Basic(realm=x)"),
            ("Bearer realm=", "Bearer<realm=>"),
            ("Bearer a/b=, error=x", "Bearer<a/b=>(error=x)"),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_member_that_cannot_be_read_keeps_its_parameters_from_the_challenge_before() {
        check(&[
            (r#"Bearer realm="a", <Foo> bar, error="x""#, "Bearer(realm=a)"),
            (r#"Bearer realm="a", Föö bar, error="x", Basic realm=b"#, "Bearer(realm=a) Basic(realm=b)"),
            (r#"error="x", Bearer realm="a""#, "Bearer(realm=a)"),
            (r#"="x", Bearer realm="a""#, "Bearer(realm=a)"),
            (r#"Bearer realm="a", ="x", error=y"#, "Bearer(realm=a)"),
            (r#"{"error":"x"}, Bearer realm="a""#, "Bearer(realm=a)"),
            (r#"Bearer="x", error=y"#, ""),
            (r#"Bearer: error="x", scope=y"#, ""),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn a_stray_quote_does_not_hide_the_bearer_challenge_behind_it() {
        check(&[
            (r#"Foo bar"baz, Bearer error="x""#, "Foo Bearer(error=x)"),
            (r#"", Bearer error="x""#, "Bearer(error=x)"),
            (r#"Foo "a, Bearer error="x""#, "Foo Bearer(error=x)"),
            (r#"Foo a=b", Bearer error="x""#, "Foo Bearer(error=x)"),
            (r#"Foo a="b"", Bearer error="x""#, "Foo Bearer(error=x)"),
            (r#"Foo a\"b, Bearer error="x""#, "Foo Bearer(error=x)"),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn nothing_behind_an_unclosed_quote_is_taken_for_a_challenge() {
        check(&[
            (r#"Bearer error="invalid_tok"#, "Bearer"),
            (r#"Bearer error=""#, "Bearer"),
            (r#"Bearer error="x\"#, "Bearer"),
            (r#"Bearer error="x\""#, "Bearer"),
            (r#"Bearer error="x", error_description="The tok"#, "Bearer(error=x)"),
            (r#"Basic realm="x, Bearer error=y"#, "Basic"),
            (r#"Basic realm="x, Bearer error="y""#, "Basic"),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn of_a_parameter_given_twice_the_first_counts() {
        check(&[
            ("Bearer error=a, error=b", "Bearer(error=a)"),
            ("Bearer error=a, ERROR=b, Error=c, scope=d", "Bearer(error=a;scope=d)"),
            (r#"Bearer error="", error=b"#, "Bearer(error=)"),
            ("Bearer error=a b, error=c", "Bearer(error=c)"),
            ("Bearer error=a, Bearer error=b", "Bearer(error=a) Bearer(error=b)"),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn bytes_of_a_value_that_are_not_utf_8_are_replaced() {
        check(&[
            (&b"Bearer realm=\"caf\xe9\", error=x"[..], "Bearer(realm=caf\u{fffd};error=x)"),
            (&b"Bearer realm=\"\xff\\\xfe\", error=x"[..], "Bearer(realm=\u{fffd}\u{fffd};error=x)"),
            (&b"Bearer realm=caf\xe9, error=x"[..], "Bearer(error=x)"),
            (&b"\xff\xfe, Bearer error=x"[..], "Bearer(error=x)"),
        ]);
    }

    fn headers(fields: &[&[u8]]) -> HeaderMap {
        let value = |field: &&[u8]| HeaderValue::from_bytes(field).unwrap();
        let fields = fields.iter().map(|field| (WWW_AUTHENTICATE, value(field)));
        fields.collect()
    }

    #[test]
    #[rustfmt::skip]
    fn several_fields_are_one_list() {
        let table: &[(&[&[u8]], &str)] = &[
            (&[], ""),
            (&[b""], ""),
            (&[b"Bearer error=x", b"Basic realm=y"], "Bearer(error=x) Basic(realm=y)"),
            (&[b"Negotiate", b"NTLM, Bearer", b"Basic"], "Negotiate NTLM Bearer Basic"),
            (&[b"Bearer realm=a", b"error=b"], "Bearer(realm=a;error=b)"),
            (&[b"Bearer realm=a", b"", b"error=b"], "Bearer(realm=a;error=b)"),
            (&[b"<Foo> bar", b"error=b", b"Bearer"], "Bearer"),
            (&[b"Basic realm=\"x", b"Bearer error=\"y\""], "Basic Bearer(error=y)"),
            (&[b"Basic realm=\"x\\", b"Bearer error=\"y\""], "Basic Bearer(error=y)"),
            (&[b"\xff\"=\"", b"Bearer error=\"y\""], "Bearer(error=y)"),
        ];
        for (fields, expected) in table {
            let all = Challenge::parse_all(&headers(fields));
            assert_eq!(shown(&all), *expected, "fields: {fields:?}");
        }
        let mut other = headers(&[b"Bearer"]);
        other.insert("proxy-authenticate", HeaderValue::from_static("Basic"));
        assert_eq!(shown(&Challenge::parse_all(&other)), "Bearer");
    }

    #[test]
    fn a_challenge_answers_in_any_case() {
        let all = Challenge::parse(br#"bearer Error="invalid_token", SCOPE="a b", rEALM=c, x=y"#);
        let [bearer] = &all[..] else { panic!("{all:?}") };
        assert!(bearer.is_scheme("Bearer") && !bearer.is_scheme("Basic") && !bearer.is_none());
        assert_eq!(bearer.scheme(), "bearer");
        assert_eq!(bearer.error(), Some("invalid_token"));
        assert_eq!(bearer.scope(), Some("a b"));
        assert_eq!(bearer.realm(), Some("c"));
        assert_eq!(bearer.param("X"), Some("y"));
        assert_eq!(bearer.param("y"), None);
        assert_eq!(bearer.token68(), None);
    }

    #[test]
    fn none_is_no_challenge() {
        let none = Challenge::none();
        assert!(none.is_none() && none == Challenge::default());
        assert_eq!((none.scheme(), none.error(), none.token68()), ("", None, None));
        assert!(!none.is_scheme("Bearer"));
        assert_eq!(none.params().count(), 0);
        assert_eq!(format!("{none:?}"), r#"Challenge { scheme: "" }"#);
    }

    #[test]
    #[rustfmt::skip]
    fn debug_shows_names_and_codes_and_nothing_else() {
        let table = [
            (r#"Bearer realm="s3cret", error="invalid_token", scope=s3cret"#, r#"Challenge { scheme: "Bearer", realm: …, error: "invalid_token", scope: … }"#),
            ("Negotiate s3cret==", r#"Challenge { scheme: "Negotiate", token68: … }"#),
            ("Bearer error=eyJhbGciOi", r#"Challenge { scheme: "Bearer", error: … }"#),
            (r#"Bearer error="s3 cret""#, r#"Challenge { scheme: "Bearer", error: … }"#),
            ("Bearer ERROR=use_dpop_nonce", r#"Challenge { scheme: "Bearer", ERROR: "use_dpop_nonce" }"#),
            // A token echoed without anything around it stands where a scheme would.
            ("s3cret.s3cret.s3cret", "Challenge { scheme: … }"),
            ("Bearer s3cret.s3cret = a", r#"Challenge { scheme: "Bearer", …: … }"#),
            ("s3cret-s3cret-s3cret-s3cret", "Challenge { scheme: … }"),
        ];
        for (field, expected) in table {
            let all = Challenge::parse(field.as_bytes());
            assert_eq!(format!("{:?}", all[0]), expected, "field: {field}");
            assert!(!format!("{all:#?}").contains("s3"), "field: {field}");
        }
        let unregistered = Challenge::parse(b"Bearer error=test-token");
        assert!(!format!("{unregistered:?}").contains("test-token"));
    }

    #[test]
    fn the_first_32_challenges_are_kept_and_the_first_64_parameters() {
        let fields = ["Bearer a=b,"; 100].concat();
        let all = Challenge::parse(fields.as_bytes());
        assert_eq!(all.len(), 32);
        // A parameter of a challenge that was not kept belongs to none that was.
        let all = Challenge::parse((fields + "error=x").as_bytes());
        assert!(all.iter().all(|challenge| challenge.error().is_none()));
        let all = Challenge::parse_all(&headers(&[b"Bearer".as_slice(); 100]));
        assert_eq!(all.len(), 32);

        let params: String = (0..100).map(|i| format!("p{i}=v,")).collect();
        let all = Challenge::parse(format!("Foo {params} Bearer error=x").as_bytes());
        assert_eq!(all[0].params().count(), 64);
        assert_eq!(all[0].param("p63"), Some("v"));
        assert_eq!(all[1].error(), Some("x"));
        let all = Challenge::parse(format!("Foo p=, {params}").as_bytes());
        assert_eq!(all[0].params().count(), 64);
    }

    /// Fields of about `size` bytes that make a parser which looks back or ahead slow.
    #[rustfmt::skip]
    fn hostile(size: usize) -> impl Iterator<Item = Vec<u8>> {
        let pieces: &[&[u8]] = &[
            b",",
            b" ",
            b"\"",
            b"\\",
            b"=",
            b"=\"",
            b"\"\\",
            b"a",
            b"a ",
            b"a,",
            b"a=",
            b"a=,",
            b"a=\"",
            b"a=\"b\"",
            b"a=\"b\",",
            b"a=\"\\\"",
            b"a b,",
            b"a b=,",
            b"a b==",
            b"\xff",
            b"a =\"b,",
            b"=\",\"",
            b"a=\" ,",
            b"Bearer error=x,",
            b"a=b,",
            b"\x80=\xff\",",
        ];
        let starts: &[&[u8]] = &[b"", b"Bearer ", b"Bearer a=\"", b"Bearer realm=, "];
        starts.iter().flat_map(move |start| {
            let field = move |piece: &&[u8]| [start, &*piece.repeat(size / piece.len())].concat();
            pieces.iter().map(field)
        })
    }

    #[test]
    fn each_byte_is_in_one_member_and_is_kept_once_at_most() {
        for field in hostile(1 << 18) {
            // Members do not overlap: with a comma between any two they are the whole field.
            let (count, bytes) = members(&field).fold((0, 0), |(n, len), m| (n + 1, len + m.len()));
            assert_eq!(bytes + count - 1, field.len());

            // U+FFFD takes three bytes in the place of one.
            let all = Challenge::parse(&field);
            let params = |c: &Challenge| c.params().map(|(n, v)| n.len() + v.len()).sum::<usize>();
            let size = |c: &Challenge| c.scheme.len() + c.token68().map_or(0, str::len) + params(c);
            assert!(all.iter().map(size).sum::<usize>() <= 3 * field.len());
            assert!(all.len() <= MAX_CHALLENGES);
            assert!(all.iter().all(|challenge| challenge.params.len() <= MAX_PARAMS));
        }
    }

    #[test]
    fn every_short_field_of_telling_bytes_is_read_without_a_panic() {
        let alphabet = b"a=,\"\\ \xff";
        let mut fields = vec![Vec::new()];
        for _ in 0..6 {
            let longer = |field: &Vec<u8>| alphabet.map(|byte| [&field[..], &[byte]].concat());
            fields = fields.iter().flat_map(longer).collect();
            for field in &fields {
                for challenge in Challenge::parse(&[b"Bearer ", &field[..]].concat()) {
                    assert!(!challenge.is_none());
                }
                Challenge::parse(field);
            }
        }
    }
}
