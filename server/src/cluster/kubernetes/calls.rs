//! Bounds every call to the API server: how many at once, how many a second, how long each, and silence for as long as
//! the API server asks for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::core::Status;
use tokio::sync::Semaphore;

use crate::clock::stopwatch;
use crate::cluster::{ActError, root_cause};
use crate::metrics::Metrics;

/// Bounds on calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls under way at once; at least 1.
    pub in_flight: usize,
    /// Calls a second, over any longer time; 0 is no limit.
    pub per_second: u32,
    /// Time after which a call is given up.
    pub timeout: Duration,
}

/// How often a call that can wait looks whether there is room, and for how long at most.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// A gate that every call passes.
pub(super) struct Calls {
    in_flight: Semaphore,
    limits: Limits,
    next: Mutex<Instant>,
    metrics: Arc<Metrics>,
}

impl Calls {
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let next = Mutex::new(a_second_before(stopwatch()));
        Self { in_flight: Semaphore::new(limits.in_flight.max(1)), limits, next, metrics }
    }

    /// Waits for a turn, makes the call, and says what went wrong with `object` in words of the trait.
    pub async fn make<T>(
        &self,
        object: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ActError> {
        let _permit = self.in_flight.acquire().await.map_err(|_| ActError::Away(None))?;
        tokio::time::sleep(self.turn()).await;
        let begun = stopwatch();
        let answer = match tokio::time::timeout(self.limits.timeout, call).await {
            Ok(answer) => answer.map_err(|error| self.explain(object, error)),
            Err(_) => Err(self.no_answer()),
        };
        self.metrics.count_kubernetes_call(answer.as_ref().map_or_else(word, |_| "ok"), begun.elapsed());
        answer
    }

    /// Makes a call that can wait: not while half of the calls allowed at once are under way, unless that goes on for long.
    pub async fn make_late<T>(
        &self,
        object: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ActError> {
        let room = self.limits.in_flight.div_ceil(2);
        for _ in 0..LOOKS {
            if self.in_flight.available_permits() >= room {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.make(object, call).await
    }

    /// Returns how long to wait for the next turn, and takes it. Up to a second's worth of calls may go at once.
    fn turn(&self) -> Duration {
        let Some(step) = Duration::from_secs(1).checked_div(self.limits.per_second) else {
            let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
            return next.saturating_duration_since(stopwatch());
        };
        let now = stopwatch();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(a_second_before(now));
        *next = turn + step;
        turn.saturating_duration_since(now)
    }

    fn explain(&self, object: &str, error: kube::Error) -> ActError {
        match error {
            kube::Error::Api(status) => self.explain_status(object, &status),
            error => match root_cause(&error) {
                // Connecting has the same time as the whole call, and may be the first to give up.
                cause if cause == "deadline has elapsed" => self.no_answer(),
                cause => ActError::Away(Some(cause)),
            },
        }
    }

    fn no_answer(&self) -> ActError {
        ActError::Away(Some(format!("no answer within {:?}", self.limits.timeout)))
    }

    fn explain_status(&self, object: &str, status: &Status) -> ActError {
        let object = object.to_owned();
        match status.code {
            409 => ActError::Conflict { object },
            _ if is_of_another(status) => ActError::Conflict { object },
            429 => {
                let seconds = status.details.as_ref().map_or(1, |details| details.retry_after_seconds.max(1));
                let retry_after = Duration::from_secs(seconds.into());
                let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                *next = (*next).max(stopwatch() + retry_after);
                ActError::Busy { retry_after }
            }
            502..=504 => ActError::Away(Some(status.message.clone())),
            _ => ActError::Refused { object, message: status.message.clone() },
        }
    }
}

/// The word for a failure among the figures.
fn word(error: &ActError) -> &'static str {
    match error {
        ActError::Conflict { .. } | ActError::Superseded { .. } => "conflict",
        ActError::Refused { .. } | ActError::Invalid { .. } | ActError::File { .. } => "refused",
        ActError::Away(_) => "away",
        ActError::Busy { .. } => "busy",
    }
}

/// Whether the API server will never take an object as it is.
pub(super) fn is_invalid(status: &Status) -> bool {
    status.code == 422 && !is_of_another(status)
}

/// Whether an apply names the UID of an object that was replaced meanwhile, which is answered with 422 too.
fn is_of_another(status: &Status) -> bool {
    status.code == 422 && status.message.contains("metadata.uid")
}

fn a_second_before(moment: Instant) -> Instant {
    moment.checked_sub(Duration::from_secs(1)).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use kube::core::response::StatusDetails;

    use super::*;

    fn calls(in_flight: usize, per_second: u32) -> Calls {
        Calls::new(Limits { in_flight, per_second, timeout: Duration::from_millis(50) }, Arc::default())
    }

    fn answer(code: u16, message: &str, retry_after_seconds: u32) -> kube::Error {
        let details = StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds,
        };
        let status =
            Status { code, message: message.to_owned(), details: Some(details), ..Status::default() };
        kube::Error::Api(status.boxed())
    }

    async fn outcome(code: u16, message: &str) -> String {
        let call = async { Err::<(), _>(answer(code, message, 0)) };
        calls(1, 0).make("Service tms-1", call).await.expect_err("the answer is an error").to_string()
    }

    #[tokio::test]
    async fn answers_become_words_that_a_person_can_act_on() {
        assert_eq!(outcome(409, "modified").await, "Service tms-1 has changed meanwhile");
        let replaced = "metadata.uid: Invalid value: field is immutable";
        assert_eq!(outcome(422, replaced).await, "Service tms-1 has changed meanwhile");
        let quota = "exceeded quota: services";
        assert_eq!(
            outcome(403, quota).await,
            "the Kubernetes API refused Service tms-1: exceeded quota: services"
        );
        assert_eq!(outcome(503, "starting").await, "the Kubernetes API does not answer: starting");
    }

    #[tokio::test]
    async fn a_call_without_an_answer_is_given_up() {
        let outcome = calls(1, 0).make("a thing", std::future::pending::<Result<(), kube::Error>>()).await;
        assert!(matches!(outcome, Err(ActError::Away(Some(cause))) if cause.contains("50ms")));
    }

    #[tokio::test]
    async fn a_busy_api_server_gets_the_silence_that_it_asks_for() {
        let calls = calls(4, 1000);
        let busy = calls.make("a thing", async { Err::<(), _>(answer(429, "slow down", 3)) }).await;
        assert!(matches!(busy, Err(ActError::Busy { retry_after }) if retry_after == Duration::from_secs(3)));
        assert!(calls.turn() > Duration::from_millis(2900), "the next call waits");
    }

    #[tokio::test]
    async fn a_call_that_can_wait_leaves_places_to_the_others() {
        let calls = calls(4, 0);
        let others = calls.in_flight.try_acquire_many(3).expect("nobody else calls");
        let mut late = Box::pin(calls.make_late("an event", async { Ok(()) }));
        assert!(futures::poll!(&mut late).is_pending(), "one place is free, but it is not for this call");
        drop(others);
        late.await.expect("there is room");
    }

    #[tokio::test]
    async fn more_calls_than_allowed_wait_for_their_turn() {
        let calls = calls(100, 10);
        let waits: Vec<_> = (0..30).map(|_| calls.turn()).collect();
        assert!(waits[..10].iter().all(Duration::is_zero), "a second's worth goes at once: {waits:?}");
        assert!(waits[29] > Duration::from_millis(1500), "the rest goes at ten a second: {waits:?}");
    }
}
