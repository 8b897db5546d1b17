//! Which models there are, and where each of their tensors lies in the flat parameters.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A classifier, by its shape: stacked dense layers `x W + b`, the last giving one logit a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// `hidden.0.weight`, `hidden.0.bias`, ..., `output.weight`, `output.bias`.
    pub name: String,
    /// Sizes of the dimensions, outermost first; values are row-major.
    pub shape: Vec<usize>,
    /// Index of its first value in the flat parameters.
    pub offset: usize,
}

/// Why an architecture cannot be trained.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ArchitectureError {
    /// Fewer than two classes, or more than [`MAX_CLASSES`].
    #[error("a classifier needs 2 to {MAX_CLASSES} classes, not {classes}")]
    Classes {
        /// Number of classes asked for.
        classes: usize,
    },
    /// No features, or a hidden layer of width 0.
    #[error("layer {layer} takes no input: every width must be at least 1")]
    EmptyLayer {
        /// Layer, from 0, whose input is empty.
        layer: usize,
    },
    /// More than [`MAX_HIDDEN_LAYERS`].
    #[error("{layers} hidden layers, more than the limit of {MAX_HIDDEN_LAYERS}")]
    TooDeep {
        /// Number of hidden layers asked for.
        layers: usize,
    },
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
        if !(2..=MAX_CLASSES).contains(&self.classes()) {
            return Err(ArchitectureError::Classes { classes: self.classes() });
        }
        if self.hidden().len() > MAX_HIDDEN_LAYERS {
            return Err(ArchitectureError::TooDeep { layers: self.hidden().len() });
        }
        let mut layers = self.layers();
        if let Some(layer) = layers.position(|[inputs, _]| inputs == 0) {
            return Err(ArchitectureError::EmptyLayer { layer });
        }
        match self.parameter_count() {
            parameters if parameters > MAX_PARAMETERS => Err(ArchitectureError::TooLarge { parameters }),
            _ => Ok(()),
        }
    }

    /// Number of features of an example.
    pub fn inputs(&self) -> usize {
        let (Self::Softmax { inputs, .. } | Self::Mlp { inputs, .. }) = self;
        *inputs
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        let (Self::Softmax { classes, .. } | Self::Mlp { classes, .. }) = self;
        *classes
    }

    /// Length of the flat parameters; `usize::MAX` if it does not fit.
    pub fn parameter_count(&self) -> usize {
        self.layers()
            .map(|[inputs, outputs]| inputs.saturating_add(1).saturating_mul(outputs))
            .fold(0, usize::saturating_add)
    }

    /// The canonical layout of the flat parameters: layers from input to output; of each layer
    /// the weight `[inputs, outputs]`, row-major, then the bias `[outputs]`; without gaps.
    pub fn segments(&self) -> Vec<Segment> {
        let last = self.hidden().len();
        let mut segments = Vec::with_capacity(2 * (last + 1));
        let mut offset = 0_usize;
        for (index, [inputs, outputs]) in self.layers().enumerate() {
            let layer = match index {
                index if index == last => "output".to_owned(),
                index => format!("hidden.{index}"),
            };
            for (kind, shape) in [("weight", vec![inputs, outputs]), ("bias", vec![outputs])] {
                let segment = Segment { name: format!("{layer}.{kind}"), shape, offset };
                offset = offset.saturating_add(segment.len());
                segments.push(segment);
            }
        }
        segments
    }

    /// Widths of the hidden layers, from the input on; none for softmax regression.
    pub fn hidden(&self) -> &[usize] {
        match self {
            Self::Softmax { .. } => &[],
            Self::Mlp { hidden, .. } => hidden,
        }
    }

    /// What follows each hidden layer, if the model can have any.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Self::Softmax { .. } => None,
            Self::Mlp { activation, .. } => Some(*activation),
        }
    }

    /// `[inputs, outputs]` of each dense layer, from the input on.
    pub(crate) fn layers(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        let inputs = std::iter::once(self.inputs()).chain(self.hidden().iter().copied());
        let outputs = self.hidden().iter().copied();
        let outputs = outputs.chain(std::iter::once(self.classes()));
        inputs.zip(outputs).map(|(inputs, outputs)| [inputs, outputs])
    }
}

impl Segment {
    /// Number of values; `usize::MAX` if it does not fit.
    pub fn len(&self) -> usize {
        self.shape.iter().copied().fold(1, usize::saturating_mul)
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Most classes a model may have: the confusion matrix is dense.
pub const MAX_CLASSES: usize = 1024;

/// Most hidden layers a perceptron may have.
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
        assert_eq!(mlp(3, &[2], 1).check(), Err(ArchitectureError::Classes { classes: 1 }));
        assert_eq!(mlp(0, &[2], 2).check(), Err(ArchitectureError::EmptyLayer { layer: 0 }));
        assert_eq!(mlp(3, &[5, 0], 2).check(), Err(ArchitectureError::EmptyLayer { layer: 2 }));
        assert_eq!(
            mlp(usize::MAX, &[usize::MAX], 2).check(),
            Err(ArchitectureError::TooLarge { parameters: usize::MAX })
        );
        assert_eq!(mlp(3, &[1; 65], 2).check(), Err(ArchitectureError::TooDeep { layers: 65 }));
        assert_eq!(mlp(3, &[1; 64], 2).check(), Ok(()));
        assert_eq!(mlp(3, &[5], 2).check(), Ok(()));
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
