//! What a provider of one's own asks its issuer with: [`TokenClient::ask`].

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use serde_json::Value;

use super::FetchContext;
use super::exchange::{Hidden, Needles, TokenClient};
use super::reading::{may_have_committed, retry_after};
use crate::error::FetchError;
use crate::token::Token;

impl TokenClient {
    /// Sends a token request of a provider's own, and brings the answer if there is anything in it to decide.
    ///
    /// For the exchange it sees to what every provider needs: the request is [marked](FetchContext::mark), it ends within
    /// [`FetchContext::timeout`], no redirect is followed, 1 MiB is read at most, and it counts as one of the three
    /// exchanges that a fetch may make. The answer's bytes are wiped when it is dropped.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{Request, StatusCode};
    /// use tower_token::{FetchContext, FetchError, Token, TokenClient};
    ///
    /// async fn fetch(client: &TokenClient, context: FetchContext) -> Result<Token, FetchError> {
    ///     let request = Request::post("https://parcel.example.com/token").body("apikey=test-key");
    ///     let request = request.map_err(|_| FetchError::config("no request can be made of this"))?;
    ///     let answer = client.ask(request, &context).await?;
    ///     match answer.status() {
    ///         StatusCode::OK => Ok(Token::bearer(String::from_utf8_lossy(answer.body()))),
    ///         StatusCode::UNAUTHORIZED => Err(FetchError::terminal("the key is not known")),
    ///         other => Err(FetchError::config(format!("the issuer answered {other}"))),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// What the provider can hand on as it is, because it means the same at every issuer:
    ///
    /// | what happened | error |
    /// |---|---|
    /// | no connection (refused, no such host, TLS) | [`Transient`](crate::Class::Transient): nothing was presented |
    /// | no answer in time, a reset, a 2xx whose body broke off or is longer than 1 MiB; 500, 502, 504, 520, 524 | `Transient` and [`lost`](FetchError::lost) |
    /// | 429; 503 with `Retry-After` | [`Throttled`](crate::Class::Throttled), for so long |
    /// | another 5xx, 408, a redirect | `Transient` |
    /// | the request went through the layer that waits for its token; a fourth exchange | [`Config`](crate::Class::Config), `Transient` |
    ///
    /// No error quotes what stands in the request, the answer or the credential.
    pub async fn ask<B: Into<Bytes>>(
        &self,
        request: Request<B>,
        context: &FetchContext,
    ) -> Result<Response<Bytes>, FetchError> {
        let request = request.map(Into::into);
        let host = request.uri().host().unwrap_or_default().to_owned();
        let asked = Asked {
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body: request.body().clone(),
        };
        let hidden = Hidden::of(|needles| {
            asked.hide(needles);
            needles.add(context.previous().map_or("", Token::secret));
            context.credential().into_iter().for_each(|kept| hide(kept, needles));
        });
        let answer = self.send(request, context, &hidden).await?;
        let said = || format!("{host} answered {}", answer.status.as_u16());
        if let Some(error) = no_verdict(answer.status, &answer.headers, context, said) {
            return Err(error);
        }
        let body = match answer.body {
            Ok(body) => Bytes::from_owner(body),
            // A refusal is one without its text.
            Err(_) if !answer.status.is_success() => Bytes::new(),
            Err(broken) => return Err(FetchError::transient(format!("{}: {}", said(), broken.reason())).lost()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

/// What a status says at every issuer.
fn no_verdict(
    status: StatusCode,
    headers: &HeaderMap,
    context: &FetchContext,
    said: impl Fn() -> String,
) -> Option<FetchError> {
    let wait = retry_after(headers, context.now());
    Some(match status {
        StatusCode::TOO_MANY_REQUESTS => FetchError::throttled(wait, said()),
        StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => FetchError::throttled(wait, said()),
        status if may_have_committed(status) => FetchError::transient(said()).lost(),
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => FetchError::transient(said()),
        status if status.is_redirection() => {
            let error = format!(
                "{}, a redirect, which is not followed: the URL has to be the final address",
                said()
            );
            FetchError::transient(error)
        }
        _ => return None,
    })
}

/// What was sent, of which nothing is to be printed: a provider of one's own does not say what is a secret in it.
struct Asked {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn hide(&self, needles: &mut Needles) {
        let path = self.uri.path_and_query().map_or("", |path| path.as_str());
        hide_words(path, needles);
        for value in self.headers.values() {
            hide_words(&String::from_utf8_lossy(value.as_bytes()), needles);
        }
        hide_words(&String::from_utf8_lossy(&self.body), needles);
    }
}

fn hide(kept: &Value, needles: &mut Needles) {
    match kept {
        Value::String(text) => hide_words(text, needles),
        Value::Array(values) => values.iter().for_each(|value| hide(value, needles)),
        Value::Object(fields) => fields.values().for_each(|value| hide(value, needles)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Words that are long enough for a secret. Shorter ones are parts of words that any message may hold.
fn hide_words(text: &str, needles: &mut Needles) {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    let words = text.split(|letter| !is_part(letter));
    words.filter(|word| word.len() >= 8).for_each(|word| needles.add(word));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Full;
    use serde_json::json;
    use tower::service_fn;

    use super::super::exchange::tests::context;
    use super::*;
    use crate::error::{BoxError, Class};

    fn request() -> Request<&'static str> {
        let request = Request::post("https://parcel.example.com/token?key=test-query-secret");
        let request = request.header("authorization", "Basic dGVzdC1oZWFkZXI6c2VjcmV0");
        request.body(r#"{"ticket":"test-body-secret"}"#).unwrap()
    }

    async fn asked(
        answer: impl Fn(Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> + Clone + Send + 'static,
    ) -> Result<Response<Bytes>, FetchError> {
        let service = service_fn(move |request| std::future::ready(answer(request)));
        TokenClient::new(service).ask(request(), &context()).await
    }

    async fn answered(status: u16, retry_after: Option<&str>) -> Result<Response<Bytes>, FetchError> {
        let retry_after = retry_after.map(str::to_owned);
        asked(move |_| {
            let mut response = Response::builder().status(status);
            if let Some(wait) = &retry_after {
                response = response.header("retry-after", wait);
            }
            Ok(response.body(Full::from("the body"))?)
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_decides_something_is_brought_whole() {
        for status in [200, 201, 204, 400, 401, 403, 404, 422] {
            let answer = answered(status, Some("7")).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.body()[..]),
                (status, &b"the body"[..])
            );
            assert_eq!(answer.headers()["retry-after"], "7");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_that_means_the_same_everywhere_is_an_error_in_its_class() {
        let throttled = |seconds| Class::Throttled {
            retry_after: Some(Duration::from_secs(seconds)),
        };
        for (status, retry_after, class, lost) in [
            (429, Some("7"), throttled(7), false),
            (429, None, Class::Throttled { retry_after: None }, false),
            (503, Some("7"), throttled(7), false),
            (503, None, Class::Transient, false),
            (500, Some("7"), Class::Transient, true),
            (502, None, Class::Transient, true),
            (504, None, Class::Transient, true),
            (507, None, Class::Transient, false),
            (408, None, Class::Transient, false),
            (302, None, Class::Transient, false),
        ] {
            let error = answered(status, retry_after).await.unwrap_err();
            assert_eq!((error.class(), error.is_lost()), (class, lost), "{status}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_was_presented_where_there_was_no_connection() {
        let refused = std::io::ErrorKind::ConnectionRefused;
        let error = asked(move |_| Err(std::io::Error::from(refused).into()))
            .await
            .unwrap_err();
        assert_eq!((error.class(), error.is_lost()), (Class::Transient, false));
        let reset = std::io::ErrorKind::ConnectionReset;
        let error = asked(move |_| Err(std::io::Error::from(reset).into()))
            .await
            .unwrap_err();
        assert_eq!((error.class(), error.is_lost()), (Class::Transient, true));
    }

    #[tokio::test(start_paused = true)]
    async fn no_error_quotes_the_request_or_the_credential() {
        for secret in [
            "test-query-secret",
            "dGVzdC1oZWFkZXI6c2VjcmV0",
            "test-body-secret",
            "test-kept-secret",
            "test-nested-secret",
        ] {
            let service = service_fn(move |_: Request<Full<Bytes>>| async move {
                Err::<Response<Full<Bytes>>, BoxError>(format!("cannot send {secret} there").into())
            });
            let mut context = context();
            let kept = json!({ "ticket": "test-kept-secret", "more": [{ "deep": "test-nested-secret" }], "n": 1 });
            context.credential = Some(std::sync::Arc::new(crate::token::Secret::new(kept)));
            let error = TokenClient::new(service).ask(request(), &context).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains(secret), "{error}");
        }
        let harmless = asked(|_| Err("the moon is in the way".into())).await.unwrap_err();
        assert!(harmless.to_string().contains("the moon is in the way"), "{harmless}");
    }
}
