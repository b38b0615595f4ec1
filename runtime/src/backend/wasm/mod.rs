//! The backend of WebAssembly with vectors of 128 bits, `wasm-simd128`: in browsers, and in any other engine that has them.
//!
//! An engine cannot be asked while a module runs: it takes a module with vectors or refuses all of it. So this backend exists
//! where the compiler was told of `simd128`, and a page that is for every engine comes with two modules.
//!
//! The f32 operations are the IEEE 754 ones on each lane, subnormal numbers included; of relaxed SIMD, whose results differ
//! from one processor to the next, nothing is used. A loop takes 16 or 4 elements at a time; what is left of a row is done as
//! [`scalar`](super::scalar) does it, and so is, whole, what does not fit together in size.

mod convolve;
mod lanes;
mod matmul;
mod rows;

use super::Backend;

/// The table of this backend.
pub(super) const KERNELS: Backend = Backend {
    name: "wasm-simd128",
    flip: 0,
    quantize: rows::quantize,
    matmul: matmul::matmul,
    glu: rows::glu,
    softmax: rows::softmax,
    convolve_shared: convolve::shared,
    convolve_channels: convolve::channels,
    layer_norm: rows::layer_norm,
    rms_norm: rows::rms_norm,
    add: rows::add,
    dequantize: rows::dequantize,
    // There is no instruction for it.
    prefetch: |_| {},
    pool_mean: rows::pool_mean,
    pool_max: rows::pool_max,
};
