//! Asking simulated clients for something else than updates and answers of the schedule: a vocabulary, statistics.

use skep_client::trainer::{ClientKeys, answer};
use skep_privacy::prg::Key;
use skep_privacy::sum::Accumulator;
use skep_protocol::ClientId;
use skep_server::federation::{Federation, Question, RoundError};
use skep_server::roster::Contiguous;

use crate::error::SimulationError;
use crate::population::asked_root;

/// What clients said together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answers {
    /// The sum over all answers, with noise.
    pub(crate) sum: Vec<f64>,
    /// The standard deviation of that noise, on each number.
    pub(crate) deviation: f64,
}

/// Asks the clients of a population for numbers each, which are bounded, rounded, summed up and hidden as their updates are.
/// It is charged to the federation's ledger before `said` is called. `number` tells queries after the same round apart.
///
/// # Errors
/// [`SimulationError`]; [`SimulationError::Planning`] when the budget does not allow it. Once the query is charged it stays so, and has
/// ended.
pub(crate) fn ask(
    federation: &mut Federation,
    root: &Key,
    question: &Question,
    number: u64,
    mut said: impl FnMut(ClientId) -> Vec<f32>,
) -> Result<Answers, SimulationError> {
    let roster = Contiguous(federation.experiment().population.clients);
    let query = federation.open_query(question, number, &roster).map_err(SimulationError::Planning)?;
    let round = federation.round();
    let sum = query.cohort.iter().try_fold(Accumulator::new(query.grid), |mut sum, &client| {
        let keys = ClientKeys::from_root(&asked_root(root, round, number, client));
        let hidden = answer(said(client), &query.grid, &keys, round, client, query.prg);
        let hidden = hidden.map_err(|_| SimulationError::OutOfStep("an answer does not fit its grid"))?;
        sum.add(&hidden).map_err(|_| SimulationError::OutOfStep("an answer does not fit the sum"))?;
        Ok(sum)
    });
    let sum = match sum {
        Ok(sum) => sum,
        Err(error) => {
            federation.abandon_query(query, "an answer was refused").map_err(RoundError::from)?;
            return Err(error);
        }
    };
    let deviation = query.deviation(sum.members());
    let release = federation.answer_query(query, sum.finish())?;
    Ok(Answers { sum: release.decode(), deviation })
}
