//! The pairs of output distributions that bound one release, and their privacy loss in cells.
//!
//! Each pair is the worst for its mechanism in one direction: P with the record, Q without it ("remove"). The other
//! direction ("add") exchanges P and Q. Sensitivity is 1; the loss falls as the output x rises.

use super::cells::{Cells, Grid, Mass};
use crate::accounting::normal;

/// The pair of one mechanism.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pair {
    /// P = (1−q)·N(0, σ²) + q·N(−1, σ²) against Q = N(0, σ²).
    Presence { rate: f64, sigma: f64 },
    /// P = (1−p₁−p₂)·N(0, σ²) + p₁·N(−1, σ²) + p₂·N(−2, σ²) against Q = N(0, σ²) (Choquette-Choo, Ganesh, Steinke and
    /// Thakurta, arXiv 2310.15526, section 3).
    Repetition { once: f64, twice: f64, sigma: f64 },
    /// P = (1−q)·N(0, σ²) + q·N(−1, σ²) against Q = (1−q)·N(0, σ²) + q·N(1, σ²).
    Replacement { rate: f64, sigma: f64 },
    /// Laplace noise of scale b around 0 against around 1.
    Laplace { scale: f64 },
    /// Discrete Gaussian noise over the integers around 0 against around a whole `sensitivity`.
    DiscreteGaussian { sensitivity: f64, sigma: f64 },
}

impl Pair {
    /// The grid that leaves at most `tail` of P above and `tail` of Q below it, up to [`LARGEST_LOSS`].
    pub(crate) fn grid(self, width: f64, tail: f64) -> Grid {
        let (low, high) = self.range(tail);
        Grid::covering(low, high, width)
    }

    /// Losses that Q exceeds and P falls below, but for `tail`.
    pub(crate) fn range(self, tail: f64) -> (f64, f64) {
        // Φ(−z) ≤ e^(−z²/2)/2.
        let reach = (-2.0 * tail.ln()).sqrt();
        let (low, high) = match self {
            Self::Presence { rate, sigma } => {
                let loss = |x: f64| log_mixture(rate, -(2.0 * x + 1.0) / (2.0 * sigma * sigma));
                (loss(reach * sigma), loss(-1.0 - reach * sigma))
            }
            Self::Repetition { once, twice, sigma } => {
                let loss = |x: f64| repetition_loss(x, once, twice, sigma);
                (loss(reach * sigma), loss(-2.0 - reach * sigma))
            }
            Self::Replacement { rate, sigma } => {
                let term = |x: f64| log_mixture(rate, (2.0 * x - 1.0) / (2.0 * sigma * sigma));
                let x = 1.0 + reach * sigma;
                (term(-x) - term(x), term(x) - term(-x))
            }
            Self::Laplace { scale } => (-1.0 / scale, 1.0 / scale),
            Self::DiscreteGaussian { sensitivity, sigma } => {
                let loss = |x: f64| sensitivity * (sensitivity - 2.0 * x) / (2.0 * sigma * sigma);
                // The tails of a discrete Gaussian are below e^(−k²/2σ²).
                let x = (reach * sigma).ceil() + 2.0;
                (loss(sensitivity + x), loss(-x))
            }
        };
        (low.max(-LARGEST_LOSS), high.min(LARGEST_LOSS))
    }

    /// The variance of the loss, to within a small factor.
    pub(crate) fn rough_variance(self) -> f64 {
        let sampled = |rate: f64, sigma: f64| {
            let square = 1.0 / (sigma * sigma);
            (rate * rate * square.exp_m1()).min(rate * (square + square * square / 4.0))
        };
        match self {
            Self::Presence { rate, sigma } => sampled(rate, sigma),
            Self::Repetition { once, twice, sigma } => sampled(once, sigma) + sampled(twice, sigma / 2.0),
            Self::Replacement { rate, sigma } => 2.0 * sampled(rate, sigma),
            Self::Laplace { scale } => 1.0 / (scale * scale),
            Self::DiscreteGaussian { sensitivity, sigma } => (sensitivity / sigma).powi(2),
        }
    }

    /// The loss in the cells of a grid.
    pub(crate) fn cells(self, grid: Grid) -> Cells {
        match self {
            Self::Presence { rate, sigma } => {
                let edges = grid.losses().map(|loss| presence_edge(loss, rate, sigma));
                gaussian_cells(grid, edges, sigma, &[(0.0, 1.0 - rate, 1.0), (-1.0, rate, 0.0)])
            }
            Self::Repetition { once, twice, sigma } => {
                let edges = grid.losses().map(|loss| repetition_edge(loss, once, twice, sigma));
                let parts = [(0.0, 1.0 - once - twice, 1.0), (-1.0, once, 0.0), (-2.0, twice, 0.0)];
                gaussian_cells(grid, edges, sigma, &parts)
            }
            Self::Replacement { rate, sigma } => {
                let edges = grid.losses().map(|loss| replacement_edge(loss, rate, sigma));
                let parts = [(0.0, 1.0 - rate, 1.0 - rate), (-1.0, rate, 0.0), (1.0, 0.0, rate)];
                gaussian_cells(grid, edges, sigma, &parts)
            }
            Self::Laplace { scale } => laplace_cells(grid, scale),
            Self::DiscreteGaussian { sensitivity, sigma } => {
                discrete_gaussian_cells(grid, sensitivity, sigma)
            }
        }
    }
}

/// ln((1−q) + q·e^loss).
fn log_mixture(rate: f64, loss: f64) -> f64 {
    if rate == 1.0 {
        return loss;
    }
    if loss > 30.0 {
        return loss + rate.ln() + ((1.0 - rate) / rate * (-loss).exp()).ln_1p();
    }
    (rate * loss.exp_m1()).ln_1p()
}

/// The output x at which [`Pair::Presence`] has this loss: −½ − σ²·ln(1 + (e^loss − 1)/q); infinite below ln(1−q).
fn presence_edge(loss: f64, rate: f64, sigma: f64) -> f64 {
    let unsampled = if rate == 1.0 {
        loss
    } else if loss > 30.0 {
        loss - rate.ln() + (-(1.0 - rate) * (-loss).exp()).ln_1p()
    } else {
        let ratio = loss.exp_m1() / rate;
        if ratio <= -1.0 {
            return f64::INFINITY;
        }
        ratio.ln_1p()
    };
    -0.5 - sigma * sigma * unsampled
}

/// The output x at which [`Pair::Replacement`] has this loss.
///
/// With w = e^{x/σ²} and a = e^{−1/2σ²} the loss ε solves q·a·e^ε·w² + (1−q)(e^ε−1)·w − q·a = 0. It is odd in x.
fn replacement_edge(loss: f64, rate: f64, sigma: f64) -> f64 {
    if loss < 0.0 {
        return -replacement_edge(-loss, rate, sigma);
    }
    let scale = rate * (-0.5 / (sigma * sigma)).exp();
    let linear = (1.0 - rate) * -(-loss).exp_m1();
    let root = linear + (linear * linear + 4.0 * (-loss).exp() * scale * scale).sqrt();
    sigma * sigma * ((2.0 * scale / root).ln() - loss)
}

/// The loss of [`Pair::Repetition`] at x: ln(1 + p₁(e^a − 1) + p₂(e^b − 1)), a and b the losses of each shift.
fn repetition_loss(x: f64, once: f64, twice: f64, sigma: f64) -> f64 {
    let [a, b] = [1.0, 2.0].map(|shift| -shift * (2.0 * x + shift) / (2.0 * sigma * sigma));
    if b > 30.0 {
        return b + (twice + once * (a - b).exp() + (1.0 - once - twice) * (-b).exp()).ln();
    }
    (once * a.exp_m1() + twice * b.exp_m1()).ln_1p()
}

/// The output x at which [`Pair::Repetition`] has this loss; infinite below ln(1 − p₁ − p₂).
///
/// With w = e^{−x/σ²} and a = e^{−1/2σ²} the loss ε solves p₂·a⁴·w² + p₁·a·w = e^ε − 1 + p₁ + p₂.
fn repetition_edge(loss: f64, once: f64, twice: f64, sigma: f64) -> f64 {
    let constant = loss.exp_m1() + once + twice;
    if constant <= 0.0 {
        return f64::INFINITY;
    }
    let a = (-0.5 / (sigma * sigma)).exp();
    let (linear, square) = (once * a, twice * a.powi(4));
    let root = (linear * linear + 4.0 * square * constant).sqrt();
    -sigma * sigma * (2.0 * constant / (linear + root)).ln()
}

/// Cells of a loss that falls in x, between falling edges, where P and Q mix normal variables: centre, weight in P, weight
/// in Q.
fn gaussian_cells(
    grid: Grid,
    edges: impl Iterator<Item = f64>,
    sigma: f64,
    parts: &[(f64, f64, f64)],
) -> Cells {
    let edges: Vec<f64> = edges.collect();
    let between = |high: f64, low: f64| {
        let mut mass = Mass::default();
        for (centre, p, q) in parts {
            let probability = normal::between((low - centre) / sigma, (high - centre) / sigma);
            mass.p += p * probability;
            mass.r += q * probability;
        }
        mass
    };
    let below = between(f64::INFINITY, edges[0]);
    let above = between(edges[edges.len() - 1], f64::NEG_INFINITY);
    let masses = edges.windows(2).map(|pair| between(pair[0], pair[1]));
    Cells::from_masses(grid, below, masses, above)
}

/// Atoms of loss ±1/b outside (0, 1) and the loss (1 − 2x)/b between.
fn laplace_cells(grid: Grid, scale: f64) -> Cells {
    let edges: Vec<f64> = grid.losses().map(|loss| ((1.0 - scale * loss) / 2.0).clamp(0.0, 1.0)).collect();
    let masses = edges.windows(2).map(|pair| {
        let share = 0.5 * -((pair[1] - pair[0]) / scale).exp_m1();
        Mass { p: share * (-pair[1] / scale).exp(), r: share * ((pair[0] - 1.0) / scale).exp() }
    });
    let mut cells = Cells::from_masses(grid, Mass::default(), masses, Mass::default());
    let rare = 0.5 * (-1.0 / scale).exp();
    cells.add_atom(1.0 / scale, Mass { p: 0.5, r: rare });
    cells.add_atom(-1.0 / scale, Mass { p: rare, r: 0.5 });
    cells
}

/// One atom for each integer; those beyond the grid count as above or below it.
fn discrete_gaussian_cells(grid: Grid, sensitivity: f64, sigma: f64) -> Cells {
    let weight = |x: f64| (-x * x / (2.0 * sigma * sigma)).exp();
    let reach = (40.0 * sigma + sensitivity).ceil() as i64;
    let total: f64 = (-reach..=reach).map(|x| weight(x as f64)).sum();
    let mut cells = Cells::empty(grid);
    for x in (-reach..=reach).map(|x| x as f64) {
        let loss = sensitivity * (sensitivity - 2.0 * x) / (2.0 * sigma * sigma);
        cells.add_atom(loss, Mass { p: weight(x) / total, r: weight(x - sensitivity) / total });
    }
    cells
}

/// Losses beyond this many nats count as infinite, so that every e^loss is a number.
const LARGEST_LOSS: f64 = 600.0;
