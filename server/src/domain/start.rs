//! Where the first start of a lease went: the moments of the replica that made it READY.

use jiff::{SignedDuration, Timestamp};

use super::lease::Lease;
use super::observed::Observed;

/// Moments in the start of one pod, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// A node was found.
    pub scheduled_at: Option<Timestamp>,
    /// Every model was laid out, and Triton began to start.
    pub fetched_at: Option<Timestamp>,
    /// Every model was loaded.
    pub loaded_at: Option<Timestamp>,
    /// It was ready to serve.
    pub ready_at: Option<Timestamp>,
}

/// Where the first start of a lease went. Each part counts from the end of the one before that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdStart {
    /// Until a node was found, its objects' creation included.
    pub scheduled: Option<SignedDuration>,
    /// Until every model was laid out, the pull of images included.
    pub fetched: Option<SignedDuration>,
    /// Until every model was loaded, Triton's own start included.
    pub loaded: Option<SignedDuration>,
    /// Until it was ready to serve.
    pub ready: Option<SignedDuration>,
    /// From the lease's acceptance until it was READY.
    pub total: SignedDuration,
}

/// Returns where the start of the replica went that made the lease READY: the last one. Its pod may not be seen ready yet,
/// though its Deployment is; then it was ready `now`.
pub fn cold_start(lease: &Lease, observed: &Observed, now: Timestamp) -> Option<ColdStart> {
    let starts = observed.pods.iter().map(|pod| pod.start);
    let start = starts.max_by_key(|start| start.ready_at)?;
    let ready_at = start.ready_at.unwrap_or(now);
    let mut last = lease.created_at;
    // Kubernetes tells whole seconds, so that a moment may seem to lie before the one that it follows.
    let mut part = |end: Option<Timestamp>| {
        let end = end?.max(last);
        Some(end.duration_since(std::mem::replace(&mut last, end)))
    };
    let (scheduled, fetched) = (part(start.scheduled_at), part(start.fetched_at));
    let (loaded, ready) = (part(start.loaded_at), part(Some(ready_at)));
    Some(ColdStart { scheduled, fetched, loaded, ready, total: last.duration_since(lease.created_at) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lease::Replicas;
    use crate::domain::life::tests::lease;
    use crate::domain::observed::{Objects, PodSeen};

    #[test]
    fn a_start_is_split_at_the_moments_that_are_known() {
        let lease = lease();
        let after = |second: i64| Some(lease.created_at + SignedDuration::from_secs(second));
        let pod = |moments: [i64; 4]| {
            let [scheduled_at, fetched_at, loaded_at, ready_at] =
                moments.map(|second| if second < 0 { None } else { after(second) });
            let start = Start { scheduled_at, fetched_at, loaded_at, ready_at };
            PodSeen { is_ready: true, start, ..PodSeen::default() }
        };
        let told = |pods: Vec<PodSeen>| {
            let replicas = Replicas::default();
            let observed =
                Observed { objects: Objects::Match, replicas, deployment_fault: None, pods, active_at: None };
            cold_start(&lease, &observed, lease.created_at + SignedDuration::from_mins(1)).map(|start| {
                let parts = [start.scheduled, start.fetched, start.loaded, start.ready];
                (parts.map(|part| part.map_or(-1, |part| part.as_secs())), start.total.as_secs())
            })
        };
        assert_eq!(told(vec![pod([2, 7, 9, 10])]), Some(([2, 5, 2, 1], 10)));
        assert_eq!(told(vec![pod([2, 7, -1, 10])]), Some(([2, 5, -1, 3], 10)), "the agent was not reached");
        assert_eq!(told(vec![pod([2, 7, 11, 10])]), Some(([2, 5, 4, 0], 11)), "clocks differ a little");
        assert_eq!(told(vec![pod([2, 7, 9, 20]), pod([1, 2, 3, 4])]), Some(([2, 5, 2, 11], 20)), "the last");
        assert_eq!(told(vec![pod([2, 7, 9, -1])]), Some(([2, 5, 2, 51], 60)), "seen later");
        assert_eq!(told(vec![]), None);
    }
}
