//! How a CSV file separates and quotes its fields.
//!
//! The csv crate reads any sequence of bytes without complaint: a quotation mark that nobody closed swallows rows. [`Scan`] follows the
//! same bytes and notices what is not written by the rules of the dialect ([RFC 4180](https://www.rfc-editor.org/rfc/rfc4180), 2.5 to 2.7).

use std::io::{self, Read};

use super::lines::too_long;
use super::open::MAX_ROW_BYTES;
use super::options::{LABEL_NAMES, Quoting, ReadOptions, TEXT_NAMES};

/// Delimiters that are recognized.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quoting: Quoting,
}

impl Dialect {
    /// Returns the name of the delimiter.
    pub(super) fn separated(self) -> &'static str {
        match self.delimiter {
            b',' => "comma",
            b'\t' => "tab",
            b';' => "semicolon",
            _ => "bar",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first character of a field; of a row, if no field came before.
    Start,
    /// In a field that is not quoted.
    Plain,
    /// In a quoted field.
    Quoted,
    /// In a quoted field, after a `\` that escapes.
    Escaped,
    /// After a quotation mark in a quoted field: its end, or the first of two.
    Closing,
}

/// What the bytes of a file show if they are read in a dialect.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    dialect: Dialect,
    state: State,
    /// Lines so far, from 1.
    line: usize,
    /// Line of the last quotation mark that opened a field.
    opened: usize,
    /// Line where the row being read begins, and its bytes so far.
    row: (usize, u64),
    /// The most bytes of a row.
    most: u64,
    /// Fields of the row so far, without the one being read.
    fields: usize,
    /// Fields of each complete row, of the first ones.
    rows: Vec<usize>,
    /// Fields in quotation marks.
    quoted: usize,
    /// Those of them that need the marks.
    needed: usize,
    /// Whether the field being read needs its marks.
    needs: bool,
    /// Escaped quotation marks.
    escaped: usize,
    /// Line of the first mark that neither ends its field nor is doubled or escaped.
    broken: Option<usize>,
    /// Whether a row became too long.
    too_long: bool,
}

/// Rows whose fields are counted.
const ROWS: usize = 10_000;

impl Scan {
    pub(super) fn new(dialect: Dialect) -> Self {
        Scan {
            dialect,
            state: State::Start,
            line: 1,
            opened: 0,
            row: (1, 0),
            most: MAX_ROW_BYTES,
            fields: 0,
            rows: Vec::new(),
            quoted: 0,
            needed: 0,
            needs: false,
            escaped: 0,
            broken: None,
            too_long: false,
        }
    }

    /// Reads the next bytes of the file.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.step(byte);
        }
    }

    fn step(&mut self, byte: u8) {
        let Dialect { delimiter, quoting } = self.dialect;
        let ends = byte == delimiter || byte == b'\n';
        self.state = match (self.state, byte) {
            (State::Start, b'"') if quoting != Quoting::None => {
                (self.opened, self.needs) = (self.line, false);
                self.quoted += 1;
                State::Quoted
            }
            (State::Start | State::Plain, _) if ends => self.end(byte),
            // An empty line is no row.
            (State::Start, b'\r') if self.fields == 0 => State::Start,
            (State::Start | State::Plain, _) => State::Plain,
            (State::Quoted, b'"') => State::Closing,
            (State::Quoted, b'\\') if quoting == Quoting::Backslash => State::Escaped,
            (State::Quoted, _) => {
                self.needs |= ends;
                State::Quoted
            }
            (State::Escaped, _) => {
                self.needs = true;
                self.escaped += usize::from(byte == b'"');
                State::Quoted
            }
            (State::Closing, b'"') if quoting == Quoting::Double => {
                self.needs = true;
                State::Quoted
            }
            (State::Closing, _) if ends => {
                self.needed += usize::from(self.needs);
                self.end(byte)
            }
            (State::Closing, b'\r') => State::Closing,
            (State::Closing, _) => {
                self.broken.get_or_insert(self.line);
                State::Plain
            }
        };
        self.line += usize::from(byte == b'\n');
        if byte == b'\n' && self.state == State::Start {
            self.row = (self.line, 0);
        } else {
            self.row.1 += 1;
            self.too_long |= self.row.1 > self.most;
        }
    }

    /// Ends a field by a delimiter or the end of a line.
    fn end(&mut self, byte: u8) -> State {
        if byte != b'\n' {
            self.fields += 1;
        } else {
            let empty = self.state == State::Start && self.fields == 0;
            if !empty && self.rows.len() < ROWS {
                self.rows.push(self.fields + 1);
            }
            self.fields = 0;
        }
        State::Start
    }

    /// Ends the file.
    pub(super) fn finish(&mut self) {
        if matches!(self.state, State::Quoted | State::Escaped) {
            self.broken.get_or_insert(self.opened);
        } else if self.state != State::Start || self.fields > 0 {
            self.step(b'\n');
        }
    }

    /// Returns what is wrong with the file so far, with the line.
    pub(super) fn wrong(&self) -> Option<(usize, String)> {
        if self.too_long {
            let most = self.most >> 20;
            return Some(match self.state {
                State::Quoted | State::Escaped => {
                    (self.opened, format!("the quotation mark that opens here is not closed within {most} MiB{ADVICE}"))
                }
                _ => (self.row.0, too_long()),
            });
        }
        let line = self.broken?;
        Some(if matches!(self.state, State::Quoted | State::Escaped) && line == self.opened {
            (line, format!("the quotation mark that opens here is never closed{ADVICE}"))
        } else {
            (line, format!("a quotation mark within a quoted field is neither its end nor doubled{ADVICE}"))
        })
    }

    /// Returns the share of rows with as many fields as the first one, in thousandths; 0 without rows or with one column.
    fn regular(&self) -> usize {
        let Some(&first) = self.rows.first() else { return 0 };
        let same = self.rows.iter().filter(|fields| **fields == first).count();
        if first < 2 { 0 } else { 1000 * same / self.rows.len() }
    }
}

/// What to do about quotation marks.
const ADVICE: &str = "; say how the file quotes: --quoting none for marks that are text, --quoting backslash for \\\"";

/// A reader that scans what it reads.
pub(super) struct Scanned<R> {
    inner: R,
    scan: std::rc::Rc<std::cell::RefCell<Scan>>,
}

impl<R: Read> Scanned<R> {
    /// Reads from `inner`; the scan is shared.
    pub(super) fn new(inner: R, dialect: Dialect) -> (Self, std::rc::Rc<std::cell::RefCell<Scan>>) {
        let scan = std::rc::Rc::new(std::cell::RefCell::new(Scan::new(dialect)));
        (Scanned { inner, scan: scan.clone() }, scan)
    }
}

impl<R: Read> Read for Scanned<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut scan = self.scan.borrow_mut();
        if read == 0 && !buffer.is_empty() {
            scan.finish();
        }
        scan.push(buffer.get(..read).unwrap_or_default());
        // The row would fill the memory: end the file, and the scan says why.
        Ok(if scan.too_long { 0 } else { read })
    }
}

/// Finds out the dialect of a file from its first bytes; `whole`: whether they are all of it, `usual`: the delimiter that its name says.
/// Returns what a user should be told, too.
///
/// # Errors
/// If the quotation marks follow no rule.
pub(super) fn find(
    prefix: &[u8],
    whole: bool,
    usual: u8,
    options: &ReadOptions,
) -> Result<(Dialect, Option<String>), (usize, String)> {
    // Without its last line, which may be incomplete.
    let complete = if whole {
        prefix.len()
    } else {
        prefix.iter().rposition(|&byte| byte == b'\n').map_or(prefix.len(), |at| at + 1)
    };
    let prefix = prefix.get(..complete).unwrap_or(prefix);
    let mut best: Option<((bool, usize, bool), Tried)> = None;
    for delimiter in DELIMITERS {
        let tried = Tried::new(prefix, whole, delimiter, options.quoting);
        let header = tried.header(prefix);
        let has = |name: &str| header.iter().any(|column| column.eq_ignore_ascii_case(name));
        let named = options.text_fields.iter().map(String::as_str).chain(TEXT_NAMES).any(has)
            || options.label_field.as_deref().into_iter().chain(LABEL_NAMES).any(has);
        let score = (header.len() > 1 && named, tried.regular(), delimiter == usual);
        if best.as_ref().is_none_or(|(most, _)| score > *most) {
            best = Some((score, tried));
        }
    }
    let usual = || Tried::new(prefix, whole, usual, options.quoting);
    match best {
        Some(((named, regular, _), tried)) if named || regular > 0 => tried.decide(),
        _ => usual().decide(),
    }
}

/// A file read with one delimiter in each way of quoting.
struct Tried {
    delimiter: u8,
    forced: Option<Quoting>,
    double: Scan,
    backslash: Scan,
    none: Scan,
}

impl Tried {
    fn new(prefix: &[u8], whole: bool, delimiter: u8, forced: Option<Quoting>) -> Self {
        let scan = |quoting| {
            let mut scan = Scan::new(Dialect { delimiter, quoting });
            scan.push(prefix);
            if whole {
                scan.finish();
            }
            scan
        };
        Tried {
            delimiter,
            forced,
            double: scan(Quoting::Double),
            backslash: scan(Quoting::Backslash),
            none: scan(Quoting::None),
        }
    }

    fn scan(&self, quoting: Quoting) -> &Scan {
        match quoting {
            Quoting::Double => &self.double,
            Quoting::Backslash => &self.backslash,
            Quoting::None => &self.none,
        }
    }

    /// Returns the regularity of the way of quoting that would be chosen.
    fn regular(&self) -> usize {
        let (dialect, _) = self.clone_decision();
        self.scan(dialect.quoting).regular()
    }

    fn clone_decision(&self) -> (Dialect, Option<String>) {
        self.decide().unwrap_or((Dialect { delimiter: self.delimiter, quoting: Quoting::Double }, None))
    }

    /// Returns the names in the first row.
    fn header(&self, prefix: &[u8]) -> Vec<String> {
        let (dialect, _) = self.clone_decision();
        let mut reader = dialect.reader(prefix);
        reader.headers().map(|header| header.iter().map(|name| name.trim().to_string()).collect()).unwrap_or_default()
    }

    /// Chooses the way of quoting.
    fn decide(&self) -> Result<(Dialect, Option<String>), (usize, String)> {
        let dialect = |quoting| Dialect { delimiter: self.delimiter, quoting };
        if let Some(quoting) = self.forced {
            return Ok((dialect(quoting), None));
        }
        let (double, backslash, none) = (&self.double, &self.backslash, &self.none);
        let raw_is_regular = none.regular() == 1000;
        let Some(line) = double.broken else {
            // Who quotes where it must be would not have quoted these: the marks belong to the text.
            let all: usize = double.rows.iter().sum();
            let sparse = double.quoted > 0 && double.needed == 0 && double.quoted * 2 < all;
            return Ok(if self.delimiter == b'\t' && sparse && raw_is_regular {
                let why =
                    "quotation marks around whole fields are read as text; --quoting double reads them as quoting";
                (dialect(Quoting::None), Some(why.to_string()))
            } else {
                (dialect(Quoting::Double), None)
            });
        };
        if backslash.broken.is_none() && backslash.escaped > 0 {
            let why = format!(
                "\\\" within quoted fields (line {line}) is read as a quotation mark; --quoting says otherwise"
            );
            return Ok((dialect(Quoting::Backslash), Some(why)));
        }
        if raw_is_regular {
            let why = format!(
                "quotation marks are read as text, because one in line {line} follows no rule of quoting; --quoting says otherwise"
            );
            return Ok((dialect(Quoting::None), Some(why)));
        }
        Err(double.wrong().unwrap_or((line, format!("a quotation mark follows no rule of quoting{ADVICE}"))))
    }
}

impl Dialect {
    /// Returns a reader of rows.
    pub(super) fn reader<R: Read>(self, inner: R) -> csv::Reader<R> {
        let mut builder = csv::ReaderBuilder::new();
        builder.delimiter(self.delimiter).quoting(self.quoting != Quoting::None);
        if self.quoting == Quoting::Backslash {
            builder.escape(Some(b'\\')).double_quote(false);
        }
        builder.from_reader(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &str) -> Result<(char, Quoting, bool), usize> {
        find(bytes.as_bytes(), true, b',', &ReadOptions::default())
            .map(|(dialect, said)| (char::from(dialect.delimiter), dialect.quoting, said.is_some()))
            .map_err(|(line, _)| line)
    }

    #[test]
    fn delimiters_are_found_by_names_and_regular_rows() {
        assert_eq!(found("text,label\na,b\n"), Ok((',', Quoting::Double, false)));
        assert_eq!(found("text;label\na, b, c;d\n"), Ok((';', Quoting::Double, false)));
        assert_eq!(found("text\tlabel\na, b\td\n"), Ok(('\t', Quoting::Double, false)));
        assert_eq!(found("a|b|text\r\n1|2|3\r\n"), Ok(('|', Quoting::Double, false)));
        assert_eq!(found("text\na\n"), Ok((',', Quoting::Double, false)));
        assert_eq!(found(""), Ok((',', Quoting::Double, false)));
    }

    #[test]
    fn quotation_marks_are_quoting_where_they_follow_the_rules() {
        assert_eq!(found("text,label\n\"a, \"\"b\"\"\",c\n"), Ok((',', Quoting::Double, false)));
        assert_eq!(found("text,label\n\"two\nlines\",c\n"), Ok((',', Quoting::Double, false)));
        // In each of these, reading by the rules would lose a mark or a row.
        assert_eq!(found("text\tlabel\n\"late\" parcels\tx\ny\tz\n"), Ok(('\t', Quoting::None, true)));
        assert_eq!(found("text\tlabel\n\"open\tx\n\"open\ty\n"), Ok(('\t', Quoting::None, true)));
        assert_eq!(found("text\tlabel\n\"all\"\tx\nb\ty\nc\tz\n"), Ok(('\t', Quoting::None, true)));
        assert_eq!(found("text\tlabel\n\"all\"\t\"x\"\n\"b\"\t\"y\"\n"), Ok(('\t', Quoting::Double, false)));
        assert_eq!(found("text,label\n\"the \\\"fast\\\" one\",x\n"), Ok((',', Quoting::Backslash, true)));
        assert_eq!(found("text,label\n\"C:\\\",x\n"), Ok((',', Quoting::Double, false)));
        assert_eq!(found("text,label\n\"a, b,x\nc,y\n"), Err(2));
    }

    #[test]
    fn a_scan_names_the_line() {
        let wrong = |text: &str| {
            let mut scan = Scan::new(Dialect { delimiter: b',', quoting: Quoting::Double });
            scan.push(text.as_bytes());
            scan.finish();
            scan.wrong().map(|(line, what)| (line, what.split(';').next().unwrap_or_default().to_string()))
        };
        assert_eq!(wrong("a,b\n\"c\",\"d\"\"\"\r\n"), None);
        assert_eq!(wrong("a,b\n\"c\n,d\n").unwrap().0, 2);
        assert!(wrong("a,b\n\"c\n,d\n").unwrap().1.contains("never closed"));
        assert_eq!(wrong("a,b\n\"c\" x,d\n").unwrap().0, 2);
    }

    #[test]
    fn a_row_that_is_too_long_is_refused_before_it_ends() {
        let scanned = |text: &str| {
            let mut scan = Scan { most: 12, ..Scan::new(Dialect { delimiter: b',', quoting: Quoting::Double }) };
            scan.push(text.as_bytes());
            scan.wrong()
        };
        assert_eq!(scanned("a,b\nthe 12 bytes\n1,2\n"), None);
        let (line, what) = scanned("a,b\n1,2\none of 13 byt").unwrap();
        assert!(line == 3 && what.contains("the limit for one row"), "{line} {what}");
        let (line, what) = scanned("a,b\n1,\"one of\n13 bytes").unwrap();
        assert!(line == 2 && what.contains("is not closed within"), "{line} {what}");
    }
}
