//! Acts on a cluster and observes it.
