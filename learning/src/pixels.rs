//! Images kept as bytes, and how a byte becomes a number.

use thiserror::Error;

/// How the bytes of images become the numbers that a model sees: (byte / 255 − mean) / deviation, channel by channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// For each channel, the number of every byte.
    tables: Vec<[f32; 256]>,
}

/// Means and deviations that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScalingError {
    /// Not as many means as deviations, or none.
    #[error("{means} means and {deviations} deviations; there must be one of each for every channel")]
    Channels {
        /// Means given.
        means: usize,
        /// Deviations given.
        deviations: usize,
    },
    /// A number that is not finite, or a deviation that is not above 0.
    #[error("means must be finite numbers, and deviations finite numbers above 0")]
    Range,
}

impl Scaling {
    /// From 0..=255 to 0..=1.
    pub fn plain() -> Self {
        Scaling { tables: vec![table(0.0, 1.0)] }
    }

    /// With a mean and a standard deviation for each channel, of bytes divided by 255.
    ///
    /// # Errors
    /// [`ScalingError`].
    pub fn new(means: &[f32], deviations: &[f32]) -> Result<Self, ScalingError> {
        if means.is_empty() || means.len() != deviations.len() {
            return Err(ScalingError::Channels { means: means.len(), deviations: deviations.len() });
        }
        let pairs = means.iter().zip(deviations);
        match pairs
            .clone()
            .all(|(mean, deviation)| mean.is_finite() && deviation.is_finite() && *deviation > 0.0)
        {
            true => Ok(Scaling { tables: pairs.map(|(&mean, &deviation)| table(mean, deviation)).collect() }),
            false => Err(ScalingError::Range),
        }
    }

    /// Makes bytes, channels last, numbers.
    fn apply(&self, bytes: &[u8], into: &mut [f32]) {
        match self.tables.as_slice() {
            [table] => {
                into.iter_mut().zip(bytes).for_each(|(number, &byte)| *number = table[usize::from(byte)])
            }
            tables => {
                let pixels = into.chunks_mut(tables.len()).zip(bytes.chunks(tables.len()));
                for (numbers, bytes) in pixels {
                    for ((number, &byte), table) in numbers.iter_mut().zip(bytes).zip(tables) {
                        *number = table[usize::from(byte)];
                    }
                }
            }
        }
    }
}

fn table(mean: f32, deviation: f32) -> [f32; 256] {
    std::array::from_fn(|byte| (byte as f32 / BRIGHTEST - mean) / deviation)
}

/// The largest byte.
pub(crate) const BRIGHTEST: f32 = 255.0;

/// Images of one size.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pixels {
    bytes: Vec<u8>,
    of_image: usize,
    scaling: Scaling,
}

impl Pixels {
    /// `bytes` are so many for each image, at least 1, one image after the other.
    pub(crate) fn new(bytes: Vec<u8>, of_image: usize, scaling: Scaling) -> Self {
        Pixels { bytes, of_image, scaling }
    }

    /// Bytes of an image.
    pub(crate) fn of_image(&self) -> usize {
        self.of_image
    }

    pub(crate) fn scaling(&self) -> &Scaling {
        &self.scaling
    }

    /// Makes `into` the numbers of an image.
    pub(crate) fn copy_image(&self, image: usize, into: &mut [f32]) {
        self.scaling.apply(self.image(image), into);
    }

    /// The bytes of some images.
    pub(crate) fn select(&self, images: &[usize]) -> Vec<u8> {
        images.iter().flat_map(|&image| self.image(image)).copied().collect()
    }

    fn image(&self, image: usize) -> &[u8] {
        &self.bytes[image * self.of_image..][..self.of_image]
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{arr1, arr2};

    use super::*;
    use crate::Dataset;

    #[test]
    fn bytes_are_scaled_channel_by_channel() {
        let scaling = Scaling::new(&[0.0, 1.0], &[1.0, 0.5]).unwrap();
        let data =
            Dataset::of_pixels(vec![0, 0, 255, 255, 51, 51, 0, 255], scaling, arr1(&[0, 1]), 2).unwrap();
        assert_eq!(data.features(), arr2(&[[0.0, -2.0, 1.0, 0.0], [0.2, -1.6, 0.0, 0.0]]));
        assert_eq!(data.rows(&[1]).unwrap().features(), arr2(&[[0.2, -1.6, 0.0, 0.0]]));
        let plain = Dataset::of_pixels(vec![0, 255, 51], Scaling::plain(), arr1(&[0, 0, 1]), 2).unwrap();
        assert_eq!(plain.features(), arr2(&[[0.0], [1.0], [0.2]]));
    }

    #[test]
    fn what_scales_nothing_is_refused() {
        assert_eq!(Scaling::new(&[], &[]), Err(ScalingError::Channels { means: 0, deviations: 0 }));
        assert_eq!(
            Scaling::new(&[0.0], &[1.0, 1.0]),
            Err(ScalingError::Channels { means: 1, deviations: 2 })
        );
        for (mean, deviation) in [(f32::NAN, 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, f32::INFINITY)] {
            assert_eq!(Scaling::new(&[mean], &[deviation]), Err(ScalingError::Range));
        }
    }

    #[test]
    fn bytes_that_are_no_images_are_refused() {
        let of = |bytes: usize, labels: &[u32]| {
            Dataset::of_pixels(vec![0; bytes], Scaling::plain(), arr1(labels), 2).unwrap_err().to_string()
        };
        assert!(of(0, &[]).contains("at least one example"));
        assert!(of(5, &[0, 1]).contains("5 rows of features but 2 labels"), "{}", of(5, &[0, 1]));
        assert!(of(4, &[0, 2]).contains("label 2 is not below"));
    }
}
