//! Products of a few rows: weights are widened as they are read. A tile is up to four rows by one panel; its rows are
//! widened once for all panels.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

use super::group::{GROUP, TILE_ROWS, split, split_group};
use crate::backend::table::{Activation, PANEL_INPUTS, PANEL_OUTPUTS, Product};

/// Groups of inputs that are widened at a time.
const BLOCK: usize = 256;

/// One block of the rows of a tile: by row, even and odd pairs of i16, one pair per group.
type Widened = [[[MaybeUninit<i32>; BLOCK]; 2]; TILE_ROWS];

/// [`super::matmul`] of a few rows.
#[target_feature(enable = "avx2,fma")]
pub(super) fn matmul(mut product: Product<'_>) {
    let mut widened: Widened = [[[MaybeUninit::uninit(); BLOCK]; 2]; TILE_ROWS];
    let rows = product.scales.len();
    for row in (0..rows).step_by(TILE_ROWS) {
        match rows - row {
            1 => tile::<1>(product.rows(row, 1), &mut widened),
            2 => tile::<2>(product.rows(row, 2), &mut widened),
            3 => tile::<3>(product.rows(row, 3), &mut widened),
            _ => tile::<TILE_ROWS>(product.rows(row, TILE_ROWS), &mut widened),
        }
    }
}

/// Multiplies `R` rows by all panels.
#[target_feature(enable = "avx2,fma")]
fn tile<const R: usize>(product: Product<'_>, widened: &mut Widened) {
    let Product { q, q_stride, scales, w, activation, out, out_stride } = product;
    let groups = w.padded_inputs() / PANEL_INPUTS;
    let mut done = 0;
    for (panel, (values, channel)) in w.panels().enumerate() {
        let first = panel * PANEL_OUTPUTS;
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        for (block, values) in values.chunks(BLOCK * GROUP).enumerate() {
            let from = block * BLOCK;
            if panel == 0 || groups > BLOCK {
                done = BLOCK.min(groups - from);
                for (r, widened) in widened.iter_mut().enumerate().take(R) {
                    let row = q.get(r * q_stride + from * PANEL_INPUTS..).unwrap_or_default();
                    widen(row.get(..done * PANEL_INPUTS).unwrap_or_default(), widened);
                }
            }
            if values.len() > done * GROUP {
                return;
            }
            sums = add_products(sums, values, widened);
        }
        let mut products = [[0.0f32; PANEL_OUTPUTS]; R];
        for ((sums, &scale), products) in sums.iter().zip(scales).zip(&mut products) {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: `channel` and `products` have 16 elements.
                unsafe {
                    let channel = _mm256_loadu_ps(channel.as_ptr().add(8 * half));
                    let y = _mm256_mul_ps(_mm256_cvtepi32_ps(*sum), _mm256_set1_ps(scale));
                    let mut y = _mm256_mul_ps(y, channel);
                    if activation == Activation::Relu {
                        // y > 0 ? y : 0, also for −0 and NaN.
                        y = _mm256_max_ps(y, _mm256_setzero_ps());
                    }
                    _mm256_storeu_ps(products.as_mut_ptr().add(8 * half), y);
                }
            }
        }
        for (products, out) in products.iter().zip(out.chunks_mut(out_stride.max(1))) {
            let out = out.get_mut(first..w.outputs.min(first + PANEL_OUTPUTS)).unwrap_or_default();
            match out.first_chunk_mut::<PANEL_OUTPUTS>() {
                Some(out) => *out = *products,
                None => out.iter_mut().zip(products).for_each(|(out, &y)| *out = y),
            }
        }
    }
}

/// Splits a row's groups into even and odd pairs of i16. `row`: at most `4 · BLOCK` bytes, whole groups.
#[target_feature(enable = "avx2,fma")]
fn widen(row: &[u8], [even, odd]: &mut [[MaybeUninit<i32>; BLOCK]; 2]) {
    let (parts, rest) = row.as_chunks::<32>();
    let places = even.as_chunks_mut::<8>().0.iter_mut().zip(odd.as_chunks_mut::<8>().0);
    for (part, (even, odd)) in parts.iter().zip(places) {
        // SAFETY: reads 32 bytes, writes 8 pairs each of `even` and `odd`.
        unsafe {
            let [x_even, x_odd] = split(_mm256_loadu_si256(part.as_ptr().cast()));
            _mm256_storeu_si256(even.as_mut_ptr().cast(), x_even);
            _mm256_storeu_si256(odd.as_mut_ptr().cast(), x_odd);
        }
    }
    let places = even.iter_mut().zip(odd).skip(8 * parts.len());
    for (x, (even, odd)) in rest.as_chunks::<PANEL_INPUTS>().0.iter().zip(places) {
        let [x_even, x_odd] = split_group(*x);
        even.write(x_even);
        odd.write(x_odd);
    }
}

/// Adds the products of a block: `values` holds at most `BLOCK` groups, as many as were widened.
#[target_feature(enable = "avx2,fma")]
fn add_products<const R: usize>(mut sums: [[__m256i; 2]; R], values: &[i8], widened: &Widened) -> [[__m256i; 2]; R] {
    for (g, group) in values.as_chunks::<GROUP>().0.iter().enumerate().take(BLOCK) {
        let mut weights = [[_mm256_setzero_si256(); 2]; 2];
        for (half, pairs) in weights.iter_mut().enumerate() {
            // SAFETY: a group has 64 bytes.
            *pairs = split(unsafe { _mm256_loadu_si256(group.as_ptr().add(32 * half).cast()) });
        }
        for (sums, [even, odd]) in sums.iter_mut().zip(widened) {
            // SAFETY: `g` < BLOCK, and `tile` widened as many groups as it passes values of.
            let (even, odd) = unsafe { (even.get_unchecked(g).assume_init(), odd.get_unchecked(g).assume_init()) };
            let (even, odd) = (_mm256_set1_epi32(even), _mm256_set1_epi32(odd));
            for (sum, [w_even, w_odd]) in sums.iter_mut().zip(&weights) {
                let pair = _mm256_add_epi32(_mm256_madd_epi16(even, *w_even), _mm256_madd_epi16(odd, *w_odd));
                *sum = _mm256_add_epi32(*sum, pair);
            }
        }
    }
    sums
}
