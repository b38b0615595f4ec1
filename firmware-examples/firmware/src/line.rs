//! A line that arrives byte by byte over a wire.

/// Bytes of a line, kept until it is complete. While the engine works nothing reads the wire, so the other end must
/// wait for the answer before it sends the next line.
pub struct Line<const N: usize> {
    bytes: [u8; N],
    /// Bytes of the line so far, including those that did not fit.
    len: usize,
}

/// Effect of a byte on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'l> {
    /// The line goes on.
    More,
    /// The line has ended; it is not empty.
    Whole(&'l [u8]),
    /// The line has ended and was longer than `max` bytes.
    TooLong {
        /// Capacity in bytes.
        max: usize,
    },
}

impl<const N: usize> Line<N> {
    /// Creates an empty line.
    pub const fn new() -> Self {
        Line { bytes: [0; N], len: 0 }
    }

    /// Adds a byte. Carriage return and line feed both end a line; empty lines are skipped, so both together end one.
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

    /// Discards the line so far.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}
