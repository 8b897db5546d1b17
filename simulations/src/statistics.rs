//! Means and standard deviations of columns that clients state together, while nobody's examples leave their client.
//!
//! With u the number of a column, mapped from its declared bounds to [−1, 1] and no further, a client answers for each column with the
//! mean of u over its examples and with the mean of u² less a half, and once with a half, which counts the answers. Of a column
//! these are never longer than √1.25, so an answer to d columns is never longer than √(1.25 d + ¼).
//!
//! Where numbers may be missing, sums are over the examples that have one, but divided by the number of all, and a third number is half
//! the share p that have: a client counts by that share. The three are never longer than p·√1.5. Categories are not asked about.

use skep_learning::table::{Column, Kind};
use skep_learning::{Standardization, Subset};
use skep_privacy::adversary::Adversary;
use skep_privacy::ledger::Occasion;
use skep_privacy::prg::Key;
use skep_privacy::quantities::{Adjacency, ClipNorm, Epsilon, NoiseMultiplier, Sampling};
use skep_protocol::experiment::{Data, Experiment, Missing, TableData};
use skep_server::federation::Question;
use skep_server::ledger::Place;
use thiserror::Error;

use crate::data::{DataError, data};
use crate::error::SimulationError;
use crate::population::{initial_model, shares};
use crate::query::{Answers, ask};
use crate::simulate::federation;
use crate::table;

/// What is declared of a column, before anybody has seen it: its numbers are taken to be within these bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// The column.
    pub column: String,
    /// A smaller number counts as this.
    pub low: f64,
    /// A larger number counts as this.
    pub high: f64,
}

/// What came of it; public.
#[derive(Debug)]
pub struct Surveyed {
    /// Means and standard deviations.
    pub standardization: Standardization,
    /// By how much the noise moves each mean in nineteen of twenty queries, at most.
    pub mean_within: Vec<f64>,
    /// Columns whose variance cannot be told from noise: their standard deviation is what the noise alone would make.
    pub drowned: Vec<String>,
    /// What all queries and rounds on the ledger cost so far, against recipients of models.
    pub epsilon: Epsilon,
}

/// Why there are no statistics.
#[derive(Debug, Error)]
pub enum SurveyError {
    /// Only tables have columns.
    #[error(
        "task.data: only tables, of kind \"csv\", \"tsv\", \"jsonl\" or \"parquet\", have columns to standardize"
    )]
    NoTable,
    /// There are only categories.
    #[error("task.data.features: holds no column of numbers to standardize")]
    NoNumbers,
    /// Nothing hides a client.
    #[error(
        "privacy: statistics are asked in private only, in a mode that hides whole clients: \"central\", \"distributed\" or \"local\""
    )]
    Mode,
    /// How many clients answer is exact, and so tells of each whether it is there.
    #[error(
        "privacy.adjacency must be \"zero-out\": statistics are asked of all clients, and how many they are is written down as it is, which \
         \"add-or-remove\" is to hide"
    )]
    Adjacency,
    /// Nobody could find the charge again.
    #[error(
        "population.ledger is missing: name the file to which the statistics and the training are both charged"
    )]
    NoLedger,
    /// The bounds are about other columns than the data.
    #[error("bounds are needed for each of the columns {columns:?}, and were given for {given:?}")]
    Columns {
        /// Features of the data.
        columns: Vec<String>,
        /// Columns with bounds.
        given: Vec<String>,
    },
    /// There is nothing between bounds.
    #[error(
        "column `{0}`: the lower bound must be below the upper one, by at least {LEAST_WIDTH:e}, and both within those of single floats, 3.4e38"
    )]
    Bounds(String),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Noise drowns even how many clients there are.
    #[error(
        "the noise drowns what clients say: more clients, fewer columns or less noise would tell it apart; the query is charged all the same"
    )]
    Drowned,
    /// The ledger or the budget does not allow it, or another step failed.
    #[error(transparent)]
    Federation(Box<SimulationError>),
}

impl From<SimulationError> for SurveyError {
    fn from(error: SimulationError) -> Self {
        SurveyError::Federation(Box::new(error))
    }
}

/// Asks all clients of a simulated population for the means and standard deviations of their tables' columns, within bounds that are
/// given in any order. Before anybody is asked it is charged to the experiment's ledger, which must be a file.
///
/// # Errors
/// [`SurveyError`]. Once the query is charged it stays charged.
pub fn survey(
    experiment: &Experiment,
    root: &Key,
    bounds: &[Bounds],
    noise_multiplier: NoiseMultiplier,
) -> Result<Surveyed, SurveyError> {
    let mut asked = experiment.clone();
    let Data::Table(table) = &mut asked.data else { return Err(SurveyError::NoTable) };
    let survey = Survey::of(table)?;
    let terms = experiment.privacy.terms().ok_or(SurveyError::Mode)?;
    if terms.adjacency != Adjacency::ZeroOut {
        return Err(SurveyError::Adjacency);
    }
    let ledger = experiment.population.ledger.as_ref().ok_or(SurveyError::NoLedger)?;
    let columns = survey.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    let bounds = in_order(&columns, bounds)?;
    let train = data(&asked)?.train;
    let clients = shares(&asked, &train).map_err(SimulationError::from)?;

    let impossible = |_| SimulationError::OutOfStep("the length of an answer is no clip norm");
    let question = Question {
        occasion: Occasion::Statistics,
        dimension: survey.dimension(),
        clip_norm: ClipNorm::new(survey.longest()).map_err(impossible)?,
        noise_multiplier,
        sampling: Sampling::All,
    };
    let model = initial_model(&asked)?;
    let mut federation = federation(&asked, model, root, &Place::Shared(ledger.into()), false)?;
    let nothing = vec![0.0; question.dimension];
    let answers = ask(&mut federation, root, &question, 0, |client| {
        clients.get(client.0 as usize).map_or_else(|| nothing.clone(), |own| survey.stated(own, &bounds))
    })?;
    let epsilon = federation.epsilon(Adversary::Recipients);
    let epsilon = epsilon.map_err(|_| SimulationError::OutOfStep("this mode promises nothing"))?;
    survey.surveyed(&answers, &bounds, epsilon)
}

/// Which numbers of an example are asked about.
struct Survey {
    columns: Vec<Asked>,
}

/// A column of numbers.
struct Asked {
    name: String,
    /// Where its number stands in an example.
    at: usize,
    /// Where it stands that the number is missing, if it may be.
    missing: Option<usize>,
}

impl Survey {
    /// Makes `table` one whose numbers are taken as they are, each that may be missing with an indicator, and says where they stand.
    fn of(table: &mut TableData) -> Result<Self, SurveyError> {
        // What is asked for may be named there already, and no mean that it has may stand in for anything.
        table.standardize = None;
        for column in table.columns.values_mut().filter(|column| column.categories.is_none()) {
            if column.missing.is_some() {
                (column.missing, column.indicator) = (Some(Missing::Value(0.0)), true);
            }
        }
        let (encoder, _) = table::encoder(table)?;
        let places = encoder.columns().iter().zip(encoder.offsets());
        let numeric = places.filter(|(column, _)| column.kind == Kind::Number);
        let asked = |(column, at): (&Column, usize)| Asked {
            name: column.name.clone(),
            at,
            missing: column.indicator.then_some(at + 1),
        };
        let columns: Vec<Asked> = numeric.map(asked).collect();
        if columns.is_empty() { Err(SurveyError::NoNumbers) } else { Ok(Survey { columns }) }
    }

    /// Numbers of an answer.
    fn dimension(&self) -> usize {
        self.columns.iter().map(Asked::numbers).sum::<usize>() + 1
    }

    /// No answer is longer.
    fn longest(&self) -> f64 {
        let squares = self.columns.iter().map(|column| if column.missing.is_some() { 1.5 } else { 1.25 });
        (squares.sum::<f64>() + 0.25).sqrt()
    }
}

impl Asked {
    /// Numbers of an answer that are about it.
    fn numbers(&self) -> usize {
        2 + usize::from(self.missing.is_some())
    }
}

/// The bounds in the order of the columns.
fn in_order(columns: &[String], bounds: &[Bounds]) -> Result<Vec<Bounds>, SurveyError> {
    let given: Vec<String> = bounds.iter().map(|bounds| bounds.column.clone()).collect();
    let find = |column: &String| bounds.iter().find(|bounds| bounds.column == *column).cloned();
    let ordered: Option<Vec<Bounds>> = columns.iter().map(find).collect();
    let Some(ordered) = ordered.filter(|ordered| ordered.len() == bounds.len()) else {
        return Err(SurveyError::Columns { columns: columns.to_vec(), given });
    };
    // Means and deviations are single floats, and a deviation of 0 divides nothing.
    let is_usable = |&Bounds { low, high, .. }: &Bounds| {
        (low as f32).is_finite() && (high as f32).is_finite() && high - low >= LEAST_WIDTH
    };
    match ordered.iter().find(|bounds| !is_usable(bounds)) {
        Some(wrong) => Err(SurveyError::Bounds(wrong.column.clone())),
        None => Ok(ordered),
    }
}

impl Survey {
    /// A client's answer.
    fn stated(&self, own: &Subset, bounds: &[Bounds]) -> Vec<f32> {
        let (features, examples) = (own.dataset().features(), own.len().max(1) as f64);
        let mut answer = Vec::with_capacity(self.dimension());
        for (column, bounds) in self.columns.iter().zip(bounds) {
            let mut sums = [0.0_f64; 3];
            for &row in own.rows() {
                let numbers = features.row(row);
                if column.missing.is_some_and(|at| numbers[at] != 0.0) {
                    continue;
                }
                let number = f64::from(numbers[column.at]);
                let mapped = 2.0 * (number - bounds.low) / (bounds.high - bounds.low) - 1.0;
                let mapped = mapped.clamp(-1.0, 1.0);
                sums[0] += mapped;
                sums[1] += mapped * mapped - 0.5;
                sums[2] += 0.5;
            }
            answer.extend(sums[..column.numbers()].iter().map(|sum| (sum / examples) as f32));
        }
        answer.push(0.5);
        answer
    }

    /// What the answers say, in the units of the columns.
    fn surveyed(
        &self,
        answers: &Answers,
        bounds: &[Bounds],
        epsilon: Epsilon,
    ) -> Result<Surveyed, SurveyError> {
        let (mut mean, mut deviation, mut mean_within, mut drowned) = (vec![], vec![], vec![], vec![]);
        let halves_of_all = answers.sum.last().copied().unwrap_or(0.0);
        let mut rest = answers.sum.as_slice();
        for (asked, Bounds { column, low, high }) in self.columns.iter().zip(bounds) {
            let (sums, others) = rest.split_at(asked.numbers());
            rest = others;
            let clients = 2.0 * if asked.missing.is_some() { sums[2] } else { halves_of_all };
            if clients < 2.0 * NINETEEN_OF_TWENTY * answers.deviation || clients < 0.5 {
                return Err(SurveyError::Drowned);
            }
            let noise = NINETEEN_OF_TWENTY * answers.deviation / clients;
            let (half, centre) = ((high - low) / 2.0, f64::midpoint(*low, *high));
            let mapped = (sums[0] / clients).clamp(-1.0, 1.0);
            let squares = (sums[1] / clients + 0.5).clamp(0.0, 1.0);
            // What noise makes of a variance of 0.
            let least = noise * (1.0 + 4.0 * mapped * mapped).sqrt();
            let variance = squares - mapped * mapped;
            if variance <= least {
                drowned.push(column.clone());
            }
            mean.push((centre + half * mapped) as f32);
            deviation.push((half * variance.max(least).max(f64::EPSILON).sqrt()) as f32);
            mean_within.push(half * noise * (1.0 + 4.0 * mapped * mapped).sqrt());
        }
        let columns = bounds.iter().map(|bounds| bounds.column.clone()).collect();
        let standardization = Standardization::new(columns, mean, deviation);
        let standardization =
            standardization.map_err(|_| SimulationError::OutOfStep("statistics are not finite"))?;
        Ok(Surveyed { standardization, mean_within, drowned, epsilon })
    }
}

/// Between bounds. The smallest deviation that is stated is some 10⁻⁸ of it.
const LEAST_WIDTH: f64 = 1e-25;

/// Standard deviations.
const NINETEEN_OF_TWENTY: f64 = 1.96;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use skep_learning::Classes;
    use skep_learning::table::{Answer, Declared, Filling, Format, Layout, read};
    use skep_protocol::experiment::file::{
        DataFile, ModeFile, PartitionFile, PrivacyFile, SamplingFile, TableFile,
    };
    use skep_protocol::experiment::{CountOrNames, Privacy, TableColumn, TableFormat};

    use super::*;
    use crate::testing::file;

    /// 400 clients with two lines each: ages of 40 and 60, a heat that is always 37.
    fn experiment(directory: &Path) -> Experiment {
        let lines: String = (0..400).map(|n| format!("40,37,no,{n}\n60,37,yes,{n}\n")).collect();
        let table = directory.join("table.csv");
        std::fs::write(&table, format!("age,heat,sick,who\n{lines}")).unwrap();
        let mut file = file();
        file.task.data = DataFile::Table(
            TableFormat::Csv,
            TableFile {
                train: Some(table.clone()),
                test: Some(table),
                hold_out_every: None,
                label: Some("sick".into()),
                client: Some("who".into()),
                features: CountOrNames::Count(2),
                classes: Some(CountOrNames::Names(vec!["no".into(), "yes".into()])),
                target: None,
                columns: BTreeMap::new(),
                standardize: Some(directory.join("statistics.json")),
            },
        );
        file.population.clients = 400;
        file.population.partition = PartitionFile::Column {};
        file.population.ledger = Some(directory.join("population.skep").display().to_string());
        file.rounds.sampling = SamplingFile::All {};
        file.rounds.min_updates = 1;
        file.secure_aggregation = None;
        file.privacy = PrivacyFile {
            mode: ModeFile::Central,
            unit: Some("client".into()),
            adjacency: Some("zero-out".into()),
            clip_norm: Some(1.0),
            noise_multiplier: Some(5.0),
            delta: Some(1e-5),
            epsilon_limit: Some(8.0),
        };
        Experiment::try_from(&file).unwrap()
    }

    fn bounds(column: &str, low: f64, high: f64) -> Bounds {
        Bounds { column: column.into(), low, high }
    }

    /// The noise on each mean of u is 2 · √2.75/400 ≈ 0.0083: of age, whose bounds are 100 apart, 0.41 years.
    #[test]
    fn columns_are_measured_within_their_bounds_and_the_budget_falls() {
        let directory = tempfile::tempdir().unwrap();
        let experiment = experiment(directory.path());
        let noise = NoiseMultiplier::new(2.0).unwrap();
        let declared = [bounds("heat", 30.0, 45.0), bounds("age", 0.0, 100.0)];
        let first = survey(&experiment, &Key::from_seed(1), &declared, noise).unwrap();
        let said = &first.standardization;
        assert_eq!(said.columns(), ["age", "heat"]);
        let close = |found: f32, expected: f32, within: f32| (found - expected).abs() < within;
        assert!(close(said.mean()[0], 50.0, 1.7) && close(said.deviation()[0], 10.0, 5.0), "{said:?}");
        assert!(close(said.mean()[1], 37.0, 0.25), "{said:?}");
        assert!((0.5..1.0).contains(&first.mean_within[0]), "{:?}", first.mean_within);
        assert_eq!(first.drowned, ["heat"], "it is always the same");
        let second = survey(&experiment, &Key::from_seed(2), &declared, noise).unwrap();
        assert!(first.epsilon > Epsilon::ZERO && second.epsilon > first.epsilon);

        let refused = |declared: &[Bounds]| {
            survey(&experiment, &Key::from_seed(1), declared, noise).unwrap_err().to_string()
        };
        assert!(refused(&declared[..1]).contains("for each of the columns"), "{}", refused(&declared[..1]));
        let upside_down = refused(&[bounds("age", 9.0, 3.0), bounds("heat", 0.0, 1.0)]);
        assert!(upside_down.contains("column `age`"), "{upside_down}");
        for (low, high) in [(-1e308, 1e308), (0.0, 1e40), (0.0, 1e-40), (f64::NAN, 1.0)] {
            let said = refused(&[bounds("age", low, high), bounds("heat", 0.0, 1.0)]);
            assert!(said.contains("column `age`"), "{said}");
        }
        let mut hiding = experiment.clone();
        if let Privacy::Central { terms, .. } = &mut hiding.privacy {
            terms.adjacency = Adjacency::AddOrRemove;
        }
        let told = survey(&hiding, &Key::from_seed(1), &declared, noise);
        assert!(matches!(told, Err(SurveyError::Adjacency)), "how many clients there are is told");
        let dear = survey(&experiment, &Key::from_seed(1), &declared, NoiseMultiplier::new(0.1).unwrap());
        assert!(matches!(dear, Err(SurveyError::Federation(_))), "the budget does not allow it");
    }

    /// Half of the clients have one heat of 38 and miss the other, the others miss both; ages and colours are always there.
    #[test]
    fn missing_numbers_are_in_no_mean_and_categories_are_not_asked_about() {
        let directory = tempfile::tempdir().unwrap();
        let mut experiment = experiment(directory.path());
        let heat = |client: u32| if client.is_multiple_of(2) { "38" } else { "" };
        let lines: String =
            (0..400).map(|n| format!("40,{},red,no,{n}\n60,,blue,yes,{n}\n", heat(n))).collect();
        std::fs::write(directory.path().join("table.csv"), format!("age,heat,colour,sick,who\n{lines}"))
            .unwrap();
        let Data::Table(table) = &mut experiment.data else { panic!("a table") };
        table.features = CountOrNames::Count(3);
        let categories = Some(vec!["red".to_owned(), "blue".to_owned()]);
        let missing = Some(Missing::Mean);
        table.columns = [
            ("heat".to_owned(), TableColumn { missing, ..TableColumn::default() }),
            ("colour".to_owned(), TableColumn { categories, ..TableColumn::default() }),
        ]
        .into();
        let noise = NoiseMultiplier::new(1.0).unwrap();
        let declared = [bounds("heat", 30.0, 45.0), bounds("age", 0.0, 100.0)];
        let found = survey(&experiment, &Key::from_seed(1), &declared, noise).unwrap();
        let said = &found.standardization;
        assert_eq!(said.columns(), ["age", "heat"]);
        assert!((said.mean()[0] - 50.0).abs() < 1.0, "{said:?}");
        // A quarter of all heats are there: the noise on their mean is four times as large.
        assert!((said.mean()[1] - 38.0).abs() < 0.7, "{said:?}");
        assert!(found.mean_within[1] > 3.0 * found.mean_within[0] * 15.0 / 100.0, "{:?}", found.mean_within);
    }

    /// With half of all examples missing, (p·u, p·(u² − ½), p/2) is no longer than p·√1.5.
    #[test]
    fn no_answer_is_longer_than_the_noise_is_planned_for() {
        let survey = Survey {
            columns: vec![
                Asked { name: "a".into(), at: 0, missing: Some(1) },
                Asked { name: "b".into(), at: 2, missing: None },
            ],
        };
        let declared = [bounds("a", 0.0, 1.0), bounds("b", 0.0, 1.0)];
        let directory = tempfile::tempdir().unwrap();
        let missing = Some(Filling::Value(0.0));
        let layout = Layout {
            format: Format::Csv,
            answer: Answer::Class { column: "label".into(), classes: Classes::Numbers(2) },
            client: None,
            features: None,
            declared: [("a".into(), Declared { kind: Kind::Number, missing, indicator: true })].into(),
        };
        for missing in [0.0, 1.0] {
            for (a, b) in [(0.0, 1.0), (9.0, -9.0), (0.5, 0.5_f64)] {
                let first = format!("{a},{b},0");
                let second = if missing == 0.0 { first.clone() } else { format!(",{b},0") };
                let path = directory.path().join("table.csv");
                std::fs::write(
                    &path,
                    format!(
                        "a,b,label
{first}
{second}
"
                    ),
                )
                .unwrap();
                let data = read(&path, &layout).unwrap().dataset;
                let answer = survey.stated(&Subset::all(std::sync::Arc::new(data)), &declared);
                assert_eq!(answer.len(), survey.dimension());
                let length = answer.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                assert!(length <= survey.longest() + 1e-9, "{answer:?}");
                // At a bound, with nothing missing, it is as long.
                if missing == 0.0 && a != 0.5 {
                    assert!((length - survey.longest()).abs() < 1e-6, "{answer:?}");
                }
            }
        }
    }
}
