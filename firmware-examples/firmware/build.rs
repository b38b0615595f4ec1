//! Finds the bundle that the program embeds: `KINGLET_MODEL`, an absolute path, or the default model for microcontrollers.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KINGLET_MODEL");
    let model = env::var_os("KINGLET_MODEL").map_or_else(
        || {
            PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
                .join("../../models/intents-nano/model.kinglet")
        },
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", model.display());
    let copy = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("model.kinglet");
    if !model.is_absolute() {
        println!("cargo::error=KINGLET_MODEL must be an absolute path, not {}", model.display());
    } else if let Err(error) = fs::copy(&model, copy) {
        println!("cargo::error=the model {} cannot be read: {error}", model.display());
    }
}
