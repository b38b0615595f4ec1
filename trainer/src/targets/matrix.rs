//! A table of numbers in a mapped file.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use kinglet::mmap::Mapped;
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

/// How a number is stored, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I32,
    I64,
}

impl Number {
    fn bytes(self) -> usize {
        match self {
            Number::I8 => 1,
            Number::F16 | Number::Bf16 => 2,
            Number::F32 | Number::I32 => 4,
            Number::F64 | Number::I64 => 8,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Number::F16 | Number::Bf16 | Number::F32 | Number::F64)
    }

    fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F16 => Number::F16,
            Dtype::BF16 => Number::Bf16,
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            Dtype::I8 => Number::I8,
            Dtype::I32 => Number::I32,
            Dtype::I64 => Number::I64,
            _ => return None,
        })
    }
}

#[derive(Debug)]
enum Bytes {
    Mapped(Arc<Mapped>),
    Owned(Vec<f32>),
}

/// Numbers in rows of equal length, `[N, C]`; the length of the bytes was checked.
#[derive(Debug)]
pub(super) struct Matrix {
    bytes: Bytes,
    /// Where the first row begins.
    begin: usize,
    rows: usize,
    columns: usize,
    number: Number,
}

/// A mapped safetensors file.
pub(super) struct Tensors {
    file: Arc<Mapped>,
    begin: usize,
    metadata: Metadata,
}

impl Tensors {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = Mapped::open(path).context("cannot open the file")?;
        let (header, metadata) = SafeTensors::read_metadata(file.as_slice()).context("is not safetensors")?;
        Ok(Tensors { file: Arc::new(file), begin: 8 + header, metadata })
    }

    /// Returns the tensor `name`, which must have the given shape and type; vectors count as one column.
    pub(super) fn take(&self, name: &str, shape: &[usize], number: Number) -> Result<Matrix> {
        let info = self.metadata.info(name).with_context(|| format!("tensor {name} is missing"))?;
        ensure!(
            info.shape == shape && Number::of(info.dtype) == Some(number),
            "tensor {name} is {:?} of shape {:?}, {number:?} of shape {shape:?} is expected",
            info.dtype,
            info.shape
        );
        let columns = shape.get(1).copied().unwrap_or(1);
        let rows = shape.first().copied().unwrap_or(0);
        Ok(self.matrix(info.data_offsets.0, rows, columns, number))
    }

    /// Returns the number of rows of the tensor `name`, or 0 if it is missing.
    pub(super) fn rows(&self, name: &str) -> usize {
        self.metadata.info(name).and_then(|info| info.shape.first().copied()).unwrap_or(0)
    }

    fn matrix(&self, offset: usize, rows: usize, columns: usize, number: Number) -> Matrix {
        let (bytes, begin) = (Bytes::Mapped(Arc::clone(&self.file)), self.begin + offset);
        Matrix { bytes, begin, rows, columns, number }
    }
}

impl Matrix {
    /// Takes `[N, C]` numbers, row after row.
    pub(super) fn owned(numbers: Vec<f32>, columns: usize) -> Self {
        let rows = numbers.len().checked_div(columns).unwrap_or(0);
        Matrix { bytes: Bytes::Owned(numbers), begin: 0, rows, columns, number: Number::F32 }
    }

    /// Maps a safetensors file with one tensor.
    pub(super) fn safetensors(path: &Path) -> Result<Self> {
        let file = Tensors::open(path)?;
        let tensors = file.metadata.tensors();
        let mut names: Vec<&String> = tensors.keys().collect();
        names.sort();
        let [name] = names[..] else {
            bail!("has {} tensors {names:?}, must have one with a row per text", names.len())
        };
        let info = tensors[name];
        let number = Number::of(info.dtype).filter(|number| number.is_float());
        match (&info.shape[..], number) {
            (&[rows, columns], Some(number)) => Ok(file.matrix(info.data_offsets.0, rows, columns, number)),
            _ => bail!(
                "tensor {name} is {:?} of shape {:?}, must be F16, BF16, F32 or F64 of shape [texts, channels]",
                info.dtype,
                info.shape
            ),
        }
    }

    /// Maps a NumPy file (format versions 1 to 3 of `numpy.lib.format`).
    pub(super) fn npy(path: &Path) -> Result<Self> {
        let file = Mapped::open(path).context("cannot open the file")?;
        let bytes = file.as_slice();
        let rest = bytes.strip_prefix(b"\x93NUMPY").context("is not a NumPy file (.npy)")?;
        let (before, length) = match *rest {
            [1, _, a, b, ..] => (10, u16::from_le_bytes([a, b]) as usize),
            [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([a, b, c, d]) as usize),
            _ => bail!("is a NumPy file of an unknown version or is truncated"),
        };
        let header = bytes.get(before..).and_then(|rest| rest.get(..length)).context("is truncated")?;
        let (number, [rows, columns]) = npy_header(std::str::from_utf8(header).context("its header is not UTF-8")?)?;
        let begin = before + length;
        let need = rows.checked_mul(columns).and_then(|n| n.checked_mul(number.bytes())?.checked_add(begin));
        ensure!(
            need == Some(bytes.len()),
            "is truncated or damaged: {} bytes for shape [{rows}, {columns}] of {number:?}",
            bytes.len()
        );
        Ok(Matrix { bytes: Bytes::Mapped(Arc::new(file)), begin, rows, columns, number })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Copies row `i` to `out`.
    ///
    /// # Panics
    /// If there is no such row or `out` has another length.
    pub(super) fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.rows && out.len() == self.columns, "row {i} of {}, {} numbers", self.rows, out.len());
        let file = match &self.bytes {
            Bytes::Owned(numbers) => return out.copy_from_slice(&numbers[i * self.columns..][..self.columns]),
            Bytes::Mapped(file) => file.as_slice(),
        };
        let width = self.columns * self.number.bytes();
        let bytes = &file[self.begin + i * width..][..width];
        match self.number {
            Number::F16 => convert(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Number::Bf16 => convert(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Number::F32 => convert(bytes, out, f32::from_le_bytes),
            Number::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Number::I8 => convert(bytes, out, |[b]: [u8; 1]| f32::from(b as i8)),
            Number::I32 => convert(bytes, out, |b| i32::from_le_bytes(b) as f32),
            Number::I64 => convert(bytes, out, |b| i64::from_le_bytes(b) as f32),
        }
    }

    /// Returns an integer.
    ///
    /// # Panics
    /// If it lies outside the table, or the table holds other numbers.
    pub(super) fn integer(&self, row: usize, column: usize) -> i64 {
        assert!(row < self.rows && column < self.columns, "row {row} of {}, column {column}", self.rows);
        let Bytes::Mapped(file) = &self.bytes else { unreachable!("a table in memory has no integers") };
        let bytes = &file.as_slice()[self.begin + (row * self.columns + column) * self.number.bytes()..];
        match (self.number, bytes.first_chunk(), bytes.first_chunk()) {
            (Number::I32, Some(&bytes), _) => i32::from_le_bytes(bytes).into(),
            (Number::I64, _, Some(&bytes)) => i64::from_le_bytes(bytes),
            _ => unreachable!("{:?} is no type of integers that tables have", self.number),
        }
    }
}

fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = number(bytes);
    }
}

/// Returns the type and shape in the header of a NumPy file, the text of a Python dictionary.
fn npy_header(text: &str) -> Result<(Number, [usize; 2])> {
    let value = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':")).with_context(|| format!("its header has no {key}"))?;
        anyhow::Ok(rest.trim_start())
    };
    let descr = value("descr")?.split('\'').nth(1).unwrap_or_default();
    let number = match descr {
        "<f2" => Number::F16,
        "<f4" => Number::F32,
        "<f8" => Number::F64,
        _ => bail!("its numbers are {descr:?}, must be <f2, <f4 or <f8 (float16, float32, float64)"),
    };
    let order = value("fortran_order")?;
    ensure!(order.starts_with("False"), "its order is Fortran's; write numpy.ascontiguousarray(vectors)");
    let shape = value("shape")?;
    let shape = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or("", |(inside, _)| inside);
    let sizes: Option<Vec<usize>> =
        shape.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect();
    match sizes.as_deref() {
        Some(&[rows, columns]) => Ok((number, [rows, columns])),
        _ => bail!("its shape is ({shape}), must be (texts, channels)"),
    }
}
