//! Exact bounds on an error rate from a number of errors among rows (Clopper and Pearson 1934).

/// Tails of binomial distributions.
#[derive(Clone, Debug)]
pub struct Binomial {
    /// `ln n!` by `n`.
    ln_factorials: Vec<f64>,
}

impl Binomial {
    /// Prepares for up to `trials` trials. Allocates 8 bytes per trial.
    pub fn new(trials: usize) -> Self {
        let mut ln_factorials = vec![0.0; trials + 1];
        let mut sum = 0.0;
        for (n, place) in ln_factorials.iter_mut().enumerate().skip(1) {
            sum += (n as f64).ln();
            *place = sum;
        }
        Binomial { ln_factorials }
    }

    /// Returns `P(X ≤ errors)` for `X` errors in `trials` trials of probability `p`, `0 < p < 1`.
    pub fn at_most(&self, errors: usize, trials: usize, p: f64) -> f64 {
        if errors >= trials {
            return 1.0;
        }
        // Sum from the cut away from the mean, where terms only fall, so that no term that counts underflows.
        if (errors as f64) < trials as f64 * p {
            self.tail(errors, trials, p)
        } else {
            // More than `errors` errors are at most `trials − errors − 1` successes.
            1.0 - self.tail(trials - errors - 1, trials, 1.0 - p)
        }
    }

    /// Sums the terms `errors, errors − 1, … 0`.
    fn tail(&self, errors: usize, trials: usize, p: f64) -> f64 {
        let ln = |n: usize| self.ln_factorials.get(n).copied().unwrap_or(f64::INFINITY);
        let (k, n, odds) = (errors as f64, trials as f64, (1.0 - p) / p);
        let mut term = (ln(trials) - ln(errors) - ln(trials - errors) + k * p.ln() + (n - k) * (-p).ln_1p()).exp();
        let mut sum = 0.0;
        for j in (0..=errors).rev() {
            sum += term;
            if term <= sum * f64::EPSILON {
                break;
            }
            term *= j as f64 / (n - j as f64 + 1.0) * odds;
        }
        sum.min(1.0)
    }

    /// Returns an upper bound on the error rate with confidence `1 − delta`.
    ///
    /// It is the largest rate at which `errors` or fewer errors in `trials` trials have probability `delta`; 1 when every trial
    /// was an error.
    pub fn upper_bound(&self, errors: usize, trials: usize, delta: f64) -> f64 {
        if errors >= trials {
            return 1.0;
        }
        let (mut low, mut high) = (errors as f64 / trials as f64, 1.0);
        // 60 halvings of an interval of at most 1 exhaust the precision of f64.
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if middle <= 0.0 || middle >= 1.0 {
                break;
            }
            *(if self.at_most(errors, trials, middle) > delta { &mut low } else { &mut high }) = middle;
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_hand_and_never_above_one() {
        let b = Binomial::new(5000);
        assert!((b.at_most(0, 10, 0.1) - 0.9f64.powi(10)).abs() < 1e-15);
        assert!((b.at_most(1, 3, 0.5) - 0.5).abs() < 1e-15);
        assert!((b.at_most(2, 3, 0.5) - 0.875).abs() < 1e-15);
        assert_eq!(b.at_most(3, 3, 0.5), 1.0);
        assert!((b.at_most(4999, 5000, 0.01) - 1.0).abs() < 1e-9);
        assert!((b.at_most(400, 5000, 0.01) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn no_error_leaves_the_bound_of_the_closed_form() {
        // (1 − p)ⁿ = δ.
        let b = Binomial::new(100);
        assert!((b.upper_bound(0, 100, 0.05) - (1.0 - 0.05f64.powf(0.01))).abs() < 1e-12);
        assert_eq!(b.upper_bound(100, 100, 0.05), 1.0);
    }
}
