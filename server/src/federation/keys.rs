//! Who is invited and what hides the sum: the two secrets of a server.

use skep_privacy::prg::{Key, PrgError, Purpose};
use skep_protocol::Round;

/// Where the server's secret draws come from: who is invited, and noise.
#[derive(Debug)]
pub struct ServerKeys(Source);

#[derive(Debug)]
enum Source {
    Root { cohort: Key, noise: Key },
    System,
}

impl ServerKeys {
    /// Keys that follow from a root. Whoever knows the root can subtract the noise.
    pub fn from_root(root: &Key) -> Self {
        let derived = |purpose| root.derive(purpose, 0, 0);
        ServerKeys(Source::Root { cohort: derived(Purpose::Cohort), noise: derived(Purpose::Noise) })
    }

    /// Fresh keys from the operating system for every round, so that a process restored from a snapshot never
    /// draws the same noise twice.
    pub fn from_os() -> Self {
        ServerKeys(Source::System)
    }

    /// The key of a round's cohort.
    pub(super) fn cohort(&self, round: Round) -> Result<Key, PrgError> {
        match &self.0 {
            Source::Root { cohort, .. } => Ok(cohort.derive(Purpose::Cohort, round.0, 0)),
            Source::System => Key::from_os(),
        }
    }

    /// The key of a round's noise.
    pub(super) fn noise(&self, round: Round) -> Result<Key, PrgError> {
        match &self.0 {
            Source::Root { noise, .. } => Ok(noise.derive(Purpose::Noise, round.0, 0)),
            Source::System => Key::from_os(),
        }
    }
}
