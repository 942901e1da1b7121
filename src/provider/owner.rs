//! Whose tokens a strategy brings, in one line: [`Owner`].

use std::fmt::Write;

use crate::percent;

/// `oauth2.refresh_token https://login.example.com/token client_id=my-app scope=read%20write`: what
/// [`TokenProvider::owner`](super::TokenProvider::owner) says. It stands in stores, so that another form of it would
/// make all that is kept somebody else's.
pub(super) struct Owner(String);

impl Owner {
    /// This kind of provider at this address.
    pub(super) fn of(kind: &str, url: &str) -> Self {
        Self(format!("{kind} {}", address(url)))
    }

    /// What somebody calls it, wherever it is.
    #[cfg(feature = "endpoint")]
    pub(super) fn named(kind: &str, name: &str) -> Self {
        Self(kind.to_owned()).and("owner", name)
    }

    /// What else tells one account from another; nothing where `value` is empty.
    pub(super) fn and(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(self.0, " {name}={}", percent::encoded(value));
        }
        self
    }

    /// The same for words whose order says nothing.
    pub(super) fn and_words<'a>(self, name: &str, words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words: Vec<_> = words.into_iter().collect();
        words.sort_unstable();
        words.dedup();
        self.and(name, &words.join(" "))
    }

    pub(super) fn into_line(self) -> String {
        self.0
    }
}

/// Where it is, without what may be a secret: no user and password, no query.
fn address(url: &str) -> String {
    let place = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(usual).unwrap_or(&host);
    let mut address = format!("{scheme}://{host}{path}");
    address.retain(|one| !one.is_whitespace() && !one.is_control());
    address
}

/// Whether a parameter of that name says whose token it is, and is no secret: `appid`, `role_id`, `tenant`.
pub(super) fn is_account(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let secret = ["secret", "token", "session", "key", "code", "password", "nonce"];
    (name.ends_with("id") || ACCOUNTS.contains(&name.as_str())) && !secret.iter().any(|word| name.contains(word))
}

const ACCOUNTS: [&str; 11] = [
    "account",
    "audience",
    "domain",
    "organization",
    "project",
    "realm",
    "resource",
    "scope",
    "tenant",
    "user",
    "username",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_and_no_more() {
        for (url, plain) in [
            (
                "https://user:test-pw@Login.Example.com:443/Token?key=test-k#f",
                "https://login.example.com/Token",
            ),
            ("HTTP://127.0.0.1:80/", "http://127.0.0.1"),
            ("https://a.example:8443/t/", "https://a.example:8443/t"),
            ("https://a.example/{id}/\nx y", "https://a.example/{id}/xy"),
            ("", "://"),
        ] {
            assert_eq!(address(url), plain, "{url}");
        }
    }

    #[test]
    fn names_of_accounts_are_known_and_secrets_are_not_among_them() {
        for name in ["appid", "client_id", "Tenant", "role_id", "installation_id", "scope"] {
            assert!(is_account(name), "{name}");
        }
        for name in [
            "secret_id",
            "session_id",
            "access_key_id",
            "jwt",
            "password",
            "code",
            "secret",
        ] {
            assert!(!is_account(name), "{name}");
        }
    }

    #[test]
    fn it_is_one_line_whatever_stands_in_it() {
        let owner = Owner::of("k", "https://a.example")
            .and("id", "a b\nc=é")
            .and("none", "");
        let owner = owner.and_words("scope", ["b", "a", "b"]).into_line();
        assert_eq!(owner, "k https://a.example id=a%20b%0Ac%3D%C3%A9 scope=a%20b");
    }
}
