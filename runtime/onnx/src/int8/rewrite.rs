//! Finds the int8 layers of a graph and writes one operator for each.

use std::collections::HashMap;

use kinglet::quant::{MAX_QUANTIZED, MIN_MAGNITUDE, ZERO_POINT};
use kinglet::spec::operator;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};

use super::names::{CONV, DILATION, LINEAR, LOOKUP, PADS, RELU, attribute};

/// Most inputs of a product: the sum of so many products of two int8 numbers fits in 32 bits.
const MOST_INPUTS: i64 = 1 << 16;

/// Puts Kinglet's operators in place of the int8 layers of a model, and returns their number.
///
/// A layer is a chain of operators as `kinglet-export` writes them, with constant weights of −127 to 127:
///
/// ```text
/// s = Div(Max(ReduceMax(Abs(x)), 1e-30), 127);   q = Cast<uint8>(Add(Round(Div(x, s)), 128))
/// y = Mul(Mul(Cast<float>(MatMulInteger(q, W, 128, 128)), s), w)        also with Relu behind it; all products of one q together
///
/// x = Mul(Cast<float>(Gather(W, ids)), Gather(w, ids))
/// ```
///
/// Beside them, a depthwise convolution of tokens, `Transpose(Conv(Transpose(x), taps))`, is one operator too.
///
/// `W` of a product is uint8; files of earlier versions have `Cast<int8>(Round(Div(x, s)))` and int8.
///
/// What else reads a result inside a chain still finds it. A model without such layers is left unchanged; after a change only a
/// tract with [`register`](crate::register)ed operators runs it.
pub fn fuse(model: &mut ModelProto) -> usize {
    let Some(graph) = model.graph.as_mut() else { return 0 };
    let layers = Reader::new(graph).layers();
    let count = layers.len();
    if count > 0 {
        replace(graph, layers);
        if !model.opset_import.iter().any(|import| import.domain == operator::DOMAIN) {
            let domain = operator::DOMAIN.to_string();
            model.opset_import.push(OperatorSetIdProto { domain, version: operator::VERSION });
        }
    }
    count
}

/// A node that takes the place of others.
struct Layer {
    node: NodeProto,
    /// Indices of the nodes that gave its outputs.
    replaced: Vec<usize>,
}

/// Puts each layer in the place of the first of its nodes.
fn replace(graph: &mut GraphProto, layers: Vec<Layer>) {
    let mut nodes: Vec<Option<NodeProto>> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    for layer in layers {
        let mut new = Some(layer.node);
        for &at in &layer.replaced {
            if let Some(place) = nodes.get_mut(at) {
                *place = new.take();
            }
        }
    }
    graph.node = nodes.into_iter().flatten().collect();
}

/// A graph by the names of its values.
struct Reader<'a> {
    graph: &'a GraphProto,
    /// The node that gives a value.
    givers: HashMap<&'a str, usize>,
    /// The nodes that read a value, and how often the graph's outputs do.
    readers: HashMap<&'a str, Vec<usize>>,
    outputs: Vec<&'a str>,
    tensors: HashMap<&'a str, &'a TensorProto>,
}

/// One matrix product of a quantized operand.
struct Product<'a> {
    weight: &'a str,
    scales: &'a str,
    relu: bool,
    output: &'a str,
    /// Index of the node that gives `output`.
    last: usize,
}

impl<'a> Reader<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let (mut givers, mut readers) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (at, node) in graph.node.iter().enumerate() {
            givers.extend(node.output.iter().map(|name| (name.as_str(), at)));
            for name in &node.input {
                readers.entry(name.as_str()).or_default().push(at);
            }
        }
        Reader {
            graph,
            givers,
            readers,
            outputs: graph.output.iter().map(|output| output.name.as_str()).collect(),
            tensors: graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect(),
        }
    }

    /// Returns all layers, in the order of the graph.
    fn layers(&self) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        // Where the layer of a quantized operand is.
        let mut of_operand: HashMap<&str, usize> = HashMap::new();
        for at in 0..self.graph.node.len() {
            layers.extend(self.lookup(at));
            let Some((operand, x, product)) = self.product(at) else { continue };
            let place = *of_operand.entry(operand).or_insert_with(|| {
                let name = format!("{}/int8", product.output);
                layers.push(Layer { node: node(LINEAR, name, vec![x.into()]), replaced: Vec::new() });
                layers.len() - 1
            });
            let Some(layer) = layers.get_mut(place) else { continue };
            layer.node.input.extend([product.weight.to_string(), product.scales.to_string()]);
            layer.node.output.push(product.output.to_string());
            if layer.node.attribute.is_empty() {
                let r#type = AttributeType::Ints.into();
                layer.node.attribute.push(AttributeProto { name: RELU.into(), r#type, ..Default::default() });
            }
            layer.node.attribute.iter_mut().for_each(|relu| relu.ints.push(product.relu.into()));
            layer.replaced.push(product.last);
            layer.replaced.sort_unstable();
        }
        if !layers.is_empty() {
            layers.extend((0..self.graph.node.len()).filter_map(|at| self.convolution(at)));
        }
        layers
    }

    /// Returns the quantized operand, what it is quantized from, and the product that begins with a node.
    fn product(&self, at: usize) -> Option<(&'a str, &'a str, Product<'a>)> {
        let node = self.graph.node.get(at).filter(|node| is(node, "MatMulInteger"))?;
        let (q, weight, unsigned) = match inputs(node) {
            Some([q, weight]) => (q, weight, false),
            None => {
                let [q, weight, a, b] = inputs(node)?;
                let shifted = [a, b].iter().all(|name| self.byte(name) == Some(ZERO_POINT));
                shifted.then_some((q, weight, true))?
            }
        };
        let (x, s) = self.quantized(q, unsigned)?;
        let matrix = if unsigned { self.uint8(weight)? } else { self.int8(weight)? };
        let &[rows, columns] = matrix.dims.as_slice() else { return None };
        if !(1..=MOST_INPUTS).contains(&rows) || columns < 1 {
            return None;
        }
        let (_, cast) = self.only_reader(first(&node.output)?, "Cast")?;
        if int(cast, "to")? != DataType::Float as i64 {
            return None;
        }
        let (_, scaled) = self.only_reader(first(&cast.output)?, "Mul")?;
        if other(scaled, first(&cast.output)?)? != s {
            return None;
        }
        let (mut last, mut end) = self.only_reader(first(&scaled.output)?, "Mul")?;
        let scales = other(end, first(&scaled.output)?)?;
        if self.tensors.get(scales).is_none_or(|tensor| !is_float(tensor) || tensor.dims != [columns]) {
            return None;
        }
        let relu = self.only_reader(first(&end.output)?, "Relu");
        if let Some(found) = relu {
            (last, end) = found;
        }
        Some((q, x, Product { weight, scales, relu: relu.is_some(), output: first(&end.output)?, last }))
    }

    /// Returns what a value was quantized from, and the scale of each token.
    fn quantized(&self, q: &str, unsigned: bool) -> Option<(&'a str, &'a str)> {
        let kind = if unsigned { DataType::Uint8 } else { DataType::Int8 };
        let cast = self.giver(q, "Cast").filter(|cast| int(cast, "to") == Some(kind as i64))?;
        let [mut rounded] = inputs(cast)?;
        if unsigned {
            let [signed, shift] = inputs(self.giver(rounded, "Add")?)?;
            (self.number(shift) == Some(f32::from(ZERO_POINT))).then_some(())?;
            rounded = signed;
        }
        let [quotient] = inputs(self.giver(rounded, "Round")?)?;
        let [x, s] = inputs(self.giver(quotient, "Div")?)?;
        let [magnitude, most] = inputs(self.giver(s, "Div")?)?;
        let [largest, least] = inputs(self.giver(magnitude, "Max")?)?;
        let reduce = self.giver(largest, "ReduceMax")?;
        let axes = attribute(reduce, "axes").map(|axes| axes.ints.as_slice());
        if axes != Some(&[-1]) || int(reduce, "keepdims").is_some_and(|keep| keep != 1) {
            return None;
        }
        let [absolute] = inputs(reduce)?;
        let [of] = inputs(self.giver(absolute, "Abs")?)?;
        let numbers = self.number(most) == Some(MAX_QUANTIZED) && self.number(least) == Some(MIN_MAGNITUDE);
        (numbers && of == x).then_some((x, s))
    }

    /// Returns the lookup that ends with a node.
    fn lookup(&self, at: usize) -> Option<Layer> {
        let end = self.graph.node.get(at).filter(|node| is(node, "Mul"))?;
        let [values, scales] = inputs(end)?;
        let cast = self.giver(values, "Cast").filter(|cast| int(cast, "to") == Some(DataType::Float as i64))?;
        let [rows] = inputs(cast)?;
        let (rows, scales) = (self.giver(rows, "Gather")?, self.giver(scales, "Gather")?);
        if [rows, scales].iter().any(|gather| int(gather, "axis").is_some_and(|axis| axis != 0)) {
            return None;
        }
        let ([weight, ids], [scales, same]) = (inputs(rows)?, inputs(scales)?);
        let &[count, width] = self.int8(weight)?.dims.as_slice() else { return None };
        let fits = self.tensors.get(scales).is_some_and(|tensor| is_float(tensor) && tensor.dims == [count, 1]);
        if ids != same || !fits || width < 1 {
            return None;
        }
        let output = first(&end.output)?;
        let mut node = node(LOOKUP, format!("{output}/int8"), vec![ids.into(), weight.into(), scales.into()]);
        node.output.push(output.to_string());
        Some(Layer { node, replaced: vec![at] })
    }

    /// Returns the convolution that ends with a node.
    fn convolution(&self, at: usize) -> Option<Layer> {
        let end = self.graph.node.get(at).filter(|node| is_swap(node))?;
        let [convolved] = inputs(end)?;
        let conv = self.giver(convolved, "Conv")?;
        // Without a bias.
        let [channels_first, taps] = inputs(conv)?;
        let begin = self.giver(channels_first, "Transpose").filter(|node| is_swap(node))?;
        let tensor = self.tensors.get(taps).filter(|tensor| is_float(tensor))?;
        let &[channels, 1, width] = tensor.dims.as_slice() else { return None };
        let ints = |name| attribute(conv, name).map(|attribute| attribute.ints.as_slice());
        let Some(&[before, after]) = ints("pads") else { return None };
        let &[dilation] = ints("dilations").unwrap_or(&[1]) else { return None };
        let strided = ints("strides").is_some_and(|strides| strides != [1]);
        let same_length = before >= 0 && after >= 0 && dilation > 0 && before + after == (width - 1) * dilation;
        if int(conv, "group") != Some(channels) || strided || attribute(conv, "auto_pad").is_some() || !same_length {
            return None;
        }
        let output = first(&end.output)?;
        let [x] = inputs(begin)?;
        let mut node = node(CONV, format!("{output}/rows"), vec![x.into(), taps.into()]);
        let pads = AttributeType::Ints.into();
        node.attribute.push(AttributeProto {
            name: PADS.into(),
            r#type: pads,
            ints: vec![before, after],
            ..Default::default()
        });
        let int = AttributeType::Int.into();
        node.attribute.push(AttributeProto { name: DILATION.into(), r#type: int, i: dilation, ..Default::default() });
        node.output.push(output.to_string());
        Some(Layer { node, replaced: vec![at] })
    }

    /// Returns the node of this type that gives a value.
    fn giver(&self, name: &str, op_type: &str) -> Option<&'a NodeProto> {
        let node = self.graph.node.get(*self.givers.get(name)?)?;
        (is(node, op_type) && node.output.len() == 1).then_some(node)
    }

    /// Returns the only node that reads a value, if it is of this type, and its index.
    fn only_reader(&self, name: &str, op_type: &str) -> Option<(usize, &'a NodeProto)> {
        let &[at] = self.readers.get(name)?.as_slice() else { return None };
        let node = self.graph.node.get(at).filter(|node| is(node, op_type) && node.output.len() == 1)?;
        (!self.outputs.contains(&name)).then_some((at, node))
    }

    /// Returns a stored tensor of int8 numbers, all of −127 to 127.
    fn int8(&self, name: &str) -> Option<&'a TensorProto> {
        self.bytes(name, DataType::Int8, 0x80)
    }

    /// Returns a stored tensor of uint8 numbers, all of 1 to 255.
    fn uint8(&self, name: &str) -> Option<&'a TensorProto> {
        self.bytes(name, DataType::Uint8, 0)
    }

    /// Returns a stored tensor of a type of bytes without one of its values.
    fn bytes(&self, name: &str, kind: DataType, without: u8) -> Option<&'a TensorProto> {
        let tensor = self.tensors.get(name)?;
        let expected = tensor.dims.iter().try_fold(1, |n: i64, &dim| n.checked_mul(dim))?;
        let whole = i64::try_from(tensor.raw_data.len()) == Ok(expected);
        let fits = tensor.data_type == kind as i32 && whole && !tensor.raw_data.contains(&without);
        fits.then_some(tensor)
    }

    /// Returns a stored uint8 number.
    fn byte(&self, name: &str) -> Option<u8> {
        let tensor = self.tensors.get(name).filter(|tensor| tensor.data_type == DataType::Uint8 as i32)?;
        let &[value] = tensor.raw_data.as_slice() else { return None };
        tensor.dims.is_empty().then_some(value)
    }

    /// Returns a stored f32 number.
    fn number(&self, name: &str) -> Option<f32> {
        let tensor = self.tensors.get(name).filter(|tensor| is_float(tensor) && tensor.dims.is_empty())?;
        let stored = <[u8; 4]>::try_from(tensor.raw_data.as_slice()).map(f32::from_le_bytes);
        stored.ok().or_else(|| tensor.float_data.first().copied())
    }
}

/// Returns an operator of Kinglet's domain without outputs.
fn node(op_type: &str, name: String, input: Vec<String>) -> NodeProto {
    NodeProto { op_type: op_type.into(), domain: operator::DOMAIN.into(), name, input, ..Default::default() }
}

/// Whether a node swaps tokens and channels.
fn is_swap(node: &NodeProto) -> bool {
    is(node, "Transpose") && attribute(node, "perm").is_some_and(|perm| perm.ints == [0, 2, 1])
}

/// Whether a node is an operator of ONNX.
fn is(node: &NodeProto, op_type: &str) -> bool {
    node.op_type == op_type && matches!(node.domain.as_str(), "" | "ai.onnx")
}

fn is_float(tensor: &TensorProto) -> bool {
    tensor.data_type == DataType::Float as i32
}

/// Returns the inputs of a node that has exactly `N`.
fn inputs<const N: usize>(node: &NodeProto) -> Option<[&str; N]> {
    let inputs: Vec<&str> = node.input.iter().map(String::as_str).collect();
    inputs.try_into().ok()
}

/// Returns the other one of two inputs.
fn other<'a>(node: &'a NodeProto, one: &str) -> Option<&'a str> {
    let [a, b] = inputs(node)?;
    if a == one { Some(b) } else { (b == one).then_some(a) }
}

fn first(names: &[String]) -> Option<&str> {
    names.first().map(String::as_str)
}

/// Returns an attribute that is an integer.
fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(|attribute| attribute.i)
}
