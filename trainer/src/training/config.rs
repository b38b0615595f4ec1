//! The section `[train]` of a configuration: the keys of every task, and those that a task adds.
//!
//! Both share one section of the file. Unknown keys are rejected, and an omitted key has its task's default.

use std::fmt;
use std::marker::PhantomData;

use anyhow::{Context, Result, bail, ensure};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::model::Mode;
use crate::optim::{AdafactorConfig, AdamWConfig, Decay, OptimizerConfig, Schedule};

/// Keys with a former name, which is still read.
const OLD_KEYS: [(&str, &str); 1] = [("optimiser", "optimizer")];

/// The keys of `[train]` that every task has. Each task has its own defaults: [`OwnKeys::shared`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keys {
    /// Most texts, pairs or examples per step, all processes together. Default 64; in pre-training 128.
    pub batch_size: usize,
    /// Number of parts in which each process computes its share of a step, to save memory. Default 1.
    pub accumulate: usize,
    /// Peak learning rate. Default 1e-3; in pre-training 0, which stands for `1 / sqrt(decay_after)`.
    pub lr: f64,
    /// Optimizer. Default adafactor.
    pub optimizer: OptimizerName,
    /// Decoupled weight decay of the embedding and of matrices. Default 0.
    pub weight_decay: f64,
    /// Learning-rate schedule after the warm-up. Default constant, as the paper fine-tunes; in pre-training inverse_square_root.
    pub schedule: Decay,
    /// Linear warm-up steps. Default 0.
    pub warmup_steps: u64,
    /// Steps before the inverse square root begins to decay; 0 for the end of the warm-up. Default 0; in
    /// pre-training 10,000.
    pub decay_after: u64,
    /// Fraction of the learning rate left at the last step (linear, cosine). Default 0.
    pub final_fraction: f64,
    /// Global norm to which gradients are clipped; 0 for never, as Adafactor clips its own updates. Default 0; for classifiers 1.
    pub clip_norm: f64,
    /// Probability of dropping an activation. Default 0.1; in pre-training 0.
    pub dropout: f64,
    /// Probability of dropping a kernel weight, drawn per weight and batch. Default 0.
    pub drop_connect: f64,
    /// Steps between evaluations; 0 for the end of each epoch, or of the run where there are no epochs. Default 0; in
    /// pre-training 1,000.
    pub eval_every: u64,
    /// Evaluations without improvement after which training stops; 0 for never. Default 0.
    pub patience: u64,
    /// Seed of weights, order and dropout. Default 1.
    pub seed: u64,
    /// Compute products in bfloat16, with f32 master weights. Default false.
    pub bf16: bool,
    /// Recompute each block in the backward pass instead of keeping its activations: the same gradients with less memory, for one more
    /// forward pass. Default false.
    pub gradient_checkpointing: bool,
    /// Let CUDA round the inputs of f32 products and convolutions to TF32. Default false.
    pub tf32: bool,
    /// Steps between rows of training loss. Default 20; in pre-training 50.
    pub log_every: u64,
    /// Minutes between saved states, 0 for none in between; training also saves whenever it stops. Default 10.
    pub save_minutes: f64,
}

impl Default for Keys {
    /// Returns the defaults for fine-tuning, from the paper where it states them.
    fn default() -> Self {
        Keys {
            batch_size: 64,
            accumulate: 1,
            lr: 1e-3,
            optimizer: OptimizerName::Adafactor,
            weight_decay: 0.0,
            schedule: Decay::Constant,
            warmup_steps: 0,
            decay_after: 0,
            final_fraction: 0.0,
            clip_norm: 0.0,
            dropout: 0.1,
            drop_connect: 0.0,
            eval_every: 0,
            patience: 0,
            seed: 1,
            bf16: false,
            gradient_checkpointing: false,
            tf32: false,
            log_every: 20,
            save_minutes: 10.0,
        }
    }
}

/// The keys of `[train]` that tasks with a training file have: it is read in epochs ([`super::epochs`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochKeys {
    /// Passes over the training file. Default 10.
    pub epochs: u64,
    /// Most steps, if the epochs have more: the learning-rate schedule ends with them. Default 0 for no limit.
    pub max_steps: u64,
    /// Maximum number of tokens per batch, including padding, of both texts of a pair; 0 for no limit. Default 16,384.
    pub batch_tokens: usize,
    /// Batches per window within which texts are sorted by length. Default 50.
    pub bucket_batches: usize,
    /// Maximum number of tokens of a text in training, including `</s>`; 0 for no limit. Targets are never truncated.
    /// Default 512.
    pub max_length: usize,
}

impl Default for EpochKeys {
    fn default() -> Self {
        EpochKeys { epochs: 10, max_steps: 0, batch_tokens: 16_384, bucket_batches: 50, max_length: 512 }
    }
}

/// Optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    /// Adafactor (Shazeer and Stern 2018) as used by T5.
    Adafactor,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    #[serde(rename = "adamw")]
    AdamW,
}

/// The keys of `[train]` that one task adds.
pub trait OwnKeys: Clone + Default + Serialize + DeserializeOwned {
    /// Returns the defaults of the shared keys.
    fn shared() -> Keys;

    /// Checks the task's own keys.
    ///
    /// # Errors
    /// The first key out of range, with its value and what is allowed.
    fn validate(&self) -> Result<()>;
}

/// The section `[train]` of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Train<Own> {
    /// The keys of every task.
    #[serde(flatten)]
    pub keys: Keys,
    /// The keys of the task.
    #[serde(flatten)]
    pub own: Own,
}

impl<Own: OwnKeys> Default for Train<Own> {
    fn default() -> Self {
        Train { keys: Own::shared(), own: Own::default() }
    }
}

impl Keys {
    /// Returns the learning rate by step.
    pub fn lr_schedule(&self) -> Schedule {
        Schedule {
            learning_rate: self.lr,
            decay: self.schedule,
            warmup_steps: self.warmup_steps,
            decay_after: if self.decay_after > 0 { self.decay_after } else { self.warmup_steps },
            final_fraction: self.final_fraction,
        }
    }

    /// Returns the optimizer's hyper-parameters.
    pub fn optimizer_config(&self) -> OptimizerConfig {
        let weight_decay = self.weight_decay;
        match self.optimizer {
            OptimizerName::Adafactor => OptimizerConfig::Adafactor(AdafactorConfig { weight_decay }),
            OptimizerName::AdamW => OptimizerConfig::AdamW(AdamWConfig { weight_decay, ..AdamWConfig::default() }),
        }
    }

    /// Returns the options of forward passes in training.
    pub fn mode(&self) -> Mode {
        Mode {
            train: true,
            dropout: self.dropout,
            drop_connect: self.drop_connect,
            bf16: self.bf16,
            recompute: self.gradient_checkpointing,
        }
    }

    fn validate(&self, processes: usize) -> Result<()> {
        at_least("train.batch_size", self.batch_size as u64, 1)?;
        at_least("train.accumulate", self.accumulate as u64, 1)?;
        at_least("train.log_every", self.log_every, 1)?;
        let parts = processes.saturating_mul(self.accumulate);
        ensure!(
            self.batch_size.is_multiple_of(parts),
            "train.batch_size is {}, must be a multiple of {parts}: {processes} processes of train.accumulate = {} parts",
            self.batch_size,
            self.accumulate
        );
        ensure!(self.lr.is_finite() && self.lr > 0.0, "train.lr is {}, must be above 0", self.lr);
        ensure!(i64::try_from(self.seed).is_ok(), "train.seed is {}, must be below 2^63", self.seed);
        not_negative("train.weight_decay", self.weight_decay)?;
        not_negative("train.clip_norm", self.clip_norm)?;
        not_negative("train.save_minutes", self.save_minutes)?;
        probability("train.dropout", self.dropout)?;
        probability("train.drop_connect", self.drop_connect)?;
        self.lr_schedule().validate().context("train.schedule")
    }
}

impl EpochKeys {
    /// Checks every key.
    ///
    /// # Errors
    /// The first key out of range, with its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        at_least("train.epochs", self.epochs, 1)?;
        at_least("train.bucket_batches", self.bucket_batches as u64, 1)?;
        ensure!(self.max_length != 1, "train.max_length is 1, which leaves </s> alone; must be 0 or at least 2");
        Ok(())
    }
}

impl<Own: OwnKeys> Train<Own> {
    /// Checks every key for a run of `processes` processes.
    ///
    /// # Errors
    /// The first key out of range, with its value and what is allowed.
    pub fn validate(&self, processes: usize) -> Result<()> {
        self.keys.validate(processes)?;
        self.own.validate()
    }

    /// Reads the section from a whole table.
    fn of(table: toml::Table) -> Result<Self, toml::de::Error> {
        // Serde's flatten takes each structure's keys and no others; every key is present and known.
        #[derive(Deserialize)]
        struct Whole<Own> {
            #[serde(flatten)]
            keys: Keys,
            #[serde(flatten)]
            own: Own,
        }
        let Whole { keys, own } = toml::Value::Table(table).try_into()?;
        Ok(Train { keys, own })
    }
}

impl<'de, Own: OwnKeys> Deserialize<'de> for Train<Own> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Section::<Own>(PhantomData))
    }
}

/// Reads a section key by key, so that an error is at the line of its key.
struct Section<Own>(PhantomData<Own>);

impl<'de, Own: OwnKeys> Visitor<'de> for Section<Own> {
    type Value = Train<Own>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the section train")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Train<Own>, A::Error> {
        let defaults = toml::Table::try_from(Train::<Own>::default()).map_err(A::Error::custom)?;
        let (mut whole, mut given) = (defaults.clone(), Vec::new());
        while let Some(key) = map.next_key_seed(Known(&defaults, &given))? {
            let value = map.next_value_seed(Fits::<Own>(&defaults, &key, PhantomData))?;
            whole.insert(key.clone(), value);
            given.push(key);
        }
        Train::of(whole).map_err(A::Error::custom)
    }
}

/// A key that is in the first table but not in the list; former names become current ones.
struct Known<'a>(&'a toml::Table, &'a [String]);

impl<'de> DeserializeSeed<'de> for Known<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let key = renamed(String::deserialize(deserializer)?);
        if self.1.contains(&key) {
            return Err(D::Error::custom(format!("duplicate field `{key}`")));
        }
        if !self.0.contains_key(&key) {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            return Err(D::Error::custom(format!("unknown field `{key}`, expected one of {}", known.join(", "))));
        }
        Ok(key)
    }
}

/// A value that fits its key.
struct Fits<'a, Own>(&'a toml::Table, &'a str, PhantomData<Own>);

impl<'de, Own: OwnKeys> DeserializeSeed<'de> for Fits<'_, Own> {
    type Value = toml::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<toml::Value, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        let mut table = self.0.clone();
        table.insert(self.1.to_owned(), value.clone());
        Train::<Own>::of(table).map_err(|error| D::Error::custom(error.message()))?;
        Ok(value)
    }
}

fn renamed(key: String) -> String {
    OLD_KEYS.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| (*new).to_owned())
}

/// Reads a configuration from TOML `text` and further `sections`, with `overrides` of the form `train.lr=5e-4` applied.
///
/// # Errors
/// If the TOML does not parse, a key is unknown, a value has the wrong type, or an override is malformed.
pub fn parse<T: DeserializeOwned>(text: &str, sections: toml::Table, overrides: &[String]) -> Result<T> {
    // Read once without overrides: these errors have line and column.
    let plain: T = toml::from_str(text)?;
    if overrides.is_empty() && sections.is_empty() {
        return Ok(plain);
    }
    let mut table: toml::Table = toml::from_str(text)?;
    table.extend(sections);
    if let Some(train) = table.get_mut("train").and_then(toml::Value::as_table_mut) {
        *train = std::mem::take(train).into_iter().map(|(key, value)| (renamed(key), value)).collect();
    }
    for o in overrides {
        set(&mut table, o).with_context(|| format!("--set {o}"))?;
    }
    toml::Value::Table(table).try_into().context("after --set")
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
    let last = if parts == ["train"] { renamed(last.to_owned()) } else { last.to_owned() };
    let mut at = table;
    for part in parts {
        let next = at.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().with_context(|| format!("{part} is not a section"))?;
    }
    at.insert(last, parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
    Ok(())
}

/// Writes a configuration as TOML.
///
/// # Errors
/// Never for a configuration that was read or resolved.
pub fn to_toml(config: &impl Serialize) -> Result<String> {
    toml::to_string(config).context("cannot write the configuration as TOML")
}

/// Rejects a count below `least`. `name`: the key with its section.
pub(crate) fn at_least(name: &str, n: u64, least: u64) -> Result<()> {
    ensure!(n >= least, "{name} is {n}, must be at least {least}");
    Ok(())
}

/// Rejects anything but a probability below 1.
pub(crate) fn probability(name: &str, p: f64) -> Result<()> {
    ensure!((0.0..1.0).contains(&p), "{name} is {p}, must be at least 0 and below 1");
    Ok(())
}

/// Rejects negative numbers, infinity and NaN.
pub(crate) fn not_negative(name: &str, x: f64) -> Result<()> {
    ensure!(x.is_finite() && x >= 0.0, "{name} is {x}, must be 0 or more");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Own {
        #[serde(flatten)]
        passes: EpochKeys,
        words: Vec<f64>,
    }

    impl OwnKeys for Own {
        fn shared() -> Keys {
            Keys { log_every: 7, ..Keys::default() }
        }

        fn validate(&self) -> Result<()> {
            self.passes.validate()
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        #[serde(default)]
        train: Train<Own>,
    }

    fn read(text: &str, sets: &[&str]) -> Result<Train<Own>> {
        let sets: Vec<String> = sets.iter().map(|&s| s.to_owned()).collect();
        parse::<Config>(text, toml::Table::new(), &sets).map(|config| config.train)
    }

    fn refused(text: &str, sets: &[&str]) -> String {
        format!("{:#}", read(text, sets).unwrap_err())
    }

    #[test]
    fn a_key_that_is_left_out_has_its_tasks_default() {
        assert_eq!(read("", &[]).unwrap(), Train::default());
        let train = read("[train]\nepochs = 3\ndropout = 0\nwords = [1, 2.5]\n", &[]).unwrap();
        assert_eq!((train.keys.log_every, train.keys.dropout), (7, 0.0));
        assert_eq!((train.own.passes.epochs, train.own.passes.max_length), (3, 512));
        assert_eq!(train.own.words, [1.0, 2.5]);
    }

    #[test]
    fn an_override_takes_numbers_words_and_lists() {
        let sets = ["train.lr=1e-4", "train.optimizer=adamw", "train.words=[1.0, 2.0]", "train.epochs=2"];
        let train = read("[train]\nlr = 0.5\n", &sets).unwrap();
        assert_eq!((train.keys.lr, train.keys.optimizer), (1e-4, OptimizerName::AdamW));
        assert_eq!((train.own.words, train.own.passes.epochs), (vec![1.0, 2.0], 2));
    }

    #[test]
    fn the_old_name_of_a_key_is_read_and_overridden_by_either() {
        let old = "[train]\noptimiser = \"adamw\"\n";
        let name = |sets: &[&str]| read(old, sets).unwrap().keys.optimizer;
        assert_eq!(name(&[]), OptimizerName::AdamW);
        assert_eq!(name(&["train.optimizer=adafactor"]), OptimizerName::Adafactor);
        assert_eq!(name(&["train.optimiser=adafactor"]), OptimizerName::Adafactor);
        assert_eq!(name(&["train.optimizer=adafactor", "train.optimiser=adamw"]), OptimizerName::AdamW);
        let both = refused("[train]\noptimiser = \"adamw\"\noptimizer = \"adamw\"\n", &[]);
        assert!(both.contains("line 3") && both.contains("duplicate field `optimizer`"), "{both}");
    }

    #[test]
    fn an_override_without_section_or_value_is_refused() {
        for bad in ["lr=1", "train.lr", "train.lr.deep=1"] {
            assert!(read("[train]\nlr = 0.5\n", &[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_refused_with_their_line() {
        let said = refused("[train]\nlr = 1.0\nlearning_rate = 1.0\n", &[]);
        assert!(said.contains("line 3") && said.contains("unknown field `learning_rate`"), "{said}");
        let said = refused("[train]\nepochs = 2\nlr = \"high\"\n", &[]);
        assert!(said.contains("line 3") && said.contains("\"high\""), "{said}");
        let said = refused("", &["train.lr=high"]);
        assert!(said.contains("train.lr") && said.contains("\"high\""), "{said}");
    }

    #[test]
    fn what_is_written_reads_back_as_itself() {
        let config = Config { train: read("[train]\nwords = [0.1]\nlr = 0.3\n", &[]).unwrap() };
        assert_eq!(toml::from_str::<Config>(&to_toml(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        for (set, words) in [
            ("train.epochs=0", "train.epochs is 0"),
            ("train.lr=0", "train.lr is 0"),
            ("train.lr=nan", "train.lr is NaN"),
            ("train.dropout=1", "train.dropout is 1"),
            ("train.drop_connect=1", "train.drop_connect is 1"),
            ("train.max_length=1", "train.max_length is 1"),
            ("train.weight_decay=-0.1", "train.weight_decay is -0.1"),
            ("train.final_fraction=2", "final_fraction is 2"),
            ("train.accumulate=5", "must be a multiple of 10"),
            ("train.log_every=0", "train.log_every is 0"),
        ] {
            let message = format!("{:#}", read("", &[set]).unwrap().validate(2).unwrap_err());
            assert!(message.contains(words), "{message}");
        }
        assert!(Train::<Own>::default().validate(4).is_ok());
    }
}
