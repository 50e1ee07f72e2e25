//! What TMS decides: plain synchronous functions over values, which receive `now` and return data. Nothing here reads a
//! clock, a database, a cluster or a configuration file.

pub mod autoscaler;
pub mod bounds;
pub mod capabilities;
pub mod census;
pub mod decide;
pub mod doctor;
pub mod lease;
pub mod life;
pub mod observed;
pub mod plan;
pub mod progress;
pub mod quantity;
pub mod repositories;
pub mod scaling;
pub mod start;
pub mod state;
pub mod uri;
pub mod usage;
