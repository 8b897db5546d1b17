//! The noise that clients are promised is in what they receive: models of rounds in which everybody sent zeros, as they
//! come out of the real server over TLS, against the standard deviation that the signed plan claims.
//!
//! Every check has alpha = 1e-6; keys are fixed, so a check that holds always holds. The other tests show that the checks
//! can fail: with half of the noise, with next to none, with the same noise twice, with one coordinate forgotten.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripted;

use scripted::{Server, constant, federation, private_file, with_hidden_layer, within};
use skep_protocol::experiment::file::ExperimentFile;
use skep_protocol::message::ServerMessage;
use skep_protocol::plan::{Plan, Promise};
use skep_protocol::round::Outcome;
use skep_server::authority::Authority;
use skep_server::roster::Contiguous;

/// 307,210 parameters: a model of two chunks.
const WIDTH: u32 = 4096;
const RELEASES: usize = 8;
const CLIENTS: u64 = 2;
const NOISE_MULTIPLIER: f64 = 1.5;

fn file(noise_multiplier: f64, rounds: usize) -> ExperimentFile {
    with_hidden_layer(private_file(CLIENTS, rounds as u64, 120.0, noise_multiplier), WIDTH)
}

/// Standard deviation of a coordinate of the released mean, as the plan has it: over a cohort of public size.
fn claimed(plan: &Plan) -> f64 {
    let Promise::Central { sigma, .. } = plan.promise else { panic!("nothing is promised") };
    sigma as f64 * plan.encoding.step / CLIENTS as f64
}

#[tokio::test]
async fn t12_zero_updates_come_back_over_tls_as_the_noise_that_the_plan_claims() {
    let server = Server::start(&file(NOISE_MULTIPLIER, RELEASES + 1), 2).await;
    let mut other = server.join(1).await;
    let others = tokio::spawn(async move {
        for _ in 0..=RELEASES {
            other.take_part(|plan| constant(plan, 0)).await;
        }
    });
    let mut client = server.join(0).await;
    let (mut models, mut sigma) = (Vec::new(), 0.0);
    for _ in 0..=RELEASES {
        let model = client.take_part(|plan| {
            sigma = claimed(plan.plan());
            constant(plan, 0)
        });
        models.push(model.await);
    }
    assert_eq!(client.hear().await, ServerMessage::Finished);
    within(others).await.unwrap();
    assert_eq!(check(&releases(&models), sigma), Ok(()));
}

#[test]
fn t12_half_of_the_noise_or_none_does_not_pass_for_all_of_it() {
    let sigma = run(NOISE_MULTIPLIER).1;
    assert_eq!(check(&run(NOISE_MULTIPLIER).0, sigma), Ok(()));
    assert_eq!(check(&run(NOISE_MULTIPLIER / 2.0).0, sigma), Err(Doubt::Variance));
    assert_eq!(check(&run(1e-6).0, sigma), Err(Doubt::Variance));
    assert_eq!(check(&run(NOISE_MULTIPLIER * 1.01).0, sigma), Err(Doubt::Variance));
    // No plan can ask for a release without any noise, so this one is made up.
    let silent =
        run(NOISE_MULTIPLIER).0.into_iter().map(|release| vec![0.0; release.len()]).collect::<Vec<_>>();
    assert_eq!(check(&silent, sigma), Err(Doubt::Variance));
}

#[test]
fn t12_noise_that_is_used_twice_or_misses_a_coordinate_does_not_pass() {
    let (honest, sigma) = run(NOISE_MULTIPLIER);
    let mut repeated = honest.clone();
    repeated[5] = repeated[4].clone();
    assert_eq!(check(&repeated, sigma), Err(Doubt::Rounds(4, 5)));
    let mut forgotten = honest.clone();
    forgotten.iter_mut().for_each(|release| release[777] = 0.0);
    assert_eq!(check(&forgotten, sigma), Err(Doubt::Coordinate(777)));
    let mut shared = honest;
    for release in &mut shared {
        for pair in release.chunks_exact_mut(2) {
            pair[1] = pair[0];
        }
    }
    assert_eq!(check(&shared, sigma), Err(Doubt::Neighbours(0)));
}

/// What speaks against independent noise of the claimed size.
#[derive(Debug, PartialEq)]
enum Doubt {
    /// All coordinates of all rounds together have another variance.
    Variance,
    /// One coordinate has too much or too little, over all rounds.
    Coordinate(usize),
    /// Two rounds are correlated.
    Rounds(usize, usize),
    /// In this round neighbouring coordinates are correlated.
    Neighbours(usize),
}

fn check(releases: &[Vec<f64>], sigma: f64) -> Result<(), Doubt> {
    let dimension = releases[0].len();
    let numbers = (releases.len() * dimension) as f64;
    // Chi-square with many degrees of freedom, two-sided.
    let squares: f64 = releases.iter().flatten().map(|x| (x / sigma).powi(2)).sum();
    if (squares - numbers).abs() > QUANTILE * (2.0 * numbers).sqrt() {
        return Err(Doubt::Variance);
    }
    for coordinate in 0..dimension {
        let squares: f64 = releases.iter().map(|release| (release[coordinate] / sigma).powi(2)).sum();
        // Bonferroni over coordinates and tails.
        if smaller_tail(squares, releases.len()) < ALPHA / (2.0 * dimension as f64) {
            return Err(Doubt::Coordinate(coordinate));
        }
    }
    for second in 1..releases.len() {
        for first in 0..second {
            let pairs = releases[first].iter().zip(&releases[second]);
            if is_correlated(pairs, dimension, sigma) {
                return Err(Doubt::Rounds(first, second));
            }
        }
    }
    for (round, release) in releases.iter().enumerate() {
        if is_correlated(release.iter().zip(&release[1..]), dimension - 1, sigma) {
            return Err(Doubt::Neighbours(round));
        }
    }
    Ok(())
}

/// A sum of products of independent normal pairs has mean 0 and variance `count`. Alpha is that of one of the 36 sums.
fn is_correlated<'a>(pairs: impl Iterator<Item = (&'a f64, &'a f64)>, count: usize, sigma: f64) -> bool {
    let products: f64 = pairs.map(|(x, y)| x * y).sum();
    (products / (sigma * sigma)).abs() > QUANTILE * (count as f64).sqrt()
}

/// The smaller tail of the chi-square distribution with an even number of degrees of freedom: a Poisson probability.
fn smaller_tail(statistic: f64, freedom: usize) -> f64 {
    assert!(freedom.is_multiple_of(2));
    let half = statistic / 2.0;
    let mut term = (-half).exp();
    let (mut upper, mut lower) = (0.0, 0.0);
    for k in 0..200 {
        if k < freedom / 2 {
            upper += term;
        } else {
            lower += term;
        }
        term *= half / (k + 1) as f64;
    }
    f64::min(lower, upper)
}

/// Releases of a federation without a network, and the claimed standard deviation.
fn run(noise_multiplier: f64) -> (Vec<Vec<f64>>, f64) {
    let state = tempfile::tempdir().unwrap();
    Authority::open(state.path()).unwrap();
    let mut federation = federation(&file(noise_multiplier, RELEASES), state.path());
    let mut models = vec![federation.model().to_vec()];
    let mut sigma = 0.0;
    for _ in 0..RELEASES {
        let planned = federation.plan(&Contiguous(CLIENTS)).unwrap();
        sigma = claimed(planned.plan.plan());
        let zero = federation.stager().stage(&constant(&planned.plan, 0)).unwrap();
        federation.commit(&zero).unwrap();
        federation.release().unwrap();
        federation.close(Outcome::Degraded { updates: 1, invited: 2 }).unwrap();
        models.push(federation.model().to_vec());
    }
    (releases(&models), sigma)
}

/// What each round added to the model.
fn releases(models: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let difference = |(before, after): (&f32, &f32)| f64::from(*after) - f64::from(*before);
    models.windows(2).map(|pair| pair[0].iter().zip(&pair[1]).map(difference).collect()).collect()
}

const ALPHA: f64 = 1e-6;
/// Of the standard normal distribution, two-sided.
const QUANTILE: f64 = 4.8916;
