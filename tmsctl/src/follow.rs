//! Follows a lease from its acquisition until there is nothing more to wait for, across breaks of the connection.

use std::time::Duration;

use tms_proto::v1::{AcquireRequest, Lease, LeaseState, ModelStatus, WatchRequest};
use tonic::Status;

use crate::connection::Connection;
use crate::failure::{self, Failure};

/// How often and how soon a broken call is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Wait before the first new try; it doubles with each.
    pub first_wait: Duration,
    /// Longest wait.
    pub longest_wait: Duration,
    /// New tries in a row before the server counts as gone.
    pub tries: u32,
}

/// For a server that restarts or moves, which takes a minute or two.
pub const PATIENT: Patience =
    Patience { first_wait: Duration::from_millis(250), longest_wait: Duration::from_secs(5), tries: 30 };

/// New tries of one call.
#[derive(Debug)]
pub struct Tries {
    patience: Patience,
    next_wait: Duration,
    left: u32,
}

impl Tries {
    /// Begins to count.
    pub fn new(patience: Patience) -> Self {
        Self { patience, next_wait: patience.first_wait, left: patience.tries }
    }

    /// Starts anew, because a call worked.
    pub fn reset(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Waits before the next try; false if there is none.
    pub async fn wait(&mut self) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        tokio::time::sleep(self.next_wait).await;
        self.next_wait = (self.next_wait * 2).min(self.patience.longest_wait);
        true
    }
}

/// Who is told how a lease comes up.
pub trait Audience {
    /// The lease exists from now on.
    fn accepted(&mut self, lease: &Lease, warnings: &[String]) -> Result<(), Failure>;
    /// The lease or its models changed.
    fn changed(&mut self, lease: &Lease);
    /// The connection broke and is made anew; told once.
    fn interrupted(&mut self, cause: &str);
}

/// Follows one lease.
pub struct Follower<'a, A> {
    connection: &'a Connection,
    audience: &'a mut A,
    patience: Patience,
    lease: Option<Lease>,
    has_told_interruption: bool,
}

impl<'a, A: Audience> Follower<'a, A> {
    /// Prepares to follow.
    pub fn new(connection: &'a Connection, audience: &'a mut A, patience: Patience) -> Self {
        Self { connection, audience, patience, lease: None, has_told_interruption: false }
    }

    /// Returns the lease as it was seen last, once it exists.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Acquires a lease and follows it until it needs no more waiting. The request id makes it safe to ask again.
    pub async fn acquire(&mut self, request: AcquireRequest) -> Result<(), Failure> {
        let mut tries = Tries::new(self.patience);
        while self.lease.is_none() {
            match self.read_acquire(&request).await? {
                Some(cut) if self.lease.is_none() => self.pause("Acquire", &cut, &mut tries).await?,
                Some(cut) if !request.no_wait => self.tell_interruption(&cut),
                Some(_) | None => {}
            }
        }
        if request.no_wait || self.is_settled() {
            return Ok(());
        }
        self.watch().await
    }

    /// Reads the stream of an acquisition; returns what cut it, if it did not end as it should.
    async fn read_acquire(&mut self, request: &AcquireRequest) -> Result<Option<Status>, Failure> {
        let mut stream = match self.connection.leases().acquire(request.clone()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.cut_or_refused("Acquire", status).map(Some),
        };
        loop {
            match stream.message().await {
                Ok(Some(message)) => self.hear(message.lease, message.models, &message.warnings)?,
                Ok(None) if request.no_wait && self.lease.is_some() || self.is_settled() => return Ok(None),
                Ok(None) => return Ok(Some(Status::unavailable("the stream ended early"))),
                Err(_) if self.is_settled() => return Ok(None),
                Err(status) => return self.cut_or_refused("Acquire", status).map(Some),
            }
        }
    }

    /// Follows the lease by watching it, which can never create another one.
    async fn watch(&mut self) -> Result<(), Failure> {
        let mut tries = Tries::new(self.patience);
        while !self.is_settled() {
            let Some(cut) = self.read_watch(&mut tries).await? else { return Ok(()) };
            self.pause("Watch", &cut, &mut tries).await?;
        }
        Ok(())
    }

    /// Reads the stream of a watch until the lease is settled; returns what cut it.
    async fn read_watch(&mut self, tries: &mut Tries) -> Result<Option<Status>, Failure> {
        let lease_id = self.lease.as_ref().map(|lease| lease.id.clone()).unwrap_or_default();
        let request = WatchRequest { lease_id, after_version: 0 };
        let mut stream = match self.connection.leases().watch(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.cut_or_refused("Watch", status).map(Some),
        };
        while !self.is_settled() {
            match stream.message().await {
                Ok(Some(message)) => {
                    tries.reset();
                    self.hear(message.lease, Vec::new(), &[])?;
                }
                Ok(None) => return Ok(Some(Status::unavailable("the stream ended early"))),
                Err(status) => return self.cut_or_refused("Watch", status).map(Some),
            }
        }
        Ok(None)
    }

    /// Takes in what is new: the whole lease, or some of its models.
    fn hear(
        &mut self,
        lease: Option<Lease>,
        models: Vec<ModelStatus>,
        warnings: &[String],
    ) -> Result<(), Failure> {
        let is_first = self.lease.is_none();
        match (&mut self.lease, lease) {
            // An older report than the one we have comes where a new stream starts with events of the past.
            (Some(known), Some(lease)) if lease.version < known.version => {}
            (known, Some(lease)) => *known = Some(lease),
            (_, None) => {}
        }
        let Some(lease) = &mut self.lease else { return Ok(()) };
        for model in models {
            match lease.models.iter_mut().find(|known| known.name == model.name) {
                Some(known) => *known = model,
                None => lease.models.push(model),
            }
        }
        if is_first {
            self.audience.accepted(lease, warnings)?;
        }
        self.audience.changed(lease);
        Ok(())
    }

    fn is_settled(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| is_settled(lease.state()))
    }

    fn cut_or_refused(&self, rpc: &'static str, status: Status) -> Result<Status, Failure> {
        if failure::is_away(&status) {
            return Ok(status);
        }
        Err(Failure::from_status(rpc, self.connection.url(), &status))
    }

    async fn pause(&mut self, rpc: &'static str, cut: &Status, tries: &mut Tries) -> Result<(), Failure> {
        self.tell_interruption(cut);
        match tries.wait().await {
            true => Ok(()),
            false => Err(Failure::from_status(rpc, self.connection.url(), cut)),
        }
    }

    fn tell_interruption(&mut self, cut: &Status) {
        if !std::mem::replace(&mut self.has_told_interruption, true) {
            self.audience.interrupted(cut.message());
        }
    }
}

/// Returns whether a lease in this state needs no more waiting.
pub fn is_settled(state: LeaseState) -> bool {
    match state {
        LeaseState::Ready
        | LeaseState::Degraded
        | LeaseState::Asleep
        | LeaseState::Written
        | LeaseState::Released
        | LeaseState::Expired
        | LeaseState::Invalid => true,
        LeaseState::Unspecified | LeaseState::Pending | LeaseState::Provisioning | LeaseState::Loading => {
            false
        }
    }
}

/// Returns whether a lease in this state has ended.
pub fn is_ended(state: LeaseState) -> bool {
    match state {
        LeaseState::Released | LeaseState::Expired | LeaseState::Invalid => true,
        LeaseState::Unspecified
        | LeaseState::Pending
        | LeaseState::Provisioning
        | LeaseState::Loading
        | LeaseState::Ready
        | LeaseState::Degraded
        | LeaseState::Asleep
        | LeaseState::Written => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tms_proto::v1::{AcquireResponse, ModelState, WatchResponse};

    use super::*;
    use crate::failure::Kind;
    use crate::testing::{self, server::*};

    const EAGER: Patience =
        Patience { first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(1), tries: 3 };

    /// Notes what it is told, a line each, and cuts the wire once a lease was heard of in a certain version.
    struct Notes {
        lines: Vec<String>,
        server: FakeServer,
        cut_at: Vec<i64>,
    }

    impl Audience for Notes {
        fn accepted(&mut self, lease: &Lease, warnings: &[String]) -> Result<(), Failure> {
            self.lines.push(format!("accepted {} {warnings:?}", &lease.id[..4]));
            Ok(())
        }

        fn changed(&mut self, lease: &Lease) {
            let models: Vec<_> = lease.models.iter().map(|model| model.state().as_str_name()).collect();
            self.lines.push(format!("{} {}", lease.state().as_str_name(), models.join(" ")));
            if self.cut_at.contains(&lease.version) {
                self.cut_at.retain(|version| *version != lease.version);
                self.server.cut_wire();
            }
        }

        fn interrupted(&mut self, _: &str) {
            self.lines.push("interrupted".to_owned());
        }
    }

    fn lease(state: LeaseState, version: i64) -> Lease {
        Lease { state: state.into(), version, models: Vec::new(), ..testing::lease() }
    }

    fn told(state: LeaseState, version: i64) -> Act<AcquireResponse> {
        Act::Send(AcquireResponse { lease: Some(lease(state, version)), ..AcquireResponse::default() })
    }

    fn seen(state: LeaseState, version: i64) -> Act<WatchResponse> {
        Act::Send(WatchResponse { lease: Some(lease(state, version)), ..WatchResponse::default() })
    }

    fn model(state: ModelState) -> Act<AcquireResponse> {
        let status = ModelStatus { name: "resnet50".into(), state: state.into(), ..ModelStatus::default() };
        Act::Send(AcquireResponse { models: vec![status], ..AcquireResponse::default() })
    }

    async fn acquire(script: Script, no_wait: bool) -> (FakeServer, Result<(), Failure>, String) {
        acquire_with_cuts(script, no_wait, Vec::new()).await
    }

    async fn acquire_with_cuts(
        script: Script,
        no_wait: bool,
        cut_at: Vec<i64>,
    ) -> (FakeServer, Result<(), Failure>, String) {
        let (server, connection) = FakeServer::start(script).await;
        let mut notes = Notes { lines: Vec::new(), server: server.clone(), cut_at };
        let request = AcquireRequest { request_id: "r-1".into(), no_wait, spec: None };
        let result = Follower::new(&connection, &mut notes, EAGER).acquire(request).await;
        (server, result, notes.lines.join("\n"))
    }

    fn acquires<const N: usize>(acquires: [Vec<Act<AcquireResponse>>; N]) -> Script {
        Script { acquires: VecDeque::from(acquires), ..Script::default() }
    }

    #[tokio::test]
    async fn a_lease_is_followed_to_the_end_of_its_stream() {
        let first = AcquireResponse {
            lease: Some(lease(LeaseState::Pending, 1)),
            warnings: vec!["no metric is on".into()],
            ..AcquireResponse::default()
        };
        let script = acquires([vec![
            Act::Send(first),
            model(ModelState::Downloading),
            model(ModelState::Loading),
            told(LeaseState::Ready, 3),
        ]]);
        let (_, result, notes) = acquire(script, false).await;
        result.unwrap();
        insta::assert_snapshot!(notes, @r#"
        accepted 3f0a ["no metric is on"]
        LEASE_STATE_PENDING 
        LEASE_STATE_PENDING MODEL_STATE_DOWNLOADING
        LEASE_STATE_PENDING MODEL_STATE_LOADING
        LEASE_STATE_READY 
        "#);
    }

    #[tokio::test]
    async fn a_server_that_is_away_for_a_moment_is_asked_again_with_the_same_request_id() {
        let away = || vec![Act::Fail(Status::unavailable("restarting"))];
        let script = acquires([away(), away(), vec![told(LeaseState::Written, 1)]]);
        let (server, result, notes) = acquire(script, false).await;
        result.unwrap();
        insta::assert_snapshot!(notes, @r"
        interrupted
        accepted 3f0a []
        LEASE_STATE_WRITTEN
        ");
        let ids: Vec<String> = server.asked().0.into_iter().map(|request| request.request_id).collect();
        assert_eq!(ids, ["r-1", "r-1", "r-1"]);
    }

    #[tokio::test]
    async fn a_server_that_stays_away_is_given_up() {
        let away = || vec![Act::Fail(Status::unavailable("restarting"))];
        let (_, result, _) = acquire(acquires([away(), away(), away(), away()]), false).await;
        assert_eq!(result.unwrap_err().kind(), Kind::Away);
    }

    #[tokio::test]
    async fn a_refusal_is_final() {
        let script = acquires([vec![Act::Fail(Status::invalid_argument("too many replicas"))]]);
        let (server, result, _) = acquire(script, false).await;
        assert_eq!(result.unwrap_err().kind(), Kind::Refused);
        assert_eq!(server.asked().0.len(), 1);
    }

    #[tokio::test]
    async fn a_cut_wire_is_mended_by_watching_the_lease_and_told_once() {
        let script = Script {
            watches: VecDeque::from([
                vec![seen(LeaseState::Provisioning, 2), Act::Hang],
                vec![seen(LeaseState::Loading, 3), Act::Fail(Status::unavailable("restarting"))],
                vec![seen(LeaseState::Provisioning, 2), seen(LeaseState::Ready, 4), Act::Hang],
            ]),
            ..acquires([vec![told(LeaseState::Pending, 1), Act::Hang]])
        };
        let (server, result, notes) = acquire_with_cuts(script, false, vec![1, 2]).await;
        result.unwrap();
        insta::assert_snapshot!(notes, @r"
        accepted 3f0a []
        LEASE_STATE_PENDING 
        interrupted
        LEASE_STATE_PROVISIONING 
        LEASE_STATE_LOADING 
        LEASE_STATE_LOADING 
        LEASE_STATE_READY
        ");
        let (acquires, watches) = server.asked();
        assert_eq!((acquires.len(), watches.len()), (1, 3));
        assert!(watches.iter().all(|request| request.lease_id == testing::lease().id));
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_not_taken_for_success() {
        let script = Script {
            watches: VecDeque::from([vec![seen(LeaseState::Invalid, 2)]]),
            ..acquires([vec![told(LeaseState::Pending, 1)]])
        };
        let (_, result, notes) = acquire(script, false).await;
        result.unwrap();
        assert!(notes.ends_with("LEASE_STATE_INVALID "), "{notes}");
    }

    #[tokio::test]
    async fn without_waiting_the_first_message_is_enough() {
        let (server, result, _) = acquire(acquires([vec![told(LeaseState::Pending, 1)]]), true).await;
        result.unwrap();
        assert!(server.asked().1.is_empty());
    }
}
