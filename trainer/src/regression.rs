//! Multinomial logistic regression on vectors that stay as they are: with few labelled texts a head fitted this way often generalizes
//! better than fine-tuning, and takes seconds.
//!
//! ```text
//! minimize  C·Σᵢ wᵢ·CE(softmax(W·xᵢ + b), yᵢ) + ½‖W‖²
//! ```
//!
//! or, where any number of labels may apply to a text, the sum of the binary cross entropies of all labels in place of `CE`, one regression per
//! label: as scikit-learn's `LogisticRegression`, whose `C` is [`Fitted::strength`]; the bias is not penalized. By L-BFGS (Nocedal and Wright 2006,
//! algorithm 7.5), in f64, and in f32 where the problem is large. `xᵢ` are divided by their root mean square, so that the same values of
//! `C` suit every encoder.

use std::collections::VecDeque;

use anyhow::{Result, ensure};
use kinglet_data::dataset::Labels;
use tch::{Kind, Reduction, Tensor};

use crate::batch;
use crate::random::{Purpose, SplitMix64, derive_seed};

/// Values of `C` among which cross-validation chooses.
const STRENGTHS: [f64; 8] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0];
/// Folds of cross-validation.
const FOLDS: usize = 5;
/// Above this many texts, one held-out tenth takes the place of the folds.
const FOLDED: usize = 2_000;
/// Pairs that L-BFGS remembers.
const MEMORY: usize = 10;
/// Products of texts, columns and classes above which numbers are f32: twice as fast, and precise enough for a loss that flat.
const LARGE: i64 = 1 << 30;
/// Weaker regularizations in a row that may be worse than the best one on a held-out tenth before the rest is not tried.
const WORSE: usize = 2;
/// Maximum number of iterations.
const ITERATIONS: usize = 300;
/// Largest gradient at the minimum, per text, and while strengths are compared or if numbers are f32.
const TOLERANCE: [f64; 2] = [1e-5, 1e-4];

/// A fitted head.
#[derive(Debug)]
pub struct Fitted {
    /// `[K, C]` f32, for vectors as the encoder returns them.
    pub weight: Tensor,
    /// `[K]` f32.
    pub bias: Tensor,
    /// The chosen `C`.
    pub strength: f64,
    /// Accuracy on held-out texts with it; where any number of labels may apply, the mean log likelihood of a label, in nats.
    pub held_out: f64,
}

/// Fits the head of `classes` classes to vectors `[N, C]` and their classes; `weights` are those of the classes. The strength of the
/// regularization is chosen on held-out texts, drawn from `seed`: in five folds, or on a tenth of more than 2,000 texts; the first of
/// equally good ones, so the strongest.
///
/// # Errors
/// If there are fewer texts than folds, or a value is not finite.
pub fn fit(x: &Tensor, y: &Labels, weights: Option<&Tensor>, classes: usize, seed: u64) -> Result<Fitted> {
    let _guard = tch::no_grad_guard();
    let n = y.len();
    ensure!(n >= FOLDS, "{n} training texts are too few for regression with {FOLDS}-fold cross-validation");
    let columns = x.size().last().copied().unwrap_or(0);
    let large = (n as i64).saturating_mul(columns).saturating_mul(classes as i64) > LARGE;
    let kind = if large { Kind::Float } else { Kind::Double };
    let x = x.to_kind(kind);
    let scale = x.square().mean(Kind::Double).double_value(&[]).sqrt();
    ensure!(scale.is_finite(), "the encoder's vectors are not finite");
    let scale = scale.max(f64::MIN_POSITIVE);
    let x = x / scale;
    let y = match y {
        Labels::One(y) => batch::targets(y.iter().copied().map(Some), x.device()),
        Labels::Any(y) => batch::multi_hot(y.iter().map(Vec::as_slice), classes, x.device()).to_kind(kind),
    };
    let several = y.dim() == 2;
    let weights = weights.map(|w| w.to_kind(kind));

    let mut order: Vec<i64> = (0..n as i64).collect();
    SplitMix64::new(derive_seed(seed, Purpose::Folds, 0)).shuffle(&mut order);
    let folds = if n > FOLDED { 10 } else { FOLDS };
    // Right answers, or the log likelihood of labels.
    let mut right = [if several { f64::NEG_INFINITY } else { 0.0 }; STRENGTHS.len()];
    let mut tried = 0;
    let mut held = 0;
    for fold in 0..if n > FOLDED { 1 } else { FOLDS } {
        let (out, rest): (Vec<_>, Vec<_>) = order.iter().enumerate().partition(|(place, _)| place % folds == fold);
        let rows =
            |part: Vec<(usize, &i64)>| Tensor::from_slice(&part.into_iter().map(|(_, &i)| i).collect::<Vec<_>>());
        let (out, rest) = (rows(out).to_device(x.device()), rows(rest).to_device(x.device()));
        let problem = Problem::new(x.index_select(0, &rest), y.index_select(0, &rest), weights.as_ref(), classes);
        let (x, y) = (x.index_select(0, &out), y.index_select(0, &out));
        held += y.numel();
        tried += 1;
        // From strong to weak: each solution starts the next.
        let mut theta = problem.zeros();
        let (mut best, mut worse) = (if several { f64::NEG_INFINITY } else { 0.0 }, 0);
        for (strength, right) in STRENGTHS.iter().zip(&mut right) {
            theta = problem.minimize(&theta, *strength, TOLERANCE[1])?;
            let scores = problem.scores(&x, &theta);
            let found = if several {
                -scores.binary_cross_entropy_with_logits::<Tensor>(&y, None, None, Reduction::Sum).double_value(&[])
            } else {
                scores.argmax(-1, false).eq_tensor(&y).sum(Kind::Double).double_value(&[])
            };
            *right = if tried == 1 { found } else { *right + found };
            worse = if found < best { worse + 1 } else { 0 };
            best = found.max(best);
            if n > FOLDED && worse == WORSE {
                break;
            }
        }
    }
    let best = right.iter().enumerate().fold(0, |best, (i, &value)| if value > right[best] { i } else { best });
    let problem = Problem::new(x, y, weights.as_ref(), classes);
    let theta = problem.minimize(&problem.zeros(), STRENGTHS[best], TOLERANCE[usize::from(large)])?;
    let (weight, bias) = problem.split(&theta);
    Ok(Fitted {
        weight: (weight / scale).to_kind(Kind::Float),
        bias: bias.to_kind(Kind::Float),
        strength: STRENGTHS[best],
        held_out: right[best] / held as f64,
    })
}

/// Returns weight `[K, C]` and bias `[K]`, f32, of the regression of a given strength.
#[cfg(test)]
pub fn fit_with(x: &Tensor, y: &[usize], classes: usize, strength: f64) -> Result<(Tensor, Tensor)> {
    let x = x.to_kind(Kind::Double);
    let scale = x.square().mean(Kind::Double).double_value(&[]).sqrt();
    let y = batch::targets(y.iter().copied().map(Some), x.device());
    let problem = Problem::new(x / scale, y, None, classes);
    let theta = problem.minimize(&problem.zeros(), strength, TOLERANCE[0])?;
    let (weight, bias) = problem.split(&theta);
    Ok(((weight / scale).to_kind(Kind::Float), bias.to_kind(Kind::Float)))
}

/// The objective for some texts, with its gradient.
struct Problem {
    x: Tensor,
    /// The class of each text, `[N]` i64, or its labels, `[N, K]`.
    y: Tensor,
    weights: Option<Tensor>,
    classes: i64,
    /// Rows of 1 at the class of each text.
    targets: Tensor,
    /// Weight of each text, `[N, 1]`.
    importance: Option<Tensor>,
}

impl Problem {
    fn new(x: Tensor, y: Tensor, weights: Option<&Tensor>, classes: usize) -> Self {
        let several = y.dim() == 2;
        let targets = if several { y.shallow_clone() } else { y.one_hot(classes as i64).to_kind(x.kind()) };
        // Of any number of labels, a text with one weighs so much for that label.
        let importance =
            weights.map(|w| if several { (&targets * (w - 1.0)) + 1.0 } else { w.index_select(0, &y).unsqueeze(1) });
        Problem { x, y, weights: weights.map(Tensor::shallow_clone), classes: classes as i64, targets, importance }
    }

    fn columns(&self) -> i64 {
        self.x.size().last().copied().unwrap_or(0)
    }

    fn zeros(&self) -> Tensor {
        Tensor::zeros([self.classes * (self.columns() + 1)], (self.x.kind(), self.x.device()))
    }

    /// Returns weight `[K, C]` and bias `[K]` of a point.
    fn split(&self, theta: &Tensor) -> (Tensor, Tensor) {
        let weights = self.classes * self.columns();
        (theta.narrow(0, 0, weights).view([self.classes, -1]), theta.narrow(0, weights, self.classes))
    }

    fn scores(&self, x: &Tensor, theta: &Tensor) -> Tensor {
        let (weight, bias) = self.split(theta);
        x.matmul(&weight.tr()) + bias
    }

    /// Returns objective and gradient, both divided by C and the number of texts.
    fn at(&self, theta: &Tensor, strength: f64) -> (f64, Tensor) {
        let scores = self.scores(&self.x, theta);
        let n = self.x.size()[0] as f64;
        let weights = self.weights.as_ref();
        let (loss, predicted) = if self.y.dim() == 2 {
            let loss = scores.binary_cross_entropy_with_logits(&self.y, None, weights, Reduction::Sum);
            (loss, scores.sigmoid())
        } else {
            let loss = scores.cross_entropy_loss(&self.y, weights, Reduction::Sum, batch::IGNORED, 0.0);
            (loss, scores.softmax(-1, self.x.kind()))
        };
        let loss = loss / n;
        let mut residual = (predicted - &self.targets) / n;
        if let Some(importance) = &self.importance {
            residual *= importance;
        }
        let (weight, _) = self.split(theta);
        let ridge = 1.0 / (strength * n);
        let objective = loss.to_kind(Kind::Double) + weight.square().sum(Kind::Double) * (0.5 * ridge);
        let by_weight = residual.tr().matmul(&self.x) + weight * ridge;
        let by_bias = residual.sum_dim_intlist([0i64].as_slice(), false, self.x.kind());
        (objective.double_value(&[]), Tensor::cat(&[by_weight.flatten(0, 1), by_bias], 0))
    }

    /// Returns the minimum, searched from `start` until no component of the gradient exceeds `tolerance`.
    fn minimize(&self, start: &Tensor, strength: f64, tolerance: f64) -> Result<Tensor> {
        // What f32 does not resolve is no decrease.
        let shortest = if self.x.kind() == Kind::Float { 1e-3 } else { 1e-12 };
        let dot = |a: &Tensor, b: &Tensor| a.dot(b).double_value(&[]);
        let mut theta = start.copy();
        let (mut value, mut gradient) = self.at(&theta, strength);
        let mut pairs: VecDeque<(Tensor, Tensor, f64)> = VecDeque::new();
        for iteration in 0..ITERATIONS {
            ensure!(value.is_finite(), "the regression's objective is {value} after {iteration} iterations");
            if gradient.abs().max().double_value(&[]) < tolerance {
                break;
            }
            // The two loops over what is remembered.
            let mut direction = -&gradient;
            let mut factors = Vec::with_capacity(pairs.len());
            for (s, y, rho) in pairs.iter().rev() {
                let factor = rho * dot(s, &direction);
                direction -= y * factor;
                factors.push(factor);
            }
            if let Some((_, y, rho)) = pairs.back() {
                direction *= 1.0 / (rho * dot(y, y));
            }
            for ((s, y, rho), factor) in pairs.iter().zip(factors.into_iter().rev()) {
                direction += s * (factor - rho * dot(y, &direction));
            }
            let slope = dot(&gradient, &direction);
            if slope >= 0.0 {
                break;
            }
            // Sufficient decrease, by halves. The first step has no scale yet.
            let mut step = if pairs.is_empty() { (1.0 / dot(&gradient, &gradient).sqrt()).min(1.0) } else { 1.0 };
            let (next, next_value, next_gradient) = loop {
                let next = &theta + &direction * step;
                let (found, slope_there) = self.at(&next, strength);
                if found <= value + 1e-4 * step * slope {
                    break (next, found, slope_there);
                }
                step *= 0.5;
                if step < shortest {
                    return Ok(theta);
                }
            };
            let (s, y) = (&next - &theta, &next_gradient - &gradient);
            let curvature = dot(&s, &y);
            if curvature > 1e-12 * dot(&y, &y) {
                pairs.push_back((s, y, 1.0 / curvature));
                if pairs.len() > MEMORY {
                    pairs.pop_front();
                }
            }
            (theta, value, gradient) = (next, next_value, next_gradient);
        }
        Ok(theta)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// `x = sin(0.7(i+1)(j+1)) + cos(1.3·i(j+2))/2`, `[40, 4]`; the class is the largest of `x[..3] + 0.9·sin(2.9i + j)`.
    fn data() -> (Tensor, Vec<usize>) {
        let x = |i: f64, j: f64| (0.7 * (i + 1.0) * (j + 1.0)).sin() + 0.5 * (1.3 * i * (j + 2.0)).cos();
        let (mut rows, mut classes) = (Vec::new(), Vec::new());
        for i in (0..40).map(f64::from) {
            rows.extend((0..4).map(|j| x(i, f64::from(j))));
            let noisy = |j: usize| x(i, j as f64) + 0.9 * (2.9 * i + j as f64).sin();
            classes.push((0..3).max_by(|&a, &b| noisy(a).total_cmp(&noisy(b))).unwrap());
        }
        (Tensor::from_slice(&rows).view([40, 4]), classes)
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
    }

    #[test]
    fn the_minimum_is_that_of_scikit_learn() {
        // scikit-learn 1.9.1, NumPy 2.4.6: LogisticRegression(C=0.3, tol=1e-10, max_iter=10000, class_weight=None | {0: 1, 1: 2, 2: 0.5}).
        let plain = [
            [0.6327550748786904, -0.6435961000287703, -0.3693401565557814, -0.15761986174167575],
            [-0.24227546874420985, 0.9855844816555823, -0.3641510601073836, 0.2634683653921176],
            [-0.3904796061344806, -0.3419883816268119, 0.733491216663165, -0.10584850365044193],
        ];
        let weighted = [
            [0.6372138788458992, -0.7192268370257812, -0.2733728141601742, -0.20864045681092266],
            [-0.29470074806425123, 1.0711606066987982, -0.3383004457065275, 0.2810070657897634],
            [-0.3425131307816478, -0.35193376967301715, 0.611673259866702, -0.07236660897884069],
        ];
        let (x, y) = data();
        let y = batch::targets(y.into_iter().map(Some), Device::Cpu);
        for (weights, matrix, bias) in [
            (None, plain, [-0.07582914129295902, 0.12664874968742051, -0.05081960839446136]),
            (Some([1.0, 2.0, 0.5]), weighted, [-0.04937270922788524, 0.644365289791397, -0.5949925805635119]),
        ] {
            let weights = weights.map(|weights| Tensor::from_slice(&weights));
            let problem = Problem::new(x.shallow_clone(), y.shallow_clone(), weights.as_ref(), 3);
            let theta = problem.minimize(&problem.zeros(), 0.3, 1e-6).unwrap();
            let expected = matrix.as_flattened().iter().chain(&bias);
            for (found, expected) in values(&theta).iter().zip(expected) {
                assert!((found - expected).abs() < 2e-4, "{found} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_regression_per_label_is_that_of_scikit_learn() {
        // scikit-learn 1.9.1, NumPy 2.4.6: LogisticRegression(C=0.3, tol=1e-10, max_iter=10000) on label k, which applies where
        // x[k] + 0.9·sin(2.9i + k) > 0.3; then with class_weight={0: 1, 1: w} of w = [1, 2, 0.5].
        let plain = [
            [1.255852318130295, 0.14143537744586043, 0.08837568622311659, 0.1398503636811551],
            [0.04379617795928848, 1.1193139835238133, 0.04860365008850239, 0.3620114403528165],
            [0.21628162278624594, -0.13572310253975486, 1.2478774543339466, 0.06249749931705239],
        ];
        let weighted = [
            [1.255852318130295, 0.14143537744586043, 0.08837568622311659, 0.1398503636811551],
            [0.07715394645532112, 1.3019874425775393, 0.07645585500044669, 0.38786725224026053],
            [0.16374139578500585, -0.09977905107014336, 1.0099052207909898, 0.028889512840127744],
        ];
        let (x, _) = data();
        let rows = values(&x);
        let applies = |i: usize, k: usize| rows[4 * i + k] + 0.9 * (2.9 * i as f64 + k as f64).sin() > 0.3;
        let labels: Vec<Vec<usize>> = (0..40).map(|i| (0..3).filter(|&k| applies(i, k)).collect()).collect();
        let y = batch::multi_hot(labels.iter().map(Vec::as_slice), 3, Device::Cpu).to_kind(Kind::Double);
        for (weights, matrix, bias) in [
            (None, plain, [0.12944242282141705, -0.6332379745566709, -0.5456148441529086]),
            (Some([1.0, 2.0, 0.5]), weighted, [0.12944242282141705, -0.0625199082715609, -1.0994105088610264]),
        ] {
            let weights = weights.map(|weights| Tensor::from_slice(&weights));
            let problem = Problem::new(x.shallow_clone(), y.shallow_clone(), weights.as_ref(), 3);
            let theta = problem.minimize(&problem.zeros(), 0.3, 1e-6).unwrap();
            let expected = matrix.as_flattened().iter().chain(&bias);
            for (found, expected) in values(&theta).iter().zip(expected) {
                assert!((found - expected).abs() < 2e-4, "{found} instead of {expected}");
            }
        }
        let fitted = fit(&x.to_kind(Kind::Float), &Labels::Any(labels), None, 3, 1).unwrap();
        assert!(STRENGTHS.contains(&fitted.strength) && (-0.69..0.0).contains(&fitted.held_out), "{fitted:?}");
    }

    #[test]
    fn a_head_fits_the_vectors_as_they_were_given() {
        let (x, y) = data();
        let x = x.to_kind(Kind::Float) * 50.0;
        let labels = Labels::One(y.clone());
        let fitted = fit(&x, &labels, None, 3, 1).unwrap();
        assert!(STRENGTHS.contains(&fitted.strength));
        assert!(fitted.held_out > 0.6, "{fitted:?}");
        let scores = x.linear(&fitted.weight, Some(&fitted.bias));
        let right = scores.argmax(-1, false).eq_tensor(&batch::targets(y.iter().copied().map(Some), Device::Cpu));
        assert!(right.sum(Kind::Float).double_value(&[]) > 26.0);
        // The same in every call, and for vectors of another length.
        let again = fit(&(&x * 0.01), &labels, None, 3, 1).unwrap();
        assert_eq!((again.strength, again.held_out), (fitted.strength, fitted.held_out));
        let said = fit(&x.narrow(0, 0, 4), &Labels::One(y[..4].to_vec()), None, 3, 1).unwrap_err().to_string();
        assert!(said.contains("4 training texts are too few"), "{said}");
    }
}
