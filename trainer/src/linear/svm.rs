//! Linear support vector machines, one per class against the rest.
//!
//! ```text
//! minimize  ½‖w‖² + C·Σᵢ max(0, 1 − yᵢ·w·xᵢ)²
//! ```
//!
//! as scikit-learn's `LinearSVC`: by coordinate descent in the dual (Hsieh et al. 2008, "A Dual Coordinate Descent Method for Large-scale
//! Linear SVM", algorithm 1, L2 loss), with a bias that is one more weight, of a column of ones.
//!
//! With a `ratio_power` of β above 0, a weight is the cheaper the more its column tells the class by itself: `½·Σ w²/s²` takes the place of
//! `½‖w‖²`, with `s` in proportion to `|ln((p/‖p‖₁)/(q/‖q‖₁))|^β` and a mean square of 1, where `p` and `q` are one more than the texts of the
//! class and the others that have the column. That is the same as columns multiplied by `s` (NB-SVM: Wang and Manning 2012, "Baselines and
//! Bigrams", where β is 1). It matters most where texts are few.

use kinglet_data::dataset::Labels;
use rayon::prelude::*;

use super::counts::Counts;
use crate::random::{Purpose, SplitMix64, derive_seed};

/// Weights and bias of a class.
#[derive(Clone, Debug)]
pub struct Machine {
    /// A weight per column.
    pub weights: Vec<f32>,
    /// Added to each margin.
    pub bias: f32,
}

impl Machine {
    /// Returns the margin of a text.
    pub fn margin(&self, counts: &Counts, text: usize) -> f32 {
        self.bias + counts.row(text).map(|(column, value)| value * self.weights[column]).sum::<f32>()
    }
}

/// How machines are fitted.
#[derive(Clone, Copy, Debug)]
pub struct Descent {
    /// `C`.
    pub strength: f32,
    /// The power of the log-count ratios, β; 0 for weights that all cost the same.
    pub ratio_power: f32,
    /// Difference of the largest and the smallest projected gradient at which the descent ends.
    pub tolerance: f32,
    /// Maximum number of passes over the texts.
    pub passes: u64,
    /// Seed of the order of the texts.
    pub seed: u64,
}

impl Descent {
    /// Returns a descent that ends where labels change no more; with LIBLINEAR's own tolerance, 0.1, more than two points of
    /// accuracy may be lost.
    pub fn new(strength: f32, ratio_power: f32, seed: u64) -> Self {
        Descent { strength, ratio_power, tolerance: 0.01, passes: 200, seed }
    }
}

/// Returns how many machines tell `classes` classes: one each, but one for two of which one applies to a text.
pub fn machines(labels: &Labels, classes: usize) -> usize {
    if classes == 2 && !labels.is_multi_label() { 1 } else { classes }
}

/// Fits a machine per class to the texts `rows`, whose classes are `labels`; for two classes of which one applies to a text one, that of class 1.
/// Runs on all cores; the result depends on the seed alone.
pub fn fit(counts: &Counts, labels: &Labels, rows: &[usize], classes: usize, descent: &Descent) -> Vec<Machine> {
    let first = classes - machines(labels, classes);
    let one = |class: usize| descend(counts, rows, |text| labels.of(text).contains(&class), class, descent);
    (first..classes).into_par_iter().map(one).collect()
}

fn descend(
    counts: &Counts,
    rows: &[usize],
    is: impl Fn(usize) -> bool,
    class: usize,
    &Descent { strength, ratio_power, tolerance, passes, seed }: &Descent,
) -> Machine {
    let mut random = SplitMix64::new(derive_seed(seed, Purpose::Machine, class as u64));
    let diagonal = 0.5 / strength;
    let mut machine = Machine { weights: vec![0.0; counts.width()], bias: 0.0 };
    let mut duals = vec![0f32; rows.len()];
    let leeway = leeway(counts, rows, &is, ratio_power);
    let square = |(column, value): (usize, f32)| value * value * leeway[column];
    let squares: Vec<f32> = rows.iter().map(|&row| 1.0 + diagonal + counts.row(row).map(square).sum::<f32>()).collect();
    // Texts that are surely on their side stay out of the passes until the others are done ("shrinking", algorithm 3 of the paper).
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let (mut active, mut surely) = (rows.len(), f32::INFINITY);
    for _ in 0..passes {
        random.shuffle(&mut order[..active]);
        let (mut most, mut least) = (f32::NEG_INFINITY, f32::INFINITY);
        let mut next = 0;
        while next < active {
            let place = order[next];
            let (text, dual) = (rows[place], duals[place]);
            let sign = if is(text) { 1.0 } else { -1.0 };
            let gradient = sign * machine.margin(counts, text) - 1.0 + diagonal * dual;
            if dual == 0.0 && gradient > surely {
                active -= 1;
                order.swap(next, active);
                continue;
            }
            next += 1;
            let projected = if dual == 0.0 { gradient.min(0.0) } else { gradient };
            (most, least) = (most.max(projected), least.min(projected));
            if projected.abs() <= f32::EPSILON {
                continue;
            }
            duals[place] = (dual - gradient / squares[place]).max(0.0);
            let step = (duals[place] - dual) * sign;
            machine.bias += step;
            counts.row(text).for_each(|(column, value)| machine.weights[column] += step * value * leeway[column]);
        }
        surely = if most > 0.0 { most } else { f32::INFINITY };
        if most - least <= tolerance {
            if active == rows.len() {
                break;
            }
            (active, surely) = (rows.len(), f32::INFINITY);
        }
    }
    machine
}

/// Returns `s²` of each column.
fn leeway(counts: &Counts, rows: &[usize], is: impl Fn(usize) -> bool, power: f32) -> Vec<f32> {
    if power == 0.0 {
        return vec![1.0; counts.width()];
    }
    // Of the texts of the class and of the others.
    let mut texts = vec![[1f64; 2]; counts.width()];
    rows.iter().for_each(|&row| {
        let side = usize::from(!is(row));
        counts.row(row).for_each(|(column, _)| texts[column][side] += 1.0);
    });
    let seen = |texts: &&[f64; 2]| texts[0] + texts[1] > 2.0;
    let all = texts.iter().filter(seen).fold([0f64; 2], |all, texts| [all[0] + texts[0], all[1] + texts[1]]);
    let square = |[p, q]: &[f64; 2]| ((p / all[0]) / (q / all[1])).ln().abs().powf(2.0 * f64::from(power));
    let count = texts.iter().filter(seen).count();
    let mean = texts.iter().filter(seen).map(square).sum::<f64>() / count.max(1) as f64;
    if mean <= 0.0 {
        return vec![1.0; counts.width()];
    }
    texts.iter().map(|texts| if seen(&texts) { (square(texts) / mean) as f32 } else { 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::counts::Labelled;

    /// LinearSVC(C=0.5, tol=1e-10), scikit-learn 1.9.1, on the rows of the test in `counts`: coefficients of ids 1 to 4 and intercept.
    const THREE: [([f32; 4], f32); 3] = [
        ([0.290_422, 0.069_757, -0.252_502, -0.405_312], -0.194_728),
        ([-0.587_703, 0.032_781, 0.224_925, -0.303_409], -0.145_770),
        ([0.136_056, -0.382_965, -0.212_261, 0.595_873], -0.129_504),
    ];

    #[test]
    fn the_weights_are_those_of_scikit_learn() {
        let ids = [vec![1, 2, 2, 3], vec![2, 3], vec![3, 4, 1, 2]];
        let data =
            Labelled { texts: &[], ids: &ids, labels: &Labels::One(Vec::new()), learnt: 3, vocab_size: 5, classes: 3 };
        let counts = Counts::of_tokens(&data, false);
        let descent = Descent { strength: 0.5, ratio_power: 0.0, tolerance: 1e-7, passes: 10_000, seed: 1 };
        let of = |labels: &Labels, classes| fit(&counts, labels, &[0, 1, 2], classes, &descent);
        let fit = |labels: &[usize], classes| of(&Labels::One(labels.to_vec()), classes);
        let near = |machine: &Machine, sign: f32, (weights, bias): &([f32; 4], f32)| {
            assert_eq!(machine.weights[0], 0.0);
            assert!((machine.bias - sign * bias).abs() < 1e-5, "{machine:?}");
            machine.weights[1..]
                .iter()
                .zip(weights)
                .for_each(|(a, b)| assert!((a - sign * b).abs() < 1e-5, "{machine:?}"));
        };
        let three = fit(&[0, 1, 2], 3);
        assert_eq!(three.len(), 3);
        three.iter().zip(&THREE).for_each(|(machine, want)| near(machine, 1.0, want));
        let two = fit(&[0, 1, 1], 2);
        assert_eq!(two.len(), 1);
        near(&two[0], -1.0, &THREE[0]);
        // Of any number of labels, each has its own.
        let several = of(&Labels::Any(vec![vec![0], vec![1], vec![1]]), 2);
        assert_eq!(several.len(), 2);
        near(&several[0], 1.0, &THREE[0]);
        near(&several[1], -1.0, &THREE[0]);
    }

    #[test]
    fn with_log_count_ratios_the_weights_are_those_of_columns_multiplied_by_them() {
        // LinearSVC(C=0.5, tol=1e-12) of the columns times s, scikit-learn 1.9.1: coefficients times s, and intercept.
        let want = [
            (
                0.5,
                [
                    ([0.491_296, 0.002_989, -0.070_411, -0.627_064], -0.249_824),
                    ([-1.013_067, 0.069_867, 0.192_001, -0.105_991], -0.070_939),
                    ([0.027_31, -0.297_837, -0.184_89, 1.024_932], -0.221_143),
                ],
            ),
            (
                1.0,
                [
                    ([0.545_558, -0.000_403, -0.011_673, -0.670_828], -0.277_68),
                    ([-1.287_538, 0.067_364, 0.126_411, -0.025_73], 0.014_07),
                    ([0.002_579, -0.173_103, -0.116_024, 1.268_588], -0.337_974),
                ],
            ),
        ];
        let ids = [vec![1, 2, 2, 3], vec![2, 3], vec![3, 4, 1, 2]];
        let labels = Labels::One(vec![0, 1, 2]);
        let data = Labelled { texts: &[], ids: &ids, labels: &labels, learnt: 3, vocab_size: 5, classes: 3 };
        let counts = Counts::of_tokens(&data, false);
        for (ratio_power, want) in want {
            let descent = Descent { strength: 0.5, ratio_power, tolerance: 1e-7, passes: 100_000, seed: 1 };
            let found = fit(&counts, &labels, &[0, 1, 2], 3, &descent);
            for (machine, (weights, bias)) in found.iter().zip(want) {
                let near = |a: f32, b: f32| (a - b).abs() < 2e-4;
                assert!(machine.weights[0] == 0.0 && near(machine.bias, bias), "{machine:?} {bias}");
                assert!(machine.weights[1..].iter().zip(weights).all(|(&a, b)| near(a, b)), "{machine:?} {weights:?}");
            }
        }
        // Of columns that tell nothing, none is cheaper.
        assert_eq!(leeway(&counts, &[0, 1, 2], |_| true, 1.0).len(), 5);
    }

    #[test]
    fn texts_that_stay_out_of_the_passes_change_nothing() {
        let mut random = SplitMix64::new(5);
        let ids: Vec<Vec<u32>> = (0..200).map(|_| (0..6).map(|_| (random.next_u64() % 30) as u32).collect()).collect();
        let labels: Vec<usize> = ids.iter().map(|text| usize::from(text.contains(&1) || text.contains(&2))).collect();
        let data = Labelled {
            texts: &[],
            ids: &ids,
            labels: &Labels::One(labels.clone()),
            learnt: 200,
            vocab_size: 30,
            classes: 2,
        };
        let counts = Counts::of_tokens(&data, false);
        let rows: Vec<usize> = (0..200).collect();
        let descent = Descent { strength: 5.0, ratio_power: 0.0, tolerance: 1e-5, passes: 10_000, seed: 1 };
        let machine = &fit(&counts, data.labels, &rows, 2, &descent)[0];
        // Where the gradient of what is minimized is zero: w = 2C·Σ max(0, 1 − y·w·x)·y·x, and the bias likewise.
        let (mut weights, mut bias) = (vec![0.0; 30], 0.0);
        let mut satisfied = 0;
        for text in rows {
            let sign = if labels[text] == 1 { 1.0 } else { -1.0 };
            let missing = (1.0 - sign * machine.margin(&counts, text)).max(0.0);
            satisfied += usize::from(missing == 0.0);
            bias += 10.0 * missing * sign;
            counts.row(text).for_each(|(column, value)| weights[column] += 10.0 * missing * sign * value);
        }
        assert!(satisfied > 20, "{satisfied}");
        assert!((machine.bias - bias).abs() < 1e-2, "{} {bias}", machine.bias);
        machine.weights.iter().zip(&weights).for_each(|(a, b)| assert!((a - b).abs() < 1e-2, "{a} {b}"));
    }
}
