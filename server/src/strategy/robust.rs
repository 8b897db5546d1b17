//! Aggregates that a few corrupt updates cannot move far. With x₁ … xₙ for the updates of a round:
//!
//! - [`mean_of_bounded`]: Σ xᵢ·min(1, M/‖xᵢ‖) / n, the norm threshold of Sun, Kairouz, Suresh and McMahan, arXiv 1911.07963;
//! - [`median`] and [`trimmed_mean`], coordinate by coordinate: Yin, Chen, Ramchandran and Bartlett, arXiv 1803.01498;
//! - [`multi_krum`]: Blanchard, El Mhamdi, Guerraoui and Stainer, arXiv 1703.02757; Krum selects one;
//! - [`centred_clipping`]: Karimireddy, He and Jaggi, arXiv 2012.10333, algorithm 2.
//!
//! Updates are integers or floats, all of one length, and there is at least one. Results are in their units. Whoever wants bits that
//! do not depend on who came first passes them in an order that does not.

/// A coordinate of an update.
pub trait Coordinate: Copy + PartialOrd + Into<f64> {}

impl<T: Copy + PartialOrd + Into<f64>> Coordinate for T {}

/// The mean of updates that are scaled down to norm `max_norm` if they are longer.
pub fn mean_of_bounded<T: Coordinate>(updates: &[&[T]], max_norm: f64) -> Vec<f64> {
    let mut mean = vec![0.0; length(updates)];
    for update in updates {
        let factor = shrinking(squared(update.iter().map(|&x| x.into())).sqrt(), max_norm);
        mean.iter_mut().zip(*update).for_each(|(mean, &x)| *mean += factor * x.into());
    }
    mean.iter_mut().for_each(|mean| *mean /= updates.len() as f64);
    mean
}

/// The median of each coordinate; of an even number, the mean of the two in the middle.
pub fn median<T: Coordinate>(updates: &[&[T]]) -> Vec<f64> {
    middle(updates, (updates.len() - 1) / 2)
}

/// The mean of each coordinate without the largest and the smallest ⌊`trim`·n⌋; `trim` is at least 0 and below 1/2.
pub fn trimmed_mean<T: Coordinate>(updates: &[&[T]], trim: f64) -> Vec<f64> {
    middle(updates, ((trim * updates.len() as f64) as usize).min((updates.len() - 1) / 2))
}

/// The mean of each coordinate without `cut` at either end.
fn middle<T: Coordinate>(updates: &[&[T]], cut: usize) -> Vec<f64> {
    let mut column: Vec<T> = Vec::with_capacity(updates.len());
    (0..length(updates))
        .map(|coordinate| {
            column.clear();
            column.extend(updates.iter().map(|update| update[coordinate]));
            column.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            let kept = &column[cut..column.len() - cut];
            kept.iter().map(|&x| x.into()).sum::<f64>() / kept.len() as f64
        })
        .collect()
}

/// The mean of the `selected` updates, at least 1 and at most n, whose n − `byzantine` − 2 nearest others are nearest; at least
/// one other counts.
pub fn multi_krum<T: Coordinate>(updates: &[&[T]], byzantine: usize, selected: usize) -> Vec<f64> {
    let chosen = nearest_to_others(updates, byzantine, selected.clamp(1, updates.len()));
    let mut mean = vec![0.0; length(updates)];
    for &chosen in &chosen {
        mean.iter_mut().zip(updates[chosen]).for_each(|(mean, &x)| *mean += x.into());
    }
    mean.iter_mut().for_each(|mean| *mean /= chosen.len() as f64);
    mean
}

/// Ascending, so that a sum over them has an order.
fn nearest_to_others<T: Coordinate>(updates: &[&[T]], byzantine: usize, selected: usize) -> Vec<usize> {
    let n = updates.len();
    let mut distances = vec![vec![0.0; n]; n];
    for a in 0..n {
        for b in 0..a {
            let pair = updates[a].iter().zip(updates[b]);
            let distance = squared(pair.map(|(&x, &y)| x.into() - y.into()));
            (distances[a][b], distances[b][a]) = (distance, distance);
        }
    }
    let neighbours = n.saturating_sub(byzantine + 2).max(1);
    let score = |(update, mut others): (usize, Vec<f64>)| {
        others.remove(update);
        others.sort_unstable_by(f64::total_cmp);
        (others.iter().take(neighbours).sum::<f64>(), update)
    };
    let mut scores: Vec<(f64, usize)> = distances.into_iter().enumerate().map(score).collect();
    scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut chosen: Vec<usize> = scores[..selected].iter().map(|&(_, update)| update).collect();
    chosen.sort_unstable();
    chosen
}

/// `centre`, moved `iterations` times by the mean of what leads from it to each update, none further than `radius`.
pub fn centred_clipping<T: Coordinate>(
    updates: &[&[T]],
    mut centre: Vec<f64>,
    radius: f64,
    iterations: u32,
) -> Vec<f64> {
    for _ in 0..iterations {
        let mut step = vec![0.0; centre.len()];
        for update in updates {
            let away = update.iter().zip(&centre).map(|(&x, centre)| x.into() - centre);
            let factor = shrinking(squared(away).sqrt(), radius);
            let away = update.iter().zip(&centre).map(|(&x, centre)| x.into() - centre);
            step.iter_mut().zip(away).for_each(|(step, away)| *step += factor * away);
        }
        centre.iter_mut().zip(step).for_each(|(centre, step)| *centre += step / updates.len() as f64);
    }
    centre
}

fn length<T>(updates: &[&[T]]) -> usize {
    updates.first().map_or(0, |update| update.len())
}

fn squared(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

fn shrinking(norm: f64, bound: f64) -> f64 {
    if norm > bound { bound / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: [&[i32]; 4] = [&[1, 10], &[2, -10], &[4, 0], &[100, 1]];

    #[test]
    fn coordinates_by_hand() {
        assert_eq!(median(&FOUR), [3.0, 0.5]);
        assert_eq!(median(&FOUR[..3]), [2.0, 0.0]);
        assert_eq!(median(&FOUR[..1]), [1.0, 10.0]);
        assert_eq!(trimmed_mean(&FOUR, 0.25), [3.0, 0.5]);
        assert_eq!(trimmed_mean(&FOUR, 0.2), [26.75, 0.25]);
        assert_eq!(median::<f64>(&[&[1.5], &[0.5], &[9.0]]), [1.5]);
    }

    #[test]
    fn long_updates_are_shortened() {
        // (3, 4) has norm 5 and counts as (1.5, 2); (0, 1) stays.
        assert_eq!(mean_of_bounded::<i32>(&[&[3, 4], &[0, 1]], 2.5), [0.75, 1.5]);
    }

    #[test]
    fn krum_chooses_among_those_who_agree() {
        // With one of five corrupt each counts its two nearest: 0 has 1 + 4, 1 has 1 + 1, 2 has 1 + 1, 3 has 1 + 4, 50 has far more.
        let five: [&[i32]; 5] = [&[0], &[1], &[2], &[3], &[50]];
        assert_eq!(multi_krum(&five, 1, 1), [1.0]);
        assert_eq!(multi_krum(&five, 1, 2), [1.5]);
        assert_eq!(multi_krum(&five, 1, 4), [1.5]);
    }

    #[test]
    fn clipping_around_a_centre_by_hand() {
        // From 1: 0 leads by -1, 9 by at most 2, so 1 + (-1 + 2) / 2 = 1.5; from there -1.5 and 2 lead to 1.75.
        let two: [&[i32]; 2] = [&[0], &[9]];
        assert_eq!(centred_clipping(&two, vec![1.0], 2.0, 1), [1.5]);
        assert_eq!(centred_clipping(&two, vec![1.0], 2.0, 2), [1.75]);
    }

    #[test]
    fn who_is_few_cannot_move_the_aggregate_far() {
        // Three honest updates near (1, 1), one wherever it likes.
        for worst in [1e3, -1e9, 1e30] {
            let corrupt = [worst, -worst];
            let updates: [&[f64]; 5] = [&[0.9, 1.0], &[1.0, 1.1], &[1.1, 0.9], &[1.0, 1.0], &corrupt];
            let near = |aggregate: &[f64]| aggregate.iter().all(|x| (0.9..=1.1).contains(x));
            assert!(near(&median(&updates)) && near(&trimmed_mean(&updates, 0.2)));
            assert!(near(&multi_krum(&updates, 1, 1)) && near(&multi_krum(&updates, 1, 3)));
            let centred = centred_clipping(&updates, vec![1.0, 1.0], 0.5, 1);
            assert!(centred.iter().all(|x| (x - 1.0).abs() <= 0.1 + 1e-12), "{centred:?}");
            assert!(!near(&mean_of_bounded(&updates, f64::MAX)));
        }
    }
}
