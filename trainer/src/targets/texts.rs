//! The texts that targets belong to.
//!
//! A file has one text per line or row, in order; texts of white space alone are left out
//! ([`DocumentEnd::Line`]). Whoever writes or reads targets reads its texts here, so that rows and texts meet.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kinglet_data::dataset::{self, DataError, DocumentEnd, Documents, ReadOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::interrupt::Interrupt;

/// Texts between two looks at [`Interrupt`].
const INTERVAL: u64 = 4096;

/// A file with texts, and a digest by which they are recognized.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// File name, without folders.
    pub file: String,
    /// Number of its texts.
    pub texts: u64,
    /// SHA-256 of its texts ([`TextDigest`]); neither compression nor other fields affect it.
    pub sha256: String,
}

/// Digest of texts: SHA-256 of each text's length in bytes, as u64 in little-endian order, and its bytes.
#[derive(Clone, Debug, Default)]
pub struct TextDigest {
    hasher: Sha256,
    texts: u64,
}

impl TextDigest {
    /// Adds the next text.
    pub fn push(&mut self, text: &str) {
        self.hasher.update((text.len() as u64).to_le_bytes());
        self.hasher.update(text);
        self.texts += 1;
    }

    /// Returns the record of the file `path`, all of whose texts were added.
    pub fn finish(self, path: &Path) -> TextFile {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        TextFile { file, texts: self.texts, sha256: format!("{:x}", self.hasher.finalize()) }
    }
}

/// Returns the texts of a file, one by one: the lines of a text file, the texts of the rows of other files.
///
/// # Errors
/// If the file cannot be opened; the iterator yields an error for a malformed row.
pub fn texts(path: &Path, read: &ReadOptions) -> Result<Documents, DataError> {
    dataset::documents(path, read, DocumentEnd::Line)
}

/// What a first reading of text files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The files' records, in order.
    pub files: Vec<TextFile>,
    /// Texts that were not valid UTF-8; what is not is read as U+FFFD.
    pub replaced: u64,
}

/// Reads all texts of `files` once; they can be read again afterwards.
///
/// # Errors
/// If a file cannot be read twice, as a pipe, or at all, has no texts, or `interrupt` was requested.
pub fn survey(files: &[PathBuf], read: &ReadOptions, interrupt: &Interrupt) -> Result<Survey> {
    // All files are looked at before the first is read: that may take long.
    for path in files {
        let kind = path.metadata().with_context(|| format!("cannot read {}", path.display()))?.file_type();
        ensure!(
            kind.is_file() || kind.is_dir(),
            "{} is not a regular file, but it is read twice; save its texts in a file first",
            path.display()
        );
    }
    let mut replaced = 0;
    let record = |path: &PathBuf| {
        let mut digest = TextDigest::default();
        let mut texts = texts(path, read)?;
        for text in texts.by_ref() {
            digest.push(&text?);
            let stop = digest.texts.is_multiple_of(INTERVAL) && interrupt.requested();
            ensure!(!stop, "stopped by a signal while reading {}", path.display());
        }
        ensure!(digest.texts > 0, "{} has no texts; leave it out", path.display());
        replaced += texts.replaced();
        Ok(digest.finish(path))
    };
    let files = files.iter().map(record).collect::<Result<_>>()?;
    Ok(Survey { files, replaced })
}
