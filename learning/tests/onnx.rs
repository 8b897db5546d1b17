//! Exported graphs are the checked-in ones, byte for byte, and what ONNX Runtime computed with those is what we compute.
//!
//! The answers in `onnx/*.json` were made by `onnx/run.py`. Where a graph changes on purpose, `cargo test -p skep-learning
//! --test onnx -- --ignored` writes the new ones, and the script runs them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use skep_learning::{
    Activation, Architecture, Block, Input, Interface, Layer, Loss, ModelFile, NormPlace, Prediction,
    Predictor, Shape, Standardization, Target, onnx,
};

fn models() -> [(&'static str, Architecture, f32); 9] {
    let conv = |channels, kernel| Layer::Conv2d { channels, kernel, stride: 1, padding: 0 };
    let image = Shape::Image { height: 8, width: 7, channels: 2 };
    let cnn = vec![
        conv(3, 3),
        Layer::Activation(Activation::Relu),
        Layer::MaxPool2d { size: 2 },
        conv(4, 2),
        Layer::Activation(Activation::Tanh),
        Layer::Dropout { rate: 0.5 },
        Layer::Flatten,
        Layer::LayerNorm,
        Layer::Dense { outputs: 5 },
        Layer::Activation(Activation::Sigmoid),
    ];
    let bag = vec![Layer::EmbeddingBag { vocabulary: 11, width: 4 }, Layer::Activation(Activation::Relu)];
    let mlp =
        Architecture::Mlp { inputs: 6, hidden: vec![5, 4], classes: 3, activation: Activation::Sigmoid };
    [
        ("softmax", Architecture::Softmax { inputs: 4, classes: 3 }, 1.0),
        ("mlp", mlp, 16.0),
        ("number", number_model(), 1.0),
        ("cnn", Architecture::Layers { input: image, layers: cnn, classes: 3 }, 255.0),
        ("bag", Architecture::Layers { input: Shape::Vector(5), layers: bag, classes: 2 }, 1.0),
        ("encoder", Architecture::Layers { input: Shape::Vector(5), layers: encoder(), classes: 2 }, 1.0),
        ("decoder", Architecture::Layers { input: Shape::Vector(5), layers: decoder(), classes: 11 }, 1.0),
        ("temporal", Architecture::Layers { input: Shape::Vector(5), layers: temporal(), classes: 11 }, 1.0),
        ("resnet", Architecture::Layers { input: image, layers: resnet(), classes: 3 }, 255.0),
    ]
}

/// Of a standardized table and a target.
fn number_model() -> Architecture {
    Architecture::Mlp { inputs: 4, hidden: vec![5], classes: 1, activation: Activation::Relu }
}

fn block(causal: bool, norm: NormPlace) -> Layer {
    Layer::TransformerBlock(Block { heads: 2, feed_forward: 6, causal, norm, dropout: 0.1 })
}

fn encoder() -> Vec<Layer> {
    let embedding = Layer::Embedding { vocabulary: 11, width: 4 };
    let after = block(false, NormPlace::After);
    vec![embedding, Layer::Positions, Layer::LayerNorm, after, block(false, NormPlace::Before), Layer::Mean]
}

fn decoder() -> Vec<Layer> {
    let embedding = Layer::Embedding { vocabulary: 11, width: 4 };
    let block = block(true, NormPlace::Before);
    vec![embedding, Layer::Positions, block, block, Layer::LayerNorm, Layer::NextWord]
}

fn temporal() -> Vec<Layer> {
    vec![
        Layer::Embedding { vocabulary: 11, width: 4 },
        Layer::CausalConv1d { channels: 3, kernel: 2, dilation: 1 },
        Layer::Activation(Activation::Tanh),
        Layer::TemporalBlock { hidden: 5, kernel: 3, dilation: 2, dropout: 0.1 },
        Layer::LayerNorm,
        Layer::NextWord,
    ]
}

fn resnet() -> Vec<Layer> {
    let conv = |kernel, stride, padding| Layer::Conv2d { channels: 4, kernel, stride, padding };
    vec![
        conv(3, 1, 2),
        Layer::GroupNorm { groups: 2 },
        Layer::Activation(Activation::Relu),
        Layer::Residual { channels: 4, stride: 1, groups: 4 },
        Layer::Residual { channels: 6, stride: 2, groups: 1 },
        conv(2, 2, 1),
        Layer::AvgPool2d { size: 2 },
        Layer::GlobalAvgPool,
    ]
}

/// Numbers from -1 to 1 that are exact in `f32`.
fn number(at: usize, salt: usize) -> f32 {
    ((at * 7919 + salt * 104_729) % 2017) as f32 / 1024.0 - 0.984_375
}

fn model(architecture: Architecture, divisor: f32) -> ModelFile {
    let parameters = (0..architecture.parameter_count()).map(|at| number(at, 1)).collect();
    let mut interface = Interface::of(&architecture);
    interface.input = Input::Numbers { columns: None, divisor };
    if architecture.predicts_number() {
        let columns = ["age", "heat", "colour=red", "colour=green"].map(str::to_owned).to_vec();
        let standardization =
            Standardization::new(columns, vec![1.0, -2.0, 0.0, 0.0], vec![2.0, 4.0, 1.0, 1.0]);
        interface.standardization = Some(standardization.unwrap());
        let column = "price".to_owned();
        interface.target =
            Some(Target { column, shift: 250.0, scale: 40.0, bounds: None, loss: Loss::Squared });
    } else {
        interface.classes = (0..architecture.classes()).map(|class| format!("class {class}")).collect();
    }
    ModelFile::new(architecture, parameters, Default::default()).unwrap().with_interface(interface).unwrap()
}

fn fixture(name: &str, kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/onnx").join(format!("{name}.{kind}"))
}

#[test]
fn what_onnx_runtime_computes_is_what_we_compute() {
    let mut compared = 0;
    for (name, architecture, divisor) in models() {
        let model = model(architecture, divisor);
        assert!(
            onnx::encode(&model).unwrap() == fs::read(fixture(name, "onnx")).unwrap(),
            "{name} has changed"
        );
        let answers: Value = serde_json::from_slice(&fs::read(fixture(name, "json")).unwrap()).unwrap();
        let numbers = |key: &str| -> Vec<f32> {
            let rows = answers[key].as_array().unwrap().iter();
            rows.flat_map(of_last_word).collect()
        };
        let predictions = Predictor::new(model).unwrap().predict(numbers("input")).unwrap();
        let said = |prediction| match prediction {
            Prediction::Class { probabilities, .. } => probabilities,
            Prediction::Number(number) => vec![number],
        };
        let ours: Vec<f32> = predictions.into_iter().flat_map(said).collect();
        let theirs = numbers(if name == "number" { "number" } else { "probabilities" });
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let close = 1e-5 * theirs.abs().max(1.0);
            assert!((ours - theirs).abs() < close, "{name}: {ours} is not {theirs}");
            compared += 1;
        }
    }
    assert!(compared >= 100, "{compared} probabilities were compared");
}

/// The numbers of an example; of a model of the next word those of the last place, where no example has padding.
fn of_last_word(row: &Value) -> Vec<f32> {
    let row = row.as_array().unwrap();
    let numbers = row.last().unwrap().as_array().unwrap_or(row);
    numbers.iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[test]
#[ignore = "writes the graphs that are checked in"]
fn write_the_graphs() {
    for (name, architecture, divisor) in models() {
        fs::write(fixture(name, "onnx"), onnx::encode(&model(architecture, divisor)).unwrap()).unwrap();
    }
}
