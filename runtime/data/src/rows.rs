//! Files of rows, written: CSV, TSV, JSON Lines and JSON arrays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::dataset::Quoting;
use crate::files::sibling;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Fields with a delimiter between them.
    Separated {
        /// The delimiter.
        delimiter: u8,
        /// How fields are quoted that need it.
        quoting: Quoting,
    },
    /// One JSON object per line.
    Lines,
    /// An array of JSON objects.
    Array,
}

impl Layout {
    /// Returns the layout of a file by its ending: `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json`; `None` for any other.
    pub fn of(path: &Path) -> Option<Layout> {
        let separated = |delimiter| Some(Layout::Separated { delimiter, quoting: Quoting::Double });
        match path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase().as_str() {
            "csv" => separated(b','),
            "tsv" => separated(b'\t'),
            "jsonl" | "ndjson" => Some(Layout::Lines),
            "json" => Some(Layout::Array),
            _ => None,
        }
    }
}

/// A file of rows that is being written. It has its name only once [`RowWriter::finish`] has given it; until then, and if it is
/// dropped, what was there before stays.
#[derive(Debug)]
pub struct RowWriter {
    layout: Layout,
    /// `None` once it is closed.
    file: Option<BufWriter<File>>,
    path: PathBuf,
    rows: u64,
}

impl RowWriter {
    /// Creates the temporary sibling of `path`.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create(path: &Path, layout: Layout) -> io::Result<Self> {
        let file = Some(BufWriter::new(File::create(sibling(path))?));
        let mut rows = RowWriter { layout, file, path: path.to_path_buf(), rows: 0 };
        if layout == Layout::Array {
            rows.bytes(b"[")?;
        }
        Ok(rows)
    }

    /// Returns the name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes fields of a row, or of the header, in quotation marks where they need them.
    ///
    /// # Errors
    /// If the file cannot be written, or a field cannot be written in the layout.
    pub fn fields<'f>(&mut self, fields: impl IntoIterator<Item = &'f str>) -> io::Result<()> {
        let Layout::Separated { delimiter, quoting } = self.layout else {
            return Err(io::Error::other("fields without names are no JSON"));
        };
        let mut builder = csv::WriterBuilder::new();
        builder.delimiter(delimiter);
        match quoting {
            Quoting::Double => {}
            Quoting::Backslash => {
                builder.double_quote(false).escape(b'\\');
            }
            Quoting::None => {
                builder.quote_style(csv::QuoteStyle::Never);
            }
        }
        let mut line = builder.from_writer(Vec::new());
        for field in fields {
            if quoting == Quoting::None && field.bytes().any(|byte| byte == delimiter || byte == b'\n' || byte == b'\r')
            {
                return Err(io::Error::other(format!("{field:?} holds the separator, and the file does not quote")));
            }
            line.write_field(field).map_err(io::Error::other)?;
        }
        line.write_record(None::<&[u8]>).map_err(io::Error::other)?;
        let line = line.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
        self.rows += 1;
        self.bytes(&line)
    }

    /// Writes values of a row in columns of these names: fields, with nothing for null, or an object.
    ///
    /// # Errors
    /// As [`RowWriter::fields`].
    pub fn values(&mut self, names: &[&str], values: &[Value]) -> io::Result<()> {
        if let Layout::Separated { .. } = self.layout {
            let fields: Vec<String> = values.iter().map(plain).collect();
            return self.fields(fields.iter().map(String::as_str));
        }
        let fields = names.iter().zip(values).map(|(name, value)| format!("{}: {value}", Value::from(*name)));
        self.object(&format!("{{{}}}", fields.collect::<Vec<_>>().join(", ")))
    }

    /// Writes an object, the text of which is JSON on one line.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn object(&mut self, json: &str) -> io::Result<()> {
        let comma = if self.layout == Layout::Array { if self.rows == 0 { "\n" } else { ",\n" } } else { "" };
        let end = if self.layout == Layout::Array { "" } else { "\n" };
        self.rows += 1;
        self.bytes(format!("{comma}{json}{end}").as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    /// Ends the file, syncs it and gives it its name.
    ///
    /// # Errors
    /// Any error of the file system; nothing is left then.
    pub fn finish(mut self) -> io::Result<()> {
        if self.layout == Layout::Array {
            self.bytes(b"\n]\n")?;
        }
        let Some(file) = self.file.take() else { return Ok(()) };
        let written = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        let written = written.and_then(|()| fs::rename(sibling(&self.path), &self.path));
        if written.is_err() {
            let _ = fs::remove_file(sibling(&self.path));
        }
        written
    }
}

impl Drop for RowWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(sibling(&self.path));
        }
    }
}

/// Returns a value as a field: text without quotes, nothing for null, a list of names with commas between them.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Array(list) if list.iter().all(|one| plain(one).find(',').is_none()) => {
            list.iter().map(plain).collect::<Vec<_>>().join(",")
        }
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_file_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.csv");
        fs::write(&path, "old").unwrap();
        let mut rows = RowWriter::create(&path, Layout::of(&path).unwrap()).unwrap();
        rows.fields(["a", "b \"c\""]).unwrap();
        drop(rows);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let mut rows = RowWriter::create(&path, Layout::of(&path).unwrap()).unwrap();
        rows.fields(["a", "b \"c\""]).unwrap();
        rows.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a,\"b \"\"c\"\"\"\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_field_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::Separated { delimiter: b'\t', quoting: Quoting::None };
        let mut rows = RowWriter::create(&dir.path().join("o.tsv"), layout).unwrap();
        assert!(rows.fields(["a\tb"]).is_err() && rows.fields(["a \"b"]).is_ok());
    }
}
