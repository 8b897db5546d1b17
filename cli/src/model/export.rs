//! `skep model export`: a model in the formats of other programs.

use std::fs::File;
use std::io::{ErrorKind, Write};

use skep_learning::onnx;

use super::{Export, Format, load};
use crate::failure::Failure;

/// Runs `skep model export`.
///
/// # Errors
/// [`Failure::Usage`] when it is no model file or something is where it is to be written.
pub(super) fn run(arguments: &Export) -> Result<(), Failure> {
    let model = load(&arguments.model)?;
    let bytes = match arguments.format {
        Format::Onnx => onnx::encode(&model).map_err(Failure::configuration)?,
        Format::Safetensors => model.encode_for_pytorch().map_err(Failure::configuration)?,
    };
    let path = &arguments.out;
    let mut file = File::create_new(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::Usage {
            problem: format!("--out {}: something is there already", path.display()),
            help: Some("name another file, or remove that one".to_owned()),
        },
        _ => Failure::file(path, error),
    })?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|error| Failure::file(path, error))?;
    println!("{}: {} bytes", path.display(), bytes.len());
    Ok(())
}
