//! How long an audit takes.
//!
//! `cargo bench -p skep-privacy --bench audit [DIR]`; with a directory the ledgers are kept there, for `skep audit` under
//! `/usr/bin/time -v`, which tells the memory.
//!
//! The floor is one SHA-256 of every byte, which `hash` below measures alone. Beside it stand the checksum, the decoding, and
//! for each record one more hash of 65 bytes in the tree; signatures and epsilons do not grow with the number of rounds.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use skep_privacy::audit::{Given, Verdict, audit};
use skep_privacy::ledger::{
    Basis, Body, Budget, Genesis, Hash, MAGIC, Mode, Occasion, Population, Provenance, PublicKey, Record,
    Reserve, RoundTerms, Schedule, Settle, Signer, Terms, frame,
};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::quantities::{Adjacency, Delta, Epsilon, Sampling, SamplingRate, Unit};

fn main() {
    let keep = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for rounds in [1_000, 10_000, 100_000] {
        measure(&format!("{rounds} equal rounds"), &ledger(rounds, 1), keep.as_deref());
    }
    measure("1000 rounds of 300 kinds", &ledger(1_000, 300), keep.as_deref());
}

fn measure(name: &str, contents: &[u8], keep: Option<&str>) {
    let best = |run: &dyn Fn()| {
        let times = (0..3).map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        });
        times.min().expect("three times")
    };
    let given = |every_signature| Given { every_signature, ..Given::default() };
    let audited = best(&|| assert_eq!(black_box(audit(contents, &given(false))).verdict, Verdict::Ok));
    let hashed = best(&|| {
        let _ = black_box(Hash::of(contents));
    });
    let start = Instant::now();
    assert_eq!(audit(contents, &given(true)).verdict, Verdict::Ok);
    let every = start.elapsed();
    println!(
        "{name:<26} {:>9} bytes  audit {audited:>10.1?}  hash {hashed:>10.1?}  every signature {every:>10.1?}",
        contents.len()
    );
    if let Some(directory) = keep {
        let path = Path::new(directory).join(format!("{}.skep", name.replace(' ', "-")));
        std::fs::write(&path, contents).expect("the directory can be written");
    }
}

/// A ledger of so many rounds, of so many kinds. Every stated epsilon is the limit, which is cautious and costs an audit the same.
fn ledger(rounds: u64, kinds: u64) -> Vec<u8> {
    let signer = Signer::from_seed(&[1; 32]);
    let (mut seq, mut previous, mut contents) = (0, Hash::ZERO, MAGIC.to_vec());
    let mut add = |body| {
        let bytes = Record { seq, previous, time_ms: seq, body }.sign(&signer);
        (seq, previous) = (seq + 1, Hash::of_leaf(&bytes));
        contents.extend(frame(&bytes));
    };
    add(genesis());
    for round in 0..rounds {
        let terms = terms(round % kinds);
        let departed = kinds > 1 && round > 0;
        add(Body::Reserve(Reserve {
            occasion: Occasion::Round,
            round: round + 1,
            task: Hash::ZERO,
            mode: terms.mode,
            mechanism: terms.mechanism,
            sampling: terms.sampling,
            basis: if departed { Basis::Filter } else { Basis::Schedule },
            epsilon_release: limit(),
            epsilon_server: Epsilon::INFINITE,
            model_in: model(round),
            cohort: None,
            participants: Hash::ZERO,
            noise_commitment: None,
        }));
        add(Body::Settle(Settle {
            reserve: 2 * round + 1,
            plan: Hash::ZERO,
            aggregate: Hash::ZERO,
            model_out: model(round + 1),
            updates: None,
            sealed: Vec::new(),
        }));
    }
    contents
}

fn genesis() -> Body {
    let RoundTerms { mode, mechanism, sampling } = terms(0);
    Body::Genesis(Genesis {
        origin: "skep/bench".to_owned(),
        population: Population { root: Hash::ZERO, size: 10_000 },
        key: PublicKey(Signer::from_seed(&[1; 32]).key().0),
        provenance: Provenance::Simulation,
        terms: Terms {
            mode,
            budget: Some(Budget {
                unit: Unit::Client,
                adjacency: Adjacency::AddOrRemove,
                delta: Delta::new(1e-6).expect("in range"),
                limit_release: limit(),
                limit_server: Epsilon::INFINITE,
            }),
            schedule: Schedule { mechanism, sampling, rounds: None, query: None },
            participation: None,
            examples: None,
        },
        auditor: None,
        software: "bench".to_owned(),
    })
}

fn terms(kind: u64) -> RoundTerms {
    RoundTerms {
        mode: Mode::Central,
        mechanism: Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 1000 + kind },
        sampling: Sampling::Poisson { rate: SamplingRate::new(0.001).expect("in range") },
    }
}

fn model(round: u64) -> Hash {
    Hash::of(&round.to_be_bytes())
}

fn limit() -> Epsilon {
    Epsilon::new(100.0).expect("in range")
}
