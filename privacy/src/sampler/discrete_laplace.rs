//! The discrete Laplace distribution: n with probability proportional to e^(-|n|·s/t).
//!
//! Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy" (arXiv 2004.00010), Algorithm 2.

use super::exponential::bernoulli_exp;
use super::uniform::uniform_below;
use crate::prg::CryptoRng;

/// Draws a discrete Laplace variable of scale t/s, with t from 1 to 2³² and s at least 1.
pub fn sample<R: CryptoRng + ?Sized>(rng: &mut R, t: u64, s: u64) -> i64 {
    loop {
        let low = uniform_below(t, rng);
        if !bernoulli_exp(rng, low.into(), t) {
            continue;
        }
        let mut high = 0;
        while bernoulli_exp(rng, 1, 1) {
            high += 1;
        }
        let magnitude = ((low + t * high) / s) as i64;
        let negative = rng.next_u64() >> 63 == 1;
        // Zero must not be counted twice.
        if !(negative && magnitude == 0) {
            return if negative { -magnitude } else { magnitude };
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_arithmetic)]
mod tests {
    use super::*;
    use crate::prg::Key;
    use crate::sampler::statistics::{ALPHA, chi_square};

    #[test]
    fn draws_follow_the_two_sided_geometric_law() {
        for (seed, (t, s)) in [(1, 1), (1, 3), (7, 2), (100, 1)].into_iter().enumerate() {
            let mut rng = Key::from_seed(seed as u64).stream();
            let noise: Vec<_> = (0..1_000_000).map(|_| sample(&mut rng, t, s)).collect();
            let ratio = (-(s as f64) / t as f64).exp();
            let upper_tail = |n: i64| ratio.powi(n as i32 + 1) / (1.0 + ratio);
            let cumulative = |n: i64| if n >= 0 { 1.0 - upper_tail(n) } else { upper_tail(-n - 1) };
            let reach = (20 * t / s).max(5) as i64;
            let p = chi_square(&noise, -reach, reach, cumulative);
            assert!(p > ALPHA, "scale {t}/{s}: p = {p}");
        }
    }
}
