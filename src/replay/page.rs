//! The paper that kept heads are written on: one buffer each, used again and again.
//!
//! Every thread keeps a few blank pages, so that a request is kept without an allocation. A page goes to
//! the thread that drops it. It may hold cookies and keys: it is wiped before it is put aside, and before
//! its memory is freed.

use std::cell::Cell;

use http::{Extensions, Version};
use zeroize::Zeroize;

/// Holds a head with some twenty headers.
const NEW: usize = 1024;

/// Larger ones are freed. Servers commonly take no more than this for a whole head.
const LARGEST: usize = 8 * 1024;

/// How many blank pages a thread keeps: requests on their way at once, beyond which it allocates again.
/// With heads of the usual size they are 32 KiB a thread, and never more than 256 KiB.
const MOST: usize = 32;

/// What is kept of one head.
pub(super) struct Page {
    /// Zeros from `written` on.
    text: Box<[u8]>,
    written: usize,
    pub(super) version: Version,
    pub(super) extensions: Extensions,
    below: Option<Box<Page>>,
}

impl Page {
    /// A blank one.
    #[inline]
    pub(super) fn take() -> Box<Self> {
        let spare = SPARE.try_with(Stack::pop).ok().flatten();
        spare.unwrap_or_else(|| Self::blank(NEW))
    }

    #[cold]
    fn blank(size: usize) -> Box<Self> {
        Box::new(Self {
            text: vec![0; size].into(),
            written: 0,
            version: Version::default(),
            extensions: Extensions::new(),
            below: None,
        })
    }

    /// A blank one for a text of this length. This one is wiped and freed.
    #[cold]
    pub(super) fn replace(self: Box<Self>, length: usize) -> Box<Self> {
        drop(self);
        Self::blank(length.next_power_of_two().max(NEW))
    }

    /// Has it written by `write`, which says how much it wrote; `None` if there was too little room.
    #[inline]
    pub(super) fn write(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<()> {
        // Until it is known how much.
        self.written = self.text.len();
        self.written = write(&mut self.text)?;
        Some(())
    }

    #[inline]
    pub(super) fn text(&self) -> &[u8] {
        self.text.get(..self.written).unwrap_or_default()
    }

    /// Blank, for the next request of this thread.
    pub(super) fn put_aside(mut self: Box<Self>) {
        if !self.extensions.is_empty() {
            // Other people's `Drop`, which may well send a request.
            self.extensions = Extensions::new();
        }
        // A thread that ends has no pages any more; this one is freed, as all that are too many.
        let _ = SPARE.try_with(|spare| spare.push(self));
    }

    fn is_worth_keeping(&self) -> bool {
        self.text.len() <= LARGEST
    }

    /// For memory that stays ours: it is read again, so that a plain `memset` cannot be left out. `zeroize`
    /// writes byte by byte, which would be half of all that it costs to keep a head.
    #[inline]
    fn wipe(&mut self) {
        self.text.get_mut(..self.written).unwrap_or_default().fill(0);
        self.written = 0;
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Nobody reads this memory again, so it takes writes that the compiler may not leave out.
        self.text.get_mut(..self.written).unwrap_or_default().zeroize();
    }
}

thread_local! {
    static SPARE: Stack = const { Stack { top: Cell::new(None), height: Cell::new(0) } };
}

/// Blank pages, the last used on top, because it is still in the processor's cache.
struct Stack {
    top: Cell<Option<Box<Page>>>,
    height: Cell<usize>,
}

impl Stack {
    #[inline]
    fn pop(&self) -> Option<Box<Page>> {
        let mut page = self.top.take()?;
        self.top.set(page.below.take());
        self.height.set(self.height.get() - 1);
        Some(page)
    }

    #[inline]
    fn push(&self, mut page: Box<Page>) {
        let height = self.height.get();
        if height < MOST && page.is_worth_keeping() {
            page.wipe();
            page.below = self.top.take();
            self.top.set(Some(page));
            self.height.set(height + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> Box<Page> {
        let mut page = Page::take();
        if page.text.len() < text.len() {
            page = page.replace(text.len());
        }
        let write = |room: &mut [u8]| {
            room.get_mut(..text.len())?.copy_from_slice(text);
            Some(text.len())
        };
        page.write(write).unwrap();
        page
    }

    fn height() -> usize {
        SPARE.with(|spare| spare.height.get())
    }

    #[test]
    fn a_page_is_used_again_and_blank() {
        let page = written(b"test-secret");
        let place = page.text.as_ptr() as usize;
        page.put_aside();
        let page = Page::take();
        assert_eq!(page.text.as_ptr() as usize, place);
        assert!(page.text.iter().all(|byte| *byte == 0) && page.text().is_empty());
    }

    #[test]
    fn a_page_that_was_too_short_is_blank_all_the_same() {
        let mut page = Page::take();
        let too_much = page.write(|text| {
            text.fill(b't');
            None
        });
        assert!(too_much.is_none());
        page.put_aside();
        assert!(Page::take().text.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_thread_keeps_so_many_pages_and_none_that_is_large() {
        let pages: Vec<_> = (0..MOST + 5).map(|_| written(b"test")).collect();
        assert_eq!(height(), 0);
        written(&[b't'; LARGEST + 1]).put_aside();
        assert_eq!(height(), 0);
        written(&[b't'; LARGEST]).put_aside();
        assert_eq!(height(), 1);
        pages.into_iter().for_each(Page::put_aside);
        assert_eq!(height(), MOST);
        let pages: Vec<_> = (0..MOST).map(|_| Page::take()).collect();
        assert_eq!(height(), 0);
        assert!(pages.iter().flat_map(|page| &page.text).all(|byte| *byte == 0));
    }

    #[test]
    fn a_page_goes_to_the_thread_that_drops_it() {
        let page = written(b"test");
        assert_eq!(height(), 0);
        let there = std::thread::spawn(move || {
            page.put_aside();
            height()
        });
        assert_eq!((there.join().unwrap(), height()), (1, 0));
    }
}
