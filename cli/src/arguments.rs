//! What can be typed, and nothing of what it means.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use skep_learning::Classes;
use skep_learning::scrub::{Format, Kind};
use skep_protocol::ClientId;
use skep_protocol::net::invitation::{Address, Fingerprint};

use crate::allocator;
use crate::audit::Audit;
use crate::ca::CaCommand;
use crate::clients;
use crate::data::DataSource;
use crate::ledger::{Budget, LedgerCommand};
use crate::model::ModelCommand;
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
    /// How it is logged: lines for people, or a JSON object a line.
    #[arg(long, global = true, env = "SKEP_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What opens sealed data.
    #[command(flatten)]
    pub sealed_data: SealedData,
}

/// What opens data that `skep data seal` has encrypted.
#[derive(Debug, Args)]
pub struct SealedData {
    /// The key with which data files are sealed, where they are; only you may read it.
    #[arg(long = "data-key", global = true, value_name = "FILE", conflicts_with = "passphrase")]
    pub key: Option<PathBuf>,
    /// A file with the passphrase with which data files are sealed, where they are; only you may read it.
    #[arg(long = "data-passphrase", global = true, value_name = "FILE")]
    pub passphrase: Option<PathBuf>,
}

/// How things are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// A JSON object a line, and nothing else on standard error while things go well.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a federation on this machine.
    ///
    /// Every client of the experiment takes part, each with its share of the data. Without FILE the built-in federation
    /// runs: handwritten digits, 100 clients, with privacy.
    Simulate(Simulate),
    /// Write an experiment file to start from.
    ///
    /// With comments on every key: the built-in federation, or one that learns from a CSV file. `skep check` says what it
    /// costs, `skep simulate` runs it.
    Init(Init),
    /// Look at data.
    #[command(subcommand)]
    Data(DataCommand),
    /// Measure how long the rounds of an experiment take.
    ///
    /// Runs it in memory like `skep simulate`, with every random draw fixed and without measuring the model in between, and
    /// prints the median round, where its time goes, what arithmetic alone would take, and the last model's loss.
    Bench(Bench),
    /// Put runs beside one another.
    ///
    /// Prints a table: in which keys the experiments differ, and what came of each. With --html also a page of curves that
    /// loads nothing.
    Compare(Compare),
    /// Write the rounds of a run for other programs.
    Metrics(Metrics),
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
    /// Say whether a ledger is whole, and whether what it says about privacy is true.
    ///
    /// Needs the file alone. With a key, a checkpoint or a model file it can say more, and it says what it could not check.
    Audit(Audit),
    /// Look into a ledger.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Say what is spent and left of the budget in ledgers, and how long it lasts.
    Budget(Budget),
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
    /// Be the authority that says who is a client, apart from the server.
    ///
    /// Then whoever runs the server cannot make up clients of its own: clients believe what the authority has signed, and nothing older
    /// than the last they saw.
    #[command(subcommand)]
    Ca(CaCommand),
    /// List the clients of a server: where each stands, when it was last seen, until when its certificate is good.
    ///
    /// Works beside a running server, and without one.
    Clients(Clients),
    /// Shut a client out for good.
    ///
    /// A running server closes its session at once. No certificate is renewed for it, no invitation made. Others notice
    /// nothing.
    Revoke(Revoke),
    /// Say what a server is doing: round, phase, who is connected, what is spent.
    ///
    /// Works beside a running server; without one it says what the last one did.
    Status(Status),
    /// Take part in a federation.
    ///
    /// With an invitation the client first gets a certificate for a key that never leaves its state directory. Without
    /// one it continues as who it is there. Ends when the server says that the federation is over.
    Join(Join),
    /// Ask a model what examples are.
    ///
    /// Everything that is needed is in the model file that `skep simulate --out` and `skep serve --out` leave: the
    /// architecture, what the numbers are called and divided by, and the names of the classes. Prints a line for each example.
    Predict(Predict),
    /// Look into a model file, or put it to use.
    #[command(subcommand)]
    Model(ModelCommand),
    /// The server of `skep simulate --real`; told what to do on standard input.
    #[command(hide = true)]
    LocalServer,
    /// Some clients of `skep simulate --real`; told what to do on standard input.
    #[command(hide = true)]
    LocalClients,
}

impl Command {
    /// What the allocator is told: those that stay for long, on machines that do other things, should take little memory.
    pub fn allocator(&self) -> allocator::Settings {
        match self {
            Command::Join(_) => allocator::CLIENT,
            Command::Serve(_) => allocator::SERVER,
            _ => &[],
        }
    }

    /// Whether it reads or writes the store of a client, which may be sealed.
    pub fn has_client_store(&self) -> bool {
        match self {
            Command::Join(_) | Command::Audit(_) => true,
            Command::Ca(CaCommand::Request(request)) => !request.server,
            _ => false,
        }
    }

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
    /// It gets `experiment.toml` (as resolved), `rounds.jsonl`, `summary.json`, `model.safetensors`, `ledger.skep` and
    /// `report.html`; until the run has ended, `checkpoint.skep` for --resume, which is secret.
    /// Results that are there already are replaced, except those of a run that was stopped.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on where an earlier run into --out was stopped or killed, with the same result as if it had not been. With nothing to
    /// go on from, begin.
    #[arg(long, requires = "out", conflicts_with = "real")]
    pub resume: bool,
    /// Run the experiment once for each combination of values in its `[sweep]`, several at a time, into directories below --out.
    ///
    /// Ends with a table, and with what all runs together cost in privacy. --resume goes on with a sweep that was stopped.
    #[arg(long, requires = "out", conflicts_with = "real")]
    pub sweep: bool,
    /// Where the files lie that `task.data` names by relative paths; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output at the end.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// Results directories of runs that have ended.
    #[arg(required = true, num_args = 1.., value_name = "DIR")]
    pub results: Vec<PathBuf>,
    /// Write a page of curves into this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    /// The results directory of a run, whether it has ended or not.
    pub results: PathBuf,
    /// As what.
    #[arg(long, value_enum)]
    pub format: MetricsFormat,
    /// Where to: a file for csv, standard output if not given; a file for parquet; for tensorboard a log directory.
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
}

/// How rounds are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsFormat {
    /// A table, a line for each round.
    Csv,
    /// The same table with a type for each column.
    Parquet,
    /// An event file.
    Tensorboard,
}

/// What `skep bench --scaling` varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scaling {
    /// Everything below, one after the other.
    All,
    /// Clients in a cohort.
    Cohort,
    /// Clients in the population.
    Population,
    /// Parameters of the model.
    Model,
    /// Threads that train.
    Threads,
}

/// Arguments of `skep bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// The experiment file.
    #[arg(required_unless_present = "scaling")]
    pub file: Option<PathBuf>,
    /// Print instead what rounds of workloads cost by cohort, population, model and threads, or by one of them, in Markdown; all
    /// of it takes some minutes.
    #[arg(long, value_name = "BY", num_args = 0..=1, default_missing_value = "all")]
    #[arg(conflicts_with_all = ["file", "threads", "rounds", "data_dir", "output"])]
    pub scaling: Option<Scaling>,
    /// Threads that train.
    #[arg(long, value_name = "N", default_value = "1")]
    pub threads: NonZeroUsize,
    /// Rounds to run instead of those of the experiment.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: Option<u64>,
    /// Where data files with relative paths lie; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The experiment file; the built-in federation if none is given.
    pub file: Option<PathBuf>,
    /// Where the files lie that `task.data` names by relative paths; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
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
    /// The server's keys, its clients, its invitations and its rounds. Made on the first start; whoever reads it is the
    /// federation. A server that is started again on it goes on after its last round.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where to keep the results: a new, an empty or a results directory.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Let an auditor check the noise: a new ledger names this key, which `skep ledger auditor-key` makes.
    ///
    /// The seed of each round's noise is committed to beforehand, and sealed to the key together with the sum without noise:
    /// its owner sees what the server sees. Off unless given on the first start.
    #[arg(long, value_name = "KEY", value_parser = crate::ledger::auditor, requires = "auditor_days")]
    pub auditor: Option<[u8; 32]>,
    /// For how many days the auditor may do so.
    #[arg(long, value_name = "DAYS", requires = "auditor", value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub auditor_days: Option<u64>,
    /// Clients that must be connected before the first round; all of the population if not given.
    #[arg(long, value_name = "N")]
    pub wait_for: Option<NonZeroUsize>,
    /// How long they are waited for, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub wait_s: u64,
    /// Where the files lie that `task.data` names by relative paths; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How long a client's certificate is good: a number and `s`, `m`, `h` or `d`; 30 days if not given. Clients renew theirs in time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub certificates_for: Option<Duration>,
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
    /// The line that `skep invite` or `skep ca sign` printed; needed once.
    pub invitation: Option<String>,
    /// Take part only where the authority with this fingerprint, apart from the server, says who is a client.
    #[arg(long, value_name = "FINGERPRINT")]
    pub ca: Option<Fingerprint>,
    /// What to train on: `digits:K/N`, which is part K (from 0) of the built-in digits in N equal parts, or a file.
    ///
    /// A CSV file has a header line, a column of labels, and columns of numbers. An IDX file of images comes with a
    /// file of labels. Both may be compressed with gzip.
    #[arg(long, value_name = "DATA", required_unless_present = "enrol_only")]
    pub data: Option<DataSource>,
    /// Get the certificate, and end: another call takes part.
    #[arg(long, requires = "invitation")]
    pub enrol_only: bool,
    /// The federation's experiment file, whose `task.data` says how DATA is read: columns, classes, words.
    ///
    /// Needed for texts, and for tables with categories, missing values, standardized columns or a number to predict; for other tables and
    /// images instead of the four options below. What it names beside data, such as a vocabulary or statistics, lies beside it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["features", "classes"])]
    pub experiment: Option<PathBuf>,
    /// The column of labels in a CSV file.
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    pub label: String,
    /// The columns of features in a CSV file, in the federation's order; all but the label if not given.
    #[arg(long, value_name = "COLUMN,COLUMN,...", value_delimiter = ',')]
    pub features: Option<Vec<String>>,
    /// The labels of an IDX file of images.
    #[arg(long, value_name = "FILE", conflicts_with = "features")]
    pub labels: Option<PathBuf>,
    /// The federation's classes, where DATA is a file: their number, or their names in its order.
    #[arg(long, value_name = "N|NAME,NAME,...", value_parser = classes)]
    pub classes: Option<Classes>,
    /// The client's key, its certificate, and the count of what its owner's limits were used for. Made on the first call.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Where updates are hidden in a sum: the smallest cohort whose sum this client's update may be in.
    #[arg(long, value_name = "CLIENTS", default_value_t = skep_protocol::masked::MIN_COHORT)]
    pub min_cohort: u32,
    /// Train by this program instead, as a shell would start it: `--train-command "python train.py"`.
    ///
    /// It gets the model on standard input and must give it back, trained, on standard output, both as --train-format says. DATA is read all the same, to count and to measure with; the environment says where it is and what is asked for.
    #[arg(long, value_name = "COMMAND", conflicts_with = "enrol_only")]
    pub train_command: Option<String>,
    /// How the model goes to that program, and comes back.
    #[arg(long, value_enum, default_value_t, requires = "train_command")]
    pub train_format: TrainFormat,
    /// How long that program may take for a round: a number and `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub train_timeout: Duration,
    /// A file with the owner's limits: hours of the day, rounds, bytes, privacy. Beyond them the client declines.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Where it is kept what the data have given away, over all servers that they took part with; the state directory if
    /// not given. Clients of several servers with the same data share it.
    #[arg(long, value_name = "DIR")]
    pub participations: Option<PathBuf>,
    /// The HTTP proxy to connect through, as http://host:port or http://user:password@host:port; `none` for none.
    ///
    /// If not given, HTTPS_PROXY and NO_PROXY in the environment are heeded.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// How long to go without a connection before giving up: a number and `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = time)]
    pub give_up_after: Duration,
}

/// How a model passes between a client and a program that trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TrainFormat {
    /// Flat parameters as little-endian f32.
    #[default]
    Flat,
    /// A safetensors file with the names of a torch.nn.Sequential.
    Safetensors,
}

/// Arguments of `skep clients`.
#[derive(Debug, Args)]
pub struct Clients {
    /// The server's state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep revoke`.
#[derive(Debug, Args)]
pub struct Revoke {
    /// The client, as `client-17` or 17.
    #[arg(value_parser = clients::client)]
    pub client: ClientId,
    /// The server's state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// Arguments of `skep status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The server's state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// What `skep data` can do.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Say what a file of examples holds.
    ///
    /// Shape, classes, missing values and clients of a table, of texts, of IDX, Parquet, NPY and NPZ files and of folders of
    /// images, plain or compressed with gzip. Prints counts, ranges and the names of columns and classes, and no text.
    Inspect(Inspect),
    /// Say who has which examples in a simulated federation, before it runs.
    ///
    /// How many examples and classes clients have, and how unlike their labels are: of the very partition that `skep simulate`
    /// makes of the data. Counted without noise, as only a simulation can.
    Partition(PartitionArguments),
    /// Write a file of records without what is personal in them.
    ///
    /// Leaves out duplicates, empty and malformed records. In the others, mail addresses, telephone numbers, links, internet
    /// addresses, payment cards, IBANs and numbers of persons become words like `[EMAIL]`. Prints counts and no content.
    Scrub(Scrub),
    /// Encrypt a file of data, so that it need not lie open on a disk.
    ///
    /// Every command that reads data reads sealed ones, too, with --data-key or --data-passphrase; nothing is decrypted to
    /// disk. The original stays: remove it yourself.
    Seal(Seal),
    /// Decrypt a file that was sealed.
    Unseal(Unseal),
    /// Let simulated clients state means and standard deviations of their columns, under differential privacy.
    ///
    /// Every client answers with the means of its own numbers and of their squares, within bounds that are declared before. The
    /// sum of the answers is charged to the experiment's ledger before anybody is asked, and released with noise; what is
    /// written down is what `task.data.standardize` names.
    Statistics(Statistics),
    /// Let simulated clients choose the vocabulary of an experiment, under differential privacy.
    ///
    /// Every client votes for the candidates that it uses most. The sum of the votes is charged to the experiment's
    /// ledger before anybody is asked, and released with noise; the words with enough votes are written down.
    Vocabulary(Vocabulary),
}

/// Arguments of `skep data partition`.
#[derive(Debug, Args)]
pub struct PartitionArguments {
    /// The experiment file; the built-in federation if none is given.
    pub file: Option<PathBuf>,
    /// Write a page with pictures into this file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Where the files lie that `task.data` names by relative paths; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep data statistics`.
#[derive(Debug, Args)]
pub struct Statistics {
    /// An experiment file with data of kind "csv", a mode that hides whole clients, and population.ledger.
    pub file: PathBuf,
    /// A TOML file with a line `NAME = [LOW, HIGH]` for each column of features; what lies beyond counts as the bound.
    ///
    /// Chosen without looking at anybody's data: by what the column means.
    #[arg(long, value_name = "FILE")]
    pub bounds: PathBuf,
    /// The standard deviation of the noise divided by what one client can add to the sum.
    #[arg(long, value_name = "Z")]
    pub noise_multiplier: f64,
    /// The file to write; must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Where files are that the experiment names by relative paths; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep data vocabulary`.
#[derive(Debug, Args)]
pub struct Vocabulary {
    /// An experiment file with texts, a mode that hides whole clients, and population.ledger.
    pub file: PathBuf,
    /// A public file with a candidate on each line; no other word can be chosen.
    #[arg(long, value_name = "FILE")]
    pub candidates: PathBuf,
    /// Candidates that one client votes for at most.
    #[arg(long, value_name = "N")]
    pub votes: u32,
    /// The standard deviation of the noise divided by the root of the votes.
    #[arg(long, value_name = "Z")]
    pub noise_multiplier: f64,
    /// Words in the vocabulary at most.
    #[arg(long, value_name = "N")]
    pub size: usize,
    /// The file to write; must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Where files are that the experiment names by relative paths; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep data seal`.
#[derive(Debug, Args)]
pub struct Seal {
    /// The file to encrypt.
    pub file: PathBuf,
    /// The file to write; must not be there yet.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Make a key, keep it in this new file, which only you may read, and seal with it.
    #[arg(long, value_name = "FILE")]
    pub new_key: Option<PathBuf>,
}

/// Arguments of `skep data unseal`.
#[derive(Debug, Args)]
pub struct Unseal {
    /// The sealed file.
    pub file: PathBuf,
    /// The file to write; must not be there yet. Only you can read it.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Arguments of `skep data scrub`.
#[derive(Debug, Args)]
pub struct Scrub {
    /// The records: CSV or TSV with a header line, a JSON object a line, or a text a line.
    pub file: PathBuf,
    /// The file to write; must not be there yet. Only you can read it.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What FILE is; its name says it if not given.
    #[arg(long, value_name = "csv|tsv|jsonl|text")]
    pub format: Option<Format>,
    /// The columns, or keys, whose text is scrubbed; all if not given.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// Columns, or keys, to leave out.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub drop: Vec<String>,
    /// Kinds that stay: url, email, iban, identity, card, ip, phone.
    #[arg(long, value_name = "KIND,...", value_delimiter = ',')]
    pub keep: Vec<Kind>,
    /// More to replace: a regular expression, and the word in capitals that takes its place. May be given several times.
    #[arg(long = "pattern", value_name = "NAME=REGEX")]
    pub patterns: Vec<String>,
    /// Keep records that occur again.
    #[arg(long)]
    pub keep_duplicates: bool,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep data inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// A table with a header line, a file of texts, an IDX, Parquet, NPY or NPZ file, or a folder of images.
    pub file: PathBuf,
    /// The column of labels; `label`, if there is one, when a table is given without.
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// The column that says whose example a line is.
    #[arg(long, value_name = "COLUMN")]
    pub client: Option<String>,
    /// The column of texts, by its name, or by its number from 1 in a file without a header line. JSON Lines have it in `text` if
    /// not given.
    #[arg(long, value_name = "COLUMN")]
    pub text: Option<String>,
    /// How the texts of a file are kept; its name says it if not given.
    #[arg(long, value_enum)]
    pub format: Option<TextLayout>,
    /// The experiment file that says how the texts or the table are read, and which words are known.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["label", "client", "text", "format"])]
    pub experiment: Option<PathBuf>,
    /// Where the files lie that `task.data` of the experiment names by relative paths; beside it if not given.
    #[arg(long, value_name = "DIR", requires = "experiment")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// How texts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextLayout {
    /// Values between commas.
    Csv,
    /// Values between tabs.
    Tsv,
    /// A JSON object a line.
    Jsonl,
    /// A play: passages, each below the name of its speaker and a colon.
    Speakers,
}

/// What `skep audit` can do.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Run a federation with canaries and set what it gives away beside what it claims.
    ///
    /// Random updates of full length take part, each or not by a coin, and an attacker who sees the released models guesses
    /// which. Says how large epsilon is at least, with confidence 95 %, and fails with exit code 1 if that is more than is
    /// claimed. What passes is not proven. Its models are useless: they hold canaries.
    Empirical(AuditEmpirical),
    /// Say how well the examples that a model was trained on are told from others.
    ///
    /// Trains shadow models as the experiment says, each on half of all examples, and compares the model with them.
    Membership(AuditMembership),
}

/// Arguments of `skep audit empirical`.
#[derive(Debug, Args)]
pub struct AuditEmpirical {
    /// The experiment file; the built-in federation if none is given.
    pub file: Option<PathBuf>,
    /// Canaries, beside the experiment's clients.
    #[arg(long, value_name = "M", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    pub canaries: u32,
    /// Guesses about them, an even number; half as many as canaries if not given.
    #[arg(long, value_name = "R")]
    pub guesses: Option<u32>,
    /// Fix every random draw.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads that train; all of the machine's if not given. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where the files lie that `task.data` names by relative paths; beside the experiment file if not given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep audit membership`.
#[derive(Debug, Args)]
pub struct AuditMembership {
    /// The results directory of `skep simulate --out`.
    pub results: PathBuf,
    /// Shadow models, an even number of at least 4.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub shadows: u32,
    /// Fix every random draw of the shadow models.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads that train; all of the machine's if not given. Results do not depend on it.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// What to print on standard output.
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `skep init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The file to write. One that is there already is left alone.
    #[arg(default_value = "experiment.toml")]
    pub file: PathBuf,
    /// A CSV file to learn from, instead of the built-in digits.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// The column of labels in the CSV file.
    #[arg(long, value_name = "COLUMN", default_value = "label", requires = "data")]
    pub label: String,
    /// The column of the CSV file that says whose example a line is.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    pub client: Option<String>,
}

/// Arguments of `skep predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// A model file.
    pub model: PathBuf,
    /// The examples, or `-` for standard input; the format is told by how they begin.
    ///
    /// A CSV file has a header line; columns are found by the names in the model, and others are left alone. A file of JSON
    /// Lines has a list of numbers or an object a line. An IDX file holds images. Each may be compressed with gzip.
    #[arg(long, value_name = "FILE|-")]
    pub input: PathBuf,
    /// The columns of a CSV file to take, in the model's order: for models whose numbers have no names.
    #[arg(long, value_name = "COLUMN,COLUMN,...", value_delimiter = ',')]
    pub features: Option<Vec<String>>,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    pub output: Predicted,
}

/// How predictions are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Predicted {
    /// A JSON object a line, with the class and the probability of each.
    #[default]
    Jsonl,
    /// A header line, then the class and the probabilities in the order of the classes.
    Csv,
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

/// Reads a number of classes, or their names.
fn classes(text: &str) -> Result<Classes, String> {
    if let Ok(count) = text.parse() {
        return Ok(Classes::Numbers(count));
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.len() < 2 || names.iter().any(String::is_empty) {
        return Err("say how many classes there are, or name two and more, with commas between".to_owned());
    }
    Ok(Classes::Names(names))
}

/// Reads a length of time such as `90m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
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
  64   `skep audit` only, whose codes 1 to 4 mean other things: see its help
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
    fn classes_are_counted_or_named() {
        assert_eq!(classes("10"), Ok(Classes::Numbers(10)));
        assert_eq!(classes("no, yes"), Ok(Classes::Names(vec!["no".into(), "yes".into()])));
        assert!(classes("no").is_err() && classes("no,").is_err());
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
