//! A probability mass function of losses on a grid, and its exponential tilts.

use super::cells::Grid;
use super::composed::UNIT_ROUNDOFF;

/// Probabilities of the losses of a grid, with what is infinite beside them. What is missing to 1 is −∞.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pmf {
    pub(crate) grid: Grid,
    /// One for each point of the grid.
    pub(crate) masses: Vec<f64>,
    /// Probability of an infinite loss.
    pub(crate) infinity: f64,
}

/// ln Σ m_j e^{θ e_j} with its first two derivatives in θ: the mean and variance of the tilted distribution.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cumulants {
    pub(crate) log_mgf: f64,
    pub(crate) mean: f64,
    pub(crate) variance: f64,
}

impl Pmf {
    /// Drops the points without mass at either end; at least one point has mass.
    pub(crate) fn new(mut grid: Grid, mut masses: Vec<f64>, infinity: f64) -> Self {
        let last = masses.iter().rposition(|mass| *mass > 0.0).unwrap_or(0);
        let first = masses.iter().position(|mass| *mass > 0.0).unwrap_or(0);
        masses.truncate(last + 1);
        masses.drain(..first);
        grid.last = grid.first + last as i64;
        grid.first += first as i64;
        Self { grid, masses, infinity }
    }

    /// The cumulants at a tilt θ of either sign.
    ///
    /// Summed as a polynomial in e^{−|θ|Δ} from the far end of the grid, so that nothing overflows.
    pub(crate) fn cumulants(&self, tilt: f64) -> Cumulants {
        let ratio = (-tilt.abs() * self.grid.width).exp();
        let sums = if tilt >= 0.0 {
            PowerSums::from_last(&self.masses, ratio)
        } else {
            PowerSums::from_first(&self.masses, ratio)
        };
        let (end, towards) = if tilt >= 0.0 { (self.grid.last, -1.0) } else { (self.grid.first, 1.0) };
        let end = end as f64 * self.grid.width;
        let distance = sums.first / sums.zeroth;
        Cumulants {
            log_mgf: tilt * end + sums.zeroth.ln(),
            mean: end + towards * distance * self.grid.width,
            variance: (sums.second / sums.zeroth - distance * distance).max(0.0) * self.grid.width.powi(2),
        }
    }

    /// The masses m_j·e^{θ e_j − log_mgf}, which add up to 1.
    pub(crate) fn tilted(&self, tilt: f64, log_mgf: f64) -> impl Iterator<Item = f64> {
        self.grid.exponentials(tilt, -log_mgf).zip(&self.masses).map(|(factor, mass)| mass * factor)
    }

    /// Relative rounding error of Σ m_j e^{θ e_j} in [`Pmf::cumulants`]: one for each step and each power of e^{θΔ}.
    pub(crate) fn summing_error(&self) -> f64 {
        4.0 * UNIT_ROUNDOFF * self.masses.len() as f64
    }

    /// Relative rounding error of the tilted masses: that of the exponent and a few operations.
    pub(crate) fn rounding_error(&self, tilt: f64, log_mgf: f64) -> f64 {
        let ends = [self.grid.first, self.grid.last]
            .map(|index| tilt.abs() * (index as f64 * self.grid.width).abs());
        UNIT_ROUNDOFF * (4.0 + 2.0 * ends[0].max(ends[1]) + log_mgf.abs())
    }
}

/// Σ m_k x^k, Σ k m_k x^k and Σ k² m_k x^k, where k counts from one end of the masses.
#[derive(Default)]
struct PowerSums {
    zeroth: f64,
    first: f64,
    second: f64,
}

impl PowerSums {
    /// With k counting back from the last mass.
    fn from_last(masses: &[f64], ratio: f64) -> Self {
        let (head, chunks) = masses.as_rchunks::<LANES>();
        let mut padded = [0.0; LANES];
        padded[LANES - head.len()..].copy_from_slice(head);
        Self::sum(std::iter::once(&padded).chain(chunks), ratio, |lane| (LANES - 1 - lane) as f64)
    }

    /// With k counting from the first mass.
    fn from_first(masses: &[f64], ratio: f64) -> Self {
        let (chunks, rest) = masses.as_chunks::<LANES>();
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        Self::sum(std::iter::once(&padded).chain(chunks.iter().rev()), ratio, |lane| lane as f64)
    }

    /// Horner's rule on whole chunks, from far to near, in independent lanes.
    fn sum<'a>(
        chunks: impl Iterator<Item = &'a [f64; LANES]>,
        ratio: f64,
        distance: impl Fn(usize) -> f64,
    ) -> Self {
        let stride = LANES as f64;
        let chunk_ratio = ratio.powi(LANES as i32);
        let (mut zeroth, mut first, mut second) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for chunk in chunks {
            for lane in 0..LANES {
                second[lane] = chunk_ratio * (second[lane] + 2.0 * first[lane] + zeroth[lane]);
                first[lane] = chunk_ratio * (first[lane] + zeroth[lane]);
                zeroth[lane] = chunk_ratio * zeroth[lane] + chunk[lane];
            }
        }
        (0..LANES).fold(Self::default(), |sums, lane| {
            let (offset, factor) = (distance(lane), ratio.powf(distance(lane)));
            let (zeroth, first, second) =
                (zeroth[lane], stride * first[lane], stride * stride * second[lane]);
            Self {
                zeroth: sums.zeroth + factor * zeroth,
                first: sums.first + factor * (first + offset * zeroth),
                second: sums.second + factor * (second + 2.0 * offset * first + offset * offset * zeroth),
            }
        })
    }
}

const LANES: usize = 8;
