//! What is measured of a model, by what it predicts.

use serde::{Deserialize, Serialize};

/// What a model predicts of an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predicted {
    /// One of some classes.
    Class,
    /// The word that follows.
    Word,
    /// A number.
    Number,
}

/// `evaluation.metric`: what is measured of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// The part of the server's own examples whose class is found.
    Accuracy,
    /// The exponential of the loss on them: among how many equally probable words one would do as well.
    Perplexity,
    /// The root of the mean squared error on them, in the unit of what is predicted.
    RootMeanSquaredError,
    /// The mean absolute error, likewise.
    MeanAbsoluteError,
    /// 1 less the squared errors over those of predicting the mean.
    RSquared,
    /// The loss.
    Loss,
    /// The mean accuracy of clients on examples of their own.
    ClientAccuracy,
    /// The same after each has fitted the model to its other examples.
    PersonalisedAccuracy,
}

/// Which of two values of a metric is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The higher.
    Higher,
    /// The lower.
    Lower,
}

impl Better {
    /// By how much `value` is better than `other`; negative if it is worse.
    pub fn gain(self, value: f64, other: f64) -> f64 {
        match self {
            Better::Higher => value - other,
            Better::Lower => other - value,
        }
    }

    /// Worse than any value.
    pub fn worst(self) -> f64 {
        match self {
            Better::Higher => f64::NEG_INFINITY,
            Better::Lower => f64::INFINITY,
        }
    }
}

impl Predicted {
    /// All of them.
    pub const ALL: [Predicted; 3] = [Predicted::Class, Predicted::Word, Predicted::Number];

    /// What is measured on the server's own examples; first what is shown where there is room for one.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Predicted::Class => &[Metric::Accuracy, Metric::Loss],
            Predicted::Word => &[Metric::Perplexity, Metric::Accuracy, Metric::Loss],
            Predicted::Number => {
                &[Metric::RootMeanSquaredError, Metric::MeanAbsoluteError, Metric::RSquared, Metric::Loss]
            }
        }
    }

    /// What is shown where there is room for one.
    pub fn metric(self) -> Metric {
        self.metrics()[0]
    }
}

impl Metric {
    /// All of them.
    pub const ALL: [Metric; 8] = [
        Metric::Accuracy,
        Metric::Perplexity,
        Metric::RootMeanSquaredError,
        Metric::MeanAbsoluteError,
        Metric::RSquared,
        Metric::Loss,
        Metric::ClientAccuracy,
        Metric::PersonalisedAccuracy,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Perplexity => "perplexity",
            Metric::RootMeanSquaredError => "RMSE",
            Metric::MeanAbsoluteError => "MAE",
            Metric::RSquared => "R²",
            Metric::Loss => "loss",
            Metric::ClientAccuracy => "accuracy for clients",
            Metric::PersonalisedAccuracy => "fine-tuned accuracy for clients",
        }
    }

    /// In rounds and summaries.
    pub fn key(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::Perplexity => "perplexity",
            Metric::RootMeanSquaredError => "root_mean_squared_error",
            Metric::MeanAbsoluteError => "mean_absolute_error",
            Metric::RSquared => "r_squared",
            Metric::Loss => "loss",
            Metric::ClientAccuracy => "client_accuracy",
            Metric::PersonalisedAccuracy => "personalised_accuracy",
        }
    }

    /// Whether it is measured on clients' own examples, and so not whenever the server measures on its own.
    pub fn is_of_clients(self) -> bool {
        matches!(self, Metric::ClientAccuracy | Metric::PersonalisedAccuracy)
    }

    /// What it is, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Metric::Accuracy => "of the last model, on held-out examples",
            Metric::Perplexity => "equally probable words, for each held-out word",
            Metric::RootMeanSquaredError => {
                "root mean squared error on held-out examples, in the unit of the target"
            }
            Metric::MeanAbsoluteError => "mean absolute error, in the unit of the target",
            Metric::RSquared => "coefficient of determination: 1 is perfect, 0 as good as the mean",
            Metric::Loss => "mean loss of an example: cross-entropy in nats, or of a scaled target",
            Metric::ClientAccuracy => "mean of clients, on examples of their own",
            Metric::PersonalisedAccuracy => "mean of clients, once each has fitted the model",
        }
    }

    /// Which direction is good.
    pub fn better(self) -> Better {
        match self {
            Metric::Accuracy | Metric::RSquared | Metric::ClientAccuracy | Metric::PersonalisedAccuracy => {
                Better::Higher
            }
            Metric::Perplexity | Metric::RootMeanSquaredError | Metric::MeanAbsoluteError | Metric::Loss => {
                Better::Lower
            }
        }
    }

    /// The best value there is, where that is where a scale should end.
    pub fn most(self) -> Option<f64> {
        (self.better() == Better::Higher).then_some(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file() {
        for metric in Metric::ALL {
            let word = serde_json::to_value(metric).unwrap();
            assert_eq!(word.as_str().unwrap().replace('-', "_"), metric.key());
        }
        assert_eq!(Better::Lower.gain(1.0, 3.0), 2.0);
        assert!(Better::Lower.gain(1.0, Better::Lower.worst()) > 0.0);
    }
}
