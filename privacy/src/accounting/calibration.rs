//! Which noise, which sampling rate or how many rounds a target allows.
//!
//! ε falls with the noise and rises with sampling rate and rounds, so each is found by narrowing a bracket. Every answer is on
//! the private side: the accountant itself says that it meets the target.

use super::amplification::Amplification;
use super::{Accountant, AccountingError, Composition};
use crate::quantities::{Adjacency, Delta, Epsilon, NoiseMultiplier, QuantityError, Sampling, SamplingRate};

/// A target that cannot be met, or not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    /// The accountant refused.
    #[error(transparent)]
    Accounting(#[from] AccountingError),
    /// A parameter outside its range.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// No value of the parameter meets the target.
    #[error("no {parameter} from {least} to {most} gives an epsilon of at most {target}")]
    Unreachable {
        /// What was to be found.
        parameter: &'static str,
        /// Its least value.
        least: f64,
        /// Its largest value.
        most: f64,
        /// The epsilon asked for.
        target: Epsilon,
    },
}

/// What rounds that are all alike may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// The most ε may become.
    pub epsilon: Epsilon,
    /// Its δ.
    pub delta: Delta,
    /// What counts as neighbouring.
    pub adjacency: Adjacency,
    /// Who computes ε.
    pub accountant: Accountant,
}

impl Target {
    /// The smallest noise multiplier that keeps `steps` rounds within the target, larger by at most one millionth.
    ///
    /// From 0.1 to 10⁶; 0.1 where less would do.
    ///
    /// # Errors
    /// [`CalibrationError::Unreachable`] when none is enough.
    pub fn noise_multiplier(
        &self,
        sampling: Sampling,
        steps: u64,
    ) -> Result<NoiseMultiplier, CalibrationError> {
        let sigma = self.nearest("noise multiplier", MOST_NOISE, LEAST_NOISE, |sigma| {
            self.excess(sampling, NoiseMultiplier::new(sigma)?, steps)
        })?;
        Ok(NoiseMultiplier::new(sigma)?)
    }

    /// The largest Poisson sampling rate that keeps `steps` rounds within the target, smaller by at most one millionth.
    ///
    /// From 10⁻⁹ to 1.
    ///
    /// # Errors
    /// [`CalibrationError::Unreachable`] when none is small enough.
    pub fn sampling_rate(
        &self,
        noise_multiplier: NoiseMultiplier,
        steps: u64,
    ) -> Result<SamplingRate, CalibrationError> {
        let rate = self.nearest("sampling rate", LEAST_RATE, 1.0, |rate| {
            self.excess(Sampling::Poisson { rate: SamplingRate::new(rate)? }, noise_multiplier, steps)
        })?;
        Ok(SamplingRate::new(rate)?)
    }

    /// The largest number of rounds within the target, up to [`MOST_STEPS`]; 0 when even one is too many.
    ///
    /// # Errors
    /// [`CalibrationError::Accounting`] when the accountant cannot account for such rounds.
    pub fn steps(
        &self,
        sampling: Sampling,
        noise_multiplier: NoiseMultiplier,
    ) -> Result<u64, CalibrationError> {
        let probe = |value: f64| {
            let excess = self.excess(sampling, noise_multiplier, value as u64)?;
            Ok::<_, CalibrationError>(Probe { value, excess })
        };
        let most = MOST_STEPS as f64;
        let mut refused = probe(self.steps_to_begin_with(sampling, noise_multiplier))?;
        let mut fits = if refused.fits() { refused } else { probe(1.0)? };
        if !fits.fits() {
            return Ok(0);
        }
        while refused.fits() {
            if refused.value == most {
                return Ok(MOST_STEPS);
            }
            fits = refused;
            refused = probe((2.0 * fits.value).min(most))?;
        }
        let mut bracket = Bracket { fits, refused };
        while bracket.refused.value - bracket.fits.value > 1.0 {
            let guess = bracket.guess(0.0).round();
            bracket.narrow(probe(guess.clamp(bracket.fits.value + 1.0, bracket.refused.value - 1.0))?);
        }
        Ok(bracket.fits.value as u64)
    }

    /// Steps that fit by a quicker accountant, whose bound is looser; 1 where there is none.
    fn steps_to_begin_with(&self, sampling: Sampling, noise_multiplier: NoiseMultiplier) -> f64 {
        let quick = Self { accountant: Accountant::Rdp, ..*self };
        match self.accountant {
            Accountant::Pld => {
                quick.steps(sampling, noise_multiplier).map_or(1.0, |steps| steps.max(1) as f64)
            }
            Accountant::Rdp | Accountant::Analytic | Accountant::PldOptimistic => 1.0,
        }
    }

    /// ε of `steps` such rounds.
    ///
    /// # Errors
    /// [`CalibrationError::Accounting`] when the accountant cannot account for them.
    pub fn epsilon_of(
        &self,
        sampling: Sampling,
        noise_multiplier: NoiseMultiplier,
        steps: u64,
    ) -> Result<Epsilon, CalibrationError> {
        let composition = rounds(self.adjacency, sampling, noise_multiplier, steps);
        Ok(composition.epsilon(self.accountant, self.delta)?)
    }

    /// Whether `steps` such rounds stay within the target; no where their losses spread too far to be computed.
    ///
    /// # Errors
    /// [`CalibrationError::Accounting`] when the accountant cannot account for them.
    pub fn allows(
        &self,
        sampling: Sampling,
        noise_multiplier: NoiseMultiplier,
        steps: u64,
    ) -> Result<bool, CalibrationError> {
        Ok(self.excess(sampling, noise_multiplier, steps)? <= 0.0)
    }

    /// ln(ε/target): at most 0 within the target; infinite where the losses spread too far to be computed.
    fn excess(
        &self,
        sampling: Sampling,
        noise_multiplier: NoiseMultiplier,
        steps: u64,
    ) -> Result<f64, CalibrationError> {
        match self.epsilon_of(sampling, noise_multiplier, steps) {
            Ok(epsilon) if epsilon <= self.epsilon => Ok((epsilon.get() / self.epsilon.get()).ln().min(0.0)),
            Ok(epsilon) => Ok((epsilon.get() / self.epsilon.get()).ln().max(f64::MIN_POSITIVE)),
            Err(CalibrationError::Accounting(AccountingError::TooFine { .. })) => Ok(f64::INFINITY),
            Err(error) => Err(error),
        }
    }

    /// The value that fits and is next to those that do not, between the most private and the least private.
    fn nearest(
        &self,
        parameter: &'static str,
        private: f64,
        loose: f64,
        excess: impl Fn(f64) -> Result<f64, CalibrationError>,
    ) -> Result<f64, CalibrationError> {
        let probe = |value: f64| Ok::<_, CalibrationError>(Probe { value, excess: excess(value)? });
        let (least, most) = (private.min(loose), private.max(loose));
        let factor = if private > loose { 2.0 } else { 0.5 };
        let start = 1.0_f64.clamp(least, most);
        let (mut fits, mut refused) = (probe(start)?, probe(start)?);
        while !fits.fits() {
            if fits.value == private {
                return Err(CalibrationError::Unreachable { parameter, least, most, target: self.epsilon });
            }
            refused = fits;
            fits = probe((fits.value * factor).clamp(least, most))?;
        }
        while refused.fits() {
            if refused.value == loose {
                return Ok(loose);
            }
            fits = refused;
            refused = probe((refused.value / factor).clamp(least, most))?;
        }
        let mut bracket = Bracket { fits, refused };
        while bracket.width() > PRECISION {
            bracket.narrow(probe(bracket.guess(0.4 * PRECISION))?);
        }
        Ok(bracket.fits.value)
    }
}

/// A composition of `steps` equal rounds of Gaussian noise, amplified where the sampling earns it.
#[must_use]
pub fn rounds(
    adjacency: Adjacency,
    sampling: Sampling,
    noise_multiplier: NoiseMultiplier,
    steps: u64,
) -> Composition {
    let mut composition = Composition::new(adjacency);
    composition.push(Amplification::of(sampling, adjacency).gaussian(noise_multiplier), steps);
    composition
}

/// A value that was tried, and ln(ε/target) there.
#[derive(Clone, Copy)]
struct Probe {
    value: f64,
    excess: f64,
}

impl Probe {
    fn fits(self) -> bool {
        self.excess <= 0.0
    }
}

/// A value that fits and one that does not; narrowed by the Illinois variant of regula falsi, on logarithms.
struct Bracket {
    fits: Probe,
    refused: Probe,
}

impl Bracket {
    /// |ln| of the quotient of the two ends.
    fn width(&self) -> f64 {
        (self.refused.value / self.fits.value).ln().abs()
    }

    /// Where a line between the ends crosses zero, or the middle where there is no line; at least `margin` away from both ends.
    fn guess(&self, margin: f64) -> f64 {
        let share = self.fits.excess / (self.fits.excess - self.refused.excess);
        let drawable = self.fits.excess.is_finite() && self.refused.excess.is_finite();
        let margin = margin / self.width();
        let share = if drawable { share.clamp(margin, 1.0 - margin) } else { 0.5 };
        self.fits.value * (self.refused.value / self.fits.value).powf(share)
    }

    /// Replaces one end, and halves the weight of the other so that it moves soon too.
    fn narrow(&mut self, probe: Probe) {
        if probe.fits() {
            self.fits = probe;
            self.refused.excess /= 2.0;
        } else {
            self.refused = probe;
            self.fits.excess /= 2.0;
        }
    }
}

/// Most rounds that are counted.
pub const MOST_STEPS: u64 = 10_000_000;
/// Noise multipliers that are tried.
const LEAST_NOISE: f64 = 0.1;
const MOST_NOISE: f64 = 1e6;
/// Least sampling rate that is tried.
const LEAST_RATE: f64 = 1e-9;
/// Relative precision of a calibrated parameter.
const PRECISION: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    fn target(epsilon: f64, delta: f64, accountant: Accountant) -> Target {
        let (epsilon, delta) = (Epsilon::new(epsilon).unwrap(), Delta::new(delta).unwrap());
        Target { epsilon, delta, adjacency: Adjacency::AddOrRemove, accountant }
    }

    fn poisson(rate: f64) -> Sampling {
        Sampling::Poisson { rate: SamplingRate::new(rate).unwrap() }
    }

    fn noise(noise_multiplier: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(noise_multiplier).unwrap()
    }

    #[test]
    fn calibrated_noise_agrees_with_the_reference_and_is_the_least() {
        // dp_accounting 0.6.0
        for (epsilon, delta, rate, steps, expected) in [
            (1.0, 1e-5, 0.01, 1000, 1.414_632),
            (8.0, 1e-5, 0.01, 1000, 0.586_268),
            (2.0, 1e-6, 0.01, 5000, 1.747_730),
        ] {
            let target = target(epsilon, delta, Accountant::Pld);
            let found = target.noise_multiplier(poisson(rate), steps).unwrap();
            assert!((found.get() / expected - 1.0).abs() < 1e-4, "{found} vs {expected}");
            assert!(target.epsilon_of(poisson(rate), found, steps).unwrap() <= target.epsilon);
            let less = noise(found.get() * (1.0 - 2e-6));
            assert!(target.epsilon_of(poisson(rate), less, steps).unwrap() > target.epsilon);
        }
        // Balle and Wang's closed form, by dp_accounting 0.6.0
        let exact = target(1.0, 1e-5, Accountant::Analytic).noise_multiplier(Sampling::All, 1).unwrap();
        assert!((exact.get() - 3.730_631_6).abs() < 4e-6, "{exact}");
    }

    #[test]
    fn steps_and_rate_are_the_most_that_fit() {
        for (accountant, epsilon, sigma) in
            [(Accountant::Rdp, 2.0, 1.0), (Accountant::Pld, 1.0, 1.0), (Accountant::Pld, 0.3, 3.0)]
        {
            let target = target(epsilon, 1e-5, accountant);
            let (sampling, noise) = (poisson(0.01), noise(sigma));
            let steps = target.steps(sampling, noise).unwrap();
            assert!(steps > 10, "{steps}");
            assert!(target.epsilon_of(sampling, noise, steps).unwrap() <= target.epsilon, "{steps}");
            assert!(target.epsilon_of(sampling, noise, steps + 1).unwrap() > target.epsilon, "{steps}");
            let rate = target.sampling_rate(noise, 300).unwrap().get();
            assert!(target.epsilon_of(poisson(rate), noise, 300).unwrap() <= target.epsilon, "{rate}");
            assert!(
                target.epsilon_of(poisson(rate * (1.0 + 2e-6)), noise, 300).unwrap() > target.epsilon,
                "{rate}"
            );
        }
    }

    #[test]
    fn the_ends_of_every_range_are_answers() {
        let generous = target(1e6, 1e-5, Accountant::Analytic);
        assert_eq!(generous.noise_multiplier(Sampling::All, 1).unwrap().get(), 0.1);
        assert_eq!(generous.steps(Sampling::All, noise(1e3)).unwrap(), MOST_STEPS);
        let rdp = target(1e6, 1e-5, Accountant::Rdp);
        assert_eq!(rdp.sampling_rate(noise(1.0), 10).unwrap(), SamplingRate::ONE);
        let strict = target(1e-6, 1e-9, Accountant::Analytic);
        assert_eq!(strict.steps(Sampling::All, noise(1.0)).unwrap(), 0);
        let refused = strict.noise_multiplier(Sampling::All, 1_000_000).unwrap_err();
        assert!(refused.to_string().contains("no noise multiplier from 0.1 to 1000000 gives"), "{refused}");
    }
}
