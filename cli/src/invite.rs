//! `skep invite`: a line of text that lets one client in.

use std::time::SystemTime;

use skep_protocol::ClientId;
use skep_server::authority::Authority;
use skep_server::enrolment::Enrolment;

use crate::arguments::Invite;
use crate::failure::Failure;
use crate::server_state;

/// Runs `skep invite`.
///
/// # Errors
/// [`Failure`] when no address is known or the state directory cannot be used.
pub(crate) fn run(arguments: &Invite) -> Result<(), Failure> {
    let addresses = match arguments.address.as_slice() {
        [] => server_state::addresses(&arguments.state)?,
        given => given.to_vec(),
    };
    let authority = Authority::open(&arguments.state).map_err(Failure::other)?;
    if authority.is_apart() {
        return Err(Failure::Usage {
            problem: "this server's authority is apart, and alone says who is a client".to_owned(),
            help: Some("`skep ca sign` there prints the line that lets a client in".to_owned()),
        });
    }
    let enrolment = Enrolment::open(&arguments.state).map_err(Failure::other)?;
    let (now, validity) = (SystemTime::now(), arguments.expires_in);
    let invitation = match arguments.client {
        Some(client) => enrolment.invite(&authority, ClientId(client), addresses, now, validity),
        None => enrolment.invite_new(&authority, addresses, now, validity),
    };
    println!("{}", invitation.map_err(Failure::other)?);
    Ok(())
}
