//! What the command line says, as values of the interface: parsers of single values, and the groups of flags that
//! several commands share.

mod metric;
mod model;
mod scaling;
mod spec;
mod trigger;
mod values;

pub use scaling::{ScalingArguments, WishArguments};
pub use spec::{RenewalArguments, SpecArguments};
pub use values::{count, duration, key_value, labels, proto_duration};
