//! The files of an export appear together: none of them is of another model than the rest.
//!
//! They are written into a folder `.kinglet-export.PID` of the directory, synced, and the folder is renamed to `.kinglet-export.ready`: from then on the
//! export is complete. Its files are then moved to their places. An export that was killed before that moment leaves nothing that is read, one
//! that was killed after it is completed by the next.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use kinglet::spec::files;

use crate::names::{DIAGRAM, FAILED, PAGE};

/// Folder of files that are complete and belong together.
const READY: &str = ".kinglet-export.ready";
/// Files that some exports have.
const OPTIONAL: [&str; 5] = [files::BUNDLE, files::ONNX_CUSTOM_OP, DIAGRAM, PAGE, FAILED];
/// Beginning of the names of folders that are being written.
const WRITING: &str = ".kinglet-export.";

/// Replaces files of `out`, which is made if missing, by others of these `contents`: all of them or, if this fails or is killed, none.
///
/// # Errors
/// If a file cannot be written or moved.
pub fn replace(out: &Path, contents: &[(&str, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("cannot make the directory {}", out.display()))?;
    recover(out)?;
    let folder = out.join(format!("{WRITING}{}", std::process::id()));
    let written = write(&folder, contents).and_then(|()| {
        fs::rename(&folder, out.join(READY)).with_context(|| format!("cannot rename {}", folder.display()))
    });
    if written.is_err() {
        // Report the first error; the folder may not even exist.
        let _ = fs::remove_dir_all(&folder);
    }
    written?;
    complete(out)
}

fn write(folder: &Path, contents: &[(&str, Vec<u8>)]) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, bytes) in contents {
        let path = folder.join(name);
        let file = File::create(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        file.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Completes an export that was killed when all of its files were there, and removes what others have left that were killed before.
///
/// # Errors
/// If a file cannot be moved or removed.
pub fn recover(out: &Path) -> Result<()> {
    complete(out)?;
    let context = || format!("cannot read {}", out.display());
    for entry in fs::read_dir(out).with_context(context)? {
        let entry = entry.with_context(context)?;
        if is_left(&entry.file_name()) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Returns whether a name is that of a folder that was being written, or of a temporary sibling (`.NAME.PID.tmp`), by a process that has
/// ended. Where processes cannot be looked up (`/proc`), nothing is taken for left.
fn is_left(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let sibling = || name.strip_suffix(".tmp")?.strip_prefix('.')?.rsplit_once('.').map(|(_, id)| id);
    let Some(id) = name.strip_prefix(WRITING).or_else(sibling) else { return false };
    let processes = Path::new("/proc");
    let number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    number && processes.join("self").exists() && !processes.join(id).exists()
}

/// Moves complete files to their places. Those that they replace are removed before, so that at no moment files of two models lie side by side;
/// but for the bundle, which always is one or the other.
fn complete(out: &Path) -> Result<()> {
    let ready = out.join(READY);
    if !ready.exists() {
        return Ok(());
    }
    let context = || format!("cannot read {}", ready.display());
    let entries = fs::read_dir(&ready).with_context(context)?.collect::<io::Result<Vec<_>>>().with_context(context)?;
    let mut names: Vec<OsString> = entries.iter().map(fs::DirEntry::file_name).collect();
    // The bundle first.
    names.sort_by_key(|name| *name != *files::BUNDLE);
    let replaced = names.iter().filter(|name| **name != *files::BUNDLE).map(|name| out.join(name));
    // What the older export had and this one has not is of another model, too.
    let is_there = |name: &str| names.iter().any(|there| there == name);
    let more =
        OPTIONAL.into_iter().filter(|name| is_there(files::ONNX_INT8) && !is_there(name)).map(|name| out.join(name));
    for path in replaced.chain(more) {
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
    }
    for name in &names {
        let to = out.join(name);
        fs::rename(ready.join(name), &to).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    fs::remove_dir(&ready).with_context(|| format!("cannot remove {}", ready.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two<'a>(a: &str, b: &str) -> [(&'a str, Vec<u8>); 2] {
        [("a", a.into()), ("b", b.into())]
    }

    fn found(dir: &Path) -> Vec<(String, String)> {
        let read = |entry: fs::DirEntry| {
            let text = fs::read_to_string(entry.path()).unwrap_or_else(|_| "a folder".to_owned());
            (entry.file_name().into_string().unwrap(), text)
        };
        let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect();
        all.sort();
        all
    }

    fn is(dir: &Path, a: &str, b: &str) -> bool {
        found(dir) == [("a".to_owned(), a.to_owned()), ("b".to_owned(), b.to_owned())]
    }

    #[test]
    fn files_are_replaced_together() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        replace(&out, &two("1", "1")).unwrap();
        assert!(is(&out, "1", "1"));
        replace(&out, &two("2", "2")).unwrap();
        assert!(is(&out, "2", "2"));
        // The second file cannot be written: the first stays as it was.
        let bad = [("a", b"3".to_vec()), ("no/folder", b"3".to_vec())];
        assert!(replace(&out, &bad).is_err());
        assert!(is(&out, "2", "2"), "{:?}", found(&out));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_killed_export_left_is_removed_or_completed() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        replace(out, &two("1", "1")).unwrap();
        // Killed while it was written, by a process with a number above the largest there is.
        fs::create_dir(out.join(".kinglet-export.4194305")).unwrap();
        fs::write(out.join(".kinglet-export.4194305/a"), "2").unwrap();
        fs::write(out.join(".model.onnx.4194305.tmp"), "2").unwrap();
        recover(out).unwrap();
        assert!(is(out, "1", "1"));
        // Killed while files were moved.
        fs::create_dir(out.join(READY)).unwrap();
        fs::write(out.join(READY).join("b"), "2").unwrap();
        fs::write(out.join("a"), "2").unwrap();
        recover(out).unwrap();
        assert!(is(out, "2", "2"), "{:?}", found(out));
        // Files of others stay.
        let living = format!(".model.onnx.{}.tmp", std::process::id());
        for name in [".tmp", ".x.tmp", "model.4194305.tmp", ".kinglet-export.mine", &living] {
            fs::write(out.join(name), "mine").unwrap();
        }
        recover(out).unwrap();
        assert_eq!(found(out).len(), 7);
    }
}
