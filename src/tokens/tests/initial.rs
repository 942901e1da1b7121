//! A token that the provider was configured with: in place without a fetch, and judged like any other.

use super::*;
use serde_json::json;

/// Was configured with a token; records what it is asked to renew with.
struct Configured {
    token: Box<dyn Fn(std::time::SystemTime) -> Token + Send + Sync>,
    asked: Arc<Mutex<Vec<Option<Value>>>>,
}

impl TokenProvider for Configured {
    async fn fetch(&self, context: FetchContext) -> Result<Token, FetchError> {
        self.asked.lock().unwrap().push(context.credential().cloned());
        sleep(SECOND).await;
        minted(self.asked.lock().unwrap().len(), HOUR)
    }

    fn initial(&self, now: std::time::SystemTime) -> Option<Token> {
        Some((self.token)(now))
    }
}

type Asked = Arc<Mutex<Vec<Option<Value>>>>;

fn builder(token: impl Fn(std::time::SystemTime) -> Token + Send + Sync + 'static) -> (TokensBuilder, Asked) {
    let asked = Asked::default();
    let provider = Configured {
        token: Box::new(token),
        asked: asked.clone(),
    };
    let builder = Tokens::builder(provider)
        .clock(Clock::of_tokio())
        .policy(RefreshPolicy::default().jitter(0.0));
    (builder, asked)
}

fn configured(life: Duration) -> Token {
    Token::bearer("test-initial")
        .expires_in(life)
        .credential(json!({ "rt": "test-seed" }))
}

#[tokio::test(start_paused = true)]
async fn a_configured_token_goes_out_without_a_fetch_and_is_renewed_with_its_credential() {
    let told: Arc<Mutex<Vec<Event>>> = Arc::default();
    let log = told.clone();
    let (builder, asked) = builder(|_| configured(HOUR));
    let tokens = builder
        .observe(move |event: &Event| log.lock().unwrap().push(event.clone()))
        .build()
        .unwrap();
    let first = tokens.current().unwrap();
    assert_eq!((first.secret(), first.generation().unwrap().get()), ("test-initial", 1));
    assert_eq!(tokens.get().await.unwrap().secret(), "test-initial");
    let status = tokens.status();
    assert_eq!((status.state, status.fetches, status.exchanges), (State::Fresh, 0, 0));
    assert!(told.lock().unwrap().is_empty(), "nothing was renewed");
    sleep(HOUR).await;
    let second = tokens.get().await.unwrap();
    assert_eq!((second.secret(), second.generation().unwrap().get()), ("test-1", 2));
    assert_eq!(*asked.lock().unwrap(), [Some(json!({ "rt": "test-seed" }))]);
}

#[tokio::test(start_paused = true)]
async fn a_configured_token_ends_by_either_clock() {
    for step in [7200, -7200] {
        let clock = Clock::of_tokio();
        let (builder, asked) = builder(|_| configured(HOUR));
        let tokens = builder.clock(clock.clone()).build().unwrap();
        clock.step(step);
        if step < 0 {
            sleep(HOUR).await;
        }
        assert_eq!(tokens.get().await.unwrap().secret(), "test-1", "{step}");
        assert_eq!(asked.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_configured_token_costs_one_fetch_with_its_credential() {
    let (builder, asked) = builder(|_| configured(HOUR));
    let tokens = builder.build().unwrap();
    let first = tokens.current().unwrap();
    for _ in 0..100 {
        tokens.invalidate(&first);
    }
    assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
    assert_eq!(*asked.lock().unwrap(), [Some(json!({ "rt": "test-seed" }))]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_configured_token_is_not_sent_but_its_credential_is_used() {
    let dead: [fn(std::time::SystemTime) -> Token; 2] = [
        |now| configured(HOUR).expires_at(now),
        |now| configured(HOUR).issued_at(now - 2 * HOUR),
    ];
    for dead in dead {
        let (builder, asked) = builder(dead);
        let tokens = builder.build().unwrap();
        assert_eq!(tokens.status().state, State::None);
        let first = tokens.get().await.unwrap();
        assert_eq!((first.secret(), first.generation().unwrap().get()), ("test-1", 1));
        assert_eq!(*asked.lock().unwrap(), [Some(json!({ "rt": "test-seed" }))]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_credential_is_newer_than_a_configured_token() {
    let (builder, asked) = builder(|_| panic!("asked although something was kept"));
    let tokens = builder.credential(json!({ "rt": "test-kept" })).build().unwrap();
    assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
    assert_eq!(*asked.lock().unwrap(), [Some(json!({ "rt": "test-kept" }))]);
}

#[tokio::test(start_paused = true)]
async fn a_configured_token_without_an_expiry_lives_for_the_assumed_time_and_warns_once() {
    let warned = Arc::new(AtomicUsize::new(0));
    let count = warned.clone();
    let (builder, _) = builder(|_| Token::bearer("test-initial"));
    let tokens = builder
        .observe(move |event: &Event| {
            assert!(
                matches!(event, Event::Warned { generation, .. } if generation.get() == 1),
                "{event:?}"
            );
            count.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    assert_eq!(tokens.status().expires_in, Some(300 * SECOND));
    assert_eq!(warned.load(Ordering::SeqCst), 1);
}

#[test]
fn a_configured_token_that_cannot_be_sent_is_named_by_build() {
    for flawed in ["", "test\n"] {
        let (builder, _) = builder(move |_| Token::bearer(flawed));
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains("initial"), "{error}");
    }
}

/// Built where nobody keeps time: the wall clock alone ends it.
#[test]
fn a_configured_token_needs_no_runtime() {
    let (builder, asked) = builder(|_| configured(HOUR));
    let clock = Clock::of_tokio();
    let tokens = builder.clock(clock.clone()).build().unwrap();
    assert_eq!(tokens.current().unwrap().secret(), "test-initial");
    clock.step(3600);
    assert!(tokens.current().is_none());
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_configured_token_is_not_put_back_in_place_after_a_sign_out() {
    let (builder, _) = builder(|_| configured(HOUR));
    let tokens = builder.build().unwrap();
    tokens.sign_out();
    assert!(tokens.get().await.unwrap_err().is_signed_out());
    tokens.install(json!({ "rt": "test-other" })).unwrap();
    assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
}

/// Only the wall clock saw its end, and a step back made a dead token go out.
#[test]
fn a_token_configured_outside_of_a_runtime_ends_by_either_clock_too() {
    let runtime = runtime();
    let clock = runtime.block_on(async { Clock::of_tokio() });
    let (builder, asked) = builder(|_| configured(HOUR));
    let tokens = builder.clock(clock.clone()).build().unwrap();
    runtime.block_on(async {
        assert_eq!(tokens.get().await.unwrap().secret(), "test-initial");
        clock.step(-7200);
        sleep(HOUR).await;
        assert_eq!(tokens.get().await.unwrap().secret(), "test-1");
    });
    assert_eq!(asked.lock().unwrap().len(), 1);
}
