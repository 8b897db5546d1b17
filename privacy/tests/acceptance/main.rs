//! What has to hold before anything is built on this crate: numbered statements, one test.
//!
//! | number | statement | file |
//! |---|---|---|
//! | 1, 2 | masks are uniform, and hide every sum but the whole | [`secagg`] |
//! | 3 | no seed of a mask travels but sealed or in shares | `src/secagg/adversary/traffic.rs`; with certificates: `tests/tests/malicious_server.rs`; the wire: `tests/tests/masked_tls.rs` |
//! | 4 | masked sums are those of the survivors, exactly, or there is none | [`secagg`] |
//! | 5 to 7 | split views, substituted keys, replays, other models: refused, each by its own name | [`secagg`], `src/secagg/adversary`, `tests/tests/malicious_server.rs` |
//! | 8, 9 | the clip norm finds its quantile; whatever an update holds, its integers are no longer than S | [`clipping`] |
//! | 10, 11 | noise has its law, and the law is all that the generator decides | [`noise`] |
//! | 12 | updates of zeros come back over TLS as the noise that the plan claims | `server/tests/noise.rs` |
//! | 13 | noise in shares is as much as the shares that stay, and small shares are refused | [`shares`]; over TLS: `tests/tests/masked_tls.rs` |
//! | 14 | floating-point noise gives members away by its low bits, exact noise does not | [`floating_point`] |
//! | 15 | rotation is lossless and unbiased, and sums of rotated updates do not wrap | [`rotating`] |
//! | 16 to 20 | epsilon agrees with references and lies in a bracket; nothing amplifies without a proof | [`accounting`], [`golden`] |
//! | 24 | what is seen to be given away bounds epsilon from below, with the confidence stated | [`empirical`] |
//! | 25 | correlated noise is that of its matrix, whose sensitivity is that of the worst pattern | [`matrix`] |
//!
//! Statistical tests name their n and their alpha, the chance that correct code fails them; as seeds are fixed, it either
//! does or does not. `cargo test --release -p skep-privacy --test acceptance t14` runs those of one number.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounting;
mod clipping;
mod empirical;
mod floating_point;
mod golden;
mod matrix;
mod noise;
mod rotating;
mod secagg;
mod shares;
#[path = "../../src/sampler/statistics.rs"]
mod statistics;

use skep_privacy::budget::BudgetKeeper;
use skep_privacy::grid::PrivateGrid;
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::{Key, PrgId};
use skep_privacy::quantities::{ClipNorm, NoiseMultiplier, Sampling};
use skep_privacy::sum::{Release, Sum};

fn clip_norm(norm: f64) -> ClipNorm {
    ClipNorm::new(norm).unwrap()
}

fn noise_multiplier(z: f64) -> NoiseMultiplier {
    NoiseMultiplier::new(z).unwrap()
}

/// Releases a sum with noise z·S, as a server does.
fn release(sum: Sum, grid: &PrivateGrid, z: f64, noise: &Key) -> Release {
    let mechanism = Mechanism::rounded_gaussian(noise_multiplier(z), grid).unwrap();
    let mut budget = BudgetKeeper::without_promise();
    let reservation = budget.reserve(1, mechanism, Sampling::All).unwrap();
    sum.release(budget.settle(reservation), noise, PrgId::ChaCha20).unwrap()
}
