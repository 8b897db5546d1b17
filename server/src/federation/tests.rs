use super::*;
use crate::roster::Contiguous;
use crate::testing::{
    PARAMETERS, asking, distributed_file, federation, ledger, private_file, public_file, public_upload,
    seeded, segments, zero_upload,
};
use skep_privacy::audit::{Given, Verdict, audit, audit_sealed};
use skep_privacy::budget::BudgetKeeper;
use skep_privacy::client_noise::{ClientNoise, NoisedGrid};
use skep_privacy::ledger::{Auditor, AuditorSecret};
use skep_privacy::mechanism::ShareVariance;
use skep_privacy::prg::PrgId;
use skep_privacy::quantities::{ClipNorm, NoiseMultiplier};
use skep_privacy::sum::ReleaseError;
use skep_privacy::update::QuantizedUpdate;
use skep_protocol::experiment::file::{
    ExperimentFile, ModeFile, RoundsFile, SamplingFile, StrategyFile, WeightingFile,
};

const COMPLETE: Outcome = Outcome::Complete { updates: 1 };
const STOPPED: Outcome = Outcome::Aborted(AbortReason::Stopped);

fn round(federation: &mut Federation, uploads: &[Vec<u8>]) -> RoundSummary {
    federation.plan(&Contiguous(4)).unwrap();
    for upload in uploads {
        let update = federation.stager().stage(upload).unwrap();
        federation.commit(&update).unwrap();
    }
    federation.release().unwrap();
    federation.close(COMPLETE).unwrap()
}

fn weighted(max: u32) -> ExperimentFile {
    let strategy = StrategyFile::Fedavg {
        weighting: WeightingFile::Examples,
        max_examples: Some(max),
        server_learning_rate: 1.0,
    };
    ExperimentFile { strategy, ..public_file() }
}

#[test]
fn without_privacy_the_next_model_is_the_model_plus_the_mean_update() {
    let mut federation = federation(&public_file(), seeded(1));
    let uploads = [0.25, -0.5, 1.0].map(|value| public_upload(&federation, value, None));
    let summary = round(&mut federation, &uploads);
    assert_eq!(*federation.model(), vec![0.75; PARAMETERS]);
    assert_eq!(summary.model, Digest::of_model(&federation.model()));
    assert_eq!((summary.round, summary.invited, summary.updates), (Round(1), 4, 3));
    assert_eq!(summary.epsilon_release, Err(NoPromise::Off));
    assert_eq!(summary.delta, None);
}

#[test]
fn a_cohort_that_others_chose_is_taken_only_where_none_need_be_secret() {
    let cohort = || [1, 3].map(ClientId).into_iter().collect();
    let fixed = ExperimentFile {
        rounds: RoundsFile {
            sampling: SamplingFile::Fixed { size: 2 },
            min_updates: 1,
            ..public_file().rounds
        },
        ..public_file()
    };
    let mut federation = federation(&fixed, seeded(1));
    let refused = federation.plan_public(&Contiguous(4), [ClientId(1)].into_iter().collect());
    assert!(matches!(refused, Err(PlanningError::PublicCohort)), "another size");
    assert_eq!(federation.plan_public(&Contiguous(4), cohort()).unwrap().cohort, cohort());
    assert!(matches!(federation.plan_public(&Contiguous(4), cohort()), Err(PlanningError::Busy(Round(1)))));
    let mut everyone = crate::testing::federation(&public_file(), seeded(1));
    assert!(matches!(everyone.plan_public(&Contiguous(4), cohort()), Err(PlanningError::PublicCohort)));
}

#[test]
fn weighted_by_examples_the_mean_is_that_of_all_examples() {
    let mut federation = federation(&weighted(8), seeded(1));
    // Two examples with change 1, six with change -1/3, as clients send them: n/8 times the change, and n/8.
    let uploads = [(0.25, 0.25), (-0.25, 0.75)];
    let uploads = uploads.map(|(value, weight)| public_upload(&federation, value, Some(weight)));
    round(&mut federation, &uploads);
    assert_eq!(*federation.model(), vec![0.5; PARAMETERS]);
    let uploads = [public_upload(&federation, 0.125, Some(0.25))];
    round(&mut federation, &uploads);
    assert_eq!(*federation.model(), vec![1.0; PARAMETERS]);
}

#[test]
fn a_private_release_of_nothing_is_noise_over_the_expected_cohort() {
    let mut federation = federation(&private_file(), seeded(1));
    let upload = zero_upload(&federation);
    round(&mut federation, &[upload]);
    // sigma = z * C / cohort = 2 * 1 / 4; the sum of 650 squares is chi-square, alpha = 1e-6 two-sided (4.89 s.d.).
    let squares: f64 = federation.model().iter().map(|p| (f64::from(*p) - 0.5).powi(2)).sum();
    let statistic = squares / 0.25;
    assert!((statistic - 650.0).abs() < 4.89 * 1300f64.sqrt(), "{statistic}");
}

#[test]
fn the_same_root_gives_the_same_noise_and_another_round_another() {
    let released = |keys| {
        let mut federation = federation(&private_file(), keys);
        let upload = zero_upload(&federation);
        let first = round(&mut federation, std::slice::from_ref(&upload)).model;
        (first, round(&mut federation, &[upload]).model)
    };
    assert_eq!(released(seeded(1)), released(seeded(1)));
    assert_ne!(released(seeded(1)).0, released(seeded(2)).0);
    assert_ne!(released(ServerKeys::from_os()).0, released(ServerKeys::from_os()).0);
    let mut federation = federation(&private_file(), seeded(1));
    let upload = zero_upload(&federation);
    round(&mut federation, std::slice::from_ref(&upload));
    let first = federation.model();
    round(&mut federation, &[upload]);
    let same = first.iter().zip(&*federation.model()).filter(|(a, b)| *b - *a == *a - 0.5).count();
    assert!(same < 3, "{same} coordinates have the noise of the round before");
}

#[test]
fn clients_find_nothing_wrong_with_a_plan() {
    for file in [private_file(), public_file(), weighted(8)] {
        let mut federation = federation(&file, seeded(1));
        let planned = federation.plan(&Contiguous(4)).unwrap();
        let task = &federation.experiment().task;
        assert_eq!(planned.plan.plan().check(task, &task.digest()), Ok(()));
        assert_eq!(planned.plan.plan().base_model, federation.model_digest());
        let received = planned.plan.signed().clone().verify(&federation.ledger().signer().key()).unwrap();
        assert_eq!(received.plan(), planned.plan.plan());
    }
}

#[test]
fn t22_over_the_limit_no_plan_is_signed() {
    let mut file = private_file();
    file.privacy.epsilon_limit = Some(2.5);
    let mut federation = federation(&file, seeded(1));
    let upload = zero_upload(&federation);
    round(&mut federation, &[upload]);
    let spent = federation.epsilon(Adversary::Recipients).unwrap();
    assert!(spent.get() < 2.5);
    assert!(matches!(federation.plan(&Contiguous(4)), Err(PlanningError::Budget(_))));
    assert_eq!((federation.round(), federation.epsilon(Adversary::Recipients).unwrap()), (Round(1), spent));
}

#[test]
fn an_aborted_round_keeps_the_model_and_costs_its_budget() {
    let mut federation = federation(&private_file(), seeded(1));
    let before = federation.model_digest();
    federation.plan(&Contiguous(4)).unwrap();
    federation.release().unwrap();
    let summary = federation.close(STOPPED).unwrap();
    assert_eq!((summary.model, federation.model_digest()), (before, before));
    assert!(summary.epsilon_release.unwrap().get() > 0.0);
    let next = federation.plan(&Contiguous(4)).unwrap();
    assert_eq!(next.plan.plan().round, Round(2));
}

#[test]
fn steps_out_of_order_are_refused() {
    let mut federation = federation(&public_file(), seeded(1));
    let update = federation.stager().stage(&zero_upload(&federation)).unwrap();
    assert!(matches!(federation.commit(&update), Err(RoundError::OutOfOrder)));
    assert!(matches!(federation.release(), Err(RoundError::OutOfOrder)));
    assert!(matches!(federation.close(STOPPED), Err(RoundError::OutOfOrder)));
    federation.plan(&Contiguous(4)).unwrap();
    assert!(matches!(federation.plan(&Contiguous(4)), Err(PlanningError::Busy(Round(1)))));
    federation.commit(&update).unwrap();
    federation.release().unwrap();
    assert!(matches!(federation.commit(&update), Err(RoundError::OutOfOrder)));
    assert!(matches!(federation.release(), Err(RoundError::OutOfOrder)));
    federation.close(COMPLETE).unwrap();
    federation.plan(&Contiguous(4)).unwrap();
    assert!(matches!(federation.close(COMPLETE), Err(RoundError::OutOfOrder)));
}

#[test]
fn the_schedule_ends_and_another_population_is_refused() {
    let mut federation = federation(&public_file(), seeded(1));
    assert!(matches!(
        federation.plan(&Contiguous(5)),
        Err(PlanningError::Population { expected: 4, found: 5 })
    ));
    for _ in 0..3 {
        federation.plan(&Contiguous(4)).unwrap();
        federation.close(STOPPED).unwrap();
    }
    assert!(matches!(federation.plan(&Contiguous(4)), Err(PlanningError::Finished { rounds: 3 })));
}

#[test]
fn a_cohort_is_drawn_as_the_plan_says() {
    let mut file = public_file();
    file.rounds.sampling = SamplingFile::Fixed { size: 2 };
    let mut federation = federation(&file, seeded(1));
    let planned = federation.plan(&Contiguous(4)).unwrap();
    assert_eq!((planned.cohort.len(), planned.plan.plan().cohort_max), (2, 2));
}

#[test]
fn a_model_that_does_not_fit_its_task_is_refused() {
    let new = |segments: Vec<Segment>, model: Vec<f32>| {
        let experiment = Experiment::try_from(&public_file()).unwrap();
        let ledger = ledger(&experiment);
        Federation::new(experiment, segments, model, ledger, seeded(1)).map(|_| ())
    };
    let shorter = segments()[..1].to_vec();
    assert_eq!(new(shorter, vec![0.0; 640]), Err(FederationError::Segments { segments: 640, task: 650 }));
    assert_eq!(
        new(segments(), vec![0.0; 651]),
        Err(FederationError::InitialModel { expected: 650, found: 651 })
    );
    let mut model = vec![0.0; 650];
    model[7] = f32::NAN;
    assert_eq!(new(segments(), model), Err(FederationError::NonFinite { index: 7 }));
}

#[test]
fn plans_name_one_generator_for_every_machine_unless_nothing_can_be_repeated() {
    let plan = |keys| federation(&private_file(), keys).plan(&Contiguous(4)).unwrap().plan.plan().prg;
    assert_eq!(plan(seeded(1)), PrgId::ChaCha20);
    assert_eq!(plan(ServerKeys::from_os()), PrgId::fastest());
}

#[test]
fn noise_follows_the_generator_of_the_plan() {
    let mut federation = federation(&private_file(), seeded(1));
    federation.plan(&Contiguous(4)).unwrap();
    federation.release().unwrap();
    federation.close(COMPLETE).unwrap();
    let Mechanism::RoundedGaussian { sigma, .. } = federation.mechanism() else { panic!("mode central") };
    let mut noise = vec![0; PARAMETERS];
    let mut prg = seeded(1).noise(Round(1)).unwrap().substream_of(PrgId::ChaCha20, 0);
    skep_privacy::sampler::rounded_gaussian::fill(&mut prg, sigma, &mut noise);
    let [before, after] = [0.5, federation.model()[0]];
    let expected = noise[0] as f64 * federation.grid().step() / 4.0;
    assert!((f64::from(after - before) - expected).abs() < 1e-6, "{after} {expected}");
}

#[test]
fn an_auditor_finds_every_release_again_and_a_release_with_other_noise_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.skep");
    let secret = AuditorSecret::from_key(&Key::from_seed(5));
    let auditor = Auditor { key: secret.recipient().0, expires_ms: u64::MAX };
    let experiment = Experiment::try_from(&private_file()).unwrap();
    let ledger = crate::ledger::open(&path, &experiment, Hash::ZERO, Some(auditor));
    let mut federation = Federation::new(
        experiment,
        segments(),
        vec![0.5; PARAMETERS],
        ledger.unwrap(),
        ServerKeys::from_os(),
    )
    .unwrap();
    let upload = zero_upload(&federation);
    round(&mut federation, std::slice::from_ref(&upload));
    round(&mut federation, &[upload]);
    let contents = std::fs::read(&path).unwrap();
    let seals = crate::ledger::seals(&path);
    let judge = |change: &dyn Fn(u64, &mut Vec<u8>)| {
        let mut report = audit(&contents, &Given::default());
        let seal = |record: u64| {
            let mut seal = std::fs::read(seals.join(record.to_string())).ok()?;
            change(record, &mut seal);
            Some(seal)
        };
        audit_sealed(&contents, &secret, seal, &mut report);
        (report.verdict, report.findings.first().and_then(|finding| finding.record))
    };
    assert_eq!(judge(&|_, _| {}), (Verdict::Ok, None));
    assert_eq!(judge(&|record, seal| seal[40] ^= u8::from(record == 4)), (Verdict::Mismatch, Some(4)));
    let stranger = AuditorSecret::from_key(&Key::from_seed(6));
    let mut report = audit(&contents, &Given::default());
    audit_sealed(
        &contents,
        &stranger,
        |record| std::fs::read(seals.join(record.to_string())).ok(),
        &mut report,
    );
    assert_eq!(report.verdict, Verdict::Mismatch);
}

/// The zero update of a client that adds its noise.
fn noise_alone(grid: &NoisedGrid, seed: u64) -> Contribution {
    let zero = QuantizedUpdate::verify(vec![0; grid.dimension()], &Grid::from(*grid.exact())).unwrap();
    zero.add_noise(grid, &Key::from_seed(seed), PrgId::ChaCha20).unwrap().into()
}

fn noised_grid(federation: &Federation) -> NoisedGrid {
    let Grid::Noised(grid) = federation.grid() else { panic!("clients add noise in this mode") };
    grid
}

/// A round of `survivors` clients that send zeros with their noise: what it adds to the model.
fn released_noise(federation: &mut Federation, survivors: u64, seed: u64) -> Vec<f64> {
    let grid = noised_grid(federation);
    let before = federation.model();
    federation.plan(&Contiguous(12)).unwrap();
    for client in 0..survivors {
        federation.commit(&noise_alone(&grid, 100 * seed + client)).unwrap();
    }
    federation.release().unwrap();
    federation.close(COMPLETE).unwrap();
    before.iter().zip(&*federation.model()).map(|(a, b)| f64::from(*b) - f64::from(*a)).collect()
}

#[test]
fn the_noise_of_a_distributed_sum_is_that_of_exactly_its_survivors() {
    const ROUNDS: u64 = 15;
    let mut federation = federation(&distributed_file(), seeded(1));
    let grid = noised_grid(&federation);
    let ClientNoise::Share(share) = grid.noise() else { panic!("shares") };
    // Over the public cohort of twelve, whoever survives.
    let unit = grid.exact().step() / 12.0;
    for survivors in 8..=12 {
        let variance = survivors as f64 * share.get() * unit * unit;
        let squares: f64 = (0..ROUNDS)
            .flat_map(|round| released_noise(&mut federation, survivors, 100 * survivors + round))
            .map(|change| change * change)
            .sum();
        // Chi-square with 9,750 degrees of freedom, alpha = 1e-6 two-sided; f32 parameters add less than a thousandth of that.
        let freedom = (ROUNDS as usize * PARAMETERS) as f64;
        let statistic = squares / variance;
        let allowed = 4.9 * (2.0 * freedom).sqrt();
        assert!((statistic - freedom).abs() < allowed, "{survivors} survivors: {statistic}");
        // One share more or less is more than that.
        assert!(freedom / survivors as f64 > allowed, "the test would not notice a share");
    }
}

#[test]
fn with_fewer_survivors_than_planned_nothing_is_released() {
    let mut federation = federation(&distributed_file(), seeded(1));
    let grid = noised_grid(&federation);
    federation.plan(&Contiguous(12)).unwrap();
    for client in 0..7 {
        federation.commit(&noise_alone(&grid, client)).unwrap();
    }
    let refused = federation.release().unwrap_err();
    let few = ReleaseError::TooFewUpdates { members: 7, least: 8 };
    assert!(matches!(refused, RoundError::Release(error) if error == few), "{refused}");
    assert!(federation.close(STOPPED).unwrap().epsilon_server.unwrap().get() > 0.0);
}

#[test]
fn three_numbers_are_stated_and_each_adversary_more_costs_more() {
    let mut federation = federation(&distributed_file(), seeded(1));
    let planned = federation.plan(&Contiguous(12)).unwrap();
    let task = &federation.experiment().task;
    assert_eq!(planned.plan.plan().check(task, &task.digest()), Ok(()));
    let claim = *planned.plan.plan().promise.claim().unwrap();
    let summary = federation.close(STOPPED).unwrap();
    let [release, server, alone] =
        [summary.epsilon_release, summary.epsilon_server, summary.epsilon_alone].map(Result::unwrap);
    assert!(release <= server && server < alone, "{release} {server} {alone}");
    assert_eq!((claim.epsilon_release, claim.epsilon_server, claim.epsilon_alone), (release, server, alone));
    assert!(summary.epsilon_server_if_continuous.unwrap() < server);
    // Multiplier 2 over seven honest shares, Renyi at the orders of dp_accounting 0.6.0 (conversion of CKS 2020).
    let mut expected = BudgetKeeper::new(skep_privacy::quantities::Adjacency::ZeroOut, claim.delta, None);
    let grid = noised_grid(&federation);
    let exact = ShareVariance::splitting(2 * grid.exact().sensitivity(), 7).unwrap();
    assert_eq!(grid.noise(), ClientNoise::Share(exact));
    let _ = expected.reserve(1, grid.mechanism(7, 8), Sampling::All).unwrap();
    assert_eq!(expected.charged().epsilon(Adversary::Server, claim.delta), server);
}

#[test]
fn in_mode_local_the_server_adds_nothing_and_everybody_is_kept_from_the_update() {
    let mut file = private_file();
    file.privacy.mode = ModeFile::Local;
    let mut federation = federation(&file, seeded(1));
    let grid = noised_grid(&federation);
    let before = federation.model();
    let planned = federation.plan(&Contiguous(4)).unwrap();
    assert_eq!(planned.plan.plan().masking(), None);
    let upload = skep_privacy::packing::pack(
        noise_alone(&grid, 1).coordinates(),
        planned.plan.plan().encoding.wire_bits,
    )
    .unwrap();
    let update = federation.stager().stage(&upload).unwrap();
    federation.commit(&update).unwrap();
    federation.release().unwrap();
    let summary = federation.close(COMPLETE).unwrap();
    let unit = grid.exact().step() / 4.0;
    for ((after, before), noise) in federation.model().iter().zip(&*before).zip(update.coordinates()) {
        assert!((f64::from(after - before) - f64::from(*noise) * unit).abs() < 1e-6);
    }
    assert_eq!(summary.epsilon_server, summary.epsilon_alone);
    // dp_accounting 0.6.0, PLD at 1e-4 and exact: multiplier 2 is half of what 4.377178 is the epsilon of.
    let server = summary.epsilon_server.unwrap().get();
    assert!(server > 1.9 && server < 2.1, "{server}");
}

#[test]
fn central_with_secure_aggregation_makes_the_same_model_and_no_claim_against_the_server() {
    let mut masked = distributed_file();
    masked.privacy.mode = ModeFile::Central;
    let open = ExperimentFile { secure_aggregation: None, ..masked.clone() };
    let model = |file: &ExperimentFile| {
        let mut federation = federation(file, seeded(1));
        federation.plan(&Contiguous(12)).unwrap();
        for value in 0..8 {
            let mut coordinates = vec![0; PARAMETERS];
            coordinates[value] = 1 << 20;
            coordinates[100] = -(1 << 19);
            coordinates[value] -= 1 << 18;
            let update = Contribution::verify(coordinates, &federation.grid()).unwrap();
            federation.commit(&update).unwrap();
        }
        federation.release().unwrap();
        let summary = federation.close(COMPLETE).unwrap();
        (summary.model, summary.epsilon_server)
    };
    let (of_sums, claim) = model(&masked);
    let (of_updates, none) = model(&open);
    assert_eq!(of_sums, of_updates);
    assert_eq!((claim, none), (Err(NoPromise::SumsWithoutNoise), Err(NoPromise::TrustedServer)));
}

#[test]
fn noise_that_no_grid_carries_is_refused_by_name() {
    let mut file = distributed_file();
    file.privacy.noise_multiplier = Some(1e-6);
    file.privacy.epsilon_limit = Some(f64::INFINITY);
    let experiment = Experiment::try_from(&file).unwrap();
    let ledger = ledger(&Experiment::try_from(&distributed_file()).unwrap());
    assert!(matches!(terms(&experiment), Err(FederationError::ClientNoise(_))), "no ledger begins with it");
    let refused =
        Federation::new(experiment, segments(), vec![0.5; PARAMETERS], ledger, seeded(1)).unwrap_err();
    assert!(matches!(refused, FederationError::ClientNoise(_)), "{refused}");
    assert!(refused.to_string().contains("at least 2 are needed"), "{refused}");
}

#[test]
fn a_query_is_charged_to_the_ledger_of_the_rounds_and_opens_its_sum_once() {
    let mut federation = federation(&private_file(), seeded(1));
    let question = Question {
        occasion: Occasion::Vocabulary,
        dimension: 3,
        clip_norm: ClipNorm::new(1.0).unwrap(),
        noise_multiplier: NoiseMultiplier::new(8.0).unwrap(),
        sampling: Sampling::All,
    };
    let ask = |federation: &mut Federation, number| federation.open_query(&question, number, &Contiguous(4));
    let query = ask(&mut federation, 0).unwrap();
    assert_eq!((query.cohort.len(), query.record), (4, 1));
    let one = federation.epsilon(Adversary::Recipients).unwrap();
    assert!(one > Epsilon::ZERO);
    let other = ask(&mut federation, 1).unwrap();
    assert!((query.deviation(4) - 8.0).abs() < 0.01, "{}", query.deviation(4));
    let draw = |federation: &mut Federation, query: Query| {
        let nobody = Accumulator::new(query.grid).finish();
        federation.answer_query(query, nobody).unwrap().decode()
    };
    let of_other = draw(&mut federation, other);
    let abandoned = ask(&mut federation, 2).unwrap();
    federation.abandon_query(abandoned, "a test").unwrap();
    assert!(federation.epsilon(Adversary::Recipients).unwrap() > one, "what was charged stays charged");
    assert_ne!(draw(&mut federation, query), of_other, "each has noise of its own");
    federation.plan(&Contiguous(4)).unwrap();
    assert!(matches!(ask(&mut federation, 3), Err(PlanningError::Busy(Round(1)))));
}

#[test]
fn the_query_after_a_round_is_a_round_of_answers_that_releases_no_model_and_is_asked_once() {
    for file in [private_file(), distributed_file()] {
        let clients = file.population.clients;
        let mut federation = federation(&asking(file), seeded(1));
        let roster = Contiguous(clients);
        assert!(!federation.asks(), "there is nothing to ask about yet");
        let planned = federation.plan(&roster).unwrap();
        let grid = federation.grid();
        let noised = |grid: Grid, dimension: usize, seed| match grid {
            Grid::Noised(grid) => {
                let exact = Grid::from(*grid.exact());
                let zero = QuantizedUpdate::verify(vec![0; dimension], &exact).unwrap();
                zero.add_noise(&grid, &Key::from_seed(seed), PrgId::ChaCha20).unwrap().into()
            }
            grid => Contribution::from(QuantizedUpdate::verify(vec![0; dimension], &grid).unwrap()),
        };
        (0..clients).for_each(|seed| federation.commit(&noised(grid, PARAMETERS, seed)).unwrap());
        federation.release().unwrap();
        federation.close(Outcome::Complete { updates: clients as u32 }).unwrap();
        let spent = federation.epsilon(Adversary::Recipients);
        let model = federation.model_digest();

        assert!(federation.asks());
        let query = federation.plan_query(&roster).unwrap().unwrap();
        let plan = query.plan.plan();
        assert_eq!((plan.round, plan.base_model, plan.update_len()), (Round(1).query(), model, 3));
        query.plan.check(&federation.experiment().task).expect("clients find nothing wrong with it");
        assert_ne!(query.plan.digest(), planned.plan.digest());
        let grid = plan.grid().unwrap();
        (0..clients).for_each(|seed| federation.commit(&noised(grid, 3, seed)).unwrap());
        federation.release().unwrap();
        let summary = federation.close(Outcome::Complete { updates: clients as u32 }).unwrap();
        // Clients that say nothing do not count, and noise may say at most that.
        assert_eq!((summary.round, summary.answers), (Round(1).query(), None));
        assert_eq!((federation.model_digest(), federation.round()), (model, Round(1)));
        assert_eq!(federation.epsilon(Adversary::Recipients), spent);
        assert!(!federation.asks(), "once");
        assert_eq!(federation.ledger().state().settled(), 2);
        assert_eq!(federation.ledger().spent().basis, skep_privacy::ledger::Basis::Schedule);
        // A round that releases nothing is not asked about.
        federation.plan(&roster).unwrap();
        federation.close(STOPPED).unwrap();
        assert!(!federation.asks());
    }
}

#[test]
fn a_second_run_on_a_ledger_leaves_out_the_query_that_its_schedule_has_not() {
    let mut file = asking(private_file());
    file.rounds.count = 3;
    file.privacy.epsilon_limit = Some(1e6);
    file.evaluation.as_mut().unwrap().query.as_mut().unwrap().every = 2;
    let experiment = Experiment::try_from(&file).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = crate::ledger::Place::Shared(directory.path().join("bees.skep"));
    let roster = Contiguous(4);
    for expected in [vec![2, 3], vec![2]] {
        let ledger = crate::ledger::simulated(&place, &experiment, &Key::from_seed(1), false).unwrap();
        let mut federation =
            Federation::new(experiment.clone(), segments(), vec![0.5; PARAMETERS], ledger, seeded(1))
                .unwrap();
        let mut asked = Vec::new();
        for round in 1..=3 {
            federation.plan(&roster).unwrap();
            let update = federation.stager().stage(&zero_upload(&federation)).unwrap();
            federation.commit(&update).unwrap();
            federation.release().unwrap();
            federation.close(Outcome::Degraded { updates: 1, invited: 4 }).unwrap();
            if federation.asks() && federation.plan_query(&roster).unwrap().is_some() {
                asked.push(round);
                federation.close(STOPPED).unwrap();
            }
        }
        assert_eq!(asked, expected);
        assert_eq!(federation.ledger().spent().basis, skep_privacy::ledger::Basis::Schedule);
    }
}

/// Who is invited to each round of a run, with participation limits.
fn invited(
    sampling: SamplingFile,
    max: u64,
    rounds: u64,
) -> (Vec<BTreeSet<ClientId>>, Option<PlanningError>) {
    let mut file = public_file();
    file.population.clients = 12;
    file.population.max_participations = Some(max);
    file.population.min_separation = Some(2);
    file.rounds = RoundsFile { count: 6, sampling, min_updates: 1, deadline_s: 10.0 };
    let mut federation = federation(&file, seeded(1));
    let mut cohorts = Vec::new();
    for _ in 0..rounds {
        match federation.plan(&Contiguous(12)) {
            Ok(planned) => cohorts.push(planned.cohort),
            Err(error) => return (cohorts, Some(error)),
        }
        federation.close(STOPPED).unwrap();
    }
    (cohorts, None)
}

#[test]
fn nobody_is_invited_more_often_or_sooner_than_participation_limits_allow() {
    for sampling in [SamplingFile::Poisson { rate: 0.6 }, SamplingFile::Fixed { size: 4 }] {
        let (cohorts, refused) = invited(sampling, 3, 6);
        assert!(refused.is_none(), "{refused:?}");
        for client in (0..12).map(ClientId) {
            let rounds: Vec<usize> = (0..6).filter(|round| cohorts[*round].contains(&client)).collect();
            assert!(rounds.len() <= 3, "{client} is in the rounds {rounds:?}");
            assert!(
                rounds.windows(2).all(|pair| pair[1] - pair[0] >= 2),
                "{client} is in the rounds {rounds:?}"
            );
        }
        assert!(
            cohorts.iter().map(BTreeSet::len).sum::<usize>() > 12,
            "the limits were reached: {cohorts:?}"
        );
    }
}

#[test]
fn a_second_run_over_the_same_ledger_finds_its_participations_and_other_limits_are_refused() {
    let mut file = public_file();
    file.population.max_participations = Some(1);
    file.rounds.count = 1;
    let experiment = Experiment::try_from(&file).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let place = crate::ledger::Place::Shared(directory.path().join("bees.skep"));
    let open = || crate::ledger::simulated(&place, &experiment, &Key::from_seed(1), false).unwrap();
    let begin = |experiment: &Experiment| {
        Federation::new(experiment.clone(), segments(), vec![0.5; PARAMETERS], open(), seeded(1))
    };
    begin(&experiment).unwrap().plan(&Contiguous(4)).unwrap();
    let refused = begin(&experiment).unwrap().plan(&Contiguous(4)).unwrap_err();
    assert!(matches!(refused, PlanningError::Participation { .. }), "{refused}");
    file.population.max_participations = Some(2);
    let refused = begin(&Experiment::try_from(&file).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("max_participations = 1 and min_separation = 1"), "{refused}");
}
