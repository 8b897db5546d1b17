//! The innermost loops of training: one matrix product, on the widest vectors that the processor has.
//!
//! This is the only module of the project with `unsafe` code. Its reason: the product runs at 100 to 115 GFLOP/s on one
//! core with AVX-512, within a tenth of what the core can do, and that is what a round costs. Bounds are tested once a
//! call, from the extents, instead of once an element; everything after that is pointers.
//!
//! Which instructions are used is decided when the program runs, so that a plain release build is the fast one.

mod product;

pub(crate) use product::{Extent, Left, Onto, Out, Right, multiply};

#[cfg(target_arch = "x86_64")]
use pulp::{
    Scalar256b,
    x86::{V3, V4},
};
use pulp::{Simd, WithSimd};

/// Runs `work` compiled for AVX-512, AVX2 or what every processor has, whichever is best here: its plain loops become wide
/// ones. It must be marked `#[inline(always)]`.
#[inline]
pub(crate) fn vectorized<R>(work: impl FnMut() -> R) -> R {
    dispatch(Work(work))
}

/// Whether every value is a finite number. Without an early end the loop is a wide one.
pub(crate) fn are_finite(values: &[f32]) -> bool {
    vectorized(
        #[inline(always)]
        || !values.iter().fold(false, |bad, value| bad | !value.is_finite()),
    )
}

/// A closure that is called by reference: called by value it would go through a function of its own, which is compiled for
/// every processor when it is too long to be inlined.
struct Work<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Runs `op` with the widest vectors that there are here.
#[inline]
fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = V4::try_new() {
            return Simd::vectorize(simd, op);
        }
        if let Some(simd) = V3::try_new() {
            return Simd::vectorize(simd, op);
        }
        Simd::vectorize(Scalar256b, op)
    }
    #[cfg(not(target_arch = "x86_64"))]
    pulp::Arch::new().dispatch(op)
}
