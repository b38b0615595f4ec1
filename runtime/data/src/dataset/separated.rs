//! The rows of CSV and TSV files.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::Value;

use super::dialect::{Dialect, Scan, Scanned, find};
use super::error::DataError;
use super::fields::Wanted;
use super::lines::{ObjectRow, join};
use super::open::{Opened, not_utf8};
use super::options::Quoting;
use super::row::{Kept, Row, Rows};

/// How a file is written.
pub(super) struct Columns {
    pub(super) dialect: Dialect,
    /// Names of the columns.
    pub(super) names: Vec<String>,
    /// The same for a user, and warnings.
    pub(super) notes: Vec<String>,
}

/// Returns the rows of an open file and how it is written.
pub(super) fn rows(path: &Path, opened: Opened, chooser: &ObjectRow) -> Result<(Rows, Columns), DataError> {
    let row = |(row, what)| DataError::Row { path: path.to_path_buf(), row, what };
    let (prefix, whole) = opened.prefix;
    if let Some(at) = std::str::from_utf8(&prefix).err().filter(|error| error.error_len().is_some()) {
        let line = prefix.iter().take(at.valid_up_to()).filter(|&&byte| byte == b'\n').count() + 1;
        return Err(row((line, not_utf8(&prefix))));
    }
    let usual = if opened.ending == "tsv" { b'\t' } else { b',' };
    let (dialect, said) = find(&prefix, whole, usual, &chooser.options).map_err(row)?;
    let (reader, scan) = Scanned::new(opened.reader, dialect);
    let mut reader = dialect.reader(reader);
    let header = reader.headers().map_err(|error| problem(path, &error, 1))?.clone();
    let names: Vec<&str> = header.iter().map(str::trim).collect();
    let fields = chooser.choose(&names, |_| true).map_err(|what| {
        let what = format!("{what}; the first row must name the columns");
        DataError::Row { path: path.to_path_buf(), row: 1, what }
    })?;
    let column = |name: &String| names.iter().position(|column| column == name);
    let text: Vec<usize> = fields.text.iter().filter_map(column).collect();
    let label = fields.label.as_ref().and_then(column);
    let mut notes = Vec::from([format!(
        "{}-separated{}",
        dialect.separated(),
        match dialect.quoting {
            Quoting::Double => "",
            Quoting::Backslash => ", quotes escaped by \\",
            Quoting::None => ", not quoted",
        }
    )]);
    notes.extend(said);
    let names = header.iter().map(String::from).collect();
    let rows = Separated {
        records: reader.into_records(),
        scan,
        path: path.to_path_buf(),
        text,
        label,
        keep: chooser.wanted == Wanted::Record,
        ended: false,
    };
    Ok((Box::new(rows), Columns { dialect, names, notes }))
}

struct Separated<R> {
    records: csv::StringRecordsIntoIter<R>,
    scan: Rc<RefCell<Scan>>,
    path: PathBuf,
    text: Vec<usize>,
    label: Option<usize>,
    /// Whether whole rows are wanted.
    keep: bool,
    ended: bool,
}

impl<R: std::io::Read> Iterator for Separated<R> {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.records.next();
        if let Some((row, what)) = self.scan.borrow().wrong() {
            self.ended = true;
            return Some(Err(DataError::Row { path: self.path.clone(), row, what }));
        }
        let record = match record? {
            Ok(record) => record,
            Err(error) => {
                // Another row may be longer or shorter than the header; nothing else can be read on.
                self.ended = matches!(error.kind(), csv::ErrorKind::Io(_));
                return Some(Err(problem(&self.path, &error, 0)));
            }
        };
        let number = record.position().map_or(0, |at| usize::try_from(at.line()).unwrap_or(usize::MAX));
        let mut text = String::new();
        for &column in &self.text {
            join(&mut text, record.get(column).unwrap_or_default());
        }
        let label = self.label.and_then(|column| record.get(column)).map(Value::from);
        let kept = if self.keep { Kept::Fields(record.iter().map(String::from).collect()) } else { Kept::Nothing };
        Some(Ok(Row::new(number, text, label, kept)))
    }
}

/// Returns an error of the csv crate in our words; `line`: where it says none.
fn problem(path: &Path, error: &csv::Error, line: usize) -> DataError {
    let (path, line) =
        (path.to_path_buf(), error.position().map_or(line, |at| usize::try_from(at.line()).unwrap_or(usize::MAX)));
    match error.kind() {
        csv::ErrorKind::Io(source) => {
            DataError::Io { path, source: std::io::Error::new(source.kind(), source.to_string()) }
        }
        csv::ErrorKind::Utf8 { .. } => DataError::Row { path, row: line, what: not_utf8(&[]) },
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            let what = format!(
                "it has {len} fields, the first row {expected_len}; a field that holds the separator or a line break must be in quotation marks"
            );
            DataError::Row { path, row: line, what }
        }
        _ => DataError::Row { path, row: line, what: error.to_string() },
    }
}
