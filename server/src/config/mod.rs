//! Reads values.yaml into types that cannot hold a wrong value.
