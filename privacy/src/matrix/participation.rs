//! How often, and how close together, one member may take part in a run.

use super::MatrixError;

/// Largest k of a [`Participation`].
pub const PARTICIPATIONS_MAX: u32 = u16::MAX as u32;

/// At most k participations, any two of them at least b steps apart ("b-min-separation", arXiv 2306.08153).
///
/// A step is a release: a round that released nothing is not counted. The promise of a run holds for members that kept
/// to this; whoever forms cohorts has to enforce it, with [`Participation::allows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Participation {
    min_separation: u64,
    max_participations: u32,
}

impl Participation {
    /// `min_separation` is b ≥ 1, `max_participations` is k from 1 to [`PARTICIPATIONS_MAX`].
    ///
    /// # Errors
    /// [`MatrixError::MinSeparation`] or [`MatrixError::MaxParticipations`] when an argument is out of range.
    pub const fn new(min_separation: u64, max_participations: u32) -> Result<Self, MatrixError> {
        if min_separation == 0 {
            return Err(MatrixError::MinSeparation);
        }
        if max_participations == 0 || max_participations > PARTICIPATIONS_MAX {
            return Err(MatrixError::MaxParticipations { max_participations });
        }
        Ok(Self { min_separation, max_participations })
    }

    /// Fewest steps from one participation to the next, b; 1 means that a member may take part in every step.
    #[must_use]
    pub const fn min_separation(&self) -> u64 {
        self.min_separation
    }

    /// Most steps of a run in which a member takes part, k.
    #[must_use]
    pub const fn max_participations(&self) -> u32 {
        self.max_participations
    }

    /// Whether a member that took part in the `earlier` steps may take part in `step`.
    #[must_use]
    pub fn allows(&self, earlier: &[u64], step: u64) -> bool {
        earlier.len() < self.max_participations as usize
            && earlier.iter().all(|other| other.abs_diff(step) >= self.min_separation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_comes_back_after_b_steps_and_k_times() {
        let participation = Participation::new(3, 2).unwrap();
        assert!(participation.allows(&[], 0));
        assert!(!participation.allows(&[4], 4));
        assert!(!participation.allows(&[4], 6));
        assert!(!participation.allows(&[4], 2));
        assert!(participation.allows(&[4], 7));
        assert!(participation.allows(&[4], 1));
        assert!(!participation.allows(&[4, 7], 10));
    }

    #[test]
    fn participations_without_meaning_are_refused() {
        assert_eq!(Participation::new(0, 1), Err(MatrixError::MinSeparation));
        for max_participations in [0, 65_536] {
            let refused = Err(MatrixError::MaxParticipations { max_participations });
            assert_eq!(Participation::new(1, max_participations), refused);
        }
        assert!(Participation::new(1, 65_535).is_ok());
    }
}
