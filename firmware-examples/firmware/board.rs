//! Build script of every board: its memory.x, the linker script of its runtime crate and the room for the stack.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    // Copies, so that cargo's record of this script's output is valid for another checkout with the same build folder.
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for script in ["memory.x", "../firmware/stack.x"] {
        println!("cargo::rerun-if-changed={script}");
        let name = Path::new(script).file_name().unwrap_or_default();
        if let Err(error) = fs::copy(script, out.join(name)) {
            println!("cargo::error=the linker script {script} cannot be copied: {error}");
        }
    }
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=-Tstack.x");
}
