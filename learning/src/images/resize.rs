//! Images made larger or smaller by weights that fall off linearly: between neighbours when an image grows, over all pixels
//! that become one when it shrinks.

/// What one number of the result is made of.
struct Window {
    first: usize,
    /// Of the pixels from `first` on; their sum is 1.
    weights: Vec<f32>,
}

/// An image of `from` height and width as one of `to`, channels last.
pub(super) fn resize(bytes: &[u8], from: [usize; 2], to: [usize; 2], channels: usize) -> Vec<u8> {
    let columns = windows(from[1], to[1]);
    let mut narrow = Vec::with_capacity(from[0] * to[1] * channels);
    for row in bytes.chunks_exact(from[1] * channels) {
        for window in &columns {
            narrow.extend((0..channels).map(|channel| {
                let pixels = row[window.first * channels + channel..].iter().step_by(channels);
                pixels.zip(&window.weights).map(|(&byte, weight)| f32::from(byte) * weight).sum::<f32>()
            }));
        }
    }
    let width = to[1] * channels;
    let mut resized = Vec::with_capacity(to[0] * width);
    for window in windows(from[0], to[0]) {
        let mut row = vec![0.0_f32; width];
        for (numbers, weight) in narrow[window.first * width..].chunks_exact(width).zip(&window.weights) {
            row.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number * weight);
        }
        resized.extend(row.iter().map(|number| number.round() as u8));
    }
    resized
}

/// For each of `to` places along a side, what of `from` it is made of.
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    (0..to)
        .map(|at| {
            let centre = (at as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let weight = |pixel: usize| (1.0 - ((pixel as f64 + 0.5 - centre) / reach).abs()).max(0.0);
            let sum: f64 = (first..end).map(weight).sum();
            Window { first, weights: (first..end).map(|pixel| (weight(pixel) / sum) as f32).collect() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_one_colour_at_any_size() {
        for (from, to) in [([7, 5], [3, 11]), ([1, 1], [4, 4]), ([300, 200], [32, 32]), ([2, 3], [1, 1])] {
            let image = [10, 200, 255].repeat(from[0] * from[1]);
            assert_eq!(resize(&image, from, to, 3), [10, 200, 255].repeat(to[0] * to[1]), "{from:?} {to:?}");
        }
    }

    #[test]
    fn half_the_size_is_near_the_mean_of_neighbours_and_twice_is_between_them() {
        assert_eq!(resize(&[0, 0, 80, 80], [1, 4], [1, 2], 1), [11, 69]);
        assert_eq!(resize(&[0, 100], [2, 1], [4, 1], 1), [0, 25, 75, 100]);
        // What PIL 12 gives for the same: Image.resize((3, 2), Image.BILINEAR).
        let image: Vec<u8> = (0..30).map(|at| (at * 37 % 256) as u8).collect();
        // Its sums are rounded once more on the way.
        let resized = resize(&image, [5, 6], [2, 3], 1);
        assert!(resized.iter().zip(PIL).all(|(ours, theirs)| ours.abs_diff(theirs) <= 1), "{resized:?}");
    }

    const PIL: [u8; 6] = [99, 72, 125, 165, 122, 68];
}
