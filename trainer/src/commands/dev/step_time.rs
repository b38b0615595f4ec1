//! `kinglet-train dev step-time`: times training steps and forward passes of an encoder-decoder, on synthetic data.
//!
//! Without `--table` it is a worker for benches. `benches/train_step.py`, which has the same model in PyTorch, speaks
//! the same lines, so that the two can take turns:
//!
//! | request | answer |
//! |---|---|
//! | when started | `ready VERSION` |
//! | `config` | the model's configuration as JSON in one line (this side only) |
//! | `save FILE` | `saved`: the weights are in the safetensors file (this side only) |
//! | `targets INPUTS` | number of target ids of a span-corrupted example with this many input ids (this side only) |
//! | `flops INPUTS TARGETS` | operations of a forward pass over one example ([`crate::flops`]; this side only) |
//! | `losses INPUTS TARGETS BATCH COUNT` | losses in nats per target token before each of `COUNT` training steps, which are taken |
//! | `run step INPUTS TARGETS BATCH COUNT` | `CPU WALL`: total nanoseconds of the training steps |
//! | `run forward INPUTS TARGETS BATCH COUNT` | the same for forward passes with their loss, without gradients |
//!
//! Errors are answered with `error MESSAGE`. A step does what [`crate::training::train`] does: clear the gradients,
//! loss, backward, Adafactor. The batch is created before the time is taken; the device is done when it ends.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kinglet::spec::Mixer;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::batch::Seq2SeqBatch;
use crate::device::{DeviceChoice, wait};
use crate::flops;
use crate::machine::{self, Libtorch, device_name};
use crate::model::Mode;
use crate::model::seq2seq::{Seq2Seq, Seq2SeqConfig};
use crate::objective::SpanCorruption;
use crate::optim::{AdafactorConfig, Optimizer, OptimizerConfig, clear_gradients};
use crate::tensors::write_tensors;

/// Learning rate of all steps, relative to each weight: that of T5's first 10,000.
const LEARNING_RATE: f64 = 1e-2;
/// Seed of the weights.
const SEED: i64 = 1;
/// First id that is not special.
const FIRST_ID: u32 = 3;

/// Peaks of dense matrix products in 10¹² operations per second, `(name contains, bf16, f32)`: the vendors' data sheets for the
/// modules with HBM, f32 without TF32.
const PEAKS: [(&str, f64, f64); 3] = [("H200", 989.4, 66.9), ("H100", 989.4, 66.9), ("A100", 312.0, 19.5)];

/// Time training steps and forward passes of an encoder-decoder
///
/// Uses synthetic data. With --table, prints a table by length. Otherwise serves measuring scripts: reads requests from
/// stdin and answers on stdout.
#[derive(Args, Clone, Debug)]
pub struct StepTimeArgs {
    /// Size of the model: nano, small or base
    #[arg(long, value_name = "SIZE", default_value = "nano", conflicts_with = "config")]
    pub preset: String,
    /// Model configuration, JSON, such as seq2seq.json of a pre-training run
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Mixer: light, dynamic, dilated or attention
    ///
    /// With --table, several separated by commas.
    #[arg(long, value_name = "MIXER", value_delimiter = ',', default_value = "light", conflicts_with = "config")]
    pub mixer: Vec<String>,
    /// Vocabulary size, including sentinels
    #[arg(long, value_name = "N", default_value_t = 8192, conflicts_with = "config")]
    pub vocab_size: usize,
    /// Use bfloat16 products with f32 master weights
    #[arg(long)]
    pub bf16: bool,
    /// Weight of the z-loss, log²Z
    #[arg(long, value_name = "WEIGHT", default_value_t = 1e-4)]
    pub z_loss: f64,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of libtorch
    ///
    /// Default: all cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Print a table for these input lengths, such as 64,128,256
    #[arg(long, value_name = "LENGTHS", value_delimiter = ',')]
    pub table: Vec<usize>,
    /// Input ids per batch of the table
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub tokens: usize,
    /// Seconds to measure each number of the table
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub seconds: f64,
    /// Peak of the device in 10¹² operations per second, for the utilization
    ///
    /// Known for some GPUs.
    #[arg(long, value_name = "TFLOPS")]
    pub peak: Option<f64>,
    /// Print the table as JSON
    #[arg(long, requires = "table")]
    pub json: bool,
}

/// CPU and wall time.
#[derive(Clone, Copy, Debug)]
struct Took {
    cpu: Duration,
    wall: Duration,
}

/// The pass to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pass {
    Step,
    Forward,
}

/// The size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    inputs: usize,
    targets: usize,
    batch: usize,
}

/// Builds the timed model from a configuration.
type Make = Box<dyn Fn(&Seq2SeqConfig) -> Result<Trainee>>;

/// Serves requests. The model is created for the first request that needs its weights.
struct Worker {
    config: Seq2SeqConfig,
    make: Make,
    trainee: Option<Trainee>,
}

/// A model with its optimizer, and the last batch.
struct Trainee {
    model: Seq2Seq,
    optimizer: Box<dyn Optimizer>,
    mode: Mode,
    z_loss: f64,
    held: Option<(Shape, Seq2SeqBatch)>,
}

/// Returns the CPU time used by all threads of this process.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Trainee {
    fn new(config: &Seq2SeqConfig, device: Device, bf16: bool, z_loss: f64) -> Result<Self> {
        let model = Seq2Seq::new(config, SEED, device)?;
        let optimizer = OptimizerConfig::Adafactor(AdafactorConfig::default()).build(model.parameters());
        let mode = Mode { train: true, bf16, ..Mode::eval() };
        Ok(Trainee { model, optimizer, mode, z_loss, held: None })
    }

    /// Creates the batch of `shape`, unless it is the current one.
    fn hold(&mut self, shape: Shape) -> Result<()> {
        if self.held.as_ref().is_none_or(|(held, _)| *held != shape) {
            self.held = None;
            let batch = synthetic(shape, self.model.config().encoder.vocab_size, self.model.device())?;
            self.held = Some((shape, batch));
        }
        Ok(())
    }

    fn batch(&self) -> Result<&Seq2SeqBatch> {
        self.held.as_ref().map(|(_, batch)| batch).context("no batch")
    }

    /// Takes a training step; returns the loss before it in nats per target token, on the device.
    fn step(&mut self) -> Result<Tensor> {
        clear_gradients(self.model.parameters());
        let loss = self.model.loss(self.batch()?, self.z_loss, &self.mode);
        let mean = loss.sum / loss.tokens as f64;
        mean.backward();
        self.optimizer.step(LEARNING_RATE);
        Ok(mean.detach())
    }

    /// Runs a forward pass with its loss.
    fn forward(&self) -> Result<Tensor> {
        tch::no_grad(|| Ok(self.model.loss(self.batch()?, self.z_loss, &self.mode).sum))
    }

    fn run(&mut self, pass: Pass, shape: Shape, count: usize) -> Result<Took> {
        self.hold(shape)?;
        wait(self.model.device());
        let (cpu, wall) = (cpu_time(), Instant::now());
        for _ in 0..count {
            let _ = match pass {
                Pass::Step => self.step()?,
                Pass::Forward => self.forward()?,
            };
        }
        wait(self.model.device());
        Ok(Took { cpu: cpu_time() - cpu, wall: wall.elapsed() })
    }

    fn losses(&mut self, shape: Shape, count: usize) -> Result<Vec<f64>> {
        self.hold(shape)?;
        (0..count).map(|_| Ok(self.step()?.to_kind(Kind::Double).double_value(&[]))).collect()
    }
}

/// Returns ids that depend on their index alone, without padding: `3 + ((i + 1)·2654435761 mod 2³²) mod (V − 3)`, where
/// `i` counts the inputs row by row and then the targets. `benches/train_step.py` has the same formula.
fn synthetic(shape: Shape, vocab_size: usize, device: Device) -> Result<Seq2SeqBatch> {
    let Shape { inputs, targets, batch } = shape;
    ensure!(inputs > 0 && targets > 0 && batch > 0, "a batch of {batch} with {inputs} and {targets} ids is empty");
    let range = u32::try_from(vocab_size)?.saturating_sub(FIRST_ID).max(1);
    let id = |i: usize| FIRST_ID + (i as u32 + 1).wrapping_mul(2_654_435_761) % range;
    let row = |row: usize| {
        let first = batch * inputs + row * targets;
        let input: Vec<u32> = (row * inputs..(row + 1) * inputs).map(id).collect();
        (input, (first..first + targets).map(id).collect())
    };
    Ok(Seq2SeqBatch::new(&(0..batch).map(row).collect::<Vec<(Vec<u32>, Vec<u32>)>>(), device))
}

/// Returns the number of target ids of an example with `inputs` input ids, corrupted as in T5.
fn target_ids(inputs: usize) -> usize {
    SpanCorruption::default().lengths(inputs).targets
}

/// Serves a worker, or prints a table.
///
/// # Errors
/// If the configuration is not valid, the device is missing, or stdin or stdout break.
pub fn run(args: &StepTimeArgs) -> Result<()> {
    let device = args.device.resolve()?;
    let configs = args.configs()?;
    if !args.table.is_empty() {
        return table(args, &configs, device);
    }
    let [config] = configs.as_slice() else { bail!("several mixers need --table") };
    config.validate()?;
    let (bf16, z_loss) = (args.bf16, args.z_loss);
    let make = move |config: &Seq2SeqConfig| Trainee::new(config, device, bf16, z_loss);
    serve(Worker { config: config.clone(), make: Box::new(make), trainee: None })
}

impl StepTimeArgs {
    fn configs(&self) -> Result<Vec<Seq2SeqConfig>> {
        if let Some(path) = &self.config {
            let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let config: Seq2SeqConfig = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
            return Ok(vec![config.resolve()]);
        }
        let config = |name: &String| {
            let mixer = Mixer::ALL.into_iter().find(|m| m.name() == name);
            let mixer =
                mixer.with_context(|| format!("--mixer {name}: must be light, dynamic, dilated or attention"))?;
            Seq2SeqConfig::preset(&self.preset, mixer, self.vocab_size)
                .with_context(|| format!("--preset {}: must be nano, small or base", self.preset))
        };
        self.mixer.iter().map(config).collect()
    }

    /// Returns the peak of the device in operations per second, if it is known or given.
    fn peak(&self, device: Device) -> Option<f64> {
        let known = || {
            let name = machine::gpus().into_iter().nth(if let Device::Cuda(n) = device { n } else { return None })?;
            let (_, bf16, f32) = PEAKS.into_iter().find(|(part, ..)| name.contains(part))?;
            Some(if self.bf16 { bf16 } else { f32 })
        };
        self.peak.or_else(known).map(|tera| tera * 1e12)
    }
}

fn serve(mut worker: Worker) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let version = Libtorch::loaded().version.unwrap_or_else(|| "unknown".to_owned());
    writeln!(out, "ready {version}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        match worker.answer(&line?) {
            Ok(answer) => writeln!(out, "{answer}")?,
            Err(e) => writeln!(out, "error {}", format!("{e:#}").replace('\n', " "))?,
        }
        out.flush()?;
    }
    Ok(())
}

impl Worker {
    fn trainee(&mut self) -> Result<&mut Trainee> {
        if self.trainee.is_none() {
            self.trainee = Some((self.make)(&self.config)?);
        }
        self.trainee.as_mut().context("no model")
    }

    fn answer(&mut self, line: &str) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<usize>().with_context(|| format!("`{word}` is no number"));
        let shape = |[inputs, targets, batch]: [&str; 3]| -> Result<Shape> {
            Ok(Shape { inputs: number(inputs)?, targets: number(targets)?, batch: number(batch)? })
        };
        match words[..] {
            ["config"] => Ok(serde_json::to_string(&self.config)?),
            ["save", file] => {
                write_tensors(file.as_ref(), self.trainee()?.model.parameters())?;
                Ok("saved".to_owned())
            }
            ["targets", inputs] => Ok(target_ids(number(inputs)?).to_string()),
            ["flops", inputs, targets] => {
                Ok(flops::seq2seq(&self.config, number(inputs)?, number(targets)?).total().to_string())
            }
            ["losses", inputs, targets, batch, count] => {
                let losses = self.trainee()?.losses(shape([inputs, targets, batch])?, number(count)?)?;
                Ok(losses.iter().map(f64::to_string).collect::<Vec<_>>().join(" "))
            }
            ["run", pass @ ("step" | "forward"), inputs, targets, batch, count] => {
                let pass = if pass == "step" { Pass::Step } else { Pass::Forward };
                let took = self.trainee()?.run(pass, shape([inputs, targets, batch])?, number(count)?)?;
                Ok(format!("{} {}", took.cpu.as_nanos(), took.wall.as_nanos()))
            }
            _ => bail!("`{line}` is no request"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
struct Row {
    mixer: &'static str,
    precision: &'static str,
    pass: Pass,
    /// Input ids of an example.
    length: usize,
    /// Target ids of an example.
    targets: usize,
    /// Examples in a batch.
    batch: usize,
    /// By the wall clock; `None` if it did not fit in memory.
    examples_per_second: Option<f64>,
    /// Input and target ids.
    tokens_per_second: Option<f64>,
    /// Operations of the model's formulas ([`crate::flops`]) per second over the device's peak.
    utilization: Option<f64>,
}

fn table(args: &StepTimeArgs, configs: &[Seq2SeqConfig], device: Device) -> Result<()> {
    ensure!(args.seconds > 0.0, "--seconds is {}, must be above 0", args.seconds);
    let peak = args.peak(device);
    let precision = if args.bf16 { "bf16" } else { "f32" };
    let header = format!(
        "{:<10} {:<8} {:>7} {:>8} {:>6} {:>12} {:>12} {:>6}",
        "mixer", "pass", "length", "targets", "batch", "examples/s", "tokens/s", "MFU"
    );
    if !args.json {
        println!("{}, {precision}, {} input ids per batch\n{header}", device_name(device), args.tokens);
    }
    let mut rows = Vec::new();
    for config in configs {
        for pass in [Pass::Step, Pass::Forward] {
            for &length in &args.table {
                let shape = Shape { inputs: length, targets: target_ids(length), batch: (args.tokens / length).max(1) };
                let Shape { targets, batch, .. } = shape;
                let seconds = seconds(args, config, device, pass, shape);
                let flops = flops::seq2seq(config, length, targets);
                let flops = if pass == Pass::Step { flops.training() } else { flops.total() } as f64;
                let row = Row {
                    mixer: config.encoder.mixer.name(),
                    precision,
                    pass,
                    length,
                    targets,
                    batch,
                    examples_per_second: seconds.map(|s| batch as f64 / s),
                    tokens_per_second: seconds.map(|s| (batch * (length + targets)) as f64 / s),
                    utilization: seconds.zip(peak).map(|(s, peak)| flops * batch as f64 / s / peak),
                };
                if !args.json {
                    println!("{}", row.line()?);
                }
                rows.push(row);
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

impl Row {
    fn line(&self) -> Result<String> {
        let Row { mixer, pass, length, targets, batch, .. } = self;
        let pass = if *pass == Pass::Step { "step" } else { "forward" };
        let mut out = format!("{mixer:<10} {pass:<8} {length:>7} {targets:>8} {batch:>6}");
        for rate in [self.examples_per_second, self.tokens_per_second] {
            let cell = rate.map_or_else(|| "no memory".to_owned(), |rate| format!("{rate:.1}"));
            write!(out, " {cell:>12}")?;
        }
        let share = self.utilization.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        write!(out, " {share:>6}")?;
        Ok(out)
    }
}

/// Returns the seconds of one pass by the wall clock; `None` if it fails, for example for lack of memory.
fn seconds(args: &StepTimeArgs, config: &Seq2SeqConfig, device: Device, pass: Pass, shape: Shape) -> Option<f64> {
    // tch panics if libtorch throws; the message is not useful here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let timed = || -> Result<f64> {
        let mut trainee = Trainee::new(config, device, args.bf16, args.z_loss)?;
        trainee.run(pass, shape, 2)?;
        let once = trainee.run(pass, shape, 1)?.wall.as_secs_f64();
        let count = (args.seconds / once.max(1e-9)).ceil().clamp(1.0, 10_000.0) as usize;
        Ok(trainee.run(pass, shape, count)?.wall.as_secs_f64() / count as f64)
    };
    let seconds = catch_unwind(AssertUnwindSafe(timed));
    std::panic::set_hook(hook);
    seconds.ok().and_then(Result::ok)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn worker() -> Worker {
        let mut config = Seq2SeqConfig::preset("nano", Mixer::Light, 300).unwrap();
        (config.encoder.hidden_size, config.encoder.intermediate_size) = (16, 32);
        let make = |config: &Seq2SeqConfig| Trainee::new(config, Device::Cpu, false, 1e-4);
        Worker { config, make: Box::new(make), trainee: None }
    }

    #[test]
    fn requests_are_answered() {
        let mut worker = worker();
        let config = worker.answer("config").unwrap();
        assert_eq!(serde_json::from_str::<Seq2SeqConfig>(&config).unwrap(), worker.config);
        assert_eq!(worker.answer("targets 512").unwrap(), "114");
        assert!(worker.trainee.is_none());
        let times = worker.answer("run forward 8 3 2 1").unwrap();
        assert!(times.split(' ').all(|n| n.parse::<u64>().unwrap() > 0), "{times}");
        for bad in ["run step 8 3 2", "run sideways 8 3 2 1", "run step 0 3 2 1", "flops 8 x", "", "save"] {
            assert!(worker.answer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_lower_the_loss() {
        let line = worker().answer("losses 12 5 4 8").unwrap();
        let losses: Vec<f64> = line.split(' ').map(|x| x.parse().unwrap()).collect();
        assert_eq!(losses.len(), 8);
        assert!(losses[7] < losses[0], "{losses:?}");
    }

    #[test]
    fn ids_are_those_of_the_formula() {
        let batch = synthetic(Shape { inputs: 2, targets: 1, batch: 2 }, 103, Device::Cpu).unwrap();
        let ids: Vec<i64> = Vec::try_from(batch.ids.flatten(0, 1)).unwrap();
        let want = |i: u64| 3 + (((i + 1) * 2_654_435_761) % (1 << 32) % 100) as i64;
        assert_eq!(ids, [want(0), want(1), want(2), want(3)]);
        assert_eq!(batch.targets.int64_value(&[1, 0]), want(5));
    }
}
