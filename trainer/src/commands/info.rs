//! `kinglet-train info`: cost of a pre-training model, from its shape alone.
//!
//! [`crate::flops`] defines the operations.

use std::fmt::Write as _;

use anyhow::Result;
use clap::Args;
use kinglet::spec::Weight;
use serde::Serialize;

use crate::commands::shape::ShapeArgs;
use crate::flops;
use crate::model::seq2seq::{DecoderWeight, Seq2SeqConfig, Seq2SeqWeight};
use crate::optim::FACTORED_FROM;
use crate::tasks::pretrain::config::Config;
use crate::training::config::{Keys, OptimizerName};

/// Show parameters, FLOPs and memory of a model for pre-training
#[derive(Args, Clone, Debug)]
pub struct InfoArgs {
    /// Shape of the model.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Ids of the tokenizer
    ///
    /// Sentinels are added. Default: T5's number.
    #[arg(long, value_name = "N", default_value_t = 32_000)]
    pub vocab_size: usize,
    /// Input lengths in ids for FLOPs and memory, separated by commas
    ///
    /// Targets are as long as span corruption makes them. Default: train.inputs_length.
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(4..))]
    pub lengths: Vec<u32>,
    /// Change one key of the configuration
    ///
    /// May be repeated. Example: --set model.encoder.hidden_size=512
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Parameters by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Parameters {
    /// The embedding, which is also the output matrix.
    pub embedding: usize,
    /// Mixers of the encoder, with their norms.
    pub encoder_mixers: usize,
    /// The encoder's feed-forward networks, with their norms.
    pub encoder_ffn: usize,
    /// Mixers of the decoder, with their norms.
    pub decoder_mixers: usize,
    /// The encoder-decoder attention, with its norms.
    pub cross_attention: usize,
    /// The decoder's feed-forward networks, with their norms.
    pub decoder_ffn: usize,
    /// The norms after the last layers.
    pub final_norms: usize,
}

impl Parameters {
    /// Counts the parameters of a model.
    pub fn of(config: &Seq2SeqConfig) -> Self {
        let mut out = Parameters::default();
        for (weight, shape) in config.weights() {
            let part = match weight {
                Seq2SeqWeight::Encoder(weight) => match weight.block() {
                    Some(block) if block.is_ffn() => &mut out.encoder_ffn,
                    Some(_) => &mut out.encoder_mixers,
                    None if weight == Weight::Embedding => &mut out.embedding,
                    None => &mut out.final_norms,
                },
                Seq2SeqWeight::DecoderFinalNorm => &mut out.final_norms,
                Seq2SeqWeight::Decoder(_, DecoderWeight::Block(w)) if w.is_ffn() => &mut out.decoder_ffn,
                Seq2SeqWeight::Decoder(_, DecoderWeight::Block(_)) => &mut out.decoder_mixers,
                Seq2SeqWeight::Decoder(..) => &mut out.cross_attention,
            };
            *part += shape.iter().product::<usize>();
        }
        out
    }

    /// Returns the sum of all parts.
    pub const fn total(&self) -> usize {
        self.encoder() + self.decoder_mixers + self.cross_attention + self.decoder_ffn
    }

    /// Returns the parameters of the encoder, with the embedding and both final norms, if there are any.
    pub const fn encoder(&self) -> usize {
        self.embedding + self.encoder_mixers + self.encoder_ffn + self.final_norms
    }
}

/// FLOPs of one example, as [`crate::flops`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Input ids, `S`.
    pub inputs: usize,
    /// Target ids, `T`.
    pub targets: usize,
    /// The encoder's forward pass on `S` ids.
    pub encoder: u64,
    /// The decoder's forward pass on `T` ids, including its attention to the encoder's `S` vectors and the output.
    pub decoder: u64,
    /// Forward and backward pass of both.
    pub step: u64,
}

impl Cost {
    /// Counts an example of `inputs` and `targets` ids.
    pub fn of(config: &Seq2SeqConfig, inputs: usize, targets: usize) -> Self {
        let all = flops::seq2seq(config, inputs, targets);
        let encoder = flops::stack(&config.encoder, inputs).total();
        Cost { inputs, targets, encoder, decoder: all.total() - encoder, step: all.training() }
    }
}

/// Bytes needed by a step, f32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// The weights.
    pub weights: f64,
    /// Their gradients.
    pub gradients: f64,
    /// State of the optimizer.
    pub optimizer: f64,
    /// Approximate memory that the forward pass keeps for the backward pass, for the examples computed at once: see
    /// [`Memory::of`].
    pub activations: f64,
    /// The same with `train.gradient_checkpointing`.
    pub activations_recomputed: f64,
    /// Weights, gradients, optimizer and the activations of the configuration.
    pub total: f64,
}

impl Memory {
    /// Counts a step with `examples` computed at once, of the lengths of `cost`.
    ///
    /// The activations are an estimate, compared with measurements of the light mixer: a block keeps 7 vectors of `C`
    /// numbers and one of `FF` per position; the encoder-decoder attention 4 of `C` and the encoder's keys and values;
    /// attention scores count twice, and the output's scores three times. The kernels of a dynamic mixer and the
    /// savings of bf16 are not counted. With recomputation, a block keeps its input; in addition to all inputs there is
    /// either the output or the inside of one block.
    pub fn of(config: &Seq2SeqConfig, train: &Keys, cost: &Cost, examples: usize) -> Self {
        let numbers = config.parameters() as f64;
        let optimizer: f64 = config
            .weights()
            .map(|(_, shape)| match (train.optimizer, shape.as_slice()) {
                (OptimizerName::AdamW, shape) => 2 * shape.iter().product::<usize>(),
                (OptimizerName::Adafactor, &[rows, columns]) if rows.min(columns) as i64 >= FACTORED_FROM => {
                    rows + columns
                }
                (OptimizerName::Adafactor, shape) => shape.iter().product(),
            } as f64)
            .sum();
        let (s, t) = (cost.inputs as f64, cost.targets as f64);
        let (c, ff) = (config.encoder.hidden_size as f64, config.encoder.intermediate_size as f64);
        let heads = config.num_attention_heads as f64;
        let scores = |rows: f64, columns: f64| 2.0 * heads * rows * columns;
        let own = |t: f64| if config.encoder.mixer.is_conv() { 0.0 } else { scores(t, t) };
        let block = |t: f64| t * (7.0 * c + ff) + own(t);
        let (encoders, decoders) = (config.encoder.num_hidden_layers as f64, config.num_decoder_layers as f64);
        let cross = t * 4.0 * c + s * 2.0 * c + scores(t, s);
        let output = 3.0 * t * config.encoder.vocab_size as f64;
        let kept = encoders * block(s) + decoders * (block(t) + cross) + output;
        // The encoder's output is an input of every decoder block, once in memory.
        let inputs = (encoders + 1.0) * s * c + decoders * t * c;
        let recomputed = inputs + output.max(block(s)).max(block(t) + cross);
        let bytes = |numbers: f64| 4.0 * numbers;
        let of_examples = |numbers: f64| bytes(examples as f64 * numbers);
        let (activations, activations_recomputed) = (of_examples(kept), of_examples(recomputed));
        let chosen = if train.gradient_checkpointing { activations_recomputed } else { activations };
        Memory {
            weights: bytes(numbers),
            gradients: bytes(numbers),
            optimizer: bytes(optimizer),
            activations,
            activations_recomputed,
            total: bytes(2.0 * numbers + optimizer) + chosen,
        }
    }
}

/// Prints the cost of the model on stdout.
///
/// # Errors
/// If the configuration is not a valid model.
pub fn run(args: &InfoArgs) -> Result<()> {
    let (config, model) = args.shape.resolve(args.vocab_size, &args.overrides, None)?;
    config.validate(1)?;
    let parameters = Parameters::of(&model);
    let given: Vec<usize> = args.lengths.iter().map(|&n| n as usize).collect();
    let lengths = if given.is_empty() { vec![config.train.own.inputs_length] } else { given };
    let costs: Vec<(Cost, Memory)> = lengths.iter().map(|&n| cost(&config, &model, n)).collect();
    if args.json {
        let costs: Vec<_> =
            costs.iter().map(|(cost, memory)| serde_json::json!({ "flops": cost, "memory": memory })).collect();
        println!("{}", serde_json::json!({ "model": model, "parameters": parameters, "lengths": costs }));
    } else {
        print!("{}", describe(&config, &parameters, &costs));
    }
    Ok(())
}

/// Returns the examples that one process computes at once.
fn at_once(config: &Config) -> usize {
    config.train.keys.batch_size / config.train.keys.accumulate.max(1)
}

/// Returns the cost of an example of `inputs` ids, and of a step with the parts that the configuration computes at
/// once.
fn cost(config: &Config, model: &Seq2SeqConfig, inputs: usize) -> (Cost, Memory) {
    let cost = Cost::of(model, inputs, config.objective.lengths(inputs).targets);
    let memory = Memory::of(model, &config.train.keys, &cost, at_once(config));
    (cost, memory)
}

fn describe(config: &Config, parameters: &Parameters, costs: &[(Cost, Memory)]) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    for (part, count) in [
        ("embedding", parameters.embedding),
        ("encoder mixers", parameters.encoder_mixers),
        ("encoder ffn", parameters.encoder_ffn),
        ("decoder mixers", parameters.decoder_mixers),
        ("cross-attention", parameters.cross_attention),
        ("decoder ffn", parameters.decoder_ffn),
        ("final norms", parameters.final_norms),
        ("all parameters", parameters.total()),
    ] {
        line(format_args!("{part:<16} {count:>12}"));
    }
    for (cost, memory) in costs {
        let Cost { inputs, targets, encoder, decoder, step } = *cost;
        let per_token = |flops: u64| flops as f64 / inputs as f64 / 1e6;
        line(format_args!("{inputs} inputs, {targets} targets; million FLOPs per input token:"));
        line(format_args!("  encoder        {:>12.2}  forward", per_token(encoder)));
        line(format_args!("  decoder        {:>12.2}  forward", per_token(decoder)));
        line(format_args!("  step           {:>12.2}  forward and backward", per_token(step)));
        let examples = at_once(config);
        line(format_args!("  memory of a step in MiB, f32, {examples} examples at once in one process:"));
        for (part, bytes) in [
            ("weights", memory.weights),
            ("gradients", memory.gradients),
            ("optimizer", memory.optimizer),
            ("activations", memory.activations),
            ("or recomputed", memory.activations_recomputed),
            ("together", memory.total),
        ] {
            let about = match part {
                "activations" => "  about",
                "or recomputed" => "  about, with train.gradient_checkpointing",
                "together" if config.train.keys.gradient_checkpointing => "  about, with recomputed activations",
                "together" => "  about",
                _ => "",
            };
            line(format_args!("  {part:<14} {:>12.1}{about}", bytes / f64::from(1 << 20)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use kinglet::spec::Mixer;
    use tch::{Device, Tensor};

    use super::*;
    use crate::batch::Seq2SeqBatch;
    use crate::memory::PeakMemory;
    use crate::model::Mode;
    use crate::model::seq2seq::Seq2Seq;
    use crate::objective::SpanCorruption;

    fn nano(mixer: Mixer) -> Seq2SeqConfig {
        Seq2SeqConfig::preset("nano", mixer, 512).unwrap()
    }

    #[test]
    fn parameters_and_the_optimizers_memory_are_those_of_the_real_model() {
        for mixer in Mixer::ALL {
            let config = nano(mixer);
            let model = Seq2Seq::new(&config, 1, Device::Cpu).unwrap();
            let real: usize = model.parameters().iter().map(|(_, p)| p.numel()).sum();
            assert_eq!(Parameters::of(&config).total(), real, "{mixer:?}");
            for optimizer in [OptimizerName::Adafactor, OptimizerName::AdamW] {
                let train = Keys { optimizer, ..Keys::default() };
                let counted = Memory::of(&config, &train, &Cost::of(&config, 8, 4), 1);
                let state = train.optimizer_config().build(model.parameters()).state();
                let floats = |(name, tensor): &(String, Tensor)| if name == "step" { 0 } else { 4 * tensor.numel() };
                let real: usize = state.iter().map(floats).sum();
                assert_eq!((counted.optimizer, counted.weights), (real as f64, counted.gradients), "{mixer:?}");
            }
        }
    }

    #[test]
    fn the_activations_are_about_those_that_a_step_takes() {
        let config = nano(Mixer::Light);
        let pairs = vec![(vec![7u32; 128], vec![9u32; 29]); 4];
        let batch = Seq2SeqBatch::new(&pairs, Device::Cpu);
        let mut ratios = Vec::new();
        for recompute in [false, true] {
            let model = Seq2Seq::new(&config, 1, Device::Cpu).unwrap();
            let mode = Mode { train: true, recompute, ..Mode::eval() };
            let peak = PeakMemory::start(Device::Cpu).unwrap();
            model.loss(&batch, 0.0, &mode).sum.backward();
            let train = Keys { gradient_checkpointing: recompute, ..Keys::default() };
            let memory = Memory::of(&config, &train, &Cost::of(&config, 128, 29), 4);
            let here = memory.total - memory.weights - memory.optimizer;
            ratios.push(here / peak.bytes().unwrap() as f64);
        }
        assert!(ratios.iter().all(|ratio| (0.7..1.5).contains(ratio)), "{ratios:?} of the measured peaks");
    }

    #[test]
    fn the_papers_pre_training_takes_24_exaflops() {
        // 524,288 steps of 128 examples of 512 ids, light, base: 2.4e19 FLOPs.
        let config = Seq2SeqConfig::preset("base", Mixer::Light, 32_128).unwrap();
        let targets = SpanCorruption::default().lengths(512).targets;
        let all = Cost::of(&config, 512, targets).step as f64 * 128.0 * 524_288.0;
        assert!((2.35e19..2.5e19).contains(&all), "{all:e}");
    }
}
