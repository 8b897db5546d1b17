//! The server's sum: masked until the last step, and readable by nobody before a charge of the budget.

use super::mask::{SignedKey, add_masks};
use super::party::Party;
use super::session::Shape;
use crate::grid::Grid;
use crate::packing::{PackingError, add_packed};
use crate::sum::{Sum, SumError};

/// A running sum of masked updates modulo 2³², of which the low b bits count: four bytes a coordinate, whatever the cohort.
pub struct MaskedSum {
    residues: Vec<u32>,
    shape: Shape,
}

impl MaskedSum {
    /// The empty sum.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self { residues: vec![0; shape.len], shape }
    }

    /// Adds the bytes of a masked update.
    ///
    /// # Errors
    /// [`PackingError`] unless they are as many as the shape says; the sum has not changed.
    pub fn add(&mut self, packed: &[u8]) -> Result<(), PackingError> {
        add_packed(packed, self.shape.bits, &mut self.residues)
    }

    /// Removes masks.
    pub(super) fn unmask(mut self, masks: &[SignedKey], members: u32, liars: Vec<Party>) -> UnmaskedSum {
        add_masks(&mut self.residues, masks, self.shape.generator);
        let unused = 32 - self.shape.bits;
        for residue in &mut self.residues {
            *residue = ((*residue << unused) as i32 >> unused) as u32;
        }
        UnmaskedSum { residues: self.residues, members, bits: self.shape.bits, liars }
    }
}

/// The sum of the survivors' updates, centred. Without a reader of its own: it becomes a [`Sum`].
pub struct UnmaskedSum {
    residues: Vec<u32>,
    members: u32,
    bits: u32,
    liars: Vec<Party>,
}

impl UnmaskedSum {
    /// Updates in the sum.
    #[must_use]
    pub const fn members(&self) -> u32 {
        self.members
    }

    /// Whose revealed shares did not fit the others: it lied, or was lied to by whoever gave them to it. The others made up for it.
    #[must_use]
    pub fn liars(&self) -> &[Party] {
        &self.liars
    }

    /// The sum on its grid.
    ///
    /// # Errors
    /// [`SumError`] when the grid is for other vectors, another modulus or smaller cohorts.
    pub fn into_sum(self, grid: Grid) -> Result<Sum, SumError> {
        if let Some(expected) = grid.modulus_bits().filter(|bits| *bits != self.bits) {
            return Err(SumError::Modulus { expected, found: self.bits });
        }
        Sum::unmasked(grid, &self.residues, self.members)
    }
}
