//! `skep model`: a model file as a product.

mod export;
mod serve;
mod show;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use skep_learning::ModelFile;

pub use self::serve::ServeModel;
use crate::failure::Failure;

/// What to do with a model file.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Say what a model is: architecture, parameters, what it cost in privacy, and which ledger vouches for it.
    Show(Show),
    /// Write a model for other programs: for ONNX Runtime, or with the weights as PyTorch has them.
    Export(Export),
    /// Answer predictions over HTTP.
    ///
    /// POST /predict takes {"instances": [...]} and gives {"predictions": [...]}, each as `skep predict` prints it, to the bit.
    /// GET /health, /metrics (Prometheus) and /openapi.json say the rest. Ends on SIGTERM or Ctrl-C, after the answers to what was
    /// asked.
    Serve(ServeModel),
}

/// Arguments of `skep model show`.
#[derive(Debug, Args)]
pub struct Show {
    /// A model file.
    pub model: PathBuf,
    /// Print one JSON object instead.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `skep model export`.
#[derive(Debug, Args)]
pub struct Export {
    /// A model file.
    pub model: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub format: Format,
    /// The file to write. One that is there already is left alone.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Formats of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// ONNX, opset 17: examples in, logits and probabilities out.
    Onnx,
    /// The weights as `torch.nn.Sequential.load_state_dict` takes them.
    Safetensors,
}

/// Runs `skep model`.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(command: &ModelCommand) -> Result<(), Failure> {
    match command {
        ModelCommand::Show(arguments) => show::run(arguments),
        ModelCommand::Export(arguments) => export::run(arguments),
        ModelCommand::Serve(arguments) => serve::run(arguments),
    }
}

/// Reads a model file that was named on the command line.
///
/// # Errors
/// [`Failure::Usage`], which names the file.
pub(crate) fn load(path: &Path) -> Result<ModelFile, Failure> {
    ModelFile::load(path).map_err(|error| Failure::Usage {
        problem: match error {
            skep_learning::ModelFileError::File { .. } => error.to_string(),
            error => format!("{}: {error}", path.display()),
        },
        help: Some("name the model.safetensors of a results directory".to_owned()),
    })
}
