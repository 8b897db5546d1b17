//! Clients that train at their own pace, and what the server makes of it: FedBuff (Nguyen et al., "Federated Learning with
//! Buffered Asynchronous Aggregation", 2106.06639).
//!
//! So many clients train at any time, each from the model of when it began. As soon as one is done another begins, and every K
//! updates make a model. When who is done follows from devices alone, so it is known before anybody trains: a round is
//! planned for the K that are next, and trains them on all threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use skep_privacy::canonical::{CanonicalError, Reader, Writer};
use skep_privacy::prg::{Key, Purpose};
use skep_protocol::experiment::{Buffering, Experiment};
use skep_protocol::round::{AbortReason, Outcome, Progress};
use skep_protocol::{ClientId, Round, Time};
use skep_server::federation::PlannedRound;
use skep_server::record::{Cost, Observer};

use crate::devices;
use crate::error::SimulationError;
use crate::network::{Due, Network};
use crate::round::{Closed, World};
use crate::workers::{Job, Trainer};

/// The clients that train.
pub(crate) struct Buffer {
    buffering: Buffering,
    size: usize,
    clients: u64,
    key: Key,
    training: Network<Begun>,
    busy: BTreeSet<ClientId>,
    /// How many have begun so far.
    begun: u64,
}

/// A client that has begun.
struct Begun {
    client: ClientId,
    base: Arc<Vec<f32>>,
    /// The round before which it began, from whose model.
    round: Round,
}

/// The updates of a round, in the order in which they come.
pub(crate) struct Arrivals(Vec<Arrived>);

struct Arrived {
    due: Due,
    client: ClientId,
    base: Arc<Vec<f32>>,
    /// What it counts.
    weight: f64,
}

impl Arrivals {
    /// Whose they are.
    pub(crate) fn clients(&self) -> BTreeSet<ClientId> {
        self.0.iter().map(|arrived| arrived.client).collect()
    }
}

impl Buffer {
    /// Nobody has begun yet; none where the strategy is not buffered.
    pub(crate) fn of(experiment: &Experiment) -> Option<Self> {
        let buffering = experiment.strategy.buffering?;
        Some(Buffer {
            buffering,
            size: experiment.cohort_max() as usize,
            clients: experiment.population.clients,
            key: Key::from_seed(experiment.seed),
            training: Network::new(),
            busy: BTreeSet::new(),
            begun: 0,
        })
    }

    /// What an update counts since whose beginning so many models have been made.
    fn weight(&self, staleness: u64) -> f64 {
        libm::pow(1.0 + staleness as f64, -self.buffering.staleness_exponent)
    }

    /// Who trains, with the models that they began from.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let training = self.training.in_order();
        let models: BTreeMap<Round, &[f32]> =
            training.iter().map(|(_, begun)| (begun.round, begun.base.as_slice())).collect();
        let mut writer = Writer::new(DOMAIN);
        writer.u64(self.begun).length(models.len());
        for (round, model) in models {
            writer.u64(round.0).length(model.len());
            for parameter in model {
                writer.u32(parameter.to_bits());
            }
        }
        writer.length(training.len());
        for (at, begun) in training {
            writer.u64(at.as_millis()).u64(begun.client.0).u64(begun.round.0);
        }
        writer.finish()
    }

    /// Goes on where [`Buffer::to_bytes`] was.
    ///
    /// # Errors
    /// [`CanonicalError`] for other bytes.
    pub(crate) fn resume(&mut self, bytes: &[u8]) -> Result<(), CanonicalError> {
        let mut reader = Reader::new(bytes, DOMAIN)?;
        self.begun = reader.u64()?;
        let mut models = BTreeMap::new();
        for _ in 0..reader.length(size_of::<u64>())? {
            let round = Round(reader.u64()?);
            let len = reader.length(size_of::<f32>())?;
            let model = (0..len).map(|_| reader.u32().map(f32::from_bits)).collect::<Result<Vec<_>, _>>()?;
            models.insert(round, Arc::new(model));
        }
        for _ in 0..reader.length(3 * size_of::<u64>())? {
            let (at, client) = (Time::from_millis(reader.u64()?), ClientId(reader.u64()?));
            let round = Round(reader.u64()?);
            let base = models.get(&round).ok_or(CanonicalError::OutOfRange("round"))?.clone();
            self.busy.insert(client);
            self.training.send(at, Begun { client, base, round });
        }
        reader.finish()
    }

    /// Somebody who does not train and is not in the round.
    fn next_client(&mut self, round: &BTreeSet<ClientId>) -> ClientId {
        let mut prg = self.key.derive(Purpose::Cohort, 0, self.begun).stream();
        loop {
            let client = ClientId(prg.next_u64() % self.clients);
            if !self.busy.contains(&client) && !round.contains(&client) {
                return client;
            }
        }
    }
}

impl<T: Trainer> World<'_, T> {
    /// The updates that come next, after those that begin meanwhile have begun; the time is then that of the last. None where
    /// clients do not train at their own pace.
    pub(crate) fn arrivals(&mut self, round: Round) -> Option<Arrivals> {
        let mut buffer = self.buffer.take()?;
        let (mut arrived, mut chosen) = (Vec::new(), BTreeSet::new());
        while arrived.len() < buffer.size {
            while buffer.busy.len() < buffer.buffering.concurrency as usize {
                self.begin(&mut buffer, round, &chosen);
            }
            let Some((due, Begun { client, base, round: begun })) = buffer.training.receive() else { break };
            self.now = due.at;
            buffer.busy.remove(&client);
            chosen.insert(client);
            let weight = buffer.weight(round.0 - begun.0);
            arrived.push(Arrived { due, client, base, weight });
        }
        self.buffer = Some(buffer);
        Some(Arrivals(arrived))
    }

    fn begin(&mut self, buffer: &mut Buffer, round: Round, chosen: &BTreeSet<ClientId>) {
        let client = buffer.next_client(chosen);
        buffer.begun += 1;
        buffer.busy.insert(client);
        // A pace for each time it trains.
        let pace = devices::pace(self.devices, &self.public, Round(buffer.begun), client);
        let base = self.federation.base_model();
        let download = pace.download(size_of_val(base.as_slice()) as u64);
        let training = pace.training(self.trainer.examples(client), self.task.training.local_epochs);
        let upload = pace.upload(u64::from(self.federation.grid().wire_bits()) * base.len() as u64 / 8);
        buffer.training.send(self.now + download + training + upload, Begun { client, base, round });
    }

    /// Runs a round of updates that have arrived.
    ///
    /// # Errors
    /// [`SimulationError`].
    pub(crate) fn run_buffered(
        &mut self,
        arrivals: &Arrivals,
        planned: &PlannedRound,
        opened: Time,
        observer: &mut dyn Observer,
    ) -> Result<Closed, SimulationError> {
        let job = |arrived: &Arrived| Job {
            client: arrived.client,
            plan: planned.plan.clone(),
            base: arrived.base.clone(),
            weight: arrived.weight,
        };
        self.workers.announce(arrivals.0.iter().map(|arrived| (arrived.due, job(arrived))));
        let (mut progress, mut updates) = (BTreeMap::new(), 0);
        for arrived in &arrivals.0 {
            let client = arrived.client;
            if self.interrupted.load(Ordering::Relaxed) {
                self.workers.cancel(arrived.due);
                continue;
            }
            match self.workers.take(arrived.due, &job(arrived)) {
                Err(reason) => drop(progress.insert(client, Progress::Declined(reason))),
                Ok(made) => {
                    self.federation.commit(&made.update)?;
                    self.trainer.committed(client, &made.update);
                    updates += 1;
                    progress.insert(client, Progress::Committed);
                    observer.update_committed(planned.plan.plan().round, updates);
                }
            }
        }
        // The plan promises no more than one, since no client can count on the noise of others.
        let (invited, required) = (planned.invited(), self.federation.experiment().rounds.min_updates);
        let outcome = if self.interrupted.load(Ordering::Relaxed) {
            Outcome::Aborted(AbortReason::Stopped)
        } else if updates < required {
            Outcome::Aborted(AbortReason::TooFewUpdates { updates, required })
        } else {
            match self.federation.release() {
                Err(error) => {
                    tracing::warn!(round = planned.plan.plan().round.0, %error, "nothing was released");
                    Outcome::Aborted(error.abort_reason())
                }
                Ok(()) if updates == invited => Outcome::Complete { updates },
                Ok(()) => Outcome::Degraded { updates, invited },
            }
        };
        let bytes = |each: u64| each * u64::from(invited);
        let cost = Cost {
            time: self.now.since(opened),
            bytes_up: bytes(planned.plan.plan().upload_bytes()),
            bytes_down: bytes(size_of_val(self.federation.base_model().as_slice()) as u64),
        };
        Ok(Closed { outcome, progress: progress.into_iter().collect(), cost })
    }
}

const DOMAIN: &str = "skep buffer v1";

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use skep_privacy::client_noise::Contribution;
    use skep_privacy::grid::Grid;
    use skep_privacy::update::Update;
    use skep_protocol::experiment::file::{Devices, ExperimentFile, SamplingFile, StrategyFile};
    use skep_protocol::experiment::simulation::{Amount, Distribution};
    use skep_protocol::round::Decline;

    use skep_server::record::OutcomeKind;

    use super::*;
    use crate::schedule::SimulationReport;
    use crate::simulate::with_world;
    use crate::testing::{Run, Unmeasured, file, first_federation, local_file, options};

    /// Moves every parameter of client c by c + 1, and writes down from where and with which weight; one of them cannot train.
    #[derive(Default)]
    struct Constant {
        jobs: Mutex<Vec<(Round, ClientId, f32, f64)>>,
        failing: Option<ClientId>,
    }

    impl Trainer for Constant {
        fn examples(&self, client: ClientId) -> u64 {
            1 + client.0
        }

        fn train(&self, job: &Job) -> Result<Contribution, Decline> {
            let plan = job.plan.plan();
            self.jobs.lock().unwrap().push((plan.round, job.client, job.base[0], job.weight));
            if self.failing == Some(job.client) {
                return Err(Decline::TrainingFailed);
            }
            let Grid::Public(grid) = plan.grid()? else { return Err(Decline::Inconsistent) };
            let value = (job.client.0 + 1) as f32 * job.weight as f32;
            let update = Update::new(vec![value; job.base.len()]).map_err(|_| Decline::Unencodable)?;
            update.quantize_nearest(&grid).map(Contribution::from).map_err(|_| Decline::Unencodable)
        }
    }

    fn buffered() -> ExperimentFile {
        let mut file = file();
        file.strategy =
            StrategyFile::Fedbuff { concurrency: 3, staleness_exponent: 0.5, server_learning_rate: 1.0 };
        file.rounds.count = 12;
        file.rounds.sampling = SamplingFile::Fixed { size: 2 };
        file.rounds.min_updates = 2;
        // The more examples, the longer: some updates begin many models before they come.
        let rate = Amount::Drawn(Distribution::OneOf(vec![1.0, 30.0]));
        file.simulation.devices = Some(Devices { examples_per_s: Some(rate), ..Devices::IDEAL });
        file
    }

    fn run(file: &ExperimentFile, trainer: &Constant) -> SimulationReport {
        with_world(
            first_federation(file, 1),
            &Key::from_seed(1),
            trainer,
            &options(1),
            &AtomicBool::new(false),
            |world| crate::schedule::run(world, &mut Unmeasured, None, &mut ()),
        )
        .unwrap()
    }

    #[test]
    fn an_update_that_fails_is_lost_and_the_others_make_the_model() {
        let failing = Constant { failing: Some(ClientId(3)), ..Constant::default() };
        let mut file = buffered();
        let outcomes = |file: &ExperimentFile| {
            let report = run(file, &failing);
            let jobs = std::mem::take(&mut *failing.jobs.lock().unwrap());
            let failed = jobs.iter().filter(|(_, client, ..)| *client == ClientId(3));
            let failed: BTreeSet<Round> = failed.map(|(round, ..)| *round).collect();
            assert!((1..12).contains(&failed.len()), "{failed:?}");
            let of = |wanted: bool| -> BTreeSet<_> {
                let rounds = report.rounds.iter().filter(|record| failed.contains(&record.round) == wanted);
                rounds.map(|record| (record.outcome, record.updates)).collect()
            };
            assert_eq!(of(false), [(OutcomeKind::Complete, 2)].into());
            of(true)
        };
        // All of two, or at least one of them.
        assert_eq!(outcomes(&file), [(OutcomeKind::Aborted, 1)].into());
        file.rounds.min_updates = 1;
        assert_eq!(outcomes(&file), [(OutcomeKind::Degraded, 1)].into());
    }

    #[test]
    fn every_model_is_the_one_before_and_the_mean_of_two_weighted_updates() {
        let trainer = Constant::default();
        let report = run(&buffered(), &trainer);
        let jobs = trainer.jobs.into_inner().unwrap();
        let (mut models, mut stale) = (vec![f64::from(jobs[0].2)], 0);
        for (number, pair) in jobs.chunks(2).enumerate() {
            assert_ne!(pair[0].1, pair[1].1, "nobody is in a round twice");
            let mut next = models[number];
            for &(round, client, base, weight) in pair {
                // An update counts (1 + its age)^(-1/2), and began from the model of that age.
                let age = (weight.powi(-2) - 1.0).round() as usize;
                assert_eq!(round.0, number as u64 + 1);
                assert!((weight - 1.0 / (1.0 + age as f64).sqrt()).abs() < 1e-12);
                assert!((f64::from(base) - models[number - age]).abs() < 1e-3, "{base} in {models:?}");
                stale += usize::from(age > 0);
                next += (client.0 + 1) as f64 * weight / 2.0;
            }
            models.push(next);
        }
        assert!((f64::from(report.model[0]) - models[12]).abs() < 1e-3, "{models:?}");
        assert_eq!(jobs.len(), 24);
        assert!((5..20).contains(&stale), "{stale} of 24 updates were stale");
    }

    #[test]
    fn with_noise_of_their_own_recipients_count_on_no_other_noise_than_the_server() {
        let mut file = buffered();
        file.privacy = local_file().privacy;
        let report = Run::of(file).report();
        assert_eq!(report.rounds.len(), 12);
        for record in &report.rounds {
            assert!(
                record.epsilon_release.is_some() && record.epsilon_release == record.epsilon_server,
                "{record:?}"
            );
        }
    }

    #[test]
    fn who_trains_comes_back_from_bytes() {
        let experiment = Experiment::try_from(&buffered()).unwrap();
        let mut buffer = Buffer::of(&experiment).unwrap();
        let models = [Arc::new(vec![1.0, 2.0]), Arc::new(vec![3.0, 4.0])];
        for (at, client, round) in [(9, 3, 2), (5, 1, 1), (5, 2, 2)] {
            let base = models[round as usize - 1].clone();
            buffer.busy.insert(ClientId(client));
            buffer
                .training
                .send(Time::from_millis(at), Begun { client: ClientId(client), base, round: Round(round) });
        }
        buffer.begun = 7;
        let mut other = Buffer::of(&experiment).unwrap();
        other.resume(&buffer.to_bytes()).unwrap();
        assert_eq!((other.begun, &other.busy), (7, &buffer.busy));
        let order = |buffer: &mut Buffer| -> Vec<_> {
            std::iter::from_fn(|| buffer.training.receive())
                .map(|(due, begun)| (due.at, begun.client, begun.round, begun.base))
                .collect()
        };
        assert_eq!(order(&mut other), order(&mut buffer));
        assert!(other.resume(b"nonsense").is_err());
    }
}
