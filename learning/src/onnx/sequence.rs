//! Embeddings, attention and what belongs to them: values of shape `[batch, length, width]`.

use super::wire::{self, INT64};
use super::{EPSILON, Graph};
use crate::layer::Block;
use crate::{Layer, NormPlace, Shape};

impl Graph {
    /// The vector of each word, zeros where there is none; which places are words is kept.
    pub(super) fn embed(&mut self, name: &str, [vocabulary, width]: [usize; 2], weight: &[f32]) {
        let named = |what: &str| format!("{name}.{what}");
        let weight = self.floats(&named("weight"), &[vocabulary, width], weight);
        let numbers = std::mem::take(&mut self.value);
        let zero = self.floats(&named("zero"), &[], &[0.0]);
        let last = self.ints(&named("last_axis"), &[2]);
        let is_word = self.step("GreaterOrEqual", named("is_word"), [&numbers, &zero], None);
        let mask = self.step("Cast", named("mask"), [&is_word, ""], Some(("to", wire::FLOAT)));
        let some_word = self.step("Max", named("some_word"), [&numbers, &zero], None);
        let word = self.step("Cast", named("word"), [&some_word, ""], Some(("to", INT64)));
        let vectors = self.step("Gather", named("vectors"), [&weight, &word], Some(("axis", 0)));
        let wide_mask = self.step("Unsqueeze", named("wide_mask"), [&mask, &last], None);
        self.value = self.step("Mul", named("masked"), [&vectors, &wide_mask], None);
        (self.mask, self.wide_mask) = (mask, wide_mask);
    }

    /// A learned vector for each place.
    pub(super) fn add_positions(&mut self, name: &str, shape: &[usize], weight: &[f32]) {
        let weight = self.floats(&format!("{name}.weight"), shape, weight);
        self.push("Add", &format!("{name}.placed"), &[weight], |node| node);
    }

    /// One vector for each sequence of `width` numbers a place.
    pub(super) fn summarize(&mut self, name: &str, layer: Layer) {
        let named = |what: &str| format!("{name}.{what}");
        let places = self.ints(&named("places_axis"), &[1]);
        let value = std::mem::take(&mut self.value);
        self.value = match layer {
            Layer::First => {
                let zero = self.ints(&named("zero"), &[0]);
                let first = self.step("Gather", named("first"), [&value, &zero], Some(("axis", 1)));
                self.step("Squeeze", named("vector"), [&first, &places], None)
            }
            _ => {
                let (mask, wide_mask) = (self.mask.clone(), self.wide_mask.clone());
                let one = self.floats(&named("one"), &[], &[1.0]);
                let masked = self.step("Mul", named("masked"), [&value, &wide_mask], None);
                let sum = self.step("ReduceSum", named("sum"), [&masked, &places], Some(("keepdims", 0)));
                let count = self.step("ReduceSum", named("count"), [&mask, &places], Some(("keepdims", 1)));
                let some = self.step("Max", named("some_count"), [&count, &one], None);
                self.step("Div", named("mean"), [&sum, &some], None)
            }
        };
    }

    /// `x W + b` for every vector of a sequence.
    pub(super) fn project(
        &mut self,
        name: &str,
        input: &str,
        [inputs, outputs]: [usize; 2],
        values: &[f32],
    ) -> String {
        let (weight, bias) = values.split_at(inputs * outputs);
        let weight = self.floats(&format!("{name}.weight"), &[inputs, outputs], weight);
        let bias = self.floats(&format!("{name}.bias"), &[outputs], bias);
        let product = self.step("MatMul", format!("{name}.product"), [input, &weight], None);
        self.step("Add", format!("{name}.dense"), [&product, &bias], None)
    }

    /// A convolution that looks back only: vectors last here, first there.
    pub(super) fn causal_conv(
        &mut self,
        name: &str,
        [kernel, inputs, outputs]: [usize; 3],
        dilation: usize,
        parameters: &[f32],
    ) {
        let named = |what: &str| format!("{name}.{what}");
        let (weight, bias) = parameters.split_at(kernel * inputs * outputs);
        let turned: Vec<f32> = (0..weight.len())
            .map(|at| {
                let (output, input, place) = (at / (inputs * kernel), at / kernel % inputs, at % kernel);
                weight[(place * inputs + input) * outputs + output]
            })
            .collect();
        let weight = self.floats(&named("weight"), &[outputs, inputs, kernel], &turned);
        let bias = self.floats(&named("bias"), &[outputs], bias);
        let margin = [((kernel - 1) * dilation) as i64, 0];
        self.push("Transpose", &named("channels"), &[], |node| node.ints("perm", &[0, 2, 1]));
        self.push("Conv", &named("conv"), &[weight, bias], |node| {
            node.ints("dilations", &[dilation as i64]).ints("pads", &margin)
        });
        self.push("Transpose", &named("vectors"), &[], |node| node.ints("perm", &[0, 2, 1]));
    }

    fn normalized(&mut self, name: &str, input: &str, values: &[f32]) -> String {
        let (scale, shift) = values.split_at(values.len() / 2);
        let scale = self.floats(&format!("{name}.scale"), &[scale.len()], scale);
        let shift = self.floats(&format!("{name}.shift"), &[shift.len()], shift);
        let (output, inputs) = (format!("{name}.normal"), [input.to_owned(), scale, shift]);
        self.compute("LayerNormalization", &output, &inputs, |node| {
            node.int("axis", -1).float("epsilon", EPSILON)
        });
        output
    }

    /// A block of a transformer on `[batch, length, width]`.
    pub(super) fn block(&mut self, name: &str, block: Block, input: Shape, parameters: &[f32]) {
        let Shape::Sequence { length, width } = input else { return };
        let named = |what: &str| format!("{name}.{what}");
        let mut rest = parameters;
        let mut take = |numbers: usize| {
            let (own, following) = rest.split_at(numbers);
            rest = following;
            own
        };
        let [query, key, value, mix] = std::array::from_fn(|_| take(width * width + width));
        let up = take(width * block.feed_forward + block.feed_forward);
        let down = take(width * block.feed_forward + width);
        let norms = [take(2 * width), take(2 * width)];

        let x = std::mem::take(&mut self.value);
        let is_before = block.norm == NormPlace::Before;
        let attending = if is_before { self.normalized(&named("norm.0"), &x, norms[0]) } else { x.clone() };
        let square = [width, width];
        let query = self.project(&named("query"), &attending, square, query);
        let key = self.project(&named("key"), &attending, square, key);
        let value = self.project(&named("value"), &attending, square, value);
        let answer = self.attend(name, block, [length, width], [query, key, value]);
        let mixed = self.project(&named("attention"), &answer, square, mix);
        let mut y = self.step("Add", named("first_sum"), [&x, &mixed], None);
        if !is_before {
            y = self.normalized(&named("norm.0"), &y, norms[0]);
        }
        let feeding = if is_before { self.normalized(&named("norm.1"), &y, norms[1]) } else { y.clone() };
        let wide = self.project(&named("up"), &feeding, [width, block.feed_forward], up);
        let bent = self.gelu(name, &wide);
        let narrow = self.project(&named("down"), &bent, [block.feed_forward, width], down);
        let mut z = self.step("Add", named("second_sum"), [&y, &narrow], None);
        if !is_before {
            z = self.normalized(&named("norm.1"), &z, norms[1]);
        }
        self.value = z;
    }

    fn attend(
        &mut self,
        name: &str,
        block: Block,
        [length, width]: [usize; 2],
        [query, key, value]: [String; 3],
    ) -> String {
        let named = |what: &str| format!("{name}.{what}");
        let depth = width / block.heads;
        let split = self.ints(&named("split"), &[0, length as i64, block.heads as i64, depth as i64]);
        let heads = |graph: &mut Self, what: &str, input: &str, order: [i64; 4]| {
            let rows = graph.step("Reshape", named(&format!("{what}.rows")), [input, &split], None);
            let output = named(&format!("{what}.heads"));
            graph.compute("Transpose", &output, &[rows], |node| node.ints("perm", &order));
            output
        };
        let query = heads(self, "query", &query, [0, 2, 1, 3]);
        let key = heads(self, "key", &key, [0, 2, 3, 1]);
        let value = heads(self, "value", &value, [0, 2, 1, 3]);
        let scale = self.floats(&named("scale"), &[], &[1.0 / (depth as f32).sqrt()]);
        let (one, large) =
            (self.floats(&named("one"), &[], &[1.0]), self.floats(&named("large"), &[], &[1e9]));
        let axes = self.ints(&named("axes"), &[1, 2]);
        let mask = self.mask.clone();
        let seen = self.step("Unsqueeze", named("seen"), [&mask, &axes], None);
        let unseen = self.step("Sub", named("unseen"), [&seen, &one], None);
        let mut hidden = self.step("Mul", named("hidden"), [&unseen, &large], None);
        if block.causal {
            let later = |at: usize| if at % length > at / length { -1e9 } else { 0.0 };
            let later: Vec<f32> = (0..length * length).map(later).collect();
            let later = self.floats(&named("later"), &[1, 1, length, length], &later);
            hidden = self.step("Add", named("hidden_or_later"), [&hidden, &later], None);
        }
        let product = self.step("MatMul", named("product"), [&query, &key], None);
        let scores = self.step("Mul", named("scores"), [&product, &scale], None);
        let shown = self.step("Add", named("shown"), [&scores, &hidden], None);
        let shares = self.step("Softmax", named("shares"), [&shown, ""], Some(("axis", -1)));
        // Who sees nothing answers nothing.
        let shares = self.step("Mul", named("seen_shares"), [&shares, &seen], None);
        let answers = self.step("MatMul", named("answers"), [&shares, &value], None);
        let joined = named("joined");
        self.compute("Transpose", &joined, &[answers], |node| node.ints("perm", &[0, 2, 1, 3]));
        let whole = self.ints(&named("whole"), &[0, length as i64, width as i64]);
        self.step("Reshape", named("answer"), [&joined, &whole], None)
    }

    /// x Φ(x); ONNX has a GELU from opset 20 on.
    fn gelu(&mut self, name: &str, x: &str) -> String {
        let named = |what: &str| format!("{name}.gelu.{what}");
        let root = self.floats(&named("root"), &[], &[std::f32::consts::SQRT_2]);
        let (one, half) = (self.floats(&named("one"), &[], &[1.0]), self.floats(&named("half"), &[], &[0.5]));
        let divided = self.step("Div", named("divided"), [x, &root], None);
        let error = self.step("Erf", named("error"), [&divided, ""], None);
        let twice = self.step("Add", named("twice"), [&error, &one], None);
        let below = self.step("Mul", named("below"), [&twice, &half], None);
        self.step("Mul", named("bent"), [x, &below], None)
    }
}
