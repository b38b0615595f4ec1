//! Writes the tokenizer table that the program embeds.

use std::{env, error::Error, fs, path::Path};

use kinglet::tokenizer::Table;

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
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("tokenizer.bin"), Table::write(&pieces, true)?)?;
    Ok(())
}
