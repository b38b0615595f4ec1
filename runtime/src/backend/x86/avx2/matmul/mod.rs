//! Products of quantized rows with a matrix, on int8 widened to i16: `madd` multiplies and adds pairs, and its sums of
//! two products cannot overflow, unlike those of `maddubs`.
//!
//! Of the four inputs of a group, the even ones (0 and 2) form one pair and the odd ones the other, because each is
//! only two shifts away from the stored bytes.

mod few;
mod group;
mod many;

use crate::backend::table::Product;

/// See [`crate::backend::Backend::matmul`].
#[target_feature(enable = "avx2,fma")]
pub(in crate::backend) fn matmul(mut product: Product<'_>) {
    let rows = product.scales.len();
    let mut row = 0;
    while row < rows {
        let height = (rows - row).min(many::ROWS);
        if height < many::LEAST_ROWS {
            few::matmul(product.rows(row, height));
        } else {
            many::matmul(product.rows(row, height));
        }
        row += height;
    }
}
