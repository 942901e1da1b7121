//! How many exchanges one fetch costs its issuer, counted.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_provider_with_a_client_of_its_own_counts_by_its_calls() {
    let answer = |nth| {
        let answer = match nth {
            1 => Err(FetchError::config("nothing to send")),
            2 => Err(FetchError::transient("reset").lost()),
            _ => minted(nth, HOUR),
        };
        (SECOND, answer)
    };
    let (tokens, issuer) = tokens_of(answer, |b| b);
    assert_eq!(tokens.status().exchanges, 0);
    tokens.get().await.unwrap_err();
    assert_eq!(tokens.status().exchanges, 0, "nothing was sent");
    tokens.refresh().await.unwrap();
    let status = tokens.status();
    assert_eq!((status.fetches, status.exchanges, issuer.fetches()), (2, 2, 3));
}

/// What each call is told of what is left.
#[tokio::test(start_paused = true)]
async fn two_presentations_share_what_one_fetch_may_send() {
    let left: Arc<Mutex<Vec<u32>>> = Arc::default();
    let told = left.clone();
    let provider = provider_fn(move |context: FetchContext| {
        told.lock().unwrap().push(context.exchanges_left());
        // Marks are for each request, and do not count.
        (0..9).for_each(|_| context.mark(&mut http::Extensions::new()));
        async { Err(FetchError::transient("reset").lost()) }
    });
    let tokens = Tokens::new(provider).unwrap();
    tokens.get().await.unwrap_err();
    tokens.refresh().await.unwrap_err();
    assert_eq!(*left.lock().unwrap(), [3, 2, 3]);
    assert_eq!(tokens.status().exchanges, 3);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_the_middle_of_a_lost_exchange_is_one_presentation() {
    let (tokens, issuer) = tokens_of(|_| (10 * SECOND, Err(FetchError::transient("reset").lost())), |b| b);
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    let began = Instant::now();
    tokens.shutdown().await;
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(waiting.await.unwrap().unwrap_err().class(), Some(Class::Ambiguous));
    sleep(HOUR).await;
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_waits_for_its_time_at_the_shutdown_is_made() {
    let (tokens, issuer) = tokens_of(|nth| (SECOND, minted(nth, HOUR)), |b| b);
    for _ in 0..2 {
        let token = tokens.get().await.unwrap();
        accepted(&tokens, &token);
        tokens.invalidate(&token);
    }
    let waiting = tokio::spawn(tokens.get());
    settle().await;
    assert_eq!(issuer.fetches(), 2, "the third waits for the minimum interval");
    tokens.shutdown().await;
    assert_eq!(waiting.await.unwrap().unwrap().secret(), "test-3");
}

#[cfg(feature = "oauth2")]
mod of_a_client {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::Full;
    use tower::service_fn;

    use super::*;
    use crate::provider::TokenClient;
    use crate::provider::exchange::Hidden;

    /// What an issuer answers to its nth request.
    type Answer = http::Response<Full<Bytes>>;

    fn granted(nth: usize) -> Answer {
        let body = format!(r#"{{"access_token":"test-{nth}","token_type":"Bearer","expires_in":3600}}"#);
        http::Response::new(Full::from(body))
    }

    fn gone() -> Answer {
        let mut response = Answer::default();
        *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        response
    }

    fn client(latency: Duration, answer: fn(usize) -> Answer) -> (TokenClient, Arc<AtomicUsize>) {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let service = service_fn(move |_: http::Request<Bytes>| {
            let nth = counted.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                sleep(latency).await;
                Ok::<_, Infallible>(answer(nth))
            }
        });
        (TokenClient::new(service), sent)
    }

    fn tokens(latency: Duration, answer: fn(usize) -> Answer) -> (Tokens, Arc<AtomicUsize>) {
        let (client, sent) = client(latency, answer);
        let grant = crate::oauth2::RefreshTokenGrant::new("https://login.example.com/token", "my-app")
            .refresh_token("test-seed")
            .client(client);
        (Tokens::builder(grant).clock(Clock::of_tokio()).build().unwrap(), sent)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_two_exchanges_of_one_fetch() {
        let (tokens, sent) = tokens(SECOND, |nth| if nth == 1 { gone() } else { granted(nth) });
        let waiting = tokio::spawn(tokens.get());
        settle().await;
        assert_eq!(tokens.status().exchanges, 1, "counted while it is in the air");
        waiting.await.unwrap().unwrap();
        let status = tokens.status();
        assert_eq!((status.fetches, status.exchanges), (1, 2));
        assert_eq!(sent.load(Ordering::SeqCst), 2);
        tokens.refresh().await.unwrap();
        assert_eq!(tokens.status().exchanges, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_in_the_middle_sends_nothing_more() {
        let (tokens, sent) = tokens(SECOND, |_| gone());
        let waiting = tokio::spawn(tokens.get());
        settle().await;
        tokens.shutdown().await;
        assert!(waiting.await.unwrap().is_err());
        sleep(HOUR).await;
        assert_eq!((tokens.status().exchanges, sent.load(Ordering::SeqCst)), (1, 1));
    }

    /// Sends `requests` in each call; returns what the last one came to.
    fn sending(requests: u32, latency: Duration, answer: fn(usize) -> Answer) -> (Tokens, Arc<AtomicUsize>) {
        let (client, sent) = client(latency, answer);
        let provider = provider_fn(move |context: FetchContext| {
            let client = client.clone();
            async move {
                for _ in 0..requests {
                    let request = http::Request::post("https://login.example.com/token").body(Bytes::new());
                    client.send(request.unwrap(), &context, &Hidden::of(|_| ())).await?;
                }
                minted(1, HOUR)
            }
        });
        (Tokens::new(provider).unwrap(), sent)
    }

    #[tokio::test(start_paused = true)]
    async fn the_fourth_of_one_fetch_is_not_sent() {
        let (tokens, sent) = sending(4, SECOND, granted);
        let error = tokens.get().await.unwrap_err();
        assert_eq!(error.class(), Some(Class::Transient));
        assert!(error.to_string().contains("three exchanges"), "{error}");
        assert_eq!((tokens.status().exchanges, sent.load(Ordering::SeqCst)), (3, 3));
        let (tokens, sent) = sending(3, SECOND, granted);
        tokens.get().await.unwrap();
        assert_eq!((tokens.status().exchanges, sent.load(Ordering::SeqCst)), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_of_several_exchanges_ends_with_the_one_it_is_in_when_shut_down() {
        let (tokens, sent) = sending(3, SECOND, granted);
        let waiting = tokio::spawn(tokens.get());
        sleep(SECOND * 3 / 2).await;
        tokens.shutdown().await;
        let error = waiting.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("shut down"), "{error}");
        assert_eq!(sent.load(Ordering::SeqCst), 2);
    }
}
