//! Backends of 64-bit Arm processors: `aarch64-neon` for all of them (Armv8.0 on), `aarch64-dotprod` for those with the
//! instruction `sdot` (most since Armv8.2).
//!
//! NEON's f32 operations are the IEEE 754 ones on each lane, subnormal numbers included. Multiplications and additions are
//! written apart (`vmulq`, `vaddq`) and the compiler does not join them. A loop takes 16 or 4 elements at a time; what is
//! left of a row is done as [`scalar`](super::scalar) does it, and so is, whole, what does not fit together in size.

mod convolve;
mod lanes;
mod matmul;
mod rows;

use super::Backend;

/// The backends that this processor can run, the fastest last.
pub(super) fn backends() -> impl Iterator<Item = Backend> {
    #[cfg(feature = "std")]
    let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(not(feature = "std"))]
    let dotprod = cfg!(target_feature = "dotprod");
    [Some(NEON), dotprod.then_some(DOTPROD)].into_iter().flatten()
}

/// NEON belongs to the target: this module exists only where the compiler counts on it.
const NEON: Backend = Backend {
    name: "aarch64-neon",
    flip: 0,
    // SAFETY: the target has the feature `neon`, the only thing that the functions ask for.
    quantize: |x, columns, x_stride, q, q_stride, scales| unsafe {
        rows::quantize(x, columns, x_stride, q, q_stride, scales)
    },
    // SAFETY: as above.
    matmul: |q, q_stride, scales, w, activation, out, out_stride| unsafe {
        matmul::neon(q, q_stride, scales, w, activation, out, out_stride)
    },
    // SAFETY: as above.
    glu: |value, gate| unsafe { rows::glu(value, gate) },
    // SAFETY: as above.
    softmax: |x, width| unsafe { rows::softmax(x, width) },
    // SAFETY: as above.
    convolve_shared: |x, window, taps, taps_stride, heads, out| unsafe {
        convolve::shared(x, window, taps, taps_stride, heads, out)
    },
    // SAFETY: as above.
    convolve_channels: |x, window, taps, out| unsafe { convolve::channels(x, window, taps, out) },
    // SAFETY: as above.
    layer_norm: |x, gain, shift, out| unsafe { rows::layer_norm(x, gain, shift, out) },
    // SAFETY: as above.
    rms_norm: |x, gain, out| unsafe { rows::rms_norm(x, gain, out) },
    // SAFETY: as above.
    add: |a, b| unsafe { rows::add(a, b) },
    // SAFETY: as above.
    dequantize: |q, scale, out| unsafe { rows::dequantize(q, scale, out) },
    prefetch: rows::prefetch,
    // SAFETY: as above.
    pool_mean: |x, sums| unsafe { rows::pool_mean(x, sums) },
    // SAFETY: as above.
    pool_max: |x, most| unsafe { rows::pool_max(x, most) },
};

/// Only [`backends`] hands it out, to processors with `sdot`.
const DOTPROD: Backend = Backend {
    name: "aarch64-dotprod",
    // SAFETY: the table exists only where the feature `dotprod` was found.
    matmul: |q, q_stride, scales, w, activation, out, out_stride| unsafe {
        matmul::dotprod(q, q_stride, scales, w, activation, out, out_stride)
    },
    ..NEON
};
