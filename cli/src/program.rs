//! The whole program: from what was typed to an exit code.

use std::env;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use skep_learning::own::{self, Own};
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, LogFormat};
use crate::failure::AUDIT_USAGE;
use crate::{allocator, say};

/// The command `skep` with what a program of one's own brings along, to be called by its `main` before anything else:
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     skep_cli::main_with(skep_cli::Own::new())
/// }
/// ```
pub fn main_with(own: Own) -> ExitCode {
    if let Err(error) = own::bring(own) {
        say::err(format_args!("error: {error}"));
        return ExitCode::from(2);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misunderstood(&error),
    };
    allocator::set(arguments.command.allocator());
    let filter = match EnvFilter::try_new(&arguments.log) {
        Ok(filter) => filter,
        Err(error) => {
            say::err(format_args!("error: --log {:?} is not a filter: {error}", arguments.log));
            return ExitCode::from(2);
        }
    };
    // What cannot be logged cannot be told on standard error either.
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    let told_elsewhere = arguments.command.is_child();
    match crate::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if !told_elsewhere {
                say::err(format_args!("{:?}", miette::Report::new(failure)));
            }
            ExitCode::from(code)
        }
    }
}

/// Prints help, or what was not understood.
fn misunderstood(error: &clap::Error) -> ExitCode {
    // Nothing can be done where nothing can be printed.
    let _ = error.print();
    let mut words = env::args_os().skip(1).skip_while(|word| word != "audit").skip(1);
    let of_a_ledger = words.next().is_none_or(|word| word != "empirical" && word != "membership");
    let is_audit = env::args_os().any(|word| word == "audit") && of_a_ledger;
    match u8::try_from(error.exit_code()) {
        Ok(0) => ExitCode::SUCCESS,
        _ if is_audit => ExitCode::from(AUDIT_USAGE),
        code => ExitCode::from(code.unwrap_or(2)),
    }
}
