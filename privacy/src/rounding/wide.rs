//! Unbiased rounding by the first digit of sixteen numbers at once, where the processor has AVX-512.

use std::arch::x86_64::__m512i;

use pulp::NullaryFnOnce;
use pulp::x86::V4;

const LANES: usize = 16;

/// What [`round_by_first_digit`](super::round_by_first_digit) does; `None` on another processor.
pub(super) fn round(
    values: &[f32],
    scale: f64,
    digits: &[u8],
    out: &mut [i32],
    open: &mut [u16],
) -> Option<u64> {
    #[cfg(test)]
    if crate::vectorize::testing::is_portable() {
        return None;
    }
    let simd = V4::try_new()?;
    Some(simd.vectorize(Round { simd, values, scale, digits, out, open }))
}

struct Round<'a> {
    simd: V4,
    values: &'a [f32],
    scale: f64,
    digits: &'a [u8],
    out: &'a mut [i32],
    open: &'a mut [u16],
}

impl NullaryFnOnce for Round<'_> {
    type Output = u64;

    #[inline(always)]
    fn call(self) -> u64 {
        let Round { simd, scale, .. } = self;
        let f = simd.avx512f;
        let (values, values_rest) = self.values.as_chunks::<LANES>();
        let (digits, digits_rest) = self.digits.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        let (open, open_rest) = self.open.split_at_mut(values.len());
        let mut squares = [f._mm512_setzero_si512(); 2];
        for (((values, digits), out), open) in values.iter().zip(digits).zip(out).zip(open) {
            let (rounded, decided) = rounded(simd, values, scale, digits, &mut squares);
            (*out, *open) = (pulp::cast(rounded), !decided);
        }
        let squares = f._mm512_reduce_add_epi64(f._mm512_add_epi64(squares[0], squares[1])) as u64;
        squares + super::round_portably(values_rest, scale, digits_rest, out_rest, open_rest)
    }
}

/// The integers of those that are decided, and which are; adds their squares to those of even and odd lanes.
#[inline(always)]
fn rounded(
    simd: V4,
    values: &[f32; LANES],
    scale: f64,
    digits: &[u8; LANES],
    squares: &mut [__m512i; 2],
) -> (__m512i, u16) {
    let f = simd.avx512f;
    let scale = f._mm512_set1_pd(256.0 * scale);
    let bits: __m512i = pulp::cast(*values);
    let magnitudes = f._mm512_and_si512(bits, f._mm512_set1_epi32(i32::MAX));
    let [low, high]: [std::arch::x86_64::__m256; 2] = pulp::cast(magnitudes);
    let nearest =
        [low, high].map(|half| f._mm512_cvtpd_epi32(f._mm512_mul_pd(f._mm512_cvtps_pd(half), scale)));
    let digits = f._mm512_cvtepu8_epi32(pulp::cast(*digits));
    // n − d
    let apart = f._mm512_sub_epi32(pulp::cast(nearest), digits);
    let decided = f._mm512_test_epi32_mask(apart, f._mm512_set1_epi32(0xfe));
    let sum = f._mm512_add_epi32(apart, f._mm512_set1_epi32(0xff));
    let q = f._mm512_maskz_srli_epi32::<8>(decided, sum);
    let odd = f._mm512_srli_epi64::<32>(q);
    squares[0] = f._mm512_add_epi64(squares[0], f._mm512_mul_epu32(q, q));
    squares[1] = f._mm512_add_epi64(squares[1], f._mm512_mul_epu32(odd, odd));
    let zero = f._mm512_setzero_si512();
    let negative = f._mm512_cmplt_epi32_mask(bits, zero);
    (f._mm512_mask_sub_epi32(q, negative, zero, q), decided)
}
