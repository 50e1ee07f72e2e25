//! Servers on one PostgreSQL: one of them leads, and each hears what the others change.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::convert::Infallible;
use std::time::Duration;

use jiff::SignedDuration;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tms_proto::v1::{LeaseState, RenewRequest, WatchRequest};
use tms_server::clock::{Clock, stopwatch};
use tms_server::domain::lease::{Happening, LeaseId};
use tms_server::domain::life::Deadlines;
use tms_server::store::{Announcement, Leadership, Options, Store};
use tms_tests::http::get;
use tms_tests::postgres;
use tms_tests::server::{Database, Server, Target, VALUES, World, spec};
use tms_tests::wait::until;
use tokio::sync::broadcast;
use tokio::time::timeout;

/// What happens by a notification takes less, and so does what those do who try every second.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Nobody who waits is served meanwhile.
const A_WHILE: Duration = Duration::from_millis(500);
/// A leader that does nothing more has lost the lead after this.
const FROZEN: Duration = Duration::from_secs(15);

/// Opens the database as one more server.
async fn open(url: &str) -> Store {
    let deadlines = Deadlines { load_timeout: SignedDuration::from_mins(30), notices: Vec::new() };
    let options = Options { url: url.to_owned(), password: None, deadlines, maximum_per_owner: 0 };
    Store::open(&options, &Clock::system()).await.unwrap()
}

/// Ends the sessions of servers of which this condition on `pg_stat_activity` is true, and returns how many there were.
async fn end_sessions(url: &str, condition: &str) -> i64 {
    of_sessions(url, "count(pg_terminate_backend(pid))", condition).await
}

/// Returns a figure of those sessions.
async fn of_sessions(url: &str, figure: &str, condition: &str) -> i64 {
    let mut administrator = PgConnection::connect(url).await.unwrap();
    let statement = format!(
        "SELECT {figure} FROM pg_stat_activity \
         WHERE application_name = 'tms-server' AND datname = current_database() AND {condition}"
    );
    sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut administrator).await.unwrap()
}

/// The session that holds the lock.
const LEADER: &str = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)";
/// The sessions that listen.
const LISTENERS: &str = "query LIKE 'LISTEN%'";

async fn leads_at_once(store: &Store) -> Leadership {
    timeout(AT_ONCE, store.lead()).await.expect("nobody else leads")
}

#[tokio::test]
async fn one_server_leads_and_another_when_it_gives_the_lead_up() {
    let Some(url) = postgres::database().await else { return };
    let (one, other) = (open(&url).await, open(&url).await);
    let leadership = leads_at_once(&one).await;
    let mut waiting = std::pin::pin!(other.lead());
    assert!(timeout(A_WHILE, &mut waiting).await.is_err());
    let term = leadership.term();
    assert!(!term.is_over());
    leadership.resign().await;
    assert!(term.is_over());
    timeout(AT_ONCE, waiting).await.expect("the other leads");
}

#[tokio::test]
async fn a_server_that_waits_to_lead_keeps_postgresql_from_removing_no_dead_rows() {
    let Some(url) = postgres::database().await else { return };
    let (one, other) = (open(&url).await, open(&url).await);
    let _leadership = leads_at_once(&one).await;
    let mut waiting = std::pin::pin!(other.lead());
    assert!(timeout(A_WHILE, &mut waiting).await.is_err());
    // A session that runs a statement has a horizon.
    let is_at_rest = until("the one that waits is at rest between two tries", 5, async || {
        let condition = format!("NOT {LEADER} AND query LIKE '%advisory_lock%' AND backend_xmin IS NULL");
        (of_sessions(&url, "count(pid)", &condition).await == 1).then_some(())
    });
    tokio::select! {
        () = is_at_rest => {}
        _ = waiting => panic!("the other leads"),
    }
}

#[tokio::test]
async fn settings_that_postgresql_refuses_hinder_nobody_from_leading_and_listening() {
    let Some(url) = postgres::database().await else { return };
    let mut administrator = PgConnection::connect(&url).await.unwrap();
    for statement in [
        "CREATE SCHEMA strict",
        "CREATE FUNCTION strict.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'permission denied' USING ERRCODE = '42501'; END $$",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = strict, pg_catalog, public', \
         current_database()); END $$",
    ] {
        sqlx::query(statement).execute(&mut administrator).await.unwrap();
    }
    let store = open(&url).await;
    until("it listens", 5, async || store.hears_others().then_some(())).await;
    leads_at_once(&store).await;
}

#[tokio::test]
async fn installations_in_databases_of_one_postgresql_lead_each_for_itself() {
    let (Some(url), Some(another)) = (postgres::database().await, postgres::database().await) else { return };
    let _one = leads_at_once(&open(&url).await).await;
    leads_at_once(&open(&another).await).await;
}

#[tokio::test]
async fn a_leader_that_asks_nothing_for_ten_seconds_is_replaced_and_knows_it_before() {
    let Some(url) = postgres::database().await else { return };
    let (one, other) = (open(&url).await, open(&url).await);
    let mut leadership = leads_at_once(&one).await;
    let term = leadership.term();
    let begin = stopwatch();
    let _others = timeout(FROZEN, other.lead()).await.expect("the other leads");
    assert!(term.is_over(), "after {:?}", begin.elapsed());
    assert!(begin.elapsed() > Duration::from_secs(5), "a lead outlives a pause");
    // Awake again, it finds the lock gone, and waits like any other.
    timeout(Duration::from_secs(10), leadership.keep()).await.expect("it leads no more");
    assert!(timeout(A_WHILE, one.lead()).await.is_err());
}

#[tokio::test]
async fn a_leader_that_asks_leads_on() {
    let Some(url) = postgres::database().await else { return };
    let (one, other) = (open(&url).await, open(&url).await);
    let mut leadership = leads_at_once(&one).await;
    let term = leadership.term();
    let kept = timeout(FROZEN, async {
        tokio::select! {
            error = leadership.keep() => panic!("{error}"),
            _ = other.lead() => panic!("the other leads"),
        }
    });
    assert!(kept.await.is_err());
    assert!(!term.is_over());
}

#[tokio::test]
async fn a_leader_whose_session_the_database_ends_leads_no_more() {
    let Some(url) = postgres::database().await else { return };
    let (one, other) = (open(&url).await, open(&url).await);
    let mut leadership = leads_at_once(&one).await;
    let term = leadership.term();
    assert_eq!(end_sessions(&url, LEADER).await, 1);
    let _others = leads_at_once(&other).await;
    timeout(Duration::from_secs(10), leadership.keep()).await.expect("it leads no more");
    assert!(term.is_over());
}

#[tokio::test]
async fn what_one_server_changes_the_other_hears_once_and_the_one_does_not_hear_as_anothers() {
    let Some(mut world) = World::new(Database::Postgres, Target::Manifests).await else { return };
    world.values = VALUES.to_owned();
    let server = world.start().await;
    let mut ours = server.running.store().changes();
    let other = open(&world.database_url).await;
    let mut theirs = other.changes();
    until("the other listens", 10, async || other.hears_others().then_some(())).await;

    let id: LeaseId = server.acquire(spec()).await.unwrap().id.parse().unwrap();
    let heard = until_theirs(&mut theirs).await;
    assert_eq!((heard.id, heard.owner.as_str(), heard.version), (id, "anonymous", 1));
    let touch =
        |_: &mut _| Ok::<_, Infallible>(((), Some(Happening { reason: "Touched", message: String::new() })));
    let (_, lease) = other.change(id, "test", world.clock.now(), touch).await.unwrap();
    let heard = until_theirs(&mut ours).await;
    assert_eq!((heard.id, heard.version), (id, lease.version), "its own commits are none of others");
    server.stop().await;
}

async fn until_theirs(announcements: &mut broadcast::Receiver<Announcement>) -> tms_server::store::Changed {
    let heard = async {
        loop {
            if let Announcement::Theirs(change) = announcements.recv().await.unwrap() {
                return change;
            }
        }
    };
    timeout(AT_ONCE, heard).await.expect("a change is heard of")
}

#[tokio::test]
async fn a_server_that_was_cut_off_says_that_it_may_have_missed_something() {
    let Some(url) = postgres::database().await else { return };
    let store = open(&url).await;
    until("it listens", 10, async || store.hears_others().then_some(())).await;
    let mut announcements = store.changes();
    assert_eq!(end_sessions(&url, LISTENERS).await, 1);
    let missed = timeout(Duration::from_secs(10), announcements.recv()).await.expect("it listens again");
    assert_eq!(missed.unwrap(), Announcement::Missed);
    assert!(store.hears_others());
}

#[tokio::test]
async fn a_connection_that_ends_again_and_again_is_begun_anew_less_and_less_often() {
    let Some(url) = postgres::database().await else { return };
    let store = open(&url).await;
    let mut announcements = store.changes();
    let cut_off = async {
        loop {
            end_sessions(&url, LISTENERS).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _: Result<Infallible, _> = timeout(Duration::from_secs(5), cut_off).await;
    until("it listens again", 10, async || store.hears_others().then_some(())).await;
    let missed = std::iter::from_fn(|| announcements.try_recv().ok()).count();
    // The pauses begin with a quarter of a second, and each is twice the one before.
    assert!((1..=6).contains(&missed), "each of {missed} has all leases looked at");
}

#[tokio::test]
async fn a_watch_at_one_server_hears_of_a_renewal_at_the_other() {
    let Some(world) = World::new(Database::Postgres, Target::Manifests).await else { return };
    let servers = [world.start().await, world.start().await];
    for server in &servers {
        until("it listens", 10, async || server.running.store().hears_others().then_some(())).await;
    }
    for (here, there) in [(0, 1), (1, 0)] {
        let (here, there) = (&servers[here], &servers[there]);
        let lease = here.acquire(spec()).await.unwrap();
        here.until_state(&lease.id, LeaseState::Written).await;
        // All leases are looked at without an announcement every half a minute, one every five seconds.
        for lease_id in [String::new(), lease.id.clone()] {
            let request = WatchRequest { lease_id, after_version: 0 };
            let mut watch = there.leases.clone().watch(request).await.unwrap().into_inner();
            assert!(watch.message().await.unwrap().unwrap().started);
            let renew = RenewRequest { lease_id: lease.id.clone(), lifetime: None };
            here.leases.clone().renew(renew).await.unwrap();
            let heard = timeout(AT_ONCE, watch.message()).await.expect("the watch hears");
            let event = heard.unwrap().unwrap().event.unwrap();
            assert_eq!((event.reason.as_str(), event.lease_id), ("Renewed", lease.id.clone()));
        }
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test]
async fn after_a_restart_of_the_database_exactly_one_server_leads_and_works() {
    let Some(mut postgres) = postgres::Own::start() else { return };
    until("PostgreSQL answers", 30, async || PgConnection::connect(postgres.url()).await.ok()).await;
    let mut world = World::on(&postgres, Target::Manifests);
    world.values =
        world.values.replace("server:", "server:\n  metrics: {enabled: true, listen: '127.0.0.1:0'}");
    let servers = [world.start().await, world.start().await];
    let before = until_one_leads(&servers, 10).await;
    postgres.restart();
    until("the leader knows", 20, async || (!leads(&servers[before]).await).then_some(())).await;
    until_one_leads(&servers, 20).await;
    let lease = until("a lease is acquired", 20, async || servers[1].acquire(spec()).await.ok()).await;
    servers[0].until_state(&lease.id, LeaseState::Written).await;
    servers[1].release(&lease.id).await.unwrap();
    servers[0].until_closed(&lease.id).await;
    let leading = until_one_leads(&servers, 1).await;
    let [one, other] = servers;
    let (leader, follower) = if leading == 0 { (one, other) } else { (other, one) };
    leader.stop().await;
    until("the other leads", 2, async || leads(&follower).await.then_some(())).await;
    follower.stop().await;
}

/// Waits until exactly one of the servers leads, and returns which.
async fn until_one_leads(servers: &[Server; 2], seconds: u64) -> usize {
    until("exactly one leads", seconds, async || match (leads(&servers[0]).await, leads(&servers[1]).await) {
        (true, false) => Some(0),
        (false, true) => Some(1),
        (true, true) => panic!("both lead"),
        (false, false) => None,
    })
    .await
}

async fn leads(server: &Server) -> bool {
    let address = server.running.metrics_address().expect("the figures are served");
    get(address, "/metrics").await.lines().any(|line| line == "tms_leader 1")
}
