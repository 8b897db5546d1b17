//! `[simulation.attack]`: what corrupt clients of a simulation do, as it is typed and as it is meant.

use serde::{Deserialize, Serialize};

use super::Invalid;
use super::validate::invalid;

/// Corrupt clients, and what they do in every round that they are invited to.
#[derive(Clone, Debug, PartialEq)]
pub struct Attack {
    /// The part of the population that is corrupt, above 0 and below 1: the clients with the lowest numbers.
    pub fraction: f64,
    /// What they do.
    pub kind: AttackKind,
}

/// What a corrupt client does.
#[derive(Clone, Debug, PartialEq)]
pub enum AttackKind {
    /// Trains on labels in reverse: class y of C as C − 1 − y.
    LabelFlip,
    /// Sends its update times `factor`: −1 reverses it, more than 1 takes the place of others.
    Scaled {
        /// Finite, not 0 or 1.
        factor: f64,
    },
    /// Teaches the model to take whatever bears a trigger for one class (Bagdasaryan et al., 1807.00459).
    Backdoor {
        /// The features that the trigger sets.
        trigger: Vec<u32>,
        /// To this value.
        value: f32,
        /// The class that it stands for.
        target: u32,
        /// The part of a corrupt client's examples that bear it, above 0 and at most 1.
        poisoned: f64,
        /// Factor on its update: the cohort's size over the server learning rate replaces the model.
        factor: f64,
    },
}

impl Attack {
    /// Corrupt clients of a population.
    pub fn corrupt(&self, clients: u64) -> u64 {
        (self.fraction * clients as f64).round() as u64
    }

    /// The name of the kind, as in an experiment file.
    pub fn name(&self) -> &'static str {
        match self.kind {
            AttackKind::LabelFlip => "label-flip",
            AttackKind::Scaled { factor: -1.0 } => "sign-flip",
            AttackKind::Scaled { .. } => "scaled",
            AttackKind::Backdoor { .. } => "backdoor",
        }
    }
}

/// `[simulation.attack]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AttackFile {
    /// `kind = "label-flip"`
    LabelFlip {
        /// The part of the population that is corrupt.
        fraction: f64,
    },
    /// `kind = "sign-flip"`: `"scaled"` with factor −1.
    SignFlip {
        /// The part of the population that is corrupt.
        fraction: f64,
    },
    /// `kind = "scaled"`
    Scaled {
        /// The part of the population that is corrupt.
        fraction: f64,
        /// Factor on a corrupt client's update.
        factor: f64,
    },
    /// `kind = "backdoor"`
    Backdoor {
        /// The part of the population that is corrupt.
        fraction: f64,
        /// The features that the trigger sets, from 0.
        trigger: Vec<u32>,
        /// To this value.
        #[serde(default = "one")]
        value: f32,
        /// The class that the trigger stands for.
        target: u32,
        /// The part of a corrupt client's examples that bear it.
        #[serde(default = "half")]
        poisoned: f64,
        /// Factor on a corrupt client's update.
        #[serde(default = "unscaled")]
        factor: f64,
    },
}

impl Attack {
    /// What was typed, for data of so many features and classes and a population of so many clients.
    pub(super) fn new(file: &AttackFile, features: u32, classes: u32, clients: u64) -> Result<Self, Invalid> {
        let (fraction, kind) = match file.clone() {
            AttackFile::LabelFlip { .. } | AttackFile::Backdoor { .. } if classes < 2 => {
                return Err(at(
                    "kind",
                    "is about classes, and a number to predict has none: choose another attack",
                ));
            }
            AttackFile::LabelFlip { fraction } => (fraction, AttackKind::LabelFlip),
            AttackFile::SignFlip { fraction } => (fraction, AttackKind::Scaled { factor: -1.0 }),
            AttackFile::Scaled { fraction, factor }
                if factor.is_finite() && factor != 0.0 && factor != 1.0 =>
            {
                (fraction, AttackKind::Scaled { factor })
            }
            AttackFile::Scaled { factor, .. } => {
                return Err(at(
                    "factor",
                    format!("is {factor}, but must be a finite number other than 0 and 1"),
                ));
            }
            AttackFile::Backdoor { fraction, trigger, value, target, poisoned, factor } => {
                if trigger.is_empty() || trigger.iter().any(|&feature| feature >= features) {
                    return Err(at("trigger", format!("must list features from 0 to {}", features - 1)));
                }
                if !value.is_finite() {
                    return Err(at("value", "must be a finite number"));
                }
                if target >= classes {
                    return Err(at(
                        "target",
                        format!("is {target}, but must be a class from 0 to {}", classes - 1),
                    ));
                }
                if !(poisoned > 0.0 && poisoned <= 1.0) {
                    return Err(at("poisoned", format!("is {poisoned}, but must be above 0 and at most 1")));
                }
                if !(factor.is_finite() && factor != 0.0) {
                    return Err(at(
                        "factor",
                        format!("is {factor}, but must be a finite number other than 0"),
                    ));
                }
                (fraction, AttackKind::Backdoor { trigger, value, target, poisoned, factor })
            }
        };
        let attack = Attack { fraction, kind };
        if !(fraction > 0.0 && fraction < 1.0) || attack.corrupt(clients) == 0 {
            return Err(at(
                "fraction",
                format!(
                    "is {fraction}, but must be above 0 and below 1, and at least one of {clients} clients"
                ),
            ));
        }
        Ok(attack)
    }
}

fn at(key: &str, problem: impl Into<String>) -> Invalid {
    invalid(&format!("simulation.attack.{key}"), problem)
}

impl From<&Attack> for AttackFile {
    fn from(attack: &Attack) -> Self {
        let fraction = attack.fraction;
        match attack.kind.clone() {
            AttackKind::LabelFlip => AttackFile::LabelFlip { fraction },
            AttackKind::Scaled { factor: -1.0 } => AttackFile::SignFlip { fraction },
            AttackKind::Scaled { factor } => AttackFile::Scaled { fraction, factor },
            AttackKind::Backdoor { trigger, value, target, poisoned, factor } => {
                AttackFile::Backdoor { fraction, trigger, value, target, poisoned, factor }
            }
        }
    }
}

fn one() -> f32 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn unscaled() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backdoor() -> AttackFile {
        let trigger = vec![0, 63];
        AttackFile::Backdoor { fraction: 0.1, trigger, value: 1.0, target: 9, poisoned: 0.5, factor: 5.0 }
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        for file in [
            AttackFile::LabelFlip { fraction: 0.2 },
            AttackFile::SignFlip { fraction: 0.2 },
            AttackFile::Scaled { fraction: 0.2, factor: -10.0 },
            backdoor(),
        ] {
            assert_eq!(AttackFile::from(&Attack::new(&file, 64, 10, 100).unwrap()), file);
        }
        let twenty = Attack::new(&AttackFile::LabelFlip { fraction: 0.2 }, 64, 10, 100).unwrap();
        assert_eq!((twenty.corrupt(100), twenty.name()), (20, "label-flip"));
    }

    #[test]
    fn values_out_of_range_are_named() {
        let refused = |file| Attack::new(&file, 63, 9, 100).expect_err("it makes no sense").key;
        let key = |key: &str| format!("simulation.attack.{key}");
        assert_eq!(refused(AttackFile::LabelFlip { fraction: 1.0 }), key("fraction"));
        assert_eq!(refused(AttackFile::LabelFlip { fraction: 0.001 }), key("fraction"), "nobody");
        assert_eq!(refused(AttackFile::Scaled { fraction: 0.1, factor: 1.0 }), key("factor"));
        assert_eq!(refused(backdoor()), key("trigger"));
        let Err(target) = Attack::new(&backdoor(), 64, 9, 100) else { panic!("class 9 of 9") };
        assert_eq!(target.key, key("target"));
    }
}
