//! The scores of fixed models on fixed texts have the same bits on every machine: their SHA-256 stand in `golden.txt`.

use kinglet::backend::Backend;
use kinglet::bundle::Buffer;
use kinglet::engine::Engine;
use kinglet::engine::native::{BorrowedEngine, DEFAULT_CHUNK};
use kinglet::spec::{Mixer, Norm, Pooling};
use kinglet::stream::Stream;
use kinglet::tokenizer::Table;
use sha2::{Digest, Sha256};

use crate::fixture::{Model, Random, config, tokenizer, with_engine};
use crate::oracle;

/// One `name hash` per line.
const TABLE: &str = include_str!("golden.txt");

/// The default model.
const INTENTS: &[u8] = include_bytes!("../../../models/intents/model.kinglet");

/// Returns texts of 1 to about 400 tokens: words of the vocabulary, words spelt in characters, other scripts, invalid
/// UTF-8.
fn texts() -> Vec<Vec<u8>> {
    let words = [
        "wake", "me", "at", "seven", "the", "alarm", "Straße", "字字", "naïve", "42", "\u{2581}", "🎈", "İ", "...", "ẞ",
    ];
    let mut random = Random(2024);
    let mut texts: Vec<Vec<u8>> = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144]
        .map(|count| (0..count).map(|_| random.pick(&words)).collect::<Vec<_>>().join(" ").into_bytes())
        .into();
    texts.push(b"half a character: \xF0\x9F, and a stray \x80 byte".to_vec());
    texts.push("x".repeat(300).into_bytes());
    texts
}

/// Returns the models of the table by name: each mixer, both norms and poolings, sizes that do and do not fill vectors
/// and panels.
fn models() -> [(&'static str, Model); 4] {
    let light = config(Mixer::Light, Norm::PostLayer, Pooling::Mean, 64, &[[7, 3, 1], [7, 3, 1], [7, 3, 1]]);
    let mut dynamic = config(Mixer::Dynamic, Norm::PreRms, Pooling::Max, 36, &[[4, 2, 1], [7, 3, 1]]);
    dynamic.mixer = dynamic.mixer.with_heads(4);
    let dilated = config(Mixer::Dilated, Norm::PostLayer, Pooling::Mean, 50, &[[4, 1, 1], [7, 6, 3], [1, 0, 1]]);
    let rms = config(Mixer::Light, Norm::PreRms, Pooling::Mean, 33, &[[15, 7, 1], [2, 0, 1]]);
    [("light", light), ("dynamic", dynamic), ("dilated", dilated), ("light-pre-rms", rms)]
        .map(|(name, config)| (name, Model::random(config, 7)))
}

/// Returns the SHA-256 of the scores of all texts, consecutive little-endian f32.
fn hash(mut scores_of: impl FnMut(&[u8]) -> Vec<f32>) -> String {
    let mut hash = Sha256::new();
    for text in texts() {
        scores_of(&text).iter().for_each(|score| hash.update(score.to_le_bytes()));
    }
    format!("{:x}", hash.finalize())
}

/// Returns the scores of a text that is pushed in one part.
fn streamed(engine: &mut BorrowedEngine<'_>, text: &[u8]) -> Vec<f32> {
    let mut scores = vec![0.0; engine.num_labels()];
    let mut stream = Stream::new(engine);
    stream.push(text).unwrap();
    stream.finish(&mut scores).unwrap();
    scores
}

/// Returns the hash that all backends agree on.
fn hash_of_every_backend(name: &str, bundle: &Buffer) -> String {
    let hashes: Vec<(&str, String)> = Backend::all()
        .map(|backend| {
            let got = with_engine(bundle, backend, DEFAULT_CHUNK, |engine| hash(|text| streamed(engine, text)));
            println!("{name} {got} {}", backend.name());
            (backend.name(), got)
        })
        .collect();
    let (_, first) = hashes[0].clone();
    assert!(hashes.iter().all(|(_, hash)| *hash == first), "{name}: {hashes:?}");
    first
}

#[test]
fn every_backend_gives_the_committed_scores() {
    let table = tokenizer();
    let mut computed = String::new();
    for (name, model) in models() {
        let hash_of_oracle = hash(|text| oracle::logits(&model, &Table::new(&table).unwrap().encode(text)));
        assert_eq!(hash_of_every_backend(name, &model.bundle()), hash_of_oracle, "{name}");
        computed += &format!("{name} {hash_of_oracle}\n");
    }
    computed += &format!("intents {}\n", hash_of_every_backend("intents", &Buffer::new(INTENTS)));
    assert_eq!(computed, TABLE, "golden.txt");
}
