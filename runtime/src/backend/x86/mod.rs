//! Backends of x86-64 processors.

mod avx2;
mod avx512;
mod peak;

pub(super) use avx2::AVX2;
pub(super) use avx512::AVX512VNNI;
pub use peak::peak;

use core::arch::x86_64::*;

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

/// Returns the largest lane of each of four vectors.
#[inline]
fn largest(v: [__m128; 4]) -> [f32; 4] {
    // SAFETY: every x86-64 processor has SSE; writes the four elements.
    unsafe {
        // Each becomes one lane.
        let ab = _mm_max_ps(_mm_unpacklo_ps(v[0], v[1]), _mm_unpackhi_ps(v[0], v[1]));
        let cd = _mm_max_ps(_mm_unpacklo_ps(v[2], v[3]), _mm_unpackhi_ps(v[2], v[3]));
        let mut largest = [0.0; 4];
        _mm_storeu_ps(largest.as_mut_ptr(), _mm_max_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab)));
        largest
    }
}

/// Returns the correctly rounded square root.
#[inline]
fn sqrt(x: f32) -> f32 {
    // SAFETY: every x86-64 processor has SSE.
    unsafe { _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))) }
}
