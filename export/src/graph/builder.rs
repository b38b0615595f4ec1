//! Builds an ONNX graph node by node.
//!
//! A node is named after the path of the layer it belongs to and its operator, `layers.0/mixer/in_proj/MatMul`, and
//! returns one tensor of the same name. Stored tensors are named as in the model, constants `const/…`.

use std::collections::{HashMap, HashSet};

use kinglet::spec::graph;
use kinglet_onnx::Precision;
use kinglet_onnx::onnx::attribute_proto::AttributeType;
use kinglet_onnx::onnx::tensor_proto::DataType;
use kinglet_onnx::onnx::tensor_shape_proto::{Dimension, dimension};
use kinglet_onnx::onnx::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

/// A tensor of the graph: an input, a stored tensor or a node's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(String);

impl Value {
    /// Returns the tensor's name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// An attribute of a node.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// One integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// One number.
    Float(f32),
}

/// The graph under construction.
#[derive(Debug)]
pub struct GraphBuilder {
    precision: Precision,
    nodes: Vec<NodeProto>,
    tensors: Vec<TensorProto>,
    names: HashSet<String>,
    constants: HashMap<String, Value>,
}

impl GraphBuilder {
    /// Makes an empty graph whose matrix products are computed in `precision`.
    pub fn new(precision: Precision) -> Self {
        GraphBuilder {
            precision,
            nodes: Vec::new(),
            tensors: Vec::new(),
            names: HashSet::new(),
            constants: HashMap::new(),
        }
    }

    /// Returns the precision of the matrix products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Declares a graph input, so that nodes can read it.
    pub fn input(&mut self, name: &str) -> Value {
        Value(self.fresh(name))
    }

    /// Adds a node without attributes below `path`; returns its output.
    pub fn op(&mut self, op: &str, path: &str, inputs: &[&Value]) -> Value {
        self.op_with(op, path, inputs, &[])
    }

    /// Adds a node with attributes below `path`; returns its output.
    pub fn op_with(&mut self, op: &str, path: &str, inputs: &[&Value], attributes: &[(&str, Attribute)]) -> Value {
        let name = self.fresh(&format!("{path}/{op}"));
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|value| value.0.clone()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.to_owned(),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        Value(name)
    }

    /// Converts to another element type.
    pub fn cast(&mut self, path: &str, value: &Value, to: DataType) -> Value {
        self.op_with("Cast", path, &[value], &[("to", Attribute::Int(to as i64))])
    }

    /// Names `value` as the graph output `name`.
    pub fn output(&mut self, value: &Value, name: &str) {
        let renamed = self.fresh(name);
        for node in &mut self.nodes {
            for tensor in node.output.iter_mut().chain(&mut node.input).filter(|tensor| **tensor == value.0) {
                tensor.clone_from(&renamed);
            }
        }
    }

    /// Stores a tensor of f32.
    pub fn store_f32(&mut self, name: &str, dims: &[usize], data: &[f32]) -> Value {
        self.store(name, dims, DataType::Float, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// Stores a tensor of int8.
    pub fn store_i8(&mut self, name: &str, dims: &[usize], data: &[i8]) -> Value {
        self.store(name, dims, DataType::Int8, data.iter().map(|x| x.to_le_bytes()[0]).collect())
    }

    /// Stores a tensor of uint8.
    pub fn store_u8(&mut self, name: &str, dims: &[usize], data: Vec<u8>) -> Value {
        self.store(name, dims, DataType::Uint8, data)
    }

    /// Stores a vector of int32.
    pub fn store_i32(&mut self, name: &str, data: &[i32]) -> Value {
        self.store(name, &[data.len()], DataType::Int32, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// Returns a scalar constant, stored once.
    pub fn scalar(&mut self, value: f32) -> Value {
        self.constant(format!("const/{value:?}"), &[], DataType::Float, value.to_le_bytes().to_vec())
    }

    /// Returns a scalar int64 constant, stored once.
    pub fn index(&mut self, value: i64) -> Value {
        self.constant(format!("const/i{value}"), &[], DataType::Int64, value.to_le_bytes().to_vec())
    }

    /// Returns a scalar int32 constant, stored once.
    pub fn distance(&mut self, value: i32) -> Value {
        self.constant(format!("const/d{value}"), &[], DataType::Int32, value.to_le_bytes().to_vec())
    }

    /// Returns a scalar uint8 constant, stored once.
    pub fn byte(&mut self, value: u8) -> Value {
        self.constant(format!("const/u{value}"), &[], DataType::Uint8, vec![value])
    }

    /// Returns a vector of int64, stored once: axes, shapes, bounds of slices.
    pub fn indices(&mut self, values: &[i64]) -> Value {
        let list: Vec<String> = values.iter().map(ToString::to_string).collect();
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(format!("const/[{}]", list.join(",")), &[values.len()], DataType::Int64, bytes)
    }

    /// Returns the finished graph.
    pub fn finish(self, name: &str, inputs: Vec<ValueInfoProto>, outputs: Vec<ValueInfoProto>) -> GraphProto {
        GraphProto {
            node: self.nodes,
            name: name.to_owned(),
            initializer: self.tensors,
            input: inputs,
            output: outputs,
            ..GraphProto::default()
        }
    }

    fn constant(&mut self, name: String, dims: &[usize], kind: DataType, bytes: Vec<u8>) -> Value {
        if let Some(value) = self.constants.get(&name) {
            return value.clone();
        }
        let value = self.store(&name, dims, kind, bytes);
        self.constants.insert(name, value.clone());
        value
    }

    fn store(&mut self, name: &str, dims: &[usize], kind: DataType, bytes: Vec<u8>) -> Value {
        let name = self.fresh(name);
        self.tensors.push(TensorProto {
            name: name.clone(),
            dims: dims.iter().map(|&d| d as i64).collect(),
            data_type: kind as i32,
            raw_data: bytes,
            ..TensorProto::default()
        });
        Value(name)
    }

    /// Returns `name`, or `name_1`, `name_2`, … when it is taken.
    fn fresh(&mut self, name: &str) -> String {
        let mut candidate = name.to_owned();
        let mut n = 0;
        while !self.names.insert(candidate.clone()) {
            n += 1;
            candidate = format!("{name}_{n}");
        }
        candidate
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut out = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        Attribute::Int(i) => {
            out.r#type = AttributeType::Int as i32;
            out.i = *i;
        }
        Attribute::Ints(ints) => {
            out.r#type = AttributeType::Ints as i32;
            out.ints.clone_from(ints);
        }
        Attribute::Float(f) => {
            out.r#type = AttributeType::Float as i32;
            out.f = *f;
        }
    }
    out
}

/// The attention mask in the forms that layers need.
pub(super) struct Mask {
    /// `[B, T, 1]`, 1 for a token, 0 for padding.
    pub(super) tokens: Value,
    /// `[B, T]`, the same.
    pub(super) flat: Value,
}

impl Mask {
    pub(super) fn new(g: &mut GraphBuilder) -> Self {
        let mask = g.input(graph::ATTENTION_MASK);
        let flat = g.cast("mask", &mask, DataType::Float);
        let axis = g.indices(&[2]);
        let tokens = g.op("Unsqueeze", "mask", &[&flat, &axis]);
        Mask { tokens, flat }
    }
}

/// Returns the inputs and the output of every exported graph: `[B, T]` int64 twice, `[B, num_labels]` f32.
pub(crate) fn interface(output: &str, num_labels: usize) -> (Vec<ValueInfoProto>, Vec<ValueInfoProto>) {
    let symbol = |name: &str| dimension::Value::DimParam(name.to_owned());
    let ids = |name| tensor(name, DataType::Int64, [symbol("B"), symbol("T")]);
    let classes = dimension::Value::DimValue(num_labels as i64);
    let logits = tensor(output, DataType::Float, [symbol("B"), classes]);
    (vec![ids(graph::INPUT_IDS), ids(graph::ATTENTION_MASK)], vec![logits])
}

fn tensor(name: &str, kind: DataType, shape: [dimension::Value; 2]) -> ValueInfoProto {
    let dim = shape.into_iter().map(|value| Dimension { value: Some(value), ..Dimension::default() }).collect();
    let value = type_proto::Value::TensorType(type_proto::Tensor {
        elem_type: kind as i32,
        shape: Some(TensorShapeProto { dim }),
    });
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto { value: Some(value), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}
