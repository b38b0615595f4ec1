//! What a device has, what a model takes of it, and the models to choose from.
//!
//! Bytes of flash and RAM are computed exactly from the shape of a model, but for the program around the engine: [`CODE`] and [`STACK`] are
//! those of the library on a Cortex-M4F (`docs/results/everywhere.md`). Instructions per token are those of the backend `cortex-m-dsp`,
//! `A · MACs + B · C · L` with multiply-accumulates of the layers, channels `C` and layers `L`; both factors are fitted to the two models
//! counted there.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use kinglet::bundle::{Parts, write};
use kinglet::engine::native::{DEFAULT_CHUNK, scratch_bytes};
use kinglet::multi_label::{Decision, MultiLabel};
use kinglet::spec::{Config, Task};
use kinglet_data::survey::grouped;
use serde::{Deserialize, Serialize};

use crate::recipes::SCRATCH;
use crate::tasks::classify::config::Config as Training;
use crate::training::config::parse;

/// Bytes of the engine's code in flash.
pub const CODE: usize = 100_000;
/// Bytes of stack that the engine uses.
pub const STACK: usize = 9_000;
/// Bytes of code and tables, and of RAM, for a tokenizer that brings texts into NFC.
const NFC: [usize; 2] = [21_500, 136];
const A: f64 = 0.948;
const B: f64 = 495.0;
/// Tokens that are processed together, the fastest first.
const CHUNKS: [usize; 5] = [DEFAULT_CHUNK, 16, 8, 4, 1];
/// A clock in Hz, unless one is given: that of an STM32F405.
const CLOCK: f64 = 168e6;

/// What a device has; what is not given is not limited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Bytes of flash for model and engine.
    pub flash: Option<usize>,
    /// Bytes of RAM.
    pub ram: Option<usize>,
    /// Milliseconds for a text, at one instruction per cycle.
    pub ms: Option<f64>,
    /// Cycles per second.
    pub clock: f64,
}

impl FromStr for Budget {
    type Err = String;

    /// Parses `flash=256K,ram=64K,ms=5,clock=168M`, each at most once and in any order.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut budget = Budget { flash: None, ram: None, ms: None, clock: CLOCK };
        let mut seen = Vec::new();
        for part in text.split(',') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let wrong = || format!("{part:?} is none of flash=BYTES, ram=BYTES, ms=MILLISECONDS, clock=HERTZ");
            let number = |scale: [f64; 2]| -> Result<f64, String> {
                let (digits, factor) = match value.strip_suffix(['K', 'k']) {
                    Some(digits) => (digits, scale[0]),
                    None => value.strip_suffix('M').map_or((value, 1.0), |digits| (digits, scale[1])),
                };
                let number: f64 = digits.parse().map_err(|_| wrong())?;
                if number.is_finite() && number > 0.0 {
                    Ok(number * factor)
                } else {
                    Err(format!("{part:?} must be above 0"))
                }
            };
            let bytes = [1024.0, 1024.0 * 1024.0];
            match name.trim() {
                "flash" => budget.flash = Some(number(bytes)? as usize),
                "ram" => budget.ram = Some(number(bytes)? as usize),
                "ms" => budget.ms = Some(number([1.0, 1.0])?),
                "clock" => budget.clock = number([1e3, 1e6])?,
                _ => return Err(wrong()),
            }
            if seen.contains(&name) {
                return Err(format!("{name} is given twice"));
            }
            seen.push(name);
        }
        Ok(budget)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = [("flash", self.flash.map(|n| n as f64)), ("ram", self.ram.map(|n| n as f64)), ("ms", self.ms)];
        limits
            .iter()
            .filter_map(|(name, limit)| Some((name, (*limit)?)))
            .try_for_each(|(name, limit)| write!(f, "{name}={limit},"))?;
        write!(f, "clock={}", self.clock)
    }
}

/// What a model takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Bytes of `model.kinglet`.
    pub bundle: usize,
    /// Bytes of the engine's code.
    pub code: usize,
    /// Bytes of RAM: working memory in chunks of `chunk` tokens, and stack.
    pub ram: usize,
    /// Tokens that are processed together.
    pub chunk: usize,
    /// Instructions per token.
    pub instructions: f64,
    /// Tokens of the text that is timed.
    pub tokens: usize,
    /// Milliseconds for the text at the budget's clock.
    pub ms: f64,
    clock: f64,
}

impl Budget {
    /// Returns what a model of this shape takes whose bundle has `bundle` bytes, for a text of `tokens` tokens, in the largest chunks that fit.
    /// `nfc`: whether its tokenizer brings texts into NFC.
    pub fn cost(&self, config: &Config, bundle: usize, tokens: usize, nfc: bool) -> Cost {
        let [code, stack] = if nfc { [CODE + NFC[0], STACK + NFC[1]] } else { [CODE, STACK] };
        let ram = |chunk: usize| scratch_bytes(config, chunk).saturating_add(stack);
        let fits = |chunk: &usize| self.ram.is_none_or(|most| ram(*chunk) <= most);
        let chunk = CHUNKS.into_iter().find(fits).unwrap_or(1);
        let instructions = instructions(config);
        let ms = 1e3 * instructions * tokens as f64 / self.clock;
        Cost { bundle, code, ram: ram(chunk), chunk, instructions, tokens, ms, clock: self.clock }
    }

    /// Returns what a model takes more than there is, in words; `None` if it fits.
    pub fn excess(&self, cost: &Cost) -> Option<String> {
        let mut over = Vec::new();
        if let Some(flash) = self.flash.filter(|&flash| cost.flash() > flash) {
            over.push(format!("{} bytes of flash, {} are there", grouped(cost.flash()), grouped(flash)));
        }
        if let Some(ram) = self.ram.filter(|&ram| cost.ram > ram) {
            over.push(format!("{} bytes of RAM, {} are there", grouped(cost.ram), grouped(ram)));
        }
        if let Some(ms) = self.ms.filter(|&ms| cost.ms > ms) {
            let mhz = self.clock / 1e6;
            over.push(format!("{:.2} ms for {} tokens at {mhz} MHz, {ms} are there", cost.ms, cost.tokens));
        }
        (!over.is_empty()).then(|| over.join("; "))
    }
}

impl Cost {
    /// Returns the bytes of flash: bundle and code.
    fn flash(&self) -> usize {
        self.bundle + self.code
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes of flash ({} of them the engine), {} of RAM ({} tokens at a time), {} instructions per token: {:.2} ms for {} tokens at {} MHz",
            grouped(self.flash()),
            grouped(self.code),
            grouped(self.ram),
            self.chunk,
            grouped(self.instructions as usize),
            self.ms,
            self.tokens,
            self.clock / 1e6
        )
    }
}

/// Returns the instructions per token of a convolutional model.
fn instructions(config: &Config) -> f64 {
    let (c, inside, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
    let widths: usize =
        config.mixer.kernels().map_or(0, |kernels| kernels.sizes.as_slice().iter().map(|&k| usize::from(k)).sum());
    // Two matrices of the GLU, the one after the convolution, and the two of the feed-forward network.
    let macs = layers * (3 * c * c + 2 * c * inside) + c * widths;
    // Two lookups of an n-gram and, if both are found, two additions of 64 bits for each label: an estimate from above, not counted.
    let ngrams = if config.ngrams > 0 { 400 + 12 * config.num_labels } else { 0 };
    A * macs as f64 + B * (c * layers) as f64 + ngrams as f64
}

/// Returns the bytes of a bundle without n-grams, by writing one of zeros.
///
/// # Errors
/// If the parts do not fit together.
pub fn bundle_bytes(config: &Config, tokenizer: &[u8], labels: &[String]) -> Result<usize> {
    let longest = config.weights().filter_map(|weight| config.shape(weight)).map(|shape| shape.len()).max();
    let zeros = vec![0.0; longest.unwrap_or(0)];
    let calibration = Some(kinglet::calibration::Calibration {
        temperature: 1.0,
        threshold: 0.5,
        error_rate: 0.05,
        set_threshold: 0.5,
        coverage: 0.95,
        rows: 100,
        out_of_scope: None,
    });
    let thresholds = vec![0.5; config.num_labels];
    let decision = match config.task {
        Task::MultiLabel => Decision::Any(MultiLabel { thresholds: &thresholds, calibration: None }),
        Task::Classify | Task::Embed => Decision::One(calibration),
    };
    let parts = Parts { config, tokenizer, labels, decision, ngrams: None };
    let weight = |weight| config.shape(weight).and_then(|shape| zeros.get(..shape.len())).unwrap_or_default();
    Ok(write(&parts, weight).context("a model of this shape")?.len())
}

/// The shape of a model that is trained from scratch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Channels.
    pub hidden_size: usize,
    /// Widths of the kernels, one per layer.
    pub kernel_sizes: Vec<usize>,
    /// Most ids of the vocabulary.
    pub vocab_size: usize,
}

impl Shape {
    /// Returns the shapes to choose from, the largest first.
    pub fn all() -> Vec<Shape> {
        const FOUR: &[usize] = &[4, 7, 15, 15];
        const TWO: &[usize] = &[7, 15];
        const ALL: [(usize, &[usize], usize); 12] = [
            (128, FOUR, 16_384),
            (128, FOUR, 8192),
            (128, FOUR, 4096),
            (128, TWO, 4096),
            (128, TWO, 2048),
            (96, TWO, 2048),
            (96, TWO, 1536),
            (64, TWO, 1536),
            (64, TWO, 1024),
            (48, TWO, 768),
            (32, TWO, 640),
            (32, &[7], 512),
        ];
        let shape = |(hidden_size, kernels, vocab_size): (usize, &[usize], usize)| Shape {
            hidden_size,
            kernel_sizes: kernels.to_vec(),
            vocab_size,
        };
        ALL.map(shape).to_vec()
    }

    /// Returns the settings that change the recipe to this shape.
    pub fn settings(&self) -> Vec<String> {
        let Shape { hidden_size, kernel_sizes, .. } = self;
        vec![
            format!("model.hidden_size={hidden_size}"),
            format!("model.intermediate_size={}", 2 * hidden_size),
            format!("model.num_hidden_layers={}", kernel_sizes.len()),
            format!("model.kernel_sizes={kernel_sizes:?}"),
        ]
    }

    /// Returns the configuration of a model with so many ids and classes.
    ///
    /// # Errors
    /// If the shape is impossible.
    pub fn config(&self, vocab_size: usize, num_labels: usize) -> Result<Config> {
        let training: Training = parse(SCRATCH, toml::Table::new(), &self.settings())?;
        let mut model = training.model.context("the recipe has no model")?;
        (model.vocab_size, model.num_labels) = (vocab_size, num_labels);
        let model = model.resolve();
        model.validate()?;
        Ok(model.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_as_people_write_them() {
        let budget: Budget = "flash=256K,ram=64K,ms=5".parse().unwrap();
        assert_eq!(budget, Budget { flash: Some(262_144), ram: Some(65_536), ms: Some(5.0), clock: 168e6 });
        assert_eq!(budget.to_string().parse(), Ok(budget));
        let budget: Budget = "clock=48M,flash=1.5M".parse().unwrap();
        assert_eq!(budget, Budget { flash: Some(1_572_864), ram: None, ms: None, clock: 48e6 });
        for (text, word) in [
            ("flash", "flash=BYTES"),
            ("rom=3", "\"rom=3\""),
            ("ram=-1", "above 0"),
            ("ms=1,ms=2", "twice"),
            ("", "flash=BYTES"),
        ] {
            let error = text.parse::<Budget>().unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn instructions_are_those_that_were_counted() {
        // docs/results/everywhere.md, MPS2 AN386, cortex-m-dsp: intents-nano and intents.
        for (shape, ids, counted) in [
            (Shape { hidden_size: 96, kernel_sizes: vec![7, 15], vocab_size: 1536 }, 1536, 219_281.0),
            (Shape { hidden_size: 128, kernel_sizes: vec![4, 7, 15, 15], vocab_size: 4096 }, 4096, 693_081.0),
        ] {
            let got = instructions(&shape.config(ids, 151).unwrap());
            assert!((got / counted - 1.0).abs() < 0.005, "{got} instead of {counted}");
        }
    }

    #[test]
    fn a_bundle_has_the_bytes_that_are_computed() {
        use kinglet::bundle::{Kind, OwnedBundle, ReadBundle};
        let bytes =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/intents-nano/model.kinglet")).unwrap();
        let bundle = OwnedBundle::new(&bytes).unwrap();
        let labels: Vec<String> = bundle.labels().iter().map(String::from).collect();
        let section = bundle.bundle().sections().find(|section| section.kind == Kind::TOKENIZER).unwrap();
        let tokenizer = &bytes[section.offset..section.offset + section.bytes];
        assert_eq!(bundle_bytes(bundle.config(), tokenizer, &labels).unwrap(), bytes.len());
    }

    #[test]
    fn what_does_not_fit_is_said_with_its_numbers() {
        let config = Shape::all().last().unwrap().config(512, 4).unwrap();
        let budget: Budget = "flash=100K,ram=4K,ms=0.1".parse().unwrap();
        let cost = budget.cost(&config, 30_000, 20, false);
        assert_eq!(cost.chunk, 1);
        let over = budget.excess(&cost).unwrap();
        assert!(
            over.contains("130,000 bytes of flash, 102,400 are there")
                && over.contains("of RAM")
                && over.contains("ms for 20 tokens"),
            "{over}"
        );
        let plenty: Budget = "flash=1M,ram=1M,ms=100".parse().unwrap();
        let composing = budget.cost(&config, 30_000, 20, true);
        assert_eq!([composing.flash() - cost.flash(), composing.ram - cost.ram], NFC);
        let cost = plenty.cost(&config, 30_000, 20, false);
        assert_eq!((cost.chunk, plenty.excess(&cost)), (DEFAULT_CHUNK, None));
    }

    #[test]
    fn shapes_grow_smaller() {
        let sizes: Vec<usize> =
            Shape::all().iter().map(|shape| shape.config(shape.vocab_size, 10).unwrap().parameters()).collect();
        assert!(sizes.windows(2).all(|pair| pair[0] > pair[1]), "{sizes:?}");
    }
}
