//! A response body whose beginning was looked at: [`Peeked`].

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{Classify, Report, Verdict};
use crate::clock::{Timer, timer};
use crate::tape::{Tape, in_bytes};

pin_project! {
    /// A response body, whole: what was read of it to judge the response comes first, then the live rest.
    ///
    /// A response that was not looked into costs nothing here. Data are [`Bytes`], which copies nothing if
    /// the body's are. Errors and trailers are the body's own, in their places.
    pub struct Peeked<B: Body> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<B: Body> {
        Whole { #[pin] body: B },
        Begun { begun: Pin<Box<Begun<B>>> },
    }
}

pin_project! {
    /// Boxed, so that it can be handed on from the inspection to the response.
    pub(super) struct Begun<B: Body> {
        read: Tape,
        // Frames without data that were read.
        empty: usize,
        #[pin]
        rest: Rest<B>,
        patience: Patience,
        // Looks at what comes when the response was handed on already.
        on_frame: Option<OnFrame>,
    }
}

pin_project! {
    #[project = RestProj]
    #[project_replace = RestOwned]
    enum Rest<B: Body> {
        Live { #[pin] body: B },
        Failed { error: B::Error },
        Ended,
    }
}

/// What is done with a late frame.
pub(super) type OnFrame = Box<dyn FnMut(&Frame<Bytes>) + Send + Sync>;

/// How long a body that stalls is waited for.
enum Patience {
    Full(Duration),
    Running(Pin<Box<Timer>>),
    Over,
}

/// A body can make frames without data for ever, and none of them counts towards the limit.
const EMPTY: usize = 1024;

impl<B: Body> Peeked<B> {
    /// A body that was not looked into: what [`Classify::pass`] makes of it.
    pub fn whole(body: B) -> Self {
        Self {
            state: State::Whole { body },
        }
    }

    /// The body, if it was not looked into.
    #[cfg(feature = "reqwest")]
    pub(crate) fn into_whole(self) -> Result<B, Self> {
        match self.state {
            State::Whole { body } => Ok(body),
            begun => Err(Self { state: begun }),
        }
    }

    /// Reads up to `limit` bytes and lets `judge` look at them, for a [`Classify::inspect`] of your own.
    ///
    /// Reading ends earlier with the body, with an error in it, or when `patience` is over (at once, outside
    /// a tokio runtime). `judge` is told whether the bytes are all there is.
    pub fn read(
        body: B,
        limit: usize,
        patience: Duration,
        judge: impl FnOnce(&[u8], bool) -> Verdict + Send + Sync + 'static,
    ) -> Inspecting<B> {
        Inspecting::new(body, limit, patience, move |begun| {
            let (prefix, whole) = begun.prefix(limit);
            judge(&prefix, whole)
        })
    }
}

impl<B: Body> Body for Peeked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().state.project() {
            StateProj::Whole { body } => body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map(in_bytes))),
            StateProj::Begun { begun } => begun.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Whole { body } => body.is_end_stream(),
            State::Begun { begun } => begun.read.is_empty() && begun.rest.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Whole { body } => body.size_hint(),
            State::Begun { begun } => begun.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for Peeked<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = match &self.state {
            State::Whole { .. } => 0,
            State::Begun { begun } => begun.read.len(),
        };
        f.debug_struct("Peeked").field("read", &read).finish_non_exhaustive()
    }
}

// ===== Reading =====

/// A response body whose beginning is being read, to be judged and handed on. Made by [`Peeked::read`].
pub struct Inspecting<B: Body> {
    reading: Option<Reading<B>>,
    limit: usize,
}

type Reading<B> = (Pin<Box<Begun<B>>>, Judge<B>);

type Judge<B> = Box<dyn FnOnce(Pin<&mut Begun<B>>) -> Verdict + Send + Sync>;

impl<B: Body> Inspecting<B> {
    pub(super) fn new(
        body: B,
        limit: usize,
        patience: Duration,
        judge: impl FnOnce(Pin<&mut Begun<B>>) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        Self {
            reading: Some((Begun::new(body, patience), Box::new(judge))),
            limit,
        }
    }
}

impl<B: Body> Future for Inspecting<B> {
    type Output = (Verdict, Peeked<B>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let limit = self.limit;
        if let Some((begun, _)) = &mut self.reading {
            ready!(begun.as_mut().poll_read(limit, cx));
        }
        let Some((mut begun, judge)) = self.reading.take() else {
            // Polled after its end.
            return Poll::Pending;
        };
        let verdict = judge(begun.as_mut());
        let state = State::Begun { begun };
        Poll::Ready((verdict, Peeked { state }))
    }
}

impl<B: Body> fmt::Debug for Inspecting<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspecting").finish_non_exhaustive()
    }
}

// ===== impl Begun =====

impl<B: Body> Begun<B> {
    fn new(body: B, patience: Duration) -> Pin<Box<Self>> {
        Box::pin(Self {
            read: Tape::default(),
            empty: 0,
            rest: Rest::Live { body },
            patience: Patience::Full(patience),
            on_frame: None,
        })
    }

    /// Reads on until there are `limit` bytes, the body has ended or failed, or the patience is over.
    fn poll_read(mut self: Pin<&mut Self>, limit: usize, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.as_mut().poll_until(limit, cx));
        // A timer that runs on would wake the caller for nothing.
        *self.project().patience = Patience::Over;
        Poll::Ready(())
    }

    fn poll_until(mut self: Pin<&mut Self>, limit: usize, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut this = self.as_mut().project();
            if this.read.len() >= limit || this.read.trailers().is_some() || *this.empty > EMPTY {
                return Poll::Ready(());
            }
            let RestProj::Live { body } = this.rest.as_mut().project() else {
                return Poll::Ready(());
            };
            let Poll::Ready(polled) = body.poll_frame(cx) else {
                return this.patience.poll(cx);
            };
            match polled {
                Some(Ok(frame)) => match in_bytes(frame).into_data() {
                    Ok(data) => {
                        *this.empty += usize::from(data.is_empty());
                        this.read.push(&data);
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            this.read.push_trailers(trailers);
                        }
                    }
                },
                Some(Err(error)) => this.rest.set(Rest::Failed { error }),
                None => this.rest.set(Rest::Ended),
            }
        }
    }

    /// A copy of the first bytes, and whether they are all there is.
    fn prefix(&self, limit: usize) -> (Vec<u8>, bool) {
        let whole = self.read.len() <= limit && (self.read.trailers().is_some() || self.rest.is_end());
        (self.read.prefix(limit), whole)
    }

    pub(super) fn has_data(&self) -> bool {
        self.read.has_data()
    }

    /// Trailers that came before any data.
    pub(super) fn only_trailers(&self) -> Option<&HeaderMap> {
        self.read.trailers().filter(|_| !self.read.has_data())
    }

    /// Has frames looked at that come later.
    pub(super) fn on_frame(self: Pin<&mut Self>, look: OnFrame) {
        *self.project().on_frame = Some(look);
    }

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        if let Some(frame) = this.read.play() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let polled = match this.rest.as_mut().project() {
            RestProj::Live { body } => ready!(body.poll_frame(cx)),
            RestProj::Failed { .. } => match this.rest.as_mut().project_replace(Rest::Ended) {
                RestOwned::Failed { error } => Some(Err(error)),
                _ => None,
            },
            RestProj::Ended => None,
        };
        let polled = polled.map(|frame| frame.map(in_bytes));
        if let Some(Ok(frame)) = &polled
            && let Some(look) = this.on_frame
        {
            look(frame);
        }
        Poll::Ready(polled)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let rest = match &self.rest {
            Rest::Live { body } => body.size_hint(),
            Rest::Failed { .. } => SizeHint::default(),
            Rest::Ended => SizeHint::with_exact(0),
        };
        let mut all = SizeHint::new();
        if let Some(upper) = rest.upper() {
            all.set_upper(upper.saturating_add(read));
        }
        all.set_lower(rest.lower().saturating_add(read));
        all
    }
}

impl<B: Body> Rest<B> {
    fn is_end(&self) -> bool {
        match self {
            Self::Live { body } => body.is_end_stream(),
            Self::Failed { .. } => false,
            Self::Ended => true,
        }
    }
}

impl Patience {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match mem::replace(self, Self::Over) {
                Self::Full(Duration::ZERO) => return Poll::Ready(()),
                // Without a timer there is no waiting: the body may never go on.
                Self::Full(patience) => match timer(patience) {
                    Some(timer) => *self = Self::Running(timer),
                    None => return Poll::Ready(()),
                },
                Self::Running(mut timer) => {
                    let over = timer.as_mut().poll(cx);
                    if over.is_pending() {
                        *self = Self::Running(timer);
                    }
                    return over;
                }
                Self::Over => return Poll::Ready(()),
            }
        }
    }
}

// ===== Back to the type that it was =====

/// A classifier whose response body is typed back: `BodyCode::new(..)?.via(axum::body::Body::new)`.
pub struct Via<C, B: Body> {
    classify: C,
    wrap: fn(Peeked<B>) -> B,
}

impl<C, B: Body> Via<C, B> {
    pub(super) fn new(classify: C, wrap: fn(Peeked<B>) -> B) -> Self {
        Self { classify, wrap }
    }
}

impl<C, B> Classify<B> for Via<C, B>
where
    B: Body,
    C: Classify<B, Body = Peeked<B>>,
{
    type Body = B;
    type Inspecting = InspectingVia<C::Inspecting, B>;

    #[inline]
    fn accepts(&self, status: StatusCode) -> bool {
        self.classify.accepts(status)
    }

    fn head(&self, head: &response::Parts) -> Verdict {
        self.classify.head(head)
    }

    #[inline]
    fn pass(&self, response: Response<B>) -> Response<B> {
        response
    }

    fn inspect(&self, head: &response::Parts, body: B, limit: usize, report: Report) -> Self::Inspecting {
        InspectingVia {
            inspecting: self.classify.inspect(head, body, limit, report),
            wrap: self.wrap,
        }
    }
}

impl<C: Clone, B: Body> Clone for Via<C, B> {
    fn clone(&self) -> Self {
        Self::new(self.classify.clone(), self.wrap)
    }
}

impl<C: fmt::Debug, B: Body> fmt::Debug for Via<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Via").field(&self.classify).finish_non_exhaustive()
    }
}

pin_project! {
    /// What [`Via`] waits for: a body that is being looked into, to be typed back.
    pub struct InspectingVia<F, B: Body> {
        #[pin]
        inspecting: F,
        wrap: fn(Peeked<B>) -> B,
    }
}

impl<F, B> Future for InspectingVia<F, B>
where
    B: Body,
    F: Future<Output = (Verdict, Peeked<B>)>,
{
    type Output = (Verdict, B);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (verdict, body) = ready!(this.inspecting.poll(cx));
        Poll::Ready((verdict, (this.wrap)(body)))
    }
}

impl<F, B: Body> fmt::Debug for InspectingVia<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InspectingVia").finish_non_exhaustive()
    }
}
