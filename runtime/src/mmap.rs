//! Files mapped into memory: a model is in use as soon as it is opened, and programs that use it share its pages.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

/// A file's bytes, mapped read-only. They begin at the begin of a page.
///
/// The file must not be changed or cut while it is mapped: a program that does so gives this one other bytes, or ends it with
/// `SIGBUS`. Kinglet's own tools replace files whole (`kinglet_data::files::write_atomically`), which leaves a mapping as it was.
/// Windows refuses to cut a mapped file, and may refuse to replace it until it is no longer mapped.
#[derive(Debug)]
pub struct Mapped(memmap2::Mmap);

impl Mapped {
    /// Maps a regular file.
    ///
    /// # Errors
    /// Whatever the system says; of things that are not regular files, such as pipes, that they cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only, and lives as long as this value. That nobody changes the file
        // meanwhile is what the type's documentation asks of its user, as of every user of mapped files; what is read from it is
        // checked where it is used (labels for UTF-8, sizes once), so that other bytes give other answers at worst.
        Ok(Mapped(unsafe { memmap2::Mmap::map(&file)? }))
    }

    /// The bytes of the file.
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
            std::fs::rename(&sibling, &path)
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
