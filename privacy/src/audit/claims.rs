//! Epsilons, recomputed: of every epoch, by two accountants, and compared with what the ledger and a model file state.
//!
//! A claim below the truth is a false promise; one above it is only cautious. Under the schedule an epsilon takes
//! milliseconds, so of many rounds some are recomputed, spread evenly by their logarithm, with the last one always among
//! them. Epsilon never falls with the number of rounds, so each of the rest is known to lie between two of them.

use std::collections::BTreeMap;

use super::reading::{Charged, Read};
use super::report::{Epoch, Kind, Moment, Part, Report, Summed, Verdict};
use super::{Given, ModelClaim};
use crate::accounting::{Composition, filter};
use crate::adversary::Adversary;
use crate::ledger::account::two_accountants;
use crate::ledger::{Account, Basis, Budget, Hash, Provenance, RoundTerms, noise_of_round};
use crate::quantities::{Delta, Epsilon};

/// Checks the epsilons of what was read, and ends the report.
pub(super) fn check(read: Read, given: &Given) -> Report {
    let Read { mut report, state, charges, epochs, releases, refunded } = read;
    let accounts = state.as_ref().map_or(&[][..], |state| state.epochs());
    for (epoch, account) in accounts.iter().enumerate() {
        let (reason, record) = epochs.get(epoch).cloned().unwrap_or((None, 0));
        let rounds: Vec<Charged> = (0..)
            .zip(&charges)
            .filter(|(at, charge)| charge.epoch == epoch && !refunded.contains(at))
            .map(|(_, charge)| *charge)
            .collect();
        let mut checker = Checker { account, rounds: &rounds, given, exact: BTreeMap::new() };
        let checked = checker.epoch(reason, record, &mut report);
        moments(&rounds, &checker.exact, &mut report);
        report.epochs.push(checked);
    }
    if !accounts.is_empty() {
        summary(accounts, &mut report);
    }
    if let Some(model) = &given.model {
        model_claim(model, &charges, accounts, &releases, &mut report);
    }
    report.judge();
    report
}

/// Against recipients, and against the server.
type Pair = (Epsilon, Epsilon);

struct Checker<'a> {
    account: &'a Account,
    rounds: &'a [Charged],
    given: &'a Given,
    /// What was recomputed, by place in `rounds`.
    exact: BTreeMap<usize, Pair>,
}

impl Checker<'_> {
    fn epoch(&mut self, reason: Option<String>, record: u64, report: &mut Report) -> Epoch {
        let scheduled = self.rounds.iter().take_while(|round| round.basis == Basis::Schedule).count();
        self.schedule(scheduled);
        self.filter(scheduled);
        let bound = self.compare(report);
        let delta = self.delta();
        let spending = self.account.spending();
        let second = |adversary| two_accountants(spending.seen_by(adversary), delta).1;
        let renyi = (second(Adversary::Recipients), second(Adversary::Server));
        let last = self.rounds.len().checked_sub(1);
        let recomputed =
            last.and_then(|last| self.exact.get(&last).copied()).unwrap_or((Epsilon::ZERO, Epsilon::ZERO));
        let basis = self.rounds.last().map_or(Basis::Schedule, |round| round.basis);
        if basis == Basis::Schedule && renyi.0.get() + TOLERANCE < recomputed.0.get() {
            let what = "the two accountants contradict each other: the Rényi bound is below the tighter one";
            report.found(Kind::Mismatch, last.map(|last| self.rounds[last].record), what);
        }
        let planned = RoundTerms::from(self.account.terms());
        let exact = self.exact.len() as u64;
        Epoch {
            reason,
            record,
            terms: *self.account.terms(),
            rounds: self.rounds.len() as u64,
            off_schedule: self.rounds.iter().filter(|round| round.terms != planned).count() as u64,
            basis,
            claimed: self.rounds.last().map(|round| (round.release, round.server)),
            recomputed,
            renyi,
            exact_claims: exact,
            bounded_claims: self.rounds.len() as u64 - exact,
            bound,
        }
    }

    /// The claims before any departure: equal rounds, so epsilon depends on their number alone.
    fn schedule(&mut self, scheduled: usize) {
        let Some(first) = self.rounds.first().filter(|_| scheduled > 0) else { return };
        for at in spread(scheduled, if self.given.every_claim { scheduled } else { EXACT_CLAIMS }) {
            let (release, server) = self.composed(&first.terms, at as u64 + 1);
            let delta = self.delta();
            self.exact.insert(at, (release.best_epsilon(delta), server.best_epsilon(delta)));
        }
    }

    /// The claims after a departure: divergences at one order add up.
    fn filter(&mut self, scheduled: usize) {
        if scheduled == self.rounds.len() {
            return;
        }
        let orders =
            (self.account.filter_order(Adversary::Recipients), self.account.filter_order(Adversary::Server));
        let mut known = Vec::new();
        let mut sum = (0.0, 0.0);
        for (at, round) in self.rounds.iter().enumerate() {
            let (release, server) = self.divergences(round.terms, orders, &mut known);
            sum = (sum.0 + release, sum.1 + server);
            if at >= scheduled {
                let proves = |order: Option<f64>, divergence| {
                    order.map_or(Epsilon::INFINITE, |order| filter::proves(order, divergence, self.delta()))
                };
                self.exact.insert(at, (proves(orders.0, sum.0), proves(orders.1, sum.1)));
            }
        }
    }

    /// What one round adds to the filters; kept in `known`, because few rounds differ.
    fn divergences(
        &self,
        terms: RoundTerms,
        orders: (Option<f64>, Option<f64>),
        known: &mut Vec<(RoundTerms, (f64, f64))>,
    ) -> (f64, f64) {
        if let Some((_, added)) = known.iter().rev().find(|(before, _)| *before == terms) {
            return *added;
        }
        let adjacency = self.account.spending().adjacency();
        let event = |adversary| terms.mechanism.event(adversary, terms.sampling, adjacency);
        let at = |event, order: Option<f64>| {
            order.map_or(f64::INFINITY, |order| filter::divergence(event, adjacency, order))
        };
        let added = (at(event(Adversary::Recipients), orders.0), at(event(Adversary::Server), orders.1));
        known.push((terms, added));
        added
    }

    /// Compares every claim, and says how far below the truth one that was only bounded can be.
    fn compare(&self, report: &mut Report) -> f64 {
        let mut bound = 0.0_f64;
        let mut below = (Epsilon::ZERO, Epsilon::ZERO);
        let mut complaints = 0;
        for (at, round) in self.rounds.iter().enumerate() {
            let least = self.exact.get(&at).copied().unwrap_or(below);
            if !self.exact.contains_key(&at) {
                let above = self.exact.range(at..).next().map_or(Epsilon::INFINITE, |(_, pair)| pair.0);
                bound = bound.max((above.get() - round.release.get()).max(0.0));
            }
            for (whom, claimed, least) in
                [("recipients", round.release, least.0), ("the server", round.server, least.1)]
            {
                if is_below(claimed, least) && complaints < MOST_COMPLAINTS {
                    complaints += 1;
                    report.found(
                        Kind::Mismatch,
                        Some(round.record),
                        format!(
                            "record {} states epsilon {claimed:.6} against {whom}, but it is at least {least:.6}",
                            round.record
                        ),
                    );
                }
            }
            self.limits(at, round, report);
            below = least;
        }
        bound
    }

    /// Whether the round keeps to the limits, by what was recomputed where that is known, else by what it states.
    fn limits(&self, at: usize, round: &Charged, report: &mut Report) {
        let Some(limits) = round.limits else { return };
        if report.has(Verdict::OverBudget) {
            return;
        }
        let spent = self.exact.get(&at).copied().unwrap_or((round.release, round.server));
        for (whom, spent, limit) in [("recipients", spent.0, limits.0), ("the server", spent.1, limits.1)] {
            if is_below(limit, spent) {
                let what = format!(
                    "record {} brings epsilon against {whom} to {spent:.6}, above the limit of {limit}",
                    round.record
                );
                return report.found(Kind::OverBudget, Some(round.record), what);
            }
        }
    }

    fn composed(&self, terms: &RoundTerms, rounds: u64) -> (Composition, Composition) {
        let adjacency = self.account.spending().adjacency();
        let seen = |adversary| {
            let mut seen = Composition::new(adjacency);
            seen.push(terms.mechanism.event(adversary, terms.sampling, adjacency), rounds);
            seen
        };
        (seen(Adversary::Recipients), seen(Adversary::Server))
    }

    fn delta(&self) -> Delta {
        delta(self.account)
    }
}

/// All epochs: a client who was in all of them lost all of this. Composed where they are about the same thing.
fn summary(accounts: &[Account], report: &mut Report) {
    let departed: u64 = report.epochs.iter().map(|epoch| epoch.off_schedule).sum();
    let basis = match departed {
        0 => "every round is as scheduled".to_owned(),
        rounds => format!(
            "{rounds} rounds are not as scheduled; from the first on, epsilon follows the Rényi filter"
        ),
    };
    report.checked(Part::Schedule, true, basis);
    if accounts.iter().any(|account| account.terms().participation.is_some()) {
        let detail = "how often each client took part is not checked: the file names no client";
        report.checked(Part::Participation, false, detail);
    }
    let (exact, bounded) = report
        .epochs
        .iter()
        .fold((0, 0), |(exact, bounded), epoch| (exact + epoch.exact_claims, bounded + epoch.bounded_claims));
    let bound = report.epochs.iter().map(|epoch| epoch.bound).fold(0.0, f64::max);
    let mut detail = format!("{exact} stated epsilons recomputed");
    if bounded > 0 {
        detail +=
            &format!(", {bounded} more lie between those and none is more than {bound:.4} below the truth");
    }
    report.checked(Part::Claims, !report.has(Verdict::Mismatch), detail);
    let budgets: Option<Vec<Budget>> = accounts.iter().map(|account| account.terms().budget).collect();
    let Some(budgets) = budgets.filter(|all| all.windows(2).all(|pair| pair[0].is_comparable(&pair[1])))
    else {
        return;
    };
    let Some(budget) = budgets.first() else { return };
    let sum = |adversary, last: fn(&Epoch) -> Epsilon| {
        if let [epoch] = &report.epochs[..] {
            return last(epoch);
        }
        let mut all = Composition::new(budget.adjacency);
        let groups = accounts.iter().flat_map(|account| account.spending().seen_by(adversary).groups());
        groups.for_each(|(event, steps)| all.push(*event, *steps));
        // What one epoch promised may have depended on another: only the Rényi accountant's orders are fixed beforehand.
        let (best, renyi) = two_accountants(&all, budget.delta);
        if departed == 0 && accounts.len() == 1 { best } else { renyi }
    };
    report.all_epochs = Some(Summed {
        epsilon_release: sum(Adversary::Recipients, |epoch| epoch.recomputed.0),
        epsilon_server: sum(Adversary::Server, |epoch| epoch.recomputed.1),
        unit: budget.unit,
    });
}

/// A model file: its digest is that of a release, and what it states is not below what that release had cost.
fn model_claim(
    model: &ModelClaim,
    charges: &[Charged],
    accounts: &[Account],
    releases: &BTreeMap<Hash, Vec<(u64, usize)>>,
    report: &mut Report,
) {
    let Some((record, charge)) = releases.get(&model.digest).and_then(|all| all.last()).copied() else {
        let what = format!("the model file's parameters {} were never released by this ledger", model.digest);
        report.found(Kind::Mismatch, None, what);
        return report.checked(Part::Model, false, "the model is not one of this ledger");
    };
    let charge = charges[charge];
    let account = &accounts[charge.epoch];
    // Later rounds of the epoch do not weaken what this model gave away, earlier ones do.
    let until = charges.iter().filter(|other| other.epoch == charge.epoch && other.record <= charge.record);
    let mut spent = Composition::new(account.spending().adjacency());
    until.for_each(|other| {
        let adjacency = spent.adjacency();
        spent.push(other.terms.mechanism.event(Adversary::Recipients, other.terms.sampling, adjacency), 1);
    });
    let truth = match charge.basis {
        Basis::Schedule => spent.best_epsilon(delta(account)),
        Basis::Filter => account
            .filter_order(Adversary::Recipients)
            .map_or(Epsilon::INFINITE, |order| filter::epsilon(&spent, order, delta(account))),
    };
    let promised = account.terms().budget.is_some();
    match model.epsilon {
        Some(claimed) if is_below(claimed, truth) => report.found(
            Kind::Mismatch,
            Some(record),
            format!("the model file states epsilon {claimed:.6}, but its release in record {record} brought it to {truth:.6}"),
        ),
        None if promised => report.found(Kind::Mismatch, Some(record), "the model file states no epsilon, but the ledger does"),
        _ => {}
    }
    if let (Some(stated), Some(budget)) = (model.delta, account.terms().budget)
        && stated != budget.delta
    {
        let what = format!("the model file states delta {stated}, the ledger {}", budget.delta);
        report.found(Kind::Mismatch, Some(record), what);
    }
    let seeded = report.provenance == Some(Provenance::SeededSimulation);
    let detail = format!(
        "the model was released by record {record}, at epsilon {truth:.6} against recipients{}",
        if seeded { ", which a known seed takes away" } else { "" }
    );
    report.checked(Part::Model, true, detail);
}

fn moments(rounds: &[Charged], exact: &BTreeMap<usize, Pair>, report: &mut Report) {
    let before = report.moments.last().map_or(0, |moment| moment.round);
    for at in even(rounds.len(), MOMENTS) {
        let round = &rounds[at];
        report.moments.push(Moment {
            round: before + at as u64 + 1,
            record: round.record,
            epoch: round.epoch,
            cohort: round.cohort,
            noise_multiplier: noise_of_round(&round.terms.mechanism),
            claimed: round.release,
            recomputed: exact.get(&at).map(|pair| pair.0),
            limit: round.limits.map(|limits| limits.0),
        });
    }
    let shown: Vec<u64> = report.moments.iter().map(|moment| moment.round).collect();
    for (&at, pair) in
        exact.iter().filter(|(at, _)| !shown.contains(&(before + **at as u64 + 1))).take(MOMENTS)
    {
        let round = &rounds[at];
        report.moments.push(Moment {
            round: before + at as u64 + 1,
            record: round.record,
            epoch: round.epoch,
            cohort: round.cohort,
            noise_multiplier: noise_of_round(&round.terms.mechanism),
            claimed: round.release,
            recomputed: Some(pair.0),
            limit: round.limits.map(|limits| limits.0),
        });
    }
    report.moments.sort_by_key(|moment| moment.round);
}

/// Places in a list of `count`: all of few, and of many so many that their logarithms are spread evenly. The last is among them.
fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    let mut places: Vec<usize> = (0..most)
        .map(|step| {
            ((count as f64).powf(step as f64 / (most - 1) as f64).round() as usize - 1).min(count - 1)
        })
        .collect();
    places.push(count - 1);
    places.dedup();
    places
}

/// Places in a list of `count`, evenly spread, the last among them.
fn even(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let step = count.div_ceil(most).max(1);
    (0..count).filter(move |at| at % step == 0 || at + 1 == count)
}

fn is_below(claimed: Epsilon, least: Epsilon) -> bool {
    if least.is_finite() { claimed.get() + TOLERANCE < least.get() } else { claimed.is_finite() }
}

/// Where nothing is promised every epsilon is infinite, whatever the delta.
fn delta(account: &Account) -> Delta {
    account
        .terms()
        .budget
        .map_or_else(|| Delta::new(0.5).expect("0.5 is between 0 and 1"), |budget| budget.delta)
}

/// Below this, a claim that is too low counts as equal.
const TOLERANCE: f64 = 1e-6;
/// Claims that are recomputed exactly when there are more.
const EXACT_CLAIMS: usize = 32;
/// After so many false claims of an epoch the rest are not listed.
const MOST_COMPLAINTS: u32 = 10;
/// Rounds in pictures.
const MOMENTS: usize = 300;
