//! The directory that a command writes to: checked before long work, made before the first result.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Written and removed again to see whether a directory can be written to.
const PROBE: &str = ".kinglet-probe";

/// Checks that `out` is a directory or can become one, and makes nothing.
///
/// # Errors
/// If it, or what it would be made in, is no directory; it is named.
pub fn check(out: &Path) -> Result<()> {
    let existing = out.ancestors().find(|path| path.exists());
    if let Some(path) = existing.filter(|path| !path.is_dir()) {
        ensure!(path != out, "--out {} is not a directory", out.display());
        anyhow::bail!("--out {} cannot be made: {} is not a directory", out.display(), path.display());
    }
    Ok(())
}

/// Makes `out`, if it is missing, and checks that files can be written there.
///
/// # Errors
/// If it cannot be made or written to.
pub fn make(out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("--out {} cannot be made", out.display()))?;
    let probe = out.join(PROBE);
    let written = File::create(&probe).and_then(|_| fs::remove_file(&probe));
    written.with_context(|| format!("--out {} cannot be written to", out.display()))
}

/// Removes a file, or a directory with all that is in it, if it is there.
///
/// # Errors
/// If it cannot be removed; it is named.
pub fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else if path.exists() {
        fs::remove_file(path)
    } else {
        Ok(())
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// A directory that nobody else writes to until this is dropped, or its process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    _directory: Option<File>,
}

/// Locks the directory `out` (flock on Unix; other systems have no locks of directories). Where the file system has no locks, nobody is kept
/// out.
///
/// # Errors
/// If another process has locked it, or it cannot be opened.
pub fn lock(out: &Path) -> Result<Lock> {
    if !cfg!(unix) {
        return Ok(Lock { _directory: None });
    }
    let directory = File::open(out).with_context(|| format!("--out {} cannot be opened", out.display()))?;
    match directory.try_lock() {
        Ok(()) => Ok(Lock { _directory: Some(directory) }),
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "another process is writing to {}: wait until it has ended, end it, or choose another --out",
            out.display()
        ),
        Err(TryLockError::Error(_)) => Ok(Lock { _directory: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_directory_has_one_writer() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        let said = lock(dir.path()).unwrap_err().to_string();
        assert!(said.contains("another process is writing to"), "{said}");
        drop(first);
        lock(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_below_a_file_is_refused_and_a_good_one_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        assert!(check(&at("file")).unwrap_err().to_string().ends_with("file is not a directory"));
        let said = check(&at("file/a/b")).unwrap_err().to_string();
        assert!(said.contains("b cannot be made") && said.ends_with("file is not a directory"), "{said}");
        assert!(make(&at("file/a/b")).is_err());
        check(&at("a/b")).unwrap();
        assert!(!at("a").exists());
        make(&at("a/b")).unwrap();
        make(&at("a/b")).unwrap();
        assert_eq!(fs::read_dir(at("a/b")).unwrap().count(), 0);
        check(Path::new("here")).unwrap();
    }
}
