//! The backend of WebAssembly with 128-bit vectors, `wasm-simd128`: for browsers and other engines that support them.
//!
//! A running module cannot query its engine, which accepts a module with SIMD or rejects all of it. This backend
//! therefore exists only if the compiler was given `simd128`, and a page for every engine comes with two modules.

mod lanes;
mod matmul;

super::simd::backend!(SIMD128, "wasm-simd128", "simd128", matmul::matmul);
