//! What `--force` replaces: kept aside until the new run has weights of its own, and put back if it fails before.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::out;
use crate::training::progress::say;

/// Folder inside the directory of a run.
pub const FOLDER: &str = ".replaced";

/// What an earlier run left in a directory, while a new one has no weights yet.
///
/// When it is dropped, it puts everything back, unless [`Replaced::settle`] or [`Replaced::discard`] was called.
#[derive(Debug)]
pub struct Replaced {
    out: PathBuf,
    names: Vec<String>,
    puts_back: Cell<bool>,
}

impl Replaced {
    /// Moves those of `names` that are in `out` into [`FOLDER`]. What a process that was killed has left there counts as what is in `out`, if
    /// that has none of `weights`; otherwise it is removed.
    ///
    /// # Errors
    /// If something cannot be moved.
    pub fn aside(out: &Path, names: &[&str], weights: &[&str]) -> Result<Self> {
        let replaced = Replaced {
            out: out.to_path_buf(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            puts_back: Cell::new(true),
        };
        let folder = out.join(FOLDER);
        if folder.exists() {
            if weights.iter().any(|name| out.join(name).exists()) {
                replaced.discard();
                replaced.puts_back.set(true);
            } else {
                replaced.put_back()?;
            }
        }
        for name in names.iter().filter(|name| out.join(name).exists()) {
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
            let (from, to) = (out.join(name), folder.join(name));
            fs::rename(&from, &to).with_context(|| format!("cannot move {} aside", from.display()))?;
        }
        Ok(replaced)
    }

    /// Returns what a resumed run in `out` has aside since it began.
    pub fn pending(out: &Path) -> Self {
        Replaced { out: out.to_path_buf(), names: Vec::new(), puts_back: Cell::new(false) }
    }

    /// Leaves things as they are: the new run can be resumed.
    pub fn settle(&self) {
        self.puts_back.set(false);
    }

    /// Removes what is aside: the new run has weights. What cannot be removed only costs space.
    pub fn discard(&self) {
        self.settle();
        let folder = self.out.join(FOLDER);
        if folder.exists() {
            let _ = fs::remove_dir_all(folder);
        }
    }

    /// Puts everything back, in place of what the new run has made.
    fn put_back(&self) -> Result<()> {
        let folder = self.out.join(FOLDER);
        for name in &self.names {
            let path = self.out.join(name);
            out::remove(&path)?;
            let old = folder.join(name);
            if old.exists() {
                fs::rename(&old, &path).with_context(|| format!("cannot move {} back", old.display()))?;
            }
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        if !self.puts_back.get() || !self.out.join(FOLDER).exists() {
            return;
        }
        let out = self.out.display();
        match self.put_back() {
            Ok(()) => say(&format!("{out} is as it was before --force")),
            Err(error) => say(&format!("warning: what was in {out} before --force is in {out}/{FOLDER}: {error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["weights", "log", "folder"];

    /// A directory with the results of a run, and a file of somebody else.
    fn old() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("weights"), "old").unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        fs::write(dir.path().join("folder/x"), "old").unwrap();
        fs::write(dir.path().join("mine"), "mine").unwrap();
        dir
    }

    fn files(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    fn aside(dir: &Path) -> Replaced {
        Replaced::aside(dir, &NAMES, &["weights"]).unwrap()
    }

    fn is_old(dir: &Path) -> bool {
        files(dir) == ["folder", "mine", "weights"] && fs::read_to_string(dir.join("weights")).unwrap() == "old"
    }

    #[test]
    fn a_run_that_fails_leaves_what_was_there() {
        let dir = old();
        let replaced = aside(dir.path());
        assert_eq!(files(dir.path()), [FOLDER, "mine"]);
        fs::write(dir.path().join("log"), "new").unwrap();
        drop(replaced);
        assert!(is_old(dir.path()) && dir.path().join("folder/x").exists());
    }

    #[test]
    fn a_run_with_weights_replaces_it_and_one_that_can_go_on_keeps_it() {
        let dir = old();
        let replaced = aside(dir.path());
        fs::write(dir.path().join("log"), "new").unwrap();
        replaced.settle();
        drop(replaced);
        assert_eq!(files(dir.path()), [FOLDER, "log", "mine"]);
        let replaced = Replaced::pending(dir.path());
        fs::write(dir.path().join("weights"), "new").unwrap();
        replaced.discard();
        drop(replaced);
        assert_eq!(files(dir.path()), ["log", "mine", "weights"]);
    }

    #[test]
    fn what_a_killed_run_left_aside_is_what_was_there() {
        let dir = old();
        std::mem::forget(aside(dir.path()));
        fs::write(dir.path().join("log"), "killed").unwrap();
        drop(aside(dir.path()));
        assert!(is_old(dir.path()));
        // Unless it had weights already.
        std::mem::forget(aside(dir.path()));
        fs::write(dir.path().join("weights"), "killed").unwrap();
        drop(aside(dir.path()));
        assert_eq!(fs::read_to_string(dir.path().join("weights")).unwrap(), "killed");
    }
}
