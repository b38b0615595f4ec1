//! The file of a bundle, in memory or mapped.

use std::io;
use std::path::Path;

use super::mmap::Mapped;
use crate::bundle::Buffer;

/// Bytes from which on a file is mapped instead of copied.
const MAPPED_FROM: u64 = 64 << 20;

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
    /// Opens a file: copies it to memory, or maps it from 64 MiB on. Does not check it.
    ///
    /// What happens to a copied file changes nothing. A mapped one must not be changed or truncated in place ([`Mapped`]).
    ///
    /// # Errors
    /// Any error of the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = std::fs::metadata(path)?;
        if file.is_file() && file.len() >= MAPPED_FROM { Self::map(path) } else { Self::from_file(path) }
    }

    /// Maps a file of any size: programs that use it share its pages. It must not be changed or truncated in place ([`Mapped`]). What is not a
    /// regular file (a pipe) is copied. Does not check it.
    ///
    /// # Errors
    /// Any error of the system.
    pub fn map(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path)?.is_file() {
            Ok(BundleFile(Place::Mapped(Mapped::open(path)?)))
        } else {
            Self::from_file(path)
        }
    }

    fn from_file(path: &Path) -> io::Result<Self> {
        Ok(BundleFile(Place::Memory(Buffer::new(&std::fs::read(path)?))))
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
