//! Scaled dot-product attention of several heads (Vaswani et al., "Attention Is All You Need", 1706.03762, section 3.2).
//!
//! For every head, with Q, K and V its columns of queries, keys and values, P = softmax(Q Kᵀ/√d) over what a position may look
//! at, and the answer is P V. Backwards, with D the gradient of the answer: that of V is Pᵀ D; with S = P ∘ (D Vᵀ − rowsum(P ∘ D Vᵀ))
//! that of Q is S K/√d and that of K is Sᵀ Q/√d.

use super::smooth::softmax;
use crate::kernel::{Extent, Left, Onto, Out, Right, multiply};

/// The attention of sequences of `length` vectors of `width` numbers.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) length: usize,
    pub(super) width: usize,
    /// Divides the width.
    pub(super) heads: usize,
    /// Whether a position looks at itself and those before it only.
    pub(super) causal: bool,
}

/// Queries, keys and values of one sequence, or their gradients.
#[derive(Debug)]
pub(super) struct Projections<T> {
    pub(super) query: T,
    pub(super) key: T,
    pub(super) value: T,
}

#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// `[width of a head, length]`
    transposed: Vec<f32>,
    /// `[length, length]`
    square: Vec<f32>,
    masked: Vec<bool>,
}

impl Attention {
    /// Numbers in P of one sequence: `[heads, length, length]`.
    pub(super) fn shares(&self) -> usize {
        self.heads * self.length * self.length
    }

    fn head_width(&self) -> usize {
        self.width / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// The answer to one sequence, whose word numbers say which positions are none; P is kept in `shares`.
    pub(super) fn forward(
        &self,
        words: &[f32],
        projections: &Projections<&[f32]>,
        shares: &mut [f32],
        answer: &mut [f32],
        scratch: &mut Scratch,
    ) {
        let (length, depth) = (self.length, self.head_width());
        for (head, shares) in shares.chunks_exact_mut(length * length).enumerate() {
            let first = head * depth;
            self.transpose(&projections.key[first..], &mut scratch.transposed);
            multiply(
                Extent::plain(length, depth, length),
                self.scale(),
                self.left(&projections.query[first..]),
                square_right(&scratch.transposed, length),
                Onto::Nothing,
                square_out(shares, length),
            );
            for (row, shares) in shares.chunks_exact_mut(length).enumerate() {
                scratch.masked.clear();
                let later = |at: usize| self.causal && at > row;
                scratch.masked.extend(words.iter().enumerate().map(|(at, word)| *word < 0.0 || later(at)));
                softmax(shares, &scratch.masked);
            }
            multiply(
                Extent::plain(length, length, depth),
                1.0,
                Left { data: shares, row_group: 0, row: length, depth_group: 0, depth: 1 },
                self.right(&projections.value[first..]),
                Onto::Nothing,
                self.out(&mut answer[first..]),
            );
        }
    }

    /// The gradients of one sequence's queries, keys and values, from that of the answer.
    pub(super) fn backward(
        &self,
        projections: &Projections<&[f32]>,
        shares: &[f32],
        gradient: &[f32],
        below: &mut Projections<&mut [f32]>,
        scratch: &mut Scratch,
    ) {
        let (length, depth) = (self.length, self.head_width());
        scratch.square.resize(length * length, 0.0);
        for (head, shares) in shares.chunks_exact(length * length).enumerate() {
            let first = head * depth;
            let turned = |data| Left { data, row_group: 0, row: 1, depth_group: 0, depth: length };
            let product = Extent::plain(length, length, depth);
            multiply(
                product,
                1.0,
                turned(shares),
                self.right(&gradient[first..]),
                Onto::Nothing,
                self.out(&mut below.value[first..]),
            );
            self.transpose(&projections.value[first..], &mut scratch.transposed);
            multiply(
                Extent::plain(length, depth, length),
                1.0,
                self.left(&gradient[first..]),
                square_right(&scratch.transposed, length),
                Onto::Nothing,
                square_out(&mut scratch.square, length),
            );
            for (d, shares) in scratch.square.chunks_exact_mut(length).zip(shares.chunks_exact(length)) {
                let along: f32 = d.iter().zip(shares).map(|(d, share)| d * share).sum();
                d.iter_mut().zip(shares).for_each(|(d, share)| *d = share * (*d - along));
            }
            multiply(
                product,
                self.scale(),
                Left { data: &scratch.square, row_group: 0, row: length, depth_group: 0, depth: 1 },
                self.right(&projections.key[first..]),
                Onto::Nothing,
                self.out(&mut below.query[first..]),
            );
            multiply(
                product,
                self.scale(),
                turned(&scratch.square),
                self.right(&projections.query[first..]),
                Onto::Nothing,
                self.out(&mut below.key[first..]),
            );
        }
    }

    /// The columns of one head, as the left factor.
    fn left<'a>(&self, data: &'a [f32]) -> Left<'a> {
        Left { data, row_group: 0, row: self.width, depth_group: 0, depth: 1 }
    }

    fn right<'a>(&self, data: &'a [f32]) -> Right<'a> {
        Right { data, depth_group: 0, depth: self.width }
    }

    fn out<'a>(&self, data: &'a mut [f32]) -> Out<'a> {
        Out { data, row_group: 0, row: self.width }
    }

    /// The columns of one head as rows.
    fn transpose(&self, columns: &[f32], into: &mut Vec<f32>) {
        let (length, depth) = (self.length, self.head_width());
        into.resize(length * depth, 0.0);
        for (at, row) in columns.chunks(self.width).enumerate() {
            for (column, &value) in row[..depth].iter().enumerate() {
                into[column * length + at] = value;
            }
        }
    }
}

fn square_right(data: &[f32], length: usize) -> Right<'_> {
    Right { data, depth_group: 0, depth: length }
}

fn square_out(data: &mut [f32], length: usize) -> Out<'_> {
    Out { data, row_group: 0, row: length }
}
