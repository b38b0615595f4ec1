//! A column of vectors in a Parquet file.

use std::fs::File;
use std::path::Path;

use ::parquet::basic::{LogicalType, Type as Physical};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use ::parquet::data_type::{DataType, DoubleType, FixedLenByteArrayType, FloatType};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;
use anyhow::{Context, Result, bail, ensure};
use half::f16;

use super::matrix::Matrix;

/// Lists read at once.
const RECORDS: usize = 4096;

/// Reads the lists of floating-point numbers in the only such column of a Parquet file.
pub(super) fn read(path: &Path) -> Result<Matrix> {
    let file = File::open(path).context("cannot open the file")?;
    let reader = SerializedFileReader::new(file).context("is not a Parquet file")?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let lists: Vec<usize> = (0..schema.num_columns()).filter(|&c| is_vector(&schema.column(c))).collect();
    let [column] = lists[..] else {
        let have: Vec<String> = schema.columns().iter().map(|c| c.path().string()).collect();
        bail!(
            "has {} columns of lists of float16, float32 or float64, must have one with the vectors; its columns: {}",
            lists.len(),
            have.join(", ")
        );
    };
    let descriptor = schema.column(column);
    let mut vectors = Vectors { numbers: Vec::new(), dimension: None, complete: descriptor.max_def_level() };
    for group in 0..reader.num_row_groups() {
        let pages = reader.get_row_group(group)?.get_column_reader(column)?;
        match descriptor.physical_type() {
            Physical::FLOAT => vectors.extend::<FloatType>(pages, |&x| x),
            Physical::DOUBLE => vectors.extend::<DoubleType>(pages, |&x| x as f32),
            _ => vectors.extend::<FixedLenByteArrayType>(pages, |x| {
                x.data().first_chunk().map_or(f32::NAN, |&bytes| f16::from_le_bytes(bytes).to_f32())
            }),
        }
        .with_context(|| format!("column {}", descriptor.path().string()))?;
    }
    Ok(Matrix::owned(vectors.numbers, vectors.dimension.unwrap_or(0)))
}

/// Returns whether a column holds lists of floating-point numbers.
fn is_vector(column: &ColumnDescriptor) -> bool {
    let half = column.logical_type_ref() == Some(&LogicalType::Float16);
    let float = matches!(column.physical_type(), Physical::FLOAT | Physical::DOUBLE) || half;
    float && column.max_rep_level() == 1
}

/// Vectors so far, `[N, D]`.
struct Vectors {
    numbers: Vec<f32>,
    dimension: Option<usize>,
    /// Definition level of a number; lower ones mean that the number, the list or the row is null, or the list empty.
    complete: i16,
}

impl Vectors {
    /// Adds the lists of a row group.
    fn extend<T: DataType>(&mut self, pages: ColumnReader, number: impl Fn(&T::T) -> f32) -> Result<()> {
        let mut reader: ColumnReaderImpl<T> = get_typed_column_reader(pages);
        let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            values.clear();
            definitions.clear();
            repetitions.clear();
            let (records, _, _) =
                reader.read_records(RECORDS, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
            if records == 0 {
                return Ok(());
            }
            let row = self.dimension.map_or(0, |dimension| self.numbers.len() / dimension);
            if definitions.iter().any(|&level| level != self.complete) {
                bail!("one of the rows {row} to {} has a null or an empty list", row + records - 1);
            }
            // A repetition level of 0 begins a list.
            let mut lists = repetitions.split(|&level| level == 0);
            lists.next();
            for (i, list) in lists.enumerate() {
                let (width, want) = (list.len() + 1, *self.dimension.get_or_insert(list.len() + 1));
                ensure!(width == want, "row {} (from 0) has {width} numbers, the rows before it {want}", row + i);
            }
            self.numbers.extend(values.iter().map(&number));
        }
    }
}
