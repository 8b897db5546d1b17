//! Shamir's t-of-k sharing (1979) over the scalars of Curve25519, a prime field of about 2²⁵² elements.
//!
//! Holder i has the value of the polynomial at i + 1: distinct and never zero. All other coefficients are uniform,
//! zero included. Sharing takes the same time whatever the secret is; opening does too, but what is opened is public to
//! the one who opens.

use curve25519_dalek::Scalar;
use zeroize::Zeroizing;

use super::agreement::random_scalar;
use super::party::Party;
use crate::prg::CryptoRng;

/// Shares a secret among holders: one share each, in their order.
pub(super) fn share(
    secret: &Scalar,
    threshold: u32,
    holders: &[Party],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Zeroizing<Vec<Scalar>> {
    let above: Zeroizing<Vec<Scalar>> = Zeroizing::new((1..threshold).map(|_| random_scalar(rng)).collect());
    let value = |holder: &Party| {
        let x = abscissa(*holder);
        let higher = above.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + coefficient);
        higher * x + secret
    };
    Zeroizing::new(holders.iter().map(value).collect())
}

/// What to multiply the shares of some holders with, so that they sum up to a value of the polynomial.
pub(super) struct Basis(Vec<Scalar>);

impl Basis {
    /// The secret, from shares of these holders, all different: as many as the threshold.
    ///
    /// Lagrange at zero: λᵢ = Π xⱼ / (xᵢ · Π (xⱼ − xᵢ)), the products over j ≠ i and, above, all j.
    pub(super) fn new(holders: &[Party]) -> Self {
        Self::at(Scalar::ZERO, holders)
    }

    /// The share of another holder.
    pub(super) fn of_share(holder: Party, holders: &[Party]) -> Self {
        Self::at(abscissa(holder), holders)
    }

    /// None of the holders may have the point as its own.
    fn at(point: Scalar, holders: &[Party]) -> Self {
        let xs: Vec<Scalar> = holders.iter().map(|&holder| abscissa(holder) - point).collect();
        let all: Scalar = xs.iter().product();
        let mut lambda: Vec<Scalar> = (0..xs.len())
            .map(|i| {
                let others = xs[..i].iter().chain(&xs[i + 1..]);
                others.fold(xs[i], |product, x| product * (x - xs[i]))
            })
            .collect();
        Scalar::invert_batch_alloc(&mut lambda);
        lambda.iter_mut().for_each(|lambda| *lambda *= all);
        Self(lambda)
    }

    /// The value that these shares open, in the order of the holders.
    pub(super) fn open(&self, shares: impl IntoIterator<Item = Scalar>) -> Scalar {
        self.0.iter().zip(shares).map(|(lambda, share)| lambda * share).sum()
    }
}

/// Where a holder's share is the value of the polynomial.
pub(super) fn abscissa(holder: Party) -> Scalar {
    Scalar::from(u128::from(holder.0) + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prg::Key;

    fn scalar(number: u64) -> Scalar {
        Scalar::from(number)
    }

    #[test]
    fn opening_is_interpolation_at_zero() {
        // 1234 + 166x + 94x² of Wikipedia's example on Shamir's sharing, at 2, 4 and 5: 1942, 3402, 4414.
        let holders = [1, 3, 4].map(Party);
        let shares = [1942, 3402, 4414].map(scalar);
        assert!(Basis::new(&holders).open(shares) == scalar(1234));
        // Its value at 6 is 5614, at 1 it is 1494.
        assert!(Basis::of_share(Party(5), &holders).open(shares) == scalar(5614));
        assert!(Basis::of_share(Party(0), &holders).open(shares) == scalar(1494));
    }

    #[test]
    fn a_share_is_the_value_of_a_polynomial_with_uniform_coefficients() {
        // Of a fixed stream, so that another way to draw is noticed.
        let secret = scalar(5);
        let mut rng = Key::from_seed(9).stream();
        let shares = share(&secret, 2, &[Party(0), Party(1), Party(u64::MAX)], &mut rng);
        let slope = random_scalar(&mut Key::from_seed(9).stream());
        let far = Scalar::from(1_u128 << 64);
        assert!(*shares == [secret + slope, secret + slope + slope, secret + far * slope]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_threshold_of_shares_opens_and_one_less_opens_anything(
            seed in any::<u64>(),
            threshold in 1_u32..12,
            spare in 0_u64..6,
            from in 0_usize..6,
        ) {
            let mut rng = Key::from_seed(seed).stream();
            let secret = random_scalar(&mut rng);
            let holders: Vec<Party> = (0..u64::from(threshold) + spare).map(|i| Party(i * 7)).collect();
            let shares = share(&secret, threshold, &holders, &mut rng);
            let from = from.min(spare as usize);
            let range = from..from + threshold as usize;
            let opened = Basis::new(&holders[range.clone()]).open(shares[range.clone()].iter().copied());
            prop_assert!(opened == secret);
            // With one share less, every secret has a share that completes it: here is the one for another secret.
            let other = secret + random_scalar(&mut rng);
            let basis = Basis::new(&holders[range.clone()]);
            let rest: Scalar = basis.0[1..].iter().zip(&shares[from + 1..]).map(|(l, s)| l * s).sum();
            let completing = (other - rest) * basis.0[0].invert();
            let forged = std::iter::once(completing).chain(shares[from + 1..].iter().copied());
            prop_assert!(basis.open(forged) == other);
        }
    }
}
