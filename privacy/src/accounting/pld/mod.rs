//! Privacy loss distributions: the tightest numerical accountant, and an upper bound at the same time.
//!
//! The privacy loss of an output is the log of how much more likely it is with a record than without it. Losses of
//! independent releases add up, and δ(ε) = E[(1 − e^{ε−L})₊] follows from the distribution of the sum (Koskela, Jälkö
//! and Honkela 2020, arXiv 1906.03049). The loss is cut into cells on a grid, put onto the grid points by
//! "connect the dots" so that it can only grow (arXiv 2207.04380), and composed by a Fourier transform.
//!
//! Both directions of the neighbouring relation are kept apart, and the worse one is the answer. Every question has
//! two answers: never below the truth and never above it. Their distance is the error.

mod cells;
mod composed;
mod pair;
mod pmf;
#[cfg(test)]
mod tests;
mod truncation;

use super::{AccountingError, Composition, Event};
use crate::quantities::{Adjacency, Delta, Epsilon, QuantityError};
use cells::{Cells, Grid};
use composed::{Composed, Side};
use pair::Pair;
use truncation::Truncation;

/// The privacy loss of a whole composition.
#[derive(Debug, Clone)]
pub struct Pld {
    width: f64,
    directions: Vec<Vec<(Cells, u64)>>,
}

/// ε at some δ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PldEpsilon {
    /// Never below the truth: the estimate, enlarged by a bound on all rounding errors of the composition.
    pub epsilon: Epsilon,
    /// What the computation gave. Above the truth but for rounding errors.
    pub estimate: Epsilon,
}

impl Pld {
    /// The loss of all events, on a grid fine enough for an error of about [`TOLERANCE`].
    ///
    /// # Errors
    /// [`AccountingError::Unsupported`] for an event that promises nothing or samples a fixed size.
    pub fn new(composition: &Composition) -> Result<Self, AccountingError> {
        let losses = losses(composition)?;
        let width = choose_width(&losses);
        Self::on_grid(&losses, width)
    }

    /// The loss of all events on a grid of this width, in nats: from 10⁻¹² to 0.1.
    ///
    /// # Errors
    /// [`AccountingError::Unsupported`] for an event that promises nothing or samples a fixed size, [`AccountingError::Quantity`] for a width
    /// outside its range.
    pub fn with_width(composition: &Composition, width: f64) -> Result<Self, AccountingError> {
        if !(1e-12..=0.1).contains(&width) {
            let range = "from 1e-12 to 0.1";
            return Err(crate::quantities::QuantityError::OutOfRange {
                parameter: "grid width",
                value: width,
                range,
            }
            .into());
        }
        Self::on_grid(&losses(composition)?, width)
    }

    /// The distance of two losses on the grid, in nats.
    #[must_use]
    pub const fn width(&self) -> f64 {
        self.width
    }

    /// ε at δ, never below the truth.
    ///
    /// # Errors
    /// [`AccountingError::TooFine`] when the losses spread too far for the grid.
    pub fn epsilon(&self, delta: Delta) -> Result<PldEpsilon, AccountingError> {
        self.worst(Cells::pessimistic, delta.get(), Side::Above)
    }

    /// ε at δ, never above the truth; its distance from [`Pld::epsilon`] bounds the error of both.
    ///
    /// # Errors
    /// [`AccountingError::TooFine`] when the losses spread too far for the grid.
    pub fn epsilon_optimistic(&self, delta: Delta) -> Result<PldEpsilon, AccountingError> {
        self.worst(Cells::optimistic, delta.get(), Side::Below)
    }

    /// δ at ε, never below the truth; at most 1.
    ///
    /// # Errors
    /// [`AccountingError::TooFine`] when the losses spread too far for the grid.
    pub fn delta(&self, epsilon: Epsilon) -> Result<f64, AccountingError> {
        self.delta_of(epsilon, Cells::pessimistic, 1.0)
    }

    /// δ at ε, never above the truth.
    ///
    /// # Errors
    /// [`AccountingError::TooFine`] when the losses spread too far for the grid.
    pub fn delta_optimistic(&self, epsilon: Epsilon) -> Result<f64, AccountingError> {
        self.delta_of(epsilon, Cells::optimistic, -1.0)
    }

    fn on_grid(losses: &[(Loss, u64)], width: f64) -> Result<Self, AccountingError> {
        let tail = tail(losses);
        if losses.iter().any(|(loss, _)| loss.range(tail) > width * 4.0 * MOST_POINTS) {
            return Err(AccountingError::TooFine { width });
        }
        let remove: Vec<_> = losses.iter().map(|(loss, steps)| (loss.cells(width, tail), *steps)).collect();
        let symmetric = losses.iter().all(|(loss, _)| loss.is_symmetric());
        let add = (!symmetric)
            .then(|| remove.iter().map(|(cells, steps)| (cells.reversed(), *steps)).collect::<Vec<_>>());
        Ok(Self { width, directions: std::iter::once(remove).chain(add).collect() })
    }

    fn compositions(&self, place: fn(&Cells) -> pmf::Pmf) -> impl Iterator<Item = Composed> {
        self.directions.iter().filter(|parts| !parts.is_empty()).map(move |parts| {
            Composed::new(parts.iter().map(|(cells, steps)| (place(cells), *steps)).collect())
        })
    }

    /// The larger ε of the directions. One that is shown to be smaller without a transform is not computed.
    fn worst(
        &self,
        place: fn(&Cells) -> pmf::Pmf,
        delta: f64,
        side: Side,
    ) -> Result<PldEpsilon, AccountingError> {
        let mut worst = PldEpsilon { epsilon: Epsilon::ZERO, estimate: Epsilon::ZERO };
        for composed in self.compositions(place) {
            let least = worst.estimate.get().min(worst.epsilon.get());
            if least > 0.0 && (least.is_infinite() || composed.delta_at_most(least) <= delta) {
                continue;
            }
            let found =
                composed.epsilon(delta, side).ok_or(AccountingError::TooFine { width: self.width })?;
            let (estimate, epsilon) =
                (Epsilon::from_computed(found.estimate), Epsilon::from_computed(found.moved));
            if estimate > worst.estimate {
                worst.estimate = estimate;
            }
            if epsilon > worst.epsilon {
                worst.epsilon = epsilon;
            }
        }
        Ok(worst)
    }

    fn delta_of(
        &self,
        epsilon: Epsilon,
        place: fn(&Cells) -> pmf::Pmf,
        sign: f64,
    ) -> Result<f64, AccountingError> {
        if !epsilon.is_finite() {
            return Ok(0.0);
        }
        let mut worst: f64 = 0.0;
        for composed in self.compositions(place) {
            if worst > 0.0 && composed.delta_at_most(epsilon.get()) <= worst {
                continue;
            }
            let delta =
                composed.delta(epsilon.get()).ok_or(AccountingError::TooFine { width: self.width })?;
            worst = worst.max((delta.value + sign * delta.error).clamp(0.0, 1.0));
        }
        Ok(worst)
    }
}

/// The worst-case pair of one event, or a public choice between two.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Loss {
    pair: Pair,
    /// Another pair, and with which probability it happens instead.
    alternative: Option<(Pair, f64)>,
}

impl Loss {
    const fn of(pair: Pair) -> Self {
        Self { pair, alternative: None }
    }

    /// Distance of the largest and smallest loss that count.
    fn range(&self, tail: f64) -> f64 {
        let range = |pair: Pair| {
            let (low, high) = pair.range(tail);
            high - low
        };
        self.alternative.map_or(range(self.pair), |(pair, _)| range(pair).max(range(self.pair)))
    }

    fn grid(&self, width: f64, tail: f64) -> Grid {
        let grid = self.pair.grid(width, tail);
        self.alternative.map_or(grid, |(pair, _)| grid.union(pair.grid(width, tail)))
    }

    fn cells(&self, width: f64, tail: f64) -> Cells {
        let grid = self.grid(width, tail);
        let mut cells = self.pair.cells(grid);
        if let Some((pair, weight)) = self.alternative {
            cells.mix(&pair.cells(grid), weight);
        }
        cells
    }

    /// Whether both directions of the neighbouring relation have the same loss.
    fn is_symmetric(&self) -> bool {
        let symmetric = |pair| match pair {
            Pair::Presence { rate, .. } => rate == 1.0,
            Pair::Repetition { .. } => false,
            Pair::Replacement { .. } | Pair::Laplace { .. } | Pair::DiscreteGaussian { .. } => true,
        };
        symmetric(self.pair) && self.alternative.is_none_or(|(pair, _)| symmetric(pair))
    }
}

fn losses(composition: &Composition) -> Result<Vec<(Loss, u64)>, AccountingError> {
    let replace = composition.adjacency() == Adjacency::Replace;
    let loss = |event: &Event| match *event {
        Event::Gaussian { noise_multiplier } => {
            let sigma = noise_multiplier.get();
            Ok(Loss::of(Pair::Presence { rate: 1.0, sigma: if replace { sigma / 2.0 } else { sigma } }))
        }
        Event::PoissonGaussian { rate, noise_multiplier } => {
            let (rate, sigma) = (rate.get(), noise_multiplier.get());
            Ok(Loss::of(if replace {
                Pair::Replacement { rate, sigma }
            } else {
                Pair::Presence { rate, sigma }
            }))
        }
        Event::TruncatedPoissonGaussian { rate, noise_multiplier, cap, population } => {
            let truncation = Truncation::of(rate.get(), cap.max(1), population.max(1));
            let (rate, sigma) = (rate.get(), noise_multiplier.get());
            let pair =
                if replace { Pair::Replacement { rate, sigma } } else { Pair::Presence { rate, sigma } };
            let displaced = Pair::Replacement { rate: truncation.rate, sigma: sigma / 2.0 };
            Ok(Loss {
                pair,
                alternative: (truncation.probability > 0.0).then_some((displaced, truncation.probability)),
            })
        }
        Event::GaussianMixture { .. } if replace => Err(AccountingError::Unsupported {
            accountant: "pld",
            what: "a mixture of Gaussians in which a record is replaced",
            instead: "use add-or-remove adjacency",
        }),
        Event::GaussianMixture { once, twice, noise_multiplier } => {
            let (once, twice) = (once.get(), twice.get());
            if once + twice > 1.0 {
                let range = "at most 1";
                return Err(QuantityError::OutOfRange {
                    parameter: "once + twice",
                    value: once + twice,
                    range,
                }
                .into());
            }
            Ok(Loss::of(Pair::Repetition { once, twice, sigma: noise_multiplier.get() }))
        }
        Event::Laplace { noise_multiplier } => {
            let scale = noise_multiplier.get();
            Ok(Loss::of(Pair::Laplace { scale: if replace { scale / 2.0 } else { scale } }))
        }
        Event::DiscreteGaussian { noise_multiplier } => {
            let sensitivity = if replace { 2.0 } else { 1.0 };
            Ok(Loss::of(Pair::DiscreteGaussian { sensitivity, sigma: noise_multiplier.get() }))
        }
        Event::FixedSizeGaussian { .. } => Err(AccountingError::Unsupported {
            accountant: "pld",
            what: "a sample of fixed size",
            instead: "use the rdp accountant under replace adjacency, or Poisson sampling",
        }),
        Event::NoiseShares(_) => Err(AccountingError::Unsupported {
            accountant: "pld",
            what: "sums of discrete noise shares",
            instead: "use the rdp accountant",
        }),
        Event::NonPrivate => Err(AccountingError::Unsupported {
            accountant: "pld",
            what: "a release without noise",
            instead: "its epsilon is infinite",
        }),
    };
    composition.groups().iter().map(|(event, steps)| Ok((loss(event)?, *steps))).collect()
}

/// Probability that each release may leave outside the grid.
fn tail(losses: &[(Loss, u64)]) -> f64 {
    1e-20 / losses.iter().map(|(_, steps)| *steps as f64).sum::<f64>().max(1.0)
}

/// A grid on which the over-estimate of ε, about T·Δ², is below [`TOLERANCE`], and which resolves the sum of all
/// losses; coarser where it would have more points than are worth computing.
fn choose_width(losses: &[(Loss, u64)]) -> f64 {
    let steps: f64 = losses.iter().map(|(_, steps)| *steps as f64).sum();
    let spread =
        losses.iter().map(|(loss, steps)| *steps as f64 * loss.pair.rough_variance()).sum::<f64>().sqrt();
    let tail = tail(losses);
    let range = losses.iter().map(|(loss, _)| loss.range(tail)).fold(0.0, f64::max);
    let resolved = (spread / 100.0).max(range / MANY_POINTS);
    let accurate = (TOLERANCE / steps).sqrt().min(COARSEST).min(resolved);
    accurate.max(range / MOST_POINTS).max(16.0 * spread / MOST_POINTS)
}

/// The aim for the over-estimate of ε by the grid, in nats.
pub const TOLERANCE: f64 = 1e-4;
/// The widest grid that is chosen for accuracy, in nats.
const COARSEST: f64 = 1e-3;
/// Points that a single release may need to resolve small losses.
const MANY_POINTS: f64 = 131_072.0;
/// Points that anything may need.
const MOST_POINTS: f64 = 2_097_152.0;
