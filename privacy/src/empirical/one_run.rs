//! The audit of one run (Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run", arXiv 2305.08846).
//!
//! Of m canaries each is included by an independent fair coin. After the run an attacker scores every canary, guesses
//! `included` for the r/2 highest scores and `left out` for the r/2 lowest, and abstains from the others. If the run is
//! (epsilon, delta)-private, the number of right guesses is hardly above binomial with success probability
//! e^epsilon / (1 + e^epsilon), whatever the scores: so many right guesses are evidence against every small epsilon.

use crate::quantities::{Delta, Epsilon};
use thiserror::Error;

/// What the attacker guessed, and how often it was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guesses {
    canaries: u64,
    guesses: u64,
    right: u64,
}

/// Why there is nothing to conclude from guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GuessError {
    /// Counts that cannot be.
    #[error(
        "{right} of {guesses} guesses about {canaries} canaries cannot be right: there are at most as many of each as before"
    )]
    Counts {
        /// Canaries.
        canaries: u64,
        /// Guesses made.
        guesses: u64,
        /// Guesses that were right.
        right: u64,
    },
    /// The number of guesses is odd, or there are more than canaries.
    #[error(
        "{guesses} guesses about {canaries} canaries: an even number of at least 2 is needed, at most one for each"
    )]
    Number {
        /// Canaries.
        canaries: u64,
        /// Guesses asked for.
        guesses: u64,
    },
    /// A score is no number.
    #[error("the score of canary {canary} is not a number")]
    Score {
        /// Which, from 0.
        canary: usize,
    },
}

impl Guesses {
    /// `right` of `guesses` guesses about `canaries` canaries were right.
    ///
    /// # Errors
    /// [`GuessError::Counts`] unless right ≤ guesses ≤ canaries and there is a canary.
    pub fn new(canaries: u64, guesses: u64, right: u64) -> Result<Self, GuessError> {
        match right <= guesses && guesses <= canaries && canaries > 0 {
            true => Ok(Self { canaries, guesses, right }),
            false => Err(GuessError::Counts { canaries, guesses, right }),
        }
    }

    /// Makes `guesses` guesses from the scores of all canaries, and counts those that `included` proves right. Of equal scores
    /// the first counts as the lower. The number of guesses must have been fixed before the scores were seen.
    ///
    /// # Errors
    /// [`GuessError::Number`] or [`GuessError::Score`].
    ///
    /// # Panics
    /// If there are not as many scores as coins.
    pub fn of_scores(scores: &[f64], included: &[bool], guesses: usize) -> Result<Self, GuessError> {
        assert_eq!(scores.len(), included.len(), "every canary has a score and a coin");
        let canaries = scores.len() as u64;
        if guesses < 2 || !guesses.is_multiple_of(2) || guesses > scores.len() {
            return Err(GuessError::Number { canaries, guesses: guesses as u64 });
        }
        if let Some(canary) = scores.iter().position(|score| score.is_nan()) {
            return Err(GuessError::Score { canary });
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&one, &other| scores[one].total_cmp(&scores[other]));
        let lowest = order[..guesses / 2].iter().filter(|&&canary| !included[canary]).count();
        let highest = order[order.len() - guesses / 2..].iter().filter(|&&canary| included[canary]).count();
        Self::new(canaries, guesses as u64, (lowest + highest) as u64)
    }

    /// Canaries, m.
    pub fn canaries(&self) -> u64 {
        self.canaries
    }

    /// Guesses made, r.
    pub fn guesses(&self) -> u64 {
        self.guesses
    }

    /// Guesses that were right, v.
    pub fn right(&self) -> u64 {
        self.right
    }

    /// An upper bound on the probability of so many right guesses about an (epsilon, delta)-private run (theorem 5.2, in the
    /// form of appendix D).
    pub fn p_value(&self, epsilon: f64, delta: Delta) -> f64 {
        let law = Binomial { trials: self.guesses, success: epsilon };
        let mut tail: f64 = 0.0;
        for successes in self.right..=self.guesses {
            tail += law.probability(successes);
        }
        let (mut sum, mut steepest) = (0.0, 0.0_f64);
        for below in 1..=self.right {
            sum += law.probability(self.right - below);
            steepest = steepest.max(sum / below as f64);
        }
        (tail + 2.0 * self.canaries as f64 * delta.get() * steepest).min(1.0)
    }

    /// The largest epsilon that so many right guesses rule out with this confidence, 0 if they rule out none: a run that is
    /// (epsilon, delta)-private with a smaller one gives them with probability at most 1 − `confidence`.
    pub fn epsilon_lower(&self, delta: Delta, confidence: f64) -> Epsilon {
        let is_ruled_out = |epsilon: f64| self.p_value(epsilon, delta) < 1.0 - confidence;
        if !is_ruled_out(0.0) {
            return Epsilon::ZERO;
        }
        let (mut low, mut high) = (0.0, HIGHEST);
        while high - low > PRECISION {
            let middle = 0.5 * (low + high);
            match is_ruled_out(middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        Epsilon::new(low).unwrap_or(Epsilon::ZERO)
    }
}

/// The binomial law with success probability e^s / (1 + e^s).
struct Binomial {
    trials: u64,
    success: f64,
}

impl Binomial {
    fn probability(&self, successes: u64) -> f64 {
        let (n, k, s) = (self.trials as f64, successes as f64, self.success);
        let ways = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
        // ln q = −ln(1 + e^−s) and ln(1 − q) = ln q − s.
        let ln_q = -(-s).exp().ln_1p();
        (ways + k * ln_q + (n - k) * (ln_q - s)).exp()
    }
}

/// No count of guesses that fits a computer rules out more.
const HIGHEST: f64 = 50.0;
const PRECISION: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_made_at_both_ends_of_the_scores() {
        let scores = [0.1, 5.0, -3.0, 0.2, 4.0, -1.0];
        let included = [true, true, false, false, false, true];
        let guesses = Guesses::of_scores(&scores, &included, 4).unwrap();
        // −3 (left out) and −1 (included) are guessed left out, 4 (left out) and 5 (included) included.
        assert_eq!((guesses.canaries(), guesses.guesses(), guesses.right()), (6, 4, 2));
    }

    #[test]
    fn what_cannot_be_guessed_is_refused() {
        let refuse = |guesses| Guesses::of_scores(&[0.0; 4], &[true; 4], guesses).unwrap_err();
        for guesses in [0, 3, 6] {
            assert_eq!(refuse(guesses), GuessError::Number { canaries: 4, guesses: guesses as u64 });
        }
        let broken = Guesses::of_scores(&[0.0, f64::NAN], &[true; 2], 2).unwrap_err();
        assert_eq!(broken, GuessError::Score { canary: 1 });
        assert!(
            Guesses::new(3, 4, 1).is_err()
                && Guesses::new(3, 2, 3).is_err()
                && Guesses::new(0, 0, 0).is_err()
        );
    }

    #[test]
    fn the_p_value_falls_with_right_guesses_and_rises_with_epsilon_and_delta() {
        let p = |right, epsilon, delta| {
            Guesses::new(1000, 500, right).unwrap().p_value(epsilon, Delta::new(delta).unwrap())
        };
        let mut compared = 0;
        for right in (250..500).step_by(10) {
            for epsilon in [0.0, 0.5, 2.0] {
                assert!(p(right, epsilon, 1e-9) >= p(right + 10, epsilon, 1e-9));
                assert!(p(right, epsilon, 1e-9) <= p(right, epsilon + 0.5, 1e-9));
                assert!(p(right, epsilon, 1e-9) <= p(right, epsilon, 1e-6));
                compared += 1;
            }
        }
        assert_eq!(compared, 75);
    }

    #[test]
    fn guessing_like_a_coin_rules_out_nothing() {
        let delta = Delta::new(1e-9).unwrap();
        assert_eq!(Guesses::new(1000, 500, 250).unwrap().epsilon_lower(delta, 0.95), Epsilon::ZERO);
        assert_eq!(Guesses::new(1000, 500, 0).unwrap().epsilon_lower(delta, 0.95), Epsilon::ZERO);
    }
}
