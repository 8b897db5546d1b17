//! The command `skep`: parses, sets up logging, calls the library, and turns failures into exit codes.

use std::env;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use skep_cli::allocator;
use skep_cli::arguments::{Arguments, LogFormat};
use skep_cli::failure::AUDIT_USAGE;
use skep_cli::say;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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

fn main() -> ExitCode {
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
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match arguments.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    let told_elsewhere = arguments.command.is_child();
    match skep_cli::run(arguments) {
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
