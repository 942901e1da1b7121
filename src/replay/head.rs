//! The head of a request, kept from before the token was put on it.
//!
//! `Parts::clone` would allocate up to twice for every header of a request that was built a moment ago. Almost no
//! head is ever needed again, so what is kept is its text on one [`Page`], read only if a replay comes about:
//!
//! ```text
//! scheme, path and query | method, authority | name, value | name, value | ...
//! ```
//!
//! Each of these is a line: two lengths, a mark for sensitive values, and the two texts.

#[cfg(test)]
mod tests;

use std::fmt;
use std::mem;

use http::uri::{self, PathAndQuery, Uri};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Version, request};

use super::page::Page;

/// Enough of a head to make the request again: method, URL, version, headers in order, extensions.
pub(crate) struct Head {
    /// `None` once it was dropped, and where nothing was kept yet.
    page: Option<Box<Page>>,
}

impl Head {
    /// Nothing yet: the request has not been sent.
    pub(crate) fn unsent() -> Self {
        Self { page: None }
    }

    pub(crate) fn is_unsent(&self) -> bool {
        self.page.is_none()
    }

    pub(crate) fn keep<'a>(of: impl Into<Open<'a>>) -> Self {
        of.into().kept()
    }

    /// The path of its URL.
    #[cold]
    pub(crate) fn path(&self) -> &str {
        let path = self.page.as_ref().and_then(|page| {
            let line = Lines(page.text()).next()?;
            std::str::from_utf8(line.value).ok()
        });
        match path.unwrap_or_default().split('?').next() {
            // As `Uri::path` has it for a URL that has nothing, or only a query, behind its authority.
            Some("") if path != Some("") => "/",
            path => path.unwrap_or_default(),
        }
    }

    /// The head as it was. `None` if it is no head, which is never so of one that was kept.
    #[cold]
    pub(crate) fn into_parts(mut self) -> Option<request::Parts> {
        let page = self.page.as_mut()?;
        let (mut parts, ()) = Request::new(()).into_parts();
        let mut lines = Lines(page.text());
        let (target, method) = (lines.next()?, lines.next()?);
        parts.uri = url(target.name, method.value, target.value)?;
        parts.method = Method::from_bytes(method.name).ok()?;
        parts.headers = lines.headers()?;
        parts.version = page.version;
        parts.extensions = mem::take(&mut page.extensions);
        Some(parts)
    }
}

/// A head to be kept, wherever it is.
#[derive(Clone, Copy)]
pub(crate) struct Open<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl Open<'_> {
    #[inline(never)]
    fn kept(self) -> Head {
        let mut page = Page::take();
        if page.write(|text| write(self, text)).is_none() {
            page = on_a_larger_page(page, self);
        }
        page.version = self.version;
        if !self.extensions.is_empty() {
            page.extensions = self.extensions.clone();
        }
        Head { page: Some(page) }
    }
}

impl<'a, B> From<&'a Request<B>> for Open<'a> {
    #[inline]
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }
}

impl<'a> From<&'a request::Parts> for Open<'a> {
    fn from(parts: &'a request::Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
            extensions: &parts.extensions,
        }
    }
}

impl Drop for Head {
    #[inline]
    fn drop(&mut self) {
        if let Some(page) = self.page.take() {
            page.put_aside();
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers hold secrets, and so may a URL.
        f.debug_struct("Head").finish_non_exhaustive()
    }
}

/// How much of `text` was written; `None` if it is too short.
#[inline]
fn write(head: Open<'_>, text: &mut [u8]) -> Option<usize> {
    let length = text.len();
    let mut room = Room(text);
    lines(head, &mut room)?;
    Some(length - room.0.len())
}

#[cold]
#[inline(never)]
fn on_a_larger_page(page: Box<Page>, head: Open<'_>) -> Box<Page> {
    let mut length = Length(0);
    let _ = lines(head, &mut length);
    let mut page = page.replace(length.0);
    let _ = page.write(|text| write(head, text));
    page
}

/// What the lines of a head go to.
trait Sink {
    /// `None` if it can't take it, nor any other.
    fn take(&mut self, line: Line<'_>) -> Option<()>;
}

/// All that is written of a head.
#[inline(always)]
fn lines(head: Open<'_>, sink: &mut impl Sink) -> Option<()> {
    let uri = head.uri;
    sink.take(Line {
        name: uri.scheme_str().unwrap_or_default().as_bytes(),
        value: path_and_query(uri).as_bytes(),
        is_sensitive: false,
    })?;
    sink.take(Line {
        name: head.method.as_str().as_bytes(),
        value: uri.authority().map_or("", |authority| authority.as_str()).as_bytes(),
        is_sensitive: false,
    })?;
    for (name, value) in head.headers {
        sink.take(Line {
            name: name.as_str().as_bytes(),
            value: value.as_bytes(),
            is_sensitive: value.is_sensitive(),
        })?;
    }
    Some(())
}

/// Empty if the URL has none: an authority alone, or nothing at all, which `PathAndQuery` writes as `/`.
#[inline]
fn path_and_query(uri: &Uri) -> &str {
    match uri.path_and_query().map(PathAndQuery::as_str) {
        Some("/") => uri.path(),
        path => path.unwrap_or_default(),
    }
}

#[cold]
fn url(scheme: &[u8], authority: &[u8], path_and_query: &[u8]) -> Option<Uri> {
    fn part<'a, T: TryFrom<&'a [u8]>>(text: &'a [u8]) -> Option<Option<T>> {
        match text {
            [] => Some(None),
            text => T::try_from(text).ok().map(Some),
        }
    }
    let mut parts = uri::Parts::default();
    parts.scheme = part(scheme)?;
    parts.authority = part(authority)?;
    parts.path_and_query = part(path_and_query)?;
    Uri::from_parts(parts).ok()
}

struct Line<'a> {
    name: &'a [u8],
    value: &'a [u8],
    is_sensitive: bool,
}

/// The length of the name, and twice that of the value, odd if it is sensitive. A slice is never so long
/// that this overflows.
const LENGTHS: usize = 2 * size_of::<usize>();

/// How long the text is.
struct Length(usize);

impl Sink for Length {
    fn take(&mut self, line: Line<'_>) -> Option<()> {
        self.0 += LENGTHS + line.name.len() + line.value.len();
        Some(())
    }
}

/// What is not yet written.
struct Room<'a>(&'a mut [u8]);

impl Sink for Room<'_> {
    #[inline(always)]
    fn take(&mut self, line: Line<'_>) -> Option<()> {
        let (lengths, room) = mem::take(&mut self.0).split_first_chunk_mut::<LENGTHS>()?;
        let (name, room) = room.split_at_mut_checked(line.name.len())?;
        let (value, room) = room.split_at_mut_checked(line.value.len())?;
        let (first, second) = lengths.split_at_mut(LENGTHS / 2);
        first.copy_from_slice(&line.name.len().to_ne_bytes());
        second.copy_from_slice(&(2 * line.value.len() + usize::from(line.is_sensitive)).to_ne_bytes());
        copy(name, line.name);
        copy(value, line.value);
        self.0 = room;
        Some(())
    }
}

/// Of equal length. Most names and values fit into a few registers, which takes half the time of a `memcpy`.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    let length = from.len();
    if length >= 8 {
        if length <= 16 {
            ends::<8>(to, from);
        } else if length <= 32 {
            ends::<16>(to, from);
        } else if length <= 64 {
            ends::<32>(to, from);
        } else {
            to.copy_from_slice(from);
        }
    } else if length >= 4 {
        ends::<4>(to, from);
    } else if length >= 2 {
        ends::<2>(to, from);
    } else {
        ends::<1>(to, from);
    }
}

/// The first and the last `N`, which are all of it, if it is as long as that and no longer than twice that.
#[inline(always)]
fn ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

/// What is not yet read.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<Line<'a>> {
        let (name, rest) = self.0.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let marked = usize::from_ne_bytes(*value);
        let (name, rest) = rest.split_at_checked(usize::from_ne_bytes(*name))?;
        let (value, rest) = rest.split_at_checked(marked / 2)?;
        self.0 = rest;
        Some(Line {
            name,
            value,
            is_sensitive: marked % 2 == 1,
        })
    }

    fn headers(mut self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        while !self.0.is_empty() {
            let line = self.next()?;
            let mut value = HeaderValue::from_bytes(line.value).ok()?;
            value.set_sensitive(line.is_sensitive);
            headers
                .try_append(HeaderName::from_bytes(line.name).ok()?, value)
                .ok()?;
        }
        Some(headers)
    }
}
