//! What a schedule costs, and which schedule a budget allows, before anybody trains.

use serde::Serialize;

use crate::accounting::amplification::Amplification;
use crate::accounting::{Accountant, AccountingError, Composition, Event, analytic};
use crate::quantities::{
    Adjacency, Delta, Epsilon, NoiseMultiplier, QuantityError, Sampling, SamplingRate, Unit,
};

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlannerError {
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

/// ε of a composition, with everything that a reader needs to know about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// The bound.
    pub epsilon: Epsilon,
    /// Its δ.
    pub delta: Delta,
    /// Text form of the accountant that proves it.
    pub accountant: &'static str,
    /// What counts as neighbouring.
    pub adjacency: Adjacency,
    /// Whose presence is hidden.
    pub unit: Unit,
    /// How far ε may be from the truth; `None` where the accountant has no bound on that.
    pub error_bound: Option<f64>,
}

/// ε of a composition at δ by one accountant.
///
/// # Errors
/// [`PlannerError::Accounting`] when the accountant cannot account for it.
pub fn cost(
    composition: &Composition,
    accountant: Accountant,
    delta: Delta,
    unit: Unit,
) -> Result<Cost, PlannerError> {
    let epsilon = composition.epsilon(accountant, delta)?;
    let distance = |other: Accountant| -> Result<Option<f64>, PlannerError> {
        let other = composition.epsilon(other, delta)?;
        Ok((epsilon.is_finite() && other.is_finite()).then(|| (epsilon.get() - other.get()).abs()))
    };
    let error_bound = match accountant {
        Accountant::Pld => distance(Accountant::PldOptimistic)?,
        Accountant::PldOptimistic => distance(Accountant::Pld)?,
        Accountant::Analytic => Some(epsilon.get() * 4.0 * f64::EPSILON).filter(|bound| bound.is_finite()),
        Accountant::Rdp => None,
    };
    let accountant = accountant.as_str();
    Ok(Cost { epsilon, delta, accountant, adjacency: composition.adjacency(), unit, error_bound })
}

/// Rounds that are all alike, and what they may cost.
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
    /// The smallest noise multiplier that keeps `steps` rounds within the target, rounded up by at most one millionth.
    ///
    /// # Errors
    /// [`PlannerError::Unreachable`] when none from 0.01 to 10⁷ does.
    pub fn noise_multiplier(&self, sampling: Sampling, steps: u64) -> Result<NoiseMultiplier, PlannerError> {
        let sigma = self.least("noise multiplier", (1e-2, 1e7), |sigma| {
            self.epsilon_of(sampling, NoiseMultiplier::new(sigma)?, steps)
        })?;
        Ok(NoiseMultiplier::new(sigma)?)
    }

    /// The largest Poisson sampling rate that keeps `steps` rounds within the target, rounded down by at most one
    /// millionth.
    ///
    /// # Errors
    /// [`PlannerError::Unreachable`] when none from 10⁻⁹ to 1 does.
    pub fn sampling_rate(
        &self,
        noise_multiplier: NoiseMultiplier,
        steps: u64,
    ) -> Result<SamplingRate, PlannerError> {
        let inverse = self.least("inverse sampling rate", (1.0, 1e9), |inverse| {
            let sampling = Sampling::Poisson { rate: SamplingRate::new(1.0 / inverse)? };
            self.epsilon_of(sampling, noise_multiplier, steps)
        })?;
        Ok(SamplingRate::new(1.0 / inverse)?)
    }

    /// The largest number of rounds within the target, up to 10⁷; 0 when even one is too many.
    ///
    /// # Errors
    /// [`PlannerError::Accounting`] when the accountant cannot account for such rounds.
    pub fn steps(&self, sampling: Sampling, noise_multiplier: NoiseMultiplier) -> Result<u64, PlannerError> {
        let fits = |steps| {
            Ok::<_, PlannerError>(self.epsilon_of(sampling, noise_multiplier, steps)? <= self.epsilon)
        };
        let (mut fitting, mut refused) = (0, 1);
        while fits(refused)? {
            if refused == MOST_STEPS {
                return Ok(MOST_STEPS);
            }
            (fitting, refused) = (refused, (refused * 4).min(MOST_STEPS));
        }
        while refused - fitting > 1 {
            let middle = fitting.midpoint(refused);
            if fits(middle)? {
                fitting = middle;
            } else {
                refused = middle;
            }
        }
        Ok(fitting)
    }

    /// ε of `steps` such rounds.
    fn epsilon_of(
        &self,
        sampling: Sampling,
        noise_multiplier: NoiseMultiplier,
        steps: u64,
    ) -> Result<Epsilon, PlannerError> {
        let composition = rounds(self.adjacency, sampling, noise_multiplier, steps);
        Ok(composition.epsilon(self.accountant, self.delta)?)
    }

    /// The least value of a parameter, of which ε is a falling function, that meets the target.
    ///
    /// Bisection of logarithms, sped up by the secant rule where both ends are finite (the "Illinois" method).
    fn least(
        &self,
        parameter: &'static str,
        (least, most): (f64, f64),
        epsilon: impl Fn(f64) -> Result<Epsilon, PlannerError>,
    ) -> Result<f64, PlannerError> {
        let miss = |value: f64| Ok::<_, PlannerError>((epsilon(value)?.get() / self.epsilon.get()).ln());
        let unreachable = PlannerError::Unreachable { parameter, least, most, target: self.epsilon };
        if !self.epsilon.is_finite() {
            return Ok(least);
        }
        let mut high = Probe { value: least.max(1.0), miss: miss(least.max(1.0))? };
        let mut low = high;
        while high.miss > 0.0 {
            if high.value >= most {
                return Err(unreachable);
            }
            low = high;
            let value = (high.value * 2.0).min(most);
            high = Probe { value, miss: miss(value)? };
        }
        while low.miss <= 0.0 {
            if low.value <= least {
                return Ok(least);
            }
            high = low;
            let value = (low.value / 2.0).max(least);
            low = Probe { value, miss: miss(value)? };
        }
        let (mut low_weight, mut high_weight) = (low.miss, high.miss);
        while high.value > low.value * (1.0 + PRECISION) {
            let value = low.between(high, low_weight, high_weight);
            let probe = Probe { value, miss: miss(value)? };
            if probe.miss <= 0.0 {
                (high, high_weight, low_weight) = (probe, probe.miss, low_weight / 2.0);
            } else {
                (low, low_weight, high_weight) = (probe, probe.miss, high_weight / 2.0);
            }
        }
        Ok(high.value)
    }
}

/// A value that was tried, and ln(ε/target) there.
#[derive(Clone, Copy)]
struct Probe {
    value: f64,
    miss: f64,
}

impl Probe {
    /// Where a line between the two weights crosses zero, a little towards the far end so that both ends move.
    fn between(self, high: Self, low_weight: f64, high_weight: f64) -> f64 {
        let (low, high) = (self.value.ln(), high.value.ln());
        let share = low_weight / (low_weight - high_weight);
        let share = if share.is_finite() { share } else { 0.5 };
        let margin = 0.4 * PRECISION / (high - low);
        (low + (high - low) * (share + margin).clamp(margin, 1.0 - margin)).exp()
    }
}

/// A composition of `steps` equal rounds with Gaussian noise, amplified where the sampling earns it.
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

/// Who adds the noise, and against whom ε then holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// The server adds it: against recipients of the models, who do not know the cohorts.
    Central,
    /// Every client adds a share under secure aggregation: against the server too, which knows the cohorts.
    Distributed,
    /// Every client adds all of it: against everyone.
    Local,
}

/// A federation to be planned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Federation {
    /// Clients in all, at least 1.
    pub population: u64,
    /// Clients in a round on average, from 1 to the population.
    pub cohort: u64,
    /// Rounds, at least 1.
    pub rounds: u64,
    /// Parameters of the model, at least 1.
    pub parameters: u64,
    /// Who adds the noise.
    pub trust: Trust,
}

/// What a federation gets for its budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Plan {
    /// Clients in a round on average.
    pub cohort: u64,
    /// Rounds.
    pub rounds: u64,
    /// Noise over clip norm: on the sum (central, distributed) or on each update (local).
    pub noise_multiplier: NoiseMultiplier,
    /// Standard deviation of the noise on a coordinate of the mean update, over the clip norm.
    pub noise_on_mean: f64,
    /// Root mean square of the coordinates of an update at the clip norm, over that noise.
    pub signal_to_noise: f64,
}

impl Federation {
    /// The noise that keeps this federation within a target, and what it leaves of the signal.
    ///
    /// # Errors
    /// [`PlannerError`] when a number is out of range or no noise is enough.
    pub fn plan(&self, target: &Target) -> Result<Plan, PlannerError> {
        self.check()?;
        let noise_multiplier = target.noise_multiplier(self.sampling()?, self.rounds)?;
        let cohort = self.cohort as f64;
        let noise_on_mean = match self.trust {
            Trust::Central | Trust::Distributed => noise_multiplier.get() / cohort,
            Trust::Local => noise_multiplier.get() / cohort.sqrt(),
        };
        let signal_to_noise = 1.0 / (noise_on_mean * (self.parameters as f64).sqrt());
        Ok(Plan {
            cohort: self.cohort,
            rounds: self.rounds,
            noise_multiplier,
            noise_on_mean,
            signal_to_noise,
        })
    }

    /// The smallest cohort that reaches a signal-to-noise ratio; `None` when even everyone does not.
    ///
    /// # Errors
    /// As [`Federation::plan`].
    pub fn cohort_for(&self, target: &Target, signal_to_noise: f64) -> Result<Option<Plan>, PlannerError> {
        let plan = |cohort| Self { cohort, ..*self }.plan(target);
        smallest(1, self.population, plan, |plan| plan.signal_to_noise >= signal_to_noise)
    }

    /// The largest number of rounds, up to those planned, that keeps a signal-to-noise ratio; `None` when one round
    /// does not.
    ///
    /// # Errors
    /// As [`Federation::plan`].
    pub fn rounds_for(&self, target: &Target, signal_to_noise: f64) -> Result<Option<Plan>, PlannerError> {
        // The fewer rounds, the more signal: the smallest cut is the largest number of rounds.
        let plan = |cut| Self { rounds: self.rounds - cut, ..*self }.plan(target);
        smallest(0, self.rounds - 1, plan, |plan| plan.signal_to_noise >= signal_to_noise)
    }

    fn sampling(&self) -> Result<Sampling, QuantityError> {
        match self.trust {
            Trust::Central => {
                let rate = SamplingRate::new(self.cohort as f64 / self.population as f64)?;
                Ok(Sampling::Poisson { rate })
            }
            Trust::Distributed | Trust::Local => Ok(Sampling::All),
        }
    }

    fn check(&self) -> Result<(), QuantityError> {
        Sampling::fixed(self.cohort, self.population)?;
        for (parameter, value) in [("rounds", self.rounds), ("model parameters", self.parameters)] {
            if value == 0 {
                return Err(QuantityError::OutOfRange { parameter, value: 0.0, range: "at least 1" });
            }
        }
        Ok(())
    }
}

/// The plan at the smallest index of `low..=high` where `good` turns true, if it does.
fn smallest(
    mut low: u64,
    mut high: u64,
    plan: impl Fn(u64) -> Result<Plan, PlannerError>,
    good: impl Fn(&Plan) -> bool,
) -> Result<Option<Plan>, PlannerError> {
    let mut best = plan(high)?;
    if !good(&best) {
        return Ok(None);
    }
    while low < high {
        let middle = low.midpoint(high);
        let found = plan(middle)?;
        if good(&found) {
            (best, high) = (found, middle);
        } else {
            low = middle + 1;
        }
    }
    Ok(Some(best))
}

/// The smallest noise multiplier for one release of Gaussian noise without sampling, in closed form.
#[must_use]
pub fn single_release(epsilon: Epsilon, delta: Delta) -> NoiseMultiplier {
    analytic::noise_multiplier(epsilon, delta)
}

/// ε after each of some numbers of equal rounds, for a curve.
///
/// # Errors
/// [`PlannerError::Accounting`] when the accountant cannot account for such rounds.
pub fn curve(
    event: Event,
    adjacency: Adjacency,
    accountant: Accountant,
    delta: Delta,
    steps: impl IntoIterator<Item = u64>,
) -> Result<Vec<(u64, Epsilon)>, PlannerError> {
    let point = |steps| {
        let mut composition = Composition::new(adjacency);
        composition.push(event, steps);
        Ok((steps, composition.epsilon(accountant, delta)?))
    };
    steps.into_iter().map(point).collect()
}

/// Relative precision of a calibrated parameter.
const PRECISION: f64 = 1e-6;
/// Most rounds that are counted.
const MOST_STEPS: u64 = 10_000_000;

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

    #[test]
    fn calibrated_noise_agrees_with_the_reference_and_keeps_the_target() {
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
            let less = NoiseMultiplier::new(found.get() * (1.0 - 1e-5)).unwrap();
            assert!(target.epsilon_of(poisson(rate), less, steps).unwrap() > target.epsilon);
        }
        let rdp = target(2.0, 1e-6, Accountant::Rdp).noise_multiplier(poisson(0.01), 5000).unwrap();
        assert!((rdp.get() - 1.850_855).abs() < 1e-3, "{rdp}");
    }

    #[test]
    fn steps_and_rate_are_the_most_that_fit() {
        let target = target(2.0, 1e-5, Accountant::Rdp);
        let noise = NoiseMultiplier::new(1.0).unwrap();
        let steps = target.steps(poisson(0.01), noise).unwrap();
        assert!(target.epsilon_of(poisson(0.01), noise, steps).unwrap() <= target.epsilon);
        assert!(target.epsilon_of(poisson(0.01), noise, steps + 1).unwrap() > target.epsilon);
        let rate = target.sampling_rate(noise, 1000).unwrap().get();
        assert!(target.epsilon_of(poisson(rate), noise, 1000).unwrap() <= target.epsilon);
        assert!(target.epsilon_of(poisson(rate * 1.00001), noise, 1000).unwrap() > target.epsilon);
    }

    #[test]
    fn a_target_that_nothing_meets_is_refused() {
        let target = target(0.0, 1e-9, Accountant::Analytic);
        assert!(matches!(
            target.noise_multiplier(Sampling::All, 1000),
            Err(PlannerError::Unreachable { .. })
        ));
    }

    #[test]
    fn a_plan_says_which_cohort_would_be_usable() {
        let federation = Federation {
            population: 100_000,
            cohort: 100,
            rounds: 500,
            parameters: 10_000,
            trust: Trust::Central,
        };
        let target = target(2.0, 1e-6, Accountant::Rdp);
        let plan = federation.plan(&target).unwrap();
        assert!((plan.signal_to_noise - 100.0 / (plan.noise_multiplier.get() * 100.0)).abs() < 1e-9);
        let usable = federation.cohort_for(&target, 2.0 * plan.signal_to_noise).unwrap().unwrap();
        assert!(usable.cohort > 100 && usable.signal_to_noise >= 2.0 * plan.signal_to_noise);
        let fewer = Federation { cohort: usable.cohort - 1, ..federation }.plan(&target).unwrap();
        assert!(fewer.signal_to_noise < 2.0 * plan.signal_to_noise);
        assert_eq!(federation.cohort_for(&target, 1e9).unwrap(), None);
        let local = Federation { trust: Trust::Local, ..federation }.plan(&target).unwrap();
        assert!(local.signal_to_noise < plan.signal_to_noise);
    }
}
