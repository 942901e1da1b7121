//! What is kept of a head is the head.

use std::cell::RefCell;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, request::Parts};

use super::Head;

/// Not for miri, which takes minutes to make up one.
#[cfg(not(miri))]
mod random;

fn again(parts: &Parts) -> Parts {
    Head::keep(parts).into_parts().unwrap()
}

fn plain() -> Parts {
    Request::get("https://api.example.com/v1?page=3")
        .body(())
        .unwrap()
        .into_parts()
        .0
}

/// In order, with everything that a map tells of its headers.
fn headers(parts: &Parts) -> Vec<(&str, &[u8], bool)> {
    let headers = parts.headers.iter();
    headers
        .map(|(name, value)| (name.as_str(), value.as_bytes(), value.is_sensitive()))
        .collect()
}

/// All that a URL tells of itself.
fn told(uri: &Uri) -> (String, Option<String>, [Option<&str>; 4], &str) {
    let whole = uri.path_and_query().map(ToString::to_string);
    let of = [
        uri.scheme_str(),
        uri.authority().map(|authority| authority.as_str()),
        uri.path_and_query().map(|path| path.as_str()),
        uri.query(),
    ];
    (uri.to_string(), whole, of, uri.path())
}

fn assert_kept(parts: &Parts) {
    assert_eq!(Head::keep(parts).path(), parts.uri.path());
    let again = again(parts);
    assert_eq!(again.method, parts.method);
    assert_eq!(again.uri, parts.uri);
    assert_eq!(told(&again.uri), told(&parts.uri));
    assert_eq!(again.version, parts.version);
    assert_eq!(headers(&again), headers(parts));
    assert_eq!(again.headers, parts.headers);
    assert_eq!(again.extensions.len(), parts.extensions.len());
}

#[test]
fn every_form_of_a_url_is_kept() {
    let mut parts = plain();
    for url in [
        "https://api.example.com/v1/things/17?page=3",
        "HTTPS://User:Pass@API.example.com:443/a//b/../c;d=e/%2F?",
        "http://[::1]:8080",
        "http://api.example.com?only=query",
        "http://api.example.com?",
        "unix+x://socket/path",
        "/",
        "/x",
        "/x?",
        "/x?a=b?c=d",
        "/caf\u{e9}?\u{fc}",
        "*",
        "api.example.com:443",
        "localhost",
    ] {
        parts.uri = url.parse().unwrap();
        assert_kept(&parts);
    }
    parts.uri = Uri::default();
    assert_kept(&parts);
    parts.uri = Uri::from_parts(http::uri::Parts::default()).unwrap();
    assert_kept(&parts);
}

#[test]
fn every_method_and_version_is_kept() {
    let mut parts = plain();
    let long = "LONG".repeat(100);
    for method in [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "get", "PROPFIND", &long,
    ] {
        parts.method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_kept(&parts);
    }
    for version in [
        Version::HTTP_09,
        Version::HTTP_10,
        Version::HTTP_11,
        Version::HTTP_2,
        Version::HTTP_3,
    ] {
        parts.version = version;
        assert_kept(&parts);
    }
}

#[test]
fn duplicates_keep_their_order_and_each_its_sensitivity() {
    let mut parts = plain();
    for (number, name) in ["cookie", "x-other", "cookie", "accept", "cookie", "x-other"]
        .into_iter()
        .enumerate()
    {
        let mut value = HeaderValue::from_str(&format!("test-{number}")).unwrap();
        value.set_sensitive(number % 2 == 0);
        parts.headers.append(name, value);
    }
    // The last header takes the place of one that is removed.
    parts.headers.insert("x-removed", HeaderValue::from_static("test"));
    parts.headers.remove("x-other");
    parts.headers.append("empty", HeaderValue::from_static(""));
    parts
        .headers
        .append("opaque", HeaderValue::from_bytes(b"\t\x80\xff \"caf\xe9\"").unwrap());
    assert_eq!(parts.headers.len(), 7);
    assert_kept(&parts);
}

#[test]
fn a_huge_head_is_kept() {
    let (huge, many) = if cfg!(miri) { (10_000, 100_u16) } else { (100_000, 1000) };
    let mut parts = plain();
    parts
        .headers
        .insert("x-huge", HeaderValue::from_str(&"h".repeat(huge)).unwrap());
    assert_kept(&parts);
    for number in 0..many {
        let name = HeaderName::try_from(format!("x-custom-{number}")).unwrap();
        parts.headers.append(name.clone(), HeaderValue::from(number));
        parts.headers.append(name, HeaderValue::from_static("test"));
    }
    parts.headers.insert(
        HeaderName::try_from("n".repeat(huge.min(65_535))).unwrap(),
        HeaderValue::from_static("test"),
    );
    assert_eq!(parts.headers.len(), usize::from(many) * 2 + 2);
    assert_kept(&parts);
    // And nothing of it is left in the next.
    assert_kept(&plain());
}

#[test]
fn a_head_of_any_length_around_that_of_a_page_is_kept() {
    let mut parts = plain();
    let step = if cfg!(miri) { 97 } else { 1 };
    for length in (800..1100).chain(1950..2050).step_by(step) {
        parts
            .headers
            .insert("x-long", HeaderValue::from_str(&"l".repeat(length)).unwrap());
        assert_kept(&parts);
    }
}

#[test]
fn extensions_are_kept_and_dropped_with_the_head() {
    let value = Arc::new("test");
    let mut parts = plain();
    parts.extensions.insert(value.clone());
    let head = Head::keep(&parts);
    assert_eq!(Arc::strong_count(&value), 3);
    let again = head.into_parts().unwrap();
    assert!(Arc::ptr_eq(again.extensions.get().unwrap(), &value));
    drop(again);
    drop(Head::keep(&parts));
    assert_eq!(Arc::strong_count(&value), 2);
    assert!(self::again(&plain()).extensions.is_empty());
}

/// What is kept of requests that are sent while one is dropped does not disturb it.
#[test]
fn an_extension_may_keep_a_head_when_it_is_cloned_and_when_it_is_dropped() {
    struct Sends;
    impl Clone for Sends {
        fn clone(&self) -> Self {
            assert_kept(&plain());
            Self
        }
    }
    impl Drop for Sends {
        fn drop(&mut self) {
            assert_kept(&plain());
        }
    }
    let mut parts = plain();
    parts.extensions.insert(Sends);
    assert_kept(&parts);
    assert_kept(&parts);
}

#[test]
fn a_head_is_dropped_as_well_on_another_thread_and_at_the_end_of_one() {
    thread_local! {
        static LAST: RefCell<Vec<Head>> = const { RefCell::new(Vec::new()) };
    }
    let kept = Head::keep(&plain());
    let thread = std::thread::spawn(move || {
        let uri = kept.into_parts().unwrap().uri;
        // Two threads' worth of orders: this one's pages were there before `LAST`.
        LAST.with(|last| last.borrow_mut().push(Head::keep(&plain())));
        uri
    });
    assert_eq!(thread.join().unwrap(), plain().uri);
    let kept = Head::keep(&plain());
    let thread = std::thread::spawn(move || {
        LAST.with(|last| last.borrow_mut().push(kept));
        assert_kept(&plain());
    });
    thread.join().unwrap();
}

#[test]
fn a_kept_head_is_small_and_prints_nothing() {
    let mut parts = plain();
    parts.headers.insert("cookie", HeaderValue::from_static("test-secret"));
    assert_eq!(format!("{:?}", Head::keep(&parts)), "Head { .. }");
    assert_eq!(size_of::<Head>(), size_of::<usize>());
}
