//! Labelled texts and documents from files of many formats.
//!
//! | format | endings |
//! |---|---|
//! | JSON Lines, or a JSON array of objects | `.jsonl`, `.ndjson`, `.json` |
//! | columns separated by a comma, semicolon, tab or bar, named in the first row | `.csv`, `.tsv` |
//! | fastText's lines, which begin with `__label__` | any |
//! | Parquet, with the feature `formats` | `.parquet` |
//! | one text per line, no labels | `.txt` and any other |
//! | a folder with a folder of texts per class | |
//!
//! Each file may be compressed with gzip or zstd, and with the feature `formats` with bzip2 or xz. Delimiter, quoting and the fields of text
//! and label are found out, or named by [`ReadOptions`].

mod dialect;
mod error;
mod fasttext;
mod fields;
mod folder;
mod gold;
mod json;
mod labels;
mod lines;
mod open;
mod options;
#[cfg(feature = "formats")]
mod pages;
#[cfg(feature = "formats")]
mod parquet;
mod records;
mod row;
mod separated;

use std::io;
use std::path::{Path, PathBuf};

use kinglet::spec::files::MANIFEST;
use serde_json::{Map, Value};

pub use self::error::DataError;
pub use self::gold::Labels;
pub use self::options::{Format, LABEL_NAMES, PerText, Quoting, ReadOptions, TEXT_NAMES};

pub use self::records::{Record, Records, RowCopy, records};

use self::dialect::Dialect;
use self::fields::{Fields, Wanted};
use self::labels::Classes;
use self::lines::ObjectRow;
use self::open::Opened;
use self::row::{Chosen, Row, Rows};
use crate::digest::Hashed;

/// Texts with their classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The texts, in the order of the file.
    pub texts: Vec<String>,
    /// Class of each text, or its classes: indices into `names`.
    pub labels: Labels,
    /// Class names.
    pub names: Vec<String>,
    /// SHA-256 of the file's bytes, in hex; of a folder, that of the names and digests of its files.
    pub sha256: String,
    /// The field or column of the label; `label` where the format has none.
    pub label_field: String,
    /// The options to read the file in the same way again.
    pub read: ReadOptions,
    /// How the file was read, for its user, one remark each.
    pub notes: Vec<String>,
}

/// Inputs with their targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Each input and its target, in the order of the file.
    pub pairs: Vec<(String, String)>,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
}

/// A file that is being read row by row.
struct Reading {
    rows: Rows,
    /// The file, to hash the rest of it; none for a folder, whose digest is known.
    file: Result<Hashed, String>,
    format: Option<Format>,
    /// How a CSV file separates and quotes, and the names of its columns.
    columns: Option<(Dialect, Vec<String>)>,
    /// Its fields, known with the first row at the latest.
    fields: Chosen,
    /// Class names that the file itself lists.
    listed: Option<Vec<String>>,
    notes: Vec<String>,
}

impl Reading {
    /// Begins to read `path`.
    fn new(path: &Path, options: &ReadOptions, wanted: Wanted) -> Result<Reading, DataError> {
        if wanted == Wanted::Label && path.is_dir() {
            let (rows, sha256) = folder::read(path)?;
            let rows = Box::new(rows.into_iter().map(Ok));
            let notes = Vec::from(["a folder of texts per class".to_string()]);
            return Ok(Reading {
                rows,
                file: Err(sha256),
                format: None,
                columns: None,
                fields: Chosen::default(),
                listed: None,
                notes,
            });
        }
        let opened = Opened::new(path)?;
        let format = match options.format {
            Some(format) => format,
            None => opened.format(path, matches!(wanted, Wanted::Label | Wanted::Target))?,
        };
        let file = opened.file.clone();
        let (fields, mut listed, mut notes) = (Chosen::default(), None, Vec::from([format.to_string()]));
        let mut columns = None;
        let row = lines::ObjectRow { fields: fields.clone(), options: options.clone(), wanted };
        let rows: Rows = match format {
            Format::Csv => {
                let (rows, written) = separated::rows(path, opened, &row)?;
                columns = Some((written.dialect, written.names));
                // "CSV, semicolon-separated" in one remark, warnings apart.
                let mut written = written.notes.into_iter();
                notes = Vec::from([format!("{format}, {}", written.next().unwrap_or_default())]);
                notes.extend(written);
                rows
            }
            Format::Json => Box::new(json::ArrayRows::new(path.into(), opened.reader, row)),
            Format::Parquet => {
                let (rows, names) = parquet_rows(path, row)?;
                listed = names;
                rows
            }
            _ => Box::new(lines::LineRows::new(path.into(), opened.reader, format, row)),
        };
        Ok(Reading { rows, file: Ok(file), format: Some(format), columns, fields, listed, notes })
    }

    /// Returns what a user should know of how the file is written.
    fn warnings(&self) -> Vec<String> {
        self.notes.iter().skip(1).cloned().collect()
    }

    /// Returns whether the format tells text from numbers.
    fn typed(&self) -> bool {
        !matches!(self.format, Some(Format::Csv | Format::FastText))
    }

    /// Returns the SHA-256 of what was read; reads what is left of it.
    fn sha256(self, path: &Path) -> Result<String, DataError> {
        match self.file {
            Ok(file) => file.sha256().map_err(|source| DataError::Io { path: path.to_path_buf(), source }),
            Err(sha256) => Ok(sha256),
        }
    }
}

#[cfg(feature = "formats")]
fn parquet_rows(path: &Path, row: ObjectRow) -> Result<(Rows, Option<Vec<String>>), DataError> {
    parquet::rows(path, row)
}

#[cfg(not(feature = "formats"))]
fn parquet_rows(path: &Path, _: ObjectRow) -> Result<(Rows, Option<Vec<String>>), DataError> {
    let what = "this program was built without Parquet; build it with the feature formats, or save the file as CSV or JSON Lines";
    Err(DataError::Whole { path: path.to_path_buf(), what: what.to_string() })
}

impl Dataset {
    /// Reads a labelled file. Labels are names: text without outer white space and in NFC, whole numbers and truth values as JSON
    /// writes them.
    ///
    /// `names`: the class names of a model, which must include the labels. Otherwise they come from the `MANIFEST.json`
    /// next to the file (`classes` for the field `label`, `{field}_classes` for another, such as `fine_classes`), from
    /// the description of Hugging Face in a Parquet file, or from the labels themselves, in numeric order if all are whole numbers.
    /// With a list in manifest or file, an integer means its class of that index, and is looked up in `names` by its name.
    ///
    /// A row may have a list of labels, or several of fastText. If one has several, or `options` say so, each text has any number of labels,
    /// perhaps none ([`Labels::Any`]).
    ///
    /// # Errors
    /// An unreadable file, a malformed row, a missing field, a label that is missing or not among the names, no rows at
    /// all. A malformed row is an error, never skipped; a row without a label is one unless `options` leave it out.
    pub fn read(path: &Path, options: &ReadOptions, names: Option<&[String]>) -> Result<Dataset, DataError> {
        let whole = |what: String| DataError::Whole { path: path.to_path_buf(), what };
        let mut reading = Reading::new(path, options, Wanted::Label)?;
        let typed = reading.typed();
        let (mut texts, mut raw) = (Vec::new(), Vec::new());
        let (mut skipped, mut trimmed, mut none) = (0, 0, 0);
        let separator = options.label_separator.as_deref();
        let mut any = options.per_text == PerText::Any || separator.is_some();
        for row in &mut reading.rows {
            let row = row?;
            let wrong = |what: String| DataError::Row { path: path.to_path_buf(), row: row.number, what };
            let read = |label| labels::Row::read(label, typed, separator);
            let labels = row.label.as_ref().map_or(Ok(None), read).map_err(wrong)?;
            if let (Some(labels), PerText::One) = (labels.as_ref().filter(|labels| labels.several), options.per_text) {
                let count = labels.labels.len();
                return Err(wrong(format!("it has {count} labels; the model gives one per text")));
            }
            any |= labels.as_ref().is_some_and(|labels| labels.several);
            let Some(labels) = labels else {
                if options.skip_unlabelled {
                    skipped += 1;
                    continue;
                }
                return Err(wrong(unlabelled(&reading.fields)));
            };
            trimmed += labels.labels.iter().filter(|label| label.trimmed).count();
            none += usize::from(labels.labels.is_empty());
            texts.push(row.text);
            raw.push((row.number, labels.labels));
        }
        // Whether a text may have no label is known when all are read.
        if none > 0 && !any {
            let Some((row, _)) = raw.iter().find(|(_, labels)| labels.is_empty()) else {
                unreachable!("one was counted")
            };
            if !options.skip_unlabelled {
                return Err(DataError::Row { path: path.to_path_buf(), row: *row, what: unlabelled(&reading.fields) });
            }
            let mut kept = raw.iter().map(|(_, labels)| !labels.is_empty());
            texts.retain(|_| kept.next().unwrap_or(false));
            raw.retain(|(_, labels)| !labels.is_empty());
            (skipped, none) = (skipped + none, 0);
        }
        if texts.is_empty() {
            return Err(whole("holds no rows".to_string()));
        }
        let mut notes = std::mem::take(&mut reading.notes);
        let Fields { text: text_fields, label } = reading.fields.get().cloned().unwrap_or_default();
        let label_field = label.clone().unwrap_or_else(|| LABEL_NAMES[0].to_string());
        if !text_fields.is_empty() {
            notes.push(format!("text in {}, label in \"{label_field}\"", quoted(&text_fields)));
        }
        if any {
            notes.push("any number of labels per text".to_string());
        }
        for (count, one, many) in [
            (none, "text has no label", "texts have no label"),
            (skipped, "row without a label left out", "rows without a label left out"),
            (
                trimmed,
                "label had outer white space, which was removed",
                "labels had outer white space, which was removed",
            ),
        ] {
            if count > 0 {
                notes.push(format!("{count} {}", if count == 1 { one } else { many }));
            }
        }
        let manifest = manifest_names(path, &label_field)?;
        let listed = manifest.as_deref().map(|names| (names, MANIFEST));
        let listed = listed.or(reading.listed.as_deref().map(|names| (names, "the file's own list")));
        let names = match (names, listed) {
            (Some(names), _) => names.to_vec(),
            (None, Some((listed, _))) => listed.to_vec(),
            (None, None) => labels::names(raw.iter().flat_map(|(_, labels)| labels)),
        };
        let classes = Classes::new(&names, listed);
        let labels = raw
            .iter()
            .map(|(row, labels)| {
                let of = |label| {
                    classes.of(label).map_err(|what| DataError::Row { path: path.to_path_buf(), row: *row, what })
                };
                let mut found = labels.iter().map(of).collect::<Result<Vec<_>, _>>()?;
                // Two names may be one class.
                found.sort_unstable();
                found.dedup();
                Ok(found)
            })
            .collect::<Result<Vec<Vec<usize>>, DataError>>()?;
        let labels = if any { Labels::Any(labels) } else { Labels::One(labels.into_iter().flatten().collect()) };
        drop(classes);
        let sha256 = reading.sha256(path)?;
        let per_text = if any { PerText::Any } else { options.per_text };
        let read = ReadOptions { text_fields, label_field: label, per_text, ..options.clone() };
        Ok(Dataset { texts, labels, names, sha256, label_field, read, notes })
    }
}

fn unlabelled(fields: &Chosen) -> String {
    let field = fields.get().and_then(|fields| fields.label.as_deref()).unwrap_or(LABEL_NAMES[0]);
    format!(
        "it has no label in \"{field}\"; name another field with --label-field, or leave out such rows with --skip-unlabelled"
    )
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" and ")
}

impl Dataset {
    /// Returns some of the rows, numbered from 0. The digest stays that of the whole file.
    pub fn take(&self, rows: &[usize]) -> Dataset {
        let texts = rows.iter().filter_map(|&row| self.texts.get(row).cloned()).collect();
        let labels = self.labels.take(rows);
        Dataset {
            texts,
            labels,
            names: self.names.clone(),
            sha256: self.sha256.clone(),
            label_field: self.label_field.clone(),
            read: self.read.clone(),
            notes: self.notes.clone(),
        }
    }

    /// Returns some of the rows, numbered from 0, as JSON Lines with the fields `text` and `label`, a name or a list of names.
    pub fn json_lines(&self, rows: &[usize]) -> String {
        let mut out = String::new();
        for &row in rows {
            let Some(text) = self.texts.get(row) else { continue };
            let names: Vec<&String> = self.labels.of(row).iter().filter_map(|&label| self.names.get(label)).collect();
            let label = match (&self.labels, &names[..]) {
                (Labels::One(_), [name]) => Value::from(name.as_str()),
                (Labels::One(_), _) => continue,
                (Labels::Any(_), names) => names.iter().map(|name| name.as_str()).collect(),
            };
            out.push_str(&serde_json::json!({ "label": label, "text": text }).to_string());
            out.push('\n');
        }
        out
    }
}

/// Returns the class names for `label_field` in the manifest next to `path`, or `None` without a manifest.
fn manifest_names(path: &Path, label_field: &str) -> Result<Option<Vec<String>>, DataError> {
    let manifest = path.with_file_name(MANIFEST);
    let bytes = match std::fs::read(&manifest) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataError::Io { path: manifest, source }),
    };
    let key = if label_field == "label" { "classes".to_string() } else { format!("{label_field}_classes") };
    let value: Map<String, Value> = serde_json::from_slice(&bytes)
        .map_err(|e| DataError::Whole { path: manifest.clone(), what: format!("not a JSON object: {e}") })?;
    let Some(list) = value.get(&key) else { return Ok(None) };
    serde_json::from_value(list.clone())
        .map(Some)
        .map_err(|e| DataError::Whole { path: manifest, what: format!("{key} is not a list of names: {e}") })
}

/// A text without its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// Whether bytes of it were no UTF-8 and were read as U+FFFD, which happens in text files alone.
    pub replaced: bool,
}

/// The texts of a file, one by one.
pub struct Texts {
    rows: Rows,
    warnings: Vec<String>,
}

/// Returns the texts of a file, one by one: the lines of a text file, the texts of other files without their labels.
///
/// # Errors
/// If the file cannot be opened; the iterator yields an error for a malformed row, after which others may follow.
pub fn texts(path: &Path, options: &ReadOptions) -> Result<Texts, DataError> {
    let reading = Reading::new(path, options, Wanted::Nothing)?;
    Ok(Texts { warnings: reading.warnings(), rows: reading.rows })
}

impl Texts {
    /// Returns what a user should know of how the file is read, such as quotation marks that are taken for text.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Iterator for Texts {
    type Item = Result<Text, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(row.map(|Row { text, replaced, .. }| Text { text, replaced }))
    }
}

/// Returns the lines of `reader`, as [`texts`] those of a text file; `name` is that of their source in errors.
pub fn text_lines(reader: Box<dyn io::BufRead>, name: &str) -> impl Iterator<Item = Result<Text, DataError>> + use<> {
    let row = ObjectRow { fields: Chosen::default(), options: ReadOptions::default(), wanted: Wanted::Nothing };
    let rows = lines::LineRows::new(name.into(), reader, Format::Text, row);
    rows.map(|row| row.map(|Row { text, replaced, .. }| Text { text, replaced }))
}

/// Returns the inputs and targets of a file of pairs: its texts and the field or column `target_field` of each row.
///
/// # Errors
/// An unreadable file, a malformed row, a missing field, a field that is not a string, no rows at all.
pub fn pairs(path: &Path, options: &ReadOptions, target_field: &str) -> Result<Pairs, DataError> {
    let mut out = Vec::new();
    let options = ReadOptions { label_field: Some(target_field.to_string()), ..options.clone() };
    let mut reading = Reading::new(path, &options, Wanted::Target)?;
    for row in &mut reading.rows {
        let Row { number, text, label, .. } = row?;
        let wrong = |what: String| DataError::Row {
            path: path.to_path_buf(),
            row: number,
            what: format!("{what}; name the target's field with --target-field"),
        };
        match label {
            Some(Value::String(target)) => out.push((text, target)),
            Some(_) => return Err(wrong(format!("\"{target_field}\" is not a string"))),
            None => return Err(wrong(format!("no field \"{target_field}\""))),
        }
    }
    if out.is_empty() {
        return Err(DataError::Whole { path: path.to_path_buf(), what: "holds no rows".to_string() });
    }
    Ok(Pairs { pairs: out, sha256: reading.sha256(path)? })
}

/// End of a document in a text file. In other files each row is a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DocumentEnd {
    /// A blank line.
    #[default]
    BlankLine,
    /// The end of the line.
    Line,
}

/// The documents of a file, one by one.
pub struct Documents {
    path: PathBuf,
    reading: Reading,
    /// Whether a document is all lines up to a blank one.
    blocks: bool,
    /// Lines whose bytes were no UTF-8.
    replaced: u64,
}

/// Returns the documents of a file, one by one, for pre-training: blocks of lines or lines of a text file, the texts of others. Blank
/// documents are omitted.
///
/// # Errors
/// If the file cannot be opened; the iterator yields an error for a malformed row.
pub fn documents(path: &Path, options: &ReadOptions, end: DocumentEnd) -> Result<Documents, DataError> {
    let reading = Reading::new(path, options, Wanted::Nothing)?;
    let blocks = reading.format == Some(Format::Text) && end == DocumentEnd::BlankLine;
    Ok(Documents { path: path.to_path_buf(), reading, blocks, replaced: 0 })
}

impl Documents {
    /// Returns how many lines of a text file, so far, were not valid UTF-8; what is not was read as U+FFFD. Rows of other files that are
    /// not valid are errors.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Returns the SHA-256 of the file's bytes, in hex; reads what is left of it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sha256(self) -> Result<String, DataError> {
        self.reading.sha256(&self.path)
    }
}

impl Iterator for Documents {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_blank = |text: &str| text.chars().all(char::is_whitespace);
        let mut document = String::new();
        loop {
            let row = self.reading.rows.next();
            self.replaced += u64::from(matches!(&row, Some(Ok(row)) if row.replaced));
            match row {
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok(row)) if is_blank(&row.text) => {}
                Some(Ok(row)) if !self.blocks => return Some(Ok(row.text)),
                Some(Ok(row)) => {
                    if !document.is_empty() {
                        document.push('\n');
                    }
                    document.push_str(&row.text);
                    continue;
                }
                None if document.is_empty() => return None,
                None => return Some(Ok(document)),
            }
            if !document.is_empty() {
                return Some(Ok(document));
            }
        }
    }
}

#[cfg(test)]
mod tests;
