//! Products of quantized rows with a matrix, on int8 widened to i16: `madd` multiplies and adds pairs, and its sums of
//! two products cannot overflow, unlike those of `maddubs`.
//!
//! Of the four inputs of a group, the even ones (0 and 2) form one pair and the odd ones the other, because each is
//! only two shifts away from the stored bytes.

mod few;
mod group;
mod many;

use crate::backend::table::{Activation, PANEL_INPUTS, PackedMatrix, fitting};

/// See [`crate::backend::Backend::matmul`].
#[target_feature(enable = "avx2,fma")]
pub(in crate::backend) fn matmul(
    q: &[u8],
    q_stride: usize,
    scales: &[f32],
    w: &PackedMatrix<'_>,
    activation: Activation,
    out: &mut [f32],
    out_stride: usize,
) {
    let inputs = w.inputs.next_multiple_of(PANEL_INPUTS);
    if inputs == 0 || w.outputs == 0 || q_stride < inputs || out_stride < w.outputs {
        return;
    }
    // Whole rows that fit into the slices.
    let rows = scales.len().min(fitting(q.len(), inputs, q_stride)).min(fitting(out.len(), w.outputs, out_stride));
    let mut row = 0;
    while row < rows {
        let height = (rows - row).min(many::ROWS);
        let (Some(q), Some(scales), Some(out)) =
            (q.get(row * q_stride..), scales.get(row..row + height), out.get_mut(row * out_stride..))
        else {
            return;
        };
        if height < many::LEAST_ROWS {
            few::matmul(q, q_stride, scales, w, activation, out, out_stride);
        } else {
            many::matmul(q, q_stride, scales, w, activation, out, out_stride);
        }
        row += height;
    }
}
