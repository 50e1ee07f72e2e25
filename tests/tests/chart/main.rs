//! The Helm chart, by Helm itself: what it makes of values, what it refuses, and how it lives in a cluster.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod certificate;
mod harness;
mod life;
mod monitoring;
mod objects;
mod refusals;
mod rights;
mod values;
