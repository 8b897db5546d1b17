//! From the bytes of an upload to an update that may be added: unpacked, in range, its norm tested exactly.

use skep_privacy::client_noise::Contribution;
use skep_privacy::grid::{Grid, PUBLIC_STEP};
use skep_privacy::packing::{PackingError, packed_len, unpack};
use skep_privacy::update::Rejected;
use skep_protocol::experiment::Weighting;
use skep_protocol::round::Refusal;

/// Stages uploads of one federation; a copy may run on any thread.
#[derive(Clone, Copy, Debug)]
pub struct Stager {
    grid: Grid,
    weighting: Weighting,
    masked: bool,
}

/// An upload that may be added to the sum.
#[derive(Clone, Debug, PartialEq)]
pub enum StagedUpdate {
    /// One that the server sees.
    Plain(Contribution),
    /// One under masks, packed: nothing can be tested but its length.
    Masked(Vec<u8>),
}

impl Stager {
    pub(crate) fn new(grid: Grid, weighting: Weighting, masked: bool) -> Self {
        Stager { grid, weighting, masked }
    }

    /// Makes every test of an upload that the sum relies on.
    ///
    /// # Errors
    /// The [`Refusal`] that its sender is told.
    pub fn stage_upload(&self, packed: Vec<u8>) -> Result<StagedUpdate, Refusal> {
        if !self.masked {
            let coordinates = self.unpack(&packed)?;
            drop(packed);
            return self.test(coordinates).map(StagedUpdate::Plain);
        }
        match packed_len(self.grid.dimension(), self.grid.wire_bits()) {
            Some(expected) if expected == packed.len() => Ok(StagedUpdate::Masked(packed)),
            _ => Err(Refusal::WrongLength),
        }
    }

    /// Reads a packed update and makes every test that the sum relies on.
    ///
    /// # Errors
    /// The [`Refusal`] that its sender is told.
    pub fn stage(&self, packed: &[u8]) -> Result<Contribution, Refusal> {
        self.test(self.unpack(packed)?)
    }

    fn unpack(&self, packed: &[u8]) -> Result<Vec<i32>, Refusal> {
        unpack(packed, self.grid.dimension(), self.grid.wire_bits()).map_err(not_packed)
    }

    fn test(&self, coordinates: Vec<i32>) -> Result<Contribution, Refusal> {
        let update = Contribution::verify(coordinates, &self.grid).map_err(rejected)?;
        if self.counts_soundly(update.coordinates()) { Ok(update) } else { Err(Refusal::OutOfRange) }
    }

    fn counts_soundly(&self, coordinates: &[i32]) -> bool {
        match (self.weighting, coordinates) {
            (Weighting::Uniform | Weighting::Controlled, _) => true,
            (Weighting::Examples { .. }, [.., weight]) => (0..=WEIGHT_MAX).contains(weight),
            (Weighting::PerStep { .. }, [.., steps, weight]) => {
                *steps >= 0 && (0..=WEIGHT_MAX).contains(weight)
            }
            (Weighting::ByLoss { .. }, [.., weight]) => *weight >= 0,
            _ => false,
        }
    }
}

fn not_packed(error: PackingError) -> Refusal {
    match error {
        PackingError::Length { .. } => Refusal::WrongLength,
        PackingError::Padding | PackingError::Width { .. } | PackingError::Overflow { .. } => {
            Refusal::Malformed
        }
    }
}

fn rejected(reason: Rejected) -> Refusal {
    match reason {
        Rejected::Dimension { .. } => Refusal::WrongLength,
        Rejected::Range { .. } => Refusal::OutOfRange,
        // Nobody says which grid it was made for.
        Rejected::OtherGrid => Refusal::Malformed,
        Rejected::Norm { .. } => Refusal::NormExceeded,
    }
}

/// A weight of 1, that of the largest client, in steps of the public grid.
const WEIGHT_MAX: i32 = (1.0 / PUBLIC_STEP) as i32;

#[cfg(test)]
mod tests {
    use super::*;
    use skep_privacy::grid::{PrivateGrid, PublicGrid};
    use skep_privacy::packing::pack;
    use skep_privacy::quantities::ClipNorm;

    fn private() -> Grid {
        PrivateGrid::new(ClipNorm::new(1.0).unwrap(), 3, 2).unwrap().into()
    }

    fn staged(grid: Grid, weighting: Weighting, coordinates: &[i32]) -> Result<Contribution, Refusal> {
        Stager::new(grid, weighting, false).stage(&pack(coordinates, grid.wire_bits()).unwrap())
    }

    #[test]
    fn an_update_within_the_sensitivity_is_staged_and_one_beyond_is_refused() {
        let grid = private();
        let bound = i32::try_from(grid.sensitivity().unwrap()).unwrap();
        assert_eq!(staged(grid, Weighting::Uniform, &[bound, 0, 0]).unwrap().coordinates(), [bound, 0, 0]);
        assert_eq!(staged(grid, Weighting::Uniform, &[bound, 1, 0]), Err(Refusal::NormExceeded));
        assert_eq!(staged(grid, Weighting::Uniform, &[0, -bound - 1, 0]), Err(Refusal::OutOfRange));
    }

    #[test]
    fn bytes_that_are_no_packed_update_are_refused() {
        let grid = private();
        let stager = Stager::new(grid, Weighting::Uniform, false);
        let packed = pack(&[0, 0, 0], grid.wire_bits()).unwrap();
        assert_eq!(stager.stage(&packed[1..]), Err(Refusal::WrongLength));
        assert_eq!(stager.stage(&[packed.as_slice(), &[0]].concat()), Err(Refusal::WrongLength));
        let mut padded = packed.clone();
        *padded.last_mut().unwrap() |= 0x80;
        assert_eq!(stager.stage(&padded), Err(Refusal::Malformed));
    }

    #[test]
    fn a_weight_is_between_nothing_and_the_largest_client() {
        let grid = Grid::from(PublicGrid::new(3, 2).unwrap());
        let weighting = Weighting::Examples { max: 10 };
        assert!(staged(grid, weighting, &[5, -5, WEIGHT_MAX]).is_ok());
        assert!(staged(grid, weighting, &[5, -5, 0]).is_ok());
        assert_eq!(staged(grid, weighting, &[5, -5, WEIGHT_MAX + 1]), Err(Refusal::OutOfRange));
        assert_eq!(staged(grid, weighting, &[5, -5, -1]), Err(Refusal::OutOfRange));
        assert!(staged(grid, Weighting::Uniform, &[5, -5, -1]).is_ok());
    }
}
