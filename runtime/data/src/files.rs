//! Atomic writes: a reader sees the old bytes or the new ones, never a part.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Returns the temporary sibling that [`write_atomically`] writes before the rename: `.NAME.PID.tmp` in the same
/// directory.
pub fn sibling(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(std::format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Checks that there is nothing at `path` yet, unless it may be replaced: the rule of every output of every program.
///
/// # Errors
/// If it exists and `force` is false.
pub fn check_free(path: &Path, force: bool) -> io::Result<()> {
    if force || !path.exists() {
        return Ok(());
    }
    let what = std::format!("{} exists; choose another name, or replace it with --force", path.display());
    Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
}

/// Writes `bytes` to a temporary sibling of `path`, syncs it and renames it to `path`.
///
/// # Errors
/// Any error of the file system; on Windows also if `path` is in use (mapped, for example). `path` is then unchanged
/// and the sibling is removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = sibling(path);
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Report the first error; the sibling may not even exist.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("taken");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("x"), "x").unwrap();
        assert!(write_atomically(&target, b"new").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomically(&dir.path().join("f"), b"new").is_ok());
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new");
    }
}
