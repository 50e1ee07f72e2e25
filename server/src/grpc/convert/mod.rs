//! Translates between the messages of the gRPC interface and the types of the domain. Mechanical: rules are applied by
//! `domain`, and only what its types cannot hold is refused here.

mod answer;
mod request;

pub use answer::{bounds, capabilities, duration, event, lease, lease_spec, models};
pub use request::{lifetime, request, state, update};
