//! Labelled files as token ids.

use std::path::{Path, PathBuf};

use kinglet::tokenizer::Table;
use kinglet_data::dataset::Dataset;

use crate::tokenizer::files::encode;

/// A labelled file as token ids.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The file as typed.
    pub file: PathBuf,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Token ids of each text, `</s>` last.
    pub ids: Vec<Vec<u32>>,
    /// Class index of each text.
    pub labels: Vec<usize>,
    /// Texts truncated to `train.max_length`.
    pub cut: usize,
}

/// The files of a run, and the meaning of their labels.
#[derive(Debug)]
pub struct Data {
    /// Training data.
    pub train: Encoded,
    /// Evaluation data.
    pub dev: Encoded,
    /// Class names by index.
    pub labels: Vec<String>,
    /// Field of the labels.
    pub label_field: String,
}

impl Encoded {
    /// Returns the texts of `file` as token ids, truncated to `max_length` (0 for never) with `</s>` kept last.
    pub fn new(file: &Path, data: Dataset, table: &Table<'_>, max_length: usize) -> Self {
        let mut cut = 0;
        let ids = data.texts.iter().map(|text| encode(table, text, max_length, &mut cut)).collect();
        Encoded { file: file.to_path_buf(), sha256: data.sha256, ids, labels: data.labels, cut }
    }
}
