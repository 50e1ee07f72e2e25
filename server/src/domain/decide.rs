//! The one next thing to do for a lease: a total function of what should be, what was seen, and the time.

use jiff::{SignedDuration, Timestamp};

use super::lease::{Lease, ModelReport, Phase, Report};
use super::life::{Deadlines, later};
use super::observed::{Objects, Observed, PodSeen, Trouble};
use super::progress;

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
    /// Give notice of its end.
    Notice,
    /// Keep what was seen.
    Report(Report),
    /// Let it fall asleep again, some time: it is awake.
    Awake,
    /// Delete its objects.
    Delete,
    /// Keep that it holds nothing any more.
    Close,
    /// Nothing, until something is seen or the clock says so.
    Rest,
}

/// How long the objects of an ended lease may take to go, beyond the time that their pods have, before it says so.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Returns the next step for `lease`. Taking the steps repeatedly reaches [`Step::Rest`].
pub fn decide(lease: &Lease, observed: &Observed, deadlines: &Deadlines, now: Timestamp) -> Step {
    if lease.is_closed() {
        return Step::Rest;
    }
    if lease.end.is_some() {
        return match observed.objects {
            Objects::Absent => Step::Close,
            Objects::Deleting => wait_for_the_end(lease, now),
            Objects::Differ | Objects::Match | Objects::Superseded(_) | Objects::Written => Step::Delete,
        };
    }
    if now >= lease.expires_at {
        return Step::Expire;
    }
    if lease.owes_notice(&deadlines.notices, now) {
        return Step::Notice;
    }
    if let Objects::Superseded(generation) = observed.objects {
        return Step::Surpass(generation);
    }
    let report = report(lease, observed, deadlines, now);
    if lease.is_loading() && report.first_ready_at.is_none() && report.phase != Phase::Written {
        if let Some(Trouble::Models(_)) = worst_trouble(observed) {
            return Step::Invalidate(report);
        }
        if now >= later(lease.created_at, deadlines.load_timeout) {
            return Step::Invalidate(timed_out(report, observed, deadlines.load_timeout));
        }
    }
    if report != lease.report {
        return Step::Report(report);
    }
    if is_awake(lease, observed) {
        return Step::Awake;
    }
    match observed.objects {
        Objects::Absent | Objects::Differ => Step::Apply,
        Objects::Deleting | Objects::Match | Objects::Written | Objects::Superseded(_) => Step::Rest,
    }
}

/// Whether a lease that was to wake has: a replica serves, and KEDA has taken it for active since, so that the cooldown begins
/// then. KEDA tells whole seconds.
fn is_awake(lease: &Lease, observed: &Observed) -> bool {
    let Some(asked_at) = lease.waking_since else { return false };
    let ready = observed.pods.iter().filter(|pod| pod.is_ready);
    let since = ready.filter_map(|pod| pod.start.ready_at).min().map_or(asked_at, |at| at.max(asked_at));
    let is_counted = observed.active_at.is_some_and(|at| at.as_second() >= since.as_second());
    observed.objects == Objects::Match && observed.replicas.ready > 0 && is_counted
}

/// Returns the report of `lease` from what was seen.
fn report(lease: &Lease, observed: &Observed, deadlines: &Deadlines, now: Timestamp) -> Report {
    let phase = phase(lease, observed);
    let trouble = worst_trouble(observed);
    let models = progress::models(lease, phase, observed, trouble.as_ref());
    let message = match (phase, &trouble, &observed.deployment_fault) {
        // What keeps the objects from being applied, if anything does.
        _ if is_to_be_applied(observed.objects) && trouble.is_none() => lease.report.message.clone(),
        (Phase::Ready | Phase::Asleep | Phase::Written, _, _) => String::new(),
        (_, Some(trouble), _) => keep_detail(&lease.report.message, trouble),
        (_, None, Some(fault)) => format!("replicas cannot be created: {fault}"),
        (Phase::Degraded, None, None) => shortage(lease, observed, &models),
        (Phase::Loading, None, None) => retrying(lease, &models, deadlines),
        (Phase::Pending | Phase::Provisioning, None, None) => String::new(),
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
        models,
        first_ready_at,
        closed_at: lease.report.closed_at,
    }
}

fn phase(lease: &Lease, observed: &Observed) -> Phase {
    let is_absent = observed.objects == Objects::Absent;
    let needed = lease.spec.scaling.minimum().max(1);
    let was_ready = lease.report.first_ready_at.is_some();
    let is_enough = observed.replicas.ready >= needed;
    if observed.objects == Objects::Written || lease.report.phase == Phase::Written {
        Phase::Written
    } else if is_absent && !was_ready {
        Phase::Pending
    } else if lease.spec.scaling.minimum() == 0 && observed.replicas.desired == 0 && !is_absent {
        Phase::Asleep
    } else if is_enough && !(was_ready && observed.pods.iter().any(|pod| progress::cannot_load(lease, pod))) {
        Phase::Ready
    } else if was_ready && !wakes(lease, observed) {
        Phase::Degraded
    } else if observed.pods.iter().any(|pod| pod.is_running) {
        Phase::Loading
    } else {
        Phase::Provisioning
    }
}

/// Whether a lease that slept has no ready replica because the first one starts.
fn wakes(lease: &Lease, observed: &Observed) -> bool {
    let has_slept = match lease.report.phase {
        Phase::Asleep | Phase::Provisioning | Phase::Loading => true,
        Phase::Pending | Phase::Ready | Phase::Degraded | Phase::Written => false,
    };
    lease.spec.scaling.minimum() == 0 && has_slept && observed.replicas.ready == 0
}

fn is_to_be_applied(objects: Objects) -> bool {
    match objects {
        Objects::Absent | Objects::Differ => true,
        Objects::Match | Objects::Superseded(_) | Objects::Deleting | Objects::Written => false,
    }
}

/// Returns how a lease that was ready falls short, and why as far as replicas say it.
fn shortage(lease: &Lease, observed: &Observed, models: &[ModelReport]) -> String {
    let needed = lease.spec.scaling.minimum().max(1);
    let short = match observed.replicas.ready {
        ready if ready < needed => format!("{ready} of {needed} replicas are ready"),
        _ => "a replica cannot load its models".to_owned(),
    };
    let is_of_lease = |name: &str| lease.spec.models.iter().any(|model| model.name == name);
    let of_pod = |pod: &PodSeen| {
        let models = pod.told().iter().filter(|model| is_of_lease(&model.name));
        progress::reason(&models.cloned().collect::<Vec<_>>())
    };
    match progress::reason(models).or_else(|| observed.pods.iter().find_map(of_pod)) {
        Some(reason) => format!("{short}: {reason}"),
        None => short,
    }
}

/// Returns what keeps models from being loaded for the first time though it may pass, and until when they are tried again.
fn retrying(lease: &Lease, models: &[ModelReport], deadlines: &Deadlines) -> String {
    let until = later(lease.created_at, deadlines.load_timeout);
    match progress::reason_to_retry(models) {
        Some(reason) if until <= lease.expires_at => {
            format!("{reason}; tried again until {until} (server.leases.loadTimeout)")
        }
        Some(reason) => format!("{reason}; tried again until the lease ends"),
        None => String::new(),
    }
}

/// Returns the step for an ended lease whose objects are being deleted: to say so once that takes too long.
fn wait_for_the_end(lease: &Lease, now: Timestamp) -> Step {
    let grace = lease.deployment.pointer("/spec/template/spec/terminationGracePeriodSeconds");
    let grace = SignedDuration::from_secs(grace.and_then(serde_json::Value::as_i64).unwrap_or(0));
    let is_late = lease.end.is_some_and(|end| now >= later(later(end.at, grace), PATIENCE));
    if !is_late || lease.tells_remains() {
        return Step::Rest;
    }
    let message = lease.message_of_remains(
        "the cluster has not deleted them yet; what they wait for is in their finalizers and pods",
    );
    Step::Report(Report { message, ..lease.report.clone() })
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
    let is_known =
        (is_bare && known.starts_with(&sentence)) || progress::is_same_but_numbers(known, &sentence);
    if is_known { known.to_owned() } else { sentence }
}

fn timed_out(report: Report, observed: &Observed, load_timeout: SignedDuration) -> Report {
    // What models say of themselves comes in their own words, without that they are tried again.
    let is_of_models =
        worst_trouble(observed).is_none() && progress::reason_to_retry(&report.models).is_some();
    let cause = Some(report.message.clone()).filter(|message| !message.is_empty() && !is_of_models);
    let cause = cause.or_else(|| progress::reason(&report.models));
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let message = format!("not ready within {load_timeout:#} (server.leases.loadTimeout){cause}");
    Report { message, ..report }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::lease::{
        End, EndReason, LeaseId, Model, ModelState, Placement, Replicas, Spec, State, Tenure, Triton,
    };
    use crate::domain::observed::{ModelFault, PodSeen};
    use crate::domain::scaling::{
        Autoscaling, Behavior, MetricName, PolicyKind, Scaling, ScalingPolicy, ScalingRules, SelectPolicy,
    };
    use crate::domain::start::Start;

    /// Half an hour to load, a notice five minutes before the end.
    fn deadlines() -> Deadlines {
        let notices = vec![SignedDuration::from_mins(5)];
        Deadlines { load_timeout: SignedDuration::from_mins(30), notices }
    }

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
                automatic_renewal: None,
            },
            deployment: serde_json::Value::Null,
            created_at: at(0),
            expires_at: at(60),
            tenure: Tenure::starting(at(0)),
            waking_since: None,
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
        Observed { objects, replicas, deployment_fault: None, pods: Vec::new(), active_at: None }
    }

    fn ended(mut lease: Lease) -> Lease {
        lease.end = Some(End { at: at(5), reason: EndReason::Released });
        lease
    }

    fn troubled(trouble: Trouble) -> Observed {
        let pods = vec![PodSeen { trouble: Some(trouble), ..PodSeen::default() }];
        Observed { pods, ..seen(Objects::Match, 0) }
    }

    fn was_ready(mut lease: Lease) -> Lease {
        lease.report.first_ready_at = Some(at(1));
        lease.report.phase = Phase::Ready;
        lease.report.replicas = Replicas { desired: 2, current: 2, ready: 2 };
        lease.report.models[0].state = ModelState::Ready;
        lease
    }

    /// A lease that may sleep, was ready, and was in this phase when it was looked at last.
    fn sleepy(phase: Phase) -> Lease {
        let mut lease = was_ready(lease());
        let rules = || ScalingRules {
            stabilization_window_seconds: 0,
            select_policy: SelectPolicy::Max,
            policies: vec![ScalingPolicy { kind: PolicyKind::Pods, value: 1, period_seconds: 60 }],
            tolerance_milli: None,
        };
        lease.spec.scaling = Scaling::Auto(Autoscaling {
            minimum: 0,
            maximum: 2,
            metrics: BTreeMap::from([(MetricName::QueueTime, 10_000)]),
            behavior: Behavior { scale_up: rules(), scale_down: rules() },
            triggers: Vec::new(),
        });
        lease.report.phase = phase;
        lease.report.replicas = Replicas::default();
        lease.report.models[0].state =
            if phase == Phase::Ready { ModelState::Ready } else { ModelState::Pending };
        lease
    }

    /// So many replicas wanted, so many of them ready.
    fn scaled(desired: u32, ready: u32) -> Observed {
        let replicas = Replicas { desired, current: desired, ready };
        let pods = vec![PodSeen { is_running: true, ..PodSeen::default() }; desired as usize];
        Observed { replicas, pods, ..seen(Objects::Match, ready) }
    }

    #[test]
    fn a_lease_that_may_sleep_is_asleep_starts_and_is_ready_but_not_degraded_when_it_wakes() {
        let waking = |phase, minute| Lease { waking_since: Some(at(minute)), ..sleepy(phase) };
        let active = |minute, ready| Observed { active_at: Some(at(minute)), ..scaled(1, ready) };
        let pending = Observed { pods: Vec::new(), ..scaled(1, 0) };
        let cases = [
            (sleepy(Phase::Ready), scaled(0, 0), "ASLEEP: "),
            (sleepy(Phase::Asleep), scaled(0, 0), "Rest"),
            (sleepy(Phase::Asleep), pending, "PROVISIONING: "),
            (sleepy(Phase::Asleep), scaled(1, 0), "LOADING: "),
            (sleepy(Phase::Loading), scaled(1, 1), "READY: "),
            (sleepy(Phase::Provisioning), scaled(0, 0), "ASLEEP: "),
            // One that served and does so no more has trouble, however few replicas it may have.
            (sleepy(Phase::Ready), scaled(1, 0), "DEGRADED: 0 of 1 replicas are ready"),
            (sleepy(Phase::Degraded), scaled(1, 0), "DEGRADED: 0 of 1 replicas are ready"),
            // It is awake once a replica serves and KEDA counts its cooldown.
            (waking(Phase::Asleep, 2), scaled(0, 0), "Rest"),
            (waking(Phase::Ready, 2), Observed { active_at: Some(at(1)), ..scaled(1, 1) }, "READY: "),
            (waking(Phase::Ready, 2), active(2, 1), "READY: "),
        ];
        for (line, (lease, observed, expected)) in cases.into_iter().enumerate() {
            assert_eq!(outcome(&lease, &observed, 3), expected, "case {line}");
        }
        let mut reported = waking(Phase::Ready, 2);
        reported.report.replicas = Replicas { desired: 1, current: 1, ready: 1 };
        assert_eq!(outcome(&reported, &active(1, 1), 3), "Rest", "KEDA has not heard of it yet");
        assert_eq!(outcome(&reported, &active(2, 1), 3), "Awake");
        let start = Start { ready_at: Some(at(3)), ..Start::default() };
        let slow = vec![PodSeen { is_ready: true, start, ..PodSeen::default() }];
        let loaded = |minute| Observed { pods: slow.clone(), ..active(minute, 1) };
        assert_eq!(outcome(&reported, &loaded(2), 4), "Rest", "a cooldown is not for loading");
        assert_eq!(outcome(&reported, &loaded(3), 4), "Awake");
        let differs = Observed { objects: Objects::Differ, ..active(2, 1) };
        assert_eq!(outcome(&reported, &differs, 3), "Apply");
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
        match decide(lease, observed, &deadlines(), at(minute)) {
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
            (was_ready(lease()), seen(Objects::Match, 2), 54, "Rest"),
            (was_ready(lease()), seen(Objects::Match, 2), 55, "Notice"),
            (was_ready(lease()), seen(Objects::Absent, 0), 59, "Notice"),
            (lease(), seen(Objects::Match, 2), 60, "Expire"),
            (lease(), seen(Objects::Superseded(7), 2), 60, "Expire"),
            (ended(lease()), seen(Objects::Match, 2), 6, "Delete"),
            (ended(lease()), seen(Objects::Superseded(7), 2), 6, "Delete"),
            (ended(lease()), seen(Objects::Deleting, 2), 9, "Rest"),
            (
                ended(lease()),
                seen(Objects::Deleting, 2),
                10,
                "RELEASED: its objects are still there: the cluster has not deleted them yet; what they wait for is in their \
                 finalizers and pods",
            ),
            (ended(lease()), seen(Objects::Absent, 0), 6, "Close"),
        ];
        for (lease, observed, minute, expected) in cases {
            assert_eq!(outcome(&lease, &observed, minute), expected, "{observed:?} at minute {minute}");
        }
    }

    #[test]
    fn a_replica_beyond_the_fewest_that_cannot_load_degrades_the_lease_until_it_can() {
        let fault = ModelFault { name: "bert".to_owned(), message: "out of GPU memory".to_owned() };
        let ready = PodSeen { is_running: true, is_ready: true, ..PodSeen::default() };
        let failing = PodSeen { trouble: Some(Trouble::Models(vec![fault])), ..PodSeen::default() };
        let healed = PodSeen { is_ready: true, ..failing.clone() };
        let with = |other: &PodSeen| Observed {
            pods: vec![ready.clone(), ready.clone(), other.clone()],
            ..seen(Objects::Match, 2)
        };
        let mut lease = was_ready(lease());
        let said = "DEGRADED: models cannot be loaded: bert: out of GPU memory";
        assert_eq!(outcome(&lease, &with(&failing), 2), said);
        lease.report.phase = Phase::Degraded;
        assert_eq!(outcome(&lease, &with(&healed), 3), "READY: ");
    }

    #[test]
    fn a_server_that_has_asked_no_agent_yet_takes_nothing_back() {
        let downloading = ModelReport {
            downloaded_bytes: Some(60),
            total_bytes: Some(100),
            ..ModelReport::new("bert", ModelState::Downloading, "")
        };
        let unheard = PodSeen { is_running: true, ..PodSeen::default() };
        let ready = PodSeen { is_ready: true, ..unheard.clone() };
        let mut loading = lease();
        loading.report.phase = Phase::Loading;
        loading.report.replicas = Replicas { desired: 2, current: 2, ready: 0 };
        loading.report.models[0] = downloading;
        let pods = |pods| Observed { pods, ..seen(Objects::Match, 0) };
        assert_eq!(outcome(&loading, &pods(vec![unheard.clone(), unheard.clone()]), 2), "Rest");

        let mut degraded = was_ready(lease());
        degraded.report.phase = Phase::Degraded;
        degraded.report.models[0] = ModelReport::new("bert", ModelState::Failed, "corrupt");
        degraded.report.message = "a replica cannot load its models: bert: corrupt".to_owned();
        let of = |other: &PodSeen| Observed {
            pods: vec![ready.clone(), ready.clone(), other.clone()],
            ..seen(Objects::Match, 2)
        };
        assert_eq!(outcome(&degraded, &of(&unheard), 2), "Rest");
        assert_eq!(outcome(&degraded, &of(&ready), 2), "READY: ");
    }

    #[test]
    fn a_degraded_lease_says_what_its_replica_says() {
        let reload = ModelReport::new("bert", ModelState::Loading, "Triton does not answer");
        let pod = PodSeen { is_running: true, models: Some(vec![reload]), ..PodSeen::default() };
        let ready = PodSeen { is_running: true, is_ready: true, ..PodSeen::default() };
        let observed = Observed { pods: vec![ready, pod], ..seen(Objects::Match, 1) };
        let said = "DEGRADED: 1 of 2 replicas are ready: bert: Triton does not answer";
        assert_eq!(outcome(&was_ready(lease()), &observed, 2), said);
    }

    #[test]
    fn a_degraded_lease_speaks_of_its_own_models_only() {
        let told = |name| ModelReport::new(name, ModelState::Loading, "Triton does not answer");
        let replica = |names: &[&'static str]| PodSeen {
            is_running: true,
            models: Some(names.iter().copied().map(told).collect()),
            ..PodSeen::default()
        };
        let outcome_of = |pods| {
            let observed = Observed { pods, ..seen(Objects::Match, 1) };
            outcome(&was_ready(lease()), &observed, 2)
        };
        let short = "DEGRADED: 1 of 2 replicas are ready";
        assert_eq!(outcome_of(vec![replica(&["other"])]), short);
        let said = format!("{short}: bert: Triton does not answer");
        assert_eq!(outcome_of(vec![replica(&["other", "bert"]), replica(&["another"])]), said);
    }

    #[test]
    fn a_lease_that_took_too_long_says_what_its_models_waited_for() {
        let waiting = ModelReport::new("bert", ModelState::Downloading, "models.example.com: 503");
        let pod = PodSeen { is_running: true, models: Some(vec![waiting]), ..PodSeen::default() };
        let observed = Observed { pods: vec![pod], ..seen(Objects::Match, 0) };
        let said = "invalid: not ready within 30m (server.leases.loadTimeout): bert: models.example.com: 503";
        assert_eq!(outcome(&lease(), &observed, 30), said);
    }

    #[test]
    fn a_lease_whose_model_is_tried_again_says_so_at_once_how_often_and_until_when() {
        let in_vain = |failed_tries| {
            let waiting = ModelReport::new("bert", ModelState::Loading, "CUDA out of memory");
            let pod = PodSeen {
                is_running: true,
                models: Some(vec![ModelReport { failed_tries, ..waiting }]),
                ..PodSeen::default()
            };
            Observed { pods: vec![pod], ..seen(Objects::Match, 0) }
        };
        let said = "LOADING: bert: CUDA out of memory (tried once); tried again until 1970-01-01T00:30:00Z \
                    (server.leases.loadTimeout)";
        assert_eq!(outcome(&lease(), &in_vain(1), 1), said);
        let said = "LOADING: bert: CUDA out of memory (tried 8 times or more); tried again until 1970-01-01T00:30:00Z \
                    (server.leases.loadTimeout)";
        assert_eq!(outcome(&lease(), &in_vain(8), 2), said);
        let said = "invalid: not ready within 30m (server.leases.loadTimeout): bert: CUDA out of memory \
                    (tried 16 times or more)";
        assert_eq!(outcome(&lease(), &in_vain(16), 30), said);
        let short = Lease { expires_at: at(20), ..lease() };
        let said = "LOADING: bert: CUDA out of memory (tried once); tried again until the lease ends";
        assert_eq!(outcome(&short, &in_vain(1), 1), said);
    }

    #[test]
    fn an_image_error_that_comes_and_goes_in_two_forms_is_one_message() {
        let trouble =
            |detail: &str| Trouble::Image { image: "triton:1".to_owned(), detail: detail.to_owned() };
        let mut lease = lease();
        let Step::Report(report) = decide(&lease, &troubled(trouble("not found")), &deadlines(), at(1))
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
        OwnerActivates,
        KedaLooks,
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
            Just(Weather::OwnerActivates),
            Just(Weather::KedaLooks),
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
                Weather::OwnerActivates => {
                    // So does it here.
                    let _ = self.lease.activate(at(self.minute));
                }
                Weather::KedaLooks => self.observed.active_at = Some(at(self.minute)),
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
                let step = decide(&self.lease, &self.observed, &deadlines(), now);
                match step.clone() {
                    Step::Rest if self.observed.objects == Objects::Deleting => {
                        self.observed = seen(Objects::Absent, 0);
                    }
                    Step::Rest => return steps,
                    Step::Apply => self.observed.objects = Objects::Match,
                    Step::Surpass(_) => panic!("nobody else is here"),
                    Step::Delete => self.observed.objects = Objects::Deleting,
                    Step::Expire => drop(self.lease.expire(now)),
                    Step::Notice => drop(self.lease.notice(&deadlines().notices, now)),
                    Step::Invalidate(report) => drop(self.lease.invalidate(report, now)),
                    Step::Report(report) => drop(self.lease.observe(report)),
                    Step::Close => drop(self.lease.close(now)),
                    Step::Awake => drop(self.lease.awake().expect("it was to wake")),
                }
                steps.push(step);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_repeated_steps_reach_rest(
            story in prop::collection::vec(weather(), 0..20),
            may_sleep: bool,
        ) {
            let mut lease = lease();
            if may_sleep {
                (lease.spec.scaling, lease.waking_since) = (sleepy(Phase::Pending).spec.scaling, Some(at(0)));
            }
            let mut world = World { lease, observed: seen(Objects::Absent, 0), minute: 0 };
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
                    let deadline = later(world.lease.created_at, deadlines().load_timeout);
                    prop_assert!(!was_never_ready || at(world.minute) < deadline);
                    prop_assert!(world.lease.due_at(&deadlines()).is_some_and(|due| due > at(world.minute)));
                    prop_assert_ne!(world.lease.state(), State::Pending);
                }
            }
        }
    }
}
