//! Which models there are, and where each of their tensors lies in the flat parameters.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::layer::{Layer, LayerFault, Shape};
use crate::own::{self, OwnError, OwnTensor};
use crate::{Learner, NativeLearner, residual};

/// A model, by its shape: a stack of layers, of which the last is dense and gives one logit a class. A model of one class tells
/// nothing apart: it predicts a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Architecture {
    /// Multinomial logistic regression: one dense layer.
    Softmax {
        /// Number of features of an example.
        inputs: usize,
        /// Number of classes.
        classes: usize,
    },
    /// Multilayer perceptron: hidden layers with an activation, then a dense layer.
    Mlp {
        /// Number of features of an example.
        inputs: usize,
        /// Width of each hidden layer, from the input on.
        hidden: Vec<usize>,
        /// Number of classes.
        classes: usize,
        /// What follows each hidden layer.
        activation: Activation,
    },
    /// Any layers, then a dense layer.
    Layers {
        /// What an example is.
        input: Shape,
        /// The layers between the input and the last, dense one.
        layers: Vec<Layer>,
        /// Number of classes.
        classes: usize,
    },
    /// A model that a program brings along: see [`own`]. Anybody knows its tensors, and nobody else what is computed of them.
    Own {
        /// What the program calls it.
        name: String,
        /// Number of features of an example.
        inputs: usize,
        /// Number of classes.
        classes: usize,
        /// Its tensors, in the order of the flat parameters.
        tensors: Vec<OwnTensor>,
    },
}

/// One layer of a stack, with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stacked {
    pub(crate) name: String,
    pub(crate) layer: Layer,
    /// What comes in.
    pub(crate) input: Shape,
    /// What goes out.
    pub(crate) output: Shape,
}

/// One layer of a model, as a table of its layers shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerSummary {
    /// The beginning of its tensors' names.
    pub name: String,
    /// What it does.
    pub kind: &'static str,
    /// What it gives for an example.
    pub output: Shape,
    /// Numbers that are learned in it.
    pub parameters: usize,
}

/// The nonlinearity after a hidden layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
}

/// One tensor inside the flat parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// `hidden.0.weight`, `hidden.0.bias`, ..., `output.weight`, `output.bias`; of a model of any layers
    /// `0.conv2d.weight`, ..., `output.bias`.
    pub name: String,
    /// Sizes of the dimensions, outermost first; values are row-major.
    pub shape: Vec<usize>,
    /// Index of its first value in the flat parameters.
    pub offset: usize,
}

/// Why an architecture cannot be trained.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArchitectureError {
    /// No class, or more than [`MAX_CLASSES`].
    #[error("a model needs 2 to {MAX_CLASSES} classes, or 1 to predict a number, not {classes}")]
    Classes {
        /// Number of classes asked for.
        classes: usize,
    },
    /// A layer cannot follow the one before.
    #[error("layer {layer} {fault}")]
    Layer {
        /// Layer, from 0; activations count.
        layer: usize,
        /// What is wrong with it.
        fault: LayerFault,
    },
    /// More than [`MAX_HIDDEN_LAYERS`].
    #[error("{layers} hidden layers, more than the limit of {MAX_HIDDEN_LAYERS}")]
    TooDeep {
        /// Number of hidden layers asked for.
        layers: usize,
    },
    /// What a program brings along, or does not.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// More than [`MAX_PARAMETERS`].
    #[error("{parameters} parameters, more than the limit of {MAX_PARAMETERS}")]
    TooLarge {
        /// Number of parameters asked for; `usize::MAX` if it cannot be counted.
        parameters: usize,
    },
}

impl Architecture {
    /// Refuses what cannot be trained, so that a description from a file or a peer does no harm.
    /// All other methods here are total: they work on any description.
    ///
    /// # Errors
    /// [`ArchitectureError`].
    pub fn check(&self) -> Result<(), ArchitectureError> {
        if !(1..=MAX_CLASSES).contains(&self.classes()) {
            return Err(ArchitectureError::Classes { classes: self.classes() });
        }
        if self.hidden_count() > MAX_HIDDEN_LAYERS {
            return Err(ArchitectureError::TooDeep { layers: self.hidden_count() });
        }
        match self {
            Self::Own { name, tensors, .. } => check_tensors(name, tensors)?,
            _ => drop(self.stack()?),
        }
        match self.parameter_count() {
            parameters if parameters > MAX_PARAMETERS => Err(ArchitectureError::TooLarge { parameters }),
            _ => Ok(()),
        }
    }

    /// Number of features of an example.
    pub fn inputs(&self) -> usize {
        self.input().len()
    }

    /// What an example is.
    pub fn input(&self) -> Shape {
        match self {
            Self::Softmax { inputs, .. } | Self::Mlp { inputs, .. } | Self::Own { inputs, .. } => {
                Shape::Vector(*inputs)
            }
            Self::Layers { input, .. } => *input,
        }
    }

    /// Whether it predicts a number in place of a class.
    pub fn predicts_number(&self) -> bool {
        self.classes() == 1
    }

    /// Number of classes; 1 where a number is predicted.
    pub fn classes(&self) -> usize {
        let (Self::Softmax { classes, .. }
        | Self::Mlp { classes, .. }
        | Self::Layers { classes, .. }
        | Self::Own { classes, .. }) = self;
        *classes
    }

    /// Length of the flat parameters; `usize::MAX` if it does not fit or there is no such model.
    pub fn parameter_count(&self) -> usize {
        if !matches!(self, Self::Own { .. }) && self.stack().is_err() {
            return usize::MAX;
        }
        self.segments().iter().map(Segment::len).fold(0, usize::saturating_add)
    }

    /// What trains models of this architecture, evaluates them and answers with them.
    ///
    /// # Errors
    /// [`ArchitectureError`] if it cannot be trained, or not by this program.
    pub fn learner(&self) -> Result<Box<dyn Learner>, ArchitectureError> {
        let Self::Own { name, inputs, classes, tensors } = self else {
            return Ok(Box::new(NativeLearner::new(self.clone())?));
        };
        self.check()?;
        let model = own::model(name)?;
        if model.tensors(*inputs, *classes) != *tensors {
            return Err(OwnError::Tensors(name.clone()).into());
        }
        Ok(model.learner(*inputs, *classes))
    }

    /// The canonical layout of the flat parameters: layers from input to output; of each layer
    /// the weight, row-major, then the bias; without gaps. Empty if there is no such model.
    pub fn segments(&self) -> Vec<Segment> {
        let mut offset = 0_usize;
        let placed = |(name, shape)| {
            let segment = Segment { name, shape, offset };
            offset = offset.saturating_add(segment.len());
            segment
        };
        self.tensors().into_iter().map(placed).collect()
    }

    /// Name and shape of each tensor, in the order of the flat parameters.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        if let Self::Own { tensors, .. } = self {
            return tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        }
        let of_layer = |Stacked { name, layer, input, .. }: Stacked| {
            let tensors = layer.tensors(input).into_iter();
            tensors.map(|(kind, shape)| (format!("{name}.{kind}"), shape)).collect::<Vec<_>>()
        };
        let stack = self.stack().unwrap_or_default();
        stack.iter().flat_map(Stacked::parts).flat_map(of_layer).collect()
    }

    /// All layers from the input on, the last one included; of a model of one's own one that holds everything. Empty if there is no
    /// such model.
    pub fn summary(&self) -> Vec<LayerSummary> {
        if let Self::Own { name, classes, .. } = self {
            let (output, parameters) = (Shape::Vector(*classes), self.parameter_count());
            return vec![LayerSummary { name: name.clone(), kind: "own", output, parameters }];
        }
        let summarized = |stacked: Stacked| {
            let parameters = stacked.parameters();
            LayerSummary {
                name: stacked.name,
                kind: stacked.layer.word(),
                output: stacked.output,
                parameters,
            }
        };
        self.stack().unwrap_or_default().into_iter().map(summarized).collect()
    }

    /// All layers from the input on, the last one included, with the shapes between them.
    pub(crate) fn stack(&self) -> Result<Vec<Stacked>, ArchitectureError> {
        if let Self::Own { name, .. } = self {
            return Err(OwnError::Layers(name.clone()).into());
        }
        let mut input = self.input();
        let mut stack = Vec::new();
        let last = (OUTPUT.to_owned(), Layer::Dense { outputs: self.classes() });
        for (index, (name, layer)) in self.hidden().into_iter().chain([last]).enumerate() {
            let output = layer
                .output(input, index == 0)
                .map_err(|fault| ArchitectureError::Layer { layer: index, fault })?;
            stack.push(Stacked { name, layer, input, output });
            input = output;
        }
        self.check_next_word(&stack)?;
        Ok(stack)
    }

    /// How many words the model predicts for an example, each at a place of its own; none if it tells classes apart.
    pub(crate) fn predicted_words(&self) -> Option<usize> {
        match self.stack().ok()?.last()?.output {
            Shape::Each { length, .. } => Some(length),
            _ => None,
        }
    }

    /// Whether what predicts words learns to.
    fn check_next_word(&self, stack: &[Stacked]) -> Result<(), ArchitectureError> {
        let Some(layer) = stack.iter().position(|stacked| stacked.layer == Layer::NextWord) else {
            return Ok(());
        };
        let fault = |fault| Err(ArchitectureError::Layer { layer, fault });
        let sees =
            |stacked: &Stacked| matches!(stacked.layer, Layer::TransformerBlock(block) if !block.causal);
        if stack[..layer].iter().any(sees) {
            return fault(LayerFault::SeesTheAnswer);
        }
        match (stack[0].layer, self.classes()) {
            (Layer::Embedding { vocabulary, .. }, classes) if vocabulary != classes => {
                fault(LayerFault::OtherWords { classes, vocabulary })
            }
            _ => Ok(()),
        }
    }

    /// Name and kind of each layer but the last.
    fn hidden(&self) -> Vec<(String, Layer)> {
        match self {
            Self::Softmax { .. } | Self::Own { .. } => vec![],
            Self::Mlp { hidden, activation, .. } => {
                let layers = |(index, &outputs)| {
                    let name = format!("hidden.{index}");
                    [(name.clone(), Layer::Dense { outputs }), (name, Layer::Activation(*activation))]
                };
                hidden.iter().enumerate().flat_map(layers).collect()
            }
            Self::Layers { layers, .. } => {
                let named = |(index, layer): (usize, &Layer)| (format!("{index}.{}", layer.kind()), *layer);
                layers.iter().enumerate().map(named).collect()
            }
        }
    }

    fn hidden_count(&self) -> usize {
        match self {
            Self::Softmax { .. } | Self::Own { .. } => 0,
            Self::Mlp { hidden, .. } => hidden.len(),
            Self::Layers { layers, .. } => layers.len(),
        }
    }
}

/// Refuses tensors that make no model.
fn check_tensors(name: &str, tensors: &[OwnTensor]) -> Result<(), OwnError> {
    let impossible = |problem: String| OwnError::Impossible { name: name.to_owned(), problem };
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(impossible(format!("has two tensors called `{}`", twice[0])));
    }
    match tensors.iter().find(|tensor| product(&tensor.shape) == 0) {
        Some(empty) => Err(impossible(format!("has a tensor `{}` without a number", empty.name))),
        None if tensors.is_empty() => Err(impossible("has no tensors".to_owned())),
        None => Ok(()),
    }
}

impl Stacked {
    /// The layers that have tensors of their own: those that a residual block is made of, any other layer itself.
    pub(crate) fn parts(&self) -> Vec<Stacked> {
        match residual::ways(self) {
            Some(residual::Ways { shortcut, main, .. }) => [shortcut, main].concat(),
            None => vec![self.clone()],
        }
    }

    /// Numbers that are learned in it; `usize::MAX` if they cannot be counted.
    pub(crate) fn parameters(&self) -> usize {
        let tensors = self.parts().into_iter().flat_map(|part| part.layer.tensors(part.input));
        tensors.map(|(_, shape)| product(&shape)).fold(0, usize::saturating_add)
    }
}

/// The name of the last layer.
const OUTPUT: &str = "output";

fn product(shape: &[usize]) -> usize {
    shape.iter().copied().fold(1, usize::saturating_mul)
}

impl Segment {
    /// Number of values; `usize::MAX` if it does not fit.
    pub fn len(&self) -> usize {
        product(&self.shape)
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Most classes a model may have: the confusion matrix is dense.
pub const MAX_CLASSES: usize = 1024;

/// Most layers a model may have before its last.
pub const MAX_HIDDEN_LAYERS: usize = 64;

/// Most parameters a model may have, 1 GiB as `f32`.
pub const MAX_PARAMETERS: usize = 1 << 28;

#[cfg(test)]
mod tests {
    use super::*;

    fn mlp(inputs: usize, hidden: &[usize], classes: usize) -> Architecture {
        Architecture::Mlp { inputs, hidden: hidden.to_vec(), classes, activation: Activation::Relu }
    }

    #[test]
    fn segments_follow_one_another_and_add_up_to_the_parameter_count() {
        let softmax = Architecture::Softmax { inputs: 64, classes: 10 };
        for (architecture, count) in [(softmax, 650), (mlp(64, &[32, 16], 10), 2778)] {
            assert_eq!(architecture.parameter_count(), count);
            let mut end = 0;
            for segment in architecture.segments() {
                assert_eq!(segment.offset, end);
                end += segment.len();
            }
            assert_eq!(end, count);
        }
    }

    #[test]
    fn segments_are_named_and_shaped_by_layer() {
        let segments = mlp(3, &[2], 4).segments();
        let named: Vec<_> =
            segments.iter().map(|s| (s.name.as_str(), s.shape.as_slice(), s.offset)).collect();
        assert_eq!(
            named,
            [
                ("hidden.0.weight", &[3, 2][..], 0),
                ("hidden.0.bias", &[2][..], 6),
                ("output.weight", &[2, 4][..], 8),
                ("output.bias", &[4][..], 16),
            ]
        );
    }

    #[test]
    fn what_cannot_be_trained_is_refused_by_name() {
        assert_eq!(mlp(3, &[2], 0).check(), Err(ArchitectureError::Classes { classes: 0 }));
        assert_eq!(mlp(3, &[2], 1).check(), Ok(()), "it predicts a number");
        let empty = |layer| Err(ArchitectureError::Layer { layer, fault: LayerFault::Empty });
        assert_eq!(mlp(0, &[2], 2).check(), empty(0));
        assert_eq!(mlp(3, &[5, 0], 2).check(), empty(2));
        assert_eq!(
            mlp(usize::MAX, &[usize::MAX], 2).check(),
            Err(ArchitectureError::Layer { layer: 0, fault: LayerFault::TooMany(usize::MAX) })
        );
        assert_eq!(
            mlp(usize::MAX, &[2], 2).check(),
            Err(ArchitectureError::TooLarge { parameters: usize::MAX })
        );
        assert_eq!(mlp(3, &[1; 65], 2).check(), Err(ArchitectureError::TooDeep { layers: 65 }));
        assert_eq!(mlp(3, &[1; 64], 2).check(), Ok(()));
        assert_eq!(mlp(3, &[5], 2).check(), Ok(()));
    }

    #[test]
    fn a_model_of_layers_lays_its_tensors_out_in_order() {
        let input = Shape::Image { height: 8, width: 8, channels: 3 };
        let layers = vec![
            Layer::Conv2d { channels: 4, kernel: 3, stride: 1, padding: 0 },
            Layer::MaxPool2d { size: 2 },
            Layer::Flatten,
            Layer::LayerNorm,
        ];
        let model = Architecture::Layers { input, layers, classes: 5 };
        assert_eq!(model.check(), Ok(()));
        let named: Vec<_> = model.segments().into_iter().map(|s| (s.name, s.shape, s.offset)).collect();
        let expected = [
            ("0.conv2d.weight", vec![3, 3, 3, 4], 0),
            ("0.conv2d.bias", vec![4], 108),
            ("3.layer_norm.scale", vec![36], 112),
            ("3.layer_norm.shift", vec![36], 148),
            ("output.weight", vec![36, 5], 184),
            ("output.bias", vec![5], 364),
        ];
        assert_eq!(named, expected.map(|(name, shape, offset)| (name.to_owned(), shape, offset)));
        assert_eq!((model.inputs(), model.parameter_count()), (192, 369));
    }

    #[test]
    fn an_architecture_survives_json_and_refuses_unknown_fields() {
        let text = r#"{"mlp":{"inputs":3,"hidden":[2],"classes":4,"activation":"relu"}}"#;
        let architecture: Architecture = serde_json::from_str(text).unwrap();
        assert_eq!(architecture, mlp(3, &[2], 4));
        assert_eq!(serde_json::to_string(&architecture).unwrap(), text);
        let unknown = r#"{"softmax":{"inputs":3,"classes":4,"hidden":[2]}}"#;
        assert!(serde_json::from_str::<Architecture>(unknown).is_err());
    }
}
