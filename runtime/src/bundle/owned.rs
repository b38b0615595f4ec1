//! A bundle that owns its bytes.

use super::{Buffer, Bundle, BundleError, Trust};

/// The bytes of a bundle, checked once; views of it cost next to nothing.
///
/// For places that cannot hold a [`Bundle`] beside the bytes it borrows, such as an operator inside another engine.
#[derive(Debug)]
pub struct OwnedBundle {
    /// Never changes once it was read.
    buffer: Buffer,
}

impl OwnedBundle {
    /// Copies the bytes of a bundle's file to an aligned place and checks all of them. Allocates that place.
    ///
    /// # Errors
    /// As [`Bundle::new`].
    pub fn new(bytes: &[u8]) -> Result<Self, BundleError> {
        let buffer = Buffer::new(bytes);
        Bundle::new(buffer.as_slice())?;
        Ok(OwnedBundle { buffer })
    }

    /// A view of the bundle. Does not allocate; takes the same time for small and large models.
    ///
    /// # Errors
    /// Never: [`OwnedBundle::new`] has read the same bytes.
    pub fn bundle(&self) -> Result<Bundle<'_>, BundleError> {
        Bundle::read(self.buffer.as_slice(), Trust::Known)
    }

    /// The bytes of the file.
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.as_slice()
    }
}
