//! The ledger: a signed, hash-chained list of what was spent, which comes first and can be checked by anyone.
//!
//! A budget belongs to a population and its data, not to a process or a run. A round is charged in the ledger, and the
//! charge is where it is to stay, before anybody is invited: [`Ledger::reserve`] hands out a [`Reservation`] only when
//! [`Storage::append`] has returned. Without one there is no signed plan, and without the [`Charge`] made of it no sum
//! is opened. What is spent is computed from the records, never from a total that was kept.
//!
//! | file | what it is about |
//! | --- | --- |
//! | `frame` | records in a file, and a last one that is incomplete |
//! | `record` | the kinds of records and their canonical bytes |
//! | `terms` | population, budget, schedule |
//! | `account` | what an epoch has spent, and by which rule |
//! | `attendance` | how often each client took part |
//! | `state` | which record may follow which |
//! | `merkle`, `note` | one hash for all records, and signed statements of it |
//! | `key` | what signs |
//! | `sealed` | what only an auditor can open |
//!
//! This module does no input or output: whoever keeps a ledger implements [`Storage`].

pub mod account;
mod attendance;
mod frame;
mod key;
mod merkle;
mod note;
mod record;
mod sealed;
mod state;
mod terms;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use thiserror::Error;

use crate::adversary::Adversary;
use crate::budget::{BudgetExhausted, Charge, Reservation};
use crate::canonical::CanonicalError;
use crate::mechanism::Mechanism;
use crate::quantities::{Epsilon, Sampling};

pub use account::{Account, Price, RoundTerms};
pub use attendance::{Attendance, Attended, Excess, cohorts, replay_attendance};
pub use frame::{FrameError, Frames, MAGIC, MAX_RECORD, frame};
pub use key::{ParticipantsKey, PublicKey, SIGNATURE_BYTES, Signer};
pub use merkle::{Frontier, Hash, Tree, is_consistent, is_included, root_of};
pub use note::{Checkpoint, NoteError, SignedCheckpoint, parse_key, verifier_key};
pub(crate) use record::as_text;
pub use record::{
    Abort, Amend, Auditor, Basis, Body, Genesis, KeyRotate, Note, Occasion, Record, Reserve, Settle,
    follow_rotations, is_signed_by, rotation_text,
};
pub use sealed::{AuditorSecret, Opened, Recipient, commitment};
pub use state::{Disorder, State};
pub use terms::{
    Budget, ExampleTerms, Mode, Participation, PlannedQuery, Population, Provenance, Schedule, Terms,
    examples_text, mechanism_text, noise_of_round, query_text, read_sampling, write_sampling,
};

/// Where records go, and what time it is there.
pub trait Storage: Send {
    /// Appends bytes behind everything that was appended before, and returns when they are as safe as this storage
    /// promises to keep them.
    ///
    /// # Errors
    /// [`StorageError`]; a part of the bytes may then be there.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Keeps what the record of this number is about and does not hold itself.
    ///
    /// # Errors
    /// [`StorageError`].
    fn keep(&mut self, record: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Appends bytes to the list of cohorts, as safely as a record. Nobody else may read them.
    ///
    /// # Errors
    /// [`StorageError`].
    fn keep_cohort(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// The list of cohorts.
    ///
    /// # Errors
    /// [`StorageError`].
    fn cohorts(&mut self) -> Result<Vec<u8>, StorageError>;

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// Why bytes were not stored.
pub type StorageError = Box<dyn std::error::Error + Send + Sync>;

/// Why a ledger cannot be opened or continued.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A record was not stored. It may be on disk or not: nothing more is written until the ledger is opened again.
    #[error("the ledger cannot be written, and nothing is reserved any more: {0}")]
    Storage(#[source] StorageError),
    /// An earlier record was not stored.
    #[error("the ledger could not be written before; it must be opened again")]
    Broken,
    /// The file has no readable record where one should be.
    #[error("the ledger cannot be read: {0}")]
    Frame(#[from] FrameError),
    /// A record is not what records are.
    #[error("record {record} of the ledger cannot be read: {reason}")]
    Record {
        /// Its number.
        record: u64,
        /// Why not.
        reason: CanonicalError,
    },
    /// A record that cannot follow those before it.
    #[error("record {record} of the ledger is out of order: {disorder}")]
    Disorder {
        /// Its number.
        record: u64,
        /// Why.
        disorder: Disorder,
    },
    /// There is no record at all.
    #[error("the ledger has no records")]
    Empty,
    /// The last record was signed by another key, so this one may not go on.
    #[error("the ledger is kept by the key {expected}, but this process has {found}")]
    Key {
        /// Of the ledger.
        expected: PublicKey,
        /// Of the process.
        found: PublicKey,
    },
    /// Participation limits hold, and who took part in an earlier round is not known.
    #[error(
        "the list of who was invited, beside the ledger, {problem}; without it the participation limits cannot be kept: restore \
         it, or begin a new epoch"
    )]
    Cohorts {
        /// What is wrong with it.
        problem: String,
    },
    /// The last record's signature does not hold.
    #[error("the signature of record {record} of the ledger does not hold")]
    Signature {
        /// Its number.
        record: u64,
    },
}

/// Why a round was not reserved.
#[derive(Debug, Error)]
pub enum ReserveError {
    /// It would exceed the budget. Nothing was charged.
    #[error(transparent)]
    Budget(#[from] BudgetExhausted),
    /// A client may not be invited to it. Nothing was charged.
    #[error("client {client} may not be invited: {excess}")]
    Participation {
        /// The first such client.
        client: u64,
        /// Why not.
        excess: Excess,
    },
    /// The ledger cannot be continued.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A round, or a query, that is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// What it is for.
    pub occasion: Occasion,
    /// The round, as the run counts; of a query, the last round before it, and 0 before the first.
    pub round: u64,
    /// The digest of the task.
    pub task: Hash,
    /// What privacy depends on.
    pub terms: RoundTerms,
    /// The digest of the model that clients start from; [`Hash::ZERO`] for a query about no model.
    pub model_in: Hash,
    /// A limit that the run sets itself, against the strongest adversary that its noise is planned against; the ledger's
    /// limits hold in any case.
    pub limit: Option<Epsilon>,
    /// What the seed of the noise is bound by.
    pub noise_commitment: Option<Hash>,
}

/// A ledger that goes on.
pub struct Ledger {
    state: State,
    tree: Arc<RwLock<Tree>>,
    signer: Arc<Signer>,
    storage: Box<dyn Storage>,
    broken: bool,
    spent: Price,
    /// None without participation limits.
    attendance: Option<Attendance>,
    /// The bytes of every record that handed the ledger over to another key.
    rotations: Vec<Vec<u8>>,
}

impl Ledger {
    /// Begins a ledger with its genesis record, behind the header of the file.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn create(
        mut genesis: Genesis,
        signer: impl Into<Arc<Signer>>,
        mut storage: Box<dyn Storage>,
    ) -> Result<Self, LedgerError> {
        let signer = signer.into();
        genesis.key = signer.key();
        let body = Body::Genesis(genesis);
        let record = Record { seq: 0, previous: Hash::ZERO, time_ms: storage.now_ms(), body };
        let bytes = record.sign(&signer);
        let hash = Hash::of_leaf(&bytes);
        let state =
            State::begin(&record, hash).map_err(|disorder| LedgerError::Disorder { record: 0, disorder })?;
        storage.append(&[&MAGIC[..], &frame(&bytes)].concat()).map_err(LedgerError::Storage)?;
        let mut tree = Tree::default();
        tree.push(hash);
        let spent = state.account().spent();
        let tree = Arc::new(RwLock::new(tree));
        let attendance = Attendance::under(None, state.account().terms(), true);
        let rotations = Vec::new();
        Ok(Self { state, tree, signer, storage, broken: false, spent, attendance, rotations })
    }

    /// Goes on with a ledger whose file holds `contents`, without an incomplete last record.
    ///
    /// # Errors
    /// [`LedgerError`] when a record is damaged or out of order, or the ledger is kept by another key.
    pub fn open(
        contents: &[u8],
        signer: impl Into<Arc<Signer>>,
        mut storage: Box<dyn Storage>,
    ) -> Result<Self, LedgerError> {
        let signer = signer.into();
        let (mut tree, mut rotations, mut since) = (Tree::default(), Vec::new(), 0);
        let (state, last) = replay(contents, |record, bytes, hash| {
            tree.push(hash);
            if let Body::KeyRotate(_) = record.body {
                rotations.push(bytes.to_vec());
                since = record.seq;
            }
        })?;
        if state.key() != signer.key() {
            return Err(LedgerError::Key { expected: state.key(), found: signer.key() });
        }
        // A rotation is signed by the key before it; the chain then vouches for it.
        let rotated = rotations.last().is_some_and(|rotation| rotation == last);
        if !rotated && !is_signed_by(last, &state.key()) {
            return Err(LedgerError::Signature { record: state.size() - 1 });
        }
        let attendance = match state.account().terms().participation {
            None => None,
            Some(_) => attended(contents, since, &signer, storage.as_mut())?,
        };
        let spent = state.account().spent();
        let tree = Arc::new(RwLock::new(tree));
        Ok(Self { state, tree, signer, storage, broken: false, spent, attendance, rotations })
    }

    /// Charges one round, or one query, before anybody is invited to it. `cohort` are the invited clients, by rising number.
    ///
    /// A query is whatever else asks clients' data for something: statistics, a vocabulary, an evaluation. It costs what its
    /// noise and its sampling say, like a round, and its sum opens only to the [`Charge`] made of its reservation. The queries that
    /// the schedule has are counted with the rounds that they belong to. Before the first round one query of any kind keeps to the
    /// schedule as well, because it cannot be a reaction to anything; every other is counted by the filter, as is all that follows it.
    ///
    /// ```
    /// use skep_privacy::adversary::Adversary;
    /// use skep_privacy::ledger::*;
    /// use skep_privacy::mechanism::Mechanism;
    /// use skep_privacy::quantities::{Adjacency, Delta, Epsilon, Sampling, Unit};
    ///
    /// let rounds = RoundTerms {
    ///     mode: Mode::Central,
    ///     mechanism: Mechanism::RoundedGaussian { sensitivity: 1000, sigma: 4000 },
    ///     sampling: Sampling::All,
    /// };
    /// let budget = Budget {
    ///     unit: Unit::Client,
    ///     adjacency: Adjacency::ZeroOut,
    ///     delta: Delta::new(1e-5)?,
    ///     limit_release: Epsilon::new(2.0)?,
    ///     limit_server: Epsilon::INFINITE,
    /// };
    /// let schedule = Schedule { mechanism: rounds.mechanism, sampling: rounds.sampling, rounds: None, query: None };
    /// let genesis = Genesis {
    ///     origin: "skep/example".to_owned(),
    ///     population: Population { root: Hash::of(b"roster"), size: 100 },
    ///     key: PublicKey([0; 32]),
    ///     provenance: Provenance::Simulation,
    ///     terms: Terms { mode: rounds.mode, budget: Some(budget), examples: None, schedule, participation: None },
    ///     auditor: None,
    ///     software: "an example".to_owned(),
    /// };
    /// let mut ledger = Ledger::create(genesis, Signer::from_seed(&[1; 32]), Box::new(Memory::default()))?;
    /// let counts = RoundTerms {
    ///     mechanism: Mechanism::RoundedGaussian { sensitivity: 1, sigma: 10 },
    ///     ..rounds
    /// };
    /// let request = Request {
    ///     occasion: Occasion::Statistics,
    ///     round: 0,
    ///     task: Hash::of(b"task"),
    ///     terms: counts,
    ///     model_in: Hash::ZERO,
    ///     limit: None,
    ///     noise_commitment: None,
    /// };
    /// let reserved = ledger.reserve(&request, 0..100)?;
    /// let charge = ledger.charge(reserved.reservation);
    /// // Here the clients are asked, and `Sum::release` opens the sum of their answers to the charge.
    /// assert_eq!(charge.mechanism(), counts.mechanism);
    /// ledger.settle(
    ///     Settle {
    ///         reserve: reserved.record,
    ///         plan: Hash::ZERO,
    ///         aggregate: Hash::of(b"released integers"),
    ///         model_out: Hash::ZERO,
    ///         updates: Some(97),
    ///         sealed: Vec::new(),
    ///     },
    ///     None,
    /// )?;
    /// assert!(ledger.spent().epsilon(Adversary::Recipients).get() < 0.4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ReserveError`]; nobody may be invited. Only after [`LedgerError::Storage`] can the round be charged all the same.
    pub fn reserve(
        &mut self,
        request: &Request,
        cohort: impl IntoIterator<Item = u64>,
    ) -> Result<Reserved, ReserveError> {
        let price = self.state.account().price(request.occasion, &request.terms, request.limit)?;
        let seq = self.state.size();
        let cohort: Vec<u64> = cohort.into_iter().collect();
        let participants = attendance::participants(self.signer.participants(), &cohort, seq);
        let limited = self.attendance.as_ref().filter(|_| request.occasion.is_round());
        if let Some(attendance) = limited {
            for client in &cohort {
                attendance
                    .allows(*client)
                    .map_err(|excess| ReserveError::Participation { client: *client, excess })?;
            }
            self.keep_cohort(seq, &cohort)?;
        }
        self.append(Body::Reserve(Reserve {
            occasion: request.occasion,
            round: request.round,
            task: request.task,
            mode: request.terms.mode,
            mechanism: request.terms.mechanism,
            sampling: request.terms.sampling,
            basis: price.basis,
            epsilon_release: price.epsilon(Adversary::Recipients),
            epsilon_server: price.epsilon(Adversary::Server),
            model_in: request.model_in,
            cohort: (!request.terms.hides_cohort()).then_some(cohort.len() as u32),
            participants,
            noise_commitment: request.noise_commitment,
        }))?;
        if let Some(attendance) = self.attendance.as_mut().filter(|_| request.occasion.is_round()) {
            attendance.count(&cohort);
        }
        self.spent = price;
        let reservation =
            Reservation::new(request.occasion, request.round, request.terms.mechanism, price.epsilons);
        Ok(Reserved { reservation, price, record: seq })
    }

    /// Whether participation limits allow to invite a client to the next round.
    #[must_use]
    pub fn may_invite(&self, client: u64) -> bool {
        self.attendance.as_ref().is_none_or(|attendance| attendance.allows(client).is_ok())
    }

    /// Whether there are participation limits.
    #[must_use]
    pub const fn limits_participation(&self) -> bool {
        self.attendance.is_some()
    }

    /// Gives up a reservation for the charge that opens its sum. The budget was spent when it was reserved.
    pub fn charge(&self, reservation: Reservation) -> Charge {
        reservation.into_charge()
    }

    /// Writes down what a charged round released, and keeps its seal. Only then may the model be shown to anybody.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn settle(&mut self, mut settle: Settle, seal: Option<&[u8]>) -> Result<(), LedgerError> {
        if self.state.hides_cohort(settle.reserve) {
            settle.updates = None;
        }
        let Some(seal) = seal else { return self.append(Body::Settle(settle)) };
        self.storage.keep(self.state.size(), seal).map_err(LedgerError::Storage)?;
        self.append(Body::Settle(Settle { sealed: Hash::of(seal).0.to_vec(), ..settle }))
    }

    /// Whom raw sums are sealed to now.
    #[must_use]
    pub fn auditor(&self) -> Option<Recipient> {
        let auditor =
            self.state.genesis().auditor.filter(|auditor| self.storage.now_ms() < auditor.expires_ms)?;
        Some(Recipient(auditor.key))
    }

    /// Writes down that a charged round has ended without a release. Its charge stays, unless nobody was invited.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn abort(&mut self, abort: Abort) -> Result<(), LedgerError> {
        let refunded = abort.refunded;
        let counted = self.state.is_limited_round(abort.reserve);
        self.append(Body::Abort(abort))?;
        if refunded {
            if let Some(attendance) = self.attendance.as_mut().filter(|_| counted) {
                attendance.refund();
            }
            self.spent = self.state.account().spent();
        }
        Ok(())
    }

    /// Changes the terms from here on.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn amend(&mut self, amend: Amend) -> Result<(), LedgerError> {
        let new_epoch = amend.epoch.is_some();
        self.append(Body::Amend(amend))?;
        self.attendance = Attendance::under(self.attendance.take(), self.state.account().terms(), new_epoch);
        self.spent = self.state.account().spent();
        Ok(())
    }

    /// Hands the ledger over to another key, which signs from the next record on.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn rotate(&mut self, to: impl Into<Arc<Signer>>) -> Result<(), LedgerError> {
        let to = to.into();
        let text = rotation_text(self.state.size(), self.state.last(), &self.state.key(), &to.key());
        self.append(Body::KeyRotate(KeyRotate { key: to.key(), proof: to.sign(&text) }))?;
        self.signer = to;
        Ok(())
    }

    /// The bytes of every record that handed the ledger over to another key, in order: what [`follow_rotations`] takes.
    #[must_use]
    pub fn rotations(&self) -> &[Vec<u8>] {
        &self.rotations
    }

    /// Writes a checkpoint of all records so far into the ledger itself.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn seal(&mut self) -> Result<(), LedgerError> {
        let text = self.note();
        self.append(Body::Checkpoint(Note { text }))
    }

    /// A signed checkpoint of all records so far.
    #[must_use]
    pub fn note(&self) -> String {
        self.checkpoint().sign(&self.signer)
    }

    /// A checkpoint of all records so far.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.state.checkpoint()
    }

    /// What the epoch has spent.
    #[must_use]
    pub const fn spent(&self) -> Price {
        self.spent
    }

    /// What the ledger says.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Proofs about this ledger, for other threads; they follow it as it grows.
    #[must_use]
    pub fn proofs(&self) -> Proofs {
        Proofs(Arc::clone(&self.tree))
    }

    /// The key that signs records, checkpoints and plans.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    fn keep_cohort(&mut self, record: u64, cohort: &[u64]) -> Result<(), LedgerError> {
        if self.broken {
            return Err(LedgerError::Broken);
        }
        self.storage.keep_cohort(&attendance::kept(record, cohort)).map_err(|error| {
            self.broken = true;
            LedgerError::Storage(error)
        })
    }

    fn append(&mut self, body: Body) -> Result<(), LedgerError> {
        if self.broken {
            return Err(LedgerError::Broken);
        }
        let (seq, previous) = (self.state.size(), self.state.last());
        let record = Record { seq, previous, time_ms: self.storage.now_ms(), body };
        let bytes = record.sign(&self.signer);
        if let Body::KeyRotate(_) = record.body {
            self.rotations.push(bytes.clone());
        }
        let hash = Hash::of_leaf(&bytes);
        self.state
            .apply(&record, hash)
            .map_err(|disorder| LedgerError::Disorder { record: seq, disorder })?;
        self.tree.write().unwrap_or_else(PoisonError::into_inner).push(hash);
        // What was not stored counts all the same: it may be on disk.
        self.storage.append(&frame(&bytes)).map_err(|error| {
            self.broken = true;
            LedgerError::Storage(error)
        })
    }
}

/// Who took part so far. What this key did not sign for, up to the record `since`, is believed: an earlier key of the ledger did.
fn attended(
    contents: &[u8],
    since: u64,
    signer: &Signer,
    storage: &mut dyn Storage,
) -> Result<Option<Attendance>, LedgerError> {
    let kept = storage.cohorts().map_err(LedgerError::Storage)?;
    let (cohorts, _) = cohorts(&kept).map_err(|problem| LedgerError::Cohorts { problem })?;
    let own = [signer.participants().clone()];
    let mut problem = None;
    let attendance = replay_attendance(contents, &cohorts, |attended| {
        let record = attended.record;
        if attended.cohort.is_none() {
            problem.get_or_insert_with(|| format!("lacks the round of record {record}"));
        } else if record > since && !attended.is_signed_for(&own) {
            problem
                .get_or_insert_with(|| format!("was changed: record {record} was signed for another cohort"));
        }
    });
    match problem {
        Some(problem) => Err(LedgerError::Cohorts { problem }),
        None => Ok(attendance),
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Ledger");
        debug
            .field("origin", &self.state.genesis().origin)
            .field("records", &self.state.size())
            .finish_non_exhaustive()
    }
}

/// Proofs about a ledger that may grow meanwhile.
#[derive(Clone, Debug)]
pub struct Proofs(Arc<RwLock<Tree>>);

impl Proofs {
    /// The proof that the first `old` records are the beginning of the first `size`; `None` unless 0 < `old` ≤ `size` and
    /// there are so many.
    #[must_use]
    pub fn consistency(&self, old: u64, size: u64) -> Option<Vec<Hash>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).consistency(old, size)
    }
}

/// What [`Ledger::reserve`] gives.
#[derive(Debug)]
pub struct Reserved {
    /// The right to run the round.
    pub reservation: Reservation,
    /// What is spent with it.
    pub price: Price,
    /// The record that charged it.
    pub record: u64,
}

/// Reads a whole ledger and hands every record, its bytes and its leaf hash to `each`; the bytes of the last record come back.
///
/// # Errors
/// [`LedgerError`] at the first record that cannot be read or is out of order.
pub fn replay(
    contents: &[u8],
    mut each: impl FnMut(&Record, &[u8], Hash),
) -> Result<(State, &[u8]), LedgerError> {
    let mut read: Option<(State, &[u8])> = None;
    for (number, bytes) in (0..).zip(Frames::new(contents)?) {
        let bytes = bytes?;
        let record = Record::read(bytes).map_err(|reason| LedgerError::Record { record: number, reason })?;
        let hash = Hash::of_leaf(bytes);
        let disorder = |disorder| LedgerError::Disorder { record: number, disorder };
        let state = match read {
            None => State::begin(&record, hash).map_err(disorder)?,
            Some((mut state, _)) => {
                state.apply(&record, hash).map_err(disorder)?;
                state
            }
        };
        each(&record, bytes, hash);
        read = Some((state, bytes));
    }
    read.ok_or(LedgerError::Empty)
}

/// A ledger in memory: for simulations that keep no results, and for tests. Clones share their contents.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    records: Arc<Mutex<Vec<u8>>>,
    cohorts: Arc<Mutex<Vec<u8>>>,
}

impl Memory {
    /// The file that would have been written.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        locked(&self.records).clone()
    }

    /// The list of cohorts that would be beside it.
    #[must_use]
    pub fn kept_cohorts(&self) -> Vec<u8> {
        locked(&self.cohorts).clone()
    }
}

impl Storage for Memory {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        locked(&self.records).extend_from_slice(bytes);
        Ok(())
    }

    fn keep(&mut self, _: u64, _: &[u8]) -> Result<(), StorageError> {
        Ok(())
    }

    fn keep_cohort(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        locked(&self.cohorts).extend_from_slice(bytes);
        Ok(())
    }

    fn cohorts(&mut self) -> Result<Vec<u8>, StorageError> {
        Ok(self.kept_cohorts())
    }

    fn now_ms(&self) -> u64 {
        0
    }
}

fn locked(bytes: &Mutex<Vec<u8>>) -> std::sync::MutexGuard<'_, Vec<u8>> {
    bytes.lock().expect("nothing panics while it holds the lock")
}

impl RoundTerms {
    /// A round that promises nothing.
    pub const NONE: Self = Self { mode: Mode::None, mechanism: Mechanism::None, sampling: Sampling::All };
}
