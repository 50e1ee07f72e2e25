//! Watches: one for each kind of object and one for pods, each keeping the cache fresh and waking leases.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;

use super::cache::{Cache, Key, Subject};
use super::live::Stamp;
use super::progress::Followers;
use crate::domain::lease::LeaseId;
use crate::domain::plan::INSTALLATION_LABEL;

/// How far the first list of a watch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// Under way.
    NotYet,
    /// Not possible, for this reason.
    Failing(String),
    /// Complete.
    Complete,
}

/// Objects of one page of a list. Parsed, an object takes many times the room of its text, and a page is held at once.
const PAGE: u32 = 20;

/// Who is told that a lease needs a look.
pub type Wake = Arc<dyn Fn(LeaseId) + Send + Sync>;

/// Who is told of what a watch shows.
pub(super) struct Told {
    pub cache: Arc<Cache>,
    pub followers: Arc<Followers>,
    pub wake: Wake,
}

impl Told {
    fn keep(&self, subject: Subject, object: DynamicObject) -> Option<Key> {
        let (key, is_news) = self.cache.keep(subject, object)?;
        self.follow(&key);
        if is_news {
            (self.wake)(key.0);
        }
        Some(key)
    }

    fn forget(&self, key: &Key, gone: Option<&Stamp>) {
        self.cache.forget(key, gone);
        self.follow(key);
        (self.wake)(key.0);
    }

    fn follow(&self, key: &Key) {
        if key.1 == Subject::Pods {
            self.followers.look(key);
        }
    }
}

/// Follows everything of a subject that carries our installation's label, for ever. Says through `listed` that the
/// first list is complete.
pub(super) async fn follow(
    subject: Subject,
    api: Api<DynamicObject>,
    installation: String,
    told: Told,
    listed: watch::Sender<Listed>,
) {
    let config =
        watcher::Config::default().labels(&format!("{INSTALLATION_LABEL}={installation}")).page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut fresh: BTreeSet<Key> = BTreeSet::new();
    let mut is_broken = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if std::mem::take(&mut is_broken) {
                    tracing::info!(?subject, "the watch works again");
                }
                note(event, subject, &told, &mut fresh, &listed);
            }
            Err(error) => {
                if *listed.borrow() != Listed::Complete {
                    listed.send_replace(Listed::Failing(format!("{subject:?} cannot be watched: {error}")));
                }
                if !std::mem::replace(&mut is_broken, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(?subject, error, "the watch is interrupted");
                }
            }
        }
    }
}

fn note(
    event: Event<DynamicObject>,
    subject: Subject,
    told: &Told,
    fresh: &mut BTreeSet<Key>,
    listed: &watch::Sender<Listed>,
) {
    match event {
        Event::Init => fresh.clear(),
        Event::InitApply(object) => {
            if let Some(key) = told.keep(subject, object) {
                fresh.insert(key);
            }
        }
        Event::InitDone => {
            for key in told.cache.keys(subject).difference(fresh) {
                told.forget(key, None);
            }
            fresh.clear();
            listed.send_replace(Listed::Complete);
        }
        Event::Apply(object) => {
            told.keep(subject, object);
        }
        Event::Delete(object) => {
            if let Some(key) = told.cache.key(subject, &object) {
                told.forget(&key, Some(&Stamp::read(&object)));
            }
        }
    }
}
