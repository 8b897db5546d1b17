//! Images moved and mirrored at random while training.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What is done to each image in each epoch, drawn anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// It is cut out of a margin of so many zeros at random: moved by up to so many pixels up or down, and left or right. Zero
    /// is the mean of normalized images.
    pub crop: usize,
    /// Whether it is mirrored, left to right, half of the time.
    pub flip: bool,
}

/// The draws of one turn of training: a function of a step's seed, which follows from the turn's key, and an example's position.
#[derive(Debug)]
pub(crate) struct Augmenter {
    augmentation: Augmentation,
    /// Height, width and channels.
    image: [usize; 3],
    moved: Vec<f32>,
}

impl Augmenter {
    pub(crate) fn new(augmentation: Augmentation, image: [usize; 3]) -> Self {
        Augmenter { augmentation, image, moved: Vec::new() }
    }

    /// Changes images one after the other, those of the examples at `positions`, as is due in the step with this seed.
    pub(crate) fn apply(&mut self, seed: u64, positions: &[usize], images: &mut [f32]) {
        let len = self.image.iter().product();
        for (&position, image) in positions.iter().zip(images.chunks_exact_mut(len)) {
            let (down, right, flipped) = self.draw(seed, position);
            self.change(image, down, right, flipped);
        }
    }

    /// From ChaCha8 under the step's seed, stream = position.
    fn draw(&self, seed: u64, position: usize) -> (isize, isize, bool) {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(position as u64);
        let reach = self.augmentation.crop as i64;
        let mut shift = || generator.random_range(-reach..=reach) as isize;
        let (down, right) = (shift(), shift());
        (down, right, self.augmentation.flip && generator.random::<bool>())
    }

    fn change(&mut self, image: &mut [f32], down: isize, right: isize, flipped: bool) {
        let [height, width, channels] = self.image;
        self.moved.clear();
        self.moved.resize(image.len(), 0.0);
        for (y, row) in self.moved.chunks_exact_mut(width * channels).enumerate() {
            let Some(from_y) = y.checked_add_signed(-down).filter(|&y| y < height) else { continue };
            for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                let x = if flipped { width - 1 - x } else { x };
                let Some(from_x) = x.checked_add_signed(-right).filter(|&x| x < width) else { continue };
                pixel.copy_from_slice(&image[(from_y * width + from_x) * channels..][..channels]);
            }
        }
        image.copy_from_slice(&self.moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn augmenter(crop: usize, flip: bool) -> Augmenter {
        Augmenter::new(Augmentation { crop, flip }, [2, 3, 2])
    }

    fn numbered() -> Vec<f32> {
        (1..=12).map(|number| number as f32).collect()
    }

    #[test]
    fn an_image_is_moved_and_mirrored_with_its_channels_together() {
        let changed = |down, right, flipped| {
            let mut image = numbered();
            augmenter(1, true).change(&mut image, down, right, flipped);
            image
        };
        assert_eq!(changed(0, 0, false), numbered());
        assert_eq!(changed(0, 0, true), [5., 6., 3., 4., 1., 2., 11., 12., 9., 10., 7., 8.]);
        assert_eq!(changed(1, 0, false), [0., 0., 0., 0., 0., 0., 1., 2., 3., 4., 5., 6.]);
        assert_eq!(changed(0, -1, false), [3., 4., 5., 6., 0., 0., 9., 10., 11., 12., 0., 0.]);
        // First moved, then mirrored.
        assert_eq!(changed(0, -1, true), [0., 0., 5., 6., 3., 4., 0., 0., 11., 12., 9., 10.]);
        assert_eq!(changed(2, 0, false), [0.; 12]);
    }

    #[test]
    fn draws_follow_from_the_step_and_the_position_alone() {
        let apply = |seed, positions: &[usize]| {
            let mut images = numbered().repeat(positions.len());
            augmenter(2, true).apply(seed, positions, &mut images);
            images
        };
        let together = apply(3, &[5, 6, 7]);
        assert_eq!(together[12..24], apply(3, &[6]));
        assert_ne!((0..20).map(|seed| apply(seed, &[6])).collect::<Vec<_>>(), vec![apply(3, &[6]); 20]);
        let mut plain = numbered();
        augmenter(0, false).apply(1, &[0], &mut plain);
        assert_eq!(plain, numbered());
    }

    #[test]
    fn every_shift_and_side_is_drawn_equally_often() {
        let augmenter = augmenter(1, true);
        let mut counts = std::collections::BTreeMap::new();
        (0..1800).for_each(|position| *counts.entry(augmenter.draw(1, position)).or_insert(0) += 1);
        assert_eq!(counts.len(), 18);
        // 100 of each are expected; six standard deviations are 58.
        assert!(counts.values().all(|count| (42..=158).contains(count)), "{counts:?}");
    }
}
