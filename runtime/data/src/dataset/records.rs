//! Whole rows, to be written again with columns added.

use std::path::Path;

use serde_json::Value;

use super::Reading;
use super::dialect::Dialect;
use super::error::DataError;
use super::fields::Wanted;
use super::options::{Format, ReadOptions};
use super::row::{Kept, Row, Rows};
use crate::rows::{Layout, RowWriter, plain};

/// A row: its text, and all else that its file has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The text.
    pub text: String,
    /// Whether bytes of the text were no UTF-8 and were read as U+FFFD, which happens in text files alone.
    pub replaced: bool,
    kept: Kept,
}

/// The rows of a file, one by one, and how they can be written again.
pub struct Records {
    rows: Rows,
    format: Option<Format>,
    columns: Option<(Dialect, Vec<String>)>,
    warnings: Vec<String>,
}

/// Returns the whole rows of a file, one by one.
///
/// # Errors
/// If the file cannot be opened; the iterator yields an error for a malformed row.
pub fn records(path: &Path, options: &ReadOptions) -> Result<Records, DataError> {
    let reading = Reading::new(path, options, Wanted::Record)?;
    let warnings = reading.warnings();
    let Reading { rows, format, columns, .. } = reading;
    Ok(Records { rows, format, columns, warnings })
}

impl Iterator for Records {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(row.map(|Row { text, replaced, kept, .. }| Record { text, replaced, kept }))
    }
}

impl Records {
    /// Returns what a user should know of how the file is read, such as quotation marks that are taken for text.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Begins to write the rows to `output`, with the columns `added` after their own. Values are then passed to [`RowCopy::row`].
    ///
    /// CSV and TSV files keep their separator and their quoting, JSON Lines and arrays the text of their objects. Lines of text
    /// become a column `text`, and rows of Parquet files objects of JSON Lines.
    ///
    /// # Errors
    /// If the ending of `output` is for another format, if a column of the name is there already, or if the file cannot be
    /// created.
    pub fn copy(&self, output: &Path, added: &[&str]) -> Result<RowCopy, String> {
        let layout = Layout::of(output);
        let (wanted, layout) = match (self.format, &self.columns, layout) {
            // The file's own separator and quoting, whatever the ending says.
            (_, Some((dialect, _)), Some(Layout::Separated { .. })) => {
                let Dialect { delimiter, quoting } = *dialect;
                ("", Some(Layout::Separated { delimiter, quoting }))
            }
            (_, Some(_), _) => ("csv or .tsv", None),
            (Some(Format::Json), _, Some(Layout::Array | Layout::Lines)) => ("", Some(Layout::Array)),
            (Some(Format::Json), ..) => ("json", None),
            (Some(Format::Jsonl | Format::Parquet), _, Some(Layout::Array | Layout::Lines)) => {
                ("", Some(Layout::Lines))
            }
            (Some(Format::Jsonl | Format::Parquet), ..) => ("jsonl", None),
            (_, _, Some(Layout::Array)) => ("csv, .tsv or .jsonl", None),
            (_, _, layout) => ("csv, .tsv or .jsonl", layout),
        };
        let Some(layout) = layout else {
            let of = self.format.map_or_else(|| "its input".to_string(), |format| format!("a {format} file"));
            return Err(format!("{} is written as {of} is read; its name must end in .{wanted}", output.display()));
        };
        let mut header =
            self.columns.as_ref().map_or_else(|| Vec::from(["text".to_string()]), |(_, names)| names.clone());
        if let Some(there) =
            added.iter().find(|name| self.columns.is_some() && header.iter().any(|have| have.trim() == **name))
        {
            return Err(taken(there));
        }
        header.extend(added.iter().map(|name| (*name).to_string()));
        let mut rows =
            RowWriter::create(output, layout).map_err(|error| format!("cannot write {}: {error}", output.display()))?;
        if let Layout::Separated { .. } = layout {
            rows.fields(header.iter().map(String::as_str)).map_err(|error| error.to_string())?;
        }
        Ok(RowCopy { rows, layout, added: added.iter().map(|name| (*name).to_string()).collect() })
    }
}

fn taken(name: &str) -> String {
    format!("the file has a column \"{name}\" already; is it an output itself? Take the column out")
}

/// Rows that are written again with columns added.
pub struct RowCopy {
    rows: RowWriter,
    layout: Layout,
    added: Vec<String>,
}

impl RowCopy {
    /// Writes a row with the values of the added columns, as many.
    ///
    /// # Errors
    /// If the file cannot be written, or if the row has a field of an added name already.
    pub fn row(&mut self, record: &Record, values: &[Value]) -> Result<(), String> {
        let written = match self.layout {
            Layout::Separated { .. } => {
                let values: Vec<String> = values.iter().map(plain).collect();
                match &record.kept {
                    Kept::Fields(fields) => self.rows.fields(fields.iter().chain(&values).map(String::as_str)),
                    _ => self.rows.fields([record.text.as_str()].into_iter().chain(values.iter().map(String::as_str))),
                }
            }
            Layout::Lines | Layout::Array => {
                let own = match &record.kept {
                    Kept::Object(object) => object.clone(),
                    _ => serde_json::json!({ "text": record.text }).to_string(),
                };
                let has: serde_json::Map<String, Value> =
                    serde_json::from_str(&own).map_err(|error| error.to_string())?;
                if let Some(there) = self.added.iter().find(|name| has.contains_key(*name)) {
                    return Err(taken(there));
                }
                // The object stays as it is written: the order of its fields, its numbers.
                let mut object = own.trim_end().strip_suffix('}').unwrap_or_default().trim_end().to_string();
                for (i, (name, value)) in self.added.iter().zip(values).enumerate() {
                    let comma = if i > 0 || !has.is_empty() { ", " } else { "" };
                    object.push_str(&format!("{comma}{}: {value}", Value::from(name.as_str())));
                }
                object.push('}');
                self.rows.object(&object)
            }
        };
        written.map_err(|error| format!("cannot write {}: {error}", self.rows.path().display()))
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<(), String> {
        let path = self.rows.path().to_path_buf();
        self.rows.finish().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    /// Copies `bytes`, a file `name`, to `output` with a column `n` that counts.
    fn copied(name: &str, bytes: &str, output: &str, options: &ReadOptions) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let (path, output) = (dir.path().join(name), dir.path().join(output));
        fs::write(&path, bytes).unwrap();
        let rows = records(&path, options).map_err(|error| error.to_string())?;
        let mut copy = rows.copy(&output, &["n", "word"])?;
        for (n, record) in rows.enumerate() {
            let record = record.map_err(|error| error.to_string())?;
            copy.row(&record, &[json!(n + 1), if n == 0 { json!("a,b") } else { Value::Null }])?;
        }
        assert!(!output.exists(), "the file has its name before its end");
        copy.finish()?;
        Ok(fs::read_to_string(output).unwrap())
    }

    fn free(name: &str, bytes: &str, output: &str) -> Result<String, String> {
        copied(name, bytes, output, &ReadOptions::default())
    }

    #[test]
    fn columns_are_added_and_the_others_stay() {
        let want = "id,text,extra,n,word\n7,\"x, y\",\"1\"\"2\",1,\"a,b\"\n08,z,,2,\n";
        assert_eq!(free("d.csv", "id,text,extra\r\n7,\"x, y\",\"1\"\"2\"\r\n08,z,\r\n", "o.csv").unwrap(), want);
        assert_eq!(free("d.csv", "id;text\n7;x\n", "o.csv").unwrap(), "id;text;n;word\n7;x;1;a,b\n");
        assert_eq!(
            free("d.tsv", "id\ttext\n7\t\"x\" y\n", "o.tsv").unwrap(),
            "id\ttext\tn\tword\n7\t\"x\" y\t1\ta,b\n"
        );
        assert_eq!(
            free("d.csv", "text,id\n\"a \\\"b\\\"\",1\n", "o.csv").unwrap(),
            "text,id,n,word\n\"a \\\"b\\\"\",1,1,\"a,b\"\n"
        );
        assert_eq!(
            free("d.jsonl", "{\"z\": 1.0, \"text\":\"x\", \"a\":[2] }\n\n{\"text\":\"y\"}\n", "o.jsonl").unwrap(),
            "{\"z\": 1.0, \"text\":\"x\", \"a\":[2], \"n\": 1, \"word\": \"a,b\"}\n{\"text\":\"y\", \"n\": 2, \"word\": null}\n"
        );
        assert_eq!(
            free("d.json", "[ {\"z\": 1.0, \"text\":\"x\"},\n{\"text\":\"y\"} ]", "o.json").unwrap(),
            "[\n{\"z\": 1.0, \"text\":\"x\", \"n\": 1, \"word\": \"a,b\"},\n{\"text\":\"y\", \"n\": 2, \"word\": null}\n]\n"
        );
        assert_eq!(free("d.txt", "x, y\nz\n", "o.csv").unwrap(), "text,n,word\n\"x, y\",1,\"a,b\"\nz,2,\n");
        assert_eq!(free("d.txt", "x\n", "o.jsonl").unwrap(), "{\"text\":\"x\", \"n\": 1, \"word\": \"a,b\"}\n");
        assert_eq!(free("d.json", "[]", "o.json").unwrap(), "[\n]\n");
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for (name, bytes, output, word) in [
            ("d.csv", "id,text\n1,x\n", "o.jsonl", ".csv or .tsv"),
            ("d.jsonl", "{\"text\":\"x\"}\n", "o.csv", ".jsonl"),
            ("d.txt", "x\n", "o.parquet", ".csv, .tsv or .jsonl"),
            ("d.csv", "id,text,n\n1,x,2\n", "o.csv", "\"n\" already"),
            ("d.jsonl", "{\"text\":\"x\"}\n{\"text\":\"x\",\"word\":1}\n", "o.jsonl", "\"word\" already"),
        ] {
            let error = free(name, bytes, output).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
