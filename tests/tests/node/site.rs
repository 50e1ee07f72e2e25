//! Where the models of these tests are downloaded from: a web server beside the pods.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tms_tests::models::Model;
use tms_tests::postgres::NODE;
use tms_tests::site::{Asked, Site, answer, file};
use tokio::sync::oneshot;

use crate::installation::certificate;

/// Archives of models, as long as this lives.
pub struct Store {
    folder: Arc<TempDir>,
    failures: Arc<Mutex<BTreeMap<String, usize>>>,
    site: Site,
    /// The thread ends when this is dropped.
    _stop: oneshot::Sender<()>,
}

impl Store {
    /// Packs these models and serves them, on a thread of its own: a test may wait for what needs them.
    pub async fn start(models: &[Model]) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        for model in models {
            model.pack(folder.path());
        }
        let failures = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let (archives, failing) = (Arc::clone(&folder), Arc::clone(&failures));
        let reply = move |asked: &Asked, _| {
            let name = asked.path.trim_start_matches('/');
            if let Some(left) = failing.lock().unwrap().get_mut(name).filter(|left| **left > 0) {
                *left -= 1;
                return answer(503, &[], b"come back later");
            }
            match fs::read(archives.path().join(name)) {
                Ok(archive) => file(asked, &archive, "\"one\""),
                Err(_) => answer(404, &[], b"there is no such model"),
            }
        };
        let (started, site) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let site = Site::https_on(NODE.parse().unwrap(), certificate(), reply).await;
                // Nobody waits for it where the test has failed already.
                let _ = started.send(site);
                let _ = stopped.await;
            });
        });
        Self { folder, failures, site: site.await.unwrap(), _stop: stop }
    }

    /// The uri of a model.
    pub fn uri(&self, model: &str) -> String {
        format!("https://{}/{model}.tar.gz", self.site.address)
    }

    /// Serves a file beside the models.
    pub fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.folder.path().join(name), content).unwrap();
    }

    /// Answers 503 to the next requests for a file.
    pub fn fail(&self, name: &str, times: usize) {
        self.failures.lock().unwrap().insert(name.to_owned(), times);
    }

    /// How often a file was asked for.
    pub fn asked(&self, name: &str) -> usize {
        let path = format!("/{name}");
        self.site.paths("GET").into_iter().filter(|asked| *asked == path).count()
    }
}
