//! The matrix product that dense layers and convolutions are made of.
//!
//! ```text
//! out[g, r, c] = onto + scale · Σ over s, d of left[g, r, s, d] · right[s, d, c]
//! ```
//!
//! Rows and depth have two levels each, with any strides, and columns are contiguous. So a convolution needs no copy of
//! its patches: with channels last, the pixels under one row of the kernel lie side by side, and patches of neighbours
//! overlap in memory.
//!
//! A tile of the result is kept in registers while the depth runs (Goto and van de Geijn, "Anatomy of High-Performance
//! Matrix Multiplication", 2008); operands are small enough here to need no packing. Sums run in the order of the depth,
//! in one order on every thread; between processors with different vectors only their grouping by tile differs.
#![expect(unsafe_code, reason = "see the module above: bounds are tested once a call")]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::dispatch;

/// How much is multiplied. Nothing happens where rows or columns are 0; a depth of 0 leaves what the result is added to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Outer level of the rows.
    pub(crate) row_groups: usize,
    /// Rows in a group.
    pub(crate) rows: usize,
    /// Outer level of the depth.
    pub(crate) depth_groups: usize,
    /// Steps of the depth in a group.
    pub(crate) depth: usize,
    /// Columns.
    pub(crate) columns: usize,
}

impl Extent {
    /// A product of two ordinary matrices.
    pub(crate) fn plain(rows: usize, depth: usize, columns: usize) -> Self {
        Extent { row_groups: 1, rows, depth_groups: 1, depth, columns }
    }
}

/// The left factor: where an element lies is linear in its four indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_group: usize,
    pub(crate) row: usize,
    pub(crate) depth_group: usize,
    pub(crate) depth: usize,
}

/// The right factor; its columns are contiguous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) depth_group: usize,
    pub(crate) depth: usize,
}

/// The result; its columns are contiguous, its rows do not overlap.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) row_group: usize,
    pub(crate) row: usize,
}

/// What the product is added to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Onto<'a> {
    /// Zero; what the result held before is not looked at.
    Nothing,
    /// The same numbers in every row, one a column.
    Row(&'a [f32]),
    /// What the result holds.
    Itself,
}

/// Computes the product.
///
/// # Panics
/// If an index of the extent lies outside of a slice: the caller has mixed up two layers.
pub(crate) fn multiply(
    extent: Extent,
    scale: f32,
    left: Left<'_>,
    right: Right<'_>,
    onto: Onto<'_>,
    out: Out<'_>,
) {
    if extent.row_groups * extent.rows * extent.columns > 0 {
        check(&extent, &left, &right, &onto, &out);
        let (out_row_group, out_row) = (out.row_group, out.row);
        let operands = Operands { extent, scale, left, right, onto, out_row_group, out_row };
        dispatch(Product { operands, out });
    }
}

fn check(extent: &Extent, left: &Left<'_>, right: &Right<'_>, onto: &Onto<'_>, out: &Out<'_>) {
    let Extent { row_groups, rows, depth_groups, depth, columns } = *extent;
    let last_row = |group: usize, row: usize| {
        (row_groups - 1).checked_mul(group)?.checked_add((rows - 1).checked_mul(row)?)
    };
    if depth_groups * depth > 0 {
        let last_depth = |group: usize, step: usize| {
            (depth_groups - 1).checked_mul(group)?.checked_add((depth - 1).checked_mul(step)?)
        };
        let last = last_row(left.row_group, left.row)
            .zip(last_depth(left.depth_group, left.depth))
            .and_then(|(row, depth)| row.checked_add(depth));
        assert!(last.is_some_and(|last| last < left.data.len()), "the left factor is too short");
        let last = last_depth(right.depth_group, right.depth).and_then(|last| last.checked_add(columns));
        assert!(last.is_some_and(|last| last <= right.data.len()), "the right factor is too short");
    }
    let last = last_row(out.row_group, out.row).and_then(|last| last.checked_add(columns));
    assert!(last.is_some_and(|last| last <= out.data.len()), "the result is too short");
    assert!(rows == 1 || out.row >= columns, "rows of the result overlap");
    if let Onto::Row(row) = onto {
        assert!(row.len() >= columns, "the row to add to is too short");
    }
}

struct Product<'a> {
    operands: Operands<'a>,
    out: Out<'a>,
}

struct Operands<'a> {
    extent: Extent,
    scale: f32,
    left: Left<'a>,
    right: Right<'a>,
    onto: Onto<'a>,
    out_row_group: usize,
    out_row: usize,
}

/// What a tile adds its sums to.
#[derive(Clone, Copy)]
enum Base {
    Nothing,
    Row(*const f32),
    Itself,
}

/// The depth that a tile runs over.
#[derive(Clone, Copy)]
struct Depth {
    groups: usize,
    steps: usize,
    left_group: usize,
    left: usize,
    right_group: usize,
    right: usize,
}

/// A tile of the result, and where its operands begin.
#[derive(Clone, Copy)]
struct Tile {
    left: *const f32,
    left_row: usize,
    right: *const f32,
    right_end: *const f32,
    out: *mut f32,
    out_row: usize,
    out_end: *const f32,
    base: Base,
    depth: Depth,
    scale: f32,
}

/// Calls a kernel for 1 to 12 rows with its number of rows as a constant.
macro_rules! by_rows {
    ($rows:expr, $kernel:ident, $arguments:tt) => {
        by_rows!(@ $rows, $kernel, $arguments, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    ($rows:expr, $kernel:ident, $vectors:literal, $arguments:tt) => {
        by_rows!(@@ $rows, $kernel, $vectors, $arguments, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $kernel:ident, $arguments:tt, $($count:literal)*) => {
        match $rows { $($count => $kernel::<S, $count> $arguments,)* _ => unreachable!("at most 12 rows") }
    };
    (@@ $rows:expr, $kernel:ident, $vectors:literal, $arguments:tt, $($count:literal)*) => {
        match $rows { $($count => $kernel::<S, $count, $vectors> $arguments,)* _ => unreachable!("at most 12 rows") }
    };
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let out = self.out.data.as_mut_ptr_range();
        let mut column = 0;
        let Extent { rows, columns, .. } = self.operands.extent;
        while column < columns {
            let left = columns - column;
            let vectors = vectors::<S>(left, rows);
            // SAFETY: the caller has checked the extent against all slices.
            unsafe { self.operands.panel(simd, &out, column, vectors) };
            column += (vectors * lanes).min(left);
        }
    }
}

/// Vectors that a tile is wide: with the rows of a tile they must fit the registers.
#[inline(always)]
fn vectors<S: Simd>(columns: usize, rows: usize) -> usize {
    let lanes = S::F32_LANES;
    match S::REGISTER_COUNT >= 32 {
        true if columns >= 4 * lanes && rows > 12 => 4,
        true if columns >= 2 * lanes => 2,
        false if columns >= 2 * lanes => 2,
        _ => 1,
    }
}

/// Rows that a tile of so many vectors is high.
#[inline(always)]
fn height<S: Simd>(vectors: usize) -> usize {
    match (S::REGISTER_COUNT >= 32, vectors) {
        (true, 4) | (false, 2) => 6,
        _ => 12,
    }
}

impl Operands<'_> {
    /// The columns from `column` on that a tile is wide, block after block of the depth.
    ///
    /// # Safety
    /// The extent fits all slices.
    #[inline(always)]
    unsafe fn panel<S: Simd>(&self, simd: S, out: &Range<*mut f32>, column: usize, vectors: usize) {
        let Extent { depth_groups, depth, .. } = self.extent;
        let mut base = match self.onto {
            Onto::Nothing => Base::Nothing,
            // SAFETY: the row has as many numbers as there are columns.
            Onto::Row(row) => Base::Row(unsafe { row.as_ptr().add(column) }),
            Onto::Itself => Base::Itself,
        };
        let (groups_at_once, steps_at_once) = match depth_groups {
            0 | 1 => (1, DEPTH_AT_ONCE),
            _ => ((DEPTH_AT_ONCE / depth.max(1)).max(1), depth.max(1)),
        };
        let mut group = 0;
        loop {
            let groups = groups_at_once.min(depth_groups - group.min(depth_groups));
            let mut step = 0;
            loop {
                let block =
                    Depth { groups, steps: steps_at_once.min(depth - step), ..self.strides_of_depth() };
                // SAFETY: group and step lie in the extent.
                unsafe { self.block(simd, out, [column, group, step], vectors, block, base) };
                base = Base::Itself;
                step += block.steps;
                if step >= depth {
                    break;
                }
            }
            group += groups;
            if group >= depth_groups {
                return;
            }
        }
    }

    fn strides_of_depth(&self) -> Depth {
        Depth {
            groups: 0,
            steps: 0,
            left_group: self.left.depth_group,
            left: self.left.depth,
            right_group: self.right.depth_group,
            right: self.right.depth,
        }
    }

    /// One block of the depth for all rows.
    ///
    /// # Safety
    /// The extent fits all slices, and the block lies in it.
    #[inline(always)]
    unsafe fn block<S: Simd>(
        &self,
        simd: S,
        out: &Range<*mut f32>,
        [column, group, step]: [usize; 3],
        vectors: usize,
        depth: Depth,
        base: Base,
    ) {
        let width = (self.extent.columns - column).min(vectors * S::F32_LANES);
        let (left, right) = (self.left.data.as_ptr_range(), self.right.data.as_ptr_range());
        for row_group in 0..self.extent.row_groups {
            let mut row = 0;
            while row < self.extent.rows {
                let rows = (self.extent.rows - row).min(height::<S>(vectors));
                let at = row_group * self.left.row_group
                    + row * self.left.row
                    + group * self.left.depth_group
                    + step * self.left.depth;
                let at_right = group * self.right.depth_group + step * self.right.depth + column;
                let at_out = row_group * self.out_row_group + row * self.out_row + column;
                let tile = Tile {
                    left: left.start.wrapping_add(at),
                    left_row: self.left.row,
                    right: right.start.wrapping_add(at_right),
                    right_end: right.end,
                    out: out.start.wrapping_add(at_out),
                    out_row: self.out_row,
                    out_end: out.end.cast_const(),
                    base,
                    depth,
                    scale: self.scale,
                };
                // SAFETY: all indices lie in the extent, which fits the slices.
                unsafe {
                    match vectors {
                        _ if width < S::F32_LANES => by_rows!(rows, narrow, (simd, width, tile)),
                        4 => by_rows!(rows, wide, 4, (simd, tile)),
                        2 => by_rows!(rows, wide, 2, (simd, tile)),
                        _ => by_rows!(rows, wide, 1, (simd, tile)),
                    }
                }
                row += rows;
            }
        }
    }
}

/// A tile of whole vectors.
///
/// # Safety
/// The tile's rows, vectors and depth lie in its operands.
#[inline(always)]
unsafe fn wide<S: Simd, const ROWS: usize, const VECTORS: usize>(simd: S, tile: Tile) {
    let lanes = S::F32_LANES;
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    for group in 0..tile.depth.groups {
        let mut left = tile.left.wrapping_add(group * tile.depth.left_group);
        let mut right = tile.right.wrapping_add(group * tile.depth.right_group);
        for _ in 0..tile.depth.steps {
            let mut columns = [simd.splat_f32s(0.0); VECTORS];
            for (at, column) in columns.iter_mut().enumerate() {
                // SAFETY: by contract of the function.
                *column = unsafe { load::<S>(right.wrapping_add(at * lanes)) };
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                // SAFETY: by contract of the function.
                let factor = simd.splat_f32s(unsafe { *left.wrapping_add(row * tile.left_row) });
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = simd.mul_add_e_f32s(factor, column, *sum);
                }
            }
            left = left.wrapping_add(tile.depth.left);
            right = right.wrapping_add(tile.depth.right);
        }
    }
    let scale = simd.splat_f32s(tile.scale);
    for (row, sums) in sums.into_iter().enumerate() {
        for (at, sum) in sums.into_iter().enumerate() {
            let out = tile.out.wrapping_add(row * tile.out_row + at * lanes);
            // SAFETY: by contract of the function.
            unsafe {
                let base = match tile.base {
                    Base::Nothing => simd.splat_f32s(0.0),
                    Base::Row(base) => load::<S>(base.wrapping_add(at * lanes)),
                    Base::Itself => load::<S>(out),
                };
                store::<S>(out, simd.mul_add_e_f32s(scale, sum, base));
            }
        }
    }
}

/// A tile of fewer columns than a vector has lanes, such as the ten classes of a last layer.
///
/// Vectors are read and written whole where what follows in memory belongs to the same slice; the surplus lanes hold
/// nonsense that nobody reads.
///
/// # Safety
/// The tile's rows, `width` columns and depth lie in its operands.
#[inline(always)]
unsafe fn narrow<S: Simd, const ROWS: usize>(simd: S, width: usize, tile: Tile) {
    let mut sums = [simd.splat_f32s(0.0); ROWS];
    for group in 0..tile.depth.groups {
        let mut left = tile.left.wrapping_add(group * tile.depth.left_group);
        let mut right = tile.right.wrapping_add(group * tile.depth.right_group);
        for _ in 0..tile.depth.steps {
            // SAFETY: by contract of the function.
            let column = unsafe { load_some::<S>(simd, right, width, tile.right_end) };
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: by contract of the function.
                let factor = simd.splat_f32s(unsafe { *left.wrapping_add(row * tile.left_row) });
                *sum = simd.mul_add_e_f32s(factor, column, *sum);
            }
            left = left.wrapping_add(tile.depth.left);
            right = right.wrapping_add(tile.depth.right);
        }
    }
    let scale = simd.splat_f32s(tile.scale);
    for (row, sum) in sums.iter_mut().enumerate() {
        // SAFETY: by contract of the function. All rows are read before the first is written, see below.
        let base = unsafe {
            match tile.base {
                Base::Nothing => simd.splat_f32s(0.0),
                Base::Row(base) => load_some::<S>(simd, base, width, base.wrapping_add(width)),
                Base::Itself => {
                    load_some::<S>(simd, tile.out.wrapping_add(row * tile.out_row), width, tile.out_end)
                }
            }
        };
        *sum = simd.mul_add_e_f32s(scale, *sum, base);
    }
    for (row, sum) in sums.into_iter().enumerate() {
        let out = tile.out.wrapping_add(row * tile.out_row);
        let rest = (ROWS - 1 - row) * tile.out_row + width;
        // SAFETY: by contract of the function. The surplus lanes of a whole vector fall on later rows of this tile, which
        // are written afterwards: rows have no gaps between them, and enough of them follow.
        unsafe {
            if tile.out_row == width && rest >= S::F32_LANES {
                store::<S>(out, sum);
            } else {
                let lanes: [f32; MAX_LANES] = widened::<S>(simd, sum);
                std::ptr::copy_nonoverlapping(lanes.as_ptr(), out, width);
            }
        }
    }
}

/// # Safety
/// A vector's worth of numbers is readable.
#[inline(always)]
unsafe fn load<S: Simd>(from: *const f32) -> S::f32s {
    // SAFETY: by contract of the function; every bit pattern is a vector of numbers.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

/// # Safety
/// A vector's worth of numbers is writable.
#[inline(always)]
unsafe fn store<S: Simd>(to: *mut f32, vector: S::f32s) {
    // SAFETY: by contract of the function.
    unsafe { to.cast::<S::f32s>().write_unaligned(vector) }
}

/// A vector whose first `width` lanes are those at `from`. Nothing from `end` on is read.
///
/// # Safety
/// `width` numbers are readable, and so is all from there to `end`.
#[inline(always)]
unsafe fn load_some<S: Simd>(_: S, from: *const f32, width: usize, end: *const f32) -> S::f32s {
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: by contract of the function; no vector has more than MAX_LANES lanes.
    unsafe {
        if from.wrapping_add(S::F32_LANES) <= end {
            return load::<S>(from);
        }
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), width);
        load::<S>(lanes.as_ptr())
    }
}

#[inline(always)]
fn widened<S: Simd>(_: S, vector: S::f32s) -> [f32; MAX_LANES] {
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: no vector has more than MAX_LANES lanes.
    unsafe { store::<S>(lanes.as_mut_ptr(), vector) };
    lanes
}

/// Most numbers in a vector of any processor.
const MAX_LANES: usize = 16;

/// Depth after which the next tile takes over, so that the right factor's rows stay in the cache between two tiles.
/// Part of the result: changing it changes bits.
const DEPTH_AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + salt * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    /// The definition, element by element in f64.
    fn defined(
        extent: Extent,
        scale: f32,
        left: Left<'_>,
        right: Right<'_>,
        onto: Onto<'_>,
        out: &Out<'_>,
    ) -> Vec<f32> {
        let mut result = out.data.to_vec();
        for g in 0..extent.row_groups {
            for r in 0..extent.rows {
                for c in 0..extent.columns {
                    let at = g * out.row_group + r * out.row + c;
                    let mut sum = 0.0;
                    for s in 0..extent.depth_groups {
                        for d in 0..extent.depth {
                            let left_at =
                                g * left.row_group + r * left.row + s * left.depth_group + d * left.depth;
                            let right_at = s * right.depth_group + d * right.depth + c;
                            sum += f64::from(left.data[left_at]) * f64::from(right.data[right_at]);
                        }
                    }
                    let base = match onto {
                        Onto::Nothing => 0.0,
                        Onto::Row(row) => row[c],
                        Onto::Itself => result[at],
                    };
                    result[at] = (f64::from(base) + f64::from(scale) * sum) as f32;
                }
            }
        }
        result
    }

    proptest! {
        /// Strides leave gaps and overlap as they do in convolutions; what lies between rows must stay.
        #[test]
        fn a_product_is_what_its_definition_says(
            (row_groups, rows) in (1..4_usize, 1..30_usize),
            (depth_groups, depth) in (1..4_usize, 0..40_usize),
            columns in prop_oneof![1..20_usize, 60..70_usize, 127..130_usize],
            (gap, overlap, onto, transposed) in (0..3_usize, any::<bool>(), 0..3_u8, any::<bool>()),
        ) {
            let extent = Extent { row_groups, rows, depth_groups, depth, columns };
            let (row, step) = match (overlap, transposed) {
                (true, _) => (2, 1),
                (_, true) => (1, rows + gap),
                _ => (depth + gap, 1),
            };
            let group = rows * row + depth * step;
            let left_data = numbers(group * (row_groups + depth_groups), 1);
            let left = Left { data: &left_data, row_group: group, row, depth_group: group, depth: step };
            let right_data = numbers((depth_groups * (depth + 1)) * (columns + gap), 2);
            let right = Right { data: &right_data, depth_group: (depth + 1) * (columns + gap), depth: columns + gap };
            let bias = numbers(columns, 3);
            let onto = [Onto::Nothing, Onto::Row(&bias), Onto::Itself][usize::from(onto)];
            let out_row = columns + gap;
            let mut data = numbers(row_groups * (rows + 1) * out_row, 4);
            // Nothing may depend on there being more after the last row.
            data.truncate(((row_groups - 1) * (rows + 1) + rows - 1) * out_row + columns);
            let out = Out { data: &mut data, row_group: (rows + 1) * out_row, row: out_row };
            let expected = defined(extent, -0.5, left, right, onto, &out);
            multiply(extent, -0.5, left, right, onto, out);
            for (at, (ours, theirs)) in data.iter().zip(&expected).enumerate() {
                prop_assert!((ours - theirs).abs() < 1e-4, "{extent:?} {gap} at {at}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn an_extent_beyond_a_slice_is_refused() {
        let (left, right) = ([1.0; 6], [1.0; 6]);
        let run = |left: usize, right: usize, out: usize, row: usize| {
            std::panic::catch_unwind(|| {
                let (a, b) = ([1.0; 6], [1.0; 6]);
                let mut c = [0.0; 4];
                multiply(
                    Extent::plain(2, 3, 2),
                    1.0,
                    Left { data: &a[..left], row_group: 0, row: 3, depth_group: 0, depth: 1 },
                    Right { data: &b[..right], depth_group: 0, depth: 2 },
                    Onto::Nothing,
                    Out { data: &mut c[..out], row_group: 0, row },
                );
            })
            .is_ok()
        };
        assert!(run(left.len(), right.len(), 4, 2));
        assert!(!run(5, 6, 4, 2) && !run(6, 5, 4, 2) && !run(6, 6, 3, 2) && !run(6, 6, 4, 1));
    }
}
