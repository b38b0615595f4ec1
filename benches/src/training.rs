//! A training step and a forward pass of the encoder-decoder compared with the same model in eager PyTorch, in turns.
//!
//! Kinglet runs `kinglet-train dev step-time`, the peer is `benches/train_step.py`; each runs in its own process and speaks
//! the protocol documented in `trainer/src/commands/dev/step_time.rs`. Before anything is timed, both must have the same losses, on
//! the first batch and after steps of the optimizer. A round has three turns: Kinglet, the peer, and Kinglet's
//! Transformer at the shortest length, the reference of the paper's Figure 1.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kinglet::spec::Mixer;
use serde::{Deserialize, Serialize};

use crate::machine::Provenance;
use crate::pairs::{Effort, Quartiles, rounds};
use crate::peer::{Peer, Time};
use crate::results::put;

/// The lengths that are measured, in input ids: the paper's.
pub const LENGTHS: [usize; 7] = [64, 128, 256, 512, 1024, 2048, 4096];
/// The length of the Transformer that all speeds of Figure 1 are relative to.
pub const REFERENCE: usize = LENGTHS[0];
/// Effort for published results.
pub const EFFORT: Effort = Effort { least: 9, most: 25, seconds: 20.0, turn: 0.2 };
/// The model whose operations are counted, and its vocabulary: the paper's.
pub const COUNTED: (&str, usize) = ("base", 32_128);

/// Address space of a process, in GiB. CUDA reserves far more than it uses.
const LIMIT_GIB: u64 = 64;
const LIMIT_GIB_CUDA: u64 = 4096;
/// Training steps whose losses are compared.
const STEPS: usize = 3;
/// Largest relative difference of the first loss, and of those after steps; under bf16, where the two round at
/// different places, of all.
const FIRST_LOSS: f64 = 1e-5;
const LATER_LOSS: f64 = 1e-3;
const BF16_LOSS: f64 = 2e-2;

/// Results in `training.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Training {
    /// A comparison for each mixer, size, device and precision.
    pub comparisons: Vec<Comparison>,
    /// Operations by mixer and length.
    pub operations: Vec<Operations>,
}

/// Kinglet's training compared with PyTorch's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Where it was measured.
    pub provenance: Provenance,
    /// The mixer.
    pub mixer: String,
    /// Size of the model.
    pub preset: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// `f32` or `bf16`.
    pub precision: String,
    /// Threads of each side.
    pub threads: usize,
    /// PyTorch's version.
    pub version: String,
    /// Relative difference of the losses on the first batch.
    pub first_loss: f64,
    /// Largest relative difference after steps of the optimizer.
    pub later_loss: f64,
    /// By pass and length, ascending.
    pub rows: Vec<Row>,
}

/// One pass at one length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `step` or `forward`.
    pub pass: String,
    /// Input ids of an example.
    pub length: usize,
    /// Target ids of an example.
    pub targets: usize,
    /// Examples in a batch.
    pub batch: usize,
    /// Rounds measured.
    pub rounds: usize,
    /// CPU time of PyTorch relative to Kinglet: above 1, Kinglet is faster.
    pub ratio: Quartiles,
    /// The same for wall time.
    pub ratio_wall: Quartiles,
    /// Examples per second of CPU time, relative to our Transformer at [`REFERENCE`].
    pub speed: Quartiles,
    /// The same for wall time.
    pub speed_wall: Quartiles,
}

impl Comparison {
    /// Returns whether wall time counts: the CPU clock does not see the work of a CUDA device.
    pub fn by_wall(&self) -> bool {
        self.device != "cpu"
    }

    /// Returns the ratio that counts.
    pub fn ratio<'r>(&self, row: &'r Row) -> &'r Quartiles {
        if self.by_wall() { &row.ratio_wall } else { &row.ratio }
    }

    /// Returns the speed that counts.
    pub fn speed<'r>(&self, row: &'r Row) -> &'r Quartiles {
        if self.by_wall() { &row.speed_wall } else { &row.speed }
    }
}

/// Operations of a forward pass over one example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    /// The mixer.
    pub mixer: String,
    /// Input ids.
    pub length: usize,
    /// Target ids.
    pub targets: usize,
    /// Floating-point operations.
    pub forward: u64,
}

impl Training {
    /// Adds a comparison, replacing an older one of the same model, device and precision.
    pub fn put(&mut self, new: Comparison) {
        put(&mut self.comparisons, new, |c| (c.mixer.clone(), c.preset.clone(), c.device.clone(), c.precision.clone()));
    }
}

/// What is compared, and the programs that do it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The `kinglet-train` program.
    pub trainer: PathBuf,
    /// A Python with PyTorch.
    pub python: PathBuf,
    /// `benches/train_step.py`.
    pub script: PathBuf,
    /// Folder for passing weights.
    pub folder: PathBuf,
    /// Size of the model.
    pub preset: String,
    /// Ids of the vocabulary.
    pub vocab_size: usize,
    /// Input ids per batch, for any length.
    pub tokens: usize,
    /// Device of both sides.
    pub device: String,
    /// Whether products run in bfloat16.
    pub bf16: bool,
    /// Threads of each side.
    pub threads: usize,
}

impl Setup {
    /// Our side for a model.
    fn ours(&self, preset: &str, vocab_size: usize, mixer: Mixer) -> Result<Peer> {
        let mut words = vec![text(&self.trainer), "dev".to_owned(), "step-time".to_owned()];
        let options = [("--preset", preset), ("--mixer", mixer.name()), ("--vocab-size", &vocab_size.to_string())];
        words.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]));
        words.extend(self.common());
        Peer::spawn(&format!("kinglet-train, {}", mixer.name()), &words, &[], self.limit())
    }

    /// Returns the peer with the configuration and the weights of `ours`.
    fn peer(&self, ours: &mut Peer, mixer: Mixer) -> Result<Peer> {
        let weights = text(&self.folder.join(format!("training-{}-{}.safetensors", mixer.name(), self.preset)));
        ensure!(!weights.contains(char::is_whitespace), "the folder {weights} must have no white space in its name");
        ours.ask(&format!("save {weights}"))?;
        let mut words = vec![text(&self.python), text(&self.script), weights, ours.ask("config")?];
        words.extend(self.common());
        Peer::spawn(&format!("train_step.py, {}", mixer.name()), &words, &[], self.limit())
    }

    fn common(&self) -> Vec<String> {
        let mut words = ["--device", &self.device, "--threads", &self.threads.to_string()].map(str::to_owned).to_vec();
        if self.bf16 {
            words.push("--bf16".to_owned());
        }
        words
    }

    fn limit(&self) -> u64 {
        if self.device == "cpu" { LIMIT_GIB } else { LIMIT_GIB_CUDA }
    }

    fn precision(&self) -> &'static str {
        if self.bf16 { "bf16" } else { "f32" }
    }

    /// Returns the batch for examples of `length` input ids.
    fn batch(&self, ours: &mut Peer, length: usize) -> Result<Batch> {
        Ok(Batch { length, targets: targets(ours, length)?, batch: (self.tokens / length).max(1) })
    }
}

/// The size of a batch.
#[derive(Clone, Copy, Debug)]
struct Batch {
    length: usize,
    targets: usize,
    batch: usize,
}

impl Batch {
    /// Returns the request that runs `pass` `count` times.
    fn request(&self, pass: &str, count: usize) -> String {
        format!("run {pass} {} {} {} {count}", self.length, self.targets, self.batch)
    }
}

fn targets(ours: &mut Peer, length: usize) -> Result<usize> {
    let line = ours.ask(&format!("targets {length}"))?;
    line.parse().with_context(|| format!("`{line}` is no number"))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Compares training steps and forward passes of a model with `mixer` at every length.
///
/// # Errors
/// If a side cannot be started or fails, or their losses show that they do not train the same model.
pub fn compare(
    setup: &Setup,
    mixer: Mixer,
    lengths: &[usize],
    effort: Effort,
    provenance: &Provenance,
) -> Result<Comparison> {
    let mut ours = setup.ours(&setup.preset, setup.vocab_size, mixer)?;
    let mut peer = setup.peer(&mut ours, mixer)?;
    let mut reference = setup.ours(&setup.preset, setup.vocab_size, Mixer::Attention)?;
    let (first_loss, later_loss) = losses(setup, &mut ours, &mut peer, lengths)?;
    let least = setup.batch(&mut reference, REFERENCE)?;
    let mut rows = Vec::new();
    for pass in ["step", "forward"] {
        for &length in lengths {
            eprintln!("training: {}, {} on {}, {pass}, {length} ids", mixer.name(), setup.precision(), setup.device);
            let batch = setup.batch(&mut ours, length)?;
            let sides = [(&mut ours, batch), (&mut peer, batch), (&mut reference, least)];
            rows.push(row(sides, pass, effort).with_context(|| format!("{pass}, {length} ids"))?);
        }
    }
    Ok(Comparison {
        provenance: provenance.clone(),
        mixer: mixer.name().to_owned(),
        preset: setup.preset.clone(),
        device: setup.device.clone(),
        precision: setup.precision().to_owned(),
        threads: setup.threads,
        version: peer.version.clone(),
        first_loss,
        later_loss,
        rows,
    })
}

/// Returns the relative differences of the losses: of the first, and the largest after steps.
fn losses(setup: &Setup, ours: &mut Peer, peer: &mut Peer, lengths: &[usize]) -> Result<(f64, f64)> {
    let batch = setup.batch(ours, lengths.iter().copied().min().context("no length")?)?;
    let request = format!("losses {} {} {} {STEPS}", batch.length, batch.targets, batch.batch.min(8));
    let ask = |peer: &mut Peer| -> Result<Vec<f64>> {
        let line = peer.ask(&request)?;
        line.split(' ').map(|x| x.parse().with_context(|| format!("`{line}` are no losses"))).collect()
    };
    let (a, b) = (ask(ours)?, ask(peer)?);
    let (first, later) = differences(&a, &b)?;
    let (most_first, most_later) = if setup.bf16 { (BF16_LOSS, BF16_LOSS) } else { (FIRST_LOSS, LATER_LOSS) };
    ensure!(first <= most_first, "the two are not the same model: first losses {a:?} and {b:?}");
    ensure!(later <= most_later, "the two do not take the same steps: losses {a:?} and {b:?}");
    Ok((first, later))
}

fn differences(a: &[f64], b: &[f64]) -> Result<(f64, f64)> {
    ensure!(a.len() == b.len(), "{} losses and {}", a.len(), b.len());
    let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a - b).abs() / a.abs()).collect();
    let [first, later @ ..] = apart.as_slice() else { bail!("no loss") };
    let worst = |most: f64, &x: &f64| if x.is_nan() { f64::INFINITY } else { most.max(x) };
    Ok((worst(0.0, first), later.iter().fold(0.0, worst)))
}

/// Measures rounds of three sides. The first run of each, which touches memory for the first time, does not count.
fn row(sides: [(&mut Peer, Batch); 3], pass: &str, effort: Effort) -> Result<Row> {
    let [(ours, batch), (peer, _), (reference, least)] = sides;
    let mut peers = [ours, peer, reference];
    let batches = [batch, batch, least];
    let mut counts = [1; 3];
    let mut seconds = 0.0;
    for side in 0..3 {
        peers[side].time(&batches[side].request(pass, 1))?;
        let once = peers[side].time(&batches[side].request(pass, 1))?.wall as f64 / 1e9;
        counts[side] = effort.runs(once);
        seconds += once * counts[side] as f64;
    }
    let rounds: Vec<[Time; 3]> =
        rounds(effort.pairs(seconds), |side| peers[side].time(&batches[side].request(pass, counts[side])))?;
    // Time of one example.
    let each = |round: &[Time; 3], side: usize, pick: fn(&Time) -> u64| {
        pick(&round[side]) as f64 / (counts[side] * batches[side].batch) as f64
    };
    let ratios = |side: usize, pick: fn(&Time) -> u64| {
        Quartiles::of(rounds.iter().map(|round| each(round, side, pick) / each(round, 0, pick))).context("no round")
    };
    let cpu = |time: &Time| time.cpu;
    let wall = |time: &Time| time.wall;
    Ok(Row {
        pass: pass.to_owned(),
        length: batch.length,
        targets: batch.targets,
        batch: batch.batch,
        rounds: rounds.len(),
        ratio: ratios(1, cpu)?,
        ratio_wall: ratios(1, wall)?,
        speed: ratios(2, cpu)?,
        speed_wall: ratios(2, wall)?,
    })
}

/// Returns the operations of the base model's forward pass by length, for every mixer, without running it.
///
/// # Errors
/// If Kinglet's side cannot be started.
pub fn operations(setup: &Setup) -> Result<Vec<Operations>> {
    let (preset, vocab_size) = COUNTED;
    let mut all = Vec::new();
    for mixer in Mixer::ALL {
        let mut ours = setup.ours(preset, vocab_size, mixer)?;
        for length in LENGTHS {
            let targets = targets(&mut ours, length)?;
            let line = ours.ask(&format!("flops {length} {targets}"))?;
            let forward = line.parse().with_context(|| format!("`{line}` is no number"))?;
            all.push(Operations { mixer: mixer.name().to_owned(), length, targets, forward });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_and_the_later_ones_are_told_apart() {
        let (first, later) = differences(&[10.0, 8.0, 4.0], &[10.0, 8.4, 4.0]).unwrap();
        assert_eq!(first, 0.0);
        assert!((later - 0.05).abs() < 1e-12);
        assert_eq!(differences(&[1.0, 2.0], &[f64::NAN, 2.0]).unwrap(), (f64::INFINITY, 0.0));
        assert!(differences(&[1.0], &[]).is_err());
        assert!(differences(&[], &[]).is_err());
    }

    #[test]
    fn a_row_is_by_example_and_not_by_batch() {
        // Sides that take as many nanoseconds as the request has runs, times their own number.
        let side = |factor: u32| {
            let script = format!(
                "echo ready 1; while read -r run pass length targets batch count; do \
                 echo $((count * {factor}000000)) $((count * {factor}000000)); done"
            );
            Peer::spawn("shell", &["sh".to_owned(), "-c".to_owned(), script], &[], 8).unwrap()
        };
        let (mut ours, mut peer, mut reference) = (side(2), side(3), side(1));
        let batch = Batch { length: 128, targets: 29, batch: 4 };
        let least = Batch { length: 64, targets: 14, batch: 8 };
        let effort = Effort { least: 3, most: 3, seconds: 1.0, turn: 0.001 };
        let row = row([(&mut ours, batch), (&mut peer, batch), (&mut reference, least)], "step", effort).unwrap();
        assert_eq!((row.ratio.median, row.ratio_wall.low), (1.5, 1.5));
        // 2 ms for 4 examples against 1 ms for 8.
        assert_eq!(row.speed.median, 0.25);
        assert_eq!((row.rounds, row.length, row.batch), (3, 128, 4));
    }

    #[test]
    fn measuring_again_replaces_the_older_result() {
        let comparison = |mixer: &str, threads| Comparison {
            provenance: Provenance::now("test"),
            mixer: mixer.to_owned(),
            preset: "nano".to_owned(),
            device: "cpu".to_owned(),
            precision: "f32".to_owned(),
            threads,
            version: "2".to_owned(),
            first_loss: 0.0,
            later_loss: 0.0,
            rows: Vec::new(),
        };
        let mut training = Training::default();
        for (mixer, threads) in [("light", 1), ("attention", 1), ("light", 2)] {
            training.put(comparison(mixer, threads));
        }
        assert_eq!(training.comparisons.len(), 2);
        assert_eq!(training.comparisons[0].threads, 2);
    }
}
