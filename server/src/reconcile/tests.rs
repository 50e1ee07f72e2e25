//! Passes that hang or are cut short.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use tokio::time::timeout;

use super::*;
use crate::cluster::{Act, ActError, Inspect, Measure, Observe};
use crate::domain::autoscaler::explanation::Evidence;
use crate::domain::capabilities::Capabilities;
use crate::domain::doctor::evidence::Evidence as Chain;
use crate::domain::lease::{Happening, Lease};
use crate::domain::observed::Observed;
use crate::domain::plan::Plan;
use crate::domain::plan::tests::settings;
use crate::domain::usage::Served;

/// A cluster that holds objects of any lease, and never answers.
#[derive(Default)]
struct Silent {
    /// Deletes that nobody answers.
    asked: Notify,
}

impl Observe for Silent {
    fn observe(&self, _: &Lease, _: &Plan) -> Observed {
        unreachable!("there is no lease")
    }

    fn seen(&self) -> BTreeSet<LeaseId> {
        BTreeSet::new()
    }

    fn sight(&self) -> Sight {
        Sight::Full
    }

    fn listed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn has_objects(&self, _: LeaseId) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::unknown()
    }
}

impl Measure for Silent {
    fn served(&self, _: LeaseId) -> BoxFuture<'_, Vec<Served>> {
        Box::pin(std::future::pending())
    }

    fn follow_progress(&self, _: bool) {}
}

impl Inspect for Silent {
    fn autoscaler<'a>(&'a self, _: &'a Lease) -> BoxFuture<'a, Option<Evidence>> {
        Box::pin(std::future::ready(None))
    }

    fn chain<'a>(&'a self, _: Option<&'a Lease>, _: bool) -> BoxFuture<'a, Option<Chain>> {
        Box::pin(std::future::ready(None))
    }
}

impl Act for Silent {
    fn apply<'a>(&'a self, _: &'a Lease, _: &'a Plan) -> BoxFuture<'a, Result<(), ActError>> {
        Box::pin(std::future::pending())
    }

    fn delete(&self, _: LeaseId) -> BoxFuture<'_, Result<(), ActError>> {
        self.asked.notify_one();
        Box::pin(std::future::pending())
    }

    fn forget(&self, _: LeaseId) {}

    fn announce(&self, _: &Lease, _: &Happening) {}

    fn refresh(&self) -> BoxFuture<'_, Result<bool, ActError>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// A reconciler of a new database, whose set of leases is open.
async fn reconciler(folder: &tempfile::TempDir, cluster: Arc<Silent>) -> Arc<Reconciler> {
    let deadlines = Deadlines { load_timeout: SignedDuration::from_mins(30), notices: Vec::new() };
    let options = crate::store::Options {
        url: format!("sqlite://{}", folder.path().join("tms.db").display()),
        password: None,
        deadlines: deadlines.clone(),
        maximum_per_owner: 0,
    };
    let clock = Clock::system();
    let store = Store::open(&options, &clock).await.unwrap();
    let options = Options {
        plan: settings(),
        deadlines,
        renewal: None,
        metrics: Arc::new(Metrics::new()),
        passes: 1,
        sweep_interval: Duration::from_secs(300),
    };
    let waker = Waker::default();
    waker.0.open(true);
    Reconciler::new(store, cluster, clock, waker, options)
}

#[tokio::test]
async fn a_pass_that_hangs_is_given_up_with_the_lead_and_taken_by_who_leads_next() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Arc::new(Silent::default());
    let reconciler = reconciler(&folder, Arc::clone(&cluster)).await;
    let term = reconciler.store.lead().await.term();
    let id = LeaseId::random();
    for _ in 0..2 {
        reconciler.waker.0.open(true);
        reconciler.waker.wake(id);
        let over = CancellationToken::new();
        let passes = tokio::spawn(Arc::clone(&reconciler).take_passes(term.clone(), over));
        timeout(Duration::from_secs(10), cluster.asked.notified()).await.expect("the pass asks the cluster");
        passes.abort();
        let _ = passes.await;
        let is_over = async {
            while !reconciler.waker.is_idle() {
                reconciler.waker.0.open(false);
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), is_over).await.expect("the pass is given up");
    }
}

#[tokio::test]
async fn a_pass_that_is_cut_short_by_the_end_of_a_term_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let reconciler = reconciler(&folder, Arc::default()).await;
    let outcome = reconciler.pass(LeaseId::random(), &Term::lapsed()).await;
    assert!(matches!(outcome, Err(PassError::Lapsed)), "{outcome:?}");
}
