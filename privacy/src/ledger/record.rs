//! The records of a ledger and their canonical encoding.
//!
//! A record's bytes are its encoding (domain `skep ledger record v1`) and the Ed25519 signature of that encoding. Its hash
//! is the hash of these bytes as a leaf of the Merkle tree, and the next record begins with it. `vectors.txt` beside
//! this file holds one record of each kind.

use data_encoding::HEXLOWER;
use serde::{Serialize, Serializer};

use super::terms::{
    mechanism_as_text, read_epsilon, read_mechanism, read_sampling, write_mechanism, write_sampling,
};
use super::{Hash, Mode, Population, Provenance, PublicKey, SIGNATURE_BYTES, Signer, Terms};
use crate::canonical::{CanonicalError, Reader, Writer};
use crate::mechanism::Mechanism;
use crate::quantities::{Epsilon, Sampling};

/// One entry of a ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Counted from 0.
    pub seq: u64,
    /// The hash of the record before it; [`Hash::ZERO`] for the first.
    pub previous: Hash,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// The first record: whose budget it is and what may be spent.
    Genesis(Genesis),
    /// A round or a query is charged; from here on clients may be invited.
    Reserve(Reserve),
    /// A charged round has released a model, or a query its answer.
    Settle(Settle),
    /// A charged round or query has released nothing.
    Abort(Abort),
    /// A signed statement about all records before this one.
    Checkpoint(Note),
    /// Another key signs from the next record on.
    KeyRotate(KeyRotate),
    /// The terms change from here on.
    Amend(Amend),
}

/// The first record.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Genesis {
    /// The ledger's name in checkpoints.
    pub origin: String,
    /// Whose budget it is.
    pub population: Population,
    /// The key that signs this record and those after it.
    #[serde(serialize_with = "as_text")]
    pub key: PublicKey,
    /// Where the rounds happen.
    pub provenance: Provenance,
    /// What was promised.
    pub terms: Terms,
    /// The X25519 key that noise seeds are sealed to, and until when (milliseconds since 1970); none: they are not kept.
    pub auditor: Option<Auditor>,
    /// The program that made it.
    pub software: String,
}

/// Who may check how the noise was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Auditor {
    /// The auditor's X25519 public key.
    #[serde(serialize_with = "as_hex")]
    pub key: [u8; 32],
    /// Nothing is sealed to it from then on, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// By which rule epsilon is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// All rounds kept to the schedule: privacy loss distributions.
    Schedule,
    /// Some round departed from it: the Rényi filter, which holds although parameters may have reacted to outputs.
    Filter,
}

/// What a charge is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// A round of training.
    #[default]
    Round,
    /// A query for counts, sums or quantiles of clients' data.
    Statistics,
    /// A query for words, categories or other keys that clients' data hold.
    Vocabulary,
    /// A query for how good a model is on clients' data.
    Evaluation,
}

/// A round, or a query, is charged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reserve {
    /// What it is for.
    #[serde(skip_serializing_if = "Occasion::is_round")]
    pub occasion: Occasion,
    /// The round, as the run counts; of a query, the last round before it, and 0 before the first.
    pub round: u64,
    /// The digest of the task.
    pub task: Hash,
    /// Who adds noise.
    pub mode: Mode,
    /// The noise.
    #[serde(serialize_with = "mechanism_as_text")]
    pub mechanism: Mechanism,
    /// Who is invited.
    pub sampling: Sampling,
    /// The rule behind the two epsilons.
    pub basis: Basis,
    /// Spent against recipients in this epoch, this round included.
    pub epsilon_release: Epsilon,
    /// Spent against the server in this epoch, this round included.
    pub epsilon_server: Epsilon,
    /// The digest of the model that clients start from; [`Hash::ZERO`] for a query about no model.
    pub model_in: Hash,
    /// Clients invited; none under Poisson sampling, which amplifies only while this is secret.
    pub cohort: Option<u32>,
    /// The Merkle root over pseudonyms of the cohort, which only the holder of the ledger's key can make.
    pub participants: Hash,
    /// What the seed of the noise is bound by, where it is kept for an auditor.
    pub noise_commitment: Option<Hash>,
}

/// A round has released a model, or a query its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settle {
    /// The record that charged it.
    pub reserve: u64,
    /// The digest of the signed plan; [`Hash::ZERO`] where a query had none.
    pub plan: Hash,
    /// The digest of the released integers, as little-endian i64; of an aggregate that is no sum, of its f64.
    pub aggregate: Hash,
    /// The digest of the released model; [`Hash::ZERO`] for a query.
    pub model_out: Hash,
    /// Updates in the sum; none under Poisson sampling.
    pub updates: Option<u32>,
    /// The digest of the seed and the raw sum as they were sealed to the auditor; empty where they are not kept.
    #[serde(serialize_with = "as_hex")]
    pub sealed: Vec<u8>,
}

/// A round has released nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Abort {
    /// The record that charged it.
    pub reserve: u64,
    /// Why, for people.
    pub reason: String,
    /// Whether nobody was invited. Only then is the charge taken back.
    pub refunded: bool,
}

/// A signed checkpoint of all records before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The signed note.
    pub text: String,
}

/// Another key signs from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyRotate {
    /// The new key.
    #[serde(serialize_with = "as_text")]
    pub key: PublicKey,
    /// The new key's signature over [`rotation_text`]: its owner knows of it.
    #[serde(serialize_with = "as_hex")]
    pub proof: [u8; SIGNATURE_BYTES],
}

/// The terms change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Amend {
    /// Why, for people.
    pub reason: String,
    /// A new epoch begins: other data, whose budget is untouched. The old epoch's stays spent, and audits print the sum.
    pub epoch: Option<Population>,
    /// What is promised from here on.
    pub terms: Terms,
}

impl Body {
    /// The kind, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "genesis",
            Self::Reserve(reserve) if reserve.occasion.is_round() => "reserve",
            Self::Reserve(_) => "query",
            Self::Settle(_) => "settle",
            Self::Abort(_) => "abort",
            Self::Checkpoint(_) => "checkpoint",
            Self::KeyRotate(_) => "key-rotate",
            Self::Amend(_) => "amend",
        }
    }
}

impl Record {
    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(DOMAIN);
        writer.u64(self.seq).array(&self.previous.0).u64(self.time_ms);
        match &self.body {
            Body::Genesis(genesis) => genesis.write(writer.u8(0)),
            Body::Reserve(reserve) if reserve.occasion.is_round() => reserve.write(writer.u8(1)),
            Body::Reserve(reserve) => reserve.write(writer.u8(7).u8(reserve.occasion.number())),
            Body::Settle(settle) => {
                writer.u8(2).u64(settle.reserve).array(&settle.plan.0).array(&settle.aggregate.0);
                write_count(settle.updates, writer.array(&settle.model_out.0));
                writer.bytes(&settle.sealed);
            }
            Body::Abort(abort) => {
                writer.u8(3).u64(abort.reserve).text(&abort.reason).u8(u8::from(abort.refunded));
            }
            Body::Checkpoint(Note { text }) => {
                writer.u8(4).text(text);
            }
            Body::KeyRotate(rotate) => {
                writer.u8(5).array(&rotate.key.0).bytes(&rotate.proof);
            }
            Body::Amend(amend) => amend.write(writer.u8(6)),
        }
        writer.finish()
    }

    /// The bytes of the record in the file: its encoding and its signature.
    #[must_use]
    pub fn sign(&self, signer: &Signer) -> Vec<u8> {
        let mut bytes = self.to_bytes();
        let signature = signer.sign(&bytes);
        bytes.extend_from_slice(&signature);
        bytes
    }

    /// Reads the bytes of a record. The signature is not checked here, see [`is_signed_by`].
    ///
    /// # Errors
    /// [`CanonicalError`] for anything but the bytes of [`Record::sign`].
    pub fn read(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let text = bytes.len().checked_sub(SIGNATURE_BYTES).ok_or(CanonicalError::Truncated)?;
        let mut reader = Reader::new(&bytes[..text], DOMAIN)?;
        let record = Self {
            seq: reader.u64()?,
            previous: Hash(reader.array()?),
            time_ms: reader.u64()?,
            body: match reader.u8()? {
                0 => Body::Genesis(Genesis::read(&mut reader)?),
                1 => Body::Reserve(Reserve::read(Occasion::Round, &mut reader)?),
                7 => {
                    let query = Occasion::query(reader.u8()?)?;
                    Body::Reserve(Reserve::read(query, &mut reader)?)
                }
                2 => Body::Settle(Settle {
                    reserve: reader.u64()?,
                    plan: Hash(reader.array()?),
                    aggregate: Hash(reader.array()?),
                    model_out: Hash(reader.array()?),
                    updates: read_count(&mut reader)?,
                    sealed: reader.bytes()?.to_vec(),
                }),
                3 => Body::Abort(Abort {
                    reserve: reader.u64()?,
                    reason: reader.text("reason")?.to_owned(),
                    refunded: flag(&mut reader)?,
                }),
                4 => Body::Checkpoint(Note { text: reader.text("checkpoint")?.to_owned() }),
                5 => Body::KeyRotate(KeyRotate {
                    key: PublicKey(reader.array()?),
                    proof: reader.bytes()?.try_into().map_err(|_| CanonicalError::OutOfRange("signature"))?,
                }),
                6 => Body::Amend(Amend::read(&mut reader)?),
                _ => return Err(CanonicalError::OutOfRange("kind of record")),
            },
        };
        reader.finish()?;
        Ok(record)
    }
}

impl Genesis {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.origin);
        self.population.write(writer);
        writer.array(&self.key.0);
        self.provenance.write(writer);
        self.terms.write(writer);
        writer.u8(u8::from(self.auditor.is_some()));
        if let Some(auditor) = &self.auditor {
            writer.array(&auditor.key).u64(auditor.expires_ms);
        }
        writer.text(&self.software);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self {
            origin: reader.text("origin")?.to_owned(),
            population: Population::read(reader)?,
            key: PublicKey(reader.array()?),
            provenance: Provenance::read(reader)?,
            terms: Terms::read(reader)?,
            auditor: match flag(reader)? {
                false => None,
                true => Some(Auditor { key: reader.array()?, expires_ms: reader.u64()? }),
            },
            software: reader.text("software")?.to_owned(),
        })
    }
}

impl Occasion {
    /// Whether it is a round of training; everything else is a query.
    #[must_use]
    pub const fn is_round(&self) -> bool {
        matches!(self, Self::Round)
    }

    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Round => "round",
            Self::Statistics => "statistics",
            Self::Vocabulary => "vocabulary",
            Self::Evaluation => "evaluation",
        }
    }

    pub(super) const fn number(self) -> u8 {
        self as u8
    }

    pub(super) fn query(number: u8) -> Result<Self, CanonicalError> {
        [Self::Statistics, Self::Vocabulary, Self::Evaluation]
            .into_iter()
            .find(|occasion| occasion.number() == number)
            .ok_or(CanonicalError::OutOfRange("occasion of a query"))
    }
}

impl Reserve {
    fn write(&self, writer: &mut Writer) {
        writer.u64(self.round).array(&self.task.0);
        self.mode.write(writer);
        write_mechanism(&self.mechanism, writer);
        write_sampling(&self.sampling, writer);
        writer.u8(match self.basis {
            Basis::Schedule => 0,
            Basis::Filter => 1,
        });
        writer.f64(self.epsilon_release.get()).f64(self.epsilon_server.get());
        write_count(self.cohort, writer.array(&self.model_in.0));
        writer.array(&self.participants.0);
        writer.u8(u8::from(self.noise_commitment.is_some()));
        if let Some(commitment) = &self.noise_commitment {
            writer.array(&commitment.0);
        }
    }

    fn read(occasion: Occasion, reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self {
            occasion,
            round: reader.u64()?,
            task: Hash(reader.array()?),
            mode: Mode::read(reader)?,
            mechanism: read_mechanism(reader)?,
            sampling: read_sampling(reader)?,
            basis: match reader.u8()? {
                0 => Basis::Schedule,
                1 => Basis::Filter,
                _ => return Err(CanonicalError::OutOfRange("basis")),
            },
            epsilon_release: read_epsilon(reader)?,
            epsilon_server: read_epsilon(reader)?,
            model_in: Hash(reader.array()?),
            cohort: read_count(reader)?,
            participants: Hash(reader.array()?),
            noise_commitment: if flag(reader)? { Some(Hash(reader.array()?)) } else { None },
        })
    }
}

impl Amend {
    fn write(&self, writer: &mut Writer) {
        writer.text(&self.reason).u8(u8::from(self.epoch.is_some()));
        if let Some(population) = &self.epoch {
            population.write(writer);
        }
        self.terms.write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Self {
            reason: reader.text("reason")?.to_owned(),
            epoch: if flag(reader)? { Some(Population::read(reader)?) } else { None },
            terms: Terms::read(reader)?,
        })
    }
}

/// Whether the bytes of a record end in the signature of `key`.
#[must_use]
pub fn is_signed_by(bytes: &[u8], key: &PublicKey) -> bool {
    bytes.split_last_chunk::<SIGNATURE_BYTES>().is_some_and(|(text, signature)| key.verifies(text, signature))
}

/// What a new key signs to show that its owner takes the ledger over: at which record, after which, from which key.
#[must_use]
pub fn rotation_text(seq: u64, previous: Hash, from: &PublicKey, to: &PublicKey) -> Vec<u8> {
    let mut writer = Writer::new("skep ledger key v1");
    writer.u64(seq).array(&previous.0).array(&from.0).array(&to.0);
    writer.finish()
}

/// The key that somebody believes who has believed `pinned` and is shown these records of rotations, in order: each that is
/// signed by the key believed so far, and by the new key for itself, hands over to the new one. Others change nothing.
#[must_use]
pub fn follow_rotations<B: AsRef<[u8]>>(pinned: PublicKey, records: &[B]) -> PublicKey {
    records.iter().fold(pinned, |believed, bytes| {
        let bytes = bytes.as_ref();
        match Record::read(bytes) {
            Ok(Record { seq, previous, body: Body::KeyRotate(rotate), .. })
                if is_signed_by(bytes, &believed)
                    && rotate
                        .key
                        .verifies(&rotation_text(seq, previous, &believed, &rotate.key), &rotate.proof) =>
            {
                rotate.key
            }
            _ => believed,
        }
    })
}

fn write_count(count: Option<u32>, writer: &mut Writer) {
    writer.u8(u8::from(count.is_some())).u32(count.unwrap_or(0));
}

fn read_count(reader: &mut Reader<'_>) -> Result<Option<u32>, CanonicalError> {
    match (reader.u8()?, reader.u32()?) {
        (0, 0) => Ok(None),
        (1, count) => Ok(Some(count)),
        _ => Err(CanonicalError::OutOfRange("number of clients")),
    }
}

/// Writes what has a text form as text.
pub(crate) fn as_text<T: std::fmt::Display, S: Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_hex<T: AsRef<[u8]>, S: Serializer>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&HEXLOWER.encode(bytes.as_ref()))
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, CanonicalError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(CanonicalError::OutOfRange("flag")),
    }
}

const DOMAIN: &str = "skep ledger record v1";
