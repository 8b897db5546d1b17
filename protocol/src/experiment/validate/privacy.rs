//! Trust modes, and what cannot be promised together.

use skep_privacy::quantities::{
    Adjacency, ClipNorm, CorruptFraction, Delta, Epsilon, NoiseMultiplier, Sampling, Unit,
};

use skep_privacy::secagg::COHORT_MIN;

use super::{Invalid, at, checked, invalid, parsed};
use crate::experiment::file::{
    ExperimentFile, FidelityFile, GroupsFile, ModeFile, PrivacyFile, SecureAggregationFile,
};
use crate::experiment::{ExamplePrivacy, Experiment, Fidelity, Groups, Privacy, SecureAggregation, Terms};
use crate::plan::{COHORT_MAX, Masking};

pub(super) fn privacy(file: &ExperimentFile) -> Result<Privacy, Invalid> {
    let secure_aggregation = file.secure_aggregation.as_ref().map(secure_aggregation).transpose()?;
    let terms = || terms(&file.privacy, file.population.clients);
    match (file.privacy.mode, secure_aggregation) {
        (ModeFile::None, None) => no_privacy(&file.privacy),
        (ModeFile::Central, secure_aggregation) => {
            Ok(Privacy::Central { terms: terms()?, secure_aggregation })
        }
        (ModeFile::Distributed, Some(secure_aggregation)) => {
            Ok(Privacy::Distributed { terms: terms()?, secure_aggregation })
        }
        (ModeFile::Local, None) => {
            let terms = terms()?;
            Ok(match terms.unit {
                Unit::Client => Privacy::Local { terms },
                Unit::Example => Privacy::Examples { terms },
            })
        }
        (ModeFile::Distributed, None) => Err(invalid(
            "secure_aggregation",
            "is missing: with mode = \"distributed\" each client adds only a share of the noise, which hides nothing unless \
             the server sees sums only; add [secure_aggregation] with max_corrupt_fraction",
        )),
        (ModeFile::None, Some(_)) => Err(invalid(
            "secure_aggregation",
            "has no use with mode = \"none\": a sum without noise still tells of each client; remove it, or choose mode = \
             \"central\" or \"distributed\"",
        )),
        (ModeFile::Local, Some(_)) => Err(invalid(
            "secure_aggregation",
            "has no use with mode = \"local\": each update carries all of its noise and may be seen; remove it, or choose \
             mode = \"distributed\", which needs less noise",
        )),
    }
}

pub(super) fn fidelity(file: &ExperimentFile) -> Result<Fidelity, Invalid> {
    match (file.simulation.fidelity, file.secure_aggregation) {
        (FidelityFile::Sum, _) => Ok(Fidelity::Sum),
        (FidelityFile::Protocol, Some(_)) => Ok(Fidelity::Protocol),
        (FidelityFile::Protocol, None) => Err(invalid(
            "simulation.fidelity",
            "is \"protocol\", but without [secure_aggregation] there is none: remove it",
        )),
    }
}

fn no_privacy(file: &PrivacyFile) -> Result<Privacy, Invalid> {
    let given = [
        ("unit", file.unit.is_some()),
        ("adjacency", file.adjacency.is_some()),
        ("clip_norm", file.clip_norm.is_some()),
        ("noise_multiplier", file.noise_multiplier.is_some()),
        ("delta", file.delta.is_some()),
        ("epsilon_limit", file.epsilon_limit.is_some()),
    ];
    match given.iter().find(|(_, present)| *present) {
        Some((key, _)) => Err(invalid(
            &format!("privacy.{key}"),
            "has no meaning with mode = \"none\": remove it, or choose another mode",
        )),
        None => Ok(Privacy::None),
    }
}

fn terms(file: &PrivacyFile, clients: u64) -> Result<Terms, Invalid> {
    let terms = Terms {
        unit: parsed("privacy.unit", &file.unit)?,
        adjacency: parsed("privacy.adjacency", &file.adjacency)?,
        clip_norm: checked("privacy.clip_norm", file.clip_norm, ClipNorm::new)?,
        noise_multiplier: checked("privacy.noise_multiplier", file.noise_multiplier, NoiseMultiplier::new)?,
        delta: checked("privacy.delta", file.delta, Delta::new)?,
        epsilon_limit: checked("privacy.epsilon_limit", file.epsilon_limit, Epsilon::new)?,
    };
    if terms.delta.get() >= 1.0 / clients as f64 {
        return Err(invalid(
            "privacy.delta",
            format!("is {}, but must be below one over the population, 1/{clients}", terms.delta),
        ));
    }
    Ok(terms)
}

fn secure_aggregation(file: &SecureAggregationFile) -> Result<SecureAggregation, Invalid> {
    if file.min_cohort < COHORT_MIN {
        return Err(invalid(
            "secure_aggregation.min_cohort",
            format!(
                "is {}, but must be at least {COHORT_MIN}: of a sum of two, each client knows the other's part",
                file.min_cohort
            ),
        ));
    }
    Ok(SecureAggregation {
        max_corrupt_fraction: CorruptFraction::new(file.max_corrupt_fraction)
            .map_err(at("secure_aggregation.max_corrupt_fraction"))?,
        min_cohort: file.min_cohort,
        groups: file.groups.map(|GroupsFile { size, min_updates }| Groups { size, min_updates }),
    })
}

/// What the task tells clients, where they hide single examples.
pub(super) fn example_privacy(privacy: &Privacy, rounds: u64) -> Option<ExamplePrivacy> {
    let Privacy::Examples { terms } = privacy else { return None };
    Some(ExamplePrivacy {
        clip_norm: terms.clip_norm.get(),
        noise_multiplier: terms.noise_multiplier.get(),
        delta: terms.delta.get(),
        epsilon_limit: terms.epsilon_limit.get(),
        rounds,
    })
}

/// Refuses what cannot be promised together.
pub(super) fn refuse_combinations(experiment: &Experiment) -> Result<(), Invalid> {
    if let Privacy::Examples { terms } = &experiment.privacy
        && terms.adjacency != Adjacency::ZeroOut
    {
        return Err(invalid(
            "privacy.adjacency",
            "must be \"zero-out\" with unit = \"example\": the number of a client's examples is public, as rate and number of its \
             steps follow from it, so the neighbour keeps the example and leaves it out of every sum",
        ));
    }
    let Some(terms) = experiment.privacy.terms() else { return Ok(()) };
    if terms.unit != Unit::Client {
        return Err(invalid(
            "privacy.unit",
            "must be \"client\" in this mode: noise on updates protects whole clients; single examples are hidden inside each \
             client, with mode = \"local\"",
        ));
    }
    if terms.adjacency == Adjacency::Replace {
        return Err(invalid(
            "privacy.adjacency",
            "must be \"zero-out\" or \"add-or-remove\": replacing one client changes the sum by up to twice the clip norm, \
             which this noise is not planned for",
        ));
    }
    if let Some(secure_aggregation) = experiment.privacy.secure_aggregation() {
        refuse_unmaskable(experiment, secure_aggregation)?;
    }
    refuse_visible_presence(experiment, terms.adjacency)
}

/// Under add-or-remove nobody may know from elsewhere who takes part.
fn refuse_visible_presence(experiment: &Experiment, adjacency: Adjacency) -> Result<(), Invalid> {
    if adjacency == Adjacency::ZeroOut {
        return Ok(());
    }
    if !matches!(experiment.rounds.sampling, Sampling::Poisson { .. }) {
        return Err(invalid(
            "privacy.adjacency",
            "must be \"zero-out\" with a cohort of public size: the neighbour keeps the client but sends a zero update",
        ));
    }
    if !matches!(experiment.privacy, Privacy::Central { .. }) {
        return Err(invalid(
            "privacy.adjacency",
            "must be \"zero-out\" with noise from clients: the server, which the promise is against, sees who takes part",
        ));
    }
    Ok(())
}

fn refuse_unmaskable(experiment: &Experiment, secure: &SecureAggregation) -> Result<(), Invalid> {
    let (cohort, min_updates) = (experiment.cohort_max(), experiment.rounds.min_updates);
    if let Sampling::Poisson { .. } = experiment.rounds.sampling {
        return Err(invalid(
            "rounds.sampling",
            "must be \"all\" or \"fixed\" with [secure_aggregation]: clients choose the threshold and whom to share masks with by \
             the size of the cohort, which \"poisson\" leaves open until the round",
        ));
    }
    if cohort < secure.min_cohort {
        return Err(invalid(
            "secure_aggregation.min_cohort",
            format!(
                "is {}, but a round has {cohort} clients: a sum of few tells much of each; invite more, or lower it",
                secure.min_cohort
            ),
        ));
    }
    let corrupt = secure.max_corrupt_fraction.of(cohort);
    if corrupt == 0 {
        return Err(invalid(
            "secure_aggregation.max_corrupt_fraction",
            format!(
                "is {}, which is nobody in a cohort of {cohort}; a server that enrols clients can always be one itself: use at \
                 least {}",
                secure.max_corrupt_fraction,
                1.0 / f64::from(cohort)
            ),
        ));
    }
    if cohort > COHORT_MAX {
        return Err(invalid(
            "rounds.sampling",
            format!(
                "invites {cohort} clients, but a plan with [secure_aggregation] names at most {COHORT_MAX}"
            ),
        ));
    }
    match secure.groups {
        None => refuse_too_few(cohort, cohort, min_updates, secure, "rounds.min_updates"),
        Some(groups) => refuse_groups(cohort, min_updates, groups, secure),
    }
}

fn refuse_groups(
    cohort: u32,
    min_updates: u32,
    groups: Groups,
    secure: &SecureAggregation,
) -> Result<(), Invalid> {
    let Groups { size, min_updates: of_group } = groups;
    if size == 0 || size >= cohort || !cohort.is_multiple_of(size) {
        let divides = |size: &u32| cohort.is_multiple_of(*size);
        let below = (secure.min_cohort..cohort.min(size.saturating_add(1))).rev().find(divides);
        let fits = below.or_else(|| (size.max(secure.min_cohort)..cohort).find(divides));
        let advice = fits.map_or("without groups it is one".into(), |fits| format!("{fits} would be"));
        return Err(invalid(
            "secure_aggregation.groups.size",
            format!("is {size}, but groups must be two or more that make up a cohort of {cohort}: {advice}"),
        ));
    }
    if size < secure.min_cohort {
        return Err(invalid(
            "secure_aggregation.groups.size",
            format!(
                "is {size}, below secure_aggregation.min_cohort = {}: the server learns the sum of each group",
                secure.min_cohort
            ),
        ));
    }
    if of_group > size || of_group > min_updates {
        return Err(invalid(
            "secure_aggregation.groups.min_updates",
            format!(
                "is {of_group}, but must be at most groups.size = {size}, and at most rounds.min_updates = {min_updates}"
            ),
        ));
    }
    refuse_too_few(cohort, size, of_group, secure, "secure_aggregation.groups.min_updates")
}

/// Of every group at least so many must stay that its masks can be removed, and that there is honest noise.
fn refuse_too_few(
    cohort: u32,
    size: u32,
    min_updates: u32,
    secure: &SecureAggregation,
    key: &str,
) -> Result<(), Invalid> {
    let plan = |min_updates| {
        let fraction = secure.max_corrupt_fraction;
        Masking::plan_groups(cohort, size, min_updates, secure.min_cohort, fraction)
    };
    // With everybody there are parameters, or none with fewer.
    let whole =
        plan(size).map_err(|error| invalid("secure_aggregation", format!("cannot be kept: {error}")))?;
    let corrupt = whole.corrupt(cohort);
    if min_updates <= corrupt || plan(min_updates).is_err() {
        let least = least(corrupt + 1, size, |updates| plan(updates).is_ok());
        return Err(invalid(
            key,
            format!(
                "is {min_updates}, but must be at least {least} of {size} with up to {corrupt} corrupt clients: with fewer, \
                 masks cannot be removed safely, and there may be no honest noise in the sum"
            ),
        ));
    }
    Ok(())
}

/// The smallest number from `low` to `high` with which all goes well, as it does with `high` and all above it.
fn least(mut low: u32, mut high: u32, goes_well: impl Fn(u32) -> bool) -> u32 {
    while low < high {
        let middle = low + (high - low) / 2;
        match goes_well(middle) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

pub(super) fn privacy_file(privacy: &Privacy) -> PrivacyFile {
    let mode = match privacy {
        Privacy::None => ModeFile::None,
        Privacy::Central { .. } => ModeFile::Central,
        Privacy::Distributed { .. } => ModeFile::Distributed,
        Privacy::Local { .. } | Privacy::Examples { .. } => ModeFile::Local,
    };
    let terms = privacy.stated_terms();
    PrivacyFile {
        mode,
        unit: terms.map(|terms| terms.unit.to_string()),
        adjacency: terms.map(|terms| terms.adjacency.to_string()),
        clip_norm: terms.map(|terms| terms.clip_norm.get()),
        noise_multiplier: terms.map(|terms| terms.noise_multiplier.get()),
        delta: terms.map(|terms| terms.delta.get()),
        epsilon_limit: terms.map(|terms| terms.epsilon_limit.get()),
    }
}

pub(super) fn secure_aggregation_file(privacy: &Privacy) -> Option<SecureAggregationFile> {
    privacy.secure_aggregation().map(|secure| SecureAggregationFile {
        max_corrupt_fraction: secure.max_corrupt_fraction.get(),
        min_cohort: secure.min_cohort,
        groups: secure.groups.map(|Groups { size, min_updates }| GroupsFile { size, min_updates }),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::digits;
    use super::*;
    use crate::experiment::file::SamplingFile;

    fn secure() -> SecureAggregationFile {
        SecureAggregationFile { max_corrupt_fraction: 0.05, min_cohort: 10, groups: None }
    }

    fn distributed() -> ExperimentFile {
        let mut file = ExperimentFile { secure_aggregation: Some(secure()), ..digits() };
        file.privacy.mode = ModeFile::Distributed;
        file.rounds.min_updates = 80;
        file
    }

    fn local() -> ExperimentFile {
        let mut file = digits();
        file.privacy.mode = ModeFile::Local;
        file
    }

    fn refused(mut file: ExperimentFile, change: impl FnOnce(&mut ExperimentFile)) -> (String, String) {
        change(&mut file);
        let refused = Experiment::try_from(&file).expect_err("the change makes no sense");
        (refused.key, refused.problem)
    }

    #[test]
    fn every_mode_comes_back_as_it_was() {
        let masked = ExperimentFile { secure_aggregation: Some(secure()), ..distributed() };
        let central = ExperimentFile { privacy: digits().privacy, ..masked };
        let mut protocol = distributed();
        protocol.simulation.fidelity = FidelityFile::Protocol;
        for file in [digits(), distributed(), central, local(), protocol] {
            let experiment = Experiment::try_from(&file).unwrap();
            assert_eq!(ExperimentFile::from(&experiment), file);
            let named = format!("{:?}", file.privacy.mode).to_lowercase();
            assert_eq!(named, experiment.privacy.mode());
        }
    }

    #[test]
    fn noise_is_planned_for_the_honest_of_the_fewest_survivors() {
        let experiment = Experiment::try_from(&distributed()).unwrap();
        let masking = experiment.masking().unwrap();
        assert_eq!((masking.degree, masking.threshold, masking.corrupt(100)), (99, 53, 5));
        assert_eq!(experiment.honest_survivors(), Some(75));
        let central = Experiment::try_from(&digits()).unwrap();
        assert_eq!((central.masking(), central.honest_survivors()), (None, None));
    }

    #[test]
    fn secure_aggregation_stands_only_where_it_has_a_use() {
        let (key, problem) = refused(distributed(), |file| file.secure_aggregation = None);
        assert_eq!(key, "secure_aggregation");
        assert!(problem.contains("only a share of the noise"), "{problem}");
        let (key, problem) = refused(local(), |file| file.secure_aggregation = Some(secure()));
        assert_eq!(key, "secure_aggregation");
        assert!(problem.contains("mode = \"local\""), "{problem}");
        let (key, problem) = refused(digits(), |file| {
            file.privacy = PrivacyFile::NONE;
            file.secure_aggregation = Some(secure());
        });
        assert_eq!(key, "secure_aggregation");
        assert!(problem.contains("mode = \"none\""), "{problem}");
        let (key, _) = refused(digits(), |file| file.simulation.fidelity = FidelityFile::Protocol);
        assert_eq!(key, "simulation.fidelity");
    }

    #[test]
    fn cohorts_that_cannot_be_masked_are_refused() {
        let (key, problem) =
            refused(distributed(), |file| file.rounds.sampling = SamplingFile::Poisson { rate: 0.9 });
        assert_eq!(key, "rounds.sampling");
        assert!(problem.contains("threshold"), "{problem}");
        let (key, problem) = refused(distributed(), |file| {
            file.rounds.sampling = SamplingFile::Fixed { size: 9 };
            file.rounds.min_updates = 9;
        });
        assert_eq!(key, "secure_aggregation.min_cohort");
        assert!(problem.contains("a round has 9 clients"), "{problem}");
        let (key, _) = refused(distributed(), |file| {
            file.secure_aggregation = Some(SecureAggregationFile { min_cohort: 2, ..secure() })
        });
        assert_eq!(key, "secure_aggregation.min_cohort");
        let (key, problem) = refused(distributed(), |file| {
            file.population.clients = 10_001;
            file.rounds.min_updates = 9000;
            file.privacy.delta = Some(1e-6);
        });
        assert_eq!(key, "secure_aggregation");
        assert!(problem.contains("at most 10000"), "{problem}");
    }

    #[test]
    fn a_corrupt_fraction_is_somebody_and_not_everybody() {
        let with = |max_corrupt_fraction| SecureAggregationFile {
            max_corrupt_fraction,
            min_cohort: 10,
            groups: None,
        };
        for fraction in [0.0, 1.0, -0.1, f64::NAN] {
            let (key, _) = refused(distributed(), |file| file.secure_aggregation = Some(with(fraction)));
            assert_eq!(key, "secure_aggregation.max_corrupt_fraction");
        }
        let (key, problem) = refused(distributed(), |file| file.secure_aggregation = Some(with(0.009)));
        assert_eq!(key, "secure_aggregation.max_corrupt_fraction");
        assert!(
            problem.contains("nobody in a cohort of 100") && problem.contains("at least 0.01"),
            "{problem}"
        );
    }

    #[test]
    fn too_few_survivors_are_refused_by_the_threshold() {
        let (key, problem) = refused(distributed(), |file| file.rounds.min_updates = 53);
        assert_eq!(key, "rounds.min_updates");
        assert!(problem.contains("at least 54 of 100 with up to 5 corrupt"), "{problem}");
        let mut enough = distributed();
        enough.rounds.min_updates = 54;
        assert_eq!(Experiment::try_from(&enough).unwrap().honest_survivors(), Some(49));
    }

    #[test]
    fn groups_make_up_the_cohort_and_keep_what_is_promised_each_by_itself() {
        let grouped = |size, min_updates| {
            let mut file = distributed();
            let groups = Some(GroupsFile { size, min_updates });
            file.secure_aggregation = Some(SecureAggregationFile { groups, ..secure() });
            file
        };
        let file = grouped(25, 20);
        let experiment = Experiment::try_from(&file).unwrap();
        assert_eq!(ExperimentFile::from(&experiment), file);
        let masking = experiment.masking().unwrap();
        // Any 5 may come to be in one group; ⌊(24 + 5)/2⌋ + 1 shares, and 20 less 5 honest.
        assert_eq!((masking.degree, masking.threshold, masking.groups(100)), (24, 15, 4));
        assert_eq!(experiment.honest_survivors(), Some(15));
        for (size, min_updates, key, problem) in [
            (30, 20, "size", "25 would be"),
            (0, 0, "size", "10 would be"),
            (100, 80, "size", "50 would be"),
            (5, 5, "size", "below secure_aggregation.min_cohort = 10"),
            (25, 26, "min_updates", "at most groups.size = 25"),
            (50, 81, "min_updates", "at most groups.size = 50"),
            (25, 15, "min_updates", "at least 16 of 25 with up to 5 corrupt clients"),
        ] {
            let (refused, why) = refused(grouped(size, min_updates), |_| ());
            assert_eq!(refused, format!("secure_aggregation.groups.{key}"));
            assert!(why.contains(problem), "{why}");
        }
    }

    #[test]
    fn claims_that_noise_from_clients_does_not_keep_are_refused() {
        for file in [distributed(), local()] {
            let adjacency = |file: &mut ExperimentFile| file.privacy.adjacency = Some("add-or-remove".into());
            assert_eq!(refused(file.clone(), adjacency).0, "privacy.adjacency");
            let weighting = |file: &mut ExperimentFile| {
                file.strategy = crate::experiment::file::StrategyFile::Fedavg {
                    weighting: crate::experiment::file::WeightingFile::Examples,
                    max_examples: Some(10),
                    server_learning_rate: 1.0,
                };
            };
            assert_eq!(refused(file, weighting).0, "strategy.weighting");
        }
        let example = |file: &mut ExperimentFile| file.privacy.unit = Some("example".into());
        for file in [digits(), distributed()] {
            let (key, problem) = refused(file, example);
            assert_eq!(key, "privacy.unit");
            assert!(problem.contains("mode = \"local\""), "{problem}");
        }
        let mut examples = local();
        example(&mut examples);
        let experiment = Experiment::try_from(&examples).unwrap();
        assert_eq!(ExperimentFile::from(&experiment), examples);
        assert_eq!(experiment.task.training.example_privacy.map(|terms| terms.rounds), Some(60));
        let (key, _) = refused(examples, |file| file.privacy.adjacency = Some("add-or-remove".into()));
        assert_eq!(key, "privacy.adjacency");
        let (key, problem) = refused(local(), |file| {
            file.rounds.sampling = SamplingFile::Poisson { rate: 0.5 };
            file.privacy.adjacency = Some("add-or-remove".into());
        });
        assert_eq!(key, "privacy.adjacency");
        assert!(problem.contains("sees who takes part"), "{problem}");
    }
}
