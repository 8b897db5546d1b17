//! Synthetic tasks that any language can re-create to the bit, to compare programs and to test this one.
//!
//! Every number is a function of a 64-bit stream and a position in it, so a client is a function of its number: a
//! population costs nothing until somebody is selected. With `mix` the finalizer of SplitMix64,
//!
//! ```text
//! r(s, i) = mix(mix(s) + (i + 1) · 0x9E3779B97F4A7C15)      all in wrapping 64-bit integers
//! u(s, i) = (r(s, i) >> 40) / 2²⁴                           uniform in [0, 1), exact in f32
//! g(s, i) = √(−2 ln(1 − u(s, 2i))) · cos(2π u(s, 2i + 1))   normal, computed in f64, then rounded to f32
//! ```
//!
//! and streams s = workload · 2⁴⁸ + kind · 2⁴⁰ + id. The first weights of tensor t are (2u − 1)/√(inputs) in the order of
//! PyTorch, `[out, in, ...]` with channels first, whatever the order here.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use ndarray::{Array1, Array2};

use crate::kernel::vectorized;
use crate::{Architecture, ArchitectureError, Dataset, Layer, Shape, Subset};

/// A synthetic task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// W1: 10 examples a client, 300 features around the centres of 5 classes.
    MlpText,
    /// W2: 50 images a client, 32 x 32 pixels of 3 channels around the centres of 10 classes.
    CnnCifar,
    /// 4 images a client, 224 x 224 pixels of 3 channels around the centres of 10 classes.
    Cnn224,
    /// W3: 10 examples a client, 784 uniform features of which every tenth tells the class, 10 classes.
    Linear,
}

/// What a stream is for.
#[derive(Clone, Copy)]
enum Kind {
    Examples = 0,
    Centres = 1,
    Weights = 2,
    Cohort = 3,
}

impl Workload {
    /// Numbers in an example.
    pub const fn inputs(self) -> usize {
        match self {
            Self::MlpText => 300,
            Self::CnnCifar => 32 * 32 * 3,
            Self::Cnn224 => 224 * 224 * 3,
            Self::Linear => 784,
        }
    }

    /// Classes to tell apart.
    pub const fn classes(self) -> usize {
        match self {
            Self::MlpText => 5,
            Self::CnnCifar | Self::Cnn224 | Self::Linear => 10,
        }
    }

    /// Examples of every client.
    pub const fn examples(self) -> usize {
        match self {
            Self::MlpText | Self::Linear => 10,
            Self::CnnCifar => 50,
            Self::Cnn224 => 4,
        }
    }

    const fn stream(self, kind: Kind, id: u64) -> u64 {
        let number = match self {
            Self::MlpText => 1,
            Self::CnnCifar => 2,
            Self::Linear => 3,
            Self::Cnn224 => 4,
        };
        (number << 48) + ((kind as u64) << 40) + id
    }

    /// The examples of client `id`.
    pub fn client(self, id: u64) -> Subset {
        self.clients(id..id + 1)
    }

    /// The examples of some clients, one client after the other.
    pub fn clients(self, ids: std::ops::Range<u64>) -> Subset {
        let (inputs, examples) = (self.inputs(), self.examples());
        let rows = (ids.end - ids.start) as usize * examples;
        let mut features = vec![0.0; rows * inputs];
        let mut labels = Vec::with_capacity(rows);
        for (id, features) in ids.zip(features.chunks_exact_mut(examples * inputs)) {
            let stream = mixed(self.stream(Kind::Examples, id));
            for (example, row) in features.chunks_exact_mut(inputs).enumerate() {
                let label = ((id + example as u64) % self.classes() as u64) as usize;
                self.fill(stream, example * inputs, label, row);
                labels.push(label as u32);
            }
        }
        let features = Array2::from_shape_vec((rows, inputs), features).expect("rows of equal length");
        let dataset = Dataset::new(features, Array1::from_vec(labels), self.classes());
        Subset::all(Arc::new(dataset.expect("generated numbers are finite and labels below the classes")))
    }

    /// The features of one example, whose first stands at `first` in the client's stream.
    fn fill(self, stream: u64, first: usize, label: usize, row: &mut [f32]) {
        if let Self::Linear = self {
            centred(stream, first as u64, row);
            row[label..].iter_mut().step_by(self.classes()).for_each(|value| *value += 0.25);
            return;
        }
        let centre = &self.centres()[label * self.inputs()..];
        for (at, (value, centre)) in (first as u64..).zip(row.iter_mut().zip(centre)) {
            *value = 0.3 * centre + normal(stream, at);
        }
    }

    /// The centres of all classes, `[classes, inputs]`.
    fn centres(self) -> &'static [f32] {
        static TEXT: OnceLock<Vec<f32>> = OnceLock::new();
        static CIFAR: OnceLock<Vec<f32>> = OnceLock::new();
        static LARGE: OnceLock<Vec<f32>> = OnceLock::new();
        let compute = || {
            let stream = mixed(self.stream(Kind::Centres, 0));
            (0..(self.classes() * self.inputs()) as u64).map(|at| normal(stream, at)).collect()
        };
        match self {
            Self::MlpText => TEXT.get_or_init(compute),
            Self::CnnCifar => CIFAR.get_or_init(compute),
            Self::Cnn224 => LARGE.get_or_init(compute),
            Self::Linear => &[],
        }
    }

    /// The first parameters of a model of this task.
    ///
    /// # Errors
    /// [`ArchitectureError`] if it cannot be trained.
    pub fn initial_parameters(self, architecture: &Architecture) -> Result<Vec<f32>, ArchitectureError> {
        architecture.check()?;
        let mut parameters = Vec::with_capacity(architecture.parameter_count());
        let mut tensor = 0;
        let mut image = None;
        for stacked in architecture.stack()? {
            let mut fan = 1;
            // Flattening keeps the order of our numbers, and the other order is that of the image.
            if let Shape::Image { height, width, channels } = stacked.input {
                image = Some([height, width, channels]);
            }
            for (_, shape) in stacked.layer.tensors(stacked.input) {
                let stream = mixed(self.stream(Kind::Weights, tensor));
                fan = if shape.len() > 1 { shape[..shape.len() - 1].iter().product() } else { fan };
                let root = (fan as f64).sqrt();
                let count = shape.iter().product::<usize>();
                let weight = |at: usize| {
                    let place = elsewhere(&shape, image, at);
                    ((2.0 * f64::from(unit(random(stream, place as u64))) - 1.0) / root) as f32
                };
                parameters.extend((0..count).map(weight));
                tensor += 1;
            }
            if let Layer::Dense { .. } = stacked.layer {
                image = None;
            }
        }
        Ok(parameters)
    }

    /// The cohort of a round, counted from 0: `size` of `population` clients, by a partial Fisher-Yates shuffle. Public,
    /// so it amplifies no privacy. Costs what the cohort does, not what the population does.
    pub fn cohort(self, round: u64, size: u64, population: u64) -> BTreeSet<u64> {
        let stream = mixed(self.stream(Kind::Cohort, round));
        let mut moved: HashMap<u64, u64> = HashMap::new();
        (0..size.min(population))
            .map(|at| {
                let other = at + random(stream, at) % (population - at);
                let here = moved.get(&at).copied().unwrap_or(at);
                moved.insert(other, here).unwrap_or(other)
            })
            .collect()
    }
}

/// Where the weight that we keep at `at` stands in the order of PyTorch.
fn elsewhere(shape: &[usize], image: Option<[usize; 3]>, at: usize) -> usize {
    match *shape {
        [inputs, outputs] => {
            let (input, output) = (at / outputs, at % outputs);
            let input = match image {
                Some([height, width, channels]) if height * width * channels == inputs => {
                    input % channels * height * width + input / channels
                }
                _ => input,
            };
            output * inputs + input
        }
        [height, width, inputs, outputs] => {
            let (output, input) = (at % outputs, at / outputs % inputs);
            (output * inputs + input) * height * width + at / outputs / inputs
        }
        _ => at,
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What all positions of a stream share.
fn mixed(stream: u64) -> u64 {
    mix(stream)
}

#[inline(always)]
fn random(mixed: u64, at: u64) -> u64 {
    mix(mixed.wrapping_add(at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[inline(always)]
fn unit(random: u64) -> f32 {
    ((random >> 40) as u32) as f32 / 16_777_216.0
}

/// Uniform in [-1/2, 1/2).
fn centred(mixed: u64, first: u64, values: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (at, value) in (0_u64..).zip(values.iter_mut()) {
                *value = unit(random(mixed, first + at)) - 0.5;
            }
        },
    );
}

fn normal(mixed: u64, at: u64) -> f32 {
    let radius = (-2.0 * (1.0 - f64::from(unit(random(mixed, 2 * at)))).ln()).sqrt();
    let angle = 2.0 * std::f64::consts::PI * f64::from(unit(random(mixed, 2 * at + 1)));
    (radius * angle.cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    #[test]
    fn a_client_is_a_function_of_its_number() {
        for workload in [Workload::MlpText, Workload::CnnCifar, Workload::Linear] {
            let both = workload.clients(7..9);
            let (seventh, eighth) = (workload.client(7), workload.client(8));
            let (count, inputs) = (workload.examples(), workload.inputs());
            assert_eq!((both.len(), both.dataset().inputs()), (2 * count, inputs));
            assert_eq!(both.dataset().features().row(count), eighth.dataset().features().row(0));
            assert_ne!(seventh.dataset().features(), eighth.dataset().features());
            assert_eq!(seventh.labels().next(), Some(7 % workload.classes() as u32));
        }
    }

    #[test]
    fn normal_numbers_have_the_moments_of_their_distribution() {
        let stream = mixed(42);
        let drawn: Vec<f64> = (0..100_000).map(|at| f64::from(normal(stream, at))).collect();
        let mean = drawn.iter().sum::<f64>() / 1e5;
        let variance = drawn.iter().map(|x| x * x).sum::<f64>() / 1e5;
        // Six standard errors: 1/√n of the mean, √(2/n) of the variance.
        assert!(mean.abs() < 0.019 && (variance - 1.0).abs() < 0.027, "{mean} {variance}");
    }

    #[test]
    fn a_cohort_is_that_of_a_shuffle_of_everyone() {
        let stream = mixed(Workload::Linear.stream(Kind::Cohort, 3));
        let mut everyone: Vec<u64> = (0..50).collect();
        for at in 0..20 {
            everyone.swap(at, at + (random(stream, at as u64) % (50 - at as u64)) as usize);
        }
        let expected: BTreeSet<u64> = everyone[..20].iter().copied().collect();
        assert_eq!(Workload::Linear.cohort(3, 20, 50), expected);
        assert_eq!(expected.len(), 20);
        assert_eq!(Workload::Linear.cohort(0, 5, 5).len(), 5);
    }

    #[test]
    fn weights_are_the_same_in_either_order() {
        let image = Shape::Image { height: 4, width: 4, channels: 2 };
        let layers = vec![
            Layer::Conv2d { channels: 3, kernel: 2, stride: 1, padding: 0 },
            Layer::Activation(Activation::Relu),
            Layer::Flatten,
            Layer::Dense { outputs: 5 },
        ];
        let model = Architecture::Layers { input: image, layers, classes: 2 };
        let parameters = Workload::CnnCifar.initial_parameters(&model).unwrap();
        let theirs = |tensor: u64, at: usize, fan: f64| {
            let u = unit(random(mixed(Workload::CnnCifar.stream(Kind::Weights, tensor)), at as u64));
            ((2.0 * f64::from(u) - 1.0) / fan.sqrt()) as f32
        };
        // Convolution: theirs is [out, in, row, column], ours [row, column, in, out].
        let (out, input, row, column) = (2, 1, 1, 0);
        let ours = ((row * 2 + column) * 2 + input) * 3 + out;
        assert_eq!(parameters[ours], theirs(0, ((out * 2 + input) * 2 + row) * 2 + column, 8.0));
        assert_eq!(parameters[24 + 2], theirs(1, 2, 8.0));
        // Dense after 3 x 3 pixels of 3 channels: theirs is [out, (channel, row, column)], ours [(row, column, channel), out].
        let (out, channel, row, column) = (4, 1, 2, 1);
        let ours = 27 + ((row * 3 + column) * 3 + channel) * 5 + out;
        assert_eq!(parameters[ours], theirs(2, out * 27 + channel * 9 + row * 3 + column, 27.0));
        // The last layer has no image before it.
        assert_eq!(parameters[27 + 135 + 5 + 3 * 2 + 1], theirs(4, 5 + 3, 5.0));
    }
}
