//! One connection: frames in, frames out, while the driver goes on.

use std::time::Duration;

use skep_protocol::experiment::Task;
use skep_protocol::message::{Offer, ServerMessage, TurnAway};
use skep_protocol::net::frame::{Bytes, CHUNK_LIMIT, Chunk, Frame};
use skep_protocol::net::identity::Identity;
use skep_protocol::net::websocket::{Connection, FrameSink, NetError, Timeouts};
use skep_protocol::plan::SignedPlan;
use skep_protocol::round::Refusal;
use skep_protocol::round::client::Event;
use skep_protocol::{ChannelBinding, Digest, Round, codec};
use tokio::sync::mpsc::{self, Receiver, Sender, error::TryRecvError};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use crate::driver::{Driver, Outgoing};
use crate::join::{JoinError, Lost};

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Parted {
    /// The server says that the federation is over.
    Finished,
    /// It broke.
    Lost(Lost),
}

/// Receives the server's first message, the task.
///
/// # Errors
/// [`JoinError::NoWelcome`] when it is another one, [`JoinError::Message`] when it is none.
pub(crate) async fn welcome(
    connection: &mut Connection,
    patience: Duration,
) -> Result<Result<Task, Lost>, JoinError> {
    let frame = match timeout(patience, connection.stream.receive()).await {
        Err(_) => return Ok(Err(NetError::Idle(patience).into())),
        Ok(Err(error)) => return Ok(Err(error.into())),
        Ok(Ok(None)) => return Ok(Err(Lost::Closed)),
        Ok(Ok(Some(frame))) => frame,
    };
    match frame {
        Frame::Control(bytes) => match codec::decode(&bytes)? {
            ServerMessage::Welcome(task) => Ok(Ok(*task)),
            ServerMessage::TurnedAway(reason) => turned_away(reason).map(Err),
            _ => Err(JoinError::NoWelcome),
        },
        Frame::Chunk(_) => Err(JoinError::NoWelcome),
    }
}

/// Takes part over one connection, whose welcome has been received.
///
/// # Errors
/// [`JoinError`] when the server says what no connection could make good.
pub(crate) async fn run(
    identity: &Identity,
    driver: &mut Driver,
    connection: Connection,
    timeouts: &Timeouts,
) -> Result<Parted, JoinError> {
    let Connection { sink, mut stream, channel_binding, .. } = connection;
    let (orders, queue) = mpsc::channel(QUEUE);
    // In a set, so that the writer ends with this function, however that ends.
    let mut writer = JoinSet::new();
    writer.spawn(write(sink, queue, timeouts.idle / PINGS_PER_IDLE_TIME));
    driver.connected(&channel_binding);
    loop {
        say_all(identity, driver, &channel_binding, &orders).await?;
        tokio::select! {
            frame = stream.receive() => match frame {
                Ok(Some(Frame::Chunk(chunk))) => driver.chunk(&chunk),
                Ok(Some(Frame::Control(bytes))) => match codec::decode(&bytes)? {
                    ServerMessage::Finished => break,
                    ServerMessage::TurnedAway(reason) => return Ok(lost(driver, turned_away(reason)?)),
                    message => hear(identity, driver, message)?,
                },
                Ok(None) => return Ok(lost(driver, Lost::Closed)),
                Err(error) => return Ok(lost(driver, error.into())),
            },
            Some(written) = writer.join_next() => {
                let reason = match written {
                    Ok(Err(error)) => error.into(),
                    Ok(Ok(())) | Err(_) => Lost::Closed,
                };
                return Ok(lost(driver, reason));
            }
            () = driver.wake() => {}
        }
    }
    // Without orders the writer says goodbye.
    drop(orders);
    writer.join_next().await;
    Ok(Parted::Finished)
}

fn lost(driver: &mut Driver, reason: Lost) -> Parted {
    driver.handle(Event::Disconnected);
    Parted::Lost(reason)
}

/// A reason to come back later, unless it is one not to.
fn turned_away(reason: TurnAway) -> Result<Lost, JoinError> {
    if reason.is_final() { Err(JoinError::TurnedAway(reason)) } else { Ok(Lost::TurnedAway(reason)) }
}

fn hear(identity: &Identity, driver: &mut Driver, message: ServerMessage) -> Result<(), JoinError> {
    match message {
        ServerMessage::Welcome(_) | ServerMessage::Finished | ServerMessage::TurnedAway(_) => {}
        ServerMessage::Invite(signed) => invited(identity, driver, signed)?,
        ServerMessage::Rotated(records) => driver.rotated(identity.plan_key(), &records)?,
        ServerMessage::Model { round, len, digest } => driver.announced(round, len, digest),
        ServerMessage::Grant { round, offset, until } => {
            driver.handle(Event::Granted { round, offset, until })
        }
        ServerMessage::Committed { round } => driver.handle(Event::Committed { round }),
        ServerMessage::Proof { round, proof } => driver.proved(round, &proof)?,
        ServerMessage::Refused { round, reason } => {
            if let (Some(round), Refusal::Unexpected) = (round, reason) {
                driver.unproved(round)?;
            }
            warn!(round = round.map(|round| round.training().0), %reason, "the server refuses");
            driver.handle(Event::Refused { round, reason });
        }
        ServerMessage::Asked { round, phase, part, last } => driver.asked(round, phase, &part, last),
        ServerMessage::Closed { round, released } => driver.handle(Event::Closed { round, released }),
    }
    Ok(())
}

fn invited(identity: &Identity, driver: &mut Driver, signed: SignedPlan) -> Result<(), JoinError> {
    driver.invited(signed.verify(&driver.plan_key(identity.plan_key()))?)
}

/// Passes what the driver wants said to the writer. A writer that is gone says why when it is joined.
async fn say_all(
    identity: &Identity,
    driver: &mut Driver,
    binding: &ChannelBinding,
    orders: &Sender<Order>,
) -> Result<(), JoinError> {
    while let Some(outgoing) = driver.next_outgoing() {
        let order = match outgoing {
            Outgoing::Say(message) => Order::Say(codec::encode(&message)?.into()),
            Outgoing::Offer(plan, offer) => {
                let message =
                    skep_protocol::message::ClientMessage::Offer(sign(identity, &plan, offer, binding));
                Order::Say(codec::encode(&message)?.into())
            }
            Outgoing::Upload { round, offset, packed } => {
                Order::Transfer(Some(Transfer { round, offset: offset as usize, packed }))
            }
            Outgoing::Abandon => Order::Transfer(None),
        };
        if orders.send(order).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn sign(identity: &Identity, plan: &Digest, offer: Offer, binding: &ChannelBinding) -> Offer {
    let text = Offer::signed_text(plan, offer.len, &offer.digest, binding);
    Offer { signature: identity.sign(&text).0.to_vec(), ..offer }
}

/// What the writer must do.
enum Order {
    /// Send a control message before anything else.
    Say(Bytes),
    /// Send this from now on, in place of what was being sent.
    Transfer(Option<Transfer>),
}

/// The rest of an update.
struct Transfer {
    round: Round,
    offset: usize,
    packed: Bytes,
}

impl Transfer {
    fn next_chunk(&mut self) -> Option<Frame> {
        let end = self.packed.len().min(self.offset.saturating_add(CHUNK_LIMIT));
        if self.offset >= end {
            return None;
        }
        let contents = self.packed.slice(self.offset..end);
        let chunk = Chunk { transfer: self.round.0, offset: self.offset as u64, contents };
        self.offset = end;
        Some(Frame::Chunk(chunk))
    }
}

/// Sends control messages as they come and chunks between them, pings when there is neither, and says goodbye when no
/// more orders can come.
async fn write(
    mut sink: FrameSink,
    mut orders: Receiver<Order>,
    ping_every: Duration,
) -> Result<(), NetError> {
    let mut transfer: Option<Transfer> = None;
    loop {
        let order = match transfer.as_mut().and_then(Transfer::next_chunk) {
            Some(chunk) => {
                sink.send(&chunk).await?;
                match orders.try_recv() {
                    Err(TryRecvError::Empty) => continue,
                    Err(TryRecvError::Disconnected) => None,
                    Ok(order) => Some(order),
                }
            }
            None => match timeout(ping_every, orders.recv()).await {
                Ok(order) => order,
                Err(_) => {
                    sink.ping().await?;
                    continue;
                }
            },
        };
        match order {
            Some(Order::Say(message)) => sink.send(&Frame::Control(message)).await?,
            Some(Order::Transfer(next)) => transfer = next,
            None => return sink.close().await,
        }
    }
}

/// Orders between driver and writer; more wait with the driver.
const QUEUE: usize = 8;
/// So that one lost ping does not end the connection.
const PINGS_PER_IDLE_TIME: u32 = 4;
