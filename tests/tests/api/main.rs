//! The gRPC interface over a real listener and a real database. Where a test needs the cluster, it plays the reconciler
//! itself, through the store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod callers;
mod changes;
mod harness;
mod refusals;
mod scaling;
mod streams;
mod whole;
