//! SHA-256 in lower-case hex, as reports, metadata and saved states have it.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
    path::Path,
    rc::Rc,
};

use sha2::{Digest, Sha256};

/// Returns the SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Returns the SHA-256 of the file `path`, which is never in memory as a whole.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    Hashed::new(File::open(path)?).sha256()
}

/// A file whose bytes are hashed as they are read. Clones share the file and its position.
#[derive(Clone, Debug)]
pub(crate) struct Hashed(Rc<RefCell<(File, Sha256)>>);

impl Hashed {
    /// Hashes what is read from `file`, which must be at its start.
    pub(crate) fn new(file: File) -> Self {
        Hashed(Rc::new(RefCell::new((file, Sha256::new()))))
    }

    /// Reads the rest of the file and returns the SHA-256 of all its bytes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn sha256(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        let (_, hash) = &*self.0.borrow();
        Ok(format!("{:x}", hash.clone().finalize()))
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (file, hash) = &mut *self.0.borrow_mut();
        let count = file.read(buffer)?;
        hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_fips_180_and_does_not_depend_on_how_much_was_read() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256_of_file(&path).unwrap(), abc);
        for read in 0..=3 {
            let file = Hashed::new(File::open(&path).unwrap());
            file.clone().read_exact(&mut vec![0; read]).unwrap();
            assert_eq!(file.sha256().unwrap(), abc, "{read} bytes read");
        }
    }
}
