//! The state for `--resume`: progress, weights and the optimizer's state.
//!
//! ```text
//! OUT/resume/progress.json              names the folder below; renamed into place last
//! OUT/resume/step-N/model.safetensors
//! OUT/resume/step-N/optimizer.safetensors
//! ```
//!
//! `progress.json` has the SHA-256 of the two others and of itself: damage is noticed before training goes on with other weights.
//!
//! Dropout at a step depends only on the run's seed and the step, and the batches on the seed and the epoch, so no
//! random generator is part of the state.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use kinglet::spec::files;
use kinglet_data::digest::{sha256, sha256_of_file};
use kinglet_data::files::write_atomically;
use serde::{Deserialize, Deserializer, Serialize};
use tch::Tensor;

use crate::optim::{Optimizer, Parameter};
use crate::tensors::{read_tensors, write_hashed};

/// Folder of the state inside the run folder.
pub const FOLDER: &str = "resume";
const PROGRESS: &str = "progress.json";
const FORMAT: u32 = 3;
/// The format without hashes, which is still read.
const UNHASHED: u32 = 2;
/// The former name of [`files::OPTIMIZER`], which is still read.
const OLD_OPTIMIZER: &str = "optimiser.safetensors";

/// What must not change when a run is resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The resolved configuration as TOML.
    pub config: String,
    /// Inputs of the run, by their name in messages: hashes of bytes, and names as typed.
    inputs: BTreeMap<String, String>,
}

impl Fingerprint {
    /// Creates the fingerprint of a run with no inputs yet.
    pub fn new(config: String) -> Self {
        Fingerprint { config, inputs: BTreeMap::new() }
    }

    /// Adds an input: `what` is its name in messages, `is` its hash or name.
    pub fn add(&mut self, what: &str, is: &str) {
        self.inputs.insert(what.to_owned(), is.to_owned());
    }

    /// Compares with the fingerprint of a run's saved state. `today` writes an old configuration as this version would:
    /// with current names of keys, and defaults of keys that did not exist yet.
    ///
    /// # Errors
    /// Names everything that differs, configuration keys with both values.
    pub fn check(&self, saved: &Fingerprint, today: impl Fn(&str) -> Result<String>) -> Result<()> {
        let mut differences = Vec::new();
        // Anything that cannot be read differs in any case.
        let then = today(&saved.config).unwrap_or_else(|_| saved.config.clone());
        for (now, then) in lines_that_differ(&self.config, &then) {
            differences.push(format!("config: now `{now}`, was `{then}`"));
        }
        let all: BTreeSet<&String> = self.inputs.keys().chain(saved.inputs.keys()).collect();
        differences.extend(all.into_iter().filter(|&what| self.inputs.get(what) != saved.inputs.get(what)).cloned());
        if differences.is_empty() {
            return Ok(());
        }
        bail!("cannot resume, because these differ from the run's: {}", differences.join("; "));
    }
}

/// Returns pairs of `key = value` lines that differ; a missing one is `(none)`.
fn lines_that_differ(now: &str, then: &str) -> Vec<(String, String)> {
    let keys = |text: &str| -> Vec<(String, String)> {
        let mut section = String::new();
        let mut out = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.to_owned();
            } else if let Some((key, value)) = line.split_once(" = ") {
                out.push((format!("{section}.{key}"), value.to_owned()));
            }
        }
        out
    };
    let (now, then) = (keys(now), keys(then));
    let find = |list: &[(String, String)], key: &str| {
        list.iter().find(|(k, _)| k == key).map_or_else(|| "(none)".to_owned(), |(k, v)| format!("{k} = {v}"))
    };
    let mut all: Vec<&String> = now.iter().chain(&then).map(|(k, _)| k).collect();
    all.sort();
    all.dedup();
    all.into_iter().map(|k| (find(&now, k), find(&then, k))).filter(|(a, b)| a != b).collect()
}

/// Progress of training, between two steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// The task's name; empty in states written before tasks had one.
    #[serde(default)]
    task: String,
    /// Folder of the weights inside [`FOLDER`].
    weights: String,
    /// Steps taken.
    pub step: u64,
    /// Sum of the losses since the last row.
    #[serde(with = "exact")]
    pub loss_sum: f64,
    /// Number of these losses.
    pub loss_count: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Rows of `metrics.jsonl`.
    pub rows: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// Whether the run has ended by itself.
    pub finished: bool,
    /// Configuration and inputs that the run was started with.
    pub fingerprint: Fingerprint,
    /// Progress by evaluations; pre-training once had `null` here.
    #[serde(deserialize_with = "or_start")]
    pub place: Place,
    /// SHA-256 of the files of tensors.
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    /// SHA-256 of this file with nothing here.
    #[serde(default)]
    sha256: String,
}

/// Progress of a run by its evaluations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The best value of the deciding metric so far.
    #[serde(with = "exact_option")]
    pub best: Option<f64>,
    /// Evaluations since then.
    pub without_better: u64,
}

fn or_start<'de, D: Deserializer<'de>>(d: D) -> Result<Place, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// The field that every version of the state has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Returns whether the run in `out` has saved a state. One that was killed before has no more than a part of it.
pub fn exists(out: &Path) -> bool {
    out.join(FOLDER).join(PROGRESS).exists()
}

impl State {
    /// Creates the state of a `task` before the first step.
    pub fn start(task: &str, fingerprint: Fingerprint) -> Self {
        State {
            format: FORMAT,
            task: task.to_owned(),
            weights: String::new(),
            step: 0,
            loss_sum: 0.0,
            loss_count: 0,
            tokens: 0,
            rows: 0,
            seconds: 0.0,
            finished: false,
            fingerprint,
            place: Place::default(),
            hashes: BTreeMap::new(),
            sha256: String::new(),
        }
    }

    /// Reads the progress of the run of `task` in `out`.
    ///
    /// # Errors
    /// If there is no state, it is damaged, or it was written by another version or for another task.
    pub fn read(out: &Path, task: &str) -> Result<Self> {
        let path = out.join(FOLDER).join(PROGRESS);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("nothing to resume in {}: cannot read {}", out.display(), path.display()))?;
        let context = || format!("{} is not a saved state of this command", path.display());
        let Format { format } = serde_json::from_str(&text).with_context(context)?;
        ensure!(
            (UNHASHED..=FORMAT).contains(&format),
            "{} has format {format}, this program reads {FORMAT}",
            path.display()
        );
        let mut state: State = serde_json::from_str(&text).with_context(context)?;
        if format == FORMAT {
            let expected = std::mem::take(&mut state.sha256);
            let intact = !expected.is_empty() && sha256(text.replacen(&expected, "", 1).as_bytes()) == expected;
            ensure!(intact, "{} is damaged; --force starts anew", path.display());
        }
        state.format = FORMAT;
        // For states without a name, the fingerprint distinguishes tasks.
        ensure!(state.task.is_empty() || state.task == task, "{}, but of `{}`", context(), state.task);
        Ok(state)
    }

    /// Saves the state of the run in `out`. The previous state stays intact until this one is complete.
    ///
    /// # Errors
    /// Any error of the file system or libtorch.
    pub fn save<P: Parameter>(
        &mut self,
        out: &Path,
        parameters: &[(P, Tensor)],
        optimizer: &dyn Optimizer,
    ) -> Result<()> {
        let folder = out.join(FOLDER);
        let name = format!("step-{}", self.step);
        let here = folder.join(&name);
        let context = || format!("cannot save the state in {}", here.display());
        fs::create_dir_all(&here).with_context(context)?;
        let weights = write_hashed(&here.join(files::WEIGHTS), parameters)?;
        let optimizer = write_hashed(&here.join(files::OPTIMIZER), &optimizer.state())?;
        self.hashes = [(files::WEIGHTS, weights), (files::OPTIMIZER, optimizer)].map(|(f, h)| (f.to_owned(), h)).into();
        self.weights.clone_from(&name);
        self.sha256 = sha256(&self.json()?);
        let text = self.json();
        self.sha256.clear();
        write_atomically(&folder.join(PROGRESS), &text?).with_context(context)?;
        for entry in fs::read_dir(&folder).with_context(context)?.flatten() {
            let old = entry.file_name();
            if old.to_string_lossy().starts_with("step-") && *old != *name {
                // A leftover folder only costs space; the next save tries again.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    fn json(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Restores the saved weights and the optimizer's state of the run in `out`.
    ///
    /// # Errors
    /// If a file cannot be read, is damaged or does not match the model.
    pub fn restore<P: Parameter>(
        &self,
        out: &Path,
        parameters: &[(P, Tensor)],
        optimizer: &mut dyn Optimizer,
    ) -> Result<()> {
        let here = out.join(FOLDER).join(&self.weights);
        for (file, expected) in &self.hashes {
            let path = here.join(file);
            let got = sha256_of_file(&path).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(
                got == *expected,
                "{} is damaged: its SHA-256 is {got}, was {expected}; --force starts anew",
                path.display()
            );
        }
        let weights = read_tensors(&here.join(files::WEIGHTS))?;
        for (weight, parameter) in parameters {
            let saved =
                weights.get(&weight.to_string()).with_context(|| format!("no {weight} in {}", here.display()))?;
            let shape = saved.size();
            ensure!(shape == parameter.size(), "{weight} is {shape:?}, the model has {:?}", parameter.size());
            tch::no_grad(|| parameter.shallow_clone().copy_(saved));
        }
        let (new, old) = (here.join(files::OPTIMIZER), here.join(OLD_OPTIMIZER));
        optimizer.load_state(&read_tensors(if !new.exists() && old.exists() { &old } else { &new })?)
    }
}

/// Floats as their bits in hex: restored exactly.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{:016x}", x.to_bits()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        let text = String::deserialize(d)?;
        u64::from_str_radix(&text, 16).map(f64::from_bits).map_err(D::Error::custom)
    }
}

/// As [`exact`], for optional values.
mod exact_option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(x: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
        x.map(|x| format!("{:016x}", x.to_bits())).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|t| u64::from_str_radix(&t, 16).map(f64::from_bits)).transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(dev: &str) -> Fingerprint {
        let mut out = Fingerprint::new("[model]\nmixer = \"light\"\n\n[train]\nlr = 0.001\nepochs = 3\n".to_owned());
        out.add("the training file's bytes", "a");
        out.add("the dev file's bytes", dev);
        out
    }

    fn same(text: &str) -> Result<String> {
        Ok(text.to_owned())
    }

    #[test]
    fn every_difference_is_named() {
        let saved = fingerprint("b");
        assert!(fingerprint("b").check(&saved, same).is_ok());
        let mut now = fingerprint("x");
        now.config = now.config.replace("0.001", "0.01");
        let message = now.check(&saved, same).unwrap_err().to_string();
        assert!(message.contains("now `train.lr = 0.01`, was `train.lr = 0.001`"), "{message}");
        assert!(message.contains("dev file") && !message.contains("training file"), "{message}");
    }

    #[test]
    fn an_old_configuration_is_compared_as_it_would_be_written_today() {
        let (mut now, mut saved) = (fingerprint("b"), fingerprint("b"));
        now.config += "optimizer = \"adamw\"\n";
        saved.config += "optimiser = \"adamw\"\n";
        let today = |text: &str| Ok(text.replace("optimiser", "optimizer"));
        assert!(now.check(&saved, today).is_ok());
        saved.config = saved.config.replace("adamw", "adafactor");
        let message = now.check(&saved, today).unwrap_err().to_string();
        assert!(message.contains("was `train.optimizer = \"adafactor\"`"), "{message}");
    }

    #[test]
    fn floats_come_back_exactly() {
        let mut state = State::start("classify", fingerprint("b"));
        state.loss_sum = 0.1 + 0.2;
        state.place.best = Some(1.0 / 3.0);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }

    #[test]
    fn states_from_before_tasks_had_names_are_read() {
        let now = State::start("pretrain", fingerprint("b"));
        let old = |place: serde_json::Value| {
            let mut value = serde_json::to_value(&now).unwrap();
            let fields = value.as_object_mut().unwrap();
            fields.remove("task");
            fields.insert("place".to_owned(), place);
            serde_json::from_value::<State>(value).unwrap()
        };
        assert_eq!(old(serde_json::Value::Null).place, Place::default());
        let place = serde_json::json!({"epoch": 3, "batch": 1, "best": "3fe0000000000000", "without_better": 2});
        assert_eq!(old(place).place, Place { best: Some(0.5), without_better: 2 });
    }
}
