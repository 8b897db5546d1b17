//! Who looks at what a round gives away.

use crate::accounting::Event;
use crate::accounting::amplification::Amplification;
use crate::accounting::distributed::NoiseShares;
use crate::mechanism::Mechanism;
use crate::quantities::{Adjacency, NoiseMultiplier, Sampling};

/// Against whom an epsilon holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Adversary {
    /// Whoever receives the models. It may be one of the clients, and then knows the noise that it added itself.
    Recipients,
    /// The server, with as many clients of a cohort as the plan takes for its own.
    Server,
    /// The server with everybody else in the cohort.
    EveryoneElse,
}

impl Adversary {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::Recipients, Self::Server, Self::EveryoneElse];
}

impl Mechanism {
    /// The strongest adversary that the mechanism is planned against: a limit on epsilon is one on this number.
    #[must_use]
    pub const fn planned_against(&self) -> Adversary {
        match self {
            Self::None | Self::RoundedGaussian { .. } => Adversary::Recipients,
            Self::NoiseShares { .. } | Self::LocalGaussian { .. } => Adversary::Server,
        }
    }

    /// One round as an accountant sees it for an adversary. Noise that the adversary added or can see added is none.
    ///
    /// Sampling amplifies only against recipients, and only where the server adds the noise: with noise from clients, more
    /// of it comes with every client that is drawn, and no proof that we know covers that.
    #[must_use]
    pub fn event(&self, adversary: Adversary, sampling: Sampling, adjacency: Adjacency) -> Event {
        let noise_multiplier = || self.noise_multiplier();
        match (*self, adversary) {
            (Self::None, _) | (Self::RoundedGaussian { .. }, Adversary::Server | Adversary::EveryoneElse) => {
                Event::NonPrivate
            }
            (Self::RoundedGaussian { .. }, Adversary::Recipients) => noise_multiplier()
                .map_or(Event::NonPrivate, |noise_multiplier| {
                    Amplification::of(sampling, adjacency).gaussian(noise_multiplier)
                }),
            (Self::NoiseShares { .. }, _) => self.shares_against(adversary),
            (Self::LocalGaussian { least_updates, .. }, Adversary::Recipients) => {
                gaussian(noise_multiplier(), others(least_updates))
            }
            (Self::LocalGaussian { .. }, Adversary::Server | Adversary::EveryoneElse) => {
                gaussian(noise_multiplier(), 1)
            }
        }
    }

    fn shares_against(&self, adversary: Adversary) -> Event {
        let Self::NoiseShares { sensitivity, variance, honest, least_updates, dimension } = *self else {
            return Event::NonPrivate;
        };
        let shares = match adversary {
            Adversary::Recipients => others(least_updates),
            Adversary::Server => honest,
            Adversary::EveryoneElse => 1,
        };
        let (l2, d) = (sensitivity as f64, dimension as f64);
        Event::NoiseShares(NoiseShares {
            l2_sensitivity: l2,
            // Of whole numbers, none is larger than its square.
            l1_sensitivity: (l2 * d.sqrt()).min(l2 * l2),
            sigma: variance.sigma_at_most(),
            shares: u64::from(shares),
            dimension: u64::from(dimension),
        })
    }
}

/// Of so many updates at least, how many carry noise that a client among the recipients does not know; its own target
/// always does.
fn others(least_updates: u32) -> u32 {
    least_updates.saturating_sub(1).max(1)
}

/// A Gaussian of so many times the variance: what recipients meet in the sum of h updates, each with rounded Gaussian noise.
///
/// Let Xᵢ = ⌊Nᵢ⌉ with Nᵢ ~ N(0, σ²). The law of ⌊N⌉ is the density of N + U, U uniform on ±½, at the whole numbers, so by
/// Poisson's summation its characteristic function is Σₘ F(t + 2πm) with F(t) = e^{−σ²t²/2}·sinc(t/2), sinc x = sin x / x. That of
/// X₁ + … + X_h is (Σₘ F(t + 2πm))^h. Let Y = ⌊N(0, hσ²) + U₂ + … + U_h⌉, Uᵢ uniform on ±½, all independent: in the same way
/// its characteristic function is Σₘ F(t + 2πm)^h. Whatever Y is added to is whole, so x + Y = ⌊x + N(0, hσ²) + U₂ + … + U_h⌉
/// is made of the Gaussian mechanism of variance hσ² by adding what depends on no data and rounding: post-processing.
///
/// X₁ + … + X_h is Y but for the mixed terms of the power, each of which has two factors F(t + 2πm)·F(t + 2πm′) with m ≠ m′.
/// On |t| ≤ π the exponents' sum (t + 2πm)² + (t + 2πm′)² is at least 2π², at t = ±π, so a mixed term is at most e^{−π²σ²}. Their
/// sum, h²·e^{−π²σ²} but for a factor below 3, bounds how far the two laws differ at any whole number, and with σ at least
/// [`LEAST_LOCAL_SIGMA`](crate::client_noise::LEAST_LOCAL_SIGMA) = 16 that is below h²·10⁻¹⁰⁹⁶. The values within 60 standard
/// deviations number fewer than 2⁶⁴, and the rest have less than 10⁻⁷⁸⁰ of the mass: a total variation below 10⁻⁷⁵⁰ in a coordinate.
///
/// An update is clamped where its noise leaves the wire's range, 16 σ, and refused beyond its norm, √d + 16 in σ. Of one update
/// that is post-processing, of a sum it is not: recipients' δ grows by its probability, below 10⁻⁵⁵ in a coordinate. Over 2³²
/// coordinates, 2³² clients and 10⁷ rounds all of this adds less than (1 + e^ε)·10⁻³⁰ to δ, which no number here shows.
fn gaussian(noise_multiplier: Option<NoiseMultiplier>, updates: u32) -> Event {
    noise_multiplier
        .and_then(|one| NoiseMultiplier::new((one.get() * f64::from(updates).sqrt()).next_down()).ok())
        .map_or(Event::NonPrivate, |noise_multiplier| Event::Gaussian { noise_multiplier })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounting::{Accountant, Composition};
    use crate::mechanism::ShareVariance;
    use crate::quantities::{Delta, SamplingRate};

    fn epsilon(mechanism: Mechanism, adversary: Adversary, rounds: u64) -> f64 {
        let mut composition = Composition::new(Adjacency::ZeroOut);
        composition.push(mechanism.event(adversary, Sampling::All, Adjacency::ZeroOut), rounds);
        composition.best_epsilon(Delta::new(1e-5).unwrap()).get()
    }

    fn shares(honest: u32, least_updates: u32) -> Mechanism {
        let variance = ShareVariance::splitting(5 * 2048, 16).unwrap();
        Mechanism::NoiseShares { sensitivity: 2048, variance, honest, least_updates, dimension: 650 }
    }

    #[test]
    fn shares_cost_what_renyi_proves_and_each_adversary_knows_more() {
        // sigma_loc = 5 S / 4, so 16 shares are a multiplier of 5 and one is 1.25. dp_accounting 0.6.0, RDP, its orders:
        // 25 rounds at multiplier 5 are one at 1.
        let server = epsilon(shares(16, 26), Adversary::Server, 25);
        assert!((server / 4.728_507 - 1.0).abs() < 1e-6, "{server}");
        let recipients = epsilon(shares(16, 26), Adversary::Recipients, 25);
        let alone = epsilon(shares(16, 26), Adversary::EveryoneElse, 25);
        // 25 shares: multiplier 6.25; one share: multiplier 1.25.
        assert!((recipients - gaussian_rdp(6.25, 25)).abs() < 1e-6, "{recipients}");
        assert!((alone - gaussian_rdp(1.25, 25)).abs() < 1e-6, "{alone}");
        assert!(recipients < server && server < alone);
    }

    fn gaussian_rdp(noise_multiplier: f64, rounds: u64) -> f64 {
        let mut composition = Composition::new(Adjacency::ZeroOut);
        let noise_multiplier = NoiseMultiplier::new(noise_multiplier).unwrap();
        composition.push(Event::Gaussian { noise_multiplier }, rounds);
        composition.epsilon(Accountant::Rdp, Delta::new(1e-5).unwrap()).unwrap().get()
    }

    #[test]
    fn the_number_if_noise_were_continuous_is_lower_and_only_shares_have_one() {
        let event = shares(16, 26).event(Adversary::Server, Sampling::All, Adjacency::ZeroOut);
        let mut continuous = Composition::new(Adjacency::ZeroOut);
        continuous.push(event.if_continuous(), 25);
        let best = continuous.best_epsilon(Delta::new(1e-5).unwrap()).get();
        // dp_accounting 0.6.0: 4.377178 for one round at multiplier 1.
        assert!((best - 4.377_178).abs() < 1e-5, "{best}");
        assert_eq!(Event::NonPrivate.if_continuous(), Event::NonPrivate);
    }

    #[test]
    fn local_noise_holds_against_everyone_and_adds_up_for_recipients() {
        let local = Mechanism::LocalGaussian { sensitivity: 1000, sigma: 4000, least_updates: 26 };
        // dp_accounting 0.6.0: multiplier 4, ten participations.
        for adversary in [Adversary::Server, Adversary::EveryoneElse] {
            assert!((epsilon(local, adversary, 10) - 3.341_409).abs() < 1e-5);
        }
        let recipients = epsilon(local, Adversary::Recipients, 1000);
        // Twenty-five times the variance, a hundred times the rounds: as 4 rounds at multiplier 2, or one at 1.
        let twenty = epsilon(
            Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 20_000 },
            Adversary::Recipients,
            1000,
        );
        assert!((recipients - twenty).abs() < 1e-9, "{recipients} {twenty}");
        let two = Mechanism::LocalGaussian { sensitivity: 1000, sigma: 4000, least_updates: 1 };
        assert_eq!(epsilon(two, Adversary::Recipients, 10), epsilon(two, Adversary::Server, 10));
    }

    #[test]
    fn noise_from_the_server_hides_nothing_from_it_and_sampling_amplifies_only_there() {
        let central = Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 4000 };
        assert_eq!(epsilon(central, Adversary::Server, 1), f64::INFINITY);
        let poisson = Sampling::Poisson { rate: SamplingRate::new(0.01).unwrap() };
        let event = |mechanism: Mechanism, adversary| mechanism.event(adversary, poisson, Adjacency::ZeroOut);
        assert!(matches!(event(central, Adversary::Recipients), Event::PoissonGaussian { .. }));
        let local = Mechanism::LocalGaussian { sensitivity: 1000, sigma: 4000, least_updates: 9 };
        for adversary in Adversary::ALL {
            assert!(matches!(event(local, adversary), Event::Gaussian { .. }));
            assert_eq!(event(Mechanism::None, adversary), Event::NonPrivate);
        }
    }
}
