//! The build script of every board: its memory.x, the linker script of its runtime crate and the room for the stack.

use std::env;

fn main() {
    let board = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rerun-if-changed=../firmware/stack.x");
    println!("cargo::rustc-link-search={board}");
    println!("cargo::rustc-link-search={board}/../firmware");
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=-Tstack.x");
}
