//! Models for other programs: the ONNX format, as ONNX Runtime and others read it.
//!
//! The graph takes examples as they stand in files, `input` of shape `[batch, numbers]`, of texts and of tables with categories or
//! missing values the numbers that they become,
//! divides them as training did, and gives
//! `logits` and `probabilities` of shape `[batch, classes]`; of a model that predicts a number, `number` of shape `[batch, 1]`, in its own
//! unit. Images have their channels last here and first there, so the
//! weights of convolutions are turned, and pixels are on the way in and out. Opset 17, ONNX 1.12 (2022).

mod sequence;
mod wire;

use thiserror::Error;

use self::wire::{INT64, Message, Node, float_tensor, int_tensor, metadata, value_info};
use crate::architecture::Stacked;
use crate::pixels::BRIGHTEST;
use crate::residual::{self, Ways};
use crate::{Activation, ArchitectureError, Input, Layer, ModelFile, Shape};

/// Why a model has no graph.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OnnxError {
    /// There is no such model.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// A layer cannot be exported yet.
    #[error("layer {layer} ({kind}) cannot be exported to ONNX yet")]
    Layer {
        /// Its name.
        layer: String,
        /// What it does.
        kind: &'static str,
    },
}

/// The bytes of an ONNX file, the same for equal models.
///
/// # Errors
/// [`OnnxError`] if there is no such model, or a layer has no graph yet.
pub fn encode(model: &ModelFile) -> Result<Vec<u8>, OnnxError> {
    let architecture = model.architecture();
    let interface = model.interface();
    let mut graph = Graph {
        nodes: Vec::new(),
        initializers: Vec::new(),
        value: INPUT.into(),
        image: None,
        mask: String::new(),
        wide_mask: String::new(),
    };
    graph.scale(&interface.input, architecture.inputs());
    if let Some(standardization) = &interface.standardization {
        let columns = [standardization.columns().len()];
        let mean = graph.floats("mean", &columns, standardization.mean());
        let deviation = graph.floats("deviation", &columns, standardization.deviation());
        graph.push("Sub", "centred", &[mean], |node| node);
        graph.push("Div", "standardized", &[deviation], |node| node);
    }
    let mut offset = 0;
    for stacked in architecture.stack()? {
        let len = stacked.parameters();
        graph.layer(&stacked, &model.parameters()[offset..offset + len])?;
        offset += len;
    }
    let mut outputs = vec![LOGITS, PROBABILITIES];
    match &interface.target {
        None => {
            graph.push("Identity", LOGITS, &[], |node| node);
            graph.push("Softmax", PROBABILITIES, &[], |node| node.int("axis", -1));
        }
        Some(target) => {
            let scale = graph.floats("scale", &[1], &[target.scale as f32]);
            let shift = graph.floats("shift", &[1], &[target.shift as f32]);
            graph.push("Mul", "unscaled", &[scale], |node| node);
            graph.push("Add", NUMBER, &[shift], |node| node);
            outputs = vec![NUMBER];
        }
    }
    let classes = architecture.classes();
    let mut body = Message::default();
    for node in graph.nodes {
        body.message(1, node);
    }
    body.text(2, model.metadata().get("task").map_or("model", String::as_str));
    for tensor in graph.initializers {
        body.message(5, tensor);
    }
    body.message(11, value_info(INPUT, &[architecture.inputs()]));
    let each: Vec<usize> = architecture.predicted_words().into_iter().chain([classes]).collect();
    for output in outputs {
        body.message(12, value_info(output, &each));
    }

    let mut opset = Message::default();
    opset.text(1, "").int(2, OPSET);
    let mut file = Message::default();
    file.int(1, IR_VERSION).text(2, "skep");
    file.message(7, body).message(8, opset);
    let said = serde_json::to_string(&interface).expect("names and numbers always have a JSON form");
    file.message(14, metadata("interface", &said));
    for (key, value) in model.metadata() {
        file.message(14, metadata(key, value));
    }
    Ok(file.into_bytes())
}

const INPUT: &str = "input";
const LOGITS: &str = "logits";
const PROBABILITIES: &str = "probabilities";
const NUMBER: &str = "number";
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// A graph that is being written: so far it computes `value`.
struct Graph {
    nodes: Vec<Message>,
    initializers: Vec<Message>,
    value: String,
    /// Height, width and channels, if `value` is `[batch, channels, height, width]`; else it is `[batch, numbers]`.
    image: Option<[usize; 3]>,
    /// Which places of sequences are words, `[batch, length]`, and the same with one more dimension.
    mask: String,
    wide_mask: String,
}

impl Graph {
    /// What is done to numbers as they stand in files.
    fn scale(&mut self, input: &Input, inputs: usize) {
        match input {
            Input::Numbers { divisor, .. } if *divisor != 1.0 => {
                let divisor = self.floats("divisor", &[], &[*divisor]);
                self.push("Div", "features", &[divisor], |node| node);
            }
            Input::Image { mean, deviation, .. } => {
                let everywhere = |of: &[f32]| of.iter().copied().cycle().take(inputs).collect::<Vec<_>>();
                let brightest = self.floats("brightest", &[], &[BRIGHTEST]);
                self.push("Div", "scaled", &[brightest], |node| node);
                let mean = self.floats("mean", &[inputs], &everywhere(mean));
                self.push("Sub", "centred", &[mean], |node| node);
                let deviation = self.floats("deviation", &[inputs], &everywhere(deviation));
                self.push("Div", "features", &[deviation], |node| node);
            }
            Input::Numbers { .. } | Input::Table { .. } | Input::Text { .. } => {}
        }
    }

    /// A constant; its name.
    fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.initializers.push(float_tensor(name, shape, values));
        name.to_owned()
    }

    fn ints(&mut self, name: &str, values: &[i64]) -> String {
        self.initializers.push(int_tensor(name, values));
        name.to_owned()
    }

    /// Computes `output` from the value so far and `others`.
    fn push(&mut self, kind: &str, output: &str, others: &[String], attributes: impl FnOnce(Node) -> Node) {
        let inputs = [&[std::mem::take(&mut self.value)], others].concat();
        self.compute(kind, output, &inputs, attributes);
        self.value = output.to_owned();
    }

    fn compute(
        &mut self,
        kind: &str,
        output: &str,
        inputs: &[String],
        attributes: impl FnOnce(Node) -> Node,
    ) {
        self.nodes.push(attributes(Node::default()).finish(kind, output, inputs));
    }

    fn layer(&mut self, stacked: &Stacked, parameters: &[f32]) -> Result<(), OnnxError> {
        let Stacked { name, layer, input, output } = stacked;
        let named = |what: &str| format!("{name}.{what}");
        match *layer {
            Layer::Dense { outputs } if matches!(input, Shape::Each { .. }) => {
                let value = std::mem::take(&mut self.value);
                self.value = self.project(name, &value, [input.row(), outputs], parameters);
            }
            Layer::Dense { outputs } => {
                if let Shape::Sequence { .. } = input {
                    let sizes = self.ints(&named("sizes"), &[0, input.len() as i64]);
                    self.push("Reshape", &named("numbers"), &[sizes], |node| node);
                }
                self.flatten(name);
                let (weight, bias) = parameters.split_at(input.len() * outputs);
                let weight = self.floats(&named("weight"), &[input.len(), outputs], weight);
                let bias = self.floats(&named("bias"), &[outputs], bias);
                self.push("Gemm", &named("dense"), &[weight, bias], |node| node);
            }
            Layer::Conv2d { channels, kernel, stride, padding } => {
                let before = self.unflatten(name, *input);
                let (weight, bias) = parameters.split_at(parameters.len() - channels);
                let turned = turned(weight, kernel, before, channels);
                let weight = self.floats(&named("weight"), &[channels, before, kernel, kernel], &turned);
                let bias = self.floats(&named("bias"), &[channels], bias);
                let (steps, margin) = ([stride as i64; 2], [padding as i64; 4]);
                self.push("Conv", &named("conv"), &[weight, bias], |node| {
                    let node = if stride == 1 { node } else { node.ints("strides", &steps) };
                    if padding == 0 { node } else { node.ints("pads", &margin) }
                });
                self.image = image(*output);
            }
            Layer::AvgPool2d { size } => {
                self.unflatten(name, *input);
                let square = [size as i64; 2];
                self.push("AveragePool", &named("pooled"), &[], |node| {
                    node.ints("kernel_shape", &square).ints("strides", &square)
                });
                self.image = image(*output);
            }
            Layer::GlobalAvgPool => {
                self.unflatten(name, *input);
                self.push("GlobalAveragePool", &named("pooled"), &[], |node| node);
                self.push("Flatten", &named("vector"), &[], |node| node);
                self.image = None;
            }
            Layer::GroupNorm { groups } => self.group_norm(name, *input, groups, parameters),
            Layer::Residual { .. } => {
                self.unflatten(name, *input);
                self.residual(stacked, parameters)?;
            }
            Layer::TemporalBlock { .. } => self.residual(stacked, parameters)?,
            Layer::CausalConv1d { channels, kernel, dilation } => {
                self.causal_conv(name, [kernel, input.vector(), channels], dilation, parameters);
            }
            Layer::MaxPool2d { size } => {
                self.unflatten(name, *input);
                let square = [size as i64; 2];
                self.push("MaxPool", &named("pooled"), &[], |node| {
                    node.ints("kernel_shape", &square).ints("strides", &square)
                });
                self.image = image(*output);
            }
            Layer::Activation(activation) => {
                self.push(activation_kind(activation), &named("activated"), &[], |node| node);
            }
            // Nothing is dropped after training.
            Layer::Dropout { .. } => {}
            Layer::Flatten => self.flatten(name),
            Layer::EmbeddingBag { vocabulary, width } => {
                let weight = self.floats(&named("weight"), &[vocabulary, width], parameters);
                self.bag(name, weight);
            }
            Layer::LayerNorm => {
                let (scale, shift) = parameters.split_at(input.vector());
                let scale = self.floats(&named("scale"), &[input.vector()], scale);
                let shift = self.floats(&named("shift"), &[input.vector()], shift);
                self.push("LayerNormalization", &named("normal"), &[scale, shift], |node| {
                    node.int("axis", -1).float("epsilon", EPSILON)
                });
            }
            Layer::Embedding { vocabulary, width } => self.embed(name, [vocabulary, width], parameters),
            Layer::Positions => {
                let shape = [input.len() / input.vector(), input.vector()];
                self.add_positions(name, &shape, parameters);
            }
            Layer::TransformerBlock(block) => self.block(name, block, *input, parameters),
            Layer::Mean | Layer::First => self.summarize(name, *layer),
            // Every place goes on by itself.
            Layer::NextWord => {}
            Layer::Ngrams { .. } => {
                return Err(OnnxError::Layer { layer: name.clone(), kind: layer.kind() });
            }
        }
        Ok(())
    }

    /// Opset 17 normalizes each channel of an image; so groups are made the channels of a long one.
    fn group_norm(&mut self, name: &str, input: Shape, groups: usize, parameters: &[f32]) {
        let channels = self.unflatten(name, input);
        let [height, width, _] = image(input).unwrap_or_default();
        let named = |what: &str| format!("{name}.{what}");
        let sizes = self.ints(&named("groups"), &[0, groups as i64, -1]);
        self.push("Reshape", &named("grouped"), &[sizes], |node| node);
        let one = self.floats(&named("one"), &[groups], &vec![1.0; groups]);
        let zero = self.floats(&named("zero"), &[groups], &vec![0.0; groups]);
        self.push("InstanceNormalization", &named("normal"), &[one, zero], |node| {
            node.float("epsilon", EPSILON)
        });
        let sizes = self.ints(&named("image"), &[-1, channels as i64, height as i64, width as i64]);
        self.push("Reshape", &named("ungrouped"), &[sizes], |node| node);
        let (scale, shift) = parameters.split_at(channels);
        let scale = self.floats(&named("scale"), &[channels, 1, 1], scale);
        self.push("Mul", &named("scaled"), &[scale], |node| node);
        let shift = self.floats(&named("shift"), &[channels, 1, 1], shift);
        self.push("Add", &named("shifted"), &[shift], |node| node);
    }

    fn residual(&mut self, stacked: &Stacked, parameters: &[f32]) -> Result<(), OnnxError> {
        let Some(Ways { shortcut, main, after }) = residual::ways(stacked) else { return Ok(()) };
        let (input, image) = (self.value.clone(), self.image);
        let rest = self.chain(&shortcut, parameters)?;
        let beside = std::mem::replace(&mut self.value, input);
        self.image = image;
        self.chain(&main, rest)?;
        self.push("Add", &format!("{}.sum", stacked.name), &[beside], |node| node);
        if let Some(activation) = after {
            self.push(activation_kind(activation), &format!("{}.activated", stacked.name), &[], |node| node);
        }
        Ok(())
    }

    /// One layer after the other; the parameters that are left.
    fn chain<'p>(&mut self, layers: &[Stacked], mut parameters: &'p [f32]) -> Result<&'p [f32], OnnxError> {
        for stacked in layers {
            let (own, rest) = parameters.split_at(stacked.parameters());
            self.layer(stacked, own)?;
            parameters = rest;
        }
        Ok(parameters)
    }

    /// Makes `[batch, numbers]` an image, unless it is one; its channels.
    fn unflatten(&mut self, name: &str, shape: Shape) -> usize {
        let [height, width, channels] = image(shape).unwrap_or_default();
        if self.image.is_none() {
            let sizes = [-1, height as i64, width as i64, channels as i64];
            let sizes = self.ints(&format!("{name}.sizes"), &sizes);
            self.push("Reshape", &format!("{name}.pixels"), &[sizes], |node| node);
            self.push("Transpose", &format!("{name}.planes"), &[], |node| node.ints("perm", &[0, 3, 1, 2]));
            self.image = Some([height, width, channels]);
        }
        channels
    }

    /// Makes an image `[batch, numbers]`.
    fn flatten(&mut self, name: &str) {
        if let Some(image) = self.image.take() {
            let numbers = image.iter().product::<usize>() as i64;
            self.push("Transpose", &format!("{name}.pixels"), &[], |node| node.ints("perm", &[0, 2, 3, 1]));
            let sizes = self.ints(&format!("{name}.sizes"), &[-1, numbers]);
            self.push("Reshape", &format!("{name}.numbers"), &[sizes], |node| node);
        }
    }

    /// Computes a value beside the one so far; its name.
    fn step(
        &mut self,
        kind: &str,
        output: String,
        inputs: [&str; 2],
        attribute: Option<(&str, i64)>,
    ) -> String {
        let inputs: Vec<String> =
            inputs.into_iter().filter(|input| !input.is_empty()).map(str::to_owned).collect();
        self.compute(kind, &output, &inputs, |node| match attribute {
            Some((key, value)) => node.int(key, value),
            None => node,
        });
        output
    }

    /// The mean of the vectors of the numbers that are not negative.
    fn bag(&mut self, name: &str, weight: String) {
        let named = |what: &str| format!("{name}.{what}");
        let numbers = std::mem::take(&mut self.value);
        let zero = self.floats(&named("zero"), &[], &[0.0]);
        let one = self.floats(&named("one"), &[], &[1.0]);
        let words = self.ints(&named("words_axis"), &[1]);
        let last = self.ints(&named("last_axis"), &[2]);
        let is_word = self.step("GreaterOrEqual", named("is_word"), [&numbers, &zero], None);
        let mask = self.step("Cast", named("mask"), [&is_word, ""], Some(("to", wire::FLOAT)));
        let some_word = self.step("Max", named("some_word"), [&numbers, &zero], None);
        let word = self.step("Cast", named("word"), [&some_word, ""], Some(("to", INT64)));
        let vectors = self.step("Gather", named("vectors"), [&weight, &word], Some(("axis", 0)));
        let wide_mask = self.step("Unsqueeze", named("wide_mask"), [&mask, &last], None);
        let masked = self.step("Mul", named("masked"), [&vectors, &wide_mask], None);
        let sum = self.step("ReduceSum", named("sum"), [&masked, &words], Some(("keepdims", 0)));
        let count = self.step("ReduceSum", named("count"), [&mask, &words], Some(("keepdims", 1)));
        let some = self.step("Max", named("some_count"), [&count, &one], None);
        self.value = self.step("Div", named("mean"), [&sum, &some], None);
    }
}

fn image(shape: Shape) -> Option<[usize; 3]> {
    match shape {
        Shape::Image { height, width, channels } => Some([height, width, channels]),
        Shape::Vector(_) | Shape::Sequence { .. } | Shape::Each { .. } => None,
    }
}

fn activation_kind(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "Relu",
        Activation::Sigmoid => "Sigmoid",
        Activation::Tanh => "Tanh",
    }
}

/// Weights `[kernel, kernel, before, after]` as `[after, before, kernel, kernel]`.
fn turned(weight: &[f32], kernel: usize, before: usize, after: usize) -> Vec<f32> {
    let square = kernel * kernel;
    (0..weight.len())
        .map(|at| {
            let (output, input, pixel) = (at / (before * square), at / square % before, at % square);
            weight[(pixel * before + input) * after + output]
        })
        .collect()
}

/// That of layer normalization here.
const EPSILON: f32 = 1e-5;
