//! Metadata of an exported ONNX file: read and checked before any engine sees the graph.
//!
//! An exported file carries its configuration, labels and tokenizer in `metadata_props` under the keys of
//! [`kinglet::spec::metadata`]. All of it, and the graph, is read and checked here: the engine assumes well-formed
//! graphs, and panics or does not end on others.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use kinglet::calibration::Calibration;
use kinglet::multi_label::{LabelCalibration, MultiLabel};
use kinglet::spec::{Config, ConfigError, LabelFault, Task, check_labels, metadata};
use kinglet::tokenizer::{Table, TableError};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tract_onnx::pb::{ModelProto, StringStringEntryProto};

use crate::precision::Precision;
use crate::wire::{self, WireError};

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
    /// An ONNX file with something that export does not write.
    Unexpected {
        /// What it is.
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
    /// Something else in the file is not as it was exported: labels, tokenizer, calibration, or what the graph is declared to be.
    FileHash {
        /// The hash in the metadata.
        expected: String,
        /// The hash of the file found.
        got: String,
    },
    /// There are more or fewer labels than classes.
    LabelCount {
        /// `num_labels`.
        expected: usize,
        /// Labels found.
        got: usize,
    },
    /// A label can be no name of a class.
    Labels(LabelFault),
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
            ModelError::Unexpected { reason } => {
                write!(f, "an ONNX file, but not one that kinglet-export wrote: {reason}")
            }
            ModelError::Foreign { key } if *key == metadata::SHA256 => {
                write!(
                    f,
                    "its metadata has no `{key}`: an older version of kinglet-export wrote it; export the model again"
                )
            }
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
            ModelError::FileHash { expected, got } => {
                write!(f, "the file is damaged or was changed after export: its SHA-256 is {got}, was {expected}")
            }
            ModelError::LabelCount { expected, got } => {
                write!(f, "the model has {expected} classes, but {got} labels")
            }
            ModelError::Labels(fault) => write!(f, "metadata `{}`: {fault}", metadata::LABELS),
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
    /// Of a model of one label per text.
    pub(crate) calibration: Option<Calibration>,
    /// Of a model of which any number of labels apply.
    pub(crate) thresholds: Option<LabelThresholds>,
    /// Name and bytes of each stored tensor.
    pub(crate) tensors: Vec<(String, usize)>,
}

/// The value of [`metadata::MULTI_LABEL`]: what a [`MultiLabel`] has, with its own thresholds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelThresholds {
    /// A label is given if its probability exceeds its threshold, `[num_labels]`.
    pub thresholds: Vec<f32>,
    /// The calibration of the probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<LabelCalibration>,
}

/// Puts the hash of everything that is in the file into its metadata, as [`metadata::SHA256`]. The last step of writing a file, and of
/// changing one: without it [`crate::TractModel`] refuses the file as damaged. Encodes the file once.
pub fn seal(model: &mut ModelProto) {
    model.metadata_props.retain(|entry| entry.key != metadata::SHA256);
    let value = format!("{:x}", Sha256::digest(model.encode_to_vec()));
    model.metadata_props.push(StringStringEntryProto { key: metadata::SHA256.to_string(), value });
}

/// Puts all hashes of a changed file into its metadata: those of its configuration and its graph, where the keys are there, and that of
/// [`seal`].
pub fn seal_all(model: &mut ModelProto) {
    let value = |key: &str| model.metadata_props.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone());
    let config = value(metadata::CONFIG).map(|text| format!("{:x}", Sha256::digest(text)));
    let graph = model.graph.as_ref().map(|graph| format!("{:x}", Sha256::digest(graph.encode_to_vec())));
    for (key, hash) in [(metadata::CONFIG_SHA256, config), (metadata::GRAPH_SHA256, graph)] {
        let entry = model.metadata_props.iter_mut().find(|entry| entry.key == key);
        if let (Some(entry), Some(hash)) = (entry, hash) {
            entry.value = hash;
        }
    }
    seal(model);
}

/// Checks a file as [`crate::TractModel::from_bytes`] does before tract sees it: bytes, hashes, metadata, and the graph.
///
/// # Errors
/// If it is not a file that export could have written.
pub fn check(bytes: &[u8]) -> Result<(), ModelError> {
    read(bytes).map(|_| ())
}

/// Takes the hash of [`seal`] out of the metadata and compares it with that of the rest.
fn unseal(model: &mut ModelProto) -> Result<(), ModelError> {
    let key = metadata::SHA256;
    let at = model.metadata_props.iter().position(|entry| entry.key == key).ok_or(ModelError::Foreign { key })?;
    let expected = model.metadata_props.remove(at).value;
    let got = format!("{:x}", Sha256::digest(model.encode_to_vec()));
    if expected == got { Ok(()) } else { Err(ModelError::FileHash { expected, got }) }
}

/// Decodes an exported file and checks everything that can be checked without running it.
pub(crate) fn read(bytes: &[u8]) -> Result<(ModelProto, Contents), ModelError> {
    if bytes.is_empty() {
        return Err(ModelError::NotOnnx { reason: "the file is empty".to_string() });
    }
    wire::check(bytes).map_err(|error| match error {
        WireError::Malformed(reason) => ModelError::NotOnnx { reason },
        WireError::Unexpected(reason) => ModelError::Unexpected { reason },
    })?;
    let mut proto = ModelProto::decode(bytes).map_err(|e| ModelError::NotOnnx { reason: e.to_string() })?;
    let no_graph = || ModelError::NotOnnx { reason: "there is no graph in it".to_string() };
    if proto.graph.as_ref().is_none_or(|graph| graph.node.is_empty()) {
        return Err(no_graph());
    }
    let sealed = unseal(&mut proto);
    let graph = proto.graph.as_ref().ok_or_else(no_graph)?;
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
    sealed?;
    let config: Config = serde_json::from_str(text).map_err(|e| bad(metadata::CONFIG, e.to_string()))?;
    config.validate()?;
    let labels: Vec<String> = match config.task {
        Task::Classify | Task::MultiLabel => {
            serde_json::from_str(value(metadata::LABELS)?).map_err(|e| bad(metadata::LABELS, e.to_string()))?
        }
        Task::Embed => Vec::new(),
    };
    let classes = if config.task == Task::Embed { 0 } else { config.num_labels };
    if labels.len() != classes {
        return Err(ModelError::LabelCount { expected: classes, got: labels.len() });
    }
    check_labels(labels.iter().map(String::as_str)).map_err(ModelError::Labels)?;
    let of_others: &[&'static str] = match config.task {
        Task::Classify => &[metadata::MULTI_LABEL],
        Task::MultiLabel => &[metadata::CALIBRATION],
        Task::Embed => &[metadata::LABELS, metadata::CALIBRATION, metadata::MULTI_LABEL],
    };
    if let Some(key) = of_others.iter().find(|&&key| value(key).is_ok()) {
        let task = match config.task {
            Task::Classify => "of one label per text",
            Task::MultiLabel => "of any number of labels per text",
            Task::Embed => "that embeds, which has no classes",
        };
        return Err(bad(key, format!("it is not for a model {task}")));
    }
    let thresholds = match config.task {
        Task::Classify | Task::Embed => None,
        Task::MultiLabel => {
            let key = metadata::MULTI_LABEL;
            let read: LabelThresholds = serde_json::from_str(value(key)?).map_err(|e| bad(key, e.to_string()))?;
            let LabelThresholds { thresholds, calibration } = &read;
            let labels = MultiLabel { thresholds, calibration: *calibration };
            labels.validated(config.num_labels).map_err(|e| bad(key, e.to_string()))?;
            Some(read)
        }
    };
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
    let tensors = crate::check::check(&proto, &config, precision).map_err(|reason| ModelError::Graph { reason })?;
    let config_sha256 = expected.to_string();
    Ok((proto, Contents { config, config_sha256, labels, tokenizer, precision, calibration, thresholds, tensors }))
}
