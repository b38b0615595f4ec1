//! Results in `performance.json`, and reading and changing of result files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use kinglet_data::files::write_atomically;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::Provenance;
use crate::pairs::Quartiles;

/// All results. Each command replaces its own part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Performance {
    /// The native engine against peers, in pairs.
    pub speed: Vec<Comparison>,
    /// Peak memory by length.
    pub memory: Vec<Memory>,
    /// Time of the native engine by operation.
    pub profile: Vec<Profile>,
    /// The tokenizer compared with Hugging Face's.
    pub tokenizer: Option<Tokenizer>,
    /// CPU time of `kinglet classify` from its start to its end.
    pub cold_start: Option<ColdStart>,
}

/// The native engine compared with one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Where it was measured.
    pub provenance: Provenance,
    /// The set it belongs to, [`crate::peers::Group::name`].
    pub group: String,
    /// The models' size, [`crate::models::Size::name`].
    pub size: String,
    /// The side of Kinglet.
    pub ours: String,
    /// The peer and its variant.
    pub peer: String,
    /// The peer's version.
    pub version: String,
    /// Whether the peer computes in int8.
    pub int8: bool,
    /// Largest difference of their scores on 32 tokens, relative to the largest score; `None` for another model.
    pub difference: Option<f64>,
    /// By length, ascending.
    pub rows: Vec<Row>,
    /// Why longer lengths are missing.
    pub stopped: Option<String>,
}

/// One length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Length of the text, `T`.
    pub tokens: usize,
    /// Pairs measured.
    pub pairs: usize,
    /// CPU time of the peer relative to ours: above 1, Kinglet is faster.
    pub ratio: Quartiles,
    /// The same for wall time.
    pub ratio_wall: Quartiles,
    /// Median CPU time of one run of Kinglet in nanoseconds: raw data of this machine and hour.
    pub ours_ns: f64,
    /// The same for the peer.
    pub peer_ns: f64,
}

/// Peak memory of one engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Where it was measured.
    pub provenance: Provenance,
    /// The model's size.
    pub size: String,
    /// The mixer of the model.
    pub mixer: String,
    /// Engine and variant.
    pub engine: String,
    /// Bytes of the model's file.
    pub file: u64,
    /// By length, ascending; a process each.
    pub rows: Vec<MemoryRow>,
    /// Why longer lengths are missing.
    pub stopped: Option<String>,
}

/// One length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryRow {
    /// Length of the text, `T`.
    pub tokens: usize,
    /// Peak resident memory of the process in KiB.
    pub peak_kib: u64,
    /// The part that was there before the model was opened.
    pub before_kib: u64,
    /// Memory of no file that opening and running the model added and that was still held at the end.
    pub anonymous_kib: i64,
}

impl Memory {
    /// Returns the peak memory added by opening and running the model, without the size of its file.
    pub fn beyond_kib(&self, row: &MemoryRow) -> i64 {
        row.peak_kib as i64 - row.before_kib as i64 - self.file.div_ceil(1024) as i64
    }
}

/// Time by operation, measured in one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Where it was measured.
    pub provenance: Provenance,
    /// The model's size.
    pub size: String,
    /// The backend that ran.
    #[serde(alias = "kernels")]
    pub backend: String,
    /// Length of the text, `T`.
    pub tokens: usize,
    /// Operation and its share of the sum, in the order of the forward pass.
    pub shares: Vec<(String, f64)>,
    /// Sum of the operations relative to the time of the whole engine.
    pub accounted: f64,
    /// Products per second of the whole engine relative to the peak of its instructions; `None` if no peak is known.
    pub share_of_peak: Option<Quartiles>,
    /// The same for the matrix products alone.
    pub products_share_of_peak: Option<f64>,
}

/// The tokenizer compared with Hugging Face's, on one thread, with the same text and vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tokenizer {
    /// Where it was measured.
    pub provenance: Provenance,
    /// The text, by file name.
    pub text: String,
    /// Its bytes.
    pub bytes: usize,
    /// Ids returned by both, identical.
    pub ids: usize,
    /// Ids in the vocabulary.
    pub vocabulary: usize,
    /// Our megabytes (10⁶ bytes) per second.
    pub megabytes_per_second: Quartiles,
    /// Time of Hugging Face's `encode` relative to ours.
    pub ratio_encode: Quartiles,
    /// Time of Hugging Face's `encode_fast`, which omits offsets, relative to ours.
    pub ratio_encode_fast: Quartiles,
    /// Pairs measured.
    pub pairs: usize,
}

/// CPU time of whole processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    /// Where it was measured.
    pub provenance: Provenance,
    /// User and system time of a process in milliseconds.
    pub cpu_ms: Quartiles,
    /// The same for an empty program: the floor.
    pub floor_ms: Quartiles,
    /// Processes measured.
    pub runs: usize,
}

impl Performance {
    /// Reads a file; returns the empty result if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        read(path)
    }

    /// Reads a file, changes it and writes it.
    ///
    /// # Errors
    /// As [`Self::read`], and if it cannot be written.
    pub fn change(path: &Path, change: impl FnOnce(&mut Self)) -> Result<()> {
        self::change(path, change)
    }

    /// Adds a comparison, replacing an older one of the same two.
    pub fn put_comparison(&mut self, new: Comparison) {
        put(&mut self.speed, new, |c| (c.group.clone(), c.size.clone(), c.peer.clone()));
    }

    /// Adds the memory of an engine, replacing an older one.
    pub fn put_memory(&mut self, new: Memory) {
        put(&mut self.memory, new, |m| (m.size.clone(), m.mixer.clone(), m.engine.clone()));
    }

    /// Adds a profile, replacing an older one.
    pub fn put_profile(&mut self, new: Profile) {
        put(&mut self.profile, new, |p| (p.size.clone(), p.backend.clone(), p.tokens));
    }
}

/// Reads a file of results; returns the empty one if it does not exist.
///
/// # Errors
/// If it cannot be read or holds something else.
pub fn read<R: Default + DeserializeOwned>(path: &Path) -> Result<R> {
    if !path.exists() {
        return Ok(R::default());
    }
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}

/// Reads a file of results, changes it and writes it.
///
/// # Errors
/// As [`read`], and if it cannot be written.
pub fn change<R: Default + DeserializeOwned + Serialize>(path: &Path, change: impl FnOnce(&mut R)) -> Result<()> {
    let mut results = read(path)?;
    change(&mut results);
    let mut json = serde_json::to_vec_pretty(&results)?;
    json.push(b'\n');
    write_atomically(path, &json).with_context(|| format!("cannot write {}", path.display()))
}

/// Adds `new`, replacing an older one with the same key.
pub fn put<T, K: PartialEq>(list: &mut Vec<T>, new: T, key: impl Fn(&T) -> K) {
    match list.iter_mut().find(|old| key(old) == key(&new)) {
        Some(old) => *old = new,
        None => list.push(new),
    }
}
