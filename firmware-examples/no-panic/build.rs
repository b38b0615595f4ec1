//! A no_std program is linked without default libraries; the entry point and `memcpy` are in the C library. Without an
//! operating system, the compiler's own library has `memcpy`, and the program begins at `main`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        println!("cargo::rustc-link-arg-bins=--entry=main");
    } else {
        println!("cargo::rustc-link-lib=c");
    }
}
