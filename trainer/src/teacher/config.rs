//! The configuration of a BERT-type encoder, `config.json` of Hugging Face transformers' `BertConfig`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kinglet::spec::files;
use serde::Deserialize;

use crate::checkpoint::read_json;

/// `problem_type` of a classifier of classes of which one is right.
pub const ONE: &str = "single_label_classification";
/// `problem_type` of a classifier of which any number of labels may apply to a text.
pub const SEVERAL: &str = "multi_label_classification";

/// Fields of `BertConfig` that affect the computation; absent ones have its defaults.
#[derive(Clone, Debug, Deserialize)]
pub struct BertConfig {
    model_type: String,
    /// Rows of the embedding of tokens, `V`.
    pub vocab_size: usize,
    /// Channels, `C`.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads, `H`.
    pub num_attention_heads: usize,
    /// Channels inside the feed-forward network.
    pub intermediate_size: usize,
    /// Longest input in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the embedding of token types, of which the first is used.
    #[serde(default = "types")]
    pub type_vocab_size: usize,
    /// Added to the variance in layer norms.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
    /// Names of a classifier's classes by index.
    #[serde(default)]
    id2label: Option<BTreeMap<String, String>>,
    #[serde(default)]
    problem_type: Option<String>,
}

fn types() -> usize {
    2
}
fn epsilon() -> f64 {
    1e-12
}
fn gelu() -> String {
    "gelu".to_owned()
}
fn absolute() -> String {
    "absolute".to_owned()
}

impl BertConfig {
    /// Reads the configuration of the encoder in `folder`.
    ///
    /// # Errors
    /// If there is none, or it is not that of a supported encoder; the file and the field are named.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(files::CONFIG);
        ensure!(path.exists(), "{} is no model folder of Hugging Face: it has no {}", folder.display(), files::CONFIG);
        let config = read_json::<BertConfig>(&path).and_then(|config| config.validate().map(|()| config));
        config.with_context(|| format!("{} is no BERT encoder", path.display()))
    }

    /// Checks that the configuration is of an encoder that this program computes exactly.
    ///
    /// # Errors
    /// If a field has a value that is not supported; field and value are named.
    fn validate(&self) -> Result<()> {
        let kind = &self.model_type;
        ensure!(
            kind == "bert",
            "model_type is {kind:?}, only \"bert\" is read (BERT, MiniLM, BGE, E5 and GTE models have it; RoBERTa, MPNet, DistilBERT \
             and ModernBERT have not)"
        );
        let positions = &self.position_embedding_type;
        ensure!(positions == "absolute", "position_embedding_type is {positions:?}, only \"absolute\" is supported");
        let activation = &self.hidden_act;
        ensure!(activation == "gelu", "hidden_act is {activation:?}, only \"gelu\" (the exact one) is supported");
        ensure!(!self.is_decoder, "is_decoder is true: a decoder is no encoder of texts");
        for (name, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            ensure!((1..1 << 31).contains(&size), "{name} is {size}");
        }
        let (heads, channels) = (self.num_attention_heads, self.hidden_size);
        ensure!(channels.is_multiple_of(heads), "hidden_size {channels} is not a multiple of {heads} attention heads");
        let eps = self.layer_norm_eps;
        ensure!(eps > 0.0 && eps < 1.0, "layer_norm_eps is {eps}");
        Ok(())
    }

    /// Returns whether the folder has a classifier of which any number of labels may apply to a text.
    pub fn is_multi_label(&self) -> bool {
        self.problem_type.as_deref() == Some(SEVERAL)
    }

    /// Returns the names of a classifier's classes by index.
    ///
    /// # Errors
    /// If there are none, one is missing, or it is a regression.
    pub fn classes(&self) -> Result<Vec<String>> {
        if let Some(problem) = self.problem_type.as_deref().filter(|p| ![ONE, SEVERAL].contains(p)) {
            bail!("problem_type is {problem:?}: only {ONE:?} and {SEVERAL:?} have classes");
        }
        let names = self.id2label.as_ref().context("id2label is missing: the folder holds no fine-tuned classifier")?;
        ensure!(names.len() > 1, "id2label has {} classes", names.len());
        (0..names.len())
            .map(|i| names.get(&i.to_string()).cloned().with_context(|| format!("id2label has no class {i}")))
            .collect()
    }
}
