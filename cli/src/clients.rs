//! `skep clients` and `skep revoke`: who may take part, and who no longer.

use std::time::SystemTime;

use skep_protocol::ClientId;
use skep_server::enrolment::{ClientState, Enrolment, EnrolmentError, Overview};

use crate::arguments::{Clients, Output, Revoke};
use crate::clock;
use crate::failure::Failure;
use crate::server_state;
use crate::status;

/// Runs `skep clients`.
///
/// # Errors
/// [`Failure`] when the directory is no server's, or cannot be read.
pub(crate) fn run(arguments: &Clients) -> Result<(), Failure> {
    server_state::must_be_one(&arguments.state)?;
    let enrolment = Enrolment::open(&arguments.state).map_err(Failure::other)?;
    let mut clients = enrolment.overview(SystemTime::now()).map_err(Failure::other)?;
    let started =
        status::read(&arguments.state)?.filter(|status| status.running).map(|status| status.started);
    for client in &mut clients {
        // What a server left behind that was killed says nothing about now.
        client.connected &= started.is_some_and(|started| client.last_seen >= Some(started));
    }
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string(&clients).map_err(Failure::other)?),
        Output::Text => print!("{}", text(&clients)),
    }
    Ok(())
}

/// Runs `skep revoke`.
///
/// # Errors
/// [`Failure::Usage`] when there is no such client, [`Failure::Other`] when it cannot be written down.
pub(crate) fn revoke(arguments: &Revoke) -> Result<(), Failure> {
    server_state::must_be_one(&arguments.state)?;
    let enrolment = Enrolment::open(&arguments.state).map_err(Failure::other)?;
    match enrolment.revoke(arguments.client) {
        Err(error @ EnrolmentError::UnknownClient(_)) => Err(Failure::Usage {
            problem: error.to_string(),
            help: Some("`skep clients` lists them".to_owned()),
        }),
        Err(error) => Err(Failure::other(error)),
        Ok(()) => {
            println!("{} is revoked: no session, no renewal, no invitation", arguments.client);
            Ok(())
        }
    }
}

fn text(clients: &[Overview]) -> String {
    let moment = |seconds: Option<u64>| seconds.map_or("-".to_owned(), clock::utc);
    let mut lines = vec![row(["client", "state", "last seen", "certificate until"])];
    lines.extend(clients.iter().map(|client| {
        let last_seen = if client.connected { "now".to_owned() } else { moment(client.last_seen) };
        let name = client.client.to_string();
        row([&name, &state(client), &last_seen, &moment(client.certificate_until)])
    }));
    lines.concat()
}

fn row(cells: [&str; 4]) -> String {
    let [client, state, seen, until] = cells;
    format!("{client:<12}  {state:<38}  {seen:<20}  {until}\n")
}

fn state(client: &Overview) -> String {
    match (client.state, client.invitation_until) {
        (ClientState::Revoked, _) => "revoked".to_owned(),
        (ClientState::Enrolled, _) if client.connected => "connected".to_owned(),
        (ClientState::Enrolled, None) => "enrolled".to_owned(),
        (ClientState::Enrolled, Some(until)) => format!("enrolled; invited until {}", clock::utc(until)),
        (ClientState::Invited, Some(until)) => format!("invited until {}", clock::utc(until)),
        (ClientState::Invited, None) => "its invitation has expired".to_owned(),
        (ClientState::Expired, Some(until)) => format!("expired; invited until {}", clock::utc(until)),
        (ClientState::Expired, None) => "its certificate has expired".to_owned(),
    }
}

/// Reads a client as `client-17` or `17`.
pub(crate) fn client(text: &str) -> Result<ClientId, String> {
    let number = text.strip_prefix("client-").unwrap_or(text);
    number.parse().map(ClientId).map_err(|_| format!("{text:?} is no client, such as `client-17`"))
}
