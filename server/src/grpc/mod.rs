//! Translates between gRPC and the domain, and answers.
