//! Lays out the models of a lease: first those that cost nothing, then the downloads, one after another, so that memory and
//! disk hold one at a time.

use std::sync::Arc;

use super::backoff::Backoff;
use super::credentials::authorization;
use super::download::{Came, Order, Partial, Web, anew, download, web};
use super::fault::{Failure, Fault};
use super::layout::Repository;
use super::settings::{Model, Settings};
use super::status::{Board, State};
use crate::clock;
use crate::domain::uri::{HttpUri, ModelUri};

/// What is said of a model while others are still on their way.
const FETCHED: &str = "fetched, waits for the others";
/// What is said of a model that has come.
const UNPACKING: &str = "unpacking";

/// A model on its way into the repository.
struct Job<'a> {
    index: usize,
    model: &'a Model,
    uri: ModelUri,
}

/// Lays out every model, however often that has to be tried, and returns the permanent faults: after the first download that
/// has one, no other is begun.
pub async fn lay_out(settings: &Settings, repository: &Repository, board: &Arc<Board>) -> Vec<Failure> {
    let fail = |index: usize, model: &Model, fault: &Fault| {
        let message = fault.to_string();
        board.set(index, State::Failed, &message);
        Failure { name: model.name.clone(), message }
    };
    let mut failures = Vec::new();
    let mut downloads = Vec::new();
    for (index, model) in settings.models.iter().enumerate() {
        if repository.has(&model.name, &model.uri) {
            tracing::info!(model = model.name, "is laid out already");
            board.set(index, State::Loading, FETCHED);
            continue;
        }
        match ModelUri::parse(&model.uri) {
            Err(error) => failures.push(fail(index, model, &Fault::permanent(error.to_string()))),
            Ok(uri @ ModelUri::Http(_)) => downloads.push(Job { index, model, uri }),
            Ok(uri @ ModelUri::Claim { .. }) => {
                let job = Job { index, model, uri };
                if let Err(fault) = persist(&job, settings, repository, board).await {
                    failures.push(fail(index, model, &fault));
                }
            }
        }
    }
    for job in downloads {
        if !failures.is_empty() {
            break;
        }
        if let Err(fault) = persist(&job, settings, repository, board).await {
            failures.push(fail(job.index, job.model, &fault));
        }
    }
    failures
}

/// Lays out one model, however often that has to be tried. An error is permanent.
async fn persist(
    job: &Job<'_>,
    settings: &Settings,
    repository: &Repository,
    board: &Arc<Board>,
) -> Result<(), Fault> {
    let stopwatch = clock::stopwatch();
    let mut backoff = Backoff::new();
    let mut attempt = Attempt { web: None, partial: None, is_downloaded: false };
    loop {
        let had = attempt.written();
        match attempt.run(job, settings, repository, board).await {
            Ok(()) => {
                board.set(job.index, State::Loading, FETCHED);
                let duration_ms = u64::try_from(stopwatch.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(model = job.model.name, uri = %job.uri, duration_ms, "is laid out");
                return Ok(());
            }
            Err(Fault::Transient { message, wait }) => {
                if attempt.written() > had {
                    backoff.reset();
                }
                let pause = backoff.pause(wait);
                let duration_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    model = job.model.name,
                    error = message,
                    duration_ms,
                    "is tried again after a pause"
                );
                board.fail(job.index, State::Downloading, &message);
                tokio::time::sleep(pause).await;
            }
            Err(permanent) => return Err(permanent),
        }
    }
}

/// What outlives one try.
struct Attempt {
    web: Option<Web>,
    partial: Option<Partial>,
    is_downloaded: bool,
}

impl Attempt {
    async fn run(
        &mut self,
        job: &Job<'_>,
        settings: &Settings,
        repository: &Repository,
        board: &Arc<Board>,
    ) -> Result<(), Fault> {
        let (name, uri) = (job.model.name.clone(), job.model.uri.clone());
        match &job.uri {
            ModelUri::Claim { claim, path } => {
                let (claim, path) = (claim.clone(), path.clone());
                board.begin(job.index, State::Downloading, "");
                in_background(repository, move |repository| {
                    repository.place_claim(&name, &uri, &claim, &path)
                })
                .await
            }
            ModelUri::Http(http) => {
                let file = repository.download_path();
                if !self.is_downloaded {
                    self.download(job, http, settings, repository, board).await?;
                    self.is_downloaded = true;
                    board.set(job.index, State::Downloading, UNPACKING);
                }
                board.begin(job.index, State::Downloading, UNPACKING);
                let archive = file.clone();
                let placed = in_background(repository, move |repository| {
                    repository.place_archive(&name, &uri, &archive)
                })
                .await;
                if matches!(placed, Err(Fault::Transient { .. })) {
                    // Such as a full disk: the file is as good as before.
                    return placed;
                }
                if let (Err(fault), Some(partial)) = (&placed, &mut self.partial)
                    && partial.second_chance().await?
                {
                    self.is_downloaded = false;
                    return Err(anew(fault));
                }
                if let Err(error) = std::fs::remove_file(&file) {
                    tracing::warn!(error = %error, "cannot remove the downloaded file");
                }
                placed
            }
        }
    }

    async fn download(
        &mut self,
        job: &Job<'_>,
        uri: &HttpUri,
        settings: &Settings,
        repository: &Repository,
        board: &Board,
    ) -> Result<(), Fault> {
        let authorization = match &job.model.secret {
            Some(secret) => Some((secret.as_str(), authorization(&settings.credentials_directory, secret)?)),
            None => None,
        };
        let order = Order {
            uri,
            authorization,
            allow_http: settings.allow_http,
            room: in_background(repository, Repository::room).await?,
        };
        if self.web.is_none() {
            self.web = Some(web().map_err(|error| {
                Fault::permanent(format!("the agent's image has no root certificates: {error}"))
            })?);
        }
        if self.partial.is_none() {
            let made = Partial::create(&repository.download_path()).await;
            self.partial =
                Some(made.map_err(|error| Fault::of_files("cannot write the downloaded file", &error))?);
        }
        let (Some(web), Some(partial)) = (&self.web, &mut self.partial) else {
            unreachable!("both were made above");
        };
        let index = job.index;
        download(web, &order, partial, &move |came: Came| board.bytes(index, came)).await
    }

    fn written(&self) -> u64 {
        self.partial.as_ref().map_or(0, Partial::written)
    }
}

/// Works on files without keeping the status from being told.
async fn in_background<T: Send + 'static>(
    repository: &Repository,
    work: impl FnOnce(&Repository) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let repository = repository.clone();
    match tokio::task::spawn_blocking(move || work(&repository)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Fault::permanent(format!("the archive broke the agent: {error}"))),
    }
}
