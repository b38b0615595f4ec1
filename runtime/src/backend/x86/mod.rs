//! Backends of x86-64 processors.

mod avx2;
mod avx512;
mod peak;

pub(super) use avx2::AVX2;
pub(super) use avx512::AVX512VNNI;
pub use peak::peak;

use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::table::has;

/// Returns whether the processor can run `x86-avx2`.
pub(super) fn has_avx2() -> bool {
    has!(is_x86_feature_detected, "avx2", "fma")
}

/// Returns whether the processor can run `x86-avx512vnni`.
pub(super) fn has_avx512vnni() -> bool {
    has!(is_x86_feature_detected, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni")
}

/// See [`super::Backend::prefetch`].
fn prefetch(q: &[i8]) {
    const LINE: usize = 64;
    for line in q.chunks(LINE) {
        // SAFETY: every x86-64 processor has SSE; a hint may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr()) };
    }
}
