//! Who has which examples: shares of one data set, or clients that are generated when they are needed.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use skep_client::example_privacy::{ExamplePrivacyError, PrivateSteps};
use skep_client::held_out::HoldOut;
use skep_learning::workload::Workload;
use skep_learning::{PartitionError, Subset};
use skep_privacy::quantities::{Epsilon, Sampling};
use skep_protocol::experiment::{self, Data, Experiment};
use skep_protocol::{ClientId, Round};

use crate::held_out::hold_out;
use crate::population;

/// The examples of every client of a population.
#[derive(Debug)]
pub enum Clients {
    /// Shares of one data set, by client id.
    Shares(Vec<Subset>),
    /// Functions of a client's number: whoever is never selected costs nothing.
    Generated {
        /// What is generated.
        workload: Workload,
        /// How many clients there are.
        count: u64,
        /// What has been generated and is kept, by client id; empty where nothing is.
        kept: Vec<OnceLock<Subset>>,
    },
}

/// What a client has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelCounts {
    /// Examples of each class that it trains on.
    pub trained: Vec<usize>,
    /// Examples that it is measured on, and nobody trains on.
    pub held_out: usize,
}

impl Clients {
    /// The clients of an experiment; `train` is what they share, if they share anything.
    ///
    /// # Errors
    /// [`PartitionError`] when the data cannot be divided as the experiment says.
    pub fn new(experiment: &Experiment, train: &Subset) -> Result<Self, PartitionError> {
        let Data::Workload(workload) = experiment.data else {
            return population::shares(experiment, train).map(Clients::Shares);
        };
        let (workload, count) = (generator(workload), experiment.population.clients);
        let kept = match workload {
            Workload::MlpText | Workload::CnnCifar => usize::try_from(count).unwrap_or(0).min(MOST_KEPT),
            // As cheap to generate again as to keep.
            Workload::Linear => 0,
            // Two megabytes each.
            Workload::Cnn224 => 0,
        };
        Ok(Clients::Generated { workload, count, kept: (0..kept).map(|_| OnceLock::new()).collect() })
    }

    /// The examples of a client; `None` if there is no such client.
    pub fn get(&self, client: ClientId) -> Option<Subset> {
        let place = usize::try_from(client.0).ok();
        match self {
            Clients::Shares(shares) => shares.get(place?).cloned(),
            Clients::Generated { workload, count, kept } if client.0 < *count => {
                let generate = || workload.client(client.0);
                Some(match kept.get(place?) {
                    Some(kept) => kept.get_or_init(generate).clone(),
                    None => generate(),
                })
            }
            Clients::Generated { .. } => None,
        }
    }

    /// How many examples a client has, without generating them.
    pub fn examples(&self, client: ClientId) -> u64 {
        let place = usize::try_from(client.0).ok();
        match self {
            Clients::Shares(shares) => {
                place.and_then(|place| shares.get(place)).map_or(0, |share| share.len() as u64)
            }
            Clients::Generated { workload, count, .. } if client.0 < *count => workload.examples() as u64,
            Clients::Generated { .. } => 0,
        }
    }

    /// What rounds cost an example of the client whose examples they cost most; `None` unless the task hides single examples.
    ///
    /// # Errors
    /// [`ExamplePrivacyError`] when they cannot be hidden as the task says.
    pub fn example_epsilon(
        &self,
        experiment: &Experiment,
        rounds: u64,
    ) -> Result<Option<Epsilon>, ExamplePrivacyError> {
        let mut largest: Option<Epsilon> = None;
        for examples in self.trained_sizes(hold_out(experiment).as_ref()) {
            let Some(steps) = PrivateSteps::new(&experiment.task, examples)? else { return Ok(None) };
            let epsilon = steps.epsilon(rounds)?;
            largest = Some(largest.filter(|largest| *largest >= epsilon).unwrap_or(epsilon));
        }
        Ok(largest)
    }

    /// How many examples clients have: each number once, 0 left out.
    pub(crate) fn sizes(&self) -> BTreeSet<usize> {
        let sizes: BTreeSet<usize> = match self {
            Clients::Shares(shares) => shares.iter().map(Subset::len).collect(),
            Clients::Generated { workload, .. } => [workload.examples()].into(),
        };
        sizes.into_iter().filter(|&examples| examples > 0).collect()
    }

    /// How many examples clients train on: each number once, 0 left out.
    pub(crate) fn trained_sizes(&self, hold_out: Option<&HoldOut>) -> BTreeSet<usize> {
        let trained = |examples| examples - hold_out.map_or(0, |hold_out| hold_out.count(examples));
        self.sizes().into_iter().map(trained).collect()
    }

    /// How many examples of each class every client trains on, and how many are held out; none where clients are generated, of
    /// whom there may be millions.
    pub fn label_counts(&self, experiment: &Experiment) -> Option<Vec<LabelCounts>> {
        let Clients::Shares(shares) = self else { return None };
        let hold_out = hold_out(experiment);
        let counts = |(client, share)| counted(hold_out.as_ref(), client, share);
        Some((0..).map(ClientId).zip(shares).map(counts).collect())
    }

    /// Generates the examples of clients that are going to be selected, where examples are kept.
    pub(crate) fn prepare(&self, clients: &BTreeSet<ClientId>) {
        if let Clients::Generated { kept, .. } = self
            && !kept.is_empty()
        {
            clients.iter().for_each(|&client| drop(self.get(client)));
        }
    }
}

/// What a client does with its share.
pub(crate) fn counted(hold_out: Option<&HoldOut>, client: ClientId, share: &Subset) -> LabelCounts {
    match hold_out {
        None => LabelCounts { trained: share.label_counts(), held_out: 0 },
        Some(hold_out) => {
            let (trained, held_out) = hold_out.divide(client, share);
            LabelCounts { trained: trained.label_counts(), held_out: held_out.len() }
        }
    }
}

/// The cohort of a round where the data fix it, publicly; else it is drawn in secret.
pub(crate) fn public_cohort(experiment: &Experiment, round: Round) -> Option<BTreeSet<ClientId>> {
    match (&experiment.data, experiment.rounds.sampling) {
        (Data::Workload(workload), Sampling::Fixed { size, population }) => {
            let cohort = generator(*workload).cohort(round.0 - 1, size, population);
            Some(cohort.into_iter().map(ClientId).collect())
        }
        _ => None,
    }
}

/// The workload in the words of `skep-learning`.
pub(crate) fn generator(workload: experiment::Workload) -> Workload {
    match workload {
        experiment::Workload::MlpText => Workload::MlpText,
        experiment::Workload::CnnCifar => Workload::CnnCifar,
        experiment::Workload::Cnn224 => Workload::Cnn224,
        experiment::Workload::Linear => Workload::Linear,
    }
}

/// Clients whose examples are kept at most.
const MOST_KEPT: usize = 10_000;
