//! `skep data seal` and `skep data unseal`: data encrypted where they are stored, and back; `--data-key` and
//! `--data-passphrase`, with which every command reads them.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use skep_client::store::SealedStores;
use skep_learning::seal::{self, Secret, Unsealed};
use skep_protocol::net::files;

use crate::arguments::{Seal, SealedData, Unseal};
use crate::failure::Failure;
use crate::new_file::write_new;

/// The secret that is named for the data of this process, if any is.
///
/// # Errors
/// [`Failure::Usage`] when the file with the secret cannot be read, is open to others, or holds none.
pub(crate) fn secret(data: &SealedData) -> Result<Option<Secret>, Failure> {
    let (path, read): (_, fn(&[u8]) -> _) = match (&data.key, &data.passphrase) {
        (Some(path), _) => (path, Secret::from_key_file),
        (None, Some(path)) => (path, Secret::from_passphrase),
        (None, None) => return Ok(None),
    };
    let contents =
        files::read(path).map_err(|error| Failure::configuration(format!("{error}: {}", error.source)))?;
    read(&contents).map(Some).map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))
}

/// Lets the data of this process be sealed with the secret, if there is one.
///
/// # Errors
/// [`Failure::Other`] where they can be sealed already.
pub(crate) fn unlock(secret: Option<&Secret>) -> Result<(), Failure> {
    secret.map_or(Ok(()), |secret| seal::unlock(secret.clone()).map_err(Failure::other))
}

/// Keeps a client's store encrypted, too, if there is a secret.
pub(crate) fn seal_stores(secret: Option<&Secret>) {
    if let Some(secret) = secret {
        files::encrypt_with(SealedStores::new(secret.clone()));
    }
}

/// Runs `skep data seal`.
///
/// # Errors
/// [`Failure::Usage`] without a secret or with an output that is there already; [`Failure::Other`] when a file cannot be read
/// or written.
pub(crate) fn run(arguments: &Seal, named: Option<Secret>) -> Result<(), Failure> {
    let secret = match (&arguments.new_key, named) {
        (Some(path), None) => new_key(path)?,
        (None, Some(secret)) => secret,
        (Some(_), Some(_)) => {
            return Err(Failure::configuration(
                "--new-key makes a key: leave out --data-key and --data-passphrase",
            ));
        }
        (None, None) => return Err(no_secret("or make a key with --new-key FILE")),
    };
    let source = open(&arguments.file)?;
    let failed = |error| Failure::file(&arguments.out, error);
    write_new(&arguments.out, |output| seal::seal(source, output, &secret), failed)?;
    println!("sealed {} as {}", arguments.file.display(), arguments.out.display());
    println!("without the key or passphrase nobody can read it again; remove the original yourself");
    Ok(())
}

/// Runs `skep data unseal`.
///
/// # Errors
/// Likewise, and when the file was changed or is sealed with another secret: nothing is written then.
pub(crate) fn undo(arguments: &Unseal, named: Option<Secret>) -> Result<(), Failure> {
    let secret = named.ok_or_else(|| no_secret("the one it was sealed with"))?;
    let source = open(&arguments.file)?;
    let unreadable = |error| Failure::file(&arguments.file, error);
    let mut plain = Unsealed::new(source, &secret).map_err(unreadable)?;
    write_new(&arguments.out, |output| std::io::copy(&mut plain, output), unreadable)?;
    println!("unsealed {} as {}", arguments.file.display(), arguments.out.display());
    Ok(())
}

fn no_secret(help: &str) -> Failure {
    Failure::Usage {
        problem: "no secret is named".to_owned(),
        help: Some(format!("name it with --data-key FILE or --data-passphrase FILE, {help}")),
    }
}

fn new_key(path: &Path) -> Result<Secret, Failure> {
    let secret = Secret::generate().map_err(Failure::other)?;
    let line = secret.key_file().unwrap_or_default();
    files::create(path, line.as_bytes()).map_err(|error| match error.exists_already() {
        true => Failure::configuration(format!("--new-key {}: it is there already", path.display())),
        false => Failure::other(format!("{error}: {}", error.source)),
    })?;
    Ok(secret)
}

fn open(path: &Path) -> Result<BufReader<File>, Failure> {
    File::open(path).map(BufReader::new).map_err(|error| Failure::file(path, error))
}
