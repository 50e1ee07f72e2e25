//! The agent as a process of its own: against web servers that fail, cut, redirect and ask who is there, against hostile
//! archives, and beside a real Triton.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod archives;
mod fetching;
mod harness;
mod hostile;
mod loading;
mod real;
