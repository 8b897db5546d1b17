//! Norms of updates: of numbers, in double precision and a fixed order; of whole grid steps, exactly.

use crate::vectorize::vectorize;

vectorize! {
    pub(crate) fn are_finite(values: &[f32]) -> bool {
        values.iter().fold(true, |all, value| all & value.is_finite())
    }
}

/// The L2 norm, summed in a fixed order. Zero for no numbers.
///
/// It neither overflows nor loses subnormal numbers: squares of single precision numbers lie between 10⁻⁹⁰ and 10⁷⁸, and
/// doubles hold 10⁻³⁰⁸ to 10³⁰⁸.
pub(crate) fn norm(values: &[f32]) -> f64 {
    values.chunks(NORM_CHUNK).map(sum_of_squares).sum::<f64>().sqrt()
}

/// Numbers whose squares are added before their sum joins the total. Part of the result: changing it changes bits.
const NORM_CHUNK: usize = 4096;

vectorize! {
    /// Eight running sums, so that the order does not depend on how the compiler vectorises.
    fn sum_of_squares(chunk: &[f32]) -> f64 {
        let (blocks, rest) = chunk.as_chunks::<8>();
        let mut sums = [0.0_f64; 8];
        for block in blocks {
            for (sum, &value) in sums.iter_mut().zip(block) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        for (sum, &value) in sums.iter_mut().zip(rest) {
            *sum += f64::from(value) * f64::from(value);
        }
        sums.iter().sum()
    }
}

vectorize! {
    /// The largest |qᵢ|; 0 for no coordinates.
    pub(crate) fn largest(coordinates: &[i32]) -> u32 {
        coordinates.iter().fold(0, |largest, q| largest.max(q.unsigned_abs()))
    }
}

/// Σqᵢ², exactly, of fewer than 2³² coordinates.
pub(crate) fn norm_squared(coordinates: &[i32]) -> u128 {
    coordinates.chunks(SQUARES).map(sum_of_steps_squared).sum()
}

/// Squares of numbers below 2²⁸ that fit 64 bits together.
const SQUARES: usize = 256;

vectorize! {
    /// Σqᵢ² of at most [`SQUARES`] coordinates: in one word if all are small, in two halves of their squares if not.
    fn sum_of_steps_squared(coordinates: &[i32]) -> u128 {
        let union = coordinates.iter().fold(0, |union, q| union | q.unsigned_abs());
        let squares = coordinates.iter().map(|q| u64::from(q.unsigned_abs()).wrapping_pow(2));
        if union < 1 << 28 {
            return squares.fold(0, u64::wrapping_add).into();
        }
        let halves = squares.map(|square| (square & u64::from(u32::MAX), square >> 32));
        let (low, high) = halves.fold((0, 0), |(low, high), half| (low + half.0, high + half.1));
        (u128::from(high) << 32) + u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vectorize::testing::both;

    #[test]
    fn norms_of_extreme_numbers_are_right() {
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(norm(&[0.0, -0.0]), 0.0);
        let smallest = f32::from_bits(1);
        assert_eq!(norm(&[smallest; 4]), 2.0 * f64::from(smallest));
        let huge = norm(&vec![f32::MAX; 10_000]);
        assert!((huge / (100.0 * f64::from(f32::MAX)) - 1.0).abs() < 1e-12);
        assert_eq!(norm(&[3.0, 4.0]), 5.0);
    }

    #[test]
    fn sums_of_the_largest_squares_are_exact() {
        for largest in [i32::MAX, i32::MIN, (1 << 28) - 1, 1 << 28] {
            let square = u128::from(largest.unsigned_abs()).pow(2);
            assert_eq!(norm_squared(&vec![largest; 1000]), 1000 * square);
        }
    }

    #[test]
    fn one_number_that_is_not_finite_is_enough() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for index in [0, 7, 8, 99] {
                let mut values = vec![f32::MAX; 100];
                assert_eq!(both(|| are_finite(&values)), [true; 2]);
                values[index] = bad;
                assert_eq!(both(|| are_finite(&values)), [false; 2]);
            }
        }
    }

    proptest! {
        #[test]
        fn every_processor_gets_the_same_norm(
            values in prop::collection::vec(any::<f32>().prop_filter("finite", |x| x.is_finite()), 0..600),
            coordinates in prop::collection::vec(any::<i32>(), 0..600),
            shift in 0..32,
        ) {
            let [wide, portable] = both(|| norm(&values).to_bits());
            prop_assert_eq!(wide, portable);
            let coordinates: Vec<i32> = coordinates.iter().map(|q| q >> shift).collect();
            let exact: u128 = coordinates.iter().map(|q| u128::from(q.unsigned_abs()).pow(2)).sum();
            prop_assert_eq!(both(|| norm_squared(&coordinates)), [exact, exact]);
            let most = coordinates.iter().map(|q| q.unsigned_abs()).max().unwrap_or(0);
            prop_assert_eq!(both(|| largest(&coordinates)), [most, most]);
        }
    }
}
