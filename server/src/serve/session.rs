//! One connection of an enrolled client: a reader and a writer around two queues.
//!
//! The writer takes from a queue of its own, so a client that does not read delays nobody; the reader checks all that
//! can be checked without the round, so the driver does little for each message.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_protocol::message::{ClientMessage, Offer};
use skep_protocol::net::Traffic;
use skep_protocol::net::frame::{Bytes, CHUNK_LIMIT, Chunk, Frame};
use skep_protocol::net::rate::Bucket;
use skep_protocol::net::tls::PeerIdentity;
use skep_protocol::net::websocket::{Connection, FrameSink, FrameStream, NetError};
use skep_protocol::round::Refusal;
use skep_protocol::{ChannelBinding, ClientId, Digest, Round, codec};
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::driver::{Input, Staged};
use super::uploads::{Received, Slot, Whole};
use super::{GOODBYE, Open, Shared};

/// The driver's end of a connection. Dropping it closes the connection after what is queued, except a model, was sent or
/// the client has not taken it for [`GOODBYE`].
#[derive(Debug)]
pub(super) struct Peer {
    /// Who it is, by the certificate.
    pub(super) identity: PeerIdentity,
    /// Which connection.
    pub(super) binding: ChannelBinding,
    /// Where its chunks go.
    pub(super) slot: Slot,
    /// Its bytes.
    pub(super) traffic: Arc<Traffic>,
    /// The round whose model was sent last.
    pub(super) model_sent: Option<Round>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Nothing is ever sent: that it is dropped says that the driver has let go.
    _held: oneshot::Sender<Infallible>,
}

/// What waits to be sent.
#[derive(Debug)]
enum Outgoing {
    /// A message; the client no longer needs the model of the round that it `ends`.
    Message { encoded: Bytes, ends: Option<Round> },
    /// A model, in chunks, between which messages may pass.
    Model(Transfer),
}

#[derive(Debug)]
struct Transfer {
    round: Round,
    model: Bytes,
    sent: usize,
}

/// The client does not take what it is sent.
#[derive(Debug)]
pub(super) struct Overflow;

impl Peer {
    /// Queues a message.
    pub(super) fn send(&self, encoded: Bytes, ends: Option<Round>) -> Result<(), Overflow> {
        self.queue(Outgoing::Message { encoded, ends })
    }

    /// Queues a model, after the message that announces it.
    pub(super) fn send_model(&self, round: Round, model: Bytes) -> Result<(), Overflow> {
        self.queue(Outgoing::Model(Transfer { round, model, sent: 0 }))
    }

    fn queue(&self, item: Outgoing) -> Result<(), Overflow> {
        self.outgoing.try_send(item).map_err(|_| Overflow)
    }
}

/// Lives as long as the connection.
pub(super) async fn run(connection: Connection, identity: PeerIdentity, shared: Arc<Shared>) {
    let (outgoing, queue) = mpsc::channel(OUTGOING_LIMIT);
    let (held, let_go) = oneshot::channel();
    let binding = connection.channel_binding;
    let reader =
        Reader { identity: identity.clone(), binding, slot: Slot::default(), shared: Arc::clone(&shared) };
    let peer = Peer {
        identity,
        binding,
        slot: reader.slot.clone(),
        traffic: connection.traffic,
        model_sent: None,
        outgoing,
        _held: held,
    };
    let client = reader.client();
    if shared.inputs.send(Input::Connected(peer)).await.is_err() {
        return;
    }
    let reading = async {
        match reader.read(connection.stream).await {
            Parting::Gone => {}
            // The driver refuses by name and lets go of the connection; the refusal is still to be sent.
            Parting::Violated => std::future::pending().await,
        }
    };
    let too_late = async {
        let _ = let_go.await;
        sleep(GOODBYE).await;
    };
    tokio::select! {
        () = reading => {}
        () = too_late => debug!(%client, "left without reading what it was sent"),
        written = write(connection.sink, queue, shared.options.timeouts.idle / PINGS) => {
            if let Err(error) = written {
                debug!(%client, %error, "sending ended");
            }
        }
    }
    let _ = shared.inputs.send(Input::Disconnected { client, binding }).await;
}

async fn write(
    mut sink: FrameSink,
    mut queue: mpsc::Receiver<Outgoing>,
    quiet: Duration,
) -> Result<(), NetError> {
    let mut model: Option<Transfer> = None;
    loop {
        match next(&mut queue, model.is_some(), quiet).await {
            Next::Closed => return sink.close().await,
            Next::Quiet => sink.ping().await?,
            Next::Item(Outgoing::Message { encoded, ends }) => {
                model.take_if(|transfer| Some(transfer.round) == ends);
                sink.send(&Frame::Control(encoded)).await?;
            }
            Next::Item(Outgoing::Model(transfer)) => model = Some(transfer),
            Next::Idle => match model.as_mut().and_then(Transfer::chunk) {
                Some(chunk) => sink.send(&Frame::Chunk(chunk)).await?,
                None => model = None,
            },
        }
    }
}

enum Next {
    Item(Outgoing),
    /// Nothing is queued; time for a chunk.
    Idle,
    /// Nothing was queued for a while; time for a ping.
    Quiet,
    Closed,
}

async fn next(queue: &mut mpsc::Receiver<Outgoing>, transferring: bool, quiet: Duration) -> Next {
    if transferring {
        return match queue.try_recv() {
            Ok(item) => Next::Item(item),
            Err(TryRecvError::Empty) => Next::Idle,
            Err(TryRecvError::Disconnected) => Next::Closed,
        };
    }
    match timeout(quiet, queue.recv()).await {
        Ok(Some(item)) => Next::Item(item),
        Ok(None) => Next::Closed,
        Err(_) => Next::Quiet,
    }
}

impl Transfer {
    /// The next chunk, a view of the model that all clients share.
    fn chunk(&mut self) -> Option<Chunk> {
        let end = self.model.len().min(self.sent + CHUNK_LIMIT);
        let contents = self.model.slice(self.sent..end);
        let offset = std::mem::replace(&mut self.sent, end) as u64;
        (!contents.is_empty()).then_some(Chunk { transfer: self.round.0, offset, contents })
    }
}

struct Reader {
    identity: PeerIdentity,
    binding: ChannelBinding,
    slot: Slot,
    shared: Arc<Shared>,
}

/// How reading ended.
enum Parting {
    /// The client, or the whole server, is gone.
    Gone,
    /// The client broke the rules.
    Violated,
}

/// Nobody listens any more.
struct Over;

impl Reader {
    fn client(&self) -> ClientId {
        self.identity.client
    }

    async fn read(&self, mut stream: FrameStream) -> Parting {
        let options = &self.shared.options;
        stream.limit(options.frames);
        let mut messages = Bucket::full(options.messages, Instant::now());
        let mut round = None;
        loop {
            let frame = stream.receive().await;
            let open = self.shared.open.borrow().map(|open| open.round);
            if open.is_some() && open != round {
                // However fast rounds follow one another, each is the server's own doing.
                round = open;
                messages.give(MESSAGES_A_ROUND);
            }
            let taken = match frame {
                Ok(None) => return Parting::Gone,
                Ok(Some(Frame::Control(_))) if !messages.take(Instant::now()) => Err(Refusal::TooFast),
                Ok(Some(Frame::Control(encoded))) => self.message(&encoded).await,
                Ok(Some(Frame::Chunk(chunk))) => self.chunk(&chunk),
                Err(error) => {
                    debug!(client = %self.client(), %error, "receiving ended");
                    match violation(&error) {
                        Some(reason) => Err(reason),
                        None => return Parting::Gone,
                    }
                }
            };
            match taken {
                Ok(Ok(())) => {}
                Ok(Err(Over)) => return Parting::Gone,
                Err(reason) => return self.violated(reason).await,
            }
        }
    }

    async fn message(&self, encoded: &[u8]) -> Result<Result<(), Over>, Refusal> {
        let message: ClientMessage = codec::decode(encoded).map_err(|error| {
            debug!(client = %self.client(), %error, "not a message");
            Refusal::Malformed
        })?;
        let signed_for = match &message {
            ClientMessage::Offer(offer) => self.verify(offer)?,
            _ => None,
        };
        let (client, binding) = (self.client(), self.binding);
        Ok(self.tell(Input::Said { client, binding, message, signed_for }).await)
    }

    /// The plan that the offer is signed for; none when it names another round than the open one, and is refused for that.
    fn verify(&self, offer: &Offer) -> Result<Option<Digest>, Refusal> {
        let Some(Open { plan, .. }) = self.shared.open.borrow().filter(|open| open.round == offer.round)
        else {
            return Ok(None);
        };
        let text = Offer::signed_text(&plan, offer.len, &offer.digest, &self.binding);
        match self.identity.public_key.verify(&text, &offer.signature) {
            Ok(()) => Ok(Some(plan)),
            Err(_) => Err(Refusal::BadSignature),
        }
    }

    fn chunk(&self, chunk: &Chunk) -> Result<Result<(), Over>, Refusal> {
        match self.slot.receive(self.binding, chunk) {
            Received::More => Ok(Ok(())),
            Received::Refused(reason) => Err(reason),
            Received::Whole(whole) => {
                // A task of its own: an upload that is whole counts even if its connection is lost now.
                tokio::spawn(stage(self.client(), whole, Arc::clone(&self.shared)));
                Ok(Ok(()))
            }
        }
    }

    async fn violated(&self, reason: Refusal) -> Parting {
        let (client, binding) = (self.client(), self.binding);
        match self.tell(Input::Violated { client, binding, reason }).await {
            Ok(()) => Parting::Violated,
            Err(Over) => Parting::Gone,
        }
    }

    async fn tell(&self, input: Input) -> Result<(), Over> {
        self.shared.inputs.send(input).await.map_err(|_| Over)
    }
}

/// Tests an upload where heavy work is allowed. The permit bounds how many unpacked updates there are, until the sum
/// has taken them in.
async fn stage(client: ClientId, whole: Whole, shared: Arc<Shared>) {
    let round = whole.round;
    let Ok(permit) = Arc::clone(&shared.staging).acquire_owned().await else { return };
    // Of a round that is over nobody wants it.
    let Some(Open { stager, .. }) = shared.open.borrow().filter(|open| open.round == round) else { return };
    let Ok(result) = tokio::task::spawn_blocking(move || whole.stage(&stager)).await else { return };
    let result = result.map(|update| Staged { update, _permit: permit });
    let _ = shared.inputs.send(Input::Staged { client, round, result }).await;
}

/// How the peer broke the rules of the connection, unless it was the network that failed.
fn violation(error: &NetError) -> Option<Refusal> {
    match error {
        NetError::Text(_) | NetError::Frame(_) | NetError::Oversized { .. } => Some(Refusal::Malformed),
        NetError::TooFast => Some(Refusal::TooFast),
        _ => None,
    }
}

/// What a client says in a round: that it accepts, an offer, an answer in each of four phases, a question for proof, and one of these again.
const MESSAGES_A_ROUND: f64 = 8.0;
/// Things queued for one client, beyond which it is cut off: a round needs about six.
const OUTGOING_LIMIT: usize = 32;
/// Pings in an idle time, so that losing one does not end a connection.
const PINGS: u32 = 3;
