//! What of a model is trained, and over which weights.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::validate::{Invalid, invalid};
use crate::canonical::Writer;
use crate::ids::Digest;

/// `[task.tuning]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningFile {
    /// The weights that training starts from: a model of Skep, safetensors, or a state dict of PyTorch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Patterns of the names of tensors that stay as they are, the last that matches decides; `!` before one says that it is trained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Adapters beside frozen weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
}

/// Low-rank adapters (LoRA: Hu et al., 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// The width of an adapter, at least 1.
    pub rank: u32,
    /// What an adapter gives is multiplied with alpha/rank; above 0.
    pub alpha: f64,
    /// Patterns of the names of weights that have one.
    pub targets: Vec<String>,
}

/// Training of a part of a model: updates are about its coordinates alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// The digest of the parameters that everybody starts from; of nothing until they are read.
    pub weights: Digest,
    /// Coordinates of the part, at least 1; all parameters of the model until that is counted.
    pub parameters: u64,
    /// Patterns of what stays as it is.
    pub frozen: Vec<String>,
    /// Adapters.
    pub lora: Option<Lora>,
}

impl Tuning {
    /// What a file says, of a model of so many parameters; nothing if all of it is trained.
    pub(super) fn of(file: &TuningFile, parameters: u64) -> Result<Option<Box<Self>>, Invalid> {
        let TuningFile { weights, frozen, lora } = file;
        if let Some(Lora { rank, alpha, targets }) = lora {
            if *rank == 0 {
                return Err(invalid("task.tuning.lora.rank", "must be at least 1"));
            }
            if !(alpha.is_finite() && *alpha > 0.0) {
                return Err(invalid("task.tuning.lora.alpha", "must be a finite number above 0"));
            }
            if targets.is_empty() {
                return Err(invalid("task.tuning.lora.targets", "must name weights, as \"*.query.weight\""));
            }
        }
        match (frozen.as_slice(), lora) {
            ([], None) if weights.is_none() => Err(invalid(
                "task.tuning",
                "says nothing: name weights, frozen tensors or lora, or remove it",
            )),
            ([], None) => Ok(None),
            // Beside adapters everything stays as it is, unless the file says what does.
            ([], Some(_)) => Ok(Some(Tuning::new(vec!["*".to_owned()], lora.clone(), parameters))),
            (frozen, _) => Ok(Some(Tuning::new(frozen.to_vec(), lora.clone(), parameters))),
        }
    }

    fn new(frozen: Vec<String>, lora: Option<Lora>, parameters: u64) -> Box<Self> {
        Box::new(Tuning { weights: Digest([0; 32]), parameters, frozen, lora })
    }

    /// As it enters the digest of a task.
    pub(super) fn write(&self, writer: &mut Writer) {
        let Tuning { weights, parameters, frozen, lora } = self;
        writer.u8(10).text(&weights.to_string()).u64(*parameters).length(frozen.len());
        for pattern in frozen {
            writer.text(pattern);
        }
        if let Some(Lora { rank, alpha, targets }) = lora {
            writer.u32(*rank).f64(*alpha).length(targets.len());
            for pattern in targets {
                writer.text(pattern);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_stand_beside_frozen_weights() {
        let file = |text: &str| serde_json::from_str::<TuningFile>(text).unwrap();
        let of = |text: &str| Tuning::of(&file(text), 100).map_err(|invalid| invalid.key);
        let lora = r#"{"lora":{"rank":4,"alpha":8.0,"targets":["*.query.weight"]}}"#;
        assert_eq!(of(lora).unwrap().unwrap().frozen, ["*"]);
        assert_eq!(of(r#"{"frozen":["a","!b"]}"#).unwrap().unwrap().frozen, ["a", "!b"]);
        assert_eq!(of(r#"{"weights":"base.pt"}"#), Ok(None));
        assert_eq!(of("{}").unwrap_err(), "task.tuning");
        for (text, key) in [
            (r#"{"lora":{"rank":0,"alpha":8.0,"targets":["a"]}}"#, "task.tuning.lora.rank"),
            (r#"{"lora":{"rank":4,"alpha":0.0,"targets":["a"]}}"#, "task.tuning.lora.alpha"),
            (r#"{"lora":{"rank":4,"alpha":8.0,"targets":[]}}"#, "task.tuning.lora.targets"),
        ] {
            assert_eq!(of(text).unwrap_err(), key);
        }
        let written = |tuning: &Tuning| {
            let mut writer = Writer::new("test");
            tuning.write(&mut writer);
            writer.finish()
        };
        let tuning = of(lora).unwrap().unwrap();
        assert_ne!(written(&tuning), written(&Tuning { parameters: 101, ..*tuning.clone() }));
        assert_ne!(written(&tuning), written(&Tuning { lora: None, ..*tuning }));
    }
}
