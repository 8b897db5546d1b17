//! Secure aggregation with noise shares over real TLS: production server, production clients, loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_client::join::{JoinError, JoinOptions, JoinReport, TrainingSlots, join};
use skep_client::trainer::ClientKeys;
use skep_learning::{Subset, digits};
use skep_privacy::ledger::Hash;
use skep_privacy::mechanism::Mechanism;
use skep_privacy::prg::Key;
use skep_protocol::ClientId;
use skep_protocol::experiment::Experiment;
use skep_protocol::experiment::file::{
    Activation, BatchFile, BatchWord, DataFile, ExperimentFile, GroupsFile, ModeFile, ModelFile,
    PartitionFile, PopulationFile, PrivacyFile, RoundsFile, SamplingFile, SecureAggregationFile,
    SimulationFile, StrategyFile, TaskFile, TrainingFile, WeightingFile,
};
use skep_protocol::masked;
use skep_protocol::net::enrolment::enrol;
use skep_protocol::net::websocket::Timeouts;
use skep_protocol::plan::Segment;
use skep_protocol::round::client::End;
use skep_protocol::round::{Decline, Refusal};
use skep_server::authority::Authority;
use skep_server::enrolment::Enrolment;
use skep_server::federation::{Federation, ServerKeys};
use skep_server::ledger;
use skep_server::record::{Observer, RoundRecord};
use skep_server::roster::Contiguous;
use skep_server::serve::{Deployment, ServeOptions, serve};
use skep_server::status::{Doing, Status};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const CLIENTS: u64 = 10;
const WIDTH: usize = 256;

/// Ten clients whose training changes nothing: what is released is noise. Threshold 6, so at least 7 must stay.
fn file(deadline_s: f64) -> ExperimentFile {
    ExperimentFile {
        name: "masked".into(),
        seed: 1,
        task: TaskFile {
            initial_weights: Default::default(),
            data: DataFile::Digits,
            model: ModelFile::Mlp { hidden: vec![WIDTH as u32], activation: Activation::Relu },
            training: TrainingFile::plain(1e-30, 1, BatchFile::Word(BatchWord::Full)),
            tuning: None,
        },
        population: PopulationFile {
            clients: CLIENTS,
            partition: PartitionFile::Iid {},
            ledger: None,
            max_participations: None,
            min_separation: None,
        },
        rounds: RoundsFile { count: 1, sampling: SamplingFile::All {}, min_updates: 7, deadline_s },
        strategy: StrategyFile::Fedavg {
            weighting: WeightingFile::Uniform,
            max_examples: None,
            server_learning_rate: 1.0,
        },
        privacy: PrivacyFile {
            mode: ModeFile::Distributed,
            unit: Some("client".into()),
            adjacency: Some("zero-out".into()),
            clip_norm: Some(1.0),
            noise_multiplier: Some(5.0),
            delta: Some(1e-5),
            epsilon_limit: Some(20.0),
        },
        secure_aggregation: Some(SecureAggregationFile {
            max_corrupt_fraction: 0.1,
            min_cohort: 10,
            groups: None,
        }),
        evaluation: None,
        simulation: SimulationFile::default(),
    }
}

#[derive(Default)]
struct Notes {
    records: Vec<RoundRecord>,
    models: Vec<Arc<Vec<f32>>>,
    statuses: Vec<Status>,
}

impl Observer for Notes {
    fn round_closed(&mut self, record: &RoundRecord, model: &Arc<Vec<f32>>) {
        self.records.push(record.clone());
        self.models.push(Arc::clone(model));
    }

    fn status(&mut self, status: &Status) {
        self.statuses.push(status.clone());
    }
}

/// What came of a round.
struct Run {
    record: RoundRecord,
    model: Arc<Vec<f32>>,
    /// Variance of one coordinate of the released mean with so many shares in the sum.
    variance_of: Box<dyn Fn(u32) -> f64>,
    joined: Vec<Result<JoinReport, JoinError>>,
    statuses: Vec<Status>,
}

/// Runs one round with these clients, each of which hides in cohorts of at least so many.
async fn run(file: &ExperimentFile, clients: &[(u64, u32)]) -> Run {
    let state = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open(state.path()).unwrap());
    let enrolment = Enrolment::open(state.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let federation = federation(file, state.path());
    let (mechanism, step) = (federation.mechanism(), federation.grid().step());
    let Mechanism::NoiseShares { variance, .. } = mechanism else { panic!("noise shares are planned") };
    let variance_of =
        Box::new(move |shares: u32| variance.get() * f64::from(shares) * (step / CLIENTS as f64).powi(2));
    let deployment = Deployment {
        federation,
        roster: Arc::new(Contiguous(CLIENTS)),
        evaluator: None,
        authority: Arc::clone(&authority),
        enrolment: enrolment.clone(),
        journal: None,
    };
    let options = ServeOptions { linger: Duration::from_secs(2), ..ServeOptions::new(clients.len()) };
    let serving = tokio::spawn(async move {
        let mut notes = Notes::default();
        let report = serve(deployment, listener, options, &mut notes, std::future::pending()).await;
        report.map(|_| notes)
    });
    let slots = TrainingSlots::new(NonZeroUsize::new(2).unwrap());
    let mut joining = JoinSet::new();
    for &(client, min_cohort) in clients {
        let (addresses, now) = (vec![address.into()], SystemTime::now());
        let invitation =
            enrolment.invite(&authority, ClientId(client), addresses, now, Duration::from_secs(60)).unwrap();
        let (home, options) = (state.path().join(format!("home-{client}")), slots.clone());
        joining.spawn(async move {
            let identity = enrol(&invitation, &home, &Timeouts::default()).await.unwrap();
            let options = JoinOptions { min_cohort, ..JoinOptions::new(options) };
            let train = digits::load().train;
            let data = Subset::new(train.dataset().clone(), train.rows()[..20].to_vec()).unwrap();
            let keys = ClientKeys::from_root(&Key::from_seed(client));
            join(identity, data, keys, options, std::future::pending()).await
        });
    }
    let mut joined = Vec::new();
    while let Some(report) = joining.join_next().await {
        joined.push(report.unwrap());
    }
    let mut notes = serving.await.unwrap().unwrap();
    Run {
        record: notes.records.remove(0),
        model: notes.models.remove(0),
        variance_of,
        joined,
        statuses: notes.statuses,
    }
}

fn federation(file: &ExperimentFile, state: &Path) -> Federation {
    let experiment = Experiment::try_from(file).unwrap();
    let len = experiment.task.parameter_count().unwrap();
    let segments = vec![Segment { name: "all".into(), len }];
    let keys = ServerKeys::from_root(&Key::from_seed(17));
    let model = vec![0.0; len as usize];
    let ledger = ledger::open(&state.join("ledger.skep"), &experiment, Hash::ZERO, None).unwrap();
    Federation::new(experiment, segments, model, ledger, keys).unwrap()
}

/// Mean square of the released coordinates, in units of what `shares` shares should give, less one, in standard errors.
fn deviation(run: &Run, shares: u32) -> f64 {
    let coordinates = run.model.len() as f64;
    let mean_square = run.model.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / coordinates;
    (mean_square / (run.variance_of)(shares) - 1.0) / (2.0 / coordinates).sqrt()
}

/// Two-sided, at alpha = 1e-6.
const QUANTILE: f64 = 4.89;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t13_the_noise_in_the_model_is_that_of_every_survivor_whoever_drops_out() {
    for absent in [0, 2, 3] {
        let present: Vec<_> = (absent..CLIENTS).map(|client| (client, 10)).collect();
        let run = run(&file(if absent == 0 { 60.0 } else { 12.0 }), &present).await;
        let survivors = (CLIENTS - absent) as u32;
        assert_eq!(run.record.updates, survivors, "{}", run.record.detail);
        assert!(run.record.epsilon_server.is_some(), "the server learns no more than this");
        // 19,210 coordinates: a standard error of one percent.
        assert_eq!(run.model.len(), 64 * WIDTH + WIDTH + WIDTH * 10 + 10);
        let found = deviation(&run, survivors);
        assert!(found.abs() < QUANTILE, "{absent} absent: {found} standard errors");
        // The test can fail: with one share more or less.
        for other in [survivors - 1, survivors + 1] {
            assert!(deviation(&run, other).abs() > QUANTILE, "{other} shares");
        }
        shows_every_phase(&run.statuses, survivors);
        for report in run.joined {
            let report = report.unwrap();
            assert_eq!(report.rounds, [(End::Committed, 1)].into());
            // Its own mask and one with each of the others.
            assert_eq!(report.masks.applied, u64::from(survivors));
            assert!(report.masks.bytes_packed > 19_210 * 16 / 8, "{:?}", report.masks);
        }
    }
}

/// An operator sees the round go from phase to phase, with those who are counted on.
fn shows_every_phase(statuses: &[Status], survivors: u32) {
    let mut seen: Vec<Doing> = statuses.iter().map(|status| status.doing).collect();
    seen.dedup();
    let phases = [Doing::Keys, Doing::Shares, Doing::Collecting, Doing::Consistency, Doing::Unmasking];
    let at = seen.iter().position(|doing| *doing == Doing::Keys).unwrap();
    assert_eq!(seen[at..][..5], phases, "{seen:?}");
    for phase in phases {
        let mut of_phase = statuses.iter().filter(|status| status.doing == phase);
        // Whoever is absent may still come before the first phase ends.
        let expected = if phase == Doing::Keys { CLIENTS as u32 } else { survivors };
        let counted = |status: &Status| status.answered >= 1 && status.expected == expected;
        assert!(of_phase.any(counted), "{phase:?} in {statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_threshold_nothing_is_released_and_everybody_hears_of_it() {
    let present: Vec<_> = (0..6).map(|client| (client, 10)).collect();
    let run = run(&file(8.0), &present).await;
    let detail = "aborted: 6 clients answered in the phase \"keys\" of secure aggregation, 7 are required";
    assert_eq!(run.record.detail, detail);
    assert!(run.model.iter().all(|&parameter| parameter == 0.0));
    for report in run.joined {
        assert_eq!(report.unwrap().rounds, [(End::Over { released: false }, 1)].into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_refuses_its_operator_sees_by_reason() {
    let mut clients: Vec<_> = (0..CLIENTS).map(|client| (client, 10)).collect();
    // One wants to hide among eleven.
    clients[4].1 = 11;
    let run = run(&file(60.0), &clients).await;
    assert_eq!(run.record.updates, 9);
    assert_eq!(run.record.declines, [(Decline::SmallCohort, 1)].into());
    let ends: Vec<_> = run.joined.into_iter().flat_map(|report| report.unwrap().rounds).collect();
    assert!(ends.contains(&(End::Declined(Decline::SmallCohort), 1)), "{ends:?}");
}

/// Two groups of five: threshold 3, at least 4 of each group, 5 in all.
fn grouped_file(deadline_s: f64) -> ExperimentFile {
    let mut file = file(deadline_s);
    file.rounds.min_updates = 5;
    let groups = Some(GroupsFile { size: 5, min_updates: 4 });
    file.secure_aggregation =
        Some(SecureAggregationFile { max_corrupt_fraction: 0.1, min_cohort: 5, groups });
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_added_up_and_one_that_is_too_small_is_dropped() {
    let whole = run(&grouped_file(60.0), &(0..CLIENTS).map(|client| (client, 5)).collect::<Vec<_>>()).await;
    assert_eq!(whole.record.updates, 10, "{}", whole.record.detail);
    assert!(deviation(&whole, 10).abs() < QUANTILE);
    // Two of one group stay away: its three others hear that their group is lost.
    let state = tempfile::tempdir().unwrap();
    Authority::open(state.path()).unwrap();
    let plan = federation(&grouped_file(12.0), state.path()).plan(&Contiguous(CLIENTS)).unwrap().plan;
    let groups = masked::groups(&plan).unwrap();
    let gone = &groups.all()[0].clients[..2];
    let present: Vec<_> =
        (0..CLIENTS).filter(|&client| !gone.contains(&ClientId(client))).map(|client| (client, 5)).collect();
    let run = run(&grouped_file(12.0), &present).await;
    assert_eq!(run.record.updates, 5, "{}", run.record.detail);
    assert_eq!(run.record.refusals, [(Refusal::NoAnswer, 2), (Refusal::GroupLost, 3)].into());
    // Of ten shares, five are in what is left.
    assert!(deviation(&run, 5).abs() < QUANTILE);
    assert!(deviation(&run, 6).abs() > QUANTILE);
    let ends: Vec<_> = run.joined.into_iter().flat_map(|report| report.unwrap().rounds).collect();
    let lost = ends.iter().filter(|(end, _)| *end == End::Refused(Refusal::GroupLost)).count();
    assert_eq!((lost, ends.len()), (3, 8), "{ends:?}");
}
