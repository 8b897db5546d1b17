//! What can be typed, and nothing of what it means.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use skep_protocol::net::invitation::Address;

use crate::data::DataSource;
use crate::privacy::PrivacyCommand;

/// Federated learning over data that never leaves its owners, with the cost in privacy on every model.
#[derive(Debug, Parser)]
#[command(name = "skep", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log on standard error, as a filter of the crate `tracing-subscriber`.
    ///
    /// For example `info`, or `warn,skep_server=debug`. Logs name clients, rounds and reasons, never data.
    #[arg(long, global = true, env = "SKEP_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a federation on this machine.
    ///
    /// Every client of the experiment takes part, each with its share of the data. Without FILE the built-in federation
    /// runs: handwritten digits, 100 clients, with privacy.
    Simulate(Simulate),
    /// Say what an experiment file means and what it costs in privacy.
    ///
    /// Prints the experiment with every value spelled out, what an update weighs, and both epsilons after all rounds. A file
    /// that makes no sense is refused, and so is a schedule that the privacy budget does not allow.
    Check(Check),
    /// Plan and compare privacy budgets.
    ///
    /// Answers what a schedule costs, what noise or how many rounds a budget allows, and whether anything can be learned
    /// within it.
    #[command(subcommand)]
    Privacy(PrivacyCommand),
    /// Run a federation's server.
    ///
    /// On the first start the state directory gets a certificate authority of its own; `skep invite` makes invitations from
    /// it. The first round starts when enough clients are connected.
    Serve(Serve),
    /// Print an invitation for one client.
    ///
    /// One line, a secret until it is used: it carries the server's address, its fingerprint, and a token that buys one
    /// certificate. Works beside a running server.
    Invite(Invite),
    /// Take part in a federation.
    ///
    /// With an invitation the client first gets a certificate for a key that never leaves its state directory. Without
    /// one it continues as who it is there. Ends when the server says that the federation is over.
    Join(Join),
    /// The server of `skep simulate --real`; told what to do on standard input.
    #[command(hide = true)]
    LocalServer,
    /// Some clients of `skep simulate --real`; told what to do on standard input.
    #[command(hide = true)]
    LocalClients,
}

impl Command {
    /// Whether another process of ours started this one, and tells its failure.
    pub fn is_child(&self) -> bool {
        matches!(self, Command::LocalServer | Command::LocalClients)
    }
}

/// Arguments of `skep simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// The experiment file; the built-in federation if none is given.
    pub file: Option<PathBuf>,
    /// Use real processes and TLS connections on this machine, instead of memory and virtual time.
    #[arg(long)]
    pub real: bool,
    /// Processes among which the clients are divided, at least 2; only with --real.
    #[arg(long, value_name = "N", requires = "real", value_parser = clap::value_parser!(u16).range(2..=256))]
    pub processes: Option<u16>,
    /// Fix every random draw, the noise included: the result is reproducible, and therefore not private.
    ///
    /// Without it noise, rounding and the choice of clients come from the operating system. The experiment file's `seed`
    /// is another one: it is public and covers data, partition and initial weights only.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads that train; all of the machine's if not given. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where to keep the results: a new, an empty or a results directory.
    ///
    /// It gets `experiment.toml` (as resolved), `rounds.jsonl`, `summary.json`, `model.safetensors` and `rounds.svg`.
    /// Results that are there already are replaced.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where data sets lie that are not built in. The digits are.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output at the end.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The experiment file; the built-in federation if none is given.
    pub file: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// The experiment file.
    pub file: PathBuf,
    /// Where to listen, as an IP address and a port.
    #[arg(long, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Where clients reach the server, if not where it listens; up to 8, tried in this order.
    ///
    /// Invitations carry it, so it must be right before they are made.
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Vec<Address>,
    /// The server's keys, its clients and its invitations. Made on the first start; whoever reads it is the federation.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where to keep the results: a new, an empty or a results directory.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Clients that must be connected before the first round; all of the population if not given.
    #[arg(long, value_name = "N")]
    pub wait_for: Option<NonZeroUsize>,
    /// How long they are waited for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub wait_s: u64,
    /// What to print on standard output at the end.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep invite`.
#[derive(Debug, Args)]
pub struct Invite {
    /// The server's state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where the client finds the server; if not given, what `skep serve` last said. Up to 8, tried in this order.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<Address>,
    /// Invite this client again, by its number, instead of a new one. Its former key loses its place.
    #[arg(long, value_name = "NUMBER")]
    pub client: Option<u64>,
    /// How long the invitation is good: a number and `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    pub expires_in: Duration,
}

/// Arguments of `skep join`.
#[derive(Debug, Args)]
pub struct Join {
    /// The line that `skep invite` printed; needed once.
    pub invitation: Option<String>,
    /// What to train on: `digits:K/N`, which is part K (from 0) of the built-in digits in N equal parts, or a CSV file.
    ///
    /// A CSV file has a header line, a column of labels from 0, and numbers in all other columns.
    #[arg(long, value_name = "DATA")]
    pub data: DataSource,
    /// The column of labels in a CSV file.
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    pub label: String,
    /// Classes in a CSV file; the federation's number.
    #[arg(long, value_name = "N")]
    pub classes: Option<usize>,
    /// The client's key and certificate. Made on the first call.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object, and nothing else.
    Json,
}

/// Reads a length of time such as `90m`.
fn time(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("say a number and `s`, `m`, `h` or `d`".to_owned()),
    };
    let count: u64 =
        number.parse().map_err(|error| format!("{number:?} is not a number of them: {error}"))?;
    match count.checked_mul(seconds) {
        Some(seconds @ 1..=LONGEST_S) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be 1 second to 365 days".to_owned()),
    }
}

/// A year.
const LONGEST_S: u64 = 365 * 86_400;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage, or an experiment file that makes no sense
  3    the privacy budget is exhausted
  4    not enough clients
  5    a peer, authentication or TLS failed
  130  interrupted; the results of the rounds done are kept";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_description_of_the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_length_of_time_has_a_unit() {
        assert_eq!(time("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(time("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["90", "m", "1y", "-1h", "0s", "366d", "1h30m", "99999999999999999999d"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
