//! Whether leases are used: what their Tritons have counted, compared with the last look. Counters live in memory only; at the
//! first look of a server that begins to look, nobody knows when requests came, and a lease that had any counts as used when looks began.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use super::lease::{Lease, LeaseId};

/// What one pod of a lease has served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// UID of the pod.
    pub pod: String,
    /// Requests that its Triton has answered since it started; `None` where it does not say.
    pub requests: Option<u64>,
}

/// What was counted at the last look.
#[derive(Debug)]
pub struct Usage {
    /// When looks began.
    begun: Timestamp,
    /// When the last look began, or when looks did.
    since: Timestamp,
    /// The leases of the first look of which no Triton has answered yet; all of them before that look is over.
    unheard: Option<BTreeSet<LeaseId>>,
    leases: HashMap<LeaseId, BTreeMap<String, u64>>,
    /// When leases were used last of which that is yet to be written.
    owed: HashMap<LeaseId, Timestamp>,
}

impl Usage {
    /// Begins to look, now.
    pub fn since(now: Timestamp) -> Self {
        Self { begun: now, since: now, unheard: None, leases: HashMap::new(), owed: HashMap::new() }
    }

    /// Takes a look at a lease whose pods have served this, and returns when it was used last, until that is settled.
    ///
    /// A pod that is new counts from zero, and so does one whose Triton has started anew. The first look at a lease that was
    /// ready before the last look says nothing of when its requests came. They count as none where the lease asks for renewal
    /// only now. Where looks have just begun they may have come after the last look of another server, and they count as of
    /// that beginning: a lease may live on for an idle window too long then, and none that is in use ends early.
    pub fn look(&mut self, lease: &Lease, served: &[Served], now: Timestamp) -> Option<Timestamp> {
        if let Some(used_at) = self.used_at(lease, served, now) {
            self.owed.insert(lease.id, used_at);
        }
        self.owed.get(&lease.id).copied()
    }

    /// Says that the use of a lease is written.
    pub fn settle(&mut self, id: LeaseId) {
        self.owed.remove(&id);
    }

    /// Says that a look at all leases, begun at this time, is over, and forgets leases but these.
    pub fn keep(&mut self, leases: &BTreeSet<LeaseId>, begun: Timestamp) {
        self.since = begun;
        let unheard = self.unheard.get_or_insert_with(|| leases.clone());
        unheard.retain(|id| leases.contains(id) && !self.leases.contains_key(id));
        self.leases.retain(|id, _| leases.contains(id));
        self.owed.retain(|id, _| leases.contains(id));
    }

    fn used_at(&mut self, lease: &Lease, served: &[Served], now: Timestamp) -> Option<Timestamp> {
        // Nobody was seen or asked in time: what is known still holds.
        if served.is_empty() {
            return None;
        }
        let counted = || served.iter().filter_map(|seen| Some((seen.pod.clone(), seen.requests?)));
        let is_first = !self.leases.contains_key(&lease.id);
        if is_first && counted().next().is_none() {
            return None;
        }
        let was_ready_before = lease.report.first_ready_at.is_none_or(|ready| ready < self.since);
        let known = self.leases.entry(lease.id).or_default();
        let is_used = counted().any(|(pod, requests)| requests > 0 && known.get(&pod) != Some(&requests));
        // One that does not answer this time keeps its count, so that its past is not taken for news.
        known.retain(|pod, _| served.iter().any(|seen| seen.pod == *pod));
        known.extend(counted());
        let at = match is_first && was_ready_before {
            false => Some(now),
            true if self.unheard.as_ref().is_none_or(|unheard| unheard.contains(&lease.id)) => {
                Some(self.begun)
            }
            true => None,
        };
        at.filter(|_| is_used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::life::tests::lease;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A lease that was first ready at second 100.
    fn ready_lease() -> Lease {
        let mut lease = lease();
        lease.report.first_ready_at = Some(second(100));
        lease
    }

    fn look(usage: &mut Usage, lease: &Lease, served: &[(&str, Option<u64>)]) -> bool {
        let served =
            served.iter().map(|(pod, requests)| Served { pod: (*pod).to_owned(), requests: *requests });
        let is_used = usage.look(lease, &served.collect::<Vec<_>>(), second(300)).is_some();
        usage.settle(lease.id);
        is_used
    }

    #[test]
    fn a_lease_is_used_when_a_counter_moves() {
        let lease = ready_lease();
        let mut usage = Usage::since(second(0));
        type Counts = &'static [(&'static str, Option<u64>)];
        let cases: [(Counts, bool, &str); 9] = [
            (&[], false, "no pods"),
            (&[("a", Some(0))], false, "a new pod that served nothing"),
            (&[("a", Some(3))], true, "requests"),
            (&[("a", Some(3)), ("b", Some(0))], false, "none since"),
            (&[("a", Some(3)), ("b", Some(2))], true, "another pod"),
            (&[("a", None), ("b", Some(2))], false, "one does not answer"),
            (&[("a", Some(3)), ("b", Some(2))], false, "and then says the same"),
            (&[("a", Some(1)), ("b", Some(2))], true, "a Triton that started anew has served one"),
            (&[("a", Some(0)), ("b", Some(2))], false, "and another that started anew has served none"),
        ];
        for (served, is_used, why) in cases {
            assert_eq!(look(&mut usage, &lease, served), is_used, "{why}");
        }
    }

    #[test]
    fn requests_that_came_before_looks_began_count_as_of_then_whenever_a_triton_first_answers() {
        let lease = ready_lease();
        let all = BTreeSet::from([lease.id]);
        for rounds in 0..3 {
            let mut usage = Usage::since(second(200));
            let mut look = |requests, now| {
                let served = [Served { pod: "a".to_owned(), requests }];
                let used_at = usage.look(&lease, &served, second(now));
                usage.settle(lease.id);
                usage.keep(&all, second(now));
                used_at
            };
            for round in 0..rounds {
                assert_eq!(look(None, 210 + round), None, "nothing is known yet");
            }
            assert_eq!(look(Some(7), 220), Some(second(200)), "after {rounds} looks");
            assert_eq!(look(Some(7), 230), None);
            assert_eq!(look(Some(8), 240), Some(second(240)));
        }
        assert_eq!(Usage::since(second(200)).look(&lease, &[], second(210)), None);
    }

    #[test]
    fn requests_before_renewal_was_turned_on_are_no_use() {
        let lease = ready_lease();
        let mut usage = Usage::since(second(0));
        usage.keep(&BTreeSet::new(), second(200));
        assert!(!look(&mut usage, &lease, &[("a", Some(7))]));
        assert!(look(&mut usage, &lease, &[("a", Some(8))]));
    }

    #[test]
    fn use_that_could_not_be_written_is_told_until_it_is() {
        let lease = ready_lease();
        let mut usage = Usage::since(second(0));
        let look = |usage: &mut Usage, requests, now| {
            usage.look(&lease, &[Served { pod: "a".to_owned(), requests }], second(now))
        };
        assert_eq!(look(&mut usage, Some(3), 200), Some(second(200)));
        assert_eq!(look(&mut usage, Some(3), 210), Some(second(200)), "none since");
        assert_eq!(look(&mut usage, None, 220), Some(second(200)), "it does not answer");
        assert_eq!(look(&mut usage, Some(4), 230), Some(second(230)));
        usage.settle(lease.id);
        assert_eq!(look(&mut usage, Some(4), 240), None);
    }

    #[test]
    fn a_pod_that_is_gone_is_forgotten() {
        let lease = ready_lease();
        let mut usage = Usage::since(second(0));
        assert!(look(&mut usage, &lease, &[("a", Some(7))]));
        look(&mut usage, &lease, &[("b", Some(0))]);
        assert_eq!(usage.leases[&lease.id].len(), 1);
        usage.keep(&BTreeSet::new(), second(300));
        assert_eq!(usage.leases.len(), 0);
    }
}
