//! What a model is fed with and what its answers mean: what somebody who has nothing but the model file needs to
//! use it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::pixels::BRIGHTEST;
use crate::table::{CellFault, ColumnFault, Encoder};
use crate::text::Preparation;
use crate::{Architecture, Loss, Scaling, ScalingError, Standardization, Target, TargetFault};

/// How an example becomes the numbers that a model takes, and what its answers mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// What an example is before anything is done to it.
    pub input: Input,
    /// What is done to all numbers of an example last, before the model sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardization: Option<Standardization>,
    /// The names of the classes, in the order of their numbers; none where a number is predicted.
    pub classes: Vec<String>,
    /// The number that is predicted, where it is no class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// What an example is, as it stands in files and requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Input {
    /// Numbers, each of which is divided by the same one.
    Numbers {
        /// What the numbers are called, in their order; none where only their order is known, as of pixels.
        columns: Option<Vec<String>>,
        /// What each number is divided by before the model sees it: 255 for bytes, 1 for numbers that are taken as
        /// they are. Finite and above 0.
        divisor: f32,
    },
    /// An image: bytes, channels last, each of which is divided by 255, shifted and divided.
    Image {
        /// Rows of pixels.
        height: usize,
        /// Pixels in a row.
        width: usize,
        /// Numbers in a pixel: 1 for grey, 3 for colour.
        channels: usize,
        /// What is subtracted, of each channel, after the division by 255.
        mean: Vec<f32>,
        /// What the rest is divided by, of each channel.
        deviation: Vec<f32>,
    },
    /// A row of a table.
    Table {
        /// Its columns, and so the numbers that it becomes.
        columns: Encoder,
    },
    /// A text.
    Text {
        /// How it becomes numbers.
        preparation: Preparation,
    },
}

/// Why an interface is not that of a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterfaceError {
    /// It names another number of classes.
    #[error("the interface names {named} classes, the architecture has {classes}")]
    Classes {
        /// Classes of the architecture.
        classes: usize,
        /// Names in the interface.
        named: usize,
    },
    /// It says of no number what it is, or of one that is not predicted.
    #[error(
        "the interface must name classes, or the number that the architecture predicts in place of classes"
    )]
    Answer,
    /// The number cannot be scaled so.
    #[error("the interface scales numbers wrongly: {0}")]
    Target(#[from] TargetFault),
    /// It names another number of columns.
    #[error("the interface names {named} columns, the architecture takes {inputs} numbers")]
    Columns {
        /// Numbers that the architecture takes.
        inputs: usize,
        /// Names in the interface.
        named: usize,
    },
    /// A column of a table makes no sense.
    #[error("the interface encodes a table wrongly: {0}")]
    Table(#[from] ColumnFault),
    /// Texts become another number of numbers.
    #[error("the interface makes {made} numbers of a text, the architecture takes {inputs}")]
    Text {
        /// Numbers that the architecture takes.
        inputs: usize,
        /// Numbers that a text becomes.
        made: usize,
    },
    /// It standardizes another number of columns.
    #[error("the interface standardizes {standardized} numbers, the architecture takes {inputs}")]
    Standardization {
        /// Numbers that the architecture takes.
        inputs: usize,
        /// Numbers that are standardized.
        standardized: usize,
    },
    /// Images of another size, or more than 1024 pixels wide or high, or neither grey nor in colour.
    #[error(
        "the interface is about images of {height} x {width} x {channels}, the architecture takes {inputs} numbers"
    )]
    Image {
        /// Numbers that the architecture takes.
        inputs: usize,
        /// Rows of pixels.
        height: usize,
        /// Pixels in a row.
        width: usize,
        /// Numbers in a pixel.
        channels: usize,
    },
    /// Images cannot be scaled by that.
    #[error("the interface scales images wrongly: {0}")]
    Scaling(#[from] ScalingError),
    /// Numbers cannot be divided by that.
    #[error("the interface divides numbers by what is not finite and above 0")]
    Divisor,
}

/// Why a JSON value is not an example.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExampleError {
    /// It is neither a list nor an object.
    #[error("an example is a list of numbers or an object with a number for each column")]
    Kind,
    /// It is no text, and the model takes texts.
    #[error("an example is a text, or an object with a text called `text`")]
    NotAText,
    /// It is an object, and the model's numbers have no names.
    #[error("this model's numbers have no names: give them as a list, in their order")]
    Unnamed,
    /// It has another number of numbers.
    #[error("has {actual} numbers, the model takes {expected}")]
    Count {
        /// Numbers that the model takes.
        expected: usize,
        /// Numbers given.
        actual: usize,
    },
    /// It has another number of values than the table has columns.
    #[error("has {actual} values, the model's table has {expected} columns")]
    Cells {
        /// Columns of the table.
        expected: usize,
        /// Values given.
        actual: usize,
    },
    /// A value is not what its column holds.
    #[error("column `{column}`: {fault}")]
    Cell {
        /// The column.
        column: String,
        /// What is wrong with the value.
        fault: CellFault,
    },
    /// A column is missing.
    #[error("column `{0}` is missing")]
    Missing(String),
    /// Something is not a finite number that `f32` can hold.
    #[error("{place}: {value} is not a finite number")]
    NotANumber {
        /// The column, or the place in the list.
        place: String,
        /// What stands there, shortened.
        value: String,
    },
    /// Lists inside lists beyond the dimensions of an image.
    #[error("lists are nested deeper than the rows, pixels and channels of an image")]
    Nested,
}

impl Interface {
    /// Classes called by their numbers and `inputs` numbers without names, taken as they are: all that an architecture
    /// alone tells.
    pub fn of(architecture: &Architecture) -> Self {
        let input = Input::Numbers { columns: None, divisor: 1.0 };
        let (classes, target) = match architecture.predicts_number() {
            false => ((0..architecture.classes()).map(|class| class.to_string()).collect(), None),
            true => {
                let column = "number".to_owned();
                let target = Target { column, shift: 0.0, scale: 1.0, bounds: None, loss: Loss::Squared };
                (vec![], Some(target))
            }
        };
        Interface { input, standardization: None, classes, target }
    }

    /// Refuses what is not the interface of a model of `architecture`.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn check(&self, architecture: &Architecture) -> Result<(), InterfaceError> {
        let (classes, named) = (architecture.classes(), self.classes.len());
        match &self.target {
            Some(target) if architecture.predicts_number() && named == 0 => target.check()?,
            None if !architecture.predicts_number() && classes == named => {}
            None if !architecture.predicts_number() => {
                return Err(InterfaceError::Classes { classes, named });
            }
            _ => return Err(InterfaceError::Answer),
        }
        let inputs = architecture.inputs();
        let standardized = self.standardization.as_ref().map(|standardized| standardized.columns().len());
        if let Some(standardized) = standardized.filter(|&standardized| standardized != inputs) {
            return Err(InterfaceError::Standardization { inputs, standardized });
        }
        match &self.input {
            Input::Numbers { columns: Some(columns), .. } if columns.len() != inputs => {
                Err(InterfaceError::Columns { inputs, named: columns.len() })
            }
            Input::Numbers { divisor, .. } if !(divisor.is_finite() && *divisor > 0.0) => {
                Err(InterfaceError::Divisor)
            }
            Input::Table { columns } if columns.width() != inputs => {
                Err(InterfaceError::Columns { inputs, named: columns.width() })
            }
            Input::Table { columns } => Ok(columns.check()?),
            Input::Text { preparation } if preparation.features() != inputs => {
                Err(InterfaceError::Text { inputs, made: preparation.features() })
            }
            Input::Image { height, width, channels, mean, deviation } => {
                let (height, width, channels) = (*height, *width, *channels);
                let fits = height <= MAX_SIDE && width <= MAX_SIDE && [1, 3].contains(&channels);
                if !fits || height * width * channels != inputs {
                    return Err(InterfaceError::Image { inputs, height, width, channels });
                }
                let (means, deviations) = (mean.len(), deviation.len());
                if means != channels {
                    return Err(ScalingError::Channels { means, deviations }.into());
                }
                Ok(Scaling::new(mean, deviation).map(drop)?)
            }
            Input::Numbers { .. } | Input::Text { .. } => Ok(()),
        }
    }

    /// The names of the numbers, if they have any.
    pub fn columns(&self) -> Option<&[String]> {
        match &self.input {
            Input::Numbers { columns, .. } => columns.as_deref(),
            Input::Table { .. } | Input::Text { .. } | Input::Image { .. } => None,
        }
    }

    /// The columns of a table and what they become, if the model takes rows of one.
    pub fn table(&self) -> Option<&Encoder> {
        match &self.input {
            Input::Table { columns } => Some(columns),
            _ => None,
        }
    }

    /// The numbers that a text becomes, if the model takes texts.
    pub fn text(&self, text: &str) -> Option<Vec<f32>> {
        match &self.input {
            Input::Numbers { .. } | Input::Table { .. } | Input::Image { .. } => None,
            Input::Text { preparation } => Some(preparation.prepare(text)),
        }
    }

    /// Makes the numbers of examples those that the model takes.
    pub(crate) fn prepare(&self, numbers: &mut [f32]) {
        match &self.input {
            Input::Numbers { divisor, .. } => numbers.iter_mut().for_each(|number| *number /= divisor),
            Input::Image { mean, deviation, .. } => {
                for pixel in numbers.chunks_exact_mut(mean.len()) {
                    for ((number, mean), deviation) in pixel.iter_mut().zip(mean).zip(deviation) {
                        *number = (*number / BRIGHTEST - mean) / deviation;
                    }
                }
            }
            Input::Table { .. } | Input::Text { .. } => {}
        }
        if let Some(standardization) = &self.standardization {
            standardization.apply(numbers);
        }
    }

    /// Height, width and channels of an image, if the model takes images.
    pub fn image(&self) -> Option<[usize; 3]> {
        match self.input {
            Input::Image { height, width, channels, .. } => Some([height, width, channels]),
            _ => None,
        }
    }

    /// The numbers of an example of a model that takes `inputs` numbers, unprepared: from a list, which may be nested as an
    /// image is, or from an object with the columns' names, whose other members are left alone. Of a model of texts, from a
    /// text or an object with a text called `text`; of one of tables, its values may be texts, too.
    ///
    /// # Errors
    /// [`ExampleError`].
    pub fn example(&self, inputs: usize, value: &Value) -> Result<Vec<f32>, ExampleError> {
        if let Input::Text { preparation } = &self.input {
            let text = value.as_str().or_else(|| value.get(TEXT)?.as_str());
            return text.map(|text| preparation.prepare(text)).ok_or(ExampleError::NotAText);
        }
        if let Input::Table { columns } = &self.input {
            return columns.example(value);
        }
        match value {
            Value::Array(list) => {
                let mut numbers = Vec::new();
                flatten(list, MAX_NESTING, &mut numbers)?;
                match numbers.len() {
                    actual if actual != inputs => Err(ExampleError::Count { expected: inputs, actual }),
                    _ => Ok(numbers),
                }
            }
            Value::Object(members) => {
                let columns = self.columns().ok_or(ExampleError::Unnamed)?;
                columns
                    .iter()
                    .map(|column| match members.get(column) {
                        Some(Value::Null) | None => Err(ExampleError::Missing(column.clone())),
                        Some(value) => number(value, || format!("column `{column}`")),
                    })
                    .collect()
            }
            _ => Err(ExampleError::Kind),
        }
    }
}

fn flatten(list: &[Value], deeper: usize, numbers: &mut Vec<f32>) -> Result<(), ExampleError> {
    for value in list {
        match value {
            Value::Array(_) if deeper == 0 => return Err(ExampleError::Nested),
            Value::Array(list) => flatten(list, deeper - 1, numbers)?,
            value => {
                let place = numbers.len() + 1;
                numbers.push(number(value, || format!("number {place}"))?);
            }
        }
    }
    Ok(())
}

fn number(value: &Value, place: impl Fn() -> String) -> Result<f32, ExampleError> {
    value.as_f64().map(|number| number as f32).filter(|number| number.is_finite()).ok_or_else(|| {
        let text: String = value.to_string().chars().take(SHOWN).collect();
        ExampleError::NotANumber { place: place(), value: text }
    })
}

/// Height and width of an image at most.
const MAX_SIDE: usize = 1024;

/// What a text is called in an object.
const TEXT: &str = "text";

/// Rows, pixels and channels: lists in lists in a list.
const MAX_NESTING: usize = 2;

/// Characters of a wrong value that an error repeats.
const SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn interface(columns: Option<&[&str]>) -> Interface {
        let columns = columns.map(|columns| columns.iter().map(|&column| column.to_owned()).collect());
        Interface {
            input: Input::Numbers { columns, divisor: 2.0 },
            standardization: None,
            classes: vec!["no".into(), "yes".into()],
            target: None,
        }
    }

    #[test]
    fn an_example_is_a_list_or_an_object() {
        let named = interface(Some(&["age", "heat"]));
        let example = json!({ "heat": 38.5, "ward": "north", "age": 61 });
        assert_eq!(named.example(2, &example), Ok(vec![61.0, 38.5]));
        assert_eq!(named.example(2, &json!([61, 38.5])), Ok(vec![61.0, 38.5]));
        let image = json!([[[1], [2]], [[3], [4]]]);
        assert_eq!(interface(None).example(4, &image), Ok(vec![1.0, 2.0, 3.0, 4.0]));
        let mut numbers = vec![61.0, 38.5];
        named.prepare(&mut numbers);
        assert_eq!(numbers, [30.5, 19.25]);
        let columns = vec!["age".into(), "heat".into()];
        let standardization = Standardization::new(columns, vec![30.0, 19.0], vec![2.0, 0.5]).unwrap();
        let standardized = Interface { standardization: Some(standardization), ..named };
        let mut numbers = vec![61.0, 38.5];
        standardized.prepare(&mut numbers);
        assert_eq!(numbers, [0.25, 0.5]);
        let json = serde_json::to_string(&standardized).unwrap();
        assert_eq!(serde_json::from_str::<Interface>(&json).unwrap(), standardized);
        let other = Architecture::Softmax { inputs: 3, classes: 2 };
        let fault = Interface { input: Input::Numbers { columns: None, divisor: 1.0 }, ..standardized };
        let expected = InterfaceError::Standardization { inputs: 3, standardized: 2 };
        assert_eq!(fault.check(&other), Err(expected));
    }

    #[test]
    fn an_example_may_be_a_text() {
        let json = r#"{"input":{"text":{"preparation":{"tokenizer":"words","lowercase":false,"stop_words":[],
            "vocabulary":["sun","moon"],"length":2,"features":"words"}}},"classes":["no","yes"]}"#;
        let texts: Interface = serde_json::from_str(json).unwrap();
        assert_eq!(texts.example(2, &json!("the moon")), Ok(vec![1.0, -1.0]));
        assert_eq!(texts.example(2, &json!({ "text": "sun, moon", "n": 1 })), Ok(vec![0.0, 1.0]));
        for wrong in [json!(1), json!([1, 2]), json!({ "title": "sun" }), json!({ "text": null })] {
            assert_eq!(texts.example(2, &wrong), Err(ExampleError::NotAText));
        }
        let architecture = |inputs| Architecture::Softmax { inputs, classes: 2 };
        assert_eq!(texts.check(&architecture(2)), Ok(()));
        assert_eq!(texts.check(&architecture(3)), Err(InterfaceError::Text { inputs: 3, made: 2 }));
    }

    #[test]
    fn what_is_no_example_is_told_where_it_is_wrong() {
        let named = interface(Some(&["age", "heat"]));
        let refused = |value| named.example(2, &value).unwrap_err().to_string();
        assert_eq!(refused(json!({ "age": 1 })), "column `heat` is missing");
        assert_eq!(refused(json!({ "age": 1, "heat": null })), "column `heat` is missing");
        assert_eq!(
            refused(json!({ "age": "old", "heat": 1 })),
            "column `age`: \"old\" is not a finite number"
        );
        assert_eq!(refused(json!([1, 1e39])), "number 2: 1e+39 is not a finite number");
        assert_eq!(refused(json!([1])), "has 1 numbers, the model takes 2");
        assert_eq!(refused(json!("text")), ExampleError::Kind.to_string());
        assert_eq!(refused(json!([[[[1]]]])), ExampleError::Nested.to_string());
        assert_eq!(interface(None).example(2, &json!({})), Err(ExampleError::Unnamed));
    }

    #[test]
    fn an_interface_belongs_to_an_architecture() {
        let architecture = Architecture::Softmax { inputs: 2, classes: 2 };
        assert_eq!(Interface::of(&architecture).check(&architecture), Ok(()));
        assert_eq!(interface(Some(&["age", "heat"])).check(&architecture), Ok(()));
        let narrow = interface(Some(&["age"])).check(&architecture);
        assert_eq!(narrow, Err(InterfaceError::Columns { inputs: 2, named: 1 }));
        let wide = Architecture::Softmax { inputs: 2, classes: 3 };
        assert_eq!(interface(None).check(&wide), Err(InterfaceError::Classes { classes: 3, named: 2 }));
        let mut zero = interface(None);
        zero.input = Input::Numbers { columns: None, divisor: 0.0 };
        assert_eq!(zero.check(&architecture), Err(InterfaceError::Divisor));
    }
}
