//! The runtime's data of canonical composition are those that Hugging Face `tokenizers` normalizes with.
//!
//! `KINGLET_WRITE=1` writes the file instead of comparing it.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;

use unicode_normalization_alignments::char::{canonical_combining_class, compose, decompose_canonical};

/// Returns the bytes of `nfc.bin`, as `runtime/src/tokenizer/nfc.rs` describes them.
fn data() -> Vec<u8> {
    let hangul = 0xAC00..=0xD7A3;
    let mut whole: Vec<(char, Vec<char>)> = Vec::new();
    for c in (0..=0x10_FFFF).filter(|code| !hangul.contains(code)).filter_map(char::from_u32) {
        let mut parts = Vec::new();
        decompose_canonical(c, |part| parts.push(part));
        if parts != [c] {
            whole.push((c, parts));
        }
    }
    // Each sequence by the characters that decompose to it.
    let mut spelt: HashMap<&[char], Vec<char>> = HashMap::new();
    for (c, parts) in &whole {
        spelt.entry(parts).or_default().push(*c);
    }
    let mut mappings: Vec<(u32, u32, u32, bool)> = Vec::new();
    for (c, parts) in &whole {
        let (first, second, composes) = match parts.as_slice() {
            [one] => (*one, None, false),
            [start @ .., last] => {
                let starts = if let [one] = start { vec![*one] } else { spelt.get(start).cloned().unwrap_or_default() };
                let composing = starts.iter().copied().find(|&first| compose(first, *last) == Some(*c));
                (composing.or(starts.first().copied()).unwrap(), Some(*last), composing.is_some())
            }
            [] => unreachable!("a character decomposes into something"),
        };
        mappings.push((*c as u32, first as u32, second.map_or(0, |c| c as u32), composes));
    }
    let mut composed: Vec<u16> =
        (0..).zip(&mappings).filter(|(_, mapping)| mapping.3).map(|(number, _)| number).collect();
    composed.sort_by_key(|&number| (mappings[usize::from(number)].1, mappings[usize::from(number)].2));
    let mut classes: Vec<(u32, u8)> = Vec::new();
    for code in 0..=0x10_FFFF {
        let class = char::from_u32(code).map_or(0, canonical_combining_class);
        if classes.last().map_or(0, |last| last.1) != class {
            classes.push((code, class));
        }
    }
    let mut out = Vec::new();
    [mappings.len(), composed.len(), classes.len()].iter().for_each(|&count| out.extend((count as u32).to_le_bytes()));
    for (code, first, second, composes) in mappings {
        let packed = u64::from(code) << 43 | u64::from(first) << 22 | u64::from(second) << 1 | u64::from(composes);
        out.extend(packed.to_le_bytes());
    }
    composed.iter().for_each(|number| out.extend(number.to_le_bytes()));
    classes.iter().for_each(|(code, class)| out.extend((code << 8 | u32::from(*class)).to_le_bytes()));
    out
}

#[test]
fn the_data_are_those_of_hugging_face() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/src/tokenizer/nfc.bin");
    let data = data();
    if std::env::var_os("KINGLET_WRITE").is_some() {
        std::fs::write(&path, &data).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == data, "{} is another", path.display());
    assert_eq!(unicode_normalization_alignments::UNICODE_VERSION, (9, 0, 0));
}
