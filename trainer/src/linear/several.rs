//! Margins of any number of labels: the best F1, and probabilities.

use kinglet_data::multilabel::best_threshold;

/// Iterations of Newton's method, more than it needs.
const ITERATIONS: usize = 50;
/// A change of the parameters that is none.
const STILL: f64 = 1e-9;
/// Added to the curvature, so that margins which tell everything have a probability below 1.
const RIDGE: f64 = 1e-3;

/// Returns the margins of a text, each with whether it has the label.
pub fn with_labels<'a>(margins: &'a [f32], labels: &'a [usize]) -> impl Iterator<Item = (f32, bool)> + 'a {
    margins.iter().enumerate().map(|(label, &margin)| (margin, labels.contains(&label)))
}

/// Returns the best micro F1 that one threshold of all margins has; 0 without a label. `margins`: each with whether the text has the label.
pub fn best_f1(margins: impl Iterator<Item = (f32, bool)>) -> f64 {
    // Thresholds are looked for among probabilities, which are in the same order.
    let probabilities = margins.map(|(margin, has)| (1.0 / (1.0 + (-margin).exp()), has));
    best_threshold(probabilities.collect()).map_or(0.0, |(_, f1)| f1)
}

/// Returns the factor and the shift of margins under which their logistic function says best whether a text has the label: the maximum of the
/// likelihood with a slight ridge, by Newton's method (Platt 1999, without his changed targets).
pub fn logistic(margins: &[(f32, bool)]) -> (f64, f64) {
    let (mut factor, mut shift) = (1.0, 0.0);
    for _ in 0..ITERATIONS {
        let mut gradient = [RIDGE * factor, RIDGE * shift];
        let mut curvature = [RIDGE, 0.0, RIDGE];
        for &(margin, has) in margins {
            let margin = f64::from(margin);
            let p = 1.0 / (1.0 + (-factor * margin - shift).exp());
            let (apart, weight) = (p - f64::from(u8::from(has)), p * (1.0 - p));
            gradient = [gradient[0] + apart * margin, gradient[1] + apart];
            let [a, b, c] = curvature;
            curvature = [a + weight * margin * margin, b + weight * margin, c + weight];
        }
        let ([a, b, c], [x, y]) = (curvature, gradient);
        let determinant = a * c - b * b;
        let step = [(c * x - b * y) / determinant, (a * y - b * x) / determinant];
        // A step that leaves the place where the quadratic is close is shortened.
        let length = (step[0].abs() + step[1].abs()).max(1.0);
        (factor, shift) = (factor - step[0] / length, shift - step[1] / length);
        if step[0].abs() + step[1].abs() < STILL {
            break;
        }
    }
    (factor, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_threshold_has_the_best_f1() {
        let all = vec![(0.5, false), (2.0, true), (1.0, true), (-1.0, true), (0.5, true), (-2.0, false)];
        // Two of two; four of which three are right, as equal margins are given together; all five, of which four are right.
        assert!((best_f1(all.into_iter()) - 8.0 / 9.0).abs() < 1e-12);
        assert_eq!(best_f1([(1.0, false)].into_iter()), 0.0);
        assert_eq!(best_f1([].into_iter()), 0.0);
    }

    #[test]
    fn probabilities_are_those_of_scikit_learn() {
        let margins: Vec<(f32, bool)> =
            (0..40).map(|i| ((i * 7 % 19) as f32 / 8.0 - 1.5, i * 7 % 19 + i % 5 > 14)).collect();
        let (factor, shift) = logistic(&margins);
        // scikit-learn 1.9.1: LogisticRegression(C=1000, tol=1e-12, max_iter=10000) of the margins and a column of ones, fit_intercept=False.
        assert!(
            (factor - 14.286138561236816).abs() < 1e-6 && (shift + 0.892154544971149).abs() < 1e-6,
            "{factor} {shift}"
        );
        // Margins that tell everything.
        let (factor, shift) = logistic(&[(-1.0, false), (1.0, true), (2.0, true)]);
        assert!(factor.is_finite() && shift.is_finite() && factor > 1.0, "{factor} {shift}");
    }
}
