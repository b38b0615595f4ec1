//! Bytes to characters, one byte at a time.

/// Decodes UTF-8 and replaces invalid bytes as `String::from_utf8_lossy` does: one U+FFFD per maximal part of a
/// character (Unicode standard, section 3.9, "U+FFFD substitution of maximal subparts").
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    /// Bits of the character so far.
    code: u32,
    /// Bytes missing from the character, 0 between characters.
    need: u8,
    /// Bounds of the next byte.
    low: u8,
    high: u8,
}

impl Decoder {
    pub(super) const fn new() -> Self {
        Decoder { code: 0, need: 0, low: 0x80, high: 0xBF }
    }

    /// Decodes a byte and passes on the characters, none to two, that it completes.
    #[inline]
    pub(super) fn push(&mut self, byte: u8, mut sink: impl FnMut(char)) {
        if self.need > 0 {
            if (self.low..=self.high).contains(&byte) {
                self.code = self.code << 6 | u32::from(byte & 0x3F);
                (self.low, self.high) = (0x80, 0xBF);
                self.need -= 1;
                if self.need == 0 {
                    sink(char::from_u32(self.code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                return;
            }
            self.need = 0;
            sink(char::REPLACEMENT_CHARACTER);
        }
        // Table 3-7 of the Unicode standard: the well-formed sequences by their first byte.
        (self.need, self.low, self.high) = match byte {
            0x00..=0x7F => return sink(char::from(byte)),
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return sink(char::REPLACEMENT_CHARACTER),
        };
        self.code = u32::from(byte) & (0x3F >> self.need);
    }

    /// Ends the text: passes on U+FFFD if it stops within a character.
    pub(super) fn finish(&mut self, mut sink: impl FnMut(char)) {
        if self.need > 0 {
            self.need = 0;
            sink(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::{prelude::*, test_runner::RngSeed};
    use std::{string::String, vec::Vec};

    /// The same cases in every run.
    pub(in super::super) fn fixed() -> ProptestConfig {
        ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
    }

    fn decode(bytes: &[u8]) -> String {
        let mut text = String::new();
        let mut decoder = Decoder::new();
        for &byte in bytes {
            decoder.push(byte, |c| text.push(c));
        }
        decoder.finish(|c| text.push(c));
        text
    }

    #[test]
    fn every_pair_of_bytes_decodes_as_the_standard_library_does() {
        for first in 0..=255 {
            for second in 0..=255 {
                for tail in [&[][..], &[0x80], &[0x80, 0x80], b"a"] {
                    let bytes = [&[first, second], tail].concat();
                    assert_eq!(decode(&bytes), String::from_utf8_lossy(&bytes), "{bytes:x?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(fixed())]

        #[test]
        fn random_bytes_decode_as_the_standard_library_does(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x80..0xC0u8, 0xE0..=0xF5u8], 0..40)
        ) {
            prop_assert_eq!(decode(&bytes), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn valid_text_is_kept(text in any::<Vec<char>>()) {
            let text: String = text.into_iter().collect();
            prop_assert_eq!(decode(text.as_bytes()), text);
        }
    }
}
