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

/// What to multiply the shares of some holders with, so that they sum up to the secret.
pub(super) struct Basis(Vec<Scalar>);

impl Basis {
    /// For shares of these holders, all different: as many as the threshold.
    ///
    /// Lagrange at zero: λᵢ = Π xⱼ / (xᵢ · Π (xⱼ − xᵢ)), the products over j ≠ i and, above, all j.
    pub(super) fn new(holders: &[Party]) -> Self {
        let xs: Vec<Scalar> = holders.iter().map(|&holder| abscissa(holder)).collect();
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

    /// The secret that these shares open, in the order of the holders.
    pub(super) fn open(&self, shares: impl IntoIterator<Item = Scalar>) -> Scalar {
        self.0.iter().zip(shares).map(|(lambda, share)| lambda * share).sum()
    }
}

fn abscissa(holder: Party) -> Scalar {
    Scalar::from(u128::from(holder.0) + 1)
}
