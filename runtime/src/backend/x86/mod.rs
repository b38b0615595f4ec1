//! Backends of x86-64 processors.

mod avx2;
mod avx512;
mod peak;

pub use peak::peak;

use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::Backend;

/// Whether the processor has the features: asked when running with `std`, else what the compiler was told.
macro_rules! has {
    ($($feature:tt),+) => {{
        #[cfg(feature = "std")]
        let found = $(std::arch::is_x86_feature_detected!($feature))&&+;
        #[cfg(not(feature = "std"))]
        let found = $(cfg!(target_feature = $feature))&&+;
        found
    }};
}

/// The backends that this processor can run, the fastest last.
pub(super) fn backends() -> impl Iterator<Item = Backend> {
    let avx2 = has!("avx2", "fma");
    [avx2.then_some(AVX2), has_avx512vnni().then_some(AVX512VNNI)].into_iter().flatten()
}

/// Whether the processor has what `x86-avx512vnni` needs.
fn has_avx512vnni() -> bool {
    has!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")
}

/// The table of a backend. Only [`backends`] hands it out, to processors with the features of the module `$backend`.
macro_rules! table {
    ($name:literal, $backend:ident) => {
        // SAFETY, of each call: the table exists only where the features were found.
        Backend {
            name: $name,
            flip: $backend::FLIP,
            // SAFETY: as above.
            quantize: |x, columns, x_stride, q, q_stride, scales| unsafe {
                $backend::quantize(x, columns, x_stride, q, q_stride, scales)
            },
            // SAFETY: as above.
            matmul: |q, q_stride, scales, w, activation, out, out_stride| unsafe {
                $backend::matmul(q, q_stride, scales, w, activation, out, out_stride)
            },
            // SAFETY: as above.
            glu: |value, gate| unsafe { $backend::glu(value, gate) },
            // SAFETY: as above.
            softmax: |x, width| unsafe { $backend::softmax(x, width) },
            // SAFETY: as above.
            convolve_shared: |x, window, taps, taps_stride, heads, out| unsafe {
                $backend::convolve_shared(x, window, taps, taps_stride, heads, out)
            },
            // SAFETY: as above.
            convolve_channels: |x, window, taps, out| unsafe { $backend::convolve_channels(x, window, taps, out) },
            // SAFETY: as above.
            layer_norm: |x, gain, shift, out| unsafe { $backend::layer_norm(x, gain, shift, out) },
            // SAFETY: as above.
            rms_norm: |x, gain, out| unsafe { $backend::rms_norm(x, gain, out) },
            // SAFETY: as above.
            add: |a, b| unsafe { $backend::add_to(a, b) },
            // SAFETY: as above.
            dequantize: |q, scale, out| unsafe { $backend::dequantize(q, scale, out) },
            prefetch,
            // SAFETY: as above.
            pool_mean: |x, sums| unsafe { $backend::pool_mean(x, sums) },
            // SAFETY: as above.
            pool_max: |x, most| unsafe { $backend::pool_max(x, most) },
        }
    };
}

const AVX2: Backend = table!("x86-avx2", avx2);
const AVX512VNNI: Backend = table!("x86-avx512vnni", avx512);

/// See [`Backend::prefetch`].
fn prefetch(q: &[i8]) {
    const LINE: usize = 64;
    for line in q.chunks(LINE) {
        // SAFETY: every x86-64 processor has SSE; a hint may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr()) };
    }
}

/// Rows of `width` elements, `stride` apart, in a slice of `len`.
fn fitting(len: usize, width: usize, stride: usize) -> usize {
    if len < width { 0 } else { (len - width).checked_div(stride).map_or(1, |n| n + 1) }
}
