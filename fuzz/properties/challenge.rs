//! `WWW-Authenticate`: any bytes.

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use tower_token::Challenge;

pub(crate) fn hold(field: &[u8]) {
    let all = Challenge::parse(field);
    assert!(all.len() <= 32);
    // U+FFFD takes three bytes in the place of one.
    assert!(all.iter().map(size).sum::<usize>() <= 3 * field.len());
    for challenge in &all {
        is_sound(challenge);
    }
    assert_eq!(Challenge::parse(written(&all, str::to_owned).as_bytes()), all);
    assert_eq!(format!("{:?}", without_values(&all)), format!("{all:?}"));
    if let Ok(value) = HeaderValue::from_bytes(field) {
        assert_eq!(
            Challenge::parse_all(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)])),
            all
        );
    }
}

fn size(challenge: &Challenge) -> usize {
    let params: usize = challenge.params().map(|(name, value)| name.len() + value.len()).sum();
    challenge.scheme().len() + challenge.token68().map_or(0, str::len) + params
}

fn is_sound(challenge: &Challenge) {
    assert!(!challenge.is_none() && challenge.is_scheme(challenge.scheme()));
    assert!(challenge.params().count() <= 64);
    for (name, value) in challenge.params() {
        assert!(!name.is_empty());
        // Each name once, in any case.
        assert_eq!(challenge.param(&name.to_ascii_uppercase()), Some(value));
        assert!(!value.contains(|c: char| c.is_ascii_control() && c != '\t'));
    }
}

/// What `Debug` shows must not depend on what is left out here.
fn without_values(all: &[Challenge]) -> Vec<Challenge> {
    Challenge::parse(written(all, |_| "x".to_owned()).as_bytes())
}

/// The challenges as a server would have written them, every value but a registered error code changed.
fn written(all: &[Challenge], change: impl Fn(&str) -> String) -> String {
    let one = |challenge: &Challenge| {
        let mut text = challenge.scheme().to_owned();
        let mut separator = "";
        if let Some(token68) = challenge.token68() {
            text += &format!(" {}", change(token68));
            separator = ",";
        }
        for (name, value) in challenge.params() {
            let is_code = name.eq_ignore_ascii_case("error") && REGISTERED.contains(&value);
            let value = if is_code { value.to_owned() } else { change(value) };
            let quoted = value.replace('\\', r"\\").replace('"', r#"\""#);
            text += &format!(r#"{separator} {name}="{quoted}""#);
            separator = ",";
        }
        text
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

const REGISTERED: [&str; 7] = [
    "invalid_request",
    "invalid_token",
    "insufficient_scope",
    "insufficient_user_authentication",
    "insufficient_claims",
    "use_dpop_nonce",
    "invalid_dpop_proof",
];
