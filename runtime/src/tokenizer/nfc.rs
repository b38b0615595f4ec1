//! Unicode's canonical composition (NFC) of a stream of characters, in constant memory.
//!
//! `nfc.bin` has the canonical mappings and combining classes of Unicode 9.0, the version of Hugging Face `tokenizers` 0.22. A test of the
//! trainer makes the file from that library's data. Hangul is computed (Unicode standard, section 3.12).

/// Characters that are held back: a starter and the combining characters that follow it. Longer sequences, which no language has (Unicode
/// Standard Annex 15, section 13, allows 30), are composed in parts.
const HELD: usize = 32;

/// Bits of a held character that are its code; the eight above are its combining class.
const CODE: u32 = 0xFF_FFFF;

const DATA: &[u8] = include_bytes!("nfc.bin");
/// Numbers of mappings, of mappings that compose, and of changes of the combining class.
const COUNTS: [usize; 3] = {
    let (words, _) = DATA.as_chunks::<4>();
    [
        u32::from_le_bytes(words[0]) as usize,
        u32::from_le_bytes(words[1]) as usize,
        u32::from_le_bytes(words[2]) as usize,
    ]
};
/// Mappings by code: `code << 43 | first << 22 | second << 1 | composes`; `second` is 0 if one character takes another's place.
const MAPPINGS: &[[u8; 8]] = DATA.split_at(12).1.split_at(COUNTS[0] * 8).0.as_chunks::<8>().0;
/// Numbers of the mappings that compose, by what they are composed of.
const COMPOSED: &[[u8; 2]] = DATA.split_at(12 + COUNTS[0] * 8).1.split_at(COUNTS[1] * 2).0.as_chunks::<2>().0;
/// `code << 8 | class`: the class of this character and of the next ones.
const CLASSES: &[[u8; 4]] = DATA.split_at(12 + COUNTS[0] * 8 + COUNTS[1] * 2).1.as_chunks::<4>().0;
const _: () = assert!(CLASSES.len() == COUNTS[2] && COUNTS[0] <= 1 << 16);

// Hangul syllables, and the jamo that they are composed of.
const SYLLABLES: u32 = 0xAC00;
const LEADING: u32 = 0x1100;
const VOWELS: u32 = 0x1161;
const TRAILING: u32 = 0x11A7;
const COUNT_L: u32 = 19;
const COUNT_V: u32 = 21;
const COUNT_T: u32 = 28;

/// Composes a stream of characters.
#[derive(Clone, Debug)]
pub(super) struct Composer {
    /// `class << 24 | code`, in canonical order; only the first may be a starter.
    held: [u32; HELD],
    len: u8,
}

impl Composer {
    pub(super) const fn new() -> Self {
        Composer { held: [0; HELD], len: 0 }
    }

    /// Takes a character and passes on those that the next ones cannot change.
    #[inline]
    pub(super) fn push(&mut self, c: char, sink: &mut impl FnMut(char)) {
        // No ASCII character combines with the one before.
        if c.is_ascii() {
            self.finish(sink);
            self.hold(c as u32);
        } else {
            decompose(c as u32, |code| self.take(code, sink));
        }
    }

    /// Passes on what is held.
    #[inline]
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(char)) {
        let len = if self.len > 1 { self.compose() } else { usize::from(self.len) };
        self.pass(len, sink);
    }

    /// Passes on the first `len` characters, as they are, and holds none.
    #[inline]
    fn pass(&mut self, len: usize, sink: &mut impl FnMut(char)) {
        let held = self.held.get(..len).unwrap_or(&[]);
        held.iter().for_each(|&held| sink(char::from_u32(held & CODE).unwrap_or(char::REPLACEMENT_CHARACTER)));
        self.len = 0;
    }

    /// Holds a starter.
    #[inline]
    fn hold(&mut self, code: u32) {
        self.held[0] = code;
        self.len = 1;
    }

    fn take(&mut self, code: u32, sink: &mut impl FnMut(char)) {
        let class = class(code);
        if class == 0 {
            let len = self.compose();
            // Two starters compose only side by side.
            let both = if len == 1 { composed(self.held[0], code) } else { None };
            if both.is_none() {
                self.pass(len, sink);
            }
            return self.hold(both.unwrap_or(code));
        }
        if usize::from(self.len) == HELD {
            self.finish(sink);
        }
        // In canonical order, stably.
        let mut at = usize::from(self.len);
        while let Some([before, here]) = at.checked_sub(1).and_then(|from| self.held.get_mut(from..)?.first_chunk_mut())
        {
            if *before >> 24 <= class {
                break;
            }
            core::mem::swap(before, here);
            at -= 1;
        }
        if let Some(place) = self.held.get_mut(at) {
            *place = class << 24 | code;
            self.len += 1;
        }
    }

    /// Composes the starter with what follows it; returns how many characters are left.
    fn compose(&mut self) -> usize {
        let len = usize::from(self.len);
        let mut starter = self.held[0];
        if len < 2 || starter >> 24 != 0 {
            return len;
        }
        let (mut left, mut last) = (1, 0);
        for at in 1..len {
            let Some(&mark) = self.held.get(at) else { break };
            // A character of the same class in between blocks.
            match composed(starter, mark & CODE).filter(|_| mark >> 24 > last) {
                Some(both) => starter = both,
                None => {
                    if let Some(place) = self.held.get_mut(left) {
                        *place = mark;
                        left += 1;
                    }
                    last = mark >> 24;
                }
            }
        }
        self.held[0] = starter;
        left
    }
}

/// Passes on the canonical decomposition of a character; a Hangul syllable stays whole, as composition would restore it.
fn decompose(code: u32, mut each: impl FnMut(u32)) {
    let (mut first, mut rest, mut len) = (code, [0; 4], 0);
    while let Some(mapping) = mapping(first) {
        let second = (mapping >> 1) as u32 & 0x1F_FFFF;
        if let Some(place) = rest.get_mut(len).filter(|_| second != 0) {
            *place = second;
            len += 1;
        }
        first = (mapping >> 22) as u32 & 0x1F_FFFF;
    }
    each(first);
    rest.iter().take(len).rev().for_each(|&code| each(code));
}

/// Returns the mapping of a character, without its code and the bit that says whether it composes.
fn mapping(code: u32) -> Option<u64> {
    let code_of = |mapping: &[u8; 8]| (u64::from_le_bytes(*mapping) >> 43) as u32;
    let at = MAPPINGS.binary_search_by_key(&code, code_of).ok()?;
    MAPPINGS.get(at).map(|&mapping| u64::from_le_bytes(mapping))
}

/// Returns the combining class of a character.
fn class(code: u32) -> u32 {
    let at = CLASSES.partition_point(|&class| u32::from_le_bytes(class) >> 8 <= code);
    at.checked_sub(1).and_then(|at| CLASSES.get(at)).map_or(0, |&class| u32::from_le_bytes(class) & 0xFF)
}

/// Returns the character that two compose to.
fn composed(first: u32, second: u32) -> Option<u32> {
    let (l, v) = (first.wrapping_sub(LEADING), second.wrapping_sub(VOWELS));
    if l < COUNT_L && v < COUNT_V {
        return Some(SYLLABLES + (l * COUNT_V + v) * COUNT_T);
    }
    let (syllable, t) = (first.wrapping_sub(SYLLABLES), second.wrapping_sub(TRAILING));
    if syllable < COUNT_L * COUNT_V * COUNT_T && syllable % COUNT_T == 0 && t > 0 && t < COUNT_T {
        return Some(first + t);
    }
    let mapping = |number: &[u8; 2]| {
        MAPPINGS.get(usize::from(u16::from_le_bytes(*number))).map_or(0, |&mapping| u64::from_le_bytes(mapping))
    };
    let wanted = u64::from(first) << 21 | u64::from(second);
    let at = COMPOSED.binary_search_by_key(&wanted, |number| mapping(number) << 21 >> 22).ok()?;
    COMPOSED.get(at).map(|number| (mapping(number) >> 43) as u32)
}

/// Returns whether a character can be written in more than one way, alone or with others, so that composition matters to it.
#[cfg(feature = "alloc")]
pub fn is_composable(c: char) -> bool {
    let code = c as u32;
    !c.is_ascii()
        && (mapping(code).is_some()
            || class(code) != 0
            || code.wrapping_sub(SYLLABLES) < COUNT_L * COUNT_V * COUNT_T
            || code.wrapping_sub(LEADING) < 0x100)
}

#[cfg(test)]
mod tests {
    use super::super::utf8::tests::fixed;
    use super::*;
    use proptest::{collection, prelude::*};
    use std::{string::String, vec};
    use unicode_normalization::UnicodeNormalization;

    fn nfc(text: &str) -> String {
        let (mut out, mut composer) = (String::new(), Composer::new());
        text.chars().for_each(|c| composer.push(c, &mut |c| out.push(c)));
        composer.finish(&mut |c| out.push(c));
        out
    }

    /// Characters whose normalization has been the same since Unicode 9.0: Latin with its marks, Greek, Cyrillic, Hebrew, Arabic, Indic and
    /// Tibetan scripts of that time, Hangul, kana, musical symbols, compatibility ideographs.
    fn character() -> impl Strategy<Value = char> {
        prop_oneof![
            proptest::char::range('a', 'e'),
            proptest::char::range('\u{C0}', '\u{17F}'),
            proptest::char::range('\u{300}', '\u{36F}'),
            proptest::char::range('\u{37F}', '\u{3FF}'),
            proptest::char::range('\u{400}', '\u{4FF}'),
            proptest::char::range('\u{591}', '\u{5C7}'),
            proptest::char::range('\u{622}', '\u{655}'),
            proptest::char::range('\u{928}', '\u{94D}'),
            proptest::char::range('\u{9BC}', '\u{9DF}'),
            proptest::char::range('\u{B92}', '\u{BCD}'),
            proptest::char::range('\u{DCF}', '\u{DDE}'),
            proptest::char::range('\u{F71}', '\u{F84}'),
            proptest::char::range('\u{1100}', '\u{11FF}'),
            proptest::char::range('\u{1E00}', '\u{1FFF}'),
            proptest::char::range('\u{212A}', '\u{2260}'),
            proptest::char::range('\u{3046}', '\u{30FE}'),
            proptest::char::range('\u{AC00}', '\u{D7A3}'),
            proptest::char::range('\u{F900}', '\u{FA6D}'),
            proptest::char::range('\u{1D157}', '\u{1D1C0}'),
            proptest::char::range('\u{2F800}', '\u{2FA1D}'),
        ]
    }

    #[test]
    fn texts_that_print_alike_become_equal() {
        for (text, expected) in [
            ("cafe\u{301} nai\u{308}ve", "café naïve"),
            // The dot below comes first, whatever was typed first.
            ("e\u{301}\u{323}", "\u{1EB9}\u{301}"),
            ("é\u{323}", "\u{1EB9}\u{301}"),
            // Of two accents the first composes, and the second, of the same class, does not reach the letter.
            ("e\u{301}\u{300}", "é\u{300}"),
            ("\u{301}e", "\u{301}e"),
            ("\u{212B}\u{2126}", "ÅΩ"),
            // Excluded from composition.
            ("\u{958}\u{1D15E}", "\u{915}\u{93C}\u{1D157}\u{1D165}"),
            ("\u{1112}\u{1161}\u{11AB}\u{1100}\u{1173}\u{11AF}", "한글"),
            ("\u{AC00}\u{11A8}\u{11A8}", "\u{AC01}\u{11A8}"),
            ("\u{BC6}\u{BBE}", "\u{BCA}"),
            ("", ""),
        ] {
            assert_eq!(nfc(text), expected, "{text:?}");
            assert_eq!(expected.nfc().collect::<String>(), expected);
        }
    }

    #[test]
    fn a_longer_sequence_than_any_language_has_is_composed_in_parts() {
        let text = std::format!("a{}e\u{301}", "\u{323}\u{301}".repeat(1000));
        let got = nfc(&text);
        assert!(got.starts_with('\u{1EA1}') && got.ends_with('é'), "{got}");
        let kept = got.chars().filter(|&c| c == '\u{323}' || c == '\u{301}').count();
        assert_eq!(kept, 1999);
    }

    #[test]
    fn what_composes_is_composable() {
        let none = ['a', ' ', '字', 'の', '😀', 'ø', 'ж'];
        assert_eq!(none.map(is_composable), [false; 7]);
        assert_eq!(['é', 'ё', '\u{301}', '한', '\u{1112}', 'が', 'ä'].map(is_composable), [true; 7]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..fixed() })]

        #[test]
        fn random_texts_compose_as_in_another_implementation(text in collection::vec(character(), 0..12)) {
            let text = String::from_iter(text);
            prop_assert_eq!(nfc(&text), text.nfc().collect::<String>(), "{:?}", text);
        }
    }
}
