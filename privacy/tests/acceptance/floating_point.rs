//! 14: why noise is drawn in integers.
//!
//! The twin is the Gaussian mechanism as it is usually written: x + σN in doubles. Multiplying by σ leaves holes: of the
//! doubles from 24 to 32, and from any such numbers times a power of two, a third is σN for no double N. Noise without a
//! member never falls into a hole; with a member, the sum is shifted, and does (Mironov, CCS 2012, who found such holes
//! in the Laplace mechanism; Jin, McMurtry, Rubinstein and Ohrimenko, arXiv 2112.05307, in the Gaussian).
//!
//! In each game a coin decides whether a member of norm 1 is in the sum, and the attacker says so from one release. The
//! noise multiplier is 24, so nobody may be right more often than Φ(1/48) = 0.508.

use std::f64::consts::TAU;

use skep_privacy::grid::PrivateGrid;
use skep_privacy::prg::{Key, Prg, Purpose};
use skep_privacy::sum::{Accumulator, Release};
use skep_privacy::update::Update;

use crate::statistics::normal_cdf;
use crate::{clip_norm, release};

const SIGMA: f64 = 24.0;

/// With those of a game, there are a million coordinates.
const GAMES: u64 = 1 << 14;
const COORDINATES: usize = 64;

#[test]
fn t14_a_float_twin_leaks_in_its_low_bits_and_the_exact_path_does_not() {
    let mut prg = Key::from_seed(14).stream();
    let float_twin = games(1, |member, _| falls_into_a_hole(&float_release(member, &mut prg)));
    assert!(float_twin > 0.99, "{float_twin} of the guesses are right");

    let exact = games(2, |member, game| falls_into_a_hole(&exact_release(member, game).decode()));
    assert!(exact < bound(), "{exact} of the guesses are right");
}

/// The attacker sees a million coordinates of either kind beforehand, and learns their low bytes.
#[test]
fn t14_low_bits_of_the_exact_path_teach_nothing() {
    let mut counts = [[1.0_f64; 256]; 2];
    for game in 0..GAMES {
        for member in [false, true] {
            let release = exact_release(member, GAMES * (1 + u64::from(member)) + game);
            low_bytes(&release).for_each(|byte| counts[usize::from(member)][byte] += 1.0);
        }
    }
    let evidence = |byte: usize| (counts[1][byte] / counts[0][byte]).ln();
    let right = games(3, |member, game| {
        low_bytes(&exact_release(member, 3 * GAMES + game)).map(evidence).sum::<f64>() > 0.0
    });
    assert!(right < bound(), "{right} of the guesses are right");
}

/// The share of games in which the attacker guesses right.
fn games(seed: u64, mut guess: impl FnMut(bool, u64) -> bool) -> f64 {
    let mut coin = Key::from_seed(1400 + seed).stream();
    let right = (0..GAMES).filter(|&game| {
        let member = coin.next_u64() >> 63 == 1;
        guess(member, game) == member
    });
    right.count() as f64 / GAMES as f64
}

/// What no attacker exceeds but for a chance of alpha = 3e-7: five standard deviations above Φ(1/48).
fn bound() -> f64 {
    normal_cdf(0.5 / SIGMA) + 2.5 / (GAMES as f64).sqrt()
}

/// The member's update, of norm 1.
fn update() -> Vec<f32> {
    let squares: usize = (1..=COORDINATES).map(|i| i * i).sum();
    (1..=COORDINATES).map(|i| (i as f64 / (squares as f64).sqrt()) as f32).collect()
}

fn float_release(member: bool, prg: &mut Prg) -> Vec<f64> {
    let sum = update().into_iter().map(|x| if member { f64::from(x) } else { 0.0 });
    sum.map(|x| x + SIGMA * normal(prg)).collect()
}

/// A standard normal double by Box and Muller (1958).
fn normal(prg: &mut Prg) -> f64 {
    let mut uniform = || ((prg.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos()
}

fn exact_release(member: bool, game: u64) -> Release {
    let root = Key::from_seed(14);
    let grid = PrivateGrid::new(clip_norm(1.0), COORDINATES, 1).unwrap();
    let mut sum = Accumulator::new(grid.into());
    if member {
        let mut rounding = root.derive(Purpose::Rounding, game, 0).stream();
        let update = Update::new(update()).unwrap().clip(grid.clip());
        sum.add(&update.quantize(&grid, &mut rounding).unwrap()).unwrap();
    }
    release(sum.finish(), &grid, SIGMA, &root.derive(Purpose::Noise, game, 0))
}

/// Whether a coordinate is σN for no double N.
fn falls_into_a_hole(release: &[f64]) -> bool {
    release.iter().any(|&y| {
        let near = y / SIGMA;
        ![near.next_down(), near, near.next_up()].iter().any(|n| SIGMA * n == y)
    })
}

fn low_bytes(release: &Release) -> impl Iterator<Item = usize> {
    release.coordinates().iter().map(|q| usize::from(*q as u8))
}
