//! `skep check`: what an experiment means and costs, before anybody is asked.

use serde::Serialize;
use serde_json::json;
use skep_privacy::ledger::RoundTerms;
use skep_privacy::prg::Key;
use skep_protocol::experiment::{Experiment, Privacy};
use skep_server::federation::{Federation, ServerKeys};
use skep_server::ledger::{Place, simulated};
use skep_simulations::population::{self, DataError};
use skep_simulations::{Clients, check_simulation};

use crate::arguments::{Check, Output};
use crate::cost::Cost;
use crate::experiment_file;
use crate::failure::Failure;
use crate::privacy_words;

/// Runs `skep check`.
///
/// # Errors
/// [`Failure`] when the file makes no sense or the budget does not allow its schedule.
pub(crate) fn run(arguments: &Check) -> Result<(), Failure> {
    let experiment = experiment_file::read(arguments.file.as_deref(), arguments.data_dir.as_deref())?;
    let price = Price::of(&experiment)?;
    match arguments.output {
        Output::Json => println!("{}", json!({ "experiment": experiment.name, "price": price })),
        Output::Text => print!("{}\n{}", experiment_file::to_toml(&experiment), price.text(&experiment)),
    }
    price.refuse_beyond_budget(&experiment)
}

/// What an experiment costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Price {
    /// Numbers in the model.
    pub(crate) parameters: u64,
    /// Bits of one coordinate of an update on the wire.
    pub(crate) bits_per_coordinate: u32,
    /// Bytes of a packed update, per client and round.
    pub(crate) update_bytes: u64,
    /// Bytes of a model, per client and round.
    pub(crate) model_bytes: u64,
    /// The epsilons after all rounds.
    #[serde(flatten)]
    pub(crate) cost: Cost,
    /// Rounds that the limit allows; null when it allows any number.
    pub(crate) rounds_allowed: Option<u64>,
    /// Tensors that are drawn, because the weights that training starts from are without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) drawn: Vec<String>,
}

impl Price {
    /// Everything that can be said before the first round.
    ///
    /// # Errors
    /// [`Failure`] when the federation cannot be set up: the model is too large, the data do not suffice.
    pub(crate) fn of(experiment: &Experiment) -> Result<Self, Failure> {
        check_simulation(experiment).map_err(Failure::configuration)?;
        let clients = check_data(experiment)?;
        let federation = never_to_run(experiment)?;
        let grid = federation.grid();
        let parameters = experiment.task.parameter_count().unwrap_or_default();
        let mut cost = Cost::planned(&federation);
        if let Some(clients) = clients {
            cost = cost.with_examples(experiment, &clients, experiment.rounds.count)?;
        }
        Ok(Price {
            parameters,
            bits_per_coordinate: grid.wire_bits(),
            update_bytes: (grid.dimension() as u64 * u64::from(grid.wire_bits())).div_ceil(8),
            model_bytes: 4 * parameters,
            cost,
            drawn: population::missing_weights(experiment).map_err(Failure::configuration)?,
            rounds_allowed: federation.delta().and_then(|_| {
                let account = federation.ledger().state().account();
                account.rounds_left(&RoundTerms::from(account.terms()))
            }),
        })
    }

    /// What is printed below the experiment.
    pub(crate) fn text(&self, experiment: &Experiment) -> String {
        let rounds = &experiment.rounds;
        let mut lines = vec![
            format!(
                "model       {}, {} bytes to each client of a round",
                self.trained(experiment),
                self.model_bytes
            ),
            format!(
                "update      {} bytes from each client of a round, {} bits a coordinate",
                self.update_bytes, self.bits_per_coordinate
            ),
            format!("rounds      {} of {}", rounds.count, privacy_words::sampling(rounds.sampling)),
        ];
        if let Some(limit) = &experiment.population.participation {
            lines.push(format!("each client {}", privacy_words::participation(limit)));
        }
        let costs = self.cost.lines(experiment);
        lines.extend(costs.iter().map(|(label, sentence)| format!("{label:<12}{sentence}")));
        if let (Some(masking), cohort) = (experiment.masking(), experiment.cohort_max()) {
            let groups = match masking.groups(cohort) {
                1 => format!("{cohort} clients"),
                groups => format!("{} clients, in {groups} groups,", masking.group_size),
            };
            let (least, threshold, degree) = (masking.group_min_updates, masking.threshold, masking.degree);
            let everybody = degree + 1 == masking.group_size;
            let helpers = if everybody { "others" } else { "share holders of each" };
            lines.push(format!(
                "masks       the server sees sums of at least {least} of {groups} only; {threshold} of the {degree} {helpers} must help \
                 to unmask",
            ));
        }
        if let Some(hidden) = privacy_words::hidden(experiment) {
            lines.push(format!("hidden      {hidden}"));
        }
        if let Some(part) = experiment.evaluation.validation {
            let promise = match experiment.privacy {
                Privacy::None => "",
                _ => ", and no promise is about them",
            };
            lines.push(format!(
                "validation  no client has {part} of the training examples: the server decides by them{promise}"
            ));
        }
        if let Some(query) = experiment.evaluation.query {
            let questions = rounds.count.div_ceil(query.every);
            lines.push(format!(
                "asked       clients are asked about the model {questions} times, noise multiplier {}; what that costs is in what stands \
                 here",
                query.noise_multiplier
            ));
        }
        if let Some(accountant) = self.cost.accountant {
            lines.push(format!("accountant  {accountant}"));
        }
        if !self.drawn.is_empty() {
            let drawn = self.drawn.join(", ");
            lines.push(format!("warning     drawn, since task.tuning.weights are without them: {drawn}"));
        }
        if f64::from(rounds.min_updates) > experiment.expected_cohort() {
            lines.push(format!(
                "warning     rounds.min_updates is {}, above the expected cohort of {}: most rounds will be aborted",
                rounds.min_updates,
                experiment.expected_cohort()
            ));
        }
        lines.join("\n") + "\n"
    }

    /// How many parameters there are, and travel.
    fn trained(&self, experiment: &Experiment) -> String {
        match (&experiment.task.tuning, experiment.task.model_parameters()) {
            (Some(_), Some(all)) => {
                format!(
                    "{} of {all} parameters are trained; the others are everybody's and do not travel",
                    self.parameters
                )
            }
            _ => format!("{} parameters", self.parameters),
        }
    }

    fn refuse_beyond_budget(&self, experiment: &Experiment) -> Result<(), Failure> {
        let limit = experiment.privacy.stated_terms().map(|terms| terms.epsilon_limit.get());
        if let (Some(epsilon), Some(limit)) = (self.cost.epsilon_example, limit)
            && epsilon > limit
        {
            return Err(Failure::Budget(format!(
                "the rounds would cost an example epsilon {epsilon:.4}, above privacy.epsilon_limit, {limit}"
            )));
        }
        match self.rounds_allowed {
            Some(allowed) if allowed < experiment.rounds.count => Err(Failure::Budget(format!(
                "the privacy budget allows {allowed} of the {} rounds",
                experiment.rounds.count
            ))),
            _ => Ok(()),
        }
    }
}

/// Whether the data are what the experiment says, as far as they are here: a server has no training data.
fn check_data(experiment: &Experiment) -> Result<Option<Clients>, Failure> {
    match population::data(experiment) {
        Ok(data) => Clients::new(experiment, &data.train).map(Some).map_err(Failure::configuration),
        Err(DataError::NoTraining) => {
            population::test_data(experiment).map(|_| None).map_err(Failure::configuration)
        }
        Err(error) => Err(Failure::configuration(error)),
    }
}

fn never_to_run(experiment: &Experiment) -> Result<Federation, Failure> {
    let model = population::initial_model(experiment).map_err(Failure::configuration)?;
    let key = Key::from_os().map_err(Failure::other)?;
    let ledger = simulated(&Place::Memory, experiment, &key, false).map_err(Failure::configuration)?;
    Federation::new(
        experiment.clone(),
        population::segments(experiment),
        model,
        ledger,
        ServerKeys::from_os(),
    )
    .map_err(Failure::configuration)
}
