//! What is measured of models, for people.

use skep_protocol::experiment::{Metric, Predicted};

use crate::page::number;

/// A value with as many digits as it deserves.
pub(crate) fn shown(metric: Metric, value: f64) -> String {
    match metric.most() {
        Some(_) => format!("{value:.4}"),
        None if metric == Metric::Loss => format!("{value:.4}"),
        None => number(value),
    }
}

/// What is measured of any of these, each once.
pub(crate) fn of_any(predicted: impl IntoIterator<Item = Predicted>) -> Vec<Metric> {
    let measured: Vec<Metric> =
        predicted.into_iter().flat_map(|predicted| predicted.metrics().iter().copied()).collect();
    Metric::ALL.into_iter().filter(|metric| measured.contains(metric)).collect()
}

/// A value behind its name.
pub(crate) fn named(metric: Metric, value: Option<f64>) -> String {
    let value = value.map_or_else(|| "not measured".to_owned(), |value| shown(metric, value));
    format!("{} {value}", metric.name())
}

/// The name above a chart.
pub(crate) fn title(metric: Metric) -> &'static str {
    match metric {
        Metric::Accuracy => "Accuracy",
        Metric::Perplexity => "Perplexity",
        Metric::RootMeanSquaredError | Metric::MeanAbsoluteError | Metric::RSquared => metric.name(),
        Metric::Loss => "Loss",
        Metric::ClientAccuracy => "Accuracy for clients",
        Metric::PersonalisedAccuracy => "Fine-tuned accuracy for clients",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stands_behind_its_name() {
        assert_eq!(named(Metric::Accuracy, Some(0.5)), "accuracy 0.5000");
        assert_eq!(named(Metric::RootMeanSquaredError, Some(12_345.6)), "RMSE 12,346");
        assert_eq!(named(Metric::Perplexity, None), "perplexity not measured");
        assert_eq!(title(Metric::RSquared), "R²");
    }

    #[test]
    fn runs_are_beside_one_another_by_all_that_is_measured_of_any() {
        let number = [Metric::RootMeanSquaredError, Metric::MeanAbsoluteError, Metric::RSquared];
        assert_eq!(of_any([Predicted::Number; 2]), [&number[..], &[Metric::Loss]].concat());
        let words = [Metric::Accuracy, Metric::Perplexity];
        assert_eq!(of_any([Predicted::Word, Predicted::Class]), [&words[..], &[Metric::Loss]].concat());
    }
}
