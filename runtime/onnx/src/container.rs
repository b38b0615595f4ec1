//! Metadata of an exported ONNX file: read and checked before any engine sees the graph.
//!
//! An exported file carries its configuration, labels and tokenizer in `metadata_props` under the keys of
//! [`kinglet::spec::metadata`]. All of it, and the graph, is read and checked here: the engine assumes well-formed
//! graphs, and panics or does not end on others.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use kinglet::bundle::Bundle;
use kinglet::calibration::Calibration;
use kinglet::spec::{Config, ConfigError, Task, graph, metadata, operator};
use kinglet::tokenizer::{Table, TableError};
use prost::Message;
use sha2::{Digest, Sha256};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

/// Error for a file that is not a runnable model.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelError {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not an ONNX file, or only the beginning of one.
    NotOnnx {
        /// The decoder's message.
        reason: String,
    },
    /// An ONNX file that was not exported by Kinglet: a key of its metadata is missing.
    Foreign {
        /// The missing key.
        key: &'static str,
    },
    /// A value in the metadata cannot be read.
    Metadata {
        /// The key.
        key: &'static str,
        /// The problem.
        reason: String,
    },
    /// The configuration is impossible.
    Config(ConfigError),
    /// The configuration is not the one the file was exported with.
    ConfigHash {
        /// The hash in the metadata.
        expected: String,
        /// The hash of the configuration found.
        got: String,
    },
    /// The graph is not the exported one: the file is damaged or was changed by another program.
    GraphHash {
        /// The hash in the metadata.
        expected: String,
        /// The hash of the graph found.
        got: String,
    },
    /// There are more or fewer labels than classes.
    LabelCount {
        /// `num_labels`.
        expected: usize,
        /// Labels found.
        got: usize,
    },
    /// The tokenizer table is broken.
    Tokenizer(TableError),
    /// The tokenizer returns ids that the embedding does not have.
    VocabularySize {
        /// Rows of the embedding.
        model: usize,
        /// Number of ids of the tokenizer.
        tokenizer: usize,
    },
    /// The graph is not one that export writes.
    Graph {
        /// The problem.
        reason: String,
    },
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelError::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            ModelError::NotOnnx { reason } => write!(f, "not a complete ONNX file: {reason}"),
            ModelError::Foreign { key } => {
                write!(f, "an ONNX file, but not one that kinglet-export wrote: its metadata has no `{key}`")
            }
            ModelError::Metadata { key, reason } => write!(f, "metadata `{key}`: {reason}"),
            ModelError::Config(e) => write!(f, "metadata `{}`: {e}", metadata::CONFIG),
            ModelError::ConfigHash { expected, got } => {
                write!(f, "the configuration was changed after export: its SHA-256 is {got}, was {expected}")
            }
            ModelError::GraphHash { expected, got } => {
                write!(f, "the graph is damaged or was changed after export: its SHA-256 is {got}, was {expected}")
            }
            ModelError::LabelCount { expected, got } => {
                write!(f, "the model has {expected} classes, but {got} labels")
            }
            ModelError::Tokenizer(e) => write!(f, "metadata `{}`: {e}", metadata::TOKENIZER),
            ModelError::VocabularySize { model, tokenizer } => {
                write!(f, "the tokenizer has {tokenizer} ids, but the model's embedding {model} rows")
            }
            ModelError::Graph { reason } => write!(f, "the graph cannot be run: {reason}"),
        }
    }
}

impl std::error::Error for ModelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ModelError::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<ConfigError> for ModelError {
    fn from(e: ConfigError) -> Self {
        ModelError::Config(e)
    }
}

/// Number format of the matrix products of an exported model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floating point.
    Fp32,
    /// 8-bit integers with scales per token and output channel.
    Int8,
}

impl Precision {
    /// Returns the name in the metadata and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The metadata of an exported file, checked.
#[derive(Clone, Debug)]
pub(crate) struct Contents {
    pub(crate) config: Config,
    pub(crate) config_sha256: String,
    pub(crate) labels: Vec<String>,
    pub(crate) tokenizer: Vec<u8>,
    pub(crate) precision: Precision,
    pub(crate) calibration: Option<Calibration>,
    /// Name and bytes of each stored tensor.
    pub(crate) tensors: Vec<(String, usize)>,
}

/// Decodes an exported file and checks everything that can be checked without running it.
pub(crate) fn read(bytes: &[u8]) -> Result<(ModelProto, Contents), ModelError> {
    if bytes.is_empty() {
        return Err(ModelError::NotOnnx { reason: "the file is empty".to_string() });
    }
    let proto = ModelProto::decode(bytes).map_err(|e| ModelError::NotOnnx { reason: e.to_string() })?;
    let graph = match &proto.graph {
        Some(graph) if !graph.node.is_empty() => graph,
        _ => return Err(ModelError::NotOnnx { reason: "there is no graph in it".to_string() }),
    };
    let value = |key: &'static str| {
        let entry = proto.metadata_props.iter().find(|entry| entry.key == key);
        entry.map(|entry| entry.value.as_str()).ok_or(ModelError::Foreign { key })
    };
    let bad = |key: &'static str, reason: String| ModelError::Metadata { key, reason };

    let text = value(metadata::CONFIG)?;
    let expected = value(metadata::CONFIG_SHA256)?;
    let got = format!("{:x}", Sha256::digest(text));
    if expected != got {
        return Err(ModelError::ConfigHash { expected: expected.to_string(), got });
    }
    let expected_graph = value(metadata::GRAPH_SHA256)?;
    let got = format!("{:x}", Sha256::digest(graph.encode_to_vec()));
    if expected_graph != got {
        return Err(ModelError::GraphHash { expected: expected_graph.to_string(), got });
    }
    let config: Config = serde_json::from_str(text).map_err(|e| bad(metadata::CONFIG, e.to_string()))?;
    config.validate()?;
    let labels: Vec<String> = match config.task {
        Task::Classify => {
            serde_json::from_str(value(metadata::LABELS)?).map_err(|e| bad(metadata::LABELS, e.to_string()))?
        }
        Task::Embed => Vec::new(),
    };
    let classes = if config.task == Task::Embed { 0 } else { config.num_labels };
    if labels.len() != classes {
        return Err(ModelError::LabelCount { expected: classes, got: labels.len() });
    }
    let of_classes = [metadata::LABELS, metadata::CALIBRATION].into_iter().find(|&key| value(key).is_ok());
    if let (Task::Embed, Some(key)) = (config.task, of_classes) {
        return Err(bad(key, "a model that embeds has no classes".to_string()));
    }
    let tokenizer = base64::engine::general_purpose::STANDARD
        .decode(value(metadata::TOKENIZER)?)
        .map_err(|e| bad(metadata::TOKENIZER, e.to_string()))?;
    let table = Table::new(&tokenizer).map_err(ModelError::Tokenizer)?;
    if table.vocab_size() != config.vocab_size {
        return Err(ModelError::VocabularySize { model: config.vocab_size, tokenizer: table.vocab_size() });
    }
    let precision = match value(metadata::PRECISION)? {
        "fp32" => Precision::Fp32,
        "int8" => Precision::Int8,
        other => return Err(bad(metadata::PRECISION, format!("`{other}` is neither fp32 nor int8"))),
    };
    let calibration = match value(metadata::CALIBRATION) {
        Err(_) => None,
        Ok(text) => {
            let numbers: Calibration =
                serde_json::from_str(text).map_err(|e| bad(metadata::CALIBRATION, e.to_string()))?;
            Some(numbers.validated().map_err(|e| bad(metadata::CALIBRATION, e.to_string()))?)
        }
    };
    let tensors = check_graph(graph, &config).map_err(|reason| ModelError::Graph { reason })?;
    let config_sha256 = expected.to_string();
    Ok((proto, Contents { config, config_sha256, labels, tokenizer, precision, calibration, tensors }))
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
    if !graph.sparse_initializer.is_empty() {
        return Err("it has sparse tensors".to_string());
    }
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
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            if !known.contains(input.as_str()) {
                return Err(format!("node `{}` reads `{input}`, which nothing before it gives", node.name));
            }
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
    Ok(tensor.raw_data.len())
}
