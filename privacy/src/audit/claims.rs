//! Epsilons, recomputed: of every epoch, by two accountants, and compared with what the ledger and a model file state.
//!
//! A claim below the truth is a false promise; one above it is only cautious. Under the schedule an epsilon takes
//! milliseconds, so of many rounds some are recomputed, spread evenly by their logarithm, with the last one always among
//! them. Epsilon never falls with the number of rounds, so each of the rest is known to lie between two of them.

use std::collections::{BTreeMap, BTreeSet};

use super::reading::{Charged, Read};
use super::report::{Epoch, Kind, Moment, Part, Report, Summed, Verdict};
use super::{Given, ModelClaim};
use crate::accounting::{Accountant, Composition, filter};
use crate::adversary::Adversary;
use crate::ledger::{Account, Basis, Budget, PlannedQuery, Provenance, RoundTerms, noise_of_round};
use crate::mechanism::Mechanism;
use crate::quantities::{Adjacency, Delta, Epsilon};

/// Checks the epsilons of what was read, and ends the report.
pub(super) fn check(read: Read, given: &Given) -> Report {
    let Read { mut report, state, charges, epochs, release, refunded } = read;
    let accounts = state.as_ref().map_or(&[][..], |state| state.epochs());
    for (epoch, account) in accounts.iter().enumerate() {
        let (reason, record) = epochs.get(epoch).cloned().unwrap_or((None, 0));
        let rounds: Vec<&Charged> = (0..)
            .zip(&charges)
            .filter(|(at, charge)| charge.epoch == epoch && !refunded.contains(at))
            .map(|(_, charge)| charge)
            .collect();
        let kept: Vec<&Charged> =
            rounds.iter().take_while(|round| round.basis == Basis::Schedule).copied().collect();
        let scheduled = Scheduled::of(&kept);
        let mut checker = Checker { account, rounds: &rounds, given, scheduled, exact: BTreeMap::new() };
        let checked = checker.epoch(reason, record, &mut report);
        moments(&rounds, &checker.exact, &mut report);
        report.epochs.push(checked);
    }
    if !accounts.is_empty() {
        summary(accounts, &mut report);
    }
    if let Some(model) = &given.model {
        let charged = |charge: usize| {
            let paid = (0..).zip(&charges).filter(|(at, _)| *at <= charge && !refunded.contains(at));
            paid.map(|(_, charge)| charge).filter(|other| other.epoch == charges[charge].epoch).collect()
        };
        let released = release.map(|(record, charge)| (record, charged(charge)));
        model_claim(model, released, accounts, &mut report);
    }
    report.judge();
    report
}

/// Against recipients, and against the server.
type Pair = (Epsilon, Epsilon);

struct Checker<'a> {
    account: &'a Account,
    rounds: &'a [&'a Charged],
    given: &'a Given,
    scheduled: Scheduled,
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
        let second = |adversary| {
            spending.seen_by(adversary).epsilon_at_whole_orders(delta).unwrap_or(Epsilon::INFINITE)
        };
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
        let off = |round: &&&Charged| round.occasion.is_round() && round.terms != planned;
        let exact = self.exact.len() as u64;
        Epoch {
            reason,
            record,
            terms: *self.account.terms(),
            rounds: self.rounds.len() as u64,
            queries: self.rounds.iter().filter(|round| !round.occasion.is_round()).count() as u64,
            off_schedule: self.rounds.iter().filter(off).count() as u64,
            departed: self.rounds.get(scheduled).map(|round| round.record),
            basis,
            claimed: self.rounds.last().map(|round| (round.release, round.server)),
            recomputed,
            renyi,
            exact_claims: exact,
            bounded_claims: self.rounds.len() as u64 - exact,
            bound,
        }
    }

    /// The claims before any departure: equal rounds, the queries of the schedule between them, and before them at most one other query.
    fn schedule(&mut self, scheduled: usize) {
        if scheduled == 0 {
            return;
        }
        let quick = self.composed(scheduled.min(2)).0.epsilon(Accountant::Analytic, self.delta()).is_ok();
        let most = match (self.given.every_claim, quick) {
            (true, _) => scheduled,
            (false, true) => EXACT_QUICK_CLAIMS,
            (false, false) => EXACT_CLAIMS,
        };
        for at in spread(scheduled, most) {
            let recompute = || self.recompute(at + 1);
            let pair = if quick { recompute() } else { alone(recompute) };
            self.exact.insert(at, pair);
        }
    }

    fn recompute(&self, charges: usize) -> Pair {
        let (release, server) = self.composed(charges);
        (release.best_epsilon(self.delta()), server.best_epsilon(self.delta()))
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

    /// The first so many charges, all as scheduled, with the queries that the schedule has for them.
    fn composed(&self, charges: usize) -> (Composition, Composition) {
        let adjacency = self.account.spending().adjacency();
        let seen = |adversary| self.scheduled.seen(charges, adversary, adjacency);
        (seen(Adversary::Recipients), seen(Adversary::Server))
    }

    fn delta(&self) -> Delta {
        delta(self.account)
    }
}

/// Charges of which all are as scheduled: rounds that are equal, the queries of the schedule between them, and before them at most
/// one query of another kind.
struct Scheduled {
    first: Option<RoundTerms>,
    round: Option<RoundTerms>,
    query: Option<PlannedQuery>,
    /// How many queries of the schedule are among so many charges.
    asked: Vec<u64>,
}

impl Scheduled {
    fn of(charges: &[&Charged]) -> Self {
        let is_round = |charge: &&&Charged| charge.occasion.is_round();
        let mut asked = vec![0];
        for charge in charges {
            asked.push(asked.last().unwrap_or(&0) + u64::from(charge.asked));
        }
        Self {
            first: charges
                .first()
                .filter(|charge| !is_round(charge) && !charge.asked)
                .map(|charge| charge.terms),
            round: charges.iter().find(is_round).map(|charge| charge.terms),
            query: charges.first().and_then(|charge| charge.scheduled),
            asked,
        }
    }

    /// What an adversary has seen of the first so many. A query of the schedule counts with the round that it belongs to, whether it
    /// was charged or not.
    fn seen(&self, charges: usize, adversary: Adversary, adjacency: Adjacency) -> Composition {
        let mut seen = Composition::new(adjacency);
        let mut push = |mechanism: Mechanism, sampling, times| {
            seen.push(mechanism.event(adversary, sampling, adjacency), times);
        };
        let asked = self.asked[charges];
        let first = u64::from(self.first.is_some() && charges > 0);
        let rounds = charges as u64 - asked - first;
        for (terms, times) in [(self.first, first), (self.round, rounds)] {
            if let Some(RoundTerms { mechanism, sampling, .. }) = terms {
                push(mechanism, sampling, times);
            }
        }
        if let Some(query) = self.query {
            push(query.mechanism, query.sampling, query.due(rounds).max(asked));
        }
        seen
    }
}

/// All epochs: a client who was in all of them lost all of this. Composed where they are about the same thing.
fn summary(accounts: &[Account], report: &mut Report) {
    let departed: u64 = report.epochs.iter().map(|epoch| epoch.off_schedule).sum();
    let mut basis = match departed {
        0 => "every round is as scheduled".to_owned(),
        rounds => format!("{rounds} rounds are not as scheduled"),
    };
    let queries: u64 = report.epochs.iter().map(|epoch| epoch.queries).sum();
    if queries > 0 {
        basis += &format!("; {queries} queries were charged besides");
    }
    let records: Vec<String> =
        report.epochs.iter().filter_map(|epoch| Some(epoch.departed?.to_string())).collect();
    basis += &match (&records[..], queries) {
        ([], 0) => String::new(),
        ([], _) => ", each as scheduled or the first charge of its epoch".to_owned(),
        (records, _) => format!(
            "; record {} departs from the schedule, and from it on epsilon follows the Rényi filter",
            records.join(" and record ")
        ),
    };
    report.checked(Part::Schedule, true, basis);
    if accounts.iter().any(|account| account.terms().participation.is_some()) {
        let detail = "how often each client took part is not checked: the ledger names no client, and whoever keeps the list of \
                      cohorts beside it has not given its key";
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
    // What one epoch was allowed may have been decided after another, so nothing tighter than basic composition holds.
    let sum = |last: fn(&Epoch) -> Epsilon| {
        Epsilon::from_computed(report.epochs.iter().map(|epoch| last(epoch).get()).sum())
    };
    report.all_epochs = Some(Summed {
        epsilon_release: sum(|epoch| epoch.recomputed.0),
        epsilon_server: sum(|epoch| epoch.recomputed.1),
        delta: budget.delta.get() * accounts.len() as f64,
        unit: budget.unit,
    });
}

/// A model file: its digest is that of a release, and what it states is not below what that release had cost, with all
/// rounds of the epoch up to it. `released` is the record that says so and the charges of those rounds, the last its own.
fn model_claim(
    model: &ModelClaim,
    released: Option<(u64, Vec<&Charged>)>,
    accounts: &[Account],
    report: &mut Report,
) {
    let Some((record, [.., charge])) = released.as_ref().map(|(record, paid)| (*record, &paid[..])) else {
        let what = format!("the model file's parameters {} were never released by this ledger", model.digest);
        report.found(Kind::Mismatch, None, what);
        return report.checked(Part::Model, false, "the model is not one of this ledger");
    };
    let account = &accounts[charge.epoch];
    let adjacency = account.spending().adjacency();
    let paid: Vec<&Charged> = released.iter().flat_map(|(_, paid)| paid.iter().copied()).collect();
    let truth = match charge.basis {
        Basis::Schedule => {
            let seen = Scheduled::of(&paid).seen(paid.len(), Adversary::Recipients, adjacency);
            seen.best_epsilon(delta(account))
        }
        Basis::Filter => {
            let mut spent = Composition::new(adjacency);
            for Charged { terms, .. } in paid {
                spent.push(terms.mechanism.event(Adversary::Recipients, terms.sampling, adjacency), 1);
            }
            account
                .filter_order(Adversary::Recipients)
                .map_or(Epsilon::INFINITE, |order| filter::epsilon(&spent, order, delta(account)))
        }
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

/// Adds an epoch's rounds to the pictures: some of all, and those that were recomputed.
fn moments(rounds: &[&Charged], exact: &BTreeMap<usize, Pair>, report: &mut Report) {
    let before = report.moments.last().map_or(0, |moment| moment.round);
    let recomputed =
        exact.keys().copied().filter(|at| exact.len() <= MOMENTS || at % (exact.len() / MOMENTS) == 0);
    let shown: BTreeSet<usize> = even(rounds.len(), MOMENTS).chain(recomputed).collect();
    report.moments.extend(shown.into_iter().map(|at| {
        let round = &rounds[at];
        Moment {
            round: before + at as u64 + 1,
            record: round.record,
            epoch: round.epoch,
            cohort: round.cohort,
            noise_multiplier: noise_of_round(&round.terms.mechanism),
            claimed: round.release,
            recomputed: exact.get(&at).map(|pair| pair.0),
            limit: round.limits.map(|limits| limits.0),
        }
    }));
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

/// Works on a thread of its own. Tables of transforms are kept by thread, megabytes for each length, and no two claims have
/// the same length: this way each is gone with its claim.
fn alone<R: Send>(work: impl Fn() -> R + Sync) -> R {
    std::thread::scope(|scope| match std::thread::Builder::new().spawn_scoped(scope, &work) {
        Ok(worker) => worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        // Where the system has no more threads, it takes more memory.
        Err(_) => work(),
    })
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
/// Claims that are recomputed exactly when there are more: milliseconds each, or microseconds where nobody is sampled.
const EXACT_CLAIMS: usize = 20;
const EXACT_QUICK_CLAIMS: usize = 10_000;
/// After so many false claims of an epoch the rest are not listed.
const MOST_COMPLAINTS: u32 = 10;
/// Rounds in pictures.
const MOMENTS: usize = 300;
