//! Names of the operators and their attributes, and how constants are read.

use std::sync::Arc;

use tract_onnx::pb::{AttributeProto, NodeProto};
use tract_onnx::tract_hir::internal::*;

/// Type of the operator of one or several matrix products of the same tokens. tract tells operators apart by their type alone.
pub(super) const LINEAR: &str = "KingletLinear";
/// Type of the operator that reads rows of an embedding.
pub(super) const LOOKUP: &str = "KingletLookup";
/// Type of the operator that convolves tokens.
pub(super) const CONV: &str = "KingletConv";
/// Attributes of [`CONV`]: zeros before and behind a text; tokens from one tap to the next.
pub(super) const PADS: &str = "pads";
pub(super) const DILATION: &str = "dilation";
/// Attribute of [`LINEAR`]: for each product, whether negative results become 0.
pub(super) const RELU: &str = "relu";

/// Returns the attribute of a node.
pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// Returns the constant that arrives at an input.
pub(super) fn constant(model: &TypedModel, input: OutletId) -> TractResult<Arc<Tensor>> {
    model.outlet_fact(input)?.konst.clone().context("a weight is not a constant")
}
