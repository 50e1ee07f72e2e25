//! Logs every request once, when its answer is over: which RPC, by whom, how long it took and how it ended.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::{Code, Status};
use tower::Layer;
use tracing::{Instrument, Span};

use crate::auth::Caller;
use crate::clock;

/// Puts [`Logged`] around a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRequests;

impl<S> Layer<S> for LogRequests {
    type Service = Logged<S>;

    fn layer(&self, inner: S) -> Logged<S> {
        Logged { inner }
    }
}

/// A service whose requests are logged.
#[derive(Clone, Debug)]
pub struct Logged<S> {
    inner: S,
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
        let mut call = Call::begin(&request);
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
}

impl Call {
    fn begin(request: &http::Request<Body>) -> Self {
        let path = request.uri().path();
        let rpc = path.rsplit('/').next().unwrap_or(path);
        let caller = Caller::of(request.extensions()).map(|caller| caller.to_string());
        Self {
            span: tracing::info_span!("request", rpc, caller = caller.as_deref().unwrap_or("")),
            is_for_people: path.starts_with("/tms."),
            begun: clock::stopwatch(),
            code: None,
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
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Nobody waited for the end: the caller went, or its deadline passed.
        let code = self.code.unwrap_or(Code::Cancelled);
        match self.is_for_people {
            true => tracing::info!(duration_ms, code = ?code, "answered"),
            false => tracing::debug!(duration_ms, code = ?code, "answered"),
        }
    }
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
