//! A group of four inputs: its bytes as two pairs of 16 bits.

use core::arch::x86_64::*;

use crate::backend::table::{PANEL_INPUTS, PANEL_OUTPUTS};

/// Rows of the largest tile.
pub(super) const TILE_ROWS: usize = 4;
/// Bytes of a panel for one group of inputs.
pub(super) const GROUP: usize = PANEL_OUTPUTS * PANEL_INPUTS;

/// Returns the bytes 0 and 2 of each four as a pair of i16, and bytes 1 and 3.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn split(bytes: __m256i) -> [__m256i; 2] {
    [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes)), _mm256_srai_epi16::<8>(bytes)]
}

/// As [`split`], of one group.
pub(super) fn split_group(x: [u8; PANEL_INPUTS]) -> [i32; 2] {
    let [x0, x1, x2, x3] = x.map(|x| i32::from(x as i8));
    [x0 & 0xffff | x2 << 16, x1 & 0xffff | x3 << 16]
}
