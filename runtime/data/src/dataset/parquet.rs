//! The rows of Parquet files.

use std::fs::File;
use std::io::BufReader;
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
use super::pages::Pages;
use super::row::{Kept, Row, Rows};

/// Key of the file's metadata in which Hugging Face's `datasets` describes the columns.
const HUGGING_FACE: &str = "huggingface";

/// The most bytes that a page may decode to. Writers close a page at about one MiB, or after a row that is longer.
const MAX_PAGE_BYTES: u64 = MAX_ROW_BYTES + (16 << 20);

/// Rows that are decoded together.
const BATCH: usize = 1024;

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
    let names_of_wanted: Vec<&str> = wanted.get_fields().iter().map(|field| field.name()).collect();
    let pages = pages(path, &reader, &names_of_wanted)?;
    let batch = batch(pages).map_err(whole)?;
    let rows = guarded(|| RowIter::from_file_into(Box::new(reader)).with_batch_size(batch).project(Some(wanted)));
    let rows = rows.map_err(whole)?;
    Ok((Box::new(ParquetRows { rows, path: path.to_path_buf(), fields, row, number: 0, ended: false }), names))
}

/// Returns what the pages of some columns show.
fn pages(path: &Path, reader: &SerializedFileReader<File>, columns: &[&str]) -> Result<Pages, DataError> {
    let mut pages = Pages::default();
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
    let mut file = BufReader::new(file);
    for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
        if column.column_path().parts().first().is_some_and(|name| columns.contains(&name.as_str())) {
            let found = guarded(|| {
                let (start, length) = column.byte_range();
                Ok(Pages::read(&mut file, start..start.saturating_add(length))?)
            });
            pages = pages.and(found.map_err(|what| DataError::Whole { path: path.to_path_buf(), what })?);
        }
    }
    Ok(pages)
}

/// Returns how many rows of such pages are decoded together.
fn batch(pages: Pages) -> Result<usize, String> {
    if pages.largest > MAX_PAGE_BYTES {
        return Err(format!(
            "a page of it decodes to {} MiB, more than {}; write it with smaller pages",
            pages.largest.div_ceil(1 << 20),
            MAX_PAGE_BYTES >> 20
        ));
    }
    // Values that share their bytes are decoded one at a time: each is at most as long as its page, not all of them together.
    Ok(if pages.share_bytes { 1 } else { BATCH })
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::parquet::basic::{Compression, Encoding};
    use ::parquet::data_type::{ByteArray, ByteArrayType};
    use ::parquet::file::properties::{WriterProperties, WriterVersion};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::super::{Dataset, ReadOptions};
    use super::*;

    /// Returns the bytes of a file with texts and labels.
    fn file(texts: &[&str], version: WriterVersion, encoding: Encoding) -> Vec<u8> {
        let schema = "message m { required binary text (UTF8); required binary label (UTF8); }";
        let properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(Compression::ZSTD(Default::default()))
            .set_dictionary_enabled(false)
            .set_encoding(encoding)
            .build();
        let mut bytes = Vec::new();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties.into()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let labels: Vec<&str> = (0..texts.len()).map(|row| if row % 2 == 0 { "a" } else { "b" }).collect();
        for values in [texts, &labels] {
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = values.iter().copied().map(ByteArray::from).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn what_pages_decode_to_is_known_before_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let long = "many words ".repeat(10_000);
        let texts = [&long[..], &long, "few words"];
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for encoding in [Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY] {
                std::fs::write(&path, file(&texts, version, encoding)).unwrap();
                let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
                let found = pages(&path, &reader, &["text"]).unwrap();
                let shared = encoding == Encoding::DELTA_BYTE_ARRAY;
                assert_eq!(found.share_bytes, shared, "{version:?} {encoding}");
                // Two texts that are equal take the bytes of one where values share them.
                let bytes = if shared { 110_000..111_000 } else { 220_000..221_000 };
                assert!(bytes.contains(&found.largest), "{version:?} {encoding}: {found:?}");
                assert!(pages(&path, &reader, &["label"]).unwrap().largest < 100);
                let data = Dataset::read(&path, &ReadOptions::default(), None).unwrap();
                assert_eq!(data.texts, texts, "{version:?} {encoding}");
            }
        }
    }

    #[test]
    fn a_page_that_decodes_to_too_much_is_refused() {
        let pages = |largest, share_bytes| Pages { largest, share_bytes };
        assert_eq!(batch(pages(MAX_PAGE_BYTES, false)), Ok(BATCH));
        assert_eq!(batch(pages(1 << 20, true)), Ok(1));
        assert!(batch(pages(1 << 30, false)).unwrap_err().contains("decodes to 1024 MiB, more than 272"));
    }
}
