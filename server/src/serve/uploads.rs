//! Uploads on their way in: a buffer of the granted length with a running digest, that outlives connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::net::frame::Chunk;
use skep_protocol::round::Refusal;
use skep_protocol::{ChannelBinding, Digest, Hasher, Round};

use crate::stage::{StagedUpdate, Stager};

/// A granted upload. The driver keeps it while the grant lives; one connection at a time writes to it.
#[derive(Clone, Debug)]
pub(super) struct Upload(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    round: Round,
    digest: Digest,
    len: usize,
    writer: Option<ChannelBinding>,
    /// None once the upload is whole and was taken out.
    received: Option<(Vec<u8>, Hasher)>,
}

/// What became of a chunk.
#[derive(Debug)]
pub(super) enum Received {
    /// It is stored, or of a transfer that was given up, and more may come.
    More,
    /// It was the last.
    Whole(Whole),
    /// Its sender broke the rules.
    Refused(Refusal),
}

/// The bytes of a whole upload, not yet believed.
#[derive(Debug)]
pub(super) struct Whole {
    /// The round that it was granted in.
    pub(super) round: Round,
    offered: Digest,
    found: Digest,
    bytes: Vec<u8>,
}

impl Upload {
    /// An upload of which nothing has come yet.
    pub(super) fn new(round: Round, len: u64, digest: Digest) -> Self {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Upload(Arc::new(Mutex::new(State {
            round,
            digest,
            len,
            writer: None,
            received: Some((Vec::new(), Hasher::new())),
        })))
    }

    /// Whether this is the upload of these bytes in this round.
    pub(super) fn is(&self, round: Round, digest: &Digest) -> bool {
        let state = lock(&self.0);
        state.round == round && state.digest == *digest
    }

    /// Lets this connection write, and no other; says how many bytes are there already.
    fn resume(&self, writer: ChannelBinding) -> u64 {
        let mut state = lock(&self.0);
        state.writer = Some(writer);
        state.received.as_ref().map_or(state.len, |(bytes, _)| bytes.len()) as u64
    }

    fn receive(&self, writer: ChannelBinding, chunk: &Chunk) -> Received {
        lock(&self.0).receive(writer, chunk)
    }
}

impl State {
    fn receive(&mut self, writer: ChannelBinding, chunk: &Chunk) -> Received {
        if self.writer != Some(writer) || chunk.transfer != self.round.0 {
            return Received::More;
        }
        let Some((bytes, hasher)) = &mut self.received else { return Received::Refused(Refusal::TooLong) };
        if chunk.offset != bytes.len() as u64 {
            return Received::Refused(Refusal::Unexpected);
        }
        if chunk.contents.len() > self.len - bytes.len() {
            return Received::Refused(Refusal::TooLong);
        }
        if bytes.is_empty() {
            // All at once, so that a buffer is never moved; the system gives the pages as they are written.
            bytes.reserve_exact(self.len);
        }
        bytes.extend_from_slice(&chunk.contents);
        hasher.update(&chunk.contents);
        if bytes.len() < self.len {
            return Received::More;
        }
        self.take_whole()
    }

    fn take_whole(&mut self) -> Received {
        let Some((bytes, hasher)) = self.received.take() else { return Received::More };
        let (round, offered) = (self.round, self.digest);
        Received::Whole(Whole { round, offered, found: hasher.finish(), bytes })
    }
}

impl Whole {
    /// Heavy: compares the digest and, where the server sees the update, unpacks it and tests range and norm.
    ///
    /// # Errors
    /// The [`Refusal`] that its sender is told.
    pub(super) fn stage(self, stager: &Stager) -> Result<StagedUpdate, Refusal> {
        if self.found != self.offered {
            return Err(Refusal::DigestMismatch);
        }
        stager.stage_upload(self.bytes)
    }
}

/// Where one connection's chunks go. The driver sets it, the connection's reader uses it.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(Arc<Mutex<Incoming>>);

#[derive(Debug, Default)]
struct Incoming {
    upload: Option<Upload>,
    granted_before: bool,
    /// Bytes that were granted on this connection and have not come: what may still be under way after a grant has
    /// ended.
    allowance: u64,
}

impl Slot {
    /// Grants the connection an upload; says from which offset it must send.
    pub(super) fn open(&self, upload: &Upload, len: u64, connection: ChannelBinding) -> u64 {
        let offset = upload.resume(connection);
        let mut incoming = lock(&self.0);
        let again = incoming.upload.as_ref().is_some_and(|known| Arc::ptr_eq(&known.0, &upload.0));
        if !again {
            incoming.allowance = incoming.allowance.saturating_add(len.saturating_sub(offset));
            incoming.granted_before = true;
            incoming.upload = Some(upload.clone());
        }
        offset
    }

    /// Ends the grant. Chunks that are under way are passed over.
    pub(super) fn close(&self) {
        lock(&self.0).upload = None;
    }

    /// Takes a chunk that came on `connection`.
    pub(super) fn receive(&self, connection: ChannelBinding, chunk: &Chunk) -> Received {
        let mut incoming = lock(&self.0);
        if !incoming.granted_before {
            return Received::Refused(Refusal::Unexpected);
        }
        let Some(left) = incoming.allowance.checked_sub(chunk.contents.len() as u64) else {
            return Received::Refused(Refusal::TooLong);
        };
        incoming.allowance = left;
        match incoming.upload.clone() {
            None => Received::More,
            Some(upload) => {
                drop(incoming);
                upload.receive(connection, chunk)
            }
        }
    }
}

/// No code that holds one of these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Round = Round(7);
    const FIRST: ChannelBinding = ChannelBinding([1; 32]);
    const SECOND: ChannelBinding = ChannelBinding([2; 32]);
    const BYTES: &[u8] = b"0123456789";

    fn chunk(offset: usize, end: usize) -> Chunk {
        chunk_of(ROUND.0, offset as u64, &BYTES[offset..end])
    }

    fn chunk_of(transfer: u64, offset: u64, contents: &[u8]) -> Chunk {
        Chunk { transfer, offset, contents: contents.to_vec().into() }
    }

    fn granted() -> (Upload, Slot) {
        let (upload, slot) = (Upload::new(ROUND, 10, Digest::of(BYTES)), Slot::default());
        assert_eq!(slot.open(&upload, 10, FIRST), 0);
        (upload, slot)
    }

    fn refusal(received: Received) -> Option<Refusal> {
        match received {
            Received::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn an_upload_resumes_on_another_connection_and_the_first_one_is_passed_over() {
        let (upload, first) = granted();
        assert!(matches!(first.receive(FIRST, &chunk(0, 4)), Received::More));
        let second = Slot::default();
        assert_eq!(second.open(&upload, 10, SECOND), 4);
        assert!(matches!(first.receive(FIRST, &chunk(4, 6)), Received::More));
        let Received::Whole(whole) = second.receive(SECOND, &chunk(4, 10)) else { panic!("not whole") };
        assert_eq!((whole.bytes.as_slice(), whole.found, whole.round), (BYTES, Digest::of(BYTES), ROUND));
        assert_eq!(second.open(&upload, 10, SECOND), 10);
    }

    #[test]
    fn more_bytes_than_granted_are_too_long() {
        let (_, slot) = granted();
        let eleven = chunk_of(ROUND.0, 0, &[0; 11]);
        assert_eq!(refusal(slot.receive(FIRST, &eleven)), Some(Refusal::TooLong));
        let (_, slot) = granted();
        assert!(matches!(slot.receive(FIRST, &chunk(0, 10)), Received::Whole(_)));
        assert_eq!(refusal(slot.receive(FIRST, &chunk_of(ROUND.0, 10, b"x"))), Some(Refusal::TooLong));
    }

    #[test]
    fn a_gap_is_refused_and_so_is_a_chunk_that_nobody_asked_for() {
        let (_, slot) = granted();
        assert_eq!(refusal(slot.receive(FIRST, &chunk(1, 2))), Some(Refusal::Unexpected));
        assert_eq!(refusal(Slot::default().receive(FIRST, &chunk(0, 1))), Some(Refusal::Unexpected));
    }

    #[test]
    fn chunks_under_way_when_a_grant_ends_are_passed_over_but_not_without_end() {
        let (upload, slot) = granted();
        slot.close();
        assert!(matches!(slot.receive(FIRST, &chunk(0, 9)), Received::More));
        assert_eq!(refusal(slot.receive(FIRST, &chunk(0, 2))), Some(Refusal::TooLong));
        assert_eq!(upload.resume(FIRST), 0);
    }

    #[test]
    fn a_repeated_offer_does_not_widen_the_allowance() {
        let (upload, slot) = granted();
        for _ in 0..3 {
            slot.open(&upload, 10, FIRST);
        }
        slot.close();
        assert_eq!(refusal(slot.receive(FIRST, &chunk_of(ROUND.0, 0, &[0; 11]))), Some(Refusal::TooLong));
    }
}
