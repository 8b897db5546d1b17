//! What is measured of models, for people.

use skep_protocol::experiment::Metric;

use crate::page::number;

/// A value with as many digits as it deserves.
pub(crate) fn shown(metric: Metric, value: f64) -> String {
    match metric.most() {
        Some(_) => format!("{value:.4}"),
        None if metric == Metric::Loss => format!("{value:.4}"),
        None => number(value),
    }
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
}
