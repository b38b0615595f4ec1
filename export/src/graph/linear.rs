//! Matrix products: `y = x·Wᵀ` with `W`: `[out, in]`.
//!
//! int8 products follow the rules of [`kinglet::quant`]. Each token (the last axis of `x`) has its own scale, so that a text's
//! scores do not depend on the rest of the batch:
//!
//! ```text
//! s = max(max|x|, 1e-30) / 127;   q = round_half_even(x / s);   y[o] = (f32(Σ q[i]·r[i, o]) · s) · w[o]
//! ```
//!
//! The graph says both integers as `q + 128` in uint8, with a zero point of 128, and means the same numbers: onnxruntime multiplies uint8 by
//! uint8 exactly and faster than f32 on processors with VNNI and without, int8 by int8 several times slower
//! (`findings/onnxruntime-signed-int8-product.sh`), and uint8 by int8 exactly with VNNI alone.
//!
//! tract computes `x / s` as `x · (1/s)`, with one rounding more than onnxruntime and the formula: values within an ulp of
//! the middle between two integers can differ by one step.

use kinglet::quant::{MAX_QUANTIZED, MIN_MAGNITUDE, ZERO_POINT};
use kinglet::spec::Weight;
use kinglet_onnx::Precision;
use kinglet_onnx::onnx::tensor_proto::DataType;

use super::builder::{Attribute, GraphBuilder, Value};
use crate::prepare::Prepared;

/// The left operand of matrix products, quantized once for all of them.
pub(super) enum Operand {
    /// Unchanged.
    Fp32(Value),
    /// Integers and one scale per token, `[…, in]` and `[…, 1]`.
    Int8 {
        /// The integers plus [`ZERO_POINT`], uint8.
        q: Value,
        /// The scales.
        s: Value,
    },
}

impl Operand {
    /// Quantizes `x`, `[…, in]`, in int8 graphs.
    pub(super) fn new(g: &mut GraphBuilder, path: &str, x: &Value) -> Self {
        if g.precision() == Precision::Fp32 {
            return Operand::Fp32(x.clone());
        }
        // Part of every exported file's bytes, hence not `quantize`.
        let path = format!("{path}/quantise");
        let axes = [("axes", Attribute::Ints(vec![-1])), ("keepdims", Attribute::Int(1))];
        let magnitude = g.op("Abs", &path, &[x]);
        let magnitude = g.op_with("ReduceMax", &path, &[&magnitude], &axes);
        let min = g.scalar(MIN_MAGNITUDE);
        let magnitude = g.op("Max", &path, &[&magnitude, &min]);
        let max = g.scalar(MAX_QUANTIZED);
        let s = g.op("Div", &format!("{path}/scale"), &[&magnitude, &max]);
        let q = g.op("Div", &path, &[x, &s]);
        let q = g.op("Round", &path, &[&q]);
        let zero_point = g.scalar(f32::from(ZERO_POINT));
        let q = g.op("Add", &path, &[&q, &zero_point]);
        let q = g.cast(&path, &q, DataType::Uint8);
        Operand::Int8 { q, s }
    }
}

/// Multiplies `x`, `[…, in]`, by a matrix: `[…, out]`.
pub(super) fn linear(g: &mut GraphBuilder, model: &Prepared, weight: Weight, path: &str, x: &Operand) -> Value {
    let (out, inner) = model.matrix(weight);
    let name = weight.to_string();
    match x {
        Operand::Fp32(x) => {
            let w = g.store_f32(&name, &[inner, out], &transposed(model.float(weight), inner));
            g.op("MatMul", path, &[x, &w])
        }
        Operand::Int8 { q, s } => {
            let quantized = model.int8(weight);
            let values =
                transposed(&quantized.values, inner).into_iter().map(|w| w.wrapping_add_unsigned(ZERO_POINT) as u8);
            let w = g.store_u8(&name, &[inner, out], values.collect());
            let zero_point = g.byte(ZERO_POINT);
            let scales = g.store_f32(&format!("{name}.scale"), &[out], &quantized.scales);
            let y = g.op("MatMulInteger", path, &[q, &w, &zero_point, &zero_point]);
            let y = g.cast(path, &y, DataType::Float);
            let y = g.op("Mul", &format!("{path}/token_scale"), &[&y, s]);
            g.op("Mul", &format!("{path}/channel_scale"), &[&y, &scales])
        }
    }
}

/// Transposes `[rows, columns]` to `[columns, rows]`.
fn transposed<T: Copy>(data: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| data.iter().skip(column).step_by(columns).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::transposed;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], 3), [1, 4, 2, 5, 3, 6]);
    }
}
