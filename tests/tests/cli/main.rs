//! The product as people meet it: the binaries of `tmsctl` and `tms-server` against each other, judged by what they
//! print and how they end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bounds;
mod cluster;
mod documents;
mod faults;
mod harness;
mod life;
mod others;
mod process;
mod scaling;
mod tls;
