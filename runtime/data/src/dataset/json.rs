//! The objects of a JSON array, one by one.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::DataError;
use super::fields::Wanted;
use super::lines::{ObjectRow, too_long};
use super::open::MAX_ROW_BYTES;
use super::row::{Kept, Row};

/// A reader that keeps what it reads, if wanted.
struct Recorded<R> {
    bytes: R,
    kept: Option<Vec<u8>>,
}

impl<R: Read> Read for Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(buffer.get(..read).unwrap_or_default());
        }
        Ok(read)
    }
}

/// The rows of a file that is an array of objects.
pub(super) struct ArrayRows {
    reader: Box<dyn BufRead>,
    path: PathBuf,
    row: ObjectRow,
    number: usize,
    ended: bool,
}

impl ArrayRows {
    /// Returns the rows of `reader`.
    pub(super) fn new(path: PathBuf, reader: Box<dyn BufRead>, row: ObjectRow) -> Self {
        ArrayRows { reader, path, row, number: 0, ended: false }
    }

    /// Returns the next byte that is no white space, which is consumed.
    fn byte(&mut self) -> Result<Option<u8>, DataError> {
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(DataError::Io { path: self.path.clone(), source }),
            };
            let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let (empty, found) = (buffer.is_empty(), buffer.get(blank).copied());
            self.reader.consume(blank + usize::from(found.is_some()));
            if empty || found.is_some() {
                return Ok(found);
            }
        }
    }

    /// Reads the next object, of which `first` is the first byte.
    fn object(&mut self, first: u8) -> Result<(Map<String, Value>, Kept), String> {
        let started = [first];
        let bytes = (&started[..]).chain((&mut self.reader).take(MAX_ROW_BYTES));
        let mut bytes = Recorded { bytes, kept: (self.row.wanted == Wanted::Record).then(Vec::new) };
        let read = Map::deserialize(&mut serde_json::Deserializer::from_reader(&mut bytes));
        let Recorded { bytes, kept } = bytes;
        let full = bytes.into_inner().1.limit() == 0;
        let kept = kept.map_or(Kept::Nothing, |kept| Kept::Object(String::from_utf8_lossy(&kept).into_owned()));
        match read {
            Ok(object) => Ok((object, kept)),
            Err(_) if full => Err(too_long()),
            Err(error) => Err(format!("not an object of a JSON array: {error}")),
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>, DataError> {
        let separator = self.byte()?;
        let row = self.number + 1;
        let wrong = |what: &str| DataError::Row { path: self.path.clone(), row, what: what.to_string() };
        match (separator, self.number) {
            (Some(b'['), 0) | (Some(b','), 1..) => {}
            (Some(b']'), 1..) => return self.end(),
            (None, _) => return Err(wrong("the array is not closed; the file is incomplete")),
            _ => return Err(wrong("not a JSON array of objects")),
        }
        let first = match (self.byte()?, self.number) {
            (Some(b'{'), _) => b'{',
            (Some(b']'), 0) => return self.end(),
            _ => return Err(DataError::Row { path: self.path.clone(), row, what: "it is not a JSON object".into() }),
        };
        self.number = row;
        let (path, object) = (self.path.clone(), self.object(first));
        object
            .and_then(|(object, kept)| self.row.read(object).map(|(text, label)| (text, label, kept)))
            .map(|(text, label, kept)| Some(Row::new(row, text, label, kept)))
            .map_err(|what| DataError::Row { path, row, what })
    }

    /// Checks that nothing follows the array.
    fn end(&mut self) -> Result<Option<Row>, DataError> {
        match self.byte()? {
            None => Ok(None),
            Some(_) => {
                Err(DataError::Whole { path: self.path.clone(), what: "something follows the JSON array".into() })
            }
        }
    }
}

impl Iterator for ArrayRows {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.next_row().transpose();
        // After an error nobody knows where the next object begins.
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}
