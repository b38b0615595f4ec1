//! Learns a subword vocabulary and writes it for Hugging Face and for devices.
//!
//! [`kinglet::tokenizer`] specifies the steps from text to ids; `pipeline` describes them to Hugging Face.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use kinglet::{
    spec,
    tokenizer::{
        CHUNK_CHARS, FIRST_PIECE, METASPACE, Normalization, SCORE_UNIT, SPECIAL_SCORE, Table, UNKNOWN, is_composable,
    },
};
use kinglet_data::{dataset, files::write_atomically};
use serde_json::{Value, json};
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer,
};

pub mod files;
mod plan;
pub mod sampling;
mod unigram;

pub use plan::TokenizerPlan;

use plan::special;
use unigram::{kept_characters, learn};

/// Summary of a learnt vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Number of ids.
    pub vocab_size: usize,
    /// Number of ids requested; the texts may be too few for them.
    pub wanted: usize,
    /// Texts read.
    pub texts: u64,
    /// Words in them.
    pub words: u64,
    /// Mean tokens per word in these texts.
    pub tokens_per_word: f64,
    /// Distinct characters that are not pieces and are spelled in bytes.
    pub spelt_characters: usize,
    /// What is done to a text first.
    pub normalization: Normalization,
}

/// Learns a vocabulary and writes its three files into `plan.out`.
///
/// Deterministic: the files depend only on the texts and the plan.
///
/// # Errors
/// If the plan is impossible, a file cannot be read or written, or the texts have no words.
pub fn train(plan: &TokenizerPlan) -> Result<Summary> {
    plan.validate()?;
    let mut texts = 0u64;
    let mut spaced: HashMap<String, u64> = HashMap::new();
    for path in &plan.inputs {
        for text in dataset::texts(path, &plan.read)? {
            texts += 1;
            for word in text?.text.split_whitespace() {
                match spaced.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(spaced.insert(word.to_owned(), 1)),
                }
            }
        }
    }
    let words: u64 = spaced.values().sum();
    ensure!(words > 0, "the {texts} texts of the {} input files have no word", plan.inputs.len());
    let mut normalization = Normalization { nfc: plan.nfc.unwrap_or(true), lowercase: plan.lowercase };
    let mut chunks = chunks(&spaced, normalization)?;
    let mut kept = kept_characters(&chunks, plan);
    if plan.nfc.is_none() && !kept.iter().copied().any(is_composable) {
        normalization.nfc = false;
        chunks = self::chunks(&spaced, normalization)?;
        kept = kept_characters(&chunks, plan);
    }
    let spelt_characters = {
        let all: BTreeSet<char> = chunks.iter().flat_map(|(chunk, _)| chunk.chars()).collect();
        all.difference(&kept).count()
    };
    let pieces = learn(&chunks, &kept, plan)?;
    let json = json_bytes(&pieces, normalization)?;
    let table = Table::write(&pieces, normalization)?;

    let reader = Table::new(&table)?;
    let mut tokens = 0u64;
    for (word, count) in &spaced {
        let mut ids = 0u64;
        reader.encode_with(word.as_bytes(), &mut |_| ids += 1);
        // Without the end of the text.
        tokens += (ids - 1) * count;
    }

    std::fs::create_dir_all(&plan.out).with_context(|| format!("{}: cannot be made", plan.out.display()))?;
    let config = serde_json::to_vec_pretty(&transformers_config())?;
    for (name, bytes) in [
        (spec::files::TOKENIZER, &json),
        (spec::files::TOKENIZER_CONFIG, &config),
        (spec::files::TOKENIZER_TABLE, &table),
    ] {
        let path = plan.out.join(name);
        write_atomically(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(Summary {
        vocab_size: reader.vocab_size(),
        wanted: plan.vocab_size,
        texts,
        words,
        tokens_per_word: tokens as f64 / words as f64,
        spelt_characters,
        normalization,
    })
}

/// Returns the chunks of words that the unigram model sees, with their counts: through Hugging Face's own steps,
/// sorted.
fn chunks(words: &HashMap<String, u64>, normalization: Normalization) -> Result<Vec<(String, u64)>> {
    let none: [(&str, i16); 0] = [];
    let steps = Tokenizer::from_bytes(json_bytes(&none, normalization)?).map_err(|e| anyhow!(e))?;
    let pre_tokenizer = steps.get_pre_tokenizer().context("the pipeline has a pre-tokenizer")?;
    let mut chunks: BTreeMap<String, u64> = BTreeMap::new();
    for (word, count) in words {
        let mut text = NormalizedString::from(word.as_str());
        if let Some(normalizer) = steps.get_normalizer() {
            normalizer.normalize(&mut text).map_err(|e| anyhow!(e))?;
        }
        let mut text = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut text).map_err(|e| anyhow!(e))?;
        for (chunk, _, _) in text.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            *chunks.entry(chunk.to_owned()).or_default() += count;
        }
    }
    Ok(chunks.into_iter().collect())
}

/// Returns the parts of `tokenizer.json` other than the vocabulary.
fn pipeline(normalization: Normalization) -> [(&'static str, Value); 8] {
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let end = |type_id: u32| json!({"SpecialToken": {"id": special(1), "type_id": type_id}});
    [
        ("version", json!("1.0")),
        ("truncation", Value::Null),
        ("padding", Value::Null),
        ("added_tokens", json!([])),
        ("normalizer", normalizer(normalization)),
        (
            "pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": METASPACE, "prepend_scheme": "always", "split": false},
                {"type": "FixedLength", "length": CHUNK_CHARS},
            ]}),
        ),
        (
            "post_processor",
            json!({
                "type": "TemplateProcessing",
                "single": [sequence("A", 0), end(0)],
                "pair": [sequence("A", 0), end(0), sequence("B", 1), end(1)],
                "special_tokens": {special(1): {"id": special(1), "ids": [1], "tokens": [special(1)]}},
            }),
        ),
        (
            "decoder",
            json!({"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": METASPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]}),
        ),
    ]
}

/// Returns the part of `tokenizer.json` that normalizes.
fn normalizer(Normalization { nfc, lowercase }: Normalization) -> Value {
    match (nfc, lowercase) {
        (false, false) => Value::Null,
        (false, true) => json!({"type": "Lowercase"}),
        (true, false) => json!({"type": "NFC"}),
        (true, true) => json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}),
    }
}

/// Returns `tokenizer.json` of sorted pieces.
fn json_bytes<S: AsRef<str>>(pieces: &[(S, i16)], normalization: Normalization) -> Result<Vec<u8>> {
    let special = (0..FIRST_PIECE).map(|id| json!([special(id), SPECIAL_SCORE]));
    let pieces = pieces.iter().map(|(piece, score)| json!([piece.as_ref(), f64::from(*score) * SCORE_UNIT]));
    let mut file: serde_json::Map<String, Value> =
        pipeline(normalization).into_iter().map(|(key, value)| (key.into(), value)).collect();
    let vocab: Vec<Value> = special.chain(pieces).collect();
    file.insert("model".into(), json!({"type": "Unigram", "unk_id": UNKNOWN, "byte_fallback": true, "vocab": vocab}));
    Ok(serde_json::to_vec_pretty(&file)?)
}

/// Returns `tokenizer_config.json`, with which `transformers.AutoTokenizer` loads `tokenizer.json`.
fn transformers_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": special(0),
        "eos_token": special(1),
        "unk_token": special(2),
        // transformers' value for "no limit".
        "model_max_length": 1_000_000_000_000_000_000u64,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": false,
        // "</s>" in a text is ordinary text.
        "split_special_tokens": true,
    })
}

/// Returns `tokenizer.json` and the table of a tokenizer, with the difference that texts are brought into NFC first; texts that are in NFC
/// keep their ids.
///
/// # Errors
/// As [`flat_table`].
fn composing(json: &[u8]) -> Result<[Vec<u8>; 2]> {
    let table = table_of(json)?;
    let normalization = Normalization { nfc: true, ..Table::new(&table)?.normalization() };
    let mut file: Value = serde_json::from_slice(json)?;
    file["normalizer"] = normalizer(normalization);
    let json = serde_json::to_vec_pretty(&file)?;
    let table = table_of(&json)?;
    Ok([json, table])
}

/// Makes the flat table from a `tokenizer.json` with exactly the steps in [`kinglet::tokenizer`].
///
/// The decoder does not matter.
///
/// # Errors
/// If the file cannot be read, or is a different tokenizer: the error names the difference.
pub fn flat_table(tokenizer_json: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(tokenizer_json).with_context(|| format!("{}", tokenizer_json.display()))?;
    table_of(&bytes).with_context(|| format!("{} is no tokenizer of Kinglet's", tokenizer_json.display()))
}

fn table_of(json: &[u8]) -> Result<Vec<u8>> {
    let file: Value = serde_json::from_slice(json)?;
    let normalization = [false, true]
        .into_iter()
        .flat_map(|nfc| [false, true].map(|lowercase| Normalization { nfc, lowercase }))
        .find(|&normalization| file["normalizer"] == normalizer(normalization))
        .with_context(|| {
            format!("normalizer is {}, not NFC, Lowercase, both in this order or none", file["normalizer"])
        })?;
    for (key, expected) in pipeline(normalization) {
        ensure!(file[key] == expected || key == "decoder", "{key} is {}, not {expected}", file[key]);
    }
    let model = &file["model"];
    for (key, expected) in [("type", json!("Unigram")), ("unk_id", json!(UNKNOWN)), ("byte_fallback", json!(true))] {
        ensure!(model[key] == expected, "model.{key} is {}, not {expected}", model[key]);
    }
    let vocab: Vec<(String, f64)> = serde_json::from_value(model["vocab"].clone()).context("model.vocab")?;
    let mut pieces = Vec::new();
    for (id, (token, score)) in (0u32..).zip(vocab) {
        if id < FIRST_PIECE {
            let expected = special(id);
            ensure!(
                token == expected && score == SPECIAL_SCORE,
                "id {id} is {token:?} at {score}, not {expected:?} at {SPECIAL_SCORE}"
            );
            continue;
        }
        let units = score / SCORE_UNIT;
        if units.fract() != 0.0 || !(f64::from(i16::MIN)..=f64::from(i16::MAX)).contains(&units) {
            bail!("{token:?} has score {score}, not a multiple of 1/1024 between -32 and 32");
        }
        pieces.push((token, units as i16));
    }
    ensure!(
        pieces.len() + FIRST_PIECE as usize >= TokenizerPlan::least_vocab_size(normalization.lowercase),
        "model.vocab is too short"
    );
    Ok(Table::write(&pieces, normalization)?)
}

#[cfg(test)]
mod tests {
    use kinglet::tokenizer::FIRST_BYTE;

    use super::*;

    const TEXT: &str = "the cat sat on the mat\nthe dog sat on the log\nThe END </s> of naïve cats\n";

    fn plan(dir: &Path, text: &str, out: &str) -> TokenizerPlan {
        let input = dir.join("text.txt");
        std::fs::write(&input, text).unwrap();
        TokenizerPlan {
            read: kinglet_data::dataset::ReadOptions::default(),
            inputs: vec![input],
            vocab_size: 400,
            lowercase: false,
            nfc: None,
            max_piece_length: 16,
            character_coverage: 1.0,
            out: dir.join(out),
        }
    }

    fn read(dir: &Path) -> [Vec<u8>; 2] {
        [spec::files::TOKENIZER, spec::files::TOKENIZER_TABLE].map(|name| std::fs::read(dir.join(name)).unwrap())
    }

    #[test]
    fn the_same_texts_give_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        for lowercase in [false, true] {
            let plans = ["a", "b"].map(|out| TokenizerPlan { lowercase, ..plan(dir.path(), TEXT, out) });
            let summaries = plans.clone().map(|plan| train(&plan).unwrap());
            assert_eq!(summaries[0], summaries[1]);
            assert_eq!(read(&plans[0].out), read(&plans[1].out));
            let [json, table] = read(&plans[0].out);
            assert_eq!(table_of(&json).unwrap(), table);
            assert_eq!(Table::new(&table).unwrap().normalization(), Normalization { nfc: true, lowercase });
        }
    }

    #[test]
    fn texts_in_either_form_give_the_same_vocabulary_and_the_same_ids() {
        let dir = tempfile::tempdir().unwrap();
        let learnt = |text: &str, nfc: Option<bool>| {
            let plan = TokenizerPlan { nfc, ..plan(dir.path(), text, "out") };
            let summary = train(&plan).unwrap();
            (read(&plan.out), summary.normalization.nfc)
        };
        let composed = "un café près du musée à Orléans, s'il vous plaît\n".repeat(20);
        let decomposed: String = unicode_normalization::UnicodeNormalization::nfd(composed.as_str()).collect();
        assert_ne!(composed, decomposed);
        let (files, nfc) = learnt(&composed, None);
        assert!(nfc && learnt(&decomposed, None) == (files.clone(), true));
        let table = Table::new(&files[1]).unwrap();
        assert_eq!(table.encode(&composed), table.encode(&decomposed));
        // A vocabulary without such characters spells them in bytes either way; a device is spared the data of composition.
        let ascii = "a cafe by the museum, please\n".repeat(20);
        assert!(!learnt(&ascii, None).1 && learnt(&ascii, Some(true)).1);
        let (files, nfc) = learnt(&decomposed, Some(false));
        assert!(!nfc && Table::new(&files[1]).unwrap().token(0).is_some());
        assert_ne!(Table::new(&files[1]).unwrap().encode("é"), Table::new(&files[1]).unwrap().encode("e\u{301}"));
    }

    #[test]
    fn the_size_is_met_or_the_texts_are_too_few() {
        let dir = tempfile::tempdir().unwrap();
        for vocab_size in [TokenizerPlan::least_vocab_size(false), 356, 358] {
            let summary = train(&TokenizerPlan { vocab_size, ..plan(dir.path(), TEXT, "a") }).unwrap();
            assert_eq!(summary.vocab_size, vocab_size);
        }
        let summary = train(&TokenizerPlan { vocab_size: 5000, ..plan(dir.path(), TEXT, "a") }).unwrap();
        assert!(summary.vocab_size < 500 && summary.wanted == 5000, "{summary:?}");
        assert_eq!((summary.texts, summary.words, summary.spelt_characters), (3, 18, 0));
    }

    #[test]
    fn a_frequent_word_is_one_piece_although_few_words_are_like_it() {
        let dir = tempfile::tempdir().unwrap();
        let syllables = ["ba", "ke", "mi", "no", "tu", "sha", "ri"];
        let mut text = "zebra ".repeat(500);
        for a in syllables {
            for b in syllables {
                for c in syllables {
                    text += &format!("{a}{b}{c} ").repeat(3);
                }
            }
        }
        let summary = train(&TokenizerPlan { vocab_size: 500, ..plan(dir.path(), &text, "a") }).unwrap();
        assert_eq!(summary.vocab_size, 500);
        let [_, table] = read(&dir.path().join("a"));
        assert_eq!(Table::new(&table).unwrap().encode("zebra").len(), 2);
    }

    #[test]
    fn where_there_is_room_a_frequent_word_of_one_character_is_one_piece() {
        let dir = tempfile::tempdir().unwrap();
        let text = "rose ( x _ 1 ) AND dog ( x _ 6 ) AND help ( x _ 3 )\n".repeat(50);
        train(&TokenizerPlan { vocab_size: 1000, ..plan(dir.path(), &text, "out") }).unwrap();
        let [json, _] = read(&dir.path().join("out"));
        let tokenizer = Tokenizer::from_bytes(json).unwrap();
        let ids = tokenizer.encode("rose ( x _ 1 )", false).unwrap();
        assert_eq!(ids.get_tokens(), ["▁rose", "▁(", "▁x", "▁_", "▁1", "▁)"]);
    }

    #[test]
    fn rare_characters_are_spelt_in_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let summary = train(&TokenizerPlan { character_coverage: 0.9, ..plan(dir.path(), TEXT, "a") }).unwrap();
        assert_eq!(summary.spelt_characters, 1);
        let [_, table] = read(&dir.path().join("a"));
        let table = Table::new(&table).unwrap();
        let ids = table.encode("ï");
        assert_eq!(ids[ids.len() - 3..], [FIRST_BYTE + 0xC3, FIRST_BYTE + 0xAF, 1]);
    }

    #[test]
    fn impossible_plans_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ok = plan(dir.path(), TEXT, "a");
        let bad = [
            TokenizerPlan { inputs: vec![], ..ok.clone() },
            TokenizerPlan { vocab_size: 353, ..ok.clone() },
            TokenizerPlan { max_piece_length: 0, ..ok.clone() },
            TokenizerPlan { max_piece_length: 65, ..ok.clone() },
            TokenizerPlan { character_coverage: f64::NAN, ..ok.clone() },
            TokenizerPlan { inputs: vec![dir.path().join("missing.txt")], ..ok.clone() },
        ];
        for plan in bad {
            assert!(train(&plan).is_err(), "{plan:?}");
        }
        let empty = TokenizerPlan { ..plan(dir.path(), " \n\n", "a") };
        assert!(train(&empty).unwrap_err().to_string().contains("no word"));
        assert!(!ok.out.exists());
    }

    #[test]
    fn another_tokenizer_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), TEXT, "a");
        train(&plan).unwrap();
        let [json, _] = read(&plan.out);
        let good: Value = serde_json::from_slice(&json).unwrap();
        let with = |pointer: &str, value: Value| {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            table_of(&serde_json::to_vec(&bad).unwrap()).map_err(|e| format!("{e:#}"))
        };
        assert!(with("/decoder", Value::Null).is_ok());
        for (pointer, value, name) in [
            ("/normalizer", json!({"type": "NFKC"}), "normalizer"),
            ("/pre_tokenizer/pretokenizers/1/split", json!(true), "pre_tokenizer"),
            ("/post_processor", Value::Null, "post_processor"),
            ("/added_tokens", json!([{"id": 1, "content": "</s>"}]), "added_tokens"),
            ("/truncation", json!({"max_length": 3}), "truncation"),
            ("/model/type", json!("BPE"), "model.type"),
            ("/model/unk_id", json!(0), "model.unk_id"),
            ("/model/byte_fallback", json!(false), "model.byte_fallback"),
            ("/model/vocab", json!({}), "model.vocab"),
            ("/model/vocab", json!([["<pad>", -1000.0]]), "too short"),
            ("/model/vocab/1/0", json!("<eos>"), "id 1"),
            ("/model/vocab/300/1", json!(-0.3), "multiple"),
            ("/model/vocab/300/1", json!(-40.0), "multiple"),
            ("/model/vocab/300/0", json!("!"), "piece"),
        ] {
            let error = with(pointer, value).unwrap_err();
            assert!(error.contains(name), "{pointer}: {error}");
        }
    }
}
