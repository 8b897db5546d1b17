//! What a launcher tells its children, and what they report. One JSON object a line.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skep_privacy::prg::{KEY_BYTES, Key};
use skep_protocol::experiment::file::ExperimentFile;
use skep_server::ledger::Place;
use skep_server::record::RoundRecord;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// All that the server's process needs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerBootstrap {
    /// The experiment.
    pub(crate) experiment: ExperimentFile,
    /// What the choice of every cohort follows from.
    pub(crate) cohort: Secret,
    /// What all noise follows from.
    pub(crate) noise: Secret,
    /// Where the ledger is kept.
    pub(crate) ledger: Place,
    /// The ledger's key, where it has no other.
    pub(crate) ledger_key: Secret,
    /// Whether others know what all draws follow from.
    pub(crate) seeded: bool,
    /// The launcher's temporary directory.
    pub(crate) directory: PathBuf,
}

impl ServerBootstrap {
    /// The server's state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join("server")
    }

    /// Where the server leaves the last model, as little-endian f32.
    pub(crate) fn model(&self) -> PathBuf {
        self.directory.join("model.f32")
    }
}

/// All that a process of clients needs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientsBootstrap {
    /// The experiment, from which the clients' shares of the data follow.
    pub(crate) experiment: ExperimentFile,
    /// The clients.
    pub(crate) clients: Vec<ClientBootstrap>,
    /// Under which each client gets a state directory.
    pub(crate) state: PathBuf,
    /// Clients that train at the same time.
    pub(crate) threads: std::num::NonZeroUsize,
}

/// One client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientBootstrap {
    /// Its number.
    pub(crate) client: u64,
    /// Its invitation.
    pub(crate) invitation: String,
    /// What its keys follow from.
    pub(crate) root: Secret,
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The server listens; an invitation for each client, by number.
    Listening {
        /// The invitations.
        invitations: Vec<String>,
    },
    /// So many clients are connected.
    Connected {
        /// How many.
        connected: usize,
        /// How many are waited for.
        wanted: usize,
    },
    /// A round has begun.
    Opened {
        /// Which.
        round: u64,
        /// Its cohort.
        invited: u32,
    },
    /// A round has ended.
    Closed {
        /// What is written down of it.
        record: Box<RoundRecord>,
    },
    /// The server has stopped.
    Served {
        /// Why.
        end: ServedEnd,
        /// A signed checkpoint of the ledger.
        checkpoint: String,
        /// Bytes from clients, on the sockets.
        bytes_up: u64,
        /// Bytes to clients, on the sockets.
        bytes_down: u64,
        /// Its largest resident memory.
        peak_rss_bytes: Option<u64>,
    },
    /// All clients of a process have heard that it is over.
    Joined {
        /// The largest resident memory of the process.
        peak_rss_bytes: Option<u64>,
        /// Masks on the clients' updates in sums.
        masks_applied: u64,
        /// Bytes of these updates, masked and packed.
        masked_bytes: u64,
    },
    /// The child ends with this failure.
    Failed {
        /// Its exit code.
        code: u8,
        /// What it would have printed.
        message: String,
    },
}

/// Why the server has stopped.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ServedEnd {
    /// All rounds have been run.
    Finished,
    /// The budget allows no further round.
    BudgetExhausted(String),
    /// The model has not become better for long.
    StoppedEarly,
    /// It was asked to.
    Stopped,
}

/// A key on its way to a child. Hidden by `Debug`, wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret([u8; KEY_BYTES]);

impl Secret {
    /// The secret bytes of a key.
    pub(crate) fn of(key: &Key) -> Self {
        Secret(*key.expose())
    }

    /// The key.
    pub(crate) fn key(&self) -> Key {
        Key::from_bytes(self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; KEY_BYTES]>::deserialize(deserializer).map(Secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_arrives_as_it_was_and_is_not_shown() {
        let key = Key::from_seed(3);
        let json = serde_json::to_string(&Secret::of(&key)).unwrap();
        let arrived: Secret = serde_json::from_str(&json).unwrap();
        assert_eq!(arrived.key().expose(), key.expose());
        assert_eq!(format!("{arrived:?}"), "Secret(hidden)");
    }
}
