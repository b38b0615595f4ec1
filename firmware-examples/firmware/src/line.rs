//! A line that comes byte by byte over a wire.

/// Bytes of a line, kept until it is whole. While the engine works nothing reads the wire, so whoever is at its other end waits for
/// the answer before the next line.
pub struct Line<const N: usize> {
    bytes: [u8; N],
    /// Bytes of the line so far, those that found no room included.
    len: usize,
}

/// What a byte made of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'l> {
    /// The line goes on.
    More,
    /// The line has ended; it is not empty.
    Whole(&'l [u8]),
    /// The line has ended and was longer than `max` bytes.
    TooLong {
        /// Bytes that there is room for.
        max: usize,
    },
}

impl<const N: usize> Line<N> {
    /// An empty line.
    pub const fn new() -> Self {
        Line { bytes: [0; N], len: 0 }
    }

    /// Takes a byte. Carriage return and line feed both end a line; empty lines are passed over, so that both together end one.
    pub fn push(&mut self, byte: u8) -> Received<'_> {
        if !matches!(byte, b'\r' | b'\n') {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
            }
            self.len = self.len.saturating_add(1);
            return Received::More;
        }
        match core::mem::take(&mut self.len) {
            0 => Received::More,
            len => self.bytes.get(..len).map_or(Received::TooLong { max: N }, Received::Whole),
        }
    }

    /// Forgets the line so far.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}
