//! One scalar of a JSON text that may be cut off: [`Pointer`].

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON pointer (RFC 6901), split.
#[derive(Clone, Debug)]
pub(super) struct Pointer {
    steps: Vec<String>,
}

impl Pointer {
    /// `None`: neither empty nor beginning with `/`, or with a `~` that is not `~0` or `~1`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { steps: Vec::new() });
        }
        let steps = text
            .strip_prefix('/')?
            .split('/')
            .map(unescape)
            .collect::<Option<_>>()?;
        Some(Self { steps })
    }

    /// The string, number or boolean it points to, as text. Of several with the same name, the last.
    ///
    /// Of a text that is not `whole`, what stands before the cut is found.
    pub(super) fn find(&self, json: &[u8], whole: bool) -> Option<String> {
        let mut found = None;
        let mut seen = json;
        if !whole {
            // A number at the cut may have more digits.
            while let [rest @ .., b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'] = seen {
                seen = rest;
            }
        }
        let seek = Seek {
            steps: &self.steps,
            found: &mut found,
        };
        // Where the text is cut or broken, what was found until then counts.
        let _ = seek.deserialize(&mut serde_json::Deserializer::from_slice(seen));
        found
    }
}

fn unescape(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (mark, rest) = (part.chars().next()?, part.get(1..)?);
        plain.push(match mark {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        plain.push_str(rest);
    }
    Some(plain)
}

/// Goes down the steps that are left.
struct Seek<'a> {
    steps: &'a [String],
    found: &'a mut Option<String>,
}

impl Seek<'_> {
    fn scalar(self, text: impl ToString) {
        if self.steps.is_empty() {
            *self.found = Some(text.to_string());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            match self.steps.split_first() {
                // A number, if somebody turned on serde_json's `arbitrary_precision`.
                None if name == "$serde_json::private::Number" => {
                    *self.found = Some(map.next_value()?);
                }
                Some((step, steps)) if *step == name => {
                    // What stood under this name before counts no more.
                    *self.found = None;
                    let found = &mut *self.found;
                    map.next_value_seed(Seek { steps, found })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let next = match self.steps.split_first() {
                Some((step, steps)) if *step == index.to_string() => {
                    let found = &mut *self.found;
                    seq.next_element_seed(Seek { steps, found })?.map(|()| IgnoredAny)
                }
                _ => seq.next_element::<IgnoredAny>()?,
            };
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.scalar(text);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.scalar(number);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.scalar(number);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.scalar(number);
        Ok(())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.scalar(truth);
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pointer: &str, json: &str) -> Option<String> {
        Pointer::parse(pointer).unwrap().find(json.as_bytes(), true)
    }

    #[test]
    fn scalars_are_found_at_any_depth() {
        let json = r#"{"a":{"b":[1,{"c":"x"},-2.5,true,null,-7]},"a/b":"y","m~n":"z","":7}"#;
        for (pointer, text) in [
            ("/a/b/0", Some("1")),
            ("/a/b/1/c", Some("x")),
            ("/a/b/2", Some("-2.5")),
            ("/a/b/3", Some("true")),
            ("/a/b/4", None),
            ("/a/b/5", Some("-7")),
            ("/a/b/6", None),
            ("/a/b/00", None),
            ("/a/b", None),
            ("/a~1b", Some("y")),
            ("/m~0n", Some("z")),
            ("/", Some("7")),
            ("", None),
        ] {
            assert_eq!(find(pointer, json).as_deref(), text, "{pointer}");
        }
        assert_eq!(find("", "\"x\"").as_deref(), Some("x"));
        assert_eq!(find("", r#"{"a":"x"}"#), None);
    }

    #[test]
    fn a_number_is_found_as_serde_json_hands_it_over_with_arbitrary_precision() {
        let json = r#"{"a":{"$serde_json::private::Number":"40103"}}"#;
        assert_eq!(find("/a", json).as_deref(), Some("40103"));
    }

    #[test]
    fn the_last_of_a_name_counts() {
        assert_eq!(find("/a", r#"{"a":1,"a":2}"#).as_deref(), Some("2"));
        assert_eq!(find("/a", r#"{"a":1,"a":{}}"#), None);
    }

    #[test]
    fn what_is_no_pointer_is_none() {
        for text in ["code", "a/b", "/a~", "/a~2", "/~é"] {
            assert!(Pointer::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn wherever_the_text_is_cut_a_code_is_found_whole_or_not_at_all() {
        let json = r#"{"requestId":"x","inner":{"code":40301,"n":[1]},"message":"no \"token\" é"}"#;
        let pointer = Pointer::parse("/inner/code").unwrap();
        let complete = json.find(",\"n\"").unwrap();
        for cut in 0..=json.len() {
            let found = pointer.find(&json.as_bytes()[..cut], false);
            let expected = (cut > complete).then(|| "40301".to_owned());
            assert_eq!(found, expected, "{cut}");
        }
    }

    #[test]
    fn what_is_not_json_says_nothing() {
        for text in ["", "<html>", "{\"code\"", "[[[[", "\u{feff}{}", "nul"] {
            assert_eq!(find("/code", text), None, "{text}");
        }
        let deep = format!("{}{{\"code\":1}}", "[".repeat(100_000));
        assert_eq!(find("/code", &deep), None);
        assert_eq!(Pointer::parse("/a").unwrap().find(b"{\"a\":\"\xff\"}", true), None);
    }
}
