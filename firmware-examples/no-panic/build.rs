//! A no_std program is linked without default libraries; the entry point and `memcpy` are in the C library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-lib=c");
}
