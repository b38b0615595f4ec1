//! int8 layers of the standard ONNX file on the kernels of the native engine.
//!
//! An exported int8 file spells a layer out in a dozen operators: the scale of each token, its integers, their product with the
//! matrix, the scales again. tract runs them one by one. [`fuse`] finds these chains and puts one operator in place of each, computed
//! by [`kinglet::backend`]; [`load`](crate::load) does so for any pipeline. Sums of integers are exact and the operations on f32 are those of
//! the file, in its order.

mod conv;
mod linear;
mod lookup;
mod names;
mod rewrite;

use tract_onnx::model::Onnx;

pub use rewrite::fuse;

/// Registers the operators that [`fuse`] writes.
pub(crate) fn register_layers(onnx: &mut Onnx) {
    onnx.op_register.insert(names::LINEAR, linear::parse);
    onnx.op_register.insert(names::LOOKUP, lookup::parse);
    onnx.op_register.insert(names::CONV, conv::parse);
}
