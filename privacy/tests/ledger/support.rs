//! Small ledgers.

use std::num::NonZeroU64;

use skep_privacy::ledger::{
    Abort, Amend, Budget, Frames, Genesis, Hash, Ledger, Memory, Mode, Occasion, Participation, PlannedQuery,
    Population, Provenance, PublicKey, Record, Request, ReserveError, Reserved, RoundTerms, Schedule, Settle,
    Signer, Terms,
};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::quantities::{Adjacency, Delta, Epsilon, Sampling, Unit};

pub(crate) fn signer() -> Signer {
    Signer::from_seed(&[1; 32])
}

/// Central noise as scheduled, up to this epsilon at delta 1e-5.
pub(crate) fn terms(scheduled: RoundTerms, limit: f64) -> Terms {
    Terms {
        mode: scheduled.mode,
        budget: Some(Budget {
            unit: Unit::Client,
            adjacency: Adjacency::ZeroOut,
            delta: Delta::new(1e-5).unwrap(),
            limit_release: Epsilon::new(limit).unwrap(),
            limit_server: Epsilon::INFINITE,
        }),
        schedule: Schedule {
            mechanism: scheduled.mechanism,
            sampling: scheduled.sampling,
            rounds: None,
            query: None,
        },
        participation: None,
        examples: None,
    }
}

/// The same with an evaluation after every so many rounds.
pub(crate) fn asking(scheduled: RoundTerms, asked: RoundTerms, every: u64, limit: f64) -> Terms {
    let mut terms = terms(scheduled, limit);
    terms.schedule.query = Some(PlannedQuery {
        occasion: Occasion::Evaluation,
        mechanism: asked.mechanism,
        sampling: asked.sampling,
        every: NonZeroU64::new(every).unwrap(),
    });
    terms
}

pub(crate) fn genesis(terms: Terms) -> Genesis {
    Genesis {
        origin: "skep/test".to_owned(),
        population: Population { root: Hash::of(b"roster"), size: 100 },
        key: PublicKey([0; 32]),
        provenance: Provenance::Simulation,
        terms,
        auditor: None,
        software: "skep test".to_owned(),
    }
}

pub(crate) fn begin(terms: Terms) -> (Ledger, Memory) {
    let memory = Memory::default();
    (Ledger::create(genesis(terms), signer(), Box::new(memory.clone())).unwrap(), memory)
}

pub(crate) fn request(round: u64, terms: RoundTerms) -> Request {
    Request {
        occasion: Occasion::Round,
        round,
        task: Hash::of(b"task"),
        terms,
        model_in: Hash::of(&(round - 1).to_be_bytes()),
        limit: None,
        noise_commitment: None,
    }
}

pub(crate) fn reserve(ledger: &mut Ledger, round: u64, terms: RoundTerms) -> Result<Reserved, ReserveError> {
    ledger.reserve(&request(round, terms), 0..10)
}

pub(crate) fn query(
    ledger: &mut Ledger,
    occasion: Occasion,
    terms: RoundTerms,
) -> Result<Reserved, ReserveError> {
    ledger.reserve(&Request { occasion, round: 0, model_in: Hash::ZERO, ..request(1, terms) }, 0..10)
}

pub(crate) fn settle(ledger: &mut Ledger, reserve: u64) {
    let settle = Settle {
        reserve,
        plan: Hash::of(b"plan"),
        aggregate: Hash::of(b"aggregate"),
        model_out: Hash::of(b"model"),
        updates: Some(9),
        sealed: Vec::new(),
    };
    ledger.settle(settle, None).unwrap();
}

/// Reserves and settles so many rounds.
pub(crate) fn run(ledger: &mut Ledger, terms: RoundTerms, rounds: u64) {
    for round in 1..=rounds {
        let record = reserve(ledger, round, terms).unwrap().record;
        settle(ledger, record);
    }
}

pub(crate) fn records(memory: &Memory) -> Vec<Record> {
    Frames::new(&memory.contents()).unwrap().map(|bytes| Record::read(bytes.unwrap()).unwrap()).collect()
}

/// A ledger with a record of each kind, and their bytes.
pub(crate) fn one_of_each() -> Vec<(Record, Vec<u8>)> {
    let noise = RoundTerms {
        mode: Mode::Central,
        mechanism: Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 4000 },
        sampling: Sampling::All,
    };
    let mut terms = terms(noise, 8.0);
    terms.participation = Some(Participation { max: 20, min_separation: 2 });
    let (mut ledger, memory) = begin(terms);
    run(&mut ledger, noise, 1);
    let lost = ledger.reserve(&request(2, noise), 10..20).unwrap().record;
    ledger.abort(Abort { reserve: lost, reason: "too few updates".to_owned(), refunded: false }).unwrap();
    ledger.seal().unwrap();
    ledger.rotate(Signer::from_seed(&[2; 32])).unwrap();
    ledger
        .amend(Amend { reason: "a new year".to_owned(), epoch: Some(genesis(terms).population), terms })
        .unwrap();
    query(&mut ledger, Occasion::Vocabulary, noise).unwrap();
    let contents = memory.contents();
    Frames::new(&contents)
        .unwrap()
        .map(|bytes| (Record::read(bytes.unwrap()).unwrap(), bytes.unwrap().to_vec()))
        .filter({
            let mut seen = std::collections::BTreeSet::new();
            move |(record, _)| seen.insert(record.body.kind())
        })
        .collect()
}
