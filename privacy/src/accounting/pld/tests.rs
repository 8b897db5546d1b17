use proptest::prelude::*;

use super::*;
use crate::accounting::{Accountant, analytic};
use crate::quantities::{NoiseMultiplier, SamplingRate};

fn noise(sigma: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(sigma).unwrap()
}

fn poisson(rate: f64, sigma: f64) -> Event {
    Event::PoissonGaussian { rate: SamplingRate::new(rate).unwrap(), noise_multiplier: noise(sigma) }
}

fn composition(adjacency: Adjacency, events: &[(Event, u64)]) -> Composition {
    let mut composition = Composition::new(adjacency);
    for (event, steps) in events {
        composition.push(*event, *steps);
    }
    composition
}

fn steps(rate: f64, sigma: f64, count: u64) -> Composition {
    composition(Adjacency::AddOrRemove, &[(poisson(rate, sigma), count)])
}

fn delta(value: f64) -> Delta {
    Delta::new(value).unwrap()
}

/// ε at δ on a grid of this width: estimate and certified.
fn epsilon_at(composition: &Composition, width: f64, at: f64) -> PldEpsilon {
    Pld::with_width(composition, width).unwrap().epsilon(delta(at)).unwrap()
}

fn assert_golden(composition: &Composition, at: f64, expected: f64) {
    let found = epsilon_at(composition, 1e-4, at);
    let (estimate, epsilon) = (found.estimate.get(), found.epsilon.get());
    assert!(
        (estimate - expected).abs() < f64::max(2e-6 * expected, 1e-6),
        "{composition:?}: {found:?} vs {expected}"
    );
    assert!(epsilon >= estimate && epsilon < estimate * (1.0 + 1e-4), "{composition:?}: {found:?}");
}

#[test]
fn acceptance_16_epsilon_agrees_with_the_reference_at_equal_width() {
    for (rate, sigma, count, at, expected) in GOLDEN {
        assert_golden(&steps(rate, sigma, count), at, expected);
    }
    for (events, at, expected) in [
        (vec![(poisson(0.01, 1.0), 500), (poisson(0.02, 1.5), 500)], 1e-5, 1.897_483),
        (vec![(truncated(150), 1000)], 1e-5, 1.830_466),
        (vec![(poisson(1.0, 4.0), 1)], 1e-5, 0.926_342),
        (vec![(poisson(1.0, 4.0), 2)], 1e-5, 1.356_467),
        (vec![(poisson(1.0, 4.0), 5)], 1e-5, 2.258_145),
        (vec![(mixture(0.015, 0.005, 1.0), 100)], 1e-5, 4.960_166),
        (vec![(Event::Laplace { noise_multiplier: noise(1.0) }, 1)], 1e-5, 0.999_980),
        (vec![(Event::Laplace { noise_multiplier: noise(10.0) }, 100)], 1e-5, 4.220_347),
    ] {
        assert_golden(&composition(Adjacency::AddOrRemove, &events), at, expected);
    }
}

#[test]
fn discrete_gaussian_noise_is_between_the_truth_and_the_reference() {
    // The exact values are direct sums; dp_accounting 0.6.0 rounds every loss up to its grid of 1e-4.
    for (sigma, count, exact, reference) in [
        (1.0, 1, 4.430_238_055_279, 4.430_238),
        (4.0, 1, 0.927_354_147_166, 0.927_404),
        (16.0, 1, 0.204_157_025_087, 0.204_196),
        (10.0, 100, 0.0, 4.377_753),
        (40.0, 100, 0.0, 0.931_342),
        (160.0, 100, 0.0, 0.209_151),
    ] {
        let event = Event::DiscreteGaussian { noise_multiplier: noise(sigma) };
        let found =
            epsilon_at(&composition(Adjacency::AddOrRemove, &[(event, count)]), 1e-4, 1e-5).epsilon.get();
        assert!(
            found >= exact - 1e-12 && found <= reference + 1e-6,
            "{sigma} {count}: {found} {exact} {reference}"
        );
        let gaussian = epsilon_at(&steps(1.0, sigma, count), 1e-4, 1e-5).epsilon.get();
        assert!((found / gaussian - 1.0).abs() < 0.02, "{sigma} {count}: {found} {gaussian}");
    }
}

#[test]
fn replacing_a_record_agrees_with_the_reference() {
    // dp_accounting 0.6.0, REPLACE_ONE
    let gaussian = Event::Gaussian { noise_multiplier: noise(1.0) };
    assert_golden(&composition(Adjacency::Replace, &[(gaussian, 1)]), 1e-5, 9.997_256);
    assert_golden(&composition(Adjacency::Replace, &[(poisson(0.01, 1.0), 1000)]), 1e-5, 2.843_446);
}

#[test]
fn acceptance_20_a_cap_at_the_mean_raises_epsilon() {
    // dp_accounting 0.6.0: with a cap of 150 it is 1.830466, without a cap 1.828244
    assert_golden(&composition(Adjacency::AddOrRemove, &[(truncated(100), 1000)]), 1e-5, 10.773_008);
}

#[test]
fn acceptance_16_a_finer_grid_is_never_above_a_coarser_one() {
    for (rate, sigma, count, at, _) in GOLDEN.into_iter().filter(|golden| golden.2 <= 2000) {
        let composition = steps(rate, sigma, count);
        let [coarse, middle, fine] =
            [1e-3, 1e-4, 2e-5].map(|width| epsilon_at(&composition, width, at).epsilon.get());
        assert!(coarse >= middle && middle >= fine, "{rate} {sigma} {count}: {coarse} {middle} {fine}");
        assert!(coarse - fine <= count as f64 * 1e-6 + 1e-9, "{rate} {sigma} {count}: {coarse} {fine}");
    }
}

#[test]
fn delta_agrees_with_the_reference() {
    // dp_accounting 0.6.0, width 1e-4
    let sampled = Pld::with_width(&steps(0.01, 1.0, 1000), 1e-4).unwrap();
    let gaussian = Pld::with_width(&steps(1.0, 1.0, 1), 1e-4).unwrap();
    for (pld, epsilon, expected) in [
        (&sampled, 0.5, 0.030_568_5),
        (&sampled, 1.0, 0.002_612_50),
        (&sampled, 2.0, 2.665_72e-6),
        (&gaussian, 0.5, 0.238_422),
        (&gaussian, 1.0, 0.126_937),
        (&gaussian, 2.0, 0.020_923_6),
        (&gaussian, 4.0, 4.712_24e-5),
    ] {
        let found = pld.delta(Epsilon::new(epsilon).unwrap()).unwrap();
        assert!((found / expected - 1.0).abs() < 5e-6, "{epsilon}: {found} vs {expected}");
    }
}

#[test]
fn acceptance_17_the_two_directions_are_one_curve() {
    // δ_add(ε) = 1 − e^ε + e^ε·δ_remove(−ε)
    let composition = steps(0.1, 1.0, 10);
    let losses = losses(&composition).unwrap();
    let pld = Pld::on_grid(&losses, 1e-4).unwrap();
    let [remove, add] = &pld.compositions(Cells::pessimistic).collect::<Vec<_>>()[..] else {
        panic!("two directions")
    };
    for epsilon in [0.01_f64, 0.1, 0.3, 0.7] {
        let odds = epsilon.exp();
        let expected = 1.0 - odds + odds * remove.delta(-epsilon).unwrap().value;
        let found = add.delta(epsilon).unwrap().value;
        assert!((found - expected).abs() < 1e-12, "{epsilon}: {found} vs {expected}");
    }
    // dp_accounting 0.6.0
    assert!((remove.epsilon(1e-6, Side::Above).unwrap().estimate - 3.465_985).abs() < 1e-6);
    assert!((add.epsilon(1e-6, Side::Above).unwrap().estimate - 0.794_701).abs() < 1e-6);
}

#[test]
fn ruling_out_a_direction_does_not_change_the_answer() {
    let at = 1e-6;
    let (mut ruled_out, mut computed) = (0, 0);
    for (rate, sigma, count) in [(0.01, 1.0, 1000), (0.3, 0.7, 5), (0.02, 3.0, 5000), (0.9, 2.0, 50)] {
        let pld = Pld::with_width(&steps(rate, sigma, count), 1e-3).unwrap();
        let directions: Vec<_> = pld.compositions(Cells::pessimistic).collect();
        let epsilons: Vec<f64> =
            directions.iter().map(|direction| direction.epsilon(at, Side::Above).unwrap().moved).collect();
        let worst = epsilons.iter().copied().fold(0.0, f64::max);
        assert_eq!(pld.epsilon(delta(at)).unwrap().epsilon.get(), worst, "{rate} {sigma} {count}");
        let most = directions[1].delta_at_most(worst);
        assert!(directions[1].delta(worst).unwrap().value <= most, "{rate} {sigma} {count}");
        *if most <= at { &mut ruled_out } else { &mut computed } += 1;
    }
    assert!(ruled_out > 0 && computed > 0, "{ruled_out} {computed}");
}

#[test]
fn acceptance_17_one_release_without_sampling_is_the_analytic_gaussian() {
    for sigma in [0.2, 0.5, 1.0, 3.0, 20.0, 1000.0] {
        for at in [1e-3, 1e-6, 1e-12] {
            let found = epsilon_at(&steps(1.0, sigma, 1), 1e-4, at).epsilon.get();
            let exact = analytic::epsilon(1.0 / sigma, delta(at)).get();
            let over = found - exact;
            assert!((-1e-12..=1e-8 * sigma.max(1.0)).contains(&over), "{sigma} {at}: {found} vs {exact}");
        }
    }
}

#[test]
fn acceptance_17_order_does_not_matter() {
    let (one, other) = ((poisson(0.01, 1.0), 300), (poisson(0.05, 2.0), 200));
    let [a, b] = [[one, other], [other, one]]
        .map(|events| epsilon_at(&composition(Adjacency::AddOrRemove, &events), 1e-3, 1e-6).epsilon.get());
    assert!((a / b - 1.0).abs() < 1e-12, "{a} {b}");
}

#[test]
fn acceptance_19_five_hundred_groups_are_their_sequential_composition() {
    // Groups that differ, so that they are not merged, but hardly: their epsilon is that of equal ones.
    let groups: Vec<_> = (0..500).map(|group| (poisson(0.01, 1.0 + f64::from(group) * 1e-9), 2)).collect();
    let found = epsilon_at(&composition(Adjacency::AddOrRemove, &groups), 1e-3, 1e-5);
    let equal = epsilon_at(&steps(0.01, 1.0, 1000), 1e-3, 1e-5);
    assert!((found.estimate.get() / equal.estimate.get() - 1.0).abs() < 1e-5, "{found:?} {equal:?}");
}

#[test]
fn extreme_parameters_get_an_answer_that_brackets() {
    let mut finite = 0;
    for rate in [1e-7, 1e-2, 1.0] {
        for sigma in [0.2, 1.0, 1000.0] {
            for count in [1, 10_000_000] {
                for at in [1e-12, 1e-5] {
                    let composition = steps(rate, sigma, count);
                    let above = composition.epsilon(Accountant::Pld, delta(at)).unwrap().get();
                    let below = composition.epsilon(Accountant::PldOptimistic, delta(at)).unwrap().get();
                    let renyi = composition.epsilon(Accountant::Rdp, delta(at)).unwrap().get();
                    assert!(
                        below <= above && above <= renyi * 1.001 + TOLERANCE,
                        "{rate} {sigma} {count} {at}: {below} {above} {renyi}"
                    );
                    finite += usize::from(above.is_finite());
                }
            }
        }
    }
    assert_eq!(finite, 36);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, rng_seed: proptest::test_runner::RngSeed::Fixed(18), ..ProptestConfig::default() })]

    #[test]
    fn acceptance_18_optimistic_exact_pessimistic_renyi(
        log_rate in -5.0_f64..0.0,
        log_sigma in -1.0_f64..2.0,
        log_count in 0.0_f64..4.0,
        log_delta in -10.0_f64..-3.0,
    ) {
        let (rate, sigma, count) = (10_f64.powf(log_rate), 10_f64.powf(log_sigma).max(0.3), 10_f64.powf(log_count) as u64);
        let at = delta(10_f64.powf(log_delta));
        let composition = steps(rate, sigma, count);
        let above = composition.epsilon(Accountant::Pld, at).unwrap().get();
        let below = composition.epsilon(Accountant::PldOptimistic, at).unwrap().get();
        let renyi = composition.epsilon(Accountant::Rdp, at).unwrap().get();
        prop_assert!(below <= above, "{} {}", below, above);
        prop_assert!(above <= renyi + TOLERANCE, "{} {}", above, renyi);
    }

    #[test]
    fn acceptance_17_epsilon_is_monotone(
        log_rate in -5.0_f64..0.0,
        log_sigma in -0.5_f64..2.0,
        log_count in 0.0_f64..4.0,
        log_delta in -10.0_f64..-3.0,
    ) {
        let (rate, sigma, count) = (10_f64.powf(log_rate), 10_f64.powf(log_sigma), 10_f64.powf(log_count) as u64);
        let epsilon = |rate, sigma, count| {
            epsilon_at(&steps(rate, sigma, count), 2e-3, 10_f64.powf(log_delta)).estimate.get()
        };
        let most = epsilon(rate, sigma, count) * (1.0 + 1e-9) + 1e-9;
        prop_assert!(epsilon(rate * 0.9, sigma, count) <= most, "{} {}", epsilon(rate * 0.9, sigma, count), most);
        prop_assert!(epsilon(rate, sigma * 1.1, count) <= most);
        prop_assert!(epsilon(rate, sigma, count - count / 10) <= most);
    }

    #[test]
    fn acceptance_18_the_analytic_gaussian_lies_in_the_bracket(
        log_sigma in -0.7_f64..2.0,
        log_count in 0.0_f64..4.0,
        log_delta in -10.0_f64..-1.0,
    ) {
        let (sigma, count) = (10_f64.powf(log_sigma), 10_f64.powf(log_count) as u64);
        let at = delta(10_f64.powf(log_delta));
        let composition = steps(1.0, sigma, count);
        let exact = composition.epsilon(Accountant::Analytic, at).unwrap().get();
        let above = composition.epsilon(Accountant::Pld, at).unwrap().get();
        let below = composition.epsilon(Accountant::PldOptimistic, at).unwrap().get();
        prop_assert!(below <= exact * (1.0 + 1e-12) && exact <= above * (1.0 + 1e-12), "{} {} {}", below, exact, above);
        prop_assert!(above - below <= 10.0 * TOLERANCE * exact.max(1.0), "{} {} {}", below, exact, above);
    }
}

fn mixture(once: f64, twice: f64, sigma: f64) -> Event {
    let [once, twice] = [once, twice].map(|p| SamplingRate::new(p).unwrap());
    Event::GaussianMixture { once, twice, noise_multiplier: noise(sigma) }
}

#[test]
fn a_mixture_lies_between_what_it_mixes() {
    let epsilon =
        |event| epsilon_at(&composition(Adjacency::AddOrRemove, &[(event, 10)]), 1e-3, 1e-6).estimate.get();
    for sigma in [0.2, 1.0, 50.0] {
        // Counting twice is sampling at half of the noise.
        for (once, twice) in [(0.1, 1e-9), (1e-9, 0.1), (0.3, 0.1), (0.5, 0.5)] {
            let found = epsilon(mixture(once, twice, sigma));
            assert!(
                found
                    >= epsilon(poisson(once, sigma)).max(epsilon(poisson(twice, sigma / 2.0))) * (1.0 - 1e-6)
            );
            assert!(found <= epsilon(poisson(once + twice, sigma / 2.0)) * (1.0 + 1e-6));
        }
        let rare = epsilon(mixture(0.1, 1e-12, sigma)) / epsilon(poisson(0.1, sigma));
        assert!((rare - 1.0).abs() < 1e-3 || sigma == 0.2, "{sigma}: {rare}");
    }
    let too_much = composition(Adjacency::AddOrRemove, &[(mixture(0.6, 0.6, 1.0), 1)]);
    let refused = too_much.epsilon(Accountant::Pld, delta(1e-5)).unwrap_err().to_string();
    assert!(refused.contains("once + twice") && refused.contains("at most 1"), "{refused}");
    let replaced = composition(Adjacency::Replace, &[(mixture(0.1, 0.1, 1.0), 1)]);
    assert!(replaced.epsilon(Accountant::Pld, delta(1e-5)).is_err());
}

fn truncated(cap: u64) -> Event {
    Event::TruncatedPoissonGaussian {
        rate: SamplingRate::new(0.01).unwrap(),
        noise_multiplier: noise(1.0),
        cap,
        population: 10_000,
    }
}

/// dp_accounting 0.6.0, PLD, width 1e-4, add-or-remove: q, σ, T, δ, ε.
const GOLDEN: [(f64, f64, u64, f64, f64); 15] = [
    (1.0, 1.0, 1, 1e-5, 4.377_178),
    (1.0, 10.0, 100, 1e-5, 4.377_178),
    (1.0, 1.1, 100, 1e-5, 79.275_496),
    (1.0, 4.0, 10, 1e-5, 3.341_409),
    (1.0, 5.0, 100, 1e-5, 9.997_256),
    (0.01, 1.0, 1000, 1e-5, 1.828_244),
    (0.01, 0.8, 1000, 1e-5, 3.141_018),
    (0.1, 1.1, 100, 1e-5, 5.912_652),
    (0.1, 2.0, 500, 1e-5, 5.555_470),
    (0.001, 0.6, 2000, 1e-6, 2.354_921),
    (256.0 / 60_000.0, 1.1, 14_100, 1e-5, 2.385_211),
    (0.02, 1.0, 500, 1e-8, 4.048_538),
    (0.001, 1.0, 100_000, 1e-6, 1.861_996),
    (0.1, 1.0, 10, 1e-6, 3.465_985),
    (0.0004, 0.6, 20_000, 1e-7, 2.626_541),
];
