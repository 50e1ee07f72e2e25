//! Logs and counts every request once, when its answer is over: which RPC, by whom, how long it took and how it ended.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http_body::{Frame, SizeHint};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::{Code, Status};
use tower::Layer;
use tracing::{Instrument, Span};

use crate::auth::Caller;
use crate::clock;
use crate::metrics::Metrics;

/// Puts [`Logged`] around a service.
#[derive(Clone, Debug)]
pub struct LogRequests(Arc<Counting>);

/// Where requests are counted, and the RPCs that are: whoever calls can ask for others by any name.
#[derive(Debug)]
struct Counting {
    metrics: Arc<Metrics>,
    rpcs: BTreeMap<String, &'static str>,
}

impl LogRequests {
    /// Returns one that counts requests too.
    pub fn counted(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Counting { metrics, rpcs: rpcs() }))
    }
}

impl<S> Layer<S> for LogRequests {
    type Service = Logged<S>;

    fn layer(&self, inner: S) -> Logged<S> {
        Logged { inner, counting: Arc::clone(&self.0) }
    }
}

/// A service whose requests are logged.
#[derive(Clone, Debug)]
pub struct Logged<S> {
    inner: S,
    counting: Arc<Counting>,
}

impl<S> Service<http::Request<Body>> for Logged<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut call = Call::begin(&request, Arc::clone(&self.counting));
        let answer = self.inner.call(request).instrument(call.span.clone());
        Box::pin(async move {
            let response = answer.await?;
            // A refusal has its code in the headers and no body; all else has it in the trailers.
            call.note_code(response.headers());
            Ok(response.map(|body| Body::new(LoggedBody { body, call })))
        })
    }
}

/// One request on its way. It is logged when this value goes, whatever the way: answered, refused or given up.
struct Call {
    span: Span,
    is_for_people: bool,
    begun: Instant,
    code: Option<Code>,
    counting: Arc<Counting>,
    /// Its name among the figures, if it has one.
    counted: Option<&'static str>,
}

impl Call {
    fn begin(request: &http::Request<Body>, counting: Arc<Counting>) -> Self {
        let path = request.uri().path();
        let rpc = path.rsplit('/').next().unwrap_or(path);
        let caller = Caller::of(request.extensions()).map(|caller| caller.to_string());
        Self {
            span: tracing::info_span!("request", rpc, caller = caller.as_deref().unwrap_or("")),
            is_for_people: path.starts_with("/tms."),
            begun: clock::stopwatch(),
            code: None,
            counted: counting.rpcs.get(path).copied(),
            counting,
        }
    }

    fn note_code(&mut self, headers: &http::HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = Some(status.code());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let took = self.begun.elapsed();
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        // Nobody waited for the end: the caller went, or its deadline passed.
        let code = self.code.unwrap_or(Code::Cancelled);
        if let Some(rpc) = self.counted {
            self.counting.metrics.count_rpc(rpc, word(code), took);
        }
        match self.is_for_people {
            true => tracing::info!(duration_ms, code = ?code, "answered"),
            false => tracing::debug!(duration_ms, code = ?code, "answered"),
        }
    }
}

/// The word for a code, as gRPC writes it.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Returns the path of each RPC of TMS, and its name.
fn rpcs() -> BTreeMap<String, &'static str> {
    let files = FileDescriptorSet::decode(tms_proto::FILE_DESCRIPTOR_SET).expect("the build made it");
    let mut rpcs = BTreeMap::new();
    for file in files.file {
        for service in &file.service {
            let path = format!("/{}.{}/", file.package(), service.name());
            let named = service.method.iter().map(|method| {
                let name: &'static str = method.name().to_owned().leak();
                (format!("{path}{name}"), name)
            });
            rpcs.extend(named);
        }
    }
    rpcs
}

/// The body of an answer, with the request that it ends.
struct LoggedBody {
    body: Body,
    call: Call,
}

impl http_body::Body for LoggedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, call } = &mut *self;
        let polled = call.span.in_scope(|| pin!(body).poll_frame(context));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            call.note_code(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
