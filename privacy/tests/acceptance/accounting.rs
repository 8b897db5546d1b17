//! 16 to 20: epsilon. The unit tests named `acceptance_16` to `acceptance_20` in `accounting::pld` go deeper: the whole
//! table of the reference, both directions of the loss, and brackets at random parameters.

use skep_privacy::accounting::amplification::Amplification;
use skep_privacy::accounting::pld::Pld;
use skep_privacy::accounting::{Accountant, Composition, Event};
use skep_privacy::prg::{Key, Prg};
use skep_privacy::quantities::{Adjacency, Delta, Sampling, SamplingRate};

use crate::noise_multiplier;

/// dp_accounting 0.6.0, PLD, width 1e-4, add-or-remove: q, σ, T, δ, ε.
const REFERENCE: [(f64, f64, u64, f64, f64); 5] = [
    (1.0, 1.0, 1, 1e-5, 4.377_178),
    (0.01, 1.0, 1000, 1e-5, 1.828_244),
    (0.1, 1.1, 100, 1e-5, 5.912_652),
    (0.02, 1.0, 500, 1e-8, 4.048_538),
    (0.001, 0.6, 2000, 1e-6, 2.354_921),
];

#[test]
fn t16_epsilon_agrees_with_the_reference_and_a_finer_grid_only_lowers_it() {
    for (rate, sigma, steps, at, expected) in REFERENCE {
        let composition = poisson_rounds(rate, sigma, steps);
        let epsilon = |width| {
            let found = Pld::with_width(&composition, width).unwrap().epsilon(delta(at)).unwrap();
            (found.estimate.get(), found.epsilon.get())
        };
        let (estimate, certified) = epsilon(1e-4);
        assert!((estimate / expected - 1.0).abs() < 2e-6, "{rate} {sigma} {steps}: {estimate}");
        // The finest grid that all of them fit.
        let finest = epsilon(2e-5).1;
        assert!(certified >= estimate && epsilon(5e-5).1 >= finest && certified >= finest);
        assert!(epsilon(1e-3).1 - finest <= steps as f64 * 1e-6 + 1e-9, "{rate} {sigma} {steps}");
    }
}

/// Both directions of the loss as one curve: `acceptance_17_the_two_directions_are_one_curve`.
#[test]
fn t17_epsilon_grows_with_rounds_and_rate_falls_with_noise_and_ignores_order() {
    let epsilon = |rate, sigma, steps| pld(&poisson_rounds(rate, sigma, steps), 1e-6);
    for (rate, sigma, steps) in [(0.01, 1.0, 1000), (0.2, 3.0, 50), (1.0, 20.0, 10)] {
        let base = epsilon(rate, sigma, steps);
        assert!(epsilon(rate * 0.9, sigma, steps) < base);
        assert!(epsilon(rate, sigma * 1.1, steps) < base);
        assert!(epsilon(rate, sigma, steps + steps / 10) > base);
    }
    for sigma in [0.5, 1.0, 20.0] {
        const WIDTH: f64 = 1e-4;
        let once = poisson_rounds(1.0, sigma, 1);
        let exact = once.epsilon(Accountant::Analytic, delta(1e-6)).unwrap().get();
        let found = Pld::with_width(&once, WIDTH).unwrap().epsilon(delta(1e-6)).unwrap().epsilon.get();
        let over = found - exact;
        assert!((-1e-12..=WIDTH * WIDTH * sigma.max(1.0)).contains(&over), "{sigma}: {over}");
    }
    let (one, other) = ((poisson(0.01, 1.0), 300), (poisson(0.05, 2.0), 200));
    let orders = [[one, other], [other, one]].map(|events| pld(&composition(&events), 1e-6));
    assert!((orders[0] / orders[1] - 1.0).abs() < 1e-12, "{orders:?}");
}

#[test]
fn t18_optimistic_exact_pessimistic_and_renyi_are_in_order() {
    assert_brackets(180, 40);
}

/// `cargo test --release -p skep-privacy --test acceptance t18 -- --ignored`
#[test]
#[ignore = "takes some minutes"]
fn t18_a_thousand_random_rounds_lie_in_their_brackets() {
    assert_brackets(181, 1000);
}

/// Every second composition is without sampling, where the truth is known.
fn assert_brackets(seed: u64, compositions: usize) {
    let mut prg = Key::from_seed(seed).stream();
    let mut finite = 0;
    for index in 0..compositions {
        let rate = if index % 2 == 0 { 1.0 } else { log_uniform(&mut prg, -5.0, 0.0) };
        let (sigma, steps) = (log_uniform(&mut prg, -0.5, 2.0), log_uniform(&mut prg, 0.0, 4.0) as u64);
        let at = delta(log_uniform(&mut prg, -10.0, -3.0));
        let rounds = poisson_rounds(rate, sigma, steps);
        let epsilon = |accountant| rounds.epsilon(accountant, at).unwrap().get();
        let (below, above) = (epsilon(Accountant::PldOptimistic), epsilon(Accountant::Pld));
        let exact = if rate == 1.0 { epsilon(Accountant::Analytic) } else { below };
        let case = format!("q {rate} sigma {sigma} T {steps} delta {at}: {below} {exact} {above}");
        assert!(below <= exact * (1.0 + 1e-12) && exact <= above * (1.0 + 1e-12), "{case}");
        // The loss distribution is within its tolerance above the truth, and Rényi divergence above that.
        assert!(above <= epsilon(Accountant::Rdp) + 1e-4 * above.max(1.0), "{case}");
        finite += usize::from(above.is_finite() && above > 0.0);
    }
    assert!(finite > compositions / 2, "only {finite} say anything");
}

/// Without sampling the truth is known: μ² = Σ T/σ². The benchmark `accounting` times such a composition.
#[test]
fn t19_five_hundred_different_groups_are_the_sequence_of_their_rounds() {
    let groups: Vec<_> = (0..500).map(|group| (gaussian(40.0 + f64::from(group) / 3.0), 2)).collect();
    let all = composition(&groups);
    assert_eq!(all.groups().len(), 500);
    let exact = all.epsilon(Accountant::Analytic, delta(1e-5)).unwrap().get();
    let found = pld(&all, 1e-5);
    assert!(found >= exact && found - exact < 1e-3, "{found} vs {exact}");
}

#[test]
fn t20_only_secret_independent_sampling_amplifies() {
    let rate = SamplingRate::new(0.01).unwrap();
    let fixed = Sampling::fixed(100, 10_000).unwrap();
    for adjacency in [Adjacency::AddOrRemove, Adjacency::ZeroOut] {
        let amplified = |sampling| Amplification::of(sampling, adjacency).gaussian(noise_multiplier(1.0));
        assert_eq!(amplified(Sampling::Poisson { rate }), poisson(0.01, 1.0));
        assert_eq!(amplified(fixed), gaussian(1.0));
        // The server chose the cohort, so against it everyone took part.
        assert_eq!(amplified(Sampling::All), gaussian(1.0));
    }
    assert!("shuffled".parse::<Sampling>().is_err());
    assert!(
        pld(&composition(&[(gaussian(10.0), 100)]), 1e-5)
            > 10.0 * pld(&poisson_rounds(0.01, 10.0, 100), 1e-5)
    );
}

#[test]
fn t20_a_cap_at_the_mean_raises_epsilon() {
    // dp_accounting 0.6.0: 1.828244 without a cap.
    for (cap, expected) in [(150, 1.830_466), (100, 10.773_008)] {
        let rate = SamplingRate::new(0.01).unwrap();
        let noise_multiplier = noise_multiplier(1.0);
        let capped = Event::TruncatedPoissonGaussian { rate, noise_multiplier, cap, population: 10_000 };
        let found = pld(&composition(&[(capped, 1000)]), 1e-5);
        assert!((found / expected - 1.0).abs() < 1e-4, "cap {cap}: {found}");
    }
}

fn gaussian(sigma: f64) -> Event {
    Event::Gaussian { noise_multiplier: noise_multiplier(sigma) }
}

fn poisson(rate: f64, sigma: f64) -> Event {
    let rate = SamplingRate::new(rate).unwrap();
    Event::PoissonGaussian { rate, noise_multiplier: noise_multiplier(sigma) }
}

fn poisson_rounds(rate: f64, sigma: f64, steps: u64) -> Composition {
    composition(&[(poisson(rate, sigma), steps)])
}

fn composition(events: &[(Event, u64)]) -> Composition {
    let mut composition = Composition::new(Adjacency::AddOrRemove);
    events.iter().for_each(|(event, steps)| composition.push(*event, *steps));
    composition
}

fn pld(composition: &Composition, at: f64) -> f64 {
    composition.epsilon(Accountant::Pld, delta(at)).unwrap().get()
}

fn delta(at: f64) -> Delta {
    Delta::new(at).unwrap()
}

/// 10 to a uniform power.
fn log_uniform(prg: &mut Prg, low: f64, high: f64) -> f64 {
    let uniform = (prg.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    10_f64.powf(low + (high - low) * uniform)
}
