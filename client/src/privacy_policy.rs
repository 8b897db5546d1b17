//! What the owner of the data allows. Each key is a limit of its own; what is not named is not limited, except trust.

use serde::{Deserialize, Serialize};
use skep_privacy::ledger::{Mode, noise_of_round};
use skep_privacy::quantities::{Epsilon, NoiseMultiplier};
use skep_protocol::plan::{Plan, Promise};
use skep_protocol::round::Decline;

/// Limits on what a client agrees to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyPolicy {
    /// The most that recipients of models may learn, over all tasks and servers that these data took part in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_epsilon_release: Option<Epsilon>,
    /// The most that servers may learn, likewise. An infinite one needs [`PrivacyPolicy::trust_server`] besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_epsilon_server: Option<Epsilon>,
    /// Take part although the server sees every update.
    #[serde(default)]
    pub trust_server: bool,
    /// The most rounds, and queries between them, over all tasks and servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_participations: Option<u64>,
    /// Rounds from one participation to the next in one task; 1 allows every round. Queries do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_separation: Option<u64>,
    /// The trust modes that are agreed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modes: Option<Vec<AllowedMode>>,
    /// The least noise over sensitivity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_noise: Option<NoiseMultiplier>,
    /// The fewest clients among whose updates one's own may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_cohort: Option<u32>,
    /// Whether the data answer queries, too.
    #[serde(default = "yes")]
    pub answer_queries: bool,
}

const fn yes() -> bool {
    true
}

/// The trust modes by their names in experiment files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowedMode {
    /// Nothing is promised.
    None,
    /// The server adds the noise.
    Central,
    /// Every client adds a share.
    Distributed,
    /// Every client adds all of it.
    Local,
}

/// What a plan promises, as the owner's budget counts it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promised {
    /// Who adds noise.
    pub mode: Mode,
    /// Noise over sensitivity, as the adversary sees it whom the plan is made against; 0 without noise.
    pub noise: f64,
    /// Of all rounds of the server's ledger, this one included, against recipients.
    pub epsilon_release: Epsilon,
    /// The same against the server.
    pub epsilon_server: Epsilon,
    /// The delta of both; 0 where nothing is promised.
    pub delta: f64,
}

impl Default for PrivacyPolicy {
    fn default() -> Self {
        Self::unlimited()
    }
}

impl PrivacyPolicy {
    /// No limits: what a client agrees to whose owner has not said anything.
    #[must_use]
    pub const fn unlimited() -> Self {
        PrivacyPolicy {
            max_epsilon_release: None,
            max_epsilon_server: None,
            trust_server: true,
            max_participations: None,
            min_separation: None,
            modes: None,
            min_noise: None,
            min_cohort: None,
            answer_queries: true,
        }
    }

    /// Whether a plan by itself, whatever was spent before, is agreed to.
    ///
    /// # Errors
    /// The reason to decline.
    pub fn allows(&self, plan: &Plan) -> Result<(), Decline> {
        if plan.round.is_query() && !self.answer_queries {
            return Err(Decline::Queries);
        }
        let promised = Promised::by(plan);
        let allowed = |modes: &Vec<AllowedMode>| modes.contains(&AllowedMode::from(promised.mode));
        if !self.modes.as_ref().is_none_or(allowed) {
            return Err(Decline::Mode);
        }
        if self.min_noise.is_some_and(|least| promised.noise < least.get()) {
            return Err(Decline::Noise);
        }
        if self.min_cohort.is_some_and(|least| plan.least_released() < least) {
            return Err(Decline::SmallCohort);
        }
        if !self.trust_server && !promised.epsilon_server.is_finite() {
            return Err(Decline::TrustServer);
        }
        Ok(())
    }
}

impl Promised {
    /// What `plan` promises.
    #[must_use]
    pub fn by(plan: &Plan) -> Self {
        let mode = match &plan.promise {
            Promise::None => Mode::None,
            Promise::Central { masking: None, .. } => Mode::Central,
            Promise::Central { masking: Some(_), .. } => Mode::CentralSecureAggregation,
            Promise::Distributed { .. } => Mode::Distributed,
            Promise::Local { .. } => Mode::Local,
        };
        let claim = plan.promise.claim();
        Promised {
            mode,
            noise: noise_of_round(&plan.mechanism()).unwrap_or(0.0),
            epsilon_release: claim.map_or(Epsilon::INFINITE, |claim| claim.epsilon_release),
            epsilon_server: claim.map_or(Epsilon::INFINITE, |claim| claim.epsilon_server),
            delta: claim.map_or(0.0, |claim| claim.delta.get()),
        }
    }
}

impl From<Mode> for AllowedMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::None => AllowedMode::None,
            Mode::Central | Mode::CentralSecureAggregation => AllowedMode::Central,
            Mode::Distributed => AllowedMode::Distributed,
            Mode::Local => AllowedMode::Local,
        }
    }
}
