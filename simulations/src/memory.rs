//! What simulated clients keep to themselves from round to round.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_privacy::canonical::{CanonicalError, Reader, Writer};
use skep_protocol::ClientId;

/// Some numbers of each client that has taken part: its control variate, or its private layers. Copies are cheap, because they
/// share the numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ClientMemory(BTreeMap<ClientId, Arc<Vec<f32>>>);

impl ClientMemory {
    /// What a client keeps; none of one that has not taken part.
    pub(crate) fn get(&self, client: ClientId) -> Option<&[f32]> {
        self.0.get(&client).map(|numbers| numbers.as_slice())
    }

    /// Replaces what a client keeps.
    pub(crate) fn keep(&mut self, client: ClientId, numbers: Vec<f32>) {
        self.0.insert(client, Arc::new(numbers));
    }

    /// The canonical encoding.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(DOMAIN);
        writer.length(self.0.len());
        for (client, numbers) in &self.0 {
            writer.u64(client.0).length(numbers.len());
            for number in numbers.iter() {
                writer.u32(number.to_bits());
            }
        }
        writer.finish()
    }

    /// Decodes a canonical encoding.
    ///
    /// # Errors
    /// [`CanonicalError`] for anything but the bytes of [`ClientMemory::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let mut reader = Reader::new(bytes, DOMAIN)?;
        let mut memory = ClientMemory::default();
        for _ in 0..reader.length(size_of::<u64>())? {
            let client = ClientId(reader.u64()?);
            let numbers = reader.length(size_of::<f32>())?;
            let numbers = (0..numbers).map(|_| reader.u32().map(f32::from_bits)).collect::<Result<_, _>>()?;
            memory.keep(client, numbers);
        }
        reader.finish()?;
        Ok(memory)
    }
}

const DOMAIN: &str = "skep client memory v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_keep_comes_back_bit_for_bit() {
        let mut memory = ClientMemory::default();
        memory.keep(ClientId(3), vec![1.5, -0.0]);
        memory.keep(ClientId(u64::MAX), vec![f32::MIN_POSITIVE]);
        memory.keep(ClientId(3), vec![2.5, f32::MAX]);
        let bytes = memory.to_bytes();
        assert_eq!(ClientMemory::from_bytes(&bytes), Ok(memory.clone()));
        assert_eq!(memory.get(ClientId(3)), Some(&[2.5, f32::MAX][..]));
        assert_eq!(memory.get(ClientId(4)), None);
        assert!(ClientMemory::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(ClientMemory::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}
