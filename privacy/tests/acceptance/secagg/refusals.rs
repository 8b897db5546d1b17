//! Statement 6: whatever a server substitutes, a client refuses it with an error of its own; and the server a client.

use std::collections::BTreeMap;

use skep_privacy::prg::PrgId;
use skep_privacy::quantities::DropoutFraction;
use skep_privacy::secagg::client::{Advertised, Masked, Paired, Shared, advertise};
use skep_privacy::secagg::server::Directory;
use skep_privacy::secagg::{AdvertError, Consent, Envelope, Refusal, Rejection, WireError};

use super::exactness::update;
use super::testing::{connection, identity, params, parties, rng};
use super::{CorruptFraction, Identity, Params, Party, Peer, Session, Shape};

const COHORT: u32 = 10;
const LEN: usize = 100;

fn session(plan: u8) -> Session {
    let shape = Shape { len: LEN, bits: 24, generator: PrgId::ChaCha20 };
    Session::new(&[plan; 32], &[2; 32], params(COHORT), shape, parties(COHORT)).unwrap()
}

fn everybody() -> Vec<Party> {
    parties(COHORT).collect()
}

type Adverts = BTreeMap<Party, Vec<u8>>;

fn keys(session: &Session) -> (BTreeMap<Party, Advertised>, Adverts) {
    let (mut steps, mut adverts) = (BTreeMap::new(), BTreeMap::new());
    for party in everybody() {
        let (step, advert) =
            advertise(session, party, &connection(party), &identity(party), &mut rng(party, 1)).unwrap();
        steps.insert(party, step);
        adverts.insert(party, advert);
    }
    (steps, adverts)
}

fn peers(adverts: &Adverts) -> Vec<Peer<'_>> {
    let mut peers = Vec::new();
    for (&party, advert) in adverts {
        peers.push(Peer { party, identity: identity(party).public_key(), advert });
    }
    peers
}

/// The first client, shown these adverts.
fn shown(adverts: &[Peer<'_>]) -> Refusal {
    let (mut steps, _) = keys(&session(1));
    let step = steps.remove(&everybody()[0]).unwrap();
    step.share(adverts, &mut rng(everybody()[0], 2)).err().unwrap()
}

fn refused(party: usize, reason: AdvertError) -> Refusal {
    Refusal::Advert { party: everybody()[party], reason }
}

#[test]
fn t06_adverts_that_the_sender_has_not_made_for_this_session() {
    let (_, adverts) = keys(&session(1));
    // Signed by somebody else.
    let mut wrong = peers(&adverts);
    wrong[3].identity = identity(everybody()[4]).public_key();
    assert_eq!(shown(&wrong), refused(3, AdvertError::Signature));
    // Another client's, under this one's name.
    let mut wrong = peers(&adverts);
    wrong[3].advert = wrong[4].advert;
    assert_eq!(shown(&wrong), refused(3, AdvertError::Signature));
    // Replayed from another plan.
    let (_, old) = keys(&session(7));
    let mut wrong = peers(&adverts);
    wrong[3].advert = &old[&everybody()[3]];
    assert_eq!(shown(&wrong), refused(3, AdvertError::Signature));
    // Altered anywhere.
    for at in 2..adverts[&everybody()[3]].len() {
        let mut altered = adverts.clone();
        altered.get_mut(&everybody()[3]).unwrap()[at] ^= 0x40;
        assert_eq!(shown(&peers(&altered)), refused(3, AdvertError::Signature), "byte {at}");
    }
    // Cut, lengthened, of another version or kind.
    type Break = fn(&mut Vec<u8>);
    let broken: [(Break, WireError); 4] = [
        (|bytes| bytes.truncate(bytes.len() - 1), WireError::TooShort),
        (|bytes| bytes.push(0), WireError::LeftOver(1)),
        (|bytes| bytes[0] = 9, WireError::Version(9)),
        (|bytes| bytes[1] = 2, WireError::Kind { expected: 1, found: 2 }),
    ];
    for (breaks, reason) in broken {
        let mut adverts = adverts.clone();
        breaks(adverts.get_mut(&everybody()[3]).unwrap());
        assert_eq!(shown(&peers(&adverts)), refused(3, reason.into()));
    }
}

#[test]
fn t06_adverts_that_do_not_belong_together() {
    let session = session(1);
    let (_, adverts) = keys(&session);
    let all = peers(&adverts);
    assert_eq!(shown(&[all[2], all[1]]), Refusal::Order);
    assert_eq!(shown(&[all[2], all[2]]), Refusal::Order);
    // Two clients with the same keys, each under its own signature: of one who has two identities.
    let twin = everybody()[4];
    let (_, same) =
        advertise(&session, twin, &[0; 32], &identity(twin), &mut rng(everybody()[3], 1)).unwrap();
    let mut wrong = all.clone();
    let genuine = wrong[4].advert;
    wrong[4].advert = &same;
    // The seed of pair masks is bound to its owner, the channel key is not.
    assert_eq!(shown(&wrong), refused(4, AdvertError::DuplicateKey(everybody()[3])));
    wrong[4].advert = genuine;
    // One identity under two numbers.
    let (_, again) =
        advertise(&session, twin, &[0; 32], &identity(everybody()[3]), &mut rng(twin, 5)).unwrap();
    wrong[4] = Peer { party: twin, identity: wrong[3].identity, advert: &again };
    assert_eq!(shown(&wrong), refused(4, AdvertError::DuplicateKey(everybody()[3])));
    // A stranger.
    let stranger = Party(1);
    let (_, made) = keys_of_stranger(stranger);
    let foreign = Peer { party: stranger, identity: identity(stranger).public_key(), advert: &made };
    let with_stranger = [&[foreign], &all[2..]].concat();
    assert_eq!(shown(&with_stranger), Refusal::Advert { party: stranger, reason: AdvertError::NotInCohort });
    assert_eq!(shown(&all[..6]), Refusal::TooFewHolders { alive: 5, threshold: 6 });
}

fn keys_of_stranger(stranger: Party) -> (Advertised, Vec<u8>) {
    let shape = session(1).shape();
    let open = Session::new(&[1; 32], &[2; 32], params(COHORT), shape, []).unwrap();
    advertise(&open, stranger, &[0; 32], &identity(stranger), &mut rng(stranger, 1)).unwrap()
}

#[test]
fn t06_more_clients_than_the_plan_says() {
    let shape = session(1).shape();
    let open = Session::new(&[1; 32], &[2; 32], params(COHORT), shape, []).unwrap();
    let mut adverts = BTreeMap::new();
    let mut steps = Vec::new();
    for party in parties(COHORT + 1) {
        let (step, advert) = advertise(&open, party, &[0; 32], &identity(party), &mut rng(party, 1)).unwrap();
        adverts.insert(party, advert);
        steps.push(step);
    }
    let refusal = steps.remove(0).share(&peers(&adverts), &mut rng(Party(7), 2)).err().unwrap();
    assert_eq!(refusal, Refusal::TooMany { cohort: COHORT, found: 11 });
}

#[test]
fn t06_more_picks_than_possible() {
    // Every client picks 24 of 99 by itself; here 73 of them pick the first, where 72 is the most.
    let gamma = CorruptFraction::new(0.05).unwrap();
    let params = Params::plan_sparse(100, 10, gamma, DropoutFraction::new(0.1).unwrap()).unwrap();
    let most = params.in_degree_max() as usize;
    let shape = session(1).shape();
    let session = Session::new(&[1; 32], &[2; 32], params, shape, parties(100)).unwrap();
    let first = parties(100).next().unwrap();
    let (step, own) = advertise(&session, first, &[0; 32], &identity(first), &mut rng(first, 1)).unwrap();
    let mut adverts = BTreeMap::from([(first, own)]);
    let mut directory = Directory::new(&session);
    let mut rejection = None;
    for party in parties(100).skip(1).take(most + 1) {
        // Whoever draws often enough picks whom it likes.
        let picks_first = |advert: &Vec<u8>| advert[2 + 128 + 2..2 + 128 + 4] == [0, 0];
        let advert = (1..)
            .map(|step| {
                advertise(&session, party, &[0; 32], &identity(party), &mut rng(party, step)).unwrap().1
            })
            .find(picks_first)
            .unwrap();
        let peer = Peer { party, identity: identity(party).public_key(), advert: &advert };
        rejection = directory.accept(&peer, &[0; 32]).err();
        adverts.insert(party, advert);
    }
    assert_eq!(rejection, Some(Rejection::Advert(AdvertError::InDegree(first))));
    let last = parties(100).nth(most + 1).unwrap();
    let refusal = step.share(&peers(&adverts), &mut rng(first, 2)).err().unwrap();
    assert_eq!(refusal, Refusal::Advert { party: last, reason: AdvertError::InDegree(first) });
}

#[test]
fn t06_another_degree_than_the_plan_says_and_neighbours_that_are_none() {
    let gamma = CorruptFraction::new(0.05).unwrap();
    let planned = Params::plan_sparse(100, 10, gamma, DropoutFraction::new(0.1).unwrap()).unwrap();
    let shape = session(1).shape();
    let session = Session::new(&[1; 32], &[2; 32], planned, shape, parties(100)).unwrap();
    let make = |party| advertise(&session, party, &[0; 32], &identity(party), &mut rng(party, 1)).unwrap();
    let first = parties(100).next().unwrap();
    let picks = |advert: &[u8], seat: u16| advert[132..180].chunks(2).any(|pick| pick == seat.to_be_bytes());
    let (step, own) = make(first);
    let stranger = (1..100)
        .zip(parties(100).skip(1))
        .find(|(seat, party)| !picks(&own, *seat) && !picks(&make(*party).1, 0));
    let (_, stranger) = stranger.unwrap();
    let (_, advert) = make(stranger);
    let peer = Peer { party: stranger, identity: identity(stranger).public_key(), advert: &advert };
    assert_eq!(step.share(&[peer], &mut rng(first, 2)).err(), Some(Refusal::NotANeighbour(stranger)));
    let mut more = advert.clone();
    more[131] += 1;
    let peer = Peer { advert: &more, ..peer };
    let rejection = Directory::new(&session).accept(&peer, &[0; 32]);
    assert_eq!(rejection, Err(Rejection::Advert(AdvertError::Degree { expected: 24, found: 25 })));
}

/// Everybody after the shares, and what was sent to whom.
fn shares(session: &Session) -> (BTreeMap<Party, Shared>, BTreeMap<Party, Vec<Envelope>>) {
    let (steps, adverts) = keys(session);
    let mut shared = BTreeMap::new();
    let mut inboxes: BTreeMap<Party, Vec<Envelope>> = BTreeMap::new();
    for (party, step) in steps {
        let (step, sent) = step.share(&peers(&adverts), &mut rng(party, 2)).unwrap();
        shared.insert(party, step);
        for Envelope { peer, sealed } in sent {
            inboxes.entry(peer).or_default().push(Envelope { peer: party, sealed });
        }
    }
    (shared, inboxes)
}

fn first_receives(shared: &[Party], inbox: &[Envelope]) -> Result<Paired, Refusal> {
    let (mut steps, _) = shares(&session(1));
    steps.remove(&everybody()[0]).unwrap().receive(shared, inbox)
}

#[test]
fn t06_envelopes_of_others_and_lists_that_do_not_fit() {
    let all = everybody();
    let (_, inboxes) = shares(&session(1));
    let inbox = &inboxes[&all[0]];
    assert!(first_receives(&all, inbox).unwrap().complaints().is_empty());
    // Swapped between senders, or meant for another holder, or from another session: nothing opens, and it is said.
    let mut swapped = inbox.clone();
    let (a, b) = swapped.split_at_mut(1);
    std::mem::swap(&mut a[0].sealed, &mut b[0].sealed);
    assert_eq!(first_receives(&all, &swapped).unwrap().complaints(), [all[1], all[2]]);
    let mut misdirected = inbox.clone();
    misdirected[4].sealed = inboxes[&all[1]].iter().find(|it| it.peer == all[5]).unwrap().sealed.clone();
    assert_eq!(first_receives(&all, &misdirected).unwrap().complaints(), [all[5]]);
    let (_, old) = shares(&session(7));
    assert_eq!(first_receives(&all, &old[&all[0]]).unwrap().complaints(), &all[1..]);
    let mut short = inbox.clone();
    short[2].sealed.pop();
    assert_eq!(first_receives(&all, &short).unwrap().complaints(), [all[3]]);

    let refused = |shared: &[Party], inbox: &[Envelope]| first_receives(shared, inbox).err().unwrap();
    assert_eq!(refused(&all[1..], inbox), Refusal::LeftOut);
    assert_eq!(refused(&all, &inbox[1..]), Refusal::MissingEnvelope(all[1]));
    assert_eq!(refused(&all[..9], inbox), Refusal::UnexpectedEnvelope(all[9]));
    assert_eq!(refused(&all[..6], &inbox[..5]), Refusal::TooFewHolders { alive: 5, threshold: 6 });
    assert_eq!(refused(&[all[0], all[0]], inbox), Refusal::Order);
    assert_eq!(refused(&all, &[inbox[1].clone(), inbox[0].clone()]), Refusal::Order);
}

/// Everybody after its input.
fn masked() -> BTreeMap<Party, Masked> {
    let (steps, inboxes) = shares(&session(1));
    let mask = |(party, step): (Party, Shared)| {
        let paired = step.receive(&everybody(), &inboxes[&party]).unwrap();
        (party, paired.mask(&update(party, COHORT)).unwrap().0)
    };
    steps.into_iter().map(mask).collect()
}

#[test]
fn t06_survivors_that_cannot_be() {
    let all = everybody();
    let refused = |survivors: &[Party]| {
        masked().remove(&all[0]).unwrap().sign(survivors, &identity(all[0])).err().unwrap()
    };
    assert_eq!(refused(&all[1..]), Refusal::LeftOut);
    assert_eq!(refused(&all[..6]), Refusal::TooFewHolders { alive: 5, threshold: 6 });
    let stranger = Party(3);
    assert_eq!(refused(&[&[stranger], &all[..]].concat()), Refusal::SurvivorWithoutShares(stranger));
    assert_eq!(refused(&[all[0], all[2], all[1]]), Refusal::Order);
}

#[test]
fn t06_signatures_that_are_not_the_holders_on_these_survivors() {
    let all = everybody();
    let sign = |survivors: &[Party], party: Party| {
        let (_, signature) = masked().remove(&party).unwrap().sign(survivors, &identity(party)).unwrap();
        Consent { party, signature }
    };
    let refused = |consents: &[Consent]| {
        let (step, _) = masked().remove(&all[0]).unwrap().sign(&all, &identity(all[0])).unwrap();
        step.reveal(consents).err()
    };
    let good: Vec<Consent> = all.iter().map(|party| sign(&all, *party)).collect();
    assert_eq!(refused(&good), None);
    assert_eq!(refused(&good[1..7]), None);
    let too_few = |valid, invalid| Some(Refusal::NoAgreement { valid, invalid, threshold: 6 });
    assert_eq!(refused(&good[1..6]), too_few(5, 0));
    // Its own signature does not count, nor does one that is counted under another name.
    assert_eq!(refused(&good[..6]), too_few(5, 0));
    let renamed = Consent { party: all[6], ..good[5] };
    assert_eq!(refused(&[&good[1..6], &[renamed]].concat()), too_few(5, 1));
    let other_view = sign(&all[..9], all[6]);
    assert_eq!(refused(&[&good[1..6], &[other_view]].concat()), too_few(5, 1));
    assert_eq!(refused(&[good[2], good[1]]), Some(Refusal::Order));
}

#[test]
fn t06_what_a_server_refuses() {
    let session = session(1);
    let all = everybody();
    let (steps, adverts) = keys(&session);
    let mut directory = Directory::new(&session);
    let peers = peers(&adverts);
    let advert = |error: AdvertError| Err(Rejection::Advert(error));
    assert_eq!(directory.accept(&peers[0], &[9; 32]), advert(AdvertError::Connection));
    let forged = Peer { identity: peers[1].identity, ..peers[0] };
    assert_eq!(directory.accept(&forged, &connection(all[0])), advert(AdvertError::Signature));
    for peer in &peers {
        assert_eq!(directory.accept(peer, &connection(peer.party)), Ok(()));
    }
    assert_eq!(directory.accept(&peers[0], &connection(all[0])), Err(Rejection::Twice(all[0])));
    let mut mailbox = directory.close().unwrap();
    let mut sent = BTreeMap::new();
    for (party, step) in steps {
        sent.insert(party, step.share(&mailbox.peers(party), &mut rng(party, 2)).unwrap().1);
    }
    let envelopes = sent.remove(&all[0]).unwrap();
    let mut short = envelopes.clone();
    short[0].sealed.push(0);
    for wrong in [envelopes[1..].to_vec(), short, [&envelopes[..], &envelopes[..1]].concat(), Vec::new()] {
        assert_eq!(mailbox.accept(all[0], wrong), Err(Rejection::Holders));
    }
    assert_eq!(mailbox.accept(Party(3), envelopes.clone()), Err(Rejection::NotTakingPart(Party(3))));
    assert_eq!(mailbox.accept(all[0], envelopes.clone()), Ok(()));
    assert_eq!(mailbox.accept(all[0], envelopes), Err(Rejection::Twice(all[0])));
    for (party, envelopes) in sent {
        mailbox.accept(party, envelopes).unwrap();
    }
    let mut input = mailbox.close().unwrap();
    let zeros = vec![0; session.shape().packed_len()];
    assert!(matches!(input.commit(all[0], &zeros[1..]), Err(Rejection::Packing(_))));
    assert_eq!(input.commit(Party(3), &zeros), Err(Rejection::NotTakingPart(Party(3))));
    assert_eq!(input.commit(all[0], &zeros), Ok(()));
    assert_eq!(input.commit(all[0], &zeros), Err(Rejection::Twice(all[0])));
}
