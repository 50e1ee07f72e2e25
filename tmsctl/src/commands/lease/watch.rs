//! `tmsctl lease watch [LEASE]`.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;
use tms_proto::v1::{self, WatchRequest, WatchResponse};
use tonic::Status;

use super::{Global, list};
use crate::connection::Connection;
use crate::failure::{self, Failure};
use crate::follow::{PATIENT, Patience, Tries, is_ended};
use crate::output::{self, Form};
use crate::{text, view};

/// Follow the changes of a lease, or of all your leases
#[derive(Debug, clap::Args)]
#[command(after_help = "\
First comes how things are, then a line for each change, until the lease has ended and its objects are gone, or until \
Ctrl-C. A broken connection is made anew: of one lease no change is lost, of all your leases the latest is told.
With -o json: one JSON object on a line, with `event` (null for how things are) and `lease`; with -o yaml one document \
for each. With -z: time, id, state, what happened, in words.

Examples:
  tmsctl lease watch 3f0a
  tmsctl lease watch -o json | jq -r 'select(.event.reason == \"Expired\") | .lease.id'")]
pub struct Arguments {
    /// Id of the lease, or a unique prefix of it [default: all your leases]
    lease: Option<String>,
}

#[derive(Serialize)]
struct Change {
    event: Option<view::Event>,
    lease: Option<view::Lease>,
}

pub async fn run(global: &Global, arguments: Arguments) -> Result<(), Failure> {
    let form = global.form()?;
    let connection = global.connect().await?;
    let mut watch = Watch {
        connection: &connection,
        lease_id: arguments.lease.unwrap_or_default(),
        print: |change: &Change| print(form, change),
        versions: HashMap::new(),
        has_listed: false,
        is_closed: false,
        is_over: false,
    };
    tokio::select! {
        result = watch.follow(PATIENT) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::stopped()),
    }
}

/// A watch that survives breaks of the connection.
struct Watch<'a, P> {
    connection: &'a Connection,
    /// Empty for all leases.
    lease_id: String,
    print: P,
    /// Version that was printed last, by lease.
    versions: HashMap<String, i64>,
    has_listed: bool,
    /// The lease, if it is one, was seen ended and without objects.
    is_closed: bool,
    /// There can be no more changes.
    is_over: bool,
}

impl<P: Fn(&Change) -> Result<(), Failure>> Watch<'_, P> {
    /// Prints changes until there can be no more.
    async fn follow(&mut self, patience: Patience) -> Result<(), Failure> {
        let mut tries = Tries::new(patience);
        let mut has_told = false;
        while let Some(cut) = self.read(&mut tries).await? {
            if !std::mem::replace(&mut has_told, true) {
                output::warn(&format!(
                    "the connection broke ({}); trying again until it works",
                    cut.message()
                ));
            }
            if !tries.wait().await {
                return Err(Failure::from_status("Watch", self.connection.url(), &cut));
            }
        }
        Ok(())
    }

    /// Reads one stream; returns what cut it.
    async fn read(&mut self, tries: &mut Tries) -> Result<Option<Status>, Failure> {
        let after_version =
            if self.is_of_one() { self.versions.values().copied().max().unwrap_or(0) } else { 0 };
        let request = WatchRequest { lease_id: self.lease_id.clone(), after_version };
        let mut stream = match self.connection.leases().watch(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.cut_or_refused(status).map(Some),
        };
        while !self.is_over {
            match stream.message().await {
                Ok(Some(message)) => {
                    tries.reset();
                    self.hear(message).await?;
                }
                Ok(None) if self.is_closed => return Ok(None),
                Ok(None) => return Ok(Some(Status::unavailable("the stream ended"))),
                Err(status) => return self.cut_or_refused(status).map(Some),
            }
        }
        Ok(None)
    }

    async fn hear(&mut self, message: WatchResponse) -> Result<(), Failure> {
        let WatchResponse { event, lease, started } = message;
        if event.is_some() || lease.is_some() {
            self.show(event.as_ref(), lease.as_ref())?;
        }
        if started && !self.is_of_one() {
            self.show_those_that_changed().await?;
        }
        Ok(())
    }

    /// Prints the leases that are newer than what was printed of them; at first all that have not ended.
    async fn show_those_that_changed(&mut self) -> Result<(), Failure> {
        let is_again = std::mem::replace(&mut self.has_listed, true);
        for lease in list::fetch(self.connection, list::everything(is_again)).await?.iter().rev() {
            let known = self.versions.get(&lease.id).copied();
            let is_news = match known {
                Some(version) => lease.version > version,
                None => !is_ended(lease.state()),
            };
            if is_news {
                self.show(None, Some(lease))?;
            }
        }
        Ok(())
    }

    fn show(&mut self, event: Option<&v1::Event>, lease: Option<&v1::Lease>) -> Result<(), Failure> {
        let id =
            event.map(|event| &event.lease_id).or(lease.map(|lease| &lease.id)).cloned().unwrap_or_default();
        let version =
            event.map(|event| event.version).or(lease.map(|lease| lease.version)).unwrap_or_default();
        let known = self.versions.entry(id).or_default();
        if event.is_some() && version < *known {
            return Ok(());
        }
        *known = version.max(*known);
        let change = Change { event: event.map(view::Event::from), lease: lease.map(view::Lease::from) };
        (self.print)(&change)?;
        let is_closed = lease.is_some_and(|lease| is_ended(lease.state()) && lease.closed_at.is_some());
        // A lease may come with events of its past, of which more may follow.
        let is_latest = lease.is_none_or(|lease| version >= lease.version);
        self.is_closed = self.is_of_one() && is_closed;
        self.is_over = self.is_closed && is_latest;
        Ok(())
    }

    fn is_of_one(&self) -> bool {
        !self.lease_id.is_empty()
    }

    fn cut_or_refused(&self, status: Status) -> Result<Status, Failure> {
        if failure::is_away(&status) {
            return Ok(status);
        }
        Err(Failure::from_status("Watch", self.connection.url(), &status))
    }
}

fn print(form: Form, change: &Change) -> Result<(), Failure> {
    output::print(&match form {
        Form::Table => person_line(change),
        Form::Json => output::json_line(change)?,
        Form::Yaml => format!("---\n{}", output::yaml(change)?),
        Form::Porcelain => text::line(&fields(change)),
    })
}

fn person_line(change: &Change) -> String {
    let [at, id, state, what, message] = fields(change);
    let at = at.parse::<Timestamp>().map_or("now".to_owned(), |at| at.strftime("%H:%M:%S").to_string());
    // The padding is counted on the bare word, since colour takes no room.
    let padding = " ".repeat(12_usize.saturating_sub(state.len()));
    let line =
        format!("{at:<8}  {}  {}{padding}  {what:<13} {message}", text::short(&id), text::state(&state));
    line.trim_end().to_owned() + "\n"
}

/// Returns time, id, state, what happened, and words.
fn fields(change: &Change) -> [String; 5] {
    let told = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    match (&change.event, &change.lease) {
        (Some(event), _) => [
            told(event.at),
            event.lease_id.clone(),
            event.state.to_owned(),
            event.reason.clone(),
            event.message.clone(),
        ],
        (None, Some(lease)) => {
            [String::new(), lease.id.clone(), lease.state.to_owned(), String::new(), lease.message.clone()]
        }
        (None, None) => Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::time::Duration;

    use tms_proto::v1::{LeaseState, ListResponse};

    use super::*;
    use crate::failure::Kind;
    use crate::testing::{self, server::*};

    const EAGER: Patience =
        Patience { first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(1), tries: 2 };

    fn lease(id: &str, state: LeaseState, version: i64) -> v1::Lease {
        let closed_at = if is_ended(state) { testing::at(60) } else { None };
        v1::Lease { id: id.into(), state: state.into(), version, closed_at, ..testing::lease() }
    }

    fn event(lease: v1::Lease) -> Act<WatchResponse> {
        let event = v1::Event {
            lease_id: lease.id.clone(),
            version: lease.version,
            at: testing::at(lease.version),
            reason: "StateChanged".into(),
            state: lease.state,
            ..v1::Event::default()
        };
        Act::Send(WatchResponse { event: Some(event), lease: Some(lease), started: false })
    }

    fn started() -> Act<WatchResponse> {
        Act::Send(WatchResponse { started: true, ..WatchResponse::default() })
    }

    fn cut() -> Act<WatchResponse> {
        Act::Fail(Status::unavailable("restarting"))
    }

    async fn watch(lease_id: &str, script: Script) -> (FakeServer, Result<(), Failure>, String) {
        let (server, connection) = FakeServer::start(script).await;
        let lines = RefCell::new(String::new());
        let mut watch = Watch {
            connection: &connection,
            lease_id: lease_id.into(),
            print: |change: &Change| {
                *lines.borrow_mut() += &anstream::adapter::strip_str(&person_line(change)).to_string();
                Ok(())
            },
            versions: HashMap::new(),
            has_listed: false,
            is_closed: false,
            is_over: false,
        };
        let result = watch.follow(EAGER).await;
        (server, result, lines.into_inner())
    }

    #[tokio::test]
    async fn one_lease_is_watched_to_its_end_across_a_break() {
        let as_it_is =
            WatchResponse { lease: Some(lease("3f0a", LeaseState::Loading, 3)), ..Default::default() };
        let script = Script {
            watches: VecDeque::from([
                vec![started(), Act::Send(as_it_is), event(lease("3f0a", LeaseState::Ready, 4)), cut()],
                vec![started(), event(lease("3f0a", LeaseState::Expired, 5)), Act::Hang],
            ]),
            ..Script::default()
        };
        let (server, result, lines) = watch("3f", script).await;
        result.unwrap();
        insta::assert_snapshot!(lines, @r"
        now       3f0a  LOADING
        16:00:04  3f0a  READY         StateChanged
        16:00:05  3f0a  EXPIRED       StateChanged
        ");
        let asked_after: Vec<i64> = server.asked().1.iter().map(|request| request.after_version).collect();
        assert_eq!(asked_after, [0, 4]);
    }

    #[tokio::test]
    async fn a_stream_that_ends_with_its_lease_is_the_end() {
        let ended = v1::Lease { version: 9, ..lease("3f0a", LeaseState::Released, 8) };
        let Act::Send(message) = event(lease("3f0a", LeaseState::Released, 8)) else { unreachable!() };
        let message = WatchResponse { lease: Some(ended), ..message };
        let script = Script { watches: VecDeque::from([vec![Act::Send(message)]]), ..Script::default() };
        let (_, result, lines) = watch("3f0a", script).await;
        result.unwrap();
        insta::assert_snapshot!(lines, @"16:00:08  3f0a  RELEASED      StateChanged");
    }

    #[tokio::test]
    async fn all_leases_are_watched_and_what_a_break_hid_is_told_from_the_list() {
        let list = |leases: Vec<v1::Lease>| ListResponse { leases, next_page_token: String::new() };
        let script = Script {
            watches: VecDeque::from([
                vec![started(), event(lease("aa", LeaseState::Ready, 2)), cut()],
                vec![started(), event(lease("bb", LeaseState::Ready, 7)), cut()],
                vec![cut()],
                vec![cut()],
            ]),
            lists: VecDeque::from([
                list(vec![lease("bb", LeaseState::Pending, 1), lease("aa", LeaseState::Pending, 1)]),
                list(vec![
                    lease("cc", LeaseState::Released, 9),
                    lease("bb", LeaseState::Pending, 1),
                    lease("aa", LeaseState::Released, 6),
                ]),
            ]),
            ..Script::default()
        };
        let (_, result, lines) = watch("", script).await;
        assert_eq!(result.unwrap_err().kind(), Kind::Away);
        insta::assert_snapshot!(lines, @r"
        now       aa  PENDING
        now       bb  PENDING
        16:00:02  aa  READY         StateChanged
        now       aa  RELEASED
        16:00:07  bb  READY         StateChanged
        ");
    }
}
