//! Backends of 64-bit Arm processors: `aarch64-neon` for all of them (Armv8.0 on), `aarch64-dotprod` for those with the
//! instruction `sdot` (most since Armv8.2).

mod lanes;
mod matmul;

use super::table::{Backend, has};

// NEON is part of the target: this module exists only if the compiler assumes it.
super::simd::backend!(NEON, "aarch64-neon", "neon", matmul::neon);

/// Returns whether the processor can run `aarch64-dotprod`.
pub(super) fn has_dotprod() -> bool {
    has!(is_aarch64_feature_detected, "dotprod")
}

/// `aarch64-dotprod`, for processors with `sdot`.
pub(super) const DOTPROD: Backend = Backend {
    name: "aarch64-dotprod",
    // SAFETY: the table is handed out only where the feature `dotprod` was found.
    matmul: |product| unsafe { matmul::dotprod(product) },
    ..NEON
};
