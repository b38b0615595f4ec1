//! Soft labels: a teacher's probabilities of the classes, by text.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kinglet_data::dataset::ReadOptions;
use rayon::prelude::*;
use tch::{Device, Kind, Reduction, Tensor};

use crate::interrupt::Interrupt;
use crate::random::{Purpose, SplitMix64, derive_seed};
use crate::targets::texts::{TextDigest, TextFile, texts};
use crate::targets::{Manifest, Targets};
use crate::tokenizer::files::Encode;

/// Texts between two looks at [`Interrupt`].
const INTERVAL: usize = 4096;
/// The least and the largest probability of a label whose logarithm of odds is softened.
const ODDS: f64 = 1e-7;
/// How far the probabilities of a row may be from a sum of 1: more than f16 rounds, and far less than logits miss it by.
const TOLERANCE: f64 = 0.01;

/// Where soft labels come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// A folder of `kinglet-train teacher --probabilities`, or a file with a row per text.
    pub targets: &'a Path,
    /// The files with the texts, in order.
    pub texts: &'a [PathBuf],
    /// Whether any number of labels may apply to a text, so that each has a probability of its own.
    pub several: bool,
    /// How the texts are read.
    pub read: &'a ReadOptions,
    /// Divides the exponents of probabilities, as `p^(1/T)` and normalized again; of any number of labels, each with `1 − p`.
    pub temperature: f64,
    /// Maximum number of rows that are taken, those with the largest probability, beside those of labelled texts; 0 for all.
    pub limit: usize,
    /// Number of rows that are drawn from those that `limit` leaves out.
    pub unsure: usize,
    /// Seed of the run.
    pub seed: u64,
}

/// The soft labels of a run.
///
/// A text that is also in the training file, as often as it is there, is not read twice: the training row has both labels.
#[derive(Debug)]
pub struct Soft {
    /// Token ids of the texts without a label.
    pub ids: Vec<Vec<u32>>,
    /// Texts that have a label too.
    pub both: usize,
    /// Texts left out because the teacher is less sure of them than of others.
    pub left_out: usize,
    /// Rows taken although the teacher is less sure of them.
    pub unsure: usize,
    /// Texts truncated to the maximum length, those with a label not counted.
    pub cut: usize,
    /// Texts that are not valid UTF-8; what is not is read as U+FFFD.
    pub replaced: u64,
    /// The text files.
    pub files: Vec<TextFile>,
    /// The folder or file of the probabilities, as typed.
    pub path: PathBuf,
    targets: Targets,
    /// Column of the probabilities by class.
    columns: Vec<usize>,
    /// Row of the probabilities by text: those of the training file, then those of `ids`.
    rows: Vec<Option<usize>>,
    temperature: f64,
    several: bool,
}

impl Soft {
    /// Reads the texts of `source` and checks their probabilities. `labels` are the names of the classes, `train` the texts of the
    /// training file.
    ///
    /// # Errors
    /// If a file cannot be read or has no texts, the probabilities are of other texts or classes or exclude each other as the labels do
    /// not, a row has values that are no probabilities, or `interrupt` was requested.
    pub fn read(
        source: Source<'_>,
        labels: &[String],
        train: &[String],
        encode: Encode<'_>,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let Source { targets: path, temperature, several, .. } = source;
        let targets = Targets::open(path).context("--soft-labels")?;
        if let Some(of_several) = targets.manifest().map(|manifest| manifest.multi_label) {
            let kinds = ["of which one applies to a text", "any number of which may apply to a text"];
            let kind = |several| kinds[usize::from(several)];
            ensure!(
                of_several == several,
                "--soft-labels {}: has the probabilities of classes {}, the training file has labels {}",
                path.display(),
                kind(of_several),
                kind(several)
            );
        }
        let columns = columns(&targets, labels).with_context(|| format!("--soft-labels {}", path.display()))?;
        let mut places: HashMap<&str, VecDeque<usize>> = HashMap::new();
        for (place, text) in train.iter().enumerate() {
            places.entry(text).or_default().push_back(place);
        }
        let mut out = Soft {
            ids: Vec::new(),
            both: 0,
            left_out: 0,
            unsure: 0,
            cut: 0,
            replaced: 0,
            files: Vec::new(),
            path: path.to_path_buf(),
            targets,
            columns,
            rows: vec![None; train.len()],
            temperature,
            several,
        };
        let left_out = out.left_out(&source);
        let mut row = 0;
        for path in source.texts {
            let mut digest = TextDigest::default();
            let before = row;
            let mut texts = texts(path, source.read)?;
            for text in texts.by_ref() {
                let text = text?;
                digest.push(&text);
                match places.get_mut(text.as_str()).and_then(VecDeque::pop_front) {
                    Some(place) => {
                        out.rows[place] = Some(row);
                        out.both += 1;
                    }
                    None if left_out.get(row).is_some_and(|&left_out| left_out) => out.left_out += 1,
                    None => {
                        out.ids.push(encode(&text, &mut out.cut)?);
                        out.rows.push(Some(row));
                    }
                }
                row += 1;
                let stop = row.is_multiple_of(INTERVAL) && interrupt.requested();
                ensure!(!stop, "stopped by a signal while reading {}", path.display());
            }
            ensure!(row > before, "--soft-texts: {} has no texts; leave it out", path.display());
            out.replaced += texts.replaced();
            out.files.push(digest.finish(path));
        }
        out.targets.check(&out.files).context("--soft-labels")?;
        out.check_rows().with_context(|| format!("--soft-labels {}", path.display()))?;
        Ok(out)
    }

    /// Returns the number of texts with soft labels.
    pub fn texts(&self) -> usize {
        self.both + self.ids.len()
    }

    /// Returns the record of the teacher, if the probabilities are in a folder that has one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.targets.manifest()
    }

    /// Returns whether a training text has soft labels; texts are counted as in [`Soft::batch`].
    pub fn has(&self, text: usize) -> bool {
        self.rows.get(text).is_some_and(Option::is_some)
    }

    /// Returns the tempered probabilities of training texts, `[B, K]` f32 on `device`; zeros for those without.
    ///
    /// Texts below the number of rows of the training file are these rows; the others follow as in [`Soft::ids`].
    pub fn batch(&self, texts: &[usize], device: Device) -> Tensor {
        let classes = self.columns.len();
        let mut values = vec![0f32; texts.len() * classes];
        let mut stored = self.buffer();
        for (&text, out) in texts.iter().zip(values.chunks_exact_mut(classes)) {
            if let Some(row) = self.rows.get(text).copied().flatten() {
                self.stored(row, &mut stored);
                temper(&stored, &self.columns, self.temperature, self.several, out);
            }
        }
        Tensor::from_slice(&values).view([texts.len() as i64, classes as i64]).to_device(device)
    }

    fn buffer(&self) -> Vec<f32> {
        vec![0.0; self.columns.len()]
    }

    /// Copies a row in the order of the targets.
    fn stored(&self, row: usize, out: &mut [f32]) {
        match self.targets.manifest() {
            Some(_) => self.targets.probabilities(row, out),
            None => self.targets.row(row, out),
        }
    }

    /// Returns whether each row is neither among the `limit` rows with the largest probability, the first of equal ones, nor drawn from the
    /// others; nothing if all are taken. Runs on all cores.
    fn left_out(&mut self, source: &Source<'_>) -> Vec<bool> {
        let (rows, limit) = (self.targets.len(), source.limit);
        if limit == 0 || limit >= rows {
            return Vec::new();
        }
        let largest = |stored: &mut Vec<f32>, row: usize| {
            self.stored(row, stored);
            (stored.iter().copied().fold(0.0, f32::max), row)
        };
        let mut rated: Vec<(f32, usize)> = (0..rows).into_par_iter().map_init(|| self.buffer(), largest).collect();
        rated.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let others = &mut rated[limit..];
        SplitMix64::new(derive_seed(source.seed, Purpose::Unsure, 0)).shuffle(others);
        self.unsure = source.unsure.min(others.len());
        let mut left_out = vec![false; rows];
        others[self.unsure..].iter().for_each(|&(_, row)| left_out[row] = true);
        left_out
    }

    /// Checks, on all cores, that each row is a distribution, or, of any number of labels, has a probability of each.
    fn check_rows(&self) -> Result<()> {
        let check = |stored: &mut Vec<f32>, row: usize| {
            self.stored(row, stored);
            let sum: f64 = stored.iter().map(|&p| f64::from(p)).sum();
            let whole = if self.several { 0.0..=f64::INFINITY } else { 1.0 - TOLERANCE..=1.0 + TOLERANCE };
            let most = if self.several { 1.0 } else { f32::INFINITY };
            let good = stored.iter().all(|&p| (0.0..=most).contains(&p)) && whole.contains(&sum);
            if good { None } else { Some((row, stored.clone())) }
        };
        let bad = (0..self.targets.len()).into_par_iter().map_init(|| self.buffer(), check).find_first(Option::is_some);
        match bad.flatten() {
            Some((row, values)) if self.several => {
                bail!(
                    "row {row} (from 0) has values that are no probabilities: {values:?}; write one from 0 to 1 per label, not scores"
                )
            }
            Some((row, values)) => bail!(
                "row {row} (from 0) is no distribution: {values:?}; write probabilities, at least 0 and with sum 1, not scores"
            ),
            None => Ok(()),
        }
    }
}

/// Returns the column of `targets` for each of the classes `labels`: the one of its name, or in a file, which has no names, the one in
/// its place.
fn columns(targets: &Targets, labels: &[String]) -> Result<Vec<usize>> {
    let Some(manifest) = targets.manifest() else {
        let (found, classes) = (targets.dimension(), labels.len());
        ensure!(
            found == classes,
            "has {found} columns, the training file has {classes} classes, whose probabilities must be in this order: {}",
            labels.join(", ")
        );
        return Ok((0..classes).collect());
    };
    let names = &manifest.classes;
    ensure!(
        !names.is_empty(),
        "has vectors, but no probabilities; `kinglet-train teacher --probabilities` writes them"
    );
    let of = |label: &String| names.iter().position(|name| name == label);
    let found: Option<Vec<usize>> = labels.iter().map(of).collect();
    found.filter(|found| found.len() == names.len()).with_context(|| {
        format!(
            "is of the classes {}, the training file has {}; they must have the same names: id2label in config.json of the teacher says \
             how its classes are called",
            names.join(", "),
            labels.join(", ")
        )
    })
}

/// Writes the probabilities `stored`, put into the order of `columns`, at `temperature` T to `out`: `p^(1/T) / Σ p^(1/T)`, the softmax of
/// logits divided by T; of `several` labels, the sigmoid of each.
fn temper(stored: &[f32], columns: &[usize], temperature: f64, several: bool, out: &mut [f32]) {
    let probability = |column: &usize| f64::from(stored.get(*column).copied().unwrap_or_default());
    if several {
        for (out, column) in out.iter_mut().zip(columns) {
            let p = probability(column);
            // At temperature 1 it is `p` itself, to the last bit.
            let odds = |p: f64| (p / (1.0 - p)).powf(-1.0 / temperature);
            *out = if temperature == 1.0 { p } else { 1.0 / (1.0 + odds(p.clamp(ODDS, 1.0 - ODDS))) } as f32;
        }
        return;
    }
    let power = |column: &usize| probability(column).powf(1.0 / temperature);
    let sum: f64 = columns.iter().map(power).sum();
    for (out, column) in out.iter_mut().zip(columns) {
        *out = (power(column) / sum) as f32;
    }
}

/// Returns the sum over texts of `weight · T² · H(p, softmax(logits / T))`, the cross entropy with soft labels at temperature T, in nats.
///
/// The factor T² keeps the size of gradients (Hinton, Vinyals and Dean 2015). `logits`: `[B, K]`; `probabilities` at the same
/// temperature: `[B, K]`, where rows of zeros add nothing.
pub fn loss(logits: &Tensor, probabilities: &Tensor, weight: f64, temperature: f64) -> Tensor {
    let logarithms = (logits / temperature).log_softmax(-1, Kind::Float);
    (probabilities * logarithms).sum(Kind::Float) * (-weight * temperature * temperature)
}

/// Returns the sum over texts of `weight · T² · Σₖ BCE(pₖ, σ(logitsₖ / T))`, in nats, where any number of labels may apply to a text.
///
/// `logits` and `probabilities`, at the same temperature: `[B, K]`; `rows`: `[B, 1]`, 1 for texts that have soft labels and 0 for others.
pub fn loss_of_several(
    logits: &Tensor,
    probabilities: &Tensor,
    rows: &Tensor,
    weight: f64,
    temperature: f64,
) -> Tensor {
    let of =
        (logits / temperature).binary_cross_entropy_with_logits::<Tensor>(probabilities, None, None, Reduction::None);
    (of * rows).sum(Kind::Float) * (weight * temperature * temperature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_several_labels_is_that_of_each() {
        let (t, teacher, student) = (2.5f64, [[2.0f64, -1.0], [0.3, -4.0]], [[1.0f32, -2.0], [0.5, 3.0]]);
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let (mut want, mut probabilities) = (0.0, [0f32; 4]);
        for (i, (student, teacher)) in student.iter().zip(&teacher).enumerate() {
            for (&z, &of) in student.iter().zip(teacher) {
                let (p, q) = (sigmoid(of / t), sigmoid(f64::from(z) / t));
                want -= 0.7 * t * t * (p * q.ln() + (1.0 - p) * (1.0 - q).ln());
            }
            // The teacher says its labels in another order.
            let stored = [teacher[1], teacher[0]].map(|z| sigmoid(z) as f32);
            temper(&stored, &[1, 0], t, true, &mut probabilities[2 * i..2 * i + 2]);
            let plain = &mut [0f32; 2];
            temper(&stored, &[1, 0], 1.0, true, plain);
            assert_eq!(*plain, [stored[1], stored[0]]);
        }
        // Sure ones stay finite.
        let sure = &mut [0f32; 2];
        temper(&[0.0, 1.0], &[0, 1], t, true, sure);
        assert!(sure[0] > 0.0 && sure[0] < 0.01 && sure[1] > 0.99 && sure[1] < 1.0, "{sure:?}");
        // A third text without soft labels.
        let logits = Tensor::from_slice2(&[student[0], student[1], [9.0, -9.0]]).set_requires_grad(true);
        let rows = Tensor::from_slice(&[1.0f32, 1.0, 0.0]).view([3, 1]);
        let probabilities =
            Tensor::cat(&[Tensor::from_slice(&probabilities), Tensor::from_slice(&[0f32; 2])], 0).view([3, 2]);
        let got = loss_of_several(&logits, &probabilities, &rows, 0.7, t);
        assert!((got.double_value(&[]) - want).abs() < 1e-5, "{got:?} {want}");
        got.backward();
        assert_eq!(logits.grad().get(2).abs().sum(Kind::Float).double_value(&[]), 0.0);
    }

    #[test]
    fn the_loss_is_the_cross_entropy_of_softened_distributions() {
        let (logits, teacher, t) =
            ([[1.0f32, -2.0, 0.5], [0.0, 3.0, 1.0]], [[2.0f64, 0.0, 1.0], [-1.0, 4.0, 0.0]], 2.5);
        let softmax = |z: &[f64], t: f64| -> Vec<f64> {
            let sum: f64 = z.iter().map(|z| (z / t).exp()).sum();
            z.iter().map(|z| (z / t).exp() / sum).collect()
        };
        let mut want = 0.0;
        let mut probabilities = vec![0f32; 9];
        for (i, (student, teacher)) in logits.iter().zip(&teacher).enumerate() {
            let student: Vec<f64> = student.iter().map(|&z| f64::from(z)).collect();
            let (p, q) = (softmax(teacher, t), softmax(&student, t));
            want -= 0.7 * t * t * p.iter().zip(&q).map(|(p, q)| p * q.ln()).sum::<f64>();
            // The teacher says its probabilities at temperature 1, its classes in another order.
            let plain: Vec<f32> = softmax(teacher, 1.0).iter().map(|&p| p as f32).collect();
            let stored = [plain[2], plain[0], plain[1]];
            temper(&stored, &[1, 2, 0], t, false, &mut probabilities[3 * i..3 * i + 3]);
            let apart =
                probabilities[3 * i..].iter().zip(&p).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-6, "{apart}");
        }
        // A third text without soft labels.
        let logits = Tensor::from_slice2(&[logits[0], logits[1], [9.0, 9.0, -9.0]]).set_requires_grad(true);
        let got = loss(&logits, &Tensor::from_slice(&probabilities).view([3, 3]), 0.7, t);
        assert!((got.double_value(&[]) - want).abs() < 1e-5, "{got:?} {want}");
        got.backward();
        assert_eq!(logits.grad().get(2).abs().sum(Kind::Float).double_value(&[]), 0.0);
    }
}
