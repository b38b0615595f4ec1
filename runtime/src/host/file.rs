//! The file of a bundle, mapped or in memory.

use std::io;
use std::path::Path;

use super::mmap::Mapped;
use crate::bundle::Buffer;

/// The bytes of a bundle: a mapped file, memory, or part of the program.
#[derive(Debug)]
pub struct BundleFile(Place);

#[derive(Debug)]
enum Place {
    Mapped(Mapped),
    Memory(Buffer),
    Static(&'static [u8]),
}

impl BundleFile {
    /// Opens a file: maps it, or reads it if it is not a regular file (a pipe). Does not check it.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let place = if std::fs::metadata(path)?.is_file() {
            Place::Mapped(Mapped::open(path)?)
        } else {
            Place::Memory(Buffer::new(&std::fs::read(path)?))
        };
        Ok(BundleFile(place))
    }

    /// Copies bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        BundleFile(Place::Memory(Buffer::new(bytes)))
    }

    /// Uses bytes that are part of the program; see [`Aligned`](crate::bundle::Aligned).
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        BundleFile(Place::Static(bytes))
    }

    /// Returns the bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Place::Mapped(mapped) => mapped.as_slice(),
            Place::Memory(buffer) => buffer.as_slice(),
            Place::Static(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for BundleFile {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}
