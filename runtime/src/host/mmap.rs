//! Memory-mapped files: a model is usable as soon as it is opened, and programs that use it share its pages.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

/// The bytes of a file, mapped read-only. They begin at the start of a page.
///
/// The file must not be changed or truncated while it is mapped: otherwise this program sees other bytes or ends with
/// `SIGBUS`. Kinglet's own tools replace whole files (`kinglet_data::files::write_atomically`), which does not affect a
/// mapping. Windows does not allow truncating a mapped file, and may not allow replacing it until it is unmapped.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a regular file.
    ///
    /// # Errors
    /// Any error of the system; files that are not regular, such as pipes, cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only, and lives as long as this value. That nobody changes the file
        // meanwhile is what the type's documentation asks of its user, as of every user of mapped files; what is read from it is
        // checked where it is used (labels for UTF-8, sizes once), so that other bytes give other answers at worst.
        Ok(Mapped(unsafe { memmap2::Mmap::map(&file)? }))
    }

    /// Returns the bytes of the file.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_file_has_the_bytes_of_the_file_even_when_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, b"before").unwrap();
        let mapped = Mapped::open(&path).unwrap();
        let replace = || {
            let sibling = dir.path().join(".file");
            std::fs::write(&sibling, b"after")?;
            // Windows does not replace a file that is mapped.
            std::fs::rename(&sibling, &path).inspect_err(|_| std::fs::remove_file(&sibling).unwrap())
        };
        let replaced = replace();
        assert_eq!(mapped.as_slice(), b"before");
        assert!(replaced.is_ok() || cfg!(windows), "{replaced:?}");
        let found = std::fs::read(&path).unwrap();
        assert_eq!(found, if replaced.is_ok() { &b"after"[..] } else { b"before" });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(mapped);
        replace().unwrap();
        assert_eq!(Mapped::open(&path).unwrap().as_slice(), b"after");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(Mapped::open(&path).unwrap().as_slice(), b"");
        assert!(Mapped::open(dir.path()).is_err());
        assert!(Mapped::open(&dir.path().join("absent")).is_err());
    }
}
