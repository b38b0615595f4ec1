//! Tells the linker where libtorch lies, so that the program, its tests and doctests find it at run time, and notes the
//! compiler for the run folder's environment file.
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if let Ok(dir) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
        // libtorch_cpu is found by the dynamic linker through libtorch; keep both although few symbols are named.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    }
    let version = std::env::var_os("RUSTC")
        .and_then(|rustc| Command::new(rustc).arg("--version").output().ok())
        .and_then(|out| String::from_utf8(out.stdout).ok());
    println!("cargo:rustc-env=KINGLET_RUSTC={}", version.as_deref().unwrap_or("unknown").trim());
}
