//! Tests of table and encoder together. The trainer, which depends on Hugging Face `tokenizers`, tests equality with
//! it.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::{string::String, vec, vec::Vec};

type Pieces = Vec<(String, i16)>;

/// ASCII and [`METASPACE`] at a low score, and some pieces.
fn pieces(lowercase: bool) -> Pieces {
    let mut pieces: Pieces = ('!'..='~')
        .filter(|c| !(lowercase && c.is_ascii_uppercase()))
        .chain([METASPACE, 'é', 'ß'])
        .map(|c| (c.into(), -10 * 1024))
        .collect();
    for (piece, score) in [
        ("▁the", -3000),
        ("▁t", -4000),
        ("he", -4500),
        ("re", -4500),
        ("here", -6000),
        ("▁a", -2500),
        ("▁über", -8000),
        ("ab", -100),
        ("bc", -100),
        ("aaaaaaaaaaaaaaaa", -5000),
    ] {
        pieces.push((piece.into(), score));
    }
    pieces.sort();
    pieces
}

/// Returns those of [`pieces`] that are one character.
fn characters() -> Pieces {
    pieces(false).into_iter().filter(|(p, _)| p.chars().count() == 1).collect()
}

fn table(lowercase: bool) -> Vec<u8> {
    Table::write(&pieces(lowercase), Normalization { nfc: false, lowercase }).expect("the pieces make a table")
}

/// Returns the tokens of a text, bytes as `<0x..>`.
fn spell(bytes: &[u8], text: impl AsRef<[u8]>) -> Vec<String> {
    let table = Table::new(bytes).expect("the table is whole");
    let name = |id: u32| match table.token(id).expect("an id of the table") {
        Token::Pad => "<pad>".into(),
        Token::End => "</s>".into(),
        Token::Unknown => "<unk>".into(),
        Token::Byte(b) => std::format!("<0x{b:02X}>"),
        Token::Piece(piece) => piece.into(),
    };
    table.encode(text).into_iter().map(name).collect()
}

#[test]
fn a_text_becomes_the_best_pieces_and_ends() {
    let table = table(false);
    assert_eq!(spell(&table, "the"), ["▁the", "</s>"]);
    assert_eq!(spell(&table, " there\n a "), ["▁the", "re", "▁a", "</s>"]);
    assert_eq!(spell(&table, ""), ["</s>"]);
    assert_eq!(spell(&table, " \t\u{3000}\u{85}"), ["</s>"]);
}

#[test]
fn of_equal_sums_the_first_found_wins() {
    // "ab" + "c" and "a" + "bc" cost the same: the one whose last token begins further left was found first.
    assert_eq!(spell(&table(false), "xabc"), ["▁", "x", "a", "bc", "</s>"]);
}

#[test]
fn unknown_characters_are_spelt_in_bytes() {
    assert_eq!(spell(&table(false), "aé€"), ["▁a", "é", "<0xE2>", "<0x82>", "<0xAC>", "</s>"]);
    assert_eq!(spell(&table(false), b"a\xFF"), ["▁a", "<0xEF>", "<0xBF>", "<0xBD>", "</s>"]);
}

#[test]
fn lower_casing_is_that_of_each_character_alone() {
    assert_eq!(spell(&table(true), "THE ÜBER"), ["▁the", "▁über", "</s>"]);
    assert_eq!(spell(&table(false), "THE"), ["▁", "T", "H", "E", "</s>"]);
    // U+0130 becomes two characters; a final sigma stays an ordinary one.
    assert_eq!(spell(&table(true), "İ"), ["▁", "i", "<0xCC>", "<0x87>", "</s>"]);
    assert_eq!(spell(&table(true), "Σ"), ["▁", "<0xCF>", "<0x83>", "</s>"]);
}

#[test]
fn a_word_that_begins_with_the_mark_gets_no_other() {
    assert_eq!(spell(&table(false), "▁the ▁"), ["▁the", "▁", "</s>"]);
}

#[test]
fn names_of_special_tokens_are_ordinary_text() {
    assert_eq!(spell(&table(false), "</s>"), ["▁", "<", "/", "s", ">", "</s>"]);
    assert_eq!(spell(&table(false), "<0x41>").len(), 8);
}

#[test]
fn words_are_cut_after_64_characters() {
    let ids = spell(&table(false), "a".repeat(63 + 16));
    // 63 of them share a chunk with the mark: "▁a", then 62.
    assert_eq!(ids.iter().filter(|t| t.len() == 16).count(), 4);
    assert_eq!(ids.last().map(String::as_str), Some("</s>"));
    assert_eq!(ids.concat(), std::format!("▁{}</s>", "a".repeat(79)));
    // A chunk that fills exactly leaves no empty one behind.
    assert_eq!(spell(&table(false), "b".repeat(63)).len(), 65);
}

#[test]
fn every_id_has_a_token_and_others_have_none() {
    let bytes = table(false);
    let table = Table::new(&bytes).unwrap();
    let count = table.vocab_size() as u32;
    assert_eq!(count as usize, 259 + pieces(false).len());
    assert!((0..count).all(|id| table.token(id).is_some()));
    assert_eq!([count, u32::MAX].map(|id| table.token(id)), [None, None]);
    assert_eq!([2, 258, FIRST_PIECE].map(|id| table.score(id)), [None, None, Some(-10 * 1024)]);
    assert_eq!(table.decode(&[count]), None);
}

#[test]
fn words_are_pieces_with_a_letter_digit_or_symbol() {
    let bytes = table(false);
    let table = Table::new(&bytes).unwrap();
    let words = |text: &str| table.encode(text).into_iter().map(|id| table.is_word(id)).collect::<Vec<_>>();
    assert_eq!(words("the"), [true, false]);
    assert_eq!(words("! é"), [false, false, false, true, false]);
    // ▁, the bytes of the letter, </s>
    assert_eq!(words("я"), [false, false, false, false]);
    assert!(!table.is_word(PAD) && !table.is_word(UNKNOWN) && !table.is_word(u32::MAX));
}

#[test]
fn each_way_to_be_malformed_has_its_error() {
    let good = table(false);
    let n = pieces(false).len();
    let offsets = 20 + 257 * 4;
    let scores = offsets + (n + 1) * 4;
    let text = good.len() - pieces(false).iter().map(|(p, _)| p.len()).sum::<usize>();
    let patched = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        Table::new(&bad).err()
    };
    assert!(matches!(Table::new(&[]), Err(TableError::Length { need: 20, got: 0 })));
    assert!(matches!(Table::new(&good[..good.len() - 1]), Err(TableError::Length { .. })));
    assert!(matches!(Table::new(&[&good[..], &[0]].concat()), Err(TableError::Length { .. })));
    assert_eq!(patched(0, b"ONNX"), Some(TableError::Magic { got: *b"ONNX" }));
    assert_eq!(patched(4, &[9]), Some(TableError::Version { expected: 1, got: 9 }));
    assert_eq!(patched(8, &[6]), Some(TableError::Flags { got: 6 }));
    assert_eq!(patched(12, &[0, 0, 0, 1]), Some(TableError::TooManyPieces { max: 1 << 20, got: 1 << 24 }));
    assert!(matches!(patched(16, &[255; 4]), Some(TableError::Length { .. })));
    assert_eq!(patched(20, &[1]), Some(TableError::Index { byte: 0, expected: 0, got: 1 }));
    assert_eq!(patched(offsets, &[1]), Some(TableError::PieceLength { piece: 0, begin: 1, end: 1 }));
    assert!(matches!(patched(scores - 4, &[0]), Some(TableError::PieceLength { .. })));
    assert_eq!(patched(text, &[0xFF]), Some(TableError::NotUtf8 { piece: 0 }));
    assert_eq!(patched(text, b"~"), Some(TableError::Index { byte: 34, expected: 0, got: 1 }));
    assert_eq!(patched(text + 1, b"!"), Some(TableError::NotSorted { piece: 1 }));
    if n % 2 == 1 {
        assert_eq!(patched(text - 1, &[1]), Some(TableError::Padding));
    }

    type Pieces = Vec<(String, i16)>;
    let written = |change: &dyn Fn(&mut Pieces)| {
        let mut pieces = pieces(false);
        change(&mut pieces);
        Table::write(&pieces, Normalization::default()).err()
    };
    assert!(matches!(written(&|p| p.swap(3, 4)), Some(TableError::Index { .. } | TableError::NotSorted { .. })));
    assert!(matches!(written(&|p| p[0].0.clear()), Some(TableError::PieceLength { piece: 0, .. })));
    assert!(matches!(written(&|p| p[0].0 = "!".repeat(257)), Some(TableError::PieceLength { piece: 0, .. })));
    assert_eq!(written(&|p| p.retain(|(p, _)| p != "x")), Some(TableError::MissingCharacter { character: 'x' }));
    assert_eq!(written(&|p| p.retain(|(p, _)| p != "▁")), Some(TableError::MissingCharacter { character: METASPACE }));
    for name in ["</s>", "<0x0A>"] {
        let add = |p: &mut Pieces| {
            p.push((name.into(), -1));
            p.sort();
        };
        assert!(matches!(written(&add), Some(TableError::Reserved { .. })), "{name}");
    }
    assert_eq!(
        Table::write::<&str>(&[], Normalization::LOWERCASE).err(),
        Some(TableError::MissingCharacter { character: '!' })
    );
}

#[test]
fn a_table_with_any_byte_changed_is_refused_or_safe() {
    let good = table(true);
    let text = "The über-word, thereabc <0x41>\u{FFFD} aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa€".repeat(3);
    for at in 0..good.len() {
        for change in [1, 0x80, 0xFF] {
            let mut bad = good.clone();
            bad[at] ^= change;
            if let Ok(table) = Table::new(&bad) {
                let ids = table.encode(&text);
                assert!(ids.iter().all(|&id| (id as usize) < table.vocab_size()));
                assert!(table.decode(&ids).is_some());
            }
        }
        assert!(Table::new(&good[..at]).is_err());
    }
}

#[test]
fn extreme_scores_do_not_overflow() {
    for score in [i16::MIN, i16::MAX] {
        let pieces: Vec<_> = pieces(false).into_iter().map(|(p, _)| (p, score)).collect();
        let bytes = Table::write(&pieces, Normalization::default()).unwrap();
        let table = Table::new(&bytes).unwrap();
        assert_eq!(table.encode("a".repeat(1000)).last(), Some(&END));
        assert_eq!(table.encode("€".repeat(1000)).len(), 3002);
    }
}

#[test]
fn an_encoder_can_be_used_again() {
    let bytes = table(false);
    let table = Table::new(&bytes).unwrap();
    let mut encoder = Encoder::new();
    for text in ["ther", "\u{20AC}\u{FF}", "", "a"] {
        let mut ids = vec![];
        encoder.push(&table, text.as_bytes(), &mut |id| ids.push(id));
        encoder.finish(&table, &mut |id| ids.push(id));
        assert_eq!(ids, table.encode(text));
    }
}

/// Text of this vocabulary's characters, spaces and others, as bytes that may be cut anywhere.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let char = prop_oneof![
        4 => proptest::sample::select("therabc▁éÜß€ \n".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ];
    let part = prop_oneof![
        3 => proptest::collection::vec(char, 0..90).prop_map(|c| c.into_iter().collect::<String>().into_bytes()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ];
    proptest::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

/// Returns the ids of one word by definition: every start, every piece, the first found among equal sums.
fn viterbi(pieces: &Pieces, word: &str) -> Vec<u32> {
    let marked: Vec<char> =
        (!word.starts_with(METASPACE)).then_some(METASPACE).into_iter().chain(word.chars()).collect();
    let mut ids = vec![];
    for chunk in marked.chunks(CHUNK_CHARS) {
        let n = chunk.len();
        let spelt = |from: usize, to: usize| chunk[from..to].iter().collect::<String>();
        let mut best: Vec<Option<(i32, usize, Option<u32>)>> = vec![None; n + 1];
        best[0] = Some((0, 0, None));
        for from in 0..n {
            let (here, ..) = best[from].unwrap();
            for to in from + 1..=n {
                let piece = pieces.binary_search_by(|(p, _)| p.as_str().cmp(&spelt(from, to))).ok();
                let candidate = match piece {
                    Some(p) => (here + i32::from(pieces[p].1), from, Some(FIRST_PIECE + p as u32)),
                    None if to == from + 1 => (here - UNKNOWN_COST, from, None),
                    None => continue,
                };
                if best[to].is_none_or(|(score, ..)| candidate.0 > score) {
                    best[to] = Some(candidate);
                }
            }
        }
        let mut tokens = vec![];
        let mut at = n;
        while at > 0 {
            let (_, from, id) = best[at].unwrap();
            tokens.push(
                id.map_or_else(|| spelt(from, at).bytes().map(|b| FIRST_BYTE + u32::from(b)).collect(), |id| vec![id]),
            );
            at = from;
        }
        ids.extend(tokens.into_iter().rev().flatten());
    }
    ids
}

/// Returns a vocabulary of few characters, so that many pieces begin alike, and of few scores, so that many sums are
/// equal.
fn vocabulary() -> impl Strategy<Value = Pieces> {
    let highest = prop_oneof![8 => Just(-1i16), 1 => Just(3)];
    let character = proptest::sample::select("aaabbbc`\u{7F}~Aé,▁".chars().collect::<Vec<_>>());
    let piece = (any::<bool>(), proptest::collection::vec(character, 1..6), 1..5usize);
    let pieces = proptest::collection::vec((piece, 0..12i16), 0..120);
    (highest, pieces, 1..3000i16).prop_map(|(highest, chosen, unit)| {
        let mut pieces: Pieces = characters();
        for ((marked, characters, times), score) in chosen {
            let text = characters.into_iter().collect::<String>().repeat(times);
            pieces.push((
                (if marked { "▁" } else { "" }).chars().chain(text.chars()).collect(),
                (highest - score).saturating_mul(unit),
            ));
        }
        pieces.sort();
        pieces.dedup_by(|a, b| a.0 == b.0);
        pieces
    })
}

#[test]
fn what_is_left_out_of_the_search_never_wins() {
    // The word is a piece, and so is all of it but its end: the two sums meet, exceed each other and tie.
    for whole in -12..0 {
        for (tail, end) in [("b", "c"), ("bc", "d"), ("b", ",")] {
            let mut pieces: Pieces = characters();
            pieces.iter_mut().for_each(|(_, score)| *score = -3);
            let word = std::format!("a{tail}{end}");
            for (piece, score) in [
                ("▁a".into(), -3),
                (std::format!("▁{word}"), whole),
                (std::format!("▁a{tail}"), -5),
                (std::format!("{tail}{end}"), -4),
            ] {
                pieces.push((piece, score));
            }
            pieces.sort();
            let bytes = Table::write(&pieces, Normalization::default()).unwrap();
            let table = Table::new(&bytes).unwrap();
            assert_eq!(table.encode(&word).split_last(), Some((&END, &viterbi(&pieces, &word)[..])), "{word} {whole}");
        }
    }
}

#[test]
fn the_bound_of_ascii_is_not_that_of_other_characters() {
    let mut pieces: Pieces = characters().into_iter().filter(|(p, _)| p != "é").collect();
    pieces.extend(
        [("▁ab", -10), ("▁abé", -20), ("é", -1), ("▁a▁b", -20), ("▁a", -10), ("▁b", -1)].map(|(p, s)| (p.into(), s)),
    );
    pieces.sort();
    let bytes = Table::write(&pieces, Normalization::default()).unwrap();
    assert_eq!(spell(&bytes, "abé"), ["▁ab", "é", "</s>"]);
    assert_eq!(spell(&bytes, "a▁b"), ["▁a", "▁b", "</s>"]);
}

#[test]
fn every_first_letter_of_a_word_finds_its_pieces() {
    // The bytes at and next to the ends of the index of first letters, and more pieces of a letter than are compared
    // one by one.
    let mut pieces: Pieces = characters();
    for first in "!Z_`abyz{~\u{7F}\u{80}é".chars() {
        pieces.extend(
            (0..20).flat_map(|n| [(std::format!("▁{first}{}", "x".repeat(n)), -1), (std::format!("▁{first}{n}"), -1)]),
        );
    }
    pieces.sort();
    let bytes = Table::write(&pieces, Normalization::default()).unwrap();
    let table = Table::new(&bytes).unwrap();
    for (id, (piece, _)) in (FIRST_PIECE..).zip(&pieces).filter(|(_, (p, _))| p.chars().count() > 1) {
        assert_eq!(table.encode(piece.trim_start_matches('▁')), [id, END], "{piece}");
    }
}

proptest! {
    #![proptest_config(super::utf8::tests::fixed())]

    #[test]
    fn the_search_equals_its_definition(
        pieces in vocabulary(),
        words in proptest::collection::vec("[abcA`,~é▁\u{7F}€]{1,12}|[abc]{1,20}[,.]?|[ab]{60,70}", 1..8),
    ) {
        let bytes = Table::write(&pieces, Normalization::default()).unwrap();
        let table = Table::new(&bytes).unwrap();
        for word in words {
            let ids = table.encode(&word);
            prop_assert_eq!(ids.split_last(), Some((&END, &viterbi(&pieces, &word)[..])), "{}", word);
        }
    }

    #[test]
    fn a_text_in_parts_gives_the_ids_of_the_whole(
        text in text(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6), lowercase: bool
    ) {
        let bytes = table(lowercase);
        let table = Table::new(&bytes).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).chain([0, text.len()]).collect();
        cuts.sort();
        let mut encoder = Encoder::new();
        let mut ids = vec![];
        for cut in cuts.windows(2) {
            encoder.push(&table, &text[cut[0]..cut[1]], &mut |id| ids.push(id));
        }
        encoder.finish(&table, &mut |id| ids.push(id));
        prop_assert_eq!(ids, table.encode(&text));
    }

    #[test]
    fn nothing_but_spacing_and_case_is_lost(text in text(), lowercase: bool) {
        let bytes = table(lowercase);
        let table = Table::new(&bytes).unwrap();
        let whole = String::from_utf8_lossy(&text);
        let lowered: String = whole.chars().flat_map(char::to_lowercase).collect();
        let expected = if lowercase { &lowered } else { &*whole };
        let words: Vec<&str> = expected.split(|c: char| c.is_whitespace() || c == METASPACE).filter(|w| !w.is_empty()).collect();
        let decoded = table.decode(&table.encode(&text)).unwrap();
        prop_assert_eq!(decoded.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>(), words);
    }

    #[test]
    fn random_bytes_are_no_table_and_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Table::new(&bytes);
        let mut header = table(false);
        header.truncate(20);
        header.extend(bytes);
        let _ = Table::new(&header);
    }
}
