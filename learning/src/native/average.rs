//! The mean of each channel in rectangles of an image, one example at a time.

use super::plane::Plane;

/// Pooling by rectangles that do not overlap.
#[derive(Clone, Debug)]
pub(super) struct Average {
    /// The image that comes in; its gradient may have a margin.
    pub(super) input: Plane,
    pub(super) output: Plane,
    /// Rows and columns of a rectangle.
    pub(super) size: [usize; 2],
}

impl Average {
    fn share(&self) -> f32 {
        1.0 / (self.size[0] * self.size[1]) as f32
    }

    /// Which rectangle each pixel of the input lies in, and where both begin; pixels that lie in none are left out.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let (output, [rows, columns]) = (self.output, self.size);
        (0..output.height * rows).flat_map(move |y| {
            (0..output.width * columns)
                .map(move |x| (y, x, (y / rows * output.width + x / columns) * output.channels))
        })
    }

    pub(super) fn forward(&self, input: &[f32], output: &mut [f32]) {
        let (channels, share) = (self.input.channels, self.share());
        output.fill(0.0);
        for (y, x, mean) in self.pairs() {
            let at = (y * self.input.width + x) * channels;
            let means = output[mean..mean + channels].iter_mut();
            means.zip(&input[at..at + channels]).for_each(|(mean, value)| *mean += value * share);
        }
    }

    /// Hands each number of the gradient to all pixels of its rectangle. What belongs to none is left as it is: zero.
    pub(super) fn backward(&self, gradient: &[f32], below: &mut [f32]) {
        let (channels, share) = (self.input.channels, self.share());
        for (y, x, mean) in self.pairs() {
            let at = self.input.row(y).start + x * channels;
            let pixel = below[at..at + channels].iter_mut();
            pixel
                .zip(&gradient[mean..mean + channels])
                .for_each(|(value, gradient)| *value = gradient * share);
        }
    }
}
