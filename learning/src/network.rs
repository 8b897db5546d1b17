//! The models as burn tensors: forward pass, and gradient descent by hand-derived backpropagation.
//!
//! Plain tensors, not burn's autodiff graph: the graph is one process-wide structure behind a
//! mutex, which costs more than the arithmetic of such small layers and slows every other thread.
//! A test holds the gradients against autodiff. Nothing here draws a random number, and a
//! tensor operation runs on the calling thread alone, so results are the same bits on any thread.

use burn::tensor::activation::{relu, sigmoid, softmax, tanh};
use burn::tensor::{Device, Tensor, TensorData};

use crate::{Activation, Architecture};

/// A model ready to compute: dense layers with an activation after all but the last.
pub(crate) struct Network {
    layers: Vec<Dense>,
    activation: Option<Activation>,
}

/// `x W + b`.
struct Dense {
    /// `[inputs, outputs]`
    weight: Tensor<2>,
    /// `[1, outputs]`
    bias: Tensor<2>,
}

/// What a forward pass leaves behind for the backward pass.
pub(crate) struct Trace {
    /// What each layer was given, `[examples, inputs of the layer]`.
    inputs: Vec<Tensor<2>>,
    /// What the last layer gave, `[examples, classes]`.
    logits: Tensor<2>,
}

impl Network {
    /// The network with `parameters` in the layout of [`Architecture::segments`]; the caller has
    /// checked their length.
    pub(crate) fn new(architecture: &Architecture, parameters: &[f32], device: &Device) -> Self {
        let mut rest = parameters;
        let mut take = |shape: [usize; 2]| {
            let (values, following) = rest.split_at(shape[0] * shape[1]);
            rest = following;
            tensor(values.to_vec(), shape, device)
        };
        let layers = architecture
            .layers()
            .map(|[inputs, outputs]| Dense { weight: take([inputs, outputs]), bias: take([1, outputs]) })
            .collect();
        Self { layers, activation: architecture.activation() }
    }

    /// The flat parameters, in the layout that [`Network::new`] reads.
    pub(crate) fn into_parameters(self) -> Vec<f32> {
        let tensors = self.layers.into_iter().flat_map(|l| [l.weight, l.bias]);
        tensors.flat_map(values).collect()
    }

    /// Logits of `examples`, `[examples, inputs]`.
    pub(crate) fn forward(&self, examples: Tensor<2>) -> Trace {
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut current = examples;
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                current = self.activate(current);
            }
            inputs.push(current.clone());
            current = current.matmul(layer.weight.clone()) + layer.bias.clone();
        }
        Trace { inputs, logits: current }
    }

    /// One step of gradient descent on the mean cross-entropy against `targets` (one-hot,
    /// `[examples, classes]`).
    ///
    /// With z the pre-activations of a layer, a its input and d = dLoss/dz: for the last layer
    /// d = (softmax(z) - targets) / examples; the gradients are a^T d for the weight and the column
    /// sums of d for the bias; below, d = (d W^T) * f'(z). All is linear in d, so d carries the
    /// learning rate from the start.
    pub(crate) fn descend(&mut self, trace: Trace, targets: Tensor<2>, learning_rate: f64) {
        let [examples, _] = targets.dims();
        let mut delta = (softmax(trace.logits, 1) - targets) * (learning_rate / examples as f64);
        let activation = self.activation;
        let layers = self.layers.iter_mut().zip(trace.inputs).enumerate().rev();
        for (index, (layer, input)) in layers {
            let below = (index > 0).then(|| {
                let gradient = delta.clone().matmul(layer.weight.clone().transpose());
                times_derivative(activation, gradient, &input)
            });
            let weight_step = input.transpose().matmul(delta.clone());
            layer.weight.inplace(|weight| weight - weight_step);
            layer.bias.inplace(|bias| bias - delta.sum_dim(0));
            match below {
                Some(below) => delta = below,
                None => return,
            }
        }
    }

    fn activate(&self, z: Tensor<2>) -> Tensor<2> {
        match self.activation {
            None => z,
            Some(Activation::Relu) => relu(z),
            Some(Activation::Sigmoid) => sigmoid(z),
            Some(Activation::Tanh) => tanh(z),
        }
    }
}

impl Trace {
    /// The logits, one row of `classes` numbers per example.
    pub(crate) fn logits(&self) -> Vec<f32> {
        values(self.logits.clone())
    }
}

/// `values` as a matrix of `shape`, row-major.
pub(crate) fn tensor(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    let values = tensor.into_data().try_into_vec();
    values.expect("a tensor made from f32 on this device stays f32")
}

/// `gradient * f'(z)`, by the value `activated = f(z)`.
fn times_derivative(activation: Option<Activation>, gradient: Tensor<2>, activated: &Tensor<2>) -> Tensor<2> {
    let activated = activated.clone();
    match activation {
        None => gradient,
        Some(Activation::Relu) => gradient.mask_fill(activated.lower_equal_elem(0.0), 0.0),
        Some(Activation::Sigmoid) => gradient * (activated.clone() - activated.square()),
        Some(Activation::Tanh) => gradient.clone() - gradient * activated.square(),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::log_softmax;

    use super::*;

    const RATE: f64 = 0.5;

    fn architectures() -> Vec<Architecture> {
        let mut all = vec![Architecture::Softmax { inputs: 6, classes: 4 }];
        for activation in [Activation::Relu, Activation::Sigmoid, Activation::Tanh] {
            all.push(Architecture::Mlp { inputs: 6, hidden: vec![5, 7], classes: 4, activation });
        }
        all
    }

    /// Nine examples with features of both signs, and their one-hot labels.
    fn examples(device: &Device) -> (Tensor<2>, Tensor<2>) {
        let features = (0..54).map(|i| ((i * 29 % 54) as f32 - 26.5) / 20.0);
        let mut targets = vec![0.0; 36];
        (0..9).for_each(|i| targets[i * 4 + i * 3 % 4] = 1.0);
        (tensor(features.collect(), [9, 6], device), tensor(targets, [9, 4], device))
    }

    fn by_autodiff(architecture: &Architecture, parameters: &[f32]) -> Vec<f32> {
        let device = Device::flex().autodiff();
        let mut network = Network::new(architecture, parameters, &device);
        for layer in &mut network.layers {
            layer.weight.inplace(Tensor::require_grad);
            layer.bias.inplace(Tensor::require_grad);
        }
        let (features, targets) = examples(&device);
        let logits = network.forward(features).logits;
        let loss = -(log_softmax(logits, 1) * targets).sum() / 9.0;
        let gradients = loss.backward();
        let stepped = |t: Tensor<2>| {
            let gradient = t.grad(&gradients).unwrap();
            values(t.inner() - gradient * RATE)
        };
        let tensors = network.layers.into_iter().flat_map(|l| [l.weight, l.bias]);
        tensors.flat_map(stepped).collect()
    }

    #[test]
    fn a_step_is_the_one_that_automatic_differentiation_takes() {
        let device = Device::flex();
        for architecture in architectures() {
            let parameters: Vec<f32> =
                (0..architecture.parameter_count()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 60.0).collect();
            let mut network = Network::new(&architecture, &parameters, &device);
            let (features, targets) = examples(&device);
            let trace = network.forward(features);
            network.descend(trace, targets, RATE);
            let ours = network.into_parameters();
            let theirs = by_autodiff(&architecture, &parameters);
            let moved = ours.iter().zip(&parameters).filter(|(a, b)| a != b).count();
            assert!(moved > parameters.len() / 2, "{moved} moved: {architecture:?}");
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours - theirs).abs() < 1e-6, "{architecture:?}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn parameters_survive_the_way_through_the_network() {
        for architecture in architectures() {
            let parameters: Vec<f32> = (0..architecture.parameter_count()).map(|i| i as f32).collect();
            let network = Network::new(&architecture, &parameters, &Device::flex());
            assert_eq!(network.into_parameters(), parameters);
        }
    }
}
