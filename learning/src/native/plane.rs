//! Where the numbers of one example lie in a gradient: an image may have a margin of zeros around it.

use std::ops::Range;

use crate::Shape;

/// An image `[height, width, channels]` inside a margin; a vector is an image of one pixel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) margin: usize,
}

impl Plane {
    pub(super) fn new(shape: Shape, margin: usize) -> Self {
        match shape {
            Shape::Vector(len) => Plane { height: 1, width: 1, channels: len, margin },
            Shape::Sequence { length, width } | Shape::Each { length, width } => {
                Plane { height: length, width: 1, channels: width, margin }
            }
            Shape::Image { height, width, channels } => Plane { height, width, channels, margin },
        }
    }

    /// Numbers in it, with the margin.
    pub(super) fn len(&self) -> usize {
        (self.height + 2 * self.margin) * self.row_stride()
    }

    /// From one row of pixels to the next.
    pub(super) fn row_stride(&self) -> usize {
        (self.width + 2 * self.margin) * self.channels
    }

    /// A row of pixels, without the margin.
    pub(super) fn row(&self, y: usize) -> Range<usize> {
        let start = (y + self.margin) * self.row_stride() + self.margin * self.channels;
        start..start + self.width * self.channels
    }

    /// Every row of pixels beside the same row of an image without a margin.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (plane, len) = (*self, self.width * self.channels);
        (0..self.height).map(move |y| (plane.row(y), y * len..(y + 1) * len))
    }
}
