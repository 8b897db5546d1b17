//! Whole simulations with secure aggregation: both fidelities give the same model, whoever drops out.

use skep_client::masking::Masks;
use skep_protocol::experiment::file::{
    ExperimentFile, FidelityFile, GroupsFile, RoundsFile, SecureAggregationFile, StrategyFile,
};
use skep_protocol::experiment::simulation::{Amount, Devices};
use skep_protocol::masked;
use skep_protocol::round::Refusal;
use skep_protocol::{ClientId, Round, Span};
use skep_server::record::OutcomeKind;

use crate::testing::{Run, masked_file};
use crate::{Corruption, Fault, FaultKind, Moment, SimulationReport};

const MOMENTS: [Moment; 7] = [
    Moment::Opening,
    Moment::Training,
    Moment::Sharing,
    Moment::Offering,
    Moment::Uploading,
    Moment::Agreeing,
    Moment::Revealing,
];

fn vanish(client: u64, at: Moment, back_after_ms: Option<u64>) -> Fault {
    let kind = FaultKind::Vanish { at, back_after: back_after_ms.map(Span::from_millis) };
    Fault { client: ClientId(client), round: Round(2), kind }
}

/// What both fidelities must agree on.
fn outcome(report: &SimulationReport) -> impl PartialEq + std::fmt::Debug {
    let round = |record: &skep_server::record::RoundRecord| {
        (record.detail.clone(), record.updates, record.refusals.clone(), record.declines.clone())
    };
    (report.model_sha256, report.rounds.iter().map(round).collect::<Vec<_>>())
}

/// The full protocol with these faults, after making sure that the fast path comes to the same.
fn both(faults: Vec<Fault>) -> SimulationReport {
    let run = |fidelity| {
        let mut run = Run::of(masked_file(fidelity));
        run.options.faults.clone_from(&faults);
        run.file.simulation.devices = Some(Devices { latency_ms: Amount::Fixed(20.0), ..Devices::IDEAL });
        run.report()
    };
    let (sum, protocol) = (run(FidelityFile::Sum), run(FidelityFile::Protocol));
    assert_eq!(outcome(&sum), outcome(&protocol), "{faults:?}");
    assert_eq!(sum.masks, Masks::default());
    protocol
}

#[test]
fn the_full_protocol_gives_the_model_of_the_plain_sum_bit_for_bit() {
    let report = both(vec![]);
    assert!(report.rounds.iter().all(|record| record.outcome == OutcomeKind::Complete));
    // Twenty clients, each with its own mask and one for each of the others, in three rounds; packed to b bits.
    let bits = report.masks.bytes_packed * 8 / (3 * 20 * 650);
    assert_eq!(report.masks.applied, 3 * 20 * 20);
    assert!((16..=24).contains(&bits), "{bits}");
}

#[test]
fn one_wrong_bit_under_a_mask_changes_the_model() {
    let kind = FaultKind::Corrupt(Corruption::Mask);
    let run = |faults| {
        let mut run = Run::of(masked_file(FidelityFile::Protocol));
        run.options.faults = faults;
        run.report().model_sha256
    };
    let spoilt = run(vec![Fault { client: ClientId(3), round: Round(2), kind }]);
    assert_ne!(spoilt, run(vec![]));
}

#[test]
fn who_drops_out_is_in_the_sum_or_not_as_a_whole() {
    for at in MOMENTS {
        let report = both(vec![vanish(3, at, None), vanish(7, at, None)]);
        let record = &report.rounds[1];
        let in_sum = matches!(at, Moment::Agreeing | Moment::Revealing);
        assert_eq!(record.updates, if in_sum { 20 } else { 18 }, "{at:?}");
        let expected = if in_sum { OutcomeKind::Complete } else { OutcomeKind::Degraded };
        assert_eq!(record.outcome, expected, "{at:?}");
        let reason = if at == Moment::Opening { Refusal::NoAnswer } else { Refusal::ConnectionLost };
        let refusals = if in_sum { [].into() } else { [(reason, 2)].into() };
        assert_eq!(record.refusals, refusals, "{at:?}");
    }
}

#[test]
fn who_comes_back_in_time_loses_nothing() {
    let undisturbed = both(vec![]);
    for at in MOMENTS {
        let report = both(vec![vanish(3, at, Some(300))]);
        assert_eq!(report.model_sha256, undisturbed.model_sha256, "{at:?}");
    }
}

#[test]
fn below_the_threshold_of_any_phase_nothing_is_released() {
    for (at, gone, detail) in [
        (
            Moment::Training,
            6,
            "14 clients answered in the phase \"keys\" of secure aggregation, 15 are required",
        ),
        (
            Moment::Sharing,
            6,
            "14 clients answered in the phase \"shares\" of secure aggregation, 15 are required",
        ),
        (Moment::Uploading, 6, "14 updates arrived, 15 are required"),
        (
            Moment::Agreeing,
            9,
            "11 clients answered in the phase \"consistency\" of secure aggregation, 12 are required",
        ),
        (
            Moment::Revealing,
            9,
            "10 clients answered in the phase \"unmasking\" of secure aggregation, 11 are required",
        ),
    ] {
        let report = both((0..gone).map(|client| vanish(client, at, None)).collect());
        let record = &report.rounds[1];
        assert_eq!(record.detail, format!("aborted: {detail}"), "{at:?}");
        // It stays charged, and the next round goes well.
        let undisturbed = both(vec![]);
        assert_eq!(record.epsilon_server, undisturbed.rounds[1].epsilon_server);
        assert_eq!(report.rounds[2].outcome, OutcomeKind::Complete, "{at:?}");
    }
}

#[test]
fn the_run_does_not_depend_on_threads() {
    let run = |threads| {
        let mut run = Run::of(masked_file(FidelityFile::Protocol));
        run.options = crate::testing::options(threads);
        run.options.faults = vec![vanish(3, Moment::Uploading, None)];
        let report = run.report();
        SimulationReport { seconds: 0.0, ..report }
    };
    assert_eq!(run(1), run(3));
}

/// Sixty clients in three groups of twenty: threshold 12, at least 15 of each group, 30 in all.
fn grouped_file(fidelity: FidelityFile) -> ExperimentFile {
    let mut file = masked_file(fidelity);
    file.population.clients = 60;
    file.rounds = RoundsFile { count: 1, min_updates: 30, ..file.rounds };
    let groups = Some(GroupsFile { size: 20, min_updates: 15 });
    file.secure_aggregation =
        Some(SecureAggregationFile { max_corrupt_fraction: 0.05, min_cohort: 10, groups });
    file
}

/// The full protocol in groups, where nine clients of each of the first `disturbed` groups vanish, after making sure that the fast
/// path comes to the same.
fn both_grouped(disturbed: usize, at: Moment) -> SimulationReport {
    both_of(grouped_file, disturbed, at)
}

fn both_of(file: fn(FidelityFile) -> ExperimentFile, disturbed: usize, at: Moment) -> SimulationReport {
    let plan = crate::testing::first_plan(&file(FidelityFile::Sum), 1);
    let groups = masked::groups(&plan).unwrap();
    let gone: Vec<_> = groups.all()[..disturbed].iter().flat_map(|group| &group.clients[..9]).collect();
    let run = |fidelity| {
        let mut run = Run::of(file(fidelity));
        run.options.faults =
            gone.iter().map(|client| Fault { round: Round(1), ..vanish(client.0, at, None) }).collect();
        run.report()
    };
    let (sum, protocol) = (run(FidelityFile::Sum), run(FidelityFile::Protocol));
    assert_eq!(outcome(&sum), outcome(&protocol), "{disturbed} groups, {at:?}");
    protocol
}

#[test]
fn sums_of_groups_are_the_sum_of_the_cohort() {
    let report = both_grouped(0, Moment::Opening);
    assert_eq!(report.rounds[0].outcome, OutcomeKind::Complete);
    // Everybody has its own mask and one for each of the nineteen others of its group.
    assert_eq!(report.masks.applied, 60 * 20);
    // The same updates in one group come to the same model, but for the noise, which is planned for more survivors.
    assert_eq!(report.rounds[0].updates, 60);
}

/// [`grouped_file`] with a coordinate median over the sums of its groups, all of which are there.
fn median_file(fidelity: FidelityFile) -> ExperimentFile {
    let mut file = grouped_file(fidelity);
    file.rounds = RoundsFile { count: 3, min_updates: 45, ..file.rounds };
    file.strategy = StrategyFile::Median { server_learning_rate: 1.0 };
    file.privacy.epsilon_limit = Some(100.0);
    file
}

#[test]
fn a_median_over_group_sums_is_the_same_in_both_fidelities_and_costs_what_one_group_hides() {
    let report = |file: ExperimentFile| Run::of(file).report();
    let (sum, protocol) =
        (report(median_file(FidelityFile::Sum)), report(median_file(FidelityFile::Protocol)));
    assert_eq!(outcome(&sum), outcome(&protocol));
    assert_eq!(protocol.masks.applied, 3 * 60 * 20);
    let mean = report(ExperimentFile {
        strategy: masked_file(FidelityFile::Sum).strategy,
        ..median_file(FidelityFile::Sum)
    });
    assert_ne!(mean.model_sha256, sum.model_sha256);
    // Recipients of a mean have the noise of 44 others between them and a client, of a median that of 14; the server sees the same
    // sums either way.
    let last = |report: &SimulationReport| report.rounds.last().unwrap().clone();
    let (mean, median) = (last(&mean), last(&sum));
    assert_eq!(mean.epsilon_server, median.epsilon_server);
    assert!(
        median.epsilon_release > mean.epsilon_release,
        "{:?} {:?}",
        median.epsilon_release,
        mean.epsilon_release
    );
    assert!(median.epsilon_release < median.epsilon_server);
}

#[test]
fn a_median_is_over_the_groups_that_are_left() {
    let four = |fidelity| {
        let mut file = median_file(fidelity);
        file.population.clients = 80;
        file.rounds.count = 1;
        file
    };
    let whole = both_of(four, 0, Moment::Opening).model_sha256;
    for at in [Moment::Sharing, Moment::Uploading, Moment::Revealing] {
        let report = both_of(four, 1, at);
        let record = &report.rounds[0];
        assert_eq!((record.outcome, record.updates), (OutcomeKind::Degraded, 60), "{at:?}");
        assert_ne!(report.model_sha256, whole, "{at:?}");
    }
}

#[test]
fn a_group_below_its_threshold_is_dropped_as_a_whole_and_the_others_go_on() {
    for at in MOMENTS {
        let report = both_grouped(1, at);
        let record = &report.rounds[0];
        assert_eq!((record.outcome, record.updates), (OutcomeKind::Degraded, 40), "{at:?}");
        // Whoever was in the sum of the group, or would have been.
        let lost = if matches!(at, Moment::Agreeing | Moment::Revealing) { 20 } else { 11 };
        assert_eq!(record.refusals.get(&Refusal::GroupLost), Some(&lost), "{at:?}");
    }
}

#[test]
fn with_too_few_groups_nothing_is_released() {
    for at in [Moment::Training, Moment::Uploading, Moment::Agreeing, Moment::Revealing] {
        let record = &both_grouped(2, at).rounds[0];
        assert_eq!((record.outcome, record.updates > 40), (OutcomeKind::Aborted, false), "{at:?}");
    }
}

/// A round of so many clients, of whom most hold no share of most others, and `vanish_each` vanish at each moment.
fn sparse(clients: u64, vanish_each: u64) {
    let faults = (0..).zip(MOMENTS).flat_map(|(i, at)| {
        (0..vanish_each).map(move |j| Fault { round: Round(1), ..vanish(17 + 40 * j + 5 * i, at, None) })
    });
    let run = |fidelity| {
        let mut file = masked_file(fidelity);
        file.population.clients = clients;
        file.rounds = RoundsFile { count: 1, min_updates: (clients * 9 / 10) as u32, ..file.rounds };
        file.privacy.delta = Some(1e-6);
        file.secure_aggregation = Some(SecureAggregationFile {
            max_corrupt_fraction: 0.01,
            min_cohort: clients as u32,
            groups: None,
        });
        let mut run = Run::of(file);
        run.options = crate::testing::options(2);
        run.options.faults = faults.clone().collect();
        run.report()
    };
    let (sum, protocol) = (run(FidelityFile::Sum), run(FidelityFile::Protocol));
    assert_eq!(outcome(&sum), outcome(&protocol));
    let record = &protocol.rounds[0];
    assert_eq!(record.outcome, OutcomeKind::Degraded);
    assert_eq!(u64::from(record.updates), clients - 5 * vanish_each);
    // A mask for each neighbour, of which there are about twice as many as share holders, not one for each client.
    let each = protocol.masks.applied / clients;
    assert!((50..clients * 2 / 3).contains(&each), "{each}");
}

#[test]
fn a_cohort_with_a_sparse_graph_gives_the_model_of_the_plain_sum() {
    sparse(301, 1);
}

/// `cargo test --release -p skep-simulations --lib -- --ignored sparse_graphs_of_hundreds`
#[test]
#[ignore = "minutes of public-key work"]
fn sparse_graphs_of_hundreds_and_a_thousand() {
    sparse(500, 3);
    sparse(1000, 6);
}
