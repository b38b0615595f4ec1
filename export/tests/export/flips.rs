//! One flipped bit in a shipped file: refused, or the same file in other bytes. `KINGLET_FLIPS` says how many are tried; 10,000 take minutes.

use std::path::Path;

use kinglet::bundle::OwnedBundle;
use kinglet_onnx::{TractModel, onnx};
use prost::Message;

use crate::fixture::Random;

fn flips() -> usize {
    let given = std::env::var("KINGLET_FLIPS").unwrap_or_default();
    if given.is_empty() { 150 } else { given.parse().expect("KINGLET_FLIPS is a whole number") }
}

/// Calls `look` with a shipped file after each of the flips, made one at a time.
fn each_flip(file: &str, mut look: impl FnMut(&[u8], usize)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(file);
    let mut bytes = std::fs::read(path).unwrap();
    let mut random = Random(17);
    for _ in 0..flips() {
        let (at, bit) = (random.below(bytes.len()), 1 << random.below(8));
        bytes[at] ^= bit;
        look(&bytes, at);
        bytes[at] ^= bit;
    }
}

#[test]
fn no_flip_in_a_shipped_onnx_file_changes_an_answer() {
    let good = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/intents/model.int8.onnx")).unwrap();
    let good = onnx::ModelProto::decode(good.as_slice()).unwrap();
    each_flip("intents/model.int8.onnx", |bytes, at| {
        // Decoded to the same values, it answers with the same bits.
        let same = || onnx::ModelProto::decode(bytes).is_ok_and(|model| model == good);
        assert!(same() || TractModel::from_bytes(bytes).is_err(), "a flip of byte {at} is not noticed");
    });
}

#[test]
fn no_flip_in_a_shipped_bundle_is_accepted() {
    for file in ["intents/model.kinglet", "intents-nano/model.kinglet"] {
        each_flip(file, |bytes, at| {
            assert!(OwnedBundle::new(bytes).is_err(), "{file}: a flip of byte {at} is not noticed")
        });
    }
}
