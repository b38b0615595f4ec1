//! The streaming encoder.

#[cfg(feature = "nfc")]
use super::nfc::Composer;
use super::{CHUNK_CHARS, END, FIRST_BYTE, METASPACE, Table, UNKNOWN, UNKNOWN_COST, utf8};

/// Best segmentation that ends at a character of the chunk.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Sum of the scores.
    score: i32,
    /// Id of the last token, [`UNKNOWN`] for a character of bytes.
    id: u32,
    /// Where the last token begins, in characters.
    from: u8,
    /// Where the next token of the chosen segmentation ends, in characters.
    next: u8,
}

/// A character that no segmentation has reached yet: far below any sum, without overflow when added.
const UNREACHED: Node = Node { score: i32::MIN / 2, id: UNKNOWN, from: 0, next: 0 };

// Positions in a chunk are kept in bytes.
const _: () = assert!(CHUNK_CHARS < 256);

// The tables that speed up the search are no part of an encoder, which firmware pays for.
const _: () = assert!(size_of::<Encoder>() <= 1280 + if cfg!(feature = "nfc") { 136 } else { 0 });

/// Encodes a text that arrives in parts, cut anywhere, even within a character. The ids are those of the whole text.
///
/// Every call for one text takes the same table. Holds one chunk of a word, under 1.25 KiB (1.4 KiB with the feature `nfc`), for a
/// text of any length. Does not allocate and never fails.
#[derive(Clone, Debug)]
pub struct Encoder {
    utf8: utf8::Decoder,
    #[cfg(feature = "nfc")]
    composer: Composer,
    chunk: Chunk,
}

#[derive(Clone, Debug)]
struct Chunk {
    /// UTF-8 of the chunk.
    text: [u8; 4 * CHUNK_CHARS],
    /// Where each character begins in `text`, and where the last one ends.
    begins: [u16; CHUNK_CHARS + 1],
    /// Number of characters.
    chars: usize,
    /// Whether the word has begun, possibly in an earlier chunk.
    in_word: bool,
    nodes: [Node; CHUNK_CHARS + 1],
}

impl Encoder {
    /// Creates an encoder at the beginning of a text.
    pub const fn new() -> Self {
        let chunk = Chunk {
            text: [0; 4 * CHUNK_CHARS],
            begins: [0; CHUNK_CHARS + 1],
            chars: 0,
            in_word: false,
            nodes: [UNREACHED; CHUNK_CHARS + 1],
        };
        Encoder {
            utf8: utf8::Decoder::new(),
            #[cfg(feature = "nfc")]
            composer: Composer::new(),
            chunk,
        }
    }

    /// Encodes the next bytes of the text and passes the ids that are final to `sink`.
    pub fn push(&mut self, table: &Table<'_>, bytes: &[u8], sink: &mut impl FnMut(u32)) {
        #[cfg(feature = "nfc")]
        if table.nfc() {
            let Encoder { utf8, composer, chunk } = self;
            for &byte in bytes {
                utf8.push(byte, |c| composer.push(c, &mut |c| chunk.take(table, c, sink)));
            }
            return;
        }
        let Encoder { utf8, chunk, .. } = self;
        for &byte in bytes {
            utf8.push(byte, |c| chunk.take(table, c, sink));
        }
    }

    /// Ends the text: passes the remaining ids and [`END`] to `sink`. The encoder is then at the beginning of the next text.
    pub fn finish(&mut self, table: &Table<'_>, sink: &mut impl FnMut(u32)) {
        #[cfg(feature = "nfc")]
        if table.nfc() {
            let Encoder { utf8, composer, chunk } = self;
            utf8.finish(|c| composer.push(c, &mut |c| chunk.take(table, c, sink)));
            composer.finish(&mut |c| chunk.take(table, c, sink));
        }
        let Encoder { utf8, chunk, .. } = self;
        utf8.finish(|c| chunk.take(table, c, sink));
        chunk.end_word(table, sink);
        sink(END);
    }

    /// Discards the text so far.
    pub fn reset(&mut self) {
        self.utf8 = utf8::Decoder::new();
        #[cfg(feature = "nfc")]
        {
            self.composer = Composer::new();
        }
        self.chunk.chars = 0;
        self.chunk.in_word = false;
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Table<'_> {
    /// Encodes a whole text: hands its ids to `sink`, [`END`] last. Invalid UTF-8 is replaced. Allocates nothing.
    pub fn encode_with(&self, text: &[u8], sink: &mut impl FnMut(u32)) {
        let mut encoder = Encoder::new();
        encoder.push(self, text, sink);
        encoder.finish(self, sink);
    }
}

impl Chunk {
    #[inline]
    fn take(&mut self, table: &Table<'_>, c: char, sink: &mut impl FnMut(u32)) {
        if c.is_ascii() {
            let c = if table.lowercase() { c.to_ascii_lowercase() } else { c };
            self.take_normalized(table, c, sink);
        } else if table.lowercase() {
            c.to_lowercase().for_each(|c| self.take_normalized(table, c, sink));
        } else {
            self.take_normalized(table, c, sink);
        }
    }

    #[inline]
    fn take_normalized(&mut self, table: &Table<'_>, c: char, sink: &mut impl FnMut(u32)) {
        if c.is_whitespace() {
            self.end_word(table, sink);
            return;
        }
        if !self.in_word {
            self.in_word = true;
            if c != METASPACE {
                self.append(METASPACE);
            }
        }
        self.append(c);
        if self.chars == CHUNK_CHARS {
            self.encode(table, sink);
        }
    }

    /// Adds a character. The chunk has room, since a full one is encoded at once.
    #[inline]
    fn append(&mut self, c: char) {
        let Some([begin, next, ..]) = self.begins.get_mut(self.chars..) else { return };
        let begin = usize::from(*begin);
        let end = begin + c.len_utf8();
        if let Some(room) = self.text.get_mut(begin..end) {
            c.encode_utf8(room);
            self.chars += 1;
            *next = end as u16;
        }
    }

    fn end_word(&mut self, table: &Table<'_>, sink: &mut impl FnMut(u32)) {
        self.encode(table, sink);
        self.in_word = false;
    }

    /// Passes on the ids of the chunk and empties it.
    ///
    /// Skips pieces that start at a character if the best sum up to it and the bound of the rest ([`super::bound`])
    /// show that no segmentation through it is chosen: it would have to exceed the sum found for the whole chunk, and
    /// at least equal the one that ends in the last character alone. Only losing segmentations are skipped, so the ids
    /// are those of the full search.
    fn encode(&mut self, table: &Table<'_>, sink: &mut impl FnMut(u32)) {
        // Never more; repeated so that the compiler knows that indices up to `n` are in bounds.
        let n = core::mem::take(&mut self.chars).min(CHUNK_CHARS);
        let Chunk { text, begins, nodes, .. } = self;
        let end = usize::from(begins[n]);
        // Bounds are for ASCII texts; the first character, which is always visited, may be another one.
        let ascii = n > 1 && end + 1 == usize::from(begins[1]) + n;
        let bound = table.bound().filter(|_| ascii);
        let before_last = n.saturating_sub(1);
        let last =
            text.get(end.saturating_sub(1)).and_then(|&b| table.character(b)).map_or(-UNKNOWN_COST, |(_, score)| score);
        nodes[..=n].fill(UNREACHED);
        nodes[0].score = 0;
        for i in 0..n {
            // Every character is reached, by a piece of one character or by its bytes, unless the one before was
            // skipped.
            let here = nodes[i].score;
            if let Some(bound) = bound.filter(|_| i > 0) {
                let most = here + bound.of(n - i);
                if most <= nodes[n].score || most < nodes[before_last].score + last {
                    continue;
                }
            }
            let begin = usize::from(begins[i]);
            let mut reach = |to: usize, id: u32, score: i32| {
                if let Some(node) = nodes.get_mut(to).filter(|node| score > node.score) {
                    *node = Node { score, id, from: i as u8, next: 0 };
                }
            };
            let mut to = i;
            let mut alone = false;
            table.prefixes(text.get(begin..end).unwrap_or(&[]), |len, id, score| {
                // Text and piece are UTF-8, so the piece ends where a character ends.
                while to < n && usize::from(begins[to]) < begin + len {
                    to += 1;
                }
                alone |= to == i + 1;
                reach(to, id, here + score);
            });
            if !alone {
                reach(i + 1, UNKNOWN, here - UNKNOWN_COST);
            }
        }
        // A token ends after it begins, so both loops terminate.
        let mut at = n;
        while at > 0 {
            let from = nodes.get(at).map_or(0, |node| usize::from(node.from));
            if let Some(node) = nodes.get_mut(from) {
                node.next = at as u8;
            }
            at = from;
        }
        while at < n {
            let to = usize::from(nodes[at].next);
            let (Some(node), Some(&ends)) = (nodes.get(to), begins.get(to)) else { return };
            match node.id {
                UNKNOWN => {
                    let bytes = usize::from(begins[at])..usize::from(ends);
                    text.get(bytes).unwrap_or(&[]).iter().for_each(|&b| sink(FIRST_BYTE + u32::from(b)));
                }
                id => sink(id),
            }
            at = to;
        }
    }
}
