//! `tms-server agent`: what runs beside Triton in the pod of a lease. It fetches the lease's models, lays them out as Triton's
//! repository, has them loaded in order and keeps them loaded, and tells how far it is. It knows neither Kubernetes nor the
//! database: its environment tells it everything, and its status and its termination message are all that others learn.

mod archive;
mod backoff;
mod config_name;
mod credentials;
mod download;
mod fault;
mod fetch;
mod inside;
mod layout;
mod load;
mod model;
mod room;
mod serve;
mod settings;
mod status;
mod termination;
mod triton;
mod words;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;

pub use fault::Failure;
pub use settings::{Settings, SettingsError};

use self::layout::Repository;
use self::status::Board;
use self::triton::Triton;

/// Code with which the agent ends when a model cannot be had.
pub const EXIT_CODE: u8 = 3;

/// The agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The repository cannot be used.
    #[error("cannot use the model repository {}", path.display())]
    Repository {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The address of Triton is none.
    #[error("TMS_TRITON_URL is not an address")]
    TritonUrl(#[from] url::ParseError),
}

/// Runs the agent until a model turns out to have a permanent fault before all were ready; the faults are in the termination
/// message then. `listening` is told where it answers.
pub async fn run(
    settings: &Settings,
    listening: impl FnOnce(SocketAddr),
) -> Result<Vec<Failure>, AgentError> {
    let triton = Triton::at(&settings.triton_url, settings.repository_key.clone())?;
    let repository = open(settings)?;
    let board = Arc::new(Board::new(settings.models.iter().map(|model| model.name.clone())));
    let listener = listen(settings.address).await?;
    listening(
        listener.local_addr().map_err(|source| AgentError::Listen { address: settings.address, source })?,
    );
    // It ends with the process.
    tokio::spawn(serve::serve(listener, board.clone()));

    let failures = failures(settings, &repository, &board, &triton).await;
    for failure in &failures {
        tracing::error!(model = failure.name, error = failure.message, "cannot be had");
    }
    if let Err(error) = termination::write(&settings.termination_log, &failures) {
        tracing::error!(error = %error, path = %settings.termination_log.display(), "cannot write the termination message");
    }
    tracing::info!(peak_memory_kib = peak_memory_kib(), "the agent ends");
    Ok(failures)
}

/// The most memory that this process has had, in KiB, where Linux tells.
fn peak_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Serves the models, and returns the permanent faults that keep it from doing so.
async fn failures(
    settings: &Settings,
    repository: &Repository,
    board: &Arc<Board>,
    triton: &Triton,
) -> Vec<Failure> {
    let failures = fetch::lay_out(settings, repository, board).await;
    if !failures.is_empty() {
        return failures;
    }
    board.fetched();
    let names: Vec<_> = settings.models.iter().map(|model| model.name.clone()).collect();
    let loaded = || {
        if let Err(error) = repository.note_loaded() {
            tracing::warn!(error = %error, "cannot note that every model was loaded");
        }
    };
    vec![load::keep_loaded(triton, &names, board, repository.was_loaded(), loaded).await]
}

fn open(settings: &Settings) -> Result<Repository, AgentError> {
    let path: &Path = &settings.models_directory;
    Repository::open(path, &settings.claims_directory, settings.room)
        .map_err(|source| AgentError::Repository { path: path.to_owned(), source })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AgentError> {
    TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, source })
}
