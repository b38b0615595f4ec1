//! Compares the device's tokenizer with Hugging Face `tokenizers` on the `tokenizer.json` written with it.
//!
//! `KINGLET_LONG=1` runs 100,000 random texts instead of 2,000; `KINGLET_DATA` names a folder with more data sets to
//! compare.
#![allow(clippy::unwrap_used)]

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use kinglet::{
    spec,
    tokenizer::{Encoder, Normalization, Table, Token},
};
use kinglet_data::dataset::{self, ReadOptions};
use kinglet_train::tokenizer::{TokenizerPlan, flat_table, train};
use proptest::{prelude::*, sample::Index, test_runner::RngSeed};
use tokenizers::Tokenizer;

/// Text in several scripts, from which the vocabularies are learnt here.
const TEXT: &str = include_str!("data/tokenizer.txt");

struct Pair {
    reference: Tokenizer,
    table: Vec<u8>,
}

impl Pair {
    fn learn(inputs: &[PathBuf], vocab_size: usize, normalization: Normalization, character_coverage: f64) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let inputs = inputs.to_vec();
        let plan = TokenizerPlan {
            inputs,
            read: ReadOptions::default(),
            vocab_size,
            lowercase: normalization.lowercase,
            nfc: Some(normalization.nfc),
            max_piece_length: 16,
            character_coverage,
            out,
        };
        let summary = train(&plan).unwrap();
        assert_eq!(summary.vocab_size, vocab_size, "{summary:?}");
        let json = plan.out.join(spec::files::TOKENIZER);
        let table = std::fs::read(plan.out.join(spec::files::TOKENIZER_TABLE)).unwrap();
        assert_eq!(flat_table(&json).unwrap(), table);
        Pair { reference: Tokenizer::from_file(json).unwrap(), table }
    }

    /// Returns this vocabulary with scores so coarse that many segmentations cost the same, and without the characters
    /// beyond ASCII that only longer pieces cover.
    fn coarsened(&self) -> Pair {
        let mut file: serde_json::Value = serde_json::from_str(&self.reference.to_string(false).unwrap()).unwrap();
        let vocab = file["model"]["vocab"].as_array_mut().unwrap();
        vocab.retain(|entry| {
            let piece = entry[0].as_str().unwrap();
            piece.is_ascii() || piece == "▁" || piece.chars().count() > 1
        });
        for entry in vocab {
            entry[1] = ((entry[1].as_f64().unwrap() / 4.0).round() * 4.0).into();
        }
        let dir = tempfile::tempdir().unwrap();
        let json = dir.path().join(spec::files::TOKENIZER);
        std::fs::write(&json, file.to_string()).unwrap();
        Pair { table: flat_table(&json).unwrap(), reference: Tokenizer::from_file(json).unwrap() }
    }

    /// Asserts that both return the same ids for the bytes, whole and in two parts, and returns them.
    fn check(&self, text: &[u8], cut: usize) -> Vec<u32> {
        let table = Table::new(&self.table).unwrap();
        let whole = String::from_utf8_lossy(text);
        let expected = self.reference.encode_fast(&*whole, true).unwrap();
        let got = table.encode(text);
        if got != expected.get_ids() {
            panic!("{whole:?}: device {:?}, Hugging Face {:?}", names(&table, &got), expected.get_tokens());
        }
        let (mut encoder, mut parts) = (Encoder::new(), vec![]);
        encoder.push(&table, &text[..cut], &mut |id| parts.push(id));
        encoder.push(&table, &text[cut..], &mut |id| parts.push(id));
        encoder.finish(&table, &mut |id| parts.push(id));
        assert_eq!(parts, got, "{whole:?} cut at {cut}");
        got
    }
}

fn names(table: &Table<'_>, ids: &[u32]) -> Vec<String> {
    ids.iter()
        .map(|&id| match table.token(id) {
            Some(Token::Piece(piece)) => piece.to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

/// Returns vocabularies of [`TEXT`]: cased with every character, lower-cased and composed without rare ones, and one composed with equal
/// costs.
fn pairs() -> &'static [Pair; 3] {
    static PAIRS: OnceLock<[Pair; 3]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text.txt");
        std::fs::write(&path, TEXT).unwrap();
        let path = [path];
        let [as_is, composed] = [false, true].map(|nfc| Normalization { nfc, lowercase: false });
        let both = Normalization { nfc: true, lowercase: true };
        let coarse = Pair::learn(&path, 700, composed, 1.0).coarsened();
        [Pair::learn(&path, 700, as_is, 1.0), Pair::learn(&path, 500, both, 0.98), coarse]
    })
}

fn check_all(text: impl AsRef<[u8]>) -> Vec<u32> {
    let [cased, lowercase, coarse] = pairs();
    let text = text.as_ref();
    lowercase.check(text, text.len() / 3);
    coarse.check(text, text.len());
    cased.check(text, text.len() / 2)
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testing/data").join(name)
}

/// Returns a vocabulary of lower-cased queries, and a larger cased one of a book, of text messages, and of queries.
fn real_pairs() -> &'static [Pair; 2] {
    static PAIRS: OnceLock<[Pair; 2]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let [queries, messages, book] =
            ["clinc150/train.jsonl.zst", "sms_spam/train.jsonl.zst", "book/wealth_of_nations.txt.zst"].map(data);
        let lowercase = Pair::learn(std::slice::from_ref(&queries), 2048, Normalization::LOWERCASE, 0.9995);
        let composed = Normalization { nfc: true, lowercase: false };
        [lowercase, Pair::learn(&[book, messages, queries], 4096, composed, 1.0)]
    })
}

/// Asserts that the texts of `set` have the ids of Hugging Face in both vocabularies.
fn parity(set: &str, texts: impl Iterator<Item = String>) {
    let (mut count, mut tokens) = (0, 0);
    for text in texts {
        for pair in real_pairs() {
            tokens += pair.check(text.as_bytes(), text.len() / 2).len();
        }
        count += 1;
    }
    eprintln!("{set}: {count} texts, {tokens} tokens");
    assert!(count > 380, "{set} has {count} texts");
}

fn texts(path: &Path) -> impl Iterator<Item = String> {
    let texts = dataset::texts(path, &ReadOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    texts.map(|text| text.unwrap().text)
}

#[test]
fn all_dev_sets_have_the_ids_of_hugging_face() {
    for set in ["clinc150", "banking77", "snips", "sms_spam"] {
        parity(set, texts(&data(set).join("dev.jsonl.zst")));
    }
    parity("book", texts(&data("book/wealth_of_nations.txt.zst")));
    let pairs = dataset::pairs(&data("cogs/dev.jsonl.zst"), &ReadOptions::text("source"), "target").unwrap().pairs;
    parity("cogs", pairs.into_iter().flat_map(|(sentence, meaning)| [sentence, meaning]));
}

#[test]
fn parity_on_more_data() {
    let Some(folder) = std::env::var_os("KINGLET_DATA").filter(|folder| !folder.is_empty()) else {
        eprintln!("skipped: KINGLET_DATA is not set: tokenizer parity on trec, sst2, ag_news");
        return;
    };
    for set in ["trec", "sst2", "ag_news"] {
        parity(set, texts(&Path::new(&folder).join(set).join("dev.jsonl.zst")));
    }
}

#[test]
fn whole_lines_have_the_ids_of_hugging_face() {
    TEXT.lines().for_each(|line| drop(check_all(line)));
}

#[test]
fn a_text_without_words_is_the_end_alone() {
    for text in ["", " ", "\n\t \u{3000}\u{2028}\u{85}"] {
        assert_eq!(check_all(text), [1]);
    }
}

#[test]
fn every_white_space_divides_and_nothing_else_does() {
    let spaces = ('\0'..=char::MAX).filter(|c| c.is_whitespace());
    let likely = "\u{180E}\u{200B}\u{200C}\u{200D}\u{2060}\u{FEFF}\u{1C}\u{1F}\u{2800}".chars();
    for c in spaces.chain(likely) {
        check_all(format!("{c}the{c}{c}cat {c} sat{c}"));
    }
}

#[test]
fn every_character_has_the_ids_of_hugging_face() {
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    for block in all.chunks(200) {
        // More than 31 combining characters in a row are composed in parts, which is not what Hugging Face does.
        let parts: Vec<String> = block.chunks(25).map(String::from_iter).collect();
        check_all(parts.join("x"));
    }
}

#[test]
fn every_character_that_decomposes_has_the_ids_of_hugging_face_in_each_form() {
    use unicode_normalization::UnicodeNormalization;
    for c in ('\0'..=char::MAX).filter(|c| !c.to_string().nfd().eq([*c])) {
        let apart: String = c.to_string().nfd().collect();
        check_all(format!("{c} {apart} {c}\u{323}\u{301} a\u{301}{apart}\u{11A8}\u{301}{c}"));
    }
}

#[test]
fn every_character_with_case_is_lower_cased_alone() {
    for c in ('\0'..=char::MAX).filter(|c| c.is_uppercase() || !c.to_lowercase().eq([*c])) {
        check_all(format!("{c} a{c} {c}{c}x"));
    }
    check_all("ΟΔΥΣΣΕΥΣ İSTANBUL STRASSE ẞ");
}

#[test]
fn names_of_tokens_are_spelt() {
    for text in ["</s>", "<unk> <pad>", "a</s>b", "<0x41>", "<0xE2><0x96><0x81>", "<UNK>", "▁</s>"] {
        assert!(check_all(text).iter().rev().skip(1).all(|&id| id > 2), "{text}");
    }
}

#[test]
fn marks_in_the_text_are_kept() {
    for text in ["▁", "▁▁", "▁the", "the▁cat", "the ▁ cat", " ▁", "the▁ cat▁", "\u{2581}\u{2580}", "b\u{E2}\u{96}"]
    {
        check_all(text);
    }
}

#[test]
fn words_of_every_length_around_the_chunk_have_the_ids_of_hugging_face() {
    for n in (0..200).chain([1000, 4095, 4096, 4097]) {
        for unit in ["a", "the", "é", "▁", "日", "\u{1F600}", "İ"] {
            check_all(format!("{} x", unit.repeat(n)));
        }
    }
}

#[test]
fn one_word_of_a_megabyte_has_the_ids_of_hugging_face() {
    let word: String = TEXT.chars().filter(|c| !c.is_whitespace()).collect();
    check_all(&word.repeat((1 << 20) / word.len() + 1)[..]);
}

#[test]
fn invalid_bytes_are_replaced() {
    for text in
        [&b"\xFF"[..], b"the \xC3", b"\xE2\x96", b"\xE2\x96\x81\xE2", b"\xF0\x9F\x98 cat", b"\xED\xA0\x80", b"\xC0\x80"]
    {
        check_all(text);
    }
}

#[test]
fn decoding_is_that_of_hugging_face() {
    for pair in pairs() {
        let table = Table::new(&pair.table).unwrap();
        for line in TEXT.lines().chain(["", "x\u{10FFFF}y", "▁ ▁", "<0x41>"]) {
            let ids = table.encode(line);
            let (_, words) = ids.split_last().unwrap();
            assert_eq!(table.decode(&ids).unwrap(), pair.reference.decode(words, false).unwrap());
        }
    }
}

/// Returns texts of the vocabularies' own characters and words, of anything else, and of broken bytes.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&str> = TEXT.split_whitespace().collect();
    let known: Vec<char> = TEXT.chars().collect();
    let odd = [
        "</s>",
        "<0x0A>",
        "<unk>",
        "▁",
        "\u{FFFD}",
        "\u{300}",
        "\u{323}",
        "e\u{301}",
        "\u{1112}\u{1161}",
        "\u{11AB}",
        "\u{200D}",
        "İ",
        "ǅ",
        "\u{85}",
        "\u{3000}",
        "\0",
    ];
    let part = prop_oneof![
        4 => proptest::sample::select(words).prop_map(String::from),
        2 => proptest::sample::select(odd.to_vec()).prop_map(String::from),
        4 => proptest::collection::vec(proptest::sample::select(known), 0..80).prop_map(|c| c.into_iter().collect()),
        4 => proptest::collection::vec(any::<char>(), 0..20).prop_map(|c| c.into_iter().collect()),
        3 => Just(String::from(" ")),
    ];
    let bytes = prop_oneof![
        12 => part.prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(bytes, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("KINGLET_LONG").is_some_and(|v| v == "1") { 100_000 } else { 2_000 },
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_texts_have_the_ids_of_hugging_face(text in text(), cut: Index) {
        for pair in pairs() {
            pair.check(&text, cut.index(text.len() + 1));
        }
    }
}
