//! Opens a data file: decompresses it, and finds out its format from its name and first bytes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use super::error::DataError;
use super::options::Format;
use crate::digest::Hashed;
use crate::zstd_reader::ZstdReader;

/// Bytes that are looked at before a file is read.
const PREFIX: u64 = 1 << 20;

/// The most bytes of one row; a longer one is refused before it fills the memory.
pub(super) const MAX_ROW_BYTES: u64 = 1 << 28;

/// A file that is being read.
pub(super) struct Opened {
    /// Its content, decompressed and without a byte order mark.
    pub(super) reader: Box<dyn BufRead>,
    /// The first bytes of the content, at most a MiB, and whether they are all of it.
    pub(super) prefix: (Vec<u8>, bool),
    /// The ending of its name, in lower case and without that of a compression.
    pub(super) ending: String,
    /// The file itself, hashed as it is read.
    pub(super) file: Hashed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packed {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
    Not,
}

/// Endings of compressed files.
const PACKED: [(&str, Packed); 4] =
    [(".gz", Packed::Gzip), (".zst", Packed::Zstd), (".bz2", Packed::Bzip2), (".xz", Packed::Xz)];

/// Endings of files that hold rows or are compressed.
pub(super) const ENDINGS: [(&str, Format); 6] = [
    ("jsonl", Format::Jsonl),
    ("ndjson", Format::Jsonl),
    ("json", Format::Json),
    ("csv", Format::Csv),
    ("tsv", Format::Csv),
    ("parquet", Format::Parquet),
];

/// The formats that are read, for messages.
pub(super) const READ: &str =
    "JSON Lines, JSON, CSV, TSV, fastText's lines and Parquet are read, and folders with a folder of texts per class";

impl Opened {
    /// Opens the file `path`.
    pub(super) fn new(path: &Path) -> Result<Opened, DataError> {
        let file = Hashed::new(open(path)?);
        let io = |source| DataError::Io { path: path.to_path_buf(), source };
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let mut raw = BufReader::with_capacity(1 << 16, file.clone());
        let (packed, stem) = PACKED
            .iter()
            .find_map(|(ending, packed)| name.strip_suffix(ending).map(|stem| (*packed, stem)))
            .unwrap_or((packed_by(raw.fill_buf().map_err(io)?), &name));
        let mut reader: Box<dyn Read> = match packed {
            Packed::Gzip => Box::new(flate2::read::MultiGzDecoder::new(raw)),
            Packed::Zstd => Box::new(ZstdReader::new(raw)),
            Packed::Bzip2 => bzip2(raw).map_err(io)?,
            Packed::Xz => xz(raw).map_err(io)?,
            Packed::Not => Box::new(raw),
        };
        let mut prefix = Vec::new();
        reader.by_ref().take(PREFIX).read_to_end(&mut prefix).map_err(io)?;
        let whole = (prefix.len() as u64) < PREFIX;
        let ending = Path::new(stem).extension().and_then(OsStr::to_str).unwrap_or_default().to_string();
        if let Some(encoding) = other_encoding(&prefix) {
            let what = format!("it is {encoding}; save it as UTF-8");
            return Err(DataError::Whole { path: path.to_path_buf(), what });
        }
        if prefix.starts_with(MARK) {
            prefix.drain(..MARK.len());
        }
        let reader = Box::new(BufReader::new(Cursor::new(prefix.clone()).chain(reader)));
        Ok(Opened { reader, prefix: (prefix, whole), ending, file })
    }

    /// Returns the format of the file. `rows`: whether it must hold rows, not mere lines of text.
    pub(super) fn format(&self, path: &Path, rows: bool) -> Result<Format, DataError> {
        let whole = |what: String| DataError::Whole { path: path.to_path_buf(), what };
        let prefix = &self.prefix.0;
        let first = prefix.iter().find(|byte| !byte.is_ascii_whitespace());
        if prefix.starts_with(b"PAR1") {
            return Ok(Format::Parquet);
        }
        let known = ENDINGS.iter().find_map(|(ending, format)| (*ending == self.ending).then_some(*format));
        match known {
            // An array in a file of lines, and lines in a file of JSON, are common.
            Some(Format::Json | Format::Jsonl) => Ok(if first == Some(&b'[') { Format::Json } else { Format::Jsonl }),
            Some(format) => Ok(format),
            None if prefix.contains(&0) => {
                let what = if prefix.starts_with(b"PK\x03\x04") {
                    "it is an Excel or another packed file; save the sheet as CSV".to_string()
                } else {
                    format!("it is not text; {READ}")
                };
                // Lines of a text file may hold anything.
                if rows || self.ending != "txt" { Err(whole(what)) } else { Ok(Format::Text) }
            }
            None if is_fasttext(prefix) => Ok(Format::FastText),
            None if rows && first == Some(&b'{') => Ok(Format::Jsonl),
            None if rows && self.ending == "txt" => {
                Err(whole(format!("a text file has no labels; {READ}; if it is one of these, name it with --format")))
            }
            None if rows => Err(whole(format!("its ending says nothing; {READ}; name the format with --format"))),
            None => Ok(Format::Text),
        }
    }
}

/// UTF-8's byte order mark.
pub(super) const MARK: &[u8] = b"\xEF\xBB\xBF";

/// Returns the name of an encoding that is not UTF-8, if the first bytes have its mark, or are letters with zeros between.
fn other_encoding(prefix: &[u8]) -> Option<&'static str> {
    match prefix {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("UTF-16"),
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] if a.is_ascii_graphic() && b.is_ascii_graphic() => Some("UTF-16"),
        _ => None,
    }
}

/// Returns whether the first words of a file are labels as fastText writes them.
fn is_fasttext(prefix: &[u8]) -> bool {
    let start = prefix.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(prefix.len());
    prefix.get(start..).is_some_and(|rest| rest.starts_with(super::fasttext::PREFIX.as_bytes()))
}

/// Returns how a file is compressed, by its first bytes.
fn packed_by(prefix: &[u8]) -> Packed {
    match prefix {
        [0x1F, 0x8B, ..] => Packed::Gzip,
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Packed::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Packed::Bzip2,
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Packed::Xz,
        _ => Packed::Not,
    }
}

#[cfg(feature = "formats")]
fn bzip2(raw: impl BufRead + 'static) -> io::Result<Box<dyn Read>> {
    Ok(Box::new(::bzip2::bufread::MultiBzDecoder::new(raw)))
}

#[cfg(feature = "formats")]
fn xz(raw: impl BufRead + 'static) -> io::Result<Box<dyn Read>> {
    // The second argument: further streams of the file are read as well.
    Ok(Box::new(lzma_rust2::XzReader::new(raw, true)))
}

#[cfg(not(feature = "formats"))]
fn bzip2(_: impl BufRead + 'static) -> io::Result<Box<dyn Read>> {
    Err(io::Error::other("this program was built without bzip2; unpack the file with bunzip2"))
}

#[cfg(not(feature = "formats"))]
fn xz(_: impl BufRead + 'static) -> io::Result<Box<dyn Read>> {
    Err(io::Error::other("this program was built without xz; unpack the file with unxz"))
}

fn open(path: &Path) -> Result<File, DataError> {
    let io = |source| DataError::Io { path: path.to_path_buf(), source };
    // Checked first: Windows only reports that access is denied.
    if path.is_dir() {
        return Err(io(io::Error::other("it is a directory, not a data file")));
    }
    File::open(path).map_err(io)
}

/// Returns what is wrong with bytes that are not UTF-8, and how to mend it.
pub(super) fn not_utf8(bytes: &[u8]) -> String {
    // In Windows-1252 and Latin-1, letters with accents are single bytes among ASCII.
    let letters = bytes.iter().filter(|byte| **byte >= 0xC0).count();
    let like = if letters > 0 && bytes.iter().filter(|byte| byte.is_ascii()).count() > 2 * letters {
        ", perhaps Windows-1252"
    } else {
        ""
    };
    format!("it is not valid UTF-8{like}; save the file as UTF-8, for example with: iconv -f WINDOWS-1252 -t UTF-8")
}
