//! The store on both databases: every test runs on SQLite and on a real PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::TempDir;
use tms_server::clock::{Clock, system_now};
use tms_server::domain::lease::{
    AutomaticRenewal, End, EndReason, Happening, Lease, LeaseId, Model, ModelReport, ModelState, Phase,
    Placement, Replicas, Report, SERVER, Spec, State, Tenure, Toleration, Triton,
};
use tms_server::domain::life::{Deadlines, Update};
use tms_server::domain::scaling::{
    AuthenticationKind, Autoscaling, Behavior, MetricName, PolicyKind, Scaling, ScalingPolicy, ScalingRules,
    SelectPolicy, Trigger, TriggerAuthentication, TriggerMetric,
};
use tms_server::store::{
    Admission, Admitted, Announcement, ChangeError, Changed, Cursor, Filter, Found, Options, Page,
    RequestKey, Sizes, Store, StoreError,
};
use tms_tests::postgres;
use tms_tests::wait::until;
use tokio::sync::broadcast;

const ALICE: &str = "alice";
const BOB: &str = "bob";

/// Half an hour to load, no notices.
fn deadlines() -> Deadlines {
    Deadlines { load_timeout: SignedDuration::from_mins(30), notices: Vec::new() }
}

/// Makes of each function a test on SQLite and one on PostgreSQL.
macro_rules! on_both_databases {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(super::Database::sqlite()).await;
            })+
        }
        mod postgres_ {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                if let Some(database) = super::Database::postgres().await {
                    super::$test(database).await;
                }
            })+
        }
    };
}

on_both_databases! {
    a_lease_is_read_as_it_was_admitted,
    a_changed_lease_is_read_as_it_was_changed,
    a_large_deployment_is_kept,
    an_owner_and_labels_may_hold_any_letters,
    an_owner_gets_as_many_leases_as_allowed_and_no_more,
    an_ended_lease_makes_room_for_another,
    no_limit_is_no_limit,
    a_repeated_request_returns_the_first_lease_as_it_is_now,
    a_repeated_request_is_answered_though_its_owner_holds_all_that_one_may,
    a_request_id_with_other_content_is_refused,
    a_request_id_belongs_to_one_owner,
    one_request_sent_many_times_at_once_admits_one_lease,
    no_change_is_lost_among_many_at_once,
    a_change_of_nothing_writes_nothing,
    a_refused_change_writes_nothing,
    an_unknown_lease_cannot_be_changed,
    each_version_has_its_event,
    changes_are_announced_after_their_commit,
    a_prefix_finds_one_lease_none_or_several,
    a_list_is_filtered,
    labels_are_filtered_as_they_are_after_an_update,
    pages_lose_and_repeat_nothing_while_leases_are_added,
    the_clock_finds_what_is_due,
    a_notice_makes_a_lease_due_before_its_end,
    a_lease_is_due_by_the_deadlines_of_the_server_that_runs,
    leases_that_use_renews_are_found_until_they_end,
    what_a_server_before_renewal_by_use_wrote_can_be_read,
    open_leases_are_those_not_closed,
    leases_that_are_not_closed_are_counted_as_they_are_now,
    reopening_keeps_everything,
    a_write_survives_the_caller_that_gave_it_up,
    a_write_that_fails_spoils_no_other,
}

async fn a_lease_is_read_as_it_was_admitted(database: Database) {
    let store = database.open().await;
    for lease in leases_of_every_kind() {
        let admitted = store.admit(&admission(lease.clone())).await.unwrap();
        assert_eq!(admitted, Admitted::New(lease.clone()));
        assert_eq!(store.get(lease.id).await.unwrap(), Some(lease));
    }
    assert_eq!(store.get(LeaseId::random()).await.unwrap(), None);
}

async fn a_changed_lease_is_read_as_it_was_changed(database: Database) {
    let store = database.open().await;
    let first = admit(&store, lease(ALICE)).await;
    // A lease ends once, so the last kinds are left out.
    let kinds = leases_of_every_kind().into_iter().take_while(|lease| lease.end.is_none());
    for (version, kind) in (2..).zip(kinds) {
        let wanted = Lease {
            id: first.id,
            owner: ALICE.to_owned(),
            namespace: first.namespace.clone(),
            version,
            ..kind
        };
        let change = |lease: &mut Lease| {
            lease.clone_from(&wanted);
            Ok::<_, Infallible>(((), Some(happening("Changed"))))
        };
        let ((), changed) = store.change(first.id, ALICE, start(), change).await.unwrap();
        assert_eq!(changed, wanted);
        assert_eq!(store.get(first.id).await.unwrap(), Some(wanted));
    }
}

async fn a_large_deployment_is_kept(database: Database) {
    let store = database.open().await;
    let deployment = json!({ "spec": { "template": "x".repeat(64 * 1024) } });
    let lease = admit(&store, Lease { deployment, ..lease(ALICE) }).await;
    assert_eq!(store.get(lease.id).await.unwrap(), Some(lease.clone()));
    let listed = store.list(&Filter::default(), &page(1)).await.unwrap();
    assert_eq!(listed.leases, [lease]);
}

async fn an_owner_and_labels_may_hold_any_letters(database: Database) {
    let store = database.open().await;
    let owners =
        ["Zoë", "o'brien; DROP TABLE leases", "用户/β", "e\u{301}", "é", "👩‍🚀", "\u{202e}evil", "%_$1", " "];
    for owner in owners {
        let labels = BTreeMap::from([(format!("k{owner}"), format!("{owner}=\u{1}\u{10ffff}"))]);
        let lease = admit(&store, labelled(lease(owner), labels.clone())).await;
        let filter = Filter { owner: Some(owner.to_owned()), labels, ..Filter::default() };
        let listed = store.list(&filter, &page(10)).await.unwrap();
        assert_eq!(listed.leases, [lease], "{owner:?}");
    }
}

async fn an_owner_gets_as_many_leases_as_allowed_and_no_more(database: Database) {
    let store = database.open_limited_to(7).await;
    let admissions: Vec<_> = (0..32).map(|_| admission(lease(ALICE))).collect();
    let answers = join_all(admissions.iter().map(|admission| store.admit(admission))).await;
    let (admitted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(admitted.len(), 7);
    assert_eq!(ids(&store, &Filter::default()).await.len(), 7);
    for answer in refused {
        assert_matches_too_many(answer.unwrap_err());
    }
    admit(&store, lease(BOB)).await;
}

async fn an_ended_lease_makes_room_for_another(database: Database) {
    let store = database.open_limited_to(1).await;
    let first = admit(&store, lease(ALICE)).await;
    assert_matches_too_many(store.admit(&admission(lease(ALICE))).await.unwrap_err());
    release(&store, first.id).await;
    let second = admit(&store, lease(ALICE)).await;
    // Closing, and releasing again, make no further room.
    release(&store, first.id).await;
    close(&store, first.id).await;
    assert_matches_too_many(store.admit(&admission(lease(ALICE))).await.unwrap_err());
    release(&store, second.id).await;
    admit(&store, lease(ALICE)).await;
}

async fn no_limit_is_no_limit(database: Database) {
    let store = database.open_limited_to(0).await;
    let admissions: Vec<_> = (0..40).map(|_| admission(lease(ALICE))).collect();
    for answer in join_all(admissions.iter().map(|admission| store.admit(admission))).await {
        answer.unwrap();
    }
}

async fn a_repeated_request_returns_the_first_lease_as_it_is_now(database: Database) {
    let store = database.open().await;
    let first = store.admit(&requested(lease(ALICE), "r1", "digest")).await.unwrap();
    let Admitted::New(first) = first else { panic!("the request is new") };
    let released = release(&store, first.id).await;
    let again = store.admit(&requested(lease(ALICE), "r1", "digest")).await.unwrap();
    assert_eq!(again, Admitted::Existing(released));
    assert_eq!(ids(&store, &Filter::default()).await, [first.id]);
}

async fn a_repeated_request_is_answered_though_its_owner_holds_all_that_one_may(database: Database) {
    let store = database.open_limited_to(1).await;
    let request = requested(lease(ALICE), "r1", "digest");
    store.admit(&request).await.unwrap();
    for _ in 0..3 {
        let again = store.admit(&requested(lease(ALICE), "r1", "digest")).await.unwrap();
        assert_eq!(again, Admitted::Existing(request.lease.clone()));
    }
    release(&store, request.lease.id).await;
    // Had a repetition been counted, there would be no room now.
    admit(&store, lease(ALICE)).await;
}

async fn a_request_id_with_other_content_is_refused(database: Database) {
    let store = database.open().await;
    let first = requested(lease(ALICE), "r1", "digest");
    store.admit(&first).await.unwrap();
    let error = store.admit(&requested(lease(ALICE), "r1", "other")).await.unwrap_err();
    let StoreError::RequestIdReused { owner, request_id, lease } = error else {
        panic!("not the error expected: {error}")
    };
    assert_eq!((owner.as_str(), request_id.as_str(), lease), (ALICE, "r1", first.lease.id));
    assert_eq!(ids(&store, &Filter::default()).await.len(), 1);
}

async fn a_request_id_belongs_to_one_owner(database: Database) {
    let store = database.open().await;
    for owner in [ALICE, BOB] {
        let admitted = store.admit(&requested(lease(owner), "r1", owner)).await.unwrap();
        assert!(matches!(admitted, Admitted::New(_)));
    }
}

async fn one_request_sent_many_times_at_once_admits_one_lease(database: Database) {
    let store = database.open().await;
    let requests: Vec<_> = (0..32).map(|_| requested(lease(ALICE), "r1", "digest")).collect();
    let answers = join_all(requests.iter().map(|request| store.admit(request))).await;
    let mut named = BTreeSet::new();
    let mut new = 0;
    for answer in answers {
        match answer.unwrap() {
            Admitted::New(lease) => {
                new += 1;
                named.insert(lease.id);
            }
            Admitted::Existing(lease) => {
                named.insert(lease.id);
            }
        }
    }
    assert_eq!((new, named.len()), (1, 1));
    assert_eq!(ids(&store, &Filter::default()).await.len(), 1);
}

async fn no_change_is_lost_among_many_at_once(database: Database) {
    const CALLERS: u32 = 16;
    const CHANGES: u32 = 4;
    let store = database.open().await;
    let id = admit(&store, lease(ALICE)).await.id;
    let caller = async || {
        for _ in 0..CHANGES {
            let change = |lease: &mut Lease| {
                lease.report.replicas.desired += 1;
                Ok::<_, Infallible>((lease.report.replicas.desired, Some(happening("Raised"))))
            };
            let (desired, lease) = store.change(id, SERVER, start(), change).await.unwrap();
            assert_eq!(desired, lease.report.replicas.desired);
        }
    };
    join_all((0..CALLERS).map(|_| caller())).await;
    let lease = store.get(id).await.unwrap().unwrap();
    assert_eq!(lease.report.replicas.desired, CALLERS * CHANGES);
    assert_eq!(lease.version, i64::from(CALLERS * CHANGES) + 1);
    let events = store.events(id, 0, 1000).await.unwrap();
    assert!(events.iter().map(|event| event.version).eq(1..=lease.version));
}

async fn a_change_of_nothing_writes_nothing(database: Database) {
    let store = database.open().await;
    let lease = admit(&store, lease(ALICE)).await;
    let mut changes = store.changes();
    let change = |lease: &mut Lease| {
        // Even what was changed on the copy stays there when nothing is said to have happened.
        lease.report.message = "noise".to_owned();
        Ok::<_, Infallible>((7, None))
    };
    let answer = store.change(lease.id, ALICE, start(), change).await.unwrap();
    assert_eq!(answer, (7, lease.clone()));
    assert_eq!(store.get(lease.id).await.unwrap(), Some(lease.clone()));
    assert_eq!(store.events(lease.id, 0, 10).await.unwrap().len(), 1);
    assert_eq!(announced(&mut changes), None);
}

async fn a_refused_change_writes_nothing(database: Database) {
    let store = database.open().await;
    let lease = admit(&store, lease(ALICE)).await;
    let change = |lease: &mut Lease| {
        lease.generation += 1;
        Err::<((), _), _>("no")
    };
    let error = store.change(lease.id, ALICE, start(), change).await.unwrap_err();
    assert!(matches!(error, ChangeError::Refused("no")));
    assert_eq!(store.get(lease.id).await.unwrap(), Some(lease));
}

async fn an_unknown_lease_cannot_be_changed(database: Database) {
    let store = database.open().await;
    let change = |_: &mut Lease| Ok::<_, Infallible>(((), Some(happening("Changed"))));
    let error = store.change(LeaseId::random(), ALICE, start(), change).await.unwrap_err();
    assert!(matches!(error, ChangeError::NotFound));
}

async fn each_version_has_its_event(database: Database) {
    let store = database.open().await;
    let lease = admit(&store, lease(ALICE)).await;
    set_phase(&store, lease.id, Phase::Loading).await;
    let later = start() + SignedDuration::from_mins(5);
    let released =
        store.change(lease.id, BOB, later, |lease| Ok::<_, Infallible>(((), lease.release(later)))).await;
    released.unwrap();

    let events = store.events(lease.id, 0, 10).await.unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.version, event.actor.as_str(), event.reason.as_str(), event.state))
        .collect();
    assert_eq!(
        told,
        [
            (1, ALICE, "Accepted", State::Pending),
            (2, SERVER, "StateChanged", State::Loading),
            (3, BOB, "Released", State::Released),
        ]
    );
    assert_eq!(events.iter().map(|event| event.generation).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(events[0].at, start());
    assert_eq!(events[1].message, "PENDING → LOADING");
    assert_eq!(events[2].at, later);
    assert!(events.iter().all(|event| event.lease_id == lease.id));

    assert_eq!(store.events(lease.id, 1, 1).await.unwrap(), events[1..2]);
    assert_eq!(store.events(lease.id, 3, 10).await.unwrap(), []);
    assert_eq!(store.recent_events(lease.id, 2).await.unwrap(), events[1..]);
    assert_eq!(store.recent_events(LeaseId::random(), 2).await.unwrap(), []);
}

async fn changes_are_announced_after_their_commit(database: Database) {
    let store = database.open().await;
    let mut changes = store.changes();
    let lease = admit(&store, lease(ALICE)).await;
    let change = announced(&mut changes).unwrap();
    assert_eq!((change.id, change.owner.as_str(), change.version), (lease.id, ALICE, 1));
    release(&store, lease.id).await;
    let change = announced(&mut changes).unwrap();
    let stored = store.get(change.id).await.unwrap().unwrap();
    assert_eq!((stored.version, change.version), (2, 2));
}

/// Returns the change of this store's own that was announced next, if one was.
fn announced(changes: &mut broadcast::Receiver<Announcement>) -> Option<Changed> {
    loop {
        match changes.try_recv().ok()? {
            Announcement::Ours(change) => return Some(change),
            // Another store may be heard of, or begin to be.
            Announcement::Theirs(_) | Announcement::Missed => {}
        }
    }
}

async fn a_prefix_finds_one_lease_none_or_several(database: Database) {
    let store = database.open().await;
    let id = |text: &str| -> LeaseId { format!("{text:0<32}").parse().unwrap() };
    for (owner, digits) in [(ALICE, "a1"), (ALICE, "a2"), (BOB, "a3"), (BOB, "ff"), (BOB, "00")] {
        admit(&store, Lease { id: id(digits), ..lease(owner) }).await;
    }
    for digits in ["b1", "b2", "b3", "b4", "b5", "b6", "b7"] {
        admit(&store, Lease { id: id(digits), ..lease(ALICE) }).await;
    }
    let cases: [(Option<&str>, &str, &[&str]); 13] = [
        (None, "a1", &["a1"]),
        (None, "A1", &["a1"]),
        (None, "ff", &["ff"]),
        (None, "0", &["00"]),
        (None, &id("a3").to_string(), &["a3"]),
        (Some(BOB), "a", &["a3"]),
        (Some(ALICE), "a", &["a1", "a2"]),
        (None, "b", &["b1", "b2", "b3", "b4", "b5"]),
        (None, "c", &[]),
        (None, "a1%", &[]),
        (None, "a\0", &[]),
        (Some("carol"), "a", &[]),
        (Some(BOB), "", &["00", "a3", "ff"]),
    ];
    for (owner, prefix, expected) in cases {
        let found: Vec<_> = match store.find(owner, prefix).await.unwrap() {
            Found::One(lease) => vec![lease.id],
            Found::None => vec![],
            Found::Many(ids) => {
                assert!(ids.len() > 1);
                ids
            }
        };
        let expected: Vec<_> = expected.iter().map(|digits| id(digits)).collect();
        assert_eq!(found, expected, "{owner:?} {prefix:?}");
    }
}

async fn a_list_is_filtered(database: Database) {
    let store = database.open().await;
    let gpu = || labels(&[("team", "vision"), ("tier", "gpu")]);
    let first = admit(&store, Lease { created_at: at(1), ..labelled(lease(ALICE), gpu()) }).await.id;
    let second = admit(&store, Lease { created_at: at(2), ..lease(ALICE) }).await.id;
    let third = admit(&store, Lease { created_at: at(3), ..labelled(lease(BOB), gpu()) }).await.id;
    set_phase(&store, first, Phase::Ready).await;
    release(&store, second).await;
    close(&store, second).await;

    let owner = |owner: &str| Filter { owner: Some(owner.to_owned()), ..Filter::default() };
    let states = |states: &[State]| Filter { states: states.to_vec(), ..Filter::default() };
    let labelled = |pairs: &[(&str, &str)]| Filter { labels: labels(pairs), ..Filter::default() };
    let prefix = |prefix: &str| Filter { id_prefix: Some(prefix.to_owned()), ..Filter::default() };
    let since = |minutes| Filter { created_since: Some(at(minutes)), ..Filter::default() };
    let open = Filter { is_open: true, ..Filter::default() };
    let cases: [(Filter, &[LeaseId]); 16] = [
        (Filter::default(), &[third, second, first]),
        (owner(ALICE), &[second, first]),
        (owner("Alice"), &[]),
        (states(&[State::Ready]), &[first]),
        (states(&[State::Released, State::Pending]), &[third, second]),
        (labelled(&[("team", "vision")]), &[third, first]),
        (labelled(&[("team", "vision"), ("tier", "gpu")]), &[third, first]),
        (labelled(&[("team", "vision"), ("tier", "cpu")]), &[]),
        (labelled(&[("team", "")]), &[]),
        (prefix(&second.to_string()), &[second]),
        (prefix("not a prefix"), &[]),
        (since(2), &[third, second]),
        (since(4), &[]),
        (open.clone(), &[third, first]),
        (Filter { owner: Some(ALICE.to_owned()), ..open }, &[first]),
        (
            Filter {
                owner: Some(ALICE.to_owned()),
                states: State::ALL.to_vec(),
                labels: gpu(),
                id_prefix: Some(first.to_string()[..12].to_owned()),
                created_since: Some(at(1)),
                is_open: true,
            },
            &[first],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(&store, &filter).await, expected, "{filter:?}");
    }
}

async fn labels_are_filtered_as_they_are_after_an_update(database: Database) {
    let store = database.open().await;
    let lease = admit(&store, labelled(lease(ALICE), labels(&[("a", "1"), ("b", "2")]))).await;
    let update = Update { labels: Some(labels(&[("b", "3"), ("c", "4")])), ..Update::default() };
    let change = |lease: &mut Lease| lease.update(&update, start()).map(|happened| ((), happened));
    store.change(lease.id, ALICE, start(), change).await.unwrap();
    let cases = [(("a", "1"), false), (("b", "2"), false), (("b", "3"), true), (("c", "4"), true)];
    for (label, is_found) in cases {
        let filter = Filter { labels: labels(&[label]), ..Filter::default() };
        assert_eq!(!ids(&store, &filter).await.is_empty(), is_found, "{label:?}");
    }
}

async fn pages_lose_and_repeat_nothing_while_leases_are_added(database: Database) {
    let store = database.open().await;
    let mut expected = Vec::new();
    // Several leases of one moment lie across the border of a page.
    for number in 0..25 {
        expected.push(admit(&store, Lease { created_at: at(number / 4), ..lease(ALICE) }).await.id);
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let listed = store.list(&Filter::default(), &Page { size: 4, after }).await.unwrap();
        assert!(listed.leases.len() <= 4);
        seen.extend(listed.leases.iter().map(|lease| (lease.created_at, lease.id)));
        admit(&store, Lease { created_at: at(100), ..lease(ALICE) }).await;
        let Some(next) = listed.next else { break };
        after = Some(next.to_string().parse().unwrap());
    }
    assert!(seen.is_sorted_by(|one, next| one > next), "newest first, each once");
    let seen: BTreeSet<_> = seen.into_iter().map(|(_, id)| id).collect();
    assert_eq!(seen, expected.into_iter().collect());
}

async fn the_clock_finds_what_is_due(database: Database) {
    let store = database.open().await;
    assert_eq!(store.next_due().await.unwrap(), None);
    let ends_at = |minutes| Lease { expires_at: at(minutes), ..lease(ALICE) };
    let ready = admit(&store, ends_at(50)).await.id;
    let loading = admit(&store, ends_at(60)).await.id;
    let short = admit(&store, ends_at(10)).await.id;
    let released = admit(&store, ends_at(5)).await.id;
    set_phase(&store, ready, Phase::Ready).await;
    release(&store, released).await;

    assert_eq!(store.next_due().await.unwrap(), Some(at(10)));
    let just_before = at(10) - SignedDuration::from_micros(1);
    assert_eq!(store.due(just_before, 10).await.unwrap(), []);
    assert_eq!(store.due(at(10), 10).await.unwrap(), [short]);
    // The load timeout of 30 minutes comes before the end of the lease that is loading.
    assert_eq!(store.due(at(30), 10).await.unwrap(), [short, loading]);
    assert_eq!(store.due(at(100), 10).await.unwrap(), [short, loading, ready]);
    assert_eq!(store.due(at(100), 2).await.unwrap(), [short, loading]);
    release(&store, short).await;
    assert_eq!(store.next_due().await.unwrap(), Some(at(30)));
}

async fn a_notice_makes_a_lease_due_before_its_end(database: Database) {
    let notices = vec![SignedDuration::from_mins(2), SignedDuration::from_mins(5)];
    let options = Options {
        deadlines: Deadlines { notices: notices.clone(), ..deadlines() },
        ..database.options.clone()
    };
    let store = Store::open(&options, &Clock::manual(start())).await.unwrap();
    let id = admit(&store, Lease { expires_at: at(20), ..lease(ALICE) }).await.id;
    let notice = async |minute| {
        let notice = |lease: &mut Lease| Ok::<_, Infallible>(((), lease.notice(&notices, at(minute))));
        store.change(id, SERVER, at(minute), notice).await.unwrap();
        store.next_due().await.unwrap()
    };
    assert_eq!(store.next_due().await.unwrap(), Some(at(15)));
    assert_eq!(store.due(at(15), 10).await.unwrap(), [id]);
    assert_eq!(notice(15).await, Some(at(18)));
    assert_eq!(notice(18).await, Some(at(20)), "only the end is left");
}

/// Both when a server starts, and when another one with other deadlines has written meanwhile.
async fn a_lease_is_due_by_the_deadlines_of_the_server_that_runs(database: Database) {
    let with = |load_timeout, notices: &[i64]| Options {
        deadlines: Deadlines {
            load_timeout: SignedDuration::from_mins(load_timeout),
            notices: notices.iter().copied().map(SignedDuration::from_mins).collect(),
        },
        ..database.options.clone()
    };
    let open = async |options| Store::open(&options, &Clock::manual(start())).await.unwrap();
    let store = open(with(30, &[])).await;
    let loading = admit(&store, Lease { expires_at: at(100), ..lease(ALICE) }).await.id;
    let ready = admit(&store, Lease { expires_at: at(50), ..lease(ALICE) }).await.id;
    let ended = admit(&store, lease(ALICE)).await.id;
    let unreadable = admit(&store, Lease { owner: BOB.to_owned(), ..lease(ALICE) }).await.id;
    let before = set_phase(&store, ready, Phase::Ready).await;
    release(&store, ended).await;
    database.run("UPDATE leases SET spec = 'x' WHERE owner = 'bob'").await;
    drop(store);

    let store = open(with(20, &[5])).await;
    assert_eq!(store.due(at(20), 10).await.unwrap(), [loading]);
    assert_eq!(store.due(at(45), 10).await.unwrap(), [loading, unreadable, ready]);
    drop(store);
    let store = open(with(40, &[])).await;
    assert_eq!(store.due(at(45), 10).await.unwrap(), [unreadable, loading]);
    assert_eq!(store.due(at(500), 10).await.unwrap().len(), 3, "what has ended is never due");
    assert_eq!(store.get(ready).await.unwrap(), Some(before.clone()), "it has not changed");
    assert_eq!(store.events(ready, before.version, 10).await.unwrap(), []);

    database.run("UPDATE leases SET due_at = 0 WHERE phase = 'READY'").await;
    assert_eq!(store.next_due().await.unwrap(), Some(Timestamp::UNIX_EPOCH));
    store.correct_due(&Lease { version: 1, ..before.clone() }, at(10)).await.unwrap();
    assert_eq!(store.next_due().await.unwrap(), Some(Timestamp::UNIX_EPOCH), "somebody else changed it");
    store.correct_due(&before, at(10)).await.unwrap();
    assert_eq!(store.due(at(49), 10).await.unwrap(), [unreadable, loading]);
    assert_eq!(store.due(at(50), 10).await.unwrap(), [unreadable, loading, ready]);
}

async fn leases_that_use_renews_are_found_until_they_end(database: Database) {
    let store = database.open().await;
    let used = || {
        let mut lease = lease(ALICE);
        lease.spec.automatic_renewal = Some(AutomaticRenewal { idle_window: SignedDuration::from_mins(30) });
        lease
    };
    admit(&store, lease(ALICE)).await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(admit(&store, used()).await);
    }
    release(&store, expected.pop().unwrap().id).await;
    let mut expected: Vec<_> = expected.iter().map(|lease| lease.id).collect();
    expected.sort();
    let (first, rest) = expected.split_at(3);
    // One that cannot be read hides no other.
    database.run("UPDATE leases SET spec = 'x'").await;
    assert_eq!(store.renewed_by_use(None, 3).await.unwrap(), first);
    assert_eq!(store.renewed_by_use(Some(first[2]), 3).await.unwrap(), rest);
}

/// A server that does not know the columns of `0002_use` leaves them empty, and keeps what is in them.
async fn what_a_server_before_renewal_by_use_wrote_can_be_read(database: Database) {
    let store = database.open().await;
    let id = admit(&store, lease(ALICE)).await.id;
    database.run("UPDATE leases SET renewed_at = NULL, noticed_until = NULL, last_used_at = NULL").await;
    let read = store.get(id).await.unwrap().unwrap();
    assert_eq!((read.tenure, read.spec.automatic_renewal), (Tenure::starting(read.created_at), None));
}

async fn open_leases_are_those_not_closed(database: Database) {
    let store = database.open().await;
    let mut open = Vec::new();
    for _ in 0..7 {
        open.push(admit(&store, lease(ALICE)).await.id);
    }
    let closed = admit(&store, lease(ALICE)).await.id;
    release(&store, closed).await;
    release(&store, open[0]).await;
    assert_eq!(store.is_open(&[closed]).await.unwrap(), BTreeSet::from([closed]));
    close(&store, closed).await;

    let unknown: Vec<_> = (0..1200).map(|_| LeaseId::random()).collect();
    let asked: Vec<_> = unknown.into_iter().chain(open.iter().copied()).chain([closed]).collect();
    assert_eq!(store.is_open(&asked).await.unwrap(), open.iter().copied().collect());
    assert_eq!(store.is_open(&[]).await.unwrap(), BTreeSet::new());

    open.sort();
    assert_eq!(store.open_ids(None, 100).await.unwrap(), open);
    assert_eq!(store.open_ids(None, 3).await.unwrap(), open[..3]);
    assert_eq!(store.open_ids(Some(open[2]), 100).await.unwrap(), open[3..]);
}

async fn leases_that_are_not_closed_are_counted_as_they_are_now(database: Database) {
    let store = database.open().await;
    let mut sizes = Sizes::default();
    let of_gpus = |gpus, replicas| {
        let mut lease = lease(ALICE);
        lease.spec.triton.gpus = gpus;
        lease.spec.scaling = Scaling::Fixed { replicas };
        lease
    };
    let (one, other) = (admit(&store, of_gpus(2, 3)).await, admit(&store, of_gpus(1, 1)).await);
    for lease in [&one, &other] {
        set_phase(&store, lease.id, Phase::Ready).await;
    }
    let count = async |sizes: &mut Sizes| {
        let census = store.census(sizes, start()).await.unwrap();
        (census.states, census.gpus_reserved)
    };
    assert_eq!(count(&mut sizes).await, ([("READY", 2)].into(), 7));

    // A new generation has another size, and one that has ended none, until it is closed and not there at all.
    let grow = |lease: &mut Lease| {
        lease.spec.scaling = Scaling::Fixed { replicas: 5 };
        lease.generation += 1;
        Ok::<_, Infallible>(((), Some(happening("Updated"))))
    };
    store.change(one.id, ALICE, start(), grow).await.unwrap();
    release(&store, other.id).await;
    assert_eq!(count(&mut sizes).await, ([("READY", 1), ("RELEASED", 1)].into(), 10));
    close(&store, other.id).await;
    assert_eq!(count(&mut sizes).await, ([("READY", 1)].into(), 10));
}

async fn reopening_keeps_everything(database: Database) {
    let store = database.open().await;
    let installation = store.installation().to_owned();
    assert_eq!(installation.len(), 32);
    let lease = admit(&store, lease(ALICE)).await;
    let released = release(&store, lease.id).await;
    let events = store.events(lease.id, 0, 10).await.unwrap();
    drop(store);
    // The migrations run a second time.
    let store = database.open().await;
    assert_eq!(store.installation(), installation);
    assert_eq!(store.get(lease.id).await.unwrap(), Some(released));
    assert_eq!(store.events(lease.id, 0, 10).await.unwrap(), events);
}

async fn a_write_survives_the_caller_that_gave_it_up(database: Database) {
    let store = database.open().await;
    let mut changes = store.changes();
    let admission = admission(lease(ALICE));
    {
        let mut admitting = std::pin::pin!(store.admit(&admission));
        // Polled once, so that the write is handed over, and dropped.
        assert!(futures::poll!(&mut admitting).is_pending());
    }
    let change = until("the write is done", 10, || std::future::ready(announced(&mut changes))).await;
    assert_eq!(change.id, admission.lease.id);
    assert!(store.get(admission.lease.id).await.unwrap().is_some());
}

async fn a_write_that_fails_spoils_no_other(database: Database) {
    let store = database.open_limited_to(16).await;
    let taken = admit(&store, lease(BOB)).await.id;
    let admissions: Vec<_> = (0..24)
        .map(|number| {
            let lease = lease(ALICE);
            admission(if number % 3 == 0 { Lease { id: taken, ..lease } } else { lease })
        })
        .collect();
    let answers = join_all(admissions.iter().map(|admission| store.admit(admission))).await;
    for (number, answer) in answers.into_iter().enumerate() {
        let is_as_expected = match answer {
            Ok(Admitted::New(lease)) => lease.id != taken,
            // One that comes last may find no place any more.
            Err(_) => number % 3 == 0,
            Ok(Admitted::Existing(_)) => false,
        };
        assert!(is_as_expected, "admission {number}");
    }
    // Those that failed were not counted.
    let alices = Filter { owner: Some(ALICE.to_owned()), ..Filter::default() };
    assert_eq!(ids(&store, &alices).await.len(), 16);
    assert_matches_too_many(store.admit(&admission(lease(ALICE))).await.unwrap_err());
}

#[tokio::test]
async fn a_sqlite_file_is_refused_to_a_second_server() {
    let database = Database::sqlite();
    let first = database.open().await;
    let error = Store::open(&database.options, &Clock::system()).await.unwrap_err();
    let file = database.options.url.trim_start_matches("sqlite:");
    let expected = format!("{file} is in use by another server; several servers need PostgreSQL");
    assert_eq!(error.to_string(), expected);
    drop(first);
    database.open().await;
}

#[tokio::test]
async fn a_url_that_names_no_database_is_refused() {
    for url in ["", "mysql://host/db", "sqlite::memory:", "/var/lib/tms.db"] {
        let options = Options { url: url.to_owned(), ..Database::sqlite().options };
        let error = Store::open(&options, &Clock::system()).await.unwrap_err();
        assert!(matches!(error, StoreError::Url(_)), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn several_servers_share_one_postgres() {
    let Some(database) = Database::postgres().await else { return };
    let stores = join_all((0..4).map(|_| database.open_limited_to(5))).await;
    assert!(stores.iter().all(|store| store.installation() == stores[0].installation()));
    let admissions: Vec<_> = (0..24).map(|_| admission(lease(ALICE))).collect();
    let answers = join_all(
        admissions.iter().zip(stores.iter().cycle()).map(|(admission, store)| store.admit(admission)),
    );
    assert_eq!(answers.await.into_iter().filter(Result::is_ok).count(), 5);
}

#[tokio::test]
async fn the_clock_follows_postgres() {
    let Some(database) = Database::postgres().await else { return };
    let clock = Clock::system();
    let wrong = system_now() + SignedDuration::from_hours(1);
    clock.follow(wrong, system_now());
    let store = Store::open(&database.options, &clock).await.unwrap();
    // The server is on this machine, so following it leads back to this machine's time.
    let offset = clock.now().duration_since(system_now()).abs();
    assert!(offset < SignedDuration::from_secs(5), "{offset:#}");
    store.follow_clock(&clock).await.unwrap();
}

#[test]
fn a_cursor_is_read_from_its_text_alone() {
    let id = "0123456789abcdef0123456789abcdef";
    let cursor: Cursor = format!("-17-{id}").parse().unwrap();
    assert_eq!(cursor.to_string(), format!("-17-{id}"));
    for text in ["", "17", id, &format!("x-{id}"), &format!("99999999999999999999-{id}")] {
        assert!(text.parse::<Cursor>().is_err(), "{text:?}");
    }
}

/// A database of one test.
struct Database {
    options: Options,
    _folder: Option<TempDir>,
}

impl Database {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("new/tms.db").display());
        Self { options: options(url), _folder: Some(folder) }
    }

    async fn postgres() -> Option<Self> {
        let url = postgres::database().await?;
        Some(Self { options: options(url), _folder: None })
    }

    async fn open(&self) -> Store {
        self.open_limited_to(0).await
    }

    /// Runs a statement as another program would.
    async fn run(&self, statement: &'static str) {
        if self.options.url.starts_with("sqlite:") {
            let pool = sqlx::SqlitePool::connect(&self.options.url).await.unwrap();
            sqlx::query(statement).execute(&pool).await.unwrap();
        } else {
            let pool = sqlx::PgPool::connect(&self.options.url).await.unwrap();
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
    }

    async fn open_limited_to(&self, maximum_per_owner: u32) -> Store {
        let options = Options { maximum_per_owner, ..self.options.clone() };
        Store::open(&options, &Clock::manual(start())).await.unwrap()
    }
}

fn options(url: String) -> Options {
    Options { url, password: None, deadlines: deadlines(), maximum_per_owner: 0 }
}

fn start() -> Timestamp {
    "2026-03-01T12:00:00.123456Z".parse().unwrap()
}

fn at(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

fn happening(reason: &'static str) -> Happening {
    Happening { reason, message: String::new() }
}

fn page(size: u32) -> Page {
    Page { size, after: None }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn labelled(mut lease: Lease, labels: BTreeMap<String, String>) -> Lease {
    lease.spec.labels = labels;
    lease
}

fn admission(lease: Lease) -> Admission {
    let actor = lease.owner.clone();
    Admission { lease, request: None, actor, event: happening("Accepted") }
}

fn requested(lease: Lease, id: &str, digest: &str) -> Admission {
    let request = RequestKey { id: id.to_owned(), digest: digest.to_owned() };
    Admission { request: Some(request), ..admission(lease) }
}

async fn admit(store: &Store, lease: Lease) -> Lease {
    match store.admit(&admission(lease)).await.unwrap() {
        Admitted::New(lease) => lease,
        Admitted::Existing(lease) => panic!("{} exists", lease.id),
    }
}

async fn release(store: &Store, id: LeaseId) -> Lease {
    let release = |lease: &mut Lease| Ok::<_, Infallible>(((), lease.release(start())));
    store.change(id, ALICE, start(), release).await.unwrap().1
}

async fn close(store: &Store, id: LeaseId) -> Lease {
    let close = |lease: &mut Lease| Ok::<_, Infallible>(((), lease.close(start())));
    store.change(id, SERVER, start(), close).await.unwrap().1
}

async fn set_phase(store: &Store, id: LeaseId, phase: Phase) -> Lease {
    let observe = |lease: &mut Lease| {
        let first_ready_at = (phase == Phase::Ready).then(start);
        let report = Report { phase, first_ready_at, ..lease.report.clone() };
        Ok::<_, Infallible>(((), lease.observe(report)))
    };
    store.change(id, SERVER, start(), observe).await.unwrap().1
}

async fn ids(store: &Store, filter: &Filter) -> Vec<LeaseId> {
    let listed = store.list(filter, &page(1000)).await.unwrap();
    assert_eq!(listed.next, None);
    listed.leases.iter().map(|lease| lease.id).collect()
}

#[track_caller]
fn assert_matches_too_many(error: StoreError) {
    assert!(
        matches!(&error, StoreError::TooManyLeases { owner, .. } if owner == ALICE),
        "not the error expected: {error}"
    );
}

fn lease(owner: &str) -> Lease {
    Lease {
        id: LeaseId::random(),
        owner: owner.to_owned(),
        namespace: "default".to_owned(),
        placement: Placement::Bespoke,
        spec: Spec {
            models: vec![Model { name: "bert".to_owned(), uri: "file:///models/bert".to_owned() }],
            triton: Triton {
                image: "triton:25.01".to_owned(),
                gpus: 1,
                gpu_resource: "nvidia.com/gpu".to_owned(),
                cpu: "4".to_owned(),
                memory: "16Gi".to_owned(),
                shared_memory: "256Mi".to_owned(),
                environment: BTreeMap::new(),
                node_selector: BTreeMap::new(),
                tolerations: Vec::new(),
                affinity: None,
            },
            scaling: Scaling::Fixed { replicas: 1 },
            lifetime: SignedDuration::from_hours(1),
            labels: BTreeMap::new(),
            automatic_renewal: None,
        },
        deployment: json!({ "kind": "Deployment" }),
        created_at: start(),
        expires_at: at(60),
        tenure: Tenure::starting(start()),
        waking_since: None,
        end: None,
        generation: 1,
        version: 1,
        report: Report::nothing_seen(["bert"]),
    }
}

/// Leases that between them hold every kind of value; those that have ended come last.
fn leases_of_every_kind() -> Vec<Lease> {
    let phases = [
        Phase::Pending,
        Phase::Provisioning,
        Phase::Loading,
        Phase::Ready,
        Phase::Degraded,
        Phase::Asleep,
        Phase::Written,
    ];
    let reasons = [EndReason::Released, EndReason::Expired, EndReason::Invalid];
    let running = phases.map(|phase| {
        let mut lease = full_lease();
        lease.report.phase = phase;
        lease
    });
    let ended = reasons.map(|reason| {
        let mut lease = full_lease();
        lease.end = Some(End { at: at(3), reason });
        lease.report.closed_at = Some(at(4));
        lease
    });
    [lease(ALICE)].into_iter().chain(running).chain(ended).collect()
}

fn full_lease() -> Lease {
    let model_states = [
        ModelState::Pending,
        ModelState::Downloading,
        ModelState::Loading,
        ModelState::Ready,
        ModelState::Failed,
        ModelState::Unloaded,
    ];
    let policies = |kind| vec![ScalingPolicy { kind, value: 3, period_seconds: 60 }];
    let rules = |select_policy, kind, tolerance_milli| ScalingRules {
        stabilization_window_seconds: 300,
        select_policy,
        policies: policies(kind),
        tolerance_milli,
    };
    let mut lease = lease("zoë@example.org");
    lease.namespace = "gpu".to_owned();
    lease.expires_at = "9999-12-30T22:00:00.999999Z".parse().unwrap();
    lease.generation = 41;
    lease.tenure = Tenure { renewed_at: at(1), noticed_until: at(2), last_used_at: Some(at(3)) };
    lease.waking_since = Some(at(4));
    lease.spec = Spec {
        models: vec![
            Model { name: "b".to_owned(), uri: "s3://bucket/b?x='\"\\".to_owned() },
            Model { name: "a".to_owned(), uri: "file:///models/ä".to_owned() },
        ],
        triton: Triton {
            environment: labels(&[("LANG", "C\nD"), ("EMPTY", "")]),
            node_selector: labels(&[("zone", "a")]),
            tolerations: vec![Toleration {
                key: "gpu".to_owned(),
                operator: "Equal".to_owned(),
                value: "yes".to_owned(),
                effect: "NoExecute".to_owned(),
                toleration_seconds: Some(-1),
            }],
            affinity: Some(json!({ "nodeAffinity": { "weights": [1, 2.5, null, "\u{0}"] } })),
            ..lease.spec.triton
        },
        scaling: Scaling::Auto(Autoscaling {
            minimum: 0,
            maximum: u32::MAX,
            metrics: MetricName::ALL.into_iter().zip(0..).collect(),
            behavior: Behavior {
                scale_up: rules(SelectPolicy::Max, PolicyKind::Pods, Some(50)),
                scale_down: rules(SelectPolicy::Disabled, PolicyKind::Percent, None),
            },
            triggers: vec![Trigger {
                kind: "orders".to_owned(),
                trigger_type: "rabbitmq".to_owned(),
                metric_type: TriggerMetric::Value,
                authentication: Some(TriggerAuthentication {
                    kind: AuthenticationKind::ClusterTriggerAuthentication,
                    name: "rabbitmq".to_owned(),
                }),
                fixed: labels(&[("mode", "QueueLength")]),
                metadata: labels(&[("queueName", "\u{0}"), ("", "")]),
            }],
        }),
        lifetime: SignedDuration::new(3600, 1),
        labels: labels(&[("team", "vision"), ("", "")]),
        automatic_renewal: Some(AutomaticRenewal { idle_window: SignedDuration::from_micros(1_800_000_001) }),
    };
    lease.deployment = json!({ "kind": "Deployment", "spec": { "template": [1, -2, true, null, "\u{0}"] } });
    lease.report = Report {
        phase: Phase::Ready,
        message: "0/3 nodes: 'insufficient' nvidia.com/gpu\n— ⚠".to_owned(),
        replicas: Replicas { desired: u32::MAX, current: 2, ready: 1 },
        models: model_states
            .map(|state| ModelReport {
                downloaded_bytes: Some(u64::MAX),
                ..ModelReport::new("b", state, "\u{0}why")
            })
            .to_vec(),
        first_ready_at: Some("1969-12-31T23:59:59.999999Z".parse().unwrap()),
        closed_at: None,
    };
    lease
}
