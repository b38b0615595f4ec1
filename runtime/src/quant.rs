//! int8 quantization: the one rounding rule of the project.
//!
//! Symmetric, without a zero point. A row is the activation vector of one token, a row of the embedding or an output
//! channel of a matrix; each has its own scale:
//!
//! ```text
//! s = max(max|x|, 1e-30) / 127          f32 division
//! q = round_half_even(x / s)            f32 division; −127 ≤ q ≤ 127
//! x ≈ q · s
//! ```
//!
//! A product of a quantized activation (scale `s`) and a quantized channel (scale `w`) is `(f32(Σ q·r) · s) · w`, with
//! an exact i32 sum. These are the operations that `model.int8.onnx` spells out, so every engine computes the same
//! numbers.

/// Smallest magnitude used for a scale, so that a row of zeros has a scale and quantizes to zeros.
pub const MIN_MAGNITUDE: f32 = 1e-30;

/// Largest quantized magnitude. −128 is never produced, so that negation is exact.
pub const MAX_QUANTIZED: f32 = 127.0;

/// What is added to a quantized number where a file or a product wants it unsigned.
pub const ZERO_POINT: u8 = 128;

/// Rounds to the nearest integer, ties to even (IEEE 754 roundTiesToEven, ONNX `Round`).
///
/// Exact for every finite value; NaN and infinities are returned unchanged.
pub fn round_half_even(x: f32) -> f32 {
    // Every f32 of this magnitude or more is an integer. Adding and subtracting it rounds smaller values to the nearest
    // integer in the current mode, which Rust fixes to ties-to-even.
    const INTEGERS: f32 = 8_388_608.0;
    if x.is_nan() || x.abs() >= INTEGERS {
        return x;
    }
    let rounded = (x.abs() + INTEGERS) - INTEGERS;
    if x.is_sign_negative() { -rounded } else { rounded }
}

/// Returns the scale of a row, `max(max|x|, 1e-30) / 127`. Skips NaN elements, as `f32::max` does.
pub fn scale(row: &[f32]) -> f32 {
    row.iter().fold(MIN_MAGNITUDE, |m, x| m.max(x.abs())) / MAX_QUANTIZED
}

/// Quantizes a row and returns its scale. `x` and `out`: `[n]`; if one is longer, the rest of it is ignored.
///
/// Does not allocate. NaN becomes 0, and so do infinities, whose scale is infinite (`inf / inf` is NaN).
pub fn quantize(x: &[f32], out: &mut [i8]) -> f32 {
    let s = scale(x);
    for (q, &v) in out.iter_mut().zip(x) {
        // The cast saturates and maps NaN to 0; the quotient's magnitude is at most 127.00001, which rounds to 127.
        *q = round_half_even(v / s) as i8;
    }
    s
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let x = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 126.5, 8_388_607.5, 1e30, f32::INFINITY];
        let want = [0.0, 2.0, 2.0, 0.0, -2.0, -2.0, 0.0, 126.0, 8_388_608.0, 1e30, f32::INFINITY];
        assert_eq!(x.map(round_half_even), want);
        assert!(round_half_even(f32::NAN).is_nan());
    }

    #[test]
    fn a_row_of_zeros_quantizes_to_zeros() {
        let mut q = [1i8; 3];
        assert!(quantize(&[0.0, -0.0, 0.0], &mut q) > 0.0);
        assert_eq!(q, [0; 3]);
    }

    #[test]
    fn values_that_are_not_finite_never_panic() {
        let mut q = [1i8; 3];
        assert_eq!(quantize(&[f32::INFINITY, f32::NAN, 1.0], &mut q), f32::INFINITY);
        assert_eq!(q, [0, 0, 0]);
    }

    proptest! {
        #[test]
        fn rounding_equals_the_standard_library(x in any::<f32>()) {
            prop_assert_eq!(round_half_even(x).to_bits() << 1, x.round_ties_even().to_bits() << 1);
        }

        #[test]
        fn an_element_is_off_by_half_a_step_at_most(x in prop::collection::vec(-1e3f32..1e3, 1..50)) {
            let mut q = vec![0i8; x.len()];
            let s = quantize(&x, &mut q);
            prop_assert!(q.iter().any(|v| v.abs() == 127) || x.iter().all(|v| v.abs() < 1e-28));
            for (v, r) in x.iter().zip(&q) {
                prop_assert!((v - f32::from(*r) * s).abs() <= s * 0.5001);
            }
        }
    }
}
