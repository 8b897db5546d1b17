//! Membership inference by likelihood ratio (Carlini et al., "Membership inference attacks from first principles", arXiv
//! 2112.03570): how well an attacker tells the examples that a model was trained on from others.

/// How an attack does at one rate of false alarms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The rate of false alarms that was allowed.
    pub allowed: f64,
    /// The part of others that were taken for members, at most `allowed`.
    pub false_positive: f64,
    /// The part of members that were found.
    pub true_positive: f64,
}

/// The attack by threshold: of `members` and `others`, those with a score above a threshold are taken for
/// members, and the threshold is the lowest with at most the allowed part of others above it. NaN counts as the lowest score.
///
/// # Panics
/// If either is empty.
pub fn rates(members: &[f64], others: &[f64], allowed: f64) -> Rates {
    assert!(!members.is_empty() && !others.is_empty(), "an attack is measured on members and others");
    let score = |value: &f64| if value.is_nan() { f64::NEG_INFINITY } else { *value };
    let mut sorted: Vec<f64> = others.iter().map(score).collect();
    sorted.sort_by(|one, other| other.total_cmp(one));
    let above = ((allowed * sorted.len() as f64) as usize).min(sorted.len() - 1);
    let threshold = sorted[above];
    let part = |scores: &[f64]| {
        scores.iter().filter(|value| score(value) > threshold).count() as f64 / scores.len() as f64
    };
    Rates { allowed, false_positive: part(others), true_positive: part(members) }
}

/// The probability that a random member scores above a random other, ties counting half.
///
/// # Panics
/// If either is empty.
pub fn area_under_curve(members: &[f64], others: &[f64]) -> f64 {
    assert!(!members.is_empty() && !others.is_empty(), "an attack is measured on members and others");
    let mut sorted = others.to_vec();
    sorted.sort_by(f64::total_cmp);
    let wins: f64 = members
        .iter()
        .map(|score| {
            let below = sorted.partition_point(|other| other < score);
            let not_above = sorted.partition_point(|other| other <= score);
            0.5 * (below + not_above) as f64
        })
        .sum();
    wins / (members.len() as f64 * others.len() as f64)
}

/// The confidence of a model in an example's label, ln(p / (1 − p)) from its loss −ln p (section V.A): close to normal over
/// models. Losses beyond what f64 tells apart are bounded.
pub fn confidence(loss: f64) -> f64 {
    let loss = loss.clamp(1e-12, 700.0);
    -loss - (-(-loss).exp_m1()).ln()
}

/// The logarithm of the likelihood ratio of a confidence under models trained with the example against models trained
/// without it, normal laws fitted to both with one spread (section VI.C: few shadow models tell spreads badly apart).
/// `None` with fewer than 2 of either.
pub fn likelihood_ratio(observed: f64, with: &[f64], without: &[f64], deviation: f64) -> Option<f64> {
    if with.len() < 2 || without.len() < 2 {
        return None;
    }
    let distance = |confidences: &[f64]| {
        let mean = confidences.iter().sum::<f64>() / confidences.len() as f64;
        0.5 * ((observed - mean) / deviation).powi(2)
    };
    Some(distance(without) - distance(with))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_lets_no_more_others_pass_than_allowed() {
        let others: Vec<f64> = (0..1000).map(f64::from).collect();
        let members: Vec<f64> = (0..1000).map(|score| f64::from(score) + 500.0).collect();
        let at = |allowed| rates(&members, &others, allowed);
        assert_eq!((at(0.01).false_positive, at(0.01).true_positive), (0.01, 0.51));
        assert_eq!((at(0.001).false_positive, at(0.001).true_positive), (0.001, 0.501));
        // Ties are not let pass in part.
        let tied = rates(&[1.0, 2.0], &[1.0; 100], 0.5);
        assert_eq!((tied.false_positive, tied.true_positive), (0.0, 0.5));
        assert_eq!(rates(&[f64::NAN], &[0.0], 0.0).true_positive, 0.0);
    }

    #[test]
    fn the_area_is_one_half_where_nothing_tells_members_apart() {
        let scores: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(area_under_curve(&scores, &scores), 0.5);
        assert_eq!(area_under_curve(&[2.0, 3.0], &[0.0, 1.0]), 1.0);
        assert_eq!(area_under_curve(&[1.0], &[1.0, 0.0]), 0.75);
    }

    #[test]
    fn confidence_is_the_log_odds_and_survives_certainty() {
        for p in [0.1, 0.5, 0.999] {
            let odds: f64 = p / (1.0 - p);
            assert!((confidence(-f64::ln(p)) - odds.ln()).abs() < 1e-9);
        }
        assert!(confidence(0.0).is_finite() && confidence(f64::INFINITY).is_finite());
        assert!(confidence(0.0) > confidence(1e-6));
    }

    #[test]
    fn a_confidence_like_those_of_models_with_the_example_speaks_for_it() {
        let (with, without) = ([2.0, 3.0, 4.0], [-1.0, 0.0, 1.0]);
        let ratio = |observed| likelihood_ratio(observed, &with, &without, 1.0).unwrap();
        assert!(ratio(3.0) > 0.0 && ratio(0.0) < 0.0 && ratio(1.5).abs() < 1e-12);
        assert_eq!(likelihood_ratio(1.0, &with[..1], &without, 1.0), None);
    }
}
