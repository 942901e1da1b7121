//! A refusal that stands in the body: [`BodyCode`].

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response, StatusCode, response};
use http_body::Body;

use super::pointer::Pointer;
use super::{Classify, Inspecting, Peeked, Report, Unauthorized, Verdict, Via};
use crate::challenge::Challenge;
use crate::error::Error;

/// A status and a code in the JSON body say it, as APIs have it that answer 403 for everything.
///
/// ```
/// use http::StatusCode;
/// use tower_token::BodyCode;
///
/// // Tencent SMH: {"code":"InvalidAccessToken","message":...}, invalid or expired.
/// let refused = BodyCode::new(StatusCode::FORBIDDEN, "/code", ["InvalidAccessToken"])?;
/// // An API with two dialects, the second with numbers and deeper down.
/// let refused = refused.or(StatusCode::BAD_REQUEST, "/error/code", ["40101", "40102"])?;
/// # let _ = refused; Ok::<(), tower_token::Error>(())
/// ```
///
/// Responses with one of the statuses are candidates: the beginning of their body is read (16 KiB at
/// most) and looked into. It may be longer than that, as long as the code stands before the cut. Whatever
/// the verdict, the response handed on is the whole one, with its trailers and errors in their places.
/// A candidate without a listed code is handed on, unless it is a 401 with a challenge that says otherwise;
/// what is no candidate is not touched, and judged by [`Unauthorized`]. A candidate that could not be read
/// to its end does not count as an acceptance.
///
/// A candidate's head is handed on when its beginning was read: when there are 16 KiB of it, its end or 5 s. Where
/// the status is 200, every answer is a candidate and waits like this. A candidate whose `Content-Type` names what comes bit
/// by bit and is no JSON document (`text/event-stream`, ndjson, `multipart/*`, images, sound, film) is handed on at once.
///
/// A body that is compressed tells nothing: put the decompression below the layer. The response body
/// becomes a [`Peeked`]; where a type must stay what it was, use [`via`](Self::via).
#[derive(Clone, Debug)]
pub struct BodyCode {
    rules: Arc<[Rule]>,
    limit: usize,
    patience: Duration,
    otherwise: Unauthorized,
}

#[derive(Clone, Debug)]
struct Rule {
    status: StatusCode,
    pointer: Pointer,
    codes: Vec<String>,
}

const LIMIT: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);

impl BodyCode {
    /// With this status, one of these codes at `pointer` (RFC 6901) is a refusal. Strings, integers and
    /// booleans are compared as text, in the same case; `InvalidLoginToken*` is every code that begins so.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] for a pointer that is none, and for no codes at all.
    pub fn new<T: Into<String>>(
        status: StatusCode,
        pointer: &str,
        codes: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let none = Self {
            rules: Arc::new([]),
            limit: LIMIT,
            patience: PATIENCE,
            otherwise: Unauthorized::new(),
        };
        none.or(status, pointer, codes)
    }

    /// The same for another status, or another place or other codes of the same.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn or<T: Into<String>>(
        mut self,
        status: StatusCode,
        pointer: &str,
        codes: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        let codes: Vec<String> = codes.into_iter().map(Into::into).collect();
        if codes.is_empty() || codes.iter().any(String::is_empty) {
            let advice = "name at least one code that is a refusal, and none that is empty";
            return Err(Error::config("codes", advice));
        }
        let Some(pointer) = Pointer::parse(pointer) else {
            let advice = "write a JSON pointer: `/code`, `/error/code`, or nothing for a body that is the code";
            return Err(Error::config("pointer", advice));
        };
        let rule = Rule { status, pointer, codes };
        self.rules = self.rules.iter().cloned().chain([rule]).collect();
        Ok(self)
    }

    /// Reads so many bytes of a candidate at most. Default: 16 KiB.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// How long a candidate's body is read at most; what was read by then is judged. Default: 5 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Judges what is no candidate. Default: [`Unauthorized::new`].
    #[must_use]
    pub fn otherwise(mut self, unauthorized: Unauthorized) -> Self {
        self.otherwise = unauthorized;
        self
    }

    /// Leaves the type of the response body as it is: `.via(axum::body::Body::new)`.
    #[must_use]
    pub fn via<B: Body>(self, wrap: fn(Peeked<B>) -> B) -> Via<Self, B> {
        Via::new(self, wrap)
    }
}

impl<B: Body> Classify<B> for BodyCode {
    type Body = Peeked<B>;
    type Inspecting = Inspecting<B>;

    fn head(&self, head: &response::Parts) -> Verdict {
        if self.rules.iter().any(|rule| rule.status == head.status) && !comes_bit_by_bit(&head.headers) {
            Verdict::Inspect(self.limit)
        } else {
            Classify::<B>::head(&self.otherwise, head)
        }
    }

    fn pass(&self, response: Response<B>) -> Response<Peeked<B>> {
        response.map(Peeked::whole)
    }

    fn inspect(&self, head: &response::Parts, body: B, limit: usize, _: Report) -> Self::Inspecting {
        let (rules, status) = (self.rules.clone(), head.status);
        // A challenge says it as well as a code. A 401 without one is what the codes are for.
        let by_head = Classify::<B>::head(&self.otherwise.clone().bare(false), head);
        Peeked::read(body, limit, self.patience, move |json, whole| {
            let mut rules = rules.iter().filter(|rule| rule.status == status);
            if rules.any(|rule| rule.is_refusal(json, whole)) {
                return Verdict::Refuse(Challenge::none());
            }
            match by_head {
                // What was not seen whole proves nothing.
                Verdict::Accept if !whole => Verdict::Undecided,
                by_head => by_head,
            }
        })
    }
}

impl Rule {
    fn is_refusal(&self, json: &[u8], whole: bool) -> bool {
        self.pointer
            .find(json, whole)
            .is_some_and(|code| self.codes.iter().any(|listed| is_listed(&code, listed)))
    }
}

/// What may take its time, and holds no code: to wait for its beginning would hold it up.
fn comes_bit_by_bit(headers: &HeaderMap) -> bool {
    const STREAMS: [&str; 8] = [
        "text/event-stream",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "multipart/",
        "image/",
        "audio/",
        "video/",
    ];
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let begins = |with: &str| {
        content_type
            .get(..with.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
    };
    STREAMS.iter().any(|stream| begins(stream))
}

fn is_listed(code: &str, listed: &str) -> bool {
    match listed.strip_suffix('*') {
        Some(start) => code.starts_with(start),
        None => code == listed,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    #[test]
    fn a_code_is_listed_in_full_or_by_its_beginning() {
        assert!(is_listed("InvalidLoginToken", "InvalidLoginToken"));
        assert!(is_listed("InvalidLoginToken.Expired", "InvalidLoginToken*"));
        assert!(!is_listed("InvalidLoginToken.Expired", "InvalidLoginToken"));
        assert!(!is_listed("NoPermission", "InvalidLoginToken*"));
    }

    #[test]
    fn what_comes_bit_by_bit_is_not_waited_for() {
        let classify = BodyCode::new(StatusCode::OK, "/why", ["expired"]).unwrap();
        let verdict = |content_type: Option<&str>| {
            let mut response = http::Response::builder();
            if let Some(content_type) = content_type {
                response = response.header(CONTENT_TYPE, content_type);
            }
            Classify::<Full<Bytes>>::head(&classify, &response.body(()).unwrap().into_parts().0)
        };
        for stream in [
            "text/event-stream",
            "Text/Event-Stream; charset=utf-8",
            "multipart/mixed; boundary=a",
            "video/mp4",
        ] {
            assert!(matches!(verdict(Some(stream)), Verdict::Accept), "{stream}");
        }
        for document in [
            None,
            Some(""),
            Some("application/json"),
            Some("text/plain"),
            Some("text/html"),
            Some("i"),
        ] {
            assert!(matches!(verdict(document), Verdict::Inspect(_)), "{document:?}");
        }
    }

    #[test]
    fn an_empty_code_is_none() {
        assert!(BodyCode::new(StatusCode::OK, "/why", [""]).unwrap_err().is_config());
    }

    async fn verdict(classify: BodyCode, status: StatusCode, text: &'static str) -> Verdict {
        let mut response = http::Response::new(());
        *response.status_mut() = status;
        let (head, ()) = response.into_parts();
        match Classify::<Full<Bytes>>::head(&classify, &head) {
            Verdict::Inspect(limit) => {
                let body: Full<Bytes> = Full::from(text);
                classify.inspect(&head, body, limit, Report::to_nobody()).await.0
            }
            verdict => verdict,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_candidate_that_was_not_seen_whole_is_no_acceptance() {
        let classify = BodyCode::new(StatusCode::OK, "/errcode", ["40001"]).unwrap();
        let text = r#"{"errcode":0,"items":[]}"#;
        let of = |limit| verdict(classify.clone().limit(limit), StatusCode::OK, text);
        assert!(matches!(of(text.len()).await, Verdict::Accept));
        assert!(matches!(of(text.len() - 1).await, Verdict::Undecided));
        // A refusal is one wherever the text ends behind it.
        let refused = verdict(
            classify.clone().limit(17),
            StatusCode::OK,
            r#"{"errcode":40001,"items":[]}"#,
        );
        assert!(matches!(refused.await, Verdict::Refuse(_)));
        let unauthorized = verdict(classify, StatusCode::UNAUTHORIZED, text);
        assert!(matches!(unauthorized.await, Verdict::Refuse(_)));
    }

    #[test]
    fn a_candidate_is_read_for_16_kib_unless_told() {
        let classify = BodyCode::new(StatusCode::OK, "/code", ["1"]).unwrap();
        let (head, ()) = http::Response::new(()).into_parts();
        let limit = |classify: &BodyCode| match Classify::<Full<Bytes>>::head(classify, &head) {
            Verdict::Inspect(limit) => Some(limit),
            _ => None,
        };
        assert_eq!(limit(&classify), Some(16_384));
        assert_eq!(limit(&classify.limit(7)), Some(7));
    }
}
