//! A server that controls every message, and wants one client's update. Each strategy meets production clients and fails, by a
//! refusal of its own name; where a check can be left out from here, the strategy succeeds without it. (The checks inside the
//! cryptography are left out one by one in the tests of `privacy::secagg`.)

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod town;

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_client::masking::Masking;
use skep_privacy::budget::BudgetKeeper;
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::{Key, PrgId};
use skep_privacy::quantities::{Adjacency, Delta, Sampling};
use skep_privacy::secagg::Identity;
use skep_privacy::sum::Release;
use skep_privacy::update::QuantizedUpdate;
use skep_protocol::masked::{self, Body, Survivors};
use skep_protocol::plan::{Plan, PlanSigner, Promise};
use skep_protocol::round::client::{End, Event};
use skep_protocol::round::{Decline, Phase};
use skep_protocol::{ClientId, Digest};
use skep_server::masking::{Caller, MaskedRound, UnmaskError};
use skep_tests::plans;
use town::{
    Answers, Authority, COHORT, FEWEST, HERE, Person, ROUND, THRESHOLD, Town, all_refuse, all_well, town_plan,
};

fn id(client: u64) -> ClientId {
    ClientId(client)
}

/// Reads a sum with next to no noise, as nobody can whose plan promises some.
fn read(sum: skep_privacy::sum::Sum, plan: &Plan) -> Release {
    let mechanism = Mechanism::RoundedGaussian { sensitivity: plan.encoding.sensitivity.unwrap(), sigma: 1 };
    let mut keeper = BudgetKeeper::new(Adjacency::ZeroOut, Delta::new(1e-5).unwrap(), None);
    let charge = keeper.reserve(1, mechanism, Sampling::All).unwrap();
    let charge = keeper.settle(charge);
    sum.release(charge, &Key::from_seed(1), PrgId::ChaCha20).unwrap()
}

/// Whether a released sum is this vector, but for the noise of one grid unit.
fn is_close(release: &Release, expected: &[i64]) -> bool {
    release.coordinates().iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= 8)
}

fn updates<'a>(updates: impl Iterator<Item = &'a QuantizedUpdate>) -> Vec<i64> {
    let mut sum = Vec::new();
    for update in updates {
        sum.resize(update.coordinates().len(), 0);
        sum.iter_mut().zip(update.coordinates()).for_each(|(sum, &q)| *sum += i64::from(q));
    }
    sum
}

/// What a server makes of a town's messages that passes them on as they are.
fn unmasked(town: &Town, revealed: &BTreeMap<ClientId, Vec<u8>>) -> Result<Release, UnmaskError> {
    let plan = town.plan.plan();
    let mut server = MaskedRound::new(&masked::groups(&town.plan).unwrap(), FEWEST);
    let caller = |client: ClientId| {
        let person = Person::new(client.0, None);
        let identity = Identity::public_key(&person);
        let certificate = town.residents[&client].certificate.clone();
        Caller { client, identity, certificate, connections: vec![HERE] }
    };
    for (&client, advert) in &town.adverts {
        server.answer(&caller(client), Phase::Keys, advert).unwrap();
    }
    server.ask(Phase::Shares, &[]).unwrap();
    for (&client, sent) in &town.envelopes {
        let body = masked::Shares(sent.clone()).to_bytes();
        server.answer(&caller(client), Phase::Shares, &body).unwrap();
    }
    server.ask(Phase::Collecting, &[]).unwrap();
    for (&client, packed) in &town.uploads {
        server.commit(client, packed).unwrap();
    }
    server.ask(Phase::Consistency, &[]).unwrap();
    for (&client, signature) in &town.signatures {
        server.answer(&caller(client), Phase::Consistency, signature).unwrap();
    }
    server.ask(Phase::Reveal, &[]).unwrap();
    for (&client, shares) in revealed {
        server.answer(&caller(client), Phase::Reveal, shares).unwrap();
    }
    let sum = server.unmask()?.sums.pop().expect("one group");
    Ok(read(sum.into_sum(plan.grid().unwrap()).unwrap(), plan))
}

#[test]
fn t04_an_honest_server_gets_the_sum_and_whoever_drops_out_is_not_in_it() {
    let mut town = Town::new();
    town.until_masked();
    // Two are lost between their shares and their updates.
    town.uploads.retain(|client, _| client.0 > 1);
    let survivors: Vec<_> = town.uploads.keys().copied().collect();
    all_well(&town.consult(|_| survivors.clone()));
    let revealed = town.unmask(|_, signatures| signatures);
    all_well(&revealed);
    let in_sum = town.residents.values().filter(|resident| resident.id.0 > 1);
    let expected = updates(in_sum.map(|resident| &resident.update));
    assert!(is_close(&unmasked(&town, &town::answered(&revealed)).unwrap(), &expected));
}

// ---- different stories for different clients ----

#[test]
fn t05_a_server_that_tells_half_of_them_that_a_client_dropped_out_gets_no_share() {
    let mut town = Town::new();
    town.until_masked();
    let everybody = town.everybody();
    let told = |client: ClientId| {
        let without = |other: &ClientId| client.0.is_multiple_of(2) || client == id(0) || *other != id(0);
        everybody.iter().copied().filter(without).collect::<Vec<_>>()
    };
    all_well(&town.consult(told));
    all_refuse(&town.unmask(|_, signatures| signatures), Decline::NoAgreement);
}

#[test]
fn t05_a_server_that_holds_signatures_back_or_makes_them_up_gets_no_share() {
    let few = THRESHOLD as usize - 1;
    for forged in [false, true] {
        let mut town = Town::new();
        town.until_masked();
        let everybody = town.everybody();
        all_well(&town.consult(|_| everybody.clone()));
        let answers = town.unmask(|_, mut signatures| {
            for signature in signatures.iter_mut().skip(few) {
                signature.1[5] ^= 1;
            }
            signatures.truncate(if forged { signatures.len() } else { few });
            signatures
        });
        all_refuse(&answers, Decline::NoAgreement);
    }
}

#[test]
fn t07_models_that_differ_between_clients_make_their_keys_useless() {
    let mut town = Town::new();
    let other = Plan { base_model: Digest([5; 32]), ..town_plan() };
    let (plan, other) = (Arc::clone(&town.plan), plans::signed(other));
    // One client is sent a model of its own, under a plan that the server signed, too.
    town.introduce_with(|client| if client == id(3) { Arc::clone(&other) } else { Arc::clone(&plan) });
    all_refuse(&town.share(|_, peers| peers), Decline::UnsignedKeys);
}

// ---- keys ----

fn replaced(town: &mut Town, with: impl Fn(&Town) -> (Vec<u8>, Vec<u8>)) -> Answers<Vec<u8>> {
    town.introduce();
    let (certificate, advert) = with(town);
    town.share(|to, mut peers| {
        for (client, introduction) in peers.iter_mut().filter(|(client, _)| *client == id(4) && to != id(4)) {
            assert_eq!(*client, id(4));
            introduction.certificate.clone_from(&certificate);
            introduction.advert.clone_from(&advert);
        }
        peers
    })
}

fn except_the_fourth(mut answers: Answers<Vec<u8>>) -> Answers<Vec<u8>> {
    answers.remove(&id(4));
    answers
}

/// The advert of the server's own make for client 4, under an identity of its own.
fn made_up(town: &Town, seed: u64) -> (Arc<Person>, Vec<u8>) {
    let person = Arc::new(Person::new(seed, None));
    let signer = Arc::clone(&person);
    let (_, advert) =
        Masking::begin(&town.plan, COHORT, id(4), &HERE, signer, &Key::from_seed(seed)).unwrap();
    (person, advert)
}

#[test]
fn t06_keys_of_the_servers_own_are_refused_for_want_of_a_certificate() {
    let mut town = Town::new();
    let answers = replaced(&mut town, |town| {
        let (person, advert) = made_up(town, 99);
        (Authority::new(2).certify(id(4), &Identity::public_key(&*person)), advert)
    });
    all_refuse(&except_the_fourth(answers), Decline::UnknownPeer);
    // Nor does the certificate of another client serve.
    let mut town = Town::new();
    let answers = replaced(&mut town, |town| {
        (town.residents[&id(5)].certificate.clone(), town.adverts[&id(5)].clone())
    });
    all_refuse(&except_the_fourth(answers), Decline::UnknownPeer);
}

#[test]
fn t06_keys_under_a_real_certificate_that_its_owner_did_not_sign_are_refused() {
    let mut town = Town::new();
    let answers =
        replaced(&mut town, |town| (town.residents[&id(4)].certificate.clone(), made_up(town, 99).1));
    all_refuse(&except_the_fourth(answers), Decline::UnsignedKeys);
    // The owner's own keys of an earlier plan are as useless.
    let mut earlier = Town::of(Plan { base_model: Digest([8; 32]), ..town_plan() }, false);
    earlier.introduce();
    let mut town = Town::new();
    let answers = replaced(&mut town, |town| {
        (town.residents[&id(4)].certificate.clone(), earlier.adverts[&id(4)].clone())
    });
    all_refuse(&except_the_fourth(answers), Decline::UnsignedKeys);
}

#[test]
fn t06_one_client_under_two_names_is_refused() {
    let mut town = Town::new();
    let authority = Authority::new(1);
    let answers = replaced(&mut town, |town| {
        // The server's own client 5 signs its keys once more, as client 4, and the authority has certified the same key twice.
        let person = Arc::new(Person::new(5, None));
        let key = Identity::public_key(&*person);
        let (_, advert) =
            Masking::begin(&town.plan, COHORT, id(4), &HERE, person, &Key::from_seed(1)).unwrap();
        (authority.certify(id(4), &key), advert)
    });
    let mut answers = except_the_fourth(answers);
    // To client 5 itself it is its own key under another name.
    assert_eq!(answers.remove(&id(5)).unwrap(), Err(Decline::DuplicateKeys));
    all_refuse(&answers, Decline::DuplicateKeys);
}

#[test]
fn bytes_that_are_no_keys_and_lists_that_do_not_add_up_are_refused() {
    let mut town = Town::new();
    let answers = replaced(&mut town, |town| (town.residents[&id(4)].certificate.clone(), vec![0; 40]));
    all_refuse(&except_the_fourth(answers), Decline::BadKeys);
    type Change = fn(&mut Vec<(ClientId, masked::Introduction)>);
    let lists: [(Change, Decline); 4] = [
        (|peers| peers.reverse(), Decline::BadPeers),
        (|peers| peers.extend_from_within(8..), Decline::BadPeers),
        (|peers| peers.truncate(THRESHOLD as usize - 1), Decline::TooFewHolders),
        (|peers| peers.clear(), Decline::TooFewHolders),
    ];
    for (change, reason) in lists {
        let mut town = Town::new();
        town.introduce();
        let answers = town.share(|_, mut peers| {
            change(&mut peers);
            peers
        });
        all_refuse(&answers, reason);
    }
}

/// The server plays everybody but client 0, with identities of its own: it holds all shares of the client's secrets and half of every mask. What is left of
/// the sum of one real update and nine zeros is that update.
fn surrounded(credulous: bool) -> Result<bool, Decline> {
    let mut town = Town::of(town_plan(), credulous);
    let forger = Authority::new(2);
    for (client, resident) in town.residents.iter_mut().filter(|(client, _)| **client != id(0)) {
        let person = Person::new(client.0, None);
        resident.certificate = forger.certify(*client, &Identity::public_key(&person));
        let zeros = vec![0; resident.update.coordinates().len()];
        resident.update = QuantizedUpdate::verify(zeros, &town.plan.plan().grid().unwrap()).unwrap();
    }
    town.introduce();
    let answers = town.share(|_, peers| peers);
    answers[&id(0)].clone()?;
    all_well(&answers);
    all_well(&town.deliver(|_, delivery| delivery));
    let everybody = town.everybody();
    all_well(&town.consult(|_| everybody.clone()));
    let revealed = town.unmask(|_, signatures| signatures);
    let victim = updates(std::iter::once(&town.residents[&id(0)].update));
    Ok(is_close(&unmasked(&town, &town::answered(&revealed)).unwrap(), &victim))
}

#[test]
fn a_server_that_plays_everybody_else_reads_the_update_of_a_client_that_believes_it_and_of_no_other() {
    assert_eq!(surrounded(true), Ok(true), "the attack works where certificates are not looked at");
    assert_eq!(surrounded(false), Err(Decline::UnknownPeer));
}

// ---- shares and survivors ----

#[test]
fn shares_that_are_held_back_or_made_up_end_the_clients_part() {
    type Change = fn(&mut masked::Delivery);
    let changes: [(Change, Decline); 4] = [
        (|delivery| drop(delivery.inbox.pop()), Decline::BadShares),
        (|delivery| delivery.shared.retain(|client| client.0 > 4), Decline::TooFewHolders),
        (|delivery| delivery.shared.reverse(), Decline::BadPeers),
        (|delivery| delivery.inbox.reverse(), Decline::BadPeers),
    ];
    for (change, reason) in changes {
        let mut town = Town::new();
        town.introduce();
        all_well(&town.share(|_, peers| peers));
        let mut answers = town.deliver(|_, mut delivery| {
            change(&mut delivery);
            delivery
        });
        if reason == Decline::TooFewHolders {
            // Whoever is itself not in the list notices that first.
            answers.retain(|client, _| client.0 > 4);
        }
        all_refuse(&answers, reason);
    }
}

#[test]
fn t06_shares_that_are_swapped_open_for_nobody() {
    let mut town = Town::new();
    town.introduce();
    all_well(&town.share(|_, peers| peers));
    // Each client gets what the first two sent to it under each other's names.
    all_well(&town.deliver(|to, mut delivery| {
        if to.0 > 1 {
            let first = std::mem::take(&mut delivery.inbox[0].sealed);
            delivery.inbox[0].sealed = std::mem::replace(&mut delivery.inbox[1].sealed, first);
        }
        delivery
    }));
    let everybody = town.everybody();
    all_well(&town.consult(|_| everybody.clone()));
    let revealed = town.unmask(|_, signatures| signatures);
    all_well(&revealed);
    // Nobody holds a share of the first two any more, so there is no sum either.
    assert!(unmasked(&town, &town::answered(&revealed)).is_err());
}

#[test]
fn survivors_that_do_not_add_up_are_refused() {
    type Told = fn(ClientId, Vec<ClientId>) -> Vec<ClientId>;
    let stories: [(Told, Decline); 5] = [
        // Fewer than the noise was planned for.
        (
            |client, all| all.into_iter().filter(|other| other.0 < 5 || *other == client).collect(),
            Decline::BadSurvivors,
        ),
        (|client, all| all.into_iter().filter(|other| *other != client).collect(), Decline::BadPeers),
        (
            |_, mut all| {
                all.push(ClientId(77));
                all
            },
            Decline::BadSurvivors,
        ),
        (
            |_, mut all| {
                all.reverse();
                all
            },
            Decline::BadPeers,
        ),
        (
            |_, mut all| {
                all.insert(1, ClientId(0));
                all
            },
            Decline::BadPeers,
        ),
    ];
    for (story, reason) in stories {
        let mut town = Town::new();
        town.until_masked();
        let everybody = town.everybody();
        let answers = town.consult(|client| story(client, everybody.clone()));
        all_refuse(&answers, reason);
    }
}

// ---- asking again, and asking too early ----

#[test]
fn nothing_is_said_twice_for_another_set() {
    let mut town = Town::new();
    town.until_masked();
    let everybody = town.everybody();
    all_well(&town.consult(|_| everybody.clone()));
    let first = town.residents.get_mut(&id(0)).unwrap();
    // The same again is that of a server whose client has come back: nothing new is said.
    let request = Survivors(everybody.clone()).to_bytes();
    assert!(first.hear(Event::Asked { round: ROUND, phase: Phase::Consistency, request }).is_empty());
    let others = Survivors(everybody[..9].to_vec()).to_bytes();
    assert_eq!(first.ask(Phase::Consistency, others), Err(Decline::AskedTwice));
    assert_eq!(first.end, Some(End::Declined(Decline::AskedTwice)));

    // The same holds after the last step.
    let mut town = Town::new();
    town.until_masked();
    all_well(&town.consult(|_| everybody.clone()));
    all_well(&town.unmask(|_, signatures| signatures));
    let first = town.residents.get_mut(&id(0)).unwrap();
    let again = masked::Signatures(vec![]).to_bytes();
    assert_eq!(first.ask(Phase::Reveal, again), Err(Decline::AskedTwice));
}

#[test]
fn nothing_is_said_before_its_time() {
    for (phase, done) in
        [(Phase::Reveal, 0), (Phase::Collecting, 0), (Phase::Consistency, 1), (Phase::Reveal, 2)]
    {
        let mut town = Town::new();
        town.introduce();
        if done > 0 {
            all_well(&town.share(|_, peers| peers));
        }
        if done > 1 {
            all_well(&town.deliver(|_, delivery| delivery));
        }
        let first = town.residents.get_mut(&id(0)).unwrap();
        assert_eq!(first.ask(phase, vec![]), Err(Decline::OutOfTurn), "{phase} after {done}");
    }
}

// ---- plans ----

#[test]
fn a_plan_that_does_not_hide_is_refused_by_the_clients_own_reckoning() {
    type Weaken = fn(&mut Plan);
    let weak: [(Weaken, Decline); 2] = [
        (|plan| plan.masking_mut().threshold = THRESHOLD - 1, Decline::Inconsistent),
        (|plan| plan.masking_mut().degree = 5, Decline::Inconsistent),
    ];
    for (weaken, reason) in weak {
        let mut plan = town_plan();
        weaken(&mut plan);
        let mut town = Town::new();
        let plan = plans::signed(plan);
        let answers = town.introduce_with(|_| Arc::clone(&plan));
        all_refuse(&answers, reason);
    }
    // Three clients may be summed up, but not these, who want to be ten.
    let small = plans::signed(plans::masked_plan(1, 3));
    let answers = Town::new().introduce_with(|_| Arc::clone(&small));
    all_refuse(&answers, Decline::SmallCohort);
}

trait MaskingMut {
    fn masking_mut(&mut self) -> &mut skep_protocol::plan::Masking;
}

impl MaskingMut for Plan {
    fn masking_mut(&mut self) -> &mut skep_protocol::plan::Masking {
        match &mut self.promise {
            Promise::Central { masking: Some(masking), .. } => masking,
            _ => panic!("a plan with masks"),
        }
    }
}

#[test]
fn t06_a_plan_of_another_signer_or_of_a_round_before_is_refused() {
    let town = Town::new();
    assert!(town.plan.signed().clone().verify(&PlanSigner::from_seed(&[8; 32]).key()).is_err());
    let mut town = Town::new();
    town.introduce();
    let again = plans::signed(Plan { base_model: Digest([3; 32]), ..town_plan() });
    let first = town.residents.get_mut(&id(0)).unwrap();
    let said = first.hear(Event::Invited(again));
    let stale = skep_protocol::message::ClientMessage::Decline { round: ROUND, reason: Decline::StaleRound };
    assert_eq!(said, [stale]);
}

// ---- what is on the wire ----

#[test]
fn t03_nothing_that_a_client_drew_is_in_anything_that_it_said() {
    let mut town = Town::new();
    town.until_masked();
    let everybody = town.everybody();
    all_well(&town.consult(|_| everybody.clone()));
    all_well(&town.unmask(|_, signatures| signatures));
    let said: Vec<&[u8]> =
        town.residents.values().flat_map(|resident| resident.said.iter().map(Vec::as_slice)).collect();
    let (mut windows, bytes) = (0, said.iter().map(|one| one.len()).sum::<usize>());
    assert!(bytes > 10 * 9 * 80, "{bytes}");
    for resident in town.residents.values() {
        // Seeds, secret keys and the coefficients of the sharing polynomials are all drawn from this generator.
        let mut stream = resident.key.stream();
        let drawn: Vec<u8> = (0..1024).flat_map(|_| stream.next_u64().to_le_bytes()).collect();
        for secret in drawn.chunks(8).collect::<Vec<_>>().windows(2).map(|pair| pair.concat()) {
            windows += 1;
            let hidden = said.iter().all(|one| !one.windows(16).any(|window| window == secret));
            assert!(hidden, "16 bytes that {} drew were said", resident.id);
        }
    }
    assert_eq!(windows, 10 * 1023);
    // The test can fail: what is said is found where it is said.
    let sample = &said[3][20..36];
    assert!(said[3].windows(16).any(|window| window == sample));
}
