//! What an audit found.

use serde::Serialize;

use crate::ledger::{Basis, Hash, Population, Provenance, PublicKey, Terms};
use crate::quantities::{Epsilon, Unit};

/// How an audit ends, by rising gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything that was checked holds.
    Ok,
    /// Nothing is wrong, and nothing is certified: the noise can be computed by others.
    Unverifiable,
    /// The ledger says something about privacy that is not true.
    Mismatch,
    /// More was spent than the limit allows.
    OverBudget,
    /// The file is not what was written, or not the one that was seen before.
    Tampered,
}

impl Verdict {
    /// The exit code of `skep audit`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Mismatch => 1,
            Self::Tampered => 2,
            Self::OverBudget => 3,
            Self::Unverifiable => 4,
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of wrong.
    pub kind: Kind,
    /// The record, counted from 0; none where it is about the whole file.
    pub record: Option<u64>,
    /// What and why, in a sentence.
    pub what: String,
}

/// What kind of wrong something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The file was changed.
    Tampered,
    /// The file ends inside its last record.
    IncompleteLastRecord,
    /// Records that were there are not, or others are in their place.
    RolledBack,
    /// Signed by an unknown key.
    UnknownKey,
    /// The ledger states what is not true.
    Mismatch,
    /// More was spent than the limit allows.
    OverBudget,
    /// The noise can be computed by others.
    Unverifiable,
}

impl Kind {
    /// What it makes of an audit.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Tampered | Self::IncompleteLastRecord | Self::RolledBack | Self::UnknownKey => {
                Verdict::Tampered
            }
            Self::Mismatch => Verdict::Mismatch,
            Self::OverBudget => Verdict::OverBudget,
            Self::Unverifiable => Verdict::Unverifiable,
        }
    }
}

/// An audit.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How it ends.
    pub verdict: Verdict,
    /// Everything that is wrong, in the order of the records.
    pub findings: Vec<Finding>,
    /// What was checked, and what could not be.
    pub checked: Vec<Checked>,
    /// The ledger's name.
    pub origin: Option<String>,
    /// Where its rounds happened.
    pub provenance: Option<Provenance>,
    /// Whose budget it is, at the end.
    pub population: Option<Population>,
    /// The roots of the rosters of all epochs.
    pub rosters: Vec<Hash>,
    /// The program that began it.
    pub software: Option<String>,
    /// The key that began it.
    pub key: Option<Keyed>,
    /// Records that were read.
    pub records: u64,
    /// The Merkle root over them.
    pub root: Option<Hash>,
    /// When the first and the last record were made, in milliseconds since 1970.
    pub times_ms: Option<(u64, u64)>,
    /// Whether somebody's memory of the ledger was compared with it.
    pub rollback: Rollback,
    /// Rounds by how they ended.
    pub rounds: History,
    /// The budget of each epoch.
    pub epochs: Vec<Epoch>,
    /// Of all epochs together, for those who were in all of them; none where they cannot be added.
    pub all_epochs: Option<Summed>,
    /// Rounds for pictures, at most some hundred, spread over the whole.
    pub moments: Vec<Moment>,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Which.
    pub part: Part,
    /// Whether it could be checked.
    pub done: bool,
    /// What came of it, or why it was not.
    pub detail: String,
}

/// The parts of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Numbers, hash chain and root.
    Chain,
    /// Signatures.
    Signatures,
    /// The key at the beginning.
    Key,
    /// An earlier state of the ledger.
    Rollback,
    /// Reserve, settle and abort.
    Pairing,
    /// The schedule.
    Schedule,
    /// How often a client took part.
    Participation,
    /// Each round begins with the model that the one before it released.
    ModelPath,
    /// The stated epsilons.
    Claims,
    /// A model file.
    Model,
    /// A client's own list of participations.
    Store,
    /// The noise itself, as only a privileged auditor can check it.
    Noise,
}

/// The key that began a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keyed {
    /// The key.
    #[serde(serialize_with = "crate::ledger::as_text")]
    pub key: PublicKey,
    /// Its SHA-256.
    pub fingerprint: Hash,
    /// Whether the auditor knew it.
    pub pinned: bool,
}

/// Whether an earlier state was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rollback {
    /// No: a tail that was cut off and a history that was replaced are not seen.
    NotChecked,
    /// Yes, with so many checkpoints.
    Checked(usize),
}

/// Rounds by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// Charged.
    pub reserved: u64,
    /// Of these, queries: statistics, vocabularies and evaluations.
    pub queries: u64,
    /// Released.
    pub settled: u64,
    /// Ended without a release, and charged.
    pub aborted: u64,
    /// Ended before anybody was invited, and not charged.
    pub refunded: u64,
    /// Nothing followed; charged.
    pub orphans: u64,
}

/// The budget of one epoch.
#[derive(Clone, Debug, Serialize)]
pub struct Epoch {
    /// Why it began; none for the first.
    pub reason: Option<String>,
    /// The record that began it.
    pub record: u64,
    /// The terms at its end.
    pub terms: Terms,
    /// Rounds and queries charged.
    pub rounds: u64,
    /// Of these, queries.
    pub queries: u64,
    /// Rounds that were not as scheduled.
    pub off_schedule: u64,
    /// The record of the first charge that was not as scheduled, from which on epsilon follows the Rényi filter.
    pub departed: Option<u64>,
    /// The rule at its end.
    pub basis: Basis,
    /// What its last round states.
    pub claimed: Option<(Epsilon, Epsilon)>,
    /// What was recomputed by the ledger's rule, against recipients and against the server.
    pub recomputed: (Epsilon, Epsilon),
    /// The same by the Rényi accountant.
    pub renyi: (Epsilon, Epsilon),
    /// Claims that were recomputed exactly.
    pub exact_claims: u64,
    /// Claims that were bounded between two exact ones, and how far below the truth one of them can be.
    pub bounded_claims: u64,
    /// See above; 0 when all are exact.
    pub bound: f64,
}

/// All epochs together.
#[derive(Clone, Debug, Serialize)]
pub struct Summed {
    /// Against recipients.
    pub epsilon_release: Epsilon,
    /// Against the server.
    pub epsilon_server: Epsilon,
    /// The delta of both: those of the epochs, added.
    pub delta: f64,
    /// What is hidden.
    pub unit: Unit,
}

/// One round in a picture.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Moment {
    /// The rounds charged so far, over all epochs.
    pub round: u64,
    /// The record.
    pub record: u64,
    /// Its epoch, from 0.
    pub epoch: usize,
    /// Clients invited; none where that is secret.
    pub cohort: Option<u32>,
    /// Noise over sensitivity; none without noise.
    pub noise_multiplier: Option<f64>,
    /// As stated.
    pub claimed: Epsilon,
    /// As recomputed; none where it was only bounded.
    pub recomputed: Option<Epsilon>,
    /// The limit that held.
    pub limit: Option<Epsilon>,
}

impl Report {
    pub(super) fn empty() -> Self {
        Self {
            verdict: Verdict::Ok,
            findings: Vec::new(),
            checked: Vec::new(),
            origin: None,
            provenance: None,
            population: None,
            rosters: Vec::new(),
            software: None,
            key: None,
            records: 0,
            root: None,
            times_ms: None,
            rollback: Rollback::NotChecked,
            rounds: History::default(),
            epochs: Vec::new(),
            all_epochs: None,
            moments: Vec::new(),
        }
    }

    pub(super) fn found(&mut self, kind: Kind, record: Option<u64>, what: impl Into<String>) {
        self.findings.push(Finding { kind, record, what: what.into() });
    }

    pub(super) fn checked(&mut self, part: Part, done: bool, detail: impl Into<String>) {
        self.checked.push(Checked { part, done, detail: detail.into() });
    }

    /// Takes the gravest finding for the verdict.
    pub(super) fn judge(&mut self) {
        self.findings.sort_by_key(|finding| finding.record);
        self.verdict =
            self.findings.iter().map(|finding| finding.kind.verdict()).max().unwrap_or(Verdict::Ok);
    }

    pub(super) fn has(&self, verdict: Verdict) -> bool {
        self.findings.iter().any(|finding| finding.kind.verdict() == verdict)
    }
}
