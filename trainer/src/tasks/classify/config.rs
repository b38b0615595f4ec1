//! The training configuration: a documented structure with defaults, read from TOML, unknown keys refused.
//!
//! ```toml
//! [model]                    # fields of `kinglet::spec::Config`; sizes of vocabulary and labels come from the data
//! mixer = "light"
//! hidden_size = 128
//! num_hidden_layers = 4
//! intermediate_size = 512
//! kernel_sizes = [7]
//!
//! [train]                    # fields of `Train`
//! epochs = 20
//! lr = 1e-3
//! ```

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kinglet::spec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::optim::{AdafactorConfig, AdamWConfig, Decay, OptimizerConfig, Schedule};

/// A training configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The model's shape. May be left out when training starts from a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<spec::Config>,
    /// How it is trained.
    #[serde(default)]
    pub train: Train,
}

/// How a model is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Passes over the training file. Default 10.
    pub epochs: u64,
    /// Most texts in a batch. Default 64, as the paper fine-tunes.
    pub batch_size: usize,
    /// Most tokens in a batch, padding included; 0 for no limit. Default 16,384.
    pub batch_tokens: usize,
    /// Texts are sorted by length within windows of this many batches. Default 50.
    pub bucket_batches: usize,
    /// Texts are cut after this many tokens while training, `</s>` included; 0 for never. Default 512.
    pub max_length: usize,
    /// Peak learning rate. Default 1e-3.
    pub lr: f64,
    /// What updates the weights. Default adafactor. Also read as `optimiser`, its old name.
    #[serde(alias = "optimiser")]
    pub optimizer: OptimizerName,
    /// Fraction of the embedding and of matrices taken away a step, times the step's size. Default 0.
    pub weight_decay: f64,
    /// How the learning rate goes on after the warm-up. Default constant, as the paper fine-tunes.
    pub schedule: Decay,
    /// Steps in which the learning rate rises in a straight line. Default 0.
    pub warmup_steps: u64,
    /// First step of the inverse square root; 0 for the end of the warm-up. Default 0.
    pub decay_after: u64,
    /// What is left of the learning rate at the last step (linear, cosine). Default 0.
    pub final_fraction: f64,
    /// Gradients are scaled down to this global norm; 0 for never. Default 1.
    pub clip_norm: f64,
    /// Probability that an activation is dropped. Default 0.1.
    pub dropout: f64,
    /// Probability that a kernel weight is dropped, drawn for each weight and batch. Default 0.
    pub drop_connect: f64,
    /// Share of the target probability spread over all classes. Default 0.
    pub label_smoothing: f64,
    /// Weights of the classes in the loss. Default none.
    pub class_weights: ClassWeights,
    /// Evaluate on the dev file every so many steps; 0 for the end of each epoch. Default 0.
    pub eval_every: u64,
    /// The dev metric that decides which weights are kept. Default accuracy.
    pub metric: Metric,
    /// Stop after this many evaluations without a better metric; 0 for never. Default 0.
    pub patience: u64,
    /// Seed of weights, order and dropout. Default 1.
    pub seed: u64,
    /// Compute products in bfloat16 with f32 master weights. Default false.
    pub bf16: bool,
    /// Compute each block again in the backward pass instead of keeping what is inside it: the same gradients with less memory, for one
    /// more forward pass. Not written where false, so that runs begun without this key can be resumed. Default false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gradient_checkpointing: bool,
    /// A row of training loss every so many steps. Default 20.
    pub log_every: u64,
    /// The state for `--resume` is saved every so many minutes, and whenever training stops. Default 10.
    pub save_minutes: f64,
}

impl Default for Train {
    fn default() -> Self {
        Train {
            epochs: 10,
            batch_size: 64,
            batch_tokens: 16_384,
            bucket_batches: 50,
            max_length: 512,
            lr: 1e-3,
            optimizer: OptimizerName::Adafactor,
            weight_decay: 0.0,
            schedule: Decay::Constant,
            warmup_steps: 0,
            decay_after: 0,
            final_fraction: 0.0,
            clip_norm: 1.0,
            dropout: 0.1,
            drop_connect: 0.0,
            label_smoothing: 0.0,
            class_weights: ClassWeights::Named(ClassWeighting::None),
            eval_every: 0,
            metric: Metric::Accuracy,
            patience: 0,
            seed: 1,
            bf16: false,
            gradient_checkpointing: false,
            log_every: 20,
            save_minutes: 10.0,
        }
    }
}

/// What updates the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    /// Adafactor (Shazeer and Stern 2018) as T5 uses it.
    Adafactor,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    #[serde(rename = "adamw")]
    AdamW,
}

/// The dev metric that decides which weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of texts with the right label.
    Accuracy,
    /// Mean of the classes' F1.
    MacroF1,
    /// F1 of class 1 where there are two classes.
    BinaryF1,
}

impl Metric {
    /// The name in configurations and in `metrics.jsonl`.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::MacroF1 => "macro_f1",
            Metric::BinaryF1 => "binary_f1",
        }
    }
}

/// Weights of the classes in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "class_weights must be \"none\", \"balanced\" or a list of numbers, one a class")]
pub enum ClassWeights {
    /// By rule.
    Named(ClassWeighting),
    /// Given, one a class, in the order of the labels.
    List(Vec<f64>),
}

/// A rule for class weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeighting {
    /// All 1.
    None,
    /// `rows / (classes · rows of the class)`, as scikit-learn's `balanced`; 0 for a class without rows.
    Balanced,
}

impl ClassWeights {
    /// The weights for training labels of `classes` classes; `None` when all are 1.
    pub fn resolve(&self, labels: &[usize], classes: usize) -> Option<Vec<f64>> {
        match self {
            ClassWeights::Named(ClassWeighting::None) => None,
            ClassWeights::List(list) => Some(list.clone()),
            ClassWeights::Named(ClassWeighting::Balanced) => {
                let mut counts = vec![0usize; classes];
                for &label in labels {
                    if let Some(count) = counts.get_mut(label) {
                        *count += 1;
                    }
                }
                let rows = labels.len() as f64;
                let weight = |&n: &usize| if n == 0 { 0.0 } else { rows / (classes as f64 * n as f64) };
                Some(counts.iter().map(weight).collect())
            }
        }
    }
}

impl Config {
    /// Reads `path` and applies `overrides` of the form `train.lr=5e-4`.
    ///
    /// # Errors
    /// A missing file, TOML that does not parse, an unknown key, a value of the wrong type or outside its range; the
    /// message names file, key and what is allowed.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read config {}", path.display()))?;
        let whole = || format!("config {}", path.display());
        let config: Config = parse(&text, toml::Table::new(), overrides).with_context(whole)?;
        config.train.validate().with_context(whole)?;
        Ok(config)
    }

    /// As TOML.
    ///
    /// # Errors
    /// Never for a configuration that was read or resolved.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("cannot write the configuration as TOML")
    }
}

/// Reads a configuration from TOML `text` and further `sections`, with `overrides` of the form `train.lr=5e-4` applied.
///
/// # Errors
/// TOML that does not parse, an unknown key, a value of the wrong type, an override that is none.
pub fn parse<T: DeserializeOwned>(text: &str, sections: toml::Table, overrides: &[String]) -> Result<T> {
    // Read once as it stands: these errors carry line and column.
    let plain: T = toml::from_str(text)?;
    if overrides.is_empty() && sections.is_empty() {
        return Ok(plain);
    }
    let mut table: toml::Table = toml::from_str(text)?;
    table.extend(sections);
    rename_old_keys(&mut table);
    for o in overrides {
        set(&mut table, o).with_context(|| format!("--set {o}"))?;
        rename_old_keys(&mut table);
    }
    toml::Value::Table(table).try_into().context("after --set")
}

/// Keys of `[train]` by their old names, which are still read, and their names.
pub const OLD_KEYS: [(&str, &str); 1] = [("optimiser", "optimizer")];

/// Gives keys with an old name their name, so that a later override replaces an earlier value whichever name it uses.
fn rename_old_keys(table: &mut toml::Table) {
    if let Some(train) = table.get_mut("train").and_then(toml::Value::as_table_mut) {
        for (old, new) in OLD_KEYS {
            if let Some(value) = train.remove(old) {
                train.insert(new.to_owned(), value);
            }
        }
    }
}

/// Sets one dotted key of `table` from `key=value`; the value is TOML, or a plain word taken as a string.
fn set(table: &mut toml::Table, assignment: &str) -> Result<()> {
    let Some((key, value)) = assignment.split_once('=') else {
        bail!("must have the form key=value, such as train.lr=5e-4");
    };
    let value = value.trim();
    let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let Some(last) = parts.pop() else { bail!("the key is empty") };
    ensure!(!parts.is_empty(), "the key needs its section, such as train.{last} or model.{last}");
    let mut at = table;
    for part in parts {
        let next = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().with_context(|| format!("{part} is not a section"))?;
    }
    at.insert(last.to_owned(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
    Ok(())
}

impl OptimizerName {
    /// The optimizer with its hyper-parameters.
    pub fn config(self, weight_decay: f64) -> OptimizerConfig {
        match self {
            OptimizerName::Adafactor => OptimizerConfig::Adafactor(AdafactorConfig { weight_decay }),
            OptimizerName::AdamW => OptimizerConfig::AdamW(AdamWConfig { weight_decay, ..AdamWConfig::default() }),
        }
    }
}

/// Refuses a count below `least`. `name`: the key with its section.
pub(crate) fn at_least(name: &str, n: u64, least: u64) -> Result<()> {
    ensure!(n >= least, "{name} is {n}, must be at least {least}");
    Ok(())
}

/// Refuses what is no probability below 1.
pub(crate) fn probability(name: &str, p: f64) -> Result<()> {
    ensure!((0.0..1.0).contains(&p), "{name} is {p}, must be at least 0 and below 1");
    Ok(())
}

/// Refuses negative numbers, infinity and what is no number.
pub(crate) fn not_negative(name: &str, x: f64) -> Result<()> {
    ensure!(x.is_finite() && x >= 0.0, "{name} is {x}, must be 0 or more");
    Ok(())
}

impl Train {
    /// The learning rate by step.
    pub fn lr_schedule(&self) -> Schedule {
        Schedule {
            learning_rate: self.lr,
            decay: self.schedule,
            warmup_steps: self.warmup_steps,
            decay_after: if self.decay_after > 0 { self.decay_after } else { self.warmup_steps },
            final_fraction: self.final_fraction,
        }
    }

    /// The optimizer's hyper-parameters.
    pub fn optimizer_config(&self) -> OptimizerConfig {
        self.optimizer.config(self.weight_decay)
    }

    /// Checks every field that needs no data to be checked.
    ///
    /// # Errors
    /// The first field outside its range, with its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        at_least("train.epochs", self.epochs, 1)?;
        at_least("train.batch_size", self.batch_size as u64, 1)?;
        at_least("train.bucket_batches", self.bucket_batches as u64, 1)?;
        at_least("train.log_every", self.log_every, 1)?;
        ensure!(self.max_length != 1, "train.max_length is 1, which leaves </s> alone; must be 0 or at least 2");
        ensure!(self.lr.is_finite() && self.lr > 0.0, "train.lr is {}, must be above 0", self.lr);
        ensure!(i64::try_from(self.seed).is_ok(), "train.seed is {}, must be below 2^63", self.seed);
        not_negative("train.weight_decay", self.weight_decay)?;
        not_negative("train.clip_norm", self.clip_norm)?;
        not_negative("train.save_minutes", self.save_minutes)?;
        probability("train.dropout", self.dropout)?;
        probability("train.drop_connect", self.drop_connect)?;
        probability("train.label_smoothing", self.label_smoothing)?;
        self.lr_schedule().validate().context("train.schedule")?;
        if let ClassWeights::List(list) = &self.class_weights {
            let good = list.iter().all(|w| w.is_finite() && *w >= 0.0) && list.iter().any(|w| *w > 0.0);
            ensure!(good, "train.class_weights must be numbers of 0 or more, at least one above 0");
        }
        Ok(())
    }

    /// Checks the fields that depend on the number of classes.
    ///
    /// # Errors
    /// A list of class weights of another length, or binary F1 for more than two classes.
    pub fn validate_for(&self, classes: usize) -> Result<()> {
        if let ClassWeights::List(list) = &self.class_weights {
            let n = list.len();
            ensure!(n == classes, "train.class_weights has {n} values, must have one for each of {classes} classes");
        }
        if self.metric == Metric::BinaryF1 {
            ensure!(classes == 2, "train.metric is binary_f1, which needs 2 classes; the data have {classes}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> toml::Table {
        toml::from_str("[train]\nlr = 0.5\n").unwrap()
    }

    #[test]
    fn an_override_takes_numbers_words_and_lists() {
        let mut t = table();
        set(&mut t, "train.lr=1e-4").unwrap();
        set(&mut t, "train.optimizer=adamw").unwrap();
        set(&mut t, "train.class_weights=[1.0, 2.0]").unwrap();
        let c: Config = toml::Value::Table(t).try_into().unwrap();
        assert_eq!((c.train.lr, c.train.optimizer), (1e-4, OptimizerName::AdamW));
        assert_eq!(c.train.class_weights, ClassWeights::List(vec![1.0, 2.0]));
    }

    #[test]
    fn the_old_name_of_a_key_is_read_and_overridden_by_either() {
        let old = "[train]\noptimiser = \"adamw\"\n";
        let read = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|&s| s.to_owned()).collect();
            parse::<Config>(old, toml::Table::new(), &sets).unwrap().train.optimizer
        };
        assert_eq!(read(&[]), OptimizerName::AdamW);
        assert_eq!(read(&["train.optimizer=adafactor"]), OptimizerName::Adafactor);
        assert_eq!(read(&["train.optimiser=adafactor"]), OptimizerName::Adafactor);
        assert_eq!(read(&["train.optimizer=adafactor", "train.optimiser=adamw"]), OptimizerName::AdamW);
        let both = "[train]\noptimiser = \"adamw\"\noptimizer = \"adamw\"\n";
        assert!(parse::<Config>(both, toml::Table::new(), &[]).is_err());
    }

    #[test]
    fn the_configurations_of_committed_models_are_read() {
        for model in ["intents", "intents-nano"] {
            let file = format!("{}/../models/{model}/training.json", env!("CARGO_MANIFEST_DIR"));
            let training: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
            assert_eq!(training["config"]["train"]["optimiser"], "adamw");
            let config: Config = serde_json::from_value(training["config"].clone()).unwrap();
            assert_eq!(config.train.optimizer, OptimizerName::AdamW);
        }
    }

    #[test]
    fn an_override_without_section_or_value_is_refused() {
        assert!(set(&mut table(), "lr=1").is_err());
        assert!(set(&mut table(), "train.lr").is_err());
        assert!(set(&mut table(), "train.lr.deep=1").is_err());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let e = toml::from_str::<Config>("[train]\nlearning_rate = 1.0\n").unwrap_err().to_string();
        assert!(e.contains("learning_rate") && e.contains("line 2"), "{e}");
    }

    #[test]
    fn the_resolved_configuration_reads_back_as_itself() {
        let text = "[model]\nmixer = \"light\"\nhidden_size = 8\nnum_hidden_layers = 2\nintermediate_size = 16\n";
        let mut c: Config = toml::from_str(text).unwrap();
        c.model = c.model.map(spec::Config::resolve);
        let again: Config = toml::from_str(&c.to_toml().unwrap()).unwrap();
        assert_eq!(again, c);
    }

    #[test]
    fn balanced_weights_are_scikit_learns() {
        // sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1], y=[0, 0, 0, 1]) = [0.6667, 2.0]
        let w = ClassWeights::Named(ClassWeighting::Balanced).resolve(&[0, 0, 0, 1], 2).unwrap();
        assert!((w[0] - 2.0 / 3.0).abs() < 1e-12 && (w[1] - 2.0).abs() < 1e-12);
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        let bad = [
            Train { epochs: 0, ..Train::default() },
            Train { lr: f64::NAN, ..Train::default() },
            Train { dropout: 1.0, ..Train::default() },
            Train { label_smoothing: -0.1, ..Train::default() },
            Train { max_length: 1, ..Train::default() },
            Train { weight_decay: -0.1, ..Train::default() },
            Train { final_fraction: 2.0, ..Train::default() },
            Train { class_weights: ClassWeights::List(vec![0.0, 0.0]), ..Train::default() },
        ];
        for t in bad {
            assert!(t.validate().is_err(), "{t:?}");
        }
        assert!(Train { metric: Metric::BinaryF1, ..Train::default() }.validate_for(3).is_err());
        assert!(Train { class_weights: ClassWeights::List(vec![1.0]), ..Train::default() }.validate_for(2).is_err());
    }
}
