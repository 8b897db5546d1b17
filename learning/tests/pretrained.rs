//! Weights that PyTorch and transformers have written, against what their models answer: `learning/tests/torch/make.py` made both.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use skep_learning::{
    Activation, Architecture, Block, Layer, ModelFile, NormPlace, Prediction, Predictor, Shape, pretrained,
    torch,
};

#[derive(Deserialize)]
struct Answers {
    words: Vec<Vec<f32>>,
    logits: Vec<Vec<f64>>,
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

fn transformer(norm: NormPlace) -> Architecture {
    let block = Block { heads: 2, feed_forward: 12, causal: false, norm, dropout: 0.0 };
    let block = Layer::TransformerBlock(block);
    let (embedding, tanh) =
        (Layer::Embedding { vocabulary: 11, width: 8 }, Layer::Activation(Activation::Tanh));
    let layers = match norm {
        NormPlace::Before => vec![embedding, Layer::Positions, block, block, Layer::LayerNorm, Layer::Mean],
        NormPlace::After => vec![
            embedding,
            Layer::Positions,
            Layer::LayerNorm,
            block,
            block,
            Layer::First,
            Layer::Dense { outputs: 8 },
            tanh,
        ],
    };
    Architecture::Layers { input: Shape::Vector(6), layers, classes: 3 }
}

fn read(name: &str, architecture: &Architecture) -> Result<pretrained::Pretrained, String> {
    let drawn = architecture.initial_parameters([1; 32]).unwrap();
    pretrained::read(&file(name), architecture, drawn).map_err(|error| error.to_string())
}

/// Probabilities of a model against the softmax of the logits that Python computed.
fn compare(weights: &str, answers: &str, architecture: &Architecture) {
    let read = read(weights, architecture).unwrap();
    assert_eq!(read.missing, Vec::<String>::new());
    let model = ModelFile::new(architecture.clone(), read.parameters, BTreeMap::new()).unwrap();
    let answers: Answers = serde_json::from_str(&std::fs::read_to_string(file(answers)).unwrap()).unwrap();
    let predictions = Predictor::new(model).unwrap().predict(answers.words.concat()).unwrap();
    assert_eq!((predictions.len(), answers.logits.len()), (3, 3));
    for (prediction, logits) in predictions.iter().zip(&answers.logits) {
        let Prediction::Class { probabilities, .. } = prediction else { panic!("{prediction:?}") };
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        for (ours, logit) in probabilities.iter().zip(logits) {
            assert!((f64::from(*ours) - logit.exp() / total).abs() < 2e-6, "{ours} {}", logit.exp() / total);
        }
    }
}

#[test]
fn a_transformer_of_pytorch_answers_as_it_does_there() {
    compare("encoder.pt", "encoder.json", &transformer(NormPlace::Before));
}

#[test]
fn a_classifier_of_bert_answers_as_it_does_there() {
    compare("bert.safetensors", "bert.json", &transformer(NormPlace::After));
}

#[test]
fn half_precision_is_read_exactly() {
    let mlp = Architecture::Mlp { inputs: 6, hidden: vec![4], classes: 3, activation: Activation::Tanh };
    compare("mlp.pt", "mlp.json", &mlp);
}

#[test]
fn what_pytorch_reads_is_read_back() {
    for norm in [NormPlace::Before, NormPlace::After] {
        let architecture = transformer(norm);
        let parameters = architecture.initial_parameters([4; 32]).unwrap();
        let tensors = torch::to_pytorch(&architecture, &parameters).unwrap();
        assert_eq!(torch::from_pytorch(&architecture, &tensors).unwrap(), parameters);
    }
}

#[test]
fn a_new_task_has_a_last_layer_of_its_own() {
    let Architecture::Layers { input, layers, .. } = transformer(NormPlace::After) else { unreachable!() };
    let other = Architecture::Layers { input, layers: layers[..6].to_vec(), classes: 3 };
    // Without the pooler: its tensors are left alone.
    let with_pooler = read("bert.safetensors", &other).unwrap();
    assert_eq!(with_pooler.missing, Vec::<String>::new());
    let five = Architecture::Layers { input, layers, classes: 5 };
    let refused = read("bert.safetensors", &five).unwrap_err();
    assert!(
        refused.ends_with("tensor `classifier.weight` has shape [3, 8], the model needs [5, 8]"),
        "{refused}"
    );
}

#[test]
fn weights_of_another_model_are_refused_by_name() {
    let softmax = Architecture::Softmax { inputs: 6, classes: 3 };
    let refused = read("encoder.pt", &softmax).unwrap_err();
    assert!(
        refused.contains("encoder.pt: tensor `0.weight` has shape [11, 8], the model needs [3, 6]"),
        "{refused}"
    );
    let script = read("make.py", &softmax).unwrap_err();
    assert!(script.contains("make.py: is neither a safetensors file nor a state dict"), "{script}");
    let none = read("nothing.pt", &softmax).unwrap_err();
    assert!(none.contains("nothing.pt: "), "{none}");
}
