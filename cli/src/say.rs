//! What the program says: `print!`, `println!` and `eprintln!` as all of it uses them.
//!
//! Those of the standard library panic where nobody reads. Whoever closes a pipe, as `head` does, has read enough: from then on nothing is
//! said, and the program goes on to its end and its exit code. Any other reason why nothing can be said fails the command in the end.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

use crate::failure::Failure;

/// As the macro of the standard library.
macro_rules! print {
    ($($words:tt)*) => { $crate::say::out(format_args!($($words)*)) };
}

/// As the macro of the standard library.
macro_rules! println {
    ($($words:tt)*) => { $crate::say::out(format_args!("{}\n", format_args!($($words)*))) };
}

/// As the macro of the standard library.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::say::err(format_args!($($words)*)) };
}

/// Standard output, which takes everything once nobody reads it.
#[derive(Debug)]
pub(crate) struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_closed(io::stdout().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_closed(io::stdout().flush())
    }
}

fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes to standard output.
pub(crate) fn out(words: Arguments<'_>) {
    if let Err(error) = Out.write_fmt(words).and_then(|()| Out.flush()) {
        let _ = UNSAID.set(error);
    }
}

/// Writes a line to standard error, if anybody can be told.
pub fn err(words: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// Whether everything could be said.
///
/// # Errors
/// [`Failure::Other`] with the first reason, such as a full disk.
pub(crate) fn heard() -> Result<(), Failure> {
    UNSAID.get().map_or(Ok(()), |error| Err(Failure::Other(format!("standard output: {error}"))))
}

static UNSAID: OnceLock<io::Error> = OnceLock::new();
