//! Training a part of a model: tensors that stay as they are, and low-rank adapters beside others.
//!
//! The coordinates of what is trained are the only parameters that a federation sees: the tensors that are not frozen, in their
//! order, and for each weight W with an adapter, of shape `[inputs, outputs]`, A `[inputs, rank]` and B `[rank, outputs]` in
//! its place. The model is computed with W + alpha/rank · A B (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
//! 2106.09685, section 4.1). With G the gradient of that, A has alpha/rank · G Bᵀ and B has alpha/rank · Aᵀ G.

use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::kernel::{Extent, Left, Onto, Out, Right, multiply};
use crate::{Architecture, ArchitectureError, Segment};

/// What of a model is trained. Patterns are about the names of tensors, see [`Architecture::segments`]; `*` in one stands for any
/// letters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Tensors that stay as they are: of the patterns that a name matches the last one decides, and one that begins with `!` says
    /// that it is trained.
    pub frozen: Vec<String>,
    /// Adapters beside frozen weights, if there are any.
    pub lora: Option<Lora>,
}

/// Low-rank adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Columns of A and rows of B, at least 1.
    pub rank: usize,
    /// What A B is multiplied with is alpha/rank; finite and above 0.
    pub alpha: f64,
    /// Patterns of the weights that have one; these are frozen.
    pub targets: Vec<String>,
}

/// Why a model cannot be trained in part.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum TuningError {
    /// There is no such model.
    #[error(transparent)]
    Architecture(#[from] ArchitectureError),
    /// A pattern is about nothing.
    #[error("`{pattern}` is the name of no tensor; there are: {}", names.join(", "))]
    NoTensor {
        /// The pattern.
        pattern: String,
        /// The names of all tensors.
        names: Vec<String>,
    },
    /// Adapters are products of two matrices.
    #[error("`{name}` has shape {shape:?}: an adapter stands beside a weight of two dimensions")]
    NotAMatrix {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A rank that is none, or an alpha.
    #[error("adapters need a rank of at least 1 and a finite alpha above 0")]
    Rank,
    /// Nothing is left to train.
    #[error("everything is frozen: nothing is left to train")]
    NothingToTrain,
}

impl Tuning {
    /// Whether the whole model is trained.
    pub fn is_whole(&self) -> bool {
        self.frozen.is_empty() && self.lora.is_none()
    }

    /// Whether the tensor of this name stays as it is; it may have an adapter.
    fn freezes(&self, name: &str) -> bool {
        let frozen = |frozen, pattern: &String| match pattern.strip_prefix('!') {
            Some(pattern) if matches(pattern, name) => false,
            None if matches(pattern, name) => true,
            _ => frozen,
        };
        self.frozen.iter().fold(false, frozen)
    }
}

/// Whether a name matches a pattern, in which `*` stands for any letters, also none.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(end)
}

/// Where what is trained of a model lies, in the model and among the coordinates.
#[derive(Debug, Clone)]
pub struct Coordinates {
    parts: Vec<Part>,
    len: usize,
    whole: usize,
    rank: usize,
    scale: f32,
}

#[derive(Debug, Clone)]
struct Part {
    name: String,
    shape: Vec<usize>,
    /// In the model.
    of: Range<usize>,
    /// Among the coordinates.
    at: Range<usize>,
    has_adapter: bool,
}

impl Coordinates {
    /// What `tuning` trains of models of `architecture`.
    ///
    /// # Errors
    /// [`TuningError`].
    pub fn new(architecture: &Architecture, tuning: &Tuning) -> Result<Self, TuningError> {
        architecture.check()?;
        let segments = architecture.segments();
        let targets = tuning.lora.as_ref().map_or(&[][..], |lora| &lora.targets);
        check_patterns(&segments, tuning.frozen.iter().map(|pattern| pattern.trim_start_matches('!')))?;
        check_patterns(&segments, targets.iter().map(String::as_str))?;
        let (rank, scale) = match &tuning.lora {
            None => (0, 0.0),
            Some(Lora { rank, alpha, .. }) if *rank > 0 && alpha.is_finite() && *alpha > 0.0 => {
                (*rank, (alpha / *rank as f64) as f32)
            }
            Some(_) => return Err(TuningError::Rank),
        };
        let (mut parts, mut len) = (Vec::new(), 0);
        for Segment { name, shape, offset } in segments {
            let numbers: usize = shape.iter().product();
            let has_adapter = targets.iter().any(|pattern| matches(pattern, &name));
            let coordinates = match (has_adapter, shape.as_slice()) {
                (true, [inputs, outputs]) => rank * (inputs + outputs),
                (true, _) => return Err(TuningError::NotAMatrix { name, shape }),
                (false, _) if tuning.freezes(&name) => continue,
                (false, _) => numbers,
            };
            let (of, at) = (offset..offset + numbers, len..len + coordinates);
            parts.push(Part { name, shape, of, at, has_adapter });
            len += coordinates;
        }
        match len {
            0 => Err(TuningError::NothingToTrain),
            _ => Ok(Coordinates { parts, len, whole: architecture.parameter_count(), rank, scale }),
        }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "something is trained")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where what is trained lies in the model: the tensors themselves, and those beside which an adapter stands.
    pub(crate) fn in_model(&self) -> Vec<Range<usize>> {
        self.parts.iter().map(|part| part.of.clone()).collect()
    }

    /// Parameters of the whole model.
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// The tensors that are trained; of an adapter `NAME.lora_a` and `NAME.lora_b`.
    pub fn segments(&self) -> Vec<Segment> {
        let of_part = |part: &Part| {
            let (offset, rank) = (part.at.start, self.rank);
            match part.shape.as_slice() {
                &[inputs, outputs] if part.has_adapter => {
                    let named = |end: &str| format!("{}.{end}", part.name);
                    let b = Segment {
                        name: named("lora_b"),
                        shape: vec![rank, outputs],
                        offset: offset + inputs * rank,
                    };
                    vec![Segment { name: named("lora_a"), shape: vec![inputs, rank], offset }, b]
                }
                shape => vec![Segment { name: part.name.clone(), shape: shape.to_vec(), offset }],
            }
        };
        self.parts.iter().flat_map(of_part).collect()
    }

    /// The coordinates at which the model is `base`: every A is uniform in ±sqrt(3/inputs), drawn under `key`, and every B zero.
    ///
    /// # Panics
    /// If `base` is no model of the architecture.
    pub fn start(&self, base: &[f32], key: [u8; 32]) -> Vec<f32> {
        assert_eq!(base.len(), self.whole, "the base is another model");
        let mut start = vec![0.0; self.len];
        for (number, part) in (0..).zip(&self.parts) {
            let values = &mut start[part.at.clone()];
            if !part.has_adapter {
                values.copy_from_slice(&base[part.of.clone()]);
                continue;
            }
            let mut generator = ChaCha8Rng::from_seed(key);
            generator.set_stream(number);
            let limit = (3.0 / part.shape[0] as f32).sqrt();
            let a = &mut values[..part.shape[0] * self.rank];
            a.iter_mut().for_each(|value| *value = (2.0 * generator.random::<f32>() - 1.0) * limit);
        }
        start
    }

    /// Makes `model` the model at `coordinates` over `base`, of which what is frozen keeps every bit.
    ///
    /// # Panics
    /// If a length is another.
    pub fn assemble(&self, base: &[f32], coordinates: &[f32], model: &mut Vec<f32>) {
        assert_eq!((base.len(), coordinates.len()), (self.whole, self.len), "of another model");
        model.clear();
        model.extend_from_slice(base);
        for part in &self.parts {
            let (weight, values) = (&mut model[part.of.clone()], &coordinates[part.at.clone()]);
            if !part.has_adapter {
                weight.copy_from_slice(values);
                continue;
            }
            let [inputs, outputs] = [part.shape[0], part.shape[1]];
            let (a, b) = values.split_at(inputs * self.rank);
            multiply(
                Extent::plain(inputs, self.rank, outputs),
                self.scale,
                Left { data: a, row_group: 0, row: self.rank, depth_group: 0, depth: 1 },
                Right { data: b, depth_group: 0, depth: outputs },
                Onto::Itself,
                Out { data: weight, row_group: 0, row: outputs },
            );
        }
    }

    /// Makes `gradient` that of the coordinates, from that of the model there.
    ///
    /// # Panics
    /// If a length is another.
    pub fn pull_back(&self, coordinates: &[f32], of_model: &[f32], gradient: &mut [f32]) {
        assert_eq!((of_model.len(), coordinates.len()), (self.whole, self.len), "of another model");
        let mut turned = Vec::new();
        for part in &self.parts {
            let (whole, into) = (&of_model[part.of.clone()], &mut gradient[part.at.clone()]);
            if !part.has_adapter {
                into.copy_from_slice(whole);
                continue;
            }
            let ([inputs, outputs], rank) = ([part.shape[0], part.shape[1]], self.rank);
            let (a, b) = coordinates[part.at.clone()].split_at(inputs * rank);
            let (into_a, into_b) = into.split_at_mut(inputs * rank);
            turned.clear();
            turned.extend((0..outputs * rank).map(|at| b[at % rank * outputs + at / rank]));
            multiply(
                Extent::plain(inputs, outputs, rank),
                self.scale,
                Left { data: whole, row_group: 0, row: outputs, depth_group: 0, depth: 1 },
                Right { data: &turned, depth_group: 0, depth: rank },
                Onto::Nothing,
                Out { data: into_a, row_group: 0, row: rank },
            );
            multiply(
                Extent::plain(rank, inputs, outputs),
                self.scale,
                Left { data: a, row_group: 0, row: 1, depth_group: 0, depth: rank },
                Right { data: whole, depth_group: 0, depth: outputs },
                Onto::Nothing,
                Out { data: into_b, row_group: 0, row: outputs },
            );
        }
    }
}

/// Whether every pattern is about some tensor.
fn check_patterns<'p>(
    segments: &[Segment],
    mut patterns: impl Iterator<Item = &'p str>,
) -> Result<(), TuningError> {
    let unknown = |pattern: &&str| !segments.iter().any(|segment| matches(pattern, &segment.name));
    match patterns.find(unknown) {
        None => Ok(()),
        Some(pattern) => {
            let names = segments.iter().map(|segment| segment.name.clone()).collect();
            Err(TuningError::NoTensor { pattern: pattern.to_owned(), names })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, expected) in [
            ("*", "output.weight", true),
            ("output.*", "output.weight", true),
            ("output.*", "0.output.weight", false),
            ("*.query.weight", "2.transformer_block.query.weight", true),
            ("*.query.weight", "2.transformer_block.query.bias", false),
            ("2.*.w*t", "2.transformer_block.query.weight", true),
            ("output.bias", "output.bias", true),
            ("output.bias", "output.bia", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    fn mlp() -> Architecture {
        Architecture::Mlp { inputs: 5, hidden: vec![4, 3], classes: 2, activation: Activation::Tanh }
    }

    fn lora(targets: &[&str]) -> Option<Lora> {
        Some(Lora { rank: 2, alpha: 3.0, targets: targets.iter().map(|&target| target.to_owned()).collect() })
    }

    fn tuning() -> Tuning {
        let frozen = ["*", "!output.*", "!hidden.1.bias"].map(str::to_owned).to_vec();
        Tuning { frozen, lora: lora(&["hidden.*.weight"]) }
    }

    #[test]
    fn only_what_is_trained_has_coordinates() {
        let coordinates = Coordinates::new(&mlp(), &tuning()).unwrap();
        let segments: Vec<_> =
            coordinates.segments().into_iter().map(|s| (s.name, s.shape, s.offset)).collect();
        let expected = [
            ("hidden.0.weight.lora_a", vec![5, 2], 0),
            ("hidden.0.weight.lora_b", vec![2, 4], 10),
            ("hidden.1.weight.lora_a", vec![4, 2], 18),
            ("hidden.1.weight.lora_b", vec![2, 3], 26),
            ("hidden.1.bias", vec![3], 32),
            ("output.weight", vec![3, 2], 35),
            ("output.bias", vec![2], 41),
        ];
        assert_eq!(segments, expected.map(|(name, shape, at)| (name.to_owned(), shape, at)));
        assert_eq!((coordinates.len(), coordinates.whole()), (43, 47));
    }

    #[test]
    fn a_model_begins_as_its_base_and_keeps_what_is_frozen() {
        let coordinates = Coordinates::new(&mlp(), &tuning()).unwrap();
        let base = mlp().initial_parameters([1; 32]).unwrap();
        let (mut small, mut model) = (coordinates.start(&base, [2; 32]), vec![]);
        coordinates.assemble(&base, &small, &mut model);
        assert_eq!(model, base);
        small.iter_mut().for_each(|value| *value += 0.5);
        coordinates.assemble(&base, &small, &mut model);
        let (a, b) =
            (|row: usize, k: usize| small[row * 2 + k], |k: usize, column: usize| small[10 + k * 4 + column]);
        let changed = base[3 * 4 + 1] + 1.5 * (a(3, 0) * b(0, 1) + a(3, 1) * b(1, 1));
        assert!((model[3 * 4 + 1] - changed).abs() < 1e-6);
        // The bias of the first layer is frozen.
        assert_eq!(model[20..24], base[20..24]);
        assert_eq!(model[36..39], small[32..35]);
    }

    /// The derivative of a linear function of the model along each coordinate, by differences: it is quadratic, so they are exact.
    #[test]
    fn gradients_are_those_of_the_coordinates() {
        let coordinates = Coordinates::new(&mlp(), &tuning()).unwrap();
        let base = mlp().initial_parameters([1; 32]).unwrap();
        let mut small = coordinates.start(&base, [2; 32]);
        small.iter_mut().enumerate().for_each(|(at, value)| *value += (at as f32 * 0.37).sin());
        let direction: Vec<f32> = (0..47).map(|at| (at as f32 * 0.71).cos()).collect();
        let mut gradient = vec![0.0; 43];
        coordinates.pull_back(&small, &direction, &mut gradient);
        let value = |small: &[f32]| {
            let mut model = vec![];
            coordinates.assemble(&base, small, &mut model);
            model.iter().zip(&direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
        };
        for at in 0..43 {
            let moved = |by: f32| {
                let mut moved = small.clone();
                moved[at] += by;
                value(&moved)
            };
            let slope = (moved(0.5) - moved(-0.5)) as f32;
            assert!((slope - gradient[at]).abs() < 2e-5, "[{at}]: {slope} {}", gradient[at]);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |tuning: Tuning| Coordinates::new(&mlp(), &tuning).unwrap_err().to_string();
        let frozen = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let unknown = refused(Tuning { frozen: frozen(&["hiden.*"]), lora: None });
        assert!(
            unknown.starts_with("`hiden.*` is the name of no tensor; there are: hidden.0.weight"),
            "{unknown}"
        );
        let bias = refused(Tuning { frozen: vec![], lora: lora(&["output.bias"]) });
        assert!(bias.contains("has shape [2]"), "{bias}");
        let nothing = refused(Tuning { frozen: frozen(&["*"]), lora: None });
        assert!(nothing.contains("nothing is left"), "{nothing}");
        let none = Lora { rank: 0, alpha: 1.0, targets: frozen(&["output.weight"]) };
        assert_eq!(refused(Tuning { frozen: vec![], lora: Some(none) }), TuningError::Rank.to_string());
    }
}
