//! Labelled texts and documents from JSONL, CSV, TSV and text files, plain or compressed with gzip or zstd.
//!
//! The name determines the kind: `.jsonl`/`.json`/`.ndjson` (one object per line), `.csv`, `.tsv` (the first row names
//! the columns), `.txt` and anything else (one text per line, no labels), each optionally followed by `.gz` or `.zst`.

use crate::digest::Hashed;
use crate::zstd_reader::ZstdReader;
use kinglet::spec::files::MANIFEST;
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    boxed::Box,
    collections::{BTreeSet, HashMap},
    fmt, format,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    string::{String, ToString},
    vec::Vec,
};

/// Texts with their classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The texts, in the order of the file.
    pub texts: Vec<String>,
    /// Class of each text: an index into `names`.
    pub labels: Vec<usize>,
    /// Class names.
    pub names: Vec<String>,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
}

/// Inputs with their targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Each input and its target, in the order of the file.
    pub pairs: Vec<(String, String)>,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
}

/// Error while reading a data file.
#[derive(Debug)]
#[non_exhaustive]
pub enum DataError {
    /// The file system or a decompressor failed.
    Io {
        /// The file.
        path: PathBuf,
        /// The underlying error.
        source: io::Error,
    },
    /// A row is malformed.
    Row {
        /// The file.
        path: PathBuf,
        /// Row, counted from 1 as an editor counts lines (CSV: records, the header included).
        row: usize,
        /// The problem and how to fix it.
        what: String,
    },
    /// The whole file is unusable.
    Whole {
        /// The file.
        path: PathBuf,
        /// The problem and how to fix it.
        what: String,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataError::Io { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            DataError::Row { path, row, what } => write!(f, "{}, row {row}: {what}", path.display()),
            DataError::Whole { path, what } => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl core::error::Error for DataError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        None
    }
}

/// A raw row: the text and the label's raw value.
struct Row {
    number: usize,
    text: String,
    label: Option<Value>,
    /// Whether bytes of the text were no UTF-8.
    replaced: bool,
}

type Rows = Box<dyn Iterator<Item = Result<Row, DataError>>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packed {
    Gzip,
    Zstd,
    Not,
}

/// Fields or columns to read; the text field is `text` unless another is named.
#[derive(Clone, Copy)]
struct Fields<T> {
    text: Option<T>,
    label: Option<T>,
}

impl Fields<String> {
    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("text")
    }

    /// Returns advice for a missing text field, if it can be named.
    fn advice(&self) -> &'static str {
        if self.text.is_some() { "; name the text's field with --text-field" } else { "" }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Separated(u8),
    Text,
}

impl Dataset {
    /// Reads a labelled file. Labels are names or indices in the field or column `label_field`.
    ///
    /// `names`: the class names of a model, which must include the labels. Otherwise they come from the `MANIFEST.json`
    /// next to the file (`classes` for the field `label`, `{field}_classes` for another, such as `fine_classes`), or
    /// from the labels themselves: sorted names, or `0..=max` for integers. If there is a manifest, an integer means
    /// the manifest's class of that index, and is looked up in `names` by its name.
    ///
    /// # Errors
    /// An unreadable file, a malformed row, a missing field, a label that is not among the names, no rows at all. A
    /// malformed row is an error, never skipped.
    pub fn read(path: &Path, label_field: &str, names: Option<&[String]>) -> Result<Dataset, DataError> {
        let whole = |what: String| DataError::Whole { path: path.to_path_buf(), what };
        let mut texts = Vec::new();
        let mut raw = Vec::new();
        let file = Hashed::new(open(path)?);
        for row in rows(path, file.clone(), Fields { text: None, label: Some(label_field) })? {
            let row = row?;
            let label = row.label.ok_or_else(|| {
                let what = format!("no field \"{label_field}\"; name the label's field with --label-field");
                DataError::Row { path: path.to_path_buf(), row: row.number, what }
            })?;
            texts.push(row.text);
            raw.push((row.number, label));
        }
        if texts.is_empty() {
            return Err(whole("holds no rows".to_string()));
        }
        let listed = manifest_names(path, label_field)?;
        let names = match (names, &listed) {
            (Some(names), _) => names.to_vec(),
            (None, Some(listed)) => listed.clone(),
            (None, None) => names_in(&raw).map_err(whole)?,
        };
        let index: HashMap<&str, usize> = names.iter().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
        // The file's integers count the manifest's classes, which a model may have in another order or not at all.
        let numbered = |n: usize| match &listed {
            Some(listed) => index.get(listed.get(n)?.as_str()).copied(),
            None => (n < names.len()).then_some(n),
        };
        let labels = raw
            .iter()
            .map(|(row, value)| {
                class(value, &index, numbered).ok_or_else(|| {
                    let what = match &listed {
                        Some(_) => {
                            format!("label {value}, counted as in {MANIFEST}, is none of the {} classes", names.len())
                        }
                        None => format!(
                            "label {value} is neither one of the {} class names nor an index below {}",
                            names.len(),
                            names.len()
                        ),
                    };
                    DataError::Row { path: path.to_path_buf(), row: *row, what }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Dataset { texts, labels, names, sha256: hash(path, file)? })
    }
}

/// Returns the texts of a file, one by one, for training a tokenizer; for text files, the lines.
///
/// # Errors
/// If the file cannot be opened; the iterator yields an error for a malformed row.
pub fn texts(path: &Path) -> Result<impl Iterator<Item = Result<String, DataError>> + use<>, DataError> {
    Ok(rows(path, open(path)?, Fields { text: None, label: None })?.map(|row| row.map(|row| row.text)))
}

/// Returns the inputs and targets of a file of pairs: the fields or columns `text_field` and `target_field` of each
/// row.
///
/// # Errors
/// An unreadable file, a malformed row, a missing field, a field that is not a string, no rows at all.
pub fn pairs(path: &Path, text_field: &str, target_field: &str) -> Result<Pairs, DataError> {
    let mut out = Vec::new();
    let file = Hashed::new(open(path)?);
    for row in rows(path, file.clone(), Fields { text: Some(text_field), label: Some(target_field) })? {
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
    Ok(Pairs { pairs: out, sha256: hash(path, file)? })
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
    rows: Rows,
    file: Hashed,
    /// Whether a document is all lines up to a blank one.
    blocks: bool,
    /// Lines whose bytes were no UTF-8.
    replaced: u64,
}

/// Returns the documents of a file, one by one, for pre-training: blocks of lines or lines of a text file, the field or
/// column `text_field` of others. Blank documents are omitted.
///
/// # Errors
/// If the file cannot be opened; the iterator yields an error for a malformed row.
pub fn documents(path: &Path, text_field: &str, end: DocumentEnd) -> Result<Documents, DataError> {
    let blocks = kind(path).1 == Kind::Text && end == DocumentEnd::BlankLine;
    let file = Hashed::new(open(path)?);
    let rows = rows(path, file.clone(), Fields { text: Some(text_field), label: None })?;
    Ok(Documents { path: path.to_path_buf(), rows, file, blocks, replaced: 0 })
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
        hash(&self.path, self.file)
    }
}

impl Iterator for Documents {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_blank = |text: &str| text.chars().all(char::is_whitespace);
        let mut document = String::new();
        loop {
            let row = self.rows.next();
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

fn class(value: &Value, index: &HashMap<&str, usize>, number: impl Fn(usize) -> Option<usize>) -> Option<usize> {
    match value {
        Value::Number(n) => number(usize::try_from(n.as_u64()?).ok()?),
        // A name takes precedence over a number, for classes called "1" and "2".
        Value::String(s) => index.get(s.as_str()).copied().or_else(|| number(s.trim().parse().ok()?)),
        Value::Bool(b) => number(usize::from(*b)),
        _ => None,
    }
}

fn names_in(raw: &[(usize, Value)]) -> Result<Vec<String>, String> {
    let as_index = |v: &Value| match v {
        Value::Number(n) => n.as_u64(),
        Value::String(s) => s.trim().parse().ok(),
        Value::Bool(b) => Some(u64::from(*b)),
        _ => None,
    };
    if let Some(indices) = raw.iter().map(|(_, v)| as_index(v)).collect::<Option<Vec<u64>>>() {
        let most = indices.into_iter().max().unwrap_or(0);
        if most >= 65_536 {
            return Err(format!("label {most} as a class index is too large; at most 65,536 classes"));
        }
        return Ok((0..=most).map(|i| i.to_string()).collect());
    }
    let names: BTreeSet<String> = raw.iter().filter_map(|(_, v)| v.as_str().map(String::from)).collect();
    Ok(names.into_iter().collect())
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

/// Returns the rows of the open file `path`.
fn rows(path: &Path, file: impl Read + 'static, fields: Fields<&str>) -> Result<Rows, DataError> {
    let (packed, kind) = kind(path);
    let reader: Box<dyn Read> = match packed {
        Packed::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Packed::Zstd => Box::new(ZstdReader::new(BufReader::with_capacity(1 << 16, file))),
        Packed::Not => Box::new(file),
    };
    let reader = Box::new(BufReader::new(reader));
    let path = path.to_path_buf();
    let fields = Fields { text: fields.text.map(String::from), label: fields.label.map(String::from) };
    match kind {
        Kind::Separated(by) => separated(path, reader, by, fields),
        _ => Ok(Box::new(lines(path, reader, kind, fields))),
    }
}

/// Returns the compression and the kind of a file, by its name.
fn kind(path: &Path) -> (Packed, Kind) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let (packed, stem) = if let Some(stem) = name.strip_suffix(".gz") {
        (Packed::Gzip, stem)
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (Packed::Zstd, stem)
    } else {
        (Packed::Not, name.as_str())
    };
    let kind = match stem.rsplit_once('.').map(|(_, extension)| extension) {
        Some("jsonl" | "json" | "ndjson") => Kind::Json,
        Some("csv") => Kind::Separated(b','),
        Some("tsv") => Kind::Separated(b'\t'),
        _ => Kind::Text,
    };
    (packed, kind)
}

fn open(path: &Path) -> Result<File, DataError> {
    let io = |source| DataError::Io { path: path.to_path_buf(), source };
    // Checked first: Windows only reports that access is denied.
    if path.is_dir() {
        return Err(io(io::Error::other("it is a directory, not a data file")));
    }
    File::open(path).map_err(io)
}

/// Returns the SHA-256 of the open file `path`, in hex.
fn hash(path: &Path, file: Hashed) -> Result<String, DataError> {
    file.sha256().map_err(|source| DataError::Io { path: path.to_path_buf(), source })
}

fn lines(
    path: PathBuf,
    mut reader: Box<dyn BufRead>,
    kind: Kind,
    fields: Fields<String>,
) -> impl Iterator<Item = Result<Row, DataError>> {
    let mut number = 0;
    let mut failed = false;
    core::iter::from_fn(move || {
        loop {
            if failed {
                return None;
            }
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => number += 1,
                Err(source) => {
                    failed = true;
                    return Some(Err(DataError::Io { path: path.clone(), source }));
                }
            }
            while let Some(b'\n' | b'\r') = line.last() {
                line.pop();
            }
            if kind == Kind::Text {
                let text = String::from_utf8_lossy(&line);
                let replaced = matches!(text, Cow::Owned(_));
                return Some(Ok(Row { number, text: text.into_owned(), label: None, replaced }));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let row = object(&line, &fields)
                .map(|(text, label)| Row { number, text, label, replaced: false })
                .map_err(|what| DataError::Row { path: path.clone(), row: number, what });
            return Some(row);
        }
    })
}

fn object(line: &[u8], fields: &Fields<String>) -> Result<(String, Option<Value>), String> {
    let mut row: Map<String, Value> =
        serde_json::from_slice(line).map_err(|e| format!("not a JSON object on one line: {e}"))?;
    let name = fields.text();
    let text = match row.remove(name) {
        Some(Value::String(text)) => text,
        Some(_) => return Err(format!("\"{name}\" is not a string{}", fields.advice())),
        None => return Err(format!("no field \"{name}\"{}", fields.advice())),
    };
    Ok((text, fields.label.as_deref().and_then(|label| row.remove(label))))
}

fn separated(path: PathBuf, reader: Box<dyn BufRead>, by: u8, fields: Fields<String>) -> Result<Rows, DataError> {
    let mut reader = csv::ReaderBuilder::new().delimiter(by).quoting(true).from_reader(reader);
    let whole = |what| DataError::Whole { path: path.clone(), what };
    let header = reader.headers().map_err(|e| whole(format!("its first row cannot be read: {e}")))?.clone();
    let column = |name: &str| header.iter().position(|h| h.trim() == name);
    let text = column(fields.text()).ok_or_else(|| {
        let have: Vec<&str> = header.iter().collect();
        let (name, advice) = (fields.text(), fields.advice());
        whole(format!("no column \"{name}\"; the first row must name the columns, it has {have:?}{advice}"))
    })?;
    let label = fields.label.as_deref().and_then(column);
    let rows = reader.into_records().enumerate().map(move |(i, record)| {
        let number = i + 2;
        let record = record.map_err(|e| DataError::Row { path: path.clone(), row: number, what: e.to_string() })?;
        Ok(Row {
            number,
            text: record.get(text).unwrap_or_default().to_string(),
            label: label.and_then(|l| record.get(l)).map(|v| Value::String(v.to_string())),
            replaced: false,
        })
    });
    Ok(Box::new(rows))
}

#[cfg(test)]
mod tests;
