//! Statement 24: what a run is seen to give away, beside what it claims. (That a run without noise is found out and honest
//! ones are not needs the whole pipeline: the tests `t24_*` in `simulations/src/audit.rs`.)

use skep_privacy::empirical::one_run::Guesses;
use skep_privacy::quantities::Delta;

/// Values of the reference implementation in arXiv 2305.08846, appendix D, with binary search to 1e-4.
#[test]
fn t24_lower_bounds_agree_with_the_reference() {
    // The smallest delta stands for 0.
    let [tiny, delta] = [1e-300, 1e-5].map(|delta| Delta::new(delta).unwrap());
    for (m, r, v, without_delta, with_delta) in [
        (1000, 1000, 600, 0.2975, 0.2972),
        (1000, 1000, 800, 1.2543, 1.2540),
        (1000, 100, 100, 3.4930, 3.4654),
        (10_000, 500, 450, 1.9471, 1.9355),
        (100, 20, 20, 1.8227, 1.8196),
    ] {
        let guesses = Guesses::new(m, r, v).unwrap();
        let bound = |delta| guesses.epsilon_lower(delta, 0.95).get();
        assert!((bound(tiny) - without_delta).abs() < 1e-4, "{m} {r} {v}: {}", bound(tiny));
        assert!((bound(delta) - with_delta).abs() < 1e-4, "{m} {r} {v}: {}", bound(delta));
    }
}

/// Randomised response with epsilon 1 on every canary is as bad as the bound allows: over 2,000 runs of 200 guesses
/// (fixed draws) the bound exceeds 1 in at most 5 %, plus four standard errors, and is close to it on average.
#[test]
fn t24_the_bound_holds_with_its_confidence_against_the_worst_mechanism() {
    let mut prg = skep_privacy::prg::Key::from_seed(24).stream();
    let (epsilon, runs, guesses) = (1.0_f64, 2000, 200);
    let right_with = epsilon.exp() / (1.0 + epsilon.exp());
    let bound = |right| {
        Guesses::new(guesses, guesses, right).unwrap().epsilon_lower(Delta::new(1e-300).unwrap(), 0.95).get()
    };
    let bounds: Vec<f64> = (0..=guesses).map(bound).collect();
    let (mut above, mut sum) = (0.0, 0.0);
    for _ in 0..runs {
        let uniform = |prg: &mut skep_privacy::prg::Prg| (prg.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let bound = bounds[(0..guesses).filter(|_| uniform(&mut prg) < right_with).count()];
        above += f64::from(u8::from(bound > epsilon));
        sum += bound;
    }
    let runs = f64::from(runs);
    assert!(above / runs < 0.05 + 4.0 * (0.05 * 0.95 / runs).sqrt(), "{} of {runs}", above);
    assert!((0.6..1.0).contains(&(sum / runs)), "{}", sum / runs);
}
