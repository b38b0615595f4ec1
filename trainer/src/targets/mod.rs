//! Targets of distillation: for each text a row of a teacher's numbers, read in place.
//!
//! # Folder, version 1
//! `kinglet-train teacher` writes a folder with [`manifest::MANIFEST`] (`targets.json`, the fields of
//! [`Manifest`]), which appears last, and one safetensors file per `rows_per_shard` texts, `vectors-00000.safetensors` and so on.
//! Row `i` of all shards together belongs to text `i` of the files ([`mod@texts`] says which texts a file has). Tensors of a shard
//! with `N` texts of `M` tokens in total, for a teacher of `C` channels and `K` classes:
//!
//! | tensor | shape | type | present |
//! |---|---|---|---|
//! | `vectors` | `[N, D]` | F16, or I8 for `dtype` int8 | always |
//! | `scales` | `[N]` | F32 | int8: `vector = scale · int8` ([`kinglet::quant`]) |
//! | `probabilities` | `[N, K]` | F32, each row sums to 1 unless `multi_label` | `classes` is not empty |
//! | `token_begins` | `[N + 1]` | I64, text `i` has the tokens `token_begins[i]..token_begins[i + 1]` | `token_vectors` |
//! | `token_ids` | `[M]` | I32, ids of the teacher's tokenizer | `token_vectors` |
//! | `token_spans` | `[M, 2]` | I32, the token's bytes of the text, end excluded; 0, 0 for tokens that are not of the text | `token_vectors` |
//! | `token_vectors` | `[M, C]` | as `vectors` | `token_vectors` |
//! | `token_scales` | `[M]` | F32 | int8 and `token_vectors` |
//!
//! # One file
//! Vectors of any other origin come as a table with one row per text: a NumPy file (`.npy`, f16, f32 or f64, C order), a safetensors
//! file with one tensor (`[N, D]`, F16, BF16, F32 or F64), or a Parquet file with one column of lists of floating-point numbers.

pub mod manifest;
mod matrix;
mod parquet;
pub mod shard;
pub mod texts;
mod tokens;
pub mod write;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

pub use manifest::{Dtype, Manifest, TeacherRecord};
use matrix::Matrix;
use shard::Shard;
pub use texts::TextFile;
pub use tokens::Tokens;

/// A teacher's vectors by text, and what else it said about the texts. May be read from several threads at once.
#[derive(Debug)]
pub struct Targets {
    rows: Rows,
    len: usize,
    dimension: usize,
}

#[derive(Debug)]
enum Rows {
    Folder { manifest: Box<Manifest>, shards: Vec<Shard> },
    Table(Matrix),
}

impl Targets {
    /// Opens a folder written by `kinglet-train teacher`, or a `.npy`, `.safetensors` or `.parquet` file.
    ///
    /// Folders, `.npy` and `.safetensors` are mapped: rows are read on demand. A Parquet file is decoded into memory, 4·N·D bytes. A
    /// single file is read once, on all cores, to check that its numbers are finite; those of a folder were checked when they were
    /// written.
    ///
    /// # Errors
    /// If `path` is of another kind, damaged or unfinished, has no rows or no columns, or holds a number that is not finite.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::open_folder(path).with_context(|| path.display().to_string());
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let read = match extension.as_str() {
            "npy" => Matrix::npy,
            "safetensors" => Matrix::safetensors,
            "parquet" => parquet::read,
            _ => bail!(
                "{}: targets are a folder of kinglet-train teacher or a file named .npy, .safetensors or .parquet",
                path.display()
            ),
        };
        let table = read(path).and_then(Self::table).with_context(|| path.display().to_string())?;
        Ok(table)
    }

    fn table(table: Matrix) -> Result<Self> {
        let (len, dimension) = (table.rows(), table.columns());
        ensure!(len > 0 && dimension > 0, "the table is empty: its shape is [{len}, {dimension}]");
        let finite = |row: &mut Vec<f32>, i: usize| {
            table.row(i, row);
            row.iter().all(|x| x.is_finite())
        };
        let bad = (0..len)
            .into_par_iter()
            .map_init(|| vec![0.0; dimension], |row, i| (i, finite(row, i)))
            .find_first(|(_, finite)| !finite);
        if let Some((i, _)) = bad {
            bail!("row {i} (from 0) has a number that is not finite");
        }
        Ok(Targets { rows: Rows::Table(table), len, dimension })
    }

    fn open_folder(dir: &Path) -> Result<Self> {
        let manifest = Manifest::read(dir)?;
        let (len, dimension) = (usize::try_from(manifest.texts)?, manifest.dimension);
        let shards =
            (0..manifest.shards()?).map(|index| Shard::open(dir, index, &manifest)).collect::<Result<Vec<_>>>()?;
        Ok(Targets { rows: Rows::Folder { manifest: Box::new(manifest), shards }, len, dimension })
    }

    /// Returns the number of texts, at least 1.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of channels of a vector, at least 1.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Returns the record of a folder: teacher, texts, what was written; `None` for a single file.
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.rows {
            Rows::Folder { manifest, .. } => Some(manifest),
            Rows::Table(_) => None,
        }
    }

    /// Copies the vector of text `i` to `out`: `[D]`.
    ///
    /// Does not allocate.
    ///
    /// # Panics
    /// If `i` is not below [`Targets::len`], or `out` does not have [`Targets::dimension`] elements.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        match &self.rows {
            Rows::Folder { .. } => {
                let (shard, i) = self.place(i);
                shard.vector(i, out);
            }
            Rows::Table(table) => table.row(i, out),
        }
    }

    /// Returns the names of the teacher's classes; none without probabilities.
    pub fn classes(&self) -> &[String] {
        self.manifest().map_or(&[], |manifest| &manifest.classes)
    }

    /// Copies the probabilities of the classes for text `i` to `out`: `[K]`.
    ///
    /// # Panics
    /// If `i` is not below [`Targets::len`], or `out` does not have an element per class.
    pub fn probabilities(&self, i: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.classes().len(), "a probability per class");
        if !out.is_empty() {
            let (shard, i) = self.place(i);
            shard.probabilities(i, out);
        }
    }

    /// Returns whether the targets have a vector per token.
    pub fn has_tokens(&self) -> bool {
        self.manifest().is_some_and(|manifest| manifest.token_vectors)
    }

    /// Reads the tokens of text `i` into `out`, which is empty afterwards if there are none ([`Targets::has_tokens`]).
    ///
    /// # Panics
    /// If `i` is not below [`Targets::len`].
    pub fn tokens(&self, i: usize, out: &mut Tokens) {
        out.ids.clear();
        out.spans.clear();
        out.vectors.clear();
        if self.has_tokens() {
            let (shard, i) = self.place(i);
            shard.tokens(i, out);
        }
    }

    /// Checks that row `i` belongs to text `i` of `files`: the same texts in the same files' order for a folder, the same number for a
    /// single file, which does not name its texts.
    ///
    /// # Errors
    /// If they differ; the message names the first file that does and both numbers.
    pub fn check(&self, files: &[TextFile]) -> Result<()> {
        let texts: u64 = files.iter().map(|file| file.texts).sum();
        ensure!(
            texts == self.len as u64,
            "{texts} texts, but targets for {}: the files must be those, in that order, that the teacher read",
            self.len
        );
        let made_for = self.manifest().map_or(&[][..], |manifest| &manifest.files);
        for (file, made_for) in files.iter().zip(made_for) {
            ensure!(
                (file.texts, &file.sha256) == (made_for.texts, &made_for.sha256),
                "the targets were made for the {} texts of {} (SHA-256 {}), {} has {} texts (SHA-256 {})",
                made_for.texts,
                made_for.file,
                made_for.sha256,
                file.file,
                file.texts,
                file.sha256
            );
        }
        Ok(())
    }

    /// Checks, on all cores, that the cosine to each vector is defined. Reads every row.
    ///
    /// # Errors
    /// The first row whose length is 0 or whose squared length f32 cannot hold.
    pub fn check_lengths(&self) -> Result<()> {
        let square = |row: &mut Vec<f32>, i: usize| {
            self.row(i, row);
            (i, row.iter().map(|x| x * x).sum::<f32>(), row.iter().all(|&x| x == 0.0))
        };
        let bad = (0..self.len)
            .into_par_iter()
            .map_init(|| vec![0.0; self.dimension], square)
            .find_first(|(_, square, _)| !square.is_normal());
        match bad {
            Some((i, _, true)) => bail!("row {i} (from 0) has length 0: a cosine to it is undefined"),
            Some((i, ..)) => {
                bail!("row {i} (from 0) is too long or too short for its squared length in f32: rescale it")
            }
            None => Ok(()),
        }
    }

    /// Returns the shard of text `i`, and its row there.
    fn place(&self, i: usize) -> (&Shard, usize) {
        match &self.rows {
            Rows::Folder { manifest, shards } => {
                let rows = manifest.rows_per_shard as usize;
                (&shards[i / rows], i % rows)
            }
            Rows::Table(_) => unreachable!("a table has no shards"),
        }
    }
}
