//! `skep join`: one client of a federation.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, SystemTime};

use skep_client::join::{JoinError, JoinOptions, JoinReport, Leaving, TrainingSlots, join};
use skep_client::trainer::ClientKeys;
use skep_protocol::net::enrolment::{EnrolError, enrol, renew};
use skep_protocol::net::identity::{Identity, IdentityError};
use skep_protocol::net::invitation::{Invitation, unix_seconds};
use skep_protocol::net::websocket::Timeouts;
use skep_protocol::round::client::End;

use crate::arguments::Join;
use crate::data;
use crate::failure::Failure;
use crate::interrupt;
use crate::serve::runtime;

/// Runs `skep join`.
///
/// # Errors
/// [`Failure`].
pub(crate) fn run(arguments: &Join) -> Result<(), Failure> {
    let invitation = arguments.invitation.as_deref().map(parsed).transpose()?;
    let data = data::read(arguments)?;
    let keys = ClientKeys::from_os().map_err(Failure::other)?;
    interrupt::flag()?;
    let report = runtime()?.block_on(async {
        let identity = identity(invitation.as_ref(), &arguments.state).await?;
        eprintln!("taking part as {}", identity.client());
        join(identity, data, keys, JoinOptions::new(TrainingSlots::new(NonZeroUsize::MIN)), interrupt::wait())
            .await
            .map_err(failure)
    })?;
    print!("{}", text(&report));
    match report.leaving {
        Leaving::Finished => Ok(()),
        Leaving::Stopped => {
            Err(Failure::Interrupted("interrupted: the federation goes on without this client".to_owned()))
        }
    }
}

/// Which failure a client's error is.
pub(crate) fn failure(error: JoinError) -> Failure {
    match error {
        JoinError::Data(_) => Failure::Usage {
            problem: error.to_string(),
            help: Some("choose other data with --data".to_owned()),
        },
        error => Failure::Peer(error.to_string()),
    }
}

/// Which failure a refused enrolment is.
pub(crate) fn enrolment_failure(error: EnrolError) -> Failure {
    match error {
        EnrolError::AlreadyEnrolled => Failure::Usage {
            problem: error.to_string(),
            help: Some("leave out the invitation to continue as that client".to_owned()),
        },
        EnrolError::Identity(error) => identity_failure(error),
        error => Failure::Peer(error.to_string()),
    }
}

fn parsed(text: &str) -> Result<Invitation, Failure> {
    text.parse().map_err(|error| Failure::Usage { problem: format!("{error}"), help: None })
}

async fn identity(invitation: Option<&Invitation>, state: &Path) -> Result<Identity, Failure> {
    if let Some(invitation) = invitation {
        return enrol(invitation, state, &Timeouts::default()).await.map_err(enrolment_failure);
    }
    let identity = Identity::load(state).map_err(identity_failure)?;
    let left = identity.not_after().saturating_sub(unix_seconds(SystemTime::now()));
    if left == 0 || left > RENEW_BEFORE.as_secs() {
        return Ok(identity);
    }
    match renew(&identity, state, &Timeouts::default()).await {
        Ok(renewed) => Ok(renewed),
        Err(error) => {
            tracing::warn!(%error, "the certificate could not be renewed; the old one is still good");
            Ok(identity)
        }
    }
}

fn identity_failure(error: IdentityError) -> Failure {
    match error {
        IdentityError::NotEnrolled => Failure::Usage {
            problem: error.to_string(),
            help: Some("ask the operator for the line that `skep invite` prints".to_owned()),
        },
        error => Failure::other(error),
    }
}

fn text(report: &JoinReport) -> String {
    let committed = report.rounds.get(&End::Committed).copied().unwrap_or(0);
    let mut lines = vec![format!("took part in {committed} rounds")];
    let others: BTreeMap<String, u64> = report
        .rounds
        .iter()
        .filter(|(end, _)| **end != End::Committed)
        .map(|(end, count)| (format!("{end:?}"), *count))
        .collect();
    lines.extend(others.iter().map(|(end, count)| format!("not in {count}: {end}")));
    lines.push(format!("sent {} bytes, received {} bytes", report.bytes_up, report.bytes_down));
    lines.join("\n") + "\n"
}

/// A third of what certificates are usually good for.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 86_400);
