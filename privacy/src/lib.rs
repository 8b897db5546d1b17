//! Exact noise, accounting and budgets for differential privacy, on plain vectors.
//!
//! This crate knows no client, round, socket, clock or file.
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
//! paid for. Where clients hide their updates themselves, [`client_noise`] adds it before anything leaves them, and the sum is
//! released as it is. Where there is no sampling, a run may release its sums with the correlated noise of [`matrix`] instead.
//! [`empirical`] measures what a run gave away, to set beside the claim. [`sampler`] draws noise in integers, with the law that
//! [`accounting`] assumes and not one close to it. All
//! randomness comes from the keys of [`prg`].
//!
//! # Why integers
//!
//! The Gaussian mechanism adds σN to a vector that one member can move by at most S (Dwork and Roth, "The algorithmic
//! foundations of differential privacy", 2014, appendix A). In floating point neither half is true: rounding lets a member
//! move the sum by more than its norm (Casacuberta, Shoemate, Vadhan and Wagaman, arXiv 2207.10635), and the low bits of
//! floating-point noise betray what it was added to (Mironov, CCS 2012; Jin, McMurtry, Rubinstein and Ohrimenko, arXiv
//! 2112.05307). Here S is an integer that was tested, and the noise an integer drawn exactly: for whole x, x + ⌊σN⌉ is
//! ⌊x + σN⌉, the continuous mechanism followed by rounding, so its accounting holds as it stands.
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
pub mod budget;
pub mod client_noise;
pub mod empirical;
pub mod grid;
pub mod layer_clip;
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
