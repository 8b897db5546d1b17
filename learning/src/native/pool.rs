//! The largest number of each channel in squares of an image, one example at a time.

use super::plane::Plane;
use crate::kernel::vectorized;

/// Pooling by squares that do not overlap.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// The image that comes in; its gradient may have a margin.
    pub(super) input: Plane,
    pub(super) output: Plane,
    pub(super) size: usize,
}

impl Pool {
    /// `places` gets which pixel of its square each number came from, counted row by row; the first of several. As wide as
    /// the numbers, so that both fit the same lanes.
    pub(super) fn forward(&self, input: &[f32], output: &mut [f32], places: &mut [u32]) {
        let (channels, row) = (self.input.channels, self.input.width * self.input.channels);
        vectorized(
            #[inline(always)]
            || {
                let squares = output.chunks_exact_mut(channels).zip(places.chunks_exact_mut(channels));
                for (square, (largest, places)) in squares.enumerate() {
                    let (y, x) = (square / self.output.width, square % self.output.width);
                    let corner = y * self.size * row + x * self.size * channels;
                    largest.copy_from_slice(&input[corner..corner + channels]);
                    places.fill(0);
                    for place in 1..self.size * self.size {
                        let at = corner + place / self.size * row + place % self.size * channels;
                        let pixel = &input[at..at + channels];
                        for ((value, largest), from) in pixel.iter().zip(&mut *largest).zip(&mut *places) {
                            let larger = *value > *largest;
                            *largest = if larger { *value } else { *largest };
                            *from = if larger { place as u32 } else { *from };
                        }
                    }
                }
            },
        );
    }

    /// Hands each number of the gradient to the pixel it came from. What belongs to no square is left as it is: zero.
    pub(super) fn backward(&self, gradient: &[f32], places: &[u32], below: &mut [f32]) {
        let channels = self.input.channels;
        vectorized(
            #[inline(always)]
            || {
                let squares = gradient.chunks_exact(channels).zip(places.chunks_exact(channels));
                for (square, (gradient, places)) in squares.enumerate() {
                    let (y, x) = (square / self.output.width, square % self.output.width);
                    for place in 0..self.size * self.size {
                        let row = self.input.row(y * self.size + place / self.size);
                        let at = row.start + (x * self.size + place % self.size) * channels;
                        let pixel = &mut below[at..at + channels];
                        for ((value, &gradient), &from) in pixel.iter_mut().zip(gradient).zip(places) {
                            *value = if from == place as u32 { gradient } else { 0.0 };
                        }
                    }
                }
            },
        );
    }
}
