//! The record of a folder of targets, `targets.json`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::texts::TextFile;

/// File name of the record. Written last: a folder that has it is complete.
pub const MANIFEST: &str = "targets.json";
/// File name of the record while shards are being written.
pub const UNFINISHED: &str = "targets.unfinished.json";
/// Version of the format that this program writes and reads.
pub const VERSION: u32 = 1;

/// Type of the numbers of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Two bytes each.
    #[default]
    F16,
    /// One byte each, and a scale per vector.
    Int8,
}

/// The teacher and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherRecord {
    /// Name of its folder.
    pub name: String,
    /// SHA-256 of `model.safetensors`.
    pub weights_sha256: String,
    /// SHA-256 of `tokenizer.json`.
    pub tokenizer_sha256: String,
    /// How a text's vector comes from those of its tokens: `mean` or `cls`.
    pub pooling: String,
    /// Whether vectors have length 1.
    pub normalized: bool,
    /// Text put before each text; empty for none.
    pub prompt: String,
    /// Longest input in tokens, special ones included; longer texts are truncated.
    pub max_length: usize,
    /// Kind of numbers that it computed with: `f32` or `bf16`.
    pub precision: String,
    /// Tokens per batch, padding included, which decides the last bits of its numbers.
    pub batch_tokens: usize,
}

/// What a sentence encoder's classes come from: labelled texts that a classifier was fitted to ([`crate::teacher::labelled`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledRecord {
    /// File name of the labelled texts, without folders.
    pub file: String,
    /// SHA-256 of the file's bytes.
    pub sha256: String,
    /// Number of labelled texts.
    pub texts: u64,
    /// Weight of the encoder's vector beside the words' in a text's features.
    pub scale: f64,
    /// `C` of the logistic regression.
    pub strength: f64,
    /// Accuracy on held-out labelled texts, in percent; where any number of labels may apply, the mean log likelihood of a label, in nats.
    pub held_out: f64,
}

/// What a folder of targets holds, and how it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format: [`VERSION`].
    pub version: u32,
    /// The teacher.
    pub teacher: TeacherRecord,
    /// Channels of a text's vector.
    pub dimension: usize,
    /// Type of the vectors' numbers.
    pub dtype: Dtype,
    /// Whether there is a vector per token.
    pub token_vectors: bool,
    /// Names of the classes whose probabilities are given; empty without.
    pub classes: Vec<String>,
    /// Whether any number of the classes may apply to a text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multi_label: bool,
    /// The labelled texts that the classes come from, if a classifier was fitted to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled: Option<LabelledRecord>,
    /// Number of texts.
    pub texts: u64,
    /// Texts per shard; the last one may have fewer.
    pub rows_per_shard: u64,
    /// The text files, in order.
    pub files: Vec<TextFile>,
}

impl LabelledRecord {
    /// Returns in words how good the classifier is on held-out texts; `several`: any number of labels may apply to a text.
    pub fn words(&self, several: bool) -> String {
        if several {
            format!("log likelihood {:.4} of a label of held-out texts", self.held_out)
        } else {
            format!("{:.1}% right on held-out texts", self.held_out)
        }
    }
}

impl Manifest {
    /// Reads the record of a complete folder.
    ///
    /// # Errors
    /// If the folder has none or an unfinished one, or the record is malformed or contradicts itself.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        if !path.exists() {
            ensure!(
                !dir.join(UNFINISHED).exists(),
                "the targets are unfinished; the command that began them, with --resume, finishes them"
            );
            bail!("the folder has no {MANIFEST}; kinglet-train teacher writes targets");
        }
        Self::parse(&path)
    }

    /// Reads a record from a file.
    ///
    /// # Errors
    /// If it cannot be read, is malformed or contradicts itself.
    pub fn parse(path: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read(path).with_context(|| format!("cannot read {name}"))?;
        let version = serde_json::from_slice::<Versioned>(&text).with_context(|| name.clone())?.version;
        ensure!(version == VERSION, "{name} has version {version} of the format, this program reads {VERSION}");
        let manifest: Manifest = serde_json::from_slice(&text).with_context(|| name.clone())?;
        let listed = manifest.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.texts));
        ensure!(
            manifest.texts > 0 && manifest.dimension > 0 && manifest.rows_per_shard > 0,
            "{name} speaks of {} texts, {} channels, {} texts per shard: none of them may be 0",
            manifest.texts,
            manifest.dimension,
            manifest.rows_per_shard
        );
        ensure!(listed == Some(manifest.texts), "{name} has {} texts, but its files have {listed:?}", manifest.texts);
        Ok(manifest)
    }

    /// Returns the number of shards.
    ///
    /// # Errors
    /// If it does not fit in 32 bits.
    pub fn shards(&self) -> Result<u32> {
        let shards = self.texts.div_ceil(self.rows_per_shard);
        u32::try_from(shards).with_context(|| format!("{shards} shards are too many; use more texts per shard"))
    }

    /// Returns the number of texts of a shard.
    pub fn rows_of(&self, shard: u32) -> usize {
        let before = u64::from(shard) * self.rows_per_shard;
        self.texts.saturating_sub(before).min(self.rows_per_shard) as usize
    }
}
