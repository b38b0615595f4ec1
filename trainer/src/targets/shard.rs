//! One file of a folder of targets. [`super`] describes its tensors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use half::f16;
use kinglet::quant::quantize;
use kinglet_data::files::write_atomically;
use safetensors::{Dtype as Stored, tensor::TensorView};

use super::manifest::{Dtype, Manifest};
use super::matrix::{Matrix, Number, Tensors};
use super::tokens::Tokens;

/// Name of the shard numbered `index` inside a folder of targets.
pub fn file_name(index: u32) -> String {
    format!("vectors-{index:05}.safetensors")
}

/// A readable shard.
#[derive(Debug)]
pub(super) struct Shard {
    vectors: Rows,
    probabilities: Option<Matrix>,
    tokens: Option<TokenRows>,
}

#[derive(Debug)]
struct TokenRows {
    begins: Matrix,
    ids: Matrix,
    spans: Matrix,
    vectors: Rows,
    channels: usize,
}

/// Vectors, with a scale each if they are int8.
#[derive(Debug)]
struct Rows {
    values: Matrix,
    scales: Option<Matrix>,
}

impl Rows {
    fn take(file: &Tensors, [values, scales]: [&str; 2], shape: [usize; 2], dtype: Dtype) -> Result<Self> {
        Ok(match dtype {
            Dtype::F16 => Rows { values: file.take(values, &shape, Number::F16)?, scales: None },
            Dtype::Int8 => Rows {
                values: file.take(values, &shape, Number::I8)?,
                scales: Some(file.take(scales, &shape[..1], Number::F32)?),
            },
        })
    }

    fn row(&self, i: usize, out: &mut [f32]) {
        self.values.row(i, out);
        if let Some(scales) = &self.scales {
            let mut scale = [0.0];
            scales.row(i, &mut scale);
            out.iter_mut().for_each(|x| *x *= scale[0]);
        }
    }
}

impl Shard {
    /// Maps a shard and checks that its tensors have the shapes and types that `manifest` says, and that its tokens are in order.
    pub(super) fn open(dir: &Path, index: u32, manifest: &Manifest) -> Result<Self> {
        let name = file_name(index);
        Self::read(&dir.join(&name), manifest.rows_of(index), manifest).with_context(|| name)
    }

    fn read(path: &Path, rows: usize, manifest: &Manifest) -> Result<Self> {
        let file = Tensors::open(path)?;
        let vectors = Rows::take(&file, ["vectors", "scales"], [rows, manifest.dimension], manifest.dtype)?;
        let classes = manifest.classes.len();
        let probabilities =
            (classes > 0).then(|| file.take("probabilities", &[rows, classes], Number::F32)).transpose()?;
        let tokens = manifest.token_vectors.then(|| TokenRows::take(&file, rows, manifest)).transpose()?;
        Ok(Shard { vectors, probabilities, tokens })
    }

    pub(super) fn vector(&self, i: usize, out: &mut [f32]) {
        self.vectors.row(i, out);
    }

    pub(super) fn probabilities(&self, i: usize, out: &mut [f32]) {
        if let Some(probabilities) = &self.probabilities {
            probabilities.row(i, out);
        }
    }

    pub(super) fn tokens(&self, i: usize, out: &mut Tokens) {
        let Some(tokens) = &self.tokens else { return };
        let rows = tokens.begins.integer(i, 0) as usize..tokens.begins.integer(i + 1, 0) as usize;
        out.vectors.resize(rows.len() * tokens.channels, 0.0);
        for (row, vector) in rows.zip(out.vectors.chunks_exact_mut(tokens.channels)) {
            out.ids.push(tokens.ids.integer(row, 0) as u32);
            out.spans.push((tokens.spans.integer(row, 0) as u32, tokens.spans.integer(row, 1) as u32));
            tokens.vectors.row(row, vector);
        }
    }
}

impl TokenRows {
    fn take(file: &Tensors, rows: usize, manifest: &Manifest) -> Result<Self> {
        let (count, channels) = (file.rows("token_ids"), manifest.dimension);
        let begins = file.take("token_begins", &[rows + 1], Number::I64)?;
        let begin = |i| begins.integer(i, 0);
        let ordered = begin(0) == 0 && begin(rows) == count as i64 && (0..rows).all(|i| begin(i) <= begin(i + 1));
        ensure!(ordered, "is damaged: its token_begins are not in order from 0 to {count}");
        Ok(TokenRows {
            ids: file.take("token_ids", &[count], Number::I32)?,
            spans: file.take("token_spans", &[count, 2], Number::I32)?,
            vectors: Rows::take(file, ["token_vectors", "token_scales"], [count, channels], manifest.dtype)?,
            begins,
            channels,
        })
    }
}

/// What a teacher says about the texts of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardData {
    /// Vectors of the texts: `[N, D]`.
    pub vectors: Vec<f32>,
    /// Probabilities of the classes: `[N, K]`; empty without.
    pub probabilities: Vec<f32>,
    /// Tokens of each text: `[N]`; empty without.
    pub tokens: Vec<Tokens>,
}

/// Writes the shard numbered `index` of `manifest` into `dir`, atomically.
///
/// # Errors
/// If `data` does not have the rows of the shard, a number is not finite in the type of the vectors, or the file cannot be written.
pub fn write(dir: &Path, index: u32, manifest: &Manifest, data: &ShardData) -> Result<PathBuf> {
    let (rows, width, classes) = (manifest.rows_of(index), manifest.dimension, manifest.classes.len());
    let counts = (data.vectors.len(), data.probabilities.len(), data.tokens.len());
    let want = (rows * width, rows * classes, if manifest.token_vectors { rows } else { 0 });
    ensure!(counts == want, "shard {index} has {counts:?} vectors, probabilities and tokens, must have {want:?}");
    let mut file = Sections(Vec::new());
    file.vectors(["vectors", "scales"], &data.vectors, [rows, width], manifest.dtype)?;
    if classes > 0 {
        ensure!(data.probabilities.iter().all(|p| p.is_finite()), "a probability is not finite");
        file.push("probabilities", Stored::F32, &[rows, classes], data.probabilities.iter().map(|p| p.to_le_bytes()));
    }
    if manifest.token_vectors {
        let begins = data.tokens.iter().scan(0, |end, text| {
            *end += text.ids.len() as i64;
            Some(*end)
        });
        let begins: Vec<i64> = std::iter::once(0).chain(begins).collect();
        let count = begins.last().map_or(0, |&end| end as usize);
        let tokens = || data.tokens.iter();
        let ids = tokens().flat_map(|text| &text.ids);
        let spans = tokens().flat_map(|text| &text.spans).flat_map(|&(begin, end)| [begin, end]);
        let vectors: Vec<f32> = tokens().flat_map(|text| &text.vectors).copied().collect();
        ensure!(vectors.len() == count * width, "shard {index} has {} numbers for {count} tokens", vectors.len());
        file.push("token_begins", Stored::I64, &[rows + 1], begins.iter().map(|begin| begin.to_le_bytes()));
        file.push("token_ids", Stored::I32, &[count], ids.map(|id| id.to_le_bytes()));
        file.push("token_spans", Stored::I32, &[count, 2], spans.map(u32::to_le_bytes));
        file.vectors(["token_vectors", "token_scales"], &vectors, [count, width], manifest.dtype)?;
    }
    let path = dir.join(file_name(index));
    write_atomically(&path, &file.serialize()?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Named tensors of a safetensors file to write.
struct Sections(Vec<(&'static str, Stored, Vec<usize>, Vec<u8>)>);

impl Sections {
    fn push<const N: usize>(
        &mut self,
        name: &'static str,
        stored: Stored,
        shape: &[usize],
        numbers: impl Iterator<Item = [u8; N]>,
    ) {
        self.0.push((name, stored, shape.to_vec(), numbers.flatten().collect()));
    }

    /// Adds `[N, C]` vectors, rounded to the nearest f16, or to int8 by the rule of [`kinglet::quant`].
    fn vectors(&mut self, names: [&'static str; 2], rows: &[f32], shape: [usize; 2], dtype: Dtype) -> Result<()> {
        let overflow = rows.iter().position(|&x| !match dtype {
            Dtype::F16 => f16::from_f32(x).is_finite(),
            Dtype::Int8 => x.is_finite(),
        });
        if let Some(at) = overflow {
            let row = at.checked_div(shape[1]).unwrap_or(0);
            anyhow::bail!("{}: {} in row {row} of the shard is not finite as {dtype:?}", names[0], rows[at]);
        }
        match dtype {
            Dtype::F16 => {
                self.push(names[0], Stored::F16, &shape, rows.iter().map(|&x| f16::from_f32(x).to_le_bytes()));
            }
            Dtype::Int8 => {
                let mut values = vec![0i8; rows.len()];
                let pairs = rows.chunks_exact(shape[1]).zip(values.chunks_exact_mut(shape[1]));
                let scales: Vec<f32> = pairs.map(|(row, out)| quantize(row, out)).collect();
                self.push(names[0], Stored::I8, &shape, values.iter().map(|x| x.to_le_bytes()));
                self.push(names[1], Stored::F32, &shape[..1], scales.iter().map(|x| x.to_le_bytes()));
            }
        }
        Ok(())
    }

    fn serialize(&self) -> Result<Vec<u8>> {
        let views = self
            .0
            .iter()
            .map(|(name, stored, shape, data)| Ok((*name, TensorView::new(*stored, shape.clone(), data)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(safetensors::serialize(views, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))?)
    }
}
