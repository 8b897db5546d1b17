//! What follows from an experiment's public seed: the data, who has which of them, and the first model.
//!
//! Simulations and federations of local processes share this, so that both learn the same.

use skep_client::task::{architecture, check_own};
use skep_client::weights;
use skep_learning::pretrained::{self, Pretrained};
use skep_learning::{self as learning, Alpha, InitialWeights, PartitionError, Scheme, Subset, partition};
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::{self, Data, Experiment, Partition};
use skep_protocol::plan::Segment;
use skep_protocol::{ClientId, Round};

use crate::clients::generator;
use crate::{table, text};

pub use crate::data::{DataError, class_names, data, interface, owned, test_data};

/// Each client's share of the training data, by client id; none is empty.
///
/// # Errors
/// [`PartitionError`] when the data cannot be divided as the experiment says.
pub fn shares(experiment: &Experiment, train: &Subset) -> Result<Vec<Subset>, PartitionError> {
    let partition = divided(experiment, train)?;
    if partition.repaired > 0 {
        tracing::info!(
            clients = partition.repaired,
            "the partition left clients empty; each was given one example"
        );
    }
    Ok(partition.clients)
}

/// [`shares`], with how many of them had to be mended.
///
/// # Errors
/// [`PartitionError`] when the data cannot be divided as the experiment says.
pub fn divided(experiment: &Experiment, train: &Subset) -> Result<learning::Partition, PartitionError> {
    let scheme = match experiment.population.partition {
        Partition::Iid => Scheme::Iid,
        Partition::Dirichlet { alpha } => Scheme::Dirichlet { alpha: Alpha::new(alpha)? },
        Partition::Shards { per_client } => Scheme::Shards { per_client: per_client as usize },
        // What is generated client by client is never divided.
        Partition::Column | Partition::Generated => Scheme::Owners,
    };
    let clients = usize::try_from(experiment.population.clients).unwrap_or(usize::MAX);
    let key = Key::from_seed(experiment.seed).derive(Purpose::Partition, 0, 0);
    partition(train, clients, scheme, *key.expose())
}

/// The model before the first round.
///
/// # Errors
/// [`DataError`] when the model cannot be trained, or vectors that it starts from do not fit it.
pub fn initial_model(experiment: &Experiment) -> Result<Vec<f32>, DataError> {
    let whole = match &experiment.task.tuning {
        Some(_) => weights::of(&experiment.task)?.to_vec(),
        None => whole_model(experiment)?.parameters,
    };
    Ok(match weights::coordinates(&experiment.task)? {
        // A key of their own: the whole model may follow from the other one.
        Some(coordinates) => {
            let key = Key::from_seed(experiment.seed).derive(Purpose::InitialModel, 0, 1);
            coordinates.start(&whole, *key.expose())
        }
        None => whole,
    })
}

/// Reads the weights that the experiment starts from, counts what it trains of the model, and writes down how examples become
/// numbers. Whoever reads an experiment file calls this before the experiment is used.
///
/// # Errors
/// [`DataError`] when there is no such file, or it is about another model.
pub fn prepare(experiment: &mut Experiment) -> Result<(), DataError> {
    if let (Data::Table(table), Some(encoding)) = (&experiment.data, &mut experiment.task.encoding) {
        // Whoever reads the data says what is wrong; until there are statistics, others are made without them.
        *encoding = table::encoding(table).unwrap_or(*encoding);
    }
    count(experiment)?;
    if experiment.task.tuning.is_none() {
        return Ok(());
    }
    let digest = weights::keep(whole_model(experiment)?.parameters);
    experiment.task.tuning.iter_mut().for_each(|tuning| tuning.weights = digest);
    Ok(())
}

/// The part of [`prepare`] that reads no file, enough for somebody who asks nothing of the model.
///
/// # Errors
/// [`DataError`] when what is to be trained is no part of the model.
pub fn count(experiment: &mut Experiment) -> Result<(), DataError> {
    let Some(coordinates) = weights::coordinates(&experiment.task)? else { return Ok(()) };
    experiment.task.tuning.iter_mut().for_each(|tuning| tuning.parameters = coordinates.len() as u64);
    Ok(())
}

/// What is released of a model in the end, as the whole of it.
///
/// # Errors
/// [`DataError`] when it is no part of the experiment's model.
pub fn assembled(experiment: &Experiment, released: &[f32]) -> Result<Vec<f32>, DataError> {
    let Some(coordinates) = weights::coordinates(&experiment.task)? else { return Ok(released.to_vec()) };
    let mut model = Vec::new();
    coordinates.assemble(&weights::of(&experiment.task)?, released, &mut model);
    Ok(model)
}

/// Tensors of the model that are drawn, because the weights that the experiment starts from are without them.
///
/// # Errors
/// As for [`prepare`].
pub fn missing_weights(experiment: &Experiment) -> Result<Vec<String>, DataError> {
    Ok(whole_model(experiment)?.missing)
}

/// Every parameter of the model before the first round.
fn whole_model(experiment: &Experiment) -> Result<Pretrained, DataError> {
    let drawn = drawn_model(experiment)?;
    let Some(path) = &experiment.weights else {
        return Ok(Pretrained { parameters: drawn, missing: vec![] });
    };
    let read = pretrained::read(path, &architecture(&experiment.task), drawn)?;
    if !read.missing.is_empty() {
        let (weights, missing) = (path.display(), read.missing.join(", "));
        tracing::warn!(%weights, %missing, "tensors are not among the weights, and are drawn");
    }
    Ok(read)
}

fn drawn_model(experiment: &Experiment) -> Result<Vec<f32>, DataError> {
    check_own(&experiment.task)?;
    let architecture = architecture(&experiment.task);
    if let Data::Workload(workload) = experiment.data {
        return Ok(generator(workload).initial_parameters(&architecture)?);
    }
    let key = weights::initial_key(experiment.seed);
    let weights = match experiment.initial_weights {
        experiment::InitialWeights::He => InitialWeights::He,
        experiment::InitialWeights::Glorot => InitialWeights::Glorot,
    };
    let mut model = architecture.initial_parameters_by(weights, *key.expose())?;
    if let Data::Text(data) = &experiment.data {
        text::start_from_vectors(data, &architecture, &mut model).map_err(DataError::Text)?;
    }
    Ok(model)
}

/// The parts of the model, in the order of its parameters.
pub fn segments(experiment: &Experiment) -> Vec<Segment> {
    let segments = match weights::coordinates(&experiment.task) {
        Ok(Some(coordinates)) => coordinates.segments(),
        _ => architecture(&experiment.task).segments(),
    };
    segments.into_iter().map(|segment| Segment { len: segment.len() as u64, name: segment.name }).collect()
}

/// The root from which everything that client `client` draws in secret follows.
pub fn client_root(root: &Key, client: u64) -> Key {
    root.derive(Purpose::Client, 0, client)
}

/// The root from which follows what client `client` draws for a query; `number` tells queries after the same round apart.
pub(crate) fn asked_root(root: &Key, after: Round, number: u64, client: ClientId) -> Key {
    // Place 0 is that of its training.
    root.derive(Purpose::Client, ((after.0 + 1) << 16) + number, client.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::experiment;

    #[test]
    fn every_client_has_data_and_no_example_has_two_owners() {
        let experiment = experiment();
        let train = data(&experiment).unwrap().train;
        let shares = shares(&experiment, &train).unwrap();
        assert_eq!(shares.len() as u64, experiment.population.clients);
        assert!(shares.iter().all(|share| !share.is_empty()));
        let mut rows: Vec<_> = shares.iter().flat_map(Subset::rows).collect();
        rows.sort_unstable();
        assert!(rows.into_iter().eq(train.rows()));
    }

    #[test]
    fn the_partition_follows_from_the_public_seed_alone() {
        let rows = |seed| -> Vec<_> {
            let experiment = Experiment { seed, ..experiment() };
            let shares = shares(&experiment, &data(&experiment).unwrap().train).unwrap();
            shares.iter().map(|share| share.rows().to_vec()).collect()
        };
        assert_eq!(rows(1), rows(1));
        assert_ne!(rows(1), rows(2));
    }

    #[test]
    fn segments_make_up_the_model() {
        let experiment = experiment();
        let total: u64 = segments(&experiment).iter().map(|segment| segment.len).sum();
        assert_eq!(total, initial_model(&experiment).unwrap().len() as u64);
        assert_eq!(Some(total), experiment.task.parameter_count());
    }

    #[test]
    fn more_clients_than_examples_are_refused() {
        let mut experiment = experiment();
        experiment.population.clients = 1439;
        let train = data(&experiment).unwrap().train;
        let error = shares(&experiment, &train).unwrap_err();
        assert_eq!(error, PartitionError::TooManyClients { clients: 1439, examples: 1438 });
    }

    #[test]
    fn tensors_that_weights_are_without_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("trunk.safetensors");
        // The first of two layers, as PyTorch keeps it.
        let header = r#"{"0.weight":{"dtype":"F32","shape":[3,64],"data_offsets":[0,768]},"0.bias":{"dtype":"F32","shape":[3],"data_offsets":[768,780]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 780]].concat();
        std::fs::write(&file, bytes).unwrap();
        let mut experiment = experiment();
        experiment.task.model =
            experiment::Model::Mlp { hidden: vec![3], activation: experiment::Activation::Relu };
        assert!(missing_weights(&experiment).unwrap().is_empty());
        experiment.weights = Some(file);
        assert_eq!(missing_weights(&experiment).unwrap(), ["2.weight", "2.bias"]);
    }
}
