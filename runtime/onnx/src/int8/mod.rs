//! int8 layers of the standard ONNX file on the kernels of the native engine.
//!
//! An exported int8 file spells a layer out in a dozen operators: the scale of each token, its integers, their product with the
//! matrix, the scales again. tract runs them one by one. [`fuse`] finds these chains and puts one operator in place of each, computed
//! by [`kinglet::backend`]; [`load`] does so for any pipeline. Sums of integers are exact and the operations on f32 are those of
//! the file, in its order.

mod conv;
mod linear;
mod lookup;
mod rewrite;

use tract_onnx::model::Onnx;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto};
use tract_onnx::tract_hir::internal::*;

pub use rewrite::fuse;

use crate::operator::register;

/// Type of the operator of one or several matrix products of the same tokens. tract tells operators apart by their type alone.
const LINEAR: &str = "KingletLinear";
/// Type of the operator that reads rows of an embedding.
const LOOKUP: &str = "KingletLookup";
/// Type of the operator that convolves tokens.
const CONV: &str = "KingletConv";
/// Attributes of [`CONV`]: zeros before and behind a text; tokens from one tap to the next.
const PADS: &str = "pads";
const DILATION: &str = "dilation";
/// Attribute of [`LINEAR`]: for each product, whether negative results become 0.
const RELU: &str = "relu";

/// Loads an ONNX model into tract with Kinglet's kernels in place of the int8 layers that `kinglet-export` writes.
///
/// As [`Onnx::model_for_proto_model`], after [`register`] and [`fuse`]. Everything else of the model is tract's, and a model
/// without such layers is loaded unchanged. tract's traits must be those of the same version,
/// [`TRACT_VERSION`](crate::TRACT_VERSION); [`tract_onnx`](crate::tract_onnx) is it.
///
/// # Errors
/// As tract's.
///
/// ```no_run
/// use kinglet_onnx::tract_onnx::{self, prelude::*};
///
/// let mut onnx = tract_onnx::onnx();
/// let file = onnx.proto_model_for_path("model.int8.onnx")?;
/// let plan = kinglet_onnx::load(&mut onnx, file)?.into_optimized()?.into_runnable()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load(onnx: &mut Onnx, mut model: ModelProto) -> TractResult<InferenceModel> {
    register(onnx);
    fuse(&mut model);
    onnx.model_for_proto_model(&model)
}

/// Registers the operators that [`fuse`] writes.
pub(crate) fn register_layers(onnx: &mut Onnx) {
    onnx.op_register.insert(LINEAR, linear::parse);
    onnx.op_register.insert(LOOKUP, lookup::parse);
    onnx.op_register.insert(CONV, conv::parse);
}

/// Returns the attribute of a node.
fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// Returns the constant that arrives at an input.
fn constant(model: &TypedModel, input: OutletId) -> TractResult<Arc<Tensor>> {
    model.outlet_fact(input)?.konst.clone().context("a weight is not a constant")
}
