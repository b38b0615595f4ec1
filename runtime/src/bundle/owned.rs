//! A bundle that owns its bytes.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{ALIGN, Bundle, BundleError, Index, ReadBundle};

/// A bundle with its bytes, checked once. [`ReadBundle`] has its parts.
///
/// `B` keeps its bytes where they are when it moves: a [`Buffer`], a mapped file, `&'static [u8]`.
///
/// ```
/// # use kinglet::bundle::BundleError;
/// use std::sync::Arc;
/// use kinglet::bundle::{OwnedBundle, ReadBundle};
///
/// fn first_label(file: &[u8]) -> Result<String, BundleError> {
///     let model = Arc::new(OwnedBundle::new(file)?); // one copy of the bytes, for any number of threads and engines
///     Ok(model.labels().get(0).unwrap_or_default().to_string())
/// }
/// # assert!(first_label(b"no bundle").is_err());
/// ```
#[derive(Debug)]
pub struct OwnedBundle<B = Buffer> {
    /// Never changes after it was read.
    bytes: B,
    index: Index,
}

impl OwnedBundle {
    /// Copies the bytes of a bundle's file to aligned memory and checks all of them. Allocates that memory.
    ///
    /// # Errors
    /// As [`Bundle::new`].
    pub fn new(bytes: &[u8]) -> Result<Self, BundleError> {
        Self::over(Buffer::new(bytes), true)
    }
}

impl<B: AsRef<[u8]>> OwnedBundle<B> {
    /// Checks bytes in place: all of them if `verify`, otherwise as [`Bundle::new_unverified`]. Does not allocate.
    ///
    /// # Errors
    /// As these.
    pub fn over(bytes: B, verify: bool) -> Result<Self, BundleError> {
        let index = Index::new(bytes.as_ref(), verify)?;
        Ok(OwnedBundle { bytes, index })
    }

    /// Returns a view of the bundle. Does not allocate; takes the same time for small and large models.
    pub fn bundle(&self) -> Bundle<'_> {
        Bundle::of(self.bytes.as_ref(), self.index.clone())
    }
}

impl<B: AsRef<[u8]>> ReadBundle for OwnedBundle<B> {
    fn index(&self) -> &Index {
        &self.index
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

macro_rules! read_through {
    ($($pointer:ident)*) => {$(
        impl<T: ReadBundle + ?Sized> ReadBundle for $pointer<T> {
            fn index(&self) -> &Index {
                (**self).index()
            }

            fn as_bytes(&self) -> &[u8] {
                (**self).as_bytes()
            }
        }
    )*};
}
read_through!(Box Rc Arc);

/// Owned bytes that begin at an address that is a multiple of 64, for a bundle that was read from a file.
pub struct Buffer {
    /// The requested bytes, after up to 63 unused ones. Never grows, so it never moves.
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Copies `bytes`. Allocates their length and 63 bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut place: Vec<u8> = Vec::with_capacity(bytes.len() + ALIGN - 1);
        let start = place.as_ptr().align_offset(ALIGN).min(ALIGN - 1);
        place.resize(start, 0);
        place.extend_from_slice(bytes);
        Buffer { bytes: place, start }
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Returns the bytes for changing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.as_slice().len()).finish()
    }
}
