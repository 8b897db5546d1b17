//! The data set that comes with Skep: 1797 handwritten digits of 8 x 8 pixels.
//!
//! E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
//! Repository, 1998 (CC BY 4.0), the test part, in the order and form in which scikit-learn ships
//! it. See the file NOTICE.

use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use ndarray::{Array1, Array2};

use crate::{Dataset, Split};

/// Pixels of an image, row by row.
pub const PIXELS: usize = 64;
/// Digits 0 to 9.
pub const CLASSES: usize = 10;
/// Number of images.
pub const EXAMPLES: usize = 1797;

/// The digits, pixels scaled from 0..=16 to 0..=1, with every fifth row (number modulo 5 is 4)
/// held out: 1438 rows to train on and 359 to test.
pub fn load() -> Split {
    let table = decompress();
    let mut features = Vec::with_capacity(EXAMPLES * PIXELS);
    let mut labels = Vec::with_capacity(EXAMPLES);
    for line in table.lines() {
        let mut numbers = line.split(',').map(number);
        features.extend(numbers.by_ref().take(PIXELS).map(|pixel| pixel / DARKEST));
        labels.extend(numbers.map(|digit| digit as u32));
    }
    let features = Array2::from_shape_vec((labels.len(), PIXELS), features).expect(EMBEDDED);
    let dataset = Dataset::new(features, Array1::from_vec(labels), CLASSES).expect(EMBEDDED);
    Split::hold_out(Arc::new(dataset), HELD_OUT_EVERY).expect(EMBEDDED)
}

fn decompress() -> String {
    let mut table = String::new();
    GzDecoder::new(FILE).read_to_string(&mut table).expect(EMBEDDED);
    table
}

fn number(text: &str) -> f32 {
    text.parse().expect(EMBEDDED)
}

/// One line an image: 64 pixel values and the digit, separated by commas.
const FILE: &[u8] = include_bytes!("../data/optdigits.csv.gz");
const EMBEDDED: &str = "the embedded file never changes and the tests read all of it";
/// The largest pixel value in the file.
pub const DARKEST: f32 = 16.0;
const HELD_OUT_EVERY: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_are_the_1797_images_that_scikit_learn_ships() {
        let Split { train, .. } = load();
        let all = train.dataset();
        assert_eq!(all.features().dim(), (EXAMPLES, PIXELS));
        let counts = crate::Subset::all(all.clone()).label_counts();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let darkness: f64 = all.features().iter().map(|&pixel| f64::from(pixel)).sum();
        assert_eq!(darkness * 16.0, 561_718.0);
        assert!(all.features().iter().all(|pixel| (0.0..=1.0).contains(pixel)));
    }

    #[test]
    fn every_fifth_digit_is_held_out() {
        let split = load();
        assert_eq!((split.train.len(), split.test.len()), (1438, 359));
        assert!(split.test_ids().iter().all(|row| row % 5 == 4));
        assert!(split.train.rows().iter().all(|row| row % 5 != 4));
    }
}
