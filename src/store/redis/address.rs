//! Where the server is and who we are to it: a URL, taken apart.

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

/// A URL of the form [`FORM`], taken apart.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) secure: bool,
    /// The name, the password and the database. Its `Debug` hides the password.
    pub(super) login: RedisConnectionInfo,
}

impl Address {
    /// Or what to write instead, which quotes nothing: a password may be anywhere in what was written.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
        let secure = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err("has to begin with redis:// or rediss:// (TLS)"),
        };
        if rest.contains(['?', '#']) {
            return Err(
                "has a query or a fragment, which mean nothing here; in a password write %3F for ? and %23 for #",
            );
        }
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database: u32 = match database {
            "" => 0,
            number => number.parse().map_err(|_| DATABASE)?,
        };
        let host = authority.rsplit('@').next().unwrap_or_default();
        if host.is_empty() || host.starts_with(':') {
            return Err("names no host; write redis://host:6379");
        }
        let parsed = format!("redis://{authority}")
            .into_connection_info()
            .map_err(|_| FORM)?;
        let ConnectionAddr::Tcp(host, port) = parsed.addr().clone() else {
            return Err(FORM);
        };
        let login = parsed.redis_settings().clone();
        Ok(Self {
            host,
            port,
            secure,
            // What is published comes over the same connection, which takes the third version of the protocol. What
            // library this is is not said: an ACL would have to allow it.
            login: login
                .set_db(database.into())
                .set_protocol(ProtocolVersion::RESP3)
                .set_skip_set_lib_name(),
        })
    }
}

const FORM: &str = "has to be redis://user:password@host:port/database, or rediss:// for TLS, where all but the host may \
                    be missing; what is special in a URL is percent-encoded in the password";

const DATABASE: &str =
    "has to end with the number of a database, as in redis://host:6379/0; in a password write %2F for /";

/// What is wrong with a key's name, if anything is.
pub(super) fn flaw(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        Some("is empty; write a name that no other token has, such as tt:my-app")
    } else if key.len() > LONGEST_KEY {
        Some("is longer than 200 bytes")
    } else if key.contains(['{', '}']) {
        Some("holds a brace; the braces that keep the keys in one slot of a cluster are put around it")
    } else if key
        .chars()
        .any(|letter| letter.is_control() || letter.is_whitespace() || "*?[]\\".contains(letter))
    {
        Some("holds a space, a control character or one of * ? [ ] \\, which have a meaning of their own in an ACL")
    } else {
        None
    }
}

const LONGEST_KEY: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let full = Address::parse("rediss://me:p%40ss@[::1]:7000/3").ok().unwrap();
        assert!(full.secure);
        assert_eq!((full.host.as_str(), full.port, full.login.db()), ("::1", 7000, 3));
        assert_eq!(
            (full.login.username(), full.login.password()),
            (Some("me"), Some("p@ss"))
        );

        let short = Address::parse("redis://cache").ok().unwrap();
        assert_eq!((short.host.as_str(), short.port, short.login.db()), ("cache", 6379, 0));
        assert!(!short.secure && short.login.password().is_none());
        assert!(Address::parse("redis://cache/").is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_and_never_quoted() {
        for (url, advice) in [
            ("", "has to be redis://"),
            ("cache:6379", "has to be redis://"),
            ("http://:canary@cache", "has to begin with"),
            ("redis://", "names no host"),
            ("redis:///0", "names no host"),
            ("redis://:canary@:6379/0", "names no host"),
            ("redis://me:canary@/0", "names no host"),
            ("redis://:canary@cache/zero", "number of a database"),
            ("redis://:canary@cache/-1", "number of a database"),
            ("redis://:can/ary@cache", "number of a database"),
            ("redis://:can#ary@cache", "%23"),
            ("redis://:can?ary@cache", "%3F"),
            ("redis://:canary@cache:port", "has to be redis://"),
            ("redis://:canary@cache:70000", "has to be redis://"),
            ("redis://:canary@0.0.0.0", "has to be redis://"),
        ] {
            let said = Address::parse(url).err().unwrap();
            assert!(said.contains(advice), "{url}: {said}");
            assert!(!said.contains("canary") && !said.contains("ary@"), "{said}");
        }
    }

    #[test]
    fn a_key_is_what_an_acl_can_name() {
        for key in ["", "a b", "a\n", "{a}", "a*", "a?", "[a]", "a\\", &"k".repeat(201)] {
            assert!(flaw(key).is_some(), "{key}");
        }
        for key in ["tt", "tt:my-app", "tt/me@example.com", &"k".repeat(200)] {
            assert_eq!(flaw(key), None);
        }
    }
}
