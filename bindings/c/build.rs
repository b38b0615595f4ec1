//! Names the shared library for the loader: programs are linked to the ABI version, not to a file.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    match os.as_str() {
        "linux" | "freebsd" | "netbsd" | "openbsd" => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkinglet.so.1")
        }
        // Android's loader goes by the name of the file.
        "android" => println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libkinglet.so"),
        "macos" => println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libkinglet.dylib"),
        _ => {}
    }
}
