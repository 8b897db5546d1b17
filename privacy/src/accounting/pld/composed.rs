//! The loss of many releases: one discrete Fourier transform for all, after an exponential tilt.
//!
//! The losses of independent releases add up, so their distributions convolve and their spectra multiply. Rounding
//! errors of a transform are relative to the largest probability, while δ lives far in the tail; therefore every
//! distribution is first multiplied by e^{θ·loss} and normalised, with θ such that the tail in question becomes the
//! centre, and divided by it afterwards. Errors then shrink with the tail.

use std::cell::RefCell;

use realfft::RealFftPlanner;
use realfft::num_complex::Complex64;
use realfft::num_traits::One;

use super::cells::exponentials;
use super::pmf::{Cumulants, Pmf};

/// Distributions of single releases on grids of equal width, each with how often it happens.
#[derive(Debug, Clone)]
pub(crate) struct Composed {
    width: f64,
    parts: Vec<(Pmf, u64)>,
}

/// A computed value with a bound on what the arithmetic may have added or taken away.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounded {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

/// Where δ(ε) crosses a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Crossing {
    /// ε as computed.
    pub(crate) estimate: f64,
    /// ε moved to the side asked for, past every error of the arithmetic.
    pub(crate) moved: f64,
    /// That error, in δ.
    error: f64,
}

impl Crossing {
    /// What is known of a crossing below a loss.
    fn below(loss: f64, side: Side) -> Self {
        let moved = if side == Side::Above { loss.max(0.0) } else { 0.0 };
        Self { estimate: moved, moved, error: 0.0 }
    }

    /// δ is only m_∞ from the largest loss on, whatever the arithmetic says.
    fn at_most(self, largest: f64) -> Self {
        let largest = largest.max(0.0);
        Self { estimate: self.estimate.min(largest), moved: self.moved.min(largest), ..self }
    }
}

/// The tilted sum of all losses on a window, which wraps around.
struct TiltedSum {
    width: f64,
    tilt: f64,
    /// K(θ), the log of what the tilt divided by.
    log_mgf: f64,
    /// Index of the first loss of the window.
    first: i64,
    /// Tilted probability of each loss of the window.
    masses: Vec<f64>,
    /// Bound on the L2 norm of the error of `masses`.
    norm_error: f64,
    /// Probability of an infinite loss.
    infinity: f64,
}

impl Composed {
    /// `parts` is not empty and its grids have the same width.
    pub(crate) fn new(parts: Vec<(Pmf, u64)>) -> Self {
        let width = parts.first().map_or(1.0, |(pmf, _)| pmf.grid.width);
        Self { width, parts }
    }

    /// δ at ε.
    pub(crate) fn delta(&self, epsilon: f64) -> Option<Bounded> {
        let tilt = self.tilt_where(|at, _| at.mean >= epsilon);
        Some(self.tilted_sum(tilt)?.delta(epsilon))
    }

    /// A bound on δ at ε that needs no transform: Chernoff's, times the most that (1 − e^−y)·e^−θy can be.
    pub(crate) fn delta_at_most(&self, epsilon: f64) -> f64 {
        let tilt = self.tilt_where(|at, _| at.mean >= epsilon);
        let log_most = tilt * tilt.max(f64::MIN_POSITIVE).ln() - (1.0 + tilt) * tilt.ln_1p();
        let rounding: f64 = self.parts.iter().map(|(pmf, steps)| *steps as f64 * pmf.summing_error()).sum();
        self.infinity() + (self.cumulants(tilt).log_mgf + rounding - tilt * epsilon + log_most).exp()
    }

    /// ε at δ, not below 0: as computed, and moved to the given side by the error of the arithmetic.
    ///
    /// None when the window would not fit in memory.
    pub(crate) fn epsilon(&self, delta: f64, side: Side) -> Option<Crossing> {
        if self.infinity() >= delta {
            return Some(Crossing { estimate: f64::INFINITY, moved: f64::INFINITY, error: 0.0 });
        }
        // Where Chernoff's bound min_θ exp(K(θ) − θε) is smallest at the ε that it gives for δ.
        let mut tilt = self.tilt_where(|at, tilt| tilt * at.mean - at.log_mgf >= -delta.ln());
        let mut best: Option<Crossing> = None;
        for _ in 0..MOST_TILTS {
            let sum = self.tilted_sum(tilt)?;
            let lowest = sum.first as f64 * self.width;
            let found = sum.epsilon(delta, side);
            if let Some(found) = found.filter(|found| best.is_none_or(|best| found.error < best.error)) {
                best = Some(found);
            }
            if best.is_some_and(|best| best.error <= GOOD_ENOUGH * delta) {
                break;
            }
            // The crossing is far from what this tilt shows best, or below its window: tilt for it.
            let target = found.map_or(lowest, |found| found.estimate);
            let next = self.tilt_where(|at, _| at.mean >= target);
            if next == tilt {
                // Nothing shows less: all of the window is above the crossing.
                best = best.or(Some(Crossing::below(lowest, side)));
                break;
            }
            tilt = next;
        }
        let (_, highest) = self.support();
        let none = Crossing::below(highest as f64 * self.width, side);
        Some(best.unwrap_or(none).at_most(highest as f64 * self.width))
    }

    fn infinity(&self) -> f64 {
        -self.parts.iter().map(|(pmf, steps)| *steps as f64 * (-pmf.infinity).ln_1p()).sum::<f64>().exp_m1()
    }

    /// Cumulants of the sum of all losses.
    fn cumulants(&self, tilt: f64) -> Cumulants {
        self.parts.iter().fold(Cumulants::default(), |sum, (pmf, steps)| {
            let (one, steps) = (pmf.cumulants(tilt), *steps as f64);
            Cumulants {
                log_mgf: sum.log_mgf + steps * one.log_mgf,
                mean: sum.mean + steps * one.mean,
                variance: sum.variance + steps * one.variance,
            }
        })
    }

    /// Roughly the smallest tilt from 0 on where `reached` turns true.
    fn tilt_where(&self, reached: impl Fn(Cumulants, f64) -> bool) -> f64 {
        let (_, highest) = self.support();
        let at = |tilt: f64| {
            let cumulants = self.cumulants(tilt);
            // Nothing can be tilted beyond its largest loss.
            reached(cumulants, tilt) || highest as f64 * self.width - cumulants.mean < 0.1 * self.width
        };
        if at(0.0) {
            return 0.0;
        }
        let mut high = 1.0 / self.cumulants(0.0).variance.sqrt().max(self.width * 1e-6);
        let mut low = 0.0;
        while high * self.width < STEEPEST && !at(high) {
            (low, high) = (high, high * 2.0);
        }
        while high - low > 0.05 * high {
            let middle = low + (high - low) / 2.0;
            if at(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }

    /// Smallest and largest index that the sum of all losses can have.
    fn support(&self) -> (i64, i64) {
        let add = |sum: (i64, i64), (pmf, steps): &(Pmf, u64)| {
            let steps = *steps as i64;
            (sum.0 + pmf.grid.first * steps, sum.1 + pmf.grid.last * steps)
        };
        self.parts.iter().fold((0, 0), add)
    }

    /// First and last index of the losses that hold all but [`ALIASED`] of the tilted sum on each side (Chernoff).
    fn window(&self, tilt: f64, here: Cumulants) -> (i64, i64) {
        let (lowest, highest) = self.support();
        let deviation = here.variance.sqrt().max(self.width);
        let bound = |direction: f64| {
            let distances = [0.25, 0.5, 0.75, 1.0].map(|share| {
                let step = direction * share * (-2.0 * ALIASED.ln()).sqrt() / deviation;
                (self.cumulants(tilt + step).log_mgf - here.log_mgf - ALIASED.ln()) / step
            });
            distances.into_iter().reduce(if direction > 0.0 { f64::min } else { f64::max }).unwrap_or(0.0)
        };
        let first = (bound(-1.0) / self.width).floor() as i64;
        let last = (bound(1.0) / self.width).ceil() as i64;
        (first.clamp(lowest, highest), last.clamp(lowest, highest))
    }

    /// The tilted sum by multiplying spectra.
    fn tilted_sum(&self, tilt: f64) -> Option<TiltedSum> {
        let here = self.cumulants(tilt);
        let (first, last) = self.window(tilt, here);
        let length = transform_length((last - first + 1) as usize)?;
        let (forward, inverse) = PLANNER
            .with_borrow_mut(|planner| (planner.plan_fft_forward(length), planner.plan_fft_inverse(length)));
        let mut product = vec![Complex64::new(1.0, 0.0); length / 2 + 1];
        let mut errors = vec![SpectralError::NONE; product.len()];
        let mut spectrum = forward.make_output_vec();
        for (pmf, steps) in &self.parts {
            let log_mgf = pmf.cumulants(tilt).log_mgf;
            let mut wrapped = wrap(pmf, tilt, log_mgf, length);
            forward.process(&mut wrapped, &mut spectrum).expect("the buffers have the length of the plan");
            let error = transform_error(length) + pmf.rounding_error(tilt, log_mgf) + 3.0 * UNIT_ROUNDOFF;
            for ((total, bound), one) in product.iter_mut().zip(&mut errors).zip(&spectrum) {
                if bound.vanished() {
                    continue;
                }
                bound.multiply(one.norm_sqr().sqrt(), error, *steps);
                *total = if bound.vanished() { Complex64::ZERO } else { *total * power(*one, *steps) };
            }
        }
        // Every frequency but the first and last stands for two.
        let squares: f64 = errors.iter().map(|error| 2.0 * error.bound().powi(2)).sum();
        let spectral_error = (squares / length as f64).sqrt();
        product[0].im = 0.0;
        product[length / 2].im = 0.0;
        let mut masses = inverse.make_output_vec();
        inverse.process(&mut product, &mut masses).expect("the buffers have the length of the plan");
        masses.iter_mut().for_each(|mass| *mass /= length as f64);
        masses.rotate_left(first.rem_euclid(length as i64) as usize);
        let norm = masses.iter().map(|mass| mass * mass).sum::<f64>().sqrt();
        Some(TiltedSum {
            width: self.width,
            tilt,
            log_mgf: here.log_mgf,
            first,
            masses,
            norm_error: spectral_error + transform_error(length) * norm,
            infinity: self.infinity(),
        })
    }
}

/// On which side of the exact value the answer must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Never below: errors count against privacy.
    Above,
    /// Never above: errors count in its favour.
    Below,
}

impl TiltedSum {
    /// δ at ε, where the arithmetic may be wrong by the error.
    fn delta(&self, epsilon: f64) -> Bounded {
        let scale = (self.log_mgf - self.tilt * epsilon).exp();
        let weigh = |((over, untilt), mass): ((f64, f64), &f64)| {
            if over <= 0.0 { 0.0 } else { mass * untilt * -(-over).exp_m1() }
        };
        let start = self.first as f64 * self.width - epsilon;
        let over = (0..self.masses.len()).map(|index| start + index as f64 * self.width);
        let untilt = exponentials(-self.tilt * self.width, -self.tilt * start, self.masses.len());
        let tail: f64 = over.zip(untilt).zip(&self.masses).map(weigh).sum();
        Bounded { value: (self.infinity + scale * tail).clamp(0.0, 1.0), error: self.delta_error(epsilon) }
    }

    /// By how much rounding and wrapping may change δ at ε: Cauchy-Schwarz on the weights of the tail.
    fn delta_error(&self, epsilon: f64) -> f64 {
        let first = ((epsilon / self.width).ceil() as i64).max(self.first);
        let last = self.first + self.masses.len() as i64;
        let start = first as f64 * self.width - epsilon;
        let count = (last - first).max(0) as usize;
        let untilt = exponentials(-self.tilt * self.width, -self.tilt * start, count);
        let discount = exponentials(-self.width, -start, count);
        let weights = untilt.zip(discount).map(|(untilt, discount)| (untilt * (1.0 - discount)).powi(2));
        let scale = (self.log_mgf - self.tilt * epsilon).exp();
        scale * (weights.sum::<f64>().sqrt() * self.norm_error + 2.0 * ALIASED)
    }

    /// The ε where δ(ε) crosses `delta`: as computed, and moved to the given side by the error.
    ///
    /// None when δ stays below `delta` on the whole window.
    fn epsilon(&self, delta: f64, side: Side) -> Option<Crossing> {
        let estimate = self.crossing(delta)?;
        let error = self.delta_error(estimate);
        let moved = match side {
            Side::Above if error < delta - self.infinity => {
                self.crossing(delta - error).unwrap_or(f64::INFINITY)
            }
            Side::Above => f64::INFINITY,
            // The error grows towards lower ε, so the margin is checked where it is used.
            Side::Below => self
                .crossing(delta + 2.0 * error)
                .filter(|moved| self.delta_error(*moved) <= 2.0 * error)
                .unwrap_or(0.0),
        };
        Some(Crossing { estimate, moved, error })
    }

    /// Walks down from the largest loss. Within the cell above e, δ(ε) = m_∞ + S·(A − e^{ε−e}·B).
    fn crossing(&self, delta: f64) -> Option<f64> {
        let (tilt, width) = (self.tilt * self.width, self.width);
        let top = self.first + self.masses.len() as i64 - 1;
        let exponent = self.tilt * top as f64 * width - self.log_mgf;
        let targets = exponentials(-tilt, exponent, self.masses.len())
            .map(|unscaled| (delta - self.infinity) * unscaled);
        let (keep, discount) = ((-tilt).exp(), (-width).exp());
        // A and B, relative to the loss at hand: masses above it, untilted, and also discounted by e^-loss.
        let (mut above, mut discounted) = (0.0, 0.0);
        for ((position, mass), target) in self.masses.iter().enumerate().rev().zip(targets) {
            let index = self.first + position as i64;
            if above - discounted > target || index < 0 {
                let low = index as f64 * width;
                let epsilon = low + ((above - target) / discounted).ln();
                let inside = if epsilon.is_nan() { low + width } else { epsilon.clamp(low, low + width) };
                return Some(inside.max(0.0));
            }
            above = (above + mass) * keep;
            discounted = (discounted + mass) * keep * discount;
        }
        None
    }
}

/// What the errors of the factors do to their product at one frequency.
#[derive(Clone, Copy)]
struct SpectralError {
    /// Π (m + e)^T over factors of magnitude m known up to e.
    largest: f64,
    /// Σ T·e/(m + e), at least the share of `largest` that the errors contribute.
    share: f64,
}

impl SpectralError {
    const NONE: Self = Self { largest: 1.0, share: 0.0 };

    /// Multiplies by a factor of this magnitude, known up to `error`, `steps` times.
    fn multiply(&mut self, magnitude: f64, error: f64, steps: u64) {
        let largest = magnitude + error;
        self.largest *= power(largest, steps);
        self.share += steps as f64 * (error / largest);
    }

    /// Whether the product is as good as 0. The error is then all of it, and no later factor is above 1 but for rounding.
    fn vanished(&self) -> bool {
        self.largest < VANISHING
    }

    /// Π (m + e)^T − Π m^T, because Π (1 − e/(m + e))^T ≥ 1 − Σ T·e/(m + e).
    fn bound(&self) -> f64 {
        if self.vanished() { 2.0 * VANISHING } else { self.largest * self.share.min(1.0) }
    }
}

/// The tilted masses of one release, added up modulo the length of the transform.
fn wrap(pmf: &Pmf, tilt: f64, log_mgf: f64, length: usize) -> Vec<f64> {
    let mut wrapped = vec![0.0; length];
    let mut position = pmf.grid.first.rem_euclid(length as i64) as usize;
    for mass in pmf.tilted(tilt, log_mgf) {
        wrapped[position] += mass;
        position = if position + 1 == length { 0 } else { position + 1 };
    }
    wrapped
}

/// The power by repeated squaring, whose relative error is below 3·exponent·2⁻⁵³.
fn power<T: Copy + One + std::ops::MulAssign>(base: T, exponent: u64) -> T {
    let (mut result, mut square, mut left) = (T::one(), base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result *= square;
        }
        square *= square;
        left >>= 1;
    }
    result
}

/// The smallest 2^a or 3·2^a that holds the window; `None` above [`LONGEST_TRANSFORM`].
fn transform_length(window: usize) -> Option<usize> {
    let power = window.max(16).next_power_of_two();
    let length = if window <= power / 4 * 3 { power / 4 * 3 } else { power };
    (length <= LONGEST_TRANSFORM).then_some(length)
}

/// Bound on the error of each output of a transform of values that add up to 1 in magnitude, and on the relative L2
/// error: each output is a sum over log₂N stages, each of which errs by less than 8·2⁻⁵³ relative to its inputs.
fn transform_error(length: usize) -> f64 {
    8.0 * UNIT_ROUNDOFF * (length as f64).log2()
}

thread_local! {
    /// Remembers the factors of transforms, which take longer to compute than a transform.
    static PLANNER: RefCell<RealFftPlanner<f64>> = RefCell::new(RealFftPlanner::new());
}

/// Magnitude of a frequency that is set to 0, since it vanishes beside the rounding of the others.
const VANISHING: f64 = 1e-30;
/// Longest transform: half a gigabyte of working memory.
const LONGEST_TRANSFORM: usize = 1 << 23;
/// Tilt by one grid point, in nats, beyond which nothing but the largest loss counts.
const STEEPEST: f64 = 100.0;
/// Error in δ, relative to it, that needs no better tilt.
const GOOD_ENOUGH: f64 = 1e-5;
/// Tilts to try before the best answer so far is given.
const MOST_TILTS: usize = 8;
/// Tilted probability that each side of the window may cut off.
const ALIASED: f64 = 1e-12;
pub(crate) const UNIT_ROUNDOFF: f64 = f64::EPSILON / 2.0;
