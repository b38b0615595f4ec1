//! Input texts: command line, files and pipes.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kinglet_data::dataset::{self, DataError, ReadOptions};

use super::output::{Seen, warn};

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

    /// Returns what there is to note.
    pub fn seen(&self) -> Seen {
        Seen::of(&self.text, self.replaced)
    }

    /// Reads a command-line argument, without the mark of [`mark_texts`].
    pub fn of_argument(argument: &OsStr) -> Self {
        let lossy = argument.to_string_lossy();
        let text = lossy.strip_prefix(MARK).unwrap_or(&lossy).to_string();
        Text { text, replaced: matches!(lossy, Cow::Owned(_)) }
    }
}

/// What [`mark_texts`] puts before a text; no argument of a process can hold it.
const MARK: char = '\0';

/// Marks the arguments that begin with one `-` and hold a space, such as "-5 degrees": they are texts, not options.
pub fn mark_texts(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let is_text = |argument: &OsString| {
        let bytes = argument.as_encoded_bytes();
        bytes.starts_with(b"-") && !bytes.starts_with(b"--") && bytes.contains(&b' ')
    };
    let mark = |argument: OsString| {
        if !is_text(&argument) {
            return argument;
        }
        let mut marked = OsString::from(MARK.to_string());
        marked.push(argument);
        marked
    };
    arguments.into_iter().map(mark).collect()
}

/// Texts in order. The inner error concerns one text and does not end the input.
pub type Texts = Box<dyn Iterator<Item = Result<Result<Text, String>>>>;

/// Returns the lines of stdin as they arrive.
pub fn stdin_lines() -> Texts {
    texts(dataset::text_lines(Box::new(BufReader::new(io::stdin())), "stdin"))
}

/// Reads all of stdin as one text.
pub fn stdin_whole() -> Result<Text> {
    whole(&mut io::stdin().lock(), "stdin")
}

/// Returns the texts of a file: the lines of a text file, the texts of the rows of other files.
pub fn file_texts(path: &Path, read: &ReadOptions) -> Result<Texts> {
    let rows = dataset::texts(path, read)?;
    warn(path, rows.warnings());
    Ok(texts(rows))
}

fn texts(rows: impl Iterator<Item = Result<dataset::Text, DataError>> + 'static) -> Texts {
    Box::new(rows.map(|row| match row {
        Ok(dataset::Text { text, replaced }) => Ok(Ok(Text { text, replaced })),
        Err(DataError::Row { what, .. }) => Ok(Err(what)),
        Err(e) => Err(e.into()),
    }))
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
    let rows = ["jsonl", "json", "ndjson", "csv", "tsv", "parquet", "gz", "zst", "bz2", "xz"];
    rows.contains(&extension.as_str())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_become_replacement_characters() {
        let lines = texts(dataset::text_lines(Box::new(&b"\xEF\xBB\xBFa\xFFb\r\n\xC3\xA4"[..]), "test"));
        let lines: Vec<Text> = lines.map(|line| line.unwrap().unwrap()).collect();
        let text = |text: &str, replaced| Text { text: text.to_string(), replaced };
        assert_eq!(lines, [text("a\u{FFFD}b", true), text("\u{e4}", false)]);
    }

    #[test]
    fn a_text_may_begin_like_an_option() {
        let typed = ["kinglet", "classify", "-5 degrees", "--json", "-k", "2"].map(OsString::from);
        let marked = mark_texts(typed);
        assert_eq!(marked[2], "\0-5 degrees");
        assert_eq!(Text::of_argument(&marked[2]).text, "-5 degrees");
        assert_eq!(marked[3..], ["--json", "-k", "2"]);
    }
}
