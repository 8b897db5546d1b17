//! What is said in the phases of a masked round, in canonical bytes.
//!
//! The server asks, a client answers. Adverts, sealed shares and revealed shares are the business of
//! `skep_privacy::secagg`; here they are bytes on their way from one client to another.

use std::sync::Arc;

use skep_privacy::prg::PrgId;
use skep_privacy::secagg::{self, COHORT_MIN, ParamsError, Party, Session, SessionError, Shape};

use crate::canonical::{CanonicalError, Reader, Writer};
use crate::ids::{ChannelBinding, ClientId, Digest};
use crate::plan::VerifiedPlan;
use crate::round::Decline;

/// The smallest cohort that a client hides in unless its owner says otherwise.
pub const MIN_COHORT: u32 = 10;

/// What expands seeds to masks. Not the plan's generator of noise: masks are most of the work of a masked round, and AES
/// instructions make them twice as fast.
const MASK_GENERATOR: PrgId = PrgId::Aes256Ctr;

/// The groups of a cohort, each with a session of secure aggregation; one, if it is small enough.
#[derive(Clone, Debug)]
pub struct Groups(Arc<[Group]>);

/// Clients that are summed up together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its members, in ascending order.
    pub clients: Vec<ClientId>,
    /// Its run of the protocol.
    pub session: Session,
}

impl Groups {
    /// All of them.
    pub fn all(&self) -> &[Group] {
        &self.0
    }

    /// The number of the group that a client is in.
    pub fn of(&self, client: ClientId) -> Option<usize> {
        self.0.iter().position(|group| group.clients.binary_search(&client).is_ok())
    }
}

/// The groups and sessions that a plan describes, by the reckoning of whoever asks: numbers that do not hide an update are
/// refused, whoever signed them. Who is in which group follows from the plan's digest.
///
/// # Errors
/// [`Decline::SmallCohort`], [`Decline::WeakThreshold`], [`Decline::BadPeers`] where the cohort does not add up, or
/// [`Decline::Inconsistent`] for a plan without masks.
pub fn groups(plan: &VerifiedPlan) -> Result<Groups, Decline> {
    plan.groups(|| work_out(plan))
}

fn work_out(plan: &VerifiedPlan) -> Result<Groups, Decline> {
    let digest = plan.digest();
    let plan = plan.plan();
    let masking = plan.masking().ok_or(Decline::Inconsistent)?;
    if plan.cohort.size() != plan.cohort_max {
        return Err(Decline::BadPeers);
    }
    let params = masking.params(plan.cohort_max, COHORT_MIN).map_err(|error| match error {
        ParamsError::CohortTooSmall { .. } => Decline::SmallCohort,
        _ => Decline::WeakThreshold,
    })?;
    let len = usize::try_from(plan.update_len()).map_err(|_| Decline::Inconsistent)?;
    let shape = Shape { len, bits: plan.encoding.wire_bits, generator: MASK_GENERATOR };
    let members: Vec<_> = plan.cohort.clients().iter().map(|client| Party(client.0)).collect();
    let group = |members: Vec<Party>| {
        let clients = members.iter().map(|party| ClientId(party.0)).collect();
        let session = Session::new(&digest.0, &plan.base_model.0, params, shape, members);
        let session = session.map_err(|error| match error {
            SessionError::Cohort { .. } | SessionError::MembersUnknown => Decline::BadPeers,
            SessionError::Shape { .. } => Decline::Inconsistent,
        });
        Ok(Group { clients, session: session? })
    };
    let drawn = secagg::groups(&digest.0, &members, masking.group_size);
    Ok(Groups(drawn.into_iter().map(group).collect::<Result<_, Decline>>()?))
}

/// The session of a client that hides in groups of at least `min_cohort`.
///
/// # Errors
/// As [`groups`], and [`Decline::BadPeers`] where the client itself is not in the cohort.
pub fn session(plan: &VerifiedPlan, client: ClientId, min_cohort: u32) -> Result<Session, Decline> {
    if plan.plan().masking().is_some_and(|masking| masking.group_size < min_cohort) {
        return Err(Decline::SmallCohort);
    }
    let groups = groups(plan)?;
    let group = groups.of(client).ok_or(Decline::BadPeers)?;
    Ok(groups.0[group].session.clone())
}

/// Whether a client that hides in groups of at least `min_cohort` can be hidden by a plan; what it asks before it trains. A
/// plan without masks hides nobody, and is admitted.
///
/// # Errors
/// As [`session`].
pub fn admits(plan: &VerifiedPlan, client: ClientId, min_cohort: u32) -> Result<(), Decline> {
    match plan.plan().masking() {
        Some(_) => session(plan, client, min_cohort).map(drop),
        None => Ok(()),
    }
}

/// A client as its peers meet it. The client itself sends its advert alone, as the answer in
/// [`Phase::Keys`](crate::round::Phase::Keys); the server adds the certificate that the connection was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The certificate that names the client and its identity key, in DER; drivers without certificates have another proof
    /// here.
    pub certificate: Vec<u8>,
    /// Its keys, signed by its identity.
    pub advert: Vec<u8>,
}

/// What a client answers in [`Phase::Shares`](crate::round::Phase::Shares): an envelope for each of its share holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares(pub Vec<Envelope>);

/// What is asked in [`Phase::Shares`](crate::round::Phase::Shares): the neighbours, in order of their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers(pub Vec<(ClientId, Introduction)>);

/// What is asked in [`Phase::Collecting`](crate::round::Phase::Collecting).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whose shares have all arrived, in order of their ids.
    pub shared: Vec<ClientId>,
    /// What they sent to this client, in order of their ids.
    pub inbox: Vec<Envelope>,
}

/// What is asked in [`Phase::Consistency`](crate::round::Phase::Consistency): whose updates are in the sum, in order of their
/// ids. It is answered by a signature, 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors(pub Vec<ClientId>);

/// What is asked in [`Phase::Reveal`](crate::round::Phase::Reveal): the signatures of a client's share holders, in order of
/// their ids. It is answered by shares, as `skep_privacy::secagg` encodes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures(pub Vec<(ClientId, [u8; 64])>);

/// A sealed message from one client to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// To whom on its way to the server, from whom on its way from it.
    pub peer: ClientId,
    /// What only sender and receiver can read.
    pub sealed: Vec<u8>,
}

/// A body of a message in a phase.
pub trait Body: Sized {
    /// Keeps bodies of different kinds apart.
    const DOMAIN: &'static str;

    /// Writes the fields.
    fn write(&self, writer: &mut Writer);

    /// Reads the fields.
    ///
    /// # Errors
    /// [`CanonicalError`].
    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError>;

    /// The canonical encoding.
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Self::DOMAIN);
        self.write(&mut writer);
        writer.finish()
    }

    /// Decodes a canonical encoding.
    ///
    /// # Errors
    /// [`CanonicalError`] for anything but the bytes of [`Body::to_bytes`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, CanonicalError> {
        let mut reader = Reader::new(bytes, Self::DOMAIN)?;
        let body = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(body)
    }
}

impl Body for Introduction {
    const DOMAIN: &'static str = "skep masked introduction v1";

    fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.certificate).bytes(&self.advert);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        Ok(Introduction { certificate: reader.bytes()?.to_vec(), advert: reader.bytes()?.to_vec() })
    }
}

impl Body for Peers {
    const DOMAIN: &'static str = "skep masked peers v1";

    fn write(&self, writer: &mut Writer) {
        writer.length(self.0.len());
        for (client, introduction) in &self.0 {
            introduction.write(writer.u64(client.0));
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let peer = |reader: &mut Reader<'_>| Ok((read_client(reader)?, Introduction::read(reader)?));
        read_list(reader, 16, peer).map(Peers)
    }
}

impl Body for Shares {
    const DOMAIN: &'static str = "skep masked shares v1";

    fn write(&self, writer: &mut Writer) {
        write_envelopes(writer, &self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        read_list(reader, 12, read_envelope).map(Shares)
    }
}

impl Body for Delivery {
    const DOMAIN: &'static str = "skep masked delivery v1";

    fn write(&self, writer: &mut Writer) {
        write_clients(writer, &self.shared);
        write_envelopes(writer, &self.inbox);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let shared = read_list(reader, 8, read_client)?;
        Ok(Delivery { shared, inbox: read_list(reader, 12, read_envelope)? })
    }
}

impl Body for Survivors {
    const DOMAIN: &'static str = "skep masked survivors v1";

    fn write(&self, writer: &mut Writer) {
        write_clients(writer, &self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        read_list(reader, 8, read_client).map(Survivors)
    }
}

impl Body for Signatures {
    const DOMAIN: &'static str = "skep masked signatures v1";

    fn write(&self, writer: &mut Writer) {
        writer.length(self.0.len());
        for (client, signature) in &self.0 {
            writer.u64(client.0).bytes(signature);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, CanonicalError> {
        let signed = |reader: &mut Reader<'_>| {
            let client = read_client(reader)?;
            let signature = reader.bytes()?.try_into();
            Ok((client, signature.map_err(|_| CanonicalError::OutOfRange("signature"))?))
        };
        read_list(reader, 12, signed).map(Signatures)
    }
}

/// The name of a connection in an advert, which peers see: it tells nothing of the binding itself, which stays between the
/// two ends.
pub fn connection_name(binding: &ChannelBinding) -> Digest {
    let mut writer = Writer::new("skep connection name v1");
    writer.array(&binding.0);
    Digest::of(&writer.finish())
}

fn write_clients(writer: &mut Writer, clients: &[ClientId]) {
    writer.length(clients.len());
    for client in clients {
        writer.u64(client.0);
    }
}

fn read_client(reader: &mut Reader<'_>) -> Result<ClientId, CanonicalError> {
    reader.u64().map(ClientId)
}

fn write_envelopes(writer: &mut Writer, envelopes: &[Envelope]) {
    writer.length(envelopes.len());
    for Envelope { peer, sealed } in envelopes {
        writer.u64(peer.0).bytes(sealed);
    }
}

fn read_envelope(reader: &mut Reader<'_>) -> Result<Envelope, CanonicalError> {
    Ok(Envelope { peer: read_client(reader)?, sealed: reader.bytes()?.to_vec() })
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    item_bytes: usize,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, CanonicalError>,
) -> Result<Vec<T>, CanonicalError> {
    let length = reader.length(item_bytes)?;
    (0..length).map(|_| item(reader)).collect()
}
