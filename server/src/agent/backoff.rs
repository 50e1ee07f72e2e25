//! How long to wait before something is tried again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);
/// Most that another side may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Pauses that double.
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Returns pauses that begin with the shortest.
    pub fn new() -> Self {
        Self { next: FIRST }
    }

    /// Returns the next pause: never shorter than what the other side asked for.
    pub fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.next;
        self.next = (own * 2).min(LONGEST);
        own.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }

    /// Begins anew, since something went well.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_obey_what_is_asked() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..8).map(|_| backoff.pause(None).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
        assert_eq!(backoff.pause(Some(Duration::from_secs(40))).as_secs(), 40);
        assert_eq!(backoff.pause(Some(Duration::from_secs(86_400))).as_secs(), 600);
        backoff.reset();
        assert_eq!(backoff.pause(Some(Duration::ZERO)).as_millis(), 250);
    }
}
