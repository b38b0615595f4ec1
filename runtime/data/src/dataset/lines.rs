//! Lines of bounded length, and the rows of formats that have one per line.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::error::DataError;
use super::fasttext;
use super::fields::{Fields, Wanted};
use super::open::{MARK, MAX_ROW_BYTES, not_utf8};
use super::options::{Format, ReadOptions};
use super::row::{Chosen, Kept, Row};

/// Lines without their ends (`\n` or `\r\n`), which the last one may lack.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    /// Number of the last line.
    pub(super) number: usize,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn BufRead>) -> Self {
        Lines { reader, number: 0 }
    }

    /// Returns the next line; the inner error is of a line that is too long, after which others may follow.
    fn read(&mut self) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let mut line = Vec::new();
        if (&mut self.reader).take(MAX_ROW_BYTES + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        // Only a stream still has its mark.
        if self.number == 1 && line.starts_with(MARK) {
            line.drain(..MARK.len());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        } else if line.len() as u64 > MAX_ROW_BYTES {
            self.skip_line()?;
            return Ok(Some(Err(too_long())));
        }
        Ok(Some(Ok(line)))
    }

    /// Skips the rest of a line that is too long to keep.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let (used, done) = end.map_or((buffer.len(), buffer.is_empty()), |at| (at + 1, true));
            self.reader.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

impl Iterator for Lines {
    type Item = io::Result<Result<Vec<u8>, String>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Says that a row is too long.
pub(super) fn too_long() -> String {
    format!("it has more than {} MiB, the limit for one row; split it", MAX_ROW_BYTES >> 20)
}

/// Takes text and label from objects.
#[derive(Clone, Debug)]
pub(super) struct ObjectRow {
    /// The fields; the first object decides.
    pub(super) fields: Chosen,
    pub(super) options: ReadOptions,
    pub(super) wanted: Wanted,
}

impl ObjectRow {
    /// Chooses the fields among those of a file or of its first object.
    pub(super) fn choose(&self, have: &[&str], is_text: impl Fn(&str) -> bool) -> Result<&Fields, String> {
        if let Some(fields) = self.fields.get() {
            return Ok(fields);
        }
        let fields = Fields::choose(have, is_text, &self.options, self.wanted)?;
        Ok(self.fields.get_or_init(|| fields))
    }

    /// Returns text and label of an object.
    pub(super) fn read(&self, mut row: Map<String, Value>) -> Result<(String, Option<Value>), String> {
        let have: Vec<&str> = row.keys().map(String::as_str).collect();
        let fields = self.choose(&have, |name| row.get(name).is_some_and(Value::is_string))?;
        let advice = "; name the text's field with --text-field";
        let mut text = String::new();
        for name in &fields.text {
            match row.remove(name) {
                Some(Value::String(part)) => join(&mut text, &part),
                Some(Value::Null) if fields.text.len() > 1 => {}
                Some(_) => return Err(format!("\"{name}\" is not a string{advice}")),
                None => return Err(format!("no field \"{name}\"{advice}")),
            }
        }
        Ok((text, fields.label.as_deref().and_then(|label| row.remove(label))))
    }
}

/// The rows of a file with one per line.
pub(super) struct LineRows {
    lines: Lines,
    path: PathBuf,
    format: Format,
    row: ObjectRow,
    ended: bool,
}

impl LineRows {
    /// Returns the rows of `reader`.
    pub(super) fn new(path: PathBuf, reader: Box<dyn BufRead>, format: Format, row: ObjectRow) -> Self {
        LineRows { lines: Lines::new(reader), path, format, row, ended: false }
    }

    fn row(&mut self, line: &[u8]) -> Result<Option<Row>, String> {
        let number = self.lines.number;
        match self.format {
            Format::Text => {
                let text = String::from_utf8_lossy(line);
                let replaced = matches!(text, std::borrow::Cow::Owned(_));
                Ok(Some(Row { replaced, ..Row::new(number, text.into_owned(), None, Kept::Nothing) }))
            }
            _ if line.iter().all(u8::is_ascii_whitespace) => Ok(None),
            Format::FastText => {
                let (text, label) = fasttext::parse(utf8(line)?);
                Ok(Some(Row::new(number, text, label, Kept::Nothing)))
            }
            _ => {
                let line = utf8(line)?;
                let object = serde_json::from_str(line).map_err(|error| malformed(line.as_bytes(), &error))?;
                let (text, label) = self.row.read(object)?;
                let kept = match self.row.wanted {
                    Wanted::Record => Kept::Object(line.to_string()),
                    _ => Kept::Nothing,
                };
                Ok(Some(Row::new(number, text, label, kept)))
            }
        }
    }
}

impl Iterator for LineRows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(source) => {
                    self.ended = true;
                    return Some(Err(DataError::Io { path: self.path.clone(), source }));
                }
            };
            if let Some(row) = line.and_then(|line| self.row(&line)).transpose() {
                let (path, row_number) = (&self.path, self.lines.number);
                return Some(row.map_err(|what| DataError::Row { path: path.clone(), row: row_number, what }));
            }
        }
        None
    }
}

fn utf8(line: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(line).map_err(|_| not_utf8(line))
}

/// Says why a line is no object.
fn malformed(line: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(line);
    let more = if text.starts_with(fasttext::PREFIX) {
        "; it looks like fastText's format: name it with --format fasttext"
    } else if !text.trim_start().starts_with(['{', '[']) {
        "; if the file is CSV, name it with --format csv"
    } else {
        ""
    };
    format!("not a JSON object on one line: {error}{more}")
}

/// Adds a part to a text of several fields.
pub(super) fn join(text: &mut String, part: &str) {
    if !text.is_empty() && !part.is_empty() {
        text.push(' ');
    }
    text.push_str(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Vec<Vec<u8>> {
        Lines::new(Box::new(bytes)).map(|line| line.unwrap().unwrap()).collect()
    }

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        assert!(lines(b"").is_empty());
        assert_eq!(lines(b"\n"), [b""]);
        assert_eq!(lines(b"a\r\n\n b \r\rc\n"), [&b"a"[..], b"", b" b \r\rc"]);
        assert_eq!(lines(b"a\nb"), [b"a", b"b"]);
    }

    #[test]
    fn the_rest_of_a_line_can_be_skipped() {
        let mut lines = Lines::new(Box::new(&b"too long\nnext\n"[..]));
        lines.skip_line().unwrap();
        assert_eq!(lines.next().unwrap().unwrap().unwrap(), b"next");
        lines.skip_line().unwrap();
        assert!(lines.next().is_none());
    }
}
