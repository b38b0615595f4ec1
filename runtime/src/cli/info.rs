//! `kinglet info`: what a model is and what it costs.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use kinglet::classifier;
use kinglet::engine::Engine;
use kinglet::engine::tract::TractModel;
use kinglet::spec::{Config, LayerWeight, Norm, Pooling, Weight};
use serde_json::{Value, json};

use super::{Outcome, engine_name, open_model};

/// Lengths, in tokens, for which memory is estimated.
const LENGTHS: [usize; 4] = [16, 128, 1024, 4096];

/// Say what a model is and what it costs
///
/// Architecture, parameters and bytes by part, receptive field, memory. Without M the built-in model. Bytes are of the
/// file; parameters are of the trained model; memory is computed, not measured: the engine's copies of the weights and
/// the largest activations of a layer; the program itself comes on top.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Model: a .onnx file, or a directory with model.int8.onnx or model.onnx (int8 first) [default: the built-in one]
    #[arg(value_name = "M")]
    model: Option<PathBuf>,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Parts of a model, in the order of the report.
const PARTS: [&str; 6] = ["embedding", "mixers", "feed-forward", "norms", "head", "graph constants"];

fn part(weight: Weight) -> usize {
    use LayerWeight as L;
    match weight {
        Weight::Embedding => 0,
        Weight::Layer(_, L::MixerNorm | L::MixerNormBias | L::FfnNorm | L::FfnNormBias) | Weight::FinalNorm => 3,
        Weight::Layer(_, L::Up | L::Down) => 2,
        Weight::Layer(..) => 1,
        Weight::HeadWeight | Weight::HeadBias => 4,
    }
}

/// The part of a tensor in an exported file. Tensors are named after their weight, perhaps with something appended.
fn part_of_tensor(name: &str, weights: &[(String, usize)]) -> usize {
    let belongs = |weight: &str| name.strip_prefix(weight).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    weights.iter().find(|(weight, _)| belongs(weight)).map_or(PARTS.len() - 1, |&(_, part)| part)
}

/// What the report says about sizes.
struct Sizes {
    parameters: [usize; PARTS.len()],
    bytes: [usize; PARTS.len()],
    file: u64,
}

fn sizes(model: &TractModel, file: u64) -> Sizes {
    let config = model.config();
    let mut parameters = [0; PARTS.len()];
    let mut weights = Vec::new();
    for weight in config.weights() {
        let part = part(weight);
        if let Some(n) = parameters.get_mut(part) {
            *n += config.shape(weight).map_or(0, |shape| shape.len());
        }
        weights.push((weight.to_string(), part));
    }
    let mut bytes = [0; PARTS.len()];
    for (name, size) in model.tensors() {
        if let Some(n) = bytes.get_mut(part_of_tensor(name, &weights)) {
            *n += size;
        }
    }
    Sizes { parameters, bytes, file }
}

/// Bytes that the engine needs for texts of up to `tokens` tokens: `2·W + A·tokens`, with attention `+ 8·heads·tokens²`.
///
/// `W` are the bytes of all tensors: the model holds them once and a plan packs them again. `A` is what the widest step of
/// a layer holds for a token: residual, input and output of the wider of mixer (`4·C`) and feed-forward network
/// (`2·C + 2·FF`), 4 bytes each. The scores of attention are there before and after softmax.
fn memory(config: &Config, tensors: usize, tokens: usize) -> usize {
    let (c, ff) = (config.hidden_size, config.intermediate_size);
    let activations = 4 * tokens * (4 * c).max(2 * c + 2 * ff);
    let scores = if config.mixer.is_conv() { 0 } else { 8 * config.num_attention_heads * tokens * tokens };
    2 * tensors + activations + scores
}

/// Runs the command.
pub fn run(args: Args) -> Result<Outcome> {
    let model = open_model(args.model.as_deref())?;
    let (path, file) = match &args.model {
        Some(path) => {
            let path = classifier::find(path)?;
            let size = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
            (path.display().to_string(), size)
        }
        None => ("built in".to_string(), classifier::builtin_bytes() as u64),
    };
    let sizes = sizes(&model, file);
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        writeln!(out, "{}", object(&model, &path, &sizes))?;
    } else {
        table(&mut out, &model, &path, &sizes)?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

fn norm_name(norm: Norm) -> &'static str {
    match norm {
        Norm::PostLayer => "post_layer",
        Norm::PreRms => "pre_rms",
    }
}

fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Max => "max",
    }
}

fn lengths(max_tokens: usize) -> impl Iterator<Item = usize> {
    LENGTHS.into_iter().filter(move |&n| n <= max_tokens)
}

fn object(model: &TractModel, path: &str, sizes: &Sizes) -> Value {
    let config = model.config();
    let max_tokens = model.engine().max_tokens();
    let tensors: usize = sizes.bytes.iter().sum();
    let by_part = |values: &[usize; PARTS.len()]| -> Value {
        PARTS.iter().zip(values).map(|(part, &n)| (part.to_string(), Value::from(n))).collect()
    };
    json!({
        "model": path,
        "engine": engine_name(),
        "precision": model.precision().name(),
        "config": config,
        "config_sha256": model.config_sha256(),
        "labels": model.labels().len(),
        "parameters": config.parameters(),
        "parameters_by_part": by_part(&sizes.parameters),
        "tensor_bytes": tensors,
        "tensor_bytes_by_part": by_part(&sizes.bytes),
        "tokenizer_bytes": model.tokenizer_table().len(),
        "file_bytes": sizes.file,
        "receptive_field": config.receptive_field(),
        "look_ahead": config.look_ahead(),
        "max_tokens": max_tokens,
        "memory": lengths(max_tokens).map(|tokens| json!({
            "tokens": tokens,
            "bytes": memory(config, tensors, tokens),
            "how": "computed",
        })).collect::<Value>(),
    })
}

fn table(out: &mut dyn Write, model: &TractModel, path: &str, sizes: &Sizes) -> Result<()> {
    let config = model.config();
    let max_tokens = model.engine().max_tokens();
    let tensors: usize = sizes.bytes.iter().sum();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<16} {value}");
    line("model", path.to_string())?;
    line("engine", format!("{}, {}", engine_name(), model.precision()))?;
    line("config SHA-256", model.config_sha256().to_string())?;
    line("mixer", mixer(config))?;
    line("layers", format!("{} of {} channels", config.num_hidden_layers, config.hidden_size))?;
    line("feed-forward", format!("{} channels", config.intermediate_size))?;
    line("norm, pooling", format!("{}, {}", norm_name(config.norm), pooling_name(config.pooling)))?;
    line("vocabulary", format!("{} tokens, table of {}", config.vocab_size, bytes(model.tokenizer_table().len())))?;
    line("labels", model.labels().len().to_string())?;
    match (config.receptive_field(), config.look_ahead()) {
        (Some(field), Some(ahead)) => {
            line("receptive field", format!("{field} tokens, {ahead} of them to the right"))?;
        }
        _ => line("receptive field", "the whole text".to_string())?,
    }
    line("longest text", format!("{max_tokens} tokens"))?;
    line("file", bytes(usize::try_from(sizes.file).unwrap_or(usize::MAX)))?;
    writeln!(out, "\n{:<16} {:>12} {:>12}", "part", "parameters", "bytes")?;
    for ((part, parameters), bytes) in PARTS.iter().zip(sizes.parameters).zip(sizes.bytes) {
        writeln!(out, "{part:<16} {parameters:>12} {bytes:>12}")?;
    }
    writeln!(out, "{:<16} {:>12} {tensors:>12}", "all", config.parameters())?;
    writeln!(out, "\nmemory of the engine, computed: two copies of the tensors and a layer's activations")?;
    for tokens in lengths(max_tokens) {
        writeln!(out, "{tokens:>9} tokens {:>12}", bytes(memory(config, tensors, tokens)))?;
    }
    Ok(())
}

/// The mixer with its widths, as `light, kernels 7 7 7, 2 heads`.
fn mixer(config: &Config) -> String {
    let list = |values: &[u16]| values.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let name = config.mixer.name();
    if !config.mixer.is_conv() {
        return format!("{name}, {} heads", config.num_attention_heads);
    }
    let mut text = format!("{name}, kernels {}", list(config.kernel_sizes.as_slice()));
    if config.dilations.as_slice().iter().any(|&d| d != 1) {
        text += &format!(", dilations {}", list(config.dilations.as_slice()));
    }
    if config.mixer != kinglet::spec::Mixer::Dilated {
        text += &format!(", {} heads", config.kernel_heads);
    }
    text
}

/// Bytes for people, with the unit that leaves one to three digits before the point.
fn bytes(n: usize) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 { format!("{n} {name}") } else { format!("{value:.1} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_belong_to_the_part_of_their_weight() {
        let weights = [("embed.weight".to_string(), 0), ("layers.1.ffn.up.weight".to_string(), 2)];
        let parts =
            ["embed.weight", "embed.weight.scale", "layers.1.ffn.up.weight.scale", "layers.11.ffn.up.weight", "axes"]
                .map(|name| part_of_tensor(name, &weights));
        assert_eq!(parts, [0, 0, 2, 5, 5]);
    }

    #[test]
    fn bytes_have_a_unit() {
        assert_eq!([0, 1023, 1024, 1 << 20, 5 << 29].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "2.5 GiB"]);
    }
}
