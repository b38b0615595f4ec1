//! The headers of a Parquet file's pages, read before the library decodes a page.
//!
//! A page says in its header how many bytes it decodes to, and the library takes that much memory without a limit: a small file may say
//! gigabytes. A page header is a struct of Thrift's compact protocol
//! ([Parquet](https://parquet.apache.org/docs/file-format/data-pages/),
//! [Thrift](https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md)).

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::Range;

/// Values within values; a page header has three, one in the other.
const DEEPEST: usize = 8;
/// `DELTA_BYTE_ARRAY`: a value begins as the one before, so that values decode to more bytes than their page.
const DELTA_BYTE_ARRAY: i64 = 7;

/// What the pages of a column show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    /// Bytes that the largest page decodes to.
    pub(super) largest: u64,
    /// Whether values of a page may together be longer than the page.
    pub(super) share_bytes: bool,
}

impl Pages {
    /// Reads the headers of the pages in `range`, a column chunk in bytes of the file. Skips the pages.
    ///
    /// # Errors
    /// If the file cannot be read, or a header has no sizes or is no struct.
    pub(super) fn read(file: &mut (impl BufRead + Seek), range: Range<u64>) -> io::Result<Pages> {
        let mut pages = Pages::default();
        let mut at = file.seek(SeekFrom::Start(range.start))?;
        while at < range.end {
            let mut header = Header::default();
            Struct { file }.each(|reader, id, kind| header.field(reader, id, kind))?;
            let (Some(decoded), Some(stored)) = (header.decoded, header.stored) else { return Err(wrong()) };
            pages.largest = pages.largest.max(decoded);
            pages.share_bytes |= header.encoding == Some(DELTA_BYTE_ARRAY);
            file.seek_relative(i64::try_from(stored).map_err(|_| wrong())?)?;
            let next = file.stream_position()?;
            // A header takes at least a byte, so this ends.
            if next <= at {
                return Err(wrong());
            }
            at = next;
        }
        Ok(pages)
    }

    /// Returns what both columns show.
    pub(super) fn and(self, other: Pages) -> Pages {
        Pages { largest: self.largest.max(other.largest), share_bytes: self.share_bytes || other.share_bytes }
    }
}

/// The fields of a page header that matter here.
#[derive(Default)]
struct Header {
    decoded: Option<u64>,
    stored: Option<u64>,
    encoding: Option<i64>,
}

impl Header {
    fn field<R: BufRead>(&mut self, reader: &mut Struct<'_, R>, id: i64, kind: u8) -> io::Result<()> {
        match (id, kind) {
            (2, kind::I32) => self.decoded = Some(reader.size()?),
            (3, kind::I32) => self.stored = Some(reader.size()?),
            // The header of a data page, of the first version or the second, with the encoding of its values.
            (5 | 8, kind::STRUCT) => {
                let place = if id == 5 { 2 } else { 4 };
                reader.each(|reader, id, kind| {
                    if (id, kind) == (place, kind::I32) {
                        self.encoding = Some(reader.integer()?);
                        Ok(())
                    } else {
                        reader.skip(kind, 2)
                    }
                })?;
            }
            _ => reader.skip(kind, 1)?,
        }
        Ok(())
    }
}

/// Types of the compact protocol.
mod kind {
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const BYTE: u8 = 3;
    pub(super) const I16: u8 = 4;
    pub(super) const I32: u8 = 5;
    pub(super) const I64: u8 = 6;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const STRUCT: u8 = 12;
}

/// A reader at a struct or in one.
struct Struct<'a, R> {
    file: &'a mut R,
}

impl<R: BufRead> Struct<'_, R> {
    /// Passes each field, number and type, to `field`, which reads its value.
    fn each(&mut self, mut field: impl FnMut(&mut Self, i64, u8) -> io::Result<()>) -> io::Result<()> {
        let mut id = 0i64;
        loop {
            let byte = self.byte()?;
            let (step, kind) = (i64::from(byte >> 4), byte & 15);
            if byte == 0 {
                return Ok(());
            }
            id = if step == 0 { self.integer()? } else { id.checked_add(step).ok_or_else(wrong)? };
            field(self, id, kind)?;
        }
    }

    /// Skips a value that is within so many others.
    fn skip(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        if depth >= DEEPEST {
            return Err(wrong());
        }
        match kind {
            // Their value is their type.
            kind::TRUE | kind::FALSE => {}
            kind::BYTE => {
                self.byte()?;
            }
            kind::I16 | kind::I32 | kind::I64 => {
                self.integer()?;
            }
            kind::DOUBLE => self.pass(8)?,
            kind::BINARY => {
                let length = self.varint()?;
                self.pass(length)?;
            }
            kind::LIST | kind::SET => {
                let byte = self.byte()?;
                let (short, element) = (u64::from(byte >> 4), byte & 15);
                let count = if short == 15 { self.varint()? } else { short };
                for _ in 0..count {
                    // In a list, unlike a struct, a truth value takes a byte.
                    let element = if element <= kind::FALSE { kind::BYTE } else { element };
                    self.skip(element, depth + 1)?;
                }
            }
            kind::STRUCT => self.each(|reader, _, kind| reader.skip(kind, depth + 1))?,
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.file.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(wrong())
    }

    fn integer(&mut self) -> io::Result<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    fn size(&mut self) -> io::Result<u64> {
        u64::try_from(self.integer()?).map_err(|_| wrong())
    }

    fn pass(&mut self, length: u64) -> io::Result<()> {
        if io::copy(&mut self.file.by_ref().take(length), &mut io::sink())? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a page header is damaged")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Pages> {
        Pages::read(&mut Cursor::new(bytes), 0..bytes.len() as u64)
    }

    #[test]
    fn sizes_and_encodings_are_read_and_all_else_is_skipped() {
        // Type 0, 300 bytes decoded, 2 stored; a data page of 3 values, encoding 0, with statistics: a text, a truth value.
        let plain = [
            0x15, 0, 0x15, 0xD8, 0x04, 0x15, 4, 0x2C, 0x15, 6, 0x15, 0, 0x3C, 0x18, 2, b'a', b'b', 0x11, 0, 0, 0, 7, 7,
        ];
        assert_eq!(read(&plain).unwrap(), Pages { largest: 300, share_bytes: false });
        // The second version, encoding 7, with a list of two truth values in a field whose number is written out.
        let delta = [0x15, 6, 0x15, 2, 0x15, 2, 0x5C, 0x45, 14, 0x09, 40, 0x22, 1, 2, 0, 0, 9];
        assert_eq!(read(&delta).unwrap(), Pages { largest: 1, share_bytes: true });
        let both: Vec<u8> = plain.iter().chain(&delta).copied().collect();
        assert_eq!(read(&both).unwrap(), Pages { largest: 300, share_bytes: true });
    }

    #[test]
    fn damaged_headers_are_errors() {
        // No sizes; a negative size; an unknown type; a number without end; structs in structs, lists in lists.
        let lists = [&[0x19][..], &[0x19; 64]].concat();
        for bytes in [&[0][..], &[0x25, 1, 0x15, 2, 0], &[0x1F, 0], &[0x15, 0xFF, 0xFF], &[0x1C; 64], &lists] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
