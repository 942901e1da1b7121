//! Heads that nobody thought of.

use http::{HeaderName, HeaderValue, Uri, Version, request::Parts};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Head, assert_kept, headers, plain, told};

fn url() -> impl Strategy<Value = Uri> {
    let path = "/[a-z0-9._~!$&'()*+,;=:@%/\u{e9}-]{0,30}([?][a-z0-9/?=&-]{0,30})?";
    let authority = "([a-z]{1,5}@)?[A-Za-z0-9.-]{1,30}(:[0-9]{1,5})?";
    prop_oneof![
        (prop_oneof!["https?", "[a-z][a-z0-9+.]{0,9}"], authority, path)
            .prop_map(|(scheme, authority, path)| format!("{scheme}://{authority}{path}")),
        path.prop_map(String::from),
        authority.prop_map(String::from),
        Just(String::from("*")),
    ]
    .prop_filter_map("a URL", |url| url.parse().ok())
}

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let name = prop_oneof![
        Just(String::from("cookie")),
        Just(String::from("accept")),
        Just(String::from("content-type")),
        "x-[a-f]",
        "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,70}",
    ];
    let byte = prop_oneof![Just(b'\t'), 32..=126_u8, 128..=255_u8];
    (name, vec(byte, 0..80), any::<bool>()).prop_map(|(name, value, is_sensitive)| {
        let mut value = HeaderValue::from_bytes(&value).unwrap();
        value.set_sensitive(is_sensitive);
        (name.parse().unwrap(), value)
    })
}

fn head(most: usize) -> impl Strategy<Value = Parts> {
    let method = prop_oneof![Just("GET".to_owned()), "[A-Za-z!#$%&'*+.^_`|~0-9-]{1,40}"];
    let version = prop_oneof![Just(Version::HTTP_11), Just(Version::HTTP_2), Just(Version::HTTP_10)];
    let headers = vec(header(), 0..most);
    (method, url(), version, headers, any::<prop::sample::Index>()).prop_map(
        |(method, uri, version, headers, removed)| {
            let mut parts = plain();
            parts.method = method.parse().unwrap();
            (parts.uri, parts.version) = (uri, version);
            parts
                .headers
                .extend([(HeaderName::from_static("x-first"), HeaderValue::from_static("test"))]);
            for (name, value) in headers {
                parts.headers.append(name, value);
            }
            let name = parts
                .headers
                .keys()
                .nth(removed.index(parts.headers.keys_len()))
                .cloned();
            name.and_then(|name| parts.headers.remove(name));
            parts
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_head_is_kept_as_it_is(parts in prop_oneof![4 => head(12), 1 => head(100)]) {
        assert_kept(&parts);
    }

    #[test]
    fn heads_that_are_kept_at_once_are_not_mixed_up(heads in vec(head(6), 1..6)) {
        let kept: Vec<_> = heads.iter().map(Head::keep).collect();
        for (head, parts) in kept.into_iter().zip(&heads) {
            let again = head.into_parts().unwrap();
            assert_eq!(told(&again.uri), told(&parts.uri));
            assert_eq!(headers(&again), headers(parts));
        }
    }
}
