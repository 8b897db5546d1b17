//! Tails of the hypergeometric law: how many of k members, drawn without replacement, are of one kind.

/// ln P\[X ≥ x\] where X counts the marked among `draws` members drawn from `population`, `marked` of which are marked.
///
/// Negative infinity where it cannot happen. Relative error of the probability below 10⁻⁹ for populations up to 10⁶.
pub(super) fn ln_upper_tail(population: u32, marked: u32, draws: u32, x: u32) -> f64 {
    let fewest = (marked + draws).saturating_sub(population);
    let most = marked.min(draws);
    if x <= fewest {
        return 0.0;
    }
    if x > most {
        return f64::NEG_INFINITY;
    }
    let mut ln_term = ln_probability(population, marked, draws, x);
    let mut terms = vec![ln_term];
    for i in x..most {
        let (up, down) = ((marked - i) as f64 * (draws - i) as f64, (i + 1) as f64);
        let ratio = up / (down * f64::from(population + i + 1 - marked - draws));
        ln_term += ratio.ln();
        terms.push(ln_term);
        // Ratios fall, so what is left is less than this term.
        if ratio < 0.5 && ln_term < terms[0] - NEGLIGIBLE {
            break;
        }
    }
    ln_sum(terms.iter().copied()).min(0.0)
}

/// e⁻⁴⁰ of the first term is lost in its rounding.
const NEGLIGIBLE: f64 = 40.0;

fn ln_probability(population: u32, marked: u32, draws: u32, x: u32) -> f64 {
    ln_choose(marked, x) + ln_choose(population - marked, draws - x) - ln_choose(population, draws)
}

/// ln of the binomial coefficient n over k, for k ≤ n.
fn ln_choose(n: u32, k: u32) -> f64 {
    let ln_factorial = |n: u32| libm::lgamma(f64::from(n) + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// ln Σ exp(xᵢ).
pub(super) fn ln_sum(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.map(|term| (term - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exact in integers: Σ C(K, i)·C(N − K, k − i) / C(N, k).
    fn exact(population: u64, marked: u64, draws: u64, x: u64) -> f64 {
        let choose = |n: u64, k: u64| (0..k).fold(1_u128, |c, i| c * u128::from(n - i) / u128::from(i + 1));
        let ways = |i| choose(marked, i) * choose(population - marked, draws - i);
        let possible = |i: &u64| *i <= marked && draws - i <= population - marked;
        (x..=draws).filter(possible).map(ways).sum::<u128>() as f64 / choose(population, draws) as f64
    }

    #[test]
    fn tails_agree_with_integers() {
        for (population, marked, draws) in [(20, 7, 9), (60, 30, 25), (9, 9, 4), (30, 0, 5), (50, 45, 20)] {
            for x in 0..=draws + 1 {
                let expected = if x > draws { 0.0 } else { exact(population, marked, draws, x) };
                let got = ln_upper_tail(population as u32, marked as u32, draws as u32, x as u32).exp();
                assert!(
                    (got - expected).abs() <= 1e-9 * expected,
                    "{population} {marked} {draws} {x}: {got} {expected}"
                );
            }
        }
    }
}
