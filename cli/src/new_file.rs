//! Files that a command writes: whole or not at all, readable by their owner only, and never over one that is there.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::failure::Failure;

/// Writes the file `out` by `write`, whose failure `explain` puts into words.
///
/// # Errors
/// [`Failure::Usage`] when the file is there, [`Failure::Other`] when it cannot be written, and what `explain` makes.
pub(crate) fn write_new<T, E>(
    out: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<T, E>,
    explain: impl FnOnce(E) -> Failure,
) -> Result<T, Failure> {
    if out.exists() {
        return Err(Failure::Usage {
            problem: format!("{} is there already", out.display()),
            help: Some("name another file with --out, or remove it".to_owned()),
        });
    }
    let failed = |error| Failure::file(out, error);
    let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    let mut writer = BufWriter::new(file.as_file());
    let result = write(&mut writer).map_err(explain)?;
    writer.flush().map_err(failed)?;
    drop(writer);
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(out).map_err(|error| failed(error.error))?;
    Ok(result)
}
