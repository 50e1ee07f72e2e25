//! `tms-server`: the command line of the server.

use std::io::{stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tms_server::chain::chain;
use tms_server::clock::Clock;
use tms_server::config::{LogFormat, LogLevel, Logging};
use tms_server::{VERSION, agent, config, serve, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A list of Kubernetes objects takes much memory for a moment, and this allocator gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Hands out leases of Triton Inference Server on Kubernetes.
#[derive(Parser)]
#[command(name = "tms-server", version = VERSION)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until SIGTERM or Ctrl-C.
    Serve {
        /// A values.yaml; may be repeated, and each later file wins over those before. Without any the built-in values hold.
        #[arg(long = "values", short = 'f', value_name = "FILE")]
        values: Vec<PathBuf>,
        /// File to write the address to that the server listens on: with port 0 any free one.
        #[arg(long, value_name = "FILE")]
        address_file: Option<PathBuf>,
    },
    /// Runs beside Triton in the pod of a lease: fetches the models, has them loaded and tells how far it is. Its settings
    /// are variables, which the pod of a lease sets (TMS_MODELS and others).
    Agent {
        /// Id of the lease, for the log.
        #[arg(long, value_name = "ID")]
        lease: String,
        /// File to write the address to that the agent listens on.
        #[arg(long, value_name = "FILE")]
        address_file: Option<PathBuf>,
    },
    /// Says everything that is wrong with a configuration; exits with 1 if the server would not start with it.
    CheckConfig {
        /// A values.yaml; each later file wins over those before.
        #[arg(value_name = "FILE")]
        values: Vec<PathBuf>,
    },
    /// Prints the JSON Schema of values.yaml.
    Schema,
    /// Prints the version.
    Version,
}

#[tokio::main]
async fn main() -> ExitCode {
    match obey(Arguments::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fatal: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn obey(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { values, address_file } => run(&values, address_file).await,
        Command::Agent { lease, address_file } => run_agent(&lease, address_file).await,
        Command::CheckConfig { values } => {
            let report = config::check::check(&values, config::environment());
            report.write(&mut stdout(), &mut stderr())?;
            Ok(report.exit_code().into())
        }
        Command::Schema => {
            print!("{}", config::schema::schema());
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => {
            println!("{VERSION}");
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run(values: &[PathBuf], address_file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (config, warnings) = match config::load(values, config::environment()) {
        Ok(loaded) => loaded,
        Err(invalid) => {
            eprintln!("fatal: {invalid}");
            return Ok(ExitCode::FAILURE);
        }
    };
    telemetry::init(config.logging);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    name_cryptography();
    serve::serve(&config, Clock::system(), address_file.as_deref(), stop_on_signal()?).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_agent(lease: &str, address_file: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let settings = agent::Settings::read(|name| std::env::var(name).ok())?;
    telemetry::init(Logging { format: LogFormat::Text, level: LogLevel::Info });
    name_cryptography();
    // Kubernetes ends the agent after Triton. Nothing is worth waiting for then, least of all what is being unpacked.
    let stop = stop_on_signal()?;
    tokio::spawn(async move {
        stop.cancelled().await;
        std::process::exit(0);
    });
    tracing::info!(lease.id = lease, models = settings.models.len(), "the agent starts");
    let listening = |address| {
        tracing::info!(address = %address, "listening");
        if let Some(path) = address_file
            && let Err(error) = serve::write_address(&path, address)
        {
            tracing::error!(error = %error, path = %path.display(), "cannot write the address");
        }
    };
    agent::run(&settings, listening).await?;
    Ok(agent::EXIT_CODE.into())
}

/// Names one provider of cryptography for all, before anything asks for it.
fn name_cryptography() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a provider of cryptography was there already");
    }
}

/// Returns a token that SIGTERM or Ctrl-C cancels.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        cancelled.cancel();
    });
    Ok(stop)
}
