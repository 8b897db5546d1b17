//! Asking clients' data for something else than an update: statistics, a vocabulary, an evaluation. The evaluations of the schedule are
//! rounds of their own, see [`Federation::plan_query`]; the others have no plan, and are of simulations:
//!
//! ```text
//! open_query ──▶ clients are asked, their answers summed ──▶ answer_query
//!            ╰─────────────────────────────────────────────▶ abandon_query
//! ```
//!
//! What it costs is on the population's ledger before anybody is asked, as for a round, and stays there. Answers are bounded,
//! rounded and hidden as updates are, by whom the experiment's mode says.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use skep_privacy::budget::Charge;
use skep_privacy::grid::Grid;
use skep_privacy::ledger::{Abort, Hash, LedgerError, Occasion, Request, RoundTerms, Settle};
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::{Key, PrgId};
use skep_privacy::quantities::{ClipNorm, NoiseMultiplier, Sampling};
use skep_privacy::sum::{Release, ReleaseError, Sum};
use skep_protocol::ClientId;
use skep_protocol::experiment::{Asked, Experiment};

use super::{Federation, PlanningError, RoundError, digest_of, encoding};
use crate::record::ClientAnswers;
use crate::roster::Roster;
use crate::select;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// What for.
    pub occasion: Occasion,
    /// Numbers of an answer.
    pub dimension: usize,
    /// The L2 bound of an answer.
    pub clip_norm: ClipNorm,
    /// The noise on the sum of all answers as a multiple of that; in mode local, on each answer. Of no meaning in mode none.
    pub noise_multiplier: NoiseMultiplier,
    /// Who is asked.
    pub sampling: Sampling,
}

impl Question {
    /// What the experiment asks of its clients about the model, if it does, and rounds from one query to the next.
    pub fn of(experiment: &Experiment) -> Option<(Self, NonZeroU64)> {
        let Asked { query, .. } = experiment.task.asked?;
        let question = Question {
            occasion: Occasion::Evaluation,
            dimension: Asked::NAMES.len(),
            clip_norm: Asked::clip_norm(),
            noise_multiplier: NoiseMultiplier::new(query.noise_multiplier).ok()?,
            sampling: experiment.rounds.sampling,
        };
        Some((question, NonZeroU64::new(query.every)?))
    }
}

/// A query that is charged; now its cohort may be asked.
#[derive(Debug)]
#[must_use = "a query is charged even when nobody is asked"]
pub struct Query {
    /// Who is asked. Secret.
    pub cohort: BTreeSet<ClientId>,
    /// On which grid answers are integers.
    pub grid: Grid,
    /// The record of the ledger that charged it.
    pub record: u64,
    /// The generator of noise and rounding.
    pub prg: PrgId,
    charge: Charge,
    noise: Key,
}

impl Query {
    /// The standard deviation of the noise on each number of the sum of so many answers, in the unit of the answers.
    pub fn deviation(&self, answers: u32) -> f64 {
        deviation(self.charge.mechanism(), &self.grid, answers)
    }
}

pub(super) fn deviation(mechanism: Mechanism, grid: &Grid, answers: u32) -> f64 {
    let steps = match mechanism {
        Mechanism::None => 0.0,
        Mechanism::RoundedGaussian { sigma, .. } => sigma as f64,
        Mechanism::NoiseShares { variance, .. } => (variance.get() * f64::from(answers)).sqrt(),
        Mechanism::LocalGaussian { sigma, .. } => sigma as f64 * f64::from(answers).sqrt(),
    };
    steps * grid.step()
}

/// The means over clients, and how far noise of this deviation on each number of the sum moves them alone in nineteen of twenty
/// queries. None where noise drowns how many they are.
pub(super) fn means(asked: &Asked, sum: &[f64], deviation: f64) -> Option<ClientAnswers> {
    let &[accuracy, loss, halves] = sum else { return None };
    let clients = 2.0 * halves;
    // Below that the count says nothing.
    if clients < 2.0 * NINETEEN_OF_TWENTY * deviation || clients < 0.5 {
        return None;
    }
    let mean = |sum: f64| (sum / clients).clamp(-0.5, 0.5);
    // By the delta method, of a quotient whose two parts have the same, independent noise; the count is twice its part.
    let within = |mean: f64| NINETEEN_OF_TWENTY * deviation / clients * (1.0 + 4.0 * mean * mean).sqrt();
    let (accuracy, loss, max_loss) = (mean(accuracy), mean(loss), asked.query.max_loss);
    Some(ClientAnswers {
        accuracy: accuracy + 0.5,
        accuracy_within: within(accuracy),
        loss: (loss + 0.5) * max_loss,
        loss_within: within(loss) * max_loss,
    })
}

/// Standard deviations.
const NINETEEN_OF_TWENTY: f64 = 1.96;

impl Federation {
    /// Draws the cohort of a query and charges it in the ledger. `number`, from 0, tells queries after the same round apart:
    /// with keys from a root, equal ones would have equal noise.
    ///
    /// # Errors
    /// [`PlanningError::Busy`] while a round is open, [`PlanningError::Query`] when answers fit no grid,
    /// [`PlanningError::Budget`] when the budget does not allow it, or another one; nobody may be asked.
    pub fn open_query(
        &mut self,
        question: &Question,
        number: u64,
        roster: &dyn Roster,
    ) -> Result<Query, PlanningError> {
        self.check_idle(roster)?;
        let (grid, mechanism) = encoding::of_answers(&self.experiment, question)?;
        let [drawing, noise] = self.keys.query(self.round, number)?;
        let cohort = select::cohort(question.sampling, roster, &drawing);
        let request = Request {
            occasion: question.occasion,
            round: self.round.0,
            task: Hash(self.task.0),
            terms: RoundTerms {
                mode: self.experiment.privacy.trust_mode(),
                mechanism,
                sampling: question.sampling,
            },
            model_in: Hash::ZERO,
            limit: self.experiment.privacy.terms().map(|terms| terms.epsilon_limit),
            noise_commitment: None,
        };
        let reserved = self.ledger.reserve(&request, cohort.iter().map(|client| client.0))?;
        let (record, prg) = (reserved.record, self.keys.generator());
        Ok(Query { cohort, grid, record, prg, charge: self.ledger.charge(reserved.reservation), noise })
    }

    /// Opens the sum of a query's answers with the noise that was paid for, unless clients have added it. What comes out is written
    /// down before anybody sees it: the digest of the integers, and of how many answers they are the sum.
    ///
    /// # Errors
    /// [`RoundError`]; the sum is lost, and the query has ended without an answer and stays charged.
    pub fn answer_query(&mut self, query: Query, sum: Sum) -> Result<Release, RoundError> {
        let answers = sum.members();
        let record = query.record;
        let released = match query.charge.mechanism() {
            Mechanism::None => sum.release_exact(query.charge),
            Mechanism::RoundedGaussian { .. } => sum.release(query.charge, &query.noise, query.prg),
            Mechanism::NoiseShares { .. } | Mechanism::LocalGaussian { .. } => {
                sum.release_noised(query.charge)
            }
        };
        let release = match released {
            Ok(release) => release,
            Err(error) => {
                let reason = match error {
                    ReleaseError::TooFewUpdates { least, .. } => format!("fewer than {least} answers"),
                    other => other.to_string(),
                };
                self.abandon(record, reason)?;
                return Err(error.into());
            }
        };
        let settle = Settle {
            reserve: record,
            plan: Hash::ZERO,
            aggregate: Hash(digest_of(&release).0),
            model_out: Hash::ZERO,
            updates: Some(answers),
            sealed: Vec::new(),
        };
        self.ledger.settle(settle, None)?;
        Ok(release)
    }

    /// Writes down that a query has ended without an answer, and why. It stays charged.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn abandon_query(&mut self, query: Query, reason: &str) -> Result<(), LedgerError> {
        self.abandon(query.record, reason.to_owned())
    }

    fn abandon(&mut self, reserve: u64, reason: String) -> Result<(), LedgerError> {
        self.ledger.abort(Abort { reserve, reason, refunded: false })
    }
}

#[cfg(test)]
mod tests {
    use skep_privacy::ledger::Mode;
    use skep_protocol::experiment::EvaluationQuery;

    use super::*;

    #[test]
    fn means_are_those_of_the_sum_and_their_bounds_those_of_the_noise() {
        let query = EvaluationQuery { every: 1, noise_multiplier: 1.0, max_loss: 4.0 };
        let asked = Asked { hold_out: 0.5, rounds: 10, mode: Mode::Central, query };
        // Ten clients of accuracy 0.8 and loss 1 of at most 4.
        let sum = [10.0 * 0.3, 10.0 * -0.25, 5.0];
        let said = means(&asked, &sum, 0.0).unwrap();
        let (accuracy, loss) = (said.accuracy, said.loss);
        assert!((accuracy - 0.8).abs() < 1e-12 && (loss - 1.0).abs() < 1e-12, "{said:?}");
        assert_eq!((said.accuracy_within, said.loss_within), (0.0, 0.0));
        let said = means(&asked, &sum, 0.1).unwrap();
        assert!((said.accuracy_within - 0.0196 * 1.36_f64.sqrt()).abs() < 1e-12, "{said:?}");
        assert!((said.loss_within - 4.0 * 0.0196 * 1.25_f64.sqrt()).abs() < 1e-12, "{said:?}");
        assert_eq!(means(&asked, &sum, 3.0), None, "drowned in noise");
        // What ten clients say adds up to that sum.
        let answer = asked.answer(0.8, 1.0);
        assert!(answer.iter().zip(sum).all(|(number, sum)| (f64::from(*number) * 10.0 - sum).abs() < 1e-6));
        assert_eq!(asked.answer(1.0, f64::NAN), [0.5, 0.5, 0.5]);
    }
}
