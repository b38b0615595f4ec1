//! The rows of Parquet files.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row as Record};
use ::parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use super::error::DataError;
use super::fields::{Fields, Wanted};
use super::lines::{ObjectRow, too_long};
use super::open::MAX_ROW_BYTES;
use super::row::{Kept, Row, Rows};

/// Key of the file's metadata in which Hugging Face's `datasets` describes the columns.
const HUGGING_FACE: &str = "huggingface";

/// Returns the rows of a file, and the class names that it gives the labels.
pub(super) fn rows(path: &Path, row: ObjectRow) -> Result<(Rows, Option<Vec<String>>), DataError> {
    let whole = |what: String| DataError::Whole { path: path.to_path_buf(), what };
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    // Damaged files make the crate panic in places.
    let reader = guarded(|| SerializedFileReader::new(file)).map_err(whole)?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let have: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
    let is_text = |name: &str| {
        use ::parquet::basic::Type::BYTE_ARRAY;
        schema
            .get_fields()
            .iter()
            .any(|field| field.name() == name && field.is_primitive() && field.get_physical_type() == BYTE_ARRAY)
    };
    let fields = row.choose(&have, is_text).map_err(whole)?.clone();
    let described = metadata.key_value_metadata().into_iter().flatten().find(|pair| pair.key == HUGGING_FACE);
    let names =
        described.zip(fields.label.as_deref()).and_then(|(pair, label)| class_names(pair.value.as_deref()?, label));
    // Columns that are not wanted may be of any type.
    let wanted = schema.get_fields().iter().filter(|column| {
        row.wanted == Wanted::Record || fields.text.iter().chain(&fields.label).any(|name| name == column.name())
    });
    let wanted = Type::group_type_builder(schema.name()).with_fields(wanted.cloned().collect());
    let wanted = wanted.build().map_err(|error| whole(format!("not a readable Parquet file: {error}")))?;
    let rows = guarded(|| RowIter::from_file_into(Box::new(reader)).project(Some(wanted))).map_err(whole)?;
    Ok((Box::new(ParquetRows { rows, path: path.to_path_buf(), fields, row, number: 0, ended: false }), names))
}

/// Returns the names of a column's classes, by Hugging Face's description of the file.
fn class_names(description: &str, label: &str) -> Option<Vec<String>> {
    let description: Value = serde_json::from_str(description).ok()?;
    let names = description.get("info")?.get("features")?.get(label)?.get("names")?;
    serde_json::from_value(names.clone()).ok()
}

/// Runs what may panic.
fn guarded<T>(read: impl FnOnce() -> ::parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| format!("not a readable Parquet file: {error}")),
        Err(_) => Err("not a readable Parquet file: it is damaged or has a column that cannot be read".to_string()),
    }
}

struct ParquetRows {
    rows: RowIter<'static>,
    path: PathBuf,
    fields: Fields,
    row: ObjectRow,
    number: usize,
    ended: bool,
}

impl Iterator for ParquetRows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = guarded(|| self.rows.next().transpose());
        let record = match next {
            Ok(record) => record?,
            Err(what) => {
                self.ended = true;
                return Some(Err(DataError::Whole { path: self.path.clone(), what }));
            }
        };
        self.number += 1;
        let number = self.number;
        let row = within(&record)
            .and_then(|()| object(&record, &self.fields))
            .and_then(|object| self.row.read(object))
            .map(|(text, label)| Row::new(number, text, label, kept(&record, self.row.wanted)))
            .map_err(|what| DataError::Row { path: self.path.clone(), row: number, what });
        Some(row)
    }
}

/// Returns all columns of a row as an object of JSON; those that are neither text nor a number as text.
fn kept(record: &Record, wanted: Wanted) -> Kept {
    if wanted != Wanted::Record {
        return Kept::Nothing;
    }
    let column = |(name, field): (&String, &Field)| {
        (name.clone(), value(field).unwrap_or_else(|_| Value::from(field.to_string())))
    };
    Kept::Object(Value::Object(record.get_column_iter().map(column).collect()).to_string())
}

/// Checks that a row is not too long.
fn within(record: &Record) -> Result<(), String> {
    let bytes = record.get_column_iter().map(|(_, field)| match field {
        Field::Str(text) => text.len(),
        Field::Bytes(bytes) => bytes.len(),
        _ => 0,
    });
    if bytes.sum::<usize>() as u64 > MAX_ROW_BYTES { Err(too_long()) } else { Ok(()) }
}

/// Returns the wanted columns of a row.
fn object(record: &Record, fields: &Fields) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (name, field) in record.get_column_iter() {
        if fields.text.contains(name) || fields.label.as_ref() == Some(name) {
            let what = |what: &str| format!("column \"{name}\" is {what}");
            object.insert(name.clone(), value(field).map_err(what)?);
        }
    }
    Ok(object)
}

/// Returns a value as JSON has it.
fn value(field: &Field) -> Result<Value, &'static str> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Str(text) => Value::from(text.as_str()),
        // DuckDB writes text without saying so.
        Field::Bytes(bytes) => Value::from(std::str::from_utf8(bytes.data()).map_err(|_| "not valid UTF-8")?),
        Field::Bool(b) => Value::from(*b),
        Field::Byte(n) => Value::from(*n),
        Field::Short(n) => Value::from(*n),
        Field::Int(n) => Value::from(*n),
        Field::Long(n) => Value::from(*n),
        Field::UByte(n) => Value::from(*n),
        Field::UShort(n) => Value::from(*n),
        Field::UInt(n) => Value::from(*n),
        Field::ULong(n) => Value::from(*n),
        Field::Float(x) => Number::from_f64(f64::from(*x)).map_or(Value::Null, Value::Number),
        Field::Double(x) => Number::from_f64(*x).map_or(Value::Null, Value::Number),
        Field::ListInternal(list) => Value::Array(list.elements().iter().map(value).collect::<Result<_, _>>()?),
        _ => return Err("neither text nor a number"),
    })
}
