//! What is typed after `skep ca`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use skep_protocol::ClientId;
use skep_protocol::net::invitation::{Address, Fingerprint};

use crate::arguments::{Output, time};
use crate::clients;

/// The commands of an authority that is apart from its server.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make an authority in a new directory, and print its fingerprint, by which the federation is known.
    ///
    /// On a machine that whoever runs the server cannot reach: whoever reads the directory can make up clients.
    Init(CaInit),
    /// Print the line that asks an authority to certify a key.
    ///
    /// On the client's machine, or on the server's with --server. The key is made on the first call and stays where it is. Bring the
    /// line to the authority in a way that shows whose it is.
    Request(CaRequest),
    /// Certify the key of such a line, and sign a new roster.
    ///
    /// Of a client it prints the line that it joins with: the server's address, the authority's fingerprint, its number. Check first who
    /// sent the request: this is what decides who is a client.
    Sign(CaSign),
    /// Take a client out of the roster for good, and sign a new one.
    Remove(CaRemove),
    /// Give every member a new certificate for its key, and sign a new roster.
    Renew(CaRenew),
    /// Say who is in a roster, after checking that its authority has signed it.
    Roster(CaRoster),
    /// Give a roster to the server of a state directory.
    ///
    /// Works beside a running server, which goes over to it before its next round.
    Install(CaInstall),
}

/// Arguments of `skep ca init`.
#[derive(Debug, Args)]
pub struct CaInit {
    /// The authority's directory, which is made.
    pub authority: PathBuf,
}

/// Arguments of `skep ca request`.
#[derive(Debug, Args)]
pub struct CaRequest {
    /// The state directory of the client, or of the server.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Ask for a server.
    #[arg(long)]
    pub server: bool,
}

/// Arguments of `skep ca sign`.
#[derive(Debug, Args)]
pub struct CaSign {
    /// The authority's directory.
    pub authority: PathBuf,
    /// The line that `skep ca request` printed.
    pub request: String,
    /// List a client under this number; its former key loses its place. If not given, the lowest above all others.
    #[arg(long, value_name = "CLIENT", value_parser = clients::client)]
    pub client: Option<ClientId>,
    /// Where a client finds the server. Up to 8, tried in this order.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Vec<Address>,
    /// How long a client's certificate is good: a number and `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = time)]
    pub certificates_for: Duration,
}

/// Arguments of `skep ca remove`.
#[derive(Debug, Args)]
pub struct CaRemove {
    /// The authority's directory.
    pub authority: PathBuf,
    /// The client, as `client-17` or 17.
    #[arg(value_parser = clients::client)]
    pub client: ClientId,
}

/// Arguments of `skep ca renew`.
#[derive(Debug, Args)]
pub struct CaRenew {
    /// The authority's directory.
    pub authority: PathBuf,
    /// How long the certificates are good: a number and `s`, `m`, `h` or `d`.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = time)]
    pub certificates_for: Duration,
}

/// Arguments of `skep ca roster`.
#[derive(Debug, Args)]
pub struct CaRoster {
    /// A roster, or the authority's directory.
    pub roster: PathBuf,
    /// The fingerprint of the authority that it must be of.
    #[arg(long, value_name = "FINGERPRINT")]
    pub ca: Option<Fingerprint>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Arguments of `skep ca install`.
#[derive(Debug, Args)]
pub struct CaInstall {
    /// The roster.
    pub roster: PathBuf,
    /// The server's state directory.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// The fingerprint of the authority, as `skep ca init` printed it; needed for the first roster.
    #[arg(long, value_name = "FINGERPRINT")]
    pub ca: Option<Fingerprint>,
}
