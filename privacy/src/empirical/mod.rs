//! Measuring what a mechanism gives away, to set beside what it claims: lower bounds on epsilon, and an estimate.
//!
//! Nothing here proves privacy: an attack that fails may have been a weak one. But a lower bound above a claim proves that
//! the claim, or the code behind it, is wrong.
//!
//! | file | it tells | what it is |
//! |---|---|---|
//! | [`one_run`] | how many of one run's canaries were guessed right | a lower bound, at a stated confidence |
//! | [`canary_cosine`] | how far the cosines of one run's canaries stand out | an estimate, and a lower bound at about a stated confidence |
//! | [`membership`] | how often members are found at a small rate of false alarms | rates, with no epsilon |

pub mod canary_cosine;
mod jeffreys;
pub mod membership;
pub mod one_run;
