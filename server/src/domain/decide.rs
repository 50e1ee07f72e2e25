//! The one next thing to do for a lease: a total function of what should be, what was seen, and the time.

use jiff::{SignedDuration, Timestamp};

use super::lease::{Lease, ModelReport, ModelState, Phase, Report};
use super::life::later;
use super::observed::{Objects, Observed, Trouble};

/// The one next thing to do for a lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// End it: its time is over.
    Expire,
    /// End it: its models cannot be loaded, as the report says.
    Invalidate(Report),
    /// Make its objects those of the plan.
    Apply,
    /// Go beyond the generation that its objects carry: another server has, or somebody changed them.
    Surpass(i64),
    /// Keep what was seen.
    Report(Report),
    /// Delete its objects.
    Delete,
    /// Keep that it holds nothing any more.
    Close,
    /// Nothing, until something is seen or the clock says so.
    Rest,
}

/// Returns the next step for `lease`. Taking the steps repeatedly reaches [`Step::Rest`].
pub fn decide(lease: &Lease, observed: &Observed, load_timeout: SignedDuration, now: Timestamp) -> Step {
    if lease.is_closed() {
        return Step::Rest;
    }
    if lease.end.is_some() {
        return match observed.objects {
            Objects::Absent => Step::Close,
            Objects::Deleting => Step::Rest,
            Objects::Differ | Objects::Match | Objects::Superseded(_) | Objects::Written => Step::Delete,
        };
    }
    if now >= lease.expires_at {
        return Step::Expire;
    }
    if let Objects::Superseded(generation) = observed.objects {
        return Step::Surpass(generation);
    }
    let report = report(lease, observed, now);
    if lease.is_loading() && report.first_ready_at.is_none() && report.phase != Phase::Written {
        if let Some(Trouble::Models(_)) = worst_trouble(observed) {
            return Step::Invalidate(report);
        }
        if now >= later(lease.created_at, load_timeout) {
            return Step::Invalidate(timed_out(report, load_timeout));
        }
    }
    if report != lease.report {
        return Step::Report(report);
    }
    match observed.objects {
        Objects::Absent | Objects::Differ => Step::Apply,
        Objects::Deleting | Objects::Match | Objects::Written | Objects::Superseded(_) => Step::Rest,
    }
}

/// Returns the report of `lease` from what was seen.
fn report(lease: &Lease, observed: &Observed, now: Timestamp) -> Report {
    let phase = phase(lease, observed);
    let trouble = worst_trouble(observed);
    let message = match (phase, &trouble, &observed.deployment_fault) {
        // What keeps the objects from being applied, if anything does.
        _ if is_to_be_applied(observed.objects) && trouble.is_none() => lease.report.message.clone(),
        (Phase::Ready | Phase::Asleep | Phase::Written, _, _) => String::new(),
        (_, Some(trouble), _) => keep_detail(&lease.report.message, trouble),
        (_, None, Some(fault)) => format!("replicas cannot be created: {fault}"),
        (Phase::Degraded, None, None) => {
            let needed = lease.spec.scaling.minimum().max(1);
            format!("{} of {needed} replicas are ready", observed.replicas.ready)
        }
        (Phase::Pending | Phase::Provisioning | Phase::Loading, None, None) => String::new(),
    };
    let first_ready_at = match phase {
        Phase::Ready | Phase::Asleep => lease.report.first_ready_at.or(Some(now)),
        Phase::Pending | Phase::Provisioning | Phase::Loading | Phase::Degraded | Phase::Written => {
            lease.report.first_ready_at
        }
    };
    Report {
        phase,
        message,
        replicas: observed.replicas,
        models: models(lease, phase, observed, trouble.as_ref()),
        first_ready_at,
        closed_at: lease.report.closed_at,
    }
}

fn phase(lease: &Lease, observed: &Observed) -> Phase {
    let is_absent = observed.objects == Objects::Absent;
    let needed = lease.spec.scaling.minimum().max(1);
    if observed.objects == Objects::Written || lease.report.phase == Phase::Written {
        Phase::Written
    } else if is_absent && lease.report.first_ready_at.is_none() {
        Phase::Pending
    } else if lease.spec.scaling.minimum() == 0 && observed.replicas.desired == 0 && !is_absent {
        Phase::Asleep
    } else if observed.replicas.ready >= needed {
        Phase::Ready
    } else if lease.report.first_ready_at.is_some() {
        Phase::Degraded
    } else if observed.pods.iter().any(|pod| pod.is_running) {
        Phase::Loading
    } else {
        Phase::Provisioning
    }
}

fn is_to_be_applied(objects: Objects) -> bool {
    match objects {
        Objects::Absent | Objects::Differ => true,
        Objects::Match | Objects::Superseded(_) | Objects::Deleting | Objects::Written => false,
    }
}

fn models(lease: &Lease, phase: Phase, observed: &Observed, trouble: Option<&Trouble>) -> Vec<ModelReport> {
    let state = match phase {
        Phase::Pending | Phase::Provisioning | Phase::Asleep | Phase::Written => ModelState::Pending,
        Phase::Loading => ModelState::Loading,
        Phase::Ready => ModelState::Ready,
        Phase::Degraded if observed.replicas.ready > 0 => ModelState::Ready,
        Phase::Degraded => ModelState::Loading,
    };
    let faults = match trouble {
        Some(Trouble::Models(faults)) => faults.as_slice(),
        _ => &[],
    };
    let report = |name: &String| match faults.iter().find(|fault| fault.name == *name) {
        Some(fault) => {
            ModelReport { name: name.clone(), state: ModelState::Failed, message: fault.message.clone() }
        }
        None => ModelReport { name: name.clone(), state, message: String::new() },
    };
    lease.spec.models.iter().map(|model| report(&model.name)).collect()
}

fn worst_trouble(observed: &Observed) -> Option<Trouble> {
    observed.pods.iter().filter_map(|pod| pod.trouble.clone()).min()
}

/// Returns the sentence of `trouble`, or `known` where that says the same: with more detail, since kubelets alternate
/// between a full and a bare form of one image error, or with other numbers, such as those of nodes. Each form would be a
/// change.
fn keep_detail(known: &str, trouble: &Trouble) -> String {
    let sentence = trouble.sentence();
    let is_bare = matches!(trouble, Trouble::Image { detail, .. } if detail.is_empty());
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let is_known = (is_bare && known.starts_with(&sentence)) || words(known) == words(&sentence);
    if is_known { known.to_owned() } else { sentence }
}

fn timed_out(report: Report, load_timeout: SignedDuration) -> Report {
    let cause = if report.message.is_empty() { String::new() } else { format!(": {}", report.message) };
    let message = format!("not ready within {load_timeout:#} (server.leases.loadTimeout){cause}");
    Report { message, ..report }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::lease::{End, EndReason, LeaseId, Model, Placement, Replicas, Spec, State, Triton};
    use crate::domain::observed::{ModelFault, PodSeen};
    use crate::domain::scaling::Scaling;

    const LOAD_TIMEOUT: SignedDuration = SignedDuration::from_mins(30);

    fn at(minutes: i64) -> Timestamp {
        later(Timestamp::UNIX_EPOCH, SignedDuration::from_mins(minutes))
    }

    /// A lease of two replicas, acquired at minute 0, for one hour.
    fn lease() -> Lease {
        let model = Model { name: "bert".to_owned(), uri: "https://models.example.com/bert".to_owned() };
        Lease {
            id: LeaseId::random(),
            owner: "ada".to_owned(),
            namespace: "tms".to_owned(),
            placement: Placement::Bespoke,
            spec: Spec {
                models: vec![model],
                triton: Triton {
                    image: "tritonserver".to_owned(),
                    gpus: 1,
                    gpu_resource: "nvidia.com/gpu".to_owned(),
                    cpu: "4".to_owned(),
                    memory: "16Gi".to_owned(),
                    shared_memory: "1Gi".to_owned(),
                    environment: BTreeMap::new(),
                    node_selector: BTreeMap::new(),
                    tolerations: Vec::new(),
                    affinity: None,
                },
                scaling: Scaling::Fixed { replicas: 2 },
                lifetime: SignedDuration::from_hours(1),
                labels: BTreeMap::new(),
            },
            deployment: serde_json::Value::Null,
            created_at: at(0),
            expires_at: at(60),
            end: None,
            generation: 1,
            version: 1,
            report: Report::nothing_seen(["bert"]),
        }
    }

    fn seen(objects: Objects, ready: u32) -> Observed {
        let is_absent = objects == Objects::Absent;
        let replicas =
            if is_absent { Replicas::default() } else { Replicas { desired: 2, current: 2, ready } };
        Observed { objects, replicas, deployment_fault: None, pods: Vec::new() }
    }

    fn ended(mut lease: Lease) -> Lease {
        lease.end = Some(End { at: at(5), reason: EndReason::Released });
        lease
    }

    fn troubled(trouble: Trouble) -> Observed {
        let pods = vec![PodSeen { is_running: false, trouble: Some(trouble) }];
        Observed { pods, ..seen(Objects::Match, 0) }
    }

    fn was_ready(mut lease: Lease) -> Lease {
        lease.report.first_ready_at = Some(at(1));
        lease.report.phase = Phase::Ready;
        lease.report.replicas = Replicas { desired: 2, current: 2, ready: 2 };
        lease.report.models[0].state = ModelState::Ready;
        lease
    }

    fn was_written(mut lease: Lease) -> Lease {
        lease.report.phase = Phase::Written;
        lease
    }

    /// Files, of whose replicas nothing is known.
    fn files(objects: Objects) -> Observed {
        Observed { replicas: Replicas::default(), ..seen(objects, 0) }
    }

    /// The state that the lease has after the step, or the step itself.
    fn outcome(lease: &Lease, observed: &Observed, minute: i64) -> String {
        match decide(lease, observed, LOAD_TIMEOUT, at(minute)) {
            Step::Report(report) => {
                let lease = Lease { report, ..lease.clone() };
                format!("{}: {}", lease.state(), lease.report.message)
            }
            Step::Invalidate(report) => format!("invalid: {}", report.message),
            step => format!("{step:?}"),
        }
    }

    #[test]
    fn each_situation_has_its_step() {
        let image = Trouble::Image { image: "triton:1".to_owned(), detail: "not found".to_owned() };
        let nodes = Trouble::Unschedulable { detail: "0/3 nodes are available".to_owned() };
        let fault = ModelFault { name: "bert".to_owned(), message: "no version directory".to_owned() };
        let cases: Vec<(Lease, Observed, i64, &str)> = vec![
            (lease(), seen(Objects::Absent, 0), 0, "Apply"),
            (lease(), seen(Objects::Differ, 0), 0, "PROVISIONING: "),
            (lease(), seen(Objects::Differ, 2), 0, "READY: "),
            (was_ready(lease()), seen(Objects::Differ, 2), 31, "Apply"),
            (was_ready(lease()), seen(Objects::Absent, 0), 31, "DEGRADED: "),
            (lease(), seen(Objects::Deleting, 0), 0, "PROVISIONING: "),
            (was_written(lease()), files(Objects::Differ), 31, "Apply"),
            (was_written(lease()), files(Objects::Absent), 31, "Apply"),
            (was_written(lease()), files(Objects::Written), 31, "Rest"),
            (lease(), seen(Objects::Superseded(7), 0), 0, "Surpass(7)"),
            (lease(), seen(Objects::Match, 0), 0, "PROVISIONING: "),
            (lease(), seen(Objects::Match, 2), 0, "READY: "),
            (lease(), seen(Objects::Match, 1), 0, "PROVISIONING: "),
            (lease(), files(Objects::Written), 0, "WRITTEN: "),
            (was_ready(lease()), seen(Objects::Match, 1), 2, "DEGRADED: 1 of 2 replicas are ready"),
            (
                lease(),
                troubled(image),
                0,
                "PROVISIONING: image triton:1 cannot be pulled; check its name and the pull secrets (images.secrets): not found",
            ),
            (
                lease(),
                troubled(nodes),
                0,
                "PROVISIONING: no node can take a replica; ask for less or wait for capacity: 0/3 nodes are available",
            ),
            (
                lease(),
                troubled(Trouble::Models(vec![fault.clone()])),
                0,
                "invalid: models cannot be loaded: bert: no version directory",
            ),
            (
                was_ready(lease()),
                troubled(Trouble::Models(vec![fault])),
                2,
                "DEGRADED: models cannot be loaded: bert: no version directory",
            ),
            (
                lease(),
                seen(Objects::Match, 0),
                30,
                "invalid: not ready within 30m (server.leases.loadTimeout)",
            ),
            (lease(), seen(Objects::Match, 2), 30, "READY: "),
            (lease(), seen(Objects::Match, 2), 60, "Expire"),
            (lease(), seen(Objects::Superseded(7), 2), 60, "Expire"),
            (ended(lease()), seen(Objects::Match, 2), 6, "Delete"),
            (ended(lease()), seen(Objects::Superseded(7), 2), 6, "Delete"),
            (ended(lease()), seen(Objects::Deleting, 2), 6, "Rest"),
            (ended(lease()), seen(Objects::Absent, 0), 6, "Close"),
        ];
        for (lease, observed, minute, expected) in cases {
            assert_eq!(outcome(&lease, &observed, minute), expected, "{observed:?} at minute {minute}");
        }
    }

    #[test]
    fn an_image_error_that_comes_and_goes_in_two_forms_is_one_message() {
        let trouble =
            |detail: &str| Trouble::Image { image: "triton:1".to_owned(), detail: detail.to_owned() };
        let mut lease = lease();
        let Step::Report(report) = decide(&lease, &troubled(trouble("not found")), LOAD_TIMEOUT, at(1))
        else {
            panic!("the image error is reported");
        };
        lease.observe(report);
        assert_eq!(outcome(&lease, &troubled(trouble("")), 2), "Rest");
    }

    /// What a cluster does by itself between two steps.
    #[derive(Clone, Copy, Debug)]
    enum Weather {
        PodsGetReady,
        PodsFail,
        RivalEdits,
        RivalDeletes,
        Minutes(i64),
        OwnerReleases,
        OwnerRenews,
    }

    fn weather() -> impl Strategy<Value = Weather> {
        prop_oneof![
            Just(Weather::PodsGetReady),
            Just(Weather::PodsFail),
            Just(Weather::RivalEdits),
            Just(Weather::RivalDeletes),
            (1..40i64).prop_map(Weather::Minutes),
            Just(Weather::OwnerReleases),
            Just(Weather::OwnerRenews),
        ]
    }

    struct World {
        lease: Lease,
        observed: Observed,
        minute: i64,
    }

    impl World {
        fn happen(&mut self, weather: Weather) {
            let has_objects = !matches!(self.observed.objects, Objects::Absent | Objects::Deleting);
            match weather {
                Weather::PodsGetReady if has_objects => self.observed.replicas.ready = 2,
                Weather::PodsFail => self.observed.replicas.ready = 0,
                Weather::RivalEdits if has_objects => self.observed.objects = Objects::Differ,
                Weather::RivalDeletes => self.observed = seen(Objects::Absent, 0),
                Weather::PodsGetReady | Weather::RivalEdits => {}
                Weather::Minutes(minutes) => self.minute += minutes,
                Weather::OwnerReleases => {
                    self.lease.release(at(self.minute));
                }
                Weather::OwnerRenews => {
                    let bounds = crate::domain::lease::LifetimeBounds {
                        minimum: SignedDuration::from_mins(1),
                        default: SignedDuration::from_hours(1),
                        maximum: SignedDuration::from_hours(2),
                    };
                    // An ended lease refuses, as it should.
                    let _ = self.lease.renew(None, &bounds, at(self.minute));
                }
            }
        }

        /// Takes steps until rest; returns them.
        fn settle(&mut self) -> Vec<Step> {
            let mut steps = Vec::new();
            loop {
                assert!(steps.len() < 10, "the lease does not come to rest: {steps:?}");
                let now = at(self.minute);
                let step = decide(&self.lease, &self.observed, LOAD_TIMEOUT, now);
                match step.clone() {
                    Step::Rest if self.observed.objects == Objects::Deleting => {
                        self.observed = seen(Objects::Absent, 0);
                    }
                    Step::Rest => return steps,
                    Step::Apply => self.observed.objects = Objects::Match,
                    Step::Surpass(_) => panic!("nobody else is here"),
                    Step::Delete => self.observed.objects = Objects::Deleting,
                    Step::Expire => drop(self.lease.expire(now)),
                    Step::Invalidate(report) => drop(self.lease.invalidate(report, now)),
                    Step::Report(report) => drop(self.lease.observe(report)),
                    Step::Close => drop(self.lease.close(now)),
                }
                steps.push(step);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_repeated_steps_reach_rest(story in prop::collection::vec(weather(), 0..20)) {
            let mut world = World { lease: lease(), observed: seen(Objects::Absent, 0), minute: 0 };
            for weather in story {
                world.happen(weather);
                let had_ended = world.lease.end.is_some();
                let steps = world.settle();
                prop_assert!(!had_ended || !steps.contains(&Step::Apply), "an ended lease is never applied");
                let is_over = at(world.minute) >= world.lease.expires_at;
                prop_assert!(!is_over || world.lease.end.is_some(), "no lease rests past its expiry");
                prop_assert_eq!(world.lease.end.is_some(), world.lease.is_closed());
                prop_assert_eq!(world.lease.end.is_some(), world.lease.state().is_end());
                if world.lease.is_closed() {
                    prop_assert_eq!(world.observed.objects, Objects::Absent);
                } else {
                    let was_never_ready = world.lease.report.first_ready_at.is_none();
                    let deadline = later(world.lease.created_at, LOAD_TIMEOUT);
                    prop_assert!(!was_never_ready || at(world.minute) < deadline);
                    prop_assert!(world.lease.due_at(LOAD_TIMEOUT).is_some_and(|due| due > at(world.minute)));
                    prop_assert_ne!(world.lease.state(), State::Pending);
                }
            }
        }
    }
}
