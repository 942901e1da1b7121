//! Everything that a test logs, on all levels of all crates.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

thread_local! {
    /// Everything that the test of this thread logged or wrote down.
    static PRINTED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes into [`PRINTED`].
pub(crate) struct Capture;

impl Capture {
    /// Begins to write down what is logged, on all levels of all crates.
    pub(crate) fn begin() -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
                .with_writer(|| Capture)
                .init();
        });
        Capture
    }

    pub(crate) fn text(&self) -> String {
        PRINTED.with_borrow(|printed| String::from_utf8_lossy(printed).into_owned())
    }
}

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        PRINTED.with_borrow_mut(|printed| printed.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
