//! Who is invited to a masked round. Its members are told: they choose their share holders from it.

use std::sync::Arc;

use crate::canonical::{CanonicalError, Reader, Writer};
use crate::ids::ClientId;

/// The largest cohort that a plan names; as many ids fit an invitation, wherever in the population they are.
pub const COHORT_MAX: u32 = 50_000;

/// Clients in ascending order, each once; nobody in a round whose cohort its members need not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cohort(Arc<[ClientId]>);

impl Cohort {
    /// The members.
    pub fn clients(&self) -> &[ClientId] {
        &self.0
    }

    /// How many.
    pub fn size(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Whether a client is one of them.
    pub fn contains(&self, client: ClientId) -> bool {
        self.0.binary_search(&client).is_ok()
    }

    /// The number of members, and runs of successive ids: each its distance from the one before, and its length if that is
    /// not 1. A cohort of everybody is one run; one drawn at random takes one to three bytes a member.
    pub(super) fn write(&self, writer: &mut Writer) {
        let mut runs = Vec::new();
        let mut next = 0;
        for run in self.0.chunk_by(|a, b| a.0 + 1 == b.0) {
            let (first, length) = (run[0].0, run.len() as u64);
            let distance = u128::from(first - next) << 1;
            write_number(&mut runs, distance | u128::from(length > 1));
            if length > 1 {
                write_number(&mut runs, u128::from(length - 2));
            }
            // Two apart at least, or it would be the same run.
            next = (first + (length - 1)).saturating_add(2);
        }
        writer.length(self.0.len()).bytes(&runs);
    }

    /// Reads what [`Cohort::write`] wrote; ids twice, or not ascending, cannot be written.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let size = reader.u32()?;
        if size > COHORT_MAX {
            return Err(CanonicalError::OutOfRange("size of the cohort"));
        }
        let mut runs = reader.bytes()?;
        let mut clients: Vec<ClientId> = Vec::with_capacity(size as usize);
        while !runs.is_empty() {
            let head = read_number(&mut runs)?;
            let length = if head & 1 == 1 { read_number(&mut runs)? + 2 } else { 1 };
            let next = clients.last().map_or(0, |last| u128::from(last.0) + 2);
            let (first, room) = (next + (head >> 1), u128::from(size) - clients.len() as u128);
            if length > room || first + length - 1 > u128::from(u64::MAX) {
                return Err(CanonicalError::OutOfRange("members of the cohort"));
            }
            clients.extend((first..first + length).map(|id| ClientId(id as u64)));
        }
        match clients.len() == size as usize {
            true => Ok(Cohort(clients.into())),
            false => Err(CanonicalError::OutOfRange("members of the cohort")),
        }
    }
}

impl FromIterator<ClientId> for Cohort {
    fn from_iter<I: IntoIterator<Item = ClientId>>(clients: I) -> Self {
        let mut clients: Vec<_> = clients.into_iter().collect();
        clients.sort_unstable();
        clients.dedup();
        Cohort(clients.into())
    }
}

/// Seven bits a byte, the low ones first; all but the last byte have their high bit set.
fn write_number(bytes: &mut Vec<u8>, mut number: u128) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// At most 66 bits, in as few bytes as possible.
fn read_number(bytes: &mut &[u8]) -> Result<u128, CanonicalError> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(CanonicalError::Truncated)?;
        *bytes = rest;
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || shift == 0;
            return if shortest { Ok(number) } else { Err(CanonicalError::OutOfRange("number of a run")) };
        }
    }
    Err(CanonicalError::OutOfRange("number of a run"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(cohort: &Cohort) -> Vec<u8> {
        let mut writer = Writer::new("t");
        cohort.write(&mut writer);
        writer.finish()
    }

    fn read(bytes: &[u8]) -> Result<Cohort, CanonicalError> {
        let mut reader = Reader::new(bytes, "t")?;
        let cohort = Cohort::read(&mut reader)?;
        reader.finish()?;
        Ok(cohort)
    }

    fn runs(size: u32, runs: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new("t");
        writer.u32(size).bytes(runs);
        writer.finish()
    }

    #[test]
    fn everybody_is_one_run_and_a_random_cohort_takes_few_bytes() {
        let everybody: Cohort = (0..10_000).map(ClientId).collect();
        assert!(bytes(&everybody).len() <= 5 + 8 + 3);
        // Every hundredth of a million.
        let some: Cohort = (0..10_000).map(|i| ClientId(100 * i)).collect();
        assert!(bytes(&some).len() <= 2 * 10_000 + 20);
        // The largest, from the largest population.
        let step = u64::from(u32::MAX) / u64::from(COHORT_MAX);
        let largest: Cohort = (0..u64::from(COHORT_MAX)).map(|i| ClientId(step * i)).collect();
        assert!(bytes(&largest).len() < 3 * COHORT_MAX as usize + 20);
        for cohort in [everybody, some, largest] {
            assert_eq!(read(&bytes(&cohort)), Ok(cohort));
        }
    }

    #[test]
    fn lists_that_do_not_add_up_are_refused() {
        assert_eq!(read(&runs(2, &[0b11, 0])).unwrap().clients(), [ClientId(1), ClientId(2)]);
        // One more than said, one less, and far too many.
        for (size, list) in [(1, &[0b11, 0][..]), (3, &[0b11, 0]), (3, &[1, 0xff, 0xff, 0x7f])] {
            assert_eq!(read(&runs(size, list)), Err(CanonicalError::OutOfRange("members of the cohort")));
        }
        // A number with a needless byte, and one that does not end.
        assert_eq!(read(&runs(1, &[0x82, 0])), Err(CanonicalError::OutOfRange("number of a run")));
        assert_eq!(read(&runs(1, &[0xff; 11])), Err(CanonicalError::OutOfRange("number of a run")));
        assert_eq!(read(&runs(1, &[0x82])), Err(CanonicalError::Truncated));
        assert_eq!(read(&runs(u32::MAX, &[])), Err(CanonicalError::OutOfRange("size of the cohort")));
    }

    proptest! {
        #[test]
        fn a_cohort_comes_back_from_its_bytes(
            ids in prop::collection::btree_set(prop_oneof![0..50_u64, any::<u64>(), u64::MAX - 9..=u64::MAX], 0..60),
        ) {
            let cohort: Cohort = ids.into_iter().map(ClientId).collect();
            prop_assert_eq!(read(&bytes(&cohort)), Ok(cohort));
        }

        #[test]
        fn bytes_that_are_read_are_the_only_ones(size in 0..40_u32, list in prop::collection::vec(any::<u8>(), 0..12)) {
            let given = runs(size, &list);
            if let Ok(cohort) = read(&given) {
                prop_assert_eq!(bytes(&cohort), given);
            }
        }
    }
}
