//! `skep ca`: the authority of a federation, apart from its server.

mod arguments;

use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use skep_protocol::ClientId;
use skep_protocol::net::files;
use skep_protocol::net::identity::{IdentityError, key_in};
use skep_protocol::net::invitation::{ADDRESS_COUNT_LIMIT, Fingerprint};
use skep_protocol::net::listing::{Holder, KeyRequest, Listing};
use skep_protocol::net::roster::{Listed, SignedRoster};
use skep_protocol::net::tls;
use skep_server::authority::keeper::Keeper;
use skep_server::authority::{self, AuthorityError};

use crate::arguments::Output;
use crate::clock;
use crate::failure::Failure;
use crate::text_table;

pub(crate) use arguments::CaCommand;
use arguments::{CaInstall, CaRequest, CaRoster, CaSign};

/// Runs `skep ca`.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(command: &CaCommand) -> Result<(), Failure> {
    let now = SystemTime::now();
    match command {
        CaCommand::Init(arguments) => {
            let fingerprint = Keeper::init(&arguments.authority, now).map_err(failure)?;
            eprintln!("the authority is in {}; this is its fingerprint:", arguments.authority.display());
            println!("{fingerprint}");
            Ok(())
        }
        CaCommand::Request(arguments) => request(arguments),
        CaCommand::Sign(arguments) => sign(arguments, now),
        CaCommand::Remove(arguments) => {
            let mut keeper = Keeper::open(&arguments.authority).map_err(failure)?;
            keeper.remove(arguments.client, now).map_err(failure)?;
            say(&keeper, &arguments.authority, &format!("{} is removed for good", arguments.client));
            Ok(())
        }
        CaCommand::Renew(arguments) => {
            let mut keeper = Keeper::open(&arguments.authority).map_err(failure)?;
            keeper.renew(now, arguments.certificates_for).map_err(failure)?;
            let members = keeper.roster().members.len();
            say(&keeper, &arguments.authority, &format!("{members} certificates are renewed"));
            Ok(())
        }
        CaCommand::Roster(arguments) => show(arguments),
        CaCommand::Install(arguments) => install(arguments),
    }
}

fn request(arguments: &CaRequest) -> Result<(), Failure> {
    let state = &arguments.state;
    let request = if arguments.server {
        authority::request(state).map_err(failure)?
    } else {
        files::private_directory(state).map_err(|error| with_its_reason(error.into()))?;
        KeyRequest::new(Holder::Client, &key_in(state).map_err(with_its_reason)?)
    };
    println!("{request}");
    Ok(())
}

fn sign(arguments: &CaSign, now: SystemTime) -> Result<(), Failure> {
    let usage = |problem: String, help: &str| Failure::Usage { problem, help: Some(help.to_owned()) };
    let request: KeyRequest = arguments
        .request
        .parse()
        .map_err(|error| usage(format!("{error}"), "copy the whole line that `skep ca request` printed"))?;
    let mut keeper = Keeper::open(&arguments.authority).map_err(failure)?;
    match request.holder {
        Holder::Server if arguments.client.is_some() => {
            Err(usage("the line is a server's, which has no number".to_owned(), "leave out --client"))
        }
        Holder::Server => {
            keeper.certify_server(request.public_key, now).map_err(failure)?;
            say(&keeper, &arguments.authority, "the server is certified");
            Ok(())
        }
        Holder::Client if arguments.address.is_empty() => Err(usage(
            "the line is a client's, which has to know where the server is".to_owned(),
            "give --address HOST:PORT",
        )),
        Holder::Client if arguments.address.len() > ADDRESS_COUNT_LIMIT => Err(usage(
            format!("{} addresses; a line has room for {ADDRESS_COUNT_LIMIT}", arguments.address.len()),
            "leave some out",
        )),
        Holder::Client => {
            let client = keeper
                .list(arguments.client, request.public_key, now, arguments.certificates_for)
                .map_err(failure)?;
            let listing = Listing {
                addresses: arguments.address.clone(),
                authority: keeper.fingerprint(),
                client,
                sequence: keeper.roster().signed.head.sequence,
            };
            say(
                &keeper,
                &arguments.authority,
                &format!("listed as {client}; the line is for it to join with"),
            );
            println!("{listing}");
            Ok(())
        }
    }
}

/// What has changed, and what to do about it.
fn say(keeper: &Keeper, directory: &Path, what: &str) {
    let (sequence, roster) = (keeper.roster().signed.head.sequence, directory.join("roster.skep"));
    eprintln!("{what}; {} is roster {sequence} now: `skep ca install` it at the server", roster.display());
}

fn show(arguments: &CaRoster) -> Result<(), Failure> {
    let path = match arguments.roster.is_dir() {
        true => arguments.roster.join("roster.skep"),
        false => arguments.roster.clone(),
    };
    let roster = authority::read(&path).map_err(failure)?;
    let fingerprint = Fingerprint::of(&roster.authority.0);
    roster.verify(arguments.ca.unwrap_or(fingerprint)).map_err(|error| Failure::Peer(error.to_string()))?;
    match arguments.output {
        Output::Json => println!("{}", as_json(&roster, fingerprint)),
        Output::Text => print!("{}", as_text(&roster, fingerprint)),
    }
    Ok(())
}

fn as_json(roster: &SignedRoster, fingerprint: Fingerprint) -> serde_json::Value {
    let head = roster.signed.head;
    let member = |listed: &Listed| json!({ "client": listed.client.0, "public_key": listed.public_key, "certificate_until": until(listed) });
    json!({
        "authority": fingerprint,
        "sequence": head.sequence,
        "signed_at": head.signed_at,
        "root": head.root,
        "server": roster.server.is_some(),
        "members": roster.members.iter().map(member).collect::<Vec<_>>(),
        "removed": roster.removed.iter().map(|client| client.0).collect::<Vec<_>>(),
    })
}

fn as_text(roster: &SignedRoster, fingerprint: Fingerprint) -> String {
    let head = roster.signed.head;
    let server = if roster.server.is_some() { "certified" } else { "none yet" };
    let mut lines = vec![
        format!("authority   {fingerprint}"),
        format!("roster      {}, signed {}", head.sequence, clock::utc(head.signed_at)),
        format!("server      {server}"),
        format!("members     {}", head.members),
    ];
    if !roster.removed.is_empty() {
        let removed: Vec<_> = roster.removed.iter().map(ClientId::to_string).collect();
        lines.push(format!("removed     {}", removed.join(", ")));
    }
    let mut rows = vec![["client", "key", "certificate until"].map(str::to_owned).to_vec()];
    rows.extend(roster.members.iter().map(|listed| {
        let until = until(listed).map_or_else(|| "unreadable".to_owned(), clock::utc);
        vec![listed.client.to_string(), listed.public_key.to_string(), until]
    }));
    lines.join("\n") + "\n\n" + &text_table::aligned(&rows)
}

fn until(listed: &Listed) -> Option<u64> {
    tls::client_named_by(&listed.certificate.0).ok().map(|named| named.not_after)
}

fn install(arguments: &CaInstall) -> Result<(), Failure> {
    let roster = authority::read(&arguments.roster).map_err(failure)?;
    authority::install(&arguments.state, &roster, arguments.ca).map_err(failure)?;
    let head = roster.signed.head;
    println!(
        "roster {} of authority {} is installed: {} members",
        head.sequence,
        Fingerprint::of(&roster.authority.0),
        head.members
    );
    Ok(())
}

fn with_its_reason(error: IdentityError) -> Failure {
    match error {
        IdentityError::File(error) => Failure::other(format!("{error}: {}", error.source)),
        error => Failure::other(error),
    }
}

/// Which failure it is that the authority does not do what it is asked.
fn failure(error: AuthorityError) -> Failure {
    match error {
        AuthorityError::Roster(_) | AuthorityError::OtherPin { .. } | AuthorityError::OtherServer => {
            Failure::Peer(error.to_string())
        }
        AuthorityError::File(error) if error.exists_already() => Failure::Usage {
            problem: error.to_string(),
            help: Some("an authority is made in a new directory".to_owned()),
        },
        AuthorityError::NotPinned
        | AuthorityError::HasItsOwn
        | AuthorityError::NoServer
        | AuthorityError::Older { .. }
        | AuthorityError::KeyTwice(_)
        | AuthorityError::Unlisted(_)
        | AuthorityError::Removed(_) => Failure::Usage { problem: error.to_string(), help: None },
        error => Failure::other(error),
    }
}
