//! Whether a graph is that of the configuration in its metadata, so that what is said about a model is so.
//!
//! Its stored tensors are the weights of the configuration, in their shapes and each read by the operator that it is for; its
//! operators are as many as the layers need; its convolutions have the taps, the offset and the dilation of their layer.

use std::collections::HashMap;

use kinglet::quant::ZERO_POINT;
use kinglet::spec::{Config, LayerWeight, Mixer, Norm, Pooling, Task, Weight, relative_reach};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use crate::precision::Precision;

/// How the names of tensors begin that are no weights: axes, shapes, numbers of formulas.
const CONSTANT: &str = "const/";
/// Most values of a constant.
const MOST_CONSTANT: i64 = 8;

/// Checks a graph of operators of ONNX.
pub(crate) fn check(graph: &GraphProto, config: &Config, precision: Precision) -> Result<(), String> {
    let tensors: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
    for node in &graph.node {
        for input in &node.input {
            readers.entry(input).or_default().push(node);
        }
    }
    let mut expected = 0;
    for weight in config.weights() {
        let name = weight.to_string();
        let int8 = precision == Precision::Int8 && config.row(weight).is_some_and(|row| row.storage.is_int8());
        let (rows, values) = size(config, weight);
        let kind = match tensors.get(name.as_str()) {
            // Matrices are uint8, in files of earlier versions int8; rows are int8.
            Some(tensor) if int8 && weight != Weight::Embedding && tensor.data_type == DataType::Uint8 as i32 => {
                check_zero_points(&name, &tensors, &readers)?;
                DataType::Uint8
            }
            _ if int8 => DataType::Int8,
            _ => DataType::Float,
        };
        check_weight(&name, kind, values, &tensors, &readers, operators(weight, int8))?;
        expected += 1;
        if int8 {
            check_weight(&format!("{name}.scale"), DataType::Float, rows, &tensors, &readers, &["Gather", "Mul"])?;
            expected += 1;
        }
    }
    if config.ngrams > 0 {
        expected += check_ngrams(config, precision, &tensors, &readers)?;
    }
    let stored = graph.initializer.iter().filter(|tensor| !is_constant(tensor)).count();
    if stored != expected {
        return Err(format!("it has {stored} stored tensors, a model of its configuration {expected}"));
    }
    check_counts(graph, config)?;
    (0..config.num_hidden_layers).try_for_each(|layer| check_convolution(config, layer, &readers))
}

fn is_constant(tensor: &TensorProto) -> bool {
    tensor.name.starts_with(CONSTANT) && tensor.dims.iter().product::<i64>() <= MOST_CONSTANT
}

/// Checks the tensors of the n-grams, and that no lookup among them leads out of one. Returns their number.
fn check_ngrams(
    config: &Config,
    precision: Precision,
    tensors: &HashMap<&str, &TensorProto>,
    readers: &HashMap<&str, Vec<&NodeProto>>,
) -> Result<usize, String> {
    let (vocab, labels, count) = (config.vocab_size, config.num_labels, config.ngrams);
    let int8 = precision == Precision::Int8;
    let slots = tensors.get("ngrams.owner").map_or(0, |tensor| tensor.raw_data.len() / 4);
    let kind = if int8 { DataType::Int8 } else { DataType::Float };
    let expected = [
        ("ngrams.offset", DataType::Int32, vocab + 2, "Gather"),
        ("ngrams.owner", DataType::Int32, slots, "Gather"),
        ("ngrams.row", DataType::Int32, slots, "Gather"),
        ("ngrams.norm", DataType::Float, count + 1, "Gather"),
        ("ngrams.weight", kind, (count + 1) * labels, "Gather"),
        ("ngrams.weight.scale", DataType::Float, labels, "Mul"),
    ];
    let expected = &expected[..if int8 { 6 } else { 5 }];
    for &(name, kind, values, reader) in expected {
        check_weight(name, kind, values, tensors, readers, &[reader])?;
    }
    for (name, most) in [("ngrams.offset", slots.checked_sub(vocab)), ("ngrams.row", count.checked_sub(1))] {
        let bytes = tensors.get(name).map_or(&[][..], |tensor| &tensor.raw_data);
        let outside = |value: &[u8; 4]| {
            let value = usize::try_from(i32::from_le_bytes(*value)).ok();
            value.is_none_or(|value| most.is_none_or(|most| value > most))
        };
        if bytes.as_chunks().0.iter().any(outside) {
            return Err(format!("tensor `{name}` leads out of the tables of the n-grams"));
        }
    }
    Ok(expected.len())
}

/// Returns the scales and the values of a weight as export stores it: light kernels once per channel, the bias of positions by distance.
fn size(config: &Config, weight: Weight) -> (usize, usize) {
    let shape = config.shape(weight);
    let (rows, values) =
        shape.as_ref().map_or((0, 0), |shape| (shape.dims().first().copied().unwrap_or(0), shape.len()));
    match weight {
        Weight::Layer(layer, LayerWeight::Kernel) => {
            let taps = config.convolution(usize::from(layer)).map_or(0, |convolution| convolution.taps);
            (config.hidden_size, config.hidden_size * taps)
        }
        Weight::Layer(_, LayerWeight::RelativeBias) => {
            let parameters = config.mixer.parameters();
            let heads = parameters.num_attention_heads;
            let (buckets, max) =
                (parameters.relative_attention_num_buckets, parameters.relative_attention_max_distance);
            (heads, heads * (2 * relative_reach(buckets, max) + 1))
        }
        _ => (rows, values),
    }
}

/// Returns the operators that may read a weight.
fn operators(weight: Weight, int8: bool) -> &'static [&'static str] {
    match weight {
        Weight::Embedding => &["Gather"],
        Weight::Layer(_, LayerWeight::Kernel) => &["Conv"],
        _ if int8 => &["MatMulInteger"],
        _ => &["Add", "Gather", "LayerNormalization", "MatMul", "Mul"],
    }
}

/// Checks that what multiplies a matrix of uint8 takes 128 for zero, of both operands.
fn check_zero_points(
    name: &str,
    tensors: &HashMap<&str, &TensorProto>,
    readers: &HashMap<&str, Vec<&NodeProto>>,
) -> Result<(), String> {
    let is_128 = |input: &String| {
        let tensor = tensors.get(input.as_str());
        tensor.is_some_and(|t| t.data_type == DataType::Uint8 as i32 && t.dims.is_empty() && t.raw_data == [ZERO_POINT])
    };
    let shifted = |node: &&NodeProto| node.input.len() == 4 && node.input.iter().skip(2).all(is_128);
    match readers.get(name).is_none_or(|readers| readers.iter().all(shifted)) {
        true => Ok(()),
        false => Err(format!("tensor `{name}` is uint8, and its product has another zero point than {ZERO_POINT}")),
    }
}

/// Checks that a tensor is there, of a type and with so many values, and that only such operators read it.
fn check_weight(
    name: &str,
    kind: DataType,
    values: usize,
    tensors: &HashMap<&str, &TensorProto>,
    readers: &HashMap<&str, Vec<&NodeProto>>,
    operators: &[&str],
) -> Result<(), String> {
    let tensor =
        tensors.get(name).ok_or_else(|| format!("it has no tensor `{name}`, as its configuration asks for"))?;
    let found = tensor.dims.iter().product::<i64>();
    if tensor.data_type != kind as i32 || usize::try_from(found) != Ok(values) {
        return Err(format!(
            "tensor `{name}` has {found} values of another kind or number than its configuration asks for: {values} of {kind:?}"
        ));
    }
    let readers = readers.get(name).map_or(&[][..], Vec::as_slice);
    match readers.iter().find(|node| !operators.contains(&node.op_type.as_str())) {
        None if !readers.is_empty() => Ok(()),
        None => Err(format!("nothing reads tensor `{name}`")),
        Some(node) => Err(format!("node `{}` of the operator `{}` reads tensor `{name}`", node.name, node.op_type)),
    }
}

/// Checks how many operators there are of the kinds that tell layers, norms, pooling and task.
fn check_counts(graph: &GraphProto, config: &Config) -> Result<(), String> {
    let layers = config.num_hidden_layers;
    let mixer = config.mixer.kind();
    let if_so = |so: bool, count: usize| if so { count } else { 0 };
    let over_tokens = |node: &NodeProto| node.attribute.iter().any(|a| a.name == "axes" && a.ints == [1]);
    type Counted<'a> = (&'a str, &'a dyn Fn(&NodeProto) -> bool, usize);
    let counted: [Counted<'_>; 6] = [
        ("LayerNormalization", &|_| true, if_so(config.norm == Norm::PostLayer, 2 * layers)),
        ("Conv", &|_| true, if_so(matches!(mixer, Mixer::Light | Mixer::Dilated), layers)),
        ("Sigmoid", &|_| true, if_so(mixer.is_conv(), layers)),
        ("Softmax", &|_| true, if_so(matches!(mixer, Mixer::Dynamic | Mixer::Attention), layers)),
        ("ReduceMax", &over_tokens, if_so(config.pooling == Pooling::Max, 1)),
        ("ReduceL2", &|_| true, if_so(config.task == Task::Embed, 1)),
    ];
    for (operator, counts, want) in counted {
        let found = graph.node.iter().filter(|node| node.op_type == operator && counts(node)).count();
        if found != want {
            return Err(format!(
                "it has {found} nodes of the operator `{operator}` of a kind, a model of its configuration {want}"
            ));
        }
    }
    Ok(())
}

/// Checks the convolution of a layer, if it is an operator of its own.
fn check_convolution(config: &Config, layer: usize, readers: &HashMap<&str, Vec<&NodeProto>>) -> Result<(), String> {
    let Ok(number) = u16::try_from(layer) else { return Ok(()) };
    let name = Weight::Layer(number, LayerWeight::Kernel).to_string();
    let (Some(nodes), Some(convolution)) = (readers.get(name.as_str()), config.convolution(layer)) else {
        return Ok(());
    };
    let ints = |values: &[usize]| values.iter().map(|&v| v as i64).collect::<Vec<_>>();
    let before = convolution.offset * convolution.dilation;
    let after = convolution.taps.saturating_sub(1 + convolution.offset) * convolution.dilation;
    let want = [
        ("kernel_shape", ints(&[convolution.taps])),
        ("strides", ints(&[1])),
        ("dilations", ints(&[convolution.dilation])),
        ("group", ints(&[config.hidden_size])),
        ("pads", ints(&[before, after])),
    ];
    for node in nodes {
        for (attribute, values) in &want {
            let found = node.attribute.iter().find(|found| found.name == *attribute);
            let same = found.is_some_and(|a| if *attribute == "group" { values == &[a.i] } else { &a.ints == values });
            if !same {
                return Err(format!(
                    "node `{}` does not have the `{attribute}` of its configuration, {values:?}",
                    node.name
                ));
            }
        }
    }
    Ok(())
}
