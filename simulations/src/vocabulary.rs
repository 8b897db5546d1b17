//! A vocabulary that clients choose together, while nobody's texts leave their client.
//!
//! Every client votes for the candidates that it uses most. The sum of the votes is released with Gaussian noise, paid for
//! by a query on the ledger that training is charged to, and candidates with enough votes make the vocabulary. Candidates are
//! public: which words there are at all is told by no client.

use std::path::Path;

use skep_learning::Subset;
use skep_learning::text::{TextFault, Vocabulary};
use skep_privacy::adversary::Adversary;
use skep_privacy::ledger::Occasion;
use skep_privacy::prg::Key;
use skep_privacy::quantities::{Adjacency, ClipNorm, Epsilon, NoiseMultiplier, QuantityError, Sampling};
use skep_protocol::experiment::{self, Data, Experiment, TextFeatures, Tokenizer};
use skep_server::federation::Question;
use skep_server::ledger::Place;
use thiserror::Error;

use crate::data::{DataError, data};
use crate::error::SimulationError;
use crate::population::shares;
use crate::query::ask;
use crate::simulate::federation;

/// How a vocabulary is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Election<'a> {
    /// A public file with a candidate on each line.
    pub candidates: &'a Path,
    /// Candidates that one client votes for at most, at least 1. The sensitivity of the sum is the root of it.
    pub votes: u32,
    /// The standard deviation of the noise divided by that sensitivity.
    pub noise_multiplier: NoiseMultiplier,
    /// Words in the vocabulary at most, at least 1.
    pub size: usize,
}

/// What came of it; public.
#[derive(Debug)]
pub struct Elected {
    /// The words, by falling noisy votes.
    pub vocabulary: Vocabulary,
    /// The noisy votes that a word needed: three standard deviations of the noise.
    pub least_votes: f64,
    /// What all queries and rounds on the ledger cost so far, against recipients of models.
    pub epsilon: Epsilon,
}

/// Why there is no vocabulary.
#[derive(Debug, Error)]
pub enum ElectionError {
    /// Only texts have words.
    #[error("task.data: only data of kind \"text\" have a vocabulary")]
    NoTexts,
    /// There is nothing to choose.
    #[error(
        "task.data.tokenizer: a tokenizer from a file has its own vocabulary; clients can choose one for \"characters\", \"words\" \
         and \"jieba\""
    )]
    OwnVocabulary,
    /// Nothing hides a client.
    #[error(
        "privacy: a vocabulary is chosen in private only, in a mode that hides whole clients: \"central\", \"distributed\" or \"local\""
    )]
    Mode,
    /// How many clients answer is exact, and so tells of each whether it is there.
    #[error(
        "privacy.adjacency must be \"zero-out\": the vocabulary is asked of all clients, and how many they are is written down as it is, which \
         \"add-or-remove\" is to hide"
    )]
    Adjacency,
    /// Nobody could find the charge again.
    #[error(
        "population.ledger is missing: name the file to which the vocabulary and the training are both charged"
    )]
    NoLedger,
    /// No votes, or no words.
    #[error("at least one vote and one word are needed")]
    Nothing,
    /// A number is out of range.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// The texts cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// No candidate has enough votes.
    #[error(
        "no candidate has {least_votes:.1} noisy votes, three standard deviations of the noise; the query is charged all the same. \
         More clients, fewer votes for each or less noise would tell words from noise"
    )]
    NoWords {
        /// What a word needed.
        least_votes: f64,
    },
    /// The ledger or the budget does not allow it, or another step failed.
    #[error(transparent)]
    Federation(Box<SimulationError>),
}

impl From<SimulationError> for ElectionError {
    fn from(error: SimulationError) -> Self {
        ElectionError::Federation(Box::new(error))
    }
}

/// Lets the clients of a simulated population choose the vocabulary of their experiment. Before anybody is asked it is
/// charged to the experiment's ledger, which must be a file.
///
/// # Errors
/// [`ElectionError`]. Once the query is charged it stays charged.
pub fn elect_vocabulary(
    experiment: &Experiment,
    root: &Key,
    election: Election<'_>,
) -> Result<Elected, ElectionError> {
    let Data::Text(texts) = &experiment.data else { return Err(ElectionError::NoTexts) };
    if let Tokenizer::File(_) = texts.tokenizer {
        return Err(ElectionError::OwnVocabulary);
    }
    let terms = experiment.privacy.terms().ok_or(ElectionError::Mode)?;
    if terms.adjacency != Adjacency::ZeroOut {
        return Err(ElectionError::Adjacency);
    }
    let ledger = experiment.population.ledger.as_ref().ok_or(ElectionError::NoLedger)?;
    if election.votes == 0 || election.size == 0 {
        return Err(ElectionError::Nothing);
    }
    let candidates = Vocabulary::read(election.candidates).map_err(|error| DataError::Text(error.into()))?;
    let mut asked = experiment.clone();
    let mut texts = texts.clone();
    texts.vocabulary = Some(experiment::Vocabulary::File(election.candidates.to_owned()));
    (texts.features, texts.vectors) = (TextFeatures::Words, None);
    asked.data = Data::Text(texts);
    let train = data(&asked)?.train;
    let clients = shares(&asked, &train).map_err(SimulationError::from)?;

    let clip = ClipNorm::new(f64::from(election.votes).sqrt())?;
    // Nobody is asked about the model, nor sees it.
    let model = vec![0.0; experiment.task.parameter_count().unwrap_or_default() as usize];
    let mut federation = federation(experiment, model, root, &Place::Shared(ledger.into()), false)?;
    let question = Question {
        occasion: Occasion::Vocabulary,
        dimension: candidates.len(),
        clip_norm: clip,
        noise_multiplier: election.noise_multiplier,
        sampling: Sampling::All,
    };
    let votes = ask(&mut federation, root, &question, 0, |client| match clients.get(client.0 as usize) {
        Some(texts) => ballot(texts, candidates.len(), election.votes as usize),
        None => vec![0.0; candidates.len()],
    })?;

    let least_votes = DEVIATIONS * votes.deviation;
    let mut counted: Vec<(f64, &String)> = votes.sum.into_iter().zip(candidates.words()).collect();
    counted.retain(|(votes, _)| *votes >= least_votes);
    counted.sort_by(|(one, first), (other, second)| other.total_cmp(one).then(first.cmp(second)));
    let words = counted.into_iter().take(election.size).map(|(_, word)| word.clone()).collect();
    let vocabulary = match Vocabulary::new(words) {
        Ok(vocabulary) => vocabulary,
        Err(TextFault::NoWords) => return Err(ElectionError::NoWords { least_votes }),
        Err(_) => return Err(SimulationError::OutOfStep("a candidate was elected twice").into()),
    };
    let epsilon = federation.epsilon(Adversary::Recipients);
    let epsilon = epsilon.map_err(|_| SimulationError::OutOfStep("mode central promises nothing"))?;
    Ok(Elected { vocabulary, least_votes, epsilon })
}

/// One for each of the `votes` words that stand most often in a client's texts, the first of equals; zero for the others.
fn ballot(texts: &Subset, candidates: usize, votes: usize) -> Vec<f32> {
    let mut counts = vec![0_u32; candidates];
    let features = texts.dataset().features();
    for &row in texts.rows() {
        features.row(row).iter().filter(|word| **word >= 0.0).for_each(|&word| counts[word as usize] += 1);
    }
    let mut used: Vec<usize> = (0..candidates).filter(|&word| counts[word] > 0).collect();
    used.sort_by_key(|&word| std::cmp::Reverse(counts[word]));
    let mut ballot = vec![0.0; candidates];
    used.into_iter().take(votes).for_each(|word| ballot[word] = 1.0);
    ballot
}

/// Noise alone exceeds this with a probability of 0.13 %.
const DEVIATIONS: f64 = 3.0;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use skep_protocol::Digest;
    use skep_protocol::experiment::file::{
        DataFile, Layer, ModeFile, ModelFile, PartitionFile, PrivacyFile, SamplingFile, TextFile,
    };
    use skep_protocol::experiment::{CountOrNames, Privacy, TextColumn, TextFormat, Tuning};

    use skep_client::task::architecture;
    use skep_client::weights::coordinates;

    use super::*;
    use crate::testing::file;

    /// 200 clients with two texts each; everybody uses `sun` and `sea`, one client uses `secret`.
    fn experiment(directory: &Path) -> Experiment {
        let mut text = "text,kind,who\n".to_owned();
        for client in 0..200 {
            let rare = if client == 7 { "secret secret" } else { "sun" };
            text += &format!("the sun {rare},a,{client}\nthe sea sea,b,{client}\n");
        }
        let write = |name: &str, text: &str| -> PathBuf {
            std::fs::write(directory.join(name), text).unwrap();
            directory.join(name)
        };
        let mut file = file();
        let texts = write("texts.csv", &text);
        write("candidates.txt", "moon\nsea\nsecret\nsun\nstar\n");
        file.task.data = DataFile::Text(TextFile {
            train: Some(texts.clone()),
            test: Some(texts),
            hold_out_every: None,
            format: TextFormat::Csv,
            text: Some(TextColumn::Name("text".into())),
            label: Some(TextColumn::Name("kind".into())),
            client: Some(TextColumn::Name("who".into())),
            classes: CountOrNames::Names(vec!["a".into(), "b".into()]),
            tokenizer: Tokenizer::Words,
            lowercase: false,
            stop_words: None,
            vocabulary: Some(experiment::Vocabulary::File(directory.join("words.txt"))),
            length: 8,
            vectors: None,
            features: TextFeatures::Words,
        });
        let bag = Layer::EmbeddingBag { vocabulary: 4, width: 2 };
        file.task.model = ModelFile::Layers { image: None, layers: vec![bag] };
        file.population.clients = 200;
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

    fn elect(experiment: &Experiment, directory: &Path, noise: f64) -> Result<Elected, ElectionError> {
        let candidates = directory.join("candidates.txt");
        let noise_multiplier = NoiseMultiplier::new(noise).unwrap();
        let election = Election { candidates: &candidates, votes: 2, noise_multiplier, size: 4 };
        elect_vocabulary(experiment, &Key::from_seed(1), election)
    }

    /// Votes of 199 and more against noise of 8 √2 ≈ 11.3; 34 are needed, so that one vote passes with probability 0.2 %: the
    /// keys are fixed, and so is what comes of them.
    #[test]
    fn common_words_are_elected_rare_ones_are_not_and_the_budget_falls() {
        let directory = tempfile::tempdir().unwrap();
        let experiment = experiment(directory.path());
        let first = elect(&experiment, directory.path(), 8.0).unwrap();
        let mut words = first.vocabulary.words().to_vec();
        words.sort();
        assert_eq!(words, ["sea", "sun"]);
        assert!(first.epsilon > Epsilon::ZERO);
        let second = elect(&experiment, directory.path(), 8.0).unwrap();
        assert!(second.epsilon > first.epsilon, "{:?} {:?}", first.epsilon, second.epsilon);
        // Training is charged to the same ledger.
        let place = Place::Shared(experiment.population.ledger.clone().unwrap().into());
        let model = architecture(&experiment.task).initial_parameters([0; 32]).unwrap();
        let training = federation(&experiment, model, &Key::from_seed(1), &place, false).unwrap();
        assert_eq!(training.epsilon(Adversary::Recipients).unwrap(), second.epsilon);
    }

    #[test]
    fn where_a_part_of_the_model_is_trained_a_vocabulary_is_elected_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let mut experiment = experiment(directory.path());
        let (frozen, weights) = (vec!["*".to_owned(), "!output.*".to_owned()], Digest([0; 32]));
        let mut tuning = Tuning { weights, parameters: 1, frozen, lora: None };
        experiment.task.tuning = Some(Box::new(tuning.clone()));
        tuning.parameters = coordinates(&experiment.task).unwrap().unwrap().len() as u64;
        experiment.task.tuning = Some(Box::new(tuning));
        assert!(elect(&experiment, directory.path(), 8.0).is_ok());
        if let Privacy::Central { terms, .. } = &mut experiment.privacy {
            terms.adjacency = Adjacency::AddOrRemove;
        }
        let told = elect(&experiment, directory.path(), 8.0);
        assert!(matches!(told, Err(ElectionError::Adjacency)), "how many clients there are is told");
    }

    #[test]
    fn what_the_budget_does_not_allow_is_not_asked() {
        let directory = tempfile::tempdir().unwrap();
        let experiment = experiment(directory.path());
        let refused = elect(&experiment, directory.path(), 0.1).unwrap_err();
        assert!(matches!(refused, ElectionError::Federation(_)), "{refused}");
        let without = Experiment {
            population: skep_protocol::experiment::Population {
                ledger: None,
                ..experiment.population.clone()
            },
            ..experiment
        };
        assert!(matches!(elect(&without, directory.path(), 8.0), Err(ElectionError::NoLedger)));
    }
}
