//! Logs: lines for people or for machines, to stderr.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Logging};

/// The variable that wins over the configured level.
const VARIABLE: &str = "RUST_LOG";

/// Libraries that are heard only when something goes wrong, whatever the level.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,rustls=warn,sqlx=warn,tower=warn,kube=warn";

/// Begins to log. `RUST_LOG` wins over the configured level. Only the first call in a process has an effect.
pub fn init(logging: Logging) {
    let configured = || EnvFilter::new(format!("{},{QUIET}", logging.level.as_str()));
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| configured());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let begun = match logging.format {
        LogFormat::Text => {
            lines.with_target(false).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init()
        }
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
    };
    // Whoever began to log before goes on.
    drop(begun);
}
