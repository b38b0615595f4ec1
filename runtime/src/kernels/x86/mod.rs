//! Backends of x86-64 processors.

mod avx512;

use super::{Kernels, scalar};

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
pub(super) fn backends() -> impl Iterator<Item = Kernels> {
    let avx512vnni = has!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni");
    [avx512vnni.then_some(AVX512VNNI)].into_iter().flatten()
}

/// Only [`backends`] hands it out, to processors with these features.
const AVX512VNNI: Kernels = Kernels {
    name: "x86-avx512vnni",
    flip: 0x80,
    // SAFETY: the table exists only where the features were found.
    quantise: |x, columns, q, q_stride, scales| unsafe { avx512::quantise(x, columns, q, q_stride, scales) },
    // SAFETY: the table exists only where the features were found.
    matmul: |q, q_stride, scales, w, activation, out, out_stride| unsafe {
        avx512::matmul(q, q_stride, scales, w, activation, out, out_stride)
    },
    ..scalar::KERNELS
};
