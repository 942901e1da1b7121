//! `WWW-Authenticate` is read as RFC 9110 §11.6.1 has it, and no bytes do harm: properties
//! over generated fields, and a comparison with the `http-auth` crate.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tower_token::Challenge;

/// A challenge in plain data.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    scheme: String,
    token68: Option<String>,
    params: Vec<(String, String)>,
}

impl From<&Challenge> for Plain {
    fn from(challenge: &Challenge) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            scheme: challenge.scheme().to_owned(),
            token68: challenge.token68().map(str::to_owned),
            params: challenge.params().map(owned).collect(),
        }
    }
}

fn parse(field: &[u8]) -> Vec<Plain> {
    Challenge::parse(field).iter().map(Plain::from).collect()
}

/// What `http-auth` reads, if it reads the field at all; of equal names the first.
fn http_auth(field: &str) -> Option<Vec<Plain>> {
    let plain = |challenge: http_auth::ChallengeRef<'_>| {
        let mut params: Vec<(String, String)> = Vec::new();
        for (name, value) in challenge.params {
            if !params.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
                params.push((name.to_owned(), value.to_unescaped()));
            }
        }
        Plain {
            scheme: challenge.scheme.to_owned(),
            token68: None,
            params,
        }
    };
    let all = http_auth::parse_challenges(field).ok()?;
    Some(all.into_iter().map(plain).collect())
}

// ===== Generated fields =====

/// How a challenge is written; every choice is one that the grammar leaves open.
#[derive(Clone, Debug)]
struct Ink {
    equals: &'static str,
    comma: &'static str,
    spaces: &'static str,
    /// Quote where a token would do, and escape where nothing has to be.
    lavish: bool,
}

/// `strict` keeps to one space after the scheme, all that `http-auth` takes.
fn ink(strict: bool) -> impl Strategy<Value = Ink> {
    let spaces: &[&str] = if strict { &[" "] } else { &[" ", "  ", "    "] };
    (
        select(&["=", " =", "= ", "\t=  "][..]),
        select(&[",", ", ", " ,", "\t,\t", ",,", ", , "][..]),
        select(spaces.to_vec()),
        any::<bool>(),
    )
        .prop_map(|(equals, comma, spaces, lavish)| Ink {
            equals,
            comma,
            spaces,
            lavish,
        })
}

fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}"
}

/// `text` is a regular expression for the values.
fn challenge(text: &'static str, token68: bool) -> impl Strategy<Value = Plain> {
    let value = prop_oneof![token(), text];
    let params = vec((token(), value), 0..5).prop_map(|mut params: Vec<(String, String)>| {
        params.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        params.dedup_by(|(a, _), (b, _)| a.eq_ignore_ascii_case(b));
        (None, params)
    });
    let token68 = if token68 { 1 } else { 0 };
    let content = prop_oneof![
        4 => params,
        token68 => "[A-Za-z0-9._~+/-]{1,12}={0,3}".prop_map(|token68| (Some(token68), vec![])),
    ];
    (token(), content).prop_map(|(scheme, (token68, params))| Plain {
        scheme,
        token68,
        params,
    })
}

fn render(challenges: &[Plain], ink: &Ink) -> String {
    let is_token = |value: &str| {
        let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !value.is_empty() && value.bytes().all(tchar)
    };
    let render_value = |value: &str| {
        if is_token(value) && !ink.lavish {
            return value.to_owned();
        }
        let escaped = value.chars().map(|c| {
            let must = matches!(c, '"' | '\\');
            let may = ink.lavish && matches!(c, ' '..='~') && !c.is_ascii_lowercase();
            if must || may { format!("\\{c}") } else { c.to_string() }
        });
        format!("\"{}\"", escaped.collect::<String>())
    };
    let render_one = |challenge: &Plain| {
        let params = challenge.params.iter();
        let params: Vec<_> = params
            .map(|(name, value)| format!("{name}{}{}", ink.equals, render_value(value)))
            .chain(challenge.token68.clone())
            .collect();
        match &params[..] {
            [] => challenge.scheme.clone(),
            params => challenge.scheme.clone() + ink.spaces + &params.join(ink.comma),
        }
    };
    let challenges: Vec<_> = challenges.iter().map(render_one).collect();
    challenges.join(ink.comma)
}

/// Pieces that mean something to the grammar, in any order.
fn soup() -> impl Strategy<Value = String> {
    let pieces = [
        "Bearer",
        "Basic",
        "a",
        "error",
        "=",
        "=",
        "\"",
        "\\",
        ",",
        ", ",
        " ",
        "\t",
        "abc==",
        "\"x, y\"",
        "\"\\\"\"",
        "=b",
        "=\"c\"",
        ", d=\"e\"",
        ", Bearer f=g",
        "é",
        "@",
    ];
    vec(select(pieces.to_vec()), 0..24).prop_map(|pieces| pieces.concat())
}

/// Any byte, more often one that means something to the grammar.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), select(b"a=,\"\\ \t\xff".to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(2000)
    })]

    #[test]
    fn no_bytes_panic(field in vec(byte(), 0..200)) {
        for challenge in Challenge::parse(&field) {
            prop_assert!(!challenge.is_none());
            let shown = format!("{challenge:?}");
            prop_assert!(shown.starts_with("Challenge"));
        }
    }

    #[test]
    fn no_soup_panics_and_http_auth_agrees_where_it_reads_it(field in soup()) {
        let read = parse(field.as_bytes());
        if let Some(expected) = http_auth(&field) {
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn what_is_written_by_the_grammar_is_read_back(
        challenges in vec(challenge("[\t\\PC]{0,12}", true), 0..8),
        ink in ink(false),
    ) {
        let field = render(&challenges, &ink);
        prop_assert_eq!(parse(field.as_bytes()), challenges, "field: {}", field);
    }

    #[test]
    fn http_auth_reads_the_same_from_ascii_without_token68(
        challenges in vec(challenge("[\t -~]{0,12}", false), 1..8),
        ink in ink(true),
    ) {
        let field = render(&challenges, &ink);
        prop_assert_eq!(http_auth(&field), Some(parse(field.as_bytes())), "field: {}", field);
    }

    #[test]
    fn a_field_cut_between_any_two_members_is_the_same_list(
        challenges in vec(challenge("[a-z \"\\\\]{0,6}", true), 1..6),
        ink in ink(false),
    ) {
        // No value holds a comma, so every one of them ends a member.
        let field = render(&challenges, &ink);
        let lines = field.split(',').map(|line| HeaderValue::from_str(line).unwrap());
        let headers: HeaderMap = lines.map(|line| (WWW_AUTHENTICATE, line)).collect();
        let all: Vec<_> = Challenge::parse_all(&headers).iter().map(Plain::from).collect();
        prop_assert_eq!(all, challenges, "field: {}", field);
    }

    #[test]
    fn a_bearer_challenge_behind_anything_without_quotes_is_read(
        before in vec(byte().prop_map(|byte| if byte == b'"' { b',' } else { byte }), 0..60),
    ) {
        let field = [&before[..], b", Bearer error=\"invalid_token\""].concat();
        let all = Challenge::parse(&field);
        let last = all.last().unwrap();
        prop_assert!(last.is_scheme("Bearer") && last.error() == Some("invalid_token"));
    }

    #[test]
    fn a_bearer_challenge_in_a_field_behind_any_field_is_read(before in soup()) {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(before.as_bytes()).unwrap());
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=invalid_token"));
        let all = Challenge::parse_all(&headers);
        let last = all.last().unwrap();
        prop_assert!(last.is_scheme("Bearer") && last.error() == Some("invalid_token"));
    }
}

// ===== Chosen fields =====

#[test]
fn http_auth_agrees_on_common_fields() {
    for field in [
        "Bearer",
        "Bearer, Basic realm=\"x\"",
        "Bearer error=invalid_token",
        r#"Bearer realm="example", error="invalid_token", error_description="The token expired""#,
        r#"Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple""#,
        r#"Basic realm="a, Bearer error=b", Bearer error="c""#,
        r#",, Bearer error = "a" ,, scope="b",,"#,
        r#"Bearer authorization_uri="https://login.example.com/authorize", claims="eyJhY2Nlc3M=""#,
    ] {
        let expected = http_auth(field).expect(field);
        assert_eq!(parse(field.as_bytes()), expected, "field: {field}");
    }
}

/// Fields whose Bearer challenge `http-auth` 0.1.10 does not deliver: its reading of the whole
/// field fails, and its iterator ends at the first error. The first eight are within the
/// grammar.
#[test]
fn a_bearer_challenge_that_http_auth_loses_is_read() {
    for field in [
        r#"Negotiate YIIabc==, Bearer error="invalid_token""#,
        r#"Negotiate YIIabc=, Bearer error="invalid_token""#,
        r#"Negotiate YIIabc, Bearer error="invalid_token""#,
        r#"Negotiate a/b+c, Bearer error="invalid_token""#,
        r#"Basic realm="Büro", Bearer error="invalid_token""#,
        r#"Bearer realm="Büro", error="invalid_token""#,
        r#"Basic realm="\ü", Bearer error="invalid_token""#,
        r#"Bearer  error="invalid_token""#,
        r#"Basic realm=, Bearer error="invalid_token""#,
        r#"Bearer realm=, error="invalid_token""#,
        r#"Basic realm=a b, Bearer error="invalid_token""#,
        r#"Bearer realm=a b, error="invalid_token""#,
        r#"Basic realm=https://a.example/, Bearer error="invalid_token""#,
        r#"Basic @, Bearer error="invalid_token""#,
        r#"<Basic>, Bearer error="invalid_token""#,
        r#"realm="a", Bearer error="invalid_token""#,
    ] {
        let parser = http_auth::parser::ChallengeParser::new(field);
        let error = |c: &http_auth::ChallengeRef<'_>| c.params.iter().any(|(n, _)| *n == "error");
        let lost = !parser.flatten().any(|challenge| error(&challenge));
        assert!(lost && http_auth(field).is_none(), "http-auth reads it: {field}");

        let all = Challenge::parse(field.as_bytes());
        let bearer = all.iter().find(|c| c.is_scheme("Bearer")).expect(field);
        assert_eq!(bearer.error(), Some("invalid_token"), "field: {field}");
    }
}
