//! A process of clients.

use std::sync::Arc;

use skep_client::join::{JoinOptions, Leaving, TrainingSlots, join};
use skep_client::masking::Masks;
use skep_client::trainer::ClientKeys;
use skep_learning::Subset;
use skep_protocol::ClientId;
use skep_protocol::experiment::Experiment;
use skep_protocol::net::enrolment::enrol;
use skep_protocol::net::invitation::Invitation;
use skep_protocol::net::websocket::Timeouts;
use skep_simulations::{Clients, population};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::bootstrap::{ClientBootstrap, ClientsBootstrap, Report};
use super::child::{self, Launcher, tell};
use crate::failure::Failure;
use crate::join::{enrolment_failure, failure};
use crate::machine;

/// Takes part as the clients that the launcher says, until the federation or the launcher is gone.
///
/// # Errors
/// [`Failure`] of the first client that fails; the launcher has been told.
pub(crate) fn run() -> Result<(), Failure> {
    child::run(async {
        let (bootstrap, launcher) = Launcher::meet::<ClientsBootstrap>()?;
        let members = members(bootstrap)?;
        let masks = tokio::select! {
            masks = all(members) => masks?,
            () = launcher.gone() => Masks::default(),
        };
        tell(&Report::Joined {
            peak_rss_bytes: machine::peak_rss_bytes(),
            masks_applied: masks.applied,
            masked_bytes: masks.bytes_packed,
        });
        Ok(())
    })
}

/// Waits until the federation is over for everyone, or the first failure.
async fn all(mut members: JoinSet<Result<Masks, Failure>>) -> Result<Masks, Failure> {
    let mut sum = Masks::default();
    while let Some(ended) = members.join_next().await {
        sum += ended.map_err(Failure::other)??;
    }
    Ok(sum)
}

/// Every client as a task.
fn members(bootstrap: ClientsBootstrap) -> Result<JoinSet<Result<Masks, Failure>>, Failure> {
    let mut experiment = Experiment::try_from(&bootstrap.experiment).map_err(Failure::configuration)?;
    population::prepare(&mut experiment).map_err(Failure::configuration)?;
    let data = population::data(&experiment).map_err(Failure::configuration)?;
    let clients = Clients::new(&experiment, &data.train).map_err(Failure::configuration)?;
    let mut options = JoinOptions::new(TrainingSlots::new(bootstrap.threads));
    if let Some(secure_aggregation) = experiment.privacy.secure_aggregation() {
        // These clients belong to whoever wrote the experiment.
        options.min_cohort = secure_aggregation.min_cohort;
    }
    let enrolling = Arc::new(Semaphore::new(ENROLLING));
    let mut members = JoinSet::new();
    for client in bootstrap.clients {
        let share = clients.get(ClientId(client.client));
        let data =
            share.ok_or_else(|| Failure::configuration(format!("there is no client {}", client.client)))?;
        let state = bootstrap.state.join(client.client.to_string());
        let (options, enrolling) = (options.clone(), Arc::clone(&enrolling));
        members.spawn(async move { take_part(client, &state, data, options, &enrolling).await });
    }
    Ok(members)
}

async fn take_part(
    client: ClientBootstrap,
    state: &std::path::Path,
    data: Subset,
    options: JoinOptions,
    enrolling: &Semaphore,
) -> Result<Masks, Failure> {
    let invitation: Invitation = client.invitation.parse().map_err(Failure::configuration)?;
    let identity = {
        let _turn = enrolling.acquire().await.map_err(Failure::other)?;
        enrol(&invitation, state, &Timeouts::default()).await.map_err(enrolment_failure)?
    };
    let keys = ClientKeys::from_root(&client.root.key());
    let report = join(identity, data, keys, options, std::future::pending()).await.map_err(failure)?;
    match report.leaving {
        Leaving::Finished => Ok(report.masks),
        Leaving::Stopped => Err(Failure::Interrupted("a client stopped".to_owned())),
    }
}

/// Enrolments at a time: each makes two connections' worth of handshakes.
const ENROLLING: usize = 16;
