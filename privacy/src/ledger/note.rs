//! Checkpoints: a signed statement of how long a ledger is and what its root is, in the text form of C2SP.
//!
//! ```text
//! skep/3f5c...             origin: the ledger's name
//! 120                      records
//! kTrW...=                 root, base64
//!
//! — skep/3f5c... qz8b...   key name, base64 of 4 bytes that name the key and 64 of signature
//! ```
//!
//! The forms are <https://c2sp.org/tlog-checkpoint> and <https://c2sp.org/signed-note>; tools for transparency logs read
//! them. Whoever keeps one notices when the ledger is later cut, changed or replaced by another.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use ring::digest::{Context, SHA256};
use thiserror::Error;

use super::{Hash, PublicKey, Signer};

/// How long a ledger is and what its root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The ledger's name, without spaces and `+`.
    pub origin: String,
    /// Records.
    pub size: u64,
    /// The Merkle root over them.
    pub root: Hash,
}

/// A checkpoint with its signatures, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    text: String,
    /// Name, key id and signature of every signature line for an Ed25519 key.
    signatures: Vec<(String, [u8; 4], Vec<u8>)>,
}

/// Why a text is no checkpoint, or not the one wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// The text has another form.
    #[error("not a signed checkpoint: {0}")]
    Form(&'static str),
    /// No line is a signature of the key.
    #[error("the checkpoint is not signed by the key {0}")]
    NotSigned(PublicKey),
    /// A text that names a public key has another form.
    #[error("not a public key: {0}")]
    Key(&'static str),
}

impl Checkpoint {
    /// What is signed.
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root.0))
    }

    /// The signed note.
    #[must_use]
    pub fn sign(&self, signer: &Signer) -> String {
        let text = self.text();
        let mut line = key_id(&self.origin, &signer.key()).to_vec();
        line.extend(signer.sign(text.as_bytes()));
        format!("{text}\n\u{2014} {} {}\n", self.origin, BASE64.encode(&line))
    }
}

impl SignedCheckpoint {
    /// Reads a signed note. Lines for other keys and of other algorithms are passed over.
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        let (text, lines) =
            note.rsplit_once("\n\n").ok_or(NoteError::Form("no empty line before the signatures"))?;
        let text = format!("{text}\n");
        let signatures = lines.lines().map(signature_line).collect::<Result<Vec<_>, _>>()?;
        let mut fields = text.lines();
        let origin = fields.next().filter(|origin| is_name(origin)).ok_or(NoteError::Form("no origin"))?;
        let size = fields.next().and_then(decimal).ok_or(NoteError::Form("no number of records"))?;
        let root = fields
            .next()
            .and_then(|root| BASE64.decode(root.as_bytes()).ok())
            .and_then(|root| root.try_into().ok())
            .ok_or(NoteError::Form("no root of 32 bytes"))?;
        let checkpoint = Checkpoint { origin: origin.to_owned(), size, root: Hash(root) };
        Ok(Self { checkpoint, text, signatures })
    }

    /// The checkpoint, if it is signed by `key` under the name of its origin.
    ///
    /// # Errors
    /// [`NoteError::NotSigned`].
    pub fn verify(&self, key: &PublicKey) -> Result<&Checkpoint, NoteError> {
        let id = key_id(&self.checkpoint.origin, key);
        let signed = self.signatures.iter().any(|(name, found, signature)| {
            *name == self.checkpoint.origin && *found == id && key.verifies(self.text.as_bytes(), signature)
        });
        if signed { Ok(&self.checkpoint) } else { Err(NoteError::NotSigned(*key)) }
    }

    /// The checkpoint, whoever signed it.
    #[must_use]
    pub const fn unverified(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

/// The text form of a public key in the signed-note specification: name, `+`, key id, `+`, base64 of type and key.
#[must_use]
pub fn verifier_key(name: &str, key: &PublicKey) -> String {
    let id = HEXLOWER_PERMISSIVE.encode(&key_id(name, key));
    format!("{name}+{id}+{}", BASE64.encode(&[&[ED25519_TYPE], &key.0[..]].concat()))
}

/// Reads a public key: the form of [`verifier_key`], or 64 hexadecimal digits.
///
/// # Errors
/// [`NoteError::Key`].
pub fn parse_key(text: &str) -> Result<PublicKey, NoteError> {
    let text = text.trim();
    if let Ok(bytes) = HEXLOWER_PERMISSIVE.decode(text.as_bytes()) {
        return bytes
            .try_into()
            .map(PublicKey)
            .map_err(|_| NoteError::Key("64 hexadecimal digits are needed"));
    }
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key("neither 64 hexadecimal digits nor NAME+ID+KEY"));
    };
    let key = BASE64.decode(key.as_bytes()).map_err(|_| NoteError::Key("its last part is not base64"))?;
    let key = key
        .strip_prefix(&[ED25519_TYPE])
        .and_then(|key| key.try_into().ok())
        .map(PublicKey)
        .ok_or(NoteError::Key("it is not an Ed25519 key"))?;
    if HEXLOWER_PERMISSIVE.decode(id.as_bytes()).ok().as_deref() != Some(&key_id(name, &key)) {
        return Err(NoteError::Key("its id does not belong to its name and key"));
    }
    Ok(key)
}

fn signature_line(line: &str) -> Result<(String, [u8; 4], Vec<u8>), NoteError> {
    let rest = line
        .strip_prefix("\u{2014} ")
        .ok_or(NoteError::Form("a signature line does not begin with a dash"))?;
    let (name, blob) = rest.split_once(' ').ok_or(NoteError::Form("a signature line has no signature"))?;
    let blob = BASE64.decode(blob.as_bytes()).map_err(|_| NoteError::Form("a signature is not base64"))?;
    let (id, signature) = blob.split_first_chunk::<4>().ok_or(NoteError::Form("a signature is too short"))?;
    Ok((name.to_owned(), *id, signature.to_vec()))
}

/// A number as C2SP writes it: decimal digits without leading zeros.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|size: &u64| size.to_string() == text)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let mut context = Context::new(&SHA256);
    context.update(name.as_bytes());
    context.update(&[b'\n', ED25519_TYPE]);
    context.update(&key.0);
    let digest = context.finish();
    let mut id = [0; 4];
    id.copy_from_slice(&digest.as_ref()[..4]);
    id
}

/// The number of Ed25519 in signed notes.
const ED25519_TYPE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "skep/test".to_owned(), size: 7, root: Hash::of(b"root") }
    }

    #[test]
    fn a_signed_checkpoint_reads_back_and_holds_for_its_key_alone() {
        let (signer, other) = (Signer::from_seed(&[1; 32]), Signer::from_seed(&[2; 32]));
        let note = checkpoint().sign(&signer);
        assert!(note.starts_with("skep/test\n7\n") && note.ends_with("=\n"), "{note}");
        let parsed = SignedCheckpoint::parse(&note).unwrap();
        assert_eq!(parsed.verify(&signer.key()), Ok(&checkpoint()));
        assert_eq!(parsed.verify(&other.key()), Err(NoteError::NotSigned(other.key())));
        let witnessed = format!("{note}\u{2014} witness.example/w {}\n", BASE64.encode(&[9; 80]));
        assert_eq!(SignedCheckpoint::parse(&witnessed).unwrap().verify(&signer.key()), Ok(&checkpoint()));
    }

    #[test]
    fn a_changed_checkpoint_is_refused() {
        let signer = Signer::from_seed(&[1; 32]);
        let note = checkpoint().sign(&signer);
        for (from, to) in
            [("\n7\n", "\n8\n"), ("\n7\n", "\n07\n"), ("skep/test\n", "skep/tesu\n"), ("\n\n", "\n")]
        {
            let bad = note.replacen(from, to, 1);
            let verified = SignedCheckpoint::parse(&bad).and_then(|note| note.verify(&signer.key()).cloned());
            assert!(verified.is_err(), "{bad}");
        }
    }

    #[test]
    fn public_keys_read_as_other_transparency_logs_write_them() {
        // The key of the checksum database of Go modules.
        let known = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        assert_eq!(verifier_key("sum.golang.org", &parse_key(known).unwrap()), known);
        let ours = Signer::from_seed(&[1; 32]).key();
        assert_eq!(parse_key(&verifier_key("skep/test", &ours)), Ok(ours));
        assert_eq!(parse_key(&ours.to_string()), Ok(ours));
        for bad in ["", "abc", "a+b+c", "00", &known.replace("033de0ae", "033de0af")] {
            assert!(parse_key(bad).is_err(), "{bad}");
        }
    }
}
