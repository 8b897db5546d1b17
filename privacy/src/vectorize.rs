//! Loops that are compiled twice: for every processor, and for those whose registers hold four doubles.
//!
//! A release is built for any x86-64, which has had AVX2 for a decade but need not. Rust neither reorders nor fuses
//! floating-point operations, so both versions give the same bits, and tests run both. Wider registers than AVX2's were
//! tried and were slower.

/// Defines a function whose body is also compiled for AVX2, and runs that version where the processor has it.
macro_rules! vectorize {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$attribute])*
        $visibility fn $name($($argument: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn portable($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    portable($($argument),*)
                }
                if $crate::vectorize::has_avx2() {
                    // SAFETY: the processor has what the function was compiled for.
                    #[expect(unsafe_code, reason = "no safe call crosses from one set of instructions to another")]
                    return unsafe { avx2($($argument),*) };
                }
            }
            portable($($argument),*)
        }
    };
}
pub(crate) use vectorize;

#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_avx2() -> bool {
    #[cfg(test)]
    if testing::is_portable() {
        return false;
    }
    std::is_x86_feature_detected!("avx2")
}

#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;

    thread_local! { static PORTABLE: Cell<bool> = const { Cell::new(false) } }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_portable() -> bool {
        PORTABLE.get()
    }

    /// What the code for this processor gives, and what the code for every processor gives.
    pub(crate) fn both<T>(compute: impl Fn() -> T) -> [T; 2] {
        [false, true].map(|portable| {
            PORTABLE.set(portable);
            let result = compute();
            PORTABLE.set(false);
            result
        })
    }
}
