//! The only place of `tmsctl` that asks for the time; it is used for relative times in what people read.

use jiff::Timestamp;

/// Returns the present moment of this machine.
#[expect(
    clippy::disallowed_methods,
    reason = "relative times need the present moment, and this is the place for it"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}
