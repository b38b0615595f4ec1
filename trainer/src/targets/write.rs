//! Writes a folder of targets shard by shard, so that it can be continued after the last complete one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kinglet_data::files::write_atomically;
use serde::Serialize;

use super::manifest::{MANIFEST, Manifest, UNFINISHED};
use super::shard::{self, Shard, ShardData, file_name};

/// What is done with targets that the folder already holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// They are an error.
    #[default]
    Refuse,
    /// They are continued; they must have been begun with the same record.
    Resume,
    /// They are removed.
    Replace,
}

/// A folder of targets in the making.
#[derive(Debug)]
pub struct TargetsWriter {
    dir: PathBuf,
    manifest: Manifest,
    /// The next shard to write.
    next: u32,
}

impl TargetsWriter {
    /// Creates the folder, or opens what `existing` allows, and finds the first shard that is missing.
    ///
    /// # Errors
    /// If the folder holds something that `existing` does not allow, targets of another record, or cannot be written.
    pub fn open(dir: &Path, manifest: Manifest, existing: Existing) -> Result<Self> {
        let shards = manifest.shards()?;
        let mut writer = TargetsWriter { dir: dir.to_path_buf(), manifest, next: 0 };
        if let Some(record) = Self::check(dir, existing)? {
            writer.reuse(&record, existing).with_context(|| dir.display().to_string())?;
        }
        let record = serde_json::to_string_pretty(&writer.manifest)? + "\n";
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        if !writer.path(MANIFEST).exists() {
            let path = writer.path(UNFINISHED);
            write_atomically(&path, record.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        while writer.next < shards && Shard::open(dir, writer.next, &writer.manifest).is_ok() {
            writer.next += 1;
        }
        Ok(writer)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the record of the targets in a folder; `None` if the folder is new or empty.
    ///
    /// # Errors
    /// If the folder holds something else, or targets although `existing` is [`Existing::Refuse`].
    pub fn check(dir: &Path, existing: Existing) -> Result<Option<PathBuf>> {
        let context = || dir.display().to_string();
        let filled = match fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) if dir.exists() => bail!("--out {} is not a directory", dir.display()),
            Err(_) => false,
        };
        if !filled {
            return Ok(None);
        }
        let record = [MANIFEST, UNFINISHED].map(|name| dir.join(name)).into_iter().find(|path| path.exists());
        let record = record
            .context("the folder is not empty and holds no targets; --out must be empty or new")
            .with_context(context)?;
        let refused = matches!(existing, Existing::Refuse);
        ensure!(
            !refused,
            "{}: the folder holds targets: --resume continues them, --force replaces them",
            dir.display()
        );
        Ok(Some(record))
    }

    /// Deals with the targets of `record` in the folder.
    fn reuse(&self, record: &Path, existing: Existing) -> Result<()> {
        if matches!(existing, Existing::Replace) {
            return self.remove();
        }
        let before = Manifest::parse(record)?;
        if before != self.manifest {
            bail!(
                "the targets were begun with other settings: {}; --force replaces them",
                difference(&before, &self.manifest)?
            );
        }
        Ok(())
    }

    /// Removes records and shards, and nothing else.
    fn remove(&self) -> Result<()> {
        let remove = |path: &Path| fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()));
        for name in [MANIFEST, UNFINISHED].map(str::to_owned).into_iter().chain((0..).map(file_name)) {
            let path = self.path(&name);
            if path.exists() {
                remove(&path)?;
            } else if name.ends_with(".safetensors") {
                break;
            }
        }
        Ok(())
    }

    /// Returns the number of the next shard to write; the number of shards once all are written.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Returns the record of the targets.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Writes the next shard.
    ///
    /// # Errors
    /// As [`shard::write`].
    pub fn push(&mut self, data: &ShardData) -> Result<()> {
        shard::write(&self.dir, self.next, &self.manifest, data)?;
        self.next += 1;
        Ok(())
    }

    /// Declares the targets complete.
    ///
    /// # Errors
    /// If a shard is missing or the record cannot be written.
    pub fn finish(self) -> Result<()> {
        let shards = self.manifest.shards()?;
        ensure!(self.next == shards, "{} of {shards} shards are written", self.next);
        let (from, to) = (self.path(UNFINISHED), self.path(MANIFEST));
        if !to.exists() {
            fs::rename(&from, &to).with_context(|| format!("cannot rename {} to {MANIFEST}", from.display()))?;
        }
        Ok(())
    }
}

/// Returns the first field in which two records differ, with both values.
///
/// # Errors
/// If a record cannot be written as JSON.
pub fn difference<T: Serialize>(before: &T, now: &T) -> Result<String> {
    let (before, now) = (serde_json::to_value(before)?, serde_json::to_value(now)?);
    Ok(difference_at("", &before, &now).unwrap_or_default())
}

fn difference_at(name: &str, before: &serde_json::Value, now: &serde_json::Value) -> Option<String> {
    if let (Some(a), Some(b)) = (before.as_object(), now.as_object()) {
        let under = |key: &String| if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        return a.iter().find_map(|(key, value)| difference_at(&under(key), value, b.get(key)?));
    }
    (before != now).then(|| format!("{name} was {before}, is now {now}"))
}
