//! The server's process.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use skep_protocol::experiment::Experiment;
use skep_protocol::plan::Plan;
use skep_protocol::{ClientId, Round};
use skep_server::authority::Authority;
use skep_server::federation::ServerKeys;
use skep_server::ledger::simulated;
use skep_server::record::{Observer, RoundRecord};
use skep_server::serve::{Deployment, End, ServeOptions, serve};
use skep_simulations::population;
use tokio::net::TcpListener;

use super::bootstrap::{Report, ServedEnd, ServerBootstrap};
use super::child::{self, Launcher, tell};
use crate::failure::Failure;
use crate::machine;
use crate::serve::{deployment, failure, ledger_failure};

/// Serves what the launcher says.
///
/// # Errors
/// [`Failure`], which the launcher has been told.
pub(crate) fn run() -> Result<(), Failure> {
    child::run(async {
        let (bootstrap, launcher) = Launcher::meet::<ServerBootstrap>()?;
        let mut experiment = Experiment::try_from(&bootstrap.experiment).map_err(Failure::configuration)?;
        population::prepare(&mut experiment).map_err(Failure::configuration)?;
        let keys = ServerKeys::from_derived(bootstrap.cohort.key(), bootstrap.noise.key());
        let test = population::test_data(&experiment).map_err(Failure::configuration)?;
        let state = bootstrap.state();
        let authority = Authority::open(&state).map_err(Failure::other)?;
        let key = bootstrap.ledger_key.key();
        let ledger =
            simulated(&bootstrap.ledger, &experiment, &key, bootstrap.seeded).map_err(ledger_failure)?;
        let deployment = deployment(&experiment, &test, keys, authority, ledger, &state)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Failure::other)?;
        let invitations = invite_all(&deployment, &listener, experiment.population.clients)?;
        tell(&Report::Listening { invitations });
        let everyone = usize::try_from(experiment.population.clients).map_err(Failure::other)?;
        let options = ServeOptions { wait_timeout: PATIENCE, ..ServeOptions::new(everyone) };
        let served =
            serve(deployment, listener, options, &mut Reporter, launcher.gone()).await.map_err(failure)?;
        leave_model(&bootstrap.model(), &served.federation.model())?;
        let heard = tell(&Report::Served {
            end: match served.end {
                End::Finished => ServedEnd::Finished,
                End::BudgetExhausted(exhausted) => {
                    ServedEnd::BudgetExhausted(Failure::from(exhausted).to_string())
                }
                End::StoppedEarly => ServedEnd::StoppedEarly,
                End::Stopped => ServedEnd::Stopped,
            },
            checkpoint: served.federation.ledger().note(),
            bytes_up: served.bytes_up,
            bytes_down: served.bytes_down,
            peak_rss_bytes: machine::peak_rss_bytes(),
        });
        if !heard {
            // The launcher was killed, so nobody else takes its directory away.
            let _ = std::fs::remove_dir_all(&bootstrap.directory);
        }
        Ok(())
    })
}

fn invite_all(deployment: &Deployment, listener: &TcpListener, clients: u64) -> Result<Vec<String>, Failure> {
    let address = listener.local_addr().map_err(Failure::other)?;
    let now = SystemTime::now();
    (0..clients)
        .map(|client| {
            let (authority, addresses) = (&deployment.authority, vec![address.into()]);
            deployment.enrolment.invite(authority, ClientId(client), addresses, now, INVITATION_VALIDITY)
        })
        .map(|invitation| invitation.map(|invitation| invitation.to_string()).map_err(Failure::other))
        .collect()
}

fn leave_model(path: &Path, model: &[f32]) -> Result<(), Failure> {
    std::fs::write(path, skep_learning::canonical_bytes(model)).map_err(|error| Failure::file(path, error))
}

/// Passes on what happens.
struct Reporter;

impl Observer for Reporter {
    fn clients_connected(&mut self, connected: usize, wanted: usize) {
        tell(&Report::Connected { connected, wanted });
    }

    fn round_opened(&mut self, plan: &Plan, invited: u32) {
        tell(&Report::Opened { round: plan.round.0, invited });
    }

    fn update_committed(&mut self, _round: Round, _updates: u32) {}

    fn round_closed(&mut self, record: &RoundRecord, _model: &Arc<Vec<f32>>) {
        tell(&Report::Closed { record: Box::new(record.clone()) });
    }
}

/// For all clients of this machine to start, enrol and connect.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than any wait before the first connection.
const INVITATION_VALIDITY: Duration = Duration::from_secs(3600);
