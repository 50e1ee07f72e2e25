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

    /// Moves the end to `asked` from `now`, or as near to that as the bounds allow. Without `asked` it grants the last
    /// lifetime.
    pub fn renew(
        &mut self,
        asked: Option<SignedDuration>,
        bounds: &LifetimeBounds,
        now: Timestamp,
    ) -> Result<(Granted, Happening), Ended> {
        self.refuse_ended(now)?;
        let asked = asked.unwrap_or(self.spec.lifetime);
        let lifetime = asked.max(bounds.minimum).min(bounds.maximum);
        self.spec.lifetime = lifetime;
        self.expires_at = later(now, lifetime);
        let granted = Granted { lifetime, was_cut: lifetime < asked };
        let message = format!("renewed for {lifetime:#}, until {}", self.expires_at);
        Ok((granted, Happening { reason: "Renewed", message }))
    }

    /// Ends the lease by its owner's wish, unless its time was over before.
    pub fn release(&mut self, now: Timestamp) -> Option<Happening> {
        self.expire(now).or_else(|| self.finish(End { at: now, reason: EndReason::Released }, String::new()))
    }

    /// Ends the lease if its time is over; it ended then, however late that is noticed.
    pub fn expire(&mut self, now: Timestamp) -> Option<Happening> {
        if now < self.expires_at {
            return None;
        }
        self.finish(End { at: self.expires_at, reason: EndReason::Expired }, String::new())
    }

    /// Ends the lease because its models could not be loaded, as `report` says. Only before the first READY, and only if
    /// its time was not over before.
    pub fn invalidate(&mut self, report: Report, now: Timestamp) -> Option<Happening> {
        if self.end.is_some() || self.report.first_ready_at.is_some() {
            return None;
        }
        if let Some(expired) = self.expire(now) {
            return Some(expired);
        }
        self.see(report);
        let message = self.report.message.clone();
        self.finish(End { at: now, reason: EndReason::Invalid }, message)
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

    /// Keeps what was seen of a lease that is not closed.
    pub fn observe(&mut self, report: Report) -> Option<Happening> {
        if self.is_closed() {
            return None;
        }
        let (before, report_before) = (self.state(), self.report.clone());
        self.see(report);
        if self.report == report_before {
            return None;
        }
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

    /// Goes beyond a generation that was seen on its objects, so that they follow this lease again.
    pub fn surpass(&mut self, generation: i64) -> Option<Happening> {
        if generation <= self.generation {
            return None;
        }
        self.generation = generation.saturating_add(1);
        let message = format!("its objects carried generation {generation}, which it never had");
        Some(Happening { reason: "Surpassed", message })
    }

    /// Whether it has yet to be ready for the first time.
    pub fn is_loading(&self) -> bool {
        self.report.first_ready_at.is_none() && self.report.phase != Phase::Written
    }

    /// When the clock alone gives the lease something to do.
    pub fn due_at(&self, load_timeout: SignedDuration) -> Option<Timestamp> {
        if self.end.is_some() {
            return None;
        }
        Some(if self.is_loading() {
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

    /// Takes over a report, save for what happens once: the first READY, and the closing, which [`Self::close`] alone says.
    fn see(&mut self, report: Report) {
        let first_ready_at = self.report.first_ready_at.or(report.first_ready_at);
        self.report = Report { first_ready_at, closed_at: self.report.closed_at, ..report };
    }

    fn finish(&mut self, end: End, message: String) -> Option<Happening> {
        if self.end.is_some() {
            return None;
        }
        self.end = Some(end);
        self.generation += 1;
        self.report.message.clone_from(&message);
        let reason = match end.reason {
            EndReason::Released => "Released",
            EndReason::Expired => "Expired",
            EndReason::Invalid => "Invalid",
        };
        Some(Happening { reason, message })
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

/// Returns the moment `duration` after `start`, or the last one there is in that direction.
pub fn later(start: Timestamp, duration: SignedDuration) -> Timestamp {
    let limit = if duration.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    start.checked_add(duration).unwrap_or(limit)
}

fn describe(scaling: &Scaling) -> String {
    match scaling {
        Scaling::Fixed { replicas } => format!("replicas to {replicas}"),
        Scaling::Auto(auto) => format!("autoscaling to {}–{} replicas", auto.minimum, auto.maximum),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::super::lease::{LeaseId, Model, Placement, Replicas, Spec, Triton};
    use super::*;

    const BOUNDS: LifetimeBounds = LifetimeBounds {
        minimum: SignedDuration::from_secs(60),
        default: SignedDuration::from_secs(3600),
        maximum: SignedDuration::from_secs(86_400),
    };
    const LOAD_TIMEOUT: SignedDuration = SignedDuration::from_secs(1800);

    /// The moment so many seconds after the lease was accepted.
    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// A lease of one hour.
    fn lease() -> Lease {
        let triton = Triton {
            image: "triton".to_owned(),
            gpus: 0,
            gpu_resource: "nvidia.com/gpu".to_owned(),
            cpu: "1".to_owned(),
            memory: "1Gi".to_owned(),
            shared_memory: "64Mi".to_owned(),
            environment: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
        };
        Lease {
            id: LeaseId::random(),
            owner: "ada".to_owned(),
            namespace: "models".to_owned(),
            placement: Placement::Bespoke,
            spec: Spec {
                models: vec![Model { name: "resnet".to_owned(), uri: "s3://models/resnet".to_owned() }],
                triton,
                scaling: Scaling::Fixed { replicas: 1 },
                lifetime: BOUNDS.default,
                labels: BTreeMap::new(),
            },
            deployment: serde_json::Value::Null,
            created_at: at(0),
            expires_at: at(3600),
            end: None,
            generation: 1,
            version: 7,
            report: Report::nothing_seen(["resnet"]),
        }
    }

    fn report(phase: Phase, message: &str) -> Report {
        let first_ready_at = (phase == Phase::Ready).then(|| at(30));
        Report { phase, message: message.to_owned(), first_ready_at, ..Report::nothing_seen(["resnet"]) }
    }

    #[test]
    fn a_renewal_counts_from_now_and_stays_within_the_bounds() {
        let hours = |hours| SignedDuration::from_hours(hours);
        // Asked, granted, whether it was cut.
        let cases = [
            (Some(hours(2)), hours(2), false),
            (None, hours(1), false),
            (Some(hours(24)), hours(24), false),
            (Some(hours(25)), hours(24), true),
            (Some(SignedDuration::MAX), hours(24), true),
            (Some(SignedDuration::ZERO), BOUNDS.minimum, false),
            (Some(SignedDuration::MIN), BOUNDS.minimum, false),
        ];
        for (asked, lifetime, was_cut) in cases {
            let mut lease = lease();
            let (granted, happening) = lease.renew(asked, &BOUNDS, at(100)).unwrap();
            assert_eq!(granted, Granted { lifetime, was_cut }, "{asked:?}");
            assert_eq!((lease.expires_at, lease.spec.lifetime), (at(100) + lifetime, lifetime), "{asked:?}");
            assert_eq!(happening.reason, "Renewed");
        }
    }

    #[test]
    fn a_lease_past_its_expiry_has_ended_even_before_anyone_noticed() {
        let ended = Ended(End { at: at(3600), reason: EndReason::Expired });
        assert_eq!(lease().renew(None, &BOUNDS, at(3600)).unwrap_err(), ended);
        assert_eq!(lease().update(&Update::default(), at(9000)).unwrap_err(), ended);
        let ends: [fn(&mut Lease) -> Option<Happening>; 3] = [
            |lease| lease.release(at(9000)),
            |lease| lease.expire(at(9000)),
            |lease| lease.invalidate(report(Phase::Loading, "corrupt"), at(9000)),
        ];
        for end in ends {
            let mut lease = lease();
            assert_eq!(end(&mut lease).unwrap().reason, "Expired");
            assert_eq!(lease.end, Some(ended.0));
        }
    }

    #[test]
    fn a_lease_becomes_invalid_only_before_it_was_first_ready() {
        let mut fresh = lease();
        assert_eq!(fresh.invalidate(report(Phase::Loading, "corrupt"), at(10)).unwrap().message, "corrupt");
        assert_eq!((fresh.state(), fresh.report.message.as_str()), (State::Invalid, "corrupt"));
        let mut ready = lease();
        ready.observe(report(Phase::Ready, ""));
        ready.observe(report(Phase::Degraded, ""));
        assert_eq!(ready.invalidate(report(Phase::Loading, "corrupt"), at(40)), None);
        assert_eq!(ready.state(), State::Degraded);
    }

    #[test]
    fn a_change_of_state_is_told_apart_from_news() {
        let mut lease = lease();
        let told =
            |happening: Option<Happening>| happening.map(|it| format!("{}: {}", it.reason, it.message));
        let mut see = |phase, message| told(lease.observe(report(phase, message)));
        assert_eq!(see(Phase::Pending, ""), None);
        assert_eq!(see(Phase::Loading, "").unwrap(), "StateChanged: PENDING → LOADING");
        assert_eq!(see(Phase::Loading, "half").unwrap(), "Reported: half");
        assert_eq!(see(Phase::Ready, "whole").unwrap(), "StateChanged: LOADING → READY: whole");
    }

    #[test]
    fn an_ended_lease_closes_once_and_holds_nothing_then() {
        let mut lease = lease();
        lease.observe(Report {
            replicas: Replicas { desired: 1, current: 1, ready: 1 },
            ..report(Phase::Ready, "")
        });
        assert_eq!(lease.close(at(50)), None, "it has not ended");
        lease.release(at(60));
        lease.observe(report(Phase::Ready, "deleting its objects: forbidden"));
        assert_eq!(lease.state(), State::Released);
        assert_eq!(lease.close(at(70)).unwrap().reason, "Closed");
        assert_eq!(lease.close(at(80)), None);
        assert_eq!(lease.observe(report(Phase::Ready, "late")), None);
        assert_eq!(lease.report.closed_at, Some(at(70)));
        assert_eq!((lease.report.replicas, lease.report.message.as_str()), (Replicas::default(), ""));
        assert_eq!(lease.report.models[0].state, ModelState::Unloaded);
    }

    #[test]
    fn the_clock_is_heeded_while_loading_and_at_the_end() {
        let mut lease = lease();
        assert_eq!(lease.due_at(LOAD_TIMEOUT), Some(at(1800)));
        lease.observe(report(Phase::Written, ""));
        assert_eq!(lease.due_at(LOAD_TIMEOUT), Some(at(3600)));
        lease.observe(report(Phase::Ready, ""));
        assert_eq!(lease.due_at(LOAD_TIMEOUT), Some(at(3600)));
        lease.release(at(100));
        assert_eq!(lease.due_at(LOAD_TIMEOUT), None);
    }

    #[derive(Clone, Debug)]
    enum Change {
        Renew(Option<i64>),
        Release,
        Expire,
        Invalidate,
        Update(u32, bool),
        Observe(Phase, Option<i64>, Option<i64>),
        Close,
    }

    fn changes() -> impl Strategy<Value = Change> {
        let phases = [
            Phase::Pending,
            Phase::Provisioning,
            Phase::Loading,
            Phase::Ready,
            Phase::Degraded,
            Phase::Asleep,
            Phase::Written,
        ];
        let observed =
            (proptest::sample::select(phases.to_vec()), option::of(0..9000_i64), option::of(0..9000_i64));
        prop_oneof![
            4 => option::of(any::<i64>()).prop_map(Change::Renew),
            4 => option::of(-10..100_000_i64).prop_map(Change::Renew),
            1 => Just(Change::Release),
            1 => Just(Change::Expire),
            1 => Just(Change::Invalidate),
            4 => (1..4_u32, any::<bool>()).prop_map(|(replicas, is_labelled)| Change::Update(replicas, is_labelled)),
            4 => observed.prop_map(|(phase, ready, closed)| Change::Observe(phase, ready, closed)),
            2 => Just(Change::Close),
        ]
    }

    /// Makes the change and returns whether something happened.
    fn make(lease: &mut Lease, change: &Change, now: Timestamp) -> bool {
        match change {
            Change::Renew(seconds) => {
                lease.renew(seconds.map(SignedDuration::from_secs), &BOUNDS, now).is_ok()
            }
            Change::Release => lease.release(now).is_some(),
            Change::Expire => lease.expire(now).is_some(),
            Change::Invalidate => lease.invalidate(report(Phase::Loading, "corrupt"), now).is_some(),
            Change::Update(replicas, is_labelled) => {
                let labels = is_labelled.then(|| [("team".to_owned(), "vision".to_owned())].into());
                let update = Update { scaling: Some(Scaling::Fixed { replicas: *replicas }), labels };
                lease.update(&update, now).is_ok_and(|happening| happening.is_some())
            }
            Change::Observe(phase, ready, closed) => {
                let seen =
                    Report { first_ready_at: ready.map(at), closed_at: closed.map(at), ..report(*phase, "") };
                lease.observe(seen).is_some()
            }
            Change::Close => lease.close(now).is_some(),
        }
    }

    fn intent(lease: &Lease) -> (Spec, Timestamp, Option<End>) {
        (lease.spec.clone(), lease.expires_at, lease.end)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn a_life_goes_forward_only(steps in vec((changes(), 0..1000_i64), 1..40)) {
            let (mut lease, mut now) = (lease(), at(0));
            for (change, pause) in steps {
                now += SignedDuration::from_secs(pause);
                let before = lease.clone();
                let happened = make(&mut lease, &change, now);

                prop_assert!(happened || lease == before);
                prop_assert_eq!(lease.version, before.version, "the store alone counts versions");
                prop_assert!(before.end.is_none() || intent(&lease) == intent(&before), "an ended lease stays as it ended");
                prop_assert!(before.report.closed_at.is_none() || lease.report == before.report);
                prop_assert!(before.report.first_ready_at.is_none_or(|ready| lease.report.first_ready_at == Some(ready)));
                prop_assert!(!lease.is_closed() || lease.end.is_some());
                prop_assert!(lease.end.is_none_or(|end| end.at <= now && end.at <= lease.expires_at));
                prop_assert_eq!(lease.state().is_end(), lease.end.is_some());
                let is_of_intent = happened && !matches!(change, Change::Observe(..) | Change::Close);
                let is_of_objects = is_of_intent && !matches!(change, Change::Renew(_));
                prop_assert_eq!(lease.generation, before.generation + i64::from(is_of_objects));
                prop_assert!(is_of_intent || intent(&lease) == intent(&before));
                if let (Change::Renew(_), true) = (&change, happened) {
                    prop_assert!(lease.expires_at >= now + BOUNDS.minimum && lease.expires_at <= now + BOUNDS.maximum);
                }
                let due_at = lease.due_at(LOAD_TIMEOUT);
                prop_assert_eq!(due_at.is_some(), lease.end.is_none());
                prop_assert!(due_at.is_none_or(|due_at| due_at <= lease.expires_at));
            }
        }

        #[test]
        fn a_release_is_the_end_and_can_be_repeated(steps in vec((changes(), 0..1000_i64), 0..10)) {
            let (mut lease, mut now) = (lease(), at(0));
            for (change, pause) in steps {
                now += SignedDuration::from_secs(pause);
                make(&mut lease, &change, now);
            }
            lease.release(now);
            let once = lease.clone();
            prop_assert!(once.end.is_some());
            prop_assert_eq!(lease.release(now + BOUNDS.maximum), None);
            prop_assert_eq!(lease, once);
        }
    }
}
