//! Who is invited and what hides the sum: the two secrets of a server.

use skep_privacy::prg::{Key, PrgError, PrgId, Purpose};
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
        let [cohort, noise] = Self::derive(root);
        Self::from_derived(cohort, noise)
    }

    /// What [`ServerKeys::from_root`] takes from a root, the cohorts' key first. To be handed to a process that must not
    /// learn the root, from which the clients' keys follow too.
    pub fn derive(root: &Key) -> [Key; 2] {
        [Purpose::Cohort, Purpose::Noise].map(|purpose| root.derive(purpose, 0, 0))
    }

    /// Keys that [`ServerKeys::derive`] made.
    pub fn from_derived(cohort: Key, noise: Key) -> Self {
        ServerKeys(Source::Root { cohort, noise })
    }

    /// Fresh keys from the operating system for every round, so that a process restored from a snapshot never
    /// draws the same noise twice.
    pub fn from_os() -> Self {
        ServerKeys(Source::System)
    }

    /// The generator of noise and rounding that plans name: one for every machine if there is a root, because the same root
    /// must give the same run, and else the one that is fastest on this.
    pub(super) fn generator(&self) -> PrgId {
        match self.0 {
            Source::Root { .. } => PrgId::ChaCha20,
            Source::System => PrgId::fastest(),
        }
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

    /// The keys of a query's cohort and noise, as different from each other and from every round's as queries have numbers.
    pub(super) fn query(&self, after: Round, number: u64) -> Result<[Key; 2], PrgError> {
        match &self.0 {
            // Number 0 is the round itself.
            Source::Root { cohort, noise } => Ok([
                cohort.derive(Purpose::Cohort, after.0, number + 1),
                noise.derive(Purpose::Noise, after.0, number + 1),
            ]),
            Source::System => Ok([Key::from_os()?, Key::from_os()?]),
        }
    }
}
