//! Ledgers as an accident, a thief or their own keeper may change them.

use std::ops::RangeInclusive;

use skep_privacy::ledger::{
    Body, Checkpoint, Frames, Hash, Ledger, MAGIC, Note, Record, RoundTerms, Settle, Signer, State, frame,
    rotation_text,
};

use super::support::request;

pub(crate) trait Forgery: Fn(u64, &mut Body) {}
impl<F: Fn(u64, &mut Body)> Forgery for F {}

/// The model that a round of [`path`] releases.
pub(crate) fn model(round: u64) -> Hash {
    Hash::of(&round.to_be_bytes())
}

/// Rounds each of which begins with the model of the one before.
pub(crate) fn path(ledger: &mut Ledger, terms: RoundTerms, rounds: RangeInclusive<u64>) {
    for round in rounds {
        let reserve = ledger.reserve(&request(round, terms), 0..10).unwrap().record;
        let (plan, aggregate, model_out) = (Hash::ZERO, Hash::ZERO, model(round));
        ledger
            .settle(
                Settle { reserve, plan, aggregate, model_out, updates: Some(9), sealed: Vec::new() },
                None,
            )
            .unwrap();
    }
}

/// The records of a file, and where their frames end.
pub(crate) fn pieces(contents: &[u8]) -> (Vec<Vec<u8>>, Vec<usize>) {
    let mut frames = Frames::new(contents).unwrap();
    let (mut pieces, mut ends) = (Vec::new(), Vec::new());
    while let Some(piece) = frames.next() {
        pieces.push(piece.unwrap().to_vec());
        ends.push(frames.offset());
    }
    (pieces, ends)
}

/// A file of these records, with right checksums.
pub(crate) fn with_checksums(pieces: &[Vec<u8>]) -> Vec<u8> {
    pieces.iter().fold(MAGIC.to_vec(), |file, piece| [file, frame(piece)].concat())
}

/// The history as its keeper could have written it: changed, with a right chain and right signatures. From a rotation on
/// the key of the seed 2 signs, as in the honest one.
pub(crate) fn rebuilt(contents: &[u8], keeper: &Signer, change: impl Forgery) -> Vec<u8> {
    let (mut state, mut rebuilt): (Option<State>, Vec<Vec<u8>>) = (None, Vec::new());
    let second = Signer::from_seed(&[2; 32]);
    let mut rotated = false;
    let mut previous = Hash::ZERO;
    for (number, piece) in (0..).zip(pieces(contents).0) {
        let mut record = Record::read(&piece).unwrap();
        record.previous = previous;
        change(number, &mut record.body);
        let current = if rotated { &second } else { keeper };
        match &mut record.body {
            Body::Genesis(genesis) => genesis.key = keeper.key(),
            Body::KeyRotate(rotate) => {
                let text = rotation_text(number, previous, &current.key(), &rotate.key);
                rotate.proof = second.sign(&text);
            }
            Body::Checkpoint(Note { text }) => {
                let state: &State = state.as_ref().unwrap();
                let origin = state.genesis().origin.clone();
                *text = Checkpoint { origin, size: state.size(), root: state.root() }.sign(current);
            }
            _ => {}
        }
        let bytes = record.sign(current);
        rotated |= matches!(record.body, Body::KeyRotate(_));
        previous = Hash::of_leaf(&bytes);
        // A forgery may break the order of records as well; then no checkpoint follows.
        match &mut state {
            None => state = State::begin(&record, previous).ok(),
            Some(state) => drop(state.apply(&record, previous)),
        }
        rebuilt.push(bytes);
    }
    with_checksums(&rebuilt)
}
