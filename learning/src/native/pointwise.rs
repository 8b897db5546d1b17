//! What is done to each number by itself: activations and dropout.

use crate::Activation;
use crate::kernel::vectorized;

/// Applies the function in place.
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Relu => vectorized(
            #[inline(always)]
            || values.iter_mut().for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value }),
        ),
        Activation::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
        Activation::Tanh => values.iter_mut().for_each(|value| *value = value.tanh()),
    }
}

/// Multiplies the gradient by the derivative, which follows from what the function gave.
pub(super) fn activate_back(activation: Activation, activated: &[f32], gradient: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let pairs = gradient.iter_mut().zip(activated);
            match activation {
                Activation::Relu => pairs.for_each(|(d, &y)| *d = if y > 0.0 { *d } else { 0.0 }),
                Activation::Sigmoid => pairs.for_each(|(d, &y)| *d *= y - y * y),
                Activation::Tanh => pairs.for_each(|(d, &y)| *d -= *d * y * y),
            }
        },
    );
}

/// Which numbers of a step are dropped: a function of a seed and of where a number stands, so nothing is kept for the
/// backward pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    seed: [u32; 2],
    /// Hashes below it are dropped.
    threshold: u32,
    scale: f32,
}

impl Mask {
    pub(super) fn new(rate: f32, seed: u64) -> Self {
        // Below 2³² because the rate is below 1.
        let threshold = (f64::from(rate) * 4_294_967_296.0) as u32;
        Mask { seed: [seed as u32, (seed >> 32) as u32], threshold, scale: 1.0 / (1.0 - rate) }
    }

    /// Drops some of `values`, whose first stands at `first`, and scales the others up. Applied to a gradient it is its
    /// own derivative.
    pub(super) fn apply(&self, first: usize, values: &mut [f32]) {
        let (first, mask) = (first as u32, *self);
        vectorized(
            #[inline(always)]
            || {
                for (at, value) in (0_u32..).zip(values.iter_mut()) {
                    let kept = mask.hash(first.wrapping_add(at)) >= mask.threshold;
                    *value = if kept { *value * mask.scale } else { 0.0 };
                }
            },
        );
    }

    /// A bijection of 32 bits with the finalizer of MurmurHash3 (Appleby), keyed before and within. Not for secrets: for
    /// dropout, bits must only look independent.
    #[inline(always)]
    fn hash(&self, at: u32) -> u32 {
        let mut x = at ^ self.seed[0];
        x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        x = (x ^ (x >> 13)).wrapping_add(self.seed[1]).wrapping_mul(0xc2b2_ae35);
        x ^ (x >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_drops_its_share_and_keeps_the_mean() {
        for (rate, seed) in [(0.25, 1), (0.5, 2), (0.0, 3), (0.9, 4)] {
            let mask = Mask::new(rate, seed << 33 | seed);
            let mut values = vec![1.0; 100_000];
            mask.apply(7, &mut values);
            let dropped = values.iter().filter(|&&value| value == 0.0).count() as f64 / 1e5;
            // Five standard deviations of a coin of this rate, tossed 100 000 times, are below 0.008.
            assert!((dropped - f64::from(rate)).abs() < 0.008, "{dropped}");
            assert!(values.iter().all(|&value| value == 0.0 || value == 1.0 / (1.0 - rate)));
        }
    }

    #[test]
    fn a_mask_is_the_same_whatever_part_is_asked_for_and_another_for_another_seed() {
        let masked = |seed, first, len| {
            let mut values = vec![1.0; len];
            Mask::new(0.5, seed).apply(first, &mut values);
            values
        };
        assert_eq!(masked(9, 0, 1000)[300..400], masked(9, 300, 100));
        for other in [10, 9 + (1 << 32)] {
            let alike =
                masked(9, 0, 10_000).iter().zip(masked(other, 0, 10_000)).filter(|(a, b)| **a == *b).count();
            // Independent coins agree half of the time; six standard deviations.
            assert!((4700..5300).contains(&alike), "{alike}");
        }
    }
}
