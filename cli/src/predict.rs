//! `skep predict`: what a model says of examples.

use std::io::{self, BufWriter, ErrorKind, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use skep_learning::{Interface, Prediction, Predictor, Unlabelled};

use crate::arguments::{Predict, Predicted};
use crate::failure::Failure;
use crate::model;

/// Runs `skep predict`.
///
/// # Errors
/// [`Failure::Usage`] when the model or an example cannot be used; what stands before that example has been answered.
pub(crate) fn run(arguments: &Predict) -> Result<(), Failure> {
    let model = model::load(&arguments.model)?;
    let interface = model.interface();
    let mut predictor = Predictor::new(model).map_err(Failure::configuration)?;
    let inputs = predictor.inputs();
    let mut examples = Unlabelled::open(&arguments.input, &interface, inputs, arguments.features.as_deref())
        .map_err(Failure::configuration)?;
    let mut answers = Answers::new(arguments.output, &interface)?;
    let mut numbers = Vec::new();
    let mut answered = 0;
    loop {
        let next = examples.next_example();
        let ends = !matches!(next, Ok(Some(_)));
        if let Ok(Some(example)) = &next {
            numbers.extend_from_slice(example);
        }
        if ends || numbers.len() >= AT_ONCE * inputs {
            let rows = numbers.len() / inputs;
            let predictions = predictor.predict(std::mem::take(&mut numbers)).map_err(|error| {
                let (path, last) = (examples.path().display(), answered + rows);
                Failure::configuration(format!("{path}, examples {} to {last}: {error}", answered + 1))
            })?;
            answered += rows;
            if !answers.write(&predictions)? {
                return Ok(());
            }
        }
        match next {
            Ok(Some(_)) => {}
            Ok(None) => return answers.finish(),
            Err(error) => {
                answers.finish()?;
                return Err(Failure::configuration(error));
            }
        }
    }
}

/// Examples that are answered together.
const AT_ONCE: usize = 64;

/// Where predictions are printed.
struct Answers<'a> {
    output: Predicted,
    interface: &'a Interface,
    out: BufWriter<io::StdoutLock<'static>>,
}

impl<'a> Answers<'a> {
    fn new(output: Predicted, interface: &'a Interface) -> Result<Self, Failure> {
        let mut answers = Answers { output, interface, out: BufWriter::new(io::stdout().lock()) };
        if output == Predicted::Csv {
            let header: Vec<_> = match &interface.target {
                Some(target) => vec![quoted(&target.column)],
                None => {
                    let columns =
                        interface.classes.iter().map(|class| quoted(&format!("probability_{class}")));
                    ["class".to_owned()].into_iter().chain(columns).collect()
                }
            };
            writeln!(answers.out, "{}", header.join(",")).map_err(Failure::other)?;
        }
        Ok(answers)
    }

    /// Prints; `false` if nobody reads any more.
    fn write(&mut self, predictions: &[Prediction]) -> Result<bool, Failure> {
        let mut write = || {
            for prediction in predictions {
                let answer = Answer { interface: self.interface, prediction };
                match self.output {
                    Predicted::Jsonl => serde_json::to_writer(&mut self.out, &answer)?,
                    Predicted::Csv => answer.csv(&mut self.out)?,
                }
                self.out.write_all(b"\n")?;
            }
            self.out.flush()
        };
        match write() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            written => {
                written.map(|()| true).map_err(|error| Failure::other(format!("standard output: {error}")))
            }
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.write(&[]).map(|_| ())
    }
}

/// A prediction as it is printed and served: `{"class": NAME, "probabilities": {NAME: 0.7, ...}}`, classes in their order, or
/// `{"number": 12.5}`.
pub(crate) struct Answer<'a> {
    pub(crate) interface: &'a Interface,
    pub(crate) prediction: &'a Prediction,
}

impl Answer<'_> {
    fn csv(&self, out: &mut impl Write) -> io::Result<()> {
        match self.prediction {
            Prediction::Number(number) => write!(out, "{number}"),
            Prediction::Class { class, probabilities } => {
                write!(out, "{}", quoted(&self.interface.classes[*class]))?;
                probabilities.iter().try_for_each(|probability| write!(out, ",{probability}"))
            }
        }
    }
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.prediction {
            Prediction::Number(number) => map.serialize_entry("number", number)?,
            Prediction::Class { class, probabilities } => {
                let classes = &self.interface.classes;
                map.serialize_entry("class", &classes[*class])?;
                map.serialize_entry("probabilities", &Probabilities { classes, probabilities })?;
            }
        }
        map.end()
    }
}

struct Probabilities<'a> {
    classes: &'a [String],
    probabilities: &'a [f32],
}

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.classes.iter().zip(self.probabilities))
    }
}

/// A value of a CSV file (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
