//! Errors become codes here: a sentence for the caller, google.rpc details for its program, and for what only the
//! administrator can mend the whole chain of causes in the log.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};

use crate::auth::Unnamed;
use crate::chain::chain;
use crate::domain::bounds::Violation;
use crate::domain::lease::{End, EndReason, LeaseId};
use crate::store::StoreError;

/// The domain of every ErrorInfo.
const DOMAIN: &str = "tms";

/// Details travel in a trailer, and clients accept about 16 KiB of those: violations beyond this many bytes are counted,
/// not listed.
const MOST_DETAIL_BYTES: usize = 3_072;

/// A sentence, which may repeat what the caller sent, is cut after this many bytes.
const MOST_SENTENCE_BYTES: usize = 600;

/// Candidates that an ambiguous prefix names.
const MOST_CANDIDATES: usize = 4;

/// Why an RPC was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request breaks rules; at least one.
    #[error("{}", sentence(.0))]
    Violations(Vec<Violation>),
    /// The caller has no such lease.
    #[error("you have no lease {0:?}")]
    NotFound(String),
    /// The prefix names several leases.
    #[error("{prefix:?} is the beginning of several lease ids: {}", listed(.candidates))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// What it names.
        candidates: Vec<LeaseId>,
    },
    /// The lease has ended.
    #[error("lease {id} {} at {}", manner(.end.reason), .end.at)]
    Ended {
        /// The lease.
        id: LeaseId,
        /// How and when.
        end: End,
    },
    /// The lease is not as the caller believes.
    #[error("lease {id} is at version {current}, not {expected}; look at it again")]
    Stale {
        /// The lease.
        id: LeaseId,
        /// The caller's version.
        expected: i64,
        /// The lease's.
        current: i64,
    },
    /// The lease changed at every try.
    #[error("lease {0} is changing too fast; try again")]
    Busy(LeaseId),
    /// The request id stands for another request.
    #[error("request id {request_id:?} belongs to lease {lease}, for which something else was asked")]
    RequestIdReused {
        /// The request id.
        request_id: String,
        /// The lease that the first request got.
        lease: LeaseId,
    },
    /// The owner has as many leases as it may have.
    #[error("{owner} holds {limit}, the most leases that an owner may hold; release one first")]
    TooManyLeases {
        /// The owner.
        owner: String,
        /// Its limit.
        limit: u32,
    },
    /// The caller may not see what belongs to another.
    #[error("you are {caller} and may not see the leases of {owner}")]
    NotYours {
        /// Who asks.
        caller: String,
        /// Whose they are.
        owner: String,
    },
    /// The caller's certificate does not name it.
    #[error("{0}")]
    Unnamed(#[from] Unnamed),
    /// The server ends.
    #[error("the server is stopping; ask again in a moment")]
    Stopping,
    /// The database is away.
    #[error("the server cannot reach its database; ask again in a moment")]
    Unavailable(#[source] Cause),
    /// Something that should not happen.
    #[error("the server failed; its log says why")]
    Internal(#[source] Cause),
}

/// Whatever lies behind a failure.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Refusal {
    /// Returns the status of the refusal by `rpc`, after logging what the administrator must know. `lease` is the lease
    /// that it was about, as far as it is known.
    pub fn into_status(self, rpc: &'static str, lease: &str) -> Status {
        self.log(lease);
        Status::with_error_details(self.code(), self.to_string(), self.details(rpc))
    }

    fn code(&self) -> Code {
        match self {
            Self::Violations(violations) => {
                let all_preconditions = violations.iter().all(|violation| violation.is_precondition);
                if all_preconditions { Code::FailedPrecondition } else { Code::InvalidArgument }
            }
            Self::Ambiguous { .. } => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::Ended { .. } => Code::FailedPrecondition,
            Self::Stale { .. } | Self::Busy(_) => Code::Aborted,
            Self::RequestIdReused { .. } => Code::AlreadyExists,
            Self::TooManyLeases { .. } => Code::ResourceExhausted,
            Self::NotYours { .. } => Code::PermissionDenied,
            Self::Unnamed(_) => Code::Unauthenticated,
            Self::Stopping | Self::Unavailable(_) => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Violations(violations) => match self.code() {
                Code::FailedPrecondition => "NOT_CONFIGURED",
                _ if keys(violations).is_some() => "OUT_OF_BOUNDS",
                _ => "INVALID_REQUEST",
            },
            Self::Ambiguous { .. } => "AMBIGUOUS_LEASE_ID",
            Self::NotFound(_) => "LEASE_NOT_FOUND",
            Self::Ended { .. } => "LEASE_ENDED",
            Self::Stale { .. } => "VERSION_MISMATCH",
            Self::Busy(_) => "LEASE_BUSY",
            Self::RequestIdReused { .. } => "REQUEST_ID_REUSED",
            Self::TooManyLeases { .. } => "TOO_MANY_LEASES",
            Self::NotYours { .. } => "NOT_OWNER",
            Self::Unnamed(_) => "CALLER_UNKNOWN",
            Self::Stopping => "SERVER_STOPPING",
            Self::Unavailable(_) => "DATABASE_UNAVAILABLE",
            Self::Internal(_) => "INTERNAL",
        }
    }

    fn details(&self, rpc: &'static str) -> ErrorDetails {
        let mut metadata = HashMap::from([("rpc".to_owned(), rpc.to_owned())]);
        let mut details = ErrorDetails::new();
        match self {
            Self::Violations(violations) => {
                metadata.extend(keys(violations).map(|keys| ("keys".to_owned(), keys)));
                match self.code() {
                    Code::FailedPrecondition => details.set_precondition_failure(preconditions(violations)),
                    _ => &mut details,
                }
                .set_bad_request(fields(violations));
            }
            Self::Ambiguous { .. } => {
                details.set_bad_request(vec![FieldViolation::new("lease_id", self.to_string())]);
            }
            Self::NotFound(id) => {
                details.set_resource_info("lease", id, "", self.to_string());
            }
            Self::Ended { id, end } => {
                metadata.insert("ended_at".to_owned(), end.at.to_string());
                let violation = PreconditionViolation::new("LEASE_STATE", id.to_string(), self.to_string());
                details.set_precondition_failure(vec![violation]);
            }
            Self::Stale { current, .. } => {
                metadata.insert("version".to_owned(), current.to_string());
            }
            Self::RequestIdReused { lease, .. } => {
                details.set_resource_info("lease", lease.to_string(), "", self.to_string());
                details.set_bad_request(vec![FieldViolation::new("request_id", self.to_string())]);
            }
            Self::TooManyLeases { owner, .. } => {
                metadata.insert("keys".to_owned(), "server.leases.maximumPerOwner".to_owned());
                details.add_quota_failure_violation(format!("owner:{owner}"), self.to_string());
            }
            Self::NotYours { .. } => {
                details.set_bad_request(vec![FieldViolation::new("owner", self.to_string())]);
            }
            Self::Busy(_) | Self::Unnamed(_) | Self::Stopping | Self::Unavailable(_) | Self::Internal(_) => {}
        }
        details.set_error_info(self.reason(), DOMAIN, metadata);
        details
    }

    fn log(&self, lease: &str) {
        match self {
            Self::Unavailable(cause) => {
                tracing::warn!(lease.id = lease, error = chain(&**cause), "the database is away");
            }
            Self::Internal(cause) => {
                tracing::error!(lease.id = lease, error = chain(&**cause), "a request failed");
            }
            Self::Violations(_)
            | Self::NotFound(_)
            | Self::Ambiguous { .. }
            | Self::Ended { .. }
            | Self::Stale { .. }
            | Self::Busy(_)
            | Self::RequestIdReused { .. }
            | Self::TooManyLeases { .. }
            | Self::NotYours { .. }
            | Self::Unnamed(_)
            | Self::Stopping => {}
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::RequestIdReused { request_id, lease, .. } => {
                Self::RequestIdReused { request_id, lease }
            }
            StoreError::TooManyLeases { owner, limit } => Self::TooManyLeases { owner, limit },
            StoreError::Contended(id) => Self::Busy(id),
            error if error.is_away() => Self::Unavailable(Box::new(error)),
            error => Self::Internal(Box::new(error)),
        }
    }
}

/// Returns one fault that no administrator's key decides.
pub fn violation(field: &str, message: impl Into<String>) -> Violation {
    Violation { field: field.to_owned(), message: message.into(), key: None, is_precondition: false }
}

fn explained(fault: &Violation) -> String {
    let message = short(&fault.message);
    match &fault.key {
        Some(key) if !message.contains(key.as_str()) => format!("{message} ({key})"),
        Some(_) | None => message,
    }
}

/// Returns the text, cut where it is longer than an answer can bear.
pub fn short(text: &str) -> String {
    match text.floor_char_boundary(MOST_SENTENCE_BYTES) {
        end if end < text.len() => format!("{}…", &text[..end]),
        _ => text.to_owned(),
    }
}

fn sentence(violations: &[Violation]) -> String {
    match violations {
        [] => "the request breaks a rule".to_owned(),
        [only] => short(&only.message),
        [first, second] => format!("{}; {}", short(&first.message), short(&second.message)),
        [first, rest @ ..] => format!("{}; and {} more faults", short(&first.message), rest.len()),
    }
}

fn listed(candidates: &[LeaseId]) -> String {
    let shown =
        candidates.iter().take(MOST_CANDIDATES).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if candidates.len() > MOST_CANDIDATES { format!("{shown}, …") } else { shown }
}

fn manner(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => "was released",
        EndReason::Expired => "expired",
        EndReason::Invalid => "became invalid because its models could not be loaded",
    }
}

fn fields(violations: &[Violation]) -> Vec<FieldViolation> {
    let shown = fitting(violations);
    let field = |fault: &Violation| FieldViolation::new(short(&fault.field), explained(fault));
    let mut fields: Vec<_> = violations[..shown].iter().map(field).collect();
    if shown < violations.len() {
        let rest = format!("and {} more faults", violations.len() - shown);
        fields.push(FieldViolation::new("", rest));
    }
    fields
}

fn preconditions(violations: &[Violation]) -> Vec<PreconditionViolation> {
    let precondition = |fault: &Violation| {
        PreconditionViolation::new("CONFIGURATION", fault.key.as_deref().unwrap_or(""), short(&fault.message))
    };
    violations[..fitting(violations)].iter().map(precondition).collect()
}

/// Returns how many of the violations fit into an answer; at least one.
fn fitting(violations: &[Violation]) -> usize {
    let mut bytes = 0;
    let fits = violations.iter().take_while(|fault| {
        bytes += short(&fault.field).len() + explained(fault).len();
        bytes <= MOST_DETAIL_BYTES
    });
    fits.count().max(1)
}

fn keys(violations: &[Violation]) -> Option<String> {
    let mut keys: Vec<_> =
        violations[..fitting(violations)].iter().filter_map(|fault| fault.key.as_deref()).collect();
    keys.sort_unstable();
    keys.dedup();
    (!keys.is_empty()).then(|| keys.join(","))
}
