//! Names of the contract: files, metadata keys, the graph's inputs and outputs, the custom operator.

/// Version of the checkpoint format, written to and demanded of `config.json`.
pub const FORMAT_VERSION: u32 = 1;

/// File names inside a checkpoint directory and an export directory.
pub mod files {
    /// Model configuration.
    pub const CONFIG: &str = "config.json";
    /// Configuration of an encoder-decoder, next to its [`WEIGHTS`]; it holds the encoder's.
    pub const SEQ2SEQ: &str = "seq2seq.json";
    /// Tokenizer for Hugging Face `tokenizers`.
    pub const TOKENIZER: &str = "tokenizer.json";
    /// How `transformers.AutoTokenizer` loads [`TOKENIZER`].
    pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
    /// Tokenizer as the flat table that devices read.
    pub const TOKENIZER_TABLE: &str = "tokenizer.bin";
    /// Weights.
    pub const WEIGHTS: &str = "model.safetensors";
    /// Scores of n-grams, of a model that has some ([`crate::spec::Config::ngrams`]).
    pub const NGRAMS: &str = "ngrams.safetensors";
    /// Label names.
    pub const LABELS: &str = "labels.json";
    /// Token ids of dev texts and the logits PyTorch gave for them.
    pub const GOLDEN: &str = "golden.safetensors";
    /// Resolved training configuration, data and metrics.
    pub const TRAINING: &str = "training.json";
    /// Model card.
    pub const CARD: &str = "README.md";
    /// Optimizer state, apart from the model: only `--resume` needs it.
    pub const OPTIMIZER: &str = "optimizer.safetensors";
    /// Exported model, float32.
    pub const ONNX: &str = "model.onnx";
    /// Exported model, int8.
    pub const ONNX_INT8: &str = "model.int8.onnx";
    /// Exported model, int8, as one custom operator ([`super::operator`]).
    pub const ONNX_CUSTOM_OP: &str = "model.custom-op.onnx";
    /// Exported model for the native engine, int8, with everything it needs ([`crate::bundle`]).
    pub const BUNDLE: &str = "model.kinglet";
    /// What export measured.
    pub const REPORT: &str = "report.json";
    /// Beside a data file: its class names (`classes`, `fine_classes`).
    pub const MANIFEST: &str = "MANIFEST.json";
}

/// Keys of the metadata that an exported ONNX file carries, so that the one file is enough to classify text.
pub mod metadata {
    /// [`Config`](crate::spec::Config) as JSON.
    pub const CONFIG: &str = "kinglet.config";
    /// SHA-256 of the checkpoint's `config.json`, in hex.
    pub const CONFIG_SHA256: &str = "kinglet.config_sha256";
    /// SHA-256 of the whole file without this entry, in hex: nothing that can change an answer or its words is outside of it.
    pub const SHA256: &str = "kinglet.sha256";
    /// SHA-256 of the encoded graph, in hex: a damaged graph is rejected before an engine sees it.
    pub const GRAPH_SHA256: &str = "kinglet.graph_sha256";
    /// Label names as a JSON array; absent when the model embeds.
    pub const LABELS: &str = "kinglet.labels";
    /// The flat tokenizer table in base64 (standard alphabet, padded).
    pub const TOKENIZER: &str = "kinglet.tokenizer";
    /// `fp32` or `int8`.
    pub const PRECISION: &str = "kinglet.precision";
    /// [`crate::calibration::Calibration`] as JSON; absent when the model was not calibrated.
    pub const CALIBRATION: &str = "kinglet.calibration";
    /// The thresholds of labels and their calibration as JSON; present when any number of labels apply to a text, and absent otherwise.
    pub const MULTI_LABEL: &str = "kinglet.multi_label";
}

/// Names of the exported graph's inputs and outputs, as the Hugging Face ecosystem has them.
pub mod graph {
    /// Token ids, `[B, T]` int64.
    pub const INPUT_IDS: &str = "input_ids";
    /// 1 for a token, 0 for padding, `[B, T]` int64.
    pub const ATTENTION_MASK: &str = "attention_mask";
    /// Class scores before softmax, `[B, num_labels]` f32.
    pub const LOGITS: &str = "logits";
    /// Sentence vectors of length 1, `[B, num_labels]` f32.
    pub const EMBEDDING: &str = "embedding";
}

/// The ONNX operator that is a whole model, computed by the native engine inside another one.
///
/// Its inputs and its output are those of the exported graph ([`graph`]). The mask is 1 for tokens and 0 for padding, which may
/// stand before and behind a text's tokens but not between them.
pub mod operator {
    /// The operator's domain.
    pub const DOMAIN: &str = "dev.kinglet";
    /// Version of the domain's operator set.
    pub const VERSION: i64 = 1;
    /// The operator's type. It carries the name of the project because tract tells operators apart by their type alone.
    pub const CLASSIFIER: &str = "KingletClassifier";
    /// The operator's only attribute: the bytes of a bundle as a tensor `[bytes]` uint8.
    pub const BUNDLE: &str = "bundle";
}
