//! Finding false shares among true ones: Berlekamp and Welch (1986).
//!
//! k shares of a polynomial of degree t − 1, e of them false, determine it as long as k ≥ t + 2e. Let E be a polynomial of degree
//! at most e that is zero where a share is false, and Q = P·E; then Q(xᵢ) = yᵢ·E(xᵢ) everywhere, which is linear in the
//! coefficients of both. Whatever solution is found, Q/E is P, so E is zero at every false share.

use curve25519_dalek::Scalar;

use super::party::Party;
use super::shamir::abscissa;

/// As many holders as the threshold whose shares lie on one polynomial with all but the fewest, if (k − t)/2 or fewer of them
/// are false. Who calls it must check what they open: with more false shares the answer is one of several or none.
pub(super) fn true_shares(shares: &[(Party, Scalar)], threshold: usize) -> Option<Vec<Party>> {
    let errors = shares.len().checked_sub(threshold)? / 2;
    let locator = locate(shares, threshold, errors)?;
    let sound = |(holder, _): &&(Party, Scalar)| evaluate(&locator, abscissa(*holder)) != Scalar::ZERO;
    let sound: Vec<Party> = shares.iter().filter(sound).map(|(holder, _)| *holder).take(threshold).collect();
    (sound.len() == threshold).then_some(sound)
}

/// The coefficients of E, lowest first.
fn locate(shares: &[(Party, Scalar)], threshold: usize, errors: usize) -> Option<Vec<Scalar>> {
    let of_q = threshold + errors;
    let equation = |(holder, y): &(Party, Scalar)| {
        let x = abscissa(*holder);
        let powers = std::iter::successors(Some(Scalar::ONE), |power| Some(power * x));
        let q = powers.clone().take(of_q);
        q.chain(powers.take(errors + 1).map(|power| -(y * power))).collect()
    };
    let solution = kernel(shares.iter().map(equation).collect(), of_q + errors + 1)?;
    Some(solution[of_q..].to_vec())
}

/// A solution other than zero of a homogeneous system, by elimination.
fn kernel(mut rows: Vec<Vec<Scalar>>, unknowns: usize) -> Option<Vec<Scalar>> {
    let mut pivots: Vec<usize> = Vec::new();
    let mut free = None;
    for column in 0..unknowns {
        let done = pivots.len();
        let Some(found) = (done..rows.len()).find(|&row| rows[row][column] != Scalar::ZERO) else {
            free = Some(column);
            break;
        };
        rows.swap(done, found);
        eliminate(&mut rows, done, column);
        pivots.push(column);
    }
    // Everything before the first column without a pivot is solved for; everything after it is zero.
    let free = free?;
    let mut solution = vec![Scalar::ZERO; unknowns];
    solution[free] = Scalar::ONE;
    for (row, &column) in pivots.iter().enumerate() {
        solution[column] = -rows[row][free];
    }
    Some(solution)
}

/// Makes the pivot one and everything above and below it zero.
fn eliminate(rows: &mut [Vec<Scalar>], pivot: usize, column: usize) {
    let inverse = rows[pivot][column].invert();
    rows[pivot][column..].iter_mut().for_each(|entry| *entry *= inverse);
    let taken = rows[pivot].clone();
    for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != pivot) {
        let factor = row[column];
        if factor != Scalar::ZERO {
            row.iter_mut().zip(&taken).skip(column).for_each(|(entry, by)| *entry -= factor * by);
        }
    }
}

fn evaluate(polynomial: &[Scalar], x: Scalar) -> Scalar {
    polynomial.iter().rev().fold(Scalar::ZERO, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Key;
    use crate::secagg::agreement::random_scalar;
    use crate::secagg::shamir::{Basis, share};

    #[test]
    fn up_to_half_of_the_spare_shares_may_be_false() {
        let mut rng = Key::from_seed(1).stream();
        for (holders, threshold) in [(9, 6), (20, 11), (31, 5), (6, 6)] {
            let names: Vec<Party> = (0..holders).map(|i| Party(10 * i + 3)).collect();
            let secret = random_scalar(&mut rng);
            let shares = share(&secret, threshold, &names, &mut rng);
            let threshold = threshold as usize;
            for false_shares in 0..=(names.len() - threshold) / 2 {
                let mut given: Vec<_> = names.iter().copied().zip(shares.iter().copied()).collect();
                for share in given.iter_mut().step_by(2).take(false_shares) {
                    share.1 += random_scalar(&mut rng);
                }
                let sound = true_shares(&given, threshold).unwrap();
                let values = sound.iter().map(|holder| given.iter().find(|it| it.0 == *holder).unwrap().1);
                assert!(Basis::new(&sound).open(values) == secret, "{false_shares} of {holders}");
            }
        }
    }
}
