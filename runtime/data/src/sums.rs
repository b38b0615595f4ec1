//! `SHA256SUMS` beside the files of a checkpoint, in the form that `sha256sum --check` reads: damage is noticed before a file is used.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::digest::sha256_of_file;
use crate::files::write_atomically;

/// Name of the file.
pub const FILE: &str = "SHA256SUMS";

/// Writes the hashes of those of `names` that are in `dir`.
///
/// # Errors
/// Any error of the file system.
pub fn write(dir: &Path, names: &[&str]) -> io::Result<()> {
    let mut lines = String::new();
    for name in names.iter().filter(|name| dir.join(name).is_file()) {
        lines += &format!("{}  {name}\n", sha256_of_file(&dir.join(name))?);
    }
    write_atomically(&dir.join(FILE), lines.as_bytes())
}

/// Removes the hashes of `dir`, before a file changes that they are of.
///
/// # Errors
/// Any error of the file system.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Compares the files of `dir` with their hashes, if there are any: checkpoints of older versions have none. Reads the files once.
///
/// # Errors
/// If a file is another one, which is named with what to do, or cannot be read. A file that is not there is no error.
pub fn check(dir: &Path) -> io::Result<()> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(());
    }
    let wrong = |said: String| io::Error::new(io::ErrorKind::InvalidData, said);
    let damaged = |path: PathBuf| wrong(format!("{} is damaged", path.display()));
    let text = String::from_utf8(fs::read(&path)?).map_err(|_| damaged(path.clone()))?;
    for line in text.lines() {
        let (expected, name) = line.split_once("  ").ok_or_else(|| damaged(path.clone()))?;
        // A name, not a path to somewhere else.
        if name.is_empty() || Path::new(name).file_name() != Some(name.as_ref()) || expected.len() != 64 {
            return Err(damaged(path));
        }
        let file = dir.join(name);
        let got = match sha256_of_file(&file) {
            // Whoever needs it says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            got => got?,
        };
        if got != expected {
            return Err(wrong(format!(
                "{} is damaged or of another checkpoint: its SHA-256 is {got}, {FILE} has {expected}; if it was changed on purpose, delete {}",
                file.display(),
                path.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "abc").unwrap();
        fs::write(at("b"), "x").unwrap();
        check(dir.path()).unwrap();
        write(dir.path(), &["a", "b", "absent"]).unwrap();
        let lines = fs::read_to_string(at(FILE)).unwrap();
        // FIPS 180-2, appendix B.1.
        assert!(lines.starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n"), "{lines}");
        assert_eq!(lines.lines().count(), 2);
        check(dir.path()).unwrap();
        fs::write(at("b"), "y").unwrap();
        let said = check(dir.path()).unwrap_err().to_string();
        assert!(said.contains("b is damaged or of another checkpoint") && said.contains("delete"), "{said}");
        fs::remove_file(at("b")).unwrap();
        check(dir.path()).unwrap();
        fs::write(at("b"), "x").unwrap();
        for (from, to) in [("  a", "  ../a"), ("  a", "a"), ("ba78", "ba7"), ("a", "\u{e9}"), ("ba78", "ba79")] {
            fs::write(at(FILE), lines.replacen(from, to, 1)).unwrap();
            assert!(check(dir.path()).is_err(), "{from} {to}");
        }
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        check(dir.path()).unwrap();
    }
}
