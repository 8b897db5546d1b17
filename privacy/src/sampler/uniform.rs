//! Uniform real numbers whose binary digits are drawn when somebody asks for them.

use std::cmp::Ordering;

use crate::prg::CryptoRng;

/// A real number, uniform in (0, 1), in base 2⁶⁴. Digits that nobody has looked at do not exist yet.
#[derive(Debug, Clone)]
pub(crate) struct Uniform {
    first: u64,
    rest: Vec<u64>,
}

impl Uniform {
    pub(crate) fn new<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        Self::starting(rng.next_u64())
    }

    /// A number whose first digit has been drawn.
    pub(crate) const fn starting(first: u64) -> Self {
        Self { first, rest: Vec::new() }
    }

    #[cfg(test)]
    pub(crate) fn from_digits(first: u64, rest: &[u64]) -> Self {
        Self { first, rest: rest.to_vec() }
    }

    pub(crate) fn digit<R: CryptoRng + ?Sized>(&mut self, index: usize, rng: &mut R) -> u64 {
        if index == 0 {
            return self.first;
        }
        while self.rest.len() < index {
            self.rest.push(rng.next_u64());
        }
        self.rest[index - 1]
    }

    /// Whether this number is the smaller one. Digits are drawn until the two differ, which they do with certainty.
    pub(crate) fn is_below<R: CryptoRng + ?Sized>(&mut self, other: &mut Self, rng: &mut R) -> bool {
        for index in 0.. {
            match self.digit(index, rng).cmp(&other.digit(index, rng)) {
                Ordering::Less => return true,
                Ordering::Greater => return false,
                Ordering::Equal => {}
            }
        }
        unreachable!("the loop has no end")
    }
}

/// A uniform integer in 0..bound, without bias (Lemire, arXiv 1805.10941).
pub(crate) fn uniform_below<R: CryptoRng + ?Sized>(bound: u64, rng: &mut R) -> u64 {
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        let low = product as u64;
        if low >= bound || low >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}
