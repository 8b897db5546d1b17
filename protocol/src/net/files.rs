//! Small private files: mode 0600 in directories of mode 0700, whole or absent, on disk before a call returns.
//!
//! A file appears under its name only once it is complete and synced. [`create`] never replaces: of several
//! processes that create the same name, exactly one succeeds, which is all the locking that enrolment needs.
//!
//! A process may [encrypt](encrypt_with) what it writes here. What is encrypted begins with a mark, so that both kinds are read.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// What failed, and at which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was tried: `read`, `create`, `replace`.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl FileError {
    /// True when the file does not exist.
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// True when the file exists although it should not.
    pub fn exists_already(&self) -> bool {
        self.source.kind() == io::ErrorKind::AlreadyExists
    }
}

/// Keeps the contents of private files from whoever gets the disk or a copy of it.
pub trait Cipher: Send + Sync {
    /// The contents of a file in `directory` as they are written, beginning with the mark of sealed files.
    ///
    /// # Errors
    /// What keeps them from being encrypted.
    fn seal(&self, directory: &Path, contents: &[u8]) -> io::Result<Vec<u8>>;

    /// What [`Cipher::seal`] has made of these contents.
    ///
    /// # Errors
    /// When they were changed, or sealed elsewhere or with another secret.
    fn open(&self, directory: &Path, sealed: &[u8]) -> io::Result<Zeroizing<Vec<u8>>>;
}

static CIPHER: OnceLock<Box<dyn Cipher>> = OnceLock::new();

/// Encrypts everything that this process writes by this module from now on. A process has one cipher: what it was given first.
pub fn encrypt_with(cipher: impl Cipher + 'static) {
    // A second one would be of the same owner.
    let _ = CIPHER.set(Box::new(cipher));
}

/// Whether contents are encrypted.
pub fn is_sealed(contents: &[u8]) -> bool {
    contents.starts_with(SEALED)
}

/// Contents for the file `path` as this process writes them.
///
/// # Errors
/// As for [`Cipher::seal`].
pub fn to_disk<'a>(path: &Path, contents: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
    match CIPHER.get() {
        None => Ok(contents.into()),
        Some(cipher) => cipher.seal(parent(path), contents).map(Cow::from),
    }
}

/// What was written into the file `path`, whether or not it was encrypted.
///
/// # Errors
/// As for [`Cipher::open`]; when it is encrypted, and this process has no cipher.
pub fn from_disk(path: &Path, contents: Zeroizing<Vec<u8>>) -> io::Result<Zeroizing<Vec<u8>>> {
    match CIPHER.get() {
        _ if !is_sealed(&contents) => Ok(contents),
        Some(cipher) => cipher.open(parent(path), &contents),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is sealed: name its key with --data-key or its passphrase with --data-passphrase",
        )),
    }
}

/// Makes `directory` and its missing parents, each that is new for its owner alone. One that exists may be listed by
/// others, since every file in it is closed to them, but not written.
///
/// # Errors
/// [`FileError`] when it cannot be made, or exists and others may write it.
pub fn private_directory(directory: &Path) -> Result<(), FileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(directory)
        .and_then(|()| refuse_access(0o022, &fs::metadata(directory)?, "chmod 700"))
        .map_err(failed("create", directory))
}

/// Waits until nobody else, in this process or another, has the file `path` locked, which is made if need be, and locks it until the
/// result is dropped: for what is read, changed and written again.
///
/// # Errors
/// [`FileError`] when it cannot be locked.
pub fn lock(path: &Path) -> Result<File, FileError> {
    let open = || private().append(true).create(true).open(path);
    open().and_then(|file| file.lock().map(|()| file)).map_err(failed("lock", path))
}

/// How to open a file that, where it is made by that, is for its owner alone.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Reads a file of at most 64 KiB that only its owner may read.
///
/// # Errors
/// [`FileError`] when it is absent, larger, unreadable, or open to others.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_limited(path).and_then(|contents| from_disk(path, contents)).map_err(failed("read", path))
}

/// [`read`], without decrypting anything.
///
/// # Errors
/// As for [`read`].
pub fn read_as_it_is(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_limited(path).map_err(failed("read", path))
}

/// Creates the file `path` with `contents`; an existing one stays as it is.
///
/// # Errors
/// [`FileError`], whose [`FileError::exists_already`] tells a name that is taken from other failures.
pub fn create(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    create_as_it_is(path, &to_disk(path, contents).map_err(failed("create", path))?)
}

/// [`create`], without encrypting anything.
///
/// # Errors
/// As for [`create`].
pub fn create_as_it_is(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_beside(path).map_err(failed("create", path))?;
    // A hard link is the atomic step that refuses to replace; a rename would replace in silence.
    let result = write_synced(&temporary, contents)
        .and_then(|()| fs::hard_link(&temporary, path))
        .and_then(|()| sync_parent(path));
    let _ = fs::remove_file(&temporary);
    result.map_err(failed("create", path))
}

/// Writes the file `path`, replacing one that exists.
///
/// # Errors
/// [`FileError`]; the former contents are then still there.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_beside(path).map_err(failed("replace", path))?;
    let result = to_disk(path, contents)
        .and_then(|contents| write_synced(&temporary, &contents))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_parent(path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(failed("replace", path))
}

/// Creates the directory `path` holding `files` (names and contents), all of them or none.
///
/// # Errors
/// [`FileError`], whose [`FileError::exists_already`] tells a name that is taken from other failures.
pub fn create_directory_of(path: &Path, files: &[(&str, &[u8])]) -> Result<(), FileError> {
    let temporary = temporary_beside(path).map_err(failed("create", path))?;
    let result = (|| {
        private_directory(&temporary).map_err(|error| error.source)?;
        for (name, contents) in files {
            write_synced(&temporary.join(name), contents)?;
        }
        File::open(&temporary)?.sync_all()?;
        // Renaming onto a directory succeeds only while that is empty, and ours never is.
        fs::rename(&temporary, path).map_err(taken)?;
        sync_parent(path)
    })();
    if result.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    result.map_err(failed("create", path))
}

fn read_limited(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    refuse_access(0o077, &file.metadata()?, "chmod 600")?;
    let mut contents = Zeroizing::new(Vec::with_capacity(1024));
    file.take(SIZE_LIMIT + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > SIZE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 64 KiB"));
    }
    Ok(contents)
}

fn write_synced(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = private().write(true).create_new(true).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Waits until the directory that holds `path` is on disk, and with it the names in it.
///
/// # Errors
/// What the system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    Ok(parent(path).join(format!(".temporary-{}", HEXLOWER.encode(&random))))
}

#[cfg(unix)]
fn refuse_access(bits: u32, metadata: &fs::Metadata, remedy: &str) -> io::Result<()> {
    let mode = std::os::unix::fs::MetadataExt::mode(metadata) & 0o777;
    if mode & bits == 0 {
        return Ok(());
    }
    let message = format!("its mode {mode:03o} lets others in; `{remedy}` closes it");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

#[cfg(not(unix))]
fn refuse_access(_: u32, _: &fs::Metadata, _: &str) -> io::Result<()> {
    Ok(())
}

fn taken(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::DirectoryNotEmpty => io::ErrorKind::AlreadyExists.into(),
        _ => error,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError { action, path, source }
}

const SIZE_LIMIT: u64 = 64 << 10;
/// How encrypted contents begin.
const SEALED: &[u8] = b"SKEPSEAL";

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn of_two_creations_of_one_name_the_first_stays() {
        let directory = private();
        let path = directory.path().join("key");
        create(&path, b"first").unwrap();
        assert!(create(&path, b"second").unwrap_err().exists_already());
        assert_eq!(read(&path).unwrap().as_slice(), b"first");
        replace(&path, b"third").unwrap();
        assert_eq!(read(&path).unwrap().as_slice(), b"third");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "temporary files stayed behind");
    }

    #[test]
    fn of_many_concurrent_creations_one_succeeds() {
        let directory = private();
        let path = directory.path().join("token");
        let tries: Vec<u8> = (0..16).collect();
        let successes = std::thread::scope(|scope| {
            let threads: Vec<_> =
                tries.iter().map(|n| scope.spawn(|| create(&path, &[*n]).is_ok())).collect();
            threads.into_iter().map(|t| u32::from(t.join().unwrap())).sum::<u32>()
        });
        assert_eq!(successes, 1);
    }

    #[test]
    fn a_directory_of_files_appears_once_and_whole() {
        let directory = private();
        let path = directory.path().join("authority");
        create_directory_of(&path, &[("a", b"1"), ("b", b"2")]).unwrap();
        assert!(create_directory_of(&path, &[("a", b"3")]).unwrap_err().exists_already());
        assert_eq!(read(&path.join("a")).unwrap().as_slice(), b"1");
        assert_eq!(read(&path.join("b")).unwrap().as_slice(), b"2");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "temporary files stayed behind");
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let directory = private();
        let path = directory.path().join("large");
        create(&path, &vec![0; SIZE_LIMIT as usize + 1]).unwrap();
        assert!(read(&path).unwrap_err().source.to_string().contains("64 KiB"));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_0600_and_one_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = private();
        let inner = directory.path().join("state");
        private_directory(&inner).unwrap();
        let path = inner.join("key");
        create(&path, b"secret").unwrap();
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.source.to_string().contains("chmod 600"), "{:?}", error.source);
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o770)).unwrap();
        let error = private_directory(&inner).unwrap_err();
        assert!(error.source.to_string().contains("chmod 700"), "{:?}", error.source);
    }
}
