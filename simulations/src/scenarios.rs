//! Whole simulations with clients that do not train: rounds, faults, budgets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skep_protocol::experiment::Evaluation;
use skep_protocol::experiment::file::{ExperimentFile, RoundsFile, SamplingFile};
use skep_protocol::experiment::simulation::{Amount, Availability, Devices, Distribution, Faults, LogNormal};
use skep_protocol::plan::Plan;
use skep_protocol::round::server::Limits;
use skep_protocol::round::{Decline, Refusal};
use skep_protocol::{ClientId, Round, Span};
use skep_server::record::{Observer, OutcomeKind, RoundRecord};

use crate::testing::{Run, distributed_file, file, local_file, private_file};
use crate::{Corruption, Ended, Fault, FaultError, FaultKind, Moment, SimulationError, SimulationReport};

const EVERY_MOMENT: [Moment; 4] = [Moment::Opening, Moment::Training, Moment::Offering, Moment::Uploading];

/// What must be the same wherever a simulation runs.
fn results(report: &SimulationReport) -> SimulationReport {
    SimulationReport { seconds: 0.0, ..report.clone() }
}

fn fault(kind: FaultKind) -> Fault {
    Fault { client: ClientId(3), round: Round(2), kind }
}

fn vanish(at: Moment, back_after_ms: Option<u64>) -> Fault {
    fault(FaultKind::Vanish { at, back_after: back_after_ms.map(Span::from_millis) })
}

fn outcomes(report: &SimulationReport) -> Vec<OutcomeKind> {
    report.rounds.iter().map(|record| record.outcome).collect()
}

/// Everybody is slow in a way of their own, and only four uploads fit at once.
fn crowded(mut run: Run) -> Run {
    run.file.simulation.devices = Some(Devices {
        latency_ms: Amount::Fixed(40.0),
        examples_per_s: Some(Amount::Fixed(500.0)),
        download_bytes_per_s: Some(Amount::Fixed(1e5)),
        upload_bytes_per_s: Some(Amount::Fixed(1e5)),
        slowdown: 0.8,
    });
    run.options.limits = Limits { upload_memory_bytes: 8000, min_upload_bytes_per_s: 1000 };
    run
}

#[test]
fn results_follow_from_the_seed_on_any_number_of_threads() {
    let once = Run::of(private_file()).report();
    assert_eq!(once.ended, Ended::Finished);
    assert_eq!(outcomes(&once), [OutcomeKind::Complete; 3]);
    for threads in 1..5 {
        let mut run = Run::of(private_file());
        run.options = crate::testing::options(threads);
        assert_eq!(results(&run.report()), results(&once));
    }
    let other = Run { root: 2, ..Run::of(private_file()) }.report();
    assert_ne!(other.model_sha256, once.model_sha256);
}

#[test]
fn with_noise_from_clients_results_follow_from_the_seed_on_any_number_of_threads() {
    for file in [distributed_file(), local_file()] {
        let once = Run::of(file.clone()).report();
        assert_eq!(outcomes(&once), [OutcomeKind::Complete; 3]);
        for threads in [1, 3] {
            let mut run = Run::of(file.clone());
            run.options = crate::testing::options(threads);
            assert_eq!(results(&run.report()), results(&once));
        }
    }
}

#[test]
fn clients_that_vanish_take_their_noise_along_and_the_rest_is_released() {
    for file in [distributed_file(), local_file()] {
        let whole = Run::of(file.clone()).report();
        let without = Run::with_fault(file, vanish(Moment::Uploading, None)).report();
        assert_eq!(outcomes(&without)[1], OutcomeKind::Degraded);
        assert_ne!(without.model_sha256, whole.model_sha256);
        let spent = |report: &SimulationReport| report.rounds[2].epsilon_server;
        assert_eq!(spent(&without), spent(&whole));
    }
}

#[test]
fn a_loud_update_is_refused_where_the_server_sees_it_and_not_under_masks() {
    let loud = fault(FaultKind::Corrupt(Corruption::Norm));
    let local = Run::with_fault(local_file(), loud).report();
    assert_eq!(local.rounds[1].refusals.get(&Refusal::NormExceeded), Some(&1));
    let masked = Run::with_fault(distributed_file(), loud).report();
    assert_eq!(outcomes(&masked), [OutcomeKind::Complete; 3]);
    assert_ne!(masked.model_sha256, Run::of(distributed_file()).report().model_sha256);
}

#[test]
fn sums_only_change_nothing_where_the_server_adds_the_noise() {
    let masked = ExperimentFile { privacy: private_file().privacy, ..distributed_file() };
    let masked = Run::of(masked).report();
    let open = Run::of(private_file()).report();
    assert_eq!(masked.model_sha256, open.model_sha256);
    assert_eq!(masked.rounds[2].epsilon_release, open.rounds[2].epsilon_release);
    assert_eq!(masked.rounds[2].epsilon_server, None);
    // Room for a sum of twenty in place of one update: 26 bits in place of 22.
    assert_eq!((masked.bytes_up, open.bytes_up), (3 * 20 * 2113, 3 * 20 * 1788));
}

#[test]
fn speed_changes_when_a_round_ends_but_not_its_model() {
    let ideal = Run::of(private_file()).report();
    let slow = crowded(Run::of(private_file())).report();
    assert_eq!(slow.model_sha256, ideal.model_sha256);
    assert!(slow.virtual_time > ideal.virtual_time);
    let mut threaded = crowded(Run::of(private_file()));
    threaded.options.threads = std::num::NonZeroUsize::new(3).unwrap();
    assert_eq!(results(&threaded.report()), results(&slow));
}

#[test]
fn a_round_counts_what_would_have_travelled() {
    let report = Run::of(file()).report();
    // 650 coordinates of 32 bits without privacy, and as many parameters of four bytes.
    assert_eq!(report.bytes_up, 3 * 20 * 2600);
    assert_eq!(report.bytes_down, 3 * 20 * 2600);
    assert_eq!(report.client_updates, 60);
    // 22 bits with it: the sensitivity is a little above 2^20 steps, and there is a sign.
    assert_eq!(Run::of(private_file()).report().bytes_up, 3 * 20 * (650u64 * 22).div_ceil(8));
}

#[test]
fn every_fault_costs_its_client_the_round_and_nobody_else() {
    let faults = [
        (vanish(Moment::Opening, None), Refusal::NoAnswer),
        (vanish(Moment::Training, None), Refusal::ConnectionLost),
        (vanish(Moment::Offering, None), Refusal::ConnectionLost),
        (vanish(Moment::Uploading, None), Refusal::ConnectionLost),
        (fault(FaultKind::Late), Refusal::Late),
        (fault(FaultKind::Corrupt(Corruption::Length)), Refusal::WrongLength),
        (fault(FaultKind::Corrupt(Corruption::Digest)), Refusal::DigestMismatch),
        (fault(FaultKind::Corrupt(Corruption::Norm)), Refusal::NormExceeded),
    ];
    let mut models = BTreeSet::new();
    for (fault, reason) in faults {
        let report = Run::with_fault(private_file(), fault).report();
        let expected = [OutcomeKind::Complete, OutcomeKind::Degraded, OutcomeKind::Complete];
        assert_eq!(outcomes(&report), expected, "{fault:?}");
        let record = &report.rounds[1];
        assert_eq!((record.invited, record.updates), (20, 19), "{fault:?}");
        assert_eq!(record.refusals, [(reason, 1)].into(), "{fault:?}");
        assert!(record.seconds <= 30.0, "{fault:?}");
        models.insert(report.model_sha256);
    }
    // The other nineteen updates and the noise are the same whatever the twentieth does.
    assert_eq!(models.len(), 1);
    assert!(!models.contains(&Run::of(private_file()).report().model_sha256));
}

#[test]
fn who_comes_back_in_time_loses_nothing() {
    let undisturbed = Run::of(private_file()).report();
    for at in EVERY_MOMENT {
        for crowd in [false, true] {
            let run = Run::with_fault(private_file(), vanish(at, Some(300)));
            let report = if crowd { crowded(run) } else { run }.report();
            assert_eq!(outcomes(&report), [OutcomeKind::Complete; 3], "{at:?}");
            assert_eq!(report.model_sha256, undisturbed.model_sha256, "{at:?}");
            // An upload goes on where it was cut off.
            assert_eq!(report.bytes_up, undisturbed.bytes_up, "{at:?}");
        }
    }
}

#[test]
fn who_comes_back_too_late_is_out() {
    for at in [Moment::Training, Moment::Offering, Moment::Uploading] {
        // A lost connection has a tenth of the deadline to come back, which is three seconds.
        let report = Run::with_fault(private_file(), vanish(at, Some(3500))).report();
        assert_eq!(report.rounds[1].refusals, [(Refusal::ConnectionLost, 1)].into(), "{at:?}");
    }
}

#[test]
fn what_clients_do_follows_from_the_seed_and_not_from_threads_or_the_order_of_events() {
    let mut file = private_file();
    file.rounds = RoundsFile { count: 12, min_updates: 1, ..file.rounds };
    file.population.clients = 60;
    let amount = |median, spread| Amount::Drawn(Distribution::LogNormal(LogNormal { median, spread }));
    file.simulation.devices = Some(Devices {
        latency_ms: amount(100.0, 2.0),
        examples_per_s: Some(amount(20.0, 3.0)),
        upload_bytes_per_s: Some(Amount::Drawn(Distribution::OneOf(vec![1e3, 1e4]))),
        slowdown: 0.5,
        ..Devices::IDEAL
    });
    file.simulation.availability = Some(Availability::Diurnal { online: 0.5, spread: 0.5, day_s: 200.0 });
    file.simulation.faults = Some(Faults { dropout: 0.1, straggler: 0.05, corrupt: 0.05, ..Faults::NONE });
    file.simulation.round_every_s = Some(40.0);
    let once = Run::of(file.clone()).report();
    let lost: BTreeSet<_> = once.rounds.iter().flat_map(|record| record.refusals.keys().copied()).collect();
    for reason in [Refusal::NoAnswer, Refusal::ConnectionLost, Refusal::Late, Refusal::DigestMismatch] {
        assert!(lost.contains(&reason), "{reason:?} is not among {lost:?}");
    }
    assert!(once.virtual_time >= Span::from_millis(11 * 40_000));
    for record in &once.rounds {
        let dropped: usize = record.dropped.values().map(Vec::len).sum();
        assert_eq!(dropped as u32, record.losses().map(|(_, clients)| clients).sum::<u32>());
    }
    for threads in [1, 2, 3] {
        let mut run = Run::of(file.clone());
        run.options = crate::testing::options(threads);
        assert_eq!(results(&run.report()), results(&once));
    }
    // Who drops out does not depend on who else is slow.
    let dropped = |file: &ExperimentFile| -> Vec<_> {
        let report = Run::of(file.clone()).report();
        report.rounds.iter().map(|record| record.dropped.get("digest-mismatch").cloned()).collect()
    };
    let mut alone = file.clone();
    alone.simulation.faults = Some(Faults { corrupt: 0.05, ..Faults::NONE });
    (alone.simulation.devices, alone.simulation.availability) = (None, None);
    for (all, some) in dropped(&alone).iter().zip(dropped(&file)) {
        let all = all.clone().unwrap_or_default();
        assert!(some.unwrap_or_default().iter().all(|client| all.contains(client)));
    }
}

#[test]
fn a_model_that_gets_no_better_ends_the_run() {
    let mut file = file();
    file.rounds.count = 12;
    file.evaluation = Some(Evaluation { every: 2, patience: Some(2), ..Evaluation::default() });
    let report = Run::of(file.clone()).report();
    // Measured after rounds 2, 4 and 6, always the same: two of them are no better than the first.
    assert_eq!((report.ended, report.rounds.len()), (Ended::StoppedEarly, 6));
    let measured: Vec<_> = report.rounds.iter().map(|record| record.accuracy.is_some()).collect();
    assert_eq!(measured, [false, true, false, true, false, true]);
    file.evaluation = None;
    assert_eq!(Run::of(file).report().ended, Ended::Finished);
}

#[test]
fn rounds_that_leave_the_model_as_it_is_wear_out_no_patience() {
    let mut file = file();
    (file.rounds.count, file.rounds.min_updates) = (12, 20);
    file.evaluation = Some(Evaluation { patience: Some(2), ..Evaluation::default() });
    let mut run = Run::of(file);
    run.options.faults =
        [2, 3].map(|round| Fault { round: Round(round), ..vanish(Moment::Opening, None) }).into();
    let report = run.report();
    let (complete, aborted) = (OutcomeKind::Complete, OutcomeKind::Aborted);
    assert_eq!(outcomes(&report), [complete, aborted, aborted, complete, complete]);
    assert_eq!(report.ended, Ended::StoppedEarly);
}

#[test]
fn a_run_lasts_until_its_last_outcome() {
    let mut file = file();
    file.simulation.round_every_s = Some(40.0);
    let report = Run::of(file).report();
    // The third round of three began after 80 seconds; no fourth one begins after 120.
    let lasted = report.virtual_time;
    assert!(lasted >= Span::from_millis(80_000) && lasted < Span::from_millis(120_000), "{lasted:?}");
}

#[test]
fn a_client_that_cannot_be_reached_misses_the_round_or_comes_late_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace.csv");
    // Client 0 is there, client 1 comes after two seconds, client 2 leaves before it has trained, the others never come.
    std::fs::write(&trace, "client,from_s,to_s\n0,0,100\n1,2,100\n2,0,0.5\n").unwrap();
    let mut file = private_file();
    file.rounds = RoundsFile { count: 1, min_updates: 2, ..file.rounds };
    file.simulation.devices = Some(Devices { examples_per_s: Some(Amount::Fixed(50.0)), ..Devices::IDEAL });
    file.simulation.availability = Some(Availability::Trace { file: trace, repeat_s: None });
    let report = Run::of(file).report();
    let record = &report.rounds[0];
    assert_eq!((record.updates, record.invited), (2, 20), "{record:?}");
    assert_eq!(record.dropped["connection-lost"], [ClientId(2)]);
    assert_eq!(record.dropped["no-answer"].len(), 17);
}

#[test]
fn without_privacy_a_long_update_is_in_the_sum() {
    let poisoned = Run::with_fault(file(), fault(FaultKind::Corrupt(Corruption::Norm))).report();
    assert_eq!(outcomes(&poisoned), [OutcomeKind::Complete; 3]);
    assert_ne!(poisoned.model_sha256, Run::of(file()).report().model_sha256);
}

#[test]
fn with_too_few_updates_a_round_is_aborted_and_stays_charged() {
    let mut run = Run::of(private_file());
    let kind = FaultKind::Vanish { at: Moment::Training, back_after: None };
    run.options.faults =
        (0..6).map(|client| Fault { client: ClientId(client), round: Round(1), kind }).collect();
    let report = run.report();
    assert_eq!(outcomes(&report), [OutcomeKind::Aborted, OutcomeKind::Complete, OutcomeKind::Complete]);
    let first = &report.rounds[0];
    assert_eq!(first.detail, "aborted: 14 updates arrived, 15 are required");
    let undisturbed = Run::of(private_file()).report();
    assert_eq!(first.epsilon_release, undisturbed.rounds[0].epsilon_release);
    assert_eq!(report.rounds[2].epsilon_release, undisturbed.rounds[2].epsilon_release);
}

#[test]
fn a_client_whose_training_fails_declines() {
    for threads in [1, 3] {
        let mut run = Run::of(private_file());
        run.options = crate::testing::options(threads);
        run.trainer.failing = Some(ClientId(5));
        let report = run.report();
        assert_eq!(outcomes(&report), [OutcomeKind::Degraded; 3]);
        assert!(report.rounds.iter().all(|r| r.declines == [(Decline::TrainingFailed, 1)].into()));
    }
}

#[test]
fn an_exhausted_budget_ends_the_schedule_and_keeps_its_rounds() {
    let mut file = private_file();
    file.rounds.count = 50;
    file.privacy.epsilon_limit = Some(2.0);
    let report = Run::of(file).report();
    let Ended::BudgetExhausted(exhausted) = &report.ended else { panic!("ended by {:?}", report.ended) };
    assert!(exhausted.asked > exhausted.limit && exhausted.spent <= exhausted.limit);
    let rounds = report.rounds.len();
    assert!((1..50).contains(&rounds), "{rounds}");
    assert_eq!(report.rounds[rounds - 1].epsilon_release, Some(exhausted.spent.get()));
    assert_eq!(report.client_updates, 20 * rounds as u64);
}

/// Interrupts while the fifth update of the second round is committed.
struct Impatient<'a>(&'a AtomicBool);

impl Observer for Impatient<'_> {
    fn update_committed(&mut self, round: Round, updates: u32) {
        self.0.store(round == Round(2) && updates == 5, Ordering::Relaxed);
    }
}

#[test]
fn an_interrupted_simulation_reports_what_it_has() {
    let flag = AtomicBool::new(false);
    let report = Run::of(private_file()).try_report(&flag, &mut Impatient(&flag)).unwrap();
    assert_eq!(report.ended, Ended::Interrupted);
    assert_eq!(outcomes(&report), [OutcomeKind::Complete, OutcomeKind::Aborted]);
    assert_eq!(report.rounds[1].detail, "aborted: the operator stopped the round");
    assert_eq!(report.rounds[1].accuracy, None);
    assert_eq!(report.model_sha256.to_string(), report.rounds[0].model_sha256);
    let before = Run::of(private_file()).try_report(&AtomicBool::new(true), &mut ()).unwrap();
    assert_eq!((before.ended, before.rounds.len()), (Ended::Interrupted, 0));
}

#[derive(Default)]
struct Diary(Vec<String>);

impl Observer for Diary {
    fn round_opened(&mut self, plan: &Plan, invited: u32) {
        self.0.push(format!("{} with {invited}", plan.round));
    }

    fn update_committed(&mut self, _: Round, updates: u32) {
        if updates == 20 {
            self.0.push("all".into());
        }
    }

    fn round_closed(&mut self, record: &RoundRecord, model: &Arc<Vec<f32>>) {
        self.0.push(format!("{} with {}", record.detail, model.len()));
    }
}

#[test]
fn an_observer_sees_every_round_open_grow_and_close() {
    let mut diary = Diary::default();
    Run::of(file()).try_report(&AtomicBool::new(false), &mut diary).unwrap();
    assert_eq!(diary.0.len(), 9);
    assert_eq!(diary.0[3..6], ["round 2 with 20", "all", "complete with 20 updates with 650"]);
}

fn poisson(clients: u64, rate: f64, count: u64) -> ExperimentFile {
    let mut file = private_file();
    file.population.clients = clients;
    file.privacy.noise_multiplier = Some(50.0);
    let sampling = SamplingFile::Poisson { rate };
    file.rounds = RoundsFile { count, sampling, min_updates: 1, deadline_s: 30.0 };
    file
}

#[test]
fn poisson_cohorts_have_binomial_sizes() {
    let report = Run::of(poisson(200, 0.3, 50)).report();
    let sizes: Vec<_> = report.rounds.iter().map(|record| f64::from(record.invited)).collect();
    assert_eq!(sizes.len(), 50);
    // n = 10000 coins with q = 0.3: five standard deviations are 229 (alpha below 1e-6). Of one round: 6.48.
    let total: f64 = sizes.iter().sum();
    assert!((total - 3000.0).abs() < 229.0, "{total}");
    let variance = sizes.iter().map(|size| (size - 60.0).powi(2)).sum::<f64>() / 50.0;
    // 50 times variance over 42 is close to chi-square with 50 degrees of freedom: 1e-6 quantiles 15.6 and 113.
    assert!((13.1..94.9).contains(&variance), "{variance}");
    assert_eq!(report.client_updates as f64, total);
}

#[test]
fn an_empty_cohort_aborts_its_round() {
    let report = Run::of(poisson(10, 0.02, 20)).report();
    let empty: Vec<_> = report.rounds.iter().filter(|record| record.invited == 0).collect();
    assert!(!empty.is_empty() && empty.len() < 20, "{}", empty.len());
    assert!(empty.iter().all(|record| record.outcome == OutcomeKind::Aborted));
}

#[test]
fn a_fault_for_nobody_is_refused() {
    let nobody = Fault { client: ClientId(20), ..fault(FaultKind::Late) };
    let error = Run::with_fault(file(), nobody).try_report(&AtomicBool::new(false), &mut ()).unwrap_err();
    assert!(
        matches!(error, SimulationError::Fault(FaultError::NoSuchClient { population: 20, .. })),
        "{error}"
    );
}

/// What the driver costs beside training: `cargo test --release -p skep-simulations bookkeeping -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn bookkeeping_takes_microseconds_a_client() {
    for clients in [100, 1000, 10_000, 100_000] {
        let mut file = file();
        file.population.clients = clients;
        file.rounds.count = 5;
        let mut run = Run::of(file);
        run.trainer.idle = true;
        let report = run.report();
        assert_eq!(report.client_updates, 5 * clients);
        println!(
            "{clients} clients: {:.2} us a client and round",
            report.seconds * 1e6 / (5 * clients) as f64
        );
    }
}
