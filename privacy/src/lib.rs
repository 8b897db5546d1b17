//! Exact noise, accounting and budgets for differential privacy, on plain vectors.
//!
//! This crate knows no client, round, socket, clock or file.
//!
//! # What is measured
//!
//! A release M is (ε, δ)-differentially private if P[M(x) ∈ E] ≤ e^ε·P[M(y) ∈ E] + δ for every event E and every two
//! *neighbours* x and y (Dwork and Roth, "The algorithmic foundations of differential privacy", 2014, definition 2.4). Who
//! are neighbours is half of the claim: their difference is one [`Unit`](quantities::Unit), a client or an example, which
//! is absent, silent or exchanged in one of them, as the [`Adjacency`](quantities::Adjacency) says. Numbers of different
//! units or adjacencies are never compared.
//!
//! # From an update to a release
//!
//! ```text
//! client   Update ─▶ ClippedUpdate ─▶ QuantizedUpdate ─▶ NoisedUpdate ─ pack ─▶ bytes
//! server   bytes ─ unpack, verify ─▶ Contribution ─▶ Accumulator ─▶ Sum ─ Charge ─▶ Release
//! ```
//!
//! Each arrow is the only way to make what it points at. [`update`] clips in floating point, which nothing relies on, then
//! rounds to the integers of a [`grid`] and tests their norm exactly. [`sum`] adds integers, so its result depends on no
//! order, and opens only to a [`Charge`](budget::Charge) of the [`budget`], with the noise of the [`mechanism`] that was
//! paid for. Where clients hide their updates themselves, [`client_noise`] adds it before anything leaves them, and the
//! sum is released as it is; [`secagg`] lets a server see nothing but the sum. Where there is no sampling, a run may release
//! its sums with the correlated noise of [`matrix`] instead. [`sampler`] draws noise in integers, with the law that
//! [`accounting`] assumes and not one close to it. All randomness comes from the keys of [`prg`].
//!
//! # Why integers
//!
//! The Gaussian mechanism adds σN to a vector that one member can move by at most S (Dwork and Roth, appendix A). In
//! floating point neither half is true: rounding lets a member move the sum by more than its norm (Casacuberta, Shoemate,
//! Vadhan and Wagaman, arXiv 2207.10635), and the low bits of floating-point noise betray what it was added to (Mironov,
//! CCS 2012; Jin, McMurtry, Rubinstein and Ohrimenko, arXiv 2112.05307). Here S is an integer that was tested, and the
//! noise an integer drawn exactly: for whole x, x + ⌊σN⌉ is ⌊x + σN⌉, the continuous mechanism followed by rounding, so
//! its accounting holds as it stands. Shares of noise that clients add are discrete Gaussians, whose sums are almost again
//! ones; what "almost" costs is accounted for ([`accounting::distributed`]).
//!
//! # What a run costs
//!
//! An output y shifts the odds between two neighbours by its privacy loss ln(P(y)/Q(y)), and the losses of releases add up.
//! [`accounting::pld`] convolves their distributions, which is tight, rounds so that ε is never too small, and says by how
//! much it may be too large (Doroshenko, Ghazi, Kamath, Kumar and Manurangsi, arXiv 2207.04380). [`accounting::rdp`] adds
//! Rényi divergences (Mironov, arXiv 1702.07476): looser, but also true where parameters react to what was released
//! ([`accounting::filter`]). [`accounting::analytic`] is exact for Gaussian noise without sampling (Balle and Wang, arXiv
//! 1805.06530). Drawing a sample amplifies privacy against those who cannot see who was drawn, where it was drawn in one of
//! the ways that [`accounting::amplification`] knows, which grants nothing elsewhere. [`planner`] turns the question around,
//! and [`empirical`] measures from below what a run did give away.
//!
//! ```
//! use skep_privacy::accounting::{Accountant, Composition, Event};
//! use skep_privacy::quantities::{Adjacency, Delta, NoiseMultiplier, SamplingRate};
//!
//! // DP-SGD on one machine: a thousand steps on batches of one in a hundred.
//! let step = Event::PoissonGaussian {
//!     rate: SamplingRate::new(0.01)?,
//!     noise_multiplier: NoiseMultiplier::new(1.0)?,
//! };
//! let mut training = Composition::new(Adjacency::AddOrRemove);
//! training.push(step, 1000);
//! let epsilon = training.epsilon(Accountant::Pld, Delta::new(1e-5)?)?;
//! assert!((1.8282..1.8285).contains(&epsilon.get()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised, and against whom
//!
//! Whoever sees only [`Release`](sum::Release)s learns no more of one member than the accounted epsilon and delta allow, if
//! the noise key is secret and fresh, and members are what the unit of the claim says. Nothing is promised against those
//! who see updates before noise, or the key; nor against measuring how long the noise took to draw, which depends a
//! little on it.

pub mod accounting;
pub mod adaptive_clip;
pub mod adversary;
pub mod audit;
pub mod budget;
pub mod canonical;
pub mod client_noise;
pub mod empirical;
pub mod grid;
pub mod individual;
pub mod layer_clip;
pub mod ledger;
pub mod matrix;
pub mod mechanism;
mod norm;
pub mod packing;
pub mod planner;
pub mod prg;
pub mod quantities;
pub mod rotation;
mod rounding;
pub mod sampler;
pub mod secagg;
pub mod spending;
pub mod sum;
pub mod update;
mod vectorize;
