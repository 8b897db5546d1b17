//! From what was typed to what it means.

mod privacy;
mod strategy;

use std::str::FromStr;

use skep_privacy::ledger::Participation;
use skep_privacy::quantities::{QuantityError, Sampling, SamplingRate};
use thiserror::Error;

use super::file::{
    AttackFile, DataFile, ExperimentFile, FidelityFile, ModelFile, PartitionFile, PopulationFile, Precision,
    RoundsFile, SamplingFile, SimulationFile, StrategyFile, TaskFile, TrainingFile, TuningFile,
};
use super::task::is_name;
use super::{
    Attack, Data, Experiment, Fidelity, InitialWeights, Model, Partition, Population, Predicted, Privacy,
    Rounds, Simulation, Strategy, Task, Training, Tuning, lenet, resnet, simple_cnn,
};
use crate::ids::Digest;
use crate::time::Span;

/// A value that makes no sense, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} {problem}")]
pub struct Invalid {
    /// The key, with dots: `privacy.clip_norm`.
    pub key: String,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

impl TryFrom<&ExperimentFile> for Experiment {
    type Error = Invalid;

    fn try_from(file: &ExperimentFile) -> Result<Self, Invalid> {
        if !is_name(&file.name) {
            return Err(invalid("name", "must be 1 to 64 bytes of printable text"));
        }
        let data = Data::try_from(&file.task.data)?;
        let population = population(&file.population)?;
        let privacy = privacy::privacy(file)?;
        if file.task.tuning.is_some() && file.task.initial_weights != InitialWeights::He {
            return Err(invalid(
                "task.initial_weights",
                "must be \"he\" with [task.tuning]: every client makes the weights that stay as they are itself",
            ));
        }
        let experiment = Experiment {
            name: file.name.clone(),
            seed: file.seed,
            task: task(file, &data, &privacy)?,
            initial_weights: file.task.initial_weights,
            attack: attack(file, &data)?,
            weights: file.task.tuning.as_ref().and_then(|tuning| tuning.weights.clone()),
            data,
            rounds: rounds(&file.rounds, population.clients)?,
            strategy: Strategy::try_from(&file.strategy)?,
            privacy,
            fidelity: privacy::fidelity(file)?,
            evaluation: file.evaluation.clone().unwrap_or_default(),
            simulation: simulation(file)?,
            population,
        };
        refuse_misplaced_columns(&experiment)?;
        strategy::refuse_combinations(&experiment)?;
        refuse_impossible_rounds(&experiment)?;
        privacy::refuse_combinations(&experiment)?;
        experiment.evaluation.check(&experiment.data, &experiment.privacy)?;
        Ok(experiment)
    }
}

fn task(file: &ExperimentFile, data: &Data, privacy: &Privacy) -> Result<Task, Invalid> {
    let example_privacy = privacy::example_privacy(privacy, file.rounds.count);
    if file.task.training.precision != Precision::F32 {
        return Err(invalid(
            "task.training.precision",
            "can only be \"f32\": models are trained on processors here, whose kernels have no arithmetic of 16 bits, so that it \
             would save neither time nor memory; micro_batch_size bounds the memory of a step",
        ));
    }
    let mut task = Task {
        name: file.name.clone(),
        seed: file.seed,
        inputs: data.features(),
        classes: data.classes(),
        model: match &file.task.model {
            ModelFile::Softmax {} => Model::Softmax,
            ModelFile::Mlp { hidden, activation } => {
                Model::Mlp { hidden: hidden.clone(), activation: *activation }
            }
            ModelFile::Layers { image, layers } => Model::Layers { image: *image, layers: layers.clone() },
            ModelFile::Transformer(transformer) => Model::Layers {
                image: None,
                layers: transformer.resolve(data.predicted() == Predicted::Word),
            },
            ModelFile::SimpleCnn { image, dropout } => {
                Model::Layers { image: Some(*image), layers: simple_cnn(*dropout) }
            }
            ModelFile::Own { name, parameters } => Model::Own { name: name.clone(), parameters: *parameters },
            ModelFile::LeNet { image } => Model::Layers { image: Some(*image), layers: lenet() },
            ModelFile::ResNet { depth, .. } if *depth < 8 || depth % 6 != 2 || *depth > 110 => {
                return Err(invalid("task.model.depth", "must be 8, 14, 20, 26 and so on, at most 110"));
            }
            ModelFile::ResNet { width, .. } if !(1..=1024).contains(width) => {
                return Err(invalid("task.model.width", "must be 1 to 1024"));
            }
            ModelFile::ResNet { image, depth, width } => {
                Model::Layers { image: Some(*image), layers: resnet(*image, (depth - 2) / 6, *width) }
            }
        },
        training: Training { example_privacy, ..Training::from(&file.task.training) },
        tuning: None,
        encoding: match data {
            Data::Table(table) if table.is_encoded() => Some(UNREAD),
            _ => None,
        },
        asked: file
            .evaluation
            .as_ref()
            .and_then(|evaluation| evaluation.asked(file.rounds.count, privacy.trust_mode())),
    };
    if let (Some(tuning), Some(parameters)) = (&file.task.tuning, task.model_parameters()) {
        if matches!(task.model, Model::Own { .. }) {
            return Err(invalid(
                "task.tuning",
                "is for models of layers; one of a program's own starts and freezes what it says",
            ));
        }
        task.tuning = Tuning::of(tuning, parameters)?;
    }
    task.check().map_err(|(key, problem)| invalid(key, problem))?;
    Ok(task)
}

fn attack(file: &ExperimentFile, data: &Data) -> Result<Option<Attack>, Invalid> {
    let attack = file.simulation.attack.as_ref();
    attack
        .map(|attack| Attack::new(attack, data.features(), data.classes(), file.population.clients))
        .transpose()
}

fn population(file: &PopulationFile) -> Result<Population, Invalid> {
    if !(1..=MAX_CLIENTS).contains(&file.clients) {
        return Err(invalid(
            "population.clients",
            format!("is {}, but must be 1 to {MAX_CLIENTS}", file.clients),
        ));
    }
    let partition = match file.partition {
        PartitionFile::Iid {} => Partition::Iid,
        PartitionFile::Dirichlet { alpha } if alpha.is_finite() && alpha > 0.0 => {
            Partition::Dirichlet { alpha }
        }
        PartitionFile::Dirichlet { alpha } => {
            return Err(invalid(
                "population.partition.alpha",
                format!("is {alpha}, but must be a finite number above 0"),
            ));
        }
        PartitionFile::Shards { per_client: 0 } => {
            return Err(invalid("population.partition.per_client", "must be at least 1"));
        }
        PartitionFile::Shards { per_client } => Partition::Shards { per_client },
        PartitionFile::Column {} => Partition::Column,
        PartitionFile::Generated {} => Partition::Generated,
    };
    if file.ledger.as_ref().is_some_and(String::is_empty) {
        return Err(invalid("population.ledger", "is empty, but must name a file"));
    }
    let participation = participation(file)?;
    Ok(Population { clients: file.clients, partition, ledger: file.ledger.clone(), participation })
}

fn participation(file: &PopulationFile) -> Result<Option<Participation>, Invalid> {
    for (key, limit) in
        [("max_participations", file.max_participations), ("min_separation", file.min_separation)]
    {
        if limit == Some(0) {
            return Err(invalid(&format!("population.{key}"), "must be at least 1"));
        }
    }
    Ok(match (file.max_participations, file.min_separation) {
        (None, None) => None,
        (max, min_separation) => {
            Some(Participation { max: max.unwrap_or(u64::MAX), min_separation: min_separation.unwrap_or(1) })
        }
    })
}

/// Rounds that the participation limits can never let happen.
fn refuse_impossible_rounds(experiment: &Experiment) -> Result<(), Invalid> {
    let Some(Participation { max, min_separation }) = experiment.population.participation else {
        return Ok(());
    };
    let (clients, rounds) = (experiment.population.clients, experiment.rounds.count);
    let cohort = match experiment.rounds.sampling {
        Sampling::All => clients,
        Sampling::Fixed { size, .. } => size,
        // Whoever may not take part is silently left out.
        Sampling::Poisson { .. } => return Ok(()),
    };
    let (wanted, possible) = (u128::from(rounds) * u128::from(cohort), u128::from(max) * u128::from(clients));
    if wanted > possible {
        return Err(invalid(
            "population.max_participations",
            format!(
                "is {max}, which lets {clients} clients take part {possible} times, but {rounds} rounds of {cohort} need {wanted}: \
                 allow more, or plan fewer or smaller rounds"
            ),
        ));
    }
    let together = u128::from(min_separation.min(rounds)) * u128::from(cohort);
    if together > u128::from(clients) {
        return Err(invalid(
            "population.min_separation",
            format!(
                "is {min_separation}, but so many rounds of {cohort} different clients each need {together} clients, and there \
                 are {clients}: ask for less, or invite fewer"
            ),
        ));
    }
    Ok(())
}

fn rounds(file: &RoundsFile, clients: u64) -> Result<Rounds, Invalid> {
    if !(1..=MAX_ROUNDS).contains(&file.count) {
        return Err(invalid("rounds.count", format!("is {}, but must be 1 to {MAX_ROUNDS}", file.count)));
    }
    let sampling = match file.sampling {
        SamplingFile::All {} => Sampling::All,
        SamplingFile::Poisson { rate } => {
            Sampling::Poisson { rate: SamplingRate::new(rate).map_err(at("rounds.sampling.rate"))? }
        }
        SamplingFile::Fixed { size } => Sampling::fixed(size, clients).map_err(at("rounds.sampling.size"))?,
    };
    let largest_cohort = match sampling {
        Sampling::Fixed { size, .. } => size,
        Sampling::All | Sampling::Poisson { .. } => clients,
    };
    if file.min_updates == 0 || u64::from(file.min_updates) > largest_cohort {
        return Err(invalid(
            "rounds.min_updates",
            format!("is {}, but must be 1 to the largest cohort, {largest_cohort}", file.min_updates),
        ));
    }
    if !(file.deadline_s >= 0.1 && file.deadline_s <= MAX_DEADLINE_S) {
        return Err(invalid(
            "rounds.deadline_s",
            format!("is {}, but must be 0.1 to {MAX_DEADLINE_S} seconds", file.deadline_s),
        ));
    }
    Ok(Rounds {
        count: file.count,
        sampling,
        min_updates: file.min_updates,
        deadline: Span::from_millis((file.deadline_s * 1000.0).round() as u64),
    })
}

fn simulation(file: &ExperimentFile) -> Result<Simulation, Invalid> {
    let SimulationFile { round_every_s, devices, availability, faults, private_layers, .. } =
        file.simulation.clone();
    let simulation = Simulation {
        round_every_s,
        devices: devices.unwrap_or_default(),
        availability: availability.unwrap_or_default(),
        faults: faults.unwrap_or_default(),
        private_layers,
    };
    simulation.check(file.rounds.count, file.population.clients)?;
    Ok(simulation)
}

/// What stands in a file: nothing where it would say what is so anyway.
fn unless_default<T: Clone + Default + PartialEq>(value: &T) -> Option<T> {
    (*value != T::default()).then(|| value.clone())
}

fn refuse_misplaced_columns(experiment: &Experiment) -> Result<(), Invalid> {
    let generated = matches!(&experiment.data, Data::Workload(_));
    if generated != (experiment.population.partition == Partition::Generated) {
        return Err(invalid(
            "population.partition.kind",
            "must be \"generated\" where task.data is a workload, and can be nowhere else",
        ));
    }
    if generated && !matches!(experiment.rounds.sampling, Sampling::Fixed { .. }) {
        return Err(invalid(
            "rounds.sampling.scheme",
            "must be \"fixed\" with a workload, whose cohorts are public: nothing may be amplified by their secrecy",
        ));
    }
    if experiment.population.partition == Partition::Column && !experiment.data.has_clients() {
        return Err(invalid(
            "population.partition",
            "cannot be by column: only tables and texts with `client`, a column of clients, have one",
        ));
    }
    match (experiment.data.predicted(), experiment.population.partition) {
        (Predicted::Number, Partition::Dirichlet { .. } | Partition::Shards { .. }) => Err(invalid(
            "population.partition.kind",
            "deals out classes, and a number to predict has none: choose \"iid\", or \"column\" with task.data.client",
        )),
        _ => Ok(()),
    }
}

/// The digest of an encoding before the files are read that it may depend on.
const UNREAD: Digest = Digest([0; 32]);

fn parsed<T: FromStr<Err = QuantityError>>(key: &str, text: &Option<String>) -> Result<T, Invalid> {
    text.as_deref().ok_or_else(|| missing(key))?.parse().map_err(at(key))
}

fn checked<T>(
    key: &str,
    value: Option<f64>,
    new: impl FnOnce(f64) -> Result<T, QuantityError>,
) -> Result<T, Invalid> {
    new(value.ok_or_else(|| missing(key))?).map_err(at(key))
}

fn missing(key: &str) -> Invalid {
    invalid(key, "is missing: a privacy parameter has no default, choose it")
}

fn at(key: &str) -> impl Fn(QuantityError) -> Invalid {
    let key = key.to_owned();
    move |error| invalid(&key, format!("is wrong: {error}"))
}

pub(super) fn invalid(key: &str, problem: impl Into<String>) -> Invalid {
    Invalid { key: key.to_owned(), problem: problem.into() }
}

impl From<&Experiment> for ExperimentFile {
    /// The file that describes this experiment, with every value spelled out.
    fn from(experiment: &Experiment) -> Self {
        ExperimentFile {
            name: experiment.name.clone(),
            seed: experiment.seed,
            task: task_file(experiment),
            population: PopulationFile {
                clients: experiment.population.clients,
                partition: match experiment.population.partition {
                    Partition::Iid => PartitionFile::Iid {},
                    Partition::Dirichlet { alpha } => PartitionFile::Dirichlet { alpha },
                    Partition::Shards { per_client } => PartitionFile::Shards { per_client },
                    Partition::Column => PartitionFile::Column {},
                    Partition::Generated => PartitionFile::Generated {},
                },
                ledger: experiment.population.ledger.clone(),
                max_participations: experiment
                    .population
                    .participation
                    .map(|limit| limit.max)
                    .filter(|max| *max < u64::MAX),
                min_separation: experiment.population.participation.map(|limit| limit.min_separation),
            },
            rounds: RoundsFile {
                count: experiment.rounds.count,
                sampling: match experiment.rounds.sampling {
                    Sampling::All => SamplingFile::All {},
                    Sampling::Poisson { rate } => SamplingFile::Poisson { rate: rate.get() },
                    Sampling::Fixed { size, .. } => SamplingFile::Fixed { size },
                },
                min_updates: experiment.rounds.min_updates,
                deadline_s: experiment.rounds.deadline.as_millis() as f64 / 1000.0,
            },
            strategy: StrategyFile::from(&experiment.strategy),
            privacy: privacy::privacy_file(&experiment.privacy),
            secure_aggregation: privacy::secure_aggregation_file(&experiment.privacy),
            evaluation: unless_default(&experiment.evaluation),
            simulation: SimulationFile {
                fidelity: match experiment.fidelity {
                    Fidelity::Sum => FidelityFile::Sum,
                    Fidelity::Protocol => FidelityFile::Protocol,
                },
                round_every_s: experiment.simulation.round_every_s,
                devices: unless_default(&experiment.simulation.devices),
                availability: unless_default(&experiment.simulation.availability),
                faults: unless_default(&experiment.simulation.faults),
                attack: experiment.attack.as_ref().map(AttackFile::from),
                private_layers: experiment.simulation.private_layers.clone(),
            },
        }
    }
}

fn task_file(experiment: &Experiment) -> TaskFile {
    TaskFile {
        data: DataFile::from(&experiment.data),
        model: match &experiment.task.model {
            Model::Softmax => ModelFile::Softmax {},
            Model::Mlp { hidden, activation } => {
                ModelFile::Mlp { hidden: hidden.clone(), activation: *activation }
            }
            Model::Layers { image, layers } => ModelFile::Layers { image: *image, layers: layers.clone() },
            Model::Own { name, parameters } => ModelFile::Own { name: name.clone(), parameters: *parameters },
        },
        initial_weights: experiment.initial_weights,
        training: TrainingFile::from(&experiment.task.training),
        tuning: tuning_file(experiment),
    }
}

fn tuning_file(experiment: &Experiment) -> Option<TuningFile> {
    let (weights, tuning) = (experiment.weights.clone(), experiment.task.tuning.as_deref());
    match (&weights, tuning) {
        (None, None) => None,
        (_, tuning) => Some(TuningFile {
            weights,
            frozen: tuning.map(|tuning| tuning.frozen.clone()).unwrap_or_default(),
            lora: tuning.and_then(|tuning| tuning.lora.clone()),
        }),
    }
}

const MAX_CLIENTS: u64 = u32::MAX as u64;
const MAX_ROUNDS: u64 = 10_000_000;
/// A week.
const MAX_DEADLINE_S: f64 = 604_800.0;

#[cfg(test)]
mod tests {
    use super::super::EvaluationQuery;
    use super::*;
    use crate::experiment::Evaluation;
    use crate::experiment::evaluation::Metric;
    use crate::experiment::file::{BatchFile, BatchWord, ModeFile, PrivacyFile, WeightingFile};
    use crate::experiment::simulation::{
        Amount, Availability, Devices, Distribution, Faults, LogNormal, Scripted,
    };

    pub(super) fn digits() -> ExperimentFile {
        ExperimentFile {
            name: "digits".into(),
            seed: 1,
            task: TaskFile {
                initial_weights: Default::default(),
                data: DataFile::Digits,
                model: ModelFile::Softmax {},
                training: TrainingFile::plain(2.0, 5, BatchFile::Word(BatchWord::Full)),
                tuning: None,
            },
            population: PopulationFile {
                clients: 100,
                partition: PartitionFile::Dirichlet { alpha: 0.3 },
                ledger: None,
                max_participations: None,
                min_separation: None,
            },
            rounds: RoundsFile {
                count: 60,
                sampling: SamplingFile::All {},
                min_updates: 50,
                deadline_s: 30.0,
            },
            strategy: StrategyFile::Fedavg {
                weighting: WeightingFile::Uniform,
                max_examples: None,
                server_learning_rate: 1.0,
            },
            privacy: PrivacyFile {
                mode: ModeFile::Central,
                unit: Some("client".into()),
                adjacency: Some("zero-out".into()),
                clip_norm: Some(1.0),
                noise_multiplier: Some(5.0),
                delta: Some(1e-5),
                epsilon_limit: Some(8.0),
            },
            secure_aggregation: None,
            evaluation: None,
            simulation: SimulationFile::default(),
        }
    }

    fn refused_key(change: impl FnOnce(&mut ExperimentFile)) -> String {
        let mut file = digits();
        change(&mut file);
        Experiment::try_from(&file).expect_err("the change makes no sense").key
    }

    #[test]
    fn an_evaluation_that_makes_no_sense_is_refused() {
        let key = |change: fn(&mut Evaluation)| {
            refused_key(|file| {
                let mut evaluation = Evaluation::default();
                change(&mut evaluation);
                file.evaluation = Some(evaluation);
            })
        };
        assert_eq!(key(|evaluation| evaluation.every = 0), "evaluation.every");
        assert_eq!(key(|evaluation| evaluation.validation = Some(1.0)), "evaluation.validation");
        assert_eq!(key(|evaluation| evaluation.clients = Some(0.5)), "evaluation.hold_out");
        assert_eq!(key(|evaluation| evaluation.hold_out = Some(0.5)), "evaluation.clients");
        assert_eq!(key(|evaluation| evaluation.patience = Some(0)), "evaluation.patience");
        assert_eq!(key(|evaluation| evaluation.min_delta = Some(0.1)), "evaluation.patience");
        let query = EvaluationQuery { every: 5, noise_multiplier: 1.0, max_loss: 4.0 };
        let asked = |query, hold_out| {
            let evaluation = Evaluation { query: Some(query), hold_out, ..Evaluation::default() };
            refused_key(|file| file.evaluation = Some(evaluation))
        };
        assert_eq!(asked(query, None), "evaluation.hold_out");
        let never = EvaluationQuery { every: 0, ..query };
        assert_eq!(asked(never, Some(0.5)), "evaluation.query.every");
        let negative = EvaluationQuery { noise_multiplier: -1.0, ..query };
        assert_eq!(asked(negative, Some(0.5)), "evaluation.query.noise_multiplier");
        let bottomless = EvaluationQuery { max_loss: f64::INFINITY, ..query };
        assert_eq!(asked(bottomless, Some(0.5)), "evaluation.query.max_loss");
        // The digits are learned in private.
        let by_clients = |evaluation: &mut Evaluation| {
            (evaluation.clients, evaluation.hold_out) = (Some(0.5), Some(0.5));
            (evaluation.patience, evaluation.metric) = (Some(3), Some(Metric::ClientAccuracy));
        };
        assert_eq!(key(by_clients), "evaluation.metric");
        let mut open = digits();
        open.privacy = PrivacyFile::NONE;
        let mut evaluation = Evaluation::default();
        by_clients(&mut evaluation);
        evaluation.query = Some(query);
        open.evaluation = Some(evaluation.clone());
        assert_eq!(Experiment::try_from(&open).unwrap_err().key, "evaluation.query");
        evaluation.query = None;
        open.evaluation = Some(evaluation);
        assert_eq!(ExperimentFile::from(&Experiment::try_from(&open).unwrap()), open);
    }

    #[test]
    fn a_simulation_that_makes_no_sense_is_refused() {
        let key = |change: fn(&mut SimulationFile)| refused_key(|file| change(&mut file.simulation));
        assert_eq!(key(|file| file.round_every_s = Some(-1.0)), "simulation.round_every_s");
        let devices = |amount| Some(Devices { examples_per_s: Some(amount), ..Devices::IDEAL });
        for amount in [
            Amount::Fixed(0.0),
            Amount::Drawn(Distribution::Uniform([2.0, 1.0])),
            Amount::Drawn(Distribution::OneOf(vec![])),
            Amount::Drawn(Distribution::LogNormal(LogNormal { median: 1.0, spread: 0.5 })),
        ] {
            assert_eq!(
                refused_key(|file| file.simulation.devices = devices(amount)),
                "simulation.devices.examples_per_s"
            );
        }
        assert_eq!(
            key(|file| file.availability =
                Some(Availability::Diurnal { online: 0.0, spread: 1.0, day_s: 1.0 })),
            "simulation.availability.online"
        );
        assert_eq!(
            refused_key(|file| file.simulation.faults = Some(Faults { dropout: 1.1, ..Faults::NONE })),
            "simulation.faults.dropout"
        );
        let script = |client, round| vec![Scripted::Late { client, round }];
        for script in [script(100, 1), script(0, 0), script(0, 61)] {
            assert_eq!(
                refused_key(|file| file.simulation.faults = Some(Faults { script, ..Faults::NONE })),
                "simulation.faults.script"
            );
        }
    }

    #[test]
    fn a_valid_file_comes_back_as_it_was() {
        let mut file = digits();
        (file.population.max_participations, file.population.min_separation) = (Some(60), Some(1));
        let limited = Experiment::try_from(&file).unwrap();
        assert_eq!(limited.population.participation, Some(Participation { max: 60, min_separation: 1 }));
        assert_eq!(ExperimentFile::from(&limited), file);
        let file = digits();
        let experiment = Experiment::try_from(&file).unwrap();
        assert_eq!(ExperimentFile::from(&experiment), file);
        assert_eq!(experiment.cohort_max(), 100);
        assert_eq!(experiment.expected_cohort(), 100.0);
    }

    #[test]
    fn every_missing_privacy_parameter_is_named() {
        assert_eq!(refused_key(|f| f.privacy.unit = None), "privacy.unit");
        assert_eq!(refused_key(|f| f.privacy.adjacency = None), "privacy.adjacency");
        assert_eq!(refused_key(|f| f.privacy.clip_norm = None), "privacy.clip_norm");
        assert_eq!(refused_key(|f| f.privacy.noise_multiplier = None), "privacy.noise_multiplier");
        assert_eq!(refused_key(|f| f.privacy.delta = None), "privacy.delta");
        assert_eq!(refused_key(|f| f.privacy.epsilon_limit = None), "privacy.epsilon_limit");
    }

    #[test]
    fn values_out_of_range_are_named() {
        assert_eq!(refused_key(|f| f.privacy.clip_norm = Some(-1.0)), "privacy.clip_norm");
        assert_eq!(refused_key(|f| f.privacy.noise_multiplier = Some(f64::NAN)), "privacy.noise_multiplier");
        assert_eq!(refused_key(|f| f.privacy.delta = Some(0.01)), "privacy.delta");
        assert_eq!(refused_key(|f| f.rounds.deadline_s = f64::NAN), "rounds.deadline_s");
        assert_eq!(refused_key(|f| f.rounds.min_updates = 101), "rounds.min_updates");
        assert_eq!(
            refused_key(|f| f.rounds.sampling = SamplingFile::Poisson { rate: 1.5 }),
            "rounds.sampling.rate"
        );
        assert_eq!(
            refused_key(|f| f.rounds.sampling = SamplingFile::Fixed { size: 101 }),
            "rounds.sampling.size"
        );
        assert_eq!(refused_key(|f| f.population.clients = 0), "population.clients");
        assert_eq!(refused_key(|f| f.population.min_separation = Some(0)), "population.min_separation");
        assert_eq!(refused_key(|f| f.population.min_separation = Some(2)), "population.min_separation");
        assert_eq!(
            refused_key(|f| f.population.max_participations = Some(59)),
            "population.max_participations"
        );
        assert_eq!(
            refused_key(|f| f.population.partition = PartitionFile::Shards { per_client: 0 }),
            "population.partition.per_client"
        );
        assert_eq!(
            refused_key(|f| f.population.partition = PartitionFile::Column {}),
            "population.partition"
        );
        assert_eq!(refused_key(|f| f.task.training.learning_rate = 0.0), "task.training.learning_rate");
    }

    #[test]
    fn claims_that_do_not_hold_are_refused() {
        assert_eq!(
            refused_key(|f| {
                f.strategy = StrategyFile::Fedavg {
                    weighting: WeightingFile::Examples,
                    max_examples: Some(10),
                    server_learning_rate: 1.0,
                }
            }),
            "strategy.weighting"
        );
        assert_eq!(refused_key(|f| f.privacy.unit = Some("example".into())), "privacy.unit");
        assert_eq!(refused_key(|f| f.privacy.adjacency = Some("replace".into())), "privacy.adjacency");
        assert_eq!(refused_key(|f| f.privacy.adjacency = Some("add-or-remove".into())), "privacy.adjacency");
        assert_eq!(refused_key(|f| f.privacy.mode = ModeFile::None), "privacy.unit");
    }
}
