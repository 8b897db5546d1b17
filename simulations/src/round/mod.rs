//! One round in memory: the production machines of server and clients, with a network in virtual time between them.
//!
//! Nothing is encoded, hashed or signed for each client, and an update is computed only when it is about to enter the
//! sum: between "trained" and there it exists as its length. So memory holds, of a whole cohort, the few updates that
//! helpers have computed ahead. A client whose training fails therefore declines when its upload would arrive, later than
//! over sockets, with the same outcome.

mod client_side;
mod masked;
mod server_side;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skep_client::masking::Masks;
use skep_privacy::prg::Key;
use skep_protocol::experiment::Task;
use skep_protocol::experiment::simulation::Devices;
use skep_protocol::plan::VerifiedPlan;
use skep_protocol::round::server::{Event, ServerMachine};
use skep_protocol::round::{Outcome, Phase, Progress, client};
use skep_protocol::{ClientId, Round, Span, Time};
use skep_server::federation::{Federation, PlannedRound};
use skep_server::record::{Cost, Observer, RoundRecord};

use crate::availability::{Presence, Schedule};
use crate::buffer::Buffer;
use crate::checkpoint::Checkpoints;
use crate::devices;
use crate::error::SimulationError;
use crate::fault::{Moment, Script};
use crate::network::Network;
use crate::seat::{Connection, Seat};
use crate::workers::{Made, Trainer, Workers};
use masked::Masked;

/// What lasts from round to round.
pub(crate) struct World<'a, T> {
    pub(crate) task: &'a Task,
    pub(crate) workers: &'a Workers<'a, T>,
    pub(crate) trainer: &'a T,
    pub(crate) devices: &'a Devices,
    /// Of the experiment's seed: what devices are like, and how slow in each round.
    pub(crate) public: Key,
    /// When clients can be reached.
    pub(crate) presence: Schedule,
    pub(crate) script: Script,
    pub(crate) interrupted: &'a AtomicBool,
    /// After how many rounds the model is measured, and after the last; never if not given.
    pub(crate) evaluate_every: Option<NonZeroU64>,
    pub(crate) federation: Federation,
    pub(crate) machine: ServerMachine,
    pub(crate) network: Network<Arrival>,
    pub(crate) now: Time,
    pub(crate) connections: u64,
    /// Whether the whole protocol of secure aggregation is computed.
    pub(crate) computes_masks: bool,
    /// Threads that compute what clients say.
    pub(crate) threads: usize,
    /// Where simulated clients' secrets come from.
    pub(crate) root: Key,
    /// What masks have been computed so far.
    pub(crate) masks: Masks,
    /// Rounds that an earlier process has run.
    pub(crate) done: Vec<RoundRecord>,
    /// Who trains, where everybody does at its own pace.
    pub(crate) buffer: Option<Buffer>,
    /// Where the simulation is kept between rounds, if it is.
    pub(crate) checkpoints: Option<Checkpoints>,
}

/// What the network delivers.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A message from a client, or the loss of its connection.
    AtServer(Event),
    /// What a client answers in a phase of a masked round.
    Answer { client: ClientId, round: Round, phase: Phase, body: Vec<u8> },
    /// A message from the server, if the connection is still there.
    AtClient { client: ClientId, connection: Connection, event: client::Event },
    /// A client's training ends.
    Trained(ClientId),
    /// The last of so many bytes of an update.
    Upload { client: ClientId, connection: Connection, bytes: u64 },
    /// The connection is lost after so many bytes of an update.
    Cut { client: ClientId, bytes: u64, back_after: Option<Span> },
    /// A lost connection is back, or a client can be reached again.
    Back(ClientId),
    /// A client can no longer be reached.
    Gone { client: ClientId, connection: Connection },
}

/// How a round ended.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) outcome: Outcome,
    pub(crate) progress: Vec<(ClientId, Progress)>,
    pub(crate) cost: Cost,
}

/// A round between its plan and its end.
struct OpenRound<'w, 'a, T> {
    world: &'w mut World<'a, T>,
    observer: &'w mut dyn Observer,
    plan: Arc<VerifiedPlan>,
    base: Arc<Vec<f32>>,
    opened: Time,
    seats: BTreeMap<ClientId, Seat>,
    /// The update that the server's machine was just told of.
    staged: Option<Made>,
    updates: u32,
    /// Of a masked round: what is computed of its masks.
    masked: Masked,
    bytes_up: u64,
    bytes_down: u64,
    closed: Option<(Outcome, Vec<(ClientId, Progress)>)>,
}

impl<'a, T: Trainer> World<'a, T> {
    /// Runs a planned round to its end; there is always one, at the latest at its deadline.
    pub(crate) fn run(
        &mut self,
        planned: PlannedRound,
        observer: &mut dyn Observer,
    ) -> Result<Closed, SimulationError> {
        let base = match planned.plan.plan().round.is_query() {
            true => self.federation.model(),
            false => self.federation.base_model(),
        };
        let (opened, seats) = (self.now, self.seats(planned.plan.plan().round, &planned.cohort));
        let mut round = OpenRound {
            world: self,
            observer,
            plan: planned.plan,
            base,
            opened,
            seats,
            staged: None,
            updates: 0,
            masked: Masked::default(),
            bytes_up: 0,
            bytes_down: 0,
            closed: None,
        };
        round.mask()?;
        round.announce_all(&planned.cohort);
        round.open(&planned.cohort)?;
        while round.world.machine.open_round().is_some() {
            round.step()?;
        }
        round.end()
    }

    /// Clients exist only for the round that they are invited to.
    fn seats(&self, round: Round, cohort: &BTreeSet<ClientId>) -> BTreeMap<ClientId, Seat> {
        let task = Arc::new(self.task.clone());
        let seat = |&client: &ClientId| {
            let pace = devices::pace(self.devices, &self.public, round, client);
            (client, Seat::new(Arc::clone(&task), pace, self.script.get(round, client)))
        };
        cohort.iter().map(seat).collect()
    }
}

impl<T: Trainer> OpenRound<'_, '_, T> {
    fn open(&mut self, cohort: &BTreeSet<ClientId>) -> Result<(), SimulationError> {
        for &client in cohort {
            match self.seats.get_mut(&client).and_then(|seat| seat.vanishes(Moment::Opening)) {
                None => self.connect(client),
                Some(back_after) => self.return_after(client, back_after),
            }
        }
        self.world.machine.open(self.world.now, self.plan.clone(), cohort)?;
        self.perform()
    }

    /// Takes the next arrival or deadline, whichever comes first.
    fn step(&mut self) -> Result<(), SimulationError> {
        if self.world.interrupted.load(Ordering::Relaxed) {
            self.world.machine.stop();
            return self.perform();
        }
        let deadline = self.world.machine.next_deadline();
        match self.world.network.next_arrival() {
            Some(at) if deadline.is_none_or(|deadline| at <= deadline) => self.receive(),
            _ => {
                self.world.now = self.world.now.max(deadline.unwrap_or_default());
                self.handle_at_server(Event::Tick);
            }
        }
        self.perform()
    }

    /// What is still under way would only be refused as late: it ends with the round.
    fn end(mut self) -> Result<Closed, SimulationError> {
        for client in self.seats.keys().copied().collect::<Vec<_>>() {
            self.cancel_work(client);
            if let Some(connection) = self.connection(client) {
                self.handle_at_server(Event::Disconnected { client, channel_binding: connection.binding() });
            }
        }
        self.world.network.clear();
        // Of a round that is aborted; a release has taken the others.
        let _ = self.world.workers.sums();
        let (outcome, progress) =
            self.closed.ok_or(SimulationError::OutOfStep("a round ended without an outcome"))?;
        let time = self.world.now.since(self.opened);
        Ok(Closed {
            outcome,
            progress,
            cost: Cost { time, bytes_up: self.bytes_up, bytes_down: self.bytes_down },
        })
    }

    fn receive(&mut self) {
        let Some((due, arrival)) = self.world.network.receive() else { return };
        self.world.now = due.at;
        match arrival {
            Arrival::AtServer(event) => self.handle_at_server(event),
            Arrival::Answer { client, round, phase, body } => self.answered(client, round, phase, &body),
            Arrival::AtClient { client, connection, event }
                if self.connection(client) == Some(connection) =>
            {
                self.handle_at_client(client, event);
            }
            Arrival::AtClient { .. } => {}
            Arrival::Trained(client) => self.trained(client),
            Arrival::Upload { client, connection, bytes } if self.connection(client) == Some(connection) => {
                self.uploaded(due, client, bytes);
            }
            Arrival::Upload { .. } => {}
            Arrival::Cut { client, bytes, back_after } => self.cut(client, bytes, back_after),
            Arrival::Back(client) => self.connect(client),
            Arrival::Gone { client, connection } if self.connection(client) == Some(connection) => {
                // It is back when it can be reached again, which `connect` finds out.
                self.vanish(client, Some(Span::default()));
            }
            Arrival::Gone { .. } => {}
        }
    }

    fn send_to_server(&mut self, client: ClientId, event: Event) {
        let Some(seat) = self.seats.get(&client) else { return };
        self.world.network.send(self.world.now + seat.pace.message(), Arrival::AtServer(event));
    }

    /// Sends to a client what takes `bytes` beside a message.
    fn send_to_client(&mut self, client: ClientId, bytes: u64, event: client::Event) {
        let Some(seat) = self.seats.get(&client) else { return };
        let Some(connection) = seat.connection else { return };
        let at = self.world.now + seat.pace.download(bytes);
        self.world.network.send(at, Arrival::AtClient { client, connection, event });
    }

    fn connection(&self, client: ClientId) -> Option<Connection> {
        self.seats.get(&client)?.connection
    }

    /// Connects a client if it can be reached, and as soon as it can.
    fn connect(&mut self, client: ClientId) {
        let until = match self.world.presence.at(client, self.world.now) {
            Presence::Here { until } => until,
            Presence::Away { until } => {
                if let Some(at) = until {
                    self.world.network.send(at, Arrival::Back(client));
                }
                return;
            }
        };
        let Some(seat) = self.seats.get_mut(&client).filter(|seat| seat.connection.is_none()) else { return };
        let connection = Connection(self.world.connections);
        self.world.connections += 1;
        seat.connection = Some(connection);
        if let Some(at) = until {
            self.world.network.send(at, Arrival::Gone { client, connection });
        }
        self.handle_at_server(Event::Connected { client, channel_binding: connection.binding() });
    }

    fn vanish(&mut self, client: ClientId, back_after: Option<Span>) {
        let Some(connection) = self.seats.get_mut(&client).and_then(|seat| seat.connection.take()) else {
            return;
        };
        self.cancel_work(client);
        self.send_to_server(client, Event::Disconnected { client, channel_binding: connection.binding() });
        self.handle_at_client(client, client::Event::Disconnected);
        self.return_after(client, back_after);
    }

    fn return_after(&mut self, client: ClientId, back_after: Option<Span>) {
        if let Some(span) = back_after {
            self.world.network.send(self.world.now + span, Arrival::Back(client));
        }
    }
}
