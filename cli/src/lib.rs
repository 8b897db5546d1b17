//! The command `skep`, as a library: what was typed comes in as [`arguments`], what went wrong goes out as a
//! [`failure`].
//!
//! | file | what it is about |
//! | --- | --- |
//! | `program` | the whole program, also with [models and formats of one's own](Own) |
//! | `experiment_file` | TOML, and diagnostics that point into it |
//! | `bench`, `init`, `inspect`, `check`, `simulate`, `sweep`, `compare`, `metrics`, `serve`, `invite`, `clients`, `status`, `join`, `privacy`, `audit`, `ledger`, `predict`, `model` | a command each |
//! | `audit_empirical` | what a federation is seen to give away |
//! | `say` | printing, whoever reads it |
//! | `real` | the processes of `simulate --real` |
//! | `recorder`, `progress`, `operator_log`, `results`, `summary`, `report`, `report_page` | what is seen and kept of a run |
//! | `page` | how pages for people look |

#[macro_use]
pub mod say;

pub mod allocator;
pub mod arguments;
pub mod audit;
mod audit_empirical;
mod bench;
mod bench_scaling;
mod ca;
mod check;
mod clients;
mod clock;
mod compare;
mod cost;
pub mod data;
pub mod experiment_file;
pub mod failure;
mod init;
mod inspect;
mod interrupt;
mod invite;
mod join;
pub mod ledger;
mod machine;
mod metric_words;
mod metrics;
pub mod model;
mod new_file;
mod operator_log;
mod page;
mod partition;
mod predict;
pub mod privacy;
mod privacy_words;
mod program;
mod progress;
mod proxy;
mod real;
mod recorder;
mod report;
mod report_page;
mod results;
mod scrub;
mod seal;
mod serve;
mod server_state;
mod simulate;
mod statistics;
mod status;
mod summary;
mod sweep;
mod text_table;
mod vocabulary;

pub use program::main_with;
pub use skep_learning::own::Own;

use arguments::{Arguments, Command, DataCommand};
use failure::Failure;

/// Runs what was typed to its end.
///
/// # Errors
/// [`Failure`], which knows its exit code.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let (log, log_format) = (arguments.log, arguments.log_format);
    let secret = seal::secret(&arguments.sealed_data)?;
    seal::unlock(secret.as_ref())?;
    if arguments.command.has_client_store() {
        seal::seal_stores(secret.as_ref());
    }
    let ran = match arguments.command {
        Command::Simulate(arguments) if arguments.sweep => sweep::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments, &log),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Data(DataCommand::Inspect(arguments)) => inspect::run(&arguments),
        Command::Data(DataCommand::Partition(arguments)) => partition::run(&arguments),
        Command::Data(DataCommand::Seal(arguments)) => seal::run(&arguments, secret),
        Command::Data(DataCommand::Unseal(arguments)) => seal::undo(&arguments, secret),
        Command::Data(DataCommand::Scrub(arguments)) => scrub::run(&arguments),
        Command::Data(DataCommand::Statistics(arguments)) => statistics::run(&arguments),
        Command::Data(DataCommand::Vocabulary(arguments)) => vocabulary::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Privacy(command) => privacy::run(&command, &mut say::Out).map_err(Failure::from),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Ledger(command) => ledger::run(&command),
        Command::Budget(arguments) => ledger::budget(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Invite(arguments) => invite::run(&arguments),
        Command::Ca(command) => ca::run(&command),
        Command::Clients(arguments) => clients::run(&arguments),
        Command::Revoke(arguments) => clients::revoke(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Join(arguments) => join::run(&arguments, log_format),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Model(command) => model::run(&command),
        Command::LocalServer => real::run_server(),
        Command::LocalClients => real::run_clients(),
    };
    ran.and_then(|()| say::heard())
}
