//! Why a command ended without doing what it was asked: what is printed as `fatal: …` and `hint: …`, and the exit code.

use std::error::Error;
use std::io;

use anstyle::{AnsiColor, Style};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Exit code of a wrong command line.
pub const USAGE: u8 = 2;

const FATAL: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// A command that failed: faults, and what can be done about them.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    faults: Vec<String>,
    hints: Vec<String>,
}

/// What went wrong, as far as a script needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The reader of our output has gone, which is no fault.
    OutputClosed,
    /// The server refused, or this machine did (a file that cannot be read).
    Refused,
    /// The command line makes no sense.
    Usage,
    /// The server cannot be reached.
    Away,
    /// The lease failed, or was not ready in time.
    LeaseFailed,
    /// Not everything could be looked at.
    Unsure,
    /// The person at the keyboard stopped the command.
    Interrupted,
}

impl Failure {
    /// A wrong command line.
    pub fn usage(fault: impl Into<String>) -> Self {
        Self::new(Kind::Usage, fault)
    }

    /// Something on this machine that does not work.
    pub fn local(fault: impl Into<String>) -> Self {
        Self::new(Kind::Refused, fault)
    }

    /// A server that cannot be reached.
    pub fn away(fault: impl Into<String>) -> Self {
        Self::new(Kind::Away, fault)
    }

    /// A lease that failed, or was not ready in time.
    pub fn lease(fault: impl Into<String>) -> Self {
        Self::new(Kind::LeaseFailed, fault)
    }

    /// Something that is broken elsewhere, which a command was to find out.
    pub fn broken(fault: impl Into<String>) -> Self {
        Self::new(Kind::Refused, fault)
    }

    /// Something that could not be found out.
    pub fn unsure(fault: impl Into<String>) -> Self {
        Self::new(Kind::Unsure, fault)
    }

    /// A command that was stopped by a signal.
    pub fn interrupted(fault: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, fault)
    }

    /// A command that goes on until a signal stops it, so that nothing needs to be said.
    pub fn stopped() -> Self {
        Self { kind: Kind::Interrupted, faults: Vec::new(), hints: Vec::new() }
    }

    /// An answer of the server that is an error, or the lack of an answer.
    pub fn from_status(rpc: &str, url: &str, status: &Status) -> Self {
        match status {
            status if is_away(status) => away(rpc, url, status),
            status if is_foreign(status) => foreign(url, status),
            status => refused(rpc, status),
        }
    }

    /// Several failures as one, which ends with the code of the first.
    pub fn several(failures: Vec<Self>) -> Option<Self> {
        failures.into_iter().reduce(|mut all, next| {
            all.faults.extend(next.faults);
            for hint in next.hints {
                all = all.hint(hint);
            }
            all
        })
    }

    /// Adds a hint, once.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
        self
    }

    /// Returns what went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the code with which the process ends.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::OutputClosed => 0,
            Kind::Refused => 1,
            Kind::Usage => USAGE,
            Kind::Away => 3,
            Kind::LeaseFailed => 4,
            Kind::Unsure => 5,
            Kind::Interrupted => 130,
        }
    }

    /// Returns the lines for standard error, in colour.
    pub fn report(&self) -> String {
        let faults = self.faults.iter().map(|fault| format!("{FATAL}fatal:{FATAL:#} {fault}\n"));
        let hints = self.hints.iter().map(|hint| format!("{HINT}hint:{HINT:#} {hint}\n"));
        faults.chain(hints).collect()
    }

    fn new(kind: Kind, fault: impl Into<String>) -> Self {
        Self { kind, faults: vec![fault.into()], hints: Vec::new() }
    }
}

impl From<io::Error> for Failure {
    /// A failure to write to standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => {
                Self { kind: Kind::OutputClosed, faults: Vec::new(), hints: Vec::new() }
            }
            _ => Self::local(format!("standard output cannot be written: {error}")),
        }
    }
}

/// Returns whether an error means that the server, or the way to it, is gone, so that the same call may work later.
pub fn is_away(status: &Status) -> bool {
    // A status that the server sent has no source; one that was made on this side has the error of the transport.
    status.code() == Code::Unavailable || status.source().is_some()
}

/// Returns whether something other than a gRPC server answered, such as a proxy.
fn is_foreign(status: &Status) -> bool {
    status.message().starts_with("grpc-status header missing")
}

/// Returns the innermost cause of an error, which is what a person can act on.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error);
    innermost.to_string()
}

fn away(rpc: &str, url: &str, status: &Status) -> Failure {
    let cause = match status.source() {
        Some(source) => root_cause(source),
        None => status.message().to_owned(),
    };
    let failure = Failure::away(format!("{url} does not answer: {} (@ {rpc})", in_words(&cause)));
    add_away_hints(failure, url, &cause)
}

fn foreign(url: &str, status: &Status) -> Failure {
    Failure::away(format!("{url} answers, but not as TMS does: {}", status.message()))
        .hint("is the target right? A proxy in between must speak HTTP/2; `tmsctl target list` shows the saved targets")
}

/// Signs of a server that expects TLS, or none, where the client thinks otherwise.
const SPEAKS_OTHERWISE: [&str; 3] = ["frame", "InvalidContentType", "HTTP"];

/// Signs of a server that closed the connection, which it does where it expects TLS, or another certificate of the client:
/// what there is to see of that depends on when it comes.
const HUNG_UP: [&str; 3] = ["broken pipe", "onnection reset", "onnection closed"];

/// Returns the cause of a failed connection in words for people, where the library has none.
pub fn in_words(cause: &str) -> &str {
    let words = [
        ("UnknownIssuer", "its certificate is not signed by an authority that is trusted here"),
        ("BadSignature", "its certificate is not signed by an authority that is trusted here"),
        ("CaUsedAsEndEntity", "its certificate is that of an authority, which no server may show"),
        ("Expired", "its certificate has expired"),
        ("NotValidYet", "its certificate is not valid yet"),
        ("InvalidContentType", "it does not speak TLS"),
        ("CertificateRequired", "it asks for a certificate of the client"),
        ("UnknownCA", "it does not know the authority of the client's certificate"),
        ("BadCertificate", "it does not accept the client's certificate"),
        ("KeyMismatch", "the key does not belong to the certificate"),
        ("broken pipe", "it hung up"),
    ];
    words.iter().find(|(sign, _)| cause.contains(sign)).map_or(cause, |(_, words)| words)
}

/// Adds what can be done about a server that cannot be reached.
pub fn add_away_hints(failure: Failure, url: &str, cause: &str) -> Failure {
    if cause.contains("not valid for name") {
        return failure.hint("name the server in the target as its certificate does");
    }
    if cause.contains("CaUsedAsEndEntity") {
        return failure.hint(
            "the server needs a certificate with CA:FALSE, signed by an authority that --ca FILE names",
        );
    }
    let has_hung_up = HUNG_UP.iter().any(|sign| cause.contains(sign));
    if cause.contains("received fatal alert") || has_hung_up && url.starts_with("https:") {
        return failure.hint("--certificate FILE and --key FILE show the server who you are");
    }
    if cause.contains("certificate") {
        return failure
            .hint("--ca FILE names the authority that signed the server's certificate; save it with `tmsctl target add`");
    }
    if has_hung_up || SPEAKS_OTHERWISE.iter().any(|sign| cause.contains(sign)) {
        let other = if url.starts_with("https:") { "http:" } else { "https:" };
        return failure.hint(format!("does the server expect {other}//… instead?"));
    }
    failure.hint("is the server running, and is the target right? `tmsctl target list` shows the saved ones")
}

fn refused(rpc: &str, status: &Status) -> Failure {
    let details = status.get_error_details();
    let rpc = details
        .error_info()
        .and_then(|info| info.metadata.get("rpc"))
        .map_or(rpc, |name| name.rsplit('/').next().unwrap_or(name));
    let violations = details.bad_request().map_or(&[][..], |request| &request.field_violations);
    let faults: Vec<String> = match violations {
        [] => vec![format!("{} (@ {rpc})", message(status))],
        _ => violations
            .iter()
            .map(|fault| match fault.field.as_str() {
                "" => format!("{} (@ {rpc})", fault.description),
                field => format!("{} ({field} @ {rpc})", fault.description),
            })
            .collect(),
    };
    let mut failure = Failure { kind: Kind::Refused, faults, hints: Vec::new() };
    let mut flags: Vec<&str> = violations.iter().filter_map(|fault| flag_of(&fault.field)).collect();
    flags.dedup();
    if !flags.is_empty() {
        let flags = flags.join(", ");
        failure =
            failure.hint(format!("look at {flags}; `tmsctl server bounds` shows what this server allows"));
    }
    for link in details.help().map_or(&[][..], |help| &help.links) {
        failure = failure.hint(format!("{}: {}", link.description, link.url));
    }
    match code_hint(status.code()) {
        Some(hint) if failure.hints.is_empty() => failure.hint(hint),
        _ => failure,
    }
}

fn message(status: &Status) -> &str {
    match status.message() {
        "" => status.code().description(),
        message => message,
    }
}

/// Returns the flag that sets a field of a request, given its path in the notation of the interface.
fn flag_of(field: &str) -> Option<&'static str> {
    let field = field.strip_prefix("spec.").unwrap_or(field);
    let flags = [
        ("autoscaling.min_replicas", "--autoscaling-min-replicas"),
        ("autoscaling.max_replicas", "--autoscaling-max-replicas"),
        ("autoscaling.metrics[\"cpuUtilization\"]", "--autoscaling-cpu-utilization"),
        ("autoscaling.metrics[\"memoryUtilization\"]", "--autoscaling-memory-utilization"),
        ("autoscaling.metrics[\"gpuUtilization\"]", "--autoscaling-gpu-utilization"),
        ("autoscaling.metrics[\"gpuMemoryUtilization\"]", "--autoscaling-gpu-memory-utilization"),
        ("autoscaling.metrics[\"queueTime\"]", "--autoscaling-queue-time"),
        ("autoscaling.metrics", "the flags of the metrics, such as --autoscaling-queue-time"),
        ("autoscaling.behavior", "--autoscaling-behavior-file"),
        ("load_csv", "--load"),
        ("workload.service_time", "--service-time"),
        ("workload.concurrency", "--concurrency"),
        ("workload.cold_start", "--cold-start"),
        ("workload.pending_time", "--pending-time"),
        ("workload.busy_cpu_percent", "--busy-cpu"),
        ("workload.memory_percent", "--memory-use"),
        ("workload.gpu_memory_percent", "--gpu-memory-use"),
        ("autoscaling", "--enable-autoscaling"),
        ("replicas", "--replicas"),
        ("lifetime", "--lifetime"),
        ("models", "--model"),
        ("labels", "--label"),
        ("bespoke.image", "--triton-image"),
        ("bespoke.gpus", "--gpus"),
        ("bespoke.gpu_resource", "--gpu-resource"),
        ("bespoke.cpu", "--cpu"),
        ("bespoke.memory", "--memory"),
        ("bespoke.shared_memory", "--shared-memory"),
        ("bespoke.environment", "--env"),
        ("bespoke.node_selector", "--node-selector"),
        ("bespoke.tolerations", "--toleration"),
        ("bespoke.affinity_json", "--affinity-file"),
    ];
    let names = |prefix: &str| {
        field.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    flags.iter().find(|(prefix, _)| names(prefix)).map(|(_, flag)| *flag)
}

fn code_hint(code: Code) -> Option<&'static str> {
    match code {
        Code::NotFound => Some("`tmsctl lease list --all` shows your leases, those that have ended too"),
        Code::AlreadyExists => Some("leave --request-id out, or choose one that you have not used before"),
        Code::FailedPrecondition => Some("`tmsctl lease list --all` shows the state of each of your leases"),
        Code::Aborted => {
            Some("the lease was changed meanwhile: look at it with `tmsctl lease status` and try again")
        }
        Code::ResourceExhausted => {
            Some("`tmsctl lease list` shows what you hold; release what you need no more")
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            Some("`tmsctl version` shows who you are to the server; --certificate and --key say it")
        }
        Code::Unimplemented => {
            Some("the server does not know this call: compare the versions of `tmsctl version`")
        }
        Code::Internal | Code::Unknown | Code::DataLoss => Some("the log of the server has the cause"),
        Code::DeadlineExceeded => Some("the server is slow; try again, or look at its log"),
        Code::Ok | Code::Cancelled | Code::InvalidArgument | Code::OutOfRange | Code::Unavailable => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use insta::assert_snapshot;
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    fn plain(failure: &Failure) -> String {
        anstream::adapter::strip_str(&failure.report()).to_string()
    }

    #[test]
    fn each_field_violation_is_a_line_with_its_field_and_rpc() {
        let mut details = ErrorDetails::with_bad_request(vec![
            FieldViolation::new(
                "spec.autoscaling.max_replicas",
                "64 replicas are more than the 16 that server.autoscaling.replicas.limits.maximum allows",
            ),
            FieldViolation::new(
                "spec.autoscaling.metrics[\"queueTime\"].threshold",
                "a threshold of 5 is not within 100 to 500000 (server.autoscaling.metrics.queueTime.threshold)",
            ),
            FieldViolation::new("request_id", "a request id has at most 64 characters"),
        ]);
        details.set_error_info("OUT_OF_BOUNDS", "tms", HashMap::from([("rpc".into(), "Acquire".into())]));
        let status = Status::with_error_details(Code::InvalidArgument, "3 faults", details);
        let failure = Failure::from_status("Plan", "http://localhost:1", &status);
        assert_eq!(failure.exit_code(), 1);
        assert_snapshot!(plain(&failure), @r#"
        fatal: 64 replicas are more than the 16 that server.autoscaling.replicas.limits.maximum allows (spec.autoscaling.max_replicas @ Acquire)
        fatal: a threshold of 5 is not within 100 to 500000 (server.autoscaling.metrics.queueTime.threshold) (spec.autoscaling.metrics["queueTime"].threshold @ Acquire)
        fatal: a request id has at most 64 characters (request_id @ Acquire)
        hint: look at --autoscaling-max-replicas, --autoscaling-queue-time; `tmsctl server bounds` shows what this server allows
        "#);
    }

    #[test]
    fn an_error_without_details_names_the_rpc_and_gives_a_hint() {
        let status = Status::not_found("no lease begins with 3f0a");
        assert_snapshot!(plain(&Failure::from_status("Status", "http://localhost:1", &status)), @r"
        fatal: no lease begins with 3f0a (@ Status)
        hint: `tmsctl lease list --all` shows your leases, those that have ended too
        ");
    }

    #[test]
    fn an_error_without_a_message_says_what_its_code_means() {
        let status = Status::new(Code::PermissionDenied, "");
        assert_snapshot!(plain(&Failure::from_status("List", "http://localhost:1", &status)), @r"
        fatal: The caller does not have permission to execute the specified operation (@ List)
        hint: `tmsctl version` shows who you are to the server; --certificate and --key say it
        ");
    }

    #[test]
    fn a_server_that_is_away_is_told_with_its_address() {
        let status = Status::unavailable("the database is away");
        let failure = Failure::from_status("List", "https://tms.example.com", &status);
        assert_eq!(failure.kind(), Kind::Away);
        assert_snapshot!(plain(&failure), @r"
        fatal: https://tms.example.com does not answer: the database is away (@ List)
        hint: is the server running, and is the target right? `tmsctl target list` shows the saved ones
        ");
    }

    #[test]
    fn every_kind_has_its_exit_code() {
        for (failure, code) in [
            (Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)), 0),
            (Failure::local("x"), 1),
            (Failure::from(io::Error::other("disk full")), 1),
            (Failure::from_status("Renew", "", &Status::failed_precondition("ended")), 1),
            (Failure::usage("x"), 2),
            (Failure::away("x"), 3),
            (Failure::from_status("Renew", "", &Status::unavailable("x")), 3),
            (Failure::from_status("Renew", "", &Status::from_error("connection reset".into())), 3),
            (Failure::from_status("Renew", "", &Status::unimplemented("grpc-status header missing, …")), 3),
            (Failure::lease("x"), 4),
            (Failure::broken("x"), 1),
            (Failure::unsure("x"), 5),
            (Failure::interrupted("x"), 130),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }

    #[test]
    fn several_failures_end_with_the_code_of_the_first_and_repeat_no_hint() {
        let failures = vec![Failure::away("a").hint("h"), Failure::local("b").hint("h").hint("i")];
        let failure = Failure::several(failures).unwrap();
        assert_eq!(failure.exit_code(), 3);
        assert_snapshot!(plain(&failure), @r"
        fatal: a
        fatal: b
        hint: h
        hint: i
        ");
        assert!(Failure::several(Vec::new()).is_none());
    }
}
