//! Input texts: command line, files and pipes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kinglet_data::dataset::{self, DataError};

/// Largest text in bytes; a longer one is rejected before it fills the memory.
const MAX_TEXT_BYTES: u64 = 1 << 28;

/// A text as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, with invalid UTF-8 replaced by U+FFFD.
    pub text: String,
    /// Whether any byte was replaced.
    pub replaced: bool,
}

impl Text {
    fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Text { text, replaced: false },
            Err(e) => Text { text: String::from_utf8_lossy(e.as_bytes()).into_owned(), replaced: true },
        }
    }

    /// Reads a command-line argument.
    pub fn of_argument(argument: &OsStr) -> Self {
        match argument.to_string_lossy() {
            Cow::Borrowed(text) => Text { text: text.to_string(), replaced: false },
            Cow::Owned(text) => Text { text, replaced: true },
        }
    }
}

/// Texts in order. The inner error concerns one text and does not end the input.
pub type Texts = Box<dyn Iterator<Item = Result<Result<Text, String>>>>;

/// Returns the lines of stdin as they arrive.
pub fn stdin_lines() -> Texts {
    Box::new(Lines::new(Box::new(BufReader::new(io::stdin())), "stdin".to_string()))
}

/// Reads all of stdin as one text.
pub fn stdin_whole() -> Result<Text> {
    whole(&mut io::stdin().lock(), "stdin")
}

/// Returns the texts of a file: the field `text` of JSONL, CSV and TSV files, otherwise the lines. Decompresses .gz and .zst.
pub fn file_texts(path: &Path) -> Result<Texts> {
    if !is_data(path) {
        return Ok(Box::new(Lines::new(Box::new(BufReader::new(open(path)?)), path.display().to_string())));
    }
    let rows = dataset::texts(path)?;
    Ok(Box::new(rows.map(|row| match row {
        Ok(text) => Ok(Ok(Text { text, replaced: false })),
        Err(e @ DataError::Row { .. }) => Ok(Err(e.to_string())),
        Err(e) => Err(e.into()),
    })))
}

/// Reads a file as one text.
pub fn file_whole(path: &Path) -> Result<Text> {
    if is_data(path) {
        bail!("--whole reads plain text, and {} holds rows or is compressed; omit --whole", path.display());
    }
    whole(&mut open(path)?, &path.display().to_string())
}

/// Bytes that are read as they arrive, and the name of their source.
pub type Source = (Box<dyn Read>, String);

/// Opens stdin as a stream.
pub fn stdin_stream() -> Source {
    (Box::new(io::stdin().lock()), "stdin".to_string())
}

/// Opens a file as a stream.
pub fn file_stream(path: &Path) -> Result<Source> {
    if is_data(path) {
        bail!(
            "--stream reads plain text, and {} holds rows or is compressed; decompress it into a pipe",
            path.display()
        );
    }
    Ok((Box::new(open(path)?), path.display().to_string()))
}

/// Returns whether [`dataset`] reads files with this extension.
fn is_data(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    matches!(extension.as_str(), "jsonl" | "json" | "ndjson" | "csv" | "tsv" | "gz" | "zst")
}

fn open(path: &Path) -> Result<File> {
    // Checked first: Windows only reports that access is denied.
    if path.is_dir() {
        bail!("cannot read {}: it is a directory; pass a file", path.display());
    }
    File::open(path).with_context(|| format!("cannot read {}", path.display()))
}

fn whole(reader: &mut dyn Read, name: &str) -> Result<Text> {
    let mut bytes = Vec::new();
    reader.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        bail!("{name} has {}; split it", too_many_bytes());
    }
    strip_mark(&mut bytes);
    while let Some(b'\n' | b'\r') = bytes.last() {
        bytes.pop();
    }
    Ok(Text::of(bytes))
}

fn too_many_bytes() -> String {
    format!("more than {} MiB, the limit for one text", MAX_TEXT_BYTES >> 20)
}

/// Removes the byte order mark that some editors write before UTF-8.
fn strip_mark(bytes: &mut Vec<u8>) {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
}

/// Lines without their terminators (`\n` or `\r\n`), which the last line may lack.
struct Lines {
    reader: Box<dyn BufRead>,
    name: String,
    first: bool,
    ended: bool,
}

impl Lines {
    fn new(reader: Box<dyn BufRead>, name: String) -> Self {
        Lines { reader, name, first: true, ended: false }
    }

    /// Skips the rest of a line that is too long to keep.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = match self.reader.fill_buf() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let end = buffer.iter().position(|&b| b == b'\n');
            let (used, done) = end.map_or((buffer.len(), buffer.is_empty()), |at| (at + 1, true));
            self.reader.consume(used);
            if done {
                return Ok(());
            }
        }
    }

    fn next_line(&mut self) -> io::Result<Option<Result<Text, String>>> {
        let mut bytes = Vec::new();
        if (&mut self.reader).take(MAX_TEXT_BYTES + 1).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        } else if bytes.len() as u64 > MAX_TEXT_BYTES {
            self.skip_line()?;
            return Ok(Some(Err(format!("the line has {}", too_many_bytes()))));
        }
        if self.first {
            strip_mark(&mut bytes);
            self.first = false;
        }
        Ok(Some(Ok(Text::of(bytes))))
    }
}

impl Iterator for Lines {
    type Item = Result<Result<Text, String>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let line = self.next_line().with_context(|| format!("cannot read {}", self.name)).transpose();
        self.ended = !matches!(line, Some(Ok(_)));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8]) -> Vec<(String, bool)> {
        Lines::new(Box::new(bytes), "test".to_string())
            .map(|line| line.unwrap().unwrap())
            .map(|text| (text.text, text.replaced))
            .collect()
    }

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let plain = |text: &str| (text.to_string(), false);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n"), [plain("")]);
        assert_eq!(lines(b"a\r\n\n b \r\rc\n"), [plain("a"), plain(""), plain(" b \r\rc")]);
        assert_eq!(lines(b"a\nb"), [plain("a"), plain("b")]);
        assert_eq!(lines(b"\xEF\xBB\xBFa\n\xEF\xBB\xBFb"), [plain("a"), plain("\u{FEFF}b")]);
    }

    #[test]
    fn bytes_that_are_not_utf8_become_replacement_characters() {
        assert_eq!(lines(b"a\xFFb\n\xC3\xA4"), [("a\u{FFFD}b".to_string(), true), ("ä".to_string(), false)]);
    }

    #[test]
    fn the_rest_of_a_line_can_be_skipped() {
        let mut lines = Lines::new(Box::new(&b"too long\nnext\n"[..]), "test".to_string());
        lines.skip_line().unwrap();
        assert_eq!(lines.next().unwrap().unwrap().unwrap().text, "next");
        lines.skip_line().unwrap();
        assert!(lines.next().is_none());
    }
}
