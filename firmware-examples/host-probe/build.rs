//! Writes the bundle embedded by the program: a small model with weights from a formula.

use std::{env, error::Error, fs, path::Path};

use kinglet::bundle::{self, Parts};
use kinglet::spec::{Config, Mixer, Weight};
use kinglet::tokenizer::{Normalization, Table};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    // A no_std program is linked without default libraries; the entry point and `memcpy` are in the C library.
    println!("cargo::rustc-link-lib=c");
    let mut pieces: Vec<(String, i16)> = (b'!'..=b'~')
        .filter(|byte| !byte.is_ascii_uppercase())
        .map(|byte| (char::from(byte).to_string(), -8 * 1024))
        .chain(["▁", "▁wake", "▁me", "▁at", "▁seven"].map(|piece| (piece.to_string(), -1024)))
        .collect();
    pieces.sort();
    let tokenizer = Table::write(&pieces, Normalization::LOWERCASE)?;
    let config = Config {
        vocab_size: Table::new(&tokenizer)?.vocab_size(),
        intermediate_size: 40,
        num_labels: 3,
        ..Config::new(Mixer::Light, 2, 24)
    };
    let values: Vec<(Weight, Vec<f32>)> = config
        .weights()
        .map(|weight| {
            let len = config.shape(weight).map_or(0, |shape| shape.len());
            // Integers below 2²⁴ over a power of two: the same numbers on every machine.
            (weight, (0..len).map(|i| ((i * 7919 + 13) % 1021) as f32 / 4096.0 - 0.125).collect())
        })
        .collect();
    let parts = Parts {
        config: &config,
        tokenizer: &tokenizer,
        labels: &["alarm", "weather", "other"],
        decision: Default::default(),
        ngrams: None,
    };
    let weight = |wanted| values.iter().find(|(weight, _)| *weight == wanted).map_or(&[][..], |(_, values)| values);
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("model.kinglet"), bundle::write(&parts, weight)?)?;
    Ok(())
}
