//! `kinglet-train import-t5`: converts a T5 checkpoint from Hugging Face into an encoder-decoder, the attention
//! baseline.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::{Config, LayerWeight, Mixer, MixerConfig, NORM_EPS, PerLayer, Weight, files};
use serde::Deserialize;
use tch::{Device, Tensor};

use crate::checkpoint::{read_json, save_seq2seq};
use crate::model::seq2seq::{DecoderWeight, START, Seq2Seq, Seq2SeqConfig, Seq2SeqWeight};
use crate::model::{BlockWeight, ModelWeight};
use crate::tensors::{read_tensors, take_weights};

/// Convert a T5 checkpoint of Hugging Face into an encoder-decoder for this program
///
/// T5 1.0 (t5-small, t5-base, t5-large) as saved by transformers; the tokenizer is not converted.
#[derive(Args, Debug)]
pub struct ImportT5Args {
    /// Folder with config.json and model.safetensors of T5
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// Folder for seq2seq.json and model.safetensors, created if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// As [`import`], and if the files cannot be written.
pub fn run(args: &ImportT5Args) -> Result<()> {
    let model = import(&args.checkpoint)?;
    save_seq2seq(&args.out, &model)?;
    let config = model.config();
    println!(
        "{} parameters, {} + {} layers, in {}",
        config.parameters(),
        config.encoder.num_hidden_layers,
        config.num_decoder_layers,
        args.out.display()
    );
    Ok(())
}

/// Fields of transformers' `T5Config` that affect the computation; absent ones have its defaults.
#[derive(Debug, Deserialize)]
struct T5Config {
    model_type: String,
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    #[serde(default = "buckets")]
    relative_attention_num_buckets: usize,
    #[serde(default = "distance")]
    relative_attention_max_distance: usize,
    #[serde(default = "epsilon")]
    layer_norm_epsilon: f64,
    #[serde(default = "projection")]
    feed_forward_proj: String,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    /// Absent in files of old versions, which always scale if the embeddings are tied.
    #[serde(default = "yes")]
    scale_decoder_outputs: bool,
    #[serde(default)]
    decoder_start_token_id: Option<i64>,
}

fn buckets() -> usize {
    32
}
fn distance() -> usize {
    128
}
fn epsilon() -> f64 {
    f64::from(NORM_EPS)
}
fn projection() -> String {
    "relu".to_owned()
}
fn yes() -> bool {
    true
}

impl T5Config {
    /// Returns the configuration of the same model.
    fn convert(&self) -> Result<Seq2SeqConfig> {
        let kind = &self.model_type;
        ensure!(kind == "t5", "model_type is {kind:?}, only \"t5\" is imported");
        let projection = &self.feed_forward_proj;
        ensure!(
            projection == "relu" && self.tie_word_embeddings && self.scale_decoder_outputs,
            "feed_forward_proj is {projection:?}, tie_word_embeddings {}, scale_decoder_outputs {}: only T5 1.0 is imported, \
             which has \"relu\" and tied, scaled embeddings; T5 1.1 and Flan-T5 have not",
            self.tie_word_embeddings,
            self.scale_decoder_outputs
        );
        let (heads, d_kv, d_model) = (self.num_heads, self.d_kv, self.d_model);
        ensure!(
            heads.checked_mul(d_kv) == Some(d_model),
            "{heads} heads of {d_kv} channels are not d_model = {d_model}: such attention (T5-3B, T5-11B) is not supported"
        );
        let epsilon = self.layer_norm_epsilon;
        ensure!((epsilon - f64::from(NORM_EPS)).abs() < 1e-12, "layer_norm_epsilon is {epsilon}, must be {NORM_EPS}");
        let start = self.decoder_start_token_id.unwrap_or(START);
        ensure!(start == START, "decoder_start_token_id is {start}, must be {START}");
        let mixer = MixerConfig::Attention {
            heads,
            buckets: self.relative_attention_num_buckets,
            max_distance: self.relative_attention_max_distance,
        };
        let encoder = Config {
            mixer,
            vocab_size: self.vocab_size,
            intermediate_size: self.d_ff,
            ..Config::new(Mixer::Attention, self.num_layers, d_model)
        };
        let config = Seq2SeqConfig {
            encoder: encoder.into(),
            num_decoder_layers: self.num_decoder_layers.unwrap_or(self.num_layers),
            decoder_kernel_sizes: PerLayer::EMPTY,
            decoder_dilations: PerLayer::EMPTY,
            num_attention_heads: heads,
        };
        config.validate()?;
        Ok(config)
    }
}

/// Returns the name of a weight in transformers' `T5ForConditionalGeneration`, or `None` if T5 does not have it.
pub fn t5_name(weight: Seq2SeqWeight) -> Option<String> {
    use DecoderWeight as D;
    use ModelWeight::Paper;
    let (stack, i, name) = match weight {
        Seq2SeqWeight::Encoder(Paper(Weight::Embedding)) => return Some(SHARED.to_owned()),
        Seq2SeqWeight::Encoder(Paper(Weight::FinalNorm)) => return Some("encoder.final_layer_norm.weight".to_owned()),
        Seq2SeqWeight::DecoderFinalNorm => return Some("decoder.final_layer_norm.weight".to_owned()),
        Seq2SeqWeight::Encoder(Paper(Weight::Layer(i, weight))) => ("encoder", i, block_name(weight, 1)?),
        Seq2SeqWeight::Encoder(_) => return None,
        Seq2SeqWeight::Decoder(i, D::Block(BlockWeight::Paper(weight))) => ("decoder", i, block_name(weight, 2)?),
        Seq2SeqWeight::Decoder(_, D::Block(BlockWeight::Dialect(_))) => return None,
        Seq2SeqWeight::Decoder(i, D::CrossQuery) => ("decoder", i, "1.EncDecAttention.q".to_owned()),
        Seq2SeqWeight::Decoder(i, D::CrossKey) => ("decoder", i, "1.EncDecAttention.k".to_owned()),
        Seq2SeqWeight::Decoder(i, D::CrossValue) => ("decoder", i, "1.EncDecAttention.v".to_owned()),
        Seq2SeqWeight::Decoder(i, D::CrossOut) => ("decoder", i, "1.EncDecAttention.o".to_owned()),
        Seq2SeqWeight::Decoder(i, D::CrossNorm) => ("decoder", i, "1.layer_norm".to_owned()),
        Seq2SeqWeight::Decoder(_, D::CrossNormBias) => return None,
    };
    Some(format!("{stack}.block.{i}.layer.{name}.weight"))
}

/// Returns the name of a block's weight below `layer.`, with the feed-forward network as sublayer `ffn`.
fn block_name(weight: LayerWeight, ffn: usize) -> Option<String> {
    use LayerWeight as L;
    Some(match weight {
        L::Query => "0.SelfAttention.q".to_owned(),
        L::Key => "0.SelfAttention.k".to_owned(),
        L::Value => "0.SelfAttention.v".to_owned(),
        L::Out => "0.SelfAttention.o".to_owned(),
        L::RelativeBias => "0.SelfAttention.relative_attention_bias".to_owned(),
        L::MixerNorm => "0.layer_norm".to_owned(),
        L::Up => format!("{ffn}.DenseReluDense.wi"),
        L::Down => format!("{ffn}.DenseReluDense.wo"),
        L::FfnNorm => format!("{ffn}.layer_norm"),
        _ => return None,
    })
}

const SHARED: &str = "shared.weight";
/// Other names of [`SHARED`] in some files.
const COPIES: [&str; 3] = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];
/// Present in the released T5 files but unused: transformers skips it too (`_keys_to_ignore_on_load_unexpected`).
const UNUSED: &str = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";

/// A weight under T5's name.
struct Named(Seq2SeqWeight, String);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

/// Reads the T5 checkpoint in `dir` (`config.json` and `model.safetensors`; f32, f16 or bf16) as a model on the CPU,
/// without its tokenizer.
///
/// # Errors
/// If a file is missing or malformed; if the model is not a T5 1.0 (the field is named); or if a weight is missing,
/// unknown, of another shape, or a copy of the embedding that differs from it.
pub fn import(dir: &Path) -> Result<Seq2Seq> {
    let path = dir.join(files::CONFIG);
    let t5: T5Config = read_json(&path)?;
    let config = t5.convert().with_context(|| path.display().to_string())?;
    let path = dir.join(files::WEIGHTS);
    let mut tensors = read_tensors(&path)?;
    let weights = translate(&config, &mut tensors).with_context(|| path.display().to_string())?;
    Seq2Seq::from_weights(&config, weights, Device::Cpu)
}

/// Takes all weights of `config` out of `tensors`, which must be empty then.
fn translate(config: &Seq2SeqConfig, tensors: &mut HashMap<String, Tensor>) -> Result<Vec<(Seq2SeqWeight, Tensor)>> {
    for copy in COPIES {
        if let Some(tensor) = tensors.remove(copy) {
            let same = tensors.get(SHARED).is_none_or(|shared| *shared == tensor);
            ensure!(same, "{copy} differs from {SHARED}: only tied embeddings are supported");
            tensors.insert(SHARED.to_owned(), tensor);
        }
    }
    tensors.remove(UNUSED);
    let mut wanted = Vec::new();
    for (weight, shape) in config.weights() {
        wanted.push((Named(weight, t5_name(weight).with_context(|| format!("T5 has no {weight}"))?), shape));
    }
    let taken = take_weights(tensors, wanted)?;
    if let Some(name) = tensors.keys().min() {
        bail!("the configuration has no weight {name}");
    }
    Ok(taken.into_iter().map(|(named, tensor)| (named.0, tensor)).collect())
}
