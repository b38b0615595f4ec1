//! The backend of WebAssembly with vectors of 128 bits, `wasm-simd128`: in browsers, and in any other engine that has them.
//!
//! An engine cannot be asked while a module runs: it takes a module with vectors or refuses all of it. So this backend exists
//! where the compiler was told of `simd128`, and a page that is for every engine comes with two modules.

mod lanes;
mod matmul;

super::simd::backend!(SIMD128, "wasm-simd128", "simd128", matmul::matmul);
