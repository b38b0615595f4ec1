//! Compiles the shim to libtorch's C++ (`shim/`, declared in `src/ffi.rs`), tells the linker where libtorch lies, so that
//! the program, its tests and doctests find it at run time, and notes the compiler for the run folder's environment file.
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if let Ok(dir) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        shim(&dir);
        println!("cargo:rustc-link-arg=-Wl,-rpath,{dir}");
        // libtorch_cpu is found by the dynamic linker through libtorch; keep both although few symbols are named.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    }
    let version = std::env::var_os("RUSTC")
        .and_then(|rustc| Command::new(rustc).arg("--version").output().ok())
        .and_then(|out| String::from_utf8(out.stdout).ok());
    println!("cargo:rustc-env=KINGLET_RUSTC={}", version.as_deref().unwrap_or("unknown").trim());
}

/// Compiles `shim/*.cpp` against the headers beside libtorch's `lib` folder, with the ABI that torch-sys takes.
fn shim(lib: &str) {
    for variable in ["LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let root = match std::env::var_os("LIBTORCH_INCLUDE") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(lib).join(".."),
    };
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let include = root.join("include");
    let header = include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp");
    assert!(header.exists(), "{} is missing: run tools/x setup libtorch", header.display());
    let api = include.join("torch/csrc/api/include");
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .std("c++17")
        .define("NDEBUG", None)
        .define("USE_C10D_GLOO", None)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .include("shim")
        // As system headers, so that the compiler warns of ours alone.
        .flag("-isystem")
        .flag(include)
        .flag("-isystem")
        .flag(api)
        .files(
            [
                "border",
                "checkpoint",
                "dropout",
                "gradient",
                "linear",
                "memory",
                "nccl",
                "optimizer",
                "rms_norm",
                "world",
            ]
            .map(|name| format!("shim/{name}.cpp")),
        )
        .compile("kinglet_shim");
}
