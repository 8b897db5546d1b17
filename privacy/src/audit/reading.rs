//! Reading a ledger as an auditor: nothing in it is believed that can be checked.

use std::collections::{BTreeMap, BTreeSet};

use super::Given;
use super::report::{Keyed, Kind, Part, Report, Rollback, Verdict};
use crate::ledger::{
    Basis, Body, Disorder, FrameError, Frames, Hash, Occasion, PlannedQuery, Provenance, PublicKey, Record,
    Reserve, RoundTerms, SignedCheckpoint, State, is_signed_by,
};
use crate::quantities::Epsilon;

/// A ledger that was read, up to the first record that makes no sense.
pub(super) struct Read {
    pub(super) report: Report,
    pub(super) state: Option<State>,
    pub(super) charges: Vec<Charged>,
    /// Why each epoch began, with its record.
    pub(super) epochs: Vec<(Option<String>, u64)>,
    /// The last release of the model that the auditor has: the record that says so, and the place in `charges` of what paid.
    pub(super) release: Option<(u64, usize)>,
    /// The charge that was taken back, by place in `charges`.
    pub(super) refunded: BTreeSet<usize>,
}

/// A reserve record, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charged {
    pub(super) record: u64,
    pub(super) epoch: usize,
    pub(super) occasion: Occasion,
    pub(super) terms: RoundTerms,
    pub(super) basis: Basis,
    /// Whether it counts as one of the queries that the schedule has.
    pub(super) asked: bool,
    /// The query that the schedule has.
    pub(super) scheduled: Option<PlannedQuery>,
    pub(super) cohort: Option<u32>,
    pub(super) release: Epsilon,
    pub(super) server: Epsilon,
    pub(super) limits: Option<(Epsilon, Epsilon)>,
}

/// Reads everything and checks all but the epsilons.
pub(super) fn read(contents: &[u8], given: &Given) -> Read {
    let mut reader = Reading {
        given,
        read: Read {
            report: Report::empty(),
            state: None,
            charges: Vec::new(),
            epochs: Vec::new(),
            release: None,
            refunded: BTreeSet::new(),
        },
        wanted: checkpoints(given),
        last: None,
        signatures: 0,
        open: BTreeMap::new(),
        paths: BTreeMap::new(),
        runs: 0,
        last_note: None,
    };
    reader.frames(contents);
    reader.finish();
    reader.read
}

struct Reading<'a> {
    given: &'a Given,
    read: Read,
    /// Checkpoints to compare, with their names and, once the ledger is that long, its root there.
    wanted: Vec<Wanted>,
    /// The record before: its bytes and the key that should have signed it.
    last: Option<(&'a [u8], PublicKey)>,
    signatures: u64,
    /// Charges that have not ended, by record: their place in `charges`, and of rounds their task.
    open: BTreeMap<u64, (usize, Option<Hash>)>,
    /// Of each task, the model that its next round begins with.
    paths: BTreeMap<Hash, Hash>,
    runs: u64,
    /// The last checkpoint inside the ledger, and the key that should have signed it.
    last_note: Option<(u64, String, PublicKey)>,
}

struct Wanted {
    name: String,
    note: Result<SignedCheckpoint, String>,
    /// The ledger's root at that size, with the key that then signed.
    found: Option<(Hash, PublicKey)>,
}

fn checkpoints(given: &Given) -> Vec<Wanted> {
    let in_model =
        given.model.iter().filter_map(|model| Some(("the model file".to_owned(), model.checkpoint.clone()?)));
    given
        .checkpoints
        .iter()
        .cloned()
        .chain(in_model)
        .map(|(name, note)| Wanted {
            name,
            note: SignedCheckpoint::parse(&note).map_err(|error| error.to_string()),
            found: None,
        })
        .collect()
}

impl<'a> Reading<'a> {
    fn frames(&mut self, contents: &'a [u8]) {
        let frames = match Frames::new(contents) {
            Ok(frames) => frames,
            Err(error) => return self.unreadable(error),
        };
        for (number, bytes) in (0..).zip(frames) {
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(error) => return self.unreadable(error),
            };
            let record = match Record::read(bytes) {
                Ok(record) => record,
                Err(error) => {
                    return self.read.report.found(
                        Kind::Tampered,
                        Some(number),
                        format!("record {number} cannot be read: {error}"),
                    );
                }
            };
            if !self.record(number, &record, bytes) {
                return;
            }
        }
    }

    fn unreadable(&mut self, error: FrameError) {
        let (kind, record) = match error {
            FrameError::Header => (Kind::Tampered, None),
            FrameError::Incomplete { record, .. } => (Kind::IncompleteLastRecord, Some(record)),
            FrameError::Damaged { record, .. } => (Kind::Tampered, Some(record)),
        };
        self.read.report.found(kind, record, error.to_string());
    }

    /// Takes one record; false when nothing after it can make sense.
    fn record(&mut self, number: u64, record: &Record, bytes: &'a [u8]) -> bool {
        let hash = Hash::of_leaf(bytes);
        let named = match &record.body {
            Body::Genesis(genesis) => Some(genesis.key),
            _ => None,
        };
        let signer = self.read.state.as_ref().map(State::key).or(named);
        let applied = match &mut self.read.state {
            None => State::begin(record, hash).map(|state| self.read.state = Some(state)),
            Some(state) => state.apply(record, hash),
        };
        if let Err(disorder) = applied {
            self.disordered(number, bytes, signer, &disorder);
            return false;
        }
        let Some(state) = &self.read.state else { return false };
        // A genesis record is signed by the key that it names, a rotation by the key before it.
        let Some(signer) = signer else { return false };
        let time = record.time_ms;
        let times = self.read.report.times_ms.get_or_insert((time, time));
        times.1 = time;
        let (size, root, key) = (state.size(), state.root(), state.key());
        for wanted in &mut self.wanted {
            if wanted.note.as_ref().is_ok_and(|note| note.unverified().size == size) {
                wanted.found = Some((root, key));
            }
        }
        self.last = Some((bytes, signer));
        let handed_over = matches!(record.body, Body::Genesis(_) | Body::KeyRotate(_));
        if self.given.every_signature || handed_over {
            self.signature(number, bytes, signer);
        }
        self.body(number, &record.body, signer);
        true
    }

    /// A record that cannot follow: says which of it and the one before was changed, if a signature tells.
    fn disordered(&mut self, number: u64, bytes: &[u8], signer: Option<PublicKey>, disorder: &Disorder) {
        let report = &mut self.read.report;
        let before = self.last.take();
        if let (Disorder::Chain, Some((before, key))) = (disorder, before)
            && !is_signed_by(before, &key)
        {
            let what = format!(
                "record {} was changed: its signature does not hold, and record {number} does not follow it",
                number - 1
            );
            return report.found(Kind::Tampered, Some(number - 1), what);
        }
        if signer.is_none_or(|key| !is_signed_by(bytes, &key)) {
            let what = format!("record {number} was changed: its signature does not hold, and {disorder}");
            return report.found(Kind::Tampered, Some(number), what);
        }
        let kind = match disorder {
            Disorder::Basis { .. } | Disorder::Terms(_) | Disorder::TooMany { .. } | Disorder::Revealed => {
                Kind::Mismatch
            }
            _ => Kind::Tampered,
        };
        report.found(kind, Some(number), format!("record {number} is out of order: {disorder}"));
    }

    fn signature(&mut self, number: u64, bytes: &[u8], key: PublicKey) {
        self.signatures += 1;
        if !is_signed_by(bytes, &key) {
            self.read.report.found(
                Kind::Tampered,
                Some(number),
                format!("record {number} is not signed by the ledger's key {}", key.fingerprint()),
            );
        }
    }

    fn body(&mut self, number: u64, body: &Body, signer: PublicKey) {
        match body {
            Body::Genesis(genesis) => {
                self.read.epochs.push((None, number));
                let report = &mut self.read.report;
                report.origin = Some(genesis.origin.clone());
                report.rosters.push(genesis.population.root);
                report.provenance = Some(genesis.provenance);
                report.software = Some(genesis.software.clone());
                if genesis.provenance == Provenance::SeededSimulation {
                    report.found(
                        Kind::Unverifiable,
                        Some(number),
                        "the ledger is of a run with a seed: whoever knows the seed can subtract the noise",
                    );
                }
            }
            Body::Reserve(reserve) => self.reserve(number, reserve),
            Body::Settle(settle) => {
                self.read.report.rounds.settled += 1;
                if let Some((charge, Some(task))) = self.open.remove(&settle.reserve) {
                    if self.given.model.as_ref().is_some_and(|model| model.digest == settle.model_out) {
                        self.read.release = Some((number, charge));
                    }
                    self.paths.insert(task, settle.model_out);
                }
            }
            Body::Abort(abort) => {
                let (rounds, open) = (&mut self.read.report.rounds, self.open.remove(&abort.reserve));
                if abort.refunded {
                    rounds.refunded += 1;
                    self.read.refunded.extend(open.map(|(charge, _)| charge));
                } else {
                    rounds.aborted += 1;
                }
            }
            Body::Checkpoint(note) => {
                self.last_note = Some((number, note.text.clone(), signer));
                if self.given.every_signature {
                    self.note();
                }
            }
            Body::KeyRotate(_) => {}
            Body::Amend(amend) => {
                if let Some(population) = amend.epoch {
                    self.read.report.rosters.push(population.root);
                    self.read.epochs.push((Some(amend.reason.clone()), number));
                }
            }
        }
    }

    fn reserve(&mut self, number: u64, reserve: &Reserve) {
        let Some(state) = &self.read.state else { return };
        let account = state.account();
        let budget = account.terms().budget;
        let task = reserve.occasion.is_round().then_some(reserve.task);
        self.open.insert(number, (self.read.charges.len(), task));
        self.read.charges.push(Charged {
            record: number,
            epoch: self.read.epochs.len() - 1,
            occasion: reserve.occasion,
            terms: RoundTerms::from(reserve),
            basis: reserve.basis,
            asked: state.is_asked(number),
            scheduled: account.terms().schedule.query,
            cohort: reserve.cohort,
            release: reserve.epsilon_release,
            server: reserve.epsilon_server,
            limits: budget.map(|budget| (budget.limit_release, budget.limit_server)),
        });
        self.read.report.rounds.reserved += 1;
        if !reserve.occasion.is_round() {
            self.read.report.rounds.queries += 1;
            return;
        }
        let before = self.paths.insert(reserve.task, reserve.model_in);
        if before != Some(reserve.model_in) {
            self.runs += 1;
            if before.is_some() && reserve.round != 1 {
                let what = format!(
                    "round {} in record {number} begins with a model that no round before it released",
                    reserve.round
                );
                self.read.report.found(Kind::Mismatch, Some(number), what);
            }
        }
    }

    fn note(&mut self) {
        let Some((number, note, key)) = self.last_note.take() else { return };
        self.signatures += 1;
        let verified = SignedCheckpoint::parse(&note).is_ok_and(|note| note.verify(&key).is_ok());
        if !verified {
            let what = format!("the checkpoint in record {number} is not signed by the ledger's key");
            self.read.report.found(Kind::Tampered, Some(number), what);
        }
    }

    fn finish(&mut self) {
        self.last_signatures();
        let complete = !self.read.report.has(Verdict::Tampered);
        let Some(state) = self.read.state.take() else {
            if self.read.report.findings.is_empty() {
                self.read.report.found(Kind::IncompleteLastRecord, Some(0), "the ledger has no records");
            }
            return;
        };
        let report = &mut self.read.report;
        report.records = state.size();
        report.root = Some(state.root());
        report.population = Some(state.population());
        report.rounds.orphans = state.open().count() as u64;
        let whole = if complete { "every record follows the one before it" } else { "see the findings" };
        report.checked(Part::Chain, complete, format!("{} records; {whole}", state.size()));
        let all =
            if self.given.every_signature { "every record and checkpoint" } else { "each key's last record" };
        let detail =
            format!("{} signatures: {all}, which by the chain vouches for those before it", self.signatures);
        report.checked(Part::Signatures, complete, detail);
        self.key(state.genesis().key);
        self.rollback(&state, complete);
        let report = &mut self.read.report;
        let rounds = report.rounds;
        report.checked(
            Part::Pairing,
            true,
            format!(
                "{} {} charged: {} released, {} aborted and charged, {} charged with no end, {} taken back because \
                 nobody was invited",
                rounds.reserved,
                if rounds.queries == 0 { "rounds" } else { "rounds and queries" },
                rounds.settled, rounds.aborted, rounds.orphans, rounds.refunded
            ),
        );
        let broken = report.findings.iter().any(|finding| finding.kind == Kind::Mismatch);
        let runs = if self.runs == 1 {
            "1 run, a path".to_owned()
        } else {
            format!("{} runs, each a path", self.runs)
        };
        let detail = format!("{runs} from its first model through every release");
        report.checked(Part::ModelPath, !broken, detail);
        self.read.state = Some(state);
    }

    /// The last record and the last checkpoint vouch for everything before them.
    fn last_signatures(&mut self) {
        self.note();
        if self.given.every_signature {
            return;
        }
        let (Some((bytes, key)), Some(state)) = (self.last, &self.read.state) else { return };
        self.signature(state.size() - 1, bytes, key);
    }

    fn key(&mut self, key: PublicKey) {
        let report = &mut self.read.report;
        let pinned = self.given.keys.contains(&key);
        let fingerprint = key.fingerprint();
        report.key = Some(Keyed { key, fingerprint, pinned });
        if pinned {
            report.checked(Part::Key, true, format!("the ledger began with the given key, {fingerprint}"));
        } else if self.given.keys.is_empty() {
            let detail = format!(
                "no key was given, so the key is not pinned: compare its fingerprint {fingerprint} with the operator's"
            );
            report.checked(Part::Key, false, detail);
        } else {
            let what = format!("the ledger began with the key {fingerprint}, which is none of those given");
            report.found(Kind::UnknownKey, Some(0), what);
        }
    }

    fn rollback(&mut self, state: &State, complete: bool) {
        let report = &mut self.read.report;
        if self.wanted.is_empty() {
            let detail = "rollback was not checked: without a checkpoint that was kept, or a model file, a tail that was \
                          cut off or a history that was replaced is not seen";
            return report.checked(Part::Rollback, false, detail);
        }
        for wanted in &self.wanted {
            let name = &wanted.name;
            let note = match &wanted.note {
                Ok(note) => note,
                Err(error) => {
                    report.found(Kind::RolledBack, None, format!("{name}: {error}"));
                    continue;
                }
            };
            let checkpoint = note.unverified();
            let size = checkpoint.size;
            match wanted.found {
                // Where reading stopped early, that is the finding.
                None if !complete => {}
                None => report.found(
                    Kind::RolledBack,
                    Some(state.size()),
                    format!(
                        "records {} to {} are missing: {name} was made when the ledger had {size} records, and it has {}",
                        state.size(),
                        size.saturating_sub(1),
                        state.size()
                    ),
                ),
                Some((root, key)) => {
                    if note.verify(&key).is_err() {
                        let what = format!("{name} is not signed by the key that kept the ledger at record {}", size - 1);
                        report.found(Kind::RolledBack, Some(size - 1), what);
                    } else if checkpoint.root != root || checkpoint.origin != state.genesis().origin {
                        let what = format!(
                            "the history up to record {} is another than the one that {name} was made of",
                            size - 1
                        );
                        report.found(Kind::RolledBack, Some(size - 1), what);
                    }
                }
            }
        }
        report.rollback = Rollback::Checked(self.wanted.len());
        let names: Vec<&str> = self.wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        report.checked(Part::Rollback, true, format!("compared with {}", names.join(" and ")));
    }
}
