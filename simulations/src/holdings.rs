//! What the clients of a simulation have, before it runs.

use skep_learning::{LabelSkew, PartitionError, Split, Spread, Subset};
use skep_protocol::ClientId;
use skep_protocol::experiment::evaluation::Predicted;
use skep_protocol::experiment::{Data, Experiment};

use crate::clients::{Clients, counted};
use crate::held_out::hold_out;
use crate::population;

/// What clients have to train on.
#[derive(Clone, Debug, PartialEq)]
pub struct Holdings {
    /// Clients of the population.
    pub clients: u64,
    /// How many examples each trains on; of the first clients only, where they are generated.
    pub sizes: Vec<usize>,
    /// How these are distributed.
    pub size: Spread,
    /// Clients that the partition had left with nothing, and that were given one example.
    pub left_empty: usize,
    /// Examples that clients hold out, to be measured on.
    pub held_out: usize,
    /// Examples that no client has, for the server to decide by.
    pub validation: usize,
    /// How many examples of each class each of these clients trains on; none where an example has no class of its own.
    pub label_counts: Option<Vec<Vec<usize>>>,
    /// How these are distributed.
    pub labels: Option<LabelSkew>,
}

impl Holdings {
    /// Of an experiment and its data: of the very shares that a simulation trains on.
    ///
    /// # Errors
    /// [`PartitionError`] when the data cannot be divided as the experiment says.
    pub fn of(experiment: &Experiment, data: &Split) -> Result<Self, PartitionError> {
        let (shares, left_empty) = match experiment.data {
            Data::Workload(_) => (first_clients(experiment, data)?, 0),
            _ => {
                let divided = population::divided(experiment, &data.train)?;
                (divided.clients, divided.repaired)
            }
        };
        let hold_out = hold_out(experiment);
        let clients = || (0..).map(ClientId).zip(&shares);
        let kept = |share: &Subset| hold_out.as_ref().map_or(0, |hold_out| hold_out.count(share.len()));
        let sizes: Vec<usize> = shares.iter().map(|share| share.len() - kept(share)).collect();
        // Any word may come next, and a number is no class.
        let label_counts = (experiment.data.predicted() == Predicted::Class).then(|| {
            clients()
                .map(|(client, share)| counted(hold_out.as_ref(), client, share).trained)
                .collect::<Vec<_>>()
        });
        let labels = label_counts.as_ref().and_then(|counts| LabelSkew::of(counts.iter().map(Vec::as_slice)));
        let size = Spread::of(sizes.iter().map(|&size| size as f64).collect());
        Ok(Holdings {
            clients: experiment.population.clients,
            size: size.ok_or(PartitionError::NoClients)?,
            left_empty,
            held_out: shares.iter().map(kept).sum(),
            validation: data.validation.as_ref().map_or(0, Subset::len),
            sizes,
            label_counts,
            labels,
        })
    }
}

/// Clients are functions of their numbers, and there may be millions.
fn first_clients(experiment: &Experiment, data: &Split) -> Result<Vec<Subset>, PartitionError> {
    let clients = Clients::new(experiment, &data.train)?;
    Ok((0..MOST_GENERATED).map_while(|client| clients.get(ClientId(client))).collect())
}

/// As many as a workload's model is measured on.
const MOST_GENERATED: u64 = 100;

#[cfg(test)]
mod tests {
    use skep_protocol::experiment::Workload;

    use super::*;
    use crate::testing::experiment;

    #[test]
    fn holdings_are_those_of_the_run() {
        let mut experiment = experiment();
        (experiment.evaluation.hold_out, experiment.evaluation.validation) = (Some(0.25), Some(0.1));
        let data = population::data(&experiment).unwrap();
        let holdings = Holdings::of(&experiment, &data).unwrap();
        let counts = Clients::new(&experiment, &data.train).unwrap().label_counts(&experiment).unwrap();
        let trained: Vec<_> = counts.iter().map(|client| client.trained.clone()).collect();
        assert_eq!(holdings.label_counts, Some(trained));
        assert_eq!(holdings.held_out, counts.iter().map(|client| client.held_out).sum::<usize>());
        let trained = holdings.sizes.iter().sum::<usize>();
        assert_eq!((trained + holdings.held_out, holdings.validation), (1295, 143));
        assert_eq!(holdings.labels.unwrap().examples.iter().sum::<u64>(), trained as u64);
    }

    #[test]
    fn of_generated_clients_the_first_are_looked_at() {
        let mut experiment = experiment();
        experiment.data = Data::Workload(Workload::MlpText);
        experiment.population.clients = 1_000_000;
        let data = population::data(&experiment).unwrap();
        let holdings = Holdings::of(&experiment, &data).unwrap();
        assert_eq!((holdings.clients, holdings.sizes), (1_000_000, vec![10; 100]));
    }
}
