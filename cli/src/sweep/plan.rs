//! The runs of a sweep: every combination of what is listed, or so many drawn at random.

use std::path::{Path, PathBuf};

use skep_privacy::prg::{Key, Prg, Purpose};
use skep_protocol::experiment::Experiment;
use toml::{Table, Value};

use crate::experiment_file;
use crate::failure::Failure;

/// One run of a sweep.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    /// Its number, from 1.
    pub(super) number: usize,
    /// What it has of its own: keys and values.
    pub(super) values: Vec<(String, Value)>,
    /// The whole of it.
    pub(super) experiment: Experiment,
}

/// Where the values of a key come from.
#[derive(Clone, Debug, PartialEq)]
enum Source {
    OneOf(Vec<Value>),
    Uniform(f64, f64),
    LogUniform(f64, f64),
}

/// Reads the sweep in the experiment file at `path`.
///
/// # Errors
/// [`Failure`]: when there is none, when it makes no sense, or when one of its runs does not.
pub(super) fn read(path: &Path, data_dir: Option<&Path>) -> Result<Vec<Planned>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, error))?;
    let mut table: Table = toml::from_str(&text)
        .map_err(|error| wrong(path, format!("this is not TOML: {}", error.message())))?;
    let Some(Value::Table(mut sweep)) = table.remove("sweep") else {
        return Err(wrong(path, "there is no [sweep] in it".to_owned()));
    };
    let random = sweep.remove("random");
    let mut sources = Vec::new();
    flatten(&sweep, "", &mut sources).map_err(|problem| wrong(path, problem))?;
    if sources.is_empty() {
        return Err(wrong(path, "[sweep] names no key".to_owned()));
    }
    let combinations = match random {
        None => grid(&sources).map_err(|problem| wrong(path, problem))?,
        Some(random) => {
            let (runs, seed) = drawing(&random).map_err(|problem| wrong(path, problem))?;
            draw(&sources, runs, seed)
        }
    };
    let mut runs = Vec::new();
    for (combination, number) in combinations.into_iter().zip(1..) {
        let values: Vec<_> =
            sources.iter().map(|(key, _)| key.clone()).zip(combination).collect::<Vec<(String, Value)>>();
        let mut table = table.clone();
        for (key, value) in &values {
            set(&mut table, key, value.clone()).map_err(|problem| wrong(path, problem))?;
        }
        let name = format!("run {number} of {}, with {}", path.display(), told(&values));
        let text = toml::to_string(&table).map_err(Failure::other)?;
        let experiment = experiment_file::parse_beside(&name, &text, path, data_dir)?;
        runs.push(Planned { number, values, experiment });
    }
    Ok(runs)
}

/// Keys and values in words.
pub(super) fn told(values: &[(String, Value)]) -> String {
    values.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
}

fn wrong(path: &Path, problem: String) -> Failure {
    Failure::Usage {
        problem: format!("{}: {problem}", path.display()),
        help: Some(
            "[sweep] lists values by key, as in `task.training.learning_rate = [0.1, 1.0]`; with `random = { runs = 20, seed = 1 }` \
             also `{ uniform = [0.1, 1.0] }` and `{ log-uniform = [0.01, 1.0] }`"
                .to_owned(),
        ),
    }
}

/// All keys in a table of tables, with dots.
fn flatten(table: &Table, prefix: &str, sources: &mut Vec<(String, Source)>) -> Result<(), String> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Array(values) if values.is_empty() => return Err(format!("sweep.{key} lists no value")),
            Value::Array(values) => sources.push((key, Source::OneOf(values.clone()))),
            Value::Table(inner) => match range(inner) {
                Some(source) => {
                    sources.push((key.clone(), source.map_err(|problem| format!("sweep.{key} {problem}"))?))
                }
                None => flatten(inner, &key, sources)?,
            },
            other => return Err(format!("sweep.{key} is {other}, but must list values: [{other}]")),
        }
    }
    Ok(())
}

/// A range to draw from, where a table is one.
fn range(table: &Table) -> Option<Result<Source, String>> {
    let (kind, value) = table.iter().next().filter(|_| table.len() == 1)?;
    if kind != "uniform" && kind != "log-uniform" {
        return None;
    }
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|value| value as f64));
    let ends = value.as_array().map(|ends| ends.iter().map(number).collect::<Option<Vec<f64>>>());
    Some(match ends {
        Some(Some(ends)) => match (kind.as_str(), ends.as_slice()) {
            ("uniform", &[low, high]) if low < high => Ok(Source::Uniform(low, high)),
            ("log-uniform", &[low, high]) if 0.0 < low && low < high => Ok(Source::LogUniform(low, high)),
            _ => Err(format!("has a {kind} range that does not go up from one number to another")),
        },
        _ => Err(format!("has a {kind} range that is not two numbers")),
    })
}

/// How many runs are drawn, and from which seed.
fn drawing(random: &Value) -> Result<(usize, u64), String> {
    let table = random.as_table().ok_or("sweep.random must be { runs = NUMBER, seed = NUMBER }")?;
    if let Some(unknown) = table.keys().find(|key| *key != "runs" && *key != "seed") {
        return Err(format!("sweep.random has `{unknown}`, but only runs and seed"));
    }
    let number = |key: &str| {
        let value = table.get(key).and_then(Value::as_integer).and_then(|value| u64::try_from(value).ok());
        value.ok_or_else(|| format!("sweep.random.{key} must be a whole number"))
    };
    match number("runs")? {
        runs @ 1..=MOST => Ok((runs as usize, number("seed")?)),
        runs => Err(format!("sweep.random.runs is {runs}, but must be 1 to {MOST}")),
    }
}

/// Every combination, the last key changing fastest.
fn grid(sources: &[(String, Source)]) -> Result<Vec<Vec<Value>>, String> {
    let mut combinations = vec![Vec::new()];
    for (key, source) in sources {
        let Source::OneOf(values) = source else {
            return Err(format!(
                "sweep.{key} is a range, from which values are drawn with `random = {{ runs = 20, seed = 1 }}`"
            ));
        };
        if combinations.len() as u64 * values.len() as u64 > MOST {
            return Err(format!("[sweep] has more than {MOST} combinations: draw some with `random`"));
        }
        combinations = combinations
            .iter()
            .flat_map(|before| {
                values.iter().map(move |value| [&before[..], std::slice::from_ref(value)].concat())
            })
            .collect();
    }
    Ok(combinations)
}

/// Each run is a function of the seed and its number: more runs do not change those before.
fn draw(sources: &[(String, Source)], runs: usize, seed: u64) -> Vec<Vec<Value>> {
    let key = Key::from_seed(seed);
    let run = |run: u64| {
        let mut prg = key.derive(Purpose::Data, run, 0).stream();
        sources.iter().map(|(_, source)| source.draw(&mut prg)).collect()
    };
    (1..=runs as u64).map(run).collect()
}

impl Source {
    fn draw(&self, prg: &mut Prg) -> Value {
        let part = (prg.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        match self {
            Source::OneOf(values) => values[(part * values.len() as f64) as usize].clone(),
            Source::Uniform(low, high) => Value::Float(short(low + part * (high - low))),
            Source::LogUniform(low, high) => Value::Float(short(low * (high / low).powf(part))),
        }
    }
}

/// Four digits: enough to vary, and short enough to read.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) => set(inner, rest, value)?,
                _ => return Err(format!("sweep: `{first}` is no table, so it has no `{rest}`")),
            }
        }
    }
    Ok(())
}

/// The file of a run's own experiment.
pub(super) fn file(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("{number:04}.toml"))
}

/// Runs of a sweep, at most.
const MOST: u64 = 9999;

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(sweep: &str) -> Result<Vec<Planned>, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        std::fs::write(&path, format!("{}\n{sweep}", experiment_file::BUILT_IN)).unwrap();
        read(&path, None)
    }

    #[test]
    fn a_grid_has_every_combination() {
        let runs =
            planned("[sweep]\ntask.training.learning_rate = [0.5, 1]\n\"rounds.count\" = [3, 4, 5]").unwrap();
        let pairs: Vec<_> = runs
            .iter()
            .map(|run| (run.experiment.task.training.learning_rate, run.experiment.rounds.count))
            .collect();
        assert_eq!(pairs.len(), 6);
        assert!(pairs.contains(&(0.5, 3)) && pairs.contains(&(1.0, 5)), "{pairs:?}");
    }

    #[test]
    fn a_draw_follows_from_its_seed_and_stays_in_its_range() {
        let sweep = |runs, seed| {
            planned(&format!(
                "[sweep]\nrandom = {{ runs = {runs}, seed = {seed} }}\ntask.training.learning_rate = {{ log-uniform = [0.01, 10.0] }}"
            ))
            .unwrap()
            .iter()
            .map(|run| run.experiment.task.training.learning_rate)
            .collect::<Vec<_>>()
        };
        let rates = sweep(40, 1);
        assert!(rates.iter().all(|rate| (0.01..=10.0).contains(rate)), "{rates:?}");
        assert!(rates.iter().any(|rate| *rate < 0.1) && rates.iter().any(|rate| *rate > 1.0));
        assert_eq!(rates[..5], sweep(5, 1));
        assert_ne!(rates[..5], sweep(5, 2));
    }

    #[test]
    fn a_sweep_that_makes_no_sense_is_refused() {
        for (sweep, what) in [
            ("", "there is no [sweep]"),
            ("[sweep]", "names no key"),
            ("[sweep]\nseed = []", "sweep.seed lists no value"),
            ("[sweep]\nseed = 3", "must list values"),
            ("[sweep]\nrounds.count = { uniform = [1, 2] }", "is a range"),
            ("[sweep]\nrandom = { runs = 0, seed = 1 }\nseed = [1]", "runs is 0"),
            ("[sweep]\nrandom = { runs = 2 }\nseed = [1]", "seed must be"),
            ("[sweep]\nname.x = [1]", "`name` is no table"),
            ("[sweep]\nseed = { log-uniform = [0, 1] }", "does not go up"),
        ] {
            let error = planned(sweep).unwrap_err().to_string();
            assert!(error.contains(what), "{sweep}: {error}");
        }
        let error = planned("[sweep]\nrounds.count = [3, 0]").unwrap_err().to_string();
        assert!(error.contains("rounds.count is 0"), "{error}");
        let error = planned("[sweep]\nrounds.cuont = [3]").unwrap_err().to_string();
        assert!(error.contains("cuont"), "{error}");
    }
}
