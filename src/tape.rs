//! What passed of a body, to be played once more: [`Tape`].

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;

/// The frames of a body in order, as handles on the bytes that were sent.
///
/// Frames of a few bytes are put together, which costs a copy of those bytes: a handle on each would
/// take more memory than what it holds. So borders between frames may move; bytes never do. A handle
/// keeps alive all of the buffer that its bytes are a part of.
#[derive(Default)]
pub(crate) struct Tape {
    frames: Vec<Bytes>,
    /// So many of them were played.
    played: usize,
    /// The last frames, where they were small.
    small: BytesMut,
    trailers: Option<Box<HeaderMap>>,
    /// Of the data that is still to be played, in bytes.
    len: usize,
    /// So many bytes of data there is room for, if the frames are of one length.
    expected: usize,
}

/// A frame below this is copied. A handle takes some 60 bytes, so they add a quarter at the very most.
const SMALL: usize = 256;
/// So many bytes of small frames are put together at most.
const CHUNK: usize = 4 * 1024;
/// Trailers beyond this are not kept: so many bytes of names and values.
const TRAILERS: usize = 16 * 1024;

/// Room is made for so many frames at once, at most: 1 MiB in frames of 16 KiB, which are 2 KiB of handles.
const ROOM: usize = 64;

impl Tape {
    /// Has room for so many bytes of data, as soon as the first frame tells how long frames are.
    pub(crate) fn with_room_for(expected: usize) -> Self {
        Self {
            expected,
            ..Self::default()
        }
    }

    /// Bytes of data that are still to be played.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn has_data(&self) -> bool {
        self.len > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0 && self.trailers.is_none()
    }

    /// Adds a frame if there are then no more than `limit` bytes of data, and no more of trailers than is
    /// kept. `false`: it is not on the tape.
    #[inline]
    pub(crate) fn record(&mut self, frame: &Frame<Bytes>, limit: usize) -> bool {
        if let Some(data) = frame.data_ref() {
            let fits = data.len() <= limit.saturating_sub(self.len);
            if fits {
                self.push(data);
            }
            return fits;
        }
        self.record_trailers(frame)
    }

    #[cold]
    fn record_trailers(&mut self, frame: &Frame<Bytes>) -> bool {
        // A kind of frame that is neither could not be played.
        let Some(trailers) = frame.trailers_ref() else {
            return false;
        };
        let size: usize = trailers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if size <= TRAILERS {
            self.trailers = Some(Box::new(trailers.clone()));
        }
        size <= TRAILERS
    }

    /// Adds data, however much it is.
    #[inline]
    pub(crate) fn push(&mut self, data: &Bytes) {
        self.len += data.len();
        if data.len() < SMALL {
            return self.push_small(data);
        }
        if self.frames.is_empty() || !self.small.is_empty() {
            self.make_way(data.len());
        }
        self.frames.push(data.clone());
    }

    #[inline(never)]
    fn push_small(&mut self, data: &Bytes) {
        if self.small.len() + data.len() > CHUNK {
            self.flush();
        }
        self.small.extend_from_slice(data);
    }

    /// For a frame of this length.
    #[cold]
    fn make_way(&mut self, len: usize) {
        if self.frames.capacity() == 0 {
            let before = usize::from(!self.small.is_empty());
            self.frames.reserve(before + (self.expected / len).clamp(1, ROOM));
        }
        self.flush();
    }

    /// Adds trailers, however many they are.
    pub(crate) fn push_trailers(&mut self, trailers: HeaderMap) {
        self.trailers = Some(Box::new(trailers));
    }

    /// Takes the next frame off the tape.
    pub(crate) fn play(&mut self) -> Option<Frame<Bytes>> {
        if self.played == self.frames.len() {
            self.flush();
        }
        if let Some(data) = self.frames.get_mut(self.played) {
            self.played += 1;
            self.len -= data.len();
            return Some(Frame::data(std::mem::take(data)));
        }
        self.trailers.take().map(|trailers| Frame::trailers(*trailers))
    }

    /// The trailers that are still to be played.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// A copy of the first `limit` bytes that are still to be played.
    pub(crate) fn prefix(&self, limit: usize) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(limit.min(self.len));
        for data in self.frames[self.played..]
            .iter()
            .map(|data| &data[..])
            .chain([&self.small[..]])
        {
            let room = limit - prefix.len();
            prefix.extend_from_slice(&data[..data.len().min(room)]);
        }
        prefix
    }

    #[inline(never)]
    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.frames.push(std::mem::take(&mut self.small).freeze());
        }
    }
}

/// A frame with its data as `Bytes`, which copies nothing if they are.
#[inline]
pub(crate) fn in_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(tape: &mut Tape) -> Vec<Bytes> {
        std::iter::from_fn(|| tape.play()?.into_data().ok()).collect()
    }

    fn recorded(frames: &[&'static [u8]], limit: usize) -> (Tape, usize) {
        let mut tape = Tape::default();
        let fit = frames
            .iter()
            .take_while(|frame| tape.record(&Frame::data(Bytes::from_static(frame)), limit))
            .count();
        (tape, fit)
    }

    #[test]
    fn exactly_the_limit_fits_and_one_byte_more_does_not() {
        assert_eq!(recorded(&[b"abc", b"de"], 5).1, 2);
        assert_eq!(recorded(&[b"abc", b"def"], 5).1, 1);
        assert_eq!(recorded(&[b"", b""], 0).1, 2);
        assert_eq!(recorded(&[b"a"], 0).1, 0);
    }

    #[test]
    fn large_frames_are_shared_and_small_ones_put_together() {
        let large = Bytes::from(vec![b'x'; SMALL]);
        let mut tape = Tape::default();
        for frame in [&large, &Bytes::from_static(b"a"), &Bytes::from_static(b"bc"), &large] {
            assert!(tape.record(&Frame::data(frame.clone()), usize::MAX));
        }
        assert_eq!(tape.len(), 2 * SMALL + 3);
        let played = data(&mut tape);
        assert_eq!(played.len(), 3);
        assert_eq!(played[0].as_ptr(), large.as_ptr());
        assert_eq!(&played[1][..], b"abc");
        assert_eq!(played[2].as_ptr(), large.as_ptr());
        assert!(tape.is_empty());
    }

    #[test]
    fn ten_thousand_frames_of_a_byte_are_three_handles() {
        let mut tape = Tape::default();
        let sent: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        for byte in &sent {
            assert!(tape.record(&Frame::data(Bytes::copy_from_slice(&[*byte])), 10_000));
        }
        assert_eq!(tape.prefix(5_000), sent[..5_000]);
        assert_eq!(tape.prefix(20_000), sent);
        let played = data(&mut tape);
        assert_eq!((played.len(), played.concat()), (3, sent));
    }

    #[test]
    fn trailers_come_last_and_once() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("7"));
        let mut tape = Tape::default();
        assert!(tape.record(&Frame::data(Bytes::from_static(b"a")), 1));
        assert!(tape.record(&Frame::trailers(trailers.clone()), 1));
        assert!(tape.play().unwrap().is_data());
        assert_eq!(tape.play().unwrap().into_trailers().ok(), Some(trailers));
        assert!(tape.play().is_none() && tape.is_empty());
    }

    #[test]
    fn trailers_without_measure_are_not_kept() {
        let mut trailers = HeaderMap::new();
        let value = http::HeaderValue::from_bytes(&[b'x'; TRAILERS]).unwrap();
        trailers.insert("x-sum", value);
        assert!(!Tape::default().record(&Frame::trailers(trailers), usize::MAX));
    }
}
