//! 13: noise in shares, for sums that lose members.

use skep_privacy::accounting::distributed::NoiseShares;
use skep_privacy::prg::{Key, Purpose};
use skep_privacy::sampler::discrete_gaussian::DiscreteGaussian;

use crate::noise::fit_discrete;
use crate::statistics::{ALPHA, moments};

const CLIENTS: u64 = 10;
/// σ of a share, in grid steps.
const SIGMA: u64 = 3;

/// A million coordinates for every number of clients that stay. Five standard errors of the variance are alpha = 6e-7; the
/// gap between the law of the sum and the discrete Gaussian's, below 1e-35, is nothing to the chi-square test.
#[test]
fn t13_whoever_stays_the_noise_of_a_sum_is_that_of_its_shares() {
    const DRAWS: usize = 1_000_000;
    let sampler = DiscreteGaussian::new(SIGMA * SIGMA, 1).unwrap();
    let (mut sum, mut share) = (vec![0; DRAWS], vec![0; DRAWS]);
    for stayed in 1..=CLIENTS {
        let key = Key::from_seed(13).derive(Purpose::Noise, 1, stayed);
        sampler.fill(&mut key.stream(), &mut share);
        sum.iter_mut().zip(&share).for_each(|(sum, share)| *sum += share);
        let variance = stayed * SIGMA * SIGMA;
        let [_, found, _] = moments(&sum);
        let error = (2.0 / DRAWS as f64).sqrt();
        assert!((found / variance as f64 - 1.0).abs() < 5.0 * error, "{stayed} of {CLIENTS}: {found}");
        let p = fit_discrete(&sum, (variance, 1));
        assert!(p > ALPHA, "{stayed} of {CLIENTS}: p = {p}");
    }
    // One share more or less is seen.
    assert!(fit_discrete(&sum, ((CLIENTS - 1) * SIGMA * SIGMA, 1)) < ALPHA);
}

#[test]
fn t13_shares_of_less_than_two_grid_steps_are_refused() {
    let shares = |sigma| NoiseShares {
        l2_sensitivity: 1000.0,
        l1_sensitivity: 1_000_000.0,
        sigma,
        shares: CLIENTS,
        dimension: 1_000_000,
    };
    let refused = shares(1.999).curve().unwrap_err().to_string();
    assert!(
        refused.contains("sigma of a noise share") && refused.contains("at least 2 grid steps"),
        "{refused}"
    );
    assert!(shares(2.0).curve().is_ok());
}

/// Fewer honest shares than planned are less noise, and cost more.
#[test]
fn t13_only_the_shares_that_are_sure_to_be_there_count() {
    let epsilon = |honest| {
        let shares = NoiseShares {
            l2_sensitivity: 1000.0,
            l1_sensitivity: 1_000_000.0,
            sigma: 1000.0,
            shares: honest,
            dimension: 1_000_000,
        };
        shares.curve().unwrap().epsilon(skep_privacy::quantities::Delta::new(1e-5).unwrap()).get()
    };
    assert!((1..CLIENTS).all(|honest| epsilon(honest) > epsilon(honest + 1)));
}
