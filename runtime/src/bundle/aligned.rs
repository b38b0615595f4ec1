//! Places for bundles that begin at a multiple of 64.

/// Puts bytes at an address that is a multiple of 64, for bundles that are part of a program:
///
/// ```
/// # macro_rules! include_bytes { ($file:literal) => { b"bytes" } }
/// use kinglet::bundle::Aligned;
/// static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("model.kinglet"));
/// assert_eq!(MODEL.0.as_ptr().addr() % 64, 0);
/// ```
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(pub T);

/// Owns bytes that begin at an address that is a multiple of 64: a bundle that was read from a file.
#[cfg(feature = "alloc")]
pub struct Buffer {
    /// What was asked for, after up to 63 bytes of which nothing is used. Never grows, so it never moves.
    bytes: alloc::vec::Vec<u8>,
    start: usize,
}

#[cfg(feature = "alloc")]
impl Buffer {
    /// A copy of `bytes`. Allocates their length and 63 bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut place: alloc::vec::Vec<u8> = alloc::vec::Vec::with_capacity(bytes.len() + super::ALIGN - 1);
        let start = place.as_ptr().align_offset(super::ALIGN).min(super::ALIGN - 1);
        place.resize(start, 0);
        place.extend_from_slice(bytes);
        Buffer { bytes: place, start }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// The bytes, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }
}

#[cfg(feature = "alloc")]
impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.as_slice().len()).finish()
    }
}
