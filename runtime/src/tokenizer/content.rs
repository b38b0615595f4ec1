//! Whether a text says anything.

/// Why a text has no label, whatever the scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blank {
    /// It has no letter, digit or symbol, as [`is_empty`] says.
    Empty,
    /// None of its letters, digits and symbols is in the vocabulary, so its tokens are bytes and punctuation: see
    /// [`Table::is_word`](super::Table::is_word).
    Unknown,
}

/// Tells whether a text that arrives in parts is empty: it has no letter, digit or symbol such as an emoji.
///
/// White space, control characters, and the ASCII, Latin-1, general (U+2000 to U+207F), CJK (U+3000 to U+303F) and full-width
/// (U+FF01 to U+FF0F) punctuation say nothing. Reads UTF-8 cut anywhere; never fails or allocates.
///
/// ```
/// use kinglet::tokenizer::{Content, is_empty};
///
/// assert!(is_empty(b"") && is_empty(b" ?! \n") && is_empty("\u{3000}…".as_bytes()));
/// assert!(!is_empty(b"ok") && !is_empty(b"7") && !is_empty("👍".as_bytes()));
/// let mut content = Content::new();
/// "é".as_bytes().chunks(1).for_each(|part| content.push(part));
/// assert!(!content.is_empty());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Content {
    found: bool,
    /// The last two bytes.
    last: [u8; 2],
}

impl Content {
    /// Creates the state at the beginning of a text, which is empty.
    pub const fn new() -> Self {
        Content { found: false, last: [0; 2] }
    }

    /// Reads the next bytes of the text.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.found {
                return;
            }
            let [before, last] = self.last;
            // Lead and continuation bytes of UTF-8: the first bytes tell the block.
            self.found = byte.is_ascii_alphanumeric()
                || ((0x80..=0xBF).contains(&byte)
                    && match last {
                        // U+00C0 and up
                        0xC3..=0xDF | 0xE0 | 0xE1 | 0xE4..=0xEE | 0xF0..=0xF4 => true,
                        // All of U+2000 to U+2FFF but U+2000 to U+207F
                        0xE2 => byte >= 0x82,
                        // All of U+3000 to U+3FFF but U+3000 to U+303F
                        0xE3 => byte >= 0x81,
                        // U+F900 to U+FDFF, U+FE80 to U+FEBF, U+FF40 to U+FFBF: ideographs, ligatures, Arabic forms, wide letters
                        0xEF => matches!(byte, 0xA4..=0xB7 | 0xBA | 0xBD | 0xBE),
                        // The rest of the Arabic forms, and of the full-width and half-width ones
                        0xB9 if before == 0xEF => byte >= 0xB0,
                        0xBB if before == 0xEF => byte <= 0xBC,
                        0xBC if before == 0xEF => byte >= 0x90,
                        0xBF if before == 0xEF => byte <= 0x9C,
                        _ => false,
                    });
            self.last = [last, byte];
        }
    }

    /// Returns whether the text so far is empty.
    pub const fn is_empty(&self) -> bool {
        !self.found
    }
}

/// Returns whether a text is empty, as [`Content`] says.
pub fn is_empty(text: &[u8]) -> bool {
    let mut content = Content::new();
    content.push(text);
    content.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    #[test]
    fn letters_digits_and_symbols_of_any_script_are_content() {
        for text in ["a", " 7", "é", "ß", "я", "ع", "ก", "日", "ア", "한", "👍", "☺", "€", "½a", "Ａ", "５", "ｱ", "ﬁ"]
        {
            assert!(!is_empty(text.as_bytes()), "{text}");
        }
        for text in [
            "", " ", "\n\t\r", ".", "?!", "...", "—", "„“", "¿", "\u{a0}", "。", "、", "！", "\u{200b}", "\u{feff}",
            "\0",
        ] {
            assert!(is_empty(text.as_bytes()), "{text:?}");
        }
        // What was no UTF-8 says nothing either.
        assert!(is_empty(b"\xFF\xFE\x80") && is_empty("\u{FFFD}".as_bytes()));
    }

    #[test]
    fn every_letter_of_unicode_is_content_and_no_white_space_is() {
        let (mut missed, mut spaces) = (String::new(), String::new());
        for c in '\0'..=char::MAX {
            let empty = is_empty(c.encode_utf8(&mut [0; 4]).as_bytes());
            if empty && c.is_alphanumeric() {
                missed.push(c);
            }
            if !empty && (c.is_whitespace() || c.is_control()) {
                spaces.push(c);
            }
        }
        // Ordinals, fractions and superscripts among the punctuation of Latin-1 and of U+2000 to U+207F, and the iteration
        // marks of CJK.
        let known = |c| matches!(c, '\u{aa}'..='\u{be}' | '\u{2070}'..='\u{207f}' | '\u{3005}'..='\u{303c}');
        assert!(missed.chars().all(known), "{missed}");
        // It stands among the letters of Ogham.
        assert_eq!(spaces, "\u{1680}");
    }

    #[test]
    fn a_text_may_be_cut_anywhere() {
        for text in ["… é", "。Ａ", "！５", " 👍", "\u{2005}\u{2082}", "。！—"] {
            let mut content = Content::new();
            text.as_bytes().chunks(1).for_each(|part| content.push(part));
            assert_eq!(content.is_empty(), is_empty(text.as_bytes()), "{text}");
        }
    }
}
