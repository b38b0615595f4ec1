//! `kinglet-train dev gpu-check`: does CUDA compute what the CPU computes, and how fast is a training step?
//!
//! All data are synthetic. Three parts: scores and gradients of every mixer on both devices, fifty training steps on
//! both, and the time of a step for convolution and attention by text length, with a constant number of tokens per
//! batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use kinglet::spec::{self, Mixer, MixerConfig};
use kinglet_data::files::write_atomically;
use serde::Serialize;
use serde_json::json;
use tch::{Device, Kind, Reduction, Tensor};

use crate::batch::{Batch, targets};
use crate::device::wait;
use crate::machine::{self, Environment};
use crate::model::{Classifier, Mode, ModelConfig};
use crate::optim::{AdafactorConfig, OptimizerConfig, clear_gradients};
use crate::random::SplitMix64;

/// Largest allowed difference of scores and gradients, relative to the largest value of the tensor. cuDNN may use TF32,
/// with a mantissa of 10 bits.
const TENSOR_BOUND: f64 = 2e-3;
/// Largest allowed relative difference of a loss within [`STEPS`] steps; differences of single steps accumulate.
const LOSS_BOUND: f64 = 1e-2;
/// Steps compared.
const STEPS: u64 = 50;
/// Text lengths timed, in tokens.
const LENGTHS: [usize; 6] = [128, 256, 512, 1024, 2048, 4096];
/// Tokens in a timed batch.
const TOKENS: usize = 16_384;
/// Warm-up steps, and steps whose mean time is taken.
const TIMED: (u32, u32) = (3, 10);

/// Compare CUDA with the CPU and time training steps
///
/// Uses synthetic data and takes a few minutes. Exits with 1 if there is no CUDA or the two differ by more than the
/// bounds.
#[derive(Args, Clone, Debug)]
pub struct GpuCheckArgs {
    /// Directory for gpu-check.json
    ///
    /// Otherwise, only print the table.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Comparison of one mixer on two devices.
#[derive(Clone, Debug, Serialize)]
pub struct Agreement {
    /// The mixer.
    pub mixer: &'static str,
    /// Largest difference of the scores, relative to the largest score.
    pub logits: f64,
    /// Largest difference of a gradient, relative to that gradient's largest value.
    pub gradients: f64,
    /// Largest relative difference of a loss within fifty steps.
    pub losses: f64,
}

impl Agreement {
    /// Returns whether all differences are within their bounds; NaN is not.
    pub fn holds(&self) -> bool {
        self.logits <= TENSOR_BOUND && self.gradients <= TENSOR_BOUND && self.losses <= LOSS_BOUND
    }
}

/// The time of a training step.
#[derive(Clone, Debug, Serialize)]
pub struct StepTime {
    /// The mixer.
    pub mixer: &'static str,
    /// `f32` or `bf16`.
    pub precision: &'static str,
    /// Tokens per text, `T`.
    pub length: usize,
    /// Texts in the batch, `B`.
    pub texts: usize,
    /// Milliseconds per step; `None` if it did not fit in memory.
    pub milliseconds: Option<f64>,
}

/// Checks the first CUDA device and prints a table; returns `false` if something differs too much or there is no CUDA.
///
/// # Errors
/// If the report cannot be written or a model cannot be built.
pub fn run(args: &GpuCheckArgs) -> Result<bool> {
    if let Err(reason) = machine::cuda() {
        println!("no CUDA: {reason}");
        return Ok(false);
    }
    let device = Device::Cuda(0);
    let environment = Environment::of(device);
    println!("{} against {}; {} steps", environment.gpus.join(", "), environment.cpu, STEPS);
    println!("\n{:<10} {:>12} {:>12} {:>12}", "mixer", "logits", "gradients", "losses");
    let mut agreements = Vec::new();
    for mixer in Mixer::ALL {
        let agreement = compare(mixer, Device::Cpu, device)?;
        let verdict = if agreement.holds() { "ok" } else { "DIFFERS" };
        let Agreement { mixer, logits, gradients, losses } = agreement;
        println!("{mixer:<10} {logits:>12.2e} {gradients:>12.2e} {losses:>12.2e}  {verdict}");
        agreements.push(agreement);
    }
    println!("\nms per step, {TOKENS} tokens per batch: forward, backward, Adafactor");
    println!("{:<10} {:<5} {}", "mixer", "", LENGTHS.map(|t| format!("{t:>9}")).concat());
    let mut times = Vec::new();
    for (precision, bf16) in [("f32", false), ("bf16", true)] {
        for mixer in [Mixer::Light, Mixer::Attention] {
            let mut cells = String::new();
            for length in LENGTHS {
                let milliseconds = step_time(mixer, length, bf16, device);
                cells += &milliseconds.map_or_else(|| format!("{:>9}", "-"), |ms| format!("{ms:>9.2}"));
                let texts = TOKENS / length;
                times.push(StepTime { mixer: mixer.name(), precision, length, texts, milliseconds });
            }
            println!("{:<10} {precision:<5} {cells}", mixer.name());
        }
    }
    let ok = agreements.iter().all(Agreement::holds);
    println!("\n{}", if ok { "CUDA agrees with the CPU" } else { "CUDA differs from the CPU by more than the bounds" });
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let report = json!({
            "environment": environment, "ok": ok, "agreement": agreements, "step_times": times,
            "bounds": { "tensors": TENSOR_BOUND, "losses": LOSS_BOUND },
        });
        let path = dir.join("gpu-check.json");
        write_atomically(&path, (serde_json::to_string_pretty(&report)? + "\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ok)
}

/// Returns a model's shape for the checks; attention is T5's, with its norm.
fn config(mixer: Mixer, hidden_size: usize, layers: usize) -> ModelConfig {
    let mut config = spec::Config { vocab_size: 1000, num_labels: 4, ..spec::Config::new(mixer, layers, hidden_size) };
    if let MixerConfig::Attention { heads, .. } = &mut config.mixer {
        *heads = 8;
    }
    config.into()
}

/// Returns `texts` random texts of `shortest..=longest` tokens, with labels that depend on the first token.
fn synthetic(texts: usize, shortest: usize, longest: usize, seed: u64) -> (Vec<Vec<u32>>, Vec<usize>) {
    let mut rng = SplitMix64::new(seed);
    let ids: Vec<Vec<u32>> = (0..texts)
        .map(|_| {
            let length = shortest + rng.below((longest - shortest) as u64 + 1) as usize;
            (0..length).map(|_| 3 + rng.below(997) as u32).collect()
        })
        .collect();
    let labels = ids.iter().map(|text| text.first().map_or(0, |&id| id as usize % 4)).collect();
    (ids, labels)
}

/// Trains the same model on both devices and compares.
///
/// # Errors
/// If the model cannot be built.
pub fn compare(mixer: Mixer, a: Device, b: Device) -> Result<Agreement> {
    let one = steps(mixer, a)?;
    let other = steps(mixer, b)?;
    let gradients = one.gradients.iter().zip(&other.gradients).map(|(x, y)| difference(x, y));
    let losses = one.losses.iter().zip(&other.losses).map(|(x, y)| (x - y).abs() / x.abs().max(1e-3));
    Ok(Agreement {
        mixer: mixer.name(),
        logits: difference(&one.logits, &other.logits),
        gradients: largest(gradients),
        losses: largest(losses),
    })
}

/// Returns the largest of some differences; NaN if one is NaN.
fn largest(differences: impl Iterator<Item = f64>) -> f64 {
    differences.fold(0.0, |most, x| if x.is_nan() || x > most { x } else { most })
}

/// Returns `max|x − y| / max|x|`.
fn difference(x: &Tensor, y: &Tensor) -> f64 {
    let most = x.abs().max().double_value(&[]).max(1e-30);
    (x - y).abs().max().double_value(&[]) / most
}

/// Trace of a training: scores and gradients of the first step, and all losses.
struct Trace {
    logits: Tensor,
    gradients: Vec<Tensor>,
    losses: Vec<f64>,
}

fn steps(mixer: Mixer, device: Device) -> Result<Trace> {
    let model = Classifier::new(&config(mixer, 64, 2), 1, Device::Cpu)?.to_device(device)?;
    let mut optimizer = OptimizerConfig::Adafactor(AdafactorConfig::default()).build(model.parameters());
    let mode = Mode { train: true, ..Mode::eval() };
    let mut trace = Trace { logits: Tensor::new(), gradients: Vec::new(), losses: Vec::new() };
    for step in 0..STEPS {
        let (texts, labels) = synthetic(16, 1, 40, step);
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let batch = Batch::new(&texts, device);
        let logits = model.forward(&batch.ids, &batch.mask, &mode);
        let loss = logits.cross_entropy_for_logits(&targets(labels.into_iter().map(Some), device));
        loss.backward();
        trace.losses.push(loss.double_value(&[]));
        if step == 0 {
            trace.logits = logits.detach().to_device(Device::Cpu);
            let gradients = model.parameters().iter().map(|(_, p)| p.grad()).filter(Tensor::defined);
            trace.gradients = gradients.map(|g| g.to_device(Device::Cpu).copy()).collect();
        }
        optimizer.step(1e-2);
        clear_gradients(model.parameters());
    }
    Ok(trace)
}

/// Returns the milliseconds of a training step; `None` if it fails, for example for lack of memory.
fn step_time(mixer: Mixer, length: usize, bf16: bool, device: Device) -> Option<f64> {
    // tch panics if libtorch throws; the message is not useful here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let time = catch_unwind(AssertUnwindSafe(|| timed_steps(mixer, length, bf16, device)));
    std::panic::set_hook(hook);
    time.ok().and_then(Result::ok)
}

fn timed_steps(mixer: Mixer, length: usize, bf16: bool, device: Device) -> Result<f64> {
    let model = Classifier::new(&config(mixer, 512, 6), 1, device)?;
    let mut optimizer = OptimizerConfig::Adafactor(AdafactorConfig::default()).build(model.parameters());
    let mode = Mode { train: true, dropout: 0.1, bf16, ..Mode::eval() };
    let (texts, labels) = synthetic(TOKENS / length, length, length, 1);
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let batch = Batch::new(&texts, device);
    let gold = targets(labels.into_iter().map(Some), device);
    let mut start = Instant::now();
    for step in 0..TIMED.0 + TIMED.1 {
        if step == TIMED.0 {
            wait(device);
            start = Instant::now();
        }
        let logits = model.forward(&batch.ids, &batch.mask, &mode).to_kind(Kind::Float);
        let loss = logits.cross_entropy_loss::<Tensor>(&gold, None, Reduction::Mean, -100, 0.0);
        loss.backward();
        optimizer.step(1e-3);
        clear_gradients(model.parameters());
    }
    wait(device);
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(TIMED.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_agrees_with_itself() {
        tch::set_num_threads(1);
        for mixer in Mixer::ALL {
            let agreement = compare(mixer, Device::Cpu, Device::Cpu).unwrap();
            assert!(agreement.holds() && agreement.logits == 0.0, "{agreement:?}");
        }
    }

    #[test]
    fn a_difference_or_a_nan_does_not_hold() {
        let good = Agreement { mixer: "light", logits: 0.0, gradients: 1e-4, losses: 1e-3 };
        assert!(good.holds());
        assert!(!Agreement { logits: 0.1, ..good.clone() }.holds());
        assert!(!Agreement { gradients: largest([0.0, f64::NAN, 1.0].into_iter()), ..good }.holds());
    }

    #[test]
    fn the_difference_is_relative_to_the_largest_value() {
        let x = Tensor::from_slice(&[1.0f32, -4.0]);
        let y = Tensor::from_slice(&[1.5f32, -4.0]);
        assert_eq!(difference(&x, &y), 0.125);
    }
}
