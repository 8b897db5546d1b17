//! The noise that a federation needs for its target, and whether the mean of its updates survives it.
//!
//! # Signal to noise
//!
//! The signal is what the clients of a round can say at most: all send the same update at the clip norm C, so that their mean
//! has norm C, and spread evenly over d coordinates that is C/√d in each. The noise is the standard deviation of a
//! coordinate of the released mean. Their ratio is also that of the lengths of the two vectors. The clip norm cancels:
//! a tighter clip shrinks both. It is an upper bound of what a real round has, so a plan below the threshold is in
//! trouble, and one above it may be. At a ratio of 1 the noise is as long as the longest mean; training averages noise over its rounds
//! and so gets by with somewhat less.
//!
//! # Against whom
//!
//! The noise is chosen so that ε meets the target against everyone the mode protects from, and both numbers are given:
//!
//! - central: noise zC on the sum, zC/M on the mean of M clients. Those who receive models do not know the cohorts,
//!   so Poisson sampling with q = M/N amplifies. The server sees updates: no ε.
//! - distributed: zC on the sum, in shares. The server knows the cohorts: q = 1. Shares come from discrete Gaussians,
//!   whose sum has a Rényi bound and no tighter one, so only the rdp accountant is accepted. The bound is that of one Gaussian,
//!   because shares of at least 2 grid steps add too little to see (see [`crate::accounting::distributed`]), and z is what the
//!   shares of the honest clients that stay add up to.
//! - local: zC on each update, zC/√M on the mean. The server sees each update with its noise: q = 1.
//!
//! In the last two modes the models are computed from what the server sees, so its ε holds for their recipients too. No
//! amplification is claimed for these: there noise comes and goes with the clients, and no proof that we know covers that.

use serde::Serialize;

use super::cost::{LEAST_NOISE, cost};
use super::{PlannerError, check_delta, check_target};
use crate::accounting::amplification::Amplification;
use crate::accounting::calibration::Target;
use crate::accounting::{Accountant, AccountingError, Composition};
use crate::quantities::{
    Adjacency, ClipNorm, Epsilon, NoiseMultiplier, QuantityError, Sampling, SamplingRate, TrustMode, Unit,
};

/// A federation to be planned.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Federation {
    /// Clients in all, at least 1.
    pub clients: u64,
    /// Clients in a round on average, from 1 to all.
    pub cohort: u64,
    /// Rounds, at least 1.
    pub rounds: u64,
    /// Parameters of the model, at least 1.
    pub parameters: u64,
    /// Largest norm of an update. Noise and signal are in its unit.
    pub clip_norm: ClipNorm,
    /// Who adds the noise.
    pub mode: TrustMode,
}

/// What a federation gets for its target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Plan {
    /// Probability of each client to be in a round.
    pub sampling_rate: SamplingRate,
    /// Noise over clip norm: on the sum (central, distributed) or on each update (local).
    pub noise_multiplier: NoiseMultiplier,
    /// Standard deviation of the noise on a coordinate of the mean update.
    pub noise_per_coordinate: f64,
    /// The most that a coordinate of the mean can hold, evenly spread: C/√d.
    pub signal_per_coordinate: f64,
    /// Signal over noise.
    pub signal_to_noise: f64,
    /// ε against those who receive every model.
    pub epsilon_release: Epsilon,
    /// ε against the server; `None` where nothing is promised.
    pub epsilon_server: Option<Epsilon>,
    /// What would reach the threshold.
    pub usable: Usable,
}

/// What would reach a signal-to-noise ratio within the same target, changing one number of the federation and recalibrating the noise.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usable {
    /// The ratio asked for.
    pub threshold: f64,
    /// The smallest cohort; `None` when not even everyone is enough.
    pub cohort: Option<u64>,
    /// The most rounds; `None` when not even one is possible.
    pub rounds: Option<u64>,
    /// The largest model; `None` when not even a single parameter is possible.
    pub parameters: Option<u64>,
}

impl Federation {
    /// The noise that meets the target, what it leaves of the signal, and what would leave `threshold`.
    ///
    /// # Errors
    /// [`PlannerError`] when a number is out of range, no noise is enough, the accountant proves nothing for the mode, or the
    /// adjacency cannot be hidden in it.
    pub fn plan(&self, target: &Target, threshold: f64) -> Result<Plan, PlannerError> {
        self.check(target, threshold)?;
        let noise_multiplier = self.noise_multiplier(target)?;
        let epsilon = self.epsilon(target, noise_multiplier)?;
        Ok(Plan {
            sampling_rate: self.sampling_rate()?,
            noise_multiplier,
            noise_per_coordinate: noise_multiplier.get() * self.clip_norm.get() / self.averaging(),
            signal_per_coordinate: self.clip_norm.get() / (self.parameters as f64).sqrt(),
            signal_to_noise: self.signal_to_noise(noise_multiplier),
            epsilon_release: epsilon,
            epsilon_server: (self.mode != TrustMode::Central).then_some(epsilon),
            usable: Usable {
                threshold,
                cohort: self.usable_cohort(target, threshold)?,
                rounds: self.usable_rounds(target, threshold)?,
                parameters: self.usable_parameters(noise_multiplier, threshold),
            },
        })
    }
}

impl Federation {
    /// The noise over clip norm that meets the target against everyone the mode protects from.
    ///
    /// # Errors
    /// [`PlannerError::Calibration`] when no noise is enough or the accountant cannot account for the rounds.
    pub fn noise_multiplier(&self, target: &Target) -> Result<NoiseMultiplier, PlannerError> {
        Ok(target.noise_multiplier(self.sampling(), self.rounds)?)
    }

    /// What a noise multiplier leaves of the signal: averaging/(noise·√d).
    #[must_use]
    pub fn signal_to_noise(&self, noise_multiplier: NoiseMultiplier) -> f64 {
        self.averaging() / (noise_multiplier.get() * (self.parameters as f64).sqrt())
    }

    fn check(&self, target: &Target, threshold: f64) -> Result<(), PlannerError> {
        check_target(target.epsilon)?;
        for (parameter, value) in
            [("clients", self.clients), ("rounds", self.rounds), ("parameters", self.parameters)]
        {
            if value == 0 {
                return Err(QuantityError::OutOfRange { parameter, value: 0.0, range: "at least 1" }.into());
            }
        }
        if !(1..=self.clients).contains(&self.cohort) {
            let range = "at least 1 and at most the number of clients";
            let value = self.cohort as f64;
            return Err(QuantityError::OutOfRange { parameter: "cohort", value, range }.into());
        }
        if !(threshold.is_finite() && threshold > 0.0) {
            let range = "a finite number above 0";
            return Err(QuantityError::OutOfRange { parameter: "threshold", value: threshold, range }.into());
        }
        check_delta(target.delta, self.clients)?;
        if self.mode != TrustMode::Central && target.adjacency == Adjacency::AddOrRemove {
            return Err(PlannerError::PresenceIsVisible { mode: self.mode });
        }
        if self.mode == TrustMode::Distributed && target.accountant != Accountant::Rdp {
            return Err(AccountingError::Unsupported {
                accountant: target.accountant.as_str(),
                what: "sums of discrete noise shares (mode distributed)",
                instead: "use the rdp accountant",
            }
            .into());
        }
        Ok(())
    }

    /// Probability of each client to be in a round.
    fn sampling_rate(&self) -> Result<SamplingRate, QuantityError> {
        SamplingRate::new(self.cohort as f64 / self.clients as f64)
    }

    /// What the strongest adversary that the mode protects from knows of the cohorts.
    fn sampling(&self) -> Sampling {
        match (self.mode, self.sampling_rate()) {
            (TrustMode::Central, Ok(rate)) => Sampling::Poisson { rate },
            _ => Sampling::All,
        }
    }

    /// By how much the mean over a round divides the noise of one release: M, or √M where every client adds all of it.
    fn averaging(&self) -> f64 {
        match self.mode {
            TrustMode::Central | TrustMode::Distributed => self.cohort as f64,
            TrustMode::Local => (self.cohort as f64).sqrt(),
        }
    }

    /// ε of all rounds against the strongest adversary that the mode protects from.
    fn epsilon(&self, target: &Target, noise_multiplier: NoiseMultiplier) -> Result<Epsilon, PlannerError> {
        let event = Amplification::of(self.sampling(), target.adjacency).gaussian(noise_multiplier);
        let mut composition = Composition::new(target.adjacency);
        composition.push(event, self.rounds);
        Ok(cost(&composition, target.accountant, target.delta, Unit::Client)?.epsilon)
    }

    /// The noise multiplier that leaves exactly this ratio: averaging/(ratio·√d). `None` below [`LEAST_NOISE`].
    fn noise_for(&self, ratio: f64) -> Option<NoiseMultiplier> {
        let noise = self.averaging() / (ratio * (self.parameters as f64).sqrt());
        NoiseMultiplier::new(noise).ok().filter(|noise| noise.get() >= LEAST_NOISE)
    }

    /// The smallest cohort at whose noise for `ratio` ε meets the target, by bisection: ε falls as the cohort grows, since
    /// the noise grows at least as fast as the sampling rate.
    fn usable_cohort(&self, target: &Target, ratio: f64) -> Result<Option<u64>, PlannerError> {
        let fits = |cohort| {
            let changed = Self { cohort, ..*self };
            match changed.noise_for(ratio) {
                Some(noise) => {
                    Ok::<_, PlannerError>(target.allows(changed.sampling(), noise, changed.rounds)?)
                }
                None => Ok(false),
            }
        };
        if !fits(self.clients)? {
            return Ok(None);
        }
        let (mut refused, mut fitting) = (0, self.clients);
        while fitting - refused > 1 {
            let middle = refused.midpoint(fitting);
            if fits(middle)? {
                fitting = middle;
            } else {
                refused = middle;
            }
        }
        Ok(Some(fitting))
    }

    fn usable_rounds(&self, target: &Target, ratio: f64) -> Result<Option<u64>, PlannerError> {
        let Some(noise) = self.noise_for(ratio) else { return Ok(None) };
        let most = target.steps(self.sampling(), noise)?;
        Ok(Some(most).filter(|rounds| *rounds > 0))
    }

    /// The noise does not depend on the model, so this is the definition of the ratio solved for d.
    fn usable_parameters(&self, noise_multiplier: NoiseMultiplier, ratio: f64) -> Option<u64> {
        let most = (self.averaging() / (noise_multiplier.get() * ratio)).powi(2).floor();
        (most >= 1.0).then_some(most as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantities::Delta;

    const FEDERATION: Federation = Federation {
        clients: 100_000,
        cohort: 100,
        rounds: 500,
        parameters: 10_000,
        clip_norm: ClipNorm::ONE,
        mode: TrustMode::Central,
    };

    fn target(adjacency: Adjacency, accountant: Accountant) -> Target {
        let (epsilon, delta) = (Epsilon::new(2.0).unwrap(), Delta::new(1e-6).unwrap());
        Target { epsilon, delta, adjacency, accountant }
    }

    #[test]
    fn the_noise_meets_the_target_and_what_is_left_follows_from_it() {
        for (mode, adjacency, accountant, averaging) in [
            (TrustMode::Central, Adjacency::AddOrRemove, Accountant::Pld, 100.0),
            (TrustMode::Distributed, Adjacency::ZeroOut, Accountant::Rdp, 100.0),
            (TrustMode::Local, Adjacency::ZeroOut, Accountant::Analytic, 10.0),
        ] {
            let clip_norm = ClipNorm::new(0.5).unwrap();
            let plan = Federation { mode, clip_norm, ..FEDERATION }
                .plan(&target(adjacency, accountant), 1.0)
                .unwrap();
            let epsilon = plan.epsilon_release.get();
            assert!(epsilon <= 2.0 && epsilon > 1.999, "{plan:?}");
            assert_eq!(plan.epsilon_server.is_some(), mode != TrustMode::Central);
            let noise = plan.noise_multiplier.get() * 0.5 / averaging;
            assert!((plan.noise_per_coordinate / noise - 1.0).abs() < 1e-12, "{plan:?}");
            assert_eq!(plan.signal_per_coordinate, 0.005);
            assert!((plan.signal_to_noise * noise / 0.005 - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn what_would_be_usable_reaches_the_threshold_and_the_next_value_does_not() {
        let mut checked = 0;
        for (mode, adjacency, accountant) in [
            (TrustMode::Central, Adjacency::AddOrRemove, Accountant::Rdp),
            (TrustMode::Distributed, Adjacency::ZeroOut, Accountant::Rdp),
            (TrustMode::Local, Adjacency::Replace, Accountant::Analytic),
        ] {
            let target = target(adjacency, accountant);
            let federation = Federation { mode, cohort: 1000, ..FEDERATION };
            let ratio = |federation: Federation| federation.plan(&target, 1.0).unwrap().signal_to_noise;
            let now = ratio(federation);
            let threshold = 1.5 * now;
            let usable = federation.plan(&target, threshold).unwrap().usable;
            // Calibrated noise is rounded up by a millionth.
            let reached = |federation| ratio(federation) >= threshold * (1.0 - 2e-6);
            if let Some(cohort) = usable.cohort {
                assert!(cohort > 1000 && reached(Federation { cohort, ..federation }), "{mode} {usable:?}");
                assert!(!reached(Federation { cohort: cohort - 1, ..federation }), "{mode} {usable:?}");
                checked += 1;
            }
            if let Some(rounds) = usable.rounds {
                assert!(rounds < 500 && reached(Federation { rounds, ..federation }), "{mode} {usable:?}");
                assert!(!reached(Federation { rounds: rounds + 1, ..federation }), "{mode} {usable:?}");
                checked += 1;
            }
            let parameters = usable.parameters.unwrap();
            assert!(reached(Federation { parameters, ..federation }), "{mode} {usable:?}");
            assert!(!reached(Federation { parameters: parameters + 1, ..federation }), "{mode} {usable:?}");
        }
        assert!(checked >= 5, "{checked}");
    }

    #[test]
    fn what_nothing_reaches_is_said() {
        let target = target(Adjacency::AddOrRemove, Accountant::Rdp);
        let usable = FEDERATION.plan(&target, 1e6).unwrap().usable;
        assert_eq!((usable.cohort, usable.rounds, usable.parameters), (None, None, None));
    }

    #[test]
    fn a_plan_that_promises_too_much_or_nothing_is_refused() {
        let rdp = target(Adjacency::AddOrRemove, Accountant::Rdp);
        let refusal =
            |federation: Federation, target: Target| federation.plan(&target, 1.0).unwrap_err().to_string();
        let local = Federation { mode: TrustMode::Local, ..FEDERATION };
        assert!(refusal(local, rdp).contains("the server sees who takes part"));
        let distributed = Federation { mode: TrustMode::Distributed, ..FEDERATION };
        let pld = target(Adjacency::ZeroOut, Accountant::Pld);
        assert!(refusal(distributed, pld).contains("use the rdp accountant"));
        let loose = Target { delta: Delta::new(1e-5).unwrap(), ..rdp };
        assert!(refusal(FEDERATION, loose).contains("one over the population"));
        assert!(refusal(Federation { cohort: 100_001, ..FEDERATION }, rdp).contains("cohort is 100001"));
        assert!(refusal(Federation { rounds: 0, ..FEDERATION }, rdp).contains("rounds is 0"));
        let nothing = Target { epsilon: Epsilon::ZERO, ..rdp };
        assert!(refusal(FEDERATION, nothing).contains("epsilon is 0, but must be above 0"));
    }
}
