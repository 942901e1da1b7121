//! Where a token may go: [`Origins`], and [`NoToken`] for a request that wants none.
//!
//! There is no silent default: whoever builds a layer names the origins. A request to any other goes
//! out without the token. Checked on every attempt.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HOST;
use http::uri::{Authority, Scheme, Uri};

use crate::error::Error;
use crate::event::WithoutToken;

/// The origins (scheme, host, port) that may see the token.
///
/// ```
/// use tower_token::Origins;
///
/// let origins = Origins::only("https://api.example.com")?.and("https://files.example.com:8443")?;
/// assert!(Origins::only("http://api.example.com").is_err()); // it would be readable on the way
/// # Ok::<(), tower_token::Error>(())
/// ```
#[derive(Clone)]
pub struct Origins {
    listed: Arc<[Origin]>,
    any_https: bool,
    peer: bool,
}

impl Origins {
    /// This origin and no other: exact scheme, host (in any case) and port.
    ///
    /// # Errors
    ///
    /// If it is no `https://host[:port]`: with a path, user or wildcard, without a scheme, or plain
    /// `http` to anything but loopback.
    pub fn only(origin: &str) -> Result<Self, Error> {
        Self::none().and(origin)
    }

    /// This origin as well.
    ///
    /// # Errors
    ///
    /// As [`only`](Self::only).
    pub fn and(mut self, origin: &str) -> Result<Self, Error> {
        let origin = Origin::parse(origin).map_err(|advice| Error::config("origins", advice))?;
        self.listed = self.listed.iter().cloned().chain([origin]).collect();
        Ok(self)
    }

    /// Every origin over https, and no other. The token goes to whatever host a URL names; mind redirects.
    pub fn any_https() -> Self {
        Self {
            any_https: true,
            ..Self::none()
        }
    }

    /// The one peer that the inner service is connected to: a tonic `Channel`, a socket.
    ///
    /// Only requests whose URL is a bare path go there with the token, and only if no `Host` header
    /// names a host; list the peer's own name with [`and`](Self::and) if requests carry one.
    pub fn connected_peer() -> Self {
        Self {
            peer: true,
            ..Self::none()
        }
    }

    /// The place where a request goes, if the token may go with it.
    #[inline(always)]
    pub(crate) fn place(&self, uri: &Uri, headers: &HeaderMap) -> Option<u64> {
        // Almost every request of almost every layer, without a call.
        if let (Some(scheme), Some(authority), Some(first)) = (uri.scheme(), uri.authority(), self.listed.first())
            && first.is_as_written(scheme, authority)
            && !has_host(headers)
        {
            return Some(first.place);
        }
        self.check(uri, headers).ok()
    }

    /// The same, or why it may not.
    #[inline(never)]
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<u64, Outside> {
        match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => self.check_authority(scheme, authority, headers),
            _ => self.check_path(uri, headers),
        }
    }

    fn check_authority(&self, scheme: &Scheme, authority: &Authority, headers: &HeaderMap) -> Result<u64, Outside> {
        let place = match self.listed.iter().find(|origin| origin.is(scheme, authority.as_str())) {
            Some(origin) => origin.place,
            None => self.unlisted(scheme, authority)?,
        };
        is_same_host(scheme, authority, headers)?;
        Ok(place)
    }

    fn unlisted(&self, scheme: &Scheme, authority: &Authority) -> Result<u64, Outside> {
        let authority = authority.as_str();
        if self.any_https && *scheme == Scheme::HTTPS && !authority.contains('@') {
            Ok(place_of(authority))
        } else {
            Err(Outside::Elsewhere(WithoutToken::Origin))
        }
    }

    fn check_path(&self, uri: &Uri, headers: &HeaderMap) -> Result<u64, Outside> {
        if !self.peer {
            return Err(match uri.authority() {
                Some(_) => Outside::Elsewhere(WithoutToken::Origin),
                None => Outside::Nowhere,
            });
        }
        if uri.authority().is_some() || uri.scheme().is_some() {
            return Err(Outside::Elsewhere(WithoutToken::Origin));
        }
        let listed = |host: &[u8]| self.listed.iter().any(|origin| origin.is_host(host));
        if headers.get_all(HOST).iter().all(|host| listed(host.as_bytes())) {
            Ok(PEER)
        } else {
            Err(Outside::Elsewhere(WithoutToken::Host))
        }
    }

    fn none() -> Self {
        Self {
            listed: Arc::new([]),
            any_https: false,
            peer: false,
        }
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origins")
            .field("listed", &self.listed)
            .field("any_https", &self.any_https)
            .field("connected_peer", &self.peer)
            .finish()
    }
}

/// In the extensions of a request: it goes out without the token, and nothing is renewed or replayed for it.
///
/// It holds as far as the extensions go. A redirect middleware above that drops them when it leaves an
/// origin (tower-http's does) drops this as well.
///
/// ```
/// let request = http::Request::get("https://api.example.com/health")
///     .extension(tower_token::NoToken)
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoToken;

/// Why the token stays here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// The request goes out without it.
    Elsewhere(WithoutToken),
    /// The request names no host at all, so nobody can say: an error.
    Nowhere,
    /// It is the very request that the token waits for: an error.
    Recursion,
}

/// A number for a URL's path at a place, to tell routes apart.
pub(crate) fn route_of(place: u64, path: &str) -> u64 {
    HASH.hash_one((place, path))
}

const PEER: u64 = 0;
const FEW: usize = 16;
const HASH: BuildHasherDefault<DefaultHasher> = BuildHasherDefault::new();

fn place_of(authority: &str) -> u64 {
    let mut hasher = HASH.build_hasher();
    authority
        .bytes()
        .for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
    hasher.finish()
}

/// `==` without a call, for texts as long as most hosts: their first and last bytes, which overlap.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    #[inline(always)]
    fn ends<const N: usize>(one: &[u8], other: &[u8]) -> Option<bool> {
        let same = one.first_chunk::<N>()? == other.first_chunk::<N>()?;
        Some(same && one.last_chunk::<N>()? == other.last_chunk::<N>()?)
    }
    one.len() == other.len()
        && match one.len() {
            8..=16 => ends::<8>(one, other) == Some(true),
            17..=32 => ends::<16>(one, other) == Some(true),
            _ => one == other,
        }
}

/// Looks at one name after the other, as long as they are few: to hash a name takes longer.
#[inline]
fn has_host(headers: &HeaderMap) -> bool {
    if headers.keys_len() > FEW {
        return headers.contains_key(&HOST);
    }
    headers.keys().any(|name| *name == HOST)
}

/// A shared front end routes by `Host`: one that differs would take the token to somebody else.
fn is_same_host(scheme: &Scheme, authority: &Authority, headers: &HeaderMap) -> Result<(), Outside> {
    let asked = without_default_port(scheme, authority.as_str().as_bytes());
    let same = |host: &[u8]| without_default_port(scheme, host).eq_ignore_ascii_case(asked);
    if headers.get_all(HOST).iter().all(|host| same(host.as_bytes())) {
        Ok(())
    } else {
        Err(Outside::Elsewhere(WithoutToken::Host))
    }
}

fn without_default_port<'a>(scheme: &Scheme, host: &'a [u8]) -> &'a [u8] {
    let port: &[u8] = if *scheme == Scheme::HTTPS { b":443" } else { b":80" };
    host.strip_suffix(port).unwrap_or(host)
}

#[derive(Clone)]
struct Origin {
    scheme: Scheme,
    is_https: bool,
    /// As URLs write it in most cases: without the port if it is the scheme's own.
    shortest: String,
    with_port: String,
    place: u64,
}

impl Origin {
    fn parse(origin: &str) -> Result<Self, String> {
        let advice = "write scheme, host and port only, as in https://api.example.com";
        if !origin.is_ascii() {
            return Err(format!("is not ASCII; {advice}, with the host in punycode (xn--...)"));
        }
        if origin.contains(['*', '#']) {
            return Err(format!(
                "holds a wildcard or a fragment; {advice}, one origin for each host"
            ));
        }
        let uri: Uri = origin.parse().map_err(|_| format!("is no URL; {advice}"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme().cloned(), uri.authority()) else {
            return Err(format!("names no scheme or no host; {advice}"));
        };
        if authority.as_str().contains('@') {
            return Err(format!("names a user; {advice}"));
        }
        if uri.path() != "/" || uri.query().is_some() || origin.ends_with('?') {
            return Err(format!(
                "has a path or a query, and a token goes to a whole origin; {advice}"
            ));
        }
        let host = authority.host().to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" if is_loopback(&host) => 80,
            "http" => return Err(format!("is plain http, where anyone can read the token; {advice}")),
            _ => return Err(format!("is neither https nor http; {advice}")),
        };
        let written = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(0) => return Err(format!("names port 0; {advice}")),
            Some(port) => port,
            None if written => return Err(format!("has a port that is none; {advice}")),
            None => default_port,
        };
        if host.is_empty() {
            return Err(format!("names no host; {advice}"));
        }
        let with_port = format!("{host}:{port}");
        Ok(Self {
            place: HASH.hash_one((scheme.as_str(), &with_port)),
            shortest: if port == default_port { host } else { with_port.clone() },
            is_https: scheme == Scheme::HTTPS,
            scheme,
            with_port,
        })
    }

    /// As almost every URL writes it: lower case, no port that goes without saying.
    #[inline(always)]
    fn is_as_written(&self, scheme: &Scheme, authority: &Authority) -> bool {
        self.is_https && scheme.as_str() == "https" && is_same(authority.as_str().as_bytes(), self.shortest.as_bytes())
    }

    fn is(&self, scheme: &Scheme, authority: &str) -> bool {
        self.is_host(authority.as_bytes()) && self.scheme == *scheme
    }

    fn is_host(&self, host: &[u8]) -> bool {
        host.eq_ignore_ascii_case(self.shortest.as_bytes()) || host.eq_ignore_ascii_case(self.with_port.as_bytes())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.with_port)
    }
}

/// `localhost`, 127.0.0.0/8 and `[::1]`: what never leaves the machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, host: &[&str]) -> http::request::Parts {
        let mut request = http::Request::get(uri);
        for host in host {
            request = request.header(HOST, *host);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn check(origins: &Origins, uri: &str, host: &[&str]) -> Result<u64, Outside> {
        let head = head(uri, host);
        origins.check(&head.uri, &head.headers)
    }

    fn goes(origins: &Origins, uri: &str) -> bool {
        check(origins, uri, &[]).is_ok()
    }

    #[test]
    fn only_the_listed_origin_gets_the_token() {
        let origins = Origins::only("https://API.example.com").unwrap();
        for uri in [
            "https://api.example.com/",
            "https://api.example.com",
            "https://API.EXAMPLE.COM/x?y",
            "HTTPS://api.example.com/",
            "https://api.example.com:443/",
        ] {
            assert!(goes(&origins, uri), "{uri}");
        }
        for uri in [
            "http://api.example.com/",
            "http://api.example.com:443/",
            "https://api.example.com:8443/",
            "https://api.example.com:80/",
            "https://api.example.com:0443/",
            "https://api.example.com./",
            "https://evil.com/",
            "https://api.example.com.evil.com/",
            "https://evil-api.example.com/",
            "https://example.com/",
            "https://api.example.com@evil.com/",
            "https://user@api.example.com/",
            "https://user:api.example.com@evil.com/",
            "https://xn--pi-7ba.example.com/",
            "https://api.example.com%2eevil.com/",
            "https://127.0.0.1/",
            "wss://api.example.com/",
        ] {
            if let Ok(parsed) = uri.parse::<Uri>() {
                assert!(!goes(&origins, &parsed.to_string()), "{uri}");
            }
        }
    }

    #[test]
    fn a_host_of_any_length_is_compared_to_its_last_byte() {
        let alphabet: Vec<u8> = (b'a'..=b'z').cycle().take(70).collect();
        for length in 0..=alphabet.len() {
            let host = &alphabet[..length];
            let equal = host.to_vec();
            assert!(is_same(host, &equal), "{length}");
            assert!(!is_same(host, &alphabet[..(length + 1) % 70]), "{length}");
            for place in 0..length {
                let mut other = host.to_vec();
                other[place] ^= 1;
                assert!(!is_same(host, &other) && !is_same(&other, host), "{length}, {place}");
            }
        }
    }

    #[test]
    fn a_foreign_host_header_keeps_the_token_here() {
        let origins = Origins::only("https://api.example.com").unwrap();
        let to = |host: &[&str]| check(&origins, "https://api.example.com/", host).is_ok();
        assert!(to(&[]) && to(&["api.example.com"]) && to(&["API.example.com:443"]));
        let both = origins.clone().and("https://files.example.com").unwrap();
        let other = check(&both, "https://api.example.com/", &["files.example.com"]);
        assert!(other.is_err(), "listed, but not where the URL goes");
        assert!(!to(&["evil.com"]) && !to(&["api.example.com", "evil.com"]) && !to(&[""]));
    }

    #[test]
    fn a_foreign_host_header_is_found_among_any_number_of_others() {
        let origins = Origins::only("https://api.example.com").unwrap();
        for others in [0, 1, FEW - 1, FEW, 3 * FEW] {
            let mut head = head("https://api.example.com/", &[]);
            for other in 0..others {
                let name = http::HeaderName::try_from(format!("x-{other}")).unwrap();
                head.headers.insert(name, http::HeaderValue::from_static("1"));
            }
            assert!(origins.check(&head.uri, &head.headers).is_ok());
            head.headers.insert(HOST, http::HeaderValue::from_static("evil.com"));
            assert_eq!(
                origins.check(&head.uri, &head.headers),
                Err(Outside::Elsewhere(WithoutToken::Host))
            );
        }
    }

    #[test]
    fn a_bare_path_passes_only_for_a_connected_peer_without_a_foreign_host() {
        let listed = Origins::only("https://api.example.com").unwrap();
        assert_eq!(check(&listed, "/x", &[]), Err(Outside::Nowhere));
        let peer = Origins::connected_peer();
        assert!(goes(&peer, "/x") && !goes(&peer, "https://api.example.com/x"));
        assert!(check(&peer, "/x", &["api.example.com"]).is_err());
        let named = peer.and("https://api.example.com").unwrap();
        assert!(check(&named, "/x", &["api.example.com"]).is_ok());
        assert!(check(&named, "/x", &["evil.com"]).is_err());
    }

    #[test]
    fn any_https_is_https_without_a_user() {
        let origins = Origins::any_https();
        assert!(goes(&origins, "https://a.example/") && goes(&origins, "https://b.example:8443/"));
        assert!(!goes(&origins, "http://a.example/") && !goes(&origins, "https://x@a.example/"));
        assert!(!goes(&origins, "http://127.0.0.1/"));
    }

    #[test]
    fn what_is_no_origin_is_told_what_to_write() {
        for origin in [
            "",
            "api.example.com",
            "/path",
            "https://",
            "https:///x",
            "http://api.example.com",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "ftp://api.example.com",
            "https://api.example.com/path",
            "https://api.example.com/?q",
            "https://api.example.com/#f",
            "https://user@api.example.com",
            "https://*.example.com",
            "https://b\u{fc}cher.example",
            "https://api.example.com:",
            "https://api.example.com:0",
            "https://api.example.com:99999",
            "https://a b",
        ] {
            let error = Origins::only(origin).expect_err(origin);
            assert!(
                error.is_config() && error.to_string().contains("write"),
                "{origin}: {error}"
            );
        }
        for origin in [
            "http://localhost:8080",
            "http://127.0.0.1:1",
            "http://[::1]:80",
            "http://127.9.9.9",
        ] {
            assert!(Origins::only(origin).is_ok(), "{origin}");
        }
    }
}
