//! What a privileged auditor checks: that each release is the raw sum with the noise that was committed to.

use std::collections::BTreeMap;

use super::report::{Checked, Finding, Kind, Part, Report};
use crate::ledger::{AuditorSecret, Body, Frames, Hash, Record};
use crate::mechanism::Mechanism;

/// Opens the seal of every release, which `seal` gives by the number of its record, and adds to `report` what it finds.
/// Releases without a commitment are counted.
pub fn audit_sealed(
    contents: &[u8],
    auditor: &AuditorSecret,
    mut seal: impl FnMut(u64) -> Option<Vec<u8>>,
    report: &mut Report,
) {
    let mut reserved = BTreeMap::new();
    let (mut held, mut bare) = (0, 0);
    let records = Frames::new(contents).into_iter().flatten().map_while(Result::ok);
    for record in records.map_while(|bytes| Record::read(bytes).ok()) {
        match record.body {
            Body::Reserve(reserve) => {
                reserved.insert(record.seq, (reserve.mechanism, reserve.noise_commitment));
            }
            Body::Settle(settle) => match reserved.remove(&settle.reserve) {
                // A server that was stopped before its release was in the ledger has lost the seal.
                Some((Mechanism::RoundedGaussian { sigma, .. }, Some(commitment)))
                    if !settle.sealed.is_empty() =>
                {
                    let sealed = seal(record.seq);
                    match check(sealed, &settle.sealed, commitment, sigma, settle.aggregate, auditor) {
                        Ok(()) => held += 1,
                        Err(what) => report.findings.push(Finding {
                            kind: Kind::Mismatch,
                            record: Some(record.seq),
                            what: format!("the release in record {} {what}", record.seq),
                        }),
                    }
                }
                _ => bare += 1,
            },
            _ => {}
        }
    }
    let detail = format!(
        "{held} releases are their raw sums with the committed noise, bit for bit; {bare} have no commitment or no seal"
    );
    report.checked.push(Checked { part: Part::Noise, done: held > 0, detail });
    report.judge();
}

fn check(
    sealed: Option<Vec<u8>>,
    stated: &[u8],
    commitment: Hash,
    sigma: u64,
    aggregate: Hash,
    auditor: &AuditorSecret,
) -> Result<(), &'static str> {
    let sealed = sealed.ok_or("has no seal")?;
    if Hash::of(&sealed).0 != stated {
        return Err("has another seal than the one that was written down");
    }
    let opened = auditor.open(&sealed).ok_or("is sealed to somebody else")?;
    if !opened.is_committed(commitment, sigma) {
        return Err("was made with another seed than the one committed to before the round");
    }
    if opened.release_digest(sigma) == aggregate {
        Ok(())
    } else {
        Err("is not its raw sum with the noise of the seed")
    }
}
