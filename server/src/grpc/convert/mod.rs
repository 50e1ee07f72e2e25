//! Translates between the messages of the gRPC interface and the types of the domain. Mechanical: rules are applied by
//! `domain`, and only what its types cannot hold is refused here.

mod answer;
mod explain;
mod request;
mod simulate;

pub use answer::{
    autoscaling, bounds, capabilities, duration, event, lease, lease_spec, models, provider, replicas,
    state_of, timestamp,
};
pub use explain::explanation;
pub use request::{lifetime, request, state, update};
pub use simulate::simulation;
