//! `kinglet info`: architecture, size and memory of a model.

use std::io::Write;

use anyhow::Result;
use kinglet::calibration::Calibration;
use kinglet::multi_label::Decision;
use kinglet::spec::{Config, LayerWeight, Norm, Pooling, Task, Weight};
use serde_json::Value;

mod bundle;
mod command;
#[cfg(feature = "tract")]
mod onnx;

pub use command::{Args, run};

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

/// Parameters of each part.
fn parameters(config: &Config) -> [usize; PARTS.len()] {
    let mut parameters = [0; PARTS.len()];
    for weight in config.weights() {
        if let Some(n) = parameters.get_mut(part(weight)) {
            *n += config.shape(weight).map_or(0, |shape| shape.len());
        }
    }
    parameters
}

/// The lines that every report starts with.
struct Heading<'a> {
    path: String,
    engine: String,
    config: &'a Config,
    labels: usize,
    decision: Decision<'a>,
    /// Length of the file.
    bytes: usize,
    /// Of the file, in hex.
    sha256: String,
}

impl Heading<'_> {
    fn write(&self, out: &mut dyn Write, engine: &str, tokenizer: usize, max_tokens: usize) -> Result<()> {
        let config = self.config;
        let mut line = |name: &str, value: String| writeln!(out, "{name:<16} {value}");
        line("model", self.path.clone())?;
        line("engine", engine.to_string())?;
        line("SHA-256", self.sha256.clone())?;
        line("mixer", mixer(config))?;
        line("layers", format!("{} of {} channels", config.num_hidden_layers, config.hidden_size))?;
        line("feed-forward", format!("{} channels", config.intermediate_size))?;
        line("norm, pooling", format!("{}, {}", norm_name(config.norm), pooling_name(config.pooling)))?;
        line("vocabulary", format!("{} tokens, table of {}", config.vocab_size, bytes(tokenizer)))?;
        if config.ngrams > 0 {
            line("n-grams", format!("{} tokens and pairs of tokens with scores of their own", config.ngrams))?;
        }
        if config.task == Task::Embed {
            line("embeds", format!("into vectors of {} values, of length 1", config.num_labels))?;
        } else {
            let any = if self.decision.is_multi_label() { ", any number of which may apply to a text" } else { "" };
            line("labels", format!("{}{any}", self.labels))?;
        }
        match self.decision {
            _ if config.task == Task::Embed => {}
            Decision::Any(labels) => {
                let (least, most) = labels.thresholds.iter().fold((1f32, 0f32), |(a, b), &t| (a.min(t), b.max(t)));
                match labels.calibration {
                    Some(c) => {
                        line("calibrated", format!("on {} texts, temperature {:.3}", c.rows, c.temperature))?;
                        let held = percent(c.coverage);
                        let sets =
                            format!("threshold {:.3}: hold {held}% of a text's labels on average", c.set_threshold);
                        line("label sets", sets)?;
                    }
                    None => line("calibrated", "no".to_string())?,
                }
                line("thresholds", format!("{least:.3} to {most:.3}, one per label"))?;
            }
            Decision::One(Some(c)) => {
                line("calibrated", format!("on {} texts, temperature {:.3}", c.rows, c.temperature))?;
                let wrong = percent(c.error_rate);
                line("unsure", format!("at or below {:.3}: at most {wrong}% of labels wrong", c.threshold))?;
                let right = percent(c.coverage);
                line("label sets", format!("threshold {:.3}: {right}% contain the correct label", c.set_threshold))?;
                line("which holds for", mixture(&c))?;
            }
            Decision::One(None) => {
                line("calibrated", "no: scores are plain softmax values, and no answer is unsure".to_string())?
            }
        }
        match (config.receptive_field(), config.look_ahead()) {
            (Some(field), Some(ahead)) => {
                line("receptive field", format!("{field} tokens, {ahead} of them to the right"))?;
            }
            _ => line("receptive field", "the whole text".to_string())?,
        }
        line("longest text", format!("{max_tokens} tokens"))?;
        line("file", bytes(self.bytes))?;
        Ok(())
    }

    /// Returns the thresholds of the labels, or null where a text has one.
    fn thresholds(&self) -> Value {
        match self.decision {
            Decision::One(_) => Value::Null,
            Decision::Any(labels) => {
                labels.thresholds.iter().map(|&threshold| crate::output::number(threshold)).collect()
            }
        }
    }

    /// Returns the calibration with the shortest digits that identify its numbers as f32, or null.
    fn calibration(&self) -> Value {
        let text = match self.decision {
            Decision::One(calibration) => serde_json::to_string(&calibration),
            Decision::Any(labels) => serde_json::to_string(&labels.calibration),
        };
        text.and_then(|text| serde_json::from_str(&text)).unwrap_or(Value::Null)
    }
}

/// Says for which texts the promises of a calibration hold.
fn mixture(calibration: &Calibration) -> String {
    match calibration.out_of_scope {
        None => "texts like those it was calibrated on, mixed like them".to_string(),
        Some(share) => {
            format!("texts like those it was calibrated on, {}% of them out of scope", percent(share))
        }
    }
}

/// Returns a share in percent, with its original digits.
fn percent(share: f32) -> f32 {
    (share * 1e6).round() / 1e4
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

/// Describes the mixer and its widths, as `light, kernels 7 7 7, 2 heads`.
fn mixer(config: &Config) -> String {
    let list = |values: &[u16]| values.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let mut text = config.mixer.name().to_owned();
    if let Some(kernels) = config.mixer.kernels() {
        text += &format!(", kernels {}", list(kernels.sizes.as_slice()));
    }
    let dilations = config.mixer.parameters().dilations;
    if dilations.as_slice().iter().any(|&d| d != 1) {
        text += &format!(", dilations {}", list(dilations.as_slice()));
    }
    let heads = config.mixer.kernel_heads().max(config.mixer.attention_heads());
    if heads > 0 {
        text += &format!(", {heads} heads");
    }
    text
}

/// Formats bytes with the unit that leaves one to three digits before the point.
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
    fn bytes_have_a_unit() {
        assert_eq!([0, 1023, 1024, 1 << 20, 5 << 29].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "2.5 GiB"]);
    }
}
