//! The changes of a lease, each a pure function that says what happened, or `None` where nothing changed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::lease::{
    End, EndReason, Happening, Lease, LifetimeBounds, ModelReport, ModelState, Phase, Report, State,
};
use super::scaling::Scaling;

/// The lease has ended, and what was asked of it is only possible before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease ended at {at} ({reason:?})", at = .0.at, reason = .0.reason)]
pub struct Ended(pub End);

/// What a renewal granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Counted from the renewal.
    pub lifetime: SignedDuration,
    /// Whether the administrator's maximum cut what was asked.
    pub was_cut: bool,
}

/// What an update changes; `None` leaves a part as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Replicas.
    pub scaling: Option<Scaling>,
    /// All labels.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Lease {
    /// The one word for where the lease is in its life.
    pub fn state(&self) -> State {
        match (self.end.map(|end| end.reason), self.report.phase) {
            (Some(EndReason::Released), _) => State::Released,
            (Some(EndReason::Expired), _) => State::Expired,
            (Some(EndReason::Invalid), _) => State::Invalid,
            (None, Phase::Pending) => State::Pending,
            (None, Phase::Provisioning) => State::Provisioning,
            (None, Phase::Loading) => State::Loading,
            (None, Phase::Ready) => State::Ready,
            (None, Phase::Degraded) => State::Degraded,
            (None, Phase::Asleep) => State::Asleep,
            (None, Phase::Written) => State::Written,
        }
    }

    /// Whether the lease holds nothing any more: it has ended and its objects were seen gone.
    pub fn is_closed(&self) -> bool {
        self.report.closed_at.is_some()
    }

    /// Moves the end to `asked` from `now`, or as far as the bounds allow. Without `asked` it grants the last lifetime.
    pub fn renew(
        &mut self,
        asked: Option<SignedDuration>,
        bounds: &LifetimeBounds,
        now: Timestamp,
    ) -> Result<(Granted, Happening), Ended> {
        self.refuse_ended(now)?;
        let asked = asked.unwrap_or(self.spec.lifetime);
        let lifetime = asked.min(bounds.maximum);
        self.spec.lifetime = lifetime;
        self.expires_at = later(now, lifetime);
        self.generation += 1;
        let granted = Granted { lifetime, was_cut: lifetime < asked };
        let message = format!("renewed for {lifetime:#}, until {}", self.expires_at);
        Ok((granted, Happening { reason: "Renewed", message }))
    }

    /// Ends the lease by its owner's wish.
    pub fn release(&mut self, now: Timestamp) -> Option<Happening> {
        let reason = if now >= self.expires_at { EndReason::Expired } else { EndReason::Released };
        self.finish(reason, String::new(), now)
    }

    /// Ends the lease if its time is over.
    pub fn expire(&mut self, now: Timestamp) -> Option<Happening> {
        (now >= self.expires_at).then(|| self.finish(EndReason::Expired, String::new(), now)).flatten()
    }

    /// Ends the lease because its models could not be loaded, as `report` says. Only before the first READY.
    pub fn invalidate(&mut self, report: Report, now: Timestamp) -> Option<Happening> {
        if self.end.is_some() || self.report.first_ready_at.is_some() {
            return None;
        }
        self.report = report;
        let message = self.report.message.clone();
        self.finish(EndReason::Invalid, message, now)
    }

    /// Changes replicas or labels.
    pub fn update(&mut self, update: &Update, now: Timestamp) -> Result<Option<Happening>, Ended> {
        self.refuse_ended(now)?;
        let mut changed = Vec::new();
        if let Some(scaling) = update.scaling.as_ref().filter(|scaling| **scaling != self.spec.scaling) {
            self.spec.scaling = scaling.clone();
            changed.push(describe(scaling));
        }
        if let Some(labels) = update.labels.as_ref().filter(|labels| **labels != self.spec.labels) {
            self.spec.labels = labels.clone();
            changed.push("labels".to_owned());
        }
        if changed.is_empty() {
            return Ok(None);
        }
        self.generation += 1;
        Ok(Some(Happening { reason: "Updated", message: format!("changed {}", changed.join(", ")) }))
    }

    /// Keeps what was seen.
    pub fn observe(&mut self, report: Report) -> Option<Happening> {
        if report == self.report {
            return None;
        }
        let before = self.state();
        self.report = report;
        let after = self.state();
        let reason = if before == after { "Reported" } else { "StateChanged" };
        let message = match (before == after, self.report.message.is_empty()) {
            (true, _) => self.report.message.clone(),
            (false, true) => format!("{before} → {after}"),
            (false, false) => format!("{before} → {after}: {}", self.report.message),
        };
        Some(Happening { reason, message })
    }

    /// Keeps that the last object of the ended lease was seen gone.
    pub fn close(&mut self, now: Timestamp) -> Option<Happening> {
        if self.end.is_none() || self.is_closed() {
            return None;
        }
        self.report.closed_at = Some(now);
        self.report.replicas = super::lease::Replicas::default();
        if self.state() != State::Invalid {
            self.report.message.clear();
        }
        for model in self.report.models.iter_mut().filter(|model| model.state != ModelState::Failed) {
            model.state = ModelState::Unloaded;
        }
        Some(Happening { reason: "Closed", message: "its objects are gone".to_owned() })
    }

    /// When the clock alone gives the lease something to do.
    pub fn due_at(&self, load_timeout: SignedDuration) -> Option<Timestamp> {
        if self.end.is_some() {
            return None;
        }
        let is_loading = self.report.first_ready_at.is_none() && self.report.phase != Phase::Written;
        Some(if is_loading {
            self.expires_at.min(later(self.created_at, load_timeout))
        } else {
            self.expires_at
        })
    }

    fn refuse_ended(&self, now: Timestamp) -> Result<(), Ended> {
        if let Some(end) = self.end {
            return Err(Ended(end));
        }
        if now >= self.expires_at {
            return Err(Ended(End { at: self.expires_at, reason: EndReason::Expired }));
        }
        Ok(())
    }

    fn finish(&mut self, reason: EndReason, message: String, now: Timestamp) -> Option<Happening> {
        if self.end.is_some() {
            return None;
        }
        self.end = Some(End { at: now, reason });
        self.generation += 1;
        self.report.message.clone_from(&message);
        let word = match reason {
            EndReason::Released => "Released",
            EndReason::Expired => "Expired",
            EndReason::Invalid => "Invalid",
        };
        Some(Happening { reason: word, message })
    }
}

impl Report {
    /// Returns the report of a lease of which nothing was seen yet.
    pub fn nothing_seen<'a>(models: impl IntoIterator<Item = &'a str>) -> Self {
        let models = models.into_iter().map(|name| ModelReport {
            name: name.to_owned(),
            state: ModelState::Pending,
            message: String::new(),
        });
        Self {
            phase: Phase::Pending,
            message: String::new(),
            replicas: super::lease::Replicas::default(),
            models: models.collect(),
            first_ready_at: None,
            closed_at: None,
        }
    }
}

/// Returns the moment `duration` after `start`, or the last one there is.
pub fn later(start: Timestamp, duration: SignedDuration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn describe(scaling: &Scaling) -> String {
    match scaling {
        Scaling::Fixed { replicas } => format!("replicas to {replicas}"),
        Scaling::Auto(auto) => format!("autoscaling to {}–{} replicas", auto.minimum, auto.maximum),
    }
}
