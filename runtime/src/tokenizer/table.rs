//! The vocabulary as one flat table of bytes.

use super::bound::Bound;
use super::{FIRST_BYTE, FIRST_PIECE, MAX_PIECE_BYTES, METASPACE, TableError, Token, is_empty};
use core::{fmt, ops::Range, str};

const MAGIC: [u8; 4] = *b"KTOK";
const VERSION: u32 = 1;
const LOWERCASE: u32 = 1;
const NFC: u32 = 2;
const HEADER: usize = 20;
const INDEX: usize = 257;
const MAX_PIECES: usize = 1 << 20;
/// UTF-8 of [`METASPACE`].
const MARK: [u8; METASPACE.len_utf8()] = {
    let mut mark = [0; METASPACE.len_utf8()];
    METASPACE.encode_utf8(&mut mark);
    mark
};
/// Bytes after [`METASPACE`] that have an entry in [`Words`]: the block of ASCII with the small letters.
const LETTERS: Range<u8> = 0x60..0x80;
/// Number of pieces that are compared one by one.
const FEW: usize = 8;

/// A vocabulary, read in place from borrowed bytes of any alignment.
///
/// Besides the slices it holds under 200 bytes that speed up the search and are computed once: where the words with each first
/// letter begin, and the highest score of texts of each length.
///
/// # Format
/// Little endian; each field begins at a multiple of 4 bytes. `N` is the number of pieces, `S` the bytes of all of
/// them.
///
/// | bytes | field |
/// |---|---|
/// | 4 | magic `KTOK` |
/// | 4 | version, u32: 1 |
/// | 4 | flags, u32: bit 0 lower-cases the text, bit 1 brings it into NFC first, the others are 0 |
/// | 4 | `N`, u32, at most 1,048,576 |
/// | 4 | `S`, u32 |
/// | 257 · 4 | index, u32: entry `b` is the first piece whose first byte is `b` or more; entry 256 is `N` |
/// | (N + 1) · 4 | offsets, u32: piece `i` is bytes `offsets[i]` to `offsets[i + 1]` of the text |
/// | N · 2 | scores, i16, in units of [`super::SCORE_UNIT`] |
/// | 0 or 2 | zero, up to a multiple of 4 |
/// | S | text: the pieces, UTF-8, each of 1 to 256 bytes, strictly ascending by their bytes |
///
/// Piece `i` has id [`FIRST_PIECE`] + `i`. All of `!` to `~` (without `A` to `Z` if the text is lower-cased) and
/// [`METASPACE`] are pieces; `<pad>`, `</s>`, `<unk>` and `<0x00>` to `<0xFF>` are not. This makes the table equivalent
/// to `tokenizer.json`, where those names are part of the vocabulary but cost more than any way to spell them.
///
/// 16 bits are enough: scores are logarithms of probabilities, and −32 is e⁻³². A chunk has at most
/// [`super::CHUNK_CHARS`] tokens, each between −[`super::UNKNOWN_COST`] and 32,767, so sums stay within 2²⁷ and `i32`
/// never overflows.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    bytes: &'a [u8],
    first: &'a [[u8; 4]],
    offsets: &'a [[u8; 4]],
    scores: &'a [[u8; 2]],
    text: &'a [u8],
    index: TableIndex,
}

/// What is done to a text before it is divided into words, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Normalization {
    /// Canonical composition, so that texts that print alike are alike.
    pub nfc: bool,
    /// Lower case.
    pub lowercase: bool,
}

impl Normalization {
    /// Lower case alone.
    pub const LOWERCASE: Self = Normalization { nfc: false, lowercase: true };
}

/// Values computed once from a table's bytes; together they rebuild the table.
#[derive(Clone, Copy)]
pub(crate) struct TableIndex {
    normalization: Normalization,
    /// Number of pieces.
    pieces: usize,
    words: Words,
    bound: Option<Bound>,
}

/// Position of the pieces that begin with [`METASPACE`], most of a vocabulary.
#[derive(Clone, Copy)]
struct Words {
    /// The first of them.
    first: u32,
    /// The first one that continues with each of [`LETTERS`] or a greater byte, and with the byte after these.
    letters: [u32; (LETTERS.end - LETTERS.start) as usize + 1],
}

const _: () = assert!(super::CHUNK_CHARS as i64 * super::UNKNOWN_COST as i64 <= 1 << 27);
const _: () = assert!(super::CHUNK_CHARS as i64 * (i16::MAX as i64) <= 1 << 27);

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("pieces", &self.scores.len())
            .field("normalization", &self.index.normalization)
            .finish()
    }
}

/// Returns where the text begins in a table of `pieces`, at most 2^20: the sum fits into 32 bits.
const fn text_at(pieces: usize) -> usize {
    HEADER + INDEX * 4 + (pieces + 1) * 4 + (pieces * 2).next_multiple_of(4)
}

impl TableIndex {
    /// Returns the table of bytes that [`Table::new`] took. Other bytes make one that encodes wrongly, but neither
    /// panics nor reads outside.
    pub(crate) fn table<'a>(&self, bytes: &'a [u8]) -> Table<'a> {
        let cut = |at: usize| bytes.get(at..).unwrap_or_default();
        let list = |at: usize, count: usize| cut(at).get(..count * 4).unwrap_or_default().as_chunks().0;
        let (first, offsets) = (HEADER, HEADER + INDEX * 4);
        let scores = offsets + (self.pieces + 1) * 4;
        Table {
            bytes,
            first: list(first, INDEX),
            offsets: list(offsets, self.pieces + 1),
            scores: cut(scores).get(..self.pieces * 2).unwrap_or_default().as_chunks().0,
            text: cut(text_at(self.pieces)),
            index: *self,
        }
    }
}

impl<'a> Table<'a> {
    /// Reads a table from exactly its bytes and checks all of it.
    ///
    /// # Errors
    /// If anything deviates from the format.
    pub fn new(bytes: &'a [u8]) -> Result<Self, TableError> {
        let short = |need: usize| TableError::Length { need, got: bytes.len() };
        let (header, _) = bytes.split_first_chunk::<HEADER>().ok_or(short(HEADER))?;
        let (words, _) = header.as_chunks::<4>();
        let &[magic, version, flags, pieces, size] = words else { return Err(short(HEADER)) };
        if magic != MAGIC {
            return Err(TableError::Magic { got: magic });
        }
        let [version, flags, pieces, size] = [version, flags, pieces, size].map(u32::from_le_bytes);
        if version != VERSION {
            return Err(TableError::Version { expected: VERSION, got: version });
        }
        if flags & !(LOWERCASE | NFC) != 0 {
            return Err(TableError::Flags { got: flags });
        }
        let normalization = Normalization { nfc: flags & NFC != 0, lowercase: flags & LOWERCASE != 0 };
        if normalization.nfc && !cfg!(feature = "nfc") {
            return Err(TableError::NeedsNfc);
        }
        let (pieces, size) = (pieces as usize, size as usize);
        if pieces > MAX_PIECES {
            return Err(TableError::TooManyPieces { max: MAX_PIECES, got: pieces });
        }
        let (text, padding) = (text_at(pieces), pieces * 2 % 4);
        let need = text.checked_add(size).ok_or(short(usize::MAX))?;
        if bytes.len() != need {
            return Err(short(need));
        }
        if bytes.get(text - padding..text).is_none_or(|padding| padding.iter().any(|&b| b != 0)) {
            return Err(TableError::Padding);
        }
        let words = Words { first: 0, letters: [0; _] };
        let mut table = TableIndex { normalization, pieces, words, bound: None }.table(bytes);
        table.index.words = table.words();
        let ascii = 0..table.first_at(0x80).min(pieces);
        table.index.bound = Bound::new(ascii.map(|piece| (table.len_of(piece), table.score_at(piece))));
        table.check()?;
        Ok(table)
    }

    /// Returns the index that rebuilds this table from the same bytes.
    pub(crate) const fn index(&self) -> TableIndex {
        self.index
    }

    /// Searches for the pieces that begin with [`METASPACE`].
    fn words(&self) -> Words {
        let (mut low, mut high) = (0, self.scores.len());
        for (depth, &byte) in MARK.iter().enumerate() {
            (low, high) = self.narrow(low, high, depth, byte);
        }
        let first = low as u32;
        low += usize::from(low < high && self.len_of(low) == MARK.len());
        let mut bytes = LETTERS.start..=LETTERS.end;
        let letters = [(); _].map(|()| {
            let byte = bytes.next().unwrap_or(LETTERS.end);
            low = self.partition(low, high, |p| self.byte_at(p, MARK.len()) < byte);
            low as u32
        });
        Words { first, letters }
    }

    fn check(&self) -> Result<(), TableError> {
        let count = self.scores.len();
        let mut before: &[u8] = &[];
        // The next entry of the index to compare.
        let mut entry = 0;
        let check_index = |byte: usize, expected: usize| match self.first_at(byte) {
            got if got == expected => Ok(()),
            got => Err(TableError::Index { byte, expected, got }),
        };
        for piece in 0..count {
            let (begin, end) = (self.offset(piece), self.offset(piece + 1));
            let bytes = match self.text.get(begin..end) {
                Some(bytes) if !bytes.is_empty() && bytes.len() <= MAX_PIECE_BYTES => bytes,
                _ => return Err(TableError::PieceLength { piece, begin, end }),
            };
            if (piece == 0 && begin != 0) || (piece + 1 == count && end != self.text.len()) {
                return Err(TableError::PieceLength { piece, begin, end });
            }
            if str::from_utf8(bytes).is_err() {
                return Err(TableError::NotUtf8 { piece });
            }
            if bytes <= before {
                return Err(TableError::NotSorted { piece });
            }
            if is_reserved(bytes) {
                return Err(TableError::Reserved { piece });
            }
            let first = bytes.first().map_or(0, |&b| usize::from(b));
            while entry <= first {
                check_index(entry, piece)?;
                entry += 1;
            }
            before = bytes;
        }
        while entry < INDEX {
            check_index(entry, count)?;
            entry += 1;
        }
        let missing = ('!'..='~')
            .filter(|c| !(self.index.normalization.lowercase && c.is_ascii_uppercase()))
            .chain([METASPACE])
            .find(|c| self.find(c.encode_utf8(&mut [0; 4]).as_bytes()).is_none());
        missing.map_or(Ok(()), |character| Err(TableError::MissingCharacter { character }))
    }

    /// Returns whether the text is lower-cased first.
    pub const fn lowercase(&self) -> bool {
        self.index.normalization.lowercase
    }

    /// Returns whether the text is brought into NFC first.
    pub const fn nfc(&self) -> bool {
        self.index.normalization.nfc
    }

    /// Returns what is done to a text first.
    pub const fn normalization(&self) -> Normalization {
        self.index.normalization
    }

    /// Returns the number of ids, including special and byte tokens. All ids are smaller.
    pub const fn vocab_size(&self) -> usize {
        FIRST_PIECE as usize + self.scores.len()
    }

    /// Returns the bytes that the table was read from.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the meaning of an id, or `None` from [`Table::vocab_size`] on.
    pub fn token(&self, id: u32) -> Option<Token<'a>> {
        match id {
            super::PAD => Some(Token::Pad),
            super::END => Some(Token::End),
            super::UNKNOWN => Some(Token::Unknown),
            FIRST_BYTE..FIRST_PIECE => Some(Token::Byte((id - FIRST_BYTE) as u8)),
            _ => {
                let piece = usize::try_from(id - FIRST_PIECE).ok().filter(|&p| p < self.scores.len())?;
                str::from_utf8(self.piece(piece)).ok().map(Token::Piece)
            }
        }
    }

    /// Returns whether a token is a piece with a letter, digit or symbol.
    ///
    /// The bytes of characters outside the vocabulary are none: a model learns little about them, and nothing about most.
    pub fn is_word(&self, id: u32) -> bool {
        let Some(Token::Piece(piece)) = self.token(id) else { return false };
        let piece = piece.as_bytes();
        !is_empty(piece.strip_prefix(MARK.as_slice()).unwrap_or(piece))
    }

    /// Returns the score of a piece in units of [`super::SCORE_UNIT`], or `None` for other ids.
    pub fn score(&self, id: u32) -> Option<i16> {
        let piece = usize::try_from(id.checked_sub(FIRST_PIECE)?).ok()?;
        self.scores.get(piece).map(|&s| i16::from_le_bytes(s))
    }

    /// Returns the most that ASCII texts can score; none if a score is above 0.
    #[inline]
    pub(super) fn bound(&self) -> Option<Bound> {
        self.index.bound
    }

    /// Returns the piece of one ASCII character, as (id, score).
    #[inline]
    pub(super) fn character(&self, byte: u8) -> Option<(u32, i32)> {
        let piece = self.first_at(usize::from(byte));
        let found = byte.is_ascii() && piece < self.first_at(usize::from(byte) + 1) && self.len_of(piece) == 1;
        found.then(|| self.found_at(piece))
    }

    /// Gives every piece that `text` begins with, shortest first, as (bytes, id, score).
    ///
    /// Narrows the sorted range of pieces that share a prefix with the text, byte by byte, until it holds few.
    #[inline]
    pub(super) fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32, i32)) {
        let (mut low, mut high, mut depth) = match text.split_first_chunk() {
            Some((&MARK, &[letter, ..])) if LETTERS.contains(&letter) => {
                let mark = self.index.words.first as usize;
                if self.len_of(mark) == MARK.len() {
                    let (id, score) = self.found_at(mark);
                    found(MARK.len(), id, score);
                }
                let letters = self.index.words.letters.get(usize::from(letter - LETTERS.start)..);
                let Some(&[low, high, ..]) = letters else { return };
                (low as usize, high as usize, MARK.len() + 1)
            }
            _ => {
                let Some(&first) = text.first() else { return };
                (self.first_at(usize::from(first)), self.first_at(usize::from(first) + 1), 1)
            }
        };
        // Pieces low..high begin with text[..depth]; only the first of them can be no longer than that.
        while high.saturating_sub(low) > FEW {
            if self.len_of(low) == depth {
                let (id, score) = self.found_at(low);
                found(depth, id, score);
                low += 1;
            }
            let Some(&byte) = text.get(depth) else { return };
            (low, high) = self.narrow(low, high, depth, byte);
            depth += 1;
        }
        'pieces: for piece in low..high {
            let mut at = depth;
            let bytes = self.piece(piece);
            // The rest of the piece, byte by byte: few are equal.
            while let Some(byte) = bytes.get(at) {
                match text.get(at) {
                    Some(wanted) if byte == wanted => at += 1,
                    Some(wanted) if byte < wanted => continue 'pieces,
                    _ => return,
                }
            }
            let (id, score) = self.found_at(piece);
            found(at, id, score);
        }
    }

    /// Returns the range of the pieces `low..high`, which share their first `depth` bytes and are longer, that continue
    /// with `byte`.
    #[inline]
    fn narrow(&self, mut low: usize, mut high: usize, depth: usize, byte: u8) -> (usize, usize) {
        while low < high {
            let middle = low + (high - low) / 2;
            match self.byte_at(middle, depth) {
                found if found < byte => low = middle + 1,
                found if found > byte => high = middle,
                _ => {
                    if self.byte_at(low, depth) != byte {
                        low = self.partition(low, middle, |p| self.byte_at(p, depth) < byte);
                    }
                    if self.byte_at(high - 1, depth) != byte {
                        high = self.partition(middle + 1, high, |p| self.byte_at(p, depth) <= byte);
                    }
                    break;
                }
            }
        }
        (low, high)
    }

    /// Returns the first of `low..high` for which `before` does not hold, or `high`.
    #[inline]
    fn partition(&self, mut low: usize, mut high: usize, before: impl Fn(usize) -> bool) -> usize {
        while low < high {
            let middle = low + (high - low) / 2;
            if before(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let at = self.partition(0, self.scores.len(), |p| self.piece(p) < bytes);
        (at < self.scores.len() && self.piece(at) == bytes).then_some(at)
    }

    fn piece(&self, piece: usize) -> &'a [u8] {
        self.text.get(self.offset(piece)..self.offset(piece + 1)).unwrap_or(&[])
    }

    /// Returns the bytes of a piece.
    #[inline]
    fn len_of(&self, piece: usize) -> usize {
        self.offset(piece + 1).saturating_sub(self.offset(piece))
    }

    /// Id and score of a piece.
    #[inline]
    fn found_at(&self, piece: usize) -> (u32, i32) {
        (FIRST_PIECE + piece as u32, i32::from(self.score_at(piece)))
    }

    #[inline]
    fn byte_at(&self, piece: usize, depth: usize) -> u8 {
        self.text.get(self.offset(piece) + depth).copied().unwrap_or(0)
    }

    #[inline]
    fn offset(&self, piece: usize) -> usize {
        self.offsets.get(piece).map_or(0, |&b| u32::from_le_bytes(b) as usize)
    }

    #[inline]
    fn first_at(&self, byte: usize) -> usize {
        self.first.get(byte).map_or(0, |&b| u32::from_le_bytes(b) as usize)
    }

    #[inline]
    fn score_at(&self, piece: usize) -> i16 {
        self.scores.get(piece).map_or(0, |&b| i16::from_le_bytes(b))
    }
}

/// Returns whether a piece is spelt as a token that `tokenizer.json` has below [`FIRST_PIECE`].
fn is_reserved(piece: &[u8]) -> bool {
    let hex = |b: &u8| b.is_ascii_digit() || (b'A'..=b'F').contains(b);
    match piece {
        b"<pad>" | b"</s>" | b"<unk>" => true,
        [b'<', b'0', b'x', high, low, b'>'] => hex(high) && hex(low),
        _ => false,
    }
}

#[cfg(feature = "alloc")]
impl Table<'_> {
    /// Returns the ids of a text, [`super::END`] last. Invalid UTF-8 is replaced.
    pub fn encode(&self, text: impl AsRef<[u8]>) -> alloc::vec::Vec<u32> {
        let mut ids = alloc::vec::Vec::new();
        self.encode_with(text.as_ref(), &mut |id| ids.push(id));
        ids
    }

    /// Makes the bytes of a table from pieces and their scores, in units of [`super::SCORE_UNIT`], sorted by the pieces' bytes.
    ///
    /// # Errors
    /// As [`Table::new`], which reads the bytes back.
    pub fn write<S: AsRef<str>>(
        pieces: &[(S, i16)],
        normalization: Normalization,
    ) -> Result<alloc::vec::Vec<u8>, TableError> {
        if pieces.len() > MAX_PIECES {
            return Err(TableError::TooManyPieces { max: MAX_PIECES, got: pieces.len() });
        }
        let mut ends = alloc::vec![0u32];
        let mut first = [0u32; INDEX];
        let mut end = 0;
        for (piece, (text, _)) in pieces.iter().enumerate() {
            let bytes = text.as_ref().as_bytes();
            let begin = end;
            end += bytes.len();
            let first_byte = match bytes.first() {
                Some(&b) if bytes.len() <= MAX_PIECE_BYTES => usize::from(b),
                _ => return Err(TableError::PieceLength { piece, begin, end }),
            };
            // Counts now, sums below.
            first.iter_mut().skip(first_byte + 1).take(1).for_each(|n| *n += 1);
            ends.push(end as u32);
        }
        let mut sum = 0;
        for n in &mut first {
            sum += *n;
            *n = sum;
        }
        let mut out = alloc::vec::Vec::new();
        out.extend(MAGIC);
        let Normalization { nfc, lowercase } = normalization;
        let flags = if lowercase { LOWERCASE } else { 0 } | if nfc { NFC } else { 0 };
        for word in [VERSION, flags, pieces.len() as u32, end as u32] {
            out.extend(word.to_le_bytes());
        }
        first.iter().chain(&ends).for_each(|word| out.extend(word.to_le_bytes()));
        pieces.iter().for_each(|(_, score)| out.extend(score.to_le_bytes()));
        out.resize(out.len().next_multiple_of(4), 0);
        pieces.iter().for_each(|(text, _)| out.extend(text.as_ref().as_bytes()));
        Table::new(&out)?;
        Ok(out)
    }

    /// Returns the text of ids: words separated by one space, lower-cased if the table says so.
    ///
    /// Special tokens are omitted; bytes that do not form a character become U+FFFD. Returns `None` if an id is not in
    /// the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Option<alloc::string::String> {
        let mut bytes = alloc::vec::Vec::new();
        for &id in ids {
            match self.token(id)? {
                Token::Pad | Token::End | Token::Unknown => {}
                Token::Byte(byte) => bytes.push(byte),
                Token::Piece(piece) => bytes.extend(piece.as_bytes()),
            }
        }
        let text = alloc::string::String::from_utf8_lossy(&bytes).replace(METASPACE, " ");
        Some(text.strip_prefix(' ').unwrap_or(&text).into())
    }
}
