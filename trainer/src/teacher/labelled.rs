//! A sentence encoder as a classifier: logistic regression on its vectors beside the words of the text.
//!
//! ```text
//! p(text) = softmax(W·[α·v/r; z] + b)        z = L⁻¹·k(text),  L·Lᵀ = k(landmarks)
//! ```
//!
//! `v`: the encoder's vector, `r` the root mean square of the lengths of such vectors; `k`: products of TF-IDF vectors ([`crate::ngrams`])
//! with those of up to 2,000 labelled texts, the landmarks. `z` has the same products as the TF-IDF vectors themselves, exactly if all
//! labelled texts are landmarks and otherwise approximately (Williams and Seeger 2001), so that the regression is one on all n-grams. What
//! the encoder knows of meaning and what names, numbers and rare words say add up: with few labels the two together are better than each.
//! α is chosen by the leave-one-out error of ridge regression on the landmarks, which has a closed form. Where any number of labels may
//! apply to a text, a sigmoid takes the place of the softmax: one regression per label.

use anyhow::{Context, Result, ensure};
use kinglet_data::dataset::Labels;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::batch;
use crate::ngrams::{Rows, Vectorizer};
use crate::random::{Purpose, SplitMix64, derive_seed};
use crate::regression::{self, Fitted};

/// Maximum number of landmarks.
const LANDMARKS: usize = 2_000;
/// Values of α: both parts of the words' vector have length 1.
const SCALES: [f64; 8] = [0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Ridges of the regression that chooses among them.
const RIDGES: [f64; 4] = [0.03, 0.1, 0.3, 1.0];
/// What is added to the diagonal of the landmarks' products, so that equal texts have a factorization: the first with which there is one, since
/// the products are rounded to f32.
const JITTER: [f64; 4] = [1e-6, 1e-5, 1e-4, 1e-3];
/// Texts whose features are computed at once.
const TEXTS: usize = 1024;
/// Seed of the landmarks and of the held-out texts.
const SEED: u64 = 1;

/// A fitted classifier.
#[derive(Debug)]
pub struct Head {
    vectorizer: Vectorizer,
    landmarks: Rows,
    /// The weights of the encoder's vector, with α/r: `[K, C]` f64 on the CPU.
    meaning: Tensor,
    /// The weights of the products with the landmarks, with `L⁻¹`: `[K, M]` f64.
    words: Tensor,
    /// `[K]` f64.
    bias: Tensor,
    /// Whether any number of labels may apply to a text.
    several: bool,
    /// What was chosen, and how well it does.
    pub chosen: Chosen,
}

/// What was chosen on held-out texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// α: the weight of the encoder's vector beside the words'.
    pub scale: f64,
    /// `C` of the regression.
    pub strength: f64,
    /// Accuracy on held-out labelled texts, in percent with two decimals; where any number of labels may apply, the mean log likelihood of a
    /// label, in nats with four.
    pub held_out: f64,
}

impl Head {
    /// Fits the classifier to texts, their vectors `[N, C]` and their `labels`, indices of `classes` classes. Allocates up to 50 KB per
    /// text.
    ///
    /// # Errors
    /// If there are fewer than five texts or two classes, or a value is not finite.
    pub fn fit<T: AsRef<str> + Sync>(texts: &[T], vectors: &Tensor, labels: &Labels, classes: usize) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        ensure!(classes >= 2, "the labelled texts have {classes} class, at least 2 are needed");
        ensure!(!texts.is_empty(), "there are no labelled texts");
        let vectors = vectors.to_device(Device::Cpu).to_kind(Kind::Double);
        let length = vectors.square().sum_dim_intlist([-1i64].as_slice(), false, Kind::Double).mean(Kind::Double);
        let length = length.double_value(&[]).sqrt();
        ensure!(
            length.is_finite() && length > 0.0,
            "the encoder's vectors of the labelled texts are zero or not finite"
        );

        let mut chosen: Vec<i64> = (0..texts.len() as i64).collect();
        SplitMix64::new(derive_seed(SEED, Purpose::Landmarks, 0)).shuffle(&mut chosen);
        chosen.truncate(LANDMARKS);
        let vectorizer = Vectorizer::fit(texts);
        let landmarks: Vec<&str> = chosen.iter().map(|&i| texts[i as usize].as_ref()).collect();
        let landmarks = Rows::new(&vectorizer, &landmarks);
        let products = products(&vectorizer, &landmarks, texts);
        let chosen = Tensor::from_slice(&chosen);
        let between = products.index_select(0, &chosen);
        let m = chosen.numel() as i64;
        let factor = factor(&between).context("the products of the texts have no factor")?;

        let targets = match labels {
            Labels::One(labels) => batch::targets(labels.iter().copied().map(Some), Device::Cpu),
            Labels::Any(labels) => batch::multi_hot(labels.iter().map(Vec::as_slice), classes, Device::Cpu),
        };
        let several = labels.is_multi_label();
        let near = vectors.index_select(0, &chosen) / length;
        let alpha = best_scale(&near.matmul(&near.tr()), &between, &targets.index_select(0, &chosen), classes)?;
        let z = factor.f_linalg_solve_triangular(&products.tr(), false, true, false)?.tr();
        let x = Tensor::f_cat(&[&vectors * (alpha / length), z], 1)?;
        let Fitted { weight, bias, strength, held_out } = regression::fit(&x, labels, None, classes, SEED)?;
        let (weight, width) = (weight.to_kind(Kind::Double), vectors.size()[1]);
        let held_out = if several { held_out } else { 100.0 * held_out };
        let digits = if several { 1e4 } else { 1e2 };
        Ok(Head {
            meaning: weight.narrow(1, 0, width) * (alpha / length),
            words: factor.f_linalg_solve_triangular(&weight.narrow(1, width, m), false, false, false)?,
            bias: bias.to_kind(Kind::Double),
            vectorizer,
            landmarks,
            several,
            chosen: Chosen { scale: alpha, strength, held_out: (held_out * digits).round() / digits },
        })
    }

    /// Returns the probabilities of the classes for texts and their vectors `[B, C]`: `[B, K]` f32 on the CPU.
    ///
    /// # Errors
    /// If the vectors are of another number of texts or of another width than those of [`Head::fit`].
    pub fn probabilities<T: AsRef<str> + Sync>(&self, texts: &[T], vectors: &Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let vectors = vectors.to_device(Device::Cpu).to_kind(Kind::Double);
        let (rows, expected) = (vectors.size()[0], texts.len());
        ensure!(rows == expected as i64, "{rows} vectors for {expected} texts");
        let parts = texts.chunks(TEXTS).zip(vectors.f_split(TEXTS as i64, 0)?).map(|(texts, vectors)| {
            let words = products(&self.vectorizer, &self.landmarks, texts).f_linear(&self.words, Some(&self.bias))?;
            let scores = vectors.f_linear(&self.meaning, None::<Tensor>)? + words;
            Ok(probabilities(&scores, self.several).to_kind(Kind::Float))
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }
}

/// Returns `L` with `L·Lᵀ = products`, `[M, M]`, whose diagonal is raised as little as it takes.
fn factor(products: &Tensor) -> Result<Tensor> {
    let eye = Tensor::eye(products.size()[0], (Kind::Double, Device::Cpu));
    let raised = |jitter: f64| (products + &eye * jitter).f_linalg_cholesky(false);
    let [first, larger @ ..] = JITTER;
    Ok(larger.into_iter().fold(raised(first), |found, jitter| found.or_else(|_| raised(jitter)))?)
}

/// Returns the probabilities of classes by their scores, `[B, K]`: the softmax, or, where any number may apply (`several`), the sigmoid.
pub fn probabilities(scores: &Tensor, several: bool) -> Tensor {
    if several { scores.sigmoid() } else { scores.softmax(-1, scores.kind()) }
}

/// Returns the products of the words of texts with those of the landmarks: `[B, M]` f64. Runs on all cores.
fn products<T: AsRef<str> + Sync>(vectorizer: &Vectorizer, landmarks: &Rows, texts: &[T]) -> Tensor {
    let m = landmarks.len();
    let mut out = vec![0f32; texts.len() * m];
    out.par_chunks_mut(m).zip(texts).for_each(|(out, text)| {
        landmarks.products(&vectorizer.transform(text.as_ref()), out);
    });
    Tensor::from_slice(&out).view([texts.len() as i64, m as i64]).to_kind(Kind::Double)
}

/// Returns the α whose sum `α²·V + T` of products `[M, M]` classifies most landmarks rightly, each by ridge regression on the others; the
/// smallest of equally good ones. `labels`: `[M]`, or of any number of labels `[M, K]`, of which it has the least squared error.
fn best_scale(v: &Tensor, t: &Tensor, labels: &Tensor, classes: usize) -> Result<f64> {
    let several = labels.dim() == 2;
    let y = if several { labels.shallow_clone() } else { labels.one_hot(classes as i64) }.to_kind(Kind::Double);
    let y = &y - y.mean_dim([0i64].as_slice(), true, Kind::Double);
    let eye = Tensor::eye(t.size()[0], (Kind::Double, Device::Cpu));
    let mut best = (f64::NEG_INFINITY, SCALES[0]);
    for scale in SCALES {
        for ridge in RIDGES {
            let products = v * (scale * scale) + t + &eye * ridge;
            let inverse = Tensor::f_linalg_inv(&products).context("choosing the scale")?;
            // y − ŷ without the text itself is (G⁻¹·y)ᵢ / (G⁻¹)ᵢᵢ.
            let missed = inverse.matmul(&y) / inverse.diagonal(0, 0, 1).unsqueeze(1);
            let good = if several {
                -missed.square().sum(Kind::Double)
            } else {
                (&y - missed).argmax(-1, false).eq_tensor(labels).sum(Kind::Double)
            };
            let good = good.double_value(&[]);
            if good > best.0 {
                best = (good, scale);
            }
        }
    }
    Ok(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 24 texts of three classes: in the first half the words tell the class, in the second the vectors `[24, 2]`.
    fn data() -> (Vec<String>, Tensor, Vec<usize>) {
        let names = ["owl", "tree", "river"];
        let (mut texts, mut vectors, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..24usize {
            let class = i % 3;
            let told = i < 12;
            let angle = if told { i as f64 } else { 2.1 * class as f64 + 0.02 * i as f64 };
            texts.push(format!("the {} number {}", if told { names[class] } else { "thing" }, i * 7 % 5));
            vectors.extend([3.0 * angle.cos(), 3.0 * angle.sin()]);
            labels.push(class);
        }
        (texts, Tensor::from_slice(&vectors).view([24, 2]).to_kind(Kind::Float), labels)
    }

    #[test]
    fn words_and_vectors_together_tell_what_neither_tells() {
        let (texts, vectors, labels) = data();
        let head = Head::fit(&texts, &vectors, &Labels::One(labels.clone()), 3).unwrap();
        assert!(head.chosen.held_out > 80.0, "{:?}", head.chosen);
        let guessed = head.probabilities(&texts, &vectors).unwrap().argmax(-1, false);
        let expected = batch::targets(labels.iter().copied().map(Some), Device::Cpu);
        assert_eq!(guessed.eq_tensor(&expected).sum(Kind::Int64).int64_value(&[]), 24);
        assert!(head.probabilities(&texts[..2], &vectors).unwrap_err().to_string().contains("24 vectors for 2 texts"));
        equals_a_regression_on_all_n_grams(&head, &texts, &vectors, &labels);
        let vectorless = Tensor::ones([24, 2], (Kind::Float, Device::Cpu));
        assert!(Head::fit(&texts, &vectorless, &Labels::One(labels.clone()), 3).unwrap().chosen.held_out < 80.0);
    }

    #[track_caller]
    fn equals_a_regression_on_all_n_grams(head: &Head, texts: &[String], vectors: &Tensor, labels: &[usize]) {
        let new = ["an owl in the river", "number 3", "", "something else entirely"];
        let near = Tensor::from_slice(&[0.5f32, 2.0, -1.0, 0.3, 0.0, 0.0, 3.0, 1.0]).view([4, 2]);
        let vectorizer = Vectorizer::fit(texts);
        let dense = |texts: &[&str], vectors: &Tensor| {
            let mut rows = vec![0f32; texts.len() * vectorizer.columns()];
            for (text, row) in texts.iter().zip(rows.chunks_exact_mut(vectorizer.columns())) {
                vectorizer.transform(text).into_iter().for_each(|(column, value)| row[column as usize] = value);
            }
            let words = Tensor::from_slice(&rows).view([texts.len() as i64, -1]);
            Tensor::cat(&[vectors * (head.chosen.scale / 3.0), words], 1)
        };
        let known: Vec<&str> = texts.iter().map(String::as_str).collect();
        // Both are scaled to a root mean square of 1 by their number of columns: C is as much larger as one has more.
        let (wide, narrow) = (vectorizer.columns() as f64 + 2.0, texts.len() as f64 + 2.0);
        let strength = head.chosen.strength * narrow / wide;
        let (weight, bias) = regression::fit_with(&dense(&known, vectors), labels, 3, strength).unwrap();
        let expected = dense(&new, &near).linear(&weight, Some(&bias)).softmax(-1, Kind::Float);
        let found = head.probabilities(&new, &near).unwrap();
        let apart = (&found - &expected).abs().max().double_value(&[]);
        assert!(apart < 2e-3, "{found} instead of {expected}");
    }

    #[test]
    fn any_number_of_labels_has_a_regression_each() {
        let (texts, vectors, labels) = data();
        // A label for each class, and one for the first two of them.
        let sets: Vec<Vec<usize>> =
            labels.iter().map(|&class| if class < 2 { vec![class, 3] } else { vec![2] }).collect();
        let head = Head::fit(&texts, &vectors, &Labels::Any(sets.clone()), 4).unwrap();
        assert!((-0.3..0.0).contains(&head.chosen.held_out), "{:?}", head.chosen);
        let found = Vec::<Vec<f64>>::try_from(head.probabilities(&texts, &vectors).unwrap()).unwrap();
        for (row, set) in found.iter().zip(&sets) {
            let given: Vec<usize> = (0..4).filter(|&label| row[label] > 0.5).collect();
            assert_eq!(given, *set, "{row:?}");
        }
    }

    #[test]
    fn products_that_are_rounded_have_a_factor() {
        let products = Tensor::ones([3, 3], (Kind::Double, Device::Cpu));
        let _ = products.get(0).narrow(0, 0, 1).fill_(1.0 - 5e-6);
        let factor = factor(&products).unwrap();
        let apart = (factor.matmul(&factor.tr()) - products).abs().max().double_value(&[]);
        assert!(apart < 1.1e-5, "{apart}");
        assert!(super::factor(&Tensor::from_slice(&[-1.0]).view([1, 1])).is_err());
    }

    #[test]
    fn impossible_texts_are_refused() {
        let (texts, vectors, labels) = data();
        let said = |result: Result<Head>| format!("{:#}", result.unwrap_err());
        let one = |labels: &[usize]| Labels::One(labels.to_vec());
        let few = Head::fit(&texts[..4], &vectors.narrow(0, 0, 4), &one(&labels[..4]), 3);
        assert!(said(few).contains("4 training texts are too few"));
        assert!(said(Head::fit(&texts, &vectors, &one(&[0; 24]), 1)).contains("have 1 class"));
        assert!(said(Head::fit(&texts, &vectors.zeros_like(), &one(&labels), 3)).contains("zero or not finite"));
    }
}
