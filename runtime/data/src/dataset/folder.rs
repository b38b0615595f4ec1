//! A folder with a folder of texts per class.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::DataError;
use super::lines::too_long;
use super::open::MAX_ROW_BYTES;
use super::row::{Kept, Row};
use crate::digest;

/// The texts of a folder, with the names of their folders as labels, and the digest of both.
pub(super) fn read(path: &Path) -> Result<(Vec<Row>, String), DataError> {
    let whole = |what: String| DataError::Whole { path: path.to_path_buf(), what };
    let mut rows = Vec::new();
    let mut hasher = Sha256::new();
    for class in entries(path)?.iter().filter(|class| class.is_dir()) {
        let label = name(class).ok_or_else(|| whole(format!("the name {} is not valid UTF-8", class.display())))?;
        for file in entries(class)?.iter().filter(|file| file.is_file()) {
            let io = |source| DataError::Io { path: file.clone(), source };
            let mut bytes = Vec::new();
            File::open(file).map_err(io)?.take(MAX_ROW_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
            if bytes.len() as u64 > MAX_ROW_BYTES {
                return Err(DataError::Whole { path: file.clone(), what: too_long() });
            }
            let name = name(file).unwrap_or_default();
            hasher.update(format!("{label}/{name}\0{}\n", digest::sha256(&bytes)));
            let bytes = bytes.strip_prefix(super::open::MARK).unwrap_or(&bytes);
            let Ok(text) = std::str::from_utf8(bytes) else {
                return Err(DataError::Whole { path: file.clone(), what: super::open::not_utf8(bytes) });
            };
            let text = text.trim_end_matches(['\n', '\r']).to_string();
            rows.push(Row::new(rows.len() + 1, text, Some(label.into()), Kept::Nothing));
        }
    }
    if rows.is_empty() {
        return Err(whole("it is a folder, but has no folder of texts per class".to_string()));
    }
    Ok((rows, format!("{:x}", hasher.finalize())))
}

/// Returns what a folder holds, sorted; hidden files are left out.
fn entries(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: path.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
