//! The changes of a lease, each a pure function that says what happened, or `None` where nothing changed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::lease::{
    AutomaticRenewal, End, EndReason, Happening, Lease, LifetimeBounds, ModelReport, ModelState, Phase,
    Report, State,
};
use super::scaling::Scaling;

/// Reason of the event by which a lease gives notice of its end.
pub const EXPIRING_SOON: &str = "ExpiringSoon";
/// Says of an ended lease that its objects do not go.
const STILL_THERE: &str = "its objects are still there";
/// An end is moved by use only if it moves by more than one of so many parts of the idle window.
const IDLE_PARTS: i32 = 10;

/// The lease has ended, and what was asked of it is only possible before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease ended at {at} ({reason:?})", at = .0.at, reason = .0.reason)]
pub struct Ended(pub End);

/// What the clock does to a lease besides ending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// How long a lease may take until it is first ready.
    pub load_timeout: SignedDuration,
    /// How long before its end a lease gives notice of it, each once.
    pub notices: Vec<SignedDuration>,
}

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
    /// Renewal by use.
    pub renewal: Option<Renewal>,
}

/// What becomes of renewal by use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Use renews the lease in this way from now on.
    On(AutomaticRenewal),
    /// Use renews it no more.
    Off,
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
        self.tenure.renewed_at = now;
        self.tenure.noticed_until = now;
        let granted = Granted { lifetime, was_cut: lifetime < asked };
        let message = format!("renewed for {lifetime:#}, until {}", self.expires_at);
        Ok((granted, Happening { reason: "Renewed", message }))
    }

    /// Moves the end of a lease that asked for it, because it was used at `used_at`: to its idle window from then, and to at
    /// most `maximum` from its acceptance or its last renewal. An end that would move by little is left for the next use, so
    /// that steady use is not steady writing; one that has come is not left. A lease whose time is over, but which has not been
    /// ended yet, lives on by use that is counted from its end at most.
    pub fn keep_alive(
        &mut self,
        used_at: Timestamp,
        maximum: SignedDuration,
        now: Timestamp,
    ) -> Option<Happening> {
        let idle_window = self.spec.automatic_renewal?.idle_window;
        if self.end.is_some() {
            return None;
        }
        let used_at = used_at.min(self.expires_at);
        let ceiling = later(self.tenure.renewed_at, maximum);
        let wanted = later(used_at, idle_window).min(ceiling);
        let gain = wanted.duration_since(self.expires_at);
        let is_last = wanted == ceiling || now >= self.expires_at;
        let is_worth_it = gain > idle_window / IDLE_PARTS || (gain.is_positive() && is_last);
        if !is_worth_it {
            return None;
        }
        self.expires_at = wanted;
        self.tenure.last_used_at = Some(used_at);
        self.tenure.noticed_until = now;
        let limit = if wanted == ceiling { ", the longest without a renewal" } else { "" };
        let message = format!("in use: lives on until {wanted}{limit}");
        Some(Happening { reason: "KeptAlive", message })
    }

    /// Gives notice of the end, if one of `notices` is due: once for all of them that are.
    pub fn notice(&mut self, notices: &[SignedDuration], now: Timestamp) -> Option<Happening> {
        if !self.owes_notice(notices, now) {
            return None;
        }
        self.tenure.noticed_until = now;
        let left = SignedDuration::from_secs(now.duration_until(self.expires_at).as_secs());
        // Use renews as well, but only up to the longest lifetime, so it is not promised here.
        let message = format!("ends in {left:#}, at {}, unless it is renewed", self.expires_at);
        Some(Happening { reason: EXPIRING_SOON, message })
    }

    /// Whether one of `notices` of its end is due and was not given.
    pub fn owes_notice(&self, notices: &[SignedDuration], now: Timestamp) -> bool {
        let is_over = self.end.is_some() || now >= self.expires_at;
        !is_over && self.next_notice(notices).is_some_and(|due| now >= due)
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

    /// Changes replicas, labels or renewal by use. The end stays where it is.
    pub fn update(&mut self, update: &Update, now: Timestamp) -> Result<Option<Happening>, Ended> {
        self.refuse_ended(now)?;
        let mut changed = Vec::new();
        if let Some(scaling) = update.scaling.as_ref().filter(|scaling| **scaling != self.spec.scaling) {
            self.spec.scaling = scaling.clone();
            self.waking_since = self.waking_since.filter(|_| scaling.minimum() == 0);
            changed.push(describe(scaling));
        }
        if let Some(labels) = update.labels.as_ref().filter(|labels| **labels != self.spec.labels) {
            self.spec.labels = labels.clone();
            changed.push("labels".to_owned());
        }
        if !changed.is_empty() {
            self.generation += 1;
        }
        // Its objects know nothing of its end.
        let renewal = update.renewal.map(|renewal| match renewal {
            Renewal::On(renewal) => Some(renewal),
            Renewal::Off => None,
        });
        if let Some(renewal) = renewal.filter(|renewal| *renewal != self.spec.automatic_renewal) {
            self.spec.automatic_renewal = renewal;
            changed.push(match renewal {
                Some(renewal) => format!("automatic renewal to {:#} after the last use", renewal.idle_window),
                None => "automatic renewal to none".to_owned(),
            });
        }
        if changed.is_empty() {
            return Ok(None);
        }
        Ok(Some(Happening { reason: "Updated", message: format!("changed {}", changed.join(", ")) }))
    }

    /// Wakes a lease that may sleep, or keeps it awake for another cooldown. Of one that never sleeps nothing changes.
    pub fn activate(&mut self, now: Timestamp) -> Result<Option<Happening>, Ended> {
        self.refuse_ended(now)?;
        if self.spec.scaling.minimum() > 0 {
            return Ok(None);
        }
        self.waking_since = Some(now);
        self.generation += 1;
        let message = match self.report.phase {
            Phase::Asleep => "wakes: one replica, for a cooldown at least",
            _ => "stays awake for another cooldown at least",
        };
        Ok(Some(Happening { reason: "Activated", message: message.to_owned() }))
    }

    /// Keeps that the lease is awake, and may fall asleep again.
    pub fn awake(&mut self) -> Option<Happening> {
        self.waking_since.take()?;
        self.generation += 1;
        let message = "a replica is ready: it falls asleep after a cooldown without activity";
        Some(Happening { reason: "Awake", message: message.to_owned() })
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
        self.report.message = self.reason_of_end().to_owned();
        for model in self.report.models.iter_mut().filter(|model| model.state != ModelState::Failed) {
            model.state = ModelState::Unloaded;
            (model.downloaded_bytes, model.total_bytes, model.failed_tries) = (None, None, 0);
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
    pub fn due_at(&self, deadlines: &Deadlines) -> Option<Timestamp> {
        if self.end.is_some() {
            return None;
        }
        let loaded_by = self.is_loading().then(|| later(self.created_at, deadlines.load_timeout));
        let noticed_at = self.next_notice(&deadlines.notices);
        [Some(self.expires_at), loaded_by, noticed_at].into_iter().flatten().min()
    }

    /// Returns the message of an ended lease whose objects do not go, for this cause. Why the lease became INVALID comes
    /// first.
    pub fn message_of_remains(&self, cause: &str) -> String {
        match self.reason_of_end() {
            "" => format!("{STILL_THERE}: {cause}"),
            reason => format!("{reason}; {STILL_THERE}: {cause}"),
        }
    }

    /// Whether the message says that the objects of the ended lease do not go.
    pub fn tells_remains(&self) -> bool {
        self.report.message.contains(STILL_THERE)
    }

    /// Returns why the lease became INVALID, without what was said about its objects since; of another end, nothing.
    fn reason_of_end(&self) -> &str {
        let message = self.report.message.as_str();
        match self.state() {
            State::Invalid => message
                .rsplit_once(STILL_THERE)
                .map_or(message, |(reason, _)| reason.strip_suffix("; ").unwrap_or(reason)),
            _ => "",
        }
    }

    /// Returns when the next notice is due, which may be long ago if nobody was there to give it. What was due before the
    /// end was last moved is not among them.
    fn next_notice(&self, notices: &[SignedDuration]) -> Option<Timestamp> {
        let moments = notices.iter().map(|notice| later(self.expires_at, -*notice));
        moments.filter(|moment| *moment > self.tenure.noticed_until).min()
    }

    /// Refuses what is only possible before the end. A lease that use may still keep alive ends once that is written: until then
    /// nobody knows, and a renewal keeps it alive as well.
    fn refuse_ended(&self, now: Timestamp) -> Result<(), Ended> {
        if let Some(end) = self.end {
            return Err(Ended(end));
        }
        if now >= self.expires_at && self.spec.automatic_renewal.is_none() {
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
        let models = models.into_iter().map(|name| ModelReport::new(name, ModelState::Pending, ""));
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
pub(in crate::domain) mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::super::lease::{LeaseId, Model, Placement, Replicas, Spec, Tenure, Triton};
    use super::*;

    const BOUNDS: LifetimeBounds = LifetimeBounds {
        minimum: SignedDuration::from_secs(60),
        default: SignedDuration::from_secs(3600),
        maximum: SignedDuration::from_secs(86_400),
    };
    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    /// Half an hour to load, notices five minutes and one minute before the end.
    fn deadlines() -> Deadlines {
        let notices = vec![SignedDuration::from_mins(5), SignedDuration::from_mins(1)];
        Deadlines { load_timeout: SignedDuration::from_mins(30), notices }
    }

    /// The moment so many seconds after the lease was accepted.
    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// A lease of one hour.
    pub(in crate::domain) fn lease() -> Lease {
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
                automatic_renewal: None,
            },
            deployment: serde_json::Value::Null,
            created_at: at(0),
            expires_at: at(3600),
            tenure: Tenure::starting(at(0)),
            waking_since: None,
            end: None,
            generation: 1,
            version: 7,
            report: Report::nothing_seen(["resnet"]),
        }
    }

    /// A lease of one hour that use keeps alive for half an hour more.
    fn used_lease() -> Lease {
        let mut lease = lease();
        lease.spec.automatic_renewal = Some(AutomaticRenewal { idle_window: HOUR / 2 });
        lease
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
        assert_eq!(lease.due_at(&deadlines()), Some(at(1800)));
        lease.observe(report(Phase::Written, ""));
        assert_eq!(lease.due_at(&deadlines()), Some(at(3300)), "a notice");
        lease.observe(report(Phase::Ready, ""));
        lease.notice(&deadlines().notices, at(3300));
        assert_eq!(lease.due_at(&deadlines()), Some(at(3540)), "the next one");
        lease.notice(&deadlines().notices, at(3550));
        assert_eq!(lease.due_at(&deadlines()), Some(at(3600)));
        lease.release(at(100));
        assert_eq!(lease.due_at(&deadlines()), None);
    }

    #[test]
    fn use_moves_the_end_by_the_idle_window_and_never_beyond_the_longest_lifetime() {
        // Use at this second, the longest lifetime, the end after it.
        let cases = [
            (100, 86_400, 3600, "the lifetime lasts longer than the idle window"),
            (1980, 86_400, 3600, "a tenth of the window is too little to write"),
            (1981, 86_400, 3781, "more than a tenth"),
            (3599, 86_400, 5399, "the last moment"),
            (3000, 4000, 4000, "the longest lifetime"),
            (1981, 3700, 3700, "what is left of it, however little"),
            (3000, 3600, 3600, "nothing is left of it"),
        ];
        for (second, maximum, end, why) in cases {
            let mut lease = used_lease();
            let happening = lease.keep_alive(at(second), SignedDuration::from_secs(maximum), at(second));
            assert_eq!(lease.expires_at, at(end), "{why}");
            assert_eq!(happening.is_some(), end != 3600, "{why}");
            assert_eq!(lease.tenure.last_used_at, (end != 3600).then(|| at(second)), "{why}");
        }
    }

    #[test]
    fn use_keeps_no_lease_alive_that_did_not_ask_for_it_or_has_ended() {
        assert_eq!(lease().keep_alive(at(3500), BOUNDS.maximum, at(3500)), None);
        let mut over = used_lease();
        over.release(at(10));
        assert_eq!(over.keep_alive(at(3500), BOUNDS.maximum, at(3500)), None);
    }

    #[test]
    fn use_that_is_noticed_at_the_end_counts_from_the_end_at_most() {
        for (used_at, now, end) in
            [(3590, 3600, 5390), (3600, 3600, 5400), (4000, 4000, 5400), (1810, 3600, 3610)]
        {
            let mut over = used_lease();
            assert!(over.keep_alive(at(used_at), BOUNDS.maximum, at(now)).is_some());
            assert_eq!((over.expires_at, over.tenure.last_used_at), (at(end), Some(at(used_at.min(3600)))));
        }
        let mut over = used_lease();
        assert!(over.expire(at(3600)).is_some());
        assert_eq!(over.keep_alive(at(3599), BOUNDS.maximum, at(3600)), None, "it has ended");
    }

    #[test]
    fn a_lease_that_use_may_keep_alive_is_renewed_and_updated_until_its_end_is_written() {
        let update = |replicas| Update { scaling: Some(Scaling::Fixed { replicas }), ..Update::default() };
        let mut plain = lease();
        assert!(plain.renew(None, &BOUNDS, at(3600)).is_err());
        let mut over = used_lease();
        assert!(over.update(&update(3), at(3602)).unwrap().is_some());
        assert_eq!(over.notice(&deadlines().notices, at(3603)), None, "its time is over");
        let mut unused = over.clone();
        assert!(over.renew(None, &BOUNDS, at(3604)).is_ok());
        assert_eq!((over.expires_at, over.expire(at(3605))), (at(7204), None), "it lives on");
        assert!(unused.expire(at(3605)).is_some());
        assert!(unused.renew(None, &BOUNDS, at(3606)).is_err());
        assert!(unused.update(&update(2), at(3606)).is_err());
        assert_eq!(unused.end.map(|end| end.at), Some(at(3600)));
    }

    #[test]
    fn renewal_by_use_is_turned_off_and_on_without_touching_the_end_or_the_objects() {
        let mut lease = used_lease();
        let end = lease.expires_at;
        let renewal = lease.spec.automatic_renewal.unwrap();
        let mut update = |renewal| {
            let update = Update { renewal: Some(renewal), ..Update::default() };
            let happening = lease.update(&update, at(60)).unwrap();
            let is_kept = lease.clone().keep_alive(at(3599), BOUNDS.maximum, at(3599)).is_some();
            assert_eq!((lease.expires_at, lease.generation), (end, 1));
            (happening.map(|happening| happening.message).unwrap_or_default(), is_kept)
        };
        assert_eq!(update(Renewal::On(renewal)), (String::new(), true), "it is so already");
        assert_eq!(update(Renewal::Off), ("changed automatic renewal to none".to_owned(), false));
        let on = "changed automatic renewal to 30m after the last use".to_owned();
        assert_eq!(update(Renewal::On(renewal)), (on, true));
    }

    #[test]
    fn each_notice_is_given_once_for_each_end() {
        let mut lease = lease();
        let told = |lease: &mut Lease, second| {
            lease.notice(&deadlines().notices, at(second)).map(|happening| happening.message)
        };
        assert_eq!(told(&mut lease, 3299), None);
        let first = told(&mut lease, 3300).unwrap();
        assert_eq!(first, "ends in 5m, at 1970-01-12T14:46:40Z, unless it is renewed");
        assert_eq!(told(&mut lease, 3301), None, "once");
        assert!(told(&mut lease, 3550).unwrap().starts_with("ends in 50s"), "late, but given");
        assert_eq!(told(&mut lease, 3599), None);

        lease.renew(Some(SignedDuration::from_mins(10)), &BOUNDS, at(3590)).unwrap();
        assert_eq!(told(&mut lease, 3591), None);
        assert!(told(&mut lease, 4180).unwrap().starts_with("ends in 10s"), "one for both that were missed");
        assert_eq!(told(&mut lease, 4185), None);
        assert_eq!(told(&mut lease, 4190), None, "it is over");
    }

    #[test]
    fn a_notice_does_not_promise_that_use_moves_the_end() {
        let mut lease = used_lease();
        let told = lease.notice(&deadlines().notices, at(3300)).unwrap();
        assert_eq!(told.message, "ends in 5m, at 1970-01-12T14:46:40Z, unless it is renewed");
    }

    #[test]
    fn a_lease_shorter_than_a_notice_does_not_get_it() {
        let mut lease = lease();
        lease.renew(Some(SignedDuration::from_mins(5)), &BOUNDS, at(100)).unwrap();
        assert_eq!(lease.notice(&deadlines().notices, at(101)), None);
        assert!(lease.notice(&deadlines().notices, at(340)).is_some(), "but it gets the shorter one");
    }

    #[test]
    fn what_is_left_of_an_ended_lease_is_told_beside_why_it_ended() {
        let mut invalid = lease();
        invalid.invalidate(report(Phase::Loading, "corrupt"), at(10));
        invalid.report.message = invalid.message_of_remains("forbidden");
        assert_eq!(invalid.report.message, "corrupt; its objects are still there: forbidden");
        assert_eq!(invalid.message_of_remains("away"), "corrupt; its objects are still there: away");
        invalid.close(at(20));
        assert_eq!(invalid.report.message, "corrupt");
        let mut released = lease();
        released.release(at(10));
        assert_eq!(released.message_of_remains("forbidden"), "its objects are still there: forbidden");
    }

    #[derive(Clone, Debug)]
    enum Change {
        Renew(Option<i64>),
        Release,
        Expire,
        Invalidate,
        Update(u32, bool),
        Observe(Phase, Option<i64>, Option<i64>),
        KeepAlive(i64),
        Notice,
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
            4 => (0..2000_i64).prop_map(Change::KeepAlive),
            2 => Just(Change::Notice),
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
                let scaling = Some(Scaling::Fixed { replicas: *replicas });
                let update = Update { scaling, labels, renewal: None };
                lease.update(&update, now).is_ok_and(|happening| happening.is_some())
            }
            Change::Observe(phase, ready, closed) => {
                let seen =
                    Report { first_ready_at: ready.map(at), closed_at: closed.map(at), ..report(*phase, "") };
                lease.observe(seen).is_some()
            }
            Change::KeepAlive(idle) => {
                lease.spec.automatic_renewal.is_some()
                    && lease
                        .keep_alive(later(now, SignedDuration::from_secs(-idle)), BOUNDS.maximum, now)
                        .is_some()
            }
            Change::Notice => lease.notice(&deadlines().notices, now).is_some(),
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
            let (mut lease, mut now) = (used_lease(), at(0));
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
                let is_of_time = matches!(change, Change::Renew(_) | Change::KeepAlive(_) | Change::Notice);
                let is_of_objects = is_of_intent && !is_of_time;
                prop_assert_eq!(lease.generation, before.generation + i64::from(is_of_objects));
                prop_assert!(is_of_intent || intent(&lease) == intent(&before));
                if let (Change::Renew(_), true) = (&change, happened) {
                    prop_assert!(lease.expires_at >= now + BOUNDS.minimum && lease.expires_at <= now + BOUNDS.maximum);
                }
                let ceiling = later(lease.tenure.renewed_at, BOUNDS.maximum);
                prop_assert!(lease.expires_at <= ceiling, "use keeps it alive up to the longest lifetime only");
                if let (Change::KeepAlive(_), true) = (&change, happened) {
                    prop_assert!(lease.expires_at > before.expires_at, "use never moves the end back");
                }
                let due_at = lease.due_at(&deadlines());
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
