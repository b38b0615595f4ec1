//! What a graph may be before tract sees it: operators, attributes, types, shapes and constants that export writes, and no more than the
//! model that the metadata describe needs.
//!
//! tract assumes well-formed graphs; others can take any amount of time, memory or stack.

use std::collections::HashSet;

use kinglet::bundle::Bundle;
use kinglet::spec::{Config, Mixer, graph, operator};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

use crate::precision::Precision;
use crate::structure;

/// Operator set of ONNX that export writes: the first with `LayerNormalization`.
pub const OPSET: i64 = 17;

/// The operators of exported graphs.
const OPERATORS: [&str; 29] = [
    "Abs",
    "Add",
    "Cast",
    "Conv",
    "Div",
    "Gather",
    "LayerNormalization",
    "MatMul",
    "MatMulInteger",
    "Max",
    "Min",
    "Mul",
    "Pad",
    "Range",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Round",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Sqrt",
    "Sub",
    "Transpose",
    "Unsqueeze",
];
/// Those that make values of nothing but a length, which attention alone needs.
const OF_ATTENTION: [&str; 2] = ["Range", "Shape"];
/// Those that look n-grams up, which a model without them does not need.
const OF_NGRAMS: [&str; 3] = ["Concat", "Equal", "Where"];
/// Their attributes.
const ATTRIBUTES: [&str; 11] =
    ["axes", "axis", "dilations", "epsilon", "group", "keepdims", "kernel_shape", "pads", "perm", "strides", "to"];
/// Largest integer in an attribute, and of an integer constant apart from the end of everything.
const LARGEST: i64 = (1 << 20) + 1;

/// Returns the most nodes of a graph of a model: dynamic convolutions have four for each tap.
fn most_nodes(config: &Config) -> usize {
    let layer = |layer| 128 + 4 * config.convolution(layer).map_or(0, |convolution| convolution.taps);
    let ngrams = if config.ngrams > 0 { 64 } else { 0 };
    128 + ngrams + (0..config.num_hidden_layers).map(layer).sum::<usize>()
}

/// Checks everything that can be checked without running it; returns name and bytes of each tensor.
pub(crate) fn check(model: &ModelProto, config: &Config, precision: Precision) -> Result<Vec<(String, usize)>, String> {
    let plain = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let sets: Vec<i64> = model.opset_import.iter().filter(|set| plain(&set.domain)).map(|set| set.version).collect();
    if sets != [OPSET] {
        return Err(format!("it is of the operator sets {sets:?}, not {:?}", [OPSET]));
    }
    let graph = model.graph.as_ref().ok_or("there is none")?;
    let (nodes, most) = (graph.node.len(), most_nodes(config));
    if nodes > most {
        return Err(format!("it has {nodes} nodes, a model of its configuration at most {most}"));
    }
    let tensors = check_graph(graph, config)?;
    if graph.node.iter().all(|node| node.domain != operator::DOMAIN) {
        structure::check(graph, config, precision)?;
    }
    Ok(tensors)
}

/// Checks that a declared input or output is a tensor of `kind` and shape.
fn check_value(value: &ValueInfoProto, kind: DataType, shape: &[Value; 2]) -> Result<(), String> {
    let tensor = value.r#type.as_ref().and_then(|found| match &found.value {
        Some(type_proto::Value::TensorType(tensor)) => Some(tensor),
        _ => None,
    });
    let fits = tensor.is_some_and(|tensor| {
        let dims = tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| dim.value.as_ref());
        tensor.elem_type == kind as i32 && dims.eq(shape.iter().map(Some))
    });
    if fits { Ok(()) } else { Err(format!("`{}` is not declared as {kind:?} of shape {shape:?}", value.name)) }
}

/// Checks operator and attributes of a node of ONNX.
fn check_node(node: &NodeProto, config: &Config) -> Result<(), String> {
    let (name, kind) = (&node.name, node.op_type.as_str());
    let attends = config.mixer.kind() == Mixer::Attention;
    let looks_up = config.ngrams > 0 && OF_NGRAMS.contains(&kind);
    if !(OPERATORS.contains(&kind) || looks_up) || (!attends && OF_ATTENTION.contains(&kind)) {
        return Err(format!("node `{name}` is of the operator `{kind}`"));
    }
    let known = |attribute: &AttributeProto| {
        let numbers = attribute.ints.iter().chain([&attribute.i]);
        ATTRIBUTES.contains(&attribute.name.as_str()) && numbers.into_iter().all(|i| (-LARGEST..=LARGEST).contains(i))
    };
    match node.attribute.iter().find(|attribute| !known(attribute)) {
        Some(attribute) => {
            Err(format!("node `{name}` has the attribute `{}` with a value that export does not write", attribute.name))
        }
        None => Ok(()),
    }
}

/// Checks names, edges and tensor sizes; returns name and bytes of each tensor.
fn check_graph(graph: &GraphProto, config: &Config) -> Result<Vec<(String, usize)>, String> {
    let inputs: Vec<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    if inputs != [graph::INPUT_IDS, graph::ATTENTION_MASK] {
        return Err(format!("its inputs are {inputs:?}, not {:?}", [graph::INPUT_IDS, graph::ATTENTION_MASK]));
    }
    let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
    let output = config.task.output();
    if outputs != [output] {
        return Err(format!("its outputs are {outputs:?}, not {:?}", [output]));
    }
    let symbol = |name: &str| Value::DimParam(name.to_string());
    for input in &graph.input {
        check_value(input, DataType::Int64, &[symbol("B"), symbol("T")])?;
    }
    for output in &graph.output {
        check_value(output, DataType::Float, &[symbol("B"), Value::DimValue(config.num_labels as i64)])?;
    }
    // What depends on the text; the rest is stored.
    let mut computed: HashSet<&str> = inputs.iter().copied().collect();
    let mut known: HashSet<&str> = inputs.into_iter().collect();
    let mut tensors = Vec::with_capacity(graph.initializer.len());
    for tensor in &graph.initializer {
        if !known.insert(&tensor.name) {
            return Err(format!("tensor `{}` is there twice", tensor.name));
        }
        tensors.push((tensor.name.clone(), check_tensor(tensor)?));
    }
    for node in &graph.node {
        let ours = node.domain == operator::DOMAIN;
        if ours {
            tensors.push((operator::BUNDLE.to_string(), check_classifier(node, config)?));
        } else if !node.domain.is_empty() && node.domain != "ai.onnx" {
            return Err(format!("node `{}` is of the domain `{}`", node.name, node.domain));
        }
        if !ours {
            check_node(node, config)?;
        }
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            if !known.contains(input.as_str()) {
                return Err(format!("node `{}` reads `{input}`, which nothing before it gives", node.name));
            }
        }
        // Products of stored tensors could be of any size.
        let dynamic = |input: &String| computed.contains(input.as_str());
        let products = node.op_type.starts_with("MatMul") && config.mixer.kind() != Mixer::Attention;
        if !node.input.iter().any(dynamic) || (products && node.input.get(1).is_none_or(dynamic)) {
            return Err(format!("node `{}` computes nothing of the text, or a product of two things of it", node.name));
        }
        for attribute in node.attribute.iter().filter(|_| !ours) {
            let tensor = attribute.t.is_some() || !attribute.tensors.is_empty() || attribute.sparse_tensor.is_some();
            if tensor || attribute.g.is_some() || !attribute.graphs.is_empty() {
                return Err(format!("node `{}` has a tensor or a graph as attribute `{}`", node.name, attribute.name));
            }
        }
        if node.output.is_empty() {
            return Err(format!("node `{}` gives nothing", node.name));
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if !known.insert(output) {
                return Err(format!("`{output}` is given twice"));
            }
            computed.insert(output);
        }
    }
    if known.contains(output) { Ok(tensors) } else { Err(format!("nothing gives `{output}`")) }
}

/// Returns the size of the bundle in a node of Kinglet's operator, if it belongs to the model in the metadata. The
/// bundle itself is checked when the operator is created.
fn check_classifier(node: &NodeProto, config: &Config) -> Result<usize, String> {
    let bundle = match node.attribute.as_slice() {
        [attribute] if node.op_type == operator::CLASSIFIER && attribute.name == operator::BUNDLE => {
            attribute.t.as_ref()
        }
        _ => None,
    };
    let bundle = bundle.ok_or_else(|| format!("node `{}` is no `{}`", node.name, operator::CLASSIFIER))?;
    let bytes = check_tensor(bundle)?;
    match Bundle::peek_config(&bundle.raw_data) {
        Some(found) if found == *config => Ok(bytes),
        _ => Err(format!("the bundle in node `{}` is not of the model that the metadata describe", node.name)),
    }
}

/// Returns the bytes of a tensor, if its shape, type and data agree.
fn check_tensor(tensor: &TensorProto) -> Result<usize, String> {
    let width = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float | DataType::Int32) => 4,
        Ok(DataType::Int64) => 8,
        Ok(DataType::Int8 | DataType::Uint8 | DataType::Bool) => 1,
        _ => return Err(format!("tensor `{}` has the unknown type {}", tensor.name, tensor.data_type)),
    };
    let need = tensor.dims.iter().try_fold(width, |n: usize, &d| n.checked_mul(usize::try_from(d).ok()?));
    let external = !tensor.external_data.is_empty() || tensor.data_location.is_some_and(|place| place != 0);
    if external || need != Some(tensor.raw_data.len()) {
        return Err(format!("tensor `{}` of shape {:?} has {} bytes", tensor.name, tensor.dims, tensor.raw_data.len()));
    }
    if tensor.dims.len() > 4 {
        return Err(format!("tensor `{}` has {} dimensions", tensor.name, tensor.dims.len()));
    }
    // Axes, shapes, bounds of slices.
    let far = |number: i64| number != i64::MAX && !(-LARGEST..=LARGEST).contains(&number);
    let number = |bytes: &[u8; 8]| i64::from_le_bytes(*bytes);
    if tensor.data_type == DataType::Int64 as i32 && tensor.raw_data.as_chunks().0.iter().map(number).any(far) {
        return Err(format!("tensor `{}` has a number that export does not write", tensor.name));
    }
    Ok(tensor.raw_data.len())
}
