//! All operations except `matmul`, written once over vectors of 16 lanes.
//!
//! The lanes are the virtual lanes of [`crate::backend`], so sums have its order. A backend provides them in its module
//! `lanes`: one register of AVX-512, two of AVX2, four of NEON and WebAssembly. Such a module defines the names of
//! `aarch64/lanes.rs`; `docs/adding-a-backend.md` explains them.
//!
//! These are macros because the target features of a function must be a literal.

mod convolve;
mod elements;
mod exp;
mod lanes;
mod norm;
mod quantize;

/// Defines `$table`, the table of a backend, and its operations, compiled for the target features `$features`.
///
/// Use it next to the modules `lanes` and that of `$matmul`. Only [`super::Backend::all`] hands the table out, to
/// processors with the features.
macro_rules! backend {
    ($table:ident, $name:literal, $features:literal, $matmul:path) => {
        mod convolve {
            crate::backend::simd::convolve!($features);
        }
        mod elements {
            crate::backend::simd::elements!($features);
        }
        mod exp {
            crate::backend::simd::exp!($features);
        }
        mod norm {
            crate::backend::simd::norm!($features);
        }
        mod quantize {
            crate::backend::simd::quantize!($features);
        }

        #[doc = concat!("`", $name, "`, for processors with ", $features, ".")]
        #[allow(unused_unsafe)] // on wasm32 alone any function may call one with target features
        pub(in crate::backend) const $table: crate::backend::table::Backend = crate::backend::table::Backend {
            name: $name,
            flip: lanes::FLIP,
            // SAFETY: the table is handed out only where the features are.
            quantize: |x, columns, x_stride, q, q_stride, scales| unsafe {
                quantize::quantize(x, columns, x_stride, q, q_stride, scales)
            },
            // SAFETY: as above.
            matmul: |product| unsafe { $matmul(product) },
            // SAFETY: as above.
            glu: |value, gate| unsafe { exp::glu(value, gate) },
            // SAFETY: as above.
            softmax: |x, width| unsafe { exp::softmax(x, width) },
            // SAFETY: as above.
            convolve_shared: |x, window, taps, taps_stride, heads, out| unsafe {
                convolve::convolve_shared(x, window, taps, taps_stride, heads, out)
            },
            // SAFETY: as above.
            convolve_channels: |x, window, taps, out| unsafe { convolve::convolve_channels(x, window, taps, out) },
            // SAFETY: as above.
            layer_norm: |x, gain, shift, out| unsafe { norm::layer_norm(x, gain, shift, out) },
            // SAFETY: as above.
            rms_norm: |x, gain, out| unsafe { norm::rms_norm(x, gain, out) },
            // SAFETY: as above.
            add: |a, b| unsafe { elements::add_to(a, b) },
            // SAFETY: as above.
            dequantize: |q, scale, out| unsafe { elements::dequantize(q, scale, out) },
            prefetch: lanes::prefetch,
            // SAFETY: as above.
            pool_mean: |x, sums| unsafe { elements::pool_mean(x, sums) },
            // SAFETY: as above.
            pool_max: |x, most| unsafe { elements::pool_max(x, most) },
        };
    };
}

pub(super) use lanes::{lanewise, parts, primitives, whole};
pub(super) use {backend, convolve::convolve, elements::elements, exp::exp, norm::norm, quantize::quantize};
