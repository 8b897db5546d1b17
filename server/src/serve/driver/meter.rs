//! Bytes of sessions as TCP carries them, handshakes and TLS included.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_protocol::ChannelBinding;
use skep_protocol::net::Traffic;

/// Counts them.
#[derive(Default)]
pub(super) struct Meter {
    open: BTreeMap<ChannelBinding, Arc<Traffic>>,
    /// Bytes up and down of connections that are gone.
    gone: (u64, u64),
    /// The total when it was last asked for.
    last: (u64, u64),
}

impl Meter {
    /// A connection is there.
    pub(super) fn add(&mut self, connection: ChannelBinding, traffic: Arc<Traffic>) {
        self.open.insert(connection, traffic);
    }

    /// The connection is gone; its bytes still count.
    pub(super) fn remove(&mut self, connection: ChannelBinding) {
        if let Some(traffic) = self.open.remove(&connection) {
            self.gone.0 += traffic.received();
            self.gone.1 += traffic.sent();
        }
    }

    /// Bytes from and to clients, over all connections.
    pub(super) fn total(&self) -> (u64, u64) {
        let add =
            |sum: (u64, u64), traffic: &Arc<Traffic>| (sum.0 + traffic.received(), sum.1 + traffic.sent());
        self.open.values().fold(self.gone, add)
    }

    /// The same since this was last asked for.
    pub(super) fn since_last(&mut self) -> (u64, u64) {
        let total = self.total();
        let last = std::mem::replace(&mut self.last, total);
        (total.0 - last.0, total.1 - last.1)
    }
}
