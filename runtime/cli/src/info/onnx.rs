//! The report of `kinglet info` on ONNX files.

use std::io::Write;

use anyhow::Result;
use kinglet::engine::native::{DEFAULT_CHUNK, scratch_bytes};
use kinglet_onnx::TractModel;
use serde_json::{Value, json};

use super::{Heading, PARTS, bytes, parameters, part};

/// Lengths, in tokens, for which memory is estimated.
const LENGTHS: [usize; 4] = [16, 128, 1024, 4096];

/// Returns the part of a tensor in an exported file. Tensors are named after their weight, perhaps with a suffix.
fn part_of_tensor(name: &str, weights: &[(String, usize)]) -> usize {
    let belongs = |weight: &str| name.strip_prefix(weight).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    weights.iter().find(|(weight, _)| belongs(weight)).map_or(PARTS.len() - 1, |&(_, part)| part)
}

/// Returns the names of the parts; the last is the bundle of a custom operator, otherwise the constants of the graph.
fn part_names(model: &TractModel) -> [&'static str; PARTS.len()] {
    let mut names = PARTS;
    if let ([.., last], true) = (&mut names, model.is_custom_op()) {
        *last = "bundle";
    }
    names
}

/// What the report says about sizes.
struct Sizes {
    parameters: [usize; PARTS.len()],
    bytes: [usize; PARTS.len()],
}

fn sizes(model: &TractModel) -> Sizes {
    let config = model.config();
    let parameters = parameters(config);
    let weights: Vec<(String, usize)> = config.weights().map(|weight| (weight.to_string(), part(weight))).collect();
    let mut bytes = [0; PARTS.len()];
    for (name, size) in model.tensors() {
        if let Some(n) = bytes.get_mut(part_of_tensor(name, &weights)) {
            *n += size;
        }
    }
    Sizes { parameters, bytes }
}

/// Returns the bytes that the engine needs for texts of up to `tokens` tokens: `2·W + A·tokens`, with attention `+
/// 8·heads·tokens²`.
///
/// `W` are the bytes of all tensors: the model holds them once and a plan packs them again. `A` is the memory of the
/// widest step of a layer per token: residual, input and output of the wider of mixer (`4·C`) and feed-forward network
/// (`2·C + 2·FF`), 4 bytes each. Scores of attention exist before and after softmax.
///
/// A custom operator needs its bundle and one thread's scratch, for any length.
fn memory(model: &TractModel, tensors: usize, tokens: usize) -> usize {
    let config = model.config();
    if model.is_custom_op() {
        return tensors + scratch_bytes(config, DEFAULT_CHUNK);
    }
    let (c, ff) = (config.hidden_size, config.intermediate_size);
    let activations = 4 * tokens * (4 * c).max(2 * c + 2 * ff);
    let scores = if config.mixer.is_conv() { 0 } else { 8 * config.mixer.attention_heads() * tokens * tokens };
    2 * tensors + activations + scores
}

fn lengths(max_tokens: usize) -> impl Iterator<Item = usize> {
    LENGTHS.into_iter().filter(move |&n| n <= max_tokens)
}

pub(super) fn object(model: &TractModel, heading: &Heading<'_>) -> Value {
    let config = model.config();
    let sizes = sizes(model);
    let max_tokens = model.max_tokens();
    let tensors: usize = sizes.bytes.iter().sum();
    let names = part_names(model);
    let by_part = |values: &[usize; PARTS.len()]| -> Value {
        names.iter().zip(values).map(|(part, &n)| (part.to_string(), Value::from(n))).collect()
    };
    json!({
        "model": heading.path,
        "engine": heading.engine,
        "precision": model.precision().name(),
        "config": config,
        "config_sha256": model.config_sha256(),
        "labels": model.labels().len(),
        "calibrated": heading.decision.is_calibrated(),
        "calibration": heading.calibration(),
        "thresholds": heading.thresholds(),
        "parameters": config.parameters(),
        "parameters_by_part": by_part(&sizes.parameters),
        "tensor_bytes": tensors,
        "tensor_bytes_by_part": by_part(&sizes.bytes),
        "tokenizer_bytes": model.tokenizer_table().len(),
        "file_bytes": heading.bytes,
        "sha256": heading.sha256,
        "receptive_field": config.receptive_field(),
        "look_ahead": config.look_ahead(),
        "max_tokens": max_tokens,
        "memory": lengths(max_tokens).map(|tokens| json!({
            "tokens": tokens,
            "bytes": memory(model, tensors, tokens),
            "how": "computed",
        })).collect::<Value>(),
    })
}

pub(super) fn table(out: &mut dyn Write, model: &TractModel, heading: &Heading<'_>) -> Result<()> {
    let config = model.config();
    let sizes = sizes(model);
    let max_tokens = model.max_tokens();
    let tensors: usize = sizes.bytes.iter().sum();
    heading.write(
        out,
        &format!("{}, {}", heading.engine, model.precision()),
        model.tokenizer_table().len(),
        max_tokens,
    )?;
    writeln!(out, "\n{:<16} {:>12} {:>12}", "part", "parameters", "bytes")?;
    for ((part, parameters), bytes) in part_names(model).iter().zip(sizes.parameters).zip(sizes.bytes) {
        writeln!(out, "{part:<16} {parameters:>12} {bytes:>12}")?;
    }
    writeln!(out, "{:<16} {:>12} {tensors:>12}", "all", config.parameters())?;
    let what = if model.is_custom_op() {
        "the bundle and the scratch of a thread"
    } else {
        "two copies of the tensors and a layer's activations"
    };
    writeln!(out, "\nmemory of the engine, computed: {what}")?;
    for tokens in lengths(max_tokens) {
        writeln!(out, "{tokens:>9} tokens {:>12}", bytes(memory(model, tensors, tokens)))?;
    }
    Ok(())
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
}
