//! What a strategy remembers from round to round.

use skep_privacy::canonical::{CanonicalError, Reader, Writer};
use skep_protocol::experiment::Weighting;

/// What a strategy remembers from round to round, beside the model: one number of each kind for each parameter, or none.
///
/// It follows from releases alone, so it is as public as the models. Whoever goes on from a model needs the state after the
/// same round to go on identically.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerState {
    /// The direction that the optimizer is moving in.
    pub(super) first_moment: Vec<f64>,
    /// The squares of what each coordinate has moved.
    pub(super) second_moment: Vec<f64>,
    /// The last aggregate, which the next is clipped around.
    pub(super) centre: Vec<f64>,
    /// The mean of all clients' control variates.
    pub(super) control: Vec<f64>,
}

impl ServerState {
    /// Whether nothing is remembered: before the first round, and with strategies that need nothing.
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|part| part.is_empty())
    }

    /// The canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(DOMAIN);
        for part in self.parts() {
            writer.u64(part.len() as u64);
            for &value in part {
                writer.f64(value);
            }
        }
        writer.finish()
    }

    /// Decodes a canonical encoding.
    ///
    /// # Errors
    /// [`CanonicalError`] for anything but the bytes of [`ServerState::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let mut reader = Reader::new(bytes, DOMAIN)?;
        let mut part = || {
            let len = reader.u64()?;
            // A length that the bytes do not bear out ends at their end, before much is allocated.
            (0..len).map(|_| reader.f64()).collect::<Result<Vec<_>, _>>()
        };
        let state =
            ServerState { first_moment: part()?, second_moment: part()?, centre: part()?, control: part()? };
        reader.finish()?;
        Ok(state)
    }

    /// Whether this is the state of a model with so many parameters.
    pub fn fits(&self, parameters: usize) -> bool {
        self.parts().iter().all(|part| part.is_empty() || part.len() == parameters)
    }

    /// What clients are sent to start from: the model and, where the strategy has control variates, the server's behind it.
    pub(crate) fn beside(&self, model: &[f32], weighting: Weighting) -> Vec<f32> {
        let mut base = model.to_vec();
        if weighting == Weighting::Controlled {
            base.extend(self.control.iter().map(|&value| value as f32));
            base.resize(2 * model.len(), 0.0);
        }
        base
    }

    fn parts(&self) -> [&Vec<f64>; 4] {
        [&self.first_moment, &self.second_moment, &self.centre, &self.control]
    }
}

const DOMAIN: &str = "skep server state v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_bit_for_bit_and_nothing_else_does() {
        let state = ServerState {
            first_moment: vec![0.1, -0.0, 1e-310],
            second_moment: vec![f64::MAX; 3],
            ..ServerState::default()
        };
        let bytes = state.to_bytes();
        let back = ServerState::from_bytes(&bytes).unwrap();
        assert_eq!(back.to_bytes(), bytes);
        assert_eq!(back, state);
        assert_eq!(ServerState::from_bytes(&bytes[..bytes.len() - 1]), Err(CanonicalError::Truncated));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(ServerState::from_bytes(&longer), Err(CanonicalError::LeftOver(1)));
        assert!(state.fits(3) && !state.fits(4) && ServerState::default().fits(4));
    }
}
