//! Lies about who survived.

use super::*;

/// Clients and the survivors that they are told of.
type View = (Vec<Party>, Vec<Party>);

/// Shows groups of clients different survivors, and lets each have the signatures of its group, and of the corrupt client, which
/// signs whatever it is asked to. Returns what the clients said.
fn split_view(session: &Session, views: &[View]) -> (Loot, Vec<Result<(), Refusal>>) {
    let (mut steps, mut loot) = Keys::of(session).share().0.input(|_| everybody(), &[corrupt()]).unwrap();
    let traitor = steps.remove(&corrupt()).unwrap();
    let mut answers = Vec::new();
    for (group, survivors) in views {
        let mut signed = Vec::new();
        for party in group {
            let (step, signature) = steps.remove(party).unwrap().sign(survivors, &identity(*party)).unwrap();
            signed.push((step, Consent { party: *party, signature }));
        }
        let (_, signature) = traitor.twin().sign(survivors, &identity(corrupt())).unwrap();
        let mut consents: Vec<Consent> = signed.iter().map(|(_, consent)| *consent).collect();
        consents.push(Consent { party: corrupt(), signature });
        consents.sort_by_key(|consent| consent.party);
        for (step, Consent { party, .. }) in signed {
            let answer = step.reveal(&consents);
            if let Ok(revealed) = &answer {
                loot.take(party, revealed, survivors.contains(&victim()));
            }
            answers.push(answer.map(drop));
        }
    }
    (loot, answers)
}

/// The honest clients but the victim in groups of these sizes. The first is told that the victim survived, the others that it
/// did not; no two are told the same.
fn groups(sizes: &[usize]) -> Vec<View> {
    let others: Vec<Party> =
        everybody().into_iter().filter(|party| *party != victim() && *party != corrupt()).collect();
    let mut views = Vec::new();
    let mut from = 0;
    for (index, size) in sizes.iter().enumerate() {
        let group = others[from..from + size].to_vec();
        from += size;
        // Later groups are told of one more who dropped out, somebody of the first group.
        let dropped = (index > 1).then(|| others[index - 2]);
        let survives = |party: &Party| (index == 0 || *party != victim()) && Some(*party) != dropped;
        views.push((group, everybody().into_iter().filter(survives).collect()));
    }
    views
}

#[test]
fn t05_a_split_view_opens_at_most_one_seed() {
    for sizes in [[4, 4], [5, 3], [3, 5], [8, 0], [0, 8]] {
        let (loot, answers) = split_view(&honest(), &groups(&sizes));
        assert_eq!(loot.update(), None, "{sizes:?}");
        let disagree = |answer: &&Result<(), Refusal>| matches!(answer, Err(Refusal::NoAgreement { .. }));
        let refused = answers.iter().filter(disagree).count();
        assert!(refused >= sizes[0].min(sizes[1]), "{sizes:?}: {answers:?}");
    }
}

#[test]
fn t05_the_threshold_alone_stops_a_split_view() {
    for sizes in [[4, 4], [5, 3], [3, 5], [6, 2]] {
        let (loot, answers) = split_view(&honest().without(Check::Agreement), &groups(&sizes));
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(loot.update(), None, "{sizes:?}");
    }
}

#[test]
fn t05_below_the_safe_threshold_a_split_view_opens_both_seeds() {
    let (loot, _) = split_view(&weak(), &groups(&[4, 4]));
    assert_eq!(loot.update(), Some(secret()));
}

#[test]
fn t05_without_agreement_many_views_open_what_two_could_not() {
    let views = groups(&[4, 2, 2]);
    let (loot, answers) = split_view(&weak(), &views);
    assert_eq!(loot.update(), None);
    let refused =
        |answer: &&Result<(), Refusal>| matches!(answer, Err(Refusal::NoAgreement { threshold: 4, .. }));
    assert_eq!(answers.iter().filter(refused).count(), 4, "{answers:?}");
    let (loot, _) = split_view(&weak().without(Check::Agreement), &views);
    assert_eq!(loot.update(), Some(secret()));
}

#[test]
fn t05_a_late_update_stays_hidden_unless_clients_answer_twice() {
    let (mut steps, mut loot) = Keys::of(&honest()).share().0.input(|_| everybody(), &[corrupt()]).unwrap();
    steps.remove(&victim());
    let twins: Vec<_> = steps.iter().map(|(party, step)| (*party, step.twin())).collect();
    let others: Vec<Party> = steps.keys().copied().collect();
    // The victim is declared dropped while its update is on the way: its pair masks are opened, not its own.
    reveal(steps, &others, &mut loot);
    assert!(loot.seed(&loot.shares_of_mask).is_some());
    assert_eq!(loot.update(), None);
    reveal(twins, &everybody(), &mut loot);
    assert_eq!(loot.update(), Some(secret()));
}
