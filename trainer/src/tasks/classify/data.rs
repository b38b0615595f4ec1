//! Labelled files as token ids.

use std::path::{Path, PathBuf};

use anyhow::Result;
use kinglet_data::dataset::{Dataset, Labels, ReadOptions};

use super::soft::Soft;
use crate::tokenizer::files::Encode;

/// A labelled file as token ids.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The file as typed.
    pub file: PathBuf,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// How it is read again.
    pub read: ReadOptions,
    /// Field of the labels.
    pub label_field: String,
    /// Token ids of each text.
    pub ids: Vec<Vec<u32>>,
    /// Class index of each text, or its class indices.
    pub labels: Labels,
    /// Texts truncated to the maximum length, or longer than it.
    pub cut: usize,
}

/// The files of a run, and the meaning of their labels.
#[derive(Debug)]
pub struct Data {
    /// Training data.
    pub train: Encoded,
    /// Soft labels of training data or of more texts.
    pub soft: Option<Soft>,
    /// Evaluation data.
    pub dev: Encoded,
    /// The evaluation data as JSON Lines, where they were split off the training file.
    pub split: Option<String>,
    /// Class names by index.
    pub labels: Vec<String>,
}

impl Encoded {
    /// Returns the texts of `file` as token ids.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn new(file: &Path, data: Dataset, encode: Encode<'_>) -> Result<Self> {
        let mut cut = 0;
        let ids = data.texts.iter().map(|text| encode(text, &mut cut)).collect::<Result<_>>()?;
        let Dataset { sha256, read, label_field, labels, .. } = data;
        Ok(Encoded { file: file.to_path_buf(), sha256, read, label_field, ids, labels, cut })
    }
}

impl Data {
    /// Returns the training texts as token ids: those of the training file, then those with soft labels alone.
    pub fn texts(&self) -> impl Iterator<Item = &[u32]> {
        self.train.ids.iter().chain(self.soft.iter().flat_map(|soft| &soft.ids)).map(Vec::as_slice)
    }

    /// Returns a training text, counted as in [`Data::texts`]; nothing past the last.
    pub fn text(&self, number: usize) -> &[u32] {
        let more = || self.soft.as_ref()?.ids.get(number.checked_sub(self.train.ids.len())?);
        self.train.ids.get(number).or_else(more).map_or(&[], Vec::as_slice)
    }
}
