//! Has Triton load the models in the order listed, and again whenever it has lost them.

use std::time::Duration;

use super::backoff::Backoff;
use super::fault::{Failure, Fault};
use super::status::{Board, State};
use super::triton::{Silence, Triton};

/// Time between two looks at loaded models.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks for a Triton that is starting.
const START_INTERVAL: Duration = Duration::from_millis(250);
/// Looks in a row that a Triton under load may leave unanswered.
const MOST_SLOW: u32 = 3;

/// What is said of a model while one before it is on its way.
const WAITING: &str = "fetched, waits for its turn";

/// A round over the models ended early.
enum Interrupted {
    /// A model has a permanent fault.
    Failed(Failure),
    /// A load failed in a way that may pass; the round begins anew after a pause.
    Paused(Option<Duration>),
    /// Triton is not there (yet).
    Away,
    /// Triton is busy; what was known still holds.
    Slow,
}

/// Keeps the models loaded for as long as the pod lives. It returns only with a permanent fault, and only if not every model
/// has been ready before (`was_loaded`, or a round that succeeded, which `loaded` is told of).
pub async fn keep_loaded(
    triton: &Triton,
    models: &[String],
    board: &Board,
    mut was_loaded: bool,
    loaded: impl Fn(),
) -> Failure {
    let mut backoff = Backoff::new();
    let mut slow = 0;
    loop {
        let pause = match round(triton, models, board, slow < MOST_SLOW).await {
            Ok(()) => {
                if !was_loaded {
                    tracing::info!("every model is ready");
                    was_loaded = true;
                    loaded();
                }
                backoff.reset();
                slow = 0;
                LOOK_INTERVAL
            }
            Err(Interrupted::Slow) => {
                slow += 1;
                LOOK_INTERVAL
            }
            Err(Interrupted::Failed(failure)) if !was_loaded => return failure,
            Err(Interrupted::Failed(failure)) => {
                tracing::warn!(model = failure.name, error = failure.message, "cannot be loaded again");
                backoff.pause(None)
            }
            Err(Interrupted::Paused(wait)) => backoff.pause(wait),
            Err(Interrupted::Away) => START_INTERVAL,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Looks at every model in order, and has those loaded that Triton does not serve.
async fn round(
    triton: &Triton,
    models: &[String],
    board: &Board,
    may_be_slow: bool,
) -> Result<(), Interrupted> {
    for (index, model) in models.iter().enumerate() {
        let serves = match triton.serves(model).await {
            Ok(serves) => serves,
            Err(Silence::Slow) if may_be_slow => return Err(Interrupted::Slow),
            Err(silence) => return Err(lost(board, models.len(), &silence)),
        };
        if !serves {
            load(triton, index, model, models.len(), board).await?;
        }
        board.set(index, State::Ready, "");
    }
    Ok(())
}

async fn load(
    triton: &Triton,
    index: usize,
    model: &str,
    count: usize,
    board: &Board,
) -> Result<(), Interrupted> {
    match triton.is_live().await {
        Ok(true) => {}
        // It is starting, or about to end: what it is given now would be lost.
        Ok(false) => {
            board.begin(index, State::Loading, "Triton is not live");
            return Err(Interrupted::Away);
        }
        Err(silence) => return Err(lost(board, count, &silence)),
    }
    board.begin(index, State::Loading, "");
    tracing::info!(model, "is being loaded");
    let stopwatch = crate::clock::stopwatch();
    match triton.load(model).await {
        Ok(()) => {
            let duration_ms = u64::try_from(stopwatch.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(model, duration_ms, "is loaded");
            Ok(())
        }
        Err(Fault::Transient { message, wait }) => {
            tracing::warn!(model, error = message, "is loaded again after a pause");
            board.fail(index, State::Loading, &message);
            Err(Interrupted::Paused(wait))
        }
        Err(Fault::Permanent(message)) => {
            board.fail(index, State::Failed, &message);
            Err(Interrupted::Failed(Failure { name: model.to_owned(), message }))
        }
    }
}

/// Notes that Triton cannot be asked: what it had is not known any more. A model that failed may be why.
fn lost(board: &Board, count: usize, silence: &Silence) -> Interrupted {
    let reason = silence.to_string();
    for index in 0..count {
        board.begin(index, State::Loading, if index == 0 { &reason } else { WAITING });
    }
    Interrupted::Away
}
