//! What is said in the phases of a masked round, in canonical bytes.
//!
//! The server asks, a client answers. Adverts, sealed shares and revealed shares are the business of
//! `skep_privacy::secagg`; here they are bytes on their way from one client to another.

use skep_privacy::prg::PrgId;
use skep_privacy::secagg::{COHORT_MIN, ParamsError, Party, Session, SessionError, Shape};

use crate::canonical::{CanonicalError, Reader, Writer};
use crate::ids::{ChannelBinding, ClientId, Digest};
use crate::plan::VerifiedPlan;
use crate::round::Decline;

/// The smallest cohort that a client hides in unless its owner says otherwise.
pub const MIN_COHORT: u32 = 10;

/// What expands seeds to masks. Not the plan's generator of noise: masks are most of the work of a masked round, and AES
/// instructions make them twice as fast.
const MASK_GENERATOR: PrgId = PrgId::Aes256Ctr;

/// The session of secure aggregation that a plan describes, by the reckoning of whoever asks: numbers that do not hide an
/// update are refused, whoever signed them.
///
/// # Errors
/// [`Decline::SmallCohort`], [`Decline::WeakThreshold`], [`Decline::BadPeers`] where the cohort does not add up, or
/// [`Decline::Inconsistent`] for a plan without masks.
pub fn session(plan: &VerifiedPlan, min_cohort: u32) -> Result<Session, Decline> {
    if plan.plan().masking().is_some() && plan.plan().cohort_max < min_cohort {
        return Err(Decline::SmallCohort);
    }
    plan.session(|| work_out(plan))
}

fn work_out(plan: &VerifiedPlan) -> Result<Session, Decline> {
    let digest = plan.digest();
    let plan = plan.plan();
    let params = plan.masking().ok_or(Decline::Inconsistent)?.params(plan.cohort_max, COHORT_MIN);
    let params = params.map_err(|error| match error {
        ParamsError::CohortTooSmall { .. } => Decline::SmallCohort,
        _ => Decline::WeakThreshold,
    })?;
    let len = usize::try_from(plan.update_len()).map_err(|_| Decline::Inconsistent)?;
    let shape = Shape { len, bits: plan.encoding.wire_bits, generator: MASK_GENERATOR };
    let members = plan.cohort.clients().iter().map(|client| Party(client.0));
    Session::new(&digest.0, &plan.base_model.0, params, shape, members).map_err(|error| match error {
        SessionError::Cohort { .. } | SessionError::MembersUnknown => Decline::BadPeers,
        SessionError::Shape { .. } => Decline::Inconsistent,
    })
}

/// Whether a client that hides in cohorts of at least `min_cohort` can be hidden by a plan; what it asks before it trains. A
/// plan without masks hides nobody, and is admitted.
///
/// # Errors
/// As [`session`], and [`Decline::BadPeers`] where the client itself is not in the cohort.
pub fn admits(plan: &VerifiedPlan, client: ClientId, min_cohort: u32) -> Result<(), Decline> {
    if plan.plan().masking().is_none() {
        return Ok(());
    }
    session(plan, min_cohort)?;
    if plan.plan().cohort.contains(client) { Ok(()) } else { Err(Decline::BadPeers) }
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
